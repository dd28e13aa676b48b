/* change: one thing that happened at the source, or one word about the load. Lives in its batch's arena. */
#ifndef DMSR_MODEL_CHANGE_H
#define DMSR_MODEL_CHANGE_H
#include "position.h"
#include "relation.h"
#include "value.h"
#pragma GCC visibility push(default)

enum change_op {
	OP_CREATE = 'c',
	OP_UPDATE = 'u',
	OP_DELETE = 'd',
	OP_READ = 'r',
	OP_TRUNCATE = 't',
	OP_BEGIN = 'B',
	OP_COMMIT = 'C', /* frame every transaction of the stream */
	OP_MESSAGE = 'm', /* logical message of the application */
	OP_HEARTBEAT = 'h', /* no rows, only the batch's position moves */
	OP_SCHEMA = 'S', /* from here on rel is in force; u.schema.old was before (NULL: first seen) */
	/* The load of a table. Several may be open at once, and several parts of one: their batches come in any order among each other. Each batch is of
	 * one table and one part of it (batch->part), but for those that hold OP_SCHEMA and OP_LOAD_DONE alone. */
	OP_LOAD_BEGIN = 'L', /* the rows of rel follow, in u.load.parts parts, or undivided (0); txn->lsn = position of the snapshot. */
	/* u.load.since: it goes on with a load that another run began. Parts of rel are there that were committed then, as of snapshots from that position on;
	 * the others follow, as of this one. Changes between the two come too, and find rows that may be newer than they are: whoever applies them minds that.
	 * It voids an open load of rel, and all that are open in another snapshot, as any change of the stream does: the source died in them. Of one that goes
	 * on the parts stay that have their end, whatever came between, and what came of others is gone.
	 * Rows and words of a load that is not open, because it was voided or never begun, mean nothing.
	 * CHANGE_TURNS: it begins anew, and changes come between its parts, all those of transactions since this snapshot. A part that comes later is as
	 * of a later snapshot (its txn->lsn: nothing in it is newer), and its rows find rows of changes in their place. Who interrupts a part voids it.
	 * CHANGE_MOVES: it goes on, and what part a row is in is no matter of its key: one that changed between the snapshots may have gone from a part into
	 * another, and be in both of them or in none. Rows of parts that follow take the place of those of the same key. */
	OP_ROWS = 'R', /* opaque: whole rows of rel, still in the source's own form */
	OP_LOAD_PART = 'P', /* all rows of the part were sent */
	OP_LOAD_END = 'E', /* all rows of rel were sent, and the ends of all its parts but those that were there; u.load.since as at the beginning */
	OP_LOAD_DONE = 'F', /* all tables of the load were sent: keys, indexes, foreign keys now */
};

enum change_flags {
	CHANGE_KEY_ONLY = 1,               /* before holds the key columns, the others are UNCHANGED (= not sent) */
	CHANGE_CASCADE = 2,                /* truncate ... cascade */
	CHANGE_RESTART_IDENTITY = 4,
	CHANGE_GROUP_MORE = 8,             /* truncate: the next change belongs to the same statement */
	CHANGE_TRANSACTIONAL = 16,         /* message: part of the transaction */
	CHANGE_TURNS = 32,                 /* load begin: it takes turns with the stream */
	CHANGE_MOVES = 64,                 /* load begin: it goes on, and rows may have moved from part to part */
};

enum rows_format {
	ROWS_COPY_TEXT = 1, /* PostgreSQL's COPY text: tab, \N, backslash escapes, one line a row */
	ROWS_COPY_BINARY,   /* its COPY binary, tuples only: no header, no trailer */
};
/* Rows hold every column of the relation in its order, or every column that is not COLUMN_GENERATED (COPY leaves those out): then those are UNCHANGED. */

/* What all changes of one transaction share. For the load: xid 0, lsn the snapshot's position. */
struct txn {
	uint64_t lsn;                      /* commit LSN: the transaction's name in positions */
	int64_t commit_us;                 /* commit time at the source, us since 1970 UTC; 0: unknown */
	uint32_t xid;
	bool streamed;                     /* was sent in pieces, before its commit */
};

struct change {
	struct change *next;
	struct relation *rel;              /* the batch holds the reference; NULL for begin, commit, message, heartbeat, load done */
	const struct txn *txn;             /* NULL for heartbeat and a message outside of any */
	uint64_t event;                    /* 1-based number of the change in its transaction; 0 for begin and words about the load; commit: POSITION_WHOLE */
	uint8_t op;                        /* enum change_op */
	uint8_t flags;                     /* enum change_flags */
	union {
		struct {
			const struct value *before; /* rel->ncolumns of them, or NULL: not sent */
			const struct value *after;
		} row;                     /* c u d r */
		struct {
			const char *data;
			size_t len;
			uint32_t rows;
			uint8_t format;    /* enum rows_format */
		} rows;
		struct {
			const char *prefix;
			const char *data;
			size_t len;
			uint64_t lsn;
		} message;
		struct {
			struct relation *old; /* held by the batch */
		} schema;
		struct {
			uint32_t parts;     /* begin: they are numbered from 1; 0: it is undivided */
			uint64_t since;     /* begin, end: LSN of the oldest snapshot that a part of it is of; 0: all are of this one */
		} load;
	} u;
};

/* OP_LOAD_END: changes of transactions before this are in the rows. */
static inline uint64_t change_loaded_lsn(const struct change *ch) { return ch->u.load.since ? ch->u.load.since : ch->txn->lsn; }
/* The event that a position in the transaction has to cover for the change to be known for certain. OP_SCHEMA has the number of the change before it, for who
 * is behind it is no farther: and who stands there may have it or not. */
static inline uint64_t change_known_at(const struct change *ch) { return ch->op == OP_SCHEMA ? ch->event + 1 : ch->event; }
static inline bool change_is_row(const struct change *ch)
{
	return ch->op == OP_CREATE || ch->op == OP_UPDATE || ch->op == OP_DELETE || ch->op == OP_READ;
}
const char *change_op_name(enum change_op op); /* "create" ... */

#pragma GCC visibility pop
#endif
