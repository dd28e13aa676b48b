/* test_kafka_values: librdkafka reads a flight's memory (rule 12 of streamers/kafka/kafka.h): what becomes of values, those that it copies into its request and
 * those that it sends from where they lie (more than 65,535 bytes, uncompressed), when requests are refused, cut off, or never answered. For ASan first. */
#include "base/worker.h"
#include "kafka_kit.h"

enum { LINGER_MS = 20, SLOW_MS = 1000, ROWS = 36, RECORD_MAX = 200000 };

/* Any five of these go in one request: a gate lets so many through. */
static const size_t pads[] = { 10, 70000, 300, 66000, 1, 65300, 100, 100000, 0, 2000 };

static size_t pad_of(int64_t id) { return pads[(size_t)id % (sizeof pads / sizeof *pads)]; }
static char fill_of(int64_t id) { return (char)('a' + id % 26); }

static void answer_after(int64_t ms) { rd_kafka_mock_broker_set_rtt(kit_mock, 1, (int)ms); }

static struct kafka *own(struct kit *k) { return (struct kafka *)(void *)k->streamer; }

/* A table that is given another letter for each row. */
static struct batch *rows(struct kit *k, int64_t first, unsigned n)
{
	struct batch *b = batch_new();
	k->lsn += FAKE_LSN_STEP;
	b->end = fake_position(k->lsn, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = k->lsn });
	batch_append(b, OP_BEGIN, NULL);
	for (unsigned i = 0; i < n; i++) {
		const int64_t id = first + i;
		fake_add_row(b, OP_CREATE, k->rel, i + 1, id, pad_of(id));
		struct value *v = batch_values(b, 2);
		v[0] = b->last->u.row.after[0];
		v[1] = value_text(memset(arena_alloc(&b->arena, pad_of(id) + 1), fill_of(id), pad_of(id)), (uint32_t)pad_of(id));
		b->last->u.row.after = v;
	}
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	return b;
}

static void produce(struct kit *k, int64_t first, unsigned n) { assert_int_equal(kit_produce(k, rows(k, first, n)), DMSR_OK); }

static struct kit *values_kit(const char *layout, const char *compression, int64_t linger_ms)
{
	struct kit *k = kit_new("json");
	char topic[40];
	settings_put_str(k->settings, "layout", layout);
	settings_put_str(k->settings, "compression", compression);
	settings_put_int(k->settings, "record_bytes", RECORD_MAX);
	settings_put_int(k->settings, "memory", 65 << 20);
	settings_put_int(k->settings, "linger", linger_ms);
	k->has_target = false;
	snprintf(topic, sizeof topic, "%s.public.t", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, topic, 1, 1), 0);
	return k;
}

/* The shape is there, and it is known that answers take too long for two requests at a time. */
static void begin(struct kit *k)
{
	kit_open(k);
	answer_after(3 * settings_int(k->settings, "linger"));
	produce(k, 1, 1);
	kit_run(k, kit_all_delivered);
	assert_false(k->has_failed);
}

static bool is_sent(struct kit *k) { return k->has_failed || !own(k)->encoding; }

/* All of ROWS are encoded, most wait at the gate, in several flights, and the first request is under way: for longer than a busy machine takes for that. */
static void fill(struct kit *k, int64_t answer_ms)
{
	answer_after(answer_ms);
	for (int64_t id = 2; id < 2 + ROWS; id += 6)
		produce(k, id, 6);
	kit_run(k, is_sent);
	assert_string_equal(k->error.message, "");
	assert_in_range(own(k)->waiting, 1 << 19, 5 << 20);
}

static void deliver_all(struct kit *k)
{
	answer_after(3 * settings_int(k->settings, "linger"));
	kit_run(k, kit_all_delivered);
	answer_after(0);
	assert_string_equal(k->error.message, "");
}

/* ---- what stands there ---- */

/* 0: no row. */
static int64_t row_of(const rd_kafka_message_t *m)
{
	const char *value = m->payload, *at = memmem(value, m->len, "\"after\":{\"id\":", 14);
	if (!at)
		return 0;
	int64_t id = strtoll(at + 14 + (at[14] == '"'), NULL, 10);
	const size_t pad = pad_of(id);
	at = memmem(value, m->len, "\"v\":\"", 5);
	assert_non_null(at);
	at += 5;
	assert_true(at + pad < value + m->len);
	for (size_t i = 0; i < pad; i++)
		if (at[i] != fill_of(id))
			fail_msg("row %lld: byte %zu is '%c'", (long long)id, i, at[i]);
	assert_int_equal(at[pad], '"');
	return id;
}

/* Rows 1.. come in their order, each once; or, `again`, some of them once more. */
static void came(struct kit *k, const char *topic, bool again)
{
	char why[200];
	int64_t last = 0, end = 1 + ROWS;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(kit_mock), why, sizeof why);
	rd_kafka_conf_set(conf, "enable.partition.eof", "true", why, sizeof why);
	rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
	rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
	bool is_end = false;
	(void)k;
	assert_int_equal(rd_kafka_consume_start(t, 0, RD_KAFKA_OFFSET_BEGINNING), 0);
	while (!is_end) {
		rd_kafka_message_t *m = rd_kafka_consume(t, 0, KIT_WAIT_MS);
		assert_non_null(m);
		is_end = m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
		int64_t id = m->err || !m->payload ? 0 : row_of(m);
		if (id && !again)
			assert_int_equal(id, last + 1);
		if (id)
			assert_in_range(id, 1, last + 1);
		last = id > last ? id : last;
		rd_kafka_message_destroy(m);
	}
	assert_int_equal(last, end);
	rd_kafka_consume_stop(t, 0);
	rd_kafka_topic_destroy(t);
	rd_kafka_destroy(rk);
}

static void all_came(struct kit *k, const char *layout, bool again)
{
	char topic[40];
	snprintf(topic, sizeof topic, "%s.public.t", k->prefix);
	came(k, strcmp(layout, "table") ? k->stream : topic, again);
	if (!strcmp(layout, "both"))
		came(k, topic, again);
}

/* ---- tests ---- */

static void each(void (*test)(const char *layout, const char *compression))
{
	test("both", "none");
	test("ordered", "lz4");
}

static void mix(const char *layout, const char *compression)
{
	struct kit *k = values_kit(layout, compression, LINGER_MS);
	begin(k);
	fill(k, SLOW_MS);
	deliver_all(k);
	all_came(k, layout, false);
	kit_free(k);
}

static void big_and_small_values_go_together(void **state)
{
	(void)state;
	each(mix);
}

/* The mock does not look at sequence numbers: with one request at a time it need not. */
static void refuse(const char *layout, const char *compression)
{
	struct kit *k = values_kit(layout, compression, 4 * LINGER_MS);
	begin(k);
	rd_kafka_mock_push_request_errors(kit_mock, API_PRODUCE, 4, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NO_ERROR,
		RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
	fill(k, SLOW_MS);
	deliver_all(k);
	all_came(k, layout, false);
	kit_free(k);
}

static void what_is_refused_for_now_comes_once(void **state)
{
	(void)state;
	each(refuse);
}

/* The broker has them, and its answer is lost; and a request is cut off amid a value. */
static void cut(const char *layout, const char *compression)
{
	struct kit *k = values_kit(layout, compression, LINGER_MS);
	begin(k);
	fill(k, SLOW_MS);
	for (unsigned ms = 1; ms < 40; ms *= 3) {
		fake_run(k->loop, NULL, NULL, ms);
		rd_kafka_mock_broker_set_down(kit_mock, 1);
		fake_run(k->loop, NULL, NULL, 20);
		rd_kafka_mock_broker_set_up(kit_mock, 1);
	}
	answer_after(0);
	deliver_all(k);
	all_came(k, layout, true);
	kit_free(k);
}

static void what_was_cut_off_comes_again(void **state)
{
	(void)state;
	each(cut);
}

/* Its threads read on, for a while: the memory is theirs until they end. */
static void leave(const char *layout, const char *compression)
{
	for (int ms = -1; ms < 60; ms = ms < 0 ? 0 : 9 * ms + 4) {
		struct kit *k = values_kit(layout, compression, LINGER_MS);
		begin(k);
		fill(k, FAKE_LONG_MS);
		if (ms < 0)
			rd_kafka_mock_broker_set_down(kit_mock, 1);
		else if (ms)
			fake_run(k->loop, NULL, NULL, (unsigned)ms);
		kit_free(k);
		assert_true(worker_wait_left(FAKE_LONG_MS));
		rd_kafka_mock_broker_set_up(kit_mock, 1);
		answer_after(0);
	}
}

static void closed_while_nobody_answers(void **state)
{
	(void)state;
	each(leave);
}

RUN_TESTS(cmocka_unit_test(big_and_small_values_go_together), cmocka_unit_test(what_is_refused_for_now_comes_once),
	cmocka_unit_test(what_was_cut_off_comes_again), cmocka_unit_test(closed_while_nobody_answers))
