/* target_finish: OP_LOAD_DONE, when all tables are there: their indexes, constraints and values of sequences, on some of the lanes (target_lanes.c).
 *
 *   NONE -> INDEXING (a table at a time, on some lanes) -> REFERRING (foreign keys) -> DONE, noted -> NONE, all lanes are closed */
#include "target_lanes.h"
#include <stdlib.h>

static void on_load_done(struct target *t)
{
	struct target *of = t->lane->of;
	if (target_died(t, failpoint("target.load-done")))
		return;
	of->load_done = true;
	of->lanes->finish = FINISH_DONE;
	target_wake(of);
}

static void on_all_run(struct target *t)
{
	const char *values[] = { t->host.env.uid };
	target_ask(t, "UPDATE dmsr.positions SET load_done = true, updated_at = pg_catalog.now() WHERE job_uid = $1", 1, values, on_load_done);
}

static void on_table_run(struct target *t) { t->lane->of->lanes->running--; }

bool finish_work(struct target *t)
{
	struct lanes *k = t->lane->of->lanes;
	if (!t->lane->is_indexing)
		return false;
	while (k->finish == FINISH_INDEXING && k->next_table < k->ntables && !t->is_asking) {
		k->running++;
		ddlrun_tables(t, &k->tables[k->next_table++], 1, DDL_AFTER_LOAD, on_table_run);
		if (!target_is_alive(t))
			return true;
	}
	if (k->finish != FINISH_INDEXING || k->running || t->is_asking)
		return t->is_asking;
	k->finish = FINISH_REFERRING;
	ddlrun_tables(t, k->tables, k->ntables, DDL_AFTER_ALL, on_all_run);
	return true;
}

static void add_table(void *arg, const void *key, size_t n, void *value)
{
	struct lanes *k = arg;
	(void)key;
	(void)n;
	k->tables[k->ntables++] = value;
}

/* Of a table that this run has heard of. One that is no part of the job any more may be so for good. */
static void tell_unended(void *arg, const void *key, size_t n, void *value)
{
	const struct target *t = arg;
	const struct target_table *tb = value;
	(void)key, (void)n;
	if (tb->loaded_lsn != LOADED_IN_PART)
		return;
	char *text = mem_printf("%s was begun to be loaded, and no load of it has ended: its changes are passed over until it is loaded again (POST "
		"/jobs/%s/tables/%s.%s/reload)", tb->sql, t->host.env.job, tb->schema, tb->name);
	if (t->host.notice)
		t->host.notice(t->host.ctx, text);
	free(text);
}

static void start_finish(struct target *t)
{
	struct lanes *k = t->lanes;
	unsigned n = 0, wanted = (unsigned)settings_int(t->settings, "index_connections");
	k->tables = mem_alloc((map_size(t->tables) + 1) * sizeof *k->tables);
	k->ntables = k->next_table = k->running = 0;
	map_each(t->tables, add_table, k);
	map_each(t->tables, tell_unended, t);
	k->finish = FINISH_INDEXING;
	build_begin(t, ddlrun_count(t, k->tables, k->ntables));
	for (struct lane *l = k->first; l && n < wanted; l = l->next, n++) {
		l->is_indexing = true;
		target_wake(l->t);
	}
	for (; n < wanted && (!n || n < k->ntables); n++)
		lane_open(t)->is_indexing = true;
}

static void end_finish(struct target *t)
{
	struct lanes *k = t->lanes;
	build_end(t);
	for (size_t i = 0; i < k->ntables; i++)
		table_reset(t, k->tables[i]);
	free(k->tables);
	k->tables = NULL;
	k->finish = FINISH_NONE;
	if (k->due)
		k->due->is_eaten = k->due->is_done = true;
	k->due = NULL;
	lanes_close(t);
}

enum step finish_step(struct target *t)
{
	struct lanes *k = t->lanes;
	if (k->finish == FINISH_NONE) {
		if (lanes_settle(t) == STEP_DONE && lanes_commit_stream(t) == STEP_DONE)
			start_finish(t);
		return STEP_WAIT;
	}
	if (k->finish != FINISH_DONE) {
		build_look(t);
		return STEP_WAIT;
	}
	end_finish(t);
	return STEP_DONE;
}

static void find_newest(void *arg, const void *key, size_t n, void *value)
{
	uint64_t *newest = arg;
	const struct target_table *tb = value;
	uint64_t lsn = tb->loaded_lsn == LOADED_IN_PART ? 0 : tb->loaded_lsn;
	(void)key;
	(void)n;
	lsn = tb->until_lsn > lsn ? tb->until_lsn : lsn;
	*newest = lsn > *newest ? lsn : *newest;
}

/* In the stream it may be a word of an earlier run, about the loads of that one. Tables that were loaded since do not fit the others before the stream is past
 * their snapshot; where it is the source says it again. */
static bool is_of_earlier_loads(const struct target *t, const struct batch *b)
{
	uint64_t newest = 0;
	if (b->is_load || position_is_none(&b->end))
		return false;
	map_each(t->tables, find_newest, &newest);
	return b->end.lsn < newest;
}

/* Said again after a crash, it may stand where it did not stand first: inside of a transaction, and more than once. */
enum step finish_take(struct target *t)
{
	struct lanes *k = t->lanes;
	if (is_of_earlier_loads(t, t->cur->batch))
		return STEP_DONE;
	if (!t->tx.in_source)
		return finish_step(t);
	if (!k->due) {
		k->due = t->cur;
		k->due->is_lent = k->due->is_load;
	}
	return STEP_DONE;
}

bool finish_owes(const struct target *t, const struct item *it) { return t->lanes && t->lanes->due == it; }

bool finish_is_due(const struct target *t) { return t->lanes->due && t->lanes->due->is_read && !t->tx.in_source; }
