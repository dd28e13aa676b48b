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

bool feed_is_starving(const struct embedded *s)
{
	bool is_open = false;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		is_open |= c->is_last_open;
	return is_open && feed_all_have_all(s);
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
		batch_free(cut->b);
		free(cut);
	}
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
	if (c->is_waiting || c->next == s->hi || !recall_next(c))
		return false;
	const struct item *it = window_find(s, c->next);
	const struct batch *b = share_of(c, it);
	if (!b) {
		feed_skip(c);
		return true;
	}
	/* Before the call: an answer that comes at once must find it lent. */
	uint64_t last = c->last;
	bool is_open = it->is_open;
	c->last = c->next++;
	enum dmsr_verdict v = c->c.deliver(c->c.ctx, b, c->last);
	if (s->is_closed)
		return false;
	if (v == DMSR_OK) {
		c->is_last_open = is_open;
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
	for (struct dmsr_subscription *c = s->subscriptions; c && !s->is_closed && s->state == EMBEDDED_RUNNING; c = c->next_one)
		tell_drained(c);
}
