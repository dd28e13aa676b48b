/* relation: what is packed comes back, also what an older version packed; what the fingerprint is over. */
#include "test.h"

#include "model/relation.h"

static struct relation *relation_of(uint16_t number, const char *missing)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 7);
	const struct column c = { .name = "a", .native_type = "integer", .dflt = "5", .typmod = -1, .source_id = number, .missing = missing };
	relation_build_column(b, &c);
	return relation_seal(b, KEY_NONE);
}

static struct relation *read(const struct buf *b)
{
	struct cursor c;
	struct err e = { 0 };
	cursor_init(&c, b->data, b->len);
	struct relation *r = relation_unpack(&c, &e);
	assert_true(!r || cursor_done(&c));
	assert_string_equal(e.id, r ? "" : "relation.malformed");
	return r;
}

static void comes_back(void **state)
{
	struct relation *rel = relation_of(3, "four");
	struct buf b;
	(void)state;
	buf_init(&b, 4096);
	assert_int_equal(relation_pack(rel, &b), 0);
	struct relation *r = read(&b);
	assert_non_null(r);
	assert_true(relation_is_same(rel, r));
	assert_int_equal(r->columns[0].source_id, 3);
	assert_string_equal(r->columns[0].missing, "four");
	assert_string_equal(r->columns[0].dflt, "5");
	relation_unref(r);
	/* any byte less is none */
	for (size_t n = b.len; n-- > 0;) {
		b.len = n;
		assert_null(read(&b));
	}
	buf_fini(&b);
	relation_unref(rel);
}

/* Version 1 had neither the column's number nor what is missing: 2 and 4 bytes before the number of statements. */
static void comes_back_from_version_1(void **state)
{
	struct relation *rel = relation_of(0, NULL);
	struct buf b;
	(void)state;
	buf_init(&b, 4096);
	assert_int_equal(relation_pack(rel, &b), 0);
	b.data[0] = 1;
	memmove(b.data + b.len - 10, b.data + b.len - 4, 4);
	b.len -= 6;
	struct relation *r = read(&b);
	assert_non_null(r);
	assert_true(relation_is_same(rel, r));
	assert_int_equal(r->columns[0].source_id, 0);
	assert_null(r->columns[0].missing);
	relation_unref(r);
	relation_unref(rel);
	buf_fini(&b);
}

static void fingerprints(void **state)
{
	struct relation *a = relation_of(3, NULL), *b = relation_of(3, "x"), *c = relation_of(4, NULL);
	(void)state;
	assert_true(relation_is_same(a, b));
	assert_false(relation_is_same(a, c));
	relation_unref(a);
	relation_unref(b);
	relation_unref(c);
}

RUN_TESTS(cmocka_unit_test(comes_back), cmocka_unit_test(comes_back_from_version_1), cmocka_unit_test(fingerprints))
