/* pgoutput: messages of the replication stream in, batches of changes out. Format: PostgreSQL's documentation, "Logical Replication Message Formats".
 * All numbers are big-endian; LSNs and times are 64 bits, times in microseconds since 2000-01-01; a string ends with a NUL.
 *
 *   B  commit_lsn  time  xid32                           Begin            C  flags8  commit_lsn  end_lsn  time    Commit
 *   O  lsn  name                                         Origin           M  flags8  lsn  prefix  len32  bytes    Message
 *   R Y                                                  pgoutput_relation.c
 *   I U D T                                              pgoutput_row.c
 *   S E c A                                              pgoutput_held.c
 *   b P K r p   two-phase transactions: sent only to a client that asks for two_phase, which we never do. They are refused: the rows come with
 *               PREPARE and are not sent again with COMMIT PREPARED, so that they had to be kept for as long as somebody likes.
 *
 * The numbers of a transaction's events: every row, every relation of a truncate and every transactional message counts one, in the order of
 * the log, whether it is wanted or not. A transaction in pieces is numbered when it is decoded, without what was rolled back: so it gets the
 * numbers that it would have had in one piece. */
#include "pgoutput_int.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* between PostgreSQL's epoch and ours */
#define EPOCH_US 946684800000000LL

int pgo_bad(struct err *e, const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return err_set(e, DMSR_EPROTO, "source.protocol", "replication stream: %s", text);
}

struct pgoutput *pgoutput_new(const struct pgoutput_host *h, const struct dmsr_env *env, const struct pgoutput_limits *lim,
	int proto_version, uint64_t server, const struct position *from)
{
	struct pgoutput *d = mem_zalloc(sizeof *d);

	assert(position_is_none(from) || from->server == server);
	d->host = *h;
	d->lim = *lim;
	d->proto_version = proto_version;
	d->server = server;
	d->from = *from;
	d->at = *from;
	d->is_from_inside = from->kind && from->event != 0 && from->event != POSITION_WHOLE;
	d->tables = map_new();
	d->types = map_new();
	d->held = map_new();
	d->spool = spool_new(env->scratch, lim->spool_memory, lim->spool_disk);
	return d;
}

void pgoutput_free(struct pgoutput *d)
{
	if (!d)
		return;
	batch_free(d->batch);
	pgo_held_free(d);
	pgo_tables_free(d);
	spool_free(d->spool);
	free(d->pending);
	relation_unref(d->pending_known);
	free(d);
}

/* ---- batches -------------------------------------------------------------------------------------------------- */
struct batch *pgo_batch(struct pgoutput *d)
{
	if (!d->batch) {
		d->batch = batch_new();
		d->batch->received_us = wall_now_us();
		d->has_txn = false;
	}
	return d->batch;
}

struct change *pgo_emit(struct pgoutput *d, enum change_op op, struct relation *rel)
{
	struct batch *b = pgo_batch(d);

	if (!d->has_txn) {
		batch_txn(b, &d->txn);
		d->has_txn = true;
	}
	if (!d->is_begun) {
		d->is_begun = true;
		batch_append(b, OP_BEGIN, NULL);
	}
	return batch_append(b, op, rel);
}

bool pgoutput_is_torn(const struct pgoutput *d) { return d->batch && d->is_open && d->is_begun; }

/* What downstream has behind it when it has the batch. */
static void seal_batch(struct pgoutput *d)
{
	struct batch *b = d->batch;

	b->more = pgoutput_is_torn(d);
	if (b->more) {
		b->end = (struct position){ POSITION_LSN, d->server, d->txn.lsn, d->event, 0 };
		return;
	}
	b->end = d->at;
	d->at_untold = false;
}

/* Between two transactions half the size is enough: targets apply those of several batches side by side, but none beside one that goes on in the next. */
static bool is_batch_full(const struct pgoutput *d)
{
	const size_t limit = pgoutput_is_torn(d) ? d->lim.batch_bytes : d->lim.batch_bytes / 2;

	/* many tiny rows weigh more than their bytes */
	return d->batch->bytes >= limit || d->batch->arena.bytes >= 4 * limit;
}

int pgo_hand_on(struct pgoutput *d)
{
	if (!d->batch)
		return 0;
	if (!d->is_batch_refused && !is_batch_full(d))
		return 0;
	seal_batch(d);
	if (d->host.full(d->host.ctx, d->batch) != DMSR_OK) {
		d->is_batch_refused = true;
		return DMSR_AGAIN;
	}
	d->is_batch_refused = false;
	d->batch = NULL;
	return 0;
}

struct batch *pgoutput_take(struct pgoutput *d)
{
	struct batch *b = d->batch;

	if (!b)
		return NULL;
	seal_batch(d);
	d->batch = NULL;
	d->is_batch_refused = false;
	return b;
}

/* ---- positions ------------------------------------------------------------------------------------------------ */
static void move_to(struct pgoutput *d, uint64_t lsn, uint64_t event, uint64_t flush)
{
	struct position p = { POSITION_LSN, d->server, lsn, event, flush };

	if (d->at.kind && position_compare(&p, &d->at) <= 0)
		return;
	d->at = p;
	d->at_untold = true;
}

static bool is_inside(const struct pgoutput *d) { return d->is_open || d->piece || d->pending || d->is_batch_refused; }

bool pgoutput_has_rest(const struct pgoutput *d) { return is_inside(d) || d->is_from_inside || d->batch; }

bool pgoutput_keepalive(struct pgoutput *d, uint64_t lsn)
{
	if (is_inside(d))
		return false;
	if (d->is_from_inside && lsn > d->from.lsn)
		return false; /* the rest of that transaction is still to come */
	if (lsn > d->at.lsn && lsn > d->at.flush)
		move_to(d, lsn, 0, lsn);
	if (!d->at_untold)
		return false;
	if (!d->batch) {
		pgo_batch(d);
		batch_append(d->batch, OP_HEARTBEAT, NULL);
	}
	return true;
}

void pgoutput_position(const struct pgoutput *d, struct position *out)
{
	*out = d->at;
	if (d->is_open && d->is_begun)
		*out = (struct position){ POSITION_LSN, d->server, d->txn.lsn, d->event, 0 };
}

void pgoutput_stat(const struct pgoutput *d, struct pgoutput_stat *out)
{
	*out = d->stat;
	out->spool_memory = spool_memory(d->spool);
	out->spool_disk = spool_disk(d->spool);
	out->streamed = map_size(d->held);
	out->in_transaction = d->is_open;
}

/* ---- transactions --------------------------------------------------------------------------------------------- */
int pgo_check_start(struct pgoutput *d, uint64_t commit_lsn, struct err *e)
{
	char want[24], got[24];

	if (!d->is_from_inside || commit_lsn < d->from.lsn)
		return 0;
	if (commit_lsn == d->from.lsn) {
		d->is_from_inside = false;
		return 0;
	}
	err_set(e, DMSR_EFATAL, "source.position", "the server goes on at transaction %s, but the rest of the one that commits at %s is not there",
		lsn_format(commit_lsn, got), lsn_format(d->from.lsn, want));
	if (e)
		err_hint(e, "The slot was moved past the stored position: load the tables again.");
	return DMSR_EFATAL;
}

void pgo_open(struct pgoutput *d, const struct txn *t)
{
	d->txn = *t;
	/* 0, unknown, for one that no clock says */
	d->txn.commit_us = t->commit_us > INT64_MAX - EPOCH_US ? 0 : t->commit_us + EPOCH_US;
	d->event = 0;
	d->is_open = true;
	d->is_begun = false;
	d->has_txn = false;
}

void pgo_commit(struct pgoutput *d, uint64_t end_lsn)
{
	/* What came before `from` of this transaction is out already, with its begin: it needs its commit even if nothing follows. */
	bool is_continued = d->from.kind && d->txn.lsn == d->from.lsn && d->from.event && d->from.event != POSITION_WHOLE;

	if (d->is_begun || is_continued)
		pgo_emit(d, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	d->is_open = false;
	d->has_txn = false;
	move_to(d, d->txn.lsn, POSITION_WHOLE, end_lsn);
	d->stat.transactions++;
	d->stat.last_commit_us = d->txn.commit_us;
}

static int on_begin(struct pgoutput *d, struct cursor *c, struct err *e)
{
	struct txn t = { .lsn = cursor_be64(c), .commit_us = (int64_t)cursor_be64(c) };

	t.xid = cursor_be32(c);
	if (!cursor_done(c))
		return pgo_bad(e, "Begin has a wrong length");
	if (d->is_open)
		return pgo_bad(e, "Begin inside a transaction");
	int rc = pgo_check_start(d, t.lsn, e);
	if (!rc)
		pgo_open(d, &t);
	return rc;
}

static int on_commit(struct pgoutput *d, struct cursor *c, struct err *e)
{
	(void)cursor_u8(c);
	uint64_t lsn = cursor_be64(c), end_lsn = cursor_be64(c);
	(void)cursor_be64(c);

	if (!cursor_done(c))
		return pgo_bad(e, "Commit has a wrong length");
	if (!d->is_open || lsn != d->txn.lsn)
		return pgo_bad(e, "Commit without its Begin");
	pgo_commit(d, end_lsn);
	return 0;
}

static int on_origin(struct cursor *c, struct err *e)
{
	(void)cursor_be64(c);
	(void)cursor_cstr(c);
	return cursor_done(c) ? 0 : pgo_bad(e, "Origin has a wrong length");
}

/* ---- messages of applications --------------------------------------------------------------------------------- */
static void fill_message(struct batch *b, struct change *ch, uint64_t lsn, const char *prefix, const char *data, size_t len)
{
	ch->u.message.lsn = lsn;
	ch->u.message.prefix = arena_strdup(&b->arena, prefix);
	ch->u.message.data = arena_dup(&b->arena, data, len);
	ch->u.message.len = len;
	b->bytes += strlen(prefix) + len;
}

/* Outside of any transaction: sent when the server's reading passes it, when every older commit was sent. Where it ends in the log is its position, and may be
 * the place of the next commit, which it is before: event 0, as with a keepalive. */
static void emit_lone_message(struct pgoutput *d, uint64_t lsn, const char *prefix, const char *data, size_t len)
{
	struct batch *b = pgo_batch(d);
	b->txn = NULL;
	d->has_txn = false;
	fill_message(b, batch_append(b, OP_MESSAGE, NULL), lsn, prefix, data, len);
	move_to(d, lsn, 0, lsn);
}

static int on_message(struct pgoutput *d, struct cursor *c, struct err *e)
{
	bool is_transactional = cursor_u8(c) & 1;
	uint64_t lsn = cursor_be64(c);
	const char *prefix = cursor_cstr(c);
	uint32_t len = cursor_be32(c);
	const char *data = cursor_bytes(c, len);

	if (!cursor_done(c))
		return pgo_bad(e, "Message has a wrong length");
	if (is_transactional && !d->is_open)
		return pgo_bad(e, "a transactional Message outside of a transaction");
	/* A transaction is sent in one go, from its Begin to its Commit: what the server's reading passes comes before or after it. */
	if (!is_transactional && d->is_open)
		return pgo_bad(e, "a Message of no transaction inside a transaction");
	if (!is_transactional) {
		bool is_known = d->from.kind && lsn <= d->from.lsn;
		int rc = is_known ? 0 : pgo_check_start(d, lsn, e);
		if (!rc && !is_known)
			emit_lone_message(d, lsn, prefix, data, len);
		return rc;
	}
	d->event++;
	if (pgo_is_skipped(d, 0))
		return 0;
	struct change *ch = pgo_emit(d, OP_MESSAGE, NULL);
	ch->event = d->event;
	ch->flags = CHANGE_TRANSACTIONAL;
	fill_message(d->batch, ch, lsn, prefix, data, len);
	return 0;
}

/* ---- dispatch ------------------------------------------------------------------------------------------------- */
int pgo_message_in_txn(struct pgoutput *d, char type, struct cursor *c, uint64_t seq, struct err *e)
{
	if (!d->is_open && type && strchr("IUDT", type))
		return pgo_bad(e, "message '%c' outside of a transaction", type);
	switch (type) {
	case 'I':
		return pgo_insert(d, c, e);
	case 'U':
		return pgo_update(d, c, e);
	case 'D':
		return pgo_delete(d, c, e);
	case 'T':
		return pgo_truncate(d, c, 0, e);
	case 'R':
		return pgo_relation(d, c, seq, false, e);
	case 'Y':
		return pgo_type(d, c, e);
	case 'M':
		return on_message(d, c, e);
	default:
		return pgo_bad(e, "message of unknown type 0x%02x", (unsigned char)type);
	}
}

static const char *two_phase_name(char type)
{
	switch (type) {
	case 'b':
		return "Begin Prepare";
	case 'P':
		return "Prepare";
	case 'K':
		return "Commit Prepared";
	case 'r':
		return "Rollback Prepared";
	case 'p':
		return "Stream Prepare";
	default:
		return NULL;
	}
}

static int on_stream(struct pgoutput *d, char type, struct cursor *c, struct err *e)
{
	if (d->proto_version < 2)
		return pgo_bad(e, "a transaction in pieces, which protocol version 1 does not have");
	if (d->is_open)
		return pgo_bad(e, "a Stream message inside of another transaction");
	switch (type) {
	case 'S':
		return pgo_stream_start(d, c, e);
	case 'c':
		return pgo_stream_commit(d, c, e);
	default:
		return pgo_stream_abort(d, c, e);
	}
}

static int dispatch(struct pgoutput *d, char type, struct cursor *c, struct err *e)
{
	const char *two_phase = two_phase_name(type);

	if (two_phase) {
		pgo_bad(e, "message '%s' of a two-phase transaction, which was not asked for", two_phase);
		if (e)
			err_hint(e, "Use a slot that was made without two_phase.");
		return DMSR_EPROTO;
	}
	switch (type) {
	case 'B':
		return on_begin(d, c, e);
	case 'C':
		return on_commit(d, c, e);
	case 'O':
		return on_origin(c, e);
	case 'S':
	case 'c':
	case 'A':
		return on_stream(d, type, c, e);
	case 'R':
		return pgo_relation(d, c, ++d->seq, false, e);
	default:
		return pgo_message_in_txn(d, type, c, d->seq, e);
	}
}

int pgoutput_message(struct pgoutput *d, uint64_t wal_start, const void *data, size_t len, struct err *e)
{
	struct cursor c;
	char lsn[24];

	assert(!d->is_batch_refused && !d->pending && !d->decoding); /* AGAIN was said: continue comes first */
	cursor_init(&c, data, len);
	char type = (char)cursor_u8(&c);
	d->stat.messages++;
	int rc = d->piece ? pgo_hold(d, data, len, e) : dispatch(d, type, &c, e);
	if (rc == 0)
		return pgo_hand_on(d);
	if (rc < 0 && e)
		err_prefix(e, "at %s", lsn_format(wal_start, lsn));
	return rc;
}

static int retry_pending(struct pgoutput *d, struct err *e)
{
	struct cursor c;
	char *data = d->pending;

	d->pending = NULL;
	cursor_init(&c, data, d->pending_len);
	int rc = d->pending_type == 'R' ? pgo_relation(d, &c, d->pending_seq, true, e) : pgo_truncate(d, &c, d->pending_seq, e);
	free(data);
	relation_unref(d->pending_known);
	d->pending_known = NULL;
	return rc;
}

int pgoutput_continue(struct pgoutput *d, struct err *e)
{
	int rc = pgo_hand_on(d);

	if (!rc && d->pending)
		rc = retry_pending(d, e);
	if (!rc && d->decoding)
		rc = pgo_held_slice(d, e);
	return rc;
}
