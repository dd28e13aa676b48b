/* test_pipeline_targets: what the targets of a job have when a run begins, each for itself, and what is loaded again for it; who comes late, or was away; what
 * they have when a load is over. */
#include "engine_kit.h"

static const char one[] = "{\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}";
static const char two[] = "{\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}, "
			  "{\"name\": \"second\", \"connector\": \"fake\", \"server\": \"w\"}]}";

static void create_two(void)
{
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"targets\": [{\"connector\": \"fake\", \"server\": \"v\"},"
	       "{\"name\": \"second\", \"connector\": \"fake\", \"server\": \"w\"}]}",
		NULL);
}

static void two_targets_each_have_all(void **state)
{
	(void)state;
	write_script();
	other->stalls = true;
	create_two();
	fake_run(loop, NULL, NULL, 300);
	other->stalls = false;
	fake_server_go(other);
	wait_state("running");
	wait_all(server);
	wait_all(other);
}

static bool has_started_since(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.started > *(unsigned *)arg;
}

/* Stopped before, and what: the body of a PATCH, or NULL. Out: what the source was told. */
static struct fake_script_stat start_again(const char *what)
{
	struct fake_script_stat st;
	verb(ENGINE_STOP);
	wait_state("stopped");
	if (what)
		patch(what);
	fake_script_stat(script, &st);
	unsigned before = st.started;
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_started_since, &before, FAKE_LONG_MS));
	fake_script_stat(script, &st);
	return st;
}

/* The source hears of parts that all targets have; as old as the oldest that any of them has, since none takes one again that it has. */
static void parts_that_all_targets_have(void **state)
{
	static const uint32_t here[] = { 1, 2, 3 }, there[] = { 4, 3, 2 }, alone[] = { 1 };
	const struct dmsr_begun first[] = { { "public", "gone", { 0 }, NULL, 0 }, { "public", "alone", fake_position(8, 0), alone, 1 },
		{ "public", "x", fake_position(9, 0), here, 3 } };
	const struct dmsr_begun second[] = { { "public", "x", fake_position(7, 0), there, 3 } };
	(void)state;
	write_script();
	create_two();
	wait_state("running");
	server->begun = first;
	server->nbegun = 3;
	other->begun = second;
	other->nbegun = 1;
	struct fake_script_stat st = start_again(NULL);
	assert_int_equal(st.nbegun, 2); /* and of the one that was lost */
	assert_int_equal(st.begun_at.lsn, 7);
	assert_int_equal(st.begun_parts, 2);
	server->nbegun = other->nbegun = 0;
}

/* A target that was no part of a run has missed what went by, in a part of a table as in a whole one. Nor does it count when a crash comes before the load. */
static void what_a_target_has_that_was_away_does_not_count(void **state)
{
	static const uint32_t parts[] = { 1, 2, 3 };
	const struct dmsr_begun first[] = { { "public", "x", fake_position(9, 0), parts, 3 } }, second[] = { { "public", "x", fake_position(7, 0), parts, 3 } };
	struct fake_script_stat st;
	(void)state;
	write_script();
	create_two();
	wait_state("running");
	server->begun = first;
	other->begun = second;
	server->nbegun = other->nbegun = 1;
	st = start_again(one);
	assert_int_equal(st.nbegun, 1);
	assert_int_equal(st.nloaded, 2);
	other->stalls = true;
	st = start_again(two);
	assert_int_equal(st.nbegun, 0);
	assert_int_equal(st.nloaded, 0);
	close_engine();
	fake_settle(loop);
	open_engine();
	fake_script_stat(script, &st);
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_started_since, &(unsigned){ st.started }, FAKE_LONG_MS));
	fake_script_stat(script, &st);
	assert_int_equal(st.nbegun, 0);
	assert_int_equal(st.nloaded, 0);
	server->nbegun = other->nbegun = 0;
	other->stalls = false;
	fake_server_go(other);
	wait_all(other);
}

/* What a target has lost is not loaded, though it and everybody remembers so. */
static void a_load_that_a_target_lost_is_made_again(void **state)
{
	static const struct dmsr_begun lost = { .schema = "public", .name = "t1" };
	struct fake_script_stat st;
	(void)state;
	write_script();
	create_two();
	wait_state("running");
	other->begun = &lost;
	other->nbegun = 1;
	st = start_again(NULL);
	assert_int_equal(st.nloaded, 1);
	assert_int_equal(st.nbegun, 1);
	assert_int_equal(st.begun_parts, 0);
	other->nbegun = 0;
}

static bool has_both_tables(void *arg)
{
	const struct fake_table *a = fake_server_table(arg, "t1"), *b = fake_server_table(arg, "t2");
	return a && a->is_loaded && b && b->is_loaded;
}

/* What the others have is of no use to it. */
static void what_a_new_target_has_not_is_loaded_again(void **state)
{
	(void)state;
	write_script();
	create(one_target, NULL);
	wait_all(server);
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	assert_int_equal(start_again(NULL).nloaded, 2);
	assert_int_equal(start_again(two).nloaded, 0);
	assert_true(fake_run(loop, has_both_tables, other, FAKE_LONG_MS));
}

/* ---- who comes late ---- */

static bool is_in_log(void *arg)
{
	struct fake_script_stat st;
	fake_script_stat(script, &st);
	return st.confirmed.kind && st.confirmed.lsn > *(uint64_t *)arg;
}

/* All that it had was committed by all. */
static bool is_log_empty(void *arg)
{
	(void)arg;
	json_t *s = engine_job_status(engine, "job");
	bool is = !json_integer_value(json_object_get(json_object_get(s, "streamer"), "log_bytes"));
	json_decref(s);
	return is;
}

/* It would be given those changes, and not the rows before them. When the others have taken them it may come. */
static void a_new_target_is_refused_while_the_log_holds_what_others_lack(void **state)
{
	struct fake_script_stat st;
	(void)state;
	close_engine();
	streamer = "jobs.streamer={\"type\": \"embedded\", \"memory\": \"64KiB\"}";
	open_engine();
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	fake_script_load(script, t2, 3, 10);
	fake_script_load_done(script);
	fake_script_gate(script);
	fake_script_stat(script, &st);
	for (unsigned i = 0; i < 200; i++)
		fake_script_txn(script, OP_CREATE, t1, 1 + i % 7, 3, 400);
	create(one_target, NULL);
	wait_state("running");
	server->stalls = true;
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_in_log, &st.end_lsn, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	patch(two);
	verb(ENGINE_START);
	wait_state("failed");
	assert_string_equal(error_code(), "target.behind");
	assert_int_equal(other->ntables + other->nrows, 0);
	patch(one);
	server->stalls = false;
	verb(ENGINE_START);
	wait_state("running"); /* before that nobody knows of the log */
	wait_all(server);
	assert_true(fake_run(loop, is_log_empty, NULL, FAKE_LONG_MS));
	assert_int_equal(start_again(two).nloaded, 0);
	assert_true(fake_run(loop, has_both_tables, other, FAKE_LONG_MS));
}

/* Of a job without a load nobody could give it what is past. */
static void a_late_target_of_a_job_that_only_follows_is_refused(void **state)
{
	(void)state;
	write_script();
	create(one_target, "cdc");
	assert_true(fake_run(loop, is_confirmed, NULL, FAKE_LONG_MS));
	verb(ENGINE_STOP);
	wait_state("stopped");
	patch(two);
	verb(ENGINE_START);
	wait_state("failed");
	assert_string_equal(error_code(), "target.behind");
	assert_int_equal(other->nrows, 0);
}

/* ---- a load alone, over a log that ends inside of a transaction ---- */

static bool is_stored_inside(void *arg)
{
	(void)arg;
	json_t *j = engine_job_positions(engine, "job");
	const char *text = json_string_value(json_object_get(j, "position"));
	struct position at = { 0 };
	bool is = text && !position_parse(text, &at, NULL) && position_is_inside(&at);
	json_decref(j);
	return is;
}

/* It has whole transactions, the last of them in one batch with the first half of the next. Killed, and to be started in mode full-load. */
static void leave_half_in_log(void)
{
	close_engine();
	streamer = "jobs.streamer={\"type\": \"embedded\", \"memory\": \"64KiB\", \"disk\": \"256KiB\"}";
	open_engine();
	fake_script_durable(script, is_stored, NULL);
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	fake_script_gate(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 2, 10);
	fake_script_join(script);
	fake_script_txn(script, OP_CREATE, t1, 3, 3, 10);
	fake_script_join(script);
	fake_script_txn(script, OP_CREATE, t1, 1000, 3, 2000);
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\", \"beside\": true}, "
	       "\"targets\": [{\"connector\": \"fake\", \"server\": \"v\"}]}",
		NULL);
	wait_state("running");
	server->stalls = true;
	fake_script_open_gate(script);
	assert_true(fake_run(loop, is_stored_inside, NULL, FAKE_LONG_MS));
	assert_int_equal(server->nrows, 0);
	close_engine();
	fake_settle(loop);
	server->stalls = false;
	open_engine();
	patch("{\"mode\": \"full-load\"}");
}

static void what_is_whole_before_a_half_is_applied(void **state)
{
	(void)state;
	leave_half_in_log();
	verb(ENGINE_START);
	wait_state("completed");
	assert_int_equal(server->nrows, 5 + 3);
}

static bool has_whole(void *arg) { return ((const struct fake_server *)arg)->nrows == 5 + 3; }

/* The half is taken when there is room for it. */
static void what_is_whole_before_a_half_is_applied_by_one_that_takes_little(void **state)
{
	(void)state;
	leave_half_in_log();
	server->queue = 1;
	verb(ENGINE_START);
	assert_true(fake_run(loop, has_whole, server, FAKE_LONG_MS));
	wait_state("completed");
	assert_int_equal(server->nrows, 5 + 3);
}

/* ---- a word that is said again amid a transaction ---- */

static enum dmsr_verdict (*deliver)(void *ctx, const struct batch *b, uint64_t token);
static struct batch *word;              /* NULL: not said yet */
static struct dmsr_streamer says_again;
static struct dmsr_target sees_all;
static struct dmsr_plugin again, seeing;
static uint64_t open_lsn;               /* of the transaction that the target was given the begin of; 0: none */
static unsigned nwhole, ntorn;          /* transactions that it was given, and changes that did not fit */

/* As the source does it in the run behind a crash: the word goes behind the transaction that it stood behind before, of which all is known but the word. */
static enum dmsr_verdict deliver_and_say(void *ctx, const struct batch *b, uint64_t token)
{
	enum dmsr_verdict v = deliver(ctx, b, token);
	if (v != DMSR_OK || word || !b->more)
		return v;
	const struct txn before = { .lsn = b->end.lsn - FAKE_LSN_STEP };
	word = batch_new();
	batch_txn(word, &before);
	batch_append(word, OP_LOAD_DONE, NULL);
	word->end = fake_position(before.lsn, POSITION_WHOLE);
	batch_cut(word, &b->end);
	assert_int_equal(deliver(ctx, word, token), DMSR_OK);
	return v;
}

static struct dmsr_subscription *subscribe(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c)
{
	struct dmsr_consumer own = *c;
	deliver = c->deliver;
	own.deliver = deliver_and_say;
	return dmsr_plugin_embedded.streamer->subscribe(i, target, stand, &own);
}

static enum dmsr_verdict apply_and_see(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	enum dmsr_verdict v = dmsr_plugin_fake.target->apply(i, b, token);
	for (const struct change *ch = v == DMSR_OK && !b->is_load ? b->first : NULL; ch; ch = ch->next) {
		bool is_end = ch->op == OP_COMMIT;
		ntorn += ch->op == OP_BEGIN ? open_lsn != 0 : (is_end || change_is_row(ch)) && ch->txn->lsn != open_lsn;
		nwhole += is_end;
		open_lsn = ch->op == OP_BEGIN ? ch->txn->lsn : is_end ? 0 : open_lsn;
	}
	return v;
}

static void add_plugins(void)
{
	struct err e = { 0 };
	says_again = *dmsr_plugin_embedded.streamer;
	says_again.subscribe = subscribe;
	again = dmsr_plugin_embedded;
	again.name = "again";
	again.streamer = &says_again;
	sees_all = *dmsr_plugin_fake.target;
	sees_all.apply = apply_and_see;
	seeing = dmsr_plugin_fake;
	seeing.name = "seeing";
	seeing.target = &sees_all;
	assert_int_equal(plugins_add(engine_plugins(engine), &again, &e), 0);
	assert_int_equal(plugins_add(engine_plugins(engine), &seeing, &e), 0);
}

/* The target would commit what it has of the transaction, standing before it: killed then, it would be given all of it again. */
static void a_word_amid_a_transaction_does_not_end_it(void **state)
{
	(void)state;
	add_plugins();
	fake_script_load(script, t1, 3, 10);
	fake_script_load_done(script);
	fake_script_txn(script, OP_CREATE, t1, 5, 5, 10);
	fake_script_txn(script, OP_CREATE, t1, 6, 2, 10);
	create("{\"name\": \"job\", \"source\": {\"connector\": \"fake\", \"script\": \"s\"}, \"streamer\": {\"type\": \"again\"}, "
	       "\"targets\": [{\"connector\": \"seeing\", \"server\": \"v\"}]}",
		NULL);
	wait_state("running");
	wait_all(server);
	assert_non_null(word);
	assert_int_equal(ntorn, 0);
	assert_int_equal(nwhole, 2);
	close_engine();
	batch_free(word);
	open_engine();
}

RUN_TESTS(TEST(two_targets_each_have_all), TEST(parts_that_all_targets_have), TEST(what_a_target_has_that_was_away_does_not_count),
	TEST(a_load_that_a_target_lost_is_made_again), TEST(what_a_new_target_has_not_is_loaded_again),
	TEST(a_new_target_is_refused_while_the_log_holds_what_others_lack), TEST(a_late_target_of_a_job_that_only_follows_is_refused),
	TEST(what_is_whole_before_a_half_is_applied), TEST(what_is_whole_before_a_half_is_applied_by_one_that_takes_little),
	TEST(a_word_amid_a_transaction_does_not_end_it))
