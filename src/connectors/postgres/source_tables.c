/* source_tables: which tables there are, which of them are loaded, and whose changes are wanted. In come relations from the catalog and what start() said of
 * earlier loads; out go answers. Pure but for one note, and one question about patterns without a table.
 *
 * A table is its oid; but what is remembered of an earlier load is a name. So that a table that was dropped and made anew does not pass for the one that was
 * loaded, the note "tables" tells for each name, before its load begins,
 *
 *   "schema"."name" OID LSN MARKS    a load of that name counts if it was of OID, at LSN or later; MARKS: what the table was like (source_history.h)
 *
 * The note "gone" is alike; its LSN: where the table was found to be gone (source_gone.c).
 *
 * The same LSN, raised, tells of a table that was out of the publication for a while, and whose changes were missed: it is loaded again.
 *
 * A table that comes while the job runs is no part of it before the next start, which loads it: its changes are passed over until then. */
#include "source_int.h"
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- by oid ---- */

static void index_rels(struct source *s)
{
	map_free(s->rel_by_id);
	s->rel_by_id = map_new();
	for (size_t i = 0; i < s->nrels; i++)
		map_put_u32(s->rel_by_id, s->rels[i]->id, &s->rels[i]);
}

void source_set_rels(struct source *s, struct relation **rels, size_t n)
{
	for (size_t i = 0; i < s->nrels; i++)
		relation_unref(s->rels[i]);
	free(s->rels);
	s->rels = rels;
	s->nrels = n;
	index_rels(s);
}

struct relation *source_find_rel(const struct source *s, uint32_t id)
{
	struct relation **at = s->rel_by_id ? map_get_u32(s->rel_by_id, id) : NULL;
	return at ? *at : NULL;
}

void source_put_rel(struct source *s, struct relation *rel)
{
	struct relation **at = s->rel_by_id ? map_get_u32(s->rel_by_id, rel->id) : NULL;
	if (at) {
		relation_unref(*at);
		*at = rel;
		return;
	}
	s->rels = mem_realloc_array(s->rels, s->nrels + 1, sizeof *s->rels);
	s->rels[s->nrels++] = rel;
	index_rels(s);
}

void source_leave_out(struct source *s, uint32_t id)
{
	struct relation **at = map_get_u32(s->rel_by_id, id);
	if (s->host.left_out)
		s->host.left_out(s->host.ctx, (*at)->schema, (*at)->name);
	relation_unref(*at);
	*at = s->rels[--s->nrels];
	index_rels(s);
	if (!s->left_out)
		s->left_out = map_new();
	map_put_u32(s->left_out, id, s);
}

/* ---- what is loaded ---- */

static struct source_loaded *by_name(const struct source *s, const char *schema, const char *name)
{
	struct buf key;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, schema, name);
	struct source_loaded *l = map_get(s->loaded, key.data, key.len);
	buf_fini(&key);
	return l;
}

void source_add_loaded(struct source *s, const struct relation *rel, const char *schema, const char *name, uint64_t lsn)
{
	struct buf key;
	struct source_loaded *l = mem_zalloc(sizeof *l);
	l->id = rel ? rel->id : 0;
	l->is_earlier = !rel;
	l->lsn = lsn;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, schema, name);
	struct source_loaded *old = map_put(s->loaded, key.data, key.len, l);
	buf_fini(&key);
	if (old && old->id)
		map_del_u32(s->loaded_by_id, old->id);
	free(old);
	if (l->id)
		map_put_u32(s->loaded_by_id, l->id, l);
}

struct source_loaded *source_find_loaded(const struct source *s, const struct relation *rel)
{
	struct source_loaded *l = map_get_u32(s->loaded_by_id, rel->id);
	if (l)
		return l;
	l = by_name(s, rel->schema, rel->name);
	return l && !l->id ? l : NULL;
}

void source_forget(struct source *s, const struct relation *rel)
{
	struct buf key;
	struct source_loaded *l = source_find_loaded(s, rel);
	if (!l)
		return;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, rel->schema, rel->name);
	struct source_loaded *same = map_del(s->loaded, key.data, key.len);
	buf_fini(&key);
	/* Only a table of this run's catalogs is forgotten, under the name that it has there. */
	assert(same == l);
	if (l->id)
		map_del_u32(s->loaded_by_id, l->id);
	free(l);
}

static void raise(void *arg, const void *key, size_t n, void *value)
{
	const struct source_loaded *l = value;
	uint64_t *newest = arg;
	(void)key;
	(void)n;
	*newest = l->lsn > *newest ? l->lsn : *newest;
}

uint64_t source_newest_load(const struct source *s)
{
	uint64_t newest = 0;
	map_each(s->loaded, raise, &newest);
	return newest;
}

bool source_needs_load(const struct source *s)
{
	for (size_t i = 0; (s->mode & DMSR_FULL_LOAD) && i < s->nrels; i++)
		if (!source_find_loaded(s, s->rels[i]))
			return true;
	return false;
}

/* ---- the note ---- */

static void free_noted(void *arg, const void *key, size_t n, void *value)
{
	struct noted *noted = value;
	(void)arg;
	(void)key;
	(void)n;
	if (!noted)
		return;
	free(noted->name);
	free(noted->marks);
	free(noted);
}

/* Into out. What cannot be read, and with it all that follows, comes back; NULL: all is read. */
static const char *read_noted(const char *note, struct map *out, bool by_id)
{
	for (const char *p = note; p && *p;) {
		const char *end = sql_skip_name(p);
		struct noted *n = mem_zalloc(sizeof *n);
		char head[64]; /* sscanf would measure all that follows */
		unsigned high = 0, low = 0;
		int used = 0;
		snprintf(head, sizeof head, "%.*s", (int)sizeof head - 1, end);
		if (sscanf(head, " %u %X/%X %n", &n->id, &high, &low, &used) != 3 || !used) {
			free(n);
			return p;
		}
		n->lsn = (uint64_t)high << 32 | low;
		n->name = mem_strndup(p, (size_t)(end - p));
		const char *marks = end + used;
		size_t len = strcspn(marks, "\"");
		if (len)
			n->marks = mem_strndup(marks, len);
		free_noted(NULL, NULL, 0, by_id ? map_put_u32(out, n->id, n) : map_put(out, p, (size_t)(end - p), n));
		p = marks + len;
	}
	return NULL;
}

struct map *source_noted(const struct source *s)
{
	struct map *out = map_new();
	read_noted(s->host.note_get(s->host.ctx, "tables"), out, false);
	return out;
}

static void tell_damage(const struct source *s, const char *damage)
{
	ptrdiff_t n = sql_skip_name(damage) - damage;
	source_tell(s, "what was noted of the job's tables cannot be read from %.*s on: what happened to those that stand after it, while nobody looked, is "
		"not known", n < 140 ? (int)n : 140, damage);
}

struct map *source_noted_gone(const struct source *s)
{
	struct map *out = map_new();
	const char *damage = read_noted(s->host.note_get(s->host.ctx, "gone"), out, true);
	if (damage)
		tell_damage(s, damage);
	return out;
}

void source_noted_free(struct map *noted)
{
	map_each(noted, free_noted, NULL);
	map_free(noted);
}

/* Of the text in quotes at p; *end: behind it. */
static char *unquote(const char *p, const char **end)
{
	char *out = mem_alloc(strlen(p) + 1), *at = out;
	for (p += *p == '"'; *p && (*p != '"' || p[1] == '"'); p++) {
		p += *p == '"';
		*at++ = *p;
	}
	*at = '\0';
	*end = p + (*p == '"');
	return out;
}

void source_noted_name(const struct noted *n, char **schema, char **name)
{
	const char *end;
	*schema = unquote(n->name, &end);
	*name = unquote(end + (*end == '.'), &end);
}

bool source_is_loaded(const struct source *s, const char *schema, const char *name) { return by_name(s, schema, name) != NULL; }

struct each { void (*fn)(void *arg, const struct noted *n); void *arg; };

static void each(void *arg, const void *key, size_t n, void *value)
{
	const struct each *e = arg;
	(void)key;
	(void)n;
	e->fn(e->arg, value);
}

void source_noted_each(const struct map *noted, void (*fn)(void *arg, const struct noted *n), void *arg)
{
	struct each e = { fn, arg };
	map_each(noted, each, &e);
}

static const struct noted *noted_as(const struct map *noted, const char *schema, const char *name)
{
	struct buf key;
	buf_init(&key, SIZE_MAX);
	sql_qualified(&key, schema, name);
	const struct noted *n = map_get(noted, key.data, key.len);
	buf_fini(&key);
	return n;
}

static const struct noted *noted_of(const struct map *noted, const struct relation *rel) { return noted_as(noted, rel->schema, rel->name); }

bool source_is_renamed(const struct map *noted, uint32_t id, const char *schema, const char *name)
{
	const struct noted *n = noted_as(noted, schema, name);
	return map_size(noted) && (!n || n->id != id);
}

uint64_t source_noted_lsn(const struct source *s, const struct relation *rel)
{
	struct map *noted = source_noted(s);
	const struct noted *n = noted_of(noted, rel);
	uint64_t lsn = n && n->id == rel->id ? n->lsn : 0;
	source_noted_free(noted);
	return lsn;
}

static void note_id(void *arg, const struct noted *n) { map_put_u32(arg, n->id, arg); }

struct map *source_noted_ids(const struct source *s)
{
	struct map *noted = source_noted(s), *ids = map_new();
	source_noted_each(noted, note_id, ids);
	source_noted_free(noted);
	return ids;
}

bool source_is_new(const struct source *s, const struct map *ids, const struct relation *rel)
{
	/* Without a note nothing is known: a job that did not load anything had none once. */
	return map_size(ids) && !map_get_u32(ids, rel->id) && !source_find_loaded(s, rel);
}

const char *source_noted_marks(const struct map *noted, const struct relation *rel)
{
	const struct noted *n = noted_of(noted, rel);
	return n && n->id == rel->id ? n->marks : NULL;
}

/* A table that the note does not have was none of the job's in the last run: its changes were passed over. */
static bool is_still_loaded(const struct map *notes, const struct relation *rel, const struct source_loaded *l)
{
	const struct noted *n = noted_of(notes, rel);
	return n ? n->id == rel->id && l->lsn >= n->lsn : !map_size(notes);
}

struct unmatched { struct dmsr_tables one; bool is_met; };

/* Of one that was there in the last run it is told what became of it. */
static void meet_noted(void *arg, const struct noted *n)
{
	struct unmatched *u = arg;
	char *schema, *name;
	source_noted_name(n, &schema, &name);
	u->is_met |= dmsr_table_matches(&u->one, schema, name);
	free(schema);
	free(name);
}

static bool is_met(const struct source *s, const struct map *noted, const char *pattern)
{
	struct unmatched u = { .one = { .include = &pattern, .ninclude = 1 } };
	for (size_t r = 0; r < s->nrels; r++)
		u.is_met |= dmsr_table_matches(&u.one, s->rels[r]->schema, s->rels[r]->name);
	source_noted_each(noted, meet_noted, &u);
	return u.is_met;
}

static void tell_pattern(struct source *s, char *problem)
{
	if (problem)
		source_tell(s, "%s", problem);
	free(problem);
}

/* True: there may be one. named: the answer to named_sql, by which they are told; NULL: not asked yet. */
static bool has_unmatched(struct source *s, const PGresult *named)
{
	struct map *noted = source_noted(s);
	bool has = false;
	for (size_t i = 0; i < s->tables->ninclude && !s->leaves; i++) {
		const char *pattern = s->tables->include[i];
		if (is_met(s, noted, pattern))
			continue;
		has = true;
		tell_pattern(s, named ? pattern_problem(pattern, s->tables, named) : NULL);
	}
	for (size_t i = 0; i < s->tables->nexclude; i++) {
		if (!exclude_names_one(s->tables->exclude[i]))
			continue;
		has = true;
		tell_pattern(s, named ? exclude_problem(s->tables->exclude[i], named) : NULL);
	}
	source_noted_free(noted);
	return has;
}

static void on_named(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	has_unmatched(s, res);
	s->unmatched_told(s);
}

void source_tell_unmatched(struct source *s, struct pgconn *c, void (*next)(struct source *s))
{
	s->unmatched_told = next;
	if (has_unmatched(s, NULL))
		pgconn_query(c, named_sql, on_named, s);
	else
		next(s);
}

static void fail_no_tables(struct source *s)
{
	source_fail_because(s, DMSR_ENOTFOUND, "source.no-tables", "check tables.include and tables.exclude, and that the role may see the tables' schemas",
		"no table of %s matches the job's patterns", pgconn_describe(s->sql ? s->sql : s->loader));
}

void source_fail_no_tables(struct source *s, struct pgconn *c) { source_tell_unmatched(s, c, fail_no_tables); }

/* Whether a table that the publication has by itself, with its schema or its root, was in it when it was written to, and meant by the patterns of then, is not
 * known: then it is all there. */
void source_tell_joined(const struct source *s, const struct map *published)
{
	struct map *ids = source_noted_ids(s);
	for (size_t i = 0; i < s->nrels && !(s->mode & DMSR_FULL_LOAD); i++) {
		const struct relation *rel = s->rels[i];
		const char *how = !publication_holds(published, rel) ? "is published from now on: what was written to it before is not read, and" :
			map_size(ids) && !map_get_u32(ids, rel->id)  ? "was no part of the job at its last start: what was written to it before now" :
								       NULL;
		if (how)
			source_tell(s, "table %s.%s %s is missing at the targets, unless they have it%s", rel->schema, rel->name, how,
				publication_holds(published, rel) ?
					", or the publication had it then already, and the job's patterns meant it by its own name" : "");
	}
	map_free(ids);
}

static const char was_alone[] = "tables were loaded when nothing followed their changes, as the job's mode was full-load";

/* Nothing is loaded for the stream before there is a slot: what is loaded then was when the mode was another. */
static void forget_loaded_alone(struct source *s)
{
	size_t n = 0;
	for (size_t i = 0; i < s->nrels; i++) {
		n += source_find_loaded(s, s->rels[i]) != NULL;
		source_forget(s, s->rels[i]);
	}
	if (n && s->mode & DMSR_FULL_LOAD)
		source_tell(s, "%zu %s: they are loaded again", n, was_alone);
	else if (n)
		source_tell(s, "%zu %s: what was written to them between then and now is missing at the targets; mode full-load-and-cdc loads them again", n,
			was_alone);
}

/* The note "load-alone": the first and the last snapshot of such loads, of a job that has a slot. */
static bool read_alone(const struct source *s, uint64_t *first, uint64_t *last)
{
	const char *note = s->host.note_get(s->host.ctx, "load-alone");
	char a[24], b[24];
	return note && sscanf(note, "%23s %23s", a, b) == 2 && !lsn_parse(a, first) && !lsn_parse(b, last);
}

void source_note_alone(struct source *s, uint64_t lsn, void (*next)(struct source *s))
{
	struct slot_note slot;
	uint64_t first, last;
	char a[24], b[24], note[64];
	if (slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &slot) || !slot.is_made) {
		next(s);
		return;
	}
	if (!read_alone(s, &first, &last))
		first = lsn;
	snprintf(note, sizeof note, "%s %s", lsn_format(first, a), lsn_format(lsn, b));
	source_put_note(s, "load-alone", note, next);
}

/* Nor is such a load of use to a stream that goes on: a commit is in the log before others see it, so what is before the place that was noted of the snapshot
 * need not be in the rows. */
static void review_loaded_alone(struct source *s)
{
	uint64_t first, last;
	size_t n = 0;
	bool loads = s->mode & DMSR_FULL_LOAD;
	if (!read_alone(s, &first, &last))
		return;
	for (size_t i = 0; i < s->nrels; i++) {
		const struct source_loaded *l = source_find_loaded(s, s->rels[i]);
		if (!l || l->lsn < first || l->lsn > last)
			continue;
		n++;
		if (loads)
			source_forget(s, s->rels[i]);
	}
	if (n)
		source_tell(s, "%zu %s: %s", n, was_alone, loads ? "they are loaded again" : "what was committed at the time of that may be missing at the "
			"targets; mode full-load-and-cdc loads them again");
}

struct noting { struct buf text; uint64_t lsn; bool is_other; };

/* It was to be loaded behind where the server's log ended, and that ends there still: the snapshot has all there is. */
static void note_newest(void *arg, const struct noted *n)
{
	struct noting *to = arg;
	bool is_newest = n->lsn == to->lsn + 1;
	char at[24];
	to->is_other |= is_newest;
	buf_printf(&to->text, "%s %u %s %s", n->name, n->id, lsn_format(is_newest ? to->lsn : n->lsn, at), n->marks ? n->marks : "");
}

void source_forget_missed(struct source *s)
{
	struct map *noted = map_new();
	bool is_damaged = read_noted(s->host.note_get(s->host.ctx, "tables"), noted, false);
	struct noting to = { .lsn = s->snapshot_lsn };
	for (size_t i = 0; i < s->nrels; i++) {
		const struct noted *n = noted_of(noted, s->rels[i]);
		const struct source_loaded *l = source_find_loaded(s, s->rels[i]);
		/* what this run has read of a standby that is behind the note it would read again and again, with each of its snapshots */
		if (!n || !l || !l->is_earlier || n->id != s->rels[i]->id || l->lsn >= n->lsn)
			continue;
		source_tell(s, "table %s.%s is loaded again: changes of it were missed", s->rels[i]->schema, s->rels[i]->name);
		source_forget(s, s->rels[i]);
	}
	buf_init(&to.text, SIZE_MAX);
	source_noted_each(noted, note_newest, &to);
	if (to.is_other && !is_damaged)
		source_put_note(s, "tables", buf_cstr(&to.text), NULL);
	buf_fini(&to.text);
	source_noted_free(noted);
}

/* The note "left-out", LSN OID...: a run that read the stream first left changes of these tables out, if there were any, up to that place or a little behind
 * it, for the rows of a load to have them. Tables that come later are none of them. */
void source_note_left_out(struct source *s)
{
	struct buf note;
	char at[24];
	buf_init(&note, SIZE_MAX);
	buf_str(&note, lsn_format(s->began_lsn, at));
	for (size_t i = 0; i < s->nrels; i++)
		if (!source_find_loaded(s, s->rels[i]))
			buf_printf(&note, " %u", (unsigned)s->rels[i]->id);
	source_put_note(s, "left-out", buf_cstr(&note), NULL);
	buf_fini(&note);
}

static void review_left_out(struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, "left-out"), *p = note ? strchr(note, ' ') : NULL;
	struct map *ids = map_new();
	struct buf names;
	size_t n = 0;
	for (char *end; p && *p == ' '; p = end)
		map_put_u32(ids, (uint32_t)strtoul(p + 1, &end, 10), s);
	buf_init(&names, 400);
	for (size_t i = 0; i < s->nrels; i++)
		if (map_get_u32(ids, s->rels[i]->id) && !source_find_loaded(s, s->rels[i]) && n++ < 5)
			buf_printf(&names, "%s%s.%s", n > 1 ? ", " : "", s->rels[i]->schema, s->rels[i]->name);
	if (n && !(s->mode & DMSR_FULL_LOAD))
		source_tell(s, "changes up to %.*s of tables that were to be loaded, and were not, may be missing at the targets, of %s%s; mode "
			"full-load-and-cdc loads them", (int)strcspn(note, " "), note, buf_ok(&names) ? buf_cstr(&names) : "some whose names are too long",
			n > 5 ? " and others" : "");
	else if (!n && note)
		source_put_note(s, "left-out", NULL, NULL);
	buf_fini(&names);
	map_free(ids);
}

void source_review_loaded(struct source *s)
{
	struct slot_note slot;
	if (!slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &slot) && !slot.is_made) {
		forget_loaded_alone(s);
		return;
	}
	review_loaded_alone(s);
	static const char is_damaged[] = "what was noted of it is damaged", is_other[] = "it is not the one that was loaded, or changes of it were missed";
	struct map *notes = map_new();
	const char *damage = read_noted(s->host.note_get(s->host.ctx, "tables"), notes, false);
	if (damage)
		tell_damage(s, damage);
	for (size_t i = 0; i < s->nrels; i++) {
		struct source_loaded *l = source_find_loaded(s, s->rels[i]);
		bool is_lost = damage && !noted_of(notes, s->rels[i]);
		if (l && (is_lost || !is_still_loaded(notes, s->rels[i], l))) {
			source_tell(s, "table %s.%s is %s: %s", s->rels[i]->schema, s->rels[i]->name,
				s->mode & DMSR_FULL_LOAD ? "loaded again" : "not loaded again, as the job's mode is cdc", is_lost ? is_damaged : is_other);
			source_forget(s, s->rels[i]);
		} else if (l) {
			l->id = s->rels[i]->id;
			map_put_u32(s->loaded_by_id, l->id, l);
		}
	}
	source_noted_free(notes);
	review_left_out(s);
}

void source_note_tables(struct source *s, uint64_t lsn, void (*next)(struct source *s))
{
	struct buf note;
	char at[24];
	buf_init(&note, SIZE_MAX);
	for (size_t i = 0; i < s->nrels; i++) {
		const struct source_loaded *l = source_find_loaded(s, s->rels[i]);
		sql_qualified(&note, s->rels[i]->schema, s->rels[i]->name);
		lsn_format(l ? l->lsn : source_rest_lsn(s, s->rels[i]->id, lsn), at);
		buf_printf(&note, " %u %s ", (unsigned)s->rels[i]->id, at);
		if (s->history)
			history_write(s->history, s->rels[i]->id, source_stream_confirmed(s), &note);
		buf_byte(&note, ' ');
	}
	source_put_note(s, "tables", buf_cstr(&note), next);
	buf_fini(&note);
}

bool source_forget_unpublished(struct source *s, const struct map *published)
{
	bool any = false;
	for (size_t i = 0; i < s->nrels; i++) {
		const struct relation *rel = s->rels[i];
		if (publication_holds(published, rel) || !(s->mode & DMSR_FULL_LOAD) || !source_find_loaded(s, rel))
			continue;
		source_tell(s, "table %s.%s was not in the publication for a while: it is loaded again", rel->schema, rel->name);
		source_forget(s, rel);
		any = true;
	}
	return any;
}

/* ---- whose changes ---- */

bool source_wants(const struct source *s, const struct relation *rel, uint64_t *loaded_lsn)
{
	const struct source_loaded *l = source_find_loaded(s, rel);
	*loaded_lsn = l ? l->lsn : source_load_newer(s, rel->id);
	if (!l && s->ends_first) /* the rows that the next run loads have it */
		return false;
	/* Renamed out of the patterns it is still the job's; and what was loaded and is no more has a last few changes. */
	if (source_find_rel(s, rel->id) || l)
		return true;
	if (!dmsr_table_matches(s->tables, rel->schema, rel->name))
		return false;
	/* New, or a partition, of which the server speaks beside its root. */
	return !(s->mode & DMSR_FULL_LOAD) && !(s->left_out && map_get_u32(s->left_out, rel->id));
}

/* ---- life ---- */

void source_tables_init(struct source *s, const struct dmsr_loaded *loaded, size_t n)
{
	s->loaded = map_new();
	s->loaded_by_id = map_new();
	for (size_t i = 0; i < n; i++) {
		source_add_loaded(s, NULL, loaded[i].schema, loaded[i].name, loaded[i].at.lsn);
		if (loaded[i].at.server)
			s->loaded_server = loaded[i].at.server;
	}
}

static void free_loaded(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	free(value);
}

void source_tables_free(struct source *s)
{
	source_set_rels(s, NULL, 0);
	map_free(s->rel_by_id);
	map_free(s->left_out);
	if (!s->loaded)
		return;
	map_each(s->loaded, free_loaded, NULL);
	map_free(s->loaded);
	map_free(s->loaded_by_id);
}
