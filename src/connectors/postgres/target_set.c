/* target_set: many rows in one statement. In come changes of one kind on one table; out goes, for each set of columns that they bring, one statement whose
 * parameters are arrays, a value a row, as text. Few rows go one by one. */
#include "target_int.h"
#include <stdlib.h>

enum {
	ROWS_MIN = 3,                   /* fewer are sent one by one */
	ARRAY_MAX = 1 << 29,
};

struct set {
	struct buf *arrays;             /* a parameter each */
	unsigned cap;
	struct buf text;                /* of a value that came in binary form */
	uint8_t *shape;                 /* after, then before */
	const char **values;
	bool *is_sent;
	size_t cap_rows;
	bool is_bad;                    /* a value makes no sense: sent alone, its row is found */
};

static void reserve(struct set *s, unsigned ncolumns, size_t nrows)
{
	unsigned n = 2 * ncolumns + 1;
	if (s->cap < n) {
		s->arrays = mem_realloc_array(s->arrays, n, sizeof *s->arrays);
		for (unsigned i = s->cap; i < n; i++)
			buf_init(&s->arrays[i], ARRAY_MAX);
		s->shape = mem_realloc_array(s->shape, n, 1);
		s->values = mem_realloc_array(s->values, n, sizeof *s->values);
		s->cap = n;
	}
	if (s->cap_rows < nrows) {
		s->is_sent = mem_realloc_array(s->is_sent, nrows, sizeof *s->is_sent);
		s->cap_rows = nrows;
	}
	memset(s->is_sent, 0, nrows * sizeof *s->is_sent);
}

/* ---- elements ---- */

/* Every byte of every row comes by here. */
static const bool is_safe[256] = {
	['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true, ['5'] = true, ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true,
	['A'] = true, ['B'] = true, ['C'] = true, ['D'] = true, ['E'] = true, ['F'] = true, ['G'] = true, ['H'] = true, ['I'] = true, ['J'] = true,
	['K'] = true, ['L'] = true, ['M'] = true, ['N'] = true, ['O'] = true, ['P'] = true, ['Q'] = true, ['R'] = true, ['S'] = true, ['T'] = true,
	['U'] = true, ['V'] = true, ['W'] = true, ['X'] = true, ['Y'] = true, ['Z'] = true, ['a'] = true, ['b'] = true, ['c'] = true, ['d'] = true,
	['e'] = true, ['f'] = true, ['g'] = true, ['h'] = true, ['i'] = true, ['j'] = true, ['k'] = true, ['l'] = true, ['m'] = true, ['n'] = true,
	['o'] = true, ['p'] = true, ['q'] = true, ['r'] = true, ['s'] = true, ['t'] = true, ['u'] = true, ['v'] = true, ['w'] = true, ['x'] = true,
	['y'] = true, ['z'] = true, ['.'] = true, ['-'] = true, ['+'] = true, [':'] = true, ['_'] = true,
};

/* Nothing that an array's text would have to quote; "null" is found by its first letter. */
static bool is_plain(const char *s, size_t n)
{
	if (!n || *s == 'n' || *s == 'N')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_safe[(unsigned char)s[i]])
			return false;
	return true;
}

static void add_quoted(struct buf *out, const char *s, size_t n)
{
	size_t done = 0;
	buf_byte(out, '"');
	for (size_t i = 0; i < n; i++) {
		if (s[i] != '"' && s[i] != '\\')
			continue;
		buf_append(out, s + done, i - done);
		buf_byte(out, '\\');
		done = i;
	}
	buf_append(out, s + done, n - done);
	buf_byte(out, '"');
}

static void add_element(struct set *s, struct buf *out, const struct column *c, const struct value *v)
{
	const char *text = v->data;
	size_t n = v->len;
	buf_byte(out, out->len ? ',' : '{');
	if (v->kind == VALUE_NULL) {
		buf_str(out, "NULL");
		return;
	}
	if (v->kind == VALUE_BINARY) {
		struct err e = { 0 }; /* more bytes than most values: not cleared for each */
		buf_reset(&s->text);
		s->is_bad = s->is_bad || value_to_text(v, c->type, c->elem_type, &s->text, &e);
		text = s->text.data;
		n = s->text.len;
	}
	if (is_plain(text, n))
		buf_append(out, text, n);
	else
		add_quoted(out, text, n);
}

/* ---- one statement ---- */

static unsigned add_row(struct set *s, const struct change *ch)
{
	const struct relation *rel = ch->rel;
	unsigned n = 0;
	for (unsigned i = 0; i < rel->ncolumns; i++)
		if (s->shape[i])
			add_element(s, &s->arrays[n++], &rel->columns[i], &ch->u.row.after[i]);
	const struct value *old = ch->u.row.before ? ch->u.row.before : ch->u.row.after;
	for (unsigned i = 0; i < rel->ncolumns; i++)
		if (s->shape[rel->ncolumns + i])
			add_element(s, &s->arrays[n++], &rel->columns[i], &old[i]);
	return n;
}

static bool close_arrays(struct set *s, unsigned n)
{
	bool ok = !s->is_bad;
	s->is_bad = false;
	for (unsigned i = 0; i < n; i++) {
		buf_byte(&s->arrays[i], '}');
		s->values[i] = buf_cstr(&s->arrays[i]);
		ok = ok && buf_ok(&s->arrays[i]);
	}
	return ok;
}

/* A buffer that grew for big values is not kept. */
static void reset_arrays(struct set *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (s->arrays[i].cap > 1 << 20)
			buf_fini(&s->arrays[i]);
		else
			buf_reset(&s->arrays[i]);
	}
}

static bool has_shape(const struct set *s, struct target_table *tb, const struct change *ch, uint8_t *scratch)
{
	apply_shape(tb, ch, scratch);
	return !memcmp(s->shape, scratch, 2u * ch->rel->ncolumns);
}

static void send_set(struct target *t, struct target_table *tb, enum change_op op, unsigned nparams, unsigned nrows)
{
	struct set *s = t->set;
	struct shape sh = { .op = (uint8_t)op, .is_set = true, .has_key_only = true, .after = s->shape, .before = s->shape + tb->rel->ncolumns };
	char name[STMT_NAME_MAX];
	size_t bytes = 0;
	stmt_get(t, tb, &sh, name);
	for (unsigned i = 0; i < nparams; i++)
		bytes += s->arrays[i].len;
	tx_note(t, SENT_ROW, op, tb, op == OP_CREATE ? 0 : nrows);
	pgconn_pipeline_send(t->conn, name, (int)nparams, s->values, NULL, NULL);
	t->tx.since_sync += bytes;
}

static void send_each(struct target *t, struct target_table *tb, const struct change *rows, size_t n, size_t first, uint8_t *scratch)
{
	struct err e = { 0 };
	for (size_t i = first; i < n; i++)
		if (t->set->is_sent[i] && has_shape(t->set, tb, &rows[i], scratch) && apply_send(t, tb, &rows[i], &e))
			tx_refuse(t, tb, (enum change_op)rows[i].op, &e);
}

/* An update that writes nothing is no set. */
static bool is_empty(const struct set *s, const struct target_table *tb, const struct change *ch)
{
	return ch->op == OP_UPDATE && !sql_sets_any(tb, s->shape);
}

/* All rows from `first` on that have its shape. */
static void send_alike(struct target *t, struct target_table *tb, const struct change *rows, size_t n, size_t first)
{
	struct set *s = t->set;
	uint8_t *scratch = mem_alloc(2u * tb->rel->ncolumns + 1);
	unsigned nparams = 0, nrows = 0;
	apply_shape(tb, &rows[first], s->shape);
	for (size_t i = first; i < n; i++) {
		if (s->is_sent[i] || !has_shape(s, tb, &rows[i], scratch))
			continue;
		nparams = add_row(s, &rows[i]);
		s->is_sent[i] = true;
		nrows++;
	}
	bool is_whole = close_arrays(s, nparams);
	if (nrows < ROWS_MIN || !nparams || !is_whole || is_empty(s, tb, &rows[first]))
		send_each(t, tb, rows, n, first, scratch);
	else
		send_set(t, tb, (enum change_op)rows[first].op, nparams, nrows);
	reset_arrays(s, nparams);
	free(scratch);
}

void set_send(struct target *t, struct target_table *tb, const struct change *rows, size_t n)
{
	reserve(t->set, tb->rel->ncolumns, n);
	for (size_t i = 0; i < n; i++)
		if (!t->set->is_sent[i])
			send_alike(t, tb, rows, n, i);
}

void set_init(struct target *t)
{
	t->set = mem_zalloc(sizeof *t->set);
	buf_init(&t->set->text, ARRAY_MAX);
}

void set_fini(struct target *t)
{
	struct set *s = t->set;
	for (unsigned i = 0; i < s->cap; i++)
		buf_fini(&s->arrays[i]);
	buf_fini(&s->text);
	free(s->arrays);
	free(s->shape);
	free(s->values);
	free(s->is_sent);
	free(s);
}
