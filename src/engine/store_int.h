/* store_int: what the files of the store share among themselves; nobody else includes it (but its own tests).
 *
 * Way of a request: the loop makes one (request_new: everything in it is its own), store_send puts it into the queue; the thread takes all
 * that wait, runs them in order as one group (verb->run), makes the group durable, and hands them back; the loop calls verb->answer. */
#ifndef DMSR_ENGINE_STORE_INT_H
#define DMSR_ENGINE_STORE_INT_H
#include "seglog.h"
#include "store.h"
#include <pthread.h>

/* ---- store_db: the SQLite file, used by one thread at a time --------------------------------------------------- */
/* A column's value. Texts and blobs are borrowed. */
enum field_type { FIELD_NULL, FIELD_INT, FIELD_TEXT, FIELD_BLOB };
struct field {
	uint8_t type; /* enum field_type */
	int64_t i;
	const char *p; /* text: NUL-terminated */
	size_t n;
};
static inline struct field field_int(int64_t i) { return (struct field){ .type = FIELD_INT, .i = i }; }
static inline struct field field_text(const char *s)
{
	return s ? (struct field){ .type = FIELD_TEXT, .p = s, .n = strlen(s) } : (struct field){ .type = FIELD_NULL };
}

/* Each table's last column is `sum`, over its name and all columns before: what quick_check cannot see, a row's reader does. */
enum table { TABLE_JOB, TABLE_KV, TABLE_DEAD_LETTER, TABLE_SERIAL, TABLE_EVENT, TABLE_IDEM, TABLE_LOG, TABLES };
enum { TABLE_COLUMNS_MAX = 12 };

/* Set by tests alone: with more pages the write-ahead log is folded in; so many free pages are kept, more are given back; a record may have so many bytes. */
extern struct store_tune {
	int wal_pages, free_pages;
	size_t record_bytes;            /* but for a log's entries, which have their own limit */
} store_tune;

struct store_db;
int store_db_open(const char *dir, struct store_db **out, struct err *e);
/* clean: the write-ahead log is folded in; else nothing more is written. */
void store_db_close(struct store_db *d, bool clean);
/* The rest returns 0 or fills e; after a failure of SQLite itself store_db_is_broken, and only store_db_close is left to call. */
int store_db_begin(struct store_db *d, struct err *e);  /* unless a transaction is open */
bool store_db_in_transaction(const struct store_db *d);
int store_db_commit(struct store_db *d, struct err *e); /* durable when it returns 0 */
void store_db_rollback(struct store_db *d);
bool store_db_is_broken(const struct store_db *d);
/* Puts a row whole (all columns but sum), replacing that of the same key. */
int store_db_put(struct store_db *d, enum table t, const struct field *columns, struct err *e);
/* Calls fn with the columns of each row; its non-zero stops and is returned. tail: "WHERE ... ORDER BY ...", a literal.
 * A row whose sum is wrong: "state.corrupt", and the store is not broken. */
int store_db_each(struct store_db *d, enum table t, const char *tail, const struct field *params,
	int (*fn)(void *arg, const struct field *columns), void *arg, struct err *e);
/* Any one statement, a literal; *result (may be NULL): the first column of its first row, unchanged when there is none. */
int store_db_run(struct store_db *d, const char *sql, const struct field *params, int64_t *result, struct err *e);
/* Between groups: folds in the write-ahead log when it is long, gives free pages back a few at a time. *more: there is more to do. */
int store_db_tidy(struct store_db *d, bool *more, struct err *e);

/* ---- requests --------------------------------------------------------------------------------------------------- */
struct request;
enum verb_kind { VERB_READS, VERB_WRITES /* rows: inside the transaction */, VERB_APPENDS /* to a log */ };
struct verb {
	uint8_t kind; /* enum verb_kind */
	bool always; /* also when the store has failed */
	/* On the thread. Not 0: e is why. If the store is broken by it, the group fails; else this request alone. */
	int (*run)(struct store *s, struct request *r, struct err *e);
	void (*committed)(struct store *s, struct request *r);  /* on the thread, when all it wrote is durable; may be NULL */
	void (*answer)(struct request *r, const struct err *e); /* on the loop; NULL: nobody waits */
	void (*fini)(struct request *r);                        /* on the loop, last; NULL: the arena is all it has */
};
/* Each verb has a struct of its own that begins with this. */
struct request {
	struct request *next;
	const struct verb *verb;
	struct store *store;
	struct arena arena;
	size_t bytes;
	struct err *e; /* heap; NULL: went well */
	bool was_run, is_waited_for, is_finished;
	store_done *done; /* for request_answer_done */
	void *arg;
};
/* size: of the verb's own struct; zeroed. */
void *request_new(struct store *s, const struct verb *verb, size_t size);
static inline const char *request_str(void *r, const char *text)
{
	return arena_strdup(&((struct request *)r)->arena, text);
}
void request_free(struct request *r);
void request_answer_done(struct request *r, const struct err *e);

/* A list of rows that grows in a request's arena. */
struct rows {
	void *at;
	size_t n, cap;
};
void *rows_add(struct arena *a, struct rows *rows, size_t size);

void store_send(struct store *s, void *request);
/* Waits for it, blocking the loop; the caller frees it. */
int store_wait(struct store *s, void *request, struct err *e);

/* ---- the store -------------------------------------------------------------------------------------------------- */
struct request_list {
	struct request *first, **last;
};
/* What both threads touch, under mutex. */
struct store_queue {
	pthread_mutex_t mutex;
	pthread_cond_t wanted, answered;
	struct request_list in, out;
	bool closing, has_failed, has_room;
	struct err failure;
	struct store_stat stat;
};
struct store_log_file;

struct store {
	char *dir;
	int lock_fd;
	int64_t (*now_us)(void); /* wall clock; the tests' own in tests */
	struct store_queue *q;
	/* the loop's own */
	struct loop *loop;
	struct loop_wake *wake;
	struct loop_task *more;
	void (*on_failed)(void *arg, const struct err *e);
	void *arg;
	bool is_told;  /* on_failed was called */
	bool is_short; /* events are being dropped */
	struct request_list ready; /* answers being delivered */
	pthread_t thread;
	/* the thread's own (the loop's before the thread runs and after it has ended) */
	struct store_db *db;
	bool is_broken;
	uint64_t room_looked_us;        /* monotonic */
	int64_t idem_swept_us;
	struct map *logs; /* uid -> struct store_log_file */
	struct store_log_file *log_list;
	struct store_doomed *doomed; /* directories of logs whose jobs are gone */
};
/* Over this the history is cut short instead of the memory; all other requests have somebody upstream who waits for their answer. */
enum { STORE_QUEUE_EVENT_BYTES = 64 << 20 };

void store_thread_start(struct store *s);
void store_thread_end(struct store *s); /* runs all requests, delivers all answers */

/* ---- store_log, as the thread sees it --------------------------------------------------------------------------- */
bool store_log_is_dirty(const struct store *s);
int store_log_sync(struct store *s, struct err *e);     /* what was appended is durable */
int store_log_promise(struct store *s, struct err *e);  /* inside the transaction: what the logs hold from now on by all means */
int store_log_tidy(struct store *s, bool *more, struct err *e);
int store_log_forget(struct store *s, const char *uid, struct err *e); /* inside the transaction: the job goes */
void store_log_forgotten(struct store *s, const char *uid);            /* it went */
int store_log_start(struct store *s, struct err *e);    /* before the thread: finds logs without a job */
void store_log_end(struct store *s);

#endif
