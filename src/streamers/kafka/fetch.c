/* fetch: rows at their places. See fetch.h. */
#include "fetch.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { LANES = 8, ROUND_OF = 4 /* of the memory */, ITEMS_MAX = 4096, ROW_BYTES = 160 };
enum { TURN_MS = 500, TURNS = 60, SLICE_MS = 50, ASK_MS = 500, LOST_MS = 10000, SHAPE_MS = 10000, TELL_MS = 30000 };

/* A row that is wanted, and what is there. */
struct need {
	int64_t offset;
	uint64_t lsn, event;            /* what must stand there */
	char *value;                    /* NULL: not fetched yet */
	size_t len;
	char schema[16];
};

enum stand {
	STAND_READING,
	STAND_BEYOND,                   /* the partition ends before it */
	STAND_OPEN,                     /* it is behind somebody's open transaction */
	STAND_AWAY,                     /* there is no such partition */
};

/* All that is wanted of one partition. */
struct want {
	const char *topic;
	int32_t partition;
	struct need **needs;
	size_t n, at, cap;
	enum stand stand;
	rd_kafka_topic_t *rkt;          /* while it is read */
};

struct item {
	struct item *next;
	struct index *x;
	struct place place;
	size_t bytes;
	struct round *round;            /* NULL: none yet */
	struct need *needs;             /* one for each spot */
	size_t at;                      /* spots that are decoded */
	bool is_there;
};

struct topics {
	rd_kafka_t *rk;
	struct map *all;                /* the thread's: by name, rd_kafka_topic_t */
};

struct round {
	struct fetch *f;
	struct worker *worker;
	struct topics *topics;
	struct item *first, *last;      /* those that it is for */
	struct want *wants;
	size_t nwants, cap, begun, active;
	struct want *lanes[LANES];
	rd_kafka_queue_t *q;
	bool has_progress;
	bool is_posted;
	struct err error, passing;      /* passing: one that librdkafka tries again after, by itself */
};

struct fetch {
	struct kafka *k;
	void (*fail)(void *arg, struct err *e);
	void *arg;
	struct client *client;
	struct topics *topics;
	struct item *first, *last;
	struct item *next;              /* the first that is in no round */
	size_t bytes, nitems;
	struct round *round;            /* under way; NULL: none */
	uint64_t stalled_us, told_us;   /* since when it stands still; when that was told */
	uint64_t shape_us;              /* since when a shape is waited for; 0: none is */
};

static uint64_t now_us(const struct fetch *f) { return loop_now_us(f->k->host.env.loop); }

/* ---- on the thread ---- */

static rd_kafka_topic_t *topic_of(struct topics *t, const char *name)
{
	rd_kafka_topic_t *rkt = map_get(t->all, name, strlen(name));
	if (!rkt && (rkt = rd_kafka_topic_new(t->rk, name, NULL)))
		map_put(t->all, name, strlen(name), rkt);
	return rkt;
}

static void begin(struct round *r, struct want *w)
{
	w->rkt = topic_of(r->topics, w->topic);
	if (w->rkt && !rd_kafka_consume_start_queue(w->rkt, w->partition, w->needs[w->at]->offset, r->q))
		r->lanes[r->active++] = w;
	else
		kafka_error(&r->error, rd_kafka_last_error(), w->topic, NULL);
}

static void end(struct round *r, size_t lane)
{
	struct want *w = r->lanes[lane];
	rd_kafka_consume_stop(w->rkt, w->partition);
	r->lanes[lane] = r->lanes[--r->active];
}

static void lost(struct round *r, const struct want *w, const char *how)
{
	err_set(&r->error, DMSR_EFATAL, "kafka.topic-lost", "topic %s, partition %d: the row at offset %" PRId64 ", which a target has not got yet, is not "
		"there any more: %s", w->topic, (int)w->partition, w->needs[w->at]->offset, how);
}

static void retained(struct round *r, const struct want *w, int64_t low)
{
	err_set(&r->error, DMSR_EFATAL, "kafka.retention", "topic %s, partition %d begins at offset %" PRId64 ", and the row at offset %" PRId64 ", which a "
		"target has not got yet, is not there any more: it was kept for a shorter time than the target was behind", w->topic, (int)w->partition, low,
		w->needs[w->at]->offset);
}

static void on_row(struct round *r, size_t lane, const rd_kafka_message_t *m)
{
	struct want *w = r->lanes[lane];
	struct need *n = w->needs[w->at];
	rd_kafka_headers_t *h;
	const void *schema;
	struct stamp t;
	struct err e = { 0 };
	size_t len;
	char how[160];
	w->stand = STAND_READING;
	if (m->offset < n->offset)
		return;
	if (m->offset > n->offset) {
		snprintf(how, sizeof how, "the next one stands at offset %" PRId64 ": the topic is compacted, was made anew, or records were deleted",
			m->offset);
		lost(r, w, how);
		return;
	}
	bool is_it = !stamp_read(m, &t, &e) && t.at.lsn == n->lsn && t.at.event == n->event && m->payload && !rd_kafka_message_headers(m, &h) &&
		!rd_kafka_header_get_last(h, "dmsr-schema", &schema, &len) && len == sizeof n->schema;
	if (!is_it) {
		lost(r, w, "another record stands there: the topic was made anew");
		return;
	}
	memcpy(n->schema, schema, sizeof n->schema);
	n->len = m->len;
	n->value = mem_alloc(m->len + 1);
	memcpy(n->value, m->payload, m->len);
	r->has_progress = true;
	if (++w->at == w->n)
		end(r, lane);
}

/* The partition goes on behind it, as an answer to a fetch said. */
static bool is_hidden(const struct round *r, const struct want *w)
{
	int64_t low, high;
	return !rd_kafka_get_watermark_offsets(r->topics->rk, w->topic, w->partition, &low, &high) && high > w->needs[w->at]->offset;
}

/* Nothing comes, and nobody says why: librdkafka tells of a topic that is gone later than it is given time here, and of one that goes on behind what it may
 * read not at all, when it began there. */
static void ask_whether(struct round *r, struct want *w)
{
	const struct rd_kafka_metadata *md;
	int64_t low = 0, stable = INT64_MAX;
	if (rd_kafka_metadata(r->topics->rk, 0, w->rkt, &md, ASK_MS))
		return;
	const rd_kafka_metadata_topic_t *t = md->topic_cnt == 1 ? md->topics : NULL;
	if (t && (t->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || (!t->err && t->partition_cnt <= w->partition)))
		w->stand = STAND_AWAY;
	else if (is_hidden(r, w) && !rd_kafka_query_watermark_offsets(r->topics->rk, w->topic, w->partition, &low, &stable, ASK_MS) &&
		stable <= w->needs[w->at]->offset)
		w->stand = STAND_OPEN;
	rd_kafka_metadata_destroy(md);
}

/* Nothing is there: what was before is gone for good, what is behind may come. */
static void ask_where(struct round *r, struct want *w)
{
	int64_t low = 0, high = 0;
	if (!rd_kafka_query_watermark_offsets(r->topics->rk, w->topic, w->partition, &low, &high, ASK_MS) && w->needs[w->at]->offset < low)
		retained(r, w, low);
	else
		w->stand = STAND_BEYOND;
}

static void on_error(struct round *r, struct want *w, const rd_kafka_message_t *m)
{
	struct err e = { 0 };
	switch ((int)m->err) {
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		if (m->offset <= w->needs[w->at]->offset)
			w->stand = is_hidden(r, w) ? STAND_OPEN : STAND_BEYOND;
		break;
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET: case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		ask_where(r, w);
		break;
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC: case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		w->stand = STAND_AWAY;
		break;
	default:
		kafka_error(&e, m->err, w->topic, rd_kafka_message_errstr(m));
		*(e.retriable ? &r->passing : &r->error) = e;
		break;
	}
}

static void on_message(struct round *r, const rd_kafka_message_t *m)
{
	for (size_t i = 0; i < r->active; i++) {
		struct want *w = r->lanes[i];
		if (w->rkt != m->rkt || w->partition != m->partition)
			continue;
		if (m->err)
			on_error(r, w, m);
		else
			on_row(r, i, m);
		return;
	}
}

/* A fetch that was asked may take its time (a quota, a slow disk): asked anew it would begin anew. */
static bool is_under_way(struct round *r, unsigned *turns)
{
	if (r->lanes[0]->stand == STAND_READING)
		ask_whether(r, r->lanes[0]);
	return r->lanes[0]->stand == STAND_READING && !err_is_set(&r->passing) && ++*turns < TURNS;
}

/* Until all is there, or nothing more comes for a while: then the loop has a look at it. */
static void run(void *arg)
{
	struct round *r = arg;
	unsigned idle_ms = 0, turns = 0;
	r->q = rd_kafka_queue_new(r->topics->rk);
	r->begun = 0;
	for (size_t i = 0; i < r->nwants; i++)
		r->wants[i].stand = STAND_READING;
	while (!worker_is_leaving(r->worker) && !err_is_set(&r->error)) {
		for (; r->active < LANES && r->begun < r->nwants && !err_is_set(&r->error); r->begun++)
			if (r->wants[r->begun].at < r->wants[r->begun].n)
				begin(r, &r->wants[r->begun]);
		if (!r->active)
			break;
		rd_kafka_message_t *m = rd_kafka_consume_queue(r->q, SLICE_MS);
		idle_ms = m && !m->err ? 0 : idle_ms + (m ? 0 : SLICE_MS);
		if (m) {
			on_message(r, m);
			rd_kafka_message_destroy(m);
		}
		if (idle_ms < TURN_MS)
			continue;
		if (!is_under_way(r, &turns))
			break;
		idle_ms = 0;
	}
	while (r->active)
		end(r, r->active - 1);
	rd_kafka_queue_destroy(r->q);
}

static void drop_topic(void *arg, const void *key, size_t n, void *value)
{
	(void)arg, (void)key, (void)n;
	rd_kafka_topic_destroy(value);
}

static void end_topics(void *arg)
{
	struct topics *t = arg;
	map_each(t->all, drop_topic, NULL);
	map_free(t->all);
	free(t);
}

/* ---- items and rounds ---- */

static void free_item(struct item *it)
{
	for (size_t i = 0; it->needs && i < it->x->nspots; i++)
		free(it->needs[i].value);
	free(it->needs);
	index_free(it->x);
	free(it);
}

static void free_round(struct round *r)
{
	for (size_t i = 0; i < r->nwants; i++)
		free(r->wants[i].needs);
	free(r->wants);
	free(r);
}

/* Nobody waits for it any more: its items were left to it. */
static void drop(void *arg)
{
	struct round *r = arg;
	while (r->first) {
		struct item *it = r->first;
		r->first = it == r->last ? NULL : it->next;
		free_item(it);
	}
	free_round(r);
}

static struct want *want_of(struct round *r, struct map *known, const struct index_lane *l)
{
	char key[INDEX_TOPIC_MAX + 16];
	int len = snprintf(key, sizeof key, "%d %s", (int)l->partition, l->topic);
	uintptr_t number = (uintptr_t)map_get(known, key, (size_t)len);
	if (number)
		return &r->wants[number - 1];
	if (r->nwants == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 16;
		r->wants = mem_realloc_array(r->wants, r->cap, sizeof *r->wants);
	}
	r->wants[r->nwants++] = (struct want){ .topic = l->topic, .partition = l->partition };
	map_put(known, key, (size_t)len, (void *)(uintptr_t)r->nwants);
	return &r->wants[r->nwants - 1];
}

/* Offsets of a partition rise within an item; in one that was made anew they do not from item to item. */
static bool fits(struct round *r, struct map *known, const struct item *it)
{
	for (size_t i = 0; i < it->x->nspots; i++) {
		const struct want *w = want_of(r, known, &it->x->lanes[it->x->spots[i].lane]);
		if (w->n && w->needs[w->n - 1]->offset >= it->x->spots[i].offset)
			return false;
	}
	return true;
}

static void put_in(struct round *r, struct map *known, struct item *it)
{
	it->needs = mem_zalloc((it->x->nspots + 1) * sizeof *it->needs);
	it->round = r;
	for (size_t i = 0; i < it->x->nspots; i++) {
		const struct index_spot *s = &it->x->spots[i];
		struct want *w = want_of(r, known, &it->x->lanes[s->lane]);
		it->needs[i] = (struct need){ .offset = s->offset, .lsn = s->ch->txn->lsn, .event = s->ch->event };
		if (w->n == w->cap) {
			w->cap = w->cap ? 2 * w->cap : 8;
			w->needs = mem_realloc_array(w->needs, w->cap, sizeof *w->needs);
		}
		w->needs[w->n++] = &it->needs[i];
	}
	r->last = it;
}

static void done(void *arg);

static void post(struct round *r)
{
	r->has_progress = false;
	r->is_posted = true;
	worker_post(r->worker, &(struct worker_job){ .run = run, .done = done, .drop = drop, .arg = r });
}

static void next_round(struct fetch *f)
{
	size_t bytes = 0;
	while (f->next && !f->next->x->nspots) {
		f->next->is_there = true;
		f->next = f->next->next;
	}
	if (f->round || !f->next)
		return;
	struct round *r = f->round = mem_zalloc(sizeof *r);
	struct map *known = map_new();
	*r = (struct round){ .f = f, .worker = client_worker(f->client), .topics = f->topics, .first = f->next };
	while (f->next && (!bytes || (bytes + f->next->bytes <= f->k->memory_max / ROUND_OF && fits(r, known, f->next)))) {
		bytes += f->next->bytes;
		put_in(r, known, f->next);
		f->next = f->next->next;
	}
	map_free(known);
	f->stalled_us = 0;
	post(r);
}

/* ---- back on the loop ---- */

static void fail(struct fetch *f, struct err *e)
{
	const bool is_gone = !strcmp(e->id, "kafka.topic-lost") || !strcmp(e->id, "kafka.retention");
	if (is_gone)
		err_hint(e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it; and raise the retention of the tables' topics, which "
			"must not be compacted while targets read them", f->k->host.env.job);
	f->fail(f->arg, e);
}

static struct want *stalled(struct round *r)
{
	struct want *open = NULL;
	for (size_t i = 0; i < r->nwants; i++) {
		struct want *w = &r->wants[i];
		if (w->at == w->n || w->stand == STAND_READING)
			continue;
		if (w->stand != STAND_OPEN)
			return w;
		open = w;
	}
	return open;
}

static const char gone[] = "there is no such partition: the topic was deleted, or made anew";
static const char ended[] = "the partition ends before it: the topic was made anew, or the brokers have lost what they had acknowledged";

static bool is_to_be_told(struct fetch *f)
{
	const uint64_t now = now_us(f);
	const bool is = !f->told_us || now - f->told_us >= TELL_MS * 1000ULL;
	f->told_us = is ? now : f->told_us;
	return is;
}

static void look_at_stalled(struct fetch *f, struct round *r)
{
	struct want *w = stalled(r);
	const uint64_t now = now_us(f);
	if (err_is_set(&r->passing) && is_to_be_told(f))
		log_info("streamer", f->k->host.env.job, "%s", r->passing.message);
	r->passing = (struct err){ 0 };
	if (r->has_progress || !w || w->stand == STAND_OPEN)
		f->stalled_us = 0;
	if (!w)
		return;
	if (w->stand == STAND_OPEN) {
		if (is_to_be_told(f))
			log_info("streamer", f->k->host.env.job, "topic %s, partition %d: a row waits for a transaction that another producer has open there",
				w->topic, (int)w->partition);
		return;
	}
	f->stalled_us = f->stalled_us ? f->stalled_us : now;
	if (now - f->stalled_us >= LOST_MS * 1000ULL)
		lost(r, w, w->stand == STAND_AWAY ? gone : ended);
}

static bool is_whole(const struct item *it)
{
	for (size_t i = 0; i < it->x->nspots; i++)
		if (!it->needs[i].value)
			return false;
	return true;
}

static void done(void *arg)
{
	struct round *r = arg;
	struct fetch *f = r->f;
	bool is_done = true;
	r->is_posted = false;
	if (!err_is_set(&r->error))
		look_at_stalled(f, r);
	if (err_is_set(&r->error)) {
		fail(f, &r->error);
		return;
	}
	for (struct item *it = r->first; it; it = it == r->last ? NULL : it->next)
		is_done &= it->is_there || is_whole(it);
	if (is_done) {
		for (struct item *it = r->first; it; it = it == r->last ? NULL : it->next) {
			it->is_there = true;
			it->round = NULL;
		}
		f->round = NULL;
		free_round(r);
		next_round(f);
	} else {
		post(r);
	}
	kafka_wake(f->k);
}

/* ---- decoded ---- */

/* Appends the row of n to b. 0, or DMSR_AGAIN: its shape is not there yet. */
static int decode(struct fetch *f, const struct item *it, size_t i, struct batch *b, struct err *e)
{
	const struct need *n = &it->needs[i];
	const struct index_lane *l = &it->x->lanes[it->x->spots[i].lane];
	struct relation *rel = schemas_find(f->k, n->schema);
	if (!rel) {
		f->shape_us = f->shape_us ? f->shape_us : now_us(f);
		loop_timer_start(f->k->patience, SHAPE_MS);
		if (now_us(f) - f->shape_us < SHAPE_MS * 1000ULL)
			return DMSR_AGAIN;
		err_retry(e, DMSR_EIO, "kafka.schema-missing", "topic %s, partition %d, offset %" PRId64 ": the shape of the row's table is not in topic %s",
			l->topic, (int)l->partition, n->offset, f->k->schemas->name);
		err_hint(e, "that topic must be compacted and keep every record: load the tables again (stop the job, DELETE /jobs/%s/positions, start it)",
			f->k->host.env.job);
		return e->code;
	}
	f->shape_us = 0;
	int rc = f->k->codec_ops->decode(f->k->codec, n->value, n->len, rel, b, e);
	if (rc)
		err_prefix(e, "topic %s, partition %d, offset %" PRId64, l->topic, (int)l->partition, n->offset);
	return rc;
}

/* The newest change of b, which was appended behind `before`, goes where ch stands for it. */
static void put_at(struct batch *b, struct change *before, struct change *ch)
{
	struct change own = *b->last;
	b->last = before;
	before->next = NULL;
	b->nchanges--;
	b->nrows--;
	own.next = ch->next;
	own.txn = ch->txn;
	own.event = ch->event;
	if (ch->rel) { /* the old row of one whose key changes is there */
		own.op = OP_UPDATE;
		own.flags = ch->flags;
		own.u.row.before = ch->u.row.before;
	}
	*ch = own;
}

/* False: not all of it yet, or failed. */
static bool fill(struct fetch *f, struct item *it)
{
	struct batch *b = it->x->b;
	struct err e = { 0 };
	enum { LOOK_EVERY = 32 };
	while (it->at < it->x->nspots) {
		struct change *before = b->last;
		int rc = decode(f, it, it->at, b, &e);
		if (rc < 0)
			f->fail(f->arg, &e);
		if (rc)
			return false;
		put_at(b, before, it->x->spots[it->at].ch);
		free(it->needs[it->at].value);
		it->needs[it->at].value = NULL;
		if (++it->at % LOOK_EVERY == 0 && it->at < it->x->nspots && kafka_slice_is_over(f->k)) {
			kafka_wake(f->k);
			return false;
		}
	}
	return true;
}

struct batch *fetch_take(struct fetch *f, struct place *p)
{
	next_round(f);
	struct item *it = f->first;
	if (!it || !it->is_there || !fill(f, it))
		return NULL;
	struct batch *b = it->x->b;
	it->x->b = NULL;
	*p = it->place;
	f->first = it->next;
	if (!f->first)
		f->last = NULL;
	f->bytes -= it->bytes;
	f->nitems--;
	free_item(it);
	return b;
}

/* ---- life ---- */

void fetch_add(struct fetch *f, struct index *x, const struct place *p)
{
	struct item *it = mem_zalloc(sizeof *it);
	*it = (struct item){ .x = x, .place = *p };
	it->bytes = sizeof *it + x->b->bytes + (size_t)(x->bytes < f->k->memory_max ? x->bytes : f->k->memory_max) + x->nspots * ROW_BYTES;
	if (f->last)
		f->last->next = it;
	else
		f->first = it;
	f->last = it;
	if (!f->next)
		f->next = it;
	f->bytes += it->bytes;
	f->nitems++;
	kafka_wake(f->k);
}

bool fetch_pass(struct fetch *f, const struct place *p)
{
	if (f->last)
		f->last->place = *p;
	return f->last != NULL;
}

bool fetch_has_next(const struct fetch *f) { return f->first && f->first->is_there && !f->shape_us; }
bool fetch_is_full(const struct fetch *f) { return f->bytes >= f->k->memory_max || f->nitems >= ITEMS_MAX; }
bool fetch_is_empty(const struct fetch *f) { return !f->first; }
size_t fetch_bytes(const struct fetch *f) { return f->bytes; }

static void on_event(void *ctx, rd_kafka_event_t *ev) { (void)ctx, (void)ev; }

static void on_failed(void *ctx, const struct err *e)
{
	struct fetch *f = ctx;
	struct err own = *e;
	f->fail(f->arg, &own);
}

static void on_connected(void *ctx, bool is) { (void)ctx, (void)is; }

int fetch_new(struct kafka *k, void (*failing)(void *arg, struct err *e), void *arg, struct fetch **out, struct err *e)
{
	struct fetch *f = *out = mem_zalloc(sizeof *f);
	const struct client_host host = { .ctx = f, .event = on_event, .failed = on_failed, .connected = on_connected };
	*f = (struct fetch){ .k = k, .fail = failing, .arg = arg };
	rd_kafka_conf_t *conf = kafka_conf(k->settings, k->host.env.job, RD_KAFKA_CONSUMER, e);
	if (!conf)
		return e->code;
	kafka_conf_rows(conf);
	if (client_new(k->host.env.loop, k->host.env.job, RD_KAFKA_CONSUMER, conf, &host, &f->client, e))
		return e->code;
	f->topics = mem_alloc(sizeof *f->topics);
	*f->topics = (struct topics){ client_handle(f->client), map_new() };
	client_ends(f->client, end_topics, f->topics);
	return 0;
}

/* A round that is under way has its items; the others go. */
void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	struct round *r = f->round && !f->round->is_posted ? f->round : NULL;
	for (struct item *it = f->first, *next; it; it = next) {
		next = it->next;
		if (!it->round)
			free_item(it);
	}
	if (r)
		drop(r);
	client_free(f->client, NULL);
	free(f);
}
