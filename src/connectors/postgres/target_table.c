/* target_table: what the server has under a table's name, and how the source's columns lie to it. In comes the answer to one question to the catalogs; kept
 * until something may have changed it (our own DDL). */
#include "target_table.h"
#include "catalog.h"
#include "target_int.h"
#include <stdlib.h>

/* The operator is the one of the type's default btree class: a type that an extension brought has it in a schema that is not searched. */
const char table_describe_sql[] =
	"WITH x AS (SELECT i.indrelid, COALESCE(i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL "
	"AND (SELECT pg_catalog.array_agg(k.attname::text ORDER BY k.attname::text COLLATE \"C\") FROM pg_catalog.pg_attribute k "
	"WHERE k.attrelid = i.indrelid AND k.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) "
	"= ARRAY(SELECT u FROM pg_catalog.unnest($3::text[]) u ORDER BY u COLLATE \"C\"), false) AS is_key FROM pg_catalog.pg_index i "
	"WHERE (i.indisunique OR i.indisexclusion) AND i.indrelid = (SELECT c.oid FROM pg_catalog.pg_class c "
	"JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname = $1 AND c.relname = $2)) "
	"SELECT a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, -1), a.attgenerated <> '', a.attidentity = 'a', a.attnotnull, "
	"a.atthasdef OR a.attidentity <> '', pg_catalog.format_type(a.atttypid, a.atttypmod), a.attidentity <> '', "
	"ty.typcategory IN ('A','C') OR ty.typdelim <> ',', ty.typcategory = 'E', "
	"EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'p' AND k.conrelid = c.oid AND a.attnum = ANY (k.conkey)), "
	"(SELECT 'OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || op.oprname || ')' FROM pg_catalog.pg_opclass oc "
	"JOIN pg_catalog.pg_amop am ON am.amopfamily = oc.opcfamily AND am.amopstrategy = 3 AND am.amoplefttype = oc.opcintype "
	"AND am.amoprighttype = oc.opcintype JOIN pg_catalog.pg_operator op ON op.oid = am.amopopr "
	"JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace WHERE oc.opcmethod = 403 AND oc.opcdefault AND n.nspname <> 'pg_catalog' "
	"AND oc.opcintype = CASE WHEN ty.typtype = 'd' THEN ty.typbasetype ELSE ty.oid END LIMIT 1), "
	"EXISTS (SELECT FROM pg_catalog.pg_collation o WHERE o.oid = a.attcollation AND NOT o.collisdeterministic), "
	"f.* FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace "
	"CROSS JOIN LATERAL (SELECT c.relkind = 'p' OR c.relhassubclass, "
	"COALESCE((SELECT pg_catalog.bool_or(x.is_key) FROM x WHERE x.indrelid = c.oid), false), "
	"EXISTS (SELECT FROM x WHERE x.indrelid = c.oid AND NOT x.is_key), "
	"c.relhasrules OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND (g.tgenabled = 'A' "
	"OR g.tgenabled = CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)), "
	"EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND c.oid IN (k.conrelid, k.confrelid)), "
	"EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND c.oid = k.conrelid "
	"AND (k.confdeltype IN ('c','n','d') OR k.confupdtype IN ('c','n','d'))), "
	"(SELECT k.conname FROM pg_catalog.pg_constraint k WHERE k.contype = 'p' AND c.oid = k.conrelid), c.relkind = 'f') f "
	"LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
	"LEFT JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid "
	"WHERE s.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'f') ORDER BY a.attnum";
enum { COL_NAME, COL_TYPE, COL_TYPE_SQL, COL_GENERATED, COL_IDENTITY_ALWAYS, COL_NOT_NULL, COL_DEFAULT, COL_TYPE_FULL,
	COL_IDENTITY, COL_BY_TEXT, COL_ENUM, COL_IN_PRIMARY_KEY, COL_EQUALS, COL_FOLDS, TABLE_PARTITIONED, TABLE_KEY, TABLE_OTHER_UNIQUE, TABLE_TRIGGERS,
	TABLE_REFERENCES, TABLE_CASCADE, TABLE_PRIMARY_KEY, TABLE_FOREIGN };

/* ---- life ---- */

static void forget_columns(struct target_table *tb)
{
	for (unsigned i = 0; i < tb->ncolumns; i++) {
		free(tb->columns[i].name);
		free(tb->columns[i].type_sql);
		free(tb->columns[i].type_full);
		free(tb->columns[i].equals);
	}
	free(tb->columns);
	free(tb->primary_key);
	rules_forget(tb);
	tb->columns = NULL;
	tb->primary_key = NULL;
	tb->ncolumns = 0;
	tb->is_described = tb->is_asked = tb->is_checked = false;
}

void table_free(struct target_table *tb)
{
	if (!tb)
		return;
	forget_columns(tb);
	relation_unref(tb->rel);
	relation_unref(tb->shape);
	net_free(tb);
	free(tb->of);
	free(tb->lately);
	free(tb->schema);
	free(tb->name);
	free(tb->sql);
	free(tb);
}

static void free_one(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	table_free(value);
}

void table_forget_all(struct target *t)
{
	map_each(t->tables, free_one, NULL);
	map_free(t->tables);
	map_free(t->known);
	relation_unref(t->last_rel);
	for (size_t i = 0; i < t->nknown; i++) {
		free((void *)(uintptr_t)t->loaded[i].schema);
		free((void *)(uintptr_t)t->loaded[i].name);
		free((void *)(uintptr_t)t->begun[i].parts);
	}
	free(t->loaded);
	free(t->begun);
	free(t->begun_rows);
	free(t->until);
	free(t->moves);
	free(t->made);
	free(t->forgotten);
}

/* ---- the source's columns and ours ---- */

static struct target_column *find_column(const struct target_table *tb, const char *name)
{
	for (unsigned i = 0; i < tb->ncolumns; i++)
		if (!strcmp(tb->columns[i].name, name))
			return &tb->columns[i];
	return NULL;
}

static void lay_out(struct target_table *tb)
{
	tb->of = mem_realloc_array(tb->of, tb->rel->ncolumns + 1u, sizeof *tb->of);
	for (unsigned i = 0; i < tb->rel->ncolumns; i++)
		tb->of[i] = find_column(tb, tb->rel->columns[i].name);
}

static void put_relation(struct target_table *tb, struct relation *rel)
{
	relation_unref(tb->rel);
	tb->rel = relation_ref(rel);
	free(tb->lately);
	tb->lately = mem_alloc(rel->ncolumns + 1u);
	memset(tb->lately, PARAM_TEXT, rel->ncolumns + 1u);
	/* The key may be another one now: whether an index serves it must be asked again. */
	forget_columns(tb);
	lay_out(tb);
}

static void set_relation(struct target *t, struct target_table *tb, struct relation *rel)
{
	if (tb->rel == rel)
		return;
	if (relation_is_same(tb->rel, rel)) { /* as in each batch that comes from a log */
		if (tb->rel->nddl && !rel->nddl) /* of a row that a codec has read: what is made behind the load is said by the other alone */
			return;
		relation_unref(tb->rel);
		tb->rel = relation_ref(rel);
		return;
	}
	/* What is gathered is of the old one. */
	if (t->tx.state == TX_OPEN)
		net_flush(t, tb);
	stmt_forget(t, tb);
	put_relation(tb, rel);
}

struct target_table *table_new(struct relation *rel)
{
	struct target_table *tb = mem_zalloc(sizeof *tb);
	struct buf sql;
	tb->schema = mem_strdup(rel->schema);
	tb->name = mem_strdup(rel->name);
	buf_init(&sql, 64 * 1024);
	sql_qualified(&sql, rel->schema, rel->name);
	tb->sql = mem_strdup(buf_cstr(&sql));
	buf_fini(&sql);
	put_relation(tb, rel);
	return tb;
}

/* What dmsr.loads said of it. */
static void recall(const struct target *t, struct target_table *tb, const struct buf *key)
{
	const struct dmsr_loaded *l = map_get(t->known, key->data, key->len);
	if (!l)
		return;
	size_t i = (size_t)(l - t->loaded);
	tb->was_loaded = t->forgotten[i];
	tb->loaded_lsn = i < t->nloaded ? l->at.lsn : tb->was_loaded ? 0 : LOADED_IN_PART;
	tb->until_lsn = t->until[i];
	tb->rows_move = t->moves[i];
	tb->is_made = t->made[i];
	tb->has_rests = tb->until_lsn || tb->loaded_lsn == LOADED_IN_PART;
}

struct target_table *table_get(struct target *t, struct relation *rel)
{
	struct buf key;
	buf_init(&key, 64 * 1024);
	relation_key(&key, rel->schema, rel->name);
	struct target_table *tb = map_get(t->tables, key.data, key.len);
	if (!tb) {
		tb = table_new(rel);
		recall(t, tb, &key);
		map_put(t->tables, key.data, key.len, tb);
	}
	buf_fini(&key);
	set_relation(t, tb, rel);
	return tb;
}

void table_reset(struct target *t, struct target_table *tb)
{
	stmt_forget(t, tb);
	forget_columns(tb);
	lay_out(tb);
}

/* ---- counts ---- */

struct dmsr_table_counts *table_counts(struct target *t, struct target_table *tb)
{
	if (!tb->has_counts) {
		tb->has_counts = true;
		tb->next_counted = t->counted;
		t->counted = tb;
	}
	return &tb->open;
}

void table_counts_settle(struct target *t, bool is_durable)
{
	for (struct target_table *tb = t->counted; tb; tb = tb->next_counted) {
		struct dmsr_table_counts *to = &tb->counts, *c = &tb->open;
		if (is_durable) {
			to->loaded += c->loaded;
			to->created += c->created;
			to->updated += c->updated;
			to->deleted += c->deleted;
			to->truncated += c->truncated;
			to->ddl += c->ddl;
			to->dead += c->dead;
		}
		*c = (struct dmsr_table_counts){ 0 };
	}
}

/* ---- asking ---- */

static void add_element(struct buf *out, const char *s)
{
	buf_byte(out, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_byte(out, '\\');
		buf_byte(out, *s);
	}
	buf_byte(out, '"');
}

const char *table_describe_key(const struct target_table *tb, struct buf *out)
{
	const struct relation *rel = tb->rel;
	bool is_key = rel->key == KEY_PRIMARY || rel->key == KEY_UNIQUE;
	buf_byte(out, '{');
	for (unsigned i = 0; is_key && i < rel->nkeys; i++) {
		buf_str(out, i ? "," : "");
		add_element(out, rel->columns[rel->keys[i]].name);
	}
	buf_byte(out, '}');
	return buf_cstr(out);
}

static bool flag(const PGresult *res, int row, int column) { return PQgetvalue(res, row, column)[0] == 't'; }

static void read_column(struct target_column *c, const PGresult *res, int row)
{
	c->name = mem_strdup(PQgetvalue(res, row, COL_NAME));
	c->type = (uint32_t)strtoul(PQgetvalue(res, row, COL_TYPE), NULL, 10);
	c->type_sql = mem_strdup(PQgetvalue(res, row, COL_TYPE_SQL));
	c->is_generated = flag(res, row, COL_GENERATED);
	c->is_identity_always = flag(res, row, COL_IDENTITY_ALWAYS);
	c->is_not_null = flag(res, row, COL_NOT_NULL);
	c->has_default = flag(res, row, COL_DEFAULT);
	c->type_full = mem_strdup(PQgetvalue(res, row, COL_TYPE_FULL));
	c->is_identity = flag(res, row, COL_IDENTITY);
	c->is_by_text = flag(res, row, COL_BY_TEXT);
	c->is_enum = flag(res, row, COL_ENUM);
	c->is_in_primary_key = flag(res, row, COL_IN_PRIMARY_KEY);
	c->folds = flag(res, row, COL_FOLDS);
	if (!PQgetisnull(res, row, COL_EQUALS))
		c->equals = mem_strdup(PQgetvalue(res, row, COL_EQUALS));
}

void table_described(struct target_table *tb, const PGresult *res)
{
	int n = PQntuples(res);
	forget_columns(tb);
	tb->is_described = true;
	tb->exists = n > 0;
	if (n) {
		tb->is_partitioned = flag(res, 0, TABLE_PARTITIONED);
		tb->has_key = flag(res, 0, TABLE_KEY);
		tb->has_other_unique = flag(res, 0, TABLE_OTHER_UNIQUE);
		tb->has_triggers = flag(res, 0, TABLE_TRIGGERS);
		tb->is_foreign = flag(res, 0, TABLE_FOREIGN);
		tb->has_references = flag(res, 0, TABLE_REFERENCES);
		tb->has_cascade = flag(res, 0, TABLE_CASCADE);
		if (!PQgetisnull(res, 0, TABLE_PRIMARY_KEY))
			tb->primary_key = mem_strdup(PQgetvalue(res, 0, TABLE_PRIMARY_KEY));
	}
	tb->columns = mem_zalloc(((size_t)n + 1) * sizeof *tb->columns);
	for (int i = 0; i < n; i++)
		if (!PQgetisnull(res, i, COL_NAME))
			read_column(&tb->columns[tb->ncolumns++], res, i);
	lay_out(tb);
}

void table_tell_triggers(struct target *t, struct target_table *tb)
{
	if (!tb->has_triggers || tb->has_told_triggers || !t->host.notice)
		return;
	tb->has_told_triggers = true;
	char *text = mem_printf("%s has triggers or rules that work while rows are loaded and changes applied: what they do comes beside what the source did; "
		"postgres.target-triggers of a dry run names them", tb->sql);
	t->host.notice(t->host.ctx, text);
	free(text);
}
