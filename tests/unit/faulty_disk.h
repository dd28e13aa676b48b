/* faulty_disk: a disk that fails, kills us, or loses its power at a call that changes a file, as the test says.
 *
 * The calls are interposed: a program that links this has its own pwrite, fsync ... before the C library's, also for SQLite. A power cut undoes what was not
 * synced (all of it, or a part by chance: a disk writes in any order), names of files included, and ends the process. */
#ifndef DMSR_TESTS_UNIT_FAULTY_DISK_H
#define DMSR_TESTS_UNIT_FAULTY_DISK_H
#include <stdbool.h>

enum fault { FAULT_NONE, FAULT_ERROR, FAULT_KILL, FAULT_CUT, FAULT_CUT_IN_PART };
enum { FAULT_EXIT = 42 };       /* the status of a process that ended so */

/* From now on call number `at` (from 1) of those that change something below dir is hit. error: errno, for FAULT_ERROR. Before a fork. */
void faulty_disk_begin(const char *dir, enum fault what, long at, int error);
void faulty_disk_rest(void);    /* nothing is watched any more */
void faulty_disk_end(void);     /* and what was kept for the undoing goes */
long faulty_disk_calls(void);   /* seen so far */
bool faulty_disk_was_hit(void);
_Noreturn void faulty_disk_cut(void);   /* now */

#endif
