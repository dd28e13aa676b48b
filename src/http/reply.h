/* reply: what will be sent, built without a connection: an engine's late answer is kept for an idempotency key though its client is gone. */
#ifndef DMSR_HTTP_REPLY_H
#define DMSR_HTTP_REPLY_H
#include "base/buf.h"
#include "base/err.h"
#include <jansson.h>

enum { REPLY_HEADERS_MAX = 8 };
struct reply {
	int status;                     /* 0: none yet */
	const char *type;               /* a literal */
	char *body;                     /* heap */
	size_t len;
	struct { const char *name; char *value; } headers[REPLY_HEADERS_MAX]; /* names are literals */
	size_t nheaders;
	const char *request_id;         /* for a problem's "instance"; borrowed */
};
void reply_fini(struct reply *r);       /* leaves an empty one */
/* What was there before is dropped, headers too. body is taken; NULL: none. */
void reply_json(struct reply *r, int status, json_t *body);
void reply_text(struct reply *r, int status, const char *type, struct buf *text); /* the buf's bytes are taken */
void reply_header(struct reply *r, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* RFC 9457; the status follows from e->id, or else from e->code. errors: as engine/options.h has problems, borrowed, or NULL. */
void reply_problem(struct reply *r, const struct err *e, const json_t *errors);
/* err_set and reply_problem in one. */
void reply_error(struct reply *r, int code, const char *id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* ETag of a generation. */
void reply_etag(struct reply *r, json_int_t generation);

/* The documented codes that HTTP decides about: ends with id NULL. */
struct problem_kind { const char *id; int status; const char *title; };
extern const struct problem_kind problem_kinds[];

#endif
