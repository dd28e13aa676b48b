/* metrics: text in Prometheus' exposition format 0.0.4. */
#ifndef DMSR_HTTP_METRICS_H
#define DMSR_HTTP_METRICS_H
#include "base/buf.h"
#include "base/loop.h"

/* "# HELP" and "# TYPE" of a family: once, before its samples, which stand together. */
void metric_family(struct buf *b, const char *name, const char *type, const char *help);
/* labels: pairs of name and value, ends with NULL; values are escaped. */
void metric_sample(struct buf *b, const char *name, double value, const char *const *labels);
void metric_histogram(struct buf *b, const char *name, const struct loop_slices *s, const char *const *labels);
/* metrics_process.c: process_*, of /proc/self. */
void metrics_process(struct buf *b);
/* metrics_jobs.c: what the jobs' numbers are when it is made; put writes them until that time, true: all are written. */
struct engine;
struct metrics_jobs;
struct metrics_jobs *metrics_jobs_new(struct engine *g, bool per_table);
bool metrics_jobs_put(struct metrics_jobs *m, struct buf *b, struct loop *l, uint64_t until_us);
void metrics_jobs_free(struct metrics_jobs *m); /* NULL is fine */

#endif
