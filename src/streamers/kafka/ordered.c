/* ordered: the stream with a record for each change, as JSON: what is in a batch, one record behind another.
 *
 *   a row       value: its envelope (encode with room for one)    headers dmsr-pos, dmsr-run, dmsr-schema; of a load dmsr-load: "LSN PART"
 *   begin, end  value: {"status":"BEGIN","id":"XID:LSN",..}       headers dmsr-pos, dmsr-run, dmsr-txn: "B LSN COMMIT_US XID STREAMED", or C
 *   any word    value: what it says, for people                   headers dmsr-pos, dmsr-run, dmsr-word: it, in the model's lossless form
 *
 * dmsr-pos is the position behind the record; none for words and rows of a load, whose snapshot and part dmsr-load has. rebuild.c is the way back. */
#include "kafka.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* The first two of a record, and one more. */
static void put_headers(struct kafka *k, struct record *r, const struct position *at, char run[RUN_TEXT_MAX], const struct header *more)
{
	struct header *h = r->headers;
	h[0].name = "dmsr-pos";
	h[0].value = stamp_position(&k->row, at, &h[0].len);
	h[1].name = "dmsr-run";
	h[1].value = stamp_run(k, run, &h[1].len);
	h[2] = *more;
	r->nheaders = 3;
}

/* Behind ch. */
static struct position position_of(const struct batch *b, const struct change *ch)
{
	if (b->is_load)
		return (struct position){ 0 };
	if (!ch->next && !change_is_row(ch))
		return b->end;
	return (struct position){ .kind = POSITION_LSN, .server = b->end.server, .lsn = ch->txn ? ch->txn->lsn : 0, .event = ch->event };
}

static bool put(struct kafka *k, struct flight *f, const struct position *at, const char *value, size_t len, const struct header *more,
	size_t headers_len, const struct relation *rel)
{
	char run[RUN_TEXT_MAX];
	struct record r = { .value = value, .len = len };
	put_headers(k, &r, at, run, more);
	r.headers_len = headers_len;
	return produce_record(k, f, k->stream, &r, rel);
}

/* ---- the three kinds ---- */

static bool send_mark(struct kafka *k, struct flight *f, const struct change *ch)
{
	char txn[80], value[160];
	const struct txn *t = ch->txn;
	const struct position at = position_of(f->b, ch);
	snprintf(txn, sizeof txn, "%c %llu %lld %u %d", ch->op, (unsigned long long)t->lsn, (long long)t->commit_us, (unsigned)t->xid, t->streamed);
	int n = snprintf(value, sizeof value, "{\"status\":\"%s\",\"id\":\"%u:%llu\",\"ts_ms\":%lld}", ch->op == OP_BEGIN ? "BEGIN" : "END", (unsigned)t->xid,
		(unsigned long long)t->lsn, (long long)(t->commit_us / 1000));
	return put(k, f, &at, value, (size_t)n, &(struct header){ "dmsr-txn", txn, strlen(txn) }, 0, ch->rel);
}

struct change *ordered_copy_word(struct batch *w, const struct change *ch)
{
	struct change *c = batch_append(w, (enum change_op)ch->op, ch->rel);
	c->flags = ch->flags;
	c->event = ch->event;
	c->u = ch->u;
	if (ch->op == OP_SCHEMA && ch->u.schema.old)
		batch_hold(w, ch->u.schema.old);
	return c;
}

static void unwritable(struct kafka *k, const struct change *ch)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EFULL, "kafka.record-too-large", "a word of the stream (%s) cannot be written: it is too long, or its table's name is no UTF-8",
		change_op_name((enum change_op)ch->op));
	kafka_fail(k, &e);
}

/* All of one statement (truncate of several tables) are one word. Returns the last change that it holds; NULL: failed. */
static const struct change *send_word(struct kafka *k, struct flight *f, const struct change *ch)
{
	struct batch *w = batch_new();
	const struct change *last = ch;
	w->is_load = f->b->is_load;
	w->part = f->b->part;
	w->received_us = f->b->received_us;
	if (ch->txn)
		batch_txn(w, ch->txn);
	ordered_copy_word(w, ch)->txn = ch->txn ? w->txn : NULL;
	for (; (last->flags & CHANGE_GROUP_MORE) && last->op == OP_TRUNCATE && last->next; last = last->next)
		ordered_copy_word(w, last->next);
	w->end = (struct position){ 0 };
	w->end = position_of(f->b, last);
	w->more = last->next ? ch->txn != NULL && !f->b->is_load : f->b->more;
	buf_reset(&k->pack);
	bool is_packed = !batch_pack(w, &k->pack);
	batch_free(w);
	json_t *o = json_pack("{s:s, s:s*, s:s*}", "word", change_op_name((enum change_op)ch->op), "schema", ch->rel ? ch->rel->schema : NULL, "table",
		ch->rel ? ch->rel->name : NULL);
	char *value = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!is_packed || !value) {
		unwritable(k, ch);
		free(value);
		return NULL;
	}
	const struct position at = position_of(f->b, last);
	bool is_sent = put(k, f, &at, value, strlen(value), &(struct header){ "dmsr-word", k->pack.data, k->pack.len }, k->pack.len, ch->rel);
	free(value);
	return is_sent ? last : NULL;
}

struct sender {
	struct kafka *k;
	struct flight *f;
	struct position at;
	struct err *e;
};

static int send_row(void *arg, const struct change *ch)
{
	struct sender *s = arg;
	struct dmsr_record r;
	char load[40], run[RUN_TEXT_MAX];
	int n = s->k->codec_ops->encode(s->k->codec, ch, &r, 1, s->e);
	if (n <= 0)
		return n;
	struct record rec = { .key = r.key, .key_len = r.key_len, .value = r.value, .len = r.value_len };
	put_headers(s->k, &rec, &s->at, run, &(struct header){ "dmsr-schema", stamp_schema(&s->k->row, ch->rel), 16 });
	if (s->f->b->is_load) {
		assert(rec.nheaders < HEADERS_MAX);
		int len = snprintf(load, sizeof load, "%llu %u", ch->txn ? (unsigned long long)ch->txn->lsn : 0, (unsigned)s->f->b->part);
		rec.headers[rec.nheaders++] = (struct header){ "dmsr-load", load, (size_t)len };
	}
	return produce_record(s->k, s->f, s->k->stream, &rec, ch->rel) ? kafka_breathe(s->k) : DMSR_EFULL;
}

static int send_rows(struct kafka *k, struct flight *f, const struct change *ch, struct err *e)
{
	struct sender s = { .k = k, .f = f, .at = position_of(f->b, ch), .e = e };
	return ch->op == OP_ROWS ? change_some_rows(ch, &f->row_at, send_row, &s, e) : send_row(&s, ch);
}

bool ordered_send(struct kafka *k, struct flight *f)
{
	struct err e = { 0 };
	k->row.rel = NULL; /* the pointer may be another relation's by now */
	if (!f->at)
		f->at = f->b->first;
	while (f->at && kafka_may_send(k)) {
		const struct change *ch = f->at;
		int rc = 0;
		if (change_is_row(ch) || ch->op == OP_ROWS) {
			rc = send_rows(k, f, ch, &e);
			if (rc < 0 && kafka_may_send(k)) {
				err_prefix(&e, "%s.%s", ch->rel->schema, ch->rel->name);
				kafka_fail(k, &e);
			}
			if (rc == DMSR_AGAIN && ch->op == OP_ROWS)
				return false;
		} else if (ch->op == OP_BEGIN || ch->op == OP_COMMIT) {
			send_mark(k, f, ch);
			rc = kafka_breathe(k);
		} else {
			ch = send_word(k, f, ch);
			rc = kafka_breathe(k);
		}
		if (!kafka_may_send(k) || !ch)
			return false;
		f->at = ch->next;
		f->row_at = 0;
		if (f->at && rc == DMSR_AGAIN)
			return false;
	}
	return !f->at;
}

char *ordered_table(const void *value, size_t len)
{
	json_t *o = value ? json_loadb(value, len, 0, NULL) : NULL;
	const json_t *source = json_object_get(o, "source"), *of = source ? source : o;
	const char *schema = json_string_value(json_object_get(of, "schema")), *table = json_string_value(json_object_get(of, "table"));
	char *name = schema && table ? mem_printf("%s.%s", schema, table) : NULL;
	json_decref(o);
	return name;
}
