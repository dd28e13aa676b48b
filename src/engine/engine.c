/* engine: all jobs of the daemon: opened with it, listed by name, told to observers, drained and closed with it. */
#include "engine_int.h"
#include "base/nearest.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

struct job *engine_find(const struct engine *g, const char *name_or_uid)
{
	size_t lo = 0, hi = g->njobs;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = strcmp(name_or_uid, g->jobs[mid]->name);
		if (!c)
			return g->jobs[mid];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	for (size_t i = 0; strlen(name_or_uid) == 26 && i < g->njobs; i++)
		if (!strcmp(g->jobs[i]->uid, name_or_uid))
			return g->jobs[i];
	return NULL;
}

void engine_insert(struct engine *g, struct job *job)
{
	size_t at = 0;
	while (at < g->njobs && strcmp(g->jobs[at]->name, job->name) < 0)
		at++;
	g->jobs = mem_realloc_array(g->jobs, g->njobs + 1, sizeof *g->jobs);
	memmove(g->jobs + at + 1, g->jobs + at, (g->njobs - at) * sizeof *g->jobs);
	g->jobs[at] = job;
	g->njobs++;
}

void engine_remove(struct engine *g, struct job *job)
{
	for (size_t i = 0; i < g->njobs; i++) {
		if (g->jobs[i] != job)
			continue;
		g->njobs--;
		memmove(g->jobs + i, g->jobs + i + 1, (g->njobs - i) * sizeof *g->jobs);
		break;
	}
	engine_probes_forget(g, job);
	job_free(job);
}

/* ---- answers ---- */

void engine_turn(struct engine *g) { loop_task_post(g->task); }

void engine_answer(struct engine *g, const struct engine_call *call, json_t *result, const struct err *e, json_t *errors)
{
	struct answer *a = mem_alloc(sizeof *a);
	*a = (struct answer){ .done = call->done, .arg = call->arg, .result = e ? NULL : result, .errors = errors };
	if (e) {
		a->error = *e;
		json_decref(result);
	}
	*g->answers_end = a;
	g->answers_end = &a->next;
	engine_turn(g);
}

static void give_answers(struct engine *g)
{
	struct answer *a = g->answers, *next;
	g->answers = NULL;
	g->answers_end = &g->answers;
	for (; a; a = next) {
		next = a->next;
		if (a->done)
			a->done(a->arg, a->result, err_is_set(&a->error) ? &a->error : NULL, a->errors);
		json_decref(a->result);
		json_decref(a->errors);
		free(a);
	}
}

/* ---- what is told ---- */

void engine_tell(struct engine *g, const char *type, const char *job, json_t *data)
{
	uint64_t id = ++g->event_id;
	json_object_set_new(data, "ts", view_time(wall_now_us()));
	for (struct engine_observer *o = g->observers, *next; o; o = next) {
		next = o->next;
		o->fn(o->arg, id, type, job, data);
	}
}

struct engine_observer *engine_observe(struct engine *g, void (*fn)(void *arg, uint64_t id, const char *type, const char *job, const json_t *data), void *arg)
{
	struct engine_observer *o = mem_alloc(sizeof *o);
	*o = (struct engine_observer){ .next = g->observers, .g = g, .fn = fn, .arg = arg, .wants_progress = true };
	g->observers = o;
	return o;
}

void engine_observe_progress(struct engine_observer *o, bool is) { o->wants_progress = is; }

static bool is_progress_wanted(const struct engine *g)
{
	for (const struct engine_observer *o = g->observers; o; o = o->next)
		if (o->wants_progress)
			return true;
	return false;
}

void engine_unobserve(struct engine_observer *o)
{
	if (!o)
		return;
	struct engine_observer **at = &o->g->observers;
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	free(o);
}

void engine_audit(struct engine *g, const struct job *job, const struct engine_call *call, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	const struct store_event ev = { .ts_us = wall_now_us(), .kind = "audit", .actor = call->actor, .text = text };
	log_info("audit", job ? job->name : NULL, "%s: %s", call->actor ? call->actor : "?", text);
	if (!g->store_failed)
		store_event_put(g->store, job ? job->uid : NULL, &ev);
}

static void on_job_changed(void *ctx, struct job *job, const char *why)
{
	struct engine *g = ctx;
	json_t *data = view_event(job);
	json_object_set_new(data, "why", json_string(why));
	engine_tell(g, "state", job->name, data);
	json_decref(data);
}

static void on_job_settled(void *ctx, struct job *job)
{
	(void)job;
	engine_turn(ctx);
}

static void on_job_event(void *ctx, struct job *job, const char *kind, const char *text)
{
	struct engine *g = ctx;
	const struct store_event ev = { .ts_us = wall_now_us(), .kind = kind, .actor = NULL, .text = text };
	if (!g->store_failed)
		store_event_put(g->store, job->uid, &ev);
	if (!strcmp(kind, "state"))
		return; /* told by changed */
	json_t *data = json_pack("{s:s, s:s}", "kind", kind, "text", text);
	engine_tell(g, kind, job->name, data);
	json_decref(data);
}

static void on_job_follows(void *ctx, struct job *job) { engine_probe_targets(ctx, job); }

/* ---- turns ---- */

static bool all_settled(const struct engine *g)
{
	for (size_t i = 0; i < g->njobs; i++)
		if (!job_is_settled(g->jobs[i]))
			return false;
	return true;
}

static void stop_all(struct engine *g)
{
	for (size_t i = 0; i < g->njobs; i++)
		job_state_lost(g->jobs[i], &g->store_error);
}

enum { TOLD_AT_ONCE = 10 };

static void on_task(void *arg)
{
	struct engine *g = arg;
	if (g->store_failed)
		stop_all(g);
	for (size_t i = 0; i < g->njobs; i++)
		if (g->jobs[i]->restart_wanted && job_is_settled(g->jobs[i]))
			job_begin(g->jobs[i]);
	deletions_turn(g);
	give_answers(g);
	if (!g->drained || !all_settled(g))
		return;
	void (*drained)(void *) = g->drained;
	g->drained = NULL;
	drained(g->drained_arg);
}

/* A few at a time: there may be a thousand jobs. */
static void on_telling(void *arg)
{
	struct engine *g = arg;
	const bool is_wanted = is_progress_wanted(g);
	for (unsigned n = 0; is_wanted && g->told < g->njobs && n < TOLD_AT_ONCE; g->told++) {
		const struct job *job = g->jobs[g->told];
		if (!job->pipeline)
			continue;
		json_t *status = engine_job_status(g, job->name);
		engine_tell(g, "progress", job->name, status);
		json_decref(status);
		n++;
	}
	if (is_wanted && g->told < g->njobs)
		loop_task_post(g->telling);
}

static void on_second(void *arg)
{
	struct engine *g = arg;
	loop_timer_start(g->second, 1000);
	g->told = 0;
	if (is_progress_wanted(g))
		loop_task_post(g->telling);
	engine_looks(g);
	if (g->deletions)
		engine_turn(g);
}

static void on_store_failed(void *arg, const struct err *e)
{
	struct engine *g = arg;
	if (g->store_failed)
		return;
	g->store_failed = true;
	g->store_error = *e;
	log_error("engine", NULL, "the state store cannot be written any more, all jobs stop: %s: %s; %s", e->id, e->message, e->hint);
	if (g->task)
		engine_turn(g);
}

int engine_may_change(struct engine *g, struct err *e)
{
	if (g->store_failed) {
		*e = g->store_error;
		return e->code;
	}
	if (g->house.is_draining)
		return err_retry(e, DMSR_ESTATE, "draining", "the daemon is stopping and takes no more commands");
	return 0;
}

/* ---- life ---- */

static void on_plugin_error(void *arg, const char *path, const struct err *e)
{
	(void)arg;
	log_error("plugin", NULL, "%s: %s: %s", path, e->id, e->message);
}

static int on_stored_job(void *arg, const struct store_job *j)
{
	struct engine *g = arg;
	struct err e = { 0 };
	struct job *job = job_restore(&g->house, j, &e);
	if (!job) {
		log_error("engine", j->name, "%s: %s", e.id, e.message);
		return -1;
	}
	engine_insert(g, job);
	return 0;
}

static void read_limits(struct engine *g)
{
	g->house.retry_initial_ms = (uint64_t)config_int(g->config, "jobs.retry_initial");
	g->house.retry_max_ms = (uint64_t)config_int(g->config, "jobs.retry_max");
	g->house.retry_forever = config_bool(g->config, "jobs.retry_forever");
	g->look_ms = (uint64_t)config_int(g->config, "jobs.look_interval");
	g->house.drain_ms = (uint64_t)config_int(g->config, "drain_timeout");
}

static int read_secrets(struct engine *g, struct err *e)
{
	problems *p = json_array();
	struct secrets *s = secrets_new(config_json(g->config, "secrets"), p);
	if (!s) {
		config_invalid(p, 0, e);
	} else {
		secrets_free(g->secrets);
		g->secrets = s;
		g->house.secrets = s;
	}
	json_decref(p);
	return s ? 0 : e->code;
}

static bool is_plugin(const struct plugins *plugins, const char *name)
{
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(plugins, i)); i++)
		if (!strcmp(pl->name, name))
			return true;
	return false;
}

static void check_room(const char *name, const struct plugins *plugins, problems *p)
{
	struct nearest near = NEAREST(name);
	struct buf all;
	char at[256];
	bool is = is_plugin(plugins, name);
	buf_init(&all, 400);
	for (const char *const *room = config_rooms; *room && !is; room++) {
		is = !strcmp(*room, name);
		nearest_try(&near, *room);
		buf_printf(&all, "%s%s", room == config_rooms ? "" : ", ", *room);
	}
	if (!is)
		problem_add(p, "unknown-key", near.best, pointer_join(at, sizeof at, "/log/levels", name),
			"there is no room \"%.64s\"%s%s%s rooms are %s, and plugins by their names", name, near.best ? ": is \"" : "",
			near.best ? near.best : "", near.best ? "\" meant? The" : "; the", buf_cstr(&all));
	buf_fini(&all);
}

/* Each with the layer that its option came from, and its pointer, before it. */
static void add_findings(problems *p, const problems *found, const struct config *c)
{
	size_t i;
	json_t *one;
	json_array_foreach((json_t *)(uintptr_t)found, i, one)
	{
		const char *pointer = json_string_value(json_object_get(one, "pointer")), *detail = json_string_value(json_object_get(one, "detail"));
		const char *place = config_place(c, !strncmp(pointer, "/log/", 5) ? "log.levels" : "jobs.streamer");
		problem_add(p, json_string_value(json_object_get(one, "code")), json_string_value(json_object_get(one, "suggestion")), pointer,
			"%s: %s: %s", place, pointer, detail);
	}
}

void engine_check_config(const struct engine *g, const struct config *c, problems *p)
{
	const json_t *streamer = config_json(c, "jobs.streamer"), *levels = config_json(c, "log.levels");
	const char *room;
	json_t *level;
	if (!json_object_get(streamer, "type") && !json_object_size(levels)) /* a streamer without is refused already */
		return;
	problems *found = json_array();
	struct secrets *secrets = secrets_new(config_json(c, "secrets"), found);
	struct plugins *own = g ? NULL : plugins_new();
	if (own)
		plugins_load_dir(own, config_str(c, "plugin_dir"), on_plugin_error, NULL);
	json_object_foreach((json_t *)(uintptr_t)levels, room, level)
	{
		check_room(room, g ? g->plugins : own, found);
	}
	if (secrets && json_object_get(streamer, "type"))
		spec_check_streamer(streamer, "/jobs/streamer", g ? g->plugins : own, secrets, found);
	plugins_free(own);
	secrets_free(secrets);
	add_findings(p, found, c);
	json_decref(found);
}

static int check_config(const struct engine *g, const struct config *c, struct err *e)
{
	problems *p = json_array();
	engine_check_config(g, c, p);
	int rc = config_invalid(p, 0, e);
	json_decref(p);
	return rc;
}

/* What a job is beside its specification: flags in the store. */
static int on_flag(void *arg, const char *key, const char *value)
{
	struct job *job = arg;
	(void)value;
	if (!strcmp(key, "from_file"))
		job->is_from_file = true;
	if (!strcmp(key, "keep_source"))
		job->keep_source = true;
	return 0;
}

static int open_jobs(struct engine *g, struct err *e)
{
	int rc = store_each_job(g->store, on_stored_job, g, e);
	if (rc && !err_is_set(e))
		err_set(e, DMSR_EPROTO, "state.corrupt", "a job in the state store %s cannot be read", store_dir(g->store));
	for (size_t i = 0; !rc && i < g->njobs; i++)
		rc = store_each(g->store, g->jobs[i]->uid, "flag", on_flag, g->jobs[i], e);
	return rc;
}

int engine_open(struct loop *l, const struct config *c, struct engine **out, struct err *e)
{
	struct engine *g = mem_zalloc(sizeof *g);
	g->loop = l;
	g->config = c;
	g->answers_end = &g->answers;
	g->plugins = plugins_new();
	plugins_load_dir(g->plugins, config_str(c, "plugin_dir"), on_plugin_error, NULL);
	if (read_secrets(g, e) || check_config(g, c, e) || store_open(l, config_str(c, "state_dir"), on_store_failed, g, &g->store, e)) {
		engine_close(g);
		return e->code;
	}
	g->house = (struct job_house){
		.loop = l,
		.store = g->store,
		.plugins = g->plugins,
		.secrets = g->secrets,
		.state_dir = store_dir(g->store),
		.ctx = g,
		.changed = on_job_changed,
		.settled = on_job_settled,
		.event = on_job_event,
		.may_run = engine_may_run,
		.follows = on_job_follows,
	};
	read_limits(g);
	g->task = loop_task_new(l, "engine", on_task, g);
	g->telling = loop_task_new(l, "engine", on_telling, g);
	g->second = loop_timer_new(l, "engine", on_second, g);
	if (open_jobs(g, e)) {
		engine_close(g);
		return e->code;
	}
	unsigned nbad = engine_files_read(g); /* before anything runs: what may be changed of a job at rest may be changed now */
	if (nbad)
		log_warn("engine", NULL, "%u files of %s could not be taken", nbad, config_str(c, "jobs_dir"));
	for (size_t i = 0; i < g->njobs; i++)
		job_begin(g->jobs[i]);
	loop_timer_start(g->second, 1000);
	engine_turn(g);
	*out = g;
	return 0;
}

void engine_drain(struct engine *g, void (*done)(void *arg), void *arg)
{
	g->house.is_draining = true;
	g->drained = done;
	g->drained_arg = arg;
	for (size_t i = 0; i < g->njobs; i++)
		job_shutdown(g->jobs[i]);
	engine_turn(g);
}

void engine_close(struct engine *g)
{
	if (!g)
		return;
	g->is_closing = true;
	engine_probes_cancel(g);
	for (size_t i = 0; i < g->njobs; i++)
		job_close_run(g->jobs[i]);
	store_close(g->store); /* its last callbacks still find jobs and deletions */
	g->store_failed = true;
	deletions_free(g);
	give_answers(g);
	for (size_t i = 0; i < g->njobs; i++)
		job_free(g->jobs[i]);
	free(g->jobs);
	while (g->observers)
		engine_unobserve(g->observers);
	loop_task_free(g->task);
	loop_task_free(g->telling);
	loop_timer_free(g->second);
	secrets_free(g->secrets);
	plugins_free(g->plugins);
	free(g);
}

unsigned engine_reload(struct engine *g, const struct config *c)
{
	struct err e = { 0 };
	g->config = c;
	if (read_secrets(g, &e))
		log_error("engine", NULL, "the secrets stay as they were: %s", e.message);
	read_limits(g);
	if (!g->store_failed)
		return engine_files_read(g);
	log_warn("jobs.d", NULL, "the files of jobs_dir are not read, since nothing can be stored: they are when dmsrd begins anew");
	return 0;
}

bool engine_is_ready(const struct engine *g, struct err *why)
{
	if (g->store_failed)
		*why = g->store_error;
	else if (g->house.is_draining)
		err_retry(why, DMSR_ESTATE, "draining", "the daemon is stopping");
	else
		return true;
	return false;
}

bool engine_has_room(const struct engine *g) { return g->store_failed && store_has_room(g->store); }
bool engine_is_draining(const struct engine *g) { return g->house.is_draining; }
struct plugins *engine_plugins(struct engine *g) { return g->plugins; }
struct store *engine_store(struct engine *g) { return g->store; }
