/* resource: names of jobs, preconditions, pages. */
#include "http/resource.h"
#include "http/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void no_job(struct request *r) { reply_error(&r->reply, DMSR_ENOTFOUND, "job.not-found", "there is no job \"%.128s\"", r->args[0]); }

json_t *resource_job(struct request *r, const char **name, int64_t *generation)
{
	int64_t own;
	json_t *job = engine_job(r->http->engine, r->args[0], generation ? generation : &own);
	if (!job) {
		no_job(r);
		return NULL;
	}
	*name = json_string_value(json_object_get(job, "name"));
	if (!*name)
		*name = r->args[0];
	return job;
}

/* Is the ETag of this generation in the list? strong: W/ ones never are. */
static bool has_etag(const char *list, int64_t generation, bool strong)
{
	char etag[32];
	size_t n = (size_t)snprintf(etag, sizeof etag, "\"%" PRId64 "\"", generation);
	for (const char *p = list; *p; p += strcspn(p, ",")) {
		p += strspn(p, ", \t");
		bool weak = !strncmp(p, "W/", 2);
		if (!(weak && strong) && !strncmp(p + 2 * weak, etag, n) && strchr(", \t", p[2 * weak + n]))
			return true;
	}
	return false;
}

static bool failed(struct request *r, const char *why)
{
	reply_error(&r->reply, DMSR_ESTATE, "precondition.failed", "%s", why);
	return false;
}

bool resource_if_match(struct request *r, bool exists, int64_t generation, bool needed, int64_t *out)
{
	const char *match = request_header(r, "If-Match"), *none = request_header(r, "If-None-Match");
	struct err e;
	*out = -1;
	if (none && exists && (!strcmp(none, "*") || has_etag(none, generation, false)))
		return failed(r, "If-None-Match: the job exists");
	if (!match && exists && needed) {
		err_set(&e, DMSR_ESTATE, "precondition.required", "a change of an existing job must say of which one");
		err_hint(&e, "send If-Match with the ETag of your GET, or If-Match: * to force it");
		reply_problem(&r->reply, &e, NULL);
		return false;
	}
	if (!match)
		return true;
	if (!exists)
		return failed(r, "If-Match: there is no such job");
	if (!strcmp(match, "*"))
		return true;
	if (!has_etag(match, generation, true))
		return failed(r, "If-Match: the job has changed since; GET it again");
	*out = generation;
	return true;
}

void resource_view(struct request *r, json_t *view)
{
	if (view)
		reply_json(&r->reply, 200, view);
	else
		no_job(r);
}

void finish_page(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	json_t *o = json_object(), *items = json_object_get(result, "items"), *next = json_object_get(result, "next");
	json_object_set_new(o, "items", items ? json_incref(items) : json_array());
	if (json_is_integer(next)) {
		char text[32];
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(next));
		char *cursor = cursor_encode(text);
		json_object_set_new(o, "next_cursor", json_string(cursor));
		free(cursor);
	} else {
		json_object_set_new(o, "next_cursor", json_null());
	}
	reply_json(out, 200, o);
}

void finish_plain(struct reply *out, const char *name, const json_t *result)
{
	(void)name;
	if (result && !json_is_null(result))
		reply_json(out, 200, json_incref((json_t *)(uintptr_t)result));
	else
		reply_json(out, 204, NULL);
}
