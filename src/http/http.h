/* http: the API, as dmsr-api(7) has it, on a TCP port and a unix socket. libmicrohttpd's epoll descriptors hang on our loop; nothing blocks.
 *
 * In: the configuration's http.* settings, and requests. Out: calls of engine.h, and JSON. It owns its sockets, connections and event streams; it knows
 * the engine alone. */
#ifndef DMSR_HTTP_HTTP_H
#define DMSR_HTTP_HTTP_H
#include "engine/config.h"
#include "engine/engine.h"

struct http;
/* Listens on http.listen ("" : no port) and http.socket ("": none): what is in the way of that is known before anything else is made. Nobody is answered yet.
 * DMSR_ESTATE "http.port-taken", "http.socket-taken"; DMSR_EINVAL "http.insecure" (off loopback without TLS and a token), "http.listen", "http.tls",
 * "http.token"; DMSR_EIO "http.socket". */
int http_open(struct loop *l, const struct config *c, struct http **out, struct err *e);
/* Answers from the loop's next turn on. engine stays the caller's and outlives http. On an error h is still the caller's to close. */
int http_serve(struct http *h, const struct config *c, struct engine *g, struct err *e);
/* SIGHUP: tokens, TLS keys, allowed hosts and origins, limits. Requests under way go on, event streams are asked to come again. On an error all stays as
 * it was. The addresses themselves do not change: http.listen and http.socket need a restart. */
int http_reload(struct http *h, const struct config *c, struct err *e);
/* Answers what still waits with 503 and closes everything; the socket's file is removed. An engine_done that comes later is harmless. NULL is fine. */
void http_close(struct http *h);
/* Where it listens ("127.0.0.1:8080"), for the line in the log and for tests that asked for port 0; "" when there is no port. */
const char *http_address(const struct http *h);

#endif
