/* conn_pipeline: many statements on their way at once, for the target. In come statements; out goes the result of each, in their order.
 *
 * What was sent and not answered stands in a ring, oldest first. libpq keeps the bytes until enough of them are there or a sync asks for the answers:
 * one call to the kernel for many rows. An error makes the server pass over everything up to the next sync. */
#include "conn_int.h"
#include <assert.h>
#include <stdlib.h>

enum { SEND_AT_BYTES = 16 * 1024, STATEMENT_OVERHEAD = 40 };

struct conn_pipe {
	struct pgconn_pipeline owner;
	bool *ring;             /* is it a sync? */
	size_t first, count, cap;
	size_t unsent;          /* bytes in libpq that the kernel was not offered yet */
};

void conn_pipe_free(struct conn_pipe *p)
{
	if (p)
		free(p->ring);
	free(p);
}

static bool next_is_sync(const struct conn_pipe *p) { return p->ring[p->first]; }

static void pop(struct conn_pipe *p)
{
	p->first = (p->first + 1) % p->cap;
	p->count--;
}

static void push(struct conn_pipe *p, bool is_sync)
{
	if (p->count == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		bool *ring = mem_alloc(cap * sizeof *ring);
		for (size_t i = 0; i < p->count; i++)
			ring[i] = p->ring[(p->first + i) % p->cap];
		free(p->ring);
		p->ring = ring;
		p->cap = cap;
		p->first = 0;
	}
	p->ring[(p->first + p->count++) % p->cap] = is_sync;
}

/* ---- answers ---- */

/* False: nothing more may be touched (freed or dead). */
static bool deliver(struct pgconn *c, PGresult *res)
{
	struct conn_pipe *p = c->pipe;
	if (conn_is_fatal(res)) {
		struct err e = { 0 };
		pgerr_from_result(&e, c, res);
		PQclear(res);
		conn_fail(c, &e);
		return false;
	}
	if (PQstatus(c->pg) == CONNECTION_BAD) {
		PQclear(res);
		conn_lost(c, "waiting for an answer");
		return false;
	}
	bool is_sync = PQresultStatus(res) == PGRES_PIPELINE_SYNC;
	assert(is_sync == next_is_sync(p));
	pop(p);
	if (is_sync) {
		p->owner.on_sync(p->owner.arg);
	} else {
		/* The NULL that ends an answer is in libpq already. It is lost if a statement is sent before it is taken, behind an error: what comes next
		 * would be taken for more of this answer. */
		PGresult *end = PQgetResult(c->pg);
		assert(!end);
		PQclear(end);
		p->owner.on_result(p->owner.arg, res);
	}
	PQclear(res);
	return !c->freed && c->state == CONN_PIPELINE;
}

static bool pipeline_input(struct pgconn *c)
{
	const struct conn_pipe *p = c->pipe;
	while (p->count && !PQisBusy(c->pg)) {
		PGresult *res = PQgetResult(c->pg);
		if (!res)
			return false;
		if (!deliver(c, res))
			return false;
		if (conn_is_late(c))
			return true;
	}
	return false;
}

static void pipeline_drained(struct pgconn *c) { c->pipe->owner.on_drain(c->pipe->owner.arg); }

/* ---- verbs ---- */

int pgconn_pipeline_enter(struct pgconn *c, const struct pgconn_pipeline *owner)
{
	if (c->state == CONN_CLOSED)
		return -1;
	assert(c->state == CONN_READY);
	if (!PQenterPipelineMode(c->pg)) {
		conn_lost(c, "entering pipeline mode");
		return -1;
	}
	conn_pipe_free(c->pipe);
	c->pipe = mem_zalloc(sizeof *c->pipe);
	c->pipe->owner = *owner;
	conn_take(c, CONN_PIPELINE, pipeline_input);
	c->on_drain = pipeline_drained;
	return 0;
}

int pgconn_pipeline_flush(struct pgconn *c)
{
	if (c->state == CONN_CLOSED)
		return -1;
	size_t n = c->pipe->unsent;
	c->pipe->unsent = 0;
	if (n)
		conn_wrote(c, n);
	return c->state == CONN_CLOSED ? -1 : 0;
}

static int queued(struct pgconn *c, bool is_sync, size_t bytes, int ok)
{
	if (!ok) {
		conn_lost(c, "sending a statement");
		return -1;
	}
	push(c->pipe, is_sync);
	c->pipe->unsent += bytes + STATEMENT_OVERHEAD;
	if (is_sync || c->pipe->unsent >= SEND_AT_BYTES)
		return pgconn_pipeline_flush(c);
	return 0;
}

static size_t values_bytes(int n, const char *const *values, const int *lens, const int *formats)
{
	size_t bytes = 0;
	for (int i = 0; i < n; i++)
		if (values[i])
			bytes += 8 + (formats && formats[i] ? (size_t)lens[i] : strlen(values[i]));
	return bytes;
}

int pgconn_pipeline_prepare(struct pgconn *c, const char *name, const char *sql, int ntypes, const Oid *types)
{
	if (c->state == CONN_CLOSED)
		return -1;
	return queued(c, false, strlen(sql), PQsendPrepare(c->pg, name, sql, ntypes, types));
}

int pgconn_pipeline_send(struct pgconn *c, const char *name, int nparams, const char *const *values, const int *lens,
	const int *formats)
{
	if (c->state == CONN_CLOSED)
		return -1;
	return queued(c, false, values_bytes(nparams, values, lens, formats),
		PQsendQueryPrepared(c->pg, name, nparams, values, lens, formats, 0));
}

int pgconn_pipeline_sql(struct pgconn *c, const char *sql, int nparams, const Oid *types, const char *const *values,
	const int *lens, const int *formats)
{
	if (c->state == CONN_CLOSED)
		return -1;
	return queued(c, false, strlen(sql) + values_bytes(nparams, values, lens, formats),
		PQsendQueryParams(c->pg, sql, nparams, types, values, lens, formats, 0));
}

int pgconn_pipeline_sync(struct pgconn *c)
{
	if (c->state == CONN_CLOSED)
		return -1;
	return queued(c, true, 0, PQpipelineSync(c->pg));
}

int pgconn_pipeline_leave(struct pgconn *c)
{
	if (c->state == CONN_CLOSED)
		return -1;
	assert(c->state == CONN_PIPELINE && !c->pipe->count);
	if (!PQexitPipelineMode(c->pg)) {
		conn_lost(c, "leaving pipeline mode");
		return -1;
	}
	conn_take(c, CONN_READY, NULL);
	return 0;
}
