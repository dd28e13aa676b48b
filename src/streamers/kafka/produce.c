/* produce: batches become records, and delivery reports become delivered(). A batch is encoded in slices; its bytes are given back as soon as all of
 * it is copied into records, be they librdkafka's or at a gate. These lie in memory of the flight's, which librdkafka reads until the last is acknowledged: of
 * a row it is given nothing to copy, or to free, but the key and the small headers. */
#include "words.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORD_OVERHEAD = 256 }; /* librdkafka's own, headers included */

/* Of many rows, or of a few: what it takes is more than the bytes of its values. */
static size_t batch_bytes(const struct batch *b)
{
	const size_t own = b->arena.bytes > b->bytes ? b->arena.bytes : b->bytes;
	return own + sizeof *b + b->caprels * sizeof *b->rels + b->nslots * sizeof *b->slots;
}

static void take_memory(struct kafka *k, struct flight *f, size_t n)
{
	f->bytes += n;
	k->memory += n;
}

static void give_memory(struct kafka *k, struct flight *f, size_t n)
{
	assert(f->bytes >= n);
	f->bytes -= n;
	k->memory -= n;
}

/* What it takes until it is acknowledged: its own memory, and librdkafka's. */
bool produce_record(struct kafka *k, struct flight *f, const struct topic *t, const struct record *r, const struct relation *rel)
{
	const size_t had = f->records.bytes;
	const size_t len = r->key_len + r->len + r->headers_len;
	bool is_small = len <= k->record_max || t->is_compacted; /* those for DMSR itself may be as big as the margin allows */
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
	if (is_small)
		code = gate_pass(k, t, f, r);
	if (!code) {
		f->pending++;
		k->nrecords += t == k->stream;
		exact_record(k);
		take_memory(k, f, (t->is_compacted ? len : f->records.bytes - had + r->key_len + r->headers_len) + RECORD_OVERHEAD);
		return true;
	}
	if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
		refused_as_too_large(k, t, rel, len);
	else
		refused(k, code, t->name);
	return false;
}

/* ---- the layout ordered ---- */

static bool send_part(struct kafka *k, struct flight *f, const char *data, size_t len, const char *position, uint32_t part, uint32_t parts)
{
	char of[32], run[RUN_TEXT_MAX];
	struct record r = { .value = data, .len = len, .nheaders = 2, .headers = { { "dmsr-pos", position, strlen(position) }, { .name = "dmsr-run" } } };
	r.headers[1].value = stamp_run(k, run, &r.headers[1].len);
	if (parts > 1)
		r.headers[r.nheaders++] = (struct header){ "dmsr-part", of, (size_t)snprintf(of, sizeof of, "%u/%u", part, parts) };
	return produce_record(k, f, k->stream, &r, NULL);
}

bool produce_parts(struct kafka *k, struct flight *f, const char *data, size_t len, const struct position *end)
{
	char position[POSITION_TEXT_MAX];
	const uint32_t parts = (uint32_t)((len + k->record_max - 1) / k->record_max);
	position_format(end, position);
	for (size_t i = f->row_at; i < parts && !kafka_waits_for_first(k); i++) {
		size_t at = i * k->record_max, n = len - at < k->record_max ? len - at : k->record_max;
		if (!send_part(k, f, data + at, n, position, (uint32_t)i + 1, parts))
			return false;
		f->row_at = i + 1;
		failpoint("kafka.between-parts");
	}
	return f->row_at == parts;
}

/* False: not all of it yet, or failed. */
static bool send_whole(struct kafka *k, struct flight *f)
{
	struct err e = { 0 };
	buf_reset(&k->pack);
	if (batch_pack(f->b, &k->pack)) {
		err_set(&e, DMSR_EFULL, "kafka.record-too-large", "a batch of %zu bytes is more than a stream's record can be", f->b->bytes);
		kafka_fail(k, &e);
		return false;
	}
	bool is_whole = produce_parts(k, f, k->pack.data, k->pack.len, &f->b->end);
	if (k->pack.cap > 4 * k->record_max)
		buf_fini(&k->pack);
	return is_whole;
}

/* ---- the layout table ---- */

struct sender {
	struct kafka *k;
	struct flight *f;
	struct err *e;
};

/* is_old: of a key that changed, the record with the row that was. */
static bool send_record(struct kafka *k, struct flight *f, const struct change *ch, const struct dmsr_record *r, bool is_old)
{
	const struct position at = { .kind = POSITION_LSN, .server = f->b->end.server, .lsn = ch->txn ? ch->txn->lsn : 0, .event = ch->event };
	/* Without a key nothing else keeps the order of a table's changes. */
	const int32_t partition = r->key ? RD_KAFKA_PARTITION_UA : 0;
	struct record rec = { .key = r->key, .key_len = r->key_len, .value = r->value, .len = r->value_len, .partition = partition, .nheaders = 2,
		.headers = { { .name = "dmsr-pos" }, { "dmsr-schema", stamp_schema(&k->row, ch->rel), 16 } } };
	rec.headers[0].value = stamp_position(&k->row, &at, &rec.headers[0].len);
	if (k->is_indexed && change_is_row(ch) && r->value)
		rec.sent = words_row(k, f, ch, r->value_len, is_old);
	return produce_record(k, f, k->row.topic, &rec, ch->rel);
}

static int send_row(void *arg, const struct change *ch)
{
	struct sender *s = arg;
	struct dmsr_record records[DMSR_RECORDS_MAX];
	struct known_row *known = &s->k->row;
	stamp_schema(known, ch->rel);
	if (!known->topic)
		known->topic = topics_of(s->k, ch->rel);
	if (!known->topic || !extent_is_good(s->k, known->topic))
		return DMSR_EINVAL;
	int n = s->k->codec_ops->encode(s->k->codec, ch, records, DMSR_RECORDS_MAX, s->e);
	for (int i = 0; i < n; i++)
		if (!send_record(s->k, s->f, ch, &records[i], i < n - 1 && records[n - 1].value))
			return DMSR_EFULL;
	return n < 0 ? n : kafka_breathe(s->k);
}

/* A load stands for all of the table. Who keeps the topic as a table must drop what it has of it: keys that went while nobody read have no record. */
static int send_anew(struct sender *s, const struct change *ch)
{
	struct change gone = { .op = OP_TRUNCATE, .rel = ch->rel, .txn = ch->txn };
	struct topic *t = topics_of(s->k, ch->rel);
	if (!t)
		return DMSR_EINVAL;
	enum topic_past past = t->past;
	t->past = past == PAST_NONE ? PAST_ROWS : past;
	if (!ch->u.load.since)
		extent_begin(s->k, t);
	return past == PAST_ROWS && !ch->u.load.since ? send_row(s, &gone) : 0;
}

/* Some of the batch's changes. True: all are sent. */
static bool send_rows(struct kafka *k, struct flight *f)
{
	struct err e = { 0 };
	struct sender s = { k, f, &e };
	k->row.rel = NULL; /* the pointer may be another relation's by now */
	if (!f->at)
		f->at = f->b->first;
	while (f->at && kafka_may_send(k)) {
		const struct change *ch = f->at;
		int rc = 0;
		if (ch->op == OP_ROWS)
			rc = change_some_rows(ch, &f->row_at, send_row, &s, &e);
		else if (change_is_row(ch) || ch->op == OP_TRUNCATE)
			rc = send_row(&s, ch);
		else if (ch->op == OP_LOAD_BEGIN)
			rc = send_anew(&s, ch);
		if (rc < 0 && kafka_may_send(k)) {
			err_prefix(&e, "%s.%s", ch->rel->schema, ch->rel->name);
			kafka_fail(k, &e);
		}
		if (rc < 0)
			return false;
		if (rc == DMSR_AGAIN && ch->op == OP_ROWS)
			return false;
		f->at = ch->next;
		f->row_at = 0;
		if (f->at && rc == DMSR_AGAIN)
			return false;
	}
	return !f->at;
}

/* ---- in ---- */

static bool send_schemas(struct kafka *k, struct flight *f)
{
	for (uint32_t i = 0; i < f->b->nrels; i++)
		if (!schema_send(k, f, f->b->rels[i]))
			return false;
	return true;
}

enum dmsr_verdict produce_take(struct kafka *k, struct batch *b)
{
	if (k->state != KAFKA_RUNNING || k->memory >= k->memory_max) {
		k->said_again = true;
		return DMSR_AGAIN;
	}
	struct flight *f = mem_zalloc(sizeof *f);
	*f = (struct flight){ .self.f = f, .token = b->token, .b = b };
	arena_init(&f->records, 0);
	take_memory(k, f, batch_bytes(b) + sizeof *f);
	if (k->last)
		k->last->next = f;
	else
		k->first = f;
	k->last = f;
	if (!k->encoding)
		k->encoding = f;
	if (k->is_indexed && !k->indexing)
		k->indexing = f;
	if (kafka_may_send(k) && exact_takes(k)) /* before its turn comes: the shapes of many tables are acknowledged together */
		send_schemas(k, f);
	kafka_wake(k);
	return DMSR_OK;
}

static void tell(struct kafka *k, uint64_t token)
{
	struct tokens *t = &k->told;
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->all = mem_realloc_array(t->all, t->cap, sizeof *t->all);
	}
	t->all[t->n++] = token;
	if (k->exact.state != EXACT_OFF)
		return;
	t->committed = t->n;
	kafka_save_soon(k);
}

/* Is all of it acknowledged? Then it is told. The list is left in order: it goes from its head on. */
static void settle(struct kafka *k, struct flight *f)
{
	if (f->is_sent && !f->pending && f->words)
		kafka_wake(k); /* now its words are sent */
	if (!f->is_sent || f->pending || f->words)
		return;
	tell(k, f->token);
	give_memory(k, f, f->bytes);
	arena_fini(&f->records);
	while (k->first && k->first->is_sent && !k->first->pending && !k->first->words) {
		struct flight *done = k->first;
		k->first = done->next;
		if (!k->first)
			k->last = NULL;
		free(done);
	}
}

static void send_flights(struct kafka *k)
{
	while (k->encoding && kafka_may_send(k) && exact_takes(k) && gate_takes(k)) {
		struct flight *f = k->encoding;
		if (k->is_indexed && !f->is_begun && exact_is_due(k)) /* which waits for words, and those for rows */
			return;
		if (k->is_table && !topics_ready(k, f->b))
			return;
		f->is_begun = true;
		if (!send_schemas(k, f) || k->unknown_shapes)
			return;
		if (k->is_ordered && !f->in_stream) {
			if (kafka_waits_for_first(k) || !(k->is_json ? ordered_send(k, f) : send_whole(k, f)))
				return;
			f->in_stream = true;
			f->at = NULL;
			f->row_at = 0;
		}
		if (k->is_table && !f->in_tables && kafka_may_send(k)) {
			if (!send_rows(k, f))
				return;
			f->in_tables = true;
			f->at = NULL;
			f->row_at = 0;
			if (k->is_indexed && !words_keep(k, f))
				return;
		}
		if (kafka_may_send(k) && !transactions_send(k, f))
			return;
		if (!kafka_may_send(k))
			return;
		f->is_sent = true;
		exact_took(k, f);
		give_memory(k, f, batch_bytes(f->b));
		batch_free(f->b);
		f->b = NULL;
		k->encoding = f->next;
		failpoint("kafka.sent");
		settle(k, f); /* one without records */
		if (exact_is_due(k))
			return;
		if (k->encoding && kafka_slice_is_over(k)) {
			kafka_wake(k);
			return;
		}
	}
}

void produce_turn(struct kafka *k)
{
	gate_turn(k);
	send_flights(k);
	words_turn(k);
	exact_turn(k);
}

/* ---- back ---- */

/* offset -1: the broker had it already, and does not say where. */
static void acknowledged(struct kafka *k, const rd_kafka_message_t *m, int64_t offset)
{
	struct sent *sent = m->_private;
	struct flight *f = sent->f;
	assert(f->pending);
	failpoint("kafka.acknowledged");
	if (k->stream && m->rkt == k->stream->rkt) {
		if (offset >= 0 && offset < k->end) {
			struct err e = { 0 };
			err_set(&e, DMSR_EFATAL, "kafka.stream-lost", "topic %s: a new record has offset %lld, but it ended at %lld before: the brokers have "
				"lost records that they had acknowledged",
				k->stream->name, (long long)offset, (long long)k->end);
			err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it; and see to the brokers' replication and "
				"unclean.leader.election", k->host.env.job);
			kafka_fail(k, &e);
			return;
		}
		if (!k->has_first)
			kafka_wake(k);
		k->has_first = true;
		k->end = offset < 0 ? k->end + 1 : offset + 1;
	}
	gate_acknowledged(k, m);
	extent_acknowledged(k, rd_kafka_topic_opaque(m->rkt), m->partition, offset);
	if (sent != &f->self)
		words_acknowledged(k, sent, m, offset);
	f->pending--;
	if (m->rkt == k->schemas->rkt) {
		failpoint("kafka.shape-acknowledged");
		k->unknown_shapes--;
		kafka_wake(k);
	}
	if (k->exact.state == EXACT_OFF)
		k->visible = k->end;
	else if (!--k->exact.unacknowledged)
		kafka_wake(k);
	if (f == &k->exact.own)
		known_acknowledged(k, offset);
	settle(k, f);
}

/* Those of an event are of one request. Where the answer to that has no offset librdkafka counts from -1 on. */
void produce_reports(struct kafka *k, rd_kafka_event_t *ev)
{
	const rd_kafka_message_t *m;
	bool has_offsets = true;
	enum { TIMED = 16 };
	for (unsigned n = 0; k->state == KAFKA_RUNNING && (m = rd_kafka_event_message_next(ev)); n++) {
		if (!n)
			has_offsets = m->offset >= 0;
		if (n % TIMED == 0) /* librdkafka looks at the clock for each */
			gate_took(m);
		if (m->err)
			refused_by_broker(k, m, ev);
		else
			acknowledged(k, m, has_offsets ? m->offset : -1);
	}
}

static void drop_flights(void *arg)
{
	struct flight *f = arg, *next;
	for (; f; f = next) {
		next = f->next;
		arena_fini(&f->records);
		free(f);
	}
}

bool produce_is_idle(const struct kafka *k) { return !k->first; }

void produce_free(struct kafka *k)
{
	for (struct flight *f = k->first; f; f = f->next) {
		batch_free(f->b);
		f->b = NULL;
		words_drop(f);
	}
	if (k->first)
		client_keep(k->producer, drop_flights, k->first);
	k->first = k->last = k->encoding = k->indexing = NULL;
	buf_fini(&k->pack);
	free(k->told.all);
	k->told = (struct tokens){ 0 };
}
