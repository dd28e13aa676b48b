/* engine_int: what the parts of the engine share:
 *
 *   engine.c          life, list of jobs        engine_command.c   what is asked of it        engine_delete.c   jobs on their way out
 *   engine_probe.c    one-shot questions        engine_look.c      what servers keep for jobs that do not run
 *   engine_view.c     JSON of what is           engine_files.c     jobs_dir                engine_own.c   what no two jobs may have */
#ifndef DMSR_ENGINE_ENGINE_INT_H
#define DMSR_ENGINE_ENGINE_INT_H
#include "engine.h"
#include "job.h"

struct engine_observer {
	struct engine_observer *next;
	struct engine *g;
	void (*fn)(void *arg, uint64_t id, const char *type, const char *job, const json_t *data);
	void *arg;
	bool wants_progress;
};

struct deletion;        /* engine_delete.c: what a deleted job made at its servers goes */
struct probing;         /* engine_probe.c: questions under way */

/* An answer that is due at the loop's next turn. */
struct answer {
	struct answer *next;
	engine_done *done;
	void *arg;
	json_t *result, *errors;
	struct err error;
};

struct engine {
	struct loop *loop;
	const struct config *config;
	struct store *store;
	struct plugins *plugins;
	struct secrets *secrets;
	struct job_house house;
	struct job **jobs;              /* by name */
	size_t njobs;
	struct loop_task *task;
	struct loop_timer *second;      /* progress events, retries of deletions */
	struct loop_task *telling;      /* progress events, from this job on */
	size_t told;
	struct answer *answers, **answers_end;
	struct engine_observer *observers;
	uint64_t event_id;
	struct deletion *deletions;
	struct probing *probings;
	unsigned nlooks;
	uint64_t look_ms;
	void (*drained)(void *arg);
	void *drained_arg;
	struct err store_error;
	bool store_failed;
	bool is_closing;                /* whatever is answered now was not asked to its end */
};

/* engine.c */
struct job *engine_find(const struct engine *g, const char *name_or_uid);
void engine_insert(struct engine *g, struct job *job);
void engine_remove(struct engine *g, struct job *job); /* frees it */
void engine_turn(struct engine *g);
/* Answers at the next turn. result, errors: taken. e: copied; NULL: none. */
void engine_answer(struct engine *g, const struct engine_call *call, json_t *result, const struct err *e, json_t *errors);
void engine_tell(struct engine *g, const char *type, const char *job, json_t *data);   /* to observers; "ts" is added */
void engine_audit(struct engine *g, const struct job *job, const struct engine_call *call, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* DMSR_ESTATE "draining" or the store's error: nothing may be changed now. */
int engine_may_change(struct engine *g, struct err *e);

/* engine_probe.c */
/* Runs the preflight of a spec or of one connection; done(arg, checks (new reference), e). Each of these answers once: "draining" when the engine is closed
 * first, and then from engine_close. */
typedef void probe_done(void *arg, json_t *checks, const struct err *e);
void engine_probe_job(struct engine *g, struct spec *spec /* taken */, const struct job *job /* that there is of it; or NULL */, probe_done *done, void *arg);
void engine_probe_connection(struct engine *g, struct spec_connection *c /* taken */, probe_done *done, void *arg);
void engine_probe_discover(struct engine *g, struct spec_connection *c /* taken */, probe_done *done, void *arg);
void engine_probes_cancel(struct engine *g);    /* the engine is closed */
/* Drops what the job made at its servers: all of it; all, but that at the source it is only told ("kept" in left); what hinders it from beginning anew. */
typedef void drop_done(void *arg, json_t *left /* statements; new reference */, const struct err *e);
enum drop { DROP_ALL, DROP_KEEP_SOURCE, DROP_ANEW };
void engine_probe_drop(struct engine *g, struct job *job, enum drop what, drop_done *done, void *arg);
/* What the source keeps for the job now; at: a position that it shall go on from, or NULL. kept: borrowed, nothing with e. */
typedef void look_done(void *arg, const struct job_kept *kept, const struct err *e);
void engine_probe_look(struct engine *g, struct job *job, const struct position *at, look_done *looked, void *arg);
/* Whether the targets of a job that loads nothing have what its changes want is told by no load: each error of their preflight becomes a warning of its. */
void engine_probe_targets(struct engine *g, struct job *job);
void engine_probes_forget(struct engine *g, const struct job *job);     /* the job goes; questions about it go on */
bool checks_are_good(const json_t *checks);

/* engine_lag.c: how far what is applied is behind what the source has written and committed. */
struct lag {
	int64_t bytes;                  /* of the source's log; -1: unknown */
	double seconds;                 /* -1: unknown */
	const char *reason;             /* why one of them is; NULL: both are known. Borrowed from the job */
};
struct lag lag_of_job(const struct job *job, const struct pipeline_stat *st /* of its run; not looked at when there is none */);
struct lag lag_of_target(const struct job *job, const struct pipeline_stat *st, const struct pipeline_target_stat *t);

/* engine_look.c */
void engine_looks(struct engine *g);            /* once a second */

/* engine_command.c */
/* What a job may not be made into: its name, and what its position is a position in. */
void engine_check_immutable(const struct job *job, const json_t *spec, problems *p);
/* What is kept of a job's JSON that names no streamer: an old job keeps the one it has, a new one (NULL) gets the configuration's. New reference. */
json_t *engine_whole_spec(const struct engine *g, const json_t *json, const struct job *old);
/* The job, when it may be changed by this call; else the call is answered, and NULL. */
struct job *engine_find_to_change(struct engine *g, const char *name, const struct engine_call *call, bool spec_too);
int engine_refuse(struct engine *g, const struct engine_call *call, const struct err *e, json_t *errors /* taken */); /* returns e->code */

/* engine_delete.c */
json_t *engine_deletion_view(const struct engine *g, const struct job *job);    /* NULL: it is not deleted */
void deletions_turn(struct engine *g);          /* settled jobs whose desire is deleting */
void deletions_free(struct engine *g);

/* engine_files.c */
/* jobs_dir: jobs made, changed, let go. Returns how many files could not be taken; each was told. */
unsigned engine_files_read(struct engine *g);

/* engine_own.c */
/* Would the streamer of a job's JSON write what is another job's? Then that is added to p. self: the job that it is of; NULL: a new one. A job that stays where
 * it is has to give way to older ones alone. */
void engine_check_own(const struct engine *g, const json_t *spec, const struct job *self, problems *p);
bool engine_refuse_own(struct engine *g, const json_t *spec, const struct job *self, const struct engine_call *call); /* the same; true: answered */
int engine_may_run(void *ctx, const struct job *job, struct err *e);    /* the same, of job_house */

/* engine_view.c */
/* Of the run; without one as it is remembered. False: the job has no such target. */
bool view_target(const struct job *job, size_t i, struct pipeline_target_stat *out);
json_t *view_error(const struct job *job);
json_t *view_time(int64_t us);                  /* null: never */
json_t *view_known(int64_t v);                  /* null: below 0, not known */
json_t *view_event(const struct job *job);

#endif
