/* settings: values come back as they were put, copies of their own. */
#include "base/settings.h"
#include "test.h"

static void values_come_back(void **state)
{
	const char *tables[] = { "public.a", "public.b" };
	char host[] = "db1";
	size_t n = 99;
	struct settings *s = settings_new();
	(void)state;
	settings_put_str(s, "host", host);
	settings_put_int(s, "port", INT64_MIN);
	settings_put_bool(s, "tls", true);
	settings_put_list(s, "tables", tables, 2);
	host[0] = 'X';
	assert_string_equal(settings_str(s, "host"), "db1");
	assert_true(settings_int(s, "port") == INT64_MIN);
	assert_true(settings_bool(s, "tls"));
	const char *const *list = settings_list(s, "tables", &n);
	assert_int_equal(n, 2);
	assert_string_equal(list[1], "public.b");
	settings_free(s);
	settings_free(NULL);
}

static void a_later_value_replaces(void **state)
{
	size_t n = 99;
	struct settings *s = settings_new();
	(void)state;
	settings_put_str(s, "x", "one");
	settings_put_str(s, "x", settings_str(s, "x"));
	assert_string_equal(settings_str(s, "x"), "one");
	settings_put_list(s, "x", NULL, 0);
	settings_list(s, "x", &n);
	assert_int_equal(n, 0);
	settings_put_bool(s, "x", false);
	assert_false(settings_bool(s, "x"));
	settings_free(s);
}

static void declared_without_a_value(void **state)
{
	size_t n = 99;
	struct settings *s = settings_new();
	(void)state;
	settings_put_str(s, "x", NULL);
	assert_null(settings_str(s, "x"));
	assert_int_equal(settings_int(s, "x"), 0);
	assert_false(settings_bool(s, "x"));
	assert_null(settings_list(s, "x", &n));
	assert_int_equal(n, 0);
	settings_free(s);
}

RUN_TESTS(cmocka_unit_test(values_come_back), cmocka_unit_test(a_later_value_replaces),
	cmocka_unit_test(declared_without_a_value))
