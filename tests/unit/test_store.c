/* store: every call, what is there after reopening, order, shared commits, limits, locks, damage that is told. */
#include "store_kit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

/* ---- the directory ---- */

static mode_t mode_of(const struct kit *k, const char *name)
{
	char path[128];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", k->dir, name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void test_modes(void **state)
{
	struct kit *k = *state;
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	assert_int_equal(mode_of(k, "."), 0700);
	assert_int_equal(mode_of(k, "state.db"), 0600);
	assert_int_equal(mode_of(k, "state.db-wal"), 0600);
	assert_int_equal(mode_of(k, "lock"), 0600);
	assert_string_equal(store_dir(k->store), k->dir);
}

static void test_second_open_is_refused(void **state)
{
	struct kit *k = *state;
	struct err e = { 0 };
	struct store *second = NULL;
	char pid[32];
	snprintf(pid, sizeof pid, "process %d", (int)getpid());
	assert_int_equal(store_open(k->loop, k->dir, NULL, NULL, &second, &e), DMSR_ESTATE);
	assert_null(second);
	assert_string_equal(e.id, "state.locked");
	assert_non_null(strstr(e.message, pid));
	assert_true(e.hint[0] != 0);
	/* the first one is none the worse for it */
	kit_put(k, UID, "note", "a", "b");
	assert_string_equal(kit_load(k, UID), "note/a=b ");
	kit_close(k);
	assert_int_equal(store_open(k->loop, k->dir, NULL, NULL, &second, NULL), 0);
	store_close(second);
	kit_open(k);
}

static void test_directory_is_made(void **state)
{
	struct kit *k = *state;
	char dir[128];
	struct store *s = NULL;
	struct err e = { 0 };
	snprintf(dir, sizeof dir, "%s/deep/er", k->dir);
	assert_int_equal(store_open(k->loop, dir, NULL, NULL, &s, &e), 0);
	store_close(s);
	assert_int_equal(mode_of(k, "deep/er"), 0700);
	snprintf(dir, sizeof dir, "%s/lock/not-a-directory", k->dir);
	assert_int_equal(store_open(k->loop, dir, NULL, NULL, &s, &e), DMSR_EIO);
	assert_non_null(strstr(e.message, "not-a-directory"));
	snprintf(dir, sizeof dir, "%s/open", k->dir);
	assert_int_equal(mkdir(dir, 0777), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(store_open(k->loop, dir, NULL, NULL, &s, &e), 0); /* empty and ours: closed to others */
	store_close(s);
	assert_int_equal(mode_of(k, "open"), 0700);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(store_open(k->loop, dir, NULL, NULL, &s, &e), DMSR_EAUTH);
	assert_string_equal(e.id, "state.mode");
}

static void write_file(const struct kit *k, const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", k->dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
	close(fd);
}

static void assert_damaged(struct kit *k)
{
	struct err e = { 0 };
	assert_int_equal(kit_try_open(k, &e), DMSR_EPROTO);
	assert_string_equal(e.id, "state.corrupt");
	assert_true(e.hint[0] != 0);
}

static void test_lost_database_is_no_beginning(void **state)
{
	struct kit *k = *state;
	char path[128];
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	kit_close(k);
	write_file(k, "state.db", "");
	assert_damaged(k);
	snprintf(path, sizeof path, "%s/state.db", k->dir);
	unlink(path);
	assert_damaged(k);
	write_file(k, "state.db", "this is no database, and it is long enough to be looked at by whoever expects one");
	assert_damaged(k);
	unlink(path);
	snprintf(path, sizeof path, "%s/format", k->dir);
	unlink(path); /* as a person who means it */
	kit_open(k);
	assert_string_equal(kit_load(k, UID), "");
}

/* ---- jobs ---- */

static int on_job(void *arg, const struct store_job *j)
{
	buf_printf(arg, "%s %s %s %lld %s %s %s %lld %lld\n", j->uid, j->name, j->spec, (long long)j->generation, j->desired_state, j->state,
		j->error ? j->error : "-", (long long)j->created_us, (long long)j->updated_us);
	return 0;
}

static const char *all_jobs(struct kit *k)
{
	buf_reset(&k->text);
	assert_int_equal(store_each_job(k->store, on_job, &k->text, NULL), 0);
	return buf_cstr(&k->text);
}

static void put_job(struct kit *k, const char *uid, const char *name, int64_t generation, const char *error)
{
	struct store_job j = { uid, name, "{}", generation, "running", "loading", error, name[0], INT64_MAX };
	store_job_put(k->store, &j, kit_done, kit_ask(k));
}

static int stop_at_first(void *arg, const struct store_job *j)
{
	(void)j;
	++*(int *)arg;
	return 77;
}

static void test_jobs(void **state)
{
	struct kit *k = *state;
	static const char both[] = UID " shop {} 2 running loading {\"code\":\"x\"} 115 9223372036854775807\n" UID2
				       " umbrella {} 1 running loading - 117 9223372036854775807\n";
	put_job(k, UID2, "umbrella", 1, NULL);
	put_job(k, UID, "shop", 1, NULL);
	put_job(k, UID, "shop", 2, "{\"code\":\"x\"}");
	/* nothing was waited for: a reader sees what was asked before it all the same */
	assert_string_equal(all_jobs(k), both);
	kit_run(k);
	assert_int_equal(k->done, 3);
	kit_reopen(k);
	assert_string_equal(all_jobs(k), both);
	int calls = 0;
	assert_int_equal(store_each_job(k->store, stop_at_first, &calls, NULL), 77);
	assert_int_equal(calls, 1);
}

/* ---- texts ---- */

static int on_text(void *arg, const char *key, const char *value)
{
	buf_printf(arg, "%s=%s ", key, value);
	return 0;
}

static void test_texts(void **state)
{
	struct kit *k = *state;
	kit_put(k, UID, "position", "", "pg:1");
	kit_put(k, UID, "note", "slot", "a");
	kit_put(k, UID, "note", "slot", "b");
	kit_put(k, UID, "note", "gone", "x");
	kit_put(k, UID, "note", "gone", NULL);
	kit_put(k, UID, "note", "", "");
	kit_put(k, UID2, "note", "slot", "other");
	store_put(k->store, UID, "load", "public.\"t\"", "unasked", NULL, NULL);
	assert_string_equal(kit_load(k, UID), "load/public.\"t\"=unasked note/= note/slot=b position/=pg:1 ");
	kit_reopen(k);
	assert_string_equal(kit_load(k, UID), "load/public.\"t\"=unasked note/= note/slot=b position/=pg:1 ");
	assert_string_equal(kit_load(k, "nobody"), "");
	buf_reset(&k->text);
	assert_int_equal(store_each(k->store, UID, "note", on_text, &k->text, NULL), 0);
	assert_string_equal(buf_cstr(&k->text), "= slot=b ");
	assert_int_equal(k->failed, 0);
}

static void test_big_texts(void **state)
{
	struct kit *k = *state;
	size_t n = 3 << 20;
	char *big = mem_alloc(n + 1);
	memset(big, 'x', n);
	big[n] = 0;
	kit_put(k, UID, "note", "big", big);
	kit_run(k);
	kit_reopen(k);
	assert_int_equal(strlen(kit_load(k, UID)), n + strlen("note/big= "));
	free(big);
}

/* ---- order and groups ---- */

struct ordered {
	struct kit *kit;
	int number;
};
static int newest;

static void on_ordered(void *arg, const struct err *e)
{
	struct ordered *o = arg;
	assert_int_equal(o->number, newest + 1);
	newest = o->number;
	kit_answered(o->kit, e);
}

static void test_writes_share_commits(void **state)
{
	struct kit *k = *state;
	static struct ordered orders[1000];
	struct store_stat stat;
	newest = 0;
	for (int i = 0; i < 1000; i++) {
		char key[16];
		snprintf(key, sizeof key, "%04d", i);
		orders[i] = (struct ordered){ k, i + 1 };
		store_put(k->store, UID, "note", key, key, on_ordered, &orders[i]);
		kit_ask(k);
	}
	assert_int_equal(newest, 0); /* never inside the call */
	kit_run(k);
	assert_int_equal(newest, 1000);
	store_stat(k->store, &stat);
	assert_int_equal(stat.writes, 1000);
	assert_int_equal(stat.queued, 0);
	assert_int_equal(stat.queued_bytes, 0);
	assert_int_equal(stat.errors, 0);
	assert_in_range(stat.commits, 1, 200);
	assert_true(stat.commit_us_max <= stat.commit_us_total && stat.commit_us_total > 0);
	assert_true(stat.last_commit_us > 0);
}

/* The C library's, also for SQLite: a disk that takes its time, and says who waits for it. */
static pthread_t loop_thread;
static atomic_uint syncs, syncs_of_the_loop;
static atomic_bool is_slow;

int fdatasync(int fd)
{
	if (is_slow) {
		syncs++;
		syncs_of_the_loop += pthread_equal(pthread_self(), loop_thread) != 0;
		nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000 * 1000 }, NULL);
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) { return fdatasync(fd); }

struct ticker { struct loop_timer *timer; unsigned n; };

static void on_tick(void *arg)
{
	struct ticker *t = arg;
	t->n++;
	loop_timer_start(t->timer, 10);
}

static void test_a_slow_disk_holds_nobody_up(void **state)
{
	struct kit *k = *state;
	struct ticker t = { .timer = loop_timer_new(k->loop, "test", on_tick, &t) };
	kit_open_log(k, UID);
	loop_thread = pthread_self();
	is_slow = true;
	loop_timer_start(t.timer, 10);
	for (int i = 1; i <= 5; i++) {
		kit_put(k, UID, "note", "n", "1");
		kit_append(k, (uint64_t)i, 1000);
		kit_run(k);
	}
	kit_close_log(k);
	is_slow = false;
	loop_timer_free(t.timer);
	assert_true(syncs >= 5);
	assert_int_equal(syncs_of_the_loop, 0);
	assert_true(t.n > 10); /* of 50 and more, on a machine that has time */
}

static void put_again(void *arg, const struct err *e)
{
	struct kit *k = arg;
	kit_answered(k, e);
	if (k->done < 3)
		store_put(k->store, UID, "note", "n", k->done == 1 ? "1" : "2", put_again, kit_ask(k));
}

static void test_close_finishes(void **state)
{
	struct kit *k = *state;
	store_put(k->store, UID, "note", "n", "0", put_again, kit_ask(k));
	kit_close(k);
	assert_int_equal(k->done, 3);
	kit_open(k);
	assert_string_equal(kit_load(k, UID), "note/n=2 ");
}

/* ---- dead letters ---- */

static void put_letter_at(struct kit *k, const char *uid, const char *change, const char *position, const char *target, const char *op)
{
	struct store_dead_letter d = { 0, 5, target, position, "public", "t", op, "data.unique", "no", change };
	store_dead_letter_put(k->store, uid, &d, kit_done, kit_ask(k));
}

static void put_letter(struct kit *k, const char *uid, const char *change)
{
	static int n;
	char position[16];
	snprintf(position, sizeof position, "pg:%d", ++n);
	put_letter_at(k, uid, change, position, "dw", "create");
}

static void on_letters(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e)
{
	struct kit *k = arg;
	for (size_t i = 0; i < n; i++) {
		assert_memory_equal(rows[i].target, "dw", 2);
		assert_memory_equal(rows[i].position, "pg:", 3);
		assert_string_equal(rows[i].schema, "public");
		assert_string_equal(rows[i].table, "t");
		assert_true(!strcmp(rows[i].op, "create") || !strcmp(rows[i].op, "read"));
		assert_string_equal(rows[i].code, "data.unique");
		assert_string_equal(rows[i].message, "no");
		assert_int_equal(rows[i].ts_us, 5);
		buf_printf(&k->text, "%lld=%.9s ", (long long)rows[i].id, rows[i].change_json);
	}
	kit_answered(k, e);
}

static const char *letters(struct kit *k, const char *uid, int64_t after, int limit)
{
	buf_reset(&k->text);
	store_dead_letters(k->store, uid, after, limit, on_letters, kit_ask(k));
	kit_run(k);
	return buf_cstr(&k->text);
}

/* Who is killed before it has committed refuses a row once more. */
static void test_one_letter_for_a_change(void **state)
{
	struct kit *k = *state;
	put_letter_at(k, UID, "a", "pg:a", "dw", "create");
	put_letter_at(k, UID, "b", "pg:a", "dw", "create");
	assert_string_equal(letters(k, UID, 0, 100), "1=a ");
	kit_reopen(k);
	put_letter_at(k, UID, "c", "pg:a", "dw", "create");
	put_letter_at(k, UID, "d", "pg:a", "dw2", "create");
	put_letter_at(k, UID2, "z", "pg:a", "dw", "create");
	put_letter_at(k, UID, "e", "pg:b", "dw", "create");
	/* rows of a load have the position of its snapshot, all of them */
	put_letter_at(k, UID, "f", "pg:c", "dw", "read");
	put_letter_at(k, UID, "g", "pg:c", "dw", "read");
	assert_string_equal(letters(k, UID, 0, 100), "1=a 2=d 3=e 4=f 5=g ");
	assert_string_equal(letters(k, UID2, 0, 100), "1=z ");
	/* one that was looked at and deleted is none any more */
	store_dead_letter_delete(k->store, UID, 1, kit_done, kit_ask(k));
	put_letter_at(k, UID, "h", "pg:a", "dw", "create");
	assert_string_equal(letters(k, UID, 4, 100), "5=g 6=h ");
	assert_int_equal(k->failed, 0);
}

static void test_dead_letters(void **state)
{
	struct kit *k = *state;
	put_letter(k, UID, "a");
	put_letter(k, UID, "b");
	put_letter(k, UID2, "z");
	put_letter(k, UID, "c");
	assert_string_equal(letters(k, UID, 0, 100), "1=a 2=b 3=c ");
	assert_string_equal(letters(k, UID, 1, 1), "2=b ");
	store_dead_letter_delete(k->store, UID, 3, kit_done, kit_ask(k));
	put_letter(k, UID, "d");
	assert_string_equal(letters(k, UID, 0, 100), "1=a 2=b 4=d "); /* a number comes once */
	kit_reopen(k);
	assert_string_equal(letters(k, UID, 1, 100), "2=b 4=d ");
	store_dead_letter_delete(k->store, UID, 0, kit_done, kit_ask(k));
	put_letter(k, UID, "e");
	assert_string_equal(letters(k, UID, 0, 100), "5=e ");
	assert_string_equal(letters(k, UID2, 0, 100), "1=z ");
	assert_int_equal(k->failed, 0);
}

static void test_big_pages_are_cut(void **state)
{
	struct kit *k = *state;
	size_t n = 10 << 20;
	char *big = mem_alloc(n + 1);
	memset(big, 'x', n);
	big[n] = 0;
	for (int i = 0; i < 4; i++)
		put_letter(k, UID, big);
	free(big);
	assert_string_equal(letters(k, UID, 0, 100), "1=xxxxxxxxx 2=xxxxxxxxx ");
	assert_string_equal(letters(k, UID, 2, 100), "3=xxxxxxxxx 4=xxxxxxxxx ");
	assert_string_equal(letters(k, UID, 4, 100), "");
}

/* ---- events ---- */

static int64_t first_id, last_id;
static size_t n_events;

static void on_events(void *arg, const struct store_event *rows, size_t n, const struct err *e)
{
	struct kit *k = arg;
	n_events = n;
	if (n) {
		first_id = rows[0].id;
		last_id = rows[n - 1].id;
		buf_printf(&k->text, "%s %s %s %s", rows[0].kind, rows[0].actor ? rows[0].actor : "-", rows[0].text,
			rows[0].data_json ? rows[0].data_json : "-");
	}
	kit_answered(k, e);
}

static const char *events(struct kit *k, const char *uid, int64_t after, int limit)
{
	buf_reset(&k->text);
	n_events = 99;
	store_events(k->store, uid, after, limit, on_events, kit_ask(k));
	kit_run(k);
	return buf_cstr(&k->text);
}

static void test_events(void **state)
{
	struct kit *k = *state;
	struct store_event ev = { .ts_us = 1, .kind = "audit", .actor = "loopback", .text = "POST /jobs", .data_json = "{}" };
	store_event_put(k->store, NULL, &ev);
	store_event_put(k->store, UID, &(struct store_event){ .ts_us = 2, .kind = "state", .text = "running" });
	assert_string_equal(events(k, NULL, 0, 10), "audit loopback POST /jobs {}");
	assert_int_equal(n_events, 1);
	kit_reopen(k);
	assert_string_equal(events(k, UID, 0, 10), "state - running -");
	assert_string_equal(events(k, UID, 1, 10), "");
	assert_int_equal(n_events, 0);
}

static void test_events_are_bounded(void **state)
{
	struct kit *k = *state;
	for (int i = 0; i < 10050; i++)
		store_event_put(k->store, UID, &(struct store_event){ .ts_us = i, .kind = "state", .text = "x" });
	events(k, UID, 0, 20000);
	assert_int_equal(n_events, 10000);
	assert_int_equal(first_id, 51);
	assert_int_equal(last_id, 10050);
	events(k, UID, 100, 10);
	assert_int_equal(n_events, 10);
	assert_int_equal(first_id, 101);
	events(k, UID, STORE_NEWEST, 20); /* and back, to the oldest that is left */
	assert_int_equal(n_events, 20);
	assert_int_equal(first_id, 10050);
	assert_int_equal(last_id, 10031);
	events(k, UID, -last_id, 20000);
	assert_int_equal(n_events, 9980);
	assert_int_equal(first_id, 10030);
	assert_int_equal(last_id, 51);
	events(k, UID, -last_id, 1);
	assert_int_equal(n_events, 0);
}

/* ---- idempotency keys ---- */

static int64_t clock_us;
static int64_t test_clock(void) { return clock_us; }

static void on_idem(void *arg, const char *hash, int status, const char *reply, const struct err *e)
{
	struct kit *k = arg;
	buf_printf(&k->text, "%s %d %s", hash ? hash : "-", status, reply ? reply : "-");
	kit_answered(k, e);
}

static const char *idem(struct kit *k, const char *key)
{
	buf_reset(&k->text);
	store_idem_get(k->store, key, on_idem, kit_ask(k));
	kit_run(k);
	return buf_cstr(&k->text);
}

static void test_idem(void **state)
{
	struct kit *k = *state;
	k->store->now_us = test_clock;
	clock_us = (int64_t)1000 * 3600 * 1000000;
	assert_string_equal(idem(k, "k1"), "- 0 -");
	store_idem_put(k->store, "k1", "h1", 201, "{}", kit_done, kit_ask(k));
	assert_string_equal(idem(k, "k1"), "h1 201 {}");
	kit_reopen(k);
	k->store->now_us = test_clock;
	clock_us += (int64_t)24 * 3600 * 1000000 - 1;
	assert_string_equal(idem(k, "k1"), "h1 201 {}");
	clock_us += 1;
	assert_string_equal(idem(k, "k1"), "- 0 -");
	/* the next one put sweeps it away */
	store_idem_put(k->store, "k2", "h2", 200, NULL, kit_done, kit_ask(k));
	assert_string_equal(idem(k, "k2"), "h2 200 -");
	clock_us -= (int64_t)3600 * 1000000;
	assert_string_equal(idem(k, "k1"), "- 0 -");
	assert_string_equal(idem(k, "k2"), "h2 200 -");
}

/* ---- deleting ---- */

static void fill_job(struct kit *k, const char *uid)
{
	put_job(k, uid, "shop", 1, NULL);
	kit_put(k, uid, "note", "a", "b");
	put_letter(k, uid, "x");
	store_event_put(k->store, uid, &(struct store_event){ .kind = "state", .text = "x" });
	kit_open_log(k, uid);
	k->last_seq = 0;
	kit_append(k, 1, 1000);
	kit_run(k);
}

static void test_delete_takes_all(void **state)
{
	struct kit *k = *state;
	fill_job(k, UID2);
	kit_close_log(k);
	fill_job(k, UID);
	store_job_delete(k->store, UID, kit_done, kit_ask(k));
	kit_run(k);
	kit_append(k, 2, 1000);
	kit_run(k);
	assert_string_equal(k->error.id, "state.log"); /* it is gone, and says so */
	kit_close_log(k);
	for (int i = 0; i < 1000 && kit_disk_bytes(k, UID); i++)
		kit_load(k, UID);
	assert_int_equal(kit_disk_bytes(k, UID), 0);
	assert_true(kit_disk_bytes(k, UID2) > 0);
	kit_reopen(k);
	assert_string_equal(kit_load(k, UID), "");
	assert_string_equal(letters(k, UID, 0, 10), "");
	assert_string_equal(events(k, UID, 0, 10), "");
	assert_int_equal(kit_disk_bytes(k, UID), 0);
	assert_string_equal(kit_load(k, UID2), "note/a=b ");
	assert_string_equal(letters(k, UID2, 0, 10), "1=x ");
	const struct dmsr_log *log = kit_open_log(k, UID2);
	assert_int_equal(log->last, 1);
}

/* ---- damage ---- */

static void test_changed_row_is_told(void **state)
{
	struct kit *k = *state;
	char path[128], *bytes = mem_alloc(1 << 20);
	kit_put(k, UID, "note", "a", "the-value-to-find");
	kit_put(k, UID2, "note", "a", "another");
	kit_run(k);
	kit_close(k);
	snprintf(path, sizeof path, "%s/state.db", k->dir);
	int fd = open(path, O_RDWR);
	ssize_t n = read(fd, bytes, 1 << 20);
	char *at = memmem(bytes, (size_t)n, "the-value-to-find", 17);
	assert_non_null(at);
	assert_int_equal(pwrite(fd, "T", 1, at - bytes), 1);
	close(fd);
	free(bytes);
	assert_damaged(k);
}

static void test_newer_is_refused(void **state)
{
	struct kit *k = *state;
	struct err e = { 0 };
	struct store_db *d = NULL;
	kit_close(k);
	assert_int_equal(store_db_open(k->dir, &d, &e), 0);
	assert_int_equal(store_db_run(d, "PRAGMA user_version=99", NULL, NULL, &e), 0);
	store_db_close(d, true);
	assert_int_equal(kit_try_open(k, &e), DMSR_ESTATE);
	assert_string_equal(e.id, "state.newer");
}

/* What an early dmsrd made and none uses. */
static void test_an_old_table_goes(void **state)
{
	static const char old[] = "CREATE TABLE relation(uid TEXT NOT NULL, place BLOB NOT NULL, PRIMARY KEY(uid, place)) WITHOUT ROWID, STRICT";
	struct kit *k = *state;
	struct err e = { 0 };
	struct store_db *d = NULL;
	int64_t n = -1;
	kit_put(k, UID, "note", "a", "b");
	kit_run(k);
	kit_close(k);
	assert_int_equal(store_db_open(k->dir, &d, &e), 0);
	assert_int_equal(store_db_run(d, old, NULL, NULL, &e), 0);
	assert_int_equal(store_db_run(d, "DROP INDEX dead_letter_at", NULL, NULL, &e), 0);
	assert_int_equal(store_db_run(d, "PRAGMA user_version=1", NULL, NULL, &e), 0);
	store_db_close(d, true);
	for (int i = 0; i < 2; i++) {
		if (store_db_open(k->dir, &d, &e))
			fail_msg("%s", e.message);
		assert_int_equal(store_db_run(d, "SELECT count(*) FROM sqlite_schema WHERE name = 'relation'", NULL, &n, &e), 0);
		assert_int_equal(n, 0);
		assert_int_equal(store_db_run(d, "SELECT count(*) FROM kv", NULL, &n, &e), 0);
		assert_int_equal(n, 1);
		store_db_close(d, true);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_set_up, kit_tear_down)
RUN_TESTS(TEST(test_modes), TEST(test_second_open_is_refused), TEST(test_directory_is_made), TEST(test_lost_database_is_no_beginning),
	TEST(test_jobs), TEST(test_texts), TEST(test_big_texts), TEST(test_writes_share_commits), TEST(test_close_finishes),
	TEST(test_a_slow_disk_holds_nobody_up),
	TEST(test_dead_letters), TEST(test_one_letter_for_a_change), TEST(test_big_pages_are_cut), TEST(test_events),
	TEST(test_events_are_bounded), TEST(test_idem),
	TEST(test_delete_takes_all), TEST(test_changed_row_is_told), TEST(test_newer_is_refused), TEST(test_an_old_table_goes))
