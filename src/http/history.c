/* history: /events and /jobs/{name}/events: what happened, as pages, or live when the Accept header asks for that. */
#include "http/events.h"
#include "http/resource.h"
#include <string.h>

static bool accepts(const struct request *r, const char *type)
{
	const char *accept = request_header(r, "Accept");
	return accept && strcasestr(accept, type);
}

/* Where the page begins, and which way it goes. A cursor knows its own way: one of the other is refused, not followed in the wrong direction. */
static bool query_place(struct request *r, int64_t *after)
{
	const char *order = uri_param(&r->uri, "order");
	bool back = order && !strcmp(order, "desc");
	if (!query_cursor_id(r, STORE_NEWEST, after))
		return false;
	if (order && !back && strcmp(order, "asc") != 0)
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"order\" must be asc or desc");
	else if (order && *after && back != (*after < 0))
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"cursor\" is of an answer in the other order");
	else if (back && !*after)
		*after = STORE_NEWEST;
	return !r->reply.status;
}

static void history(struct request *r, const char *name)
{
	int64_t after;
	int limit;
	if (uri_param(&r->uri, "types") || (!name && uri_param(&r->uri, "job")))
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "\"types\" and \"job\" go with Accept: text/event-stream");
	else if (query_limit(r, &limit) && query_place(r, &after))
		engine_events(r->http->engine, name, after, limit, call_new(r, finish_page, name, -1));
}

static void live(struct request *r, const char *job)
{
	const char *types = uri_param(&r->uri, "types");
	if (uri_param(&r->uri, "cursor") || uri_param(&r->uri, "limit") || uri_param(&r->uri, "order"))
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "\"cursor\", \"limit\" and \"order\" are for pages; a stream has Last-Event-ID");
	else if (types && (!*types || types[strspn(types, "abcdefghijklmnopqrstuvwxyz-,")]))
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"types\" must be as state,progress,error");
	else
		events_begin(r, job, types);
}

void events_job(struct request *r)
{
	const char *name;
	json_t *job = resource_job(r, &name, NULL);
	if (job && accepts(r, "text/event-stream"))
		live(r, name);
	else if (job)
		history(r, name);
	json_decref(job);
}

void events_all(struct request *r)
{
	if (accepts(r, "text/event-stream"))
		live(r, uri_param(&r->uri, "job"));
	else
		history(r, NULL);
}
