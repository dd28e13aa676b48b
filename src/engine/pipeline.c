/* pipeline: the phases of a run, and its ends. See pipeline.h for the drawing. */
#include "pipeline_int.h"
#include "store_file.h"
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; unsigned to; } phases[PHASES] = {
#define TO(p) (1u << PHASE_##p)
	[PHASE_OPENING] = { "opening", TO(TARGETS) | TO(STOPPING) | TO(ENDED) },
	[PHASE_TARGETS] = { "connecting targets", TO(STREAMER) | TO(STOPPING) | TO(ENDED) },
	[PHASE_STREAMER] = { "starting the streamer", TO(FLOWING) | TO(STOPPING) | TO(ENDED) },
	[PHASE_FLOWING] = { "flowing", TO(DRAINING) | TO(STOPPING) | TO(ENDED) },
	[PHASE_DRAINING] = { "draining", TO(STOPPING) | TO(ENDED) },
	[PHASE_STOPPING] = { "stopping", TO(ENDED) },
	[PHASE_ENDED] = { "ended", 0 },
#undef TO
};

static void enter(struct pipeline *p, enum pipeline_phase phase, const char *why)
{
	assert(phases[p->phase].to & 1u << phase);
	log_debug("pipeline", p->run.name, "%s -> %s: %s", phases[p->phase].name, phases[phase].name, why);
	p->phase = phase;
}

/* ---- tickets ---- */

struct ticket *ticket_new(struct pipeline *p, void *arg)
{
	struct ticket *t = mem_alloc(sizeof *t);
	*t = (struct ticket){ .next = p->tickets, .at = &p->tickets, .p = p, .arg = arg };
	if (t->next)
		t->next->at = &t->next;
	p->tickets = t;
	return t;
}

struct pipeline *ticket_use(struct ticket *t, void **arg)
{
	struct pipeline *p = t->p;
	if (p) {
		*t->at = t->next;
		if (t->next)
			t->next->at = t->at;
	}
	if (arg)
		*arg = t->arg;
	free(t);
	return p;
}

/* ---- directories ---- */

char *pipeline_scratch(const struct pipeline *p, const char *name, struct err *e)
{
	char *path = mem_printf("%s/%s", p->run.scratch, name);
	if (!store_file_make_scratch(path, e))
		return path;
	free(path);
	return NULL;
}

struct dmsr_env pipeline_env(struct pipeline *p, const char *name, const char *scratch)
{
	return (struct dmsr_env){
		.loop = p->run.loop,
		.job = p->run.name,
		.uid = p->run.uid,
		.name = name,
		.scratch = scratch,
		.source = &p->origin,
		.codec = plugins_codec,
		.codecs = p->run.plugins,
	};
}

/* ---- ends ---- */

void pipeline_turn(struct pipeline *p) { loop_task_post(p->task); }

void pipeline_fail(struct pipeline *p, const struct err *e, const char *stage)
{
	if (p->must_fail || p->must_end || p->phase == PHASE_ENDED)
		return;
	p->failure = *e;
	snprintf(p->stage, sizeof p->stage, "%s", stage);
	p->must_fail = true;
	pipeline_turn(p);
}

static void close_all(struct pipeline *p)
{
	flow_release(p);
	for (size_t i = 0; i < p->ntargets; i++)
		target_release(&p->targets[i]);
	for (struct channel *c = NULL; (c = channel_next(p, c));) {
		if (c->i)
			c->ops->close(c->i);
		c->i = NULL;
	}
	p->hold = NULL; /* it went with them, and figures may still be asked for */
	if (p->log)
		store_log_close(p->log);
	p->log = NULL;
	loop_timer_stop(p->checkpoint_timer);
	loop_timer_stop(p->drain_timer);
}

static void end(struct pipeline *p, enum pipeline_end how, const char *why)
{
	enter(p, PHASE_ENDED, why);
	flow_backpressure(p, false);
	flow_targets_save(p);
	memory_counts_save(p->run.memory);
	close_all(p);
	p->run.host.ended(p->run.host.ctx, how, how == PIPELINE_FAILED ? &p->failure : NULL, how == PIPELINE_FAILED ? p->stage : NULL);
}

/* ---- stopping ---- */

static void stop_instances(struct pipeline *p, const char *why)
{
	enter(p, PHASE_STOPPING, why);
	loop_timer_start(p->drain_timer, 10000); /* nothing that hangs keeps the others from ending */
	if (p->source && !p->source_finished)
		p->source_ops->stop(p->source);
	else
		p->source_stopped = true;
	for (struct channel *c = NULL; (c = channel_next(p, c));) {
		if (c->i && c->is_ready)
			c->ops->stop(c->i);
		else
			c->is_stopped = true;
	}
	for (size_t i = 0; i < p->ntargets; i++) {
		struct ptarget *t = &p->targets[i];
		if (t->i)
			t->ops->stop(t->i);
		else
			t->is_stopped = true;
	}
	pipeline_turn(p);
}

static bool all_stopped(struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].is_stopped)
			return false;
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (!c->is_stopped)
			return false;
	return p->source_stopped;
}

static bool is_stored(const struct channel *c)
{
	struct ledger_stat s;
	ledger_stat(c->ledger, &s);
	return !c->held && s.stored.token >= c->whole_token;
}

static bool all_stored(struct pipeline *p)
{
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (!is_stored(c))
			return false;
	return true;
}

static bool is_idle(struct pipeline *p)
{
	if (p->hold && !hold_is_over(p->hold)) /* of what an earlier run has left no ledger knows */
		return false;
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (c->held || !ledger_is_idle(c->ledger))
			return false;
	return true;
}

static bool targets_done(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!target_is_done(&p->targets[i]) && !(load_is_apart(p) && target_is_left_open(&p->targets[i])))
			return false;
	return true;
}

/* A source transaction was read in part: what is before it cannot be committed by a target that holds both, until its end is read or the target is told
 * to stop. Or a load: what is behind it waits for its end. */
static bool is_cut_off(const struct channel *c)
{
	const struct pipeline *p = c->p;
	int n = (int)(c - p->channels);
	struct ledger_stat s;
	ledger_stat(c->ledger, &s);
	bool is_held = n == CHANNEL_STREAM && p->hold && hold_is_held(p->hold);
	bool is_open = is_held || c->held || s.received.token > c->whole_token;
	for (size_t i = 0; i < p->ntargets; i++) {
		const struct ptarget *t = &p->targets[i];
		bool waits = is_held || (n == CHANNEL_STREAM ? t->is_held && !t->is_amid : t->is_amid);
		if (!t->in[n].is_drained && !waits)
			return false;
		is_open |= waits;
	}
	return is_open;
}

static bool all_stored_or_cut_off(struct pipeline *p)
{
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (c->ledger && !is_stored(c) && !is_cut_off(c))
			return false;
	return true;
}

bool pipeline_is_quiet(struct pipeline *p) { return p->is_paused && all_stored_or_cut_off(p); }

bool pipeline_is_flowing(const struct pipeline *p) { return p->told_flowing; }

void pipeline_stop(struct pipeline *p, uint64_t drain_ms)
{
	if (p->phase >= PHASE_DRAINING || p->must_fail)
		return;
	p->how = PIPELINE_STOPPED;
	if (p->phase != PHASE_FLOWING) {
		stop_instances(p, "asked before it flowed");
		return;
	}
	enter(p, PHASE_DRAINING, "asked");
	p->source_ops->pause(p->source);
	for (size_t i = 0; i < p->ntargets; i++)
		p->targets[i].ops->flush(p->targets[i].i);
	loop_timer_start(p->drain_timer, drain_ms);
	flow_checkpoint(p, true);
	pipeline_turn(p);
}

static void on_drain_timeout(void *arg)
{
	struct pipeline *p = arg;
	if (p->phase == PHASE_DRAINING) {
		log_warn("pipeline", p->run.name, "not all that was read could be finished in time: it will be read again");
		stop_instances(p, "time is up");
	} else if (p->phase == PHASE_STOPPING) {
		log_warn("pipeline", p->run.name, "something does not stop: it is closed");
		p->must_end = true;
		pipeline_turn(p);
	}
}

/* ---- the way up ---- */

static void open_targets(struct pipeline *p)
{
	struct err e = { 0 };
	enter(p, PHASE_TARGETS, "the log is open");
	if (channels_open(p, &e)) {
		pipeline_fail(p, &e, "streamer");
		return;
	}
	for (size_t i = 0; i < p->ntargets; i++)
		if (target_open(p, i, &e)) {
			pipeline_fail(p, &e, p->targets[i].name);
			return;
		}
	pipeline_turn(p);
}

/* A file of this log alone that is damaged is no reason to give up the whole state directory. */
static void fail_log(struct pipeline *p, const struct err *why)
{
	struct err e = *why;
	if (!strcmp(e.id, "state.corrupt"))
		err_hint(&e, "what the spill log held is not known any more, so load the tables again: stop the job, DELETE /jobs/%s/positions, start it",
			p->run.name);
	pipeline_fail(p, &e, "state");
}

static void on_log(void *arg, struct store_log *log, const struct err *e)
{
	struct pipeline *p = ticket_use(arg, NULL);
	if (!p) {
		if (log)
			store_log_close(log);
		return;
	}
	p->log = log;
	p->log_is_opening = false;
	if (p->phase == PHASE_STOPPING)
		pipeline_turn(p);
	else if (e)
		fail_log(p, e);
	else
		open_targets(p);
}

/* Every target has said where it stands. */
static void start_streamer(struct pipeline *p)
{
	struct err e = { 0 };
	for (size_t i = 0; i < p->ntargets; i++)
		if (target_check_stand(&p->targets[i], &e)) {
			pipeline_fail(p, &e, p->targets[i].name);
			return;
		}
	enter(p, PHASE_STREAMER, "every target is ready");
	for (size_t i = 0; i < p->ntargets; i++)
		target_subscribe(&p->targets[i]);
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		c->ops->start(c->i);
}

static bool targets_ready(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].is_ready)
			return false;
	return true;
}

static void open_source(struct pipeline *p)
{
	struct err e = { 0 };
	if (pipeline_source_open(p, &e)) {
		pipeline_fail(p, &e, "source");
		return;
	}
	enter(p, PHASE_FLOWING, "the streamer is ready");
	pipeline_source_start(p);
	pipeline_turn(p); /* nothing may come from it for long */
}

/* ---- states that the job is told ---- */

/* Tables that a job takes up, or loads again, when it had loaded all: what is remembered of the end of a load says nothing of them. */
static bool is_loading(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (target_is_loading(&p->targets[i]))
			return true;
	return false;
}

static bool load_is_done(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].memory->load_done)
			return false;
	/* what is held is delivered, and the streamer may still lack rows */
	return memory_load_done(p->run.memory) && !is_loading(p) && !(p->hold && hold_is_held(p->hold));
}

/* Nobody says when a source is connected, or streams. */
static void look_again(struct pipeline *p)
{
	if (!loop_timer_is_running(p->checkpoint_timer))
		loop_timer_start(p->checkpoint_timer, 100);
}

static void tell(struct pipeline *p)
{
	bool wants_load = p->run.spec->mode & DMSR_FULL_LOAD, done = !wants_load || load_is_done(p);
	struct dmsr_source_stat s;
	if (p->told_flowing || (p->told_loading && !done))
		return;
	p->source_ops->stat(p->source, &s);
	done = done && !s.loads_later;
	if (!done && !p->told_loading) {
		if (!s.connected && !p->source_finished) { /* it may never answer: what the run before ended with is what there is to see */
			look_again(p);
			return;
		}
		p->told_loading = true;
		p->stat.load_began_us = wall_now_us();
		p->run.host.loading(p->run.host.ctx);
	}
	if (!done || p->source_finished)
		return;
	if (!s.streaming || !(p->run.spec->mode & DMSR_CDC)) { /* a load alone may be told late to read the stream first */
		look_again(p);
		return;
	}
	p->told_flowing = true;
	p->run.host.flowing(p->run.host.ctx);
}

static void on_task(void *arg)
{
	struct pipeline *p = arg;
	if (p->phase == PHASE_ENDED)
		return;
	if (p->must_fail && p->phase != PHASE_STOPPING) {
		end(p, PIPELINE_FAILED, p->failure.id);
		return;
	}
	if (p->must_fail || p->must_end) {
		end(p, p->must_fail ? PIPELINE_FAILED : p->how, "closed");
		return;
	}
	switch (p->phase) {
	case PHASE_OPENING:
		break;
	case PHASE_TARGETS:
		if (targets_ready(p))
			start_streamer(p);
		break;
	case PHASE_STREAMER:
		channels_remember(p);
		if (p->streamer_knows && !p->must_fail)
			open_source(p);
		break;
	case PHASE_FLOWING:
		channels_look(p);
		for (size_t i = 0; i < p->ntargets; i++)
			target_look(&p->targets[i]);
		tell(p);
		if (pipeline_is_quiet(p))
			p->run.host.quiet(p->run.host.ctx);
		if (p->source_finished && is_idle(p) && targets_done(p)) {
			p->how = PIPELINE_COMPLETED;
			stop_instances(p, "everything is loaded");
		}
		break;
	case PHASE_DRAINING:
		if (all_stored(p))
			stop_instances(p, "all that was read is stored");
		else if (all_stored_or_cut_off(p))
			stop_instances(p, "only a transaction that was read in part is left, or what waits for a load");
		break;
	case PHASE_STOPPING:
		if (all_stopped(p) && !p->log_is_opening)
			end(p, p->how, "all stopped");
		break;
	case PHASE_ENDED:
	case PHASES:
		break;
	}
}

/* ---- verbs ---- */

void pipeline_pause(struct pipeline *p)
{
	p->is_paused = true;
	if (p->phase == PHASE_FLOWING)
		p->source_ops->pause(p->source);
	for (size_t i = 0; p->phase == PHASE_FLOWING && i < p->ntargets; i++)
		p->targets[i].ops->flush(p->targets[i].i);
}

void pipeline_resume(struct pipeline *p)
{
	p->is_paused = p->is_level = false;
	p->first_lsn = 0;
	p->source_waits = true;
	flow_wake_source(p);
}

static void on_checkpoint_timer(void *arg)
{
	struct pipeline *p = arg;
	flow_targets_save(p);
	flow_checkpoint(p, true);
	pipeline_turn(p);
}

struct pipeline *pipeline_start(const struct pipeline_run *run)
{
	struct pipeline *p = mem_zalloc(sizeof *p);
	p->run = *run;
	p->run.scratch = mem_strdup(run->scratch);
	p->run.uid = mem_strdup(run->uid);
	p->run.name = mem_strdup(run->name);
	p->task = loop_task_new(run->loop, "pipeline", on_task, p);
	p->checkpoint_timer = loop_timer_new(run->loop, "pipeline", on_checkpoint_timer, p);
	p->drain_timer = loop_timer_new(run->loop, "pipeline", on_drain_timeout, p);
	p->open_loads = map_new();
	p->origin = (struct dmsr_codec_source){
		.connector = run->spec->source.plugin->name,
		.name = p->run.name,
		.database = json_string_value(json_object_get(json_object_get(run->spec->json, "source"), "database")),
		.server = memory_delivered(run->memory)->server,
	};
	p->ntargets = run->spec->ntargets;
	p->targets = mem_zalloc((p->ntargets + 1) * sizeof *p->targets);
	for (size_t i = 0; i < p->ntargets; i++) {
		const struct spec_part *s = &run->spec->targets[i];
		p->targets[i] = (struct ptarget){
			.p = p,
			.name = s->name,
			.plugin = s->plugin,
			.ops = s->plugin->target,
			.memory = memory_target(run->memory, s->name),
		};
	}
	p->log_is_opening = true;
	store_log_open(run->store, p->run.uid, on_log, ticket_new(p, NULL));
	return p;
}

void pipeline_free(struct pipeline *p)
{
	if (!p)
		return;
	if (p->phase != PHASE_ENDED)
		close_all(p);
	for (struct ticket *t = p->tickets; t; t = t->next)
		t->p = NULL;
	for (size_t i = 0; i < p->ntargets; i++) {
		free(p->targets[i].scratch);
		table_set_clear(&p->targets[i].awaited);
	}
	free(p->targets);
	free(p->source_scratch);
	for (size_t n = 0; n < CHANNELS; n++)
		free(p->channels[n].scratch);
	map_free(p->open_loads);
	map_free(p->voids);
	loop_task_free(p->task);
	loop_timer_free(p->checkpoint_timer);
	loop_timer_free(p->drain_timer);
	settings_free(p->load_settings);
	spec_free(p->run.spec);
	free((void *)(uintptr_t)p->run.scratch);
	free((void *)(uintptr_t)p->run.uid);
	free((void *)(uintptr_t)p->run.name);
	free(p);
}

/* ---- figures ---- */

static void stat_held(const struct pipeline *p, struct pipeline_stat *out)
{
	const struct txn *oldest = p->hold ? hold_oldest(p->hold) : NULL;
	out->is_held = oldest != NULL;
	out->held_lsn = oldest ? oldest->lsn : 0;
	out->held_us = oldest ? oldest->commit_us : 0;
}

void pipeline_stat(struct pipeline *p, struct pipeline_stat *out)
{
	*out = p->stat;
	out->source = (struct dmsr_source_stat){ .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1 };
	if (p->source)
		p->source_ops->stat(p->source, &out->source);
	flow_look_level(p, &out->source);
	out->is_level = p->is_level;
	for (struct channel *c = NULL; (c = channel_next(p, c));) {
		struct dmsr_streamer_stat s = { 0 };
		if (c->i)
			c->ops->stat(c->i, &s);
		out->streamer.memory_bytes += s.memory_bytes;
		out->streamer.memory_limit_bytes += c == channel_stream(p) || is_loading(p) ? s.memory_limit_bytes : 0;
		out->streamer.log_bytes += s.log_bytes;
		out->streamer.log_limit_bytes += s.log_limit_bytes;
		out->streamer.batches += s.batches;
		if (s.error && !out->streamer.error) {
			out->streamer.error = s.error;
			out->streamer.error_us = s.error_us;
		}
		out->is_full |= c->held != NULL;
	}
	stat_held(p, out);
	if (channel_stream(p)->ledger)
		ledger_stat(channel_stream(p)->ledger, &out->ledger);
	if (p->backpressure_since_us)
		out->backpressure_us += loop_now_us(p->run.loop) - p->backpressure_since_us;
	out->is_loading = is_loading(p) || out->source.loads_later;
	out->phase = p->phase == PHASE_FLOWING && out->source.phase ? out->source.phase : phases[p->phase].name;
}

bool pipeline_target_stat(struct pipeline *p, size_t i, struct pipeline_target_stat *out)
{
	if (i >= p->ntargets)
		return false;
	struct ptarget *t = &p->targets[i];
	*out = (struct pipeline_target_stat){
		.name = t->name,
		.connector = t->plugin->name,
		.applied = t->is_ready ? t->applied : t->memory->applied,
		.waiting_batches = t->count,
		.behind_us = target_behind_us(t),
		.level_lsn = t->level_lsn ? t->level_lsn : p->began_lsn,
		.rows_applied = t->rows_applied,
		.is_caught_up = target_is_done(t),
		.load_done = t->memory->load_done && !target_is_loading(t),
	};
	if (t->i)
		t->ops->stat(t->i, &out->stat);
	return true;
}
