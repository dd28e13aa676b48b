/* batch_known: what of a batch a position covers: what comes a second time, after a crash, is taken out by it; and a batch without what else is not to come. */
#include "batch.h"

static bool is_covered(const struct change *ch, const struct batch *b, const struct position *p)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_TRUNCATE:
		return ch->txn && position_covers(p, ch->txn->lsn, change_known_at(ch));
	case OP_BEGIN:
		return ch->txn && position_covers(p, ch->txn->lsn, 1);
	case OP_COMMIT:
		return ch->txn && position_covers(p, ch->txn->lsn, POSITION_WHOLE);
	case OP_SCHEMA:
		return ch->txn && !b->is_load && position_covers(p, ch->txn->lsn, change_known_at(ch));
	case OP_MESSAGE:
		return ch->txn ? position_covers(p, ch->txn->lsn, ch->event) : ch->u.message.lsn <= p->lsn;
	case OP_HEARTBEAT:
		return position_compare(&b->end, p) <= 0;
	case OP_READ: case OP_LOAD_BEGIN: case OP_ROWS: case OP_LOAD_PART: case OP_LOAD_END: case OP_LOAD_DONE:
		return false;
	}
	return false;
}

enum batch_known batch_known(const struct batch *b, const struct position *p)
{
	bool any = false, all = true;
	if (position_is_none(p) || position_is_none(&b->end))
		return KNOWN_NOTHING;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		bool is = is_covered(ch, b, p);
		any |= is;
		all &= is;
	}
	if (position_compare(&b->end, p) > 0)
		return any ? KNOWN_PART : KNOWN_NOTHING;
	return all ? KNOWN_ALL : KNOWN_PART;
}

/* One that ends a group of TRUNCATEs leaves that to the one before it. */
static void end_group(struct change *last, const struct change *ch)
{
	if (ch->op == OP_TRUNCATE && !(ch->flags & CHANGE_GROUP_MORE) && last && last->op == OP_TRUNCATE && last->txn == ch->txn)
		last->flags &= (uint8_t)~CHANGE_GROUP_MORE;
}

static void take_out(struct batch *b, bool (*goes)(void *arg, const struct change *ch), void *arg)
{
	struct change **at = &b->first, *last = NULL;
	while (*at) {
		struct change *ch = *at;
		if (!goes(arg, ch)) {
			last = ch;
			at = &ch->next;
			continue;
		}
		end_group(last, ch);
		b->nchanges--;
		b->nrows -= change_is_row(ch);
		*at = ch->next;
	}
	b->last = last;
}

void batch_take_out(struct batch *b, bool (*goes)(void *arg, const struct change *ch), void *arg)
{
	take_out(b, goes, arg);
	if (!b->first)
		batch_append(b, OP_HEARTBEAT, NULL)->txn = NULL;
}

struct cut {
	const struct batch *b;
	const struct position *p;
};

static bool is_cut(void *arg, const struct change *ch)
{
	const struct cut *c = arg;
	return is_covered(ch, c->b, c->p);
}

void batch_cut(struct batch *b, const struct position *p)
{
	take_out(b, is_cut, &(struct cut){ b, p });
	if (!b->first && position_compare(&b->end, p) > 0)
		batch_append(b, OP_HEARTBEAT, NULL)->txn = NULL;
	if (!position_is_past(p, &b->end))
		return;
	/* Words alone are left, which may be known or not. They come behind p, maybe inside of a transaction, and do not go back to where they were first. */
	b->end = *p;
	b->more = position_is_inside(p);
}

/* ---- views ---- */

static struct batch *view_new(const struct batch *b)
{
	struct batch *v = batch_new();
	v->end = b->end;
	v->bytes = b->bytes;
	v->more = b->more;
	v->is_load = b->is_load;
	v->part = b->part;
	v->received_us = b->received_us;
	v->token = b->token;
	return v;
}

static void view_append(struct batch *v, const struct change *ch)
{
	struct change *own = arena_alloc(&v->arena, sizeof *own);
	*own = *ch;
	own->next = NULL;
	if (v->last)
		v->last->next = own;
	else
		v->first = own;
	v->last = own;
	v->nchanges++;
	v->nrows += change_is_row(own);
}

struct batch *batch_behind_commit(const struct batch *b, const struct txn *open)
{
	struct batch *v = view_new(b);
	batch_txn(v, open);
	batch_append(v, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		view_append(v, ch);
	return v;
}

struct batch *batch_without(const struct batch *b, bool (*goes)(void *arg, const struct change *ch), void *arg)
{
	struct batch *v = view_new(b);
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (goes(arg, ch)) {
			end_group(v->last, ch);
			continue;
		}
		view_append(v, ch);
	}
	if (!v->first)
		batch_append(v, OP_HEARTBEAT, NULL);
	return v;
}
