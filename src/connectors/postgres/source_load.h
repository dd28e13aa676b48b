/* source_load: what the parts of the load share. source_load.c takes the snapshot, finds the tables and ends the load; source_read.c reads them, on
 * several connections side by side; source_cut.c says how a big one is cut into parts. */
#ifndef DMSR_POSTGRES_SOURCE_LOAD_H
#define DMSR_POSTGRES_SOURCE_LOAD_H
#include "source_int.h"

/* Rows of a table that are read by one COPY: no row is in two parts of a table, and each is in one. */
struct load_part {
	char *from;                     /* quoted: the table, or one of its partitions, */
	uint32_t id;                    /* and its oid */
	char *where;                    /* SQL; NULL: all of its rows */
	bool is_key_range;              /* an index finds them; else where is a range of blocks */
};

enum table_state {
	TABLE_WAITING,
	TABLE_BEGUN,                    /* a reader has it: it looks at it, and cuts it */
	TABLE_CUT,                      /* its parts may be read */
	TABLE_TURNING,                  /* its first part was sent, and the others have turns of their own */
	TABLE_READ,                     /* all was sent */
	TABLE_PUT_OFF,                  /* to another round */
};

struct load_table {
	struct relation *rel;           /* held: as it was in the snapshot, of which source.rels may have a newer one */
	enum table_state state;
	bool is_partitioned, is_whole;  /* is_whole: it could not be cut */
	bool is_unordered;              /* the server could not sample or compare its key */
	bool is_no_heap;                /* its rows are stored in a way that an extension brings: where they stay is not known */
	struct load_part *parts;
	uint32_t nparts, next;          /* 0: undivided; of them begun */
	uint64_t since;                 /* not 0: the load of an earlier run goes on; LSN of the oldest snapshot that it has parts of */
	bool in_turns;                  /* takes turns with the stream (source_turns.c) */
	bool is_lost;                   /* a target could not make one table of its parts */
	bool is_busy;                   /* put off because it is locked */
	bool is_full;                   /* its replica identity, or a partition's, is the whole row */
	bool told_at_once;              /* that it is loaded in one snapshot though others take turns */
	char *mark;                     /* in turns: what it was like in the first snapshot (source_mark.h) */
	bool *kept;                     /* by number: parts that are there; NULL: none */
	unsigned nreaders;
	int64_t nrows, nbytes;
};

enum reader_state {
	READER_CONNECTING,
	READER_IDLE,
	READER_LEAVING,                 /* nothing to read, or the host is full: it gives back its lock */
	READER_LOOKING,                 /* the table is locked, and is it the one of the snapshot? */
	READER_CUTTING,
	READER_NOTING,                  /* how it was cut */
	READER_READY,                   /* to look at its table again, when the host takes something */
	READER_COPYING,
};

struct cut;                             /* source_cut.c */

/* One connection, in the load's snapshot. */
struct reader {
	struct source *s;
	struct pgconn *conn;            /* of the first: s->loader */
	enum reader_state state;
	struct load_table *table;
	uint32_t part;                  /* from 1; 0: the table is read undivided */
	struct cut *cut;
	uint64_t noted;                 /* the how manieth note of the load */
	bool is_binary, has_header;
	bool has_lock;                  /* since look: of the table, and of the part's */
	struct batch *b;                /* being filled; NULL: none */
	struct change *rows;            /* its OP_ROWS; NULL: none yet */
	size_t room;                    /* bytes that fit behind rows->u.rows.len */
	int64_t nrows;
};

struct load {
	uint64_t lsn;                   /* of the snapshot */
	char *snapshot;                 /* exported by the loader, for the other readers */
	char *sees;                     /* as txid_current_snapshot has it */
	struct load_table *tables;      /* largest first */
	size_t ntables;
	size_t nread, nlater;           /* tables: read in this round, put off to the next */
	bool is_done;
	bool is_turn;                   /* a part of one table */
	bool holds_all;                 /* the readers have locks of all tables, until all are read */
	struct reader *readers;
	unsigned nreaders;
	uint64_t notes;                 /* put so far */
	struct map *by_id;              /* oid -> struct load_table */
	struct map *rests;              /* tables whose load goes on: oid -> struct load_table */
};

struct batch *load_batch(const struct source *s, uint64_t lsn);
/* A note about that table; heap. */
char *load_note_key(const char *what, const struct relation *rel);
struct load *load_new(void);
void load_table_free(struct load_table *t);     /* what it holds */

/* ---- source_read.c ---- */
/* All tables of s->load: then source_load_read. */
void source_read(struct source *s);
void source_read_free(struct source *s);        /* also its connections */
void source_load_read(struct source *s);        /* source_load.c: every table was read or put off */
/* It lives only as long as the session that exported it: why it is not there is known soon, or never. */
void source_snapshot_lost(struct source *s, const struct err *why);
/* What a table was refused for: somebody holds it, who may wait for us himself; that, or it is not there by that name, or a column is not. */
bool read_is_locked(const struct pgconn *c);
bool read_may_pass(const struct pgconn *c);
/* Begins a transaction in that snapshot; NULL: in one of its own. */
const char *source_load_begin_sql(const char *snapshot, struct buf *out);
/* LOCK of all tables that are left to load; false: there are none. */
bool source_load_lock_sql(const struct source *s, struct buf *out);

/* ---- source_turns.c ---- */
bool source_may_take_turns(struct source *s, struct load_table *t);     /* if it can be cut by its key */
void source_turns_begin(struct source *s, const struct load_table *t);  /* its first part is about to be read */
void source_turns_over(struct source *s, const struct relation *rel);   /* all of it was read, in turns or not */
void source_turns_take(struct source *s);       /* of a load that is over: those that are left */
void source_turn_read(struct source *s);        /* s->load, which is a turn's, was read or put off */

/* ---- source_rest.c ---- */
/* Does the load of an earlier run go on? Then the parts are known, since is set, and the table is one of l->rests. */
void rest_find(struct source *s, struct load_table *t);
/* How it was cut, so that another run can go on; or that none can. Durable before the first of the parts is sent: then next. False: there is nothing to
 * note. */
bool rest_note(struct source *s, const struct load_table *t, void (*next)(struct source *s));

void rest_void(struct source *s, const struct relation *rel);   /* no other run goes on with it */

/* ---- source_cut.c ---- */
/* Can another run go on with its ranges? Of the key they hold the same keys then, of blocks (cut_moves) the rows that nobody has changed. */
bool cut_lasts(const struct load_table *t);
bool cut_moves(const struct load_table *t);     /* may a row that is updated go from one of its ranges into another, though its key stays? */
/* Is it worth it? */
bool cut_is_due(const struct source *s, const struct load_table *t);
/* On conn, inside the transaction. done: t->parts and t->nparts are set (0: undivided). e: the transaction has failed; t is undivided,
 * and what was found out is in it: begin anew if a cut is still due. */
struct cut *cut_begin(struct source *s, struct pgconn *conn, struct load_table *t, void (*done)(void *arg, const struct err *e), void *arg);
void cut_free(struct cut *c);                   /* before done, or after; NULL is fine */

#endif
