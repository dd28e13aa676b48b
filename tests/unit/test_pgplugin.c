/* test_pgplugin: PostgreSQL is found in the registry, and its tables of options parse the smallest job and refuse the wrong one. */
#include "engine/options.h"
#include "engine/plugin.h"
#include "test.h"

extern const struct dmsr_plugin dmsr_plugin_postgres;

static void is_found_in_both_roles(void **state)
{
	(void)state;
	struct plugins *ps = plugins_new();
	assert_ptr_equal(plugins_find(ps, PLUGIN_SOURCE, "postgres"), &dmsr_plugin_postgres);
	assert_ptr_equal(plugins_find(ps, PLUGIN_TARGET, "postgres"), &dmsr_plugin_postgres);
	assert_null(plugins_find(ps, PLUGIN_CODEC, "postgres"));
	plugins_free(ps);
}

static struct settings *parse(const struct dmsr_option *table, const char *text, problems *p)
{
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(obj);
	struct settings *s = options_parse(table, NULL, obj, NULL, "", NULL, p);
	json_decref(obj);
	return s;
}

static void every_option_has_its_help(void **state)
{
	const struct dmsr_option *tables[] = { dmsr_plugin_postgres.source_options, dmsr_plugin_postgres.target_options };
	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (const struct dmsr_option *o = tables[i]; o->name; o++)
			assert_true(o->help && o->help[0] && o->help[strlen(o->help) - 1] == '.');
}

static void the_smallest_job_has_all_defaults(void **state)
{
	(void)state;
	problems *p = json_array();
	struct settings *s = parse(dmsr_plugin_postgres.source_options, "{\"host\":\"h\",\"database\":\"d\",\"user\":\"u\"}", p);
	assert_int_equal(json_array_size(p), 0);
	assert_int_equal(settings_int(s, "port"), 5432);
	assert_int_equal(settings_int(s, "status_interval"), 10000);
	assert_int_equal(settings_int(s, "batch_bytes"), 256 * 1024);
	assert_string_equal(settings_str(s, "keyless_tables"), "fail");
	settings_free(s);
	s = parse(dmsr_plugin_postgres.target_options, "{\"host\":\"h\",\"database\":\"d\",\"user\":\"u\"}", p);
	assert_int_equal(json_array_size(p), 0);
	assert_string_equal(settings_str(s, "prepare"), "create");
	settings_free(s);
	json_decref(p);
}

static void a_slot_name_that_no_server_takes_is_refused_at_open(void **state)
{
	static const char *const bad[] = { "Big", "a-b", "", "a'; drop", "a123456789012345678901234567890123456789012345678901234567890123" };
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		problems *p = json_array();
		char text[256];
		snprintf(text, sizeof text, "{\"host\":\"h\",\"database\":\"d\",\"user\":\"u\",\"slot\":\"%s\"}", bad[i]);
		struct settings *s = parse(dmsr_plugin_postgres.source_options, text, p);
		assert_non_null(s);
		struct dmsr_instance *instance = NULL;
		struct err e = { 0 };
		const struct dmsr_source_host host = { 0 };
		assert_int_equal(dmsr_plugin_postgres.source->open(s, NULL, &host, &instance, &e), DMSR_EINVAL);
		assert_string_equal(e.id, "source.slot-name");
		assert_null(instance);
		settings_free(s);
		json_decref(p);
	}
}

RUN_TESTS(cmocka_unit_test(is_found_in_both_roles), cmocka_unit_test(every_option_has_its_help), cmocka_unit_test(the_smallest_job_has_all_defaults),
	cmocka_unit_test(a_slot_name_that_no_server_takes_is_refused_at_open))
