/* target_prepare: a table, before its rows come: from LOAD_PREPARING to LOAD_OPEN.
 *
 *   describe -> decide -> (is it empty? whose are its rows?) -> (detach) -> (types, schema, extension) -> BEGIN -> make, empty or drop it -> open
 *                                                                                                if it is divided: -> note that it was begun -> COMMIT
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

/* The owner, too, may have taken the right from himself: then it is not the table that he lacks. */
static void fail_for_right(struct target *t)
{
	struct err e = t->answer_error;
	right_hint(&e, RIGHT_EMPTY, t->settings, t->load.table->schema, t->load.table->name);
	target_fail(t, &e);
}

/* ---- the rows that are there ---- */

/* What this job loaded it may take away. Of other jobs' rows it is known whose they are: each has a row in dmsr.loads for every table that it writes to. A
 * divided load has none in the table for a while, and no lock, and goes on however long its job was stopped. False: we fail. */
static bool may_remove(struct target *t)
{
	if (!t->answer) {
		fail_for_right(t);
		return false;
	}
	const struct target_table *tb = t->load.table;
	const char *where = pgconn_describe(t->conn), *job = PQgetisnull(t->answer, 0, 1) ? NULL : PQgetvalue(t->answer, 0, 1);
	struct err e = { 0 };
	if (job && PQgetvalue(t->answer, 0, 3)[0] == 't') {
		judge_begun(tb, where, job, PQgetvalue(t->answer, 0, 2), &e);
		target_fail(t, &e);
		return false;
	}
	if (PQgetvalue(t->answer, 0, 0)[0] != 't')
		return true;
	if (t->load.how == HOW_KEEP ? judge_rows(tb, where, job, &e) : job && judge_shared(tb, where, job, PQgetvalue(t->answer, 0, 2), &e)) {
		target_fail(t, &e);
		return false;
	}
	return true;
}

static void ask_rows(struct target *t, void (*then)(struct target *t))
{
	const struct target_table *tb = t->load.table;
	const char *values[] = { tb->schema, tb->name, t->host.env.uid };
	char *sql = mem_printf("SELECT EXISTS (SELECT FROM %s), o.job, o.uid, o.loads FROM (SELECT 1) one LEFT JOIN LATERAL ("
		"SELECT COALESCE(p.job, l.job_uid) AS job, l.job_uid AS uid, l.position IS NULL AND l.rows = " LOAD_BEGUN " AS loads "
		"FROM dmsr.loads l LEFT JOIN dmsr.positions p USING (job_uid) "
		"WHERE l.schema_name = $1 AND l.table_name = $2 AND l.job_uid <> $3 AND pg_catalog.strpos(l.job_uid, '/') = 0 "
		"ORDER BY loads DESC, p.updated_at DESC NULLS LAST LIMIT 1) o ON true", tb->sql);
	target_try(t, sql, 3, values, then);
	free(sql);
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

/* Can parts of different snapshots be made one (target_catch.h)? Nothing but the key may be in the way of a row that is not of its time yet, and the key only
 * of a row of the same one at the source: 'a' and 'A' are one where a table of somebody else's has citext. */
bool load_may_be_caught(const struct target *t)
{
	const struct target_table *tb = t->load.table;
	if (tb->rel->key != KEY_PRIMARY)
		return false;
	if (t->load.how == HOW_MAKE || t->load.how == HOW_DROP)
		return true;
	if (tb->has_other_unique || tb->has_triggers || tb->has_references)
		return false;
	return tb->is_made || ((tb->has_key || table_is_ours(t, tb)) && judge_key(tb)); /* what was made has the source's types */
}

/* From here on rows may be there that are a part of the load's. */
static void note_begin(struct target *t)
{
	const struct target_table *tb = t->load.table;
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_BEGUN };
	t->load.keeps_parts = !t->load.in_turns && load_may_be_caught(t);
	target_ask(t, load_begin_sql, 5, values, on_begin_noted);
}

static void on_key(struct target *t)
{
	t->load.table->has_made_key = true;
	note_begin(t);
}

/* Changes between its parts are to find their rows. */
static void open_frame(struct target *t)
{
	if (t->load.in_turns && table_is_ours(t, t->load.table))
		ddlrun_key(t, t->load.table, on_key);
	else
		note_begin(t);
}

static void open_load(struct target *t)
{
	if (t->load.piece == LOAD_FRAME) {
		open_frame(t);
		return;
	}
	t->load.state = LOAD_OPEN;
	t->stat.phase = "loading";
	lane_prepared(t);
}

static void on_made(struct target *t)
{
	if (!t->answer) {
		struct err e = t->answer_error;
		err_prefix(&e, "%s is to be made here", t->load.table->sql);
		right_hint(&e, t->load.how == HOW_DROP ? RIGHT_OWN : RIGHT_SCHEMA, t->settings, t->load.table->schema, t->load.table->name);
		target_fail(t, &e);
		return;
	}
	t->load.table->is_made = true;
	t->load.is_fresh = true;
	open_load(t);
}

static void make_table(struct target *t)
{
	struct buf sql;
	buf_init(&sql, 16 << 20);
	sql_create_table(&sql, t->load.table->rel);
	target_try(t, buf_cstr(&sql), 0, NULL, on_made);
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

static void fail_referenced(struct target *t, struct err *e, const char *otherwise)
{
	struct buf fix;
	buf_init(&fix, 4096);
	right_rest_sql(&fix, t->settings, pgconn_server_version(t->conn));
	err_hint(e, "%s; or %s", buf_cstr(&fix), otherwise);
	buf_fini(&fix);
	target_fail(t, e);
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
		fail_for_right(t);
	}
}

static void on_references(struct target *t)
{
	struct err e = { 0 };
	struct buf rest;
	buf_init(&rest, 4096);
	right_rest_sql(&rest, t->settings, pgconn_server_version(t->conn));
	int rc = judge_references(t->load.table, t->answer, pgconn_describe(t->conn), buf_cstr(&rest), &e);
	buf_fini(&rest);
	if (rc) {
		target_fail(t, &e);
		return;
	}
	char *sql = mem_printf("DELETE FROM %s", t->load.table->sql);
	target_try(t, sql, 0, NULL, on_deleted);
	free(sql);
}

/* TRUNCATE is refused for a table that a foreign key refers to. */
static void remove_rows(struct target *t)
{
	const char *values[] = { t->load.table->sql };
	if (t->load.how == HOW_DROP) {
		drop_table(t);
	} else if (t->load.table->has_references) {
		target_ask(t, judge_references_sql, 1, values, on_references);
	} else {
		char *sql = mem_printf("TRUNCATE %s", t->load.table->sql);
		target_ask(t, sql, 0, NULL, on_emptied);
		free(sql);
	}
}

static void on_rows_again(struct target *t)
{
	const struct target_table *tb = t->load.table;
	if (!may_remove(t))
		return;
	if (tb->was_loaded && PQgetvalue(t->answer, 0, 0)[0] == 't')
		log_warn("target", t->host.env.job, "%s: the rows of %s are removed before its load: what this job loaded before it began anew, and what "
			"others have written there since", t->host.env.name, tb->sql);
	remove_rows(t);
}

static void look_and_remove(struct target *t)
{
	if (t->prepare == PREPARE_CREATE)
		ask_rows(t, on_rows_again);
	else
		remove_rows(t);
}

/* Who holds it may be another job, which waits for the lock of a table of ours. Neither takes rows then, so that neither load ends, and no server knows why:
 * one of them lets go, and tries again. */
static void take_lock(struct target *t, const char *what, const char *mode, void (*then)(struct target *t))
{
	char *sql = mem_printf("SET LOCAL lock_timeout = '20s'; LOCK TABLE %s%s IN %s MODE; SET LOCAL lock_timeout = 0", what, t->load.table->sql, mode);
	target_try(t, sql, 0, NULL, then);
	free(sql);
}

static void fail_for_lock(struct target *t)
{
	err_prefix(&t->answer_error, "%s is to be locked for its load", t->load.table->sql);
	fail_for_right(t);
}

/* From here on no rows come, and no foreign key. */
static void on_locked(struct target *t)
{
	if (t->answer)
		look_and_remove(t);
	else
		fail_for_lock(t);
}

/* A part of a load that is void may be about to be committed: it is waited for. So may all of another job's load be, which nobody saw until now: hence it is
 * asked again. A foreign table has no locks; what is not asked about is locked by what removes it, which the right to that is enough for. */
static void lock_table(struct target *t)
{
	const struct target_table *tb = t->load.table;
	bool deletes = t->load.how == HOW_EMPTY && tb->has_references;
	if (tb->is_foreign || (t->prepare != PREPARE_CREATE && !deletes)) {
		look_and_remove(t);
		return;
	}
	take_lock(t, "", deletes ? "SHARE ROW EXCLUSIVE" : "ACCESS EXCLUSIVE", on_locked);
}

/* ---- a table that was empty ---- */

/* What others than jobs wrote just now is not refused: before this it would not have been seen. */
static void on_seen_again(struct target *t)
{
	bool is_of_job = !t->answer || !PQgetisnull(t->answer, 0, 1);
	if (!is_of_job || may_remove(t))
		open_load(t);
}

static void on_others_kept_out(struct target *t)
{
	if (t->answer)
		ask_rows(t, on_seen_again);
	else if (strcmp(t->sqlstate, "42501") != 0)
		fail_for_lock(t);
	else
		target_ask(t, "ROLLBACK; BEGIN", 0, NULL, open_load);
}

/* Another job may be loading it, too, whose rows nobody sees yet. They are waited for, and then found; who begins to load it behind us waits for ours. A role
 * that may do no more than insert cannot keep others out, and loads it all the same. */
static void keep_others_out(struct target *t)
{
	if (t->prepare != PREPARE_CREATE || t->load.table->is_foreign)
		open_load(t);
	else
		take_lock(t, "ONLY ", "SHARE ROW EXCLUSIVE", on_others_kept_out);
}

/* ---- BEGIN ---- */

static void on_begun(struct target *t)
{
	switch (t->load.how) {
	case HOW_KEEP: keep_others_out(t); return;
	case HOW_MAKE: make_table(t); return;
	case HOW_EMPTY:
	case HOW_DROP: lock_table(t); return;
	}
}

static void begin(struct target *t) { target_ask(t, "BEGIN", 0, NULL, on_begun); }

/* ---- before the transaction ---- */

static void make_before(struct target *t)
{
	enum how how = t->load.how;
	/* What the table is made of; and what statements after the load refer to. */
	ddlrun_before(t, t->load.table, how == HOW_MAKE || how == HOW_DROP || table_is_ours(t, t->load.table), begin);
}

static void detach(struct target *t);
static void ask_own_keys(struct target *t);

static void go(struct target *t)
{
	if (t->load.how == HOW_DROP)
		detach(t);
	else if (t->load.is_ours && t->load.table->has_references)
		ask_own_keys(t);
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
	err_prefix(&e, t->load.how == HOW_DROP ? "%s is to be made anew" : "foreign keys of %s are to be made anew, after its load", t->load.table->sql);
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

/* ---- foreign keys of a table that is loaded again, which work ---- */

static const char own_keys_sql[] =
	"SELECT k.conname, pg_catalog.pg_get_constraintdef(k.oid), k.confrelid::regclass, k.confdeltype IN ('c','n','d') OR k.confupdtype IN ('c','n','d') "
	"FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.confrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace "
	"JOIN dmsr.loads l ON l.schema_name = s.nspname AND l.table_name = c.relname AND l.job_uid = $2 "
	"WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = $1::regclass AND k.confrelid <> k.conrelid "
	"AND EXISTS (SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_constraint x ON x.oid = g.tgconstraint "
	"WHERE k.oid IN (x.oid, x.conparentid) AND g.tgrelid = x.confrelid AND (g.tgenabled = 'A' "
	"OR g.tgenabled = CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)) ORDER BY 4 DESC, 1";
enum { KEY_NAME, KEY_TEXT, KEY_OTHER, KEY_ACTS };

/* Does the job make it, as it is, behind the load? */
static bool is_made_behind(const struct target *t, const struct target_table *tb, const char *name, const char *text)
{
	struct buf sql;
	bool is = false;
	buf_init(&sql, 16 << 20);
	buf_printf(&sql, "ALTER TABLE %s ADD CONSTRAINT ", tb->sql);
	sql_ident(&sql, name);
	buf_printf(&sql, " %s", text);
	for (uint32_t i = 0; i < tb->rel->nddl && !is && table_is_ours(t, tb); i++)
		is = tb->rel->ddl[i].phase == DDL_AFTER_ALL && !strcmp(tb->rel->ddl[i].sql, buf_cstr(&sql));
	buf_fini(&sql);
	return is;
}

static void fail_acting(struct target *t, int i)
{
	const struct target_table *tb = t->load.table;
	const char *name = PQgetvalue(t->answer, i, KEY_NAME), *other = PQgetvalue(t->answer, i, KEY_OTHER);
	struct err e = { 0 };
	struct buf key, rest;
	buf_init(&key, 1024);
	sql_ident(&key, name);
	err_set(&e, DMSR_ESTATE, "target.referenced", "%s in %s is to be loaded again, and its foreign key %s refers to %s: what is done to rows of %s, "
		"from before the load, would be done to its own rows too, which are newer", tb->sql, pgconn_describe(t->conn), buf_cstr(&key), other, other);
	buf_init(&rest, 4096);
	buf_printf(&rest, "ALTER TABLE %s DROP CONSTRAINT %s, let the table be loaded, and then ALTER TABLE %s ADD CONSTRAINT %s %s", tb->sql, buf_cstr(&key),
		tb->sql, buf_cstr(&key), PQgetvalue(t->answer, i, KEY_TEXT));
	fail_referenced(t, &e, buf_cstr(&rest));
	buf_fini(&rest);
	buf_fini(&key);
}

/* The rows to come are newer than changes of other tables that come behind them: a row there goes, and these with it, or it may not go, though at the source
 * both are there again. So its keys are made when all fits (OP_LOAD_DONE). */
static void on_own_keys(struct target *t)
{
	const struct target_table *tb = t->load.table;
	struct buf sql;
	int acting = -1;
	buf_init(&sql, 16 << 20);
	buf_str(&sql, "BEGIN; SET LOCAL lock_timeout = '20s'; ");
	size_t none = sql.len;
	for (int i = 0; i < PQntuples(t->answer) && acting < 0; i++) {
		const char *name = PQgetvalue(t->answer, i, KEY_NAME);
		if (is_made_behind(t, tb, name, PQgetvalue(t->answer, i, KEY_TEXT))) {
			buf_printf(&sql, "ALTER TABLE %s DROP CONSTRAINT ", tb->sql);
			sql_ident(&sql, name);
			buf_str(&sql, "; ");
		} else if (*PQgetvalue(t->answer, i, KEY_ACTS) == 't') {
			acting = i;
		}
	}
	buf_str(&sql, "COMMIT");
	if (acting >= 0)
		fail_acting(t, acting);
	else if (sql.len == none + strlen("COMMIT"))
		make_before(t);
	else if (lane_instance(t)->tx.state != TX_NONE)
		fail(t, "target.load-in-transaction", "it is loaded again in the middle of a transaction of the source, and has foreign keys that do not rest",
			"let the job run until the transaction has ended before tables are loaded again: stop it, DELETE its positions, start it");
	else
		target_try(t, buf_cstr(&sql), 0, NULL, on_detached);
	buf_fini(&sql);
}

static void ask_own_keys(struct target *t)
{
	const char *values[] = { t->load.table->sql, t->host.env.uid };
	target_ask(t, own_keys_sql, 2, values, on_own_keys);
}

/* ---- what cannot be made one of its parts ---- */

static void on_lost_noted(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "the load of %s cannot go on, since the table was changed at the target: it begins anew",
		t->load.table->sql);
	target_fail(t, &e);
}

/* The source is told at the next start. */
static void on_lost_turns(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "changes cannot come between the parts of %s: it has triggers or other unique indexes than its key, "
		"or foreign keys from it or to it, or a key of a type or collation that may take two for one, or the role may make no "
		"temporary tables. It is loaded in one snapshot, which the stream waits for",
		t->load.table->sql);
	target_fail(t, &e);
}

static void on_lost_table(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "the load of %s cannot go on, since no temporary table can be made here: it begins anew",
		t->load.table->sql);
	err_hint(&e, "loads go on where the role has the right TEMPORARY on the database, and nothing else keeps it from making a temporary table");
	target_fail(t, &e);
}

static void lose_rest(struct target *t, void (*then)(struct target *t))
{
	const struct target_table *tb = t->load.table;
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_LOST };
	target_ask(t, load_begin_sql, 5, values, then);
}

/* ---- decide ---- */

static void on_rows(struct target *t)
{
	if (may_remove(t))
		go(t);
}

static void decide(struct target *t)
{
	struct err e = { 0 };
	if (judge_load(t->load.table, t->prepare, t->load.is_ours, pgconn_describe(t->conn), &t->load.how, &e))
		target_fail(t, &e);
	else if (t->load.in_turns && !load_may_be_caught(t))
		lose_rest(t, on_lost_turns);
	else if (t->load.how != HOW_MAKE && t->prepare == PREPARE_CREATE)
		ask_rows(t, on_rows);
	else
		go(t);
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
	table_reset(t, t->load.table);
}

static void on_rest_key(struct target *t) { target_ask(t, "COMMIT", 0, NULL, on_went_on); }

static void make_rest_key(struct target *t) { ddlrun_key(t, t->load.table, on_rest_key); }

/* Rows of the parts to come are to find those that are there. That may take long, and what stands behind it in the queue waits for it. */
static void on_rest_ready(struct target *t)
{
	lane_prepared(t);
	if (t->load.merges && table_is_ours(t, t->load.table))
		target_ask(t, "BEGIN", 0, NULL, make_rest_key);
	else
		on_went_on(t);
}

/* Somebody may have emptied it, or made it anew, to begin clean. What an enum lacks may stand in the rows to come; what is made after the load needs its
 * words. */
static void on_rest_seen(struct target *t)
{
	struct target_table *tb = t->load.table;
	if (PQgetvalue(t->answer, 0, 0)[0] == 't' || !t->load.rows)
		ddlrun_before(t, tb, table_is_ours(t, tb), on_rest_ready);
	else
		lose_rest(t, on_lost_noted);
}

static void on_rest_described(struct target *t)
{
	struct target_table *tb = t->load.table;
	struct err e = { 0 };
	table_described(tb, t->answer);
	t->load.how = HOW_KEEP;
	if (!tb->exists || judge_stream(tb, MISSING_REFUSED, pgconn_describe(t->conn), &e) || !load_may_be_caught(t)) {
		lose_rest(t, on_lost_noted);
		return;
	}
	char *sql = mem_printf("SELECT EXISTS (SELECT FROM %s)", tb->sql);
	target_ask(t, sql, 0, NULL, on_rest_seen);
	free(sql);
}

void load_prepare(struct target *t) { describe(t, t->load.goes_on ? on_rest_described : on_described); }

/* ---- a part of a table that was made ---- */

static void open_part(struct target *t)
{
	t->load.state = LOAD_OPEN;
	t->stat.phase = "loading";
}

static void on_lost_refused(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "the load of %s cannot go on, since a row that was read later was refused beside those that are there: "
		"it begins anew, in one snapshot", t->load.table->sql);
	target_fail(t, &e);
}

static void on_refused_back(struct target *t) { lose_rest(t, on_lost_refused); }

void load_lose_refused(struct target *t, const struct err *why)
{
	log_warn("target", t->host.env.job, "%s: loading %s: %s", t->host.env.name, t->load.table->sql, why->message);
	target_ask(t, "ROLLBACK", 0, NULL, on_refused_back);
}

static void on_rolled_back(struct target *t) { lose_rest(t, t->load.in_turns ? on_lost_turns : on_lost_table); }

/* The role may make none in this database, or an event trigger refuses it. */
static void on_part_table(struct target *t)
{
	if (t->answer)
		open_part(t);
	else if (t->answer_error.retriable)
		target_fail(t, &t->answer_error);
	else
		target_ask(t, "ROLLBACK", 0, NULL, on_rolled_back);
}

static void on_part_begun(struct target *t)
{
	struct buf sql;
	if (!t->load.merges) {
		open_part(t);
		return;
	}
	buf_init(&sql, 1 << 20);
	sql_part_table(&sql, t->load.table->rel);
	target_try(t, buf_cstr(&sql), 0, NULL, on_part_table);
	buf_fini(&sql);
}

static void on_part_described(struct target *t)
{
	struct err e = { 0 };
	table_described(t->load.table, t->answer);
	if (!t->load.table->exists)
		fail(t, "target.table-missing", "it is gone, in the middle of its load", "start the job again: the table is loaded anew");
	else if (judge_stream(t->load.table, MISSING_REFUSED, pgconn_describe(t->conn), &e))
		target_fail(t, &e);
	else
		target_ask(t, "BEGIN", 0, NULL, on_part_begun);
}

void load_prepare_part(struct target *t) { describe(t, on_part_described); }
