/* target: rows and changes into a PostgreSQL database, exactly once.
 *
 * In come lent batches, in order; out go SQL and COPY to the server, and to the host the tokens of what is durable. How far a job has come stands in
 * dmsr.positions, written in the same transaction as the rows; which tables are loaded in dmsr.loads. So whatever dies, and whenever: what the server
 * says at the next start is the truth, and what it has already is passed over.
 *
 *   NEW -> CONNECTING -> SETUP -> WORKING -> STOPPING -> STOPPED          NEW, CONNECTING, SETUP -> STOPPED, asked to
 *   CONNECTING, SETUP, WORKING -> DEAD: told by failed(), once            an error in STOPPING is its end, too: STOPPED
 *
 * This file is the life of an instance, its queue, and the order of work: one change after another is offered to the part that knows it (row change, column
 * change), and between source transactions it is asked whether to commit. Nothing is read ahead of what the connection takes. Batches of a load go on
 * to lanes, which are instances too, of which no host knows (target_lanes.c). */
#include "target.h"
#include "target_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	QUEUE_BYTES = 8 << 20,          /* taken and not read yet: beyond, AGAIN */
	LANE_QUEUE_BYTES = 4 << 20,
	LANE_REST_MS = 10000,
	PATIENCE_MS = 10000,
	QUIET_S = 3600,                 /* one that is always slow is told of this rarely */
	SLICE_US = 1000,
	SLICE_LOOK = 32,                /* changes between two looks at the clock */
};

static const char *const state_names[TARGET_STATES] = { "new", "connecting", "set-up", "working", "stopping", "stopped", "dead" };
static const bool allowed[TARGET_STATES][TARGET_STATES] = {
	[TARGET_NEW] = { [TARGET_CONNECTING] = true, [TARGET_STOPPED] = true },
	[TARGET_CONNECTING] = { [TARGET_SETUP] = true, [TARGET_STOPPED] = true, [TARGET_DEAD] = true },
	[TARGET_SETUP] = { [TARGET_WORKING] = true, [TARGET_STOPPED] = true, [TARGET_DEAD] = true },
	[TARGET_WORKING] = { [TARGET_STOPPING] = true, [TARGET_DEAD] = true },
	[TARGET_STOPPING] = { [TARGET_STOPPED] = true },
};

static void set_state(struct target *t, enum target_state to, const char *why)
{
	assert(allowed[t->state][to]);
	log_debug("target", t->host.env.job, "%s: %s -> %s: %s", t->host.env.name, state_names[t->state], state_names[to], why);
	t->state = to;
}

/* ---- the end ---- */

static void disconnect(struct target *t)
{
	if (t->lanes)
		lanes_close(t);
	pgconn_free(t->conn);
	t->conn = NULL;
	t->is_asking = false;
	t->in_pipeline = false;
	t->then = NULL;
	loop_timer_stop(t->timer);
	loop_timer_stop(t->patience);
}

void target_fail(struct target *t, const struct err *e)
{
	if (t->state == TARGET_DEAD || t->state == TARGET_STOPPED)
		return;
	/* What could not be finished while stopping is rolled back by the server, and comes again at the next start. */
	set_state(t, t->state == TARGET_STOPPING ? TARGET_STOPPED : TARGET_DEAD, e->message);
	t->error = *e;
	disconnect(t);
	loop_task_post(t->task);
}

enum policy target_policy(const struct target *t, const struct err *e)
{
	if (!strcmp(e->id, "target.constraint"))
		return t->on_constraint_error;
	if (!strcmp(e->id, "target.row-missing") || !strcmp(e->id, "target.row-ambiguous"))
		return t->on_missing_row;
	return e->code == DMSR_EDATA ? t->on_data_error : POLICY_STOP;
}

void target_fail_row(struct target *t, struct err *e)
{
	e->retriable = e->retriable || target_policy(t, e) == POLICY_RETRY;
	target_fail(t, e);
}

bool target_died(struct target *t, bool has_failed)
{
	struct err e = { 0 };
	if (!has_failed)
		return false;
	err_retry(&e, DMSR_EIO, "target.failpoint", "failed at a failpoint, as asked");
	target_fail(t, &e);
	return true;
}

void target_wake(struct target *t) { loop_task_post(t->task); }

static void stopped(struct target *t, const char *why)
{
	set_state(t, TARGET_STOPPED, why);
	disconnect(t);
	loop_task_post(t->task);
}

static void tell_end(struct target *t)
{
	if (t->told)
		return;
	t->told = true;
	if (t->state == TARGET_STOPPED)
		t->host.stopped(t->host.ctx);
	else
		t->host.failed(t->host.ctx, &t->error);
}

/* ---- questions ---- */

/* Which right it is that a question of ours was refused for. */
static enum right missing_right(const struct target *t)
{
	if (t->load.state != LOAD_PREPARING)
		return RIGHT_POSITIONS;
	switch (t->load.how) {
	case HOW_MAKE: return RIGHT_SCHEMA;
	case HOW_DROP: return RIGHT_OWN;
	case HOW_KEEP: case HOW_EMPTY: break;
	}
	return RIGHT_EMPTY;
}

/* Once it is set up, what may fail may take its time as well, an index being built; but not what comes before the rows of a table. */
static bool should_answer(const struct target *t)
{
	if (t->is_asking)
		return !t->may_fail || t->state == TARGET_SETUP || t->load.state == LOAD_PREPARING;
	return t->tx.syncs > 0;
}

static void on_patience(void *arg)
{
	struct target *t = arg;
	if (!t->conn || !should_answer(t))
		return;
	if (!t->is_asking && t->tx.nresults != t->heard) {
		target_await(t);
		return;
	}
	uint64_t now = loop_now_us(t->loop), quiet_us = t->told_slow_us ? t->told_slow_us + QUIET_S * (uint64_t)1000000 : 0;
	if (now < quiet_us) { /* of what has no answer then, it is told then */
		loop_timer_start(t->patience, (quiet_us - now) / 1000 + 1);
		return;
	}
	t->told_slow_us = now;
	char *text = mem_printf("%s gave no answer to %s for %d s: it may wait for a lock, for a synchronous standby or for its disk; there, SELECT pid, "
		"wait_event_type, wait_event, query FROM pg_stat_activity WHERE application_name LIKE 'dmsr:%s:%%' tells", pgconn_describe(t->conn),
		!t->is_asking && t->tx.state == TX_COMMITTING ? "a COMMIT" : "a statement", PATIENCE_MS / 1000, t->host.env.job);
	t->host.notice(t->host.ctx, text);
	free(text);
}

void target_await(struct target *t)
{
	t->heard = t->tx.nresults;
	loop_timer_start(t->patience, PATIENCE_MS);
}

static void on_answer(void *arg, const PGresult *res, const struct err *e)
{
	struct target *t = arg;
	PQclear(t->answer);
	t->answer = res ? PQcopyResult(res, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES) : NULL;
	t->is_asking = false;
	if (e) {
		t->answer_error = *e;
		snprintf(t->sqlstate, sizeof t->sqlstate, "%s", pgconn_sqlstate(t->conn));
		if (!t->may_fail) {
			right_hint(&t->answer_error, missing_right(t), t->settings, t->load.table ? t->load.table->schema : NULL,
				t->load.table ? t->load.table->name : NULL);
			target_fail(t, &t->answer_error);
			return;
		}
	}
	loop_task_post(t->task);
}

static void ask(struct target *t, const char *sql, int n, const char *const *values, void (*then)(struct target *t))
{
	assert(!t->is_asking && !t->in_pipeline);
	t->is_asking = true;
	t->then = then;
	target_await(t);
	pgconn_query_params(t->conn, sql, n, values, on_answer, t);
}

void target_ask(struct target *t, const char *sql, int n, const char *const *values, void (*then)(struct target *t))
{
	t->may_fail = false;
	ask(t, sql, n, values, then);
}

void target_try(struct target *t, const char *sql, int n, const char *const *values, void (*then)(struct target *t))
{
	t->may_fail = true;
	ask(t, sql, n, values, then);
}

/* ---- the queue ---- */

static size_t queue_bytes(const struct target *t) { return t->lane ? LANE_QUEUE_BYTES : QUEUE_BYTES; }

bool target_has_room(struct target *t)
{
	bool has_room = t->queued_bytes <= queue_bytes(t) || !t->cur;
	t->said_again |= !has_room;
	return has_room;
}

static void take_room(struct target *t)
{
	if (!t->said_again || t->queued_bytes > queue_bytes(t) / 2)
		return;
	t->said_again = false;
	t->host.resume(t->host.ctx);
}

void target_take(struct target *t, const struct batch *b, uint64_t token)
{
	struct item *it = mem_zalloc(sizeof *it);
	it->batch = b;
	it->token = token;
	it->bytes = b->bytes;
	it->is_load = b->is_load;
	if (t->tail)
		t->tail->next = it;
	else
		t->head = it;
	t->tail = it;
	if (!t->cur) {
		t->cur = it;
		t->at = b->first;
	}
	tx_came(t, it);
	t->queued_bytes += it->bytes;
	t->is_flushing = false;
	loop_task_post(t->task);
}

void target_tell_consumed(struct target *t)
{
	struct item *it = t->eaten ? t->eaten->next : t->head;
	for (; it && it->is_eaten && !t->is_closed; it = it->next) {
		t->eaten = it;
		it->batch = NULL;
		t->host.consumed(t->host.ctx, it->token);
	}
}

/* Only what is of a load is read when something before it is read again. */
void target_pass_read(struct target *t)
{
	while (t->cur && t->cur->is_read)
		t->cur = t->cur->next;
	t->at = t->cur ? t->cur->batch->first : NULL;
}

/* All changes of the batch at hand were dealt with. */
static void finish_item(struct target *t)
{
	struct item *it = t->cur;
	const struct batch *b = it->batch;
	it->is_read = true;
	target_pass_read(t);
	t->queued_bytes -= it->bytes;
	if (!b->more && !position_is_none(&b->end) && !it->is_load)
		tx_reached(t, &b->end);
	if (it->is_load && !it->is_lent)
		it->is_eaten = it->is_done = true;
	else if (it->is_load && finish_owes(t, it))
		it->is_eaten = true; /* what is owed waits for the end of a transaction, whose rest may wait for room */
	else if (it->is_load)
		; /* its lane says so, and may have done it already */
	else if (t->tx.state == TX_NONE)
		it->is_eaten = true;
	else
		t->tx.held_bytes += it->bytes;
	target_tell_consumed(t);
	if (!t->is_closed)
		take_room(t);
}

/* The counts that are to be told; their strings are the tables'. */
static struct dmsr_table_counts *take_counts(struct target *t, size_t *n)
{
	size_t cap = 0;
	for (const struct target_table *tb = t->counted; tb; tb = tb->next_counted)
		cap++;
	struct dmsr_table_counts *out = mem_alloc((cap + 1) * sizeof *out);
	for (*n = 0; t->counted; t->counted = t->counted->next_counted) {
		struct target_table *tb = t->counted;
		out[*n] = tb->counts;
		out[*n].schema = tb->schema;
		out[(*n)++].name = tb->name;
		tb->counts = (struct dmsr_table_counts){ 0 };
		tb->has_counts = false;
	}
	return out;
}

/* Is it durable? What was read of the stream is when nothing is open, not even a transaction of which all was passed over: we do not stand inside of one. */
static bool is_settled(const struct target *t, const struct item *it)
{
	if (!it || !it->is_read || finish_owes(t, it))
		return false;
	if (t->lane)
		return t->load.state == LOAD_NONE;
	if (it->is_load)
		return it->is_done;
	return t->tx.state == TX_NONE && !t->tx.in_source && position_compare(&t->tx.whole, &t->durable) <= 0;
}

/* The counts of all tables go with the last token. */
static void settle(struct target *t)
{
	size_t n;
	target_tell_consumed(t);
	if (t->is_closed || !is_settled(t, t->head))
		return;
	struct dmsr_table_counts *counts = take_counts(t, &n);
	t->stat.last_applied_us = wall_now_us();
	while (is_settled(t, t->head) && !t->is_closed) {
		struct item *it = t->head;
		bool is_last = !is_settled(t, it->next);
		t->head = it->next;
		if (!t->head)
			t->tail = NULL;
		if (t->eaten == it)
			t->eaten = NULL;
		t->host.applied(t->host.ctx, it->token, counts, is_last ? n : 0);
		free(it);
	}
	free(counts);
}

/* ---- the order of work ---- */

static enum step stream_step(struct target *t, const struct batch *b, const struct change *ch)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_READ:
		return apply_row(t, ch);
	case OP_TRUNCATE:
		return apply_truncate(t, ch);
	case OP_SCHEMA:
		return ddl_step(t, ch);
	case OP_BEGIN:
		if (tx_should_end_before(t, b, ch)) {
			t->tx.must_last = true;
			if (tx_commit(t) == STEP_WAIT)
				return STEP_WAIT;
		}
		t->tx.in_source = true;
		return STEP_DONE;
	case OP_COMMIT:
		t->tx.in_source = false;
		t->tx.commit_us = ch->txn->commit_us;
		tx_reached(t, &(struct position){ .kind = POSITION_LSN, .server = b->end.server, .lsn = ch->txn->lsn, .event = POSITION_WHOLE });
		return STEP_DONE;
	case OP_MESSAGE: case OP_HEARTBEAT:
		return STEP_DONE;
	case OP_LOAD_DONE:
		return finish_take(t);
	case OP_LOAD_BEGIN: case OP_ROWS: case OP_LOAD_PART: case OP_LOAD_END:
		break; /* of a load, in a batch that is of none */
	}
	return STEP_DONE;
}

static enum step one_change(struct target *t)
{
	const struct batch *b = t->cur->batch;
	if (t->lane)
		return load_step(t, t->at);
	if (b->is_load)
		return lanes_take(t);
	return lanes_settle(t) == STEP_WAIT ? STEP_WAIT : stream_step(t, b, t->at);
}

/* The end of a stop: true when there is nothing left that may be committed. */
static bool may_leave(const struct target *t)
{
	if (lanes_are_at_work(t))
		return true;
	if (t->tx.in_source)
		return !t->cur;
	return t->tx.state == TX_NONE && position_compare(&t->tx.whole, &t->durable) <= 0;
}

static bool has_slice_left(struct target *t, uint64_t began_us, unsigned *n)
{
	if (++*n % SLICE_LOOK || loop_now_us(t->loop) - began_us < SLICE_US)
		return true;
	loop_task_post(t->task);
	return false;
}

/* When nothing comes any more, what is open is committed in time. */
static void wait_for_more(struct target *t)
{
	if (t->lane && finish_work(t))
		return;
	if (t->lane)
		loop_timer_start(t->timer, LANE_REST_MS);
	if (t->in_pipeline)
		pgconn_pipeline_flush(t->conn);
	uint64_t left_us = tx_commit_due(t);
	if (left_us)
		loop_timer_start_us(t->timer, left_us);
}

static void advance(struct target *t)
{
	uint64_t began_us = loop_now_us(t->loop);
	unsigned n = 0;
	if (t->lanes && target_is_alive(t))
		lanes_turn(t);
	while (target_is_alive(t) && !t->is_asking && !t->is_closed) {
		if (t->cur && !t->at) {
			finish_item(t);
			continue;
		}
		settle(t);
		if (!target_is_alive(t) || t->is_closed)
			return;
		if (t->state == TARGET_STOPPING && may_leave(t)) {
			stopped(t, "asked to");
			return;
		}
		if (careful_is_due(t)) {
			if (careful_recover(t) == STEP_WAIT)
				return;
			continue;
		}
		if (tx_should_commit(t)) {
			if (tx_commit(t) == STEP_WAIT)
				return;
			continue;
		}
		if (tx_should_hold(t)) {
			if (tx_hold(t) == STEP_WAIT)
				return;
			continue;
		}
		if (t->lanes && finish_is_due(t)) {
			if (finish_step(t) == STEP_WAIT)
				return;
			continue;
		}
		/* What is on its way there goes on, though more may have come: that is let go when it was read, for it may be that we were asked again. */
		if (t->is_letting_go && (!t->cur || t->tx.is_holding)) {
			if (tx_let_go(t) == STEP_DONE)
				t->is_letting_go = t->cur && !t->tx.is_holding;
			else if (!err_is_set(&t->tx.error))
				return;
			continue;
		}
		if (!t->cur) {
			if (!t->lane || !load_end(t))
				wait_for_more(t);
			return;
		}
		if (one_change(t) == STEP_WAIT)
			return;
		t->at = t->at->next;
		t->seq++;
		careful_pass(t);
		if (!has_slice_left(t, began_us, &n))
			return;
	}
}

static void release(struct target *t)
{
	if (t->lanes)
		lanes_fini(t);
	pgconn_free(t->conn);
	loop_task_free(t->task);
	loop_timer_free(t->timer);
	loop_timer_free(t->patience);
	PQclear(t->answer);
	while (t->head) {
		struct item *it = t->head;
		t->head = it->next;
		free(it);
	}
	ddlrun_fini(t);
	net_drop_all(t);
	buf_fini(&t->net_key);
	set_fini(t);
	stmt_fini(t);
	careful_fini(t);
	apply_fini(t);
	tx_fini(t);
	table_forget_all(t);
	ahead_fini(&t->ahead);
	free(t);
}

static void on_task(void *arg)
{
	struct target *t = arg;
	t->in_task = true;
	if (t->state == TARGET_DEAD || t->state == TARGET_STOPPED) {
		tell_end(t);
	} else if (t->then && !t->is_asking) {
		void (*then)(struct target * t) = t->then;
		t->then = NULL;
		then(t);
	}
	if (!t->is_closed)
		advance(t);
	t->in_task = false;
	if (t->is_closed)
		release(t);
}

static void on_timer(void *arg)
{
	struct target *t = arg;
	if (t->state == TARGET_SETUP)
		target_setup_again(t);
	else if (t->lane)
		lane_rest(t);
	loop_task_post(t->task);
}

/* ---- the connection ---- */

void target_work(struct target *t)
{
	set_state(t, TARGET_WORKING, "set up");
	t->stat.phase = "idle";
	if (t->lane)
		return;
	t->tx.whole = t->saved;
	t->durable = t->saved;
	t->host.ready(t->host.ctx, &t->saved, true, t->loaded, t->nloaded, t->load_done);
}

static void on_ready(void *ctx)
{
	struct target *t = ctx;
	set_state(t, TARGET_SETUP, "connected");
	t->stat.phase = "preparing";
	target_setup(t);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct target *t = ctx;
	target_fail(t, e);
}

/* ---- the verbs of the plugin ---- */

static void start(struct target *t)
{
	struct pgconn_owner owner = { .ctx = t, .on_ready = on_ready, .on_failed = on_failed };
	set_state(t, TARGET_CONNECTING, "started");
	t->conn = pgconn_new(&t->host.env, t->settings, PGCONN_SQL, &owner);
}

struct target *target_new(const struct settings *s, const struct dmsr_target_host *host, struct lane *lane)
{
	struct target *t = mem_zalloc(sizeof *t);
	t->host = *host;
	t->loop = host->env.loop;
	t->settings = s;
	t->prepare = judge_prepare(settings_str(s, "prepare"));
	t->on_ddl = judge_policy(settings_str(s, "ddl"));
	t->on_constraint_error = judge_policy(settings_str(s, "on_constraint_error"));
	t->on_data_error = judge_policy(settings_str(s, "on_data_error"));
	t->on_missing_row = judge_policy(settings_str(s, "on_missing_row"));
	t->commit_rows = (uint64_t)settings_int(s, "commit_rows");
	t->commit_bytes = (uint64_t)settings_int(s, "commit_bytes");
	t->commit_interval_us = (uint64_t)settings_int(s, "commit_interval") * 1000;
	t->synchronous_commit = settings_bool(s, "synchronous_commit");
	t->replication_role = settings_str(s, "session_replication_role");
	t->tables = map_new();
	t->known = map_new();
	t->task = loop_task_new(t->loop, "target", on_task, t);
	t->timer = loop_timer_new(t->loop, "target", on_timer, t);
	t->patience = loop_timer_new(t->loop, "target", on_patience, t);
	t->stat.phase = "connecting";
	t->seq = 1;
	ahead_init(&t->ahead);
	arena_init(&t->net_arena, 0);
	buf_init(&t->net_key, 64 << 10);
	apply_init(t);
	stmt_init(t);
	set_init(t);
	t->lane = lane;
	if (lane)
		start(t);
	else
		lanes_init(t);
	return t;
}

static int target_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)e;
	*out = &target_new(s, host, NULL)->base;
	return 0;
}

static void target_start(struct dmsr_instance *i) { start((struct target *)i); }

static size_t target_begun(struct dmsr_instance *i, const struct dmsr_begun **out)
{
	*out = ((struct target *)i)->begun;
	return ((struct target *)i)->nbegun;
}

static enum dmsr_verdict target_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	struct target *t = (struct target *)i;
	if (t->state != TARGET_WORKING || !target_has_room(t)) {
		t->said_again = true;
		return DMSR_AGAIN;
	}
	target_take(t, b, token);
	return DMSR_OK;
}

static void target_flush(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;
	t->is_flushing = true;
	loop_task_post(t->task);
}

static void let_go(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;
	t->is_letting_go = true;
	target_flush(i);
}

static void target_stat(struct dmsr_instance *i, struct dmsr_target_stat *out)
{
	struct target *t = (struct target *)i;
	*out = t->stat;
	out->applied = t->state < TARGET_WORKING ? t->saved : t->durable;
	out->queued_bytes = t->queued_bytes + lanes_queued_bytes(t);
	out->connected = t->state == TARGET_SETUP || target_is_alive(t);
	build_stat(t, out);
	if (t->state == TARGET_WORKING)
		out->phase = lanes_phase(t) ? lanes_phase(t) : t->cur || t->tx.state != TX_NONE ? "applying" : "idle";
}

static void target_stop(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;
	if (t->state == TARGET_WORKING)
		set_state(t, TARGET_STOPPING, "asked to");
	else if (t->state < TARGET_WORKING)
		stopped(t, "asked to, before it worked");
	loop_task_post(t->task);
}

void target_close(struct target *t)
{
	if (!t)
		return;
	if (!t->in_task) {
		release(t);
		return;
	}
	t->is_closed = true;
	disconnect(t);
}

static void close_instance(struct dmsr_instance *i) { target_close((struct target *)i); }

const struct dmsr_target target_strict = {
	.open = target_open,
	.start = target_start,
	.begun = target_begun,
	.apply = target_apply,
	.flush = target_flush,
	.let_go = let_go,
	.stat = target_stat,
	.stop = target_stop,
	.close = close_instance,
};
