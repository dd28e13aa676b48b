/* batch_pack: what is packed comes back, the parts of a load too, and a load without parts is as it was before there were any. batch_without: the view has
 * what does not go, and the batch is as it was. */
#include "test.h"

#include "model/batch.h"

static struct relation *table(void)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 7);
	const struct column c = { .name = "a", .native_type = "integer", .typmod = -1 };
	relation_build_column(b, &c);
	return relation_seal(b, KEY_NONE);
}

static struct batch *of_load(struct relation *rel, uint32_t part, uint32_t parts)
{
	struct batch *b = batch_new();
	b->is_load = true;
	b->part = part;
	batch_txn(b, &(struct txn){ .lsn = 77 });
	if (!part)
		batch_append(b, OP_LOAD_BEGIN, rel)->u.load.parts = parts;
	struct change *rows = batch_append(b, OP_ROWS, rel);
	rows->u.rows.format = ROWS_COPY_TEXT;
	rows->u.rows.data = arena_dup(&b->arena, "1\n2\n", 4);
	rows->u.rows.len = 4;
	rows->u.rows.rows = 2;
	b->nrows = 2;
	b->bytes = 4;
	batch_append(b, part ? OP_LOAD_PART : OP_LOAD_END, rel);
	return b;
}

static void packed(struct batch *b, struct buf *out)
{
	buf_init(out, 4096);
	assert_int_equal(batch_pack(b, out), 0);
	batch_free(b);
}

static void parts_come_back(void **state)
{
	struct relation *rel = table();
	struct err e = { 0 };
	struct buf out;
	(void)state;
	packed(of_load(rel, 0, 9), &out);
	struct batch *b = batch_unpack(out.data, out.len, &e);
	assert_non_null(b);
	assert_int_equal(b->part, 0);
	assert_int_equal(b->first->u.load.parts, 9);
	batch_free(b);
	buf_fini(&out);

	packed(of_load(rel, 4, 0), &out);
	b = batch_unpack(out.data, out.len, &e);
	assert_non_null(b);
	assert_int_equal(b->part, 4);
	assert_int_equal(b->nrows, 2);
	assert_int_equal(b->last->op, OP_LOAD_PART);
	batch_free(b);
	/* any byte less is none */
	for (size_t n = out.len; n-- > 0;) {
		err_clear(&e);
		assert_null(batch_unpack(out.data, n, &e));
		assert_string_equal(e.id, "batch.malformed");
	}
	buf_fini(&out);
	relation_unref(rel);
}

/* Logs of earlier versions hold such: no byte of theirs means anything else now. */
static void undivided_has_no_parts(void **state)
{
	struct relation *rel = table();
	struct err e = { 0 };
	struct buf out;
	(void)state;
	packed(of_load(rel, 0, 0), &out);
	assert_int_equal(out.data[1], 2);
	struct batch *b = batch_unpack(out.data, out.len, &e);
	assert_non_null(b);
	assert_int_equal(b->first->u.load.parts, 0);
	assert_int_equal(b->last->op, OP_LOAD_END);
	batch_free(b);
	buf_fini(&out);
	relation_unref(rel);
}

static void what_goes_on_comes_back(void **state)
{
	struct relation *rel = table();
	struct err e = { 0 };
	struct buf out;
	(void)state;
	struct batch *b = of_load(rel, 0, 9);
	b->first->u.load.since = b->last->u.load.since = 0x123456789a;
	b->end.server = 0x9876543210;
	assert_int_equal(change_loaded_lsn(b->last), 0x123456789a);
	packed(b, &out);
	b = batch_unpack(out.data, out.len, &e);
	assert_non_null(b);
	assert_true(position_is_none(&b->end));
	assert_int_equal(b->end.server, 0x9876543210);
	assert_int_equal(b->first->u.load.parts, 9);
	assert_int_equal(b->first->u.load.since, 0x123456789a);
	assert_int_equal(b->last->u.load.since, 0x123456789a);
	batch_free(b);
	for (size_t n = out.len; n-- > 0;)
		assert_null(batch_unpack(out.data, n, &e));
	buf_fini(&out);
	/* its end alone, and the end of one that is of this snapshot */
	b = batch_new();
	b->is_load = true;
	batch_txn(b, &(struct txn){ .lsn = 77 });
	batch_append(b, OP_LOAD_END, rel)->u.load.since = 5;
	packed(b, &out);
	b = batch_unpack(out.data, out.len, &e);
	assert_non_null(b);
	assert_int_equal(change_loaded_lsn(b->last), 5);
	b->last->u.load.since = 0;
	assert_int_equal(change_loaded_lsn(b->last), 77);
	batch_free(b);
	buf_fini(&out);
	relation_unref(rel);
}

/* What is left comes behind the position: where that is inside of a transaction, it goes on behind the batch. */
static void a_word_stays_behind_what_is_known(void **state)
{
	/* Behind a transaction; inside, as the source said it and as a ledger keeps it; behind a begin, the same; where one may begin. */
	static const struct { uint64_t event, flush; bool is_inside; } places[] = { { POSITION_WHOLE, 510, false }, { POSITION_WHOLE, 0, false },
		{ 3, 0, true }, { 3, 410, true }, { 0, 0, true }, { 0, 410, true }, { 0, 500, false }, { 0, 600, false } };
	(void)state;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		const struct position at = { POSITION_LSN, 7, 500, places[i].event, places[i].flush };
		struct batch *b = batch_new();
		batch_txn(b, &(struct txn){ .lsn = 400 });
		batch_append(b, OP_BEGIN, NULL);
		batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
		batch_append(b, OP_LOAD_DONE, NULL);
		b->end = (struct position){ POSITION_LSN, 7, 400, POSITION_WHOLE, 401 };
		assert_int_equal(batch_known(b, &at), KNOWN_PART);
		batch_cut(b, &at);
		assert_ptr_equal(b->first, b->last);
		assert_int_equal(b->first->op, OP_LOAD_DONE);
		assert_int_equal(position_compare(&b->end, &at), 0);
		assert_int_equal(b->more, places[i].is_inside);
		assert_int_equal(position_is_inside(&b->end), places[i].is_inside);
		batch_free(b);
	}
}

/* The begin of a transaction came, and its position is what is known: words of it come behind, at that same place. */
static void a_word_at_the_same_place_stays_in_its_transaction(void **state)
{
	const struct position at = { POSITION_LSN, 7, 500, 0, 0 };
	struct relation *rel = table();
	(void)state;
	for (int more = 0; more < 2; more++) {
		struct batch *b = batch_new();
		batch_txn(b, &(struct txn){ .lsn = 500 });
		batch_append(b, OP_SCHEMA, rel);
		b->end = at;
		b->more = more;
		if (batch_known(b, &at) == KNOWN_PART)
			batch_cut(b, &at);
		assert_int_equal(b->more, more);
		assert_int_equal(b->first->op, OP_SCHEMA);
		batch_free(b);
	}
	relation_unref(rel);
}

/* A word that comes again stands where that transaction begins, and now its begin is there. */
static void a_word_of_before_does_not_end_a_transaction(void **state)
{
	const struct position begun = { POSITION_LSN, 7, 500, 0, 0 }, before = { POSITION_LSN, 7, 500, 0, 500 };
	(void)state;
	assert_int_equal(position_compare(&begun, &before), 0);
	assert_true(position_is_past(&begun, &before));
	assert_false(position_is_past(&before, &begun) || position_is_past(&begun, &begun) || position_is_past(&before, &before));
	struct batch *b = batch_new();
	batch_append(b, OP_LOAD_DONE, NULL);
	b->end = before;
	assert_int_equal(batch_known(b, &begun), KNOWN_PART);
	batch_cut(b, &begun);
	assert_true(b->more && position_is_inside(&b->end));
	batch_free(b);
}

static bool goes(void *arg, const struct change *ch) { return ch->rel == arg; }

static void a_view_lacks_what_goes(void **state)
{
	struct relation *a = table(), *other = table();
	struct batch *b = batch_new();
	(void)state;
	batch_txn(b, &(struct txn){ .lsn = 5 });
	batch_append(b, OP_BEGIN, NULL);
	batch_append(b, OP_CREATE, a)->event = 1;
	batch_append(b, OP_CREATE, other)->event = 2;
	struct change *t = batch_append(b, OP_TRUNCATE, a);
	t->flags = CHANGE_GROUP_MORE | CHANGE_CASCADE;
	batch_append(b, OP_TRUNCATE, other);
	b->more = true;
	b->end = (struct position){ .kind = POSITION_LSN, .server = 1, .lsn = 5, .event = 4 };
	struct batch *v = batch_without(b, goes, other);
	assert_int_equal(v->nchanges, 3);
	assert_int_equal(v->nrows, 1);
	assert_true(v->more);
	assert_int_equal(position_compare(&v->end, &b->end), 0);
	assert_int_equal(v->last->op, OP_TRUNCATE);
	assert_int_equal(v->last->flags, CHANGE_CASCADE); /* nothing of that statement follows any more */
	assert_ptr_equal(v->first->next->txn, b->first->txn);
	batch_free(v);
	assert_int_equal(b->nchanges, 5);
	assert_int_equal(t->flags, CHANGE_GROUP_MORE | CHANGE_CASCADE);

	struct batch *one = batch_new();
	batch_append(one, OP_CREATE, a);
	v = batch_without(one, goes, a);
	assert_int_equal(v->nchanges, 1); /* its end is still to be heard of */
	assert_int_equal(v->first->op, OP_HEARTBEAT);
	batch_free(v);
	batch_free(one);
	batch_free(b);
	relation_unref(a);
	relation_unref(other);
}

static void a_view_behind_a_commit(void **state)
{
	struct relation *a = table();
	struct batch *b = batch_new();
	(void)state;
	batch_txn(b, &(struct txn){ .lsn = 9 });
	batch_append(b, OP_CREATE, a);
	b->nrows = 1;
	b->end = (struct position){ .kind = POSITION_LSN, .server = 1, .lsn = 9, .event = 1 };
	b->more = true;
	struct batch *v = batch_behind_commit(b, &(struct txn){ .lsn = 5, .commit_us = 50 });
	assert_int_equal(v->nchanges, 2);
	assert_int_equal(v->nrows, 1);
	assert_int_equal(v->first->op, OP_COMMIT);
	assert_int_equal(v->first->event, POSITION_WHOLE);
	assert_int_equal(v->first->txn->lsn, 5);
	assert_int_equal(v->last->txn->lsn, 9);
	assert_true(v->more && v->last->op == OP_CREATE);
	batch_free(v);
	assert_int_equal(b->nchanges, 1);
	batch_free(b);
	relation_unref(a);
}

/* In place: the same, and the batch is what is left. */
static void what_goes_is_taken_out(void **state)
{
	struct relation *a = table(), *other = relation_seal(relation_build("postgres", "public", "other", 8), KEY_NONE);
	struct batch *b = batch_new();
	(void)state;
	batch_txn(b, &(struct txn){ .lsn = 5 });
	batch_append(b, OP_TRUNCATE, a)->flags = CHANGE_GROUP_MORE | CHANGE_CASCADE;
	batch_append(b, OP_TRUNCATE, other)->flags = CHANGE_CASCADE;
	batch_take_out(b, goes, other);
	assert_int_equal(b->nchanges, 1);
	assert_ptr_equal(b->first, b->last);
	assert_int_equal(b->last->flags, CHANGE_CASCADE);
	batch_take_out(b, goes, a);
	assert_int_equal(b->nchanges, 1);
	assert_int_equal(b->last->op, OP_HEARTBEAT);
	batch_free(b);
	relation_unref(a);
	relation_unref(other);
}

RUN_TESTS(cmocka_unit_test(a_word_stays_behind_what_is_known),
	cmocka_unit_test(a_word_at_the_same_place_stays_in_its_transaction),
	cmocka_unit_test(a_word_of_before_does_not_end_a_transaction), cmocka_unit_test(a_view_behind_a_commit),
	cmocka_unit_test(what_goes_is_taken_out), cmocka_unit_test(a_view_lacks_what_goes), cmocka_unit_test(parts_come_back),
	cmocka_unit_test(what_goes_on_comes_back), cmocka_unit_test(undivided_has_no_parts))
