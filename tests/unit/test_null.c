/* test_null: what it counts, when it says applied, that it waits, stops, and dies of a codec's error. */
#include "test.h"

#include "connectors/fake/fake.h"

extern const struct dmsr_plugin dmsr_plugin_null;

struct end {
	struct loop *loop;
	struct dmsr_instance *t;
	struct settings *settings;
	bool is_ready, is_stopped, has_failed, is_in_verb;
	bool closes_when_applied;
	unsigned resumed;
	uint64_t applied;               /* newest token */
	struct dmsr_table_counts sum;   /* of all tables */
	unsigned ntables;               /* entries of counts, all batches */
	struct err error;
};

static const struct dmsr_target *target(void) { return dmsr_plugin_null.target; }

static void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t nloaded, bool load_done)
{
	struct end *d = ctx;
	assert_false(d->is_in_verb);
	assert_true(position_is_none(applied));
	assert_false(keeps || loaded || nloaded || load_done);
	d->is_ready = true;
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct end *d = ctx;
	assert_false(d->is_in_verb);
	assert_int_equal(token, d->applied + 1);
	d->applied = token;
	d->ntables += (unsigned)n;
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(counts[i].schema, "public");
		d->sum.loaded += counts[i].loaded;
		d->sum.created += counts[i].created;
		d->sum.updated += counts[i].updated;
		d->sum.deleted += counts[i].deleted;
		d->sum.truncated += counts[i].truncated;
		d->sum.ddl += counts[i].ddl;
	}
	if (d->closes_when_applied) {
		target()->close(d->t);
		d->t = NULL;
	}
}

static void on_resume(void *ctx) { ((struct end *)ctx)->resumed++; }

static void on_failed(void *ctx, const struct err *e)
{
	struct end *d = ctx;
	assert_false(d->has_failed);
	d->has_failed = true;
	d->error = *e;
}

static void on_stopped(void *ctx) { ((struct end *)ctx)->is_stopped = true; }

/* ---- a codec that refuses the row with id 13 ---- */

static unsigned encoded, codecs_open;

static int codec_open(const struct settings *s, const struct dmsr_codec_source *src, struct dmsr_instance **out, struct err *e)
{
	(void)s;
	(void)e;
	assert_string_equal(src->name, "shop");
	codecs_open++;
	*out = (struct dmsr_instance *)(void *)&codecs_open;
	return 0;
}

static int codec_encode(struct dmsr_instance *i, const struct change *ch, struct dmsr_record *records, unsigned max, struct err *e)
{
	(void)i;
	assert_true(max >= DMSR_RECORDS_MAX);
	if (!change_is_row(ch))
		return 0;
	if (fake_row_id(ch) == 13)
		return err_set(e, DMSR_EDATA, "codec.unlucky", "row 13 cannot be written");
	records[0] = (struct dmsr_record){ 0 };
	encoded++;
	return 1;
}

static void codec_close(struct dmsr_instance *i)
{
	assert_ptr_equal(i, &codecs_open);
	codecs_open--;
}

static const struct dmsr_codec *find_codec(const void *codecs, const char *name)
{
	static const struct dmsr_codec codec = { .open = codec_open, .encode = codec_encode, .close = codec_close };
	(void)codecs;
	return !strcmp(name, "json") ? &codec : NULL;
}

/* ---- set-up ---- */

static int open_it(struct end *d, const char *encode, int64_t delay_ms, struct err *e)
{
	struct dmsr_target_host host = { .ctx = d, .ready = on_ready, .applied = on_applied, .resume = on_resume, .failed = on_failed, .stopped = on_stopped };
	*d = (struct end){ .loop = loop_new(), .settings = settings_new() };
	settings_put_str(d->settings, "encode", encode);
	settings_put_int(d->settings, "delay", delay_ms);
	host.env = (struct dmsr_env){ .loop = d->loop, .job = "shop", .uid = "u", .name = "nowhere", .codec = find_codec };
	return target()->open(d->settings, &host, &d->t, e);
}

static void start(struct end *d, const char *encode, int64_t delay_ms)
{
	assert_int_equal(open_it(d, encode, delay_ms, NULL), 0);
	d->is_in_verb = true;
	target()->start(d->t);
	d->is_in_verb = false;
}

static void leave(struct end *d)
{
	if (d->t)
		target()->close(d->t);
	settings_free(d->settings);
	loop_free(d->loop);
}

static enum dmsr_verdict apply(struct end *d, const struct batch *b, uint64_t token)
{
	d->is_in_verb = true;
	enum dmsr_verdict v = target()->apply(d->t, b, token);
	d->is_in_verb = false;
	return v;
}

static bool two_applied(void *arg) { return ((struct end *)arg)->applied == 2; }
static bool is_over(void *arg)
{
	struct end *d = arg;
	return d->is_stopped || d->has_failed;
}

static struct batch *load(struct relation *rel, int64_t first_id)
{
	struct batch *b = batch_new();
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = 50 });
	batch_append(b, OP_LOAD_BEGIN, rel);
	fake_add_rows(b, rel, first_id, 5);
	fake_add_row(b, OP_READ, rel, 0, 99, 3);
	batch_append(b, OP_LOAD_END, rel);
	batch_append(b, OP_LOAD_DONE, NULL);
	return b;
}

static struct batch *stream(struct relation *rel, struct relation *other)
{
	struct batch *b = batch_new();
	b->end = fake_position(100, POSITION_WHOLE);
	batch_txn(b, &(struct txn){ .lsn = 100, .commit_us = 77 });
	batch_append(b, OP_BEGIN, NULL);
	fake_add_row(b, OP_CREATE, rel, 1, 1, 3);
	fake_add_row(b, OP_UPDATE, other, 2, 2, 3);
	fake_add_row(b, OP_UPDATE, rel, 3, 3, 3);
	fake_add_row(b, OP_DELETE, rel, 4, 4, 3);
	batch_append(b, OP_TRUNCATE, rel);
	batch_append(b, OP_SCHEMA, rel);              /* first seen: nothing changed */
	batch_append(b, OP_SCHEMA, rel)->u.schema.old = other;
	batch_append(b, OP_COMMIT, NULL);
	return b;
}

/* ---- the tests ---- */

static void counts_what_it_gets(void **state)
{
	struct relation *rel = fake_relation("a", 1), *other = fake_relation("b", 2);
	struct batch *one = load(rel, 20), *two = stream(rel, other);
	struct dmsr_target_stat s;
	struct end d;
	(void)state;
	start(&d, "none", 0);
	assert_int_equal(apply(&d, one, 1), DMSR_OK);
	assert_int_equal(apply(&d, two, 2), DMSR_OK);
	assert_true(fake_run(d.loop, two_applied, &d, FAKE_LONG_MS));
	assert_true(d.is_ready);
	assert_int_equal(d.sum.loaded, 6);
	assert_int_equal(d.sum.created, 1);
	assert_int_equal(d.sum.updated, 2);
	assert_int_equal(d.sum.deleted, 1);
	assert_int_equal(d.sum.truncated, 1);
	assert_int_equal(d.sum.ddl, 1);
	assert_int_equal(d.ntables, 3);
	target()->stat(d.t, &s);
	assert_int_equal(s.applied.lsn, 100);
	assert_int_equal(s.rows_applied, 10);
	assert_int_equal(s.transactions, 1);
	assert_int_equal(s.last_commit_us, 77);
	assert_int_equal(s.queued_bytes, 0);
	target()->stop(d.t);
	assert_true(fake_run(d.loop, is_over, &d, FAKE_LONG_MS));
	assert_true(d.is_stopped && !d.has_failed);
	leave(&d);
	batch_free(one);
	batch_free(two);
	relation_unref(rel);
	relation_unref(other);
}

static void encodes_every_row(void **state)
{
	struct relation *rel = fake_relation("a", 1), *other = fake_relation("b", 2);
	struct batch *one = load(rel, 20), *two = stream(rel, other), *bad = load(rel, 10);
	struct end d;
	(void)state;
	encoded = 0;
	start(&d, "json", 0);
	assert_int_equal(apply(&d, one, 1), DMSR_OK);
	assert_int_equal(apply(&d, two, 2), DMSR_OK);
	assert_int_equal(apply(&d, bad, 3), DMSR_OK);
	assert_true(fake_run(d.loop, is_over, &d, FAKE_LONG_MS));
	assert_int_equal(d.applied, 2);
	assert_int_equal(encoded, 10 + 3); /* rows 10 11 12, and then the unlucky one */
	assert_true(d.has_failed && !d.is_stopped);
	assert_string_equal(d.error.id, "codec.unlucky");
	assert_non_null(strstr(d.error.message, "nowhere"));
	assert_int_equal(codecs_open, 1);
	leave(&d);
	assert_int_equal(codecs_open, 0);
	batch_free(one);
	batch_free(two);
	batch_free(bad);
	relation_unref(rel);
	relation_unref(other);
}

static void refuses_an_unknown_codec(void **state)
{
	struct err e = { 0 };
	struct end d;
	(void)state;
	assert_int_equal(open_it(&d, "csv", 0, &e), DMSR_ENOTFOUND);
	assert_string_equal(e.id, "option.codec");
	assert_null(d.t);
	leave(&d);
}

static void waits_and_is_full(void **state)
{
	struct relation *rel = fake_relation("a", 1);
	struct batch *big = batch_new();
	struct end d;
	(void)state;
	big->end = fake_position(100, POSITION_WHOLE);
	batch_txn(big, &(struct txn){ .lsn = 100 });
	fake_add_row(big, OP_CREATE, rel, 1, 1, 5 << 20);
	start(&d, "none", 300);
	uint64_t began_us = loop_now_us(d.loop);
	assert_int_equal(apply(&d, big, 1), DMSR_OK);
	assert_int_equal(apply(&d, big, 2), DMSR_OK);
	assert_int_equal(apply(&d, big, 3), DMSR_AGAIN);
	assert_true(fake_run(d.loop, two_applied, &d, FAKE_LONG_MS));
	assert_true(loop_now_us(d.loop) - began_us >= 600000);
	assert_int_equal(d.resumed, 1);
	leave(&d);
	/* A stop does not wait for what was taken. */
	start(&d, "none", 100000);
	assert_int_equal(apply(&d, big, 1), DMSR_OK);
	began_us = loop_now_us(d.loop);
	target()->stop(d.t);
	assert_int_equal(apply(&d, big, 2), DMSR_AGAIN);
	assert_true(fake_run(d.loop, is_over, &d, FAKE_LONG_MS));
	assert_true(loop_now_us(d.loop) - began_us < 90000000);
	assert_int_equal(d.applied, 1);
	leave(&d);
	batch_free(big);
	relation_unref(rel);
}

static void may_be_closed_by_a_callback(void **state)
{
	struct relation *rel = fake_relation("a", 1);
	struct batch *b = load(rel, 20);
	struct end d;
	(void)state;
	start(&d, "json", 0);
	d.closes_when_applied = true;
	assert_int_equal(apply(&d, b, 1), DMSR_OK);
	assert_int_equal(apply(&d, b, 2), DMSR_OK);
	fake_run(d.loop, NULL, NULL, 20);
	assert_int_equal(d.applied, 1);
	assert_null(d.t);
	assert_int_equal(codecs_open, 0);
	leave(&d);
	batch_free(b);
	relation_unref(rel);
}

static void stops_before_it_starts(void **state)
{
	struct end d;
	(void)state;
	assert_int_equal(open_it(&d, "none", 0, NULL), 0);
	target()->stop(d.t);
	assert_true(fake_run(d.loop, is_over, &d, FAKE_LONG_MS));
	assert_true(d.is_stopped && !d.is_ready);
	leave(&d);
}

static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	assert_null(e);
	assert_int_equal(n, 1);
	assert_int_equal(checks[0].level, DMSR_CHECK_OK);
	assert_string_equal(checks[0].id, "null.ok");
	assert_string_equal(checks[0].object, "null");
	*(bool *)ctx = true;
}

static bool is_set(void *arg) { return *(bool *)arg; }

static void passes_its_check(void **state)
{
	bool answered = false;
	struct dmsr_instance *p;
	struct dmsr_probe_host host = { .ctx = &answered, .checked = on_checked };
	(void)state;
	host.env.loop = loop_new();
	assert_int_equal(dmsr_plugin_null.target_probe->check(NULL, NULL, DMSR_CDC, &host, &p, NULL), 0);
	assert_false(answered);
	assert_true(fake_run(host.env.loop, is_set, &answered, FAKE_LONG_MS));
	dmsr_plugin_null.target_probe->close(p);
	/* closed before the answer: cancelled */
	assert_int_equal(dmsr_plugin_null.target_probe->check(NULL, NULL, DMSR_CDC, &host, &p, NULL), 0);
	dmsr_plugin_null.target_probe->close(p);
	loop_free(host.env.loop);
}

RUN_TESTS(
	cmocka_unit_test(counts_what_it_gets),
	cmocka_unit_test(encodes_every_row),
	cmocka_unit_test(refuses_an_unknown_codec),
	cmocka_unit_test(waits_and_is_full),
	cmocka_unit_test(may_be_closed_by_a_callback),
	cmocka_unit_test(stops_before_it_starts),
	cmocka_unit_test(passes_its_check))
