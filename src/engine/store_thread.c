/* store_thread: the one thread, the queue to it and the answers from it.
 *
 *     loop:   request_new -> store_send -> [in]                         [out] -> deliver: verb->answer, request_free
 *     thread:                              take all, run in order, make durable, hand back
 *
 * All that waited is one group: the logs are synced, then one COMMIT. An answer leaves only when all of its group is durable, also a read's: it may
 * have seen what the group wrote. When a group fails, all of it does, and so does everything after it; nothing is written any more. Between
 * groups the thread tidies in short slices. */
#include "store_file.h"
#include "store_int.h"
#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum {
	DELIVER_US = 1000,             /* then the loop has a turn */
	ROOM_LOOK_US = 3000000,
};

static void list_init(struct request_list *l) { *l = (struct request_list){ NULL, &l->first }; }

static void list_add(struct request_list *l, struct request *r)
{
	r->next = NULL;
	*l->last = r;
	l->last = &r->next;
}

/* All of from behind to. */
static void list_move(struct request_list *to, struct request_list *from)
{
	if (!from->first)
		return;
	*to->last = from->first;
	to->last = from->last;
	list_init(from);
}

static struct request *list_take(struct request_list *l)
{
	struct request *r = l->first;
	if (r && !(l->first = r->next))
		l->last = &l->first;
	return r;
}

/* ---- requests ---- */

void *request_new(struct store *s, const struct verb *verb, size_t size)
{
	struct request *r = mem_zalloc(size);
	r->store = s;
	r->verb = verb;
	r->bytes = size;
	arena_init(&r->arena, 512);
	return r;
}

void request_free(struct request *r)
{
	if (r->verb->fini)
		r->verb->fini(r);
	arena_fini(&r->arena);
	free(r->e);
	free(r);
}

void request_answer_done(struct request *r, const struct err *e)
{
	if (r->done)
		r->done(r->arg, e);
}

void *rows_add(struct arena *a, struct rows *rows, size_t size)
{
	if (rows->n == rows->cap) {
		rows->cap = rows->cap ? rows->cap * 2 : 16;
		void *at = arena_alloc(a, rows->cap * size);
		if (rows->n)
			memcpy(at, rows->at, rows->n * size);
		rows->at = at;
	}
	return (char *)rows->at + rows->n++ * size;
}

/* ---- the thread ---- */

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static bool is_broken(const struct store *s) { return s->is_broken || store_db_is_broken(s->db); }

static int injected(struct store *s, struct err *e)
{
	s->is_broken = true;
	return err_set(e, DMSR_EIO, "state.io", "cannot commit to %s: a failpoint says so", s->dir);
}

static int run_one(struct store *s, struct request *r, struct err *e)
{
	bool writes = r->verb->kind == VERB_WRITES;
	if (r->bytes > store_tune.record_bytes && writes)
		return err_set(e, DMSR_EFULL, "state.too-big", "%zu bytes are too many for one record of the state", r->bytes);
	int rc = writes ? store_db_begin(s->db, e) : 0;
	return rc ? rc : r->verb->run(s, r, e);
}

static void set_error(struct request *r, const struct err *e)
{
	if (!r->e)
		r->e = mem_alloc(sizeof *r->e);
	*r->e = *e;
}

static int make_durable(struct store *s, struct err *e)
{
	if (!store_db_in_transaction(s->db) && !store_log_is_dirty(s))
		return 0;
	uint64_t begun = now_us();
	if (failpoint("store.before-commit"))
		return injected(s, e);
	/* The logs first: what the database says of them must be true. */
	int rc = store_log_sync(s, e);
	if (rc)
		return rc;
	if (store_db_in_transaction(s->db)) {
		if (failpoint("store.between"))
			return injected(s, e);
		rc = store_log_promise(s, e);
		if (!rc)
			rc = store_db_commit(s->db, e);
		if (rc)
			return rc;
	}
	if (failpoint("store.after-commit"))
		return injected(s, e);
	uint64_t us = now_us() - begun;
	pthread_mutex_lock(&s->q->mutex);
	struct store_stat *stat = &s->q->stat;
	stat->commits++;
	stat->commit_us_total += us;
	stat->commit_us_max = us > stat->commit_us_max ? us : stat->commit_us_max;
	stat->last_commit_us = s->now_us();
	pthread_mutex_unlock(&s->q->mutex);
	return 0;
}

static int run_all(struct store *s, struct request *first, struct err *e)
{
	for (struct request *r = first; r; r = r->next) {
		r->was_run = true;
		if (!run_one(s, r, e))
			continue;
		if (is_broken(s))
			return e->code;
		set_error(r, e); /* refused alone */
	}
	int rc = make_durable(s, e);
	for (struct request *r = first; r && !rc; r = r->next)
		if (r->verb->committed && !r->e)
			r->verb->committed(s, r);
	return rc;
}

static void fail(struct store *s, const struct err *e)
{
	s->is_broken = true;
	s->room_looked_us = now_us();
	store_db_rollback(s->db);
	pthread_mutex_lock(&s->q->mutex);
	s->q->has_failed = true;
	s->q->failure = *e;
	pthread_mutex_unlock(&s->q->mutex);
}

/* None of a group that failed is confirmed; what ends something is done all the same. */
static void fail_all(struct store *s, struct request *first)
{
	for (struct request *r = first; r; r = r->next) {
		set_error(r, &s->q->failure);
		if (r->verb->always && !r->was_run)
			r->verb->run(s, r, r->e);
	}
}

static void run_group(struct store *s, struct request_list *group)
{
	struct err e = { 0 };
	if (!is_broken(s) && run_all(s, group->first, &e))
		fail(s, &e);
	if (is_broken(s))
		fail_all(s, group->first);
}

static void hand_back(struct store *s, struct request_list *group)
{
	struct store_queue *q = s->q;
	pthread_mutex_lock(&q->mutex);
	for (struct request *r; (r = list_take(group));) {
		q->stat.queued--;
		q->stat.queued_bytes -= r->bytes;
		q->stat.errors += r->e != NULL;
		q->stat.writes += r->verb->kind != VERB_READS && !r->e;
		if (r->is_waited_for)
			r->is_finished = true;
		else
			list_add(&q->out, r);
	}
	pthread_cond_broadcast(&q->answered);
	pthread_mutex_unlock(&q->mutex);
	loop_wake_signal(s->wake);
}

/* One slice; true: there is more. */
static bool tidy(struct store *s)
{
	struct err e = { 0 };
	bool more = false;
	if (is_broken(s))
		return false;
	if (!store_log_tidy(s, &more, &e) && !store_db_tidy(s->db, &more, &e))
		return more;
	fail(s, &e);
	loop_wake_signal(s->wake);
	return false;
}

/* Only then does it help to look for room. The thread alone writes what is asked here. */
static bool is_full(const struct store *s) { return s->q->has_failed && !strcmp(s->q->failure.id, "state.full"); }

/* Now and then. Another process may take the room again: that is found out as this was. */
static void look_for_room(struct store *s)
{
	if (!is_full(s) || now_us() < s->room_looked_us + ROOM_LOOK_US)
		return;
	bool has = store_file_has_room(s->dir);
	s->room_looked_us = now_us();
	pthread_mutex_lock(&s->q->mutex);
	s->q->has_room = has;
	pthread_mutex_unlock(&s->q->mutex);
}

/* Under the mutex. A store that is full waits until it is to look for room. false: nobody called. */
static bool wait_for_work(struct store *s)
{
	struct store_queue *q = s->q;
	uint64_t due = s->room_looked_us + ROOM_LOOK_US;
	if (!is_full(s))
		return !pthread_cond_wait(&q->wanted, &q->mutex);
	struct timespec until = { .tv_sec = (time_t)(due / 1000000), .tv_nsec = (long)(due % 1000000 * 1000) };
	return !pthread_cond_clockwait(&q->wanted, &q->mutex, CLOCK_MONOTONIC, &until);
}

/* Waits unless there is work of its own. false: closing, and nothing is left. */
static bool take_group(struct store *s, bool more, struct request_list *group)
{
	struct store_queue *q = s->q;
	pthread_mutex_lock(&q->mutex);
	while (!q->in.first && !q->closing && !more && wait_for_work(s))
		;
	bool goes_on = q->in.first || !q->closing;
	list_move(group, &q->in);
	pthread_mutex_unlock(&q->mutex);
	return goes_on;
}

static void *thread_main(void *arg)
{
	struct store *s = arg;
	struct request_list group;
	list_init(&group);
	for (bool more = true; take_group(s, more, &group);) {
		if (group.first) {
			run_group(s, &group);
			hand_back(s, &group);
		}
		look_for_room(s);
		more = tidy(s);
	}
	return NULL;
}

/* ---- the loop ---- */

void store_send(struct store *s, void *request)
{
	struct request *r = request;
	struct store_queue *q = s->q;
	r->bytes += r->arena.bytes;
	pthread_mutex_lock(&q->mutex);
	bool is_first = !q->in.first;
	list_add(&q->in, r);
	q->stat.queued++;
	q->stat.queued_bytes += r->bytes;
	if (is_first)
		pthread_cond_signal(&q->wanted);
	pthread_mutex_unlock(&q->mutex);
}

int store_wait(struct store *s, void *request, struct err *e)
{
	struct request *r = request;
	r->is_waited_for = true;
	store_send(s, r);
	pthread_mutex_lock(&s->q->mutex);
	while (!r->is_finished)
		pthread_cond_wait(&s->q->answered, &s->q->mutex);
	pthread_mutex_unlock(&s->q->mutex);
	if (r->e && e)
		*e = *r->e;
	return r->e ? r->e->code : 0;
}

static void tell_failure(struct store *s)
{
	pthread_mutex_lock(&s->q->mutex);
	bool has_failed = s->q->has_failed;
	pthread_mutex_unlock(&s->q->mutex);
	if (!has_failed || s->is_told)
		return;
	s->is_told = true;
	if (s->on_failed)
		s->on_failed(s->arg, &s->q->failure);
}

static bool deliver_one(struct store *s)
{
	struct request *r = list_take(&s->ready);
	if (!r)
		return false;
	if (r->verb->answer)
		r->verb->answer(r, r->e);
	request_free(r);
	return true;
}

static void on_answers(void *arg)
{
	struct store *s = arg;
	pthread_mutex_lock(&s->q->mutex);
	list_move(&s->ready, &s->q->out);
	pthread_mutex_unlock(&s->q->mutex);
	tell_failure(s);
	uint64_t until = now_us() + DELIVER_US;
	while (deliver_one(s)) {
		if (now_us() < until || !s->ready.first)
			continue;
		loop_task_post(s->more);
		return;
	}
}

bool store_has_room(const struct store *s)
{
	pthread_mutex_lock(&s->q->mutex);
	bool has = s->q->has_room;
	pthread_mutex_unlock(&s->q->mutex);
	return has;
}

void store_thread_start(struct store *s)
{
	struct store_queue *q = s->q;
	pthread_mutex_init(&q->mutex, NULL);
	pthread_cond_init(&q->wanted, NULL);
	pthread_cond_init(&q->answered, NULL);
	list_init(&q->in);
	list_init(&q->out);
	list_init(&s->ready);
	s->wake = loop_wake_new(s->loop, "store", on_answers, s);
	s->more = loop_task_new(s->loop, "store", on_answers, s);
	/* Signals are the loop's. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int rc = pthread_create(&s->thread, NULL, thread_main, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		abort(); /* as memory does: nothing goes without it, and nothing is lost */
	pthread_setname_np(s->thread, "dmsr-store");
}

void store_thread_end(struct store *s)
{
	struct store_queue *q = s->q;
	pthread_mutex_lock(&q->mutex);
	q->closing = true;
	pthread_cond_signal(&q->wanted);
	pthread_mutex_unlock(&q->mutex);
	pthread_join(s->thread, NULL);
	/* The last callbacks may ask for more. */
	struct request_list group;
	list_init(&group);
	do {
		list_move(&group, &q->in);
		if (group.first) {
			run_group(s, &group);
			hand_back(s, &group);
		}
		list_move(&s->ready, &q->out);
		tell_failure(s);
		while (deliver_one(s))
			;
	} while (q->in.first);
	loop_wake_free(s->wake);
	loop_task_free(s->more);
	pthread_cond_destroy(&q->wanted);
	pthread_cond_destroy(&q->answered);
	pthread_mutex_destroy(&q->mutex);
}
