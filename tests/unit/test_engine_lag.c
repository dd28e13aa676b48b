/* test_engine_lag: what is said of how far a job is behind, and that nothing is said that is not known. */
#include "engine_kit.h"

static json_t *status(void) { return engine_job_status(engine, "job"); }

/* -1: null. */
static double lag_of(const char *which, const char *key)
{
	json_t *s = status(), *of = *which ? json_array_get(json_object_get(s, "targets"), 0) : json_object_get(s, "lag");
	const json_t *v = json_object_get(of, key);
	assert_true(json_is_null(v) || json_is_number(v));
	double lag = json_is_null(v) ? -1 : json_number_value(v);
	json_decref(s);
	return lag;
}
static void take_metrics(void *arg, const struct engine_job_metrics *m) { *(struct engine_job_metrics *)arg = *m; }
static void take(struct engine_job_metrics *m) { engine_each_job(engine, take_metrics, m); }
static double seconds(void) { return lag_of("", "seconds"); }
static double bytes(void) { return lag_of("", "bytes"); }

static bool is_reason(const char *text, bool is_quiet)
{
	json_t *s = status();
	const char *reason = json_string_value(json_object_get(json_object_get(s, "lag"), "reason"));
	bool is_it = text ? reason && strstr(reason, text) : !reason;
	if (!is_it && !is_quiet)
		print_message("reason: %s\n", reason ? reason : "none");
	json_decref(s);
	return is_it;
}
static bool has_reason(const char *text) { return is_reason(text, false); }

static bool is_behind(void *arg)
{
	(void)arg;
	return seconds() > 0;
}

static bool is_level(void *arg)
{
	(void)arg;
	return seconds() == 0 && bytes() == 0;
}

static uint64_t end_lsn(void)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.end_lsn;
}

/* The time that nothing was to be done is nobody's lag. */
static void lag_begins_with_what_waits(void **state)
{
	(void)state;
	fake_script_txn(script, OP_CREATE, t1, 2, 2, 10);
	fake_script_wrote(script, end_lsn());
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 2, 2, 10);
	create("{\"name\": \"job\", \"mode\": \"cdc\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, "
	       "\"targets\": [{\"connector\": \"null\", \"delay\": \"300ms\"}]}",
		NULL);
	wait_state("running");
	assert_true(fake_run(loop, is_behind, NULL, FAKE_LONG_MS));
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	assert_true(has_reason(NULL));
	fake_run(loop, NULL, NULL, 3000);
	int64_t began = wall_now_us();
	fake_script_open_gate(script);
	fake_script_wrote(script, 0);
	assert_true(fake_run(loop, is_behind, NULL, FAKE_LONG_MS));
	double of_all = seconds(), of_target = lag_of("target", "lag_seconds"), since = (double)(wall_now_us() - began) / 1e6;
	assert_true(of_all <= since && of_target > 0 && of_target <= since);
}

static bool is_caught_up(void)
{
	json_t *s = status();
	bool is = json_is_true(json_object_get(json_array_get(json_object_get(s, "targets"), 0), "caught_up"));
	json_decref(s);
	return is;
}

/* Nothing will be told of it, neither while it runs nor behind its end. */
static void a_load_alone_follows_nothing(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_gate(script);
	fake_script_load_done(script);
	create(one_target, "full-load");
	fake_script_wrote(script, FAKE_UNASKED);
	wait_state("loading");
	assert_true(bytes() < 0 && seconds() < 0 && has_reason("follows no changes"));
	fake_script_open_gate(script);
	wait_state("completed");
	assert_true(bytes() < 0 && seconds() < 0 && has_reason("follows no changes"));
}

/* A run that has just begun has not heard of what waits. */
static void what_is_not_known_is_not_zero(void **state)
{
	struct engine_job_metrics m;
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_true(seconds() < 0 && has_reason("not asked yet"));
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 2, 10);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	fake_script_wrote(script, FAKE_UNASKED);
	verb(ENGINE_START);
	wait_state("running");
	fake_run(loop, NULL, NULL, 100);
	assert_true(seconds() < 0 && bytes() < 0 && lag_of("target", "lag_seconds") < 0 && lag_of("target", "lag_bytes") < 0);
	assert_true(has_reason("not told yet") && !is_caught_up());
	take(&m);
	assert_true(m.lag_bytes < 0 && m.lag_seconds < 0);
	/* what is to come may be of any age, also when it is known how much it is */
	fake_script_wrote(script, 0);
	assert_true(bytes() > 0 && lag_of("target", "lag_bytes") == bytes() && seconds() < 0);
	/* with a part of it applied the rest is as old as that, at least */
	uint64_t before = server->nrows;
	fake_script_open_gate(script);
	while (server->nrows < before + 5)
		fake_run(loop, NULL, NULL, 10);
	fake_run(loop, NULL, NULL, 200);
	assert_true(seconds() > 0 && bytes() > 0);
	fake_script_open_gate(script);
	wait_all(server);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	assert_true(is_caught_up());
}

static bool has_begun(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.batches > 0;
}

/* Nor where others read the stream, and no target does. */
static void what_is_not_known_is_not_zero_without_a_target(void **state)
{
	static struct dmsr_plugin elsewhere;
	struct err e = { 0 };
	(void)state;
	elsewhere = dmsr_plugin_embedded;
	elsewhere.name = "elsewhere";
	assert_int_equal(plugins_add(engine_plugins(engine), &elsewhere, &e), 0);
	fake_script_heartbeat(script);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 2, 2, 10);
	fake_script_wrote(script, FAKE_UNASKED);
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"streamer\": {\"type\": \"elsewhere\"}}", "cdc");
	assert_true(fake_run(loop, has_begun, NULL, FAKE_LONG_MS));
	assert_true(seconds() < 0 && bytes() < 0 && has_reason("not told yet"));
	fake_script_wrote(script, 0);
	assert_true(seconds() < 0 && bytes() > 0);
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
}

static bool is_all_confirmed(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.is_at_end && st.confirmed.flush >= st.end_lsn;
}

static bool has_loaded(void *arg)
{
	(void)arg;
	return server->ntables == 1 && server->tables[0].is_loaded;
}

static bool is_said_why(void *arg)
{
	(void)arg;
	return is_reason("applied nothing", true);
}

/* The source need not keep what the log on disk has, so that it is confirmed; nobody has applied it. */
static void what_waits_in_the_log_is_behind(void **state)
{
	struct fake_answers answers = { .kept = { "dmsr_job", "extended", false, 5000, 100, 7 } };
	(void)state;
	close_engine();
	streamer = "jobs.streamer={\"type\":\"embedded\",\"memory\":\"64KiB\"}";
	open_engine();
	fake_answers_set("s", &answers);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 2, 2, 10);
	fake_script_gate(script);
	for (unsigned i = 0; i < 300; i++)
		fake_script_txn(script, OP_CREATE, t1, 4, 4, 1000);
	create(one_target, NULL);
	wait_state("running");
	while (server->nrows < 2)
		fake_run(loop, NULL, NULL, 10);
	server->stalls = true;
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_all_confirmed, NULL, FAKE_LONG_MS));
	const double all = 300 * FAKE_LSN_STEP;
	double behind = bytes();
	assert_true(behind >= all && behind < all + 3 * FAKE_LSN_STEP && lag_of("target", "lag_bytes") == behind && seconds() > 0);
	/* stopped, it is no less */
	verb(ENGINE_STOP);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	while (strcmp(state_of(), "stopped") != 0)
		fake_run(loop, NULL, NULL, 50);
	for (unsigned i = 0; i < 2400 && bytes() < 0; i++)
		fake_run(loop, NULL, NULL, 50);
	assert_true(bytes() >= all + 7 && bytes() < all + 7 + 3 * FAKE_LSN_STEP && seconds() < 0);
	assert_true(has_reason("does not run"));
	/* and it is not what it was when the source cannot be asked any more */
	err_retry(&answers.error, DMSR_EIO, "source.unreachable", "the server is away");
	for (unsigned i = 0; i < 2400 && bytes() >= 0; i++)
		fake_run(loop, NULL, NULL, 50);
	assert_true(bytes() < 0 && has_reason("the server is away"));
	/* it is known at once when the job runs again, how old it is as soon as the first of it was read */
	verb(ENGINE_START);
	wait_state("running");
	assert_true(bytes() >= all && seconds() != 0);
	server->stalls = false;
	fake_server_go(server);
	fake_script_open_gate(script);
	wait_all(server);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	fake_answers_set("s", NULL);
}

/* Also of a target that has not applied anything of the stream yet. */
static void what_waits_for_a_target_that_has_not_begun_is_behind(void **state)
{
	struct fake_answers answers = { .kept = { "dmsr_job", "extended", false, 5000, 100, 7 } };
	(void)state;
	close_engine();
	streamer = "jobs.streamer={\"type\":\"embedded\",\"memory\":\"64KiB\"}";
	open_engine();
	fake_answers_set("s", &answers);
	fake_script_load(script, t1, 1, 2);
	fake_script_load_done(script);
	fake_script_gate(script);
	for (unsigned i = 0; i < 300; i++)
		fake_script_txn(script, OP_CREATE, t1, 4, 4, 1000);
	create(one_target, NULL);
	wait_state("running");
	assert_true(fake_run(loop, has_loaded, NULL, FAKE_LONG_MS));
	server->stalls = true;
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_all_confirmed, NULL, FAKE_LONG_MS));
	const double all = 300 * FAKE_LSN_STEP;
	assert_true(bytes() >= all && lag_of("target", "lag_bytes") == bytes() && seconds() != 0);
	/* where the stream began is not known any more when it was confirmed in an earlier run */
	verb(ENGINE_STOP);
	while (strcmp(state_of(), "stopped") != 0)
		fake_run(loop, NULL, NULL, 50);
	assert_true(fake_run(loop, is_said_why, NULL, FAKE_LONG_MS));
	assert_true(bytes() < 0 && seconds() < 0);
	verb(ENGINE_START);
	wait_state("running");
	assert_true(fake_run(loop, is_said_why, NULL, FAKE_LONG_MS));
	assert_true(bytes() < 0 && lag_of("target", "lag_bytes") < 0);
	server->stalls = false;
	fake_server_go(server);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	wait_all(server);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	fake_answers_set("s", NULL);
}

static bool is_said_to_be_away(void *arg)
{
	(void)arg;
	return has_reason("the server is away");
}

/* Until the source is asked again nobody knows how much it has written since. */
static void a_job_that_tries_again_says_what_is_true(void **state)
{
	struct fake_answers answers = { 0 };
	struct err e = { 0 };
	(void)state;
	fake_answers_set("s", &answers);
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_level, NULL, FAKE_LONG_MS));
	err_retry(&answers.error, DMSR_EIO, "source.unreachable", "the server is away");
	err_retry(&e, DMSR_EIO, "source.unreachable", "the server is away");
	fake_script_fail(script, &e, 1000000);
	fake_script_txn(script, OP_CREATE, t1, 1, 1, 10);
	wait_state("retrying");
	assert_true(bytes() < 0 && seconds() < 0);
	assert_true(fake_run(loop, is_said_to_be_away, NULL, FAKE_LONG_MS));
	assert_true(answers.looks && bytes() < 0);
	fake_answers_set("s", NULL);
	verb(ENGINE_STOP);
	wait_state("stopped");
}

RUN_TESTS(TEST(lag_begins_with_what_waits), TEST(a_load_alone_follows_nothing), TEST(what_is_not_known_is_not_zero),
	TEST(what_is_not_known_is_not_zero_without_a_target), TEST(what_waits_in_the_log_is_behind),
	TEST(what_waits_for_a_target_that_has_not_begun_is_behind), TEST(a_job_that_tries_again_says_what_is_true))
