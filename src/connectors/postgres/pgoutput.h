/* pgoutput: the wire messages of PostgreSQL's built-in logical decoding plugin, protocol 1 to 4, -> changes in a batch. Pure: bytes in, batch
 * out; it knows no connection. (Format: PostgreSQL documentation, "Logical Replication Message Formats".)
 *
 * Transactions sent in pieces while in progress (Stream Start ... Stream Commit/Abort) are held as raw messages per transaction, in memory up to a
 * limit over all of them, then in files of the scratch directory; at Stream Commit they are decoded in order, without the aborted
 * sub-transactions, like any other transaction. Relation messages in them are never skipped. */
#ifndef DMSR_POSTGRES_PGOUTPUT_H
#define DMSR_POSTGRES_PGOUTPUT_H
#include "dmsr.h"

struct pgoutput;
struct pgoutput_host {
	void *ctx;
	/* The catalog's knowledge of a relation (types by oid that are not built in, keys, defaults, ddl), or NULL when it is not known (yet):
	 * then the decoder builds the relation from the wire alone. Borrowed (the decoder takes a reference when it keeps it). */
	struct relation *(*describe)(void *ctx, uint32_t relid);
	/* The server speaks of a wanted table that describe does not know, or knows under another name, or with other columns, types or modifiers. OK: go
	 * on with what there is. AGAIN: the catalog is being asked; decoding stops, pgoutput_continue asks describe anew: another relation is the answer.
	 * Once a relation message. NULL: go on. */
	enum dmsr_verdict (*ask)(void *ctx, uint32_t relid);
	/* Is this table, as a transaction with that commit LSN sees it, wanted; if so, changes of transactions with commit LSN < *loaded_lsn are in its
	 * loaded rows already (0: none are). Called when a relation is (re)built, not per row. */
	bool (*wanted)(void *ctx, const struct relation *rel, uint64_t lsn, uint64_t *loaded_lsn);
	/* The batch is as big as it should get: take it (its `more` and `end` are set); decoding goes on in a new one. AGAIN: not taken, the
	 * decoder stops; call pgoutput_continue after room was made, it offers the batch again. Never ERR. */
	enum dmsr_verdict (*full)(void *ctx, struct batch *b);
	/* A row is to go out, in a transaction with that commit LSN, and its table had other columns when it was written than those that anybody knows of:
	 * which is which would be a guess. True: guess. False: the run is over, and the row does not go out. NULL: guess. */
	bool (*dated)(void *ctx, const struct relation *rel, uint64_t lsn);
	/* The columns that it had at a time not after a transaction with that commit LSN: names and numbers count. NULL: not known. The decoder drops its
	 * reference. Optional. */
	struct relation *(*earlier)(void *ctx, const struct relation *rel, uint64_t lsn);
	/* One that describe does not know, because it is gone: the columns that it had last, as far as that was seen; names and numbers count. NULL: not
	 * known. Borrowed. Optional. */
	struct relation *(*remembered)(void *ctx, uint32_t relid);
	/* Whose names its changes go out under: a table is its oid, and may have another name for a while. NULL: as the server says. Borrowed until the
	 * next question. Optional. */
	const struct relation *(*named)(void *ctx, uint32_t relid);
	/* A Truncate of a table that goes out under another name than its own of that moment: may that be the name of another table by now? OK: it goes out.
	 * AGAIN: somebody is being asked; decoding stops, pgoutput_continue lets it go out, unless the run is over by then. Optional: it goes out. */
	enum dmsr_verdict (*empties)(void *ctx, uint32_t relid);
	bool sends_generated;                   /* the server sends generated columns too (18); else what it sends is none */
};
struct pgoutput_limits {
	size_t batch_bytes;                     /* hand a batch on at this size (256 KiB), between two transactions at half of it */
	size_t spool_memory;                    /* in-progress transactions in memory, over all (8 MiB) */
	uint64_t spool_disk;                    /* and on disk (0: no limit): DMSR_EFULL beyond */
};
/* from: changes that it covers are decoded (numbered) but not emitted. server: goes into positions. */
struct pgoutput *pgoutput_new(const struct pgoutput_host *h, const struct dmsr_env *env, const struct pgoutput_limits *lim,
	int proto_version, uint64_t server, const struct position *from);
void pgoutput_free(struct pgoutput *d);         /* removes its files */

/* One message: the payload of an XLogData ('w') message, behind its 25-byte head. wal_start: from that head. Returns 0, DMSR_E* (the decoder is dead
 * then), or DMSR_AGAIN: nothing more may be fed until pgoutput_continue returned 0. AGAIN has three causes: `full` said so (call continue when there is
 * room), `ask` said so (when the catalog has answered), or a held transaction's decode has had its slice of about a millisecond (post a task that calls it). */
int pgoutput_message(struct pgoutput *d, uint64_t wal_start, const void *data, size_t len, struct err *e);
int pgoutput_continue(struct pgoutput *d, struct err *e);
/* The batch so far (moved; NULL when empty), with `end` and `more` set right: for handing on when the socket runs dry. */
struct batch *pgoutput_take(struct pgoutput *d);
/* An idle server's keepalive at lsn: if no transaction is open or being decoded, the newest position becomes (lsn, 0, flush lsn); a heartbeat change
 * is appended when that moves it (not if a batch is begun already: its end tells). Returns true when it did. Held (streamed, uncommitted)
 * transactions do not hinder: their commit comes later. Transactions of which nothing is emitted move the position but give no batch: lsn 0 appends
 * the heartbeat for them, if there were any. Call it so from a timer, or a busy server with quiet tables keeps its WAL. */
bool pgoutput_keepalive(struct pgoutput *d, uint64_t lsn);
/* False: all that was committed before the newest keepalive, and is of the job, is in batches that were taken. */
bool pgoutput_has_rest(const struct pgoutput *d);
/* What would be taken ends inside of a transaction. */
bool pgoutput_is_torn(const struct pgoutput *d);
/* Commit LSN of the newest Truncate of it that was decoded, wanted or not; 0: none. */
uint64_t pgoutput_truncated(struct pgoutput *d, uint32_t relid);
void pgoutput_position(const struct pgoutput *d, struct position *out); /* newest, also of what was skipped */
struct pgoutput_stat { uint64_t messages, transactions, spool_memory, spool_disk, streamed; int64_t last_commit_us; bool in_transaction; };
void pgoutput_stat(const struct pgoutput *d, struct pgoutput_stat *out);

#endif
