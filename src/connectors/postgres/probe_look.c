/* probe_look: how a job's slot is while the job does not run: what the server keeps for it, whether the job can still go on, and, when it shall go on from
 * another position, whether it can from there. Which slot it is the source's notes say; without one nothing is kept. Nothing is changed. */
#include "probe_int.h"
#include "source.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { L_SYSTEM, L_NOW, L_SLOT, L_STATUS, L_LOST, L_RETAINED, L_SAFE, L_CONFIRMED, L_LAG };

static void ask_slot(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	static const struct { int since; const char *status, *lost, *safe; } by_version[] = {
		{ 170000, "coalesce(s.wal_status, 'lost')", "s.wal_status = 'lost' OR s.invalidation_reason IS NOT NULL", "s.safe_wal_size" },
		{ 160000, "coalesce(s.wal_status, 'lost')", "coalesce(s.conflicting, false) OR s.wal_status = 'lost'", "s.safe_wal_size" },
		{ 130000, "coalesce(s.wal_status, 'lost')", "s.wal_status = 'lost'", "s.safe_wal_size" },
		{ 0, "CASE WHEN s.active THEN 'active' ELSE 'inactive' END", "false", "NULL::pg_catalog.int8" },
	};
	size_t i = 0;
	while (p->version < by_version[i].since)
		i++;
	values[(*nvalues)++] = p->slot;
	buf_printf(sql, "SELECT c.system_identifier, w.now, s.slot_name, CASE WHEN %s THEN 'lost' ELSE %s END,"
		" coalesce(%s OR s.plugin IS DISTINCT FROM 'pgoutput' OR s.database IS DISTINCT FROM pg_catalog.current_database(), true),"
		" pg_catalog.pg_wal_lsn_diff(w.now, s.restart_lsn)::pg_catalog.int8, %s, s.confirmed_flush_lsn,"
		" pg_catalog.pg_wal_lsn_diff(w.now, s.confirmed_flush_lsn)::pg_catalog.int8"
		" FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
		" ELSE pg_catalog.pg_current_wal_lsn() END AS now) w CROSS JOIN pg_catalog.pg_control_system() c"
		" LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1",
		by_version[i].lost, by_version[i].status, by_version[i].lost, by_version[i].safe);
}

static int64_t number(const PGresult *res, int column)
{
	return PQgetisnull(res, 0, column) ? -1 : strtoll(PQgetvalue(res, 0, column), NULL, 10);
}

/* ---- can it go on from there? ---- */

static void refuse(struct probe *p, int code, const char *id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void refuse(struct probe *p, int code, const char *id, const char *fmt, ...)
{
	struct err e = { 0 };
	char message[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	err_set(&e, code, id, "%s", message);
	probe_fail(p, &e);
}

/* As the source finds it at its start, but before the position is written down. */
static void check_place(struct probe *p, const PGresult *res)
{
	const struct position *at = &p->at;
	const char *system = PQgetvalue(res, 0, L_SYSTEM);
	uint64_t now = 0, confirmed = 0;
	char text[24], other[24];
	if (strtoull(system, NULL, 10) != at->server)
		refuse(p, DMSR_EINVAL, "server.changed", "the position is of server %llu, but %s is server %s", (unsigned long long)at->server,
			pgconn_describe(p->sql), system);
	else if (p->keeps.is_lost)
		refuse(p, DMSR_ESTATE, "slot.lost", "the job's slot \"%s\" is %s: from no position can it go on", p->slot, p->keeps.slot_status);
	else if (PQgetisnull(res, 0, L_CONFIRMED) || lsn_parse(PQgetvalue(res, 0, L_CONFIRMED), &confirmed) || lsn_parse(PQgetvalue(res, 0, L_NOW), &now))
		refuse(p, DMSR_EPROTO, "source.protocol", "%s: the slot's position cannot be read", pgconn_describe(p->sql));
	else if ((at->flush ? at->flush : at->lsn) < confirmed)
		refuse(p, DMSR_EINVAL, "position.behind-slot", "the server has what comes after %s, not after %s: changes between are gone",
			lsn_format(confirmed, text), lsn_format(at->flush ? at->flush : at->lsn, other));
	else if (at->lsn > now || at->flush > now)
		refuse(p, DMSR_EINVAL, "position.ahead", "the server's log ends at %s, before %s: what is written next would be passed over",
			lsn_format(now, text), lsn_format(at->flush > at->lsn ? at->flush : at->lsn, other));
}

/* ---- the answer ---- */

static void read_slot(struct probe *p, const PGresult *res, const struct err *e)
{
	struct slot_note note;
	if (e) {
		probe_fail(p, e);
		return;
	}
	slot_note_parse(p->host.note_get(p->host.ctx, "slot"), &note);
	if (!p->at.kind && note.is_made && strtoull(PQgetvalue(res, 0, L_SYSTEM), NULL, 10) != note.system) {
		refuse(p, DMSR_EFATAL, "server.changed", "%s is another server (system identifier %s) than the one the job began with (%llu)",
			pgconn_describe(p->sql), PQgetvalue(res, 0, L_SYSTEM), (unsigned long long)note.system);
		return;
	}
	bool is_there = !PQgetisnull(res, 0, L_SLOT);
	p->keeps = (struct dmsr_kept){
		.slot = p->slot,
		.slot_status = is_there ? arena_strdup(&p->arena, PQgetvalue(res, 0, L_STATUS)) : "missing",
		.is_lost = note.is_made && (!is_there || probe_true(res, 0, L_LOST)),
		.retained_bytes = number(res, L_RETAINED),
		.safe_bytes = number(res, L_SAFE),
		.lag_bytes = number(res, L_LAG),
	};
	if (p->at.kind)
		check_place(p, res);
}

static void answer(struct probe *p)
{
	bool failed = err_is_set(&p->failure);
	p->host.looked(p->host.ctx, failed ? NULL : &p->keeps, failed ? &p->failure : NULL);
}

static const struct probe_step steps[] = {
	{ .ask = ask_slot, .read = read_slot },
	{ 0 },
};

int pgsource_look(const struct settings *s, const struct position *at, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	struct slot_note note;
	struct probe *p = probe_new(s, pgsource_options, NULL, 0, host);
	const char *text = host->note_get(host->ctx, "slot");
	(void)e;
	if (at)
		p->at = *at;
	p->keeps = (struct dmsr_kept){ .retained_bytes = -1, .safe_bytes = -1, .lag_bytes = -1 };
	p->answer = answer;
	if (slot_note_parse(text, &note))
		refuse(p, DMSR_EFATAL, "position.unknown", "the record of the job's slot cannot be read: \"%s\"", text);
	else if (at && at->kind != POSITION_LSN)
		refuse(p, DMSR_EINVAL, "position.malformed", "the position is none of a PostgreSQL server");
	else if (at && !note.is_made)
		refuse(p, DMSR_ESTATE, "position.behind-slot", "the job has no slot yet: there is nothing that it could go on from; start it first");
	else if (note.is_there)
		snprintf(p->slot, sizeof p->slot, "%s", note.name);
	if (p->slot[0])
		probe_start(p, steps, answer);
	else
		loop_task_post(p->turn);
	*out = (struct dmsr_instance *)p;
	return 0;
}
