/* dmsr.h: all that a plugin sees, and the only header it includes.
 *
 * A plugin is one const struct dmsr_plugin. Built in, it is listed in a table; as a shared object in plugin_dir it exports one
 * symbol `dmsr_plugin` of that type. Everything runs on the loop's thread and never blocks. Instances are opaque.
 *
 * Verdicts (base/err.h): OK taken, the callee owns it; AGAIN not taken, wait for resume. An error is told by failed(), never by a verdict.
 * Plugins judge, they do not retry: after failed() an instance is dead but for close(); the job decides whether to open another.
 * No callback is called from inside the verb that caused it: an instance answers from its own events or a loop_task. */
#ifndef DMSR_H
#define DMSR_H
#include "base/arena.h"
#include "base/buf.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/failpoint.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "base/settings.h"
#include "base/utf8.h"
#include "base/worker.h"
#include "model/batch.h"
#include "model/match.h"

#define DMSR_ABI 14

/* ---- options ------------------------------------------------------------------------------------------------- */
enum dmsr_option_type {
	DMSR_OPT_STRING, DMSR_OPT_INT, DMSR_OPT_BOOL,
	DMSR_OPT_BYTES,      /* 65536 or "64KiB", "1MB" -> int */
	DMSR_OPT_DURATION,   /* milliseconds or "500ms", "10s", "5m", "1h" -> int, milliseconds */
	DMSR_OPT_ENUM,       /* one of `values` */
	DMSR_OPT_LIST,       /* list of strings */
};
enum dmsr_option_flags { DMSR_OPT_REQUIRED = 1, DMSR_OPT_SECRET = 2, DMSR_OPT_LIVE = 4 /* may change while the job runs */,
	DMSR_OPT_CODEC = 8 /* ENUM: the value names a codec, whose options are accepted beside it in the same object */ };
struct dmsr_option {
	const char *name;
	uint8_t type;        /* enum dmsr_option_type */
	uint8_t flags;
	const char *dflt;    /* in text form; NULL: none */
	const char *values;  /* ENUM: "a|b|c" */
	int64_t min, max;    /* INT, BYTES, DURATION; both 0: no limits */
	const char *help;    /* one sentence, for the man page, the schema and the form */
};

/* ---- what every instance is given ----------------------------------------------------------------------------- */
struct dmsr_codec;
struct dmsr_codec_source {                      /* where the changes come from: what a codec puts into "source" of an envelope */
	const char *connector;                  /* the source's plugin; NULL: not known */
	const char *name;                       /* the job's */
	const char *database;                   /* NULL: not known */
	uint64_t server;
};
struct dmsr_env {
	struct loop *loop;
	const char *job;     /* its name, for log lines */
	const char *uid;     /* its uid: [0-9a-z]{26}, never used twice; "" in a probe for a job that is not there */
	const char *name;    /* "source", the target's name, "streamer" */
	const char *scratch; /* a directory of the instance's own for files that may vanish with the process (spools); made, emptied at start by the job */
	const struct dmsr_codec_source *source; /* for targets and streamers that open a codec; NULL: not known */
	/* A codec by name, asked with `codecs`; NULL: no such. Open it with the instance's own settings (DMSR_OPT_CODEC). */
	const struct dmsr_codec *(*codec)(const void *codecs, const char *name);
	const void *codecs;
};

enum dmsr_mode { DMSR_FULL_LOAD = 1, DMSR_CDC = 2, DMSR_FULL_LOAD_AND_CDC = 3 /* the bits */ };

/* One finding of a preflight. */
enum dmsr_check_level { DMSR_CHECK_OK, DMSR_CHECK_WARNING, DMSR_CHECK_ERROR };
struct dmsr_check {
	const char *id;      /* stable: "postgres.wal-level" */
	enum dmsr_check_level level;
	const char *object;  /* what it is about: a server, a table, a setting; NULL: the connector */
	const char *message; /* a sentence */
	const char *fix;     /* the exact statement or setting; NULL: none */
	bool retriable;      /* what could not be looked at, or was refused, may be otherwise later without anybody's doing */
};

/* A table that is loaded already: its rows are those of the snapshot at lsn; changes before that are in them. */
struct dmsr_loaded {
	const char *schema, *name;
	struct position at;
};

/* A table whose load was begun and is not ended: parts of it (struct batch.part) are there, by snapshots at `at` or later. None: what was loaded of it
 * does not count any more, and has to be loaded again. */
struct dmsr_begun {
	const char *schema, *name;
	struct position at;
	const uint32_t *parts;                  /* each once */
	size_t nparts;
};

struct dmsr_instance; /* opaque; each plugin defines its own struct and casts */

/* ---- source --------------------------------------------------------------------------------------------------- */
struct dmsr_load_progress {
	const char *schema, *name;
	int64_t rows, bytes;                    /* read so far; rows -1: not begun, which is told of every table when the load begins */
	int64_t rows_total, bytes_total;        /* estimates; -1 unknown */
	bool done;
};
struct dmsr_source_stat {
	struct position received; /* newest position read */
	struct position confirmed; /* newest told to the server */
	uint64_t server_lsn; /* newest the server has, as far as known */
	int64_t lag_bytes; /* server_lsn - confirmed, or less, where what is behind it is known to be none of the job's;
	                                         * -1: not known how far the server has written */
	int64_t last_event_us;                  /* wall clock of the newest message, keepalives included */
	int64_t last_commit_us;                 /* commit time of the newest transaction read */
	bool connected, paused;
	bool streaming;                         /* changes come, or would if there were any */
	bool loads_later;                       /* this run ends_first: what is to be loaded the next one loads */
	uint64_t spool_bytes;                   /* in-progress transactions held */
	const char *phase;                      /* "connecting" "preparing" "loading" "streaming" ... */
	const char *slot, *slot_status;         /* PostgreSQL; NULL: none */
	int64_t retained_bytes, safe_bytes;     /* log kept for us; what is left before it is lost; -1 unknown */
	int64_t slot_seen_us;                   /* wall clock: when they and the slot's status were so; 0: not seen yet */
};
struct dmsr_source_host {
	void *ctx;
	struct dmsr_env env;
	/* OK: the batch is the host's. AGAIN: keep it, stop reading, wait for resume(). */
	enum dmsr_verdict (*emit)(void *ctx, struct batch *b);
	void (*progress)(void *ctx, const struct dmsr_load_progress *p);
	/* Notes: small texts of the source's own that must survive (slot, start position, server identity). put is durable when done is
	 * called (on the loop, e NULL or the reason; also when the instance was closed meanwhile); get sees
	 * the newest durable or pending value, NULL: none, borrowed until the next put. */
	void (*note_put)(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg);
	const char *(*note_get)(void *ctx, const char *key);
	/* Something that nobody asked about and somebody must know; a sentence. It is logged, an event of the job, and in its status. Once an
	 * occurrence; any time, inside a verb too. Optional. */
	void (*notice)(void *ctx, const char *text);
	/* begins: tables are to be loaded, in snapshots that are taken after this call, where the stream does not end inside of a transaction. What is open
	 * of earlier loads is called off. Of a source that loads beside the stream: from the next end of a transaction on the targets are given no change,
	 * before the load has ended and they have all of it. So nothing that they had by then is newer than the rows, and what comes behind them is not older
	 * than what they had. ends, of such a source: all of it was emitted. Any time; twice is once. */
	void (*load_begins)(void *ctx);
	void (*load_ends)(void *ctx);
	/* Of a source that is given turn_bytes: every target has applied all batches that were in_turn, and no change waits on disk for one of them: so the
	 * next may come. is_all: and has applied every batch there was; else, all that there was when the answer was true last: none stands still. Optional. */
	bool (*turn_is_applied)(void *ctx, bool is_all);
	/* Of a table that was to be loaded, and is none of the job's any more: what the stream has of it is given to no target. */
	void (*load_void)(void *ctx, const char *schema, const char *name);
	/* This run goes without that table, which the job's patterns mean: it is told why, too. */
	void (*left_out)(void *ctx, const char *schema, const char *name);
	void (*finished)(void *ctx);            /* full-load: everything was emitted; with changes it means nothing */
	void (*failed)(void *ctx, const struct err *e); /* the instance is dead; close it */
	void (*stopped)(void *ctx);             /* answer to stop() */
};
struct dmsr_source_start {
	enum dmsr_mode mode;
	struct position from;                   /* everything up to here is durable downstream; NONE: first start */
	struct position applied;                /* every target has all up to here, and what is behind it is still to come to one; NONE: one has nothing */
	const struct dmsr_loaded *loaded;       /* tables that need no load */
	size_t nloaded;
	/* Tables whose load up to that snapshot counts no more (somebody wants another), and which may be in `loaded` by a later one. */
	const struct dmsr_loaded *unwanted;
	size_t nunwanted;
	const struct dmsr_begun *begun; /* tables of which each target has these parts. Borrowed during the call. The source may go on with */
	size_t nbegun; /* them (OP_LOAD_BEGIN with u.load.since), or load the table anew. Without parts: a target lost its load, and wants it in one snapshot */
	bool load_done; /* OP_LOAD_DONE was applied */
	/* Batches of the load go a way of their own, and AGAIN for one kind says nothing of the other; of a source that has loads_beside, whatever that said:
	 * there may be a log of an earlier run. OP_LOAD_DONE that waits for a place in the stream is a word of the stream. */
	bool is_beside;
	/* The streamer may have been given the first half of a transaction, at from or behind it, which a target may keep open: its end is read before
	 * anything is loaded, since no snapshot is made while a target on the source's own server has it open, and others would keep its locks for the time of
	 * the load. Only the source knows how far that is, and whether an earlier run has done it, or has read any of the stream at all. What such a run
	 * leaves out, as it is of tables that are to be loaded, may be of some that the streamer has a load of: whoever tells of that one later, it does not
	 * count. In mode full-load, too, where nobody else would read it, and what the stream has behind it would never be the target's. */
	bool ends_first;
	bool is_held; /* beside, and of what is emitted of the stream before load_ends the streamer is given nothing: it waits on disk */
	bool takes_rests; /* no target has to have a load whole, from its beginning on: of one that was cut off it keeps the parts that had their end */
	bool is_load_kept; /* the load goes through a streamer that keeps it: who reads it there need not be known here (no CHANGE_MOVES) */
	/* 0, or beside, and nothing but single tables is to be loaded: of a big one all but the beginning may have places in the stream, in turns of about so
	 * many bytes at most, batches in_turn, so that the stream is not held for long (CHANGE_TURNS). */
	int64_t turn_bytes;
};
struct dmsr_source {
	/* Can it read the stream while it loads, with these settings? NULL: no: what it emits is one sequence, and the stream is read behind the load. */
	bool (*loads_beside)(const struct settings *s);
	/* Parses nothing but its settings; no I/O. tables is borrowed for the life of the instance; so is what host points to, host itself is
	 * the call's: copy it. The same goes for every open. */
	int (*open)(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_source_host *host,
		struct dmsr_instance **out, struct err *e);
	void (*start)(struct dmsr_instance *i, const struct dmsr_source_start *start);
	void (*pause)(struct dmsr_instance *i);         /* stop reading; keep the connection and its keepalives alive */
	void (*resume)(struct dmsr_instance *i);        /* emit may be tried again */
	void (*confirm)(struct dmsr_instance *i, const struct position *p); /* durable up to here: tell the server */
	void (*stat)(struct dmsr_instance *i, struct dmsr_source_stat *out);
	void (*stop)(struct dmsr_instance *i);          /* sends the last confirmation, disconnects; then stopped() */
	void (*close)(struct dmsr_instance *i);         /* frees at once, whatever it was doing */
};

/* ---- one-shot questions, for sources, targets and streamers alike ---------------------------------------------- */
/* What a server keeps for a job, seen from outside, while the job does not run. */
struct dmsr_kept {
	const char *slot;                       /* NULL: nothing is kept, and there is nothing to look at again */
	const char *slot_status;                /* as in dmsr_source_stat; "missing": it is gone */
	bool is_lost;                           /* what the job needs to go on is gone with it */
	int64_t retained_bytes, safe_bytes, lag_bytes; /* -1 unknown */
};
/* The answer to a question, once: that of its kind. What it brings is borrowed during the call. e: the question itself could not be put. */
struct dmsr_probe_host {
	void *ctx;
	struct dmsr_env env;
	void (*checked)(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e);
	void (*discovered)(void *ctx, struct relation *const *rels, size_t n, const struct err *e);
	/* left: what could not be removed, as statements for a person; e NULL when all is gone */
	void (*dropped)(void *ctx, const char *const *left, size_t n, const struct err *e);
	void (*looked)(void *ctx, const struct dmsr_kept *k, const struct err *e); /* k NULL with e */
	bool keep; /* drop: nothing is removed; what would be is told as left */
	bool anew; /* drop: the job stays, and begins anew: a target still knows which rows it had from it, so that its next load
	                                         * may take them away */
	const char *(*note_get)(void *ctx, const char *key);  /* the source's notes of the job; NULL: none (there is no such job yet) */
	/* check of a target or a streamer: the tables that the job's source has; NULL: not known. Borrowed until close. */
	struct relation *const *rels;
	size_t nrels;
	size_t ntargets;                        /* check of a streamer: how many read from it */
};
/* Each opens its own connection, answers once through the host (never inside the call) and is freed by the host with close, also before
 * the answer (= cancel). */
struct dmsr_probe {
	/* Preflight: connect, look, change nothing. mode 0: the connection only. */
	int (*check)(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
		struct dmsr_instance **out, struct err *e);
	int (*discover)(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
		struct dmsr_instance **out, struct err *e);
	/* Job deleted, or told to begin anew: remove what the job made at the server (slot, publication; at a target its position rows). May be NULL. */
	int (*drop)(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e);
	/* Of a source: how what the server keeps for the job (slot) is now; changes nothing. at: a position that the job shall be moved to, NULL: none;
	 * one that it cannot go on from is the error of the answer ("server.changed", "position.behind-slot", "position.ahead"). May be NULL. */
	int (*look)(const struct settings *s, const struct position *at, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e);
	void (*close)(struct dmsr_instance *i);
};

/* ---- target --------------------------------------------------------------------------------------------------- */
/* A statement that a target runs behind the load. */
struct dmsr_build {
	const char *kind, *name;                /* "index" "shop.orders_by_day"; borrowed until the loop's next turn */
	const char *phase;                      /* in the server's words; NULL: not known */
	double percent;                         /* of that phase; -1 unknown */
	double seconds_left;                    /* the same */
};
enum { DMSR_BUILDS_MAX = 16 };
struct dmsr_target_stat {
	struct position applied;
	uint64_t queued_bytes;
	uint64_t rows_applied, transactions;
	bool connected;
	const char *phase;                      /* "connecting" "loading" "indexing" "applying" "idle" ... */
	int64_t last_applied_us;                /* wall clock */
	int64_t last_commit_us;                 /* source commit time of the newest transaction applied */
	uint32_t builds_made, builds_total;     /* keys, indexes and the like behind the load, while they are made; else 0 */
	struct dmsr_build builds[DMSR_BUILDS_MAX]; /* under way, the first of them */
	unsigned nbuilds;
	double builds_seconds_left;             /* until all are made, by how many were made so far, and how far those under way are; -1 unknown */
};
/* A row that the target refuses and the policy sends aside. */
struct dmsr_dead_letter {
	const struct change *change;            /* borrowed */
	const struct err *error;
};
/* What happened to a table in a batch that was applied; summed by the host. */
struct dmsr_table_counts {
	const char *schema, *name;
	uint64_t loaded, created, updated, deleted, truncated, ddl, dead;
};
struct dmsr_target_host {
	void *ctx;
	struct dmsr_env env;
	/* After start(): connected and its own memory read. applied: where it stands (NONE: never seen this job's uid); keeps: it
	 * stores position and loads itself, with the rows; then what it says is the truth. */
	void (*ready)(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t nloaded, bool load_done);
	/* The batch is durable here (or skipped as known): the lender may take it back. In order of apply(). */
	void (*applied)(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n);
	/* The batch's bytes are no longer read, but nothing is durable yet: the lender may drop them from memory (not from its log).
	 * Optional; applied implies it. Of each batch that is not applied before, in order. */
	void (*consumed)(void *ctx, uint64_t token);
	void (*resume)(void *ctx);              /* apply said AGAIN; there is room now */
	/* Policy dead-letter: the host makes it durable, then calls done; the target holds the rest back until then. */
	void (*dead_letter)(void *ctx, const struct dmsr_dead_letter *d, void (*done)(void *arg, const struct err *e), void *arg);
	void (*notice)(void *ctx, const char *text); /* as the source's */
	void (*failed)(void *ctx, const struct err *e);
	void (*stopped)(void *ctx);
	bool loads;                             /* tables that it has not got are loaded, if not in this run: the stream may move before they are */
};
struct dmsr_target {
	/* Can it take a load between whose parts changes come (CHANGE_TURNS), with these settings? NULL: no. */
	bool (*takes_turns)(const struct settings *s);
	int (*open)(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e);
	void (*start)(struct dmsr_instance *i);         /* connects; then ready() or failed() */
	/* Asked once, after ready() and before the first apply(): tables whose load was begun in an earlier run, and of which parts are there for good. They
	 * stay until the load begins anew, and when it goes on the parts that are there are passed over, should they come again. Borrowed until close.
	 * NULL: a table that is not whole starts over. */
	size_t (*begun)(struct dmsr_instance *i, const struct dmsr_begun **out);
	/* b stays the lender's and readable until applied(token). Batches come in order; those flagged more belong together, and what is before them is
	 * applied without their end, which may be long in coming. */
	enum dmsr_verdict (*apply)(struct dmsr_instance *i, const struct batch *b, uint64_t token);
	void (*flush)(struct dmsr_instance *i);         /* nothing more is waiting upstream: commit what is held, now */
	/* Nothing more comes before some of what is held was given back: as flush, and of what cannot be committed, because the end of its transaction is
	 * still to come, say consumed. Optional: without it more comes all the same, until apply says AGAIN. */
	void (*let_go)(struct dmsr_instance *i);
	void (*stat)(struct dmsr_instance *i, struct dmsr_target_stat *out);
	void (*stop)(struct dmsr_instance *i);          /* commits whole transactions it holds, drops the unfinished one, disconnects; then stopped() */
	void (*close)(struct dmsr_instance *i);
};

/* ---- streamer ------------------------------------------------------------------------------------------------- */
/* A log that lasts, kept by the state store for a job: numbered from 1 without gaps. All callbacks on the loop. */
struct dmsr_log_entry {
	uint64_t seq;
	const void *data;
	size_t len;
};
enum { DMSR_LOG_ENTRY_MAX = 512 << 20 };
struct dmsr_log {
	void *ctx;
	/* data is copied; at most DMSR_LOG_ENTRY_MAX. done: durable (e NULL), or not written (e). In order. */
	void (*append)(void *ctx, uint64_t seq, const void *data, size_t len, void (*done)(void *arg, uint64_t seq, const struct err *e), void *arg);
	/* Up to max_bytes (at least one entry) from seq on; entries borrowed during the call; n 0: none there. */
	void (*read)(void *ctx, uint64_t seq, size_t max_bytes,
		void (*done)(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e), void *arg);
	void (*trim)(void *ctx, uint64_t below);        /* entries with seq < below may go */
	/* As of open: first and last seq there (last 0: empty), and the bytes of their data. */
	uint64_t first, last, bytes;
};
struct dmsr_streamer_host {
	void *ctx;
	struct dmsr_env env;
	const struct dmsr_log *log;             /* NULL: none offered */
	/* Notes, as the source has them: of the streamer's own. */
	void (*note_put)(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg);
	const char *(*note_get)(void *ctx, const char *key);
	void (*notice)(void *ctx, const char *text); /* as the source's; optional */
	void (*ready)(void *ctx);               /* after start() */
	/* Exactly once a produced token, in any order: the batch no longer depends on the source. e: it will not be; the job must start
	 * over from the ledger. */
	void (*delivered)(void *ctx, uint64_t token, const struct err *e);
	void (*resume)(void *ctx);              /* produce said AGAIN; there is room now */
	void (*failed)(void *ctx, const struct err *e);
	void (*stopped)(void *ctx);
};
struct dmsr_consumer {
	void *ctx;
	/* AGAIN: wait for consumer_resume. The batch is lent until commit(token). Tokens rise. */
	enum dmsr_verdict (*deliver)(void *ctx, const struct batch *b, uint64_t token);
	void (*drained)(void *ctx);             /* nothing waits for this consumer now */
	/* It holds so much that it gets nothing more for now: it shall say consumed, or commit, of all that it has read, also inside of a transaction. NULL:
	 * it cannot be asked, and is given more until it says AGAIN. */
	void (*let_go)(void *ctx);
};
/* Where a target stands: what the streamer still holds and is not behind it, or is a load that the target has (by that snapshot or a later one), is not
 * delivered. */
struct dmsr_stand {
	struct position at;
	const struct dmsr_loaded *loaded;       /* borrowed during the call */
	size_t nloaded;
	bool load_done;                         /* in `known` alone */
	bool has_nothing;                       /* and will be given all tables anew, past the stream: what that holds by now is of no use to it */
};
struct dmsr_subscription; /* opaque */
struct dmsr_streamer_stat {
	uint64_t memory_bytes, memory_limit_bytes, log_bytes, log_limit_bytes, batches;
	const struct err *error;                /* what hinders it, while it waits for that to pass; NULL: nothing. Borrowed until the loop's next turn */
	int64_t error_us;                       /* wall clock: since when */
};
/* What of the servers is one job's alone: what another wrote there would be taken for its own. Of the jobs of a daemon no two have the same. */
struct dmsr_own {
	const char *option;                     /* says which it is; not given: the job's name does */
	char *(*name)(const char *value);       /* as the servers have it, which may be the same for two values; malloc */
	const char *otherwise;                  /* what to do instead: a sentence without its stop */
};
enum dmsr_load_way { DMSR_LOAD_THROUGH, /* rows of a load go through it */ DMSR_LOAD_EITHER, /* as the source likes */ DMSR_LOAD_PAST /* they must not */ };
struct dmsr_streamer {
	/* A load that goes on comes through it as it is: where loads have to go through it, with the parts that were delivered. False: a table of which there
	 * are parts starts over. */
	bool takes_rests;
	int (*open)(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e);
	const struct dmsr_own *own; /* NULL: nothing */
	/* May rows go straight to the targets, and changes alone through it, with these settings? PAST: they do, or the job is refused. NULL: no. */
	enum dmsr_load_way (*load_way)(const struct settings *s);
	bool gives_all; /* where it keeps anything, a target that is new gets everything that ever went through it, from the job's first word on */
	/* Is what was delivered in earlier runs still there for a target that stands behind it? From open on. */
	bool (*keeps)(const struct dmsr_instance *i);
	/* Does what is produced go to others than the targets, too? Then what every target has may be missing there still, and says nothing of what need not be
	 * loaded again. From ready on. Optional: no. */
	bool (*has_readers)(const struct dmsr_instance *i);
	/* Where something of the job may be in a stream that lasts, its note "begin" is there: how loads go, and what the stream is, stays so then. */
	void (*start)(struct dmsr_instance *i);
	/* Asked when it is ready: what it has for good, by a memory of its own that moves with what was produced, so that it is never behind: what was
	 * delivered and died before that was stored is in it. The host remembers it before the source starts. Its note "known", where it found that, is
	 * forgotten when somebody sets the job's position by hand. Borrowed until the loop's next turn; position NONE and no tables: nothing. Optional. */
	void (*known)(struct dmsr_instance *i, struct dmsr_stand *out);
	/* What was told delivered up to that token is in the state store: the notes put from now on are never seen without it. Optional. */
	void (*stored)(struct dmsr_instance *i, uint64_t token);
	enum dmsr_verdict (*produce)(struct dmsr_instance *i, struct batch *b); /* b->token is set; OK: b is the streamer's */
	/* Before start(). */
	struct dmsr_subscription *(*subscribe)(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c);
	void (*consumer_resume)(struct dmsr_subscription *s);
	void (*consumed)(struct dmsr_subscription *s, uint64_t token);  /* this consumer reads it no more, but it is not durable there */
	void (*commit)(struct dmsr_subscription *s, uint64_t token);    /* durable at this consumer, and all before it */
	void (*stat)(struct dmsr_instance *i, struct dmsr_streamer_stat *out);
	void (*stop)(struct dmsr_instance *i);
	void (*close)(struct dmsr_instance *i);
};

/* ---- transform ------------------------------------------------------------------------------------------------ */
enum dmsr_phase { DMSR_PHASE_FILTER, DMSR_PHASE_RESHAPE, DMSR_PHASE_MASK, DMSR_PHASE_ROUTE };
struct dmsr_transform {
	enum dmsr_phase phase;
	int (*open)(const struct settings *s, const struct dmsr_env *env, struct dmsr_instance **out, struct err *e);
	int (*apply)(struct dmsr_instance *i, struct batch *b, struct err *e);   /* in place */
	void (*close)(struct dmsr_instance *i);
};

/* ---- codec ---------------------------------------------------------------------------------------------------- */
/* Pure: change -> bytes. What one change becomes: 0 to n records, each with an optional key and value. */
struct dmsr_record {
	const char *key, *value;                /* NULL: none (a tombstone has no value); into the encoder's buffer, valid until the next encode */
	size_t key_len, value_len;
};
enum { DMSR_RECORDS_MAX = 4 };                  /* a change never becomes more */
struct dmsr_codec {
	int (*open)(const struct settings *s, const struct dmsr_codec_source *src, struct dmsr_instance **out, struct err *e);
	/* records: room for max, at least DMSR_RECORDS_MAX; returns how many (a key change is d + tombstone + c), or DMSR_E*. max 1: a row stays one
	 * record, also when its key changes, and there are no tombstones: for a stream that keeps the order of commits. Begin, commit and words about the
	 * load give 0. So does OP_SCHEMA, but where a format has a head that stands before the rows of a table (CSV): then it is that, and whoever
	 * starts a file asks for it with a change of that op. OP_ROWS is for change_each_row first (model/batch.h): encode refuses it. */
	int (*encode)(struct dmsr_instance *i, const struct change *ch, struct dmsr_record *records, unsigned max, struct err *e);
	/* Whether every row comes back from decode as it was, with the settings of this instance. NULL: never. */
	bool (*is_exact)(const struct dmsr_instance *i);
	/* The inverse of encode with max 1, for rows: appends the change to b, with rel (the shape that it was written with) and both images in b's
	 * arena, in one of their neutral forms; flags are set, txn is that of b, event is the caller's. The bytes come from a wire: nothing is trusted.
	 * NULL with is_exact. */
	int (*decode)(struct dmsr_instance *i, const void *value, size_t len, struct relation *rel, struct batch *b, struct err *e);
	void (*close)(struct dmsr_instance *i);
};

/* ---- the plugin ----------------------------------------------------------------------------------------------- */
struct dmsr_plugin {
	uint32_t abi;                           /* DMSR_ABI */
	uint32_t size;                          /* sizeof(struct dmsr_plugin) */
	const char *name;                       /* [a-z][a-z0-9-]{0,30} */
	const char *summary;                    /* one line */
	/* each ends with name NULL; NULL: none */
	const struct dmsr_option *source_options, *target_options, *streamer_options, *transform_options, *codec_options;
	const struct dmsr_source *source;
	const struct dmsr_target *target;
	const struct dmsr_streamer *streamer;
	const struct dmsr_transform *transform;
	const struct dmsr_codec *codec;
	const struct dmsr_probe *source_probe, *target_probe, *streamer_probe; /* of a streamer: check alone */
};

/* Names the one struct of a plugin: `DMSR_PLUGIN(postgres) = { .abi = DMSR_ABI, ... };`. In a shared object that is the exported
 * symbol dmsr_plugin; built in (config.h has WITH_PLUGIN_POSTGRES then) it is dmsr_plugin_postgres. */
#ifdef DMSR_BUILTIN
#define DMSR_PLUGIN(name)                                \
	extern const struct dmsr_plugin dmsr_plugin_##name; \
	const struct dmsr_plugin dmsr_plugin_##name
#else
#define DMSR_PLUGIN(name)                                                                   \
	extern const struct dmsr_plugin dmsr_plugin __attribute__((visibility("default"))); \
	const struct dmsr_plugin dmsr_plugin
#endif

#endif
