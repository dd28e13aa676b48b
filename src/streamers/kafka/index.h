/* index: a record of the topic {prefix}.__words: what one batch holds beside its rows, and where each of its rows stands in the tables' topics. Pure.
 *
 * A target of layout table reads that topic alone, as others read {prefix}.__stream, and finds the rows by it: so it has them in the order of commits, whole
 * transactions, though they lie in many topics and partitions. A record of it is written when all rows that it names are acknowledged (words.c), and read by
 * fetch.c, which fetches them. Its headers are those of a record of the stream with codec native, and the same rules hold for it (kafka.h, 1 and 3 to 6).
 *
 *   u8 1 | bytes | nlanes | lane... | len | words, as batch_pack has them | step...            numbers: LEB128, 7 bits a byte, the lowest first
 *
 *   bytes  of the rows' values, in all: what it takes to have them in memory
 *   lane   a partition with rows of the batch: len | topic | partition | the lowest offset
 *   step   n << 2 | kind: what of the batch comes next
 *            0 WORDS   n of the words: begin, end, truncate, schema, message, heartbeat
 *            1 ROWS    lane | skip | gap: n rows, in one record each, at offsets in a row
 *            2 MOVE    old lane | skip | new lane | skip: one update that changes the key, in two records: that of the old key has the old row. gap is n
 *            3 TXN     lsn | commit time, zigzag | xid << 1 | streamed: of the rows that follow (n is 0)
 *
 *   skip   offsets passed over since the newest row of that lane: what else stands there, as tombstones
 *   gap    changes of the transaction passed over, which are no rows: event of the first row = that of the row before + 1 + gap */
#ifndef DMSR_KAFKA_INDEX_H
#define DMSR_KAFKA_INDEX_H
#include "dmsr.h"

enum { INDEX_ROWS_MAX = 1 << 20, INDEX_LANES_MAX = 1 << 20, INDEX_TOPIC_MAX = 249 };

/* ---- to write ---- */

/* A record with a row. */
struct index_row {
	struct index_row *next;
	const char *topic;              /* the same pointer for the same one */
	const struct txn *txn;
	uint64_t event;
	int64_t offset;
	int32_t partition;
	uint32_t words;                 /* so many of the batch's words stand before it */
	bool is_old;                    /* of a key that changes: the next one is the new row */
};
/* words: packed, nwords of them. 0, or DMSR_EFULL: out is full, or there are too many rows. */
int index_encode(const struct index_row *first, uint64_t bytes, const char *words, size_t len, uint32_t nwords, struct buf *out);

/* ---- to read ---- */

struct index_lane {
	char *topic;
	int32_t partition;
};
struct index_spot {
	struct change *ch;              /* in the batch, an update without values: it becomes the row that stands there */
	uint32_t lane;
	int64_t offset;
	bool is_old;                    /* the next one has the same ch */
};
struct index {
	struct batch *b;                /* all of it, in order */
	uint64_t bytes;
	struct index_lane *lanes;
	struct index_spot *spots;       /* in the order of the batch; of each lane offsets rise */
	size_t nlanes, nspots;
};
struct index *index_decode(const void *data, size_t len, struct err *e); /* NULL: kafka.foreign */
void index_forget_cut(struct index *x); /* the spots whose changes were taken out of the batch */
void index_free(struct index *x); /* NULL is fine */

#endif
