/* target_tx: the transactions in which a target writes what it is given: target_tx.c; what becomes of one that was refused: target_careful.c, target_mend.c. */
#ifndef DMSR_POSTGRES_TARGET_TX_H
#define DMSR_POSTGRES_TARGET_TX_H
#include "target_table.h"

struct target;
struct item;

enum step { STEP_DONE, STEP_WAIT };

/* The target transaction that changes of the stream are written in. */
enum tx_state {
	TX_NONE,
	TX_OPEN,                /* BEGIN was sent */
	TX_CHECKING,            /* position and sync were sent: waiting until all is known to be right */
	TX_COMMITTING,          /* COMMIT was sent */
};

enum { MUST_FIND = UINT32_MAX };          /* of must_hit: one row, or it is in no part of the table's load, and has to be loaded again */
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
	uint64_t sent_us, took_us;      /* COMMIT: when the newest was sent; what the newest that was answered took */
	uint64_t lasted_us;             /* the last one that waited */
	struct position whole;          /* behind the last whole source transaction that was dealt with */
	int64_t commit_us;              /* its commit time at the source */
	unsigned syncs;                 /* not answered */
	uint64_t nresults;              /* that have come in all */
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
	const struct target_table *lost; /* its row at hand is in no part of its load (MUST_FIND): that has to begin anew */
	uint64_t *dead;                 /* of this transaction */
	size_t ndead;
	unsigned conflicts;
	char *mend;                     /* SQL */
	char *types;                    /* SQL that makes the types it is about, should they be missing; NULL: none, or it was tried */
	uint64_t mended_seq;            /* the change it was for; 0: none */
};

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

#endif
