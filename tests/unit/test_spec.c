/* test_spec: jobs' JSON, right and wrong; secrets that are shown, kept and never sent elsewhere. */
#include "test.h"

#include "engine/spec.h"

static const struct dmsr_option db_options[] = {
	{ "host", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Host." },
	{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "Password." },
	{ "port", DMSR_OPT_INT, 0, "5432", NULL, 1, 65535, "Port." },
	{ 0 },
};
static const struct dmsr_option file_options[] = {
	{ "path", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Directory." },
	{ "format", DMSR_OPT_ENUM, DMSR_OPT_CODEC, "lines", "lines|columns", 0, 0, "Codec." },
	{ 0 },
};
static const struct dmsr_option lines_options[] = { { "width", DMSR_OPT_INT, 0, "80", NULL, 1, 1000, "Width." }, { 0 } };
static const struct dmsr_source some_source;
static const struct dmsr_target some_target;
static const struct dmsr_streamer some_streamer;
static const struct dmsr_codec some_codec;
static const struct dmsr_plugin db = {
	.abi = DMSR_ABI,
	.size = sizeof db,
	.name = "db",
	.summary = "A database.",
	.source_options = db_options,
	.target_options = db_options,
	.source = &some_source,
	.target = &some_target,
};
static const struct dmsr_plugin out = {
	.abi = DMSR_ABI,
	.size = sizeof out,
	.name = "out",
	.summary = "Files.",
	.target_options = file_options,
	.target = &some_target,
};
static const struct dmsr_plugin lines = {
	.abi = DMSR_ABI,
	.size = sizeof lines,
	.name = "lines",
	.summary = "Lines.",
	.codec_options = lines_options,
	.codec = &some_codec,
};
static const struct dmsr_option no_options[1];
static const struct dmsr_plugin mem = {
	.streamer_options = no_options,
	.abi = DMSR_ABI,
	.size = sizeof mem,
	.name = "queue",
	.summary = "A queue.",
	.streamer = &some_streamer,
};

static const struct dmsr_option broker_options[] = {
	{ "bootstrap_servers", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Brokers." },
	{ "security", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "How." },
	{ "ssl_ca", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "Whom to trust." },
	{ "sasl_mechanism", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "With what proof." },
	{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "Password." },
	{ 0 },
};
static const struct dmsr_plugin broker = {
	.streamer_options = broker_options,
	.abi = DMSR_ABI,
	.size = sizeof broker,
	.name = "broker",
	.summary = "A broker.",
	.streamer = &some_streamer,
};

static struct plugins *plugins;

static int set_up(void **state)
{
	struct err e = { 0 };
	(void)state;
	plugins = plugins_new();
	const struct dmsr_plugin *all[] = { &db, &out, &lines, &mem, &broker };
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(plugins_add(plugins, all[i], &e), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	plugins_free(plugins);
	return 0;
}

static json_t *parse(const char *text)
{
	json_error_t at;
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &at);
	if (!j)
		fail_msg("%s: %s", text, at.text);
	return j;
}

static bool has(const json_t *p, const char *pointer, const char *code, const char *suggestion)
{
	for (size_t i = 0; i < json_array_size(p); i++) {
		const json_t *v = json_array_get(p, i);
		const char *s = json_string_value(json_object_get(v, "suggestion"));
		bool same = !strcmp(json_string_value(json_object_get(v, "pointer")), pointer) && !strcmp(json_string_value(json_object_get(v, "code")), code);
		if (same && (!suggestion || (s && !strcmp(s, suggestion))))
			return true;
	}
	return false;
}

#define GOOD_SOURCE "\"source\": {\"connector\": \"db\", \"host\": \"a\", \"password\": \"p1\"}"
#define GOOD_STREAMER "\"streamer\": {\"type\": \"queue\"}"
#define GOOD_TARGETS "\"targets\": [{\"connector\": \"out\", \"path\": \"/x\", \"width\": 7}, " \
	"{\"name\": \"dw\", \"connector\": \"db\", \"host\": \"b\", \"password\": {\"$secret\": \"dw\"}}]"

static void a_good_job(void **state)
{
	(void)state;
	json_t *secrets_json = parse("{\"dw\": {\"env\": \"TEST_SPEC_DW\"}}"), *p = json_array();
	setenv("TEST_SPEC_DW", "hidden", 1);
	struct secrets *secrets = secrets_new(secrets_json, p);
	json_t *j = parse("{\"name\": \"shop\", " GOOD_SOURCE ", " GOOD_STREAMER ", " GOOD_TARGETS ", "
		"\"//\": \"a comment\", \"state\": \"running\", \"tables\": {\"include\": [\"public.*\"], \"exclude\": [\"tmp_*\"]}}");
	struct spec *s = spec_parse(j, plugins, secrets, p);
	assert_int_equal(json_array_size(p), 0);
	assert_non_null(s);
	assert_string_equal(s->name, "shop");
	assert_int_equal(s->mode, DMSR_FULL_LOAD_AND_CDC);
	assert_int_equal(s->ntargets, 2);
	assert_string_equal(s->targets[0].name, "out");
	assert_string_equal(s->targets[1].name, "dw");
	assert_int_equal(settings_int(s->targets[0].settings, "width"), 7);
	assert_string_equal(settings_str(s->targets[1].settings, "password"), "hidden");
	assert_int_equal(s->tables.ninclude, 1);
	assert_string_equal(s->tables.exclude[0], "tmp_*");
	spec_free(s);
	secrets_free(secrets);
	json_decref(secrets_json);
	json_decref(j);
	json_decref(p);
}

static void each_mistake_has_its_place(void **state)
{
	static const struct { const char *text, *pointer, *code, *suggestion; } wrong[] = {
		{ "[]", "", "type", NULL },
		{ "{" GOOD_SOURCE "," GOOD_STREAMER "}", "/name", "required", NULL },
		{ "{\"name\": \"No\"," GOOD_SOURCE "," GOOD_STREAMER "}", "/name", "pattern", NULL },
		{ "{\"name\": \"../x\"," GOOD_SOURCE "," GOOD_STREAMER "}", "/name", "pattern", NULL },
		{ "{\"name\": 1," GOOD_SOURCE "," GOOD_STREAMER "}", "/name", "type", NULL },
		{ "{\"name\": \"a\", \"mod\": \"cdc\"," GOOD_SOURCE "," GOOD_STREAMER "}", "/mod", "unknown-key", "mode" },
		{ "{\"name\": \"a\", \"mode\": \"ccd\"," GOOD_SOURCE "," GOOD_STREAMER "}", "/mode", "enum", NULL },
		{ "{\"name\": \"a\"," GOOD_STREAMER "}", "/source", "required", NULL },
		{ "{\"name\": \"a\", \"source\": []," GOOD_STREAMER "}", "/source", "type", NULL },
		{ "{\"name\": \"a\", \"source\": {\"host\": \"x\"}," GOOD_STREAMER "}", "/source/connector", "required", NULL },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"bd\"}," GOOD_STREAMER "}", "/source/connector", "not-found", "db" },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"out\", \"path\": \"x\"}," GOOD_STREAMER "}", "/source/connector", "not-found", NULL },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"db\"}," GOOD_STREAMER "}", "/source/host", "required", NULL },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"db\", \"host\": \"h\", \"prot\": 1}," GOOD_STREAMER "}", "/source/prot",
			"unknown-key", "port" },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"db\", \"host\": \"h\", \"name\": \"n\"}," GOOD_STREAMER "}", "/source/name",
			"unknown-key", NULL },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"db\", \"host\": \"h\", \"password\": \"***\"}," GOOD_STREAMER "}",
			"/source/password", "secret", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"targets\": {}}", "/targets", "type", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"targets\": [1]}", "/targets/0", "type", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"targets\": "
		  "[{\"connector\": \"out\", \"path\": \"x\"}, {\"connector\": \"out\", \"path\": \"y\"}]}", "/targets/1/name", "duplicate", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"targets\": "
		  "[{\"connector\": \"out\", \"path\": \"x\", \"format\": \"columns\", \"width\": 1}]}", "/targets/0/width", "unknown-key", NULL },
		{ "{\"name\": \"a\", \"source\": {\"connector\": \"db\", \"host\": \"h\", \"database\": \"d\"}," GOOD_STREAMER ", \"targets\": "
		  "[{\"connector\": \"db\", \"host\": \"h\", \"database\": \"d\"}]}", "/targets/0/database", "conflict", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"targets\": [{\"connector\": \"db\", \"host\": \"h\", \"database\": \"e\"}, "
		  "{\"name\": \"two\", \"connector\": \"db\", \"host\": \"h\", \"database\": \"e\"}]}", "/targets/1/database", "conflict", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"transforms\": [{\"type\": \"filter\"}]}", "/transforms/0/type", "not-found", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"tables\": {\"includes\": []}}", "/tables/includes", "unknown-key", "include" },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"tables\": {\"include\": [\"\"]}}", "/tables/include/0", "pattern", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"tables\": {\"include\": \"x\"}}", "/tables/include", "type", NULL },
		{ "{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER ", \"labels\": {\"x\": 1}}", "/labels/x", "type", NULL },
	};
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		json_t *j = parse(wrong[i].text), *p = json_array();
		struct spec *s = spec_parse(j, plugins, NULL, p);
		if (s || !has(p, wrong[i].pointer, wrong[i].code, wrong[i].suggestion)) {
			char *found = json_dumps(p, 0);
			fail_msg("%s: wanted %s at %s, found %s", wrong[i].text, wrong[i].code, wrong[i].pointer, found);
		}
		json_decref(j);
		json_decref(p);
	}
}

/* Who gives a wrong place, or none that the secret is for, has made one mistake. */
static void a_mistake_is_told_once(void **state)
{
	static const struct { const char *source, *pointer; } wrong[] = {
		{ "\"port\": 1, \"password\": \"***\"", "/source/password" },
		{ "\"port\": \"1\", \"password\": \"***\"", "/source/port" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char *text = mem_printf("{\"name\": \"a\", \"source\": {\"connector\": \"db\", \"host\": \"h\", %s}," GOOD_STREAMER "}", wrong[i].source);
		json_t *j = parse(text), *p = json_array();
		assert_null(spec_parse(j, plugins, NULL, p));
		assert_int_equal(json_array_size(p), 1);
		assert_string_equal(json_string_value(json_object_get(json_array_get(p, 0), "pointer")), wrong[i].pointer);
		json_decref(j);
		json_decref(p);
		free(text);
	}
}

static void secrets_are_not_shown(void **state)
{
	(void)state;
	json_t *j = parse("{\"name\": \"a\"," GOOD_SOURCE "," GOOD_STREAMER "," GOOD_TARGETS ", \"transforms\": [{\"type\": \"gone\", \"key\": \"s3cret\"}]}");
	json_t *r = spec_redact(j, plugins);
	char *text = json_dumps(r, 0);
	assert_null(strstr(text, "p1"));
	assert_null(strstr(text, "s3cret"));
	assert_non_null(strstr(text, "{\"$secret\": \"dw\"}"));
	assert_non_null(strstr(text, "\"gone\""));
	free(text);
	json_decref(r);
	json_decref(j);
}

static const char *secret_at(const json_t *j, bool of_target)
{
	const json_t *part = of_target ? json_array_get(json_object_get(j, "targets"), 0) : json_object_get(j, "source");
	return json_string_value(json_object_get(part, "password"));
}

static void a_redacted_job_can_be_put_back(void **state)
{
	(void)state;
	json_t *old = parse("{\"name\": \"a\"," GOOD_SOURCE ", \"targets\": [{\"connector\": \"db\", \"host\": \"b\", \"password\": \"p2\"}]}");
	json_t *shown = spec_redact(old, plugins), *kept = spec_keep_secrets(shown, old, plugins);
	assert_true(json_equal(kept, old));
	/* the password goes to its own host alone */
	json_object_set_new(json_object_get(shown, "source"), "host", json_string("elsewhere"));
	json_t *moved = spec_keep_secrets(shown, old, plugins);
	assert_string_equal(secret_at(moved, false), "***");
	assert_string_equal(secret_at(moved, true), "p2");
	/* and not to another target */
	json_object_set_new(json_array_get(json_object_get(shown, "targets"), 0), "name", json_string("other"));
	json_t *renamed = spec_keep_secrets(shown, old, plugins);
	assert_string_equal(secret_at(renamed, true), "***");
	json_decref(old);
	json_decref(shown);
	json_decref(kept);
	json_decref(moved);
	json_decref(renamed);
}

/* Nor does a streamer's go to other brokers. */
static void a_streamers_password_stays_with_its_brokers(void **state)
{
	static const char *const moved[] = { "bootstrap_servers", "security", "ssl_ca", "sasl_mechanism", NULL };
	(void)state;
	json_t *old = parse("{\"name\": \"a\"," GOOD_SOURCE ", \"streamer\": {\"type\": \"broker\", \"bootstrap_servers\": \"a\", \"password\": \"p3\"}}");
	json_t *shown = spec_redact(old, plugins), *kept = spec_keep_secrets(shown, old, plugins);
	assert_true(json_equal(kept, old));
	json_decref(kept);
	for (const char *const *m = moved; *m; m++) {
		json_t *other = json_deep_copy(shown);
		json_object_set_new(json_object_get(other, "streamer"), *m, json_string("elsewhere"));
		kept = spec_keep_secrets(other, old, plugins);
		assert_string_equal(json_string_value(json_object_get(json_object_get(kept, "streamer"), "password")), "***");
		json_decref(kept);
		json_decref(other);
	}
	json_decref(shown);
	json_decref(old);
}

static void a_streamer_is_given_to_who_has_none(void **state)
{
	(void)state;
	json_t *j = parse("{\"name\": \"a\"}"), *queue = parse("{\"type\": \"queue\"}"), *none = parse("{}"), *p = json_array();
	json_t *with = spec_give_streamer(j, queue), *again = spec_give_streamer(with, none), *same = spec_give_streamer(j, none);
	assert_true(json_equal(json_object_get(with, "streamer"), queue));
	assert_true(again == with && same == j && !json_object_get(j, "streamer"));
	spec_check_streamer(queue, "/x", plugins, NULL, p);
	assert_int_equal(json_array_size(p), 0);
	json_object_set_new(queue, "typ", json_string("queue"));
	spec_check_streamer(queue, "/x", plugins, NULL, p);
	assert_true(has(p, "/x/typ", "unknown-key", "type"));
	json_decref(with);
	json_decref(again);
	json_decref(same);
	json_decref(j);
	json_decref(queue);
	json_decref(none);
	json_decref(p);
}

static void what_a_reply_adds_is_taken_off(void **state)
{
	(void)state;
	json_t *j = parse("{\"name\": \"a\", \"uid\": \"x\", \"state\": \"running\", \"desired_state\": \"running\", "
		"\"generation\": 3, \"links\": {}, \"error\": null}");
	json_t *c = spec_clean(j);
	assert_int_equal(json_object_size(c), 1);
	json_decref(c);
	json_decref(j);
}

static void a_connection_alone(void **state)
{
	(void)state;
	json_t *p = json_array(), *j = parse("{\"connector\": \"db\", \"role\": \"target\", \"host\": \"h\"}");
	struct spec_connection *c = spec_connection_parse(j, plugins, NULL, p);
	assert_non_null(c);
	assert_int_equal(c->role, PLUGIN_TARGET);
	spec_connection_free(c);
	json_t *stream = parse("{\"type\": \"broker\", \"role\": \"streamer\", \"bootstrap_servers\": \"b\"}");
	c = spec_connection_parse(stream, plugins, NULL, p);
	assert_non_null(c);
	assert_true(c->role == PLUGIN_STREAMER && c->part.plugin == &broker);
	spec_connection_free(c);
	json_decref(stream);
	json_object_set_new(j, "role", json_string("both"));
	assert_null(spec_connection_parse(j, plugins, NULL, p));
	assert_true(has(p, "/role", "enum", NULL));
	json_decref(j);
	json_decref(p);
}

static void the_schema_knows_every_part(void **state)
{
	(void)state;
	json_t *s = spec_schema(plugins);
	assert_non_null(s);
	char *text = json_dumps(s, 0);
	assert_non_null(strstr(text, "\"writeOnly\": true"));
	assert_non_null(strstr(text, "\"const\": \"queue\""));
	free(text);
	json_decref(s);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
RUN_TESTS(TEST(a_good_job), TEST(each_mistake_has_its_place), TEST(a_mistake_is_told_once), TEST(secrets_are_not_shown), TEST(a_redacted_job_can_be_put_back),
	TEST(a_streamers_password_stays_with_its_brokers), TEST(a_streamer_is_given_to_who_has_none), TEST(what_a_reply_adds_is_taken_off),
	TEST(a_connection_alone), TEST(the_schema_knows_every_part))
