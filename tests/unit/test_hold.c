/* test_hold: what stands in hold.h, each by itself. By chance: test_hold_random. */
#include "hold_kit.h"

/* ---- a second load, when the streamer has the first half of a transaction out of the log ---- */

static void the_end_of_a_half_goes_before_rows(void **state)
{
	const bool *forgets_late = *state;
	struct world *w = world_new(7, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	start(w);
	w->silent = 0;
	w->snapshot = lsn_of(0);
	for (w->txn = 20; w->txn < 34;) {
		put_changes(w, w->change ? 1 : 2);
		fake_run(w->loop, NULL, NULL, 0);
	}
	while (!w->loaded) {
		load(w);
		acknowledge(w);
		store(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	hold_release(w->hold, w->loaded);
	for (int i = 0; i < 200; i++) {
		make_room(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	assert_int_equal(w->npending, PENDING);
	assert_true(w->follows && hold_has_any(w->hold));
	fake_disk_hold(w->disk, *forgets_late);
	size_t upto = 0;
	for (int i = 0; i < 3; i++) { /* a transaction, and half of the next; the rest dies on its way */
		struct pending p = w->pending[0];
		memmove(&w->pending[0], &w->pending[1], --w->npending * sizeof p);
		w->acked = p.own;
		upto = p.upto;
		batch_free(p.b);
		w->host.delivered(w->host.ctx, p.own, NULL);
	}
	assert_int_equal(w->log[upto - 1].id % CHANGES, 2);
	int64_t rest = w->log[upto - 1].id + 1;
	store(w);
	for (int i = 0; i < 50; i++)
		fake_run(w->loop, NULL, NULL, 0);
	kill_it(w);
	w->n = upto;
	start(w);
	w->silent = 0;
	w->snapshot = lsn_of(60);
	for (int i = 0; i < 300; i++) {
		if (w->step <= LOAD_ROWS + 1)
			load(w);
		make_room(w);
		acknowledge(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	bool is_there = false;
	size_t n = upto;
	for (; n < w->n && w->log[n].kind == ENTRY_CHANGE; n++)
		is_there |= w->log[n].id == rest;
	assert_true(is_there);
	assert_true(n < w->n && w->log[n].kind == ENTRY_ROWS);
	world_free(w);
}

/* ---- each by itself ---- */

static struct world *small_world(void)
{
	struct world *w = world_new(1, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	start(w);
	w->silent = 0;
	return w;
}

/* A transaction onto the disk: each row alone is more than the log's memory, however little a batch takes besides. */
static void put_into_log(struct world *w)
{
	struct fake_disk_stat st;
	w->pad = (size_t)2 * MEMORY;
	put_changes(w, CHANGES);
	for (int i = 0; !w->delivered[HOLD_CHANGES][1]; i++) {
		assert_in_range(i, 0, STUCK);
		fake_run(w->loop, NULL, NULL, 0);
	}
	fake_disk_stat(w->disk, &st);
	assert_int_equal(st.entries, 1);
}

/* Until the streamer takes it. */
static void load_step(struct world *w)
{
	for (unsigned step = w->step; w->step == step;)
		load(w);
}

static void acknowledge_all(struct world *w)
{
	while (w->npending)
		acknowledge(w);
}

static bool keeps_any(const struct world *w) { return hold_ops(w->hold, HOLD_CHANGES)->keeps(hold_instance(w->hold, HOLD_CHANGES)); }

/* Nothing else has to come for that. */
static void what_comes_again_is_told_delivered(void **state)
{
	(void)state;
	struct world *w = small_world();
	w->snapshot = lsn_of(0);
	put_into_log(w);
	while (w->step <= LOAD_ROWS + 1)
		load_step(w);
	acknowledge_all(w);
	w->durable = (struct position){ 0 };
	w->loaded = w->snapshot;
	kill_it(w);
	start(w);
	assert_true(hold_has_any(w->hold));
	hold_release(w->hold, w->loaded);
	for (int i = 0; hold_has_any(w->hold) || w->npending; i++) {
		assert_in_range(i, 0, STUCK);
		make_room(w);
		acknowledge_all(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	size_t n = w->n;
	put_changes(w, CHANGES);
	assert_int_equal(w->produced[HOLD_CHANGES], 1);
	assert_false(w->delivered[HOLD_CHANGES][1]); /* not inside of the call */
	fake_settle(w->loop);
	assert_true(w->delivered[HOLD_CHANGES][1]);
	assert_int_equal(w->n, n);
	world_free(w);
}

/* It would be told delivered once more, or what stands before it, which is not. */
static void an_acknowledgement_of_what_is_not_there(void **state)
{
	struct err e = { 0 };
	(void)state;
	struct world *w = small_world();
	w->failure = &e;
	load_step(w);
	load_step(w);
	assert_int_equal(w->npending, 2);
	uint64_t first = w->pending[0].own, second = w->pending[1].own;
	const uint64_t odd[] = { second + 1, first - 1, second };
	w->host.delivered(w->host.ctx, second, NULL);
	assert_int_equal(e.code, 0);
	for (size_t i = 0; i < 3; i++) {
		err_clear(&e);
		w->host.delivered(w->host.ctx, odd[i], NULL);
		assert_string_equal(e.id, "streamer.protocol");
		assert_false(w->delivered[HOLD_ROWS][1] || w->delivered[HOLD_ROWS][2]);
	}
	w->host.delivered(w->host.ctx, first, NULL);
	assert_true(w->delivered[HOLD_ROWS][1] && w->delivered[HOLD_ROWS][2]);
	world_free(w);
}

/* And nobody is asked which of them is old, also when it is said twice. */
static void changes_go_straight_when_there_is_no_load(void **state)
{
	(void)state;
	struct world *w = small_world();
	for (unsigned txn = 0; txn < 2; txn++) {
		hold_release(w->hold, txn ? lsn_of(9) : 0);
		assert_false(hold_is_held(w->hold));
		while (w->txn == txn)
			put_changes(w, CHANGES);
		assert_false(hold_has_any(w->hold));
		assert_int_equal(w->n, (txn + 1) * CHANGES);
	}
	world_free(w);
}

/* Of an earlier run. */
static void what_is_kept_in_either_is_kept(void **state)
{
	(void)state;
	struct world *w = small_world();
	assert_true(keeps_any(w));
	w->keeps_nothing = true;
	assert_false(keeps_any(w));
	put_into_log(w);
	kill_it(w);
	start(w);
	assert_true(keeps_any(w));
	world_free(w);
}

/* It forgets late what it gave: to the next run that is nothing that waits, and what went straight behind it may end inside of a transaction. Also where the
 * last that it gave is a word, or was not stored yet when that was noted. */
enum { GIVEN, GIVEN_WITH_WORD, GIVEN_NOT_STORED };
static void a_log_that_was_given_waits_for_nothing(void **state)
{
	const int how = *(const int *)*state;
	struct fake_disk_stat st;
	struct world *w = small_world();
	w->snapshot = lsn_of(0);
	w->txn = 5;
	w->has_word = how == GIVEN_WITH_WORD;
	put_into_log(w);
	while (w->step <= LOAD_ROWS + 1)
		load_step(w);
	acknowledge_all(w);
	w->loaded = w->snapshot;
	hold_release(w->hold, w->loaded);
	for (int i = 0; hold_has_any(w->hold); i++) {
		assert_in_range(i, 0, STUCK);
		make_room(w);
		fake_run(w->loop, NULL, NULL, 0);
	}
	fake_disk_hold(w->disk, true);
	acknowledge_all(w);
	store(w);
	if (how == GIVEN_NOT_STORED)
		w->durable = fake_position(lsn_of(4), POSITION_WHOLE);
	fake_settle(w->loop);
	assert_true(hold_is_over(w->hold) && !w->follows);
	kill_it(w);
	fake_disk_stat(w->disk, &st);
	assert_int_equal(st.entries, 1);
	start(w);
	assert_false(hold_has_begun(w->hold));
	assert_false(hold_has_any(w->hold));
	world_free(w);
}

static void put_changes_in_vain(struct world *w)
{
	size_t n = w->n;
	put_changes(w, CHANGES - 1);
	fake_settle(w->loop);
	assert_int_equal(w->produced[HOLD_CHANGES], 0);
	assert_int_equal(w->n, n);
	w->resumed = 0;
}

/* It may be the end of what the streamer has the first half of, which is to be held by no log. */
static void nothing_is_held_before_the_source_has_said_that_it_loads(void **state)
{
	(void)state;
	struct world *w = world_new(1, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	w->pad = (size_t)2 * MEMORY;
	w->is_unsaid = true;
	w->durable = fake_position(lsn_of(3), 1);
	start(w);
	put_changes_in_vain(w);
	kill_it(w);
	start(w);
	assert_false(hold_has_any(w->hold));
	put_changes_in_vain(w);
	hold_loads(w->hold);
	assert_int_equal(w->resumed, 0); /* not inside of the call */
	fake_settle(w->loop);
	assert_int_equal(w->resumed, 1);
	put_changes(w, CHANGES - 1);
	assert_true(hold_has_any(w->hold));
	world_free(w);
}

static void what_could_not_be_held_goes_straight_when_there_is_no_load(void **state)
{
	(void)state;
	struct world *w = world_new(1, false);
	settings_put_int(w->settings, "memory", MEMORY);
	settings_put_int(w->settings, "disk", 1 << 30);
	w->is_unsaid = true;
	start(w);
	put_changes_in_vain(w);
	hold_release(w->hold, 0);
	fake_settle(w->loop);
	assert_int_equal(w->resumed, 1);
	while (!w->n)
		put_changes(w, CHANGES);
	assert_false(hold_has_any(w->hold));
	world_free(w);
}

/* A quiet source's word that it is there. */
static void put_heartbeat(struct world *w)
{
	struct batch *b = batch_new();
	batch_append(b, OP_HEARTBEAT, NULL);
	b->end = (struct position){ .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = lsn_of(w->txn) - 1, .flush = lsn_of(w->txn) - 1 };
	assert_true(produce(w, HOLD_CHANGES, b));
	fake_run(w->loop, NULL, NULL, 0);
}

static uint64_t oldest_lsn(const struct world *w)
{
	const struct txn *t = hold_oldest(w->hold);
	assert_non_null(t);
	return t->lsn;
}

static void again(struct world *w)
{
	kill_it(w);
	w->durable = (struct position){ 0 };
	start(w);
	for (int i = 0; !oldest_lsn(w); i++) { /* until it was read */
		assert_in_range(i, 0, STUCK);
		fake_run(w->loop, NULL, NULL, 0);
	}
	w->txn = 2;
	put_heartbeat(w);
}

/* Heartbeats of a quiet source are no changes that somebody waits for; what is behind one in the log of an earlier run is no older. */
static void the_oldest_is_that_of_the_first_change(void **state)
{
	const bool *is_quiet = *state;
	struct world *w = small_world();
	assert_null(hold_oldest(w->hold));
	if (*is_quiet) {
		put_heartbeat(w);
		assert_true(hold_has_any(w->hold));
		assert_null(hold_oldest(w->hold));
	}
	w->pad = (size_t)2 * MEMORY;
	for (int i = 0; i < 2; i++) {
		put_changes(w, CHANGES);
		fake_run(w->loop, NULL, NULL, 20);
		assert_int_equal(oldest_lsn(w), lsn_of(0));
	}
	again(w);
	assert_int_equal(oldest_lsn(w), lsn_of(0) - *is_quiet);
	world_free(w);
}

static bool late = true, in_time = false, yes = true, no = false;
static int given = GIVEN, with_word = GIVEN_WITH_WORD, not_stored = GIVEN_NOT_STORED;

RUN_TESTS({ "the end of a half goes before rows", the_end_of_a_half_goes_before_rows, NULL, NULL, &in_time },
	{ "the end of a half goes before rows, behind what is said again", the_end_of_a_half_goes_before_rows, NULL, NULL, &late },
	cmocka_unit_test(what_comes_again_is_told_delivered), cmocka_unit_test(an_acknowledgement_of_what_is_not_there),
	cmocka_unit_test(changes_go_straight_when_there_is_no_load), cmocka_unit_test(what_is_kept_in_either_is_kept),
	{ "a log that was given waits for nothing", a_log_that_was_given_waits_for_nothing, NULL, NULL, &given },
	{ "a log that was given with a word at its end", a_log_that_was_given_waits_for_nothing, NULL, NULL, &with_word },
	{ "a log that was given before that was stored", a_log_that_was_given_waits_for_nothing, NULL, NULL, &not_stored },
	cmocka_unit_test(nothing_is_held_before_the_source_has_said_that_it_loads),
	cmocka_unit_test(what_could_not_be_held_goes_straight_when_there_is_no_load),
	{ "the oldest is that of the first change", the_oldest_is_that_of_the_first_change, NULL, NULL, &no },
	{ "the oldest is that of the first change of a quiet source", the_oldest_is_that_of_the_first_change, NULL, NULL, &yes })
