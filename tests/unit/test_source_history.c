/* source_history: which columns a change may have, by when it was committed, in this run and in the next. The marks here are words; what they say does not
 * matter. */
#include "test.h"

#include "connectors/postgres/source_history.h"

enum { T = 7 };

static void expect_at(const struct history *h, uint64_t lsn, const char *mark)
{
	const char *is = history_at(h, T, lsn);
	if (mark ? !is || strcmp(is, mark) != 0 : is != NULL)
		fail_msg("at %llx: %s instead of %s", (unsigned long long)lsn, is ? is : "nothing", mark ? mark : "nothing");
}

static void expect_text(struct history *h, uint64_t passed, const char *text)
{
	struct buf b;
	buf_init(&b, 4096);
	history_write(h, T, passed, &b);
	assert_string_equal(buf_cstr(&b), text);
	buf_fini(&b);
}

static struct history *again(const char *text)
{
	struct history *h = history_new();
	history_read(h, T, text);
	return h;
}

static void an_older_change_has_an_older_mark(void **state)
{
	(void)state;
	struct history *h = history_new();
	assert_null(history_newest(h, T));
	expect_at(h, 5, NULL);
	history_saw(h, T, "one", 0x10);
	expect_at(h, 5, NULL);
	history_saw(h, T, "one", 0x20);
	expect_at(h, 5, NULL);
	history_saw(h, T, "two", 0x30);
	history_saw(h, T, "three", 0x100000040);
	assert_string_equal(history_newest(h, T), "three");
	expect_at(h, 5, "one");
	expect_at(h, 0x2f, "one");
	expect_at(h, 0x30, "two");
	expect_at(h, 0x10000003f, "two");
	expect_at(h, 0x100000040, "three");
	history_free(h);
	h = history_new();
	expect_text(h, 0, "");
	history_free(h);
}

static void the_next_run_knows_what_is_not_passed(void **state)
{
	(void)state;
	struct history *h = history_new();
	history_saw(h, T, "one", 0x10);
	expect_text(h, 0, "one");
	history_saw(h, T, "two", 0x30);
	history_saw(h, T, "three", 0x100000040);
	expect_text(h, 0x2f, "three 0/30@one 1/40@two");
	expect_text(h, 0x30, "three 1/40@two");
	expect_text(h, 0, "three 1/40@two");
	expect_at(h, 5, "two");
	expect_text(h, 0x100000040, "three");
	expect_text(h, 0, "three");
	expect_at(h, 0x100000041, "three");
	history_free(h);

	h = again("three 0/30@one 1/40@two");
	assert_string_equal(history_newest(h, T), "three");
	expect_at(h, 0x2f, "one");
	expect_at(h, 0x30, "two");
	expect_at(h, 0x100000040, "three");
	expect_text(h, 0, "three 0/30@one 1/40@two");
	history_saw(h, T, "four", 0x200000000);
	expect_at(h, 0x100000040, "three");
	history_free(h);
}

static void a_load_is_a_beginning(void **state)
{
	(void)state;
	struct history *h = again("two 0/30@one");
	history_loaded(h, T, "three");
	assert_string_equal(history_newest(h, T), "three");
	expect_at(h, 5, "three");
	expect_text(h, 0, "three");
	history_saw(h, T, "three", 0x40);
	expect_at(h, 5, "three");
	history_saw(h, T, "four", 0x50);
	expect_at(h, 0x4f, "three");
	expect_at(h, 0x50, "four");
	history_free(h);
}

static void what_cannot_be_read_is_not_there(void **state)
{
	(void)state;
	static const char *const notes[] = { "one", "one ", "one  ", "one x", "one 0/@two", "one 0/1", "one @two", "one two@three",
		"one 0x0/30@two", "one 0/+30@two", "one 0/30 @two", "one 0/123456789@two", "one 00000000000000000000000000/1@two" };
	for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
		struct history *h = again(notes[i]);
		expect_text(h, 0, "one");
		history_free(h);
	}
	struct history *h = again("");
	assert_null(history_newest(h, T));
	history_free(h);
	h = again("one x 0/30@two");
	expect_text(h, 0, "one 0/30@two");
	history_free(h);
	history_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_older_change_has_an_older_mark),
		cmocka_unit_test(the_next_run_knows_what_is_not_passed),
		cmocka_unit_test(a_load_is_a_beginning),
		cmocka_unit_test(what_cannot_be_read_is_not_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
