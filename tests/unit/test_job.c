/* test_job: the states of a job. Every transition that the table allows is walked by somebody here, and the last test asks for that: one that nobody takes
 * is none. What is walked is read off the log, which has each. */
#include "engine_kit.h"

#include "engine/job.h"

/* The engine's own; its header has another struct answer. */
struct job *engine_find(const struct engine *g, const char *name_or_uid);

static bool walked[JOB_STATES][JOB_STATES];

/* ... msg="created -> starting: asked" */
static void on_line(void *arg, const char *line, size_t len)
{
	char text[200], from[16], to[16];
	(void)arg;
	snprintf(text, sizeof text, "%.*s", (int)len, line);
	const char *msg = strstr(text, "room=job job=job msg=\"");
	if (!msg || sscanf(msg + 22, "%15[a-z] -> %15[a-z]:", from, to) != 2 || job_state_parse(from) < 0 || job_state_parse(to) < 0)
		return;
	walked[job_state_parse(from)][job_state_parse(to)] = true;
}

static int set_up_watched(void **state)
{
	int rc = set_up(state);
	log_set_sink(on_line, NULL);
	log_set_level("job", LOG_LEVEL_INFO);
	return rc;
}

/* ---- what is asked at once: nothing else happens before the next line ---- */

static struct answer answers[8];
static unsigned nanswers;

static struct engine_call next_call(void)
{
	assert_true(nanswers < 8);
	return call_of(&answers[nanswers++]);
}

static void await_all(void)
{
	for (unsigned i = 0; i < nanswers; i++) {
		assert_true(answers[i].is_there || fake_run(loop, is_answered, &answers[i], FAKE_LONG_MS));
		if (answers[i].e.code)
			fail_msg("%s: %s", answers[i].e.id, answers[i].e.message);
		drop(&answers[i]);
	}
	nanswers = 0;
}

static void ask(enum engine_verb v)
{
	const struct engine_call call = next_call();
	engine_command(engine, "job", v, &call);
}

static void make(const char *mode)
{
	const struct engine_call call = next_call();
	json_t *spec = json_loads(one_target, 0, NULL);
	json_object_set_new(spec, "mode", json_string(mode));
	engine_create(engine, spec, false, &call);
	json_decref(spec);
}

static void is_now(const char *state) { assert_string_equal(state_of(), state); }

static void lose_state(void)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EIO, "state.io", "the test says so");
	job_state_lost(engine_find(engine, "job"), &e);
	is_now("failed");
}

static void fail_script(bool is_retriable)
{
	struct err e = { 0 };
	if (is_retriable)
		err_retry(&e, DMSR_EIO, "source.unreachable", "the test says so");
	else
		err_set(&e, DMSR_EFATAL, "slot.lost", "the test says so");
	fake_script_fail(script, &e, 1);
}

static bool is_at_end(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.is_at_end;
}

/* ---- where it begins ---- */

static void created(void **state)
{
	(void)state;
	write_script();
	make("full-load-and-cdc");
	is_now("starting"); /* created -> starting */
	ask(ENGINE_PAUSE);
	is_now("paused"); /* by way of pausing: there was nothing to wait for */
	ask(ENGINE_STOP);
	await_all();
	wait_state("stopped");
	ask(ENGINE_START);
	ask(ENGINE_STOP);
	is_now("stopping");
	await_all();
	wait_state("stopped");
}

static void created_and_never_begun(void **state)
{
	const struct engine_call call = next_call();
	(void)state;
	json_t *spec = json_loads(one_target, 0, NULL);
	json_object_set_new(spec, "desired_state", json_string("stopped"));
	engine_create(engine, spec, false, &call);
	json_decref(spec);
	is_now("created");
	ask(ENGINE_STOP);
	is_now("stopped");
	await_all();
}

/* ---- a load, and what is behind it ---- */

static void loading(void **state)
{
	(void)state;
	fake_script_load(script, t1, 1, 10);
	fake_script_gate(script);
	fake_script_load(script, t2, 1, 10);
	fake_script_load_done(script);
	make("full-load-and-cdc");
	wait_state("loading");
	ask(ENGINE_PAUSE);
	await_all();
	wait_state("paused");
	ask(ENGINE_RESUME);
	is_now("loading");
	ask(ENGINE_STOP);
	is_now("stopping");
	await_all();
	wait_state("stopped");
	fake_script_open_gate(script);
	ask(ENGINE_START);
	await_all();
	wait_state("running");
}

static void loading_that_fails(void **state)
{
	(void)state;
	fake_script_load(script, t1, 1, 10);
	fail_script(true);
	fake_script_load(script, t2, 1, 10);
	fail_script(false);
	fake_script_load_done(script);
	make("full-load-and-cdc");
	await_all();
	wait_state("failed"); /* with a retry before it */
	ask(ENGINE_STOP);
	is_now("stopped");
	await_all();
}

static void let_server_go(void)
{
	server->stalls = false;
	fake_server_go(server);
}

/* With something that it has not applied. */
static void hold_server(void)
{
	wait_all(server);
	server->stalls = true;
	fake_script_txn(script, OP_CREATE, t1, 3, 3, 10);
	assert_true(fake_run(loop, is_at_end, NULL, FAKE_LONG_MS));
}

/* What it has read is not applied, so that it does not come to rest. */
static void pausing(void **state)
{
	(void)state;
	write_script();
	server->stalls = true;
	make("full-load-and-cdc");
	await_all();
	wait_state("loading");
	assert_true(fake_run(loop, is_at_end, NULL, FAKE_LONG_MS));
	ask(ENGINE_PAUSE);
	is_now("pausing");
	ask(ENGINE_RESUME);
	is_now("loading");
	let_server_go();
	await_all();
	wait_state("running");
	hold_server();
	ask(ENGINE_PAUSE);
	is_now("pausing");
	ask(ENGINE_RESUME);
	is_now("running");
	ask(ENGINE_PAUSE);
	ask(ENGINE_STOP);
	is_now("stopping");
	let_server_go();
	await_all();
	wait_state("stopped");
	ask(ENGINE_START);
	await_all();
	wait_state("running");
	hold_server();
	ask(ENGINE_PAUSE);
	is_now("pausing");
	server->fail_at = 1;
	err_set(&server->fail_with, DMSR_EDATA, "target.constraint", "the test says so");
	let_server_go();
	wait_state("failed");
	ask(ENGINE_START);
	await_all();
	wait_state("running");
}

static void a_full_load(void **state)
{
	struct answer a;
	(void)state;
	fake_script_load(script, t1, 1, 10);
	fake_script_load_done(script);
	make("full-load");
	await_all();
	wait_state("completed"); /* from loading */
	const struct engine_call call = call_of(&a);
	engine_positions_set(engine, "job", NULL, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	drop(&a);
	is_now("stopped");
}

static bool has_load(void *arg)
{
	(void)arg;
	return server->load_done;
}

/* Stopped between the last of it and its end. */
static void a_full_load_of_which_nothing_is_left(void **state)
{
	(void)state;
	fake_script_load(script, t1, 1, 10);
	fake_script_load_done(script);
	fake_script_gate(script);
	make("full-load");
	await_all();
	assert_true(fake_run(loop, has_load, NULL, FAKE_LONG_MS));
	ask(ENGINE_STOP);
	await_all();
	wait_state("stopped");
	fake_script_open_gate(script);
	ask(ENGINE_START);
	await_all();
	wait_state("completed");
	assert_true(walked[JOB_STARTING][JOB_COMPLETED]);
}

static void a_full_load_that_is_paused_at_its_end(void **state)
{
	(void)state;
	fake_script_load(script, t1, 1, 10);
	fake_script_load_done(script);
	server->stalls = true;
	make("full-load");
	await_all();
	wait_state("loading");
	assert_true(fake_run(loop, is_at_end, NULL, FAKE_LONG_MS));
	ask(ENGINE_PAUSE);
	await_all();
	is_now("pausing");
	let_server_go();
	wait_state("completed");
}

/* ---- running ---- */

static void running(void **state)
{
	(void)state;
	fake_script_txn(script, OP_CREATE, t1, 3, 3, 10);
	make("cdc");
	await_all();
	wait_state("running"); /* from starting */
	wait_all(server);
	ask(ENGINE_PAUSE);
	await_all();
	wait_state("paused");
	ask(ENGINE_RESUME);
	is_now("running");
	ask(ENGINE_PAUSE);
	await_all();
	wait_state("paused");
	ask(ENGINE_STOP);
	is_now("stopping");
	await_all();
	wait_state("stopped");
	ask(ENGINE_START);
	await_all();
	wait_state("running");
	ask(ENGINE_STOP);
	is_now("stopping");
	await_all();
	wait_state("stopped");
}

static void running_that_fails(void **state)
{
	(void)state;
	fake_script_txn(script, OP_CREATE, t1, 3, 3, 10);
	make("cdc");
	await_all();
	wait_state("running");
	wait_all(server);
	fail_script(true);
	wait_state("retrying");
	wait_state("running");
	fail_script(false);
	wait_state("failed");
}

static void starting_that_fails(void **state)
{
	(void)state;
	write_script();
	server->refuses_start = true;
	make("full-load-and-cdc");
	await_all();
	wait_state("retrying");
	err_set(&server->fail_with, DMSR_EINVAL, "target.setting", "the test says so");
	wait_state("failed"); /* from starting */
	server->fail_with.code = 0;
	ask(ENGINE_START);
	await_all();
	wait_state("retrying");
	ask(ENGINE_PAUSE);
	is_now("paused");
	ask(ENGINE_STOP);
	is_now("stopped");
	ask(ENGINE_START);
	await_all();
	wait_state("retrying");
	ask(ENGINE_PAUSE);
	ask(ENGINE_RESUME);
	is_now("starting");
	await_all();
	wait_state("retrying");
	ask(ENGINE_STOP);
	is_now("stopped");
	await_all();
}

/* ---- the daemon's part ---- */

static void drained(void *arg) { *(bool *)arg = true; }
static bool is_true(void *arg) { return *(bool *)arg; }

static void paused_over_a_restart(void **state)
{
	bool done = false;
	(void)state;
	write_script();
	make("full-load-and-cdc");
	await_all();
	wait_all(server);
	wait_state("running");
	ask(ENGINE_PAUSE);
	await_all();
	wait_state("paused");
	engine_drain(engine, drained, &done);
	assert_true(fake_run(loop, is_true, &done, FAKE_LONG_MS));
	is_now("stopped");
	close_engine();
	open_engine();
	is_now("paused");
}

static void the_state_store_is_lost(void **state)
{
	(void)state;
	write_script();
	make("full-load-and-cdc");
	await_all();
	wait_state("running");
	wait_all(server);
	ask(ENGINE_PAUSE);
	await_all();
	wait_state("paused");
	lose_state();
	server->refuses_start = true;
	ask(ENGINE_START);
	await_all();
	wait_state("retrying");
	lose_state();
	server->refuses_start = false;
	ask(ENGINE_START);
	await_all();
	wait_state("running");
	ask(ENGINE_STOP);
	is_now("stopping");
	lose_state();
	await_all();
}

static void nothing_else_is_allowed(void **state)
{
	(void)state;
	for (int from = 0; from < JOB_STATES; from++)
		for (int to = 0; to < JOB_STATES; to++)
			if (job_can_become((enum job_state)from, (enum job_state)to) != walked[from][to])
				fail_msg("%s -> %s is %s", job_state_name((enum job_state)from), job_state_name((enum job_state)to),
					walked[from][to] ? "not allowed" : "taken by nobody");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up_watched, tear_down)
RUN_TESTS(T(created), T(created_and_never_begun), T(loading), T(loading_that_fails), T(pausing), T(a_full_load), T(a_full_load_of_which_nothing_is_left),
	T(a_full_load_that_is_paused_at_its_end), T(running), T(running_that_fails), T(starting_that_fails), T(paused_over_a_restart),
	T(the_state_store_is_lost), cmocka_unit_test(nothing_else_is_allowed))
