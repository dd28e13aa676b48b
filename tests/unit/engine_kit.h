/* engine_kit: what the tests of the engine share: an engine with a real store and streamer in a directory of its own, between a scripted source and recording
 * targets; what is asked of it; a script. */
#ifndef DMSR_TESTS_UNIT_ENGINE_KIT_H
#define DMSR_TESTS_UNIT_ENGINE_KIT_H
#include "test.h"

#include "connectors/fake/fake.h"
#include "engine/engine.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIT __attribute__((unused)) static

extern const struct dmsr_plugin dmsr_plugin_embedded, dmsr_plugin_json, dmsr_plugin_null;
/* the table of what is built in knows only what is linked */
extern const struct dmsr_plugin *const linked[3];
const struct dmsr_plugin *const linked[3] = { &dmsr_plugin_embedded, &dmsr_plugin_json, &dmsr_plugin_null };

KIT char dir[64];
KIT struct loop *loop;
KIT struct config *config;
KIT struct engine *engine;
KIT struct fake_script *script;
KIT struct fake_server *server, *other;
KIT struct relation *t1, *t2;
KIT const char *streamer = "jobs.streamer={}"; /* the configuration's */
KIT const char *more = "http.timeout=30s"; /* one more of its options */

/* ---- the house ---- */

KIT void load_config(void)
{
	char state[128];
	snprintf(state, sizeof state, "state_dir=%s/state", dir);
	const char *overrides[] = { state, "jobs_dir=", "plugin_dir=", "jobs.retry_initial=10ms", "jobs.retry_max=40ms", "http.listen=",
		"http.socket=", "drain_timeout=2s", "jobs.look_interval=1s", streamer, more };
	char *none[] = { NULL };
	char file[128];
	struct err e = { 0 };
	snprintf(file, sizeof file, "%s/none.json", dir);
	int fd = open(file, O_CREAT | O_WRONLY | O_TRUNC, 0600);
	assert_int_equal(write(fd, "{}", 2), 2);
	close(fd);
	const struct config_source src = { .file = file, .overrides = overrides, .noverrides = sizeof overrides / sizeof *overrides, .environ = none };
	problems *p = json_array();
	config = config_load(&src, p, &e);
	if (!config)
		fail_msg("%s: %s", e.message, json_dumps(p, 0));
	json_decref(p);
}

KIT void open_engine(void)
{
	struct err e = { 0 };
	load_config();
	if (engine_open(loop, config, &engine, &e))
		fail_msg("%s: %s", e.id, e.message);
	/* the job of an earlier engine asked for it before it was there, and waits for a start */
	if (plugins_add(engine_plugins(engine), &dmsr_plugin_fake, &e))
		fail_msg("%s: %s", e.id, e.message);
}

KIT void close_engine(void)
{
	engine_close(engine);
	config_free(config);
	engine = NULL;
}

KIT int set_up(void **state)
{
	(void)state;
	log_set_level(NULL, LOG_LEVEL_ERROR);
	test_directory(dir, sizeof dir, "engine");
	loop = loop_new();
	script = fake_script_new("s");
	server = fake_server_new("v");
	other = fake_server_new("w");
	server->keeps = other->keeps = true;
	t1 = fake_relation("t1", 1);
	t2 = fake_relation("t2", 2);
	open_engine();
	return 0;
}

KIT int tear_down(void **state)
{
	(void)state;
	close_engine();
	streamer = "jobs.streamer={}";
	fake_settle(loop);
	fake_script_free(script);
	fake_server_free(server);
	fake_server_free(other);
	relation_unref(t1);
	relation_unref(t2);
	loop_free(loop);
	char command[128];
	snprintf(command, sizeof command, "%s", dir);
	pid_t pid = fork();
	if (!pid) {
		execlp("rm", "rm", "-rf", command, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

/* ---- calls ---- */

struct answer {
	bool is_there;
	json_t *result, *errors;
	struct err e;
};

KIT void on_answer(void *arg, const json_t *result, const struct err *e, const json_t *errors)
{
	struct answer *a = arg;
	assert_false(a->is_there);
	a->is_there = true;
	a->result = result ? json_deep_copy(result) : NULL;
	a->errors = errors ? json_deep_copy(errors) : NULL;
	a->e = e ? *e : (struct err){ 0 };
}

KIT bool is_answered(void *arg) { return ((struct answer *)arg)->is_there; }

KIT struct engine_call call_of(struct answer *a)
{
	*a = (struct answer){ 0 };
	return (struct engine_call){ .actor = "test", .if_generation = -1, .done = on_answer, .arg = a };
}

KIT void await(struct answer *a)
{
	assert_false(a->is_there); /* never inside the call */
	assert_true(fake_run(loop, is_answered, a, FAKE_LONG_MS));
}

KIT void drop(struct answer *a)
{
	json_decref(a->result);
	json_decref(a->errors);
}

KIT const char *const one_target = "{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, "
				       "\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}";

KIT void create(const char *text, const char *mode)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	json_t *spec = json_loads(text, 0, NULL);
	assert_non_null(spec);
	if (mode)
		json_object_set_new(spec, "mode", json_string(mode));
	engine_create(engine, spec, false, &call);
	await(&a);
	if (a.e.code)
		fail_msg("%s: %s %s", a.e.id, a.e.message, a.errors ? json_dumps(a.errors, 0) : "");
	json_decref(spec);
	drop(&a);
}

KIT void verb(enum engine_verb v)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	engine_command(engine, "job", v, &call);
	await(&a);
	if (a.e.code)
		fail_msg("%s: %s", a.e.id, a.e.message);
	drop(&a);
}

KIT void patch(const char *text)
{
	struct answer a;
	struct engine_call call = call_of(&a);
	json_t *body = json_loads(text, 0, NULL);
	assert_non_null(body);
	engine_patch(engine, "job", body, &call);
	await(&a);
	if (a.e.code)
		fail_msg("%s: %s", a.e.id, a.e.message);
	json_decref(body);
	drop(&a);
}

KIT char *state_of(void)
{
	static char state[64];
	json_t *j = engine_job(engine, "job", NULL);
	snprintf(state, sizeof state, "%s", j ? json_string_value(json_object_get(j, "state")) : "gone");
	json_decref(j);
	return state;
}

KIT bool is_state(void *arg) { return !strcmp(state_of(), arg); }

KIT void wait_state(const char *state)
{
	if (!fake_run(loop, is_state, (void *)(uintptr_t)state, FAKE_LONG_MS))
		fail_msg("the job is %s, not %s", state_of(), state);
}

/* The text of object.key in the job, until the next call; "" when there is none. */
KIT const char *job_text(const char *object, const char *key)
{
	static char text[64];
	json_t *j = engine_job(engine, "job", NULL);
	const char *s = json_string_value(json_object_get(json_object_get(j, object), key));
	snprintf(text, sizeof text, "%s", s ? s : "");
	json_decref(j);
	return text;
}

KIT const char *error_code(void) { return job_text("error", "code"); }

KIT bool has_all(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.started && st.is_at_end && !fake_server_check(arg, script);
}

KIT void wait_all(struct fake_server *v)
{
	struct fake_script_stat st;
	if (fake_run(loop, has_all, v, FAKE_LONG_MS))
		return;
	fake_script_stat(script, &st);
	fail_msg("%s: %s; of the script %#lx is out, %#lx confirmed, of %#lx", v->name, fake_server_check(v, script), (unsigned long)st.emitted.lsn,
		(unsigned long)st.confirmed.lsn, (unsigned long)st.end_lsn);
}

/* What the source may be told: what the store had when the engine was opened, or has by now. Asked on the loop, so the newest put may still be on its
 * way: then the confirmation would be too early, and the script asserts. */
KIT bool is_stored(void *arg, const struct position *p)
{
	(void)arg;
	json_t *j = engine_job_positions(engine, "job");
	const char *text = json_string_value(json_object_get(j, "position"));
	struct position at = { 0 };
	struct err e = { 0 };
	bool ok = text && !position_parse(text, &at, &e) && position_compare(p, &at) <= 0;
	json_decref(j);
	return ok;
}

KIT void write_script(void)
{
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	fake_script_load(script, t2, 2, 5);
	fake_script_load_done(script);
	for (unsigned i = 0; i < 20; i++) {
		fake_script_txn(script, OP_CREATE, i % 2 ? t1 : t2, 1 + i % 7, 3, 10);
		if (i % 5 == 0)
			fake_script_heartbeat(script);
	}
}

/* Whose source fails three times on its way, and may be tried again. */
KIT void write_failing_script(void)
{
	struct err e = { 0 };
	write_script();
	err_retry(&e, DMSR_EIO, "source.unreachable", "the server went away");
	fake_script_fail(script, &e, 3);
	fake_script_txn(script, OP_CREATE, t1, 5, 2, 10);
}

KIT bool is_confirmed(void *arg)
{
	struct fake_script_stat st;
	(void)arg;
	fake_script_stat(script, &st);
	return st.confirmed.kind && st.confirmed.lsn == st.end_lsn;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#endif
