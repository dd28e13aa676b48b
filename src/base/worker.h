/* worker: one thread that makes the calls that block (fsync, a pipe that is full), for one owner on the loop.
 *
 * A job's arg is handed over: run(arg) has it on the thread, then done(arg) on the loop. Jobs run one after another, in the order they were posted; their
 * answers come in that order. What run needs must be in arg or belong to the thread alone. */
#ifndef DMSR_BASE_WORKER_H
#define DMSR_BASE_WORKER_H
#include "loop.h"
#pragma GCC visibility push(default)

struct worker;
struct worker_job {
	void (*run)(void *arg);         /* on the thread */
	void (*done)(void *arg);        /* on the loop, never inside worker_post */
	void (*drop)(void *arg);        /* instead of done, when the worker was freed before: gives arg back; on either thread */
	void *arg;
};
struct worker *worker_new(struct loop *l, const char *room);
void worker_post(struct worker *w, const struct worker_job *job);
/* Does not wait for a call that is under way. That job is finished, the others are dropped, then fini(arg), if there is one, ends what belonged to
 * the thread, on the thread; when nothing was under way that is over when this returns. Nothing is done() any more. Allowed inside done. NULL is fine
 * (and calls nothing). */
void worker_free(struct worker *w, void (*fini)(void *arg), void *arg);
/* The same, where fini may take long: it is not waited for, either. */
void worker_leave(struct worker *w, void (*fini)(void *arg), void *arg);
/* Before main returns: waits until the threads that nobody waits for are done, for so long at most (a library's thread must not run while exit takes
 * that library down). False: some are not. */
bool worker_wait_left(unsigned ms);
/* For a run that takes long: was the worker freed? */
bool worker_is_leaving(struct worker *w);

#pragma GCC visibility pop
#endif
