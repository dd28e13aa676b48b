/* probe_target: can this server be a target of such a job? And, when a job is deleted, its rows in dmsr.positions and dmsr.loads go, and with
 * the last job's the schema; of one that begins anew its rows say so. Nothing is changed by
 * the preflight but a setting of its own session, since only that proves that it may be set. */
#include "probe_int.h"
#include "target.h"
#include "target_sql.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROWS_MAX = 500,                 /* tables that are looked into */
	DROP_TRIES = 8, DROP_AGAIN_MS = 250, /* the schema dmsr, when somebody has a lock there */
};

static const char *user(const struct probe *p) { return settings_str(p->settings, "user"); }
static bool prepares(const struct probe *p, const char *how) { return !strcmp(settings_str(p->settings, "prepare"), how); }

/* ---- the schema dmsr, where positions are kept ---- */

enum { D_SCHEMA, D_TABLES, D_RIGHTS, D_CREATE };

static void ask_dmsr(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->mode)
		buf_str(sql, "SELECT n.oid IS NOT NULL, t.n = 2, t.n = 2 AND t.ok AND coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false),"
			" CASE WHEN n.oid IS NULL THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
			" ELSE pg_catalog.has_schema_privilege(n.oid, 'CREATE') END"
			" FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'dmsr' CROSS JOIN LATERAL ("
			"SELECT count(*) AS n, coalesce(bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT')"
			" AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')), true) AS ok"
			" FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname IN ('positions', 'loads')) t");
}

static void read_dmsr(struct probe *p, const PGresult *res, const struct err *e)
{
	struct buf fix;
	if (e) {
		probe_fail(p, e);
		return;
	}
	bool has_schema = probe_true(res, 0, D_SCHEMA), has_tables = probe_true(res, 0, D_TABLES);
	if (has_tables ? probe_true(res, 0, D_RIGHTS) : probe_true(res, 0, D_CREATE)) {
		probe_found(p, DMSR_CHECK_OK, "postgres.positions", "dmsr", NULL, "the job's position can be kept in schema dmsr");
		return;
	}
	const char *why = has_tables ? "may not write to dmsr.positions and dmsr.loads" : "may not make schema dmsr and its tables";
	buf_init(&fix, 4096);
	right_sql(&fix, has_tables ? RIGHT_POSITIONS : has_schema ? RIGHT_SCHEMA : RIGHT_DATABASE, p->settings, "dmsr", NULL);
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.positions", "dmsr", &fix,
		"role %s cannot keep the job's position: it %s", user(p), why);
}

/* ---- triggers and foreign keys ---- */

static void ask_role(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->mode && strcmp(settings_str(p->settings, "session_replication_role"), "off") != 0)
		buf_str(sql, "SET session_replication_role = replica");
}

static void read_role(struct probe *p, const PGresult *res, const struct err *e)
{
	bool is_demanded = !strcmp(settings_str(p->settings, "session_replication_role"), "on");
	struct buf fix;
	(void)res;
	if (!e) {
		probe_found(p, DMSR_CHECK_OK, "postgres.session-replication-role", "session_replication_role", NULL,
			"the target's triggers and foreign keys will rest while changes are applied");
		return;
	}
	if (strcmp(e->id, "target.privilege") != 0) {
		probe_fail(p, e);
		return;
	}
	buf_init(&fix, 1024);
	right_sql(&fix, p->version >= 150000 ? RIGHT_SET_ROLE : RIGHT_SUPERUSER, p->settings, NULL, NULL);
	probe_found_fix(p, is_demanded ? DMSR_CHECK_ERROR : DMSR_CHECK_WARNING, "postgres.session-replication-role", "session_replication_role", &fix,
		"role %s may not set session_replication_role: the target's triggers and foreign keys work while changes are applied", user(p));
}

/* ---- schemas that the patterns name ---- */

/* The part before the dot, unquoted; false when it has a wildcard. */
static bool schema_of(const char *pattern, char *out, size_t size)
{
	bool is_quoted = false;
	size_t n = 0;
	const char *c = pattern;
	for (; *c && (is_quoted || *c != '.'); c++) {
		if (*c == '"') {
			if (is_quoted && c[1] == '"')
				c++;
			else {
				is_quoted = !is_quoted;
				continue;
			}
		} else if (!is_quoted && (*c == '*' || *c == '?')) {
			return false;
		}
		if (n + 1 < size)
			out[n++] = *c;
	}
	out[n] = 0;
	if (!*c)
		snprintf(out, size, "public");
	return true;
}

static bool is_literal(const char *pattern)
{
	bool is_quoted = false;
	for (const char *c = pattern; *c; c++) {
		is_quoted = is_quoted != (*c == '"');
		if (!is_quoted && (*c == '*' || *c == '?'))
			return false;
	}
	return true;
}

/* As an element of an array in text form. */
static void array_element(struct buf *out, const char *text)
{
	buf_str(out, out->len ? ",\"" : "{\"");
	for (const char *c = text; *c; c++) {
		if (*c == '"' || *c == '\\')
			buf_byte(out, '\\');
		buf_byte(out, *c);
	}
	buf_byte(out, '"');
}

static void ask_schemas(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	char schema[256];
	if (!p->mode || prepares(p, "none") || prepares(p, "truncate"))
		return;
	for (size_t i = 0; i < p->tables.ninclude; i++)
		if (schema_of(p->tables.include[i], schema, sizeof schema))
			array_element(&p->text, schema);
	if (!p->text.len)
		return;
	buf_byte(&p->text, '}');
	values[(*nvalues)++] = buf_cstr(&p->text);
	buf_str(sql, "SELECT DISTINCT s, n.oid IS NOT NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) s"
		" LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = s WHERE NOT CASE WHEN n.oid IS NULL"
		" THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
		" ELSE pg_catalog.has_schema_privilege(n.oid, 'CREATE') END ORDER BY 1");
}

static void read_schemas(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, 0);
		bool is_there = probe_true(res, i, 1);
		struct buf fix;
		buf_init(&fix, 4096);
		right_sql(&fix, is_there ? RIGHT_SCHEMA : RIGHT_DATABASE, p->settings, schema, NULL);
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.create-right", schema, &fix, "role %s may not make %s %s", user(p),
			is_there ? "tables in schema" : "schema", schema);
	}
	if (!PQntuples(res))
		probe_found(p, DMSR_CHECK_OK, "postgres.create-right", user(p), NULL, "role %s may make the tables", user(p));
}

/* ---- tables that are there ---- */

enum { T_SCHEMA, T_NAME, T_WRITE, T_OWNS, T_AT_WORK, T_REST };

/* Of triggers or rules: would it work while we write? */
#define AT_WORK(enabled) enabled " IN ('A', CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)"

static void ask_tables(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->mode)
		buf_str(sql, "SELECT n.nspname, c.relname, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')"
			" AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')"
			" AND pg_catalog.has_table_privilege(c.oid, 'DELETE')"
			" AND pg_catalog.has_table_privilege(c.oid, 'TRUNCATE'), pg_catalog.pg_has_role(c.relowner, 'USAGE'), w.names, w.rest"
			" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL ("
			"SELECT pg_catalog.string_agg(x.kind || ' ' || x.name, ', ' ORDER BY x.kind, x.name),"
			" pg_catalog.string_agg(pg_catalog.format('ALTER TABLE %I.%I DISABLE %s %I', n.nspname, c.relname, x.kind, x.name), '; '"
			" ORDER BY x.kind, x.name)"
			" FROM (SELECT 'trigger', g.tgname FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal"
			" AND " AT_WORK("g.tgenabled")
			" UNION ALL SELECT 'rule', r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1'"
			" AND " AT_WORK("r.ev_enabled")
			") x (kind, name)) w (names, rest)"
			" WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dmsr')");
	if (p->mode) /* a leaf is a table of its own when the source says so */
		buf_str(sql, p->meant ? " ORDER BY 1, 2" : " AND NOT c.relispartition ORDER BY 1, 2");
}

static bool is_meant(struct probe *p, const char *schema, const char *name)
{
	return p->meant ? probe_table(p, schema, name) != NULL : dmsr_table_matches(&p->tables, schema, name);
}

static void need_rights(struct probe *p, const char *schema, const char *name, bool may_write, bool owns)
{
	struct buf fix;
	bool is_dropped = prepares(p, "drop-and-create");
	/* Of tables that are known it is asked later what needs their owner. */
	if (is_dropped ? owns || p->meant : may_write)
		return;
	buf_init(&fix, 4096);
	right_sql(&fix, is_dropped ? RIGHT_OWN : RIGHT_EMPTY, p->settings, schema, name);
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.write-right", probe_name(p, schema, name), &fix, "role %s %s %s.%s", user(p),
		is_dropped ? "does not own, so it may not drop," : "may not write to", schema, name);
}

/* The source's rows are the result of its own triggers: those of the target work a second time. */
static void check_triggers(struct probe *p, const PGresult *res, int row)
{
	const char *object = probe_name(p, PQgetvalue(res, row, T_SCHEMA), PQgetvalue(res, row, T_NAME));
	if (PQgetisnull(res, row, T_AT_WORK) || prepares(p, "drop-and-create"))
		return;
	probe_found(p, DMSR_CHECK_WARNING, "postgres.target-triggers", object, PQgetvalue(res, row, T_REST),
		"%s of %s will work while its rows are loaded and changed: what that does comes beside what the source did",
		PQgetvalue(res, row, T_AT_WORK), object);
}

static struct probe_rows *add_rows(struct probe *p, const char *schema, const char *name)
{
	p->found = mem_realloc_array(p->found, p->nfound + 1, sizeof *p->found);
	p->found[p->nfound] = (struct probe_rows){ .schema = arena_strdup(&p->arena, schema), .name = arena_strdup(&p->arena, name) };
	return &p->found[p->nfound++];
}

static struct probe_rows *found(const struct probe *p, const char *schema, const char *name)
{
	for (size_t i = 0; i < p->nfound; i++)
		if (!strcmp(p->found[i].name, name) && !strcmp(p->found[i].schema, schema))
			return &p->found[i];
	return NULL;
}

/* Tables that another job is loading, by the locks that it has (target_prepare.c): its rows are not seen yet, and some of these locks would have us wait. */
static void ask_loading(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!(p->mode & DMSR_FULL_LOAD))
		return;
	values[(*nvalues)++] = p->host.env.job;
	buf_str(sql, "SELECT DISTINCT n.nspname, c.relname, pg_catalog.split_part(a.application_name, ':', 2) FROM pg_catalog.pg_locks l"
		" JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid AND a.datname = pg_catalog.current_database()"
		" JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		" WHERE l.locktype = 'relation' AND l.granted AND l.mode IN ('ShareRowExclusiveLock', 'AccessExclusiveLock') AND c.relkind IN ('r', 'p')"
		" AND a.application_name LIKE 'dmsr:%' AND pg_catalog.split_part(a.application_name, ':', 2) <> $1 ORDER BY 1, 2, 3");
}

static void read_loading(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, 0), *name = PQgetvalue(res, i, 1);
		if (is_meant(p, schema, name) && !found(p, schema, name))
			add_rows(p, schema, name)->job = arena_strdup(&p->arena, PQgetvalue(res, i, 2));
	}
	if (e)
		probe_fail(p, e);
}

/* Which of those that match have rows is the next question; it is put together here. */
static void read_tables(struct probe *p, const PGresult *res, const struct err *e)
{
	size_t n = 0;
	if (e) {
		probe_fail(p, e);
		return;
	}
	buf_reset(&p->kept);
	for (int i = 0; i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, T_SCHEMA), *name = PQgetvalue(res, i, T_NAME);
		if (!is_meant(p, schema, name))
			continue;
		struct probe_table *t = probe_table(p, schema, name);
		if (t) {
			t->is_there = true;
			t->is_owned = probe_true(res, i, T_OWNS);
		}
		need_rights(p, schema, name, probe_true(res, i, T_WRITE), probe_true(res, i, T_OWNS));
		check_triggers(p, res, i);
		if (!(p->mode & DMSR_FULL_LOAD) || !probe_true(res, i, T_WRITE) || found(p, schema, name) || n++ >= ROWS_MAX)
			continue;
		buf_str(&p->kept, p->kept.len ? " UNION ALL SELECT " : "SELECT ");
		sql_literal(&p->kept, schema);
		buf_str(&p->kept, ", ");
		sql_literal(&p->kept, name);
		buf_str(&p->kept, " WHERE EXISTS (SELECT FROM ");
		sql_qualified(&p->kept, schema, name);
		buf_byte(&p->kept, ')');
	}
}

static void ask_rows(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	buf_append(sql, p->kept.data, p->kept.len);
}

static bool is_named(const struct probe *p, const char *schema, const char *name)
{
	for (size_t i = 0; i < p->tables.ninclude; i++) {
		const struct dmsr_tables one = { .include = &p->tables.include[i], .ninclude = 1 };
		if (is_literal(p->tables.include[i]) && dmsr_table_matches(&one, schema, name))
			return true;
	}
	return false;
}

/* Rows of a job that still writes are not there to be removed: no fix is given that does. */
#define ELSEWHERE "use another database, or delete that job first"
static bool is_somebodys(const struct probe_rows *f) { return f->is_ours || f->job; }

/* What happens to them, as the job is told to prepare its tables. */
static void has_rows(struct probe *p, const struct probe_rows *f, const char *fix, const char *but)
{
	const char *object = probe_name(p, f->schema, f->name);
	bool is_certain = p->meant || is_named(p, f->schema, f->name), is_refused = prepares(p, "create");
	const char *how = prepares(p, "truncate") ? "they will be removed before the load" :
		prepares(p, "drop-and-create")    ? "it will be dropped and made anew" :
		!is_refused                       ? "the source's are added to them" :
		is_certain                        ? "its load will be refused (prepare is create)" :
						    "if the source has such a table, its load will be refused (prepare is create)";
	enum dmsr_check_level level = is_refused && is_certain ? DMSR_CHECK_ERROR : DMSR_CHECK_WARNING;
	if (f->job)
		probe_found(p, level, "postgres.target-rows", object, NULL, "%s has rows of job \"%s\", which may go on writing there: %s%s", object, f->job,
			how, prepares(p, "none") ? "" : "; " ELSEWHERE);
	else
		probe_found(p, level, "postgres.target-rows", object, fix, "%s has rows that are not this job's: %s%s%s%s", object, how,
			but ? "; " : "", but ? but : "", but ? ", which is not to be emptied, refers to such tables" : "");
}

/* The job has loaded it once, and its next load may take away what is there: what others wrote since, too (target_prepare.c). */
static void has_own_rows(struct probe *p, const struct probe_rows *f)
{
	const char *object = probe_name(p, f->schema, f->name);
	if (f->is_loaded || prepares(p, "none"))
		return;
	if (f->job)
		probe_found(p, prepares(p, "create") ? DMSR_CHECK_ERROR : DMSR_CHECK_WARNING, "postgres.target-rows", object, NULL,
			"%s has rows of this job, which is to load it anew, and of job \"%s\", which may go on writing there: %s; " ELSEWHERE, object, f->job,
			prepares(p, "create") ? "its load will be refused" : "all of them will be removed before the load");
	else if (f->is_forgotten)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.target-rows", object, NULL,
			"%s has rows that this job loaded before it began anew: they will be removed before the load, and with them what others wrote there",
			object);
}

static void read_rows(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++)
		add_rows(p, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
}

/* ---- whose rows they are ---- */

static void ask_loaded(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!p->nfound)
		return;
	values[(*nvalues)++] = p->host.env.uid;
	buf_str(sql, "SELECT l.schema_name, l.table_name, l.job_uid = $1, coalesce(p.job, l.job_uid), l.position IS NOT NULL, " PROBE_FORGOTTEN);
	buf_str(sql, " FROM dmsr.loads l LEFT JOIN dmsr.positions p USING (job_uid) WHERE (l.position IS NOT NULL OR l.rows < 0 OR l.job_uid <> $1)");
	buf_str(sql, " AND pg_catalog.strpos(l.job_uid, '/') = 0 AND NOT " PROBE_PASSED " ORDER BY p.updated_at");
}

/* An error: no such table, or no right to read it; then nobody knows. */
static void read_loaded(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++) {
		struct probe_rows *f = found(p, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
		if (f && probe_true(res, i, 2)) {
			f->is_ours = true;
			f->is_loaded = probe_true(res, i, 4);
			f->is_forgotten = probe_true(res, i, 5);
		} else if (f) {
			f->job = arena_strdup(&p->arena, PQgetvalue(res, i, 3));
		}
	}
	for (size_t i = 0; i < p->nfound; i++)
		if (p->found[i].is_ours)
			has_own_rows(p, &p->found[i]);
		else if (p->found[i].job)
			has_rows(p, &p->found[i], NULL, NULL);
}

/* ---- how they can be removed ---- */

/* Those that nobody is known to write, and what refers to them, however far: TRUNCATE takes them together, or not at all. */
static void ask_references(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	struct buf name;
	(void)values;
	(void)nvalues;
	buf_init(&name, 4096);
	for (size_t i = 0; i < p->nfound; i++) {
		if (is_somebodys(&p->found[i]))
			continue;
		buf_reset(&name);
		sql_qualified(&name, p->found[i].schema, p->found[i].name);
		buf_str(sql, sql->len ? "), (" : "WITH RECURSIVE r (oid) AS (SELECT pg_catalog.to_regclass(v.t)::pg_catalog.oid FROM (VALUES (");
		sql_literal(sql, buf_cstr(&name));
	}
	buf_fini(&name);
	if (sql->len)
		buf_str(sql, ")) v (t) UNION SELECT k.conrelid FROM pg_catalog.pg_constraint k JOIN r ON k.confrelid = r.oid WHERE k.contype = 'f'"
			" AND k.conparentid = 0) SELECT n.nspname, c.relname FROM r JOIN pg_catalog.pg_class c ON c.oid = r.oid"
			" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2");
}

/* One statement for all; NULL when it would empty a table that is not to be, *but. */
static const char *truncate_all(struct probe *p, const PGresult *res, const char **but)
{
	struct buf sql;
	const char *fix = NULL;
	buf_init(&sql, SIZE_MAX);
	for (int i = 0; i < PQntuples(res) && !*but; i++) {
		const char *schema = PQgetvalue(res, i, 0), *name = PQgetvalue(res, i, 1);
		const struct probe_rows *f = found(p, schema, name);
		if (f ? is_somebodys(f) : !is_meant(p, schema, name))
			*but = probe_name(p, schema, name);
		buf_str(&sql, i ? ", " : DESTROYS("every row that these tables of the target have") "TRUNCATE ");
		sql_qualified(&sql, schema, name);
	}
	if (!*but)
		fix = arena_strdup(&p->arena, buf_cstr(&sql));
	buf_fini(&sql);
	return fix;
}

static void read_references(struct probe *p, const PGresult *res, const struct err *e)
{
	enum { EACH_MAX = 20 }; /* of more, the statement stands with the first alone */
	const char *but = NULL, *fix = NULL;
	if (e) {
		probe_fail(p, e);
		return;
	}
	if (prepares(p, "create"))
		fix = truncate_all(p, res, &but);
	for (size_t i = 0, n = 0; i < p->nfound; i++)
		if (!is_somebodys(&p->found[i]))
			has_rows(p, &p->found[i], n++ && p->nfound > EACH_MAX ? NULL : fix, but);
}

/* ---- the verbs ---- */

static const struct probe_step check_steps[] = {
	{ .ask = probe_ask_session, .read = probe_read_session },
	{ .ask = ask_dmsr, .read = read_dmsr },
	{ .ask = ask_role, .read = read_role },
	{ .ask = ask_schemas, .read = read_schemas },
	{ .ask = ask_loading, .read = read_loading },
	{ .ask = ask_tables, .read = read_tables },
	{ .ask = ask_rows, .read = read_rows },
	{ .ask = ask_loaded, .read = read_loaded },
	{ .ask = ask_references, .read = read_references },
	{ .ask = probe_ask_ours, .read = probe_read_ours },
	{ .ask = probe_ask_table, .read = probe_read_table },
	{ .ask = probe_ask_ties, .read = probe_read_ties },
	{ .ask = probe_ask_values, .read = probe_read_values },
	{ 0 },
};

static int target_check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)e;
	struct probe *p = probe_new(s, pgtarget_options, tables, mode, host);
	p->is_target = true;
	if (host->rels)
		probe_mean_tables(p);
	probe_start(p, check_steps, probe_answer_checked);
	*out = (struct dmsr_instance *)p;
	return 0;
}

static int target_discover(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)e;
	return probe_discover(s, pgtarget_options, tables, host, out);
}

/* ---- drop ---- */

static void ask_memory(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)p;
	(void)values;
	(void)nvalues;
	buf_str(sql, "SELECT pg_catalog.to_regclass('dmsr.positions') IS NOT NULL, pg_catalog.to_regclass('dmsr.loads') IS NOT NULL,"
		" pg_catalog.set_config('default_transaction_read_only', 'off', false)"); /* as while it runs */
}

/* "UID/..." are the rows of a job's other connections, and parts. */
static void forget_sql(struct buf *out, const struct probe *p, bool loads)
{
	static const char *const keeps[] = {
		"UPDATE dmsr.positions SET position = 'none', load_done = false WHERE job_uid = ",
		"UPDATE dmsr.loads SET position = NULL, rows = " LOAD_FORGOTTEN ", shape = NULL WHERE (position IS NOT NULL OR rows < 0) AND job_uid = ",
	};
	if (p->host.anew) {
		buf_str(out, keeps[loads]);
		sql_literal(out, p->host.env.uid);
		buf_str(out, "; ");
	}
	buf_printf(out, "DELETE FROM dmsr.%s WHERE pg_catalog.split_part(job_uid, '/', 1) = ", loads ? "loads" : "positions");
	sql_literal(out, p->host.env.uid);
	if (!p->host.anew)
		return;
	buf_printf(out, " AND NOT (%sjob_uid = ", loads ? "rows = " LOAD_FORGOTTEN " AND " : "");
	sql_literal(out, p->host.env.uid);
	buf_byte(out, ')');
}

static void read_memory(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	for (int i = 0; i < 2; i++) {
		if (!probe_true(res, 0, i))
			continue;
		buf_str(&p->kept, p->kept.len ? "; " : "");
		forget_sql(&p->kept, p, i != 0);
	}
}

static void read_deleted(struct probe *p, const PGresult *res, const struct err *e)
{
	(void)res;
	if (e)
		probe_fail(p, e);
	else
		p->is_dropped = p->kept.len && !p->host.anew;
	buf_reset(&p->kept);
}

/* The schema of the last job, if a target made it: else a role that may not make schemas would miss it, or one that was given rights on it these. What
 * somebody else put there ends it all. A lock may be that of a job that begins and is about to write its row, or of somebody who looks: it is not waited for,
 * since who holds it may wait for us, but tried again. What begins behind us makes it anew (target_setup.c). */
static void ask_drop_schema(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->is_dropped)
		buf_printf(sql, "%sBEGIN ISOLATION LEVEL READ COMMITTED; DO $do$ BEGIN"
			" IF EXISTS (SELECT FROM dmsr.positions) OR EXISTS (SELECT FROM dmsr.loads) THEN RETURN; END IF;"
			" LOCK TABLE dmsr.positions, dmsr.loads IN ACCESS EXCLUSIVE MODE NOWAIT;"
			" IF pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
			" AND NOT EXISTS (SELECT FROM dmsr.positions) AND NOT EXISTS (SELECT FROM dmsr.loads)"
			" AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'dmsr' AND nspacl IS NOT NULL)"
			" AND NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = 'dmsr'::pg_catalog.regnamespace AND relacl IS NOT NULL)"
			" THEN DROP TABLE dmsr.positions, dmsr.loads; DROP SCHEMA dmsr; END IF; END $do$; COMMIT", p->tries ? "ROLLBACK; " : "");
}

/* An error: it stays, unless somebody else was first. */
static void read_schema_dropped(struct probe *p, const PGresult *res, const struct err *e)
{
	(void)res;
	if (e && !strcmp(e->id, "target.locked") && ++p->tries < DROP_TRIES)
		probe_again(p, 1, DROP_AGAIN_MS);
	else if (e && strcmp(e->id, "target.undefined") != 0)
		log_info("postgres", p->host.env.job, "the schema dmsr of %s stays: %s", pgconn_describe(p->sql), e->message);
}

static const struct probe_step drop_steps[] = {
	{ .ask = ask_memory, .read = read_memory },
	{ .ask = ask_rows, .read = read_deleted },
	{ .ask = ask_drop_schema, .read = read_schema_dropped },
	{ 0 },
};

static void answer_dropped(struct probe *p)
{
	if (err_is_set(&p->failure)) {
		for (size_t i = 0; i < 2; i++) {
			struct buf sql;
			buf_init(&sql, 1024);
			forget_sql(&sql, p, i != 0);
			probe_left(p, buf_cstr(&sql));
			buf_fini(&sql);
		}
	}
	probe_answer_dropped(p);
}

static int target_drop(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)e;
	struct probe *p = probe_new(s, pgtarget_options, NULL, 0, host);
	p->is_target = true;
	probe_start(p, drop_steps, answer_dropped);
	*out = (struct dmsr_instance *)p;
	return 0;
}

const struct dmsr_probe pgtarget_probe = {
	.check = target_check,
	.discover = target_discover,
	.drop = target_drop,
	.close = probe_close,
};
