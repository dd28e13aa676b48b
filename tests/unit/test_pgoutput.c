/* pgoutput: what each message becomes, how events are numbered, what positions say, and what is refused. */
#include "test.h"

#include "pgoutput_kit.h"

static const char *text_of(struct kit *k)
{
	kit_take(k, pgoutput_take(k->d));
	return buf_cstr(&k->text);
}

static void takes_rows_in_all_their_forms(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	assert_int_equal(kit_begin(&k, 0x100), 0);
	assert_int_equal(kit_table(&k, 5, "t"), 0);
	assert_int_equal(kit_insert(&k, 5, "1", "one"), 0);
	assert_int_equal(kit_send(&k, "cwchtn", 'I', 5u, 'N', 2, "2"), 0);
	assert_int_equal(kit_send(&k, "cwchtx", 'I', 5u, 'N', 2, "3", "AB"), 0);
	assert_int_equal(kit_send(&k, "cwchtu", 'U', 5u, 'N', 2, "1"), 0);
	assert_int_equal(kit_send(&k, "cwchtnchtt", 'U', 5u, 'K', 2, "1", 'N', 2, "9", "x"), 0);
	assert_int_equal(kit_send(&k, "cwchttchtu", 'U', 5u, 'O', 2, "9", "long", 'N', 2, "8"), 0);
	assert_int_equal(kit_send(&k, "cwchtn", 'D', 5u, 'K', 2, "9"), 0);
	assert_int_equal(kit_send(&k, "cwchtn", 'D', 5u, 'O', 2, "2"), 0);
	assert_int_equal(kit_commit(&k, 0x100), 0);
	assert_string_equal(text_of(&k),
		"B 0/100 xid 956 at 946684800000000\n"
		"S public.t[primary, id integer int32 key1 not-null, v text text]\n"
		"c 1 public.t after(id='1' v='one')\n"
		"c 2 public.t after(id='2' v=NULL)\n"
		"c 3 public.t after(id='3' v=0x4142)\n"
		"u 4 public.t after(id='1' v=~)\n"
		"u 5 public.t key(id='1' v=~) after(id='9' v='x')\n"
		"u 6 public.t before(id='9' v='long') after(id='8' v='long')\n"
		"d 7 public.t key(id='9' v=~)\n"
		"d 8 public.t before(id='2' v=NULL)\n"
		"C *\n");
	kit_close(&k);
}

static void numbers_events_whether_wanted_or_not(void **state)
{
	(void)state;
	for (int wanted = 0; wanted < 2; wanted++) {
		struct kit k = { .unwanted = wanted ? NULL : "quiet" };
		kit_open(&k, NULL, 1, NULL);
		kit_begin(&k, 0x100);
		kit_table(&k, 5, "t");
		kit_table(&k, 6, "quiet");
		kit_insert(&k, 6, "1", "x");
		assert_int_equal(kit_send(&k, "cwbwww", 'T', 3u, 3, 6u, 5u, 5u), 0);
		assert_int_equal(kit_send(&k, "cbqswc", 'M', 1, (uint64_t)0x99, "app", 1u, '!'), 0);
		kit_insert(&k, 5, "1", "x");
		kit_commit(&k, 0x100);
		assert_non_null(strstr(text_of(&k), "t 3 public.t cascade restart and\nt 4 public.t cascade restart\nm 5 app: !\nc 6 public.t after"));
		assert_true(!!strstr(buf_cstr(&k.text), "t 2 public.quiet cascade restart and\n") == wanted);
		kit_close(&k);
	}
}

/* In the middle of a transaction, and back. */
static void a_table_may_have_another_name_for_a_while(void **state)
{
	struct relation *as = relation_seal(relation_build("postgres", "public", "t", 5), KEY_NONE);
	struct kit k = { .as = as };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	for (int i = 0; i < 3; i++) {
		kit_table(&k, 5, i == 1 ? "other" : "t");
		kit_table(&k, 6, i == 1 ? "t" : "other");
		kit_insert(&k, 5, "1", "of t");
		kit_insert(&k, 6, "2", "of other");
	}
	kit_commit(&k, 0x100);
	assert_non_null(strstr(text_of(&k), "c 3 public.t after(id='1' v='of t')"));
	assert_non_null(strstr(buf_cstr(&k.text), "c 5 public.t after(id='1' v='of t')"));
	kit_close(&k);
	relation_unref(as);
}

/* The host is asked before a table is emptied under a name that is not its own then; not about one that was passed already. */
static void a_truncate_under_another_name_waits(void **state)
{
	struct relation *as = relation_seal(relation_build("postgres", "public", "t", 5), KEY_NONE);
	(void)state;
	for (unsigned from_event = 0; from_event <= 2; from_event++) {
		struct position from = { POSITION_LSN, KIT_SERVER, 0x100, from_event, 0 };
		struct kit k = { .as = as };
		kit_open(&k, NULL, 1, &from);
		kit_begin(&k, 0x100);
		kit_table(&k, 5, "other");
		kit_table(&k, 6, "u");
		assert_int_equal(kit_send(&k, "cwbww", 'T', 2u, 1, 6u, 5u), 0);
		assert_int_equal(k.emptied, from_event < 2);
		kit_table(&k, 5, "t");
		assert_int_equal(kit_send(&k, "cwbw", 'T', 1u, 0, 5u), 0);
		kit_commit(&k, 0x100);
		assert_int_equal(k.emptied, from_event < 2);
		assert_true(!strstr(text_of(&k), "t 1 public.u cascade and\n") == (from_event > 0));
		assert_true(!strstr(buf_cstr(&k.text), "t 2 public.t cascade\n") == (from_event > 1));
		assert_non_null(strstr(buf_cstr(&k.text), "t 3 public.t\n"));
		assert_int_equal(pgoutput_truncated(k.d, 5), 0x100);
		assert_int_equal(pgoutput_truncated(k.d, 7), 0);
		kit_close(&k);
	}
	relation_unref(as);
}

/* What is told of a table that was not seen before stands before all of them. */
static void truncates_of_one_statement_stand_together(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_table(&k, 6, "u");
	assert_int_equal(kit_send(&k, "cwbww", 'T', 2u, 0, 5u, 6u), 0);
	kit_commit(&k, 0x100);
	assert_non_null(strstr(text_of(&k), "t 1 public.t and\nt 2 public.u\n"));
	assert_null(strstr(buf_cstr(&k.text), "s 1 ")); /* whoever has read that far has nothing of the statement */
	kit_close(&k);
}

/* It has another name for good, and a column more: the catalog, which has it under that name, is asked once, however often the server speaks of it. */
static void a_table_with_another_name_is_asked_about_once(void **state)
{
	struct relation *as = relation_seal(relation_build("postgres", "public", "t", 5), KEY_NONE);
	struct relation_builder *b = relation_build("postgres", "public", "other", 5);
	const struct column id = { .name = "id", .native_type = "integer", .type_id = 23, .typmod = -1, .type = TYPE_INT32, .source_id = 1, .key_pos = 1 };
	const struct column v = { .name = "v", .native_type = "text", .type_id = 25, .typmod = -1, .type = TYPE_TEXT, .source_id = 2 };
	(void)state;
	relation_build_column(b, &id);
	relation_build_column(b, &v);
	relation_build_ddl(b, DDL_AFTER_LOAD, "index", "other_v", "CREATE INDEX other_v ON other (v)");
	struct kit k = { .as = as, .answer = relation_seal(b, KEY_PRIMARY) };
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	for (int i = 0; i < 3; i++) {
		kit_table(&k, 5, "other");
		kit_insert(&k, 5, "1", "of t");
	}
	struct batch *out = pgoutput_take(k.d);
	assert_int_equal(k.asked, 1);
	for (const struct change *ch = out->first; ch; ch = ch->next)
		assert_true(!ch->rel || (!strcmp(ch->rel->name, "t") && !ch->rel->nddl)); /* what names the other */
	batch_free(out);
	kit_close(&k);
	relation_unref(as);
}

static void frames_only_what_has_something_in_it(void **state)
{
	struct kit k = { .unwanted = "quiet", .loaded = "late", .loaded_lsn = 0x400 };
	struct position p;
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 6, "quiet");
	kit_insert(&k, 6, "1", "x");
	kit_commit(&k, 0x100);
	assert_null(pgoutput_take(k.d));
	pgoutput_position(k.d, &p);
	assert_int_equal(p.lsn, 0x100);
	assert_int_equal(p.event, POSITION_WHOLE);
	assert_int_equal(p.flush, 0x108);
	for (unsigned lsn = 0x3ff; lsn <= 0x401; lsn++) {
		kit_begin(&k, lsn);
		kit_table(&k, 7, "late");
		kit_insert(&k, 7, "1", "x");
		kit_commit(&k, lsn);
	}
	assert_null(strstr(text_of(&k), "0/3FF"));
	assert_non_null(strstr(buf_cstr(&k.text), "0/400"));
	assert_int_equal(k.end.lsn, 0x401);
	kit_close(&k);
}

/* Every place to resume from: what comes out after it is what the whole run had behind it, and begin and commit are whole. */
static void resumes_at_every_event(void **state)
{
	static const char *const numbers[] = { "", " 1", " 2" };
	(void)state;
	for (uint64_t from_event = 0; from_event <= 5; from_event++) {
		struct kit k = { .unwanted = "quiet" };
		struct position from = { POSITION_LSN, KIT_SERVER, 0x100, from_event < 5 ? from_event : POSITION_WHOLE, 0 };
		struct buf expect;
		buf_init(&expect, 512);
		kit_open(&k, NULL, 1, &from);
		kit_begin(&k, 0x80);
		kit_table(&k, 5, "t");
		kit_insert(&k, 5, "0", "old");
		kit_commit(&k, 0x80);
		kit_begin(&k, 0x100);
		kit_table(&k, 6, "quiet");
		kit_insert(&k, 5, "1", "x");
		kit_insert(&k, 5, "2", "x");
		kit_insert(&k, 5, "3", "x");
		kit_insert(&k, 6, "4", "x");
		kit_commit(&k, 0x100);
		if (from_event < 5)
			buf_str(&expect, "B 0/100 xid 956 at 946684800000000\n");
		if (from_event < 3)
			buf_printf(&expect, "S%s public.t[primary, id integer int32 key1 not-null, v text text]\n", numbers[from_event]);
		for (uint64_t i = from_event + 1; i <= 3; i++)
			buf_printf(&expect, "c %" PRIu64 " public.t after(id='%" PRIu64 "' v='x')\n", i, i);
		if (from_event < 5)
			buf_str(&expect, "C *\n");
		assert_string_equal(text_of(&k), buf_cstr(&expect));
		buf_fini(&expect);
		if (from_event < 5) {
			assert_int_equal(k.end.event, POSITION_WHOLE);
			assert_int_equal(k.end.flush, 0x108);
		}
		kit_close(&k);
	}
}

static void stops_when_the_rest_of_a_transaction_is_gone(void **state)
{
	struct position from = { POSITION_LSN, KIT_SERVER, 0x100, 2, 0 };
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 2, &from);
	assert_false(pgoutput_keepalive(k.d, 0x5000));
	assert_int_equal(kit_begin(&k, 0x80), 0);
	assert_int_equal(kit_commit(&k, 0x80), 0);
	assert_int_equal(kit_begin(&k, 0x101), DMSR_EFATAL);
	assert_string_equal(k.e.id, "source.position");
	kit_close(&k);
	/* and not when it stood between two */
	from.event = 0;
	kit_open(&k, NULL, 2, &from);
	assert_int_equal(kit_begin(&k, 0x101), 0);
	kit_close(&k);
}

static void hands_on_big_batches_with_their_positions(void **state)
{
	struct kit_limits lim = { 20, 1 << 20, 0, NULL };
	struct kit k = { .with_ends = true };
	(void)state;
	kit_open(&k, &lim, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "1", "0123456789");
	kit_insert(&k, 5, "2", "0123456789");
	kit_commit(&k, 0x100);
	assert_string_equal(text_of(&k),
		"B 0/100 xid 956 at 946684800000000\n"
		"S public.t[primary, id integer int32 key1 not-null, v text text]\n"
		"c 1 public.t after(id='1' v='0123456789')\n"
		"-- pg:7:0/100:1:0/0 more\n"
		"c 2 public.t after(id='2' v='0123456789')\n"
		"-- pg:7:0/100:2:0/0 more\n"
		"C *\n"
		"-- pg:7:0/100:*:0/108\n");
	kit_close(&k);
}

/* A transaction that is cut keeps others from being applied beside it: a batch that is nearly full ends before one begins. */
static void cuts_between_two_transactions_where_it_can(void **state)
{
	struct kit_limits lim = { 8192, 1 << 20, 0, NULL };
	struct kit k = { 0 };
	char text[3001];
	(void)state;
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = 0;
	kit_open(&k, &lim, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "1", text);
	kit_commit(&k, 0x100); /* less than half: the next one joins it */
	kit_begin(&k, 0x200);
	kit_insert(&k, 5, "2", text); /* more than half, but all of it has not come */
	kit_insert(&k, 5, "3", "x");
	assert_int_equal(k.batches, 0);
	kit_commit(&k, 0x200);
	assert_int_equal(k.batches, 1);
	assert_int_equal(k.end.lsn, 0x200);
	assert_false(k.more);
	kit_begin(&k, 0x300);
	kit_insert(&k, 5, "4", text);
	kit_insert(&k, 5, "5", text);
	kit_insert(&k, 5, "6", text); /* all of it: inside of a transaction that is the limit */
	assert_int_equal(k.batches, 2);
	assert_int_equal(k.end.lsn, 0x300);
	assert_int_equal(k.end.event, 3);
	assert_true(k.more);
	kit_commit(&k, 0x300);
	text_of(&k);
	assert_int_equal(k.batches, 3);
	assert_false(k.more);
	kit_close(&k);
}

static void keeps_a_refused_batch_until_there_is_room(void **state)
{
	struct kit_limits lim = { 20, 1 << 20, 0, NULL };
	struct kit k = { .refuse = 3 };
	struct kit plain = { 0 };
	(void)state;
	kit_open(&k, &lim, 1, NULL);
	kit_open(&plain, NULL, 1, NULL);
	for (struct kit *each = &k;; each = &plain) {
		kit_begin(each, 0x100);
		kit_table(each, 5, "t");
		for (int i = 0; i < 20; i++)
			assert_int_equal(kit_insert(each, 5, "1", "0123456789"), 0);
		kit_commit(each, 0x100);
		text_of(each);
		if (each == &plain)
			break;
	}
	assert_string_equal(buf_cstr(&k.text), buf_cstr(&plain.text));
	assert_true(k.batches >= 20);
	kit_close(&k);
	kit_close(&plain);
}

static void takes_a_batch_in_mid_transaction_only_as_far_as_it_goes(void **state)
{
	struct kit k = { .unwanted = "quiet", .with_ends = true };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_table(&k, 6, "quiet");
	kit_insert(&k, 5, "1", "x");
	kit_commit(&k, 0x100);
	kit_begin(&k, 0x200);
	kit_insert(&k, 6, "1", "x");
	text_of(&k); /* nothing of 0x200 is out: the batch ends with 0x100 */
	assert_false(k.more);
	assert_int_equal(k.end.lsn, 0x100);
	assert_int_equal(k.end.flush, 0x108);
	kit_insert(&k, 5, "2", "x");
	kit_insert(&k, 6, "2", "x");
	text_of(&k);
	assert_true(k.more);
	assert_int_equal(k.end.lsn, 0x200);
	assert_int_equal(k.end.event, 3);
	assert_int_equal(k.end.flush, 0);
	kit_commit(&k, 0x200);
	text_of(&k);
	assert_false(k.more);
	assert_int_equal(k.end.event, POSITION_WHOLE);
	kit_close(&k);
}

static void keepalives_move_only_between_transactions(void **state)
{
	struct kit k = { .unwanted = "quiet" };
	struct position p;
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	assert_true(pgoutput_keepalive(k.d, 0x50));
	text_of(&k);
	assert_string_equal(buf_cstr(&k.text), "h\n");
	assert_int_equal(k.end.lsn, 0x50);
	assert_int_equal(k.end.event, 0);
	assert_int_equal(k.end.flush, 0x50);
	assert_false(pgoutput_keepalive(k.d, 0x50));
	assert_false(pgoutput_keepalive(k.d, 0x40));
	assert_null(pgoutput_take(k.d));
	kit_begin(&k, 0x100);
	assert_false(pgoutput_keepalive(k.d, 0x90));
	kit_table(&k, 6, "quiet");
	kit_insert(&k, 6, "1", "x");
	assert_false(pgoutput_keepalive(k.d, 0x200));
	kit_commit(&k, 0x100);
	/* skipped transactions are told when somebody asks, once */
	assert_null(pgoutput_take(k.d));
	assert_true(pgoutput_keepalive(k.d, 0));
	kit_take(&k, pgoutput_take(k.d));
	assert_int_equal(k.end.lsn, 0x100);
	assert_int_equal(k.end.flush, 0x108);
	assert_false(pgoutput_keepalive(k.d, 0));
	assert_false(pgoutput_keepalive(k.d, 0x108));
	/* a transaction that is held hinders not, a piece of it does */
	assert_int_equal(kit_send(&k, "cwb", 'S', 900u, 1), 0);
	assert_false(pgoutput_keepalive(k.d, 0x300));
	assert_int_equal(kit_send(&k, "c", 'E'), 0);
	assert_true(pgoutput_keepalive(k.d, 0x300));
	pgoutput_position(k.d, &p);
	assert_int_equal(p.lsn, 0x300);
	kit_close(&k);
}

static void messages_outside_of_transactions_have_their_own_position(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	assert_int_equal(kit_send(&k, "cbqswcc", 'M', 0, (uint64_t)0x99, "app", 2u, 'h', 'i'), 0);
	assert_string_equal(text_of(&k), "m alone app: hi\n");
	assert_int_equal(k.end.lsn, 0x99);
	struct position from = k.end;
	kit_close(&k);
	kit_open(&k, NULL, 1, &from);
	assert_int_equal(kit_send(&k, "cbqswcc", 'M', 0, (uint64_t)0x99, "app", 2u, 'h', 'i'), 0);
	assert_null(pgoutput_take(k.d));
	kit_close(&k);
}

/* Its place is where it ends in the log, and there the commit of a transaction may begin, whose place that is: what has the message has not the transaction. */
static void a_message_that_a_commit_follows_at_once(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	assert_int_equal(kit_send(&k, "cbqswcc", 'M', 0, (uint64_t)0x100, "app", 2u, 'h', 'i'), 0);
	assert_string_equal(text_of(&k), "m alone app: hi\n");
	struct position message = k.end;
	struct position half;
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "1", "one");
	pgoutput_position(k.d, &half);
	assert_true(position_compare(&half, &message) > 0);
	kit_close(&k);

	kit_open(&k, NULL, 1, &message);
	assert_int_equal(kit_send(&k, "cbqswcc", 'M', 0, (uint64_t)0x100, "app", 2u, 'h', 'i'), 0);
	assert_null(pgoutput_take(k.d));
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "1", "one");
	kit_commit(&k, 0x100);
	assert_non_null(strstr(text_of(&k), "c 1 public.t after(id='1' v='one')\nC *\n"));
	assert_int_equal(k.end.lsn, 0x100);
	kit_close(&k);

	kit_open(&k, NULL, 1, &half); /* the rest is still to come */
	assert_int_equal(kit_send(&k, "cbqswcc", 'M', 0, (uint64_t)0x100, "app", 2u, 'h', 'i'), 0);
	assert_null(pgoutput_take(k.d));
	assert_true(pgoutput_has_rest(k.d));
	kit_close(&k);
}

/* ---- relations -------------------------------------------------------------------------------------------------- */
static void column(struct relation_builder *b, const char *name, const char *native, uint32_t oid, enum logical_type type, int flags, int key)
{
	struct column c = { .name = name, .native_type = native, .type_id = oid, .typmod = -1 };
	c.type = (uint8_t)type;
	c.flags = (uint8_t)flags;
	c.key_pos = (uint16_t)key;
	c.dflt = type == TYPE_ENUM ? "'ok'::public.mood" : NULL;
	relation_build_column(b, &c);
}

static struct relation *described_t(void)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 5);

	column(b, "g0", "integer", 23, TYPE_INT32, COLUMN_GENERATED | COLUMN_NULLABLE, 0);
	column(b, "id", "integer", 23, TYPE_INT32, 0, 1);
	column(b, "g1", "integer", 23, TYPE_INT32, COLUMN_GENERATED | COLUMN_NULLABLE, 0);
	column(b, "v", "public.mood", 20001, TYPE_ENUM, COLUMN_NULLABLE, 0);
	column(b, "g2", "text", 25, TYPE_TEXT, COLUMN_GENERATED | COLUMN_NULLABLE, 0);
	relation_build_ddl(b, DDL_BEFORE_TABLE, "enum", "public.mood", "create type public.mood as enum ('ok')");
	relation_build_ddl(b, DDL_AFTER_LOAD, "index", "public.t_v", "create index t_v on public.t (v)");
	return relation_seal(b, KEY_PRIMARY);
}

static int send_t(struct kit *k, unsigned v_type)
{
	return kit_send(k, "cwsschbswwbsww", 'R', 5u, "public", "t", 'd', 2, 1, "id", 23u, ~0u, 0, "v", v_type, ~0u);
}

static void adds_what_the_catalog_knows(void **state)
{
	struct kit k = { 0 };
	(void)state;
	k.described[0] = described_t();
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	assert_int_equal(send_t(&k, 20001), 0);
	assert_int_equal(k.asked, 0);
	kit_insert(&k, 5, "1", "ok");
	struct batch *b = pgoutput_take(k.d);
	/* told, though it is as described: what downstream knows may be older */
	assert_int_equal(b->first->next->op, OP_SCHEMA);
	assert_null(b->first->next->u.schema.old);
	const struct relation *rel = b->first->next->rel;
	assert_true(relation_is_same(rel, k.described[0]));
	assert_int_equal(rel->nddl, 2);
	kit_take(&k, b);
	assert_non_null(strstr(buf_cstr(&k.text), "c 1 public.t after(g0=~ id='1' g1=~ v='ok' g2=~)\n"));
	kit_close(&k);
}

static void lets_the_wire_win_over_a_newer_catalog(void **state)
{
	struct kit k = { 0 };
	(void)state;
	k.described[0] = described_t();
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	assert_int_equal(kit_send(&k, "cwss", 'Y', 20002u, "My", "Old \"mood\""), 0);
	assert_int_equal(send_t(&k, 20002), 0);
	assert_int_equal(k.asked, 1);
	kit_insert(&k, 5, "1", "x");
	struct batch *b = pgoutput_take(k.d);
	const struct change *s = b->first->next;
	assert_int_equal(s->op, OP_SCHEMA);
	assert_null(s->u.schema.old);
	assert_string_equal(s->rel->columns[3].native_type, "\"My\".\"Old \"\"mood\"\"\"");
	assert_int_equal(s->rel->columns[3].type, TYPE_OTHER);
	assert_null(s->rel->columns[3].dflt);
	assert_int_equal(s->rel->nddl, 1); /* the index names a column that may be another */
	batch_free(b);
	kit_close(&k);
}

static void asks_the_catalog_once_and_waits(void **state)
{
	struct kit k = { 0 };
	(void)state;
	k.answer = described_t();
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	assert_int_equal(send_t(&k, 20001), 0);
	assert_int_equal(k.asked, 1);
	kit_insert(&k, 5, "1", "ok");
	assert_non_null(strstr(text_of(&k), "c 1 public.t after(g0=~ id='1' g1=~ v='ok' g2=~)\n"));
	kit_close(&k);
}

static void does_not_ask_for_unwanted_tables(void **state)
{
	struct kit k = { .unwanted = "t" };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	assert_int_equal(send_t(&k, 20001), 0);
	assert_int_equal(k.asked, 0);
	kit_close(&k);
}

static void takes_the_key_from_the_identity(void **state)
{
	static const struct {
		char identity;
		int bits[3];
		const char *expect;
	} cases[] = {
		{ 'd', { 1, 1, 0 }, "t[primary, b integer int32 key1 not-null, a integer int32 key2 not-null, v text text]" },
		{ 'd', { 0, 0, 0 }, "t[none, b integer int32, a integer int32, v text text]" },
		{ 'i', { 0, 1, 0 }, "t[unique, b integer int32, a integer int32 key1 not-null, v text text]" },
		{ 'f', { 1, 1, 1 }, "t[full, b integer int32, a integer int32, v text text]" },
		{ 'n', { 0, 0, 0 }, "t[none, b integer int32, a integer int32, v text text]" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct kit k = { 0 };
		const int *bits = cases[i].bits;
		kit_open(&k, NULL, 1, NULL);
		kit_begin(&k, 0x100);
		assert_int_equal(kit_send(&k, "cwsschbswwbswwbsww", 'R', 5u, "public", "t", cases[i].identity, 3, bits[0], "b", 23u, ~0u,
					 bits[1], "a", 23u, ~0u, bits[2], "v", 25u, ~0u),
			0);
		kit_send(&k, "cwchttt", 'I', 5u, 'N', 3, "1", "2", "3");
		if (!strstr(text_of(&k), cases[i].expect))
			assert_string_equal(buf_cstr(&k.text), cases[i].expect);
		kit_close(&k);
	}
}

/* Primary key (a, b) of a table whose columns stand as b, a; and the same under replica identity full. */
static void takes_the_keys_order_from_the_catalog(void **state)
{
	(void)state;
	for (int full = 0; full < 2; full++) {
		struct kit k = { 0 };
		struct relation_builder *b = relation_build("postgres", "public", "t", 5);
		column(b, "b", "integer", 23, TYPE_INT32, 0, 2);
		column(b, "a", "integer", 23, TYPE_INT32, 0, 1);
		k.described[0] = relation_seal(b, KEY_PRIMARY);
		kit_open(&k, NULL, 1, NULL);
		kit_begin(&k, 0x100);
		kit_send(&k, "cwsschbswwbsww", 'R', 5u, "public", "t", full ? 'f' : 'd', 2, 1, "b", 23u, ~0u, 1, "a", 23u, ~0u);
		kit_send(&k, "cwchtt", 'D', 5u, full ? 'O' : 'K', 2, "1", "2");
		struct batch *out = pgoutput_take(k.d);
		assert_int_equal(out->first->next->next->op, OP_DELETE);
		assert_int_equal(out->first->next->rel->key, KEY_PRIMARY);
		assert_int_equal(out->first->next->rel->keys[0], 1);
		batch_free(out);
		kit_close(&k);
	}
}

static void tells_of_a_new_shape_before_its_first_row(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 1, NULL);
	kit_begin(&k, 0x100);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "1", "x");
	kit_table(&k, 5, "t"); /* said again, the same */
	kit_insert(&k, 5, "2", "x");
	kit_send(&k, "cwsschbsww", 'R', 5u, "public", "t", 'd', 1, 1, "id", 20u, ~0u); /* never used */
	kit_send(&k, "cwsschbsww", 'R', 5u, "public", "t", 'd', 1, 1, "id", 21u, ~0u);
	kit_send(&k, "cwcht", 'I', 5u, 'N', 1, "3");
	kit_commit(&k, 0x100);
	assert_string_equal(text_of(&k),
		"B 0/100 xid 956 at 946684800000000\n"
		"S public.t[primary, id integer int32 key1 not-null, v text text]\n"
		"c 1 public.t after(id='1' v='x')\n"
		"c 2 public.t after(id='2' v='x')\n"
		"S 2 public.t[primary, id smallint int16 key1 not-null] was public.t[primary, id integer int32 key1 not-null, v text text]\n"
		"c 3 public.t after(id='3')\n"
		"C *\n");
	kit_close(&k);
}

/* ---- what is refused -------------------------------------------------------------------------------------------- */
#define REFUSED(...)                                                \
	do {                                                        \
		struct kit k_ = { 0 };                              \
		kit_open(&k_, NULL, 4, NULL);                       \
		kit_begin(&k_, 0x100);                              \
		kit_table(&k_, 5, "t");                             \
		assert_int_equal(kit_send(&k_, __VA_ARGS__), DMSR_EPROTO); \
		assert_string_equal(k_.e.id, "source.protocol");    \
		kit_close(&k_);                                     \
	} while (0)

static void refuses_what_no_server_says(void **state)
{
	(void)state;
	REFUSED("");
	REFUSED("c", '?');
	REFUSED("cqqw", 'B', (uint64_t)1, (uint64_t)1, 1u);                    /* inside a transaction */
	REFUSED("cbqqq", 'C', 0, (uint64_t)0x101, (uint64_t)1, (uint64_t)1);    /* another's commit */
	REFUSED("cbqq", 'C', 0, (uint64_t)0x100, (uint64_t)1);
	REFUSED("cwchtt", 'I', 6u, 'N', 2, "1", "x");                           /* unknown table */
	REFUSED("cwcht", 'I', 5u, 'N', 1, "1");
	REFUSED("cwchttt", 'I', 5u, 'N', 2, "1", "x", "y");
	REFUSED("cwchtcw", 'I', 5u, 'N', 2, "1", 't', 1000u);
	REFUSED("cwchtcw", 'I', 5u, 'N', 2, "1", 't', ~0u);
	REFUSED("cwchtc", 'I', 5u, 'N', 2, "1", 'z');
	REFUSED("cwchtt", 'I', 5u, 'K', 2, "1", "x");
	REFUSED("cwchtt", 'U', 5u, 'K', 2, "1", "x");
	REFUSED("cwchtt", 'D', 5u, 'N', 2, "1", "x");
	REFUSED("cwbw", 'T', 2u, 0, 5u);
	REFUSED("cwbw", 'T', 0x40000001u, 0, 5u);
	REFUSED("cbqsw", 'M', 1, (uint64_t)1, "p", 1u);
	REFUSED("cbqswcc", 'M', 0, (uint64_t)0x99, "p", 2u, 'h', 'i');          /* of no transaction, inside of one */
	REFUSED("cwssch", 'R', 5u, "public", "t", 'd', 2);
	REFUSED("cwssch", 'R', 5u, "public", "t", 'd', 65535);
	REFUSED("cwb", 'S', 1u, 1);                                             /* inside a transaction */
	REFUSED("c", 'E');
}

static void refuses_two_phase_by_name(void **state)
{
	static const struct { char type; const char *name; } all[] = {
		{ 'b', "Begin Prepare" }, { 'P', "Prepare" }, { 'K', "Commit Prepared" }, { 'r', "Rollback Prepared" }, { 'p', "Stream Prepare" } };
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct kit k = { 0 };
		kit_open(&k, NULL, 3, NULL);
		assert_int_equal(kit_send(&k, "cqqqws", all[i].type, (uint64_t)1, (uint64_t)2, (uint64_t)3, 4u, "gid"), DMSR_EPROTO);
		assert_non_null(strstr(k.e.message, all[i].name));
		kit_close(&k);
	}
}

RUN_TESTS(cmocka_unit_test(takes_rows_in_all_their_forms), cmocka_unit_test(numbers_events_whether_wanted_or_not),
	cmocka_unit_test(a_table_may_have_another_name_for_a_while), cmocka_unit_test(a_truncate_under_another_name_waits),
	cmocka_unit_test(truncates_of_one_statement_stand_together),
	cmocka_unit_test(a_table_with_another_name_is_asked_about_once),
	cmocka_unit_test(frames_only_what_has_something_in_it),
	cmocka_unit_test(resumes_at_every_event),
	cmocka_unit_test(stops_when_the_rest_of_a_transaction_is_gone), cmocka_unit_test(hands_on_big_batches_with_their_positions),
	cmocka_unit_test(cuts_between_two_transactions_where_it_can), cmocka_unit_test(keeps_a_refused_batch_until_there_is_room),
	cmocka_unit_test(takes_a_batch_in_mid_transaction_only_as_far_as_it_goes), cmocka_unit_test(keepalives_move_only_between_transactions),
	cmocka_unit_test(messages_outside_of_transactions_have_their_own_position),
	cmocka_unit_test(a_message_that_a_commit_follows_at_once), cmocka_unit_test(adds_what_the_catalog_knows),
	cmocka_unit_test(lets_the_wire_win_over_a_newer_catalog), cmocka_unit_test(asks_the_catalog_once_and_waits),
	cmocka_unit_test(does_not_ask_for_unwanted_tables), cmocka_unit_test(takes_the_key_from_the_identity),
	cmocka_unit_test(takes_the_keys_order_from_the_catalog), cmocka_unit_test(tells_of_a_new_shape_before_its_first_row),
	cmocka_unit_test(refuses_what_no_server_says), cmocka_unit_test(refuses_two_phase_by_name))
