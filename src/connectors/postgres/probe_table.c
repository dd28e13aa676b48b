/* probe_table: the tables of a target that the source's rows are to go into, one after another, judged by what the job itself judges by (target_judge.h):
 * what it would refuse, or not be allowed, is found here. The source's tables come from the host; without them nothing can be said. */
#include "probe_int.h"
#include "target_judge.h"
#include "target_diff.h"
#include "target_table.h"
#include <stdlib.h>
#include <string.h>

enum { COMPARED_MAX = 3000, COMPARED_MS = 15000 /* half of what a dry run may take (engine_probe.c) */ };

static enum prepare prepare(const struct probe *p) { return judge_prepare(settings_str(p->settings, "prepare")); }
static bool loads(const struct probe *p, const struct probe_table *t) { return (p->mode & DMSR_FULL_LOAD) && !t->is_loaded; }

/* ---- which ---- */

void probe_mean_tables(struct probe *p)
{
	struct buf key;
	p->meant = map_new();
	p->judged = mem_zalloc((p->host.nrels + 1) * sizeof *p->judged);
	buf_init(&key, SIZE_MAX);
	for (size_t i = 0; i < p->host.nrels; i++) {
		p->judged[i].rel = p->host.rels[i];
		buf_reset(&key);
		relation_key(&key, p->host.rels[i]->schema, p->host.rels[i]->name);
		map_put(p->meant, key.data, key.len, &p->judged[i]);
	}
	buf_fini(&key);
}

void probe_forget_tables(struct probe *p)
{
	table_free(p->at_hand);
	map_free(p->meant);
	free(p->judged);
}

struct probe_table *probe_table(const struct probe *p, const char *schema, const char *name)
{
	struct buf key;
	if (!p->meant)
		return NULL;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, schema, name);
	struct probe_table *t = map_get(p->meant, key.data, key.len);
	buf_fini(&key);
	return t;
}

/* ---- what the job has loaded ---- */

void probe_ask_ours(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!p->mode || !p->meant || !*p->host.env.uid)
		return;
	values[(*nvalues)++] = p->host.env.uid;
	buf_str(sql, "SELECT l.schema_name, l.table_name, l.position IS NOT NULL, l.made FROM dmsr.loads l LEFT JOIN dmsr.positions p USING (job_uid)"
		" WHERE l.job_uid = $1 AND (l.position IS NOT NULL OR l.rows < 0) AND NOT " PROBE_PASSED);
}

/* An error: no such table yet, or no right to read it, which was told. */
void probe_read_ours(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++) {
		struct probe_table *t = probe_table(p, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
		if (!t)
			continue;
		t->has_begun = true;
		t->is_loaded = probe_true(res, i, 2);
		t->is_made = probe_true(res, i, 3);
	}
}

/* ---- findings ---- */

/* What the job would end with, as a check. */
static void refused(struct probe *p, const struct target_table *tb, const struct err *e)
{
	static const struct { const char *id, *check; } names[] = {
		{ "target.table-missing", "postgres.target-table" },
		{ "target.table-loaded", "postgres.target-rows" },
		{ "target.referenced", "postgres.target-referenced" },
	};
	const char *check = "postgres.target-columns";
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(e->id, names[i].id))
			check = names[i].check;
	probe_found(p, DMSR_CHECK_ERROR, check, probe_name(p, tb->schema, tb->name), e->hint, "%s: the job would fail", e->message);
}

static void need_owner(struct probe *p, const struct target_table *tb, const char *why)
{
	struct buf fix;
	buf_init(&fix, 4096);
	right_sql(&fix, RIGHT_OWN, p->settings, tb->schema, tb->name);
	probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.write-right", probe_name(p, tb->schema, tb->name), &fix, "role %s does not own %s.%s, so it may not %s",
		settings_str(p->settings, "user"), tb->schema, tb->name, why);
}

static void warn_types(struct probe *p, const struct target_table *tb)
{
	const struct relation *rel = tb->rel;
	struct buf text, fix;
	buf_init(&text, 800);
	buf_init(&fix, 64 * 1024);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct column *c = &rel->columns[i];
		if (!tb->of[i] || !sql_is_written(rel, c) || judge_type(rel, c, tb->of[i]) == FIT_GOOD)
			continue;
		buf_printf(&text, "%s%s is %s at the source and %s here", text.len ? ", " : "", c->name, c->native_type, tb->of[i]->type_full);
		buf_printf(&fix, "%sALTER TABLE %s ALTER COLUMN ", fix.len ? "; " : "", tb->sql);
		sql_ident(&fix, c->name);
		buf_str(&fix, " TYPE ");
		sql_type(&fix, rel, c);
	}
	if (text.len || !buf_ok(&text))
		probe_found(p, DMSR_CHECK_WARNING, "postgres.target-types", probe_name(p, tb->schema, tb->name), buf_ok(&fix) ? buf_cstr(&fix) : NULL,
			"%s: values that do not fit are refused, or changed", buf_ok(&text) ? buf_cstr(&text) : "types of many columns differ");
	buf_fini(&text);
	buf_fini(&fix);
}

/* ---- verdicts ---- */

static bool judge_loaded(struct probe *p, const struct probe_table *t, const struct target_table *tb, enum how *how)
{
	struct err e = { 0 };
	if (judge_load(tb, prepare(p), t->has_begun, pgconn_describe(p->sql), how, &e)) {
		refused(p, tb, &e);
		return false;
	}
	if (t->is_there && !t->is_owned && judge_needs_owner(tb, prepare(p), *how))
		need_owner(p, tb, *how == HOW_DROP ? "drop it" : "make keys, indexes and defaults there after its load");
	return true;
}

static void judge_followed(struct probe *p, const struct probe_table *t, const struct target_table *tb)
{
	struct err e = { 0 };
	struct diff d = { 0 };
	enum policy policy = judge_policy(settings_str(p->settings, "ddl"));
	if (!t->is_there) {
		err_set(&e, DMSR_ENOTFOUND, "target.table-missing", "%s in %s: there is no such table, and a job that loads nothing makes none", tb->sql,
			pgconn_describe(p->sql));
		err_hint(&e, "make it, with the source's columns: pg_dump --schema-only --table=... there, psql here; or \"mode\": \"full-load-and-cdc\"");
		refused(p, tb, &e);
		return;
	}
	if (judge_stream(tb, policy == POLICY_APPLY ? MISSING_MADE : policy == POLICY_IGNORE ? MISSING_LEFT_OUT : MISSING_REFUSED, pgconn_describe(p->sql), &e))
		refused(p, tb, &e);
	if (!diff_table(&d, NULL, tb, false, &e) && d.n && policy == POLICY_APPLY && !t->is_owned)
		need_owner(p, tb, "add the columns that it lacks");
	diff_fini(&d);
}

/* True: there is more to ask about it. */
static bool judge(struct probe *p, const struct probe_table *t, const struct target_table *tb)
{
	enum how how = HOW_KEEP;
	if (!loads(p, t)) {
		judge_followed(p, t, tb);
	} else if (!judge_loaded(p, t, tb, &how) || how == HOW_MAKE) {
		return false;
	}
	if (t->is_there && tb->is_described && how != HOW_DROP)
		warn_types(p, tb);
	p->is_dropped = how == HOW_DROP;
	return how == HOW_DROP || (how == HOW_EMPTY && tb->has_references);
}

/* ---- one table after another ---- */

static struct target_table *table_at_hand(struct probe *p, const struct probe_table *t)
{
	table_free(p->at_hand);
	p->at_hand = table_new(t->rel);
	p->at_hand->exists = t->is_there;
	p->at_hand->is_made = t->is_made;
	return p->at_hand;
}

/* Its columns matter: it is there, and stays. */
static bool is_compared(const struct probe *p, const struct probe_table *t) { return t->is_there && !(loads(p, t) && prepare(p) == PREPARE_DROP); }

static bool may_compare(struct probe *p)
{
	uint64_t now = loop_now_us(p->host.env.loop);
	if (!p->compares_until_us)
		p->compares_until_us = now + COMPARED_MS * 1000;
	return p->ncompared < COMPARED_MAX && now < p->compares_until_us;
}

void probe_ask_table(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	for (; p->mode && p->meant && p->njudged < p->host.nrels; p->njudged++) {
		const struct probe_table *t = &p->judged[p->njudged];
		struct target_table *tb = table_at_hand(p, t);
		bool is_meant = is_compared(p, t), may = may_compare(p);
		if (is_meant && may) {
			p->ncompared++;
			values[(*nvalues)++] = tb->schema;
			values[(*nvalues)++] = tb->name;
			values[(*nvalues)++] = table_describe_key(tb, &p->text);
			buf_str(sql, table_describe_sql);
			return;
		}
		if (is_meant)
			p->npassed++;
		else if (judge(p, t, tb)) /* on to the next question about it */
			return;
	}
	table_free(p->at_hand);
	p->at_hand = NULL;
	if (p->npassed)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.target-columns", "tables", NULL,
			"%zu of the tables that are there were not compared with the source's: that many take a dry run too long, which compared %zu; what is "
			"wrong with them ends the job when it comes to them", p->npassed, p->ncompared);
}

void probe_read_table(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	struct probe_table *t = &p->judged[p->njudged];
	table_described(p->at_hand, res);
	t->is_there = p->at_hand->exists;
	if (judge(p, t, p->at_hand))
		return;
	p->njudged++;
	p->step--;
}

/* ---- what others have to do with it ---- */

/* Of a table that is dropped: what else would have to go. */
static const char dependents_sql[] =
	"SELECT pg_catalog.string_agg(DISTINCT v.oid::regclass::text, ', ') FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid "
	"JOIN pg_catalog.pg_class v ON v.oid = w.ev_class WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass "
	"AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1::regclass AND v.oid <> d.refobjid";

void probe_ask_ties(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!p->at_hand)
		return;
	values[(*nvalues)++] = p->at_hand->sql;
	buf_str(sql, p->is_dropped ? dependents_sql : judge_references_sql);
}

void probe_read_ties(struct probe *p, const PGresult *res, const struct err *e)
{
	const struct target_table *tb = p->at_hand;
	struct err found = { 0 };
	struct buf rest;
	if (e) {
		probe_fail(p, e);
		return;
	}
	buf_init(&rest, 4096);
	right_rest_sql(&rest, p->settings, p->version);
	if (!p->is_dropped && judge_references(tb, res, pgconn_describe(p->sql), buf_cstr(&rest), &found))
		refused(p, tb, &found);
	else if (p->is_dropped && !PQgetisnull(res, 0, 0))
		probe_found(p, DMSR_CHECK_ERROR, "postgres.target-referenced", probe_name(p, tb->schema, tb->name), "\"prepare\": \"truncate\"",
			"%s is to be dropped, and %s made of it: the job would fail", tb->sql, PQgetvalue(res, 0, 0));
	buf_fini(&rest);
	p->njudged++;
	p->step -= 2;
}

/* ---- values of sequences ---- */

/* "schema.sequence" into the two; a dot in the schema's name finds none, and is told by the job. */
static void add_sequence(struct buf *sql, const char *name)
{
	const char *dot = strchr(name, '.');
	if (!dot)
		return;
	char *schema = mem_strndup(name, (size_t)(dot - name));
	buf_str(sql, sql->len ? ", (" : "SELECT n.nspname, c.relname FROM (VALUES (");
	sql_literal(sql, schema);
	buf_str(sql, ", ");
	sql_literal(sql, dot + 1);
	buf_byte(sql, ')');
	free(schema);
}

/* They go on where the source's are, after the load. */
void probe_ask_values(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	for (size_t i = 0; p->mode && p->meant && i < p->host.nrels; i++) {
		const struct probe_table *t = &p->judged[i];
		for (uint32_t k = 0; t->is_there && loads(p, t) && k < t->rel->nddl; k++)
			if (!strcmp(t->rel->ddl[k].kind, "setval"))
				add_sequence(sql, t->rel->ddl[k].name);
	}
	if (sql->len)
		buf_str(sql, ") v (s, t) JOIN pg_catalog.pg_namespace n ON n.nspname = v.s"
			" JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = v.t"
			" WHERE CASE WHEN c.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(c.oid, 'UPDATE') ELSE false END ORDER BY 1, 2");
}

void probe_read_values(struct probe *p, const PGresult *res, const struct err *e)
{
	for (int i = 0; !e && i < PQntuples(res); i++) {
		const char *schema = PQgetvalue(res, i, 0), *name = PQgetvalue(res, i, 1);
		struct buf fix;
		buf_init(&fix, 4096);
		right_sql(&fix, RIGHT_SEQUENCES, p->settings, schema, NULL);
		probe_found_fix(p, DMSR_CHECK_ERROR, "postgres.sequence-right", probe_name(p, schema, name), &fix,
			"role %s may not set sequence %s.%s, which goes on where the source's is: the job would fail after its load",
			settings_str(p->settings, "user"), schema, name);
	}
	if (e)
		probe_fail(p, e);
}
