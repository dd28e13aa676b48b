/* loop: descriptors, timers, tasks, wake-ups from threads, signals, slices. */
#include "base/loop.h"
#include "base/mem.h"
#include "test.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* What one test's callbacks share. */
struct scene {
	struct loop *loop;
	struct loop_timer *watchdog;
	struct loop_io *io;
	struct loop_timer *timer[8];
	struct loop_task *task[8];
	struct loop_wake *wake;
	int fds[2];
	char trace[256]; /* what was called, in order */
	int count;
	uint64_t started_us;
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
	loop_io_free(s->io);
	for (int i = 0; i < 8; i++) {
		loop_timer_free(s->timer[i]);
		loop_task_free(s->task[i]);
	}
	loop_wake_free(s->wake);
	loop_timer_free(s->watchdog);
	loop_free(s->loop);
	close(s->fds[0]);
	close(s->fds[1]);
	free(s);
	return 0;
}

static void stop(void *arg)
{
	struct scene *s = arg;
	note(s, '.');
	loop_stop(s->loop);
}

/* ---- descriptors */

static void read_one_byte(void *arg, unsigned ready)
{
	struct scene *s = arg;
	char c;
	assert_int_equal(ready, LOOP_READ);
	assert_int_equal(read(s->fds[0], &c, 1), 1);
	note(s, c);
	if (c == 'z')
		loop_stop(s->loop);
}

static void reading_is_level_triggered(void **state)
{
	struct scene *s = *state;
	s->io = loop_io_new(s->loop, "test", s->fds[0], read_one_byte, s);
	loop_io_want(s->io, LOOP_READ);
	assert_int_equal(write(s->fds[1], "abz", 3), 3);
	loop_run(s->loop);
	assert_string_equal(s->trace, "abz");
}

static void alternate(void *arg, unsigned ready)
{
	struct scene *s = arg;
	char c;
	if (ready & LOOP_WRITE) {
		note(s, 'w');
		assert_int_equal(write(s->fds[1], "x", 1), 1);
		loop_io_want(s->io, LOOP_READ);
	} else {
		assert_int_equal(read(s->fds[0], &c, 1), 1);
		note(s, 'r');
		loop_io_want(s->io, ++s->count < 3 ? LOOP_WRITE : 0);
		if (s->count == 3)
			loop_stop(s->loop);
	}
}

static void what_is_wanted_changes_at_once(void **state)
{
	struct scene *s = *state;
	/* Both directions are ready from the start; what the first call turns off must not be called in the same turn. */
	assert_int_equal(write(s->fds[1], "x", 1), 1);
	s->io = loop_io_new(s->loop, "test", s->fds[0], alternate, s);
	loop_io_want(s->io, LOOP_WRITE);
	loop_run(s->loop);
	assert_string_equal(s->trace, "wrwrwr");
}

static void free_own_io(void *arg, unsigned ready)
{
	struct scene *s = arg;
	(void)ready;
	note(s, 'f');
	loop_io_free(s->io);
	s->io = NULL;
	loop_timer_start(s->timer[0], 5);
}

static void io_may_be_freed_inside_its_callback(void **state)
{
	struct scene *s = *state;
	assert_int_equal(write(s->fds[1], "x", 1), 1);
	s->timer[0] = loop_timer_new(s->loop, "test", stop, s);
	s->io = loop_io_new(s->loop, "test", s->fds[0], free_own_io, s);
	loop_io_want(s->io, LOOP_READ | LOOP_WRITE);
	loop_run(s->loop);
	assert_string_equal(s->trace, "f.");
}

/* ---- timers */

struct named {
	struct scene *scene;
	char name;
};

static void say_name(void *arg)
{
	struct named *n = arg;
	note(n->scene, n->name);
}

static void timers_come_in_the_order_of_their_time(void **state)
{
	struct scene *s = *state;
	struct named names[4];
	static const uint64_t after_ms[4] = { 30, 10, 40, 20 };
	for (int i = 0; i < 4; i++) {
		names[i] = (struct named){ s, (char)('0' + i) };
		s->timer[i] = loop_timer_new(s->loop, "test", say_name, &names[i]);
		loop_timer_start(s->timer[i], after_ms[i]);
	}
	s->timer[4] = loop_timer_new(s->loop, "test", stop, s);
	loop_timer_start(s->timer[4], 60);
	assert_true(loop_timer_is_running(s->timer[0]));
	loop_timer_start(s->timer[1], 50); /* moved behind all others */
	loop_timer_stop(s->timer[2]);
	assert_false(loop_timer_is_running(s->timer[2]));
	loop_run(s->loop);
	assert_string_equal(s->trace, "301.");
	assert_false(loop_timer_is_running(s->timer[0]));
}

static void tick(void *arg)
{
	struct scene *s = arg;
	if (++s->count == 50)
		loop_stop(s->loop);
	else
		loop_timer_start(s->timer[0], 1);
}

static void a_millisecond_is_one(void **state)
{
	struct scene *s = *state;
	uint64_t took = UINT64_MAX;
	s->timer[0] = loop_timer_new(s->loop, "test", tick, s);
	/* Coarse timers take 4 ms each, every time; what a busy machine adds, it adds now and then. */
	for (int i = 0; i < 100 && took > 50 * 3500; i++) {
		uint64_t begun = loop_now_us(s->loop);
		s->count = 0;
		loop_timer_start(s->timer[0], 1);
		loop_run(s->loop);
		took = loop_now_us(s->loop) - begun;
	}
	assert_in_range(took, 50 * 900, 50 * 3500);
}

static void free_own_timer(void *arg)
{
	struct scene *s = arg;
	loop_timer_free(s->timer[0]);
	s->timer[0] = NULL;
	stop(s);
}

static void timer_may_be_freed_inside_its_callback(void **state)
{
	struct scene *s = *state;
	s->timer[0] = loop_timer_new(s->loop, "test", free_own_timer, s);
	loop_timer_start_us(s->timer[0], 0);
	loop_run(s->loop);
	assert_string_equal(s->trace, ".");
}

/* ---- tasks */

static void repost(void *arg)
{
	struct scene *s = arg;
	note(s, 't');
	if (++s->count == 1)
		assert_int_equal(write(s->fds[1], "r", 1), 1);
	loop_task_post(s->task[0]);
	loop_task_post(s->task[0]);
	if (s->count == 5)
		loop_stop(s->loop);
}

static void tasks_leave_turns_to_descriptors(void **state)
{
	struct scene *s = *state;
	s->io = loop_io_new(s->loop, "test", s->fds[0], read_one_byte, s);
	loop_io_want(s->io, LOOP_READ);
	s->task[0] = loop_task_new(s->loop, "test", repost, s);
	loop_task_post(s->task[0]);
	loop_task_post(s->task[0]);
	loop_run(s->loop);
	assert_string_equal(s->trace, "trtttt");
}

static void cancel_the_next(void *arg)
{
	struct scene *s = arg;
	note(s, 'c');
	loop_task_cancel(s->task[1]);
	loop_task_free(s->task[2]);
	s->task[2] = NULL;
	loop_task_free(s->task[0]); /* itself */
	s->task[0] = NULL;
	loop_task_post(s->task[3]);
}

static void tasks_may_be_cancelled_by_others(void **state)
{
	struct scene *s = *state;
	struct named one = { s, '1' }, two = { s, '2' }, four = { s, '4' };
	s->task[0] = loop_task_new(s->loop, "test", cancel_the_next, s);
	s->task[1] = loop_task_new(s->loop, "test", say_name, &one);
	s->task[2] = loop_task_new(s->loop, "test", say_name, &two);
	s->task[3] = loop_task_new(s->loop, "test", stop, s);
	s->task[4] = loop_task_new(s->loop, "test", say_name, &four);
	loop_task_post(s->task[0]);
	loop_task_post(s->task[1]);
	loop_task_post(s->task[2]);
	loop_task_post(s->task[4]);
	loop_run(s->loop);
	assert_string_equal(s->trace, "c4.");
}

static void stop_before_run(void **state)
{
	struct scene *s = *state;
	loop_stop(s->loop);
	loop_run(s->loop);
	assert_string_equal(s->trace, "");
}

/* ---- wake */

enum { MESSAGES = 20000 };
static atomic_int produced;

static void *producer(void *arg)
{
	struct scene *s = arg;
	for (int i = 0; i < MESSAGES; i++) {
		atomic_fetch_add_explicit(&produced, 1, memory_order_relaxed);
		loop_wake_signal(s->wake);
	}
	return NULL;
}

/* The last signal must not be lost: the callback that follows it sees everything. */
static void on_wake(void *arg)
{
	struct scene *s = arg;
	s->count++;
	if (atomic_load_explicit(&produced, memory_order_relaxed) == 2 * MESSAGES)
		loop_stop(s->loop);
}

static void wakes_lose_nothing(void **state)
{
	struct scene *s = *state;
	pthread_t t[2];
	atomic_store(&produced, 0);
	s->wake = loop_wake_new(s->loop, "test", on_wake, s);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, producer, s), 0);
	loop_run(s->loop);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_in_range(s->count, 1, 2 * MESSAGES);
}

static int plain; /* handed over by the wake alone, so that TSan sees whether it orders memory */

static void *writer(void *arg)
{
	struct scene *s = arg;
	plain = 42;
	loop_wake_signal(s->wake);
	return NULL;
}

static void read_plain(void *arg)
{
	struct scene *s = arg;
	s->count = plain;
	loop_stop(s->loop);
}

static void a_wake_orders_memory(void **state)
{
	struct scene *s = *state;
	pthread_t t;
	plain = 0;
	s->wake = loop_wake_new(s->loop, "test", read_plain, s);
	assert_int_equal(pthread_create(&t, NULL, writer, s), 0);
	loop_run(s->loop);
	pthread_join(t, NULL);
	assert_int_equal(s->count, 42);
}

static void say_wake(void *arg)
{
	struct scene *s = arg;
	note(s, 'w');
	loop_timer_start(s->timer[0], 5);
}

static void signals_of_one_turn_are_one_call(void **state)
{
	struct scene *s = *state;
	s->wake = loop_wake_new(s->loop, "test", say_wake, s);
	s->timer[0] = loop_timer_new(s->loop, "test", stop, s);
	for (int i = 0; i < 10; i++)
		loop_wake_signal(s->wake);
	loop_run(s->loop);
	assert_string_equal(s->trace, "w.");
}

/* ---- signals, slices */

static void on_usr1(void *arg, int signo)
{
	struct scene *s = arg;
	assert_int_equal(signo, SIGUSR1);
	stop(s);
}

static void signals(void **state)
{
	struct scene *s = *state;
	struct loop_signal *sig = loop_signal_new(s->loop, SIGUSR1, on_usr1, s);
	raise(SIGUSR1);
	loop_run(s->loop);
	assert_string_equal(s->trace, ".");
	loop_signal_free(sig);
	loop_signal_free(NULL);
}

static void be_slow(void *arg)
{
	struct scene *s = arg;
	usleep(12000);
	loop_task_post(s->task[1]);
}

static void slices_name_the_longest(void **state)
{
	struct scene *s = *state;
	struct loop_slices out;
	s->task[0] = loop_task_new(s->loop, "sleeper", be_slow, s);
	s->task[1] = loop_task_new(s->loop, "test", stop, s);
	loop_task_post(s->task[0]);
	loop_run(s->loop);
	loop_slices(s->loop, &out);
	uint64_t sum = 0;
	for (int i = 0; i <= LOOP_SLICE_BOUNDS; i++)
		sum += out.count[i];
	assert_int_equal(sum, 2);
	assert_int_equal(out.n, 2);
	assert_string_equal(out.max_room, "sleeper");
	assert_in_range(out.max_us, 12000, 10000000);
	assert_in_range(out.total_us, out.max_us, out.max_us + 10000000);
	/* 12 ms lie between 10 and 25; a busy machine may make it longer, never shorter */
	for (int i = 0; i <= 6; i++)
		assert_int_equal(out.count[i], i == 0 ? out.count[0] : 0);
	assert_int_equal(loop_slice_bounds_us[6], 10000);
}

static void be_busy(void *arg)
{
	struct scene *s = arg;
	struct timespec t;
	uint64_t begun = 0, ns = 0;
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
		ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
		begun = begun ? begun : ns;
	} while (ns - begun < 3000000);
	loop_task_post(s->task[0]);
}

/* Who sleeps takes no processor. */
static void slices_of_the_processor(void **state)
{
	struct scene *s = *state;
	struct loop_slices wall, cpu;
	s->task[0] = loop_task_new(s->loop, "sleeper", be_slow, s);
	s->task[1] = loop_task_new(s->loop, "test", stop, s);
	s->task[2] = loop_task_new(s->loop, "worker", be_busy, s);
	loop_task_post(s->task[2]);
	loop_run(s->loop);
	loop_slices(s->loop, &wall);
	loop_cpu_slices(s->loop, &cpu);
	assert_int_equal(wall.n, 3);
	assert_int_equal(cpu.n, 3);
	assert_string_equal(cpu.max_room, "worker");
	assert_in_range(cpu.max_us, 3000, wall.total_us);
	assert_in_range(cpu.total_us, cpu.max_us, wall.total_us - 8000);
}

static void times_move(void **state)
{
	struct scene *s = *state;
	uint64_t a = loop_now_us(s->loop);
	usleep(2000);
	assert_in_range(loop_now_us(s->loop) - a, 2000, 5000000);
	assert_true(wall_now_us() > INT64_C(1700000000) * 1000000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
RUN_TESTS(TEST(reading_is_level_triggered), TEST(what_is_wanted_changes_at_once), TEST(io_may_be_freed_inside_its_callback),
	TEST(timers_come_in_the_order_of_their_time), TEST(a_millisecond_is_one), TEST(timer_may_be_freed_inside_its_callback),
	TEST(tasks_leave_turns_to_descriptors), TEST(tasks_may_be_cancelled_by_others), TEST(stop_before_run),
	TEST(wakes_lose_nothing), TEST(a_wake_orders_memory), TEST(signals_of_one_turn_are_one_call), TEST(signals),
	TEST(slices_name_the_longest), TEST(slices_of_the_processor), TEST(times_move))
