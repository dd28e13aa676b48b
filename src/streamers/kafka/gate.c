/* gate: what a topic's records go through on their way to librdkafka. Rule 12 of kafka.h.
 *
 * A record that librdkafka has, and may not send yet, costs nothing until it has waited for linger; then the broker's thread spins. Of an idempotent producer
 * it may not be sent while five others of its partition are under way, since librdkafka takes records for requests when it counts those. So a gate is open
 *
 *   while few are under way, or
 *   for linger from the first on, when none was, for what goes in one request to each partition, or
 *   while brokers answer within linger, for two: one that is under way, and one that fills.
 *
 * What comes to a closed one waits, all in their order, and goes in one go when nothing is under way any more, or the brokers are quick and there is room. */
#include "kafka.h"
#include <assert.h>
#include <stdlib.h>

enum { BATCH_BYTES = 1000000, BATCH_RECORDS = 10000, FEW = 5 };  /* librdkafka's: batch.size, batch.num.messages, RD_KAFKA_IDEMP_MAX_INFLIGHT */
enum { FRAME_BYTES = 1024, RECORD_FRAME = 200 };                /* of a request; of a record, with the small headers */

/* In its flight's memory, with what it points to. */
struct waiting {
	struct waiting *next;
	struct flight *f;
	struct record r;
};

struct gate {
	const struct topic *topic;
	struct gate *next;              /* in k->opening */
	bool is_opening;
	struct waiting *first, *last;
	uint32_t partitions;            /* that are known to be there */
	uint32_t pending;               /* given, and not acknowledged */
	size_t bytes;                   /* of these, or more: big headers are in it until nothing is pending */
	uint64_t since_us;              /* when the first was given behind which none was pending */
	uint64_t newest_us, took_us;    /* from giving to report, of the newest that was looked at; of those that took long, lately */
};

struct gate *gate_new(const struct topic *t)
{
	struct gate *g = mem_alloc(sizeof *g);
	*g = (struct gate){ .topic = t, .partitions = 1 };
	return g;
}

static size_t size_of(const struct record *r) { return r->key_len + r->len + r->headers_len + RECORD_FRAME; }

/* One that is answered within linger was given no longer ago than twice that. */
static bool is_quick(const struct kafka *k, const struct gate *g) { return g->took_us < 2 * k->linger_us; }

static bool is_open(const struct kafka *k, const struct gate *g, const struct record *r)
{
	const size_t max = k->record_max + RECORD_MARGIN < BATCH_BYTES ? k->record_max + RECORD_MARGIN : BATCH_BYTES;
	const size_t requests = is_quick(k, g) ? 2 * g->partitions : g->partitions;
	if (g->pending < FEW)
		return true;
	if (g->pending >= requests * BATCH_RECORDS || g->bytes + size_of(r) > requests * (max - FRAME_BYTES))
		return false;
	return is_quick(k, g) || loop_now_us(k->host.env.loop) - g->since_us < (k->linger_us ? k->linger_us : KAFKA_SLICE_US);
}

static rd_kafka_headers_t *headers_of(const struct record *r)
{
	if (!r->nheaders)
		return NULL;
	rd_kafka_headers_t *h = rd_kafka_headers_new(r->nheaders);
	for (unsigned i = 0; i < r->nheaders; i++)
		rd_kafka_header_add(h, r->headers[i].name, -1, r->headers[i].value, (ssize_t)r->headers[i].len);
	return h;
}

static rd_kafka_resp_err_t give(struct kafka *k, struct gate *g, struct flight *f, const struct record *r, int how)
{
	void *key = (void *)(uintptr_t)r->key, *value = (void *)(uintptr_t)r->value; /* librdkafka writes to neither */
	rd_kafka_headers_t *headers = headers_of(r);
	rd_kafka_resp_err_t code = rd_kafka_producev(client_handle(k->producer), RD_KAFKA_V_RKT(g->topic->rkt), RD_KAFKA_V_PARTITION(r->partition),
		RD_KAFKA_V_MSGFLAGS(how), RD_KAFKA_V_KEY(key, r->key_len), RD_KAFKA_V_VALUE(value, r->len), RD_KAFKA_V_HEADERS(headers),
		RD_KAFKA_V_OPAQUE(r->sent ? r->sent : &f->self), RD_KAFKA_V_END);
	if (code) {
		if (headers)
			rd_kafka_headers_destroy(headers);
		return code;
	}
	if (!g->pending) {
		g->bytes = 0;
		g->since_us = loop_now_us(k->host.env.loop);
	}
	g->pending++;
	g->bytes += size_of(r);
	return 0;
}

/* ---- what waits ---- */

static char *place(char **at, const char *from, size_t len)
{
	char *to = memcpy(*at, from, len);
	*at += len;
	return to;
}

/* The value is there already. */
static void keep(struct kafka *k, struct gate *g, struct flight *f, const struct record *r)
{
	size_t len = sizeof(struct waiting) + r->key_len;
	for (unsigned i = 0; i < r->nheaders; i++)
		len += r->headers[i].len;
	struct waiting *w = arena_alloc(&f->records, len);
	char *at = (char *)(w + 1);
	*w = (struct waiting){ .f = f, .r = *r };
	if (r->key)
		w->r.key = place(&at, r->key, r->key_len);
	for (unsigned i = 0; i < r->nheaders; i++)
		w->r.headers[i].value = place(&at, r->headers[i].value, r->headers[i].len);
	if (g->last)
		g->last->next = w;
	else
		g->first = w;
	g->last = w;
	k->waiting += size_of(r);
}

static rd_kafka_resp_err_t give_first(struct kafka *k, struct gate *g)
{
	struct waiting *w = g->first;
	rd_kafka_resp_err_t code = give(k, g, w->f, &w->r, 0);
	if (code)
		return code;
	k->waiting -= size_of(&w->r);
	g->first = w->next;
	if (!g->first)
		g->last = NULL;
	return 0;
}

/* False: the slice is over. */
static bool open_gate(struct kafka *k, struct gate *g)
{
	enum { LOOK_EVERY = 32 };
	for (unsigned n = 1; g->first && kafka_may_send(k) && is_open(k, g, &g->first->r); n++) {
		rd_kafka_resp_err_t code = give_first(k, g);
		if (code)
			refused(k, code, g->topic->name);
		else if (n % LOOK_EVERY == 0 && kafka_slice_is_over(k))
			return false;
	}
	return true;
}

/* ---- in, through, and back ---- */

rd_kafka_resp_err_t gate_pass(struct kafka *k, const struct topic *t, struct flight *f, const struct record *r)
{
	struct gate *g = t->gate;
	if (t->is_compacted)
		return give(k, g, f, r, RD_KAFKA_MSG_F_COPY);
	struct record own = *r;
	if (r->value)
		own.value = memcpy(arena_alloc(&f->records, r->len), r->value, r->len);
	if (!g->first && is_open(k, g, r))
		return give(k, g, f, &own, 0);
	keep(k, g, f, &own);
	return 0;
}

/* What waits for long is in no cache any more when it goes, and a batch takes less memory than its records. */
bool gate_takes(const struct kafka *k)
{
	enum { OF_MEMORY = 8, AT_LEAST = 1 << 19 };
	return k->waiting <= AT_LEAST || k->waiting <= k->memory_max / OF_MEMORY;
}

void gate_took(const rd_kafka_message_t *m)
{
	struct gate *g = ((struct topic *)rd_kafka_topic_opaque(m->rkt))->gate;
	g->newest_us = (uint64_t)rd_kafka_message_latency(m);
}

void gate_acknowledged(struct kafka *k, const rd_kafka_message_t *m)
{
	enum { FADES = 8 };
	struct gate *g = ((struct topic *)rd_kafka_topic_opaque(m->rkt))->gate;
	const size_t size = m->key_len + m->len + RECORD_FRAME;
	assert(g->pending);
	g->pending--;
	g->bytes -= size < g->bytes ? size : g->bytes;
	g->took_us = g->newest_us > g->took_us ? g->newest_us : g->took_us - (g->took_us - g->newest_us) / FADES;
	if (m->partition >= 0 && (uint32_t)m->partition >= g->partitions)
		g->partitions = (uint32_t)m->partition + 1;
	if (!g->first || g->is_opening || (g->pending && !is_quick(k, g)))
		return;
	g->is_opening = true;
	g->next = k->opening;
	k->opening = g;
	kafka_wake(k);
}

void gate_turn(struct kafka *k)
{
	while (k->opening && kafka_may_send(k)) {
		struct gate *g = k->opening;
		if (!open_gate(k, g)) {
			kafka_wake(k);
			return;
		}
		k->opening = g->next;
		g->is_opening = false;
	}
}

void gate_free(struct gate *g) { free(g); }
