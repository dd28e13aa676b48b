/* test_engine: jobs on the real engine, store and embedded streamer, between a scripted source and recording targets: states and verbs, retries, what is
 * durable before it is confirmed, and an engine that is thrown away at any moment and opened again. */
#include "engine_kit.h"

static void loads_and_follows(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_state("running");
	wait_all(server);
	json_t *next, *tables = engine_job_tables(engine, "job", NULL, 0, &next), *list = json_object_get(tables, "items");
	assert_int_equal(json_array_size(list), 2);
	assert_null(next);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "state")), "loaded");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(json_array_get(list, 0), "load"), "rows")), 30);
	/* the same in pages of one */
	json_t *after = NULL;
	for (size_t i = 0; i < 2; i++) {
		json_t *page = engine_job_tables(engine, "job", after, 1, &next), *items = json_object_get(page, "items");
		assert_int_equal(json_array_size(items), 1);
		assert_true(json_equal(json_array_get(items, 0), json_array_get(list, i)));
		assert_true(i ? !next : json_array_size(next) == 2);
		json_decref(page);
		json_decref(after);
		after = next;
	}
	json_decref(tables);
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	assert_int_equal(st.opened, 1);
}

static void all_is_confirmed_in_the_end(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
}

static void a_full_load_completes(void **state)
{
	(void)state;
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	create(one_target, "full-load");
	wait_state("completed");
	assert_int_equal(fake_server_table(server, "t1")->rows, 30);
	assert_int_equal(server->live, 0);
	/* no verb moves it on, and there is nothing to stop */
	struct answer a;
	struct engine_call call = call_of(&a);
	engine_command(engine, "job", ENGINE_START, &call);
	await(&a);
	assert_string_equal(a.e.id, "job.invalid-transition");
	assert_int_equal(json_array_size(json_object_get(json_array_get(a.errors, 0), "allowed")), 0);
	assert_true(strstr(a.e.hint, "DELETE /jobs/job/positions") && !strstr(a.e.hint, "stop"));
	drop(&a);
	verb(ENGINE_STOP);
	call = call_of(&a);
	engine_positions_set(engine, "job", NULL, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	drop(&a);
	assert_string_equal(state_of(), "stopped");
	verb(ENGINE_START);
	wait_state("completed");
}

static void an_error_that_may_pass_is_retried(void **state)
{
	(void)state;
	write_failing_script();
	create(one_target, NULL);
	wait_state("retrying");
	wait_state("starting"); /* it is tried again, and why is still to be seen */
	assert_string_equal(error_code(), "source.unreachable");
	wait_all(server);
	wait_state("running");
	assert_string_equal(error_code(), "");
	json_t *s = engine_job_status(engine, "job");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(s, "retries"), "total")), 3);
	json_decref(s);
}

static json_int_t ddl_of(const char *name)
{
	json_t *next, *tables = engine_job_tables(engine, "job", NULL, 0, &next), *t;
	json_int_t n = -1;
	size_t i;
	json_array_foreach(json_object_get(tables, "items"), i, t) if (!strcmp(json_string_value(json_object_get(t, "name")), name))
		n = json_integer_value(json_object_get(t, "ddl"));
	json_decref(tables);
	return n;
}

static size_t events_of(const char *kind)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	size_t n = 0, i;
	json_t *ev;
	engine_events(engine, "job", 0, 200, &call);
	await(&a);
	json_array_foreach(json_object_get(a.result, "items"), i, ev)
		n += !strcmp(json_string_value(json_object_get(ev, "kind")), kind);
	drop(&a);
	return n;
}

/* Whoever reads the stream tells the first shape of each run as one that it sees first. */
static void a_schema_change_is_told_though_it_is_the_first_of_a_run(void **state)
{
	struct relation *changed = fake_relation("t1", 3);
	struct err e = { 0 };
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_int_equal(ddl_of("t1"), 0);
	fake_script_schema(script, NULL, t1); /* as it was loaded */
	fake_script_schema(script, NULL, changed);
	verb(ENGINE_RESTART);
	wait_all(server);
	assert_int_equal(ddl_of("t1"), 1);
	assert_int_equal(events_of("ddl"), 1);
	/* known to another daemon, too */
	verb(ENGINE_STOP);
	wait_state("stopped");
	close_engine();
	open_engine();
	fake_script_schema(script, NULL, t1);
	verb(ENGINE_START);
	wait_all(server);
	assert_int_equal(ddl_of("t1"), 2);
	assert_int_equal(ddl_of("t2"), 0);
	/* one that is said again, because what is behind it was lost, is no change */
	server->stalls = true;
	fake_script_schema(script, NULL, t1);
	fake_script_schema(script, NULL, changed);
	err_retry(&e, DMSR_EIO, "source.unreachable", "the server went away");
	fake_script_fail(script, &e, 2);
	while (events_of("ddl") < 3)
		fake_run(loop, NULL, NULL, 20);
	server->stalls = false;
	fake_server_go(server);
	wait_all(server);
	assert_int_equal(ddl_of("t1"), 3);
	assert_int_equal(events_of("ddl"), 3);
	relation_unref(changed);
}

static void an_error_that_stays_fails_the_job(void **state)
{
	struct err e = { 0 };
	(void)state;
	write_script();
	err_set(&e, DMSR_EFATAL, "slot.lost", "the slot is gone");
	fake_script_fail(script, &e, 1);
	create(one_target, NULL);
	wait_state("failed");
	assert_string_equal(error_code(), "slot.lost");
	assert_int_equal(server->live, 0);
	verb(ENGINE_START); /* somebody mended it */
	wait_state("running");
	wait_all(server);
}

static void a_target_that_fails_is_opened_again(void **state)
{
	(void)state;
	write_script();
	server->fail_at = 4;
	err_retry(&server->fail_with, DMSR_EIO, "target.unreachable", "gone");
	create(one_target, NULL);
	wait_state("running");
	wait_all(server);
	assert_true(server->opened >= 2);
}

static void a_target_that_dies_behind_a_commit_doubles_nothing(void **state)
{
	(void)state;
	write_script();
	server->die_at = 5;
	err_retry(&server->fail_with, DMSR_EIO, "target.unreachable", "gone");
	create(one_target, NULL);
	wait_state("running");
	server->die_at = 2;
	wait_all(server);
}

static void pause_holds_and_resume_goes_on(void **state)
{
	struct fake_script_stat st;
	(void)state;
	write_script();
	fake_script_gate(script);
	for (unsigned i = 0; i < 10; i++)
		fake_script_txn(script, OP_UPDATE, t1, 3, 3, 10);
	create(one_target, NULL);
	wait_state("running");
	verb(ENGINE_PAUSE);
	wait_state("paused");
	fake_script_stat(script, &st);
	assert_true(st.is_paused);
	fake_script_open_gate(script);
	fake_run(loop, NULL, NULL, 100);
	fake_script_stat(script, &st);
	assert_false(st.is_at_end);
	verb(ENGINE_RESUME);
	wait_state("running");
	wait_all(server);
	fake_script_stat(script, &st);
	assert_int_equal(st.opened, 1); /* the connection was kept */
}

static void stop_and_start_go_on_where_it_was(void **state)
{
	struct fake_script_stat st;
	(void)state;
	write_script();
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 3, 3, 10);
	create(one_target, NULL);
	wait_state("running");
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_int_equal(server->live, 0);
	fake_script_open_gate(script);
	verb(ENGINE_START);
	wait_state("running");
	wait_all(server);
	fake_script_stat(script, &st);
	assert_int_equal(st.nloaded, 2);
	assert_int_equal(fake_server_table(server, "t1")->loads, 1);
	assert_false(position_is_none(&st.from));
}

static void verbs_that_make_no_sense_are_refused(void **state)
{
	struct answer a;
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_state("running");
	verb(ENGINE_STOP);
	wait_state("stopped");
	struct engine_call call = call_of(&a);
	engine_command(engine, "job", ENGINE_PAUSE, &call);
	await(&a);
	assert_string_equal(a.e.id, "job.invalid-transition");
	assert_non_null(json_object_get(json_array_get(a.errors, 0), "allowed"));
	drop(&a);
	call = call_of(&a);
	engine_command(engine, "nobody", ENGINE_PAUSE, &call);
	await(&a);
	assert_string_equal(a.e.id, "job.not-found");
	drop(&a);
	verb(ENGINE_STOP); /* there already: no error */
}

static void a_deleted_job_drops_what_it_made(void **state)
{
	struct answer a;
	struct fake_answers source = { 0 }, target = { 0 };
	(void)state;
	fake_answers_set("s", &source);
	fake_answers_set("v", &target);
	write_script();
	create(one_target, NULL);
	wait_state("running");
	/* the server is away: it is tried again */
	err_retry(&source.error, DMSR_EIO, "source.unreachable", "away");
	struct engine_call call = call_of(&a);
	engine_delete(engine, "job", false, false, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	assert_true(json_is_true(json_object_get(a.result, "pending")));
	drop(&a);
	source.error.code = 0;
	wait_state("gone");
	assert_true(source.dropped >= 1 && target.dropped >= 1);
	assert_int_equal(source.live + target.live, 0);
	fake_answers_set("s", NULL);
	fake_answers_set("v", NULL);
}

static void remove_job(bool is_pending)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	engine_delete(engine, "job", false, false, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	assert_int_equal(json_is_true(json_object_get(a.result, "pending")), is_pending);
	drop(&a);
}

/* Nothing was made there, by any run of any daemon. */
static void a_target_that_was_never_reached_holds_up_no_deletion(void **state)
{
	struct fake_answers target = { 0 };
	(void)state;
	fake_answers_set("v", &target);
	err_retry(&target.error, DMSR_EIO, "target.unreachable", "away");
	err_retry(&server->fail_with, DMSR_EIO, "target.unreachable", "away");
	server->refuses_start = true;
	write_script();
	create(one_target, NULL);
	wait_state("retrying");
	remove_job(false);
	wait_state("gone");
	server->refuses_start = server->keeps = false;
	create(one_target, NULL);
	wait_all(server);
	close_engine();
	fake_settle(loop);
	open_engine();
	remove_job(true);
	target.error.code = 0;
	wait_state("gone");
	fake_answers_set("v", NULL);
}

static void jobs_come_and_go(void **state)
{
	(void)state;
	fake_script_load(script, t1, 1, 3);
	fake_script_load_done(script);
	for (unsigned i = 0; i < 60; i++) {
		struct answer a;
		create(one_target, "full-load");
		fake_run(loop, NULL, NULL, i % 5);
		struct engine_call call = call_of(&a);
		engine_delete(engine, "job", false, false, &call);
		await(&a);
		assert_int_equal(a.e.code, 0);
		drop(&a);
		wait_state("gone");
		server->applied = (struct position){ 0 };
	}
	assert_int_equal(server->live, 0);
}

static void a_target_that_went_back_is_found_out(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	server->applied = fake_position(server->applied.lsn / 2, POSITION_WHOLE);
	verb(ENGINE_START);
	wait_state("failed");
	assert_string_equal(error_code(), "target.behind");
}

static bool is_inside(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.batches >= 20;
}

/* Its target commits nothing before the end, which a source that is paused never sends. */
static void a_pause_in_a_transaction_does_not_wait_for_its_end(void **state)
{
	struct fake_script_stat st;
	(void)state;
	fake_script_durable(script, is_stored, NULL);
	fake_script_txn(script, OP_CREATE, t1, 3000, 1, 10);
	create(one_target, "cdc");
	assert_true(fake_run(loop, is_inside, NULL, FAKE_LONG_MS));
	verb(ENGINE_PAUSE);
	wait_state("paused");
	fake_script_stat(script, &st);
	assert_false(st.is_at_end);
	assert_int_equal(server->nrows, 0);
	verb(ENGINE_RESUME);
	wait_all(server);
}

static void one_bad_row_is_set_aside(void **state)
{
	struct answer a;
	(void)state;
	write_script();
	server->bad_row = 50;
	create(one_target, NULL);
	wait_state("running");
	fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS);
	struct engine_call call = call_of(&a);
	engine_errors(engine, "job", 0, 10, &call);
	await(&a);
	const json_t *items = json_object_get(a.result, "items");
	assert_int_equal(json_array_size(items), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(items, 0), "target")), "fake");
	drop(&a);
	json_t *status = engine_job_status(engine, "job");
	assert_int_equal(json_integer_value(json_object_get(status, "dead_letters")), 1);
	json_decref(status);
}

/* The engine is thrown away, as by kill -9 but for what the store's thread has under way, and opened again. */
static void thrown_away_at_any_moment(void **state)
{
	(void)state;
	write_script();
	server->commit_every = 3;
	create(one_target, NULL);
	for (unsigned i = 0; i < 25; i++) {
		fake_run(loop, NULL, NULL, i % 7 * 3);
		close_engine();
		fake_settle(loop);
		open_engine();
		verb(ENGINE_START);
	}
	wait_state("running");
	wait_all(server);
}

static json_t *slot_of(void)
{
	json_t *status = engine_job_status(engine, "job"), *slot = json_incref(json_object_get(json_object_get(status, "source"), "slot"));
	json_decref(status);
	return slot;
}

static bool has_slot_status(void *arg)
{
	json_t *slot = slot_of();
	const char *status = json_string_value(json_object_get(slot, "status"));
	bool is_it = status && !strcmp(status, arg);
	json_decref(slot);
	return is_it;
}

static void wait_slot(const char *status) { assert_true(fake_run(loop, has_slot_status, (void *)(uintptr_t)status, FAKE_LONG_MS)); }

static void take_metrics(void *arg, const struct engine_job_metrics *m) { *(struct engine_job_metrics *)arg = *m; }

static void what_is_kept_for_a_stopped_job_is_seen(void **state)
{
	struct fake_answers source = { .kept = { "dmsr_job", "extended", false, 5000, 100, 70 } };
	struct engine_job_metrics m;
	struct answer a;
	(void)state;
	fake_answers_set("s", &source);
	write_script();
	create(one_target, NULL);
	wait_all(server);
	fake_run(loop, NULL, NULL, 1200);
	assert_int_equal(source.looks, 0); /* its run knows better */
	verb(ENGINE_STOP);
	wait_state("stopped");
	wait_slot("extended");
	json_t *slot = slot_of();
	assert_string_equal(json_string_value(json_object_get(slot, "name")), "dmsr_job");
	assert_int_equal(json_integer_value(json_object_get(slot, "retained_bytes")), 5000);
	assert_true(json_is_string(json_object_get(slot, "seen_at")) && json_is_null(json_object_get(slot, "error")));
	json_decref(slot);
	engine_each_job(engine, take_metrics, &m);
	assert_true(m.retained_bytes == 5000 && m.safe_bytes == 100 && m.lag_bytes == 70 && !m.slot_lost && m.lag_seconds < 0);
	/* the server is away: what was seen last stands, and that it is old */
	err_retry(&source.error, DMSR_EIO, "source.unreachable", "away");
	source.looks = 0;
	while (source.looks < 2)
		fake_run(loop, NULL, NULL, 50);
	slot = slot_of();
	assert_int_equal(json_integer_value(json_object_get(slot, "retained_bytes")), 5000);
	assert_string_equal(json_string_value(json_object_get(json_object_get(slot, "error"), "code")), "source.unreachable");
	json_decref(slot);
	source.error.code = 0;
	source.kept = (struct dmsr_kept){ "dmsr_job", "missing", true, -1, -1, -1 };
	wait_slot("missing");
	engine_each_job(engine, take_metrics, &m);
	assert_true(m.slot_lost == 1 && m.retained_bytes < 0);
	struct engine_call call = call_of(&a);
	engine_events(engine, "job", 0, 500, &call);
	await(&a);
	const json_t *items = json_object_get(a.result, "items");
	unsigned told = 0;
	for (size_t i = 0; i < json_array_size(items); i++)
		told += !strcmp(json_string_value(json_object_get(json_array_get(items, i), "kind")), "slot");
	assert_int_equal(told, 1);
	drop(&a);
	fake_answers_set("s", NULL);
}

/* Asked again and again, for a job of which nothing is kept, only until that is known. */
static void of_which_nothing_is_kept_nobody_asks(void **state)
{
	struct fake_answers source = { 0 };
	(void)state;
	fake_answers_set("s", &source);
	write_script();
	create(one_target, NULL);
	wait_state("running");
	verb(ENGINE_STOP);
	wait_state("stopped");
	while (!source.looks)
		fake_run(loop, NULL, NULL, 50);
	fake_run(loop, NULL, NULL, 3500);
	assert_int_equal(source.looks, 1);
	json_t *slot = slot_of();
	assert_true(json_is_null(slot));
	json_decref(slot);
	fake_answers_set("s", NULL);
}

static void drained_in_the_end(void *arg) { *(bool *)arg = true; }
static bool is_true(void *arg) { return *(bool *)arg; }

static void a_drained_engine_has_stored_all(void **state)
{
	struct fake_script_stat st;
	bool done = false;
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	engine_drain(engine, drained_in_the_end, &done);
	assert_true(fake_run(loop, is_true, &done, FAKE_LONG_MS));
	fake_script_stat(script, &st);
	assert_int_equal(st.live, 0);
	assert_int_equal(st.confirmed.lsn, st.end_lsn);
	assert_string_equal(state_of(), "stopped");
	json_t *j = engine_job(engine, "job", NULL);
	assert_string_equal(json_string_value(json_object_get(j, "desired_state")), "running");
	json_decref(j);
}

static void reopen_with(const char *as)
{
	close_engine();
	streamer = as;
	open_engine();
}

static void put(const char *text)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	json_t *spec = json_loads(text, 0, NULL);
	engine_replace(engine, "job", spec, &call);
	await(&a);
	assert_int_equal(a.e.code, 0);
	json_decref(spec);
	drop(&a);
}

/* It is the job's own from then on: what the configuration says later is nothing to it. */
static void a_job_without_a_streamer_gets_the_configured_one(void **state)
{
	static const char one[] = "jobs.streamer={\"type\":\"embedded\",\"memory\":\"1MiB\"}",
			  two[] = "jobs.streamer={\"type\":\"embedded\",\"memory\":\"2MiB\"}";
	int64_t generation = 0;
	(void)state;
	reopen_with(one);
	put(one_target);
	assert_string_equal(job_text("streamer", "memory"), "1MiB");
	reopen_with(two);
	put(one_target);
	json_decref(engine_job(engine, "job", &generation));
	assert_string_equal(job_text("streamer", "memory"), "1MiB");
	assert_int_equal(generation, 1);
	json_t *own = json_loads(one_target, 0, NULL);
	json_object_set_new(own, "name", json_string("second"));
	json_object_set_new(own, "streamer", json_pack("{s:s}", "type", "embedded"));
	char *text = json_dumps(own, 0);
	create(text, NULL);
	json_t *second = engine_job(engine, "second", NULL);
	assert_null(json_object_get(json_object_get(second, "streamer"), "memory"));
	json_decref(second);
	json_decref(own);
	free(text);
}

static void a_job_from_before_stays_with_what_it_had(void **state)
{
	(void)state;
	create(one_target, NULL);
	reopen_with("jobs.streamer={\"type\":\"embedded\",\"memory\":\"1MiB\"}");
	put(one_target);
	assert_string_equal(job_text("streamer", "memory"), "");
}

static void what_plugins_know_to_be_wrong_is_a_wrong_configuration(void **state)
{
	static const struct { const char *as, *place, *why, *near; } wrong[] = {
		{ "jobs.streamer={\"type\":\"embeded\"}", "-o jobs.streamer: ", "/jobs/streamer/type: there is no streamer \"embeded\"", "embedded" },
		{ "jobs.streamer={\"type\":\"embedded\",\"memry\":1}", "-o jobs.streamer: ", "/jobs/streamer/memry", "memory" },
		{ "jobs.streamer={\"type\":\"embedded\",\"memory\":\"much\"}", "-o jobs.streamer: ", "/jobs/streamer/memory", "" },
		{ "log.levels={\"htp\":\"debug\"}", "-o log.levels: ", "/log/levels/htp: there is no room \"htp\": is \"http\" meant?", "http" },
		{ "log.levels={\"job\":\"debug\",\"elsewhere\":\"debug\"}", "-o log.levels: ",
			"/log/levels/elsewhere: there is no room \"elsewhere\"; the rooms are audit, ", "" },
	};
	(void)state;
	close_engine();
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct err e = { 0 };
		streamer = wrong[i].as;
		load_config();
		assert_int_equal(engine_open(loop, config, &engine, &e), DMSR_EINVAL);
		assert_string_equal(e.id, "config.invalid");
		if (!strstr(e.message, wrong[i].why))
			fail_msg("%s: %s", wrong[i].as, e.message);
		problems *p = json_array();
		engine_check_config(NULL, config, p);
		assert_int_equal(json_array_size(p), 1);
		const json_t *one = json_array_get(p, 0);
		const char *detail = json_string_value(json_object_get(one, "detail")), *near = json_string_value(json_object_get(one, "suggestion"));
		if (strncmp(detail, wrong[i].place, strlen(wrong[i].place)) != 0)
			fail_msg("%s: %s", wrong[i].as, detail);
		assert_string_equal(near ? near : "", wrong[i].near);
		json_decref(p);
		config_free(config);
	}
	streamer = "jobs.streamer={}";
	open_engine();
}

/* A PUT of what GET showed is fine, whatever the job has done meanwhile; a patch of the state says where that is asked for. */
static void a_state_is_not_patched(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_state("running");
	static const char *const keys[] = { "state", "desired_state" };
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		struct answer a;
		struct engine_call call = call_of(&a);
		json_t *body = json_pack("{s:s}", keys[i], "stopped");
		engine_patch(engine, "job", body, &call);
		await(&a);
		json_decref(body);
		assert_string_equal(a.e.id, "job.validation");
		assert_int_equal(json_array_size(a.errors), 1);
		const json_t *one = json_array_get(a.errors, 0);
		assert_string_equal(json_string_value(json_object_get(one, "pointer")) + 1, keys[i]);
		assert_string_equal(json_string_value(json_object_get(one, "code")), "immutable");
		assert_non_null(strstr(json_string_value(json_object_get(one, "detail")), "POST /jobs/job/start, pause"));
		drop(&a);
	}
	patch("{\"state\": \"running\", \"desired_state\": \"running\", \"generation\": 7}");
	patch("{\"state\": \"starting\", \"desired_state\": \"running\", \"generation\": 7}");
}

/* ---- a transform: there is none in the house yet, but its place is ---- */

static unsigned opened_transforms;
static bool is_broken;

static int odd_open(const struct settings *s, const struct dmsr_env *env, struct dmsr_instance **out, struct err *e)
{
	(void)s;
	(void)e;
	assert_string_equal(env->job, "job");
	opened_transforms++;
	*out = (struct dmsr_instance *)&opened_transforms;
	return 0;
}

static bool is_even(void *arg, const struct change *ch)
{
	(void)arg;
	return ch->op == OP_CREATE && fake_row_id(ch) % 2 == 0;
}

static int odd_apply(struct dmsr_instance *i, struct batch *b, struct err *e)
{
	assert_ptr_equal(i, &opened_transforms);
	batch_take_out(b, is_even, NULL);
	return is_broken ? err_set(e, DMSR_EINVAL, "odd.broken", "told to") : 0;
}

static void odd_close(struct dmsr_instance *i) { *(unsigned *)i -= 1; }

static void a_transform_has_each_batch(void **state)
{
	static const struct dmsr_transform transform = { DMSR_PHASE_FILTER, odd_open, odd_apply, odd_close };
	static const struct dmsr_option none[] = { { 0 } };
	static struct dmsr_plugin odd = { .abi = DMSR_ABI, .size = sizeof odd, .name = "odd", .summary = "odd rows" };
	struct err e = { 0 };
	(void)state;
	odd.transform_options = none;
	odd.transform = &transform;
	assert_int_equal(plugins_add(engine_plugins(engine), &odd, &e), 0);
	write_script();
	is_broken = true;
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"transforms\": [{\"type\": \"odd\"}], "
	       "\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}", NULL);
	wait_state("failed");
	assert_string_equal(error_code(), "odd.broken");
	assert_int_equal(server->batches + opened_transforms, 0);
	is_broken = false;
	verb(ENGINE_START);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	assert_int_equal(fake_server_table(server, "t1")->rows, 30);
	assert_true(server->nrows > 10);
	for (size_t i = 0; i < server->nrows; i++)
		assert_int_equal(server->rows[i].id % 2, 1);
	assert_int_equal(opened_transforms, 1);
	verb(ENGINE_STOP);
	wait_state("stopped");
	assert_int_equal(opened_transforms, 0);
}

RUN_TESTS(TEST(a_job_without_a_streamer_gets_the_configured_one), TEST(a_job_from_before_stays_with_what_it_had),
	TEST(a_state_is_not_patched), TEST(what_plugins_know_to_be_wrong_is_a_wrong_configuration), TEST(loads_and_follows), TEST(all_is_confirmed_in_the_end),
	TEST(a_full_load_completes), TEST(an_error_that_may_pass_is_retried),
	TEST(a_schema_change_is_told_though_it_is_the_first_of_a_run), TEST(an_error_that_stays_fails_the_job), TEST(a_target_that_fails_is_opened_again),
	TEST(a_target_that_dies_behind_a_commit_doubles_nothing), TEST(pause_holds_and_resume_goes_on),
	TEST(stop_and_start_go_on_where_it_was), TEST(verbs_that_make_no_sense_are_refused), TEST(a_deleted_job_drops_what_it_made),
	TEST(a_target_that_was_never_reached_holds_up_no_deletion), TEST(jobs_come_and_go),
	TEST(a_target_that_went_back_is_found_out), TEST(one_bad_row_is_set_aside),
	TEST(a_pause_in_a_transaction_does_not_wait_for_its_end),
	TEST(what_is_kept_for_a_stopped_job_is_seen), TEST(of_which_nothing_is_kept_nobody_asks), TEST(thrown_away_at_any_moment),
	TEST(a_drained_engine_has_stored_all), TEST(a_transform_has_each_batch))
