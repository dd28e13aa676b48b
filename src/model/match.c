/* match: patterns of table names. A pattern is two parts, schema.table; a part is a run of atoms: any run (*), any character (?), or a literal. */
#include "model/match.h"
#include "base/utf8.h"
#include <string.h>

/* One atom of a part, the quotes taken off. */
struct atom {
	enum { ATOM_LITERAL, ATOM_ANY, ATOM_RUN, ATOM_END } kind;
	char c;
};
struct scan {
	const char *at, *end;   /* of the part, quotes included */
	bool quoted;            /* inside of a quoted run */
};

static struct atom atom_next(struct scan *s)
{
	while (s->at < s->end && *s->at == '"') {
		if (s->quoted && s->end - s->at > 1 && s->at[1] == '"') {
			s->at += 2;
			return (struct atom){ ATOM_LITERAL, '"' };
		}
		s->quoted = !s->quoted;
		s->at++;
	}
	if (s->at == s->end)
		return (struct atom){ ATOM_END, 0 };
	char c = *s->at++;
	if (s->quoted || (c != '*' && c != '?'))
		return (struct atom){ ATOM_LITERAL, c };
	return (struct atom){ c == '*' ? ATOM_RUN : ATOM_ANY, 0 };
}

/* The first character behind the one at p. A byte that is no UTF-8 is one, too. */
static const char *char_end(const char *p)
{
	unsigned n = utf8_sequence(p, strnlen(p, 4));
	return p + (n ? n : 1);
}

/* Greedy with one step back to the last run: linear in practice, quadratic at worst, never exponential. */
static bool part_matches(struct scan pat, const char *name)
{
	struct scan run = {0};
	const char *run_name = NULL;

	for (;;) {
		struct atom a = atom_next(&pat);
		if (a.kind == ATOM_RUN) {
			run = pat;
			run_name = name;
			continue;
		}
		if (a.kind == ATOM_END && !*name)
			return true;
		if (a.kind == ATOM_ANY && *name) {
			name = char_end(name);
			continue;
		}
		if (a.kind == ATOM_LITERAL && *name == a.c) {
			name++;
			continue;
		}
		if (!run_name || !*run_name)
			return false;
		pat = run;
		name = run_name = char_end(run_name);
	}
}

/* The dot that parts schema and table: the first outside of quotes; NULL when there is none. */
static const char *find_dot(const char *p)
{
	for (bool quoted = false; *p; p++) {
		if (*p == '"')
			quoted = !quoted;
		else if (*p == '.' && !quoted)
			return p;
	}
	return NULL;
}

static bool pattern_matches(const char *pattern, const char *schema, const char *name)
{
	const char *dot = find_dot(pattern);
	const char *table = dot ? dot + 1 : pattern;
	struct scan t = {table, table + strlen(table), false};

	if (!dot)
		return strcmp(schema, "public") == 0 && part_matches(t, name);
	return part_matches((struct scan){ pattern, dot, false }, schema) && part_matches(t, name);
}

bool dmsr_table_matches(const struct dmsr_tables *t, const char *schema, const char *name)
{
	bool in = t->ninclude == 0 && strcmp(schema, "dmsr") != 0;

	for (size_t i = 0; i < t->ninclude && !in; i++)
		in = pattern_matches(t->include[i], schema, name);
	for (size_t i = 0; i < t->nexclude && in; i++)
		in = !pattern_matches(t->exclude[i], schema, name);
	return in;
}

/* A part is either wholly quoted or holds no quote at all: NULL, or what is wrong. */
static const char *part_check(const char *p, const char *end)
{
	if (p == end)
		return "a part is empty";
	if (*p != '"')
		return memchr(p, '"', (size_t)(end - p)) ? "a quote stands inside of a part" : NULL;
	const char *open = p;
	for (p++; p < end; p++) {
		if (*p != '"')
			continue;
		if (p + 1 < end && p[1] == '"')
			p++;
		else if (p + 1 < end)
			return "something follows the closing quote";
		else
			return p == open + 1 ? "a part is empty" : NULL;
	}
	return "a quote is not closed";
}

int dmsr_pattern_check(const char *pattern, struct err *e)
{
	const char *end = pattern + strlen(pattern), *dot = find_dot(pattern), *why = NULL;

	if (dot)
		why = part_check(pattern, dot);
	if (!why)
		why = part_check(dot ? dot + 1 : pattern, end);
	if (!why && dot && find_dot(dot + 1))
		why = "it has more than one dot; quote a name that holds one";
	if (!why && strlen(pattern) > 1024)
		why = "it is longer than 1024 bytes";
	if (!why)
		return 0;
	return err_set(e, DMSR_EINVAL, "job.validation", "\"%.100s\" is not a table pattern (schema.table with * and ?): %s",
		pattern, why);
}
