/* metrics_jobs: dmsr_* per job. Samples of one family must stand together, so the jobs' numbers are copied first. */
#include "base/mem.h"
#include "engine/engine.h"
#include "http/metrics.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct copies {
	struct engine_job_metrics *jobs;
	size_t n, cap;
};

static void copy_job(void *arg, const struct engine_job_metrics *m)
{
	struct copies *c = arg;
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		c->jobs = mem_realloc_array(c->jobs, c->cap, sizeof *c->jobs);
	}
	struct engine_job_metrics *to = &c->jobs[c->n++];
	*to = *m;
	to->name = mem_strdup(m->name);
	to->state = mem_strdup(m->state);
	to->error_code = mem_strdup(m->error_code);
}

static void free_copies(struct copies *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free((char *)(uintptr_t)c->jobs[i].name);
		free((char *)(uintptr_t)c->jobs[i].state);
		free((char *)(uintptr_t)c->jobs[i].error_code);
	}
	free(c->jobs);
}

/* The plain ones: a field is a family. Negative: unknown, no sample. */
enum field_kind { FIELD_BOOL, FIELD_I64, FIELD_U64, FIELD_U32, FIELD_SECONDS, FIELD_US };
struct family {
	const char *name, *type;
	size_t offset;
	enum field_kind kind;
	const char *help;
};
#define FIELD(f) offsetof(struct engine_job_metrics, f)
static const struct family families[] = {
	{ "dmsr_source_connected", "gauge", FIELD(source_connected), FIELD_BOOL, "1: connected to the source." },
	{ "dmsr_streamer_connected", "gauge", FIELD(streamer_connected), FIELD_BOOL, "1: the job runs, and its streamer waits for nothing." },
	{ "dmsr_source_lag_seconds", "gauge", FIELD(lag_seconds), FIELD_SECONDS, "How old what was applied last is." },
	{ "dmsr_source_lag_bytes", "gauge", FIELD(lag_bytes), FIELD_I64, "What the source has written and is not confirmed, or not applied by a target." },
	{ "dmsr_source_retained_bytes", "gauge", FIELD(retained_bytes), FIELD_I64, "Log that the source keeps for this job." },
	{ "dmsr_source_safe_bytes", "gauge", FIELD(safe_bytes), FIELD_I64, "What is left before the source drops log that this job needs." },
	{ "dmsr_source_slot_lost", "gauge", FIELD(slot_lost), FIELD_I64, "1: the job's slot is gone or invalid; the job must be made anew." },
	{ "dmsr_source_bytes_total", "counter", FIELD(bytes), FIELD_U64, "Bytes read from the source." },
	{ "dmsr_source_transactions_total", "counter", FIELD(transactions), FIELD_U64, "Transactions read from the source." },
	{ "dmsr_last_event_timestamp_seconds", "gauge", FIELD(last_event_us), FIELD_US, "When the newest event was read." },
	{ "dmsr_last_checkpoint_timestamp_seconds", "gauge", FIELD(last_checkpoint_us), FIELD_US, "When a position was last made durable." },
	{ "dmsr_checkpoints_total", "counter", FIELD(checkpoints), FIELD_U64, "Positions made durable." },
	{ "dmsr_job_restarts_total", "counter", FIELD(retries), FIELD_U64, "How often the job was tried again." },
	{ "dmsr_dlq_records_total", "counter", FIELD(dead_letters), FIELD_U64, "Rows set aside." },
	{ "dmsr_queue_bytes", "gauge", FIELD(queue_bytes), FIELD_U64, "Bytes between source and targets, in memory." },
	{ "dmsr_queue_limit_bytes", "gauge", FIELD(queue_limit_bytes), FIELD_U64, "The most there may be." },
	{ "dmsr_queue_log_bytes", "gauge", FIELD(log_bytes), FIELD_U64, "Bytes between source and targets, in the state store's log." },
	{ "dmsr_backpressure_seconds_total", "counter", FIELD(backpressure_us), FIELD_US, "How long the source was paused because a target was slow." },
	{ "dmsr_snapshot_tables", "gauge", FIELD(tables_total), FIELD_U32, "Tables of the load." },
	{ "dmsr_snapshot_tables_loaded", "gauge", FIELD(tables_loaded), FIELD_U32, "Those that are loaded." },
	{ "dmsr_snapshot_builds_left", "gauge", FIELD(builds_left), FIELD_U64, "Keys, indexes and constraints still to be made after the load." },
	{ "dmsr_snapshot_rows_total", "counter", FIELD(load_rows), FIELD_U64, "Rows loaded." },
};

static double field_value(const struct family *f, const struct engine_job_metrics *m)
{
	const char *at = (const char *)m + f->offset;
	switch (f->kind) {
	case FIELD_BOOL: return *(const bool *)at;
	case FIELD_I64: return (double)*(const int64_t *)(const void *)at;
	case FIELD_U64: return (double)*(const uint64_t *)(const void *)at;
	case FIELD_U32: return *(const uint32_t *)(const void *)at;
	case FIELD_SECONDS: return *(const double *)(const void *)at;
	case FIELD_US: return (double)*(const int64_t *)(const void *)at / 1e6;
	}
	return -1;
}

static void put_plain(struct buf *b, const struct copies *c)
{
	for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
		metric_family(b, families[f].name, families[f].type, families[f].help);
		for (size_t i = 0; i < c->n; i++) {
			double v = field_value(&families[f], &c->jobs[i]);
			if (v >= 0)
				metric_sample(b, families[f].name, v, (const char *const[]){ "job", c->jobs[i].name, NULL });
		}
	}
}

static const char *const ops[] = { "insert", "update", "delete", "truncate", "read", "ddl" };

static void put_ops(struct buf *b, const struct copies *c, const char *name, size_t offset, const char *help)
{
	metric_family(b, name, "counter", help);
	for (size_t i = 0; i < c->n; i++) {
		const uint64_t *n = (const uint64_t *)(const void *)((const char *)&c->jobs[i] + offset);
		for (size_t op = 0; op < sizeof ops / sizeof *ops; op++)
			metric_sample(b, name, (double)n[op], (const char *const[]){ "job", c->jobs[i].name, "op", ops[op], NULL });
	}
}

static void put_states(struct buf *b, const struct copies *c)
{
	static const char *const states[] = { ENGINE_STATES };
	metric_family(b, "dmsr_job_state", "gauge", "1 for the state that the job is in.");
	for (size_t i = 0; i < c->n; i++) {
		const struct engine_job_metrics *m = &c->jobs[i];
		for (size_t s = 0; s < sizeof states / sizeof *states; s++)
			metric_sample(b, "dmsr_job_state", !strcmp(states[s], m->state), (const char *const[]){ "job", m->name, "state", states[s], NULL });
	}
	metric_family(b, "dmsr_job_error", "gauge", "1 for the error that the job has now.");
	for (size_t i = 0; i < c->n; i++)
		if (c->jobs[i].error_code && *c->jobs[i].error_code)
			metric_sample(b, "dmsr_job_error", 1, (const char *const[]){ "job", c->jobs[i].name, "code", c->jobs[i].error_code, NULL });
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */
/* Only when asked for: every table of every job is a line of its own, and a time series of its own in whatever reads them. */
static const struct { const char *part, *name, *help; } table_families[] = {
	{ "load", "dmsr_table_loaded_rows_total", "Rows loaded." },
	{ "captured", "dmsr_table_captured_total", "Changes read from the source." },
	{ "applied", "dmsr_table_applied_total", "Changes applied, summed over the targets." },
};

static void put_table(struct buf *b, size_t family, const char *job, const json_t *table)
{
	const char *schema = json_string_value(json_object_get(table, "schema")), *name = json_string_value(json_object_get(table, "name"));
	const json_t *part = json_object_get(table, table_families[family].part);
	if (!strcmp(table_families[family].part, "load")) {
		metric_sample(b, table_families[family].name, json_number_value(json_object_get(part, "rows")),
			(const char *const[]){ "job", job, "schema", schema, "table", name, NULL });
		return;
	}
	for (size_t op = 0; op < 4; op++)
		metric_sample(b, table_families[family].name, json_number_value(json_object_get(part, ops[op])),
			(const char *const[]){ "job", job, "schema", schema, "table", name, "op", ops[op], NULL });
}

static void put_tables(struct buf *b, struct engine *g, const struct copies *c)
{
	json_t **views = mem_zalloc(sizeof *views * (c->n + 1)), *table, *next;
	size_t t;
	for (size_t i = 0; i < c->n; i++) {
		views[i] = engine_job_tables(g, c->jobs[i].name, NULL, 0, &next);
		json_decref(next);
	}
	for (size_t f = 0; f < sizeof table_families / sizeof *table_families; f++) {
		metric_family(b, table_families[f].name, "counter", table_families[f].help);
		for (size_t i = 0; i < c->n; i++) {
			json_array_foreach(json_object_get(views[i], "items"), t, table)
			{
				put_table(b, f, c->jobs[i].name, table);
			}
		}
	}
	for (size_t i = 0; i < c->n; i++)
		json_decref(views[i]);
	free(views);
}

void metrics_jobs(struct buf *b, struct engine *g, bool per_table)
{
	struct copies c = { NULL, 0, 0 };
	engine_each_job(g, copy_job, &c);
	put_states(b, &c);
	put_plain(b, &c);
	put_ops(b, &c, "dmsr_source_events_total", FIELD(events), "Changes read from the source.");
	put_ops(b, &c, "dmsr_sink_events_total", FIELD(applied), "Changes applied, summed over the targets.");
	metric_family(b, "dmsr_end_to_end_latency_seconds", "histogram", "From commit at the source to applied at the target.");
	for (size_t i = 0; i < c.n; i++)
		metric_histogram(b, "dmsr_end_to_end_latency_seconds", &c.jobs[i].latency, (const char *const[]){ "job", c.jobs[i].name, NULL });
	if (per_table)
		put_tables(b, g, &c);
	free_copies(&c);
}
