/* test_kafka_index: where rows stand, to bytes and back (streamers/kafka/index.h). */
#include "test.h"

#include "connectors/fake/fake.h"
#include "streamers/kafka/index.h"

enum { ROWS = 64 };

/* What a writer has: words, and rows between them. */
struct script {
	struct batch *words;
	struct index_row rows[ROWS];
	size_t n;
	uint32_t nwords;
	struct buf out;
};

static const char a[] = "shop.public.a", b[] = "shop.public.b";

static void begin(struct script *s, uint64_t end)
{
	*s = (struct script){ .words = batch_new() };
	s->words->end = fake_position(end, POSITION_WHOLE);
	buf_init(&s->out, 1 << 20);
}

static void word(struct script *s, enum change_op op, const struct txn *t)
{
	if (t)
		batch_txn(s->words, t);
	struct relation *rel = op == OP_TRUNCATE ? fake_relation("a", 1) : NULL;
	struct change *ch = batch_append(s->words, op, rel);
	relation_unref(rel);
	ch->txn = t ? s->words->txn : NULL;
	ch->event = op == OP_COMMIT ? POSITION_WHOLE : 0;
	s->nwords++;
}

static struct index_row *row(struct script *s, const struct txn *t, uint64_t event, const char *topic, int32_t partition, int64_t offset)
{
	struct index_row *r = &s->rows[s->n++];
	*r = (struct index_row){ .topic = topic, .txn = t, .event = event, .offset = offset, .partition = partition, .words = s->nwords };
	if (s->n > 1)
		s->rows[s->n - 2].next = r;
	return r;
}

static int encode(struct script *s)
{
	struct buf packed;
	buf_init(&packed, 1 << 20);
	assert_int_equal(batch_pack(s->words, &packed), 0);
	int rc = index_encode(s->n ? s->rows : NULL, 100 * s->n, packed.data, packed.len, s->nwords, &s->out);
	buf_fini(&packed);
	return rc;
}

/* Into the corpus of tests/fuzz/fuzz_index.c. */
static void keep(const struct script *s, const char *name)
{
	const char *dir = getenv("DMSR_CORPUS");
	char path[300];
	if (!dir)
		return;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(s->out.data, 1, s->out.len, f), s->out.len);
	fclose(f);
}

static void end(struct script *s)
{
	batch_free(s->words);
	buf_fini(&s->out);
}

/* All of it comes back, in order, and no shorter record does. */
static struct index *back(struct script *s, const char *name)
{
	struct err e = { 0 };
	assert_int_equal(encode(s), 0);
	keep(s, name);
	for (size_t n = 0; n < s->out.len; n++) {
		struct index *x = index_decode(s->out.data, n, &e);
		if (!x)
			assert_string_equal(e.id, "kafka.foreign");
		assert_true(!x || x->nspots < s->n || x->b->nchanges == s->nwords + s->n);
		index_free(x);
	}
	struct index *x = index_decode(s->out.data, s->out.len, &e);
	assert_non_null(x);
	assert_int_equal(x->nspots, s->n);
	assert_int_equal(x->bytes, 100 * s->n);
	for (size_t i = 0; i < s->n; i++) {
		const struct index_spot *at = &x->spots[i];
		assert_string_equal(x->lanes[at->lane].topic, s->rows[i].topic);
		assert_int_equal(x->lanes[at->lane].partition, s->rows[i].partition);
		assert_int_equal(at->offset, s->rows[i].offset);
		assert_int_equal(at->is_old, s->rows[i].is_old);
		assert_int_equal(at->ch->event, s->rows[i].event);
		assert_int_equal(at->ch->txn->lsn, s->rows[i].txn->lsn);
		assert_int_equal(at->ch->txn->xid, s->rows[i].txn->xid);
		assert_int_equal(at->ch->txn->commit_us, s->rows[i].txn->commit_us);
		assert_int_equal(at->ch->txn->streamed, s->rows[i].txn->streamed);
	}
	return x;
}

static void ops_are(const struct index *x, const char *ops)
{
	const struct change *ch = x->b->first;
	for (; ch && *ops; ch = ch->next, ops++)
		assert_int_equal(ch->op, *ops);
	assert_null(ch);
	assert_int_equal(*ops, 0);
}

static void rows_between_words(void **state)
{
	struct txn one = { .lsn = 1000, .commit_us = 1700000000000000, .xid = 7 }, two = { .lsn = 2000, .commit_us = -5, .xid = UINT32_MAX, .streamed = true };
	struct script s;
	(void)state;
	begin(&s, 2000);
	word(&s, OP_BEGIN, &one);
	for (unsigned i = 1; i <= 5; i++)
		row(&s, &one, i, a, 0, 100 + i);
	word(&s, OP_TRUNCATE, &one);
	row(&s, &one, 7, b, 3, INT64_MAX / 4);
	row(&s, &one, 8, b, 2, 0);
	row(&s, &one, 9, b, 3, INT64_MAX / 4 + 2);
	word(&s, OP_COMMIT, &one);
	word(&s, OP_BEGIN, &two);
	row(&s, &two, 1, a, 0, 106);
	word(&s, OP_COMMIT, &two);
	word(&s, OP_HEARTBEAT, NULL);
	struct index *x = back(&s, "rows");
	ops_are(x, "BuuuuutuuuCBuCh");
	assert_int_equal(x->nlanes, 3);
	assert_ptr_equal(x->spots[0].ch->txn, x->b->first->txn); /* as others of its transaction */
	assert_in_range(s.out.len, 1, 700);
	index_free(x);
	end(&s);
}

/* A long run is a few bytes, whatever its length. */
static void runs_are_short(void **state)
{
	struct txn t = { .lsn = 1000 };
	struct script s;
	(void)state;
	size_t len[2];
	for (unsigned k = 0; k < 2; k++) {
		begin(&s, 1000);
		word(&s, OP_BEGIN, &t);
		for (unsigned i = 1; i <= (k ? ROWS : 8u); i++)
			row(&s, &t, i, a, 0, 100 + i);
		index_free(back(&s, k ? "long" : "short"));
		len[k] = s.out.len;
		end(&s);
	}
	assert_in_range(len[1], len[0], len[0] + 4);
}

/* Of which the begin stands in a record before. */
static void amid_a_transaction(void **state)
{
	struct txn t = { .lsn = 1000, .xid = 3 };
	struct script s;
	(void)state;
	begin(&s, 1000);
	s.words->end.event = 5000002;
	s.words->more = true;
	row(&s, &t, 5000001, a, 9999, 17);
	row(&s, &t, 5000002, a, 9999, 19);
	struct index *x = back(&s, "amid");
	ops_are(x, "uu");
	assert_true(x->b->more);
	index_free(x);
	end(&s);
}

static void keys_that_change(void **state)
{
	struct txn t = { .lsn = 1000 };
	struct script s;
	(void)state;
	begin(&s, 1000);
	word(&s, OP_BEGIN, &t);
	row(&s, &t, 1, a, 0, 5)->is_old = true;
	row(&s, &t, 1, a, 1, 50);
	row(&s, &t, 2, a, 0, 7)->is_old = true; /* behind a tombstone; to the same partition */
	row(&s, &t, 2, a, 0, 9);
	row(&s, &t, 3, a, 0, 10);
	word(&s, OP_COMMIT, &t);
	struct index *x = back(&s, "moves");
	ops_are(x, "BuuuC");
	assert_ptr_equal(x->spots[0].ch, x->spots[1].ch);
	/* what is known is not fetched */
	batch_cut(x->b, &(struct position){ .kind = POSITION_LSN, .server = x->b->end.server, .lsn = 1000, .event = 2 });
	index_forget_cut(x);
	assert_int_equal(x->nspots, 1);
	assert_int_equal(x->spots[0].offset, 10);
	index_free(x);
	end(&s);
}

static void words_alone(void **state)
{
	struct script s;
	(void)state;
	begin(&s, 1000);
	word(&s, OP_HEARTBEAT, NULL);
	struct index *x = back(&s, "words");
	ops_are(x, "h");
	assert_int_equal(x->nlanes, 0);
	index_free(x);
	end(&s);
}

/* A byte more, another version, or a run that says more than there can be. */
static void what_is_refused(void **state)
{
	struct txn t = { .lsn = 1000 };
	struct script s;
	(void)state;
	begin(&s, 1000);
	word(&s, OP_BEGIN, &t);
	row(&s, &t, 1, a, 0, 5);
	assert_int_equal(encode(&s), 0);
	const size_t len = s.out.len;
	buf_append(&s.out, "\x01\x00", 2);
	assert_null(index_decode(s.out.data, len + 1, NULL));
	s.out.data[0] = 2;
	assert_null(index_decode(s.out.data, len, NULL));
	s.out.data[0] = 1;
	s.out.len = len - 4; /* the last step: n << 2 | ROWS, lane, skip, gap */
	assert_int_equal(s.out.data[s.out.len], 1 << 2 | 1);
	buf_append(&s.out, "\xfd\xff\xff\xff\x7f\x00\x00\x00", 8);
	assert_null(index_decode(s.out.data, s.out.len, NULL));
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_between_words),
		cmocka_unit_test(runs_are_short),
		cmocka_unit_test(amid_a_transaction),
		cmocka_unit_test(keys_that_change),
		cmocka_unit_test(words_alone),
		cmocka_unit_test(what_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
