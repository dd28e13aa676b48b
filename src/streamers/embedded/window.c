/* window: what is held for the consumers. Items stand in order in a list, and by number in a map; those that only the log holds are in neither. */
#include "embedded.h"
#include <assert.h>
#include <stdlib.h>

enum { SLICE_LOOK = 64 };

size_t window_cost(const struct batch *b)
{
	size_t bytes = b->arena.bytes > b->bytes ? b->arena.bytes : b->bytes;
	return sizeof *b + sizeof(struct item) + bytes;
}

struct item *window_find(const struct embedded *s, uint64_t n)
{
	return map_get(s->items, &n, sizeof n);
}

/* ---- in and out ---- */

static void link_behind(struct embedded *s, struct item *it, struct item *before)
{
	it->prev = before;
	it->next = before ? before->next : s->first;
	if (it->prev)
		it->prev->next = it;
	else
		s->first = it;
	if (it->next)
		it->next->prev = it;
	else
		s->last = it;
	map_put(s->items, &it->n, sizeof it->n, it);
}

static void drop_batch(struct embedded *s, struct item *it)
{
	if (!it->b)
		return;
	s->memory -= it->bytes;
	if (it->log == ITEM_DURABLE)
		s->spare -= it->bytes;
	batch_free(it->b);
	it->b = NULL;
}

static void forget(struct embedded *s, struct item *it)
{
	if (it->prev)
		it->prev->next = it->next;
	else
		s->first = it->next;
	if (it->next)
		it->next->prev = it->prev;
	else
		s->last = it->prev;
	map_del(s->items, &it->n, sizeof it->n);
	drop_batch(s, it);
	free(it);
}

static bool is_open(const struct batch *b)
{
	if (!entry_has_rows(b))
		return b->more;
	return b->last->op != OP_LOAD_END && b->last->op != OP_LOAD_DONE;
}

static void put_batch(struct embedded *s, struct item *it, struct batch *b)
{
	it->b = b;
	it->bytes = window_cost(b);
	it->is_open = is_open(b);
	s->memory += it->bytes;
	if (it->log == ITEM_DURABLE)
		s->spare += it->bytes;
}

struct item *window_append(struct embedded *s, struct batch *b)
{
	struct item *it = mem_zalloc(sizeof *it);
	it->n = s->hi++;
	it->token = b->token;
	it->is_bound = entry_has_rows(b);
	put_batch(s, it, b);
	link_behind(s, it, s->last);
	return it;
}

struct item *window_recall(struct embedded *s, uint64_t n, struct batch *b, size_t packed)
{
	struct item *it = window_find(s, n);
	if (!it) {
		/* The one before it is there mostly; else it is looked for behind all that came since. */
		struct item *before = s->first && s->first->n < n ? window_find(s, n - 1) : NULL;
		if (!before && s->first && s->first->n < n)
			before = s->last;
		while (before && before->n > n)
			before = before->prev;
		it = mem_zalloc(sizeof *it);
		*it = (struct item){ .n = n, .packed = packed, .log = ITEM_DURABLE, .is_told = true };
		link_behind(s, it, before);
	}
	assert(!it->b);
	put_batch(s, it, b);
	return it;
}

void window_tell(struct embedded *s, struct item *it)
{
	struct tokens *t = &s->told;
	if (it->is_told)
		return;
	it->is_told = true;
	if (!it->token)
		return;
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->all = mem_realloc_array(t->all, t->cap, sizeof *t->all);
	}
	t->all[t->n++] = it->token;
}

/* ---- who has had what ---- */

static uint64_t all_consumed(const struct embedded *s)
{
	uint64_t n = s->hi - 1;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		n = c->consumed < n ? c->consumed : n;
	return n;
}

static uint64_t all_committed(const struct embedded *s)
{
	uint64_t n = s->hi - 1;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		n = c->committed < n ? c->committed : n;
	return n;
}

static bool is_read(const struct embedded *s, const struct item *it)
{
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (c->consumed < it->n && it->n < c->next)
			return true;
	return false;
}

static bool is_lent(const struct embedded *s, uint64_t n)
{
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (c->committed < n && n < c->next)
			return true;
	return false;
}

/* Dropped, it would have to be read again at once, perhaps for ever. */
static bool is_next(const struct embedded *s, uint64_t n)
{
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (c->next == n && !c->is_waiting)
			return true;
	return false;
}

/* Its bytes; and the item when the log knows it better. */
static void drop(struct embedded *s, struct item *it)
{
	drop_batch(s, it);
	/* A consumer that holds it uncommitted needs its length, for the log's, at the end. */
	if (it->log == ITEM_DURABLE && !is_lent(s, it->n))
		forget(s, it);
}

void window_durable(struct embedded *s, struct item *it)
{
	it->log = ITEM_DURABLE;
	if (it->b)
		s->spare += it->bytes;
	window_tell(s, it);
	if (it->n <= all_consumed(s))
		drop(s, it);
}

/* ---- what is over ---- */

static void give_back(struct embedded *s, uint64_t n)
{
	struct item *it = window_find(s, n);
	bool is_logged = n < s->logged;
	if (is_logged) {
		uint64_t packed = it ? it->packed : s->disk / (s->logged - n);
		uint64_t left = s->disk ? s->disk - 1 : 0; /* an estimate does not say that the log is empty */
		s->disk -= packed < left ? packed : left;
	}
	if (!it)
		return;
	window_tell(s, it);
	forget(s, it);
}

static void advance_committed(struct embedded *s)
{
	uint64_t end = all_committed(s) + 1;
	for (unsigned k = 1; s->lo < end; k++) {
		if (k % SLICE_LOOK == 0 && embedded_slice_is_over(s)) {
			embedded_wake(s);
			return;
		}
		give_back(s, s->lo++);
	}
	if (s->lo >= s->logged)
		s->disk = 0;
}

/* Bytes that every consumer has read, and that are worth nothing to anybody else: they are in the log, or will never be. */
static void advance_consumed(struct embedded *s)
{
	uint64_t end = all_consumed(s) + 1;
	if (s->dropped < s->lo)
		s->dropped = s->lo;
	for (unsigned k = 1; s->dropped < end; k++) {
		if (k % SLICE_LOOK == 0 && embedded_slice_is_over(s)) {
			embedded_wake(s);
			return;
		}
		struct item *it = window_find(s, s->dropped++);
		if (it && it->b && (it->log == ITEM_DURABLE || it->is_bound || !s->log))
			drop(s, it);
	}
}

/* What a consumer has committed while another is far behind. */
static void advance_settled(struct embedded *s, struct dmsr_subscription *c)
{
	if (c->settled < s->lo - 1)
		c->settled = s->lo - 1;
	for (unsigned k = 1; c->settled < c->committed; k++) {
		if (k % SLICE_LOOK == 0 && embedded_slice_is_over(s)) {
			embedded_wake(s);
			return;
		}
		struct item *it = window_find(s, ++c->settled);
		if (it && !it->b)
			drop(s, it);
	}
}

void window_advance(struct embedded *s)
{
	advance_committed(s);
	advance_consumed(s);
	for (struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		advance_settled(s, c);
}

/* ---- room ---- */

bool window_is_over(const struct embedded *s, size_t limit)
{
	size_t taken = s->memory + s->promised, lent = s->promised;
	uint64_t end = 0;
	if (taken <= limit && !s->is_spilling)
		return false;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one) {
		lent += c->packed + c->cutting;
		end = c->next > end ? c->next : end;
	}
	if (taken <= limit) /* what could be dropped is room */
		return taken - lent - s->spare > limit / 2;
	if (taken - lent - s->spare > limit / 4) /* a load of many batches is not walked through for nothing */
		return true;
	/* what a consumer gets next is not dropped: however big it is, it does not stop the source */
	for (const struct item *it = s->first; it && it->n <= end; it = it->next)
		if (it->b && it->log == ITEM_DURABLE && (is_read(s, it) || is_next(s, it->n)))
			lent += it->bytes;
	return taken - lent > limit / 4;
}

/* What the log has, the newest first: it is the last to be wanted again. */
static void drop_logged(struct embedded *s, size_t enough)
{
	struct item *before;
	for (struct item *it = s->last; it && s->memory > enough; it = before) {
		before = it->prev;
		if (it->b && it->log == ITEM_DURABLE && !is_read(s, it) && !is_next(s, it->n))
			drop(s, it);
	}
}

static bool is_worthless(const struct item *it) { return it && it->b && it->log == ITEM_MEMORY; }

/* Rule 5. What is dropped here can not be written any more, and nothing behind it until it is committed. */
static void drop_consumed(struct embedded *s)
{
	uint64_t end = all_consumed(s);
	size_t bytes = 0;
	if (s->worthless < s->lo)
		s->worthless = s->lo;
	while (s->worthless <= end && !is_worthless(window_find(s, s->worthless)))
		s->worthless++;
	for (uint64_t n = s->worthless; n <= end; n++) {
		const struct item *it = window_find(s, n);
		bytes += is_worthless(it) ? it->bytes : 0;
	}
	bool is_stuck = s->memory > s->memory_max && feed_is_starving(s);
	if (!bytes || (bytes < s->memory_max / 2 && !spill_is_full(s) && !is_stuck))
		return;
	for (; s->worthless <= end; s->worthless++) {
		struct item *it = window_find(s, s->worthless);
		if (is_worthless(it))
			drop(s, it);
	}
}

void window_make_room(struct embedded *s)
{
	size_t high = s->memory_max / 4 * 3;
	if (s->memory <= high)
		return;
	if (s->spare)
		drop_logged(s, s->memory_max / 2);
	if (s->memory > high)
		drop_consumed(s);
}

void window_free(struct embedded *s)
{
	while (s->first)
		forget(s, s->first);
	map_free(s->items);
	free(s->told.all);
}
