/* source_prepare: from nothing to known: the SQL connection, facts about the server, its identity, the tables the job means, and the publication. Whatever
 * makes the job impossible is found here, before anything is made at the server. In comes a started instance; out goes source_look (or source_load, when
 * there is nothing to follow). */
#include "source_gone.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool follows(const struct source *s) { return s->mode & DMSR_CDC; }

/* ---- the publication ---- */

static void look_at_publication(struct source *s);

bool source_has_own_publication(const struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, "publication");
	return note && !strncmp(note, "own ", 4);
}

/* The role must own the tables, and be allowed to make something in the database; or somebody who is does it; or another was meant. */
static void refuse_publication(struct source *s, const struct err *why)
{
	struct err e = *why;
	struct buf sql;
	buf_init(&sql, 340);
	publication_create_sql(&sql, s->publication, s->rels, s->nrels, s->version);
	const char *create = buf_ok(&sql) ? buf_cstr(&sql) : "CREATE PUBLICATION for them (a dry run of the job, POST /jobs?dry_run=1, writes it out)";
	if (s->opt.publication)
		err_set(&e, DMSR_ENOTFOUND, "publication.missing", "there is no publication \"%s\" in %s, and role %s may not make it: %s", s->publication,
			pgconn_describe(s->sql), settings_str(s->settings, "user"), why->message);
	if (s->near_publication)
		err_hint(&e, "if \"%s\" is meant, set the source's option publication to that; else let the owner of the tables run %s",
			s->near_publication, create);
	else if (s->opt.publication)
		err_hint(&e, "set the source's option publication to one that is there; or let the owner of the tables run %s", create);
	else
		err_hint(&e, "let the owner of the tables run %s; and give its name as the option publication", create);
	buf_fini(&sql);
	source_fail(s, &e);
}

/* It is no standby, that was asked. */
static void refuse_read_only(struct source *s, const struct err *why)
{
	struct err e = *why;
	struct buf sql;
	buf_init(&sql, 340);
	right_sql(&sql, RIGHT_NOT_READ_ONLY, s->settings, NULL, NULL);
	if (buf_ok(&sql))
		err_hint(&e, "default_transaction_read_only is on for the role, the database or the server: %s", buf_cstr(&sql));
	buf_fini(&sql);
	source_fail(s, &e);
}

/* Tables that came new, and are not the role's. */
static void refuse_addition(struct source *s, const struct err *why)
{
	struct err e = *why;
	if (!strcmp(e.id, "source.privilege"))
		err_hint(&e, "let the owner of the tables run %s",
			strlen(s->add_sql) < 400 ? s->add_sql : "ALTER PUBLICATION ... ADD TABLE (a dry run of the job writes it out)");
	source_fail(s, &e);
}

/* One that is named is made all the same, so that a job needs no other hand; but it may be misspelt. */
static void tell_made(const struct source *s)
{
	char *meant = s->near_publication ? mem_printf(". If \"%s\" is meant, delete the job and make it anew with that as the source's option publication",
						    s->near_publication) :
					    mem_strdup("");
	source_tell(s, "there was no publication \"%s\" in %s: it was made, for the job's tables%s", s->publication, pgconn_describe(s->sql), meant);
	free(meant);
}

static void refuse_change(struct source *s, const struct err *why)
{
	struct err e = *why;
	e.retriable |= !strcmp(e.id, "source.undefined"); /* a table went since it was looked at: there is another look */
	/* Not made: one of that name that comes is somebody's, and the next start asks the options anew which it shall be. */
	if (s->publication_is_new && !e.retriable)
		source_put_note(s, "publication", "", NULL);
	if (!strcmp(e.id, "source.read-only"))
		refuse_read_only(s, &e);
	else if (s->publication_is_new && !strcmp(e.id, "source.privilege"))
		refuse_publication(s, &e);
	else if (s->publication_is_new)
		source_fail(s, &e);
	else
		refuse_addition(s, &e);
}

static void on_publication_changed(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e) {
		refuse_change(s, e);
		return;
	}
	failpoint("pg.publication-changed");
	if (s->publication_is_new && s->opt.publication)
		tell_made(s);
	if (s->publication_is_new)
		look_at_publication(s);
	else
		source_look(s);
}

static void make_publication(struct source *s)
{
	struct buf sql;
	buf_init(&sql, 16 * 1024 * 1024);
	publication_create_sql(&sql, s->publication, s->rels, s->nrels, s->version);
	s->doing = "creating the publication";
	log_info("postgres", s->host.env.job, "creating publication %s of %zu table%s", s->publication, s->nrels, s->nrels == 1 ? "" : "s");
	pgconn_query(s->sql, buf_cstr(&sql), on_publication_changed, s);
	buf_fini(&sql);
}

static void add_to_publication(struct source *s)
{
	const char *sql = s->add_sql;
	s->doing = "adding tables to the publication";
	pgconn_query(s->sql, sql, on_publication_changed, s);
}

/* What somebody else's publication lacks is his to add; to ours we add what came new. */
static void add_missing(struct source *s, const PGresult *published)
{
	struct buf sql;
	struct map *set = publication_set(published);
	buf_init(&sql, SIZE_MAX);
	size_t n = publication_add_sql(&sql, s->publication, s->rels, s->nrels, set);
	if (!n) {
		source_tell_joined(s, set);
		source_look(s);
	} else if (!source_has_own_publication(s)) {
		source_fail_because(s, DMSR_EINVAL, "publication.incomplete",
			sql.len < 500 ? buf_cstr(&sql) : "add the tables to it: a dry run of the job, POST /jobs?dry_run=1, writes the statement out",
			"publication \"%s\" does not hold all of the job's tables: %zu %s missing", s->publication, n, n == 1 ? "is" : "are");
	} else {
		source_tell_joined(s, set);
		free(s->add_sql);
		s->add_sql = mem_strdup(buf_cstr(&sql));
		/* Durable before they are put back, or it would not be known after a crash that they were out. */
		if (source_forget_unpublished(s, set))
			source_note_tables(s, s->began_lsn, add_to_publication);
		else
			add_to_publication(s);
	}
	map_free(set);
	buf_fini(&sql);
}

static void on_published_tables(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++)
		if (!PQgetisnull(res, i, PUBTAB_FILTER)) {
			source_fail_because(s, DMSR_EINVAL, "publication.filtered",
				"use a publication without row filters and column lists; the job's own filters do the same",
				"publication \"%s\" publishes only a part of table %s.%s", s->publication, PQgetvalue(res, i, PUBTAB_SCHEMA),
				PQgetvalue(res, i, PUBTAB_NAME));
			return;
		}
	add_missing(s, res);
}

static void ask_published_tables(struct source *s)
{
	const char *values[] = { s->publication };
	pgconn_query_params(s->sql, publication_tables_sql(s->version), 1, values, on_published_tables, s);
}

static void publication_noted(struct source *s)
{
	if (s->publication_is_new)
		make_publication(s);
	else
		ask_published_tables(s);
}

static void note_publication(struct source *s, const char *whose)
{
	char *note = mem_printf("%s %s", whose, s->publication);
	source_put_note(s, "publication", note, publication_noted);
	free(note);
}

/* It is there, and nothing was noted: somebody's that we are told to use, or one that happens to have our name. */
static void adopt_publication(struct source *s)
{
	if (s->opt.publication)
		note_publication(s, "given");
	else
		source_fail_because(s, DMSR_EEXIST, "publication.exists", "drop it, or give its name as the option publication to use it",
			"a publication \"%s\" is there already and was not made by this job", s->publication);
}

static void publication_gone(struct source *s, const char *how)
{
	source_fail_because(s, DMSR_EFATAL, "publication.lost", s->anew, "publication \"%s\" was %s", s->publication, how);
}

/* It is there: is it the same as ever? Changes from between a drop and a new one of that name were not sent. */
static void meet_publication(struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, "publication");
	if (note && note[0])
		source_new(s, ask_published_tables);
	else
		adopt_publication(s);
}

static void refuse_operations(struct source *s, bool is_made)
{
	struct buf sql;
	buf_init(&sql, 500);
	publication_publish_sql(&sql, s->publication);
	source_fail_because(s, is_made ? DMSR_EFATAL : DMSR_EINVAL, "publication.incomplete", is_made ? s->anew : buf_cstr(&sql),
		"publication \"%s\" does not publish all of insert, update, delete and truncate", s->publication);
	buf_fini(&sql);
}

static void on_names(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	const char *near = publication_near(s->publication, res);
	free(s->near_publication);
	s->near_publication = near ? mem_strdup(near) : NULL;
	note_publication(s, "own");
}

static void on_publication(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct slot_note slot;
	if (e) {
		source_fail(s, e);
		return;
	}
	const char *was = s->host.note_get(s->host.ctx, "publication-oid");
	bool is_there = PQntuples(res) > 0;
	const char *is = is_there ? PQgetvalue(res, 0, PUB_ROW) : "";
	if (slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &slot))
		slot.is_made = true; /* source_slot will say what is wrong with it */
	s->publication_is_new = !is_there;
	s->sends_generated = is_there && *PQgetvalue(res, 0, PUB_GENERATED) == 't';
	if (!is_there && slot.is_made)
		publication_gone(s, "dropped");
	else if (!is_there && s->opt.publication)
		pgconn_query(s->sql, publication_names_sql, on_names, s);
	else if (!is_there)
		note_publication(s, "own");
	else if (strchr(PQgetvalue(res, 0, PUB_OPERATIONS), 'f'))
		refuse_operations(s, slot.is_made);
	else if (was && slot.is_made && strtoul(was, NULL, 10) != strtoul(is, NULL, 10))
		publication_gone(s, "dropped, and another one was made under its name");
	else if (was && slot.is_made && !publication_is_same(was, is))
		publication_gone(s, "altered, and may have left out changes for a while");
	else if (was && !strcmp(was, is))
		meet_publication(s);
	else
		source_put_note(s, "publication-oid", is, meet_publication);
}

static void look_at_publication(struct source *s)
{
	const char *values[] = { s->publication };
	pgconn_query_params(s->sql, publication_sql(s->version), 1, values, on_publication, s);
}

/* ---- the tables ---- */

static void refuse_keyless(struct source *s, const PGresult *res, int first, int n)
{
	struct buf names, fix;
	buf_init(&names, 300);
	buf_init(&fix, 600);
	for (int i = first; i < PQntuples(res); i++)
		if (source_find_rel(s, catalog_oid(res, i, IDENTITY_ROOT)))
			buf_printf(&names, "%s%s.%s (%s)", names.len ? ", " : "", PQgetvalue(res, i, IDENTITY_SCHEMA), PQgetvalue(res, i, IDENTITY_NAME),
				identity_problem(res, i));
	identity_fix(res, first, &fix);
	buf_str(&fix, fix.len ? "" : "give each a primary key");
	buf_str(&fix, "; or take them out by tables.exclude, or set keyless_tables of the source to allow");
	source_fail_because(s, DMSR_EINVAL, "source.no-key", buf_ok(&fix) ? buf_cstr(&fix) : "give each a primary key",
		"once published, the server will refuse to update or delete rows of %d table%s, or not tell which rows: %s", n, n == 1 ? "" : "s",
		names.full ? PQgetvalue(res, first, IDENTITY_NAME) : buf_cstr(&names));
	buf_fini(&names);
	buf_fini(&fix);
}

static void on_identities(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	int first = 0, left = 0;
	if (e) {
		source_fail(s, e);
		return;
	}
	if (!s->opt.keyless)
		left = source_new_keyless(s, res, &first);
	if (left) {
		refuse_keyless(s, res, first, left);
		return;
	}
	look_at_publication(s);
}

static void ask_identities(struct source *s)
{
	struct buf oids;
	buf_init(&oids, SIZE_MAX);
	relations_oids(&oids, s->rels, s->nrels);
	const char *values[] = { buf_cstr(&oids) };
	pgconn_query_params(s->sql, identity_sql, 1, values, on_identities, s);
	buf_fini(&oids);
}

static void tables_known(struct source *s)
{
	if (s->nrels)
		source_tell_unmatched(s, s->sql, ask_identities);
	else
		source_fail_no_tables(s, s->sql);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct source *s = arg;
	s->catalog = NULL;
	if (e) {
		source_fail(s, e);
		return;
	}
	source_set_rels(s, rels, n);
	source_review_loaded(s);
	source_look_read(s);
	source_gone(s, tables_known);
}

static void read_catalog(struct source *s)
{
	s->doing = "reading the catalog";
	s->catalog = catalog_read(s->sql, s->tables, !s->load_done, s->leaves, on_catalog, s);
}

/* How partitions are published decides what is a table here. */
static void on_root_option(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	s->leaves = PQntuples(res) && PQgetvalue(res, 0, PUB_VIA_ROOT)[0] == 'f';
	read_catalog(s);
}

static void decide_leaves(struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, "publication");
	char own[64];
	source_name(&s->host.env, own);
	const char *noted = note ? strchr(note, ' ') : NULL; /* "own NAME", "given NAME" */
	free(s->publication);
	s->publication = mem_strdup(noted ? noted + 1 : s->opt.publication ? s->opt.publication : own);
	const char *values[] = { s->publication };
	if (s->version < 130000) {
		s->leaves = true;
		read_catalog(s);
	} else {
		pgconn_query_params(s->sql, publication_sql(s->version), 1, values, on_root_option, s);
	}
}

/* ---- who the server is ---- */

static void next_is_publication(struct source *s)
{
	if (s->phase == SOURCE_PREPARING)
		decide_leaves(s);
}

static void on_repl_ready(void *ctx)
{
	struct source *s = ctx;
	source_identify(s, next_is_publication);
}

static void refuse_server(struct source *s, uint64_t was)
{
	source_fail_because(s, DMSR_EFATAL, "server.changed", "point the source at the server that the job began with, or delete the job and make it anew",
		"%s is another server (system identifier %llu) than the one the job began with (%llu)", pgconn_describe(s->sql), (unsigned long long)s->system,
		(unsigned long long)was);
}

static bool is_loaded_elsewhere(const struct source *s) { return s->loaded_server && s->system && s->loaded_server != s->system; }

/* Of a load alone, which has no replication connection. A role that may not ask loads all the same. */
static void on_system(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (!e && PQntuples(res))
		s->system = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
	if (is_loaded_elsewhere(s))
		refuse_server(s, s->loaded_server);
	else
		source_load(s);
}

static void on_facts(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	s->version = pgconn_server_version(s->sql);
	s->sender_timeout_ms = strtoll(PQgetvalue(res, 0, 2), NULL, 10);
	lsn_parse(PQgetvalue(res, 0, 3), &s->began_lsn);
	source_enter(s, SOURCE_PREPARING, pgconn_describe(s->sql));
	if (s->version < 120000) {
		source_fail_because(s, DMSR_EINVAL, "source.version", "use PostgreSQL 12 or later", "%s: the server's version is %d", pgconn_describe(s->sql),
			s->version);
	} else if (!follows(s)) {
		s->leaves = s->version < 130000;
		pgconn_query(s->sql, "SELECT system_identifier FROM pg_catalog.pg_control_system()", on_system, s);
	} else if (strcmp(PQgetvalue(res, 0, 0), "logical") != 0) {
		source_fail_because(s, DMSR_EINVAL, "source.wal-level", "ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
			"%s: wal_level is %s, and changes can only be read at logical", pgconn_describe(s->sql), PQgetvalue(res, 0, 0));
	} else if (s->version < 160000 && !strcmp(s->opt.origin, "none")) {
		source_fail_because(s, DMSR_EINVAL, "source.origin", "leave out the option origin", "%s: PostgreSQL %d cannot leave out by origin, 16 can",
			pgconn_describe(s->sql), s->version / 10000);
	} else if (PQgetvalue(res, 0, 1)[0] == 't') {
		source_fail_because(s, DMSR_EINVAL, "source.standby", "name the primary as the source's host",
			"%s is a standby: publication and slot cannot be made there",
			pgconn_describe(s->sql));
	} else {
		s->repl = source_connect(s, PGCONN_REPLICATION, on_repl_ready);
	}
}

static void on_sql_ready(void *ctx)
{
	struct source *s = ctx;
	source_watch(s);
	pgconn_query(s->sql, "SELECT pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(),"
			     " (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'),"
			     " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_lsn() END,"
			     /* So that a table that somebody holds is told, and tried again, instead of waited for without a word. */
			     " pg_catalog.set_config('lock_timeout', '15s', false)",
		on_facts, s);
}

void source_prepare(struct source *s) { s->sql = source_connect_watch(s, on_sql_ready); }

/* ---- identity ---- */

/* Lines "1\t0/30001A8\treason": where each older timeline ends. The lowest end of those from `since` on; 0: none of them is in it. */
static uint64_t switch_point(const char *history, uint32_t since)
{
	uint64_t lowest = 0;
	for (const char *line = history; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		unsigned tli, hi, lo;
		if (sscanf(line, "%u %X/%X", &tli, &hi, &lo) != 3 || tli < since)
			continue;
		uint64_t lsn = (uint64_t)hi << 32 | lo;
		lowest = !lowest || lsn < lowest ? lsn : lowest;
	}
	return lowest;
}

static void refuse_timeline(struct source *s, uint32_t was, uint64_t end)
{
	const char *first = s->opt.follow_failover ? "what was read past that point is not on this server:" :
		"if this is the promoted standby of the same data and no write was lost, set follow_failover on the source; else";
	char at[24], *hint = mem_printf("%s %s", first, s->anew);
	source_fail_because(s, DMSR_EFATAL, "server.timeline", hint, "%s has gone from timeline %u to %u%s%s",
		pgconn_describe(s->sql), was, s->timeline, end ? ", branching off at " : "", end ? lsn_format(end, at) : "");
	free(hint);
}

static void on_history(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct slot_note note;
	if (e || slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &note)) {
		if (e)
			source_fail(s, e);
		return;
	}
	uint64_t end = switch_point(PQntuples(res) ? PQgetvalue(res, 0, 1) : "", note.timeline);
	uint64_t have = s->from.kind ? (s->from.flush > s->from.lsn ? s->from.flush : s->from.lsn) : note.lsn;
	if (!s->opt.follow_failover || !end || have > end) {
		refuse_timeline(s, note.timeline, end);
		return;
	}
	log_info("postgres", s->host.env.job, "following the server from timeline %u to %u", note.timeline, s->timeline);
	source_slot_note(s, note.name, note.lsn, s->identified);
}

static void on_identity(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct slot_note note;
	if (e) {
		source_fail(s, e);
		return;
	}
	if (PQntuples(res) != 1 || PQnfields(res) < 4) {
		source_fail_because(s, DMSR_EPROTO, "source.protocol", NULL, "%s: no answer to IDENTIFY_SYSTEM", pgconn_describe(s->sql));
		return;
	}
	s->system = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
	s->timeline = (uint32_t)strtoul(PQgetvalue(res, 0, 1), NULL, 10);
	if (slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &note)) {
		source_fail_because(s, DMSR_EFATAL, "position.unknown", "delete the job and make it anew", "the record of the job's slot cannot be read");
	} else if ((note.is_made && note.system != s->system) || (s->from.kind && s->from.server != s->system) || is_loaded_elsewhere(s)) {
		refuse_server(s, note.is_made ? note.system : s->from.kind ? s->from.server : s->loaded_server);
	} else if (note.is_made && note.timeline != s->timeline) {
		char sql[64];
		snprintf(sql, sizeof sql, "TIMELINE_HISTORY %u", s->timeline);
		pgconn_query(s->repl, sql, on_history, s);
	} else {
		s->identified(s);
	}
}

void source_identify(struct source *s, void (*next)(struct source *s))
{
	s->identified = next;
	pgconn_query(s->repl, "IDENTIFY_SYSTEM", on_identity, s);
}
