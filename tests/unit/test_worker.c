/* test_worker: jobs run in order on another thread, answers come on the loop's; whenever it is freed, each job is answered or dropped once. */
#include "test.h"

#include "base/loop.h"
#include "base/mem.h"
#include "base/worker.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

struct world {
	struct loop *loop;
	struct worker *w;
	pthread_t loop_thread;
	int ran, done, ended_at;
	atomic_int dropped, finished;
	sem_t gate, inside, gone;
	bool seen_leaving;
	int free_at;
	bool leaves;
};

struct job {
	struct world *x;
	int number;
	bool waits;
};

static void run(void *arg)
{
	struct job *j = arg;
	assert_false(pthread_equal(pthread_self(), j->x->loop_thread));
	assert_int_equal(j->x->ran++, j->number);
	if (!j->waits)
		return;
	sem_post(&j->x->inside);
	sem_wait(&j->x->gate);
	j->x->seen_leaving = worker_is_leaving(j->x->w);
}

static void fini(void *arg)
{
	struct world *x = arg;
	atomic_fetch_add(&x->finished, 1);
	sem_post(&x->gone);
}

static void done(void *arg)
{
	struct job *j = arg;
	struct world *x = j->x;
	assert_true(pthread_equal(pthread_self(), x->loop_thread));
	assert_int_equal(x->done++, j->number);
	if (j->number == x->ended_at)
		loop_stop(x->loop);
	if (j->number == x->free_at) {
		(x->leaves ? worker_leave : worker_free)(x->w, fini, x);
		loop_stop(x->loop);
	}
	free(j);
}

static void drop(void *arg)
{
	struct job *j = arg;
	atomic_fetch_add(&j->x->dropped, 1);
	free(j);
}

static void post(struct world *x, int number, bool waits)
{
	struct job *j = mem_alloc(sizeof *j);
	*j = (struct job){ x, number, waits };
	worker_post(x->w, &(struct worker_job){ run, done, drop, j });
}

static void open_world(struct world *x)
{
	*x = (struct world){ .loop = loop_new(), .loop_thread = pthread_self(), .ended_at = -1, .free_at = -1 };
	sem_init(&x->gate, 0, 0);
	sem_init(&x->inside, 0, 0);
	sem_init(&x->gone, 0, 0);
	x->w = worker_new(x->loop, "test");
}

static void in_order(void **state)
{
	struct world x;
	(void)state;
	open_world(&x);
	for (int i = 0; i < 1000; i++)
		post(&x, i, false);
	assert_int_equal(x.done, 0);
	x.ended_at = 999;
	loop_run(x.loop);
	assert_int_equal(x.done, 1000);
	worker_free(x.w, fini, &x);
	assert_int_equal(x.finished, 1); /* nothing was under way: it has ended */
	assert_int_equal(x.dropped, 0);
	loop_free(x.loop);
}

/* The call under way is not waited for. */
static void freed_while_busy(void **state)
{
	struct world x;
	(void)state;
	open_world(&x);
	post(&x, 0, true);
	post(&x, 1, false);
	post(&x, 2, false);
	sem_wait(&x.inside);
	worker_free(x.w, fini, &x);
	assert_int_equal(x.finished, 0);
	loop_free(x.loop);
	sem_post(&x.gate);
	sem_wait(&x.gone);
	assert_true(x.seen_leaving);
	assert_int_equal(x.ran, 1);
	assert_int_equal(x.dropped, 3);
	assert_int_equal(x.done, 0);
	assert_true(worker_wait_left(10000));
}

static void fini_late(void *arg)
{
	struct world *x = arg;
	sem_wait(&x->gate);
	fini(x);
}

/* What ends its own things is not waited for, but by who ends the process. */
static void left(void **state)
{
	struct world x;
	(void)state;
	open_world(&x);
	x.ended_at = 0;
	post(&x, 0, false);
	loop_run(x.loop);
	worker_leave(x.w, fini_late, &x);
	loop_free(x.loop);
	assert_int_equal(x.finished, 0);
	assert_false(worker_wait_left(20));
	sem_post(&x.gate);
	assert_true(worker_wait_left(10000));
	assert_int_equal(x.finished, 1);
}

static void left_in_done(void **state)
{
	struct world x;
	(void)state;
	open_world(&x);
	x.leaves = true;
	x.free_at = 1;
	for (int i = 0; i < 5; i++)
		post(&x, i, false);
	loop_run(x.loop);
	assert_true(worker_wait_left(10000));
	assert_int_equal(x.finished, 1);
	assert_int_equal(x.done, 2);
	assert_int_equal(x.dropped, 3);
	loop_free(x.loop);
	worker_leave(NULL, fini, &x);
}

static void freed_with_answers(void **state)
{
	struct world x;
	(void)state;
	open_world(&x);
	post(&x, 0, false);
	post(&x, 1, true);
	sem_wait(&x.inside);
	sem_post(&x.gate);
	worker_free(x.w, fini, &x);
	sem_wait(&x.gone);
	assert_int_equal(x.dropped, 2);
	loop_free(x.loop);
	worker_free(NULL, fini, &x);
}

static void freed_in_done(void **state)
{
	(void)state;
	for (int at = 0; at < 20; at++) {
		struct world x;
		open_world(&x);
		x.free_at = at;
		for (int i = 0; i < 20; i++)
			post(&x, i, false);
		loop_run(x.loop);
		sem_wait(&x.gone);
		assert_int_equal(x.done, at + 1);
		assert_int_equal(x.dropped, 20 - at - 1);
		loop_free(x.loop);
	}
}

RUN_TESTS(cmocka_unit_test(in_order), cmocka_unit_test(freed_while_busy), cmocka_unit_test(freed_with_answers), cmocka_unit_test(freed_in_done),
	cmocka_unit_test(left), cmocka_unit_test(left_in_done))
