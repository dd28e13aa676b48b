/* conn_copy: COPY out of a server, row by row, and into one, piece by piece. */
#include "conn_int.h"
#include <assert.h>

enum { REFUSAL_LOOK_MS = 100 };

/* The answer to the statement: true when the COPY has begun. Otherwise it failed, and gathering the results is all that is left. */
static bool opened(struct pgconn *c, ExecStatusType wanted)
{
	if (PQisBusy(c->pg))
		return false;
	PGresult *res = PQgetResult(c->pg);
	if (PQresultStatus(res) == wanted) {
		PQclear(res);
		c->job.is_open = true;
		return true;
	}
	c->on_input = conn_gather;
	if (res)
		c->job.last = res;
	conn_gather(c);
	return false;
}

/* ---- out ---- */

static bool copy_out_input(struct pgconn *c)
{
	if (!c->job.is_open && !opened(c, PGRES_COPY_OUT))
		return false;
	while (!c->paused) {
		char *row;
		int n = PQgetCopyData(c->pg, &row, 1);
		if (n == 0)
			return false;
		if (n < 0) {
			c->on_input = conn_gather;
			return conn_gather(c);
		}
		c->job.on_row(c->job.arg, row, (size_t)n);
		PQfreemem(row);
		if (c->freed || c->state == CONN_CLOSED)
			return false;
		if (conn_is_late(c))
			return true;
	}
	return false;
}

void pgconn_copy_out(struct pgconn *c, const char *sql, void (*on_row)(void *arg, const char *data, size_t len), pgconn_done *done, void *arg)
{
	if (c->state == CONN_CLOSED)
		return;
	assert(c->state == CONN_READY);
	c->job.on_row = on_row;
	c->job.done = done;
	c->job.arg = arg;
	conn_begin(c, CONN_COPY_OUT, copy_out_input, PQsendQuery(c->pg, sql));
}

/* ---- in ---- */

static void copy_in_drained(struct pgconn *c) { c->job.drained(c->job.arg); }

static void end_copy_in(struct pgconn *c, const char *error)
{
	if (c->state == CONN_CLOSED || c->job.is_ending)
		return;
	c->job.is_ending = true;
	if (PQputCopyEnd(c->pg, error) < 0) {
		conn_lost(c, "ending a COPY");
		return;
	}
	conn_wrote(c, 1);
	/* One that the server has refused is answered already, and libpq may hold all of it: nothing more comes to read. */
	conn_again(c);
}

/* In the middle of a COPY the server speaks only to complain, and libpq keeps an error to itself until the COPY is ended: without this a load
 * that failed at its first row would be sent to its last. Should it have been something else after all, the COPY fails as "cancelled", which is retried. */
static void look_for_refusal(void *arg)
{
	struct pgconn *c = arg;
	if (c->state == CONN_COPY_IN && c->job.is_open && !c->job.is_ending && c->notices == c->job.notices)
		end_copy_in(c, "given up: the server sent something in the middle of the COPY");
}

static bool copy_in_input(struct pgconn *c)
{
	if (!c->job.is_open) {
		if (!opened(c, PGRES_COPY_IN))
			return false;
		c->job.notices = c->notices;
		c->job.opened(c->job.arg);
		return false;
	}
	if (c->job.is_ending)
		return conn_gather(c);
	PQisBusy(c->pg);
	if (c->notices != c->job.notices) {
		c->job.notices = c->notices;
		return false;
	}
	if (!c->coalesce)
		c->coalesce = loop_timer_new(c->loop, "postgres", look_for_refusal, c);
	if (!loop_timer_is_running(c->coalesce))
		loop_timer_start(c->coalesce, REFUSAL_LOOK_MS);
	return false;
}

void pgconn_copy_in(struct pgconn *c, const char *sql, void (*on_opened)(void *arg), void (*on_drain)(void *arg), pgconn_done *done, void *arg)
{
	if (c->state == CONN_CLOSED)
		return;
	assert(c->state == CONN_READY);
	c->job.opened = on_opened;
	c->job.drained = on_drain;
	c->job.done = done;
	c->job.arg = arg;
	conn_begin(c, CONN_COPY_IN, copy_in_input, PQsendQuery(c->pg, sql));
	if (on_drain && c->state == CONN_COPY_IN)
		c->on_drain = copy_in_drained;
}

int pgconn_copy_put(struct pgconn *c, const void *data, size_t len)
{
	if (c->state == CONN_CLOSED)
		return -1;
	if (c->job.is_ending)
		return 0; /* the server has refused it already: done tells why */
	assert(c->state == CONN_COPY_IN && c->job.is_open && len <= INT32_MAX / 2);
	if (PQputCopyData(c->pg, data, (int)len) != 1) { /* 0: there was no memory for it */
		conn_lost(c, "sending rows");
		return -1;
	}
	conn_wrote(c, len);
	return 0;
}

void pgconn_copy_end(struct pgconn *c, const char *error)
{
	end_copy_in(c, error);
}
