/* spool: runs of records that wait for their transaction's end: in memory up to a limit over all runs, then in one unlinked file of the scratch
 * directory. Records of a run come back in order, once. One owner, loop thread; file reads and writes are by 256 KiB at most. */
#ifndef DMSR_POSTGRES_SPOOL_H
#define DMSR_POSTGRES_SPOOL_H
#include "dmsr.h"

struct spool;
struct spool_run;
/* dir: borrowed as long as the spool lives; the file is made when it is first needed. disk_limit 0: none. */
struct spool *spool_new(const char *dir, size_t memory_limit, uint64_t disk_limit);
void spool_free(struct spool *s);               /* every run was freed before; NULL is fine */
uint64_t spool_memory(const struct spool *s);   /* bytes held in memory, by what was allocated */
uint64_t spool_disk(const struct spool *s);     /* bytes held in the file */

struct spool_run *spool_run_new(struct spool *s);
void spool_run_free(struct spool_run *r);       /* drops what was not read; NULL is fine */
/* Appends one record. DMSR_EIO ("disk.full" or "source.spool"), DMSR_EFULL ("source.spool") at the disk limit; the run is then good for free only. */
int spool_append(struct spool_run *r, const void *data, size_t len, struct err *e);
/* The next record, borrowed until the next call on the run: 1, 0 at the end, or DMSR_EIO. Nothing is appended once reading has begun. */
int spool_next(struct spool_run *r, const char **data, size_t *len, struct err *e);

#endif
