/* embedded: the streamer without a broker: batches wait in this process, and over the memory cap in a log of the state store (host.log).
 *
 * Batches that were produced are numbered from 1 as they come (a consumer's token is that number). The window [lo, hi) holds what some consumer has not
 * committed. Its older part [lo, logged) is in the log, or on the way there, the newer part [logged, hi) in memory alone:
 *
 *      lo         logged              hi
 *      |  in the log  |  memory only  |         log number = number + shift, as long as there is a logged part
 *
 * The rules
 *  1. Order. Each consumer gets the window in order, at its own pace. What it took is lent until it commits; bytes are dropped before that only when
 *     every consumer has said consumed, or when the log has them.
 *  2. The log is one unbroken run of the stream. Spilling begins when memory is short, or when a consumer has not taken for seconds what waits for it:
 *     a target that stands still does not hold the source's log for the little that is in memory. It begins at lo, not with what comes next: so all
 *     before the log's first entry is committed at every consumer, and nothing that was delivered stands behind something that was not. It goes on
 *     (every batch is written) until all consumers have taken all there is; then memory alone serves again.
 *  3. delivered: a batch in memory alone when every consumer has committed it; a logged one as soon as its append is durable. Once a token.
 *  4. Rows of the load are never logged: until its table is committed a load has no position, a restart loads the table again, and the log would keep
 *     what nobody wants. They wait in memory, and the source with them. Words without rows (LOAD_DONE) are logged: a target that builds indexes for
 *     hours does not hold the source's log.
 *  5. A transaction larger than the memory (a loaded table is one) goes through: what every consumer has consumed is dropped before it is committed,
 *     if it is not worth a log (rule 4, no log, log full, half of the memory is such, or it keeps a consumer from the rest). Killed then, it comes from
 *     the source again.
 *     And consumers that have all get more even over the cap when one of them, in mid-transaction, could never commit without it.
 *  6. The source sends again what was delivered but not stored when we were killed: `tail` is where the log ended at start. Changes that it covers are
 *     taken out of what is produced (a batch that is covered whole is delivered at once). Batches may be cut elsewhere than the first time.
 *  7. A consumer never gets a change that its `from` covers, whether from the log or produced again: a batch that it has in part is given to it as a
 *     copy without that part. Words of the load are given again: they are harmless twice.
 *  8. Trimmed is what every consumer has committed. A target that does not keep its position, killed before the host has stored it, gets again what it
 *     had and is still held.
 *  9. The cap. What consumers hold, or have coming from the log, may be three quarters of it, in which each has an equal share for sure; over that one gets
 *     nothing until half of its share is free. It is asked to let go of what it has read; one that cannot be asked (it commits after so many batches,
 *     perhaps) gets more all the same. Over the cap the log is asked only for one that holds nothing. Rows of the load (rule 4) are lent all the same:
 *     they end where memory does.
 *     The source: AGAIN when memory is full and more than a quarter of it is no such holding, until that is less (no source is stopped by what one target
 *     holds), and while batches go to the log, when half of it is. So memory is never over the cap by more than a batch, and two for each consumer,
 *     but for what a target has that cannot be asked to let go.
 *     Full log: nothing more is written, so memory fills, so AGAIN. A failed append or a damaged log: failed().
 * Crash at any point: what is in memory alone was not delivered and comes again (6, 7); an append that was not durable was not delivered either.
 *
 *   NEW -> STARTING -> RUNNING -> STOPPING -> STOPPED         any but STOPPED -> DEAD        NEW -> STOPPING too
 *
 * Everything that takes time is done in turns (one loop task), a slice of about a millisecond each, at most one batch packed or unpacked in it. */
#ifndef DMSR_EMBEDDED_H
#define DMSR_EMBEDDED_H
#include "dmsr.h"

enum embedded_state { EMBEDDED_NEW, EMBEDDED_STARTING, EMBEDDED_RUNNING, EMBEDDED_STOPPING, EMBEDDED_STOPPED, EMBEDDED_DEAD, EMBEDDED_STATES };
enum item_log { ITEM_MEMORY, ITEM_WRITING, ITEM_DURABLE };

/* A batch of the window. Those in the log that nobody holds have none. */
struct item {
	struct item *prev, *next;       /* in order of n */
	uint64_t n;
	uint64_t token;                 /* the producer's; 0: of an earlier run */
	struct batch *b;                /* NULL: dropped */
	size_t bytes;                   /* what b takes of the memory */
	size_t packed;                  /* in the log */
	uint8_t log;                    /* enum item_log */
	bool is_told;                   /* delivered() */
	bool is_bound;                  /* to memory: rows of a load, or too big for an entry */
	bool is_open;                   /* its transaction, or its table, goes on */
};

/* An entry read from the log, not unpacked yet. */
struct raw {
	struct raw *next;
	uint64_t n;
	size_t len;
	char data[];
};

/* A batch without what its consumer has already. */
struct cut {
	struct cut *next;
	uint64_t n;
	struct batch *b;
	size_t bytes;
};

/* What a consumer was lent and has not consumed. */
struct loan {
	struct loan *next;
	uint64_t n;
	size_t bytes;
};

struct dmsr_subscription {
	struct embedded *s;
	struct dmsr_subscription *next_one;
	char *name;
	struct dmsr_consumer c;
	struct position from;
	bool is_behind;                 /* what comes next may be covered by from */
	bool is_waiting;                /* said AGAIN */
	bool has_more;                  /* something was produced since it was told drained */
	bool in_txn, in_table;          /* the rest of what it got last of the stream, of a load, is still to come */
	bool is_reading;                /* the log was asked */
	bool is_over;                   /* its share, and half of that is not free yet */
	bool is_told;                   /* to let go, and neither took nor gave back anything since */
	uint64_t next;                  /* it gets this one next */
	uint64_t last;                  /* the newest that it was lent */
	uint64_t consumed, committed;   /* up to these */
	uint64_t settled;               /* committed, and its items were looked at */
	uint64_t asked;                 /* is_reading: from this one on */
	size_t promised;                /* and at most so many bytes */
	size_t held, packed, cutting; /* bytes: of the loans, the raws, the cuts */
	uint64_t seek_lo, seek_hi;      /* where in the log from is: not before lo, not behind hi; 0: it is known */
	struct raw *raws, *last_raw;
	struct cut *cuts;
	struct loan *loans, *last_loan;
};

struct tokens {
	uint64_t *all;
	size_t at, n, cap;
};

struct embedded {
	struct dmsr_streamer_host host;
	const struct dmsr_log *log;     /* NULL: none, or disk is 0 */
	enum embedded_state state;
	bool has_told_ready, has_told_end, is_in_turn, is_closed;
	bool said_again, is_spilling;
	size_t memory, memory_max;
	size_t spare;                   /* of memory: what the log has too */
	size_t promised;                /* to answers of the log that are on their way */
	uint64_t disk, disk_max;
	struct dmsr_subscription *subscriptions;
	struct item *first, *last;
	struct map *items;              /* n -> item */
	uint64_t lo, hi, logged;
	uint64_t shift;                 /* log number = n + shift, modulo 2^64 */
	uint64_t seq;                   /* the next entry's number */
	uint64_t trimmed;               /* entries below were given back */
	uint64_t dropped, worthless;    /* what was consumed by all is looked at from here on, by the two that drop it */
	size_t writing, nwriting, nreading;
	struct position reached;        /* of the newest entry: no position in the log is behind it */
	struct position tail;           /* reached at start; NONE: nothing can come twice */
	struct tokens told;             /* to be told delivered */
	struct buf pack;
	struct loop_task *turn;
	uint64_t slice_us;              /* when this turn must end */
	struct err error;
};

/* embedded.c */
void embedded_wake(struct embedded *s);
void embedded_fail(struct embedded *s, const struct err *e);
bool embedded_slice_is_over(const struct embedded *s);

/* window.c: what is held, and what it takes of the memory. */
struct item *window_find(const struct embedded *s, uint64_t n);
struct item *window_append(struct embedded *s, struct batch *b);
/* The item n of the log is in memory again. */
struct item *window_recall(struct embedded *s, uint64_t n, struct batch *b, size_t packed);
void window_tell(struct embedded *s, struct item *it);
void window_durable(struct embedded *s, struct item *it); /* it is in the log now */
/* Gives back what was consumed or committed by all, in slices; makes room in a memory that is nearly full. */
void window_advance(struct embedded *s);
/* Is more held than limit, and more of that than rule 9 allows that is neither in the log and read by a consumer now, nor on its way from there? */
bool window_is_over(const struct embedded *s, size_t limit);
void window_make_room(struct embedded *s);
void window_free(struct embedded *s);
size_t window_cost(const struct batch *b);

/* spill.c: into the log. */
void spill_turn(struct embedded *s);
bool spill_is_full(const struct embedded *s);
void spill_trim(struct embedded *s);

/* recall.c: out of the log. */
void recall_tail(struct embedded *s);                   /* at start: where the log ends; then RUNNING */
/* Makes the item at c->next be in memory: true when it is; false when the log was asked, or there is no room, or time for it. */
bool recall_next(struct dmsr_subscription *c);
void recall_free(struct dmsr_subscription *c);

/* entry.c: the bytes of a log entry. Pure. */
struct entry {
	struct position reached;        /* the highest end of this entry and all before it in the log */
	bool has_end;                   /* reached is this batch's end */
	bool has_words;                 /* of a load */
	const char *batch;              /* packed */
	size_t len;
};
int entry_write(struct buf *out, const struct batch *b, const struct position *reached); /* DMSR_EFULL: too big */
int entry_read(const void *data, size_t len, struct entry *out, struct err *e);
bool entry_has_rows(const struct batch *b);     /* of a load: then it is bound to memory */

/* feed.c: to the consumers. */
void feed_turn(struct embedded *s);
bool feed_all_have_all(const struct embedded *s);       /* every consumer has taken all there is */
bool feed_is_starving(const struct embedded *s);        /* they have, and one cannot go on without the rest of a transaction */
/* Rule 9. */
bool feed_is_over_share(struct dmsr_subscription *c);
void feed_hold_back(struct dmsr_subscription *c);       /* until half of its share is free; it is asked to let go */
bool feed_must_have(const struct dmsr_subscription *c); /* cap or not: without more it would give nothing back */
void feed_expect(struct embedded *s);                   /* something was produced, for whom it may be: all are told drained behind it */
void feed_skip(struct dmsr_subscription *c);            /* it has what comes next */
void feed_forget(struct dmsr_subscription *c);          /* loans and cuts that are consumed */

#endif
