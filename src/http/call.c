/* call: questions that the engine answers later.
 *
 * A call outlives its request when the client goes away or was told "timeout", and outlives even the server when that is closed first: what the engine
 * holds is the call alone, which knows who is still there. */
#include "base/mem.h"
#include "http/http_int.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call {
	struct call *prev, *next;
	struct http *http;              /* NULL: closed */
	struct request *request;        /* NULL: gone */
	struct engine_call engine;
	call_finish *finish;
	char *name;
	char actor[96], request_id[REQUEST_ID_BYTES];
	struct idempotency *idempotency;
	struct reply reply;
};

static void unlink_call(struct call *c)
{
	if (!c->http)
		return;
	if (c->prev)
		c->prev->next = c->next;
	else
		c->http->calls = c->next;
	if (c->next)
		c->next->prev = c->prev;
}

/* The reply is final, and its key durable. */
static void deliver(void *arg)
{
	struct call *c = arg;
	struct request *r = c->request;
	unlink_call(c);
	if (r) {
		r->call = NULL;
		reply_fini(&r->reply);
		r->reply = c->reply;
		r->reply.request_id = r->id;
		memset(&c->reply, 0, sizeof c->reply);
		request_resume(r);
	}
	reply_fini(&c->reply);
	free(c->name);
	free(c);
}

static void on_done(void *arg, const json_t *result, const struct err *e, const json_t *errors)
{
	struct call *c = arg;
	assert(!c->request || c->request->state == REQUEST_WAITING); /* the engine never answers inside the call */
	if (err_is_set(e))
		reply_problem(&c->reply, e, errors);
	else
		c->finish(&c->reply, c->name, result);
	if (c->idempotency)
		idempotency_end(c->idempotency, &c->reply, deliver, c);
	else
		deliver(c);
}

const struct engine_call *call_new(struct request *r, call_finish *finish, const char *name, int64_t if_generation)
{
	struct call *c = mem_zalloc(sizeof *c);
	c->http = r->http;
	c->request = r;
	c->finish = finish;
	c->name = mem_strdup(name);
	snprintf(c->actor, sizeof c->actor, "%s", r->actor);
	snprintf(c->request_id, sizeof c->request_id, "%s", r->id);
	c->reply.request_id = c->request_id;
	c->idempotency = idempotency_take(r);
	c->engine = (struct engine_call){ .actor = c->actor, .if_generation = if_generation, .done = on_done, .arg = c };
	c->next = r->http->calls;
	if (c->next)
		c->next->prev = c;
	r->http->calls = c;
	assert(!r->call);
	r->call = c;
	return &c->engine;
}

void call_forget(struct request *r)
{
	if (r->call)
		r->call->request = NULL;
	r->call = NULL;
}

void calls_forget_http(struct http *h)
{
	for (struct call *c = h->calls, *next; c; c = next) {
		next = c->next;
		c->prev = c->next = NULL;
		c->http = NULL;
		c->request = NULL;
	}
	h->calls = NULL;
}
