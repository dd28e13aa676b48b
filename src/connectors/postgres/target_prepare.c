/* target_prepare: a table, before its rows come: from LOAD_PREPARING to LOAD_OPEN.
 *
 *   describe -> (is it empty?) -> decide -> (detach) -> (types, schema, extension) -> BEGIN -> make, empty or drop it -> open
 *                                                                            if it is divided: -> note that it was begun -> COMMIT
 *   of a load that goes on: describe -> can its parts be made one? -> (types) -> its parts may come
 *
 * What is made before BEGIN is made for good and may be met again; the table itself, and that its old rows go, belongs to the transaction of its load. Not so
 * where it is divided: then dmsr.loads says that the rows which are there may be some of a load's, and the next load removes them, or goes on
 * with them. */
#include "target_int.h"
#include "catalog.h"
#include <stdlib.h>

static void begin(struct target *t);

static void fail(struct target *t, const char *id, const char *why, const char *fix)
{
	struct err e = { 0 };
	err_set(&e, DMSR_ESTATE, id, "%s in %s: %s", t->load.table->sql, pgconn_describe(t->conn), why);
	err_hint(&e, "%s", fix);
	target_fail(t, &e);
}

/* ---- inside the transaction ---- */

static void on_begin_committed(struct target *t)
{
	if (target_died(t, failpoint("target.load-made")))
		return;
	t->load.state = LOAD_NONE;
	lane_made(t);
	lane_prepared(t);
	table_reset(t, t->load.table);
}

static void on_begin_noted(struct target *t)
{
	if (target_died(t, failpoint("target.load-making")))
		return;
	target_ask(t, "COMMIT", 0, NULL, on_begin_committed);
}

const char load_begin_sql[] =
	"WITH gone AS (DELETE FROM dmsr.loads WHERE pg_catalog.starts_with(job_uid, $1::text || '/') AND schema_name = $2 AND table_name = $3) "
	"INSERT INTO dmsr.loads AS l (job_uid, schema_name, table_name, rows, made) VALUES ($1, $2, $3, $5::bigint, $4::boolean) "
	"ON CONFLICT (job_uid, schema_name, table_name) DO UPDATE SET position = NULL, rows = EXCLUDED.rows, made = l.made OR EXCLUDED.made, "
	"loaded_at = pg_catalog.now()";

/* Can parts of different snapshots be made one (target_catch.h)? Nothing but the key may be in the way of a row that is not of its time yet. */
static bool may_be_caught(const struct target *t)
{
	const struct target_table *tb = t->load.table;
	if (tb->rel->key != KEY_PRIMARY)
		return false;
	if (t->load.how == HOW_MAKE || t->load.how == HOW_DROP)
		return true;
	return !tb->has_other_unique && !tb->has_triggers && !tb->has_references && (tb->has_key || ddlrun_is_ours(t, tb));
}

/* From here on rows may be there that are a part of the load's. */
static void note_begin(struct target *t)
{
	const struct target_table *tb = t->load.table;
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_BEGUN };
	t->load.keeps_parts = may_be_caught(t);
	target_ask(t, load_begin_sql, 5, values, on_begin_noted);
}

static void open_load(struct target *t)
{
	if (t->load.is_divided) {
		note_begin(t);
		return;
	}
	t->load.state = LOAD_OPEN;
	t->stat.phase = "loading";
	lane_prepared(t);
}

static void on_made(struct target *t)
{
	t->load.table->is_made = true;
	t->load.is_fresh = true;
	open_load(t);
}

static void make_table(struct target *t)
{
	struct buf sql;
	buf_init(&sql, 16 << 20);
	sql_create_table(&sql, t->load.table->rel);
	target_ask(t, buf_cstr(&sql), 0, NULL, on_made);
	buf_fini(&sql);
}

static void on_dropped(struct target *t) { make_table(t); }

static void drop_table(struct target *t)
{
	char *sql = mem_printf("DROP TABLE %s", t->load.table->sql);
	target_ask(t, sql, 0, NULL, on_dropped);
	free(sql);
}

static void on_emptied(struct target *t)
{
	t->load.is_fresh = !t->load.table->has_references;
	open_load(t);
}

/* ---- a table that others refer to ---- */

/* Foreign keys of other tables that would act when its rows go, the worst first: by the triggers that they work with, which may rest. Those of a partition
 * stand under the name that they were made with. */
static const char references_sql[] =
	"WITH RECURSIVE r (oid) AS (SELECT $1::regclass::oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN r ON i.inhparent = r.oid), "
	"k (oid, above) AS (SELECT k.oid, k.conparentid FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint "
	"WHERE k.contype = 'f' AND g.tgrelid = k.confrelid AND (g.tgtype & 8) <> 0 AND k.confrelid IN (SELECT oid FROM r) "
	"AND k.conrelid NOT IN (SELECT oid FROM r) AND (g.tgenabled = 'A' "
	"OR g.tgenabled = CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END) "
	"UNION SELECT a.oid, a.conparentid FROM k JOIN pg_catalog.pg_constraint a ON a.oid = k.above) "
	"SELECT c.conrelid::regclass, pg_catalog.quote_ident(c.conname), pg_catalog.pg_get_constraintdef(c.oid), c.confdeltype "
	"FROM k JOIN pg_catalog.pg_constraint c ON c.oid = k.oid WHERE k.above = 0 ORDER BY c.confdeltype IN ('c','n','d') DESC, 2";
enum { REFERENCE_TABLE, REFERENCE_NAME, REFERENCE_TEXT, REFERENCE_ACTION };

/* What lets foreign keys rest. */
static void add_rest(const struct target *t, struct buf *out)
{
	if (!strcmp(t->replication_role, "off"))
		buf_str(out, "set the target's session_replication_role to auto");
	else
		right_sql(out, pgconn_server_version(t->conn) >= 150000 ? RIGHT_SET_ROLE : RIGHT_SUPERUSER, t->settings, NULL, NULL);
}

static void fail_referenced(struct target *t, struct err *e, const char *otherwise)
{
	struct buf fix;
	buf_init(&fix, 4096);
	add_rest(t, &fix);
	err_hint(e, "%s; or %s", buf_cstr(&fix), otherwise);
	buf_fini(&fix);
	target_fail(t, e);
}

static const char *action_text(char action)
{
	return action == 'c' ? "deleted (ON DELETE CASCADE)" : action == 'n' ? "changed (ON DELETE SET NULL)" : "changed (ON DELETE SET DEFAULT)";
}

/* Also where the other table is loaded anew as well: which is first, nobody knows. */
static bool would_act(struct target *t)
{
	const PGresult *res = t->answer;
	struct err e = { 0 };
	if (!PQntuples(res) || !strchr("cnd", PQgetvalue(res, 0, REFERENCE_ACTION)[0]))
		return false;
	const char *other = PQgetvalue(res, 0, REFERENCE_TABLE), *name = PQgetvalue(res, 0, REFERENCE_NAME);
	err_set(&e, DMSR_ESTATE, "target.referenced", "%s in %s is to be emptied for its load, and foreign key %s of %s refers to it: rows of %s would be %s",
		t->load.table->sql, pgconn_describe(t->conn), name, other, other, action_text(PQgetvalue(res, 0, REFERENCE_ACTION)[0]));
	char *otherwise = mem_printf("ALTER TABLE %s DROP CONSTRAINT %s, let the table be loaded, and then ALTER TABLE %s ADD CONSTRAINT %s %s", other, name,
		other, name, PQgetvalue(res, 0, REFERENCE_TEXT));
	fail_referenced(t, &e, otherwise);
	free(otherwise);
	return true;
}

static bool is_refused_by_reference(const struct target *t) { return !strcmp(t->sqlstate, "23503") || !strcmp(t->sqlstate, "23001"); }

static void on_deleted(struct target *t)
{
	struct err e = t->answer_error, referenced = { 0 };
	if (t->answer) {
		on_emptied(t);
	} else if (is_refused_by_reference(t)) {
		err_set(&referenced, DMSR_ESTATE, "target.referenced", "%s in %s is to be emptied for its load: %s", t->load.table->sql,
			pgconn_describe(t->conn), e.message);
		fail_referenced(t, &referenced, "drop the foreign key, let the table be loaded, and add it again");
	} else {
		right_hint(&e, RIGHT_EMPTY, t->settings, t->load.table->schema, t->load.table->name);
		target_fail(t, &e);
	}
}

static void on_references(struct target *t)
{
	if (would_act(t))
		return;
	char *sql = mem_printf("DELETE FROM %s", t->load.table->sql);
	target_try(t, sql, 0, NULL, on_deleted);
	free(sql);
}

/* From here on no foreign key is added. */
static void on_locked(struct target *t)
{
	const char *values[] = { t->load.table->sql };
	target_ask(t, references_sql, 1, values, on_references);
}

/* TRUNCATE is refused for a table that a foreign key refers to. A part of a load that is void may be about to be committed: it is waited for. */
static void empty_table(struct target *t)
{
	const char *table = t->load.table->sql;
	bool is_referenced = t->load.table->has_references;
	char *sql = is_referenced ? mem_printf("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE", table) : mem_printf("TRUNCATE %s", table);
	target_ask(t, sql, 0, NULL, is_referenced ? on_locked : on_emptied);
	free(sql);
}

/* ---- BEGIN ---- */

static void on_begun(struct target *t)
{
	switch (t->load.how) {
	case HOW_KEEP: open_load(t); return;
	case HOW_EMPTY: empty_table(t); return;
	case HOW_MAKE: make_table(t); return;
	case HOW_DROP: drop_table(t); return;
	}
}

static void begin(struct target *t) { target_ask(t, "BEGIN", 0, NULL, on_begun); }

/* ---- before the transaction ---- */

static void make_before(struct target *t)
{
	enum how how = t->load.how;
	/* What the table is made of; and what statements after the load refer to. */
	ddlrun_before(t, t->load.table, how == HOW_MAKE || how == HOW_DROP || ddlrun_is_ours(t, t->load.table), begin);
}

static void detach(struct target *t);

static void go(struct target *t, enum how how)
{
	t->load.how = how;
	if (how == HOW_DROP)
		detach(t);
	else
		make_before(t);
}

/* ---- what a table that is dropped has to do with others ---- */

static void on_detached(struct target *t)
{
	struct err e = t->answer_error;
	if (t->answer) {
		make_before(t);
		return;
	}
	err_prefix(&e, "%s is to be made anew", t->load.table->sql);
	if (!strcmp(t->sqlstate, "55P03"))
		err_hint(&e, "a table that it has foreign keys with is in use, or is loaded beside it: "
			"load_connections 1 at the source loads one after another");
	target_fail(t, &e);
}

/* Locks of other tables are let go here: the transaction of the load is long, and such a table may be waiting for its own. A table that others depend on by
 * more than foreign keys is not dropped with them, since that would take somebody's views away: it is tried. The sequences of its serial columns stay: the new
 * table's defaults call them, and they were found to be there. */
static void on_ties(struct target *t)
{
	struct buf sql;
	if (!PQgetvalue(t->answer, 0, 0)[0]) {
		make_before(t);
		return;
	}
	if (lane_instance(t)->tx.state != TX_NONE) {
		fail(t, "target.load-in-transaction", "it is to be dropped in the middle of a transaction of the source, and has foreign keys or sequences",
			"let the job run until the transaction has ended before tables are loaded again: stop it, DELETE its positions, start it");
		return;
	}
	buf_init(&sql, 16 << 20);
	/* Another table that is being loaded could wait for this one's rows to go on, which nobody takes while we wait for its lock. */
	buf_printf(&sql, "BEGIN; SET LOCAL lock_timeout = '20s'; %s SAVEPOINT dmsr_drop; DROP TABLE %s; ROLLBACK TO SAVEPOINT dmsr_drop; COMMIT",
		PQgetvalue(t->answer, 0, 0), t->load.table->sql);
	target_try(t, buf_cstr(&sql), 0, NULL, on_detached);
	buf_fini(&sql);
}

static void detach(struct target *t)
{
	const char *values[] = { t->load.table->sql };
	target_ask(t, "SELECT COALESCE(pg_catalog.string_agg(x.sql, ' '), '') FROM (SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', "
		"k.conrelid::regclass, k.conname) AS sql FROM pg_catalog.pg_constraint k "
		"WHERE k.contype = 'f' AND k.conparentid = 0 AND $1::regclass IN (k.confrelid, k.conrelid) AND k.conrelid <> k.confrelid "
		"UNION ALL SELECT pg_catalog.format('ALTER SEQUENCE %s OWNED BY NONE;', d.objid::regclass) FROM pg_catalog.pg_depend d "
		"JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' WHERE d.classid = 'pg_catalog.pg_class'::regclass "
		"AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1::regclass AND d.deptype = 'a') x",
		1, values, on_ties);
}

/* ---- decide ---- */

/* A table that is there and stays: its columns must take the rows. */
static bool fits(struct target *t)
{
	struct err e = { 0 };
	if (!table_check(t, t->load.table, &e))
		return true;
	target_fail(t, &e);
	return false;
}

/* A table that we made for the source's earlier one of that name, which had other columns: its rows go anyway, so it is made anew. */
static bool is_outgrown(const struct target *t)
{
	const struct target_table *tb = t->load.table;
	bool differs = false;
	struct err e = { 0 };
	struct buf type;
	if (!t->load.is_ours || !tb->is_made || t->prepare != PREPARE_CREATE)
		return false;
	buf_init(&type, 1 << 20);
	for (unsigned i = 0; i < tb->rel->ncolumns && !differs; i++) {
		buf_reset(&type);
		sql_type(&type, tb->rel, &tb->rel->columns[i]);
		differs = !tb->of[i] || strcmp(tb->of[i]->type_full, buf_cstr(&type)) != 0;
	}
	buf_fini(&type);
	return differs || table_check(t, tb, &e);
}

static void on_rows(struct target *t)
{
	bool has_rows = PQgetvalue(t->answer, 0, 0)[0] == 't';
	char *whose = PQgetisnull(t->answer, 0, 1) ? mem_strdup("not of this job") : mem_printf("of job \"%s\"", PQgetvalue(t->answer, 0, 1));
	char *why = mem_printf("the table has rows, which are %s", whose);
	if (has_rows)
		fail(t, "target.table-not-empty", why,
			"empty or drop it, or set prepare to truncate or drop-and-create; prepare none adds the rows to those that are there");
	else
		go(t, HOW_KEEP);
	free(why);
	free(whose);
}

static void decide(struct target *t)
{
	struct target_table *tb = t->load.table;
	if (tb->exists && (t->prepare == PREPARE_DROP || is_outgrown(t))) {
		go(t, HOW_DROP);
	} else if (!tb->exists && t->prepare == PREPARE_NONE) {
		fail(t, "target.table-missing", "there is no such table, and prepare is none", "create it, or set prepare to create");
	} else if (!tb->exists) {
		go(t, HOW_MAKE);
	} else if (!fits(t)) {
		return;
	} else if (t->prepare == PREPARE_NONE && t->load.is_ours) {
		fail(t, "target.table-loaded", "its rows were loaded before, from another snapshot, and prepare none does not remove any",
			"remove the rows that were loaded, and the table's row in dmsr.loads");
	} else if (t->prepare == PREPARE_TRUNCATE || t->load.is_ours) {
		go(t, HOW_EMPTY);
	} else if (t->prepare == PREPARE_NONE) {
		go(t, HOW_KEEP);
	} else {
		const char *values[] = { tb->schema, tb->name, t->host.env.uid };
		char *sql = mem_printf("SELECT EXISTS (SELECT FROM %s), (SELECT p.job FROM dmsr.loads l JOIN dmsr.positions p USING (job_uid) "
			"WHERE l.schema_name = $1 AND l.table_name = $2 AND l.job_uid <> $3 AND (l.position IS NOT NULL OR l.rows < 0) "
			"ORDER BY p.updated_at DESC LIMIT 1)", tb->sql);
		target_ask(t, sql, 3, values, on_rows);
		free(sql);
	}
}

static void on_described(struct target *t)
{
	table_described(t->load.table, t->answer);
	if (t->prepare != PREPARE_DROP)
		table_tell_triggers(t, t->load.table);
	decide(t);
}

static void describe(struct target *t, void (*then)(struct target *t))
{
	struct target_table *tb = t->load.table;
	struct buf key;
	t->stat.phase = "preparing";
	buf_init(&key, 1 << 20);
	const char *values[] = { tb->schema, tb->name, table_describe_key(tb, &key) };
	target_ask(t, table_describe_sql, 3, values, then);
	buf_fini(&key);
}

/* ---- a load that goes on ---- */

static void on_went_on(struct target *t)
{
	t->load.keeps_parts = true;
	t->load.state = LOAD_NONE;
	lane_made(t);
	lane_prepared(t);
	table_reset(t, t->load.table);
}

static void on_lost_noted(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "the load of %s cannot go on, since the table was changed at the target: it begins anew",
		t->load.table->sql);
	target_fail(t, &e);
}

static void lose_rest(struct target *t)
{
	const struct target_table *tb = t->load.table;
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_LOST };
	target_ask(t, load_begin_sql, 5, values, on_lost_noted);
}

/* Somebody may have emptied it, or made it anew, to begin clean. What an enum lacks may stand in the rows to come; what is made after the load needs its
 * words. */
static void on_rest_seen(struct target *t)
{
	struct target_table *tb = t->load.table;
	if (PQgetvalue(t->answer, 0, 0)[0] == 't')
		ddlrun_before(t, tb, ddlrun_is_ours(t, tb), on_went_on);
	else
		lose_rest(t);
}

static void on_rest_described(struct target *t)
{
	struct target_table *tb = t->load.table;
	struct err e = { 0 };
	table_described(tb, t->answer);
	t->load.how = HOW_KEEP;
	if (!tb->exists || table_check(t, tb, &e) || !may_be_caught(t)) {
		lose_rest(t);
		return;
	}
	char *sql = mem_printf("SELECT EXISTS (SELECT FROM %s)", tb->sql);
	target_ask(t, sql, 0, NULL, on_rest_seen);
	free(sql);
}

void load_prepare(struct target *t) { describe(t, t->load.goes_on ? on_rest_described : on_described); }

/* ---- a part of a table that was made ---- */

static void on_part_begun(struct target *t)
{
	t->load.state = LOAD_OPEN;
	t->stat.phase = "loading";
}

static void on_part_described(struct target *t)
{
	table_described(t->load.table, t->answer);
	if (!t->load.table->exists)
		fail(t, "target.table-missing", "it is gone, in the middle of its load", "start the job again: the table is loaded anew");
	else if (fits(t))
		target_ask(t, "BEGIN", 0, NULL, on_part_begun);
}

void load_prepare_part(struct target *t) { describe(t, on_part_described); }
