/* engine_lag: how far what is applied is behind what the source has written. What is not known is not told as 0: a run that has just begun has heard nothing
 * yet of what waits at the source, what a log on disk holds may be of any age, and what was true when a run ended is true no longer. */
#include "engine_int.h"
#include <string.h>

enum { FRESH_US = 15000000 };

static double seconds_since(int64_t us)
{
	int64_t now = wall_now_us();
	return now > us ? (double)(now - us) / 1e6 : 0;
}

/* Of who has applied all that was read. */
static double unread_seconds(const struct job *job, const struct pipeline_stat *st)
{
	const struct dmsr_source_stat *s = &st->source;
	if (!s->last_event_us || job->desire == DESIRE_PAUSED)
		return -1; /* nobody reads: how old the newest commit is that was not read, nobody knows */
	if (!st->is_level)
		return s->last_commit_us ? seconds_since(s->last_commit_us) : -1;
	if (s->paused && s->lag_bytes > 0)
		return seconds_since(s->last_event_us);
	double silence = seconds_since(s->last_event_us);
	return silence < FRESH_US / 1e6 ? 0 : silence;
}

static double target_seconds(const struct job *job, const struct pipeline_stat *st, const struct pipeline_target_stat *t)
{
	if (t->is_caught_up)
		return unread_seconds(job, st);
	return t->behind_us ? seconds_since(t->behind_us) : -1;
}

/* What was confirmed is not outstanding for the source, and is all of it for a target that has applied nothing; how much that is only the run knows that
 * saw the stream begin. */
static bool is_uncounted(const struct job *job, const struct pipeline_target_stat *t)
{
	return !t->level_lsn && !t->is_caught_up && !position_is_none(memory_delivered(job->memory));
}

static int64_t target_bytes(const struct job *job, const struct pipeline_stat *st, const struct pipeline_target_stat *t)
{
	const struct dmsr_source_stat *s = &st->source;
	if (is_uncounted(job, t))
		return -1;
	int64_t lag = s->server_lsn > t->level_lsn ? (int64_t)(s->server_lsn - t->level_lsn) : 0;
	bool has_all = t->is_caught_up || !t->level_lsn; /* that was confirmed */
	return s->lag_bytes < 0 || (has_all && s->lag_bytes < lag) ? s->lag_bytes : lag;
}

static const char *const unread_log = "it is not known yet how much of what changed meanwhile is held for the time of the load";
static const char *const uncounted = "a target has applied nothing yet of what was confirmed to the source, and it is not known how much that is";

/* While the job does not run: what was delivered, so that the source need not keep it, and was not applied by a target. -1: unknown. */
static int64_t held_bytes(const struct job *job, const struct position *applied)
{
	const struct position *delivered = memory_delivered(job->memory);
	if (position_is_none(applied) && !position_is_none(delivered))
		return -1;
	if (position_is_none(applied) || !position_is_comparable(delivered, applied))
		return 0;
	uint64_t from = applied->flush ? applied->flush : applied->lsn, to = delivered->flush ? delivered->flush : delivered->lsn;
	return to > from ? (int64_t)(to - from) : 0;
}

static const char *const unfollowed = "a job of mode full-load follows no changes";

static bool has_changes(const struct job *job)
{
	const char *mode = json_string_value(json_object_get(job->spec, "mode"));
	return !mode || strcmp(mode, "full-load") != 0;
}

static struct lag lag_without_run(const struct job *job, const struct position *applied)
{
	const struct job_kept *k = &job->kept;
	int64_t held = held_bytes(job, applied);
	if (k->lag_bytes < 0 && !has_changes(job))
		return (struct lag){ -1, -1, unfollowed };
	if (k->lag_bytes < 0)
		return (struct lag){ -1, -1, err_is_set(&k->error) ? k->error.message : "the source was not asked yet since the job's run ended" };
	if (held < 0)
		return (struct lag){ -1, -1, uncounted };
	return (struct lag){ k->lag_bytes + held, -1, "nothing is read while the job does not run" };
}

/* Of the target that is farthest back. */
static struct lag job_without_run(const struct job *job)
{
	struct lag lag = lag_without_run(job, memory_delivered(job->memory));
	struct pipeline_target_stat t;
	for (size_t i = 0; lag.bytes >= 0 && view_target(job, i, &t); i++) {
		const struct lag one = lag_without_run(job, &t.applied);
		if (one.bytes < 0 || one.bytes > lag.bytes)
			lag = one;
	}
	return lag;
}

static const char *reason_for(const struct job *job, const struct pipeline_stat *st, const struct lag *lag)
{
	if (lag->bytes >= 0 && lag->seconds >= 0)
		return NULL;
	if (job->desire == DESIRE_PAUSED && lag->bytes >= 0)
		return "nothing is read while the job is paused";
	if (lag->bytes < 0 && !has_changes(job))
		return unfollowed;
	if (lag->bytes < 0)
		return st->source.lag_bytes < 0 ? "the source has not told yet how much it has written" : st->is_held ? unread_log : uncounted;
	return "it is not known yet how old the oldest change is that was not applied";
}

struct lag lag_of_target(const struct job *job, const struct pipeline_stat *st, const struct pipeline_target_stat *t)
{
	if (!job->pipeline)
		return lag_without_run(job, &t->applied);
	struct lag lag = { target_bytes(job, st, t), target_seconds(job, st, t), NULL };
	if (lag.bytes < 0 && !has_changes(job)) /* rows of the load are on their way */
		lag.seconds = -1;
	lag.reason = reason_for(job, st, &lag);
	return lag;
}

/* That is confirmed, and nobody has it. */
static void lag_of_held(const struct pipeline_stat *st, struct lag *lag)
{
	const struct dmsr_source_stat *s = &st->source;
	uint64_t end = s->received.flush > s->server_lsn ? s->received.flush : s->server_lsn; /* the server was asked some time ago */
	if (!st->held_lsn || s->lag_bytes < 0)
		lag->bytes = -1;
	else if (end > st->held_lsn)
		lag->bytes = (int64_t)(end - st->held_lsn);
	lag->seconds = st->held_us ? seconds_since(st->held_us) : -1;
}

struct lag lag_of_job(const struct job *job, const struct pipeline_stat *st)
{
	if (!job->pipeline)
		return job_without_run(job);
	struct lag lag = { st->source.lag_bytes, 0, NULL };
	struct pipeline_target_stat t;
	size_t i = 0;
	for (; pipeline_target_stat(job->pipeline, i, &t); i++) {
		const struct lag one = lag_of_target(job, st, &t);
		lag.bytes = one.bytes < 0 || lag.bytes < 0 ? -1 : one.bytes > lag.bytes ? one.bytes : lag.bytes;
		lag.seconds = one.seconds < 0 || lag.seconds < 0 ? -1 : one.seconds > lag.seconds ? one.seconds : lag.seconds;
	}
	if (!i) /* what was read is on its way to others */
		lag.seconds = unread_seconds(job, st);
	if (!i && st->is_held)
		lag_of_held(st, &lag);
	if (job->desire == DESIRE_PAUSED || !st->source.last_event_us)
		lag.seconds = -1;
	lag.reason = reason_for(job, st, &lag);
	return lag;
}
