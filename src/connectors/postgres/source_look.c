/* source_look: what happened at the server that the stream does not tell: the publication was altered, a table was taken out of it, or written anew with other
 * values, a partition came with its rows. In come the marks (source_mark.h) of the tables as they were and as they are; out goes a judgement:
 *
 *   start:  the tables are known -> the note "tables" is read -> publication -> marks, compared with those of the note -> source_slot
 *           A table of which something was missed is not loaded any longer, and so it is loaded again. Where nothing is loaded a table that was out of the
 *           publication is the end, for what was missed cannot be had any more; the others may differ, which is said.
 *   later:  did anything move? -> publication -> marks -> compared with those of before -> tables that are new (source_new.c)
 *           What the start would not pass over ends the run, to be tried again at once: so there is one judge, and what was noted is what it goes by.
 *
 * Of a table that is loaded now the mark is that of the snapshot that it is read in: what came before is in its rows, what comes after is seen. */
#include "source_gone.h"
#include "source_mark.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All partitions of a table have new files: it was TRUNCATEd, which comes by the stream, or each of them was, which does not. */
struct emptied { uint64_t since, until; };

struct look {
	uint64_t seen;          /* the server's newest when all was looked at last; 0: not in this run */
	struct map *emptied;    /* oid -> struct emptied, until the stream is past that */
	bool is_put_off;        /* there are such, or young tables: the next look is a whole one. What is noted of those is as if nobody had looked */
	char *any;              /* the answer to mark_any_sql when all was looked at last; NULL: never */
	char *any_new;
	char *columns;          /* likewise the answer to mark_columns_sql */
	char *columns_new;
	struct map *told;       /* oids of tables that are no part of the job yet */
	struct buf news;        /* oids of such that are to be told now: "{1,2" */
	struct map *young;      /* oids of such that a look has seen, and that are taken up if a later one sees them too */
	struct map *noted;      /* the note "tables", read; NULL: not yet */
	struct map *first;      /* oid -> the relation as it was when the run began: under its name the targets have the rows */
	bool is_refused;        /* the server refused a look, which was told; until one succeeds, which is told too */
	void (*then)(struct source *s);
};

/* $1: the tables; $2, if it has one: the publication. */
static void ask_about_tables(struct source *s, struct pgconn *c, const char *sql, int nvalues, pgconn_done *done)
{
	struct buf oids;
	buf_init(&oids, SIZE_MAX);
	relations_oids(&oids, s->rels, s->nrels);
	const char *values[] = { buf_cstr(&oids), s->publication };
	pgconn_query_params(c, sql, nvalues, values, done, s);
	buf_fini(&oids);
}

static void ask_marks(struct source *s, struct pgconn *c, pgconn_done *done) { ask_about_tables(s, c, mark_sql(s->version), 2, done); }

/* ---- what to make of it ---- */

static void tell_unlogged(struct source *s, const struct relation *rel, const char *mark)
{
	unsigned n = mark_unlogged(mark);
	if (n)
		source_tell(s, "table %s.%s: %u partitions of it, or it itself, are UNLOGGED: what is written to them is in no log and does not come. ALTER "
			"TABLE ... SET LOGGED; then the table is loaded again", rel->schema, rel->name, n);
}

static void tell_others(struct source *s, const struct relation *rel, const struct mark_diff *d)
{
	if (d->is_recomputed)
		source_tell(s, "table %s.%s: a generated column has another expression now: a target that computes the column goes on by the old one until it "
			"is altered there too", rel->schema, rel->name);
	if (d->is_reshaped)
		source_tell(s, "table %s.%s: a composite type of its columns has other attributes now: where a target has that type, ALTER TYPE it there, too",
			rel->schema, rel->name);
	if (d->refiled)
		source_tell(s, "table %s.%s: %u partitions of it, or it itself, have new files, as VACUUM FULL, CLUSTER and TRUNCATE make them, and ALTER "
			"TABLE ... SET UNLOGGED and back. What was written while it was UNLOGGED is in no log, and TRUNCATE comes by the stream of the whole "
			"table, not of its partitions by their own names: if it was one of these, load the table again",
			rel->schema, rel->name, d->refiled);
	if (d->attached)
		source_tell(s, "table %s.%s: %u partitions were attached to it that had been tables: rows that were in them did not come by the stream, and "
			"may be missing at the targets until it is loaded again", rel->schema, rel->name, d->attached);
	if (d->gone)
		source_tell(s, "table %s.%s: %u partitions were detached from it or dropped: their rows are still at the targets", rel->schema, rel->name,
			d->gone);
}

/* Why a table is not what its stream says; NULL: it is. */
static const char *reason(const struct mark_diff *d)
{
	if (d->is_unpublished)
		return "was out of the publication, or published in part, for a while";
	if (d->is_rewritten)
		return "was rewritten at the source, by ALTER TABLE ... TYPE, or a new column with a default that differs from row to row";
	if (d->is_relogged)
		return "was UNLOGGED for a while, or a partition of it was (what pg_repack does looks the same), and what was written then is in no log";
	if (d->is_relabelled)
		return "has an enum with a label that was renamed, which renamed it in all rows";
	if (d->is_ungenerated)
		return "has a column that is generated no more";
	return d->is_made_again ? "has lost a column, and got another one that looks the same" : NULL;
}

/* ---- at the start ---- */

/* False: that is the end. */
static bool judge_first(struct source *s, const struct relation *rel, const struct mark_diff *d)
{
	const char *why = reason(d);
	tell_others(s, rel, d);
	if (!why)
		return true;
	if (s->mode & DMSR_FULL_LOAD) {
		if (source_find_loaded(s, rel)) {
			source_tell(s, "table %s.%s %s: it is loaded again", rel->schema, rel->name, why);
			source_forget(s, rel);
		}
		return true;
	}
	if (!d->is_unpublished) {
		source_tell(s, "table %s.%s %s: older rows may differ at the targets", rel->schema, rel->name, why);
		return true;
	}
	source_fail_because(s, DMSR_EFATAL, "publication.lost",
		"what was missed cannot be read any more: make the job anew, on targets like the source", "table %s.%s %s", rel->schema, rel->name, why);
	return false;
}

struct relation *source_look_earlier(void *source, const struct relation *rel, uint64_t lsn)
{
	const struct source *s = source;
	const char *mark = s->history ? history_at(s->history, rel->id, lsn) : NULL;
	if (!mark)
		mark = source_gone_at(s, rel->id, lsn);
	return mark ? mark_shape(mark, rel) : NULL;
}

/* True: the stream has not got there yet. Else it is said of a TRUNCATE that did not come. */
static bool is_put_off(struct source *s, const struct relation *rel, uint64_t lsn, struct mark_diff *d)
{
	struct look *l = s->look;
	struct emptied *em = map_get_u32(l->emptied, rel->id);
	if (!em) {
		em = mem_alloc(sizeof *em);
		*em = (struct emptied){ l->seen, lsn };
		map_put_u32(l->emptied, rel->id, em);
	}
	if (source_stream_passed(s) < em->until)
		return l->is_put_off = true;
	if (source_stream_truncated(s, rel->id) <= em->since)
		d->refiled += d->emptied;
	free(map_del_u32(l->emptied, rel->id));
	return false;
}

/* Compares what was with the answer, which is kept. False: that is the end. */
static bool see(struct source *s, const PGresult *res, int i, bool (*judge)(struct source *s, const struct relation *rel, const struct mark_diff *d),
	bool *is_other)
{
	struct relation *rel = source_find_rel(s, catalog_oid(res, i, MARK_OID));
	const char *is = PQgetvalue(res, i, MARK_TEXT);
	uint64_t lsn = 0;
	struct mark_diff d = { 0 };
	if (!rel)
		return true;
	const char *was = history_newest(s->history, rel->id);
	bool is_known = was;
	if (was)
		mark_compare(was, is, &d);
	lsn_parse(PQgetvalue(res, i, MARK_LSN), &lsn);
	if (d.emptied && !reason(&d) && is_put_off(s, rel, lsn, &d))
		return true;
	*is_other |= !was || d.is_other;
	if (d.is_unlogged_now || judge == judge_first)
		tell_unlogged(s, rel, is);
	history_saw(s->history, rel->id, is, lsn);
	return !is_known || judge(s, rel, &d);
}

static void seen(struct source *s, const PGresult *res)
{
	if (PQntuples(res))
		lsn_parse(PQgetvalue(res, 0, MARK_LSN), &s->look->seen);
}

/* Is another table in the note than there is now? */
static bool is_noted_other(const struct source *s)
{
	struct map *noted = source_noted(s);
	size_t same = 0;
	for (size_t i = 0; i < s->nrels; i++)
		same += !source_is_renamed(noted, s->rels[i]->id, s->rels[i]->schema, s->rels[i]->name);
	bool is_other = same != map_size(noted);
	source_noted_free(noted);
	return is_other;
}

static void on_first_marks(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	bool may_go_on = true;
	if (e) {
		source_fail(s, e);
		return;
	}
	bool is_other = is_noted_other(s);
	for (int i = 0; may_go_on && i < PQntuples(res); i++)
		may_go_on = see(s, res, i, judge_first, &is_other);
	if (!may_go_on)
		return;
	seen(s, res);
	/* What is loaded again must be newer than this: else a crash would let the load of before pass for it. */
	if (is_other)
		source_note_tables(s, s->began_lsn + 1, source_slot);
	else
		source_slot(s);
}

void source_look_read(struct source *s)
{
	struct map *noted = source_noted(s);
	s->look = mem_zalloc(sizeof *s->look);
	s->look->told = map_new();
	buf_init(&s->look->news, SIZE_MAX);
	s->look->young = map_new();
	s->look->first = map_new();
	s->look->emptied = map_new();
	s->history = history_new();
	for (size_t i = 0; i < s->nrels; i++) {
		const char *text = source_noted_marks(noted, s->rels[i]);
		if (text)
			history_read(s->history, s->rels[i]->id, text);
	}
	source_gone_read(s, noted);
	source_noted_free(noted);
}

void source_look(struct source *s)
{
	for (size_t i = 0; i < s->nrels; i++)
		relation_unref(map_put_u32(s->look->first, s->rels[i]->id, relation_ref(s->rels[i])));
	s->doing = "looking at the tables";
	ask_marks(s, s->sql, on_first_marks);
}

/* ---- of a load ---- */

static void on_load_marks(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct mark_diff d;
	if (e) {
		source_fail(s, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++) {
		struct relation *rel = source_find_rel(s, catalog_oid(res, i, MARK_OID));
		if (!rel || source_find_loaded(s, rel))
			continue;
		relation_unref(map_put_u32(s->look->first, rel->id, relation_ref(rel)));
		const char *was = history_newest(s->history, rel->id), *is = PQgetvalue(res, i, MARK_TEXT);
		if (was)
			mark_compare(was, is, &d);
		if (!was || d.is_unlogged_now)
			tell_unlogged(s, rel, is);
		history_loaded(s->history, rel->id, is);
		free(map_del_u32(s->look->emptied, rel->id));
	}
	s->look->then(s);
}

void source_look_load(struct source *s, void (*next)(struct source *s))
{
	s->look->then = next;
	ask_marks(s, s->loader, on_load_marks);
}

/* ---- later ---- */

static void forget_noted(struct look *l)
{
	if (l->noted)
		source_noted_free(l->noted);
	l->noted = NULL;
}

/* The stream goes on, and somebody must know that it is all that is left. */
static void refused(struct source *s, const struct err *e)
{
	struct look *l = s->look;
	if (!l->is_refused)
		source_tell(s, "what the stream does not tell of the tables cannot be looked at: %s%s%s. It is tried again every few seconds; tables that are "
			"rewritten, and columns and partitions that come and go, are seen when it succeeds, or at the next start", e->message,
			e->hint[0] ? ": " : "", e->hint);
	l->is_refused = true;
	source_ask_on(s);
}

static void succeeded(struct source *s)
{
	struct look *l = s->look;
	if (l->is_refused)
		source_tell(s, "the tables can be looked at again, and what the stream did not tell of them meanwhile was seen");
	l->is_refused = false;
	source_ask_on(s);
}

static void looked(struct source *s)
{
	struct look *l = s->look;
	free(l->any);
	l->any = l->any_new;
	if (l->is_put_off) {
		free(l->any);
		l->any = NULL;
	}
	free(l->columns);
	l->columns = l->columns_new;
	l->any_new = l->columns_new = NULL;
	succeeded(s);
}

static bool has_name(const struct source *s, const char *schema, const char *name)
{
	for (size_t i = 0; i < s->nrels; i++)
		if (!strcmp(s->rels[i]->schema, schema) && !strcmp(s->rels[i]->name, name))
			return true;
	return false;
}

/* obstacle: NULL: there is none. */
static void tell_new(struct source *s, const char *schema, const char *name, const char *obstacle)
{
	bool is_another = has_name(s, schema, name);
	const char *then = obstacle ? obstacle : is_another ? "the new one is read when the job is started again" : s->mode & DMSR_FULL_LOAD ?
		"it is taken up when the job is started again" :
		"its changes are read, if the publication has it; if not, it is taken up when the job is started again";
	source_tell(s, "table %s.%s %s: %s", schema, name,
		is_another ? "is another table now than the one that the job reads" : "is new, and the job's patterns mean it", then);
}

static void on_news(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct buf why;
	if (e) {
		refused(s, e);
		return;
	}
	buf_init(&why, SIZE_MAX);
	for (int i = 0; i < PQntuples(res); i++) {
		buf_reset(&why);
		bool has_obstacle = source_new_obstacle(s, res, i, &why);
		map_put_u32(s->look->told, catalog_oid(res, i, NEW_OID), s);
		tell_new(s, PQgetvalue(res, i, NEW_SCHEMA), PQgetvalue(res, i, NEW_NAME), has_obstacle ? buf_cstr(&why) : NULL);
	}
	buf_fini(&why);
	looked(s);
}

/* To somebody else's publication nobody adds it, and the start would leave it out. */
static bool may_add(const struct source *s) { return s->opt.adds_new && source_has_own_publication(s); }

/* What is there for a moment only, as a script makes it, is not worth a new start; nor is a load in turns, which would begin anew. False: the run is over. */
static bool judge_new(struct source *s, uint32_t id, const char *schema, const char *name)
{
	struct look *l = s->look;
	if (!may_add(s)) {
		buf_printf(&l->news, "%s%u", l->news.len ? "," : "{", (unsigned)id);
		return true;
	}
	if (!map_put_u32(l->young, id, s) || s->turns)
		return l->is_put_off = true;
	char *what = mem_printf("table %s.%s", schema, name);
	source_fail_again(s, what, "is new, and the job's patterns mean it: it is taken up");
	free(what);
	return false;
}

/* The stream goes by names, and rows of a table that took the name of another went to the other's rows at the targets, until now. False: the run is over. */
static bool judge_name(struct source *s, const char *schema, const char *name)
{
	char *what = mem_printf("table %s.%s", schema, name);
	bool may_load = s->mode & DMSR_FULL_LOAD;
	if (may_load)
		source_fail_again(s, what, "had another name, under which it was loaded");
	else
		source_tell(s, "%s had another name: what was written since then went to the target's table %s.%s, as it was", what, schema, name);
	free(what);
	return !may_load;
}

/* A table that has another name for a while, if only inside of a transaction, or the other's of two, is the same: what is written to it meanwhile goes where
 * its rows are. If it keeps the name it is loaded under that, or left out, when a look finds it. Where nothing is loaded the names are all there is. */
const struct relation *source_look_name(void *source, uint32_t relid)
{
	const struct source *s = source;
	return s->mode & DMSR_FULL_LOAD ? map_get_u32(s->look->first, relid) : NULL;
}

/* The catalog was read after began_lsn: a name in an older transaction is the one that the table had before it got that of the note. One in between may be
 * older too; then the next run, which begins later, sees it so. */
bool source_look_named(struct source *s, const struct relation *rel, uint64_t lsn)
{
	struct look *l = s->look;
	if (lsn <= s->began_lsn || !history_newest(s->history, rel->id) || map_get_u32(l->told, rel->id))
		return true;
	if (!l->noted)
		l->noted = source_noted(s);
	if (!source_is_renamed(l->noted, rel->id, rel->schema, rel->name))
		return true;
	map_put_u32(l->told, rel->id, s);
	if (dmsr_table_matches(s->tables, rel->schema, rel->name))
		return judge_name(s, rel->schema, rel->name);
	struct gone_notice notice;
	gone_notice_init(&notice);
	gone_notice_add_renamed(&notice, l->noted, rel->id, rel->schema, rel->name);
	gone_notice_tell(&notice, s);
	return true;
}

void source_look_taken(struct source *s, const struct relation *name)
{
	char *what = mem_printf("table %s.%s", name->schema, name->name);
	source_fail_again(s, what, "is another one now than the one that was truncated, which had that name before: its rows at the targets are not to go");
	free(what);
}

/* Columns were dropped or got other names, and a change from before that comes only now. The next load is newer than that change; where there is none, a
 * table that is at the target by those names is the best guess. */
bool source_look_dated(void *source, const struct relation *rel, uint64_t lsn)
{
	struct source *s = source;
	static const char why[] = "got other columns before a change of it was read: which of them is which in that change cannot be told";
	if (!(s->mode & DMSR_FULL_LOAD) || source_gone_rel(s, rel->id)) {
		source_tell(s, "table %s.%s %s: they go by their names, and older rows may differ at the targets", rel->schema, rel->name, why);
		return true;
	}
	struct source_loaded *l = source_find_loaded(s, rel);
	if (l)
		l->lsn = lsn + 1;
	source_note_tables(s, lsn + 1, NULL);
	char *what = mem_printf("table %s.%s", rel->schema, rel->name);
	source_fail_again(s, what, why);
	free(what);
	return false;
}

/* False: the run is over. */
static bool look_at_listed(struct source *s, const struct map *noted, const PGresult *res, int i, struct gone_notice *notice)
{
	uint32_t id = catalog_oid(res, i, TABLE_OID);
	const char *schema = PQgetvalue(res, i, TABLE_SCHEMA), *name = PQgetvalue(res, i, TABLE_NAME);
	bool is_ours = history_newest(s->history, id);
	bool is_meant = catalog_is_meant(s->tables, res, i);
	if (map_get_u32(s->look->told, id) || (s->left_out && map_get_u32(s->left_out, id)) || (!is_meant && !is_ours))
		return true;
	if (is_ours && !source_is_renamed(noted, id, schema, name))
		return true;
	if (!is_ours)
		return judge_new(s, id, schema, name);
	map_put_u32(s->look->told, id, s);
	if (is_meant)
		return judge_name(s, schema, name);
	gone_notice_add_renamed(notice, noted, id, schema, name);
	return true;
}

static void on_list(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct buf *news = &s->look->news;
	bool may_go_on = true;
	if (e) {
		refused(s, e);
		return;
	}
	buf_reset(news);
	struct map *noted = source_noted(s);
	struct gone_notice notice;
	gone_notice_init(&notice);
	for (int i = 0; may_go_on && i < PQntuples(res); i++)
		may_go_on = look_at_listed(s, noted, res, i, &notice);
	source_noted_free(noted);
	gone_notice_tell(&notice, s);
	if (!may_go_on)
		return;
	if (news->len) {
		buf_byte(news, '}');
		source_new_ask(s, buf_cstr(news), on_news);
	} else {
		looked(s);
	}
}

static void ask_list(struct source *s)
{
	struct buf sql;
	buf_init(&sql, SIZE_MAX);
	catalog_tables_sql(&sql, s->tables, s->leaves);
	pgconn_query(s->sql, buf_cstr(&sql), on_list, s);
	buf_fini(&sql);
}

/* False: the run is over. */
static bool judge_later(struct source *s, const struct relation *rel, const struct mark_diff *d)
{
	const char *why = reason(d);
	if (why && (d->is_unpublished || s->mode & DMSR_FULL_LOAD)) {
		char *what = mem_printf("table %s.%s", rel->schema, rel->name);
		source_fail_again(s, what, why);
		free(what);
		return false;
	}
	tell_others(s, rel, d);
	if (why)
		source_tell(s, "table %s.%s %s: older rows may differ at the targets", rel->schema, rel->name, why);
	return true;
}

static void on_marks(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	bool is_other = false, may_go_on = true;
	if (e) {
		refused(s, e);
		return;
	}
	s->look->is_put_off = false;
	for (int i = 0; may_go_on && i < PQntuples(res); i++)
		may_go_on = see(s, res, i, judge_later, &is_other);
	if (!may_go_on)
		return;
	seen(s, res);
	if (is_other) {
		source_note_tables(s, s->began_lsn + 1, NULL);
		forget_noted(s->look);
	}
	ask_list(s);
}

static void on_publication(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	const char *was = s->host.note_get(s->host.ctx, "publication-oid");
	if (e)
		refused(s, e);
	else if (!PQntuples(res) || !was || !publication_is_same(was, PQgetvalue(res, 0, PUB_ROW)))
		source_fail_again(s, "the publication", PQntuples(res) ? "was altered" : "was dropped");
	else
		ask_marks(s, s->sql, on_marks);
}

static void on_columns(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct look *l = s->look;
	const char *values[] = { s->publication };
	if (e) {
		refused(s, e);
		return;
	}
	free(l->columns_new);
	l->columns_new = mem_strdup(PQgetvalue(res, 0, 0));
	/* All but the count of columns is as it was, up to its last blank. */
	size_t same = l->any ? (size_t)(strrchr(l->any, ' ') - l->any) : 0;
	if (same && !strncmp(l->any, l->any_new, same + 1) && !strchr(l->any_new + same + 1, ' ') && !strcmp(l->columns, l->columns_new))
		looked(s);
	else
		pgconn_query_params(s->sql, publication_sql(s->version), 1, values, on_publication, s);
}

static void on_any(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct look *l = s->look;
	if (e) {
		refused(s, e);
		return;
	}
	free(l->any_new);
	l->any_new = mem_printf("%s %s", PQgetvalue(res, 0, ANY_TEXT), PQgetvalue(res, 0, ANY_COLUMNS));
	if (l->any && !strcmp(l->any, l->any_new))
		succeeded(s);
	else
		ask_about_tables(s, s->sql, mark_columns_sql, 1, on_columns);
}

void source_look_again(struct source *s)
{
	const char *values[] = { s->publication };
	pgconn_query_params(s->sql, mark_any_sql(s->version), 1, values, on_any, s);
}

static void drop(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	free(value);
}

static void unref(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	relation_unref(value);
}

void source_look_free(struct source *s)
{
	source_gone_free(s);
	history_free(s->history);
	s->history = NULL;
	if (!s->look)
		return;
	free(s->look->any);
	free(s->look->any_new);
	free(s->look->columns);
	free(s->look->columns_new);
	map_free(s->look->told);
	buf_fini(&s->look->news);
	map_free(s->look->young);
	map_each(s->look->first, unref, NULL);
	map_free(s->look->first);
	map_each(s->look->emptied, drop, NULL);
	map_free(s->look->emptied);
	forget_noted(s->look);
	free(s->look);
	s->look = NULL;
}
