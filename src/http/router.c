/* router: the table, and how a request finds its line in it. Literal lines stand before those with {..} that would take the same path. */
#include "http/router.h"
#include "engine/options.h"
#include "http/http_int.h"
#include "http/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_DEFAULT = 50 };

#define VERB (METHOD_POST | METHOD_PUT) /* Kafka Connect's users say PUT */
const struct route routes[] = {
	{ METHOD_GET, 0, "/", NULL, index_get, "200", NULL, "Where everything is" },
	{ METHOD_GET, 0, "/jobs", "cursor expand limit state", jobs_list, "200", "JobPage", "List jobs" },
	{ METHOD_POST, ROUTE_BODY | ROUTE_CHANGES, "/jobs", "dry_run", jobs_create, "201 200", "Job",
		"Create a job; with dry_run=1 only check and plan it" },
	{ METHOD_POST, ROUTE_BODY, "/jobs/validate", NULL, jobs_validate, "200", "Validation", "Check a job's specification and its connections" },
	{ METHOD_GET, 0, "/jobs/{name}", NULL, jobs_get, "200 304", "Job", "Get a job: what PUT takes back, and its state" },
	{ METHOD_PUT, ROUTE_BODY | ROUTE_MATCH | ROUTE_CHANGES, "/jobs/{name}", NULL, jobs_replace, "200 201", "Job", "Create or replace a job" },
	{ METHOD_PATCH, ROUTE_BODY | ROUTE_MATCH | ROUTE_CHANGES, "/jobs/{name}", NULL, jobs_patch, "200", "Job", "Change parts of a job (RFC 7396)" },
	{ METHOD_DELETE, ROUTE_CHANGES, "/jobs/{name}", "force keep_source", jobs_delete, "204 200 202", "Deletion",
		"Delete a job and, unless keep_source=1, its slot and publication; force=1 does not wait for servers that are away" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/start", NULL, jobs_command, "202 200", "JobState", "Start a job" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/pause", NULL, jobs_command, "202 200", "JobState", "Pause a job: it keeps its place at the source" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/resume", NULL, jobs_command, "202 200", "JobState", "Resume a paused or failed job" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/stop", NULL, jobs_command, "202 200", "JobState", "Stop a job" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/restart", NULL, jobs_command, "202", "JobState", "Stop and start a job" },
	{ METHOD_GET, 0, "/jobs/{name}/status", NULL, jobs_status, "200", "JobStatus", "Stages, positions, lag, load progress" },
	{ METHOD_GET, 0, "/jobs/{name}/tables", "cursor limit", jobs_tables, "200", "Page", "Per table: rows loaded, changes captured and applied" },
	{ VERB, ROUTE_CHANGES, "/jobs/{name}/tables/{table}/reload", NULL, jobs_table_reload, "202", "JobState",
		"Load a table again, from a snapshot of its own" },
	{ METHOD_GET, 0, "/jobs/{name}/positions", NULL, jobs_positions, "200", NULL, "Where the job stands" },
	{ METHOD_PATCH, ROUTE_BODY | ROUTE_CHANGES, "/jobs/{name}/positions", NULL, jobs_positions_set, "200", NULL, "Move a stopped job" },
	{ METHOD_DELETE, ROUTE_CHANGES, "/jobs/{name}/positions", NULL, jobs_positions_set, "200 204", NULL, "Let a stopped job begin anew" },
	{ METHOD_GET, 0, "/jobs/{name}/errors", "cursor limit", jobs_errors, "200", "Page", "Rows that were set aside" },
	{ METHOD_DELETE, ROUTE_CHANGES, "/jobs/{name}/errors", NULL, jobs_errors_delete, "204", NULL, "Forget all rows that were set aside" },
	{ METHOD_DELETE, ROUTE_CHANGES, "/jobs/{name}/errors/{id}", NULL, jobs_errors_delete, "204", NULL, "Forget one of them" },
	{ METHOD_GET, 0, "/jobs/{name}/events", "cursor limit types", events_job, "200", "Page", "The job's history; live with Accept: text/event-stream" },
	{ METHOD_POST, ROUTE_BODY, "/connections/test", NULL, connections_test, "200", "Checks", "Connect, look, change nothing" },
	{ METHOD_POST, ROUTE_BODY, "/connections/discover", NULL, connections_discover, "200", NULL, "The tables behind a connection" },
	{ METHOD_GET, 0, "/connectors", NULL, connectors_list, "200", NULL, "Connectors, streamers and codecs with their options" },
	{ METHOD_GET, 0, "/connectors/{type}", NULL, connectors_get, "200", NULL, "One of them, with the JSON Schema of its options" },
	{ METHOD_GET, 0, "/events", "cursor job limit types", events_all, "200", "Page",
		"The daemon's history; with Accept: text/event-stream live, of all jobs" },
	{ METHOD_GET, ROUTE_PUBLIC, "/livez", NULL, health_livez, "200", NULL, "Does the loop turn?" },
	{ METHOD_GET, ROUTE_PUBLIC, "/readyz", "verbose", health_readyz, "200", NULL, "Does it take work? verbose=1 tells of each job" },
	{ METHOD_GET, 0, "/version", NULL, health_version, "200", NULL, "Versions" },
	{ METHOD_GET, ROUTE_TEXT, "/metrics", NULL, metrics_get, "200", NULL, "Prometheus metrics" },
	{ METHOD_GET, 0, "/loggers", NULL, loggers_list, "200", NULL, "Log levels by room" },
	{ METHOD_GET, 0, "/loggers/{name}", NULL, loggers_get, "200", NULL, "One room's log level; \"default\" is that of the others" },
	{ METHOD_PUT, ROUTE_BODY, "/loggers/{name}", NULL, loggers_put, "200", NULL, "Set it: {\"level\":\"debug\"}, or null for the default" },
	{ METHOD_GET, 0, "/openapi.json", NULL, openapi_get, "200", NULL, "This document" },
	{ 0, 0, NULL, NULL, NULL, NULL, NULL, NULL },
};

static const struct { unsigned method; const char *name; } methods[] = {
	{ METHOD_GET, "GET" },
	{ METHOD_GET, "HEAD" },
	{ METHOD_POST, "POST" },
	{ METHOD_PUT, "PUT" },
	{ METHOD_PATCH, "PATCH" },
	{ METHOD_DELETE, "DELETE" },
	{ METHOD_OPTIONS, "OPTIONS" },
};
enum { N_METHODS = sizeof methods / sizeof *methods };

unsigned method_parse(const char *method)
{
	for (size_t i = 0; i < N_METHODS; i++)
		if (!strcmp(methods[i].name, method))
			return methods[i].method;
	return 0;
}

const char *method_name(unsigned method)
{
	for (size_t i = 0; i < N_METHODS; i++)
		if (methods[i].method == method)
			return methods[i].name;
	return "?";
}

const char *methods_text(unsigned set, char *out, size_t size)
{
	size_t n = 0;
	*out = 0;
	for (size_t i = 0; i < N_METHODS; i++)
		if (methods[i].method & set && n < size)
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", methods[i].name);
	return out;
}

/* Does the pattern's next part, up to a slash, take the segment? */
static bool takes(const char *pattern, size_t n, const char *segment)
{
	return pattern[0] == '{' ? *segment != 0 : strlen(segment) == n && !memcmp(pattern, segment, n);
}

static bool matches(const char *pattern, const struct uri *u, const char *args[ROUTE_ARGS_MAX])
{
	size_t segment = 0, arg = 0;
	for (const char *p = pattern + 1; *p; segment++) {
		size_t n = strcspn(p, "/");
		if (segment == u->nsegments || !takes(p, n, u->segments[segment]))
			return false;
		if (p[0] == '{')
			args[arg++] = u->segments[segment];
		p += n + (p[n] == '/');
	}
	return segment == u->nsegments;
}

const struct route *route_find(unsigned method, const struct uri *u, const char *args[ROUTE_ARGS_MAX], unsigned *allow)
{
	*allow = 0;
	for (const struct route *r = routes; r->pattern; r++) {
		if (!matches(r->pattern, u, args))
			continue;
		if (r->methods & method)
			return r;
		*allow |= r->methods;
	}
	return NULL;
}

static bool is_known(const char *names, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = names; p && *p && n;) {
		size_t len = strcspn(p, " ");
		if (len == n && !memcmp(p, name, n))
			return true;
		p += len + (p[len] == ' ');
	}
	return false;
}

int route_check_query(const struct route *route, const struct uri *u, struct err *e)
{
	for (size_t i = 0; i < u->nparams; i++) {
		const char *name = u->params[i].name;
		if (!is_known(route->query, name)) {
			err_set(e, DMSR_EINVAL, "query.unknown", "%s has no query parameter \"%.64s\"", route->pattern, name);
			return route->query ? err_hint(e, "known are: %s", route->query) : e->code;
		}
		for (size_t j = 0; j < i; j++)
			if (!strcmp(u->params[j].name, name))
				return err_set(e, DMSR_EINVAL, "query.invalid", "the query parameter \"%s\" is given twice", name);
	}
	return 0;
}

static bool bad_query(struct request *r, const char *name, const char *want)
{
	reply_error(&r->reply, DMSR_EINVAL, "query.invalid", "the query parameter \"%s\" must be %s", name, want);
	return false;
}

bool query_bool(struct request *r, const char *name, bool *out)
{
	const char *v = uri_param(&r->uri, name);
	*out = v && (!*v || !strcmp(v, "1") || !strcmp(v, "true"));
	return !v || *out || !strcmp(v, "0") || !strcmp(v, "false") || bad_query(r, name, "1 or 0");
}

bool query_limit(struct request *r, int *out)
{
	const char *v = uri_param(&r->uri, "limit");
	char *end = NULL;
	long n = v ? strtol(v, &end, 10) : LIMIT_DEFAULT;
	*out = (int)n;
	return !v || (v[0] >= '0' && v[0] <= '9' && !*end && n >= 1 && n <= LIMIT_MAX) || bad_query(r, "limit", "a number from 1 to 500");
}

bool query_cursor(struct request *r, char **out)
{
	const char *v = uri_param(&r->uri, "cursor");
	*out = v ? cursor_decode(v) : NULL;
	return !v || *out || bad_query(r, "cursor", "a next_cursor of an earlier answer");
}

bool query_cursor_id(struct request *r, int64_t *out)
{
	char *text, *end = NULL;
	*out = 0;
	if (!query_cursor(r, &text))
		return false;
	if (text)
		*out = strtoll(text, &end, 10);
	bool good = !text || (!*end && *out >= 0);
	free(text);
	return good || bad_query(r, "cursor", "a next_cursor of an earlier answer");
}
