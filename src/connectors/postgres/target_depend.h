/* target_depend: which of several connections ("lanes") a source transaction goes to, and what must be committed before it begins there. Pure.
 *
 * A transaction claims tokens (hashes of what it touches), each in a mode. Two transactions conflict when they claim the same token, unless both claim it in
 * the mode ONE, or both in OTHER. They are placed in the order of the source. The promise, which target_parallel.c keeps and a property test holds against
 * a model:
 *
 *   a transaction begins only when each earlier one that it conflicts with was placed in the same lane before it, or is committed.
 *
 * So at any moment the transactions that are committed are closed downwards: with one, all earlier ones that it conflicts with are there. What does not
 * conflict commutes; hence what a crash leaves, and what the rest then makes of it in the source's order, is what strict order makes. */
#ifndef DMSR_POSTGRES_TARGET_DEPEND_H
#define DMSR_POSTGRES_TARGET_DEPEND_H
#include "dmsr.h"

enum { DEPEND_LANES_MAX = 16 };
enum depend_mode { DEPEND_ONE = 1, DEPEND_OTHER = 2, DEPEND_ALONE = 3 };

struct depend;
struct depend *depend_new(unsigned nlanes);     /* 1 to DEPEND_LANES_MAX */
void depend_free(struct depend *d);             /* NULL is fine */

/* The transaction at hand claims a token. Repeating it is fine. */
void depend_claim(struct depend *d, uint64_t token, enum depend_mode mode);
void depend_drop(struct depend *d);             /* the claims made since the last place are forgotten */
size_t depend_claims(const struct depend *d);   /* how many they are */
/* Places it. Returns its number, from 1; lane is where; after[l], for each lane: l must have committed the transaction of that number first (0: none). */
uint64_t depend_place(struct depend *d, size_t weight, unsigned *lane, uint64_t after[DEPEND_LANES_MAX]);
/* The lane has committed everything that was placed in it up to this number; weight: the sum of theirs. */
void depend_committed(struct depend *d, unsigned lane, uint64_t number, size_t weight);
/* How long a commit takes, as the newest one of any lane did. Where that is long and most transactions conflict, those that do not follow the others, into one
 * lane: to wait for another lane's commit costs more than what is done meanwhile. */
void depend_took(struct depend *d, uint64_t us);
uint64_t depend_clear(struct depend *d);        /* everything that was placed is committed; returns the newest number */

#endif
