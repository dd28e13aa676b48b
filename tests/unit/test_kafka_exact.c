/* test_kafka_exact: exactly_once of streamers/kafka, rules 8 and 9 of kafka.h: what becomes a transaction, what is told when, what is read back, and what
 * errors of the broker come to. The mock of a cluster keeps no transactions apart: what readers see is for tests/it/test_kafka_exact.py. */
#include "kafka_kit.h"

enum { API_FIND_COORDINATOR = 10, API_INIT_PRODUCER_ID = 22, API_ADD_PARTITIONS = 24, API_END_TXN = 26 };

static struct kit *exact_kit(const char *codec)
{
	struct kit *k = kit_new(codec);
	char positions[40];
	snprintf(positions, sizeof positions, "%s.__positions", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, positions, 1, 1), 0);
	settings_put_bool(k->settings, "exactly_once", true);
	return k;
}

static struct exact *exact_of(struct kit *k) { return &((struct kafka *)(void *)k->streamer)->exact; }

static struct dmsr_stand known(struct kit *k)
{
	struct dmsr_stand s;
	kit_ops()->known(k->streamer, &s);
	return s;
}

static bool is_nothing_known(struct kit *k)
{
	const struct dmsr_stand s = known(k);
	return position_is_none(&s.at);
}

static void produce(struct kit *k, int64_t first, int64_t last)
{
	for (int64_t id = first; id <= last; id++)
		assert_int_equal(kit_produce(k, kit_txn(k, id, 1, 10)), DMSR_OK);
}

static void produce_load(struct kit *k, struct relation *rel, enum change_op op)
{
	struct relation *own = k->rel;
	k->rel = rel;
	assert_int_equal(kit_produce(k, kit_load(k, 0x9000, op, 10)), DMSR_OK);
	k->rel = own;
}

static void idle(struct kit *k, unsigned ms)
{
	fake_run(k->loop, NULL, NULL, ms);
	assert_false(k->has_failed);
}

/* 8 */
static void what_is_delivered_is_known_at_the_next_start(void **state)
{
	struct kit *k = exact_kit("json");
	(void)state;
	kit_open(k);
	assert_true(is_nothing_known(k));
	produce(k, 1, 20);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 20);
	kit_run(k, kit_is_drained);
	kit_reopen(k); /* killed: the store has nothing of it */
	assert_false(k->has_failed);
	const struct position at = fake_position(k->lsn, POSITION_WHOLE);
	const struct dmsr_stand s = known(k);
	assert_int_equal(position_compare(&s.at, &at), 0);
	assert_int_equal(known(k).nloaded, 0);
	assert_false(known(k).load_done);
	kit_free(k);
}

static void one_ends_where_the_source_s_is_whole(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	struct batch *half = kit_txn(k, 2, 1, 10), *other = kit_txn_at(k, k->lsn, 3, 1, 10);
	half->more = true;
	half->end = fake_position(k->lsn, 1);
	assert_int_equal(kit_produce(k, half), DMSR_OK);
	idle(k, 500);
	assert_int_equal(k->ndelivered, 1);
	assert_int_equal(kit_produce(k, other), DMSR_OK);
	kit_run(k, kit_all_delivered);
	kit_free(k);
}

static void one_ends_where_no_table_is_half_loaded(void **state)
{
	struct relation *other = fake_relation("other", 2);
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	produce_load(k, k->rel, OP_LOAD_BEGIN);
	produce_load(k, other, OP_LOAD_BEGIN);
	produce_load(k, k->rel, OP_ROWS);
	produce_load(k, k->rel, OP_LOAD_END);
	idle(k, 500);
	assert_int_equal(k->ndelivered, 0);
	produce_load(k, other, OP_ROWS);
	produce_load(k, other, OP_LOAD_END);
	kit_run(k, kit_all_delivered);
	produce_load(k, k->rel, OP_LOAD_DONE);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	const struct dmsr_stand s = known(k);
	assert_int_equal(s.nloaded, 2);
	assert_string_equal(s.loaded[0].name, "t");
	assert_string_equal(s.loaded[1].name, "other");
	assert_int_equal(s.loaded[0].at.lsn, 0x9000);
	assert_true(s.load_done);
	relation_unref(other);
	kit_free(k);
}

/* That all tables are loaded is said of those that were loaded before: not of one that comes later, until it is said again. */
static void a_load_behind_the_last_word_is_not_done(void **state)
{
	struct relation *late = fake_relation("late", 2);
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	produce_load(k, k->rel, OP_LOAD_BEGIN);
	produce_load(k, k->rel, OP_LOAD_END);
	kit_run(k, kit_all_delivered);
	produce_load(k, k->rel, OP_LOAD_DONE);
	kit_run(k, kit_all_delivered);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_true(known(k).load_done); /* a change behind it takes nothing back */
	produce_load(k, late, OP_LOAD_BEGIN);
	produce_load(k, late, OP_LOAD_END);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_int_equal(known(k).nloaded, 2);
	assert_false(known(k).load_done);
	produce_load(k, late, OP_LOAD_DONE);
	kit_run(k, kit_all_delivered);
	produce_load(k, late, OP_LOAD_BEGIN); /* in the same run: what was said once is not said with each transaction */
	produce_load(k, late, OP_LOAD_END);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_false(known(k).load_done);
	relation_unref(late);
	kit_free(k);
}

static void a_load_that_was_cut_off_holds_nothing_up(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	produce_load(k, k->rel, OP_LOAD_BEGIN);
	produce_load(k, k->rel, OP_ROWS);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	assert_int_equal(known(k).nloaded, 0);
	kit_free(k);
}

static void one_that_takes_too_long_is_cut(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	exact_of(k)->cut_us = 300000;
	struct batch *half = kit_txn(k, 1, 1, 10);
	half->more = true;
	half->end = fake_position(k->lsn, 1);
	assert_int_equal(kit_produce(k, half), DMSR_OK);
	idle(k, 150);
	assert_int_equal(k->ndelivered, 0);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_int_equal(known(k).at.event, 1);
	kit_free(k);
}

/* 9 */
static void the_note_moves_with_the_store(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	assert_string_equal(kit_note_get(k, "known"), "0");
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	produce(k, 2, 2);
	kit_run(k, kit_all_delivered);
	idle(k, 200);
	assert_string_equal(kit_note_get(k, "known"), "0");
	kit_ops()->stored(k->streamer, 1);
	idle(k, 200);
	assert_string_equal(kit_note_get(k, "known"), "1");
	kit_ops()->stored(k->streamer, 2);
	idle(k, 200);
	assert_string_equal(kit_note_get(k, "known"), "2");
	kit_reopen(k);
	assert_true(is_nothing_known(k));
	kit_free(k);
}

static void what_is_gone_is_not_guessed(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	kit_note_put(k, "known", "99", NULL, NULL);
	kit_reopen(k);
	kit_fails(k, "kafka.positions-lost");
	assert_false(k->error.retriable);
	kit_free(k);
}

static void write_position(struct kit *k, const char *key, const char *value)
{
	struct kit_writer w = kit_writer(k);
	char positions[40];
	snprintf(positions, sizeof positions, "%s.__positions", k->prefix);
	void *own_key = (void *)(uintptr_t)key, *own_value = (void *)(uintptr_t)value;
	assert_int_equal(rd_kafka_producev(w.rk, RD_KAFKA_V_TOPIC(positions), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
				 RD_KAFKA_V_KEY(own_key, strlen(key)), RD_KAFKA_V_VALUE(own_value, strlen(value)), RD_KAFKA_V_END),
		0);
	assert_int_equal(rd_kafka_flush(w.rk, KIT_WAIT_MS), 0);
	kit_writer_free(&w);
}

static void what_others_wrote(void **state)
{
	static const char *const bad[] = { "", "7", "{}", "{\"position\":\"pg:7:0/300:*:0/301\"}", "{\"position\":\"x\",\"run\":\"1\"}",
		"{\"position\":\"none\",\"run\":\"1\",\"loaded\":[{\"schema\":\"public\"}]}" };
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct kit *k = exact_kit("native");
		kit_open(k);
		kit_close(k);
		write_position(k, "v", bad[i]);
		write_position(k, "uu", bad[i]);
		kit_open(k);
		assert_false(k->has_failed);
		kit_close(k);
		write_position(k, "u", bad[i]);
		kit_open(k);
		assert_string_equal(k->error.id, "kafka.foreign");
		kit_free(k);
	}
}

/* A later run than this process's own has been there. */
static void who_was_replaced_does_not_take_it_back(void **state)
{
	struct kit *k = exact_kit("native");
	char run[200];
	(void)state;
	kit_open(k);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_false(k->has_failed);
	assert_false(is_nothing_known(k));
	snprintf(run, sizeof run, "1%s", strchr(kit_note_get(k, "run"), ' '));
	kit_note_put(k, "run", run, NULL, NULL);
	kit_reopen(k);
	kit_fails(k, "kafka.fenced");
	assert_false(k->error.retriable);
	kit_note_put(k, "run", "1 0", NULL, NULL); /* another process may: that is what a copy is for */
	kit_reopen(k);
	assert_false(k->has_failed);
	kit_free(k);
}

/* ---- errors ---- */

static void errors_that_pass(void **state)
{
	static const rd_kafka_resp_err_t errors[] = { RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
		RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS };
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	for (int64_t i = 0; i < 3; i++) {
		rd_kafka_mock_push_request_errors(kit_mock, API_END_TXN, 1, errors[i]);
		rd_kafka_mock_push_request_errors(kit_mock, API_ADD_PARTITIONS, 1, errors[i]);
		produce(k, i + 1, i + 1);
		kit_run(k, kit_all_delivered);
		assert_false(k->has_failed);
	}
	kit_want_rows(k, 3);
	kit_free(k);
}

static void errors_that_end_the_run(void **state)
{
	static const struct { int16_t api; rd_kafka_resp_err_t code; const char *id; bool has_committed, retriable; } all[] = {
		{ API_END_TXN, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "kafka.fenced", true, false },
		{ API_END_TXN, RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "kafka.fenced", false, true },
		{ API_PRODUCE, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "kafka.fenced", true, false },
		{ API_ADD_PARTITIONS, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "kafka.fenced", true, false },
		{ API_END_TXN, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING, "kafka.transaction", true, true },
		{ API_ADD_PARTITIONS, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "kafka.denied", true, false },
		{ API_PRODUCE, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "kafka.record-too-large", false, false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct kit *k = exact_kit("native");
		kit_open(k);
		if (all[i].has_committed)
			produce(k, 1, 1);
		kit_run(k, kit_all_delivered);
		uint64_t before = k->ndelivered;
		rd_kafka_mock_push_request_errors(kit_mock, all[i].api, 1, all[i].code);
		produce(k, 2, 2);
		kit_run(k, kit_has_failed);
		rd_kafka_mock_clear_request_errors(kit_mock, all[i].api);
		if (strcmp(k->error.id, all[i].id) != 0 || k->error.retriable != all[i].retriable)
			fail_msg("%zu: %s, %d: %s", i, k->error.id, k->error.retriable, k->error.message);
		assert_int_equal(k->ndelivered, before);
		kit_reopen(k);
		assert_false(k->has_failed);
		kit_free(k);
	}
}

/* Its own doing, and no other dmsrd's. */
static void one_that_the_broker_gave_up(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	exact_of(k)->cut_us = 50000;
	struct batch *half = kit_txn(k, 2, 1, 10);
	half->more = true;
	half->end = fake_position(k->lsn, 1);
	rd_kafka_mock_push_request_errors(kit_mock, API_END_TXN, 1, RD_KAFKA_RESP_ERR_PRODUCER_FENCED);
	rd_kafka_mock_broker_set_rtt(kit_mock, 1, 200);
	assert_int_equal(kit_produce(k, half), DMSR_OK);
	kit_run(k, kit_has_failed);
	rd_kafka_mock_broker_set_rtt(kit_mock, 1, 0);
	assert_string_equal(k->error.id, "kafka.transaction-timeout");
	assert_true(k->error.retriable);
	kit_free(k);
}

static void errors_of_the_start(void **state)
{
	static const struct { rd_kafka_resp_err_t code; const char *id; } all[] = {
		{ RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "kafka.denied" },
		{ RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT, "kafka.transaction-timeout" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct kit *k = exact_kit("native");
		rd_kafka_mock_push_request_errors(kit_mock, API_INIT_PRODUCER_ID, 1, all[i].code);
		kit_begin(k);
		kit_fails(k, all[i].id);
		assert_false(k->error.retriable);
		kit_free(k);
	}
}

/* Whatever was under way. */
static void it_may_be_closed_at_any_time(void **state)
{
	struct kit *k = exact_kit("native");
	(void)state;
	for (unsigned ms = 0; ms < 40; ms += ms < 8 ? 1 : 8) {
		kit_begin(k);
		if (ms)
			fake_run(k->loop, NULL, NULL, 4 * ms);
		kit_close(k);
	}
	for (unsigned ms = 0; ms < 20; ms += 2) {
		kit_open(k);
		produce(k, 1, 5);
		fake_run(k->loop, NULL, NULL, ms);
		kit_close(k);
	}
	kit_free(k);
}

RUN_TESTS(cmocka_unit_test(what_is_delivered_is_known_at_the_next_start),
	cmocka_unit_test(one_ends_where_the_source_s_is_whole),
	cmocka_unit_test(one_ends_where_no_table_is_half_loaded),
	cmocka_unit_test(a_load_behind_the_last_word_is_not_done),
	cmocka_unit_test(a_load_that_was_cut_off_holds_nothing_up),
	cmocka_unit_test(one_that_takes_too_long_is_cut),
	cmocka_unit_test(the_note_moves_with_the_store),
	cmocka_unit_test(what_is_gone_is_not_guessed),
	cmocka_unit_test(what_others_wrote),
	cmocka_unit_test(who_was_replaced_does_not_take_it_back),
	cmocka_unit_test(errors_that_pass),
	cmocka_unit_test(errors_that_end_the_run),
	cmocka_unit_test(one_that_the_broker_gave_up),
	cmocka_unit_test(errors_of_the_start),
	cmocka_unit_test(it_may_be_closed_at_any_time))
