/* source_int: what the parts of the PostgreSQL source share. source.c owns the instance, its phase, what goes out and how it ends; each other part is a
 * stretch of the way and hands over to the next:
 *
 *   source.c -> source_prepare.c -> source_look.c -> source_slot.c -> source_load.c (source_read.c, source_cut.c, source_rest.c) -> source_stream.c
 *               (source_new.c)                                                                                                 (source_turns.c)
 *   beside all that source_watch.c asks about the slot, and while changes come has source_look.c look again
 *
 * Every callback of a connection may find the instance failed or stopping only by being called no more: both free the connections. */
#ifndef DMSR_POSTGRES_SOURCE_INT_H
#define DMSR_POSTGRES_SOURCE_INT_H
#include "catalog.h"
#include "conn.h"
#include "pgoutput.h"
#include "rights.h"
#include "source.h"
#include "source_history.h"
#include "source_sql.h"

enum source_phase {
	SOURCE_IDLE,            /* opened */
	SOURCE_CONNECTING,      /* names, TLS, login */
	SOURCE_PREPARING,       /* who is the server, which tables, publication, slot; snapshot */
	SOURCE_LOADING,         /* rows of the snapshot */
	SOURCE_STREAMING,       /* changes; and rows, while there is a load beside it */
	SOURCE_FINISHED,        /* full load: everything was emitted */
	SOURCE_STOPPING,        /* the last status is on its way */
	SOURCE_STOPPED,
	SOURCE_FAILED,
	SOURCE_PHASES
};

struct source_options {
	const char *publication, *slot, *origin;        /* the first two NULL: names of our own */
	bool failover, follow_failover, keyless, adds_new, binary;
	size_t batch_bytes, spool_memory;
	unsigned load_connections;
	int64_t load_part_bytes;        /* 0: tables are not cut */
	uint64_t spool_disk;
	int64_t status_ms, heartbeat_ms;
};

/* A table whose rows are those of the snapshot at lsn. id 0: loaded in an earlier run, and not in the catalog under that name. */
struct source_loaded {
	uint32_t id;
	uint64_t lsn;
	bool is_earlier;                /* in an earlier run */
};

struct source_rest;     /* source_rest.c */
struct gone_tables;     /* source_gone.c */
struct source_note;     /* a note on its way to the host */
struct load;            /* source_load.c */
struct turns;           /* source_turns.c */
struct stream;          /* source_stream.c */
struct watch;           /* source_watch.c */
struct look;            /* source_look.c */

struct outlet {
	struct batch **queue;
	size_t n, cap;
	bool blocked;                   /* emit said AGAIN */
};
enum { OUTLET_STREAM, OUTLET_LOAD /* beside the stream; else the first serves both */, OUTLETS };

struct source {
	struct dmsr_source_host host;
	struct settings *settings;
	const struct dmsr_tables *tables;
	struct source_options opt;
	enum source_phase phase;
	char *anew;                     /* what to do where it cannot go on: a hint */
	const char *doing;              /* finer than the phase, for stat */

	/* what start() said */
	enum dmsr_mode mode;
	struct position from, applied;
	bool is_beside;                 /* the load goes beside the stream */
	bool is_held;                   /* and of the stream the streamer is given nothing before it is over */
	bool is_loading;                /* so, and it is not over: between two rounds, too */
	bool ends_first;                /* tables are to be loaded, in the next run: this one reads the end of a transaction */
	bool ends_alone;                /* it does nothing else, for the mode is full-load: there is none to be loaded, perhaps */
	bool is_load_kept;              /* by the streamer, for readers that are not known here */
	bool takes_turns;
	struct map *loaded, *loaded_by_id;      /* relation_key -> struct source_loaded; those of a known oid */
	uint64_t loaded_server;         /* of those of earlier runs; 0: none, or not known */
	struct source_rest *rests;              /* loads of an earlier run that were not ended */
	size_t nrests;
	bool load_done;
	uint64_t load_done_at;          /* OP_LOAD_DONE is due when the stream has passed this; 0: it is not due */

	/* the server */
	int version;                    /* 150004 */
	uint64_t system;
	uint32_t timeline;
	void (*identified)(struct source *s);
	void (*verified)(struct source *s);
	void (*gone_told)(struct source *s);
	void (*new_judged)(struct source *s);
	void (*unmatched_told)(struct source *s);
	int64_t sender_timeout_ms;      /* 0: none */
	uint64_t began_lsn;             /* the server's newest when this run looked first */
	struct pgconn *sql, *repl, *loader;
	struct pgconn *exporter;        /* holds a snapshot until the loader has it, where repl is the stream's */
	struct catalog *catalog, *load_catalog;         /* being read: on the SQL connection, on the loader */
	struct relation **rels;         /* the tables, by the newest catalog that was read */
	size_t nrels;
	struct map *rel_by_id;          /* -> places in rels */
	bool leaves;                    /* partitions one by one, not their root */
	struct map *left_out;           /* oids of new tables that cannot be followed; NULL: none */
	struct history *history;        /* what each was like when that was looked at; NULL: not yet */
	struct gone_tables *gone;       /* tables that are the job's no more, whose changes may still come; NULL: not yet */

	/* publication and slot */
	char *publication, *slot;
	bool publication_is_new;
	char *near_publication;         /* it was named, is not there, and this one may be meant; NULL: none is like it */
	bool sends_generated;           /* it publishes generated columns too */
	char *add_sql;                  /* what puts new tables into it */
	uint64_t start_lsn;             /* the slot's consistent point */
	char *snapshot;                 /* exported by s->repl, of the state at snapshot_lsn */
	uint64_t snapshot_lsn;

	uint32_t asked;                 /* the table that the catalog is asked about; 0: none */
	bool asked_is_sent, asked_is_name;      /* not itself, but who has its name of source_look_name */
	struct map *unknown;            /* oids that were asked about in vain */
	char *asked_pattern;
	const char *asked_include[1];
	struct dmsr_tables asked_tables;

	bool is_stream_due;             /* it was begun, beside the load */
	unsigned rounds;                /* of the load, since one that read a table; 0: the first */
	void (*loader_next)(struct source *s);
	struct load *load;
	struct turns *turns;            /* NULL: none */
	struct stream *stream;
	struct watch *watch;
	struct look *look;
	struct source_note *notes;

	/* what goes out */
	struct outlet outlets[OUTLETS];
	bool paused;                    /* pause() */
	struct loop_task *turn;
	struct err failure;
	bool tell_failed, tell_finished, tell_stopped, tell_loaded;
};

/* ---- source.c ---- */
/* The one setter. */
void source_enter(struct source *s, enum source_phase phase, const char *why);
/* The instance is dead: connections are closed now, failed() is called at the next turn. */
void source_fail(struct source *s, const struct err *e);
/* The job begins anew at once: a word of what was found. */
void source_fail_again(struct source *s, const char *what, const char *why);
void source_fail_because(struct source *s, int code, const char *id, const char *hint, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Queues the batch (taken) and hands on what the host takes. False: the host is full: stop reading until source_resumed is called. */
bool source_emit(struct source *s, struct batch *b);
static inline bool source_may_emit(const struct source *s) { return !s->outlets[OUTLET_STREAM].blocked && !s->paused; }
static inline bool source_is_loading(const struct source *s) { return s->load && (s->phase == SOURCE_LOADING || s->phase == SOURCE_STREAMING); }
/* note_put, then next(s). The instance may be closed before. */
void source_put_note(struct source *s, const char *key, const char *value, void (*next)(struct source *s));
void source_tell(const struct source *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));  /* somebody must know */
struct pgconn *source_connect(struct source *s, enum pgconn_kind kind, void (*on_ready)(void *ctx));
struct pgconn *source_connect_watch(struct source *s, void (*on_ready)(void *ctx));     /* for s->sql, which the stream can do without for a while */

/* ---- source_tables.c: which tables there are, which are loaded, whose changes are wanted ---- */
void source_tables_init(struct source *s, const struct dmsr_loaded *loaded, size_t n);
void source_tables_free(struct source *s);      /* also when there was no init */
void source_set_rels(struct source *s, struct relation **rels, size_t n);   /* takes them; the ones before go */
void source_put_rel(struct source *s, struct relation *rel);                /* takes it; one of the same oid goes */
void source_leave_out(struct source *s, uint32_t id);                       /* it is no part of this run */
struct relation *source_find_rel(const struct source *s, uint32_t id);
/* rel NULL: in an earlier run. */
void source_add_loaded(struct source *s, const struct relation *rel, const char *schema, const char *name, uint64_t lsn);
struct source_loaded *source_find_loaded(const struct source *s, const struct relation *rel);
void source_forget(struct source *s, const struct relation *rel);           /* it is not loaded any longer */
uint64_t source_newest_load(const struct source *s);
bool source_needs_load(const struct source *s);
/* What start() said of earlier loads, seen with today's catalog: tables that are others now are not loaded. */
void source_review_loaded(struct source *s);
void source_forget_missed(struct source *s);   /* the same in a run that follows nothing, and has its snapshot: changes were missed by one that did */
void source_note_left_out(struct source *s);   /* of tables that are not loaded, by a run that ends_first */
/* Those that are not in the publication are not loaded any longer. True: there were such. */
bool source_forget_unpublished(struct source *s, const struct map *published);
/* Notes the tables as they are; those that are not loaded as to be loaded at lsn or later. Then next. */
void source_note_tables(struct source *s, uint64_t lsn, void (*next)(struct source *s));
/* Before tables are read that nothing follows, in the snapshot at lsn. */
void source_note_alone(struct source *s, uint64_t lsn, void (*next)(struct source *s));
struct noted {                  /* what is noted of a table */
	unsigned id;
	uint64_t lsn;
	char *name;                     /* "schema"."name", quoted */
	char *marks;                    /* for history_read; NULL: none */
};
/* The note "tables", read, by name; the note "gone", by oid: tables of one name may be gone one after the other. */
struct map *source_noted(const struct source *s);
struct map *source_noted_gone(const struct source *s);
void source_noted_free(struct map *noted);
uint64_t source_noted_lsn(const struct source *s, const struct relation *rel); /* older loads of it do not count; 0: it was none of the job's */
void source_noted_each(const struct map *noted, void (*fn)(void *arg, const struct noted *n), void *arg);
/* Its schema and its name, as they are; heap. */
void source_noted_name(const struct noted *n, char **schema, char **name);
bool source_is_loaded(const struct source *s, const char *schema, const char *name);    /* a table of that name, by what start() said or since */
struct map *source_noted_ids(const struct source *s);   /* of the note "tables": a set; freed by map_free */
bool source_is_new(const struct source *s, const struct map *ids, const struct relation *rel); /* it was no part of the last run, under any name */
bool source_is_renamed(const struct map *noted, uint32_t id, const char *schema, const char *name);    /* a table of the job, noted under another name */
const char *source_noted_marks(const struct map *noted, const struct relation *rel);   /* for history_read; NULL: none of that table */
/* Patterns of tables.include without a table; then next. */
void source_tell_unmatched(struct source *s, struct pgconn *c, void (*next)(struct source *s));
void source_fail_no_tables(struct source *s, struct pgconn *c); /* which patterns those are is told first */
/* Where nothing is loaded: tables that the last run did not have, and those that are about to be put into the publication. */
void source_tell_joined(const struct source *s, const struct map *published);
bool source_wants(const struct source *s, const struct relation *rel, uint64_t *loaded_lsn);   /* the decoder's question */

/* ---- source_prepare.c: on the SQL connection: facts, identity, tables, publication ---- */
void source_prepare(struct source *s);
/* IDENTIFY_SYSTEM on s->repl, compared with the slot's note; then next. */
void source_identify(struct source *s, void (*next)(struct source *s));
bool source_has_own_publication(const struct source *s);        /* one that the job made, or makes */

/* ---- source_new.c: a table that came since the last run and cannot be taken up does not end a job that is under way: it is left out, which is told ---- */
/* Of identity_sql's answer. Returns the rows of tables that are not left out; *first: the first of these. */
int source_new_keyless(struct source *s, const PGresult *res, int *first);
/* On the SQL connection, when the publication was found: those that it lacks, or that the role may not read. Then next. */
void source_new(struct source *s, void (*next)(struct source *s));
/* Asks that about the tables with those oids, "{1,2}". */
enum { NEW_OID, NEW_SCHEMA, NEW_NAME, NEW_IS_PUBLISHED, NEW_IS_OURS /* the role's: it may publish it */, NEW_IS_READABLE, NEW_IS_HIDDEN /* in part */ };
void source_new_ask(struct source *s, const char *oids, pgconn_done *done);
/* Of a row of the answer: why the table cannot be taken up, and what mends it: the end of a sentence. False: it can. */
bool source_new_obstacle(const struct source *s, const PGresult *res, int row, struct buf *out);

/* ---- source_look.c: what the stream does not tell: publication, tables and their rows that changed by other ways ---- */
void source_look_read(struct source *s);        /* of a start: what was noted of the tables; before anything is noted anew */
void source_look(struct source *s);             /* of a start: what happened since the last one; then source_slot */
/* On s->loader, in the load's snapshot: what those tables are like in it that are not loaded yet. Then next. */
void source_look_load(struct source *s, void (*next)(struct source *s));
/* That is its name for a transaction with that commit LSN: told, or the end of the run (false), if this run began with another one. */
/* The table whose names changes of relid go by, in the stream of this run; NULL: by their own. */
const struct relation *source_look_name(void *source, uint32_t relid);
bool source_look_named(struct source *s, const struct relation *rel, uint64_t lsn);
/* A Truncate of a table which is not called that any more, but another one is: the run is over. */
void source_look_taken(struct source *s, const struct relation *name);
/* The decoder's question: the columns that the table had at a time not after a transaction with that commit LSN; NULL: not known. */
struct relation *source_look_earlier(void *source, const struct relation *rel, uint64_t lsn);
/* The decoder's word: a row, in a transaction with that commit LSN, has columns that cannot be told apart. Told, or the end of the run (false). */
bool source_look_dated(void *source, const struct relation *rel, uint64_t lsn);
void source_look_again(struct source *s);       /* on the SQL connection, which is free; then source_ask_on */
void source_look_free(struct source *s);

/* ---- source_slot.c: the slot is made or looked at, a snapshot taken if tables need one ---- */
/* Records the slot of that name as made at lsn on the server as it is now; then next. */
void source_slot_note(struct source *s, const char *name, uint64_t lsn, void (*next)(struct source *s));
void source_slot(struct source *s);
void source_slot_again(struct source *s);       /* tables are left to load: connects, and takes a snapshot for them */
void source_slot_verify(struct source *s, void (*next)(struct source *s));

/* ---- source_load.c ---- */
/* On s->loader if it is there already. In s->snapshot, which s->repl keeps alive until it is used; without one (full load alone) the load takes its own. */
void source_load(struct source *s);
void source_load_resumed(struct source *s);     /* source_read.c */
/* The load has a table of that oid, whose rows are newer than what is before that: LSN, or 0. */
uint64_t source_load_newer(const struct source *s, uint32_t id);
void source_read_pause(struct source *s);
void source_read_close(struct source *s);       /* its connections, the loader and that of the turns too */
void source_load_free(struct source *s);
void source_load_later(struct source *s);       /* ends_first: the stream, without the tables that are not loaded */
/* Words about tables that are loaded already, and that the load is done (now, or when the stream is behind load_done_at); then the next stretch. */
void source_load_words(struct source *s);

/* ---- source_turns.c: big tables that are loaded while the stream flows on ---- */
bool source_has_turn(const struct source *s);   /* one of them: the stream rests */
uint64_t source_turns_since(const struct source *s, uint32_t id);       /* the oldest of its snapshots; 0: it is none of them */
bool source_turns_wants(const struct source *s);        /* source_stream_rest is to be called where the stream could rest */
void source_turns_rests(struct source *s);      /* it does */
void source_turns_saw(struct source *s, const struct batch *b); /* goes out */
void source_turns_dry(struct source *s);        /* nothing more has come */
void source_turns_stopped(struct source *s);    /* somebody wants it: no fault of any load's */
void source_turns_close(struct source *s);      /* its connection */
void source_turns_free(struct source *s);

/* ---- source_rest.c: loads of an earlier run go on ---- */
void source_rest_init(struct source *s, const struct dmsr_begun *begun, size_t n);
void source_rest_free(struct source *s);
void source_rest_forget(struct source *s);      /* the stream begins */
uint64_t source_rest_lsn(const struct source *s, uint32_t id, uint64_t lsn);    /* since when, of the table with that oid; lsn: it does not go on */

/* ---- source_stream.c ---- */
void source_stream(struct source *s);
void source_stream_resumed(struct source *s);
void source_stream_paused(struct source *s);
void source_stream_rest(struct source *s);      /* if all that was decoded can go out, and ends with a transaction: source_turns_rests */
uint64_t source_stream_heard(const struct source *s);   /* messages, but for keepalives */
void source_stream_confirm(struct source *s, uint64_t flush);
void source_stream_awaits(struct source *s, uint64_t lsn);      /* OP_LOAD_DONE goes out when the stream has passed that */
bool source_stream_is_whole(const struct source *s);                     /* of what any run gave the streamer no transaction lacks its end */
void source_stream_flows(struct source *s, void (*then)(struct source *s)); /* before the streamer is given what is_held; then: that is noted */
void source_stream_whole(struct source *s);                              /* and the run is over, so that the next one loads */
uint64_t source_stream_confirmed(const struct source *s);       /* no change of before is read any more, in this run or the next; 0: not known */
/* What was committed before that is decoded; 0: not known. And the newest Truncate of that table among it: its commit LSN, or 0. */
uint64_t source_stream_passed(const struct source *s);
uint64_t source_stream_truncated(const struct source *s, uint32_t id);
void source_stream_stop(struct source *s);      /* then source_stopped */
void source_stopped(struct source *s);
void source_stream_stat(struct source *s, struct dmsr_source_stat *out);
void source_stream_free(struct source *s);

/* ---- source_ask.c: the catalog is asked about a table that the stream speaks of ---- */
enum dmsr_verdict source_ask(void *source, uint32_t relid);     /* the decoder's question; AGAIN: asked; then source.turn is posted */
enum dmsr_verdict source_ask_name(void *source, uint32_t relid); /* likewise: has another table its name of source_look_name? Then the run is over */
bool source_is_asking(const struct source *s);
void source_ask_on(struct source *s);           /* the SQL connection is free */
void source_ask_lost(struct source *s);         /* it is dead: the stream goes on without an answer */

/* ---- source_watch.c ---- */
void source_watch(struct source *s);            /* starts it */
bool source_watch_lost(struct source *s, const struct err *e); /* the SQL connection is dead; true: it can do without for a while */
void source_watch_reconnect(struct source *s);
void source_watch_stat(struct source *s, struct dmsr_source_stat *out);
void source_watch_free(struct source *s);

#endif
