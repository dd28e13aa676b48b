/* stat: what the server counts of itself, for /metrics. */
#ifndef DMSR_HTTP_STAT_H
#define DMSR_HTTP_STAT_H
#include "base/loop.h"

struct route;
struct map;
struct http_stat {
	struct map *requests;           /* "route method code" -> struct request_count; a bounded set: routes x methods x our statuses */
	struct loop_slices durations;
	uint64_t auth_failures, cut;    /* cut: connections that were too slow */
	unsigned connections, events_clients;
};
struct request_count {
	const char *route;
	unsigned method;
	int status;
	uint64_t n;
};
struct http_stat *http_stat_new(void);
void http_stat_free(struct http_stat *s);
void http_stat_request(struct http_stat *s, const struct route *route, unsigned method, int status, uint64_t us);

#endif
