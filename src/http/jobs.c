/* jobs: /jobs and what is below it. */
#include "http/resource.h"
#include "http/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const states[] = { ENGINE_STATES, NULL };

/* ---- lists ------------------------------------------------------------------------------------------------------- */
static bool check_state(struct request *r, const char *state)
{
	char list[160] = "";
	for (size_t i = 0, n = 0; states[i]; i++) {
		if (!state || !strcmp(states[i], state))
			return true;
		n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", states[i]);
	}
	reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"state\" must be one of: %s", list);
	return false;
}

static bool check_expand(struct request *r, bool *status)
{
	const char *expand = uri_param(&r->uri, "expand");
	*status = expand && !strcmp(expand, "status");
	if (!expand || *status)
		return true;
	reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"expand\" must be status");
	return false;
}

void jobs_list(struct request *r)
{
	const char *state = uri_param(&r->uri, "state");
	char *after, *next = NULL;
	bool status;
	int limit;
	if (!check_state(r, state) || !check_expand(r, &status) || !query_limit(r, &limit) || !query_cursor(r, &after))
		return;
	json_t *items = engine_jobs(r->http->engine, after, limit, state, status, &next);
	char *cursor = next ? cursor_encode(next) : NULL;
	reply_json(&r->reply, 200, json_pack("{s:o, s:o}", "items", items, "next_cursor", text_json(cursor)));
	if (cursor)
		reply_header(&r->reply, "Link", "</jobs?cursor=%s&limit=%d%s%s%s>; rel=\"next\"", cursor, limit, status ? "&expand=status" : "",
			state ? "&state=" : "", state ? state : "");
	free(after);
	free(next);
	free(cursor);
}

/* ---- one job ----------------------------------------------------------------------------------------------------- */
void jobs_get(struct request *r)
{
	const char *name, *none = request_header(r, "If-None-Match");
	int64_t generation;
	char etag[32];
	json_t *job = resource_job(r, &name, &generation);
	if (!job)
		return;
	snprintf(etag, sizeof etag, "\"%lld\"", (long long)generation);
	if (none && (!strcmp(none, "*") || strstr(none, etag))) {
		reply_json(&r->reply, 304, NULL);
		json_decref(job);
	} else {
		reply_json(&r->reply, 200, job);
	}
	reply_etag(&r->reply, generation);
}

/* A job as the engine made or changed it. */
static void reply_job(struct reply *out, int status, const json_t *result)
{
	json_t *job = json_copy((json_t *)(uintptr_t)result);
	const char *name = json_string_value(json_object_get(result, "name"));
	json_int_t generation = json_integer_value(json_object_get(result, "generation"));
	json_object_del(job, "created");
	reply_json(out, status, job);
	reply_etag(out, generation);
	if (status == 201 && name)
		reply_header(out, "Location", "/jobs/%.255s", name);
}

static void finish_create(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	reply_job(out, 201, result);
}

static void finish_replace(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	reply_job(out, json_is_true(json_object_get(result, "created")) ? 201 : 200, result);
}

void jobs_create(struct request *r)
{
	bool dry_run;
	if (!query_bool(r, "dry_run", &dry_run))
		return;
	engine_create(r->http->engine, r->json, dry_run, call_new(r, dry_run ? finish_plain : finish_create, NULL, -1));
}

/* A body that names no job means the path's; one that names another the engine refuses. */
static void default_name(struct request *r, const char *name)
{
	if (!json_object_get(r->json, "name"))
		json_object_set_new(r->json, "name", text_json(name));
}

void jobs_replace(struct request *r)
{
	int64_t generation = -1, wanted;
	json_t *job = engine_job(r->http->engine, r->args[0], &generation);
	const char *name = job ? json_string_value(json_object_get(job, "name")) : NULL;
	name = name ? name : r->args[0];
	default_name(r, name);
	if (resource_if_match(r, job != NULL, generation, true, &wanted))
		engine_replace(r->http->engine, name, r->json, call_new(r, finish_replace, name, wanted));
	json_decref(job);
}

void jobs_patch(struct request *r)
{
	const char *name;
	int64_t generation, wanted;
	json_t *job = resource_job(r, &name, &generation);
	if (job && resource_if_match(r, true, generation, true, &wanted))
		engine_patch(r->http->engine, name, r->json, call_new(r, finish_replace, name, wanted));
	json_decref(job);
}

static void finish_delete(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	if (json_is_true(json_object_get(result, "pending")))
		reply_json(out, 202, json_incref((json_t *)(uintptr_t)result));
	else if (json_array_size(json_object_get(result, "left")) || json_object_get(result, "error"))
		reply_json(out, 200, json_incref((json_t *)(uintptr_t)result));
	else
		reply_json(out, 204, NULL);
}

void jobs_delete(struct request *r)
{
	const char *name;
	int64_t generation, wanted;
	bool keep_source, force;
	if (!query_bool(r, "keep_source", &keep_source) || !query_bool(r, "force", &force))
		return;
	json_t *job = resource_job(r, &name, &generation);
	if (job && resource_if_match(r, true, generation, false, &wanted))
		engine_delete(r->http->engine, name, keep_source, force, call_new(r, finish_delete, name, wanted));
	json_decref(job);
}

/* ---- verbs ------------------------------------------------------------------------------------------------------- */
/* 200: it is there already, there is nothing to wait for. */
static void finish_command(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	json_t *state = json_copy((json_t *)(uintptr_t)result);
	int status = json_is_true(json_object_get(state, "unchanged")) ? 200 : 202;
	json_object_del(state, "unchanged");
	reply_json(out, status, state);
}

static const struct { const char *word; enum engine_verb verb; } verbs[] = {
	{ "start", ENGINE_START },
	{ "pause", ENGINE_PAUSE },
	{ "resume", ENGINE_RESUME },
	{ "stop", ENGINE_STOP },
	{ "restart", ENGINE_RESTART },
};

void jobs_command(struct request *r)
{
	const char *name, *word = r->uri.segments[r->uri.nsegments - 1];
	int64_t generation, wanted;
	json_t *job = resource_job(r, &name, &generation);
	for (size_t i = 0; job && i < sizeof verbs / sizeof *verbs; i++)
		if (!strcmp(verbs[i].word, word) && resource_if_match(r, true, generation, false, &wanted))
			engine_command(r->http->engine, name, verbs[i].verb, call_new(r, finish_command, name, wanted));
	json_decref(job);
}

/* ---- below a job ------------------------------------------------------------------------------------------------- */
void jobs_validate(struct request *r) { engine_validate(r->http->engine, r->json, call_new(r, finish_plain, NULL, -1)); }

/* The views take names alone; a path may have the uid. */
static void view(struct request *r, json_t *(*fn)(struct engine *g, const char *name))
{
	const char *name;
	json_t *job = resource_job(r, &name, NULL);
	if (job)
		resource_view(r, fn(r->http->engine, name));
	json_decref(job);
}

void jobs_status(struct request *r) { view(r, engine_job_status); }

/* Where the page before ended, as ["schema", "name"]. */
static bool tables_after(struct request *r, json_t **after)
{
	char *text;
	*after = NULL;
	if (!query_cursor(r, &text))
		return false;
	*after = text ? json_loads(text, 0, NULL) : NULL;
	bool good = !text || (json_array_size(*after) == 2 && json_is_string(json_array_get(*after, 0)) && json_is_string(json_array_get(*after, 1)));
	free(text);
	if (!good) {
		json_decref(*after);
		reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"cursor\" must be a next_cursor of an earlier answer");
	}
	return good;
}

static void tables_page(struct request *r, const char *name, const json_t *after, size_t limit)
{
	json_t *next, *page = engine_job_tables(r->http->engine, name, after, limit, &next);
	char *text = next ? json_dumps(next, JSON_COMPACT) : NULL, *cursor = text ? cursor_encode(text) : NULL;
	if (page)
		json_object_set_new(page, "next_cursor", text_json(cursor));
	resource_view(r, page);
	if (cursor)
		reply_header(&r->reply, "Link", "</jobs/%s/tables?cursor=%s&limit=%zu>; rel=\"next\"", name, cursor, limit);
	json_decref(next);
	free(text);
	free(cursor);
}

void jobs_tables(struct request *r)
{
	const char *name;
	json_t *after, *job;
	int limit;
	if (!query_limit(r, &limit) || !tables_after(r, &after))
		return;
	if (!uri_param(&r->uri, "limit"))
		limit = LIMIT_MAX; /* most databases have fewer tables, and a list that is whole at once is what people expect */
	job = resource_job(r, &name, NULL);
	if (job)
		tables_page(r, name, after, (size_t)limit);
	json_decref(job);
	json_decref(after);
}

void jobs_table_reload(struct request *r)
{
	const char *name;
	json_t *job = resource_job(r, &name, NULL);
	if (job)
		engine_reload_table(r->http->engine, name, r->args[1], call_new(r, finish_command, name, -1));
	json_decref(job);
}

void jobs_positions(struct request *r) { view(r, engine_job_positions); }

void jobs_positions_set(struct request *r)
{
	const char *name;
	json_t *job = resource_job(r, &name, NULL);
	if (job)
		engine_positions_set(r->http->engine, name, r->json, call_new(r, finish_plain, name, -1));
	json_decref(job);
}

void jobs_errors(struct request *r)
{
	const char *name;
	int64_t after;
	int limit;
	if (!query_limit(r, &limit) || !query_cursor_id(r, 0, &after))
		return;
	json_t *job = resource_job(r, &name, NULL);
	if (job)
		engine_errors(r->http->engine, name, after, limit, call_new(r, finish_page, name, -1));
	json_decref(job);
}

static void finish_gone(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	(void)result;
	reply_json(out, 204, NULL);
}

void jobs_errors_delete(struct request *r)
{
	const char *name, *text = r->args[1];
	char *end = NULL;
	int64_t id = text ? strtoll(text, &end, 10) : 0;
	if (text && (*text < '1' || *text > '9' || *end)) {
		reply_error(&r->reply, DMSR_ENOTFOUND, "path.not-found", "\"%.40s\" is no number of an error", text);
		return;
	}
	json_t *job = resource_job(r, &name, NULL);
	if (job)
		engine_errors_delete(r->http->engine, name, id, call_new(r, finish_gone, name, -1));
	json_decref(job);
}
