/* target_ddl: columns that changed at the source, in the middle of its stream.
 *
 * In comes a table with a relation that is not the one that it was last made fit for (target_shape.c); out go the statements that make it so
 * (target_diff.c), in the transaction and in the order of the rows around them, with the new shape: a crash leaves all of it or nothing. The policy may be to
 * stop instead; then somebody else alters the table, there is nothing left to do at the next start, and the new shape is taken. */
#include "target_int.h"
#include "catalog.h"
#include "target_diff.h"
#include <stdlib.h>

static void stop(struct target *t, const struct target_table *tb, const struct diff *d)
{
	struct err e = { 0 };
	struct buf all;
	buf_init(&all, 1 << 20);
	for (size_t i = 0; i < d->n; i++)
		buf_printf(&all, "%s%s", i ? "; " : "", d->sql[i]);
	err_set(&e, DMSR_ESTATE, "target.schema-changed", "%s: its columns changed at the source", tb->sql);
	err_hint(&e, "run this at the target, or what was done at the source, then start the job again: %s", buf_cstr(&all));
	buf_fini(&all);
	target_fail(t, &e);
}

static void notice(const struct target *t, char *text)
{
	if (t->host.notice)
		t->host.notice(t->host.ctx, text);
	free(text);
}

/* Where the target's rows may differ from the source's from now on. */
static void warn(const struct target *t, const struct target_table *tb, const struct diff *d)
{
	if (d->own_value)
		notice(t, mem_printf("%s: rows that were there got the target's own values in the new column %s, since its default is not a constant: "
			"load the table again to have the source's", tb->sql, d->own_value));
	if (d->cast)
		notice(t, mem_printf("%s: column %s was cast to its new type; if the source converted it by another expression, "
			"load the table again", tb->sql, d->cast));
	if (d->key)
		notice(t, mem_printf("%s: %s", tb->sql, d->key));
}

/* What new columns are made of. */
static bool make_types(struct target *t, struct target_table *tb)
{
	struct buf sql;
	bool ok = true;
	buf_init(&sql, 32 << 20);
	for (uint32_t i = 0; i < tb->rel->nddl && ok; i++) {
		const struct ddl *d = &tb->rel->ddl[i];
		if (d->phase != DDL_BEFORE_TABLE)
			continue;
		buf_reset(&sql);
		ok = sql_make_once(&sql, d) && buf_ok(&sql);
		if (ok)
			tx_sql(t, SENT_DDL, tb, buf_cstr(&sql), 0, NULL);
	}
	buf_fini(&sql);
	return ok;
}

/* Checks that wait for the commit hold the table. They are done now only where it has some, since elsewhere they may have to wait for the rest of this
 * transaction of the source's. */
static void alter(struct target *t, struct target_table *tb, const char *sql)
{
	struct buf body, all;
	if (t->is_replica) {
		tx_sql(t, SENT_DDL, tb, sql, 0, NULL);
		return;
	}
	buf_init(&body, 64 << 20);
	buf_printf(&body, "BEGIN %s; EXCEPTION WHEN object_in_use THEN SET CONSTRAINTS ALL IMMEDIATE; %s; SET CONSTRAINTS ALL DEFERRED; END", sql, sql);
	buf_init(&all, 192 << 20);
	buf_str(&all, "DO LANGUAGE plpgsql ");
	sql_literal(&all, buf_cstr(&body));
	tx_sql(t, SENT_DDL, tb, buf_cstr(&all), 0, NULL);
	buf_fini(&all);
	buf_fini(&body);
}

static void run(struct target *t, struct target_table *tb, const struct diff *d)
{
	struct err e = { 0 };
	net_flush_all(t);
	if (d->makes_types && !make_types(t, tb)) {
		err_set(&e, DMSR_ESTATE, "target.schema-changed", "%s: what its new columns are made of cannot be made here", tb->sql);
		target_fail(t, &e);
		return;
	}
	for (size_t i = 0; i < d->n; i++) {
		log_info("target", t->host.env.job, "%s: %s", t->host.env.name, d->sql[i]);
		alter(t, tb, d->sql[i]);
	}
	if (target_died(t, failpoint("target.altered")))
		return;
	table_counts(t, tb)->ddl += d->n;
}

/* True: nothing is left to do about the columns. */
static bool follow(struct target *t, struct target_table *tb, const struct diff *d)
{
	if (d->n && t->on_ddl == POLICY_STOP) {
		stop(t, tb, d);
		return false;
	}
	bool has_run = d->n && t->on_ddl == POLICY_APPLY;
	if (has_run) {
		run(t, tb, d);
		warn(t, tb, d);
	}
	if (!target_is_alive(t))
		return false;
	shape_write(t, tb);
	if (has_run)
		table_reset(t, tb);
	return !has_run;
}

/* A table whose shape is not known was there before the job: what it lacks may be added, but nothing is taken away. */
enum step ddl_adopt(struct target *t, struct target_table *tb)
{
	struct diff d;
	struct err e = { 0 };
	/* The first connection did it, before any lane was given such a row. */
	if (t->strand || (tb->shape && relation_is_same(tb->shape, tb->rel)))
		return STEP_DONE;
	if (diff_table(&d, tb->shape, tb, table_is_ours(t, tb), &e)) {
		target_fail(t, &e);
		return STEP_WAIT;
	}
	bool is_done = follow(t, tb, &d);
	diff_fini(&d);
	if (!is_done)
		target_wake(t);
	return is_done ? STEP_DONE : STEP_WAIT;
}

enum step ddl_step(struct target *t, const struct change *ch)
{
	struct target_table *tb = table_get(t, ch->rel);
	if (apply_is_known(t, tb, ch))
		return STEP_DONE;
	return tx_begin(t) == STEP_WAIT ? STEP_WAIT : apply_table(t, tb);
}
