/* engine_view: what is, as the JSON of the API (dmsr-api(7)). Reads jobs and their runs; changes nothing. */
#include "engine_int.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- small things ---- */

json_t *view_time(int64_t us)
{
	char text[48];
	struct tm tm;
	time_t s = (time_t)(us / 1000000);
	if (us <= 0 || !gmtime_r(&s, &tm))
		return json_null();
	size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof text - n, ".%03dZ", (int)(us / 1000 % 1000));
	return json_string(text);
}

static json_t *position_json(const struct position *p)
{
	char text[POSITION_TEXT_MAX];
	return position_is_none(p) ? json_null() : json_string(position_format(p, text));
}

json_t *view_known(int64_t v) { return v < 0 ? json_null() : json_integer(v); }
static json_t *known_seconds(double v) { return v < 0 ? json_null() : json_real(v); }
static json_t *count(uint64_t v) { return json_integer((json_int_t)v); }
static json_t *text_or_null(const char *s) { return s ? json_string(s) : json_null(); }

json_t *view_error(const struct job *job)
{
	if (!job_shown_error(job))
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:o, s:b, s:o}", "code", job->error.id, "message", job->error.message, "stage", job->error_stage, "suggestion",
		text_or_null(job->error.hint[0] ? job->error.hint : NULL), "retriable", job->error.retriable, "since", view_time(job->error_since_us));
}

json_t *view_event(const struct job *job)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", job->name, "state", job_shown_state(job), "desired_state",
		job_desire_name(job->desire), "stop_reason",
		text_or_null(job->stop_reason), "error", view_error(job));
}

bool view_target(const struct job *job, size_t i, struct pipeline_target_stat *out)
{
	if (job->pipeline)
		return pipeline_target_stat(job->pipeline, i, out);
	const json_t *t = json_array_get(json_object_get(job->spec, "targets"), i);
	const char *name = spec_target_name(t);
	if (!name)
		return false;
	const struct memory_target *m = memory_target(job->memory, name);
	const char *connector = json_string_value(json_object_get(t, "connector"));
	*out = (struct pipeline_target_stat){ .name = m->name, .connector = connector, .applied = m->applied, .load_done = m->load_done };
	return true;
}

/* ---- a job ---- */

json_t *engine_job(struct engine *g, const char *name_or_uid, int64_t *generation)
{
	const struct job *job = engine_find(g, name_or_uid);
	if (!job)
		return NULL;
	if (generation)
		*generation = job->generation;
	json_t *j = spec_redact(job->spec, g->plugins), *links = json_object();
	static const char *const parts[] = { "status", "tables", "positions", "errors", "events" };
	char path[128];
	snprintf(path, sizeof path, "/jobs/%s", job->name);
	json_object_set_new(links, "self", json_string(path));
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		snprintf(path, sizeof path, "/jobs/%s/%s", job->name, parts[i]);
		json_object_set_new(links, parts[i], json_string(path));
	}
	json_object_set_new(j, "uid", json_string(job->uid));
	json_object_set_new(j, "state", json_string(job_shown_state(job)));
	json_object_set_new(j, "desired_state", json_string(job_desire_name(job->desire)));
	json_object_set_new(j, "stop_reason", text_or_null(job->stop_reason));
	json_object_set_new(j, "error", view_error(job));
	json_object_set_new(j, "generation", json_integer(job->generation));
	json_object_set_new(j, "created_at", view_time(job->created_us));
	json_object_set_new(j, "updated_at", view_time(job->updated_us));
	json_object_set_new(j, "managed_by", json_string(job->is_from_file ? "file" : "api"));
	json_t *deletion = engine_deletion_view(g, job);
	if (deletion)
		json_object_set_new(j, "deletion", deletion);
	if (job->file_error)
		json_object_set_new(j, "file_error", json_string(job->file_error));
	json_object_set_new(j, "links", links);
	return j;
}

json_t *engine_jobs(struct engine *g, const char *after, int limit, const char *state, bool status, char **next)
{
	json_t *items = json_array();
	*next = NULL;
	for (size_t i = 0; i < g->njobs; i++) {
		const struct job *job = g->jobs[i];
		if ((after && strcmp(job->name, after) <= 0) || (state && strcmp(job_shown_state(job), state) != 0))
			continue;
		if ((int)json_array_size(items) == limit) {
			const json_t *last = json_array_get(items, (size_t)limit - 1);
			*next = mem_strdup(json_string_value(json_object_get(last, "name")));
			break;
		}
		json_t *j = engine_job(g, job->name, NULL);
		if (status)
			json_object_set_new(j, "status", engine_job_status(g, job->name));
		json_array_append_new(items, j);
	}
	return items;
}

/* ---- its load ---- */

struct load_sum {
	uint64_t tables, loaded, rows, bytes;
	int64_t rows_total, bytes_total;
	bool is_guess; /* the rows of a table are not known: never analyzed */
};

/* What is loaded may have been read in part by an earlier run. */
static uint64_t rows_seen(const struct table_count *c) { return c->is_loaded && c->rows_loaded > c->rows_read ? c->rows_loaded : c->rows_read; }

/* An estimate becomes what was read. Where several runs read parts of the table nobody has the sum: -1. */
static int64_t bytes_total(const struct table_count *c)
{
	if (c->is_loaded)
		return c->rows_loaded > c->rows_read ? -1 : (int64_t)c->bytes_read;
	return c->bytes_total >= 0 && c->bytes_total < (int64_t)c->bytes_read ? (int64_t)c->bytes_read : c->bytes_total;
}

static void add_load(void *arg, struct table_count *c)
{
	struct load_sum *s = arg;
	bool of_load = c->is_loading || c->is_loaded || c->rows_read || c->rows_loaded || c->rows_total >= 0 || c->bytes_total >= 0;
	if (!of_load || c->is_left_out || c->is_passed_over)
		return;
	uint64_t rows = rows_seen(c);
	s->tables++;
	s->loaded += c->is_loaded;
	s->rows += rows;
	s->bytes += c->bytes_read;
	/* an estimate is never below what was read, and what is loaded is what there was */
	s->rows_total += c->is_loaded || c->rows_total < (int64_t)rows ? (int64_t)rows : c->rows_total;
	s->bytes_total += bytes_total(c) < 0 ? (int64_t)c->bytes_read : bytes_total(c);
	s->is_guess |= !c->is_loaded && c->rows_total < 0;
}

/* One that is over begins again when a table is wanted again, or comes to those of the job. */
static bool is_load_done(const struct job *job, const struct pipeline_stat *st, const struct load_sum *s)
{
	return memory_load_done(job->memory) && (job->pipeline ? !st->is_loading : s->loaded == s->tables);
}

static double load_percent(const struct load_sum *s, bool is_over)
{
	if (is_over)
		return 100;
	double read = s->is_guess ? (double)s->bytes : (double)s->rows, total = s->is_guess ? (double)s->bytes_total : (double)s->rows_total;
	if (total < 1)
		return s->tables && s->loaded == s->tables ? 99 : 0;
	double p = 100.0 * read / total;
	return p > 99 ? 99 : (double)(int64_t)(p * 10) / 10; /* keys and indexes are still to come */
}

/* Keys, indexes and what else comes behind the rows: how long at the target that takes longest, -1 where one does not know. False: none is made. */
static bool is_building(const struct job *job, double *seconds_left)
{
	struct pipeline_target_stat t;
	bool is = false, is_known = true;
	*seconds_left = 0;
	for (size_t i = 0; view_target(job, i, &t); i++) {
		if (!t.stat.nbuilds)
			continue;
		is = true;
		is_known = is_known && t.stat.builds_seconds_left >= 0;
		*seconds_left = t.stat.builds_seconds_left > *seconds_left ? t.stat.builds_seconds_left : *seconds_left;
	}
	if (!is_known)
		*seconds_left = -1;
	return is;
}

static json_t *eta_json(double seconds) { return seconds < 0 ? json_null() : json_integer((json_int_t)seconds + 1); }

static json_t *load_json(const struct job *job, const struct pipeline_stat *st)
{
	struct load_sum s = { 0 };
	memory_each_count(job->memory, add_load, &s);
	bool is_done = is_load_done(job, st, &s), is_over = job->state == JOB_RUNNING || job->state == JOB_COMPLETED || is_done;
	double percent = load_percent(&s, is_over);
	double seconds = st->load_began_us ? (double)(wall_now_us() - st->load_began_us) / 1e6 : 0;
	uint64_t read = st->events[4]; /* by this run: what an earlier one has read took it no time */
	double own = read < s.rows ? percent * (double)read / (double)s.rows : percent;
	double eta = -1, of_builds;
	bool builds = is_building(job, &of_builds);
	if (job->state == JOB_LOADING && !is_over && builds)
		eta = of_builds;
	else if (job->state == JOB_LOADING && !is_over && own > 1 && percent < 99 && seconds > 1)
		eta = seconds * (100 - percent) / own;
	return json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:f, s:o, s:b}", "tables", (json_int_t)s.tables, "tables_loaded", (json_int_t)s.loaded,
		"rows", (json_int_t)s.rows, "rows_total",
		view_known(s.is_guess ? -1 : s.rows_total), "bytes", (json_int_t)s.bytes, "bytes_total", (json_int_t)s.bytes_total,
		"percent", percent, "eta_seconds",
		eta_json(eta), "done", is_done);
}

/* ---- the slowest stage ---- */

static const char *slowest_stage(const struct job *job, const struct pipeline_stat *st)
{
	struct pipeline_target_stat t;
	const char *slow = NULL;
	uint64_t most = 1;
	if (!job->pipeline)
		return NULL;
	for (size_t i = 0; pipeline_target_stat(job->pipeline, i, &t); i++) {
		if (t.waiting_batches > most || (st->is_full && t.waiting_batches >= most)) {
			most = t.waiting_batches;
			slow = t.name;
		}
	}
	if (st->is_full && !slow)
		return "streamer";
	return slow ? slow : st->source.lag_bytes > 1 << 20 ? "source" : NULL;
}

/* ---- status ---- */

/* By the run, when it has seen its slot; else as it was seen last. */
static struct job_kept what_is_kept(const struct job *job, const struct dmsr_source_stat *s)
{
	struct job_kept k = job->kept;
	if (!job->pipeline || !s->slot)
		return k;
	const struct dmsr_kept now = {
		.slot = s->slot,
		.slot_status = s->slot_status,
		.is_lost = s->slot_status && !strcmp(s->slot_status, "lost"),
		.retained_bytes = s->retained_bytes,
		.safe_bytes = s->safe_bytes,
		.lag_bytes = s->lag_bytes,
	};
	job_kept_set(&k, &now);
	k.seen_us = s->slot_seen_us;
	return k;
}

static json_t *slot_json(const struct job_kept *k)
{
	if (!k->slot[0] && !err_is_set(&k->error))
		return json_null();
	json_t *error = err_is_set(&k->error) ? json_pack("{s:s, s:s}", "code", k->error.id, "message", k->error.message) : json_null();
	return json_pack("{s:o, s:s, s:b, s:o, s:o, s:o, s:o}", "name", text_or_null(k->slot[0] ? k->slot : NULL),
		"status", k->status[0] ? k->status : "unknown",
		"lost", k->is_lost,
		"retained_bytes", view_known(k->retained_bytes),
		"safe_bytes", view_known(k->safe_bytes),
		"seen_at", view_time(k->seen_us),
		"error", error);
}

static json_t *source_json(const struct job *job, const struct pipeline_stat *st, const struct job_kept *k)
{
	const struct dmsr_source_stat *s = &st->source;
	json_t *connector = json_object_get(json_object_get(job->spec, "source"), "connector");
	return json_pack("{s:O?, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "connector", connector,
		"connected", s->connected,
		"paused", s->paused,
		"phase", text_or_null(s->phase),
		"received", position_json(&s->received),
		"confirmed", position_json(&s->confirmed),
		"lag_bytes", view_known(job->pipeline ? s->lag_bytes : k->lag_bytes),
		"last_event_at", view_time(s->last_event_us),
		"last_commit_at", view_time(s->last_commit_us),
		"spool_bytes", count(s->spool_bytes),
		"slot", slot_json(k));
}

static json_t *builds_json(const struct dmsr_target_stat *s)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < s->nbuilds; i++) {
		const struct dmsr_build *b = &s->builds[i];
		json_t *percent = b->percent < 0 ? json_null() : json_real((double)(int64_t)(b->percent * 10) / 10);
		json_t *o = json_pack("{s:s, s:s, s:o, s:o, s:o}", "kind", b->kind, "name", b->name, "phase", text_or_null(b->phase),
			"percent", percent,
			"eta_seconds", eta_json(b->seconds_left));
		json_array_append_new(list, o);
	}
	return json_pack("{s:i, s:i, s:o}", "made", (int)s->builds_made, "total", (int)s->builds_total, "under_way", list);
}

static json_t *targets_json(const struct job *job, const struct pipeline_stat *st)
{
	json_t *list = json_array();
	struct pipeline_target_stat t;
	for (size_t i = 0; view_target(job, i, &t); i++) {
		const struct lag lag = lag_of_target(job, st, &t);
		json_t *j = json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "name", t.name,
			"connector", t.connector,
			"connected", t.stat.connected,
			"phase", text_or_null(t.stat.phase),
			"applied", position_json(&t.applied),
			"rows_applied", count(t.rows_applied),
			"transactions", count(t.stat.transactions),
			"queued_bytes", count(t.stat.queued_bytes),
			"waiting_batches", count(t.waiting_batches),
			"last_applied_at", view_time(t.stat.last_applied_us),
			"lag_bytes", view_known(lag.bytes),
			"lag_seconds", known_seconds(lag.seconds),
			"caught_up", t.is_caught_up && st->is_level,
			"load_done", t.load_done);
		json_object_set_new(j, "builds", t.stat.builds_total ? builds_json(&t.stat) : json_null());
		json_array_append_new(list, j);
	}
	return list;
}

static json_t *positions_json(const struct job *job, const struct pipeline_stat *st)
{
	const struct ledger_stat *l = &st->ledger;
	bool runs = job->pipeline && l->received.position.kind;
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "received", runs ? position_json(&l->received.position) : json_null(), "streamed",
		runs ? position_json(&l->streamed.position) : json_null(),
		"delivered", runs ? position_json(&l->delivered.position) : json_null(), "stored", position_json(memory_delivered(job->memory)),
			"confirmed", position_json(&st->source.confirmed));
}

static json_t *warnings_json(const struct job *job)
{
	json_t *list = json_array();
	for (size_t i = 0; i < json_array_size(job->warnings); i++) {
		const json_t *w = json_array_get(job->warnings, i);
		int64_t at_us = json_integer_value(json_object_get(w, "at_us"));
		json_array_append_new(list, json_pack("{s:o, s:O?}", "at", view_time(at_us), "message", json_object_get(w, "message")));
	}
	return list;
}

/* Its source and its streamer are there. */
static bool is_flowing(const struct job *job) { return job->pipeline && (job->state == JOB_LOADING || job->state == JOB_RUNNING || job->state == JOB_PAUSED); }

static json_t *streamer_error(const struct dmsr_streamer_stat *s)
{
	if (!s->error)
		return json_null();
	return json_pack("{s:s, s:s, s:o, s:o}", "code", s->error->id, "message", s->error->message,
		"suggestion", text_or_null(s->error->hint[0] ? s->error->hint : NULL),
		"since", view_time(s->error_us));
}

static void add_dead(void *arg, struct table_count *c) { *(uint64_t *)arg += c->dead; }

json_t *engine_job_status(struct engine *g, const char *name)
{
	const struct job *job = engine_find(g, name);
	struct pipeline_stat st = { .source = { .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1 } };
	if (!job)
		return NULL;
	if (job->pipeline)
		pipeline_stat(job->pipeline, &st);
	const struct lag lag = lag_of_job(job, &st);
	const struct job_kept kept = what_is_kept(job, &st.source);
	json_t *s = view_event(job);
	json_t *deletion = engine_deletion_view(g, job);
	if (deletion)
		json_object_set_new(s, "deletion", deletion);
	json_object_set_new(s, "uid", json_string(job->uid));
	json_object_set_new(s, "since", view_time(job->state_since_us));
	json_object_set_new(s, "stage", text_or_null(job->pipeline ? st.phase : NULL));
	json_object_set_new(s, "load", load_json(job, &st));
	json_object_set_new(s, "source", source_json(job, &st, &kept));
	json_t *streamer = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "memory_bytes", count(st.streamer.memory_bytes),
		"memory_limit_bytes", count(st.streamer.memory_limit_bytes),
		"log_bytes", count(st.streamer.log_bytes),
		"log_limit_bytes", count(st.streamer.log_limit_bytes),
		"batches", count(st.streamer.batches),
		"full", st.is_full,
		"error", streamer_error(&st.streamer));
	json_object_set_new(s, "streamer", streamer);
	json_object_set_new(s, "targets", targets_json(job, &st));
	json_object_set_new(s, "positions", positions_json(job, &st));
	json_object_set_new(s, "lag",
		json_pack("{s:o, s:o, s:o}", "bytes", view_known(lag.bytes), "seconds", known_seconds(lag.seconds), "reason", text_or_null(lag.reason)));
	json_object_set_new(s, "warnings", warnings_json(job));
	uint64_t dead = 0;
	memory_each_count(job->memory, add_dead, &dead);
	json_object_set_new(s, "dead_letters", count(dead));
	json_object_set_new(s, "slowest_stage", text_or_null(slowest_stage(job, &st)));
	json_t *next = job->state == JOB_RETRYING ? view_time(job->retry_at_us) : json_null();
	json_object_set_new(s, "retries", json_pack("{s:o, s:o, s:o}", "total", count(job->retries), "in_a_row", count(job->attempts), "next_at", next));
	json_object_set_new(s, "last_checkpoint_at", view_time(st.last_checkpoint_us ? st.last_checkpoint_us : job->past.last_checkpoint_us));
	return s;
}

/* ---- tables ---- */

static json_t *ops_json(const uint64_t n[4])
{
	return json_pack("{s:o, s:o, s:o, s:o}", "insert", count(n[0]), "update", count(n[1]), "delete", count(n[2]), "truncate", count(n[3]));
}

struct table_page {
	json_t *items;
	const char *schema, *name;      /* NULL: from the first */
	size_t limit;
	bool has_more, loads;
};

static void add_table(void *arg, struct table_count *c)
{
	struct table_page *p = arg;
	int order = p->schema ? strcmp(c->schema, p->schema) : 1;
	if (order < 0 || (!order && strcmp(c->name, p->name) <= 0))
		return;
	p->has_more = p->limit && json_array_size(p->items) == p->limit;
	if (p->has_more)
		return;
	const char *state = !p->loads ? "streaming" : c->is_loaded ? "loaded" : c->is_loading ? "loading" : "pending";
	if (c->is_left_out || c->is_passed_over)
		state = c->is_left_out ? "excluded" : "left-out";
	json_t *load = json_pack("{s:o, s:o, s:o, s:o, s:o}", "rows", count(c->rows_loaded),
		"rows_read", count(c->rows_read),
		"rows_total", view_known(c->is_loaded ? (int64_t)rows_seen(c) : c->rows_total),
		"bytes_read", count(c->bytes_read),
		"bytes_total", view_known(bytes_total(c)));
	json_t *j = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "schema", c->schema,
		"name", c->name,
		"state", state,
		"load", load,
		"captured", ops_json(c->captured),
		"applied", ops_json(c->applied),
		"ddl", count(c->ddl),
		"dead_letters", count(c->dead));
	json_array_append_new(p->items, j);
}

json_t *engine_job_tables(struct engine *g, const char *name, const json_t *after, size_t limit, json_t **next)
{
	const struct job *job = engine_find(g, name);
	struct table_page p = { .limit = limit };
	*next = NULL;
	if (!job)
		return NULL;
	const char *mode = json_string_value(json_object_get(job->spec, "mode"));
	p.loads = !mode || strcmp(mode, "cdc") != 0;
	p.items = json_array();
	p.schema = json_string_value(json_array_get(after, 0));
	p.name = json_string_value(json_array_get(after, 1));
	memory_each_count_by_name(job->memory, add_table, &p);
	const json_t *last = json_array_get(p.items, json_array_size(p.items) - 1);
	if (p.has_more)
		*next = json_pack("[O, O]", json_object_get(last, "schema"), json_object_get(last, "name"));
	return json_pack("{s:o}", "items", p.items);
}

json_t *engine_job_positions(struct engine *g, const char *name)
{
	const struct job *job = engine_find(g, name);
	struct pipeline_stat st = { 0 };
	if (!job)
		return NULL;
	if (job->pipeline)
		pipeline_stat(job->pipeline, &st);
	json_t *j = positions_json(job, &st), *targets = json_object(), *loads = json_array();
	const json_t *list = json_object_get(job->spec, "targets");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *key = spec_target_name(json_array_get(list, i));
		if (key)
			json_object_set_new(targets, key, position_json(&memory_target(job->memory, key)->applied));
	}
	const struct table_set *loaded = memory_loaded(job->memory);
	for (size_t i = 0; i < loaded->n; i++) {
		char lsn[24];
		const struct dmsr_loaded *l = &loaded->list[i];
		json_array_append_new(loads, json_pack("{s:s, s:s, s:s}", "schema", l->schema, "name", l->name, "snapshot_lsn", lsn_format(l->at.lsn, lsn)));
	}
	json_object_set_new(j, "position", position_json(memory_delivered(job->memory)));
	json_object_set_new(j, "targets", targets);
	json_object_set_new(j, "loaded", loads);
	return j;
}

/* ---- connectors ---- */

static void add_role(json_t *roles, json_t *schemas, const char *role, bool has, const struct dmsr_option *table)
{
	static const struct dmsr_option none[1];
	if (!has)
		return;
	json_array_append_new(roles, json_string(role));
	if (schemas)
		json_object_set_new(schemas, role, options_schema(table ? table : none, NULL));
}

static json_t *connector_json(struct engine *g, const struct dmsr_plugin *pl, bool whole)
{
	json_t *roles = json_array(), *schemas = whole ? json_object() : NULL;
	add_role(roles, schemas, "source", pl->source, pl->source_options);
	add_role(roles, schemas, "target", pl->target, pl->target_options);
	add_role(roles, schemas, "streamer", pl->streamer, pl->streamer_options);
	add_role(roles, schemas, "transform", pl->transform, pl->transform_options);
	add_role(roles, schemas, "codec", pl->codec, pl->codec_options);
	json_t *j = json_pack("{s:s, s:s, s:o, s:s, s:i}", "name", pl->name, "summary", pl->summary ? pl->summary : "", "roles", roles, "origin",
		plugins_origin(g->plugins, pl), "abi", (int)pl->abi);
	if (schemas)
		json_object_set_new(j, "options", schemas);
	return j;
}

json_t *engine_connectors(struct engine *g)
{
	json_t *list = json_array();
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(g->plugins, i)); i++)
		json_array_append_new(list, connector_json(g, pl, false));
	return json_pack("{s:o}", "items", list);
}

json_t *engine_connector(struct engine *g, const char *type)
{
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(g->plugins, i)); i++)
		if (!strcmp(pl->name, type))
			return connector_json(g, pl, true);
	return NULL;
}

json_t *engine_job_schema(struct engine *g) { return spec_schema(g->plugins); }

/* ---- metrics ---- */

static void add_tables(void *arg, struct table_count *c)
{
	struct engine_job_metrics *m = arg;
	bool is_part = !c->is_left_out && !c->is_passed_over;
	m->tables_total += is_part;
	m->tables_loaded += is_part && c->is_loaded;
	m->load_rows += c->rows_loaded;
}

static uint64_t builds_left(const struct job *job)
{
	struct pipeline_target_stat t;
	uint64_t left = 0;
	for (size_t i = 0; job->pipeline && pipeline_target_stat(job->pipeline, i, &t); i++)
		left += t.stat.builds_total - t.stat.builds_made;
	return left;
}

void engine_each_job(struct engine *g, void (*fn)(void *arg, const struct engine_job_metrics *m), void *arg)
{
	for (size_t i = 0; i < g->njobs; i++) {
		const struct job *job = g->jobs[i];
		struct pipeline_stat st = { .source = { .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1 } };
		const struct pipeline_stat *past = &job->past;
		if (job->pipeline)
			pipeline_stat(job->pipeline, &st);
		const struct job_kept kept = what_is_kept(job, &st.source);
		const struct lag lag = lag_of_job(job, &st);
		struct engine_job_metrics m = {
			.name = job->name,
			.state = job_shown_state(job),
			.error_code = job_shown_error(job) ? job->error.id : NULL,
			.source_connected = st.source.connected,
			.streamer_connected = is_flowing(job) && !st.streamer.error,
			.lag_bytes = lag.bytes,
			.retained_bytes = kept.retained_bytes,
			.safe_bytes = kept.safe_bytes,
			.slot_lost = kept.slot[0] ? kept.is_lost : -1,
			.lag_seconds = lag.seconds,
			.bytes = st.bytes + past->bytes,
			.transactions = st.transactions + past->transactions,
			.retries = job->retries,
			.dead_letters = st.dead_letters + past->dead_letters,
			.checkpoints = st.checkpoints + past->checkpoints,
			.last_event_us = st.last_event_us ? st.last_event_us : past->last_event_us,
			.last_checkpoint_us = st.last_checkpoint_us ? st.last_checkpoint_us : past->last_checkpoint_us,
			.queue_bytes = st.streamer.memory_bytes,
			.queue_limit_bytes = st.streamer.memory_limit_bytes,
			.log_bytes = st.streamer.log_bytes,
			.backpressure_us = st.backpressure_us + past->backpressure_us,
			.builds_left = builds_left(job),
		};
		for (size_t k = 0; k < 6; k++) {
			m.events[k] = st.events[k] + past->events[k];
			m.applied[k] = st.applied[k] + past->applied[k];
		}
		m.latency = st.latency;
		for (size_t k = 0; k <= LOOP_SLICE_BOUNDS; k++)
			m.latency.count[k] += past->latency.count[k];
		m.latency.n += past->latency.n;
		m.latency.total_us += past->latency.total_us;
		memory_each_count(job->memory, add_tables, &m);
		fn(arg, &m);
	}
}
