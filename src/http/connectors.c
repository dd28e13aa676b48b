/* connectors: /connectors: what there is, with the schemas of the options. */
#include "http/http_int.h"

void connectors_list(struct request *r) { reply_json(&r->reply, 200, engine_connectors(r->http->engine)); }

void connectors_get(struct request *r)
{
	json_t *one = engine_connector(r->http->engine, r->args[0]);
	if (one)
		reply_json(&r->reply, 200, one);
	else
		reply_error(&r->reply, DMSR_ENOTFOUND, "connector.not-found", "there is no connector \"%.64s\"", r->args[0]);
}
