/* catalog_types: types that are not built in. In: pg_type and its neighbours, for all that the tables' columns are made of, however deep. Out: what a column
 * means, and statements that make its type, in an order in which they can be run. */
#include "catalog_int.h"
#include "types.h"
#include <stdlib.h>

/* Types are made of types; a chain longer than this was made to hurt. */
enum { DEPTH = 64, SQL_MAX = 16 << 20 };

struct catalog_type {
	char typtype, category;
	char *schema, *name;
	uint32_t means;                 /* domain: base; array: element; range: subtype; multirange: its range; else 0 */
	uint32_t *parts;                /* what must be there before it */
	size_t nparts;
	char *extension, *extension_schema;
	char *definition;               /* behind CREATE TYPE|DOMAIN name; NULL: nothing of ours to make */
	const struct catalog_table *told; /* the table that was told of it last */
};

enum { Y_OID, Y_TYPE, Y_CATEGORY, Y_SCHEMA, Y_NAME, Y_MEANS, Y_PARTS, Y_EXTENSION, Y_EXTENSION_SCHEMA, Y_DEFINITION };

#define COLLATE(oid, of) "COALESCE((SELECT ' COLLATE ' || quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co" \
	" JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = " oid " AND " oid " <> " of "), '')"
/* A range type's multirange is named by it unless somebody said otherwise. */
#define MULTIRANGE " || COALESCE((SELECT ', MULTIRANGE_TYPE_NAME = ' || quote_ident(mn.nspname) || '.' || quote_ident(m.typname) FROM pg_type m" \
	" JOIN pg_namespace mn ON mn.oid = m.typnamespace WHERE m.oid = r.rngmultitypid AND m.typname <> CASE WHEN position('range' IN t.typname) > 0" \
	" THEN overlay(t.typname PLACING 'multirange' FROM position('range' IN t.typname) FOR 5) ELSE t.typname || '_multirange' END), '')"

void catalog_types_sql(const struct catalog *k, struct buf *out)
{
	bool has_multirange = pgconn_server_version(k->conn) >= 140000;

	buf_str(out, "WITH RECURSIVE used(oid, of) AS (SELECT DISTINCT a.atttypid, 0::oid FROM pg_attribute a"
		" WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped"
		" UNION SELECT x.oid, u.oid FROM used u CROSS JOIN LATERAL ("
		" SELECT t.typbasetype AS oid FROM pg_type t WHERE t.oid = u.oid AND t.typtype = 'd'"
		" UNION ALL SELECT t.typelem FROM pg_type t WHERE t.oid = u.oid AND t.typtype = 'b' AND t.typcategory = 'A' AND t.typelem <> 0"
		" UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = u.oid"
		" UNION ALL SELECT ca.atttypid FROM pg_type t JOIN pg_class cc ON cc.oid = t.typrelid AND cc.relkind = 'c'"
		" JOIN pg_attribute ca ON ca.attrelid = cc.oid AND ca.attnum > 0 AND NOT ca.attisdropped WHERE t.oid = u.oid AND t.typtype = 'c'");
	if (has_multirange)
		buf_str(out, " UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = u.oid");
	buf_str(out, ") x) SELECT t.oid, t.typtype, t.typcategory, n.nspname, t.typname,"
		" CASE t.typtype WHEN 'd' THEN t.typbasetype WHEN 'b' THEN CASE WHEN t.typcategory = 'A' THEN t.typelem END"
		" WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid)");
	if (has_multirange)
		buf_str(out, " WHEN 'm' THEN (SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid)");
	buf_str(out, " END, array_to_string(ARRAY(SELECT p.oid FROM used p WHERE p.of = t.oid), ','), e.extname, en.nspname, CASE t.typtype"
		" WHEN 'e' THEN (SELECT 'AS ENUM (' || COALESCE(string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder), '') || ')'"
		" FROM pg_enum l WHERE l.enumtypid = t.oid)"
		" WHEN 'c' THEN (SELECT 'AS (' || COALESCE((SELECT string_agg(quote_ident(ca.attname) || ' '"
		" || format_type(ca.atttypid, ca.atttypmod) || ");
	buf_str(out, COLLATE("ca.attcollation", "ct.typcollation"));
	buf_str(out, ", ', ' ORDER BY ca.attnum) FROM pg_attribute ca JOIN pg_type ct ON ct.oid = ca.atttypid"
		" WHERE ca.attrelid = cc.oid AND ca.attnum > 0 AND NOT ca.attisdropped), '') || ')'"
		" FROM pg_class cc WHERE cc.oid = t.typrelid AND cc.relkind = 'c')"
		" WHEN 'd' THEN 'AS ' || format_type(t.typbasetype, t.typtypmod) || ");
	buf_str(out, COLLATE("t.typcollation", "(SELECT bt.typcollation FROM pg_type bt WHERE bt.oid = t.typbasetype)"));
	buf_str(out, " || COALESCE(' DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END"
		" || COALESCE((SELECT string_agg(' CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), '' ORDER BY k.conname)"
		" FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c' AND k.convalidated), '')"
		" WHEN 'r' THEN (SELECT 'AS RANGE (SUBTYPE = ' || format_type(r.rngsubtype, -1)"
		" || CASE WHEN o.opcdefault THEN '' ELSE ', SUBTYPE_OPCLASS = ' || quote_ident(opn.nspname) || '.' || quote_ident(o.opcname) END"
		" || COALESCE((SELECT ', COLLATION = ' || quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co"
		" JOIN pg_namespace cn ON cn.oid = co.collnamespace JOIN pg_type st ON st.oid = r.rngsubtype"
		" WHERE co.oid = r.rngcollation AND co.oid <> st.typcollation), '')"
		" || COALESCE((SELECT ', SUBTYPE_DIFF = pg_catalog.' || f.proname FROM pg_proc f WHERE f.oid = r.rngsubdiff"
		" AND f.pronamespace = 'pg_catalog'::regnamespace), '')");
	if (has_multirange)
		buf_str(out, MULTIRANGE);
	buf_str(out, " || ')' FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc JOIN pg_namespace opn ON opn.oid = o.opcnamespace"
		" WHERE r.rngtypid = t.oid)"
		" END FROM (SELECT DISTINCT u.oid FROM used u) u JOIN pg_type t ON t.oid = u.oid JOIN pg_namespace n ON n.oid = t.typnamespace"
		" LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"
		" LEFT JOIN pg_extension e ON e.oid = d.refobjid LEFT JOIN pg_namespace en ON en.oid = e.extnamespace WHERE n.nspname <> 'pg_catalog'");
}

/* "1,2,3" */
static void read_parts(struct catalog_type *y, const char *list)
{
	for (const char *p = list; *p;) {
		char *end;
		y->parts = mem_realloc_array(y->parts, y->nparts + 1, sizeof *y->parts);
		y->parts[y->nparts++] = (uint32_t)strtoul(p, &end, 10);
		p = *end ? end + 1 : end;
	}
}

void catalog_types_read(struct catalog *k, const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++) {
		uint32_t oid = catalog_oid(res, i, Y_OID);
		if (map_get_u32(k->types, oid))
			continue;
		struct catalog_type *y = mem_zalloc(sizeof *y);
		y->typtype = *PQgetvalue(res, i, Y_TYPE);
		y->category = *PQgetvalue(res, i, Y_CATEGORY);
		y->schema = mem_strdup(PQgetvalue(res, i, Y_SCHEMA));
		y->name = mem_strdup(PQgetvalue(res, i, Y_NAME));
		y->means = catalog_oid(res, i, Y_MEANS);
		y->extension = mem_strdup(catalog_cell(res, i, Y_EXTENSION));
		y->extension_schema = mem_strdup(catalog_cell(res, i, Y_EXTENSION_SCHEMA));
		/* information_schema's domains are everywhere */
		if (strcmp(y->schema, "information_schema") != 0)
			y->definition = mem_strdup(catalog_cell(res, i, Y_DEFINITION));
		read_parts(y, PQgetvalue(res, i, Y_PARTS));
		map_put_u32(k->types, oid, y);
	}
}

static struct catalog_type *type_of(const struct catalog *k, uint32_t oid)
{
	return map_get_u32(k->types, oid);
}

/* Through domains to what they are of. */
static enum logical_type meaning(const struct catalog *k, uint32_t oid, enum logical_type *elem, unsigned depth)
{
	const struct catalog_type *y = type_of(k, oid);
	enum logical_type unused;

	if (!y)
		return pgtype_builtin(oid, elem);
	*elem = TYPE_OTHER;
	if (depth == DEPTH)
		return TYPE_OTHER;
	if (y->typtype == 'd')
		return meaning(k, y->means, elem, depth + 1);
	enum logical_type type = pgtype_from_catalog(y->typtype, y->category, y->schema, y->name);
	if (type == TYPE_ARRAY || type == TYPE_RANGE)
		*elem = meaning(k, y->means, &unused, depth + 1);
	else if (type == TYPE_MULTIRANGE)
		(void)meaning(k, y->means, elem, depth + 1);
	return type;
}

void catalog_type_meaning(const struct catalog *k, uint32_t oid, struct column *out)
{
	enum logical_type elem = TYPE_OTHER;

	out->type = (uint8_t)meaning(k, oid, &elem, 0);
	out->elem_type = (uint8_t)elem;
}

static void tell(const struct catalog *k, struct catalog_table *t, const struct catalog_type *y)
{
	const char *kind = y->typtype == 'e' ? "enum" : y->typtype == 'c' ? "composite" : y->typtype == 'd' ? "domain" : "range";
	char *name = catalog_name(y->schema, y->name, NULL);
	struct buf sql;

	catalog_tell_schema(k, t, y->schema);
	buf_init(&sql, SQL_MAX);
	buf_str(&sql, y->typtype == 'd' ? "CREATE DOMAIN " : "CREATE TYPE ");
	sql_qualified(&sql, y->schema, y->name);
	buf_byte(&sql, ' ');
	buf_str(&sql, y->definition);
	relation_build_ddl(t->b, DDL_BEFORE_TABLE, kind, name, buf_cstr(&sql));
	buf_fini(&sql);
	free(name);
}

static void tell_deep(const struct catalog *k, struct catalog_table *t, uint32_t oid, unsigned depth)
{
	struct catalog_type *y = type_of(k, oid);

	if (!y || y->told == t || depth == DEPTH)
		return;
	y->told = t;
	if (y->extension) {
		catalog_tell_extension(k, t, y->extension, y->extension_schema);
		return;
	}
	for (size_t i = 0; i < y->nparts; i++)
		tell_deep(k, t, y->parts[i], depth + 1);
	if (y->definition)
		tell(k, t, y);
}

void catalog_tell_type(const struct catalog *k, struct catalog_table *t, uint32_t oid)
{
	tell_deep(k, t, oid, 0);
}

static void free_type(void *arg, const void *key, size_t n, void *value)
{
	struct catalog_type *y = value;

	(void)arg;
	(void)key;
	(void)n;
	free(y->schema);
	free(y->name);
	free(y->parts);
	free(y->extension);
	free(y->extension_schema);
	free(y->definition);
	free(y);
}

void catalog_types_free(struct catalog *k)
{
	map_each(k->types, free_type, NULL);
	map_free(k->types);
}
