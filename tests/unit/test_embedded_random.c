/* test_embedded_random: the embedded streamer between a source that resumes from a real ledger and targets that resume from their own position, with sizes,
 * caps, stalls, orders of acks and kills by chance. However it goes, each target gets every change once and in order, a token is delivered once, and
 * memory is never over its cap by more than the rules say. A seed that fails is printed, and fails again. */
#include "test.h"

#include "connectors/fake/fake.h"
#include "engine/ledger.h"
#include <limits.h>

extern const struct dmsr_plugin dmsr_plugin_embedded;

enum { TXNS = 120, LOAD_BATCHES = 12, LOAD_ROWS = 30, TAKERS = 3, QUEUE = 6, STUCK = 200000 };

/* ---- what there is to be sent ---- */

struct script {
	unsigned changes[TXNS];         /* of each transaction; its LSN is (i + 1) * FAKE_LSN_STEP */
	int64_t first[TXNS + 1];        /* number of its first row; behind the last: one more than all */
	size_t pad;
};

static uint64_t lsn_of(unsigned txn) { return (uint64_t)(txn + 1) * FAKE_LSN_STEP; }

struct seen {                           /* how far a target is */
	struct position at;
	int64_t id;                     /* newest row */
	bool in_txn, in_load, is_loaded, is_load_done;
	unsigned load_rows;
};

struct lent {
	uint64_t token;
	struct seen after;
	size_t bytes;
};

struct world;
struct taker {
	struct world *w;
	struct dmsr_subscription *sub;
	struct seen durable, now;
	struct lent queue[QUEUE];
	unsigned nqueue, nconsumed;     /* of the queue: how many were said to be consumed */
	unsigned limit;                 /* of the queue */
	bool is_waiting, is_whole;      /* is_whole: commits between transactions only */
	bool consumes;
	bool can_let_go, must_let_go;
	unsigned stalled;               /* driver's turns */
};

struct world {
	struct script script;
	struct relation *rel;
	struct fake_disk *disk;
	struct position stored;         /* the ledger's, on the disk */
	struct taker takers[TAKERS];
	unsigned ntakers;
	int64_t memory, disk_max;
	size_t biggest;

	/* of a run */
	struct loop *loop;
	struct loop_task *driver;
	struct settings *settings;
	struct dmsr_instance *streamer;
	struct ledger *ledger;
	bool is_ready, is_stopped, has_failed, is_last, may_produce;
	unsigned turns, until;
	struct batch *pending;
	unsigned load_at, txn;          /* next batch of the load: 0 LOAD_BEGIN, then rows, then LOAD_END, LOAD_DONE; next transaction */
	uint64_t event;                 /* of which so many changes are out */
	bool is_begun;
	uint64_t delivered;             /* how many tokens */
};

static unsigned chance(unsigned n) { return (unsigned)random() % n; }
static const struct dmsr_streamer *streamer(void) { return dmsr_plugin_embedded.streamer; }

/* ---- the source ---- */

static struct batch *load_batch(struct world *w)
{
	struct batch *b = batch_new();
	unsigned at = w->load_at++;
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = 1 });
	if (at == 0)
		batch_append(b, OP_LOAD_BEGIN, w->rel);
	else if (at <= LOAD_BATCHES)
		fake_add_rows(b, w->rel, (int64_t)(at - 1) * LOAD_ROWS + 1, LOAD_ROWS);
	else
		batch_append(b, at == LOAD_BATCHES + 1 ? OP_LOAD_END : OP_LOAD_DONE, at == LOAD_BATCHES + 1 ? w->rel : NULL);
	return b;
}

static void add_change(struct world *w, struct batch *b)
{
	const struct script *s = &w->script;
	if (!b->txn || b->txn->lsn != lsn_of(w->txn))
		batch_txn(b, &(struct txn){ .lsn = lsn_of(w->txn) });
	if (!w->is_begun) {
		batch_append(b, OP_BEGIN, NULL);
		w->is_begun = true;
	}
	if (w->event < s->changes[w->txn]) {
		enum change_op op = chance(5) ? OP_CREATE : OP_DELETE;
		fake_add_row(b, op, w->rel, w->event + 1, s->first[w->txn] + (int64_t)w->event, chance((unsigned)s->pad));
		w->event++;
		b->end = fake_position(lsn_of(w->txn), w->event);
		b->more = true;
		return;
	}
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	b->end = fake_position(lsn_of(w->txn), POSITION_WHOLE);
	b->more = false;
	w->txn++;
	w->event = 0;
	w->is_begun = false;
}

/* The next batch, cut where it happens to be; NULL: all is out. */
static struct batch *next_batch(struct world *w)
{
	if (w->load_at < LOAD_BATCHES + 3)
		return load_batch(w);
	if (w->txn == TXNS)
		return NULL;
	struct batch *b = batch_new();
	if (!w->is_begun && w->txn && !chance(6)) {
		batch_append(b, OP_HEARTBEAT, NULL);
		b->end = (struct position){ POSITION_LSN, FAKE_SERVER_ID, lsn_of(w->txn - 1) + FAKE_LSN_STEP / 2, 0, lsn_of(w->txn - 1) + FAKE_LSN_STEP / 2 };
		return b;
	}
	for (unsigned n = 1 + chance(30); n && w->txn < TXNS; n--)
		add_change(w, b);
	return b;
}

/* Everything that the stored position covers is out already. */
static void resume_source(struct world *w)
{
	const struct position *from = &w->stored;
	w->txn = 0;
	w->event = 0;
	w->is_begun = false;
	w->load_at = LOAD_BATCHES + 3;
	for (unsigned i = 0; i < w->ntakers; i++) {
		if (!w->takers[i].durable.is_load_done && w->load_at > LOAD_BATCHES + 2)
			w->load_at = LOAD_BATCHES + 2;
		if (!w->takers[i].durable.is_loaded)
			w->load_at = 0;
	}
	while (w->txn < TXNS && position_covers(from, lsn_of(w->txn), POSITION_WHOLE))
		w->txn++;
	if (w->txn < TXNS && from->kind && from->lsn == lsn_of(w->txn) && from->event) {
		w->event = from->event;
		w->is_begun = true;
	}
}

static size_t cost_of(struct world *w, const struct batch *b)
{
	size_t bytes = sizeof *b + 256 + b->arena.bytes;
	w->biggest = bytes > w->biggest ? bytes : w->biggest;
	return bytes;
}

static void produce(struct world *w)
{
	if (!w->pending) {
		if (!(w->pending = next_batch(w)))
			return;
		assert_int_equal(ledger_received(w->ledger, &w->pending->end, w->pending->bytes, &w->pending->token, NULL), 0);
	}
	uint64_t token = w->pending->token;
	cost_of(w, w->pending);
	if (streamer()->produce(w->streamer, w->pending) == DMSR_OK) {
		w->pending = NULL;
		ledger_streamed(w->ledger, token);
	} else {
		w->may_produce = false;
	}
}

static void on_stored(void *arg) { ledger_stored(((struct world *)arg)->ledger); }

static void store(struct world *w)
{
	struct position p;
	if (!ledger_wants_store(w->ledger))
		return;
	ledger_store_begin(w->ledger, &p);
	if (position_is_none(&p))
		ledger_stored(w->ledger);
	else
		fake_disk_put(w->disk, &w->stored, &p, on_stored, w);
}

/* ---- a target ---- */

static void see(struct world *w, struct seen *s, const struct change *ch)
{
	switch ((enum change_op)ch->op) {
	case OP_BEGIN:
		assert_false(s->in_txn);
		s->in_txn = true;
		return;
	case OP_COMMIT:
		assert_true(s->in_txn);
		s->in_txn = false;
		return;
	case OP_CREATE: case OP_DELETE:
		assert_true(s->in_txn && s->is_loaded);
		assert_int_equal(fake_row_id(ch), s->id + 1);
		assert_true(ch->rel == w->rel || relation_is_same(ch->rel, w->rel));
		s->id++;
		return;
	case OP_LOAD_BEGIN:
		s->in_load = true;
		s->load_rows = 0;
		return;
	case OP_ROWS:
		assert_true(s->in_load);
		s->load_rows += ch->u.rows.rows;
		return;
	case OP_LOAD_END:
		assert_int_equal(s->load_rows, LOAD_BATCHES * LOAD_ROWS);
		s->in_load = false;
		s->is_loaded = true;
		return;
	case OP_LOAD_DONE:
		assert_true(s->is_loaded);
		s->is_load_done = true;
		return;
	case OP_HEARTBEAT:
		return;
	case OP_UPDATE: case OP_READ: case OP_TRUNCATE: case OP_MESSAGE: case OP_SCHEMA: case OP_LOAD_PART:
		break;
	}
	fail();
}

static enum dmsr_verdict on_deliver(void *ctx, const struct batch *b, uint64_t token)
{
	struct taker *t = ctx;
	if (t->nqueue == t->limit || t->stalled || !chance(20)) {
		t->is_waiting = true;
		return DMSR_AGAIN;
	}
	assert_false(t->is_waiting);
	for (const struct change *ch = b->first; ch; ch = ch->next)
		see(t->w, &t->now, ch);
	if (!position_is_none(&b->end)) {
		assert_true(position_compare(&b->end, &t->now.at) >= 0);
		t->now.at = b->end;
	}
	if (t->nqueue)
		assert_true(token > t->queue[t->nqueue - 1].token);
	t->queue[t->nqueue++] = (struct lent){ token, t->now, cost_of(t->w, b) };
	return DMSR_OK;
}

static void on_let_go(void *ctx)
{
	struct taker *t = ctx;
	assert_true(t->nqueue && t->nconsumed < t->nqueue);
	t->must_let_go = true;
}

static void consume(struct taker *t, unsigned n)
{
	streamer()->consumed(t->sub, t->queue[n - 1].token);
	for (t->nconsumed = n; n;)
		t->queue[--n].bytes = 0;
}

/* How many of the queue may be committed. */
static unsigned committable(const struct taker *t)
{
	unsigned n = t->nqueue;
	while (n && (t->queue[n - 1].after.in_load || (t->is_whole && t->queue[n - 1].after.in_txn)))
		n--;
	return n;
}

static void commit(struct taker *t)
{
	unsigned n = committable(t);
	if (!n)
		return;
	n = t->w->is_last ? n : 1 + chance(n);
	while (t->queue[n - 1].after.in_load || (t->is_whole && t->queue[n - 1].after.in_txn))
		if (!--n)
			return;
	t->durable = t->queue[n - 1].after;
	streamer()->commit(t->sub, t->queue[n - 1].token);
	t->nqueue -= n;
	t->nconsumed -= n < t->nconsumed ? n : t->nconsumed;
	memmove(t->queue, t->queue + n, t->nqueue * sizeof *t->queue);
}

/* A queue that is full of one transaction: it is put together. */
static void squeeze(struct taker *t)
{
	if (t->nqueue < t->limit || committable(t))
		return;
	size_t bytes = 0;
	if (t->consumes)
		consume(t, t->nqueue);
	for (unsigned i = 0; i < t->nqueue; i++)
		bytes += t->queue[i].bytes;
	t->queue[0] = t->queue[t->nqueue - 1];
	t->queue[0].bytes = bytes;
	t->nqueue = 1;
	t->nconsumed = t->consumes;
}

static void taker_step(struct taker *t)
{
	if (t->stalled) {
		t->stalled--;
		return;
	}
	if (!t->w->is_last && !chance(400))
		t->stalled = chance(600);
	squeeze(t);
	if (t->must_let_go && chance(2)) {
		t->must_let_go = false;
		if (t->nconsumed < t->nqueue)
			consume(t, t->nqueue);
	}
	if (t->consumes && t->nconsumed < t->nqueue && chance(2))
		consume(t, t->nconsumed + 1);
	if (!chance(3))
		commit(t);
	if (t->is_waiting && t->nqueue < t->limit && !chance(3)) {
		t->is_waiting = false;
		streamer()->consumer_resume(t->sub);
	}
}

/* ---- a run ---- */

static void on_ready(void *ctx)
{
	struct world *w = ctx;
	w->is_ready = w->may_produce = true;
}

static void on_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct world *w = ctx;
	assert_null(e);
	assert_true(ledger_delivered(w->ledger, token));
	w->delivered++;
}

static void on_resume(void *ctx) { ((struct world *)ctx)->may_produce = true; }
static void on_failed(void *ctx, const struct err *e)
{
	assert_string_equal(e->id, "state.full");
	((struct world *)ctx)->has_failed = true;
}
static void on_stopped(void *ctx) { ((struct world *)ctx)->is_stopped = true; }

static bool is_done(struct world *w)
{
	struct fake_disk_stat d;
	struct dmsr_streamer_stat s;
	fake_disk_stat(w->disk, &d);
	streamer()->stat(w->streamer, &s);
	for (unsigned i = 0; i < w->ntakers; i++)
		if (w->takers[i].durable.id != w->script.first[TXNS] - 1 || !w->takers[i].durable.is_load_done || w->takers[i].durable.in_txn)
			return false;
	return w->txn == TXNS && !w->pending && !s.batches && !d.entries && ledger_is_idle(w->ledger);
}

static void tell(struct world *w)
{
	struct dmsr_streamer_stat s;
	streamer()->stat(w->streamer, &s);
	fprintf(stderr, "\nmemory %llu of %llu, log %llu of %llu, %llu batches; load %u txn %u, waits %d, may produce %d, idle %d\n",
		(unsigned long long)s.memory_bytes, (unsigned long long)s.memory_limit_bytes, (unsigned long long)s.log_bytes,
		(unsigned long long)s.log_limit_bytes, (unsigned long long)s.batches, w->load_at, w->txn, w->pending != NULL, w->may_produce,
		ledger_is_idle(w->ledger));
	for (unsigned i = 0; i < w->ntakers; i++) {
		const struct taker *t = &w->takers[i];
		fprintf(stderr, "target %u: row %lld (durable %lld) queue %u of %u, waits %d, whole %d, consumes %d (lets go %d), in load %d, txn %d\n",
			i, (long long)t->now.id, (long long)t->durable.id, t->nqueue, t->limit, t->is_waiting, t->is_whole, t->consumes, t->can_let_go,
			t->now.in_load, t->now.in_txn);
	}
}

static size_t held(const struct taker *t)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < t->nqueue; i++)
		bytes += t->queue[i].bytes;
	return bytes;
}

/* What the cap does not count: what those have that cannot be asked to let go. */
static size_t uncounted(const struct world *w)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < w->ntakers; i++)
		if (!w->takers[i].can_let_go)
			bytes += held(&w->takers[i]);
	return bytes;
}

static void check_memory(struct world *w, size_t more)
{
	struct dmsr_streamer_stat s;
	streamer()->stat(w->streamer, &s);
	/* The cap and a batch, and two for each target: one that is lent to it, one on its way from the log. */
	size_t most = (size_t)w->memory + (1 + 2 * w->ntakers) * w->biggest + more;
	if (s.memory_bytes <= most)
		return;
	tell(w);
	fail_msg("memory %llu over %zu, cap %lld, biggest %zu", (unsigned long long)s.memory_bytes, most, (long long)w->memory, w->biggest);
}

static void on_driver(void *arg)
{
	struct world *w = arg;
	if (w->has_failed || (!w->is_last && w->turns == w->until) || (w->is_last && is_done(w))) {
		loop_stop(w->loop);
		return;
	}
	if (++w->turns > STUCK) {
		tell(w);
		fail_msg("stuck");
	}
	size_t before = uncounted(w);
	if (w->may_produce && chance(3))
		produce(w);
	for (unsigned i = 0; i < w->ntakers; i++)
		taker_step(&w->takers[i]);
	if (!chance(4))
		store(w);
	size_t now = uncounted(w);
	check_memory(w, now > before ? now : before); /* it has its turn yet to take back what was given back */
	loop_task_post(w->driver);
}

static void open_run(struct world *w)
{
	struct dmsr_streamer_host host = {
		.ctx = w,
		.ready = on_ready,
		.delivered = on_delivered,
		.resume = on_resume,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	w->loop = loop_new();
	w->driver = loop_task_new(w->loop, "test", on_driver, w);
	w->settings = settings_new();
	settings_put_int(w->settings, "memory", w->memory);
	settings_put_int(w->settings, "disk", w->disk_max);
	w->ledger = ledger_new(&w->stored);
	w->is_ready = w->is_stopped = w->has_failed = w->may_produce = false;
	w->turns = 0;
	resume_source(w);
	fake_disk_fail(w->disk, UINT_MAX);
	host.env = (struct dmsr_env){ .loop = w->loop, .job = "shop", .uid = "u", .name = "streamer" };
	host.log = fake_disk_open(w->disk, w->loop);
	assert_int_equal(streamer()->open(w->settings, &host, &w->streamer, NULL), 0);
	for (unsigned i = 0; i < w->ntakers; i++) {
		struct taker *t = &w->takers[i];
		t->w = w;
		t->now = t->durable;
		t->now.in_load = false;
		t->nqueue = t->nconsumed = 0;
		t->is_waiting = false;
		t->stalled = w->is_last || chance(2) ? 0 : chance(1000);
		t->limit = 2 + chance(QUEUE - 1);
		t->consumes = chance(3);
		t->can_let_go = t->consumes && chance(3);
		t->must_let_go = false;
		const struct dmsr_consumer c = { .ctx = t, .deliver = on_deliver, .let_go = t->can_let_go ? on_let_go : NULL };
		t->sub = streamer()->subscribe(w->streamer, "target", &(struct dmsr_stand){ .at = t->durable.at }, &c);
	}
	streamer()->start(w->streamer);
}

static bool is_over(void *arg)
{
	const struct world *w = arg;
	return w->is_stopped || w->has_failed;
}

static void close_run(struct world *w, bool stop)
{
	if (stop && !w->has_failed) {
		streamer()->stop(w->streamer);
		assert_true(fake_run(w->loop, is_over, w, FAKE_LONG_MS));
	}
	batch_free(w->pending);
	w->pending = NULL;
	fake_disk_close(w->disk);
	streamer()->close(w->streamer);
	loop_task_free(w->driver);
	ledger_free(w->ledger);
	settings_free(w->settings);
	loop_free(w->loop);
}

static void run(struct world *w, bool is_last)
{
	w->is_last = is_last;
	w->until = 20 + chance(1500);
	open_run(w);
	if (!is_last && !chance(6))
		fake_disk_fail(w->disk, chance(60));
	loop_task_post(w->driver);
	loop_run(w->loop);
	close_run(w, !is_last && !chance(3));
	fake_disk_slow(w->disk, chance(3));
}

static void play(unsigned seed)
{
	struct world *w = calloc(1, sizeof *w);
	static const int64_t disks[] = { 0, 200 << 10, 1 << 20, 1 << 30 };
	srandom(seed);
	w->rel = fake_relation("t", 1);
	w->disk = fake_disk_new();
	w->ntakers = 1 + chance(TAKERS);
	for (unsigned i = 0; i < w->ntakers; i++)
		w->takers[i].is_whole = chance(2);
	w->script.pad = 1 + chance(4000);
	w->script.first[0] = 1;
	for (unsigned i = 0; i < TXNS; i++) {
		w->script.changes[i] = chance(30) ? 1 + chance(8) : 100 + chance(100);
		w->script.first[i + 1] = w->script.first[i] + w->script.changes[i];
	}
	for (unsigned runs = 1 + chance(8); runs; runs--) {
		w->memory = (64 << 10) + chance(chance(2) ? 200 << 10 : 2 << 20);
		w->disk_max = disks[chance(4)];
		run(w, runs == 1);
	}
	for (unsigned i = 0; i < w->ntakers; i++)
		assert_int_equal(w->takers[i].durable.id, w->script.first[TXNS] - 1);
	assert_int_equal(w->stored.lsn, lsn_of(TXNS - 1));
	fake_disk_free(w->disk);
	relation_unref(w->rel);
	free(w);
}

static void every_change_once_and_in_order(void **state)
{
	const char *one = getenv("SEED");
	(void)state;
	if (one) {
		play((unsigned)strtoul(one, NULL, 10));
		return;
	}
	const char *many = getenv("SEEDS");
	unsigned n = many ? (unsigned)strtoul(many, NULL, 10) : 60;
	for (unsigned seed = 1; seed <= n; seed++) {
		fprintf(stderr, "\rseed %u ", seed);
		play(seed);
	}
	fprintf(stderr, "\n");
}

RUN_TESTS(cmocka_unit_test(every_change_once_and_in_order))
