/* engine_files: jobs of jobs_dir: each *.json there is one job, read at the start and at SIGHUP. They are changed in their file alone. A file that goes
 * leaves its job, stopped, to the API: what it made at its servers is not dropped by a missing file. */
#include "config_int.h"
#include "engine_int.h"
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
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

/* What a file says is not taken. Said in the log, in the history of its job (or the daemon's, without one), and in the job itself. */
static void not_taken(struct engine *g, struct job *job, const char *path, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void not_taken(struct engine *g, struct job *job, const char *path, const char *fmt, ...)
{
	char detail[640];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	char *text = mem_printf("%s: %s", path, detail);
	const struct store_event ev = { .ts_us = wall_now_us(), .kind = "config", .text = text };
	log_error("jobs.d", job ? job->name : NULL, "%s", text);
	if (job && job->is_from_file && !job->file_error)
		job->file_error = mem_strdup(text);
	if (job)
		g->house.event(g->house.ctx, job, "config", text);
	else if (!g->store_failed)
		store_event_put(g->store, NULL, &ev);
	free(text);
}

static void not_taken_for(struct engine *g, struct job *job, const char *path, const problems *p)
{
	for (size_t i = 0; i < json_array_size(p); i++) {
		const json_t *v = json_array_get(p, i);
		const char *pointer = json_string_value(json_object_get(v, "pointer")), *detail = json_string_value(json_object_get(v, "detail"));
		not_taken(g, job, path, "%s: %s", *pointer ? pointer : "/", detail);
	}
}

/* A desire that the file states is followed each time it is read; one that it does not state is the API's to say. */
static void follow(struct job *job, const json_t *json)
{
	static const enum engine_verb verbs[] = { [DESIRE_RUNNING] = ENGINE_START, [DESIRE_PAUSED] = ENGINE_PAUSE, [DESIRE_STOPPED] = ENGINE_STOP };
	enum job_desire desire = job_desire_of(json);
	struct err e = { 0 };
	bool is_there;
	if (!json_object_get(json, "desired_state") || job->desire == desire || job_may(job, verbs[desire], &is_there, &e))
		return;
	job_do(job, verbs[desire]);
	job_save(job, NULL, NULL);
}

static struct job *make(struct engine *g, const char *path, const json_t *json)
{
	struct job *job = job_new(&g->house, json);
	engine_insert(g, job);
	job->desire = job_desire_of(json);
	job_save(job, NULL, NULL);
	mark(g, job, true);
	log_info("jobs.d", job->name, "%s: new", path);
	job_begin(job);
	return job;
}

static void change(struct job *job, const char *path, const json_t *clean)
{
	bool is_there;
	struct err e = { 0 };
	if (json_equal(job->spec, clean))
		return;
	log_info("jobs.d", job->name, "%s: changed", path);
	job_set_spec(job, clean);
	if (job->desire == DESIRE_RUNNING && !job_may(job, ENGINE_RESTART, &is_there, &e))
		job_do(job, ENGINE_RESTART);
	job_save(job, NULL, NULL);
}

/* The file's job is there (or not: job NULL), and the file is right in itself. */
static bool may_take(struct engine *g, struct job *job, const char *path, const json_t *clean)
{
	problems *p = json_array();
	bool is_foreign = job && !job->is_from_file && job->desire != DESIRE_DELETING && !json_equal(job->spec, clean);
	if (is_foreign)
		not_taken(g, job, path, "there is another job of this name, made by the API: delete that one, or rename this one");
	else if (job && job->desire == DESIRE_DELETING)
		not_taken(g, job, path, "a job of this name is being deleted: send SIGHUP again when it is gone");
	else if (job)
		engine_check_immutable(job, clean, p);
	if (!is_foreign)
		engine_check_own(g, clean, job, p);
	bool is_good = !is_foreign && !json_array_size(p) && !(job && job->desire == DESIRE_DELETING);
	not_taken_for(g, job, path, p);
	json_decref(p);
	return is_good;
}

/* Returns the job that the file speaks of, or NULL; *is_bad: the file, or what it asks for, is wrong, and all stays as it was. */
static struct job *take(struct engine *g, const char *path, const json_t *json, bool *is_bad)
{
	problems *p = json_array();
	const char *name = json_string_value(json_object_get(json, "name"));
	struct job *job = name ? engine_find(g, name) : NULL;
	json_t *whole = engine_whole_spec(g, json, job), *clean = spec_clean(whole);
	struct spec *spec = spec_parse(whole, g->plugins, g->secrets, p);
	*is_bad = true;
	if (job)
		job_file_is_right(job);
	if (!spec) {
		not_taken_for(g, job, path, p);
	} else if (may_take(g, job, path, clean)) {
		*is_bad = false;
		if (!job) {
			job = make(g, path, whole);
		} else {
			mark(g, job, true);
			change(job, path, clean);
			follow(job, json);
		}
	}
	json_decref(p);
	json_decref(whole);
	json_decref(clean);
	spec_free(spec);
	return job;
}

static bool is_among(struct job *const *found, size_t n, const struct job *job)
{
	for (size_t i = 0; i < n; i++)
		if (found[i] == job)
			return true;
	return false;
}

static void not_json(struct engine *g, const char *path, const char *text, size_t n, const json_error_t *why)
{
	char at[CONFIG_POINTER_MAX];
	config_text_pointer(text, n, (size_t)why->position, at, sizeof at);
	if (json_error_code(why) == json_error_duplicate_key)
		not_taken(g, NULL, path, "line %d, column %d: %s is there twice", why->line, why->column, at);
	else
		not_taken(g, NULL, path, "line %d, column %d: %.*s", why->line, why->column, config_text_said(why->text), why->text);
}

/* found: the jobs of the files before this one. */
static struct job *read_file(struct engine *g, const char *path, struct job *const *found, size_t nfound, bool *is_bad)
{
	json_error_t at;
	size_t n = 0;
	char *text = config_text_read(path, &n);
	const char *why = text ? NULL : errno == EFBIG ? "it is longer than 1 MiB" : errno == EINVAL ? "it is no regular file" : strerror(errno);
	json_t *json = text ? json_loadb(text, n, JSON_REJECT_DUPLICATES, &at) : NULL;
	const char *name = json_string_value(json_object_get(json, "name"));
	struct job *job = name ? engine_find(g, name) : NULL;
	*is_bad = true;
	if (!text)
		not_taken(g, NULL, path, "cannot be read: %s", why);
	else if (!json)
		not_json(g, path, text, n, &at);
	else if (!json_is_object(json))
		not_taken(g, NULL, path, "a job must be a JSON object");
	else if (job && is_among(found, nfound, job))
		not_taken(g, NULL, path, "/name: a file before this one has the job \"%s\": rename one of them, or remove it", name);
	else
		job = take(g, path, json, is_bad);
	json_decref(json);
	free(text);
	return job;
}

static void let_go(struct engine *g, struct job *job)
{
	bool is_there;
	struct err e = { 0 };
	log_warn("jobs.d", job->name, "its file is gone: the job is stopped, and the API's to delete");
	job_file_is_right(job);
	mark(g, job, false);
	if (!job_may(job, ENGINE_STOP, &is_there, &e) && !is_there)
		job_do(job, ENGINE_STOP);
	job->stop_reason = "config";
	job_save(job, NULL, NULL);
}

/* That of the default need not be there; one that somebody names, and mistypes, is missed. */
static void tell_unreadable(const char *dir, int error)
{
	if (error == ENOENT && !strcmp(dir, CONFIG_JOBS_DIR))
		return;
	const char *fix = error == ENOENT ? "Make it, or set jobs_dir to where they are, or to nothing" : "Let the user that dmsrd runs as read it";
	log_warn("jobs.d", NULL, "jobs_dir %s: %s: jobs that are files are left as they are. %s", dir, strerror(error), fix);
}

unsigned engine_files_read(struct engine *g)
{
	const char *dir = config_str(g->config, "jobs_dir");
	struct dirent **files = NULL;
	size_t nfound = 0;
	unsigned nbad = 0;
	bool is_unclear = false;
	int n = dir && *dir ? scandir(dir, &files, is_job_file, alphasort) : 0;
	if (n < 0)
		tell_unreadable(dir, errno);
	struct job **found = mem_zalloc(((size_t)(n > 0 ? n : 0) + 1) * sizeof *found);
	for (int i = 0; i < n; i++) {
		char *path = mem_printf("%s/%s", dir, files[i]->d_name);
		bool is_bad;
		struct job *job = read_file(g, path, found, nfound, &is_bad);
		nbad += is_bad;
		if (job && !is_among(found, nfound, job))
			found[nfound++] = job;
		is_unclear |= !job; /* what cannot be read now is not gone */
		free(path);
		free(files[i]);
	}
	free(files);
	for (size_t i = 0; n >= 0 && !is_unclear && i < g->njobs; i++)
		if (g->jobs[i]->is_from_file && !is_among(found, nfound, g->jobs[i]))
			let_go(g, g->jobs[i]);
	free(found);
	return nbad;
}
