/* test_options: one table, good and bad objects against it. */
#include "engine/options.h"
#include "test.h"
#include <fcntl.h>
#include <unistd.h>

static const struct dmsr_option table[] = {
	{ "host", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "the server" },
	{ "port", DMSR_OPT_INT, 0, "5432", NULL, 1, 65535, "its port" },
	{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "the password" },
	{ "sslmode", DMSR_OPT_ENUM, 0, "prefer", "disable|prefer|verify-full", 0, 0, "TLS" },
	{ "memory_max", DMSR_OPT_BYTES, DMSR_OPT_LIVE, "16MiB", NULL, 4096, INT64_MAX, "memory" },
	{ "timeout", DMSR_OPT_DURATION, 0, "10s", NULL, 100, 3600000, "patience" },
	{ "create", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0, "make it" },
	{ "schemas", DMSR_OPT_LIST, 0, "a,b", NULL, 0, 0, "schemas" },
	{ "others", DMSR_OPT_LIST, 0, NULL, NULL, 0, 0, "others" },
	{ "note", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "a word" },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};
static const struct dmsr_option extra[] = {
	{ "pretty", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0, "with spaces" },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};
static const char *const also[] = { "connector", "tables", NULL };

static struct settings *parse(const char *text, const struct secrets *secrets, problems *p)
{
	json_error_t je;
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
	assert_non_null(obj);
	struct settings *s = options_parse(table, extra, obj, also, "/source", secrets, p);
	json_decref(obj);
	return s;
}

/* Exactly one finding, with this code, pointer and suggestion. */
static void refuses(const char *text, const char *code, const char *pointer, const char *suggestion)
{
	problems *p = json_array();
	struct settings *s = parse(text, NULL, p);
	assert_null(s);
	assert_int_equal(json_array_size(p), 1);
	const json_t *one = json_array_get(p, 0);
	assert_string_equal(json_string_value(json_object_get(one, "code")), code);
	assert_string_equal(json_string_value(json_object_get(one, "pointer")), pointer);
	const char *given = json_string_value(json_object_get(one, "suggestion"));
	if (suggestion)
		assert_string_equal(given, suggestion);
	else
		assert_null(given);
	assert_true(strlen(json_string_value(json_object_get(one, "detail"))) > 0);
	json_decref(p);
}

static void defaults_fill_what_is_not_given(void **state)
{
	(void)state;
	problems *p = json_array();
	size_t n;
	struct settings *s = parse("{\"//\": \"a comment\", \"//port\": 7, \"connector\": 5, \"host\": \"db\"}", NULL, p);
	assert_non_null(s);
	assert_string_equal(settings_str(s, "host"), "db");
	assert_int_equal(settings_int(s, "port"), 5432);
	assert_null(settings_str(s, "password"));
	assert_string_equal(settings_str(s, "sslmode"), "prefer");
	assert_int_equal(settings_int(s, "memory_max"), 16 << 20);
	assert_int_equal(settings_int(s, "timeout"), 10000);
	assert_true(settings_bool(s, "create"));
	assert_false(settings_bool(s, "pretty"));
	const char *const *list = settings_list(s, "schemas", &n);
	assert_int_equal(n, 2);
	assert_string_equal(list[1], "b");
	settings_list(s, "others", &n);
	assert_int_equal(n, 0);
	assert_null(settings_str(s, "note"));
	settings_free(s);
	json_decref(p);
}

static void given_values_are_typed(void **state)
{
	(void)state;
	problems *p = json_array();
	size_t n;
	struct settings *s = parse("{\"host\":\"\",\"port\":65535,\"password\":\"p\",\"sslmode\":\"verify-full\",\"memory_max\":\"64KiB\","
		"\"timeout\":250,\"create\":false,\"schemas\":[],\"others\":[\"x\"],\"note\":\"\\u00e4\",\"pretty\":true}", NULL, p);
	assert_non_null(s);
	assert_string_equal(settings_str(s, "host"), "");
	assert_int_equal(settings_int(s, "port"), 65535);
	assert_string_equal(settings_str(s, "password"), "p");
	assert_string_equal(settings_str(s, "sslmode"), "verify-full");
	assert_int_equal(settings_int(s, "memory_max"), 65536);
	assert_int_equal(settings_int(s, "timeout"), 250);
	assert_false(settings_bool(s, "create"));
	settings_list(s, "schemas", &n);
	assert_int_equal(n, 0);
	settings_list(s, "others", &n);
	assert_int_equal(n, 1);
	assert_true(settings_bool(s, "pretty"));
	settings_free(s);
	json_decref(p);
}

static void bad_values_are_refused(void **state)
{
	(void)state;
	refuses("[]", "type", "/source", NULL);
	refuses("{}", "required", "/source/host", NULL);
	refuses("{\"host\":1}", "type", "/source/host", NULL);
	refuses("{\"host\":null}", "type", "/source/host", NULL);
	refuses("{\"host\":\"a\\u0000b\"}", "pattern", "/source/host", NULL);
	refuses("{\"host\":\"a\",\"port\":0}", "range", "/source/port", NULL);
	refuses("{\"host\":\"a\",\"port\":65536}", "range", "/source/port", NULL);
	refuses("{\"host\":\"a\",\"port\":5432.5}", "type", "/source/port", NULL);
	refuses("{\"host\":\"a\",\"port\":\"5432\"}", "type", "/source/port", NULL);
	refuses("{\"host\":\"a\",\"prot\":1}", "unknown-key", "/source/prot", "port");
	refuses("{\"host\":\"a\",\"PORT\":1}", "unknown-key", "/source/PORT", "port");
	refuses("{\"host\":\"a\",\"conector\":1}", "unknown-key", "/source/conector", "connector");
	refuses("{\"host\":\"a\",\"prety\":true}", "unknown-key", "/source/prety", "pretty");
	refuses("{\"host\":\"a\",\"a/~b\":1}", "unknown-key", "/source/a~1~0b", NULL);
	refuses("{\"host\":\"a\",\"sslmode\":\"verify-ful\"}", "enum", "/source/sslmode", "verify-full");
	refuses("{\"host\":\"a\",\"sslmode\":\"\"}", "enum", "/source/sslmode", NULL);
	refuses("{\"host\":\"a\",\"memory_max\":\"64XB\"}", "pattern", "/source/memory_max", NULL);
	refuses("{\"host\":\"a\",\"memory_max\":\"1KiB\"}", "range", "/source/memory_max", NULL);
	refuses("{\"host\":\"a\",\"timeout\":\"2d\"}", "range", "/source/timeout", NULL);
	refuses("{\"host\":\"a\",\"create\":\"true\"}", "type", "/source/create", NULL);
	refuses("{\"host\":\"a\",\"schemas\":\"a\"}", "type", "/source/schemas", NULL);
	refuses("{\"host\":\"a\",\"schemas\":[\"a\",1]}", "type", "/source/schemas/1", NULL);
	refuses("{\"host\":{\"$secret\":\"x\"}}", "type", "/source/host", NULL);
	refuses("{\"host\":\"a\",\"password\":{\"$secret\":\"x\"}}", "secret", "/source/password", NULL);
	refuses("{\"host\":\"a\",\"password\":{\"$secret\":\"x\",\"y\":1}}", "type", "/source/password", NULL);
	refuses("{\"host\":\"a\",\"password\":7}", "type", "/source/password", NULL);
}

static void every_finding_is_told_at_once(void **state)
{
	(void)state;
	problems *p = json_array();
	assert_null(parse("{\"port\":0,\"create\":1,\"x\":2}", NULL, p));
	assert_int_equal(json_array_size(p), 4);
	json_decref(p);
}

static void long_and_odd_words_are_safe(void **state)
{
	(void)state;
	struct buf text;
	problems *p = json_array();
	buf_init(&text, 40000);
	buf_str(&text, "{\"host\":\"a\",\"");
	for (size_t i = 0; i < 9000; i++)
		buf_str(&text, "\xE2\x82\xAC");
	buf_str(&text, "\":1}");
	assert_null(parse(buf_cstr(&text), NULL, p));
	assert_int_equal(json_array_size(p), 1);
	assert_non_null(json_object_get(json_array_get(p, 0), "pointer"));
	buf_fini(&text);
	json_decref(p);
}

static void units(void **state)
{
	(void)state;
	int64_t n;
	assert_int_equal(options_parse_bytes("0", &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(options_parse_bytes("1MB", &n), 0);
	assert_int_equal(n, 1000000);
	assert_int_equal(options_parse_bytes("4GiB", &n), 0);
	assert_int_equal(n, (int64_t)4 << 30);
	assert_int_equal(options_parse_bytes("8388607TiB", &n), 0);
	assert_int_equal(options_parse_bytes("8388608TiB", &n), -1);
	assert_int_equal(options_parse_bytes("9223372036854775808", &n), -1);
	assert_int_equal(options_parse_bytes("", &n), -1);
	assert_int_equal(options_parse_bytes("KiB", &n), -1);
	assert_int_equal(options_parse_bytes("-1", &n), -1);
	assert_int_equal(options_parse_bytes("1 KiB", &n), -1);
	assert_int_equal(options_parse_duration("500ms", &n), 0);
	assert_int_equal(n, 500);
	assert_int_equal(options_parse_duration("5m", &n), 0);
	assert_int_equal(n, 300000);
	assert_int_equal(options_parse_duration("1h", &n), 0);
	assert_int_equal(n, 3600000);
	assert_int_equal(options_parse_duration("1w", &n), -1);
}

static char dir[] = "/tmp/dmsr-options-XXXXXX";

static void put_file(const char *name, const char *bytes, size_t n)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static void secrets_are_read_afresh(void **state)
{
	(void)state;
	char path[128];
	struct err e = { 0 };
	problems *p = json_array();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/pw", dir);
	json_t *config = json_pack("{s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:s}", "f", "file", path, "e", "env", "DMSR_TEST_SECRET", "c",
		"credential", "pw", "gone", "file", "/nonexistent/x", "//", "why");
	struct secrets *s = secrets_new(config, p);
	assert_non_null(s);
	put_file("pw", "one\n", 4);
	char *v = secret_resolve(s, "f", &e);
	assert_string_equal(v, "one");
	free(v);
	put_file("pw", "two", 3);
	v = secret_resolve(s, "f", &e);
	assert_string_equal(v, "two");
	free(v);
	setenv("CREDENTIALS_DIRECTORY", dir, 1);
	v = secret_resolve(s, "c", &e);
	assert_string_equal(v, "two");
	free(v);
	unsetenv("DMSR_TEST_SECRET");
	assert_null(secret_resolve(s, "e", &e));
	assert_string_equal(e.id, "secret.unresolved");
	setenv("DMSR_TEST_SECRET", "env", 1);
	v = secret_resolve(s, "e", &e);
	assert_string_equal(v, "env");
	free(v);
	put_file("pw", "a\0b", 3);
	assert_null(secret_resolve(s, "f", &e));
	put_file("pw", "", 0);
	assert_null(secret_resolve(s, "f", &e));
	assert_null(secret_resolve(s, "gone", &e));
	assert_null(secret_resolve(s, "unknown", &e));

	struct settings *set = parse("{\"host\":\"a\",\"password\":{\"$secret\":\"e\"}}", s, p);
	assert_non_null(set);
	assert_string_equal(settings_str(set, "password"), "env");
	settings_free(set);
	assert_null(parse("{\"host\":\"a\",\"password\":{\"$secret\":\"gone\"}}", s, p));
	secrets_free(s);
	json_decref(config);
	json_decref(p);
	unlink(path);
	rmdir(dir);
}

static void bad_secret_tables(void **state)
{
	(void)state;
	static const char *const bad[] = { "[]", "{\"a\":1}", "{\"a\":{}}", "{\"a\":{\"file\":\"rel\"}}", "{\"a\":{\"env\":\"\"}}",
		"{\"a\":{\"credential\":\"../x\"}}", "{\"a\":{\"vault\":\"x\"}}", "{\"a\":{\"env\":\"A\",\"file\":\"/b\"}}" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		problems *p = json_array();
		json_t *config = json_loads(bad[i], 0, NULL);
		assert_null(secrets_new(config, p));
		assert_int_equal(json_array_size(p), 1);
		json_decref(config);
		json_decref(p);
	}
	problems *p = json_array();
	struct secrets *none = secrets_new(NULL, p);
	assert_non_null(none);
	secrets_free(none);
	json_decref(p);
}

static void schema_says_what_the_table_says(void **state)
{
	(void)state;
	json_t *s = options_schema(table, extra), *props = json_object_get(s, "properties");
	assert_int_equal(json_object_size(props), 11);
	assert_true(json_is_false(json_object_get(s, "additionalProperties")));
	json_t *required = json_object_get(s, "required");
	assert_int_equal(json_array_size(required), 1);
	assert_string_equal(json_string_value(json_array_get(required, 0)), "host");
	assert_true(json_is_true(json_object_get(json_object_get(props, "password"), "writeOnly")));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(props, "port"), "default")), 5432);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(props, "port"), "maximum")), 65535);
	assert_int_equal(json_array_size(json_object_get(json_object_get(props, "sslmode"), "enum")), 3);
	assert_int_equal(json_array_size(json_object_get(json_object_get(props, "schemas"), "default")), 2);
	json_decref(s);
}

static void no_secret_survives_redaction(void **state)
{
	(void)state;
	static const char *const given[] = { "{\"password\":\"s3cret\"}", "{\"password\":[\"s3cret\"]}", "{\"password\":{\"x\":\"s3cret\"}}",
		"{\"password\":{\"$secret\":\"a\",\"x\":\"s3cret\"}}", "{\"password\":{\"$secret\":[\"s3cret\"]}}" };
	for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
		json_t *obj = json_loads(given[i], 0, NULL), *shown = options_redact(table, NULL, obj);
		assert_string_equal(json_string_value(json_object_get(shown, "password")), "***");
		json_decref(obj);
		json_decref(shown);
	}
	json_t *obj = json_loads("{\"password\":{\"$secret\":\"a\"},\"host\":\"h\"}", 0, NULL), *shown = options_redact(table, NULL, obj);
	assert_true(json_equal(obj, shown));
	json_decref(obj);
	json_decref(shown);
}

static void pointers_are_escaped_and_bounded(void **state)
{
	(void)state;
	char out[16];
	assert_string_equal(pointer_join(out, sizeof out, "/a", "b/~"), "/a/b~1~0");
	assert_string_equal(pointer_join(out, sizeof out, "", ""), "/");
	assert_string_equal(pointer_join(out, sizeof out, "/0123456789", "abcdefgh"), "/0123456789/abc");
	assert_string_equal(pointer_join(out, sizeof out, "/0123456789", "ab~c"), "/0123456789/ab");
	assert_string_equal(pointer_join(out, sizeof out, "/0123456789", "ab\xE2\x82\xAC"), "/0123456789/ab");
}

RUN_TESTS(cmocka_unit_test(defaults_fill_what_is_not_given), cmocka_unit_test(given_values_are_typed),
	cmocka_unit_test(bad_values_are_refused), cmocka_unit_test(every_finding_is_told_at_once),
	cmocka_unit_test(long_and_odd_words_are_safe), cmocka_unit_test(units), cmocka_unit_test(secrets_are_read_afresh),
	cmocka_unit_test(bad_secret_tables), cmocka_unit_test(schema_says_what_the_table_says),
	cmocka_unit_test(no_secret_survives_redaction), cmocka_unit_test(pointers_are_escaped_and_bounded))
