/* batch: many changes in one arena, moved from room to room. One owner at a time: after OK the callee owns it. A streamer may
 * lend it, const, to several targets until each has said applied. A big transaction is many batches flagged `more`. */
#ifndef DMSR_MODEL_BATCH_H
#define DMSR_MODEL_BATCH_H
#include "base/arena.h"
#include "change.h"
#pragma GCC visibility push(default)

struct batch {
	struct arena arena;
	struct change *first, *last;
	uint32_t nchanges;                 /* list entries */
	uint64_t nrows;                    /* rows: c u d r, and those inside OP_ROWS */
	size_t bytes;                      /* payload bytes: what flow control counts (arena.bytes is what malloc was asked) */
	struct position end;               /* behind the last change; NONE during the load: then its server alone, if that is known */
	bool more;                         /* the last transaction goes on in the next batch */
	bool is_load;                      /* holds words and rows of the load only */
	bool in_turn;                      /* such, and has its place among the changes, where others go beside the stream; not packed */
	uint32_t part;                     /* of its table's load, from 1; 0: the table is loaded undivided, or words about all of it */
	int64_t received_us;               /* wall clock when its first byte was read */
	uint64_t token;                    /* the ledger's number, set by the pipeline */
	struct relation **rels;            /* references held, each once */
	uint32_t nrels, caprels;
	const struct relation *last_rel;   /* held, used last */
	uint32_t *slots, nslots;           /* batch_hold's own: finds a relation among many */
	const struct txn *txn;             /* of the changes being appended (batch_txn) */
};

struct batch *batch_new(void);
void batch_free(struct batch *b);          /* drops the references; NULL is fine */
/* Takes a reference on rel unless it is held already. Cheap when it is the one used last. */
void batch_hold(struct batch *b, struct relation *rel);
/* Starts the changes of a transaction (or of a load): copies t; returns the copy, which later changes share. */
const struct txn *batch_txn(struct batch *b, const struct txn *t);
/* Appends a zeroed change with op, rel (held; may be NULL), the current txn. Counts it; the caller adds its payload to b->bytes, and
 * for OP_ROWS its rows to b->nrows. */
struct change *batch_append(struct batch *b, enum change_op op, struct relation *rel);
/* n values in the arena, not zeroed */
static inline struct value *batch_values(struct batch *b, unsigned n)
{
	return arena_alloc(&b->arena, n * sizeof(struct value));
}
/* The single rows of an OP_ROWS: calls fn once a row (op OP_READ) with `row` valid during the call; fn's non-zero stops and is returned.
 * DMSR_EPROTO when a row is bad: fn has then seen the rows before it. */
int change_each_row(const struct change *rows, int (*fn)(void *arg, const struct change *row), void *arg, struct err *e);
/* From byte *at on, which is moved behind each row that fn has seen: who stopped goes on there. */
int change_some_rows(const struct change *rows, size_t *at, int (*fn)(void *arg, const struct change *row), void *arg, struct err *e);

/* Lossless bytes for the spill log: relations are packed once a batch. Everything but token comes back. 0, or DMSR_EFULL when out is full.
 * batch_unpack copies; NULL (DMSR_EPROTO) when the bytes are damaged. */
int batch_pack(const struct batch *b, struct buf *out);
struct batch *batch_unpack(const void *data, size_t len, struct err *e);

/* What of a batch does p cover? Words and rows of a load are never covered: they belong to no transaction of the stream. */
enum batch_known { KNOWN_NOTHING, KNOWN_PART, KNOWN_ALL };
enum batch_known batch_known(const struct batch *b, const struct position *p);
void batch_cut(struct batch *b, const struct position *p); /* takes the changes out that p covers */
/* Takes the changes out that go; where none is left, a heartbeat keeps its end. */
void batch_take_out(struct batch *b, bool (*goes)(void *arg, const struct change *ch), void *arg);
/* b but for the changes that go: a view of it, whose list is its own and whose bytes and relations are b's, which has to outlive it. batch_free. */
struct batch *batch_without(const struct batch *b, bool (*goes)(void *arg, const struct change *ch), void *arg);
struct batch *batch_behind_commit(const struct batch *b, const struct txn *open); /* the same, and the commit of that transaction before it */

#pragma GCC visibility pop
#endif
