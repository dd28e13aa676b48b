/* events: a ring of what happened, and the clients that follow it. */
#include "http/events.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/stat.h"
#include "http/text.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENT_BYTES_MAX = 2 * EVENTS_RING_BYTES, CLIENT_FILL_BYTES = 16 * 1024, BLOCK_BYTES = 4096 };

struct event {
	uint64_t id;
	char *type, *job, *text; /* text: as it is sent */
	size_t len;
};
struct events {
	struct http *http;
	struct engine_observer *observer;
	struct event ring[EVENTS_RING];
	size_t first, n, bytes;
	uint64_t newest, dropped;       /* ids; 0: none */
	struct events_client *clients;
	struct loop_timer *keepalive;
};

/* Held by its request and by libmicrohttpd's response; the last one frees it. */
struct events_client {
	struct events_client *prev, *next;
	struct events *events;          /* NULL: left */
	struct served *served;
	struct MHD_Connection *mhd;
	int holders;
	char *job, *types;              /* types: ",state,error," */
	uint64_t last;                  /* id of the newest event sent or passed over */
	bool reset, alive, suspended, ended;
	struct buf out;
};

static struct event *at(struct events *ev, size_t i) { return &ev->ring[(ev->first + i) % EVENTS_RING]; }

/* ---- the ring ---------------------------------------------------------------------------------------------------- */
static void drop_oldest(struct events *ev)
{
	struct event *e = at(ev, 0);
	ev->dropped = e->id;
	ev->bytes -= e->len;
	free(e->type);
	free(e->job);
	free(e->text);
	ev->first = (ev->first + 1) % EVENTS_RING;
	ev->n--;
}

static bool wants(const struct events_client *c, const struct event *e)
{
	char word[64];
	if (c->job && (!e->job || strcmp(c->job, e->job) != 0))
		return false;
	snprintf(word, sizeof word, ",%.60s,", e->type);
	return !c->types || strstr(c->types, word);
}

static void wake(struct events_client *c)
{
	if (!c->suspended)
		return;
	c->suspended = false;
	served_resume(c->served, c->mhd);
}

static char *event_text(const struct events *ev, uint64_t id, const char *type, const char *job, const json_t *data)
{
	json_t *o = json_is_object(data) ? json_copy((json_t *)(uintptr_t)data) : json_object();
	if (data && !json_is_object(data))
		json_object_set(o, "data", (json_t *)(uintptr_t)data);
	if (job)
		json_object_set_new(o, "job", text_json(job));
	char *json = json_dumps(o, TEXT_JSON); /* one line: JSON has no raw line breaks */
	char *text = mem_printf("id: %08x-%" PRIu64 "\nevent: %s\ndata: %s\n\n", ev->http->boot, id, type, json);
	free(json);
	json_decref(o);
	return text;
}

static void on_event(void *arg, uint64_t id, const char *type, const char *job, const json_t *data)
{
	struct events *ev = arg;
	char *text = event_text(ev, id, type, job, data);
	size_t len = strlen(text);
	while (ev->n && (ev->n == EVENTS_RING || ev->bytes + len > EVENTS_RING_BYTES))
		drop_oldest(ev);
	*at(ev, ev->n++) = (struct event){ .id = id, .type = mem_strdup(type), .job = mem_strdup(job), .text = text, .len = len };
	ev->bytes += len;
	ev->newest = id;
	for (struct events_client *c = ev->clients; c; c = c->next)
		if (wants(c, at(ev, ev->n - 1)))
			wake(c);
}

static void on_keepalive(void *arg)
{
	struct events *ev = arg;
	for (struct events_client *c = ev->clients; c; c = c->next) {
		c->alive = true;
		wake(c);
	}
	if (ev->clients)
		loop_timer_start(ev->keepalive, EVENTS_KEEPALIVE_MS);
}

struct events *events_new(struct http *h)
{
	struct events *ev = mem_zalloc(sizeof *ev);
	ev->http = h;
	ev->keepalive = loop_timer_new(h->loop, "http", on_keepalive, ev);
	ev->observer = engine_observe(h->engine, on_event, ev);
	engine_observe_progress(ev->observer, false);
	return ev;
}

void events_free(struct events *ev)
{
	if (!ev)
		return;
	assert(!ev->clients);
	engine_unobserve(ev->observer);
	loop_timer_free(ev->keepalive);
	while (ev->n)
		drop_oldest(ev);
	free(ev);
}

void events_end(struct events *ev)
{
	for (struct events_client *c = ev->clients; c; c = c->next) {
		c->ended = true;
		wake(c);
	}
}

/* ---- a client ---------------------------------------------------------------------------------------------------- */
/* Moves what the client has not seen from the ring to its buffer, up to a piece. */
static void fill(struct events_client *c)
{
	struct events *ev = c->events;
	if (c->last < ev->dropped) {
		c->reset = true;
		c->last = ev->dropped;
	}
	if (c->reset)
		buf_str(&c->out, "event: reset\ndata: {}\n\n");
	c->reset = false;
	size_t i = ev->n;
	while (i > 0 && at(ev, i - 1)->id > c->last)
		i--;
	for (; i < ev->n && c->out.len < CLIENT_FILL_BYTES; i++) {
		struct event *e = at(ev, i);
		c->last = e->id;
		if (wants(c, e))
			buf_append(&c->out, e->text, e->len);
	}
	if (c->alive && !c->out.len)
		buf_str(&c->out, ":keepalive\n\n");
	c->alive = false;
}

static ssize_t on_read(void *arg, uint64_t pos, char *data, size_t max)
{
	struct events_client *c = arg;
	(void)pos;
	if (!c->events || c->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!c->out.len)
		fill(c);
	if (!c->out.len) {
		c->suspended = true;
		MHD_suspend_connection(c->mhd);
		return 0;
	}
	size_t n = c->out.len < max ? c->out.len : max;
	memcpy(data, c->out.data, n);
	buf_consume(&c->out, n);
	return (ssize_t)n;
}

static void release(void *arg)
{
	struct events_client *c = arg;
	if (--c->holders)
		return;
	free(c->job);
	free(c->types);
	buf_fini(&c->out);
	free(c);
}

/* Last-Event-ID is "BOOT-ID": what another life of the daemon numbered says nothing here. */
static void start_from(struct events_client *c, const char *last)
{
	struct events *ev = c->events;
	char boot[16];
	char *end = NULL;
	c->last = ev->newest;
	if (!last || !*last)
		return;
	size_t n = (size_t)snprintf(boot, sizeof boot, "%08x-", ev->http->boot);
	uint64_t id = strncmp(last, boot, n) == 0 ? strtoull(last + n, &end, 10) : UINT64_MAX;
	if (id > ev->newest || (end && *end))
		c->reset = true;
	else
		c->last = id;
}

void events_begin(struct request *r, const char *job, const char *types)
{
	struct events *ev = r->http->events;
	struct http_stat *stat = r->http->stat;
	if (stat->events_clients >= EVENTS_CLIENTS_MAX || stat->events_clients >= (r->http->limits.connections_max + 1) / 2) {
		reply_error(&r->reply, DMSR_EFULL, "events.too-many", "%u clients follow the events already", stat->events_clients);
		return;
	}
	struct events_client *c = mem_zalloc(sizeof *c);
	c->events = ev;
	c->served = r->served;
	c->mhd = r->mhd;
	c->holders = 1;
	c->job = mem_strdup(job);
	c->types = types ? mem_printf(",%s,", types) : NULL;
	buf_init(&c->out, CLIENT_BYTES_MAX);
	buf_str(&c->out, "retry: 3000\n\n"); /* also: something to send at once, so that the client knows it is in */
	start_from(c, request_header(r, "Last-Event-ID"));
	c->next = ev->clients;
	if (c->next)
		c->next->prev = c;
	ev->clients = c;
	engine_observe_progress(ev->observer, true);
	stat->events_clients++;
	if (!loop_timer_is_running(ev->keepalive))
		loop_timer_start(ev->keepalive, EVENTS_KEEPALIVE_MS);
	r->stream = c;
	r->state = REQUEST_STREAMING;
	r->reply.status = 200;
	r->reply.type = "text/event-stream";
}

void events_leave(struct request *r)
{
	struct events_client *c = r->stream;
	if (!c)
		return;
	if (c->prev)
		c->prev->next = c->next;
	else
		c->events->clients = c->next;
	if (c->next)
		c->next->prev = c->prev;
	r->http->stat->events_clients--;
	if (!c->events->clients) /* of a thousand jobs it costs more than all else that they do; and it would drive what nobody has seen yet out of the ring */
		engine_observe_progress(c->events->observer, false);
	c->events = NULL;
	r->stream = NULL;
	release(c);
}

struct MHD_Response *events_response(struct events_client *c)
{
	struct MHD_Response *m = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, on_read, c, release);
	if (m)
		c->holders++;
	return m;
}
