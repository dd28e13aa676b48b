/* target_diff: how a table that was like one relation becomes like the next. Pure: two relations and the target's own columns in, statements out.
 *
 * The log does not say what was done at the source, only which columns there are now. Where the source's numbers of all columns are known they tell which
 * is which. Else it is told from the two lists, which the source gives in the order of its column numbers: a column never moves, and a new one is put behind
 * all others.
 *   - the same name in the same order: the same column, perhaps of another type;
 *   - a name that came in before one that stayed: a column that was renamed;
 *   - at the end, as many names gone as came, of the same types in the same places: renamed too. (One that was dropped and another that was added looks just
 *     like that, if it was the last; then the target keeps values that the source has no more.)
 *   - what is left was dropped, or added.
 * What the target has already, because somebody was faster, is passed over: doing it again gives nothing to do. */
#ifndef DMSR_POSTGRES_TARGET_DIFF_H
#define DMSR_POSTGRES_TARGET_DIFF_H
#include "target_sql.h"

struct diff {
	char **sql;                     /* statements, in this order */
	size_t n;
	bool makes_types;               /* columns came or changed their type: what types are made of must be there first */
	const char *own_value;          /* a new column whose default is not a constant: rows that are there get values of this server's. NULL: none */
	const char *cast;               /* a column whose values are cast to its new type; NULL: none */
	const char *key;                /* the key is another one, but it is not ours to make: why; NULL: fine */
};

/* tb->rel is the new relation, tb->columns are the server's. old NULL: not known, then columns are only added. is_ours: its keys are ours to make.
 * DMSR_ESTATE: what happened cannot be told. */
int diff_table(struct diff *out, const struct relation *old, const struct target_table *tb, bool is_ours, struct err *e);
void diff_fini(struct diff *d);
/* For each column of `new` its number in `old`, or -1: it was added. */
int diff_map(const struct relation *old, const struct relation *new, int *from, struct err *e);
/* Does this default give the same value wherever and whenever it is computed? In doubt: no. */
bool diff_is_constant(const char *dflt);

#endif
