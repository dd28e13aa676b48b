/* source_sql: see source_sql.h. */
#include "source_sql.h"
#include "catalog.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void source_name(const struct dmsr_env *env, char out[64])
{
	size_t n = strlen(env->uid), tail = n < 8 ? n : 8;
	snprintf(out, 64, "dmsr_%.40s%s%s", env->job, tail ? "_" : "", env->uid + n - tail);
	for (char *p = out; *p; p++)
		*p = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '_';
}

int slot_name_check(const char *name, struct err *e)
{
	size_t n = name ? strlen(name) : 1;
	if (!n || n > 63 || (name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != n))
		return err_set(e, DMSR_EINVAL, "source.slot-name", "the slot's name \"%s\" is not 1 to 63 of a-z, 0-9 and _", name ? name : "");
	return 0;
}

struct settings *pg_settings_copy(const struct settings *from, const struct dmsr_option *table)
{
	struct settings *to = settings_new();
	for (const struct dmsr_option *o = table; o->name; o++) {
		if (o->type == DMSR_OPT_STRING || o->type == DMSR_OPT_ENUM)
			settings_put_str(to, o->name, settings_str(from, o->name));
		else if (o->type == DMSR_OPT_BOOL)
			settings_put_bool(to, o->name, settings_bool(from, o->name));
		else
			settings_put_int(to, o->name, settings_int(from, o->name));
	}
	return to;
}

/* ---- patterns without a table ---- */

const char named_sql[] = "SELECT n.nspname, c.relname, CASE WHEN c.relispartition THEN 'is a partition of ' || rn.nspname || '.' || r.relname"
	" || ', with which its rows come: name that' WHEN c.relkind = 'v' THEN 'is a view' WHEN c.relkind = 'm' THEN 'is a materialized view'"
	" WHEN c.relkind = 'f' THEN 'is a foreign table'"
	" WHEN c.relpersistence = 'u' THEN 'is UNLOGGED: ALTER TABLE ... SET LOGGED, and start the job again' END"
	" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	" LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)"
	" LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace"
	" WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2";

/* "was shop.orders meant": the schema is right and the name nearly so, or the other way about. NULL: there is none. */
static char *near_name(const char *pattern, const PGresult *named)
{
	const char *dot = strchr(pattern, '.');
	if (!dot)
		return NULL;
	char *schema = mem_strndup(pattern, (size_t)(dot - pattern));
	struct nearest names = NEAREST(dot + 1), schemas = NEAREST(schema);
	for (int i = 0; i < PQntuples(named); i++) {
		if (!strcmp(PQgetvalue(named, i, NAMED_SCHEMA), schema))
			nearest_try(&names, PQgetvalue(named, i, NAMED_NAME));
		if (!strcmp(PQgetvalue(named, i, NAMED_NAME), dot + 1))
			nearest_try(&schemas, PQgetvalue(named, i, NAMED_SCHEMA));
	}
	char *near = names.best ? mem_printf("was %s.%s meant", schema, names.best) :
		schemas.best    ? mem_printf("was %s%s meant", schemas.best, dot) :
				  NULL;
	free(schema);
	return near;
}

char *pattern_problem(const char *pattern, const struct dmsr_tables *t, const PGresult *named)
{
	const struct dmsr_tables all = { .include = &pattern, .ninclude = 1 };
	const struct dmsr_tables meant = { .include = &pattern, .ninclude = 1, .exclude = t->exclude, .nexclude = t->nexclude };
	int first = -1;
	for (int i = 0; i < PQntuples(named); i++) {
		const char *schema = PQgetvalue(named, i, NAMED_SCHEMA), *name = PQgetvalue(named, i, NAMED_NAME);
		if (!dmsr_table_matches(&all, schema, name))
			continue;
		if (PQgetisnull(named, i, NAMED_WHY) || !dmsr_table_matches(&meant, schema, name))
			return NULL;
		first = first < 0 ? i : first;
	}
	if (first >= 0)
		return mem_printf("the pattern %s means no table that is read: %s.%s %s", pattern, PQgetvalue(named, first, NAMED_SCHEMA),
			PQgetvalue(named, first, NAMED_NAME), PQgetvalue(named, first, NAMED_WHY));
	char *near = near_name(pattern, named);
	char *problem = mem_printf("the pattern %s means no table that there is now: %s? One that comes later is taken up when the job is started again",
		pattern, near ? near : "is it misspelt");
	free(near);
	return problem;
}

bool exclude_names_one(const char *pattern) { return !strpbrk(pattern, "*?"); }

char *exclude_problem(const char *pattern, const PGresult *named)
{
	const struct dmsr_tables one = { .include = &pattern, .ninclude = 1 };
	for (int i = 0; i < PQntuples(named); i++)
		if (dmsr_table_matches(&one, PQgetvalue(named, i, NAMED_SCHEMA), PQgetvalue(named, i, NAMED_NAME)))
			return NULL;
	char *near = near_name(pattern, named);
	char *problem = mem_printf("tables.exclude has %s, and there is no such table now: %s?", pattern, near ? near : "is it misspelt");
	free(near);
	return problem;
}

/* ---- publication ---- */

const char *publication_sql(int version)
{
#define PUBLICATION(root, generated) "SELECT pg_catalog.concat(pubinsert, pubupdate, pubdelete, pubtruncate), " root "," \
	" pg_catalog.concat_ws(' ', oid, xmin, pubowner), " generated \
	" FROM pg_catalog.pg_publication WHERE pubname = $1"
	return version >= 180000 ? PUBLICATION("pubviaroot", "pubgencols = 's'") : version >= 130000 ? PUBLICATION("pubviaroot", "NULL") :
												       PUBLICATION("NULL", "NULL");
#undef PUBLICATION
}

const char publication_names_sql[] = "SELECT pubname FROM pg_catalog.pg_publication ORDER BY 1 LIMIT 1000";

const char *publication_near(const char *name, const PGresult *res)
{
	struct nearest n = NEAREST(name);
	for (int i = 0; i < PQntuples(res); i++)
		nearest_try(&n, PQgetvalue(res, i, 0));
	return n.best;
}

bool publication_is_same(const char *was, const char *is)
{
	unsigned oid[2], written[2], owner[2];
	int n = sscanf(was, "%u %u %u", &oid[0], &written[0], &owner[0]);
	if (sscanf(is, "%u %u %u", &oid[1], &written[1], &owner[1]) != 3 || n < 1 || oid[0] != oid[1])
		return false;
	return n < 3 || written[0] == written[1] || owner[0] != owner[1];
}

const char *publication_tables_sql(int version)
{
	static const char whole[] = "SELECT schemaname, tablename, NULL FROM pg_catalog.pg_publication_tables WHERE pubname = $1";
	/* A column list may hold all columns: that of today. One that is published whole has none. */
	static const char parts[] = "SELECT t.schemaname, t.tablename, CASE WHEN t.rowfilter IS NOT NULL OR EXISTS ("
		"SELECT 1 FROM pg_catalog.pg_publication_rel r, pg_catalog.pg_publication p"
		" WHERE p.pubname = t.pubname AND r.prpubid = p.oid AND r.prattrs IS NOT NULL"
		" AND r.prrelid = pg_catalog.format('%I.%I', t.schemaname, t.tablename)::pg_catalog.regclass) THEN 1 END"
		" FROM pg_catalog.pg_publication_tables t WHERE t.pubname = $1";
	return version >= 150000 ? parts : whole;
}

struct map *publication_set(const PGresult *tables)
{
	struct map *set = map_new();
	struct buf key;
	buf_init(&key, SIZE_MAX);
	for (int i = 0; i < PQntuples(tables); i++) {
		buf_reset(&key);
		relation_key(&key, PQgetvalue(tables, i, PUBTAB_SCHEMA), PQgetvalue(tables, i, PUBTAB_NAME));
		map_put(set, key.data, key.len, set);
	}
	buf_fini(&key);
	return set;
}

bool publication_holds(const struct map *set, const struct relation *rel)
{
	struct buf key;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, rel->schema, rel->name);
	bool is_in = map_get(set, key.data, key.len) != NULL;
	buf_fini(&key);
	return is_in;
}

static size_t list_tables(struct buf *out, struct relation *const *rels, size_t n, const struct map *but)
{
	size_t listed = 0;
	for (size_t i = 0; i < n; i++) {
		if (but && publication_holds(but, rels[i]))
			continue;
		buf_str(out, listed++ ? ", ONLY " : "ONLY ");
		sql_qualified(out, rels[i]->schema, rels[i]->name);
	}
	return listed;
}

void publication_create_sql(struct buf *out, const char *name, struct relation *const *rels, size_t n, int version)
{
	buf_str(out, "CREATE PUBLICATION ");
	sql_ident(out, name);
	buf_str(out, " FOR TABLE ");
	list_tables(out, rels, n, NULL);
	/* From 18 on the server refuses updates of a table whose replica identity has a generated column that is not published. */
	if (version >= 130000)
		buf_printf(out, " WITH (publish_via_partition_root = true%s)", version >= 180000 ? ", publish_generated_columns = stored" : "");
}

void publication_publish_sql(struct buf *out, const char *name)
{
	buf_str(out, "ALTER PUBLICATION ");
	sql_ident(out, name);
	buf_str(out, " SET (publish = 'insert, update, delete, truncate')");
}

size_t publication_add_sql(struct buf *out, const char *name, struct relation *const *rels, size_t n, const struct map *set)
{
	buf_str(out, "ALTER PUBLICATION ");
	sql_ident(out, name);
	buf_str(out, " ADD TABLE ");
	return list_tables(out, rels, n, set);
}

/* ---- slot ---- */

void slot_sql(struct buf *out, int version, const char *slot)
{
	static const struct { int since; const char *lost; } by_version[] = {
		{ 170000, "CASE WHEN wal_status = 'lost' OR invalidation_reason IS NOT NULL THEN coalesce(invalidation_reason, 'wal_removed') END" },
		{ 160000, "CASE WHEN conflicting THEN 'conflicting' WHEN wal_status = 'lost' THEN 'wal_removed' END" },
		{ 130000, "CASE WHEN wal_status = 'lost' THEN 'wal_removed' END" },
		{ 0, "NULL" },
	};
	size_t i = 0;
	while (version < by_version[i].since)
		i++;
	buf_printf(out, "SELECT slot_type, plugin, database = pg_catalog.current_database(), active_pid, confirmed_flush_lsn, %s,"
		" (SELECT application_name FROM pg_catalog.pg_stat_activity WHERE pid = active_pid)"
		" FROM pg_catalog.pg_replication_slots WHERE slot_name = ", by_version[i].lost);
	sql_literal(out, slot);
}

int slot_note_parse(const char *text, struct slot_note *out)
{
	char lsn[24];
	*out = (struct slot_note){ 0 };
	if (!text || !text[0])
		return 0;
	out->is_there = true;
	if (sscanf(text, "creating %63s", out->name) == 1)
		return 0;
	if (sscanf(text, "made %63s %23s %" SCNu64 " %" SCNu32, out->name, lsn, &out->system, &out->timeline) != 4 || lsn_parse(lsn, &out->lsn))
		return -1;
	out->is_made = true;
	return 0;
}

/* ---- replica identity ---- */

/* Of the index aliased i: could it be a replica identity? */
#define USABLE "i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL"
/* Its columns are in the log's old rows: before 18 generated ones are not. */
#define IS_SENT "NOT (pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 180000 AND " HAS_GENERATED ")"
#define HAS_GENERATED "EXISTS (SELECT FROM pg_catalog.pg_attribute g WHERE g.attrelid = i.indrelid AND g.attgenerated <> ''" \
	" AND g.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))"
/* A whole row is sent, but for generated columns that are not stored; the server then refuses updates and deletes. */
#define IS_WHOLE(t) "NOT EXISTS (SELECT FROM pg_catalog.pg_attribute g WHERE g.attrelid = " t ".oid AND g.attgenerated = 'v')"
/* k.prim, k.own: does the table have a primary key that serves; the index that was named? */
#define KEYS_OF(t) "(SELECT pg_catalog.bool_or(i.indisprimary), pg_catalog.bool_or(i.indisreplident) FROM pg_catalog.pg_index i" \
	" WHERE i.indrelid = " t ".oid AND i.indisvalid AND i.indimmediate AND " IS_SENT ")"
/* By name, since a partition has its columns at places of its own: of the index i; of the index that is a table's identity. */
#define INDEX_COLUMNS "(SELECT pg_catalog.array_agg(a.attname ORDER BY a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid" \
	" AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))"
#define IDENTITY_COLUMNS(t) "(SELECT " INDEX_COLUMNS " FROM pg_catalog.pg_index i WHERE i.indrelid = " t ".oid AND i.indisreplident)"
const char identity_sql[] =
	"SELECT v.* FROM (SELECT n.nspname, l.relname, l.relreplident, CASE WHEN r.relreplident = 'f' AND " IS_WHOLE("r") " THEN 'f'"
	" WHEN r.relreplident = 'i' AND rk.own THEN 'i' WHEN rk.prim THEN 'd' WHEN r.relkind <> 'p' AND u.name IS NOT NULL THEN 'i' ELSE 'f' END,"
	" (l.relreplident = 'f' AND " IS_WHOLE("l") ") OR (l.relreplident = 'd' AND coalesce(lk.prim, false))"
	" OR (l.relreplident = 'i' AND coalesce(lk.own, false)) AS good,"
	" l.relreplident = r.relreplident AND (l.relreplident <> 'i' OR " IDENTITY_COLUMNS("l") " IS NOT DISTINCT FROM " IDENTITY_COLUMNS("r") ") AS same,"
	" u.name, r.oid AS root, coalesce(rk.prim, false) AS root_prim"
	" FROM pg_catalog.pg_class r CROSS JOIN LATERAL (SELECT r.oid AS oid"
	" UNION SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(r.oid) p WHERE r.relkind = 'p' AND p.isleaf) x"
	" JOIN pg_catalog.pg_class l ON l.oid = x.oid JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace"
	" CROSS JOIN LATERAL " KEYS_OF("l") " lk(prim, own) CROSS JOIN LATERAL " KEYS_OF("r") " rk(prim, own)"
	" CROSS JOIN LATERAL (SELECT (SELECT ic.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid"
	" WHERE i.indrelid = l.oid AND " USABLE " AND " IS_SENT
	" AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY c(num, pos)"
	" JOIN pg_catalog.pg_attribute a ON a.attrelid = l.oid AND a.attnum = c.num WHERE c.pos <= i.indnkeyatts AND NOT a.attnotnull)"
	" ORDER BY coalesce(" INDEX_COLUMNS " = " IDENTITY_COLUMNS("r") ", false) DESC, i.indnkeyatts, ic.relname LIMIT 1) AS name) u"
	" WHERE r.oid = ANY ($1::pg_catalog.oid[])) v WHERE NOT (v.good AND v.same) ORDER BY 1, 2";

const char *identity_problem(const PGresult *res, int row)
{
	if (*PQgetvalue(res, row, IDENTITY_IS_GOOD) == 't')
		return "its replica identity differs from that of the partitioned table that it belongs to";
	switch (*PQgetvalue(res, row, IDENTITY_OWN)) {
	case 'n':
		return "its replica identity is NOTHING";
	case 'i':
		return "the index that was its replica identity is gone, or has a generated column, which the server does not send";
	case 'f':
		return "its replica identity is FULL, and it has generated columns that are not stored, which the server does not send";
	default:
		return "it has no primary key whose columns the server sends (generated ones are not, before 18), and no other replica identity";
	}
}

void identity_fix(const PGresult *res, int row, struct buf *out)
{
	char want = *PQgetvalue(res, row, IDENTITY_WANT);
	if (want == 'f' && *PQgetvalue(res, row, IDENTITY_OWN) == 'f')
		return; /* it needs a key, which nobody but its owner can think of */
	buf_str(out, "ALTER TABLE ");
	sql_qualified(out, PQgetvalue(res, row, IDENTITY_SCHEMA), PQgetvalue(res, row, IDENTITY_NAME));
	if (want == 'd') {
		buf_str(out, " REPLICA IDENTITY DEFAULT");
	} else if (want == 'f' || PQgetisnull(res, row, IDENTITY_INDEX)) {
		buf_str(out, " REPLICA IDENTITY FULL");
	} else {
		buf_str(out, " REPLICA IDENTITY USING INDEX ");
		sql_ident(out, PQgetvalue(res, row, IDENTITY_INDEX));
	}
}

const char identity_generated_sql[] =
	"SELECT count(*) FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND CASE c.relreplident WHEN 'f' THEN EXISTS (SELECT FROM"
	" pg_catalog.pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '') ELSE EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid"
	" AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END AND " HAS_GENERATED ") END";

void relations_oids(struct buf *out, struct relation *const *rels, size_t n)
{
	buf_byte(out, '{');
	for (size_t i = 0; i < n; i++)
		buf_printf(out, "%s%u", i ? "," : "", (unsigned)rels[i]->id);
	buf_byte(out, '}');
}
