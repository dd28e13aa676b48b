/* test_file_fault: each row is in the file target's files once, whenever the process was killed, the disk failed or was full, or the instance was closed. */
#include "connectors/file/file_int.h"
#include "file_kit.h"
#include "file_story.h"

#include <signal.h>
#include <sys/resource.h>

/* The process dies there by SIGKILL. */
static bool dies_at(const char *failpoint_text)
{
	int status;
	pid_t pid = fork();
	if (!pid) {
		struct host h;
		setenv("DMSR_FAILPOINT", failpoint_text, 1);
		failpoint_init();
		host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
		story_feed(&h, NULL);
		host_stop(&h);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

static void killed_anywhere(void **state)
{
	static const char *const points[] = { "file.write", "file.before-journal", "file.before-rename", "file.renamed", "file.after-rename" };
	for (size_t k = 0; k < sizeof points / sizeof *points; k++)
		for (int nth = 1; nth < 12; nth += 3) {
			char text[64];
			anew(state);
			snprintf(text, sizeof text, "%s:%d", points[k], nth);
			bool died = dies_at(text);
			assert_true(died || nth > 1);
			struct host h;
			host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
			assert_int_equal(count_parts(), 0);
			story_feed(&h, NULL);
			host_stop(&h);
			story_assert_all_there();
		}
}

/* The instance says why, in a child; the exit status tells whether it did. */
static int fails_at(const char *failpoint_text, const char *id)
{
	int status;
	pid_t pid = fork();
	if (!pid) {
		struct host h;
		setenv("DMSR_FAILPOINT", failpoint_text, 1);
		failpoint_init();
		host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
		story_feed(&h, NULL);
		_exit(!h.has_failed ? 1 : !h.error.retriable ? 2 : strcmp(h.error.id, id) ? 3 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* The same places fail instead: the instance says so, the next one goes on. */
static void fails_anywhere(void **state)
{
	static const char *const points[] = { "file.write", "file.before-journal", "file.before-rename", "file.renamed", "file.after-rename" };
	for (size_t k = 0; k < sizeof points / sizeof *points; k++)
		for (int nth = 1; nth < 6; nth += 2) {
			char text[64];
			struct host h;
			anew(state);
			snprintf(text, sizeof text, "%s:%d:fail", points[k], nth);
			assert_int_equal(fails_at(text, k ? "target.io" : "target.disk-full"), 0);
			host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
			story_feed(&h, NULL);
			host_stop(&h);
			story_assert_all_there();
		}
}

/* No room, for real. */
static void disk_full(void **state)
{
	struct host h;
	struct rlimit before, small = { 4096, 4096 };
	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b = transaction(orders, 0x100, 1, 1000);
	setrlimit(RLIMIT_FSIZE, &small);
	apply(&h, b, 1);
	target()->flush(h.i);
	target()->flush(h.i);
	wait_applied(&h, 1);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "target.disk-full");
	assert_true(h.error.retriable);
	host_close(&h);
	assert_names("");
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	apply(&h, b, 1);
	host_stop(&h);
	assert_int_equal(h.applied, 1);
	batch_free(b);
}

/* Its real limit is 2 GiB. */
static void a_line_over_the_maximum(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b[2] = { transaction(orders, 0x100, 1, 1), transaction(orders, 0x200, 2, 1) };
	apply(&h, b[0], 1);
	struct loop_timer *stop = loop_timer_new(h.loop, "test", (void (*)(void *))loop_stop, h.loop);
	while (!((struct target *)h.i)->tables) {
		loop_timer_start(stop, 1);
		loop_run(h.loop);
	}
	loop_timer_free(stop);
	struct buf *line = &((struct target *)h.i)->tables->changes->buf;
	line->max = line->cap = line->len;
	apply(&h, b[1], 2);
	wait_applied(&h, 2);
	assert_string_equal(h.error.id, "target.too-long");
	assert_non_null(strstr(h.error.message, "public.orders"));
	assert_non_null(strstr(h.error.hint, "leave that table out"));
	assert_false(h.error.retriable);
	host_close(&h);
	/* to the standard output too */
	host_start(&h, GIVEN("path=-", FLAT));
	((struct target *)h.i)->lines.max = 5;
	apply(&h, b[0], 1);
	wait_applied(&h, 1);
	assert_string_equal(h.error.id, "target.too-long");
	assert_non_null(strstr(h.error.message, "public.orders"));
	host_close(&h);
	batch_free(b[0]);
	batch_free(b[1]);
}

static void refuses(void **state)
{
	struct host h;
	struct err e;
	(void)state;
	assert_int_equal(host_try_open(&h, GIVEN("path=", FLAT), &e), DMSR_EINVAL);
	assert_string_equal(e.id, "target.path");
	h.i = NULL;
	host_close(&h);
	host_start(&h, GIVEN("path=/proc/dmsr-no-such-place", FLAT));
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "target.path");
	assert_non_null(strstr(h.error.message, "/proc is the kernel's"));
	assert_false(h.error.retriable);
	host_close(&h);
	char *file = mem_printf("%s/file", dir), *below = mem_printf("path=%s/lake", file);
	fclose(fopen(file, "w"));
	host_start(&h, GIVEN(below, FLAT)); /* whoever runs this, root too */
	assert_string_equal(h.error.id, "target.path");
	assert_non_null(strstr(h.error.message, file));
	assert_non_null(strstr(h.error.hint, "the user that runs dmsrd"));
	assert_false(h.error.retriable);
	host_close(&h);
	assert_int_equal(unlink(file), 0); /* what was in the way goes */
	host_start(&h, GIVEN(below, FLAT));
	assert_false(h.has_failed);
	host_stop(&h);
	free(file);
	free(below);

	/* a second one of the same job waits, and in the end says who is in its way */
	struct host other;
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(host_try_open(&other, GIVEN(path(), FLAT), NULL), 0);
	target()->start(other.i);
	loop_timer_start(other.limit, 120000);
	struct loop_timer *stop = loop_timer_new(other.loop, "test", (void (*)(void *))loop_stop, other.loop);
	loop_timer_start(stop, 500);
	loop_run(other.loop);
	assert_false(other.is_ready || other.has_failed);
	host_stop(&h);
	while (!other.is_ready)
		run(&other);
	loop_timer_free(stop);
	host_stop(&other);

	/* a row that the format cannot hold */
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	b->first->next->u.row.after = KIT_ROW(b, "1", "latin \xE4", "1");
	apply(&h, b, 1);
	wait_applied(&h, 1);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "codec.encoding");
	host_close(&h);
	batch_free(b);

	/* another server's changes do not go into the same files */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	wait_applied(&h, 1);
	struct batch *foreign = transaction(orders, 0x200, 1, 1);
	foreign->end.server = 8;
	apply(&h, foreign, 2);
	wait_applied(&h, 2);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "target.server-changed");
	host_close(&h);
	batch_free(b);
	batch_free(foreign);
}

static void damaged_journal(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	host_stop(&h);
	char *journal = mem_printf("%s/.dmsr/%s.lake/journal", dir, uid);
	/* torn at its end: what the last group said did not count */
	FILE *f = fopen(journal, "a");
	fputs("P pg:7:0/900:*:0/900\nR 9 public.orders/x\n", f);
	fclose(f);
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(h.at.lsn, 0x100);
	host_stop(&h);
	/* in its middle: it is not believed */
	int fd = open(journal, O_WRONLY);
	assert_int_equal(pwrite(fd, "X", 1, 14), 1);
	assert_int_equal(lseek(fd, 0, SEEK_END) > 0, 1);
	assert_true(write(fd, "P none\nC 0000000000000000\n", 26) == 26);
	close(fd);
	host_start(&h, GIVEN(path(), FLAT));
	assert_true(h.has_failed);
	assert_false(h.error.retriable);
	assert_string_equal(h.error.id, "target.state-damaged");
	host_close(&h);
	free(journal);
	batch_free(b);
}

/* Closed at any moment, in the middle of anything, again and again. */
static void closed_anywhere(void **state)
{
	(void)state;
	for (int turn = 0; turn < 40; turn++) {
		struct host h;
		struct batch *b[20];
		host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=100ms"));
		assert_true(h.is_ready);
		for (int i = 0; i < 20; i++) {
			b[i] = transaction(i % 2 ? orders : odd, 0x1000 * (uint64_t)(i + 1), i, 5);
			apply(&h, b[i], (uint64_t)i + 1);
		}
		wait_applied(&h, (uint64_t)turn % 3);
		host_close(&h);
		for (int i = 0; i < 20; i++)
			batch_free(b[i]);
	}
	struct host h;
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b[20];
	for (int i = 0; i < 20; i++) {
		b[i] = transaction(i % 2 ? orders : odd, 0x1000 * (uint64_t)(i + 1), i, 5);
		apply(&h, b[i], (uint64_t)i + 1);
	}
	host_stop(&h);
	assert_int_equal(h.applied, 20);
	int lines = 0;
	struct listing *l = listing();
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 100);
	for (int i = 0; i < 20; i++)
		batch_free(b[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(killed_anywhere), TEST(fails_anywhere), TEST(disk_full), TEST(refuses), TEST(a_line_over_the_maximum),
		TEST(damaged_journal), TEST(closed_anywhere) };
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
