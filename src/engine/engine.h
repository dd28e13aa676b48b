/* engine: all jobs of this daemon. All on the loop's thread; nothing blocks but engine_open.
 *
 * Of this room http knows beside it config.h, options.h (problems, secrets), and of the store idempotency keys and figures; main config.h and notify.h.
 *
 * Views are new references in the API's own JSON (dmsr-api(7)). Errors: err with a stable id; http maps ids to statuses. Field errors: problems. */
#ifndef DMSR_ENGINE_ENGINE_H
#define DMSR_ENGINE_ENGINE_H
#include "config.h"
#include "plugin.h"
#include "store.h"

/* The states that a job is shown in, in the order of enum job_state. */
#define ENGINE_STATES "created", "starting", "loading", "running", "retrying", "pausing", "paused", "stopping", "stopped", "completed", "failed", "deleting"

struct engine;
/* Opens the store, loads plugins and jobs (of the store and of jobs_dir), starts those whose desired state is running. config stays the caller's. */
int engine_open(struct loop *l, const struct config *c, struct engine **out, struct err *e);
/* SIGTERM: stops taking commands, stops sources, lets targets finish what they have, checkpoints; then done. A job's states stay as they were desired. */
void engine_drain(struct engine *g, void (*done)(void *arg), void *arg);
void engine_close(struct engine *g);            /* what was asked and is not answered yet is answered inside ("draining"); NULL is fine */
/* What only the plugins can tell of a configuration: is jobs.streamer a streamer, are log.levels of rooms? All that is wrong goes to p. g NULL: for an
 * engine that is not opened yet. */
void engine_check_config(const struct engine *g, const struct config *c, problems *p);
/* SIGHUP: new configuration (already valid): secrets, jobs_dir, limits. Returns how much of it could not be taken: files of jobs_dir; each was told. */
unsigned engine_reload(struct engine *g, const struct config *c);
bool engine_is_ready(const struct engine *g, struct err *why);     /* store writable, plugins there */
bool engine_has_room(const struct engine *g);   /* all stopped because the store was full, and it is not any more: what it has is read by a process anew */
bool engine_is_draining(const struct engine *g);
struct plugins *engine_plugins(struct engine *g);

/* The answer to a command: exactly once, on the loop, never inside the call. result: borrowed, NULL on failure. errors: borrowed problems, or NULL. */
typedef void engine_done(void *arg, const json_t *result, const struct err *e, const json_t *errors);
struct engine_call {
	const char *actor;                      /* who asked, for the audit: "token:ops", "socket:uid 0", "loopback" */
	int64_t if_generation;                  /* If-Match; -1: any */
	engine_done *done;
	void *arg;
};
enum engine_verb { ENGINE_START, ENGINE_PAUSE, ENGINE_RESUME, ENGINE_STOP, ENGINE_RESTART };

/* spec: borrowed. Durable before done. result: the job (as engine_job) or, dry run, {"valid","checks":[...],"plan":...}. */
void engine_create(struct engine *g, const json_t *spec, bool dry_run, const struct engine_call *call);
/* PUT: creates when absent (result has "created":true beside the job) */
void engine_replace(struct engine *g, const char *name, const json_t *spec, const struct engine_call *call);
void engine_patch(struct engine *g, const char *name, const json_t *merge_patch, const struct engine_call *call);
/* Drops slot and publication unless keep_source; result {"left":[{part, statement that a person may run, kept}]}, with "error" when force did not wait for
 * it. Retried in the background while the server is away: result {"pending":true}. */
void engine_delete(struct engine *g, const char *name, bool keep_source, bool force, const struct engine_call *call);
/* result {"state","desired_state"}; job.invalid-transition with allowed[] in errors */
void engine_command(struct engine *g, const char *name, enum engine_verb verb, const struct engine_call *call);
/* table: "schema.name". It is loaded again, now if the job runs, else at its next start. result as of engine_command. */
void engine_reload_table(struct engine *g, const char *name, const char *table, const struct engine_call *call);
void engine_validate(struct engine *g, const json_t *spec, const struct engine_call *call); /* {"valid","errors":[],"checks":[]} */
/* {"connector","role":"source"|"target",...options} -> {"ok","checks":[]} */
void engine_check(struct engine *g, const json_t *connection, const struct engine_call *call);
void engine_discover(struct engine *g, const json_t *connection, const struct engine_call *call); /* {"tables":[...]} */
void engine_positions_set(struct engine *g, const char *name, const json_t *body /* NULL: forget */, const struct engine_call *call); /* stopped or completed */
void engine_errors(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call);   /* {"items":[],"next"} dead letters */
void engine_errors_delete(struct engine *g, const char *name, int64_t id, const struct engine_call *call);
/* Of a job, or the daemon's (name NULL). after: 0, STORE_NEWEST (newest first), or "next" of the page before, which goes on in its order. */
void engine_events(struct engine *g, const char *name, int64_t after, int limit, const struct engine_call *call);

/* Views, at once. NULL: no such job. */
json_t *engine_jobs(struct engine *g, const char *after, int limit, const char *state, bool status, char **next /* heap, or NULL */);
/* what PUT takes back, + uid, state, desired_state, stop_reason, error, generation, created_at, updated_at, managed_by */
json_t *engine_job(struct engine *g, const char *name_or_uid, int64_t *generation);
json_t *engine_job_status(struct engine *g, const char *name);
/* By name, at most limit of them (0: all), after the table ["schema", "name"] (NULL: from the first); next: such a name when there are more, or NULL. */
json_t *engine_job_tables(struct engine *g, const char *name, const json_t *after, size_t limit, json_t **next);
json_t *engine_job_positions(struct engine *g, const char *name);
json_t *engine_connectors(struct engine *g);
json_t *engine_job_schema(struct engine *g);    /* JSON Schema of a job */
json_t *engine_connector(struct engine *g, const char *type);

/* Live events (state, progress, error), for SSE: fn is called with each; id rises. */
struct engine_observer;
struct engine_observer *engine_observe(struct engine *g, void (*fn)(void *arg, uint64_t id, const char *type, const char *job, const json_t *data), void *arg);
void engine_observe_progress(struct engine_observer *o, bool is); /* also how jobs progress, each second; at first it is */
void engine_unobserve(struct engine_observer *o);

/* Idempotency keys of POST (http asks before and tells after; store behind it). */
struct store *engine_store(struct engine *g);

/* Numbers for /metrics: fn once per job, fields borrowed. */
struct engine_job_metrics {
	const char *name, *state, *error_code;
	bool source_connected, streamer_connected;
	int64_t lag_bytes, retained_bytes, safe_bytes;          /* -1 unknown */
	int64_t slot_lost;                                      /* 0 or 1; -1: there is no slot, or it was not seen yet */
	double lag_seconds;                                     /* -1 unknown */
	uint64_t events[6];                                     /* insert update delete truncate read ddl, received */
	uint64_t applied[6];                                    /* summed over targets */
	uint64_t bytes, transactions, retries, dead_letters, checkpoints;
	int64_t last_event_us, last_checkpoint_us;
	uint64_t queue_bytes, queue_limit_bytes, log_bytes;
	uint64_t backpressure_us;
	uint32_t tables_total, tables_loaded;
	uint64_t load_rows;
	uint64_t builds_left;                                   /* keys, indexes and the like that the targets make behind the load */
	struct loop_slices latency;                             /* commit at the source -> applied, as the loop's bounds */
};
void engine_each_job(struct engine *g, void (*fn)(void *arg, const struct engine_job_metrics *m), void *arg);

#endif
