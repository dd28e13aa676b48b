/* test_csv: lines as RFC 4180 has them; NULL, the empty string and what was not sent are three things. */
#include "codec_kit.h"

extern const struct dmsr_plugin dmsr_plugin_csv;
static const struct txn txn = { .lsn = 100, .commit_us = 1769853600123456, .xid = 771 };
static struct err err;

struct fixture {
	struct batch *b;
	struct relation *rel;
};

static int setup(void **state)
{
	static struct fixture f;
	f.b = batch_new();
	f.rel = kit_orders("public", "orders");
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	batch_free(f->b);
	relation_unref(f->rel);
	return 0;
}

static int try_open(const char *const *given, struct dmsr_instance **out)
{
	struct settings *s = settings_new();
	kit_settings(s, dmsr_plugin_csv.codec_options, given);
	err_clear(&err);
	int rc = dmsr_plugin_csv.codec->open(s, NULL, out, &err);
	settings_free(s);
	return rc;
}

/* All lines of the change, with options; NULL: refused */
static const char *lines_of(const struct change *ch, const char *const *given)
{
	static char out[4096];
	struct dmsr_instance *i;
	struct dmsr_record records[DMSR_RECORDS_MAX];
	size_t len = 0;
	assert_int_equal(try_open(given, &i), 0);
	int n = dmsr_plugin_csv.codec->encode(i, ch, records, DMSR_RECORDS_MAX, &err);
	for (int k = 0; k < n; k++) {
		assert_null(records[k].key);
		memcpy(out + len, records[k].value, records[k].value_len);
		len += records[k].value_len;
	}
	out[len] = 0;
	dmsr_plugin_csv.codec->close(i);
	return n < 0 ? NULL : out;
}
#define LINES(ch, ...) lines_of(ch, (const char *const[]){ __VA_ARGS__, NULL })

static struct change row_change(struct fixture *f, enum change_op op, const struct value *before, const struct value *after)
{
	struct change ch = { .rel = f->rel, .txn = &txn, .event = 3, .op = (uint8_t)op };
	ch.u.row.before = before;
	ch.u.row.after = after;
	return ch;
}

static void values(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *in, *out;
	} all[] = {
		{ "ann", "ann" }, { "", "\"\"" }, { NULL, "" }, { "a,b", "\"a,b\"" }, { "say \"hi\"", "\"say \"\"hi\"\"\"" }, { "\"", "\"\"\"\"" },
		{ "two\nlines", "\"two\nlines\"" }, { "cr\r", "\"cr\r\"" }, { " blank ", " blank " }, { "\\.", "\"\\.\"" }, { "\\x00", "\\x00" },
		{ "\1", "__unchanged" }, { "__unchanged", "\"__unchanged\"" }, { "\xC3\xA4", "\xC3\xA4" }, { "NULL", "NULL" },
	};
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		char want[64];
		struct change c = row_change(f, OP_UPDATE, NULL, KIT_ROW(f->b, "1", all[k].in, "2"));
		snprintf(want, sizeof want, "U,1,%s,2\n", all[k].out);
		assert_string_equal(LINES(&c, "op=true"), want);
	}
	struct change c = row_change(f, OP_CREATE, NULL, KIT_ROW(f->b, "NULL", NULL, ""));
	assert_string_equal(LINES(&c, "null=NULL"), "I,\"NULL\",NULL,\n");
	assert_string_equal(LINES(&c, "delimiter=\t", "line_end=crlf"), "I\tNULL\t\t\"\"\r\n");
	struct value *v = batch_values(f->b, 3);
	v[0] = (struct value){ "\0\0\0\7", 4, VALUE_BINARY };
	v[1] = (struct value){ "a,b", 3, VALUE_BINARY };
	v[2] = (struct value){ "\0\2\0\0\0\0\0\1\0\1\x13\x88", 12, VALUE_BINARY };
	c.u.row.after = v;
	assert_string_equal(LINES(&c, "op=true"), "I,7,\"a,b\",1.5\n");
	v[0].len = 3;
	assert_null(LINES(&c, "op=true"));
	assert_non_null(strstr(err.message, "public.orders"));
}

static void operations(void **state)
{
	struct fixture *f = *state;
	struct change r = row_change(f, OP_READ, NULL, KIT_ROW(f->b, "1", "a", "2"));
	assert_string_equal(LINES(&r, "op=true"), "I,1,a,2\n");
	assert_string_equal(LINES(&r, "op=false"), "1,a,2\n");
	assert_string_equal(LINES(&r, "timestamp=true"), "I,2026-01-31 10:00:00.123456,1,a,2\n");
	assert_string_equal(LINES(&r, "timestamp=true", "op=false"), "2026-01-31 10:00:00.123456,1,a,2\n");
	static const struct txn early = { .commit_us = -1 }, unknown;
	r.txn = &early;
	assert_string_equal(LINES(&r, "timestamp=true"), "I,1969-12-31 23:59:59.999999,1,a,2\n");
	r.txn = &unknown;
	assert_string_equal(LINES(&r, "timestamp=true"), "I,,1,a,2\n");

	struct change d = row_change(f, OP_DELETE, KIT_ROW(f->b, "1", "\1", "\1"), NULL);
	d.flags = CHANGE_KEY_ONLY;
	assert_string_equal(LINES(&d, "op=true"), "D,1,,\n");
	assert_string_equal(LINES(&d, "op=false"), "");
	struct change t = row_change(f, OP_TRUNCATE, NULL, NULL);
	assert_string_equal(LINES(&t, "op=true"), "T,,,\n");
	assert_string_equal(LINES(&t, "op=false"), "");

	struct change u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "\1", "\1"), KIT_ROW(f->b, "2", "\1", "9"));
	assert_string_equal(LINES(&u, "op=true"), "D,1,,\nI,2,__unchanged,9\n");
	assert_string_equal(LINES(&u, "op=false"), "2,__unchanged,9\n");
	u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "old", "3"), KIT_ROW(f->b, "1", "\1", "9"));
	assert_string_equal(LINES(&u, "op=true"), "U,1,old,9\n");

	struct change m = { .txn = &txn, .op = OP_MESSAGE };
	assert_string_equal(LINES(&m, "op=true"), "");
	struct change rows = { .rel = f->rel, .txn = &txn, .op = OP_ROWS };
	assert_null(LINES(&rows, "op=true"));
	assert_string_equal(err.id, "codec.rows");
	assert_non_null(strstr(err.message, "public.orders"));
}

static void heads(void **state)
{
	struct fixture *f = *state;
	struct change s = { .rel = f->rel, .txn = &txn, .op = OP_SCHEMA };
	assert_string_equal(LINES(&s, "op=true"), "op,id,name,total\n");
	assert_string_equal(LINES(&s, "op=true", "timestamp=true"), "op,ts,id,name,total\n");
	assert_string_equal(LINES(&s, "op=false"), "id,name,total\n");
	assert_string_equal(LINES(&s, "header=false"), "");
	struct relation_builder *b = relation_build("postgres", "s", "t", 1);
	struct column odd = kit_column("a,\"b\"", TYPE_TEXT, TYPE_OTHER, 0);
	relation_build_column(b, &odd);
	struct relation *rel = relation_seal(b, KEY_NONE);
	s.rel = rel;
	assert_string_equal(LINES(&s, "op=false"), "\"a,\"\"b\"\"\"\n");
	struct change c = { .rel = rel, .txn = &txn, .op = OP_CREATE };
	c.u.row.after = KIT_ROW(f->b, NULL);
	assert_string_equal(LINES(&c, "null=NULL", "op=false"), "NULL\n");
	assert_string_equal(LINES(&c, "op=false"), "\n");
	relation_unref(rel);
}

static void bad_options(void **state)
{
	struct dmsr_instance *i;
	(void)state;
	static const char *const bad[] = { "delimiter=", "delimiter=,,", "delimiter=\"", "delimiter=\n", "null=a,b", "unchanged=\"", "null=__unchanged" };
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		assert_int_equal(try_open((const char *const[]){ bad[k], NULL }, &i), DMSR_EINVAL);
		assert_string_equal(err.id, "codec.option");
	}
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
RUN_TESTS(WITH(values), WITH(operations), WITH(heads), cmocka_unit_test(bad_options))
