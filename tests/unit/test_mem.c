/* mem: nothing gives NULL, and what would overflow ends the process. */
#include "base/mem.h"
#include "test.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void never_null(void **state)
{
	(void)state;
	char *a = mem_alloc(0), *b = mem_zalloc(16);
	assert_non_null(a);
	assert_memory_equal(b, (char[16]){ 0 }, 16);
	a = mem_realloc(a, 0);
	assert_non_null(a);
	b = mem_realloc_array(b, 0, 8);
	assert_non_null(b);
	free(a);
	free(b);
}

static void texts(void **state)
{
	(void)state;
	assert_null(mem_strdup(NULL));
	char *a = mem_strdup("abc"), *b = mem_strndup("abcdef", 2), *c = mem_strndup("ab", 10), *d = mem_printf("%d-%s", 1, "x");
	assert_string_equal(a, "abc");
	assert_string_equal(b, "ab");
	assert_string_equal(c, "ab");
	assert_string_equal(d, "1-x");
	free(a);
	free(b);
	free(c);
	free(d);
}

static void an_overflow_ends_the_process(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		volatile size_t many = SIZE_MAX / 4 + 2;
		free(mem_realloc_array(NULL, many, 4));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

RUN_TESTS(cmocka_unit_test(never_null), cmocka_unit_test(texts), cmocka_unit_test(an_overflow_ends_the_process))
