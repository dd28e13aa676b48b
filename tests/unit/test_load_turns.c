/* A table that is added, or loaded again, in turns with the stream: each target gets its rows in their place among the changes, whichever way these go. */
#include "engine_kit.h"

static enum dmsr_load_way past(const struct settings *s)
{
	(void)s;
	return DMSR_LOAD_PAST;
}

static bool has_all_before(void *arg) { return ((struct fake_server *)arg)->nrows == 300; }

/* t2 comes in one, of 40 batches, when the gate is opened: behind 100 transactions, and before as many. */
static void write_turn(unsigned nrows)
{
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	for (unsigned i = 0; i < 100; i++)
		fake_script_txn(script, OP_CREATE, t1, 3, 2, 400);
	fake_script_gate(script);
	fake_script_turn(script, t2, 40, nrows);
	for (unsigned i = 0; i < 100; i++)
		fake_script_txn(script, OP_CREATE, t1, 3, 2, 400);
}

static void create_with(const char *targets, const char *type)
{
	char *text = mem_printf("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\", \"beside\": true}, \"targets\": [%s], "
		"\"streamer\": {\"type\": \"%s\", \"memory\": \"64KiB\"}}", targets, type);
	create(text, NULL);
	free(text);
}

static void has_a_place(const char *type)
{
	write_turn(5);
	server->queue = other->queue = 1;
	create_with("{\"connector\": \"fake\", \"server\": \"v\"}, {\"connector\": \"fake\", \"server\": \"w\", \"name\": \"second\"}", type);
	assert_true(fake_run(loop, has_all_before, server, FAKE_LONG_MS));
	assert_true(fake_run(loop, has_all_before, other, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 100); /* and it is known */
	server->stalls = true; /* until all of it waits */
	fake_script_open_gate(script);
	fake_run(loop, NULL, NULL, 300);
	server->stalls = false;
	fake_server_go(server);
	wait_all(server);
	wait_all(other);
	assert_int_equal(fake_server_table(server, "t2")->rows_before, 300);
	assert_int_equal(fake_server_table(other, "t2")->rows_before, 300);
}

/* Behind all that was sent before, and before all that was sent behind it. */
static void test_a_turn_has_its_place_in_the_stream(void **state)
{
	(void)state;
	has_a_place("embedded");
}

static void add_past(void)
{
	static struct dmsr_streamer ops;
	static struct dmsr_plugin plugin;
	struct err e = { 0 };
	ops = *dmsr_plugin_embedded.streamer;
	ops.load_way = past;
	plugin = dmsr_plugin_embedded;
	plugin.name = "past";
	plugin.streamer = &ops;
	assert_int_equal(plugins_add(engine_plugins(engine), &plugin, &e), 0);
}

/* Also where its rows go another way than the changes, of which the streamer had all at once. */
static void test_a_turn_has_its_place_past_the_streamer(void **state)
{
	(void)state;
	add_past();
	has_a_place("past");
}

/* A target that has no room for that batch of a turn, the first being 1, until the test says so. */
static struct { enum dmsr_verdict (*apply)(struct dmsr_instance *i, const struct batch *b, uint64_t token); unsigned taken, stalls_at, stalled; } slow;

static enum dmsr_verdict slow_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	if (b->in_turn && slow.taken + 1 == slow.stalls_at) {
		server->stalls = true;
		slow.stalled++;
	}
	enum dmsr_verdict v = slow.apply(i, b, token);
	slow.taken += b->in_turn && v == DMSR_OK;
	return v;
}

static bool has_stalled(void *arg)
{
	(void)arg;
	return slow.stalled;
}

static void add_slow(void)
{
	static struct dmsr_target ops;
	static struct dmsr_plugin plugin;
	struct err e = { 0 };
	ops = *dmsr_plugin_fake.target;
	slow.apply = ops.apply;
	slow.taken = slow.stalled = 0;
	ops.apply = slow_apply;
	plugin = dmsr_plugin_fake;
	plugin.name = "slow";
	plugin.target = &ops;
	assert_int_equal(plugins_add(engine_plugins(engine), &plugin, &e), 0);
}

static void stall_at(unsigned n)
{
	slow.stalls_at = n;
	slow.stalled = 0;
	server->stalls = false;
	fake_server_go(server);
}

/* Its last batch waits for room in the channel, while the target has had all before it, and then for room at the target: the changes behind it wait too. */
static void test_a_turn_whose_last_rows_wait_for_room(void **state)
{
	(void)state;
	add_past();
	add_slow();
	write_turn(200);
	server->is_silent = true; /* a batch has its room until it is applied */
	create_with("{\"connector\": \"slow\", \"server\": \"v\"}", "past");
	assert_true(fake_run(loop, has_all_before, server, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 100); /* and it is known */
	stall_at(41);
	fake_script_open_gate(script);
	assert_true(fake_run(loop, has_stalled, NULL, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 200);
	stall_at(42);
	assert_true(fake_run(loop, has_stalled, NULL, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 200);
	assert_int_equal(server->nrows, 300);
	stall_at(0);
	wait_all(server);
	assert_int_equal(fake_server_table(server, "t2")->rows_before, 300);
}

RUN_TESTS(TEST(test_a_turn_has_its_place_in_the_stream), TEST(test_a_turn_has_its_place_past_the_streamer), TEST(test_a_turn_whose_last_rows_wait_for_room))
