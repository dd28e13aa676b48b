/* fake_source: walks a script. A batch a turn; what is had already (start) is passed over by position, as a real source does it. */
#include "fake_int.h"
#include <assert.h>
#include <stdlib.h>

struct noting;

struct fake_source {
	struct noting *noting;          /* NULL: none under way */
	struct fake_script *script;
	struct fake_source *next;
	struct dmsr_source_host host;
	struct loop_task *task;
	struct dmsr_source_start start;
	struct dmsr_loaded *loaded;     /* copies */
	bool is_loading, has_told;      /* load_begins was said, and not load_ends; one of them was */
	bool has_loaded;                /* a table, in this run */
	bool is_started, is_noted, is_paused, is_full, is_stopping, is_over, is_closed, is_in_task;
	const char *phase;
	struct batch *pending;
	size_t step;
	unsigned at;                    /* load: next batch, 0 LOAD_BEGIN, n + 1 LOAD_END; txn: changes that are out */
	bool is_begun;                  /* the transaction's begin is out */
	struct err error;
	struct dmsr_source_stat stat;
};

static struct fake_source *of(struct dmsr_instance *i) { return (struct fake_source *)(void *)i; }

void fake_source_wake(struct fake_script *s)
{
	for (struct fake_source *i = s->instances; i; i = i->next)
		loop_task_post(i->task);
}

/* ---- what is had ---- */

static bool is_loaded(const struct fake_source *s, const struct relation *rel)
{
	for (size_t i = 0; i < s->start.nloaded; i++)
		if (!strcmp(s->loaded[i].schema, rel->schema) && !strcmp(s->loaded[i].name, rel->name))
			return true;
	return false;
}

static bool is_had(const struct fake_source *s, const struct step *st)
{
	bool loads = s->start.mode & DMSR_FULL_LOAD;
	switch (st->kind) {
	case STEP_LOAD:
		return !loads || is_loaded(s, st->rel); /* also behind OP_LOAD_DONE: one that is wanted again */
	case STEP_LOAD_DONE:
		return !loads || (s->start.load_done && !s->has_loaded);
	case STEP_TXN:
		return !(s->start.mode & DMSR_CDC) || position_covers(&s->start.from, st->lsn, POSITION_WHOLE);
	case STEP_HEARTBEAT:
		return !(s->start.mode & DMSR_CDC) || position_covers(&s->start.from, st->lsn, 0);
	case STEP_GATE: case STEP_FAIL:
		return false;
	}
	return false;
}

/* Beside the stream a load lasts from the start to the last of its steps. */
static void look_for_loads(struct fake_source *s)
{
	bool any = s->pending && s->pending->is_load && !s->pending->in_turn;
	for (size_t n = s->step; n < s->script->nsteps; n++) {
		const struct step *st = &s->script->steps[n];
		any |= (st->kind == STEP_LOAD || st->kind == STEP_LOAD_DONE) && !st->in_turn && !is_had(s, st);
	}
	if (!s->start.is_beside || (s->has_told && any == s->is_loading))
		return;
	s->has_told = true;
	s->is_loading = any;
	if (any)
		s->host.load_begins(s->host.ctx);
	else
		s->host.load_ends(s->host.ctx);
}

static void enter(struct fake_source *s)
{
	const struct position *from = &s->start.from;
	s->at = 0;
	s->is_begun = false;
	while (s->step < s->script->nsteps && is_had(s, &s->script->steps[s->step]))
		s->step++;
	if (s->step == s->script->nsteps)
		return;
	const struct step *st = &s->script->steps[s->step];
	if (st->kind == STEP_TXN && from->kind && from->lsn == st->lsn && from->event) {
		s->at = (unsigned)from->event;
		s->is_begun = true;
	}
}

static void leave(struct fake_source *s)
{
	s->step++;
	enter(s);
}

/* ---- the next batch ---- */

static void report(struct fake_source *s, const struct step *st, bool done)
{
	int64_t total = (int64_t)st->n * st->per, rows = s->at > st->n ? total : (int64_t)s->at * st->per;
	const struct dmsr_load_progress p = {
		.schema = st->rel->schema,
		.name = st->rel->name,
		.rows = rows,
		.bytes = rows * 8,
		.rows_total = total,
		.bytes_total = total * 8,
		.done = done,
	};
	if (s->host.progress)
		s->host.progress(s->host.ctx, &p);
}

static void add_load(struct fake_source *s, const struct step *st, struct batch *b)
{
	b->is_load = true;
	b->in_turn = st->in_turn;
	batch_txn(b, &(struct txn){ .lsn = st->lsn });
	if (st->kind == STEP_LOAD_DONE) {
		batch_append(b, OP_LOAD_DONE, NULL);
		leave(s);
	} else if (s->at == 0) {
		batch_append(b, OP_LOAD_BEGIN, st->rel);
		s->has_loaded = true;
		s->at++;
	} else if (s->at <= st->n) {
		fake_add_rows(b, st->rel, st->first_id + (int64_t)(s->at - 1) * st->per, st->per);
		report(s, st, false);
		s->at++;
	} else {
		batch_append(b, OP_LOAD_END, st->rel);
		report(s, st, true);
		leave(s);
	}
}

static void add_txn(struct fake_source *s, const struct step *st, struct batch *b)
{
	batch_txn(b, &(struct txn){ .lsn = st->lsn, .xid = (uint32_t)st->lsn, .commit_us = wall_now_us() });
	if (!s->is_begun) {
		batch_append(b, OP_BEGIN, NULL);
		s->is_begun = true;
		if (st->has_schema) {
			batch_append(b, OP_SCHEMA, st->rel)->u.schema.old = st->old;
			if (st->old)
				batch_hold(b, st->old);
		}
	}
	for (unsigned k = 0; k < st->per && s->at < st->n; k++, s->at++)
		fake_add_row(b, st->op, st->rel, s->at + 1, st->first_id + s->at, st->pad);
	b->more = s->at < st->n;
	b->end = fake_position(st->lsn, s->at);
	if (b->more)
		return;
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	b->end = fake_position(st->lsn, POSITION_WHOLE);
	s->stat.last_commit_us = b->txn->commit_us;
	leave(s);
	const struct step *next = s->step < s->script->nsteps ? &s->script->steps[s->step] : NULL;
	if (st->joins && next && next->kind == STEP_TXN)
		add_txn(s, next, b);
}

static void die(struct fake_source *s, const struct err *e)
{
	s->error = *e;
	s->phase = "failed";
	s->script->stat.failed++;
	loop_task_post(s->task);
}

/* NULL: not now, or never. */
static struct batch *next_batch(struct fake_source *s)
{
	while (s->step < s->script->nsteps) {
		struct step *st = &s->script->steps[s->step];
		if (st->kind == STEP_GATE && !st->is_open)
			return NULL;
		if (st->kind == STEP_FAIL && st->n) {
			st->n--;
			die(s, &st->error);
			return NULL;
		}
		if (st->kind == STEP_GATE || st->kind == STEP_FAIL) {
			leave(s);
			continue;
		}
		if (st->in_turn && !s->at && !s->host.turn_is_applied(s->host.ctx, true)) {
			loop_task_post(s->task);
			return NULL;
		}
		struct batch *b = batch_new();
		b->received_us = wall_now_us();
		s->phase = st->kind == STEP_LOAD || st->kind == STEP_LOAD_DONE ? "loading" : "streaming";
		if (st->kind == STEP_TXN) {
			add_txn(s, st, b);
		} else if (st->kind == STEP_HEARTBEAT) {
			batch_append(b, OP_HEARTBEAT, NULL);
			b->end = fake_position(st->lsn, 0);
			b->end.flush = st->lsn;
			leave(s);
		} else {
			add_load(s, st, b);
		}
		return b;
	}
	return NULL;
}

/* ---- a turn ---- */

static void emit(struct fake_source *s)
{
	struct fake_script_stat *stat = &s->script->stat;
	if (!s->pending)
		s->pending = next_batch(s);
	if (!s->pending)
		return;
	struct position end = s->pending->end;
	enum dmsr_verdict v = s->host.emit(s->host.ctx, s->pending);
	assert(v == DMSR_OK || v == DMSR_AGAIN);
	if (v == DMSR_AGAIN) {
		s->is_full = true;
		stat->refused++;
		return;
	}
	s->pending = NULL;
	look_for_loads(s);
	stat->batches++;
	s->stat.last_event_us = wall_now_us();
	if (!position_is_none(&end)) {
		s->stat.received = end;
		if (position_is_comparable(&end, &stat->emitted) && position_compare(&end, &stat->emitted) > 0)
			stat->emitted = end;
	}
	loop_task_post(s->task);
}

/* A note under way: its answer comes, even when the instance is closed by then. */
struct noting { struct fake_source *s; };

static void on_noted(void *arg, const struct err *e)
{
	struct noting *n = arg;
	struct fake_source *s = n->s;
	free(n);
	if (!s)
		return;
	s->noting = NULL;
	s->is_noted = true;
	if (e)
		die(s, e);
	loop_task_post(s->task);
}

static void tell_end(struct fake_source *s)
{
	if (s->is_over)
		return;
	if (s->error.code) {
		s->is_over = true;
		s->host.failed(s->host.ctx, &s->error);
	} else if (s->is_stopping) {
		s->is_over = true;
		s->script->stat.stopped++;
		s->host.stopped(s->host.ctx);
	} else if (s->is_noted && s->step == s->script->nsteps && !s->pending) {
		bool was = s->script->stat.is_at_end;
		s->script->stat.is_at_end = true;
		if (s->start.mode == DMSR_FULL_LOAD && !was)
			s->host.finished(s->host.ctx);
	}
}

static void release(struct fake_source *s)
{
	struct fake_source **at = &s->script->instances;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->script->stat.live--;
	if (s->noting)
		s->noting->s = NULL;
	batch_free(s->pending);
	loop_task_free(s->task);
	for (size_t k = 0; k < s->start.nloaded; k++) {
		free((void *)(uintptr_t)s->loaded[k].schema);
		free((void *)(uintptr_t)s->loaded[k].name);
	}
	free(s->loaded);
	free(s);
}

static void on_task(void *arg)
{
	struct fake_source *s = arg;
	s->is_in_task = true;
	if (s->is_started && s->is_noted && !s->is_paused && !s->is_full && !s->is_stopping && !s->error.code)
		emit(s);
	if (!s->is_closed)
		tell_end(s);
	s->is_in_task = false;
	if (s->is_closed)
		release(s);
}

/* ---- the verbs ---- */

static int source_open(const struct settings *settings, const struct dmsr_tables *tables, const struct dmsr_source_host *host,
	struct dmsr_instance **out, struct err *e)
{
	const char *name = settings_str(settings, "script");
	struct fake_script *script = fake_script_find(name);
	(void)tables;
	if (!script)
		return err_set(e, DMSR_ENOTFOUND, "source.fake", "there is no script %s", name);
	struct fake_source *s = mem_zalloc(sizeof *s);
	s->script = script;
	s->host = *host;
	s->phase = "new";
	s->next = script->instances;
	script->instances = s;
	script->stat.opened++;
	script->stat.live++;
	s->task = loop_task_new(host->env.loop, "fake", on_task, s);
	*out = (struct dmsr_instance *)(void *)s;
	return 0;
}

static void source_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	struct fake_source *s = of(i);
	struct fake_script_stat *stat = &s->script->stat;
	assert(!s->is_started);
	s->is_started = true;
	s->phase = "preparing";
	s->start = *start;
	s->loaded = mem_zalloc((start->nloaded + 1) * sizeof *s->loaded);
	for (size_t k = 0; k < start->nloaded; k++)
		s->loaded[k] = (struct dmsr_loaded){ mem_strdup(start->loaded[k].schema), mem_strdup(start->loaded[k].name), start->loaded[k].at };
	s->stat.confirmed = start->from;
	if (position_is_none(&start->from)) /* a stream begins somewhere */
		s->stat.confirmed = (struct position){ .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = 1, .flush = 1 };
	stat->started++;
	stat->mode = start->mode;
	stat->from = start->from;
	stat->nloaded = start->nloaded;
	stat->nbegun = start->nbegun;
	stat->begun_at = start->nbegun ? start->begun[0].at : (struct position){ 0 };
	stat->begun_parts = start->nbegun ? start->begun[0].nparts : 0;
	stat->load_done = start->load_done;
	stat->is_at_end = false;
	look_for_loads(s);
	enter(s);
	s->is_noted = !s->host.note_get || s->host.note_get(s->host.ctx, "started");
	if (!s->is_noted) {
		s->noting = mem_alloc(sizeof *s->noting);
		s->noting->s = s;
		s->host.note_put(s->host.ctx, "started", "1", on_noted, s->noting);
	}
	loop_task_post(s->task);
}

static void source_pause(struct dmsr_instance *i)
{
	struct fake_source *s = of(i);
	s->is_paused = s->script->stat.is_paused = true;
}

static void source_resume(struct dmsr_instance *i)
{
	struct fake_source *s = of(i);
	s->is_paused = s->is_full = s->script->stat.is_paused = false;
	loop_task_post(s->task);
}

/* Rule of the ledger: forwards, nothing that was not sent, nothing that is not durable. */
static void source_confirm(struct dmsr_instance *i, const struct position *p)
{
	struct fake_source *s = of(i);
	struct fake_script_stat *stat = &s->script->stat;
	assert(!position_is_none(p) && position_is_comparable(p, &stat->confirmed));
	assert(position_compare(p, &stat->confirmed) >= 0 && "confirmed backwards");
	assert(position_compare(p, &stat->emitted) <= 0 && "confirmed what was never sent");
	assert((!s->script->is_durable || s->script->is_durable(s->script->arg, p)) && "confirmed what is not durable");
	stat->confirmed = *p;
	s->stat.confirmed = *p;
}

static void source_stat(struct dmsr_instance *i, struct dmsr_source_stat *out)
{
	const struct fake_source *s = of(i);
	*out = s->stat;
	uint64_t wrote = s->script->wrote ? s->script->wrote : s->script->lsn;
	out->server_lsn = wrote == FAKE_UNASKED ? 0 : wrote;
	out->lag_bytes = wrote == FAKE_UNASKED ? -1 : wrote > s->stat.confirmed.flush ? (int64_t)(wrote - s->stat.confirmed.flush) : 0;
	out->connected = out->streaming = s->is_started && !s->is_over;
	out->paused = s->is_paused || s->is_full;
	out->phase = s->phase;
	out->slot = s->is_started ? "fake" : NULL;
	out->retained_bytes = out->lag_bytes;
	out->safe_bytes = -1;
}

static void source_stop(struct dmsr_instance *i)
{
	struct fake_source *s = of(i);
	s->is_stopping = true;
	loop_task_post(s->task);
}

static void source_close(struct dmsr_instance *i)
{
	struct fake_source *s = of(i);
	s->is_closed = true;
	if (!s->is_in_task)
		release(s);
}

static bool loads_beside(const struct settings *s) { return settings_bool(s, "beside"); }

const struct dmsr_source fake_source = {
	.loads_beside = loads_beside,
	.open = source_open,
	.start = source_start,
	.pause = source_pause,
	.resume = source_resume,
	.confirm = source_confirm,
	.stat = source_stat,
	.stop = source_stop,
	.close = source_close,
};
