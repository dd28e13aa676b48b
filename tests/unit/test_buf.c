/* buf: grows to its maximum and not beyond; full sticks; nothing is half written. */
#include "base/buf.h"
#include "test.h"

static void fills_up_to_its_maximum_exactly(void **state)
{
	(void)state;
	for (size_t max = 0; max < 300; max++) {
		struct buf b;
		buf_init(&b, max);
		for (size_t i = 0; i < max; i++)
			assert_int_equal(buf_byte(&b, (char)i), 0);
		assert_true(buf_ok(&b));
		assert_true(b.cap <= max);
		assert_int_equal(buf_byte(&b, 'x'), -1);
		assert_false(buf_ok(&b));
		assert_int_equal(b.len, max);
		buf_fini(&b);
	}
}

static void full_sticks_until_reset(void **state)
{
	struct buf b;
	(void)state;
	buf_init(&b, 10);
	assert_int_equal(buf_append(&b, "12345", 5), 0);
	assert_int_equal(buf_append(&b, "678901", 6), -1);
	assert_int_equal(buf_append(&b, "6", 1), -1);
	assert_int_equal(buf_str(&b, ""), -1);
	assert_int_equal(buf_printf(&b, "x"), -1);
	assert_int_equal(buf_int(&b, 1), -1);
	assert_int_equal(b.len, 5);
	assert_string_equal(buf_cstr(&b), "");
	buf_reset(&b);
	assert_true(buf_ok(&b));
	assert_int_equal(buf_append(&b, "1234567890", 10), 0);
	assert_string_equal(buf_cstr(&b), "1234567890");
	buf_fini(&b);
	assert_null(b.data);
}

static void huge_sizes_do_not_wrap(void **state)
{
	struct buf b;
	(void)state;
	buf_init(&b, 100);
	buf_str(&b, "abc");
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -1);
	buf_reset(&b);
	buf_str(&b, "abc");
	assert_int_equal(buf_reserve(&b, SIZE_MAX - 2), -1);
	buf_fini(&b);
}

static void consume_moves_the_rest_down(void **state)
{
	struct buf b;
	(void)state;
	buf_init(&b, 100);
	buf_consume(&b, 0);
	buf_str(&b, "hello world");
	buf_consume(&b, 6);
	assert_string_equal(buf_cstr(&b), "world");
	buf_consume(&b, 5);
	assert_int_equal(b.len, 0);
	assert_string_equal(buf_cstr(&b), "");
	buf_fini(&b);
}

static void printf_fits_or_fails(void **state)
{
	(void)state;
	for (size_t max = 0; max < 200; max++) {
		struct buf b;
		buf_init(&b, max);
		int rc = buf_printf(&b, "%s%d%s", "0123456789012345678901234567890123456789", 42, "0123456789012345678901234567890123456789");
		assert_int_equal(rc, max >= 82 ? 0 : -1);
		assert_int_equal(b.len, max >= 82 ? 82 : 0);
		if (!rc)
			assert_string_equal(buf_cstr(&b), "0123456789012345678901234567890123456789420123456789012345678901234567890123456789");
		buf_fini(&b);
	}
}

static void printf_appends_at_every_fill(void **state)
{
	(void)state;
	for (int before = 0; before < 140; before++) {
		struct buf b;
		buf_init(&b, 1000);
		for (int i = 0; i < before; i++)
			buf_byte(&b, '.');
		assert_int_equal(buf_printf(&b, "%s", ""), 0);
		assert_int_equal(buf_printf(&b, "<%d>", 123456), 0);
		assert_int_equal(b.len, before + 8);
		assert_string_equal(buf_cstr(&b) + before, "<123456>");
		buf_fini(&b);
	}
}

static void integers_are_written_whole(void **state)
{
	static const int64_t values[] = { 0, 1, -1, 9, 10, -10, 1234567890123456789, INT64_MAX, INT64_MIN };
	struct buf b;
	(void)state;
	buf_init(&b, 100);
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		char want[32];
		snprintf(want, sizeof want, "%lld", (long long)values[i]);
		buf_reset(&b);
		assert_int_equal(buf_int(&b, values[i]), 0);
		assert_string_equal(buf_cstr(&b), want);
	}
	buf_reset(&b);
	assert_int_equal(buf_uint(&b, UINT64_MAX), 0);
	assert_string_equal(buf_cstr(&b), "18446744073709551615");
	buf_fini(&b);

	buf_init(&b, 2);
	assert_int_equal(buf_int(&b, -1), 0);
	assert_string_equal(buf_cstr(&b), "-1");
	buf_reset(&b);
	assert_int_equal(buf_int(&b, -10), -1);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

static void big_endian(void **state)
{
	struct buf b;
	(void)state;
	buf_init(&b, 100);
	buf_u16(&b, 0x0102);
	buf_u32(&b, 0x03040506);
	buf_u64(&b, 0x0708090a0b0c0d0e);
	assert_int_equal(b.len, 14);
	for (int i = 0; i < 14; i++)
		assert_int_equal(b.data[i], i + 1);
	buf_fini(&b);
}

RUN_TESTS(cmocka_unit_test(fills_up_to_its_maximum_exactly), cmocka_unit_test(full_sticks_until_reset),
	cmocka_unit_test(huge_sizes_do_not_wrap), cmocka_unit_test(consume_moves_the_rest_down),
	cmocka_unit_test(printf_fits_or_fails), cmocka_unit_test(printf_appends_at_every_fill),
	cmocka_unit_test(integers_are_written_whole), cmocka_unit_test(big_endian))
