/* seglog: a log of numbered entries in a directory of its own: files ("segments") that are only appended to, and removed whole from the front.
 *
 * Beside its files the owner keeps a promise, two numbers that are made durable elsewhere: by all means the entries below..tail are there
 * (tail < below: none). Whoever relied on an entry made the promise durable first; so what is missing behind it was never relied on (a write that
 * was under way when we died), and what is missing inside it is damage: told, never passed over.
 *
 * All calls block; one thread at a time. After a failed append, sync or sweep only seglog_close is left to call. */
#ifndef DMSR_ENGINE_SEGLOG_H
#define DMSR_ENGINE_SEGLOG_H
#include "dmsr.h"

struct seglog_promise {
	uint64_t below, tail;
};
/* Set by tests alone: how big a file grows; below which size the one being appended to is kept when all in it is trimmed. */
extern struct seglog_tune {
	uint32_t segment_bytes, keep_bytes;
} seglog_tune;

struct seglog;
/* Makes nothing before the first append. seed: goes into each entry's sum, so that a file of another log is no part of this one. Entries below
 * p->below are not there any more. "state.corrupt" when the promise is broken. */
int seglog_open(const char *dir, uint64_t seed, const struct seglog_promise *p, struct seglog **out, struct err *e);
void seglog_close(struct seglog *g); /* NULL is fine */
/* last is 0 when there is no entry, and first 1. next: what append takes, 0: any (nothing was ever there). */
uint64_t seglog_first(const struct seglog *g);
uint64_t seglog_last(const struct seglog *g);
uint64_t seglog_next(const struct seglog *g);
/* The bytes of the data of all entries. "state.corrupt" when that cannot be known. */
int seglog_data_bytes(struct seglog *g, uint64_t *bytes, struct err *e);

/* Written, but durable only after the next sync. seq == seglog_next; len at most DMSR_LOG_ENTRY_MAX. */
int seglog_append(struct seglog *g, uint64_t seq, const void *data, size_t len, struct err *e);
int seglog_sync(struct seglog *g, struct err *e);
bool seglog_is_dirty(const struct seglog *g);
struct seglog_promise seglog_can_promise(const struct seglog *g); /* of one that is not dirty */
/* At least one entry from seq on, and as many more as fit into max_bytes (and lie in the same file); *n 0: there is none. In the arena. "state.corrupt"
 * when they are not what was appended. */
int seglog_read(struct seglog *g, uint64_t seq, size_t max_bytes, struct arena *a, const struct dmsr_log_entry **entries, size_t *n, struct err *e);
/* Forgets the entries below; the files stay until seglog_sweep. */
void seglog_trim(struct seglog *g, uint64_t below);
bool seglog_wants_sweep(const struct seglog *g);
/* Removes up to max files that hold nothing more. Only after the promise is durable. */
int seglog_sweep(struct seglog *g, unsigned max, struct err *e);

#endif
