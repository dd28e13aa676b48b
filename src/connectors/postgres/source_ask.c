/* source_ask: the stream speaks of a table, of its name or of a column, that our reading of the catalog does not know: it came later. In comes the table's oid;
 * out goes, in source.rels, what the catalog says of it now (types' names, defaults, ddl), and the decoder goes on. No answer is no harm: the wire
 * tells the rest.
 *
 * And a table is truncated that had another name when the run began, under which its changes go out: if another table has that name now, its rows at the
 * targets would go. There an answer is waited for.
 *
 * The SQL connection is shared with source_watch: whoever finds it busy is called when it is free. */
#include "source_int.h"
#include <stdio.h>
#include <stdlib.h>

static void answered(struct source *s)
{
	s->asked = 0;
	s->asked_is_sent = s->asked_is_name = false;
	loop_task_post(s->turn);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct source *s = arg;
	s->catalog = NULL;
	if (e)
		log_warn("postgres", s->host.env.job, "the catalog was asked about table %u: %s", s->asked, e->message);
	if (!e && !n)
		map_put_u32(s->unknown, s->asked, s);
	for (size_t i = 0; i < n; i++) {
		source_put_rel(s, rels[i]);
		source_look_named(s, rels[i], UINT64_MAX);
	}
	free(rels);
	answered(s);
}

static void on_name(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct buf pattern;
	if (e || PQntuples(res) != 1) {
		answered(s);
		return;
	}
	buf_init(&pattern, 1024);
	/* In a pattern a part in double quotes is literal, a quote in it doubled: the same as in SQL. */
	sql_qualified(&pattern, PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1));
	free(s->asked_pattern);
	s->asked_pattern = mem_strdup(buf_cstr(&pattern));
	buf_fini(&pattern);
	s->asked_include[0] = s->asked_pattern;
	s->asked_tables = (struct dmsr_tables){ .include = s->asked_include, .ninclude = 1 };
	s->catalog = catalog_read(s->sql, &s->asked_tables, true, s->leaves, on_catalog, s);
	catalog_refers_to(s->catalog, &s->rel_by_id);
}

static void on_holder(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e)
		source_fail(s, e);
	else if (PQntuples(res) && catalog_oid(res, 0, 0) != s->asked)
		source_look_taken(s, source_look_name(s, s->asked));
	else
		answered(s);
}

static void ask_holder(struct source *s)
{
	const struct relation *name = source_look_name(s, s->asked);
	const char *values[] = { name->schema, name->name };
	pgconn_query_params(s->sql, "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
			" WHERE n.nspname = $1 AND c.relname = $2",
		2, values, on_holder, s);
}

void source_ask_on(struct source *s)
{
	char sql[240];
	if (!s->asked || s->asked_is_sent || !s->sql || !pgconn_is_ready(s->sql))
		return;
	s->asked_is_sent = true;
	if (s->asked_is_name) {
		ask_holder(s);
		return;
	}
	/* A table that is being altered is locked: then the wire must do. */
	snprintf(sql, sizeof sql, "SELECT n.nspname, c.relname, pg_catalog.set_config('lock_timeout', '3s', false)"
		" FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n WHERE c.oid = %u AND n.oid = c.relnamespace",
		s->asked);
	pgconn_query(s->sql, sql, on_name, s);
}

enum dmsr_verdict source_ask(void *source, uint32_t relid)
{
	struct source *s = source;
	/* A partition, of which the server speaks beside its root, is no table of its own in the catalog's answer. */
	if (!s->unknown)
		s->unknown = map_new();
	if (map_get_u32(s->unknown, relid))
		return DMSR_OK;
	s->asked = relid;
	source_watch_reconnect(s);
	source_ask_on(s);
	return DMSR_AGAIN;
}

enum dmsr_verdict source_ask_name(void *source, uint32_t relid)
{
	struct source *s = source;
	s->asked = relid;
	s->asked_is_name = true;
	source_watch_reconnect(s);
	source_ask_on(s);
	return DMSR_AGAIN;
}

bool source_is_asking(const struct source *s) { return s->asked != 0; }

void source_ask_lost(struct source *s)
{
	catalog_cancel(s->catalog);
	s->catalog = NULL;
	if (s->asked_is_name)
		s->asked_is_sent = false; /* until there is another one */
	else if (s->asked)
		answered(s);
}
