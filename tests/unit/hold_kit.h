/* hold_kit: a hold on a fake disk, between a pipeline that gives it a load and a stream, and a streamer that stalls, acknowledges in any order, and dies. */
#ifndef DMSR_TESTS_UNIT_HOLD_KIT_H
#define DMSR_TESTS_UNIT_HOLD_KIT_H
#include "test.h"

#include "connectors/fake/fake.h"
#include "engine/hold.h"

extern const struct dmsr_plugin dmsr_plugin_embedded;

enum { TXNS = 150, CHANGES = 3, LOAD_ROWS = 3, PENDING = 8, LOG = 20000, TOKENS = 4096, STUCK = 100000, MEMORY = 20000 };
enum { ENTRY_ROWS, ENTRY_LOADED, ENTRY_CHANGE };

static inline uint64_t lsn_of(uint64_t txn) { return (txn + 1) * FAKE_LSN_STEP; }

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
	bool is_ready, is_load_sent, may_go_on;
	bool is_unsaid;                 /* whether there is a load, when it has started */
	bool has_word;                  /* at the end of each transaction, that all is loaded */
	unsigned resumed;
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

static inline unsigned chance(struct world *w, unsigned n)
{
	w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(w->random >> 33) % n;
}

/* ---- the streamer ---- */

static struct world *world;             /* whose streamer it is: its open has no other way to know */

static inline int streamer_open(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)s, (void)e;
	world->host = *host;
	*out = (struct dmsr_instance *)(void *)world;
	return 0;
}

static inline struct world *of(struct dmsr_instance *i) { return (struct world *)(void *)i; }

static inline void on_ready_task(void *arg)
{
	struct world *w = arg;
	w->host.ready(w->host.ctx);
}

static inline void streamer_start(struct dmsr_instance *i) { loop_task_post(of(i)->ready); }

static inline bool streamer_keeps(const struct dmsr_instance *i) { return !((const struct world *)(const void *)i)->keeps_nothing; }

static inline void streamer_known(struct dmsr_instance *i, struct dmsr_stand *out)
{
	const struct world *w = of(i);
	for (size_t n = w->n; n-- > 0 && w->knows;)
		if (w->log[n].kind == ENTRY_CHANGE) {
			out->at = w->log[n].at;
			return;
		}
}

static inline void write_entry(struct world *w, uint8_t kind, const struct change *ch, const struct batch *b)
{
	struct entry *en = &w->log[w->n++];
	assert_true(w->n < LOG);
	*en = (struct entry){ .kind = kind, .own = b->token };
	if (kind != ENTRY_CHANGE)
		return;
	en->id = fake_row_id(ch);
	en->at = fake_position(ch->txn->lsn, ch->event);
}

static inline enum dmsr_verdict streamer_produce(struct dmsr_instance *i, struct batch *b)
{
	struct world *w = of(i);
	assert_true(w->giving >= 0 || w->follows); /* durable, before anything of the log may be the first half of a transaction */
	assert_true(w->giving >= 0 || w->may_go_on); /* it is known what is loaded, and so what of the log is to be left out */
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
static inline void acknowledge(struct world *w)
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

static inline void make_room(struct world *w)
{
	if (!w->said_again)
		return;
	w->said_again = false;
	w->host.resume(w->host.ctx);
}

static inline void streamer_stored(struct dmsr_instance *i, uint64_t own)
{
	struct world *w = of(i);
	assert_in_range(own, w->stored + 1, w->acked);
	while (w->stored < own) {
		w->stored++;
		if (w->given[w->stored].way >= 0)
			assert_in_range(w->given[w->stored].token, 1, w->prefix[w->given[w->stored].way]);
	}
}

static inline void streamer_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	(void)i;
	*out = (struct dmsr_streamer_stat){ 0 };
}

static inline void streamer_stop(struct dmsr_instance *i) { of(i)->host.stopped(of(i)->host.ctx); }

/* What was not acknowledged may be there or not. */
static inline void streamer_close(struct dmsr_instance *i)
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

static inline void on_ready(void *ctx) { ((struct world *)ctx)->is_ready = true; }

static inline void on_resume(void *ctx) { ((struct world *)ctx)->resumed++; }

static inline void on_stopped(void *ctx) { (void)ctx; }

static inline void on_failed(void *ctx, const struct err *e)
{
	const struct world *w = ctx;
	if (!w->failure)
		fail_msg("failed: %s", e->message);
	*w->failure = *e;
}

static inline void on_delivered(struct world *w, enum hold_way way, uint64_t token, const struct err *e)
{
	assert_null(e);
	assert_in_range(token, 1, w->produced[way]);
	assert_false(w->delivered[way][token]);
	w->delivered[way][token] = true;
}

static inline void on_changes_delivered(void *ctx, uint64_t token, const struct err *e) { on_delivered(ctx, HOLD_CHANGES, token, e); }
static inline void on_rows_delivered(void *ctx, uint64_t token, const struct err *e) { on_delivered(ctx, HOLD_ROWS, token, e); }

static inline bool is_old(void *arg, const struct change *ch)
{
	const struct world *w = arg;
	assert_int_not_equal(w->loaded, 0);
	return ch->rel && ch->txn->lsn < w->loaded;
}

static inline void on_noted(void *arg)
{
	struct world *w = arg;
	void (*done)(void *, const struct err *) = w->note_done;
	w->follows = w->says_follows;
	w->note_done = NULL;
	done(w->note_arg, NULL);
}

/* Much may happen before that. */
static inline void on_noted_task(void *arg)
{
	struct world *w = arg;
	if (chance(w, 3))
		loop_task_post(w->noted);
	else
		on_noted(w);
}

/* It is durable before what is stored behind it; only for the one that the log is about to follow somebody waits. */
static inline void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
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

static inline const char *on_note_get(void *ctx, const char *key)
{
	const struct world *w = ctx;
	if (!strcmp(key, "hold.follows"))
		return w->says_follows ? "yes" : NULL;
	assert_string_equal(key, "hold.ended");
	return w->ended[0] ? w->ended : NULL;
}

static inline bool is_early(void *arg, const struct change *ch)
{
	const struct world *w = arg;
	return ch->rel && (!w->loaded || ch->txn->lsn < w->loaded);
}

static inline void on_feeds(void *arg, const struct batch *b)
{
	(void)b;
	((struct world *)arg)->feeds = true;
}

static inline void start(struct world *w)
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
	w->is_ready = w->is_load_sent = w->may_go_on = w->said_again = false;
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
	w->may_go_on = true;
	hold_go_on(w->hold);
	if (!w->is_unsaid)
		hold_loads(w->hold);
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

static inline void kill_it(struct world *w)
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

static inline bool produce(struct world *w, enum hold_way way, struct batch *b)
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

static inline void load(struct world *w)
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

static inline void put_changes(struct world *w, uint64_t n)
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
		if (w->has_word)
			batch_append(b, OP_LOAD_DONE, NULL);
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
static inline void change(struct world *w) { put_changes(w, 1 + chance(w, (unsigned)(CHANGES - w->change))); }

/* The state store: what was delivered without a gap. */
static inline void store(struct world *w)
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

static inline struct world *world_new(unsigned seed, bool knows)
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

static inline void world_free(struct world *w)
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

#endif
