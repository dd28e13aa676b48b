/* conn_stream: a replication stream (COPY both). Messages come in by the thousand, most of them small, since the server sends each by itself.
 *
 * Woken for each of them, a reader burns most of its time in the kernel. So when many came lately, reading is coalesced: the kernel wakes us for
 * LOW_WATER bytes, and a timer looks in every LOOK_US; when the timer finds nothing, the stream is idle and each byte wakes us again. Either way
 * everything there is is read before on_dry says so. */
#include "conn_int.h"
#include <assert.h>
#include <sys/socket.h>

enum {
	LOW_WATER = 64 * 1024,
	LOOK_US = 1500,
	WINDOW_US = 5000,       /* this many messages in this time: a backlog */
	WINDOW_MESSAGES = 60,
};

/* Refused where the socket is none of TCP's: the timer alone does it then. */
static void set_low_water(struct pgconn *c, int bytes)
{
	setsockopt(PQsocket(c->pg), SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

static void set_coalescing(struct pgconn *c, bool on)
{
	if (c->job.is_coalescing != on)
		set_low_water(c, on ? LOW_WATER : 1);
	c->job.is_coalescing = on;
	if (on)
		loop_timer_start_us(c->coalesce, LOOK_US);
	else
		loop_timer_stop(c->coalesce);
}

static void decide_coalescing(struct pgconn *c)
{
	struct conn_job *j = &c->job;
	uint64_t now = loop_now_us(c->loop);
	if (j->is_coalescing) {
		set_coalescing(c, j->news > 0);
		return;
	}
	if (now - j->window_us > WINDOW_US) {
		j->window_us = now;
		j->window_messages = 0;
	}
	j->window_messages += j->news;
	if (j->window_messages > WINDOW_MESSAGES)
		set_coalescing(c, true);
}

static bool stream_opened(struct pgconn *c)
{
	if (PQisBusy(c->pg))
		return false;
	PGresult *res = PQgetResult(c->pg);
	if (PQresultStatus(res) == PGRES_COPY_BOTH) {
		PQclear(res);
		c->job.is_open = true;
		c->job.started(c->job.arg);
		return !c->freed && c->state == CONN_STREAM;
	}
	c->on_input = conn_gather;
	if (res)
		c->job.last = res;
	conn_gather(c);
	return false;
}

/* True: the slice is over. */
static bool hand_on(struct pgconn *c)
{
	while (!c->paused) {
		char *msg;
		int n = PQgetCopyData(c->pg, &msg, 1);
		if (n == 0)
			return false;
		if (n < 0) {
			set_coalescing(c, false);
			c->on_input = conn_gather;
			return conn_gather(c);
		}
		if (!c->job.is_ending) {
			c->job.news++;
			c->job.on_message(c->job.arg, msg, (size_t)n);
		}
		PQfreemem(msg);
		if (c->freed || c->state == CONN_CLOSED)
			return false;
		if (conn_is_late(c))
			return true;
	}
	return false;
}

static bool stream_input(struct pgconn *c)
{
	if (!c->job.is_open && !stream_opened(c))
		return false;
	if (hand_on(c))
		return true;
	if (c->freed || c->state != CONN_STREAM || c->on_input != stream_input || c->paused || c->job.is_ending || conn_has_input(c))
		return false;
	decide_coalescing(c);
	if (c->job.news) {
		c->job.news = 0;
		c->job.on_dry(c->job.arg);
	}
	return false;
}

static void on_look(void *arg)
{
	struct pgconn *c = arg;
	if (c->state != CONN_STREAM)
		return;
	if (c->paused)
		set_coalescing(c, false);
	else
		conn_again(c);
}

void pgconn_stream(struct pgconn *c, const char *sql, void (*started)(void *arg),
	void (*on_message)(void *arg, const char *data, size_t len), void (*on_dry)(void *arg), pgconn_done *ended, void *arg)
{
	if (c->state == CONN_CLOSED)
		return;
	assert(c->state == CONN_READY);
	c->job.started = started;
	c->job.on_message = on_message;
	c->job.on_dry = on_dry;
	c->job.done = ended;
	c->job.arg = arg;
	if (!c->coalesce)
		c->coalesce = loop_timer_new(c->loop, "postgres", on_look, c);
	conn_begin(c, CONN_STREAM, stream_input, PQsendQuery(c->pg, sql));
}

int pgconn_stream_put(struct pgconn *c, const void *data, size_t len)
{
	if (c->state != CONN_STREAM)
		return -1;
	if (c->job.is_ending || !c->job.is_open)
		return 0;
	if (PQputCopyData(c->pg, data, (int)len) < 0) {
		/* The server has ended the stream and reading will tell why; or the line is cut. */
		if (PQstatus(c->pg) == CONNECTION_BAD)
			conn_lost(c, "sending a status");
		return PQstatus(c->pg) == CONNECTION_BAD ? -1 : 0;
	}
	conn_wrote(c, len);
	return 0;
}

void pgconn_stream_end(struct pgconn *c)
{
	if (c->state != CONN_STREAM || c->job.is_ending)
		return;
	c->job.is_ending = true;
	set_coalescing(c, false);
	if (PQputCopyEnd(c->pg, NULL) < 0) {
		conn_lost(c, "ending the stream");
		return;
	}
	conn_wrote(c, 1);
	pgconn_resume(c);
}
