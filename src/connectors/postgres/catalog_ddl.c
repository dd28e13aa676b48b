/* catalog_ddl: what a table has beside columns and types. In: answers about extensions, collations, constraints, indexes, sequences, comments. Out:
 * statements, put to the relation that they belong to. Definitions are the server's own (pg_get_constraintdef, pg_get_indexdef), names in what we add are
 * quoted by sql.c. */
#include "catalog_int.h"
#include <stdlib.h>

enum { SQL_MAX = 16 << 20 };

struct catalog_sequence {
	struct catalog_table *table;
	char *name;
	char *set;                      /* what setval takes as its first argument */
};

/* ---- extensions -------------------------------------------------------------------------------------------------- */
void catalog_tell_extension(const struct catalog *k, struct catalog_table *t, const char *extension, const char *schema)
{
	struct buf sql;

	catalog_tell_schema(k, t, schema);
	buf_init(&sql, SQL_MAX);
	buf_str(&sql, "CREATE EXTENSION IF NOT EXISTS ");
	sql_ident(&sql, extension);
	buf_str(&sql, " WITH SCHEMA ");
	sql_ident(&sql, schema);
	buf_str(&sql, " CASCADE");
	relation_build_ddl(t->b, DDL_BEFORE_TABLE, "extension", extension, buf_cstr(&sql));
	buf_fini(&sql);
}

/* What indexes, defaults and constraints use: operator classes, functions. Column types come with the types. */
void catalog_extensions_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT DISTINCT x.rel, e.extname, n.nspname FROM ("
		"SELECT i.indrelid AS rel, d.refclassid, d.refobjid FROM pg_index i"
		" JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid"
		" WHERE i.indrelid = ANY($1::oid[])"
		" UNION ALL SELECT a.adrelid, d.refclassid, d.refobjid FROM pg_attrdef a"
		" JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid"
		" WHERE a.adrelid = ANY($1::oid[])"
		" UNION ALL SELECT c.conrelid, d.refclassid, d.refobjid FROM pg_constraint c JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass"
		" AND d.objid = c.oid WHERE c.conrelid = ANY($1::oid[])) x"
		" JOIN pg_depend m ON m.classid = x.refclassid AND m.objid = x.refobjid AND m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'"
		" JOIN pg_extension e ON e.oid = m.refobjid JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1, 2");
}

void catalog_extensions_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, 0);
		if (t)
			catalog_tell_extension(k, t, PQgetvalue(res, i, 1), PQgetvalue(res, i, 2));
	}
}

/* ---- collations -------------------------------------------------------------------------------------------------- */
enum { O_TABLE, O_SCHEMA, O_NAME, O_DEFINITION };

/* Those that somebody made, of columns, indexes, defaults and constraints. */
void catalog_collations_sql(const struct catalog *k, struct buf *out)
{
	int version = pgconn_server_version(k->conn);
	const char *locale = version >= 170000 ? "co.colllocale" : version >= 150000 ? "co.colliculocale" : "co.collcollate";
	buf_str(out, "SELECT DISTINCT x.rel, n.nspname, co.collname, CASE WHEN co.collprovider = 'c'"
		" THEN format('PROVIDER = libc, LC_COLLATE = %L, LC_CTYPE = %L', co.collcollate, co.collctype) ELSE format('PROVIDER = %s, LOCALE = %L',"
		" CASE co.collprovider WHEN 'i' THEN 'icu' ELSE 'builtin' END, ");
	buf_printf(out, "%s)%s END || CASE WHEN co.collisdeterministic THEN '' ELSE ', DETERMINISTIC = false' END", locale,
		version >= 160000 ? " || COALESCE(', RULES = ' || quote_literal(co.collicurules), '')" : "");
	buf_str(out, " FROM (SELECT a.attrelid AS rel, a.attcollation AS coll FROM pg_attribute a WHERE a.attrelid = ANY($1::oid[]) AND NOT a.attisdropped"
		" UNION SELECT i.indrelid, d.refobjid FROM pg_index i JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid"
		" AND d.refclassid = 'pg_collation'::regclass WHERE i.indrelid = ANY($1::oid[])"
		" UNION SELECT a.adrelid, d.refobjid FROM pg_attrdef a JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid"
		" AND d.refclassid = 'pg_collation'::regclass WHERE a.adrelid = ANY($1::oid[])"
		" UNION SELECT c.conrelid, d.refobjid FROM pg_constraint c JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid"
		" AND d.refclassid = 'pg_collation'::regclass WHERE c.conrelid = ANY($1::oid[])) x"
		" JOIN pg_collation co ON co.oid = x.coll JOIN pg_namespace n ON n.oid = co.collnamespace"
		" WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3");
}

void catalog_collations_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, O_TABLE);
		const char *schema = PQgetvalue(res, i, O_SCHEMA);
		struct buf sql;
		if (!t)
			continue;
		catalog_tell_schema(k, t, schema);
		char *name = catalog_name(schema, PQgetvalue(res, i, O_NAME), NULL);
		buf_init(&sql, SQL_MAX);
		buf_str(&sql, "CREATE COLLATION IF NOT EXISTS ");
		sql_qualified(&sql, schema, PQgetvalue(res, i, O_NAME));
		buf_printf(&sql, " (%s)", PQgetvalue(res, i, O_DEFINITION));
		relation_build_ddl(t->b, DDL_BEFORE_TABLE, "collation", name, buf_cstr(&sql));
		buf_fini(&sql);
		free(name);
	}
}

/* ---- constraints and indexes ------------------------------------------------------------------------------------- */
enum { K_TABLE, K_TYPE, K_NAME, K_DEFINITION, K_REFERENCED };

/* A partition's own row of a foreign key counts if it is the partition's side (leaves); the rows that the server keeps for each partition of the
 * table that is referred to do not. */
void catalog_constraints_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT c.conrelid, c.contype, c.conname, pg_get_constraintdef(c.oid), c.confrelid FROM pg_constraint c"
		" JOIN pg_class t ON t.oid = c.conrelid WHERE c.conrelid = ANY($1::oid[]) AND (c.contype IN ('p', 'u', 'x', 'c')"
		" OR c.contype = 'f' AND (c.conparentid = 0 OR t.relispartition AND NOT (SELECT r.relispartition FROM pg_class r WHERE r.oid = c.confrelid)))"
		" ORDER BY c.conrelid, position(c.contype::text IN 'puxcf'), c.conname");
}

static const char *constraint_kind(char type)
{
	switch (type) {
	case 'p':
		return "primary-key";
	case 'u':
		return "unique";
	case 'x':
		return "exclude";
	case 'c':
		return "check";
	default:
		return "foreign-key";
	}
}

void catalog_constraints_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, K_TABLE);
		char type = *PQgetvalue(res, i, K_TYPE);
		struct buf sql;
		uint32_t referenced = catalog_oid(res, i, K_REFERENCED);
		bool is_known = catalog_table(k, res, i, K_REFERENCED) || (k->others && *k->others && map_get_u32(*k->others, referenced));
		if (!t || (type == 'f' && !is_known))
			continue;
		char *name = catalog_name(t->schema, t->name, PQgetvalue(res, i, K_NAME));
		buf_init(&sql, SQL_MAX);
		buf_printf(&sql, "ALTER TABLE %s ADD CONSTRAINT ", t->sql);
		sql_ident(&sql, PQgetvalue(res, i, K_NAME));
		buf_byte(&sql, ' ');
		buf_str(&sql, PQgetvalue(res, i, K_DEFINITION));
		relation_build_ddl(t->b, type == 'f' ? DDL_AFTER_ALL : DDL_AFTER_LOAD, constraint_kind(type), name, buf_cstr(&sql));
		buf_fini(&sql);
		free(name);
	}
}

void catalog_indexes_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT i.indrelid, n.nspname, c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
		" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.indrelid = ANY($1::oid[]) AND i.indisvalid AND i.indislive"
		" AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))"
		" ORDER BY i.indrelid, c.relname");
}

void catalog_indexes_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, 0);
		if (!t)
			continue;
		char *name = catalog_name(PQgetvalue(res, i, 1), PQgetvalue(res, i, 2), NULL);
		relation_build_ddl(t->b, DDL_AFTER_LOAD, "index", name, PQgetvalue(res, i, 3));
		free(name);
	}
}

/* ---- sequences --------------------------------------------------------------------------------------------------- */
enum { S_TABLE, S_COLUMN, S_IDENTITY, S_SCHEMA, S_NAME, S_OPTIONS, S_TYPE, S_IS_OWNED, S_IS_READABLE };

/* Those that a default uses, and those inside of an identity column. */
#define SEQUENCES " FROM (SELECT f.adrelid AS rel, f.adnum::int4 AS col, d.refobjid AS seq FROM pg_attrdef f" \
	" JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass" \
	" AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = ANY($1::oid[])" \
	" UNION SELECT d.refobjid, d.refobjsubid, d.objid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass" \
	" AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1::oid[]) AND d.refobjsubid > 0 AND d.deptype = 'i') x" \
	" JOIN pg_class s ON s.oid = x.seq AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace"
#define IS_READABLE "has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(s.oid, 'SELECT')"

const char catalog_mute_sequences_sql[] =
	"SELECT DISTINCT format('%s.%s', n.nspname, s.relname), CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN ''"
	" ELSE format('GRANT USAGE ON SCHEMA %I TO %I; ', n.nspname, current_user) END"
	" || format('GRANT SELECT ON SEQUENCE %I.%I TO %I', n.nspname, s.relname, current_user)" SEQUENCES " WHERE NOT (" IS_READABLE ") ORDER BY 1";

void catalog_sequences_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT x.rel, a.attname, a.attidentity, n.nspname, s.relname,"
		" format('INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s', q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache,"
		" CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END), format_type(q.seqtypid, -1),"
		" EXISTS (SELECT 1 FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid AND o.refclassid = 'pg_class'::regclass"
		" AND o.refobjid = x.rel AND o.refobjsubid = x.col AND o.deptype = 'a'), " IS_READABLE SEQUENCES " JOIN pg_sequence q ON q.seqrelid = s.oid"
		" JOIN pg_attribute a ON a.attrelid = x.rel AND a.attnum = x.col ORDER BY x.rel, x.col, s.oid");
}

static void tell_identity(struct catalog_table *t, const PGresult *res, int row)
{
	const char *column = PQgetvalue(res, row, S_COLUMN);
	char *name = catalog_name(t->schema, t->name, column);
	struct buf sql;

	buf_init(&sql, SQL_MAX);
	buf_printf(&sql, "ALTER TABLE %s ALTER COLUMN ", t->sql);
	sql_ident(&sql, column);
	buf_printf(&sql, " ADD GENERATED %s AS IDENTITY (SEQUENCE NAME ", *PQgetvalue(res, row, S_IDENTITY) == 'a' ? "ALWAYS" : "BY DEFAULT");
	sql_qualified(&sql, PQgetvalue(res, row, S_SCHEMA), PQgetvalue(res, row, S_NAME));
	buf_printf(&sql, " %s)", PQgetvalue(res, row, S_OPTIONS));
	relation_build_ddl(t->b, DDL_AFTER_LOAD, "identity", name, buf_cstr(&sql));
	buf_fini(&sql);
	free(name);
}

static void tell_sequence(const struct catalog *k, struct catalog_table *t, const PGresult *res, int row, const char *name)
{
	struct buf sql;
	char *schema = PQgetvalue(res, row, S_SCHEMA);

	if (strcmp(schema, t->schema) != 0)
		catalog_tell_schema(k, t, schema);
	buf_init(&sql, SQL_MAX);
	buf_str(&sql, "CREATE SEQUENCE IF NOT EXISTS ");
	sql_qualified(&sql, schema, PQgetvalue(res, row, S_NAME));
	buf_printf(&sql, " AS %s %s", PQgetvalue(res, row, S_TYPE), PQgetvalue(res, row, S_OPTIONS));
	relation_build_ddl(t->b, DDL_BEFORE_TABLE, "sequence", name, buf_cstr(&sql));
	if (catalog_true(res, row, S_IS_OWNED)) {
		buf_reset(&sql);
		buf_str(&sql, "ALTER SEQUENCE ");
		sql_qualified(&sql, schema, PQgetvalue(res, row, S_NAME));
		buf_printf(&sql, " OWNED BY %s.", t->sql);
		sql_ident(&sql, PQgetvalue(res, row, S_COLUMN));
		relation_build_ddl(t->b, DDL_AFTER_LOAD, "sequence-owner", name, buf_cstr(&sql));
	}
	buf_fini(&sql);
}

/* The sequence of an identity column is asked for by its column: at the target it may have another name. */
static char *setval_argument(const struct catalog_table *t, const PGresult *res, int row)
{
	struct buf sql, name;

	buf_init(&sql, SQL_MAX);
	buf_init(&name, SQL_MAX);
	if (*PQgetvalue(res, row, S_IDENTITY)) {
		buf_str(&sql, "pg_catalog.pg_get_serial_sequence(");
		sql_literal(&sql, t->sql);
		buf_str(&sql, ", ");
		sql_literal(&sql, PQgetvalue(res, row, S_COLUMN));
		buf_byte(&sql, ')');
	} else {
		sql_qualified(&name, PQgetvalue(res, row, S_SCHEMA), PQgetvalue(res, row, S_NAME));
		sql_literal(&sql, buf_cstr(&name));
	}
	char *text = mem_strdup(buf_cstr(&sql));
	buf_fini(&name);
	buf_fini(&sql);
	return text;
}

static void ask_value(struct catalog *k, const PGresult *res, int row)
{
	buf_printf(&k->values_sql, "%s SELECT %zu, last_value, is_called FROM ", k->values_sql.len ? " UNION ALL" : "", k->nsequences);
	sql_qualified(&k->values_sql, PQgetvalue(res, row, S_SCHEMA), PQgetvalue(res, row, S_NAME));
}

void catalog_sequences_read(struct catalog *k, const PGresult *res)
{
	catalog_sequences_free(k);
	k->sequences = mem_zalloc(((size_t)PQntuples(res) + 1) * sizeof *k->sequences);
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, S_TABLE);
		if (!t)
			continue;
		char *name = catalog_name(PQgetvalue(res, i, S_SCHEMA), PQgetvalue(res, i, S_NAME), NULL);
		if (*PQgetvalue(res, i, S_IDENTITY))
			tell_identity(t, res, i);
		else
			tell_sequence(k, t, res, i, name);
		if (!catalog_true(res, i, S_IS_READABLE)) {
			free(name);
			continue;
		}
		ask_value(k, res, i);
		k->sequences[k->nsequences++] = (struct catalog_sequence){ t, name, setval_argument(t, res, i) };
	}
}

void catalog_values_sql(const struct catalog *k, struct buf *out)
{
	if (!k->values_sql.len)
		return;
	buf_append(out, k->values_sql.data, k->values_sql.len);
	/* every question has the parameter */
	buf_str(out, " UNION ALL SELECT NULL, NULL, NULL WHERE $1::oid[] IS NULL");
}

void catalog_values_read(struct catalog *k, const PGresult *res)
{
	struct buf sql;

	buf_init(&sql, SQL_MAX);
	for (int i = 0; i < PQntuples(res); i++) {
		size_t n = catalog_oid(res, i, 0);
		if (n >= k->nsequences)
			continue;
		const struct catalog_sequence *s = &k->sequences[n];
		buf_reset(&sql);
		buf_printf(&sql, "SELECT pg_catalog.setval(%s, %s, %s)", s->set, PQgetvalue(res, i, 1), catalog_true(res, i, 2) ? "true" : "false");
		relation_build_ddl(s->table->b, DDL_AFTER_LOAD, "setval", s->name, buf_cstr(&sql));
	}
	buf_fini(&sql);
}

void catalog_sequences_free(struct catalog *k)
{
	for (size_t i = 0; i < k->nsequences; i++) {
		free(k->sequences[i].name);
		free(k->sequences[i].set);
	}
	free(k->sequences);
	k->sequences = NULL;
	k->nsequences = 0;
	buf_fini(&k->values_sql);
	buf_init(&k->values_sql, SIZE_MAX);
}

/* ---- comments ---------------------------------------------------------------------------------------------------- */
void catalog_comments_sql(const struct catalog *k, struct buf *out)
{
	(void)k;
	buf_str(out, "SELECT d.objoid, a.attname, d.description FROM pg_description d"
		" LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid"
		" AND d.objsubid <> 0 WHERE d.classoid = 'pg_class'::regclass AND d.objoid = ANY($1::oid[]) AND (d.objsubid = 0 OR NOT a.attisdropped)"
		" ORDER BY d.objoid, d.objsubid");
}

void catalog_comments_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		struct catalog_table *t = catalog_table(k, res, i, 0);
		const char *column = catalog_cell(res, i, 1);
		struct buf sql;
		if (!t)
			continue;
		char *name = catalog_name(t->schema, t->name, column);
		buf_init(&sql, SQL_MAX);
		buf_printf(&sql, "COMMENT ON %s %s", column ? "COLUMN" : "TABLE", t->sql);
		if (column) {
			buf_byte(&sql, '.');
			sql_ident(&sql, column);
		}
		buf_str(&sql, " IS ");
		sql_literal(&sql, PQgetvalue(res, i, 2));
		relation_build_ddl(t->b, DDL_AFTER_LOAD, "comment", name, buf_cstr(&sql));
		buf_fini(&sql);
		free(name);
	}
}
