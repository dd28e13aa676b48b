/* target_parallel: a target that writes through several connections at once.
 *
 * Each connection is a strict target (target.c) of its own: it applies what it is given in that order, many whole source transactions in one of its own, and
 * tells when they are durable. The first one holds the job's lock and the job's row in dmsr.positions, and does alone what is not to be spread. The
 * others are lanes; which source transaction goes to which lane, and when, says target_spread.c, so that those that conflict keep their order.
 *
 * Lanes commit at different times. So each has a row of its own in dmsr.positions, "UID/EPOCH/N", written in the transaction of its rows: a position behind
 * which nothing is missing in any lane, as far as was known then, and the transactions beyond it that this lane has applied (target_ahead.h). Nothing in
 * it depends on who was given what or how many lanes there are: at the next start the greatest position of all rows is true, and so are all transactions
 * beyond it that any row names. They are passed over, by whoever comes, strict targets included; all others come again.
 *
 *   NEW -> STARTING -> WORKING <-> RESCUING          WORKING, RESCUING -> STOPPING -> LEAVING -> STOPPED
 *   STARTING, WORKING, RESCUING -> DEAD, by an error                       NEW, STARTING, STOPPING -> STOPPED; so ends an error once it was asked to stop
 *
 * A lane judges nothing. When rows are refused (a constraint, a value, a row that is not there, a deadlock) it fails, and none of what it had not told is
 * there. The others commit what they hold; then the first connection does all that is left over, in the source's order: there the policies for errors
 * hold as ever, and what the rules did not foresee (an index made at the target meanwhile) mostly
 * comes right: not what a later transaction has taken already, which is refused once more. A connection that is lost is the end of
 * the instance: whether its last COMMIT came through, its row tells at the next start.
 *
 * Callbacks of the inner targets note what came and post the one task; all else happens there. */
#include "target_parallel.h"
#include "target.h"
#include <assert.h>
#include <stdlib.h>

enum {
	SLICE_US = 1000,
	SLICE_LOOK = 16,
	LANE_BYTES_MIN = 64 << 10,
	LANE_BYTES_MAX = 4 << 20,       /* less than an inner target takes at once */
};

struct strand_counts {
	struct dmsr_table_counts counts;
	char *names;
};

static const char *const state_names[PARALLEL_STATES] = { "new", "starting", "working", "rescuing", "stopping", "leaving", "stopped", "dead" };
static const bool allowed[PARALLEL_STATES][PARALLEL_STATES] = {
	[PARALLEL_NEW] = { [PARALLEL_STARTING] = true, [PARALLEL_STOPPED] = true },
	[PARALLEL_STARTING] = { [PARALLEL_WORKING] = true, [PARALLEL_STOPPED] = true, [PARALLEL_DEAD] = true },
	[PARALLEL_WORKING] = { [PARALLEL_RESCUING] = true, [PARALLEL_STOPPING] = true, [PARALLEL_DEAD] = true },
	[PARALLEL_RESCUING] = { [PARALLEL_WORKING] = true, [PARALLEL_STOPPING] = true, [PARALLEL_DEAD] = true },
	[PARALLEL_STOPPING] = { [PARALLEL_LEAVING] = true, [PARALLEL_STOPPED] = true },
	[PARALLEL_LEAVING] = { [PARALLEL_STOPPED] = true },
};

void parallel_set_state(struct parallel *p, enum parallel_state to, const char *why)
{
	assert(allowed[p->state][to]);
	log_debug("target", p->host.env.job, "%s: lanes %s -> %s: %s", p->host.env.name, state_names[p->state], state_names[to], why);
	p->state = to;
}

void parallel_wake(struct parallel *p) { loop_task_post(p->task); }

/* What could not be finished while stopping comes again at the next start. */
void parallel_fail(struct parallel *p, const struct err *e)
{
	if (p->state == PARALLEL_DEAD || p->state == PARALLEL_STOPPED)
		return;
	parallel_set_state(p, p->state >= PARALLEL_STOPPING ? PARALLEL_STOPPED : PARALLEL_DEAD, e->message);
	p->error = *e;
	parallel_wake(p);
}

static struct dmsr_instance *inner(struct strand *l) { return &l->t->base; }

/* ---- counts ---- */

static void count(struct parallel *p, const struct dmsr_table_counts *c)
{
	struct buf key;
	buf_init(&key, 64 * 1024);
	relation_key(&key, c->schema, c->name);
	struct strand_counts *own = map_get(p->counts, key.data, key.len);
	if (!own) {
		own = mem_zalloc(sizeof *own);
		own->names = mem_printf("%s%c%s", c->schema, 0, c->name);
		own->counts.schema = own->names;
		own->counts.name = own->names + strlen(c->schema) + 1;
		map_put(p->counts, key.data, key.len, own);
	}
	buf_fini(&key);
	own->counts.loaded += c->loaded;
	own->counts.created += c->created;
	own->counts.updated += c->updated;
	own->counts.deleted += c->deleted;
	own->counts.truncated += c->truncated;
	own->counts.ddl += c->ddl;
	own->counts.dead += c->dead;
}

static void free_counts(void *arg, const void *key, size_t n, void *value)
{
	struct strand_counts *own = value;
	(void)arg;
	(void)key;
	(void)n;
	free(own->names);
	free(own);
}

/* ---- what the inner targets say ---- */

static void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t nloaded, bool load_done)
{
	struct strand *l = ctx;
	(void)applied;
	(void)keeps;
	(void)loaded;
	(void)nloaded;
	(void)load_done;
	l->is_ready = true;
	parallel_wake(l->owner);
}

static void finish_gift(struct parallel *p, struct gift *g)
{
	if (g->parcel) {
		g->parcel->left = 0;
		p->nloads -= g->parcel->is_load;
	}
	spread_is_durable(p, &p->first->t->saved);
	for (struct work *w = p->oldest; g->until && w; w = w->next) {
		if (!w->is_done)
			w->parcel->left--;
		w->is_done = true;
		if (w == g->until)
			break;
	}
	if (g->parcel || g->until)
		p->nfirst--;
}

static void committed(struct strand *l, uint64_t number)
{
	if (l->t->durable.lsn == l->promised_lsn)
		spread_is_durable(l->owner, &l->promised);
	depend_took(l->owner->depend, l->t->tx.took_us);
	spread_committed(l, number);
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct strand *l = ctx;
	struct parallel *p = l->owner;
	struct gift *g = l->gifts.first;
	assert(g && g->token == token);
	l->gifts.first = g->next;
	for (size_t i = 0; i < n; i++)
		count(p, &counts[i]);
	if (l->n)
		committed(l, token);
	else
		finish_gift(p, g);
	batch_free(g->batch);
	free(g);
	parallel_wake(p);
}

static struct gift *gift_of(uint64_t token) { return (struct gift *)(uintptr_t)token; }

static void on_consumed(void *ctx, uint64_t token)
{
	const struct strand *l = ctx;
	struct parcel *c = l->n ? NULL : gift_of(token)->parcel;
	if (!c)
		return;
	c->is_eaten = true;
	parallel_wake(l->owner);
}

static void on_resume(void *ctx)
{
	struct strand *l = ctx;
	l->is_full = false;
	parallel_wake(l->owner);
}

/* Its connection may be closed by then: it ends before this instance does. */
static void on_letter_stored(void *arg, const struct err *e)
{
	struct parallel *p = arg;
	if (p->first->t)
		p->letter.done(p->letter.arg, e);
}

/* The first connection alone sends rows aside, and waits until one is stored before the next. */
static void on_dead_letter(void *ctx, const struct dmsr_dead_letter *d, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct strand *l = ctx;
	struct parallel *p = l->owner;
	assert(!l->n);
	p->letter.done = done;
	p->letter.arg = arg;
	p->host.dead_letter(p->host.ctx, d, on_letter_stored, p);
}

static void on_notice(void *ctx, const char *text)
{
	struct strand *l = ctx;
	if (l->owner->host.notice)
		l->owner->host.notice(l->owner->host.ctx, text);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct strand *l = ctx;
	l->has_failed = true;
	l->error = *e;
	parallel_wake(l->owner);
}

static void on_stopped(void *ctx)
{
	struct strand *l = ctx;
	l->has_stopped = true;
	parallel_wake(l->owner);
}

/* What the row of a lane says when it commits its transactions up to this one. */
static void on_describe(void *ctx, uint64_t lsn, struct buf *out)
{
	struct strand *l = ctx;
	struct ahead all;
	ahead_init(&all);
	ahead_raise(&l->done, &l->owner->low);
	for (size_t i = 0; i < l->done.n; i++)
		ahead_add(&all, l->done.lsns[i]);
	for (const struct work *w = l->given.first; w && w->lsn <= lsn; w = w->next_here)
		ahead_add(&all, w->lsn);
	spread_foresee(l, lsn, &l->promised);
	l->promised_lsn = lsn;
	ahead_raise(&all, &l->promised);
	ahead_format(&all, out);
	ahead_fini(&all);
}

/* ---- connections ---- */

static void open_inner(struct strand *l)
{
	struct parallel *p = l->owner;
	struct err e = { 0 };
	struct dmsr_instance *i = NULL;
	struct dmsr_target_host host = { .ctx = l, .env = p->host.env, .ready = on_ready, .applied = on_applied, .consumed = on_consumed };
	host.loads = p->host.loads;
	host.resume = on_resume;
	host.dead_letter = on_dead_letter;
	host.notice = on_notice;
	host.failed = on_failed;
	host.stopped = on_stopped;
	if (l->n)
		host.env.name = l->name;
	/* Of this connector: it parses nothing that could be wrong. */
	if (target_strict.open(p->settings, &host, &i, &e))
		abort();
	l->t = (struct target *)i;
	l->is_ready = l->is_full = l->has_failed = l->has_stopped = false;
}

static void start_first(struct parallel *p)
{
	open_inner(p->first);
	p->first->t->strands = p->n;
	parallel_set_state(p, PARALLEL_STARTING, "started");
	target_strict.start(inner(p->first));
}

static void start_lane(struct strand *l)
{
	struct parallel *p = l->owner;
	if (!l->row)
		l->row = mem_printf("%s/%s/%u", p->host.env.uid, p->first->t->epoch, l->n);
	l->role = (struct target_strand){ .ctx = l, .first = p->first->t, .row = l->row, .describe = on_describe };
	open_inner(l);
	l->t->strand = &l->role;
	l->t->commit_bytes = p->lane_bytes;
	target_strict.start(inner(l));
}

static void close_inner(struct strand *l)
{
	if (!l->t)
		return;
	target_strict.close(inner(l));
	l->t = NULL;
	l->is_ready = l->has_failed = l->has_stopped = false;
	while (l->gifts.first) {
		struct gift *g = l->gifts.first;
		l->gifts.first = g->next;
		batch_free(g->batch);
		free(g);
	}
}

void parallel_close(struct parallel *p)
{
	for (unsigned i = 1; i <= p->n; i++)
		close_inner(&p->all[i]);
}

bool parallel_open(struct parallel *p)
{
	bool all = true;
	if (p->are_stale)
		parallel_close(p);
	p->are_stale = false;
	for (unsigned i = 1; i <= p->n; i++) {
		if (!p->all[i].t)
			start_lane(&p->all[i]);
		all = all && p->all[i].is_ready;
	}
	return all;
}

/* ---- work ---- */

static void begin_work(struct parallel *p)
{
	const struct target *t = p->first->t;
	parallel_set_state(p, PARALLEL_WORKING, "the first connection is ready");
	p->low = t->saved;
	p->durable = t->saved;
	p->stat.phase = "idle";
	p->host.ready(p->host.ctx, &t->saved, true, t->loaded, t->nloaded, t->load_done);
}

/* May others do what this lane could not? */
static bool is_about_rows(const struct err *e) { return e->code == DMSR_EDATA || !strcmp(e->id, "target.conflict"); }

/* It may have committed a part of what it was given at once: that was not told yet, but is certain. */
static void take_committed(struct strand *l)
{
	uint64_t number = 0;
	for (const struct work *w = l->given.first; w && position_covers(&l->t->saved, w->lsn, POSITION_WHOLE); w = w->next_here)
		number = w->number;
	if (number)
		committed(l, number);
	for (const struct target_table *tb = l->t->counted; tb; tb = tb->next_counted) {
		struct dmsr_table_counts c = tb->counts;
		c.schema = tb->schema;
		c.name = tb->name;
		count(l->owner, &c);
	}
}

static void look_at_failures(struct parallel *p)
{
	for (unsigned i = 0; i <= p->n; i++) {
		struct strand *l = &p->all[i];
		if (!l->has_failed)
			continue;
		if (!i || !is_about_rows(&l->error) || p->state >= PARALLEL_STOPPING) {
			parallel_fail(p, &l->error);
			return;
		}
		log_info("target", p->host.env.job, "%s: what was spread is done in order, since one connection could not: %s", p->host.env.name,
			l->error.message);
		take_committed(l);
		close_inner(l);
		spread_give_back(l);
		p->is_cut = true;
		if (p->state == PARALLEL_WORKING)
			parallel_set_state(p, PARALLEL_RESCUING, l->error.id);
	}
}

static bool has_slice_left(struct parallel *p, uint64_t began_us, unsigned *n)
{
	if (++*n % SLICE_LOOK || loop_now_us(p->loop) - began_us < SLICE_US)
		return true;
	parallel_wake(p);
	return false;
}

static void work(struct parallel *p)
{
	uint64_t began_us = loop_now_us(p->loop);
	unsigned n = 0;
	do
		spread_tell(p);
	while (!p->is_closed && spread_step(p) && has_slice_left(p, began_us, &n));
	if (!p->is_closed)
		spread_take_room(p);
	/* A full queue is waited for upstream, where nobody flushes meanwhile. */
	if (!p->is_closed && (p->is_flushing || p->said_again) && !p->cur) {
		spread_note(p);
		if (p->nfirst)
			(p->is_letting_go ? target_strict.let_go : target_strict.flush)(inner(p->first));
	}
}

static void stop_work(struct parallel *p)
{
	spread_tell(p);
	if (p->is_closed)
		return;
	p->is_flushing = true;
	if (!p->is_cut)
		spread_step(p);
	if (p->oldest && !p->is_cut)
		return;
	spread_note(p);
	parallel_set_state(p, PARALLEL_LEAVING, "all that was placed is committed");
	target_strict.stop(inner(p->first));
}

static void leave(struct parallel *p)
{
	spread_tell(p);
	if (p->is_closed || !p->first->has_stopped)
		return;
	parallel_set_state(p, PARALLEL_STOPPED, "the first connection has stopped");
}

static void tell_end(struct parallel *p)
{
	if (p->told)
		return;
	p->told = true;
	parallel_close(p);
	close_inner(p->first);
	if (p->state == PARALLEL_STOPPED)
		p->host.stopped(p->host.ctx);
	else
		p->host.failed(p->host.ctx, &p->error);
}

static void advance(struct parallel *p)
{
	look_at_failures(p);
	switch (p->state) {
	case PARALLEL_STARTING:
		if (!p->first->is_ready)
			return;
		begin_work(p);
		if (!p->is_closed)
			parallel_wake(p);
		return;
	case PARALLEL_WORKING:
		work(p);
		return;
	case PARALLEL_RESCUING:
		spread_tell(p);
		if (!p->is_closed)
			spread_rescue(p);
		return;
	case PARALLEL_STOPPING:
		stop_work(p);
		return;
	case PARALLEL_LEAVING:
		leave(p);
		break;
	case PARALLEL_NEW: case PARALLEL_STOPPED: case PARALLEL_DEAD: case PARALLEL_STATES:
		break;
	}
}

static void release(struct parallel *p)
{
	parallel_close(p);
	close_inner(p->first);
	for (unsigned i = 0; i <= p->n; i++) {
		free(p->all[i].name);
		free(p->all[i].row);
		ahead_fini(&p->all[i].done);
	}
	spread_free(p);
	claimer_free(p->claimer);
	depend_free(p->depend);
	map_each(p->counts, free_counts, NULL);
	map_free(p->counts);
	loop_task_free(p->task);
	free(p);
}

static void on_task(void *arg)
{
	struct parallel *p = arg;
	p->in_task = true;
	advance(p);
	if (!p->is_closed && (p->state == PARALLEL_STOPPED || p->state == PARALLEL_DEAD))
		tell_end(p);
	p->in_task = false;
	if (p->is_closed)
		release(p);
}

/* ---- the verbs ---- */

static int parallel_verb_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	struct parallel *p = mem_zalloc(sizeof *p);
	uint64_t commit_bytes = (uint64_t)settings_int(s, "commit_bytes");
	(void)e;
	p->host = *host;
	p->loop = host->env.loop;
	p->settings = s;
	p->n = (unsigned)settings_int(s, "apply_connections");
	p->lane_bytes = commit_bytes / p->n;
	if (p->lane_bytes < LANE_BYTES_MIN)
		p->lane_bytes = LANE_BYTES_MIN;
	if (p->lane_bytes > LANE_BYTES_MAX)
		p->lane_bytes = LANE_BYTES_MAX;
	/* One part is with the server while the next is made ready. */
	p->queued_max = 2 * p->n * p->lane_bytes;
	p->first = &p->all[0];
	for (unsigned i = 0; i <= p->n; i++) {
		p->all[i].owner = p;
		p->all[i].n = i;
		p->all[i].name = mem_printf("%s/%u", host->env.name, i);
	}
	p->depend = depend_new(p->n);
	p->claimer = claimer_new(p->depend);
	p->counts = map_new();
	p->task = loop_task_new(p->loop, "target", on_task, p);
	p->stat.phase = "connecting";
	*out = &p->base;
	return 0;
}

static void parallel_verb_start(struct dmsr_instance *i) { start_first((struct parallel *)i); }

static size_t parallel_verb_begun(struct dmsr_instance *i, const struct dmsr_begun **out)
{
	const struct parallel *p = (struct parallel *)i;
	return target_strict.begun(inner(p->first), out);
}

static enum dmsr_verdict parallel_verb_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	struct parallel *p = (struct parallel *)i;
	if ((p->state != PARALLEL_WORKING && p->state != PARALLEL_RESCUING) || (p->queued_bytes > p->queued_max && p->head)) {
		p->said_again = true;
		parallel_wake(p);
		return DMSR_AGAIN;
	}
	p->is_flushing = p->is_letting_go = false;
	spread_take(p, b, token);
	parallel_wake(p);
	return DMSR_OK;
}

static void parallel_verb_flush(struct dmsr_instance *i)
{
	struct parallel *p = (struct parallel *)i;
	p->is_flushing = true;
	parallel_wake(p);
}

static void parallel_verb_let_go(struct dmsr_instance *i)
{
	struct parallel *p = (struct parallel *)i;
	p->is_letting_go = true;
	parallel_verb_flush(i);
}

static void parallel_verb_stat(struct dmsr_instance *i, struct dmsr_target_stat *out)
{
	struct parallel *p = (struct parallel *)i;
	struct dmsr_target_stat first = { 0 };
	bool is_alone = !p->first->t || p->nfirst || p->state < PARALLEL_WORKING;
	*out = p->stat;
	if (p->first->t)
		target_strict.stat(inner(p->first), &first);
	out->applied = p->state < PARALLEL_WORKING ? first.applied : p->durable;
	out->queued_bytes = p->queued_bytes;
	out->connected = first.connected && p->state < PARALLEL_STOPPED;
	out->phase = is_alone ? (p->first->t ? first.phase : "connecting") : p->head ? "applying" : "idle";
	out->rows_applied += first.rows_applied;
	out->transactions += first.transactions;
	out->builds_made = first.builds_made;
	out->builds_total = first.builds_total;
	memcpy(out->builds, first.builds, sizeof out->builds);
	out->nbuilds = first.nbuilds;
	out->builds_seconds_left = first.builds_seconds_left;
	if (first.last_commit_us > out->last_commit_us)
		out->last_commit_us = first.last_commit_us;
	for (unsigned n = 1; n <= p->n; n++) {
		struct dmsr_target_stat own = { 0 };
		if (!p->all[n].t)
			continue;
		target_strict.stat(inner(&p->all[n]), &own);
		out->rows_applied += own.rows_applied;
		out->transactions += own.transactions;
	}
}

static void parallel_verb_stop(struct dmsr_instance *i)
{
	struct parallel *p = (struct parallel *)i;
	if (p->state == PARALLEL_WORKING || p->state == PARALLEL_RESCUING)
		parallel_set_state(p, PARALLEL_STOPPING, "asked to");
	else if (p->state < PARALLEL_WORKING)
		parallel_set_state(p, PARALLEL_STOPPED, "asked to, before it worked");
	parallel_wake(p);
}

static void parallel_verb_close(struct dmsr_instance *i)
{
	struct parallel *p = (struct parallel *)i;
	if (!p)
		return;
	if (!p->in_task) {
		release(p);
		return;
	}
	p->is_closed = true;
	loop_task_cancel(p->task);
}

const struct dmsr_target target_parallel = {
	.open = parallel_verb_open,
	.start = parallel_verb_start,
	.begun = parallel_verb_begun,
	.apply = parallel_verb_apply,
	.flush = parallel_verb_flush,
	.let_go = parallel_verb_let_go,
	.stat = parallel_verb_stat,
	.stop = parallel_verb_stop,
	.close = parallel_verb_close,
};
