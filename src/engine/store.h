/* store: what the daemon remembers. One SQLite database in the state directory (0700), written by one thread of its own; the loop thread
 * only hands over owned messages through one bounded queue and gets answers on the loop. Writes waiting at the same moment share one
 * transaction (synchronous=FULL, WAL): a done callback with e NULL means: it survives a power cut.
 *
 * After a write error (ENOSPC, EIO, a torn file) nothing is retried and nothing is confirmed: the write's done gets the error ("state.full",
 * "state.io", "state.corrupt"), and on_failed fires once: the engine then stops all jobs loudly. A failed fsync is never tried again: a process that
 * begins anew reads what is durable. Whether it would help, after state.full, store_has_room says.
 * The directory is locked (flock on "lock"): a second daemon gets DMSR_ESTATE "state.locked" naming the holder's pid.
 *
 * All verbs are the loop's and never block (but those that say so); texts are copied; answers come in the order of the questions, never inside the
 * call, and a reader sees what was written before it was asked. Requests are always taken: who sends them waits for their answers, and bounds
 * itself by that. Only events, which nobody waits for, are dropped (and logged) when more than 64 MiB wait. */
#ifndef DMSR_ENGINE_STORE_H
#define DMSR_ENGINE_STORE_H
#include "dmsr.h"

struct store;
typedef void store_done(void *arg, const struct err *e);

/* Makes or opens dir; checks it whole (pages, order, each row's sum: as long as reading the file takes), migrates the schema. Blocks: only before the
 * loop runs. */
int store_open(struct loop *l, const char *dir, void (*on_failed)(void *arg, const struct err *e), void *arg, struct store **out, struct err *e);
/* Writes what is queued, calls the last callbacks, ends the thread. Logs were closed before; not from a callback of the store's. NULL is fine. */
void store_close(struct store *s);
const char *store_dir(const struct store *s);
bool store_has_room(const struct store *s);     /* it failed with state.full, and there is room in its directory again */

/* Jobs. spec: the job's JSON text as accepted; secrets in it are there: the file is 0600. */
struct store_job {
	const char *uid, *name, *spec;
	int64_t generation;             /* moves with the spec */
	const char *desired_state;      /* "running" "paused" "stopped" "deleting" */
	const char *state;              /* as last seen, for a start after a crash */
	const char *error;              /* JSON of the error it failed with, or NULL */
	int64_t created_us, updated_us;
};
void store_job_put(struct store *s, const struct store_job *j, store_done *done, void *arg);
void store_job_delete(struct store *s, const char *uid, store_done *done, void *arg); /* and all that belongs to it */
int store_each_job(struct store *s, int (*fn)(void *arg, const struct store_job *j), void *arg, struct err *e); /* blocks; at start */

/* Small texts of a job by (kind, key), which memory.h lists: "position"/"" (delivered), "position"/<target>, "note"/<key>, "load"/<schema.table quoted>,
 * "flag"/<name>, "count"/<table> ... value NULL deletes. */
void store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg);
/* blocks; at start of the daemon only */
int store_each(struct store *s, const char *uid, const char *kind, int (*fn)(void *arg, const char *key, const char *value), void *arg, struct err *e);

/* Rows set aside. Pages of these and of events rise by id; n may be below limit when rows are big (16 MiB): only n 0 is the end. */
struct store_dead_letter { int64_t id; int64_t ts_us; const char *target, *position, *schema, *table, *op, *code, *message, *change_json; };
/* A change that is set aside already, at the same target, is not added again, and stays as it is; rows of a load, which have no position of their own, are. */
void store_dead_letter_put(struct store *s, const char *uid, const struct store_dead_letter *d, store_done *done, void *arg);
void store_dead_letters(struct store *s, const char *uid, int64_t after_id, int limit,
	void (*done)(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e), void *arg);
void store_dead_letter_delete(struct store *s, const char *uid, int64_t id /* 0: all */, store_done *done, void *arg);

/* History of a job and audit of the API (uid NULL: of the daemon): bounded, the oldest go (10,000 a job). A page whose after_id is below 0 goes
 * back, newest first, from before the id -after_id. */
struct store_event { int64_t id; int64_t ts_us; const char *kind /* "state" "ddl" "error" "warning" "audit" */, *actor, *text, *data_json; };
void store_event_put(struct store *s, const char *uid, const struct store_event *ev); /* durable with the next commit; an error shows through on_failed */
#define STORE_NEWEST (-INT64_MAX) /* after_id of the first page that goes back */
void store_events(struct store *s, const char *uid, int64_t after_id, int limit,
	void (*done)(void *arg, const struct store_event *rows, size_t n, const struct err *e), void *arg);

/* Idempotency keys: kept 24 h. get answers on the loop: hash/reply NULL when unknown. */
void store_idem_get(struct store *s, const char *key,
	void (*done)(void *arg, const char *request_hash, int status, const char *reply, const struct err *e), void *arg);
void store_idem_put(struct store *s, const char *key, const char *request_hash, int status, const char *reply, store_done *done, void *arg);

/* A job's log for the embedded streamer. Its first/last are read before done. Freed by store_log_close, after which no callback comes. An append
 * must go on where the log ends; numbers may begin anew (at 1) when it was empty at opening. "state.corrupt" in open or read: this log alone is bad. */
struct store_log;
void store_log_open(struct store *s, const char *uid, void (*done)(void *arg, struct store_log *log, const struct err *e), void *arg);
const struct dmsr_log *store_log_ops(struct store_log *log);
void store_log_close(struct store_log *log);
/* Forgets all of a log that nobody has open: the next open finds it empty. done may be NULL. DMSR_ESTATE "state.log": it is open. */
void store_log_clear(struct store *s, const char *uid, store_done *done, void *arg);

struct store_stat { uint64_t commits, writes, queued, queued_bytes, errors; uint64_t commit_us_total, commit_us_max; int64_t last_commit_us; };
void store_stat(const struct store *s, struct store_stat *out);

#endif
