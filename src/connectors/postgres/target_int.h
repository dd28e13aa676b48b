/* target_int: what the parts of the target share: target.c (life, queue, one change after another), target_setup.c (connected -> ready), target_load.c,
 * target_prepare.c (tables before and after their load), target_lanes.c (loads side by side), target_finish.c (what comes behind all of
 * them), target_tx.c (target transactions, pipeline), target_apply.c (row changes), target_table.c (what the server has), target_judge.c (whether that will
 * do), target_ddl.c (changed columns), target_shape.c (what they were); and target_parallel.c, which runs several of them at once. Nobody else includes it.
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
#include "target_table.h"

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

enum step { STEP_DONE, STEP_WAIT };

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

/* What a lane (target_lanes.c) loads: a table, in one transaction; or of a divided one its beginning, a part, or its end. */
enum load_state {
	LOAD_NONE,
	LOAD_PREPARING,         /* types, table, truncate */
	LOAD_OPEN,              /* in its transaction; rows may come */
	LOAD_ENDING,            /* COPY ended, key, dmsr.loads, COMMIT */
};
enum copy_state { COPY_NONE, COPY_OPENING, COPY_OPEN, COPY_ENDING };
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
	bool keeps_parts;               /* each is noted with its rows, so that the next run can go on with the load */
	uint32_t part;
	bool goes_on;                   /* with parts that are there */
	uint64_t since;                 /* of the oldest of its parts */
	bool is_ours;                   /* this job has loaded it, or begun to: what is there may be taken away */
	bool is_fresh;                  /* made or truncated in this transaction */
	enum how how;
	const struct change *word;      /* the begin or end that was dealt with last; NULL: that was passed */
};

/* The target transaction that changes of the stream are written in. */
enum tx_state {
	TX_NONE,
	TX_OPEN,                /* BEGIN was sent */
	TX_CHECKING,            /* position and sync were sent: waiting until all is known to be right */
	TX_COMMITTING,          /* COMMIT was sent */
};

enum sent_what { SENT_QUIET, SENT_ROW, SENT_POSITION, SENT_COMMIT, SENT_DESCRIBE, SENT_SHAPE, SENT_DDL, SENT_RULES };
struct sent {
	uint8_t what;                   /* enum sent_what */
	uint8_t op;                     /* enum change_op */
	uint32_t must_hit;              /* so many rows; 0: any number */
	struct target_table *table;
	uint64_t first_seq, last_seq;   /* rows: it was for changes of the table among these */
};

/* A place in the stream from where it may be read again. */
struct mark {
	struct item *item;              /* NULL: behind all that came */
	const struct change *at;
	uint64_t seq;
	bool in_source;
	struct position whole;
	int64_t commit_us;
	uint64_t rows, bytes;
	size_t ntruncates;
};

struct tx {
	enum tx_state state;
	bool in_source;                 /* between a source transaction's begin and commit */
	uint64_t rows, bytes;
	uint64_t since_sync;            /* bytes since the last sync */
	unsigned unsynced;              /* statements since then */
	uint64_t began_us, ended_us;
	struct position committing;     /* what was sent as the position */
	bool is_lazy;                   /* its COMMIT does not wait for the disk */
	bool must_last;                 /* it is to: nothing else may be committed for long */
	uint64_t lasted_us;             /* the last one that waited */
	struct position whole;          /* behind the last whole source transaction that was dealt with */
	int64_t commit_us;              /* its commit time at the source */
	unsigned syncs;                 /* not answered */
	bool is_bound;                  /* the planner is told what to avoid */
	struct mark begin, hold;        /* where it began; its last savepoint (dmsr_hold), or the same */
	bool has_savepoint;
	bool wants_hold, is_holding;    /* a savepoint at the next change; its way there */
	bool gave_back;                 /* batches from the begin on were given back: it cannot be read again from there */
	size_t held_bytes;              /* of batches that were read in it and not given back */
	uint64_t first_seq, last_seq;   /* what the next statement is for; 0: the change at hand */
	struct err error;               /* the first since the mark */
	char sqlstate[6];               /* of it; "": it was not the server's */
	struct sent refused;            /* what it was about */
	struct sent *sent;              /* ring: what was sent */
	size_t sent_first, sent_count, sent_cap;
};

/* What was refused is done again with care (target_careful.c). */
enum careful_state {
	CAREFUL_NONE,
	CAREFUL_TRYING,         /* a row was sent, in a savepoint */
	CAREFUL_UNDOING,        /* it was refused, and rolled back */
	CAREFUL_TELLING,        /* it is becoming a dead letter */
	CAREFUL_TOLD,           /* it is one */
	CAREFUL_MENDING,        /* the table is altered so that it takes it */
};
enum rolling {                  /* what was sent, and is not answered */
	ROLLING_NONE,
	ROLLING_BACK,           /* to the savepoint */
	ROLLING_BACK_WHOLE,     /* to the begin */
};
enum { CAREFUL_RANGES = 16 };
struct careful_range {
	struct target_table *table;     /* NULL: of every table */
	uint64_t first, last;           /* its changes among these go one by one */
	bool had_error;
};
struct careful {
	enum careful_state state;
	struct careful_range ranges[CAREFUL_RANGES];
	unsigned nranges;
	enum rolling rolling;
	struct err error;               /* why the row at hand was refused */
	char sqlstate[6];
	struct dmsr_dead_letter letter;
	bool is_dead;                   /* the row at hand */
	uint64_t *dead;                 /* of this transaction */
	size_t ndead;
	unsigned conflicts;
	char *mend;                     /* SQL */
	uint64_t mended_seq;            /* the change it was for; 0: none */
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
	struct target_table *last_table;        /* of the last row change */
	struct stmt_cache *statements;
	struct bind *bind;
	struct target_table **truncates;
	size_t ntruncates;
	struct dmsr_loaded *loaded;
	bool *made;                     /* we made that table */
	bool *forgotten;                /* the job began anew since then (LOAD_FORGOTTEN) */
	uint64_t *until;                /* its parts are of snapshots up to this one; 0: of one */
	size_t nloaded;                 /* what dmsr.loads has of this job */
	struct dmsr_begun *begun;       /* of those: what there is of them */
	uint64_t *begun_rows;           /* in these parts; BEGUN_GONE: the load was lost, or began anew; BEGUN_PAST: the stream is past one of them */
	size_t nbegun;
	size_t nknown;                  /* and, behind those, tables whose load was begun, lost or forgotten: rows of it may be there */
	struct map *known;              /* all of them by relation_key() */
	struct build {                  /* behind the load; of the instance: */
		uint32_t made, total;
		struct loop_timer *timer;
		bool is_due;
		/* of a lane, as the server has told last: */
		char phase[64];         /* "": nothing */
		double percent;
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

/* ---- target_tx.c ---- */
enum step tx_begin(struct target *t);           /* DONE: a transaction is open in the pipeline */
enum step tx_out(struct target *t);             /* DONE: the pipeline, in which nothing is open, is left */
enum step tx_let_go(struct target *t);          /* DONE: what is open is not read again from batches, and all that were read are eaten */
enum step tx_commit(struct target *t);          /* DONE: what was open is committed, and told */
enum step tx_sync(struct target *t);            /* DONE: all that was sent is answered */
bool tx_should_commit(struct target *t);
uint64_t tx_commit_due(struct target *t);       /* microseconds until tx_should_commit becomes true by itself; 0: it will not */
void tx_reached(struct target *t, const struct position *p); /* all up to here was dealt with, and is a boundary */
/* ch begins a source transaction whose end is not here yet: what is open should not have to wait for that. */
bool tx_should_end_before(const struct target *t, const struct batch *b, const struct change *ch);
/* A savepoint, from which the rest of a transaction may be read again when something is refused; batches before it are given back when they are many. */
bool tx_should_hold(const struct target *t);
enum step tx_hold(struct target *t);
void tx_came(struct target *t, struct item *it); /* a batch, behind all that came before */
void tx_rewind(struct target *t, bool is_whole); /* it was rolled back, wholly or to the savepoint: the next change is the one behind that */
void tx_fail(struct target *t, const struct err *e); /* by the policy for its class */
/* A row that cannot be sent: as if the server had refused it. */
void tx_refuse(struct target *t, struct target_table *tb, enum change_op op, const struct err *e);
void tx_note(struct target *t, enum sent_what what, enum change_op op, struct target_table *tb, unsigned must_hit); /* before each pgconn_pipeline_* */
int tx_sql(struct target *t, enum sent_what what, struct target_table *tb, const char *sql, int n, const char *const *values);
enum step tx_describe(struct target *t, struct target_table *tb);
/* DONE: there is room for more in the connection's buffer. Sends a sync once in a while. */
enum step tx_room(struct target *t);
void tx_fini(struct target *t);

/* ---- target_careful.c, target_mend.c ---- */
bool careful_is_due(const struct target *t);    /* something was refused: careful_recover comes next */
enum step careful_recover(struct target *t);
bool careful_wants(struct target *t, const struct target_table *tb);    /* is the change at hand to go by careful_row? */
enum step careful_row(struct target *t, struct target_table *tb, const struct change *ch);      /* DONE: it is written, or dead (careful.is_dead) */
void careful_pass(struct target *t);            /* the next change is at hand */
void careful_committed(struct target *t);
void careful_forget(struct target *t);          /* what is known of the server's tables */
void careful_fini(struct target *t);
bool mend_begin(struct target *t, const struct target_table *tb, const struct change *ch);      /* true: CAREFUL_MENDING */
enum step mend_step(struct target *t);
void mend_identities(struct buf *out, const struct target_table *tb);   /* the statement that lets its identity columns be written */

/* ---- target_net.c, target_set.c ---- */
bool net_is_free(const struct target *t, const struct target_table *tb); /* may its changes be taken out of the order of other tables? */
bool net_add(struct target *t, struct target_table *tb, const struct change *ch); /* false: it must be sent alone */
void net_flush(struct target *t, struct target_table *tb);
void net_flush_all(struct target *t);
void net_drop_all(struct target *t);
void net_free(struct target_table *tb);
void set_init(struct target *t);
void set_fini(struct target *t);
void set_send(struct target *t, struct target_table *tb, const struct change *rows, size_t n);

/* ---- target_rules.c ---- */
void rules_ask(struct target *t, struct target_table *tb);              /* in the pipeline */
void rules_told(struct target_table *tb, const PGresult *res);
void rules_forget(struct target_table *tb);

/* ---- target_stmt.c ---- */
enum { STMT_NAME_MAX = 16 };
/* The prepared statement for this shape; prepared now if it is not there. */
void stmt_get(struct target *t, struct target_table *tb, const struct shape *sh, char name[STMT_NAME_MAX]);
void stmt_forget(struct target *t, const struct target_table *tb);
void stmt_forget_all(struct target *t);
void stmt_init(struct target *t);
void stmt_fini(struct target *t);

/* ---- target_load.c, target_prepare.c ---- */
enum step load_step(struct target *t, const struct change *ch);
/* In dmsr.loads: a load of the table was begun, and none of its parts is there. Parameters: the job's uid, schema, name, made, and LOAD_BEGUN or LOAD_LOST. */
extern const char load_begin_sql[];
#define BEGUN_GONE UINT64_MAX
#define BEGUN_PAST (UINT64_MAX - 1)
void load_prepare(struct target *t);            /* from LOAD_PREPARING to LOAD_OPEN; if it is divided, to LOAD_NONE */
void load_prepare_part(struct target *t);       /* from LOAD_PREPARING to LOAD_OPEN */

/* ---- target_lanes.c: of the instance ---- */
void lanes_init(struct target *t);
void lanes_fini(struct target *t);
void lanes_close(struct target *t);             /* all at once; what they hold is rolled back by the server */
bool lanes_are_at_work(const struct target *t);
/* The item at hand, of a load. DONE: it was lent, or is of no use. */
enum step lanes_take(struct target *t);
enum step lanes_settle(struct target *t);       /* DONE: no load is open: what has its end is committed, the others are void */
/* A change came that the parts of a load that went on cannot do with: we die, and the table is loaded again. */
enum step lanes_lose(struct target *t, const struct target_table *tb);
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
const struct ddl *ddlrun_under_way(const struct target *t);                     /* of that; NULL: nothing */

/* ---- target_build.c: how far that is ---- */
void build_begin(struct target *t, size_t total);
void build_end(struct target *t);
void build_statement(struct target *t);         /* a lane begins one, */
void build_made(struct target *t);              /* or has made it */
void build_look(struct target *t);              /* now and then: asks the server */
void build_stat(const struct target *t, struct dmsr_target_stat *out);

/* ---- target_apply.c ---- */
enum step apply_table(struct target *t, struct target_table *tb);        /* DONE: described, there, and fit for our rows */
enum step apply_row(struct target *t, const struct change *ch);
enum step apply_truncate(struct target *t, const struct change *ch);
bool apply_is_known(const struct target *t, const struct target_table *tb, const struct change *ch); /* is it in the target already? */
/* May rows of the table be newer than the change? (target_catch.h) */
static inline bool apply_catches(const struct target_table *tb, const struct change *ch) { return ch->txn && ch->txn->lsn < tb->until_lsn; }
void apply_init(struct target *t);
void apply_fini(struct target *t);
/* Which values a change brings: after, then before; PARAM_TEXT or none. */
void apply_shape(const struct target_table *tb, const struct change *ch, uint8_t *shape);
int apply_send(struct target *t, struct target_table *tb, const struct change *ch, struct err *e);

/* ---- target_ddl.c ---- */
enum step ddl_step(struct target *t, const struct change *ch);
/* DONE: the table, which is described, has been made fit for its relation as the policy has it. Else it was altered, or is not to be. */
enum step ddl_adopt(struct target *t, struct target_table *tb);

/* ---- target_shape.c ---- */
void shape_ask(struct target *t, struct target_table *tb);              /* in the pipeline */
void shape_told(struct target *t, struct target_table *tb, const PGresult *res);
void shape_forget(struct target_table *tb);                             /* to be asked again */
/* The relation in force is the table's shape from now on: its text, for dmsr.loads (the caller's to free); or written in the pipeline. */
char *shape_take(struct target_table *tb);
void shape_write(struct target *t, struct target_table *tb);

#endif
