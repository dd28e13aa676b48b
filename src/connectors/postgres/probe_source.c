/* probe_source: can this server be the source of such a job? Each finding has a stable id and, where there is one, the statement that mends it; who reads them
 * should need no manual. Nothing is changed at the server: the replication connection is opened, because only that proves that it may be. */
#include "probe_int.h"
#include "source.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESTART "; -- then restart the server"

static int64_t number(const PGresult *res, int row, int column) { return strtoll(PQgetvalue(res, row, column), NULL, 10); }
static bool follows(const struct probe *p) { return p->mode & DMSR_CDC; }
static const char *user(const struct probe *p) { return settings_str(p->settings, "user"); }

static void prefer_ours(struct probe *p)
{
	const char *publication = settings_str(p->settings, "publication"), *slot = settings_str(p->settings, "slot");
	char own[64];
	source_name(&p->host.env, own);
	snprintf(p->publication, sizeof p->publication, "%s", publication ? publication : own);
	snprintf(p->slot, sizeof p->slot, "%s", slot ? slot : own);
}

/* It ends in the uid that the job will get: what has the name without that is somebody else's. */
static bool gets_a_name(const struct probe *p, const char *option) { return !*p->host.env.uid && !settings_str(p->settings, option); }

/* ---- the server's settings ---- */

enum { F_WAL_LEVEL, F_SLOTS_MAX, F_SLOTS_USED, F_SENDERS_MAX, F_SENDERS_USED, F_KEEP, F_IDLE, F_CONNECTIONS };

static void ask_facts(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!p->mode)
		return;
	values[(*nvalues)++] = p->slot;
	buf_str(&p->text, "dmsr:");
	buf_str(&p->text, p->host.env.job);
	buf_str(&p->text, ":source");
	values[(*nvalues)++] = buf_cstr(&p->text);
	buf_str(sql, "SELECT pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('max_replication_slots'),"
		" (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> $1),"
		" pg_catalog.current_setting('max_wal_senders'),"
		" (SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE application_name IS DISTINCT FROM $2),"
		" (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),"
		" (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout'),"
		" (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user)");
}

static void check_room(struct probe *p, const char *id, const char *setting, int64_t max, int64_t used)
{
	char fix[128];
	snprintf(fix, sizeof fix, "ALTER SYSTEM SET %s = %lld" RESTART, setting, (long long)(used + 4 > 10 ? used + 4 : 10));
	if (used >= max)
		probe_found(p, DMSR_CHECK_ERROR, id, setting, fix, "all %lld that %s allows are in use", (long long)max, setting);
	else if (used + 1 == max && p->mode == DMSR_FULL_LOAD_AND_CDC)
		probe_found(p, DMSR_CHECK_WARNING, id, setting, fix, "one of %lld is free: a load that is taken up again needs a second one for a while",
			(long long)max);
	else
		probe_found(p, DMSR_CHECK_OK, id, setting, NULL, "%lld of %lld are free", (long long)(max - used), (long long)max);
}

/* In MB; -1 or nothing: no limit. */
static void check_keep(struct probe *p, const PGresult *res)
{
	int64_t mb = PQgetisnull(res, 0, F_KEEP) ? -1 : number(res, 0, F_KEEP);
	if (mb >= 0)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.max-slot-wal-keep-size", "max_slot_wal_keep_size",
			"ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()",
			"the server drops the slot when the job is more than %lld MB behind: then its tables must be loaded again", (long long)mb);
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.max-slot-wal-keep-size", "max_slot_wal_keep_size", NULL,
			"the server keeps its log without limit while the job is behind or paused: watch the room on its disk");
	if (!PQgetisnull(res, 0, F_IDLE) && number(res, 0, F_IDLE) > 0)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.idle-slot-timeout", "idle_replication_slot_timeout",
			"ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
			"the server drops the slot when the job is stopped for more than %lld s", (long long)number(res, 0, F_IDLE));
}

static void read_facts(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	int64_t limit = number(res, 0, F_CONNECTIONS);
	if (limit >= 0 && limit < 3)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.connection-limit", user(p), NULL, "the role may have %lld connections, and 3 are needed",
			(long long)limit);
	if (!follows(p))
		return;
	if (strcmp(PQgetvalue(res, 0, F_WAL_LEVEL), "logical") != 0)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.wal-level", "wal_level", "ALTER SYSTEM SET wal_level = 'logical'" RESTART,
			"wal_level is %s, and changes can only be read at logical", PQgetvalue(res, 0, F_WAL_LEVEL));
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.wal-level", "wal_level", NULL, "wal_level is logical");
	check_room(p, "postgres.slots-free", "max_replication_slots", number(res, 0, F_SLOTS_MAX), number(res, 0, F_SLOTS_USED));
	check_room(p, "postgres.senders-free", "max_wal_senders", number(res, 0, F_SENDERS_MAX), number(res, 0, F_SENDERS_USED));
	check_keep(p, res);
}

/* ---- the publication itself; how it publishes partitions decides what is a table ---- */

static void ask_publication(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	p->leaves = p->version < 130000;
	if (!follows(p) || gets_a_name(p, "publication"))
		return;
	values[(*nvalues)++] = p->publication;
	buf_str(sql, publication_sql(p->version));
}

static void read_publication(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	p->has_publication = PQntuples(res) > 0;
	if (!p->has_publication)
		return;
	p->leaves = p->leaves || *PQgetvalue(res, 0, PUB_VIA_ROOT) == 'f';
	p->hides_generated = *PQgetvalue(res, 0, PUB_GENERATED) == 'f';
	if (!strchr(PQgetvalue(res, 0, PUB_OPERATIONS), 'f'))
		return;
	struct buf fix;
	buf_init(&fix, 1024);
	publication_publish_sql(&fix, p->publication);
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.publication", p->publication, &fix,
		"publication \"%s\" does not publish all of insert, update, delete and truncate", p->publication);
}

/* Misspelt? */
static void ask_near(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (follows(p) && !p->has_publication && settings_str(p->settings, "publication"))
		buf_str(sql, publication_names_sql);
}

static void read_near(struct probe *p, const PGresult *res, const struct err *e)
{
	const char *near = e ? NULL : publication_near(p->publication, res);
	if (near)
		p->near = arena_strdup(&p->arena, near);
	if (e)
		probe_fail(p, e);
}

/* Whether the job can make it; what is not there may be misspelt. */
static void check_missing(struct probe *p, bool may_publish, bool may_create)
{
	struct buf fix;
	if (p->is_read_only) {
		buf_init(&fix, 1024);
		right_sql(&fix, RIGHT_NOT_READ_ONLY, p->settings, NULL, NULL);
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.read-only", user(p), &fix, "default_transaction_read_only is on for role %s, for this database "
			"or for the server: the job cannot make its publication", user(p));
	}
	buf_init(&fix, SIZE_MAX);
	if (p->near && !strpbrk(p->near, "\"\\"))
		buf_printf(&fix, "\"publication\": \"%s\"", p->near);
	else
		publication_create_sql(&fix, p->publication, p->rels, p->nrels, p->version);
	char *meant = p->near ? mem_printf(" (is \"%s\" meant?)", p->near) : mem_strdup("");
	if (!may_publish || !may_create)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.publication", p->publication, buf_cstr(&fix),
			"there is no publication \"%s\"%s, and role %s may not make %s: %s; let the owner make it, and name it in the option publication",
			p->publication, meant, user(p), gets_a_name(p, "publication") ? "the job's own" : "it",
			may_publish ? "it may not create in this database" : "it does not own all of the tables");
	else if (p->near)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.publication", p->publication, buf_cstr(&fix),
			"there is no publication \"%s\"%s: the job will make it", p->publication, meant);
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.publication", p->publication, NULL, "the job will make publication \"%s%s\"", p->publication,
			gets_a_name(p, "publication") ? "_ and 8 characters" : "");
	free(meant);
	buf_fini(&fix);
}

/* ---- the tables ---- */

static bool matches_any(const struct probe *p, const char *pattern)
{
	const struct dmsr_tables one = { .include = &pattern, .ninclude = 1 };
	for (size_t i = 0; i < p->nrels; i++)
		if (dmsr_table_matches(&one, p->rels[i]->schema, p->rels[i]->name))
			return true;
	return false;
}

static void check_number(struct probe *p)
{
	if (!p->nrels)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.tables", "tables", NULL, "no table matches the job's patterns; check tables.include and "
			"tables.exclude, and that they are ordinary or partitioned tables of this database");
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.tables", "tables", NULL, "%zu table%s", p->nrels, p->nrels == 1 ? " matches" : "s match");
}

static bool is_unmatched(const struct probe *p, size_t i) { return !p->leaves && !matches_any(p, p->tables.include[i]); }

static void ask_named(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	for (size_t i = 0; i < p->tables.ninclude && !sql->len; i++)
		if (is_unmatched(p, i))
			buf_str(sql, named_sql);
	for (size_t i = 0; i < p->tables.nexclude && !sql->len; i++)
		if (exclude_names_one(p->tables.exclude[i]))
			buf_str(sql, named_sql);
}

static void tell_pattern(struct probe *p, const char *pattern, char *problem)
{
	if (problem)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.tables", pattern, NULL, "%s", problem);
	free(problem);
}

static void read_named(struct probe *p, const PGresult *res, const struct err *e)
{
	for (size_t i = 0; !e && i < p->tables.ninclude; i++) {
		if (is_unmatched(p, i))
			tell_pattern(p, p->tables.include[i], pattern_problem(p->tables.include[i], &p->tables, res));
	}
	for (size_t i = 0; !e && i < p->tables.nexclude; i++)
		if (exclude_names_one(p->tables.exclude[i]))
			tell_pattern(p, p->tables.exclude[i], exclude_problem(p->tables.exclude[i], res));
	if (e)
		probe_fail(p, e);
}

struct folded {
	char *text;
	const struct relation *rel;
};

static int by_text(const void *a, const void *b) { return strcmp(((const struct folded *)a)->text, ((const struct folded *)b)->text); }

/* Where a table is named by "schema.table" (files, the API), or where case does not count, two of them would be one. */
static void check_clashes(struct probe *p)
{
	struct folded *names = mem_alloc((p->nrels + 1) * sizeof *names);
	for (size_t i = 0; i < p->nrels; i++) {
		names[i] = (struct folded){ mem_printf("%s.%s", p->rels[i]->schema, p->rels[i]->name), p->rels[i] };
		for (char *c = names[i].text; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	}
	qsort(names, p->nrels, sizeof *names, by_text);
	for (size_t i = 1; i < p->nrels; i++) {
		const struct relation *a = names[i - 1].rel, *b = names[i].rel;
		if (strcmp(names[i - 1].text, names[i].text) != 0)
			continue;
		probe_found(p, DMSR_CHECK_WARNING, "postgres.names-clash", probe_name(p, b->schema, b->name), NULL,
			"\"%s\".\"%s\" and \"%s\".\"%s\" are one name where case does not count or a name is written with a dot (files)", a->schema, a->name,
			b->schema, b->name);
	}
	for (size_t i = 0; i < p->nrels; i++)
		free(names[i].text);
	free(names);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct probe *p = arg;
	if (!probe_take_relations(p, rels, n, e))
		return;
	check_number(p);
	check_clashes(p);
	probe_next(p);
}

static void read_tables(struct probe *p)
{
	if (p->mode && p->version >= 120000)
		p->catalog = catalog_read(p->sql, &p->tables, false, p->leaves, on_catalog, p);
	else
		probe_next(p);
}

static bool about_tables(struct probe *p, struct buf *sql, const char *text, const char **values, int *nvalues)
{
	if (!p->nrels)
		return false;
	relations_oids(&p->text, p->rels, p->nrels);
	values[(*nvalues)++] = buf_cstr(&p->text);
	buf_str(sql, text);
	return true;
}

/* ---- rights ---- */

enum { R_SCHEMA, R_NAME, R_USAGE, R_SELECT, R_POLICY, R_OWNS, R_CREATE };

static void ask_rights(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	about_tables(p, sql, "SELECT n.nspname, c.relname, pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'SELECT'),"
			     " pg_catalog.row_security_active(c.oid), pg_catalog.pg_has_role(c.relowner, 'USAGE'),"
			     " pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
			     " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
			     " WHERE c.oid = ANY ($1::pg_catalog.oid[]) ORDER BY 1, 2",
		values, nvalues);
}

static void check_right(struct probe *p, const PGresult *res, int row)
{
	const char *schema = PQgetvalue(res, row, R_SCHEMA), *name = PQgetvalue(res, row, R_NAME);
	struct buf fix;
	buf_init(&fix, 4096);
	if (!probe_true(res, row, R_USAGE) || !probe_true(res, row, R_SELECT)) {
		right_sql(&fix, RIGHT_READ, p->settings, schema, name);
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.select-right", probe_name(p, schema, name), &fix, "role %s may not read %s.%s", user(p), schema,
			name);
		return;
	}
	if (probe_true(res, row, R_POLICY)) {
		right_sql(&fix, RIGHT_ALL_ROWS, p->settings, NULL, NULL);
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.row-security", probe_name(p, schema, name), &fix,
			"row security may hide rows of %s.%s from role %s", schema, name, user(p));
		return;
	}
	buf_fini(&fix);
}

static void read_rights(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	bool may_publish = true, may_create = PQntuples(res) && probe_true(res, 0, R_CREATE);
	size_t before = p->nchecks;
	for (int i = 0; i < PQntuples(res); i++) {
		check_right(p, res, i);
		may_publish = may_publish && probe_true(res, i, R_OWNS);
	}
	if (p->nchecks == before)
		probe_found(p, DMSR_CHECK_OK, "postgres.select-right", user(p), NULL, "role %s may read all of them", user(p));
	if (follows(p) && !p->has_publication)
		check_missing(p, may_publish, may_create);
}

static void ask_sequences(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (p->mode & DMSR_FULL_LOAD)
		about_tables(p, sql, catalog_mute_sequences_sql, values, nvalues);
}

static void read_sequences(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.sequence-right", PQgetvalue(res, i, MUTE_NAME), PQgetvalue(res, i, MUTE_FIX),
			"role %s may not read sequence %s: it will begin anew at a PostgreSQL target", user(p), PQgetvalue(res, i, MUTE_NAME));
	if (e)
		probe_fail(p, e);
}

/* ---- what the publication holds ---- */

static void ask_published(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!follows(p) || !p->has_publication)
		return;
	values[(*nvalues)++] = p->publication;
	buf_str(sql, publication_tables_sql(p->version));
}

static bool is_ours(const struct probe *p, const char *schema, const char *name)
{
	for (size_t i = 0; i < p->nrels; i++)
		if (!strcmp(p->rels[i]->name, name) && !strcmp(p->rels[i]->schema, schema))
			return true;
	return false;
}

static void read_published(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	bool is_partial = false;
	for (int i = 0; i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, PUBTAB_SCHEMA), *name = PQgetvalue(res, i, PUBTAB_NAME);
		if (PQgetisnull(res, i, PUBTAB_FILTER) || !is_ours(p, schema, name))
			continue;
		is_partial = true;
		probe_found(p, DMSR_CHECK_ERROR, "postgres.publication-tables", probe_name(p, schema, name), NULL,
			"publication \"%s\" has a row filter or a column list for %s.%s: use one without; the job's own filters do the same",
			p->publication, schema, name);
	}
	struct buf fix;
	buf_init(&fix, SIZE_MAX);
	struct map *set = publication_set(res);
	size_t missing = publication_add_sql(&fix, p->publication, p->rels, p->nrels, set);
	map_free(set);
	if (missing) {
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.publication-tables", p->publication, &fix,
			"publication \"%s\" lacks %zu of the job's tables", p->publication, missing);
		return;
	}
	buf_fini(&fix);
	if (!is_partial)
		probe_found(p, DMSR_CHECK_OK, "postgres.publication-tables", p->publication, NULL, "publication \"%s\" holds all of the job's tables",
			p->publication);
}

/* ---- replica identity ---- */

static void ask_identities(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (follows(p))
		about_tables(p, sql, identity_sql, values, nvalues);
}

static void read_identities(struct probe *p, const PGresult *res, const struct err *e)
{
	bool is_allowed = !strcmp(settings_str(p->settings, "keyless_tables"), "allow");
	if (e) {
		probe_fail(p, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, IDENTITY_SCHEMA), *name = PQgetvalue(res, i, IDENTITY_NAME);
		struct buf fix;
		buf_init(&fix, 4096);
		identity_fix(res, i, &fix);
		probe_found_fix(p, is_allowed ? DMSR_CHECK_WARNING : DMSR_CHECK_ERROR, "postgres.replica-identity", probe_name(p, schema, name), &fix,
			"%s.%s: %s, so once it is published %s%s", schema, name, identity_problem(res, i),
			probe_true(res, i, IDENTITY_IS_GOOD) ? "old rows will not be told right" : "the server will refuse to update or delete its rows",
			is_allowed ? "" : ": give it a replica identity, or exclude it from the job's tables, or set the source's keyless_tables to allow");
	}
	if (!PQntuples(res))
		probe_found(p, DMSR_CHECK_OK, "postgres.replica-identity", "tables", NULL, "every table tells which rows were updated and deleted");
	for (size_t i = 0; i < p->nrels; i++)
		if (p->rels[i]->key == KEY_FULL)
			probe_found(p, DMSR_CHECK_WARNING, "postgres.keyless", probe_name(p, p->rels[i]->schema, p->rels[i]->name), NULL,
				"%s.%s has no primary key: each update and delete is found by the whole row, which is slow for big tables",
				p->rels[i]->schema, p->rels[i]->name);
}

/* ---- foreign keys that lead out of the job ---- */

/* Those that catalog_ddl.c passes over. */
static void ask_foreign(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (p->mode & DMSR_FULL_LOAD)
		about_tables(p, sql, "SELECT n.nspname, t.relname, c.conname, rn.nspname || '.' || r.relname FROM pg_catalog.pg_constraint c"
			" JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
			" JOIN pg_catalog.pg_class r ON r.oid = c.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace"
			" WHERE c.contype = 'f' AND c.conrelid = ANY ($1::pg_catalog.oid[]) AND c.confrelid <> ALL ($1::pg_catalog.oid[])"
			" AND (c.conparentid = 0 OR t.relispartition AND NOT r.relispartition) ORDER BY 1, 2, 3", values, nvalues);
}

static void read_foreign(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++) {
		const char *object = probe_name(p, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
		probe_found(p, DMSR_CHECK_WARNING, "postgres.foreign-keys", object, NULL,
			"foreign key %s of %s refers to %s, which is none of the job's tables: it is not made where the job makes %s", PQgetvalue(res, i, 2),
			object, PQgetvalue(res, i, 3), object);
	}
}

/* The server refuses updates and deletes of such a table, whoever makes them. */
static void ask_generated(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (follows(p) && p->hides_generated)
		about_tables(p, sql, identity_generated_sql, values, nvalues);
}

static void set_publication(const struct probe *p, struct buf *fix, const char *option)
{
	buf_str(fix, "ALTER PUBLICATION ");
	sql_ident(fix, p->publication);
	buf_printf(fix, " SET (%s)", option);
}

static void read_generated(struct probe *p, const PGresult *res, const struct err *e)
{
	struct buf fix;
	if (e) {
		probe_fail(p, e);
		return;
	}
	if (!number(res, 0, 0))
		return;
	buf_init(&fix, 1024);
	set_publication(p, &fix, "publish_generated_columns = stored");
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.publication", p->publication, &fix,
		"publication \"%s\" leaves out generated columns, which are in the replica identity of %s of the job's tables: the server will refuse to "
		"update or delete their rows",
		p->publication, PQgetvalue(res, 0, 0));
}

/* ---- partitions that are tables of their own ---- */

static void ask_partitions(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (p->leaves)
		about_tables(p, sql, "SELECT pg_catalog.count(*), pg_catalog.min(n.nspname || '.' || c.relname) FROM pg_catalog.pg_class c"
			" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relispartition",
			values, nvalues);
}

/* In a publication that is read already the other choice would lose changes. */
static void read_partitions(struct probe *p, const PGresult *res, const struct err *e)
{
	const char *slot = p->host.note_get ? p->host.note_get(p->host.ctx, "slot") : NULL;
	bool may_choose = p->version >= 130000 && (!slot || !*slot);
	struct buf fix;
	if (e) {
		probe_fail(p, e);
		return;
	}
	if (!number(res, 0, 0))
		return;
	buf_init(&fix, 1024);
	if (may_choose)
		set_publication(p, &fix, "publish_via_partition_root = true");
	probe_found_fix(p, DMSR_CHECK_WARNING, "postgres.partitions", PQgetvalue(res, 0, 1), &fix,
		"%s of the job's tables are partitions (%s is one), and each is a table of its own, at the targets too; the partitioned table is none: %s",
		PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1),
		p->version < 130000 ? "PostgreSQL 12 publishes partitions and not their roots, as 13 can" :
				      "so the publication says (publish_via_partition_root)");
}

/* ---- tables that leave no trace in the log ---- */

enum { U_SCHEMA, U_NAME, U_ROOT_SCHEMA, U_ROOT_NAME };

static void ask_unlogged(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->mode)
		buf_str(sql, "SELECT n.nspname, c.relname, rn.nspname, r.relname FROM pg_catalog.pg_class c"
			" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
			" LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)"
			" LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace"
			" WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' ORDER BY 1, 2");
}

/* A partition is loaded with its root all the same, where it is no table of its own. */
static void check_unlogged(struct probe *p, const PGresult *res, int row)
{
	const char *schema = PQgetvalue(res, row, U_SCHEMA), *name = PQgetvalue(res, row, U_NAME);
	const char *of_schema = PQgetvalue(res, row, U_ROOT_SCHEMA), *of = PQgetvalue(res, row, U_ROOT_NAME);
	bool is_part = *of && !p->leaves;
	struct buf fix;
	if (is_part ? !follows(p) || !dmsr_table_matches(&p->tables, of_schema, of) :
		      !dmsr_table_matches(&p->tables, schema, name) && !(*of && dmsr_table_matches(&p->tables, of_schema, of)))
		return;
	buf_init(&fix, 4096);
	buf_str(&fix, "ALTER TABLE ");
	sql_qualified(&fix, schema, name);
	buf_str(&fix, " SET LOGGED");
	if (is_part)
		probe_found_fix(p, DMSR_CHECK_WARNING, "postgres.unlogged", probe_name(p, schema, name), &fix,
			"%s.%s, a partition of %s.%s, is unlogged: its changes cannot be read", schema, name, of_schema, of);
	else
		probe_found_fix(p, DMSR_CHECK_WARNING, "postgres.unlogged", probe_name(p, schema, name), &fix,
			"%s.%s is unlogged: it is left out, as its changes cannot be read", schema, name);
}

static void read_unlogged(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++)
		check_unlogged(p, res, i);
	if (e)
		probe_fail(p, e);
}

/* ---- the slot ---- */

static void ask_slot(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	struct err e = { 0 };
	if (!follows(p))
		return;
	if (gets_a_name(p, "slot"))
		probe_found(p, DMSR_CHECK_OK, "postgres.slot-exists", p->slot, NULL, "the job's slot gets a name of its own, %s_ and 8 characters", p->slot);
	else if (slot_name_check(p->slot, &e))
		probe_found(p, DMSR_CHECK_ERROR, "postgres.slot-name", p->slot, NULL, "%s", e.message);
	else
		slot_sql(sql, p->version, p->slot);
}

static void read_slot(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	if (!PQntuples(res)) {
		probe_found(p, DMSR_CHECK_OK, "postgres.slot-exists", p->slot, NULL, "the name \"%s\" is free for the job's slot", p->slot);
		return;
	}
	char *ours = mem_printf("dmsr:%s:source", p->host.env.job);
	const char *text = p->host.note_get ? p->host.note_get(p->host.ctx, "slot") : NULL;
	struct slot_note note;
	bool is_noted = !slot_note_parse(text, &note) && note.is_there && !strcmp(note.name, p->slot);
	bool is_other = strcmp(PQgetvalue(res, 0, SLOT_PLUGIN), "pgoutput") != 0 || *PQgetvalue(res, 0, SLOT_DATABASE) != 't';
	bool is_active = !PQgetisnull(res, 0, SLOT_PID), is_read_by_us = is_active && !strcmp(PQgetvalue(res, 0, SLOT_APPLICATION), ours);
	free(ours);
	struct buf fix;
	buf_init(&fix, 1024);
	buf_str(&fix, DESTROYS("the place in the log of whoever reads this slot, who cannot go on") "SELECT pg_drop_replication_slot(");
	sql_literal(&fix, p->slot);
	buf_byte(&fix, ')');
	if (is_read_by_us)
		probe_found(p, DMSR_CHECK_OK, "postgres.slot-exists", p->slot, NULL, "this job reads slot \"%s\"", p->slot);
	else if (is_noted && !is_other && !is_active && PQgetisnull(res, 0, SLOT_LOST))
		probe_found(p, DMSR_CHECK_OK, "postgres.slot-exists", p->slot, NULL, "slot \"%s\" is the job's own", p->slot);
	else if (is_other || is_active)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.slot-exists", p->slot, is_active ? NULL : buf_cstr(&fix),
			"there is a slot \"%s\" of somebody else%s: give the job another name for its own (option slot)", p->slot,
			is_active ? ", who reads it now" : "");
	else if (!PQgetisnull(res, 0, SLOT_LOST))
		probe_found(p, DMSR_CHECK_ERROR, "postgres.slot-exists", p->slot, buf_cstr(&fix), "there is a slot \"%s\", and the server has given it up (%s)",
			p->slot, PQgetvalue(res, 0, SLOT_LOST));
	else
		probe_found(p, DMSR_CHECK_ERROR, "postgres.slot-exists", p->slot, buf_cstr(&fix),
			"there is a slot \"%s\" already, which this job has not made: the job would not start", p->slot);
	buf_fini(&fix);
}

/* ---- who would keep us waiting ---- */

static void ask_waits(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	static const char ends[] = DESTROYS("what that session has not committed");
	static const char rolls_back[] = DESTROYS("all that was prepared, which COMMIT PREPARED keeps");
	if (follows(p))
		buf_printf(sql, "SELECT 'transaction of process ' || pid, '%sSELECT pg_terminate_backend(' || pid || ')', EXTRACT(epoch FROM"
			" pg_catalog.now() - xact_start)::pg_catalog.int8 FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL"
			" AND xact_start < pg_catalog.now() - interval '60 s' AND pid <> pg_catalog.pg_backend_pid()"
			" UNION ALL SELECT 'prepared transaction ' || gid, '%sROLLBACK PREPARED ' || pg_catalog.quote_literal(gid),"
			" EXTRACT(epoch FROM pg_catalog.now() - prepared)::pg_catalog.int8 FROM pg_catalog.pg_prepared_xacts ORDER BY 3 DESC LIMIT 20",
			ends, rolls_back);
}

static void read_waits(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.long-transaction", PQgetvalue(res, i, 0), PQgetvalue(res, i, 1),
			"the %s is open for %s s: the slot can be made only when it has ended", PQgetvalue(res, i, 0), PQgetvalue(res, i, 2));
	if (e)
		probe_fail(p, e);
}

/* ---- replication ---- */

static void on_repl_ready(void *ctx)
{
	struct probe *p = ctx;
	probe_found(p, DMSR_CHECK_OK, "postgres.replication-right", user(p), NULL, "a replication connection was made");
	probe_next(p);
}

/* The settings may have said so already. */
static void no_sender_is_free(struct probe *p, const struct err *e)
{
	static const char id[] = "postgres.senders-free";
	size_t i = 0;
	while (i < p->nchecks && (strcmp(p->checks[i].id, id) != 0 || p->checks[i].level != DMSR_CHECK_ERROR))
		i++;
	if (i == p->nchecks)
		probe_found(p, DMSR_CHECK_ERROR, id, "max_wal_senders", NULL, "no replication connection is free: %s", e->message);
	p->checks[i].retriable = e->retriable;
}

static void on_repl_failed(void *ctx, const struct err *e)
{
	struct probe *p = ctx;
	struct buf fix;
	pgconn_free(p->repl);
	p->repl = NULL;
	if (!strcmp(e->id, "source.busy") || !strcmp(e->id, "source.limit")) {
		no_sender_is_free(p, e);
		probe_next(p);
		return;
	}
	bool is_right = !strcmp(e->id, "source.privilege");
	buf_init(&fix, 1024);
	if (is_right)
		right_sql(&fix, RIGHT_REPLICATION, p->settings, NULL, NULL);
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.replication-right", user(p), &fix, "role %s cannot make a replication connection: %s", user(p),
		e->message);
	p->checks[p->nchecks - 1].retriable = e->retriable;
	probe_next(p);
}

static void try_replication(struct probe *p)
{
	const struct pgconn_owner o = { .ctx = p, .on_ready = on_repl_ready, .on_failed = on_repl_failed };
	if (follows(p))
		p->repl = pgconn_new(&p->host.env, p->settings, PGCONN_REPLICATION, &o);
	else
		probe_next(p);
}

/* ---- the verbs ---- */

static const struct probe_step steps[] = {
	{ .ask = probe_ask_session, .read = probe_read_session },
	{ .ask = ask_facts, .read = read_facts },
	{ .start = try_replication },
	{ .ask = ask_publication, .read = read_publication },
	{ .ask = ask_near, .read = read_near },
	{ .start = read_tables },
	{ .ask = ask_named, .read = read_named },
	{ .ask = ask_rights, .read = read_rights },
	{ .ask = ask_sequences, .read = read_sequences },
	{ .ask = ask_published, .read = read_published },
	{ .ask = ask_identities, .read = read_identities },
	{ .ask = ask_generated, .read = read_generated },
	{ .ask = ask_foreign, .read = read_foreign },
	{ .ask = ask_partitions, .read = read_partitions },
	{ .ask = ask_unlogged, .read = read_unlogged },
	{ .ask = ask_slot, .read = read_slot },
	{ .ask = ask_waits, .read = read_waits },
	{ 0 },
};

static int source_check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)e;
	struct probe *p = probe_new(s, pgsource_options, tables, mode, host);
	prefer_ours(p);
	probe_start(p, steps, probe_answer_checked);
	*out = (struct dmsr_instance *)p;
	return 0;
}

static int source_discover(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)e;
	return probe_discover(s, pgsource_options, tables, host, out);
}

const struct dmsr_probe pgsource_probe = {
	.check = source_check,
	.discover = source_discover,
	.drop = pgsource_drop,
	.look = pgsource_look,
	.close = probe_close,
};
