/* store, when the disk fails or we die: at every single call that changes a file, in turn. Nothing that was confirmed may be missing afterwards,
 * nothing may be confirmed after a failure, nothing may ever read as something that was not written. */
#include "store_kit.h"
#include "base/sanitizer.h"
#include "engine/seglog.h"
#include "faulty_disk.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>

#if defined(DMSR_ASAN) || defined(DMSR_TSAN)
enum { STRIDE = 13 };
#else
enum { STRIDE = 3 };
#endif
/* Of the calls, every so many is hit; with DMSR_TEST_ALL set, each is. */
static long stride = STRIDE;
enum { ROUNDS = 5 };

/* ---- what is done, and what was confirmed of it ---- */

/* In memory that outlives the process that dies. */
struct record {
	int64_t generation;           /* of UID's job */
	int texts, asked_texts;       /* note/0 ... */
	int letters, asked_letters;
	uint64_t seq, asked_seq;      /* of the log */
	uint64_t relied;              /* position/delivered */
	uint64_t trimmed;             /* asked */
	bool is_deleted, asked_delete; /* UID2 */
	bool is_closed, is_open;
};
static struct record *record;

static void on_answer(void *arg, const struct err *e)
{
	struct kit *k = arg;
	if (!e && k->failed)
		fail_msg("confirmed after a failure");
	kit_answered(k, e);
}

static void on_appended(void *arg, uint64_t seq, const struct err *e)
{
	if (!e)
		record->seq = seq;
	on_answer(arg, e);
}

/* Waits for all that was asked; true: all was confirmed. */
static bool confirmed(struct kit *k)
{
	kit_run(k);
	return !k->failed;
}

static void put_text(struct kit *k, const char *kind, uint64_t key, uint64_t value)
{
	char name[24], text[24];
	snprintf(name, sizeof name, "%llu", (unsigned long long)key);
	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	store_put(k->store, UID, kind, name, text, on_answer, kit_ask(k));
}

static void append(struct kit *k)
{
	const struct dmsr_log *log = store_log_ops(k->log);
	uint64_t seq = ++record->asked_seq;
	char data[3000];
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)(seq * 7 + i);
	log->append(log->ctx, seq, data, 1000 + seq % 3 * 1000, on_appended, kit_ask(k));
}

static bool write_rows(struct kit *k, int round)
{
	struct store_job j = { UID, "shop", "{}", round + 1, "running", "loading", NULL, 1, 2 };
	record->asked_texts = record->asked_letters = round + 1;
	char at[16];
	snprintf(at, sizeof at, "pg:%d", round);
	struct store_dead_letter d = { 0, 5, "dw", at, "public", "t", "create", "data.unique", "no", "{}" };
	store_job_put(k->store, &j, on_answer, kit_ask(k));
	put_text(k, "note", (uint64_t)round, (uint64_t)round * 1000);
	store_dead_letter_put(k->store, UID, &d, on_answer, kit_ask(k));
	store_event_put(k->store, UID, &(struct store_event){ .kind = "state", .text = "x" });
	if (!confirmed(k))
		return false;
	record->generation = record->texts = record->letters = round + 1;
	return true;
}

static bool write_log(struct kit *k)
{
	for (int i = 0; i < 4; i++)
		append(k);
	if (!confirmed(k))
		return false;
	put_text(k, "position", 0, record->seq);
	append(k);
	uint64_t relied = record->seq;
	if (!confirmed(k))
		return false;
	record->relied = relied;
	return true;
}

static bool write_round(struct kit *k, int round)
{
	const struct dmsr_log *log = store_log_ops(k->log);
	if (!write_rows(k, round) || !write_log(k))
		return false;
	if (round == 2) {
		record->asked_delete = true;
		store_job_delete(k->store, UID2, on_answer, kit_ask(k));
		if (!confirmed(k))
			return false;
		record->is_deleted = true;
	}
	if (round > 1) {
		record->trimmed = record->relied - 2;
		log->trim(log->ctx, record->trimmed);
		kit_load(k, UID); /* answered, it is swept, before the next write comes by */
	}
	return !k->failed;
}

static bool write_other_job(struct kit *k)
{
	store_put(k->store, UID2, "note", "a", "b", on_answer, kit_ask(k));
	if (!kit_try_log(k, UID2) || !confirmed(k))
		return false;
	kit_append(k, 1, 100);
	bool went_well = confirmed(k);
	store_log_close(k->log);
	k->log = NULL;
	return went_well;
}

static void work(struct kit *k)
{
	bool goes_on = write_other_job(k) && kit_try_log(k, UID);
	for (int round = 0; round < ROUNDS && goes_on; round++)
		goes_on = write_round(k, round);
	if (goes_on) {
		/* a turn for the sweep */
		put_text(k, "note", 0, 0);
		confirmed(k);
	}
	store_log_close(k->log);
	k->log = NULL;
	kit_close(k);
	record->is_closed = goes_on;
}

/* ---- what must be there afterwards ---- */

static int on_found_job(void *arg, const struct store_job *j)
{
	if (!strcmp(j->uid, UID))
		*(int64_t *)arg = j->generation;
	return 0;
}

static void on_found_letters(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e)
{
	struct kit *k = arg;
	(void)rows;
	buf_printf(&k->text, "%zu", n);
	kit_answered(k, e);
}

static void verify_rows(struct kit *k)
{
	int64_t generation = 0;
	assert_int_equal(store_each_job(k->store, on_found_job, &generation, NULL), 0);
	assert_in_range(generation, record->generation, record->generation + 1);
	const char *texts = kit_load(k, UID);
	for (int i = 0; i < record->asked_texts; i++) {
		char text[40];
		snprintf(text, sizeof text, "note/%d=%d ", i, i * 1000);
		if (!strstr(texts, text))
			assert_true(i >= record->texts);
	}
	buf_reset(&k->text);
	store_dead_letters(k->store, UID, 0, 100, on_found_letters, kit_ask(k));
	kit_run(k);
	assert_in_range(strtol(buf_cstr(&k->text), NULL, 10), record->letters, record->asked_letters);
	if (record->is_deleted)
		assert_string_equal(kit_load(k, UID2), "");
	if (!record->asked_delete && record->texts)
		assert_string_equal(kit_load(k, UID2), "note/a=b ");
}

static void verify_log(struct kit *k)
{
	const struct dmsr_log *log = kit_open_log(k, UID);
	uint64_t first = log->first, last = log->last;
	assert_in_range(last, record->seq, record->asked_seq);
	assert_true(first <= (record->trimmed ? record->trimmed : 1));
	buf_reset(&k->text);
	for (uint64_t seq = first; seq <= last; seq++) {
		char text[40];
		snprintf(text, sizeof text, "%llu:%llu ", (unsigned long long)seq, (unsigned long long)(1000 + seq % 3 * 1000));
		assert_string_equal(kit_read(k, seq, 1), text); /* its bytes are looked at, too */
	}
	record->asked_seq = last;
	append(k);
	assert_true(confirmed(k));
	store_log_close(k->log);
	k->log = NULL;
	/* and the other job's, whose removal may have been cut short */
	log = kit_open_log(k, UID2);
	if (record->is_deleted)
		assert_int_equal(log->last, 0);
	store_log_close(k->log);
	k->log = NULL;
}

static void verify(struct kit *k)
{
	k->failed = k->failures = 0;
	kit_open(k);
	verify_rows(k);
	if (record->texts || record->seq)
		verify_log(k);
	assert_int_equal(k->failed, 0);
	assert_int_equal(k->failures, 0);
	kit_close(k);
}

static void no_log(void *arg, const char *line, size_t len)
{
	(void)arg;
	(void)line;
	(void)len;
}

static int set_up(void **state)
{
	log_set_sink(no_log, NULL);
	stride = getenv("DMSR_TEST_ALL") ? 1 : STRIDE;
	if (!access("/dev/shm", W_OK))
		setenv("TMPDIR", "/dev/shm", 0);
	record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* small enough that each of these happens often */
	seglog_tune = (struct seglog_tune){ .segment_bytes = 7000, .keep_bytes = 3000 };
	store_tune.wal_pages = 20;
	store_tune.free_pages = 1;
	*state = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	munmap(record, sizeof *record);
	return 0;
}

static void begin(struct kit *k, enum fault what, long at, int error)
{
	kit_init(k);
	memset(record, 0, sizeof *record);
	faulty_disk_begin(k->dir, what, at, error);
}

static void end(struct kit *k)
{
	faulty_disk_end();
	kit_fini(k);
}

static unsigned full;

/* SQLite does not keep the reason of all that can fail. */
static bool tells(const struct err *e, int error)
{
	full += !strcmp(e->id, "state.full");
	return !strcmp(e->id, "state.io") || (error == ENOSPC && !strcmp(e->id, "state.full"));
}

/* One run in which call `at` fails. false: there are fewer calls than that. */
static bool run_with_error(long at, int error)
{
	struct kit k;
	struct err e = { 0 };
	begin(&k, FAULT_ERROR, at, error);
	int rc = kit_try_open(&k, &e);
	if (rc) {
		if (!tells(&e, error))
			fail_msg("%s %s", e.id, e.message);
		if (!e.hint[0])
			fail_msg("no advice: %s", e.message);
		assert_true(faulty_disk_was_hit());
	} else {
		work(&k);
		assert_true(k.failures <= 1);
		assert_true(k.failures >= (k.failed > 0));
		if (k.failures) {
			assert_true(tells(&k.failure, error));
			assert_int_equal(faulty_disk_calls(), at); /* nothing is tried again, also not by closing */
		}
	}
	bool was_hit = faulty_disk_was_hit();
	faulty_disk_rest();
	verify(&k);
	end(&k);
	return was_hit;
}

static void test_every_call_fails_once(void **state)
{
	(void)state;
	long at = 1;
	while (run_with_error(at, at % 2 ? ENOSPC : EIO))
		at += stride;
	assert_true(at > 200); /* there are about 290 */
	assert_true(full > at / stride / 4);
	for (at = 1 + stride / 2; run_with_error(at, at % 2 ? EIO : ENOSPC);)
		at += stride;
}

/* One run in a process that dies at call `at`, or at a failpoint. false: it came to its end. */
static bool run_and_die(enum fault what, long at, const char *failpoint)
{
	struct kit k;
	begin(&k, what, at, 0);
	pid_t pid = fork();
	if (!pid) {
		setenv("CMOCKA_TEST_ABORT", "1", 1);
		if (failpoint)
			setenv("DMSR_FAILPOINT", failpoint, 1);
		failpoint_init();
		kit_open(&k);
		work(&k);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	faulty_disk_rest();
	bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	if (!died && !(WIFEXITED(status) && (WEXITSTATUS(status) == FAULT_EXIT || !WEXITSTATUS(status))))
		fail_msg("the process that was to die ended with status %x", (unsigned)status);
	died |= WIFEXITED(status) && WEXITSTATUS(status) == FAULT_EXIT;
	if (!died)
		assert_true(record->is_closed);
	verify(&k);
	end(&k);
	return died;
}

static void test_killed_at_every_call(void **state)
{
	(void)state;
	long at = 1;
	while (run_and_die(FAULT_KILL, at, NULL))
		at += stride;
	assert_true(at > 200); /* there are about 290 */
}

static void test_power_cut_at_every_call(void **state)
{
	(void)state;
	long at = 1 + stride / 3;
	while (run_and_die(FAULT_CUT, at, NULL))
		at += stride;
	assert_true(at > 200); /* there are about 290 */
}

static void test_power_cut_that_tears(void **state)
{
	(void)state;
	long at = 1 + stride * 2 / 3;
	while (run_and_die(FAULT_CUT_IN_PART, at, NULL))
		at += stride;
	assert_true(at > 200); /* there are about 290 */
}

static void test_killed_at_failpoints(void **state)
{
	(void)state;
	static const char *const names[] = { "store.before-commit", "store.between", "store.after-commit" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		for (int n = 1;; n += 3) {
			char text[64];
			snprintf(text, sizeof text, "%s:%d:kill", names[i], n);
			if (!run_and_die(FAULT_NONE, 0, text))
				break;
			assert_true(n < 100);
		}
}

static void run_failpoint(const char *name, int n, const char *id)
{
	struct kit k;
	char text[64];
	begin(&k, FAULT_NONE, 0, 0);
	snprintf(text, sizeof text, "%s:%d:fail", name, n);
	setenv("DMSR_FAILPOINT", text, 1);
	failpoint_init();
	kit_open(&k);
	work(&k);
	unsetenv("DMSR_FAILPOINT");
	failpoint_init();
	assert_int_equal(k.failures, 1);
	assert_true(k.failed > 0);
	assert_string_equal(k.failure.id, id);
	assert_string_equal(k.error.id, id);
	verify(&k);
	end(&k);
}

static void test_failpoints_fail(void **state)
{
	(void)state;
	for (int n = 1; n < 12; n++) {
		run_failpoint("store.before-commit", n, "state.io");
		run_failpoint("store.between", n, "state.io");
		run_failpoint("store.after-commit", n, "state.io");
		run_failpoint("store.full", n, "state.full");
	}
}

/* What a process that was killed left in memory alone is durable when the next one says that it is there. */
static void test_power_cut_behind_a_kill(void **state)
{
	(void)state;
	struct kit k;
	struct seglog *g = NULL;
	char path[128];
	begin(&k, FAULT_CUT, LONG_MAX, 0);
	snprintf(path, sizeof path, "%s/log", k.dir);
	pid_t pid = fork();
	if (!pid) {
		setenv("CMOCKA_TEST_ABORT", "1", 1);
		assert_int_equal(seglog_open(path, 7, &(struct seglog_promise){ 1, 0 }, &g, NULL), 0);
		for (uint64_t seq = 1; seq <= 3; seq++)
			assert_int_equal(seglog_append(g, seq, "words", 5, NULL), 0);
		seglog_close(g);
		assert_int_equal(seglog_open(path, 7, &(struct seglog_promise){ 1, 0 }, &g, NULL), 0);
		assert_int_equal(seglog_last(g), 3);
		faulty_disk_cut();
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == FAULT_EXIT);
	faulty_disk_rest();
	assert_int_equal(seglog_open(path, 7, &(struct seglog_promise){ 1, 3 }, &g, NULL), 0);
	assert_int_equal(seglog_last(g), 3);
	seglog_close(g);
	end(&k);
}

/* ---- damage ---- */

static int on_any_note(void *arg, const char *key, const char *value)
{
	if (strcmp(value, key) != 0)
		fail_msg("garbage: %s=%s", key, value);
	++*(size_t *)arg;
	return 0;
}

/* Either it says that it is damaged, or all rows are right. */
static void read_damaged(struct kit *k)
{
	struct err e = { 0 };
	char wal[128];
	snprintf(wal, sizeof wal, "%s/state.db-wal", k->dir);
	unlink(wal); /* of the one before */
	k->failed = 0;
	if (kit_try_open(k, &e)) {
		if (strcmp(e.id, "state.corrupt") != 0 && strcmp(e.id, "state.newer") != 0)
			fail_msg("%s: %s", e.id, e.message);
		return;
	}
	size_t n = 0;
	if (store_each(k->store, UID, "note", on_any_note, &n, &e))
		assert_string_equal(e.id, "state.corrupt");
	else
		assert_int_equal(n, 40);
	kit_close(k);
}

static void test_changed_and_lost_bytes(void **state)
{
	(void)state;
	struct kit k;
	char path[128];
	begin(&k, FAULT_NONE, 0, 0);
	kit_open(&k);
	for (int i = 0; i < 40; i++) {
		char text[40];
		snprintf(text, sizeof text, "a text of some length, %d", i);
		kit_put(&k, UID, "note", text, text);
	}
	kit_run(&k);
	kit_close(&k);
	snprintf(path, sizeof path, "%s/state.db", k.dir);
	int fd = open(path, O_RDWR);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	char *good = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, good, (size_t)st.st_size, 0), st.st_size);
	unsigned chance = 1;
	for (int i = 0; i < 600 / stride; i++) {
		/* a byte that says something: most of a young file is zeros */
		off_t at;
		do {
			chance = chance * 1103515245 + 12345;
			at = (off_t)(chance >> 8) % st.st_size;
		} while (!good[at]);
		char bad = (char)(good[at] ^ (1 << (i % 8)));
		assert_int_equal(pwrite(fd, &bad, 1, at), 1);
		read_damaged(&k);
		assert_int_equal(pwrite(fd, good, (size_t)st.st_size, 0), st.st_size);
		assert_int_equal(ftruncate(fd, st.st_size), 0);
	}
	for (off_t size = st.st_size - 1; size > 0; size -= 777 * stride) {
		assert_int_equal(ftruncate(fd, size), 0);
		read_damaged(&k);
		assert_int_equal(pwrite(fd, good, (size_t)st.st_size, 0), st.st_size);
		assert_int_equal(ftruncate(fd, st.st_size), 0);
	}
	close(fd);
	free(good);
	end(&k);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
RUN_TESTS(TEST(test_every_call_fails_once), TEST(test_killed_at_every_call), TEST(test_power_cut_at_every_call), TEST(test_power_cut_that_tears),
	TEST(test_power_cut_behind_a_kill), TEST(test_killed_at_failpoints), TEST(test_failpoints_fail), TEST(test_changed_and_lost_bytes))
