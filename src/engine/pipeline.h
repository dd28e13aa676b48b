/* pipeline: one run of a job: its source, streamer and targets opened, wired, fed and closed. It judges nothing: what fails ends the run, and the job
 * decides what then.
 *
 *   OPENING -> TARGETS -> STREAMER -> FLOWING -> DRAINING -> STOPPING -> ENDED       any of them -> ENDED, by an error; the first four -> STOPPING
 *   (log)      (each says   (ready)    (source     (source     (each instance
 *               where it               started)     paused)     says stopped)
 *               stands)
 *
 * Order that is never broken: delivered (ledger) -> durable in the state store (memory) -> confirmed to the source. Flow control: a streamer that is full
 * says AGAIN, the batch is held here, the source is told AGAIN and reads no more; its keepalives go on. */
#ifndef DMSR_ENGINE_PIPELINE_H
#define DMSR_ENGINE_PIPELINE_H
#include "ledger.h"
#include "memory.h"
#include "spec.h"

enum pipeline_end { PIPELINE_FAILED, PIPELINE_STOPPED, PIPELINE_COMPLETED };
struct pipeline_host {
	void *ctx;
	void (*loading)(void *ctx);     /* rows of a load are under way */
	void (*flowing)(void *ctx);     /* every table is loaded at every target (or none is to be); changes flow */
	void (*progress)(void *ctx);    /* something became durable */
	void (*quiet)(void *ctx);       /* paused, and pipeline_is_quiet; may be told again */
	void (*ddl)(void *ctx, unsigned columns /* before */, const struct relation *rel, const struct position *at);
	void (*notice)(void *ctx, const char *stage, const char *text); /* source or target: somebody must know */
	/* The run is over and everything in it closed; e and stage ("source", "streamer", a target's name, "state") for FAILED.
	 * pipeline_free may be called inside. */
	void (*ended)(void *ctx, enum pipeline_end how, const struct err *e, const char *stage);
};
struct pipeline_run {
	struct loop *loop;
	struct store *store;
	const struct plugins *plugins;
	struct memory *memory;          /* the job's; outlives the run */
	struct spec *spec;              /* taken */
	const char *uid, *name;
	const char *scratch;            /* directory, made when it is missing */
	struct pipeline_host host;
};

#define PIPELINE_LOADING "pipeline.loading"     /* note: a load has begun, and a target has not all of it; not of a load that goes through the stream */
#define PIPELINE_FOLLOWED "pipeline.followed"   /* note: a run has begun to follow changes, for which something is kept at the source */

struct pipeline;
/* Answers from the loop, never inside a call. */
struct pipeline *pipeline_start(const struct pipeline_run *run);
void pipeline_pause(struct pipeline *p);        /* the source reads no more; what was read goes on to the targets */
void pipeline_resume(struct pipeline *p);
/* Paused, and all that was read is stored, but for what waits for something that a paused source does not send: the end of a transaction that was read in
 * part, or of a load. */
bool pipeline_is_quiet(struct pipeline *p);
bool pipeline_is_flowing(const struct pipeline *p);     /* host.flowing was called */
/* Lets the targets finish what was read, for at most drain_ms, stores it, confirms it, stops all; then ended(STOPPED). */
void pipeline_stop(struct pipeline *p, uint64_t drain_ms);
void pipeline_free(struct pipeline *p);         /* at once, whatever it was doing; NULL is fine */

struct pipeline_target_stat {
	const char *name, *connector;
	struct dmsr_target_stat stat;
	struct position applied;        /* as told to us */
	uint64_t waiting_batches;
	int64_t behind_us;              /* source commit time of the oldest that it has not applied, as far as is known; 0: unknown */
	uint64_t level_lsn;             /* nothing of the source's log before that has it to apply; 0: unknown */
	uint64_t rows_applied;
	bool is_caught_up, load_done;
};
struct pipeline_stat {
	struct dmsr_source_stat source;
	struct dmsr_streamer_stat streamer;
	struct ledger_stat ledger;
	uint64_t events[6];             /* insert update delete truncate read ddl, received in this run */
	uint64_t applied[6];
	uint64_t bytes, transactions, dead_letters, checkpoints;
	int64_t last_event_us, last_checkpoint_us;
	uint64_t backpressure_us;
	bool is_loading;                /* tables are on their way, be it that the job had loaded all before */
	bool is_full;                   /* the streamer takes no more now */
	bool is_held;                   /* changes wait for a load, and the streamer has not been given them */
	uint64_t held_lsn;              /* of the first of them, and when that was committed; 0: not known yet */
	int64_t held_us;
	bool is_level;                  /* what the source had written when this run (or a resumed one) first heard of it was read */
	int64_t load_began_us;
	const char *phase;
	struct loop_slices latency;     /* commit at the source -> applied */
};
void pipeline_stat(struct pipeline *p, struct pipeline_stat *out);
bool pipeline_target_stat(struct pipeline *p, size_t i, struct pipeline_target_stat *out);      /* false: no such target */

#endif
