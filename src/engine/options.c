/* options: a table of declared options meets somebody's JSON object. In: the table, the object, the secrets' names. Out: settings in which every
 * declared option has its typed value, or findings with a JSON pointer each. No finding ever holds a value that may be a secret's. */
#include "engine/options.h"
#include "base/nearest.h"
#include "base/utf8.h"
#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTER_MAX = 512, WORD_MAX = NEAREST_MAX };

/* ---- findings ---- */

/* jansson takes whole UTF-8 only. */
static void trim_utf8(char *s) { s[utf8_whole(s, strlen(s))] = 0; }

void problem_add(problems *p, const char *code, const char *suggestion, const char *pointer, const char *fmt, ...)
{
	char detail[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	trim_utf8(detail);
	json_t *one = json_pack("{s:s, s:s, s:s}", "pointer", pointer, "code", code, "detail", detail);
	if (one && suggestion)
		json_object_set_new(one, "suggestion", json_string(suggestion));
	json_array_append_new(p, one ? one : json_pack("{s:s, s:s, s:s}", "pointer", "", "code", code, "detail", "(not UTF-8)"));
}

const char *pointer_join(char *out, size_t size, const char *base, const char *token)
{
	size_t n = strlen(base);
	assert(size > 0);
	if (n >= size)
		n = size - 1;
	memmove(out, base, n);
	if (n + 1 < size)
		out[n++] = '/';
	for (; *token; token++) {
		const char *as = *token == '~' ? "~0" : *token == '/' ? "~1" : NULL;
		size_t len = as ? 2 : 1;
		if (n + len >= size)
			break;
		memcpy(out + n, as ? as : token, len);
		n += len;
	}
	out[n] = 0;
	trim_utf8(out);
	return out;
}

/* ---- the table ---- */

const struct dmsr_option *options_find(const struct dmsr_option *table, const char *name)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

static const struct dmsr_option *find_both(const struct dmsr_option *table, const struct dmsr_option *extra, const char *name)
{
	const struct dmsr_option *o = options_find(table, name);
	return o ? o : options_find(extra, name);
}

static bool is_listed(const char *const *words, const char *word)
{
	for (; words && *words; words++)
		if (!strcmp(*words, word))
			return true;
	return false;
}

const char *options_nearest(const char *word, const struct dmsr_option *table, const struct dmsr_option *extra, const char *const *also)
{
	struct nearest n = NEAREST(word);
	for (const struct dmsr_option *o = table; o && o->name; o++)
		nearest_try(&n, o->name);
	for (const struct dmsr_option *o = extra; o && o->name; o++)
		nearest_try(&n, o->name);
	for (; also && *also; also++)
		nearest_try(&n, *also);
	return n.best;
}

/* ---- numbers with units ---- */

struct unit {
	const char *name;
	int64_t factor;
};

static int parse_unit(const char *text, const struct unit *units, int64_t *out)
{
	int64_t v = 0;
	const char *s = text;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
			return -1;
	if (s == text)
		return -1;
	for (; units->name; units++)
		if (!strcmp(units->name, s))
			return __builtin_mul_overflow(v, units->factor, out) ? -1 : 0;
	return -1;
}

int options_parse_bytes(const char *text, int64_t *out)
{
	static const struct unit units[] = { { "", 1 }, { "B", 1 }, { "kB", 1000 }, { "KB", 1000 }, { "KiB", 1 << 10 },
		{ "MB", 1000000 }, { "MiB", 1 << 20 }, { "GB", 1000000000 }, { "GiB", 1 << 30 },
		{ "TB", 1000000000000 }, { "TiB", (int64_t)1 << 40 }, { NULL, 0 } };
	return parse_unit(text, units, out);
}

int options_parse_duration(const char *text, int64_t *out_ms)
{
	static const struct unit units[] = { { "", 1 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 },
		{ "d", 86400000 }, { NULL, 0 } };
	return parse_unit(text, units, out_ms);
}

/* ---- one value ---- */

struct parse {
	struct settings *out;
	const struct secrets *secrets;
	problems *problems;
	const char *pointer; /* of the value at hand */
};

static const char *type_name(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "a whole number";
	case JSON_REAL: return "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE: return "a boolean";
	case JSON_NULL: return "null";
	}
	return "unknown";
}

static void wrong_type(struct parse *p, const char *want, const json_t *v)
{
	problem_add(p->problems, "type", NULL, p->pointer, "must be %s, not %s", want, type_name(v));
}

/* A text that C code may use: jansson lets U+0000 pass when its caller allowed it. */
static const char *text_of(struct parse *p, const json_t *v)
{
	const char *s = json_string_value(v);
	if (strlen(s) == json_string_length(v))
		return s;
	problem_add(p->problems, "pattern", NULL, p->pointer, "must not hold the character U+0000");
	return NULL;
}

static void parse_secret(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	if (json_is_object(v)) {
		const json_t *name = json_object_get(v, "$secret");
		struct err e = { 0 };
		if (json_object_size(v) != 1 || !json_is_string(name)) {
			problem_add(p->problems, "type", NULL, p->pointer, "must be a string or {\"$secret\": \"name\"}");
			return;
		}
		if (!p->secrets) {
			problem_add(p->problems, "secret", NULL, p->pointer, "no secrets are configured: see \"secrets\" in dmsrd.json(5)");
			return;
		}
		char *value = secret_resolve(p->secrets, json_string_value(name), &e);
		if (!value) {
			problem_add(p->problems, "secret", NULL, p->pointer, "%s", e.message);
			return;
		}
		settings_put_str(p->out, o->name, value);
		explicit_bzero(value, strlen(value));
		free(value);
	} else if (json_is_string(v)) {
		const char *s = text_of(p, v);
		if (s)
			settings_put_str(p->out, o->name, s);
	} else {
		wrong_type(p, "a string or {\"$secret\": \"name\"}", v);
	}
}

static void parse_string(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	if (!json_is_string(v)) {
		wrong_type(p, "a string", v);
		return;
	}
	const char *s = text_of(p, v);
	if (s)
		settings_put_str(p->out, o->name, s);
}

static void show_limit(char *out, size_t size, const struct dmsr_option *o, int64_t v)
{
	static const struct unit bytes[] = { { "TiB", (int64_t)1 << 40 }, { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 }, { "", 1 } };
	static const struct unit times[] = { { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
	const struct unit *u = o->type == DMSR_OPT_BYTES ? bytes : o->type == DMSR_OPT_DURATION ? times : &bytes[4];
	while (u->factor > 1 && (v == 0 || v % u->factor != 0))
		u++;
	snprintf(out, size, "%" PRId64 "%s", v / u->factor, u->name);
}

static void parse_number(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	static const char *const want[] = { [DMSR_OPT_INT] = "a whole number",
		[DMSR_OPT_BYTES] = "a whole number of bytes, or a text as \"64KiB\"",
		[DMSR_OPT_DURATION] = "a whole number of milliseconds, or a text as \"10s\"" };
	int64_t n;
	if (json_is_integer(v)) {
		n = json_integer_value(v);
	} else if (o->type != DMSR_OPT_INT && json_is_string(v)) {
		const char *s = json_string_value(v);
		if (o->type == DMSR_OPT_BYTES ? options_parse_bytes(s, &n) : options_parse_duration(s, &n)) {
			problem_add(p->problems, "pattern", NULL, p->pointer, "must be %s", want[o->type]);
			return;
		}
	} else {
		wrong_type(p, want[o->type], v);
		return;
	}
	if ((o->min || o->max) && (n < o->min || n > o->max)) {
		char min[32], max[32];
		show_limit(min, sizeof min, o, o->min);
		show_limit(max, sizeof max, o, o->max);
		if (o->max == INT64_MAX)
			problem_add(p->problems, "range", NULL, p->pointer, "must be at least %s", min);
		else
			problem_add(p->problems, "range", NULL, p->pointer, "must be between %s and %s", min, max);
		return;
	}
	settings_put_int(p->out, o->name, n);
}

/* Calls fn for each word between the bars; fn's true stops. */
static bool each_value(const char *values, bool (*fn)(void *arg, const char *word), void *arg)
{
	char word[WORD_MAX + 1];
	for (const char *s = values; *s; s += *s == '|') {
		size_t n = strcspn(s, "|");
		assert(n <= WORD_MAX);
		memcpy(word, s, n);
		word[n] = 0;
		if (fn(arg, word))
			return true;
		s += n;
	}
	return false;
}

static bool is_word(void *arg, const char *word)
{
	return !strcmp(arg, word);
}

struct near_value {
	struct nearest n;
	char best[WORD_MAX + 1];
};

static bool near_word(void *arg, const char *word)
{
	struct near_value *near = arg;
	near->n.best = NULL;
	nearest_try(&near->n, word);
	if (near->n.best)
		snprintf(near->best, sizeof near->best, "%s", word);
	return false;
}

static void parse_enum(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	if (!json_is_string(v)) {
		wrong_type(p, "a string", v);
		return;
	}
	char *s = mem_strdup(json_string_value(v));
	if (each_value(o->values, is_word, s)) {
		settings_put_str(p->out, o->name, s);
	} else {
		struct near_value near = { .n = NEAREST(s) };
		each_value(o->values, near_word, &near);
		char list[256];
		size_t n = 0;
		for (const char *c = o->values; *c && n + 3 < sizeof list; c++) {
			if (*c == '|')
				list[n++] = ',';
			list[n++] = *c == '|' ? ' ' : *c;
		}
		list[n] = 0;
		problem_add(p->problems, "enum", near.best[0] ? near.best : NULL, p->pointer, "must be one of: %s", list);
	}
	free(s);
}

static void parse_list(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	if (!json_is_array(v)) {
		wrong_type(p, "a list of strings", v);
		return;
	}
	size_t n = json_array_size(v);
	const char **items = mem_alloc((n ? n : 1) * sizeof *items);
	const char *list = p->pointer;
	bool good = true;
	for (size_t i = 0; i < n; i++) {
		char at[POINTER_MAX], number[24];
		const json_t *item = json_array_get(v, i);
		snprintf(number, sizeof number, "%zu", i);
		p->pointer = pointer_join(at, sizeof at, list, number);
		if (json_is_string(item))
			items[i] = text_of(p, item);
		else
			wrong_type(p, "a string", item);
		good = good && json_is_string(item) && items[i];
	}
	p->pointer = list;
	if (good)
		settings_put_list(p->out, o->name, items, n);
	free(items);
}

static void parse_value(struct parse *p, const struct dmsr_option *o, const json_t *v)
{
	if (json_is_object(v) && json_object_get(v, "$secret") && !(o->flags & DMSR_OPT_SECRET)) {
		problem_add(p->problems, "type", NULL, p->pointer, "is no secret option: give the value itself");
		return;
	}
	switch ((enum dmsr_option_type)o->type) {
	case DMSR_OPT_STRING:
		if (o->flags & DMSR_OPT_SECRET)
			parse_secret(p, o, v);
		else
			parse_string(p, o, v);
		break;
	case DMSR_OPT_INT:
	case DMSR_OPT_BYTES:
	case DMSR_OPT_DURATION:
		parse_number(p, o, v);
		break;
	case DMSR_OPT_BOOL:
		if (json_is_boolean(v))
			settings_put_bool(p->out, o->name, json_is_true(v));
		else
			wrong_type(p, "true or false", v);
		break;
	case DMSR_OPT_ENUM:
		parse_enum(p, o, v);
		break;
	case DMSR_OPT_LIST:
		parse_list(p, o, v);
		break;
	}
}

/* ---- defaults ---- */

/* The default as a JSON value; NULL: none. Tables are ours or a plugin's: a default that does not parse is a bug. */
static json_t *default_json(const struct dmsr_option *o)
{
	int64_t n = 0;
	if (!o->dflt)
		return NULL;
	switch ((enum dmsr_option_type)o->type) {
	case DMSR_OPT_INT: {
		char *end;
		n = strtoll(o->dflt, &end, 10);
		assert(!*end && "an option's default that is no number");
		return json_integer(n);
	}
	case DMSR_OPT_BOOL:
		return json_boolean(!strcmp(o->dflt, "true"));
	case DMSR_OPT_BYTES:
		assert(!options_parse_bytes(o->dflt, &n) && "an option's default that is no size");
		return json_string(o->dflt);
	case DMSR_OPT_DURATION:
		assert(!options_parse_duration(o->dflt, &n) && "an option's default that is no duration");
		return json_string(o->dflt);
	case DMSR_OPT_STRING:
	case DMSR_OPT_ENUM:
		return json_string(o->dflt);
	case DMSR_OPT_LIST: {
		json_t *list = json_array();
		for (const char *s = o->dflt; *s; s += *s == ',') {
			size_t len = strcspn(s, ",");
			json_array_append_new(list, json_stringn(s, len));
			s += len;
		}
		return list;
	}
	}
	return NULL;
}

/* Every declared option gets a value, so that a getter never meets one that is not there. */
static void put_default(struct parse *p, const struct dmsr_option *o)
{
	json_t *dflt = default_json(o);
	if (dflt) {
		struct parse trusted = *p;
		struct dmsr_option plain = *o;
		plain.flags &= (uint8_t)~DMSR_OPT_SECRET;
		parse_value(&trusted, &plain, dflt);
		json_decref(dflt);
	} else if (o->type == DMSR_OPT_LIST) {
		settings_put_list(p->out, o->name, NULL, 0);
	} else {
		settings_put_str(p->out, o->name, NULL);
	}
}

/* ---- the whole object ---- */

static bool is_comment(const char *key)
{
	return key[0] == '/' && key[1] == '/';
}

static void check_keys(struct parse *p, const struct dmsr_option *table, const struct dmsr_option *extra, const json_t *obj, const char *const *also)
{
	const char *key;
	json_t *v;
	char at[POINTER_MAX];
	json_object_foreach((json_t *)(uintptr_t)obj, key, v)
	{
		if (is_comment(key) || is_listed(also, key) || find_both(table, extra, key))
			continue;
		const char *near = options_nearest(key, table, extra, also);
		pointer_join(at, sizeof at, p->pointer, key);
		if (near)
			problem_add(p->problems, "unknown-key", near, at, "there is no option \"%.*s\": did you mean \"%s\"?", WORD_MAX, key, near);
		else
			problem_add(p->problems, "unknown-key", NULL, at, "there is no option \"%.*s\"", WORD_MAX, key);
	}
}

static void parse_table(struct parse *p, const struct dmsr_option *table, const struct dmsr_option *shadow, const json_t *obj)
{
	const char *base = p->pointer;
	char at[POINTER_MAX];
	for (const struct dmsr_option *o = table; o && o->name; o++) {
		if (options_find(shadow, o->name))
			continue;
		const json_t *v = json_object_get(obj, o->name);
		p->pointer = pointer_join(at, sizeof at, base, o->name);
		if (v)
			parse_value(p, o, v);
		else if ((o->flags & DMSR_OPT_REQUIRED) && !o->dflt)
			problem_add(p->problems, "required", NULL, at, "is required: %s", o->help ? o->help : o->name);
		else
			put_default(p, o);
	}
	p->pointer = base;
}

struct settings *options_parse(const struct dmsr_option *table, const struct dmsr_option *extra, const json_t *obj,
	const char *const *also, const char *pointer, const struct secrets *secrets, problems *p)
{
	size_t before = json_array_size(p);
	struct parse parse = { settings_new(), secrets, p, pointer };
	if (!json_is_object(obj)) {
		wrong_type(&parse, "an object", obj);
	} else {
		check_keys(&parse, table, extra, obj, also);
		parse_table(&parse, table, NULL, obj);
		parse_table(&parse, extra, table, obj);
	}
	if (json_array_size(p) == before)
		return parse.out;
	settings_free(parse.out);
	return NULL;
}

/* ---- schema, redaction ---- */

static bool add_value(void *arg, const char *word)
{
	json_array_append_new(arg, json_string(word));
	return false;
}

static json_t *type_schema(const struct dmsr_option *o)
{
	switch ((enum dmsr_option_type)o->type) {
	case DMSR_OPT_STRING:
		if (!(o->flags & DMSR_OPT_SECRET))
			return json_pack("{s:s}", "type", "string");
		return json_pack("{s:[{s:s}, {s:s, s:{s:{s:s}}, s:[s], s:b}], s:b}", "anyOf", "type", "string", "type", "object",
			"properties", "$secret", "type", "string", "required", "$secret", "additionalProperties", 0, "writeOnly", 1);
	case DMSR_OPT_INT:
		return json_pack("{s:s}", "type", "integer");
	case DMSR_OPT_BOOL:
		return json_pack("{s:s}", "type", "boolean");
	case DMSR_OPT_BYTES:
		return json_pack("{s:[s,s], s:s, s:s}", "type", "integer", "string", "format", "bytes", "pattern", "^[0-9]+(B|[kKMGT]B|[KMGT]iB)?$");
	case DMSR_OPT_DURATION:
		return json_pack("{s:[s,s], s:s, s:s}", "type", "integer", "string", "format", "duration-ms", "pattern", "^[0-9]+(ms|s|m|h|d)?$");
	case DMSR_OPT_ENUM: {
		json_t *values = json_array();
		each_value(o->values, add_value, values);
		return json_pack("{s:s, s:o}", "type", "string", "enum", values);
	}
	case DMSR_OPT_LIST:
		return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "string");
	}
	return json_object();
}

static json_t *option_schema(const struct dmsr_option *o)
{
	json_t *s = type_schema(o), *dflt = o->flags & DMSR_OPT_SECRET ? NULL : default_json(o);
	if (o->help)
		json_object_set_new(s, "description", json_string(o->help));
	if (dflt)
		json_object_set_new(s, "default", dflt);
	if (o->min || o->max) {
		json_object_set_new(s, "minimum", json_integer(o->min));
		if (o->max != INT64_MAX)
			json_object_set_new(s, "maximum", json_integer(o->max));
	}
	if (o->flags & DMSR_OPT_LIVE)
		json_object_set_new(s, "x-live", json_true());
	return s;
}

static void schema_table(const struct dmsr_option *table, json_t *properties, json_t *required)
{
	for (const struct dmsr_option *o = table; o && o->name; o++) {
		if (json_object_get(properties, o->name))
			continue;
		json_object_set_new(properties, o->name, option_schema(o));
		if ((o->flags & DMSR_OPT_REQUIRED) && !o->dflt)
			json_array_append_new(required, json_string(o->name));
	}
}

json_t *options_schema(const struct dmsr_option *table, const struct dmsr_option *extra)
{
	json_t *properties = json_object(), *required = json_array();
	schema_table(table, properties, required);
	schema_table(extra, properties, required);
	return json_pack("{s:s, s:o, s:o, s:{s:{}}, s:b}", "type", "object", "properties", properties, "required", required,
		"patternProperties", "^//", "additionalProperties", 0);
}

static bool is_secret_reference(const json_t *v)
{
	return json_is_object(v) && json_object_size(v) == 1 && json_is_string(json_object_get(v, "$secret"));
}

json_t *options_redact(const struct dmsr_option *table, const struct dmsr_option *extra, const json_t *obj)
{
	json_t *copy = json_deep_copy(obj), *v;
	const char *key;
	void *next;
	json_object_foreach_safe(copy, next, key, v)
	{
		const struct dmsr_option *o = find_both(table, extra, key);
		if (o && (o->flags & DMSR_OPT_SECRET) && !is_secret_reference(v))
			json_object_set_new(copy, key, json_string("***"));
	}
	return copy;
}
