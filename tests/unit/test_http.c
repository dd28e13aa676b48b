/* http: what is asked and answered: routes, bodies, jobs, preconditions, pages, keys. */
#include "http_kit.h"
#include "http/reply.h"
#include "http/text.h"
#include <unistd.h>

static const char shop[] = "{\"name\":\"shop\",\"source\":{\"password\":\"hunter2hunter2\"}}";

/* ---- routes ------------------------------------------------------------------------------------------------------ */
static void routes_are_found(void **state)
{
	struct kit *k = *state;
	char v[256];
	struct answer *a = ask(k, "GET", "/", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_string_equal(json_string_value(json_object_get(json_object_get(a->json, "links"), "jobs")), "/jobs");
	assert_string_equal(answer_header(a, "Content-Type", v, sizeof v), "application/json");
	assert_string_equal(answer_header(a, "X-Content-Type-Options", v, sizeof v), "nosniff");
	assert_string_equal(answer_header(a, "Cache-Control", v, sizeof v), "no-store");
	assert_non_null(strstr(answer_header(a, "Content-Security-Policy", v, sizeof v), "default-src 'none'"));
	assert_null(answer_header(a, "Access-Control-Allow-Origin", v, sizeof v));
	answer_free(a);
	a = ask(k, "HEAD", "/version", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_string_equal(a->body, "");
	assert_true(strtol(answer_header(a, "Content-Length", v, sizeof v), NULL, 10) > 10);
	answer_free(a);
}

static void a_misspelt_path_is_told_what_was_meant(void **state)
{
	static const struct { const char *path, *meant; } asked[] = {
		{ "/jobs/shop/puase", "\"pause\"" },
		{ "/job", "\"jobs\"" },
		{ "/metric", "\"metrics\"" },
		{ "/jobs/shop/tables/public.a/relaod", "\"reload\"" },
		{ "/jbos/shop/puase", NULL },
		{ "/jobs/shop/errors/1/x", NULL },
		{ "/v", NULL },
	};
	struct kit *k = *state;
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		struct answer *a = ask(k, "POST", asked[i].path, NULL, NULL);
		const char *said = strstr(a->body, "was \\\"");
		assert_string_equal(answer_code(a), "path.not-found");
		assert_true(!said == !asked[i].meant);
		if (said)
			assert_non_null(strstr(json_string_value(json_object_get(a->json, "suggestion")), asked[i].meant));
		answer_free(a);
	}
}

static void unknown_paths_methods_and_parameters(void **state)
{
	struct kit *k = *state;
	char v[256];
	double_add(k->engine, "shop");
	expect(k, "GET", "/nowhere", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs/", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "//jobs", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs/shop/x", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/a/b/c/d/e/f/g/h/i/j", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs?colour=red", NULL, NULL, 400, "query.unknown");
	expect(k, "GET", "/jobs/shop/tables?limit=501", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs/shop/tables?cursor=c2hvcA", NULL, NULL, 400, "query.invalid"); /* one of GET /jobs */
	expect(k, "GET", "/version?x", NULL, NULL, 400, "query.unknown");
	expect(k, "GET", "/jobs?limit=1&limit=2", NULL, NULL, 400, "query.invalid");
	expect(k, "POST", "/jobs?dry_run=maybe", NULL, shop, 400, "query.invalid");
	expect(k, "GET", "/jobs/shop/start", NULL, NULL, 405, "method.not-allowed");
	struct answer *a = ask(k, "DELETE", "/jobs", NULL, NULL);
	assert_string_equal(answer_code(a), "method.not-allowed");
	assert_string_equal(answer_header(a, "Allow", v, sizeof v), "GET, HEAD, POST");
	answer_free(a);
	expect(k, "TRACE", "/jobs", NULL, NULL, 405, "method.not-allowed");
	expect(k, "FROB", "/jobs", NULL, NULL, 405, "method.not-allowed");
	a = ask(k, "OPTIONS", "/jobs/shop", NULL, NULL);
	assert_int_equal(a->status, 204);
	assert_string_equal(answer_header(a, "Allow", v, sizeof v), "GET, HEAD, PUT, PATCH, DELETE, OPTIONS");
	answer_free(a);
	expect(k, "OPTIONS", "/nowhere", NULL, NULL, 404, "path.not-found");
}

static void odd_targets(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	expect(k, "GET", "/jobs/%73hop", NULL, NULL, 200, NULL);
	expect(k, "GET", "/jobs/shop%00x", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/%0d%0aSet-Cookie:x", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/%zz", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/%4", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/%ff", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/%c0%af", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/\xc3\xa9", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs/..%2fshop", NULL, NULL, 404, "job.not-found");
	expect(k, "GET", "/jobs/..%2f..%2fversion", NULL, NULL, 404, "job.not-found");
	expect(k, "GET", "/jobs/../version", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs/%2e%2e", NULL, NULL, 404, "job.not-found");
	expect(k, "GET", "/jobs%2fshop", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs/shop%3fx", NULL, NULL, 404, "job.not-found");
	expect(k, "GET", "/jobs?%6cimit=1", NULL, NULL, 200, NULL);
	expect(k, "GET", "/jobs?state=%00", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs?&&limit=1&", NULL, NULL, 200, NULL);
	expect(k, "GET", "http://localhost/jobs", NULL, NULL, 400, "uri.malformed");
	expect(k, "GET", "/jobs?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1&j=1&k=1&l=1&m=1&n=1&o=1&p=1&q=1", NULL, NULL, 400, "uri.malformed");
	char *longest = malloc(12001);
	memset(longest, 'a', 12000);
	longest[0] = '/';
	longest[12000] = 0;
	expect(k, "GET", longest, NULL, NULL, 414, "uri.too-long");
	free(longest);
}

/* ---- bodies ------------------------------------------------------------------------------------------------------ */
/* As people write them; all that a double holds of a time is there. */
static void numbers_are_short(void **state)
{
	struct reply r = { 0 };
	(void)state;
	reply_json(&r, 200, json_pack("[f, f, f, f]", 78.7, 33.3, 1795806822.954899, 0.0));
	assert_string_equal(r.body, "[78.7,33.3,1795806822.9549,0.0]\n");
	reply_fini(&r);
}

static void bodies_that_are_no_json(void **state)
{
	struct kit *k = *state;
	expect(k, "POST", "/jobs", "Content-Type: text/plain\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", "Content-Type: application/x-www-form-urlencoded\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", "Content-Type: application/jsonx\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", "Content-Type: application/merge-patch+json\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", "Content-Type: application/json; charset=latin1\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", "Content-Encoding: gzip\r\n", shop, 415, "media-type");
	expect(k, "POST", "/jobs", NULL, NULL, 415, "media-type");
	expect(k, "POST", "/jobs/validate", "Content-Type: Application/JSON; charset=\"UTF-8\"\r\n", shop, 200, NULL);
	expect(k, "POST", "/jobs/validate", NULL, "", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "{\"a\":1,\"a\":2}", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "{\"a\":\"\\u0000\"}", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "{\"a\":\"\xff\"}", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "{} {}", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "{\"a\":99999999999999999999}", 400, "json.malformed");
	expect(k, "POST", "/jobs/validate", NULL, "[1]", 400, "json.not-object");
	expect(k, "POST", "/jobs/validate", NULL, "\"text\"", 400, "json.not-object");
	expect(k, "POST", "/jobs/validate", NULL, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 400, "json.too-deep");
	expect(k, "POST", "/jobs/validate", NULL, "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"}", 200, NULL);
	assert_int_equal(double_seen(k->engine)->ncalls, 2);
}

static void a_mistake_is_shown_by_line_and_column_and_not_by_its_text(void **state)
{
	struct kit *k = *state;
	struct answer *a = ask(k, "POST", "/jobs", NULL, "{\n \"password\": hunter2secret }");
	assert_string_equal(answer_code(a), "json.malformed");
	assert_non_null(strstr(a->body, "line 2, column"));
	assert_null(strstr(a->body, "hunter2"));
	answer_free(a);
}

static void is_said_of(struct kit *k, const char *body, const char *what, const char *what_not)
{
	struct answer *a = ask(k, "POST", "/jobs", NULL, body);
	assert_string_equal(answer_code(a), "json.malformed");
	if (!strstr(a->body, what) || (what_not && strstr(a->body, what_not)))
		fail_msg("%s: %s", body, a->body);
	answer_free(a);
}

static void a_mistake_is_said_in_words_of_the_api(void **state)
{
	struct kit *k = *state;
	is_said_of(k, "", "the body is empty", "token");
	is_said_of(k, " \n", "the body is empty", "token");
	is_said_of(k, "{\"a\": 1,\n \"a\": \"hunter2\"}", "line 2, column 4: duplicate object key near '\\\"a\\\"'", "hunter2");
	/* and by its pointer, as other mistakes of fields */
	is_said_of(k, "{\"a\": 1,\n \"a\": \"hunter2\"}", "\"errors\":[{\"pointer\":\"/a\",\"code\":\"duplicate\",\"detail\":\"is there twice\"}]", "hunter2");
	is_said_of(k, "{\"n\": \"x\", \"targets\": [{\"b\": [1]}, {\"a/b\": {}, \"c\": [], \"a/b\": 2}]}", "\"pointer\":\"/targets/1/a~1b\"", NULL);
	is_said_of(k, "{\"a\": 1, \"b\": }", "line 1", "errors");
	is_said_of(k, "{\"a\": \"\\u0000\"}", "\\\\u0000 is not allowed", "JSON_ALLOW_NUL");
}

static void a_nul_in_the_body(void **state)
{
	struct kit *k = *state;
	static const char body[] = "{\"a\":\0 1}";
	struct client *c = dial(k);
	say(c, "POST /jobs/validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n");
	say(c, "Content-Length: %zu\r\n\r\n", sizeof body - 1);
	say_bytes(c, body, sizeof body - 1);
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	assert_string_equal(answer_code(a), "json.malformed");
	answer_free(a);
	hang_up(c);
}

static void bodies_that_are_too_large(void **state)
{
	struct kit *k = *state;
	size_t n = 1024 * 1024 + 1;
	char *big = malloc(n + 1);
	memset(big, ' ', n);
	big[n] = 0;
	expect(k, "POST", "/jobs", NULL, big, 413, "body.too-large");
	memcpy(big, "{}", 2);
	big[n - 1] = 0;
	expect(k, "POST", "/jobs/validate", NULL, big, 200, NULL);
	/* in chunks, the length is not told before */
	struct client *c = dial(k);
	say(c, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 40; i++)
		say(c, "8000\r\n%.32768s\r\n", big);
	say(c, "0\r\n\r\n");
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	assert_int_equal(a->status, 413);
	assert_string_equal(answer_code(a), "body.too-large");
	answer_free(a);
	hang_up(c);
	/* a client that asks first is told before it sends */
	c = dial(k);
	say(c, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n");
	hear(c);
	a = answer_parse(c->data, c->len);
	assert_int_equal(a->status, 415);
	answer_free(a);
	hang_up(c);
	free(big);
}

static void bodies_where_none_belongs(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	expect(k, "POST", "/jobs/shop/pause", NULL, "{\"force\":1}", 400, "body.unexpected");
	expect(k, "DELETE", "/jobs/shop", NULL, "x", 400, "body.unexpected");
	assert_int_equal(double_seen(k->engine)->ncalls, 0);
	expect(k, "POST", "/jobs/shop/pause", NULL, " {} \n", 202, NULL);
	expect(k, "POST", "/jobs/shop/pause", NULL, "", 202, NULL);
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */
static void a_job_is_created(void **state)
{
	struct kit *k = *state;
	char v[256];
	struct answer *a = ask(k, "POST", "/jobs", NULL, shop);
	assert_int_equal(a->status, 201);
	assert_string_equal(answer_header(a, "Location", v, sizeof v), "/jobs/shop");
	assert_string_equal(answer_header(a, "ETag", v, sizeof v), "\"1\"");
	assert_string_equal(json_string_value(json_object_get(a->json, "name")), "shop");
	answer_free(a);
	assert_string_equal(double_seen(k->engine)->what, "create shop");
	assert_string_equal(double_seen(k->engine)->actor, "loopback");
	assert_non_null(json_object_get(double_seen(k->engine)->spec, "source"));
	expect(k, "POST", "/jobs", NULL, shop, 409, "job.exists");
	a = ask(k, "POST", "/jobs?dry_run=1", NULL, "{\"name\":\"other\"}");
	assert_int_equal(a->status, 200);
	assert_true(json_is_true(json_object_get(a->json, "valid")));
	answer_free(a);
	assert_string_equal(double_seen(k->engine)->what, "create other dry_run");
}

static void problems_name_their_place(void **state)
{
	struct kit *k = *state;
	json_t *errors = json_pack("[{s:s, s:s, s:s}]", "pointer", "/source/slot", "code", "pattern", "detail", "must match");
	double_fail(k->engine, DMSR_EINVAL, "job.validation", errors);
	json_decref(errors);
	struct answer *a = ask(k, "POST", "/jobs", NULL, shop);
	assert_int_equal(a->status, 422);
	assert_string_equal(answer_code(a), "job.validation");
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(a->json, "errors"), 0), "pointer")), "/source/slot");
	assert_null(strstr(a->body, "hunter2"));
	answer_free(a);
	/* ids that http does not know follow the error's code */
	double_fail(k->engine, DMSR_EIO, "source.unreachable", NULL);
	expect(k, "POST", "/connections/discover", NULL, "{}", 502, "source.unreachable");
	double_fail(k->engine, DMSR_EFATAL, "slot.lost", NULL);
	expect(k, "POST", "/connections/discover", NULL, "{}", 500, "slot.lost");
	double_fail(k->engine, DMSR_EIO, "state.io", NULL);
	expect(k, "POST", "/jobs", NULL, shop, 503, "state.io");
}

static void etags_guard_changes(void **state)
{
	struct kit *k = *state;
	char v[64];
	struct engine *g = k->engine;
	double_add(g, "shop");
	struct answer *a = ask(k, "GET", "/jobs/shop", NULL, NULL);
	assert_string_equal(answer_header(a, "ETag", v, sizeof v), "\"1\"");
	answer_free(a);
	expect(k, "GET", "/jobs/shop", "If-None-Match: \"1\"\r\n", NULL, 304, NULL);
	expect(k, "GET", "/jobs/shop", "If-None-Match: W/\"1\"\r\n", NULL, 304, NULL);
	expect(k, "GET", "/jobs/shop", "If-None-Match: \"2\", \"3\"\r\n", NULL, 200, NULL);
	expect(k, "PUT", "/jobs/shop", NULL, shop, 428, "precondition.required");
	expect(k, "PATCH", "/jobs/shop", NULL, "{}", 428, "precondition.required");
	expect(k, "PUT", "/jobs/shop", "If-Match: \"2\"\r\n", shop, 412, "precondition.failed");
	expect(k, "PUT", "/jobs/shop", "If-Match: W/\"1\"\r\n", shop, 412, "precondition.failed");
	expect(k, "PUT", "/jobs/shop", "If-Match: 1\r\n", shop, 412, "precondition.failed");
	expect(k, "PUT", "/jobs/shop", "If-None-Match: *\r\n", shop, 412, "precondition.failed");
	expect(k, "DELETE", "/jobs/shop", "If-Match: \"9\"\r\n", NULL, 412, "precondition.failed");
	expect(k, "PUT", "/jobs/other", "If-Match: *\r\n", "{}", 412, "precondition.failed");
	assert_int_equal(double_seen(g)->ncalls, 0);
	a = ask(k, "PUT", "/jobs/shop", "If-Match: \"7\", \"1\"\r\n", shop);
	assert_int_equal(a->status, 200);
	assert_string_equal(answer_header(a, "ETag", v, sizeof v), "\"2\"");
	answer_free(a);
	assert_int_equal(double_seen(g)->if_generation, 1);
	expect(k, "PATCH", "/jobs/shop", "If-Match: *\r\nContent-Type: application/merge-patch+json\r\n", "{\"mode\":\"cdc\"}", 200, NULL);
	assert_string_equal(double_seen(g)->what, "patch shop");
	assert_int_equal(double_seen(g)->if_generation, -1);
	expect(k, "PATCH", "/jobs/nobody", "If-Match: *\r\n", "{}", 404, "job.not-found");
}

static void a_change_in_between_is_seen_by_the_engine(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	double_fail(k->engine, DMSR_ESTATE, "precondition.failed", NULL);
	expect(k, "PUT", "/jobs/shop", "If-Match: \"1\"\r\n", shop, 412, "precondition.failed");
	assert_int_equal(double_seen(k->engine)->if_generation, 1);
}

static void put_creates(void **state)
{
	struct kit *k = *state;
	char v[64];
	struct answer *a = ask(k, "PUT", "/jobs/new", "If-None-Match: *\r\n", "{\"mode\":\"cdc\"}");
	assert_int_equal(a->status, 201);
	assert_string_equal(answer_header(a, "Location", v, sizeof v), "/jobs/new");
	assert_null(json_object_get(a->json, "created"));
	answer_free(a);
	assert_string_equal(json_string_value(json_object_get(double_seen(k->engine)->spec, "name")), "new");
}

static void a_job_is_deleted(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	double_add(k->engine, "left");
	double_add(k->engine, "pending");
	expect(k, "DELETE", "/jobs/shop?keep_source=1&force=true", NULL, NULL, 204, NULL);
	assert_string_equal(double_seen(k->engine)->what, "delete shop keep_source force");
	expect(k, "DELETE", "/jobs/shop", NULL, NULL, 404, "job.not-found");
	struct answer *a = ask(k, "DELETE", "/jobs/left", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_int_equal(json_array_size(json_object_get(a->json, "left")), 1);
	answer_free(a);
	expect(k, "DELETE", "/jobs/pending?force=0", NULL, NULL, 202, NULL);
	assert_string_equal(double_seen(k->engine)->what, "delete pending");
}

static void verbs(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	struct answer *a = ask(k, "POST", "/jobs/shop/pause", NULL, NULL);
	assert_int_equal(a->status, 202);
	assert_string_equal(json_string_value(json_object_get(a->json, "state")), "pausing");
	answer_free(a);
	assert_string_equal(double_seen(k->engine)->what, "command shop pause");
	a = ask(k, "PUT", "/jobs/uid-of-shop/start", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_null(json_object_get(a->json, "unchanged"));
	answer_free(a);
	assert_string_equal(double_seen(k->engine)->what, "command shop start");
	expect(k, "POST", "/jobs/shop/stop?force=1", NULL, NULL, 400, "query.unknown");
	expect(k, "POST", "/jobs/shop/stop", NULL, NULL, 202, NULL);
	assert_string_equal(double_seen(k->engine)->what, "command shop stop");
	expect(k, "POST", "/jobs/shop/resume", NULL, NULL, 202, NULL);
	expect(k, "POST", "/jobs/shop/restart", NULL, NULL, 202, NULL);
	expect(k, "POST", "/jobs/nobody/start", NULL, NULL, 404, "job.not-found");
	json_t *errors = json_pack("[{s:s, s:s, s:[s]}]", "pointer", "", "code", "invalid-transition", "allowed", "start");
	double_fail(k->engine, DMSR_ESTATE, "job.invalid-transition", errors);
	json_decref(errors);
	a = ask(k, "POST", "/jobs/shop/resume", NULL, NULL);
	assert_int_equal(a->status, 409);
	assert_non_null(strstr(a->body, "\"allowed\":[\"start\"]"));
	answer_free(a);
}

static void below_a_job(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	static const char *const parts[] = { "status", "tables", "positions" };
	for (size_t i = 0; i < 3; i++) {
		char path[64];
		snprintf(path, sizeof path, "/jobs/uid-of-shop/%s", parts[i]);
		struct answer *a = ask(k, "GET", path, NULL, NULL);
		assert_int_equal(a->status, 200);
		assert_string_equal(json_string_value(json_object_get(a->json, "part")), parts[i]);
		answer_free(a);
	}
	expect(k, "GET", "/jobs/nobody/status", NULL, NULL, 404, "job.not-found");
	expect(k, "POST", "/jobs/shop/tables/a%2Fb.c%20d/reload", NULL, NULL, 202, NULL);
	assert_string_equal(double_seen(k->engine)->what, "reload a/b.c d of shop");
	expect(k, "PATCH", "/jobs/shop/positions", NULL, "{\"position\":\"pg:1:2:3:4\"}", 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "positions shop");
	expect(k, "DELETE", "/jobs/shop/positions", NULL, NULL, 204, NULL);
	assert_string_equal(double_seen(k->engine)->what, "positions shop forget");
	expect(k, "DELETE", "/jobs/shop/errors/17", NULL, NULL, 204, NULL);
	assert_string_equal(double_seen(k->engine)->what, "errors_delete shop 17");
	expect(k, "DELETE", "/jobs/shop/errors", NULL, NULL, 204, NULL);
	assert_string_equal(double_seen(k->engine)->what, "errors_delete shop 0");
	expect(k, "DELETE", "/jobs/shop/errors/0x1", NULL, NULL, 404, "path.not-found");
	expect(k, "DELETE", "/jobs/shop/errors/-1", NULL, NULL, 404, "path.not-found");
	expect(k, "GET", "/jobs/shop/events?limit=3", NULL, NULL, 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "events shop after 0 limit 3");
	expect(k, "GET", "/events", NULL, NULL, 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "events - after 0 limit 50");
	expect(k, "GET", "/events?order=asc", NULL, NULL, 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "events - after 0 limit 50");
	expect(k, "GET", "/jobs/shop/events?order=desc", NULL, NULL, 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "events shop after -9223372036854775807 limit 50");
}

/* A cursor goes on in the order of the page that gave it, and in no other. */
static void a_cursor_keeps_its_order(void **state)
{
	static const struct { int64_t id; const char *order; const char *code; } cases[] = {
		{ 17, "", NULL },
		{ 17, "&order=asc", NULL },
		{ 17, "&order=desc", "query.invalid" },
		{ -17, "", NULL },
		{ -17, "&order=desc", NULL },
		{ -17, "&order=asc", "query.invalid" },
		{ 17, "&order=", "query.invalid" },
		{ INT64_MIN, "", "query.invalid" },
	};
	struct kit *k = *state;
	char text[32], target[128], want[64];
	double_add(k->engine, "shop");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(text, sizeof text, "%lld", (long long)cases[i].id);
		char *cursor = cursor_encode(text);
		snprintf(target, sizeof target, "/events?cursor=%s%s", cursor, cases[i].order);
		expect(k, "GET", target, NULL, NULL, cases[i].code ? 400 : 200, cases[i].code);
		snprintf(want, sizeof want, "events - after %s limit 50", text);
		if (!cases[i].code)
			assert_string_equal(double_seen(k->engine)->what, want);
		snprintf(target, sizeof target, "/jobs/shop/errors?cursor=%s", cursor);
		expect(k, "GET", target, NULL, NULL, cases[i].id > 0 ? 200 : 400, cases[i].id > 0 ? NULL : "query.invalid");
		free(cursor);
	}
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */
static void jobs_come_in_pages(void **state)
{
	struct kit *k = *state;
	char name[16], target[256] = "/jobs?limit=2&expand=status&state=running", link[256];
	int pages = 0, items = 0;
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "job%d", i);
		double_add(k->engine, name);
	}
	for (;;) {
		struct answer *a = ask(k, "GET", target, NULL, NULL);
		assert_int_equal(a->status, 200);
		json_t *list = json_object_get(a->json, "items");
		assert_non_null(json_object_get(json_array_get(list, 0), "status"));
		items += (int)json_array_size(list);
		pages++;
		bool more = answer_header(a, "Link", link, sizeof link);
		assert_int_equal(more, json_is_string(json_object_get(a->json, "next_cursor")));
		answer_free(a);
		if (!more)
			break;
		char *end = strchr(link, '>');
		assert_string_equal(end, ">; rel=\"next\"");
		snprintf(target, sizeof target, "%.*s", (int)(end - link - 1), link + 1);
	}
	assert_int_equal(pages, 3);
	struct answer *first = ask(k, "GET", "/jobs/job1/tables?limit=1", NULL, NULL);
	assert_true(answer_header(first, "Link", link, sizeof link));
	snprintf(target, sizeof target, "%.*s", (int)(strchr(link, '>') - link - 1), link + 1);
	assert_int_equal(json_array_size(json_object_get(first->json, "items")), 1);
	answer_free(first);
	struct answer *second = ask(k, "GET", target, NULL, NULL);
	assert_int_equal(second->status, 200);
	assert_int_equal(json_array_size(json_object_get(second->json, "items")), 0);
	assert_true(json_is_null(json_object_get(second->json, "next_cursor")));
	answer_free(second);
	assert_int_equal(items, 5);
	expect(k, "GET", "/jobs?limit=0", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?limit=501", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?limit=2x", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?limit=99999999999999999999", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?cursor=!", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?cursor=AA", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?state=happy", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs?expand=all", NULL, NULL, 400, "query.invalid");
	struct answer *a = ask(k, "GET", "/jobs?state=failed", NULL, NULL);
	assert_int_equal(json_array_size(json_object_get(a->json, "items")), 0);
	answer_free(a);
}

static void errors_come_in_pages(void **state)
{
	struct kit *k = *state;
	char target[128] = "/jobs/shop/errors?limit=1";
	double_add(k->engine, "shop");
	for (int i = 1;; i++) {
		struct answer *a = ask(k, "GET", target, NULL, NULL);
		assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(a->json, "items"), 0), "id")), i);
		const char *cursor = json_string_value(json_object_get(a->json, "next_cursor"));
		if (!cursor) {
			assert_int_equal(i, 3);
			answer_free(a);
			break;
		}
		snprintf(target, sizeof target, "/jobs/shop/errors?limit=1&cursor=%s", cursor);
		answer_free(a);
	}
	expect(k, "GET", "/jobs/shop/errors?cursor=YWJj", NULL, NULL, 400, "query.invalid"); /* "abc" */
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */
static void a_post_that_comes_again_is_done_once(void **state)
{
	struct kit *k = *state;
	char v[64];
	for (int i = 0; i < 2; i++) {
		struct answer *a = ask(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop);
		assert_int_equal(a->status, 201);
		assert_string_equal(answer_header(a, "Location", v, sizeof v), "/jobs/shop");
		assert_string_equal(answer_header(a, "ETag", v, sizeof v), "\"1\"");
		assert_string_equal(json_string_value(json_object_get(a->json, "name")), "shop");
		assert_int_equal(answer_header(a, "Idempotency-Replayed", v, sizeof v) != NULL, i == 1);
		answer_free(a);
	}
	assert_int_equal(double_seen(k->engine)->ncalls, 1);
	expect(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", "{\"name\":\"shop\"}", 422, "idempotency.mismatch");
	expect(k, "POST", "/jobs/validate", "Idempotency-Key: abc\r\n", shop, 422, "idempotency.mismatch");
	expect(k, "POST", "/jobs?dry_run=1", "Idempotency-Key: abc\r\n", shop, 422, "idempotency.mismatch");
	expect(k, "POST", "/jobs", "Idempotency-Key: other\r\n", shop, 409, "job.exists");
	expect(k, "POST", "/jobs", "Idempotency-Key: \r\n", shop, 400, "header.invalid");
	expect(k, "POST", "/jobs", "Idempotency-Key: a b\r\n", shop, 400, "header.invalid");
	assert_int_equal(double_seen(k->engine)->ncalls, 2);
}

static void a_failure_may_be_tried_again(void **state)
{
	struct kit *k = *state;
	double_fail(k->engine, DMSR_EINVAL, "secret.unresolved", NULL);
	expect(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop, 422, "secret.unresolved");
	double_fail(k->engine, 0, NULL, NULL);
	expect(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop, 201, NULL);
	/* what is refused before the engine is asked is not kept either */
	expect(k, "POST", "/jobs/nobody/start", "Idempotency-Key: def\r\n", NULL, 404, "job.not-found");
	double_add(k->engine, "nobody");
	expect(k, "POST", "/jobs/nobody/start", "Idempotency-Key: def\r\n", NULL, 200, NULL);
}

static struct client *post_with_key(struct kit *k)
{
	struct client *c = dial(k);
	say(c, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n");
	say(c, "Idempotency-Key: abc\r\nContent-Length: %zu\r\n\r\n%s", strlen(shop), shop);
	return c;
}

static void the_same_at_the_same_time(void **state)
{
	struct kit *k = *state;
	for (int store = 0; store < 2; store++) {
		double_hold(k->engine, !store);
		double_hold_store(k->engine, store);
		struct client *first = post_with_key(k);
		kit_turn(k, 30);
		expect(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop, 409, "idempotency.in-flight");
		double_hold(k->engine, false);
		double_hold_store(k->engine, false);
		hear(first);
		struct answer *a = answer_parse(first->data, first->len);
		assert_int_equal(a->status, 201);
		answer_free(a);
		hang_up(first);
	}
	assert_int_equal(double_seen(k->engine)->ncalls, 1);
}

static void a_client_that_went_away_finds_its_answer_later(void **state)
{
	struct kit *k = *state;
	double_hold(k->engine, true);
	struct client *c = post_with_key(k);
	kit_held(k, 1);
	hang_up(c);
	kit_turn(k, 30);
	double_hold(k->engine, false);
	kit_turn(k, 30);
	char v[32];
	struct answer *a = ask(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop);
	assert_int_equal(a->status, 201);
	assert_non_null(answer_header(a, "Idempotency-Replayed", v, sizeof v));
	answer_free(a);
	/* and one that went while the store looked */
	double_hold_store(k->engine, true);
	c = post_with_key(k);
	kit_turn(k, 30);
	hang_up(c);
	kit_turn(k, 30);
	double_hold_store(k->engine, false);
	kit_turn(k, 2500);
	expect(k, "POST", "/jobs", "Idempotency-Key: abc\r\n", shop, 201, NULL);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */
static void connections_and_connectors(void **state)
{
	struct kit *k = *state;
	expect(k, "POST", "/connections/test", NULL, "{\"connector\":\"postgres\"}", 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "check");
	expect(k, "POST", "/connections/discover", NULL, "{}", 200, NULL);
	assert_string_equal(double_seen(k->engine)->what, "discover");
	struct answer *a = ask(k, "GET", "/connectors", NULL, NULL);
	assert_int_equal(json_array_size(json_object_get(a->json, "items")), 1);
	answer_free(a);
	expect(k, "GET", "/connectors/postgres", NULL, NULL, 200, NULL);
	expect(k, "GET", "/connectors/oracle", NULL, NULL, 404, "connector.not-found");
}

static void health(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	struct answer *a = ask(k, "GET", "/readyz?verbose", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(a->json, "jobs"), 0), "state")), "running");
	answer_free(a);
	double_set_ready(k->engine, false, false);
	expect(k, "GET", "/readyz", NULL, NULL, 503, "not-ready");
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	double_set_ready(k->engine, true, true);
	expect(k, "GET", "/readyz", NULL, NULL, 503, "draining");
	char v[16];
	a = ask(k, "POST", "/jobs", NULL, shop);
	assert_string_equal(answer_code(a), "draining");
	assert_non_null(answer_header(a, "Retry-After", v, sizeof v));
	answer_free(a);
	expect(k, "POST", "/jobs/shop/stop", NULL, NULL, 503, "draining");
	expect(k, "DELETE", "/jobs/shop", NULL, NULL, 503, "draining");
	expect(k, "GET", "/jobs/shop", NULL, NULL, 200, NULL);
	assert_int_equal(double_seen(k->engine)->ncalls, 0);
}

static void loggers(void **state)
{
	struct kit *k = *state;
	expect(k, "PUT", "/loggers/store", NULL, "{\"level\":\"warn\"}", 200, NULL);
	struct answer *a = ask(k, "GET", "/loggers/store", NULL, NULL);
	assert_string_equal(json_string_value(json_object_get(a->json, "level")), "warn");
	assert_true(json_is_false(json_object_get(a->json, "inherited")));
	answer_free(a);
	expect(k, "PUT", "/loggers/store", NULL, "{\"level\":null}", 200, NULL);
	a = ask(k, "GET", "/loggers", NULL, NULL);
	assert_non_null(strstr(a->body, "{\"name\":\"default\",\"level\":\"warn\",\"inherited\":false}"));
	assert_non_null(strstr(a->body, "{\"name\":\"store\",\"level\":\"warn\",\"inherited\":true}"));
	answer_free(a);
	expect(k, "GET", "/loggers/nobody", NULL, NULL, 404, "logger.not-found");
	a = ask(k, "PUT", "/loggers/stroe", NULL, "{\"level\":\"warn\"}");
	assert_string_equal(answer_code(a), "logger.not-found");
	assert_non_null(strstr(a->body, "is \\\"store\\\" meant?"));
	answer_free(a);
	expect(k, "GET", "/loggers/stroe", NULL, NULL, 404, "logger.not-found");
	expect(k, "PUT", "/loggers/No%20body", NULL, "{\"level\":\"warn\"}", 404, "logger.not-found");
	expect(k, "PUT", "/loggers/default", NULL, "{\"level\":null}", 422, "logger.validation");
	expect(k, "PUT", "/loggers/store", NULL, "{}", 422, "logger.validation");
	a = ask(k, "PUT", "/loggers/store", NULL, "{\"level\":\"loud\",\"lvl\":1}");
	assert_string_equal(answer_code(a), "logger.validation");
	assert_int_equal(json_array_size(json_object_get(a->json, "errors")), 2);
	answer_free(a);
}

/* As plugins that write to the log under many names would. The last of the tests: they stay. */
static void more_rooms_than_can_be_told_apart(void **state)
{
	struct kit *k = *state;
	char room[16];
	for (unsigned i = 0; i < 64; i++) {
		snprintf(room, sizeof room, "r%u", i);
		if (log_set_level(room, LOG_LEVEL_INFO))
			break;
	}
	struct answer *a = ask(k, "PUT", "/loggers/loop", NULL, "{\"level\":\"warn\"}");
	assert_string_equal(answer_code(a), "logger.too-many");
	assert_non_null(strstr(a->body, "loop can have no level of its own"));
	assert_non_null(strstr(a->body, "PUT /loggers/default"));
	answer_free(a);
	expect(k, "PUT", "/loggers/default", NULL, "{\"level\":\"warn\"}", 200, NULL);
}

static void metrics_of_tables(void **state)
{
	struct kit *k = *state;
	double_add(k->engine, "shop");
	struct answer *a = ask(k, "GET", "/metrics", NULL, NULL);
	assert_null(strstr(a->body, "dmsr_table_"));
	answer_free(a);
	kit_close(k);
	kit_open(k, (const char *const[]){ "metrics.per_table=true", NULL });
	a = ask(k, "GET", "/metrics", NULL, NULL);
	assert_non_null(strstr(a->body, "\ndmsr_table_loaded_rows_total{job=\"shop\",schema=\"public\",table=\"a\\\"b\"} 5\n"));
	assert_non_null(strstr(a->body, "\ndmsr_table_applied_total{job=\"shop\",schema=\"public\",table=\"a\\\"b\",op=\"delete\"} 3\n"));
	answer_free(a);
}

/* Each line a comment or a sample, each family's samples together behind its TYPE. */
static void metrics(void **state)
{
	struct kit *k = *state;
	char type[80], family[80] = "";
	double_add(k->engine, "sh\"op");
	expect(k, "GET", "/nowhere", NULL, NULL, 404, NULL);
	struct answer *a = ask(k, "GET", "/metrics", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_string_equal(answer_header(a, "Content-Type", type, sizeof type), "text/plain; version=0.0.4; charset=utf-8");
	assert_non_null(strstr(a->body, "\ndmsr_source_lag_bytes{job=\"sh\\\"op\"} 42\n"));
	assert_non_null(strstr(a->body, "\ndmsr_job_state{job=\"sh\\\"op\",state=\"running\"} 1\n"));
	assert_non_null(strstr(a->body, "\ndmsr_source_events_total{job=\"sh\\\"op\",op=\"delete\"} 3\n"));
	assert_non_null(strstr(a->body, "\ndmsr_last_event_timestamp_seconds{job=\"sh\\\"op\"} 1.5\n"));
	assert_non_null(strstr(a->body, "\ndmsr_http_requests_total{method=\"GET\",route=\"\",code=\"404\"} 1\n"));
	assert_non_null(strstr(a->body, "\ndmsr_checkpoint_duration_seconds_sum 3.5\n"));
	assert_non_null(strstr(a->body, "_bucket{le=\"+Inf\"} "));
	assert_non_null(strstr(a->body, "\nprocess_resident_memory_bytes "));
	assert_null(strstr(a->body, "dmsr_source_retained_bytes{")); /* unknown */
	for (char *line = a->body, *end; *line; line = end + 1) {
		end = strchr(line, '\n');
		assert_non_null(end);
		*end = 0;
		if (sscanf(line, "# TYPE %79s", family) == 1 || line[0] == '#')
			continue;
		assert_memory_equal(line, family, strlen(family));
		char *space = strrchr(line, ' '), *rest;
		assert_non_null(space);
		strtod(space + 1, &rest);
		assert_true(rest > space + 1 && !*rest);
	}
	answer_free(a);
}

/* They are written in many short slices of the loop, and are those of one that is written in one. */
static void metrics_of_many_jobs(void **state)
{
	enum { JOBS = 500 };
	struct kit *k = *state;
	struct loop_slices before, after;
	char name[64];
	for (int i = 0; i < JOBS; i++) {
		snprintf(name, sizeof name, "shop%d", i);
		double_add(k->engine, name);
	}
	loop_cpu_slices(k->loop, &before);
	struct answer *a = ask(k, "GET", "/metrics", NULL, NULL);
	loop_cpu_slices(k->loop, &after);
	assert_int_equal(a->status, 200);
	assert_in_range(after.max_us, 1, (after.total_us - before.total_us) / 3);
	const char *at = strstr(a->body, "# TYPE dmsr_source_lag_bytes gauge\n");
	assert_non_null(at);
	at = strchr(at, '\n') + 1;
	for (int i = 0; i < JOBS; i++, at = strchr(at, '\n') + 1)
		assert_memory_equal(at, "dmsr_source_lag_bytes{job=\"shop", 31);
	assert_memory_equal(at, "# HELP ", 7);
	assert_non_null(strstr(at, "\nprocess_resident_memory_bytes "));
	answer_free(a);
}

/* Who asked for them may be gone before they are written. */
static void metrics_that_nobody_waits_for(void **state)
{
	struct kit *k = *state;
	char name[64];
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "shop%d", i);
		double_add(k->engine, name);
	}
	for (unsigned n = 0; n < 4; n++) {
		struct client *c = dial(k);
		say(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
		kit_turn(k, n);
		hang_up(c);
	}
	expect(k, "GET", "/metrics", NULL, NULL, 200, NULL);
}

static void every_ref_of_the_document_is_there(const json_t *v, const json_t *root)
{
	const char *key, *ref = json_string_value(json_object_get(v, "$ref"));
	json_t *item;
	size_t i;
	if (ref) {
		char section[32], name[64];
		assert_int_equal(sscanf(ref, "#/components/%31[^/]/%63s", section, name), 2);
		assert_non_null(json_object_get(json_object_get(json_object_get(root, "components"), section), name));
	}
	json_object_foreach((json_t *)(uintptr_t)v, key, item)
		every_ref_of_the_document_is_there(item, root);
	json_array_foreach(v, i, item)
		every_ref_of_the_document_is_there(item, root);
}

static void openapi(void **state)
{
	struct kit *k = *state;
	struct answer *a = ask(k, "GET", "/openapi.json", NULL, NULL);
	assert_int_equal(a->status, 200);
	assert_string_equal(json_string_value(json_object_get(a->json, "openapi")), "3.1.0");
	json_t *paths = json_object_get(a->json, "paths");
	json_t *post = json_object_get(json_object_get(paths, "/jobs"), "post");
	assert_non_null(json_object_get(json_object_get(post, "responses"), "201"));
	assert_non_null(json_object_get(post, "requestBody"));
	assert_non_null(json_object_get(json_object_get(paths, "/jobs/{name}/errors/{id}"), "delete"));
	assert_non_null(json_object_get(json_object_get(json_object_get(a->json, "components"), "schemas"), "postgres-source"));
	every_ref_of_the_document_is_there(a->json, a->json);
	char etag[64], header[128];
	snprintf(header, sizeof header, "If-None-Match: %s\r\n", answer_header(a, "ETag", etag, sizeof etag));
	answer_free(a);
	expect(k, "GET", "/openapi.json", header, NULL, 304, NULL);
	expect(k, "GET", "/openapi.json", "If-None-Match: \"x\"\r\n", NULL, 200, NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, kit_set_up, kit_tear_down)
RUN_TESTS(T(routes_are_found), T(a_misspelt_path_is_told_what_was_meant), T(unknown_paths_methods_and_parameters), T(odd_targets),
	T(bodies_that_are_no_json), T(numbers_are_short),
	T(a_mistake_is_shown_by_line_and_column_and_not_by_its_text),
	T(a_mistake_is_said_in_words_of_the_api),
	T(a_nul_in_the_body), T(bodies_that_are_too_large), T(bodies_where_none_belongs), T(a_job_is_created),
	T(problems_name_their_place), T(etags_guard_changes), T(a_change_in_between_is_seen_by_the_engine),
	T(put_creates), T(a_job_is_deleted), T(verbs), T(below_a_job), T(a_cursor_keeps_its_order), T(jobs_come_in_pages),
	T(errors_come_in_pages), T(a_post_that_comes_again_is_done_once), T(a_failure_may_be_tried_again),
	T(the_same_at_the_same_time), T(a_client_that_went_away_finds_its_answer_later),
	T(connections_and_connectors), T(health), T(loggers), T(metrics), T(metrics_of_tables),
	T(metrics_of_many_jobs), T(metrics_that_nobody_waits_for), T(openapi), T(more_rooms_than_can_be_told_apart))
