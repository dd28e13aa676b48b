/* target_load: tables with all their rows: target_load.c and target_prepare.c (one, on a lane), target_lanes.c (side by side), target_finish.c and
 * target_build.c (what comes behind all of them), target_ddlrun.c (the statements that make them). */
#ifndef DMSR_POSTGRES_TARGET_LOAD_H
#define DMSR_POSTGRES_TARGET_LOAD_H
#include "target_judge.h"
#include "target_tx.h"

/* What a lane (target_lanes.c) loads: a table, in one transaction; or of a divided one its beginning, a part, or its end. */
enum load_state {
	LOAD_NONE,
	LOAD_PREPARING,         /* types, table, truncate */
	LOAD_OPEN,              /* in its transaction; rows may come */
	LOAD_ENDING,            /* COPY ended, key, dmsr.loads, COMMIT */
};
enum copy_state { COPY_NONE, COPY_OPENING, COPY_OPEN, COPY_ENDING };
enum load_end {                         /* of the table, whose batch was given back */
	END_NONE,
	END_DUE,                /* in the transaction that is open, */
	END_DUE_ALONE,          /* or in one of its own */
};
enum load_piece {
	LOAD_WHOLE,
	LOAD_FRAME,             /* of a divided table its beginning, in which it is made, or its end */
	LOAD_PART,
};
struct load {
	enum load_state state;
	enum load_piece piece;
	struct target_table *table;
	uint64_t lsn, server;
	uint64_t rows;
	size_t put;                     /* bytes of the rows at hand that were put */
	enum copy_state copy;
	bool is_binary;
	bool in_turns;                  /* changes of the stream come between its parts */
	bool rows_move;                 /* goes_on, and rows may have moved from part to part */
	bool merges;                    /* changes have come, or rows moved: rows of the part take the place of those that are there */
	bool keeps_parts;               /* each is noted with its rows, so that the next run can go on with the load */
	uint32_t part;
	bool goes_on;                   /* with parts that are there */
	uint64_t since;                 /* of the oldest of its parts */
	bool is_ours;                   /* this job has loaded it, or begun to: what is there may be taken away */
	bool is_fresh;                  /* made or truncated in this transaction */
	enum how how;
	const struct change *word;      /* the begin, or end of a part, that was dealt with last; NULL: that was passed */
	enum load_end end;
};

/* ---- target_load.c, target_prepare.c ---- */
enum step load_step(struct target *t, const struct change *ch);
bool load_end(struct target *t);                /* true: the table is being ended, or begins to be */
/* In dmsr.loads: a load of the table was begun, and none of its parts is there. Parameters: the job's uid, schema, name, made, and LOAD_BEGUN or LOAD_LOST. */
extern const char load_begin_sql[];
#define BEGUN_GONE UINT64_MAX
#define BEGUN_PAST (UINT64_MAX - 1)
void load_prepare(struct target *t);            /* from LOAD_PREPARING to LOAD_OPEN; if it is divided, to LOAD_NONE */
void load_prepare_part(struct target *t);       /* from LOAD_PREPARING to LOAD_OPEN */
void load_lose_refused(struct target *t, const struct err *why); /* its part's transaction has failed: the table begins anew at the next start */
bool load_may_be_caught(const struct target *t);        /* t->load: can parts of different snapshots be made one (target_catch.h)? */

/* ---- target_lanes.c: of the instance ---- */
void lanes_init(struct target *t);
void lanes_fini(struct target *t);
void lanes_close(struct target *t);             /* all at once; what they hold is rolled back by the server */
bool lanes_are_at_work(const struct target *t);
/* The item at hand, of a load. DONE: it was lent, or is of no use. */
enum step lanes_take(struct target *t);
enum step lanes_settle(struct target *t);       /* DONE: no load is open: what has its end is committed, the others are void */
/* A change came that the parts of a load that went on cannot do with: we die, and the table is loaded again. */
enum step lanes_lose(struct target *t, const struct target_table *tb, const char *why);
void lanes_turn(struct target *t);              /* what is to be done now and then */
const char *lanes_phase(const struct target *t);        /* NULL: no load is going on */
size_t lanes_queued_bytes(const struct target *t);

/* ---- target_finish.c ---- */
enum step finish_take(struct target *t);        /* OP_LOAD_DONE. DONE: finish_step is done, or is put off until the transaction at hand ends */
enum step finish_step(struct target *t);        /* DONE: indexes, constraints, values of sequences are there */
bool finish_owes(const struct target *t, const struct item *it); /* it was put off, and is not done */
bool finish_is_due(const struct target *t);     /* finish_step is to be called: one that was put off */
bool finish_work(struct target *t);             /* of a lane, nothing is in its queue. True: it has something else to do */

/* ---- target_lanes.c: of a lane; t is the lane's own ---- */
struct target *lane_instance(const struct target *t);   /* whose lane it is */
void lane_rest(struct target *t);               /* it has had nothing to do for long */
/* One lane at a time makes, empties or drops a table: what that locks must not be waited for by one who is fed behind it. */
struct target *lanes_next(const struct target *t, const struct target *after); /* session of a lane that has one; after NULL: the first */
bool lane_may_prepare(struct target *t);
void lane_prepared(struct target *t);
/* What t->load is to be, with what the instance knows of the table. */
void lane_load(struct target *t, enum load_state state, struct relation *rel);
void lane_made(struct target *t);               /* committed: the beginning of a divided table, */
void lane_put_part(struct target *t);           /* one of its parts, */
void lane_loaded(struct target *t);             /* all of it, or an undivided one */

/* ---- target_ddlrun.c: each ends in `then`, or target_fail ---- */
/* What its columns are made of; makes false: only what enums that are there lack. */
void ddlrun_before(struct target *t, struct target_table *tb, bool makes, void (*then)(struct target *t));
void ddlrun_key(struct target *t, struct target_table *tb, void (*then)(struct target *t)); /* the primary key, in the load's transaction */
/* Of tables (borrowed; not t's own). */
void ddlrun_tables(struct target *t, struct target_table *const *tables, size_t n, enum ddl_phase phase, void (*then)(struct target *t));
void ddlrun_fini(struct target *t);

size_t ddlrun_count(const struct target *t, struct target_table *const *tables, size_t n);  /* what both phases of that have */
const struct ddl *ddlrun_under_way(const struct target *t);                     /* of that, or a key; NULL: nothing */

/* ---- target_build.c: how far that is ---- */
void build_begin(struct target *t, size_t total);
void build_end(struct target *t);
void build_statement(struct target *t);         /* a lane begins one, */
void build_made(struct target *t);              /* or has made it */
void build_look(struct target *t);              /* now and then: asks the server */
void build_stat(const struct target *t, struct dmsr_target_stat *out);

#endif
