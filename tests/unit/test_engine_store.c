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

static bool is_killed_or_over(void *arg) { return is_killed(arg) || is_confirmed(arg); }

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
		fake_run(loop, is_killed_or_over, NULL, FAKE_LONG_MS);
		fake_run(loop, is_killed, NULL, 2000); /* what comes behind all that, soon */
		killed = nputs > last_put;
		die();
		fake_script_stat(script, &st);
		open_engine();
		verb(ENGINE_START);
		assert_true(fake_run(loop, has_started_anew, &st.started, FAKE_LONG_MS));
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
	(void)state;
	write_failing_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	assert_int_equal(retries_of("total"), 3);
	assert_int_equal(retries_of("in_a_row"), 0);
}

/* ---- a streamer with a memory of its own ---- */

static struct dmsr_stand knows;
static uint64_t told_stored;
static char known_note[64];             /* as it was when it was opened */
static struct dmsr_streamer knowing_ops;
static struct dmsr_plugin knowing;

static int open_knowing(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	const char *note = host->note_get(host->ctx, "known");
	snprintf(known_note, sizeof known_note, "%s", note ? note : "none");
	if (!note)
		host->note_put(host->ctx, "known", "there", NULL, NULL);
	return dmsr_plugin_embedded.streamer->open(s, host, out, e);
}

static void tell_known(struct dmsr_instance *i, struct dmsr_stand *out)
{
	(void)i;
	*out = knows;
}

static void note_stored(struct dmsr_instance *i, uint64_t token)
{
	(void)i;
	assert_true(token > told_stored);
	told_stored = token;
}

static void add_knowing(void)
{
	struct err e = { 0 };
	knowing = dmsr_plugin_embedded;
	knowing.name = "knowing";
	knowing.streamer = &knowing_ops;
	assert_int_equal(plugins_add(engine_plugins(engine), &knowing, &e), 0);
}

static void create_on_it(void)
{
	json_t *spec = json_loads(one_target, 0, NULL);
	add_knowing();
	write_script();
	json_object_set_new(spec, "streamer", json_pack("{s:s}", "type", "knowing"));
	char *text = json_dumps(spec, 0);
	create(text, NULL);
	free(text);
	json_decref(spec);
}

static bool yes(const struct dmsr_instance *i)
{
	(void)i;
	return true;
}

static void create_knowing(const struct dmsr_stand *stand)
{
	knows = *stand;
	told_stored = 0;
	knowing_ops = *dmsr_plugin_embedded.streamer;
	knowing_ops.open = open_knowing;
	knowing_ops.known = tell_known;
	knowing_ops.keeps = yes; /* no streamer has a memory of what it does not keep */
	knowing_ops.load_way = NULL; /* and the rows go where their words go */
	knowing_ops.stored = note_stored;
	create_on_it();
}

static void stop(void)
{
	verb(ENGINE_STOP);
	wait_state("stopped");
}

/* What a streamer has for good is where the source goes on, though nobody was told: the crash was between. */
static void what_the_streamer_knows_is_remembered(void **state)
{
	const struct position at = fake_position(7 * FAKE_LSN_STEP, POSITION_WHOLE);
	const struct dmsr_loaded loaded[] = { { "public", "t1", fake_position(FAKE_LSN_STEP, 0) }, { "public", "t2", fake_position(FAKE_LSN_STEP, 0) } };
	struct fake_script_stat st;
	unsigned none = 0;
	(void)state;
	server->keeps = false;
	create_knowing(&(struct dmsr_stand){ .at = at, .loaded = loaded, .nloaded = 2, .load_done = true });
	assert_true(fake_run(loop, has_started_anew, &none, FAKE_LONG_MS));
	fake_script_stat(script, &st);
	assert_int_equal(position_compare(&st.from, &at), 0);
	assert_true(is_stored(NULL, &at));
	assert_true(st.load_done);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	assert_true(told_stored > 0);
	/* what it knows is older than what is stored: that stays */
	stop();
	fake_script_stat(script, &st);
	const struct position end = st.confirmed;
	unsigned before = st.started;
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_started_anew, &before, FAKE_LONG_MS));
	fake_script_stat(script, &st);
	assert_true(position_compare(&st.from, &end) >= 0);
	assert_string_equal(known_note, "there");
}

/* Who sets a position means it. */
static void a_position_by_hand_is_not_overruled(void **state)
{
	struct answer a;
	struct fake_script_stat st;
	char text[POSITION_TEXT_MAX];
	unsigned none = 0;
	(void)state;
	create_knowing(&(struct dmsr_stand){ 0 });
	assert_true(fake_run(loop, has_started_anew, &none, FAKE_LONG_MS));
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	stop();
	fake_script_stat(script, &st);
	const struct engine_call call = call_of(&a);
	json_t *body = json_pack("{s:s}", "position", position_format(&st.confirmed, text));
	engine_positions_set(engine, "job", body, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	drop(&a);
	json_decref(body);
	unsigned before = st.started;
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_started_anew, &before, FAKE_LONG_MS));
	assert_string_equal(known_note, "none");
}

static void a_streamer_of_another_server(void **state)
{
	struct position at = fake_position(7 * FAKE_LSN_STEP, POSITION_WHOLE);
	unsigned none = 0;
	(void)state;
	create_knowing(&(struct dmsr_stand){ 0 });
	assert_true(fake_run(loop, has_started_anew, &none, FAKE_LONG_MS));
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	stop();
	at.server++;
	knows.at = at;
	verb(ENGINE_START);
	wait_state("failed");
	assert_string_equal(error_code(), "server.changed");
}

static size_t count_stored_loads(void)
{
	json_t *j = engine_job_positions(engine, "job");
	size_t n = json_array_size(json_object_get(j, "loaded"));
	json_decref(j);
	return n;
}

static size_t count_loads_there(void)
{
	size_t n = 0;
	for (size_t i = 0; i < server->ntables; i++)
		n += server->tables[i].is_loaded;
	return n;
}

/* What the streamer was not known to have when we were killed is loaded again, though the target has it. */
static void targets_do_not_speak_for_other_readers(void **state)
{
	bool killed = true;
	unsigned ahead = 0;
	for (unsigned at = 1; killed; at++) {
		struct fake_script_stat st;
		knowing_ops = *dmsr_plugin_embedded.streamer;
		knowing_ops.has_readers = yes;
		nputs = 0;
		last_put = at;
		create_on_it();
		fake_run(loop, is_killed_or_over, NULL, FAKE_LONG_MS);
		fake_run(loop, is_killed, NULL, 2000); /* what comes behind all that, soon */
		killed = nputs > last_put;
		die();
		fake_script_stat(script, &st);
		open_engine();
		add_knowing();
		size_t nstored = count_stored_loads();
		ahead += nstored < count_loads_there();
		verb(ENGINE_START);
		assert_true(fake_run(loop, has_started_anew, &st.started, FAKE_LONG_MS));
		fake_script_stat(script, &st);
		assert_int_equal(st.nloaded, nstored);
		wait_all(server);
		tear_down(state);
		set_up(state);
	}
	assert_true(ahead);
}

#undef TEST
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up_quiet, tear_down)
RUN_TESTS(TEST(killed_between_any_two_writes), TEST(a_position_that_is_not_stored_is_not_confirmed), TEST(progress_makes_a_failure_the_first_again),
	TEST(what_the_streamer_knows_is_remembered), TEST(a_position_by_hand_is_not_overruled), TEST(a_streamer_of_another_server),
	TEST(targets_do_not_speak_for_other_readers))
