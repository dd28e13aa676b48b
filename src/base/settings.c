/* settings: a short list of named, typed values; looked up a few times per instance, so a plain array does. */
#include "base/settings.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_STR, KIND_INT, KIND_BOOL, KIND_LIST };

struct setting {
	char *name;
	enum kind kind;
	char *str; /* KIND_STR; NULL: declared, without a value */
	int64_t num;
	char **list;
	size_t n;
};

struct settings {
	struct setting *all;
	size_t n;
};

struct settings *settings_new(void)
{
	return mem_zalloc(sizeof(struct settings));
}

static void wipe(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
	free(s);
}

static void drop_value(struct setting *one)
{
	wipe(one->str);
	for (size_t i = 0; i < one->n; i++)
		wipe(one->list[i]);
	free(one->list);
	one->str = NULL;
	one->list = NULL;
	one->n = 0;
}

void settings_free(struct settings *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		drop_value(&s->all[i]);
		free(s->all[i].name);
	}
	free(s->all);
	free(s);
}

static struct setting *find(const struct settings *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->all[i].name, name))
			return &s->all[i];
	return NULL;
}

static struct setting *put(struct settings *s, const char *name, enum kind kind)
{
	struct setting *one = find(s, name);
	if (one) {
		drop_value(one);
	} else {
		s->all = mem_realloc_array(s->all, s->n + 1, sizeof *s->all);
		one = &s->all[s->n++];
		*one = (struct setting){ .name = mem_strdup(name) };
	}
	one->kind = kind;
	return one;
}

void settings_put_str(struct settings *s, const char *name, const char *value)
{
	/* The value may be the one that is replaced. */
	char *copy = mem_strdup(value);
	put(s, name, KIND_STR)->str = copy;
}

void settings_put_int(struct settings *s, const char *name, int64_t value)
{
	put(s, name, KIND_INT)->num = value;
}

void settings_put_bool(struct settings *s, const char *name, bool value)
{
	put(s, name, KIND_BOOL)->num = value;
}

void settings_put_list(struct settings *s, const char *name, const char *const *values, size_t n)
{
	char **copy = mem_alloc(n * sizeof *copy);
	for (size_t i = 0; i < n; i++)
		copy[i] = mem_strdup(values[i]);
	struct setting *one = put(s, name, KIND_LIST);
	one->list = copy;
	one->n = n;
}

/* NULL: declared, without a value. */
static const struct setting *get(const struct settings *s, const char *name, enum kind kind)
{
	const struct setting *one = find(s, name);
	assert(one && "an option that its plugin's table does not declare");
	if (one->kind == KIND_STR && !one->str)
		return NULL;
	assert(one->kind == kind && "an option asked for as another type than it has");
	return one;
}

const char *settings_str(const struct settings *s, const char *name)
{
	const struct setting *one = get(s, name, KIND_STR);
	return one ? one->str : NULL;
}

int64_t settings_int(const struct settings *s, const char *name)
{
	const struct setting *one = get(s, name, KIND_INT);
	return one ? one->num : 0;
}

bool settings_bool(const struct settings *s, const char *name)
{
	const struct setting *one = get(s, name, KIND_BOOL);
	return one && one->num;
}

const char *const *settings_list(const struct settings *s, const char *name, size_t *n)
{
	const struct setting *one = get(s, name, KIND_LIST);
	*n = one ? one->n : 0;
	return one ? (const char *const *)one->list : NULL;
}
