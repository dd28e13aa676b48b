/* loop: the one event loop. This room alone includes event2.
 *
 * All callbacks run on the thread in loop_run. Each callback's time is put into a histogram, under the name of its room,
 * so that a slice that is too long can be found (loop_slices). A handle may be freed inside its own callback. */
#ifndef DMSR_BASE_LOOP_H
#define DMSR_BASE_LOOP_H
#include "err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#pragma GCC visibility push(default)

struct loop;
struct loop *loop_new(void);
void loop_free(struct loop *l);          /* every handle was freed before; NULL is fine */
void loop_run(struct loop *l);           /* until loop_stop */
void loop_stop(struct loop *l);
uint64_t loop_now_us(struct loop *l);    /* monotonic, read afresh */
int64_t wall_now_us(void);               /* microseconds since 1970-01-01 UTC */

/* A descriptor. `what` says what is waited for; changing it is cheap. Level-triggered. The descriptor stays the caller's. */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
struct loop_io;
struct loop_io *loop_io_new(struct loop *l, const char *room, int fd, void (*cb)(void *arg, unsigned ready), void *arg);
void loop_io_want(struct loop_io *io, unsigned what); /* LOOP_READ | LOOP_WRITE, 0 = nothing */
void loop_io_free(struct loop_io *io);                /* NULL is fine */

/* A one-shot timer; starting it again moves it. */
struct loop_timer;
struct loop_timer *loop_timer_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg);
void loop_timer_start_us(struct loop_timer *t, uint64_t after_us);
static inline void loop_timer_start(struct loop_timer *t, uint64_t after_ms) { loop_timer_start_us(t, after_ms * 1000); }
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_is_running(const struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);           /* NULL is fine */

/* Work for the next turn: how a long job breathes, and how a callback avoids calling back up its own stack. Posting twice
 * runs it once. */
struct loop_task;
struct loop_task *loop_task_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg);
void loop_task_post(struct loop_task *t);
void loop_task_cancel(struct loop_task *t);
void loop_task_free(struct loop_task *t);             /* cancels; NULL is fine */

/* The only thing another thread may touch: loop_wake_signal. Signals in one turn come as one call. */
struct loop_wake;
struct loop_wake *loop_wake_new(struct loop *l, const char *room, void (*cb)(void *arg), void *arg);
void loop_wake_signal(struct loop_wake *w);
void loop_wake_free(struct loop_wake *w);

struct loop_signal;
struct loop_signal *loop_signal_new(struct loop *l, int signo, void (*cb)(void *arg, int signo), void *arg);
void loop_signal_free(struct loop_signal *s);

/* Names to addresses without blocking (/etc/hosts and the servers of /etc/resolv.conf; numeric addresses at once, but never
 * inside the call). Calls back exactly once unless cancelled; addrs is borrowed during the call; 0 addresses with e set on
 * failure (e->retriable tells an unanswered question from an unknown name). */
struct loop_resolve;
struct loop_resolve *loop_resolve_start(struct loop *l, const char *host, int port,
	void (*cb)(void *arg, const struct sockaddr_storage *addrs, int n, const struct err *e), void *arg);
void loop_resolve_cancel(struct loop_resolve *r);     /* before its callback only; NULL is fine */

/* How long callbacks took, since start: counts of slices below each bound (last: all above) and, per room, the longest. */
enum { LOOP_SLICE_BOUNDS = 12 };
extern const uint32_t loop_slice_bounds_us[LOOP_SLICE_BOUNDS]; /* 100 250 500 1000 2000 5000 10000 25000 50000 100000 500000 2000000 */
struct loop_slices {
	uint64_t count[LOOP_SLICE_BOUNDS + 1];
	uint64_t total_us, n;
	uint64_t max_us;
	const char *max_room;
};
void loop_slices(const struct loop *l, struct loop_slices *out);
/* The same, of the processor's time alone: what else runs on the machine, and what a callback waits for, is not in it. */
void loop_cpu_slices(const struct loop *l, struct loop_slices *out);

#pragma GCC visibility pop
#endif
