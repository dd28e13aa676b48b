/* target_sql: the target's statements, word for word. Columns of the table: id int4 (key), Na"me text, tags int4[], g generated, ci citext (of another
 * schema, with an equality of its own). */
#include "test.h"

#include "connectors/postgres/target_sql.h"

enum { ID, NAME, TAGS, GENERATED, CI, COLUMNS };
static struct target_column own[COLUMNS];
static struct target_column *of[COLUMNS];
static struct target_table table;
static struct buf sql;
static uint32_t types[2 * COLUMNS];

static void add(struct relation_builder *b, const char *name, const char *native, uint32_t oid, enum logical_type type, unsigned flags)
{
	struct column c = { .name = name, .native_type = native, .type_id = oid, .typmod = -1, .type = (uint8_t)type, .flags = (uint8_t)flags };
	c.key_pos = !strcmp(name, "id");
	if (flags & COLUMN_GENERATED)
		c.dflt = "id + 1";
	if (!strcmp(name, "Na\"me"))
		c.collation = "pg_catalog.\"C\"";
	relation_build_column(b, &c);
}

static struct relation *relation_of(const char *engine)
{
	struct relation_builder *b = relation_build(engine, "S", "t", 1);
	add(b, "id", "integer", 23, TYPE_INT32, 0);
	add(b, "Na\"me", "character varying(5)", 1043, TYPE_TEXT, COLUMN_NULLABLE);
	add(b, "tags", "integer[]", 1007, TYPE_ARRAY, COLUMN_NULLABLE);
	add(b, "g", "integer", 23, TYPE_INT32, COLUMN_NULLABLE | COLUMN_GENERATED);
	add(b, "ci", "ext.citext", 20000, TYPE_TEXT, COLUMN_NULLABLE);
	return relation_seal(b, KEY_PRIMARY);
}

static char *text(const char *s)
{
	union { const char *in; char *out; } u = { .in = s };
	return u.out;
}

static int setup(void **state)
{
	(void)state;
	own[ID] = (struct target_column){ .name = text("id"), .type = 23, .type_sql = text("integer") };
	own[NAME] = (struct target_column){ .name = text("Na\"me"), .type = 1043, .type_sql = text("character varying") };
	own[TAGS] = (struct target_column){ .name = text("tags"), .type = 1007, .type_sql = text("integer[]"), .is_by_text = true };
	own[GENERATED] = (struct target_column){ .name = text("g"), .type = 23, .type_sql = text("integer"), .is_generated = true };
	own[CI] = (struct target_column){ .name = text("ci"), .type = 30000, .type_sql = text("ext.citext"), .equals = text("OPERATOR(ext.=)") };
	for (unsigned i = 0; i < COLUMNS; i++)
		of[i] = &own[i];
	table = (struct target_table){ .sql = text("T"), .rel = relation_of("postgres"), .of = of };
	buf_init(&sql, 1 << 16);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	relation_unref(table.rel);
	buf_fini(&sql);
	return 0;
}

/* how: a letter a column, "t" text, "b" binary, "." none */
static const uint8_t *shape_of(const char *how, uint8_t *out)
{
	for (unsigned i = 0; i < COLUMNS; i++)
		out[i] = how[i] == 't' ? PARAM_TEXT : how[i] == 'b' ? PARAM_BINARY : PARAM_NONE;
	return out;
}

static int make(enum change_op op, bool is_set, bool by_key, const char *after, const char *before)
{
	uint8_t a[COLUMNS], b[COLUMNS];
	struct shape sh = { .op = (uint8_t)op, .is_set = is_set, .has_key_only = by_key, .after = shape_of(after, a), .before = shape_of(before, b) };
	buf_reset(&sql);
	memset(types, 0xff, sizeof types);
	return is_set ? sql_set_change(&sql, &table, &sh, types) : sql_row_change(&sql, &table, &sh, types);
}

static void changes_a_row(void **state)
{
	(void)state;
	assert_int_equal(make(OP_CREATE, false, true, "btt..", "....."), 3);
	assert_string_equal(buf_cstr(&sql), "INSERT INTO T (\"id\", \"Na\"\"me\", \"tags\") OVERRIDING SYSTEM VALUE VALUES ($1,$2,$3)");
	assert_int_equal(types[0], 23);
	assert_int_equal(types[1], 0);
	assert_int_equal(make(OP_CREATE, false, true, ".....", "....."), 0);
	assert_string_equal(buf_cstr(&sql), "INSERT INTO T DEFAULT VALUES");
	assert_int_equal(make(OP_UPDATE, false, true, ".t...", "t...t"), 3);
	assert_string_equal(buf_cstr(&sql), "UPDATE T SET \"Na\"\"me\"=$1 WHERE \"id\" = $2::integer AND \"ci\" OPERATOR(ext.=) $3::ext.citext");
	assert_int_equal(make(OP_UPDATE, false, true, ".....", "t...."), 1);
	assert_string_equal(buf_cstr(&sql), "SELECT FROM T WHERE \"id\" = $1::integer");
	assert_int_equal(make(OP_DELETE, false, true, ".....", "b...."), 1);
	assert_string_equal(buf_cstr(&sql), "DELETE FROM T WHERE \"id\" = $1");
	assert_int_equal(types[0], 23);
}

static void finds_one_row_by_all_of_it(void **state)
{
	(void)state;
	assert_int_equal(make(OP_DELETE, false, false, ".....", "t.t.."), 2);
	assert_string_equal(buf_cstr(&sql),
		"DELETE FROM T USING ((SELECT ctid, tableoid FROM T WHERE (ROW(\"id\", \"tags\")::record) OPERATOR(pg_catalog.*=) "
		"(ROW($1::integer,$2::integer[])::record) LIMIT 1) UNION ALL (SELECT ctid, tableoid FROM T WHERE "
		"\"id\"::text IS NOT DISTINCT FROM $1::integer::text AND \"tags\"::text IS NOT DISTINCT FROM $2::integer[]::text LIMIT 1) LIMIT 1) "
		"AS dmsr_row(c, o) WHERE T.ctid = dmsr_row.c AND T.tableoid = dmsr_row.o");
}

static void changes_a_set(void **state)
{
	(void)state;
	assert_int_equal(make(OP_CREATE, true, true, "ttt..", "....."), 3);
	assert_string_equal(buf_cstr(&sql), "INSERT INTO T (\"id\", \"Na\"\"me\", \"tags\") OVERRIDING SYSTEM VALUE SELECT dmsr_set.a0,dmsr_set.a1,"
		"dmsr_set.a2::integer[] FROM unnest($1::integer[],$2::character varying[],$3::text[]) AS dmsr_set (a0,a1,a2)");
	assert_int_equal(types[0], 0);
	assert_int_equal(types[2], 0);
	assert_int_equal(make(OP_UPDATE, true, true, ".tt..", "t...t"), 4);
	assert_string_equal(buf_cstr(&sql), "UPDATE T AS dmsr_row SET \"Na\"\"me\"=dmsr_set.a1, \"tags\"=dmsr_set.a2::integer[] "
		"FROM unnest($1::character varying[],$2::text[],$3::integer[],$4::ext.citext[]) AS dmsr_set (a1,a2,b0,b4) "
		"WHERE dmsr_row.\"id\" = dmsr_set.b0 AND dmsr_row.\"ci\" OPERATOR(ext.=) dmsr_set.b4");
	assert_int_equal(make(OP_DELETE, true, true, ".....", "t...."), 1);
	assert_string_equal(buf_cstr(&sql), "DELETE FROM T AS dmsr_row USING unnest($1::integer[]) AS dmsr_set (b0) WHERE dmsr_row.\"id\" = dmsr_set.b0");
}

static void truncates(void **state)
{
	struct target_table other = { .sql = text("U") }, *both[] = { &table, &other };
	struct sql_truncate_for job = { "uid", 0x1000000AB, true };
	(void)state;
	buf_reset(&sql);
	sql_truncate(&sql, both, 2, 0, &job);
	assert_string_equal(buf_cstr(&sql), "TRUNCATE T, U");
	buf_reset(&sql);
	sql_truncate(&sql, both, 1, CHANGE_CASCADE | CHANGE_RESTART_IDENTITY, &job);
	assert_string_equal(buf_cstr(&sql), "TRUNCATE T RESTART IDENTITY CASCADE");
	/* There may be tables that refer to one of them and are to be spared. */
	other.has_references = true;
	buf_reset(&sql);
	sql_truncate(&sql, both, 2, CHANGE_CASCADE, &job);
	assert_non_null(strstr(buf_cstr(&sql), "pg_lsn > ''1/AB'' END AND l.job_uid = ''uid'') THEN "
		"DELETE FROM T; DELETE FROM U; ELSE TRUNCATE T, U CASCADE; END IF; END'"));
	job.keys_rest = false;
	buf_reset(&sql);
	sql_truncate(&sql, both, 2, CHANGE_CASCADE, &job);
	assert_non_null(strstr(buf_cstr(&sql), "pg_lsn > ''1/AB'' END AND l.job_uid = ''uid'') THEN "
		"TRUNCATE T, U; ELSE TRUNCATE T, U CASCADE; END IF; END'"));
}

static void makes_tables(void **state)
{
	struct relation *foreign = relation_of("mysql");
	(void)state;
	buf_reset(&sql);
	sql_create_table(&sql, table.rel);
	assert_string_equal(buf_cstr(&sql),
		"CREATE TABLE \"S\".\"t\" (\n\t\"id\" integer NOT NULL,\n\t\"Na\"\"me\" character varying(5) COLLATE pg_catalog.\"C\",\n"
		"\t\"tags\" integer[],\n\t\"g\" integer GENERATED ALWAYS AS (id + 1) STORED,\n\t\"ci\" ext.citext)");
	buf_reset(&sql);
	sql_create_table(&sql, foreign);
	assert_string_equal(buf_cstr(&sql),
		"CREATE TABLE \"S\".\"t\" (\n\t\"id\" integer NOT NULL,\n\t\"Na\"\"me\" text,\n"
		"\t\"tags\" text,\n\t\"g\" integer,\n\t\"ci\" text)");
	assert_int_equal(sql_binary_type(table.rel, &table.rel->columns[CI]), 0);
	assert_int_equal(sql_binary_type(table.rel, &table.rel->columns[TAGS]), 1007);
	assert_int_equal(sql_binary_type(foreign, &foreign->columns[NAME]), 25);
	relation_unref(foreign);
}

static void makes_things_once(void **state)
{
	struct ddl d = { .kind = "enum", .name = "s.e", .sql = "CREATE TYPE e AS ENUM ('a')" };
	(void)state;
	buf_reset(&sql);
	assert_true(sql_make_once(&sql, &d));
	assert_string_equal(buf_cstr(&sql), "DO $dmsr_once$ BEGIN CREATE TYPE e AS ENUM ('a'); EXCEPTION WHEN duplicate_schema OR duplicate_object OR "
		"duplicate_table THEN NULL; END $dmsr_once$");
	d = (struct ddl){ .kind = "schema", .name = "o's", .sql = "CREATE SCHEMA \"o's\"" };
	buf_reset(&sql);
	assert_true(sql_make_once(&sql, &d));
	assert_non_null(strstr(buf_cstr(&sql), "WHERE nspname = 'o''s') THEN CREATE SCHEMA \"o's\"; END IF;"));
	d.sql = "COMMENT ON x IS '$dmsr_once$'";
	assert_false(sql_make_once(&sql, &d));
}

static void asks_for_labels(void **state)
{
	static const char *const others[] = { "", "CREATE TYPE ", "CREATE TYPE e AS ENUM", "CREATE TYPE e AS ENUM ('a'", "CREATE TYPE e AS RANGE (SUBTYPE = x)",
		"CREATE TYPE \"s\".\"e AS ENUM ('a')", "CREATE TYPE e" };
	struct ddl d = { .kind = "enum", .name = "s.e AS ENUM (", .sql = "CREATE TYPE \"s\".\"e\"\" AS ENUM (\" AS ENUM ('a', ' AS ENUM (')" };
	(void)state;
	buf_reset(&sql);
	assert_true(sql_ask_labels(&sql, &d));
	assert_non_null(strstr(buf_cstr(&sql), "(SELECT '\"s\".\"e\"\" AS ENUM (\"'::text AS type) y"));
	assert_non_null(strstr(buf_cstr(&sql), "unnest(ARRAY['a', ' AS ENUM (']::text[])"));
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		d.sql = others[i];
		buf_reset(&sql);
		assert_false(sql_ask_labels(&sql, &d));
		assert_int_equal(sql.len, 0);
	}
}

static void copies(void **state)
{
	struct err e = { 0 };
	const struct value row[COLUMNS] = { [ID] = { "\0\0\1\2", 4, VALUE_BINARY }, [NAME] = value_text("a\tb\\\n", 5), [TAGS] = { 0 },
		[GENERATED] = value_text("9", 1), [CI] = value_text("", 0) };
	(void)state;
	buf_reset(&sql);
	sql_copy(&sql, table.rel, true, true);
	assert_string_equal(buf_cstr(&sql), "COPY \"S\".\"t\" (\"id\", \"Na\"\"me\", \"tags\", \"ci\") FROM STDIN WITH (FORMAT binary, FREEZE true)");
	buf_reset(&sql);
	assert_int_equal(sql_copy_row(&sql, table.rel, row, &e), 0);
	assert_string_equal(buf_cstr(&sql), "258\ta\\tb\\\\\\n\t\\N\t\n");
	const struct value bad[COLUMNS] = { [ID] = { "\0", 1, VALUE_BINARY } };
	buf_reset(&sql);
	assert_int_not_equal(sql_copy_row(&sql, table.rel, bad, &e), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
RUN_TESTS(TEST(changes_a_row), TEST(finds_one_row_by_all_of_it), TEST(changes_a_set), TEST(truncates),
	TEST(makes_tables), TEST(makes_things_once), TEST(asks_for_labels), TEST(copies))
