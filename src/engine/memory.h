/* memory: what is remembered of a job between its runs: notes of its source, how far it is durable downstream, which tables are loaded, where each
 * target stands, and how many rows went through each table. Kept here for reading at once, and in the state store: every put is written there.
 *
 * kinds in the store: "position" (key "" = delivered, else a target), "note", "load" (key: quoted schema.table; value: position of the snapshot),
 * "unwanted-load" (the same; loads up to there do not count), "target-load" (key: target, blank, table: what that target has), "flag" (load_done,
 * "load_done:<target>", "keeps:<target>": "1" or "0", since it was ready, with " new" behind it while it is_new), "count" (quoted schema.table; numbers). */
#ifndef DMSR_ENGINE_MEMORY_H
#define DMSR_ENGINE_MEMORY_H
#include "store.h"

/* What a table was like when it was seen last. Stored with the counts, so that the first change of a run is told from the first sight of a table. */
struct table_shape {
	uint64_t fingerprint;           /* 0: not seen yet */
	uint32_t columns;
	struct position at;             /* where it was seen first; none: any change is news */
};
/* A table's numbers, for /tables. */
struct table_count {
	char *schema, *name;
	struct table_shape shape;
	uint64_t captured[4];           /* create update delete truncate, as received */
	uint64_t ddl;
	uint64_t applied[4];            /* the same, summed over targets */
	uint64_t rows_loaded;           /* applied by the first target; of the newest load */
	uint64_t rows_read, bytes_read; /* of the newest load */
	int64_t rows_total, bytes_total; /* estimates; -1 unknown */
	uint64_t dead;
	bool is_loading, is_loaded;     /* is_loaded: durable downstream */
	bool is_left_out;               /* the job's patterns do not mean it any more */
	bool is_passed_over;            /* they do, but the run at hand cannot take it up */
	bool is_dirty;                  /* differs from what the store has, */
	bool is_reshaped;               /* and in its shape, which is not to be told twice */
	uint64_t stored_loaded, stored_read, stored_dead; /* what the store has of rows_loaded, rows_read and dead */
};

struct table_set {                      /* tables with the snapshot's position of their load */
	struct dmsr_loaded *list;       /* strings are the set's own */
	size_t n, cap;
	struct map *places;             /* quoted name -> place in the list + 1; NULL: none yet */
};
uint64_t table_set_newest(const struct table_set *s); /* LSN of the newest snapshot; 0: none */
const struct dmsr_loaded *table_set_find(const struct table_set *s, const char *schema, const char *name);
void table_set_put(struct table_set *s, const char *schema, const char *name, const struct position *at);
void table_set_del(struct table_set *s, const char *schema, const char *name);   /* nothing, if it is not there */
void table_set_clear(struct table_set *s);

struct memory_target {
	char *name;
	struct position applied;
	struct table_set loaded;
	bool load_done;
	bool was_ready;                 /* in any run: before that it makes nothing */
	bool is_new;                    /* it was, and no run has begun to give it anything; or one has begun without it since */
	bool keeps;                     /* it stores its position and loads itself, with the rows */
};

struct memory;
struct memory *memory_new(struct store *st, const char *uid);
void memory_free(struct memory *m);                     /* NULL is fine */
int memory_read(struct memory *m, struct err *e);       /* from the store; blocks: at the daemon's start only */

#define MEMORY_OF_STREAMER "streamer."  /* before the keys of notes that are a streamer's */
#define MEMORY_STREAM_BEGAN MEMORY_OF_STREAMER "begin"  /* dmsr.h: something of the job may be in its stream since */
#define MEMORY_PARTS "pipeline.parts."  /* and of those of loads that were not ended (pipeline_begun.c) */
const char *memory_note(const struct memory *m, const char *key);  /* newest put; NULL: none; borrowed until the next put of key */
void memory_note_put(struct memory *m, const char *key, const char *value /* NULL: forget */, store_done *done, void *arg);

const struct position *memory_delivered(const struct memory *m);
const struct table_set *memory_loaded(const struct memory *m);
bool memory_load_done(const struct memory *m);
struct memory_target *memory_target(struct memory *m, const char *name);        /* found or made; borrowed */
struct memory_target *memory_target_next(const struct memory *m, const struct memory_target *t); /* t NULL: the first; NULL: there is no more */

/* Each of these is durable before a later memory_delivered_put's done. */
void memory_load_put(struct memory *m, const char *schema, const char *name, const struct position *at);
void memory_load_forget(struct memory *m, const char *schema, const char *name);
/* Somebody wants a table loaded anew, which is loaded: what is there of it, here and at the targets, does not count from now on. done: it is durable. */
void memory_load_unwant(struct memory *m, const char *schema, const char *name, store_done *done, void *arg);
void memory_unwant(struct memory *m, const struct dmsr_loaded *l);      /* the same for a load that only a target speaks of; up to l->at */
bool memory_is_unwanted(const struct memory *m, const struct dmsr_loaded *l);
const struct table_set *memory_unwanted(const struct memory *m);       /* all of them; borrowed */
void memory_load_done_put(struct memory *m);
void memory_load_done_forget(struct memory *m);
void memory_target_position_put(struct memory *m, struct memory_target *t, const struct position *p);
void memory_target_load_put(struct memory *m, struct memory_target *t, const char *schema, const char *name, const struct position *at);
void memory_target_load_done_put(struct memory *m, struct memory_target *t);
/* A target says where it stands, and is right: what is remembered of it follows. */
void memory_target_is(struct memory *m, struct memory_target *t, const struct position *p, const struct dmsr_loaded *loaded, size_t n, bool load_done);
void memory_target_keeps_put(struct memory *m, struct memory_target *t, bool keeps); /* it is ready */
void memory_target_feed_put(struct memory *m, struct memory_target *t);        /* it is given something from now on */
void memory_target_miss_put(struct memory *m, struct memory_target *t);        /* it is not: a run begins that it is no part of */
/* Everything up to p is durable downstream. Shapes that are new go with it, and counts that changed: of many tables some at a time, so a crash may take the
 * newest of them along. But those of a table that was loaded, or has new dead letters, go at once. */
void memory_delivered_put(struct memory *m, const struct position *p, store_done *done, void *arg);

struct table_count *memory_count(struct memory *m, const char *schema, const char *name);  /* found or made; borrowed */
void memory_each_count(struct memory *m, void (*fn)(void *arg, struct table_count *c), void *arg);      /* in any order */
void memory_each_count_by_name(struct memory *m, void (*fn)(void *arg, struct table_count *c), void *arg);
void memory_counts_save(struct memory *m);                      /* of all tables */

void memory_notes_forget(struct memory *m, const char *prefix); /* those whose keys begin with it */

/* Forgets positions, loads and notes, so that the job begins anew; or sets the position by hand (targets that do not keep their own follow). */
void memory_forget(struct memory *m, store_done *done, void *arg);
void memory_position_set(struct memory *m, const struct position *p, store_done *done, void *arg);

#endif
