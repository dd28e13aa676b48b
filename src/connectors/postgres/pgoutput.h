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
	 * then the decoder builds the relation from the wire alone. Borrowed. */
	const struct relation *(*describe)(void *ctx, uint32_t relid);
	/* Is this table wanted; if so, changes of transactions with commit LSN < *loaded_lsn are in its loaded rows already (0: none are). Called when
	 * a relation is (re)built, not per row. */
	bool (*wanted)(void *ctx, const struct relation *rel, uint64_t *loaded_lsn);
	/* The batch is as big as it should get: take it (its `more` and `end` are set); decoding goes on in a new one. During the decode of a
	 * held transaction this may return AGAIN: the decoder then stops; call pgoutput_continue after room was made. */
	enum dmsr_verdict (*full)(void *ctx, struct batch *b);
};
struct pgoutput_limits {
	size_t batch_bytes;                     /* hand a batch on at this size (256 KiB) */
	size_t spool_memory;                    /* in-progress transactions in memory, over all (8 MiB) */
	uint64_t spool_disk;                    /* and on disk (0: no limit): DMSR_EFULL beyond */
};
/* from: changes that it covers are decoded (numbered) but not emitted. server: goes into positions. */
struct pgoutput *pgoutput_new(const struct pgoutput_host *h, const struct dmsr_env *env, const struct pgoutput_limits *lim,
	int proto_version, uint64_t server, const struct position *from);
void pgoutput_free(struct pgoutput *d);         /* removes its files */

/* One message: the payload of an XLogData ('w') message, behind its 25-byte head. wal_start: from that head. Returns 0, DMSR_AGAIN (a held
 * transaction's decode stopped for lack of room: nothing more may be fed until pgoutput_continue returned 0), or DMSR_E*. */
int pgoutput_message(struct pgoutput *d, uint64_t wal_start, const void *data, size_t len, struct err *e);
int pgoutput_continue(struct pgoutput *d, struct err *e);
/* The batch so far (moved; NULL when empty), with `end` and `more` set right: for handing on when the socket runs dry. */
struct batch *pgoutput_take(struct pgoutput *d);
/* An idle server's keepalive at lsn: if no transaction is open or held, the newest position becomes (lsn, 0, flush lsn); a heartbeat change is
 * appended when that moves it. Returns true when it did. Held (streamed, uncommitted) transactions do not hinder: their commit comes later. */
bool pgoutput_keepalive(struct pgoutput *d, uint64_t lsn);
void pgoutput_position(const struct pgoutput *d, struct position *out); /* newest, also of what was skipped */
struct pgoutput_stat { uint64_t messages, transactions, skipped, spool_memory, spool_disk, streamed, relations; int64_t last_commit_us; bool in_transaction; };
void pgoutput_stat(const struct pgoutput *d, struct pgoutput_stat *out);

#endif
