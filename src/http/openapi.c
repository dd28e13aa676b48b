/* openapi: /openapi.json: OpenAPI 3.1. Paths are the router's table, codes the problems' table, a job's options the connectors' own tables. What no table
 * knows, the shapes of the answers, stands in openapi/schemas.json, with an example of each in openapi/examples.json. Nothing is written twice. */
#include "config.h"
#include "http/http_int.h"
#include "http/text.h"
#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The files of openapi/, made into C by the Makefile. */
extern const char openapi_frame[], openapi_schemas[], openapi_examples[];

static json_t *ref(const char *section, const char *name)
{
	char text[160];
	snprintf(text, sizeof text, "#/components/%s/%s", section, name);
	return json_pack("{s:o}", "$ref", text_json(text));
}

static json_t *schema_ref(const char *name) { return ref("schemas", name); }
static json_t *content(const char *type, const char *schema) { return json_pack("{s:{s:o}}", type, "schema", schema_ref(schema)); }

static json_t *read_text(const char *text)
{
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert(o && "a file of openapi/ is no JSON");
	return o;
}

/* ---- one operation ----------------------------------------------------------------------------------------------- */
static void add_param(json_t *list, const char *name, size_t n)
{
	char word[64];
	snprintf(word, sizeof word, "%.*s", (int)n, name);
	json_array_append_new(list, ref("parameters", word));
}

static json_t *params(const struct route *r, unsigned method)
{
	json_t *list = json_array();
	for (const char *p = strchr(r->pattern, '{'); p; p = strchr(p + 1, '{'))
		add_param(list, p + 1, strcspn(p + 1, "}"));
	for (const char *p = r->query; p && *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");
		add_param(list, p, n);
		p += n;
	}
	if (r->flags & ROUTE_MATCH)
		json_array_append_new(list, ref("parameters", "If-Match"));
	if (method == METHOD_POST)
		json_array_append_new(list, ref("parameters", "Idempotency-Key"));
	return list;
}

/* "201:Job 304" */
static json_t *responses(const struct route *r)
{
	json_t *o = json_object();
	char code[4], schema[32];
	for (const char *p = r->answers; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");
		json_t *one = json_pack("{s:s}", "description", "Success");
		snprintf(code, sizeof code, "%.3s", p);
		snprintf(schema, sizeof schema, "%.*s", n > 4 ? (int)n - 4 : 0, n > 4 ? p + 4 : "");
		if (*schema)
			json_object_set_new(one, "content", content(r->flags & ROUTE_TEXT ? "text/plain" : "application/json", schema));
		if (r->flags & ROUTE_LIVE)
			json_object_set_new(json_object_get(one, "content"), "text/event-stream", json_pack("{s:o}", "schema", schema_ref("EventStream")));
		json_object_set_new(o, code, one);
		p += n;
	}
	json_object_set_new(o, "default", ref("responses", "Problem"));
	return o;
}

/* "GET", "/jobs/{name}/status" -> getJobsNameStatus */
static void operation_id(unsigned method, const char *pattern, char *out, size_t size)
{
	size_t n = 0;
	bool upper = true;
	for (const char *m = method_name(method); *m && n + 1 < size; m++)
		out[n++] = (char)tolower((unsigned char)*m);
	for (const char *p = pattern; *p && n + 1 < size; p++) {
		if (!isalnum((unsigned char)*p)) {
			upper = true;
			continue;
		}
		out[n++] = upper ? (char)toupper((unsigned char)*p) : *p;
		upper = false;
	}
	out[n] = 0;
}

static json_t *operation(const struct route *r, unsigned method)
{
	char id[128];
	operation_id(method, r->pattern, id, sizeof id);
	json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "operationId", id, "summary", r->summary, "parameters", params(r, method), "responses", responses(r));
	if (r->body) {
		json_t *body = content(method == METHOD_PATCH ? "application/merge-patch+json" : "application/json", r->body);
		json_object_set_new(o, "requestBody", json_pack("{s:b, s:o}", "required", true, "content", body));
	}
	if (r->flags & ROUTE_PUBLIC)
		json_object_set_new(o, "security", json_array());
	return o;
}

static json_t *paths(void)
{
	static const unsigned methods[] = { METHOD_GET, METHOD_POST, METHOD_PUT, METHOD_PATCH, METHOD_DELETE };
	json_t *all = json_object();
	for (const struct route *r = routes; r->pattern; r++) {
		json_t *path = json_object_get(all, r->pattern);
		if (!path)
			json_object_set_new(all, r->pattern, path = json_object());
		for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
			char name[8];
			if (!(r->methods & methods[i]))
				continue;
			snprintf(name, sizeof name, "%s", method_name(methods[i]));
			for (char *c = name; *c; c++)
				*c = (char)tolower((unsigned char)*c);
			json_object_set_new(path, name, operation(r, methods[i]));
		}
	}
	return all;
}

/* ---- components -------------------------------------------------------------------------------------------------- */
/* Each connector's part of a job becomes a schema of its own, "postgres-source", which the job and a connection refer to. */
static json_t *refs_of(json_t *schemas, json_t *part, const char *role)
{
	json_t *one, *refs = json_array();
	char name[80];
	size_t i;
	json_array_foreach(json_object_get(part, "anyOf"), i, one)
	{
		snprintf(name, sizeof name, "%.31s-%s", json_string_value(json_object_get(one, "title")), role);
		json_object_del(one, "unevaluatedProperties"); /* whoever refers to it says what may stand beside */
		json_object_set(schemas, name, one);
		json_array_append_new(refs, schema_ref(name));
	}
	return refs;
}

static void use_refs(json_t *part, json_t *refs)
{
	if (!json_array_size(refs))
		return;
	json_object_set(part, "anyOf", refs);
	json_object_set_new(part, "unevaluatedProperties", json_false());
}

static void add_parts(json_t *schemas, json_t *job)
{
	json_t *p = json_object_get(job, "properties"), *all = json_array();
	json_t *parts[] = { json_object_get(p, "source"), json_object_get(json_object_get(p, "targets"), "items"), json_object_get(p, "streamer"),
		json_object_get(json_object_get(p, "transforms"), "items") };
	static const char *const roles[] = { "source", "target", "streamer", "transform" };
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
		json_t *refs = refs_of(schemas, parts[i], roles[i]);
		use_refs(parts[i], refs);
		if (i < 3)
			json_array_extend(all, refs);
		json_decref(refs);
	}
	json_t *connection = json_object_get(schemas, "Connection"), *tables = json_object_get(p, "tables");
	json_object_set_new(connection, "properties",
		json_pack("{s:{s:s, s:[s,s,s], s:s}, s:{s:s}, s:O*}", "role", "type", "string", "enum", roles[0], roles[1], roles[2], "default", roles[0],
			"name", "type", "string", "tables", tables));
	use_refs(connection, all);
	json_decref(all);
}

/* Objects are merged, key by key, so that what they require may be left out; everything else is replaced, or taken out by null. */
static json_t *patch_of(json_t *properties)
{
	json_t *patch = json_object(), *s;
	const char *key;
	json_object_foreach(properties, key, s)
	{
		if (json_object_get(s, "readOnly"))
			continue;
		bool merged = !strcmp(key, "source") || !strcmp(key, "streamer") || !strcmp(key, "tables") || !strcmp(key, "labels");
		if (merged)
			json_object_set_new(patch, key, json_pack("{s:[s,s]}", "type", "object", "null"));
		else
			json_object_set_new(patch, key, json_pack("{s:[O, {s:s}]}", "anyOf", s, "type", "null"));
	}
	return patch;
}

/* JobSpec is what the engine says of a job; JobPut leaves the name to the path, Job has what only an answer has, JobPatch is any part of it. */
static void add_jobs(json_t *schemas, json_t *spec)
{
	json_t *job = json_object_get(schemas, "Job"), *patch = json_object_get(schemas, "JobPatch");
	add_parts(schemas, spec);
	json_t *properties = json_copy(json_object_get(spec, "properties")), *required = json_copy(json_object_get(spec, "required"));
	json_object_update(properties, json_object_get(job, "properties"));
	json_array_extend(required, json_object_get(job, "required"));
	json_object_update_missing(job, spec);
	json_object_set_new(job, "properties", properties);
	json_object_set_new(job, "required", required);
	json_object_update_missing(patch, spec);
	json_object_del(patch, "required");
	json_object_set_new(patch, "properties", patch_of(json_object_get(spec, "properties")));
	json_object_update_missing(json_object_get(schemas, "JobSpec"), spec);
	json_object_set_new(json_object_get(schemas, "JobPut"), "required", json_pack("[s]", "source"));
	json_object_update_missing(json_object_get(schemas, "JobPut"), spec);
}

static void add_examples(json_t *schemas)
{
	json_t *examples = read_text(openapi_examples), *one;
	const char *name;
	json_object_foreach(examples, name, one)
	{
		json_object_set_new(json_object_get(schemas, name), "examples", json_pack("[O]", one));
	}
	json_decref(examples);
}

static json_t *schemas(struct engine *g)
{
	static const char *const states[] = { ENGINE_STATES };
	json_t *all = read_text(openapi_schemas), *spec = engine_job_schema(g), *names = json_array();
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		json_array_append_new(names, json_string(states[i]));
	json_object_set_new(json_object_get(all, "State"), "enum", names);
	add_jobs(all, spec);
	add_examples(all);
	json_decref(spec);
	return all;
}

static json_t *codes(void)
{
	json_t *list = json_array();
	for (const struct problem_kind *k = problem_kinds; k->id; k++)
		json_array_append_new(list, json_pack("{s:s, s:i, s:s}", "code", k->id, "status", k->status, "title", k->title));
	return list;
}

/* It takes longer to make than the loop should be held, and it never changes: it is made once. */
static void make(struct http *h)
{
	char sum[SHA256_HEX];
	json_t *o = read_text(openapi_frame), *components = json_object_get(o, "components");
	json_object_set_new(json_object_get(o, "info"), "version", json_string(PACKAGE_VERSION));
	json_object_set_new(o, "paths", paths());
	json_object_set_new(components, "schemas", schemas(h->engine));
	json_object_set_new(json_object_get(json_object_get(components, "responses"), "Problem"), "x-codes", codes());
	h->openapi = json_dumps(o, TEXT_JSON);
	json_decref(o);
	sha256_hex(h->openapi, strlen(h->openapi), sum);
	snprintf(h->openapi_etag, sizeof h->openapi_etag, "\"%.16s\"", sum);
}

void openapi_get(struct request *r)
{
	struct http *h = r->http;
	const char *none = request_header(r, "If-None-Match");
	if (!h->openapi)
		make(h);
	if (none && (!strcmp(none, "*") || strstr(none, h->openapi_etag))) {
		reply_json(&r->reply, 304, NULL);
	} else {
		struct buf text;
		buf_init(&text, strlen(h->openapi) + 1);
		buf_str(&text, h->openapi);
		buf_byte(&text, '\n');
		reply_text(&r->reply, 200, "application/json", &text);
	}
	reply_header(&r->reply, "ETag", "%s", h->openapi_etag);
}
