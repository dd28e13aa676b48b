/* target_apply: row changes and truncates into statements of the pipeline.
 *
 * In comes a change. Where that is right it is gathered with others (target_net.c); else out goes one prepared statement with its values as parameters, as
 * they came: text is left to the server to read as the column's type, binary forms name theirs. What the target has already (by its position, or because
 * the table was loaded from a later snapshot) is passed over. */
#include "target_int.h"
#include <assert.h>
#include <stdlib.h>

enum { CONVERTED_MAX = 1 << 30, PARAMS_MAX = 65535 };

/* The parameters of the change at hand. */
struct bind {
	const char **values;
	int *lens, *formats;
	size_t *offsets;                /* into `converted`, + 1; 0: not there */
	uint8_t *shape;                 /* after, then before */
	uint8_t *take;                  /* the columns whose values are taken */
	unsigned cap;                   /* columns */
	int n;
	size_t bytes;
	struct buf converted;           /* texts made of binary forms */
};

/* ---- parameters ---- */

static void reserve(struct bind *b, unsigned ncolumns)
{
	buf_reset(&b->converted);
	b->n = 0;
	b->bytes = 0;
	if (b->cap >= ncolumns && b->cap)
		return;
	b->cap = ncolumns + 16;
	size_t n = 2u * b->cap;
	b->values = mem_realloc_array(b->values, n, sizeof *b->values);
	b->lens = mem_realloc_array(b->lens, n, sizeof *b->lens);
	b->formats = mem_realloc_array(b->formats, n, sizeof *b->formats);
	b->offsets = mem_realloc_array(b->offsets, n, sizeof *b->offsets);
	b->shape = mem_realloc_array(b->shape, n, 1);
	b->take = mem_realloc_array(b->take, n, sizeof *b->take);
}

/* The text of a binary form that the server would not know. Its place is noted: `converted` may still move. */
static int convert(struct bind *b, const struct column *c, const struct value *v, struct err *e)
{
	size_t at = b->converted.len;
	int rc = value_to_text(v, c->type, c->elem_type, &b->converted, e);
	if (rc)
		return rc;
	buf_byte(&b->converted, 0);
	b->offsets[b->n] = at + 1;
	return 0;
}

static int add_value(struct bind *b, struct target_table *tb, unsigned i, const struct value *v, struct err *e)
{
	const struct column *c = &tb->rel->columns[i];
	int rc = 0;
	b->values[b->n] = v->data;
	b->lens[b->n] = (int)v->len;
	b->formats[b->n] = 0;
	b->offsets[b->n] = 0;
	if (v->kind == VALUE_BINARY && sql_binary_type(tb->rel, c)) {
		b->formats[b->n] = 1;
		tb->lately[i] = PARAM_BINARY;
	} else if (v->kind != VALUE_NULL) {
		tb->lately[i] = PARAM_TEXT;
		if (v->kind == VALUE_BINARY)
			rc = convert(b, c, v, e);
	}
	b->bytes += v->len;
	b->n++;
	return rc;
}

/* how[i] for each column whose value is taken. A NULL goes as the column's last value went, so that it makes no shape of its own. */
static int add_values(struct bind *b, struct target_table *tb, const struct value *v, const uint8_t *is_taken, uint8_t *how, struct err *e)
{
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		how[i] = PARAM_NONE;
		if (!is_taken[i])
			continue;
		int rc = add_value(b, tb, i, &v[i], e);
		if (rc)
			return rc;
		how[i] = tb->lately[i];
	}
	return 0;
}

static void fix_converted(struct bind *b)
{
	for (int i = 0; i < b->n; i++)
		if (b->offsets[i])
			b->values[i] = b->converted.data + b->offsets[i] - 1;
}

/* ---- which columns ---- */

/* The old values that find the row: those of the key, or all that came. */
static int take_old(const struct target_table *tb, const struct value *old, bool is_key_only, uint8_t *take)
{
	const struct relation *rel = tb->rel;
	int n = 0;
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		take[i] = old[i].kind != VALUE_UNCHANGED && (is_key_only ? rel->columns[i].key_pos != 0 : tb->of[i] && !tb->of[i]->is_generated);
		n += take[i];
	}
	return n;
}

/* how[i]: PARAM_TEXT for each column whose new value is taken, else PARAM_NONE. */
static void take_new(const struct target_table *tb, const struct change *ch, uint8_t *how)
{
	const struct relation *rel = tb->rel;
	bool is_update = ch->op == OP_UPDATE, keeps_key = is_update && rel->key != KEY_FULL && !catch_moves_key(ch);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct target_column *c = tb->of[i];
		bool is_taken = ch->u.row.after[i].kind != VALUE_UNCHANGED && c && !c->is_generated && !(keeps_key && rel->columns[i].key_pos);
		how[i] = is_taken ? PARAM_TEXT : PARAM_NONE;
	}
}

static int no_key(const struct target_table *tb, struct err *e)
{
	err_set(e, DMSR_EDATA, "target.no-key", "%s: the change does not tell which row it means", tb->sql);
	return err_hint(e, "give the table at the source a primary key, or ALTER TABLE %s REPLICA IDENTITY FULL", tb->sql);
}

/* Fills the bind and the shape of a change. */
static int build(struct bind *b, struct target_table *tb, const struct change *ch, struct shape *sh, struct err *e)
{
	const struct relation *rel = tb->rel;
	const struct value *old = ch->u.row.before ? ch->u.row.before : ch->u.row.after;
	int rc = 0;
	reserve(b, rel->ncolumns);
	*sh = (struct shape){ .op = ch->op, .has_key_only = rel->key != KEY_FULL, .after = b->shape, .before = b->shape + rel->ncolumns };
	memset(b->shape, PARAM_NONE, 2u * rel->ncolumns);
	if (!rc && ch->op != OP_DELETE) {
		take_new(tb, ch, b->take);
		rc = add_values(b, tb, ch->u.row.after, b->take, b->shape, e);
	}
	if (!rc && (ch->op == OP_UPDATE || ch->op == OP_DELETE)) {
		if (!old || !take_old(tb, old, sh->has_key_only, b->take))
			return no_key(tb, e);
		rc = add_values(b, tb, old, b->take, b->shape + rel->ncolumns, e);
	}
	if (!rc && b->n > PARAMS_MAX)
		rc = err_set(e, DMSR_EFULL, "target.limit", "%s: a change of %d values is more than one statement takes", tb->sql, b->n);
	fix_converted(b);
	return rc;
}

/* ---- sending ---- */

void apply_shape(const struct target_table *tb, const struct change *ch, uint8_t *shape)
{
	unsigned n = tb->rel->ncolumns;
	memset(shape, PARAM_NONE, 2u * n);
	if (ch->op != OP_DELETE)
		take_new(tb, ch, shape);
	for (unsigned i = 0; i < n && ch->op != OP_CREATE && ch->op != OP_READ; i++)
		shape[n + i] = tb->rel->columns[i].key_pos ? PARAM_TEXT : PARAM_NONE;
}

static int send_one(struct target *t, struct target_table *tb, const struct change *ch, unsigned must_hit, struct err *e)
{
	struct bind *b = t->bind;
	struct shape sh;
	char name[STMT_NAME_MAX];
	int rc = build(b, tb, ch, &sh, e);
	if (rc)
		return rc;
	stmt_get(t, tb, &sh, name);
	tx_note(t, SENT_ROW, (enum change_op)ch->op, tb, must_hit);
	pgconn_pipeline_send(t->conn, name, b->n, b->values, b->lens, b->formats);
	t->tx.since_sync += b->bytes + 64;
	return 0;
}

int apply_send(struct target *t, struct target_table *tb, const struct change *ch, struct err *e)
{
	struct change plan[CATCH_MAX];
	if (!apply_catches(tb, ch))
		return send_one(t, tb, ch, ch->op == OP_UPDATE || ch->op == OP_DELETE, e);
	unsigned n = catch_plan(ch, tb->rows_move, plan);
	int rc = 0;
	assert(n);
	for (unsigned i = 0; i < n && !rc; i++)
		rc = send_one(t, tb, &plan[i], tb->rows_move && plan[i].op == OP_UPDATE ? MUST_FIND : 0, e);
	return rc;
}

static void count(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct dmsr_table_counts *c = table_counts(t, tb);
	uint64_t *n = ch->op == OP_UPDATE ? &c->updated : ch->op == OP_DELETE ? &c->deleted : &c->created;
	(*n)++;
	t->tx.rows++;
	for (unsigned i = 0; i < ch->rel->ncolumns; i++)
		t->tx.bytes += (ch->u.row.after ? ch->u.row.after[i].len : 0) + (ch->u.row.before ? ch->u.row.before[i].len : 0);
}

bool apply_is_known(const struct target *t, const struct target_table *tb, const struct change *ch)
{
	uint64_t lsn = ch->txn->lsn;
	return position_covers(&t->saved, lsn, change_known_at(ch)) || lsn < tb->loaded_lsn || (t->ahead.n && ahead_has(&t->ahead, lsn));
}

static struct target_table *table_of(struct target *t, struct relation *rel)
{
	struct target_table *tb = t->last_table;
	if (tb && (tb->rel == rel || (t->last_rel == rel && relation_is_same(tb->rel, rel))))
		return tb;
	relation_unref(t->last_rel);
	t->last_rel = relation_ref(rel);
	return t->last_table = table_get(t, rel);
}

enum step apply_table(struct target *t, struct target_table *tb)
{
	struct err e = { 0 };
	if (tb->is_described && tb->exists && tb->is_checked)
		return STEP_DONE;
	if (tx_describe(t, tb) == STEP_WAIT)
		return STEP_WAIT;
	if (!tb->exists) {
		err_set(&e, DMSR_ENOTFOUND, "target.table-missing", "%s in %s: there is no such table", tb->sql, pgconn_describe(t->conn));
		err_hint(&e, "create it, or load the table");
		target_fail(t, &e);
		return STEP_WAIT;
	}
	if (ddl_adopt(t, tb) == STEP_WAIT)
		return STEP_WAIT;
	if (judge_stream(tb, t->on_ddl == POLICY_IGNORE ? MISSING_LEFT_OUT : MISSING_REFUSED, pgconn_describe(t->conn), &e)) {
		target_fail(t, &e);
		return STEP_WAIT;
	}
	tb->is_checked = true;
	table_tell_triggers(t, tb);
	return STEP_DONE;
}

/* By itself: after all that must be before it. */
static int send_alone(struct target *t, struct target_table *tb, const struct change *ch, struct err *e)
{
	if (net_is_free(t, tb))
		net_flush(t, tb);
	else
		net_flush_all(t);
	return apply_send(t, tb, ch, e);
}

enum step apply_row(struct target *t, const struct change *ch)
{
	struct target_table *tb = table_of(t, ch->rel);
	struct change plan[CATCH_MAX];
	struct err e = { 0 };
	if (apply_is_known(t, tb, ch))
		return STEP_DONE;
	if (tb == t->careful.lost)
		return lanes_lose(t, tb, "a row moved on disk between the times of its parts, and is in none of those that were read; and a change of it came "
			"without all values");
	if (apply_catches(tb, ch) && !catch_plan(ch, tb->rows_move, plan))
		return lanes_lose(t, tb, "its parts are of different times, and a change of a key came without all values, with which they cannot be made one");
	if (tx_begin(t) == STEP_WAIT || apply_table(t, tb) == STEP_WAIT || tx_room(t) == STEP_WAIT)
		return STEP_WAIT;
	if (careful_wants(t, tb)) {
		if (careful_row(t, tb, ch) == STEP_WAIT)
			return STEP_WAIT;
		if (t->careful.is_dead)
			table_counts(t, tb)->dead++;
		else
			count(t, tb, ch);
		return STEP_DONE;
	}
	if (!net_add(t, tb, ch) && send_alone(t, tb, ch, &e)) {
		tx_refuse(t, tb, (enum change_op)ch->op, &e);
		return STEP_WAIT;
	}
	count(t, tb, ch);
	return STEP_DONE;
}

/* ---- truncate ---- */

enum step apply_truncate(struct target *t, const struct change *ch)
{
	struct target_table *tb = table_of(t, ch->rel);
	struct buf sql;
	if (!apply_is_known(t, tb, ch)) {
		if (tx_begin(t) == STEP_WAIT || apply_table(t, tb) == STEP_WAIT || tx_room(t) == STEP_WAIT)
			return STEP_WAIT;
		t->truncates = mem_realloc_array(t->truncates, t->ntruncates + 1, sizeof *t->truncates);
		t->truncates[t->ntruncates++] = tb;
	}
	if ((ch->flags & CHANGE_GROUP_MORE) || !t->ntruncates)
		return STEP_DONE;
	net_flush_all(t);
	buf_init(&sql, 32 << 20);
	sql_truncate(&sql, t->truncates, t->ntruncates, ch->flags, &(struct sql_truncate_for){ t->host.env.uid, ch->txn->lsn, t->is_replica });
	tx_note(t, SENT_ROW, OP_TRUNCATE, tb, 0);
	pgconn_pipeline_sql(t->conn, buf_cstr(&sql), 0, NULL, NULL, NULL, NULL);
	buf_fini(&sql);
	for (size_t i = 0; i < t->ntruncates; i++)
		table_counts(t, t->truncates[i])->truncated++;
	t->ntruncates = 0;
	t->tx.rows++;
	return STEP_DONE;
}

/* ---- life ---- */

void apply_init(struct target *t)
{
	t->bind = mem_zalloc(sizeof *t->bind);
	buf_init(&t->bind->converted, CONVERTED_MAX);
}

void apply_fini(struct target *t)
{
	struct bind *b = t->bind;
	free(b->values);
	free(b->lens);
	free(b->formats);
	free(b->offsets);
	free(b->shape);
	free(b->take);
	buf_fini(&b->converted);
	free(b);
	free(t->truncates);
}
