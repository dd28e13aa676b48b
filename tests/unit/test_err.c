/* err: one line, cut between characters, never without its code. */
#include "base/err.h"
#include "base/utf8.h"
#include "test.h"

static void set_retry_hint_prefix(void **state)
{
	struct err e = { 0 };
	(void)state;
	assert_false(err_is_set(&e));
	assert_int_equal(err_retry(&e, DMSR_EIO, "source.connect", "host %s: %s", "db1", "refused"), DMSR_EIO);
	assert_true(err_is_set(&e));
	assert_true(e.retriable);
	assert_string_equal(e.id, "source.connect");
	assert_string_equal(e.message, "host db1: refused");
	assert_int_equal(err_hint(&e, "start %s", "it"), DMSR_EIO);
	assert_string_equal(e.hint, "start it");
	err_prefix(&e, "job %s", "shop");
	assert_string_equal(e.message, "job shop: host db1: refused");
	/* A new error takes nothing over from the old one. */
	assert_int_equal(err_set(&e, DMSR_EAUTH, "source.auth", "no"), DMSR_EAUTH);
	assert_false(e.retriable);
	assert_string_equal(e.hint, "");
	err_clear(&e);
	assert_false(err_is_set(&e));
}

static void nobody_listens(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, DMSR_EPROTO, "x", "y"), DMSR_EPROTO);
	assert_int_equal(err_retry(NULL, DMSR_EIO, "x", "y"), DMSR_EIO);
	err_prefix(NULL, "x");
	err_clear(NULL);
	assert_int_equal(err_hint(NULL, "x"), DMSR_EINVAL); /* a code as any other */
	assert_false(err_is_set(NULL));
}

static void control_characters_become_spaces(void **state)
{
	struct err e;
	(void)state;
	err_set(&e, DMSR_EDATA, "x", "a\nb\tc\x1b[31m\x7f");
	assert_string_equal(e.message, "a b c [31m ");
	err_hint(&e, "x\ny");
	assert_string_equal(e.hint, "x y");
}

static bool is_whole_utf8(const char *s)
{
	for (size_t left = strlen(s), n; left; s += n, left -= n)
		if (!(n = utf8_sequence(s, left)))
			return false;
	return true;
}

static void is_cut_between_characters(void **state)
{
	static const char *const characters[] = { "x", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x90\x98" };
	(void)state;
	for (size_t k = 0; k < 4; k++) {
		for (int shift = 0; shift < 4; shift++) {
			char text[2000] = "";
			struct err e;
			memset(text, '.', (size_t)shift);
			for (size_t at = (size_t)shift; at < 1900; at += strlen(characters[k]))
				memcpy(text + at, characters[k], strlen(characters[k]) + 1);
			err_set(&e, DMSR_EDATA, "x", "%s", text);
			assert_true(is_whole_utf8(e.message));
			assert_in_range(strlen(e.message), sizeof e.message - 4, sizeof e.message - 1);
			err_prefix(&e, "%s", "prefix");
			assert_true(is_whole_utf8(e.message));
			assert_memory_equal(e.message, "prefix: ", 8);
		}
	}
}

static void a_long_id_is_cut(void **state)
{
	struct err e;
	char id[100];
	(void)state;
	memset(id, 'i', sizeof id);
	id[99] = 0;
	err_set(&e, DMSR_EDATA, id, "x");
	assert_int_equal(strlen(e.id), sizeof e.id - 1);
}

static void may_be_told_anew_from_itself(void **state)
{
	struct err e;
	(void)state;
	err_set(&e, DMSR_EDATA, "x", "inner");
	err_set(&e, DMSR_EFATAL, "y", "outer (%s)", e.message);
	assert_string_equal(e.message, "outer (inner)");
	err_retry(&e, e.code, e.id, "%s", e.message);
	assert_int_equal(e.code, DMSR_EFATAL);
	assert_string_equal(e.id, "y");
	assert_string_equal(e.message, "outer (inner)");
	err_hint(&e, "see %s", e.message);
	assert_string_equal(e.hint, "see outer (inner)");
}

RUN_TESTS(cmocka_unit_test(set_retry_hint_prefix), cmocka_unit_test(nobody_listens),
	cmocka_unit_test(control_characters_become_spaces), cmocka_unit_test(is_cut_between_characters),
	cmocka_unit_test(a_long_id_is_cut), cmocka_unit_test(may_be_told_anew_from_itself))
