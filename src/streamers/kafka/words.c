/* words: the writer of an index, and what it keeps. See words.h. */
#include "words.h"
#include "index.h"
#include <assert.h>
#include <stdlib.h>

struct row {
	struct sent sent;               /* first: it is all that a report names */
	struct index_row at;
};

/* Rows lie in the flight's memory. */
struct words {
	struct index_row *first, *last;
	struct txn *txn;                /* the newest row's, of our own */
	const struct txn *of;           /* the batch's, that it is a copy of */
	const struct change *counted;   /* of the batch, up to and without that one */
	uint32_t nwords;                /* before that */
	uint64_t bytes;
	struct position end;
	struct buf packed;              /* the words of the batch; then the record */
	bool is_encoded;
};

static struct words *words_of(struct flight *f)
{
	if (f->words)
		return f->words;
	f->words = mem_zalloc(sizeof *f->words);
	buf_init(&f->words->packed, (size_t)1 << 31);
	f->words->counted = f->b->first;
	return f->words;
}

static void take_memory(struct kafka *k, struct flight *f, size_t n)
{
	f->bytes += n;
	k->memory += n;
}

struct sent *words_row(struct kafka *k, struct flight *f, const struct change *ch, size_t bytes, bool is_old)
{
	struct words *w = words_of(f);
	struct row *r = arena_zalloc(&f->records, sizeof *r);
	for (; w->counted != ch; w->counted = w->counted->next)
		w->nwords += !change_is_row(w->counted);
	if (!w->txn || w->of != ch->txn) {
		w->of = ch->txn;
		w->txn = arena_dup(&f->records, ch->txn, sizeof *ch->txn);
	}
	r->sent.f = f;
	r->at = (struct index_row){ .topic = k->row.topic->name, .txn = w->txn, .event = ch->event, .offset = -1, .words = w->nwords, .is_old = is_old };
	if (w->last)
		w->last->next = &r->at;
	else
		w->first = &r->at;
	w->last = &r->at;
	w->bytes += bytes;
	take_memory(k, f, sizeof *r);
	return &r->sent;
}

bool words_keep(struct kafka *k, struct flight *f)
{
	struct words *w = words_of(f);
	struct batch *own = batch_new();
	struct err e = { 0 };
	own->is_load = f->b->is_load;
	own->part = f->b->part;
	own->received_us = f->b->received_us;
	w->nwords = 0;
	for (const struct change *ch = f->b->first; ch; ch = ch->next) {
		assert(ch->op != OP_ROWS); /* a load goes past the topics */
		if (change_is_row(ch))
			continue;
		if (ch->txn && (!own->txn || own->txn->lsn != ch->txn->lsn))
			batch_txn(own, ch->txn);
		ordered_copy_word(own, ch)->txn = ch->txn ? own->txn : NULL;
		w->nwords++;
	}
	w->end = own->end = f->b->end;
	own->more = f->b->more;
	bool is_packed = !batch_pack(own, &w->packed);
	batch_free(own);
	take_memory(k, f, w->packed.len);
	if (is_packed)
		return true;
	err_set(&e, DMSR_EFULL, "kafka.record-too-large", "the words of a batch of %zu bytes are more than a record can hold", f->b->bytes);
	err_hint(&e, "set the source's batch_bytes to less");
	kafka_fail(k, &e);
	return false;
}

void words_acknowledged(struct kafka *k, struct sent *s, const rd_kafka_message_t *m, int64_t offset)
{
	struct row *r = (struct row *)(void *)s;
	struct err e = { 0 };
	r->at.offset = offset;
	r->at.partition = m->partition;
	if (offset >= 0 && m->partition >= 0)
		return;
	err_retry(&e, DMSR_EIO, "kafka.broker", "topic %s: the broker does not say where a record stands that it had already: it is sent again",
		rd_kafka_topic_name(m->rkt));
	kafka_fail(k, &e);
}

/* ---- into the topic ---- */

static bool encode(struct kafka *k, struct words *w)
{
	struct err e = { 0 };
	struct buf out;
	if (w->is_encoded)
		return true;
	buf_init(&out, (size_t)1 << 31);
	int rc = index_encode(w->first, w->bytes, w->packed.data, w->packed.len, w->nwords, &out);
	buf_fini(&w->packed);
	w->packed = out;
	w->is_encoded = true;
	if (!rc)
		return true;
	err_set(&e, DMSR_EFULL, "kafka.record-too-large", "a batch has more rows than a record of topic %s can say of", k->stream->name);
	err_hint(&e, "set the source's batch_bytes to less");
	kafka_fail(k, &e);
	return false;
}

/* False: not all of it yet, or failed. */
static bool send_words(struct kafka *k, struct flight *f)
{
	struct words *w = f->words;
	if (!encode(k, w) || !produce_parts(k, f, w->packed.data, w->packed.len, &w->end))
		return false;
	words_drop(f);
	failpoint("kafka.words-sent");
	return true;
}

void words_turn(struct kafka *k)
{
	while (k->indexing && kafka_may_send(k) && exact_takes(k)) {
		struct flight *f = k->indexing;
		if (!f->is_sent || (f->pending && !f->words->is_encoded) || kafka_waits_for_first(k))
			return;
		if (!f->words->is_encoded)
			failpoint("kafka.words-due");
		if (!send_words(k, f))
			return;
		k->indexing = f->next;
		if (k->indexing && kafka_slice_is_over(k)) {
			kafka_wake(k);
			return;
		}
	}
}

bool words_are_due(const struct kafka *k) { return k->indexing && k->indexing->is_begun; }

void words_drop(struct flight *f)
{
	if (!f->words)
		return;
	buf_fini(&f->words->packed);
	free(f->words);
	f->words = NULL;
}
