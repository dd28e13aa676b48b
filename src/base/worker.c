/* worker: two lists under one mutex: jobs to the thread, answers from it. The thread outlives worker_free when it is in the middle of something. */
#include "base/worker.h"
#include "base/mem.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct item {
	struct item *next;
	struct worker_job job;
};

struct list {
	struct item *first, **last;
};

/* Of threads that were not waited for: how many run, and those that have ended, which somebody joins when he comes by. */
static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned n;
	struct worker *ended;
} left = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

struct worker {
	struct loop_wake *wake;
	bool *is_freed;                 /* while answers are given: the place to say so */
	struct list answers;            /* being given; the loop's */

	pthread_t thread;
	pthread_mutex_t mutex;          /* of all below */
	pthread_cond_t changed;
	struct list in, out;
	bool is_busy, is_leaving, is_left;
	struct worker *next_ended;
	void (*fini)(void *arg);
	void *fini_arg;
};

static void list_init(struct list *l) { *l = (struct list){ NULL, &l->first }; }

static void list_add(struct list *l, struct item *it)
{
	it->next = NULL;
	*l->last = it;
	l->last = &it->next;
}

static struct item *list_take(struct list *l)
{
	struct item *it = l->first;
	if (it && !(l->first = it->next))
		l->last = &l->first;
	return it;
}

static void list_move(struct list *to, struct list *from)
{
	list_init(to);
	if (!from->first)
		return;
	*to = *from;
	list_init(from);
}

static void drop_all(struct list *l)
{
	struct item *it;
	while ((it = list_take(l))) {
		it->job.drop(it->job.arg);
		free(it);
	}
}

static void destroy(struct worker *w)
{
	pthread_mutex_destroy(&w->mutex);
	pthread_cond_destroy(&w->changed);
	free(w);
}

/* Joins those of the threads that were left which have ended. */
static void reap(void)
{
	pthread_mutex_lock(&left.mutex);
	struct worker *w = left.ended;
	left.ended = NULL;
	pthread_mutex_unlock(&left.mutex);
	while (w) {
		struct worker *next = w->next_ended;
		pthread_join(w->thread, NULL);
		destroy(w);
		w = next;
	}
}

/* ---- the thread ---- */

/* The next job, or NULL when it is time to leave. */
static struct item *next_item(struct worker *w)
{
	pthread_mutex_lock(&w->mutex);
	while (!w->is_leaving && !w->in.first)
		pthread_cond_wait(&w->changed, &w->mutex);
	struct item *it = w->is_leaving ? NULL : list_take(&w->in);
	w->is_busy = it;
	pthread_mutex_unlock(&w->mutex);
	return it;
}

static void answer(struct worker *w, struct item *it)
{
	pthread_mutex_lock(&w->mutex);
	w->is_busy = false;
	bool is_late = w->is_leaving;
	if (!is_late) {
		list_add(&w->out, it);
		loop_wake_signal(w->wake); /* inside the mutex: worker_free takes it before it frees the handle */
	}
	pthread_mutex_unlock(&w->mutex);
	if (!is_late)
		return;
	it->job.drop(it->job.arg);
	free(it);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	struct item *it;

	while ((it = next_item(w))) {
		it->job.run(it->job.arg);
		answer(w, it);
	}
	drop_all(&w->in);
	if (w->fini)
		w->fini(w->fini_arg);
	if (w->is_left) {
		pthread_mutex_lock(&left.mutex);
		left.n--;
		w->next_ended = left.ended;
		left.ended = w;
		pthread_cond_signal(&left.changed);
		pthread_mutex_unlock(&left.mutex);
	}
	return NULL;
}

bool worker_is_leaving(struct worker *w)
{
	pthread_mutex_lock(&w->mutex);
	bool leaving = w->is_leaving;
	pthread_mutex_unlock(&w->mutex);
	return leaving;
}

/* ---- the loop ---- */

static void on_wake(void *arg)
{
	struct worker *w = arg;
	struct item *it;
	bool is_freed = false;

	pthread_mutex_lock(&w->mutex);
	list_move(&w->answers, &w->out);
	pthread_mutex_unlock(&w->mutex);
	w->is_freed = &is_freed;
	while ((it = list_take(&w->answers))) {
		const struct worker_job job = it->job;
		free(it);
		job.done(job.arg);
		if (is_freed)
			return;
	}
	w->is_freed = NULL;
}

/* Signals are the loop's. */
static void start_thread(struct worker *w)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = pthread_create(&w->thread, NULL, thread_main, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		fputs("dmsr: cannot start a thread: out of resources\n", stderr);
		abort();
	}
}

struct worker *worker_new(struct loop *l, const char *room)
{
	struct worker *w = mem_zalloc(sizeof *w);

	list_init(&w->in);
	list_init(&w->out);
	list_init(&w->answers);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->changed, NULL);
	w->wake = loop_wake_new(l, room, on_wake, w);
	start_thread(w);
	return w;
}

void worker_post(struct worker *w, const struct worker_job *job)
{
	struct item *it = mem_alloc(sizeof *it);

	it->job = *job;
	pthread_mutex_lock(&w->mutex);
	list_add(&w->in, it);
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->mutex);
}

static void let_go(struct worker *w, void (*fini)(void *arg), void *arg, bool is_left)
{
	struct list late;

	reap();
	if (!w)
		return;
	if (w->is_freed)
		*w->is_freed = true;
	struct loop_wake *wake = w->wake;
	struct list answers;
	list_move(&answers, &w->answers);
	pthread_mutex_lock(&w->mutex);
	list_move(&late, &w->out);
	w->fini = fini;
	w->fini_arg = arg;
	w->is_leaving = true;
	is_left |= w->is_busy;
	w->is_left = is_left;
	if (is_left) {
		pthread_mutex_lock(&left.mutex);
		left.n++;
		pthread_mutex_unlock(&left.mutex);
	}
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->mutex);
	loop_wake_free(wake);
	drop_all(&answers);
	drop_all(&late);
	if (is_left)
		return;
	pthread_join(w->thread, NULL);
	destroy(w);
}

void worker_free(struct worker *w, void (*fini)(void *arg), void *arg) { let_go(w, fini, arg, false); }

void worker_leave(struct worker *w, void (*fini)(void *arg), void *arg) { let_go(w, fini, arg, true); }

bool worker_wait_left(unsigned ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&left.mutex);
	while (left.n && !pthread_cond_clockwait(&left.changed, &left.mutex, CLOCK_MONOTONIC, &until))
		;
	bool is_done = !left.n;
	pthread_mutex_unlock(&left.mutex);
	reap();
	return is_done;
}
