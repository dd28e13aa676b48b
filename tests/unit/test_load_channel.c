/* The load beside the stream: what is read of the stream meanwhile is kept by the streamer and confirmed to the source, and no target is given a change of it
 * before it has the load; after a kill at any place too. */
#include "engine_kit.h"

static const char *const beside = "{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\", \"beside\": true}, "
	"\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}, {\"connector\": \"fake\", \"server\": \"w\", \"name\": \"second\"}]}";

static void memory_is(const char *of_the_streamer)
{
	close_engine();
	streamer = of_the_streamer;
	open_engine();
}

static void small_memory(void) { memory_is("jobs.streamer={\"type\": \"embedded\", \"memory\": \"64KiB\"}"); }

static bool is_at_gate(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.emitted.kind && st.confirmed.kind && st.emitted.lsn >= *(uint64_t *)arg && st.confirmed.lsn + 40 * FAKE_LSN_STEP >= *(uint64_t *)arg;
}

static bool is_confirmed_at(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.confirmed.kind && st.confirmed.lsn >= *(uint64_t *)arg;
}

static uint64_t end_of_script(void)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.end_lsn;
}

/* A load that does not end before the test opens the gate; 200 transactions stand before its end. Returns where the last of them ends. */
static uint64_t write_load_with_gate(void)
{
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	for (unsigned i = 0; i < 200; i++)
		fake_script_txn(script, OP_CREATE, t1, 1 + i % 7, 3, 400);
	uint64_t lsn = end_of_script();
	fake_script_gate(script);
	fake_script_load(script, t2, 2, 5);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t2, 5, 2, 10);
	return lsn;
}

static bool has_first_table(void *arg)
{
	const struct fake_table *t = fake_server_table(arg, "t1");
	return t && t->is_loaded;
}

static void test_the_stream_is_confirmed_while_the_load_runs(void **state)
{
	(void)state;
	small_memory();
	uint64_t lsn = write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, has_first_table, server, FAKE_LONG_MS));
	if (!fake_run(loop, is_at_gate, &lsn, FAKE_LONG_MS)) {
		struct fake_script_stat st;
		fake_script_stat(script, &st);
		fail_msg("of %#lx it emitted up to %#lx, was confirmed %#lx", (unsigned long)lsn, (unsigned long)st.emitted.lsn,
			(unsigned long)st.confirmed.lsn);
	}
	assert_int_equal(server->nrows, 0);
	assert_int_equal(other->nrows, 0);
	assert_string_equal(state_of(), "loading");
	fake_script_open_gate(script);
	wait_all(server);
	wait_all(other);
	wait_state("running");
}

/* Not for want of memory: however little there is, it waits no longer than seconds before it is written down. */
static void test_the_little_that_waits_is_confirmed_too(void **state)
{
	(void)state;
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 1, 10);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	uint64_t lsn = end_of_script();
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	fake_script_gate(script);
	fake_script_load(script, t2, 2, 5);
	fake_script_load_done(script);
	create(beside, NULL);
	assert_true(fake_run(loop, has_first_table, server, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 5100);
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_confirmed_at, &lsn, FAKE_LONG_MS));
	assert_int_equal(server->nrows, 0);
	fake_script_open_gate(script);
	wait_all(server);
	wait_all(other);
}

static void test_a_kill_in_the_load_loses_nothing(void **state)
{
	(void)state;
	small_memory();
	uint64_t lsn = write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, is_at_gate, &lsn, FAKE_LONG_MS));
	close_engine();
	fake_settle(loop);
	open_engine();
	verb(ENGINE_START);
	fake_run(loop, NULL, NULL, 100);
	assert_int_equal(server->nrows, 0);
	fake_script_open_gate(script);
	wait_all(server);
	wait_all(other);
}

static void test_a_stop_in_the_load_is_soon_over_and_loses_nothing(void **state)
{
	(void)state;
	const char *usual = more;
	more = "drain_timeout=60s";
	small_memory();
	more = usual;
	uint64_t lsn = write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, is_at_gate, &lsn, FAKE_LONG_MS));
	uint64_t began = loop_now_us(loop);
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_true(loop_now_us(loop) - began < 50000000);
	verb(ENGINE_START);
	fake_script_open_gate(script);
	wait_all(server);
	wait_all(other);
}

/* Also where the load of that run is told to go through the stream: it would come behind what waits there for it. */
static void test_what_waits_for_a_load_waits_for_it_in_the_next_run(void **state)
{
	(void)state;
	small_memory();
	uint64_t lsn = write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, is_at_gate, &lsn, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	patch("{\"source\": {\"beside\": false}}");
	verb(ENGINE_START);
	fake_script_open_gate(script);
	wait_all(server);
	wait_all(other);
	assert_int_equal(fake_server_table(server, "t2")->rows_before, 0);
	assert_int_equal(fake_server_table(other, "t2")->rows_before, 0);
}

/* One target has the load long before the other, for whom it waits in memory. */
static void test_each_target_goes_on_when_it_has_the_load(void **state)
{
	(void)state;
	memory_is("jobs.streamer={\"type\": \"embedded\", \"memory\": \"256KiB\"}");
	uint64_t lsn = write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, is_at_gate, &lsn, FAKE_LONG_MS));
	other->stalls = true;
	fake_script_open_gate(script);
	wait_all(server);
	assert_int_equal(other->nrows, 0);
	other->stalls = false;
	fake_server_go(other);
	wait_all(other);
}

/* A table that is new in this start is loaded while the log is full of changes that a target has not got yet. */
static void test_a_load_that_comes_amid_the_stream(void **state)
{
	(void)state;
	small_memory();
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	for (unsigned i = 0; i < 200; i++)
		fake_script_txn(script, OP_CREATE, t1, 1 + i % 7, 3, 400);
	create(beside, NULL);
	wait_state("running");
	server->stalls = true;
	fake_run(loop, NULL, NULL, 300);
	verb(ENGINE_STOP);
	wait_state("stopped");
	server->stalls = false;
	fake_script_txn(script, OP_CREATE, t1, 9, 2, 400);
	verb(ENGINE_START);
	wait_all(server);
	wait_all(other);
}

/* Everything in any order, with kills anywhere. */
static unsigned seed;
static unsigned chance(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return seed / 65536u % n;
}

static void test_any_story_ends_with_all_of_it(void **state)
{
	(void)state;
	static struct relation *tables[6];
	small_memory();
	const char *given = getenv("DMSR_SEED");
	seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)loop_now_us(loop);
	print_message("DMSR_SEED=%u\n", seed);
	fake_script_durable(script, is_stored, NULL);
	for (unsigned i = 0; i < 6; i++) {
		char name[8];
		snprintf(name, sizeof name, "r%u", i);
		tables[i] = fake_relation(name, 10 + i);
		fake_script_load(script, tables[i], chance(5), 1 + chance(20));
		for (unsigned n = chance(40); n; n--)
			fake_script_txn(script, OP_CREATE, tables[chance(i + 1)], 1 + chance(9), 1 + chance(4), chance(2000));
		if (chance(2))
			fake_script_heartbeat(script);
	}
	fake_script_load_done(script);
	for (unsigned n = chance(40); n; n--)
		fake_script_txn(script, OP_CREATE, tables[chance(6)], 1 + chance(9), 1 + chance(4), chance(2000));
	server->queue = 1 + chance(8);
	other->keeps = chance(2);
	create(beside, NULL);
	for (unsigned kills = chance(12); kills; kills--) {
		server->stalls = !chance(3);
		other->commit_every = chance(5);
		fake_run(loop, NULL, NULL, chance(30));
		if (chance(3)) {
			close_engine();
			fake_settle(loop);
			open_engine();
			verb(ENGINE_START);
		} else {
			verb(ENGINE_STOP);
			wait_state("stopped");
			verb(ENGINE_START);
		}
	}
	server->stalls = false;
	fake_server_go(server);
	wait_all(server);
	if (other->keeps)
		wait_all(other);
	for (unsigned i = 0; i < 6; i++)
		relation_unref(tables[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_stream_is_confirmed_while_the_load_runs),
		TEST(test_the_little_that_waits_is_confirmed_too),
		TEST(test_a_kill_in_the_load_loses_nothing),
		TEST(test_a_stop_in_the_load_is_soon_over_and_loses_nothing),
		TEST(test_what_waits_for_a_load_waits_for_it_in_the_next_run),
		TEST(test_each_target_goes_on_when_it_has_the_load),
		TEST(test_a_load_that_comes_amid_the_stream),
		TEST(test_any_story_ends_with_all_of_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
