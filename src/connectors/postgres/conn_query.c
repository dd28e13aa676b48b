/* conn_query: one query at a time on a connection. Results are gathered until the server is done; the last one, or the first error, is told. */
#include "conn_int.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool is_error(const PGresult *res)
{
	ExecStatusType s = PQresultStatus(res);
	return s != PGRES_COMMAND_OK && s != PGRES_TUPLES_OK && s != PGRES_SINGLE_TUPLE && s != PGRES_EMPTY_QUERY;
}

bool conn_is_fatal(const PGresult *res)
{
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
	return severity && (!strcmp(severity, "FATAL") || !strcmp(severity, "PANIC"));
}

static void keep(struct pgconn *c, PGresult *res)
{
	if (c->job.last && is_error(c->job.last)) {
		PQclear(res);
		return;
	}
	PQclear(c->job.last);
	c->job.last = res;
}

static bool finish(struct pgconn *c)
{
	PGresult *last = c->job.last;
	struct conn_job job = c->job;
	struct err e = { 0 };
	c->job.last = NULL;
	if (last && is_error(last)) {
		const char *state = PQresultErrorField(last, PG_DIAG_SQLSTATE);
		snprintf(c->sqlstate, sizeof c->sqlstate, "%s", state ? state : "");
		pgerr_from_result(&e, c, last);
	}
	if (c->is_gone || PQstatus(c->pg) == CONNECTION_BAD || (last && conn_is_fatal(last))) {
		PQclear(last);
		if (err_is_set(&e) && !err_is_set(&c->fatal))
			conn_fail(c, &e);
		else
			conn_lost(c, "waiting for an answer");
		return false;
	}
	conn_take(c, CONN_READY, NULL);
	if (err_is_set(&e) || !last)
		job.done(job.arg, NULL, &e);
	else
		job.done(job.arg, last, NULL);
	PQclear(last);
	return false;
}

bool conn_gather(struct pgconn *c)
{
	while (!PQisBusy(c->pg)) {
		PGresult *res = PQgetResult(c->pg);
		if (!res)
			return finish(c);
		ExecStatusType s = PQresultStatus(res);
		if (s == PGRES_COPY_IN || s == PGRES_COPY_OUT || s == PGRES_COPY_BOTH) {
			struct err e = { 0 };
			char id[48];
			snprintf(id, sizeof id, "%s.protocol", c->role);
			err_set(&e, DMSR_EPROTO, id, "%s: the server began a COPY that was not asked for", c->description);
			PQclear(res);
			conn_fail(c, &e);
			return false;
		}
		keep(c, res);
	}
	return false;
}

void conn_begin(struct pgconn *c, enum conn_state state, bool (*on_input)(struct pgconn *c), int sent)
{
	conn_take(c, state, on_input);
	if (!sent) {
		conn_lost(c, "sending a query");
		return;
	}
	conn_flush(c);
}

void pgconn_query(struct pgconn *c, const char *sql, pgconn_done *done, void *arg)
{
	pgconn_query_params(c, sql, 0, NULL, done, arg);
}

void pgconn_query_params(struct pgconn *c, const char *sql, int nparams, const char *const *values, pgconn_done *done, void *arg)
{
	if (c->state == CONN_CLOSED)
		return;
	assert(c->state == CONN_READY);
	int sent = nparams ? PQsendQueryParams(c->pg, sql, nparams, NULL, values, NULL, NULL, 0) : PQsendQuery(c->pg, sql);
	c->job.done = done;
	c->job.arg = arg;
	conn_begin(c, CONN_BUSY, conn_gather, sent);
}

const char *pgconn_sqlstate(const struct pgconn *c) { return c->sqlstate; }
