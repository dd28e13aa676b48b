/* test_kafka: the rules of streamers/kafka/kafka.h, as far as a real broker cannot be made to show them. tests/it/test_kafka.py has the others. */
#include "kafka_kit.h"
#include "base/sanitizer.h"
#include <malloc.h>
#include <unistd.h>

static void ids_are(const struct kit *k, int64_t first, int64_t last)
{
	assert_false(k->has_failed);
	assert_int_equal(k->nids, last - first + 1);
	for (size_t i = 0; i < k->nids; i++)
		assert_int_equal(k->ids[i], first + (int64_t)i);
}

static void produce(struct kit *k, int64_t first, int64_t last, size_t pad)
{
	for (int64_t id = first; id <= last; id++)
		assert_int_equal(kit_produce(k, kit_txn(k, id, 1, pad)), DMSR_OK);
}

/* What the target has is durable there, and the notes say so. */
static void commit_all(struct kit *k)
{
	kit_ops()->commit(k->sub, k->last);
	k->stand.at = fake_position(k->lsn, POSITION_WHOLE);
	fake_run(k->loop, NULL, NULL, 150);
}

/* 1 */
static void batches_come_back_whole(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	produce(k, 4, 4, 50000); /* in 50 parts */
	produce(k, 5, 5, 10);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 5);
	ids_are(k, 1, 5);
	kit_run(k, kit_is_drained);
	kit_free(k);
}

/* 2 */
static bool is_full(struct kit *k)
{
	struct batch *b = kit_txn(k, (int64_t)k->produced + 1, 1, 10000);
	bool is = kit_produce(k, b) == DMSR_AGAIN;
	if (is) {
		batch_free(b);
		k->lsn -= FAKE_LSN_STEP;
	}
	return is || k->produced >= 1000;
}

static bool has_resumed(struct kit *k) { return k->resumed; }

static void nothing_is_delivered_without_the_broker(void **state)
{
	struct kit *k = kit_new("native");
	struct dmsr_streamer_stat s;
	(void)state;
	kit_open(k);
	produce(k, 1, 1, 10);
	kit_run(k, kit_all_delivered);
	rd_kafka_mock_broker_set_down(kit_mock, 1);
	kit_run(k, is_full);
	assert_in_range(k->produced, 20, 300);
	fake_run(k->loop, NULL, NULL, 500);
	assert_int_equal(k->ndelivered, 1);
	assert_int_equal(k->resumed, 0);
	kit_ops()->stat(k->streamer, &s);
	assert_in_range(s.memory_bytes, 1 << 20, 3 << 19);
	rd_kafka_mock_broker_set_up(kit_mock, 1);
	kit_run(k, has_resumed);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, k->produced);
	ids_are(k, 1, (int64_t)k->produced);
	kit_free(k);
}

/* Of a row a batch takes many times the bytes that it has. */
static void what_waits_is_counted_as_what_it_takes(void **state)
{
#ifndef DMSR_ASAN
	enum { MEMORY = 8 << 20 };
	struct kit *k = kit_new("native");
	struct dmsr_streamer_stat s;
	struct batch *b;
	settings_put_int(k->settings, "memory", MEMORY); /* so much that some wait as batches, not as records */
	kit_open(k);
	produce(k, 1, 1, 10);
	kit_run(k, kit_all_delivered);
	rd_kafka_mock_broker_set_down(kit_mock, 1);
	const size_t before = mallinfo2().uordblks;
	for (unsigned n = 0; (b = kit_txn(k, 1, 1, 10)), kit_produce(k, b) == DMSR_OK; n++)
		if (n % 16 == 0)
			fake_settle(k->loop);
	batch_free(b);
	const size_t took = mallinfo2().uordblks - before;
	kit_ops()->stat(k->streamer, &s);
	assert_in_range(s.memory_bytes, MEMORY, MEMORY / 4 * 5);
	assert_in_range(took, MEMORY / 2, s.memory_bytes / 4 * 5);
	kit_close(k);
	rd_kafka_mock_broker_set_up(kit_mock, 1);
	kit_free(k);
#endif
	(void)state;
}

/* One at a time, since the mock does not look at sequence numbers as a broker does. */
enum { PAD = 30000, MANY = 200 };

/* A target that holds all it gets, of six times what the memory is. */
static struct kit *held_all(const char *codec, bool can_let_go)
{
	struct kit *k = kit_new(codec);
	settings_put_int(k->settings, "record_bytes", 2 * PAD);
	k->can_let_go = can_let_go;
	kit_open(k);
	for (int64_t id = 1; id <= MANY; id += 10) {
		produce(k, id, id + 9, PAD);
		kit_run(k, kit_all_delivered);
	}
	return k;
}

static bool is_asked(struct kit *k) { return k->let_go || k->has_failed; }

static void what_is_lent_has_a_limit(const char *codec)
{
	struct kit *k = held_all(codec, true);
	struct dmsr_streamer_stat s;
	kit_run(k, is_asked);
	fake_run(k->loop, NULL, NULL, 300);
	assert_int_equal(k->let_go, 1);
	assert_in_range(k->nids, 20, 70);
	kit_ops()->stat(k->streamer, &s);
	assert_in_range(s.memory_bytes, 1 << 20, 7 << 18); /* a batch and one that is read already come on top */
	/* what is given back makes room, as far as half of it; and what is asked once more is asked anew */
	kit_ops()->consumed(k->sub, 1);
	fake_run(k->loop, NULL, NULL, 100);
	assert_int_equal(k->let_go, 2);
	size_t n = k->nids;
	for (uint64_t last = 0; k->nids < MANY; n = k->nids) {
		last = k->last;
		kit_ops()->consumed(k->sub, last);
		kit_want_rows(k, n + 1);
		assert_false(k->has_failed);
	}
	ids_are(k, 1, MANY);
	commit_all(k);
	kit_run(k, kit_is_drained);
	kit_free(k);
}

static void a_target_that_holds_much_is_asked_to_let_go(void **state)
{
	(void)state;
	what_is_lent_has_a_limit("native");
	what_is_lent_has_a_limit("json");
}

static void one_that_cannot_be_asked_gets_more(void **state)
{
	(void)state;
	struct kit *k = held_all("native", false);
	kit_want_rows(k, MANY);
	ids_are(k, 1, MANY);
	kit_free(k);
}

static void an_error_that_passes_is_nobodys_business(void **state)
{
	static const rd_kafka_resp_err_t errors[] = { RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
		RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT };
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 1, 10);
	kit_run(k, kit_all_delivered);
	for (int64_t i = 0; i < 3; i++) {
		rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, errors[i]);
		produce(k, i + 2, i + 2, 10);
		kit_run(k, kit_all_delivered);
	}
	kit_want_rows(k, 4);
	ids_are(k, 1, 4);
	kit_free(k);
}

/* The broker has it from an earlier attempt of ours: its report has no offset. */
static void what_the_broker_has_already_is_delivered(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 1, 10);
	kit_run(k, kit_all_delivered);
	rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER);
	produce(k, 2, 2, 10);
	kit_run(k, kit_all_delivered);
	assert_false(k->has_failed);
	assert_int_equal(k->ndelivered, 2);
	assert_string_equal(kit_note_get(k, "end"), "2");
	kit_free(k);
}

/* And of a request with many records librdkafka counts from none on: -1, 0, 1. */
static void many_that_the_broker_has_already(void **state)
{
	static const char *const layouts[] = { "table", "ordered" };
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct kit *k = kit_new("json");
		char topic[80];
		snprintf(topic, sizeof topic, "%s.%s.%s", k->prefix, k->rel->schema, k->rel->name);
		assert_int_equal(rd_kafka_mock_topic_create(kit_mock, topic, 1, 1), 0);
		k->has_target = false;
		settings_put_str(k->settings, "layout", layouts[i]);
		settings_put_int(k->settings, "linger", 100);
		kit_open(k);
		produce(k, 1, 5, 10);
		kit_run(k, kit_all_delivered);
		rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER);
		assert_int_equal(kit_produce(k, kit_txn(k, 6, 5, 10)), DMSR_OK);
		kit_run(k, kit_all_delivered);
		assert_string_equal(k->error.id, "");
		assert_false(k->has_failed);
		kit_free(k);
	}
}

static void errors_that_stay(void **state)
{
	static const struct { rd_kafka_resp_err_t code; const char *id; bool retriable; } all[] = {
		{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "kafka.denied", false },
		{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "kafka.record-too-large", false },
		{ RD_KAFKA_RESP_ERR_INVALID_MSG, "kafka.broker", true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct kit *k = kit_new("native");
		kit_open(k);
		rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, all[i].code);
		produce(k, 1, 1, 10);
		kit_run(k, kit_has_failed);
		assert_int_equal(k->ndelivered, 0);
		if (all[i].retriable == k->error.retriable && !all[i].retriable) {
			assert_string_equal(k->error.id, all[i].id);
			assert_non_null(strstr(k->error.message, k->prefix));
		}
		assert_int_equal(k->error.retriable, all[i].retriable);
		kit_free(k);
	}
}

/* What a reader is told of bytes whose checksum is wrong. */
static void a_log_that_is_damaged(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	/* more than one: what a reader that has just caught up is told is nobody's business */
	rd_kafka_mock_push_request_errors(kit_mock, API_FETCH, 4, RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR__BAD_MSG,
		RD_KAFKA_RESP_ERR__BAD_MSG);
	produce(k, 1, 1, 10);
	kit_fails(k, "kafka.damaged");
	rd_kafka_mock_clear_request_errors(kit_mock, API_FETCH);
	assert_non_null(strstr(k->error.message, k->prefix)); /* of one of its topics, whichever was read */
	assert_non_null(strstr(k->error.hint, "its log is damaged"));
	assert_false(k->error.retriable);
	kit_free(k);
}

/* A rule of the brokers is a Java class of their owner's: none of ours. */
static void a_topic_that_a_policy_refuses(void **state)
{
	struct err e = { 0 };
	(void)state;
	kafka_error(&e, RD_KAFKA_RESP_ERR_POLICY_VIOLATION, "shop.public.t", "no topic may have one replica");
	assert_string_equal(e.id, "kafka.policy");
	assert_non_null(strstr(e.message, "shop.public.t: no topic may have one replica"));
	assert_non_null(strstr(e.hint, "create_topics"));
	assert_false(e.retriable);
}

static void a_fatal_error_ends_the_run_and_no_more(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	rd_kafka_test_fatal_error(client_handle(((struct kafka *)(void *)k->streamer)->producer), RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "as told");
	kit_fails(k, "kafka.producer-fatal");
	assert_true(k->error.retriable);
	kit_reopen(k);
	produce(k, 1, 1, 10);
	kit_want_rows(k, 1);
	ids_are(k, 1, 1);
	kit_free(k);
}

/* The producer connects as soon as there is one; the pipeline begins with it when all targets are ready. */
static void a_refusal_before_it_is_started(void **state)
{
	struct kit *k = kit_new("json");
	struct err e = { 0 };
	(void)state;
	err_set(&e, DMSR_EAUTH, "kafka.sasl", "the brokers do not know us");
	k->refusal = &e;
	kit_begin(k);
	kit_fails(k, "kafka.sasl");
	kit_free(k);
}

/* Its rights are no matter of another attempt. */
static void a_fatal_error_that_stays(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	rd_kafka_test_fatal_error(client_handle(((struct kafka *)(void *)k->streamer)->producer), RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "as told");
	kit_fails(k, "kafka.denied");
	assert_false(k->error.retriable);
	kit_free(k);
}

/* 3 */
static void what_is_known_is_taken_out(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_run(k, kit_all_delivered);
	k->lsn -= 2 * FAKE_LSN_STEP;
	produce(k, 2, 5, 10); /* 2 and 3 again */
	kit_want_rows(k, 5);
	ids_are(k, 1, 5);
	kit_free(k);
}

static void runs_do_not_mix(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	struct batch *a = kit_txn(k, 1, 3, 100), *late = kit_txn_at(k, k->lsn + 8 * FAKE_LSN_STEP, 100, 1, 10);
	struct kit_writer w = kit_writer(k);
	kit_write(&w, 5, a, 1, 3);
	kit_write(&w, 6, a, 1, 2);
	kit_write(&w, 5, a, 2, 3); /* would be taken for the second of two */
	kit_write(&w, 5, a, 3, 3);
	kit_write(&w, 5, late, 1, 1);
	kit_write(&w, 6, a, 2, 2);
	kit_want_rows(k, 3);
	ids_are(k, 1, 3);
	commit_all(k);
	kit_reopen(k);
	produce(k, 4, 4, 10);
	kit_want_rows(k, 1);
	ids_are(k, 4, 4);
	kit_writer_free(&w);
	batch_free(a);
	batch_free(late);
	kit_free(k);
}

/* A late record between the parts of a newer run: a run that goes on behind it would have missed the first of them. */
static void no_note_stands_between_parts(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	struct batch *first = kit_txn(k, 1, 1, 10);
	struct kit_writer w = kit_writer(k);
	kit_write(&w, 5, first, 1, 1);
	kit_want_rows(k, 1);
	commit_all(k);
	struct batch *second = kit_txn(k, 2, 3, 100);
	kit_write(&w, 6, second, 1, 2);
	kit_write(&w, 5, first, 1, 1);
	fake_run(k->loop, NULL, NULL, 500);
	kit_close(k);
	kit_write(&w, 6, second, 2, 2);
	kit_open(k);
	kit_want_rows(k, 3);
	ids_are(k, 2, 4);
	kit_writer_free(&w);
	batch_free(first);
	batch_free(second);
	kit_free(k);
}

static void known_from_its_middle(const char *codec)
{
	static const enum change_op ops[] = { OP_LOAD_BEGIN, OP_ROWS, OP_ROWS, OP_LOAD_END };
	const struct dmsr_loaded loaded = { "public", "t", { .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = 0x9000 } };
	struct kit *k = kit_new(codec);
	kit_open(k);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(kit_produce(k, kit_load(k, 0x9000, ops[i], 10)), DMSR_OK);
	k->lsn = 0xa000;
	produce(k, 1, 1, 10);
	kit_want_rows(k, 21);
	kit_ops()->commit(k->sub, 2); /* the first rows: then it was killed */
	fake_run(k->loop, NULL, NULL, 150);
	k->stand = (struct dmsr_stand){ .loaded = &loaded, .nloaded = 1 };
	kit_reopen(k);
	kit_want_rows(k, 1);
	ids_are(k, 1, 1);
	assert_int_equal(k->rows_loaded, 0);
	kit_free(k);
}

static void a_known_load_is_known_from_its_middle(void **state)
{
	(void)state;
	known_from_its_middle("native");
	known_from_its_middle("json");
}

static void a_later_load_of_the_table_is_news(void **state)
{
	const struct dmsr_loaded loaded = { "public", "t", { .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = 0x9000 } };
	struct kit *k = kit_new("native");
	(void)state;
	k->stand = (struct dmsr_stand){ .loaded = &loaded, .nloaded = 1 };
	kit_open(k);
	assert_int_equal(kit_produce(k, kit_load(k, 0x9000, OP_ROWS, 10)), DMSR_OK);
	assert_int_equal(kit_produce(k, kit_load(k, 0x9001, OP_ROWS, 7)), DMSR_OK);
	kit_want_rows(k, 7);
	assert_int_equal(k->rows_loaded, 7);
	kit_free(k);
}

/* 4 */
static void it_goes_on_where_the_target_was(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_want_rows(k, 3);
	commit_all(k);
	produce(k, 4, 5, 10);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	kit_want_rows(k, 2);
	ids_are(k, 4, 5);
	kit_free(k);
}

static void another_record_at_the_noted_offset(void **state)
{
	struct kit *k = kit_new("native");
	char offset[8], rest[100];
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_want_rows(k, 3);
	commit_all(k);
	struct kit_note *n = kit_note(k, "at.copy");
	assert_int_equal(sscanf(n->value, "%7s %*s %99s", offset, rest), 2);
	snprintf(n->value, sizeof n->value, "%s 17 %s", offset, rest); /* written at another time */
	kit_reopen(k);
	kit_fails(k, "kafka.topic-changed");
	kit_free(k);
}

/* 6: what is missing once may be the client's doing; what is missing again is lost. */
static void a_record_that_is_missing(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	struct batch *b[3] = { kit_txn(k, 1, 1, 10), kit_txn(k, 2, 2, 10), kit_txn(k, 3, 3, 10) };
	struct kit_writer w = kit_writer(k);
	kit_write(&w, 5, b[0], 1, 1);
	kit_want_rows(k, 1);
	commit_all(k);
	w.nth[5]++;
	kit_write(&w, 5, b[2], 1, 1);
	kit_fails(k, "kafka.gap");
	assert_true(k->error.retriable);
	kit_reopen(k);
	kit_fails(k, "kafka.gap");
	assert_false(k->error.retriable);
	assert_int_equal(k->nids, 0);
	kit_writer_free(&w);
	for (size_t i = 0; i < 3; i++)
		batch_free(b[i]);
	kit_free(k);
}

static void first_is_missing(bool has_one_before)
{
	struct kit *k = kit_new("native");
	kit_open(k);
	struct batch *b = kit_txn(k, 1, 1, 10), *c = kit_txn(k, 2, 2, 10);
	struct kit_writer w = kit_writer(k);
	if (has_one_before)
		kit_write(&w, 5, b, 1, 1);
	w.nth[6]++;
	kit_write(&w, 6, c, 1, 1);
	kit_fails(k, "kafka.gap");
	kit_writer_free(&w);
	batch_free(b);
	batch_free(c);
	kit_free(k);
}

/* Nor may the first of a run be missing, also where the stream begins. */
static void the_first_record_of_a_run_is_missing(void **state)
{
	(void)state;
	first_is_missing(true);
	first_is_missing(false);
}

/* A build that did not count has written some, and this one goes on. */
static void records_without_a_number(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	struct batch *b = kit_txn(k, 1, 1, 10), *c = kit_txn(k, 2, 1, 10);
	struct kit_writer w = kit_writer(k);
	w.counts = false;
	kit_write(&w, 5, b, 1, 1);
	kit_write(&w, 5, c, 1, 1);
	kit_want_rows(k, 2);
	commit_all(k);
	kit_reopen(k);
	produce(k, 3, 4, 10);
	kit_want_rows(k, 2);
	ids_are(k, 3, 4);
	kit_writer_free(&w);
	batch_free(b);
	batch_free(c);
	kit_free(k);
}

/* A broker takes any record for the first of a producer that is new to it: what is behind one that is refused must not have been sent. */
static void the_first_record_is_refused(const char *codec)
{
	struct kit *k = kit_new(codec);
	kit_open(k);
	const uint64_t lsn = k->lsn;
	/* the first request is for the shape */
	rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 2, RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	produce(k, 1, 200, 600);
	kit_fails(k, "kafka.record-too-large");
	fake_run(k->loop, NULL, NULL, 500);
	assert_int_equal(k->nids, 0);
	kit_reopen(k);
	k->lsn = lsn;
	produce(k, 1, 200, 600);
	kit_want_rows(k, 200);
	ids_are(k, 1, 200);
	kit_free(k);
}

static void nothing_goes_behind_a_first_record_that_is_refused(void **state)
{
	(void)state;
	the_first_record_is_refused("native");
	the_first_record_is_refused("json");
}

static bool has_words(struct kit *k) { return k->has_failed || k->words; }

/* What was read with a word, and is before it, is applied: the word is not. */
static void a_word_is_not_passed_with_what_is_before_it(void **state)
{
	struct kit *k = kit_new("json");
	(void)state;
	kit_open(k);
	produce(k, 1, 1, 10);
	struct batch *b = kit_txn(k, 2, 1, 10);
	batch_append(b, OP_LOAD_DONE, NULL)->txn = NULL;
	k->refuses_words = true;
	assert_int_equal(kit_produce(k, b), DMSR_OK);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 2);
	fake_run(k->loop, NULL, NULL, 100);
	commit_all(k);
	k->refuses_words = false;
	kit_reopen(k);
	kit_run(k, has_words);
	assert_false(k->has_failed);
	assert_int_equal(k->nids, 0);
	kit_free(k);
}

static void changes_as_json_come_back(void **state)
{
	struct kit *k = kit_new("json");
	(void)state;
	kit_open(k);
	produce(k, 1, 5, 10);
	assert_int_equal(kit_produce(k, kit_txn(k, 6, 95, 10)), DMSR_OK);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 100);
	ids_are(k, 1, 100);
	kit_run(k, kit_is_drained);
	commit_all(k);
	produce(k, 101, 102, 10);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	kit_want_rows(k, 2);
	ids_are(k, 101, 102);
	kit_free(k);
}

/* A transaction that is cut keeps others from being applied beside it: what is read again is cut between two as soon as half of a batch is there. */
static void json_is_cut_between_two_transactions(void **state)
{
	enum { TRANSACTIONS = 60, ROWS = 40, ROW_BYTES = 600, EACH = 20, FULL = 256 << 10 };
	struct kit *k = kit_new("json");
	(void)state;
	k->refuses = true;
	kit_open(k);
	for (int i = 0; i < TRANSACTIONS; i += EACH) {
		for (int j = i; j < i + EACH; j++)
			assert_int_equal(kit_produce(k, kit_txn(k, 1 + j * ROWS, ROWS, ROW_BYTES)), DMSR_OK);
		kit_run(k, kit_all_delivered);
	}
	k->refuses = false;
	kit_reopen(k); /* all of it is there, and none was taken */
	kit_want_rows(k, (uint64_t)TRANSACTIONS * ROWS);
	ids_are(k, 1, TRANSACTIONS * ROWS);
	assert_in_range(k->biggest, FULL / 2, FULL - 1);
	kit_free(k);
}

/* More rows than go into a slice of the loop: each is sent once, and in order. */
static void many_rows_of_a_load(void **state)
{
	struct kit *k = kit_new("json");
	(void)state;
	kit_open(k);
	assert_int_equal(kit_produce(k, kit_load(k, 0x9000, OP_LOAD_BEGIN, 0)), DMSR_OK);
	assert_int_equal(kit_produce(k, kit_load(k, 0x9000, OP_ROWS, 4000)), DMSR_OK);
	assert_int_equal(kit_produce(k, kit_load(k, 0x9000, OP_LOAD_END, 0)), DMSR_OK);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 4000);
	ids_are(k, 1, 4000);
	kit_free(k);
}

static void part(struct kit *k, uint32_t part, enum change_op op, uint32_t n)
{
	struct batch *b = kit_load(k, 0x9000, op, n);
	b->part = part;
	if (op == OP_LOAD_BEGIN)
		b->first->u.load.parts = 2;
	assert_int_equal(kit_produce(k, b), DMSR_OK);
}

static bool has_ended(struct kit *k) { return k->has_failed || strchr(buf_cstr(&k->load), 'E'); }

/* Whatever stands between them. */
static void parts_of_a_load_stay_apart(void **state)
{
	static const char *const codecs[] = { "native", "json" };
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct kit *k = kit_new(codecs[i]);
		kit_open(k);
		part(k, 0, OP_LOAD_BEGIN, 0);
		part(k, 1, OP_ROWS, 10);
		part(k, 2, OP_ROWS, 5);
		part(k, 1, OP_ROWS, 3);
		part(k, 1, OP_LOAD_PART, 0);
		part(k, 2, OP_ROWS, 2);
		part(k, 2, OP_LOAD_PART, 0);
		part(k, 0, OP_LOAD_END, 0);
		kit_run(k, has_ended);
		assert_string_equal(buf_cstr(&k->load), "L2 P1:13 P2:7 E0:0 ");
		kit_free(k);
	}
}

/* 5 */
static void the_end_is_noted_before_it_is_told(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	for (int64_t i = 1; i <= 40; i++) {
		produce(k, i, i, 10);
		kit_run(k, kit_all_delivered);
		assert_int_equal(k->end_at_delivery, i);
	}
	kit_free(k);
}

/* 6 */
static void a_stream_that_ends_too_early(void **state)
{
	static const char *const notes[][2] = { { "end", "4" }, { "at.copy", "3 17 pg:7:0/300:*:0/301" }, { "at.copy", "7 17 pg:7:0/300:*:0/301" } };
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct kit *k = kit_new("native");
		kit_open(k);
		produce(k, 1, 3, 10);
		kit_run(k, kit_all_delivered);
		kit_note_put(k, notes[i][0], notes[i][1], NULL, NULL);
		kit_reopen(k);
		kit_fails(k, "kafka.stream-lost");
		assert_false(k->error.retriable);
		kit_free(k);
	}
}

/* The topic may be there by the same name, and be longer. */
static void another_cluster(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_run(k, kit_all_delivered);
	kit_reopen(k);
	assert_false(k->has_failed);
	kit_note_put(k, "cluster", "another", NULL, NULL);
	kit_reopen(k);
	kit_fails(k, "kafka.cluster-changed");
	assert_false(k->error.retriable);
	kit_free(k);
}

/* That a target has read a record already, and found the end of the topic behind it, is no sign that it was there before. */
static void reports_may_come_after_the_record(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	for (uint64_t i = 1; i <= 2; i++) {
		/* the broker has it, and says so a second later: by then the consumer, which has a connection of its own, was at the end */
		rd_kafka_mock_broker_push_request_error_rtts(kit_mock, 1, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_NO_ERROR, 1000);
		produce(k, (int64_t)i, (int64_t)i, 10);
		kit_want_rows(k, i);
		kit_run(k, kit_all_delivered);
		ids_are(k, 1, (int64_t)i);
	}
	kit_free(k);
}

static void parts_without_their_first(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	struct batch *b = kit_txn(k, 1, 3, 100);
	struct kit_writer w = kit_writer(k);
	kit_write(&w, 5, b, 2, 3);
	kit_fails(k, "kafka.foreign");
	kit_writer_free(&w);
	batch_free(b);
	kit_free(k);
}

/* 7 */
static void a_target_that_takes_nothing_costs_little(void **state)
{
	struct kit *k = kit_new("native");
	struct dmsr_streamer_stat s;
	(void)state;
	kit_open(k);
	k->refuses = true;
	for (int64_t i = 1; i <= 60; i++) {
		produce(k, i, i, 50000);
		kit_run(k, kit_all_delivered);
	}
	kit_ops()->stat(k->streamer, &s);
	assert_in_range(s.memory_bytes, 50000, 60000);
	k->refuses = false;
	kit_ops()->consumer_resume(k->sub);
	kit_want_rows(k, 60);
	ids_are(k, 1, 60);
	kit_free(k);
}

static const struct topic *table_topic(const struct kit *k)
{
	const struct topic *t = ((const struct kafka *)(const void *)k->streamer)->topics;
	while (t && !t->table)
		t = t->next;
	if (!t)
		abort();
	return t;
}

static bool all_is_sent(struct kit *k)
{
	const struct kafka *own = (const struct kafka *)(const void *)k->streamer;
	return k->has_failed || (own->first && own->first->is_sent);
}

struct hindrance { atomic_bool has_begun, is_over, is_gone; };

static void hinder(void *arg)
{
	struct hindrance *h = arg;
	atomic_store(&h->has_begun, true);
	while (!atomic_load(&h->is_over))
		usleep(1000);
}

static void drop_hindrance(void *arg) { atomic_store(&((struct hindrance *)arg)->is_gone, true); }

static void wait_until(struct kit *k, const atomic_bool *flag, const _Atomic int32_t *number)
{
	for (unsigned ms = 0; !(flag ? atomic_load(flag) : atomic_load(number)); ms++) {
		assert_in_range(ms, 0, KIT_WAIT_MS);
		fake_run(k->loop, NULL, NULL, 1);
	}
}

/* What was sent before librdkafka knew the topic gets its partition when it does, on its thread: also behind the end of the instance, as long as the producer
 * is not destroyed, which may have to wait. */
static void partitions_are_found_behind_its_end(void **state)
{
	static struct hindrance h;
	struct kit *k = kit_new("json");
	char topic[80];
	(void)state;
	k->has_target = false;
	settings_put_str(k->settings, "layout", "table");
	snprintf(topic, sizeof topic, "%s.%s.%s", k->prefix, k->rel->schema, k->rel->name);
	rd_kafka_mock_topic_set_error(kit_mock, topic, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_run(k, all_is_sent);
	assert_false(k->has_failed);
	const struct topic *t = table_topic(k);
	assert_string_equal(t->name, topic);
	assert_int_equal(atomic_load(&t->extent.partitions), 0);
	worker_post(client_worker(((struct kafka *)(void *)k->streamer)->producer), &(struct worker_job){ .run = hinder, .drop = drop_hindrance, .arg = &h });
	wait_until(k, &h.has_begun, NULL);
	kit_close(k);
	rd_kafka_mock_topic_set_error(kit_mock, topic, RD_KAFKA_RESP_ERR_NO_ERROR);
	wait_until(k, NULL, &t->extent.partitions);
	atomic_store(&h.is_over, true);
	wait_until(k, &h.is_gone, NULL);
	kit_free(k);
}

/* Whatever was under way. */
static void it_may_be_closed_at_any_time(void **state)
{
	struct kit *k = kit_new("native");
	(void)state;
	kit_open(k);
	produce(k, 1, 3, 10);
	kit_run(k, kit_all_delivered);
	kit_close(k);
	for (unsigned ms = 0; ms < 40; ms += ms < 8 ? 1 : 8) {
		kit_begin(k);
		if (ms)
			fake_run(k->loop, NULL, NULL, ms);
		kit_close(k);
	}
	kit_free(k);
}

/* What is written once for several rows says the same as what is written for each. */
static void positions_in_headers(void **state)
{
	struct known_row known = { 0 };
	const uint64_t events[] = { 0, 1, 9, 10, 4711, UINT64_MAX - 1, POSITION_WHOLE };
	char text[POSITION_TEXT_MAX];
	size_t len;
	(void)state;
	for (unsigned i = 0; i < 2 * 3 * 2 * 2 * 7; i++) {
		struct position at = { .kind = i / 84 ? POSITION_LSN : POSITION_NONE, .lsn = 0x1234500000000 + i / 28 % 3, .event = events[i % 7] };
		at.server = 7000000000000000000 + i / 14 % 2;
		at.flush = i / 7 % 2 ? 0x1F00 : 0;
		for (int twice = 0; twice < 2; twice++) {
			assert_string_equal(stamp_position(&known, &at, &len), position_format(&at, text));
			assert_int_equal(len, strlen(text));
		}
	}
}

RUN_TESTS(cmocka_unit_test(positions_in_headers),
	cmocka_unit_test(batches_come_back_whole),
	cmocka_unit_test(nothing_is_delivered_without_the_broker),
	cmocka_unit_test(what_waits_is_counted_as_what_it_takes),
	cmocka_unit_test(a_target_that_holds_much_is_asked_to_let_go),
	cmocka_unit_test(one_that_cannot_be_asked_gets_more),
	cmocka_unit_test(an_error_that_passes_is_nobodys_business),
	cmocka_unit_test(what_the_broker_has_already_is_delivered),
	cmocka_unit_test(many_that_the_broker_has_already),
	cmocka_unit_test(errors_that_stay),
	cmocka_unit_test(a_log_that_is_damaged),
	cmocka_unit_test(a_topic_that_a_policy_refuses),
	cmocka_unit_test(a_fatal_error_ends_the_run_and_no_more),
	cmocka_unit_test(a_refusal_before_it_is_started),
	cmocka_unit_test(a_fatal_error_that_stays),
	cmocka_unit_test(what_is_known_is_taken_out),
	cmocka_unit_test(runs_do_not_mix),
	cmocka_unit_test(no_note_stands_between_parts),
	cmocka_unit_test(a_known_load_is_known_from_its_middle),
	cmocka_unit_test(a_later_load_of_the_table_is_news),
	cmocka_unit_test(it_goes_on_where_the_target_was),
	cmocka_unit_test(another_record_at_the_noted_offset),
	cmocka_unit_test(a_record_that_is_missing),
	cmocka_unit_test(the_first_record_of_a_run_is_missing),
	cmocka_unit_test(records_without_a_number),
	cmocka_unit_test(nothing_goes_behind_a_first_record_that_is_refused),
	cmocka_unit_test(a_word_is_not_passed_with_what_is_before_it),
	cmocka_unit_test(changes_as_json_come_back),
	cmocka_unit_test(json_is_cut_between_two_transactions),
	cmocka_unit_test(many_rows_of_a_load), cmocka_unit_test(parts_of_a_load_stay_apart),
	cmocka_unit_test(the_end_is_noted_before_it_is_told),
	cmocka_unit_test(a_stream_that_ends_too_early),
	cmocka_unit_test(another_cluster),
	cmocka_unit_test(reports_may_come_after_the_record),
	cmocka_unit_test(parts_without_their_first),
	cmocka_unit_test(a_target_that_takes_nothing_costs_little),
	cmocka_unit_test(partitions_are_found_behind_its_end),
	cmocka_unit_test(it_may_be_closed_at_any_time))
