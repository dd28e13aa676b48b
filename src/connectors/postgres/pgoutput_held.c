/* pgoutput_held: transactions that the server sends in pieces, before they commit.
 *
 *   S  xid32  first8                              Stream Start: a piece of a transaction begins
 *   E                                             Stream Stop: it ends
 *   c  xid32  flags8  commit_lsn  end_lsn  time   Stream Commit
 *   A  xid32  subxid32 [ lsn  time ]              Stream Abort of a sub-transaction, or of all (both the same); the rest from version 4 on
 *   in a piece:  O as ever;  R Y I U D T M with the xid32 of the sub-transaction behind the type
 *
 * Pieces of several transactions take turns. Each is held as it came, in a spool; a mark with the piece's number (pgoutput.seq) is put before each
 * piece. At the commit the messages are decoded like those of any other transaction, a slice at a time. Rows of sub-transactions that were rolled back are
 * left out, their Relation messages are not: the server says each thing once per transaction, whoever made it say so. */
#include "pgoutput_int.h"
#include <stdlib.h>

/* About a millisecond of decoding. */
enum { SLICE_BYTES = 512 << 10, PIECE_MARK = 0 };

struct held {
	uint32_t xid;
	struct spool_run *run;
	uint32_t *aborted;              /* sub-transactions, sorted */
	size_t naborted, cap_aborted;
	uint32_t last_xid;              /* of the message decoded last, and what was found out about it */
	bool is_last_aborted;
	uint64_t seq;                   /* of the piece that is being decoded */
	uint64_t end_lsn;
};

static void held_free(struct pgoutput *d, struct held *h)
{
	map_del_u32(d->held, h->xid);
	spool_run_free(h->run);
	free(h->aborted);
	free(h);
}

static void free_each(void *arg, const void *key, size_t n, void *value)
{
	struct held *h = value;

	(void)arg;
	(void)key;
	(void)n;
	spool_run_free(h->run);
	free(h->aborted);
	free(h);
}

void pgo_held_free(struct pgoutput *d)
{
	map_each(d->held, free_each, NULL);
	map_free(d->held);
}

/* ---- holding ---------------------------------------------------------------------------------------------------- */
int pgo_stream_start(struct pgoutput *d, struct cursor *c, struct err *e)
{
	uint32_t xid = cursor_be32(c);
	bool is_first = cursor_u8(c) == 1;

	if (!cursor_done(c))
		return pgo_bad(e, "Stream Start has a wrong length");
	struct held *h = map_get_u32(d->held, xid);
	if (is_first == (h != NULL))
		return pgo_bad(e, "Stream Start of transaction %u: %s piece", (unsigned)xid, h ? "a second first" : "no first");
	if (!h) {
		h = mem_zalloc(sizeof *h);
		h->xid = xid;
		h->run = spool_run_new(d->spool);
		map_put_u32(d->held, xid, h);
	}
	char mark[1 + sizeof d->seq] = { PIECE_MARK };
	d->seq++;
	memcpy(mark + 1, &d->seq, sizeof d->seq);
	d->piece = h;
	return spool_append(h->run, mark, sizeof mark, e);
}

static int stream_stop(struct pgoutput *d, struct cursor *c, struct err *e)
{
	if (!cursor_done(c))
		return pgo_bad(e, "Stream Stop has a wrong length");
	d->piece = NULL;
	return 0;
}

int pgo_hold(struct pgoutput *d, const char *data, size_t len, struct err *e)
{
	struct cursor c;

	cursor_init(&c, data, len);
	switch (cursor_u8(&c)) {
	case 'E':
		return stream_stop(d, &c, e);
	case 'O':
		return 0;
	case 'R':
	case 'Y':
	case 'I':
	case 'U':
	case 'D':
	case 'T':
	case 'M':
		if (cursor_left(&c) < 4)
			return pgo_bad(e, "a message in a piece of transaction %u is cut off", (unsigned)d->piece->xid);
		return spool_append(d->piece->run, data, len, e);
	default:
		return pgo_bad(e, "message of type 0x%02x in a piece of transaction %u", len ? (unsigned char)*data : 0u, (unsigned)d->piece->xid);
	}
}

/* ---- rolling back ----------------------------------------------------------------------------------------------- */
/* Sorted from behind: sub-transactions get rising numbers and mostly end in that order. */
static void add_aborted(struct held *h, uint32_t xid)
{
	if (h->naborted == h->cap_aborted) {
		h->cap_aborted = h->cap_aborted ? h->cap_aborted * 2 : 16;
		h->aborted = mem_realloc_array(h->aborted, h->cap_aborted, sizeof *h->aborted);
	}
	size_t at = h->naborted++;
	for (; at && h->aborted[at - 1] > xid; at--)
		h->aborted[at] = h->aborted[at - 1];
	h->aborted[at] = xid;
}

static int compare_xid(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_aborted(struct held *h, uint32_t xid)
{
	if (!h->naborted)
		return false;
	if (xid != h->last_xid) {
		h->last_xid = xid;
		h->is_last_aborted = bsearch(&xid, h->aborted, h->naborted, sizeof xid, compare_xid) != NULL;
	}
	return h->is_last_aborted;
}

int pgo_stream_abort(struct pgoutput *d, struct cursor *c, struct err *e)
{
	uint32_t xid = cursor_be32(c), subxid = cursor_be32(c);

	if (d->proto_version >= 4 && cursor_left(c) == 16)
		(void)cursor_bytes(c, 16);
	if (!cursor_done(c))
		return pgo_bad(e, "Stream Abort has a wrong length");
	struct held *h = map_get_u32(d->held, xid);
	if (!h)
		return 0; /* nothing of it was sent to us: nothing to take back */
	if (xid == subxid)
		held_free(d, h);
	else
		add_aborted(h, subxid);
	return 0;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */
int pgo_stream_commit(struct pgoutput *d, struct cursor *c, struct err *e)
{
	struct txn t = { .xid = cursor_be32(c), .streamed = true };

	(void)cursor_u8(c);
	t.lsn = cursor_be64(c);
	uint64_t end_lsn = cursor_be64(c);
	t.commit_us = (int64_t)cursor_be64(c);
	if (!cursor_done(c))
		return pgo_bad(e, "Stream Commit has a wrong length");
	struct held *h = map_get_u32(d->held, t.xid);
	if (!h)
		return pgo_bad(e, "Stream Commit of transaction %u, of which no piece came", (unsigned)t.xid);
	int rc = pgo_check_start(d, t.lsn, e);
	if (rc)
		return rc;
	h->end_lsn = end_lsn;
	d->decoding = h;
	pgo_open(d, &t);
	return pgo_held_slice(d, e);
}

static int decode_one(struct pgoutput *d, struct held *h, const char *data, size_t len, struct err *e)
{
	struct cursor c;

	cursor_init(&c, data, len);
	char type = (char)cursor_u8(&c);
	if (type == PIECE_MARK) {
		memcpy(&h->seq, data + 1, sizeof h->seq);
		return 0;
	}
	uint32_t xid = cursor_be32(&c);
	if (type != 'R' && type != 'Y' && is_aborted(h, xid))
		return 0;
	return pgo_message_in_txn(d, type, &c, h->seq, e);
}

int pgo_held_slice(struct pgoutput *d, struct err *e)
{
	struct held *h = d->decoding;
	size_t done = 0;

	while (done < SLICE_BYTES) {
		const char *data = NULL;
		size_t len = 0;
		int rc = spool_next(h->run, &data, &len, e);
		if (rc == 0) {
			pgo_end_of_held(d);
			pgo_commit(d, h->end_lsn);
			d->decoding = NULL;
			held_free(d, h);
			return pgo_hand_on(d);
		}
		if (rc > 0)
			rc = decode_one(d, h, data, len, e);
		if (!rc)
			rc = pgo_hand_on(d);
		if (rc)
			return rc;
		done += len + 16; /* many tiny messages take their time, too */
	}
	return DMSR_AGAIN;
}
