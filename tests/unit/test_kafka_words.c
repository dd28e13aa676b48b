/* test_kafka_words: the writer of an index, and who reads by it (streamers/kafka/words.h, fetch.h): what is told when, and what becomes of it when the brokers
 * answer late, not at all, or without what was asked. */
#include "kafka_kit.h"
#include "streamers/kafka/words.h"

enum { PARTITIONS = 12 };               /* more than are read at a time */

static struct kafka *own(struct kit *k) { return (struct kafka *)(void *)k->streamer; }

static void answer_after(int64_t ms) { rd_kafka_mock_broker_set_rtt(kit_mock, 1, (int)ms); }

static struct kit *table_kit(void)
{
	struct kit *k = kit_new("json");
	char topic[40];
	settings_put_str(k->settings, "layout", "table");
	settings_put_str(k->settings, "load", "direct");
	snprintf(topic, sizeof topic, "%s.public.t", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, topic, PARTITIONS, 1), 0);
	snprintf(topic, sizeof topic, "%s.__words", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, topic, 1, 1), 0);
	return k;
}

static void produce(struct kit *k, int64_t first, unsigned n) { assert_int_equal(kit_produce(k, kit_txn(k, first, n, 10)), DMSR_OK); }

static void ids_are(struct kit *k, int64_t first, size_t n)
{
	assert_int_equal(k->nids, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(k->ids[i], first + (int64_t)i);
}

static bool is_stopped(struct kit *k) { return k->is_stopped || k->has_failed; }

static void what_comes_is_in_order(void **state)
{
	struct kit *k = table_kit();
	(void)state;
	kit_open(k);
	for (int64_t i = 0; i < 20; i++)
		produce(k, 1 + i * 10, 10);
	kit_want_rows(k, 200);
	kit_run(k, kit_all_delivered);
	assert_false(k->has_failed);
	ids_are(k, 1, 200);
	assert_int_equal(own(k)->memory, 0);
	/* and again, as far as it is not known */
	kit_ops()->commit(k->sub, k->last);
	kit_ops()->stop(k->streamer);
	kit_run(k, is_stopped);
	kit_reopen(k);
	produce(k, 201, 5);
	kit_want_rows(k, 5);
	assert_false(k->has_failed);
	ids_are(k, 201, 5);
	kit_free(k);
}

static bool words_are_under_way(struct kit *k)
{
	const struct flight *f = own(k)->first;
	return k->has_failed || (f && f->is_sent && !f->words);
}

/* Delivered is what can be read: not before its record of words is acknowledged. */
static void nothing_is_told_before_its_words_are_there(void **state)
{
	struct kit *k = table_kit();
	(void)state;
	kit_open(k);
	produce(k, 1, 10);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 10);
	answer_after(1000);
	produce(k, 11, 10);
	assert_true(words_are_due(own(k)) || !own(k)->first->is_begun);
	kit_run(k, words_are_under_way);
	fake_run(k->loop, NULL, NULL, 60); /* what is told is told by then */
	assert_non_null(own(k)->first);
	assert_int_equal(k->ndelivered, 1);
	kit_run(k, kit_all_delivered);
	assert_false(words_are_due(own(k)));
	answer_after(0);
	kit_want_rows(k, 20);
	ids_are(k, 1, 20);
	kit_free(k);
}

/* The broker has a row already, and does not say where: nobody can be told of it. */
static void a_row_that_stands_nobody_knows_where(void **state)
{
	struct kit *k = table_kit();
	(void)state;
	kit_open(k);
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER);
	produce(k, 2, 1);
	kit_fails(k, "kafka.broker");
	assert_true(k->error.retriable);
	assert_non_null(strstr(k->error.message, "public.t"));
	rd_kafka_mock_clear_request_errors(kit_mock, API_PRODUCE);
	kit_free(k);
}

/* A run that ends with rows under way, on either side of the brokers. */
static void an_end_amid_it(void **state)
{
	(void)state;
	for (unsigned turns = 0; turns < 12; turns++) {
		struct kit *k = table_kit();
		kit_open(k);
		k->refuses = turns % 2;
		for (int64_t i = 0; i < 10; i++)
			produce(k, 1 + i * 10, 10);
		for (unsigned i = 0; i < turns * 3; i++)
			fake_settle(k->loop);
		kit_free(k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_is_in_order),
		cmocka_unit_test(nothing_is_told_before_its_words_are_there),
		cmocka_unit_test(a_row_that_stands_nobody_knows_where),
		cmocka_unit_test(an_end_amid_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
