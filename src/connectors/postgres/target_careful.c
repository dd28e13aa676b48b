/* target_careful: what is done when the server refuses something.
 *
 * A statement may have been for many rows, and in another order than the source's. So everything since the mark (the begin of the target transaction, or its
 * last savepoint) is rolled back and read again from the batches, which are held until then. This time the changes that the refused statement was for go one by
 * one, in the source's order, each in a savepoint of its own:
 *
 *   NONE --savepoint, row--> TRYING --done--> NONE
 *                            TRYING --refused, rolled back--> UNDOING --judged: dead letter--> TELLING --durable--> NONE
 *                                                             UNDOING --judged: may be mended--> MENDING --> all again
 *
 * A row that is refused now is named, with its key, and the policy for its class of error is followed. When none is, the set was to blame: its table
 * goes row by row for a while. */
#include "target_int.h"
#include "catalog.h"
#include <assert.h>
#include <stdlib.h>

enum {
	BY_ROW = 20000,                 /* rows of a table that go one by one after its set was to blame */
	CONFLICTS_MAX = 5,              /* deadlocks in a row that are tried again here */
	KEY_TEXT_MAX = 160, VALUE_TEXT_MAX = 40,
};

/* ---- what may be tried again ---- */

static bool is_about_row(const struct target *t)
{
	return t->tx.error.code == DMSR_EDATA && t->tx.refused.table && t->tx.refused.what == SENT_ROW && t->tx.refused.op != OP_TRUNCATE;
}

static bool is_conflict(const struct target *t)
{
	return !strcmp(t->tx.error.id, "target.conflict") && !t->tx.gave_back && t->careful.conflicts < CONFLICTS_MAX;
}

/* ---- ranges ---- */

static bool is_in(const struct careful_range *r, const struct target_table *tb, uint64_t seq)
{
	return (!r->table || r->table == tb) && seq >= r->first && seq <= r->last;
}

static struct careful_range *range_of(struct target *t, const struct target_table *tb)
{
	struct careful *k = &t->careful;
	for (unsigned i = 0; i < k->nranges; i++)
		if (is_in(&k->ranges[i], tb, t->seq))
			return &k->ranges[i];
	return NULL;
}

bool careful_wants(struct target *t, const struct target_table *tb)
{
	return t->careful.nranges && (t->careful.state != CAREFUL_NONE || range_of(t, tb));
}

/* Too many: everything from the first on. */
static void add_range(struct target *t, const struct sent *s)
{
	struct careful *k = &t->careful;
	if (k->nranges < CAREFUL_RANGES) {
		k->ranges[k->nranges++] = (struct careful_range){ .table = s->table, .first = s->first_seq, .last = s->last_seq };
		return;
	}
	struct careful_range all = { .first = s->first_seq, .last = s->last_seq, .had_error = true };
	for (unsigned i = 0; i < k->nranges; i++) {
		if (k->ranges[i].first < all.first)
			all.first = k->ranges[i].first;
		if (k->ranges[i].last > all.last)
			all.last = k->ranges[i].last;
	}
	k->ranges[0] = all;
	k->nranges = 1;
}

static void end_range(struct target *t, unsigned i)
{
	struct careful *k = &t->careful;
	struct careful_range *r = &k->ranges[i];
	if (r->table && !r->had_error) {
		r->table->by_row = BY_ROW;
		log_info("target", t->host.env.job, "%s: %s: a set of rows was refused, but none of them: they go one by one for a while", t->host.env.name,
			r->table->sql);
	}
	k->ranges[i] = k->ranges[--k->nranges];
}

void careful_pass(struct target *t)
{
	for (unsigned i = t->careful.nranges; i-- > 0;) {
		if (t->careful.ranges[i].last >= t->seq)
			continue;
		end_range(t, i);
		t->tx.wants_hold = true;
	}
}

void careful_committed(struct target *t)
{
	while (t->careful.nranges)
		end_range(t, 0);
	t->careful.ndead = 0;
	t->careful.conflicts = 0;
	t->careful.mended_seq = 0;
}

/* ---- all again ---- */

static void forget_table(void *arg, const void *key, size_t n, void *value)
{
	struct target_table *tb = value;
	(void)key;
	(void)n;
	table_reset(arg, tb);
	shape_forget(tb);
}

/* What the server has was rolled back too, and what was asked may not have been answered. */
void careful_forget(struct target *t)
{
	assert(!t->nets);
	map_each(t->tables, forget_table, t);
}

static void roll_back(struct target *t, bool is_whole)
{
	net_drop_all(t);
	err_clear(&t->tx.error);
	tx_sql(t, SENT_QUIET, NULL, is_whole ? "ROLLBACK" : "ROLLBACK TO SAVEPOINT dmsr_hold", 0, NULL);
	stmt_forget_all(t);
	careful_forget(t);
	t->careful.rolling = is_whole ? ROLLING_BACK_WHOLE : ROLLING_BACK;
	tx_sync(t);
}

bool careful_is_due(const struct target *t)
{
	if (t->careful.rolling || t->careful.state == CAREFUL_MENDING)
		return true;
	return err_is_set(&t->tx.error) && t->careful.state == CAREFUL_NONE;
}

enum step careful_recover(struct target *t)
{
	struct careful *k = &t->careful;
	if (k->state == CAREFUL_MENDING)
		return mend_step(t);
	if (k->rolling) {
		if (t->tx.syncs)
			return STEP_WAIT;
		bool is_whole = k->rolling == ROLLING_BACK_WHOLE;
		k->rolling = ROLLING_NONE;
		if (!err_is_set(&t->tx.error)) {
			tx_rewind(t, is_whole);
			return STEP_DONE;
		}
	}
	bool conflicts = is_conflict(t);
	if (!conflicts && !is_about_row(t)) {
		tx_fail(t, &t->tx.error);
		return STEP_WAIT;
	}
	if (tx_sync(t) == STEP_WAIT)
		return STEP_WAIT;
	log_debug("target", t->host.env.job, "%s: %s: again, carefully", t->host.env.name, t->tx.error.message);
	if (conflicts)
		k->conflicts++;
	else
		add_range(t, &t->tx.refused);
	roll_back(t, conflicts || !t->tx.has_savepoint);
	return STEP_WAIT;
}

/* ---- naming ---- */

static void add_text(struct buf *out, const struct column *c, const struct value *v)
{
	struct err e = { 0 };
	struct buf text;
	buf_init(&text, 1 << 20);
	if (v->kind == VALUE_TEXT)
		buf_append(&text, v->data, v->len < VALUE_TEXT_MAX + 1 ? v->len : VALUE_TEXT_MAX + 1);
	else if (v->kind != VALUE_BINARY || value_to_text(v, c->type, c->elem_type, &text, &e))
		buf_str(&text, v->kind == VALUE_NULL ? "NULL" : "?");
	buf_append(out, text.data, text.len < VALUE_TEXT_MAX ? text.len : VALUE_TEXT_MAX);
	if (text.len > VALUE_TEXT_MAX)
		buf_str(out, "...");
	buf_fini(&text);
}

/* " (id=5, name=x)" */
static void add_key(struct buf *out, const struct change *ch)
{
	const struct value *row = ch->u.row.before ? ch->u.row.before : ch->u.row.after;
	for (unsigned i = 0; row && i < ch->rel->nkeys && out->len < KEY_TEXT_MAX; i++) {
		const struct column *c = &ch->rel->columns[ch->rel->keys[i]];
		buf_printf(out, "%s%s=", i ? ", " : " (", c->name);
		add_text(out, c, &row[ch->rel->keys[i]]);
	}
	if (out->len)
		buf_byte(out, ')');
}

static void name_row(struct err *e, const struct target_table *tb, const struct change *ch)
{
	char lsn[24];
	struct buf key;
	buf_init(&key, 4096);
	add_key(&key, ch);
	err_prefix(e, "%s on %s%s, transaction %s", change_op_name((enum change_op)ch->op), tb->sql, buf_cstr(&key), lsn_format(ch->txn->lsn, lsn));
	buf_fini(&key);
}

/* ---- judging a row ---- */

static void on_told(void *arg, const struct err *e)
{
	struct target *t = arg;
	if (e)
		target_fail(t, e);
	t->careful.state = CAREFUL_TOLD;
	target_wake(t);
}

static enum step judge(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct careful *k = &t->careful;
	struct careful_range *r = range_of(t, tb);
	if (r)
		r->had_error = true;
	if (t->strand) {
		target_fail(t, &k->error);
		return STEP_WAIT;
	}
	if (mend_begin(t, tb, ch))
		return STEP_WAIT;
	enum policy policy = target_policy(t, &k->error);
	name_row(&k->error, tb, ch);
	if (policy != POLICY_DEAD_LETTER) {
		k->error.retriable = k->error.retriable || policy == POLICY_RETRY;
		target_fail(t, &k->error);
		return STEP_WAIT;
	}
	k->state = CAREFUL_TELLING;
	k->letter = (struct dmsr_dead_letter){ ch, &k->error };
	t->host.dead_letter(t->host.ctx, &k->letter, on_told, t);
	return STEP_WAIT;
}

/* ---- one row ---- */

static bool is_dead(const struct careful *k, uint64_t seq)
{
	for (size_t i = 0; i < k->ndead; i++)
		if (k->dead[i] == seq)
			return true;
	return false;
}

static enum step undo(struct target *t, const struct err *e)
{
	t->careful.error = *e;
	err_clear(&t->tx.error);
	tx_sql(t, SENT_QUIET, NULL, "ROLLBACK TO SAVEPOINT dmsr_row", 0, NULL);
	stmt_forget_all(t);
	tx_sync(t);
	t->careful.state = CAREFUL_UNDOING;
	return STEP_WAIT;
}

static enum step try(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct err e = { 0 };
	net_flush_all(t);
	if (tx_sync(t) == STEP_WAIT || err_is_set(&t->tx.error))
		return STEP_WAIT;
	tx_sql(t, SENT_QUIET, NULL, "SAVEPOINT dmsr_row", 0, NULL);
	if (apply_send(t, tb, ch, &e))
		return undo(t, &e);
	t->careful.state = CAREFUL_TRYING;
	return tx_sync(t);
}

/* All before it is known to be right. */
static enum step lose_load(struct target *t, const struct target_table *tb)
{
	err_clear(&t->tx.error);
	t->careful.state = CAREFUL_NONE;
	t->careful.lost = tb;
	target_wake(t);
	return STEP_WAIT;
}

static enum step tried(struct target *t, const struct target_table *tb)
{
	if (err_is_set(&t->tx.error)) {
		struct err e = t->tx.error;
		memcpy(t->careful.sqlstate, t->tx.sqlstate, sizeof t->careful.sqlstate);
		if (!strcmp(e.id, "target.load-lost") && !t->strand)
			return lose_load(t, tb);
		if (e.code == DMSR_EDATA)
			return undo(t, &e);
		tx_fail(t, &e);
		return STEP_WAIT;
	}
	tx_sql(t, SENT_QUIET, NULL, "RELEASE SAVEPOINT dmsr_row", 0, NULL);
	t->careful.state = CAREFUL_NONE;
	return STEP_DONE;
}

static enum step told(struct target *t)
{
	struct careful *k = &t->careful;
	k->dead = mem_realloc_array(k->dead, k->ndead + 1, sizeof *k->dead);
	k->dead[k->ndead++] = t->seq;
	k->state = CAREFUL_NONE;
	k->is_dead = true;
	return STEP_DONE;
}

enum step careful_row(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct careful *k = &t->careful;
	k->is_dead = false;
	if (t->tx.syncs)
		return STEP_WAIT;
	switch (k->state) {
	case CAREFUL_NONE:
		if (!is_dead(k, t->seq))
			return try(t, tb, ch);
		k->is_dead = true;
		return STEP_DONE;
	case CAREFUL_TRYING:
		return tried(t, tb);
	case CAREFUL_UNDOING:
		if (!err_is_set(&t->tx.error))
			return judge(t, tb, ch);
		tx_fail(t, &t->tx.error);
		return STEP_WAIT;
	case CAREFUL_TOLD:
		return told(t);
	case CAREFUL_TELLING:
	case CAREFUL_MENDING:
		break;
	}
	return STEP_WAIT;
}

void careful_fini(struct target *t)
{
	free(t->careful.dead);
	free(t->careful.mend);
	free(t->careful.types);
}
