/* engine_look: what servers keep for jobs that do not run. A run tells it itself; without one nobody would see a slot that holds back the server's log until
 * its disk is full, or one that is lost. So the source of each job without a run is asked now and then: soon after a run has ended, then every
 * jobs.look_interval, and less often while it does not answer. A job for which nothing is kept is left alone until it has run again. */
#include "engine_int.h"
#include <stdlib.h>
#include <string.h>

enum { LOOKS_MAX = 4 /* at a time */, SLOWER_MAX = 5 /* times twice as slow */ };

struct look {
	struct engine *g;
	char uid[27];
};

static void look_failed(struct engine *g, struct job *job, const struct err *e)
{
	unsigned slower = job->looks_failed < SLOWER_MAX ? job->looks_failed : SLOWER_MAX;
	if (!job->looks_failed++)
		log_warn("engine", job->name, "what the source keeps for the job is not known: %s: %s; it is asked again", e->id, e->message);
	job->kept.error = *e;
	job->kept.lag_bytes = -1;
	job->look_us = wall_now_us() + (int64_t)(g->look_ms << slower) * 1000;
}

static void look_told(struct engine *g, struct job *job, const struct job_kept *kept)
{
	bool was_lost = job->kept.is_lost;
	job->kept = *kept;
	job->looks_failed = 0;
	job->look_us = kept->slot[0] ? wall_now_us() + (int64_t)g->look_ms * 1000 : INT64_MAX;
	if (!kept->is_lost || was_lost)
		return;
	char *text = mem_printf("slot %s is %s: the job cannot go on from where it stands", kept->slot, kept->status);
	log_error("engine", job->name, "%s", text);
	g->house.event(g->house.ctx, job, "slot", text);
	free(text);
}

static void on_looked(void *arg, const struct job_kept *kept, const struct err *e)
{
	struct look *l = arg;
	struct job *job = l->g->is_closing ? NULL : engine_find(l->g, l->uid);
	l->g->nlooks--;
	if (job)
		job->is_looking = false;
	if (job && !job->pipeline && e)
		look_failed(l->g, job, e);
	else if (job && !job->pipeline)
		look_told(l->g, job, kept);
	free(l);
}

void engine_looks(struct engine *g)
{
	int64_t now = wall_now_us();
	if (g->store_failed || g->house.is_draining)
		return;
	for (size_t i = 0; i < g->njobs && g->nlooks < LOOKS_MAX; i++) {
		struct job *job = g->jobs[i];
		if (job->pipeline || job->is_looking || job->is_forgetting || job->desire == DESIRE_DELETING || now < job->look_us)
			continue;
		struct look *l = mem_zalloc(sizeof *l);
		l->g = g;
		memcpy(l->uid, job->uid, sizeof l->uid);
		job->is_looking = true;
		g->nlooks++;
		engine_probe_look(g, job, NULL, on_looked, l);
	}
}
