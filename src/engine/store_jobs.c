/* store_jobs: jobs, their small texts, and the shapes of their tables. */
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
	static const char *const deletes[] = { "DELETE FROM job WHERE uid = ?", "DELETE FROM kv WHERE uid = ?", "DELETE FROM relation WHERE uid = ?",
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

struct kv_request {
	struct request r;
	const char *uid, *kind, *key, *value;
	struct rows found; /* of struct store_kv */
	void (*loaded)(void *arg, const struct store_kv *rows, size_t n, const struct err *e);
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
	*kv = (struct store_kv){ request_str(q, c[1].p), request_str(q, c[2].p), request_str(q, c[3].p) };
	return 0;
}

static int run_load(struct store *s, struct request *r, struct err *e)
{
	const struct kv_request *q = (const struct kv_request *)r;
	struct field key[] = { field_text(q->uid), field_text(q->kind) };
	if (q->kind)
		return store_db_each(s->db, TABLE_KV, "WHERE uid = ? AND kind = ? ORDER BY key", key, on_kv, r, e);
	return store_db_each(s->db, TABLE_KV, "WHERE uid = ? ORDER BY kind, key", key, on_kv, r, e);
}

static void answer_load(struct request *r, const struct err *e)
{
	const struct kv_request *q = (const struct kv_request *)r;
	q->loaded(r->arg, q->found.at, e ? 0 : q->found.n, e);
}

static const struct verb verb_load = { .run = run_load, .answer = answer_load };

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

void store_load(struct store *s, const char *uid, void (*done)(void *arg, const struct store_kv *rows, size_t n, const struct err *e), void *arg)
{
	struct kv_request *q = request_new(s, &verb_load, sizeof *q);
	q->uid = request_str(q, uid);
	q->loaded = done;
	q->r.arg = arg;
	store_send(s, q);
}

/* ---- relations ---- */

enum { PLACE_BYTES = 24, PACKED_MAX = 128 << 20 };

struct relation_request {
	struct request r;
	const char *uid, *schema, *name, *start;
	char place[PLACE_BYTES];
	uint64_t fingerprint;
	struct buf packed;
	struct rows found; /* of struct found_relation */
	void (*loaded)(void *arg, const struct store_relation *rows, size_t n, const struct err *e);
};
struct found_relation {
	const char *start, *packed;
	size_t len;
};

/* In the order of positions, bytewise. */
static void make_place(const struct position *p, char out[PLACE_BYTES])
{
	uint64_t parts[3] = { htobe64(p->server), htobe64(p->lsn), htobe64(p->event) };
	memcpy(out, parts, sizeof parts);
}

/* The shape in force at q's place is q's already: after a restart the source says again what it said before. */
static int run_relation_put(struct store *s, struct request *r, struct err *e)
{
	const struct relation_request *q = (const struct relation_request *)r;
	struct field row[] = { field_text(q->uid), field_text(q->schema), field_text(q->name), field_blob(q->place, PLACE_BYTES), field_text(q->start),
		field_int((int64_t)q->fingerprint), field_blob(q->packed.data, q->packed.len) };
	struct field key[] = { row[0], row[1], row[2], row[3], field_blob(q->place, 8) };
	int64_t known = (int64_t)~q->fingerprint;
	int rc = store_db_run(s->db, "SELECT fingerprint FROM relation WHERE uid = ? AND schema = ? AND name = ? AND place <= ? AND place >= ?"
				     " ORDER BY place DESC LIMIT 1", key, &known, e);
	return rc || known == (int64_t)q->fingerprint ? rc : store_db_put(s->db, TABLE_RELATION, row, e);
}

static void fini_relation(struct request *r) { buf_fini(&((struct relation_request *)r)->packed); }

static const struct verb verb_relation_put = { .kind = VERB_WRITES, .run = run_relation_put, .answer = request_answer_done, .fini = fini_relation };

void store_relation_put(struct store *s, const char *uid, const struct relation *rel, const struct position *from, store_done *done, void *arg)
{
	struct relation_request *q = request_new(s, &verb_relation_put, sizeof *q);
	char start[POSITION_TEXT_MAX];
	q->uid = request_str(q, uid);
	q->schema = request_str(q, rel->schema);
	q->name = request_str(q, rel->name);
	q->start = request_str(q, position_format(from, start));
	make_place(from, q->place);
	q->fingerprint = rel->fingerprint;
	buf_init(&q->packed, PACKED_MAX);
	int rc = relation_pack(rel, &q->packed);
	assert(!rc);
	q->r.bytes += q->packed.len;
	q->r.done = done;
	q->r.arg = arg;
	store_send(s, q);
}

static int on_relation(void *arg, const struct field *c)
{
	struct relation_request *q = arg;
	struct found_relation *f = rows_add(&q->r.arena, &q->found, sizeof *f);
	*f = (struct found_relation){ request_str(q, c[4].p), arena_dup(&q->r.arena, c[6].p, c[6].n), c[6].n };
	return 0;
}

static int run_relations(struct store *s, struct request *r, struct err *e)
{
	struct field key = field_text(((struct relation_request *)r)->uid);
	return store_db_each(s->db, TABLE_RELATION, "WHERE uid = ? ORDER BY schema, name, place", &key, on_relation, r, e);
}

/* Relations are counted without locks: they are made on the loop. */
static int unpack(const struct found_relation *f, struct store_relation *out, struct err *e)
{
	struct cursor c;
	cursor_init(&c, f->packed, f->len);
	out->rel = relation_unpack(&c, e);
	return out->rel ? position_parse(f->start, &out->from, e) : e->code;
}

static void answer_relations(struct request *r, const struct err *e)
{
	struct relation_request *q = (struct relation_request *)r;
	const struct found_relation *found = q->found.at;
	size_t n = e ? 0 : q->found.n;
	struct store_relation *rows = arena_zalloc(&r->arena, n * sizeof *rows);
	struct err own;
	int rc = 0;
	for (size_t i = 0; i < n && !rc; i++)
		rc = unpack(&found[i], &rows[i], &own);
	q->loaded(r->arg, rows, rc ? 0 : n, rc ? &own : e);
	for (size_t i = 0; i < n; i++)
		relation_unref(rows[i].rel);
}

static const struct verb verb_relations = { .run = run_relations, .answer = answer_relations };

void store_relations(struct store *s, const char *uid, void (*done)(void *arg, const struct store_relation *rows, size_t n, const struct err *e), void *arg)
{
	struct relation_request *q = request_new(s, &verb_relations, sizeof *q);
	q->uid = request_str(q, uid);
	q->loaded = done;
	q->r.arg = arg;
	store_send(s, q);
}
