/* target_lanes: what target_lanes.c, which loads tables, and target_finish.c, which does what is to be done behind all of them, know of the lanes. */
#ifndef DMSR_POSTGRES_TARGET_LANES_H
#define DMSR_POSTGRES_TARGET_LANES_H
#include "target_int.h"

struct table_load;      /* target_lanes.c */

struct lane {
	struct lane *next;
	struct target *of;              /* the instance */
	struct target *t;               /* its own */
	struct table_load *load;        /* NULL: it is free */
	uint32_t part;                  /* of it; 0: all of it, its beginning or its end */
	bool is_ending;                 /* will be free by itself */
	bool is_indexing;               /* takes part in that */
	bool is_stale;                  /* has been free for long */
};

/* OP_LOAD_DONE: target_finish.c. */
enum finish { FINISH_NONE, FINISH_INDEXING, FINISH_REFERRING, FINISH_DONE };
struct lanes {
	struct lane *first;
	struct table_load *loads;
	const struct target *preparing;
	bool has_given_way;             /* what was open is rolled back */
	enum finish finish;
	struct item *due;               /* OP_LOAD_DONE that came in the middle of a transaction, which must end first; NULL: none */
	struct target_table **tables;   /* to be finished */
	size_t ntables, next_table, running;
};

struct lane *lane_open(struct target *t);       /* a new one, of the instance t */
/* DONE: nothing is open. An error, which is looked at first, may have sent us back. */
enum step lanes_commit_stream(struct target *t);

#endif
