/* uri: the target of a request, taken apart. Pure; fuzzed.
 *
 * Paths are cut at '/' before they are decoded, so that "%2f" is a byte of a name and never a separator, and "." and ".." mean nothing. */
#ifndef DMSR_HTTP_URI_H
#define DMSR_HTTP_URI_H
#include "base/arena.h"
#include "base/err.h"

enum { URI_SEGMENTS_MAX = 8, URI_PARAMS_MAX = 16, URI_BYTES_MAX = 8192 };
struct uri_param { const char *name, *value; }; /* decoded; value "" when there was none */
struct uri {
	struct arena arena;                     /* owns what follows */
	const char *path;                       /* as it came, without the query */
	const char *segments[URI_SEGMENTS_MAX]; /* decoded; "/" has none */
	size_t nsegments;
	struct uri_param params[URI_PARAMS_MAX];
	size_t nparams;
};
/* raw: origin form ("/jobs?limit=2"). DMSR_EINVAL "uri.malformed" (bad escape, NUL or other control byte, not UTF-8, no leading slash), "uri.too-long".
 * u is initialized in any case, and path is set as far as it can be. */
int uri_parse(const char *raw, struct uri *u, struct err *e);
void uri_fini(struct uri *u);
const char *uri_param(const struct uri *u, const char *name); /* NULL: not given */

#endif
