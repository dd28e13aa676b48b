/* job: one job: what is wanted of it, in which state it is, its runs, and what happens when one of them fails. The only place that retries.
 *
 *   created -> starting -> loading -> running -+-> pausing -> paused        desired: running, paused, stopped, deleting
 *                 ^  |        |          |     |
 *                 |  +--------+----------+-----+-> retrying -> starting     the error may pass by itself
 *                 |                            +-> failed                   somebody must decide
 *                 +- stopped <- stopping <-----+-> completed                full load alone
 *
 * The state follows the desire: a verb changes the desire, makes it durable, and steers. */
#ifndef DMSR_ENGINE_JOB_H
#define DMSR_ENGINE_JOB_H
#include "engine.h"
#include "pipeline.h"

enum job_state {
	JOB_CREATED, JOB_STARTING, JOB_LOADING, JOB_RUNNING, JOB_RETRYING,
	JOB_PAUSING, JOB_PAUSED, JOB_STOPPING, JOB_STOPPED, JOB_COMPLETED, JOB_FAILED, JOB_STATES
};
enum job_desire { DESIRE_RUNNING, DESIRE_PAUSED, DESIRE_STOPPED, DESIRE_DELETING, DESIRES };

const char *job_state_name(enum job_state s);
int job_state_parse(const char *name);          /* or -1 */
bool job_can_become(enum job_state from, enum job_state to);
const char *job_desire_name(enum job_desire d);
enum job_desire job_desire_of(const json_t *spec);      /* what a spec that was found right asks for */

struct job;
/* What all jobs of a daemon share; the engine's. */
struct job_house {
	struct loop *loop;
	struct store *store;
	struct plugins *plugins;
	const struct secrets *secrets;  /* may be replaced between runs */
	const char *state_dir;
	uint64_t retry_initial_ms, retry_max_ms, drain_ms;
	bool retry_forever;
	bool is_draining;               /* the daemon ends: nothing is started any more */
	void *ctx;
	void (*changed)(void *ctx, struct job *job, const char *why);   /* its state or desire changed */
	void (*settled)(void *ctx, struct job *job);                    /* it reached a state in which nothing runs */
	void (*event)(void *ctx, struct job *job, const char *kind, const char *text);
	int (*may_run)(void *ctx, const struct job *job, struct err *e); /* no other job is in its way; NULL: none ever is */
	void (*follows)(void *ctx, struct job *job);                    /* a run that loads nothing begins, which is not one that is tried again */
};

/* What the source keeps for the job, as it was seen last: by its run, or from outside while it does not run. */
struct job_kept {
	char slot[64], status[32];      /* slot "": nothing, or not known */
	bool is_lost;
	int64_t retained_bytes, safe_bytes, lag_bytes; /* -1 unknown */
	int64_t seen_us;                /* wall clock; 0: never */
	struct err error;               /* of the newest look, when it failed */
};
#define JOB_KEPT_NONE ((struct job_kept){ .retained_bytes = -1, .safe_bytes = -1, .lag_bytes = -1 })

struct job {
	struct job_house *house;
	char uid[27];
	char *name;
	json_t *spec;                   /* with its secrets */
	int64_t generation, created_us, updated_us;
	int64_t run_began_us;
	int64_t run_generation;         /* of the spec that the run under way began with */
	enum job_state state;
	enum job_desire desire;
	int64_t state_since_us;
	const char *stop_reason;        /* "user" "error" "completed" "shutdown" "config"; NULL: none */
	bool is_from_file;              /* of jobs_dir: read-only in the API */
	char *file_error;               /* what is wrong with its file; NULL: nothing */
	struct err error;               /* code 0: none */
	char error_stage[80];
	int64_t error_since_us;
	uint64_t retries;               /* in all */
	unsigned attempts;              /* in a row, without progress */
	int64_t retry_at_us;            /* wall clock */
	struct loop_timer *retry_timer;
	struct memory *memory;
	struct pipeline *pipeline;      /* the run; NULL: none */
	json_t *warnings;               /* the newest of what source and targets gave notice of since it was last told to start: {at, message} */
	bool restart_wanted;
	bool keep_source;               /* deleting: what it made at its source stays */
	bool is_forgetting;             /* its positions are being forgotten or set: nothing else may be done with it */
	struct job_kept kept;
	int64_t look_us;                /* wall clock: when the engine looks again at what is kept; 0: at once */
	unsigned looks_failed;          /* in a row */
	bool is_looking;
	struct pipeline_stat past;      /* sums of earlier runs, for counters that must not fall */
	char *scratch;                  /* directory, below which each instance has its own */
};

/* ---- job_record.c ---- */
/* Of a spec that was found right. */
struct job *job_new(struct job_house *house, const json_t *spec);
/* As the store has it; its memory is read too (blocks). */
struct job *job_restore(struct job_house *house, const struct store_job *j, struct err *e);
void job_close_run(struct job *job);            /* the run ends at once; nothing is said to anybody */
void job_free(struct job *job);                 /* the same, and the job with it */
void job_save(struct job *job, store_done *done, void *arg);   /* as it is now, into the store; done may be NULL */
void job_file_is_right(struct job *job);       /* nothing is known against it (yet) */
/* generation rises; a run under way goes on with the old one until it begins anew: when somebody asks, or resumes the job */
void job_set_spec(struct job *job, const json_t *spec);

/* ---- job.c ---- */
const char *job_shown_state(const struct job *job);     /* as the API has it: "deleting", too */
const struct err *job_shown_error(const struct job *job); /* NULL: none that is still true, as far as is known */
void job_set_error(struct job *job, const struct err *e, const char *stage);     /* logged, and an event; the caller saves */
void job_notice(struct job *job, const char *stage, const char *text);  /* nothing ends by it, but somebody must know: a warning */
/* Is the verb allowed now? DMSR_ESTATE "job.invalid-transition". *is_there: it would change nothing. */
int job_may(const struct job *job, enum engine_verb verb, bool *is_there, struct err *e);
extern const char *const job_verb_names[];
unsigned job_allowed(const struct job *job);    /* bits 1 << ENGINE_* */
void job_do(struct job *job, enum engine_verb verb);       /* the desire moves; the caller saves */
void job_reopen(struct job *job, const char *why);     /* one that is completed has something to do again: it is stopped */
void job_forgotten(struct job *job);            /* its positions are: a load that was complete is to be made again */
void job_delete(struct job *job);               /* desire deleting; settled when stopped */
void job_shutdown(struct job *job);             /* stops the run, the desire stays */
void job_begin(struct job *job);                /* at the daemon's start: goes where it is desired */
/* The state store is lost: the run is dropped at once and the job says so, without writing anything. */
void job_state_lost(struct job *job, const struct err *e);
void job_kept_set(struct job_kept *to, const struct dmsr_kept *k); /* as seen now */
bool job_is_settled(const struct job *job);     /* nothing runs and nothing will by itself */
void job_on_retry(void *job);                   /* of its timer */

#endif
