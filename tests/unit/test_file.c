/* test_file: the file target as its host sees it, and as somebody who reads the directory sees it: whole files under names made of positions. */
#include "file_kit.h"

static void publishes_and_remembers(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_true(h.keeps);
	assert_true(position_is_none(&h.at));
	struct batch *b1 = transaction(orders, 0x100, 1, 2), *b2 = transaction(orders, 0x200, 3, 1);
	apply(&h, b1, 1);
	apply(&h, b2, 2);
	wait_applied(&h, 2);
	batch_free(b1);
	batch_free(b2);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000200-0000000001.ndjson\n");
	assert_text(ROW(1) ROW(2) ROW(3));
	assert_int_equal(h.counts.created, 3);
	assert_int_equal(count_parts(), 0);
	struct dmsr_target_stat stat;
	target()->stat(h.i, &stat);
	assert_int_equal(stat.applied.lsn, 0x200);
	assert_int_equal(stat.transactions, 2);
	assert_int_equal(stat.rows_applied, 3);
	assert_string_equal(stat.phase, "idle");
	host_stop(&h);

	/* what it has is passed over, and told applied */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_int_equal(h.at.lsn, 0x200);
	assert_true(h.at.event == POSITION_WHOLE);
	assert_int_equal(h.at.flush, 0x208);
	assert_int_equal(h.at.server, 7);
	b1 = transaction(orders, 0x100, 1, 2);
	b2 = transaction(orders, 0x200, 3, 1);
	struct batch *b3 = transaction(odd, 0x300, 4, 1);
	apply(&h, b1, 1);
	apply(&h, b2, 2);
	wait_applied(&h, 2);
	assert_text(ROW(1) ROW(2) ROW(3));
	apply(&h, b3, 3);
	host_stop(&h); /* a stop publishes what is whole */
	batch_free(b1);
	batch_free(b2);
	batch_free(b3);
	assert_names("%2E%2E%2Fa%2Eb.x%2Fy%20%C3%A4.z/0000000000000300-0000000001-0000000000000300-0000000001.ndjson\n"
		     "public.orders/0000000000000100-0000000001-0000000000000200-0000000001.ndjson\n");
	assert_text(ROW(4) ROW(1) ROW(2) ROW(3));
}

static void rolls_by_size(void **state)
{
	struct host h;
	struct batch *b[30];
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=1h"));
	for (int i = 0; i < 30; i++) {
		b[i] = transaction(orders, 0x100 + (uint64_t)i, i, 10);
		apply(&h, b[i], (uint64_t)i + 1);
	}
	wait_applied(&h, 5); /* full files do not wait for the interval */
	host_stop(&h);
	assert_int_equal(h.applied, 30);
	for (int i = 0; i < 30; i++)
		batch_free(b[i]);
	struct listing *l = listing();
	int files = 0, lines = 0;
	for (size_t i = 0; i < l->names.len; i++)
		files += l->names.data[i] == '\n';
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 300);
	assert_true(files >= 5 && files < 20);
}

/* A big transaction: many files, which appear together, when it has ended. */
static void whole_transactions(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=100ms"));
	struct batch *first = transaction(orders, 0x100, 1, 1), *b[4];
	apply(&h, first, 1);
	for (int i = 0; i < 3; i++) {
		b[i] = batch_at();
		add_rows(b[i], orders, 0x200, 1 + 100 * (uint64_t)i, 100 * (i + 1), 100, i == 0 ? PIECE_BEGIN : 0);
		apply(&h, b[i], 2 + (uint64_t)i);
	}
	wait_applied(&h, 1);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000100-0000000001.ndjson\n");
	assert_text(ROW(1));
	b[3] = batch_at();
	add_rows(b[3], orders, 0x200, 301, 400, 100, PIECE_END);
	apply(&h, b[3], 5);
	wait_applied(&h, 5);
	struct listing *l = listing();
	assert_non_null(strstr(buf_cstr(&l->names), "public.orders/0000000000000200-0000000001-0000000000000200-"));
	int lines = 0;
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 401);
	host_stop(&h);

	/* stopped in the middle: nothing of it, and it comes again */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_int_equal(h.at.lsn, 0x200);
	batch_free(b[0]);
	b[0] = batch_at();
	add_rows(b[0], orders, 0x300, 1, 1000, 100, PIECE_BEGIN);
	apply(&h, b[0], 1);
	host_stop(&h);
	assert_int_equal(h.applied, 0);
	assert_null(strstr(buf_cstr(&listing()->names), "0000000000000300-"));
	for (int i = 0; i < 4; i++)
		batch_free(b[i]);
	batch_free(first);
}

static void loads(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), "format=csv", "roll_bytes=1KiB", "roll_interval=1h"));
	struct batch *b[8] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\ta\t\\N\n2\tb,c\t1.5\n"), word(OP_LOAD_END, orders, 0x80) };
	apply(&h, b[0], 1);
	apply(&h, b[1], 2);
	wait_applied(&h, 0);
	assert_names("");
	apply(&h, b[2], 3);
	wait_applied(&h, 3); /* a table's end does not wait for the interval */
	assert_names("public.orders/0000000000000080-0000000000-load-000001.csv\n");
	assert_text("op,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	assert_int_equal(h.counts.loaded, 2);
	/* begun, cut off, begun anew from another snapshot: of the first nothing stays */
	b[3] = word(OP_LOAD_BEGIN, odd, 0x80);
	b[4] = loaded_rows(odd, 0x80, "7\tlost\t\\N\n");
	apply(&h, b[3], 4);
	apply(&h, b[4], 5);
	host_close(&h);
	for (int i = 0; i < 5; i++)
		batch_free(b[i]);

	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	assert_string_equal(h.loads, " public.orders@128");
	assert_false(h.load_done);
	assert_int_equal(count_parts(), 0);
	struct batch *again[10] = {
		word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\ta\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		word(OP_LOAD_BEGIN, odd, 0x90), loaded_rows(odd, 0x90, "7\tlost\t\\N\n"), word(OP_LOAD_BEGIN, odd, 0x98),
		loaded_rows(odd, 0x98, "8\tkept\t\\N\n"), word(OP_LOAD_END, odd, 0x98), word(OP_LOAD_DONE, NULL, 0x98),
		transaction(odd, 0x97, 9, 1), /* in the loaded rows already */
	};
	for (uint64_t i = 0; i < 10; i++)
		apply(&h, again[i], i + 1);
	wait_applied(&h, 9);
	assert_text("op,id,name,total\nI,8,kept,\nop,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	host_stop(&h);
	assert_int_equal(h.applied, 10);
	assert_text("op,id,name,total\nI,8,kept,\nop,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	assert_int_equal(count_parts(), 0);
	for (int i = 0; i < 10; i++)
		batch_free(again[i]);
	host_start(&h, GIVEN(path(), "format=csv"));
	assert_true(h.load_done);
	assert_int_equal(h.at.lsn, 0x97);
	host_stop(&h);
}

/* Loads of two tables, and parts of one, in any order; what is of no open load means nothing. */
static void mixed_loads(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	struct batch *b[] = {
		loaded_rows(odd, 0x80, "1\tnever begun\t\\N\n"),
		word(OP_LOAD_END, odd, 0x80),
		word(OP_LOAD_BEGIN, orders, 0x80),
		word(OP_LOAD_BEGIN, odd, 0x80),
		loaded_rows(odd, 0x80, "7\tin\t\\N\n"),
		loaded_rows(orders, 0x80, "1\ta\t\\N\n"),
		word(OP_LOAD_PART, orders, 0x80),
		loaded_rows(odd, 0x70, "8\tof another snapshot\t\\N\n"),
		loaded_rows(orders, 0x80, "2\tb\t\\N\n"),
		word(OP_LOAD_PART, orders, 0x80),
		word(OP_LOAD_END, odd, 0x80),
		/* another snapshot: that of orders is void, its rest too */
		word(OP_LOAD_BEGIN, odd, 0x90),
		loaded_rows(orders, 0x80, "3\tc\t\\N\n"),
		word(OP_LOAD_END, orders, 0x80),
		/* and a change of the stream voids that of odd */
		transaction(orders, 0x100, 4, 1),
		loaded_rows(odd, 0x90, "9\tvoid\t\\N\n"),
		word(OP_LOAD_END, odd, 0x90),
		word(OP_LOAD_BEGIN, orders, 0x110),
		loaded_rows(orders, 0x110, "5\te\t\\N\n"),
		word(OP_LOAD_END, orders, 0x110),
	};
	uint64_t n = sizeof b / sizeof *b;
	for (uint64_t i = 0; i < n; i++)
		apply(&h, b[i], i + 1);
	host_stop(&h);
	assert_int_equal(h.applied, n);
	assert_int_equal(h.counts.loaded, 2);
	assert_null(strstr(buf_cstr(&listing()->text), "void"));
	assert_non_null(strstr(buf_cstr(&listing()->text), "I,7,in,\n"));
	assert_non_null(strstr(buf_cstr(&listing()->text), "I,5,e,\n"));
	assert_null(strstr(buf_cstr(&listing()->text), "I,1,a,"));
	assert_int_equal(count_parts(), 0);
	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	assert_string_equal(h.loads, " ../a.b.x/y ä.z@128 public.orders@272");
	host_stop(&h);
	for (uint64_t i = 0; i < n; i++)
		batch_free(b[i]);
}

/* A load says what there is in place of what was there: also that there is nothing. */
static void empty_loads(void **state)
{
	struct host h;
	(void)state;
	struct batch *b[] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\ta\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		word(OP_LOAD_BEGIN, orders, 0x90), word(OP_LOAD_END, orders, 0x90) };
	const uint64_t n = sizeof b / sizeof *b;
	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	for (uint64_t i = 0; i < n; i++)
		apply(&h, b[i], i + 1);
	wait_applied(&h, n);
	assert_names("public.orders/0000000000000080-0000000000-load-000001.csv\npublic.orders/0000000000000090-0000000000-load-000001.csv\n");
	assert_text("op,id,name,total\nI,1,a,\nop,id,name,total\nT,,,\n");
	assert_int_equal(h.counts.loaded, 1);
	assert_int_equal(h.counts.truncated, 0);
	host_stop(&h);
	/* It is there already. */
	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	assert_string_equal(h.loads, " public.orders@144");
	apply(&h, b[3], 1);
	apply(&h, b[4], 2);
	host_stop(&h);
	assert_text("op,id,name,total\nI,1,a,\nop,id,name,total\nT,,,\n");

	/* Nor does it depend on what we remember: the files may be of a time that was forgotten. */
	anew(state);
	host_start(&h, GIVEN(path(), "layout=single"));
	apply(&h, b[3], 1);
	apply(&h, b[4], 2);
	host_stop(&h);
	assert_names("0000000000000090-0000000000-load-000001-public.orders.ndjson\n");
	const char *text = buf_cstr(&listing()->text);
	assert_non_null(strstr(text, "\"op\":\"t\""));
	assert_non_null(strstr(text, "\"lsn\":144,"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	for (uint64_t i = 0; i < n; i++)
		batch_free(b[i]);
}

/* A file's head is right for all of its lines. */
static void columns_change(void **state)
{
	struct host h;
	(void)state;
	struct relation_builder *rb = relation_build("postgres", "public", "orders", 16384);
	struct column id = kit_column("id", TYPE_INT32, TYPE_OTHER, 1);
	struct column a = kit_column("a", TYPE_TEXT, TYPE_OTHER, 0), z = kit_column("z", TYPE_TEXT, TYPE_OTHER, 0);
	relation_build_column(rb, &id);
	relation_build_column(rb, &a);
	relation_build_column(rb, &z);
	struct relation *later = relation_seal(rb, KEY_PRIMARY);
	host_start(&h, GIVEN(path(), "format=csv"));
	struct batch *b[3] = { transaction(orders, 0x100, 1, 1), transaction(later, 0x200, 2, 1), batch_at() };
	add_rows(b[2], NULL, 0x300, 0, 0, 0, PIECE_WHOLE);
	for (uint64_t i = 0; i < 3; i++)
		apply(&h, b[i], i + 1);
	host_stop(&h);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000100-0000000001.csv\n"
		     "public.orders/0000000000000200-0000000001-0000000000000200-0000000001.csv\n");
	assert_text("op,id,name,total\nI,1,x,\nop,id,a,z\nI,2,x,\n");
	for (int i = 0; i < 3; i++)
		batch_free(b[i]);
	relation_unref(later);
}

static void single_layout(void **state)
{
	struct host h;
	struct err e;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "layout=single"));
	struct batch *b[6] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		transaction(odd, 0x100, 2, 1), transaction(orders, 0x200, 3, 1), transaction(odd, 0x300, 4, 1) };
	for (uint64_t i = 0; i < 6; i++)
		apply(&h, b[i], i + 1);
	host_stop(&h);
	assert_int_equal(h.applied, 6);
	assert_text(ROW(1) ROW(2) ROW(3) ROW(4));
	for (int i = 0; i < 6; i++)
		batch_free(b[i]);
	assert_int_equal(host_try_open(&h, GIVEN(path(), "format=csv", "layout=single"), &e), DMSR_EINVAL);
	assert_string_equal(e.id, "target.format");
	assert_non_null(strstr(e.message, "layout table"));
	h.i = NULL;
	host_close(&h);
}

/* When nothing comes any more, files appear soon; who asks twice does not wait at all. */
static void idle_and_urgent(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b1 = transaction(orders, 0x100, 1, 1), *b2 = transaction(orders, 0x200, 2, 1), *b3 = batch_at();
	uint64_t began = loop_now_us(h.loop);
	apply(&h, b1, 1);
	target()->flush(h.i);
	wait_applied(&h, 1);
	uint64_t took = loop_now_us(h.loop) - began;
	assert_true(took > 1500000 && took < 100000000);
	apply(&h, b2, 2);
	target()->flush(h.i);
	target()->flush(h.i);
	began = loop_now_us(h.loop);
	wait_applied(&h, 2);
	assert_true(loop_now_us(h.loop) - began < 1900000);
	/* a position alone moves within a second or so */
	b3->end.lsn = 0x300;
	b3->end.event = POSITION_WHOLE;
	b3->end.flush = 0x300;
	batch_append(b3, OP_HEARTBEAT, NULL);
	apply(&h, b3, 3);
	wait_applied(&h, 3);
	host_stop(&h);
	assert_text(ROW(1) ROW(2));
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(h.at.lsn, 0x300);
	host_stop(&h);
	batch_free(b1);
	batch_free(b2);
	batch_free(b3);
}

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(publishes_and_remembers), TEST(rolls_by_size), TEST(whole_transactions),
		TEST(loads), TEST(mixed_loads), TEST(empty_loads), TEST(columns_change), TEST(single_layout), TEST(idle_and_urgent) };
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
