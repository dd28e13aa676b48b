/* The source kafka: what it leaves out, because the rows before it are not there, and what it remembers of that. tests/it/test_kafka_source.py has the rest. */
#include "kafka_kit.h"

enum { NOTES = 8 };

/* A job that reads what the kit writes. */
struct reader {
	struct kit *kit;
	struct dmsr_instance *source;
	struct kit_note notes[NOTES];
	struct loop_task *answer;
	bool answers, has_failed, note_fails;
	bool is_slow, took;             /* every batch is refused once */
	struct loop_task *room;
	char error[64];
	unsigned notices, asked;        /* notes of what was left out */
	uint64_t reached;               /* the newest position that was given on */
	int64_t ids[64];
	size_t nids, nloads;            /* rows of changes; loads that ended */
	uint64_t want;
};

static struct kit_note *note(struct reader *r, const char *key)
{
	size_t i = 0;
	while (i + 1 < NOTES && r->notes[i].key[0] && strcmp(r->notes[i].key, key) != 0)
		i++;
	assert_true(!r->notes[i].key[0] || !strcmp(r->notes[i].key, key));
	return &r->notes[i];
}

static void on_answer(void *arg)
{
	struct reader *r = arg;
	for (size_t i = 0; i < NOTES; i++) {
		struct kit_note n = r->notes[i];
		if (!n.done || (!r->answers && !strncmp(n.key, "lacking.", 8)))
			continue;
		struct err bad = { 0 };
		err_set(&bad, DMSR_EIO, "test.note", "the note failed");
		r->notes[i].done = NULL;
		n.done(n.arg, r->note_fails && !strncmp(n.key, "lacking.", 8) ? &bad : NULL);
	}
}

static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct reader *r = ctx;
	struct kit_note *n = note(r, key);
	r->asked += !strncmp(key, "lacking.", 8);
	snprintf(n->key, sizeof n->key, "%s", key);
	snprintf(n->value, sizeof n->value, "%s", value ? value : "");
	n->done = done;
	n->arg = arg;
	loop_task_post(r->answer);
}

static const char *on_note_get(void *ctx, const char *key)
{
	const struct kit_note *n = note(ctx, key);
	return n->key[0] && n->value[0] ? n->value : NULL;
}

static enum dmsr_verdict on_emit(void *ctx, struct batch *b)
{
	struct reader *r = ctx;
	r->took = !r->took;
	if (r->is_slow && r->took) {
		loop_task_post(r->room);
		return DMSR_AGAIN;
	}
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (ch->op == OP_CREATE)
			r->ids[r->nids++] = fake_row_id(ch);
		r->nloads += ch->op == OP_LOAD_END;
	}
	if (!b->is_load)
		r->reached = b->end.lsn;
	batch_free(b);
	return DMSR_OK;
}

static void on_notice(void *ctx, const char *text)
{
	((struct reader *)ctx)->notices++;
	assert_non_null(strstr(text, "table public.t waits for a load in the stream"));
}

static void on_failed(void *ctx, const struct err *e)
{
	struct reader *r = ctx;
	r->has_failed = true;
	snprintf(r->error, sizeof r->error, "%s", e->id);
}

static void on_stopped(void *ctx) { (void)ctx; }

static void on_room(void *arg)
{
	struct reader *r = arg;
	if (r->source)
		dmsr_plugin_kafka.source->resume(r->source);
}

static struct reader *reader_new(struct kit *k)
{
	struct reader *r = calloc(1, sizeof *r);
	r->kit = k;
	r->answers = true;
	r->answer = loop_task_new(k->loop, "reader", on_answer, r);
	r->room = loop_task_new(k->loop, "room", on_room, r);
	return r;
}

/* It goes on behind `from`. loaded, unwanted: snapshots of table t; 0: none. */
static void start(struct reader *r, uint64_t from, uint64_t loaded, uint64_t unwanted)
{
	static const struct dmsr_tables all;
	struct err e = { 0 };
	const struct dmsr_source_host host = {
		.ctx = r,
		.env = { .loop = r->kit->loop, .job = "reader", .uid = "r", .name = "source", .codec = kit_codec },
		.emit = on_emit,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.notice = on_notice,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	const struct dmsr_loaded has = { "public", "t", { .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = loaded } };
	const struct dmsr_loaded not = { "public", "t", { .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = unwanted } };
	const struct dmsr_source_start at = {
		.mode = DMSR_FULL_LOAD_AND_CDC,
		.from = fake_position(from, POSITION_WHOLE),
		.loaded = &has,
		.nloaded = loaded != 0,
		.unwanted = &not,
		.nunwanted = unwanted != 0,
		.load_done = true,
	};
	r->notices = r->asked = 0;
	r->nids = r->nloads = 0;
	r->reached = 0;
	assert_int_equal(dmsr_plugin_kafka.source->open(r->kit->settings, &all, &host, &r->source, &e), 0);
	dmsr_plugin_kafka.source->start(r->source, &at);
}

static void reader_close(struct reader *r)
{
	dmsr_plugin_kafka.source->close(r->source);
	r->source = NULL;
	r->answers = true;
	loop_task_post(r->answer);
	fake_settle(r->kit->loop);
}

static void reader_free(struct reader *r)
{
	if (r->source)
		reader_close(r);
	loop_task_free(r->answer);
	loop_task_free(r->room);
	free(r);
}

static bool has_reached(void *arg)
{
	struct reader *r = arg;
	return r->has_failed || r->reached >= r->want;
}

static bool has_asked(void *arg)
{
	struct reader *r = arg;
	return r->has_failed || r->asked;
}

static void run_to(struct reader *r, uint64_t lsn)
{
	r->want = lsn;
	if (!fake_run(r->kit->loop, has_reached, r, KIT_WAIT_MS) || r->has_failed)
		fail_msg("in vain: %s; reached %llu of %llu", r->error, (unsigned long long)r->reached, (unsigned long long)lsn);
}

/* A transaction of one row, id; its LSN. */
static uint64_t change(struct kit *k, int64_t id)
{
	assert_int_equal(kit_produce(k, kit_txn(k, id, 1, 10)), DMSR_OK);
	kit_run(k, kit_all_delivered);
	return k->lsn;
}

static uint64_t load(struct kit *k, uint64_t snapshot)
{
	static const enum change_op words[] = { OP_LOAD_BEGIN, OP_ROWS, OP_LOAD_END };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		assert_int_equal(kit_produce(k, kit_load(k, snapshot, words[i], 3)), DMSR_OK);
	kit_run(k, kit_all_delivered);
	return snapshot;
}

static struct kit *writer(void)
{
	struct kit *k = kit_new("native");
	kit_open(k);
	assert_string_equal(k->error.message, "");
	return k;
}

/* Who has what comes behind it never goes without the note, whatever it was killed in. */
static void what_is_left_out_is_noted_before_anything_comes_behind_it(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1), left_out = change(k, 2), next;
	(void)state;
	r->answers = false;
	start(r, from, 0, 1);
	assert_true(fake_run(k->loop, has_asked, r, KIT_WAIT_MS));
	next = change(k, 3);
	fake_run(k->loop, NULL, NULL, 200);
	assert_in_range(r->reached, 0, from);
	r->answers = true;
	loop_task_post(r->answer);
	run_to(r, left_out);
	run_to(r, next);
	assert_int_equal(r->nids, 0);
	assert_int_equal(r->asked, 1); /* one that is newer than all that any target has says it */
	reader_free(r);
	kit_free(k);
}

/* The note is of before the load, since the run was killed with that: which its targets have. */
static void a_load_that_is_there_ends_what_was_noted_before_it(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1), left_out = change(k, 2), snapshot, next;
	(void)state;
	start(r, from, 0, 1);
	run_to(r, left_out);
	assert_int_equal(r->notices, 1);
	struct kit_note notes[NOTES];
	memcpy(notes, r->notes, sizeof notes);
	snapshot = load(k, left_out + FAKE_LSN_STEP / 4);
	next = change(k, 3);
	run_to(r, next);
	assert_int_equal(r->nloads, 1);
	assert_int_equal(r->nids, 1);
	reader_close(r);

	memcpy(r->notes, notes, sizeof notes);
	start(r, left_out, snapshot, 0);
	run_to(r, next);
	assert_int_equal(r->notices, 0);
	assert_int_equal(r->nloads, 0);
	assert_int_equal(r->nids, 1);
	assert_int_equal(r->ids[0], 3);
	reader_free(r);
	kit_free(k);
}

/* Nobody awaits it any more, but a load of before lacks what was left out since. */
static void a_load_of_before_is_of_no_use(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t first = change(k, 1), from = change(k, 2), left_out = change(k, 3), next;
	(void)state;
	start(r, from, 0, first);
	run_to(r, left_out);
	reader_close(r);
	next = change(k, 4);
	start(r, left_out, first, 0);
	run_to(r, next);
	assert_int_equal(r->nids, 0);
	assert_int_equal(r->notices, 1);
	/* nor is one that comes late, and is older than what was left out */
	load(k, left_out);
	next = change(k, 5);
	run_to(r, next);
	assert_int_equal(r->nloads + r->nids, 0);
	load(k, next + FAKE_LSN_STEP / 4);
	next = change(k, 6);
	run_to(r, next);
	assert_int_equal(r->nloads, 1);
	assert_int_equal(r->nids, 1);
	reader_free(r);
	kit_free(k);
}

/* A target was added and taken out again, and nothing changed meanwhile. */
static void an_awaited_table_that_did_not_change_is_as_it_was(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t first = change(k, 1), from = change(k, 2), next;
	(void)state;
	start(r, from, 0, first);
	fake_run(k->loop, NULL, NULL, 100);
	reader_close(r);
	start(r, from, first, 0);
	next = change(k, 3);
	run_to(r, next);
	assert_int_equal(r->notices, 0);
	assert_int_equal(r->nids, 1);
	reader_free(r);
	kit_free(k);
}

/* What was taken out of a batch, and what a load has come to, is judged once, however often its host has no room. */
static void what_waits_for_room_is_judged_once(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1), left_out = change(k, 2), next;
	(void)state;
	r->is_slow = true;
	start(r, from, 0, 1);
	run_to(r, left_out);
	load(k, left_out + FAKE_LSN_STEP / 4);
	next = change(k, 3);
	run_to(r, next);
	assert_int_equal(r->nloads, 1);
	assert_int_equal(r->nids, 1);
	assert_int_equal(r->ids[0], 3);
	reader_free(r);
	kit_free(k);
}

/* Sent on by hand, past a load: what is there goes on. */
static void what_is_loaded_stays_so_past_a_load_of_before(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t first = change(k, 1), from, next;
	(void)state;
	load(k, first + FAKE_LSN_STEP / 4);
	from = change(k, 2);
	start(r, from, first - 1, 0);
	next = change(k, 3);
	run_to(r, next);
	assert_int_equal(r->notices + r->nloads, 0);
	assert_int_equal(r->nids, 1);
	reader_free(r);
	kit_free(k);
}

/* In the run that left it out, too. */
static void a_load_as_old_as_what_was_left_out_in_this_run(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1), left_out = change(k, 2), next;
	(void)state;
	start(r, from, 0, 1);
	run_to(r, left_out);
	load(k, left_out);
	next = change(k, 3);
	run_to(r, next);
	assert_int_equal(r->nloads + r->nids, 0);
	reader_free(r);
	kit_free(k);
}

static void closed_while_it_notes(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1);
	change(k, 2);
	(void)state;
	for (int how = 0; how < 4; how++) {
		r->answers = false;
		r->note_fails = how & 1;
		memset(r->notes, 0, sizeof r->notes);
		start(r, from, 0, 1);
		assert_true(fake_run(k->loop, has_asked, r, KIT_WAIT_MS));
		if (how & 2)
			dmsr_plugin_kafka.source->stop(r->source);
		fake_run(k->loop, NULL, NULL, 20);
		reader_close(r);
		assert_in_range(r->reached, 0, from);
	}
	reader_free(r);
	kit_free(k);
}

static void paused_while_it_notes(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1), left_out = change(k, 2);
	(void)state;
	for (int how = 0; how < 2; how++) {
		memset(r->notes, 0, sizeof r->notes);
		r->answers = false;
		start(r, from, 0, 1);
		assert_true(fake_run(k->loop, has_asked, r, KIT_WAIT_MS));
		dmsr_plugin_kafka.source->pause(r->source);
		if (how) /* and resumed before the answer */
			dmsr_plugin_kafka.source->resume(r->source);
		r->answers = true;
		loop_task_post(r->answer);
		fake_run(k->loop, NULL, NULL, 100);
		if (!how) {
			assert_int_equal(r->reached, 0);
			dmsr_plugin_kafka.source->resume(r->source);
		}
		run_to(r, left_out);
		run_to(r, change(k, 3 + how));
		reader_close(r);
	}
	reader_free(r);
	kit_free(k);
}

static void a_note_that_fails_ends_the_run(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1);
	change(k, 2);
	(void)state;
	r->note_fails = true;
	start(r, from, 0, 1);
	r->want = UINT64_MAX;
	assert_true(fake_run(k->loop, has_reached, r, KIT_WAIT_MS));
	assert_string_equal(r->error, "test.note");
	assert_in_range(r->reached, 0, from);
	reader_free(r);
	kit_free(k);
}

/* The writer goes on without it, and so with nobody's rows. */
static void a_load_that_was_cut_off_for_good_is_told(void **state)
{
	struct kit *k = writer();
	struct reader *r = reader_new(k);
	uint64_t from = change(k, 1);
	(void)state;
	assert_int_equal(kit_produce(k, kit_load(k, from + FAKE_LSN_STEP / 4, OP_LOAD_BEGIN, 3)), DMSR_OK);
	assert_int_equal(kit_produce(k, kit_load(k, from + FAKE_LSN_STEP / 4, OP_ROWS, 3)), DMSR_OK);
	change(k, 2);
	start(r, from, 0, 0);
	r->want = UINT64_MAX;
	assert_true(fake_run(k->loop, has_reached, r, KIT_WAIT_MS));
	assert_string_equal(r->error, "kafka.no-load");
	reader_free(r);
	kit_free(k);
}

RUN_TESTS(cmocka_unit_test(closed_while_it_notes), cmocka_unit_test(paused_while_it_notes), cmocka_unit_test(a_note_that_fails_ends_the_run),
	cmocka_unit_test(what_is_loaded_stays_so_past_a_load_of_before),
	cmocka_unit_test(a_load_as_old_as_what_was_left_out_in_this_run),
	cmocka_unit_test(what_waits_for_room_is_judged_once),
	cmocka_unit_test(what_is_left_out_is_noted_before_anything_comes_behind_it),
	cmocka_unit_test(a_load_that_is_there_ends_what_was_noted_before_it),
	cmocka_unit_test(a_load_of_before_is_of_no_use),
	cmocka_unit_test(a_load_that_was_cut_off_for_good_is_told),
	cmocka_unit_test(an_awaited_table_that_did_not_change_is_as_it_was))
