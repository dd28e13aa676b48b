/* metrics_jobs: dmsr_* per job. Samples of one family must stand together, so the jobs' numbers are copied first, all at
 * the same time, and written a part at a time: there may be a thousand jobs. */
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

static void put_plain(struct buf *b, const struct family *f, const struct engine_job_metrics *m)
{
	double v = field_value(f, m);
	if (v >= 0)
		metric_sample(b, f->name, v, (const char *const[]){ "job", m->name, NULL });
}

static const char *const ops[] = { "insert", "update", "delete", "truncate", "read", "ddl" };

static void put_ops(struct buf *b, const char *name, const uint64_t *n, const char *job)
{
	for (size_t op = 0; op < sizeof ops / sizeof *ops; op++)
		metric_sample(b, name, (double)n[op], (const char *const[]){ "job", job, "op", ops[op], NULL });
}

static void put_state(struct buf *b, const struct engine_job_metrics *m)
{
	static const char *const states[] = { ENGINE_STATES };
	for (size_t s = 0; s < sizeof states / sizeof *states; s++)
		metric_sample(b, "dmsr_job_state", !strcmp(states[s], m->state), (const char *const[]){ "job", m->name, "state", states[s], NULL });
}

static void put_error(struct buf *b, const struct engine_job_metrics *m)
{
	if (m->error_code && *m->error_code)
		metric_sample(b, "dmsr_job_error", 1, (const char *const[]){ "job", m->name, "code", m->error_code, NULL });
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

static void put_tables(struct buf *b, size_t family, const char *job, const json_t *view)
{
	const json_t *table;
	size_t t;
	json_array_foreach(json_object_get(view, "items"), t, table)
	{
		put_table(b, family, job, table);
	}
}

/* ---- in parts ---------------------------------------------------------------------------------------------------- */
enum { NPLAIN = sizeof families / sizeof *families, NTABLE = sizeof table_families / sizeof *table_families };
enum part { PART_STATE, PART_ERROR, PART_PLAIN, PART_EVENTS = PART_PLAIN + NPLAIN, PART_APPLIED, PART_LATENCY, PART_VIEWS, PART_TABLES,
	PARTS = PART_TABLES + NTABLE };

struct metrics_jobs {
	struct engine *engine;
	struct copies c;
	json_t **views;                 /* of each job's tables */
	unsigned parts, part;           /* so many there are; what is written now */
	size_t at;                      /* of its jobs, the next */
	unsigned nput;
};

struct metrics_jobs *metrics_jobs_new(struct engine *g, bool per_table)
{
	struct metrics_jobs *m = mem_zalloc(sizeof *m);
	*m = (struct metrics_jobs){ .engine = g, .parts = per_table ? PARTS : PART_VIEWS };
	engine_each_job(g, copy_job, &m->c);
	if (per_table)
		m->views = mem_zalloc(sizeof(json_t *) * (m->c.n + 1));
	return m;
}

void metrics_jobs_free(struct metrics_jobs *m)
{
	if (!m)
		return;
	for (size_t i = 0; m->views && i < m->c.n; i++)
		json_decref(m->views[i]);
	free(m->views);
	free_copies(&m->c);
	free(m);
}

static void put_head(struct buf *b, unsigned part)
{
	if (part == PART_STATE)
		metric_family(b, "dmsr_job_state", "gauge", "1 for the state that the job is in.");
	else if (part == PART_ERROR)
		metric_family(b, "dmsr_job_error", "gauge", "1 for the error that the job has now.");
	else if (part < PART_EVENTS)
		metric_family(b, families[part - PART_PLAIN].name, families[part - PART_PLAIN].type, families[part - PART_PLAIN].help);
	else if (part == PART_EVENTS)
		metric_family(b, "dmsr_source_events_total", "counter", "Changes read from the source.");
	else if (part == PART_APPLIED)
		metric_family(b, "dmsr_sink_events_total", "counter", "Changes applied, summed over the targets.");
	else if (part == PART_LATENCY)
		metric_family(b, "dmsr_end_to_end_latency_seconds", "histogram", "From commit at the source to applied at the target.");
	else if (part >= PART_TABLES)
		metric_family(b, table_families[part - PART_TABLES].name, "counter", table_families[part - PART_TABLES].help);
}

static void put_job(struct metrics_jobs *m, struct buf *b)
{
	const struct engine_job_metrics *job = &m->c.jobs[m->at];
	const unsigned part = m->part;
	json_t *next = NULL;
	if (part == PART_STATE) {
		put_state(b, job);
	} else if (part == PART_ERROR) {
		put_error(b, job);
	} else if (part < PART_EVENTS) {
		put_plain(b, &families[part - PART_PLAIN], job);
	} else if (part == PART_EVENTS) {
		put_ops(b, "dmsr_source_events_total", job->events, job->name);
	} else if (part == PART_APPLIED) {
		put_ops(b, "dmsr_sink_events_total", job->applied, job->name);
	} else if (part == PART_LATENCY) {
		metric_histogram(b, "dmsr_end_to_end_latency_seconds", &job->latency, (const char *const[]){ "job", job->name, NULL });
	} else if (part == PART_VIEWS) {
		m->views[m->at] = engine_job_tables(m->engine, job->name, NULL, 0, &next); /* NULL: it is gone by now */
		json_decref(next);
	} else {
		put_tables(b, part - PART_TABLES, job->name, m->views[m->at]);
	}
}

bool metrics_jobs_put(struct metrics_jobs *m, struct buf *b, struct loop *l, uint64_t until_us)
{
	enum { LOOK_EVERY = 8 };
	for (; m->part < m->parts; m->part++, m->at = 0) {
		if (!m->at)
			put_head(b, m->part);
		while (m->at < m->c.n) {
			put_job(m, b);
			m->at++;
			if (++m->nput % LOOK_EVERY == 0 && loop_now_us(l) >= until_us)
				return false;
		}
	}
	return true;
}
