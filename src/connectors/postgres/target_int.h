/* target_int: what the parts of the target share: target.c (life, queue, one change after another), target_setup.c (connected -> ready), target_table.c
 * (what the server has), target_judge.c (whether that will do); in headers of their own the transactions (target_tx.h), tables with all their rows
 * (target_load.h) and changes of the stream (target_rows.h); and target_parallel.c, which runs several of them at once. Nobody else includes it.
 *
 * Everything happens in one loop_task: callbacks of the connection only note what came and post it. A part that must wait says so (target_ask,
 * STEP_WAIT); when the answer is there the same change is offered to it again, and it goes on from what it noted. */
#ifndef DMSR_POSTGRES_TARGET_INT_H
#define DMSR_POSTGRES_TARGET_INT_H
#include "conn.h"
#include "rights.h"
#include "target_ahead.h"
#include "target_catch.h"
#include "target_judge.h"
#include "target_load.h"
#include "target_rows.h"
#include "target_table.h"
#include "target_tx.h"

enum target_state {
	TARGET_NEW,             /* opened */
	TARGET_CONNECTING,      /* socket, login */
	TARGET_SETUP,           /* the lock of the job, dmsr.*, its own memory */
	TARGET_WORKING,         /* takes batches */
	TARGET_STOPPING,        /* asked to stop: finishes what it may commit */
	TARGET_STOPPED,         /* disconnected; stopped() was or will be told */
	TARGET_DEAD,            /* failed() was or will be told */
	TARGET_STATES
};

/* A batch that was taken and not yet told applied. */
struct item {
	struct item *next;
	const struct batch *batch;      /* NULL: told consumed */
	uint64_t token;
	size_t bytes;
	bool is_load;
	bool is_read;                   /* all of its changes were dealt with, or are by another */
	bool is_eaten;                  /* its bytes are not needed any more: told consumed when its turn comes */
	bool is_done;                   /* of the load: durable, or of no use */
	bool is_lent;                   /* of the load: who has it says when it is eaten, and done */
	bool begins_parts;              /* done when all of its table is: who keeps the stream has to send all of it again until then */
	const struct lane *lane;        /* who has it; NULL: nobody yet */
};

/* Both kinds of target begin with this (target_verbs.c). */
struct dmsr_instance {
	const struct dmsr_target *verbs;
};

/* What makes of a target one of several that write for the same job (target_parallel.c). It applies what it is given in the order in which it is given, with a
 * position row of its own; what needs a judgement, or somebody alone at the server, is the end of it: it fails with DMSR_EDATA or "target.conflict", and
 * then nothing of what it had not told applied is there. */
struct target_strand {
	void *ctx;
	const struct target *first;     /* who has the job's lock */
	const char *row;                /* job_uid of its position row */
	void (*describe)(void *ctx, uint64_t lsn, struct buf *out);     /* what that row says when it has applied all that it was given up to this */
};

struct target {
	struct dmsr_instance base;
	struct dmsr_target_host host;
	const struct target_strand *strand;     /* NULL: it is the only one, or the first */
	unsigned strands;               /* so many position rows for others are made at the start */
	char epoch[24];                 /* a number of this start: "UID/EPOCH/1" is the first one's row */
	struct loop *loop;
	const struct settings *settings;

	enum prepare prepare;
	enum policy on_ddl, on_constraint_error, on_data_error, on_missing_row;
	uint64_t commit_rows, commit_bytes, commit_interval_us;
	bool synchronous_commit;
	const char *replication_role;   /* auto on off */

	enum target_state state;
	struct err error;               /* why it is dead */
	bool told;                      /* failed() or stopped() was called */
	bool in_task, is_closed;        /* closed inside a callback of the host: freed when the task is left */
	bool is_replica;                /* session_replication_role is replica */
	char pid[12];                   /* of the server's process for it */

	struct pgconn *conn;
	bool in_pipeline;
	struct loop_task *task;
	struct loop_timer *timer;       /* of commits; during set-up: of the lock */
	struct loop_timer *patience;    /* with what should be answered soon (target_await) */
	uint64_t told_slow_us;          /* that it was not; 0: never */
	uint64_t heard;                 /* results of the transaction's that had come when it began */
	uint64_t lock_asked_us;
	bool has_lock;                  /* of the job; the lanes' is asked for */
	unsigned make_tries;

	/* a question outside of the pipeline */
	bool is_asking, may_fail;
	void (*then)(struct target *t);
	PGresult *answer;
	struct err answer_error;
	char sqlstate[6];

	struct item *head, *tail;       /* oldest not applied; newest */
	struct item *eaten;             /* newest told consumed that is still there; NULL: none is */
	struct item *cur;               /* being read; NULL: all are */
	const struct change *at;        /* next change of cur */
	uint64_t seq;                   /* its number, from 1 */
	size_t queued_bytes;            /* of what was not read yet */
	bool said_again;
	bool is_flushing;               /* flush() was called and nothing came since */
	bool is_letting_go;             /* let_go() was: when all is read it is to be consumed */

	struct map *tables;             /* "schema\0name" -> struct target_table */
	struct position saved;          /* what dmsr.positions says */
	struct position durable;        /* and what is on the server's disk for certain: that, and no more, is told as applied */
	struct ahead ahead;             /* what it said at the start: transactions that are not to be applied again */
	bool load_done;
	struct lane *lane;              /* it is one; NULL: it is the instance that the host knows */
	struct lanes *lanes;            /* else its lanes */
	struct load load;               /* of a lane */
	struct ddl_run *run;
	struct tx tx;
	struct careful careful;
	struct target_table *nets;      /* that have gathered changes */
	struct arena net_arena;
	struct buf net_key;             /* of the change at hand */
	struct set *set;
	struct target_table *counted;   /* that have counts to tell */
	struct target_table *last_table;        /* of the last row change, */
	struct relation *last_rel;      /* which was of this shape; held */
	struct stmt_cache *statements;
	struct bind *bind;
	struct target_table **truncates;
	size_t ntruncates;
	struct dmsr_loaded *loaded;
	bool *made;                     /* we made that table */
	bool *forgotten;                /* the job began anew since then (LOAD_FORGOTTEN) */
	uint64_t *until;                /* its parts are of snapshots up to this one; 0: of one */
	bool *moves;                    /* and its rows may have moved between them */
	size_t nloaded;                 /* what dmsr.loads has of this job */
	struct dmsr_begun *begun;       /* of those: what there is of them */
	uint64_t *begun_rows;           /* in these parts; BEGUN_GONE: the load was lost, or began anew; BEGUN_PAST: the stream is past one of them */
	size_t nbegun;
	size_t nknown;                  /* and, behind those, tables whose load was begun, lost or forgotten: rows of it may be there */
	struct map *known;              /* all of them by relation_key() */
	struct build {                  /* behind the load; of the instance: */
		uint32_t made, total;
		uint64_t began_us;
		struct loop_timer *timer;
		bool is_due;
		/* of a lane, as the server has told last: */
		char phase[64];         /* "": nothing */
		double percent;
		double seen_percent;    /* when that phase was seen first, */
		uint64_t seen_us;       /* at this time */
	} build;
	struct dmsr_target_stat stat;
};

/* ---- target.c ---- */
extern const struct dmsr_target target_strict;  /* one connection; instances are struct target */
extern const struct dmsr_target target_parallel; /* several (target_parallel.c) */
/* The instance is dead: everything is rolled back by the server. failed() comes from the task. */
void target_fail(struct target *t, const struct err *e);
enum policy target_policy(const struct target *t, const struct err *e);  /* what is done with the row that is to blame */
void target_fail_row(struct target *t, struct err *e);  /* because of rows: the policy for such errors may be to try again */
/* Around a failpoint, where a test lets us die: true: the instance has failed. */
bool target_died(struct target *t, bool has_failed);
/* What was waited for has come: the change at hand is offered again. Safe from any callback of the connection. */
void target_wake(struct target *t);
/* One question outside of the pipeline; `then` runs in the task and finds t->answer. target_ask: an error is the end of the instance. target_try: `then` looks
 * at t->answer (NULL: failed), t->answer_error and t->sqlstate. */
void target_ask(struct target *t, const char *sql, int n, const char *const *values, void (*then)(struct target *t));
void target_try(struct target *t, const char *sql, int n, const char *const *values, void (*then)(struct target *t));
void target_await(struct target *t);            /* its answer should come soon, and somebody is told if it does not */
static inline bool target_is_alive(const struct target *t) { return t->state == TARGET_WORKING || t->state == TARGET_STOPPING; }

void target_work(struct target *t);             /* set up: says ready() */
void target_tell_consumed(struct target *t);    /* what is eaten, in order */
void target_pass_read(struct target *t);        /* the next that was not read is at hand */

/* For target_lanes.c: an instance of its own, with t's settings, and how it is fed; target_close ends it. */
struct target *target_new(const struct settings *s, const struct dmsr_target_host *host, struct lane *lane);
bool target_has_room(struct target *t); /* false: the host's resume() comes */
void target_take(struct target *t, const struct batch *b, uint64_t token);
void target_close(struct target *t);

/* ---- target_setup.c ---- */
void target_setup(struct target *t);    /* ends in target_work or target_fail */
void target_setup_again(struct target *t); /* the timer, in TARGET_SETUP */

/* ---- target_table.c ---- */
struct target_table *table_get(struct target *t, struct relation *rel);   /* found or made; rel is in force from now on */
void table_forget_all(struct target *t);
void table_reset(struct target *t, struct target_table *tb);                    /* not described any more; its statements are given up */
static inline bool table_is_ours(const struct target *t, const struct target_table *tb) { return judge_is_ours(t->prepare, tb); }
void table_tell_triggers(struct target *t, struct target_table *tb);           /* once a table: some work while we write */

/* Counts of the transaction that is open. They count when it is durable, and not when it is rolled back. */
struct dmsr_table_counts *table_counts(struct target *t, struct target_table *tb);
void table_counts_settle(struct target *t, bool is_durable);

#endif
