/* engine_probe: one-shot questions to servers: preflight, discovery, and the removal of what a job made. A probing is one to several questions put at once;
 * it answers when all of them have, or when its time is up, and closes them at the loop's next turn. */
#include "engine_int.h"
#include <stdlib.h>
#include <string.h>

enum { PROBE_TIME_MS = 30000 };
enum ask_kind { ASK_CHECK, ASK_DISCOVER, ASK_DROP };

struct ask {
	struct probing *all;
	const char *part;               /* "source", or the target's name */
	const struct dmsr_probe *probe;
	struct dmsr_instance *i;
	bool is_answered;
};

struct probing {
	struct probing *next;
	struct engine *g;
	enum ask_kind kind;
	struct spec *spec;              /* one of these two is what the settings are in */
	struct spec_connection *connection;
	char *uid, *name, *scratch, *data;
	struct memory *notes;           /* drop: the job's, borrowed */
	struct ask *asks;
	size_t nasks;
	json_t *found;
	struct err error;
	struct loop_task *task;
	struct loop_timer *timer;
	probe_done *done;
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
	free(p->asks);
	loop_task_free(p->task);
	loop_timer_free(p->timer);
	spec_free(p->spec);
	spec_connection_free(p->connection);
	json_decref(p->found);
	free(p->uid);
	free(p->name);
	free(p->scratch);
	free(p->data);
	free(p);
}

static void on_task(void *arg)
{
	struct probing *p = arg;
	for (size_t i = 0; i < p->nasks; i++)
		if (!p->asks[i].is_answered)
			return;
	json_t *found = json_incref(p->found);
	struct err e = p->error;
	probe_done *done = p->done;
	void *done_arg = p->arg;
	probing_free(p);
	done(done_arg, found, err_is_set(&e) ? &e : NULL);
	json_decref(found);
}

static void answered(struct ask *a)
{
	a->is_answered = true;
	loop_task_post(a->all->task);
}

/* ---- answers ---- */

static void add_check(struct probing *p, const char *part, const struct dmsr_check *c)
{
	static const char *const levels[] = { "ok", "warning", "error" };
	json_t *j = json_pack("{s:s, s:s, s:s, s:s*, s:s, s:s*}", "id", c->id,
		"level", levels[c->level],
		"part", part,
		"object", c->object,
		"message", c->message,
		"fix", c->fix);
	json_array_append_new(p->found, j);
}

static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	for (size_t i = 0; i < n; i++)
		add_check(a->all, a->part, &checks[i]);
	if (e) {
		const struct dmsr_check c = { e->id, DMSR_CHECK_ERROR, NULL, e->message, e->hint[0] ? e->hint : NULL };
		add_check(a->all, a->part, &c);
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
	return json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:o}", "schema", r->schema, "name", r->name, "key_kind", keys[r->key], "key", key,
		"rows_estimate", (json_int_t)r->rows_estimate,
		"bytes_estimate", (json_int_t)r->bytes_estimate, "columns", columns);
}

static void on_discovered(void *ctx, struct relation *const *rels, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a->all->found, relation_json(rels[i]));
	if (e)
		a->all->error = *e;
	answered(a);
}

static void on_dropped(void *ctx, const char *const *left, size_t n, const struct err *e)
{
	struct ask *a = ctx;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a->all->found, json_pack("{s:s, s:s}", "part", a->part, "statement", left[i]));
	if (e && !err_is_set(&a->all->error)) {
		a->all->error = *e;
		err_prefix(&a->all->error, "%s", a->part);
	}
	answered(a);
}

static const char *on_note_get(void *ctx, const char *key)
{
	struct ask *a = ctx;
	return a->all->notes ? memory_note(a->all->notes, key) : NULL;
}

/* Time is up: what has not answered is told so. */
static void on_timeout(void *arg)
{
	struct probing *p = arg;
	for (size_t i = 0; i < p->nasks; i++) {
		struct ask *a = &p->asks[i];
		struct err e = { 0 };
		if (a->is_answered)
			continue;
		err_retry(&e, DMSR_EIO, "probe.timeout", "%s did not answer within %d s", a->part, PROBE_TIME_MS / 1000);
		if (p->kind == ASK_CHECK)
			on_checked(a, NULL, 0, &e);
		else
			on_dropped(a, NULL, 0, &e);
	}
}

/* ---- questions ---- */

static struct probing *probing_new(struct engine *g, enum ask_kind kind, size_t max, probe_done *done, void *arg)
{
	struct probing *p = mem_zalloc(sizeof *p);
	*p = (struct probing){ .next = g->probings, .g = g, .kind = kind, .done = done, .arg = arg };
	g->probings = p;
	p->asks = mem_zalloc((max + 1) * sizeof *p->asks);
	p->found = json_array();
	p->task = loop_task_new(g->loop, "probe", on_task, p);
	p->timer = loop_timer_new(g->loop, "probe", on_timeout, p);
	loop_timer_start(p->timer, PROBE_TIME_MS);
	loop_task_post(p->task);
	return p;
}

static void ask(struct probing *p, const char *part_name, const struct spec_part *part, const struct dmsr_probe *probe,
	const struct dmsr_tables *tables, enum dmsr_mode mode)
{
	struct ask *a = &p->asks[p->nasks];
	struct err e = { 0 };
	int rc = 0;
	*a = (struct ask){ .all = p, .part = part_name, .probe = probe };
	const struct dmsr_probe_host host = {
		.ctx = a,
		.env = {
			.loop = p->g->loop,
			.job = p->name,
			.uid = p->uid,
			.name = part_name,
			.scratch = p->scratch,
			.data = p->data,
			.codec = plugins_codec,
			.codecs = p->g->plugins,
		},
		.checked = on_checked,
		.discovered = on_discovered,
		.dropped = on_dropped,
		.note_get = on_note_get,
	};
	if (!probe || (p->kind == ASK_DISCOVER && !probe->discover) || (p->kind == ASK_DROP && !probe->drop) || (p->kind == ASK_CHECK && !probe->check)) {
		if (p->kind == ASK_DISCOVER)
			err_set(&p->error, DMSR_EINVAL, "discover.unsupported", "the connector %s has no tables to discover", part->plugin->name);
		return;
	}
	p->nasks++;
	switch (p->kind) {
	case ASK_CHECK: rc = probe->check(part->settings, tables, mode, &host, &a->i, &e); break;
	case ASK_DISCOVER: rc = probe->discover(part->settings, tables, &host, &a->i, &e); break;
	case ASK_DROP: rc = probe->drop(part->settings, &host, &a->i, &e); break;
	}
	if (!rc)
		return;
	a->i = NULL;
	if (p->kind == ASK_CHECK)
		on_checked(a, NULL, 0, &e);
	else
		on_dropped(a, NULL, 0, &e);
}

void engine_probe_job(struct engine *g, struct spec *spec, const char *uid, const char *name, probe_done *done, void *arg)
{
	struct probing *p = probing_new(g, ASK_CHECK, spec->ntargets + 1, done, arg);
	p->spec = spec;
	p->uid = mem_strdup(uid);
	p->name = mem_strdup(name);
	ask(p, "source", &spec->source, spec->source.plugin->source_probe, &spec->tables, spec->mode);
	for (size_t i = 0; i < spec->ntargets; i++)
		ask(p, spec->targets[i].name, &spec->targets[i], spec->targets[i].plugin->target_probe, &spec->tables, spec->mode);
}

static void probe_one(struct engine *g, enum ask_kind kind, struct spec_connection *c, probe_done *done, void *arg)
{
	struct probing *p = probing_new(g, kind, 1, done, arg);
	p->connection = c;
	p->uid = mem_strdup("00000000000000000000000000");
	p->name = mem_strdup("connection");
	const struct dmsr_plugin *pl = c->part.plugin;
	ask(p, c->is_source ? "source" : "target", &c->part, c->is_source ? pl->source_probe : pl->target_probe, &c->tables, (enum dmsr_mode)0);
}

void engine_probe_connection(struct engine *g, struct spec_connection *c, probe_done *done, void *arg) { probe_one(g, ASK_CHECK, c, done, arg); }
void engine_probe_discover(struct engine *g, struct spec_connection *c, probe_done *done, void *arg) { probe_one(g, ASK_DISCOVER, c, done, arg); }

void engine_probe_drop(struct engine *g, struct job *job, bool keep_source, drop_done *done, void *arg)
{
	problems *ps = json_array();
	struct spec *spec = spec_parse(job->spec, g->plugins, g->secrets, ps);
	struct probing *p = probing_new(g, ASK_DROP, spec ? spec->ntargets + 1 : 0, done, arg);
	p->spec = spec;
	p->uid = mem_strdup(job->uid);
	p->name = mem_strdup(job->name);
	p->scratch = mem_strdup(job->scratch);
	p->data = mem_strdup(job->data);
	p->notes = job->memory;
	if (!spec) {
		const json_t *first = json_array_get(ps, 0);
		err_set(&p->error, DMSR_EINVAL, "job.validation", "%s: %s", json_string_value(json_object_get(first, "pointer")),
			json_string_value(json_object_get(first, "detail")));
	}
	if (spec && !keep_source)
		ask(p, "source", &spec->source, spec->source.plugin->source_probe, NULL, spec->mode);
	for (size_t i = 0; spec && i < spec->ntargets; i++)
		ask(p, spec->targets[i].name, &spec->targets[i], spec->targets[i].plugin->target_probe, NULL, spec->mode);
	json_decref(ps);
}

void engine_probes_cancel(struct engine *g)
{
	while (g->probings)
		probing_free(g->probings);
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
