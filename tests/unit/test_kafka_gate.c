/* test_kafka_gate: rule 11 of streamers/kafka/kafka.h: what of a topic's records is librdkafka's, what waits, and what becomes of that. The mock of a cluster
 * answers as late as it is told. */
#include "kafka_kit.h"

/* A request takes 66,560 bytes in all, as the kit has record_bytes: that many rows with PAD. */
enum { RTT_MS = 200, PAD = 300, REQUEST = 80, ROWS = 400, PARTITIONS = 4 };

static struct kafka *own(struct kit *k) { return (struct kafka *)(void *)k->streamer; }

/* Records that are librdkafka's, and those that are not acknowledged. */
static unsigned given(struct kit *k) { return (unsigned)rd_kafka_outq_len(client_handle(own(k)->producer)); }

static unsigned pending(struct kit *k)
{
	unsigned n = own(k)->exact.own.pending;
	for (const struct flight *f = own(k)->first; f; f = f->next)
		n += f->pending;
	return n;
}

static void answer_after(unsigned ms) { rd_kafka_mock_broker_set_rtt(kit_mock, 1, (int)ms); }

/* As if the options said so. */
static struct kit *json_kit(int64_t linger_ms)
{
	struct kit *k = kit_new("json");
	settings_put_int(k->settings, "linger", linger_ms);
	return k;
}

/* The stream's first record, and the shape, are there. */
static void begin(struct kit *k)
{
	kit_open(k);
	assert_int_equal(kit_produce(k, kit_txn(k, 1, 1, 10)), DMSR_OK);
	kit_run(k, kit_all_delivered);
	kit_want_rows(k, 1);
	assert_false(k->has_failed);
}

static void produce(struct kit *k, int64_t first, unsigned n) { assert_int_equal(kit_produce(k, kit_txn(k, first, n, PAD)), DMSR_OK); }

static bool all_wait(struct kit *k) { return k->has_failed || (!own(k)->encoding && pending(k)); }

/* It is known how long an answer takes. */
static void get_slow(struct kit *k)
{
	answer_after(RTT_MS);
	produce(k, 2, 1);
	kit_run(k, kit_all_delivered);
}

/* All that will be sent is encoded, and more of it waits than is librdkafka's. */
static void fill(struct kit *k)
{
	produce(k, 3, ROWS);
	kit_run(k, all_wait);
	assert_false(k->has_failed);
	assert_in_range(pending(k), ROWS, ROWS + 4);
	assert_in_range(given(k), 1, REQUEST);
}

static void came(struct kit *k, int64_t first, int64_t last)
{
	kit_want_rows(k, (uint64_t)(last - first + 1));
	assert_false(k->has_failed);
	assert_int_equal(k->nids, last - first + 1);
	for (size_t i = 0; i < k->nids; i++)
		assert_int_equal(k->ids[i], first + (int64_t)i);
}

static unsigned most, times, last_pending;

/* Delivered; meanwhile counts how much librdkafka had at most, and how often some was acknowledged. */
static bool watch(struct kit *k)
{
	unsigned n = given(k), left = pending(k);
	most = n > most ? n : most;
	times += left < last_pending;
	last_pending = left;
	return kit_all_delivered(k);
}

static void deliver_all(struct kit *k)
{
	most = times = 0;
	last_pending = pending(k);
	kit_run(k, watch);
	answer_after(0);
	assert_false(k->has_failed);
	assert_int_equal(pending(k), 0);
}

/* ---- how much goes, and when ---- */

/* What is due at a time, on a machine that may be busy: once in so many tries it is as it should be; what is wrong never is. */
static void sometimes(bool (*is_so)(void))
{
	enum { TRIES = 12 };
	for (unsigned n = 0; n < TRIES; n++)
		if (is_so())
			return;
	fail_msg("in none of %d tries", TRIES);
}

static void one_request_at_a_time(void **state)
{
	struct kit *k = json_kit(20);
	(void)state;
	begin(k);
	get_slow(k);
	fill(k);
	produce(k, 3 + ROWS, 10);
	deliver_all(k);
	assert_in_range(most, REQUEST / 2, REQUEST);
	came(k, 1, ROWS + 12);
	kit_free(k);
}

/* Few may be under way at once, whatever linger is; what comes then waits for all of them. */
static bool goes_in_one_go(int64_t linger_ms)
{
	struct kit *k = json_kit(linger_ms);
	begin(k);
	get_slow(k);
	for (int64_t id = 3; id < 15; id++) {
		produce(k, id, 1); /* three records */
		fake_run(k->loop, NULL, NULL, id == 3 ? 50 : 2);
	}
	bool is_so = pending(k) == 36 && given(k) == 5;
	deliver_all(k);
	is_so = is_so && times >= 2 && times <= 4 && most == 31;
	came(k, 1, 14);
	kit_free(k);
	return is_so;
}

static bool goes_at_once(void) { return goes_in_one_go(0); }
static bool goes_within_linger(void) { return goes_in_one_go(20); }

static void what_waits_goes_in_one_go(void **state)
{
	(void)state;
	sometimes(goes_at_once);
	sometimes(goes_within_linger);
}

/* In one turn, too, where linger is 0. */
static bool goes_along(void)
{
	struct kit *k = json_kit(0);
	begin(k);
	get_slow(k);
	for (int64_t id = 3; id < 9; id++)
		produce(k, id, 1);
	kit_run(k, all_wait);
	bool is_so = given(k) == 18;
	deliver_all(k);
	came(k, 1, 8);
	kit_free(k);
	return is_so;
}

static void what_comes_at_once_goes_along(void **state)
{
	(void)state;
	sometimes(goes_along);
}

static void deliver_each(struct kit *k, int64_t first, int64_t last)
{
	for (int64_t id = first; id <= last; id++) {
		produce(k, id, 1);
		kit_run(k, kit_all_delivered);
	}
}

/* No thread spins where brokers answer sooner than linger is over: nothing waits, once it is known. */
static bool is_nothing_waiting(void)
{
	struct kit *k = json_kit(150);
	bool is_so = true;
	begin(k);
	answer_after(2 * RTT_MS);
	deliver_each(k, 2, 2);
	answer_after(50);
	deliver_each(k, 3, 6);
	for (int64_t id = 7; id < 167; id += 4) { /* more than two requests in all, and some of it is under way at any time */
		produce(k, id, 4);
		fake_run(k->loop, NULL, NULL, 20);
		is_so = is_so && given(k) == pending(k);
	}
	deliver_all(k);
	came(k, 1, 166);
	kit_free(k);
	return is_so;
}

static void nothing_waits_for_quick_brokers(void **state)
{
	(void)state;
	sometimes(is_nothing_waiting);
}

/* One fills while the other is answered: by librdkafka's own count it is full a little later than by ours, and else would wait for linger. */
static bool are_two_under_way(void)
{
	struct kit *k = json_kit(2 * RTT_MS);
	begin(k);
	get_slow(k);
	produce(k, 3, ROWS);
	kit_run(k, all_wait);
	bool is_so = given(k) >= 3 * REQUEST / 2 && given(k) <= 2 * REQUEST;
	deliver_all(k);
	came(k, 1, ROWS + 2);
	kit_free(k);
	return is_so;
}

static void two_requests_for_quick_brokers(void **state)
{
	(void)state;
	sometimes(are_two_under_way);
}

/* Within linger, what comes goes through. */
static bool goes_soon(void)
{
	struct kit *k = json_kit(500);
	begin(k);
	answer_after(600);
	produce(k, 2, 1);
	kit_run(k, kit_all_delivered);
	for (int64_t id = 3; id < 13; id++) {
		produce(k, id, 1);
		fake_run(k->loop, NULL, NULL, 5);
	}
	bool is_so = given(k) == 30;
	answer_after(0);
	deliver_all(k);
	came(k, 1, 12);
	kit_free(k);
	return is_so;
}

static void what_comes_soon_goes_along(void **state)
{
	(void)state;
	sometimes(goes_soon);
}

static void it_counts_as_memory(void **state)
{
	struct kit *k = json_kit(2);
	struct dmsr_streamer_stat s;
	(void)state;
	settings_put_int(k->settings, "memory", 3 << 19);
	begin(k);
	get_slow(k);
	unsigned n = 0;
	for (struct batch *b; n < 100; n++) {
		b = kit_txn(k, 3 + 50 * n, 50, PAD);
		if (kit_produce(k, b) == DMSR_AGAIN) {
			batch_free(b);
			break;
		}
		fake_run(k->loop, NULL, NULL, 2);
	}
	assert_in_range(n, 10, 60);
	assert_non_null(own(k)->encoding); /* it waits as batches, which are smaller than their records */
	assert_in_range(own(k)->waiting, 1 << 17, 3 << 18);
	kit_ops()->stat(k->streamer, &s);
	assert_in_range(s.memory_bytes, 3 << 19, 7 << 18);
	assert_int_equal(k->resumed, 0);
	answer_after(0);
	deliver_all(k);
	assert_in_range(k->resumed, 1, 1);
	kit_ops()->stat(k->streamer, &s);
	came(k, 1, 2 + 50 * (int64_t)n);
	kit_free(k);
}

/* ---- partitions ---- */

static struct kit *table_kit(void)
{
	struct kit *k = json_kit(20);
	char topic[40];
	settings_put_str(k->settings, "layout", "table");
	k->has_target = false;
	snprintf(topic, sizeof topic, "%s.public.t", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, topic, PARTITIONS, 1), 0);
	return k;
}

struct reader {
	rd_kafka_t *rk;
	rd_kafka_topic_t *t;
	unsigned n, of[PARTITIONS], without_value;
};

static void read_one(struct reader *r, const rd_kafka_message_t *m)
{
	assert_int_equal(m->partition, rd_kafka_msg_partitioner_murmur2(r->t, m->key, m->key_len, PARTITIONS, NULL, NULL));
	r->n++;
	r->of[m->partition]++;
	r->without_value += !m->payload;
}

/* All of the table's topic, each in the partition that Java's clients look in. */
static struct reader read_table(struct kit *k, unsigned want)
{
	char why[200], topic[40];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	struct reader r = { 0 };
	rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(kit_mock), why, sizeof why);
	r.rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
	snprintf(topic, sizeof topic, "%s.public.t", k->prefix);
	r.t = rd_kafka_topic_new(r.rk, topic, NULL);
	rd_kafka_queue_t *q = rd_kafka_queue_new(r.rk);
	for (int32_t i = 0; i < PARTITIONS; i++)
		assert_int_equal(rd_kafka_consume_start_queue(r.t, i, RD_KAFKA_OFFSET_BEGINNING, q), 0);
	while (r.n < want) {
		rd_kafka_message_t *m = rd_kafka_consume_queue(q, KIT_WAIT_MS);
		assert_non_null(m);
		if (!m->err)
			read_one(&r, m);
		rd_kafka_message_destroy(m);
	}
	for (int32_t i = 0; i < PARTITIONS; i++)
		rd_kafka_consume_stop(r.t, i);
	rd_kafka_queue_destroy(q);
	rd_kafka_topic_destroy(r.t);
	rd_kafka_destroy(r.rk);
	return r;
}

static void a_request_for_each_partition(void **state)
{
	struct kit *k = table_kit();
	(void)state;
	kit_open(k);
	answer_after(RTT_MS);
	produce(k, 1, 60);
	kit_run(k, kit_all_delivered);
	produce(k, 61, ROWS);
	deliver_all(k);
	assert_in_range(most, 2 * REQUEST, PARTITIONS * REQUEST);
	struct reader r = read_table(k, ROWS + 60);
	for (size_t i = 0; i < PARTITIONS; i++)
		assert_in_range(r.of[i], 60, 180);
	kit_free(k);
}

/* A deletion, and the record without a value behind it. */
static void records_without_a_value_wait_too(void **state)
{
	struct kit *k = table_kit();
	(void)state;
	kit_open(k);
	get_slow(k);
	struct batch *b = batch_new();
	k->lsn += FAKE_LSN_STEP;
	b->end = fake_position(k->lsn, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = k->lsn });
	for (unsigned i = 0; i < 200; i++)
		fake_add_row(b, OP_DELETE, k->rel, i + 1, 100 + i, PAD);
	assert_int_equal(kit_produce(k, b), DMSR_OK);
	produce(k, 1000, 1); /* its gate is closed by now, and the shape known */
	kit_run(k, all_wait);
	assert_in_range(given(k), 1, pending(k) - 1);
	deliver_all(k);
	struct reader r = read_table(k, 402);
	assert_int_equal(r.without_value, 200);
	kit_free(k);
}

/* ---- ends ---- */

/* The next run sends all that was not delivered, and the target has it once. */
static void settle_and_go_on(struct kit *k)
{
	answer_after(0);
	k->lsn = 2 * FAKE_LSN_STEP;
	kit_open(k);
	produce(k, 3, ROWS);
	kit_run(k, kit_all_delivered);
	came(k, 1, ROWS + 2);
}

static void a_stop_with_records_that_wait(void **state)
{
	struct kit *k = json_kit(2);
	(void)state;
	begin(k);
	get_slow(k);
	fill(k);
	kit_ops()->stop(k->streamer);
	fake_run(k->loop, NULL, NULL, 2 * RTT_MS);
	assert_true(k->is_stopped);
	assert_int_equal(k->ndelivered, 2);
	kit_close(k);
	settle_and_go_on(k);
	kit_free(k);
}

static void closed_with_records_that_wait(void **state)
{
	struct kit *k = json_kit(2);
	(void)state;
	begin(k);
	get_slow(k);
	fill(k);
	kit_close(k);
	settle_and_go_on(k);
	kit_free(k);
}

static void a_producer_that_dies(void **state)
{
	struct kit *k = json_kit(2);
	(void)state;
	begin(k);
	get_slow(k);
	fill(k);
	rd_kafka_test_fatal_error(client_handle(own(k)->producer), RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "as told");
	kit_fails(k, "kafka.producer-fatal");
	assert_int_equal(k->ndelivered, 2);
	kit_close(k);
	settle_and_go_on(k);
	kit_free(k);
}

/* Nothing of what waits goes behind it. */
static void a_record_that_is_refused(void **state)
{
	struct kit *k = json_kit(20);
	(void)state;
	begin(k);
	get_slow(k);
	kit_want_rows(k, 2);
	rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	fill(k);
	kit_fails(k, "kafka.record-too-large");
	fake_run(k->loop, NULL, NULL, 500);
	assert_int_equal(k->nids, 2);
	kit_close(k);
	settle_and_go_on(k);
	kit_free(k);
}

/* Known before it waits, so that the table can be named. */
static void one_that_is_too_large_does_not_wait(void **state)
{
	struct kit *k = json_kit(2);
	(void)state;
	begin(k);
	get_slow(k);
	fill(k);
	assert_int_equal(kit_produce(k, kit_txn(k, 1000, 1, 2000)), DMSR_OK);
	kit_fails(k, "kafka.record-too-large");
	assert_non_null(strstr(k->error.message, "public.t"));
	answer_after(0);
	kit_free(k);
}

/* ---- transactions ---- */

static bool is_committing(struct kit *k)
{
	if (own(k)->exact.state == EXACT_COMMITTING)
		assert_int_equal(pending(k), 0);
	return k->has_failed || own(k)->exact.state == EXACT_COMMITTING;
}

static void a_commit_waits_for_what_waits(void **state)
{
	struct kit *k = json_kit(2);
	char positions[40];
	(void)state;
	snprintf(positions, sizeof positions, "%s.__positions", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, positions, 1, 1), 0);
	settings_put_bool(k->settings, "exactly_once", true);
	begin(k);
	get_slow(k);
	fill(k);
	kit_run(k, is_committing);
	assert_int_equal(k->ndelivered, 2);
	kit_run(k, kit_all_delivered);
	came(k, 1, ROWS + 2);
	answer_after(RTT_MS);
	fill(k); /* and is dropped with the transaction */
	kit_close(k);
	answer_after(0);
	kit_open(k);
	assert_false(k->has_failed);
	kit_free(k);
}

RUN_TESTS(cmocka_unit_test(one_request_at_a_time),
	cmocka_unit_test(what_waits_goes_in_one_go),
	cmocka_unit_test(what_comes_at_once_goes_along),
	cmocka_unit_test(nothing_waits_for_quick_brokers),
	cmocka_unit_test(two_requests_for_quick_brokers),
	cmocka_unit_test(what_comes_soon_goes_along),
	cmocka_unit_test(it_counts_as_memory),
	cmocka_unit_test(a_request_for_each_partition),
	cmocka_unit_test(records_without_a_value_wait_too),
	cmocka_unit_test(a_stop_with_records_that_wait),
	cmocka_unit_test(closed_with_records_that_wait),
	cmocka_unit_test(a_producer_that_dies),
	cmocka_unit_test(a_record_that_is_refused),
	cmocka_unit_test(one_that_is_too_large_does_not_wait),
	cmocka_unit_test(a_commit_waits_for_what_waits))
