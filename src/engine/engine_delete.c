/* engine_delete: a job on its way out: it stops, what it made at its servers is dropped, its record goes.
 *
 * The desire is durable before anything is dropped, and so is that the source's part is to be kept: a daemon that ends in between goes on with it. While a
 * server does not answer it is tried again and again; that it waits, and for what, the job shows. */
#include "engine_int.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct deletion {
	struct deletion *next;
	struct engine *g;
	struct job *job;
	struct engine_call call;        /* done NULL: answered */
	bool force, is_dropping;
	unsigned attempts;
	int64_t next_us;
	json_t *left;                   /* statements: what could not be dropped, or was to be kept */
	json_t *error;                  /* why it could not, when the job is forgotten all the same */
};

#define FORCE_HINT "it is tried again until it succeeds; DELETE with ?force=1 forgets the job and leaves what it made"

static struct deletion *deletion_of(const struct engine *g, const struct job *job)
{
	struct deletion *d = g->deletions;
	while (d && d->job != job)
		d = d->next;
	return d;
}

static struct deletion *deletion_new(struct engine *g, struct job *job)
{
	struct deletion *d = mem_alloc(sizeof *d);
	*d = (struct deletion){ .next = g->deletions, .g = g, .job = job, .left = json_array() };
	g->deletions = d;
	return d;
}

static void deletion_answer(struct deletion *d, json_t *result, const struct err *e)
{
	if (d->call.done)
		engine_answer(d->g, &d->call, result, e, NULL);
	else
		json_decref(result);
	d->call.done = NULL;
}

static void deletion_free(struct deletion *d)
{
	struct deletion **at = &d->g->deletions;
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	json_decref(d->left);
	json_decref(d->error);
	free(d);
}

static void remove_tree(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	for (const struct dirent *f; d && (f = readdir(d));) {
		if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, ".."))
			continue;
		if (unlinkat(dirfd(d), f->d_name, 0))
			remove_tree(dirfd(d), f->d_name);
	}
	if (d)
		closedir(d);
	unlinkat(at, name, AT_REMOVEDIR);
}

/* The job's directories, with all in them; blocks. */
static void remove_files(const struct job *job)
{
	char *own = mem_printf("%s/jobs/%s", job->house->state_dir, job->uid);
	remove_tree(AT_FDCWD, own);
	free(own);
}

static void on_gone(void *arg, const struct err *e)
{
	struct deletion *d = arg;
	if (e) { /* the store is lost, and every job with it: the record is still there, and the deletion goes on when the daemon is started again */
		deletion_answer(d, NULL, e);
		return;
	}
	json_t *data = json_pack("{s:s}", "name", d->job->name);
	log_info("engine", d->job->name, "deleted");
	engine_tell(d->g, "deleted", d->job->name, data);
	json_decref(data);
	remove_files(d->job);
	engine_remove(d->g, d->job);
	deletion_answer(d, json_pack("{s:O, s:O*}", "left", d->left, "error", d->error), NULL);
	deletion_free(d);
}

static void on_drop(void *arg, json_t *left, const struct err *e)
{
	struct deletion *d = arg;
	if (d->g->is_closing) /* it goes on when the daemon is started again */
		return;
	json_decref(d->left);
	d->left = json_incref(left);
	if (e && !d->force) {
		d->is_dropping = false;
		d->attempts++;
		d->next_us = wall_now_us() + (d->attempts < 6 ? 1000000LL << d->attempts : 60000000LL);
		job_set_error(d->job, e, "delete");
		job_save(d->job, NULL, NULL);
		json_t *error = json_pack("{s:s, s:s}", "code", e->id, "message", e->message);
		json_t *pending = json_pack("{s:b, s:O, s:o, s:s}", "pending", 1, "left", d->left, "error", error, "hint", FORCE_HINT);
		deletion_answer(d, pending, NULL);
		return;
	}
	json_decref(d->error);
	d->error = NULL;
	if (e)
		d->error = json_pack("{s:s, s:s}", "code", e->id, "message", e->message);
	store_job_delete(d->g->store, d->job->uid, on_gone, d);
}

static void drop(struct deletion *d)
{
	d->is_dropping = true;
	engine_probe_drop(d->g, d->job, d->job->keep_source ? DROP_KEEP_SOURCE : DROP_ALL, on_drop, d);
}

json_t *engine_deletion_view(const struct engine *g, const struct job *job)
{
	const struct deletion *d = deletion_of(g, job);
	if (job->desire != DESIRE_DELETING)
		return NULL;
	const char *what = !job_is_settled(job) ? "the job to stop" : d && d->attempts ? job->error.message : "its servers to drop what it made";
	return json_pack("{s:s, s:i, s:o, s:s}", "waits_for", what, "attempts", d ? (int)d->attempts : 0,
		"next_at", d && !d->is_dropping ? view_time(d->next_us) : json_null(), "hint", FORCE_HINT);
}

void deletions_turn(struct engine *g)
{
	for (struct deletion *d = g->deletions, *next; d; d = next) {
		next = d->next;
		if (d->is_dropping || !job_is_settled(d->job) || wall_now_us() < d->next_us || g->store_failed)
			continue;
		drop(d);
	}
	/* those that a restart of the daemon interrupted */
	for (size_t i = 0; i < g->njobs; i++) {
		struct job *job = g->jobs[i];
		if (job->desire == DESIRE_DELETING && job_is_settled(job) && !g->store_failed && !deletion_of(g, job))
			drop(deletion_new(g, job));
	}
}

void deletions_free(struct engine *g)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "draining", "the daemon is stopping; the job is deleted when it is there again");
	while (g->deletions) {
		deletion_answer(g->deletions, NULL, &e);
		deletion_free(g->deletions);
	}
}

void engine_delete(struct engine *g, const char *name, bool keep_source, bool force, const struct engine_call *call)
{
	struct err e = { 0 };
	struct job *job = engine_find_to_change(g, name, call, false);
	if (!job)
		return;
	if (job->is_from_file) {
		err_set(&e, DMSR_ESTATE, "job.managed-by-file",
			"job %s comes from a file in jobs_dir: remove the file and send SIGHUP, then delete it", job->name);
		engine_refuse(g, call, &e, NULL);
		return;
	}
	struct deletion *d = deletion_of(g, job);
	if (!d) {
		d = deletion_new(g, job);
	} else if (d->call.done) {
		err_set(&e, DMSR_ESTATE, "job.invalid-transition", "job %s is being deleted", job->name);
		engine_refuse(g, call, &e, NULL);
		return;
	}
	engine_audit(g, job, call, "job %s deleted%s%s", job->name, keep_source ? ", slot and publication kept" : "", force ? ", by force" : "");
	d->call = *call;
	d->call.actor = NULL;
	d->force = force;
	d->next_us = 0;
	job->keep_source = keep_source;
	store_put(g->store, job->uid, "flag", "keep_source", keep_source ? "1" : NULL, NULL, NULL);
	job_delete(job);
	job_save(job, NULL, NULL);
	engine_turn(g);
}
