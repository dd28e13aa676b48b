/* auth: who may ask. Tokens, Host, Origin. Knows no connection; pure but for reading the tokens' files. */
#ifndef DMSR_HTTP_AUTH_H
#define DMSR_HTTP_AUTH_H
#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct auth;
/* tokens: {"ops": {"file"|"env"|"credential": where} | {"sha256": hex}}; hosts, origins: lists of text; each NULL: none.
 * NULL with DMSR_EINVAL "http.token" (no value, shorter than 16 characters), "http.allowed-hosts", "http.allowed-origins". */
struct auth *auth_new(const json_t *tokens, const json_t *hosts, const json_t *origins, struct err *e);
void auth_free(struct auth *a);         /* NULL is fine */
bool auth_has_tokens(const struct auth *a);

/* The Authorization header (NULL: none) -> "token:NAME" in actor. Takes the same time whatever it holds. DMSR_EAUTH "auth.missing", "auth.invalid". */
int auth_token(const struct auth *a, const char *authorization, char *actor, size_t size, struct err *e);
/* A browser that was led here by a foreign name (DNS rebinding) sends that name: only addresses, localhost and the allowed names are served.
 * DMSR_EINVAL "header.invalid", "host.not-allowed". */
int auth_host(const struct auth *a, const char *host, struct err *e);
/* A page that is not ours may send but not ask. origin NULL: no browser. Its own host is fine; foreign: it is another one, but allowed.
 * DMSR_EAUTH "origin.not-allowed". */
int auth_origin(const struct auth *a, const char *origin, const char *host, bool tls, bool *foreign, struct err *e);

#endif
