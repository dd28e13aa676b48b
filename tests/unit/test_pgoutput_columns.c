/* pgoutput: which column a Relation message means by a name. Shapes are written "id:1 a:2 *g:3": name and number, a star: generated; a message is its names. */
#include "test.h"

#include "pgoutput_kit.h"

static struct relation *shape(const char *text)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 5);
	char *copy = mem_strdup(text), *save = NULL;
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		bool is_generated = *word == '*';
		char *number = strchr(word, ':');
		*number++ = 0;
		struct column c = { .name = word + is_generated, .native_type = "integer", .type_id = 23, .typmod = -1, .type = TYPE_INT32 };
		c.source_id = (uint16_t)strtoul(number, NULL, 10);
		c.flags = is_generated ? COLUMN_GENERATED | COLUMN_NULLABLE : COLUMN_NULLABLE;
		c.dflt = is_generated ? "(a * 2)" : NULL;
		relation_build_column(b, &c);
	}
	free(copy);
	return relation_seal(b, KEY_NONE);
}

/* A Relation message, and a row. */
static void say(struct kit *k, const char *names)
{
	struct buf b, row;
	char *copy = mem_strdup(names), *save = NULL;
	unsigned n = 1;
	for (const char *p = names; *p; p++)
		n += *p == ' ';
	buf_init(&b, 4096);
	buf_init(&row, 4096);
	buf_byte(&b, 'R');
	buf_u32(&b, 5);
	buf_append(&b, "public\0"
		       "t\0"
		       "d",
		10);
	buf_u16(&b, (uint16_t)n);
	buf_byte(&row, 'I');
	buf_u32(&row, 5);
	buf_byte(&row, 'N');
	buf_u16(&row, (uint16_t)n);
	for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
		buf_byte(&b, 0);
		buf_append(&b, name, strlen(name) + 1);
		buf_u32(&b, 23);
		buf_u32(&b, UINT32_MAX);
		buf_byte(&row, 'n');
	}
	assert_int_equal(kit_feed(k, 0x50, b.data, b.len), 0);
	assert_int_equal(kit_feed(k, 0x50, row.data, row.len), 0);
	buf_fini(&row);
	buf_fini(&b);
	free(copy);
}

/* As a shape; of what is told: the newest. "": nothing is. */
static void told(struct kit *k, char *out, size_t cap)
{
	struct batch *b = pgoutput_take(k->d);
	*out = 0;
	for (const struct change *ch = b ? b->first : NULL; ch; ch = ch->next) {
		size_t at = 0;
		for (unsigned i = 0; ch->op == OP_SCHEMA && i < ch->rel->ncolumns; i++) {
			const struct column *c = &ch->rel->columns[i];
			assert_true((c->dflt != NULL) == ((c->flags & COLUMN_GENERATED) != 0));
			at += (size_t)snprintf(out + at, cap - at, "%s%s%s:%u", i ? " " : "", c->flags & COLUMN_GENERATED ? "*" : "", c->name,
				(unsigned)c->source_id);
		}
	}
	batch_free(b);
}

struct step {
	const char *catalog;    /* what it says when it is asked; NULL: it is not asked; "": it does not answer */
	const char *names;
	const char *told;       /* NULL: the row does not go out; "": no other shape */
};

static void walk_from(const char *earlier, const char *known, bool sends_generated, const struct step *steps)
{
	struct kit k = { .sends_generated = sends_generated, .earlier = earlier ? shape(earlier) : NULL };
	bool is_gone = *known == '-';
	*(is_gone ? &k.remembered : &k.described[0]) = shape(known + is_gone);
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	for (const struct step *s = steps; s->names; s++) {
		unsigned asked = k.asked, dated = k.dated;
		char is[200];
		k.answer = s->catalog && *s->catalog ? shape(s->catalog) : NULL;
		say(&k, s->names);
		told(&k, is, sizeof is);
		if (k.asked - asked != (s->catalog != NULL) || k.dated - dated != !s->told || strcmp(is, s->told ? s->told : "") != 0)
			fail_msg("%s: %s -> %s: \"%s\", asked %u, dated %u", known, s->names, s->told ? s->told : "dated", is, k.asked - asked,
				k.dated - dated);
	}
	kit_close(&k);
}
#define WALK_FROM(earlier, known, generated, ...) walk_from(earlier, known, generated, (const struct step[]){ __VA_ARGS__, { 0 } })
#define WALK(...) WALK_FROM(NULL, __VA_ARGS__)

static void follows_the_catalog(void **state)
{
	(void)state;
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 a:2 b:3", "id a b", "id:1 a:2 b:3" }, { "id:1 b:3", "id b", "id:1 b:3" },
		{ "id:1 a:3", "id a", "id:1 a:3" });
	/* dropped, and another got its name */
	WALK("id:1 a:2 b:3", false, { NULL, "id a b", "id:1 a:2 b:3" }, { "id:1 a:3", "id a", "id:1 a:3" });
	WALK("id:1 a:2 b:3", false, { NULL, "id a b", "id:1 a:2 b:3" }, { "id:1 x:2 b:3 a:4", "id x b a", "id:1 x:2 b:3 a:4" });
	WALK("id:1 a:2 b:3", false, { NULL, "id a b", "id:1 a:2 b:3" }, { "id:1 b:2 a:3", "id b a", "id:1 b:2 a:3" });
}

static void a_younger_catalog_may_have_more(void **state)
{
	(void)state;
	WALK("id:1 a:2 b:3", false, { "id:1 a:2 b:3", "id a", "id:1 a:2" }, { NULL, "id a b", "id:1 a:2 b:3" });
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 a:2 b:3 c:4", "id a b", "id:1 a:2 b:3" });
	/* if it was not read after the message, the column is gone */
	WALK("id:1 a:2 b:3", false, { "", "id a", NULL });
}

static void a_message_of_another_time_is_dated(void **state)
{
	(void)state;
	WALK("id:1 a:3", false, { "id:1 a:3", "id a b", NULL }, { NULL, "id a", "id:1 a:3" });
	WALK("id:1 x:2 b:3 a:4", false, { "id:1 x:2 b:3 a:4", "id a b", NULL });
	WALK("id:1 b:2 a:3", false, { "id:1 b:2 a:3", "id a b", NULL });
	WALK("id:1", false, { "", "id a b", "id:1 a:0 b:0" }, { "id:1 b:3", "id b", NULL });
}

static void steps_in_between_are_known_from_both_ends(void **state)
{
	(void)state;
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 c:3", "id a c", "id:1 a:2 c:3" }, { NULL, "id c", "id:1 c:3" });
	/* said again, as it was before */
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 c:3", "id a c", "id:1 a:2 c:3" }, { "id:1 c:3", "id a c", "" });
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 x:2 b:4 c:5", "id a y", "id:1 a:2 y:0" },
		{ "id:1 x:2 b:4 c:5", "id a y b", "id:1 a:2 y:0 b:4" }, { "id:1 x:2 b:4 c:5", "id a b", "id:1 a:2 b:4" },
		{ "id:1 x:2 b:4 c:5", "id x b", "id:1 x:2 b:4" }, { NULL, "id x b c", "id:1 x:2 b:4 c:5" });
	/* one that came, and has another name by now */
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 a:2 y:3", "id a x", "id:1 a:2 x:0" }, { NULL, "id a y", NULL });
	/* a column that was given the other's name, and one that came and went */
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 a:3", "id a c", NULL });
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "id:1 a:2", "id a c", "id:1 a:2 c:0" }, { NULL, "id a", "id:1 a:2" });
	WALK("id:1 a:2 b:3", false, { NULL, "id a b", "id:1 a:2 b:3" }, { "id:1 a:2 b:3", "id a", NULL });
}

static void a_former_run_knew_what_was_before(void **state)
{
	(void)state;
	WALK_FROM("id:1 a:2 b:3", "id:1 a:3", false, { "id:1 a:3", "id a b", "id:1 a:2 b:3" }, { NULL, "id a", "id:1 a:3" });
	WALK_FROM("id:1 a:2 b:3", "id:1 x:2 b:3 a:4", false, { "id:1 x:2 b:3 a:4", "id a b", "id:1 a:2 b:3" }, { NULL, "id x b a", "id:1 x:2 b:3 a:4" });
	WALK_FROM("id:1 a:2", "id:1 a:2 b:3 c:4", false, { "id:1 a:2 b:3 c:4", "id a b", "id:1 a:2 b:3" }, { NULL, "id a b c", "id:1 a:2 b:3 c:4" });
	/* one that was there for neither of them */
	WALK_FROM("id:1 a:2 b:3", "id:1 a:3", false, { "id:1 a:3", "id x b", NULL }, { NULL, "id a", "id:1 a:3" });
}

static void new_columns_go_without_a_number_if_nobody_answers(void **state)
{
	(void)state;
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "", "id a c", "id:1 a:2 c:0" }, { "id:1 a:2 c:3 d:4", "id a c d", "id:1 a:2 c:3 d:4" });
	WALK("id:1 a:2", false, { NULL, "id a", "id:1 a:2" }, { "", "id a c", "id:1 a:2 c:0" }, { "id:1 c:3", "id c", "id:1 c:3" });
}

static void what_is_sent_is_not_generated(void **state)
{
	(void)state;
	WALK("id:1 *g:2 a:3", false, { NULL, "id a", "id:1 *g:2 a:3" }, { "id:1 g:2 a:3", "id g a", "id:1 g:2 a:3" });
	WALK("id:1 a:2 *g:3", false, { NULL, "id a", "id:1 a:2 *g:3" }, { "", "id a g", "id:1 a:2 g:0" });
	WALK("id:1 a:2 *g:3", true, { "id:1 a:2 *g:3", "id a g", "id:1 a:2 *g:3" }, { "id:1 a:2 g:3", "id a g", "id:1 a:2 g:3" });
}

static void a_table_that_is_gone_has_the_columns_that_it_had(void **state)
{
	(void)state;
	WALK("-id:1 a:2", false, { "", "id a", "id:1 a:2" });
	WALK_FROM("id:1 a:2 b:3", "-id:1 x:2 a:3", false, { "", "id a b", "id:1 a:2 b:3" }, { "", "id x b", "id:1 x:2 b:3" },
		{ "", "id x a", "id:1 x:2 a:3" });
	/* what it had of generated columns is the target's */
	WALK("-id:1 *g:2 a:3", false, { "", "id a", "id:1 a:3" });
	/* altered once more, when nobody looked */
	WALK_FROM("id:1 a:2", "-id:1 a:2", false, { "", "id y", NULL });
}

RUN_TESTS(cmocka_unit_test(follows_the_catalog), cmocka_unit_test(a_younger_catalog_may_have_more), cmocka_unit_test(a_message_of_another_time_is_dated),
	cmocka_unit_test(steps_in_between_are_known_from_both_ends), cmocka_unit_test(new_columns_go_without_a_number_if_nobody_answers),
	cmocka_unit_test(a_former_run_knew_what_was_before), cmocka_unit_test(what_is_sent_is_not_generated),
	cmocka_unit_test(a_table_that_is_gone_has_the_columns_that_it_had))
