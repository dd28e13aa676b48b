/* test_file_power: the file target when the power is cut at each call that changes a file: what was told durable is there, and each row once. */
#include "faulty_disk.h"
#include "file_kit.h"
#include "file_story.h"

#include <sys/mman.h>

/* What the process that dies was told, in memory that outlives it. */
static struct record { uint64_t lsn; bool load_done, is_over; } *record;

static void note_applied(uint64_t lsn) { record->lsn = lsn; }

/* The story, and in a life of its own a word without a row: the first that stands in a journal that was written anew. */
static void live(void)
{
	struct host h;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	story_feed(&h, note_applied);
	host_stop(&h);
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b = word(OP_LOAD_DONE, NULL, 0x80);
	apply(&h, b, 1);
	target()->flush(h.i);
	target()->flush(h.i);
	wait_applied(&h, 1);
	record->load_done = true;
	host_stop(&h);
	batch_free(b);
	record->is_over = true;
}

/* false: it came to its end. */
static bool cut_at(enum fault what, long at)
{
	struct host h;
	int status;
	*record = (struct record){ 0 };
	faulty_disk_begin(dir, what, at, 0);
	pid_t pid = fork();
	if (!pid) {
		live();
		faulty_disk_cut();
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == FAULT_EXIT);
	faulty_disk_end();
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	assert_false(h.has_failed);
	assert_true(h.at.lsn >= record->lsn);
	assert_true(h.load_done >= record->load_done);
	story_feed(&h, NULL);
	host_stop(&h);
	story_assert_all_there();
	return !record->is_over;
}

static void cut_anywhere(enum fault what, void **state)
{
	bool died = true;
	long at = 1;
	for (; died; at++) {
		anew(state);
		died = cut_at(what, at);
	}
	assert_true(at > 60);
}

static void loses_its_power(void **state) { cut_anywhere(FAULT_CUT, state); }
static void loses_some_of_what_is_not_synced(void **state) { cut_anywhere(FAULT_CUT_IN_PART, state); }

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(loses_its_power), TEST(loses_some_of_what_is_not_synced) };
	record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
