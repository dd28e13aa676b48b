/* router: the table, and how a request finds its line in it. Literal lines stand before those with {..} that would take the same path. */
#include "http/router.h"
#include "base/nearest.h"
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
	{ METHOD_GET, "/", 0, NULL, index_get, NULL, "200:Index", "Where everything is" },
	{ METHOD_GET, "/jobs", 0, "cursor expand limit state", jobs_list, NULL, "200:JobPage", "List jobs" },
	{ METHOD_POST, "/jobs", ROUTE_CHANGES, "dry_run", jobs_create, "JobSpec", "201:Job 200:Validation",
		"Create a job; with dry_run=1 only check and plan it" },
	{ METHOD_POST, "/jobs/validate", 0, NULL, jobs_validate, "JobSpec", "200:Validation", "Check a job's specification and its connections" },
	{ METHOD_GET, "/jobs/{name}", 0, NULL, jobs_get, NULL, "200:Job 304", "Get a job: what PUT takes back, and its state" },
	{ METHOD_PUT, "/jobs/{name}", ROUTE_MATCH | ROUTE_CHANGES, NULL, jobs_replace, "JobPut", "200:Job 201:Job", "Create or replace a job" },
	{ METHOD_PATCH, "/jobs/{name}", ROUTE_MATCH | ROUTE_CHANGES, NULL, jobs_patch, "JobPatch", "200:Job", "Change parts of a job (RFC 7396)" },
	{ METHOD_DELETE, "/jobs/{name}", ROUTE_CHANGES, "force keep_source", jobs_delete, NULL, "204 200:Deleted 202:Deleted",
		"Delete a job and, unless keep_source=1, its slot and publication; force=1 does not wait for servers that are away" },
	{ VERB, "/jobs/{name}/start", ROUTE_CHANGES, NULL, jobs_command, NULL, "202:JobState 200:JobState", "Start a job" },
	{ VERB, "/jobs/{name}/pause", ROUTE_CHANGES, NULL, jobs_command, NULL, "202:JobState 200:JobState", "Pause a job: it keeps its place at the source" },
	{ VERB, "/jobs/{name}/resume", ROUTE_CHANGES, NULL, jobs_command, NULL, "202:JobState 200:JobState",
		"Let a job go on that is paused, stopped or failed" },
	{ VERB, "/jobs/{name}/stop", ROUTE_CHANGES, NULL, jobs_command, NULL, "202:JobState 200:JobState", "Stop a job" },
	{ VERB, "/jobs/{name}/restart", ROUTE_CHANGES, NULL, jobs_command, NULL, "202:JobState", "Stop and start a job" },
	{ METHOD_GET, "/jobs/{name}/status", 0, NULL, jobs_status, NULL, "200:JobStatus", "Stages, positions, lag, load progress" },
	{ METHOD_GET, "/jobs/{name}/tables", 0, "cursor limit", jobs_tables, NULL, "200:TablePage", "Per table: rows loaded, changes captured and applied" },
	{ VERB, "/jobs/{name}/tables/{table}/reload", ROUTE_CHANGES, NULL, jobs_table_reload, NULL, "202:JobState",
		"Load a table again, from a snapshot of its own" },
	{ METHOD_GET, "/jobs/{name}/positions", 0, NULL, jobs_positions, NULL, "200:Positions", "Where the job stands" },
	{ METHOD_PATCH, "/jobs/{name}/positions", ROUTE_CHANGES, NULL, jobs_positions_set, "PositionChange", "200:Positions", "Move a stopped job" },
	{ METHOD_DELETE, "/jobs/{name}/positions", ROUTE_CHANGES, NULL, jobs_positions_set, NULL, "200:Positions 204", "Let a stopped job begin anew" },
	{ METHOD_GET, "/jobs/{name}/errors", 0, "cursor limit", jobs_errors, NULL, "200:DeadLetterPage", "Rows that were set aside" },
	{ METHOD_DELETE, "/jobs/{name}/errors", ROUTE_CHANGES, NULL, jobs_errors_delete, NULL, "204", "Forget all rows that were set aside" },
	{ METHOD_DELETE, "/jobs/{name}/errors/{id}", ROUTE_CHANGES, NULL, jobs_errors_delete, NULL, "204", "Forget one of them" },
	{ METHOD_GET, "/jobs/{name}/events", ROUTE_LIVE, "cursor limit order types", events_job, NULL, "200:EventPage",
		"The job's history; live with Accept: text/event-stream" },
	{ METHOD_POST, "/connections/test", 0, NULL, connections_test, "Connection", "200:Checks", "Connect, look, change nothing" },
	{ METHOD_POST, "/connections/discover", 0, NULL, connections_discover, "Connection", "200:TableList", "The tables behind a connection" },
	{ METHOD_GET, "/connectors", 0, NULL, connectors_list, NULL, "200:ConnectorPage", "Connectors, streamers and codecs with their options" },
	{ METHOD_GET, "/connectors/{type}", 0, NULL, connectors_get, NULL, "200:Connector", "One of them, with the JSON Schema of its options" },
	{ METHOD_GET, "/events", ROUTE_LIVE, "cursor job limit order types", events_all, NULL, "200:EventPage",
		"The daemon's history; with Accept: text/event-stream live, of all jobs" },
	{ METHOD_GET, "/livez", ROUTE_PUBLIC, NULL, health_livez, NULL, "200:Alive", "Does the loop turn?" },
	{ METHOD_GET, "/readyz", ROUTE_PUBLIC, "verbose", health_readyz, NULL, "200:Ready", "Does it take work? verbose=1 tells of each job" },
	{ METHOD_GET, "/version", 0, NULL, health_version, NULL, "200:Version", "Versions" },
	{ METHOD_GET, "/metrics", ROUTE_TEXT, NULL, metrics_get, NULL, "200:Metrics", "Prometheus metrics" },
	{ METHOD_GET, "/loggers", 0, NULL, loggers_list, NULL, "200:LoggerPage", "Log levels by room" },
	{ METHOD_GET, "/loggers/{name}", 0, NULL, loggers_get, NULL, "200:Logger", "One room's log level; \"default\" is that of the others" },
	{ METHOD_PUT, "/loggers/{name}", 0, NULL, loggers_put, "LoggerChange", "200:Logger", "Set it: {\"level\":\"debug\"}, or null for the default" },
	{ METHOD_GET, "/openapi.json", 0, NULL, openapi_get, NULL, "200:Document 304", "This document" },
	{ 0, NULL, 0, NULL, NULL, NULL, NULL, NULL },
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

/* One segment of u's is not the pattern's, and may be a misspelt one of it. */
static void try_near(const char *pattern, const struct uri *u, char *word, size_t size, struct nearest *best)
{
	size_t segment = 0, at = SIZE_MAX;
	const char *wrong = NULL;
	for (const char *p = pattern + 1; *p; segment++) {
		size_t n = strcspn(p, "/");
		if (segment == u->nsegments || (!takes(p, n, u->segments[segment]) && wrong))
			return;
		if (!takes(p, n, u->segments[segment])) {
			wrong = p;
			at = segment;
		}
		p += n + (p[n] == '/');
	}
	if (segment != u->nsegments || !wrong)
		return;
	char literal[NEAREST_MAX + 1];
	struct nearest n = NEAREST(u->segments[at]);
	snprintf(literal, sizeof literal, "%.*s", (int)strcspn(wrong, "/"), wrong);
	nearest_try(&n, literal);
	if (!n.best || n.distance >= best->distance)
		return;
	best->distance = n.distance;
	snprintf(word, size, "%s", literal);
}

bool route_near(const struct uri *u, char *word, size_t size)
{
	struct nearest best = NEAREST("");
	for (const struct route *r = routes; r->pattern; r++)
		try_near(r->pattern, u, word, size, &best);
	return best.distance != UINT_MAX;
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

bool query_cursor_id(struct request *r, int64_t min, int64_t *out)
{
	char *text, *end = NULL;
	*out = 0;
	if (!query_cursor(r, &text))
		return false;
	if (text)
		*out = strtoll(text, &end, 10);
	bool good = !text || (!*end && *out >= min);
	free(text);
	return good || bad_query(r, "cursor", "a next_cursor of an earlier answer");
}
