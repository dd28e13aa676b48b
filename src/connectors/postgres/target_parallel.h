/* target_parallel: apply: parallel. What target_parallel.c (life, connections, what they say) and target_spread.c (which change goes where) share. */
#ifndef DMSR_POSTGRES_TARGET_PARALLEL_H
#define DMSR_POSTGRES_TARGET_PARALLEL_H
#include "target_claims.h"
#include "target_int.h"

enum parallel_state {
	PARALLEL_NEW,              /* opened */
	PARALLEL_STARTING,         /* the first connection is not ready */
	PARALLEL_WORKING,
	PARALLEL_RESCUING,         /* a lane gave up: what others hold is committed, and the first connection does all that is left over, in order */
	PARALLEL_STOPPING,         /* asked to stop: what was placed is committed */
	PARALLEL_LEAVING,          /* the first connection commits its own, and stops */
	PARALLEL_STOPPED,          /* stopped() was or will be told */
	PARALLEL_DEAD,             /* failed() was or will be told */
	PARALLEL_STATES
};

/* A batch that was taken. */
struct parcel {
	struct parcel *next;
	const struct batch *batch;      /* not to be touched once it is told consumed */
	struct position end;            /* of the batch; NONE: it is no boundary */
	uint64_t token;
	size_t bytes;
	size_t left;                    /* its transactions that are not done */
	bool is_load;
	bool has_works; /* some were placed */
	bool is_whole; /* it goes to the first connection, as it is */
	bool is_read;                   /* all of its transactions were placed; or it was given */
	bool is_eaten;                  /* given, and the first connection reads it no more */
};

/* A source transaction that was placed. */
struct work {
	struct work *next;              /* in the source's order */
	struct work *next_here;         /* in its lane */
	struct parcel *parcel;
	const struct change *first, *last;
	uint64_t number, lsn;
	int64_t commit_us;
	size_t bytes;
	unsigned lane;
	bool is_done;                   /* committed */
	uint64_t after[];               /* of each lane: committed up to here before it begins */
};
struct works { struct work *first, **last; };

/* What an inner target was given and has not told applied. */
struct gift {
	struct gift *next;
	uint64_t token;                 /* of a lane: number of its last work; of the first connection: where this is */
	struct batch *batch;            /* our own; NULL: the parcel's */
	struct parcel *parcel;          /* of a whole one */
	struct work *until;             /* rescued: up to this one */
};
struct gifts { struct gift *first, **last; };

/* A connection: a target of its own inside. */
struct strand {
	struct parallel *owner;
	unsigned n;                     /* 0: the first connection; the others from 1 */
	struct target *t;               /* NULL: none */
	bool is_ready, is_full;         /* full: it said AGAIN */
	bool has_failed, has_stopped;
	struct err error;
	char *name, *row;
	struct target_strand role;
	struct gifts gifts;
	struct works waiting, given;
	size_t given_bytes;
	uint64_t given_number, committed_number;
	uint64_t wanted;                /* somebody waits for its commit up to this number */
	struct ahead done; /* its transactions beyond the position; low: as of the last look */
	struct position promised; /* its row says so when it has committed up to promised_lsn */
	uint64_t promised_lsn;
};

struct parallel {
	struct dmsr_instance base;
	struct dmsr_target_host host;
	struct loop *loop;
	struct loop_task *task;
	const struct settings *settings;
	enum parallel_state state;
	struct err error;
	bool told, in_task, is_closed;
	bool is_ready_told;
	struct { void (*done)(void *arg, const struct err *e); void *arg; } letter;     /* the newest of the first connection */

	unsigned n;                     /* lanes beside the first connection */
	struct strand all[DEPEND_LANES_MAX + 1];
	struct strand *first;             /* all[0] */
	size_t lane_bytes;              /* what one may hold uncommitted */
	struct depend *depend;
	struct claimer *claimer;
	bool are_stale;                 /* something was loaded: the lanes do not know that */

	struct parcel *head, *tail, *cur;       /* oldest not applied; newest; not read */
	struct parcel *eaten;           /* newest told consumed that is not told applied; NULL: none is */
	const struct change *at;        /* of cur */
	size_t queued_bytes, queued_max;
	bool said_again, is_flushing, is_letting_go;
	bool is_cut;                    /* a lane failed, and what it held is not done */
	bool must_ask;                  /* what is known of the server's tables is asked anew before the next parcel */
	bool is_draining;               /* what comes next waits until all that was placed is committed */
	bool was_more;                  /* the newest parcel ends inside of a transaction */
	struct work *oldest, *newest;   /* not done, or behind one that is not */
	size_t nworks;
	size_t nfirst;                  /* gifts of the first connection that hold rows */
	size_t nloads;                  /* parcels of a load that it has: until they are done, the stream goes there too */
	struct position low; /* nothing is missing up to here */
	struct position durable; /* and so says a row: that, and no more, is told as applied */
	struct known {
		struct relation *rel;
		struct target_table *table;
	} known[16]; /* found lately, by the address of rel, which is held */

	struct map *counts;             /* "schema\0name" -> struct strand_counts */
	struct dmsr_table_counts *told_counts;
	struct dmsr_target_stat stat;
};

/* ---- target_parallel.c ---- */
void parallel_fail(struct parallel *p, const struct err *e);
void parallel_wake(struct parallel *p);
void parallel_set_state(struct parallel *p, enum parallel_state to, const char *why);
bool parallel_open(struct parallel *p);               /* true: all are ready */
void parallel_close(struct parallel *p);              /* all but the first */

/* ---- target_spread.c ---- */
void spread_take(struct parallel *p, const struct batch *b, uint64_t token);
bool spread_step(struct parallel *p);              /* true: something moved */
bool spread_is_idle(const struct parallel *p);     /* nothing is placed, nothing is with the first connection */
void spread_committed(struct strand *l, uint64_t number);
void spread_is_durable(struct parallel *p, const struct position *at);
void spread_foresee(const struct strand *l, uint64_t lsn, struct position *out); /* low, when this lane has committed up to lsn */
void spread_rescue(struct parallel *p);            /* PARALLEL_RESCUING: a step of it */
void spread_give_back(struct strand *l);          /* what it was given, it has not done */
void spread_tell(struct parallel *p);              /* applied and consumed, of what is so without a gap */
void spread_take_room(struct parallel *p);         /* resume, when there is room again */
void spread_note(struct parallel *p);              /* the first connection is to write the position down */
void spread_free(struct parallel *p);
void works_add(struct works *w, struct work *add);

#endif
