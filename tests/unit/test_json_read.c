/* test_json_read: what codec json writes, it reads back as it was: values that a server printed, each alone and in arrays, noise, every kind of row; and
 * what it would not have written is refused, with the name of what is wrong. */
#include "json_kit.h"

#include "base/hash.h"

static struct err err;

static struct relation *one_column(enum logical_type type, enum logical_type elem)
{
	struct relation_builder *b = relation_build("postgres", "s", "t", 1);
	struct column c = kit_column("v", type, elem, 0);
	relation_build_column(b, &c);
	return relation_seal(b, KEY_NONE);
}

/* ---- comparing ---- */

static void assert_same_value(const struct column *c, const struct value *want, const struct value *got)
{
	struct buf a, b;
	if (want->kind < VALUE_TEXT) {
		if (got->kind != want->kind)
			fail_msg("%s: kind %d, want %d", c->name, got->kind, want->kind);
		return;
	}
	buf_init(&a, SIZE_MAX);
	buf_init(&b, SIZE_MAX);
	assert_true(got->kind >= VALUE_TEXT);
	assert_int_equal(value_to_text(want, c->type, c->elem_type, &a, NULL), 0);
	assert_int_equal(value_to_text(got, c->type, c->elem_type, &b, NULL), 0);
	if (a.len != b.len || memcmp(buf_cstr(&a), buf_cstr(&b), a.len) != 0)
		fail_msg("%s (%s of %s): got %s, want %s", c->name, logical_type_name(c->type), logical_type_name(c->elem_type), buf_cstr(&b), buf_cstr(&a));
	if (got->kind == VALUE_TEXT)
		assert_int_equal(got->data[got->len], 0);
	buf_fini(&a);
	buf_fini(&b);
}

static void assert_same_row(const struct relation *rel, const struct value *want, const struct value *got)
{
	assert_int_equal(!want, !got);
	for (unsigned i = 0; want && i < rel->ncolumns; i++)
		assert_same_value(&rel->columns[i], &want[i], &got[i]);
}

static int encode(struct dmsr_instance *i, const struct change *ch, struct dmsr_record *r)
{
	err_clear(&err);
	return dmsr_plugin_json.codec->encode(i, ch, r, 1, &err);
}

static int decode(struct dmsr_instance *i, const char *p, size_t n, struct relation *rel, struct batch *b)
{
	err_clear(&err);
	return dmsr_plugin_json.codec->decode(i, p, n, rel, b, &err);
}

/* The change once around: the one that came back, in b. */
static const struct change *around(struct dmsr_instance *i, const struct change *ch, struct batch *b)
{
	struct dmsr_record r;
	if (encode(i, ch, &r) != 1)
		fail_msg("encode: %s", err.message);
	uint32_t before = b->nchanges;
	if (decode(i, r.value, r.value_len, ch->rel, b))
		fail_msg("decode: %s: %.*s", err.message, (int)(r.value_len < 2000 ? r.value_len : 2000), r.value);
	assert_int_equal(b->nchanges, before + 1);
	const struct change *got = b->last;
	assert_int_equal(got->op, ch->op);
	assert_int_equal(got->flags, ch->flags);
	assert_ptr_equal(got->rel, ch->rel);
	assert_ptr_equal(got->txn, b->txn);
	return got;
}

static void check_change(struct dmsr_instance *i, const struct change *ch)
{
	struct batch *b = batch_new();
	batch_txn(b, &txn);
	const struct change *got = around(i, ch, b);
	assert_same_row(ch->rel, ch->u.row.before, got->u.row.before);
	assert_same_row(ch->rel, ch->u.row.after, got->u.row.after);
	batch_free(b);
}

static void check_value(struct dmsr_instance *i, struct relation *rel, const struct value *v)
{
	struct change ch = { .rel = rel, .txn = &txn, .event = 3, .op = OP_CREATE };
	ch.u.row.after = v;
	check_change(i, &ch);
}

/* ---- values of a server ---- */

struct tally {
	struct dmsr_instance *strings, *numbers;
	struct relation *rels[TYPE_COUNT][TYPE_COUNT];
	unsigned lines;
};

static struct relation *rel_of(struct tally *t, enum logical_type type, enum logical_type elem)
{
	if (!t->rels[type][elem])
		t->rels[type][elem] = one_column(type, elem);
	return t->rels[type][elem];
}

static uint32_t from_hex(const struct value *hex, char *out)
{
	for (uint32_t i = 0; i < hex->len / 2; i++) {
		unsigned v;
		assert_int_equal(sscanf(hex->data + (size_t)2 * i, "%2x", &v), 1);
		out[i] = (char)v;
	}
	return hex->len / 2;
}

static void put_element(struct buf *out, const char *p, size_t n, char delimiter)
{
	size_t start = out->len;
	buf_append(out, p, n);
	if (value_element_needs_quotes(p, n, delimiter))
		value_quote(out, start);
}

/* The value as an element: alone, beside NULLs, in dimensions, with bounds. */
static void check_in_arrays(struct tally *t, enum logical_type type, const struct value *v, char delimiter)
{
	static const char *const shapes[] = { "{@}", "{@,@}", "{NULL,@,NULL}", "{{@,NULL},{NULL,@}}", "[0:1]={@,@}",
		"[-2147483648:-2147483648][7:8]={{NULL,@}}", "{{{{{{@}}}}}}" };
	struct relation *rel = rel_of(t, TYPE_ARRAY, type);
	struct buf b;
	buf_init(&b, SIZE_MAX);
	for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
		buf_reset(&b);
		for (const char *s = shapes[k]; *s; s++) {
			if (*s == '@')
				put_element(&b, v->data, v->len, delimiter);
			else
				buf_byte(&b, *s == ',' ? delimiter : *s);
		}
		struct value array = value_text(buf_cstr(&b), (uint32_t)b.len);
		check_value(t->strings, rel, &array);
	}
	buf_fini(&b);
}

static int check_line(void *arg, const struct change *row)
{
	struct tally *t = arg;
	const struct value *v = row->u.row.after;
	enum logical_type type = (enum logical_type)logical_type_parse(v[0].data), elem = (enum logical_type)logical_type_parse(v[1].data);
	struct relation *rel = rel_of(t, type, elem);
	char *bin = mem_alloc(v[2].len / 2 + 1);
	struct value binary = { bin, from_hex(&v[2], bin), VALUE_BINARY };
	check_value(t->strings, rel, &v[3]);
	check_value(t->strings, rel, &binary);
	check_value(t->numbers, rel, &v[3]);
	if (type != TYPE_ARRAY)
		check_in_arrays(t, type, &v[3], ',');
	free(bin);
	t->lines++;
	return 0;
}

static void tally_init(struct tally *t)
{
	*t = (struct tally){ .strings = OPEN("numbers=string"), .numbers = OPEN("numbers=number_if_lossless") };
}

static void tally_fini(struct tally *t)
{
	for (int type = 0; type < TYPE_COUNT; type++)
		for (int elem = 0; elem < TYPE_COUNT; elem++)
			relation_unref(t->rels[type][elem]);
	dmsr_plugin_json.codec->close(t->strings);
	dmsr_plugin_json.codec->close(t->numbers);
}

static void values_of_a_server(void **state)
{
	static const char *const names[] = { "type", "elem", "bin", "txt" };
	struct relation_builder *b = relation_build("postgres", "public", "v", 1);
	struct tally t;
	size_t len;
	(void)state;
	for (int i = 0; i < 4; i++)
		relation_build_column(b, &(struct column){ .name = names[i], .type = TYPE_TEXT });
	struct change rows = { .op = OP_ROWS, .rel = relation_seal(b, KEY_NONE) };
	char *data = test_fixture("value_text/postgres.copy", &len);
	rows.u.rows.data = data;
	rows.u.rows.len = len;
	rows.u.rows.format = ROWS_COPY_TEXT;
	tally_init(&t);
	assert_int_equal(change_each_row(&rows, check_line, &t, NULL), 0);
	assert_true(t.lines > 4000);
	tally_fini(&t);
	free(data);
	relation_unref(rows.rel);
}

/* What the fixture has not: types without a binary form, and texts at which a reader might stumble. */
static void more_values(void **state)
{
	static const struct {
		enum logical_type type, elem;
		const char *text;
	} all[] = {
		{ TYPE_BOOL, 0, "t" }, { TYPE_UINT64, 0, "18446744073709551615" }, { TYPE_UINT64, 0, "0" }, { TYPE_MONEY, 0, "-$92,233,720,368,547,758.08" },
		{ TYPE_NUMERIC, 0, "0.00" }, { TYPE_NUMERIC, 0, "-0.10" }, { TYPE_NUMERIC, 0, "NaN" }, { TYPE_NUMERIC, 0, "-Infinity" },
		{ TYPE_NUMERIC, 0, "123456789012345678901234567890.1234567890" }, { TYPE_FLOAT64, 0, "-0" }, { TYPE_FLOAT32, 0, "-Infinity" },
		{ TYPE_FLOAT64, 0, "1e+300" }, { TYPE_TEXT, 0, "" }, { TYPE_TEXT, 0, "null" }, { TYPE_TEXT, 0, "NULL" }, { TYPE_TEXT, 0, "\",\"w\":1}" },
		{ TYPE_TEXT, 0, "\\u0041" }, { TYPE_CHAR, 0, "a    " }, { TYPE_JSON, 0, "{\"a\":  1, \"a\": \"\\u0041\"}\n" }, { TYPE_JSONB, 0, "null" },
		{ TYPE_XML, 0, "<a b=\"c\">\xC3\xA9</a>" }, { TYPE_ENUM, 0, "very, \"happy\"" }, { TYPE_DATE, 0, "5874897-12-31" },
		{ TYPE_DATE, 0, "0001-01-01 BC" },
		{ TYPE_DATE, 0, "4713-01-01 BC" }, { TYPE_DATE, 0, "-infinity" }, { TYPE_DATE, 0, "9999-12-31" }, { TYPE_DATE, 0, "10000-01-01" },
		{ TYPE_TIMESTAMP, 0, "294276-12-31 23:59:59.999999" }, { TYPE_TIMESTAMP, 0, "0044-03-15 12:00:00.5 BC" }, { TYPE_TIMESTAMP, 0, "infinity" },
		{ TYPE_TIMESTAMPTZ, 0, "2026-01-31 10:00:00.000001+00" }, { TYPE_TIMESTAMPTZ, 0, "2026-01-31 10:00:00-09:30" },
		{ TYPE_TIMESTAMPTZ, 0, "1800-01-01 00:00:00+00:53:28" }, { TYPE_TIMESTAMPTZ, 0, "4714-11-24 00:00:00+00 BC" },
		{ TYPE_TIMETZ, 0, "24:00:00-15:59" },
		{ TYPE_TIMETZ, 0, "00:00:00+15:59:59" }, { TYPE_TIME, 0, "24:00:00" }, { TYPE_INTERVAL, 0, "infinity" }, { TYPE_INTERVAL, 0, "-infinity" },
		{ TYPE_INTERVAL, 0, "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807" },
		{ TYPE_INTERVAL, 0, "-178956970 years -8 mons -2147483648 days +2562047788:00:54.775807" }, { TYPE_INTERVAL, 0, "-2562047788:00:54.775808" },
		{ TYPE_BIT, 0, "0101" }, { TYPE_VARBIT, 0, "" }, { TYPE_INET, 0, "::ffff:1.2.3.4/96" }, { TYPE_TSVECTOR, 0, "'a':1A 'b':2,3C 'it''s':5" },
		{ TYPE_TSQUERY, 0, "'a' & ( 'b' | !'c' ) <-> 'd':*" }, { TYPE_GEOMETRY, 0, "((0,0),(1,1),(2,0))" }, { TYPE_GEOMETRY, 0, "[(0,0),(1,1.1)]" },
		{ TYPE_GEOMETRY, 0, "{1,-1,0}" }, { TYPE_GEOMETRY, 0, "<(1,2),3.3>" }, { TYPE_COMPOSITE, 0, "(-1,\"\"\",()\\\\\")" },
		{ TYPE_RANGE, TYPE_NUMERIC, "(0.10,1.5]" },
		{ TYPE_MULTIRANGE, TYPE_TIMESTAMPTZ, "{[\"2026-01-01 00:00:00+00\",\"2026-01-02 00:00:00+00\")}" },
		{ TYPE_HSTORE, 0, "\"a\"=>\"1\", \"b\"=>NULL, \"c d\"=>\"e,\\\"f\\\\\"" }, { TYPE_HSTORE, 0, "" }, { TYPE_LTREE, 0, "Top.Science" },
		{ TYPE_JSONPATH, 0, "$.\"a\"[*]?(@ > 1)" }, { TYPE_OTHER, 0, "(4294967295,65535)" }, { TYPE_OTHER, 0, "\x01\x1f\x7f\b\f\n\r\t\"\\/" },
	};
	static const struct {
		enum logical_type elem;
		const char *text;
	} arrays[] = {
		{ TYPE_INT32, "{}" }, { TYPE_TEXT, "{a,NULL,\"\",\"NULL\",\"null\",\"\\\"\",\"\\\\\",\",\",\"{}\",\" \",(b}" },
		/* boxes part by semicolons; nothing but NULLs would not tell */
		{ TYPE_GEOMETRY, "{(1,1),(0,0);(3,3),(2,2)}" }, { TYPE_GEOMETRY, "{NULL;(3,3),(2,2);NULL}" }, { TYPE_GEOMETRY, "{NULL;NULL}" },
		{ TYPE_GEOMETRY, "{NULL}" },
		{ TYPE_GEOMETRY, "{{NULL;NULL};{(3,3),(2,2);NULL}}" }, { TYPE_GEOMETRY, "[0:0]={(3,3),(2,2)}" }, { TYPE_GEOMETRY, "[0:1]={NULL;NULL}" },
		{ TYPE_GEOMETRY, "{\"[(0,0),(1,1.1)]\",NULL}" }, { TYPE_GEOMETRY, "{NULL,\"((0,0),(1,1))\"}" }, { TYPE_GEOMETRY, "{\"<(1,2),3>\"}" },
		/* delimiters that are not known here */
		{ TYPE_OTHER, "{a;b}" }, { TYPE_OTHER, "{\"a;b\";c}" }, { TYPE_OTHER, "{a,b;c,d}" }, { TYPE_OTHER, "{NULL;NULL}" },
		{ TYPE_ARRAY, "{\"{1,2}\",NULL,\"{\\\"a b\\\"}\"}" },
	};
	struct tally t;
	(void)state;
	tally_init(&t);
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct value v = kit_value(all[k].text);
		check_value(t.strings, rel_of(&t, all[k].type, all[k].elem), &v);
		check_value(t.numbers, rel_of(&t, all[k].type, all[k].elem), &v);
		check_in_arrays(&t, all[k].type, &v, ',');
	}
	struct value box = kit_value("(3,4),(1,2)");
	check_in_arrays(&t, TYPE_GEOMETRY, &box, ';');
	for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
		struct value v = kit_value(arrays[k].text);
		check_value(t.strings, rel_of(&t, TYPE_ARRAY, arrays[k].elem), &v);
	}
	tally_fini(&t);
}

/* ---- noise ---- */

static uint64_t seed;

static unsigned dice(unsigned n)
{
	seed = hash_stable(&seed, sizeof seed, 1);
	return (unsigned)(seed >> 20) % n;
}

static void put_noise(struct buf *b, unsigned most)
{
	static const char *const odd[] = { "\"", "\\", "\n", "\t", "\x01", "\x1f", "\x7f", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x90\x98", "{", "}", "[", "]",
		"(", ",", ";", ":", " ", "=>", "NULL", "null", "\\u0041", "'", "/", "\xED\x9F\xBF", "\xEF\xBF\xBD", "\xF4\x8F\xBF\xBF" };
	for (unsigned n = dice(most + 1); n; n--) {
		if (dice(3))
			buf_byte(b, (char)('a' + dice(26)));
		else
			buf_str(b, odd[dice(sizeof odd / sizeof *odd)]);
	}
}

static void put_noise_braces(struct buf *b, unsigned depth, unsigned wide)
{
	buf_byte(b, '{');
	for (unsigned i = 0; i < wide; i++) {
		if (i)
			buf_byte(b, ',');
		if (depth > 1) {
			put_noise_braces(b, depth - 1, wide);
		} else if (!dice(4)) {
			buf_str(b, "NULL");
		} else {
			size_t start = b->len;
			put_noise(b, 40);
			if (value_element_needs_quotes(b->data + start, b->len - start, ','))
				value_quote(b, start);
		}
	}
	buf_byte(b, '}');
}

static void put_noise_hstore(struct buf *b)
{
	for (unsigned n = dice(4), i = 0; i < n; i++) {
		buf_str(b, i ? ", " : "");
		size_t start = b->len;
		put_noise(b, 20);
		value_quote(b, start);
		buf_str(b, "=>");
		start = b->len;
		if (dice(3)) {
			put_noise(b, 20);
			value_quote(b, start);
		} else {
			buf_str(b, "NULL");
		}
	}
}

static void noise(void **state)
{
	struct tally t;
	struct buf b;
	(void)state;
	tally_init(&t);
	buf_init(&b, SIZE_MAX);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned kind = round % 4;
		seed = round;
		buf_reset(&b);
		if (kind == 1)
			put_noise_braces(&b, 1 + dice(6), 1 + dice(2));
		else if (kind == 2)
			put_noise_hstore(&b);
		else
			put_noise(&b, kind ? 4 : 100);
		struct value v = value_text(buf_cstr(&b), (uint32_t)b.len);
		check_value(t.strings, rel_of(&t, kind == 1 ? TYPE_ARRAY : kind == 2 ? TYPE_HSTORE : TYPE_TEXT, kind == 1 ? TYPE_TEXT : TYPE_OTHER), &v);
		if (kind == 2)
			check_in_arrays(&t, TYPE_HSTORE, &v, ',');
	}
	buf_fini(&b);
	tally_fini(&t);
}

static void every_byte(void **state)
{
	struct tally t;
	char bytes[200];
	(void)state;
	tally_init(&t);
	struct relation *text = rel_of(&t, TYPE_TEXT, TYPE_OTHER), *blob = rel_of(&t, TYPE_BYTES, TYPE_OTHER);
	for (unsigned n = 0; n < 48; n++)
		for (unsigned c = 0; c < 256; c++) {
			memset(bytes, 'x', sizeof bytes);
			bytes[n] = (char)c;
			struct value v = { bytes, n + 1 + n % 20, VALUE_BINARY };
			check_value(t.strings, blob, &v);
			if (c < 0x80)
				check_value(t.strings, text, &v);
		}
	tally_fini(&t);
}

/* ---- rows ---- */

static struct change row_change(struct relation *rel, enum change_op op, const struct value *before, const struct value *after)
{
	struct change ch = { .rel = rel, .txn = &txn, .event = 3, .op = (uint8_t)op };
	ch.u.row.before = before;
	ch.u.row.after = after;
	return ch;
}

/* (a int, "b\"" text, c generated, d numeric), key (d, a) */
static struct relation *wide(enum key_kind key)
{
	struct relation_builder *b = relation_build("postgres", "p\"q", "o\nne", 1);
	bool has_key = key == KEY_PRIMARY || key == KEY_UNIQUE;
	struct column a = kit_column("a", TYPE_INT32, TYPE_OTHER, has_key ? 2 : 0), text = kit_column("b\"", TYPE_TEXT, TYPE_OTHER, 0),
		      c = kit_column("c", TYPE_INT32, TYPE_OTHER, 0), d = kit_column("d", TYPE_NUMERIC, TYPE_OTHER, has_key ? 1 : 0);
	c.flags |= COLUMN_GENERATED;
	relation_build_column(b, &a);
	relation_build_column(b, &text);
	relation_build_column(b, &c);
	relation_build_column(b, &d);
	return relation_seal(b, key);
}

static void rows(void **state)
{
	struct dmsr_instance *i = open_with(NULL);
	struct batch *b = batch_new();
	(void)state;
	for (int key = KEY_NONE; key <= KEY_FULL; key++) {
		struct relation *rel = wide((enum key_kind)key);
		const struct value *full = KIT_ROW(b, "1", "ann", "7", "1.50"), *other = KIT_ROW(b, "2", NULL, "8", NULL);
		const struct value *loaded = KIT_ROW(b, "1", "", "\1", "2");
		const struct value *toast = KIT_ROW(b, "1", "\1", "7", "2"), *toasts = KIT_ROW(b, "1", "\1", "\1", "2");
		const struct value *keyed = KIT_ROW(b, "9", "\1", "\1", "1"), *most = KIT_ROW(b, "9", "\1", "7", "1");
		const struct value *nothing = KIT_ROW(b, "\1", "\1", "\1", "\1");
		const struct value *afters[] = { full, other, loaded, toast, toasts };
		for (size_t k = 0; k < sizeof afters / sizeof *afters; k++) {
			struct change c = row_change(rel, OP_CREATE, NULL, afters[k]), r = row_change(rel, OP_READ, NULL, afters[k]);
			struct change u = row_change(rel, OP_UPDATE, NULL, afters[k]), o = row_change(rel, OP_UPDATE, full, afters[k]);
			check_change(i, &c);
			check_change(i, &r);
			check_change(i, &u);
			if (afters[k] != toast && afters[k] != toasts && afters[k] != loaded)
				check_change(i, &o);
			o = row_change(rel, OP_UPDATE, keyed, afters[k]); /* the key changed */
			o.flags = key == KEY_PRIMARY || key == KEY_UNIQUE ? CHANGE_KEY_ONLY : 0;
			check_change(i, &o);
		}
		struct change d = row_change(rel, OP_DELETE, full, NULL);
		check_change(i, &d);
		d.u.row.before = most;
		check_change(i, &d);
		d.u.row.before = keyed;
		d.flags = key == KEY_PRIMARY || key == KEY_UNIQUE ? CHANGE_KEY_ONLY : 0;
		check_change(i, &d);
		d.flags = 0;
		d.u.row.before = NULL;
		check_change(i, &d);
		d.u.row.before = nothing;
		if (key == KEY_NONE || key == KEY_FULL)
			check_change(i, &d);
		relation_unref(rel);
	}
	batch_free(b);
	dmsr_plugin_json.codec->close(i);
}

/* A value that was not sent, beside an old row that has it: it comes back as the old one, which it is. */
static void completed(void **state)
{
	struct dmsr_instance *i = open_with(NULL);
	struct batch *b = batch_new();
	struct relation *rel = kit_orders("public", "orders");
	struct change u = row_change(rel, OP_UPDATE, KIT_ROW(b, "1", "ann", "1.50"), KIT_ROW(b, "1", "\1", "2"));
	(void)state;
	const struct change *got = around(i, &u, b);
	assert_same_row(rel, u.u.row.before, got->u.row.before);
	assert_same_row(rel, KIT_ROW(b, "1", "ann", "2"), got->u.row.after);
	relation_unref(rel);
	batch_free(b);
	dmsr_plugin_json.codec->close(i);
}

static void no_columns(void **state)
{
	struct dmsr_instance *i = open_with(NULL);
	struct relation *rel = relation_seal(relation_build("postgres", "s", "t", 1), KEY_NONE);
	struct value none;
	struct change c = row_change(rel, OP_CREATE, NULL, &none);
	(void)state;
	check_change(i, &c);
	relation_unref(rel);
	dmsr_plugin_json.codec->close(i);
}

/* Written by another version, for a job that had another name. */
static void other_origin(void **state)
{
	static const char record[] =
		"{\"before\":null,\"after\":{\"id\":1,\"name\":\"a\",\"total\":2.50},\"source\":{\"version\":\"9.9\",\"connector\":\"x\","
		"\"name\":\"old\\n\",\"db\":null,\"schema\":\"public\",\"table\":\"orders\","
		"\"ts_ms\":null,\"ts_us\":null,\"snapshot\":\"true\",\"txId\":null,\"lsn\":1,"
		"\"sequence\":\"[]\",\"event\":0},\"op\":\"r\",\"ts_ms\":1,\"transaction\":null}";
	struct dmsr_instance *i = open_with(NULL);
	struct relation *rel = kit_orders("public", "orders"), *another = kit_orders("public", "order");
	struct batch *b = batch_new();
	(void)state;
	assert_int_equal(decode(i, record, sizeof record - 1, rel, b), 0);
	assert_same_row(rel, KIT_ROW(b, "1", "a", "2.50"), b->last->u.row.after);
	assert_int_equal(decode(i, record, sizeof record - 1, another, b), DMSR_EPROTO);
	assert_string_equal(err.id, "codec.malformed");
	assert_non_null(strstr(err.message, "public.order: "));
	relation_unref(rel);
	relation_unref(another);
	batch_free(b);
	dmsr_plugin_json.codec->close(i);
}

/* Records of one transaction and of others, by one reader: a position that begins like the one before is another one. */
static void many_transactions(void **state)
{
	static const uint64_t lsns[] = { 12, 12, 123, 12, 1, 123456789, 123456789 };
	struct dmsr_instance *i = open_with(NULL);
	struct relation *rel = kit_orders("public", "orders");
	struct batch *b = batch_new();
	(void)state;
	for (size_t k = 0; k < sizeof lsns / sizeof *lsns; k++) {
		const struct txn t = { .lsn = lsns[k], .xid = 7 };
		struct change c = row_change(rel, OP_CREATE, NULL, KIT_ROW(b, "1", "ann", "2"));
		c.txn = &t;
		c.event = k + 1;
		check_change(i, &c);
	}
	relation_unref(rel);
	batch_free(b);
	dmsr_plugin_json.codec->close(i);
}

/* ---- what is refused ---- */

/* record with `from` replaced by `to` */
static char *replaced(const char *record, const char *from, const char *to)
{
	const char *at = strstr(record, from);
	if (!at)
		fail_msg("%s is not in %s", from, record);
	return mem_printf("%.*s%s%s", (int)(at - record), record, to, at + strlen(from));
}

static void malformed(void **state)
{
	static const struct {
		const char *from, *to, *says;
	} all[] = {
		{ "\"id\":1", "\"id\":\"1\"", "column id is no number" },
		{ "\"id\":1", "\"id\":01", "column id is no number" },
		{ "\"id\":1", "\"id\":nul", "column id is neither" },
		{ "\"id\":1,", "", "column id is missing" },
		{ "\"id\":1", "\"id\":1,\"id\":1", "column id is not of the table, or stands twice" },
		{ "\"id\":1", "\"id\":1,\"x\xFF\":1", "column x\xEF\xBF\xBD is not of the table" },
		{ "\"id\":1,\"name\":\"ann\"", "\"name\":\"ann\",\"id\":1", "column id is not of the table, or stands twice or out of order" },
		{ ",\"total\":\"1.50\"", ",\"total\":\"1.50\",", "a row that does not end" },
		{ "\"1.50\"", "\"1.50", "column total is no number" },
		{ "\"1.50\"", "1.", "column total is no number" },
		{ "ann", "a\xFFn", "column name is not valid UTF-8" },
		{ "ann", "a\nn", "column name is no string" },
		{ "ann", "a\\u0041n", "column name has an escape" },
		{ "ann", "a\\/n", "column name has an escape" },
		{ "\"event\":3", "\"event\":3,\"unchanged\":[\"name\"]", "source that does not end" },
		{ "\"event\":3", "\"event\":x", "where in the stream" },
		{ "\"orders\"", "\"others\"", "another table" },
		{ "\"connector\"", "\"konnector\"", "where it comes from" },
		{ "\"op\":\"c\"", "\"op\":\"u\"", NULL },
		{ "\"op\":\"c\"", "\"op\":\"d\"", "rows that its op has not" },
		{ "\"op\":\"c\"", "\"op\":\"t\"", "rows that its op has not" },
		{ "\"op\":\"c\"", "\"op\":\"cc\"", "does not end" },
		{ "\"before\":null", "\"before\":{\"id\":1,\"name\":\"ann\",\"total\":null}", "rows that its op has not" },
		{ "\"before\":null", "\"before\":nil", "neither null nor an object" },
		{ "\"before\"", " \"before\"", "no envelope" },
		{ "\"after\"", "\"behind\"", "no new row" },
		{ "\"source\"", "\"origin\"", "no source" },
		{ "\"total_order\":3}}", "\"total_order\":3}} ", "does not end" },
		{ "\"total_order\":3}}", "\"total_order\":3}", "does not end" },
		{ "{\"id\":\"771", "{\"id\":[\"771", "does not end" },
	};
	struct dmsr_instance *i = open_with(NULL);
	struct relation *rel = kit_orders("public", "orders");
	struct batch *b = batch_new();
	struct dmsr_record r;
	struct change c = row_change(rel, OP_CREATE, NULL, KIT_ROW(b, "1", "ann", "1.50"));
	(void)state;
	assert_int_equal(encode(i, &c, &r), 1);
	char *record = mem_strndup(r.value, r.value_len);
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		char *bad = replaced(record, all[k].from, all[k].to);
		int rc = decode(i, bad, strlen(bad), rel, b);
		if (rc != (all[k].says ? DMSR_EPROTO : 0) || (all[k].says && !strstr(err.message, all[k].says)))
			fail_msg("%s -> %s: %d %s", all[k].from, all[k].to, rc, err.message);
		if (rc) {
			assert_string_equal(err.id, "codec.malformed");
			assert_non_null(strstr(err.message, "public.orders"));
		}
		free(bad);
	}
	assert_int_equal(b->nchanges, 1);
	/* every beginning, from memory that ends there */
	for (size_t n = 0; n < r.value_len; n++) {
		char *part = mem_alloc(n ? n : 1);
		memcpy(part, record, n);
		assert_int_equal(decode(i, part, n, rel, b), DMSR_EPROTO);
		free(part);
	}
	assert_int_equal(b->nchanges, 1);
	free(record);
	relation_unref(rel);
	batch_free(b);
	dmsr_plugin_json.codec->close(i);
}

/* A value that no writer makes of the type. */
static void bad_values(void **state)
{
	static const struct {
		enum logical_type type, elem;
		const char *json;
	} all[] = {
		{ TYPE_BOOL, 0, "\"t\"" }, { TYPE_BOOL, 0, "1" }, { TYPE_INT32, 0, "1.0" }, { TYPE_INT32, 0, "-" }, { TYPE_INT64, 0, "123456789012345678901" },
		{ TYPE_UINT64, 0, "-1" }, { TYPE_UINT64, 0, "\"\"" }, { TYPE_FLOAT64, 0, "1e999" }, { TYPE_FLOAT64, 0, "\"1\"" },
		{ TYPE_FLOAT64, 0, "\"nan\"" },
		{ TYPE_NUMERIC, 0, "\"1e5\"" }, { TYPE_NUMERIC, 0, "\"\"" }, { TYPE_NUMERIC, 0, "\"1\\u0031\"" }, { TYPE_BYTES, 0, "\"AAA\"" },
		{ TYPE_BYTES, 0, "\"AB==\"" },
		{ TYPE_BYTES, 0, "\"AAB=\"" }, { TYPE_BYTES, 0, "\"A===\"" }, { TYPE_BYTES, 0, "\"====\"" }, { TYPE_BYTES, 0, "\"AA==AAAA\"" },
		{ TYPE_BYTES, 0, "\"AA-_\"" },
		{ TYPE_DATE, 0, "\"2026-1-31\"" }, { TYPE_DATE, 0, "\"+2026-01-31\"" }, { TYPE_DATE, 0, "\"12026-01-31\"" },
		{ TYPE_DATE, 0, "\"-0000-01-31\"" },
		{ TYPE_DATE, 0, "\"-00001-01-31\"" }, { TYPE_DATE, 0, "\"2026-01-31 BC\"" }, { TYPE_DATE, 0, "20484" }, { TYPE_DATE, 0, "\"Infinity\"" },
		{ TYPE_TIMESTAMP, 0, "\"2026-01-31 10:00:00\"" }, { TYPE_TIMESTAMP, 0, "\"2026-01-31T10:00:00Z\"" },
		{ TYPE_TIMESTAMP, 0, "\"2026-01-31T10:00:00.\"" },
		{ TYPE_TIMESTAMP, 0, "\"2026-01-31T10:00:00.1234567\"" }, { TYPE_TIMESTAMPTZ, 0, "\"2026-01-31T10:00:00\"" },
		{ TYPE_TIMESTAMPTZ, 0, "\"2026-01-31T10:00:00+02\"" },
		{ TYPE_TIMESTAMPTZ, 0, "\"2026-01-31T10:00:00+00:00\"" }, { TYPE_TIMESTAMPTZ, 0, "\"2026-01-31T10:00:00+02:00:00\"" },
		{ TYPE_TIMETZ, 0, "\"10:00:00\"" },
		{ TYPE_TIME, 0, "\"\"" }, { TYPE_INTERVAL, 0, "\"P\"" }, { TYPE_INTERVAL, 0, "\"PT\"" }, { TYPE_INTERVAL, 0, "\"\"" },
		{ TYPE_INTERVAL, 0, "\"P1D1Y\"" },
		{ TYPE_INTERVAL, 0, "\"P9999999999Y\"" }, { TYPE_INTERVAL, 0, "\"PT2562047788H1M\"" }, { TYPE_INTERVAL, 0, "\"PT1\"" },
		{ TYPE_INTERVAL, 0, "\"P1DT\"" },
		{ TYPE_ARRAY, TYPE_INT32, "[1,]" }, { TYPE_ARRAY, TYPE_INT32, "[,1]" }, { TYPE_ARRAY, TYPE_INT32, "[1" }, { TYPE_ARRAY, TYPE_INT32, "1" },
		{ TYPE_ARRAY, TYPE_INT32, "[[[[[[[1]]]]]]]" }, { TYPE_ARRAY, TYPE_INT32, "[\"1\"]" },
		{ TYPE_ARRAY, TYPE_INT32, "{\"bounds\":\"\",\"values\":[1]}" },
		{ TYPE_ARRAY, TYPE_INT32, "{\"bounds\":\"x\",\"values\":[1]}" }, { TYPE_ARRAY, TYPE_INT32, "{\"bounds\":\"[0:0]\",\"values\":1}" },
		{ TYPE_ARRAY, TYPE_INT32, "{\"bounds\":\"[0:0]\",\"values\":[1],\"x\":1}" }, { TYPE_HSTORE, 0, "{\"a\":1}" },
		{ TYPE_HSTORE, 0, "{\"a\":\"b\",}" },
		{ TYPE_HSTORE, 0, "{a:\"b\"}" }, { TYPE_HSTORE, 0, "\"\"" }, { TYPE_TEXT, 0, "1" }, { TYPE_TEXT, 0, "{}" }, { TYPE_OTHER, 0, "[\"a\"]" },
	};
	struct dmsr_instance *i = open_with(NULL);
	(void)state;
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct relation *rel = one_column(all[k].type, all[k].elem);
		struct batch *b = batch_new();
		struct dmsr_record r;
		struct change c = row_change(rel, OP_CREATE, NULL, KIT_ROW(b, NULL));
		assert_int_equal(encode(i, &c, &r), 1);
		char *record = mem_strndup(r.value, r.value_len), *label = mem_printf("{\"v\":%s}", all[k].json);
		char *bad = replaced(record, "{\"v\":null}", label);
		if (decode(i, bad, strlen(bad), rel, b) != DMSR_EPROTO)
			fail_msg("%s %s is not refused", logical_type_name(all[k].type), all[k].json);
		assert_non_null(strstr(err.message, "s.t: in a record, column v "));
		free(record);
		free(label);
		free(bad);
		batch_free(b);
		relation_unref(rel);
	}
	dmsr_plugin_json.codec->close(i);
}

static void exactness(void **state)
{
	static const struct {
		const char *option;
		bool exact;
	} all[] = { { "shape=envelope", true }, { "shape=flat", false }, { "compat=debezium", false }, { "numbers=number_if_lossless", true },
	{ "json=embedded", false },
		{ "invalid_utf8=replace", false }, { "tombstones=false", true }, { "meta=false", true } };
	(void)state;
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct dmsr_instance *i = OPEN(all[k].option);
		assert_int_equal(dmsr_plugin_json.codec->is_exact(i), all[k].exact);
		dmsr_plugin_json.codec->close(i);
	}
}

RUN_TESTS(cmocka_unit_test(values_of_a_server), cmocka_unit_test(more_values), cmocka_unit_test(noise), cmocka_unit_test(every_byte), cmocka_unit_test(rows),
	cmocka_unit_test(completed), cmocka_unit_test(no_columns), cmocka_unit_test(other_origin),
	cmocka_unit_test(many_transactions), cmocka_unit_test(malformed), cmocka_unit_test(bad_values),
	cmocka_unit_test(exactness))
