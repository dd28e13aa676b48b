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

static bool has_started_since(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.started > *(unsigned *)arg;
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

static size_t warnings_of_disk(void)
{
	json_t *s = engine_job_status(engine, "job"), *warnings = json_object_get(s, "warnings");
	size_t n = 0;
	for (size_t i = 0; i < json_array_size(warnings); i++)
		n += strstr(json_string_value(json_object_get(json_array_get(warnings, i), "message")), "more disk (PATCH /jobs/job ") != NULL;
	json_decref(s);
	return n;
}

static bool has_warned_of_disk(void *arg)
{
	(void)arg;
	return warnings_of_disk();
}

/* Who counts on a log that is kept nowhere else is told when it is, and once. */
static void test_a_log_that_is_full_is_told(void **state)
{
	(void)state;
	memory_is("jobs.streamer={\"type\": \"embedded\", \"memory\": \"64KiB\", \"disk\": \"128KiB\"}");
	write_load_with_gate();
	create(beside, NULL);
	assert_true(fake_run(loop, has_warned_of_disk, NULL, FAKE_LONG_MS));
	assert_string_equal(state_of(), "loading");
	fake_run(loop, NULL, NULL, 200);
	assert_int_equal(warnings_of_disk(), 1);
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

static bool stored_is(bool inside)
{
	json_t *j = engine_job_positions(engine, "job");
	const char *text = json_string_value(json_object_get(j, "position"));
	struct position at = { 0 };
	bool is = text && !position_parse(text, &at, NULL) && !position_is_none(&at) && position_is_inside(&at) == inside;
	json_decref(j);
	return is;
}

static bool is_stored_inside(void *arg)
{
	(void)arg;
	return stored_is(true);
}

static bool is_stored_whole(void *arg)
{
	(void)arg;
	return stored_is(false);
}

static bool has_end_or_failed(void *arg)
{
	return (server->applied.lsn == *(uint64_t *)arg && other->applied.lsn == *(uint64_t *)arg) || !strcmp(state_of(), "failed");
}

/* A target has nothing to store for the first part of the transaction, which is older than the rows: it stands before it, and is no other database for that. */
static void test_a_kill_amid_a_transaction_that_is_in_the_rows(void **state)
{
	(void)state;
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t2, 2, 5);
	fake_script_txn(script, OP_CREATE, t2, 2, 2, 10);
	fake_script_txn(script, OP_CREATE, t1, 9, 3, 10);
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 2, 10);
	uint64_t lsn = end_of_script();
	server->pass_over = other->pass_over = 1;
	create(beside, NULL);
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS));
	assert_false(position_is_inside(&server->applied) || position_is_inside(&other->applied));
	assert_int_equal(server->nrows, 2);
	assert_int_equal(other->nrows, 2);
	assert_true(server->stalls && other->stalls);
	close_engine();
	fake_settle(loop);
	server->stalls = other->stalls = false;
	open_engine();
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_end_or_failed, &lsn, FAKE_LONG_MS));
	assert_string_equal(error_code(), "");
	assert_int_equal(server->nrows, 2 + 5);
	assert_int_equal(other->nrows, 2 + 5);
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

/* ---- through a streamer, before which the changes wait ---- */

static struct {
	struct dmsr_streamer_host host;
	struct loop_task *task;
	uint64_t taken, told;           /* tokens */
	unsigned room;                  /* batches that it takes from now on */
	bool is_started, is_ready, is_stopping;
	bool is_mute;                   /* acknowledges nothing */
} sink;

static struct {
	bool is_silent;                 /* reads the stream, and says nothing of loads */
	bool is_in_order;               /* one sequence is all that it can */
	bool is_gone;                   /* it has said all, and closed its connections, before anybody looks */
	bool loads_later;               /* and leaves the load to the next run */
	bool ends_first, is_inside;     /* as it was started last */
} mute;

static void on_sink(void *arg)
{
	(void)arg;
	if (sink.is_started && !sink.is_ready) {
		sink.is_ready = true;
		sink.host.ready(sink.host.ctx);
	}
	while (sink.told < sink.taken && !sink.is_mute)
		sink.host.delivered(sink.host.ctx, ++sink.told, NULL);
	if (sink.is_stopping)
		sink.host.stopped(sink.host.ctx);
	sink.is_stopping = false;
}

static int sink_open(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)s, (void)e;
	sink.host = *host;
	sink.task = loop_task_new(loop, "test", on_sink, NULL);
	sink.taken = sink.told = 0;
	sink.is_started = sink.is_ready = sink.is_stopping = false;
	*out = (struct dmsr_instance *)(void *)&sink;
	return 0;
}

static bool sink_keeps(const struct dmsr_instance *i)
{
	(void)i;
	return true;
}

static void sink_start(struct dmsr_instance *i)
{
	(void)i;
	sink.is_started = true;
	loop_task_post(sink.task);
}

static enum dmsr_verdict sink_produce(struct dmsr_instance *i, struct batch *b)
{
	(void)i;
	if (!sink.room)
		return DMSR_AGAIN;
	sink.room--;
	sink.taken = b->token;
	batch_free(b);
	loop_task_post(sink.task);
	return DMSR_OK;
}

static void sink_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	(void)i;
	*out = (struct dmsr_streamer_stat){ 0 };
}

static void sink_stop(struct dmsr_instance *i)
{
	(void)i;
	sink.is_stopping = true;
	loop_task_post(sink.task);
}

static void sink_close(struct dmsr_instance *i)
{
	(void)i;
	loop_task_free(sink.task);
}

static void mute_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	mute.ends_first = start->ends_first;
	mute.is_inside = position_is_inside(&start->from);
	struct dmsr_source_start how = *start;
	how.is_beside = start->is_beside && !mute.is_in_order;
	if (!mute.is_silent)
		dmsr_plugin_fake.source->start(i, &how);
}

static void mute_stat(struct dmsr_instance *i, struct dmsr_source_stat *out)
{
	dmsr_plugin_fake.source->stat(i, out);
	out->connected = !mute.is_gone;
	out->loads_later = mute.loads_later;
	out->streaming = !mute.is_gone && !mute.loads_later;
}

static void add_plugins(void)
{
	static const struct dmsr_streamer sink_ops = {
		.open = sink_open,
		.keeps = sink_keeps,
		.start = sink_start,
		.produce = sink_produce,
		.stat = sink_stat,
		.stop = sink_stop,
		.close = sink_close,
	};
	static struct dmsr_source mute_ops;
	static struct dmsr_plugin streamer_plugin, source_plugin;
	struct err e = { 0 };
	mute_ops = *dmsr_plugin_fake.source;
	mute_ops.start = mute_start;
	mute_ops.stat = mute_stat;
	mute_ops.loads_beside = mute.is_in_order ? NULL : dmsr_plugin_fake.source->loads_beside;
	source_plugin = dmsr_plugin_fake;
	source_plugin.name = "mute";
	source_plugin.source = &mute_ops;
	streamer_plugin = dmsr_plugin_embedded;
	streamer_plugin.name = "sink";
	streamer_plugin.streamer = &sink_ops;
	assert_int_equal(plugins_add(engine_plugins(engine), &source_plugin, &e), 0);
	assert_int_equal(plugins_add(engine_plugins(engine), &streamer_plugin, &e), 0);
}

static void create_in(const char *mode, unsigned room)
{
	char job[320];
	sink.room = room;
	mute.is_silent = mute.is_in_order = mute.loads_later = false;
	fake_script_durable(script, is_stored, NULL);
	add_plugins();
	snprintf(job, sizeof job,
		"{\"name\": \"job\", \"mode\": \"%s\", \"source\": {\"connector\": \"mute\", \"script\": \"s\", \"beside\": true}, "
		"\"streamer\": {\"type\": \"sink\", \"memory\": \"64KiB\", \"disk\": \"128KiB\"}, \"targets\": []}",
		mode);
	create(job, NULL);
}

static void create_through(void) { create_in("full-load-and-cdc", UINT_MAX); }

static bool is_loading_or_running(void *arg)
{
	(void)arg;
	return !strcmp(state_of(), "loading") || !strcmp(state_of(), "running");
}

static void load_and_stop(void)
{
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	create_through();
	wait_state("running");
	verb(ENGINE_STOP);
	wait_state("stopped");
}

/* What was loaded in an earlier run is; but what is new the source has still to say. */
static void test_a_job_runs_when_the_source_says_that_nothing_is_to_be_loaded(void **state)
{
	(void)state;
	load_and_stop();
	mute.is_silent = true;
	verb(ENGINE_START);
	assert_true(fake_run(loop, is_loading_or_running, NULL, FAKE_LONG_MS));
	assert_string_equal(state_of(), "loading");
	verb(ENGINE_STOP);
	wait_state("stopped");
	mute.is_silent = false;
	verb(ENGINE_START);
	wait_state("running");
}

/* Tables are to be loaded again, and the run reads the stream: what was loaded before is not all of the load. */
static void test_a_load_that_is_left_to_the_next_run_is_not_done(void **state)
{
	(void)state;
	load_and_stop();
	mute.loads_later = true;
	verb(ENGINE_START);
	wait_state("loading");
	json_t *status = engine_job_status(engine, "job"), *load = json_object_get(status, "load");
	assert_false(json_boolean_value(json_object_get(load, "done")));
	assert_true(json_number_value(json_object_get(load, "percent")) < 100);
	json_decref(status);
}

/* Also where all was loaded, and it hears of that late. */
static void test_a_load_alone_is_loading_while_the_stream_is_read_first(void **state)
{
	(void)state;
	load_and_stop();
	mute.is_silent = true;
	patch("{\"mode\": \"full-load\"}");
	verb(ENGINE_START);
	fake_run(loop, NULL, NULL, 200);
	assert_string_equal(state_of(), "starting");
	mute.loads_later = true;
	wait_state("loading");
}

static bool is_at_end(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.is_at_end;
}

/* It had next to nothing to read, and there is long to go. */
static void test_a_load_alone_is_loading_when_the_source_is_gone(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	mute.is_gone = true;
	sink.is_mute = true;
	create_in("full-load", UINT_MAX);
	assert_true(fake_run(loop, is_at_end, NULL, FAKE_LONG_MS));
	fake_run(loop, NULL, NULL, 300);
	assert_string_equal(state_of(), "loading");
	mute.is_gone = sink.is_mute = false;
	loop_task_post(sink.task);
	wait_state("completed");
}

static void kill_and_start(void)
{
	struct fake_script_stat st;
	close_engine();
	fake_settle(loop);
	open_engine();
	add_plugins();
	fake_script_stat(script, &st);
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_started_since, &st.started, FAKE_LONG_MS));
}

static void write_half_that_waits(void)
{
	fake_script_load(script, t1, 3, 10);
	fake_script_txn(script, OP_CREATE, t1, 200, 5, 2000);
	fake_script_gate(script);
	fake_script_load(script, t2, 3, 10);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t2, 5, 2, 10);
}

/* Where the streamer has the first half of a transaction the source sends the other before anything is loaded; where that waits, nobody has it. */
static void test_the_end_of_a_half_that_waits_does_not_come_first(void **state)
{
	(void)state;
	write_half_that_waits();
	create_through();
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS)); /* its log is full */
	kill_and_start();
	assert_true(mute.is_inside && !mute.ends_first);
}

static bool has_no_room(void *arg)
{
	(void)arg;
	return !sink.room;
}

/* All that its log has goes to the streamer in the next run, the half with it. */
static void test_the_end_of_a_half_that_follows_comes_first(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_txn(script, OP_CREATE, t1, 50, 5, 2000);
	fake_script_gate(script);
	fake_script_load(script, t2, 3, 10);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 200, 5, 2000);
	create_through();
	assert_true(fake_run(loop, is_stored_whole, NULL, FAKE_LONG_MS));
	sink.room = 10; /* enough for the rows */
	fake_script_open_gate(script);
	wait_state("running");
	assert_true(fake_run(loop, has_no_room, NULL, FAKE_LONG_MS));
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS));
	kill_and_start();
	assert_true(mute.is_inside && mute.ends_first);
}

static void test_the_end_of_a_half_that_the_streamer_has_comes_first(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 200, 5, 2000);
	create_through();
	wait_state("running");
	sink.room = 3;
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS));
	kill_and_start();
	assert_true(mute.is_inside && mute.ends_first);
}

/* What the streamer was given is stored late. */
static void test_it_may_have_a_half_that_nobody_knows_of(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 200, 5, 10);
	create_through();
	wait_state("running");
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_stored_whole, NULL, FAKE_LONG_MS));
	kill_and_start();
	assert_true(!mute.is_inside && mute.ends_first);
}

/* It never says that a load is over, for it reads one thing behind the other; what an earlier run has left goes first. */
static void test_a_source_that_does_not_load_beside_is_not_waited_for(void **state)
{
	(void)state;
	write_half_that_waits();
	create_through();
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS));
	mute.is_in_order = true;
	kill_and_start();
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_stream_is_confirmed_while_the_load_runs),
		TEST(test_a_log_that_is_full_is_told),
		TEST(test_the_little_that_waits_is_confirmed_too),
		TEST(test_a_kill_in_the_load_loses_nothing),
		TEST(test_a_stop_in_the_load_is_soon_over_and_loses_nothing),
		TEST(test_what_waits_for_a_load_waits_for_it_in_the_next_run),
		TEST(test_a_kill_amid_a_transaction_that_is_in_the_rows),
		TEST(test_each_target_goes_on_when_it_has_the_load),
		TEST(test_a_load_that_comes_amid_the_stream),
		TEST(test_any_story_ends_with_all_of_it),
		TEST(test_a_job_runs_when_the_source_says_that_nothing_is_to_be_loaded),
		TEST(test_a_load_that_is_left_to_the_next_run_is_not_done),
		TEST(test_a_load_alone_is_loading_while_the_stream_is_read_first),
		TEST(test_a_load_alone_is_loading_when_the_source_is_gone),
		TEST(test_the_end_of_a_half_that_waits_does_not_come_first),
		TEST(test_the_end_of_a_half_that_follows_comes_first),
		TEST(test_the_end_of_a_half_that_the_streamer_has_comes_first),
		TEST(test_it_may_have_a_half_that_nobody_knows_of),
		TEST(test_a_source_that_does_not_load_beside_is_not_waited_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
