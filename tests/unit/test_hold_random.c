/* test_hold_random: changes before a streamer that is given a load, with stalls, orders of acks, and kills by chance. However it goes, what the streamer has
 * in the end is the rows, and behind them each change that is not in them, in order and at least once; exactly once where it knows itself what it has. A seed
 * that fails is printed, and fails again. */
#include "hold_kit.h"

static bool is_over(const struct world *w)
{
	return w->loaded && w->txn == TXNS && !hold_has_any(w->hold) && !w->npending && w->prefix[HOLD_CHANGES] == w->produced[HOLD_CHANGES];
}

static void one_step(struct world *w)
{
	switch (chance(w, 6)) {
	case 0:
		if (!w->loaded)
			load(w);
		break;
	case 1:
	case 2:
		if (w->silent)
			w->silent--;
		else if (w->txn < TXNS)
			change(w);
		break;
	case 3: acknowledge(w); break;
	case 4: make_room(w); break;
	default: store(w);
	}
	if (w->loaded)
		hold_release(w->hold, w->loaded);
	assert_true(w->loaded || hold_is_held(w->hold));
	/* What the log has still to forget it may not have forgotten when the next run begins. */
	fake_disk_hold(w->disk, !hold_is_held(w->hold) && !hold_has_any(w->hold) && w->forgets_late);
	if (!chance(w, 3))
		fake_run(w->loop, NULL, NULL, 0);
}

static void check(const struct world *w)
{
	int64_t next = 0;
	size_t at = w->n, many = 0;
	while (at > 0 && w->log[at - 1].kind == ENTRY_CHANGE)
		at--;
	assert_int_not_equal(at, 0);
	assert_int_equal(w->log[at - 1].kind, ENTRY_LOADED);
	for (size_t n = 0; n < at; n++)
		assert_int_not_equal(w->log[n].kind, ENTRY_CHANGE);
	for (size_t n = at; n < w->n; n++) {
		const struct entry *en = &w->log[n];
		assert_true(en->at.lsn >= w->loaded);
		if (!next)
			next = en->id;
		many += en->id < next;
		assert_true(en->id <= next);
		/* What goes again is followed by all that is newer: the newest of a row is the last. */
		assert_true(n == at || en->id <= en[-1].id || en->id == en[-1].id + 1);
		next += en->id == next;
	}
	assert_int_equal(next, TXNS * CHANGES + 1);
	assert_int_equal(w->log[w->n - 1].id, TXNS * CHANGES);
	const struct entry *first = &w->log[at];
	assert_true(lsn_of((uint64_t)(first->id - 1) / CHANGES) >= w->loaded && ((uint64_t)(first->id - 1) % CHANGES) == 0);
	assert_true(first->id == 1 || lsn_of((uint64_t)(first->id - 1) / CHANGES - 1) < w->loaded);
	if (w->knows)
		assert_int_equal(many, 0);
	assert_false(w->follows); /* all of it is there: the next run need not end it */
}

static void by_chance(unsigned seed, bool knows)
{
	struct world *w = world_new(seed, knows);
	w->forgets_late = chance(w, 2);
	fake_disk_slow(w->disk, chance(w, 2) ? 3 : 0);
	settings_put_int(w->settings, "memory", MEMORY << chance(w, 4));
	settings_put_int(w->settings, "disk", 1 << 30);
	unsigned kills = chance(w, 6), each = 30 + chance(w, 800);
	start(w);
	for (unsigned n = 1; !is_over(w); n++) {
		if (n >= STUCK)
			fail_msg("seed %u: stuck at transaction %u", seed, (unsigned)w->txn);
		one_step(w);
		if (w->kills < kills && !(n % each)) {
			kill_it(w);
			start(w);
		}
	}
	check(w);
	world_free(w);
}

static void each_change_once_behind_the_rows(void **state)
{
	const char *only = getenv("DMSR_SEED");
	(void)state;
	unsigned first = only ? (unsigned)strtoul(only, NULL, 10) : 1, last = only ? first : 60;
	for (unsigned seed = first; seed <= last; seed++)
		for (int knows = 0; knows < 2; knows++) {
			print_message("seed %u %d\n", seed, knows);
			by_chance(seed, knows);
		}
}

RUN_TESTS(cmocka_unit_test(each_change_once_behind_the_rows))
