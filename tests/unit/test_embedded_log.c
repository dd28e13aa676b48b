/* test_embedded_log: the log of the embedded streamer: what is there after a restart, for whom, and what is wrong with it. */
#include "embedded_kit.h"

/* Rows 1..100 are in the log, and nowhere else. */
static int64_t logged(struct stage *st)
{
	st->takers[0].refuses = true;
	stage_turn(st);
	assert_int_equal(fill(st, 1, 100), 100);
	stage_turn(st);
	int64_t n = (int64_t)st->ndelivered;
	assert_int_equal(n, 100);
	stage_kill(st);
	st->takers[0].refuses = false;
	st->lsn = 0;
	return n;
}

static void a_restart_takes_up_the_log(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	int64_t n = logged(st);
	stage_open(st, 1, 256 * KB, 100 * MB);
	assert_true(stage_stat(st).log_bytes >= 100 * 20 * KB);
	stage_turn(st);
	assert_true(st->is_ready);
	take_all(st);
	ids_are(t, 1, n);
	assert_int_equal(stage_entries(st), 0);
	assert_int_equal(stage_stat(st).log_bytes, 0);
	/* The source had heard of rows up to 50: it sends the rest again, in batches of another cut. */
	st->lsn = 50 * FAKE_LSN_STEP;
	for (int64_t id = 51; id <= n; id++)
		produce(st, stage_txn(st, id, 1, 10));
	unsigned drained = t->drained;
	stage_turn(st);
	assert_int_equal(st->ndelivered, n - 50);
	ids_are(t, 1, n);
	assert_int_equal(t->drained, drained + 1); /* who waits for it must not wait for a batch that nobody gets */
	produce(st, stage_txn(st, n + 1, 1, 10));
	stage_turn(st);
	ids_are(t, 1, n + 1);
	assert_int_equal(st->ndelivered, n - 50);
	stage_end(st);
}

/* Those that are passed over are not read, and how big they are is estimated. */
static void log_bytes_are_0_when_it_is_empty(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	t->refuses = true;
	stage_turn(st);
	for (int64_t id = 1; id <= 100; id++)
		produce(st, stage_txn(st, id, 1, id <= 50 ? 10 : 20 * KB));
	stage_turn(st);
	assert_int_equal(st->ndelivered, 100);
	stage_kill(st);
	t->refuses = false;
	t->from = fake_position(50 * FAKE_LSN_STEP, POSITION_WHOLE);
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	for (uint64_t token = 51; token <= 100; token++) {
		assert_true(stage_entries(st) > 0 && stage_stat(st).log_bytes > 0);
		assert_true(t->last >= token);
		taker_commit(t, token);
		stage_turn(st);
	}
	assert_int_equal(stage_entries(st), 0);
	assert_int_equal(stage_stat(st).log_bytes, 0);
	stage_end(st);
}

static void a_batch_known_in_part_is_cut(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	int64_t n = logged(st);
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	take_all(st);
	/* One batch with the last three logged transactions and two new ones. */
	struct batch *b = batch_new();
	for (int64_t id = n - 2; id <= n + 2; id++) {
		st->lsn = (uint64_t)id * FAKE_LSN_STEP;
		batch_txn(b, &(struct txn){ .lsn = st->lsn });
		batch_append(b, OP_BEGIN, NULL);
		fake_add_row(b, OP_CREATE, st->rel, 1, id, 10);
		batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	}
	b->end = fake_position(st->lsn, POSITION_WHOLE);
	produce(st, b);
	stage_turn(st);
	ids_are(t, 1, n + 2);
	assert_int_equal(t->newest->nchanges, 6);
	assert_int_equal(t->newest->nrows, 2);
	assert_int_equal(t->newest->last->op, OP_COMMIT); /* lent still */
	stage_end(st);
}

static void each_target_goes_on_where_it_was(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	(void)state;
	int64_t n = logged(st);
	static const int64_t has[] = { 0, 40, 100 };
	for (int i = 0; i < 3; i++)
		if (has[i])
			st->takers[i].from = fake_position((uint64_t)has[i] * FAKE_LSN_STEP, POSITION_WHOLE);
	stage_open(st, 3, 256 * KB, 100 * MB);
	take_all(st);
	for (int i = 0; i < 3; i++) {
		ids_are(&st->takers[i], has[i] + 1, n);
		assert_true(st->takers[i].drained);
	}
	assert_int_equal(stage_entries(st), 0);
	/* Rows 80 .. n again: none of them is for anybody. */
	st->lsn = 79 * FAKE_LSN_STEP;
	for (int64_t id = 80; id <= n + 1; id++)
		produce(st, stage_txn(st, id, 1, 10));
	stage_turn(st);
	for (int i = 0; i < 3; i++)
		ids_are(&st->takers[i], has[i] + 1, n + 1);
	stage_end(st);
}

/* Nothing in the log, but a target that is ahead of what the source was told: a transaction of five of which it has three. */
static void a_target_ahead_of_the_source_gets_the_rest(void **state)
{
	struct stage *st = calloc(1, sizeof *st);
	struct taker *ahead = &st->takers[0], *behind = &st->takers[1];
	(void)state;
	ahead->from = fake_position(2 * FAKE_LSN_STEP, 3);
	stage_open(st, 2, MB, MB);
	stage_turn(st);
	produce(st, stage_txn(st, 1, 2, 10));
	struct batch *b = stage_txn(st, 3, 5, 10);
	produce(st, b);
	stage_turn(st);
	ids_are(behind, 1, 7);
	assert_ptr_equal(behind->newest, b);
	ids_are(ahead, 6, 7);
	assert_ptr_not_equal(ahead->newest, b);
	assert_int_equal(ahead->newest->first->op, OP_CREATE);
	assert_int_equal(ahead->newest->last->op, OP_COMMIT);
	assert_int_equal(b->nrows, 5);
	taker_commit(ahead, ahead->last);
	taker_commit(behind, behind->last);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 2);
	assert_int_equal(stage_stat(st).memory_bytes, 0);
	stage_end(st);
}

static void a_failed_append_is_the_end(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	(void)state;
	st->takers[0].refuses = true;
	fake_disk_fail(st->disk, 5);
	stage_turn(st);
	assert_in_range(fill(st, 1, 100), 5, 40);
	assert_true(st->has_failed);
	assert_string_equal(st->error.id, "state.full");
	assert_true(st->ndelivered <= 5);
	stage_end(st);
}

static void a_damaged_log_is_the_end(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	logged(st);
	fake_disk_damage(st->disk, 30);
	stage_open(st, 1, 256 * KB, 100 * MB);
	for (int i = 0; i < 100 && !st->has_failed; i++) {
		stage_turn(st);
		taker_commit(t, t->last);
	}
	assert_true(st->has_failed);
	assert_string_equal(st->error.id, "streamer.log-damaged");
	assert_false(st->error.retriable);
	ids_are(t, 1, 29);
	stage_end(st);
}

/* What is being written is committed before it is durable; then memory fills again. */
static void a_commit_may_overtake_an_append(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	stage_turn(st);
	fake_disk_hold(st->disk, true);
	int64_t n = fill(st, 1, 100);
	take_all(st);
	assert_int_equal(st->ndelivered, n);
	assert_int_equal(stage_stat(st).log_bytes, 0);
	t->refuses = true;
	int64_t m = fill(st, n + 1, 100);
	fake_disk_hold(st->disk, false);
	stage_turn(st);
	assert_true(stage_entries(st) > 0);
	assert_int_equal(st->ndelivered, n + (int64_t)stage_entries(st));
	taker_resume(t);
	take_all(st);
	ids_are(t, 1, m);
	assert_int_equal(stage_entries(st), 0);
	stage_end(st);
}

/* The end of the load may stand in a batch of the stream. A target that has all of its changes may still lack that word. */
static void a_word_is_given_again(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	stage_turn(st);
	t->refuses = true;
	struct batch *b = stage_txn(st, 1, 1, 10);
	batch_append(b, OP_LOAD_DONE, NULL);
	produce(st, b);
	assert_int_equal(fill(st, 2, 100), 100);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 100);
	stage_kill(st);
	t->refuses = false;
	t->from = fake_position(FAKE_LSN_STEP, POSITION_WHOLE);
	stage_open(st, 1, 256 * KB, 100 * MB);
	take_all(st);
	assert_int_equal(t->words, 1);
	ids_are(t, 2, 100);
	/* Also when the source sends it again, with changes that nobody needs. */
	st->lsn = 49 * FAKE_LSN_STEP;
	b = stage_txn(st, 50, 1, 10);
	batch_append(b, OP_LOAD_DONE, NULL);
	produce(st, b);
	stage_turn(st);
	assert_int_equal(t->newest->end.lsn, 100 * FAKE_LSN_STEP);
	take_all(st);
	assert_int_equal(t->words, 2);
	ids_are(t, 2, 100);
	assert_int_equal(st->ndelivered, 1);
	stage_end(st);
}

static void another_server_is_refused(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct batch *b;
	(void)state;
	logged(st);
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	b = stage_txn(st, 1, 1, 10);
	b->end.server++;
	assert_int_equal(stage_produce(st, b), DMSR_AGAIN);
	stage_turn(st);
	assert_true(st->has_failed);
	assert_string_equal(st->error.id, "server.changed");
	batch_free(b);
	stage_kill(st);
	/* and so is a target that stands there */
	st->takers[0].from = fake_position(10, POSITION_WHOLE);
	st->takers[0].from.server++;
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	assert_true(st->has_failed && !st->is_ready);
	assert_string_equal(st->error.id, "server.changed");
	stage_end(st);
}

RUN_TESTS(
	cmocka_unit_test(a_restart_takes_up_the_log),
	cmocka_unit_test(log_bytes_are_0_when_it_is_empty),
	cmocka_unit_test(a_batch_known_in_part_is_cut),
	cmocka_unit_test(each_target_goes_on_where_it_was),
	cmocka_unit_test(a_target_ahead_of_the_source_gets_the_rest),
	cmocka_unit_test(a_failed_append_is_the_end),
	cmocka_unit_test(a_damaged_log_is_the_end),
	cmocka_unit_test(a_commit_may_overtake_an_append),
	cmocka_unit_test(a_word_is_given_again),
	cmocka_unit_test(another_server_is_refused))
