/* target_tx: the target transaction: many source transactions, whole, and the position behind them.
 *
 *   NONE --BEGIN--> OPEN --position, sync--> CHECKING --COMMIT, sync--> COMMITTING --> NONE: told as applied
 *
 * Everything goes through the pipeline. COMMIT is sent only when every statement before it is known to have done what it should (an update that hits no row
 * is no error for the server), and the next transaction begins only when this one's COMMIT was answered: a COMMIT that fails must not be followed by
 * later changes. In what waits meanwhile the next transaction grows.
 *
 * With synchronous_commit false most COMMITs do not wait for the server's disk. The server's log is one: what one that waits leaves there has all before it.
 * So some do (when nothing more comes, and a few times a second), and what was read is told as applied when such a one was answered, with nothing behind it. */
#include "target_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	SYNC_EVERY_BYTES = 256 << 10,   /* so that an error is seen before all of a big transaction was sent */
	PENDING_BYTES = 1 << 20,        /* not taken by the kernel: beyond, wait */
	SYNCS_MAX = 16,                 /* groups the server has not answered: beyond, wait */
	IDLE_SAVE_US = 1000000,         /* a position that moved without rows is written no more often */
	LAZY_US = 200000,               /* so long after a COMMIT that waited for the disk, others do not */
	HOLD_BYTES = 8 << 20,           /* of batches that are held so that they can be read again */
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
	struct sent s = { .what = (uint8_t)what, .op = (uint8_t)op, .must_hit = must_hit, .table = tb };
	if (tb && what != SENT_DESCRIBE && what != SENT_SHAPE && what != SENT_RULES)
		tb->written_us = x->began_us;
	s.first_seq = x->first_seq ? x->first_seq : t->seq;
	s.last_seq = x->first_seq ? x->last_seq : t->seq;
	x->sent[(x->sent_first + x->sent_count++) % x->sent_cap] = s;
	x->unsynced++;
}

int tx_sql(struct target *t, enum sent_what what, struct target_table *tb, const char *sql, int n, const char *const *values)
{
	tx_note(t, what, 0, tb, 0);
	return pgconn_pipeline_sql(t->conn, sql, n, NULL, values, NULL, NULL);
}

static void send_sync(struct target *t)
{
	t->tx.unsynced = 0;
	t->tx.since_sync = 0;
	if (!t->tx.syncs++)
		target_await(t);
	pgconn_pipeline_sync(t->conn);
}

/* ---- answers ---- */

/* libpq's readers of a result take it without const. */
static PGresult *strip_result(const PGresult *res)
{
	union { const PGresult *in; PGresult *out; } u = { .in = res };
	return u.out;
}

static void prefix(const struct target *t, struct err *e)
{
	const struct sent *s = &t->tx.refused;
	bool is_ddl = s->what == SENT_DDL || s->what == SENT_DESCRIBE || s->what == SENT_SHAPE || s->what == SENT_RULES;
	if (s->what == SENT_ROW)
		err_prefix(e, "%s on %s", change_op_name((enum change_op)s->op), s->table->sql);
	else if (is_ddl)
		err_prefix(e, "columns of %s", s->table->sql);
	else if (s->what == SENT_POSITION || s->what == SENT_COMMIT)
		err_prefix(e, "commit for job %s", t->host.env.job);
	if (s->what == SENT_ROW || is_ddl)
		right_hint(e, is_ddl ? RIGHT_OWN : RIGHT_EMPTY, t->settings, s->table->schema, s->table->name);
	else
		right_hint(e, RIGHT_POSITIONS, t->settings, NULL, NULL);
}

static void note_error(struct target *t, const struct sent *s, const struct err *e, const char *sqlstate)
{
	struct tx *x = &t->tx;
	if (err_is_set(&x->error))
		return;
	x->error = *e;
	x->refused = *s;
	snprintf(x->sqlstate, sizeof x->sqlstate, "%s", sqlstate ? sqlstate : "");
	target_wake(t);
}

void tx_refuse(struct target *t, struct target_table *tb, enum change_op op, const struct err *e)
{
	struct sent s = { .what = SENT_ROW, .op = (uint8_t)op, .table = tb };
	s.first_seq = t->tx.first_seq ? t->tx.first_seq : t->seq;
	s.last_seq = t->tx.first_seq ? t->tx.last_seq : t->seq;
	note_error(t, &s, e, NULL);
}

static void check_found(struct target *t, const struct sent *s, const PGresult *res)
{
	struct err e = { 0 };
	if (strtoul(PQcmdTuples(strip_result(res)), NULL, 10))
		return;
	err_set(&e, DMSR_EDATA, "target.load-lost", "a row is in none of the parts that were read");
	note_error(t, s, &e, NULL);
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
	note_error(t, s, &e, NULL);
}

/* Values that the update could not write, and that are not there: they would be lost without a word. */
static void check_identities(struct target *t, const struct sent *s, const PGresult *res)
{
	struct err e = { 0 };
	struct buf fix;
	int i = 0, n = PQnfields(res) ? PQntuples(res) : 0;
	while (i < n && PQgetvalue(res, i, 0)[0] == 't')
		i++;
	if (i == n)
		return;
	buf_init(&fix, sizeof e.hint);
	mend_identities(&fix, s->table);
	err_set(&e, DMSR_EDATA, "target.identity", "%s: an update gave a column that is GENERATED ALWAYS AS IDENTITY another value, which it takes from nobody",
		s->table->sql);
	err_hint(&e, "%s", buf_cstr(&fix));
	buf_fini(&fix);
	note_error(t, s, &e, NULL);
}

static void check(struct target *t, const struct sent *s, const PGresult *res)
{
	struct err e = { 0 };
	switch ((enum sent_what)s->what) {
	case SENT_QUIET: case SENT_DDL:
		return;
	case SENT_ROW:
		if (s->must_hit == MUST_FIND) {
			check_found(t, s, res);
		} else if (s->must_hit) {
			check_hits(t, s, res);
			check_identities(t, s, res);
		}
		return;
	case SENT_POSITION:
		if (!strcmp(PQcmdTuples(strip_result(res)), "1"))
			return;
		err_set(&e, DMSR_EFATAL, "target.position-lost", "the job's row in dmsr.positions is gone");
		err_hint(&e, "what is applied is not known any more: stop the job, DELETE /jobs/%s/positions, start it", t->host.env.job);
		note_error(t, s, &e, NULL);
		return;
	case SENT_COMMIT:
		if (!strcmp(PQcmdStatus(strip_result(res)), "COMMIT"))
			return;
		err_retry(&e, DMSR_EIO, "target.rolled-back", "%s rolled the transaction back where it was told to commit", pgconn_describe(t->conn));
		err_hint(&e, "see the server's log; it is tried again");
		note_error(t, s, &e, NULL);
		return;
	case SENT_DESCRIBE:
		table_described(s->table, res);
		return;
	case SENT_SHAPE:
		shape_told(t, s->table, res);
		return;
	case SENT_RULES:
		rules_told(s->table, res);
		return;
	}
}

/* A value in binary form that is shorter than its type's is a "protocol violation" to the server; for us it is a bad value. */
static void judge_image(const struct sent *s, const PGresult *res, struct err *e)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE), *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	if (s->what == SENT_ROW && state && !strcmp(state, "08P01"))
		err_set(e, DMSR_EDATA, "target.data", "a value in binary form is not of its type: %s", text ? text : "");
}

static void on_result(void *arg, const PGresult *res)
{
	struct target *t = arg;
	struct tx *x = &t->tx;
	ExecStatusType status = PQresultStatus(res);
	struct err e = { 0 };
	assert(x->sent_count);
	struct sent s = x->sent[x->sent_first];
	x->sent_first = (x->sent_first + 1) % x->sent_cap;
	x->sent_count--;
	x->nresults++;
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
		check(t, &s, res);
	} else if (status != PGRES_PIPELINE_ABORTED) {
		pgerr_from_result(&e, t->conn, res);
		judge_image(&s, res, &e);
		note_error(t, &s, &e, PQresultErrorField(res, PG_DIAG_SQLSTATE));
	}
}

static void on_sync(void *arg)
{
	struct target *t = arg;
	t->tx.syncs--;
	target_wake(t);
}

static void on_drain(void *arg) { target_wake(arg); }

/* ---- errors ---- */

void tx_fail(struct target *t, const struct err *why)
{
	struct err e = *why;
	prefix(t, &e);
	target_fail_row(t, &e);
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
		if (t->strands)
			rules_ask(t, tb);
		buf_fini(&key);
	}
	tx_sync(t);
	return tb->is_described ? STEP_DONE : STEP_WAIT;
}

/* ---- begin and end ---- */

/* A plan that was made while a table was small must not read all of it when it has grown. Between the transactions of changes indexes are built and foreign
 * keys checked: there the planner is free. */
static void set_planner(struct target *t, const char *to)
{
	const char *values[] = { to };
	tx_sql(t, SENT_QUIET, NULL, "SELECT pg_catalog.set_config(name, $1, false) FROM (VALUES ('enable_hashjoin'), ('enable_mergejoin'), "
		"('enable_seqscan')) AS v (name)", 1, values);
}

static void set_mark(const struct target *t, struct mark *m)
{
	const struct tx *x = &t->tx;
	*m = (struct mark){ .item = t->cur, .at = t->at, .seq = t->seq, .ntruncates = t->ntruncates };
	m->in_source = x->in_source;
	m->commit_us = x->commit_us;
	m->rows = x->rows;
	m->bytes = x->bytes;
	m->whole = x->whole;
}

enum step tx_begin(struct target *t)
{
	static const struct pgconn_pipeline pipeline = { .on_result = on_result, .on_sync = on_sync, .on_drain = on_drain };
	if (t->tx.state == TX_OPEN)
		return STEP_DONE;
	assert(t->tx.state == TX_NONE && !t->lane);
	if (!t->in_pipeline) {
		struct pgconn_pipeline p = pipeline;
		p.arg = t;
		if (pgconn_pipeline_enter(t->conn, &p))
			return STEP_WAIT;
		t->in_pipeline = true;
		t->tx.is_bound = true;
		set_planner(t, "off");
	}
	t->tx.state = TX_OPEN;
	t->tx.rows = t->tx.bytes = 0;
	t->tx.has_savepoint = t->tx.wants_hold = t->tx.is_holding = t->tx.gave_back = false;
	t->tx.held_bytes = 0;
	t->tx.began_us = loop_now_us(t->loop);
	set_mark(t, &t->tx.begin);
	t->tx.hold = t->tx.begin;
	tx_sql(t, SENT_QUIET, NULL, "BEGIN", 0, NULL);
	/* Constraints that the source checked at its commits need not hold in between. */
	if (!t->is_replica)
		tx_sql(t, SENT_QUIET, NULL, "SET CONSTRAINTS ALL DEFERRED", 0, NULL);
	return STEP_DONE;
}

/* ---- marks ---- */

bool tx_should_hold(const struct target *t)
{
	const struct tx *x = &t->tx;
	return x->state == TX_OPEN && t->careful.state == CAREFUL_NONE && (x->wants_hold || x->held_bytes >= HOLD_BYTES);
}

/* Everything that was read is known to be right: it will not be asked for again. */
static void give_back(struct target *t)
{
	for (struct item *it = t->eaten ? t->eaten->next : t->head; it && it != t->cur && it->is_read; it = it->next)
		it->is_eaten |= !it->is_load;
	target_tell_consumed(t);
	t->tx.held_bytes = 0;
	t->tx.gave_back = true;
}

enum step tx_hold(struct target *t)
{
	struct tx *x = &t->tx;
	if (!x->is_holding)
		net_flush_all(t);
	x->is_holding = true;
	if (tx_sync(t) == STEP_WAIT)
		return STEP_WAIT;
	/* An error is looked at before we are asked again. */
	if (err_is_set(&x->error))
		return STEP_DONE;
	if (x->has_savepoint)
		tx_sql(t, SENT_QUIET, NULL, "RELEASE SAVEPOINT dmsr_hold", 0, NULL);
	tx_sql(t, SENT_QUIET, NULL, "SAVEPOINT dmsr_hold", 0, NULL);
	if (target_died(t, failpoint("target.hold")))
		return STEP_WAIT;
	x->has_savepoint = true;
	x->is_holding = x->wants_hold = false;
	set_mark(t, &x->hold);
	table_counts_settle(t, true);
	if (x->held_bytes >= HOLD_BYTES)
		give_back(t);
	return STEP_DONE;
}

enum step tx_let_go(struct target *t)
{
	const struct item *oldest = t->eaten ? t->eaten->next : t->head;
	if (t->tx.state != TX_OPEN || oldest == t->cur)
		return STEP_DONE;
	if (tx_hold(t) == STEP_WAIT || err_is_set(&t->tx.error))
		return STEP_WAIT;
	give_back(t);
	return STEP_DONE;
}

/* A savepoint behind all that had come is before what comes now. */
void tx_came(struct target *t, struct item *it)
{
	struct mark *m = &t->tx.hold;
	if (t->tx.state == TX_NONE || m->item)
		return;
	m->item = it;
	m->at = it->batch->first;
}

/* What is of a load was not part of the transaction: that is not read again. */
void tx_rewind(struct target *t, bool is_whole)
{
	struct tx *x = &t->tx;
	const struct mark *m = is_whole ? &x->begin : &x->hold;
	for (struct item *it = m->item; it && it != t->cur; it = it->next) {
		if (it->is_load)
			continue;
		it->is_read = false;
		t->queued_bytes += it->bytes;
		x->held_bytes -= it->bytes;
	}
	if (m->item) {
		t->cur = m->item;
		t->at = m->at;
		if (m->item->is_read)
			target_pass_read(t);
	}
	t->seq = m->seq;
	t->ntruncates = m->ntruncates;
	x->in_source = m->in_source;
	x->commit_us = m->commit_us;
	x->rows = m->rows;
	x->bytes = m->bytes;
	x->is_holding = x->wants_hold = false;
	x->whole = m->whole;
	x->state = is_whole ? TX_NONE : TX_OPEN;
	table_counts_settle(t, false);
}

static bool has_news(const struct target *t) { return position_compare(&t->tx.whole, &t->durable) > 0; }

/* Something was committed that may not be on the disk. */
static bool is_owing(const struct target *t) { return position_compare(&t->saved, &t->durable) > 0; }

static bool is_asked_for(const struct target *t) { return t->is_flushing && !t->cur; }

static bool may_be_lazy(const struct target *t)
{
	const struct tx *x = &t->tx;
	if (t->synchronous_commit || x->must_last || !x->rows || is_asked_for(t) || t->state == TARGET_STOPPING)
		return false;
	return loop_now_us(t->loop) - x->lasted_us < LAZY_US;
}

static void send_position(struct target *t)
{
	char text[POSITION_TEXT_MAX];
	const char *values[] = { t->host.env.uid, position_format(&t->tx.whole, text) };
	struct buf told;
	buf_init(&told, 16 << 20);
	if (t->strand) {
		t->strand->describe(t->strand->ctx, t->tx.whole.lsn, &told);
		values[0] = t->strand->row;
		values[1] = buf_cstr(&told);
	}
	t->tx.committing = t->tx.whole;
	tx_sql(t, SENT_POSITION, NULL, "UPDATE dmsr.positions SET position = $2, updated_at = pg_catalog.now() WHERE job_uid = $1", 2, values);
	buf_fini(&told);
	send_sync(t);
}

static void committed(struct target *t)
{
	t->saved = t->tx.committing;
	t->tx.state = TX_NONE;
	t->tx.held_bytes = 0;
	t->tx.ended_us = loop_now_us(t->loop);
	t->tx.took_us = t->tx.ended_us - t->tx.sent_us;
	if (!t->tx.is_lazy) {
		t->durable = t->saved;
		t->tx.lasted_us = t->tx.ended_us;
		t->tx.must_last = false;
	}
	table_counts_settle(t, true);
	careful_committed(t);
	t->stat.rows_applied += t->tx.rows;
	t->stat.transactions++;
	if (t->tx.commit_us)
		t->stat.last_commit_us = t->tx.commit_us;
}

enum step tx_commit(struct target *t)
{
	struct tx *x = &t->tx;
	if (x->state == TX_NONE && !has_news(t))
		return STEP_DONE;
	if (x->state == TX_NONE && tx_begin(t) == STEP_WAIT)
		return STEP_WAIT;
	switch (x->state) {
	case TX_NONE:
		return STEP_DONE;
	case TX_OPEN:
		net_flush_all(t);
		if (target_died(t, failpoint("target.before-position")))
			return STEP_WAIT;
		send_position(t);
		x->is_holding = false; /* a savepoint on its way has lost its use */
		x->state = TX_CHECKING;
		return STEP_WAIT;
	case TX_CHECKING:
		if (x->syncs)
			return STEP_WAIT;
		if (err_is_set(&x->error))
			return STEP_DONE;
		if (target_died(t, failpoint("target.before-commit")))
			return STEP_WAIT;
		x->is_lazy = may_be_lazy(t);
		if (x->is_lazy)
			tx_sql(t, SENT_QUIET, NULL, "SET LOCAL synchronous_commit = off", 0, NULL);
		tx_sql(t, SENT_COMMIT, NULL, "COMMIT", 0, NULL);
		send_sync(t);
		x->state = TX_COMMITTING;
		x->sent_us = loop_now_us(t->loop);
		target_died(t, failpoint("target.commit-sent"));
		return STEP_WAIT;
	case TX_COMMITTING:
		if (x->syncs)
			return STEP_WAIT;
		if (err_is_set(&x->error))
			return STEP_DONE;
		if (target_died(t, failpoint("target.after-commit")))
			return STEP_WAIT;
		committed(t);
		return STEP_DONE;
	}
	return STEP_WAIT;
}

enum step tx_out(struct target *t)
{
	if (t->tx.is_bound)
		set_planner(t, "on");
	t->tx.is_bound = false;
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
	else if (is_owing(t))
		due = t->tx.lasted_us + LAZY_US;
	else
		due = t->tx.ended_us + (t->commit_interval_us > IDLE_SAVE_US ? t->commit_interval_us : IDLE_SAVE_US);
	return due > now ? due - now : 0;
}

bool tx_should_commit(struct target *t)
{
	struct tx *x = &t->tx;
	if (t->careful.state != CAREFUL_NONE)
		return false;
	if (x->state == TX_CHECKING || x->state == TX_COMMITTING)
		return true;
	if (x->in_source || (x->state == TX_NONE && !has_news(t)))
		return false;
	if (t->state == TARGET_STOPPING)
		return true;
	if (x->state == TX_OPEN && (x->rows >= t->commit_rows || x->bytes >= t->commit_bytes || x->held_bytes >= HOLD_BYTES))
		return true;
	if (is_asked_for(t) && (x->state == TX_OPEN || is_owing(t)))
		return true;
	return !time_left(t);
}

uint64_t tx_commit_due(struct target *t)
{
	if (t->tx.in_source || (t->tx.state == TX_NONE && !has_news(t)))
		return 0;
	return time_left(t) + 1;
}

void tx_reached(struct target *t, const struct position *p)
{
	struct err e = { 0 };
	if (!position_is_comparable(&t->tx.whole, p)) {
		err_set(&e, DMSR_EFATAL, "target.position-foreign", "what is applied is a position of another server than these changes come from");
		err_hint(&e, "one of the servers was replaced, and all tables have to be loaded again: stop the job, DELETE /jobs/%s/positions, start it",
			t->host.env.job);
		target_fail(t, &e);
		return;
	}
	int order = position_compare(p, &t->tx.whole);
	if (order > 0 || (order == 0 && p->flush > t->tx.whole.flush))
		t->tx.whole = *p;
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
	if (t->tx.state == TX_NONE && !has_news(t))
		return false;
	if (!b->more || ends_in(ch))
		return false;
	return !next || !ends_in(next->batch->first);
}

void tx_fini(struct target *t) { free(t->tx.sent); }
