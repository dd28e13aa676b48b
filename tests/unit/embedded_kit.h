/* embedded_kit: an instance of the embedded streamer on a fake disk, between a producer and consumers that do what they are told. */
#ifndef DMSR_TESTS_UNIT_EMBEDDED_KIT_H
#define DMSR_TESTS_UNIT_EMBEDDED_KIT_H
#include "test.h"

#include "connectors/fake/fake.h"

extern const struct dmsr_plugin dmsr_plugin_embedded;

enum { STAGE_TOKENS = 4096, STAGE_TAKERS = 3 };

enum { KB = 1024, MB = 1024 * 1024 };

struct stage;
struct taker {
	struct stage *stage;
	struct dmsr_subscription *sub;
	struct position from;
	bool refuses;                   /* says AGAIN */
	uint64_t limit;                 /* or does so when it holds so many that it has not consumed; 0: none */
	bool is_full;
	bool can_let_go, must_let_go;
	uint64_t consumed;
	uint64_t last;                  /* newest token that it was lent */
	uint64_t committed;
	const struct batch *newest;
	int64_t ids[STAGE_TOKENS];      /* of the rows, as they came */
	size_t nids;
	unsigned drained, words, rows_loaded;
};

struct stage {
	struct loop *loop;
	struct fake_disk *disk;
	struct settings *settings;
	struct dmsr_instance *streamer;
	struct taker takers[STAGE_TAKERS];
	unsigned ntakers;
	struct relation *rel;
	bool is_ready, is_stopped, has_failed, is_in_verb;
	struct err error;
	unsigned resumed;
	uint64_t produced;              /* newest token */
	uint64_t lsn;                   /* of the newest transaction */
	bool delivered[STAGE_TOKENS];
	uint64_t ndelivered;
};

static inline const struct dmsr_streamer *streamer(void) { return dmsr_plugin_embedded.streamer; }

static inline void stage_on_ready(void *ctx) { ((struct stage *)ctx)->is_ready = true; }

static inline void stage_on_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct stage *st = ctx;
	assert_false(st->is_in_verb);
	assert_null(e);
	assert_in_range(token, 1, st->produced);
	assert_false(st->delivered[token]);
	st->delivered[token] = true;
	st->ndelivered++;
}

static inline void stage_on_resume(void *ctx) { ((struct stage *)ctx)->resumed++; }

static inline void stage_on_failed(void *ctx, const struct err *e)
{
	struct stage *st = ctx;
	assert_false(st->has_failed || st->is_in_verb);
	st->has_failed = true;
	st->error = *e;
}

static inline void stage_on_stopped(void *ctx) { ((struct stage *)ctx)->is_stopped = true; }

static inline enum dmsr_verdict taker_deliver(void *ctx, const struct batch *b, uint64_t token)
{
	struct taker *t = ctx;
	assert_false(t->stage->is_in_verb);
	assert_true(token > t->last);
	t->is_full = t->limit && token > t->consumed + t->limit;
	if (t->refuses || t->is_full)
		return DMSR_AGAIN;
	t->last = token;
	t->must_let_go = false; /* it may be asked again */
	t->newest = b;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (change_is_row(ch))
			t->ids[t->nids++] = fake_row_id(ch);
		t->words += ch->op == OP_LOAD_DONE;
		t->rows_loaded += ch->op == OP_ROWS ? ch->u.rows.rows : 0;
	}
	return DMSR_OK;
}

static inline void taker_let_go(void *ctx)
{
	struct taker *t = ctx;
	assert_false(t->stage->is_in_verb || t->must_let_go);
	t->must_let_go = true;
}

static inline void taker_drained(void *ctx) { ((struct taker *)ctx)->drained++; }

/* A run begins: on the disk as it is, takers at their from. */
static inline void stage_open(struct stage *st, unsigned ntakers, int64_t memory, int64_t disk)
{
	struct dmsr_streamer_host host = {
		.ctx = st,
		.ready = stage_on_ready,
		.delivered = stage_on_delivered,
		.resume = stage_on_resume,
		.failed = stage_on_failed,
		.stopped = stage_on_stopped,
	};
	st->loop = loop_new();
	if (!st->disk)
		st->disk = fake_disk_new();
	if (!st->rel)
		st->rel = fake_relation("t", 1);
	st->settings = settings_new();
	settings_put_int(st->settings, "memory", memory);
	settings_put_int(st->settings, "disk", disk);
	st->ntakers = ntakers;
	st->is_ready = st->is_stopped = st->has_failed = false;
	st->produced = st->ndelivered = 0;
	memset(st->delivered, 0, sizeof st->delivered);
	host.env = (struct dmsr_env){ .loop = st->loop, .job = "shop", .uid = "u", .name = "streamer" };
	host.log = fake_disk_open(st->disk, st->loop);
	assert_int_equal(streamer()->open(st->settings, &host, &st->streamer, NULL), 0);
	for (unsigned i = 0; i < ntakers; i++) {
		struct taker *t = &st->takers[i];
		const struct dmsr_consumer c = { .ctx = t, .deliver = taker_deliver, .drained = taker_drained, .let_go = t->can_let_go ? taker_let_go : NULL };
		t->stage = st;
		t->last = t->committed = t->consumed = 0;
		t->is_full = t->must_let_go = false;
		t->sub = streamer()->subscribe(st->streamer, "target", &(struct dmsr_stand){ .at = t->from }, &c);
	}
	st->is_in_verb = true;
	streamer()->start(st->streamer);
	st->is_in_verb = false;
}

/* A kill: nothing is finished. */
static inline void stage_kill(struct stage *st)
{
	fake_disk_close(st->disk);
	streamer()->close(st->streamer);
	settings_free(st->settings);
	loop_free(st->loop);
}

static inline void stage_end(struct stage *st)
{
	stage_kill(st);
	fake_disk_free(st->disk);
	relation_unref(st->rel);
	free(st);
}

static inline struct stage *stage_new(unsigned ntakers, int64_t memory, int64_t disk)
{
	struct stage *st = calloc(1, sizeof *st);
	stage_open(st, ntakers, memory, disk);
	return st;
}

static inline void stage_turn(struct stage *st) { fake_settle(st->loop); }

static inline enum dmsr_verdict stage_produce(struct stage *st, struct batch *b)
{
	b->token = st->produced + 1;
	st->is_in_verb = true;
	enum dmsr_verdict v = streamer()->produce(st->streamer, b);
	st->is_in_verb = false;
	if (v == DMSR_OK)
		st->produced++;
	return v;
}

/* A whole transaction at the next LSN, of rows first_id ... */
static inline struct batch *stage_txn(struct stage *st, int64_t first_id, unsigned n, size_t pad)
{
	struct batch *b = batch_new();
	st->lsn += FAKE_LSN_STEP;
	b->end = fake_position(st->lsn, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = st->lsn });
	batch_append(b, OP_BEGIN, NULL);
	for (unsigned i = 0; i < n; i++)
		fake_add_row(b, OP_CREATE, st->rel, i + 1, first_id + i, pad);
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	return b;
}

/* One row of a transaction that goes on: number event of it. */
static inline struct batch *stage_part(struct stage *st, uint64_t event, int64_t id, size_t pad)
{
	struct batch *b = batch_new();
	if (event == 1)
		st->lsn += FAKE_LSN_STEP;
	b->end = fake_position(st->lsn, event);
	b->more = true;
	batch_txn(b, &(struct txn){ .lsn = st->lsn });
	if (event == 1)
		batch_append(b, OP_BEGIN, NULL);
	fake_add_row(b, OP_CREATE, st->rel, event, id, pad);
	return b;
}

static inline struct batch *stage_commit_word(struct stage *st)
{
	struct batch *b = batch_new();
	b->end = fake_position(st->lsn, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = st->lsn });
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	return b;
}

static inline void taker_resume(struct taker *t)
{
	t->refuses = t->is_full = false;
	t->stage->is_in_verb = true;
	streamer()->consumer_resume(t->sub);
	t->stage->is_in_verb = false;
}

static inline void taker_consumed(struct taker *t, uint64_t token)
{
	t->consumed = token > t->consumed ? token : t->consumed;
	t->stage->is_in_verb = true;
	streamer()->consumed(t->sub, token);
	t->stage->is_in_verb = false;
	if (t->is_full)
		taker_resume(t);
}

static inline void taker_commit(struct taker *t, uint64_t token)
{
	t->committed = token;
	t->consumed = token > t->consumed ? token : t->consumed;
	t->stage->is_in_verb = true;
	streamer()->commit(t->sub, token);
	t->stage->is_in_verb = false;
	if (t->is_full)
		taker_resume(t);
}

static inline struct dmsr_streamer_stat stage_stat(struct stage *st)
{
	struct dmsr_streamer_stat s;
	streamer()->stat(st->streamer, &s);
	return s;
}

static inline uint64_t stage_entries(struct stage *st)
{
	struct fake_disk_stat s;
	fake_disk_stat(st->disk, &s);
	return s.entries;
}

/* ---- what stories are made of ---- */

static inline void ids_are(const struct taker *t, int64_t first, int64_t last)
{
	assert_int_equal(t->nids, last - first + 1);
	for (size_t i = 0; i < t->nids; i++)
		assert_int_equal(t->ids[i], first + (int64_t)i);
}

/* Fills the memory, and more, from row `first` on; what was taken at last. */
static inline int64_t fill(struct stage *st, int64_t first, int64_t last)
{
	struct batch *b = NULL;
	for (int64_t id = first; id <= last; id++) {
		if (!b)
			b = stage_txn(st, id, 1, 20 * KB);
		for (int tries = 0; tries < 10 && stage_produce(st, b) != DMSR_OK; tries++)
			stage_turn(st);
		if (st->produced != (uint64_t)id) {
			st->lsn -= FAKE_LSN_STEP;
			batch_free(b);
			return id - 1;
		}
		b = NULL;
	}
	return last;
}

/* Everybody takes and commits what there is. */
static inline void take_all(struct stage *st)
{
	for (bool any = true; any;) {
		any = false;
		stage_turn(st);
		for (unsigned i = 0; i < st->ntakers; i++) {
			struct taker *t = &st->takers[i];
			any |= t->committed != t->last;
			if (t->last)
				taker_commit(t, t->last);
		}
	}
}

static inline void produce(struct stage *st, struct batch *b)
{
	for (int tries = 0; stage_produce(st, b) != DMSR_OK; tries++) {
		assert_true(tries < 10);
		stage_turn(st);
	}
}

static inline struct batch *load_batch(struct stage *st, int word, unsigned rows)
{
	struct batch *b = batch_new();
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = 5 });
	if (word)
		batch_append(b, (enum change_op)word, word == OP_LOAD_DONE ? NULL : st->rel);
	if (rows)
		fake_add_rows(b, st->rel, 1, rows);
	return b;
}

#endif
