/* target_tx: the target transaction: many source transactions, whole, and the position behind them.
 *
 *   NONE --BEGIN--> OPEN --position, sync--> CHECKING --COMMIT, sync--> COMMITTING --> NONE: told as applied
 *
 * Everything goes through the pipeline. COMMIT is sent only when every statement before it is known to have done what it should (an update that hits no row
 * is no error for the server), and the next transaction begins only when this one's COMMIT was answered: a COMMIT that fails must not be followed by
 * later changes. In what waits meanwhile the next transaction grows. */
#include "target_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	SYNC_EVERY_BYTES = 256 << 10,   /* so that an error is seen before all of a big transaction was sent */
	PENDING_BYTES = 1 << 20,        /* not taken by the kernel: beyond, wait */
	SYNCS_MAX = 16,                 /* groups the server has not answered: beyond, wait */
	IDLE_SAVE_US = 1000000,         /* a position that moved without rows is written no more often */
};

/* ---- what was sent ---- */

void tx_note(struct target *t, enum sent_what what, enum change_op op, struct target_table *tb, unsigned must_hit)
{
	struct tx *x = &t->tx;
	if (x->sent_count == x->sent_cap) {
		size_t cap = x->sent_cap ? x->sent_cap * 2 : 256;
		struct sent *ring = mem_alloc(cap * sizeof *ring);
		for (size_t i = 0; i < x->sent_count; i++)
			ring[i] = x->sent[(x->sent_first + i) % x->sent_cap];
		free(x->sent);
		x->sent = ring;
		x->sent_cap = cap;
		x->sent_first = 0;
	}
	x->sent[(x->sent_first + x->sent_count++) % x->sent_cap] = (struct sent){ .what = (uint8_t)what, .op = (uint8_t)op, .must_hit = must_hit, .table = tb };
	x->unsynced++;
}

int tx_sql(struct target *t, enum sent_what what, struct target_table *tb, const char *sql, int n, const char *const *values)
{
	tx_note(t, what, 0, tb, 0);
	return pgconn_pipeline_sql(t->conn, 0, sql, n, NULL, values, NULL, NULL);
}

static void send_sync(struct target *t)
{
	t->tx.unsynced = 0;
	t->tx.since_sync = 0;
	t->tx.syncs++;
	pgconn_pipeline_sync(t->conn, 0);
}

/* ---- answers ---- */

/* libpq's readers of a result take it without const. */
static PGresult *strip_result(const PGresult *res)
{
	union { const PGresult *in; PGresult *out; } u = { .in = res };
	return u.out;
}

static void prefix(struct target *t, const struct sent *s, struct err *e)
{
	if (s->what == SENT_ROW)
		err_prefix(e, "%s on %s", change_op_name((enum change_op)s->op), s->table->sql);
	else if (s->what == SENT_DDL || s->what == SENT_DESCRIBE || s->what == SENT_SHAPE)
		err_prefix(e, "columns of %s", s->table->sql);
	else if (s->what == SENT_POSITION || s->what == SENT_COMMIT)
		err_prefix(e, "commit for job %s", t->host.env.job);
}

static void note_error(struct target *t, const struct sent *s, const struct err *e)
{
	if (err_is_set(&t->tx.error))
		return;
	t->tx.error = *e;
	prefix(t, s, &t->tx.error);
	target_wake(t);
}

static void check_hits(struct target *t, const struct sent *s, const PGresult *res)
{
	const char *text = PQcmdTuples(strip_result(res));
	unsigned long n = strtoul(text, NULL, 10);
	struct err e = { 0 };
	if (n == s->must_hit)
		return;
	if (n < s->must_hit && (t->on_missing_row == POLICY_IGNORE || (s->table->has_cascade && !t->is_replica)))
		return;
	err_set(&e, DMSR_EDATA, n < s->must_hit ? "target.row-missing" : "target.row-ambiguous",
		"%lu of %u rows were found by their key in %s", n, s->must_hit, pgconn_describe(t->conn));
	err_hint(&e, n < s->must_hit ? "the target differs from the source: something else writes to this table; mend the row, load the table again, "
		"or set on_missing_row to ignore" : "the key columns of the source are not unique here: make them so, or load the table again");
	note_error(t, s, &e);
}

static void check(struct target *t, const struct sent *s, const PGresult *res)
{
	struct err e = { 0 };
	switch ((enum sent_what)s->what) {
	case SENT_QUIET: case SENT_DDL:
		return;
	case SENT_ROW:
		if (s->must_hit)
			check_hits(t, s, res);
		return;
	case SENT_POSITION:
		if (!strcmp(PQcmdTuples(strip_result(res)), "1"))
			return;
		err_set(&e, DMSR_EFATAL, "target.position-lost", "the job's row in dmsr.positions is gone");
		err_hint(&e, "somebody removed it: what is applied is not known any more; load the tables again");
		note_error(t, s, &e);
		return;
	case SENT_COMMIT:
		if (!strcmp(PQcmdStatus(strip_result(res)), "COMMIT"))
			return;
		err_retry(&e, DMSR_EIO, "target.rolled-back", "the server rolled the transaction back");
		note_error(t, s, &e);
		return;
	case SENT_DESCRIBE:
		table_described(s->table, res);
		return;
	case SENT_SHAPE:
		shape_told(t, s->table, res);
		return;
	}
}

static void on_result(void *arg, uint64_t tag, const PGresult *res)
{
	struct target *t = arg;
	struct tx *x = &t->tx;
	ExecStatusType status = PQresultStatus(res);
	struct err e = { 0 };
	(void)tag;
	assert(x->sent_count);
	struct sent s = x->sent[x->sent_first];
	x->sent_first = (x->sent_first + 1) % x->sent_cap;
	x->sent_count--;
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
		check(t, &s, res);
	} else if (status != PGRES_PIPELINE_ABORTED) {
		pgerr_from_result(&e, t->conn, res);
		note_error(t, &s, &e);
	}
}

static void on_sync(void *arg, uint64_t tag)
{
	struct target *t = arg;
	(void)tag;
	t->tx.syncs--;
	target_wake(t);
}

static void on_drain(void *arg) { target_wake(arg); }

/* ---- errors ---- */

static void fail(struct target *t)
{
	struct err e = t->tx.error;
	enum policy policy = POLICY_STOP;
	if (!strcmp(e.id, "target.constraint"))
		policy = t->on_constraint_error;
	else if (!strcmp(e.id, "target.data"))
		policy = t->on_data_error;
	if (policy == POLICY_RETRY)
		e.retriable = true;
	target_fail(t, &e);
}

/* ---- waiting ---- */

enum step tx_sync(struct target *t)
{
	if (t->tx.unsynced)
		send_sync(t);
	return t->tx.syncs ? STEP_WAIT : STEP_DONE;
}

enum step tx_room(struct target *t)
{
	if (t->tx.since_sync >= SYNC_EVERY_BYTES)
		send_sync(t);
	return pgconn_pending(t->conn) > PENDING_BYTES || t->tx.syncs >= SYNCS_MAX ? STEP_WAIT : STEP_DONE;
}

enum step tx_describe(struct target *t, struct target_table *tb)
{
	struct buf key;
	if (tb->is_described)
		return STEP_DONE;
	if (!tb->is_asked) {
		tb->is_asked = true;
		if (!tb->has_shape)
			shape_ask(t, tb);
		buf_init(&key, 1 << 20);
		const char *values[] = { tb->schema, tb->name, table_describe_key(tb, &key) };
		tx_sql(t, SENT_DESCRIBE, tb, table_describe_sql, 3, values);
		buf_fini(&key);
	}
	tx_sync(t);
	return tb->is_described ? STEP_DONE : STEP_WAIT;
}

/* ---- begin and end ---- */

enum step tx_begin(struct target *t)
{
	static const struct pgconn_pipeline pipeline = { .on_result = on_result, .on_sync = on_sync, .on_drain = on_drain };
	if (t->tx.state == TX_OPEN)
		return STEP_DONE;
	assert(t->tx.state == TX_NONE && t->load.state == LOAD_NONE);
	if (!t->in_pipeline) {
		struct pgconn_pipeline p = pipeline;
		p.arg = t;
		if (pgconn_pipeline_enter(t->conn, &p))
			return STEP_WAIT;
		t->in_pipeline = true;
	}
	t->tx.state = TX_OPEN;
	t->tx.rows = t->tx.bytes = 0;
	t->tx.has_ddl = false;
	t->tx.began_us = loop_now_us(t->loop);
	tx_sql(t, SENT_QUIET, NULL, "BEGIN", 0, NULL);
	return STEP_DONE;
}

static bool has_news(const struct target *t) { return position_compare(&t->tx.whole, &t->saved) > 0; }

static void send_position(struct target *t)
{
	char text[POSITION_TEXT_MAX];
	const char *values[] = { t->host.env.uid, position_format(&t->tx.whole, text) };
	position_copy(&t->tx.committing, &t->tx.whole);
	tx_sql(t, SENT_POSITION, NULL, "UPDATE dmsr.positions SET position = $2, updated_at = pg_catalog.now() WHERE job_uid = $1", 2, values);
	send_sync(t);
}

static void committed(struct target *t)
{
	position_copy(&t->saved, &t->tx.committing);
	t->tx.state = TX_NONE;
	t->tx.ended_us = loop_now_us(t->loop);
	t->stat.rows_applied += t->tx.rows;
	t->stat.transactions++;
	if (t->tx.commit_us)
		t->stat.last_commit_us = t->tx.commit_us;
}

enum step tx_commit(struct target *t)
{
	struct tx *x = &t->tx;
	if (err_is_set(&x->error)) {
		fail(t);
		return STEP_WAIT;
	}
	if (x->state == TX_NONE && !has_news(t))
		return STEP_DONE;
	if (x->state == TX_NONE && tx_begin(t) == STEP_WAIT)
		return STEP_WAIT;
	switch (x->state) {
	case TX_NONE:
		return STEP_DONE;
	case TX_OPEN:
		failpoint("target_before_position");
		send_position(t);
		x->state = TX_CHECKING;
		return STEP_WAIT;
	case TX_CHECKING:
		if (x->syncs)
			return STEP_WAIT;
		failpoint("target_before_commit");
		tx_sql(t, SENT_COMMIT, NULL, "COMMIT", 0, NULL);
		send_sync(t);
		x->state = TX_COMMITTING;
		failpoint("target_commit_sent");
		return STEP_WAIT;
	case TX_COMMITTING:
		if (x->syncs)
			return STEP_WAIT;
		failpoint("target_committed");
		committed(t);
		return STEP_DONE;
	}
	return STEP_WAIT;
}

enum step tx_leave(struct target *t)
{
	if (tx_commit(t) == STEP_WAIT)
		return STEP_WAIT;
	if (!t->in_pipeline)
		return STEP_DONE;
	if (tx_sync(t) == STEP_WAIT || pgconn_pipeline_leave(t->conn))
		return STEP_WAIT;
	t->in_pipeline = false;
	return STEP_DONE;
}

/* ---- when ---- */

/* Microseconds until what is open, or only the position, is to be written; 0: now. */
static uint64_t time_left(struct target *t)
{
	uint64_t now = loop_now_us(t->loop), due;
	if (t->tx.state == TX_OPEN)
		due = t->tx.began_us + t->commit_interval_us;
	else
		due = t->tx.ended_us + (t->commit_interval_us > IDLE_SAVE_US ? t->commit_interval_us : IDLE_SAVE_US);
	return due > now ? due - now : 0;
}

bool tx_should_commit(struct target *t)
{
	struct tx *x = &t->tx;
	if (t->load.state != LOAD_NONE)
		return false;
	if (err_is_set(&x->error) || x->state == TX_CHECKING || x->state == TX_COMMITTING)
		return true;
	if (x->in_source || (x->state == TX_NONE && !has_news(t)))
		return false;
	if (t->state == TARGET_STOPPING || x->rows >= t->commit_rows || x->bytes >= t->commit_bytes)
		return true;
	if (x->state == TX_OPEN && t->is_flushing && !t->cur)
		return true;
	return !time_left(t);
}

uint64_t tx_commit_due(struct target *t)
{
	if (t->load.state != LOAD_NONE || t->tx.in_source || (t->tx.state == TX_NONE && !has_news(t)))
		return 0;
	return time_left(t) + 1;
}

void tx_reached(struct target *t, const struct position *p)
{
	struct err e = { 0 };
	if (!position_is_comparable(&t->tx.whole, p)) {
		err_set(&e, DMSR_EFATAL, "target.position-foreign", "what is applied is a position of another server than these changes come from");
		err_hint(&e, "the source's server was replaced: load the tables again, by a new job");
		target_fail(t, &e);
		return;
	}
	int order = position_compare(p, &t->tx.whole);
	if (order > 0 || (order == 0 && p->flush > t->tx.whole.flush))
		position_copy(&t->tx.whole, p);
}

static bool ends_in(const struct change *ch)
{
	while (ch && ch->op != OP_COMMIT)
		ch = ch->next;
	return ch != NULL;
}

bool tx_should_end_before(const struct target *t, const struct batch *b, const struct change *ch)
{
	const struct item *next = t->cur->next;
	if (t->tx.state == TX_NONE)
		return false;
	if (!b->more || ends_in(ch))
		return false;
	return !next || !ends_in(next->batch->first);
}

void tx_fini(struct target *t) { free(t->tx.sent); }
