/* engine_files: jobs of jobs_dir: each *.json there is one job, read at the start and at SIGHUP. They are changed in their file alone. A file that goes
 * leaves its job, stopped, to the API: what it made at its servers is not dropped by a missing file. */
#include "engine_int.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_job_file(const struct dirent *f)
{
	size_t n = strlen(f->d_name);
	return n > 5 && f->d_name[0] != '.' && !strcmp(f->d_name + n - 5, ".json");
}

static void mark(struct engine *g, struct job *job, bool from_file)
{
	if (job->is_from_file == from_file)
		return;
	job->is_from_file = from_file;
	store_put(g->store, job->uid, "flag", "from_file", from_file ? "1" : NULL, NULL, NULL);
}

static void log_problems(const char *path, const problems *p)
{
	for (size_t i = 0; i < json_array_size(p); i++) {
		const json_t *v = json_array_get(p, i);
		const char *pointer = json_string_value(json_object_get(v, "pointer")), *detail = json_string_value(json_object_get(v, "detail"));
		log_error("jobs.d", NULL, "%s: %s: %s", path, pointer, detail);
	}
}

/* Returns the job that the file speaks of, or NULL. */
static struct job *take(struct engine *g, const char *path, const json_t *json)
{
	problems *p = json_array();
	struct spec *spec = spec_parse(json, g->plugins, g->secrets, p);
	struct job *job = NULL;
	const char *desired = json_string_value(json_object_get(json, "desired_state"));
	bool stopped = desired && !strcmp(desired, "stopped");
	if (!spec) {
		log_problems(path, p);
		const char *name = json_string_value(json_object_get(json, "name"));
		job = name ? engine_find(g, name) : NULL; /* as it was */
		json_decref(p);
		return job;
	}
	json_decref(p);
	json_t *clean = spec_clean(json);
	job = engine_find(g, spec->name);
	if (job && !job->is_from_file && job->desire != DESIRE_DELETING && !json_equal(job->spec, clean)) {
		log_error("jobs.d", spec->name, "%s: there is another job of this name, made by the API: delete that one, or rename this one", path);
		job = NULL;
	} else if (!job) {
		job = job_new(&g->house, json);
		engine_insert(g, job);
		job->desire = stopped ? DESIRE_STOPPED : DESIRE_RUNNING;
		job_save(job, NULL, NULL);
		mark(g, job, true);
		log_info("jobs.d", job->name, "%s: new", path);
		job_begin(job);
	} else {
		bool is_there;
		struct err e = { 0 };
		mark(g, job, true);
		if (!json_equal(job->spec, clean)) {
			log_info("jobs.d", job->name, "%s: changed", path);
			job_set_spec(job, clean);
			if (job->desire == DESIRE_RUNNING && !job_may(job, VERB_RESTART, &is_there, &e))
				job_do(job, VERB_RESTART);
			job_save(job, NULL, NULL);
		}
		if (stopped && job->desire == DESIRE_RUNNING && !job_may(job, VERB_STOP, &is_there, &e)) {
			job_do(job, VERB_STOP);
			job_save(job, NULL, NULL);
		}
	}
	json_decref(clean);
	spec_free(spec);
	return job;
}

static void let_go(struct engine *g, struct job *job)
{
	bool is_there;
	struct err e = { 0 };
	log_warn("jobs.d", job->name, "its file is gone: the job is stopped, and the API's to delete");
	mark(g, job, false);
	if (!job_may(job, VERB_STOP, &is_there, &e) && !is_there)
		job_do(job, VERB_STOP);
	job->stop_reason = "config";
	job_save(job, NULL, NULL);
}

void engine_files_read(struct engine *g)
{
	const char *dir = config_str(g->config, "jobs_dir");
	struct dirent **files = NULL;
	size_t nfound = 0;
	bool unread = false;
	int n = dir && *dir ? scandir(dir, &files, is_job_file, alphasort) : 0;
	struct job **found = mem_zalloc(((size_t)(n > 0 ? n : 0) + 1) * sizeof *found);
	for (int i = 0; i < n; i++) {
		char *path = mem_printf("%s/%s", dir, files[i]->d_name);
		json_error_t at;
		json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
		struct job *job = json && json_is_object(json) ? take(g, path, json) : NULL;
		if (!json)
			log_error("jobs.d", NULL, "%s:%d:%d: %s", path, at.line, at.column, at.text);
		if (job)
			found[nfound++] = job;
		unread |= !job; /* what cannot be read now is not gone */
		json_decref(json);
		free(path);
		free(files[i]);
	}
	free(files);
	for (size_t i = 0; n >= 0 && !unread && i < g->njobs; i++) {
		bool is_there = !g->jobs[i]->is_from_file;
		for (size_t k = 0; k < nfound; k++)
			is_there |= found[k] == g->jobs[i];
		if (!is_there)
			let_go(g, g->jobs[i]);
	}
	free(found);
}
