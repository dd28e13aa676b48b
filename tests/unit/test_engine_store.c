/* test_engine_store: what a job relies on is in the store first: killed between any two of its writes, or with a store that fails, no row is lost and none
 * comes twice, and the source is told of nothing that is not durable. */
#include "engine_kit.h"

/* ---- the store's writes, in between ---- */

struct lost { store_done *done; void *arg; };
static struct lost lost[256];
static unsigned nlost, nputs;
static unsigned last_put;               /* the one after which we are killed; 0: none */
static struct loop_task *failing;       /* the next position that is put is refused in this task; NULL: none is */

void __real_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg);
void __wrap_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg);
void __wrap_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg)
{
	bool is_refused = failing && !strcmp(kind, "position") && !*key && value;
	if (!is_refused && (!last_put || ++nputs <= last_put)) {
		__real_store_put(s, uid, kind, key, value, done, arg);
	} else if (done) {
		assert_true(nlost < sizeof lost / sizeof *lost);
		lost[nlost++] = (struct lost){ done, arg };
	}
	if (is_refused)
		loop_task_post(failing);
}

static void tell_lost(void *arg)
{
	struct err e = { 0 };
	(void)arg;
	err_set(&e, DMSR_EIO, "state.io", "the test says so");
	for (unsigned i = 0; i < nlost; i++)
		lost[i].done(lost[i].arg, &e);
	nlost = 0;
}

static bool is_killed(void *arg)
{
	(void)arg;
	return nputs > last_put;
}

/* Closed with that alone in the store which came before. What was asked behind it is told to nobody: the runs that asked are gone. */
static void die(void)
{
	close_engine();
	tell_lost(NULL);
	fake_settle(loop);
	last_put = 0;
}

/* What is said while things fail as they should. */
static void no_log(void *arg, const char *line, size_t len) { (void)arg, (void)line, (void)len; }

static int set_up_quiet(void **state)
{
	log_set_sink(no_log, NULL);
	return set_up(state);
}

/* ---- tests ---- */

static bool has_started_anew(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.started > *(unsigned *)arg;
}

static void killed_between_any_two_writes(void **state)
{
	bool killed = true;
	unsigned at = 1, ahead = 0;
	for (; killed; at++) {
		struct fake_script_stat st;
		nputs = 0;
		last_put = at;
		write_script();
		create(one_target, NULL);
		fake_run(loop, is_killed, NULL, 2000);
		killed = nputs > last_put;
		die();
		fake_script_stat(script, &st);
		open_engine();
		verb(ENGINE_START);
		assert_true(fake_run(loop, has_started_anew, &st.started, 5000));
		fake_script_stat(script, &st);
		wait_all(server);
		/* changes flow when the tables are loaded: whoever knows of the ones knows of the others */
		ahead += !position_is_none(&st.from);
		assert_true(position_is_none(&st.from) || (st.nloaded == 2 && st.load_done));
		tear_down(state);
		set_up(state);
	}
	assert_true(at > 12 && ahead);
}

/* What the source was told is what the next daemon finds. */
static void a_position_that_is_not_stored_is_not_confirmed(void **state)
{
	struct fake_script_stat st;
	(void)state;
	write_script();
	failing = loop_task_new(loop, "test", tell_lost, NULL);
	create(one_target, NULL);
	wait_state("failed");
	assert_string_equal(error_code(), "state.io");
	fake_script_stat(script, &st);
	close_engine();
	loop_task_free(failing);
	failing = NULL;
	fake_settle(loop);
	open_engine();
	assert_true(position_is_none(&st.confirmed) || is_stored(NULL, &st.confirmed));
	verb(ENGINE_START);
	wait_all(server);
}

static json_int_t retries_of(const char *which)
{
	json_t *s = engine_job_status(engine, "job");
	json_int_t n = json_integer_value(json_object_get(json_object_get(s, "retries"), which));
	json_decref(s);
	return n;
}

/* A job that gets on between its failures waits as long as after the first. */
static void progress_makes_a_failure_the_first_again(void **state)
{
	struct err e = { 0 };
	(void)state;
	write_script();
	err_retry(&e, DMSR_EIO, "source.unreachable", "the server went away");
	fake_script_fail(script, &e, 3);
	fake_script_txn(script, OP_CREATE, t1, 5, 2, 10);
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, 5000));
	assert_int_equal(retries_of("total"), 3);
	assert_int_equal(retries_of("in_a_row"), 0);
}

#undef TEST
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up_quiet, tear_down)
RUN_TESTS(TEST(killed_between_any_two_writes), TEST(a_position_that_is_not_stored_is_not_confirmed), TEST(progress_makes_a_failure_the_first_again))
