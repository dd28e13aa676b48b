/* target_net: the net change of a table. Row changes of a target transaction are gathered, table by table, and what became of a key in them is one change:
 *
 *   gathered \ comes    insert                  update              delete
 *   nothing             INSERT                  UPDATE              DELETE
 *   INSERT              (alone)                 INSERT, merged      nothing
 *   UPDATE              (alone)                 UPDATE, merged      DELETE
 *   DELETE              REPLACE                 (alone)             (alone)
 *   REPLACE             (alone)                 REPLACE, merged     DELETE
 *
 * REPLACE is a delete and an insert. Out they go as sets: deletes, then updates, then inserts, so that what one row gives up another may take. "Alone"
 * cannot be if the target was like the source: it is sent by itself, and the server judges. So is a change of the key itself, and every change of a
 * table whose rows are not found by a unique key, but for inserts.
 *
 * The order between tables is not kept; so only those take part where nobody could see it: no triggers or foreign keys that work while we write. The
 * changes stay in their batches, which are held until the transaction ends; what is merged lies in an arena. */
#include "target_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	ROWS_MAX = 1000,                /* gathered of a table: beyond, out they go */
	BYTES_MAX = 1 << 20,
	ROW_BYTES_MAX = 256 << 10,      /* a row that is not gathered */
};

enum net_state { NET_NOTHING, NET_INSERT, NET_UPDATE, NET_DELETE, NET_REPLACE };

struct net_row {
	struct net_row *next;
	uint8_t state;                  /* enum net_state */
	bool is_merged;                 /* after is our own copy */
	const struct value *before;     /* the key; NULL: it is in after */
	const struct value *after;
};

struct net {
	struct map *by_key;             /* NULL: rows are only added */
	struct net_row *first, **last;
	size_t n, bytes;
	uint64_t first_seq, last_seq;
	struct target_table *next;      /* of those that have gathered something */
};

/* ---- which tables ---- */

bool net_is_free(const struct target *t, const struct target_table *tb)
{
	return !tb->has_triggers && (t->is_replica || (!tb->has_references && !tb->is_partitioned));
}

static bool finds_by_key(const struct target_table *tb)
{
	return tb->has_key && (tb->rel->key == KEY_PRIMARY || tb->rel->key == KEY_UNIQUE);
}

/* ---- values ---- */

/* Can all values be put into arrays of texts? */
static bool has_texts(const struct relation *rel, const struct value *v, size_t *bytes)
{
	for (unsigned i = 0; v && i < rel->ncolumns; i++) {
		*bytes += v[i].len;
		if (v[i].kind == VALUE_BINARY && !value_has_binary(rel->columns[i].type, rel->columns[i].elem_type))
			return false;
	}
	return true;
}

static bool add_key(struct buf *out, const struct relation *rel, const struct value *v)
{
	for (unsigned i = 0; i < rel->nkeys; i++) {
		const struct value *k = &v[rel->keys[i]];
		if (k->kind == VALUE_UNCHANGED || k->kind == VALUE_NULL)
			return false;
		buf_byte(out, (char)k->kind);
		buf_u32(out, k->len);
		buf_append(out, k->data, k->len);
	}
	return buf_ok(out);
}

static void merge(struct target *t, struct net_row *r, const struct relation *rel, const struct value *newer)
{
	if (!r->is_merged) {
		struct value *copy = arena_alloc(&t->net_arena, rel->ncolumns * sizeof *copy);
		memcpy(copy, r->after, rel->ncolumns * sizeof *copy);
		r->after = copy;
		r->is_merged = true;
	}
	union { const struct value *in; struct value *out; } u = { .in = r->after };
	for (unsigned i = 0; i < rel->ncolumns; i++)
		if (newer[i].kind != VALUE_UNCHANGED)
			u.out[i] = newer[i];
}

/* ---- gathering ---- */

static struct net *net_of(struct target *t, struct target_table *tb)
{
	struct net *n = tb->net;
	if (!n) {
		n = tb->net = mem_zalloc(sizeof *n);
		n->last = &n->first;
	}
	if (!n->first) {
		n->first_seq = t->seq;
		n->next = t->nets;
		t->nets = tb;
	}
	return n;
}

static struct net_row *append(struct target *t, struct net *n, enum net_state state, const struct change *ch)
{
	struct net_row *r = arena_zalloc(&t->net_arena, sizeof *r);
	r->state = (uint8_t)state;
	r->after = ch->u.row.after;
	r->before = ch->u.row.before;
	*n->last = r;
	n->last = &r->next;
	n->n++;
	return r;
}

/* False: it is to go alone. */
static bool combine(struct target *t, struct net_row *r, const struct change *ch)
{
	static const uint8_t becomes[][3] = { /* insert, update, delete */
		[NET_NOTHING] = { NET_INSERT, NET_NOTHING, NET_NOTHING },
		[NET_INSERT] = { NET_NOTHING, NET_INSERT, NET_NOTHING },
		[NET_UPDATE] = { NET_NOTHING, NET_UPDATE, NET_DELETE },
		[NET_DELETE] = { NET_REPLACE, NET_NOTHING, NET_NOTHING },
		[NET_REPLACE] = { NET_NOTHING, NET_REPLACE, NET_DELETE },
	};
	unsigned what = ch->op == OP_UPDATE ? 1 : ch->op == OP_DELETE ? 2 : 0;
	enum net_state to = (enum net_state)becomes[r->state][what];
	bool is_undone = r->state == NET_INSERT && what == 2;
	if (to == NET_NOTHING && !is_undone)
		return false;
	if (what == 1)
		merge(t, r, ch->rel, ch->u.row.after);
	if (what == 0) {
		r->after = ch->u.row.after;
		r->is_merged = false;
	}
	if (what == 2 && ch->u.row.before)
		r->before = ch->u.row.before;
	if (to == NET_REPLACE && what == 0 && !r->before)
		return false;
	r->state = (uint8_t)to;
	return true;
}

static bool gather_keyed(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct buf *key = &t->net_key;
	const struct value *k = ch->op == OP_CREATE || !ch->u.row.before ? ch->u.row.after : ch->u.row.before;
	buf_reset(key);
	if (!k || !add_key(key, tb->rel, k))
		return false;
	struct net *n = net_of(t, tb);
	if (!n->by_key)
		n->by_key = map_new();
	struct net_row *r = map_get(n->by_key, key->data, key->len);
	if (r)
		return combine(t, r, ch);
	r = append(t, n, ch->op == OP_UPDATE ? NET_UPDATE : ch->op == OP_DELETE ? NET_DELETE : NET_INSERT, ch);
	map_put(n->by_key, key->data, key->len, r);
	return true;
}

bool net_add(struct target *t, struct target_table *tb, const struct change *ch)
{
	size_t bytes = 0;
	bool is_insert = ch->op == OP_CREATE || ch->op == OP_READ, is_keyed = finds_by_key(tb);
	if (apply_catches(tb, ch))
		return false;
	if (tb->by_row) {
		tb->by_row--;
		return false;
	}
	if (!net_is_free(t, tb) || (!is_insert && !is_keyed) || catch_moves_key(ch))
		return false;
	if (!has_texts(ch->rel, ch->u.row.after, &bytes) || !has_texts(ch->rel, ch->u.row.before, &bytes) || bytes > ROW_BYTES_MAX)
		return false;
	if (!is_keyed)
		append(t, net_of(t, tb), NET_INSERT, ch);
	else if (!gather_keyed(t, tb, ch))
		return false;
	tb->net->last_seq = t->seq;
	tb->net->bytes += bytes;
	if (tb->net->n >= ROWS_MAX || tb->net->bytes >= BYTES_MAX)
		net_flush(t, tb);
	return true;
}

/* ---- out ---- */

static bool is_in(const struct net_row *r, enum change_op op)
{
	if (op == OP_DELETE)
		return r->state == NET_DELETE || r->state == NET_REPLACE;
	if (op == OP_UPDATE)
		return r->state == NET_UPDATE;
	return r->state == NET_INSERT || r->state == NET_REPLACE;
}

/* Without old values an update leaves the key alone. */
static struct change change_of(const struct target_table *tb, const struct net_row *r, enum change_op op)
{
	struct change ch = { .op = (uint8_t)op, .rel = tb->rel };
	if (op != OP_DELETE)
		ch.u.row.after = r->after;
	if (op != OP_CREATE)
		ch.u.row.before = r->before;
	return ch;
}

static void send_kind(struct target *t, struct target_table *tb, enum change_op op)
{
	struct net *n = tb->net;
	struct change *rows = mem_alloc((n->n + 1) * sizeof *rows);
	size_t count = 0;
	for (struct net_row *r = n->first; r; r = r->next)
		if (is_in(r, op))
			rows[count++] = change_of(tb, r, op);
	if (count)
		set_send(t, tb, rows, count);
	free(rows);
}

static void clear(struct net *n)
{
	map_free(n->by_key);
	*n = (struct net){ .last = &n->first };
}

static void unlist(struct target *t, struct target_table *tb)
{
	struct target_table **at = &t->nets;
	while (*at != tb)
		at = &(*at)->net->next;
	*at = tb->net->next;
}

void net_flush(struct target *t, struct target_table *tb)
{
	if (!tb->net || !tb->net->first)
		return;
	unlist(t, tb);
	t->tx.first_seq = tb->net->first_seq;
	t->tx.last_seq = tb->net->last_seq;
	send_kind(t, tb, OP_DELETE);
	send_kind(t, tb, OP_UPDATE);
	send_kind(t, tb, OP_CREATE);
	t->tx.first_seq = t->tx.last_seq = 0;
	clear(tb->net);
}

void net_flush_all(struct target *t)
{
	while (t->nets)
		net_flush(t, t->nets);
	arena_fini(&t->net_arena);
	arena_init(&t->net_arena, 0);
}

void net_drop_all(struct target *t)
{
	while (t->nets) {
		struct target_table *tb = t->nets;
		t->nets = tb->net->next;
		clear(tb->net);
	}
	arena_fini(&t->net_arena);
	arena_init(&t->net_arena, 0);
}

void net_free(struct target_table *tb)
{
	if (tb->net)
		map_free(tb->net->by_key);
	free(tb->net);
	tb->net = NULL;
}
