/* test_engine_view: what is told of a job while it does not run, or has not got far: nothing that was true once, and nothing that is not known. */
#include "engine_kit.h"

static json_t *part_of(const char *key)
{
	json_t *s = engine_job_status(engine, "job"), *part = json_incref(json_object_get(s, key));
	json_decref(s);
	return part;
}

/* As "t1 loaded, t2 pending". */
static const char *states(void)
{
	static char text[256];
	json_t *next, *tables = engine_job_tables(engine, "job", NULL, 0, &next), *t;
	size_t i, n = 0;
	text[0] = 0;
	json_array_foreach(json_object_get(tables, "items"), i, t)
	{
		const char *name = json_string_value(json_object_get(t, "name")), *state = json_string_value(json_object_get(t, "state"));
		n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %s", n ? ", " : "", name, state);
	}
	json_decref(tables);
	return text;
}

static bool are_states(void *arg) { return !strcmp(states(), arg); }

static void wait_states(const char *text)
{
	if (!fake_run(loop, are_states, (void *)(uintptr_t)text, FAKE_LONG_MS))
		fail_msg("%s, not %s", states(), text);
}

static bool has_eta(void *arg)
{
	(void)arg;
	json_t *load = part_of("load"), *eta = json_object_get(load, "eta_seconds");
	bool has = json_is_integer(eta);
	assert_true(has || json_is_null(eta));
	json_decref(load);
	return has;
}

static void change(const char *what)
{
	struct answer a;
	json_t *patch = json_loads(what, 0, NULL);
	struct engine_call call = call_of(&a);
	engine_patch(engine, "job", patch, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	json_decref(patch);
	drop(&a);
}

/* Not what a run was at when it was held up or ended. */
static void a_load_that_does_not_go_on_is_not_under_way(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_gate(script);
	fake_script_load(script, t2, 400, 5);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 3, 10);
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"streamer\": {\"type\": \"embedded\", \"memory\": \"64KiB\","
	       "\"disk\": 0}, \"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}",
		NULL);
	wait_states("t1 loaded");
	verb(ENGINE_PAUSE);
	wait_state("paused");
	assert_false(has_eta(NULL));
	server->stalls = true;
	fake_script_open_gate(script);
	verb(ENGINE_RESUME);
	wait_states("t1 loaded, t2 loading");
	assert_true(fake_run(loop, has_eta, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_string_equal(states(), "t1 loaded, t2 pending");
	assert_false(has_eta(NULL));
	server->stalls = false;
	verb(ENGINE_START);
	wait_all(server);
	wait_states("t1 loaded, t2 loaded");
}

static const json_t *status_now(void)
{
	static json_t *s;
	json_decref(s);
	s = engine_job_status(engine, "job");
	return s;
}

static double percent(void) { return json_number_value(json_object_get(json_object_get(status_now(), "load"), "percent")); }
static bool is_load_told_done(void)
{
	const json_t *s = status_now();
	bool done = json_is_true(json_object_get(json_object_get(s, "load"), "done"));
	assert_true(done == json_is_true(json_object_get(json_array_get(json_object_get(s, "targets"), 0), "load_done")));
	return done;
}

/* A job that had loaded everything loads again like one that begins. */
static void loads_a_table_again(const char *beside)
{
	struct answer a;
	char *spec = mem_printf("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\", \"beside\": %s}, \"streamer\": "
		"{\"type\": \"embedded\", \"memory\": \"64KiB\"}, \"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}", beside);
	fake_script_load(script, t1, 3, 10);
	fake_script_load(script, t2, 2000, 5);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 3, 10);
	create(spec, NULL);
	free(spec);
	wait_state("running");
	wait_all(server);
	assert_true(is_load_told_done() && percent() == 100);
	server->stalls = true;
	struct engine_call call = call_of(&a);
	engine_reload_table(engine, "job", "public.t2", &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	drop(&a);
	wait_states("t1 loaded, t2 loading");
	wait_state("loading");
	assert_true(!is_load_told_done() && percent() < 100);
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_true(json_is_false(json_object_get(json_object_get(status_now(), "load"), "done")) && percent() < 100);
	server->stalls = false;
	verb(ENGINE_START);
	wait_state("running");
	wait_states("t1 loaded, t2 loaded");
	assert_true(is_load_told_done() && percent() == 100);
}

static void a_table_that_is_loaded_again_is_a_load(void **state)
{
	(void)state;
	loads_a_table_again("false");
}

static void so_it_is_beside_the_stream(void **state)
{
	(void)state;
	loads_a_table_again("true");
}

static void a_job_that_does_not_run_has_its_targets(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	for (unsigned i = 0; i < 2; i++) {
		json_t *targets = part_of("targets"), *t = json_array_get(targets, 0), *positions = engine_job_positions(engine, "job");
		assert_int_equal(json_array_size(targets), 1);
		assert_string_equal(json_string_value(json_object_get(t, "name")), "fake");
		assert_string_equal(json_string_value(json_object_get(t, "connector")), "fake");
		assert_true(json_is_string(json_object_get(t, "applied")));
		assert_true(json_equal(json_object_get(t, "applied"), json_object_get(json_object_get(positions, "targets"), "fake")));
		assert_true(json_is_false(json_object_get(t, "connected")) && json_is_false(json_object_get(t, "caught_up")));
		assert_true(json_is_true(json_object_get(t, "load_done")) && json_is_null(json_object_get(t, "lag_seconds")));
		json_decref(positions);
		json_decref(targets);
		close_engine(); /* nor does it forget them */
		fake_settle(loop);
		open_engine();
	}
}

static void take_metrics(void *arg, const struct engine_job_metrics *m) { *(struct engine_job_metrics *)arg = *m; }

static unsigned tables_of_load(void)
{
	struct engine_job_metrics m;
	json_t *load = part_of("load");
	unsigned n = (unsigned)json_integer_value(json_object_get(load, "tables"));
	assert_int_equal(json_integer_value(json_object_get(load, "tables_loaded")), n);
	json_decref(load);
	engine_each_job(engine, take_metrics, &m);
	assert_true(m.tables_total == n && m.tables_loaded == n);
	return n;
}

/* At once, and whatever the mode. */
static void a_table_that_the_patterns_do_not_mean_is_excluded(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_int_equal(tables_of_load(), 2);
	change("{\"tables\": {\"exclude\": [\"public.t1\"]}}");
	assert_string_equal(states(), "t1 excluded, t2 loaded");
	assert_int_equal(tables_of_load(), 1);
	close_engine();
	fake_settle(loop);
	open_engine();
	assert_string_equal(states(), "t1 excluded, t2 loaded");
	change("{\"mode\": \"cdc\"}");
	assert_string_equal(states(), "t1 excluded, t2 streaming");
	change("{\"mode\": null, \"tables\": null}");
	assert_string_equal(states(), "t1 loaded, t2 loaded");
	assert_int_equal(tables_of_load(), 2);
}

static bool has_warnings(void *arg)
{
	json_t *warnings = part_of("warnings");
	bool has = json_array_size(warnings) > 0;
	if (arg && has)
		*(json_t **)arg = json_incref(warnings);
	json_decref(warnings);
	return has;
}

/* No load tells that the target has no such table. */
static void what_a_target_lacks_is_told_before_the_first_change(void **state)
{
	static const struct dmsr_check checks[] = { { "fake.table", DMSR_CHECK_ERROR, "public.t1", "public.t1 is missing", "CREATE TABLE t1", false },
		{ "fake.other", DMSR_CHECK_WARNING, NULL, "this is nothing", NULL, false } };
	struct fake_answers source = { .rels = &t1, .nrels = 1 }, target = { .checks = checks, .nchecks = 2 };
	json_t *warnings = NULL;
	(void)state;
	fake_answers_set("s", &source);
	fake_answers_set("v", &target);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 3, 10);
	create(one_target, "cdc");
	assert_true(fake_run(loop, has_warnings, &warnings, FAKE_LONG_MS));
	assert_int_equal(json_array_size(warnings), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(warnings, 0), "message")), "fake: public.t1 is missing; CREATE TABLE t1");
	json_decref(warnings);
	wait_state("running");
	assert_int_equal(target.nrels_given, 1);
	assert_int_equal(source.live + target.live, 0);
	/* of many not each */
	struct dmsr_check many[13];
	char names[13][8];
	for (size_t i = 0; i < 13; i++) {
		snprintf(names[i], sizeof names[i], "t%zu", i);
		many[i] = (struct dmsr_check){ "fake.table", DMSR_CHECK_ERROR, names[i], names[i], NULL, false };
	}
	target.checks = many;
	target.nchecks = 13;
	verb(ENGINE_RESTART);
	assert_true(fake_run(loop, has_warnings, &warnings, FAKE_LONG_MS));
	assert_int_equal(json_array_size(warnings), 11);
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(warnings, 10), "message")), "and 3 more"));
	json_decref(warnings);
	wait_state("running");
	/* one that is mended has none */
	target.nchecks = 0;
	target.asked = 0;
	verb(ENGINE_RESTART);
	wait_state("running");
	while (!target.asked)
		fake_run(loop, NULL, NULL, 10);
	fake_settle(loop);
	assert_false(has_warnings(NULL));
	fake_answers_set("s", NULL);
	fake_answers_set("v", NULL);
}

/* Of many jobs not all in one slice of the loop. */
enum { MANY_JOBS = 25 };

static struct { unsigned of[MANY_JOBS], told, most, slice; } seen;

static void on_event(void *arg, uint64_t id, const char *type, const char *job, const json_t *data)
{
	(void)arg;
	(void)id;
	if (strcmp(type, "progress") != 0)
		return;
	seen.of[strtoul(job + 1, NULL, 10)]++;
	seen.told++;
	seen.slice++;
	seen.most = seen.slice > seen.most ? seen.slice : seen.most;
	assert_non_null(json_object_get(data, "state"));
}

static void on_turn(void *arg)
{
	seen.slice = 0;
	loop_task_post(*(struct loop_task **)arg);
}

static bool are_all_told(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < MANY_JOBS; i++)
		if (seen.of[i] < 2)
			return false;
	return true;
}

static void many_jobs_are_told_of_a_few_at_a_time(void **state)
{
	(void)state;
	struct fake_script *scripts[MANY_JOBS];
	for (unsigned i = 0; i < MANY_JOBS; i++) {
		char name[8], text[256];
		snprintf(name, sizeof name, "s%u", i);
		scripts[i] = fake_script_new(name);
		snprintf(text, sizeof text, "{\"name\": \"j%u\", \"source\": {\"connector\": \"fake\", \"script\": \"%s\"}, "
			"\"targets\": [{\"connector\": \"null\"}]}", i, name);
		create(text, NULL);
	}
	struct loop_task *turn = loop_task_new(loop, "test", on_turn, &turn);
	loop_task_post(turn);
	struct engine_observer *o = engine_observe(engine, on_event, NULL);
	assert_true(fake_run(loop, are_all_told, NULL, FAKE_LONG_MS));
	engine_unobserve(o);
	loop_task_free(turn);
	assert_in_range(seen.most, 1, 10);
	/* nor of any, while none who listens wants it */
	o = engine_observe(engine, on_event, NULL);
	engine_observe_progress(o, false);
	fake_run(loop, NULL, NULL, 50); /* of those that were under way */
	memset(&seen, 0, sizeof seen);
	fake_run(loop, NULL, NULL, 2200);
	for (unsigned i = 0; i < MANY_JOBS; i++)
		assert_int_equal(seen.of[i], 0);
	engine_unobserve(o);
	close_engine();
	for (unsigned i = 0; i < MANY_JOBS; i++)
		fake_script_free(scripts[i]);
	open_engine();
}

RUN_TESTS(TEST(a_load_that_does_not_go_on_is_not_under_way), TEST(a_table_that_is_loaded_again_is_a_load), TEST(so_it_is_beside_the_stream),
	TEST(a_job_that_does_not_run_has_its_targets), TEST(many_jobs_are_told_of_a_few_at_a_time),
	TEST(a_table_that_the_patterns_do_not_mean_is_excluded), TEST(what_a_target_lacks_is_told_before_the_first_change))
