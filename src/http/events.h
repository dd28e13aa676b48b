/* events: what happens, live, as server-sent events (WHATWG). One ring of the newest events for all clients; each client is a connection that is
 * suspended while there is nothing for it. A client that comes again with Last-Event-ID gets what it missed, or "event: reset" when that is gone. */
#ifndef DMSR_HTTP_EVENTS_H
#define DMSR_HTTP_EVENTS_H
#include "http/http_int.h"

enum { EVENTS_RING = 1024, EVENTS_RING_BYTES = 4 * 1024 * 1024, EVENTS_CLIENTS_MAX = 32, EVENTS_KEEPALIVE_MS = 15000 };

struct events;
struct events_client;
struct events *events_new(struct http *h);      /* observes the engine from now on */
void events_free(struct events *ev);            /* no client is left; NULL is fine */
void events_end(struct events *ev);             /* ends all streams: clients come again by themselves */
/* Makes r a stream (state STREAMING), or sets a reply. job NULL: all; types NULL: all, else separated by commas. Both are copied. */
void events_begin(struct request *r, const char *job, const char *types);
void events_leave(struct request *r);           /* its connection ends */
struct MHD_Response *events_response(struct events_client *c);

#endif
