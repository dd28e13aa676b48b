/* cursor: never reads over the end, and stays bad. The bytes lie at the end of a malloc, so that ASan sees one too many. */
#include "base/cursor.h"
#include "test.h"

static void reads_both_orders(void **state)
{
	static const unsigned char bytes[] = { 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct cursor c;
	(void)state;
	cursor_init(&c, bytes, sizeof bytes);
	assert_int_equal(cursor_u8(&c), 1);
	assert_int_equal(cursor_be16(&c), 0x0203);
	assert_int_equal(cursor_be32(&c), 0x01020304);
	assert_true(cursor_be64(&c) == 0x0102030405060708);
	assert_int_equal(cursor_le16(&c), 0x0201);
	assert_int_equal(cursor_le32(&c), 0x04030201);
	assert_true(cursor_le64(&c) == 0x0807060504030201);
	assert_true(cursor_done(&c));
	assert_false(c.bad);
}

/* Each reader on a run that is one byte too short. */
static void a_short_read_is_bad_and_sticks(void **state)
{
	(void)state;
	for (int reader = 0; reader < 8; reader++) {
		static const size_t sizes[] = { 1, 2, 4, 8, 2, 4, 8, 5 };
		size_t n = sizes[reader] - 1;
		unsigned char *bytes = malloc(n ? n : 1);
		struct cursor c;
		uint64_t got = 99;
		memset(bytes, 0xff, n ? n : 1);
		cursor_init(&c, bytes, n);
		switch (reader) {
		case 0: got = cursor_u8(&c); break;
		case 1: got = cursor_be16(&c); break;
		case 2: got = cursor_be32(&c); break;
		case 3: got = cursor_be64(&c); break;
		case 4: got = cursor_le16(&c); break;
		case 5: got = cursor_le32(&c); break;
		case 6: got = cursor_le64(&c); break;
		case 7: got = cursor_bytes(&c, 5) ? 1 : 0; break;
		}
		assert_true(got == 0);
		assert_true(c.bad);
		assert_false(cursor_done(&c));
		assert_int_equal(cursor_left(&c), 0);
		assert_int_equal(cursor_u8(&c), 0);
		assert_null(cursor_bytes(&c, 1));
		assert_string_equal(cursor_cstr(&c), "");
		assert_true(c.bad);
		free(bytes);
	}
}

static void strings_end_at_their_nul(void **state)
{
	struct cursor c;
	(void)state;
	cursor_init(&c, "one\0\0two", 8);
	assert_string_equal(cursor_cstr(&c), "one");
	assert_string_equal(cursor_cstr(&c), "");
	assert_false(c.bad);
	assert_int_equal(cursor_left(&c), 3);
	assert_string_equal(cursor_cstr(&c), ""); /* "two" has no NUL within the run */
	assert_true(c.bad);
}

static void nothing_is_done_at_once(void **state)
{
	struct cursor c;
	(void)state;
	cursor_init(&c, NULL, 0);
	assert_true(cursor_done(&c));
	assert_non_null(cursor_bytes(&c, 0));
	cursor_init(&c, "", 0);
	assert_true(cursor_done(&c));
	assert_non_null(cursor_bytes(&c, 0));
	assert_false(c.bad);
	assert_null(cursor_bytes(&c, SIZE_MAX));
	assert_true(c.bad);
}

RUN_TESTS(cmocka_unit_test(reads_both_orders), cmocka_unit_test(a_short_read_is_bad_and_sticks),
	cmocka_unit_test(strings_end_at_their_nul), cmocka_unit_test(nothing_is_done_at_once))
