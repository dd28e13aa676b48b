/* test: cmocka with what it needs before it, and the shape of a test program's main. */
#ifndef DMSR_TESTS_UNIT_TEST_H
#define DMSR_TESTS_UNIT_TEST_H
/* cmocka wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/worker.h"
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* at is a new directory of test NAME's own, in $TMPDIR, where that is short enough for a socket in it, or in /tmp. */
static inline void test_directory(char *at, size_t size, const char *name)
{
	const char *in = getenv("TMPDIR");
	snprintf(at, size, "%s/dmsr-%s-XXXXXX", in && strlen(in) < 40 ? in : "/tmp", name);
	assert_non_null(mkdtemp(at));
}

/* A file of tests/fixtures; free it. */
static inline char *test_fixture(const char *name, size_t *len)
{
	const char *top = getenv("srcdir");
	char path[512];
	snprintf(path, sizeof path, "%s/tests/fixtures/%s", top ? top : ".", name);
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("%s is not there", path);
	fseek(f, 0, SEEK_END);
	*len = (size_t)ftell(f);
	rewind(f);
	char *p = malloc(*len + 1);
	assert_non_null(p);
	assert_int_equal(fread(p, 1, *len, f), *len);
	fclose(f);
	return p;
}

/* RUN_TESTS(cmocka_unit_test(a), cmocka_unit_test(b), ...) */
#define RUN_TESTS(...)                                                      \
	int main(void)                                                      \
	{                                                                   \
		const struct CMUnitTest tests[] = { __VA_ARGS__ };          \
		int failed = cmocka_run_group_tests(tests, NULL, NULL);     \
		worker_wait_left(10000);                                    \
		return failed;                                              \
	}

#endif
