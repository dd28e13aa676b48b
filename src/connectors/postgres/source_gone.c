/* source_gone: see source_gone.h. */
#include "source_gone.h"
#include "source_mark.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BY_NAME = 5 };

void gone_notice_init(struct gone_notice *g)
{
	for (unsigned i = 0; i < GONE_KINDS; i++) {
		buf_init(&g->kinds[i].names, SIZE_MAX);
		g->kinds[i].n = 0;
	}
}

static void add(struct gone_notice *g, enum gone_kind kind, const char *was, const char *is)
{
	struct buf *names = &g->kinds[kind].names;
	unsigned n = g->kinds[kind].n++;
	if (n < BY_NAME)
		buf_printf(names, "%s%s%s%s", n ? ", " : "", was, is ? " is now " : "", is ? is : "");
}

struct name { uint32_t id; struct buf *out; };

static void take_name(void *arg, const struct noted *noted)
{
	struct name *n = arg;
	if (noted->id == n->id)
		buf_str(n->out, noted->name);
}

void gone_notice_add_renamed(struct gone_notice *g, const struct map *noted, uint32_t id, const char *schema, const char *name)
{
	struct buf was, is;
	buf_init(&was, SIZE_MAX);
	buf_init(&is, SIZE_MAX);
	struct name of = { id, &was };
	if (g->kinds[GONE_RENAMED].n < BY_NAME)
		source_noted_each(noted, take_name, &of);
	sql_qualified(&is, schema, name);
	add(g, GONE_RENAMED, buf_cstr(&was), buf_cstr(&is));
	buf_fini(&was);
	buf_fini(&is);
}

void gone_notice_tell(struct gone_notice *g, const struct source *s)
{
	static const struct { const char *what, *then; } text[GONE_KINDS] = {
		[GONE_DROPPED] = { "were dropped at the source", "What is of them at the targets stays there" },
		[GONE_RENAMED] = { "were renamed, and the job's patterns do not mean the new names",
			"Name them in tables.include and start the job again: they are read under their new names, from the beginning. Or give them back the "
			"old ones, and start the job again" },
		[GONE_UNLOGGED] = { "are UNLOGGED and not read any more", "ALTER TABLE ... SET LOGGED, and start the job again: they are taken up anew" },
		[GONE_UNMEANT] = { "are not read any more: the job's patterns do not mean them, or they are partitions now",
			"What is of them at the targets stays there" },
	};
	for (unsigned i = 0; i < GONE_KINDS; i++) {
		struct buf *names = &g->kinds[i].names;
		unsigned n = g->kinds[i].n;
		if (n > BY_NAME)
			buf_printf(names, " and %u more", n - BY_NAME);
		if (n)
			source_tell(s, "tables of the job %s: %s. %s", text[i].what, buf_cstr(names), text[i].then);
		buf_fini(names);
	}
}

/* ---- their columns ---- */

struct gone_tables {
	struct map *rels;               /* by oid */
	struct history *history;
	struct buf note;                /* as it is to be */
	uint64_t lsn;                   /* of those that are gone since the last start */
	struct source *s;
};

/* Changes of it may wait for targets that never get its rows. A table that is loaded under its name has newer rows. */
static bool make_void(const struct source *s, const struct noted *n)
{
	char *schema, *name;
	const struct relation *rel = source_find_rel(s, n->id);
	if (!s->is_beside)
		return false;
	source_noted_name(n, &schema, &name);
	bool is_here = rel && !strcmp(rel->schema, schema) && !strcmp(rel->name, name), is = !is_here && !source_is_loaded(s, schema, name);
	for (size_t i = 0; i < s->nrels && is; i++)
		is = strcmp(s->rels[i]->schema, schema) != 0 || strcmp(s->rels[i]->name, name) != 0;
	if (is)
		s->host.load_void(s->host.ctx, schema, name);
	free(schema);
	free(name);
	return is;
}

static void keep(struct gone_tables *g, const struct noted *n, uint64_t lsn)
{
	char at[24];
	if (make_void(g->s, n)) { /* of its columns nothing need be known */
		buf_printf(&g->note, "%s %u %s ", n->name, n->id, lsn_format(lsn, at));
		return;
	}
	if (!n->marks || source_find_rel(g->s, n->id) || map_get_u32(g->rels, n->id))
		return;
	history_read(g->history, n->id, n->marks);
	const char *mark = history_newest(g->history, n->id);
	struct relation_builder *b = relation_build("postgres", "", n->name, n->id);
	struct relation *of = relation_seal(b, KEY_NONE), *rel = mark ? mark_shape(mark, of) : NULL;
	relation_unref(of);
	if (!rel)
		return;
	map_put_u32(g->rels, n->id, rel);
	buf_printf(&g->note, "%s %u %s ", n->name, n->id, lsn_format(lsn, at));
	history_write(g->history, n->id, source_stream_confirmed(g->s), &g->note);
	buf_byte(&g->note, ' ');
}

static void keep_new(void *arg, const struct noted *n) { keep(arg, n, ((struct gone_tables *)arg)->lsn); }

static void keep_older(void *arg, const struct noted *n)
{
	struct gone_tables *g = arg;
	const struct source *s = g->s;
	if (n->lsn > source_stream_confirmed(s) || (s->is_beside && n->lsn > s->applied.lsn))
		keep(g, n, n->lsn);
}

void source_gone_read(struct source *s, const struct map *noted)
{
	const char *was = s->host.note_get(s->host.ctx, "gone");
	struct gone_tables *g = s->gone = mem_zalloc(sizeof *g);
	struct map *older = source_noted_gone(s);
	*g = (struct gone_tables){ .rels = map_new(), .history = history_new(), .lsn = s->began_lsn, .s = s };
	buf_init(&g->note, SIZE_MAX);
	source_noted_each(noted, keep_new, g);
	source_noted_each(older, keep_older, g);
	source_noted_free(older);
	if (strcmp(was ? was : "", buf_cstr(&g->note)) != 0)
		source_put_note(s, "gone", buf_cstr(&g->note), NULL);
}

struct relation *source_gone_rel(const struct source *s, uint32_t id) { return s->gone ? map_get_u32(s->gone->rels, id) : NULL; }

const char *source_gone_at(const struct source *s, uint32_t id, uint64_t lsn) { return s->gone ? history_at(s->gone->history, id, lsn) : NULL; }

static void drop_rel(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	relation_unref(value);
}

void source_gone_free(struct source *s)
{
	if (!s->gone)
		return;
	map_each(s->gone->rels, drop_rel, NULL);
	map_free(s->gone->rels);
	history_free(s->gone->history);
	buf_fini(&s->gone->note);
	free(s->gone);
	s->gone = NULL;
}

/* ---- at the start ---- */

struct ask {
	struct source *s;
	struct buf *oids;
	const PGresult *res;    /* what they are now */
	struct map *rows;       /* its rows by oid, from 1 */
	struct gone_notice *notice;
};

static void find(void *arg, const struct noted *n)
{
	struct ask *a = arg;
	if (!source_find_rel(a->s, n->id))
		buf_printf(a->oids, "%s%u", a->oids->len ? "," : "{", n->id);
}

/* It knows what was loaded, and says which of that the patterns do not mean any more. */
static bool is_told_by_host(const struct source *s, const char *schema, const char *name)
{
	return (s->mode & DMSR_FULL_LOAD) && !dmsr_table_matches(s->tables, schema, name);
}

enum { IS_OID, IS_SCHEMA, IS_NAME, IS_PERSISTENCE };

static void sort(void *arg, const struct noted *n)
{
	struct ask *a = arg;
	struct buf is;
	const char *name = n->name;
	int i = (int)(intptr_t)map_get_u32(a->rows, n->id) - 1;
	if (source_find_rel(a->s, n->id))
		return;
	if (i < 0) {
		add(a->notice, GONE_DROPPED, name, NULL);
		return;
	}
	buf_init(&is, SIZE_MAX);
	sql_qualified(&is, PQgetvalue(a->res, i, IS_SCHEMA), PQgetvalue(a->res, i, IS_NAME));
	bool is_unlogged = *PQgetvalue(a->res, i, IS_PERSISTENCE) == 'u';
	if (strcmp(buf_cstr(&is), name) != 0)
		add(a->notice, GONE_RENAMED, name, buf_cstr(&is));
	else if (is_unlogged || !is_told_by_host(a->s, PQgetvalue(a->res, i, IS_SCHEMA), PQgetvalue(a->res, i, IS_NAME)))
		add(a->notice, is_unlogged ? GONE_UNLOGGED : GONE_UNMEANT, name, NULL);
	buf_fini(&is);
}

static void on_gone(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct gone_notice notice;
	if (e) {
		source_fail(s, e);
		return;
	}
	struct ask a = { .s = s, .res = res, .rows = map_new(), .notice = &notice };
	for (int i = 0; i < PQntuples(res); i++)
		map_put_u32(a.rows, catalog_oid(res, i, IS_OID), (void *)(intptr_t)(i + 1));
	struct map *noted = source_noted(s);
	gone_notice_init(&notice);
	source_noted_each(noted, sort, &a);
	source_noted_free(noted);
	map_free(a.rows);
	gone_notice_tell(&notice, s);
	s->gone_told(s);
}

void source_gone(struct source *s, void (*next)(struct source *s))
{
	struct buf oids;
	struct ask a = { .s = s, .oids = &oids };
	struct map *noted = source_noted(s);
	buf_init(&oids, SIZE_MAX);
	source_noted_each(noted, find, &a);
	source_noted_free(noted);
	s->gone_told = next;
	if (oids.len) {
		buf_byte(&oids, '}');
		const char *values[] = { buf_cstr(&oids) };
		pgconn_query_params(s->sql, "SELECT c.oid, n.nspname, c.relname, c.relpersistence FROM pg_catalog.pg_class c"
				" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::pg_catalog.oid[])",
			1, values, on_gone, s);
	} else {
		next(s);
	}
	buf_fini(&oids);
}
