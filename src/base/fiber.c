/* fiber: a function on a stack of its own, switched in by the loop's callbacks and out by fiber_wait.
 *
 *   created -> running <-> waiting -> done        (running: only while the loop's callback stands in resume())
 */
#include "base/fiber.h"
#include "base/mem.h"
#include "base/sanitizer.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef DMSR_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef DMSR_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum fiber_state {
	FIBER_CREATED, /* fn was not entered yet */
	FIBER_RUNNING,
	FIBER_WAITING, /* in fiber_wait or fiber_breathe */
	FIBER_DONE,    /* fn returned */
};

struct fiber {
	struct loop *loop;
	const char *room;
	enum fiber_state state;
	bool cancelled;
	void (*fn)(void *arg);
	void *arg;
	struct loop_task *start;
	struct loop_timer *timeout;
	unsigned ready;       /* what the wait in progress is answered with */
	uint64_t resumed_us;
	char *map;            /* guard page, then the stack */
	size_t map_bytes, guard_bytes;
	ucontext_t here, back;
#ifdef DMSR_ASAN
	void *fake_here, *fake_back;
	const void *back_bottom;
	size_t back_bytes;
#endif
#ifdef DMSR_TSAN
	void *tsan_here, *tsan_back;
#endif
};

static struct fiber *current;

struct fiber *fiber_current(void) { return current; }
bool fiber_is_done(const struct fiber *f) { return f->state == FIBER_DONE; }
bool fiber_is_cancelled(const struct fiber *f) { return f->cancelled; }

static void enter(struct fiber *f)
{
#ifdef DMSR_ASAN
	__sanitizer_start_switch_fiber(&f->fake_back, f->map + f->guard_bytes, f->map_bytes - f->guard_bytes);
#endif
#ifdef DMSR_TSAN
	f->tsan_back = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(f->tsan_here, 0);
#endif
	swapcontext(&f->back, &f->here);
#ifdef DMSR_ASAN
	__sanitizer_finish_switch_fiber(f->fake_back, NULL, NULL);
#endif
}

static void leave(struct fiber *f)
{
#ifdef DMSR_ASAN
	bool for_good = f->state == FIBER_DONE;
	__sanitizer_start_switch_fiber(for_good ? NULL : &f->fake_here, f->back_bottom, f->back_bytes);
#endif
#ifdef DMSR_TSAN
	__tsan_switch_to_fiber(f->tsan_back, 0);
#endif
	swapcontext(&f->here, &f->back);
#ifdef DMSR_ASAN
	__sanitizer_finish_switch_fiber(f->fake_here, &f->back_bottom, &f->back_bytes);
#endif
}

static void first_frame(void)
{
	struct fiber *f = current;
#ifdef DMSR_ASAN
	__sanitizer_finish_switch_fiber(NULL, &f->back_bottom, &f->back_bytes);
#endif
	f->fn(f->arg);
	f->state = FIBER_DONE;
	leave(f);
	abort(); /* nobody enters a fiber that is done */
}

/* From a callback of the loop: runs the fiber until it waits or is done. */
static void resume(struct fiber *f)
{
	assert(!current && (f->state == FIBER_CREATED || f->state == FIBER_WAITING));
	f->state = FIBER_RUNNING;
	f->resumed_us = loop_now_us(f->loop);
	current = f;
	enter(f);
	current = NULL;
}

static void on_task(void *arg) { resume(arg); }

static void on_timeout(void *arg)
{
	struct fiber *f = arg;
	loop_task_cancel(f->start);
	resume(f);
}

static void on_ready(void *arg, unsigned ready)
{
	struct fiber *f = arg;
	f->ready = ready;
	loop_task_cancel(f->start);
	resume(f);
}

static void set_up_stack(struct fiber *f, size_t stack_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	f->guard_bytes = page;
	f->map_bytes = page + (stack_bytes + page - 1) / page * page;
	f->map = mmap(NULL, f->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (f->map == MAP_FAILED || mprotect(f->map, page, PROT_NONE))
		abort();
	getcontext(&f->here);
	f->here.uc_stack.ss_sp = f->map + page;
	f->here.uc_stack.ss_size = f->map_bytes - page;
	f->here.uc_link = NULL;
	makecontext(&f->here, first_frame, 0);
}

struct fiber *fiber_new(struct loop *l, const char *room, size_t stack_bytes, void (*fn)(void *arg), void *arg)
{
	struct fiber *f = mem_zalloc(sizeof *f);
	f->loop = l;
	f->room = room;
	f->fn = fn;
	f->arg = arg;
	set_up_stack(f, stack_bytes);
#ifdef DMSR_TSAN
	f->tsan_here = __tsan_create_fiber(0);
#endif
	f->start = loop_task_new(l, room, on_task, f);
	f->timeout = loop_timer_new(l, room, on_timeout, f);
	loop_task_post(f->start);
	return f;
}

void fiber_free(struct fiber *f)
{
	if (!f)
		return;
	assert(f->state == FIBER_DONE || f->state == FIBER_CREATED);
#ifdef DMSR_TSAN
	__tsan_destroy_fiber(f->tsan_here);
#endif
	loop_task_free(f->start);
	loop_timer_free(f->timeout);
	munmap(f->map, f->map_bytes);
	free(f);
}

static void yield_to_loop(struct fiber *f)
{
	f->state = FIBER_WAITING;
	leave(f);
}

unsigned fiber_wait(int fd, unsigned what, int64_t timeout_ms)
{
	struct fiber *f = current;
	assert(f);
	if (f->cancelled)
		return 0;
	/* Made anew each time: a library may close its descriptor and get the same number again. */
	struct loop_io *io = fd >= 0 && what ? loop_io_new(f->loop, f->room, fd, on_ready, f) : NULL;
	f->ready = 0;
	if (io)
		loop_io_want(io, what);
	if (timeout_ms >= 0)
		loop_timer_start(f->timeout, (uint64_t)timeout_ms);
	yield_to_loop(f);
	loop_timer_stop(f->timeout);
	loop_io_free(io);
	return f->cancelled ? 0 : f->ready;
}

void fiber_breathe(uint64_t budget_us)
{
	struct fiber *f = current;
	assert(f);
	if (loop_now_us(f->loop) - f->resumed_us < budget_us)
		return;
	loop_task_post(f->start);
	yield_to_loop(f);
}

void fiber_cancel(struct fiber *f)
{
	if (f->cancelled)
		return;
	f->cancelled = true;
	/* Not entered from here: the caller's stack is not the loop's. */
	if (f->state == FIBER_WAITING)
		loop_task_post(f->start);
}
