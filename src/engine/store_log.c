/* store_log: a job's log for the embedded streamer: a seglog per job in logs/UID of the state directory, and the promise about it in table log.
 *
 * The promise is written with every transaction that comes by: a position that relies on an entry is stored after the entry's `done`, so in the same
 * transaction or a later one. A trim alone makes a transaction only when it sets a file free, or
 * the log is closed. */
#include "store_file.h"
#include "store_int.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { SWEEP_FILES = 4 };

/* The thread's side: one a job, whoever holds it open. */
struct store_log_file {
	struct store_log_file *next;
	char *uid;
	struct seglog *g; /* NULL: could not be opened, or its job is gone */
	struct seglog_promise promised;
	unsigned handles;
	bool is_gone; /* its job was deleted */
};

/* The loop's side: one an open. */
struct store_log {
	struct dmsr_log ops;
	struct store *store;
	struct store_log_file *file;
	unsigned refs; /* the holder, and each request under way */
	bool is_closed;
};

struct log_request {
	struct request r;
	struct store_log *log;
	const char *uid;
	uint64_t seq, first, last, bytes;
	void *data; /* to append; given back by the thread when it is written */
	size_t len; /* of data, or how much to read */
	const struct dmsr_log_entry *entries;
	size_t n;
	bool frees_file;
	union {
		void (*opened)(void *arg, struct store_log *log, const struct err *e);
		void (*appended)(void *arg, uint64_t seq, const struct err *e);
		void (*read)(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e);
	} done;
	void *arg;
};

/* ---- on the thread ---- */

static int breaks(struct store *s, int rc)
{
	s->is_broken |= rc != 0;
	return rc;
}

static char *dir_of(const struct store *s, const char *uid) { return mem_printf("%s/logs/%s", s->dir, uid); }

static int put_promise(struct store *s, struct store_log_file *f, const struct seglog_promise *p, struct err *e)
{
	struct field row[3] = { field_text(f->uid), field_int((int64_t)p->below), field_int((int64_t)p->tail) };
	f->promised = *p;
	return store_db_put(s->db, TABLE_LOG, row, e);
}

static int on_promise(void *arg, const struct field *columns)
{
	struct seglog_promise *p = arg;
	*p = (struct seglog_promise){ (uint64_t)columns[1].i, (uint64_t)columns[2].i };
	return 0;
}

static int open_file(struct store *s, struct store_log_file *f, struct err *e)
{
	struct seglog_promise p = { 0, 0 };
	struct field uid = field_text(f->uid);
	int rc = store_db_each(s->db, TABLE_LOG, "WHERE uid = ?", &uid, on_promise, &p, e);
	if (rc)
		return rc;
	char *dir = dir_of(s, f->uid);
	if (!p.below) {
		/* A log without its row is one of a job that went: this is a new job's. */
		p.below = 1;
		while ((rc = store_file_remove_dir(dir, 1000, e)) == 1)
			;
		breaks(s, rc);
	}
	if (!rc)
		rc = seglog_open(dir, hash_stable(f->uid, strlen(f->uid), 0), &p, &f->g, e);
	if (rc && rc != DMSR_EPROTO)
		breaks(s, rc);
	free(dir);
	if (rc)
		return rc;
	f->is_gone = false;
	p = seglog_can_promise(f->g);
	return put_promise(s, f, &p, e);
}

/* Directories of logs whose jobs are gone: removed a few files at a time. */
struct store_doomed {
	struct store_doomed *next;
	char *dir;
};

static void doom(struct store *s, const char *uid)
{
	struct store_doomed *d = mem_alloc(sizeof *d);
	*d = (struct store_doomed){ .next = s->doomed, .dir = dir_of(s, uid) };
	s->doomed = d;
}

static void drop_doomed(struct store *s)
{
	struct store_doomed *d = s->doomed;
	s->doomed = d->next;
	free(d->dir);
	free(d);
}

/* What is left of f then is freed by the loop, which may still ask for its size. */
static void free_file(struct store *s, struct store_log_file *f)
{
	struct store_log_file **at = &s->log_list;
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	map_del(s->logs, f->uid, strlen(f->uid));
	seglog_close(f->g);
	f->g = NULL;
	if (f->is_gone)
		doom(s, f->uid);
}

static int run_open(struct store *s, struct request *r, struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	struct store_log_file *f = map_get(s->logs, q->uid, strlen(q->uid));
	if (!f) {
		f = mem_zalloc(sizeof *f);
		f->uid = mem_strdup(q->uid);
		map_put(s->logs, f->uid, strlen(f->uid), f);
		f->next = s->log_list;
		s->log_list = f;
	}
	f->handles++;
	q->log->file = f;
	int rc = f->g ? 0 : open_file(s, f, e);
	if (!rc) {
		q->first = seglog_first(f->g);
		q->last = seglog_last(f->g);
		rc = seglog_data_bytes(f->g, &q->bytes, e);
		if (rc && rc != DMSR_EPROTO)
			breaks(s, rc);
	}
	return rc;
}

/* What was trimmed since the last transaction would be there again when it is opened next. */
static int keep_trimmed(struct store *s, struct store_log_file *f, struct err *e)
{
	int rc = breaks(s, seglog_sync(f->g, e));
	if (rc)
		return rc;
	struct seglog_promise p = seglog_can_promise(f->g);
	if (p.below == f->promised.below)
		return 0;
	rc = store_db_begin(s->db, e);
	return rc ? rc : put_promise(s, f, &p, e);
}

static int run_close(struct store *s, struct request *r, struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	struct store_log_file *f = q->log->file;
	int rc = 0;
	q->frees_file = f && !--f->handles;
	if (!q->frees_file)
		return 0;
	if (f->g && !s->is_broken && !store_db_is_broken(s->db))
		rc = keep_trimmed(s, f, e);
	free_file(s, f);
	return rc;
}

static int gone(const struct store_log_file *f, struct err *e)
{
	return err_set(e, DMSR_ESTATE, "state.log", "the log of job %s is gone with its job", f->uid);
}

static int run_append(struct store *s, struct request *r, struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	struct store_log_file *f = q->log->file;
	if (!f->g)
		return gone(f, e);
	uint64_t next = seglog_next(f->g);
	if (!q->seq || (next && q->seq != next))
		return err_set(e, DMSR_EINVAL, "state.log", "the log of job %s goes on with entry %llu, not %llu", f->uid, (unsigned long long)next,
			(unsigned long long)q->seq);
	if (q->len > DMSR_LOG_ENTRY_MAX)
		return err_set(e, DMSR_EFULL, "state.log", "an entry of %zu bytes is too big for the log of job %s", q->len, f->uid);
	int rc = breaks(s, seglog_append(f->g, q->seq, q->data, q->len, e));
	free(q->data);
	q->data = NULL;
	return rc;
}

static int run_read(struct store *s, struct request *r, struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	struct store_log_file *f = q->log->file;
	if (!f->g)
		return gone(f, e);
	int rc = seglog_read(f->g, q->seq, q->len, &r->arena, &q->entries, &q->n, e);
	if (rc && rc != DMSR_EPROTO)
		breaks(s, rc);
	return rc;
}

static int run_trim(struct store *s, struct request *r, struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	(void)s;
	(void)e;
	if (q->log->file->g)
		seglog_trim(q->log->file->g, q->seq);
	return 0;
}

bool store_log_is_dirty(const struct store *s)
{
	for (struct store_log_file *f = s->log_list; f; f = f->next)
		if (f->g && seglog_is_dirty(f->g))
			return true;
	return false;
}

int store_log_sync(struct store *s, struct err *e)
{
	int rc = 0;
	for (struct store_log_file *f = s->log_list; f && !rc; f = f->next)
		rc = f->g ? seglog_sync(f->g, e) : 0;
	return breaks(s, rc);
}

static bool is_promised(const struct store_log_file *f)
{
	struct seglog_promise p = seglog_can_promise(f->g);
	return p.below == f->promised.below && p.tail == f->promised.tail;
}

int store_log_promise(struct store *s, struct err *e)
{
	int rc = 0;
	for (struct store_log_file *f = s->log_list; f && !rc; f = f->next) {
		if (!f->g || is_promised(f))
			continue;
		struct seglog_promise p = seglog_can_promise(f->g);
		rc = put_promise(s, f, &p, e);
	}
	return rc;
}

/* Removes files of one log; its promise is made durable first. */
static int sweep(struct store *s, struct store_log_file *f, struct err *e)
{
	if (!is_promised(f)) {
		int rc = store_db_begin(s->db, e);
		if (!rc)
			rc = store_log_promise(s, e);
		if (!rc)
			rc = store_db_commit(s->db, e);
		if (rc)
			return rc;
	}
	int rc = breaks(s, seglog_sweep(f->g, SWEEP_FILES, e));
	return rc;
}

int store_log_tidy(struct store *s, bool *more, struct err *e)
{
	int rc = 0;
	if (s->doomed) {
		rc = store_file_remove_dir(s->doomed->dir, SWEEP_FILES, e);
		if (!rc)
			drop_doomed(s);
		*more |= rc == 1 || s->doomed;
		return rc < 0 ? breaks(s, rc) : 0;
	}
	for (struct store_log_file *f = s->log_list; f && !rc; f = f->next) {
		if (!f->g || !seglog_wants_sweep(f->g))
			continue;
		rc = sweep(s, f, e);
		*more |= !rc && seglog_wants_sweep(f->g);
	}
	return rc;
}

int store_log_forget(struct store *s, const char *uid, struct err *e)
{
	struct field key = field_text(uid);
	struct store_log_file *f = map_get(s->logs, uid, strlen(uid));
	if (f) {
		seglog_close(f->g);
		f->g = NULL;
		f->is_gone = true;
	}
	return store_db_run(s->db, "DELETE FROM log WHERE uid = ?", &key, NULL, e);
}

void store_log_forgotten(struct store *s, const char *uid)
{
	/* Else when it is closed. */
	if (!map_get(s->logs, uid, strlen(uid)))
		doom(s, uid);
}

static int find_doomed(struct store *s, const char *logs, struct err *e)
{
	DIR *d = opendir(logs);
	if (!d)
		return errno == ENOENT ? 0 : store_file_err(e, "read", logs);
	int rc = 0;
	for (struct dirent *f; !rc && (errno = 0, f = readdir(d));) {
		struct seglog_promise p = { 0, 0 };
		struct field uid = field_text(f->d_name);
		if (f->d_name[0] == '.')
			continue;
		rc = store_db_each(s->db, TABLE_LOG, "WHERE uid = ?", &uid, on_promise, &p, e);
		if (!rc && !p.below)
			doom(s, f->d_name);
	}
	closedir(d);
	return rc;
}

int store_log_start(struct store *s, struct err *e)
{
	s->logs = map_new();
	char *logs = mem_printf("%s/logs", s->dir);
	int rc = mkdir(logs, 0700) && errno != EEXIST ? store_file_err(e, "make", logs) : store_file_sync_dir(s->dir, e);
	if (!rc)
		rc = find_doomed(s, logs, e);
	free(logs);
	return rc;
}

void store_log_end(struct store *s)
{
	assert(!s->log_list && "a log outlives its store");
	while (s->doomed)
		drop_doomed(s);
	map_free(s->logs);
}

/* ---- on the loop ---- */

static void unref(struct store_log *log)
{
	if (--log->refs == 0)
		free(log);
}

static void answer_open(struct request *r, const struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	struct store_log *log = q->log;
	log->ops.first = q->first;
	log->ops.last = q->last;
	log->ops.bytes = q->bytes;
	q->done.opened(q->arg, e ? NULL : log, e);
	if (e)
		store_log_close(log);
}

static void answer_append(struct request *r, const struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	if (!q->log->is_closed && q->done.appended)
		q->done.appended(q->arg, q->seq, e);
}

static void answer_read(struct request *r, const struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	if (!q->log->is_closed)
		q->done.read(q->arg, q->entries, e ? 0 : q->n, e);
}

static void answer_close(struct request *r, const struct err *e)
{
	struct log_request *q = (struct log_request *)r;
	(void)e;
	if (!q->frees_file)
		return;
	free(q->log->file->uid);
	free(q->log->file);
}

static void fini(struct request *r)
{
	struct log_request *q = (struct log_request *)r;
	free(q->data);
	unref(q->log);
}

static const struct verb verb_open = { .kind = VERB_WRITES, .run = run_open, .answer = answer_open, .fini = fini };
static const struct verb verb_append = { .kind = VERB_APPENDS, .run = run_append, .answer = answer_append, .fini = fini };
static const struct verb verb_read = { .run = run_read, .answer = answer_read, .fini = fini };
static const struct verb verb_trim = { .run = run_trim, .fini = fini };
static const struct verb verb_close = { .always = true, .run = run_close, .answer = answer_close, .fini = fini };

static struct log_request *new_request(struct store_log *log, const struct verb *verb)
{
	struct log_request *q = request_new(log->store, verb, sizeof *q);
	q->log = log;
	log->refs++;
	return q;
}

static void append(void *ctx, uint64_t seq, const void *data, size_t len, void (*done)(void *arg, uint64_t seq, const struct err *e), void *arg)
{
	struct log_request *q = new_request(ctx, &verb_append);
	q->seq = seq;
	q->data = mem_alloc(len ? len : 1);
	if (len)
		memcpy(q->data, data, len);
	q->len = len;
	q->r.bytes += len;
	q->done.appended = done;
	q->arg = arg;
	store_send(q->log->store, q);
}

static void read_from(void *ctx, uint64_t seq, size_t max_bytes,
	void (*done)(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e), void *arg)
{
	struct log_request *q = new_request(ctx, &verb_read);
	q->seq = seq;
	q->len = max_bytes;
	q->done.read = done;
	q->arg = arg;
	store_send(q->log->store, q);
}

static void trim(void *ctx, uint64_t below)
{
	struct log_request *q = new_request(ctx, &verb_trim);
	q->seq = below;
	store_send(q->log->store, q);
}

void store_log_open(struct store *s, const char *uid, void (*done)(void *arg, struct store_log *log, const struct err *e), void *arg)
{
	struct store_log *log = mem_zalloc(sizeof *log);
	log->store = s;
	log->refs = 1;
	log->ops = (struct dmsr_log){ .ctx = log, .append = append, .read = read_from, .trim = trim };
	struct log_request *q = new_request(log, &verb_open);
	assert(*uid && !strchr(uid, '/') && *uid != '.');
	q->uid = request_str(q, uid);
	q->done.opened = done;
	q->arg = arg;
	store_send(s, q);
}

const struct dmsr_log *store_log_ops(struct store_log *log) { return &log->ops; }

void store_log_close(struct store_log *log)
{
	if (!log)
		return;
	assert(!log->is_closed);
	log->is_closed = true;
	store_send(log->store, new_request(log, &verb_close));
	unref(log);
}

/* ---- begun anew ---- */

struct clear_request {
	struct request r;
	const char *uid;
};

/* The promise goes, in the same transaction as what is asked for beside it; the files at the next open, which knows by that that they are nobody's. */
static int run_clear(struct store *s, struct request *r, struct err *e)
{
	const char *uid = ((struct clear_request *)r)->uid;
	if (map_get(s->logs, uid, strlen(uid)))
		return err_set(e, DMSR_ESTATE, "state.log", "the log of job %s is in use", uid);
	return store_log_forget(s, uid, e);
}

static const struct verb verb_clear = { .kind = VERB_WRITES, .run = run_clear, .answer = request_answer_done };

void store_log_clear(struct store *s, const char *uid, store_done *done, void *arg)
{
	struct clear_request *q = request_new(s, &verb_clear, sizeof *q);
	q->uid = request_str(q, uid);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}
