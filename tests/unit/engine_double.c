/* engine_double: an engine that does nothing. */
#include "engine_double.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct answer {
	struct answer *next;
	struct engine_call call;
	json_t *result, *errors;
	struct err e;
};
/* A key of a POST, and what asks for it or keeps it. */
struct key_question {
	struct key_question *next;
	char *key;
	void (*got)(void *arg, const char *request_hash, int status, const char *reply, const struct err *e);
	store_done *put;
	void *arg;
};
struct engine {
	struct loop_task *task;
	struct answer *answers, **last;
	struct key_question *keys, **last_key;
	bool hold, hold_store, ready, draining;
	struct err fail;
	json_t *fail_errors;
	json_t *jobs;           /* name -> job */
	json_t *kept;           /* key -> [hash, status, reply] */
	struct double_seen seen;
	uint64_t event_id;
	void (*observer)(void *arg, uint64_t id, const char *type, const char *job, const json_t *data);
	void *observer_arg;
	bool wants_progress;
};

static void answer_keys(struct engine *g)
{
	while (g->keys && !g->hold_store) {
		struct key_question *q = g->keys;
		json_t *k = json_object_get(g->kept, q->key);
		if (!(g->keys = q->next))
			g->last_key = &g->keys;
		if (q->put)
			q->put(q->arg, NULL);
		else
			q->got(q->arg, json_string_value(json_array_get(k, 0)), (int)json_integer_value(json_array_get(k, 1)),
				json_string_value(json_array_get(k, 2)), NULL);
		free(q->key);
		free(q);
	}
}

static void on_task(void *arg)
{
	struct engine *g = arg;
	answer_keys(g);
	while (g->answers && !g->hold) {
		struct answer *a = g->answers;
		if (!(g->answers = a->next))
			g->last = &g->answers;
		a->call.done(a->call.arg, a->e.code ? NULL : a->result, a->e.code ? &a->e : NULL, a->errors);
		json_decref(a->result);
		json_decref(a->errors);
		free(a);
	}
}

struct engine *double_new(struct loop *l)
{
	struct engine *g = mem_zalloc(sizeof *g);
	g->task = loop_task_new(l, "double", on_task, g);
	g->last = &g->answers;
	g->last_key = &g->keys;
	g->ready = true;
	g->jobs = json_object();
	g->kept = json_object();
	return g;
}

void double_free(struct engine *g)
{
	g->hold = g->hold_store = false;
	on_task(g);
	loop_task_free(g->task);
	json_decref(g->jobs);
	json_decref(g->kept);
	json_decref(g->fail_errors);
	json_decref(g->seen.spec);
	free(g);
}

void double_fail(struct engine *g, int code, const char *id, const json_t *errors)
{
	err_clear(&g->fail);
	if (code)
		err_set(&g->fail, code, id, "the double was told to fail");
	json_decref(g->fail_errors);
	g->fail_errors = errors ? json_deep_copy(errors) : NULL;
}

void double_hold(struct engine *g, bool hold)
{
	g->hold = hold;
	loop_task_post(g->task);
}

void double_hold_store(struct engine *g, bool hold)
{
	g->hold_store = hold;
	loop_task_post(g->task);
}

void double_set_ready(struct engine *g, bool ready, bool draining)
{
	g->ready = ready;
	g->draining = draining;
}

void double_emit(struct engine *g, const char *type, const char *job, json_t *data)
{
	g->event_id++;
	if (g->observer)
		g->observer(g->observer_arg, g->event_id, type, job, data);
	json_decref(data);
}

json_t *double_peek(struct engine *g, const char *name) { return json_object_get(g->jobs, name); }

static json_t *job_new(const char *name)
{
	char uid[64];
	snprintf(uid, sizeof uid, "uid-of-%s", name);
	return json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", name, "uid", uid, "state", "running", "desired_state", "running", "generation", 1);
}

void double_add(struct engine *g, const char *name) { json_object_set_new(g->jobs, name, job_new(name)); }

static json_int_t bump(json_t *job)
{
	json_int_t n = json_integer_value(json_object_get(job, "generation")) + 1;
	json_object_set_new(job, "generation", json_integer(n));
	return n;
}

void double_bump(struct engine *g, const char *name) { bump(double_peek(g, name)); }

const struct double_seen *double_seen(const struct engine *g) { return &g->seen; }

size_t double_held(const struct engine *g)
{
	size_t n = 0;
	for (const struct answer *a = g->answers; a; a = a->next)
		n++;
	return n;
}

static void see(struct engine *g, const struct engine_call *call, const json_t *spec, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void see(struct engine *g, const struct engine_call *call, const json_t *spec, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(g->seen.what, sizeof g->seen.what, fmt, ap);
	va_end(ap);
	snprintf(g->seen.actor, sizeof g->seen.actor, "%s", call->actor);
	g->seen.if_generation = call->if_generation;
	json_decref(g->seen.spec);
	g->seen.spec = spec ? json_deep_copy(spec) : NULL;
	g->seen.ncalls++;
}

/* result is taken; e: a failure of its own, NULL: none. */
static void answer(struct engine *g, const struct engine_call *call, json_t *result, const struct err *e)
{
	struct answer *a = mem_zalloc(sizeof *a);
	a->call = *call;
	a->result = result;
	a->e = g->fail.code ? g->fail : e ? *e : (struct err){ 0 };
	a->errors = json_incref(g->fail_errors);
	*g->last = a;
	g->last = &a->next;
	loop_task_post(g->task);
}

static void refuse(struct engine *g, const struct engine_call *call, int code, const char *id)
{
	struct err e;
	err_set(&e, code, id, "the double refuses");
	answer(g, call, NULL, &e);
}

/* ---- engine.h ---------------------------------------------------------------------------------------------------- */
bool engine_is_ready(const struct engine *g, struct err *why)
{
	if (!g->ready)
		err_set(why, DMSR_ESTATE, "state.io", "the state store cannot be written");
	return g->ready;
}

bool engine_is_draining(const struct engine *g) { return g->draining; }

static const char *name_in(const json_t *spec)
{
	const char *name = json_string_value(json_object_get(spec, "name"));
	return name ? name : "?";
}

void engine_create(struct engine *g, const json_t *spec, bool dry_run, const struct engine_call *call)
{
	const char *name = name_in(spec);
	see(g, call, spec, "create %s%s", name, dry_run ? " dry_run" : "");
	if (dry_run) {
		answer(g, call, json_pack("{s:b, s:[]}", "valid", 1, "checks"), NULL);
	} else if (double_peek(g, name)) {
		refuse(g, call, DMSR_EEXIST, "job.exists");
	} else {
		if (!g->fail.code)
			double_add(g, name);
		answer(g, call, json_incref(double_peek(g, name)), NULL);
	}
}

static void change(struct engine *g, const char *name, const struct engine_call *call)
{
	json_t *job = double_peek(g, name);
	if (call->if_generation >= 0 && call->if_generation != json_integer_value(json_object_get(job, "generation"))) {
		refuse(g, call, DMSR_ESTATE, "precondition.failed");
		return;
	}
	if (!g->fail.code)
		bump(job);
	answer(g, call, json_deep_copy(job), NULL);
}

void engine_replace(struct engine *g, const char *name, const json_t *spec, const struct engine_call *call)
{
	see(g, call, spec, "replace %s", name);
	if (double_peek(g, name)) {
		change(g, name, call);
		return;
	}
	double_add(g, name);
	json_t *result = json_deep_copy(double_peek(g, name));
	json_object_set_new(result, "created", json_true());
	answer(g, call, result, NULL);
}

void engine_patch(struct engine *g, const char *name, const json_t *merge_patch, const struct engine_call *call)
{
	see(g, call, merge_patch, "patch %s", name);
	change(g, name, call);
}

/* A job named "left" leaves something, one named "pending" takes its time. */
void engine_delete(struct engine *g, const char *name, bool keep_source, bool force, const struct engine_call *call)
{
	see(g, call, NULL, "delete %s%s%s", name, keep_source ? " keep_source" : "", force ? " force" : "");
	json_t *result = json_pack("{s:[]}", "left");
	if (!strcmp(name, "left"))
		json_array_append_new(json_object_get(result, "left"), json_string("DROP PUBLICATION x"));
	if (!strcmp(name, "pending"))
		json_object_set_new(result, "pending", json_true());
	json_object_del(g->jobs, name);
	answer(g, call, result, NULL);
}

void engine_command(struct engine *g, const char *name, enum engine_verb verb, const struct engine_call *call)
{
	static const char *const words[] = { "start", "pause", "resume", "stop", "restart" };
	see(g, call, NULL, "command %s %s", name, words[verb]);
	json_t *result = json_pack("{s:s, s:s}", "state", verb == ENGINE_START ? "running" : "pausing", "desired_state", "paused");
	if (verb == ENGINE_START)
		json_object_set_new(result, "unchanged", json_true());
	answer(g, call, result, NULL);
}

void engine_validate(struct engine *g, const json_t *spec, const struct engine_call *call)
{
	see(g, call, spec, "validate %s", name_in(spec));
	answer(g, call, json_pack("{s:b, s:[], s:[]}", "valid", 1, "errors", "checks"), NULL);
}

void engine_check(struct engine *g, const json_t *connection, const struct engine_call *call)
{
	see(g, call, connection, "check");
	answer(g, call, json_pack("{s:b, s:[]}", "ok", 1, "checks"), NULL);
}

void engine_discover(struct engine *g, const json_t *connection, const struct engine_call *call)
{
	see(g, call, connection, "discover");
	answer(g, call, json_pack("{s:[]}", "tables"), NULL);
}

void engine_positions_set(struct engine *g, const char *name, const json_t *body, const struct engine_call *call)
{
	see(g, call, body, "positions %s%s", name, body ? "" : " forget");
	answer(g, call, body ? json_pack("{s:s}", "stored", "pg:1:2:3:4") : NULL, NULL);
}

void engine_reload_table(struct engine *g, const char *name, const char *table, const struct engine_call *call)
{
	see(g, call, NULL, "reload %s of %s", table, name);
	answer(g, call, json_pack("{s:s}", "state", "running"), NULL);
}

void engine_errors(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call)
{
	see(g, call, NULL, "errors %s after %lld limit %d", name, (long long)after, limit);
	answer(g, call, json_pack("{s:[{s:i}], s:o}", "items", "id", (int)after + 1, "next", after < 2 ? json_integer(after + 1) : json_null()), NULL);
}

void engine_errors_delete(struct engine *g, const char *name, int64_t id, const struct engine_call *call)
{
	see(g, call, NULL, "errors_delete %s %lld", name, (long long)id);
	answer(g, call, NULL, NULL);
}

void engine_events(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call)
{
	see(g, call, NULL, "events %s after %lld limit %d", name ? name : "-", (long long)after, limit);
	answer(g, call, json_pack("{s:[], s:n}", "items", "next"), NULL);
}

json_t *engine_jobs(struct engine *g, const char *after, int limit, const char *state, bool status, char **next)
{
	json_t *items = json_array(), *job;
	const char *name;
	json_object_foreach(g->jobs, name, job)
	{
		if ((after && strcmp(name, after) <= 0) || (state && strcmp(json_string_value(json_object_get(job, "state")), state) != 0))
			continue;
		if ((int)json_array_size(items) == limit) {
			*next = mem_strdup(json_string_value(json_object_get(json_array_get(items, (size_t)limit - 1), "name")));
			break;
		}
		json_t *copy = json_deep_copy(job);
		if (status)
			json_object_set_new(copy, "status", json_object());
		json_array_append_new(items, copy);
	}
	return items;
}

json_t *engine_job(struct engine *g, const char *name_or_uid, int64_t *generation)
{
	json_t *job = json_object_get(g->jobs, strncmp(name_or_uid, "uid-of-", 7) == 0 ? name_or_uid + 7 : name_or_uid);
	if (job && generation)
		*generation = json_integer_value(json_object_get(job, "generation"));
	return json_deep_copy(job);
}

static json_t *part(struct engine *g, const char *name, const char *what)
{
	return double_peek(g, name) ? json_pack("{s:s, s:s}", "name", name, "part", what) : NULL;
}

json_t *engine_job_status(struct engine *g, const char *name) { return part(g, name, "status"); }

json_t *engine_job_tables(struct engine *g, const char *name, const json_t *after, size_t limit, json_t **next)
{
	(void)limit;
	json_t *j = part(g, name, "tables"), *ops = json_pack("{s:i, s:i, s:i, s:i}", "insert", 1, "update", 2, "delete", 3, "truncate", 4);
	if (j)
		json_object_set_new(j, "items", json_pack("[{s:s, s:s, s:{s:i}}]", "schema", "public", "name", "a\"b", "load", "rows", 5));
	json_object_set(json_array_get(json_object_get(j, "items"), 0), "captured", ops);
	json_object_set(json_array_get(json_object_get(j, "items"), 0), "applied", ops);
	json_decref(ops);
	/* the first page says that there is one more, with nothing in it */
	*next = j && !after ? json_pack("[s, s]", "public", "a\"b") : NULL;
	if (after)
		json_array_clear(json_object_get(j, "items"));
	return j;
}

json_t *engine_job_positions(struct engine *g, const char *name) { return part(g, name, "positions"); }

json_t *engine_connectors(struct engine *g)
{
	(void)g;
	return json_pack("{s:[{s:s, s:[s]}]}", "items", "name", "postgres", "roles", "source");
}

json_t *engine_connector(struct engine *g, const char *type)
{
	(void)g;
	return !strcmp(type, "postgres") ? json_pack("{s:s, s:{s:{s:s}}}", "name", type, "options", "source", "type", "object") : NULL;
}

json_t *engine_job_schema(struct engine *g)
{
	(void)g;
	return json_pack("{s:s, s:{s:{s:[{s:s, s:{}}]}, s:{s:b}}, s:[s]}", "type", "object",
		"properties", "source", "anyOf", "title", "postgres", "properties", "uid", "readOnly", 1, "required", "source");
}

struct engine_observer *engine_observe(struct engine *g, void (*fn)(void *arg, uint64_t id, const char *type, const char *job, const json_t *data), void *arg)
{
	g->observer = fn;
	g->observer_arg = arg;
	g->wants_progress = true;
	return (struct engine_observer *)g;
}

void engine_observe_progress(struct engine_observer *o, bool is) { ((struct engine *)o)->wants_progress = is; }

bool double_wants_progress(const struct engine *g) { return g->wants_progress; }

void engine_unobserve(struct engine_observer *o) { ((struct engine *)o)->observer = NULL; }

struct store *engine_store(struct engine *g) { return (struct store *)g; }

void engine_each_job(struct engine *g, void (*fn)(void *arg, const struct engine_job_metrics *m), void *arg)
{
	const char *name;
	json_t *job;
	json_object_foreach(g->jobs, name, job)
	{
		struct engine_job_metrics m = { .name = name, .state = json_string_value(json_object_get(job, "state")), .lag_bytes = 42, .retained_bytes = -1,
			.safe_bytes = -1, .lag_seconds = 1.5, .events = { 1, 2, 3, 4, 5, 6 }, .last_event_us = 1500000 };
		fn(arg, &m);
	}
}

/* ---- store.h ----------------------------------------------------------------------------------------------------- */
static void ask_key(struct engine *g, struct key_question q, const char *key)
{
	struct key_question *k = mem_zalloc(sizeof *k);
	*k = q;
	k->key = mem_strdup(key);
	*g->last_key = k;
	g->last_key = &k->next;
	loop_task_post(g->task);
}

void store_idem_get(struct store *s, const char *key,
	void (*done)(void *arg, const char *request_hash, int status, const char *reply, const struct err *e), void *arg)
{
	ask_key((struct engine *)s, (struct key_question){ .got = done, .arg = arg }, key);
}

void store_idem_put(struct store *s, const char *key, const char *request_hash, int status, const char *reply, store_done *done, void *arg)
{
	struct engine *g = (struct engine *)s;
	json_object_set_new(g->kept, key, json_pack("[s, i, s]", request_hash, status, reply));
	ask_key(g, (struct key_question){ .put = done, .arg = arg }, key);
}

void store_stat(const struct store *s, struct store_stat *out)
{
	(void)s;
	*out = (struct store_stat){ .commits = 7, .commit_us_total = 3500000 };
}
