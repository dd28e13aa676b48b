/* source_slot: the replication slot. In comes a server that is known and a publication that is there; out goes a slot that is ours and stands where we do, and
 * a snapshot when tables must be loaded; then source_load or source_stream.
 *
 * A slot is made once in a job's life, and its loss is never mended silently. What is known of it is the note "slot":
 *
 *   (nothing) --intent--> "creating NAME" --slot made--> "made NAME LSN SYSTEM TIMELINE"
 *
 * both durable before the next step, so that after a crash a slot that is there with only the intent noted is ours and worth nothing: it is dropped
 * and made again. Tables that remain unloaded after the slot's own snapshot died are read in the snapshot of a temporary slot: as exact, at a later LSN. */
#include "source_int.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void source_slot_note(struct source *s, const char *name, uint64_t lsn, void (*next)(struct source *s))
{
	char at[24];
	char *text = mem_printf("made %s %s %" PRIu64 " %" PRIu32, name, lsn_format(lsn, at), s->system, s->timeline);
	source_put_note(s, "slot", text, next);
	free(text);
}

/* ---- looking at it ---- */

static const char *column(const PGresult *res, int n) { return PQgetisnull(res, 0, n) ? NULL : PQgetvalue(res, 0, n); }

static void slot_lost(struct source *s, const char *how)
{
	source_fail_because(s, DMSR_EFATAL, "slot.lost", s->anew, "replication slot \"%s\" of %s %s", s->slot, pgconn_describe(s->repl), how);
}

static void slot_in_use(struct source *s, const char *pid)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "slot.in-use", "replication slot \"%s\" of %s is in use by the server's process %s", s->slot, pgconn_describe(s->repl), pid);
	err_hint(&e, "is another dmsrd running this job? SELECT * FROM pg_stat_activity WHERE pid = %s", pid);
	source_fail(s, &e);
}

/* Everything up to here is durable downstream: what the slot lets go must lie below. */
static bool is_behind_slot(const struct source *s, uint64_t confirmed)
{
	if (!s->from.kind)
		return confirmed > s->start_lsn;
	return confirmed > (s->from.flush ? s->from.flush : s->from.lsn);
}

/* What the job has read stands in no log of the server's that goes less far: it would pass over what is written there next. */
static uint64_t read_to(const struct source *s) { return s->from.flush > s->from.lsn ? s->from.flush : s->from.lsn; }
static bool is_ahead(const struct source *s) { return s->from.kind && s->began_lsn && read_to(s) > s->began_lsn; }

static void on_verify(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	uint64_t confirmed = 0;
	char at[24], other[24], text[128];
	if (e) {
		source_fail(s, e);
	} else if (!PQntuples(res)) {
		slot_lost(s, "is gone");
	} else if (strcmp(PQgetvalue(res, 0, SLOT_TYPE), "logical") != 0 || strcmp(PQgetvalue(res, 0, SLOT_PLUGIN), "pgoutput") != 0 ||
		PQgetvalue(res, 0, SLOT_DATABASE)[0] != 't') {
		slot_lost(s, "is another one now: not pgoutput's, or not of this database");
	} else if (column(res, SLOT_LOST)) {
		snprintf(text, sizeof text, "was invalidated by the server (%s)", column(res, SLOT_LOST));
		slot_lost(s, text);
	} else if (column(res, SLOT_PID)) {
		slot_in_use(s, column(res, SLOT_PID));
	} else if (!column(res, SLOT_CONFIRMED) || lsn_parse(column(res, SLOT_CONFIRMED), &confirmed)) {
		slot_lost(s, "has no position");
	} else if (is_behind_slot(s, confirmed)) {
		source_fail_because(s, DMSR_EFATAL, "position.behind-slot", s->anew,
			"replication slot \"%s\" was moved on to %s by somebody else, past what this job has made durable", s->slot, lsn_format(confirmed, at));
	} else if (is_ahead(s)) {
		source_fail_because(s, DMSR_EFATAL, "position.ahead", s->anew,
			"the log of %s ends at %s, and the job has read it up to %s: the server was put back to an older state, and what is written there next "
			"would be passed over", pgconn_describe(s->sql), lsn_format(s->began_lsn, at), lsn_format(read_to(s), other));
	} else {
		s->verified(s);
	}
}

void source_slot_verify(struct source *s, void (*next)(struct source *s))
{
	struct buf sql;
	s->verified = next;
	buf_init(&sql, 4096);
	slot_sql(&sql, s->version, s->slot);
	pgconn_query(s->repl, buf_cstr(&sql), on_verify, s);
	buf_fini(&sql);
}

/* ---- making it, and snapshots ---- */

static void on_loader_ahead(void *ctx)
{
	struct source *s = ctx;
	s->loader_next(s);
}

/* The connection that reads in the snapshot is there before it: the less time passes between the two, the less can happen to the tables. */
static void with_loader(struct source *s, void (*next)(struct source *s))
{
	s->loader_next = next;
	if (s->loader)
		next(s);
	else
		s->loader = source_connect(s, PGCONN_SQL, on_loader_ahead);
}

static void create_sql(const struct source *s, struct buf *sql, const char *name, bool temporary, bool snapshot)
{
	buf_printf(sql, "CREATE_REPLICATION_SLOT \"%s\"%s LOGICAL pgoutput", name, temporary ? " TEMPORARY" : "");
	if (s->version < 150000)
		buf_str(sql, snapshot ? " EXPORT_SNAPSHOT" : " NOEXPORT_SNAPSHOT");
	else
		buf_printf(sql, " (SNAPSHOT '%s'%s)", snapshot ? "export" : "nothing",
			s->version >= 170000 && s->opt.failover && !temporary ? ", FAILOVER true" : "");
}

static bool take_point(struct source *s, const PGresult *res, uint64_t *lsn)
{
	if (PQntuples(res) == 1 && PQnfields(res) >= 4 && !lsn_parse(PQgetvalue(res, 0, 1), lsn)) {
		free(s->snapshot);
		s->snapshot = PQgetisnull(res, 0, 2) ? NULL : mem_strdup(PQgetvalue(res, 0, 2));
		s->snapshot_lsn = *lsn;
		return true;
	}
	source_fail_because(s, DMSR_EPROTO, "source.protocol", NULL, "%s: the answer to CREATE_REPLICATION_SLOT cannot be read", pgconn_describe(s->repl));
	return false;
}

static void fail_to_make(struct source *s, const struct err *e)
{
	struct err out = *e;
	if (!strcmp(e->id, "source.limit"))
		err_hint(&out, "raise max_replication_slots and restart the server, or drop slots that nobody needs: SELECT slot_name FROM "
			"pg_replication_slots WHERE NOT active lists also those of jobs that are stopped or failed, which would lose changes; while tables "
			"are loaded one more slot may be needed");
	source_fail(s, &out);
}

static void on_temporary(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct err out = { 0 };
	uint64_t lsn;
	if (e && !strcmp(e->id, "source.exists")) { /* our own: it goes with the session of a run that was killed, which the server has not missed yet */
		out = *e;
		out.retriable = true;
		source_fail(s, &out);
	} else if (e) {
		fail_to_make(s, e);
	} else if (take_point(s, res, &lsn)) {
		source_load(s);
	}
}

static void take_snapshot(struct source *s)
{
	struct buf sql;
	char name[64];
	snprintf(name, sizeof name, "%.55s_load", s->slot);
	buf_init(&sql, 1024);
	create_sql(s, &sql, name, true, true);
	s->doing = "waiting for a snapshot";
	pgconn_query(s->exporter ? s->exporter : s->repl, buf_cstr(&sql), on_temporary, s);
	buf_fini(&sql);
}

/* The slot is as it should be; which way from here? */
static void slot_ready(struct source *s)
{
	if (!source_needs_load(s))
		source_load_words(s);
	else if (s->snapshot)
		source_load(s);
	else if (s->ends_first)
		source_load_later(s);
	else
		with_loader(s, take_snapshot);
}

static void on_exporter_ready(void *ctx) { with_loader(ctx, take_snapshot); }

static void again_identified(struct source *s) { source_slot_verify(s, slot_ready); }

static void on_again(void *ctx) { source_identify(ctx, again_identified); }

void source_slot_again(struct source *s)
{
	if (s->is_stream_due) { /* which looks after the slot */
		s->exporter = source_connect(s, PGCONN_REPLICATION, on_exporter_ready);
		return;
	}
	s->doing = "waiting for another snapshot";
	s->repl = source_connect(s, PGCONN_REPLICATION, on_again);
}

static void slot_noted(struct source *s)
{
	failpoint("pg.slot-noted");
	slot_ready(s);
}

static void on_created(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		/* Not made: one of that name that comes is somebody's, and the next start asks the options anew which it shall be. */
		if (!e->retriable)
			source_put_note(s, "slot", "", NULL);
		fail_to_make(s, e);
		return;
	}
	failpoint("pg.slot-created");
	if (!take_point(s, res, &s->start_lsn))
		return;
	char at[24];
	log_info("postgres", s->host.env.job, "replication slot %s made at %s", s->slot, lsn_format(s->start_lsn, at));
	source_slot_note(s, s->slot, s->start_lsn, slot_noted);
}

static void create_now(struct source *s)
{
	struct buf sql;
	buf_init(&sql, 1024);
	create_sql(s, &sql, s->slot, false, source_needs_load(s));
	/* The server waits for every transaction that is open now. */
	s->doing = "creating the slot";
	pgconn_query(s->repl, buf_cstr(&sql), on_created, s);
	buf_fini(&sql);
}

static void create(struct source *s)
{
	failpoint("pg.slot-intent");
	if (source_needs_load(s))
		with_loader(s, create_now);
	else
		create_now(s);
}

static void note_intent(struct source *s)
{
	char *text = mem_printf("creating %s", s->slot);
	source_put_note(s, "slot", text, create);
	free(text);
}

static void on_dropped(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e)
		source_fail(s, e);
	else
		create(s);
}

/* Nothing is made yet, or only begun. */
static void refuse_slot(struct source *s)
{
	static const char warning[] = DESTROYS("the place in the log of whoever reads this slot, who cannot go on");
	char *hint = mem_printf("drop it if nobody needs it: %sSELECT pg_drop_replication_slot('%s'); or set the option slot to another name", warning,
		s->slot);
	source_fail_because(s, DMSR_EEXIST, "slot.exists", hint, "a replication slot \"%s\" is there already and was not made by this job", s->slot);
	free(hint);
}

static void on_first_look(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	bool begun = s->host.note_get(s->host.ctx, "slot") && s->host.note_get(s->host.ctx, "slot")[0];
	const char *values[] = { s->slot };
	if (e)
		source_fail(s, e);
	else if (s->from.kind)
		source_fail_because(s, DMSR_EFATAL, "position.unknown", "delete the job and make it anew", "the job has a position but no record of a slot");
	else if (!PQntuples(res) && begun)
		create(s);
	else if (!PQntuples(res))
		note_intent(s);
	else if (!begun)
		refuse_slot(s);
	else if (column(res, SLOT_PID))
		slot_in_use(s, column(res, SLOT_PID));
	else
		pgconn_query_params(s->sql, "SELECT pg_catalog.pg_drop_replication_slot($1)", 1, values, on_dropped, s);
}

void source_slot(struct source *s)
{
	struct slot_note note;
	char own[64];
	if (slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &note)) {
		source_fail_because(s, DMSR_EFATAL, "position.unknown", "delete the job and make it anew", "the record of the job's slot cannot be read");
		return;
	}
	source_name(&s->host.env, own);
	free(s->slot);
	s->slot = mem_strdup(note.is_there ? note.name : s->opt.slot ? s->opt.slot : own);
	s->start_lsn = note.lsn;
	s->ends_first = s->ends_first && (s->ends_alone || source_needs_load(s)) && !source_stream_is_whole(s);
	if (s->ends_alone && !s->ends_first) {
		source_stream_whole(s);
		return;
	}
	const bool loads = source_needs_load(s) && !s->ends_first;
	s->is_loading = s->is_beside && loads;
	if (loads)
		s->host.load_begins(s->host.ctx);
	if (note.is_made) {
		source_slot_verify(s, slot_ready);
		return;
	}
	struct buf sql;
	buf_init(&sql, 4096);
	slot_sql(&sql, s->version, s->slot);
	pgconn_query(s->repl, buf_cstr(&sql), on_first_look, s);
	buf_fini(&sql);
}
