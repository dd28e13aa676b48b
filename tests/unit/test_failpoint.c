/* failpoint: acts at the Nth passing, once; a kill is a SIGKILL. */
#include "base/failpoint.h"
#include "test.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void arm(const char *text)
{
	if (text)
		setenv("DMSR_FAILPOINT", text, 1);
	else
		unsetenv("DMSR_FAILPOINT");
	failpoint_init();
}

static void unarmed_does_nothing(void **state)
{
	(void)state;
	arm(NULL);
	assert_false(failpoint_armed);
	assert_false(failpoint("a"));
	arm("");
	assert_false(failpoint_armed);
}

static void fails_once_at_the_nth(void **state)
{
	(void)state;
	arm("a:3:fail,b:fail");
	assert_false(failpoint("a"));
	assert_true(failpoint("b"));
	assert_false(failpoint("b"));
	assert_false(failpoint("c"));
	assert_false(failpoint("a"));
	assert_true(failpoint("a"));
	assert_false(failpoint("a"));
	arm(NULL);
}

/* Exit status of a child that arms `text` and passes "a" twice. */
static int child(const char *text)
{
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(9);
		arm(text);
		(void)failpoint("a");
		(void)failpoint("a");
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void kills(void **state)
{
	(void)state;
	static const char *const killers[] = { "a", "a:kill", "a:1", "a:2:kill", "x,a:2" };
	for (size_t i = 0; i < sizeof killers / sizeof *killers; i++) {
		int status = child(killers[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	assert_int_equal(child("a:3"), 0);
	assert_int_equal(child("ab"), 0);
}

static void refuses_what_it_does_not_understand(void **state)
{
	(void)state;
	static const char *const wrong[] = { "a:0", "a:-1", "a:x", "a:1x", "a:1:die", "a::fail", ":1", "a:1:fail:2", "a,,b", "a:99999999999999999999" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		int status = child(wrong[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	}
}

RUN_TESTS(cmocka_unit_test(unarmed_does_nothing), cmocka_unit_test(fails_once_at_the_nth), cmocka_unit_test(kills),
	cmocka_unit_test(refuses_what_it_does_not_understand))
