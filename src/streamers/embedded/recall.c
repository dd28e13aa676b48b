/* recall: batches out of the log. At start: where it ends, and where in it each consumer stands; later: what comes next for one that is behind. An answer is
 * copied as it is, and unpacked one batch a turn. */
#include "embedded.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 512 << 10 };

static void fail_damaged(struct embedded *s, struct err *e)
{
	err_hint(e, "what it held is not known any more, so load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->host.env.job);
	e->retriable = false;
	embedded_fail(s, e);
}

static void damaged(struct embedded *s, uint64_t n, const struct err *why)
{
	struct err e = { 0 };
	if (why)
		e = *why;
	else
		err_set(&e, DMSR_EFATAL, "streamer.log-damaged", "entries are missing");
	err_prefix(&e, "the spill log of job %s at %llu", s->host.env.job, (unsigned long long)(n + s->shift));
	fail_damaged(s, &e);
}

/* A file of this log alone that is damaged is no reason to give up the whole state. */
static void unreadable(struct embedded *s, const struct err *why)
{
	struct err e = *why;
	err_prefix(&e, "the spill log of job %s", s->host.env.job);
	if (!strcmp(e.id, "state.corrupt"))
		fail_damaged(s, &e);
	else
		embedded_fail(s, &e);
}

static void ask(struct embedded *s, uint64_t n, size_t max_bytes,
	void (*done)(void *arg, const struct dmsr_log_entry *entries, size_t count, const struct err *e), void *arg)
{
	s->nreading++;
	s->log->read(s->log->ctx, n + s->shift, max_bytes, done, arg);
}

/* The answer's first entry, which is number n; NULL: the instance is dead, or on its way out. */
static const struct dmsr_log_entry *answer(struct embedded *s, uint64_t n, const struct dmsr_log_entry *entries, size_t count, const struct err *e)
{
	s->nreading--;
	embedded_wake(s);
	if (e)
		unreadable(s, e);
	else if (!count || entries[0].seq != n + s->shift)
		damaged(s, n, NULL);
	else if (s->state == EMBEDDED_STARTING || s->state == EMBEDDED_RUNNING)
		return entries;
	return NULL;
}

/* ---- at start ---- */

static void on_tail(void *arg, const struct dmsr_log_entry *entries, size_t count, const struct err *e)
{
	struct embedded *s = arg;
	struct entry en;
	struct err why = { 0 };
	const struct dmsr_log_entry *first = answer(s, s->logged - 1, entries, count, e);
	if (!first)
		return;
	if (entry_read(first->data, first->len, &en, &why)) {
		damaged(s, s->logged - 1, &why);
		return;
	}
	s->reached = en.reached;
	s->tail = en.reached;
	for (struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (!position_is_comparable(&c->from, &s->tail)) {
			err_set(&why, DMSR_EFATAL, "server.changed", "target %s stands at a position of another server than the spill log", c->name);
			embedded_fail(s, &why);
			return;
		}
	for (struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (c->is_behind) {
			c->seek_lo = s->lo;
			c->seek_hi = s->logged;
		}
}

void recall_tail(struct embedded *s) { ask(s, s->logged - 1, 1, on_tail, s); }

/* ---- where a consumer stands ---- */

static uint64_t seek_middle(const struct dmsr_subscription *c) { return c->seek_lo + (c->seek_hi - c->seek_lo) / 2; }

static void seek_found(struct dmsr_subscription *c)
{
	uint64_t n = c->seek_lo;
	log_info("streamer", c->s->host.env.job, "%s has %llu of %llu batches of the log", c->name, (unsigned long long)(n - c->next),
		(unsigned long long)(c->s->logged - c->next));
	c->seek_lo = c->seek_hi = 0;
	c->next = n;
	c->consumed = c->committed = n - 1;
	embedded_wake(c->s);
}

/* The first entry that reaches from is looked for. Words right before it have no position of their own: whether they are known nobody knows, so they are
 * given again. That is seen when seek_lo is where it must be: then one entry after another is looked at backwards. */
static void on_seek(void *arg, const struct dmsr_log_entry *entries, size_t count, const struct err *e)
{
	struct dmsr_subscription *c = arg;
	struct embedded *s = c->s;
	bool is_back = c->seek_lo == c->seek_hi;
	uint64_t n = is_back ? c->seek_lo - 1 : seek_middle(c);
	struct entry en;
	struct err why = { 0 };
	c->is_reading = false;
	const struct dmsr_log_entry *first = answer(s, n, entries, count, e);
	if (!first)
		return;
	if (entry_read(first->data, first->len, &en, &why)) {
		damaged(s, n, &why);
		return;
	}
	if (is_back) {
		if (en.has_end)
			seek_found(c);
		else
			c->seek_lo = c->seek_hi = n;
	} else if (position_compare(&en.reached, &c->from) >= 0) {
		c->seek_hi = n;
	} else {
		c->seek_lo = n + 1;
	}
}

static void seek(struct dmsr_subscription *c)
{
	if (c->seek_lo == c->seek_hi && c->seek_lo == c->next) {
		seek_found(c);
		return;
	}
	c->is_reading = true;
	ask(c->s, c->seek_lo == c->seek_hi ? c->seek_lo - 1 : seek_middle(c), 1, on_seek, c);
}

/* ---- what comes next ---- */

static void drop_raw(struct dmsr_subscription *c)
{
	struct raw *r = c->raws;
	c->raws = r->next;
	if (!c->raws)
		c->last_raw = NULL;
	c->s->memory -= sizeof *r + r->len;
	c->packed -= sizeof *r + r->len;
	free(r);
}

static void keep_raw(struct dmsr_subscription *c, uint64_t n, const struct dmsr_log_entry *en)
{
	struct raw *r = mem_alloc(sizeof *r + en->len);
	*r = (struct raw){ .n = n, .len = en->len };
	memcpy(r->data, en->data, en->len);
	if (c->last_raw)
		c->last_raw->next = r;
	else
		c->raws = r;
	c->last_raw = r;
	c->s->memory += sizeof *r + r->len;
	c->packed += sizeof *r + r->len;
}

static void on_entries(void *arg, const struct dmsr_log_entry *entries, size_t count, const struct err *e)
{
	struct dmsr_subscription *c = arg;
	struct embedded *s = c->s;
	c->is_reading = false;
	s->promised -= c->promised;
	/* Another consumer may have brought it in the meantime, and it may be trimmed by now. */
	if (c->next != c->asked && !e) {
		s->nreading--;
		embedded_wake(s);
		return;
	}
	if (!answer(s, c->asked, entries, count, e))
		return;
	for (size_t k = 0; k < count && c->asked + k < s->logged && entries[k].seq == c->asked + k + s->shift; k++)
		keep_raw(c, c->asked + k, &entries[k]);
}

/* Beyond the cap one at a time. */
static size_t how_much(const struct embedded *s)
{
	size_t taken = s->memory + s->promised;
	size_t most = s->memory_max / 8 < READ_BYTES ? s->memory_max / 8 : READ_BYTES;
	if (taken >= s->memory_max)
		return 1;
	return s->memory_max - taken < most ? s->memory_max - taken : most;
}

static void ask_next(struct dmsr_subscription *c)
{
	assert(c->next < c->s->logged);
	c->is_reading = true;
	c->asked = c->next;
	c->promised = how_much(c->s);
	c->s->promised += c->promised;
	ask(c->s, c->next, c->promised, on_entries, c);
}

/* The first of the raws is what comes next. Then it is in memory, or was skipped as known, or the instance is dead. */
static void unpack(struct dmsr_subscription *c)
{
	struct embedded *s = c->s;
	const struct raw *r = c->raws;
	struct entry en;
	struct batch *b = NULL;
	struct err why = { 0 };
	if (!entry_read(r->data, r->len, &en, &why)) {
		if (c->is_behind && en.has_end && !en.has_words && position_compare(&en.reached, &c->from) <= 0) {
			feed_skip(c);
			return;
		}
		b = batch_unpack(en.batch, en.len, &why);
	}
	if (b)
		window_recall(s, r->n, b, r->len);
	else
		damaged(s, r->n, &why);
}

bool recall_next(struct dmsr_subscription *c)
{
	struct embedded *s = c->s;
	while (s->state == EMBEDDED_RUNNING && c->next < s->hi) {
		/* It was taken, or others have brought it. One that is refused and dropped is unpacked again, or what is behind it would be read again. */
		while (c->raws && c->raws->n != c->next)
			drop_raw(c);
		const struct item *it = window_find(s, c->next);
		if (!c->seek_hi && it && it->b)
			return true;
		if (c->is_reading)
			return false;
		if (!c->seek_hi && s->memory + s->promised >= s->memory_max && !feed_must_have(c)) {
			feed_hold_back(c);
			return false;
		}
		if (!c->seek_hi && c->raws) {
			unpack(c);
			if (!c->raws->next) /* big ones come alone: not twice in memory */
				drop_raw(c);
			continue;
		}
		if (c->seek_hi)
			seek(c);
		else
			ask_next(c);
		return false;
	}
	return false;
}

void recall_free(struct dmsr_subscription *c)
{
	while (c->raws)
		drop_raw(c);
}
