/* source_watch: asks every few seconds, on the SQL connection, how the slot is: what it retains, what is left before it is lost. For stat, and to fail in time
 * when the slot is lost during a long load. Of a stream by which nothing comes it asks less often: a daemon may have a thousand of them, and a server too.
 * While streaming it has source_look.c look at what the stream does not tell. The connection may die then: it is made anew later, the
 * stream does not need it. */
#include "source_int.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WATCH_MS = 5000,
	QUIET_WATCH_MS = 30000,
	QUIET_LOOKS = 6,                /* so many without a message between them, and it is rather quiet */
	RECONNECT_MS = 30000,
};

struct watch {
	struct loop_timer *timer;
	char status[32];
	uint64_t server_lsn;
	int64_t retained, safe, seen_us;
	uint64_t heard;                 /* messages of the stream, at the last look */
	unsigned quiet_looks;
};

static void again(struct source *s, uint64_t ms) { loop_timer_start(s->watch->timer, ms); }

static void again_as_it_flows(struct source *s)
{
	struct watch *w = s->watch;
	uint64_t heard = source_stream_heard(s);
	w->quiet_looks = s->phase == SOURCE_STREAMING && heard == w->heard ? w->quiet_looks + 1 : 0;
	w->heard = heard;
	again(s, w->quiet_looks > QUIET_LOOKS ? QUIET_WATCH_MS : WATCH_MS);
}

static int64_t number(const PGresult *res, int column)
{
	return PQgetisnull(res, 0, column) ? -1 : strtoll(PQgetvalue(res, 0, column), NULL, 10);
}

static void on_slot(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct watch *w = s->watch;
	again_as_it_flows(s);
	if (!e && !PQntuples(res) && s->phase == SOURCE_LOADING) {
		source_fail_because(s, DMSR_EFATAL, "slot.lost", s->anew, "replication slot \"%s\" of %s was dropped while tables "
			"were loaded", s->slot, pgconn_describe(s->sql));
		return;
	}
	if (!e && PQntuples(res) == 1) {
		lsn_parse(PQgetvalue(res, 0, 0), &w->server_lsn);
		w->retained = number(res, 1);
		w->safe = number(res, 2);
		w->seen_us = wall_now_us();
		snprintf(w->status, sizeof w->status, "%s", PQgetvalue(res, 0, 3));
	}
	if (!strcmp(w->status, "lost") && (s->phase == SOURCE_LOADING || s->phase == SOURCE_STREAMING)) {
		char *hint = mem_printf("raise max_slot_wal_keep_size, and %s", s->anew);
		source_fail_because(s, DMSR_EFATAL, "slot.lost", hint,
			"replication slot \"%s\" of %s was invalidated by the server: it had to keep more WAL than max_slot_wal_keep_size allows", s->slot,
			pgconn_describe(s->sql));
		free(hint);
	} else if (s->phase == SOURCE_STREAMING && !s->is_loading && s->history && !source_is_asking(s)) {
		source_look_again(s);
	} else {
		source_ask_on(s);
	}
}

static void ask(struct source *s)
{
#define WATCH(safe, status) "SELECT pg_catalog.pg_current_wal_lsn()," \
	" pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::pg_catalog.int8, " safe ", " status \
	" FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
	static const char since_13[] = WATCH("safe_wal_size", "coalesce(wal_status, 'lost')");
	static const char before[] = WATCH("NULL::pg_catalog.int8", "CASE WHEN active THEN 'active' ELSE 'inactive' END");
#undef WATCH
	const char *values[] = { s->slot };
	pgconn_query_params(s->sql, s->version >= 130000 ? since_13 : before, 1, values, on_slot, s);
}

static void on_ready(void *ctx)
{
	struct source *s = ctx;
	again(s, WATCH_MS);
	source_ask_on(s);
}

void source_watch_reconnect(struct source *s)
{
	if (!s->sql)
		s->sql = source_connect_watch(s, on_ready);
}

static void on_time(void *arg)
{
	struct source *s = arg;
	bool is_time = s->slot && (s->phase == SOURCE_LOADING || s->phase == SOURCE_STREAMING);
	if (is_time && !s->sql)
		source_watch_reconnect(s);
	else if (is_time && pgconn_is_ready(s->sql))
		ask(s);
	else
		again(s, WATCH_MS);
}

void source_watch(struct source *s)
{
	s->watch = mem_zalloc(sizeof *s->watch);
	s->watch->timer = loop_timer_new(s->host.env.loop, "postgres.watch", on_time, s);
	s->watch->retained = s->watch->safe = -1;
	again(s, 1000);
}

bool source_watch_lost(struct source *s, const struct err *e)
{
	if (s->phase != SOURCE_STREAMING || !s->watch)
		return false;
	log_warn("postgres", s->host.env.job, "the connection that watches the slot is lost, the stream goes on: %s", e->message);
	source_ask_lost(s);
	pgconn_free(s->sql);
	s->sql = NULL;
	again(s, RECONNECT_MS);
	return true;
}

void source_watch_stat(struct source *s, struct dmsr_source_stat *out)
{
	if (!s->watch || !s->watch->status[0])
		return;
	out->slot_status = s->watch->status;
	out->retained_bytes = s->watch->retained;
	out->safe_bytes = s->watch->safe;
	out->slot_seen_us = s->watch->seen_us;
	out->server_lsn = s->watch->server_lsn;
}

void source_watch_free(struct source *s)
{
	if (!s->watch)
		return;
	loop_timer_free(s->watch->timer);
	free(s->watch);
	s->watch = NULL;
}
