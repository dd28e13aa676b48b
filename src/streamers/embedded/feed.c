/* feed: lends the window to the consumers, each at its own pace, and takes back. */
#include "embedded.h"
#include <assert.h>
#include <stdlib.h>

bool feed_all_have_all(const struct embedded *s)
{
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		if (c->next != s->hi)
			return false;
	return true;
}

static bool is_inside(const struct dmsr_subscription *c) { return c->in_txn || c->in_table; }

/* One that cannot be asked to let go commits when it likes: after so many batches, perhaps. */
bool feed_must_have(const struct dmsr_subscription *c) { return !c->held || !c->c.let_go; }

bool feed_is_starving(const struct embedded *s)
{
	bool is_open = false;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		is_open |= is_inside(c) && feed_must_have(c);
	return is_open && feed_all_have_all(s);
}

/* ---- shares ---- */

static size_t holds(const struct dmsr_subscription *c) { return c->held + c->packed + c->cutting + (c->is_reading ? c->promised : 0); }

bool feed_is_over_share(struct dmsr_subscription *c)
{
	size_t all = 0, n = 0, limit = c->s->memory_max / 4 * 3;
	if (c->is_over)
		limit /= 2;
	for (const struct dmsr_subscription *each = c->s->subscriptions; each; each = each->next_one, n++)
		all += holds(each);
	c->is_over = all > limit && holds(c) > limit / n;
	return c->is_over && !feed_must_have(c);
}

void feed_hold_back(struct dmsr_subscription *c)
{
	c->is_over = true;
	if (c->is_told || !c->c.let_go)
		return;
	c->is_told = true;
	c->c.let_go(c->c.ctx);
}

static void add_loan(struct dmsr_subscription *c, uint64_t n, size_t bytes)
{
	struct loan *l = mem_alloc(sizeof *l);
	*l = (struct loan){ .n = n, .bytes = bytes };
	if (c->last_loan)
		c->last_loan->next = l;
	else
		c->loans = l;
	c->last_loan = l;
	c->held += bytes;
}

static void end_loan(struct dmsr_subscription *c)
{
	struct loan *l = c->loans;
	c->loans = l->next;
	if (!c->loans)
		c->last_loan = NULL;
	c->held -= l->bytes;
	free(l);
}

/* ---- cuts ---- */

static struct batch *make_cut(struct dmsr_subscription *c, const struct item *it)
{
	struct embedded *s = c->s;
	struct buf packed;
	buf_init(&packed, s->pack.max);
	struct batch *b = batch_pack(it->b, &packed) ? NULL : batch_unpack(packed.data, packed.len, NULL);
	buf_fini(&packed);
	if (!b)
		return NULL;
	batch_cut(b, &c->from);
	b->token = it->token;
	struct cut *cut = mem_alloc(sizeof *cut), **end = &c->cuts;
	*cut = (struct cut){ .n = it->n, .b = b, .bytes = window_cost(b) };
	while (*end)
		end = &(*end)->next;
	*end = cut;
	s->memory += cut->bytes;
	c->cutting += cut->bytes;
	return b;
}

void feed_expect(struct embedded *s)
{
	for (struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		c->has_more = true;
}

void feed_forget(struct dmsr_subscription *c)
{
	while (c->cuts && c->cuts->n <= c->consumed) {
		struct cut *cut = c->cuts;
		c->cuts = cut->next;
		c->s->memory -= cut->bytes;
		c->cutting -= cut->bytes;
		batch_free(cut->b);
		free(cut);
	}
	while (c->loans && c->loans->n <= c->consumed)
		end_loan(c);
}

/* ---- one batch ---- */

void feed_skip(struct dmsr_subscription *c)
{
	if (c->committed == c->next - 1)
		c->committed = c->consumed = c->next;
	c->next++;
	embedded_wake(c->s);
}

/* What c gets of the item; NULL: nothing, it has it all. */
static const struct batch *share_of(struct dmsr_subscription *c, const struct item *it)
{
	if (!c->is_behind)
		return it->b;
	switch (batch_known(it->b, &c->from)) {
	case KNOWN_ALL:
		return NULL;
	case KNOWN_PART:
		break;
	case KNOWN_NOTHING:
		if (!position_is_none(&it->b->end))
			c->is_behind = false;
		return it->b;
	}
	for (const struct cut *cut = c->cuts; cut; cut = cut->next)
		if (cut->n == it->n)
			return cut->b;
	const struct batch *b = make_cut(c, it);
	return b ? b : it->b; /* too big to be copied: a target that keeps its position passes over what it knows */
}

/* Lends c its next batch. False: not now. */
static bool lend(struct dmsr_subscription *c)
{
	struct embedded *s = c->s;
	if (c->is_waiting || c->next == s->hi)
		return false;
	const struct item *it = window_find(s, c->next);
	if (!(it && it->is_bound) && feed_is_over_share(c)) {
		feed_hold_back(c);
		return false;
	}
	if (!recall_next(c))
		return false;
	it = window_find(s, c->next);
	const struct batch *b = share_of(c, it);
	if (!b) {
		feed_skip(c);
		return true;
	}
	/* Before the call: an answer that comes at once must find it lent. */
	uint64_t last = c->last;
	bool is_open = it->is_open, is_load = it->b->is_load;
	size_t bytes = it->bytes;
	c->last = c->next++;
	enum dmsr_verdict v = c->c.deliver(c->c.ctx, b, c->last);
	if (s->is_closed)
		return false;
	if (v == DMSR_OK) {
		*(is_load ? &c->in_table : &c->in_txn) = is_open;
		c->is_told = false;
		if (c->consumed < c->last)
			add_loan(c, c->last, bytes);
		return true;
	}
	assert(v == DMSR_AGAIN);
	c->next = c->last;
	c->last = last;
	c->is_waiting = true;
	return false;
}

static void tell_drained(struct dmsr_subscription *c)
{
	if (!c->has_more || c->next != c->s->hi)
		return;
	c->has_more = false;
	if (c->c.drained)
		c->c.drained(c->c.ctx);
}

/* The source waits for room, and this one for the source, inside of a transaction. */
static bool is_in_the_way(const struct dmsr_subscription *c)
{
	const struct embedded *s = c->s;
	return s->said_again && is_inside(c) && c->held && c->next == s->hi && window_is_over(s, s->memory_max / 4 * 3);
}

/* A batch for each, then another: a slow one does not keep the others waiting. */
void feed_turn(struct embedded *s)
{
	bool any = true;
	while (any && !s->is_closed && s->state == EMBEDDED_RUNNING) {
		any = false;
		for (struct dmsr_subscription *c = s->subscriptions; c && !s->is_closed && s->state == EMBEDDED_RUNNING; c = c->next_one)
			any |= lend(c);
		if (any && embedded_slice_is_over(s)) {
			embedded_wake(s);
			return;
		}
	}
	for (struct dmsr_subscription *c = s->subscriptions; c && !s->is_closed && s->state == EMBEDDED_RUNNING; c = c->next_one) {
		tell_drained(c);
		if (!s->is_closed && is_in_the_way(c))
			feed_hold_back(c);
	}
}
