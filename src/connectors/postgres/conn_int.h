/* conn_int: what the parts of conn share: conn.c (connecting, the descriptor, failures), conn_query.c, conn_copy.c, conn_stream.c, conn_pipeline.c.
 * Nobody else includes it.
 *
 * A part takes the connection by conn_take(c, state, on_input), writes through libpq, calls conn_flush, and gets on_input each time the descriptor was
 * read (PQconsumeInput is done). on_input hands on what libpq has, without blocking, and gives the connection back by conn_take(c, CONN_READY, NULL)
 * before it calls its last callback. It returns true when it stopped for lack of time (conn_is_late): it is then called again at the next turn.
 *
 * An owner may free the connection inside any callback: after calling one, look at c->freed (the memory lives until the loop's callback is left) and
 * touch nothing else if it is set. Owners' callbacks are only called from on_input and on_drain, never from a verb. */
#ifndef DMSR_POSTGRES_CONN_INT_H
#define DMSR_POSTGRES_CONN_INT_H
#include "conn.h"

enum conn_state {
	CONN_IDLE,              /* made, nothing asked yet */
	CONN_RESOLVING,         /* name -> addresses */
	CONN_CONNECTING,        /* PQconnectPoll: socket, TLS, login */
	CONN_SETUP,             /* the session's settings */
	CONN_READY,             /* nothing going on */
	CONN_BUSY,              /* a query */
	CONN_COPY_IN, CONN_COPY_OUT, CONN_STREAM, CONN_PIPELINE,
	CONN_CLOSED,            /* dead: on_failed was or will be told */
	CONN_STATES
};

struct conn_job {               /* what the present activity needs; cleared by conn_take(c, CONN_READY, NULL) */
	pgconn_done *done;
	void (*opened)(void *arg);
	void (*on_row)(void *arg, const char *data, size_t len);
	void (*drained)(void *arg);
	void (*started)(void *arg);
	void (*on_message)(void *arg, const char *data, size_t len);
	void (*on_dry)(void *arg);
	void *arg;
	PGresult *last;         /* the newest, or the first error */
	bool is_open;           /* COPY, stream: the server said that it begins */
	bool is_ending;         /* we said that it ends */
	unsigned notices;       /* COPY in: pgconn.notices so far */
	bool is_coalescing;     /* stream, and what follows: see conn_stream.c */
	unsigned news;          /* messages since the last on_dry */
	unsigned window_messages;
	uint64_t window_us;
};

struct pgconn {
	struct loop *loop;
	char *object;           /* the job's name, for log lines */
	char *role;             /* "source" or "target": the first half of error ids */
	char *description;
	struct pgconn_owner owner;
	enum pgconn_kind kind;
	enum conn_state state;
	bool freed;             /* by the owner, in the middle of a callback */
	bool in_callback;
	bool paused;
	bool is_gone;           /* the socket is at its end; what libpq still holds is being handed on */
	bool has_rest;          /* on_input stopped for lack of time or because of a pause: libpq may hold more */
	bool has_input, input_is_known; /* conn_has_input's answer since the last read */
	bool told;              /* on_failed was called */

	/* connecting */
	char *host, *database, *user, *password, *sslmode, *sslrootcert, *application;
	int port;
	uint64_t deadline_us;
	struct loop_resolve *resolve;
	char (*addresses)[64];  /* numeric */
	int naddresses, address;

	struct dialer *dialer;  /* the thread that makes its steps of connecting; NULL: it is not connecting */
	struct step *step;      /* under way there; NULL: none */
	PGconn *pg;             /* NULL while that has it */
	struct loop_io *io;
	struct loop_timer *timer;       /* the deadline of connecting */
	struct loop_task *later;        /* on_input once more, or on_failed */
	struct loop_timer *coalesce;    /* COPY in, stream: the next look at the socket; made by whoever needs it, freed by conn_take(READY) */
	unsigned notices;       /* how many the server has sent */
	bool (*on_input)(struct pgconn *c);
	void (*on_drain)(struct pgconn *c);     /* everything is in the kernel, after it was not; NULL: nobody cares */
	struct conn_job job;
	struct conn_pipe *pipe; /* statements on their way; NULL before the first pgconn_pipeline_enter */
	char sqlstate[6];       /* of the newest SQL error */
	uint64_t slice_began_us;
	unsigned slice_ticks;
	size_t pending;         /* bytes written since the kernel had taken all; an upper bound of what it has not */
	bool was_full;          /* pending was over the mark since the last on_drain */
	struct err failure;
	struct err fatal;       /* what the server said before it cut an idle connection */
};

enum { CONN_DRAIN_MARK = 256 * 1024 };  /* on_drain only after more than this was pending */

/* The connection goes to another activity (or back to READY, which clears c->job). */
void conn_take(struct pgconn *c, enum conn_state state, bool (*on_input)(struct pgconn *c));
/* Hands to the kernel what it takes and waits for room for the rest. May call conn_fail, never a callback. */
void conn_flush(struct pgconn *c);
/* As conn_flush, after n bytes were put into libpq. */
void conn_wrote(struct pgconn *c, size_t n);
/* on_input at the next turn, without waiting for the descriptor. */
void conn_again(struct pgconn *c);
/* The connection is dead for this reason; on_failed comes at the next turn. e may be &c->failure. conn_lost: for what libpq says. */
void conn_fail(struct pgconn *c, const struct err *e);
void conn_lost(struct pgconn *c, const char *doing);
/* Has this callback run long enough? Looks at the clock once in a while: call it once a row. */
bool conn_is_late(struct pgconn *c);
/* A query was given to libpq (sent: what it said): the connection goes to `state` until on_input is through. c->job is filled before. */
void conn_begin(struct pgconn *c, enum conn_state state, bool (*on_input)(struct pgconn *c), int sent);
/* on_input for what is left of any query: gathers results into job.last; behind the last one READY, then job.done (or dead). */
bool conn_gather(struct pgconn *c);
/* Is this result the server's last word on this connection? */
bool conn_is_fatal(const PGresult *res);
void conn_pipe_free(struct conn_pipe *p);
/* Is there more to read, in the kernel or in the TLS library? Asked once between two reads: what comes later wakes us. */
bool conn_has_input(struct pgconn *c);

#endif
