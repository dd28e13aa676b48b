/* target_catch: see target_catch.h. */
#include "target_catch.h"

static bool differs(const struct value *a, const struct value *b)
{
	return a->kind != b->kind || a->len != b->len || (a->len && memcmp(a->data, b->data, a->len));
}

bool catch_moves_key(const struct change *ch)
{
	const struct relation *rel = ch->rel;
	if (ch->op != OP_UPDATE || !ch->u.row.before)
		return false;
	for (unsigned i = 0; i < rel->nkeys; i++) {
		const struct value *new = &ch->u.row.after[rel->keys[i]];
		if (new->kind != VALUE_UNCHANGED && differs(&ch->u.row.before[rel->keys[i]], new))
			return true;
	}
	return false;
}

static bool is_whole(const struct change *ch)
{
	for (unsigned i = 0; i < ch->rel->ncolumns; i++)
		if (ch->u.row.after[i].kind == VALUE_UNCHANGED && !(ch->rel->columns[i].flags & COLUMN_GENERATED))
			return false;
	return true;
}

static struct change gone(const struct change *ch, const struct value *key)
{
	struct change d = { .op = OP_DELETE, .flags = CHANGE_KEY_ONLY, .rel = ch->rel, .txn = ch->txn, .event = ch->event };
	d.u.row.before = key;
	return d;
}

unsigned catch_plan(const struct change *ch, bool rows_move, struct change out[CATCH_MAX])
{
	unsigned n = 0;
	bool moves = catch_moves_key(ch);
	bool is_by_key = ch->op == OP_CREATE || !ch->u.row.before || ch->flags & CHANGE_KEY_ONLY;
	if (ch->rel->key != KEY_PRIMARY || !is_by_key)
		return 0;
	if (ch->op == OP_DELETE || (ch->op == OP_UPDATE && !moves && !(rows_move && is_whole(ch)))) {
		out[n++] = *ch;
		return n;
	}
	if (!is_whole(ch))
		return 0;
	if (moves)
		out[n++] = gone(ch, ch->u.row.before);
	out[n++] = gone(ch, ch->u.row.after);
	out[n] = *ch;
	out[n].op = OP_CREATE;
	out[n++].u.row.before = NULL;
	return n;
}
