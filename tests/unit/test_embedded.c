/* test_embedded: each rule of streamers/embedded/embedded.h by itself. test_embedded_random puts them all together. */
#include "embedded_kit.h"

static void memory_is_delivered_when_all_have_committed(void **state)
{
	struct stage *st = stage_new(2, MB, MB);
	(void)state;
	struct batch *early = stage_txn(st, 1, 1, 10);
	assert_int_equal(stage_produce(st, early), DMSR_AGAIN);
	batch_free(early);
	stage_turn(st);
	assert_true(st->is_ready);
	assert_int_equal(st->resumed, 1);
	st->lsn = 0;
	for (int i = 1; i <= 3; i++)
		assert_int_equal(stage_produce(st, stage_txn(st, i, 1, 10)), DMSR_OK);
	stage_turn(st);
	ids_are(&st->takers[0], 1, 3);
	ids_are(&st->takers[1], 1, 3);
	assert_int_equal(st->takers[0].drained, 1);
	taker_commit(&st->takers[0], 3);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 0);
	taker_commit(&st->takers[1], 2);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 2);
	taker_commit(&st->takers[1], 3);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 3);
	assert_int_equal(stage_stat(st).batches, 0);
	assert_int_equal(stage_stat(st).memory_bytes, 0);
	assert_int_equal(stage_entries(st), 0);
	stage_end(st);
}

static void a_slow_target_does_not_hold_the_source(void **state)
{
	struct stage *st = stage_new(2, 256 * KB, 100 * MB);
	struct taker *slow = &st->takers[0], *fast = &st->takers[1];
	(void)state;
	slow->refuses = true;
	stage_turn(st);
	for (int64_t id = 1; id <= 200; id++) {
		assert_int_equal(fill(st, id, id), id);
		stage_turn(st);
		taker_commit(fast, fast->last);
		assert_true(stage_stat(st).memory_bytes <= 300 * KB);
	}
	stage_turn(st);
	ids_are(fast, 1, 200);
	assert_int_equal(slow->nids, 0);
	assert_true(st->ndelivered >= 190); /* rule 3: durable, though one has seen nothing */
	assert_int_equal(stage_entries(st), stage_stat(st).batches - (200 - st->ndelivered));
	assert_true(stage_stat(st).log_bytes >= 190 * 20 * KB);
	/* Now it comes, and gets all, in order, from the log. */
	slow->limit = 2;
	taker_resume(slow);
	for (int i = 0; i < 400 && slow->nids < 200; i++) {
		stage_turn(st);
		taker_consumed(slow, slow->last);
		if (i % 3 == 0)
			taker_commit(slow, slow->last);
		assert_true(stage_stat(st).memory_bytes <= 300 * KB);
	}
	taker_commit(slow, slow->last);
	stage_turn(st);
	ids_are(slow, 1, 200);
	assert_int_equal(st->ndelivered, 200);
	assert_int_equal(stage_entries(st), 0);
	assert_int_equal(stage_stat(st).log_bytes, 0);
	/* And memory alone serves again. */
	assert_int_equal(fill(st, 201, 202), 202);
	stage_turn(st);
	assert_int_equal(stage_entries(st), 0);
	assert_int_equal(st->ndelivered, 200);
	stage_end(st);
}

/* The cap, a batch that comes, and two for each target: one that is lent to it, one on its way from the log. */
static size_t bound(const struct stage *st, size_t cap, size_t batch) { return cap + (1 + 2 * st->ntakers) * batch; }

/* It would take more than the memory's cap: it gets a share, and what it holds of that does not count when the source is to be stopped. */
static void what_a_target_holds_does_not_stop_the_source(void **state)
{
	struct stage *st = calloc(1, sizeof *st);
	struct taker *t = &st->takers[0];
	(void)state;
	t->can_let_go = true; /* and does not, for the time being */
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	t->limit = 30;
	for (int64_t id = 1; id <= 200; id++) {
		assert_int_equal(fill(st, id, id), id);
		stage_turn(st);
		assert_true(stage_stat(st).memory_bytes <= bound(st, 256 * KB, 40 * KB));
	}
	assert_in_range(t->last, 5, 12);
	assert_int_equal(st->ndelivered, 200);
	take_all(st);
	ids_are(t, 1, 200);
	assert_int_equal(stage_entries(st), 0);
	stage_end(st);
}

/* Memory stays full, so what a target was not ready for is dropped again: what was read with it is not. */
static void what_was_read_of_the_log_is_not_read_again(void **state)
{
	struct stage *st = stage_new(1, 2 * MB, 100 * MB);
	struct taker *t = &st->takers[0];
	struct fake_disk_stat before, after;
	int64_t id = 0;
	(void)state;
	t->refuses = true;
	stage_turn(st);
	id = fill(st, 1, 400);
	assert_int_equal(id, 400);
	stage_turn(st);
	fake_disk_stat(st->disk, &before);
	t->limit = 1;
	taker_resume(t);
	for (int i = 0; i < 1000 && t->nids < 200; i++) {
		stage_turn(st);
		id = fill(st, id + 1, id + 3);
		stage_turn(st);
		taker_commit(t, t->last);
	}
	ids_are(t, 1, 200);
	fake_disk_stat(st->disk, &after);
	assert_in_range(after.reads - before.reads, 200 * 20 * KB / (512 * KB), 30);
	stage_end(st);
}

static void nothing_is_delivered_before_it_is_durable(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	(void)state;
	st->takers[0].refuses = true;
	stage_turn(st);
	fake_disk_hold(st->disk, true);
	int64_t n = fill(st, 1, 100);
	assert_in_range(n, 5, 20);
	assert_int_equal(st->ndelivered, 0);
	assert_true(stage_stat(st).memory_bytes >= 256 * KB);
	fake_disk_hold(st->disk, false);
	stage_turn(st);
	assert_true(st->ndelivered > 0);
	assert_int_equal(fill(st, n + 1, 100), 100);
	stage_end(st);
}

static void a_full_log_makes_the_source_wait(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 1 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	t->refuses = true;
	stage_turn(st);
	int64_t n = fill(st, 1, 200);
	assert_in_range(n, 50, 80);
	assert_in_range(stage_stat(st).log_bytes, MB, MB + 30 * KB);
	unsigned resumed = st->resumed;
	taker_resume(t);
	for (int i = 0; i < 200 && t->nids < (size_t)n; i++) {
		stage_turn(st);
		taker_commit(t, t->last);
	}
	stage_turn(st);
	assert_true(st->resumed > resumed);
	ids_are(t, 1, n);
	assert_int_equal(stage_entries(st), 0);
	assert_int_equal(fill(st, n + 1, n + 3), n + 3);
	stage_end(st);
}

static void without_a_log_memory_is_all(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 0);
	(void)state;
	st->takers[0].refuses = true;
	stage_turn(st);
	int64_t n = fill(st, 1, 100);
	assert_in_range(n, 5, 20);
	assert_int_equal(stage_entries(st), 0);
	taker_resume(&st->takers[0]);
	take_all(st);
	assert_int_equal(st->ndelivered, n);
	assert_int_equal(fill(st, n + 1, n + 2), n + 2);
	stage_end(st);
}

/* A transaction of `n` parts; the taker consumes or not, and commits at its end only. */
static void big_transaction(struct stage *st, int64_t n, bool consumes, bool limited)
{
	struct taker *t = &st->takers[0];
	stage_turn(st);
	for (int64_t id = 1; id <= n; id++) {
		struct batch *b = stage_part(st, (uint64_t)id, id, 20 * KB);
		for (int tries = 0; stage_produce(st, b) != DMSR_OK; tries++) {
			assert_true(tries < 10);
			stage_turn(st);
		}
		stage_turn(st);
		if (consumes)
			taker_consumed(t, t->last);
		if (limited)
			assert_true(stage_stat(st).memory_bytes <= 300 * KB);
	}
	assert_int_equal(stage_produce(st, stage_commit_word(st)), DMSR_OK);
	stage_turn(st);
	ids_are(t, 1, n);
	assert_int_equal(t->last, n + 1);
	taker_commit(t, t->last);
	stage_turn(st);
	assert_int_equal(st->ndelivered, n + 1);
	assert_int_equal(stage_stat(st).memory_bytes, 0);
	assert_int_equal(stage_entries(st), 0);
}

static void a_transaction_bigger_than_memory_goes_through(void **state)
{
	static const int64_t disks[] = { 0, 1 * MB, 100 * MB };
	(void)state;
	for (int i = 0; i < 6; i++) {
		struct stage *st = stage_new(1, 256 * KB, disks[i / 2]);
		bool consumes = i % 2;
		big_transaction(st, 100, consumes, consumes);
		stage_end(st);
	}
}

/* One that lets go of what it has read needs no more than its share of a transaction. */
static void a_big_transaction_stays_below_the_cap(void **state)
{
	static const int64_t disks[] = { 0, 1 * MB, 100 * MB };
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct stage *st = calloc(1, sizeof *st);
		struct taker *t = &st->takers[0];
		unsigned asked = 0;
		t->can_let_go = true;
		stage_open(st, 1, 256 * KB, disks[i]);
		stage_turn(st);
		struct batch *b = NULL;
		int64_t id = 1;
		for (int turns = 0; turns < 1000 && id <= 101; turns++) {
			if (!b)
				b = id == 101 ? stage_commit_word(st) : stage_part(st, (uint64_t)id, id, 20 * KB);
			if (stage_produce(st, b) == DMSR_OK) {
				b = NULL;
				id++;
			}
			stage_turn(st);
			assert_true(stage_stat(st).memory_bytes <= bound(st, 256 * KB, 40 * KB));
			asked += t->must_let_go;
			if (t->must_let_go)
				taker_consumed(t, t->last);
			t->must_let_go = false;
		}
		assert_int_equal(id, 102);
		assert_in_range(asked, 2, 50);
		taker_consumed(t, t->last);
		stage_turn(st);
		ids_are(t, 1, 100);
		assert_int_equal(t->last, 101);
		taker_commit(t, t->last);
		stage_turn(st);
		assert_int_equal(st->ndelivered, 101);
		stage_end(st);
	}
}

/* However big it is, what a target gets next is in the log, and stops nobody. */
static void batches_of_more_than_a_quarter_of_the_memory(void **state)
{
	struct stage *st = calloc(1, sizeof *st);
	struct taker *t = &st->takers[0];
	(void)state;
	t->can_let_go = true;
	stage_open(st, 1, 256 * KB, 100 * MB);
	stage_turn(st);
	for (int64_t id = 1; id <= 40; id++) {
		assert_int_equal(stage_produce(st, stage_txn(st, id, 1, 80 * KB)), DMSR_OK);
		stage_turn(st);
	}
	assert_in_range(t->last, 1, 5);
	take_all(st);
	ids_are(t, 1, 40);
	stage_end(st);
}

static bool is_ready(void *arg) { return ((struct stage *)arg)->is_ready; }

/* What targets that take nothing have read of the log comes into the memory last, when what filled it is in the log already: that is not left as it is. */
static void what_is_read_back_does_not_stop_the_source(void **state)
{
	(void)state;
	for (size_t pad = 512; pad <= 4 * KB; pad += 64) {
		struct stage *st = stage_new(2, 64 * KB, 100 * MB);
		st->takers[0].refuses = st->takers[1].refuses = true;
		stage_turn(st);
		for (int64_t id = 1; id <= 40; id++) {
			produce(st, stage_txn(st, id, 1, pad));
			stage_turn(st);
		}
		stage_kill(st);
		stage_open(st, 2, 64 * KB, 100 * MB);
		assert_true(fake_run(st->loop, is_ready, st, FAKE_LONG_MS));
		fake_disk_hold(st->disk, true); /* until memory is full: then all is done in one turn */
		struct batch *b = NULL;
		for (int64_t id = 41; !b; id++) {
			struct batch *next = stage_txn(st, id, 1, 1 * KB);
			if (stage_produce(st, next) != DMSR_OK)
				b = next;
			stage_turn(st);
		}
		unsigned resumed = st->resumed;
		fake_disk_hold(st->disk, false);
		stage_turn(st);
		if (st->resumed == resumed)
			fail_msg("rows of %zu bytes in the log: the source waits, and nothing is done", pad);
		assert_int_equal(stage_produce(st, b), DMSR_OK);
		stage_end(st);
	}
}

/* Each has a share: who is blocked does not keep the other from anything. */
static void a_blocked_target_holds_no_more_than_its_share(void **state)
{
	struct stage *st = calloc(1, sizeof *st);
	struct taker *blocked = &st->takers[0], *fast = &st->takers[1];
	(void)state;
	blocked->can_let_go = fast->can_let_go = true;
	stage_open(st, 2, 256 * KB, 100 * MB);
	stage_turn(st);
	for (int64_t id = 1; id <= 200; id++) {
		assert_int_equal(fill(st, id, id), id);
		stage_turn(st);
		assert_true(stage_stat(st).memory_bytes <= bound(st, 256 * KB, 40 * KB));
		taker_commit(fast, fast->last);
	}
	for (int i = 0; i < 200 && fast->nids < 200; i++) {
		stage_turn(st);
		taker_commit(fast, fast->last);
	}
	ids_are(fast, 1, 200);
	assert_in_range(blocked->last, 2, 12);
	for (int i = 0; i < 200 && blocked->nids < 200; i++) {
		taker_commit(blocked, blocked->last);
		stage_turn(st);
		assert_true(stage_stat(st).memory_bytes <= bound(st, 256 * KB, 40 * KB));
	}
	ids_are(blocked, 1, 200);
	stage_end(st);
}

static void a_load_stays_out_of_the_log(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	stage_turn(st);
	produce(st, load_batch(st, OP_LOAD_BEGIN, 0));
	for (int i = 0; i < 100; i++) {
		produce(st, load_batch(st, 0, 2000));
		stage_turn(st);
		taker_consumed(t, t->last);
		assert_true(stage_stat(st).memory_bytes <= 300 * KB);
	}
	produce(st, load_batch(st, OP_LOAD_END, 0));
	stage_turn(st);
	assert_int_equal(t->rows_loaded, 200000);
	assert_int_equal(st->ndelivered, 0);
	assert_int_equal(stage_entries(st), 0);
	/* The table is not committed; the target stalls: what comes behind cannot be logged, for the load is not delivered. */
	t->refuses = true;
	int64_t n = fill(st, 103, 200);
	assert_in_range(n, 107, 120);
	assert_int_equal(stage_entries(st), 0);
	taker_commit(t, t->last);
	stage_turn(st);
	assert_int_equal(st->ndelivered, 102 + stage_entries(st));
	assert_true(stage_entries(st) > 0);
	stage_end(st);
}

static void a_target_that_builds_indexes_does_not_hold_the_source(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	stage_turn(st);
	produce(st, load_batch(st, OP_LOAD_DONE, 0));
	stage_turn(st);
	assert_int_equal(t->words, 1);
	t->refuses = true;
	assert_int_equal(fill(st, 2, 100), 100);
	stage_turn(st);
	assert_true(st->delivered[1]);
	assert_int_equal(st->ndelivered, 100);
	/* Killed: the words come again, and then the rest. */
	stage_kill(st);
	t->refuses = false;
	t->nids = 0;
	stage_open(st, 1, 256 * KB, 100 * MB);
	take_all(st);
	assert_int_equal(t->words, 2);
	ids_are(t, 2, 100);
	stage_end(st);
}

static void a_stop_waits_for_what_is_being_written(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	(void)state;
	st->takers[0].refuses = true;
	stage_turn(st);
	fake_disk_hold(st->disk, true);
	int64_t n = fill(st, 1, 100);
	streamer()->stop(st->streamer);
	stage_turn(st);
	assert_false(st->is_stopped);
	struct batch *b = stage_txn(st, n + 1, 1, 1);
	assert_int_equal(stage_produce(st, b), DMSR_AGAIN);
	batch_free(b);
	fake_disk_hold(st->disk, false);
	stage_turn(st);
	assert_true(st->is_stopped && !st->has_failed);
	assert_int_equal(st->ndelivered, stage_entries(st));
	assert_true(st->ndelivered > 0);
	stage_end(st);
}

static void an_idle_one_stops_at_once(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	(void)state;
	streamer()->stop(st->streamer);
	stage_turn(st);
	assert_true(st->is_stopped && !st->is_ready);
	stage_end(st);
}

/* 8 MiB of one row: it is bigger than the memory, and goes through memory and log like another. */
static void a_batch_bigger_than_memory(void **state)
{
	struct stage *st = stage_new(1, 256 * KB, 100 * MB);
	struct taker *t = &st->takers[0];
	(void)state;
	t->refuses = true;
	stage_turn(st);
	for (int64_t id = 1; id <= 3; id++) {
		produce(st, stage_txn(st, id, 1, 8 * MB));
		stage_turn(st);
	}
	stage_turn(st);
	assert_int_equal(st->ndelivered, 3);
	t->limit = 1;
	taker_resume(t);
	for (int i = 0; i < 20 && t->nids < 3; i++) {
		stage_turn(st);
		assert_true(stage_stat(st).memory_bytes <= 17 * MB);
		taker_commit(t, t->last);
	}
	ids_are(t, 1, 3);
	stage_end(st);
}

RUN_TESTS(
	cmocka_unit_test(memory_is_delivered_when_all_have_committed),
	cmocka_unit_test(a_slow_target_does_not_hold_the_source),
	cmocka_unit_test(what_a_target_holds_does_not_stop_the_source),
	cmocka_unit_test(what_was_read_of_the_log_is_not_read_again),
	cmocka_unit_test(nothing_is_delivered_before_it_is_durable),
	cmocka_unit_test(a_full_log_makes_the_source_wait),
	cmocka_unit_test(without_a_log_memory_is_all),
	cmocka_unit_test(a_transaction_bigger_than_memory_goes_through),
	cmocka_unit_test(a_big_transaction_stays_below_the_cap),
	cmocka_unit_test(batches_of_more_than_a_quarter_of_the_memory),
	cmocka_unit_test(what_is_read_back_does_not_stop_the_source),
	cmocka_unit_test(a_blocked_target_holds_no_more_than_its_share),
	cmocka_unit_test(a_load_stays_out_of_the_log),
	cmocka_unit_test(a_target_that_builds_indexes_does_not_hold_the_source),
	cmocka_unit_test(a_stop_waits_for_what_is_being_written),
	cmocka_unit_test(an_idle_one_stops_at_once),
	cmocka_unit_test(a_batch_bigger_than_memory))
