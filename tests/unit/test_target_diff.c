/* target_diff: what became of the columns, and the statements for it. Tables are written "id:integer! a:text=5 g:integer~": ! in the key, = a default,
 * - may not be NULL, ~ generated; and behind the type "#3": the source's number, "?x": what older rows have. */
#include "test.h"

#include "connectors/postgres/target_diff.h"

static void read_marks(char *word, struct column *c, uint16_t *places)
{
	for (char *mark; (mark = strpbrk(word, "!-~")); *mark = 0) {
		if (*mark == '~')
			c->flags |= COLUMN_GENERATED;
		else
			c->flags &= (uint8_t)~COLUMN_NULLABLE;
		if (*mark == '!')
			c->key_pos = ++*places;
	}
}

/* What stands behind a mark, which ends the text before it. */
static const char *cut(char *word, char mark)
{
	char *at = strchr(word, mark);
	if (!at)
		return NULL;
	*at = 0;
	return at + 1;
}

static struct relation *relation_of(const char *text, enum key_kind key, const char *engine)
{
	struct relation_builder *b = relation_build(engine, "s", "t", 1);
	char *copy = mem_strdup(text), *rest = copy, *word;
	uint16_t places = 0;
	while ((word = strsep(&rest, " "))) {
		struct column c = { .typmod = -1, .flags = COLUMN_NULLABLE };
		if (!*word)
			continue;
		c.name = strsep(&word, ":");
		c.native_type = word;
		c.dflt = cut(word, '=');
		c.missing = cut(word, '?');
		const char *number = cut(word, '#');
		c.source_id = (uint16_t)(number ? strtoul(number, NULL, 10) : 0);
		read_marks(word, &c, &places);
		relation_build_column(b, &c);
	}
	free(copy);
	return relation_seal(b, key);
}

static void fill(struct target_table *tb, const struct relation *have)
{
	tb->columns = mem_zalloc((have->ncolumns + 1u) * sizeof *tb->columns);
	tb->ncolumns = have->ncolumns;
	for (unsigned i = 0; i < have->ncolumns; i++) {
		const struct column *c = &have->columns[i];
		struct target_column *to = &tb->columns[i];
		to->name = mem_strdup(c->name);
		to->type_full = mem_strdup(c->native_type);
		to->has_default = c->dflt != NULL;
		to->is_not_null = !(c->flags & COLUMN_NULLABLE);
		to->is_generated = (c->flags & COLUMN_GENERATED) != 0;
		to->is_in_primary_key = c->key_pos != 0;
	}
}

static void clear(struct target_table *tb)
{
	for (unsigned i = 0; i < tb->ncolumns; i++) {
		free(tb->columns[i].name);
		free(tb->columns[i].type_full);
	}
	free(tb->columns);
}

static char diff_text[4096];

/* The statements, with a line break behind each. have NULL: the target is as old was. */
static struct diff diff_of(const char *old, const char *new, const char *have, enum key_kind key)
{
	struct err e = { 0 };
	struct diff d;
	struct relation *a = old ? relation_of(old, KEY_PRIMARY, "postgres") : NULL, *b = relation_of(new, key, "postgres");
	struct relation *h = relation_of(have ? have : old, KEY_PRIMARY, "postgres");
	struct target_table tb = { .sql = (char *)(uintptr_t)"T", .rel = b, .primary_key = (char *)(uintptr_t)"t_pkey" };
	fill(&tb, h);
	diff_text[0] = 0;
	if (diff_table(&d, a, &tb, true, &e))
		snprintf(diff_text, sizeof diff_text, "%s", e.id);
	for (size_t i = 0, at = 0; i < d.n; i++)
		at += (size_t)snprintf(diff_text + at, sizeof diff_text - at, "%s\n", d.sql[i]);
	struct diff flags = { .makes_types = d.makes_types, .own_value = d.own_value ? "yes" : NULL, .cast = d.cast ? "yes" : NULL };
	diff_fini(&d);
	clear(&tb);
	relation_unref(a);
	relation_unref(b);
	relation_unref(h);
	return flags;
}

static void tells_what_was_done(void **state)
{
	static const struct {
		const char *old, *new, *sql;
	} cases[] = {
		{ "id:int! a:text", "id:int! a:text", "" },
		{ "id:int! a:text", "id:int! a:text b:int", "ALTER TABLE T ADD COLUMN \"b\" int\n" },
		{ "id:int! a:text", "id:int! a:text b:int-=5", "ALTER TABLE T ADD COLUMN \"b\" int DEFAULT 5 NOT NULL\n" },
		{ "id:int! a:text", "id:int! a:text b:int-", "ALTER TABLE T ADD COLUMN \"b\" int\n" },
		{ "id:int! a:text b:int", "id:int! b:int", "ALTER TABLE T DROP COLUMN \"a\"\n" },
		{ "id:int! a:text", "id:int!", "ALTER TABLE T DROP COLUMN \"a\"\n" },
		/* at the end: the same types in the same places are a new name */
		{ "id:int! a:text", "id:int! x:text", "ALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\n" },
		{ "id:int! a:text", "id:int! x:int", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"x\" int\n" },
		{ "id:int! a:text", "id:int! x:text y:int",
			"ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"x\" text\nALTER TABLE T ADD COLUMN \"y\" int\n" },
		/* before one that stayed nothing can be new */
		{ "id:int! a:text b:int", "id:int! x:text b:int", "ALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\n" },
		{ "id:int! a:text b:int", "id:int! x:int b:int",
			"ALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\nALTER TABLE T ALTER COLUMN \"x\" TYPE int USING \"x\"::int\n" },
		{ "a:text c:int id:int!", "x:int id:int!", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T RENAME COLUMN \"c\" TO \"x\"\n" },
		{ "a:text c:text id:int!", "x:int id:int!", "target.schema-unclear" },
		/* names that move on */
		{ "a:int b:int id:int!", "b:int c:int id:int!", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"c\" int\n" },
		/* dropped, and added again */
		{ "id:int! a:text b:int", "id:int! b:int a:text", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"a\" text\n" },
		{ "id:int! a:text", "id:int! a:varchar(5)", "ALTER TABLE T ALTER COLUMN \"a\" TYPE varchar(5) USING \"a\"::varchar(5)\n" },
		{ "id:int! a:text='x'", "id:int! a:int=7",
			"ALTER TABLE T ALTER COLUMN \"a\" DROP DEFAULT, ALTER COLUMN \"a\" TYPE int USING \"a\"::int, ALTER COLUMN \"a\" SET DEFAULT 7\n" },
		{ "id:int! a:text", "id:int! a:text=7", "ALTER TABLE T ALTER COLUMN \"a\" SET DEFAULT 7\n" },
		{ "id:int! a:text-", "id:int! a:text", "ALTER TABLE T ALTER COLUMN \"a\" DROP NOT NULL\n" },
		{ "id:int! a:text", "id:int! a:text-", "" },
		{ "id:int! a:int g:int~=a", "id:int! b:int",
			"ALTER TABLE T DROP COLUMN \"g\"\nALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"b\" int\n" },
		{ "id:int! a:int", "id:int! a:int g:int~=a", "ALTER TABLE T ADD COLUMN \"g\" int GENERATED ALWAYS AS (a) STORED\n" },
		{ "id:int! a:int-", "id:int a:int!",
			"ALTER TABLE T DROP CONSTRAINT IF EXISTS \"t_pkey\"\n"
			"ALTER TABLE T ADD PRIMARY KEY (\"a\")\nALTER TABLE T ALTER COLUMN \"id\" DROP NOT NULL\n" },
		{ "id:int! a:int", "nr:int! a:int", "ALTER TABLE T RENAME COLUMN \"id\" TO \"nr\"\n" },
		{ "id:int! we\"ird:int", "id:int!", "ALTER TABLE T DROP COLUMN \"we\"\"ird\"\n" },
		/* numbers tell what names and types do not: dropped and added, or renamed; names that change places */
		{ "id:int!#1 a:text#2", "id:int!#1 x:text#3", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"x\" text\n" },
		{ "id:int!#1 a:text#2", "id:int!#1 a:text#3", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"a\" text\n" },
		{ "id:int!#1 a:text#2", "id:int!#1 a:int#3", "ALTER TABLE T DROP COLUMN \"a\"\nALTER TABLE T ADD COLUMN \"a\" int\n" },
		{ "id:int!#1 a:text#2", "id:int!#1 x:text#2", "ALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\n" },
		{ "id:int!#1 a:text#2", "id:int!#1 b:text#2 a:text#3", "ALTER TABLE T RENAME COLUMN \"a\" TO \"b\"\nALTER TABLE T ADD COLUMN \"a\" text\n" },
		{ "id:int!#1 a:text#2 b:text#3", "id:int!#1 b:text#2 a:text#3",
			"ALTER TABLE T RENAME COLUMN \"a\" TO \"dmsr_1\"\nALTER TABLE T RENAME COLUMN \"b\" TO \"a\"\n"
			"ALTER TABLE T RENAME COLUMN \"dmsr_1\" TO \"b\"\n" },
		{ "id:int!#1 a:text#2", "id:int!#1 x:text", "ALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\n" },
		/* one that has no number yet goes by its name, or is gone, if it cannot be another */
		{ "id:int!#1 a:text#2 b:int", "id:int!#1 a:text#2 b:int#3", "" },
		{ "id:int!#1 a:text#2 b:int", "id:int!#1 x:text#2", "ALTER TABLE T DROP COLUMN \"b\"\nALTER TABLE T RENAME COLUMN \"a\" TO \"x\"\n" },
		{ "id:int!#1 b:int", "id:int!#1 x:int#3", "ALTER TABLE T RENAME COLUMN \"b\" TO \"x\"\n" },
		/* what older rows have is not what the default is by now */
		{ "id:int!#1", "id:int!#1 a:int#2?7=8", "ALTER TABLE T ADD COLUMN \"a\" int DEFAULT '7'::int\n"
			"ALTER TABLE T ALTER COLUMN \"a\" SET DEFAULT 8\n" },
		{ "id:int!#1", "id:int!#1 a:int-#2?7", "ALTER TABLE T ADD COLUMN \"a\" int DEFAULT '7'::int NOT NULL\n"
			"ALTER TABLE T ALTER COLUMN \"a\" DROP DEFAULT\n" },
		{ "id:int!#1", "id:int!#1 a:int#2=8", "ALTER TABLE T ADD COLUMN \"a\" int\nALTER TABLE T ALTER COLUMN \"a\" SET DEFAULT 8\n" },
		{ "id:int!#1", "id:int!#1 a:int-#2=8", "ALTER TABLE T ADD COLUMN \"a\" int DEFAULT 8 NOT NULL\n" },
		{ "id:int!#1", "id:int!#1 a:int#2=now()", "ALTER TABLE T ADD COLUMN \"a\" int DEFAULT now()\n" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		diff_of(cases[i].old, cases[i].new, NULL, KEY_PRIMARY);
		assert_string_equal(diff_text, cases[i].sql);
	}
}

static void does_nothing_twice(void **state)
{
	static const struct {
		const char *old, *new, *have;
	} cases[] = {
		{ "id:int! a:text", "id:int! a:text b:int", "id:int! a:text b:int" },
		{ "id:int! a:text b:int", "id:int! b:int", "id:int! b:int" },
		{ "id:int! a:text", "id:int! x:text", "id:int! x:text" },
		{ "id:int! a:text", "id:int! x:text", "id:int! a:text x:text" },
		{ "id:int! a:text", "id:int! a:int", "id:int! a:int" },
		{ "id:int! a:text b:int", "id:int! b:int a:int", "id:int! b:int a:int" },
		{ "id:int! a:text-", "id:int! a:text", "id:int! a:text" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		diff_of(cases[i].old, cases[i].new, cases[i].have, KEY_PRIMARY);
		assert_string_equal(diff_text, "");
	}
}

static void takes_nothing_away_from_the_unknown(void **state)
{
	(void)state;
	diff_of(NULL, "id:int! a:int c:int", "id:int! a:text-=5 b:int", KEY_PRIMARY);
	assert_string_equal(diff_text, "ALTER TABLE T ADD COLUMN \"c\" int\n");
}

static void keeps_the_primary_key_for_another_identity(void **state)
{
	(void)state;
	diff_of("id:int! a:int-", "id:int- a:int!", NULL, KEY_UNIQUE);
	assert_string_equal(diff_text, "CREATE UNIQUE INDEX ON T (\"a\")\n");
	diff_of("id:int! a:int-", "id:int a:int", NULL, KEY_FULL);
	assert_string_equal(diff_text, "ALTER TABLE T ALTER COLUMN \"a\" DROP NOT NULL\n");
}

static void tells_what_it_cannot_know(void **state)
{
	(void)state;
	struct diff d = diff_of("id:int!", "id:int! a:timestamptz=now()", NULL, KEY_PRIMARY);
	assert_non_null(d.own_value);
	assert_true(d.makes_types);
	d = diff_of("id:int!", "id:int! a:int=7", NULL, KEY_PRIMARY);
	assert_null(d.own_value);
	d = diff_of("id:int! a:int", "id:int! a:text", NULL, KEY_PRIMARY);
	assert_non_null(d.cast);
	d = diff_of("id:int! a:int", "id:int!", NULL, KEY_PRIMARY);
	assert_false(d.makes_types);
}

static void knows_constants(void **state)
{
	static const char *const yes[] = { "5", "-5", "'-5'::integer", "(0)::numeric(10,2)", "true", "false", "NULL::character varying",
		"'it''s'::text", "'x'::character varying(20)", "'{}'::integer[]", "ARRAY['a'::text, 'b'::text]",
		"'ok'::odd.mood", "'a'::\"Odd\".\"Mood\"", "1.5e+10", "''::text" };
	static const char *const no[] = { "now()", "CURRENT_TIMESTAMP", "nextval('s'::regclass)", "gen_random_uuid()", "('x'::text || now())", "random()",
		"'open", "CURRENT_USER", "lower('A'::text)" };
	(void)state;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(diff_is_constant(yes[i]));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(diff_is_constant(no[i]));
}

static void lets_other_engines_add_anywhere(void **state)
{
	int from[8];
	struct err e = { 0 };
	struct relation *old = relation_of("id:int! a:text b:int", KEY_PRIMARY, "mysql"), *new = relation_of("id:int! x:int y:int b:int", KEY_PRIMARY, "mysql");
	(void)state;
	assert_int_equal(diff_map(old, new, from, &e), 0);
	assert_int_equal(from[0], 0);
	assert_int_equal(from[1], -1);
	assert_int_equal(from[2], -1);
	assert_int_equal(from[3], 2);
	relation_unref(old);
	relation_unref(new);
}

RUN_TESTS(cmocka_unit_test(tells_what_was_done), cmocka_unit_test(does_nothing_twice), cmocka_unit_test(takes_nothing_away_from_the_unknown),
	cmocka_unit_test(keeps_the_primary_key_for_another_identity), cmocka_unit_test(tells_what_it_cannot_know), cmocka_unit_test(knows_constants),
	cmocka_unit_test(lets_other_engines_add_anywhere))
