/* catalog: what tables there are, and of what shape. In: patterns, a connection. Out: relations, through done.
 *
 * First one question gives all tables; then, for a group of the tables that match, each question is asked once for the whole group (steps below). The
 * groups bound the time that one answer takes to read. The session's search_path is empty, so the server qualifies every name but its own. */
#include "catalog_int.h"
#include <assert.h>
#include <stdlib.h>

enum { GROUP = 100, SQL_MAX = 1 << 20 };

/* ---- small things ------------------------------------------------------------------------------------------------ */
const char *catalog_cell(const PGresult *res, int row, int column)
{
	return PQgetisnull(res, row, column) ? NULL : PQgetvalue(res, row, column);
}

uint32_t catalog_oid(const PGresult *res, int row, int column)
{
	return (uint32_t)strtoul(PQgetvalue(res, row, column), NULL, 10);
}

bool catalog_true(const PGresult *res, int row, int column)
{
	return *PQgetvalue(res, row, column) == 't';
}

struct catalog_table *catalog_table(const struct catalog *k, const PGresult *res, int row, int column)
{
	return map_get_u32(k->by_id, catalog_oid(res, row, column));
}

char *catalog_name(const char *a, const char *b, const char *c)
{
	return mem_printf("%s.%s%s%s", a, b, c ? "." : "", c ? c : "");
}

void catalog_tell_schema(const struct catalog *k, struct catalog_table *t, const char *schema)
{
	struct buf sql;

	if (!k->with_ddl || !strcmp(schema, "pg_catalog"))
		return;
	for (unsigned i = 0; i < t->nschemas; i++)
		if (!strcmp(t->schemas[i], schema))
			return;
	if (t->nschemas < sizeof t->schemas / sizeof *t->schemas)
		t->schemas[t->nschemas++] = mem_strdup(schema);
	buf_init(&sql, SQL_MAX);
	buf_str(&sql, "CREATE SCHEMA IF NOT EXISTS ");
	sql_ident(&sql, schema);
	relation_build_ddl(t->b, DDL_BEFORE_TABLE, "schema", schema, buf_cstr(&sql));
	buf_fini(&sql);
}

/* ---- which tables ------------------------------------------------------------------------------------------------ */
void catalog_tables_sql(struct buf *out, const struct dmsr_tables *patterns, bool leaves)
{
	buf_str(out, "SELECT c.oid, n.nspname, c.relname, c.relreplident, rn.nspname, r.relname FROM pg_class c"
		" JOIN pg_namespace n ON n.oid = c.relnamespace"
		" LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid)"
		" LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace"
		" WHERE c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND ");
	buf_str(out, leaves ? "c.relkind = 'r'" : "c.relkind IN ('r', 'p') AND NOT c.relispartition");
	if (!patterns->ninclude)
		buf_str(out, " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')");
	buf_str(out, " ORDER BY n.nspname, c.relname");
}

bool catalog_is_meant(const struct dmsr_tables *patterns, const PGresult *res, int row)
{
	const char *root = catalog_cell(res, row, TABLE_ROOT_NAME);
	return (root && dmsr_table_matches(patterns, PQgetvalue(res, row, TABLE_ROOT_SCHEMA), root)) ||
		dmsr_table_matches(patterns, PQgetvalue(res, row, TABLE_SCHEMA), PQgetvalue(res, row, TABLE_NAME));
}

static void add_table(struct catalog *k, const PGresult *res, int row)
{
	struct catalog_table *t = &k->tables[k->ntables++];
	struct buf sql;

	t->id = catalog_oid(res, row, TABLE_OID);
	t->schema = mem_strdup(PQgetvalue(res, row, TABLE_SCHEMA));
	t->name = mem_strdup(PQgetvalue(res, row, TABLE_NAME));
	t->identity = *PQgetvalue(res, row, TABLE_IDENTITY);
	buf_init(&sql, SQL_MAX);
	sql_qualified(&sql, t->schema, t->name);
	t->sql = mem_strdup(buf_cstr(&sql));
	buf_fini(&sql);
	map_put_u32(k->by_id, t->id, t);
}

static void tables_read(struct catalog *k, const PGresult *res)
{
	int n = PQntuples(res);

	k->tables = mem_zalloc(((size_t)n + 1) * sizeof *k->tables);
	for (int i = 0; i < n; i++)
		if (catalog_is_meant(k->patterns, res, i) && (!k->only || map_get_u32(*k->only, catalog_oid(res, i, TABLE_OID))))
			add_table(k, res, i);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */
enum { Z_OID, Z_BYTES, Z_ROWS };

/* Rows: those counted by the last ANALYZE or VACUUM, stretched to the size of today, as the planner does. */
static void sizes_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT c.oid, sum(pg_table_size(l.oid))::int8, CASE WHEN bool_and(s.rows IS NOT NULL) THEN sum(s.rows)::int8 END"
		" FROM pg_class c CROSS JOIN LATERAL (SELECT c.oid AS oid WHERE c.relkind <> 'p'"
		" UNION ALL SELECT p.relid::oid FROM pg_partition_tree(c.oid) p WHERE c.relkind = 'p' AND p.isleaf) x"
		" JOIN pg_class l ON l.oid = x.oid CROSS JOIN LATERAL (SELECT CASE"
		" WHEN l.reltuples > 0 AND l.relpages > 0"
		" THEN l.reltuples::float8 * pg_relation_size(l.oid) / (l.relpages::float8 * current_setting('block_size')::float8)"
		" WHEN pg_relation_size(l.oid) = 0 THEN 0 END AS rows) s"
		" WHERE c.oid = ANY($1::oid[]) GROUP BY c.oid");
}

static void sizes_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, Z_OID);
		const char *bytes = catalog_cell(res, i, Z_BYTES), *rows = catalog_cell(res, i, Z_ROWS);
		if (t)
			relation_build_estimate(t->b, rows ? strtoll(rows, NULL, 10) : -1, bytes ? strtoll(bytes, NULL, 10) : -1);
	}
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */
enum { C_TABLE, C_NAME, C_TYPE, C_TYPMOD, C_NATIVE, C_NOT_NULL, C_IDENTITY, C_GENERATED, C_DEFAULT, C_COLLATION, C_KEY_POS, C_NUMBER, C_MISSING };

/* What older rows have (attmissingval) is an array of one element; partitions have it, their root has not. */
#define MISSING "(SELECT CASE t.typdelim WHEN ',' THEN (m.attmissingval::text::text[])[1] ELSE btrim(m.attmissingval::text, '{}') END" \
	" FROM pg_attribute m WHERE m.attname = a.attname AND m.atthasmissing" \
	" AND m.attrelid IN (SELECT a.attrelid UNION SELECT p.relid FROM pg_partition_tree(a.attrelid) p) ORDER BY m.attrelid LIMIT 1)"

/* The key is what the server uses to send old rows: see key_kind_of in pgoutput_relation.c, which comes to the same from the wire. A not-null
 * constraint that was not validated (18) does not mean that there are no nulls. */
static void columns_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),"
		" a.attnotnull AND NOT EXISTS (SELECT 1 FROM pg_constraint z WHERE z.conrelid = a.attrelid AND z.contype = 'n'"
		" AND z.conkey = ARRAY[a.attnum] AND NOT z.convalidated),"
		" a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), quote_ident(con.nspname) || '.' || quote_ident(co.collname), key.pos,"
		" a.attnum, CASE WHEN a.atthasmissing OR r.relkind = 'p' THEN " MISSING " END"
		" FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid"
		" LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
		" LEFT JOIN pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation"
		" LEFT JOIN pg_namespace con ON con.oid = co.collnamespace"
		" LEFT JOIN (SELECT i.indrelid, x.attnum, x.pos FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
		" CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY x(attnum, pos)"
		" WHERE i.indrelid = ANY($1::oid[]) AND x.pos <= i.indnkeyatts AND i.indisvalid AND CASE c.relreplident"
		" WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE i.indisprimary END) key"
		" ON key.indrelid = a.attrelid AND key.attnum = a.attnum"
		" WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum");
}

static void tell_default(const struct catalog_table *t, const struct column *c)
{
	struct buf sql;
	char *name = catalog_name(t->schema, t->name, c->name);

	buf_init(&sql, SQL_MAX);
	buf_printf(&sql, "ALTER TABLE %s ALTER COLUMN ", t->sql);
	sql_ident(&sql, c->name);
	buf_str(&sql, " SET DEFAULT ");
	buf_str(&sql, c->dflt);
	relation_build_ddl(t->b, DDL_AFTER_LOAD, "default", name, buf_cstr(&sql));
	buf_fini(&sql);
	free(name);
}

static uint8_t column_flags(const PGresult *res, int row)
{
	char identity = *PQgetvalue(res, row, C_IDENTITY);
	int flags = catalog_true(res, row, C_NOT_NULL) ? 0 : COLUMN_NULLABLE;

	if (*PQgetvalue(res, row, C_GENERATED))
		flags |= COLUMN_GENERATED;
	if (identity)
		flags |= identity == 'a' ? COLUMN_IDENTITY_ALWAYS : COLUMN_IDENTITY_DEFAULT;
	return (uint8_t)flags;
}

static void columns_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, C_TABLE);
		const char *pos = catalog_cell(res, i, C_KEY_POS);
		if (!t)
			continue;
		struct column c = {
			.name = PQgetvalue(res, i, C_NAME),
			.native_type = catalog_cell(res, i, C_NATIVE),
			.dflt = catalog_cell(res, i, C_DEFAULT),
			.collation = catalog_cell(res, i, C_COLLATION),
			.missing = catalog_cell(res, i, C_MISSING),
			.source_id = (uint16_t)strtoul(PQgetvalue(res, i, C_NUMBER), NULL, 10),
			.type_id = catalog_oid(res, i, C_TYPE),
			.typmod = (int32_t)strtol(PQgetvalue(res, i, C_TYPMOD), NULL, 10),
			.flags = column_flags(res, i),
			.key_pos = (uint16_t)(pos ? strtoul(pos, NULL, 10) : 0),
		};
		t->has_key |= c.key_pos != 0;
		catalog_type_meaning(k, c.type_id, &c);
		relation_build_column(t->b, &c);
		if (!k->with_ddl)
			continue;
		catalog_tell_type(k, t, c.type_id);
		if (c.dflt && !(c.flags & COLUMN_GENERATED))
			tell_default(t, &c);
	}
}

/* ---- one question after another ---------------------------------------------------------------------------------- */
static const struct step {
	void (*sql)(const struct catalog *k, struct buf *out);
	void (*read)(struct catalog *k, const PGresult *res);
	bool is_ddl;
} steps[] = {
	{ sizes_sql, sizes_read, false },
	{ catalog_extensions_sql, catalog_extensions_read, true },
	{ catalog_collations_sql, catalog_collations_read, true },
	{ catalog_types_sql, catalog_types_read, false },
	{ columns_sql, columns_read, false },
	{ catalog_constraints_sql, catalog_constraints_read, true },
	{ catalog_indexes_sql, catalog_indexes_read, true },
	{ catalog_sequences_sql, catalog_sequences_read, true },
	{ catalog_values_sql, catalog_values_read, true },
	{ catalog_comments_sql, catalog_comments_read, true },
};
enum { STEPS = sizeof steps / sizeof *steps };

static void ask(struct catalog *k);

static void catalog_free(struct catalog *k)
{
	for (size_t i = 0; i < k->ntables; i++) {
		struct catalog_table *t = &k->tables[i];
		free(t->schema);
		free(t->name);
		free(t->sql);
		for (unsigned s = 0; s < t->nschemas; s++)
			free(t->schemas[s]);
		relation_build_free(t->b);
		relation_unref(t->rel);
	}
	free(k->tables);
	map_free(k->by_id);
	catalog_types_free(k);
	catalog_sequences_free(k);
	free(k);
}

void catalog_refers_to(struct catalog *k, struct map *const *others) { k->others = others; }

void catalog_only(struct catalog *k, struct map *const *these) { k->only = these; }

void catalog_cancel(struct catalog *k)
{
	if (k)
		catalog_free(k);
}

static void finish(struct catalog *k, const struct err *e)
{
	void (*done)(void *arg, struct relation **rels, size_t n, const struct err *e) = k->done;
	void *arg = k->arg;
	size_t n = e ? 0 : k->ntables;
	struct relation **rels = e ? NULL : mem_alloc((n + 1) * sizeof *rels);

	for (size_t i = 0; i < n; i++) {
		rels[i] = k->tables[i].rel;
		k->tables[i].rel = NULL;
	}
	catalog_free(k);
	done(arg, rels, n, e);
}

static void begin_group(struct catalog *k)
{
	k->step = 0;
	k->last = k->ntables - k->first < GROUP ? k->ntables : k->first + GROUP;
	for (size_t i = k->first; i < k->last; i++) {
		struct catalog_table *t = &k->tables[i];
		t->b = relation_build("postgres", t->schema, t->name, t->id);
		catalog_tell_schema(k, t, t->schema);
	}
}

static void end_group(struct catalog *k)
{
	for (; k->first < k->last; k->first++) {
		struct catalog_table *t = &k->tables[k->first];
		enum key_kind key = t->has_key ? KEY_PRIMARY : KEY_NONE;
		if (t->has_key && t->identity == 'i')
			key = KEY_UNIQUE;
		else if (!t->has_key && t->identity == 'f')
			key = KEY_FULL;
		t->rel = relation_seal(t->b, key);
		t->b = NULL;
	}
}

/* A table may go while it is asked about, between two questions or inside of one: another reading does not find it any more. */
static void fail(struct catalog *k, const struct err *why)
{
	static const char *const gone[] = { "42P01", "3F000", "XX000" };
	struct err e = *why;
	for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
		e.retriable |= !strcmp(pgconn_sqlstate(k->conn), gone[i]);
	finish(k, &e);
}

static void on_step(void *arg, const PGresult *res, const struct err *e)
{
	struct catalog *k = arg;

	if (!res) {
		fail(k, e);
		return;
	}
	steps[k->step++].read(k, res);
	ask(k);
}

/* Puts the next question, or ends. */
static void ask(struct catalog *k)
{
	struct buf sql, ids;

	buf_init(&sql, SIZE_MAX);
	while (!sql.len) {
		if (k->step == STEPS)
			end_group(k);
		if (k->first == k->ntables) {
			buf_fini(&sql);
			finish(k, NULL);
			return;
		}
		if (k->first == k->last || k->step == STEPS)
			begin_group(k);
		if (!steps[k->step].is_ddl || k->with_ddl)
			steps[k->step].sql(k, &sql);
		if (!sql.len)
			k->step++;
	}
	buf_init(&ids, SQL_MAX);
	for (size_t i = k->first; i < k->last; i++)
		buf_printf(&ids, "%c%u", i == k->first ? '{' : ',', k->tables[i].id);
	buf_byte(&ids, '}');
	const char *value = buf_cstr(&ids);
	pgconn_query_params(k->conn, buf_cstr(&sql), 1, &value, on_step, k);
	buf_fini(&ids);
	buf_fini(&sql);
}

static void on_tables(void *arg, const PGresult *res, const struct err *e)
{
	struct catalog *k = arg;

	if (!res) {
		fail(k, e);
		return;
	}
	tables_read(k, res);
	ask(k);
}

struct catalog *catalog_read(struct pgconn *c, const struct dmsr_tables *tables, bool with_ddl, bool leaves,
	void (*done)(void *arg, struct relation **rels, size_t n, const struct err *e), void *arg)
{
	struct catalog *k = mem_zalloc(sizeof *k);
	struct buf sql;

	*k = (struct catalog){ .conn = c, .patterns = tables, .with_ddl = with_ddl, .leaves = leaves, .done = done, .arg = arg };
	k->by_id = map_new();
	k->types = map_new();
	buf_init(&k->values_sql, SIZE_MAX);
	buf_init(&sql, SQL_MAX);
	catalog_tables_sql(&sql, tables, leaves);
	pgconn_query(c, buf_cstr(&sql), on_tables, k);
	buf_fini(&sql);
	return k;
}
