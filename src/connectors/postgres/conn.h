/* conn: one PostgreSQL connection on the loop, for sources and targets alike. libpq, never blocking: the name is resolved by the loop,
 * PQconnectStart/Poll with hostaddr, a deadline for all of it; then queries one after another, COPY, or (for the target) pipeline mode.
 * The password file, service file and environment (PG*) are not consulted: keywords come from the settings alone.
 *
 *   IDLE -> RESOLVING -> CONNECTING -> READY <-> BUSY (query) / COPY_IN / COPY_OUT / STREAM / PIPELINE -> CLOSED
 *
 * An owner gives callbacks; every failure, at any time, is told once through on_failed, after which only pgconn_free is allowed. */
#ifndef DMSR_POSTGRES_CONN_H
#define DMSR_POSTGRES_CONN_H
#include "dmsr.h"
#include <libpq-fe.h>

/* The connection options that source and target share: each has PGCONN_OPTIONS in its option table. A host that begins with '/' is a socket directory. */
#define PGCONN_OPTIONS \
	{ "host", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Host name, address, or the directory of the server's unix socket." }, \
		{ "port", DMSR_OPT_INT, 0, "5432", NULL, 1, 65535, "TCP port." }, \
		{ "database", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Database name." }, \
		{ "user", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Role to connect as." }, \
		{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "Its password." }, \
		{ "sslmode", DMSR_OPT_ENUM, 0, "prefer", "disable|allow|prefer|require|verify-ca|verify-full", 0, 0, \
			"TLS; verify-full is the one to use off the local machine." }, \
		{ "sslrootcert", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "File with the certificates to trust, for verify-ca and verify-full." }, \
	{ \
		"connect_timeout", DMSR_OPT_DURATION, 0, "10s", NULL, 100, 600000, "Limit for name, connection, TLS and login together." \
	}

struct pgconn;
struct pgconn_owner {
	void *ctx;
	void (*on_ready)(void *ctx);                    /* connected and set up; may run queries */
	void (*on_failed)(void *ctx, const struct err *e); /* connect, TLS, login, cut, protocol: the connection is dead */
	void (*on_notice)(void *ctx, const char *text); /* may be NULL */
};
enum pgconn_kind { PGCONN_SQL, PGCONN_REPLICATION /* replication=database */ };

/* Starts at once. On READY the session has: client_encoding UTF8, DateStyle ISO, IntervalStyle postgres, extra_float_digits 1,
 * bytea_output hex, TimeZone UTC, all time-outs 0, search_path '' (pg_catalog only), jit off and what else makes output depend on the role (set_up_session). */
struct pgconn *pgconn_new(const struct dmsr_env *env, const struct settings *s, enum pgconn_kind kind, const struct pgconn_owner *o);
void pgconn_free(struct pgconn *c);                     /* at once: closes the socket; allowed in any callback; NULL is fine */
bool pgconn_is_ready(const struct pgconn *c);
int pgconn_server_version(const struct pgconn *c);      /* 150004 */
const char *pgconn_describe(const struct pgconn *c);    /* "db1:5432/shop" for messages */

/* One query (simple protocol if nparams is 0: may be several statements, then the last result counts). READY only; done is called once, with
 * the result (borrowed) or, on an SQL error, NULL and e (see pgerr_from_result); a dead connection calls on_failed instead and done never. */
typedef void pgconn_done(void *arg, const PGresult *res, const struct err *e);
void pgconn_query(struct pgconn *c, const char *sql, pgconn_done *done, void *arg);
void pgconn_query_params(struct pgconn *c, const char *sql, int nparams, const char *const *values, pgconn_done *done, void *arg);
const char *pgconn_sqlstate(const struct pgconn *c);    /* of the newest error of a query or COPY: "42P07"; "" before the first */

/* COPY ... TO STDOUT: on_row once a row with its bytes (borrowed, no copy is made where libpq allows); then done. pgconn_pause stops reading. */
void pgconn_copy_out(struct pgconn *c, const char *sql, void (*on_row)(void *arg, const char *data, size_t len), pgconn_done *done, void *arg);
void pgconn_pause(struct pgconn *c);                    /* COPY out, stream: no more rows until pgconn_resume; the rest of the turn's rows stay in libpq */
void pgconn_resume(struct pgconn *c);

/* COPY ... FROM STDIN: opened when the server waits for data, and never where it refuses: that tells done alone. put appends (copied); pending tells how
 * many bytes at most are not yet in the kernel (on_drain, which may be NULL, fires when all are, after more than 256 KiB were not); end (error NULL: done;
 * else: fail the COPY with that reason), then done. */
void pgconn_copy_in(struct pgconn *c, const char *sql, void (*opened)(void *arg), void (*on_drain)(void *arg), pgconn_done *done, void *arg);
int pgconn_copy_put(struct pgconn *c, const void *data, size_t len);   /* 0, or -1: dead (on_failed follows) */
void pgconn_copy_end(struct pgconn *c, const char *error);
size_t pgconn_pending(const struct pgconn *c);

/* Replication stream (START_REPLICATION ... LOGICAL): on_message once a CopyData message; put sends one (standby status). dry fires when
 * the socket is read empty after at least one message: the moment to hand a batch on. Reads are coalesced under load (see conn_stream.c).
 * Paused, keepalives are still answered by the owner's timer through put. */
void pgconn_stream(struct pgconn *c, const char *sql, void (*started)(void *arg),
	void (*on_message)(void *arg, const char *data, size_t len), void (*on_dry)(void *arg), pgconn_done *ended, void *arg);
int pgconn_stream_put(struct pgconn *c, const void *data, size_t len);
void pgconn_stream_end(struct pgconn *c);               /* CopyDone; then ended */

/* Pipeline mode, for the target. Each statement, prepared or parsed on the spot, gets its result in order through on_result (borrowed; an aborted one: status
 * PGRES_PIPELINE_ABORTED); a sync ends a group, makes the server send what it has, and gives on_sync. Statements are collected and go out together: at a
 * sync, at a flush, or when there are enough of them. 0, or -1: dead (on_failed follows). */
struct pgconn_pipeline {
	void *arg;
	void (*on_result)(void *arg, const PGresult *res);
	void (*on_sync)(void *arg);
	void (*on_drain)(void *arg);                    /* all is in the kernel, after more than 256 KiB was not */
};
int pgconn_pipeline_enter(struct pgconn *c, const struct pgconn_pipeline *owner);
int pgconn_pipeline_prepare(struct pgconn *c, const char *name, const char *sql, int ntypes, const Oid *types);
int pgconn_pipeline_send(struct pgconn *c, const char *name, int nparams, const char *const *values, const int *lens, const int *formats);
int pgconn_pipeline_sql(struct pgconn *c, const char *sql, int nparams, const Oid *types,
	const char *const *values, const int *lens, const int *formats);
int pgconn_pipeline_sync(struct pgconn *c);
int pgconn_pipeline_flush(struct pgconn *c);            /* offers the kernel what was collected; asks the server for nothing */
int pgconn_pipeline_leave(struct pgconn *c);            /* when nothing is outstanding: READY again */

/* errors.c: SQLSTATE and libpq messages -> err. Never holds a password. role: "source" or "target" (ids are "source.auth", "target.constraint" ...). Classes:
 * 08*, 57P01-3, 53300, 55006 (slot in use), 40001, 40P01: retriable; 28*: auth; 23*: <role>.constraint; 22*, 42804: <role>.data;
 * 42501: <role>.privilege; 53100: <role>.disk-full ... */
int pgerr_from_result(struct err *e, const struct pgconn *c, const PGresult *res);
int pgerr_from_conn(struct err *e, const struct pgconn *c, const char *doing);

#endif
