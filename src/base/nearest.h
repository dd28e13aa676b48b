/* nearest: which of some words is the one that was meant by a misspelt one, by how many letters differ: at most two, or a third of them. */
#ifndef DMSR_BASE_NEAREST_H
#define DMSR_BASE_NEAREST_H
#include <limits.h>
#include <stddef.h>
#pragma GCC visibility push(default)

enum { NEAREST_MAX = 64 };      /* longer words are like no other */
struct nearest {                /* begins as NEAREST(the misspelt one) */
	const char *word;
	const char *best;       /* of those that were tried; borrowed; NULL: none is near */
	unsigned distance;
};
#define NEAREST(word) \
	{ \
		(word), NULL, UINT_MAX \
	}
void nearest_try(struct nearest *n, const char *candidate);

#pragma GCC visibility pop
#endif
