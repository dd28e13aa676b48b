/* pipeline_int: what the parts of a run share: pipeline.c (phases, ends), pipeline_channels.c (the ways), pipeline_source.c (the source's start and words),
 * pipeline_begun.c (loads that go on), pipeline_flow.c (batches in, acknowledgements back, checkpoints), pipeline_target.c (one target's way). */
#ifndef DMSR_ENGINE_PIPELINE_INT_H
#define DMSR_ENGINE_PIPELINE_INT_H
#include "hold.h"
#include "pipeline.h"

enum pipeline_phase { PHASE_OPENING, PHASE_TARGETS, PHASE_STREAMER, PHASE_FLOWING, PHASE_DRAINING, PHASE_STOPPING, PHASE_ENDED, PHASES };

enum { EVENT_INSERT, EVENT_UPDATE, EVENT_DELETE, EVENT_TRUNCATE, EVENT_READ, EVENT_DDL };

/* A word about the load, on its way: a table ended, or all of it; or a table has begun anew, or a part of it ended. */
struct load_word {
	uint64_t token;
	enum change_op op;
	char *schema, *name;            /* NULL: all tables (OP_LOAD_DONE) */
	struct position at;             /* of the snapshot */
	uint32_t part;                  /* 0: of none */
};
struct load_words {
	struct load_word *list;
	size_t n, cap;
};
/* Appends the words that a batch holds. */
void load_words_add(struct load_words *w, const struct batch *b, uint64_t token);
/* Calls fn for the words up to token, in order, and drops them. */
void load_words_take(struct load_words *w, uint64_t token, void (*fn)(void *arg, const struct load_word *word), void *arg);
void load_words_fini(struct load_words *w);

/* The ways from the source to the targets. */
enum { CHANNEL_STREAM, /* the job's streamer */
	CHANNEL_LOAD, /* rows of a load, and its words. Past the stream to the targets, in memory alone; or, where there is a hold, into the stream, past
	               * the changes that are held. Not there: with the changes through the stream */
	CHANNELS };
struct channel {
	struct pipeline *p;
	const struct dmsr_streamer *ops;        /* NULL: it is not there */
	struct dmsr_instance *i;
	char *scratch;
	bool is_ready, is_stopped;
	struct ledger *ledger;
	struct batch *held;             /* received, the streamer said AGAIN */
	uint64_t whole_token;           /* newest batch that ends a transaction, or is of the load */
	struct load_words words;        /* received, not stored */
};

/* A batch that a target has and has not applied. */
struct flight {
	uint64_t token;                 /* the target's: it counts what it is handed */
	uint64_t own;                   /* the channel's; 0: of the next one */
	struct batch *view;             /* what it was given of the batch; NULL: all */
	struct batch *base;             /* what that is a view of, where it is not the batch */
	uint8_t channel;
	struct position end;
	int64_t first_us, commit_us;    /* commit times at the source: of its first change; of its last, when that transaction ends here */
	uint32_t transactions;
};

struct inlet {                          /* of a target, from a channel */
	struct ptarget *t;
	struct dmsr_subscription *sub;
	bool is_drained;                /* the streamer has nothing more for it */
	bool is_waiting;                /* said AGAIN, for the other channel's sake */
};

struct ptarget {
	struct pipeline *p;
	const char *name;
	const struct dmsr_plugin *plugin;
	const struct dmsr_target *ops;
	struct dmsr_instance *i;
	char *scratch;
	struct memory_target *memory;
	struct inlet in[CHANNELS];
	bool is_ready, is_stopped;
	bool is_held;                   /* the stream waits at the end of a transaction, until the load is applied */
	bool is_amid;                   /* the transaction of the newest batch that it took of the stream goes on */
	struct txn amid;                /* and is that one, */
	uint64_t amid_token;            /* which begins in that batch */
	uint64_t cut;                   /* the channel's token of the newest batch that it took the first part of, before the half */
	bool position_moved;
	struct position applied;
	uint64_t server;                /* that the changes come from */
	int64_t last_commit_us;         /* of the newest that it has applied */
	int64_t due_us;                 /* of the first that came when it had all */
	uint64_t level_lsn;             /* as pipeline_target_stat has it */
	struct flight *ring;            /* of what it has, at (first + k) & (cap - 1) */
	size_t first, count, cap;
	uint64_t handed, consumed;      /* its tokens: newest that it took, that it reads no more */
	size_t nloads;                  /* of the ring, from the load's channel */
	uint64_t rows_lsn;              /* changes before that may be in rows that it has, or void; 0: none that are still to come */
	struct table_set awaited;       /* those whose rows come by the stream: what is before them is not given to it */
	struct load_words words;
	uint64_t rows_applied;
	const struct dmsr_begun *begun; /* the target's own, as it said before the source was started */
	size_t nbegun;
};

struct pipeline {
	struct pipeline_run run;
	struct dmsr_codec_source origin;        /* what codecs are told of the source */
	enum pipeline_phase phase;
	struct loop_task *task;
	struct loop_timer *checkpoint_timer, *drain_timer;

	const struct dmsr_source *source_ops;
	struct dmsr_instance *source;
	char *source_scratch;
	struct channel channels[CHANNELS];
	struct hold *hold;              /* what the two channels are when changes wait for a load that goes through the stream; NULL: they do not */
	struct settings *load_settings; /* of the load's channel, or of the hold's log; NULL: not there */
	struct store_log *log;
	struct ptarget *targets;
	size_t ntargets;
	struct dmsr_instance **transforms;

	bool source_waits;              /* emit said AGAIN: resume is owed */
	bool streamer_is_asked, streamer_knows; /* what it knows is remembered */
	bool is_paused, source_stopped, log_is_opening, source_finished, told_loading, told_flowing;
	bool told_full;                 /* the log of what waits for a load is, and so the source waits */
	bool load_has_begun, load_is_sent; /* all of it: the source has said so, in this run */
	uint64_t turn_token;            /* of the newest batch in_turn */
	uint64_t turn_asked;            /* of the newest batch of the stream when turn_is_applied was true last */
	struct position turn_at;        /* and where that ended */
	struct map *voids;              /* relation_key: load_void; NULL: none */
	uint64_t first_lsn;             /* what the source had written when that was first heard of; 0: not yet */
	uint64_t began_lsn;             /* the stream has nothing for the targets before that; 0: it began in an earlier run, or has not yet */
	bool is_level;                  /* and it was read */
	struct map *open_loads;         /* tables whose load has begun and not ended, as received */

	/* ends, told from the task */
	struct err failure;
	char stage[80];
	bool must_fail, must_end;
	enum pipeline_end how;

	struct ticket *tickets;         /* store callbacks under way */
	struct dmsr_instance *dead_codec;
	const struct dmsr_codec *dead_codec_ops;

	uint64_t backpressure_since_us, checkpoint_at_us;
	struct table_count *last_count;
	const struct relation *last_rel;
	struct pipeline_stat stat;
};

/* A store callback that may come after the run was freed. */
struct ticket {
	struct ticket *next, **at;
	struct pipeline *p;             /* NULL: freed meanwhile */
	void *arg;
};
struct ticket *ticket_new(struct pipeline *p, void *arg);
struct pipeline *ticket_use(struct ticket *t, void **arg);     /* frees it; NULL: the run is gone */

/* pipeline.c */
void pipeline_fail(struct pipeline *p, const struct err *e, const char *stage);        /* safe anywhere: the end comes from the task */
void pipeline_turn(struct pipeline *p);         /* look again from the task whether something is to be done */
struct dmsr_env pipeline_env(struct pipeline *p, const char *name, const char *scratch);

/* An empty directory of that name for files that may vanish: what a crash left there is gone. NULL: e is set. */
char *pipeline_scratch(const struct pipeline *p, const char *name, struct err *e);

/* pipeline_channels.c */
enum dmsr_load_way pipeline_load_way(const struct pipeline *p);
bool pipeline_wants_beside(const struct pipeline *p); /* a load goes beside the stream, also where the log is empty: so a target that comes late may have it */
bool pipeline_gives_all(const struct pipeline *p);      /* rows and changes, to a target that is new */
int channels_open(struct pipeline *p, struct err *e);
void channels_remember(struct pipeline *p);     /* what a streamer that is ready knows: when that is remembered, streamer_knows */
int64_t channels_memory(const struct pipeline *p); /* what a channel may have in it that is given to nobody yet */
void channels_look(struct pipeline *p);         /* may what is held follow? */
void channel_took(struct channel *c, bool has); /* a batch, or it said AGAIN */
/* Those that are there, in order: first NULL, then the one before; NULL: no more. */
struct channel *channel_next(struct pipeline *p, const struct channel *c);
static inline struct channel *channel_stream(struct pipeline *p) { return &p->channels[CHANNEL_STREAM]; }
static inline struct inlet *inlet_of(struct ptarget *t, const struct channel *c) { return &t->in[c - c->p->channels]; }
/* Do a load and the changes not wait for each other on their way from the source? */
static inline bool load_is_apart(const struct pipeline *p) { return p->channels[CHANNEL_LOAD].ops != NULL; }
/* And to the targets? */
static inline bool channel_of_load(const struct pipeline *p) { return load_is_apart(p) && !p->hold; }

/* pipeline_source.c */
int pipeline_source_open(struct pipeline *p, struct err *e);    /* and the ledger with it */
void pipeline_source_start(struct pipeline *p);
void pipeline_is_loaded(struct pipeline *p, const char *schema, const char *name, const struct position *at);

/* pipeline_begun.c */
struct begun {
	struct dmsr_begun *list;
	size_t n;
};
struct begun begun_agree(const struct pipeline *p);     /* what the source may go on with; begun_free */
void begun_free(struct begun *b);
void begun_note(const struct pipeline *p, const struct load_word *w);  /* a part is stored */
void begun_forget(const struct pipeline *p, const char *schema, const char *name);     /* the load began anew, or is whole */

/* pipeline_flow.c */
enum dmsr_verdict flow_emit(void *ctx, struct batch *b);
void flow_delivered(void *ctx, uint64_t token, const struct err *e);
void flow_streamer_resume(void *ctx);
void flow_checkpoint(struct pipeline *p, bool now);
void flow_targets_save(struct pipeline *p);      /* where each target stands, if it moved */
void flow_void_loads(struct pipeline *p);        /* whoever reads the stream is told that no more comes of those that are open there */
void flow_wake_source(struct pipeline *p);
void flow_release(struct pipeline *p);
void flow_look_level(struct pipeline *p, const struct dmsr_source_stat *s);     /* was that read that the source had when it was first heard of? */
void flow_backpressure(struct pipeline *p, bool on);

/* pipeline_target.c */
/* Is it older than the rows of that load, or of a table that is none of the job's any more? l NULL: not loaded. */
bool pipeline_is_old(const struct pipeline *p, const struct dmsr_loaded *l, const struct change *ch);
int target_open(struct pipeline *p, size_t n, struct err *e);
int target_check_stand(struct ptarget *t, struct err *e);
void target_subscribe(struct ptarget *t);
bool target_is_done(struct ptarget *t);   /* has applied all that the streamer had for it */
/* Or all before the first half of a transaction: what a log has of an earlier run, when the mode was another, ends there, and nobody reads on. */
bool target_is_left_open(struct ptarget *t);
void target_owes(struct ptarget *t, const struct batch *b, int channel); /* b is on its way to it */
void target_hold(struct ptarget *t);            /* a load begins: its stream waits */
bool target_is_loading(const struct ptarget *t); /* tables come to it; all may have come before */
void target_note_rows(struct ptarget *t);       /* what it has of loads, or what is void, has changed */
void target_look(struct ptarget *t);            /* may its stream go on? */
void target_is_level(struct ptarget *t, const struct position *p);       /* it has nothing to apply of what is before p */
int64_t target_behind_us(const struct ptarget *t);        /* as pipeline_target_stat has it */
void target_release(struct ptarget *t);

#endif
