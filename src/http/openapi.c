/* openapi: /openapi.json: OpenAPI 3.1, made from the router's table, the problems' table and the connectors' own schemas. Nothing in it is written twice. */
#include "config.h"
#include "http/http_int.h"
#include "http/text.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *ref(const char *section, const char *name)
{
	char text[160];
	snprintf(text, sizeof text, "#/components/%s/%s", section, name);
	return json_pack("{s:o}", "$ref", text_json(text));
}

static json_t *content(const char *type, json_t *schema) { return json_pack("{s:{s:o}}", type, "schema", schema); }

/* ---- one operation ----------------------------------------------------------------------------------------------- */
static json_t *param(const char *name, size_t n, const char *in, bool required, json_t *schema)
{
	return json_pack("{s:s%, s:s, s:b, s:o}", "name", name, n, "in", in, "required", required, "schema", schema);
}

static json_t *query_schema(const char *name, size_t n)
{
	static const char *const flags[] = { "dry_run", "force", "keep_source", "verbose" };
	if (n == 5 && !memcmp(name, "limit", n))
		return json_pack("{s:s, s:i, s:i, s:i}", "type", "integer", "minimum", 1, "maximum", 500, "default", 50);
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (strlen(flags[i]) == n && !memcmp(name, flags[i], n))
			return json_pack("{s:s, s:[s,s]}", "type", "string", "enum", "0", "1");
	return json_pack("{s:s}", "type", "string");
}

static void add_params(json_t *list, const struct route *r, unsigned method)
{
	for (const char *p = strchr(r->pattern, '{'); p; p = strchr(p + 1, '{'))
		json_array_append_new(list, param(p + 1, strcspn(p + 1, "}"), "path", true, json_pack("{s:s}", "type", "string")));
	for (const char *p = r->query; p && *p;) {
		size_t n = strcspn(p, " ");
		json_array_append_new(list, param(p, n, "query", false, query_schema(p, n)));
		p += n + (p[n] == ' ');
	}
	if (r->flags & ROUTE_MATCH)
		json_array_append_new(list, ref("parameters", "IfMatch"));
	if (method == METHOD_POST)
		json_array_append_new(list, ref("parameters", "IdempotencyKey"));
}

static json_t *responses(const struct route *r)
{
	json_t *o = json_object();
	char code[4];
	for (const char *p = r->statuses; *p; p += strspn(p, " ")) {
		snprintf(code, sizeof code, "%.3s", p);
		p += 3;
		json_t *one = json_pack("{s:s}", "description", "Success");
		if (strcmp(code, "204") != 0 && strcmp(code, "304") != 0) {
			json_t *schema = r->flags & ROUTE_TEXT ? json_pack("{s:s}", "type", "string") :
				r->result                      ? ref("schemas", r->result) :
								 json_pack("{s:s}", "type", "object");
			json_object_set_new(one, "content", content(r->flags & ROUTE_TEXT ? "text/plain" : "application/json", schema));
		}
		json_object_set_new(o, code, one);
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
	json_t *params = json_array();
	operation_id(method, r->pattern, id, sizeof id);
	add_params(params, r, method);
	json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "operationId", id, "summary", r->summary, "parameters", params, "responses", responses(r));
	if (r->flags & ROUTE_BODY) {
		bool job = !strncmp(r->pattern, "/jobs", 5) && r->result;
		json_t *body = content(method == METHOD_PATCH ? "application/merge-patch+json" : "application/json",
			job && method != METHOD_PATCH ? ref("schemas", "Job") : json_pack("{s:s}", "type", "object"));
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
static const char fixed_schemas[] =
	"{\"Problem\":{\"type\":\"object\",\"description\":\"RFC 9457\",\"required\":[\"type\",\"title\",\"status\",\"code\"],\"properties\":{"
	"\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":\"string\"},"
	"\"code\":{\"type\":\"string\",\"description\":\"stable\"},\"suggestion\":{\"type\":\"string\"},\"retriable\":{\"type\":\"boolean\"},"
	"\"instance\":{\"type\":\"string\"},\"errors\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Finding\"}}}},"
	"\"Finding\":{\"type\":\"object\",\"required\":[\"pointer\",\"code\",\"detail\"],\"properties\":{"
	"\"pointer\":{\"type\":\"string\",\"description\":\"RFC 6901\"},\"code\":{\"type\":\"string\"},\"detail\":{\"type\":\"string\"},"
	"\"suggestion\":{\"type\":\"string\"}}},"
	"\"Page\":{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{\"items\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},"
	"\"next_cursor\":{\"type\":[\"string\",\"null\"]}}},"
	"\"JobPage\":{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{\"items\":{\"type\":\"array\","
	"\"items\":{\"$ref\":\"#/components/schemas/Job\"}},"
	"\"next_cursor\":{\"type\":[\"string\",\"null\"]}}},"
	"\"JobState\":{\"type\":\"object\",\"properties\":{\"state\":{\"type\":\"string\"},\"desired_state\":{\"type\":\"string\"}}},"
	"\"JobStatus\":{\"type\":\"object\",\"properties\":{\"lag\":{\"type\":\"object\",\"properties\":{"
	"\"bytes\":{\"type\":[\"integer\",\"null\"],\"description\":\"what the source has written and was not confirmed to it, or was not applied by the "
	"target that is farthest back\"},"
	"\"seconds\":{\"type\":[\"number\",\"null\"],\"description\":\"how old the oldest change is that was not applied\"},"
	"\"reason\":{\"type\":[\"string\",\"null\"],\"description\":\"why one of them is null: not known\"}}},"
	"\"targets\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
	"\"lag_bytes\":{\"type\":[\"integer\",\"null\"]},\"lag_seconds\":{\"type\":[\"number\",\"null\"]}}}}}},"
	"\"Deletion\":{\"type\":\"object\",\"properties\":{\"left\":{\"type\":\"array\",\"description\":\"what could not be dropped, or was to be kept\","
	"\"items\":{\"type\":\"object\",\"properties\":{\"part\":{\"type\":\"string\"},\"kept\":{\"type\":\"boolean\"},"
	"\"statement\":{\"type\":\"string\",\"description\":\"for a person to run\"}}}},"
	"\"pending\":{\"type\":\"boolean\",\"description\":\"a server does not answer: it is tried again until it does, or until a DELETE with force=1\"},"
	"\"error\":{\"type\":\"object\"},\"hint\":{\"type\":\"string\"}}},"
	"\"Checks\":{\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"},\"checks\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}},"
	"\"Validation\":{\"type\":\"object\",\"properties\":{\"valid\":{\"type\":\"boolean\"},\"errors\":{\"type\":\"array\","
	"\"items\":{\"$ref\":\"#/components/schemas/Finding\"}},\"checks\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}}}";

/* A job's source, target and streamer take what their connector's tables say: schemas "postgres-source" and so on. */
static void add_connector(json_t *schemas, struct engine *g, const char *name)
{
	json_t *whole = engine_connector(g, name), *schema;
	const char *role;
	char key[80];
	json_object_foreach(json_object_get(whole, "options"), role, schema)
	{
		snprintf(key, sizeof key, "%.31s-%.31s", name, role);
		json_object_set(schemas, key, schema);
	}
	json_decref(whole);
}

static void add_connectors(json_t *schemas, struct engine *g)
{
	json_t *all = engine_connectors(g), *one;
	size_t i;
	json_array_foreach(json_object_get(all, "items"), i, one)
	{
		add_connector(schemas, g, json_string_value(json_object_get(one, "name")));
	}
	json_decref(all);
}

static json_t *codes(void)
{
	json_t *list = json_array();
	for (const struct problem_kind *k = problem_kinds; k->id; k++)
		json_array_append_new(list, json_pack("{s:s, s:i, s:s}", "code", k->id, "status", k->status, "title", k->title));
	return list;
}

static json_t *components(struct engine *g)
{
	json_t *schemas = json_loads(fixed_schemas, 0, NULL);
	json_object_set_new(schemas, "Job", engine_job_schema(g));
	add_connectors(schemas, g);
	json_t *what = content("application/problem+json", ref("schemas", "Problem"));
	json_t *problem = json_pack("{s:s, s:o, s:o}", "description", "What went wrong", "content", what, "x-codes", codes());
	json_t *match = json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", "If-Match", "in", "header", "description",
		"The ETag of the job as you know it; * forces. Needed when the job exists.", "schema", "type", "string");
	json_t *key = json_pack("{s:s, s:s, s:s, s:{s:s,s:i}}", "name", "Idempotency-Key", "in", "header", "description",
		"The same key and body within 24 hours get the first answer again (experimental).", "schema", "type", "string", "maxLength", 255);
	return json_pack("{s:o, s:{s:o}, s:{s:o, s:o}, s:{s:{s:s, s:s}}}", "schemas", schemas, "responses", "Problem", problem, "parameters", "IfMatch", match,
		"IdempotencyKey", key, "securitySchemes", "token", "type", "http", "scheme", "bearer");
}

/* It takes longer to make than the loop should be held, and it never changes: it is made once. */
static void make(struct http *h)
{
	char sum[SHA256_HEX];
	json_t *info = json_pack("{s:s, s:s, s:{s:s}}", "title", "DMSR", "version", PACKAGE_VERSION, "license", "name", "Apache-2.0");
	json_t *o = json_pack("{s:s, s:o, s:[{s:[]}]}", "openapi", "3.1.0", "info", info, "security", "token");
	json_object_set_new(o, "paths", paths());
	json_object_set_new(o, "components", components(h->engine));
	h->openapi = json_dumps(o, JSON_COMPACT);
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
