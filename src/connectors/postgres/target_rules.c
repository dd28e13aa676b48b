/* target_rules: what the target's catalog says about which changes must not pass each other (target_claims.h), asked with the description of a table when
 * changes are to be spread over connections. */
#include "target_int.h"
#include "target_claims.h"
#include <stdlib.h>

/* Types whose equal values have the same bytes, when numeric and char(n) are trimmed. */
#define EXACT_TYPES "'{16,17,19,20,21,23,25,26,1042,1043,1082,1083,1114,1184,1700,2950}'::oid[]"

static const char ask_sql[] =
	"WITH t AS (SELECT c.oid, c.relkind, c.relhassubclass FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace "
	"WHERE s.nspname = $1 AND c.relname = $2), "
	"col AS NOT MATERIALIZED (SELECT a.attrelid, a.attnum, a.attname, b.oid AS type, b.typtype = 'e' AS is_enum, "
	"b.oid = ANY (" EXACT_TYPES ") OR b.typtype = 'e' AS is_plain, "
	"COALESCE((SELECT o.collisdeterministic FROM pg_catalog.pg_collation o WHERE o.oid = a.attcollation), true) AS is_fixed "
	"FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid "
	"JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE y.oid END), "
	"r AS (SELECT 'a' AS kind, t.oid AS grp, '' AS ident, 1::bigint AS n, NULL::name AS attname, 0::oid AS type, false AS is_enum, false AS is_exact, "
	"false AS nulls FROM t WHERE t.relkind <> 'r' OR t.relhassubclass "
	"UNION ALL SELECT 'u', i.indexrelid, i.indexrelid::text, k.n, c.attname, c.type, c.is_enum, "
	"NOT i.indisexclusion AND c.is_plain AND COALESCE((SELECT o.collisdeterministic FROM pg_catalog.pg_collation o "
	"WHERE o.oid = (i.indcollation::oid[])[k.n - 1]), true) AND EXISTS (SELECT FROM pg_catalog.pg_opclass p "
	"WHERE p.oid = (i.indclass::oid[])[k.n - 1] AND p.opcmethod = 403 AND (p.opcdefault OR p.opcname LIKE '%\\_pattern\\_ops')), "
	"COALESCE((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) "
	"FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid AND (i.indisunique OR i.indisexclusion) "
	"CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) "
	"LEFT JOIN col c ON c.attrelid = t.oid AND c.attnum = k.attnum WHERE k.n <= i.indnkeyatts "
	"UNION ALL SELECT x.kind, k.oid, k.confrelid::text || ':' || k.confkey::text, p.n, own.attname, own.type, own.is_enum, "
	"own.is_plain AND own.is_fixed AND other.is_plain AND other.is_fixed AND (own.type = other.type "
	"OR (own.type = ANY ('{20,21,23,1700}'::oid[]) AND other.type = ANY ('{20,21,23,1700}'::oid[]))), false "
	"FROM t CROSS JOIN (VALUES ('c'), ('p')) AS x (kind) JOIN pg_catalog.pg_constraint k ON k.contype = 'f' "
	"AND t.oid = CASE x.kind WHEN 'c' THEN k.conrelid ELSE k.confrelid END "
	"CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) WITH ORDINALITY AS p (child, parent, n) "
	"JOIN col own ON own.attrelid = t.oid AND own.attnum = CASE x.kind WHEN 'c' THEN p.child ELSE p.parent END "
	"JOIN col other ON other.attrelid = CASE x.kind WHEN 'c' THEN k.confrelid ELSE k.conrelid END "
	"AND other.attnum = CASE x.kind WHEN 'c' THEN p.parent ELSE p.child END) "
	"SELECT r.kind, r.grp, r.ident, r.attname, r.type, r.is_enum, r.is_exact, r.nulls, t.oid FROM t LEFT JOIN r ON true ORDER BY r.kind, r.grp, r.n";
enum { COL_KIND, COL_GROUP, COL_IDENT, COL_NAME, COL_TYPE, COL_ENUM, COL_EXACT, COL_NULLS, COL_TABLE };

void rules_ask(struct target *t, struct target_table *tb)
{
	const char *values[] = { tb->schema, tb->name };
	tx_sql(t, SENT_RULES, tb, ask_sql, 2, values);
}

static uint32_t number(const PGresult *res, int row, int column) { return (uint32_t)strtoul(PQgetvalue(res, row, column), NULL, 10); }
static bool flag(const PGresult *res, int row, int column) { return PQgetvalue(res, row, column)[0] == 't'; }

void rules_told(struct target_table *tb, const PGresult *res)
{
	int n = PQntuples(res);
	struct claim_row *rows = mem_zalloc(((size_t)n + 1) * sizeof *rows);
	size_t count = 0;
	rules_forget(tb);
	for (int i = 0; i < n; i++) {
		if (PQgetisnull(res, i, COL_KIND))
			continue;
		struct claim_row *r = &rows[count++];
		r->kind = PQgetvalue(res, i, COL_KIND)[0];
		r->group = number(res, i, COL_GROUP);
		r->ident = PQgetvalue(res, i, COL_IDENT);
		r->column = PQgetisnull(res, i, COL_NAME) ? NULL : PQgetvalue(res, i, COL_NAME);
		r->type = number(res, i, COL_TYPE);
		r->is_enum = flag(res, i, COL_ENUM);
		r->is_exact = flag(res, i, COL_EXACT);
		r->nulls_equal = flag(res, i, COL_NULLS);
	}
	if (n)
		tb->rules = claim_rules_new(tb->rel, number(res, 0, COL_TABLE), rows, count);
	tb->has_rules = n > 0;
	free(rows);
}

void rules_forget(struct target_table *tb)
{
	claim_rules_free(tb->rules);
	tb->rules = NULL;
	tb->has_rules = false;
}
