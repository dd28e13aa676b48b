/* fiber: runs a library's blocking calls on the loop (for a MySQL connector, which is not there yet: MARIADB_OPT_IO_WAIT). One fiber per
 * connection, its own guarded stack; it yields where the library would block. Everything runs on the loop's thread. */
#ifndef DMSR_BASE_FIBER_H
#define DMSR_BASE_FIBER_H
#include "loop.h"
#pragma GCC visibility push(default)

struct fiber;
/* fn starts at the next turn of the loop. stack_bytes is rounded up to pages; a guard page makes an overflow a SEGV. */
struct fiber *fiber_new(struct loop *l, const char *room, size_t stack_bytes, void (*fn)(void *arg), void *arg);
void fiber_free(struct fiber *f);                 /* only when done or never started; NULL is fine */
bool fiber_is_done(const struct fiber *f);
/* Inside a fiber: wait for the descriptor or the time (timeout_ms < 0: for ever). Returns LOOP_READ / LOOP_WRITE bits, 0 on
 * time-out or cancel. */
unsigned fiber_wait(int fd, unsigned what, int64_t timeout_ms);
/* Inside a fiber: give the loop a turn if this slice has run longer than budget_us. */
void fiber_breathe(uint64_t budget_us);
/* From outside: the wait in progress, and every later one, returns 0 at once. The function then unwinds by itself. */
void fiber_cancel(struct fiber *f);
bool fiber_is_cancelled(const struct fiber *f);
struct fiber *fiber_current(void);                /* NULL outside of any */

#pragma GCC visibility pop
#endif
