/* failpoint: places where a test kills or fails us. DMSR_FAILPOINT=name[:N][:action][,...]: at the Nth passing (default 1) of `name` the
 * process kills itself with SIGKILL (action kill, default), or failpoint() returns true (action fail: the caller behaves as if the
 * call behind it had failed). Without the variable a passing costs one load and a branch. HACKING says how to list them; tests/it passes each. */
#ifndef DMSR_BASE_FAILPOINT_H
#define DMSR_BASE_FAILPOINT_H
#include <stdbool.h>
#pragma GCC visibility push(default)

extern bool failpoint_armed;
void failpoint_init(void);                        /* reads the environment; call once, first thing in main */
bool failpoint_hit(const char *name);
static inline bool failpoint(const char *name) { return failpoint_armed && failpoint_hit(name); }

#pragma GCC visibility pop
#endif
