/* test_engine_refused: what the engine says of plugins that break their word, of sides that are silent, and of what may not be done now: the id, whom it is
 * about, and that what it says to do helps. */
#include "engine_kit.h"

#include "engine/store_int.h"

/* ---- the plugins ---- */

static bool streamer_lies;
static unsigned npassed; /* batches before it does so */
static const struct dmsr_streamer_host *streamer_host;
static struct dmsr_streamer_host host_copy;
static struct loop_task *lie;
static struct dmsr_streamer rude_streamer;
static struct dmsr_probe no_drop;
static struct dmsr_plugin rude, kept;

static void tell_a_lie(void *arg)
{
	(void)arg;
	streamer_host->delivered(streamer_host->ctx, 4711, NULL);
}

static int open_streamer(const struct settings *s, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	host_copy = *host;
	streamer_host = &host_copy;
	lie = loop_task_new(loop, "lie", tell_a_lie, NULL);
	return dmsr_plugin_embedded.streamer->open(s, host, out, e);
}

static void close_streamer(struct dmsr_instance *i)
{
	loop_task_free(lie);
	dmsr_plugin_embedded.streamer->close(i);
}

static enum dmsr_verdict produce(struct dmsr_instance *i, struct batch *b)
{
	if (streamer_lies && ++npassed == 3)
		loop_task_post(lie);
	return dmsr_plugin_embedded.streamer->produce(i, b);
}

static void add_plugins(void)
{
	struct err e = { 0 };
	rude_streamer = *dmsr_plugin_embedded.streamer;
	rude_streamer.open = open_streamer;
	rude_streamer.close = close_streamer;
	rude_streamer.produce = produce;
	rude = dmsr_plugin_embedded;
	rude.name = "rude";
	rude.streamer = &rude_streamer;
	no_drop = *dmsr_plugin_fake.target_probe;
	no_drop.drop = NULL;
	kept = dmsr_plugin_fake;
	kept.name = "kept";
	kept.target_probe = &no_drop;
	const struct dmsr_plugin *const all[] = { &rude, &kept };
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(plugins_add(engine_plugins(engine), all[i], &e), 0);
	npassed = 0;
	streamer_lies = false;
}

#define JOB(streamer, connector)                                                                                           \
	"{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"streamer\": {\"type\": \"" streamer "\"}," \
	"\"targets\": [{\"name\": \"copy\", \"connector\": \"" connector "\", \"server\": \"v\"}]}"

/* ---- what is said ---- */

static void says(const struct err *e, const char *id, const char *message, const char *hint)
{
	if (strcmp(e->id, id) != 0 || !strstr(e->message, message) || !strstr(e->hint, hint))
		fail_msg("%s: %s (%s)", e->id, e->message, e->hint);
}

/* The same of the job's error. */
static void job_says(const char *id, const char *message, const char *hint)
{
	wait_state("failed");
	json_t *j = engine_job(engine, "job", NULL), *o = json_object_get(j, "error");
	struct err e = { 0 };
	const char *h = json_string_value(json_object_get(o, "suggestion"));
	snprintf(e.id, sizeof e.id, "%s", json_string_value(json_object_get(o, "code")));
	snprintf(e.message, sizeof e.message, "%s", json_string_value(json_object_get(o, "message")));
	snprintf(e.hint, sizeof e.hint, "%s", h ? h : "");
	json_decref(j);
	says(&e, id, message, hint);
}

/* Nothing was lost by it. */
static void goes_on_when_mended(void)
{
	streamer_lies = false;
	verb(ENGINE_START);
	wait_state("running");
	wait_all(server);
}

static void a_streamer_that_breaks_its_word(void **state)
{
	(void)state;
	add_plugins();
	write_script();
	streamer_lies = true;
	create(JOB("rude", "fake"), NULL);
	job_says("streamer.protocol", "the streamer rude acknowledged batch 4711", "bug of that plugin");
	goes_on_when_mended();
}

/* ---- a row that the target refuses, and that is too big to be set aside ---- */

enum { TOO_BIG = 1 << 20 };             /* with what is beside it */
static bool is_blown_up;

void __real_store_dead_letter_put(struct store *s, const char *uid, const struct store_dead_letter *d, store_done *done, void *arg);
void __wrap_store_dead_letter_put(struct store *s, const char *uid, const struct store_dead_letter *d, store_done *done, void *arg);
void __wrap_store_dead_letter_put(struct store *s, const char *uid, const struct store_dead_letter *d, store_done *done, void *arg)
{
	struct store_dead_letter big = *d;
	char *text = is_blown_up ? mem_alloc(TOO_BIG) : NULL;
	if (text) {
		memset(text, 'x', TOO_BIG - 1);
		text[TOO_BIG - 1] = 0;
		big.change_json = text;
	}
	__real_store_dead_letter_put(s, uid, &big, done, arg);
	free(text);
}

static void a_dead_letter_that_is_too_big(void **state)
{
	(void)state;
	add_plugins();
	write_script();
	server->bad_row = 50;
	is_blown_up = true;
	create(JOB("embedded", "fake"), NULL);
	job_says("state.too-big", "target copy refused a row of public.t", "mend the row at the source");
	is_blown_up = false;
	server->bad_row = 0; /* it was mended */
	goes_on_when_mended();
}

/* ---- what may not be done now ---- */

static void drained_in_the_end(void *arg) { *(bool *)arg = true; }
static bool is_true(void *arg) { return *(bool *)arg; }

static struct err positions(const char *text)
{
	struct answer a;
	const struct engine_call call = call_of(&a);
	json_t *body = text ? json_pack("{s:s}", "position", text) : NULL;
	engine_positions_set(engine, "job", body, &call);
	await(&a);
	json_decref(body);
	drop(&a);
	return a.e;
}

static void commands_that_come_too_late(void **state)
{
	struct answer a;
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_state("running");
	struct engine_call call = call_of(&a);
	call.if_generation = 7; /* of another job of that name, or somebody was faster */
	engine_command(engine, "job", ENGINE_STOP, &call);
	await(&a);
	says(&a.e, "precondition.failed", "job job is at generation 1, not 7", "");
	drop(&a);
	bool is_drained = false;
	engine_drain(engine, drained_in_the_end, &is_drained);
	call = call_of(&a);
	engine_command(engine, "job", ENGINE_STOP, &call);
	await(&a);
	says(&a.e, "draining", "the daemon is stopping", "");
	drop(&a);
	assert_true(fake_run(loop, is_true, &is_drained, FAKE_LONG_MS));
}

static void positions_of_a_job_that_runs(void **state)
{
	struct answer first, second;
	struct err e;
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_state("running");
	wait_all(server);
	e = positions(NULL);
	says(&e, "job.not-stopped", "job job is running", "POST /jobs/job/stop");
	verb(ENGINE_STOP);
	wait_state("stopped");
	/* two at once */
	const struct engine_call one = call_of(&first), two = call_of(&second);
	engine_positions_set(engine, "job", NULL, &one);
	engine_positions_set(engine, "job", NULL, &two);
	await(&second);
	says(&second.e, "job.busy", "the positions of job job are being changed: ask again in a moment", "");
	if (!first.is_there)
		await(&first);
	assert_int_equal(first.e.code, 0);
	drop(&first);
	drop(&second);
	e = positions(NULL);
	assert_int_equal(e.code, 0);
	verb(ENGINE_START);
	wait_state("running");
}

static void a_target_that_cannot_be_told_to_forget(void **state)
{
	struct err e;
	(void)state;
	add_plugins();
	write_script();
	create(JOB("embedded", "kept"), NULL);
	wait_all(server);
	verb(ENGINE_STOP);
	wait_state("stopped");
	e = positions(NULL);
	says(&e, "position.kept", "target copy of job job", "make a new job");
	verb(ENGINE_START); /* and nothing was forgotten */
	wait_state("running");
	wait_all(server);
}

/* ---- who does not answer ---- */

static int set_up_impatient(void **state)
{
	more = "http.timeout=1s";
	return set_up(state);
}

static int tear_down_impatient(void **state)
{
	int rc = tear_down(state);
	more = "http.timeout=30s";
	return rc;
}

/* The client hears which side it is, and does not run out of its own time before. */
static void a_side_that_is_silent(void **state)
{
	struct fake_answers mute = { .is_mute = true };
	struct answer a;
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		json_t *spec = json_loads(JOB("embedded", "fake"), 0, NULL);
		fake_answers_set(i ? "v" : "s", &mute);
		const struct engine_call call = call_of(&a);
		engine_create(engine, spec, true, &call);
		await(&a); /* 5 s at most, which is far less than 30 */
		size_t at, nsilent = 0;
		json_t *c;
		json_array_foreach(json_object_get(a.result, "checks"), at, c)
		{
			const char *part = json_string_value(json_object_get(c, "part"));
			if (strcmp(json_string_value(json_object_get(c, "id")), "probe.timeout") != 0)
				continue;
			nsilent++;
			assert_string_equal(part, i ? "copy" : "source");
			assert_true(json_is_true(json_object_get(c, "retriable")));
			assert_non_null(strstr(json_string_value(json_object_get(c, "message")), part));
			assert_non_null(strstr(json_string_value(json_object_get(c, "fix")), "http.timeout"));
		}
		assert_int_equal(nsilent, 1);
		fake_answers_set(i ? "v" : "s", NULL);
		json_decref(spec);
		drop(&a);
	}
	assert_int_equal(mute.live, 0);
}

static int set_up_patient(void **state)
{
	more = "http.timeout=60s";
	return set_up(state);
}

/* Longer than half a minute nobody is waited for, and it is no use to ask for it. */
static void a_side_that_is_silent_for_long(void **state)
{
	struct fake_answers mute = { .is_mute = true };
	struct answer a;
	(void)state;
	json_t *spec = json_loads(JOB("embedded", "fake"), 0, NULL), *c;
	fake_answers_set("v", &mute);
	const struct engine_call call = call_of(&a);
	engine_create(engine, spec, true, &call);
	assert_true(fake_run(loop, is_answered, &a, FAKE_LONG_MS));
	size_t at, nsilent = 0;
	json_array_foreach(json_object_get(a.result, "checks"), at, c)
	{
		if (strcmp(json_string_value(json_object_get(c, "id")), "probe.timeout") != 0)
			continue;
		nsilent++;
		assert_non_null(strstr(json_string_value(json_object_get(c, "message")), "30000 ms"));
		assert_null(strstr(json_string_value(json_object_get(c, "fix")), "http.timeout"));
	}
	assert_int_equal(nsilent, 1);
	fake_answers_set("v", NULL);
	json_decref(spec);
	drop(&a);
}

static bool has_asked_eight(void *arg) { return ((struct fake_answers *)arg)->asked >= 8; }

static bool is_other_gone(void *arg)
{
	json_t *j = engine_job(engine, "other", NULL);
	(void)arg;
	json_decref(j);
	return !j;
}

/* Whoever has asked is answered, also by an engine that ends before the servers do. */
static void the_engine_is_closed_before_they_answer(void **state)
{
	struct fake_answers mute = { .is_mute = true };
	struct answer check, discover, validate, dry, forget, delete;
	struct answer *const all[] = { &check, &discover, &validate, &dry, &forget, &delete };
	const struct engine_call calls[] = { call_of(&check), call_of(&discover), call_of(&validate), call_of(&dry), call_of(&forget), call_of(&delete) };
	(void)state;
	write_script();
	create(one_target, NULL);
	create("{\"name\": \"other\", \"desired_state\": \"stopped\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, "
	       "\"targets\": [{\"connector\": \"fake\", \"server\": \"w\"}]}",
		NULL);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	fake_answers_set("s", &mute);
	json_t *connection = json_pack("{s:s, s:s, s:s}", "connector", "fake", "role", "source", "script", "s"), *spec = json_loads(one_target, 0, NULL);
	engine_check(engine, connection, &calls[0]);
	engine_discover(engine, connection, &calls[1]);
	engine_validate(engine, spec, &calls[2]);
	json_object_set_new(spec, "name", json_string("new"));
	engine_create(engine, spec, true, &calls[3]);
	engine_positions_set(engine, "job", NULL, &calls[4]);
	engine_delete(engine, "other", false, false, &calls[5]);
	assert_true(fake_run(loop, has_asked_eight, &mute, FAKE_LONG_MS));
	json_t *before = engine_job_positions(engine, "job"), *after;
	close_engine();
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (!all[i]->is_there)
			fail_msg("question %zu has no answer", i);
		says(&all[i]->e, "draining", "the daemon is stopping", "");
		assert_null(all[i]->result);
		drop(all[i]);
	}
	assert_int_equal(mute.live, 0);
	fake_answers_set("s", NULL);
	open_engine();
	after = engine_job_positions(engine, "job");
	assert_string_equal(json_string_value(json_object_get(after, "position")), json_string_value(json_object_get(before, "position")));
	assert_true(fake_run(loop, is_other_gone, NULL, FAKE_LONG_MS)); /* its deletion goes on */
	json_decref(before);
	json_decref(after);
	json_decref(connection);
	json_decref(spec);
}

static void no_log(void *arg, const char *line, size_t len) { (void)arg, (void)line, (void)len; }

static int set_up_quiet(void **state)
{
	log_set_sink(no_log, NULL);
	store_tune.record_bytes = TOO_BIG; /* while there is no thread of the store's */
	return set_up(state);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up_quiet, tear_down)
RUN_TESTS(T(a_streamer_that_breaks_its_word), T(a_dead_letter_that_is_too_big), T(commands_that_come_too_late),
	T(positions_of_a_job_that_runs), T(a_target_that_cannot_be_told_to_forget),
	T(the_engine_is_closed_before_they_answer),
	cmocka_unit_test_setup_teardown(a_side_that_is_silent, set_up_impatient, tear_down_impatient),
	cmocka_unit_test_setup_teardown(a_side_that_is_silent_for_long, set_up_patient, tear_down_impatient))
