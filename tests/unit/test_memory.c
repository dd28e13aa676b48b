/* test_memory: what is remembered of a job's tables: the same behind forgetting and reading back, and at a cost that does not grow with their number. */
#include "store_kit.h"

#include "engine/memory.h"
#include <time.h>

static const struct position at = { .kind = POSITION_LSN, .server = 7, .lsn = 9 };

static const char *table(int i)
{
	static char name[32];
	snprintf(name, sizeof name, "t%d", i);
	return name;
}

/* Of tables 0 to n - 1 those that a multiple of 3 names are gone. */
static void holds_the_rest(const struct table_set *s, int n)
{
	size_t there = 0;
	for (int i = 0; i < n; i++) {
		const struct dmsr_loaded *l = table_set_find(s, "public", table(i));
		assert_int_equal(l != NULL, i % 3 != 0);
		if (!l)
			continue;
		there++;
		assert_string_equal(l->name, table(i));
		assert_int_equal(l->at.lsn, (uint64_t)i + 1);
	}
	assert_int_equal(s->n, there);
	assert_null(table_set_find(s, "publi", "ct1"));
}

static struct memory *new_memory(struct kit *k)
{
	const struct store_job job = { .uid = UID, .name = "shop", .spec = "{}", .desired_state = "stopped", .state = "stopped" };
	kit_init(k);
	kit_open(k);
	store_job_put(k->store, &job, kit_done, kit_ask(k));
	return memory_new(k->store, UID);
}

/* What the store has of it. */
static struct memory *read_again(struct kit *k, struct memory *m)
{
	struct err e = { 0 };
	kit_run(k);
	memory_free(m);
	m = memory_new(k->store, UID);
	assert_int_equal(memory_read(m, &e), 0);
	return m;
}

static void what_is_forgotten_is_gone_and_the_rest_stays(void **state)
{
	struct kit k;
	(void)state;
	struct memory *m = new_memory(&k);
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 100; i++)
			memory_load_put(m, "public", table(i), &(struct position){ .kind = POSITION_LSN, .server = 7, .lsn = (uint64_t)i + 1 });
	for (int i = 99; i >= 0; i -= 3)
		memory_load_forget(m, "public", table(i));
	memory_load_forget(m, "public", "none");
	holds_the_rest(memory_loaded(m), 100);
	memory_delivered_put(m, &at, kit_done, kit_ask(&k));
	m = read_again(&k, m);
	holds_the_rest(memory_loaded(m), 100);
	memory_forget(m, kit_done, kit_ask(&k));
	assert_int_equal(memory_loaded(m)->n, 0);
	assert_null(table_set_find(memory_loaded(m), "public", "t1"));
	kit_run(&k);
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

static void on_forgotten(void *arg, const struct err *e) { snprintf(arg, 64, "%s", e ? e->id : "done"); }

/* What waits in the log goes with the positions: when it cannot, that is the answer. */
static void a_log_that_stays_is_told(void **state)
{
	struct kit k;
	char answer[64] = "";
	(void)state;
	struct memory *m = new_memory(&k);
	kit_open_log(&k, UID);
	memory_forget(m, on_forgotten, answer);
	kit_put(&k, UID, "note", "a", "b");
	kit_run(&k);
	assert_string_equal(answer, "state.log");
	kit_close_log(&k);
	memory_forget(m, on_forgotten, answer);
	kit_put(&k, UID, "note", "a", "b");
	kit_run(&k);
	assert_string_equal(answer, "done");
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

enum { COUNTED = 1700 };

static void count_all(struct memory *m, uint64_t n)
{
	for (int i = 0; i < COUNTED; i++) {
		struct table_count *c = memory_count(m, "public", table(i));
		c->captured[0] = n;
		c->is_dirty = true;
	}
}

static unsigned counted(struct memory *m, uint64_t n)
{
	unsigned found = 0;
	for (int i = 0; i < COUNTED; i++)
		found += memory_count(m, "public", table(i))->captured[0] == n;
	return found;
}

/* Some with each position, each in its turn though all change between; a new shape at once; all at the end. */
static void counts_of_many_tables_are_saved_in_turn(void **state)
{
	struct kit k;
	(void)state;
	struct memory *m = new_memory(&k);
	for (uint64_t n = 1; n <= 4; n++) {
		count_all(m, n);
		memory_delivered_put(m, &at, kit_done, kit_ask(&k));
	}
	m = read_again(&k, m);
	assert_int_equal(counted(m, 0), 0);
	assert_in_range(counted(m, 4), 1, 500);
	count_all(m, 5);
	memory_count(m, "public", table(COUNTED - 1))->is_reshaped = memory_count(m, "public", table(0))->is_reshaped = true;
	memory_count(m, "public", table(COUNTED / 2))->is_reshaped = true;
	memory_delivered_put(m, &at, kit_done, kit_ask(&k));
	m = read_again(&k, m);
	assert_in_range(counted(m, 5), 501, 503);
	assert_int_equal(memory_count(m, "public", table(COUNTED - 1))->captured[0], 5);
	assert_int_equal(memory_count(m, "public", table(0))->captured[0], 5);
	assert_int_equal(memory_count(m, "public", table(COUNTED / 2))->captured[0], 5);
	count_all(m, 6);
	memory_counts_save(m);
	memory_delivered_put(m, &at, kit_done, kit_ask(&k));
	m = read_again(&k, m);
	assert_int_equal(counted(m, 6), COUNTED);
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

static uint64_t *left_behind(struct memory *m, int i)
{
	struct table_count *c = memory_count(m, "public", table(i));
	uint64_t *const left[] = { &c->rows_loaded, &c->rows_read, &c->dead };
	return left[i % 3];
}

/* That a table is loaded, and the letter, are stored with it: a crash must not part them. What is read of a load that goes on can wait. */
static void what_a_load_or_a_dead_letter_left_does_not_wait(void **state)
{
	struct kit k;
	(void)state;
	struct memory *m = new_memory(&k);
	for (uint64_t n = 1; n <= 2; n++) {
		count_all(m, n);
		for (int i = 0; i < COUNTED; i += 50)
			*left_behind(m, i) = n;
		memory_delivered_put(m, &at, kit_done, kit_ask(&k));
		m = read_again(&k, m);
		for (int i = 0; i < COUNTED; i += 50)
			assert_int_equal(*left_behind(m, i), n);
		assert_in_range(counted(m, n), 500, 500 + COUNTED / 50);
	}
	count_all(m, 3);
	for (int i = 0; i < COUNTED; i++) {
		struct table_count *c = memory_count(m, "public", table(i));
		c->is_loading = true;
		c->rows_read++;
	}
	memory_delivered_put(m, &at, kit_done, kit_ask(&k));
	m = read_again(&k, m);
	assert_int_equal(counted(m, 3), 500);
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

static bool is_unwanted(const struct memory *m, uint64_t lsn)
{
	char schema[] = "public", name[] = "t";
	const struct dmsr_loaded l = { schema, name, { .kind = POSITION_LSN, .server = 7, .lsn = lsn } };
	return memory_is_unwanted(m, &l);
}

/* A load that is to be done again stays so over a restart, for the streamer may still hold it; a newer one, which was asked for, is wanted. */
static void a_load_that_nobody_wants(void **state)
{
	struct kit k;
	(void)state;
	struct memory *m = new_memory(&k);
	memory_load_put(m, "public", "t", &at);
	assert_false(is_unwanted(m, at.lsn));
	memory_load_unwant(m, "public", "t", kit_done, kit_ask(&k));
	for (int round = 0; round < 2; round++) {
		assert_null(table_set_find(memory_loaded(m), "public", "t"));
		assert_true(is_unwanted(m, at.lsn - 1));
		assert_true(is_unwanted(m, at.lsn));
		assert_false(is_unwanted(m, at.lsn + 1));
		m = read_again(&k, m);
	}
	memory_forget(m, kit_done, kit_ask(&k));
	assert_false(is_unwanted(m, at.lsn));
	m = read_again(&k, m);
	assert_false(is_unwanted(m, at.lsn));
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

/* What a streamer and what is before it know by themselves would go before it; where its stream began is as it was. */
static void a_position_by_hand_goes_before_what_a_streamer_knows(void **state)
{
	struct kit k;
	(void)state;
	struct memory *m = new_memory(&k);
	memory_note_put(m, MEMORY_OF_STREAMER "known", "a", NULL, NULL);
	memory_note_put(m, MEMORY_OF_STREAMER "hold.ended", "b", NULL, NULL);
	memory_note_put(m, MEMORY_STREAM_BEGAN, "c", NULL, NULL);
	memory_position_set(m, &at, kit_done, kit_ask(&k));
	for (int round = 0; round < 2; round++) {
		assert_null(memory_note(m, MEMORY_OF_STREAMER "known"));
		assert_null(memory_note(m, MEMORY_OF_STREAMER "hold.ended"));
		assert_string_equal(memory_note(m, MEMORY_STREAM_BEGAN), "c");
		assert_int_equal(position_compare(memory_delivered(m), &at), 0);
		m = read_again(&k, m);
	}
	memory_free(m);
	kit_close(&k);
	kit_fini(&k);
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Found by walking through the others these took minutes. */
static void many_tables_cost_no_more_each(void **state)
{
	enum { MANY = 100000 };
	struct table_set s = { 0 };
	double began = cpu_seconds();
	(void)state;
	for (int i = 0; i < MANY; i++)
		table_set_put(&s, "public", table(i), &at);
	for (int i = 0; i < MANY; i++)
		assert_non_null(table_set_find(&s, "public", table(i)));
	assert_true(cpu_seconds() - began < 5);
	table_set_clear(&s);
	assert_null(table_set_find(&s, "public", "t1"));
}

RUN_TESTS(cmocka_unit_test(what_is_forgotten_is_gone_and_the_rest_stays), cmocka_unit_test(a_log_that_stays_is_told),
	cmocka_unit_test(counts_of_many_tables_are_saved_in_turn), cmocka_unit_test(what_a_load_or_a_dead_letter_left_does_not_wait),
	cmocka_unit_test(a_load_that_nobody_wants), cmocka_unit_test(a_position_by_hand_goes_before_what_a_streamer_knows),
	cmocka_unit_test(many_tables_cost_no_more_each))
