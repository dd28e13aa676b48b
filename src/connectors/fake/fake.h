/* fake: a scripted source and a recording target, for the tests alone; no part of the daemon. The tests register the plugin "fake" (plugins_add) or
 * call its vtables, and hold the two ends in their hands: a script, which says what the source sends, and a server, which keeps what the target
 * was given. Both outlive every instance: a kill is an instance that is closed, a restart a new one that finds its script or server by name.
 *
 * What is sent can be told apart: every row of a script has a number of its own (column id), counted from 1 in the order of the script. So a server
 * knows at the end whether each came exactly once and in order (fake_server_check). */
#ifndef DMSR_FAKE_H
#define DMSR_FAKE_H
#include "dmsr.h"

extern const struct dmsr_plugin dmsr_plugin_fake;

/* ---- small things ---- */
enum { FAKE_SERVER_ID = 7,
	FAKE_LSN_STEP = 0x100,
	FAKE_LONG_MS = 120000 /* for what will come: nobody waits so long, but in vain, or where many tests share a slow disk */ };
struct relation *fake_relation(const char *name, uint32_t id); /* public.NAME (id bigint primary key, v text); the caller's reference */
struct position fake_position(uint64_t lsn, uint64_t event); /* event POSITION_WHOLE: flush is behind it */
/* Appends a row (c u r: after, d: before); pad bytes of text in v. Counts it in b->bytes. */
void fake_add_row(struct batch *b, enum change_op op, struct relation *rel, uint64_t event, int64_t id, size_t pad);
void fake_add_rows(struct batch *b, struct relation *rel, int64_t first_id, uint32_t n); /* OP_ROWS, COPY text */
int64_t fake_row_id(const struct change *ch);                   /* column id */
/* Runs the loop until `until` is true or the time is over: false then. until NULL: for that time. */
bool fake_run(struct loop *l, bool (*until)(void *arg), void *arg, unsigned limit_ms);
void fake_settle(struct loop *l);       /* runs it until nothing moves but timers that are not due */

/* ---- a disk ---- */
/* A log that lasts (struct dmsr_log) and a place for positions, both written in one order, as the state store does it. What was not written yet when it is
 * closed is lost, as by a power cut. */
struct fake_disk;
struct fake_disk *fake_disk_new(void);
void fake_disk_free(struct fake_disk *d);
const struct dmsr_log *fake_disk_open(struct fake_disk *d, struct loop *l);     /* the log as it is; valid until the close */
void fake_disk_close(struct fake_disk *d);                      /* no callback comes any more */
void fake_disk_hold(struct fake_disk *d, bool hold);            /* nothing is done while it is held */
void fake_disk_slow(struct fake_disk *d, unsigned max_ops);     /* in each turn 0 to max_ops operations are done, by chance; 0: all */
void fake_disk_fail(struct fake_disk *d, unsigned after);       /* after so many more an append fails, and all later ones; UINT_MAX: none */
void fake_disk_damage(struct fake_disk *d, uint64_t seq);       /* changes a byte of the entry */
/* *where becomes p when it is durable; then done (may be NULL). */
void fake_disk_put(struct fake_disk *d, struct position *where, const struct position *p, void (*done)(void *arg), void *arg);
struct fake_disk_stat { uint64_t appends, reads, entries, bytes, first, last; };
void fake_disk_stat(const struct fake_disk *d, struct fake_disk_stat *out);

/* ---- a script: what a source sends ---- */
/* Steps are walked in order; an instance begins behind what its start() says is had, in mid-transaction too. It emits a batch a turn, keeps what was
 * not taken, and asserts that it is confirmed only forwards, only what it sent, and only what the test calls durable. At the first start it puts the
 * note "started" and waits until it is durable. */
struct fake_script;
struct fake_script *fake_script_new(const char *name);          /* option `script`; found until it is freed */
void fake_script_free(struct fake_script *s);
/* Rows of a table that are there already: LOAD_BEGIN, so many batches of OP_ROWS, LOAD_END. */
void fake_script_load(struct fake_script *s, struct relation *rel, unsigned batches, uint32_t rows_each);
/* The same in a turn: it begins when every target has applied all before it, and nothing is sent before its end. Whoever walks the script may take turns. */
void fake_script_turn(struct fake_script *s, struct relation *rel, unsigned batches, uint32_t rows_each);
void fake_script_load_done(struct fake_script *s);              /* OP_LOAD_DONE; behind the last step a full load is finished() */
/* A transaction of n changes, per_batch of them in a batch. */
void fake_script_txn(struct fake_script *s, enum change_op op, struct relation *rel, unsigned n, unsigned per_batch, size_t pad);
void fake_script_join(struct fake_script *s);   /* the end of the newest transaction goes out with the beginning of the next, in one batch */
void fake_script_schema(struct fake_script *s, struct relation *old, struct relation *rel); /* a transaction with that word and one row of rel */
void fake_script_heartbeat(struct fake_script *s);
void fake_script_gate(struct fake_script *s);                   /* waits here until it is opened */
void fake_script_open_gate(struct fake_script *s);              /* the first that is closed, for good */
void fake_script_fail(struct fake_script *s, const struct err *e, unsigned times); /* failed() here so often, then goes on */
/* What its server says it has written: up to there; 0: all steps. FAKE_UNASKED: it was not asked yet. */
#define FAKE_UNASKED UINT64_MAX
void fake_script_wrote(struct fake_script *s, uint64_t lsn);
void fake_script_durable(struct fake_script *s, bool (*is_durable)(void *arg, const struct position *p), void *arg);
struct fake_script_stat {
	unsigned opened, started, stopped, failed, live;        /* instances; live: not closed */
	uint64_t batches, refused;                              /* emit: OK, AGAIN */
	struct position from, emitted, confirmed;               /* of the newest start; newest */
	enum dmsr_mode mode;
	size_t nloaded, nbegun;                                 /* of the newest start */
	struct position begun_at;                               /* of the first of those, */
	size_t begun_parts;                                     /* and so many are there of it */
	bool load_done, is_paused, is_at_end;                   /* at_end: of the script */
	uint64_t end_lsn;                                       /* of the newest step */
	int64_t rows;                                           /* in all its steps: ids 1 .. rows */
};
void fake_script_stat(const struct fake_script *s, struct fake_script_stat *out);

/* ---- a server: where a target's rows go ---- */
struct fake_row { int64_t id; uint64_t lsn, event; uint8_t op; };
struct fake_table {
	char *schema, *name;
	struct position at;
	uint64_t rows;
	size_t rows_before;             /* of the stream, that it had when the table was loaded */
	unsigned loads;
	bool is_loaded;
};
struct fake_server {
	/* How it behaves: the test changes it at any time; fake_server_go makes a change felt. */
	bool keeps;                     /* position and loads with the rows, and passes over what it knows */
	bool stalls;                    /* takes nothing more, does nothing more */
	bool is_silent;                 /* never says consumed */
	unsigned queue;                 /* batches that it takes before it says AGAIN; 0: 8 */
	unsigned commit_every;          /* batches; what is held is also committed by flush, a stop, and the end of a table. 0: each when it may be */
	unsigned fail_at;               /* the so many-th batch that is read from now on fails; 0: none */
	unsigned die_at;                /* the so many-th commit from now on is durable, but the instance dies before it says so; 0: none */
	/* So many batches from now on, inside of a transaction of which there is nothing to store yet, are told applied while it stands before that; then it
	 * stalls. 0: they wait for the end. */
	unsigned pass_over;
	bool refuses_start;             /* failed() instead of ready() */
	struct err fail_with;           /* for all of these; else "target.fake" */
	int64_t bad_row;                /* this row is refused: a dead letter; 0: none */
	/* What it has. */
	struct position applied;
	bool load_done;
	const struct dmsr_begun *begun; /* as the test has it: what it says of loads that were not ended */
	size_t nbegun;
	struct fake_row *rows;          /* of the stream, in the order of their commits */
	size_t nrows, caprows;
	struct fake_table *tables;
	size_t ntables;
	unsigned ddl, dead;
	/* What happened. */
	unsigned opened, live, batches, commits, flushes;
	uint64_t refused;               /* apply: AGAIN */
	/* its own */
	char *name;
	struct fake_server *next;
	struct fake_target *instances;
};
struct fake_server *fake_server_new(const char *name);          /* option `server`; found until it is freed */
void fake_server_free(struct fake_server *v);
void fake_server_go(struct fake_server *v);
const struct fake_table *fake_server_table(const struct fake_server *v, const char *name);
/* Has it every change of the script once, and in order, and every table loaded whole? NULL: yes. Else what is wrong, in a static buffer; what is merely
 * not there yet begins with "missing". */
const char *fake_server_check(const struct fake_server *v, const struct fake_script *s);

/* ---- answers to questions (check, discover, drop, look), by the name of the script or server that the options name; none: all is well ---- */
struct fake_answers {
	const struct dmsr_check *checks;
	size_t nchecks;
	struct relation *const *rels;
	size_t nrels;
	const char *const *left;
	size_t nleft;
	struct err error;               /* set: the question itself fails */
	bool is_mute;                   /* never answers */
	struct dmsr_kept kept;          /* what a look sees; slot NULL: nothing */
	unsigned asked, dropped, looks, live;
	struct position looked_at;      /* of the newest look */
	size_t nrels_given;             /* to the newest check */
};
void fake_answers_set(const char *name, struct fake_answers *answers); /* NULL: forget */

#endif
