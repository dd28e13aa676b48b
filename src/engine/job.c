/* job: desires, states, retries. See job.h for the drawing. */
#include "job.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TO(s) (1u << JOB_##s)
#define ANY_END (TO(RETRYING) | TO(FAILED) | TO(STOPPING))
static const struct { unsigned to, verbs; } states[JOB_STATES] = {
#define CAN(v) (1u << ENGINE_##v)
	[JOB_CREATED] = { TO(STARTING) | TO(STOPPED), CAN(START) | CAN(STOP) | CAN(RESTART) },
	[JOB_STARTING] = { TO(LOADING) | TO(RUNNING) | TO(PAUSING) | TO(COMPLETED) | ANY_END, CAN(PAUSE) | CAN(STOP) | CAN(RESTART) },
	[JOB_LOADING] = { TO(RUNNING) | TO(PAUSING) | TO(COMPLETED) | ANY_END, CAN(PAUSE) | CAN(STOP) | CAN(RESTART) },
	[JOB_RUNNING] = { TO(PAUSING) | ANY_END, CAN(PAUSE) | CAN(STOP) | CAN(RESTART) },
	[JOB_RETRYING] = { TO(STARTING) | TO(PAUSED) | TO(STOPPED) | TO(FAILED), CAN(START) | CAN(PAUSE) | CAN(RESUME) | CAN(STOP) | CAN(RESTART) },
	[JOB_PAUSING] = { TO(PAUSED) | TO(LOADING) | TO(RUNNING) | TO(FAILED) | TO(STOPPING), CAN(START) | CAN(RESUME) | CAN(STOP) | CAN(RESTART) },
	[JOB_PAUSED] = { TO(STARTING) | TO(LOADING) | TO(RUNNING) | TO(COMPLETED) | TO(FAILED) | TO(STOPPING) | TO(STOPPED),
		CAN(START) | CAN(RESUME) | CAN(STOP) | CAN(RESTART) },
	[JOB_STOPPING] = { TO(STOPPED) | TO(FAILED), CAN(START) | CAN(RESUME) | CAN(STOP) | CAN(RESTART) },
	[JOB_STOPPED] = { TO(STARTING) | TO(PAUSED), CAN(START) | CAN(RESUME) | CAN(RESTART) },
	[JOB_COMPLETED] = { TO(STOPPED), 0 },
	[JOB_FAILED] = { TO(STARTING) | TO(STOPPED), CAN(START) | CAN(RESUME) | CAN(STOP) | CAN(RESTART) },
#undef CAN
};
static const char *const state_names[] = { ENGINE_STATES };
_Static_assert(sizeof state_names / sizeof *state_names == JOB_STATES + 1, "each state has a name, and being deleted one more");
static const char *const desires[DESIRES] = { "running", "paused", "stopped", "deleting" };
const char *const job_verb_names[] = { "start", "pause", "resume", "stop", "restart" };

const char *job_state_name(enum job_state s) { return state_names[s]; }
const char *job_desire_name(enum job_desire d) { return desires[d]; }

bool job_can_become(enum job_state from, enum job_state to) { return states[from].to & 1u << to; }

const char *job_shown_state(const struct job *job) { return job->desire == DESIRE_DELETING ? state_names[JOB_STATES] : state_names[job->state]; }

/* An error of an earlier run is kept until the new one has got somewhere, for it may be the same one again. While it is tried again by itself it is what there
 * is to see; who starts the job by hand has seen it. */
const struct err *job_shown_error(const struct job *job)
{
	bool runs = job->desire != DESIRE_DELETING &&
		((job->state == JOB_STARTING && !job->attempts) || job->state == JOB_LOADING || job->state == JOB_RUNNING);
	return runs || !err_is_set(&job->error) ? NULL : &job->error;
}

int job_state_parse(const char *name)
{
	for (int i = 0; i < JOB_STATES; i++)
		if (!strcmp(state_names[i], name))
			return i;
	return -1;
}

enum job_desire job_desire_of(const json_t *spec)
{
	const char *name = json_string_value(json_object_get(spec, "desired_state"));
	int d = DESIRE_RUNNING;
	while (name && d < DESIRES && strcmp(desires[d], name) != 0)
		d++;
	return d < DESIRES ? (enum job_desire)d : DESIRE_RUNNING;
}

static void steer(struct job *job);

/* ---- the one setter ---- */

static void set_state(struct job *job, enum job_state state, const char *why)
{
	if (job->state == state)
		return;
	assert(job_can_become(job->state, state));
	log_info("job", job->name, "%s -> %s: %s", state_names[job->state], state_names[state], why);
	if (state == JOB_STARTING || state == JOB_LOADING || state == JOB_RUNNING)
		job->stop_reason = NULL;
	char *text = mem_printf("%s -> %s: %s", state_names[job->state], state_names[state], why);
	job->state = state;
	job->state_since_us = job->updated_us = wall_now_us();
	job->house->event(job->house->ctx, job, "state", text);
	free(text);
	job_save(job, NULL, NULL);
	job->house->changed(job->house->ctx, job, why);
	if (job_is_settled(job))
		job->house->settled(job->house->ctx, job);
}

bool job_is_settled(const struct job *job)
{
	return !job->pipeline && !loop_timer_is_running(job->retry_timer) && job->state != JOB_STARTING && job->state != JOB_STOPPING;
}

/* Something but the state changed that others want to know of. */
static void touched(struct job *job, const char *why)
{
	job->updated_us = wall_now_us();
	job_save(job, NULL, NULL);
	job->house->changed(job->house->ctx, job, why);
}

/* ---- errors ---- */

static void clear_error(struct job *job)
{
	err_clear(&job->error);
	job->error_stage[0] = 0;
	job->error_since_us = 0;
}

void job_set_error(struct job *job, const struct err *e, const char *stage)
{
	bool same = err_is_set(&job->error) && !strcmp(job->error.id, e->id) && !strcmp(job->error_stage, stage);
	job->error = *e;
	snprintf(job->error_stage, sizeof job->error_stage, "%s", stage);
	if (!same)
		job->error_since_us = wall_now_us();
	log_write(e->retriable ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, "job", job->name, "%s: %s: %s%s%s", stage, e->id, e->message,
		e->hint[0] ? "; " : "", e->hint);
	job->house->event(job->house->ctx, job, "error", e->message);
}

static uint64_t backoff_ms(struct job *job)
{
	uint64_t ms = job->house->retry_initial_ms, jitter = 0;
	for (unsigned i = 0; i < job->attempts && ms < job->house->retry_max_ms; i++)
		ms *= 2;
	if (ms > job->house->retry_max_ms)
		ms = job->house->retry_max_ms;
	if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) < 0)
		jitter = 0;
	return ms - ms / 10 + jitter % (ms / 5 + 1);
}

/* A run failed: again, or the end. */
static void decide(struct job *job, const struct err *e, const char *stage)
{
	char why[160];
	enum { GIVE_UP = 10 };
	job_set_error(job, e, stage);
	if (!e->retriable || (!job->house->retry_forever && job->attempts >= GIVE_UP)) {
		job->stop_reason = "error";
		set_state(job, JOB_FAILED, e->id);
		return;
	}
	uint64_t ms = backoff_ms(job);
	job->attempts++;
	job->retries++;
	job->retry_at_us = wall_now_us() + (int64_t)ms * 1000;
	loop_timer_start(job->retry_timer, ms);
	snprintf(why, sizeof why, "%s, again in %llu ms", e->id, (unsigned long long)ms);
	set_state(job, JOB_RETRYING, why);
}

/* ---- a run and what it tells ---- */

static void add_past(struct job *job)
{
	struct pipeline_stat s;
	pipeline_stat(job->pipeline, &s);
	struct pipeline_stat *past = &job->past;
	for (size_t i = 0; i < 6; i++) {
		past->events[i] += s.events[i];
		past->applied[i] += s.applied[i];
	}
	for (size_t i = 0; i <= LOOP_SLICE_BOUNDS; i++)
		past->latency.count[i] += s.latency.count[i];
	past->latency.n += s.latency.n;
	past->latency.total_us += s.latency.total_us;
	past->bytes += s.bytes;
	past->transactions += s.transactions;
	past->dead_letters += s.dead_letters;
	past->checkpoints += s.checkpoints;
	past->backpressure_us += s.backpressure_us;
	past->last_event_us = s.last_event_us;
	past->last_checkpoint_us = s.last_checkpoint_us;
	job->kept.lag_bytes = -1; /* it grows from now on: the next look tells */
	if (!s.source.slot) { /* it got nowhere: no more is known than before */
		job->look_us = err_is_set(&job->kept.error) ? job->look_us : 0;
		return;
	}
	job->look_us = 0;
	job->looks_failed = 0;
	const struct dmsr_kept kept = {
		.slot = s.source.slot,
		.slot_status = s.source.slot_status,
		.retained_bytes = s.source.retained_bytes,
		.safe_bytes = s.source.safe_bytes,
		.lag_bytes = -1,
	};
	job_kept_set(&job->kept, &kept);
	job->kept.seen_us = s.source.slot_seen_us;
}

void job_kept_set(struct job_kept *to, const struct dmsr_kept *k)
{
	*to = JOB_KEPT_NONE;
	to->seen_us = wall_now_us();
	if (!k->slot)
		return;
	snprintf(to->slot, sizeof to->slot, "%s", k->slot);
	snprintf(to->status, sizeof to->status, "%s", k->slot_status ? k->slot_status : "");
	to->is_lost = k->is_lost;
	to->retained_bytes = k->retained_bytes;
	to->safe_bytes = k->safe_bytes;
	to->lag_bytes = k->lag_bytes;
}

/* What was being loaded is not any more. */
static void not_loading(void *arg, struct table_count *c)
{
	(void)arg;
	c->is_loading = false;
}

static void end_run(struct job *job)
{
	add_past(job);
	pipeline_free(job->pipeline);
	job->pipeline = NULL;
	memory_each_count(job->memory, not_loading, NULL);
}

static void on_loading(void *ctx)
{
	struct job *job = ctx;
	if (job->state == JOB_STARTING)
		set_state(job, JOB_LOADING, "not every table is loaded");
}

static void on_flowing(void *ctx)
{
	struct job *job = ctx;
	clear_error(job);
	if (job->state == JOB_STARTING || job->state == JOB_LOADING)
		set_state(job, JOB_RUNNING, job->state == JOB_LOADING ? "every table is loaded" : "connected");
}

static void on_progress(void *ctx)
{
	struct job *job = ctx;
	job->attempts = 0;
	if (err_is_set(&job->error) && (job->state == JOB_RUNNING || job->state == JOB_LOADING)) {
		clear_error(job);
		touched(job, "it goes on");
	}
}

static void on_quiet(void *ctx)
{
	struct job *job = ctx;
	if (job->state == JOB_PAUSING)
		steer(job);
}

static void on_ddl(void *ctx, unsigned columns, const struct relation *rel, const struct position *at)
{
	struct job *job = ctx;
	char text[POSITION_TEXT_MAX];
	char *line = mem_printf("%s.%s: from %u to %u columns at %s", rel->schema, rel->name, columns, rel->ncolumns, position_format(at, text));
	job->house->event(job->house->ctx, job, "ddl", line);
	free(line);
}

/* In a run before this one, which tries the same again; what is told twice in one run happened twice. */
static bool has_warned(const struct job *job, const char *line)
{
	for (size_t i = 0; i < json_array_size(job->warnings); i++) {
		const json_t *w = json_array_get(job->warnings, i);
		json_t *at = json_object_get(w, "at_us");
		if (json_integer_value(at) >= job->run_began_us || strcmp(json_string_value(json_object_get(w, "message")), line) != 0)
			continue;
		json_integer_set(at, wall_now_us());
		return true;
	}
	return false;
}

void job_notice(struct job *job, const char *stage, const char *text)
{
	enum { KEPT = 20 };
	char *line = mem_printf("%s: %s", stage, text);
	if (has_warned(job, line)) {
		free(line);
		return;
	}
	log_warn("job", job->name, "%s", line);
	job->house->event(job->house->ctx, job, "warning", line);
	json_array_append_new(job->warnings, json_pack("{s:I, s:s}", "at_us", (json_int_t)wall_now_us(), "message", line));
	if (json_array_size(job->warnings) > KEPT)
		json_array_remove(job->warnings, 0);
	free(line);
}

static void on_notice(void *ctx, const char *stage, const char *text) { job_notice(ctx, stage, text); }

static void on_ended(void *ctx, enum pipeline_end how, const struct err *e, const char *stage)
{
	struct job *job = ctx;
	struct err error = e ? *e : (struct err){ 0 };
	char where[80];
	snprintf(where, sizeof where, "%s", stage ? stage : "");
	end_run(job);
	if (job->state == JOB_STOPPING) {
		if (how == PIPELINE_FAILED)
			log_warn("job", job->name, "%s: %s: %s", where, error.id, error.message);
		set_state(job, JOB_STOPPED, how == PIPELINE_FAILED ? "asked; the run failed on the way" : "asked");
		return;
	}
	switch (how) {
	case PIPELINE_FAILED:
		if (job->desire == DESIRE_PAUSED && error.retriable) { /* nobody waits for it now: resume opens a new run */
			job_set_error(job, &error, where);
			if (job->state == JOB_PAUSED)
				touched(job, error.id);
			else
				set_state(job, JOB_PAUSED, error.id);
		} else {
			decide(job, &error, where);
		}
		break;
	case PIPELINE_COMPLETED:
		job->stop_reason = "completed";
		clear_error(job);
		set_state(job, JOB_COMPLETED, "everything is loaded");
		break;
	case PIPELINE_STOPPED: /* only halt asks for it, in JOB_STOPPING */
		assert(!"a run stopped by itself");
	}
}

/* ---- starting one ---- */

static void spec_failed(struct job *job, const problems *p)
{
	struct err e = { 0 };
	const json_t *first = json_array_get(p, 0);
	const char *code = json_string_value(json_object_get(first, "code"));
	err_set(&e, DMSR_EINVAL, code && !strcmp(code, "secret") ? "secret.unresolved" : "job.validation", "%s: %s",
		json_string_value(json_object_get(first, "pointer")),
		json_string_value(json_object_get(first, "detail")));
	err_hint(&e, "mend the job (PUT /jobs/%s) or the daemon's configuration, then start it", job->name);
	decide(job, &e, "job");
}

static void start_run(struct job *job, const char *why)
{
	problems *p = json_array();
	loop_timer_stop(job->retry_timer);
	set_state(job, JOB_STARTING, why);
	struct spec *spec = spec_parse(job->spec, job->house->plugins, job->house->secrets, p);
	if (!spec) {
		spec_failed(job, p);
		json_decref(p);
		return;
	}
	json_decref(p);
	struct err e = { 0 };
	if (job->house->may_run && job->house->may_run(job->house->ctx, job, &e)) {
		spec_free(spec);
		decide(job, &e, "job");
		return;
	}
	bool loads = spec->mode & DMSR_FULL_LOAD;
	const struct pipeline_run run = {
		.loop = job->house->loop,
		.store = job->house->store,
		.plugins = job->house->plugins,
		.memory = job->memory,
		.spec = spec,
		.uid = job->uid,
		.name = job->name,
		.scratch = job->scratch,
		.host = {
			.ctx = job,
			.loading = on_loading,
			.flowing = on_flowing,
			.progress = on_progress,
			.quiet = on_quiet,
			.ddl = on_ddl,
			.notice = on_notice,
			.ended = on_ended,
		},
	};
	job->run_began_us = wall_now_us();
	job->run_generation = job->generation;
	job->pipeline = pipeline_start(&run);
	if (!loads && !job->attempts)
		job->house->follows(job->house->ctx, job);
}

void job_on_retry(void *arg)
{
	struct job *job = arg;
	if (job->state == JOB_RETRYING)
		start_run(job, "again");
}

/* ---- following the desire ---- */

static void go_on(struct job *job)
{
	switch (job->state) {
	case JOB_CREATED:
	case JOB_STOPPED:
	case JOB_FAILED:
	case JOB_RETRYING:
		start_run(job, "asked");
		break;
	case JOB_PAUSED:
	case JOB_PAUSING:
		if (!job->pipeline) {
			start_run(job, "asked");
			break;
		}
		pipeline_resume(job->pipeline);
		set_state(job, pipeline_is_flowing(job->pipeline) ? JOB_RUNNING : JOB_LOADING, "asked");
		break;
	case JOB_STARTING:
	case JOB_LOADING:
	case JOB_RUNNING:
	case JOB_STOPPING: /* starts again when it has stopped */
	case JOB_COMPLETED: /* only when its positions are forgotten, and then it is stopped */
	case JOB_STATES:
		break;
	}
}

static void come_to_rest(struct job *job)
{
	switch (job->state) {
	case JOB_STARTING:
	case JOB_LOADING:
	case JOB_RUNNING:
		pipeline_pause(job->pipeline);
		set_state(job, JOB_PAUSING, "asked");
		steer(job);
		break;
	case JOB_PAUSING:
		if (pipeline_is_quiet(job->pipeline)) {
			job->stop_reason = "user";
			set_state(job, JOB_PAUSED, "all that was read is applied");
		}
		break;
	case JOB_RETRYING:
		loop_timer_stop(job->retry_timer);
		set_state(job, JOB_PAUSED, "asked");
		break;
	case JOB_STOPPED: /* the daemon was stopped meanwhile */
		set_state(job, JOB_PAUSED, "asked");
		break;
	case JOB_CREATED:
	case JOB_PAUSED:
	case JOB_STOPPING:
	case JOB_COMPLETED:
	case JOB_FAILED:
	case JOB_STATES:
		break;
	}
}

static void halt(struct job *job)
{
	if (job->pipeline && job->state != JOB_STOPPING) {
		set_state(job, JOB_STOPPING, "asked");
		pipeline_stop(job->pipeline, job->house->drain_ms);
		return;
	}
	switch (job->state) {
	case JOB_RETRYING:
		loop_timer_stop(job->retry_timer);
		set_state(job, JOB_STOPPED, "asked");
		break;
	case JOB_CREATED:
	case JOB_PAUSED:
	case JOB_FAILED:
		set_state(job, JOB_STOPPED, "asked");
		break;
	case JOB_COMPLETED:
	case JOB_STOPPED:
	case JOB_STARTING:
	case JOB_LOADING:
	case JOB_RUNNING:
	case JOB_PAUSING:
	case JOB_STOPPING:
	case JOB_STATES:
		break;
	}
}

static void steer(struct job *job)
{
	switch (job->desire) {
	case DESIRE_RUNNING: go_on(job); break;
	case DESIRE_PAUSED: come_to_rest(job); break;
	case DESIRE_STOPPED:
	case DESIRE_DELETING: halt(job); break;
	case DESIRES: break;
	}
}

/* ---- verbs ---- */

unsigned job_allowed(const struct job *job)
{
	return job->desire == DESIRE_DELETING || job->is_forgetting ? 0 : states[job->state].verbs;
}

int job_may(const struct job *job, enum engine_verb verb, bool *is_there, struct err *e)
{
	bool runs = job->state == JOB_STARTING || job->state == JOB_LOADING || job->state == JOB_RUNNING;
	switch (verb) {
	case ENGINE_START:
	case ENGINE_RESUME: *is_there = job->desire == DESIRE_RUNNING && runs; break;
	case ENGINE_PAUSE: *is_there = job->desire == DESIRE_PAUSED && (job->state == JOB_PAUSED || job->state == JOB_PAUSING); break;
	case ENGINE_STOP:
		*is_there = job->desire == DESIRE_STOPPED && (job->state == JOB_STOPPED || job->state == JOB_STOPPING);
		*is_there |= job->desire != DESIRE_DELETING && job->state == JOB_COMPLETED;
		break;
	case ENGINE_RESTART: *is_there = false; break;
	}
	if (*is_there || job_allowed(job) & 1u << verb)
		return 0;
	if (job->desire == DESIRE_DELETING)
		err_set(e, DMSR_ESTATE, "job.invalid-transition", "job %s is being deleted", job->name);
	else
		err_set(e, DMSR_ESTATE, "job.invalid-transition", "job %s is %s: it cannot %s", job->name, state_names[job->state], job_verb_names[verb]);
	if (job->state == JOB_COMPLETED)
		err_hint(e, "to load again: DELETE /jobs/%s/positions, POST /jobs/%s/start", job->name, job->name);
	return DMSR_ESTATE;
}

void job_do(struct job *job, enum engine_verb verb)
{
	job->updated_us = wall_now_us();
	job->restart_wanted = false;
	if ((verb == ENGINE_START || verb == ENGINE_RESUME) && job->pipeline && job->run_generation != job->generation)
		verb = ENGINE_RESTART; /* it was changed while it was paused */
	switch (verb) {
	case ENGINE_START:
	case ENGINE_RESUME:
		json_array_clear(job->warnings);
		job->desire = DESIRE_RUNNING;
		job->attempts = 0;
		if (job->state == JOB_STOPPING)
			job->restart_wanted = true;
		break;
	case ENGINE_PAUSE:
		job->desire = DESIRE_PAUSED;
		break;
	case ENGINE_STOP:
		job->desire = DESIRE_STOPPED;
		job->stop_reason = "user";
		break;
	case ENGINE_RESTART:
		json_array_clear(job->warnings);
		job->desire = DESIRE_RUNNING;
		job->attempts = 0;
		job->restart_wanted = true;
		if (job->pipeline || job->state == JOB_RETRYING)
			halt(job);
		break;
	}
	if (job->restart_wanted && !job_is_settled(job))
		return; /* goes on in job_begin, when it has settled */
	job->restart_wanted = false;
	steer(job);
}

void job_reopen(struct job *job, const char *why)
{
	if (job->state != JOB_COMPLETED)
		return;
	job->stop_reason = NULL;
	job->desire = DESIRE_STOPPED; /* until somebody starts it */
	set_state(job, JOB_STOPPED, why);
}

void job_forgotten(struct job *job)
{
	job->is_forgetting = false;
	job->stop_reason = NULL;
	job_reopen(job, "its positions are forgotten");
}

void job_delete(struct job *job)
{
	job->desire = DESIRE_DELETING;
	job->restart_wanted = false;
	job->updated_us = wall_now_us();
	steer(job);
}

void job_shutdown(struct job *job)
{
	job->restart_wanted = false;
	if (!job->pipeline && job->state != JOB_RETRYING)
		return;
	job->stop_reason = "shutdown";
	halt(job);
}

void job_begin(struct job *job)
{
	job->restart_wanted = false;
	if (job->house->is_draining)
		return;
	if (job->desire == DESIRE_RUNNING && (job->state == JOB_FAILED || job->state == JOB_COMPLETED))
		return; /* somebody must ask for it */
	steer(job);
}

void job_state_lost(struct job *job, const struct err *e)
{
	loop_timer_stop(job->retry_timer);
	if (job->pipeline)
		end_run(job);
	else if (job->state != JOB_RETRYING && job->state != JOB_STARTING)
		return;
	job_set_error(job, e, "state");
	job->stop_reason = "error";
	set_state(job, JOB_FAILED, e->id);
}
