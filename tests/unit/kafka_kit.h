/* kafka_kit: an instance of the Kafka streamer between a producer and a target that do what they are told, on librdkafka's mock of a cluster: that one can be
 * told to answer with errors, and in what order records of several runs stand. Notes last from run to run. */
#ifndef DMSR_TESTS_UNIT_KAFKA_KIT_H
#define DMSR_TESTS_UNIT_KAFKA_KIT_H
#include "test.h"

#include "connectors/fake/fake.h"
#include "streamers/kafka/kafka.h"
#include <librdkafka/rdkafka_mock.h>

extern const struct dmsr_plugin dmsr_plugin_kafka, dmsr_plugin_json;

enum { KIT_IDS = 4096, KIT_NOTES = 8, KIT_WAIT_MS = FAKE_LONG_MS, API_PRODUCE = 0, API_FETCH = 1 };

/* One for all tests of a program, each with topics of its own: it is slow to end. */
static rd_kafka_t *kit_mock_handle;
static rd_kafka_mock_cluster_t *kit_mock;

struct kit_note {
	char key[32], value[200];
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

struct kit {
	struct loop *loop;
	char prefix[16], stream[32];    /* its topics' */
	struct settings *settings;
	struct dmsr_instance *streamer;
	struct dmsr_subscription *sub;
	struct relation *rel;
	struct kit_note notes[KIT_NOTES];
	struct loop_task *answer;       /* of notes */

	/* the host */
	bool is_ready, is_stopped, has_failed;
	struct err error;
	unsigned resumed, notices;
	uint64_t produced, ndelivered, lsn;
	int64_t end_at_delivery;        /* the note "end" when the newest was told */

	/* the target */
	struct dmsr_stand stand;
	bool has_target, refuses, refuses_words, can_let_go;
	const struct err *refusal;      /* the broker's, before anything else is asked of the streamer; NULL: none */
	unsigned let_go;                /* so often it was asked to */
	unsigned words;                 /* OP_LOAD_DONE */
	uint64_t last;                  /* token */
	int64_t ids[KIT_IDS];
	size_t nids, nbatches, rows_loaded;
	size_t biggest;                 /* of its batches, in bytes */
	size_t part_rows[4];            /* of a load */
	struct buf load;                /* what was said of it: "L2 P1:13 " */
	unsigned drained;

	bool (*until)(struct kit *k);
	uint64_t want;
};

static inline const struct dmsr_streamer *kit_ops(void) { return dmsr_plugin_kafka.streamer; }

/* ---- the host ---- */

static inline struct kit_note *kit_note(struct kit *k, const char *key)
{
	for (size_t i = 0; i < KIT_NOTES; i++)
		if (!strcmp(k->notes[i].key, key))
			return &k->notes[i];
	return NULL;
}

static inline void kit_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct kit *k = ctx;
	size_t i = 0;
	while (i + 1 < KIT_NOTES && k->notes[i].key[0] && strcmp(k->notes[i].key, key) != 0)
		i++;
	struct kit_note *n = &k->notes[i];
	assert_true(!n->key[0] || !strcmp(n->key, key));
	snprintf(n->key, sizeof n->key, "%s", key);
	snprintf(n->value, sizeof n->value, "%s", value);
	n->done = done;
	n->arg = arg;
	loop_task_post(k->answer);
}

static inline const char *kit_note_get(void *ctx, const char *key)
{
	const struct kit_note *n = kit_note(ctx, key);
	return n ? n->value : NULL;
}

static inline void kit_answer(void *arg)
{
	struct kit *k = arg;
	for (size_t i = 0; i < KIT_NOTES; i++) {
		struct kit_note n = k->notes[i];
		k->notes[i].done = NULL;
		if (n.done)
			n.done(n.arg, NULL);
	}
}

static inline void kit_on_ready(void *ctx) { ((struct kit *)ctx)->is_ready = true; }
static inline void kit_on_resume(void *ctx) { ((struct kit *)ctx)->resumed++; }
static inline void kit_on_stopped(void *ctx) { ((struct kit *)ctx)->is_stopped = true; }

static inline void kit_on_notice(void *ctx, const char *text)
{
	((struct kit *)ctx)->notices++;
	assert_true(*text);
}

static inline void kit_on_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct kit *k = ctx;
	const char *end = kit_note_get(k, "end");
	assert_null(e);
	assert_in_range(token, 1, k->produced);
	k->ndelivered++;
	k->end_at_delivery = end ? strtoll(end, NULL, 10) : -1;
}

static inline void kit_on_failed(void *ctx, const struct err *e)
{
	struct kit *k = ctx;
	assert_false(k->has_failed);
	k->has_failed = true;
	k->error = *e;
}

/* ---- the target ---- */

static inline void kit_see_load(struct kit *k, const struct batch *b)
{
	assert_true(b->part < 4);
	for (const struct change *ch = b->is_load ? b->first : NULL; ch; ch = ch->next) {
		if (ch->op == OP_LOAD_BEGIN)
			buf_printf(&k->load, "L%u ", (unsigned)ch->u.load.parts);
		if (ch->op == OP_LOAD_PART || ch->op == OP_LOAD_END)
			buf_printf(&k->load, "%c%u:%zu ", ch->op, (unsigned)b->part, k->part_rows[b->part]);
		k->part_rows[b->part] += ch->op == OP_ROWS ? ch->u.rows.rows : ch->op == OP_READ;
	}
}

static inline enum dmsr_verdict kit_deliver(void *ctx, const struct batch *b, uint64_t token)
{
	struct kit *k = ctx;
	if (k->refuses || (k->refuses_words && b->last && b->last->op == OP_LOAD_DONE))
		return DMSR_AGAIN;
	k->last = token;
	k->nbatches++;
	k->biggest = b->bytes > k->biggest ? b->bytes : k->biggest;
	kit_see_load(k, b);
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (change_is_row(ch))
			k->ids[k->nids++] = fake_row_id(ch);
		k->rows_loaded += ch->op == OP_ROWS ? ch->u.rows.rows : 0;
		k->words += ch->op == OP_LOAD_DONE;
	}
	return DMSR_OK;
}

static inline void kit_let_go(void *ctx) { ((struct kit *)ctx)->let_go++; }
static inline void kit_drained(void *ctx) { ((struct kit *)ctx)->drained++; }

/* ---- life ---- */

static inline struct settings *kit_settings(const char *prefix, const char *codec)
{
	struct settings *s = settings_new();
	static const char *const none[] = { "ssl_ca", "user", "password" };
	static const char *const texts[][2] = { { "layout", "auto" }, { "load", "stream" }, { "compression", "none" }, { "security", "plaintext" },
		{ "sasl_mechanism", "PLAIN" }, { "shape", "envelope" }, { "numbers", "string" }, { "json", "text" }, { "compat", "none" },
		{ "invalid_utf8", "stop" } };
	static const struct { const char *name; int64_t value; } numbers[] = { { "partitions", 1 }, { "replication", 0 }, { "retention", 0 },
		{ "memory", 1 << 20 }, { "record_bytes", 1024 }, { "linger", 0 }, { "transaction_timeout", 60000 } };
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		settings_put_str(s, none[i], NULL);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		settings_put_str(s, texts[i][0], texts[i][1]);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		settings_put_int(s, numbers[i].name, numbers[i].value);
	settings_put_bool(s, "create_topics", false);
	settings_put_bool(s, "exactly_once", false);
	settings_put_bool(s, "transaction_topic", false);
	settings_put_bool(s, "meta", true);
	settings_put_bool(s, "tombstones", true);
	settings_put_str(s, "codec", codec);
	settings_put_str(s, "prefix", prefix);
	settings_put_str(s, "bootstrap_servers", rd_kafka_mock_cluster_bootstraps(kit_mock));
	return s;
}

static inline const struct dmsr_codec *kit_codec(const void *codecs, const char *name)
{
	(void)codecs, (void)name;
	return dmsr_plugin_json.codec;
}

static inline bool kit_check_until(void *arg)
{
	struct kit *k = arg;
	return k->until(k);
}

/* Runs until the condition holds, which it must. */
static inline void kit_run(struct kit *k, bool (*until)(struct kit *k))
{
	k->until = until;
	if (!fake_run(k->loop, kit_check_until, k, KIT_WAIT_MS))
		fail_msg("in vain; %s %s; %zu rows, %llu delivered", k->error.id, k->error.message, k->nids, (unsigned long long)k->ndelivered);
}

static inline bool kit_is_ready(struct kit *k) { return k->is_ready || k->has_failed; }
static inline bool kit_has_failed(struct kit *k) { return k->has_failed; }
static inline bool kit_all_delivered(struct kit *k) { return k->has_failed || k->ndelivered == k->produced; }
static inline bool kit_has_rows(struct kit *k) { return k->has_failed || k->nids + k->rows_loaded >= k->want; }
static inline bool kit_is_drained(struct kit *k) { return k->has_failed || k->drained; }

static inline void kit_want_rows(struct kit *k, uint64_t n)
{
	k->want = n;
	kit_run(k, kit_has_rows);
}

static inline void kit_fails(struct kit *k, const char *id)
{
	kit_run(k, kit_has_failed);
	assert_string_equal(k->error.id, id);
}

/* A run begins; kit_open waits until it is ready, or has failed. */
static inline void kit_begin(struct kit *k)
{
	const struct dmsr_streamer_host host = {
		.ctx = k,
		.env = { .loop = k->loop, .job = "shop", .uid = "u", .name = "streamer", .codec = kit_codec },
		.note_put = kit_note_put,
		.note_get = kit_note_get,
		.notice = kit_on_notice,
		.ready = kit_on_ready,
		.delivered = kit_on_delivered,
		.resume = kit_on_resume,
		.failed = kit_on_failed,
		.stopped = kit_on_stopped,
	};
	const struct dmsr_consumer c = { .ctx = k, .deliver = kit_deliver, .drained = kit_drained, .let_go = k->can_let_go ? kit_let_go : NULL };
	k->is_ready = k->is_stopped = k->has_failed = false;
	k->produced = k->ndelivered = k->last = 0;
	k->nids = k->nbatches = k->rows_loaded = k->drained = k->words = 0;
	assert_int_equal(kit_ops()->open(k->settings, &host, &k->streamer, &k->error), 0);
	if (k->refusal)
		kafka_fail((struct kafka *)(void *)k->streamer, k->refusal);
	if (k->has_target)
		k->sub = kit_ops()->subscribe(k->streamer, "copy", &k->stand, &c);
	kit_ops()->start(k->streamer);
}

static inline void kit_open(struct kit *k)
{
	kit_begin(k);
	kit_run(k, kit_is_ready);
}

static inline void kit_close(struct kit *k)
{
	kit_ops()->close(k->streamer);
	k->streamer = NULL;
	fake_settle(k->loop);
}

static inline void kit_reopen(struct kit *k)
{
	kit_close(k);
	kit_open(k);
}

static inline void kit_mock_end(void)
{
	rd_kafka_mock_cluster_destroy(kit_mock);
	rd_kafka_destroy(kit_mock_handle);
}

static inline void kit_mock_begin(void)
{
	char why[200];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_conf_set_log_cb(conf, NULL);
	kit_mock_handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
	kit_mock = rd_kafka_mock_cluster_new(kit_mock_handle, 1);
	atexit(kit_mock_end);
}

static inline struct kit *kit_new(const char *codec)
{
	struct kit *k = calloc(1, sizeof *k);
	static unsigned number;
	char schemas[32];
	if (!kit_mock)
		kit_mock_begin();
	k->loop = loop_new();
	k->answer = loop_task_new(k->loop, "notes", kit_answer, k);
	k->rel = fake_relation("t", 1);
	k->has_target = true;
	buf_init(&k->load, 1000);
	snprintf(k->prefix, sizeof k->prefix, "shop%u", ++number);
	snprintf(k->stream, sizeof k->stream, "%s.__stream", k->prefix);
	snprintf(schemas, sizeof schemas, "%s.__schemas", k->prefix);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, k->stream, 1, 1), 0);
	assert_int_equal(rd_kafka_mock_topic_create(kit_mock, schemas, 1, 1), 0);
	rd_kafka_mock_clear_request_errors(kit_mock, API_PRODUCE);
	k->settings = kit_settings(k->prefix, codec);
	return k;
}

static inline void kit_free(struct kit *k)
{
	if (k->streamer)
		kit_close(k);
	loop_task_free(k->answer);
	settings_free(k->settings);
	loop_free(k->loop);
	relation_unref(k->rel);
	buf_fini(&k->load);
	free(k);
}

/* ---- what is produced ---- */

/* A transaction at the next LSN, of n rows from first_id on. */
static inline struct batch *kit_txn_at(struct kit *k, uint64_t lsn, int64_t first_id, unsigned n, size_t pad)
{
	struct batch *b = batch_new();
	b->end = fake_position(lsn, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = lsn });
	batch_append(b, OP_BEGIN, NULL);
	for (unsigned i = 0; i < n; i++)
		fake_add_row(b, OP_CREATE, k->rel, i + 1, first_id + i, pad);
	batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	return b;
}

static inline struct batch *kit_txn(struct kit *k, int64_t first_id, unsigned n, size_t pad)
{
	k->lsn += FAKE_LSN_STEP;
	return kit_txn_at(k, k->lsn, first_id, n, pad);
}

static inline struct batch *kit_load(struct kit *k, uint64_t snapshot, enum change_op op, uint32_t n)
{
	struct batch *b = batch_new();
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = snapshot });
	if (op == OP_ROWS)
		fake_add_rows(b, k->rel, 1, n);
	else
		batch_append(b, op, k->rel);
	return b;
}

static inline enum dmsr_verdict kit_produce(struct kit *k, struct batch *b)
{
	b->token = k->produced + 1;
	enum dmsr_verdict v = kit_ops()->produce(k->streamer, b);
	if (v == DMSR_OK)
		k->produced++;
	return v;
}

/* ---- what somebody else has written: the records of another run ---- */

struct kit_writer {
	rd_kafka_t *rk;
	struct kit *kit;
	long long after;                /* that run of the streamer's: its runs are counted from there */
	unsigned nth[8];                /* written in each run */
	bool counts;
};

static inline struct kit_writer kit_writer(struct kit *k)
{
	char why[200];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(kit_mock), why, sizeof why);
	struct kit_writer w = { .kit = k, .after = strtoll(kit_note(k, "run")->value, NULL, 10), .counts = true };
	w.rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
	return w;
}

/* Part `part` of the parts of b, as that run writes it: a small number. */
static inline void kit_write(struct kit_writer *w, int run, const struct batch *b, unsigned part, unsigned parts)
{
	char position[POSITION_TEXT_MAX], text[32], of[32];
	struct buf pack;
	buf_init(&pack, 1 << 20);
	assert_int_equal(batch_pack(b, &pack), 0);
	size_t each = (pack.len + parts - 1) / parts, at = (part - 1) * each, len = part == parts ? pack.len - at : each;
	rd_kafka_headers_t *h = rd_kafka_headers_new(3);
	rd_kafka_header_add(h, "dmsr-pos", -1, position_format(&b->end, position), -1);
	++w->nth[run];
	snprintf(text, sizeof text, w->counts ? "%lld %u" : "%lld", w->after + run, w->nth[run]);
	rd_kafka_header_add(h, "dmsr-run", -1, text, -1);
	snprintf(of, sizeof of, "%u/%u", part, parts);
	if (parts > 1)
		rd_kafka_header_add(h, "dmsr-part", -1, of, -1);
	assert_int_equal(rd_kafka_producev(w->rk, RD_KAFKA_V_TOPIC(w->kit->stream), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
				 RD_KAFKA_V_VALUE((&pack.data[at]), len), RD_KAFKA_V_HEADERS(h), RD_KAFKA_V_END),
		0);
	assert_int_equal(rd_kafka_flush(w->rk, KIT_WAIT_MS), 0);
	buf_fini(&pack);
}

static inline void kit_writer_free(struct kit_writer *w) { rd_kafka_destroy(w->rk); }

#endif
