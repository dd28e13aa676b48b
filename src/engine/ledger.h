/* ledger: which batches are where. Pure: no I/O, no clock. One a channel of a run.
 *
 *   received >= streamed >= delivered >= stored >= confirmed        (in batches, and so in positions)
 *
 * Batches are numbered as they are received (tokens, from 1, without gaps). Deliveries come in any order; only the end of the
 * unbroken run of delivered batches counts. That position may be stored; one that is stored (durable) may be confirmed to the
 * source; nothing else may. One store is under way at a time, and takes all that was delivered until it began. */
#ifndef DMSR_ENGINE_LEDGER_H
#define DMSR_ENGINE_LEDGER_H
#include "model/position.h"

struct ledger;
/* from: the position that is stored already (NONE: none). */
struct ledger *ledger_new(const struct position *from);
void ledger_free(struct ledger *l);                             /* NULL is fine */

uint64_t ledger_next(const struct ledger *l);                   /* the token that the next batch gets */
/* The next batch is here; end: where it ends, NONE for one of the load. 0, and its token is in *token.
 * DMSR_EFATAL "server.changed": end is of another server than what came before; "position.backwards": it is before that. Then nothing was taken. */
int ledger_received(struct ledger *l, const struct position *end, size_t bytes, uint64_t *token, struct err *e);
void ledger_streamed(struct ledger *l, uint64_t token);         /* the streamer took it; in order */
/* The streamer has it for good; in any order, once a token. False: no such token is under way (a plugin's mistake; nothing changed). */
bool ledger_delivered(struct ledger *l, uint64_t token);

/* Is there something delivered that is not stored, and no store under way? */
bool ledger_wants_store(const struct ledger *l);
/* Begins a store: what to write (NONE: only batches of the load were delivered) and the newest token it covers. */
uint64_t ledger_store_begin(struct ledger *l, struct position *out);
void ledger_stored(struct ledger *l);                           /* the store under way is durable */
void ledger_store_failed(struct ledger *l);                     /* it is not: nothing moved */
/* Is a stored position unconfirmed? Then it is in out, and counts as confirmed from now on. */
bool ledger_confirm(struct ledger *l, struct position *out);

bool ledger_is_idle(const struct ledger *l);                    /* all that was received is stored */
struct ledger_mark {
	uint64_t token;                 /* all up to here; 0: none in this run */
	struct position position;
};
struct ledger_stat {
	struct ledger_mark received, streamed, delivered, stored, confirmed;
	uint64_t bytes;                 /* received and not in the unbroken delivered run */
};
void ledger_stat(const struct ledger *l, struct ledger_stat *out);

#endif
