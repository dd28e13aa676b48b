/* target_ahead: how far a target is whose source transactions are not committed in their order: a position behind which nothing is missing, and the
 * transactions beyond it that are there already. Pure.
 *
 * As text, in dmsr.positions: the position, then each transaction's commit LSN as the distance from the one before (from the position's at first), in hex:
 * "pg:7212345678901234567:0/16B3748:*:0/16B3790 +a8 +1f0". */
#ifndef DMSR_POSTGRES_TARGET_AHEAD_H
#define DMSR_POSTGRES_TARGET_AHEAD_H
#include "dmsr.h"

struct ahead {
	struct position low;
	uint64_t *lsns;                 /* ascending, beyond low */
	size_t n, cap;
};

void ahead_init(struct ahead *a);
void ahead_fini(struct ahead *a);
void ahead_add(struct ahead *a, uint64_t lsn);          /* greater than all that are there */
void ahead_raise(struct ahead *a, const struct position *low); /* nothing is missing up to here, either; what it covers goes */
bool ahead_has(const struct ahead *a, uint64_t lsn);    /* is that whole transaction one of those beyond low? */
void ahead_format(const struct ahead *a, struct buf *out);
/* What another one says is true as well. DMSR_EPROTO: no such text, or of another server. */
int ahead_merge(struct ahead *a, const char *text, struct err *e);

#endif
