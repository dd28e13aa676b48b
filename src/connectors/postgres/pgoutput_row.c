/* pgoutput_row: rows. In: Insert, Update, Delete, Truncate. Out: changes with their values, in the batch.
 *
 *   I  oid32  'N' tuple                        tuple: n16, n x { 'n'                NULL
 *   U  oid32  ['K'|'O' tuple]  'N' tuple                         'u'                TOAST value that did not change: not sent
 *   D  oid32  'K'|'O' tuple                                      't' len32 bytes    text
 *   T  n32  flags8  n x oid32                                    'b' len32 bytes }  binary
 *
 * 'K': the old values of the replica identity's columns, the others come as NULL (and mean nothing). 'O': the whole old row.
 *
 * What is left of a message is copied into the batch's arena once; values point into the copy. A text value gets its NUL where the next one's kind
 * byte was, as soon as that is read; behind the last one there is a byte of room. */
#include "pgoutput_int.h"
#include <stdlib.h>

/* Reads the copy. `nul`: where the value that was read last ends. */
struct reader {
	struct cursor c;
	char *base, *nul;
};

/* A kind byte: the only thing that may follow a value. */
static inline char next_kind(struct reader *r)
{
	char kind = (char)cursor_u8(&r->c);

	if (r->nul)
		*r->nul = 0;
	r->nul = NULL;
	return kind;
}

static inline void next_bytes(struct reader *r, enum value_kind kind, struct value *out)
{
	uint32_t len = cursor_be32(&r->c);
	const char *p = cursor_bytes(&r->c, len);

	if (!p)
		return;
	*out = (struct value){ p, len, (uint8_t)kind };
	r->nul = r->base + (p - r->base) + len;
}

static const struct value not_sent = { NULL, 0, VALUE_UNCHANGED };

static int read_tuple(struct reader *r, const struct version *v, struct value *out, bool key_only, struct err *e)
{
	unsigned n = cursor_be16(&r->c);

	if (n != v->nwire)
		return pgo_bad(e, "a row of %s.%s has %u columns instead of %u", v->rel->schema, v->rel->name, n, (unsigned)v->nwire);
	if (!v->is_straight)
		for (unsigned i = 0; i < v->rel->ncolumns; i++)
			out[i] = not_sent;
	for (unsigned i = 0; i < n; i++) {
		struct value *val = v->is_straight ? &out[i] : &out[v->column[i]];
		char kind = next_kind(r);
		*val = (struct value){ NULL, 0, VALUE_NULL };
		if (kind == 't')
			next_bytes(r, VALUE_TEXT, val);
		else if (kind == 'b')
			next_bytes(r, VALUE_BINARY, val);
		else if (kind == 'u')
			*val = not_sent;
		else if (kind != 'n')
			cursor_fail(&r->c);
		if (key_only && !v->is_identity[i])
			*val = not_sent;
	}
	return r->c.bad ? pgo_bad(e, "a row of %s.%s is cut off or has an unknown kind of value", v->rel->schema, v->rel->name) : 0;
}

static void copy_rest(struct pgoutput *d, struct cursor *c, struct reader *r)
{
	struct batch *b = pgo_batch(d);
	size_t n = cursor_left(c);

	r->base = arena_dup(&b->arena, c->at, n);
	r->nul = NULL;
	cursor_init(&r->c, r->base, n);
	b->bytes += n;
}

/* The first row of a version whose columns are not told apart. */
static bool may_go_out(struct pgoutput *d, struct version *v)
{
	if (!v->is_dated || !d->host.dated)
		return true;
	v->is_dated = !d->host.dated(d->host.ctx, v->rel, d->txn.lsn);
	return !v->is_dated;
}

/* The table of a row, and whether the row is to be emitted; counts the event. */
static int look_up_row(struct pgoutput *d, uint32_t id, struct table **out, struct err *e)
{
	struct table *t = pgo_table(d, id);

	d->event++;
	if (!t)
		return pgo_bad(e, "a change of a table (oid %u) that was not described", (unsigned)id);
	bool is_out = t->now->wanted && !pgo_is_skipped(d, t->now->loaded_lsn) && may_go_out(d, t->now);
	*out = is_out ? t : NULL;
	return 0;
}

static int find_row(struct pgoutput *d, uint32_t id, struct table **out, struct err *e)
{
	int rc = look_up_row(d, id, out, e);

	if (!rc && *out && (*out)->told != (*out)->now->rel)
		pgo_tell_schema(d, *out);
	return rc;
}

static int done(const struct reader *r, const struct version *v, struct err *e)
{
	if (cursor_done(&r->c))
		return 0;
	return pgo_bad(e, "a row of %s.%s has a wrong length", v->rel->schema, v->rel->name);
}

static void emit_row(struct pgoutput *d, enum change_op op, const struct table *t, const struct value *before, const struct value *after, bool key_only)
{
	struct change *ch = pgo_emit(d, op, t->now->rel);

	ch->event = d->event;
	ch->flags = key_only ? CHANGE_KEY_ONLY : 0;
	ch->u.row.before = before;
	ch->u.row.after = after;
}

int pgo_insert(struct pgoutput *d, struct cursor *c, struct err *e)
{
	struct table *t = NULL;
	struct reader r;
	int rc = find_row(d, cursor_be32(c), &t, e);

	if (rc || !t)
		return rc;
	copy_rest(d, c, &r);
	if (next_kind(&r) != 'N')
		return pgo_bad(e, "Insert without a row");
	struct value *after = batch_values(d->batch, t->now->rel->ncolumns);
	if ((rc = read_tuple(&r, t->now, after, false, e)) || (rc = done(&r, t->now, e)))
		return rc;
	emit_row(d, OP_CREATE, t, NULL, after, false);
	return 0;
}

int pgo_update(struct pgoutput *d, struct cursor *c, struct err *e)
{
	struct table *t = NULL;
	struct reader r;
	struct value *before = NULL;
	bool key_only = false;
	int rc = find_row(d, cursor_be32(c), &t, e);

	if (rc || !t)
		return rc;
	unsigned n = t->now->rel->ncolumns;
	copy_rest(d, c, &r);
	char kind = next_kind(&r);
	if (kind == 'K' || kind == 'O') {
		key_only = kind == 'K';
		before = batch_values(d->batch, n);
		if ((rc = read_tuple(&r, t->now, before, key_only, e)))
			return rc;
		kind = next_kind(&r);
	}
	if (kind != 'N')
		return pgo_bad(e, "Update without a new row");
	struct value *after = batch_values(d->batch, n);
	if ((rc = read_tuple(&r, t->now, after, false, e)) || (rc = done(&r, t->now, e)))
		return rc;
	for (unsigned i = 0; before && i < n; i++)
		if (after[i].kind == VALUE_UNCHANGED)
			after[i] = before[i];
	emit_row(d, OP_UPDATE, t, before, after, key_only);
	return 0;
}

int pgo_delete(struct pgoutput *d, struct cursor *c, struct err *e)
{
	struct table *t = NULL;
	struct reader r;
	int rc = find_row(d, cursor_be32(c), &t, e);

	if (rc || !t)
		return rc;
	copy_rest(d, c, &r);
	char kind = next_kind(&r);
	if (kind != 'K' && kind != 'O')
		return pgo_bad(e, "Delete without an old row");
	struct value *before = batch_values(d->batch, t->now->rel->ncolumns);
	if ((rc = read_tuple(&r, t->now, before, kind == 'K', e)) || (rc = done(&r, t->now, e)))
		return rc;
	emit_row(d, OP_DELETE, t, before, NULL, kind == 'K');
	return 0;
}

/* True: the host has to find out about one of its tables, and has it all again. Nothing of it is out then. */
static bool must_wait(struct pgoutput *d, const struct cursor *message, struct cursor c, uint32_t n, uint64_t nasked)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t id = cursor_be32(&c);
		const struct table *t = pgo_table(d, id);
		bool is_out = t && t->now->wanted && d->txn.lsn >= t->now->loaded_lsn && !position_covers(&d->from, d->txn.lsn, d->event + 1 + i);
		if (i >= nasked && is_out && t->now->is_renamed && d->host.empties(d->host.ctx, id) == DMSR_AGAIN) {
			pgo_wait(d, 'T', message, i + 1, NULL);
			return true;
		}
	}
	return false;
}

static int find_truncated(struct pgoutput *d, struct cursor *c, uint32_t n, struct table **out, struct err *e)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = cursor_be32(c);
		int rc = look_up_row(d, id, &out[i], e);
		if (rc)
			return rc;
		pgo_table(d, id)->truncated = d->txn.lsn;
	}
	return 0;
}

/* Those of one statement stand together, behind what is told of their tables: whoever takes one of them out finds its neighbours. */
static void emit_truncates(struct pgoutput *d, struct table *const *out, uint32_t n, uint8_t flags)
{
	uint64_t first = d->event + 1 - n, end = d->event;
	struct change *last = NULL;

	d->event = first;
	for (uint32_t i = 0; i < n; i++)
		if (out[i] && out[i]->told != out[i]->now->rel)
			pgo_tell_schema(d, out[i]);
	d->event = end;
	for (uint32_t i = 0; i < n; i++) {
		if (!out[i])
			continue;
		if (last)
			last->flags |= CHANGE_GROUP_MORE;
		last = pgo_emit(d, OP_TRUNCATE, out[i]->now->rel);
		last->event = first + i;
		last->flags = flags;
	}
}

int pgo_truncate(struct pgoutput *d, struct cursor *c, uint64_t nasked, struct err *e)
{
	const struct cursor message = *c;
	uint32_t n = cursor_be32(c);
	uint8_t options = cursor_u8(c);
	uint8_t flags = (uint8_t)((options & 1 ? CHANGE_CASCADE : 0) | (options & 2 ? CHANGE_RESTART_IDENTITY : 0));

	if (c->bad || cursor_left(c) != (uint64_t)n * 4)
		return pgo_bad(e, "Truncate has a wrong length");
	if (d->host.empties && must_wait(d, &message, *c, n, nasked))
		return DMSR_AGAIN;
	struct table **out = mem_alloc((n + 1) * sizeof *out);
	int rc = find_truncated(d, c, n, out, e);
	if (!rc)
		emit_truncates(d, out, n, flags);
	free(out);
	return rc;
}

uint64_t pgoutput_truncated(struct pgoutput *d, uint32_t relid)
{
	const struct table *t = pgo_table(d, relid);

	return t ? t->truncated : 0;
}
