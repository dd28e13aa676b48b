/* rebuild: records of the stream, as ordered.c writes them, back into batches.
 *
 * Rows are gathered until a batch is full, a word comes, or nothing more is there. Where a target goes on after a restart is a record behind which a
 * transaction ends: the rows of one that was read in part are read again, and its position takes out what was applied. A row's table is known by its
 * fingerprint (dmsr-schema), from {prefix}.__schemas, which a consumer of its own reads from the beginning; a row whose shape is not there yet waits. A row of
 * a load says of which (dmsr-load): such are gathered by table and part, which may come in any order among each other. */
#include "kafka.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH_BYTES = 256 << 10 };

struct rebuild {
	struct kafka *k;
	struct batch *b;                /* being filled; NULL: none */
	struct txn txn;                 /* the newest that began */
	bool is_open;                   /* it has not ended */
	bool is_b_open;                 /* nor has the last one in b */
	struct position end;            /* behind the newest record in b */
};

struct rebuild *rebuild_new(struct kafka *k)
{
	struct rebuild *r = mem_zalloc(sizeof *r);
	r->k = k;
	return r;
}

void rebuild_free(struct rebuild *r)
{
	if (!r)
		return;
	batch_free(r->b);
	free(r);
}

/* As where the stream was written: between two transactions half of it is enough. */
bool rebuild_is_full(const struct rebuild *r)
{
	if (!r->b)
		return false;
	return r->b->bytes >= (r->b->is_load || r->is_b_open ? BATCH_BYTES : BATCH_BYTES / 2);
}

bool rebuild_is_empty(const struct rebuild *r) { return !r->b; }
bool rebuild_is_whole(const struct rebuild *r) { return !r->is_open; }

struct batch *rebuild_take(struct rebuild *r)
{
	struct batch *b = r->b;
	if (!b)
		return NULL;
	r->b = NULL;
	if (b->is_load)
		return b;
	b->end = r->end;
	b->more = r->is_b_open;
	return b;
}

static struct batch *filling(struct rebuild *r)
{
	if (r->b)
		return r->b;
	r->b = batch_new();
	r->b->received_us = wall_now_us();
	batch_txn(r->b, &r->txn);
	return r->b;
}

static bool header(const rd_kafka_message_t *m, const char *name, const void **value, size_t *len)
{
	rd_kafka_headers_t *h;
	return !rd_kafka_message_headers(m, &h) && !rd_kafka_header_get_last(h, name, value, len) && *value;
}

static int foreign(const rd_kafka_message_t *m, const char *why, struct err *e)
{
	return err_set(e, DMSR_EPROTO, "kafka.foreign", "topic %s, offset %" PRId64 ": %s", rd_kafka_topic_name(m->rkt), m->offset, why);
}

/* ---- begin and end ---- */

static int take_mark(struct rebuild *r, const rd_kafka_message_t *m, const struct stamp *t, const char *text, size_t len,
	const struct position *reached, struct err *e)
{
	char own[80], *end;
	struct txn txn = { 0 };
	if (len >= sizeof own)
		return foreign(m, "dmsr-txn is too long", e);
	memcpy(own, text, len);
	own[len] = 0;
	txn.lsn = strtoull(own + (len > 0), &end, 10);
	txn.commit_us = strtoll(end, &end, 10);
	txn.xid = (uint32_t)strtoul(end, &end, 10);
	txn.streamed = strtol(end, &end, 10) != 0;
	if (*end || (own[0] != OP_BEGIN && own[0] != OP_COMMIT))
		return foreign(m, "dmsr-txn cannot be read", e);
	bool is_begin = own[0] == OP_BEGIN;
	r->txn = txn;
	r->is_open = is_begin;
	if (r->b)
		batch_txn(r->b, &r->txn);
	/* By its own number: a position between transactions may be where this one begins. */
	if (position_covers(reached, txn.lsn, is_begin ? 1 : POSITION_WHOLE))
		return 0;
	struct change *ch = batch_append(filling(r), is_begin ? OP_BEGIN : OP_COMMIT, NULL);
	ch->event = is_begin ? 0 : POSITION_WHOLE;
	r->is_b_open = is_begin;
	r->end = t->at;
	return 0;
}

/* ---- rows ---- */

/* "LSN PART" */
static int read_load(const rd_kafka_message_t *m, struct txn *txn, uint32_t *part, struct err *e)
{
	const void *v;
	size_t len;
	char own[40], *end = own;
	if (header(m, "dmsr-load", &v, &len) && len < sizeof own) {
		memcpy(own, v, len);
		own[len] = 0;
		*txn = (struct txn){ .lsn = strtoull(own, &end, 10) };
		*part = (uint32_t)strtoul(end, &end, 10);
	}
	return end == own || *end ? foreign(m, "dmsr-load cannot be read", e) : 0;
}

/* Of what is being filled? */
static bool belongs(const struct batch *b, const struct relation *rel, const struct txn *load, uint32_t part)
{
	if (!b->is_load || !load)
		return b->is_load == (load != NULL);
	return b->part == part && b->txn->lsn == load->lsn && relation_is_same(b->first->rel, rel);
}

static int take_row(struct rebuild *r, const rd_kafka_message_t *m, const struct stamp *t, const char *schema, size_t len, struct err *e)
{
	struct relation *rel = len == 16 ? schemas_find(r->k, schema) : NULL;
	bool is_load = position_is_none(&t->at);
	struct txn load;
	uint32_t part = 0;
	if (len != 16 || !m->payload)
		return foreign(m, "dmsr-schema is no fingerprint", e);
	if (!rel)
		return REBUILD_SHAPE;
	if (is_load && read_load(m, &load, &part, e))
		return e->code;
	if (r->b && !belongs(r->b, rel, is_load ? &load : NULL, part))
		return REBUILD_FLUSH;
	bool is_new = !r->b;
	struct batch *b = filling(r);
	if (is_new && is_load) {
		b->is_load = true;
		b->part = part;
		batch_txn(b, &load);
	}
	size_t was = b->nchanges;
	int rc = r->k->codec_ops->decode(r->k->codec, m->payload, m->len, rel, b, e);
	if (rc) {
		err_prefix(e, "topic %s, offset %" PRId64, rd_kafka_topic_name(m->rkt), m->offset);
		return rc;
	}
	if (b->nchanges > was)
		b->last->event = t->at.event;
	r->is_b_open |= !b->is_load;
	r->end = t->at;
	return 0;
}

/* ---- words ---- */

int rebuild_record(struct rebuild *r, const rd_kafka_message_t *m, const struct stamp *t, const struct position *reached, struct batch **word, struct err *e)
{
	const void *v;
	size_t len;
	*word = NULL;
	if (header(m, "dmsr-txn", &v, &len))
		return r->b && r->b->is_load ? REBUILD_FLUSH : take_mark(r, m, t, v, len, reached, e);
	if (header(m, "dmsr-schema", &v, &len)) {
		return position_covers(reached, t->at.lsn, t->at.event) && !position_is_none(&t->at) ? 0 : take_row(r, m, t, v, len, e);
	}
	if (!header(m, "dmsr-word", &v, &len))
		return foreign(m, "it is neither a row nor a word", e);
	struct batch *w = batch_unpack(v, len, e);
	if (!w)
		return e->code;
	const struct change *ch = w->last;
	if (ch && ch->op == OP_LOAD_BEGIN) {
		r->txn = *ch->txn;
		r->is_open = false;
	}
	*word = w;
	return 0;
}
