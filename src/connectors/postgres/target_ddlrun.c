/* target_ddlrun: the source's own statements (relation->ddl), run one after another, those of one phase of one or of some tables. Each may be met again
 * after a crash, or be there because somebody made it: "it exists" is an answer like "done". Only an enum that exists may be of less use than a new one: the
 * source's may have got labels since, and rows of a load, unlike those of the stream (target_mend.c), do not tell which. With ddl = apply it gets them too. */
#include "catalog.h"
#include "target_int.h"
#include <stdlib.h>

struct ddl_run {
	struct target_table *const *tables;
	struct target_table *one;       /* that it is */
	size_t ntables, table;
	uint32_t item;
	enum ddl_phase phase;
	bool (*is_meant)(const struct target *t, const struct target_table *tb, const struct ddl *d);
	bool is_inside;                 /* of a transaction: each statement in a savepoint */
	void (*then)(struct target *t);
};

static void run_next(struct target *t);

static const struct ddl *current(const struct target *t)
{
	const struct ddl_run *r = t->run;
	return &r->tables[r->table]->rel->ddl[r->item];
}

static bool is_one_of(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(s, *list))
			return true;
	return false;
}

/* Does the error say that the thing is there? The same SQLSTATE means other things for other kinds. */
static bool is_there(const struct target *t, const struct ddl *d)
{
	static const char *const always[] = { "42P06", "42P07", "42701", "42710", "42723", NULL };
	if (is_one_of(t->sqlstate, always))
		return true;
	if (!strcmp(t->sqlstate, "42P16"))
		return !strcmp(d->kind, "primary-key");
	if (!strcmp(t->sqlstate, "55000"))
		return !strcmp(d->kind, "identity");
	/* Two sessions made it at the same moment. */
	return !strcmp(t->sqlstate, "23505") && d->phase == DDL_BEFORE_TABLE;
}

/* Words about a thing, which no row depends on. */
static bool may_be_missed(const struct target *t, const struct ddl *d)
{
	if (!strcmp(d->kind, "comment"))
		return true;
	return !strcmp(d->kind, "setval") && t->prepare != PREPARE_CREATE && t->prepare != PREPARE_DROP && !strcmp(t->sqlstate, "42P01");
}

/* It is about a column that came to the source's table since: what is told of a table is what it is like now, and the stream, where that column comes with
 * its default, may be far behind. Nothing else of it comes there. */
static bool is_ahead(const struct target *t, const struct ddl *d)
{
	if (strcmp(t->sqlstate, "42703") != 0 || d->phase == DDL_BEFORE_TABLE)
		return false;
	if (strcmp(d->kind, "default") != 0) {
		char *text = mem_printf("%s %s was not made: it needs a column that is still to come here. Make it by hand: %.300s", d->kind, d->name, d->sql);
		t->host.notice(t->host.ctx, text);
		free(text);
	}
	return true;
}

static void hint(struct err *e, const struct ddl *d)
{
	if (!strcmp(e->id, "target.constraint"))
		err_hint(e, "the rows at the target do not satisfy it: is the source's own constraint NOT VALID, or is a table that it refers to not part of "
			"the job? Mend the rows or include the table, and start the job again");
	else if (!strcmp(d->kind, "extension"))
		err_hint(e, "the target's server must offer the extension and the role may need to be a superuser: install it, then CREATE EXTENSION %s",
			d->name);
	else if (!e->hint[0])
		err_hint(e, "run it by hand or change the target, then start the job again");
}

/* The names of what is made before a table begin with their schema's. */
static void hint_right(const struct target *t, struct err *e, const struct ddl *d)
{
	const struct target_table *tb = t->run->tables[t->run->table];
	char *schema = mem_strndup(d->name, strcspn(d->name, "."));
	enum right right = !strcmp(d->kind, "schema") ? RIGHT_DATABASE : !strcmp(d->kind, "setval") ? RIGHT_SEQUENCES :
		d->phase == DDL_BEFORE_TABLE                                                        ? RIGHT_SCHEMA :
												      RIGHT_OWN;
	if (strcmp(d->kind, "extension") != 0)
		right_hint(e, right, t->settings, right == RIGHT_OWN ? tb->schema : schema, tb->name);
	free(schema);
}

static void fail(struct target *t, const struct ddl *d)
{
	struct err e = t->answer_error;
	hint(&e, d);
	hint_right(t, &e, d);
	err_prefix(&e, "%s %s", d->kind, d->name);
	target_fail_row(t, &e);
}

static bool ours(const struct target *t, const struct target_table *tb, const struct ddl *d);

static void on_released(struct target *t)
{
	if (t->run->is_meant == ours)
		build_made(t);
	t->run->item++;
	run_next(t);
}

/* ---- labels of an enum ---- */

/* If they could not be added (it is somebody else's type), the rows may do without them. */
static void on_labels(struct target *t)
{
	if (!t->answer)
		log_warn("target", t->host.env.job, "%s: enum %s: %s", t->host.env.name, current(t)->name, t->answer_error.message);
	on_released(t);
}

static void on_missing_labels(struct target *t)
{
	if (!PQntuples(t->answer) || PQgetisnull(t->answer, 0, 0)) {
		on_released(t);
		return;
	}
	char *sql = mem_strdup(PQgetvalue(t->answer, 0, 0));
	log_info("target", t->host.env.job, "%s: %s", t->host.env.name, sql);
	target_try(t, sql, 0, NULL, on_labels);
	free(sql);
}

static bool grows(const struct target *t, const struct target_table *tb, const struct ddl *d)
{
	(void)tb;
	return !strcmp(d->kind, "enum") && t->on_ddl == POLICY_APPLY;
}

/* Not in a transaction: a new label cannot be used in the one that makes it. */
static void grow(struct target *t)
{
	struct buf sql;
	buf_init(&sql, 32 << 20);
	if (sql_ask_labels(&sql, current(t)) && buf_ok(&sql))
		target_ask(t, buf_cstr(&sql), 0, NULL, on_missing_labels);
	else
		on_released(t);
	buf_fini(&sql);
}

/* ---- a name that is taken ---- */

/* Tables and indexes share their names: that of an index may be another table's, even a key's that kept it when its table was renamed. */
static bool may_be_taken(const struct target *t, const struct ddl *d)
{
	static const char *const indexes[] = { "primary-key", "unique", "exclude", "index", NULL };
	return !strcmp(t->sqlstate, "42P07") && is_one_of(d->kind, indexes);
}

static void on_unnamed(struct target *t)
{
	const struct ddl *d = current(t);
	bool is_done = t->answer != NULL;
	if (!is_done && !is_there(t, d))
		fail(t, d);
	else if (t->run->is_inside)
		target_ask(t, is_done ? "RELEASE SAVEPOINT dmsr_ddl" : "ROLLBACK TO SAVEPOINT dmsr_ddl", 0, NULL, on_released);
	else
		on_released(t);
}

/* ALTER TABLE t ADD CONSTRAINT name PRIMARY KEY ..., without the name; NULL: it is another statement. Heap. */
static char *without_name(const char *sql)
{
	static const char alter[] = "ALTER TABLE ", add[] = " ADD CONSTRAINT ";
	if (strncmp(sql, alter, sizeof alter - 1) != 0)
		return NULL;
	const char *end = sql_skip_name(sql + sizeof alter - 1);
	if (strncmp(end, add, sizeof add - 1) != 0)
		return NULL;
	return mem_printf("%.*s ADD%s", (int)(end - sql), sql, sql_skip_name(end + sizeof add - 1));
}

/* So a table that was renamed at the source, and is loaded under its new name, has its key. Others would be made once more at each try. */
static void on_whose(struct target *t)
{
	const struct ddl *d = current(t);
	char *unnamed = PQntuples(t->answer) > 0 || strcmp(d->kind, "primary-key") != 0 ? NULL : without_name(d->sql);
	if (unnamed) {
		target_try(t, unnamed, 0, NULL, on_unnamed);
		free(unnamed);
		return;
	}
	if (!PQntuples(t->answer)) {
		char *text = mem_printf("%s %s was not made: another table of that schema, or an index of another one, has the name. Make it by hand under "
			"another: %.300s", d->kind, d->name, d->sql);
		t->host.notice(t->host.ctx, text);
		free(text);
	}
	on_released(t);
}

/* Names as catalog.c writes them: of an index, and of a constraint. */
static void ask_whose(struct target *t)
{
	const char *const values[] = { t->run->tables[t->run->table]->sql, current(t)->name };
	target_ask(t,
		"SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
		"JOIN pg_catalog.pg_class o ON o.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace WHERE i.indrelid = $1::regclass "
		"AND $2 IN (pg_catalog.format('%s.%s', n.nspname, c.relname), pg_catalog.format('%s.%s.%s', n.nspname, o.relname, c.relname))",
		2, values, on_whose);
}

/* ---- one statement ---- */

static void on_run(struct target *t)
{
	const struct ddl *d = current(t);
	bool is_done = t->answer != NULL;
	void (*then)(struct target *) = !is_done && may_be_taken(t, d) ? ask_whose : on_released;
	if (!is_done && !is_there(t, d) && !may_be_missed(t, d) && !is_ahead(t, d)) {
		fail(t, d);
		return;
	}
	if (!is_done)
		log_debug("target", t->host.env.job, "%s: %s %s: %s", t->host.env.name, d->kind, d->name, t->answer_error.message);
	if (t->run->is_inside)
		target_ask(t, is_done ? "RELEASE SAVEPOINT dmsr_ddl" : "ROLLBACK TO SAVEPOINT dmsr_ddl", 0, NULL, then);
	else if (!is_done && grows(t, NULL, d))
		grow(t);
	else
		then(t);
}

static void on_savepoint(struct target *t)
{
	const struct ddl *d = current(t);
	struct buf sql;
	if (t->run->is_meant == grows) {
		grow(t);
		return;
	}
	buf_init(&sql, 1 << 20);
	/* To say CREATE SCHEMA needs a right, even if it is there. */
	bool is_once = !strcmp(d->kind, "schema") && sql_make_once(&sql, d) && buf_ok(&sql);
	target_try(t, is_once ? buf_cstr(&sql) : d->sql, 0, NULL, on_run);
	buf_fini(&sql);
}

static void run_next(struct target *t)
{
	struct ddl_run *r = t->run;
	for (; r->table < r->ntables; r->table++, r->item = 0) {
		struct target_table *tb = r->tables[r->table];
		for (; r->item < tb->rel->nddl; r->item++) {
			const struct ddl *d = current(t);
			if (d->phase != (uint8_t)r->phase || !r->is_meant(t, tb, d))
				continue;
			if (target_died(t, failpoint("target.ddl")))
				return;
			if (r->is_inside)
				target_ask(t, "SAVEPOINT dmsr_ddl", 0, NULL, on_savepoint);
			else
				on_savepoint(t);
			return;
		}
	}
	void (*then)(struct target *) = r->then;
	ddlrun_fini(t);
	then(t);
}

/* ---- which ---- */

static bool is_key(const struct ddl *d) { return !strcmp(d->kind, "primary-key"); }

static bool any(const struct target *t, const struct target_table *tb, const struct ddl *d)
{
	(void)t;
	(void)tb;
	(void)d;
	return true;
}

static bool keys(const struct target *t, const struct target_table *tb, const struct ddl *d)
{
	(void)t;
	(void)tb;
	return is_key(d);
}

/* A table that was there stays as it is; but its sequences go on where the source's are. */
static bool ours(const struct target *t, const struct target_table *tb, const struct ddl *d)
{
	if (is_key(d) && tb->has_made_key)
		return false;
	return table_is_ours(t, tb) || !strcmp(d->kind, "setval");
}

/* ---- verbs ---- */

static struct ddl_run *begin(struct target *t, struct target_table *tb, enum ddl_phase phase, void (*then)(struct target *t))
{
	struct ddl_run *r = mem_zalloc(sizeof *r);
	r->one = tb;
	r->tables = &r->one;
	r->ntables = 1;
	r->phase = phase;
	r->then = then;
	r->is_meant = any;
	t->run = r;
	return r;
}

void ddlrun_before(struct target *t, struct target_table *tb, bool makes, void (*then)(struct target *t))
{
	struct ddl_run *r = begin(t, tb, DDL_BEFORE_TABLE, then);
	r->is_meant = makes ? any : grows;
	run_next(t);
}

void ddlrun_key(struct target *t, struct target_table *tb, void (*then)(struct target *t))
{
	struct ddl_run *r = begin(t, tb, DDL_AFTER_LOAD, then);
	r->is_meant = keys;
	r->is_inside = true;
	run_next(t);
}

void ddlrun_tables(struct target *t, struct target_table *const *tables, size_t n, enum ddl_phase phase, void (*then)(struct target *t))
{
	struct ddl_run *r = begin(t, NULL, phase, then);
	r->tables = tables;
	r->ntables = n;
	r->is_meant = ours;
	run_next(t);
}

size_t ddlrun_count(const struct target *t, struct target_table *const *tables, size_t n)
{
	size_t count = 0;
	for (size_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < tables[i]->rel->nddl; k++) {
			const struct ddl *d = &tables[i]->rel->ddl[k];
			count += (d->phase == DDL_AFTER_LOAD || d->phase == DDL_AFTER_ALL) && ours(t, tables[i], d);
		}
	return count;
}

const struct ddl *ddlrun_under_way(const struct target *t)
{
	bool is_told = t->run && (t->run->is_meant == ours || t->run->is_meant == keys) && t->is_asking;
	return is_told ? current(t) : NULL;
}

void ddlrun_fini(struct target *t)
{
	free(t->run);
	t->run = NULL;
}
