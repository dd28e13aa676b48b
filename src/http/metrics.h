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
/* metrics_jobs.c */
struct engine;
void metrics_jobs(struct buf *b, struct engine *g, bool per_table);

#endif
