/* nearest: the word that was meant, or none. */
#include "base/nearest.h"
#include "test.h"

static const char *of(const char *word, const char *const *known)
{
	struct nearest n = NEAREST(word);
	for (; *known; known++)
		nearest_try(&n, *known);
	return n.best;
}

static void the_nearest_is_found(void **state)
{
	static const char *const known[] = { "shop", "shop_archive", "sales", "x", NULL };
	(void)state;
	assert_string_equal(of("shp", known), "shop");
	assert_string_equal(of("shpo", known), "shop");
	assert_string_equal(of("SHOP", known), "shop");
	assert_string_equal(of("shop_archiev", known), "shop_archive");
	assert_string_equal(of("sale", known), "sales");
}

static void none_that_is_another_word(void **state)
{
	static const char *const known[] = { "shop", "x", "", NULL };
	char longer[NEAREST_MAX + 2] = { 0 };
	(void)state;
	memset(longer, 's', NEAREST_MAX + 1);
	assert_null(of("orders", known));
	assert_null(of("y", known));
	assert_null(of("", known));
	assert_null(of(longer, (const char *const[]){ longer, NULL }));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_nearest_is_found), cmocka_unit_test(none_that_is_another_word) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
