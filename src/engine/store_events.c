/* store_events: what people look at afterwards: rows set aside, the history, and replies kept for a request that is sent twice. */
#include "store_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	EVENTS_MAX = 10000,              /* a job */
	ANSWER_BYTES_MAX = 16 << 20,     /* of one page of dead letters or events; one row always fits */
};
static const int64_t idem_kept_us = (int64_t)24 * 3600 * 1000000, idem_sweep_us = (int64_t)60 * 1000000;

/* A page of rows: they begin behind `after`, or go back from before -after. */
struct page_request {
	struct request r;
	const char *uid;
	int64_t after;
	int limit;
	struct rows found;
	union {
		void (*letters)(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e);
		void (*events)(void *arg, const struct store_event *rows, size_t n, const struct err *e);
	} done;
};

static int run_page(struct store *s, struct request *r, enum table t, int (*fn)(void *arg, const struct field *c), struct err *e)
{
	const struct page_request *q = (const struct page_request *)r;
	bool back = q->after < 0;
	struct field key[] = { field_text(q->uid), field_int(back ? -q->after : q->after), field_int(q->limit) };
	const char *where = back ? "WHERE uid = ? AND id < ? ORDER BY id DESC LIMIT ?" : "WHERE uid = ? AND id > ? ORDER BY id LIMIT ?";
	int rc = store_db_each(s->db, t, where, key, fn, r, e);
	return rc > 0 ? 0 : rc;
}

static int page_is_full(const struct page_request *q) { return q->r.arena.bytes > ANSWER_BYTES_MAX; }

static struct page_request *new_page(struct store *s, const struct verb *verb, const char *uid, int64_t after_id, int limit)
{
	struct page_request *q = request_new(s, verb, sizeof *q);
	q->uid = request_str(q, uid);
	q->after = after_id;
	q->limit = limit < 0 ? 0 : limit;
	return q;
}

/* ---- dead letters ---- */

struct letter_request {
	struct request r;
	const char *uid;
	struct store_dead_letter d;
};

static void copy_letter(void *r, struct store_dead_letter *to, const struct store_dead_letter *d)
{
	*to = (struct store_dead_letter){ d->id, d->ts_us, request_str(r, d->target), request_str(r, d->position), request_str(r, d->schema),
		request_str(r, d->table), request_str(r, d->op), request_str(r, d->code), request_str(r, d->message), request_str(r, d->change_json) };
}

static int on_serial(void *arg, const struct field *c)
{
	*(int64_t *)arg = c[1].i;
	return 0;
}

static int on_same(void *arg, const struct field *c)
{
	(void)arg;
	(void)c;
	return 1;
}

/* Who is killed before it has committed refuses the row once more. A change has a position of its own; rows of a load do not. */
static int find_same(struct store *s, const struct letter_request *q, struct err *e)
{
	static const char where[] = "WHERE uid = ? AND position = ? AND target = ? AND schema = ? AND name = ? AND op = ?";
	const struct store_dead_letter *d = &q->d;
	struct field of[] = { field_text(q->uid), field_text(d->position), field_text(d->target), field_text(d->schema), field_text(d->table),
		field_text(d->op) };
	if (!strcmp(d->op, "read"))
		return 0;
	return store_db_each(s->db, TABLE_DEAD_LETTER, where, of, on_same, NULL, e);
}

static int run_letter_put(struct store *s, struct request *r, struct err *e)
{
	const struct letter_request *q = (const struct letter_request *)r;
	const struct store_dead_letter *d = &q->d;
	struct field uid = field_text(q->uid);
	int64_t id = 0;
	int rc = find_same(s, q, e);
	if (rc)
		return rc > 0 ? 0 : rc;
	rc = store_db_each(s->db, TABLE_SERIAL, "WHERE uid = ?", &uid, on_serial, &id, e);
	if (rc)
		return rc;
	struct field serial[] = { uid, field_int(++id) };
	struct field row[] = { uid, serial[1], field_int(d->ts_us), field_text(d->target), field_text(d->position), field_text(d->schema),
		field_text(d->table), field_text(d->op), field_text(d->code), field_text(d->message), field_text(d->change_json) };
	rc = store_db_put(s->db, TABLE_SERIAL, serial, e);
	return rc ? rc : store_db_put(s->db, TABLE_DEAD_LETTER, row, e);
}

static const struct verb verb_letter_put = { .kind = VERB_WRITES, .run = run_letter_put, .answer = request_answer_done };

void store_dead_letter_put(struct store *s, const char *uid, const struct store_dead_letter *d, store_done *done, void *arg)
{
	struct letter_request *q = request_new(s, &verb_letter_put, sizeof *q);
	q->uid = request_str(q, uid);
	copy_letter(q, &q->d, d);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int on_letter(void *arg, const struct field *c)
{
	struct page_request *q = arg;
	struct store_dead_letter *d = rows_add(&q->r.arena, &q->found, sizeof *d);
	copy_letter(q, d, &(struct store_dead_letter){ c[1].i, c[2].i, c[3].p, c[4].p, c[5].p, c[6].p, c[7].p, c[8].p, c[9].p, c[10].p });
	return page_is_full(q);
}

static int run_letters(struct store *s, struct request *r, struct err *e) { return run_page(s, r, TABLE_DEAD_LETTER, on_letter, e); }

static void answer_letters(struct request *r, const struct err *e)
{
	const struct page_request *q = (const struct page_request *)r;
	q->done.letters(r->arg, q->found.at, e ? 0 : q->found.n, e);
}

static const struct verb verb_letters = { .run = run_letters, .answer = answer_letters };

void store_dead_letters(struct store *s, const char *uid, int64_t after_id, int limit,
	void (*done)(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e), void *arg)
{
	struct page_request *q = new_page(s, &verb_letters, uid, after_id, limit);
	q->done.letters = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int run_letter_delete(struct store *s, struct request *r, struct err *e)
{
	const struct letter_request *q = (const struct letter_request *)r;
	struct field key[] = { field_text(q->uid), field_int(q->d.id) };
	if (!q->d.id)
		return store_db_run(s->db, "DELETE FROM dead_letter WHERE uid = ?", key, NULL, e);
	return store_db_run(s->db, "DELETE FROM dead_letter WHERE uid = ? AND id = ?", key, NULL, e);
}

static const struct verb verb_letter_delete = { .kind = VERB_WRITES, .run = run_letter_delete, .answer = request_answer_done };

void store_dead_letter_delete(struct store *s, const char *uid, int64_t id, store_done *done, void *arg)
{
	struct letter_request *q = request_new(s, &verb_letter_delete, sizeof *q);
	q->uid = request_str(q, uid);
	q->d.id = id;
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

/* ---- events ---- */

struct event_request {
	struct request r;
	const char *uid;
	struct store_event ev;
};

static void copy_event(void *r, struct store_event *to, const struct store_event *ev)
{
	*to = (struct store_event){ ev->id, ev->ts_us, request_str(r, ev->kind), request_str(r, ev->actor), request_str(r, ev->text),
		request_str(r, ev->data_json) };
}

/* Ids rise by one and only the oldest go, so those beyond the limit are known without counting. */
static int run_event_put(struct store *s, struct request *r, struct err *e)
{
	const struct event_request *q = (const struct event_request *)r;
	const struct store_event *ev = &q->ev;
	struct field uid = field_text(q->uid);
	int64_t id = 0;
	int rc = store_db_run(s->db, "SELECT max(id) FROM event WHERE uid = ?", &uid, &id, e);
	if (rc)
		return rc;
	struct field row[] = { uid, field_int(++id), field_int(ev->ts_us), field_text(ev->kind), field_text(ev->actor), field_text(ev->text),
		field_text(ev->data_json) };
	struct field old[] = { uid, field_int(id - EVENTS_MAX) };
	rc = store_db_put(s->db, TABLE_EVENT, row, e);
	return rc || id <= EVENTS_MAX ? rc : store_db_run(s->db, "DELETE FROM event WHERE uid = ? AND id <= ?", old, NULL, e);
}

static const struct verb verb_event_put = { .kind = VERB_WRITES, .run = run_event_put };

/* The disk may stand still while requests go on coming in: then their audit is cut, not the memory used up. */
static bool is_short(struct store *s)
{
	struct store_stat stat;
	store_stat(s, &stat);
	bool now = stat.queued_bytes > STORE_QUEUE_EVENT_BYTES;
	if (now && !s->is_short)
		log_warn("store", NULL, "%llu MiB wait for %s: events are not recorded until that is better",
			(unsigned long long)(stat.queued_bytes >> 20), s->dir);
	s->is_short = now;
	return now;
}

void store_event_put(struct store *s, const char *uid, const struct store_event *ev)
{
	if (is_short(s))
		return;
	struct event_request *q = request_new(s, &verb_event_put, sizeof *q);
	q->uid = request_str(q, uid ? uid : "");
	copy_event(q, &q->ev, ev);
	store_send(s, q);
}

static int on_event(void *arg, const struct field *c)
{
	struct page_request *q = arg;
	struct store_event *ev = rows_add(&q->r.arena, &q->found, sizeof *ev);
	copy_event(q, ev, &(struct store_event){ c[1].i, c[2].i, c[3].p, c[4].p, c[5].p, c[6].p });
	return page_is_full(q);
}

static int run_events(struct store *s, struct request *r, struct err *e) { return run_page(s, r, TABLE_EVENT, on_event, e); }

static void answer_events(struct request *r, const struct err *e)
{
	const struct page_request *q = (const struct page_request *)r;
	q->done.events(r->arg, q->found.at, e ? 0 : q->found.n, e);
}

static const struct verb verb_events = { .run = run_events, .answer = answer_events };

void store_events(struct store *s, const char *uid, int64_t after_id, int limit,
	void (*done)(void *arg, const struct store_event *rows, size_t n, const struct err *e), void *arg)
{
	struct page_request *q = new_page(s, &verb_events, uid ? uid : "", after_id, limit);
	q->done.events = done;
	q->r.arg = arg;
	store_send(s, q);
}

/* ---- idempotency keys ---- */

struct idem_request {
	struct request r;
	const char *key, *hash, *reply;
	int status;
	void (*got)(void *arg, const char *request_hash, int status, const char *reply, const struct err *e);
};

static int on_idem(void *arg, const struct field *c)
{
	struct idem_request *q = arg;
	q->hash = request_str(q, c[2].p);
	q->status = (int)c[3].i;
	q->reply = request_str(q, c[4].p);
	return 0;
}

static int run_idem_get(struct store *s, struct request *r, struct err *e)
{
	struct field key[] = { field_text(((struct idem_request *)r)->key), field_int(s->now_us() - idem_kept_us) };
	return store_db_each(s->db, TABLE_IDEM, "WHERE key = ? AND ts_us > ?", key, on_idem, r, e);
}

static void answer_idem_get(struct request *r, const struct err *e)
{
	const struct idem_request *q = (const struct idem_request *)r;
	q->got(r->arg, e ? NULL : q->hash, e ? 0 : q->status, e ? NULL : q->reply, e);
}

static const struct verb verb_idem_get = { .run = run_idem_get, .answer = answer_idem_get };

void store_idem_get(struct store *s, const char *key,
	void (*done)(void *arg, const char *request_hash, int status, const char *reply, const struct err *e), void *arg)
{
	struct idem_request *q = request_new(s, &verb_idem_get, sizeof *q);
	q->key = request_str(q, key);
	q->got = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int run_idem_put(struct store *s, struct request *r, struct err *e)
{
	const struct idem_request *q = (const struct idem_request *)r;
	int64_t now = s->now_us();
	struct field old = field_int(now - idem_kept_us);
	struct field row[] = { field_text(q->key), field_int(now), field_text(q->hash), field_int(q->status), field_text(q->reply) };
	int rc = 0;
	if (now - s->idem_swept_us > idem_sweep_us || now < s->idem_swept_us) {
		s->idem_swept_us = now;
		rc = store_db_run(s->db, "DELETE FROM idem WHERE ts_us <= ?", &old, NULL, e);
	}
	return rc ? rc : store_db_put(s->db, TABLE_IDEM, row, e);
}

static const struct verb verb_idem_put = { .kind = VERB_WRITES, .run = run_idem_put, .answer = request_answer_done };

void store_idem_put(struct store *s, const char *key, const char *request_hash, int status, const char *reply, store_done *done, void *arg)
{
	struct idem_request *q = request_new(s, &verb_idem_put, sizeof *q);
	q->key = request_str(q, key);
	q->hash = request_str(q, request_hash);
	q->status = status;
	q->reply = request_str(q, reply);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}
