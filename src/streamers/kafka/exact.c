/* exact: the producer's transactions, for option exactly_once. Rules 8 and 9 of kafka.h.
 *
 *   OFF        BEGINNING -> OPEN -> CLOSING -> COMMITTING -> OPEN
 *
 *   BEGINNING    the broker aborts what an earlier producer of the job left open, and refuses that one from then on
 *   OPEN         records go into it
 *   CLOSING      the position stands behind them, and all are to be acknowledged; nothing more goes into it
 *   COMMITTING   the broker is asked; the next one begins with the answer
 *
 * librdkafka's calls for all this block: they are made on the client's thread, half a second at a time, and made again until they are through. Whatever goes
 * wrong ends the run: the next one aborts what is open, and reads what was committed. */
#include "words.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { CALL_MS = 500, GROUP_US = 200000, LOOK_MS = 20000 };
enum call_kind { CALL_BEGIN, CALL_COMMIT, CALL_WHY };

static const char *const state_names[EXACT_STATES] = { "off", "beginning", "open", "closing", "committing" };
static const bool allowed[EXACT_STATES][EXACT_STATES] = {
	[EXACT_OFF] = { [EXACT_BEGINNING] = true },
	[EXACT_BEGINNING] = { [EXACT_OPEN] = true },
	[EXACT_OPEN] = { [EXACT_CLOSING] = true },
	[EXACT_CLOSING] = { [EXACT_COMMITTING] = true },
	[EXACT_COMMITTING] = { [EXACT_OPEN] = true },
};

static void set_state(struct kafka *k, enum exact_state to)
{
	assert(allowed[k->exact.state][to]);
	log_debug("streamer", k->host.env.job, "transaction: %s -> %s", state_names[k->exact.state], state_names[to]);
	k->exact.state = to;
}

static bool is_alive(const struct kafka *k) { return !k->is_closed && (k->state == KAFKA_STARTING || k->state == KAFKA_RUNNING); }

static uint64_t age_us(const struct kafka *k)
{
	const struct exact *x = &k->exact;
	return x->began_us ? loop_now_us(k->host.env.loop) - x->began_us : 0;
}

/* ---- calls ---- */

struct call {
	struct kafka *k;
	rd_kafka_t *rk;
	enum call_kind kind;
	rd_kafka_error_t *error;
};

static void post(struct kafka *k, enum call_kind kind);

/* A transaction that is begun costs nothing before its first record. One that has failed says why when another is begun. */
static void run(void *arg)
{
	struct call *c = arg;
	if (c->kind == CALL_BEGIN)
		c->error = rd_kafka_init_transactions(c->rk, CALL_MS);
	else if (c->kind == CALL_COMMIT)
		c->error = rd_kafka_commit_transaction(c->rk, CALL_MS);
	if (!c->error)
		c->error = rd_kafka_begin_transaction(c->rk);
}

static void drop(void *arg)
{
	struct call *c = arg;
	if (c->error)
		rd_kafka_error_destroy(c->error);
	free(c);
}

static void committed(struct kafka *k)
{
	struct exact *x = &k->exact;
	failpoint("kafka.committed");
	known_committed(k);
	k->memory -= x->own.bytes;
	x->own.bytes = 0;
	x->began_us = 0;
	x->has_committed = true;
	loop_timer_stop(x->due);
	set_state(k, EXACT_OPEN);
	k->told.committed = k->told.n;
	k->visible = k->end;
	consume_expect(k);
	kafka_save_soon(k);
}

static void failed(struct kafka *k, enum call_kind kind, const rd_kafka_error_t *error)
{
	rd_kafka_resp_err_t code = rd_kafka_error_code(error);
	struct err e = { 0 };
	if (kind == CALL_WHY && code == RD_KAFKA_RESP_ERR__STATE)
		return; /* it has not failed, as far as it knows: a report will tell, or nobody */
	kafka_error(&e, code, NULL, rd_kafka_error_string(error));
	if (e.retriable)
		err_retry(&e, DMSR_EIO, "kafka.transaction", "Kafka has not committed a transaction, and what it holds is sent again: %s (%s)",
			rd_kafka_error_string(error), rd_kafka_err2name(code));
	exact_judge(k, &e);
	kafka_fail(k, &e);
}

static void done(void *arg)
{
	struct call *c = arg;
	struct kafka *k = c->k;
	struct exact *x = &k->exact;
	if (!is_alive(k)) {
		drop(c);
		return;
	}
	if (c->error && c->kind != CALL_WHY && rd_kafka_error_is_retriable(c->error)) {
		snprintf(x->why, sizeof x->why, "%s", rd_kafka_error_string(c->error));
		log_debug("streamer", k->host.env.job, "transaction: %s", x->why);
		post(k, c->kind);
	} else if (c->error) {
		failed(k, c->kind, c->error);
	} else if (c->kind == CALL_COMMIT) {
		committed(k);
	} else if (c->kind == CALL_BEGIN) {
		x->why[0] = 0;
		client_has_begun(k->producer);
		set_state(k, EXACT_OPEN);
	}
	drop(c);
	kafka_wake(k);
}

static void post(struct kafka *k, enum call_kind kind)
{
	struct call *c = mem_alloc(sizeof *c);
	*c = (struct call){ .k = k, .rk = client_handle(k->producer), .kind = kind };
	worker_post(client_worker(k->producer), &(struct worker_job){ .run = run, .done = done, .drop = drop, .arg = c });
}

void exact_ask_why(struct kafka *k)
{
	if (k->exact.state == EXACT_OPEN || k->exact.state == EXACT_CLOSING)
		post(k, CALL_WHY);
}

/* ---- the way up ---- */

bool exact_has_begun(struct kafka *k)
{
	if (k->exact.state == EXACT_OFF && !k->reads_only && settings_bool(k->settings, "exactly_once")) {
		set_state(k, EXACT_BEGINNING);
		post(k, CALL_BEGIN);
	}
	return k->exact.state == EXACT_OFF || k->exact.state == EXACT_OPEN;
}

bool exact_waits(const struct kafka *k, struct err *e)
{
	const struct exact *x = &k->exact;
	if (!x->why[0])
		return false;
	err_retry(e, DMSR_EIO, "kafka.transactions", "the start waits for Kafka's transactions: %s", x->why);
	err_hint(e, "see the brokers' log; transaction.state.log.replication.factor and transaction.state.log.min.isr must be no more than there are brokers, "
		"and one job alone writes to these topics");
	return true;
}

/* ---- what goes in ---- */

bool exact_takes(const struct kafka *k) { return k->exact.state == EXACT_OFF || k->exact.state == EXACT_OPEN; }

bool exact_is_pending(const struct kafka *k)
{
	const struct exact *x = &k->exact;
	return x->state > EXACT_OPEN || (x->state == EXACT_OPEN && x->began_us && x->is_whole);
}

void exact_waits_for(struct kafka *k, const struct topic *t)
{
	struct exact *x = &k->exact;
	snprintf(x->why, sizeof x->why, "another producer has one open in topic %.120s", t->name);
}

static void watch(struct kafka *k)
{
	struct exact *x = &k->exact;
	uint64_t left_ms = age_us(k) < x->cut_us ? (x->cut_us - age_us(k)) / 1000 + 1 : LOOK_MS;
	x->nseen = x->nrecords;
	loop_timer_start(x->due, left_ms < LOOK_MS ? left_ms : LOOK_MS);
}

/* One that stands still says what it waits for: nothing of it is seen until it is committed. */
static void on_due(void *arg)
{
	struct kafka *k = arg;
	const struct exact *x = &k->exact;
	if (x->nseen == x->nrecords)
		log_info("streamer", k->host.env.job, "a transaction is %s for %llu s: %llu records are not acknowledged, %zu tables of the load are not whole",
			state_names[x->state], (unsigned long long)(age_us(k) / 1000000), (unsigned long long)x->unacknowledged, map_size(x->loads));
	watch(k);
	kafka_wake(k);
}

void exact_record(struct kafka *k)
{
	struct exact *x = &k->exact;
	if (x->state == EXACT_OFF)
		return;
	x->nrecords++;
	x->unacknowledged++;
	if (x->began_us)
		return;
	x->began_us = loop_now_us(k->host.env.loop);
	watch(k);
}

static void void_loads(struct exact *x)
{
	map_free(x->loads);
	x->loads = map_new();
}

/* Which tables' loads are open behind b, as model/change.h has it. */
static void follow_loads(struct exact *x, const struct batch *b)
{
	static char open;
	struct buf key;
	buf_init(&key, 4096);
	if (!b->is_load && map_size(x->loads))
		void_loads(x);
	for (const struct change *ch = b->is_load ? b->first : NULL; ch; ch = ch->next) {
		if (ch->op != OP_LOAD_BEGIN && ch->op != OP_LOAD_END)
			continue;
		buf_reset(&key);
		relation_key(&key, ch->rel->schema, ch->rel->name);
		if (ch->op == OP_LOAD_BEGIN && ch->txn->lsn != x->snapshot)
			void_loads(x);
		if (ch->op == OP_LOAD_BEGIN)
			x->snapshot = ch->txn->lsn;
		if (ch->op == OP_LOAD_BEGIN)
			map_put(x->loads, key.data, key.len, &open);
		else
			map_del(x->loads, key.data, key.len);
	}
	buf_fini(&key);
}

void exact_took(struct kafka *k, const struct flight *f)
{
	struct exact *x = &k->exact;
	if (x->state == EXACT_OFF)
		return;
	x->last = f->token;
	if (!position_is_none(&f->b->end))
		x->at = f->b->end;
	follow_loads(x, f->b);
	x->is_whole = !f->b->more && !map_size(x->loads);
	known_words(k, f->b);
}

bool exact_is_due(const struct kafka *k)
{
	const struct exact *x = &k->exact;
	uint64_t age = age_us(k);
	return x->began_us && (age >= x->cut_us || (x->is_whole && (!k->encoding || age >= GROUP_US || known_is_full(k))));
}

void exact_turn(struct kafka *k)
{
	struct exact *x = &k->exact;
	if (x->state == EXACT_OPEN && !x->began_us && k->told.committed < k->told.n) { /* batches without records need none */
		k->told.committed = k->told.n;
		kafka_save_soon(k);
	}
	if (x->state == EXACT_OPEN && kafka_may_send(k) && !(k->encoding && k->encoding->is_begun) && !words_are_due(k) && exact_is_due(k)) {
		if (!known_write(k))
			return;
		set_state(k, EXACT_CLOSING);
		failpoint("kafka.closing");
	}
	if (x->state == EXACT_CLOSING && !k->is_barred && !x->unacknowledged) {
		set_state(k, EXACT_COMMITTING);
		failpoint("kafka.committing");
		post(k, CALL_COMMIT);
	}
}

/* ---- errors ---- */

/* Another producer with our id has begun. Where that may be one of our own, or the broker's own doing, the next run finds out; else it is another dmsrd, and
 * they would take the job from each other for ever. */
void exact_judge(const struct kafka *k, struct err *e)
{
	const struct exact *x = &k->exact;
	if (x->state == EXACT_OFF || strcmp(e->id, "kafka.fenced") != 0)
		return;
	char text[sizeof e->message];
	snprintf(text, sizeof text, "%s", e->message);
	if (age_us(k) >= 2 * x->cut_us)
		err_retry(e, DMSR_EIO, "kafka.transaction-timeout", "a transaction was open longer than transaction_timeout, what it holds is sent again: %s",
			text);
	else if (!x->has_committed)
		err_retry(e, DMSR_EIO, "kafka.fenced", "%s", text);
}

void exact_open(struct kafka *k)
{
	k->exact.cut_us = k->reads_only ? 0 : (uint64_t)settings_int(k->settings, "transaction_timeout") * 500; /* half of it */
	k->exact.is_whole = true;
	k->exact.own.self.f = &k->exact.own;
	k->exact.loads = map_new();
	k->exact.due = loop_timer_new(k->host.env.loop, "kafka", on_due, k);
}

void exact_free(struct kafka *k)
{
	loop_timer_free(k->exact.due);
	map_free(k->exact.loads);
}
