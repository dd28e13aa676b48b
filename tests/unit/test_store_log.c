/* store, its logs: what was appended is there after reopening, what was trimmed gives its disk back, damage is told. */
#include "store_kit.h"
#include <fcntl.h>

static void test_log(void **state)
{
	struct kit *k = *state;
	const struct dmsr_log *log = kit_open_log(k, UID);
	assert_int_equal(log->first, 1);
	assert_int_equal(log->last, 0);
	assert_int_equal(log->bytes, 0);
	assert_string_equal(kit_read(k, 1, 1000), "");
	for (uint64_t i = 1; i <= 10; i++)
		kit_append(k, i, (size_t)i * 10);
	kit_append(k, 11, 0);
	kit_run(k);
	assert_int_equal(k->last_seq, 11);
	assert_int_equal(kit_disk_bytes(k, UID), 550 + 11 * 24);
	assert_string_equal(kit_read(k, 9, 1 << 20), "9:90 10:100 11:0 ");
	assert_string_equal(kit_read(k, 3, 1), "3:30 "); /* at least one */
	assert_string_equal(kit_read(k, 3, 130), "3:30 4:40 ");
	assert_string_equal(kit_read(k, 12, 1000), "");
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->first, 1);
	assert_int_equal(log->last, 11);
	assert_int_equal(log->bytes, 550);
	kit_append(k, 12, 5);
	assert_string_equal(kit_read(k, 10, 1000), "10:100 11:0 ");
	assert_string_equal(kit_read(k, 12, 1000), "12:5 ");
	assert_int_equal(k->failed, 0);
}

static void test_log_numbers_have_no_gaps(void **state)
{
	struct kit *k = *state;
	kit_open_log(k, UID);
	kit_append(k, 1, 10);
	kit_append(k, 3, 10);
	kit_append(k, 2, 10);
	kit_run(k);
	assert_int_equal(k->failed, 1);
	assert_string_equal(k->error.id, "state.log");
	assert_int_equal(k->failures, 0);
	assert_string_equal(kit_read(k, 1, 1000), "1:10 2:10 ");
}

static void test_log_gives_disk_back(void **state)
{
	struct kit *k = *state;
	const size_t len = 8 << 20;
	const struct dmsr_log *log = kit_open_log(k, UID);
	for (uint64_t i = 1; i <= 20; i++)
		kit_append(k, i, len);
	kit_run(k);
	assert_true(kit_disk_bytes(k, UID) >= 20 * len);
	log->trim(log->ctx, 10);
	assert_string_equal(kit_read(k, 9, 10), "");
	assert_string_equal(kit_read(k, 10, 10), "10:8388608 ");
	kit_load(k, UID); /* a turn of the thread later, it has swept */
	assert_true(kit_disk_bytes(k, UID) < 14 * len);
	kit_put(k, UID, "note", "a", "b");
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->first, 10);
	assert_int_equal(log->last, 20);
	assert_int_equal(log->bytes, 11 * len);
	log->trim(log->ctx, 21);
	for (int i = 0; i < 1000 && kit_disk_bytes(k, UID); i++)
		kit_load(k, UID);
	assert_int_equal(kit_disk_bytes(k, UID), 0);
	assert_string_equal(kit_read(k, 20, 10), "");
	kit_append(k, 21, 7); /* numbers go on */
	assert_string_equal(kit_read(k, 21, 10), "21:7 ");
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->first, 21);
	assert_int_equal(log->last, 21);
}

static void test_log_emptied_begins_anew(void **state)
{
	struct kit *k = *state;
	const struct dmsr_log *log = kit_open_log(k, UID);
	for (uint64_t i = 1; i <= 5; i++)
		kit_append(k, i, 100);
	log->trim(log->ctx, 6);
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->last, 0);
	k->last_seq = 0;
	kit_append(k, 1, 3);
	assert_string_equal(kit_read(k, 1, 1000), "1:3 ");
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->first, 1);
	assert_int_equal(log->last, 1);
}

/* By one who asks for nothing else: a job that stops when its log has just become empty, and is given another target. */
static void test_log_trimmed_and_closed(void **state)
{
	struct kit *k = *state;
	const struct dmsr_log *log = kit_open_log(k, UID);
	for (uint64_t i = 1; i <= 5; i++)
		kit_append(k, i, 100);
	kit_run(k);
	log->trim(log->ctx, 3);
	kit_close_log(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->first, 3);
	assert_int_equal(log->last, 5);
	log->append(log->ctx, 6, "", 1, NULL, NULL); /* goes with it, before it is durable */
	log->trim(log->ctx, 7);
	kit_close_log(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->last, 0);
	kit_close_log(k);
	kit_reopen(k);
	log = kit_open_log(k, UID);
	assert_int_equal(log->last, 0);
	assert_int_equal(k->failures, 0);
}

static void on_cleared(void *arg, const struct err *e) { *(int *)arg = e ? e->code : 1; }

static void test_log_is_cleared(void **state)
{
	struct kit *k = *state;
	int answer = 0;
	kit_open_log(k, UID);
	for (uint64_t i = 1; i <= 5; i++)
		kit_append(k, i, 100);
	kit_run(k);
	store_log_clear(k->store, UID, on_cleared, &answer);
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	assert_int_equal(answer, DMSR_ESTATE);
	assert_string_equal(kit_read(k, 5, 1000), "5:100 ");
	kit_close_log(k);
	store_log_clear(k->store, UID, on_cleared, &answer);
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	assert_int_equal(answer, 1);
	/* killed here or not: nothing of it comes back */
	for (int reopens = 0; reopens < 2; reopens++) {
		assert_int_equal(kit_open_log(k, UID)->last, 0);
		k->last_seq = 0;
		kit_append(k, 1, 3);
		kit_run(k);
		assert_string_equal(kit_read(k, 1, 1000), "1:3 ");
		kit_close_log(k);
		store_log_clear(k->store, UID, NULL, NULL);
		kit_reopen(k);
	}
}

static void test_log_close_silences(void **state)
{
	struct kit *k = *state;
	kit_open_log(k, UID);
	kit_append(k, 1, 100);
	const struct dmsr_log *log = store_log_ops(k->log);
	log->read(log->ctx, 1, 1, kit_on_read, kit_ask(k));
	kit_close_log(k);
	k->waiting = 0; /* neither may come: an answer would find nobody waiting */
	assert_string_equal(kit_load(k, UID), "");
	/* what was appended is there all the same */
	log = kit_open_log(k, UID);
	assert_int_equal(log->last, 1);
}

static void test_log_is_damaged(void **state)
{
	struct kit *k = *state;
	char path[160];
	kit_open_log(k, UID);
	kit_append(k, 1, 1000);
	kit_append(k, 2, 1000);
	kit_run(k);
	kit_put(k, UID, "position", "", "behind 2"); /* from here on somebody relies on both */
	kit_run(k);
	snprintf(path, sizeof path, "%s/logs/%s/00000000000000000001.seg", k->dir, UID);
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "?", 1, 1500), 1);
	assert_string_equal(kit_read(k, 1, 1), "1:1000 ");
	assert_string_equal(kit_read(k, 2, 1), "");
	assert_string_equal(k->error.id, "state.corrupt");
	assert_int_equal(k->failures, 0); /* the other jobs go on */
	kit_close_log(k);
	kit_reopen(k);
	assert_false(kit_try_log(k, UID));
	assert_string_equal(k->error.id, "state.corrupt");
	assert_int_equal(ftruncate(fd, 500), 0);
	close(fd);
	assert_false(kit_try_log(k, UID));
	unlink(path);
	assert_false(kit_try_log(k, UID));
	assert_string_equal(k->error.id, "state.corrupt");
	assert_true(kit_try_log(k, UID2));
}

static void test_log_torn_tail_is_cut(void **state)
{
	struct kit *k = *state;
	char path[160];
	kit_open_log(k, UID);
	kit_append(k, 1, 1000);
	kit_run(k);
	kit_put(k, UID, "position", "", "behind 1");
	kit_run(k);
	kit_append(k, 2, 1000);
	kit_append(k, 3, 1000);
	kit_run(k);
	kit_close_log(k);
	kit_close(k);
	snprintf(path, sizeof path, "%s/logs/%s/00000000000000000001.seg", k->dir, UID);
	assert_int_equal(truncate(path, 3 * 1024 - 1), 0); /* as if we had died in the middle of 3 */
	kit_open(k);
	const struct dmsr_log *log = kit_open_log(k, UID);
	assert_int_equal(log->last, 2);
	k->last_seq = 2;
	kit_append(k, 3, 7);
	assert_string_equal(kit_read(k, 1, 5000), "1:1000 2:1000 ");
	assert_string_equal(kit_read(k, 3, 5000), "3:7 ");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_set_up, kit_tear_down)
RUN_TESTS(TEST(test_log), TEST(test_log_numbers_have_no_gaps), TEST(test_log_gives_disk_back), TEST(test_log_emptied_begins_anew),
	TEST(test_log_trimmed_and_closed), TEST(test_log_is_cleared), TEST(test_log_close_silences), TEST(test_log_is_damaged), TEST(test_log_torn_tail_is_cut))
