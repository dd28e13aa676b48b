/* source: PostgreSQL as a source: tables read once, and their changes for ever. This file owns the instance: its options, its phase, its connections, what
 * goes out, how it ends. In come settings and the host's verbs; out go batches, notes, progress and one of finished, failed, stopped.
 *
 *   IDLE -> CONNECTING -> PREPARING -+-> LOADING -+-> STREAMING -> STOPPING -> STOPPED
 *                                    |      |     |
 *                                    |      +--------> FINISHED (full load alone)
 *                                    +------------+            (nothing is left to load)
 *   any but the last three -> FAILED; any -> STOPPED (stop: at once where there is nothing to send)
 *
 * Connections: SQL (catalogs, slot's state), replication (slot, stream); of the load, the loader (snapshot, COPY) and more of its kind. */
#include "source_int.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct dmsr_option pgsource_options[] = {
	PGCONN_OPTIONS,
	{ "publication", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0,
		"Publication to read; made, which is told, and dropped with the job, if it is not there. Default: one of the job's own." },
	{ "slot", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "Name of the replication slot that the job makes. Default: one from the job's name." },
	{ "failover", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0, "Make the slot one that PostgreSQL 17 and later keep in step on standbys." },
	{ "follow_failover", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0,
		"Go on after the server changed its timeline, when all that was read lies before the switch." },
	{ "keyless_tables", DMSR_OPT_ENUM, 0, "fail", "fail|allow", 0, 0,
		"Tables without a replica identity: refuse to start, or publish them though the server will refuse updates and deletes of theirs." },
	{ "new_tables", DMSR_OPT_ENUM, 0, "tell", "tell|add", 0, 0,
		"A table that comes while the job runs, and that its patterns mean. tell: it is a warning, and the next start takes it up. add: the job is "
		"started over for it when it has been there for some seconds; not where the publication is somebody else's." },
	{ "binary", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0, "Read values in PostgreSQL's binary form where all types of a table allow it." },
	{ "origin", DMSR_OPT_ENUM, 0, "any", "any|none", 0, 0, "none: leave out what reached this server by replication (PostgreSQL 16 and later)." },
	{ "batch_bytes", DMSR_OPT_BYTES, 0, "256KiB", NULL, 16 * 1024, 16 * 1024 * 1024,
		"Size at which a batch is handed on; between two transactions half of it is enough." },
	{ "load_connections", DMSR_OPT_INT, 0, "4", NULL, 1, 64,
		"Tables, and parts of big ones, that are loaded at once: connections to the source, and to each target." },
	{ "load_part_bytes", DMSR_OPT_BYTES, 0, "64MiB", NULL, 0, INT64_MAX, "Tables that are bigger are loaded in parts of about this size; 0: undivided." },
	{ "hold_wal", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0,
		"Read the changes after the load: the server keeps its log for as long as that lasts. "
		"false: they are read meanwhile, and wait in the streamer, or on disk before it." },
	{ "spool_memory", DMSR_OPT_BYTES, 0, "8MiB", NULL, 64 * 1024, 1024 * 1024 * 1024,
		"Memory for transactions that are sent before their commit; above it they go to disk." },
	{ "spool_disk_max", DMSR_OPT_BYTES, 0, "0", NULL, 0, INT64_MAX, "Most disk that such transactions may take; 0: no limit." },
	{ "status_interval", DMSR_OPT_DURATION, 0, "10s", NULL, 100, 60000, "How often the server is told how far we are, at least." },
	{ "heartbeat_interval", DMSR_OPT_DURATION, 0, "1s", NULL, 100, 60000,
		"How often an idle stream moves the position on; up to 16 times as rarely where the server writes next to nothing." },
	{ 0 },
};

static const struct { const char *name; unsigned to; } phases[SOURCE_PHASES] = {
#define TO(p) (1u << SOURCE_##p)
	[SOURCE_IDLE] = { "idle", TO(CONNECTING) | TO(STOPPED) },
	[SOURCE_CONNECTING] = { "connecting", TO(PREPARING) | TO(FAILED) | TO(STOPPED) },
	[SOURCE_PREPARING] = { "preparing", TO(LOADING) | TO(STREAMING) | TO(FINISHED) | TO(FAILED) | TO(STOPPED) },
	[SOURCE_LOADING] = { "loading", TO(STREAMING) | TO(FINISHED) | TO(FAILED) | TO(STOPPED) },
	[SOURCE_STREAMING] = { "streaming", TO(STOPPING) | TO(FAILED) | TO(STOPPED) },
	[SOURCE_FINISHED] = { "finished", TO(FAILED) | TO(STOPPED) },
	[SOURCE_STOPPING] = { "stopping", TO(STOPPED) },
	[SOURCE_STOPPED] = { "stopped", 0 },
	[SOURCE_FAILED] = { "failed", TO(STOPPED) },
#undef TO
};

void source_enter(struct source *s, enum source_phase phase, const char *why)
{
	if (s->phase == phase)
		return;
	assert(phases[s->phase].to & 1u << phase);
	log_info("postgres", s->host.env.job, "%s -> %s: %s", phases[s->phase].name, phases[phase].name, why);
	s->phase = phase;
	s->doing = phases[phase].name;
}

/* ---- its end ---- */

static void close_connections(struct source *s)
{
	catalog_cancel(s->catalog);
	catalog_cancel(s->load_catalog);
	s->catalog = s->load_catalog = NULL;
	source_read_close(s);
	pgconn_free(s->repl);
	pgconn_free(s->exporter);
	pgconn_free(s->sql);
	s->repl = s->exporter = s->sql = NULL;
}

void source_fail(struct source *s, const struct err *e)
{
	if (s->phase >= SOURCE_STOPPING)
		return;
	s->failure = *e;
	source_enter(s, SOURCE_FAILED, e->id);
	close_connections(s);
	s->tell_failed = true;
	loop_task_post(s->turn);
}

void source_fail_because(struct source *s, int code, const char *id, const char *hint, const char *fmt, ...)
{
	struct err e = { 0 };
	char text[sizeof e.message];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	err_set(&e, code, id, "%s", text);
	if (hint)
		err_hint(&e, "%s", hint);
	source_fail(s, &e);
}

void source_fail_again(struct source *s, const char *what, const char *why)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "source.changed", "%s %s", what, why);
	source_fail(s, &e);
}

void source_tell(const struct source *s, const char *fmt, ...)
{
	va_list ap, again;
	if (!s->host.notice)
		return;
	va_start(ap, fmt);
	va_copy(again, ap);
	size_t size = (size_t)vsnprintf(NULL, 0, fmt, again) + 1;
	va_end(again);
	char *text = mem_alloc(size);
	vsnprintf(text, size, fmt, ap);
	va_end(ap);
	s->host.notice(s->host.ctx, text);
	free(text);
}

void source_stopped(struct source *s)
{
	if (s->phase == SOURCE_STOPPED)
		return;
	source_enter(s, SOURCE_STOPPED, "asked");
	close_connections(s);
	s->tell_failed = s->tell_finished = false;
	s->tell_stopped = true;
	loop_task_post(s->turn);
}

/* ---- what goes out ---- */

static void pass_on(struct source *s, struct outlet *o)
{
	size_t done = 0;
	while (done < o->n && !o->blocked && !s->paused) {
		if (s->host.emit(s->host.ctx, o->queue[done]) == DMSR_AGAIN)
			o->blocked = true;
		else
			done++;
	}
	if (!done)
		return;
	o->n -= done;
	memmove(o->queue, o->queue + done, o->n * sizeof *o->queue);
}

bool source_emit(struct source *s, struct batch *b)
{
	struct outlet *o = &s->outlets[b->is_load && s->is_beside && !b->in_turn ? OUTLET_LOAD : OUTLET_STREAM];
	if (o->n == o->cap) {
		o->cap = o->cap ? 2 * o->cap : 8;
		o->queue = mem_realloc_array(o->queue, o->cap, sizeof *o->queue);
	}
	o->queue[o->n++] = b;
	pass_on(s, o);
	return !o->blocked && !s->paused;
}

static void tell_ends(struct source *s)
{
	if (s->tell_loaded && !s->outlets[OUTLET_LOAD].n) {
		s->tell_loaded = false;
		s->host.load_ends(s->host.ctx);
	}
	if (s->phase == SOURCE_FINISHED && s->tell_finished && source_may_emit(s) && !s->outlets[OUTLET_STREAM].n) {
		s->tell_finished = false;
		s->host.finished(s->host.ctx);
	}
}

static void on_turn(void *arg)
{
	struct source *s = arg;
	if (s->tell_stopped || s->tell_failed) {
		bool stopped = s->tell_stopped;
		s->tell_stopped = s->tell_failed = false;
		if (stopped)
			s->host.stopped(s->host.ctx);
		else
			s->host.failed(s->host.ctx, &s->failure);
		return;
	}
	for (unsigned i = 0; i < OUTLETS; i++)
		pass_on(s, &s->outlets[i]);
	if (source_is_loading(s))
		source_load_resumed(s);
	if (s->phase == SOURCE_STREAMING && source_may_emit(s))
		source_stream_resumed(s);
	tell_ends(s);
}

/* ---- notes ---- */

/* Outlives the instance if it must: the host calls back when it likes. */
struct source_note {
	struct source_note *next;
	struct source *source;  /* NULL: closed meanwhile */
	void (*then)(struct source *s);
};

static void on_note(void *arg, const struct err *e)
{
	struct source_note *n = arg;
	struct source *s = n->source;
	void (*then)(struct source * s) = n->then;
	if (s) {
		struct source_note **at = &s->notes;
		while (*at != n)
			at = &(*at)->next;
		*at = n->next;
	}
	free(n);
	if (!s || s->phase >= SOURCE_STOPPING)
		return;
	if (e)
		source_fail(s, e);
	else if (then)
		then(s);
}

void source_put_note(struct source *s, const char *key, const char *value, void (*next)(struct source *s))
{
	struct source_note *n = mem_alloc(sizeof *n);
	*n = (struct source_note){ .next = s->notes, .source = s, .then = next };
	s->notes = n;
	s->host.note_put(s->host.ctx, key, value, on_note, n);
}

/* ---- connections ---- */

static void on_failed(void *ctx, const struct err *e) { source_fail(ctx, e); }

static void on_repl_failed(void *ctx, const struct err *why)
{
	struct source *s = ctx;
	struct err e = *why;
	right_hint(&e, RIGHT_REPLICATION, s->settings, NULL, NULL);
	source_fail(s, &e);
}

static void on_sql_failed(void *ctx, const struct err *e)
{
	struct source *s = ctx;
	if (source_watch_lost(s, e))
		return;
	source_fail(s, e);
}

static void on_notice(void *ctx, const char *text)
{
	struct source *s = ctx;
	log_debug("postgres", s->host.env.job, "the server says: %s", text);
}

struct pgconn *source_connect(struct source *s, enum pgconn_kind kind, void (*on_ready)(void *ctx))
{
	const struct pgconn_owner o = {
		.ctx = s, .on_ready = on_ready, .on_failed = kind == PGCONN_REPLICATION ? on_repl_failed : on_failed, .on_notice = on_notice
	};
	return pgconn_new(&s->host.env, s->settings, kind, &o);
}

struct pgconn *source_connect_watch(struct source *s, void (*on_ready)(void *ctx))
{
	const struct pgconn_owner o = { .ctx = s, .on_ready = on_ready, .on_failed = on_sql_failed, .on_notice = on_notice };
	return pgconn_new(&s->host.env, s->settings, PGCONN_SQL, &o);
}

/* ---- the verbs ---- */

static int source_open(const struct settings *set, const struct dmsr_tables *tables, const struct dmsr_source_host *host,
	struct dmsr_instance **out, struct err *e)
{
	if (slot_name_check(settings_str(set, "slot"), e))
		return e->code;
	struct source *s = mem_zalloc(sizeof *s);
	s->host = *host;
	s->settings = pg_settings_copy(set, pgsource_options);
	s->tables = tables;
	s->doing = phases[SOURCE_IDLE].name;
	set = s->settings;
	s->opt = (struct source_options){
		.publication = settings_str(set, "publication"),
		.slot = settings_str(set, "slot"),
		.origin = settings_str(set, "origin"),
		.failover = settings_bool(set, "failover"),
		.follow_failover = settings_bool(set, "follow_failover"),
		.keyless = !strcmp(settings_str(set, "keyless_tables"), "allow"),
		.adds_new = !strcmp(settings_str(set, "new_tables"), "add"),
		.binary = settings_bool(set, "binary"),
		.batch_bytes = (size_t)settings_int(set, "batch_bytes"),
		.spool_memory = (size_t)settings_int(set, "spool_memory"),
		.spool_disk = (uint64_t)settings_int(set, "spool_disk_max"),
		.load_connections = (unsigned)settings_int(set, "load_connections"),
		.load_part_bytes = settings_int(set, "load_part_bytes"),
		.status_ms = settings_int(set, "status_interval"),
		.heartbeat_ms = settings_int(set, "heartbeat_interval"),
	};
	s->turn = loop_task_new(host->env.loop, "postgres.source", on_turn, s);
	*out = (struct dmsr_instance *)s;
	return 0;
}

static void source_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	struct source *s = (struct source *)i;
	s->mode = start->mode;
	s->anew = s->mode & DMSR_FULL_LOAD ? mem_printf("load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->host.env.job) :
					     mem_strdup("what was missed cannot be read any more: delete the job, and make it anew on targets like the source");
	s->from = start->from;
	s->applied = start->applied;
	s->is_beside = start->is_beside;
	s->ends_first = start->ends_first;
	s->is_held = start->is_held;
	s->is_load_kept = start->is_load_kept;
	s->takes_turns = start->turn_bytes > 0;
	if (s->takes_turns && start->turn_bytes < s->opt.load_part_bytes)
		s->opt.load_part_bytes = start->turn_bytes;
	s->load_done = start->load_done;
	source_tables_init(s, start->loaded, start->nloaded);
	source_rest_init(s, start->begun, start->nbegun);
	s->ends_alone = s->ends_first && !(s->mode & DMSR_CDC) && !source_stream_is_whole(s);
	if (s->ends_alone)
		s->mode |= DMSR_CDC;
	source_enter(s, SOURCE_CONNECTING, "start");
	source_prepare(s);
}

static void source_pause(struct dmsr_instance *i)
{
	struct source *s = (struct source *)i;
	s->paused = true;
	source_read_pause(s);
	source_stream_paused(s);
}

static void source_resume(struct dmsr_instance *i)
{
	struct source *s = (struct source *)i;
	s->paused = false;
	for (unsigned n = 0; n < OUTLETS; n++)
		s->outlets[n].blocked = false;
	loop_task_post(s->turn);
}

static void source_confirm(struct dmsr_instance *i, const struct position *p)
{
	struct source *s = (struct source *)i;
	if (p->kind != POSITION_LSN || !p->flush || (s->system && p->server != s->system))
		return;
	source_stream_confirm(s, p->flush);
}

static const char *phase_words(const struct source *s)
{
	if (s->phase != SOURCE_STREAMING)
		return s->doing;
	return s->is_loading ? phases[SOURCE_LOADING].name : s->ends_first ? "reading the stream before the load" : s->doing;
}

static void source_stat(struct dmsr_instance *i, struct dmsr_source_stat *out)
{
	struct source *s = (struct source *)i;
	*out = (struct dmsr_source_stat){ .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1 };
	out->phase = phase_words(s);
	out->slot = s->slot;
	out->paused = s->paused || s->outlets[OUTLET_STREAM].blocked;
	out->connected = s->phase > SOURCE_CONNECTING && s->phase < SOURCE_FINISHED;
	out->received = s->from;
	source_watch_stat(s, out);
	source_stream_stat(s, out);
}

static void source_stop(struct dmsr_instance *i)
{
	struct source *s = (struct source *)i;
	catalog_cancel(s->load_catalog);
	s->load_catalog = NULL;
	pgconn_free(s->exporter);
	s->exporter = NULL;
	source_turns_stopped(s);
	source_read_close(s);
	if (s->phase == SOURCE_STREAMING)
		source_stream_stop(s);
	else if (s->phase != SOURCE_STOPPING)
		source_stopped(s);
}

static void source_close(struct dmsr_instance *i)
{
	struct source *s = (struct source *)i;
	if (!s)
		return;
	for (struct source_note *n = s->notes; n; n = n->next)
		n->source = NULL;
	close_connections(s);
	source_load_free(s);
	source_turns_free(s);
	source_stream_free(s);
	source_watch_free(s);
	source_look_free(s);
	source_tables_free(s);
	source_rest_free(s);
	for (struct outlet *o = s->outlets; o < s->outlets + OUTLETS; o++) {
		for (size_t n = 0; n < o->n; n++)
			batch_free(o->queue[n]);
		free(o->queue);
	}
	free(s->asked_pattern);
	free(s->anew);
	map_free(s->unknown);
	free(s->slot);
	free(s->publication);
	free(s->near_publication);
	free(s->add_sql);
	loop_task_free(s->turn);
	settings_free(s->settings);
	free(s);
}

static bool loads_beside(const struct settings *s) { return !settings_bool(s, "hold_wal"); }

const struct dmsr_source pgsource = {
	.loads_beside = loads_beside,
	.open = source_open,
	.start = source_start,
	.pause = source_pause,
	.resume = source_resume,
	.confirm = source_confirm,
	.stat = source_stat,
	.stop = source_stop,
	.close = source_close,
};
