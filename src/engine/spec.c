/* spec: see spec.h. Each part of a job (source, streamer, a target, a transform) is one object: a key that names its plugin, and that plugin's options. */
#include "spec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_LEN = 63, POINTER_MAX = 512, PARTS_MAX = 64 };

static const char *const read_only[] = { "uid", "state", "desired_state", "stop_reason", "error", "generation", "created_at", "updated_at",
	"managed_by", "file_error", "deletion", "links", "created", "restarted", "note", NULL };
static const char *const job_keys[] = { "name", "mode", "source", "tables", "streamer", "transforms", "targets", "labels", "description", NULL };
static const char *const tables_keys[] = { "include", "exclude", NULL };
static const struct { const char *name; enum dmsr_mode mode; } modes[] = {
	{ "full-load", DMSR_FULL_LOAD }, { "cdc", DMSR_CDC }, { "full-load-and-cdc", DMSR_FULL_LOAD_AND_CDC }
};

/* What is being read, and where findings go. */
struct reading {
	const struct plugins *plugins;
	const struct secrets *secrets;
	problems *p;
	const char *const *also;        /* keys of a part that are nobody's option; NULL: those of a job's */
};

static bool is_comment(const char *key) { return key[0] == '/' && key[1] == '/'; }

static bool is_one_of(const char *const *words, const char *word)
{
	for (; *words; words++)
		if (!strcmp(*words, word))
			return true;
	return false;
}

/* ---- names ---- */

static bool is_name(const char *s)
{
	size_t n = strlen(s);
	return n && n <= NAME_MAX_LEN && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == n && s[0] != '.' && s[0] != '_' && s[0] != '-';
}

static const char *read_name(const json_t *v, const char *pointer, problems *p)
{
	const char *s = json_string_value(v);
	if (!v)
		problem_add(p, "required", NULL, pointer, "is required: the name that the job is called by");
	else if (!s)
		problem_add(p, "type", NULL, pointer, "must be a string");
	else if (!is_name(s))
		problem_add(p, "pattern", NULL, pointer, "\"%.*s\" must be 1 to 63 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit",
			NAME_MAX_LEN, s);
	else
		return s;
	return NULL;
}

/* ---- parts ---- */

/* The options of the codec that an option of the table names in obj (or by its default). */
static const struct dmsr_option *codec_options(const struct plugins *plugins, const struct dmsr_option *table, const json_t *obj)
{
	for (const struct dmsr_option *o = table; o && o->name; o++) {
		if (!(o->flags & DMSR_OPT_CODEC))
			continue;
		const char *name = json_string_value(json_object_get(obj, o->name));
		const struct dmsr_plugin *codec = plugins_find(plugins, PLUGIN_CODEC, name ? name : o->dflt ? o->dflt : "");
		return codec ? codec->codec_options : NULL;
	}
	return NULL;
}

static const struct dmsr_option *role_options(const struct dmsr_plugin *plugin, enum plugin_role role)
{
	switch (role) {
	case PLUGIN_SOURCE: return plugin->source_options;
	case PLUGIN_TARGET: return plugin->target_options;
	case PLUGIN_STREAMER: return plugin->streamer_options;
	case PLUGIN_TRANSFORM: return plugin->transform_options;
	case PLUGIN_CODEC: return plugin->codec_options;
	}
	return NULL;
}

static bool has_role(const struct dmsr_plugin *plugin, enum plugin_role role)
{
	switch (role) {
	case PLUGIN_SOURCE: return plugin->source;
	case PLUGIN_TARGET: return plugin->target;
	case PLUGIN_STREAMER: return plugin->streamer;
	case PLUGIN_TRANSFORM: return plugin->transform;
	case PLUGIN_CODEC: return plugin->codec;
	}
	return false;
}

static const char *const role_names[] = { [PLUGIN_SOURCE] = "source", [PLUGIN_TARGET] = "target", [PLUGIN_STREAMER] = "streamer",
	[PLUGIN_TRANSFORM] = "transform", [PLUGIN_CODEC] = "codec" };
static const char *role_key(enum plugin_role role) { return role == PLUGIN_SOURCE || role == PLUGIN_TARGET ? "connector" : "type"; }

/* The plugins of a role as a table of one ENUM-like list of names: what options_nearest looks a misspelt name up in. */
static void no_plugin(const struct reading *r, enum plugin_role role, const char *name, const char *pointer)
{
	struct dmsr_option known[64] = { 0 };
	char list[512] = "";
	size_t n = 0, len = 0;
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(r->plugins, i)) && n < 63; i++) {
		if (!has_role(pl, role))
			continue;
		known[n++].name = pl->name;
		len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", len ? ", " : "", pl->name);
		if (len >= sizeof list)
			len = sizeof list - 1;
	}
	const char *near = options_nearest(name, known, NULL, NULL);
	problem_add(r->p, "not-found", near, pointer, "there is no %s \"%.*s\"; there are: %s", role_names[role], NAME_MAX_LEN, name, len ? list : "none");
}

static const struct dmsr_plugin *part_plugin(const struct reading *r, enum plugin_role role, const json_t *obj, const char *pointer)
{
	char at[POINTER_MAX];
	const json_t *v = json_object_get(obj, role_key(role));
	const char *name = json_string_value(v);
	pointer_join(at, sizeof at, pointer, role_key(role));
	if (!v) {
		problem_add(r->p, "required", NULL, at, "is required: which %s this is", role_names[role]);
		return NULL;
	}
	if (!name) {
		problem_add(r->p, "type", NULL, at, "must be a string");
		return NULL;
	}
	const struct dmsr_plugin *plugin = plugins_find(r->plugins, role, name);
	if (!plugin)
		no_plugin(r, role, name, at);
	return plugin;
}

/* Where a part's server is: its secret is for that one alone. */
static const char *const place_keys[] = { "connector", "type", "host", "port", "sslmode", "sslrootcert",
	"bootstrap_servers", "security", "ssl_ca", "sasl_mechanism", NULL };

/* Is where it is among the findings from n on? */
static bool is_place_wrong(const problems *p, size_t n, const char *pointer)
{
	const size_t len = strlen(pointer);
	for (; n < json_array_size(p); n++) {
		const char *at = json_string_value(json_object_get(json_array_get(p, n), "pointer"));
		if (!strncmp(at, pointer, len) && at[len] == '/' && is_one_of(place_keys, at + len + 1))
			return true;
	}
	return false;
}

/* What GET shows in place of a secret is no secret. */
static void refuse_stars(const struct dmsr_option *table, const json_t *obj, const char *pointer, problems *p)
{
	char at[POINTER_MAX];
	for (const struct dmsr_option *o = table; o && o->name; o++) {
		const char *s = json_string_value(json_object_get(obj, o->name));
		if ((o->flags & DMSR_OPT_SECRET) && s && !strcmp(s, "***"))
			problem_add(p, "secret", NULL, pointer_join(at, sizeof at, pointer, o->name),
				"\"***\" stands for a secret that is kept, and none is kept for this server: what is for another host, port or security is not "
				"sent to it. Give the secret, or {\"$secret\": \"name\"}");
	}
}

/* 0, or -1 with problems added. */
static int read_part(const struct reading *r, enum plugin_role role, const json_t *obj, const char *pointer, struct spec_part *out)
{
	const char *const also[] = { role_key(role), role == PLUGIN_TARGET ? "name" : NULL, NULL };
	static const struct dmsr_option none[1];
	if (!json_is_object(obj)) {
		problem_add(r->p, "type", NULL, pointer, "must be an object");
		return -1;
	}
	out->plugin = part_plugin(r, role, obj, pointer);
	if (!out->plugin)
		return -1;
	const struct dmsr_option *table = role_options(out->plugin, role);
	const struct dmsr_option *codec = codec_options(r->plugins, table, obj);
	size_t before = json_array_size(r->p);
	out->settings = options_parse(table ? table : none, codec, obj, r->also ? r->also : also, pointer, r->secrets, r->p);
	if (!is_place_wrong(r->p, before, pointer)) { /* else nobody knows yet whether it is the one that the secret is for */
		refuse_stars(table, obj, pointer, r->p);
		refuse_stars(codec, obj, pointer, r->p);
	}
	return json_array_size(r->p) == before ? 0 : -1;
}

static void part_fini(struct spec_part *part) { settings_free(part->settings); }

/* ---- tables ---- */

static const char *const *read_patterns(const json_t *list, const char *pointer, size_t *n, problems *p)
{
	char at[POINTER_MAX], number[24];
	const char **out = NULL;
	size_t i;
	json_t *v;
	*n = 0;
	if (!list)
		return NULL;
	if (!json_is_array(list)) {
		problem_add(p, "type", NULL, pointer, "must be a list of patterns like \"public.*\"");
		return NULL;
	}
	out = mem_alloc((json_array_size(list) + 1) * sizeof *out);
	json_array_foreach((json_t *)(uintptr_t)list, i, v)
	{
		struct err e = { 0 };
		snprintf(number, sizeof number, "%zu", i);
		pointer_join(at, sizeof at, pointer, number);
		if (!json_is_string(v))
			problem_add(p, "type", NULL, at, "must be a string");
		else if (dmsr_pattern_check(json_string_value(v), &e))
			problem_add(p, "pattern", NULL, at, "%s", e.message);
		else
			out[(*n)++] = json_string_value(v);
	}
	return out;
}

static void read_tables(const json_t *obj, const char *pointer, struct dmsr_tables *out, problems *p)
{
	char at[POINTER_MAX];
	const char *key;
	json_t *v;
	if (!obj)
		return;
	if (!json_is_object(obj)) {
		problem_add(p, "type", NULL, pointer, "must be an object: {\"include\": [...], \"exclude\": [...]}");
		return;
	}
	json_object_foreach((json_t *)(uintptr_t)obj, key, v)
	{
		if (is_comment(key) || is_one_of(tables_keys, key))
			continue;
		problem_add(p, "unknown-key", options_nearest(key, NULL, NULL, tables_keys), pointer_join(at, sizeof at, pointer, key),
			"there is no \"%.*s\" here", NAME_MAX_LEN, key);
	}
	out->include = read_patterns(json_object_get(obj, "include"), pointer_join(at, sizeof at, pointer, "include"), &out->ninclude, p);
	out->exclude = read_patterns(json_object_get(obj, "exclude"), pointer_join(at, sizeof at, pointer, "exclude"), &out->nexclude, p);
}

void spec_tables(const json_t *json, struct dmsr_tables *out)
{
	problems *none = json_array();
	*out = (struct dmsr_tables){ 0 };
	read_tables(json_object_get(json, "tables"), "/tables", out, none);
	json_decref(none);
}

void spec_tables_fini(struct dmsr_tables *t)
{
	free((void *)(uintptr_t)t->include);
	free((void *)(uintptr_t)t->exclude);
}

/* ---- the job ---- */

static void read_keys(const json_t *json, problems *p)
{
	char at[POINTER_MAX];
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)json, key, v)
	{
		if (is_comment(key) || is_one_of(job_keys, key) || is_one_of(read_only, key))
			continue;
		const char *near = options_nearest(key, NULL, NULL, job_keys);
		pointer_join(at, sizeof at, "", key);
		if (near)
			problem_add(p, "unknown-key", near, at, "a job has no \"%.*s\": did you mean \"%s\"?", NAME_MAX_LEN, key, near);
		else
			problem_add(p, "unknown-key", NULL, at, "a job has no \"%.*s\"", NAME_MAX_LEN, key);
	}
}

static void read_mode(const json_t *v, enum dmsr_mode *out, problems *p)
{
	const char *s = json_string_value(v);
	*out = DMSR_FULL_LOAD_AND_CDC;
	if (!v)
		return;
	for (size_t i = 0; s && i < sizeof modes / sizeof *modes; i++) {
		if (!strcmp(s, modes[i].name)) {
			*out = modes[i].mode;
			return;
		}
	}
	problem_add(p, s ? "enum" : "type", NULL, "/mode", "must be one of \"full-load\", \"cdc\", \"full-load-and-cdc\"");
}

/* Of a job that is made: what GET gave for one that is deleted cannot be asked for. */
static void read_desire(const json_t *v, problems *p)
{
	const char *s = json_string_value(v);
	if (v && (!s || (strcmp(s, "running") != 0 && strcmp(s, "paused") != 0 && strcmp(s, "stopped") != 0)))
		problem_add(p, s ? "enum" : "type", NULL, "/desired_state", "must be one of \"running\", \"paused\", \"stopped\"");
}

static void read_labels(const json_t *labels, problems *p)
{
	char at[POINTER_MAX];
	const char *key;
	json_t *v;
	if (labels && !json_is_object(labels))
		problem_add(p, "type", NULL, "/labels", "must be an object of strings");
	json_object_foreach((json_t *)(uintptr_t)labels, key, v)
	{
		if (!json_is_string(v))
			problem_add(p, "type", NULL, pointer_join(at, sizeof at, "/labels", key), "must be a string");
	}
}

static const json_t *list_of(const json_t *json, const char *key, const char *pointer, problems *p)
{
	const json_t *v = json_object_get(json, key);
	if (v && !json_is_array(v)) {
		problem_add(p, "type", NULL, pointer, "must be a list of objects");
		return NULL;
	}
	if (json_array_size(v) > PARTS_MAX) {
		problem_add(p, "range", NULL, pointer, "has %zu entries: a job may have %d", json_array_size(v), PARTS_MAX);
		return NULL;
	}
	return v;
}

static void target_name(struct spec *s, struct spec_part *t, const json_t *obj, const char *pointer, problems *p)
{
	char at[POINTER_MAX];
	const json_t *v = json_object_get(obj, "name");
	pointer_join(at, sizeof at, pointer, "name");
	t->name = v ? read_name(v, at, p) : json_string_value(json_object_get(obj, "connector"));
	static const char *const taken[] = { "source", "streamer", "state", "job", "delete", NULL };
	if (t->name && is_one_of(taken, t->name))
		problem_add(p, "reserved", NULL, at, "\"%s\" is what a part of the job itself is called: give the target another name", t->name);
	for (const struct spec_part *o = s->targets; t->name && o < t; o++) {
		if (!o->name || strcmp(o->name, t->name) != 0)
			continue;
		problem_add(p, "duplicate", NULL, at, "two targets are called \"%s\": give each a \"name\" of its own", t->name);
		break;
	}
}

/* By another name it may be the same place still: nobody can tell that here. */
static bool is_same_database(const json_t *one, const json_t *other)
{
	static const char *const place[] = { "connector", "host", "port", "database" };
	for (size_t i = 0; i < sizeof place / sizeof *place; i++) {
		const json_t *a = json_object_get(one, place[i]), *b = json_object_get(other, place[i]);
		if (a != b && !json_equal(a, b))
			return false;
	}
	return json_object_get(one, "database");
}

/* It would read what it writes, for ever; and of two targets in one place each would take the other for an earlier run of itself. */
static void check_target_place(const json_t *source, const json_t *targets, size_t n, const char *pointer, problems *p)
{
	const json_t *target = json_array_get(targets, n);
	char at[POINTER_MAX];
	pointer_join(at, sizeof at, pointer, "database");
	if (is_same_database(source, target))
		problem_add(p, "conflict", NULL, at, "is the source's own database: name another one");
	for (size_t i = 0; i < n; i++) {
		if (!is_same_database(json_array_get(targets, i), target))
			continue;
		problem_add(p, "conflict", NULL, at, "is the database of target %zu, too: name another one", i);
		break;
	}
}

static void read_parts(struct spec *s, const struct reading *r)
{
	char at[POINTER_MAX];
	const json_t *targets = list_of(s->json, "targets", "/targets", r->p), *transforms = list_of(s->json, "transforms", "/transforms", r->p);
	const json_t *streamer = json_object_get(s->json, "streamer"), *source = json_object_get(s->json, "source");
	if (!source)
		problem_add(r->p, "required", NULL, "/source", "is required: {\"connector\": ..., its options}");
	else
		read_part(r, PLUGIN_SOURCE, source, "/source", &s->source);
	json_t *dflt = json_pack("{s:s}", "type", "embedded");
	read_part(r, PLUGIN_STREAMER, streamer ? streamer : dflt, "/streamer", &s->streamer);
	json_decref(dflt);
	s->targets = mem_zalloc((json_array_size(targets) + 1) * sizeof *s->targets);
	for (; s->ntargets < json_array_size(targets); s->ntargets++) {
		struct spec_part *t = &s->targets[s->ntargets];
		snprintf(at, sizeof at, "/targets/%zu", s->ntargets);
		target_name(s, t, json_array_get(targets, s->ntargets), at, r->p);
		check_target_place(source, targets, s->ntargets, at, r->p);
		read_part(r, PLUGIN_TARGET, json_array_get(targets, s->ntargets), at, t);
	}
	if (!s->ntargets && (!streamer || !strcmp(s->streamer.plugin ? s->streamer.plugin->name : "", "embedded")))
		problem_add(r->p, "required", NULL, "/targets", "the embedded streamer keeps nothing for others: at least one target is required");
	s->transforms = mem_zalloc((json_array_size(transforms) + 1) * sizeof *s->transforms);
	for (; s->ntransforms < json_array_size(transforms); s->ntransforms++) {
		snprintf(at, sizeof at, "/transforms/%zu", s->ntransforms);
		read_part(r, PLUGIN_TRANSFORM, json_array_get(transforms, s->ntransforms), at, &s->transforms[s->ntransforms]);
	}
}

/* Rows that go past the streamer need somebody to go to, and a source that sends changes beside them. */
static void check_load_way(const struct spec *s, const struct plugins *plugins, problems *p)
{
	const struct dmsr_streamer *streamer = s->streamer.plugin ? s->streamer.plugin->streamer : NULL;
	const struct dmsr_source *source = s->source.plugin ? s->source.plugin->source : NULL;
	if (!streamer || !s->streamer.settings || !streamer->load_way || streamer->load_way(s->streamer.settings) != DMSR_LOAD_PAST)
		return;
	if (!plugins_find(plugins, PLUGIN_STREAMER, "embedded"))
		problem_add(p, "conflict", NULL, "/streamer/load", "is \"direct\", for which the plugin embedded is missing in this dmsrd");
	if (!s->ntargets)
		problem_add(p, "conflict", NULL, "/streamer/load", "is \"direct\", and the job has no target: nobody would get the rows");
	if (s->mode == DMSR_FULL_LOAD)
		problem_add(p, "conflict", NULL, "/streamer/load", "is \"direct\", and mode full-load has nothing but rows: use the streamer embedded");
	if (source && s->source.settings && !(source->loads_beside && source->loads_beside(s->source.settings)))
		problem_add(p, "conflict", NULL, "/streamer/load", "is \"direct\", and the source sends no changes while it loads (hold_wal): one of the two");
}

struct spec *spec_parse(const json_t *json, const struct plugins *plugins, const struct secrets *secrets, problems *p)
{
	size_t before = json_array_size(p);
	const struct reading r = { plugins, secrets, p, NULL };
	if (!json_is_object(json)) {
		problem_add(p, "type", NULL, "", "a job must be a JSON object");
		return NULL;
	}
	struct spec *s = mem_zalloc(sizeof *s);
	s->json = json_deep_copy(json);
	read_keys(s->json, p);
	s->name = read_name(json_object_get(s->json, "name"), "/name", p);
	read_mode(json_object_get(s->json, "mode"), &s->mode, p);
	read_desire(json_object_get(s->json, "desired_state"), p);
	read_labels(json_object_get(s->json, "labels"), p);
	if (json_object_get(s->json, "description") && !json_is_string(json_object_get(s->json, "description")))
		problem_add(p, "type", NULL, "/description", "must be a string");
	read_tables(json_object_get(s->json, "tables"), "/tables", &s->tables, p);
	read_parts(s, &r);
	check_load_way(s, plugins, p);
	if (json_array_size(p) == before)
		return s;
	spec_free(s);
	return NULL;
}

void spec_free(struct spec *s)
{
	if (!s)
		return;
	part_fini(&s->source);
	part_fini(&s->streamer);
	for (size_t i = 0; i < s->ntargets; i++)
		part_fini(&s->targets[i]);
	for (size_t i = 0; i < s->ntransforms; i++)
		part_fini(&s->transforms[i]);
	free(s->targets);
	free(s->transforms);
	spec_tables_fini(&s->tables);
	json_decref(s->json);
	free(s);
}

/* ---- one connection ---- */

struct spec_connection *spec_connection_parse(const json_t *json, const struct plugins *plugins, const struct secrets *secrets, problems *p)
{
	size_t before = json_array_size(p);
	static const enum plugin_role roles[] = { PLUGIN_SOURCE, PLUGIN_TARGET, PLUGIN_STREAMER };
	if (!json_is_object(json)) {
		problem_add(p, "type", NULL, "", "a connection must be a JSON object: {\"connector\": ..., \"role\": \"source\" or \"target\", its options}, "
			"or {\"type\": ..., \"role\": \"streamer\", its options}");
		return NULL;
	}
	struct spec_connection *c = mem_zalloc(sizeof *c);
	c->json = json_deep_copy(json);
	const json_t *v = json_object_get(c->json, "role");
	const char *role = v ? json_string_value(v) : "source";
	size_t n = 0;
	while (n < sizeof roles / sizeof *roles && (!role || strcmp(role, role_names[roles[n]]) != 0))
		n++;
	if (n == sizeof roles / sizeof *roles)
		problem_add(p, "enum", NULL, "/role", "must be \"source\", \"target\" or \"streamer\"");
	else
		c->role = roles[n];
	const char *const also[] = { role_key(c->role), "role", "tables", "name", NULL };
	const struct reading r = { plugins, secrets, p, also };
	c->part.name = role_names[c->role];
	read_tables(json_object_get(c->json, "tables"), "/tables", &c->tables, p);
	read_part(&r, c->role, c->json, "", &c->part);
	if (json_array_size(p) == before)
		return c;
	spec_connection_free(c);
	return NULL;
}

void spec_connection_free(struct spec_connection *c)
{
	if (!c)
		return;
	part_fini(&c->part);
	spec_tables_fini(&c->tables);
	json_decref(c->json);
	free(c);
}

/* ---- a streamer for a job that names none ---- */

void spec_check_streamer(const json_t *streamer, const char *pointer, const struct plugins *plugins, const struct secrets *secrets, problems *p)
{
	const struct reading r = { plugins, secrets, p, NULL };
	struct spec_part part = { 0 };
	read_part(&r, PLUGIN_STREAMER, streamer, pointer, &part);
	part_fini(&part);
}

json_t *spec_give_streamer(const json_t *json, const json_t *streamer)
{
	if (!json_is_object(json) || json_object_get(json, "streamer") || !json_object_size(streamer))
		return json_incref((json_t *)(uintptr_t)json);
	json_t *with = json_copy((json_t *)(uintptr_t)json);
	json_object_set_new(with, "streamer", json_deep_copy(streamer));
	return with;
}

/* ---- its targets ---- */

const char *spec_target_name(const json_t *target)
{
	const char *name = json_string_value(json_object_get(target, "name"));
	return name ? name : json_string_value(json_object_get(target, "connector"));
}

const json_t *spec_target(const json_t *json, const char *name)
{
	const json_t *list = json_object_get(json, "targets");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *is = spec_target_name(json_array_get(list, i));
		if (is && !strcmp(is, name))
			return json_array_get(list, i);
	}
	return NULL;
}

/* ---- copies ---- */

json_t *spec_clean(const json_t *json)
{
	json_t *copy = json_deep_copy(json);
	for (size_t i = 0; read_only[i]; i++)
		json_object_del(copy, read_only[i]);
	return copy;
}

/* Calls fn for each part of a job that has options: the job's object holds it at `key`, or list[i]. */
static void each_part(json_t *job, void (*fn)(void *arg, enum plugin_role role, json_t *part), void *arg)
{
	static const struct { const char *key; enum plugin_role role; } parts[] = {
		{ "source", PLUGIN_SOURCE }, { "streamer", PLUGIN_STREAMER }, { "transforms", PLUGIN_TRANSFORM }, { "targets", PLUGIN_TARGET }
	};
	for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
		json_t *v = json_object_get(job, parts[k].key);
		if (json_is_object(v))
			fn(arg, parts[k].role, v);
		for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
			if (json_is_object(json_array_get(v, i)))
				fn(arg, parts[k].role, json_array_get(v, i));
	}
}

/* Unknown plugin: nobody can say what is secret, so every string but its name and kind is. */
static void hide_all(json_t *part)
{
	const char *key;
	json_t *v;
	void *next;
	json_object_foreach_safe(part, next, key, v)
	{
		if (strcmp(key, "connector") != 0 && strcmp(key, "type") != 0 && strcmp(key, "name") != 0)
			json_object_set_new(part, key, json_string("***"));
	}
}

static void redact_part(void *arg, enum plugin_role role, json_t *part)
{
	const struct plugins *plugins = arg;
	const char *name = json_string_value(json_object_get(part, role_key(role)));
	const struct dmsr_plugin *plugin = name ? plugins_find(plugins, role, name) : NULL;
	if (!plugin) {
		hide_all(part);
		return;
	}
	const struct dmsr_option *table = role_options(plugin, role);
	json_t *copy = options_redact(table, codec_options(plugins, table, part), part);
	json_object_update(part, copy);
	json_decref(copy);
}

json_t *spec_redact(const json_t *json, const struct plugins *plugins)
{
	json_t *copy = json_deep_copy(json);
	each_part(copy, redact_part, (void *)(uintptr_t)plugins);
	return copy;
}

struct keep {
	const json_t *old;
	const struct plugins *plugins;
};

static const json_t *old_part(const json_t *old, enum plugin_role role, const json_t *part)
{
	if (role == PLUGIN_SOURCE || role == PLUGIN_STREAMER)
		return json_object_get(old, role == PLUGIN_SOURCE ? "source" : "streamer");
	if (role != PLUGIN_TARGET)
		return NULL;
	const char *name = spec_target_name(part);
	return name ? spec_target(old, name) : NULL;
}

/* Nobody may send somebody else's password to a server of his own, or in the clear. */
static bool is_same_place(const json_t *a, const json_t *b)
{
	for (const char *const *key = place_keys; *key; key++) {
		const json_t *x = json_object_get(a, *key), *y = json_object_get(b, *key);
		if (x != y && !json_equal(x, y))
			return false;
	}
	return true;
}

static void keep_part(void *arg, enum plugin_role role, json_t *part)
{
	const struct keep *k = arg;
	const char *name = json_string_value(json_object_get(part, role_key(role)));
	const struct dmsr_plugin *plugin = name ? plugins_find(k->plugins, role, name) : NULL;
	const json_t *was = old_part(k->old, role, part);
	const struct dmsr_option *tables[2] = { plugin ? role_options(plugin, role) : NULL, NULL };
	tables[1] = codec_options(k->plugins, tables[0], part);
	for (size_t t = 0; was && t < 2; t++) {
		for (const struct dmsr_option *o = tables[t]; o && o->name; o++) {
			const char *given = json_string_value(json_object_get(part, o->name));
			json_t *v = json_object_get(was, o->name);
			if (!(o->flags & DMSR_OPT_SECRET) || !given || strcmp(given, "***") != 0)
				continue;
			if (v && is_same_place(part, was))
				json_object_set(part, o->name, v);
		}
	}
}

json_t *spec_keep_secrets(const json_t *json, const json_t *old, const struct plugins *plugins)
{
	json_t *copy = json_deep_copy(json);
	struct keep k = { old, plugins };
	each_part(copy, keep_part, &k);
	return copy;
}

/* ---- schema ---- */

static json_t *described(const char *type, const char *text) { return json_pack("{s:s, s:s}", "type", type, "description", text); }

static bool has_value(const struct dmsr_option *o, const char *word)
{
	size_t n = strlen(word);
	for (const char *s = o->values; *s; s += *s == '|') {
		size_t len = strcspn(s, "|");
		if (len == n && !memcmp(s, word, n))
			return true;
		s += len;
	}
	return false;
}

/* A part that names a codec has that codec's options, too. */
static json_t *codec_branches(const struct plugins *plugins, const struct dmsr_option *o)
{
	json_t *all = json_array();
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(plugins, i)); i++) {
		if (!has_role(pl, PLUGIN_CODEC) || !has_value(o, pl->name))
			continue;
		json_t *options = options_schema(pl->codec_options, NULL), *named = json_pack("{s:{s:{s:s}}}", "properties", o->name, "const", pl->name);
		if (!o->dflt || strcmp(o->dflt, pl->name) != 0)
			json_object_set_new(named, "required", json_pack("[s]", o->name));
		json_array_append_new(all, json_pack("{s:o, s:{s:O}}", "if", named, "then", "properties", json_object_get(options, "properties")));
		json_decref(options);
	}
	return all;
}

static json_t *part_schema(const struct plugins *plugins, enum plugin_role role, const struct dmsr_plugin *pl)
{
	const struct dmsr_option *table = role_options(pl, role);
	json_t *s = options_schema(table, NULL), *properties = json_object_get(s, "properties");
	json_object_set_new(properties, role_key(role), json_pack("{s:s}", "const", pl->name));
	if (role == PLUGIN_TARGET)
		json_object_set_new(properties, "name", described("string", "What the target is called; default: its connector's name."));
	json_array_append_new(json_object_get(s, "required"), json_string(role_key(role)));
	json_object_set_new(s, "title", json_string(pl->name));
	json_object_set_new(s, "description", json_string(pl->summary));
	for (const struct dmsr_option *o = table; o && o->name; o++)
		if (o->flags & DMSR_OPT_CODEC)
			json_object_set_new(s, "allOf", codec_branches(plugins, o));
	json_object_del(s, "additionalProperties"); /* which does not see a branch's */
	json_object_set_new(s, "unevaluatedProperties", json_false());
	return s;
}

/* Of a role that nobody has: nothing will do. */
static json_t *role_schema(const struct plugins *plugins, enum plugin_role role)
{
	json_t *any = json_array();
	const struct dmsr_plugin *pl;
	for (size_t i = 0; (pl = plugins_at(plugins, i)); i++)
		if (has_role(pl, role))
			json_array_append_new(any, part_schema(plugins, role, pl));
	if (json_array_size(any))
		return json_pack("{s:o}", "anyOf", any);
	json_decref(any);
	return json_false();
}

json_t *spec_schema(const struct plugins *plugins)
{
	json_t *properties = json_object();
	json_object_set_new(properties, "name", json_pack("{s:s, s:s}", "type", "string", "pattern", "^[a-z0-9][a-z0-9._-]{0,62}$"));
	json_t *mode = json_pack("{s:s, s:[s,s,s], s:s}", "type", "string", "enum", modes[0].name, modes[1].name, modes[2].name, "default", modes[2].name);
	json_object_set_new(properties, "mode", mode);
	json_object_set_new(properties, "description", json_pack("{s:s}", "type", "string"));
	json_object_set_new(properties, "labels", json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "string"));
	json_t *patterns = json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "string");
	json_t *tables = json_pack("{s:s, s:{s:O, s:o}, s:{s:{}}, s:b}", "type", "object",
		"properties", "include", patterns, "exclude", patterns,
		"patternProperties", "^//", "additionalProperties", 0);
	json_object_set_new(properties, "tables", tables);
	json_object_set_new(properties, "source", role_schema(plugins, PLUGIN_SOURCE));
	json_object_set_new(properties, "streamer", role_schema(plugins, PLUGIN_STREAMER));
	json_object_set_new(properties, "targets", json_pack("{s:s, s:o}", "type", "array", "items", role_schema(plugins, PLUGIN_TARGET)));
	json_object_set_new(properties, "transforms", json_pack("{s:s, s:o}", "type", "array", "items", role_schema(plugins, PLUGIN_TRANSFORM)));
	for (size_t i = 0; read_only[i]; i++)
		json_object_set_new(properties, read_only[i], json_pack("{s:b, s:s}", "readOnly", 1, "description", "Ignored in a request."));
	json_t *desired = json_pack("{s:s, s:[s,s,s], s:s, s:s}", "type", "string", "enum", "running", "paused", "stopped", "default", "running",
		"description", "What a job begins as. Of one that is there the verbs change it: a PUT passes over it.");
	json_object_set_new(properties, "desired_state", desired);
	return json_pack("{s:s, s:o, s:[s,s], s:{s:{}}, s:b}", "type", "object", "properties", properties, "required", "name", "source",
		"patternProperties", "^//", "additionalProperties", 0);
}
