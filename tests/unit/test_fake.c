/* test_fake: a scripted source, the embedded streamer and recording targets on a small pipeline of their own: what the fakes promise the tests of the
 * engine, and what the streamer promises through them: after any kill each server has each change once. */
#include "test.h"

#include "connectors/fake/fake.h"
#include "engine/ledger.h"
#include <limits.h>

extern const struct dmsr_plugin dmsr_plugin_embedded;

enum { TARGETS = 2 };

struct pipe;
struct end {
	struct pipe *p;
	struct fake_server *server;
	struct dmsr_instance *target;
	struct settings *settings;
	struct dmsr_subscription *sub;
	bool is_ready, is_stopped;
	struct position at;             /* what it said in ready */
	uint64_t loaded, rows, letters; /* counts of applied */
};

struct pipe {
	struct loop *loop;
	struct fake_disk *disk;
	struct position stored, promised; /* on the disk; what the source may be told */
	struct fake_script *script;
	struct ledger *ledger;
	struct dmsr_instance *source, *streamer;
	struct settings *source_settings, *streamer_settings;
	struct end ends[TARGETS];
	unsigned nends;
	enum dmsr_mode mode;
	struct dmsr_loaded loaded[8];
	size_t nloaded;
	bool load_done, has_note, is_source_started, is_source_stopped, is_finished;
	struct err error;               /* of whoever failed first */
	unsigned progress;
};

static const struct dmsr_streamer *streamer(void) { return dmsr_plugin_embedded.streamer; }
static const struct dmsr_source *source(void) { return dmsr_plugin_fake.source; }
static const struct dmsr_target *target(void) { return dmsr_plugin_fake.target; }

static void fail_with(struct pipe *p, const struct err *e)
{
	if (!p->error.code)
		p->error = *e;
}

/* ---- the source's host ---- */

static enum dmsr_verdict on_emit(void *ctx, struct batch *b)
{
	struct pipe *p = ctx;
	if (!b->token)
		assert_int_equal(ledger_received(p->ledger, &b->end, b->bytes, &b->token, NULL), 0);
	uint64_t token = b->token;
	enum dmsr_verdict v = streamer()->produce(p->streamer, b);
	if (v == DMSR_OK)
		ledger_streamed(p->ledger, token);
	return v;
}

static void on_progress(void *ctx, const struct dmsr_load_progress *g)
{
	assert_true(g->rows <= g->rows_total);
	((struct pipe *)ctx)->progress++;
}

static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct pipe *p = ctx;
	assert_string_equal(key, "started");
	assert_string_equal(value, "1");
	p->has_note = true;
	done(arg, NULL);
}

static const char *on_note_get(void *ctx, const char *key)
{
	assert_string_equal(key, "started");
	return ((struct pipe *)ctx)->has_note ? "1" : NULL;
}

static void on_finished(void *ctx) { ((struct pipe *)ctx)->is_finished = true; }
static void on_failed(void *ctx, const struct err *e) { fail_with(ctx, e); }
static void on_source_stopped(void *ctx) { ((struct pipe *)ctx)->is_source_stopped = true; }

/* ---- the streamer's host ---- */

static void store(struct pipe *p);

static void on_stored(void *arg)
{
	struct pipe *p = arg;
	struct position c;
	ledger_stored(p->ledger);
	if (ledger_confirm(p->ledger, &c)) {
		p->promised = c;
		source()->confirm(p->source, &c);
	}
	store(p);
}

static void store(struct pipe *p)
{
	struct position at;
	if (!ledger_wants_store(p->ledger))
		return;
	ledger_store_begin(p->ledger, &at);
	fake_disk_put(p->disk, &p->stored, position_is_none(&at) ? &p->stored : &at, on_stored, p);
}

static void on_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct pipe *p = ctx;
	assert_null(e);
	assert_true(ledger_delivered(p->ledger, token));
	store(p);
}

static void on_streamer_ready(void *ctx)
{
	struct pipe *p = ctx;
	struct dmsr_source_start start = { .mode = p->mode, .from = p->stored, .loaded = p->loaded, .nloaded = p->nloaded, .load_done = p->load_done };
	p->is_source_started = true;
	source()->start(p->source, &start);
}

static void on_streamer_resume(void *ctx) { source()->resume(((struct pipe *)ctx)->source); }
static void on_nothing(void *ctx) { (void)ctx; }

/* ---- a consumer, and its target's host ---- */

static enum dmsr_verdict on_deliver(void *ctx, const struct batch *b, uint64_t token)
{
	return target()->apply(((struct end *)ctx)->target, b, token);
}
static void on_drained(void *ctx) { target()->flush(((struct end *)ctx)->target); }

/* A table is loaded when all have it, and so is the load done. */
static void start_streamer(struct pipe *p)
{
	for (unsigned i = 0; i < p->nends; i++)
		if (!p->ends[i].is_ready)
			return;
	for (unsigned i = 0; i < p->nends; i++) {
		struct end *d = &p->ends[i];
		const struct dmsr_consumer c = { .ctx = d, .deliver = on_deliver, .drained = on_drained };
		d->sub = streamer()->subscribe(p->streamer, "target", &(struct dmsr_stand){ .at = d->at }, &c);
	}
	const struct fake_server *v = p->ends[0].server;
	p->nloaded = 0;
	p->load_done = true;
	for (unsigned i = 0; i < p->nends; i++)
		p->load_done &= p->ends[i].server->load_done;
	for (size_t k = 0; k < v->ntables; k++) {
		bool all = true;
		for (unsigned i = 0; i < p->nends; i++) {
			const struct fake_table *t = fake_server_table(p->ends[i].server, v->tables[k].name);
			all &= t && t->is_loaded;
		}
		if (all)
			p->loaded[p->nloaded++] = (struct dmsr_loaded){ v->tables[k].schema, v->tables[k].name, v->tables[k].at };
	}
	streamer()->start(p->streamer);
}

static void on_target_ready(void *ctx, const struct position *at, bool keeps, const struct dmsr_loaded *loaded, size_t nloaded, bool load_done)
{
	struct end *d = ctx;
	assert_int_equal(keeps, d->server->keeps);
	assert_int_equal(nloaded, keeps ? d->server->ntables : 0);
	assert_true(!nloaded || loaded);
	assert_int_equal(load_done, keeps && d->server->load_done);
	d->is_ready = true;
	d->at = keeps ? *at : d->server->applied; /* as if stored together */
	start_streamer(d->p);
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct end *d = ctx;
	for (size_t i = 0; i < n; i++) {
		d->loaded += counts[i].loaded;
		d->rows += counts[i].created + counts[i].updated + counts[i].deleted;
		d->letters += counts[i].dead;
	}
	streamer()->commit(d->sub, token);
}

static void on_consumed(void *ctx, uint64_t token) { streamer()->consumed(((struct end *)ctx)->sub, token); }
static void on_target_resume(void *ctx) { streamer()->consumer_resume(((struct end *)ctx)->sub); }
static void on_target_failed(void *ctx, const struct err *e) { fail_with(((struct end *)ctx)->p, e); }
static void on_target_stopped(void *ctx) { ((struct end *)ctx)->is_stopped = true; }
static void on_letter(void *ctx, const struct dmsr_dead_letter *l, void (*done)(void *arg, const struct err *e), void *arg)
{
	const struct end *d = ctx;
	assert_int_equal(fake_row_id(l->change), d->server->bad_row);
	assert_string_equal(l->error->id, "target.constraint");
	done(arg, NULL);
}

/* ---- a run ---- */

static void open_target(struct end *d, const char *name)
{
	struct dmsr_target_host host = {
		.ctx = d,
		.ready = on_target_ready,
		.applied = on_applied,
		.consumed = on_consumed,
		.resume = on_target_resume,
		.dead_letter = on_letter,
		.failed = on_target_failed,
		.stopped = on_target_stopped,
	};
	d->is_ready = d->is_stopped = false;
	d->settings = settings_new();
	settings_put_str(d->settings, "server", name);
	host.env = (struct dmsr_env){ .loop = d->p->loop, .job = "shop", .uid = "u", .name = name };
	assert_int_equal(target()->open(d->settings, &host, &d->target, NULL), 0);
	target()->start(d->target);
}

static void open_source(struct pipe *p)
{
	struct dmsr_source_host host = {
		.ctx = p,
		.emit = on_emit,
		.progress = on_progress,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.finished = on_finished,
		.failed = on_failed,
		.stopped = on_source_stopped,
	};
	p->source_settings = settings_new();
	settings_put_str(p->source_settings, "script", "shop");
	host.env = (struct dmsr_env){ .loop = p->loop, .job = "shop", .uid = "u", .name = "source" };
	assert_int_equal(source()->open(p->source_settings, NULL, &host, &p->source, NULL), 0);
}

static void open_run(struct pipe *p, int64_t memory, int64_t disk)
{
	static const char *const names[TARGETS] = { "dw", "lake" };
	struct dmsr_streamer_host host = {
		.ctx = p,
		.ready = on_streamer_ready,
		.delivered = on_delivered,
		.resume = on_streamer_resume,
		.failed = on_failed,
		.stopped = on_nothing,
	};
	p->loop = loop_new();
	p->error = (struct err){ 0 };
	p->is_source_started = p->is_source_stopped = p->is_finished = false;
	p->ledger = ledger_new(&p->stored);
	p->streamer_settings = settings_new();
	settings_put_int(p->streamer_settings, "memory", memory);
	settings_put_int(p->streamer_settings, "disk", disk);
	host.env = (struct dmsr_env){ .loop = p->loop, .job = "shop", .uid = "u", .name = "streamer" };
	host.log = fake_disk_open(p->disk, p->loop);
	assert_int_equal(streamer()->open(p->streamer_settings, &host, &p->streamer, NULL), 0);
	open_source(p);
	for (unsigned i = 0; i < p->nends; i++)
		open_target(&p->ends[i], names[i]);
}

static void kill_run(struct pipe *p)
{
	fake_disk_close(p->disk);
	source()->close(p->source);
	streamer()->close(p->streamer);
	for (unsigned i = 0; i < p->nends; i++) {
		target()->close(p->ends[i].target);
		settings_free(p->ends[i].settings);
	}
	settings_free(p->source_settings);
	settings_free(p->streamer_settings);
	ledger_free(p->ledger);
	loop_free(p->loop);
}

static bool may_confirm(void *arg, const struct position *c)
{
	const struct pipe *p = arg;
	return position_compare(c, &p->stored) <= 0 && position_compare(c, &p->promised) <= 0;
}

static struct pipe *pipe_new(unsigned nends, enum dmsr_mode mode)
{
	struct pipe *p = calloc(1, sizeof *p);
	p->disk = fake_disk_new();
	p->script = fake_script_new("shop");
	fake_script_durable(p->script, may_confirm, p);
	p->nends = nends;
	p->mode = mode;
	for (unsigned i = 0; i < nends; i++) {
		p->ends[i].p = p;
		p->ends[i].server = fake_server_new(i ? "lake" : "dw");
	}
	return p;
}

static void pipe_free(struct pipe *p)
{
	for (unsigned i = 0; i < p->nends; i++)
		fake_server_free(p->ends[i].server);
	fake_script_free(p->script);
	fake_disk_free(p->disk);
	free(p);
}

/* A shop: two tables loaded, then changes. */
static void fill(struct fake_script *s)
{
	struct relation *a = fake_relation("a", 1), *b = fake_relation("b", 2), *b2 = fake_relation("b", 3);
	fake_script_load(s, a, 5, 100);
	fake_script_load(s, b, 1, 1);
	fake_script_load_done(s);
	for (int i = 0; i < 20; i++) {
		fake_script_txn(s, OP_CREATE, a, 3, 2, 3000);
		fake_script_txn(s, OP_UPDATE, b, 1, 1, 100);
		fake_script_heartbeat(s);
	}
	fake_script_txn(s, OP_CREATE, a, 200, 7, 2000);
	fake_script_schema(s, b, b2);
	fake_script_txn(s, OP_DELETE, b2, 10, 3, 100);
	fake_script_heartbeat(s);
	relation_unref(a);
	relation_unref(b);
	relation_unref(b2);
}

static bool is_all_there(void *arg)
{
	const struct pipe *p = arg;
	for (unsigned i = 0; i < p->nends; i++) {
		const char *why = fake_server_check(p->ends[i].server, p->script);
		if (why && strncmp(why, "missing", 7) != 0)
			fail_msg("%s", why);
		if (why)
			return false;
	}
	return ledger_is_idle(p->ledger);
}

static bool has_failed(void *arg) { return ((struct pipe *)arg)->error.code != 0; }

/* ---- the tests ---- */

static void a_script_arrives(void **state)
{
	struct pipe *p = pipe_new(2, DMSR_FULL_LOAD_AND_CDC);
	struct fake_script_stat s;
	(void)state;
	fill(p->script);
	p->ends[1].server->keeps = false;
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, is_all_there, p, FAKE_LONG_MS));
	fake_settle(p->loop);
	fake_script_stat(p->script, &s);
	assert_true(s.is_at_end);
	assert_int_equal(s.confirmed.lsn, s.end_lsn);
	assert_int_equal(s.rows, 501 + 20 * 4 + 200 + 1 + 10);
	assert_true(p->has_note);
	assert_int_equal(p->progress, 5 + 1 + 1 + 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(p->ends[i].loaded, 501);
		assert_int_equal(p->ends[i].rows, s.rows - 501);
		assert_int_equal(p->ends[i].server->ddl, 1);
		assert_int_equal(fake_server_table(p->ends[i].server, "a")->loads, 1);
		assert_true(p->ends[i].server->flushes > 0);
	}
	source()->stop(p->source);
	target()->stop(p->ends[0].target);
	fake_settle(p->loop);
	assert_true(p->is_source_stopped && p->ends[0].is_stopped);
	kill_run(p);
	fake_script_stat(p->script, &s);
	assert_int_equal(s.live, 0);
	pipe_free(p);
}

static void modes_send_their_part(void **state)
{
	(void)state;
	for (int mode = DMSR_FULL_LOAD; mode <= DMSR_CDC; mode++) {
		struct pipe *p = pipe_new(1, (enum dmsr_mode)mode);
		fill(p->script);
		open_run(p, 1 << 20, 0);
		assert_true(fake_run(p->loop, is_all_there, p, FAKE_LONG_MS));
		fake_settle(p->loop);
		assert_int_equal(p->is_finished, mode == DMSR_FULL_LOAD);
		assert_int_equal(p->ends[0].loaded, mode == DMSR_FULL_LOAD ? 501 : 0);
		assert_int_equal(p->ends[0].rows, mode == DMSR_CDC ? 291 : 0);
		kill_run(p);
		pipe_free(p);
	}
}

static void a_gate_holds_until_it_is_opened(void **state)
{
	struct pipe *p = pipe_new(1, DMSR_CDC);
	struct relation *a = fake_relation("a", 1);
	(void)state;
	fake_script_txn(p->script, OP_CREATE, a, 3, 3, 10);
	fake_script_gate(p->script);
	fake_script_txn(p->script, OP_CREATE, a, 3, 3, 10);
	open_run(p, 1 << 20, 0);
	fake_settle(p->loop);
	assert_int_equal(p->ends[0].server->nrows, 3);
	fake_script_open_gate(p->script);
	fake_settle(p->loop);
	assert_int_equal(p->ends[0].server->nrows, 6);
	/* paused it sends nothing; what is added to the script then comes later */
	source()->pause(p->source);
	fake_script_txn(p->script, OP_CREATE, a, 1, 1, 10);
	fake_settle(p->loop);
	assert_int_equal(p->ends[0].server->nrows, 6);
	source()->resume(p->source);
	fake_settle(p->loop);
	assert_null(fake_server_check(p->ends[0].server, p->script));
	kill_run(p);
	relation_unref(a);
	pipe_free(p);
}

static void it_fails_where_it_should(void **state)
{
	struct pipe *p = pipe_new(1, DMSR_CDC);
	struct fake_server *v = p->ends[0].server;
	struct relation *a = fake_relation("a", 1);
	struct err e = { 0 };
	(void)state;
	err_set(&e, DMSR_EFATAL, "slot.lost", "the slot is gone");
	fake_script_txn(p->script, OP_CREATE, a, 3, 3, 10);
	fake_script_fail(p->script, &e, 1);
	fake_script_txn(p->script, OP_CREATE, a, 3, 1, 10);
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, has_failed, p, FAKE_LONG_MS));
	assert_string_equal(p->error.id, "slot.lost");
	kill_run(p);
	/* next time it goes on; then the target fails at its second batch, and dies with its commit durable */
	v->fail_at = 2;
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, has_failed, p, FAKE_LONG_MS));
	assert_string_equal(p->error.id, "target.fake");
	assert_true(p->error.retriable);
	assert_int_equal(v->nrows, 3);
	kill_run(p);
	v->die_at = 1;
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, has_failed, p, FAKE_LONG_MS));
	assert_int_equal(v->nrows, 6);
	kill_run(p);
	v->refuses_start = true;
	v->fail_with = e;
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, has_failed, p, FAKE_LONG_MS));
	assert_string_equal(p->error.id, "slot.lost");
	assert_false(p->is_source_started);
	kill_run(p);
	v->refuses_start = false;
	open_run(p, 1 << 20, 0);
	assert_true(fake_run(p->loop, is_all_there, p, FAKE_LONG_MS));
	kill_run(p);
	relation_unref(a);
	pipe_free(p);
}

static void a_server_stalls_and_holds_back(void **state)
{
	struct pipe *p = pipe_new(1, DMSR_CDC);
	struct fake_server *v = p->ends[0].server;
	struct relation *a = fake_relation("a", 1);
	(void)state;
	for (int i = 0; i < 30; i++)
		fake_script_txn(p->script, OP_CREATE, a, 1, 1, 10);
	v->stalls = true;
	open_run(p, 1 << 20, 0);
	fake_settle(p->loop);
	assert_int_equal(v->nrows, 0);
	assert_true(v->refused > 0);
	v->stalls = false;
	v->commit_every = 7;
	v->bad_row = 12;
	fake_server_go(v);
	fake_settle(p->loop);
	assert_int_equal(v->nrows, 29);
	assert_int_equal(v->dead, 1);
	assert_int_equal(p->ends[0].letters, 1);
	assert_in_range(v->commits, 4, 6);
	assert_non_null(fake_server_check(v, p->script)); /* row 13 stands where 12 should */
	assert_int_not_equal(strncmp(fake_server_check(v, p->script), "missing", 7), 0);
	kill_run(p);
	relation_unref(a);
	pipe_free(p);
}

static void fail_stuck(struct pipe *p, unsigned seed)
{
	struct fake_script_stat f;
	struct dmsr_streamer_stat s;
	struct ledger_stat l;
	streamer()->stat(p->streamer, &s);
	fake_script_stat(p->script, &f);
	ledger_stat(p->ledger, &l);
	fprintf(stderr, "seed %u: %s; at end %d; memory %llu of %llu, log %llu, %llu batches; received %llu delivered %llu stored %llu\n", seed,
		p->error.message, f.is_at_end, (unsigned long long)s.memory_bytes, (unsigned long long)s.memory_limit_bytes,
		(unsigned long long)s.log_bytes, (unsigned long long)s.batches, (unsigned long long)l.received.token,
		(unsigned long long)l.delivered.token, (unsigned long long)l.stored.token);
	for (unsigned i = 0; i < p->nends; i++) {
		const char *why = fake_server_check(p->ends[i].server, p->script);
		fprintf(stderr, "%u: %s; commits every %u, silent %d\n", i, why ? why : "complete", p->ends[i].server->commit_every,
			p->ends[i].server->is_silent);
	}
	fail_msg("stuck");
}

/* The whole of it, killed again and again. */
static void play(unsigned seed)
{
	struct pipe *p = pipe_new(1 + (unsigned)random() % TARGETS, DMSR_FULL_LOAD_AND_CDC);
	fill(p->script);
	for (unsigned i = 0; i < p->nends; i++)
		p->ends[i].server->keeps = random() % 2;
	fake_disk_slow(p->disk, (unsigned)random() % 4);
	for (unsigned kills = 1 + (unsigned)random() % 12; kills; kills--) {
		for (unsigned i = 0; i < p->nends; i++) {
			struct fake_server *v = p->ends[i].server;
			v->stalls = kills > 1 && random() % 4 == 0;
			v->queue = 1 + (unsigned)random() % 8;
			v->commit_every = (unsigned)random() % 10;
			v->fail_at = kills > 1 && random() % 2 ? (unsigned)random() % 60 : 0;
			/* one that does not keep its position may die before the commit, not behind it */
			v->die_at = kills > 1 && v->keeps && random() % 2 ? (unsigned)random() % 20 : 0;
			v->is_silent = random() % 3 == 0;
		}
		open_run(p, 65536 + random() % 500000, random() % 3 ? 1 << 30 : random() % 200000);
		if (kills == 1) {
			if (!fake_run(p->loop, is_all_there, p, FAKE_LONG_MS))
				fail_stuck(p, seed);
		} else {
			fake_run(p->loop, has_failed, p, (unsigned)random() % 15);
		}
		kill_run(p);
	}
	pipe_free(p);
}

static void nothing_is_lost_or_doubled(void **state)
{
	const char *many = getenv("SEEDS");
	unsigned n = many ? (unsigned)strtoul(many, NULL, 10) : 40;
	(void)state;
	for (unsigned seed = 1; seed <= n; seed++) {
		srandom(seed);
		play(seed);
	}
}

/* ---- questions ---- */

struct answer {
	bool came;
	size_t n;
	struct err error;
};
static void take(void *ctx, size_t n, const struct err *e)
{
	struct answer *a = ctx;
	a->came = true;
	a->n = n;
	if (e)
		a->error = *e;
}
static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	(void)checks;
	take(ctx, n, e);
}
static void on_discovered(void *ctx, struct relation *const *rels, size_t n, const struct err *e)
{
	(void)rels;
	take(ctx, n, e);
}
static void on_dropped(void *ctx, const char *const *left, size_t n, const struct err *e)
{
	(void)left;
	take(ctx, n, e);
}

/* ---- a target by itself ---- */

static void alone_ready(void *ctx, const struct position *at, bool keeps, const struct dmsr_loaded *loaded, size_t n, bool load_done)
{
	(void)ctx, (void)at, (void)keeps, (void)loaded, (void)n, (void)load_done;
}

static void alone_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	uint64_t *applied = ctx;
	(void)counts, (void)n;
	assert_int_equal(token, ++*applied);
}

/* A word, or n rows, of the load of rel at lsn; op OP_HEARTBEAT: of the stream. */
static struct batch *of_load(enum change_op op, struct relation *rel, uint64_t lsn, uint32_t part, uint32_t n)
{
	struct batch *b = batch_new();
	batch_txn(b, &(struct txn){ .lsn = lsn });
	b->is_load = op != OP_HEARTBEAT;
	b->part = part;
	if (op == OP_ROWS)
		fake_add_rows(b, rel, 1, n);
	else
		batch_append(b, op, rel)->u.load.parts = op == OP_LOAD_BEGIN ? n : 0;
	return b;
}

/* Loads of several tables and parts in any order; those that are not open mean nothing. */
static void loads_come_mixed(void **state)
{
	struct loop *loop = loop_new();
	struct fake_server *v = fake_server_new("alone");
	struct settings *s = settings_new();
	struct relation *a = fake_relation("a", 1), *b = fake_relation("b", 2);
	struct dmsr_instance *t;
	uint64_t applied = 0;
	const struct dmsr_target_host host = { .ctx = &applied, .env = { .loop = loop }, .ready = alone_ready, .applied = alone_applied };
	struct batch *sent[] = {
		of_load(OP_ROWS, a, 100, 1, 9),
		of_load(OP_LOAD_BEGIN, a, 100, 0, 2),
		of_load(OP_LOAD_BEGIN, b, 100, 0, 0),
		of_load(OP_ROWS, a, 100, 1, 3),
		of_load(OP_ROWS, b, 100, 0, 5),
		of_load(OP_ROWS, a, 100, 2, 4),
		of_load(OP_LOAD_PART, a, 100, 2, 0),
		of_load(OP_LOAD_END, b, 100, 0, 0),
		of_load(OP_ROWS, b, 100, 0, 50),
		of_load(OP_LOAD_PART, a, 100, 1, 0),
		of_load(OP_LOAD_END, a, 100, 0, 0),
		of_load(OP_LOAD_BEGIN, a, 200, 0, 0),
		of_load(OP_ROWS, a, 200, 0, 2),
		of_load(OP_LOAD_BEGIN, b, 300, 0, 0),
		of_load(OP_LOAD_END, a, 200, 0, 0),
		of_load(OP_HEARTBEAT, NULL, 0, 0, 0),
		of_load(OP_LOAD_END, b, 300, 0, 0),
		of_load(OP_LOAD_DONE, NULL, 300, 0, 0),
	};
	size_t n = sizeof sent / sizeof *sent;
	(void)state;
	v->queue = 100;
	settings_put_str(s, "server", "alone");
	assert_int_equal(target()->open(s, &host, &t, NULL), 0);
	target()->start(t);
	fake_settle(loop);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(target()->apply(t, sent[i], i + 1), DMSR_OK);
	fake_settle(loop);
	assert_int_equal(applied, n);
	assert_int_equal(v->ntables, 2);
	assert_int_equal(fake_server_table(v, "a")->rows, 7);
	assert_int_equal(fake_server_table(v, "a")->at.lsn, 100);
	assert_int_equal(fake_server_table(v, "b")->rows, 5);
	assert_int_equal(fake_server_table(v, "b")->at.lsn, 100);
	assert_true(v->load_done);
	target()->close(t);
	for (size_t i = 0; i < n; i++)
		batch_free(sent[i]);
	relation_unref(a);
	relation_unref(b);
	settings_free(s);
	fake_server_free(v);
	loop_free(loop);
}

static void questions_are_answered_as_told(void **state)
{
	const struct dmsr_probe *probe = dmsr_plugin_fake.source_probe;
	const struct dmsr_check checks[] = { { "fake.wal", DMSR_CHECK_ERROR, "wal_level", "is wrong", "set it", false } };
	struct fake_answers answers = { .checks = checks, .nchecks = 1 };
	struct answer a = { 0 };
	struct dmsr_probe_host host = { .ctx = &a, .checked = on_checked, .discovered = on_discovered, .dropped = on_dropped };
	struct settings *s = settings_new();
	struct dmsr_instance *i;
	(void)state;
	host.env.loop = loop_new();
	settings_put_str(s, "script", "shop");
	assert_int_equal(probe->check(s, NULL, DMSR_CDC, &host, &i, NULL), 0);
	assert_false(a.came);
	fake_settle(host.env.loop);
	assert_true(a.came && a.n == 0 && !a.error.code);
	probe->close(i);
	fake_answers_set("shop", &answers);
	probe->check(s, NULL, DMSR_CDC, &host, &i, NULL);
	fake_settle(host.env.loop);
	assert_int_equal(a.n, 1);
	probe->close(i);
	err_set(&answers.error, DMSR_EAUTH, "source.auth", "no");
	probe->drop(s, &host, &i, NULL);
	fake_settle(host.env.loop);
	assert_string_equal(a.error.id, "source.auth");
	assert_int_equal(answers.dropped, 1);
	probe->close(i);
	answers.is_mute = true;
	a.came = false;
	probe->discover(s, NULL, &host, &i, NULL);
	fake_settle(host.env.loop);
	assert_false(a.came);
	assert_int_equal(answers.live, 1);
	probe->close(i);
	assert_int_equal(answers.live, 0);
	fake_answers_set("shop", NULL);
	settings_free(s);
	loop_free(host.env.loop);
}

RUN_TESTS(
	cmocka_unit_test(a_script_arrives),
	cmocka_unit_test(modes_send_their_part),
	cmocka_unit_test(a_gate_holds_until_it_is_opened),
	cmocka_unit_test(it_fails_where_it_should),
	cmocka_unit_test(a_server_stalls_and_holds_back),
	cmocka_unit_test(nothing_is_lost_or_doubled),
	cmocka_unit_test(loads_come_mixed),
	cmocka_unit_test(questions_are_answered_as_told))
