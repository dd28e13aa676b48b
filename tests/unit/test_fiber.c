/* fiber: switches, waits, breathes, is cancelled; its stack has a guard. */
#include "base/fiber.h"
#include "base/mem.h"
#include "test.h"
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024 };

struct scene {
	struct loop *loop;
	struct loop_timer *watchdog, *timer;
	struct fiber *fiber[8];
	int fds[2];
	char trace[256];
	int running;    /* fibers that have not ended */
	unsigned got;
	int count;
	uint64_t worked_us;
};

static void note(struct scene *s, char what)
{
	size_t n = strlen(s->trace);
	assert_true(n + 1 < sizeof s->trace);
	s->trace[n] = what;
	s->trace[n + 1] = 0;
}

static void on_watchdog(void *arg)
{
	(void)arg;
	fputs("the loop was never stopped\n", stderr);
	abort();
}

static int set_up(void **state)
{
	struct scene *s = mem_zalloc(sizeof *s);
	s->loop = loop_new();
	s->watchdog = loop_timer_new(s->loop, "test", on_watchdog, NULL);
	loop_timer_start(s->watchdog, 600000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s->fds), 0);
	*state = s;
	return 0;
}

static int tear_down(void **state)
{
	struct scene *s = *state;
	for (int i = 0; i < 8; i++)
		fiber_free(s->fiber[i]);
	loop_timer_free(s->watchdog);
	loop_timer_free(s->timer);
	loop_free(s->loop);
	close(s->fds[0]);
	close(s->fds[1]);
	free(s);
	return 0;
}

static void start(struct scene *s, int i, void (*fn)(void *arg))
{
	s->fiber[i] = fiber_new(s->loop, "test", STACK_BYTES, fn, s);
	s->running++;
}

static void ended(struct scene *s)
{
	if (!--s->running)
		loop_stop(s->loop);
}

static void write_later(void *arg)
{
	struct scene *s = arg;
	assert_null(fiber_current());
	note(s, 'w');
	assert_int_equal(write(s->fds[1], "x", 1), 1);
}

static void read_three(void *arg)
{
	struct scene *s = arg;
	assert_ptr_equal(fiber_current(), s->fiber[0]);
	for (int i = 0; i < 3; i++) {
		char c;
		note(s, '(');
		loop_timer_start(s->timer, 2);
		assert_int_equal(fiber_wait(s->fds[0], LOOP_READ, -1), LOOP_READ);
		assert_int_equal(read(s->fds[0], &c, 1), 1);
		note(s, ')');
	}
	ended(s);
}

static void waits_for_a_descriptor(void **state)
{
	struct scene *s = *state;
	s->timer = loop_timer_new(s->loop, "test", write_later, s);
	start(s, 0, read_three);
	assert_string_equal(s->trace, "");
	assert_false(fiber_is_done(s->fiber[0]));
	loop_run(s->loop);
	assert_string_equal(s->trace, "(w)(w)(w)");
	assert_true(fiber_is_done(s->fiber[0]));
}

static void wait_in_vain(void *arg)
{
	struct scene *s = arg;
	uint64_t begun = loop_now_us(s->loop);
	assert_int_equal(fiber_wait(s->fds[0], LOOP_READ, 10), 0);
	assert_in_range(loop_now_us(s->loop) - begun, 9000, 60000000);
	assert_int_equal(fiber_wait(-1, 0, 5), 0);
	assert_false(fiber_is_cancelled(fiber_current()));
	/* Both are there: the descriptor is told, and the timer does not come later. */
	assert_int_equal(fiber_wait(s->fds[0], LOOP_WRITE | LOOP_READ, 1000), LOOP_WRITE);
	ended(s);
}

static void waits_for_a_time(void **state)
{
	struct scene *s = *state;
	start(s, 0, wait_in_vain);
	loop_run(s->loop);
	assert_true(fiber_is_done(s->fiber[0]));
}

static void wait_for_ever(void *arg)
{
	struct scene *s = arg;
	note(s, 'a');
	s->got = fiber_wait(s->fds[0], LOOP_READ, -1);
	note(s, 'b');
	assert_true(fiber_is_cancelled(fiber_current()));
	assert_int_equal(fiber_wait(s->fds[0], LOOP_WRITE, -1), 0);
	assert_int_equal(fiber_wait(-1, 0, 1000000), 0);
	note(s, 'c');
	ended(s);
}

static void cancel_it(void *arg)
{
	struct scene *s = arg;
	fiber_cancel(s->fiber[0]);
	fiber_cancel(s->fiber[0]);
	note(s, 'x'); /* before the fiber goes on: it is not entered from here */
}

static void is_cancelled_while_it_waits(void **state)
{
	struct scene *s = *state;
	s->got = 99;
	s->timer = loop_timer_new(s->loop, "test", cancel_it, s);
	loop_timer_start(s->timer, 5);
	start(s, 0, wait_for_ever);
	loop_run(s->loop);
	assert_string_equal(s->trace, "axbc");
	assert_int_equal(s->got, 0);
	assert_true(fiber_is_done(s->fiber[0]));
}

static void is_cancelled_before_it_starts(void **state)
{
	struct scene *s = *state;
	start(s, 0, wait_for_ever);
	fiber_cancel(s->fiber[0]);
	loop_run(s->loop);
	assert_string_equal(s->trace, "abc");
}

static void never_started_may_be_freed(void **state)
{
	struct scene *s = *state;
	start(s, 0, wait_for_ever);
	fiber_free(s->fiber[0]);
	s->fiber[0] = NULL;
	fiber_free(NULL);
}

static void count_ticks(void *arg)
{
	struct scene *s = arg;
	s->count++;
	loop_timer_start(s->timer, 1);
}

static void work_hard(void *arg)
{
	struct scene *s = arg;
	uint64_t begun = loop_now_us(s->loop);
	while (s->count < 10 && (s->worked_us = loop_now_us(s->loop) - begun) < 20000000)
		fiber_breathe(2000);
	ended(s);
}

static void breathes(void **state)
{
	struct scene *s = *state;
	struct loop_slices slices;
	s->timer = loop_timer_new(s->loop, "ticker", count_ticks, s);
	loop_timer_start(s->timer, 1);
	start(s, 0, work_hard);
	loop_run(s->loop);
	/* Others have their turns meanwhile; and it goes on until its 2 ms are over, however busy the machine is. */
	assert_in_range(s->count, 10, 11);
	loop_slices(s->loop, &slices);
	assert_in_range(slices.n, s->count + 5, s->count + s->worked_us / 2000 + 5);
}

/* Deep frames with live values, so that a stack that is switched wrongly does not go unseen. */
static int __attribute__((noinline)) recurse(struct scene *s, int depth)
{
	volatile int here[16];
	for (int i = 0; i < 16; i++)
		here[i] = depth * 16 + i;
	if (depth % 5 == 0)
		fiber_wait(-1, 0, 0);
	int sum = depth ? recurse(s, depth - 1) : 0;
	for (int i = 0; i < 16; i++) {
		assert_int_equal(here[i], depth * 16 + i);
		sum += here[i];
	}
	return sum;
}

static void go_deep(void *arg)
{
	struct scene *s = arg;
	s->count += recurse(s, 20);
	ended(s);
}

static void several_keep_their_stacks(void **state)
{
	struct scene *s = *state;
	for (int i = 0; i < 8; i++)
		start(s, i, go_deep);
	loop_run(s->loop);
	assert_int_equal(s->count, 8 * (21 * 16) * (21 * 16 - 1) / 2);
}

/* Steps down page by page, so that the guard cannot be jumped over. */
static int __attribute__((noinline)) overflow(int pages)
{
	char here[4096];
	explicit_bzero(here, sizeof here); /* keeps the whole of it */
	here[pages] = 1;
	int below = pages ? overflow(pages - 1) : 0;
	return below + here[pages / 2];
}

static void run_over(void *arg)
{
	struct scene *s = arg;
	s->count = overflow(STACK_BYTES / 4096 + 2);
	ended(s);
}

static void an_overflow_is_a_segv(void **state)
{
	struct scene *s = *state;
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		start(s, 0, run_over);
		loop_run(s->loop);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
RUN_TESTS(TEST(waits_for_a_descriptor), TEST(waits_for_a_time), TEST(is_cancelled_while_it_waits),
	TEST(is_cancelled_before_it_starts), TEST(never_started_may_be_freed), TEST(breathes), TEST(several_keep_their_stacks),
	TEST(an_overflow_is_a_segv))
