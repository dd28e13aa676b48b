/* store_kit: what the tests of the store share: a directory of their own, a loop that runs until everything asked was answered, and answers kept. */
#ifndef DMSR_TESTS_UNIT_STORE_KIT_H
#define DMSR_TESTS_UNIT_STORE_KIT_H
#include "engine/store_int.h"
#include "test.h"
#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UID "0123456789abcdefghijklmnop"
#define UID2 "zzzz456789abcdefghijklmnop"

struct kit {
	char dir[64];
	struct loop *loop;
	struct loop_timer *watchdog;
	struct store *store;
	unsigned waiting;        /* answers that are still to come */
	bool runs;
	struct err error;        /* of the last answer that had one */
	unsigned done, failed;   /* answers without and with an error */
	struct err failure;      /* what on_failed said */
	unsigned failures;
	struct buf text;         /* rows of the last reader, as text */
	struct store_log *log;
	uint64_t last_seq;
};

static inline void kit_on_watchdog(void *arg)
{
	(void)arg;
	fputs("an answer never came\n", stderr);
	abort();
}

static inline int kit_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static inline void kit_remove(const char *dir) { nftw(dir, kit_remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static inline void kit_init(struct kit *k)
{
	memset(k, 0, sizeof *k);
	test_directory(k->dir, sizeof k->dir, "store");
	k->loop = loop_new();
	k->watchdog = loop_timer_new(k->loop, "test", kit_on_watchdog, NULL);
	buf_init(&k->text, 64 << 20);
}

static inline void kit_fini(struct kit *k)
{
	loop_timer_free(k->watchdog);
	loop_free(k->loop);
	buf_fini(&k->text);
	kit_remove(k->dir);
}

static inline void kit_answered(struct kit *k, const struct err *e)
{
	if (e) {
		k->error = *e;
		k->failed++;
	} else {
		k->done++;
	}
	assert_true(k->waiting > 0);
	if (!--k->waiting && k->runs)
		loop_stop(k->loop);
}

static inline void kit_run(struct kit *k)
{
	loop_timer_start(k->watchdog, 600000);
	k->runs = k->waiting > 0;
	if (k->runs)
		loop_run(k->loop);
	k->runs = false;
	loop_timer_stop(k->watchdog);
}

static inline void kit_on_failed(void *arg, const struct err *e)
{
	struct kit *k = arg;
	k->failure = *e;
	k->failures++;
}

static inline int kit_try_open(struct kit *k, struct err *e) { return store_open(k->loop, k->dir, kit_on_failed, k, &k->store, e); }

static inline void kit_open(struct kit *k)
{
	struct err e = { 0 };
	if (kit_try_open(k, &e))
		fail_msg("%s: %s", e.id, e.message);
}

static inline void kit_close(struct kit *k)
{
	store_close(k->store);
	k->store = NULL;
}

static inline void kit_reopen(struct kit *k)
{
	kit_close(k);
	kit_open(k);
}

static inline void kit_done(void *arg, const struct err *e) { kit_answered(arg, e); }

static inline struct kit *kit_ask(struct kit *k)
{
	k->waiting++;
	return k;
}

static inline void kit_put(struct kit *k, const char *uid, const char *kind, const char *key, const char *value)
{
	store_put(k->store, uid, kind, key, value, kit_done, kit_ask(k));
}

struct kit_texts { struct kit *k; const char *kind; };

static inline int kit_on_text(void *arg, const char *key, const char *value)
{
	struct kit_texts *t = arg;
	buf_printf(&t->k->text, "%s/%s=%s ", t->kind, key, value);
	return 0;
}

/* All texts of a job: "kind/key=value ..." */
static inline const char *kit_load(struct kit *k, const char *uid)
{
	static const char *const kinds[] = { "load", "note", "position" };
	struct err e = { 0 };
	kit_run(k);
	buf_reset(&k->text);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct kit_texts t = { k, kinds[i] };
		k->waiting++;
		kit_answered(k, store_each(k->store, uid, kinds[i], kit_on_text, &t, &e) ? &e : NULL);
	}
	return buf_cstr(&k->text);
}

static inline void kit_on_log(void *arg, struct store_log *log, const struct err *e)
{
	struct kit *k = arg;
	k->log = log;
	kit_answered(k, e);
}

static inline bool kit_try_log(struct kit *k, const char *uid)
{
	k->log = NULL;
	store_log_open(k->store, uid, kit_on_log, kit_ask(k));
	kit_run(k);
	return k->log != NULL;
}

static inline const struct dmsr_log *kit_open_log(struct kit *k, const char *uid)
{
	if (!kit_try_log(k, uid)) {
		fprintf(stderr, "%s: %s\n", k->error.id, k->error.message);
		abort();
	}
	return store_log_ops(k->log);
}

static inline void kit_on_append(void *arg, uint64_t seq, const struct err *e)
{
	struct kit *k = arg;
	if (!e) {
		assert_true(seq > k->last_seq);
		k->last_seq = seq;
	}
	kit_answered(k, e);
}

/* len bytes that tell their seq. */
static inline void kit_append(struct kit *k, uint64_t seq, size_t len)
{
	const struct dmsr_log *log = store_log_ops(k->log);
	char *data = mem_alloc(len + 1);
	for (size_t i = 0; i < len; i++)
		data[i] = (char)(seq * 7 + i);
	log->append(log->ctx, seq, data, len, kit_on_append, kit_ask(k));
	free(data);
}

static inline void kit_on_read(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e)
{
	struct kit *k = arg;
	for (size_t i = 0; i < n; i++) {
		const char *data = entries[i].data;
		buf_printf(&k->text, "%llu:%zu ", (unsigned long long)entries[i].seq, entries[i].len);
		for (size_t j = 0; j < entries[i].len; j++)
			if (data[j] != (char)(entries[i].seq * 7 + j))
				fail_msg("entry %llu: wrong byte at %zu", (unsigned long long)entries[i].seq, j);
	}
	kit_answered(k, e);
}

/* "seq:length ..." */
static inline const char *kit_read(struct kit *k, uint64_t seq, size_t max_bytes)
{
	const struct dmsr_log *log = store_log_ops(k->log);
	buf_reset(&k->text);
	log->read(log->ctx, seq, max_bytes, kit_on_read, kit_ask(k));
	kit_run(k);
	return buf_cstr(&k->text);
}

static inline void kit_close_log(struct kit *k)
{
	store_log_close(k->log);
	k->log = NULL;
}

/* What the files of a job's log take. */
static inline uint64_t kit_disk_bytes(const struct kit *k, const char *uid)
{
	char path[128];
	uint64_t bytes = 0;
	snprintf(path, sizeof path, "%s/logs/%s", k->dir, uid);
	DIR *d = opendir(path);
	for (struct dirent *f; d && (f = readdir(d));) {
		struct stat st;
		if (f->d_name[0] != '.' && !fstatat(dirfd(d), f->d_name, &st, 0))
			bytes += (uint64_t)st.st_size;
	}
	if (d)
		closedir(d);
	return bytes;
}

/* A test's: an open store in a directory of its own. */
static inline int kit_set_up(void **state)
{
	struct kit *k = mem_alloc(sizeof *k);
	kit_init(k);
	kit_open(k);
	*state = k;
	return 0;
}

static inline int kit_tear_down(void **state)
{
	struct kit *k = *state;
	kit_close_log(k);
	kit_close(k);
	kit_fini(k);
	free(k);
	return 0;
}

#endif
