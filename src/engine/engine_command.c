/* engine_command: what is asked of the engine: jobs made, changed, told to do something; questions about connections, dead letters, events. A
 * command is answered when it is durable. */
#include "engine_int.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A command on its way through the store or a server. */
struct command {
	struct engine *g;
	struct engine_call call;
	char uid[27];                   /* of the job, which may be gone by the answer; "": of none */
	bool created, restarted, reopened, goes_back;
	struct position at;
};

static struct command *command_new(struct engine *g, const struct engine_call *call, struct job *job)
{
	struct command *c = mem_zalloc(sizeof *c);
	c->g = g;
	c->call = *call;
	c->call.actor = NULL; /* borrowed: the audit was written before */
	if (job)
		memcpy(c->uid, job->uid, sizeof c->uid);
	return c;
}

int engine_refuse(struct engine *g, const struct engine_call *call, const struct err *e, json_t *errors)
{
	engine_answer(g, call, NULL, e, errors);
	return e->code;
}

static struct job *find_or_refuse(struct engine *g, const char *name, const struct engine_call *call)
{
	struct err e = { 0 };
	struct job *job = engine_find(g, name);
	if (!job) {
		err_set(&e, DMSR_ENOTFOUND, "job.not-found", "there is no job \"%.63s\"", name);
		engine_refuse(g, call, &e, NULL);
	}
	return job;
}

struct job *engine_find_to_change(struct engine *g, const char *name, const struct engine_call *call, bool spec_too)
{
	struct err e = { 0 };
	if (engine_may_change(g, &e)) {
		engine_refuse(g, call, &e, NULL);
		return NULL;
	}
	struct job *job = find_or_refuse(g, name, call);
	if (!job)
		return NULL;
	if (call->if_generation >= 0 && call->if_generation != job->generation)
		err_set(&e, DMSR_ESTATE, "precondition.failed", "job %s is at generation %lld, not %lld: somebody changed it; read it again",
			job->name, (long long)job->generation,
			(long long)call->if_generation);
	else if (spec_too && job->is_from_file)
		err_set(&e, DMSR_ESTATE, "job.managed-by-file", "job %s comes from a file in jobs_dir: change the file and send SIGHUP", job->name);
	else if (job->is_forgetting)
		err_set(&e, DMSR_ESTATE, "job.busy", "the positions of job %s are being changed: ask again in a moment", job->name);
	else if (spec_too && job->desire == DESIRE_DELETING)
		err_set(&e, DMSR_ESTATE, "job.invalid-transition", "job %s is being deleted", job->name);
	else
		return job;
	engine_refuse(g, call, &e, NULL);
	return NULL;
}

/* ---- making and changing ---- */

static void invalid(struct engine *g, const struct engine_call *call, problems *p)
{
	struct err e = { 0 };
	size_t n = json_array_size(p);
	err_set(&e, DMSR_EINVAL, "job.validation", "the job's specification has %zu problem%s", n, n == 1 ? "" : "s");
	engine_refuse(g, call, &e, json_incref(p));
}

json_t *engine_whole_spec(const struct engine *g, const json_t *json, const struct job *old)
{
	return spec_give_streamer(json, old ? json_object_get(old->spec, "streamer") : config_json(g->config, "jobs.streamer"));
}

static void on_saved(void *arg, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	if (e || !job) {
		engine_answer(c->g, &c->call, e ? NULL : json_pack("{s:s}", "state", "deleted"), e, NULL);
		free(c);
		return;
	}
	json_t *result = engine_job(c->g, c->uid, NULL);
	if (c->created)
		json_object_set_new(result, "created", json_true());
	if (c->restarted)
		json_object_set_new(result, "restarted", json_true());
	char *note = c->reopened            ? mem_printf("its mode follows changes now: POST /jobs/%s/start", job->name) :
		job->state == JOB_FAILED    ? mem_printf("the job has failed, and a change does not start it: POST /jobs/%s/start", job->name) :
		job->state == JOB_COMPLETED ? mem_printf("the load is completed, and a change does not begin it anew: DELETE /jobs/%s/positions, "
							 "POST /jobs/%s/start",
						      job->name, job->name) :
					      NULL;
	if (note)
		json_object_set_new(result, "note", json_string(note));
	free(note);
	engine_answer(c->g, &c->call, result, NULL, NULL);
	free(c);
}

static void create(struct engine *g, const json_t *spec, const struct engine_call *call, bool is_put)
{
	struct job *job = job_new(&g->house, spec);
	engine_insert(g, job);
	engine_audit(g, job, call, "job %s created", job->name);
	job->desire = job_desire_of(spec);
	struct command *c = command_new(g, call, job);
	c->created = is_put;
	job_save(job, on_saved, c);
	/* The record is written before anything that a run writes: the store keeps the order. */
	if (job->desire == DESIRE_RUNNING)
		job_begin(job);
}

static void on_dry_checks(void *arg, json_t *checks, const struct err *e)
{
	struct command *c = arg;
	engine_answer(c->g, &c->call, json_pack("{s:b, s:[], s:O}", "valid", checks_are_good(checks), "errors", "checks", checks), e, NULL);
	free(c);
}

static void check_spec(struct engine *g, struct spec *spec, const struct engine_call *call)
{
	engine_probe_job(g, spec, engine_find(g, spec->name), on_dry_checks, command_new(g, call, NULL));
}

void engine_create(struct engine *g, const json_t *json, bool dry_run, const struct engine_call *call)
{
	struct err e = { 0 };
	if (!dry_run && engine_may_change(g, &e)) {
		engine_refuse(g, call, &e, NULL);
		return;
	}
	problems *p = json_array();
	json_t *whole = engine_whole_spec(g, json, NULL);
	struct spec *spec = spec_parse(whole, g->plugins, g->secrets, p);
	const char *name = json_is_object(json) ? json_string_value(json_object_get(json, "name")) : NULL;
	if (!spec) {
		invalid(g, call, p);
	} else if (engine_find(g, name)) {
		err_set(&e, DMSR_EEXIST, "job.exists", "there is a job \"%s\" already", name);
		if (dry_run)
			err_hint(&e, "POST /jobs/validate looks at what it is, or would be after a change");
		else
			err_hint(&e, "give the new one another name, or change it: PUT /jobs/%s", name);
		engine_refuse(g, call, &e, NULL);
	} else if (engine_refuse_own(g, whole, NULL, call)) {
		/* it is answered */
	} else if (dry_run) {
		check_spec(g, spec, call);
		spec = NULL;
	} else {
		create(g, whole, call, false);
	}
	spec_free(spec);
	json_decref(whole);
	json_decref(p);
}

void engine_validate(struct engine *g, const json_t *json, const struct engine_call *call)
{
	problems *p = json_array();
	struct job *old = json_is_object(json) && json_string_value(json_object_get(json, "name")) ? engine_find(g,
													     json_string_value(json_object_get(json, "name"))) :
												     NULL;
	json_t *with = engine_whole_spec(g, json, old), *whole = old ? spec_keep_secrets(with, old->spec, g->plugins) : json_incref(with);
	struct spec *spec = spec_parse(whole, g->plugins, g->secrets, p);
	if (spec)
		engine_check_own(g, whole, old, p);
	if (spec && !json_array_size(p)) {
		check_spec(g, spec, call);
		spec = NULL;
	} else {
		engine_answer(g, call, json_pack("{s:b, s:O, s:[]}", "valid", 0, "errors", p, "checks"), NULL, NULL);
	}
	spec_free(spec);
	json_decref(with);
	json_decref(whole);
	json_decref(p);
}

/* The stream holds what the targets have not applied: another one would not. */
static void check_stream(const struct job *job, const json_t *spec, problems *p)
{
	static const char *const fixed[][2] = { { "type", "embedded" }, { "prefix", NULL }, { "layout", "auto" }, { "codec", "json" }, { "load", "stream" } };
	const json_t *was = json_object_get(job->spec, "streamer"), *is = json_object_get(spec, "streamer");
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		char at[64];
		const char *dflt = fixed[i][1] ? fixed[i][1] : job->name;
		const char *a = json_string_value(json_object_get(was, fixed[i][0])), *b = json_string_value(json_object_get(is, fixed[i][0]));
		if (!strcmp(a ? a : dflt, b ? b : dflt))
			continue;
		snprintf(at, sizeof at, "/streamer/%s", fixed[i][0]);
		problem_add(p, "immutable", NULL, at, "what the targets have not applied is in that stream: stop the job and forget its positions first "
			"(DELETE /jobs/%s/positions), so that it begins anew", job->name);
	}
}

/* Is another place meant? The address of a server may change while nobody is connected to it. */
static bool is_moved(const struct job *job, const json_t *was, const json_t *is, const char *key, bool *is_address)
{
	const json_t *a = json_object_get(was, key), *b = json_object_get(is, key);
	*is_address = !strcmp(key, "host") || !strcmp(key, "port");
	return a != b && !json_equal(a, b) && !(*is_address && job_is_settled(job));
}

static void check_source(const struct job *job, const json_t *spec, problems *p)
{
	static const char *const fixed[] = { "connector", "database", "host", "port", "slot", "publication", "prefix" };
	const json_t *was = json_object_get(job->spec, "source"), *is = json_object_get(spec, "source");
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		char at[64];
		bool is_address;
		if (!is_moved(job, was, is, fixed[i], &is_address))
			continue;
		snprintf(at, sizeof at, "/source/%s", fixed[i]);
		if (is_address)
			problem_add(p, "immutable", NULL, at, "stop the job before the source's server gets another address");
		else
			problem_add(p, "immutable", NULL, at, "the job's position belongs to this source: make a new job for another one");
	}
}

/* What a target has of the job is where it was, and would be missing in another place. */
static void check_target(const struct job *job, const json_t *is, size_t n, bool loads, problems *p)
{
	static const char *const fixed[] = { "connector", "database", "host", "port" };
	const char *name = spec_target_name(is), *otherwise = "to have it elsewhere, give the target another name, and it is loaded as one that is new";
	const json_t *was = spec_target(job->spec, name);
	const struct memory_target *has = was ? memory_target(job->memory, name) : NULL;
	if (!has || (position_is_none(&has->applied) && !has->loaded.n))
		return;
	if (!loads)
		otherwise = "a job of mode cdc cannot give another place what is past, so make a new job";
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		char at[64];
		bool is_address;
		if (!is_moved(job, was, is, fixed[i], &is_address))
			continue;
		snprintf(at, sizeof at, "/targets/%zu/%s", n, fixed[i]);
		if (is_address)
			problem_add(p, "immutable", NULL, at, "stop the job before the target's server gets another address");
		else
			problem_add(p, "immutable", NULL, at, "what target \"%s\" has of the job is there: %s", name, otherwise);
		return;
	}
}

void engine_check_immutable(const struct job *job, const json_t *spec, problems *p)
{
	const char *name = json_string_value(json_object_get(spec, "name")), *mode = json_string_value(json_object_get(spec, "mode"));
	const json_t *targets = json_object_get(spec, "targets");
	if (name && strcmp(name, job->name) != 0)
		problem_add(p, "immutable", NULL, "/name", "a job keeps its name, \"%s\"", job->name);
	bool has_begun = memory_note(job->memory, PIPELINE_LOADING) || memory_note(job->memory, MEMORY_STREAM_BEGAN);
	if (position_is_none(memory_delivered(job->memory)) && !memory_loaded(job->memory)->n && !has_begun)
		return;
	check_stream(job, spec, p);
	check_source(job, spec, p);
	for (size_t i = 0; i < json_array_size(targets); i++)
		check_target(job, json_array_get(targets, i), i, !mode || strcmp(mode, "cdc") != 0, p);
}

/* In what no run knows of, or not at all. */
static bool differs_in_words_alone(const json_t *a, const json_t *b)
{
	json_t *x = json_copy((json_t *)(uintptr_t)a), *y = json_copy((json_t *)(uintptr_t)b);
	json_object_del(x, "labels");
	json_object_del(x, "description");
	json_object_del(y, "labels");
	json_object_del(y, "description");
	bool same = json_equal(x, y);
	json_decref(x);
	json_decref(y);
	return same;
}

static void change(struct engine *g, struct job *job, const json_t *json, const struct engine_call *call)
{
	problems *p = json_array();
	json_t *with = engine_whole_spec(g, json, job), *whole = spec_keep_secrets(with, job->spec, g->plugins), *clean = spec_clean(whole);
	struct spec *spec = spec_parse(whole, g->plugins, g->secrets, p);
	if (spec)
		engine_check_immutable(job, clean, p);
	if (json_array_size(p)) {
		invalid(g, call, p);
	} else if (!engine_refuse_own(g, clean, job, call)) {
		struct command *c = command_new(g, call, job);
		bool same = json_equal(clean, job->spec), is_word_only = differs_in_words_alone(clean, job->spec);
		if (!same) {
			bool was_completed = job->state == JOB_COMPLETED;
			job_set_spec(job, clean);
			c->reopened = was_completed && job->state != JOB_COMPLETED;
			engine_audit(g, job, call, "job %s changed, generation %lld", job->name, (long long)job->generation);
			c->restarted = !is_word_only && (job->pipeline || job->state == JOB_RETRYING) && job->desire == DESIRE_RUNNING;
			if (c->restarted)
				job_do(job, ENGINE_RESTART);
		}
		job_save(job, on_saved, c);
	}
	spec_free(spec);
	json_decref(with);
	json_decref(whole);
	json_decref(clean);
	json_decref(p);
}

void engine_replace(struct engine *g, const char *name, const json_t *json, const struct engine_call *call)
{
	struct err e = { 0 };
	if (engine_find(g, name)) {
		struct job *job = engine_find_to_change(g, name, call, true);
		if (job)
			change(g, job, json, call);
		return;
	}
	problems *p = json_array();
	json_t *whole = engine_whole_spec(g, json, NULL);
	struct spec *spec = spec_parse(whole, g->plugins, g->secrets, p);
	if (spec && strcmp(spec->name, name) != 0)
		problem_add(p, "conflict", NULL, "/name", "is \"%s\", but the path says \"%.63s\"", spec->name, name);
	if (engine_may_change(g, &e)) {
		engine_refuse(g, call, &e, NULL);
	} else if (call->if_generation >= 0) {
		err_set(&e, DMSR_ESTATE, "precondition.failed", "there is no job \"%.63s\"", name);
		engine_refuse(g, call, &e, NULL);
	} else if (json_array_size(p)) {
		invalid(g, call, p);
	} else if (!engine_refuse_own(g, whole, NULL, call)) {
		create(g, whole, call, true);
	}
	spec_free(spec);
	json_decref(whole);
	json_decref(p);
}

/* RFC 7396 */
static json_t *merge(const json_t *target, const json_t *patch)
{
	const char *key;
	json_t *v;
	if (!json_is_object(patch))
		return json_deep_copy(patch);
	json_t *out = json_is_object(target) ? json_copy((json_t *)(uintptr_t)target) : json_object();
	json_object_foreach((json_t *)(uintptr_t)patch, key, v)
	{
		if (json_is_null(v))
			json_object_del(out, key);
		else
			json_object_set_new(out, key, merge(json_object_get(target, key), v));
	}
	return out;
}

/* What a patch is merged into: source and streamer as they are shown, so that a patch of the host alone does not take the secret along, no more than a PUT. */
static json_t *patchable(const struct engine *g, const struct job *job)
{
	static const char *const parts[] = { "source", "streamer" };
	json_t *base = json_copy(job->spec), *shown = spec_redact(job->spec, g->plugins);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		json_t *part = json_object_get(shown, parts[i]);
		if (part)
			json_object_set(base, parts[i], part);
	}
	json_decref(shown);
	return base;
}

/* Who patches the state wants another one, and would get none. With desired_state it may be what GET showed, given back: a state changes by itself. */
static void check_wishes(const struct job *job, const json_t *merge_patch, problems *p)
{
	bool is_desire = json_object_get(merge_patch, "desired_state");
	const json_t *v = json_object_get(merge_patch, is_desire ? "desired_state" : "state");
	const char *is = is_desire ? job_desire_name(job->desire) : job_shown_state(job);
	if (v && (!json_is_string(v) || strcmp(json_string_value(v), is) != 0))
		problem_add(p, "immutable", NULL, is_desire ? "/desired_state" : "/state",
			"is \"%s\", and no part of the specification: POST /jobs/%s/start, pause, resume or stop changes it", is, job->name);
}

void engine_patch(struct engine *g, const char *name, const json_t *merge_patch, const struct engine_call *call)
{
	struct err e = { 0 };
	struct job *job = engine_find_to_change(g, name, call, true);
	if (!job)
		return;
	if (!json_is_object(merge_patch)) {
		err_set(&e, DMSR_EINVAL, "job.validation", "a merge patch of a job must be a JSON object");
		engine_refuse(g, call, &e, NULL);
		return;
	}
	problems *p = json_array();
	check_wishes(job, merge_patch, p);
	json_t *base = patchable(g, job), *whole = merge(base, merge_patch);
	if (json_array_size(p))
		invalid(g, call, p);
	else
		change(g, job, whole, call);
	json_decref(p);
	json_decref(whole);
	json_decref(base);
}

/* ---- verbs ---- */

static json_t *verb_json(const struct job *job, bool unchanged)
{
	json_t *j = json_pack("{s:s, s:s, s:s}", "name", job->name, "state", job_shown_state(job), "desired_state", job_desire_name(job->desire));
	if (unchanged)
		json_object_set_new(j, "unchanged", json_true());
	return j;
}

static void on_done(void *arg, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	if (e)
		engine_answer(c->g, &c->call, NULL, e, NULL);
	else if (job)
		engine_answer(c->g, &c->call, verb_json(job, false), NULL, NULL);
	else
		engine_answer(c->g, &c->call, json_pack("{s:s}", "state", "deleted"), NULL, NULL);
	free(c);
}

static json_t *allowed_json(const struct job *job)
{
	json_t *list = json_array();
	unsigned allowed = job_allowed(job);
	for (int v = ENGINE_START; v <= ENGINE_RESTART; v++)
		if (allowed & 1u << v)
			json_array_append_new(list, json_string(job_verb_names[v]));
	return json_pack("[{s:s, s:s, s:s, s:o}]", "pointer", "", "code", "invalid-transition", "detail", job_state_name(job->state), "allowed", list);
}

void engine_command(struct engine *g, const char *name, enum engine_verb verb, const struct engine_call *call)
{
	struct err e = { 0 };
	bool is_there;
	struct job *job = engine_find_to_change(g, name, call, false);
	if (!job)
		return;
	if (job_may(job, verb, &is_there, &e)) {
		engine_refuse(g, call, &e, allowed_json(job));
		return;
	}
	if (is_there) {
		engine_answer(g, call, verb_json(job, true), NULL, NULL);
		return;
	}
	if ((verb == ENGINE_START || verb == ENGINE_RESTART) && engine_refuse_own(g, job->spec, job, call))
		return;
	engine_audit(g, job, call, "job %s: %s", job->name, job_verb_names[verb]);
	job_do(job, verb);
	job_save(job, on_done, command_new(g, call, job));
}

/* ---- a table, loaded anew ---- */

/* Its snapshot is taken at the next start, so a job that runs is started over. */
static void on_unwanted(void *arg, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	if (e || !job || job->desire != DESIRE_RUNNING || !(job_allowed(job) & 1u << ENGINE_RESTART)) {
		on_done(c, e);
		return;
	}
	job_do(job, ENGINE_RESTART);
	job_save(job, on_done, c);
}

/* "schema.table", by the names that are there: either part may have dots, so that several may be meant. */
static const struct dmsr_loaded *find_loaded(const struct job *job, const char *table, unsigned *nfound)
{
	const struct table_set *loaded = memory_loaded(job->memory);
	const struct dmsr_loaded *found = NULL;
	*nfound = 0;
	for (size_t i = 0; i < loaded->n; i++) {
		const struct dmsr_loaded *l = &loaded->list[i];
		size_t n = strlen(l->schema);
		if (strncmp(table, l->schema, n) != 0 || table[n] != '.' || strcmp(table + n + 1, l->name) != 0)
			continue;
		found = l;
		++*nfound;
	}
	return found;
}

void engine_reload_table(struct engine *g, const char *name, const char *table, const struct engine_call *call)
{
	struct err e = { 0 };
	struct job *job = engine_find_to_change(g, name, call, false);
	const char *mode = job ? json_string_value(json_object_get(job->spec, "mode")) : NULL;
	if (!job)
		return;
	unsigned n;
	const struct dmsr_loaded *l = find_loaded(job, table, &n);
	if (mode && !strcmp(mode, "cdc")) {
		err_set(&e, DMSR_ESTATE, "table.not-loaded", "job %s loads no tables: its mode is cdc", job->name);
	} else if (job->desire == DESIRE_DELETING || job->state == JOB_COMPLETED) {
		err_set(&e, DMSR_ESTATE, "job.invalid-transition", "job %s is %s: no table of it can be loaded again", job->name, job_state_name(job->state));
		err_hint(&e, "a load that is completed begins anew as a whole: DELETE /jobs/%s/positions, POST /jobs/%s/start", job->name, job->name);
	} else if (job->desire == DESIRE_PAUSED) {
		err_set(&e, DMSR_ESTATE, "job.invalid-transition", "job %s is paused: a table is loaded again by a job that is started over", job->name);
		err_hint(&e, "POST /jobs/%s/resume, and ask again", job->name);
	} else if (n > 1) {
		err_set(&e, DMSR_ESTATE, "table.ambiguous", "job %s has %u loaded tables that \"%.200s\" may mean", job->name, n, table);
		err_hint(&e, "rename one of them, or load all anew: POST /jobs/%s/stop, DELETE /jobs/%s/positions, POST /jobs/%s/start", job->name, job->name,
			job->name);
	} else if (!l) {
		err_set(&e, DMSR_ENOTFOUND, "table.not-loaded", "job %s has no table \"%.200s\" that is loaded", job->name, table);
		err_hint(&e, "GET /jobs/%s/tables names them, as schema and name: their name here is schema.name; one that is being loaded is loaded anyway",
			job->name);
	}
	if (err_is_set(&e)) {
		engine_refuse(g, call, &e, NULL);
		return;
	}
	char *schema = mem_strdup(l->schema), *own = mem_strdup(l->name);
	engine_audit(g, job, call, "job %s: table %s.%s to be loaded anew", job->name, schema, own);
	memory_load_unwant(job->memory, schema, own, on_unwanted, command_new(g, call, job));
	free(schema);
	free(own);
}

/* ---- connections ---- */

static struct spec_connection *connection_or_refuse(struct engine *g, const json_t *json, const struct engine_call *call)
{
	problems *p = json_array();
	struct spec_connection *c = spec_connection_parse(json, g->plugins, g->secrets, p);
	if (!c) {
		struct err e = { 0 };
		err_set(&e, DMSR_EINVAL, "connection.validation", "the connection has %zu problem%s", json_array_size(p), json_array_size(p) == 1 ? "" : "s");
		engine_refuse(g, call, &e, json_incref(p));
	}
	json_decref(p);
	return c;
}

static void on_checks(void *arg, json_t *checks, const struct err *e)
{
	struct command *c = arg;
	engine_answer(c->g, &c->call, json_pack("{s:b, s:O}", "ok", checks_are_good(checks), "checks", checks), e, NULL);
	free(c);
}

void engine_check(struct engine *g, const json_t *connection, const struct engine_call *call)
{
	struct spec_connection *c = connection_or_refuse(g, connection, call);
	if (c)
		engine_probe_connection(g, c, on_checks, command_new(g, call, NULL));
}

static void on_discovered(void *arg, json_t *tables, const struct err *e)
{
	struct command *c = arg;
	engine_answer(c->g, &c->call, e ? NULL : json_pack("{s:O}", "tables", tables), e, NULL);
	free(c);
}

void engine_discover(struct engine *g, const json_t *connection, const struct engine_call *call)
{
	struct spec_connection *c = connection_or_refuse(g, connection, call);
	if (c)
		engine_probe_discover(g, c, on_discovered, command_new(g, call, NULL));
}

/* ---- positions by hand ---- */

static void on_position(void *arg, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	if (job && job->is_forgetting)
		job_forgotten(job);
	engine_answer(c->g, &c->call, e || !job ? NULL : engine_job_positions(c->g, job->name), e, NULL);
	free(c);
}

/* The position cannot be gone on from, or nobody could say. */
static json_t *position_finding(const struct err *e)
{
	return json_pack("[{s:s, s:s, s:s}]", "pointer", "/position", "code", "conflict", "detail", e->message);
}

static void on_place(void *arg, const struct job_kept *kept, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	struct err gone = { 0 };
	(void)kept;
	if (job)
		job->is_forgetting = false;
	else
		err_set(&gone, DMSR_ENOTFOUND, "job.not-found", "the job was deleted meanwhile");
	if (job && !e && !engine_may_change(c->g, &gone)) {
		memory_position_set(job->memory, &c->at, on_position, c);
		return;
	}
	e = e ? e : &gone;
	engine_answer(c->g, &c->call, NULL, e, position_finding(e));
	free(c);
}

static void on_forget(void *arg, json_t *left, const struct err *e)
{
	struct command *c = arg;
	struct job *job = engine_find(c->g, c->uid);
	(void)left;
	if (e || !job) { /* nothing was forgotten here; what the source made is gone perhaps, and is said at the next start */
		if (job)
			job->is_forgetting = false;
		engine_answer(c->g, &c->call, NULL, e, NULL);
		free(c);
		return;
	}
	memory_forget(job->memory, on_position, c);
}

/* A target that keeps its own position and cannot be told to forget it would be trusted at the next start, and miss what is past. */
static int check_forgettable(struct engine *g, struct job *job, struct err *e)
{
	const json_t *list = json_object_get(job->spec, "targets");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *t = json_array_get(list, i);
		const char *connector = json_string_value(json_object_get(t, "connector")), *name = spec_target_name(t);
		const struct dmsr_plugin *pl = connector ? plugins_find(g->plugins, PLUGIN_TARGET, connector) : NULL;
		if (!pl || !memory_target(job->memory, name)->keeps || (pl->target_probe && pl->target_probe->drop))
			continue;
		err_set(e, DMSR_ESTATE, "position.kept", "target %s of job %s keeps its position itself, and cannot be told to forget it", name, job->name);
		return err_hint(e, "make a new job, with another place for that target");
	}
	return 0;
}

static void not_stopped(const struct job *job, struct err *e)
{
	err_set(e, DMSR_ESTATE, "job.not-stopped", "job %s is %s: positions change only while it is stopped", job->name, job_state_name(job->state));
	err_hint(e, "POST /jobs/%s/stop, and ask again when it is stopped", job->name);
}

void engine_positions_set(struct engine *g, const char *name, const json_t *body, const struct engine_call *call)
{
	struct err e = { 0 };
	struct position at = { 0 };
	struct job *job = engine_find_to_change(g, name, call, false);
	if (!job)
		return;
	const json_t *v = json_object_get(body, "position");
	if (!job_is_settled(job) || job->desire == DESIRE_DELETING || (job->desire == DESIRE_RUNNING && job->state != JOB_COMPLETED))
		not_stopped(job, &e);
	else if (body && (!json_is_string(v) || json_object_size(body) != 1))
		err_set(&e, DMSR_EINVAL, "position.malformed",
			"the body must be {\"position\": \"pg:SERVER:LSN:EVENT:FLUSH\"}, as GET /jobs/%s/positions gives one", job->name);
	else if (body && !position_parse(json_string_value(v), &at, &e) && position_is_none(&at))
		err_set(&e, DMSR_EINVAL, "position.malformed", "\"none\" is no position to go on from: DELETE /jobs/%s/positions begins anew", job->name);
	if (err_is_set(&e) || (!body && check_forgettable(g, job, &e))) {
		engine_refuse(g, call, &e, e.code == DMSR_ESTATE ? NULL : position_finding(&e));
		return;
	}
	struct command *c = command_new(g, call, job);
	if (body) {
		engine_audit(g, job, call, "job %s: position set to %s", job->name, json_string_value(v));
		c->at = at;
		job->is_forgetting = true; /* nothing may be begun while the source is asked */
		engine_probe_look(g, job, &c->at, on_place, c);
	} else {
		engine_audit(g, job, call, "job %s: positions forgotten", job->name);
		/* slot, and what the targets remember, go first: else they would be trusted at the next start */
		job->is_forgetting = true;
		engine_probe_drop(g, job, DROP_ANEW, on_forget, c);
	}
}

/* ---- lists from the store ---- */

static void on_letters(void *arg, const struct store_dead_letter *rows, size_t n, const struct err *e)
{
	struct command *c = arg;
	json_t *items = json_array();
	for (size_t i = 0; i < n; i++) {
		const struct store_dead_letter *d = &rows[i];
		json_t *change_ = d->change_json ? json_loads(d->change_json, JSON_DECODE_ANY, NULL) : NULL;
		json_t *j = json_pack("{s:I, s:o, s:s, s:s*, s:s, s:s, s:s, s:s, s:s, s:o}", "id", (json_int_t)d->id,
			"ts", view_time(d->ts_us),
			"target", d->target,
			"position", d->position,
			"schema", d->schema,
			"table", d->table,
			"op", d->op,
			"code", d->code,
			"message", d->message,
			"change", change_ ? change_ : json_null());
		json_array_append_new(items, j);
	}
	json_t *next = n ? json_integer(rows[n - 1].id) : json_null();
	engine_answer(c->g, &c->call, json_pack("{s:o, s:o}", "items", items, "next", next), e, NULL);
	free(c);
}

void engine_errors(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call)
{
	struct job *job = find_or_refuse(g, name, call);
	if (job)
		store_dead_letters(g->store, job->uid, after, limit, on_letters, command_new(g, call, job));
}

void engine_errors_delete(struct engine *g, const char *name, int64_t id, const struct engine_call *call)
{
	struct job *job = engine_find_to_change(g, name, call, false);
	if (!job)
		return;
	if (id)
		engine_audit(g, job, call, "job %s: dead letter %lld deleted", job->name, (long long)id);
	else
		engine_audit(g, job, call, "job %s: all dead letters deleted", job->name);
	store_dead_letter_delete(g->store, job->uid, id, on_done, command_new(g, call, job));
}

static void on_events(void *arg, const struct store_event *rows, size_t n, const struct err *e)
{
	struct command *c = arg;
	json_t *items = json_array();
	for (size_t i = 0; i < n; i++) {
		const struct store_event *ev = &rows[i];
		json_t *j = json_pack("{s:I, s:o, s:s, s:s*, s:s*}", "id", (json_int_t)ev->id,
			"ts", view_time(ev->ts_us),
			"kind", ev->kind,
			"actor", ev->actor,
			"text", ev->text);
		json_array_append_new(items, j);
	}
	json_t *next = n ? json_integer(c->goes_back ? -rows[n - 1].id : rows[n - 1].id) : json_null();
	engine_answer(c->g, &c->call, json_pack("{s:o, s:o}", "items", items, "next", next), e, NULL);
	free(c);
}

void engine_events(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call)
{
	struct job *job = name ? find_or_refuse(g, name, call) : NULL;
	if (name && !job)
		return;
	struct command *c = command_new(g, call, job);
	c->goes_back = after < 0;
	store_events(g->store, job ? job->uid : NULL, after, limit, on_events, c);
}
