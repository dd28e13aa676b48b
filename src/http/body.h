/* body: a request's bytes -> JSON. Pure; fuzzed. */
#ifndef DMSR_HTTP_BODY_H
#define DMSR_HTTP_BODY_H
#include "base/err.h"
#include "engine/options.h"
#include <stdbool.h>

enum { BODY_DEPTH_MAX = 32 };
/* Exactly one JSON object, no duplicate keys, at most BODY_DEPTH_MAX deep. NULL with DMSR_EINVAL "json.malformed" (with line and column; never with text of
 * the body: it may be a secret), "json.too-deep", "json.not-object". A key that is there twice is in found, too, by its pointer. */
json_t *body_parse(const char *data, size_t n, problems *found, struct err *e);
/* Nothing but white space, or {}? */
bool body_is_empty(const char *data, size_t n);
/* Is content_type (NULL: none given) the JSON that is wanted? patch: merge-patch+json is good too. "; charset=utf-8" may follow, no other charset. */
bool body_is_json(const char *content_type, bool patch);

#endif
