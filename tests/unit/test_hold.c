/* test_hold: changes before a streamer that is given a load, with stalls, orders of acks, and kills by chance. However it goes, what the streamer has in the
 * end is the rows, and behind them each change that is not in them, in order and at least once; exactly once where it knows itself what it has. A seed
 * that fails is printed, and fails again. */
#include "test.h"

#include "connectors/fake/fake.h"
#include "engine/hold.h"

extern const struct dmsr_plugin dmsr_plugin_embedded;

enum { TXNS = 150, CHANGES = 3, LOAD_ROWS = 3, PENDING = 8, LOG = 20000, TOKENS = 4096, STUCK = 100000, MEMORY = 20000 };
enum { ENTRY_ROWS, ENTRY_LOADED, ENTRY_CHANGE };

static uint64_t lsn_of(uint64_t txn) { return (txn + 1) * FAKE_LSN_STEP; }

/* A record of the streamer's: for good, unless a kill cuts it off. */
struct entry {
	uint8_t kind;
	int64_t id;                     /* of a change: its number, from 1 */
	struct position at;
	uint64_t own;                   /* token of its batch; 0: of an earlier run */
};

struct pending {
	struct batch *b;
	uint64_t own;
	size_t upto;                    /* entries */
};

struct world {
	uint64_t random;
	struct loop *loop;
	struct fake_disk *disk;
	struct settings *settings;
	struct relation *rel;
	struct hold *hold;
	bool knows;                     /* the streamer does, what it has */
	bool keeps_nothing, forgets_late;
	size_t pad;                     /* bytes of each row; 0: by chance */

	/* the streamer */
	struct dmsr_streamer_host host;
	struct loop_task *ready;
	struct entry log[LOG];
	size_t n;
	struct pending pending[PENDING];
	size_t npending;
	uint64_t acked, stored; /* newest own tokens */
	struct {
		int way;
		uint64_t token;
	} given[TOKENS]; /* by its own token: what the pipeline gave it, and calls it; way -1: out of the log */
	int giving;
	bool said_again, feeds;

	/* the pipeline */
	bool is_ready, is_load_sent;
	uint64_t produced[HOLD_WAYS], prefix[HOLD_WAYS];
	bool delivered[HOLD_WAYS][TOKENS];
	struct position ends[TOKENS];   /* of changes */
	struct position durable;        /* the source goes on behind that */
	char ended[POSITION_TEXT_MAX];  /* the note; empty: none */
	bool follows, says_follows;     /* the other: as it is stored; as it is to be */
	struct loop_task *noted;
	void (*note_done)(void *arg, const struct err *e);
	void *note_arg;
	unsigned silent;                /* so many steps the source says nothing */
	uint64_t snapshot, loaded;      /* of the load that is under way; that is there, by the state; 0: none */
	unsigned step;                  /* of the load */
	uint64_t txn, change;           /* what comes next of the stream */
	uint64_t newest;                /* transaction that was ever read */
	unsigned kills;
	struct err *failure;            /* NULL: none is to come */
};

static unsigned chance(struct world *w, unsigned n)
{
	w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(w->random >> 33) % n;
}

/* ---- the streamer ---- */

static struct world *world;             /* whose streamer it is: its open has no other way to know */

static int streamer_open(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)s, (void)e;
	world->host = *host;
	*out = (struct dmsr_instance *)(void *)world;
	return 0;
}

static struct world *of(struct dmsr_instance *i) { return (struct world *)(void *)i; }

static void on_ready_task(void *arg)
{
	struct world *w = arg;
	w->host.ready(w->host.ctx);
}

static void streamer_start(struct dmsr_instance *i) { loop_task_post(of(i)->ready); }

static bool streamer_keeps(const struct dmsr_instance *i) { return !((const struct world *)(const void *)i)->keeps_nothing; }

static void streamer_known(struct dmsr_instance *i, struct dmsr_stand *out)
{
	const struct world *w = of(i);
	for (size_t n = w->n; n-- > 0 && w->knows;)
		if (w->log[n].kind == ENTRY_CHANGE) {
			out->at = w->log[n].at;
			return;
		}
}

static void write_entry(struct world *w, uint8_t kind, const struct change *ch, const struct batch *b)
{
	struct entry *en = &w->log[w->n++];
	assert_true(w->n < LOG);
	*en = (struct entry){ .kind = kind, .own = b->token };
	if (kind != ENTRY_CHANGE)
		return;
	en->id = fake_row_id(ch);
	en->at = fake_position(ch->txn->lsn, ch->event);
}

static enum dmsr_verdict streamer_produce(struct dmsr_instance *i, struct batch *b)
{
	struct world *w = of(i);
	assert_true(w->giving >= 0 || w->follows); /* durable, before anything of the log may be the first half of a transaction */
	assert_true(w->giving >= 0 || w->feeds); /* whoever reads from the streamer is told that there is more to come */
	w->feeds = false;
	if (w->npending == PENDING || !chance(w, 5)) {
		w->said_again = true;
		return DMSR_AGAIN;
	}
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (ch->op == OP_CREATE)
			write_entry(w, ENTRY_CHANGE, ch, b);
		else if (ch->op == OP_ROWS || ch->op == OP_LOAD_END)
			write_entry(w, ch->op == OP_ROWS ? ENTRY_ROWS : ENTRY_LOADED, ch, b);
	assert_true(b->token < TOKENS);
	w->given[b->token].way = w->giving;
	w->given[b->token].token = w->giving < 0 ? 0 : w->produced[w->giving] + 1;
	w->pending[w->npending++] = (struct pending){ b, b->token, w->n };
	return DMSR_OK;
}

/* One of what is under way, mostly the oldest. */
static void acknowledge(struct world *w)
{
	size_t at = w->npending && !chance(w, 4) ? chance(w, (unsigned)w->npending) : 0;
	if (!w->npending)
		return;
	struct pending p = w->pending[at];
	memmove(&w->pending[at], &w->pending[at + 1], (--w->npending - at) * sizeof p);
	w->acked = p.own > w->acked ? p.own : w->acked;
	batch_free(p.b);
	w->host.delivered(w->host.ctx, p.own, NULL);
}

static void make_room(struct world *w)
{
	if (!w->said_again)
		return;
	w->said_again = false;
	w->host.resume(w->host.ctx);
}

static void streamer_stored(struct dmsr_instance *i, uint64_t own)
{
	struct world *w = of(i);
	assert_in_range(own, w->stored + 1, w->acked);
	while (w->stored < own) {
		w->stored++;
		if (w->given[w->stored].way >= 0)
			assert_in_range(w->given[w->stored].token, 1, w->prefix[w->given[w->stored].way]);
	}
}

static void streamer_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	(void)i;
	*out = (struct dmsr_streamer_stat){ 0 };
}

static void streamer_stop(struct dmsr_instance *i) { of(i)->host.stopped(of(i)->host.ctx); }

/* What was not acknowledged may be there or not. */
static void streamer_close(struct dmsr_instance *i)
{
	struct world *w = of(i);
	size_t keep = 0;
	for (size_t n = 0; n < w->n; n++)
		if (w->log[n].own <= w->acked)
			keep = n + 1;
	w->n = keep + chance(w, (unsigned)(w->n - keep) + 1);
	while (w->npending)
		batch_free(w->pending[--w->npending].b);
	for (size_t n = 0; n < w->n; n++)
		w->log[n].own = 0;
}

static const struct dmsr_streamer ops = {
	.open = streamer_open,
	.keeps = streamer_keeps,
	.start = streamer_start,
	.known = streamer_known,
	.stored = streamer_stored,
	.produce = streamer_produce,
	.stat = streamer_stat,
	.stop = streamer_stop,
	.close = streamer_close,
};

/* ---- the pipeline ---- */

static void on_ready(void *ctx) { ((struct world *)ctx)->is_ready = true; }

static void on_resume(void *ctx) { (void)ctx; }

static void on_stopped(void *ctx) { (void)ctx; }

static void on_failed(void *ctx, const struct err *e)
{
	const struct world *w = ctx;
	if (!w->failure)
		fail_msg("failed: %s", e->message);
	*w->failure = *e;
}

static void on_delivered(struct world *w, enum hold_way way, uint64_t token, const struct err *e)
{
	assert_null(e);
	assert_in_range(token, 1, w->produced[way]);
	assert_false(w->delivered[way][token]);
	w->delivered[way][token] = true;
}

static void on_changes_delivered(void *ctx, uint64_t token, const struct err *e) { on_delivered(ctx, HOLD_CHANGES, token, e); }
static void on_rows_delivered(void *ctx, uint64_t token, const struct err *e) { on_delivered(ctx, HOLD_ROWS, token, e); }

static bool is_old(void *arg, const struct change *ch)
{
	const struct world *w = arg;
	assert_int_not_equal(w->loaded, 0);
	return ch->rel && ch->txn->lsn < w->loaded;
}

static void on_noted(void *arg)
{
	struct world *w = arg;
	void (*done)(void *, const struct err *) = w->note_done;
	w->follows = w->says_follows;
	w->note_done = NULL;
	done(w->note_arg, NULL);
}

/* Much may happen before that. */
static void on_noted_task(void *arg)
{
	struct world *w = arg;
	if (chance(w, 3))
		loop_task_post(w->noted);
	else
		on_noted(w);
}

/* It is durable before what is stored behind it; only for the one that the log is about to follow somebody waits. */
static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct world *w = ctx;
	if (!strcmp(key, "hold.follows")) {
		assert_int_equal(!value, !done);
		for (size_t n = 0; !value && n < w->npending; n++) /* what of the log is on its way may be the end of a transaction */
			assert_int_not_equal(w->given[w->pending[n].own].way, -1);
		w->says_follows = value != NULL;
		if (!value && !w->note_done)
			w->follows = false;
		if (!value)
			return;
		assert_null(w->note_done);
		w->note_done = done;
		w->note_arg = arg;
		loop_task_post(w->noted);
		return;
	}
	assert_null(done);
	assert_string_equal(key, "hold.ended");
	snprintf(w->ended, sizeof w->ended, "%s", value);
}

static const char *on_note_get(void *ctx, const char *key)
{
	const struct world *w = ctx;
	if (!strcmp(key, "hold.follows"))
		return w->says_follows ? "yes" : NULL;
	assert_string_equal(key, "hold.ended");
	return w->ended[0] ? w->ended : NULL;
}

static bool is_early(void *arg, const struct change *ch)
{
	const struct world *w = arg;
	return ch->rel && (!w->loaded || ch->txn->lsn < w->loaded);
}

static void on_feeds(void *arg, const struct batch *b)
{
	(void)b;
	((struct world *)arg)->feeds = true;
}

static void start(struct world *w)
{
	const struct dmsr_env env = { .loop = w->loop, .job = "shop", .uid = "u", .name = "streamer" };
	struct dmsr_streamer_host hosts[HOLD_WAYS];
	const struct dmsr_streamer_host host = {
		.ctx = w,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.ready = on_ready,
		.resume = on_resume,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	hosts[HOLD_CHANGES] = hosts[HOLD_ROWS] = host;
	hosts[HOLD_CHANGES].delivered = on_changes_delivered;
	hosts[HOLD_ROWS].delivered = on_rows_delivered;
	const struct hold_parts parts = {
		.streamer = { &ops, w->settings, env },
		.log = { dmsr_plugin_embedded.streamer, w->settings, env },
		.entries = fake_disk_open(w->disk, w->loop),
		.delivered = w->durable,
		.is_old = is_old,
		.is_early = is_early,
		.feeds = on_feeds,
		.arg = w,
	};
	world = w;
	fake_disk_hold(w->disk, false);
	w->is_ready = w->is_load_sent = w->said_again = false;
	memset(w->produced, 0, sizeof w->produced);
	memset(w->prefix, 0, sizeof w->prefix);
	memset(w->delivered, 0, sizeof w->delivered);
	w->acked = w->stored = 0;
	for (size_t n = 0; n < TOKENS; n++)
		w->given[n].way = -1; /* what the hold itself answers for never comes here */
	w->giving = -1;
	assert_int_equal(hold_open(&parts, hosts, &w->hold, NULL), 0);
	hold_ops(w->hold, HOLD_CHANGES)->start(hold_instance(w->hold, HOLD_CHANGES));
	for (unsigned n = 0; !w->is_ready; n++) {
		assert_in_range(n, 0, STUCK);
		fake_run(w->loop, NULL, NULL, 0);
	}
	struct dmsr_stand known = { 0 };
	hold_ops(w->hold, HOLD_CHANGES)->known(hold_instance(w->hold, HOLD_CHANGES), &known);
	if (position_compare(&known.at, &w->durable) > 0)
		w->durable = known.at;
	w->txn = w->durable.kind ? w->durable.lsn / FAKE_LSN_STEP - 1 : 0;
	w->change = w->durable.kind ? w->durable.event : 0;
	if (w->change >= CHANGES) {
		w->txn++;
		w->change = 0;
	}
	w->silent = chance(w, 2) ? chance(w, 200) : 0;
	/* The load of a later run is newer than all that the stream was read to. */
	w->step = 0;
	w->snapshot = lsn_of(w->newest + chance(w, 10)) + FAKE_LSN_STEP / 2;
}

static void kill_it(struct world *w)
{
	fake_disk_close(w->disk);
	for (int way = 0; way < HOLD_WAYS; way++)
		hold_ops(w->hold, (enum hold_way)way)->close(hold_instance(w->hold, (enum hold_way)way));
	loop_task_cancel(w->noted);
	bool was = w->follows, may_be_lost = w->note_done && chance(w, 2);
	if (w->note_done)
		on_noted(w);
	w->follows = w->says_follows = may_be_lost ? was : w->follows;
	fake_settle(w->loop);
	w->kills++;
}

static bool produce(struct world *w, enum hold_way way, struct batch *b)
{
	b->token = w->produced[way] + 1;
	w->giving = (int)way;
	enum dmsr_verdict v = hold_ops(w->hold, way)->produce(hold_instance(w->hold, way), b);
	w->giving = -1;
	if (v != DMSR_OK) {
		batch_free(b);
		return false;
	}
	w->produced[way]++;
	assert_true(w->produced[way] + 1 < TOKENS);
	return true;
}

static void load(struct world *w)
{
	struct batch *b = batch_new();
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = w->snapshot });
	if (!w->step)
		batch_append(b, OP_LOAD_BEGIN, w->rel);
	else if (w->step <= LOAD_ROWS)
		fake_add_rows(b, w->rel, 1, 2);
	else
		batch_append(b, OP_LOAD_END, w->rel);
	w->step += produce(w, HOLD_ROWS, b);
	w->is_load_sent = w->step > LOAD_ROWS + 1;
}

static void put_changes(struct world *w, uint64_t n)
{
	struct batch *b = batch_new();
	uint64_t lsn = lsn_of(w->txn);
	batch_txn(b, &(struct txn){ .lsn = lsn });
	if (!w->change)
		batch_append(b, OP_BEGIN, NULL);
	for (uint64_t i = 0; i < n; i++)
		fake_add_row(b, OP_CREATE, w->rel, w->change + i + 1, (int64_t)(w->txn * CHANGES + w->change + i + 1),
			w->pad ? w->pad : chance(w, 3000));
	b->more = w->change + n < CHANGES;
	b->end = fake_position(lsn, w->change + n);
	if (!b->more) {
		batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
		b->end = fake_position(lsn, POSITION_WHOLE);
	}
	struct position end = b->end;
	bool is_last = !b->more;
	if (!produce(w, HOLD_CHANGES, b))
		return;
	w->ends[w->produced[HOLD_CHANGES]] = end;
	w->change = is_last ? 0 : w->change + n;
	w->newest = w->txn > w->newest ? w->txn : w->newest;
	w->txn += is_last;
}

/* Some changes of the next transaction, or all. */
static void change(struct world *w) { put_changes(w, 1 + chance(w, (unsigned)(CHANGES - w->change))); }

/* The state store: what was delivered without a gap. */
static void store(struct world *w)
{
	for (int way = 0; way < HOLD_WAYS; way++) {
		uint64_t *p = &w->prefix[way], before = *p;
		while (*p < w->produced[way] && w->delivered[way][*p + 1])
			++*p;
		if (*p == before)
			continue;
		if (way == HOLD_CHANGES)
			w->durable = w->ends[*p];
		else if (w->step > LOAD_ROWS + 1 && *p == w->produced[way])
			w->loaded = w->snapshot;
		hold_ops(w->hold, (enum hold_way)way)->stored(hold_instance(w->hold, (enum hold_way)way), *p);
	}
}

static bool is_over(const struct world *w)
{
	return w->loaded && w->txn == TXNS && !hold_has_any(w->hold) && !w->npending && w->prefix[HOLD_CHANGES] == w->produced[HOLD_CHANGES];
}

static void one_step(struct world *w)
{
	switch (chance(w, 6)) {
	case 0:
		if (!w->loaded)
			load(w);
		break;
	case 1:
	case 2:
		if (w->silent)
			w->silent--;
		else if (w->txn < TXNS)
			change(w);
		break;
	case 3: acknowledge(w); break;
	case 4: make_room(w); break;
	default: store(w);
	}
	if (w->loaded)
		hold_release(w->hold, w->loaded);
	assert_true(w->loaded || hold_is_held(w->hold));
	/* What the log has still to forget it may not have forgotten when the next run begins. */
	fake_disk_hold(w->disk, !hold_is_held(w->hold) && !hold_has_any(w->hold) && w->forgets_late);
	if (!chance(w, 3))
		fake_run(w->loop, NULL, NULL, 0);
}

static void check(const struct world *w)
{
	int64_t next = 0;
	size_t at = w->n, many = 0;
	while (at > 0 && w->log[at - 1].kind == ENTRY_CHANGE)
		at--;
	assert_int_not_equal(at, 0);
	assert_int_equal(w->log[at - 1].kind, ENTRY_LOADED);
	for (size_t n = 0; n < at; n++)
		assert_int_not_equal(w->log[n].kind, ENTRY_CHANGE);
	for (size_t n = at; n < w->n; n++) {
		const struct entry *en = &w->log[n];
		assert_true(en->at.lsn >= w->loaded);
		if (!next)
			next = en->id;
		many += en->id < next;
		assert_true(en->id <= next);
		/* What goes again is followed by all that is newer: the newest of a row is the last. */
		assert_true(n == at || en->id <= en[-1].id || en->id == en[-1].id + 1);
		next += en->id == next;
	}
	assert_int_equal(next, TXNS * CHANGES + 1);
	assert_int_equal(w->log[w->n - 1].id, TXNS * CHANGES);
	const struct entry *first = &w->log[at];
	assert_true(lsn_of((uint64_t)(first->id - 1) / CHANGES) >= w->loaded && ((uint64_t)(first->id - 1) % CHANGES) == 0);
	assert_true(first->id == 1 || lsn_of((uint64_t)(first->id - 1) / CHANGES - 1) < w->loaded);
	if (w->knows)
		assert_int_equal(many, 0);
	assert_false(w->follows); /* all of it is there: the next run need not end it */
}

static struct world *world_new(unsigned seed, bool knows)
{
	struct world *w = calloc(1, sizeof *w);
	w->random = seed;
	w->knows = knows;
	w->loop = loop_new();
	w->disk = fake_disk_new();
	w->rel = fake_relation("t", 1);
	w->settings = settings_new();
	w->ready = loop_task_new(w->loop, "test", on_ready_task, w);
	w->noted = loop_task_new(w->loop, "test", on_noted_task, w);
	return w;
}

static void world_free(struct world *w)
{
	kill_it(w);
	fake_disk_free(w->disk);
	settings_free(w->settings);
	loop_task_free(w->ready);
	loop_task_free(w->noted);
	loop_free(w->loop);
	relation_unref(w->rel);
	free(w);
}

static void by_chance(unsigned seed, bool knows)
{
	struct world *w = world_new(seed, knows);
	w->forgets_late = chance(w, 2);
	fake_disk_slow(w->disk, chance(w, 2) ? 3 : 0);
	settings_put_int(w->settings, "memory", MEMORY << chance(w, 4));
	settings_put_int(w->settings, "disk", 1 << 30);
	unsigned kills = chance(w, 6), each = 30 + chance(w, 800);
	start(w);
	for (unsigned n = 1; !is_over(w); n++) {
		if (n >= STUCK)
			fail_msg("seed %u: stuck at transaction %u", seed, (unsigned)w->txn);
		one_step(w);
		if (w->kills < kills && !(n % each)) {
			kill_it(w);
			start(w);
		}
	}
	check(w);
	world_free(w);
}

static void each_change_once_behind_the_rows(void **state)
{
	const char *only = getenv("DMSR_SEED");
	(void)state;
	unsigned first = only ? (unsigned)strtoul(only, NULL, 10) : 1, last = only ? first : 60;
	for (unsigned seed = first; seed <= last; seed++)
		for (int knows = 0; knows < 2; knows++) {
			print_message("seed %u %d\n", seed, knows);
			by_chance(seed, knows);
		}
}

/* ---- a second load, when the streamer has the first half of a transaction out of the log ---- */

static void the_end_of_a_half_goes_before_rows(void **state)
{
	const bool *forgets_late = *state;
	struct world *w = world_new(7, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	start(w);
	w->silent = 0;
	w->snapshot = lsn_of(0);
	for (w->txn = 20; w->txn < 34;) {
		put_changes(w, w->change ? 1 : 2);
		fake_run(w->loop, NULL, NULL, 0);
	}
	while (!w->loaded) {
		load(w);
		acknowledge(w);
		store(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	hold_release(w->hold, w->loaded);
	for (int i = 0; i < 200; i++) {
		make_room(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	assert_int_equal(w->npending, PENDING);
	assert_true(w->follows && hold_has_any(w->hold));
	fake_disk_hold(w->disk, *forgets_late);
	size_t upto = 0;
	for (int i = 0; i < 3; i++) { /* a transaction, and half of the next; the rest dies on its way */
		struct pending p = w->pending[0];
		memmove(&w->pending[0], &w->pending[1], --w->npending * sizeof p);
		w->acked = p.own;
		upto = p.upto;
		batch_free(p.b);
		w->host.delivered(w->host.ctx, p.own, NULL);
	}
	assert_int_equal(w->log[upto - 1].id % CHANGES, 2);
	int64_t rest = w->log[upto - 1].id + 1;
	store(w);
	for (int i = 0; i < 50; i++)
		fake_run(w->loop, NULL, NULL, 0);
	kill_it(w);
	w->n = upto;
	start(w);
	w->silent = 0;
	w->snapshot = lsn_of(60);
	for (int i = 0; i < 300; i++) {
		if (w->step <= LOAD_ROWS + 1)
			load(w);
		make_room(w);
		acknowledge(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	bool is_there = false;
	size_t n = upto;
	for (; n < w->n && w->log[n].kind == ENTRY_CHANGE; n++)
		is_there |= w->log[n].id == rest;
	assert_true(is_there);
	assert_true(n < w->n && w->log[n].kind == ENTRY_ROWS);
	world_free(w);
}

/* ---- each by itself ---- */

static struct world *small_world(void)
{
	struct world *w = world_new(1, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	start(w);
	w->silent = 0;
	return w;
}

/* A transaction onto the disk: each row alone is more than the log's memory, however little a batch takes besides. */
static void put_into_log(struct world *w)
{
	struct fake_disk_stat st;
	w->pad = (size_t)2 * MEMORY;
	put_changes(w, CHANGES);
	for (int i = 0; !w->delivered[HOLD_CHANGES][1]; i++) {
		assert_in_range(i, 0, STUCK);
		fake_run(w->loop, NULL, NULL, 0);
	}
	fake_disk_stat(w->disk, &st);
	assert_int_equal(st.entries, 1);
}

/* Until the streamer takes it. */
static void load_step(struct world *w)
{
	for (unsigned step = w->step; w->step == step;)
		load(w);
}

static void acknowledge_all(struct world *w)
{
	while (w->npending)
		acknowledge(w);
}

static bool keeps_any(const struct world *w) { return hold_ops(w->hold, HOLD_CHANGES)->keeps(hold_instance(w->hold, HOLD_CHANGES)); }

/* Nothing else has to come for that. */
static void what_comes_again_is_told_delivered(void **state)
{
	(void)state;
	struct world *w = small_world();
	w->snapshot = lsn_of(0);
	put_into_log(w);
	while (w->step <= LOAD_ROWS + 1)
		load_step(w);
	acknowledge_all(w);
	w->durable = (struct position){ 0 };
	w->loaded = w->snapshot;
	kill_it(w);
	start(w);
	assert_true(hold_has_any(w->hold));
	hold_release(w->hold, w->loaded);
	for (int i = 0; hold_has_any(w->hold) || w->npending; i++) {
		assert_in_range(i, 0, STUCK);
		make_room(w);
		acknowledge_all(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	size_t n = w->n;
	put_changes(w, CHANGES);
	assert_int_equal(w->produced[HOLD_CHANGES], 1);
	assert_false(w->delivered[HOLD_CHANGES][1]); /* not inside of the call */
	fake_settle(w->loop);
	assert_true(w->delivered[HOLD_CHANGES][1]);
	assert_int_equal(w->n, n);
	world_free(w);
}

/* It would be told delivered once more, or what stands before it, which is not. */
static void an_acknowledgement_of_what_is_not_there(void **state)
{
	struct err e = { 0 };
	(void)state;
	struct world *w = small_world();
	w->failure = &e;
	load_step(w);
	load_step(w);
	assert_int_equal(w->npending, 2);
	uint64_t first = w->pending[0].own, second = w->pending[1].own;
	const uint64_t odd[] = { second + 1, first - 1, second };
	w->host.delivered(w->host.ctx, second, NULL);
	assert_int_equal(e.code, 0);
	for (size_t i = 0; i < 3; i++) {
		err_clear(&e);
		w->host.delivered(w->host.ctx, odd[i], NULL);
		assert_string_equal(e.id, "streamer.protocol");
		assert_false(w->delivered[HOLD_ROWS][1] || w->delivered[HOLD_ROWS][2]);
	}
	w->host.delivered(w->host.ctx, first, NULL);
	assert_true(w->delivered[HOLD_ROWS][1] && w->delivered[HOLD_ROWS][2]);
	world_free(w);
}

/* And nobody is asked which of them is old, also when it is said twice. */
static void changes_go_straight_when_there_is_no_load(void **state)
{
	(void)state;
	struct world *w = small_world();
	for (unsigned txn = 0; txn < 2; txn++) {
		hold_release(w->hold, txn ? lsn_of(9) : 0);
		assert_false(hold_is_held(w->hold));
		while (w->txn == txn)
			put_changes(w, CHANGES);
		assert_false(hold_has_any(w->hold));
		assert_int_equal(w->n, (txn + 1) * CHANGES);
	}
	world_free(w);
}

/* Of an earlier run. */
static void what_is_kept_in_either_is_kept(void **state)
{
	(void)state;
	struct world *w = small_world();
	assert_true(keeps_any(w));
	w->keeps_nothing = true;
	assert_false(keeps_any(w));
	put_into_log(w);
	kill_it(w);
	start(w);
	assert_true(keeps_any(w));
	world_free(w);
}

/* It forgets late what it gave: to the next run that is nothing that waits, and what went straight behind it may end inside of a transaction. */
static void a_log_that_was_given_waits_for_nothing(void **state)
{
	(void)state;
	struct fake_disk_stat st;
	struct world *w = small_world();
	w->snapshot = lsn_of(0);
	w->txn = 5;
	put_into_log(w);
	while (w->step <= LOAD_ROWS + 1)
		load_step(w);
	acknowledge_all(w);
	w->loaded = w->snapshot;
	hold_release(w->hold, w->loaded);
	for (int i = 0; hold_has_any(w->hold); i++) {
		assert_in_range(i, 0, STUCK);
		make_room(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	fake_disk_hold(w->disk, true);
	acknowledge_all(w);
	store(w);
	fake_settle(w->loop);
	assert_true(hold_is_over(w->hold) && !w->follows);
	kill_it(w);
	fake_disk_stat(w->disk, &st);
	assert_int_equal(st.entries, 1);
	start(w);
	assert_false(hold_has_begun(w->hold));
	assert_false(hold_has_any(w->hold));
	world_free(w);
}

/* A quiet source's word that it is there. */
static void put_heartbeat(struct world *w)
{
	struct batch *b = batch_new();
	batch_append(b, OP_HEARTBEAT, NULL);
	b->end = (struct position){ .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = lsn_of(w->txn) - 1, .flush = lsn_of(w->txn) - 1 };
	assert_true(produce(w, HOLD_CHANGES, b));
	fake_run(w->loop, NULL, NULL, 0);
}

static uint64_t oldest_lsn(const struct world *w)
{
	const struct txn *t = hold_oldest(w->hold);
	assert_non_null(t);
	return t->lsn;
}

static void again(struct world *w)
{
	kill_it(w);
	w->durable = (struct position){ 0 };
	start(w);
	for (int i = 0; !oldest_lsn(w); i++) { /* until it was read */
		assert_in_range(i, 0, STUCK);
		fake_run(w->loop, NULL, NULL, 0);
	}
	w->txn = 2;
	put_heartbeat(w);
}

/* Heartbeats of a quiet source are no changes that somebody waits for; what is behind one in the log of an earlier run is no older. */
static void the_oldest_is_that_of_the_first_change(void **state)
{
	const bool *is_quiet = *state;
	struct world *w = small_world();
	assert_null(hold_oldest(w->hold));
	if (*is_quiet) {
		put_heartbeat(w);
		assert_true(hold_has_any(w->hold));
		assert_null(hold_oldest(w->hold));
	}
	w->pad = (size_t)2 * MEMORY;
	for (int i = 0; i < 2; i++) {
		put_changes(w, CHANGES);
		fake_run(w->loop, NULL, NULL, 20);
		assert_int_equal(oldest_lsn(w), lsn_of(0));
	}
	again(w);
	assert_int_equal(oldest_lsn(w), lsn_of(0) - *is_quiet);
	world_free(w);
}

static bool late = true, in_time = false, yes = true, no = false;

RUN_TESTS(cmocka_unit_test(each_change_once_behind_the_rows),
	{ "the end of a half goes before rows", the_end_of_a_half_goes_before_rows, NULL, NULL, &in_time },
	{ "the end of a half goes before rows, behind what is said again", the_end_of_a_half_goes_before_rows, NULL, NULL, &late },
	cmocka_unit_test(what_comes_again_is_told_delivered), cmocka_unit_test(an_acknowledgement_of_what_is_not_there),
	cmocka_unit_test(changes_go_straight_when_there_is_no_load), cmocka_unit_test(what_is_kept_in_either_is_kept),
	cmocka_unit_test(a_log_that_was_given_waits_for_nothing),
	{ "the oldest is that of the first change", the_oldest_is_that_of_the_first_change, NULL, NULL, &no },
	{ "the oldest is that of the first change of a quiet source", the_oldest_is_that_of_the_first_change, NULL, NULL, &yes })
