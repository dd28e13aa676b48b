/* position: how far, in one server's own log.
 *
 * Resume is by (transaction, event in it), never by log address alone: many events share one address. For PostgreSQL lsn is
 * the commit record's LSN (what Begin announces). `event` counts how many of that transaction's changes are behind the
 * position: 0 none, POSITION_WHOLE all and the commit. `flush` is what may be told to the server ("everything below is
 * behind us"): the end LSN of a whole transaction or a keepalive's LSN; 0 inside a transaction, or what was last told before it.
 * Two positions are compared only when `server` is the same (system_identifier; for MySQL, later, a hash of server_uuid). */
#ifndef DMSR_MODEL_POSITION_H
#define DMSR_MODEL_POSITION_H
#include "base/buf.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
#pragma GCC visibility push(default)

#define POSITION_WHOLE UINT64_MAX
enum position_kind { POSITION_NONE = 0, POSITION_LSN };

/* A plain value: copied by assignment, nothing to free. */
struct position {
	uint8_t kind;
	uint64_t server;
	uint64_t lsn;
	uint64_t event;
	uint64_t flush;
};
static inline bool position_is_none(const struct position *p) { return p->kind == POSITION_NONE; }

/* <0, 0, >0. NONE is before everything. Asserts that both are of one server. */
int position_compare(const struct position *a, const struct position *b);
bool position_is_comparable(const struct position *a, const struct position *b);
/* Is change number `event` (1-based) of the transaction at lsn behind p? */
static inline bool position_covers(const struct position *p, uint64_t lsn, uint64_t event)
{
	return p->kind && (lsn < p->lsn || (lsn == p->lsn && event <= p->event));
}
/* Behind a transaction's begin, and not behind its end. Of the two with event 0 the one where it begins is also what may be told to the server. */
static inline bool position_is_inside(const struct position *p)
{
	return p->kind && p->event != POSITION_WHOLE && (p->event || p->flush < p->lsn);
}
/* position_compare() > 0, or a is behind the begin of the transaction that b is before. */
bool position_is_past(const struct position *a, const struct position *b);
/* Text: "pg:7212345678901234567:0/16B3748:*:0/16B3790" (server, lsn, event or *, flush), "none". At most 127 bytes with NUL. */
enum { POSITION_TEXT_MAX = 128 };
const char *position_format(const struct position *p, char out[POSITION_TEXT_MAX]);
int position_parse(const char *text, struct position *out, struct err *e);
/* "16/B374D848" */
const char *lsn_format(uint64_t lsn, char out[24]);
int lsn_parse(const char *text, uint64_t *out); /* 0 or -1 */

#pragma GCC visibility pop
#endif
