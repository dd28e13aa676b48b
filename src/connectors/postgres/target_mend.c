/* target_mend: a row that the source has, and that our table cannot take because the source's was changed in a way that its log does not tell: an enum got
 * another label, a column lost its NOT NULL. The row itself is the proof. With ddl = apply the same is done here, outside of the transaction, since a new
 * label cannot be used in the one that makes it; then the transaction begins again.
 *
 *   (UNDOING) -> ROLLBACK -> out of the pipeline -> ALTER -> the begin of the transaction
 *
 * Where a label stands in its type's order the row does not tell: it is put at the end, where ALTER TYPE puts it if nothing else is said. */
#include "target_int.h"
#include "catalog.h"
#include <stdlib.h>

enum { SQL_MAX = 1 << 20 };

static const char bad_text[] = "22P02", is_null[] = "23502";

static void add_labels(struct buf *out, const struct target_table *tb, const struct value *row)
{
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		if (!tb->of[i] || !tb->of[i]->is_enum || (row[i].kind != VALUE_TEXT && row[i].kind != VALUE_BINARY))
			continue;
		buf_printf(out, "%sALTER TYPE %s ADD VALUE IF NOT EXISTS ", out->len ? "; " : "", tb->of[i]->type_sql);
		/* an enum's binary form is its label */
		char *label = mem_strndup(row[i].data, row[i].len);
		sql_literal(out, label);
		free(label);
	}
}

static void add_nulls(struct buf *out, const struct target_table *tb, const struct value *row)
{
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		const struct target_column *c = tb->of[i];
		if (!c || row[i].kind != VALUE_NULL || !c->is_not_null || c->is_in_primary_key || c->is_identity)
			continue;
		buf_printf(out, "%sALTER TABLE %s ALTER COLUMN ", out->len ? "; " : "", tb->sql);
		sql_ident(out, c->name);
		buf_str(out, " DROP NOT NULL");
	}
}

bool mend_begin(struct target *t, const struct target_table *tb, const struct change *ch)
{
	struct careful *k = &t->careful;
	struct buf sql;
	if (t->on_ddl != POLICY_APPLY || !ch->u.row.after || k->mended_seq == t->seq)
		return false;
	buf_init(&sql, SQL_MAX);
	if (!strcmp(k->sqlstate, bad_text))
		add_labels(&sql, tb, ch->u.row.after);
	else if (!strcmp(k->sqlstate, is_null) && ddlrun_is_ours(t, tb))
		add_nulls(&sql, tb, ch->u.row.after);
	bool is_there = sql.len && buf_ok(&sql);
	if (is_there) {
		free(k->mend);
		k->mend = mem_strdup(buf_cstr(&sql));
		k->mended_seq = t->seq;
		k->state = CAREFUL_MENDING;
		tx_sql(t, SENT_QUIET, NULL, "ROLLBACK", 0, NULL);
		stmt_forget_all(t);
		tx_sync(t);
	}
	buf_fini(&sql);
	return is_there;
}

/* If it could not be altered, the row is refused again, and then judged. */
static void on_altered(struct target *t)
{
	struct careful *k = &t->careful;
	struct err e = { 0 };
	if (t->answer)
		log_info("target", t->host.env.job, "%s: %s", t->host.env.name, k->mend);
	else
		log_warn("target", t->host.env.job, "%s: %s: %s", t->host.env.name, k->mend, t->answer_error.message);
	if (target_died(t, failpoint("target.mended")))
		return;
	k->state = CAREFUL_NONE;
	if (t->tx.gave_back) {
		/* The batches are gone: the job begins again where we stand. */
		err_retry(&e, DMSR_ESTATE, "target.altered", "the target was made fit for a row, and the transaction must begin again");
		target_fail(t, &e);
		return;
	}
	tx_rewind(t, true);
}

enum step mend_step(struct target *t)
{
	if (t->tx.syncs || t->is_asking)
		return STEP_WAIT;
	if (t->in_pipeline && tx_out(t) == STEP_WAIT)
		return STEP_WAIT;
	careful_forget(t);
	target_try(t, t->careful.mend, 0, NULL, on_altered);
	return STEP_WAIT;
}
