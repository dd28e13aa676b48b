/* target_sql: statements of the target as text. In come relations, the server's own description of the table, and shapes; out goes SQL with every name
 * quoted. Values never stand in it. Nothing here is owned, nothing asks the server. */
#include "target_sql.h"
#include "catalog.h"
#include <stdlib.h>

enum { FIRST_USER_OID = 16384, SQL_MAX = 16 << 20 };

static bool is_own_engine(const struct relation *rel) { return !strcmp(rel->engine, "postgres"); }

bool sql_is_written(const struct relation *rel, const struct column *c)
{
	return !(c->flags & COLUMN_GENERATED) || !is_own_engine(rel);
}

/* ---- types ---- */

/* Neutral binary forms and what a column of another engine becomes. */
static const struct { uint32_t oid; const char *sql; } neutral[TYPE_COUNT] = {
	[TYPE_BOOL] = { 16, "boolean" }, [TYPE_INT16] = { 21, "smallint" }, [TYPE_INT32] = { 23, "integer" },
	[TYPE_INT64] = { 20, "bigint" }, [TYPE_UINT64] = { 0, "numeric(20,0)" }, [TYPE_FLOAT32] = { 700, "real" },
	[TYPE_FLOAT64] = { 701, "double precision" }, [TYPE_NUMERIC] = { 1700, "numeric" }, [TYPE_MONEY] = { 0, "numeric" },
	[TYPE_TEXT] = { 25, "text" }, [TYPE_CHAR] = { 0, "text" }, [TYPE_BYTES] = { 17, "bytea" }, [TYPE_UUID] = { 2950, "uuid" },
	[TYPE_JSON] = { 114, "json" }, [TYPE_JSONB] = { 3802, "jsonb" }, [TYPE_XML] = { 0, "xml" },
	[TYPE_DATE] = { 1082, "date" }, [TYPE_TIME] = { 1083, "time" }, [TYPE_TIMETZ] = { 1266, "timetz" },
	[TYPE_TIMESTAMP] = { 1114, "timestamp" }, [TYPE_TIMESTAMPTZ] = { 1184, "timestamptz" }, [TYPE_INTERVAL] = { 1186, "interval" },
	[TYPE_BIT] = { 1560, "bit varying" }, [TYPE_VARBIT] = { 1562, "bit varying" },
};

uint32_t sql_binary_type(const struct relation *rel, const struct column *c)
{
	if (is_own_engine(rel))
		return c->type_id < FIRST_USER_OID ? c->type_id : 0;
	return c->type < TYPE_COUNT ? neutral[c->type].oid : 0;
}

void sql_type(struct buf *out, const struct relation *rel, const struct column *c)
{
	if (is_own_engine(rel))
		buf_str(out, c->native_type);
	else
		buf_str(out, c->type < TYPE_COUNT && neutral[c->type].sql ? neutral[c->type].sql : "text");
}

/* ---- changes ---- */

struct params {
	struct buf *out;
	uint32_t *types;
	int n;
};

static void add_param(struct params *p, const struct relation *rel, unsigned column, uint8_t how)
{
	p->types[p->n++] = how == PARAM_BINARY ? sql_binary_type(rel, &rel->columns[column]) : 0;
	buf_printf(p->out, "$%d", p->n);
}

/* "a", "b", ...: the columns that come */
static unsigned add_names(struct buf *out, const struct relation *rel, const uint8_t *how)
{
	unsigned n = 0;
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (how[i] == PARAM_NONE)
			continue;
		buf_str(out, n++ ? ", " : "");
		sql_ident(out, rel->columns[i].name);
	}
	return n;
}

static void insert(struct params *p, const struct target_table *tb, const struct shape *sh)
{
	const struct relation *rel = tb->rel;
	size_t before = p->out->len;
	buf_printf(p->out, "INSERT INTO %s (", tb->sql);
	if (!add_names(p->out, rel, sh->after)) {
		p->out->len = before;
		buf_printf(p->out, "INSERT INTO %s DEFAULT VALUES", tb->sql);
		return;
	}
	buf_str(p->out, ") OVERRIDING SYSTEM VALUE VALUES (");
	for (unsigned i = 0, n = 0; i < rel->ncolumns; i++) {
		if (sh->after[i] == PARAM_NONE)
			continue;
		buf_str(p->out, n++ ? "," : "");
		add_param(p, rel, i, sh->after[i]);
	}
	buf_byte(p->out, ')');
}

/* A text is read as the column's type: left open, the operator's would be taken (oid for a regclass). */
static void where_key(struct params *p, const struct target_table *tb, const struct shape *sh)
{
	const struct relation *rel = tb->rel;
	const char *word = " WHERE ";
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (sh->before[i] == PARAM_NONE)
			continue;
		buf_str(p->out, word);
		sql_ident(p->out, rel->columns[i].name);
		buf_printf(p->out, " %s ", tb->of[i] && tb->of[i]->equals ? tb->of[i]->equals : "=");
		add_param(p, rel, i, sh->before[i]);
		if (sh->before[i] == PARAM_TEXT && tb->of[i])
			buf_printf(p->out, "::%s", tb->of[i]->type_sql);
		word = " AND ";
	}
}

/* Both sides of a comparison of whole rows; each value is cast to its column's very type. */
static void compare_images(struct params *p, const struct target_table *tb, const struct shape *sh)
{
	const struct relation *rel = tb->rel;
	const char *comma = "";
	buf_str(p->out, "(ROW(");
	add_names(p->out, rel, sh->before);
	buf_str(p->out, ")::record) OPERATOR(pg_catalog.*=) (ROW(");
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (sh->before[i] == PARAM_NONE)
			continue;
		buf_str(p->out, comma);
		add_param(p, rel, i, sh->before[i]);
		buf_printf(p->out, "::%s", tb->of[i]->type_sql);
		comma = ",";
	}
	buf_str(p->out, ")::record)");
}

static void compare_texts(struct params *p, const struct target_table *tb, const struct shape *sh, int first)
{
	const struct relation *rel = tb->rel;
	const char *word = "";
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (sh->before[i] == PARAM_NONE)
			continue;
		buf_str(p->out, word);
		sql_ident(p->out, rel->columns[i].name);
		buf_printf(p->out, "::text IS NOT DISTINCT FROM $%d::%s::text", ++first, tb->of[i]->type_sql);
		word = " AND ";
	}
}

/* One row, by all of its columns. The image (bytes) of a row is compared first: that needs no equality of the types, takes NULL for NULL, and tells
 * 1.0 from 1.00. Should a type have two images for the same value, the texts decide; that half runs only when the first found nothing. */
static void where_row(struct params *p, const struct target_table *tb, const struct shape *sh)
{
	int first = p->n;
	buf_printf(p->out, "((SELECT ctid, tableoid FROM %s WHERE ", tb->sql);
	compare_images(p, tb, sh);
	buf_printf(p->out, " LIMIT 1) UNION ALL (SELECT ctid, tableoid FROM %s WHERE ", tb->sql);
	compare_texts(p, tb, sh, first);
	buf_str(p->out, " LIMIT 1) LIMIT 1) AS dmsr_row(c, o) WHERE ");
	buf_printf(p->out, "%s.ctid = dmsr_row.c AND %s.tableoid = dmsr_row.o", tb->sql, tb->sql);
}

/* The server lets nobody write such a column in an update. */
static bool is_settable(const struct target_table *tb, unsigned column) { return !tb->of[column] || !tb->of[column]->is_identity_always; }

bool sql_sets_any(const struct target_table *tb, const uint8_t *after)
{
	for (unsigned i = 0; i < tb->rel->ncolumns; i++)
		if (after[i] != PARAM_NONE && is_settable(tb, i))
			return true;
	return false;
}

/* set: what is written; same: what must be as it is there already. */
static void update_lists(struct params *p, const struct target_table *tb, const struct shape *sh, struct buf *set, struct buf *same)
{
	struct buf *all = p->out;
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		if (sh->after[i] == PARAM_NONE)
			continue;
		bool is_set = is_settable(tb, i);
		p->out = is_set ? set : same;
		buf_str(p->out, p->out->len ? is_set ? ", " : " AND " : "");
		if (!is_set)
			buf_printf(p->out, "%s.", tb->sql);
		sql_ident(p->out, tb->rel->columns[i].name);
		buf_byte(p->out, '=');
		add_param(p, tb->rel, i, sh->after[i]);
	}
	p->out = all;
}

static void update(struct params *p, const struct target_table *tb, const struct shape *sh)
{
	struct buf set, same;
	buf_init(&set, SQL_MAX);
	buf_init(&same, SQL_MAX);
	update_lists(p, tb, sh, &set, &same);
	/* A row of which nothing that is written came is only looked for. */
	bool is_empty = !set.len;
	if (is_empty)
		buf_printf(p->out, "SELECT%s%s FROM %s", same.len ? " " : "", buf_cstr(&same), tb->sql);
	else
		buf_printf(p->out, "UPDATE %s SET %s", tb->sql, buf_cstr(&set));
	if (sh->has_key_only) {
		where_key(p, tb, sh);
	} else {
		buf_str(p->out, is_empty ? ", " : " FROM ");
		where_row(p, tb, sh);
	}
	if (!is_empty && same.len)
		buf_printf(p->out, " RETURNING %s", buf_cstr(&same));
	buf_fini(&set);
	buf_fini(&same);
}

static void delete (struct params *p, const struct target_table *tb, const struct shape *sh)
{
	buf_printf(p->out, "DELETE FROM %s", tb->sql);
	if (sh->has_key_only) {
		where_key(p, tb, sh);
		return;
	}
	buf_str(p->out, " USING ");
	where_row(p, tb, sh);
}

int sql_row_change(struct buf *out, const struct target_table *tb, const struct shape *sh, uint32_t *types)
{
	struct params p = { out, types, 0 };
	if (sh->op == OP_UPDATE)
		update(&p, tb, sh);
	else if (sh->op == OP_DELETE)
		delete (&p, tb, sh);
	else
		insert(&p, tb, sh);
	return p.n;
}

/* ---- sets ---- */

/* unnest($1::int4[], ...) AS dmsr_set (a0, ..., b0, ...): the values of a column of the source's relation are those of a or b and its number. Types whose
 * arrays are not taken apart into their values come as texts. */
static int from_arrays(struct buf *out, const struct target_table *tb, const struct shape *sh)
{
	const uint8_t *how[] = { sh->after, sh->before };
	int n = 0;
	buf_str(out, "unnest(");
	for (unsigned side = 0; side < 2; side++)
		for (unsigned i = 0; i < tb->rel->ncolumns; i++)
			if (how[side][i] != PARAM_NONE) {
				n++;
				buf_printf(out, "%s$%d::%s[]", n > 1 ? "," : "", n, tb->of[i]->is_by_text ? "text" : tb->of[i]->type_sql);
			}
	buf_str(out, ") AS dmsr_set (");
	const char *comma = "";
	for (unsigned side = 0; side < 2; side++)
		for (unsigned i = 0; i < tb->rel->ncolumns; i++)
			if (how[side][i] != PARAM_NONE) {
				buf_printf(out, "%s%c%u", comma, side ? 'b' : 'a', i);
				comma = ",";
			}
	buf_byte(out, ')');
	return n;
}

static void add_item(struct buf *out, const struct target_table *tb, char side, unsigned column)
{
	buf_printf(out, "dmsr_set.%c%u", side, column);
	if (tb->of[column]->is_by_text)
		buf_printf(out, "::%s", tb->of[column]->type_sql);
}

static int insert_set(struct buf *out, const struct target_table *tb, const struct shape *sh)
{
	const char *comma = "";
	buf_printf(out, "INSERT INTO %s (", tb->sql);
	add_names(out, tb->rel, sh->after);
	buf_str(out, ") OVERRIDING SYSTEM VALUE SELECT ");
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		if (sh->after[i] == PARAM_NONE)
			continue;
		buf_str(out, comma);
		add_item(out, tb, 'a', i);
		comma = ",";
	}
	buf_str(out, " FROM ");
	return from_arrays(out, tb, sh);
}

static void where_set(struct buf *out, const struct target_table *tb, const struct shape *sh)
{
	const char *word = " WHERE ";
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		if (sh->before[i] == PARAM_NONE)
			continue;
		buf_printf(out, "%sdmsr_row.", word);
		sql_ident(out, tb->rel->columns[i].name);
		buf_printf(out, " %s ", tb->of[i]->equals ? tb->of[i]->equals : "=");
		add_item(out, tb, 'b', i);
		word = " AND ";
	}
}

/* name = value of the columns that are written, or of those that must be as they are */
static void assign_set(struct buf *out, const struct target_table *tb, const struct shape *sh, bool is_set)
{
	const char *word = is_set ? " SET " : " RETURNING ";
	for (unsigned i = 0; i < tb->rel->ncolumns; i++) {
		if (sh->after[i] == PARAM_NONE || is_settable(tb, i) != is_set)
			continue;
		buf_printf(out, "%s%s", word, is_set ? "" : "dmsr_row.");
		sql_ident(out, tb->rel->columns[i].name);
		buf_byte(out, '=');
		add_item(out, tb, 'a', i);
		word = is_set ? ", " : " AND ";
	}
}

static int update_set(struct buf *out, const struct target_table *tb, const struct shape *sh)
{
	buf_printf(out, "UPDATE %s AS dmsr_row", tb->sql);
	assign_set(out, tb, sh, true);
	buf_str(out, " FROM ");
	int n = from_arrays(out, tb, sh);
	where_set(out, tb, sh);
	assign_set(out, tb, sh, false);
	return n;
}

static int delete_set(struct buf *out, const struct target_table *tb, const struct shape *sh)
{
	buf_printf(out, "DELETE FROM %s AS dmsr_row USING ", tb->sql);
	int n = from_arrays(out, tb, sh);
	where_set(out, tb, sh);
	return n;
}

int sql_set_change(struct buf *out, const struct target_table *tb, const struct shape *sh, uint32_t *types)
{
	int n = sh->op == OP_UPDATE ? update_set(out, tb, sh) : sh->op == OP_DELETE ? delete_set(out, tb, sh) : insert_set(out, tb, sh);
	memset(types, 0, (size_t)n * sizeof *types);
	return n;
}

static void truncate_tables(struct buf *out, struct target_table *const *tables, size_t n, unsigned flags)
{
	for (size_t i = 0; i < n; i++)
		buf_printf(out, "%s%s", i ? ", " : "TRUNCATE ", tables[i]->sql);
	if (flags & CHANGE_RESTART_IDENTITY)
		buf_str(out, " RESTART IDENTITY");
	if (flags & CHANGE_CASCADE)
		buf_str(out, " CASCADE");
}

/* Does a foreign key lead here, maybe over others, from a table of the job whose rows are newer? */
static void ask_newer(struct buf *out, struct target_table *const *tables, size_t n, const struct sql_truncate_for *job)
{
	char at[24];
	buf_str(out, "WITH RECURSIVE own AS (SELECT pg_catalog.unnest(ARRAY[");
	for (size_t i = 0; i < n; i++) {
		buf_str(out, i ? ", " : "");
		sql_literal(out, tables[i]->sql);
	}
	buf_str(out, "]::pg_catalog.regclass[])::pg_catalog.oid AS oid), r AS (SELECT oid FROM own UNION SELECT k.conrelid FROM pg_catalog.pg_constraint k "
		"JOIN r ON k.confrelid = r.oid WHERE k.contype = 'f') SELECT FROM r JOIN pg_catalog.pg_class c USING (oid) "
		"JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace JOIN dmsr.loads l ON l.schema_name = s.nspname AND l.table_name = c.relname "
		"WHERE c.oid NOT IN (SELECT oid FROM own) AND CASE WHEN l.position LIKE 'pg:%' "
		"THEN pg_catalog.split_part(l.position, ':', 3)::pg_catalog.pg_lsn > ");
	buf_printf(out, "'%s' END AND l.job_uid = ", lsn_format(job->lsn, at));
	sql_literal(out, job->uid);
}

void sql_truncate(struct buf *out, struct target_table *const *tables, size_t n, unsigned flags, const struct sql_truncate_for *job)
{
	struct buf body;
	bool has_references = false;
	for (size_t i = 0; i < n; i++)
		has_references |= tables[i]->has_references;
	if (!has_references) {
		truncate_tables(out, tables, n, flags);
		return;
	}
	buf_init(&body, 16 << 20);
	buf_str(&body, "BEGIN IF EXISTS (");
	ask_newer(&body, tables, n, job);
	buf_str(&body, ") THEN ");
	for (size_t i = 0; i < n && job->keys_rest; i++)
		buf_printf(&body, "%sDELETE FROM %s", i ? "; " : "", tables[i]->sql);
	if (!job->keys_rest)
		truncate_tables(&body, tables, n, flags & ~(unsigned)CHANGE_CASCADE);
	buf_str(&body, "; ELSE ");
	truncate_tables(&body, tables, n, flags);
	buf_str(&body, "; END IF; END");
	buf_str(out, "DO LANGUAGE plpgsql ");
	sql_literal(out, buf_cstr(&body));
	buf_fini(&body);
}

/* ---- tables ---- */

void sql_column(struct buf *out, const struct relation *rel, const struct column *c, bool with_not_null)
{
	sql_ident(out, c->name);
	buf_byte(out, ' ');
	sql_type(out, rel, c);
	if (is_own_engine(rel)) {
		if (c->collation)
			buf_printf(out, " COLLATE %s", c->collation);
		if ((c->flags & COLUMN_GENERATED) && c->dflt)
			buf_printf(out, " GENERATED ALWAYS AS (%s) STORED", c->dflt);
	}
	if (with_not_null && !(c->flags & COLUMN_NULLABLE))
		buf_str(out, " NOT NULL");
}

void sql_create_table(struct buf *out, const struct relation *rel)
{
	buf_str(out, "CREATE TABLE ");
	sql_qualified(out, rel->schema, rel->name);
	buf_str(out, " (");
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		buf_str(out, i ? ",\n\t" : "\n\t");
		sql_column(out, rel, &rel->columns[i], true);
	}
	buf_byte(out, ')');
}

/* A schema is looked for first: to make it needs a right, even if it is there. */
bool sql_make_once(struct buf *out, const struct ddl *d)
{
	if (strstr(d->sql, "$dmsr_once$"))
		return false;
	buf_str(out, "DO $dmsr_once$ BEGIN ");
	if (!strcmp(d->kind, "schema")) {
		buf_str(out, "IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = ");
		sql_literal(out, d->name);
		buf_printf(out, ") THEN %s; END IF;", d->sql);
	} else {
		buf_printf(out, "%s;", d->sql);
	}
	buf_str(out, " EXCEPTION WHEN duplicate_schema OR duplicate_object OR duplicate_table THEN NULL; END $dmsr_once$");
	return true;
}

/* "CREATE TYPE name AS ENUM (labels)", where a quoted name may hold any of these words: the server reads both parts as they are. */
bool sql_ask_labels(struct buf *out, const struct ddl *d)
{
	static const char create[] = "CREATE TYPE ", as[] = " AS ENUM (";
	size_t len = strlen(d->sql);
	bool is_quoted = false;
	if (len < sizeof create || strncmp(d->sql, create, sizeof create - 1) != 0 || d->sql[len - 1] != ')')
		return false;
	const char *name = d->sql + sizeof create - 1, *p = name;
	for (; *p && (is_quoted || *p != ' '); p++)
		is_quoted = is_quoted != (*p == '"');
	if (strncmp(p, as, sizeof as - 1) != 0)
		return false;
	char *type = mem_strndup(name, (size_t)(p - name));
	buf_str(out, "SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TYPE %s ADD VALUE IF NOT EXISTS %L', x.type, x.label) || CASE "
		"WHEN x.n > 1 THEN pg_catalog.format(' AFTER %L', x.before) WHEN x.first IS NOT NULL THEN pg_catalog.format(' BEFORE %L', x.first) ELSE '' END"
		", '; ' ORDER BY x.n) FROM (SELECT y.type, t.oid, l.label, l.n, pg_catalog.lag(l.label) OVER (ORDER BY l.n) AS before, "
		"(SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder LIMIT 1) AS first FROM (SELECT ");
	sql_literal(out, type);
	buf_str(out, "::text AS type) y JOIN pg_catalog.pg_type t ON t.oid = pg_catalog.to_regtype(y.type) AND t.typtype = 'e' "
		"CROSS JOIN pg_catalog.unnest(ARRAY[");
	buf_append(out, p + sizeof as - 1, len - (size_t)(p + sizeof as - 1 - d->sql) - 1);
	buf_str(out, "]::text[]) WITH ORDINALITY l(label, n)) x "
		"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_enum e WHERE e.enumtypid = x.oid AND e.enumlabel = x.label)");
	free(type);
	return true;
}

/* ---- COPY ---- */

static void add_written(struct buf *out, const struct relation *rel)
{
	unsigned n = 0;
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (!sql_is_written(rel, &rel->columns[i]))
			continue;
		buf_str(out, n++ ? ", " : "");
		sql_ident(out, rel->columns[i].name);
	}
}

void sql_part_table(struct buf *out, const struct relation *rel)
{
	buf_str(out, "CREATE TEMPORARY TABLE dmsr_part ON COMMIT DROP AS SELECT ");
	add_written(out, rel);
	buf_str(out, " FROM ");
	sql_qualified(out, rel->schema, rel->name);
	buf_str(out, " WITH NO DATA");
}

void sql_part_copy(struct buf *out, const struct relation *rel, bool is_binary)
{
	buf_str(out, "COPY pg_temp.dmsr_part (");
	add_written(out, rel);
	buf_printf(out, ") FROM STDIN WITH (FORMAT %s)", is_binary ? "binary" : "text");
}

/* Nobody is between the two. Few rows for a table that may be big: each is found by the key's index. */
void sql_part_merge(struct buf *out, const struct target_table *tb)
{
	const struct relation *rel = tb->rel;
	buf_printf(out, "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; DELETE FROM %s dmsr_row USING pg_temp.dmsr_part WHERE ", tb->sql);
	for (unsigned i = 0; i < rel->nkeys; i++) {
		const struct target_column *own = tb->of[rel->keys[i]];
		buf_str(out, i ? " AND dmsr_row." : "dmsr_row.");
		sql_ident(out, rel->columns[rel->keys[i]].name);
		buf_printf(out, " %s dmsr_part.", own && own->equals ? own->equals : "=");
		sql_ident(out, rel->columns[rel->keys[i]].name);
	}
	buf_printf(out, "; INSERT INTO %s (", tb->sql);
	add_written(out, rel);
	buf_str(out, ") OVERRIDING SYSTEM VALUE SELECT ");
	add_written(out, rel);
	buf_str(out, " FROM pg_temp.dmsr_part");
}

void sql_copy(struct buf *out, const struct relation *rel, bool is_binary, bool is_frozen)
{
	const char *word = " (";
	buf_str(out, "COPY ");
	sql_qualified(out, rel->schema, rel->name);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (!sql_is_written(rel, &rel->columns[i]))
			continue;
		buf_str(out, word);
		sql_ident(out, rel->columns[i].name);
		word = ", ";
	}
	buf_printf(out, "%s FROM STDIN WITH (FORMAT %s%s)", word[0] == ',' ? ")" : "", is_binary ? "binary" : "text",
		is_frozen ? ", FREEZE true" : "");
}

static void add_escaped(struct buf *out, const char *s, size_t len)
{
	static const char letters[] = { ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\v'] = 'v', ['\f'] = 'f', ['\r'] = 'r', ['\\'] = '\\' };
	size_t done = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)s[i];
		if (ch >= sizeof letters || !letters[ch])
			continue;
		buf_append(out, s + done, i - done);
		buf_byte(out, '\\');
		buf_byte(out, letters[ch]);
		done = i + 1;
	}
	buf_append(out, s + done, len - done);
}

static int add_field(struct buf *out, const struct column *c, const struct value *v, struct buf *text, struct err *e)
{
	if (v->kind == VALUE_NULL || v->kind == VALUE_UNCHANGED) {
		buf_str(out, "\\N");
		return 0;
	}
	if (v->kind == VALUE_TEXT) {
		add_escaped(out, v->data, v->len);
		return 0;
	}
	buf_reset(text);
	int rc = value_to_text(v, c->type, c->elem_type, text, e);
	if (rc)
		return rc;
	add_escaped(out, text->data, text->len);
	return 0;
}

int sql_copy_row(struct buf *out, const struct relation *rel, const struct value *row, struct err *e)
{
	const char *tab = "";
	struct buf text;
	int rc = 0;
	buf_init(&text, (size_t)1 << 30);
	for (unsigned i = 0; i < rel->ncolumns && !rc; i++) {
		if (!sql_is_written(rel, &rel->columns[i]))
			continue;
		buf_str(out, tab);
		rc = add_field(out, &rel->columns[i], &row[i], &text, e);
		tab = "\t";
	}
	buf_byte(out, '\n');
	buf_fini(&text);
	return rc;
}
