/* pgoutput_int: what the files of the decoder share. Nobody else includes it.
 *
 *   pgoutput.c           messages in, transactions framed, batches out
 *   pgoutput_relation.c  Relation and Type messages -> the relation in force
 *   pgoutput_row.c       Insert, Update, Delete, Truncate -> changes
 *   pgoutput_held.c      transactions sent in pieces: held (spool), then decoded in slices */
#ifndef DMSR_POSTGRES_PGOUTPUT_INT_H
#define DMSR_POSTGRES_PGOUTPUT_INT_H
#include "pgoutput.h"
#include "spool.h"

/* A table's shape as one Relation message gave it. */
struct version {
	struct relation *rel;
	uint64_t seq;                   /* when the message came, see pgoutput.seq */
	uint64_t loaded_lsn;            /* changes of older transactions are in the loaded rows */
	uint16_t nwire;                 /* columns in a row on the wire */
	bool wanted;
	bool is_renamed;                /* it goes by another name than its own of that moment */
	bool is_dated;                  /* the columns are those of a time that nobody knows: the host is not asked about that yet */
	bool is_straight;               /* wire column i is column i, and all are on the wire */
	uint16_t *column;               /* wire column -> column of rel */
	bool *is_identity;              /* wire column is part of the replica identity */
};

struct table {
	uint32_t id;
	struct version *now;
	struct version *later;          /* newer on the wire than the held transaction that is being decoded; in force again after it */
	struct table *next_later;
	struct relation *told;          /* the shape that downstream knows; NULL: none of this table was emitted yet */
	uint64_t truncated;             /* commit LSN of its newest Truncate; 0: none came */
};

struct held;

struct pgoutput {
	struct pgoutput_host host;
	struct pgoutput_limits lim;
	int proto_version;
	uint64_t server;

	/* where we are */
	struct position from;
	bool is_from_inside;            /* from is in the middle of a transaction that has not come yet */
	struct position at;             /* the newest border between transactions */
	bool at_untold;                 /* no batch and no heartbeat has said `at` yet */

	/* the transaction that is being decoded */
	bool is_open;
	bool is_begun;                  /* its OP_BEGIN was emitted */
	bool has_txn;                   /* batch knows it */
	struct txn txn;
	uint64_t event;

	struct batch *batch;
	bool is_batch_refused;          /* `full` said AGAIN */

	/* tables */
	struct map *tables;             /* oid -> struct table */
	struct table *last_table;
	struct table *laters;
	struct map *types;              /* oid -> qualified name, of the types that are not built in */
	uint64_t seq;                   /* order on the wire: counts Relation messages and pieces of held transactions */
	char *pending;                  /* a message that waits for the host's answer, behind its type, */
	char pending_type;              /* which is R or T */
	size_t pending_len;
	uint64_t pending_seq;           /* of T: so many of its relations were asked about */
	struct relation *pending_known; /* the description that was not enough; NULL: there was none */

	/* transactions in pieces */
	struct spool *spool;
	struct map *held;               /* xid -> struct held */
	struct held *piece;             /* between Stream Start and Stream Stop */
	struct held *decoding;          /* between Stream Commit and the end of its decode */

	struct pgoutput_stat stat;
};

/* What the wire says that no server would: DMSR_EPROTO, id "source.protocol". */
int pgo_bad(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* pgoutput.c */
void pgo_open(struct pgoutput *d, const struct txn *t);
/* If `from` is inside a transaction that must come again, or its rest is lost: DMSR_EFATAL when the server is past it. */
int pgo_check_start(struct pgoutput *d, uint64_t commit_lsn, struct err *e);
void pgo_commit(struct pgoutput *d, uint64_t end_lsn);
/* Appends a change to the batch, making and framing it as needed. */
struct change *pgo_emit(struct pgoutput *d, enum change_op op, struct relation *rel);
/* The batch's arena, for what the next pgo_emit will carry. */
struct batch *pgo_batch(struct pgoutput *d);
/* Is event d->event of the open transaction behind `from` or in the loaded rows? */
static inline bool pgo_is_skipped(const struct pgoutput *d, uint64_t loaded_lsn)
{
	return d->txn.lsn < loaded_lsn || position_covers(&d->from, d->txn.lsn, d->event);
}
/* Hands the batch on if it is big: 0 or DMSR_AGAIN. */
int pgo_hand_on(struct pgoutput *d);
/* One message of an open transaction: R Y I U D T M; c is behind its type and xid. 0, DMSR_AGAIN (a Relation message waits), DMSR_EPROTO. */
int pgo_message_in_txn(struct pgoutput *d, char type, struct cursor *c, uint64_t seq, struct err *e);

/* pgoutput_relation.c: is_asked: the host was asked about it already */
int pgo_relation(struct pgoutput *d, struct cursor *c, uint64_t seq, bool is_asked, struct err *e);
/* Keeps the message, of which c is at the beginning, until the host has an answer. DMSR_AGAIN. */
int pgo_wait(struct pgoutput *d, char type, const struct cursor *c, uint64_t seq, struct relation *known);
int pgo_type(struct pgoutput *d, struct cursor *c, struct err *e);
struct table *pgo_table(struct pgoutput *d, uint32_t id);  /* NULL: no Relation message came */
/* A row of t will be emitted: tells downstream of its shape first, if that is new. */
void pgo_tell_schema(struct pgoutput *d, struct table *t);
void pgo_end_of_held(struct pgoutput *d);                  /* later versions come into force again */
void pgo_tables_free(struct pgoutput *d);

/* pgoutput_row.c */
int pgo_insert(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_update(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_delete(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_truncate(struct pgoutput *d, struct cursor *c, uint64_t nasked, struct err *e);

/* pgoutput_held.c: all of the protocol's Stream messages, and what comes between Start and Stop */
int pgo_stream_start(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_stream_commit(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_stream_abort(struct pgoutput *d, struct cursor *c, struct err *e);
int pgo_hold(struct pgoutput *d, const char *data, size_t len, struct err *e);
int pgo_held_slice(struct pgoutput *d, struct err *e);     /* goes on with d->decoding */
void pgo_held_free(struct pgoutput *d);

#endif
