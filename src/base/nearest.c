/* nearest: see nearest.h. */
#include "nearest.h"
#include <ctype.h>
#include <string.h>

/* Optimal string alignment: insert, delete, replace, swap of neighbours. Both at most NEAREST_MAX long. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned row[3][NEAREST_MAX + 1];
	unsigned *before = row[0], *last = row[1], *now = row[2];
	for (size_t j = 0; j <= nb; j++)
		before[j] = last[j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned best = last[j - 1] + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			now[j] = best;
		}
		unsigned *free_row = before;
		before = last;
		last = now;
		now = free_row;
	}
	return last[nb];
}

void nearest_try(struct nearest *n, const char *candidate)
{
	size_t a = strlen(n->word), b = strlen(candidate);
	if (a > NEAREST_MAX || b > NEAREST_MAX)
		return;
	unsigned limit = a / 3 > 2 ? (unsigned)(a / 3) : 2, d = distance(n->word, a, candidate, b);
	/* A word that shares nothing with the candidate is no misspelling of it. */
	if (d <= limit && d < b && d < a && d < n->distance) {
		n->distance = d;
		n->best = candidate;
	}
}
