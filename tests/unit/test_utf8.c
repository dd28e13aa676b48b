/* utf8: each character there is, and what only looks like one. */
#include "base/utf8.h"
#include "test.h"

static unsigned encode(unsigned c, unsigned len, unsigned char out[4])
{
	static const unsigned char leads[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
	if (len == 1) {
		out[0] = (unsigned char)c;
		return 1;
	}
	for (unsigned i = len; i-- > 1; c >>= 6)
		out[i] = (unsigned char)(0x80 | (c & 0x3F));
	out[0] = (unsigned char)(leads[len] | c);
	return len;
}

/* In all lengths that have room for it: the shortest alone is right, and no surrogate. */
static void all_characters_in_all_lengths(void **state)
{
	(void)state;
	for (unsigned c = 0; c < 0x200000; c++) {
		unsigned shortest = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		bool is_none = c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF);
		for (unsigned len = shortest; len <= 4; len++) {
			unsigned char s[4];
			unsigned n = encode(c, len, s);
			unsigned wanted = is_none || len != shortest ? 0 : len;
			if (utf8_sequence(s, n) != wanted)
				fail_msg("U+%X in %u bytes: %u", c, len, utf8_sequence(s, n));
		}
	}
}

static void one_that_is_cut_off_is_none(void **state)
{
	static const char *const whole[] = { "a", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x90\x98" };
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		for (size_t n = 0; n <= i; n++)
			assert_int_equal(utf8_sequence(whole[i], n), 0);
		assert_int_equal(utf8_sequence(whole[i], i + 1), i + 1);
		assert_int_equal(utf8_sequence(whole[i], 100), i + 1); /* what is behind it is not looked at */
	}
	/* NUL ends no sequence, but is a character */
	assert_int_equal(utf8_sequence("\xE2\x82", 3), 0);
	assert_int_equal(utf8_sequence("", 1), 1);
}

static void what_does_not_go_on_is_none(void **state)
{
	static const char good[][5] = { "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x90\x98" };
	(void)state;
	for (unsigned c = 0x80; c < 0x100; c++) /* a lead alone, or none */
		assert_int_equal(utf8_sequence(((char[]){ (char)c, 'x', 'x', 'x' }), 4), 0);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned at = 1; at < i + 2; at++) {
			char bad[5];
			memcpy(bad, good[i], 5);
			for (unsigned c = 0; c < 0x100; c++) {
				bad[at] = (char)c;
				if (c < 0x80 || c >= 0xC0)
					assert_int_equal(utf8_sequence(bad, 4), 0);
			}
		}
	for (unsigned c = 0xF5; c < 0x100; c++)
		assert_int_equal(utf8_sequence(((char[]){ (char)c, '\x80', '\x80', '\x80', '\x80', '\x80' }), 6), 0);
}

static void a_text_ends_with_a_whole_one(void **state)
{
	static const char text[] = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x90\x98z";
	static const size_t whole[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };
	(void)state;
	for (size_t n = 0; n < sizeof text; n++)
		assert_int_equal(utf8_whole(text, n), whole[n]);
	/* what never was UTF-8 stays */
	assert_int_equal(utf8_whole("\x80\x80\x80\x80\x80", 5), 5);
	assert_int_equal(utf8_whole("\x80", 1), 1);
	assert_int_equal(utf8_whole("x\x80", 2), 2);
}

RUN_TESTS(cmocka_unit_test(all_characters_in_all_lengths), cmocka_unit_test(one_that_is_cut_off_is_none), cmocka_unit_test(what_does_not_go_on_is_none),
	cmocka_unit_test(a_text_ends_with_a_whole_one))
