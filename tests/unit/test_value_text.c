/* value_text: what a real server printed of its own values (tests/fixtures/value_text, made by tests/tools/value_text.sql), and bytes that are no values. */
#include "base/hash.h"
#include "base/mem.h"
#include "model/batch.h"
#include "test.h"

static struct relation *four_texts(void)
{
	struct relation_builder *b = relation_build("postgres", "public", "v", 1);

	for (const char *const *n = (const char *const[]){ "type", "elem", "bin", "txt", NULL }; *n; n++)
		relation_build_column(b, &(struct column){ .name = *n, .type = TYPE_TEXT });
	return relation_seal(b, KEY_NONE);
}

static uint32_t from_hex(const struct value *hex, char *out)
{
	for (uint32_t i = 0; i < hex->len / 2; i++) {
		unsigned v;
		assert_int_equal(sscanf(hex->data + (size_t)2 * i, "%2x", &v), 1);
		out[i] = (char)v;
	}
	return hex->len / 2;
}

struct tally {
	unsigned lines, wrong;
	unsigned of[TYPE_COUNT];
};

static int check_line(void *arg, const struct change *row)
{
	struct tally *t = arg;
	const struct value *v = row->u.row.after;
	int type = logical_type_parse(v[0].data), elem = logical_type_parse(v[1].data);
	struct buf out;
	struct err e;

	assert_true(type >= 0 && elem >= 0);
	assert_true(value_has_binary((enum logical_type)type, (enum logical_type)elem));
	buf_init(&out, 1 << 20);
	char *bin = mem_alloc(v[2].len / 2 + 1);
	struct value in = { bin, from_hex(&v[2], bin), VALUE_BINARY };
	if (value_to_text(&in, (enum logical_type)type, (enum logical_type)elem, &out, &e) || out.len != v[3].len ||
		memcmp(buf_cstr(&out), v[3].data, out.len) != 0) {
		print_error("%s %s %s: server \"%s\", we \"%s\"\n", v[0].data, v[1].data, v[2].data, v[3].data, buf_cstr(&out));
		t->wrong++;
	}
	t->lines++;
	t->of[type]++;
	free(bin);
	buf_fini(&out);
	return 0;
}

static void test_as_the_server_prints(void **state)
{
	(void)state;
	struct change rows = { .op = OP_ROWS, .rel = four_texts() };
	struct tally t = { 0 };
	size_t len;
	char *data = test_fixture("value_text/postgres.copy", &len);

	rows.u.rows.data = data;
	rows.u.rows.len = len;
	rows.u.rows.format = ROWS_COPY_TEXT;
	assert_int_equal(change_each_row(&rows, check_line, &t, NULL), 0);
	assert_int_equal(t.wrong, 0);
	assert_true(t.lines > 4000);
	for (int type = 0; type < TYPE_COUNT; type++)
		if (value_has_binary((enum logical_type)type, TYPE_INT32) && type != TYPE_UINT64 && type != TYPE_XML && type != TYPE_ENUM && !t.of[type])
			fail_msg("no line of the fixture is of type %s", logical_type_name((enum logical_type)type));
	free(data);
	relation_unref(rows.rel);
}

/* Every length up to 64 of zeros, ones and noise: an answer or a refusal, never a crash, and never an answer with rest. */
static void test_bytes_that_are_no_values(void **state)
{
	(void)state;
	unsigned char bytes[64];
	struct buf out;
	uint64_t seed = 1;

	buf_init(&out, 1 << 20);
	for (int round = 0; round < 200; round++) {
		for (unsigned i = 0; i < sizeof bytes; i++) {
			seed = hash_stable(&seed, sizeof seed, i);
			bytes[i] = round == 0 ? 0 : round == 1 ? 0xff : (seed & 3) ? (unsigned char)(seed >> 8 & 3) : (unsigned char)(seed >> 8);
		}
		for (int type = 0; type < TYPE_COUNT; type++)
			for (uint32_t len = 0; len <= sizeof bytes; len += round < 2 ? 1 : 1 + round % 7) {
				struct value v = { (const char *)bytes, len, VALUE_BINARY };
				struct err e = { 0 };
				buf_reset(&out);
				buf_str(&out, "kept");
				int rc = value_to_text(&v, (enum logical_type)type, (enum logical_type)(round % TYPE_COUNT), &out, &e);
				assert_true(rc == 0 || rc == DMSR_EPROTO);
				assert_memory_equal(out.data, "kept", 4);
				assert_true(rc == 0 || (out.len == 4 && e.code == DMSR_EPROTO));
			}
	}
	buf_fini(&out);
}

static void check(enum logical_type type, enum logical_type elem, const char *bin, uint32_t len, const char *want)
{
	struct value v = { bin, len, VALUE_BINARY };
	struct buf out;

	struct err e = { 0 };
	buf_init(&out, 1 << 20);
	int rc = value_to_text(&v, type, elem, &out, &e);
	if (want) {
		assert_int_equal(rc, 0);
		assert_string_equal(buf_cstr(&out), want);
	} else {
		assert_int_equal(rc, DMSR_EPROTO);
		assert_string_equal(e.id, "value.malformed");
		assert_non_null(strstr(e.message, logical_type_name(type)));
	}
	buf_fini(&out);
}

static void test_what_the_fixture_lacks(void **state)
{
	(void)state;
	check(TYPE_UINT64, 0, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "18446744073709551615");
	check(TYPE_XML, 0, "<a/>", 4, "<a/>");
	check(TYPE_ENUM, 0, "ok", 2, "ok");
	/* servers from 17 on */
	check(TYPE_INTERVAL, 0, "\x7f\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff", 16, "infinity");
	check(TYPE_INTERVAL, 0, "\x80\0\0\0\0\0\0\0\x80\0\0\0\x80\0\0\0", 16, "-infinity");
	/* too long, too short, of a type without a binary form, with a version that is not known */
	check(TYPE_INT32, 0, "\0\0\0\1\0", 5, NULL);
	check(TYPE_INT32, 0, "\0\0\1", 3, NULL);
	check(TYPE_COMPOSITE, 0, "\0\0\0\0", 4, NULL);
	check(TYPE_OTHER, 0, "x", 1, NULL);
	check(TYPE_ARRAY, TYPE_ARRAY, "\0\0\0\0\0\0\0\0\0\0\0\0", 12, NULL);
	check(TYPE_JSONB, 0, "\2{}", 3, NULL);
	/* a time past midnight, a numeric digit of five figures */
	check(TYPE_TIME, 0, "\0\0\0\x14\x1d\xd7\x60\1", 8, NULL);
	check(TYPE_NUMERIC, 0, "\0\1\0\0\0\0\0\0\x27\x10", 10, NULL);
	/* more elements said than there are bytes for */
	check(TYPE_ARRAY, TYPE_INT32, "\0\0\0\1\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\1\0\0\0\4", 24, NULL);
}

static void test_over_the_maximum(void **state)
{
	(void)state;
	static const char array[] = "\0\0\0\1\0\0\0\0\0\0\0\x17\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\7\0\0\0\4\0\0\0\7";
	struct value values[] = { value_text("0123456789", 10), { array, sizeof array - 1, VALUE_BINARY } };

	for (unsigned i = 0; i < 2; i++)
		for (size_t max = 0; max < 5; max++) {
			struct buf out;
			struct err e = { 0 };
			buf_init(&out, max);
			assert_int_equal(value_to_text(&values[i], TYPE_ARRAY, TYPE_INT32, &out, &e), DMSR_EFULL);
			assert_string_equal(e.id, "value.too-long");
			assert_non_null(strstr(e.message, "array"));
			buf_fini(&out);
		}
}

static void test_names_of_types(void **state)
{
	(void)state;
	for (int t = 0; t < TYPE_COUNT; t++)
		assert_int_equal(logical_type_parse(logical_type_name((enum logical_type)t)), t);
	assert_int_equal(logical_type_parse("integer"), -1);
}

RUN_TESTS(cmocka_unit_test(test_as_the_server_prints), cmocka_unit_test(test_bytes_that_are_no_values), cmocka_unit_test(test_what_the_fixture_lacks),
	cmocka_unit_test(test_over_the_maximum), cmocka_unit_test(test_names_of_types))
