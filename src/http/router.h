/* router: the one table of what can be asked. openapi.c writes the document from it. */
#ifndef DMSR_HTTP_ROUTER_H
#define DMSR_HTTP_ROUTER_H
#include "http/reply.h"
#include "http/uri.h"

enum { METHOD_GET = 1, METHOD_POST = 2, METHOD_PUT = 4, METHOD_PATCH = 8, METHOD_DELETE = 16, METHOD_OPTIONS = 32, ROUTE_ARGS_MAX = 3 };
enum route_flags {
	ROUTE_PUBLIC = 1,       /* needs no token */
	ROUTE_LIVE = 2,         /* answers text/event-stream, too */
	ROUTE_MATCH = 4,        /* needs If-Match when the job exists */
	ROUTE_CHANGES = 8,      /* refused while the daemon drains */
	ROUTE_TEXT = 16,        /* does not answer JSON */
};
struct request;
struct route {
	unsigned methods;
	const char *pattern;    /* "/jobs/{name}/status" */
	unsigned flags;
	const char *query;      /* names of its parameters, separated by spaces; NULL: none */
	void (*run)(struct request *r); /* sets r->reply, or begins a call or a stream */
	const char *body;       /* the schema of the JSON body that it needs; NULL: none but {} is taken */
	const char *answers;    /* each status of success with the schema of its body: "201:Job 304" */
	const char *summary;    /* one line */
};
extern const struct route routes[];     /* ends with pattern NULL */

unsigned method_parse(const char *method);      /* 0: unknown; HEAD is METHOD_GET */
const char *method_name(unsigned method);
/* The route, with what stands for {..} in args. NULL: allow tells the methods that the path has, 0: no such path. */
const struct route *route_find(unsigned method, const struct uri *u, const char *args[ROUTE_ARGS_MAX], unsigned *allow);
/* Of a path that there is not: the segment that may have been meant for one of its. false: none. */
bool route_near(const struct uri *u, char *word, size_t size);
/* All parameters known and given once? DMSR_EINVAL "query.unknown", "query.invalid". */
int route_check_query(const struct route *route, const struct uri *u, struct err *e);
/* "GET, HEAD, POST" */
const char *methods_text(unsigned set, char *out, size_t size);

/* Typed parameters; a reply is set when they return false. */
bool query_bool(struct request *r, const char *name, bool *out);                        /* absent: false; "", 1, true; 0, false */
enum { LIMIT_MAX = 500 };
bool query_limit(struct request *r, int *out);                                          /* 1..500, absent: 50 */
bool query_cursor(struct request *r, char **out);                                       /* heap, NULL: absent */
bool query_cursor_id(struct request *r, int64_t min, int64_t *out);                     /* absent: 0 */

/* The resources' handlers, one file each. */
void jobs_list(struct request *r);
void jobs_create(struct request *r);
void jobs_get(struct request *r);
void jobs_replace(struct request *r);
void jobs_patch(struct request *r);
void jobs_delete(struct request *r);
void jobs_command(struct request *r);
void jobs_validate(struct request *r);
void jobs_status(struct request *r);
void jobs_tables(struct request *r);
void jobs_positions(struct request *r);
void jobs_table_reload(struct request *r);
void jobs_positions_set(struct request *r);
void jobs_errors(struct request *r);
void jobs_errors_delete(struct request *r);
void events_job(struct request *r);
void events_all(struct request *r);
void connections_test(struct request *r);
void connections_discover(struct request *r);
void connectors_list(struct request *r);
void connectors_get(struct request *r);
void health_livez(struct request *r);
void health_readyz(struct request *r);
void health_version(struct request *r);
void metrics_get(struct request *r);
void loggers_list(struct request *r);
void loggers_get(struct request *r);
void loggers_put(struct request *r);
void openapi_get(struct request *r);
void index_get(struct request *r);

#endif
