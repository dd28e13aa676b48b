/* probe_drop: what a source's job made at the server goes: its slot, so that the server keeps no log for it any longer, then its publication, if the job made
 * it. Which they are the source's notes say; without notes nothing was made, and nobody is asked.
 *
 * Only the server that the notes name is touched. A slot that is gone is as good as dropped. One that is still read is waited for; when it is our own
 * session that reads it (one whose line was cut), that is ended. What cannot be removed is told as the statement that would do it. */
#include "probe_int.h"
#include "source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_MS = 250, END_AFTER = 12, GIVE_UP_AFTER = 40 /* looks */ };

static void statement(const struct probe *p, struct buf *out, bool slot)
{
	if (slot) {
		buf_str(out, "SELECT pg_catalog.pg_drop_replication_slot(");
		sql_literal(out, p->slot);
		buf_byte(out, ')');
	} else {
		buf_str(out, "DROP PUBLICATION IF EXISTS ");
		sql_ident(out, p->publication);
	}
}

static void left(struct probe *p, bool slot)
{
	struct buf sql;
	if (slot ? !p->slot[0] : !p->publication[0])
		return;
	buf_init(&sql, 1024);
	statement(p, &sql, slot);
	probe_left(p, buf_cstr(&sql));
	buf_fini(&sql);
}

/* Tells what is left from here on, and why. */
static void give_up(struct probe *p, const struct err *e)
{
	left(p, true);
	left(p, false);
	probe_fail(p, e);
}

static void answer(struct probe *p)
{
	if (err_is_set(&p->failure) && !p->nleft) {
		left(p, true);
		left(p, false);
	}
	probe_answer_dropped(p);
}

/* ---- is it the server? ---- */

static void ask_identity(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	struct slot_note note;
	(void)values;
	(void)nvalues;
	if (!slot_note_parse(p->host.note_get(p->host.ctx, "slot"), &note) && note.is_made)
		buf_printf(sql, "SELECT system_identifier, %llu FROM pg_catalog.pg_control_system()", (unsigned long long)note.system);
}

static void read_identity(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		give_up(p, e);
		return;
	}
	struct err other = { 0 };
	if (!strcmp(PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1)))
		return;
	err_set(&other, DMSR_EFATAL, "server.changed", "%s is another server (system identifier %s) than the one the job began with (%s)",
		pgconn_describe(p->sql), PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1));
	err_hint(&other, "on that server, if it is still there, run what is left to do by hand");
	give_up(p, &other);
}

/* ---- the slot ---- */

static void ask_slot(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (p->slot[0])
		slot_sql(sql, p->version, p->slot);
}

static void in_use(struct probe *p, const char *pid)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "slot.in-use", "replication slot \"%s\" of %s is in use by the server's process %s", p->slot, pgconn_describe(p->sql), pid);
	err_hint(&e, "SELECT * FROM pg_stat_activity WHERE pid = %s", pid);
	give_up(p, &e);
}

/* Back to ask_end, after a while. */
static void wait_for_reader(struct probe *p, const PGresult *res)
{
	if (++p->tries > GIVE_UP_AFTER)
		in_use(p, PQgetvalue(res, 0, SLOT_PID));
	else
		probe_again(p, 2, LOOK_MS);
}

static void read_slot(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e)
		give_up(p, e);
	else if (!PQntuples(res))
		p->slot[0] = 0;
	else if (!PQgetisnull(res, 0, SLOT_PID))
		wait_for_reader(p, res);
}

/* Between two looks, when there were enough of them: our own session that still holds it. */
static void ask_end(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	if (!p->slot[0] || p->tries < END_AFTER)
		return;
	buf_printf(&p->text, "dmsr:%s:source", p->host.env.job);
	values[(*nvalues)++] = p->slot;
	values[(*nvalues)++] = buf_cstr(&p->text);
	buf_str(sql, "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_replication_slots s"
		" ON s.active_pid = a.pid WHERE s.slot_name = $1 AND a.application_name = $2");
}

static void read_end(struct probe *p, const PGresult *res, const struct err *e)
{
	(void)p;
	(void)res;
	(void)e; /* the next look tells whether it helped */
}

static void ask_drop_slot(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (!p->slot[0])
		return;
	statement(p, sql, true);
}

static void read_drop_slot(struct probe *p, const PGresult *res, const struct err *e)
{
	(void)res;
	if (!e || !strcmp(e->id, "source.undefined")) {
		log_info("postgres", p->host.env.job, "replication slot %s dropped", p->slot);
		p->slot[0] = 0;
	} else {
		give_up(p, e);
	}
}

/* ---- the publication ---- */

static void ask_drop_publication(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)values;
	(void)nvalues;
	if (!p->publication[0])
		return;
	statement(p, sql, false);
}

static void read_drop_publication(struct probe *p, const PGresult *res, const struct err *e)
{
	(void)res;
	if (e) {
		give_up(p, e);
		return;
	}
	log_info("postgres", p->host.env.job, "publication %s dropped", p->publication);
	p->publication[0] = 0;
}

/* ---- the verb ---- */

static const struct probe_step steps[] = {
	{ .ask = ask_identity, .read = read_identity },
	{ .ask = ask_end, .read = read_end },
	{ .ask = ask_slot, .read = read_slot },
	{ .ask = ask_drop_slot, .read = read_drop_slot },
	{ .ask = ask_drop_publication, .read = read_drop_publication },
	{ 0 },
};

int pgsource_drop(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	struct slot_note note;
	const char *publication = host->note_get(host->ctx, "publication"), *slot = host->note_get(host->ctx, "slot");
	struct probe *p = probe_new(s, pgsource_options, NULL, 0, host);
	(void)e;
	if (slot_note_parse(slot, &note))
		err_set(&p->failure, DMSR_EFATAL, "position.unknown", "the record of the job's slot cannot be read: \"%s\"", slot);
	else if (note.is_there)
		snprintf(p->slot, sizeof p->slot, "%s", note.name);
	if (publication && !strncmp(publication, "own ", 4))
		snprintf(p->publication, sizeof p->publication, "%s", publication + 4);
	if (host->keep) {
		left(p, true);
		left(p, false);
		p->answer = probe_answer_dropped;
		loop_task_post(p->turn);
	} else if (!err_is_set(&p->failure) && (p->slot[0] || p->publication[0])) {
		probe_start(p, steps, answer);
	} else {
		p->answer = answer;
		loop_task_post(p->turn);
	}
	*out = (struct dmsr_instance *)p;
	return 0;
}
