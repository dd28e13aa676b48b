/* engine_own: what of its servers is one job's alone, as streamers say it (dmsr_own): no two jobs of this daemon have the same. Jobs of other daemons are
 * not seen here: a streamer notices those by itself. */
#include "engine_int.h"
#include <stdlib.h>
#include <string.h>

struct owned {
	const struct dmsr_plugin *plugin;
	const char *value;              /* as it is given; in the JSON */
	char *name;                     /* NULL: nothing is its own */
};

static struct owned owned_of(const struct engine *g, const json_t *spec)
{
	const json_t *streamer = json_object_get(spec, "streamer");
	const char *type = json_string_value(json_object_get(streamer, "type"));
	struct owned o = { .plugin = plugins_find(g->plugins, PLUGIN_STREAMER, type ? type : "embedded") };
	const struct dmsr_own *own = o.plugin ? o.plugin->streamer->own : NULL;
	if (!own)
		return o;
	o.value = json_string_value(json_object_get(streamer, own->option));
	const char *value = o.value ? o.value : json_string_value(json_object_get(spec, "name"));
	o.name = value ? own->name(value) : NULL;
	return o;
}

static bool is_same(const struct owned *a, const struct owned *b)
{
	return a->name && b->name && a->plugin == b->plugin && !strcmp(a->name, b->name);
}

static bool is_older(const struct job *a, const struct job *b)
{
	return a->created_us != b->created_us ? a->created_us < b->created_us : strcmp(a->uid, b->uid) < 0;
}

/* NULL: no other job has it. */
static const struct job *owner(const struct engine *g, const struct owned *o, const struct job *self)
{
	struct owned was = { 0 };
	const struct job *found = NULL;
	if (self)
		was = owned_of(g, self->spec);
	const bool stays = is_same(o, &was);
	for (size_t i = 0; o->name && !found && i < g->njobs; i++) {
		const struct job *job = g->jobs[i];
		if (job == self || (stays && !is_older(job, self)))
			continue;
		struct owned its = owned_of(g, job->spec);
		found = is_same(o, &its) ? job : NULL;
		free(its.name);
	}
	free(was.name);
	return found;
}

void engine_check_own(const struct engine *g, const json_t *spec, const struct job *self, problems *p)
{
	char at[128];
	struct owned o = owned_of(g, spec);
	const struct job *other = owner(g, &o, self);
	if (other) {
		const struct dmsr_own *own = o.plugin->streamer->own;
		const char *value = o.value ? o.value : json_string_value(json_object_get(spec, "name"));
		problem_add(p, "conflict", NULL, pointer_join(at, sizeof at, "/streamer", own->option),
			"is \"%.200s\"%s, and what is written there is that of job %s: %s", value, o.value ? "" : " (the job's name, since it is not given)",
			other->name, own->otherwise);
	}
	free(o.name);
}

/* 0, or e and p say it. */
static int look(const struct engine *g, const json_t *spec, const struct job *self, problems *p, struct err *e)
{
	const char *name = json_string_value(json_object_get(spec, "name"));
	engine_check_own(g, spec, self, p);
	if (!json_array_size(p))
		return 0;
	const json_t *one = json_array_get(p, 0);
	err_set(e, DMSR_ESTATE, "job.conflict", "job %s would write what is another's: %s %s", name, json_string_value(json_object_get(one, "pointer")),
		json_string_value(json_object_get(one, "detail")));
	return e->code;
}

bool engine_refuse_own(struct engine *g, const json_t *spec, const struct job *self, const struct engine_call *call)
{
	struct err e = { 0 };
	problems *p = json_array();
	const bool is_taken = look(g, spec, self, p, &e);
	if (is_taken)
		engine_refuse(g, call, &e, json_incref(p));
	json_decref(p);
	return is_taken;
}

int engine_may_run(void *ctx, const struct job *job, struct err *e)
{
	problems *p = json_array();
	int rc = look(ctx, job->spec, job, p, e);
	json_decref(p);
	if (rc)
		err_hint(e, "change the job, or delete it: or the other one");
	return rc;
}
