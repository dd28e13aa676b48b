/* http_int: what the files of this room share: the server, its connections and its requests. */
#ifndef DMSR_HTTP_HTTP_INT_H
#define DMSR_HTTP_HTTP_INT_H
#include "base/buf.h"
#include "base/loop.h"
#include "http/auth.h"
#include "http/http.h"
#include "http/reply.h"
#include "http/router.h"
#include "http/uri.h"
#include <microhttpd.h>

enum { REQUEST_ID_BYTES = 24, HTTP_HEADER_BYTES_MAX = 32 * 1024 };

struct limits {
	size_t body_max;
	unsigned connections_max, connections_per_ip_max;
	uint64_t timeout_ms;    /* for a request to arrive, for an answer to be found, for it to be sent: each */
};

/* One libmicrohttpd daemon on one listening socket. A reload makes a new one on the same socket; the old one is retired: it serves the connections it has
 * until they end. */
struct served {
	struct served *next;
	struct listener *listener;
	struct MHD_Daemon *mhd;
	struct loop_io *io;
	struct loop_timer *timer;
	unsigned nconns, nclosed;
	bool tls;
	bool retired, kicked;
	char *cert, *key;       /* PEM, wiped when freed */
};
struct listener {
	struct http *http;
	bool local;             /* a unix socket: who may open it is who may call */
	int fd;                 /* -1: not listening */
	struct served *served;  /* the newest first; those behind it are retired */
	char *path;             /* of the unix socket */
};

/* A connection that libmicrohttpd accepted. It has no time-out of its own for a client that dribbles: we cut it at the deadline. */
struct conn {
	struct conn *prev, *next;
	struct served *served;
	int fd;                 /* libmicrohttpd's */
	uint64_t deadline_us;   /* 0: none */
	struct request *request; /* the one that is under way on it; NULL: none */
};

struct events;
struct call;
struct metrics_answer;
struct http {
	struct loop *loop;
	struct engine *engine;
	struct limits limits;
	struct auth *auth;
	struct listener tcp, local;
	char address[80];
	bool loopback;                  /* the port is for this machine alone */
	struct conn *conns;
	struct request *requests;
	struct loop_timer *cutter;      /* looks at deadlines while there are connections */
	struct loop_task *reaper;       /* ends retired daemons that have no connection left */
	struct events *events;
	struct call *calls;             /* under way at the engine */
	struct idempotency *keys;       /* of requests and calls under way */
	struct http_stat *stat;
	bool per_table;                 /* metrics of each table, too */
	char *openapi, openapi_etag[24]; /* made at the first request: plugins do not change */
	uint64_t nrequests;             /* for request ids */
	uint32_t boot;                  /* differs from start to start: request and event ids */
	bool closing;
};

/* One request, from its first line until its answer was sent or its connection lost.
 *
 *   READING --whole--> RUNNING --reply--> ANSWERED        suspended: libmicrohttpd leaves the connection alone
 *                         |  \--call--> WAITING (suspended) --engine's answer, time-out--> ANSWERED (resumed)
 *                         \--stream--> STREAMING (suspended while there is nothing to send) */
enum request_state { REQUEST_READING, REQUEST_RUNNING, REQUEST_WAITING, REQUEST_ANSWERED, REQUEST_STREAMING };
struct request {
	struct request *prev, *next;
	struct http *http;
	struct served *served;
	struct conn *conn;
	struct MHD_Connection *mhd;
	enum request_state state;
	bool seen;                      /* its headers were looked at */
	bool replied;                   /* libmicrohttpd has the answer */
	unsigned method;                /* METHOD_*; HEAD is METHOD_GET with head */
	bool head;
	bool must_close;                /* nobody knows where its body ends */
	size_t drained;                 /* of a body that is refused: read and thrown away */
	char id[REQUEST_ID_BYTES];
	char actor[96];                 /* "": nobody */
	struct uri uri;
	int uri_rc;
	struct err uri_err;
	const struct route *route;      /* NULL: none */
	const char *args[ROUTE_ARGS_MAX]; /* what stands for {name} ... in the path */
	struct buf body;
	json_t *json;
	const char *origin;             /* an allowed foreign one, to be told so; borrowed of MHD */
	struct reply reply;
	struct call *call;              /* the engine works on it */
	struct metrics_answer *metrics; /* it is written a slice at a time */
	struct idempotency *idempotency;
	struct events_client *stream;
	struct loop_timer *deadline;
	uint64_t begun_us;
};
/* server.c */
const char *request_header(const struct request *r, const char *name); /* NULL: not sent */
unsigned request_header_count(const struct request *r, const char *name);

/* served.c */
void served_resume(struct served *s, struct MHD_Connection *c); /* libmicrohttpd looks at the suspended connection in the loop's next turn */

/* handle.c: the life of a request; libmicrohttpd's callbacks. */
void *on_uri(void *cls, const char *uri, struct MHD_Connection *c);
enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data, size_t *n,
	void **req);
void on_completed(void *cls, struct MHD_Connection *c, void **req, enum MHD_RequestTerminationCode why);
void request_lost(struct request *r); /* its connection is closed, or has the next one, and on_completed was not called; NULL is fine */
void request_resume(struct request *r);         /* WAITING, and the reply is there now */
void request_refuse(struct request *r, int code, const char *id, const char *message); /* WAITING: answered so at once, whoever works on it */

/* metrics.c */
void metrics_forget(struct request *r);         /* its client is gone, or was told "timeout" */

/* call.c: questions that the engine answers later. The reply is made by finish, from the result, whether the client is still there or not. */
typedef void call_finish(struct reply *out, const char *name, const json_t *result);
/* What to hand to engine_*: borrowed until the answer. name: the job's, for finish; NULL: none. if_generation -1: any. */
const struct engine_call *call_new(struct request *r, call_finish *finish, const char *name, int64_t if_generation);
void call_forget(struct request *r);            /* its client is gone, or was told "timeout" */
void calls_forget_http(struct http *h);

/* idempotency.c: a POST that is sent again with its Idempotency-Key is done once. */
/* True: the request has a key (or a bad one): it waits, or a reply is set. False: run it. */
bool idempotency_begin(struct request *r);
void idempotency_forget(struct request *r);     /* its client is gone */
struct idempotency *idempotency_take(struct request *r); /* for its call; NULL: no key */
/* The call's reply is final: kept when it is a success. Then done. i is given up. */
void idempotency_end(struct idempotency *i, const struct reply *reply, void (*done)(void *arg), void *arg);
void idempotency_forget_http(struct http *h);

#endif
