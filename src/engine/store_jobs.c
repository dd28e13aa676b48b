/* store_jobs: jobs and their small texts. */
#include "store_int.h"
#include <assert.h>
#include <stdlib.h>

/* ---- jobs ---- */

struct job_request {
	struct request r;
	struct store_job job;
	struct rows found; /* of struct store_job */
};

static int run_job_put(struct store *s, struct request *r, struct err *e)
{
	const struct store_job *j = &((struct job_request *)r)->job;
	struct field row[] = { field_text(j->uid), field_text(j->name), field_text(j->spec), field_int(j->generation), field_text(j->desired_state),
		field_text(j->state), field_text(j->error), field_int(j->created_us), field_int(j->updated_us) };
	return store_db_put(s->db, TABLE_JOB, row, e);
}

static const struct verb verb_job_put = { .kind = VERB_WRITES, .run = run_job_put, .answer = request_answer_done };

static void copy_job(void *r, struct store_job *to, const struct store_job *j)
{
	*to = *j;
	to->uid = request_str(r, j->uid);
	to->name = request_str(r, j->name);
	to->spec = request_str(r, j->spec);
	to->desired_state = request_str(r, j->desired_state);
	to->state = request_str(r, j->state);
	to->error = request_str(r, j->error);
}

void store_job_put(struct store *s, const struct store_job *j, store_done *done, void *arg)
{
	struct job_request *q = request_new(s, &verb_job_put, sizeof *q);
	assert(j->uid && *j->uid);
	copy_job(q, &q->job, j);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int run_job_delete(struct store *s, struct request *r, struct err *e)
{
	static const char *const deletes[] = { "DELETE FROM job WHERE uid = ?", "DELETE FROM kv WHERE uid = ?",
		"DELETE FROM dead_letter WHERE uid = ?", "DELETE FROM serial WHERE uid = ?", "DELETE FROM event WHERE uid = ?" };
	const char *uid = ((struct job_request *)r)->job.uid;
	struct field key = field_text(uid);
	int rc = 0;
	for (size_t i = 0; i < sizeof deletes / sizeof *deletes && !rc; i++)
		rc = store_db_run(s->db, deletes[i], &key, NULL, e);
	return rc ? rc : store_log_forget(s, uid, e);
}

static void committed_job_delete(struct store *s, struct request *r) { store_log_forgotten(s, ((struct job_request *)r)->job.uid); }

static const struct verb verb_job_delete = { .kind = VERB_WRITES, .run = run_job_delete, .committed = committed_job_delete, .answer = request_answer_done };

void store_job_delete(struct store *s, const char *uid, store_done *done, void *arg)
{
	struct job_request *q = request_new(s, &verb_job_delete, sizeof *q);
	assert(*uid);
	q->job.uid = request_str(q, uid);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int on_job(void *arg, const struct field *c)
{
	struct job_request *q = arg;
	struct store_job *j = rows_add(&q->r.arena, &q->found, sizeof *j);
	struct store_job found = { c[0].p, c[1].p, c[2].p, c[3].i, c[4].p, c[5].p, c[6].p, c[7].i, c[8].i };
	copy_job(q, j, &found);
	return 0;
}

static int run_each_job(struct store *s, struct request *r, struct err *e)
{
	return store_db_each(s->db, TABLE_JOB, "ORDER BY created_us, uid", NULL, on_job, r, e);
}

static const struct verb verb_each_job = { .run = run_each_job };

int store_each_job(struct store *s, int (*fn)(void *arg, const struct store_job *j), void *arg, struct err *e)
{
	struct job_request *q = request_new(s, &verb_each_job, sizeof *q);
	int rc = store_wait(s, q, e);
	const struct store_job *jobs = q->found.at;
	for (size_t i = 0; i < q->found.n && !rc; i++)
		rc = fn(arg, &jobs[i]);
	request_free(&q->r);
	return rc;
}

/* ---- texts ---- */

struct store_kv { const char *key, *value; };
struct kv_request {
	struct request r;
	const char *uid, *kind, *key, *value;
	struct rows found; /* of struct store_kv */
};

static int run_put(struct store *s, struct request *r, struct err *e)
{
	const struct kv_request *q = (const struct kv_request *)r;
	struct field row[] = { field_text(q->uid), field_text(q->kind), field_text(q->key), field_text(q->value) };
	if (!q->value)
		return store_db_run(s->db, "DELETE FROM kv WHERE uid = ? AND kind = ? AND key = ?", row, NULL, e);
	return store_db_put(s->db, TABLE_KV, row, e);
}

static const struct verb verb_put = { .kind = VERB_WRITES, .run = run_put, .answer = request_answer_done };

void store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg)
{
	struct kv_request *q = request_new(s, &verb_put, sizeof *q);
	q->uid = request_str(q, uid);
	q->kind = request_str(q, kind);
	q->key = request_str(q, key);
	q->value = request_str(q, value);
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int on_kv(void *arg, const struct field *c)
{
	struct kv_request *q = arg;
	struct store_kv *kv = rows_add(&q->r.arena, &q->found, sizeof *kv);
	*kv = (struct store_kv){ request_str(q, c[2].p), request_str(q, c[3].p) };
	return 0;
}

static int run_load(struct store *s, struct request *r, struct err *e)
{
	const struct kv_request *q = (const struct kv_request *)r;
	struct field key[] = { field_text(q->uid), field_text(q->kind) };
	return store_db_each(s->db, TABLE_KV, "WHERE uid = ? AND kind = ? ORDER BY key", key, on_kv, r, e);
}

static const struct verb verb_load = { .run = run_load };

int store_each(struct store *s, const char *uid, const char *kind, int (*fn)(void *arg, const char *key, const char *value), void *arg, struct err *e)
{
	struct kv_request *q = request_new(s, &verb_load, sizeof *q);
	q->uid = request_str(q, uid);
	q->kind = request_str(q, kind);
	int rc = store_wait(s, q, e);
	const struct store_kv *rows = q->found.at;
	for (size_t i = 0; i < q->found.n && !rc; i++)
		rc = fn(arg, rows[i].key, rows[i].value);
	request_free(&q->r);
	return rc;
}
