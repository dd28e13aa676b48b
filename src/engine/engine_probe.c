/* engine_probe: one-shot questions to servers: preflight, discovery, and the removal of what a job made. A probing is one to several questions put at once;
 * it answers when all of them have, or when its time is up, and closes them at the loop's next turn. */
#include "engine_int.h"
#include <stdlib.h>
#include <string.h>

enum { PROBE_TIME_MS = 30000 };        /* where no client waits */
/* ASK_TABLES: discover too, for the checks of streamer and targets, which wait for its answer. */
enum ask_kind { ASK_CHECK, ASK_TABLES, ASK_DISCOVER, ASK_DROP, ASK_LOOK };

#define NOBODY "" /* the uid of a job that is not there */

struct ask {
	struct probing *all;
	const char *part;               /* "source", "streamer", or the target's name */
	const char *connector;
	const struct dmsr_probe *probe;
	struct dmsr_instance *i;
	enum ask_kind kind;
	bool is_answered, keep;
	bool has_nothing;               /* drop: it was never ready in any run, and made nothing: that it does not answer holds up nobody */
};

struct probing {
	struct probing *next;
	struct engine *g;
	struct spec *spec;              /* one of these two is what the settings are in */
	struct spec_connection *connection;
	char *uid, *name, *scratch;
	struct memory *notes;           /* the job's, borrowed; NULL: it has none, or it is gone */
	struct relation **rels;         /* of the source */
	size_t nrels;
	const struct position *at;
	bool keep;                      /* the source's part is told, not dropped */
	bool anew;                      /* the job stays */
	struct job_kept kept;
	struct ask *asks;
	size_t nasks;
	json_t *found;
	struct err error;
	bool warns;                     /* what is found is told as the job's warnings */
	unsigned ms;                    /* patience */
	bool is_short;                  /* http.timeout has made it less than what is waited at most */
	struct loop_task *task;
	struct loop_timer *timer;
	probe_done *done;
	look_done *looked;
	void *arg;
};

static void probing_free(struct probing *p)
{
	struct probing **at = &p->g->probings;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	for (size_t i = 0; i < p->nasks; i++)
		if (p->asks[i].i)
			p->asks[i].probe->close(p->asks[i].i);
	for (size_t i = 0; i < p->nrels; i++)
		relation_unref(p->rels[i]);
	free(p->rels);
	free(p->asks);
	loop_task_free(p->task);
	loop_timer_free(p->timer);
	spec_free(p->spec);
	spec_connection_free(p->connection);
	json_decref(p->found);
	free(p->uid);
	free(p->name);
	free(p->scratch);
	free(p);
}

/* While it still runs. What ends the run says so itself. */
static void warn(struct probing *p)
{
	enum { TOLD_MAX = 10 };
	struct job *job = engine_find(p->g, p->uid);
	size_t i, n = 0;
	const json_t *c;
	json_array_foreach(p->found, i, c)
	{
		const char *fix = json_string_value(json_object_get(c, "fix"));
		if (!job || !job->pipeline || strcmp(json_string_value(json_object_get(c, "level")), "error") != 0 || n++ >= TOLD_MAX)
			continue;
		char *text = mem_printf("%s%s%s", json_string_value(json_object_get(c, "message")), fix ? "; " : "", fix ? fix : "");
		job_notice(job, json_string_value(json_object_get(c, "part")), text);
		free(text);
	}
	if (n > TOLD_MAX) {
		char *text = mem_printf("and %zu more of that kind: POST /jobs/validate tells all of them", n - TOLD_MAX);
		job_notice(job, "targets", text);
		free(text);
	}
}

static void end(struct probing *p)
{
	if (p->warns) {
		if (!p->g->is_closing)
			warn(p);
		probing_free(p);
		return;
	}
	json_t *found = json_incref(p->found);
	struct err e = p->error;
	struct job_kept kept = p->kept;
	probe_done *done = p->done;
	look_done *looked = p->looked;
	void *done_arg = p->arg;
	probing_free(p);
	if (looked)
		looked(done_arg, &kept, err_is_set(&e) ? &e : NULL);
	else
		done(done_arg, found, err_is_set(&e) ? &e : NULL);
	json_decref(found);
}

static void on_task(void *arg)
{
	struct probing *p = arg;
	for (size_t i = 0; i < p->nasks; i++)
		if (!p->asks[i].is_answered)
			return;
	end(p);
}

static void answered(struct ask *a)
{
	a->is_answered = true;
	loop_task_post(a->all->task);
}

/* ---- answers ---- */

/* What names no object is about the connector. */
static void add_check(struct ask *a, const struct dmsr_check *c)
{
	static const char *const levels[] = { "ok", "warning", "error" };
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s*}", "id", c->id,
		"level", levels[c->level],
		"part", a->part,
		"object", c->object ? c->object : a->connector,
		"message", c->message,
		"fix", c->fix);
	if (c->retriable)
		json_object_set_new(j, "retriable", json_true());
	json_array_append_new(a->all->found, j);
}

static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	for (size_t i = 0; i < n; i++)
		add_check(a, &checks[i]);
	if (e) {
		const struct dmsr_check c = { e->id, DMSR_CHECK_ERROR, NULL, e->message, e->hint[0] ? e->hint : NULL, e->retriable };
		add_check(a, &c);
	}
	answered(a);
}

static json_t *relation_json(const struct relation *r)
{
	static const char *const keys[] = { "none", "primary", "unique", "full" };
	json_t *columns = json_array(), *key = json_array();
	for (unsigned i = 0; i < r->ncolumns; i++) {
		const struct column *c = &r->columns[i];
		json_t *j = json_pack("{s:s, s:s, s:s, s:b, s:b}", "name", c->name,
			"type", c->native_type ? c->native_type : "",
			"logical_type", logical_type_name(c->type),
			"nullable", !!(c->flags & COLUMN_NULLABLE),
			"generated", !!(c->flags & COLUMN_GENERATED));
		json_array_append_new(columns, j);
	}
	for (unsigned i = 0; i < r->nkeys; i++)
		json_array_append_new(key, json_string(r->columns[r->keys[i]].name));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "schema", r->schema, "name", r->name, "key_kind", keys[r->key], "key", key,
		"rows_estimate", view_known(r->rows_estimate),
		"bytes_estimate", view_known(r->bytes_estimate), "columns", columns);
}

static void check_rest(struct probing *p);

/* Why it failed, if it did, the check of the source says better. */
static void take_tables(struct ask *a, struct relation *const *rels, size_t n, const struct err *e)
{
	struct probing *p = a->all;
	p->rels = e ? NULL : mem_alloc((n + 1) * sizeof(struct relation *));
	for (size_t i = 0; p->rels && i < n; i++)
		p->rels[p->nrels++] = relation_ref(rels[i]);
	check_rest(p);
}

static void on_discovered(void *ctx, struct relation *const *rels, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	if (a->kind == ASK_TABLES) {
		take_tables(a, rels, n, e);
		answered(a);
		return;
	}
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a->all->found, relation_json(rels[i]));
	if (e)
		a->all->error = *e;
	answered(a);
}

static void on_dropped(void *ctx, const char *const *left, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	if (e && a->has_nothing) {
		log_info("engine", a->all->name, "%s was never reached, and is left as it is: %s", a->part, e->message);
		answered(a);
		return;
	}
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a->all->found, json_pack("{s:s, s:s, s:b}", "part", a->part, "statement", left[i], "kept", a->keep));
	if (e && !err_is_set(&a->all->error)) {
		a->all->error = *e;
		err_prefix(&a->all->error, "%s", a->part);
	}
	answered(a);
}

static void on_looked(void *ctx, const struct dmsr_kept *k, const struct err *e)
{
	struct ask *a = ctx;
	if (k)
		job_kept_set(&a->all->kept, k);
	else
		a->all->error = *e;
	answered(a);
}

static const char *on_note_get(void *ctx, const char *key)
{
	struct ask *a = ctx;
	return a->all->notes ? memory_note(a->all->notes, key) : NULL;
}

/* The question could not be put. */
static void refuse(struct ask *a, const struct err *e)
{
	switch (a->kind) {
	case ASK_CHECK: on_checked(a, NULL, 0, e); break;
	case ASK_TABLES:
	case ASK_DISCOVER: on_discovered(a, NULL, 0, e); break;
	case ASK_DROP: on_dropped(a, NULL, 0, e); break;
	case ASK_LOOK: on_looked(a, NULL, e); break;
	}
}

/* Time is up: what has not answered is told so. Who is asked only now, since the source's tables did not come, has a while of its own. */
static void on_timeout(void *arg)
{
	struct probing *p = arg;
	const size_t n = p->nasks;
	for (size_t i = 0; i < n; i++) {
		struct ask *a = &p->asks[i];
		struct err e = { 0 };
		if (a->is_answered)
			continue;
		err_retry(&e, DMSR_EIO, "probe.timeout", "%s has not answered within %u ms", a->part, a->all->ms);
		err_hint(&e, "see whether that server, or a lock in it, keeps others waiting too%s",
			p->is_short ? "; http.timeout says how long is waited at most" : "");
		refuse(a, &e);
	}
	p->ms /= 4;
	if (p->nasks > n)
		loop_timer_start(p->timer, p->ms);
}

/* ---- questions ---- */

/* Less than a client's request may take: its answer then is which side is silent, and not that there is none. */
static unsigned client_ms(const struct engine *g)
{
	int64_t ms = config_int(g->config, "http.timeout") / 4 * 3;
	return ms < PROBE_TIME_MS ? (unsigned)ms : PROBE_TIME_MS;
}

static struct probing *probing_new(struct engine *g, size_t max, unsigned ms, probe_done *done, void *arg)
{
	struct probing *p = mem_zalloc(sizeof *p);
	*p = (struct probing){ .next = g->probings, .g = g, .ms = ms, .is_short = ms < PROBE_TIME_MS, .done = done, .arg = arg };
	g->probings = p;
	p->asks = mem_zalloc((max + 1) * sizeof *p->asks);
	p->found = json_array();
	p->kept = JOB_KEPT_NONE;
	p->task = loop_task_new(g->loop, "probe", on_task, p);
	p->timer = loop_timer_new(g->loop, "probe", on_timeout, p);
	loop_timer_start(p->timer, ms);
	loop_task_post(p->task);
	return p;
}

static bool can(const struct dmsr_probe *probe, enum ask_kind kind)
{
	switch (kind) {
	case ASK_CHECK: return probe && probe->check;
	case ASK_TABLES:
	case ASK_DISCOVER: return probe && probe->discover;
	case ASK_DROP: return probe && probe->drop;
	case ASK_LOOK: return probe && probe->look;
	}
	return false;
}

static void ask(struct probing *p, enum ask_kind kind, const char *part_name, const struct spec_part *part, const struct dmsr_probe *probe)
{
	struct ask *a = &p->asks[p->nasks];
	const struct dmsr_tables *tables = p->spec ? &p->spec->tables : &p->connection->tables;
	struct err e = { 0 };
	int rc = 0;
	if (!can(probe, kind))
		return;
	*a = (struct ask){ .all = p, .kind = kind, .keep = p->keep, .part = part_name, .connector = part->plugin->name, .probe = probe };
	a->has_nothing = kind == ASK_DROP && p->notes && part != &p->spec->source && !memory_target(p->notes, part_name)->was_ready;
	const struct dmsr_probe_host host = {
		.ctx = a,
		.env = {
			.loop = p->g->loop,
			.job = p->name,
			.uid = p->uid,
			.name = part_name,
			.scratch = p->scratch,
			.codec = plugins_codec,
			.codecs = p->g->plugins,
		},
		.checked = on_checked,
		.discovered = on_discovered,
		.dropped = on_dropped,
		.looked = on_looked,
		.note_get = on_note_get,
		.rels = p->rels,
		.nrels = p->nrels,
		.ntargets = p->spec ? p->spec->ntargets : 0,
		.keep = p->keep,
		.anew = p->anew,
	};
	p->nasks++;
	switch (kind) {
	case ASK_CHECK: rc = probe->check(part->settings, tables, p->spec ? p->spec->mode : 0, &host, &a->i, &e); break;
	case ASK_TABLES:
	case ASK_DISCOVER: rc = probe->discover(part->settings, tables, &host, &a->i, &e); break;
	case ASK_DROP: rc = probe->drop(part->settings, &host, &a->i, &e); break;
	case ASK_LOOK: rc = probe->look(part->settings, p->at, &host, &a->i, &e); break;
	}
	if (!rc)
		return;
	a->i = NULL;
	refuse(a, &e);
}

static void ask_source(struct probing *p, enum ask_kind kind) { ask(p, kind, "source", &p->spec->source, p->spec->source.plugin->source_probe); }

static void ask_targets(struct probing *p, enum ask_kind kind)
{
	for (size_t i = 0; i < p->spec->ntargets; i++)
		ask(p, kind, p->spec->targets[i].name, &p->spec->targets[i], p->spec->targets[i].plugin->target_probe);
}

static void check_rest(struct probing *p)
{
	if (!p->warns)
		ask(p, ASK_CHECK, "streamer", &p->spec->streamer, p->spec->streamer.plugin->streamer_probe);
	if (!p->warns || p->rels)
		ask_targets(p, ASK_CHECK);
}

void engine_probe_job(struct engine *g, struct spec *spec, const struct job *job, probe_done *done, void *arg)
{
	struct probing *p = probing_new(g, spec->ntargets + 3, client_ms(g), done, arg);
	p->spec = spec;
	p->uid = mem_strdup(job ? job->uid : NOBODY);
	p->name = mem_strdup(spec->name);
	p->notes = job ? job->memory : NULL;
	ask_source(p, ASK_CHECK);
	if (can(spec->source.plugin->source_probe, ASK_TABLES))
		ask_source(p, ASK_TABLES);
	else
		check_rest(p);
}

static void probe_one(struct engine *g, enum ask_kind kind, struct spec_connection *c, probe_done *done, void *arg)
{
	struct probing *p = probing_new(g, 1, client_ms(g), done, arg);
	p->connection = c;
	p->uid = mem_strdup(NOBODY);
	p->name = mem_strdup("connection");
	const struct dmsr_plugin *pl = c->part.plugin;
	const struct dmsr_probe *probe = c->role == PLUGIN_SOURCE ? pl->source_probe : c->role == PLUGIN_TARGET ? pl->target_probe : pl->streamer_probe;
	if (kind == ASK_DISCOVER && !can(probe, kind))
		err_set(&p->error, DMSR_EINVAL, "discover.unsupported", "the connector %s has no tables to discover", pl->name);
	ask(p, kind, c->part.name, &c->part, probe);
}

void engine_probe_connection(struct engine *g, struct spec_connection *c, probe_done *done, void *arg) { probe_one(g, ASK_CHECK, c, done, arg); }
void engine_probe_discover(struct engine *g, struct spec_connection *c, probe_done *done, void *arg) { probe_one(g, ASK_DISCOVER, c, done, arg); }

/* A probing of what a job made or left; its spec NULL: the error says why. */
static struct probing *probing_of(struct engine *g, struct job *job, unsigned ms, probe_done *done, void *arg)
{
	problems *ps = json_array();
	struct spec *spec = spec_parse(job->spec, g->plugins, g->secrets, ps);
	struct probing *p = probing_new(g, spec ? spec->ntargets + 1 : 0, ms, done, arg); /* one for each part but the streamer */
	p->spec = spec;
	p->uid = mem_strdup(job->uid);
	p->name = mem_strdup(job->name);
	p->scratch = mem_strdup(job->scratch);
	p->notes = job->memory;
	if (!spec) {
		const json_t *first = json_array_get(ps, 0);
		err_set(&p->error, DMSR_EINVAL, "job.validation", "%s: %s", json_string_value(json_object_get(first, "pointer")),
			json_string_value(json_object_get(first, "detail")));
	}
	json_decref(ps);
	return p;
}

void engine_probe_drop(struct engine *g, struct job *job, enum drop what, drop_done *done, void *arg)
{
	struct probing *p = probing_of(g, job, PROBE_TIME_MS, done, arg);
	p->keep = what == DROP_KEEP_SOURCE;
	p->anew = what == DROP_ANEW;
	if (p->spec)
		ask_source(p, ASK_DROP);
	p->keep = false;
	if (p->spec)
		ask_targets(p, ASK_DROP);
}

void engine_probe_look(struct engine *g, struct job *job, const struct position *at, look_done *looked, void *arg)
{
	struct probing *p = probing_of(g, job, at ? client_ms(g) : PROBE_TIME_MS, NULL, arg);
	p->looked = looked;
	p->at = at;
	if (p->spec)
		ask_source(p, ASK_LOOK);
	p->at = NULL; /* borrowed */
}

void engine_probe_targets(struct engine *g, struct job *job)
{
	struct probing *p = probing_of(g, job, PROBE_TIME_MS, NULL, NULL);
	p->warns = true;
	if (p->spec)
		ask_source(p, ASK_TABLES);
}

void engine_probes_forget(struct engine *g, const struct job *job)
{
	for (struct probing *p = g->probings; p; p = p->next)
		if (p->notes == job->memory)
			p->notes = NULL;
}

void engine_probes_cancel(struct engine *g)
{
	while (g->probings) {
		struct probing *p = g->probings;
		err_retry(&p->error, DMSR_ESTATE, "draining", "%s: the daemon is stopping, and not every server that was asked has answered", p->name);
		end(p);
	}
}

bool checks_are_good(const json_t *checks)
{
	size_t i;
	json_t *c;
	json_array_foreach((json_t *)(uintptr_t)checks, i, c)
	{
		const char *level = json_string_value(json_object_get(c, "level"));
		if (level && !strcmp(level, "error"))
			return false;
	}
	return true;
}
