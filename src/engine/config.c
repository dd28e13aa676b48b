/* config: the daemon's own settings: one table, five layers, each checked as it is laid over the ones below. In: files, environment, command line.
 * Out: values that are whole and right, each with the layer it came from; or findings, each with its pointer and place. Owns its values. */
#include "engine/config_int.h"
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIVE DMSR_OPT_LIVE
const struct config_entry config_table[] = {
	{ "state_dir", DMSR_OPT_STRING, 0, DMSR_STATE_DIR, NULL, 0, 0, "where the daemon keeps what it must remember; only one dmsrd may have it" },
	{ "plugin_dir", DMSR_OPT_STRING, 0, DMSR_PLUGIN_DIR, NULL, 0, 0, "plugins that are loaded at the start; empty: only the built-in ones" },
	{ "jobs_dir", DMSR_OPT_STRING, LIVE, CONFIG_JOBS_DIR, NULL, 0, 0, "jobs as files, one a job, read-only in the API; empty: none" },
	{ "drain_timeout", DMSR_OPT_DURATION, LIVE, "30s", NULL, 0, 3600000, "how long SIGTERM waits for the targets to finish what they have" },
	{ "log.format", DMSR_OPT_ENUM, LIVE, "logfmt", "logfmt|json", 0, 0, "how a line of the log is written" },
	{ "log.level", DMSR_OPT_ENUM, LIVE, "info", "error|warn|info|debug", 0, 0, "the least important lines that are written" },
	{ "log.levels", CONFIG_OPT_OBJECT, LIVE, NULL, NULL, 0, 0, "room -> level, for rooms with a level of their own" },
	{ "secrets", CONFIG_OPT_OBJECT, LIVE, NULL, NULL, 0, 0, "name -> where its value is: a file, an environment variable, a credential of systemd" },
	{ "http.listen", DMSR_OPT_STRING, 0, "127.0.0.1:8080", NULL, 0, 0, "ADDRESS:PORT of the API; off loopback only with TLS and tokens; empty: none" },
	{ "http.socket", DMSR_OPT_STRING, 0, "/run/dmsr/api.sock", NULL, 0, 0, "Unix socket of the API; empty: none" },
	{ "http.tokens", CONFIG_OPT_OBJECT, LIVE | DMSR_OPT_SECRET, NULL, NULL, 0, 0,
		"name -> where the bearer token is; when there is one, each request over TCP needs one" },
	{ "http.tls_cert", DMSR_OPT_STRING, LIVE, "", NULL, 0, 0, "certificate chain of the API, PEM" },
	{ "http.tls_key", DMSR_OPT_STRING, LIVE, "", NULL, 0, 0, "private key of the certificate, PEM" },
	{ "http.allowed_hosts", DMSR_OPT_LIST, LIVE, NULL, NULL, 0, 0, "names by which the API may be called, beside localhost and its own address" },
	{ "http.allowed_origins", DMSR_OPT_LIST, LIVE, NULL, NULL, 0, 0, "origins of web pages that may call the API, beside its own" },
	{ "http.body_max", DMSR_OPT_BYTES, LIVE, "1MiB", NULL, 1024, 64 << 20, "the longest body of a request" },
	{ "http.connections_max", DMSR_OPT_INT, LIVE, "256", NULL, 1, 10000, "open connections to the API" },
	{ "http.connections_per_ip_max", DMSR_OPT_INT, LIVE, "64", NULL, 1, 10000, "open connections to the API from one address" },
	{ "http.timeout", DMSR_OPT_DURATION, LIVE, "30s", NULL, 1000, 3600000, "how long a request may take to arrive, to be answered and to be sent, each" },
	{ "jobs.retry_initial", DMSR_OPT_DURATION, LIVE, "1s", NULL, 10, 3600000, "the pause before a job's first new attempt; it doubles" },
	{ "jobs.retry_max", DMSR_OPT_DURATION, LIVE, "1m", NULL, 10, 86400000, "the longest pause between two attempts of a job" },
	{ "jobs.retry_forever", DMSR_OPT_BOOL, LIVE, "true", NULL, 0, 0,
		"try on for ever what may be well again by itself; false: a job fails after 10 attempts without progress" },
	{ "jobs.look_interval", DMSR_OPT_DURATION, LIVE, "30s", NULL, 1000, 3600000,
		"how often the source of a job that does not run is asked what it keeps for the job: its slot, and the log behind it" },
	{ "jobs.streamer", CONFIG_OPT_OBJECT, LIVE | DMSR_OPT_SECRET, NULL, NULL, 0, 0,
		"the streamer that a job gets when it is made and names none, as a job would have it; none: embedded" },
	{ "metrics.per_table", DMSR_OPT_BOOL, LIVE, "false", NULL, 0, 0, "a line in /metrics for each table, too" },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

/* Variables with our prefix that are not options: ours, and those that Kubernetes and Docker make for a service named dmsr. */
static const char *const reserved_variables[] = { "DMSR_FAILPOINT", "DMSR_BUILD", "DMSR_FUZZING", "DMSR_QUICKSTART", "DMSR_KAFKA_*", "DMSR_*SERVICE_HOST",
	"DMSR_*SERVICE_PORT*", "DMSR_*PORT", "DMSR_*PORT_[0-9]*", NULL };

struct config {
	json_t *values;            /* path -> value as given, defaults too; objects without comments */
	json_t *origins;           /* path -> text */
	json_t *places;            /* path -> "file:line", of those that a file set */
	struct settings *settings; /* all but the objects, typed */
};

/* ---- the table ---- */

static const struct config_entry *find_entry(const char *path)
{
	for (const struct config_entry *t = config_table; t->path; t++)
		if (!strcmp(t->path, path))
			return t;
	return NULL;
}

/* The object that path is in: "log.levels.http" -> log.levels. */
static const struct config_entry *find_object(const char *path)
{
	for (const struct config_entry *t = config_table; t->path; t++) {
		size_t n = strlen(t->path);
		if (t->type == CONFIG_OPT_OBJECT && !strncmp(t->path, path, n) && path[n] == '.' && path[n + 1])
			return t;
	}
	return NULL;
}

static bool is_section(const char *path)
{
	size_t n = strlen(path);
	for (const struct config_entry *t = config_table; t->path; t++)
		if (!strncmp(t->path, path, n) && t->path[n] == '.')
			return true;
	return false;
}

static const char *leaf(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot ? dot + 1 : path;
}

static struct dmsr_option as_option(const struct config_entry *t, const char *name)
{
	return (struct dmsr_option){ name, t->type, (uint8_t)(t->flags & ~DMSR_OPT_SECRET), t->dflt, t->values, t->min, t->max, t->help };
}

static json_t *entry_schema(const struct config_entry *t)
{
	if (t->type == CONFIG_OPT_OBJECT)
		return config_object_schema(t);
	struct dmsr_option one[2] = { as_option(t, leaf(t->path)) };
	json_t *object = options_schema(one, NULL), *schema = json_incref(json_object_get(json_object_get(object, "properties"), leaf(t->path)));
	json_decref(object);
	return schema;
}

/* The names that may stand beside each other under prefix ("" or "http."); NULL: all whole paths. A heap list of heap words. */
static char **known_names(const char *prefix)
{
	size_t n = 0, len = prefix ? strlen(prefix) : 0;
	char **names = mem_zalloc((sizeof config_table / sizeof *config_table) * sizeof *names);
	for (const struct config_entry *t = config_table; t->path; t++)
		if (!prefix || !strncmp(t->path, prefix, len))
			names[n++] = prefix ? mem_strndup(t->path + len, strcspn(t->path + len, ".")) : mem_strdup(t->path);
	return names;
}

static void free_names(char **names)
{
	for (char **s = names; *s; s++)
		free(*s);
	free(names);
}

/* ---- one layer ---- */

struct layer {
	struct config *c;
	problems *p;
	const char *origin; /* a file's path, "environment DMSR_X", "-o x" */
	const char *text;   /* NULL: not JSON text, then there are no lines */
	size_t len;
	bool is_variable; /* of the environment: its name is not the option's */
};

static void dotted(char *out, size_t size, const char *pointer)
{
	snprintf(out, size, "%s", *pointer == '/' ? pointer + 1 : pointer);
	for (char *c = out; *c; c++)
		if (*c == '/')
			*c = '.';
}

/* Puts the place, and which option it is, before the details of the findings from n on. */
static void annotate(const struct layer *l, size_t n)
{
	for (; n < json_array_size(l->p); n++) {
		json_t *one = json_array_get(l->p, n);
		const char *detail = json_string_value(json_object_get(one, "detail")), *pointer = json_string_value(json_object_get(one, "pointer"));
		unsigned line = l->text ? config_text_line(l->text, l->len, pointer) : 0;
		char path[CONFIG_POINTER_MAX], number[16] = "";
		dotted(path, sizeof path, pointer);
		if (line)
			snprintf(number, sizeof number, ":%u", line);
		bool is_named = !*path || strstr(detail, path) || strstr(l->origin, path);
		char *with = mem_printf("%s%s: %s%s%s", l->origin, number, is_named ? "" : path, is_named ? "" : ": ", detail);
		json_t *s = json_string(with);
		if (s)
			json_object_set_new(one, "detail", s);
		free(with);
	}
}

static void put_place(struct layer *l, const struct config_entry *t, const char *pointer)
{
	char *place = l->text ? mem_printf("%s:%u", l->origin, config_text_line(l->text, l->len, pointer)) : NULL;
	json_object_set_new(l->c->places, t->path, json_string(place ? place : l->origin));
	free(place);
}

static void put_value(struct config *c, const struct config_entry *t, const json_t *v, const char *origin)
{
	json_t *old = json_object_get(c->values, t->path), *one;
	const char *key;
	json_t *name = json_string(origin);
	json_object_set_new(c->origins, t->path, name ? name : json_string("a file"));
	if (t->type != CONFIG_OPT_OBJECT) {
		json_object_set_new(c->values, t->path, json_deep_copy(v));
		return;
	}
	json_object_foreach((json_t *)(uintptr_t)v, key, one)
	{
		if (key[0] != '/' || key[1] != '/')
			json_object_set_new(old, key, json_deep_copy(one));
	}
}

/* v is what this layer says about t; parent: the pointer of what it is in. */
static void take_value(struct layer *l, const struct config_entry *t, const char *parent, const json_t *v)
{
	char pointer[CONFIG_POINTER_MAX];
	size_t n = json_array_size(l->p);
	pointer_join(pointer, sizeof pointer, parent, leaf(t->path));
	if (t->type == CONFIG_OPT_OBJECT) {
		config_check_object(t, v, pointer, l->p);
	} else {
		struct dmsr_option one[2] = { as_option(t, leaf(t->path)) };
		json_t *obj = json_object();
		json_object_set(obj, leaf(t->path), (json_t *)(uintptr_t)v);
		settings_free(options_parse(one, NULL, obj, NULL, parent, NULL, l->p));
		json_decref(obj);
	}
	annotate(l, n);
	if (json_array_size(l->p) != n)
		return;
	put_value(l->c, t, v, l->origin);
	put_place(l, t, pointer);
}

/* Where else somebody may have wanted to put it. */
static const char *elsewhere(const char *key)
{
	for (const struct config_entry *t = config_table; t->path; t++)
		if (!strcmp(t->path, key) || !strcmp(leaf(t->path), key))
			return t->path;
	return NULL;
}

/* http.body_max -> DMSR_HTTP__BODY_MAX */
static void path_variable(char *out, size_t size, const char *path)
{
	size_t n = (size_t)snprintf(out, size, "DMSR_");
	for (; *path && n + 2 < size; path++) {
		if (*path == '.')
			out[n++] = '_';
		out[n++] = *path == '.' ? '_' : (char)toupper((unsigned char)*path);
	}
	out[n] = 0;
}

static void unknown_key(struct layer *l, const char *prefix, const char *key, const char *pointer)
{
	size_t n = json_array_size(l->p);
	char **names = known_names(l->text ? prefix : NULL), at[CONFIG_POINTER_MAX], variable[CONFIG_PATH_MAX + sizeof "DMSR_"] = "";
	const char *near = options_nearest(key, NULL, NULL, (const char *const *)names);
	char *full = near ? mem_printf("%s%s", prefix, near) : mem_strdup(elsewhere(key));
	pointer_join(at, sizeof at, pointer, key);
	if (full && l->is_variable)
		path_variable(variable, sizeof variable, full);
	if (full)
		problem_add(l->p, "unknown-key", full, at, "there is no option \"%s%.64s\": did you mean \"%s\"%s%s?", prefix, key, full,
			*variable ? ", which is " : "", variable);
	else
		problem_add(l->p, "unknown-key", NULL, at, "there is no option \"%s%.64s\"", prefix, key);
	annotate(l, n);
	free(full);
	free_names(names);
}

/* As deep as the table's sections are, and no deeper. */
static void take_object(struct layer *l, const json_t *obj, const char *prefix, const char *pointer)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)obj, key, v)
	{
		char path[CONFIG_PATH_MAX], at[CONFIG_POINTER_MAX];
		if (key[0] == '/' && key[1] == '/')
			continue;
		snprintf(path, sizeof path, "%s%s", prefix, key);
		const struct config_entry *t = strchr(key, '.') ? NULL : find_entry(path);
		if (t) {
			take_value(l, t, pointer, v);
		} else if (!strchr(key, '.') && is_section(path)) {
			pointer_join(at, sizeof at, pointer, key);
			if (json_is_object(v)) {
				snprintf(path, sizeof path, "%s%s.", prefix, key);
				take_object(l, v, path, at);
			} else {
				size_t n = json_array_size(l->p);
				problem_add(l->p, "type", NULL, at, "must be an object of options");
				annotate(l, n);
			}
		} else {
			unknown_key(l, prefix, key, pointer);
		}
	}
}

static void take_json(struct layer *l)
{
	json_error_t je;
	size_t n = json_array_size(l->p);
	json_t *obj = json_loadb(l->text, l->len, JSON_REJECT_DUPLICATES, &je);
	char at[CONFIG_POINTER_MAX], path[CONFIG_POINTER_MAX];
	if (obj && json_is_object(obj)) {
		take_object(l, obj, "", "");
	} else if (obj) {
		problem_add(l->p, "type", NULL, "", "%s:1: must be an object", l->origin);
	} else if (json_error_code(&je) == json_error_duplicate_key) {
		config_text_pointer(l->text, l->len, (size_t)je.position, at, sizeof at);
		dotted(path, sizeof path, at);
		problem_add(l->p, "duplicate", NULL, at, "%s:%d: %s is there twice", l->origin, je.line, path);
	} else {
		problem_add(l->p, "syntax", NULL, "", "%s:%d: is not JSON: %.*s", l->origin, je.line, config_text_said(je.text), je.text);
	}
	assert(obj || json_array_size(l->p) > n);
	json_decref(obj);
}

static void take_file(struct config *c, const char *path, bool may_be_missing, problems *p)
{
	struct layer l = { .c = c, .p = p, .origin = path };
	char *text = config_text_read(path, &l.len);
	if (text) {
		l.text = text;
		take_json(&l);
		free(text);
	} else if (errno != ENOENT || !may_be_missing) {
		const char *why = errno == EFBIG ? "it is longer than 1 MiB" : errno == EINVAL ? "it is no regular file" : strerror(errno);
		problem_add(p, "not-found", NULL, "", "%s: cannot be read: %s", path, why);
	}
}

static int is_layer_file(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && n > 5 && !strcmp(d->d_name + n - 5, ".json");
}

/* conf.d beside the file. */
static void take_directory(struct config *c, const char *file, problems *p)
{
	const char *slash = strrchr(file, '/');
	char *dir = slash ? mem_printf("%.*s/conf.d", (int)(slash - file), file) : mem_strdup("conf.d");
	struct dirent **list;
	int n = scandir(dir, &list, is_layer_file, alphasort);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR)
		problem_add(p, "not-found", NULL, "", "%s: cannot be read: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		char *path = mem_printf("%s/%s", dir, list[i]->d_name);
		take_file(c, path, false, p);
		free(path);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	free(dir);
}

/* ---- layers of single values ---- */

static json_t *text_list(const char *text)
{
	json_t *list = json_array();
	for (const char *s = text; *s; s += *s == ',') {
		size_t n = strcspn(s, ",");
		json_array_append_new(list, json_stringn(s, n));
		s += n;
	}
	return list;
}

/* The JSON that a text stands for, by the type that is wanted; what does not fit stays a string, and is refused as that. NULL: not UTF-8. */
static json_t *text_value(int type, const char *text)
{
	json_t *v = NULL;
	char *end;
	errno = 0;
	long long n = strtoll(text, &end, 10);
	if (type == DMSR_OPT_INT && *text && !*end && !errno)
		return json_integer(n);
	if (type == DMSR_OPT_BOOL && (!strcmp(text, "true") || !strcmp(text, "false")))
		return json_boolean(*text == 't');
	if ((type == CONFIG_OPT_OBJECT && *text == '{') || (type == DMSR_OPT_LIST && *text == '['))
		v = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	else if (type == DMSR_OPT_LIST)
		return text_list(text);
	return v ? v : json_string(text);
}

static void take_text(struct layer *l, const char *path, const char *text)
{
	const struct config_entry *entry = find_entry(path), *in = entry ? NULL : find_object(path), *t = entry ? entry : in;
	char pointer[CONFIG_POINTER_MAX] = "";
	if (!t) {
		unknown_key(l, "", path, "");
		return;
	}
	if (leaf(t->path) != t->path)
		snprintf(pointer, sizeof pointer, "/%.*s", (int)(leaf(t->path) - t->path - 1), t->path);
	json_t *v = text_value(t->type, text);
	if (v && in) {
		json_t *named = json_object();
		json_object_set_new(named, path + strlen(in->path) + 1, v);
		v = named;
	}
	if (v)
		take_value(l, t, pointer, v);
	else
		problem_add(l->p, "pattern", NULL, pointer, "%s: is not UTF-8", l->origin);
	json_decref(v);
}

static bool is_reserved(const char *name)
{
	for (const char *const *r = reserved_variables; *r; r++)
		if (!fnmatch(*r, name, 0))
			return true;
	return false;
}

/* DMSR_HTTP__BODY_MAX -> http.body_max */
static void variable_path(char *out, size_t size, const char *name)
{
	size_t n = 0;
	for (name += strlen("DMSR_"); *name && n + 1 < size; name++) {
		bool two = name[0] == '_' && name[1] == '_';
		out[n++] = two ? '.' : (char)tolower((unsigned char)*name);
		name += two;
	}
	out[n] = 0;
}

static void take_environment(struct config *c, char *const *variables, problems *p)
{
	for (; variables && *variables; variables++) {
		const char *equals = strchr(*variables, '=');
		if (!equals || strncmp(*variables, "DMSR_", 5) != 0)
			continue;
		char *name = mem_strndup(*variables, (size_t)(equals - *variables)), path[CONFIG_PATH_MAX];
		if (!is_reserved(name)) {
			char *origin = mem_printf("environment %s", name);
			struct layer l = { .c = c, .p = p, .origin = origin, .is_variable = true };
			variable_path(path, sizeof path, name);
			take_text(&l, path, equals + 1);
			free(origin);
		}
		free(name);
	}
}

static void take_overrides(struct config *c, const char *const *overrides, size_t n, problems *p)
{
	for (size_t i = 0; i < n; i++) {
		const char *equals = strchr(overrides[i], '=');
		if (!equals) {
			problem_add(p, "syntax", NULL, "", "-o %.80s: want -o key.path=value", overrides[i]);
			continue;
		}
		char *path = mem_strndup(overrides[i], (size_t)(equals - overrides[i])), *origin = mem_printf("-o %s", path);
		struct layer l = { .c = c, .p = p, .origin = origin };
		take_text(&l, path, equals + 1);
		free(origin);
		free(path);
	}
}

/* ---- all layers ---- */

static struct config *defaults(void)
{
	struct config *c = mem_zalloc(sizeof *c);
	c->values = json_object();
	c->origins = json_object();
	c->places = json_object();
	for (const struct config_entry *t = config_table; t->path; t++) {
		json_t *schema = entry_schema(t), *dflt = json_deep_copy(json_object_get(schema, "default"));
		json_object_set_new(c->values, t->path, dflt ? dflt : json_array());
		json_object_set_new(c->origins, t->path, json_string("default"));
		json_decref(schema);
	}
	return c;
}

/* Every value has been checked as it came, so that this finds nothing. */
static void set_typed(struct config *c, problems *p)
{
	size_t all = sizeof config_table / sizeof *config_table, n = 0, nobjects = 0;
	struct dmsr_option *table = mem_zalloc(all * sizeof *table);
	const char **objects = mem_zalloc(all * sizeof *objects);
	for (const struct config_entry *t = config_table; t->path; t++)
		if (t->type == CONFIG_OPT_OBJECT)
			objects[nobjects++] = t->path;
		else
			table[n++] = as_option(t, t->path);
	c->settings = options_parse(table, NULL, c->values, objects, "", NULL, p);
	free(objects);
	free(table);
}

int config_invalid(const problems *p, size_t n, struct err *e)
{
	size_t found = json_array_size(p) - n;
	const char *first = json_string_value(json_object_get(json_array_get(p, n), "detail"));
	if (!found)
		return 0;
	if (found == 1)
		err_set(e, DMSR_EINVAL, "config.invalid", "%s", first);
	else
		err_set(e, DMSR_EINVAL, "config.invalid", "%s (and %zu more)", first, found - 1);
	return err_hint(e, "see dmsrd.json(5); dmsrd --check-config lists all that is wrong");
}

/* c, or NULL with e telling of the first finding. */
static struct config *finish(struct config *c, const struct config_source *src, problems *p, size_t before, struct err *e)
{
	set_typed(c, p); /* of the values that are right, and defaults for the others */
	assert(c->settings);
	config_check(c, p);
	if (src && src->check)
		src->check(src->arg, c, p);
	if (json_array_size(p) == before)
		return c;
	config_invalid(p, before, e);
	config_free(c);
	return NULL;
}

const char *config_path(const struct config_source *src) { return src->file ? src->file : DMSR_SYSCONF_DIR "/dmsrd.json"; }

struct config *config_load(const struct config_source *src, problems *p, struct err *e)
{
	size_t before = json_array_size(p);
	const char *file = config_path(src);
	struct config *c = defaults();
	take_file(c, file, !src->file, p);
	take_directory(c, file, p);
	take_environment(c, src->environ, p);
	take_overrides(c, src->overrides, src->noverrides, p);
	return finish(c, src, p, before, e);
}

struct config *config_load_text(const char *text, size_t n, problems *p, struct err *e)
{
	size_t before = json_array_size(p);
	struct config *c = defaults();
	struct layer l = { .c = c, .p = p, .origin = "text", .text = text, .len = n };
	take_json(&l);
	return finish(c, NULL, p, before, e);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	settings_free(c->settings);
	json_decref(c->values);
	json_decref(c->origins);
	json_decref(c->places);
	free(c);
}

/* ---- what others ask ---- */

const char *config_str(const struct config *c, const char *path) { return settings_str(c->settings, path); }
int64_t config_int(const struct config *c, const char *path) { return settings_int(c->settings, path); }
bool config_bool(const struct config *c, const char *path) { return settings_bool(c->settings, path); }

const json_t *config_json(const struct config *c, const char *path)
{
	const json_t *v = json_object_get(c->values, path);
	assert(v && "config_json: no such option");
	return v;
}

const char *config_origin(const struct config *c, const char *path) { return json_string_value(json_object_get(c->origins, path)); }

const char *config_place(const struct config *c, const char *path)
{
	const char *place = json_string_value(json_object_get(c->places, path));
	return place ? place : config_origin(c, path);
}

const char *config_needs_restart(const struct config *old, const struct config *now)
{
	for (const struct config_entry *t = config_table; t->path; t++)
		if (!(t->flags & DMSR_OPT_LIVE) && !json_equal(json_object_get(old->values, t->path), json_object_get(now->values, t->path)))
			return t->path;
	return NULL;
}

json_t *config_print(const struct config *c)
{
	json_t *all = json_object();
	for (const struct config_entry *t = config_table; t->path; t++) {
		json_t *v = json_deep_copy(json_object_get(c->values, t->path));
		if (t->flags & DMSR_OPT_SECRET)
			config_hide_secrets(t, v);
		json_object_set_new(all, t->path, json_pack("{s:o, s:s}", "value", v, "origin", config_origin(c, t->path)));
	}
	return all;
}

static json_t *section_schema(void)
{
	return json_pack("{s:s, s:{}, s:{s:{}}, s:b}", "type", "object", "properties", "patternProperties", "^//", "additionalProperties", 0);
}

json_t *config_schema(void)
{
	json_t *root = section_schema();
	for (const struct config_entry *t = config_table; t->path; t++) {
		json_t *at = root;
		const char *name = t->path;
		for (size_t n = strcspn(name, "."); name[n]; name += n + 1, n = strcspn(name, ".")) {
			char *section = mem_strndup(name, n);
			json_t *properties = json_object_get(at, "properties");
			if (!json_object_get(properties, section))
				json_object_set_new(properties, section, section_schema());
			at = json_object_get(properties, section);
			free(section);
		}
		json_object_set_new(json_object_get(at, "properties"), name, entry_schema(t));
	}
	json_object_set_new(root, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
	json_object_set_new(root, "title", json_string("dmsrd.json: the configuration of dmsrd"));
	return root;
}
