/* loop: libevent behind handles of our own, each callback timed.
 *
 * A turn is: the tasks that were posted before it, then one pass of libevent over ready descriptors, due timers and
 * signals. Tasks that are posted during a turn wait for the next one, so that descriptors are looked at in between; a
 * post costs no system call. */
#include "base/loop.h"
#include "base/log.h"
#include "base/loop_internal.h"
#include "base/mem.h"
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct link {
	struct link *prev, *next; /* NULL: in no list */
};

struct loop {
	struct event_base *base;
	bool stop;
	struct link posted; /* tasks for the next turn */
	struct loop_slices slices, cpu_slices;
};

struct loop_io {
	struct loop *loop;
	const char *room;
	void (*cb)(void *arg, unsigned ready);
	void *arg;
	unsigned want;
	struct event *read, *write;
};

struct loop_timer {
	struct loop *loop;
	const char *room;
	void (*cb)(void *arg);
	void *arg;
	struct event *event;
};

struct loop_task {
	struct link link; /* first: a link is its task */
	struct loop *loop;
	const char *room;
	void (*cb)(void *arg);
	void *arg;
};

struct loop_wake {
	struct loop *loop;
	const char *room;
	void (*cb)(void *arg);
	void *arg;
	int fd;
	atomic_bool signalled;
	struct event *event;
};

struct loop_signal {
	struct loop *loop;
	void (*cb)(void *arg, int signo);
	void *arg;
	struct event *event;
};

const uint32_t loop_slice_bounds_us[LOOP_SLICE_BOUNDS] = { 100, 250, 500, 1000, 2000, 5000, 10000, 25000, 50000,
	100000, 500000, 2000000 };

/* libevent's own objects obey mem.h too; what else can fail here is a system out of descriptors at start. */
static pthread_once_t libevent_once = PTHREAD_ONCE_INIT;

/* Its words are for who looks into the loop: what fails is also told to who asked. */
static void on_libevent_log(int severity, const char *text)
{
	log_write(severity == EVENT_LOG_ERR ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, "loop", NULL, "libevent: %s", text);
}

static void set_up_libevent(void)
{
	event_set_mem_functions(mem_alloc, mem_realloc, free);
	event_set_log_callback(on_libevent_log);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "dmsr: %s: %s\n", what, strerror(errno));
	abort();
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static struct event *new_event(struct loop *l, int fd, short what, event_callback_fn fn, void *arg)
{
	struct event *ev = event_new(l->base, fd, what, fn, arg);
	must(ev, "event_new");
	return ev;
}

struct loop *loop_new(void)
{
	pthread_once(&libevent_once, set_up_libevent);
	struct loop *l = mem_zalloc(sizeof *l);
	l->posted.prev = l->posted.next = &l->posted;
	struct event_config *config = event_config_new();
	must(config, "event_config_new");
	/* Else a timer of 1 ms takes up to 8: the clock is coarse and the wait is in whole milliseconds. */
	event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
	l->base = event_base_new_with_config(config);
	event_config_free(config);
	must(l->base, "event_base_new");
	return l;
}

uint64_t loop_now_us(struct loop *l)
{
	(void)l;
	return now_ns() / 1000;
}

int64_t wall_now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

struct event_base *loop_event_base(struct loop *l) { return l->base; }

struct loop_slice loop_slice_begin(void) { return (struct loop_slice){ now_ns(), clock_ns(CLOCK_THREAD_CPUTIME_ID) }; }

static void count_slice(struct loop_slices *s, const char *room, uint64_t us)
{
	int i = 0;
	while (i < LOOP_SLICE_BOUNDS && us >= loop_slice_bounds_us[i])
		i++;
	s->count[i]++;
	s->total_us += us;
	s->n++;
	if (us > s->max_us) {
		s->max_us = us;
		s->max_room = room;
	}
}

void loop_slice_end(struct loop *l, const char *room, struct loop_slice begun)
{
	count_slice(&l->slices, room, (now_ns() - begun.wall_ns) / 1000);
	count_slice(&l->cpu_slices, room, (clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun.cpu_ns) / 1000);
}

void loop_slices(const struct loop *l, struct loop_slices *out) { *out = l->slices; }
void loop_cpu_slices(const struct loop *l, struct loop_slices *out) { *out = l->cpu_slices; }

static void unlink_from_list(struct link *k)
{
	if (!k->next)
		return;
	k->prev->next = k->next;
	k->next->prev = k->prev;
	k->prev = k->next = NULL;
}

/* Runs the tasks posted so far. They move to a list of this call, from which a task may take any other by cancelling it. */
static void run_tasks(struct loop *l)
{
	if (l->posted.next == &l->posted)
		return;
	struct link now = l->posted;
	now.next->prev = now.prev->next = &now;
	l->posted.prev = l->posted.next = &l->posted;
	while (now.next != &now) {
		struct loop_task *t = (struct loop_task *)now.next;
		const char *room = t->room;
		unlink_from_list(&t->link);
		struct loop_slice begun = loop_slice_begin();
		t->cb(t->arg);
		loop_slice_end(l, room, begun);
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	/* A cancelled question to the name servers is given back by a callback of libevent, and then a task. */
	event_base_loop(l->base, EVLOOP_NONBLOCK);
	run_tasks(l);
	assert(l->posted.next == &l->posted && "a task outlives its loop");
	event_base_free(l->base);
	free(l);
}

void loop_run(struct loop *l)
{
	while (!l->stop) {
		run_tasks(l);
		if (l->stop)
			break;
		bool more = l->posted.next != &l->posted;
		int rc = event_base_loop(l->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY | (more ? EVLOOP_NONBLOCK : 0));
		must(rc >= 0, "event_base_loop");
	}
	l->stop = false;
}

void loop_stop(struct loop *l) { l->stop = true; }

static void on_io(evutil_socket_t fd, short what, void *arg)
{
	struct loop_io *io = arg;
	struct loop *l = io->loop;
	const char *room = io->room;
	(void)fd;
	struct loop_slice begun = loop_slice_begin();
	io->cb(io->arg, what & EV_WRITE ? LOOP_WRITE : LOOP_READ);
	loop_slice_end(l, room, begun);
}

struct loop_io *loop_io_new(struct loop *l, const char *room, int fd, void (*cb)(void *arg, unsigned ready), void *arg)
{
	struct loop_io *io = mem_alloc(sizeof *io);
	*io = (struct loop_io){ .loop = l, .room = room, .cb = cb, .arg = arg };
	/* One event per direction: turning one on or off leaves the other alone, and costs one epoll_ctl. */
	io->read = new_event(l, fd, EV_READ | EV_PERSIST, on_io, io);
	io->write = new_event(l, fd, EV_WRITE | EV_PERSIST, on_io, io);
	return io;
}

void loop_io_want(struct loop_io *io, unsigned what)
{
	unsigned changed = io->want ^ what;
	if (changed & LOOP_READ)
		must(!(what & LOOP_READ ? event_add(io->read, NULL) : event_del(io->read)), "epoll");
	if (changed & LOOP_WRITE)
		must(!(what & LOOP_WRITE ? event_add(io->write, NULL) : event_del(io->write)), "epoll");
	io->want = what;
}

void loop_io_free(struct loop_io *io)
{
	if (!io)
		return;
	event_free(io->read);
	event_free(io->write);
	free(io);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct loop_timer *t = arg;
	struct loop *l = t->loop;
	const char *room = t->room;
	(void)fd;
	(void)what;
	struct loop_slice begun = loop_slice_begin();
	t->cb(t->arg);
	loop_slice_end(l, room, begun);
}

struct loop_timer *loop_timer_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg)
{
	struct loop_timer *t = mem_alloc(sizeof *t);
	*t = (struct loop_timer){ .loop = l, .room = room, .cb = cb, .arg = arg };
	t->event = new_event(l, -1, 0, on_timer, t);
	return t;
}

void loop_timer_start_us(struct loop_timer *t, uint64_t after_us)
{
	struct timeval tv = { .tv_sec = (time_t)(after_us / 1000000), .tv_usec = (suseconds_t)(after_us % 1000000) };
	must(!event_add(t->event, &tv), "event_add");
}

void loop_timer_stop(struct loop_timer *t) { event_del(t->event); }

bool loop_timer_is_running(const struct loop_timer *t) { return event_pending(t->event, EV_TIMEOUT, NULL); }

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	event_free(t->event);
	free(t);
}

struct loop_task *loop_task_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg)
{
	struct loop_task *t = mem_alloc(sizeof *t);
	*t = (struct loop_task){ .loop = l, .room = room, .cb = cb, .arg = arg };
	return t;
}

void loop_task_post(struct loop_task *t)
{
	struct link *head = &t->loop->posted;
	if (t->link.next)
		return;
	t->link.prev = head->prev;
	t->link.next = head;
	head->prev->next = &t->link;
	head->prev = &t->link;
}

void loop_task_cancel(struct loop_task *t) { unlink_from_list(&t->link); }

void loop_task_free(struct loop_task *t)
{
	if (!t)
		return;
	loop_task_cancel(t);
	free(t);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct loop_wake *w = arg;
	struct loop *l = w->loop;
	const char *room = w->room;
	uint64_t count;
	(void)what;
	ssize_t n = read(fd, &count, sizeof count);
	(void)n; /* it may only be empty, and then there is nothing to take out */
	/* Before the callback: a signal from here on brings another call. */
	atomic_exchange(&w->signalled, false);
	struct loop_slice begun = loop_slice_begin();
	w->cb(w->arg);
	loop_slice_end(l, room, begun);
}

struct loop_wake *loop_wake_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg)
{
	struct loop_wake *w = mem_alloc(sizeof *w);
	*w = (struct loop_wake){ .loop = l, .room = room, .cb = cb, .arg = arg };
	w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(w->fd >= 0, "eventfd");
	w->event = new_event(l, w->fd, EV_READ | EV_PERSIST, on_wake, w);
	must(!event_add(w->event, NULL), "epoll");
	return w;
}

void loop_wake_signal(struct loop_wake *w)
{
	static const uint64_t one = 1;
	if (atomic_exchange(&w->signalled, true))
		return;
	ssize_t n = write(w->fd, &one, sizeof one);
	(void)n; /* 8 bytes into an eventfd that is far from its maximum */
}

void loop_wake_free(struct loop_wake *w)
{
	if (!w)
		return;
	event_free(w->event);
	close(w->fd);
	free(w);
}

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
	struct loop_signal *s = arg;
	struct loop *l = s->loop;
	(void)what;
	struct loop_slice begun = loop_slice_begin();
	s->cb(s->arg, signo);
	loop_slice_end(l, "signal", begun);
}

struct loop_signal *loop_signal_new(struct loop *l, int signo, void (*cb)(void *arg, int signo), void *arg)
{
	struct loop_signal *s = mem_alloc(sizeof *s);
	*s = (struct loop_signal){ .loop = l, .cb = cb, .arg = arg };
	s->event = new_event(l, signo, EV_SIGNAL | EV_PERSIST, on_signal, s);
	must(!event_add(s->event, NULL), "signal");
	return s;
}

void loop_signal_free(struct loop_signal *s)
{
	if (!s)
		return;
	event_free(s->event);
	free(s);
}
