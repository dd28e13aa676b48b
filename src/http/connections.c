/* connections: /connections/test and /connections/discover: questions about a server, before there is a job. */
#include "http/resource.h"

void connections_test(struct request *r) { engine_check(r->http->engine, r->json, call_new(r, finish_plain, NULL, -1)); }

void connections_discover(struct request *r) { engine_discover(r->http->engine, r->json, call_new(r, finish_plain, NULL, -1)); }
