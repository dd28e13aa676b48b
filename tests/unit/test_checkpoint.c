/* test_checkpoint: in which order a checkpoint goes to the store. Each of its writes may be the last before a crash, so what one relies on stands before it.
 * And what the log is told of a row that is set aside. */
#include "engine_kit.h"

static const char *const two_targets = "{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, "
	"\"targets\": [{\"connector\": \"fake\", \"server\": \"v\", \"name\": \"first\"}, {\"connector\": \"fake\", \"server\": \"w\", \"name\": \"second\"}]}";

/* ---- the store's writes ---- */

static const char *const names[2] = { "first", "second" };
static struct position stands[2];
static unsigned nchecked, nloads[2], nloaded;
static char wrong[256];                 /* the first that was; failing amid the engine's work would leave it half done */

/* Nothing is in the log here: what is delivered has been applied by all targets, and whoever reads the store knows that of each. */
static void look_at_position(const char *key, const char *value)
{
	struct position p = { 0 };
	struct err e = { 0 };
	if (value)
		position_parse(value, &p, &e);
	for (unsigned i = 0; i < 2; i++) {
		if (!strcmp(key, names[i]))
			stands[i] = p;
		if (*key || !value)
			continue;
		if (!wrong[0] && (position_is_none(&stands[i]) || position_compare(&stands[i], &p) < 0))
			snprintf(wrong, sizeof wrong, "%s is stored before where target %s stands", value, names[i]);
		nchecked++;
	}
}

static void look_at_load(const char *kind, const char *key)
{
	for (unsigned i = 0; i < 2; i++) {
		if (!strcmp(kind, "target-load") && !strncmp(key, names[i], strlen(names[i])))
			nloads[i]++;
		if (!strcmp(kind, "load") && !wrong[0] && nloads[i] <= nloaded)
			snprintf(wrong, sizeof wrong, "%s is stored as loaded before target %s has it", key, names[i]);
	}
	nloaded += !strcmp(kind, "load");
}

void __real_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg);
void __wrap_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg);
void __wrap_store_put(struct store *s, const char *uid, const char *kind, const char *key, const char *value, store_done *done, void *arg)
{
	if (!strcmp(kind, "position"))
		look_at_position(key, value);
	else
		look_at_load(kind, key);
	__real_store_put(s, uid, kind, key, value, done, arg);
}

static int set_up_all(void **state)
{
	memset(stands, 0, sizeof stands);
	memset(nloads, 0, sizeof nloads);
	nchecked = nloaded = 0;
	wrong[0] = 0;
	return set_up(state);
}

static void a_position_comes_behind_where_the_targets_stand(void **state)
{
	(void)state;
	write_script();
	create(two_targets, NULL);
	wait_all(server);
	wait_all(other);
	for (unsigned i = 0; i < 5; i++) {
		if (i > 1)
			fake_run(loop, NULL, NULL, 120); /* checkpoints are 100 ms apart: so the next needs no timer, which would save the targets first */
		fake_script_txn(script, OP_CREATE, t1, 3, 2, 10);
		assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	}
	assert_string_equal(wrong, "");
	assert_true(nchecked >= 10);
	assert_int_equal(nloaded, 2);
}

static void so_it_does_where_a_target_keeps_its_own(void **state)
{
	other->keeps = false;
	a_position_comes_behind_where_the_targets_stand(state);
}

/* ---- the log ---- */

static char told[512];

static void on_line(void *arg, const char *line, size_t len)
{
	(void)arg;
	if (memmem(line, len, "set aside", 9))
		snprintf(told, sizeof told, "%.*s", (int)len, line);
}

static void the_log_has_the_id_of_a_refusal_not_its_text(void **state)
{
	(void)state;
	log_set_sink(on_line, NULL);
	log_set_level(NULL, LOG_LEVEL_WARN);
	server->bad_row = 50;
	fake_script_durable(script, is_stored, NULL);
	fake_script_load_done(script);
	for (unsigned i = 0; i < 30; i++)
		fake_script_txn(script, OP_CREATE, t1, 2, 2, 10);
	create(two_targets, NULL);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	log_set_sink(NULL, NULL);
	assert_int_equal(server->dead, 1);
	assert_non_null(strstr(told, "target first: a row of public.t1 is set aside: target.constraint"));
	assert_null(strstr(told, "row 50"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_position_comes_behind_where_the_targets_stand, set_up_all, tear_down),
		cmocka_unit_test_setup_teardown(so_it_does_where_a_target_keeps_its_own, set_up_all, tear_down),
		cmocka_unit_test_setup_teardown(the_log_has_the_id_of_a_refusal_not_its_text, set_up_all, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
