/* target_lanes: loads of tables, beside the stream and beside each other.
 *
 * A lane is an instance of its own, of which no host knows: a connection, a queue, and what loads a table (target_load.c). The instance's queue stays in order;
 * each batch of a load is lent to the lane of its table when its turn comes, and is done when that says so. A lane is opened when a load begins and none is
 * free: to wait for one could be to wait for ever, since the rows that those in use are to end with stand behind in the queue. Only when some are about to
 * become free by themselves is that waited for.
 *
 * The load of a table           [begins] -> FILLING -> ENDING -> committed: its lane is free          FILLING -> void: its lane is closed
 *   a divided one               [begins] -> MAKING -> FILLING, a lane for each part that is open -> ENDING: when all are committed, its end gets a lane
 *   one that goes on             the same, but nothing is emptied, and the parts that are there are not waited for
 *   one whose parts are noted    cut instead of void: parts that have their end stay, and it goes on with them, or begins anew
 *   one that takes turns         the same, but changes of the stream come between its parts, by the rules of target_catch.h from its beginning on
 * With prepare none a table is not divided: rows that were there before could not be told from those of parts if it had to begin anew.
 *
 * Changes of the stream wait for loads that have their end, and make the others void, or cut: the source died in them. So does the beginning of a load in
 * another snapshot. What is not of an open load is passed over.
 *
 * A load may begin in the middle of a transaction of the source's (the job was stopped there, and a table added). That stays open, and is not read again
 * from its batches: these are given back, or nothing behind them could be. */
#include "target_lanes.h"
#include <assert.h>
#include <stdlib.h>

enum {
	ENDING_MAX = 2,                 /* so many lanes that will be free by themselves: they are waited for, and no other is opened */
};

enum stage { STAGE_MAKING, STAGE_FILLING, STAGE_ENDING };
static const char *const stage_names[] = { "making", "filling", "ending" };
struct table_load {
	struct table_load *next;
	struct target_table *table;     /* the instance's */
	struct relation *rel;           /* held */
	struct item *begin;             /* NULL: it takes turns, and was made */
	struct item *end;               /* waits for the parts; NULL: not so */
	uint64_t lsn, server, rows;
	uint64_t since;                 /* not 0: it goes on with parts that are there, of snapshots from this one on */
	uint32_t parts;                 /* 0: undivided */
	struct map *kept;               /* parts that were there: should they come again, they are passed over */
	struct map *ended;              /* parts whose end came, of the others */
	bool keeps_parts;
	bool is_cut;                    /* its source died in it: nothing more of it counts, but that it goes on, or begins anew */
	bool in_turns;                  /* changes of the stream may come between its parts */
	bool rows_move;                 /* it goes on, and rows may have moved from part to part */
	uint64_t begun_lsn;             /* of the first */
	enum stage stage;
};

/* ---- the lanes ---- */

struct target *lane_instance(const struct target *t) { return t->lane->of; }

static struct item *item_of(uint64_t token) { return (struct item *)(uintptr_t)token; }

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	const struct lane *l = ctx;
	(void)counts;
	(void)n;
	item_of(token)->is_eaten = true;
	item_of(token)->is_done = !item_of(token)->begins_parts;
	target_wake(l->of);
}

static void on_consumed(void *ctx, uint64_t token)
{
	const struct lane *l = ctx;
	item_of(token)->is_eaten = true;
	target_wake(l->of);
}

static void on_resume(void *ctx)
{
	const struct lane *l = ctx;
	target_wake(l->of);
}

static void on_notice(void *ctx, const char *text)
{
	const struct lane *l = ctx;
	if (l->of->host.notice)
		l->of->host.notice(l->of->host.ctx, text);
}

static void on_failed(void *ctx, const struct err *why)
{
	const struct lane *l = ctx;
	struct err e = *why;
	if (!strcmp(e.id, "target.busy"))
		err_hint(&e, "a load takes a connection for each table, or part of one, that is read at once: lower load_connections of the source, or raise "
			"max_connections of this server");
	target_fail(l->of, &e);
}

struct lane *lane_open(struct target *t)
{
	struct lane *l = mem_zalloc(sizeof *l);
	const struct dmsr_target_host host = {
		.ctx = l,
		.env = t->host.env,
		.applied = on_applied,
		.consumed = on_consumed,
		.resume = on_resume,
		.notice = on_notice,
		.failed = on_failed,
	};
	l->of = t;
	l->next = t->lanes->first;
	t->lanes->first = l;
	l->t = target_new(t->settings, &host, l);
	return l;
}

static void let_prepare(struct lanes *k)
{
	k->preparing = NULL;
	for (struct lane *l = k->first; l; l = l->next)
		target_wake(l->t);
}

static void close_lane(struct target *t, struct lane *l)
{
	struct lane **at = &t->lanes->first;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	if (t->lanes->preparing == l->t)
		let_prepare(t->lanes);
	target_close(l->t);
	free(l);
}

static bool is_free(const struct lane *l) { return !l->load && !l->is_indexing && !l->t->cur; }

/* NULL: one will be free by itself. */
static struct lane *take_lane(struct target *t)
{
	unsigned ending = 0;
	for (struct lane *l = t->lanes->first; l; l = l->next) {
		if (is_free(l)) {
			l->is_stale = false;
			return l;
		}
		ending += l->is_ending;
	}
	return ending >= ENDING_MAX ? NULL : lane_open(t);
}

/* ---- loads ---- */

/* Nobody has to send it again for the parts behind it. */
static void let_begin(struct table_load *l)
{
	if (l->parts && l->begin)
		l->begin->is_eaten = l->begin->is_done = true;
	l->begin = NULL;
}

static void drop_load(struct target *t, struct table_load *l)
{
	struct table_load **at = &t->lanes->loads;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	let_begin(l);
	relation_unref(l->rel);
	map_free(l->ended);
	map_free(l->kept);
	free(l);
}

static void set_stage(const struct target *t, struct table_load *l, enum stage to)
{
	static const bool allowed[][3] = { [STAGE_MAKING] = { [STAGE_FILLING] = true }, [STAGE_FILLING] = { [STAGE_ENDING] = true } };
	assert(l->stage != STAGE_ENDING && allowed[l->stage][to]);
	log_debug("target", t->host.env.job, "%s: load of %s: %s -> %s", t->host.env.name, l->table->sql, stage_names[l->stage], stage_names[to]);
	l->stage = to;
}

/* NULL: no lane has it */
static struct lane *lane_of(const struct target *t, const struct table_load *load, uint32_t part)
{
	struct lane *l = t->lanes->first;
	while (l && (l->load != load || (load->parts && l->part != part)))
		l = l->next;
	return l;
}

/* What its lanes have not committed is rolled back. */
static void close_lanes(struct target *t, const struct table_load *load, bool but_ending)
{
	for (struct lane *l = t->lanes->first, *next; l; l = next) {
		next = l->next;
		if (l->load != load || (but_ending && l->is_ending))
			continue;
		for (struct item *it = t->head; it && it != t->cur; it = it->next)
			if (it->lane == l && !it->is_done && !it->begins_parts) /* such a one waits for its own table: this lane was let go since */
				it->is_eaten = it->is_done = true;
		close_lane(t, l);
	}
}

static void void_load(struct target *t, struct table_load *load)
{
	if (load->in_turns) {
		load->table->loaded_lsn = LOADED_IN_PART;
		load->table->until_lsn = 0;
	}
	log_info("target", t->host.env.job, "%s: the load of %s was not ended, and is void", t->host.env.name, load->table->sql);
	close_lanes(t, load, false);
	drop_load(t, load);
}

/* The source may know of parts that have their end, and go on with them: they stay. */
static bool may_go_on(const struct table_load *load) { return load->keeps_parts && !load->in_turns; }

static void cut_load(struct target *t, struct table_load *load)
{
	if (load->is_cut)
		return;
	load->is_cut = true;
	log_info("target", t->host.env.job, "%s: the load of %s was not ended: %zu of its %u parts were", t->host.env.name, load->table->sql,
		map_size(load->kept) + map_size(load->ended), (unsigned)load->parts);
	close_lanes(t, load, true);
}

static void give(struct lane *lane, struct table_load *l, uint32_t part)
{
	lane->load = l;
	lane->part = part;
	lane->is_ending = l->stage != STAGE_FILLING;
}

/* Its lane's work is done. */
static void let_go(struct lane *l)
{
	l->load = NULL;
	l->is_ending = false;
	target_wake(l->of);
}

static bool is_at_work(const struct target *t, const struct table_load *load)
{
	const struct lane *l = t->lanes->first;
	while (l && l->load != load)
		l = l->next;
	return l;
}

/* Between two turns, or cut: it is waited for until its parts are committed, and no longer. */
static bool rests(const struct target *t, const struct table_load *load)
{
	return (load->in_turns || load->is_cut) && load->stage == STAGE_FILLING && !is_at_work(t, load);
}

/* Is a part of it without its end? */
static bool is_cut_off(const struct target *t, const struct table_load *load)
{
	for (const struct lane *l = t->lanes->first; l; l = l->next)
		if (l->load == load && !l->is_ending)
			return true;
	return !load->in_turns;
}

static void void_open(struct target *t)
{
	for (struct table_load *l = t->lanes->loads, *next; l; l = next) {
		next = l->next;
		if (l->stage == STAGE_FILLING && may_go_on(l))
			cut_load(t, l);
		else if (l->stage == STAGE_FILLING && is_cut_off(t, l))
			void_load(t, l);
	}
}

static struct table_load *find_load(const struct target *t, const struct change *ch)
{
	struct table_load *l = t->lanes->loads;
	while (l && (strcmp(l->rel->schema, ch->rel->schema) != 0 || strcmp(l->rel->name, ch->rel->name) != 0))
		l = l->next;
	return l;
}

static void fail_load(struct target *t, const struct change *ch, const char *why)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EPROTO, "target.load-order", "%s.%s: %s", ch->rel->schema, ch->rel->name, why);
	target_fail(t, &e);
}

/* Inside of a transaction of the source that has written to the table: its load would wait for our lock, and we for its end. We die, and note before that the
 * load was begun: the next run passes over what the transaction does to the table. If none of ours is there, nobody may empty it, and that is the end. */
static enum step give_way(struct target *t, const struct target_table *tb)
{
	struct err e = { 0 };
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_BEGUN };
	if (tx_sync(t) == STEP_WAIT || err_is_set(&t->tx.error))
		return STEP_WAIT;
	if (tb->loaded_lsn && !t->lanes->has_given_way) {
		t->lanes->has_given_way = true;
		tx_sql(t, SENT_QUIET, NULL, "ROLLBACK", 0, NULL);
		tx_sql(t, SENT_QUIET, NULL, load_begin_sql, 5, values);
		return tx_sync(t);
	}
	err_set(&e, DMSR_ESTATE, "target.load-in-transaction", "%s is loaded again in the middle of a transaction that has changed it", tb->sql);
	err_hint(&e, "load all tables again: stop the job, DELETE /jobs/%s/positions, start it", t->host.env.job);
	e.retriable = t->lanes->has_given_way;
	target_fail(t, &e);
	return STEP_WAIT;
}

/* The load is noted as lost, and the instance dies: at its next start the host hears of it. */
enum step lanes_lose(struct target *t, const struct target_table *tb, const char *why)
{
	struct err e = { 0 };
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, tb->is_made ? "t" : "f", LOAD_LOST };
	if (tx_begin(t) == STEP_WAIT)
		return STEP_WAIT;
	net_flush_all(t);
	if (tx_sync(t) == STEP_WAIT || err_is_set(&t->tx.error))
		return STEP_WAIT;
	if (!t->lanes->has_given_way) {
		t->lanes->has_given_way = true;
		tx_sql(t, SENT_QUIET, NULL, "ROLLBACK", 0, NULL);
		tx_sql(t, SENT_QUIET, NULL, load_begin_sql, 5, values);
		return tx_sync(t);
	}
	err_retry(&e, DMSR_ESTATE, "target.load-lost", "%s: %s: it is loaded anew", tb->sql, why);
	target_fail(t, &e);
	return STEP_WAIT;
}

enum step lanes_commit_stream(struct target *t) { return tx_commit(t) == STEP_WAIT || t->tx.state != TX_NONE ? STEP_WAIT : STEP_DONE; }

/* DONE: nothing of the stream is open but a transaction of the source's whose end is behind the load. */
static enum step leave_stream(struct target *t, const struct target_table *tb)
{
	if (!t->tx.in_source)
		return lanes_commit_stream(t);
	net_flush_all(t);
	return t->tx.state == TX_OPEN && tb->written_us == t->tx.began_us ? give_way(t, tb) : tx_let_go(t);
}

/* Those that the beginning of another one ends. WAIT: that of this table is being committed, or one of them is being made. */
static enum step end_others(struct target *t, const struct change *ch)
{
	for (struct table_load *l = t->lanes->loads, *next; l; l = next) {
		bool is_same = l == find_load(t, ch);
		next = l->next;
		if (!is_same && (l->lsn == ch->txn->lsn || rests(t, l)))
			continue;
		if (l->stage == STAGE_FILLING && !is_same && l->in_turns && !is_cut_off(t, l))
			return STEP_WAIT; /* until its part is committed */
		if (l->stage == STAGE_FILLING && may_go_on(l) && (!is_same || ch->u.load.since)) {
			cut_load(t, l);
			if (!rests(t, l))
				return STEP_WAIT;
		} else if (l->stage == STAGE_FILLING)
			void_load(t, l);
		else if (is_same || l->stage == STAGE_MAKING)
			return STEP_WAIT;
	}
	return STEP_DONE;
}

/* The parts that were there at the start, unless a load has begun anew since. */
static void keep_parts(struct target *t, struct table_load *l)
{
	for (size_t i = 0; i < t->nbegun; i++) {
		const struct dmsr_begun *b = &t->begun[i];
		if (strcmp(b->schema, l->rel->schema) != 0 || strcmp(b->name, l->rel->name) != 0 || t->begun_rows[i] == BEGUN_GONE)
			continue;
		for (size_t n = 0; l->since && n < b->nparts; n++)
			map_put_u32(l->kept, b->parts[n], l);
		l->rows = l->since ? t->begun_rows[i] : 0;
		t->begun_rows[i] = BEGUN_GONE;
	}
}

static struct table_load *add_load(struct target *t, struct target_table *tb, const struct change *ch)
{
	struct table_load *l = mem_zalloc(sizeof *l);
	l->table = tb;
	l->rel = relation_ref(ch->rel);
	l->begin = t->cur;
	l->lsn = ch->txn->lsn;
	l->server = t->cur->batch->end.server;
	l->parts = t->prepare == PREPARE_NONE ? 0 : ch->u.load.parts;
	l->stage = l->parts ? STAGE_MAKING : STAGE_FILLING;
	l->since = ch->u.load.since;
	l->in_turns = l->parts && (ch->flags & CHANGE_TURNS);
	l->rows_move = l->since && (ch->flags & CHANGE_MOVES);
	l->begun_lsn = l->lsn;
	l->kept = map_new();
	l->ended = map_new();
	tb->has_rests |= l->parts != 0;
	keep_parts(t, l);
	l->next = t->lanes->loads;
	return t->lanes->loads = l;
}

/* Of the load that was cut. */
static void take_parts(struct target *t, struct table_load *l, struct table_load *was)
{
	for (uint32_t i = 1; i <= l->parts; i++)
		if (map_get_u32(was->kept, i) || map_get_u32(was->ended, i))
			map_put_u32(l->kept, i, l);
	l->rows = was->rows;
	drop_load(t, was);
}

/* As it was at the start; NULL: nothing. */
static const struct dmsr_begun *find_begun(const struct target *t, const struct relation *rel)
{
	for (size_t i = 0; i < t->nbegun; i++)
		if (!strcmp(t->begun[i].schema, rel->schema) && !strcmp(t->begun[i].name, rel->name))
			return &t->begun[i];
	return NULL;
}

/* An earlier run's was: the host was told so, and sends another, undivided. */
static bool was_lost(const struct target *t, const struct relation *rel)
{
	const struct dmsr_begun *b = find_begun(t, rel);
	return b && !b->nparts;
}

/* Of an earlier run, and none has begun anew since. */
static bool has_parts(const struct target *t, const struct relation *rel)
{
	const struct dmsr_begun *b = find_begun(t, rel);
	return b && b->nparts && t->begun_rows[b - t->begun] != BEGUN_GONE;
}

/* DONE: it is open, and its lane has room. cut: the load that it goes on with; NULL: none is open here. */
static enum step open_load(struct target *t, struct target_table *tb, const struct change *ch, struct table_load *cut)
{
	if (cut && cut->parts != ch->u.load.parts) {
		fail_load(t, ch, "it goes on with another number of parts");
		return STEP_WAIT;
	}
	struct lane *lane = take_lane(t);
	if (!lane)
		return STEP_WAIT;
	struct table_load *l = add_load(t, tb, ch);
	if (cut)
		take_parts(t, l, cut);
	give(lane, l, 0);
	return STEP_DONE;
}

/* DONE: it is open, and its lane has room; or it goes on and means nothing: its end came, and who sends it again did not know; or the load was lost. */
static enum step begin_load(struct target *t, const struct change *ch)
{
	const struct table_load *open = find_load(t, ch);
	if (open && open->begin == t->cur)
		return STEP_DONE;
	struct target_table *tb = table_get(t, ch->rel);
	uint64_t since = ch->u.load.since;
	bool means_nothing = since && (was_lost(t, ch->rel) || tb->loaded_lsn == since), has_any = means_nothing || !since || has_parts(t, ch->rel);
	if ((open || has_any) && (leave_stream(t, tb) == STEP_WAIT || end_others(t, ch) == STEP_WAIT))
		return STEP_WAIT;
	struct table_load *cut = find_load(t, ch);
	if (!cut && !has_any) /* nor what was open, which is void */
		return lanes_lose(t, tb, "its load was cut off and goes on, and no part of before is kept here");
	if (!means_nothing)
		return open_load(t, tb, ch, cut);
	if (cut)
		drop_load(t, cut);
	return STEP_DONE;
}

/* ---- batches ---- */

/* The change that tells which load the batch is of; NULL: it is of none. */
static const struct change *first_word(const struct batch *b)
{
	const struct change *ch = b->first;
	while (ch && ch->op == OP_SCHEMA)
		ch = ch->next;
	return ch && ch->rel && ch->txn && ch->op != OP_LOAD_DONE ? ch : NULL;
}

static enum step lend(struct target *t, struct lane *lane)
{
	struct item *it = t->cur;
	assert(lane);
	if (!target_has_room(lane->t))
		return STEP_WAIT;
	it->is_lent = true;
	it->lane = lane;
	target_take(lane->t, it->batch, (uint64_t)(uintptr_t)it);
	t->at = it->batch->last;
	return STEP_DONE;
}

static enum step pass(struct target *t)
{
	t->at = t->cur->batch->last;
	return STEP_DONE;
}

/* A lane that is there, or a free one. NULL: wait. */
static struct lane *have_lane(struct target *t, struct table_load *l, uint32_t part)
{
	struct lane *lane = lane_of(t, l, part);
	if (lane)
		return lane;
	lane = take_lane(t);
	if (lane)
		give(lane, l, part);
	return lane;
}

static enum step take_undivided(struct target *t, struct table_load *l)
{
	struct lane *lane = lane_of(t, l, 0);
	if (lend(t, lane) == STEP_WAIT)
		return STEP_WAIT;
	if (t->cur->batch->last->op != OP_LOAD_END)
		return STEP_DONE;
	set_stage(t, l, STAGE_ENDING);
	give(lane, l, 0);
	return STEP_DONE;
}

static enum step take_part(struct target *t, struct table_load *l)
{
	const struct batch *b = t->cur->batch;
	struct lane *lane = have_lane(t, l, b->part);
	if (!lane || lend(t, lane) == STEP_WAIT)
		return STEP_WAIT;
	if (b->last->op == OP_LOAD_PART) {
		map_put_u32(l->ended, b->part, l);
		lane->is_ending = true;
	}
	return STEP_DONE;
}

/* Why the batch cannot be of this divided table; NULL: it can. */
static const char *refusal(const struct table_load *l, const struct batch *b, const struct change *first)
{
	bool is_word = !b->part && first == b->last;
	if (b->part > l->parts)
		return "there is no such part";
	if (b->part && (first->op == OP_LOAD_BEGIN || b->last->op == OP_LOAD_END))
		return "a part has words about all of the table";
	if (b->part && map_get_u32(l->ended, b->part))
		return "rows of a part come after its end";
	if (!b->part && !(is_word && (first->op == OP_LOAD_BEGIN || first->op == OP_LOAD_END)))
		return "rows are of no part";
	if (first->op == OP_LOAD_END && map_size(l->ended) + map_size(l->kept) != l->parts)
		return "it ends before all its parts have";
	return NULL;
}

static enum step take_divided(struct target *t, struct table_load *l, const struct change *first)
{
	const struct batch *b = t->cur->batch;
	const char *why = refusal(l, b, first);
	if (why) {
		fail_load(t, first, why);
		return STEP_WAIT;
	}
	if (first->op == OP_LOAD_BEGIN) {
		t->cur->begins_parts = !l->in_turns; /* of which each run begins anew */
		if (lend(t, lane_of(t, l, 0)) == STEP_WAIT)
			return STEP_WAIT;
		l->begin = l->in_turns ? NULL : l->begin;
		return STEP_DONE;
	}
	if (l->stage == STAGE_MAKING)
		return STEP_WAIT;
	if (b->part)
		return map_get_u32(l->kept, b->part) ? pass(t) : take_part(t, l);
	set_stage(t, l, STAGE_ENDING);
	l->end = t->cur;
	t->cur->is_lent = true;
	target_wake(t);
	return pass(t);
}

/* The ends of tables all whose parts are committed. */
static void lend_ends(struct target *t)
{
	for (struct table_load *l = t->lanes->loads; l; l = l->next) {
		bool is_open = false;
		for (const struct lane *lane = t->lanes->first; lane; lane = lane->next)
			is_open |= lane->load == l;
		struct lane *lane = l->end && !is_open ? take_lane(t) : NULL;
		if (!lane)
			continue;
		give(lane, l, 0);
		l->end->lane = lane;
		target_take(lane->t, l->end->batch, (uint64_t)(uintptr_t)l->end);
		l->end = NULL;
	}
}

static enum step take_batch(struct target *t, const struct change *first)
{
	const struct change *last = t->cur->batch->last;
	if (first->op == OP_LOAD_BEGIN && begin_load(t, first) == STEP_WAIT)
		return STEP_WAIT;
	struct table_load *l = find_load(t, first);
	if (!l || l->stage == STAGE_ENDING || l->is_cut || (l->in_turns ? l->lsn > first->txn->lsn : l->lsn != first->txn->lsn))
		return pass(t);
	if (l->in_turns && rests(t, l) && lanes_commit_stream(t) == STEP_WAIT) /* its turn begins */
		return STEP_WAIT;
	if (l->lsn < first->txn->lsn) {
		if (!rests(t, l)) /* the one before is being committed */
			return STEP_WAIT;
		l->lsn = first->txn->lsn;
	}
	if (!relation_is_same(l->rel, last->rel) || strcmp(l->rel->name, last->rel->name) != 0) {
		fail_load(t, last, "a batch of its load has changes of another table, or shape");
		return STEP_WAIT;
	}
	return l->parts ? take_divided(t, l, first) : take_undivided(t, l);
}

enum step lanes_take(struct target *t)
{
	const struct change *first = first_word(t->cur->batch);
	if (first)
		return take_batch(t, first);
	if (t->at->op == OP_SCHEMA)
		table_get(t, t->at->rel);
	return t->at->op == OP_LOAD_DONE ? finish_take(t) : STEP_DONE;
}

enum step lanes_settle(struct target *t)
{
	void_open(t);
	for (const struct table_load *l = t->lanes->loads; l; l = l->next)
		if (!rests(t, l))
			return STEP_WAIT;
	return STEP_DONE;
}

/* ---- a lane's load ---- */

bool lane_may_prepare(struct target *t)
{
	struct lanes *k = t->lane->of->lanes;
	if (k->preparing && k->preparing != t)
		return false;
	k->preparing = t;
	return true;
}

void lane_prepared(struct target *t)
{
	let_prepare(t->lane->of->lanes);
}

void lane_load(struct target *t, enum load_state state, struct relation *rel)
{
	const struct table_load *l = t->lane->load;
	const struct target_table *known = l->table;
	struct target_table *tb = table_get(t, rel);
	tb->loaded_lsn = known->loaded_lsn;
	tb->is_made = known->is_made;
	tb->has_made_key = known->has_made_key;
	tb->has_told_triggers = known->has_told_triggers;
	tb->has_rests = known->has_rests;
	tb->was_loaded = known->was_loaded;
	t->load = (struct load){ .state = state, .table = tb, .lsn = l->lsn, .server = l->server, .rows = l->rows };
	t->load.piece = l->parts ? LOAD_FRAME : LOAD_WHOLE;
	t->load.part = t->lane->part;
	t->load.keeps_parts = l->keeps_parts;
	t->load.goes_on = l->since != 0;
	t->load.since = l->since ? l->since : l->begun_lsn;
	t->load.in_turns = l->in_turns;
	t->load.rows_move = l->rows_move;
	t->load.merges = l->rows_move || (l->in_turns && l->lsn > l->begun_lsn);
}

static void learn(struct target *t, uint64_t loaded_lsn)
{
	struct target_table *tb = t->lane->load->table;
	tb->loaded_lsn = loaded_lsn;
	tb->is_made = t->load.table->is_made;
	tb->has_made_key = t->load.table->has_made_key;
	tb->has_told_triggers = t->load.table->has_told_triggers;
	table_reset(t->lane->of, tb);
}

void lane_made(struct target *t)
{
	struct table_load *l = t->lane->load;
	learn(t, l->in_turns ? l->begun_lsn : LOADED_IN_PART);
	if (l->in_turns) {
		l->table->until_lsn = UINT64_MAX;
		l->table->rows_move = false;
	}
	t->lane->load->keeps_parts = t->load.keeps_parts;
	set_stage(t->lane->of, t->lane->load, STAGE_FILLING);
	let_go(t->lane);
}

void lane_put_part(struct target *t)
{
	t->lane->load->rows += t->load.rows;
	let_go(t->lane);
}

void lane_loaded(struct target *t)
{
	struct lane *lane = t->lane;
	struct target *of = lane->of;
	struct target_table *tb = lane->load->table;
	learn(t, t->load.since);
	tb->until_lsn = t->load.since < t->load.lsn ? t->load.lsn : 0;
	tb->rows_move = t->load.rows_move;
	tb->has_rests = tb->until_lsn != 0;
	/* It is durable, whatever becomes of a transaction that is open. */
	table_counts(of, tb);
	tb->counts.loaded += t->load.rows;
	of->stat.rows_applied += t->load.rows;
	of->stat.transactions++;
	drop_load(of, lane->load);
	let_go(lane);
}

void lane_rest(struct target *t)
{
	t->lane->is_stale = is_free(t->lane);
	target_wake(t->lane->of);
}

/* ---- life ---- */

struct target *lanes_next(const struct target *t, const struct target *after)
{
	struct lane *l = after ? after->lane->next : t->lanes ? t->lanes->first : NULL;
	while (l && !l->t)
		l = l->next;
	return l ? l->t : NULL;
}

bool lanes_are_at_work(const struct target *t)
{
	for (const struct table_load *l = t->lanes->loads; l; l = l->next)
		if (!rests(t, l))
			return true;
	return t->lanes->finish != FINISH_NONE;
}

void lanes_turn(struct target *t)
{
	for (struct lane *l = t->lanes->first, *next; l; l = next) {
		next = l->next;
		if (l->is_stale && is_free(l))
			close_lane(t, l);
	}
	for (struct table_load *l = t->lanes->loads; l; l = l->next)
		if (l->is_cut && !is_at_work(t, l))
			let_begin(l);
	lend_ends(t);
}

const char *lanes_phase(const struct target *t)
{
	const char *phase = NULL;
	if (t->lanes->finish != FINISH_NONE)
		return "indexing";
	for (const struct lane *l = t->lanes->first; l; l = l->next)
		if (l->load && (!phase || l->t->load.state == LOAD_OPEN))
			phase = l->t->load.state == LOAD_OPEN || l->t->load.state == LOAD_ENDING ? "loading" : "preparing";
	return phase;
}

size_t lanes_queued_bytes(const struct target *t)
{
	size_t bytes = 0;
	for (const struct lane *l = t->lanes->first; l; l = l->next)
		bytes += l->t->queued_bytes;
	return bytes;
}

void lanes_init(struct target *t) { t->lanes = mem_zalloc(sizeof *t->lanes); }

void lanes_close(struct target *t)
{
	while (t->lanes->first)
		close_lane(t, t->lanes->first);
	while (t->lanes->loads)
		drop_load(t, t->lanes->loads);
}

void lanes_fini(struct target *t)
{
	build_end(t);
	lanes_close(t);
	free(t->lanes->tables);
	free(t->lanes);
	t->lanes = NULL;
}
