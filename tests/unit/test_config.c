/* test_config: layers over layers, each refused with its pointer and place. */
#include "engine/config_int.h"
#include "test.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUM "0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789abcdef"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	test_directory(dir, sizeof dir, "config");
	return 0;
}

static int remove_dir(void **state)
{
	static const char *const names[] = { "dmsrd.json", "conf.d/10-a.json", "conf.d/20-b.json", "conf.d/.30-c.json", "conf.d/x.txt", NULL };
	char path[128];
	(void)state;
	for (const char *const *name = names; *name; name++) {
		snprintf(path, sizeof path, "%s/%s", dir, *name);
		unlink(path);
	}
	snprintf(path, sizeof path, "%s/conf.d", dir);
	rmdir(path);
	return rmdir(dir);
}

static const char *write_file(const char *name, const char *text)
{
	static char path[128];
	snprintf(path, sizeof path, "%s/conf.d", dir);
	mkdir(path, 0700);
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return path;
}

static struct config *load(const char *file, const char *const *variables, const char *const *overrides, problems *p)
{
	size_t n = 0;
	while (overrides && overrides[n])
		n++;
	struct err e = { 0 };
	char *const *environ_ = (char *const *)(uintptr_t)variables;
	struct config *c = config_load(&(struct config_source){ .file = file, .overrides = overrides, .noverrides = n, .environ = environ_ }, p, &e);
	assert_int_equal(c ? 0 : DMSR_EINVAL, e.code);
	assert_string_equal(c ? "" : "config.invalid", e.id);
	assert_true(!c == (json_array_size(p) > 0));
	return c;
}

static const char *field(const problems *p, size_t i, const char *name) { return json_string_value(json_object_get(json_array_get(p, i), name)); }

static void is_finding(const problems *p, size_t i, const char *code, const char *pointer, const char *in_detail, const char *suggestion)
{
	assert_true(json_array_size(p) > i);
	assert_string_equal(field(p, i, "code"), code);
	assert_string_equal(field(p, i, "pointer"), pointer);
	if (!strstr(field(p, i, "detail"), in_detail))
		fail_msg("\"%s\" is not in \"%s\"", in_detail, field(p, i, "detail"));
	if (suggestion)
		assert_string_equal(field(p, i, "suggestion"), suggestion);
	else
		assert_null(field(p, i, "suggestion"));
}

/* One finding, in a text of its own. */
static void refuses(const char *text, const char *code, const char *pointer, const char *in_detail, const char *suggestion)
{
	problems *p = json_array();
	struct config *c = config_load_text(text, strlen(text), p, NULL);
	assert_null(c);
	assert_int_equal(json_array_size(p), 1);
	is_finding(p, 0, code, pointer, in_detail, suggestion);
	json_decref(p);
}

static void takes(const char *text)
{
	problems *p = json_array();
	struct config *c = config_load_text(text, strlen(text), p, NULL);
	if (!c)
		fail_msg("%s: %s", text, field(p, 0, "detail"));
	config_free(c);
	json_decref(p);
}

static void nothing_given_is_the_defaults(void **state)
{
	(void)state;
	problems *p = json_array();
	struct config *c = config_load_text("{}", 2, p, NULL);
	assert_non_null(c);
	assert_string_equal(config_str(c, "http.listen"), "127.0.0.1:8080");
	assert_int_equal(config_int(c, "http.body_max"), 1 << 20);
	assert_int_equal(config_int(c, "drain_timeout"), 30000);
	assert_true(config_bool(c, "jobs.retry_forever"));
	assert_int_equal(json_object_size(config_json(c, "secrets")), 0);
	assert_int_equal(json_array_size(config_json(c, "http.allowed_hosts")), 0);
	assert_string_equal(config_origin(c, "http.listen"), "default");
	config_free(c);
	json_decref(p);
}

static void later_layers_win(void **state)
{
	(void)state;
	write_file("conf.d/10-a.json", "{\"http\": {\"timeout\": \"5s\", \"body_max\": 2048, \"connections_max\": 77},"
		" \"secrets\": {\"b\": {\"env\": \"B\"}}}");
	write_file("conf.d/20-b.json", "{\"http\": {\"timeout\": \"6s\"}}");
	write_file("conf.d/.30-c.json", "not JSON");
	write_file("conf.d/x.txt", "not JSON");
	const char *file = write_file("dmsrd.json",
		"{\"//\": \"words\", \"http\": {\"//timeout\": [1], \"timeout\": \"4s\", \"body_max\": \"4KiB\"},\n"
		" \"log\": {\"levels\": {\"//\": \"x\", \"http\": \"debug\"}}, \"secrets\": {\"a\": {\"env\": \"A\"}}, \"metrics\": {\"per_table\": true}}");
	const char *variables[] = { "HOME=/", "DMSR_HTTP__BODY_MAX=8KiB", "DMSR_JOBS__RETRY_FOREVER=false", "DMSR_LOG__LEVELS__LOOP=warn",
		"DMSR_JOBS__STREAMER={\"type\": \"kafka\", \"partitions\": 3}", "DMSR_JOBS__STREAMER__BOOTSTRAP_SERVERS=b:9092",
		"DMSR_FAILPOINT=x", "DMSR_KAFKA_CACHE=/x",
		"DMSR_SERVICE_HOST=10.0.0.1", "DMSR_PORT_8080_TCP_ADDR=10.0.0.1", "DMSR_PORT=tcp://10.0.0.1:8080",
		"DMSR_API_SERVICE_PORT_HTTP=1", NULL };
	const char *overrides[] = { "jobs.retry_forever=true", "http.allowed_hosts=a.example,b.example", "http.connections_per_ip_max=9",
		"state_dir=/x=y", NULL };
	problems *p = json_array();
	struct config *c = load(file, variables, overrides, p);
	assert_non_null(c);
	assert_int_equal(config_int(c, "http.timeout"), 6000);
	assert_int_equal(config_int(c, "http.body_max"), 8192);
	assert_int_equal(config_int(c, "http.connections_max"), 77);
	assert_int_equal(config_int(c, "http.connections_per_ip_max"), 9);
	assert_true(config_bool(c, "jobs.retry_forever"));
	assert_true(config_bool(c, "metrics.per_table"));
	assert_string_equal(config_str(c, "state_dir"), "/x=y");
	assert_string_equal(json_string_value(json_array_get(config_json(c, "http.allowed_hosts"), 1)), "b.example");
	assert_int_equal(json_object_size(config_json(c, "log.levels")), 2);
	assert_string_equal(json_string_value(json_object_get(config_json(c, "log.levels"), "loop")), "warn");
	assert_int_equal(json_object_size(config_json(c, "secrets")), 2);
	assert_int_equal(json_object_size(config_json(c, "jobs.streamer")), 3);
	assert_int_equal(json_integer_value(json_object_get(config_json(c, "jobs.streamer"), "partitions")), 3);
	assert_string_equal(json_string_value(json_object_get(config_json(c, "jobs.streamer"), "bootstrap_servers")), "b:9092");
	assert_string_equal(config_origin(c, "metrics.per_table"), file);
	assert_true(strstr(config_origin(c, "http.timeout"), "/conf.d/20-b.json") != NULL);
	assert_string_equal(config_origin(c, "http.body_max"), "environment DMSR_HTTP__BODY_MAX");
	assert_string_equal(config_origin(c, "jobs.retry_forever"), "-o jobs.retry_forever");
	config_free(c);
	json_decref(p);
}

static void every_finding_has_its_place(void **state)
{
	(void)state;
	write_file("conf.d/10-a.json", "{\n\"http\": {\n\"body_max\": 7,\n\"allowed_hosts\": [\"a\",\n 5]}}");
	const char *file = write_file("dmsrd.json", "{ \"http\":\n\n { \"lisen\": 1 } }");
	const char *variables[] = { "DMSR_HTTP__BODY_MAXX=8", "DMSR_DRAIN_TIMEOUT=\xff", "DMSR_LOG_LEVEL=warn", NULL };
	const char *overrides[] = { "log.level=inof", "nonsense", "http=1", "http.tokens={\"a\":\"0123456789abcdef\"}", NULL };
	problems *p = json_array();
	struct config *c = load(file, variables, overrides, p);
	assert_null(c);
	assert_int_equal(json_array_size(p), 10);
	is_finding(p, 0, "unknown-key", "/http/lisen", "dmsrd.json:3: ", "http.listen");
	is_finding(p, 1, "range", "/http/body_max", "10-a.json:3: http.body_max: must be between 1KiB and 64MiB", NULL);
	is_finding(p, 2, "type", "/http/allowed_hosts/1", "10-a.json:5: http.allowed_hosts.1: must be a string", NULL);
	is_finding(p, 3, "unknown-key", "/http.body_maxx", "environment DMSR_HTTP__BODY_MAXX: ", "http.body_max");
	is_finding(p, 4, "pattern", "", "environment DMSR_DRAIN_TIMEOUT: is not UTF-8", NULL);
	is_finding(p, 5, "unknown-key", "/log_level",
		"environment DMSR_LOG_LEVEL: there is no option \"log_level\": did you mean \"log.level\", which is DMSR_LOG__LEVEL?", "log.level");
	is_finding(p, 6, "enum", "/log/level", "-o log.level: must be one of", "info");
	is_finding(p, 7, "syntax", "", "-o nonsense", NULL);
	is_finding(p, 8, "unknown-key", "/http", "-o http: ", NULL);
	is_finding(p, 9, "type", "/http/tokens/a", "-o http.tokens: http.tokens.a: must be", NULL);
	json_decref(p);
}

static void bad_texts_are_refused(void **state)
{
	(void)state;
	refuses("", "syntax", "", "text:1: is not JSON", NULL);
	refuses("[]", "type", "", "must be an object", NULL);
	refuses("{\n\"http\": {\"listen\": }", "syntax", "", "text:2: ", NULL);
	refuses("{\"http\": {\"timeout\": 5000,\n\"timeout\": 6000}}", "duplicate", "/http/timeout", "text:2: http.timeout is there twice", NULL);
	refuses("{\"http\": 5}", "type", "/http", "must be an object of options", NULL);
	refuses("{\"http\": {\"listen\": null}}", "type", "/http/listen", "not null", NULL);
	refuses("{\"listen\": \"x\"}", "unknown-key", "/listen", "did you mean \"http.listen\"", "http.listen");
	refuses("{\"http.listen\": \"x\"}", "unknown-key", "/http.listen", "did you mean", "http.listen");
	refuses("{\"\\/\": 1}", "unknown-key", "/~1", "there is no option", NULL);
	refuses("{\"drain_timeout\": \"1w\"}", "pattern", "/drain_timeout", "10s", NULL);
	refuses("{\"jobs\": {\"retry_forever\": \"true\"}}", "type", "/jobs/retry_forever", "true or false", NULL);
	refuses("{\"log\": {\"format\": \"jsn\"}}", "enum", "/log/format", "logfmt, json", "json");
	refuses("{\"log\": {\"levels\": {\"http\": \"loud\"}}}", "enum", "/log/levels/http", "error, warn, info, debug", NULL);
	refuses("{\"log\": {\"levels\": [\"http\"]}}", "type", "/log/levels", "must be an object", NULL);
	refuses("{\"secrets\": {\"a\":\n {\"file\": \"relative\"}}}", "pattern", "/secrets/a", "text:1: secrets.a: must be", NULL);
	refuses("{\"http\": {\"tokens\": {\"a\": \"0123456789abcdef0123456789abcdef\"}}}", "type", "/http/tokens/a", "never the token itself", NULL);
	refuses("{\"http\": {\"tokens\": {\"a b\": {\"env\": \"A\"}}}}", "pattern", "/http/tokens/a b", "letters", NULL);
	refuses("{\"http\": {\"tokens\": {\"a\": {\"file\": \"relative\"}}}}", "type", "/http/tokens/a", "sha256", NULL);
	refuses("{\"jobs\": {\"streamer\": \"kafka\"}}", "type", "/jobs/streamer", "must be an object", NULL);
	refuses("{\"jobs\": {\"streamer\": {\"type\": 1}}}", "type", "/jobs/streamer/type", "must be a string", NULL);
	refuses("{\"jobs\": {\"streamer\": {\"type\": \"kafka\", \"user\": null}}}", "type", "/jobs/streamer/user", "leave it out", NULL);
	refuses("{\"jobs\":\n {\"streamer\": {\"prefix\": \"a\"}}}", "required", "/jobs/streamer", "text:2: jobs.streamer needs a \"type\"", NULL);
	refuses("{\"http\": {\"tokens\": {\"a\": {\"sha256\": \"abc\"}}}}", "pattern", "/http/tokens/a", "64 hexadecimal digits", NULL);
}

static void values_must_fit_together(void **state)
{
	(void)state;
	refuses("{\"state_dir\": \"here\"}", "pattern", "/state_dir", "must be an absolute path", NULL);
	refuses("{\"state_dir\": \"\"}", "pattern", "/state_dir", "must not be empty", NULL);
	refuses("{\"http\": {\"listen\": \"127.0.0.1\"}}", "pattern", "/http/listen", "ADDRESS:PORT", NULL);
	refuses("{\"http\": {\"listen\": \"example.org:80\"}}", "pattern", "/http/listen", "ADDRESS:PORT", NULL);
	refuses("{\"http\": {\"tls_key\": \"/k\"}}", "conflict", "/http/tls_key", "needs http.tls_cert", NULL);
	refuses("{\"http\": {\"tls_cert\": \"/k\"}}", "conflict", "/http/tls_cert", "needs http.tls_key", NULL);
	refuses("{\"http\": {\"allowed_origins\": [\"https://a/\"]}}", "pattern", "/http/allowed_origins", "origin", NULL);
	refuses("{\"http\": {\"connections_max\": 3}}", "conflict", "/http/connections_per_ip_max", "http.connections_max", NULL);
	refuses("{\"jobs\": {\"retry_max\": 500}}", "conflict", "/jobs/retry_initial", "jobs.retry_max", NULL);
}

static void off_loopback_needs_tls_and_a_token(void **state)
{
	(void)state;
	refuses("{\"http\": {\"listen\": \"0.0.0.0:8080\"}}", "conflict", "/http/listen",
		"so http.tls_cert, http.tls_key and http.tokens must be set", NULL);
	refuses("{\"http\": {\"listen\": \"[::]:8080\", \"tls_cert\": \"/c\", \"tls_key\": \"/k\"}}", "conflict", "/http/listen",
		"so http.tokens must be set", NULL);
	refuses("{\"http\": {\"listen\": \"10.0.0.1:80\", \"tokens\": {\"a\": {\"env\": \"A\"}}}}", "conflict", "/http/listen",
		"so http.tls_cert, http.tls_key must", NULL);
	/* a comment is no token */
	refuses("{\"http\": {\"listen\": \"10.0.0.1:80\", \"tls_cert\": \"/c\", \"tls_key\": \"/k\", \"tokens\": {\"//a\": {\"env\": \"A\"}}}}", "conflict",
		"/http/listen", "http.tokens", NULL);
	takes("{\"http\": {\"listen\": \"10.0.0.1:80\", \"tls_cert\": \"/c\", \"tls_key\": \"/k\", \"tokens\": {\"a\": {\"env\": \"A\"}}}}");
	takes("{\"http\": {\"listen\": \"127.1.2.3:80\"}}");
	takes("{\"http\": {\"listen\": \"[::1]:80\"}}");
	takes("{\"http\": {\"listen\": \"[::ffff:127.0.0.1]:80\"}}");
	takes("{\"http\": {\"listen\": \"localhost:80\"}}");
	takes("{\"http\": {\"listen\": \"\", \"socket\": \"\"}}");
}

static void addresses_are_taken_apart(void **state)
{
	static const char *const bad[] = { "", ":", ":80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:+80", "1.2.3.4: 80",
		"::1:80", "[::1:80", "[1.2.3.4]:80",
		"1.2.3:80", "[]:80", "a:80", "1.2.3.4:080000", NULL };
	char host[64];
	uint16_t port;
	(void)state;
	for (const char *const *s = bad; *s; s++)
		assert_false(config_split_listen(*s, host, sizeof host, &port));
	assert_true(config_split_listen("[::1]:65535", host, sizeof host, &port));
	assert_string_equal(host, "::1");
	assert_int_equal(port, 65535);
	assert_true(config_split_listen("localhost:1", host, sizeof host, &port));
	assert_string_equal(host, "127.0.0.1");
	assert_false(config_split_listen("127.0.0.1:1", host, 9, &port));
	assert_true(config_is_loopback("127.255.0.1"));
	assert_false(config_is_loopback("128.0.0.1"));
	assert_false(config_is_loopback("::ffff:10.0.0.1"));
}

static void files_that_cannot_be_read(void **state)
{
	char path[128];
	problems *p = json_array();
	(void)state;
	snprintf(path, sizeof path, "%s/none.json", dir);
	assert_null(load(path, NULL, NULL, p));
	is_finding(p, 0, "not-found", "", "none.json: cannot be read: No such file", NULL);
	json_array_clear(p);
	assert_null(load(dir, NULL, NULL, p));
	is_finding(p, 0, "not-found", "", "no regular file", NULL);
	json_array_clear(p);
	char *big = mem_alloc(CONFIG_FILE_MAX_BYTES + 2);
	memset(big, ' ', CONFIG_FILE_MAX_BYTES + 1);
	big[CONFIG_FILE_MAX_BYTES + 1] = 0;
	assert_null(load(write_file("dmsrd.json", big), NULL, NULL, p));
	is_finding(p, 0, "not-found", "", "longer than 1 MiB", NULL);
	free(big);
	json_decref(p);
}

static void secrets_are_not_printed(void **state)
{
	static const char text[] = "{\"http\": {\"tokens\": {\"a\": {\"sha256\": \"" SUM "\"}, \"b\": {\"file\": \"/t\"}}},"
				   " \"secrets\": {\"s\": {\"env\": \"X\"}}, \"jobs\": {\"retry_max\": \"2m\","
				   " \"streamer\": {\"type\": \"unheard-of\", \"password\": \"hidden-one\"}}}";
	problems *p = json_array();
	(void)state;
	struct config *c = config_load_text(text, sizeof text - 1, p, NULL);
	assert_non_null(c);
	json_t *all = config_print(c);
	char *printed = json_dumps(all, 0);
	size_t n = 0;
	while (config_table[n].path)
		n++;
	assert_int_equal(json_object_size(all), n);
	assert_null(strstr(printed, SUM));
	assert_null(strstr(printed, "hidden-one"));
	assert_non_null(strstr(printed, "unheard-of"));
	json_t *tokens = json_object_get(json_object_get(all, "http.tokens"), "value");
	assert_string_equal(json_string_value(json_object_get(json_object_get(tokens, "a"), "sha256")), "***");
	assert_string_equal(json_string_value(json_object_get(json_object_get(tokens, "b"), "file")), "/t");
	json_t *max = json_object_get(all, "jobs.retry_max");
	assert_string_equal(json_string_value(json_object_get(max, "value")), "2m");
	assert_string_equal(json_string_value(json_object_get(max, "origin")), "text");
	/* printing leaves the value itself alone */
	assert_string_equal(json_string_value(json_object_get(json_object_get(config_json(c, "http.tokens"), "a"), "sha256")), SUM);
	free(printed);
	json_decref(all);
	config_free(c);
	json_decref(p);
}

static void what_needs_a_restart(void **state)
{
	problems *p = json_array();
	static const char live[] = "{\"log\": {\"level\": \"debug\"}, \"http\": {\"tokens\": {\"a\": {\"env\": \"A\"}}}}",
			  cold[] = "{\"http\": {\"listen\": \"127.0.0.1:81\"}}";
	(void)state;
	struct config *a = config_load_text("{}", 2, p, NULL), *b = config_load_text(live, sizeof live - 1, p, NULL),
		      *c = config_load_text(cold, sizeof cold - 1, p, NULL);
	assert_null(config_needs_restart(a, b));
	assert_string_equal(config_needs_restart(a, c), "http.listen");
	config_free(a);
	config_free(b);
	config_free(c);
	json_decref(p);
}

static void the_schema_knows_every_option(void **state)
{
	(void)state;
	json_t *schema = config_schema();
	assert_string_equal(json_string_value(json_object_get(schema, "$schema")), "https://json-schema.org/draft/2020-12/schema");
	for (const struct config_entry *t = config_table; t->path; t++) {
		json_t *at = schema;
		char *path = mem_strdup(t->path), *rest = path, *name;
		while ((name = strsep(&rest, "."))) {
			assert_true(json_is_false(json_object_get(at, "additionalProperties")));
			at = json_object_get(json_object_get(at, "properties"), name);
			assert_non_null(at);
		}
		assert_string_equal(json_string_value(json_object_get(at, "description")), t->help);
		assert_true(t->type == DMSR_OPT_LIST || json_object_get(at, "default"));
		free(path);
	}
	json_decref(schema);
}

static void lines_and_pointers(void **state)
{
	static const char text[] = "{\n\"a\": {\"b\\u002f\": [1,\n[2, {\"c\":\n3}]],\n\"d\": \"}\\\"{\"}, \"e\":\n4}";
	char at[64];
	(void)state;
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a"), 2);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a/b~1"), 2);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a/b~1/1"), 3);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a/b~1/1/1/c"), 3);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a/b~1/1/1/none"), 3);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/a/d"), 5);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/e/f"), 5);
	assert_int_equal(config_text_line(text, sizeof text - 1, "/none"), 1);
	config_text_pointer(text, sizeof text - 1, (size_t)(strstr(text, "\"e\"") - text) + 3, at, sizeof at);
	assert_string_equal(at, "/e");
	config_text_pointer(text, sizeof text - 1, 0, at, sizeof at);
	assert_string_equal(at, "");
}

RUN_TESTS(cmocka_unit_test(nothing_given_is_the_defaults),
	cmocka_unit_test_setup_teardown(later_layers_win, make_dir, remove_dir),
	cmocka_unit_test_setup_teardown(every_finding_has_its_place, make_dir, remove_dir),
	cmocka_unit_test(bad_texts_are_refused),
	cmocka_unit_test(values_must_fit_together),
	cmocka_unit_test(off_loopback_needs_tls_and_a_token),
	cmocka_unit_test(addresses_are_taken_apart),
	cmocka_unit_test_setup_teardown(files_that_cannot_be_read, make_dir, remove_dir),
	cmocka_unit_test(secrets_are_not_printed),
	cmocka_unit_test(what_needs_a_restart),
	cmocka_unit_test(the_schema_knows_every_option),
	cmocka_unit_test(lines_and_pointers))
