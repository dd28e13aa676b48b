/* job_record: a job from its making to its end, as it is in memory and in the state store. */
#include "job.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void make_uid(char out[27])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned char random[16];
	uint64_t ms = (uint64_t)wall_now_us() / 1000;
	for (size_t i = 9; i-- > 0; ms /= 36)
		out[i] = digits[ms % 36];
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		abort();
	for (size_t i = 9; i < 26; i++)
		out[i] = digits[(random[(i - 9) % 16] ^ (i * 37)) % 36];
	out[26] = 0;
}

static struct job *new_job(struct job_house *house, const char *name, const char *uid)
{
	struct job *job = mem_zalloc(sizeof *job);
	job->house = house;
	job->name = mem_strdup(name);
	if (uid)
		snprintf(job->uid, sizeof job->uid, "%s", uid);
	else
		make_uid(job->uid);
	job->retry_timer = loop_timer_new(house->loop, "job", job_on_retry, job);
	job->memory = memory_new(house->store, job->uid);
	job->warnings = json_array();
	job->scratch = mem_printf("%s/jobs/%s/scratch", house->state_dir, job->uid);
	job->state_since_us = wall_now_us();
	job->kept = JOB_KEPT_NONE;
	return job;
}

struct job *job_new(struct job_house *house, const json_t *spec)
{
	struct job *job = new_job(house, json_string_value(json_object_get(spec, "name")), NULL);
	job->spec = spec_clean(spec);
	job->generation = 1;
	job->created_us = job->updated_us = wall_now_us();
	return job;
}

static void restore_error(struct job *job, const char *text)
{
	json_t *j = text ? json_loads(text, 0, NULL) : NULL;
	const char *id = json_string_value(json_object_get(j, "code")), *message = json_string_value(json_object_get(j, "message")),
		   *hint = json_string_value(json_object_get(j, "suggestion")),
		   *stage = json_string_value(json_object_get(j, "stage"));
	if (id && message) {
		err_set(&job->error, DMSR_ESTATE, id, "%s", message);
		job->error.retriable = json_is_true(json_object_get(j, "retriable"));
		if (hint)
			err_hint(&job->error, "%s", hint);
		snprintf(job->error_stage, sizeof job->error_stage, "%s", stage ? stage : "");
		job->error_since_us = json_integer_value(json_object_get(j, "since_us"));
	}
	json_decref(j);
}

/* What was under way when the daemon ended is not under way now. */
static enum job_state resting_state(int was)
{
	switch (was) {
	case JOB_CREATED:
	case JOB_PAUSED:
	case JOB_COMPLETED:
	case JOB_FAILED: return (enum job_state)was;
	}
	return JOB_STOPPED;
}

static const char *resting_reason(const struct job *job)
{
	switch (job->state) {
	case JOB_STOPPED: return job->desire == DESIRE_RUNNING ? "shutdown" : "user";
	case JOB_PAUSED: return "user";
	case JOB_FAILED: return "error";
	case JOB_COMPLETED: return "completed";
	default: return NULL;
	}
}

static void mark_left_out(void *arg, struct table_count *c) { c->is_left_out = !dmsr_table_matches(arg, c->schema, c->name); }

/* Of what is known of tables, which the patterns still mean. */
static void note_left_out(struct job *job)
{
	struct dmsr_tables tables;
	spec_tables(job->spec, &tables);
	memory_each_count(job->memory, mark_left_out, &tables);
	spec_tables_fini(&tables);
}

struct job *job_restore(struct job_house *house, const struct store_job *j, struct err *e)
{
	struct job *job = new_job(house, j->name, j->uid);
	job->spec = json_loads(j->spec, JSON_REJECT_DUPLICATES, NULL);
	job->generation = j->generation;
	job->created_us = j->created_us;
	job->updated_us = j->updated_us;
	job->state = resting_state(job_state_parse(j->state));
	for (int d = 0; d < DESIRES; d++)
		if (!strcmp(job_desire_name((enum job_desire)d), j->desired_state))
			job->desire = (enum job_desire)d;
	restore_error(job, j->error);
	job->stop_reason = resting_reason(job);
	if (!job->spec)
		err_set(e, DMSR_EPROTO, "state.corrupt", "the specification of job %s in the state store is no JSON", j->name);
	else
		memory_read(job->memory, e);
	if (!err_is_set(e)) {
		note_left_out(job);
		return job;
	}
	job_free(job);
	return NULL;
}

void job_close_run(struct job *job)
{
	pipeline_free(job->pipeline);
	job->pipeline = NULL;
}

void job_free(struct job *job)
{
	if (!job)
		return;
	job_close_run(job);
	loop_timer_free(job->retry_timer);
	memory_free(job->memory);
	json_decref(job->spec);
	json_decref(job->warnings);
	free(job->scratch);
	free(job->file_error);
	free(job->name);
	free(job);
}

void job_save(struct job *job, store_done *done, void *arg)
{
	char *spec = json_dumps(job->spec, JSON_COMPACT), *error = NULL;
	if (err_is_set(&job->error)) {
		json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I}", "code", job->error.id, "message", job->error.message, "suggestion",
			job->error.hint, "stage", job->error_stage,
			"retriable", job->error.retriable, "since_us", (json_int_t)job->error_since_us);
		error = j ? json_dumps(j, JSON_COMPACT) : NULL;
		json_decref(j);
	}
	const struct store_job row = {
		.uid = job->uid,
		.name = job->name,
		.spec = spec,
		.generation = job->generation,
		.desired_state = job_desire_name(job->desire),
		.state = job_state_name(job->state),
		.error = error,
		.created_us = job->created_us,
		.updated_us = job->updated_us,
	};
	store_job_put(job->house->store, &row, done, arg);
	free(spec);
	free(error);
}

void job_file_is_right(struct job *job)
{
	free(job->file_error);
	job->file_error = NULL;
}

void job_set_spec(struct job *job, const json_t *spec)
{
	json_decref(job->spec);
	job->spec = spec_clean(spec);
	job->generation++;
	job->updated_us = wall_now_us();
	note_left_out(job);
	const char *mode = json_string_value(json_object_get(job->spec, "mode"));
	if (memory_note(job->memory, PIPELINE_FOLLOWED) && (!mode || strcmp(mode, "full-load") != 0))
		job_reopen(job, "its mode follows changes now");
}
