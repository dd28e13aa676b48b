/* test_json: every logical type with its edges, escaping, keys, tombstones, what was not sent, and Debezium's forms of all that. */
#include "codecs/json_int.h"
#include "json_kit.h"

#include <config.h>
#include <jansson.h>

static struct dmsr_record records[DMSR_RECORDS_MAX];
static struct err err;

static int encode(struct dmsr_instance *i, const struct change *ch)
{
	err_clear(&err);
	return dmsr_plugin_json.codec->encode(i, ch, records, DMSR_RECORDS_MAX, &err);
}

/* The text with the time of now taken out; whatever it is, it must be JSON and hold no control bytes. */
static const char *text(const char *p, size_t n)
{
	static char out[4][8192];
	static unsigned turn;
	char *o = out[turn++ % 4], *at;
	assert_true(p && n < sizeof out[0]);
	json_t *parsed = json_loadb(p, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
	if (!parsed)
		fail_msg("no JSON: %.*s", (int)n, p);
	json_decref(parsed);
	for (size_t k = 0; k < n; k++)
		assert_true((unsigned char)p[k] >= 0x20);
	memcpy(o, p, n);
	o[n] = 0;
	at = strstr(o, "\"op\":\"");
	if (at && !strncmp(at + 7, "\",\"ts_ms\":", 10)) {
		at += 17;
		size_t digits = strspn(at, "0123456789");
		assert_int_equal(digits, 13);
		*at = 'N';
		memmove(at + 1, at + digits, strlen(at + digits) + 1);
	}
	return o;
}

/* The text with " for each ' */
static const char *q(const char *p)
{
	static char out[4][4096];
	static unsigned turn;
	char *o = out[turn++ % 4];
	assert_true(strlen(p) < sizeof out[0]);
	for (size_t i = 0; i <= strlen(p); i++)
		o[i] = p[i] == '\'' ? '"' : p[i];
	return o;
}

#define assert_value(n, expected) assert_string_equal(text(records[n].value, records[n].value_len), q(expected))
#define assert_key(n, expected) assert_string_equal(text(records[n].key, records[n].key_len), q(expected))

/* ---- values ---- */

struct example {
	enum logical_type type, elem;
	int32_t typmod;
	const char *in, *out, *debezium; /* debezium NULL: the same; out NULL: refused */
};

/* The value of the one column of a row, as it stands in the record. */
static const char *value_as(struct dmsr_instance *i, const struct example *x, const struct value *v)
{
	struct relation_builder *b = relation_build("postgres", "s", "t", 1);
	struct column c = kit_column("v", x->type, x->elem, 0);
	c.typmod = x->typmod;
	relation_build_column(b, &c);
	struct relation *rel = relation_seal(b, KEY_NONE);
	struct change ch = { .rel = rel, .txn = &txn, .op = OP_CREATE, .u.row.after = v };
	int n = encode(i, &ch);
	relation_unref(rel);
	if (n < 0) {
		/* what is no text at all has an id of its own, and an option */
		assert_string_equal(err.id, strstr(err.message, "UTF-8") ? "codec.encoding" : "codec.value");
		assert_non_null(strstr(err.message, "s.t: the value of column v "));
		assert_true(err.hint[0]);
		return NULL;
	}
	assert_int_equal(n, 1);
	char *o = strchr(strdup(text(records[0].value, records[0].value_len)), ':') + 1;
	o[strlen(o) - 1] = 0;
	return o;
}

static void free_as(const char *o)
{
	if (o)
		free((char *)(uintptr_t)(o - strlen("{\"v\":")));
}

static void check(struct dmsr_instance *i, const struct example *x, const char *want)
{
	struct value v = kit_value(x->in);
	const char *got = value_as(i, x, &v);
	if (!want && got)
		fail_msg("%s %s: not refused, but %s", logical_type_name(x->type), x->in, got);
	if (want && (!got || strcmp(got, want) != 0))
		fail_msg("%s %s: got %s, want %s (%s)", logical_type_name(x->type), x->in, got ? got : "(none)", want, err.message);
	free_as(got);
}

static const struct example examples[] = {
	{ TYPE_BOOL, 0, -1, "t", "true", NULL },
	{ TYPE_BOOL, 0, -1, "f", "false", NULL },
	{ TYPE_BOOL, 0, -1, "true", NULL, NULL },
	{ TYPE_INT16, 0, -1, "-32768", "-32768", NULL },
	{ TYPE_INT32, 0, -1, "0", "0", NULL },
	{ TYPE_INT32, 0, -1, "007", NULL, NULL },
	{ TYPE_INT32, 0, -1, "", NULL, NULL },
	{ TYPE_INT32, 0, -1, "1,2", NULL, NULL },
	{ TYPE_INT64, 0, -1, "-9223372036854775808", "-9223372036854775808", NULL },
	{ TYPE_INT64, 0, -1, "9223372036854775807", "9223372036854775807", NULL },
	{ TYPE_OID, 0, -1, "4294967295", "4294967295", NULL },
	{ TYPE_UINT64, 0, -1, "18446744073709551615", "\"18446744073709551615\"", NULL },
	{ TYPE_UINT64, 0, -1, "-1", NULL, NULL },
	{ TYPE_FLOAT32, 0, -1, "1e-05", "1e-05", NULL },
	{ TYPE_FLOAT64, 0, -1, "1.7976931348623157e+308", "1.7976931348623157e+308", NULL },
	{ TYPE_FLOAT64, 0, -1, "5e-324", "5e-324", NULL },
	{ TYPE_FLOAT64, 0, -1, "-0", "-0.0", NULL },
	{ TYPE_FLOAT64, 0, -1, "NaN", "\"NaN\"", NULL },
	{ TYPE_FLOAT64, 0, -1, "-Infinity", "\"-Infinity\"", NULL },
	{ TYPE_FLOAT64, 0, -1, "1e999", NULL, NULL },
	{ TYPE_FLOAT64, 0, -1, "1.", NULL, NULL },
	{ TYPE_FLOAT64, 0, -1, "nan", NULL, NULL },
	{ TYPE_NUMERIC, 0, -1, "0", "\"0\"", "{\"scale\":0,\"value\":\"AA==\"}" },
	{ TYPE_NUMERIC, 0, -1, "1.10", "\"1.10\"", "{\"scale\":1,\"value\":\"Cw==\"}" },
	{ TYPE_NUMERIC, 0, -1, "-1000.00", "\"-1000.00\"", "{\"scale\":0,\"value\":\"/Bg=\"}" },
	{ TYPE_NUMERIC, 0, -1, "10.1111", "\"10.1111\"", "{\"scale\":4,\"value\":\"AYr3\"}" },
	{ TYPE_NUMERIC, 0, -1, "NaN", "\"NaN\"", NULL },
	{ TYPE_NUMERIC, 0, -1, "-Infinity", "\"-Infinity\"", NULL },
	{ TYPE_NUMERIC, 0, -1, "123456789012345678901234567890.123456789", "\"123456789012345678901234567890.123456789\"",
		"{\"scale\":9,\"value\":\"XODppWAV/sWq36MorjmBFQ==\"}" },
	{ TYPE_NUMERIC, 0, -1, "1.2.3", NULL, NULL },
	{ TYPE_NUMERIC, 0, (12 << 16 | 2) + 4, "1.10", "\"1.10\"", "\"bg==\"" },
	{ TYPE_NUMERIC, 0, (12 << 16 | 2) + 4, "-0.01", "\"-0.01\"", "\"/w==\"" },
	{ TYPE_NUMERIC, 0, (12 << 16 | 2) + 4, "1.28", "\"1.28\"", "\"AIA=\"" },
	{ TYPE_NUMERIC, 0, (12 << 16 | 2) + 4, "-1.28", "\"-1.28\"", "\"gA==\"" },
	{ TYPE_NUMERIC, 0, (12 << 16 | 2) + 4, "0.00", "\"0.00\"", "\"AA==\"" },
	{ TYPE_NUMERIC, 0, (3 << 16 | (-2 & 0x7ff)) + 4, "12300", "\"12300\"", "\"ew==\"" },
	{ TYPE_MONEY, 0, -1, "-$1,234.56", "\"-$1,234.56\"", "\"/h3A\"" },
	{ TYPE_MONEY, 0, -1, "$0.00", "\"$0.00\"", "\"AA==\"" },
	{ TYPE_TEXT, 0, -1, "", "\"\"", NULL },
	{ TYPE_TEXT, 0, -1, "a\"b\\c/d\x01\x1f\b\f\n\r\t\x7f", "\"a\\\"b\\\\c/d\\u0001\\u001f\\b\\f\\n\\r\\t\x7f\"", NULL },
	{ TYPE_TEXT, 0, -1, "0123456\"89012345\\7", "\"0123456\\\"89012345\\\\7\"", NULL },
	{ TYPE_TEXT, 0, -1, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x90\x98 plain text behind it",
		"\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x90\x98 plain text behind it\"", NULL },
	{ TYPE_TEXT, 0, -1, "latin \xE4", NULL, NULL },
	{ TYPE_TEXT, 0, -1, "overlong \xC0\xAF", NULL, NULL },
	{ TYPE_TEXT, 0, -1, "surrogate \xED\xA0\x80", NULL, NULL },
	{ TYPE_TEXT, 0, -1, "beyond \xF4\x90\x80\x80", NULL, NULL },
	{ TYPE_TEXT, 0, -1, "cut \xE2\x82", NULL, NULL },
	{ TYPE_CHAR, 0, -1, "a   ", "\"a   \"", NULL },
	{ TYPE_BYTES, 0, -1, "\\x", "\"\"", NULL },
	{ TYPE_BYTES, 0, -1, "\\x00", "\"AA==\"", NULL },
	{ TYPE_BYTES, 0, -1, "\\x0001", "\"AAE=\"", NULL },
	{ TYPE_BYTES, 0, -1, "\\x00FFfe", "\"AP/+\"", NULL },
	{ TYPE_BYTES, 0, -1, "\\x0", NULL, NULL },
	{ TYPE_BYTES, 0, -1, "plain", NULL, NULL },
	{ TYPE_UUID, 0, -1, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"", NULL },
	{ TYPE_JSON, 0, -1, "{\"a\" : \"\\n\"}", "\"{\\\"a\\\" : \\\"\\\\n\\\"}\"", NULL },
	{ TYPE_JSONB, 0, -1, "[1, 2]", "\"[1, 2]\"", NULL },
	{ TYPE_XML, 0, -1, "<a b=\"c\"/>", "\"<a b=\\\"c\\\"/>\"", NULL },
	{ TYPE_ENUM, 0, -1, "happy", "\"happy\"", NULL },
	{ TYPE_DATE, 0, -1, "2026-01-31", "\"2026-01-31\"", "20484" },
	{ TYPE_DATE, 0, -1, "1969-12-31", "\"1969-12-31\"", "-1" },
	{ TYPE_DATE, 0, -1, "0044-03-15 BC", "\"-0043-03-15\"", "-735160" },
	{ TYPE_DATE, 0, -1, "0001-12-31 BC", "\"0000-12-31\"", "-719163" },
	{ TYPE_DATE, 0, -1, "5874897-12-31", "\"+5874897-12-31\"", "2145042905" },
	{ TYPE_DATE, 0, -1, "infinity", "\"infinity\"", "-2147472692" },
	{ TYPE_DATE, 0, -1, "-infinity", "\"-infinity\"", "-2147472691" },
	{ TYPE_DATE, 0, -1, "31.01.2026", NULL, NULL },
	{ TYPE_DATE, 0, -1, "0000-01-01", NULL, NULL },
	{ TYPE_TIME, 0, -1, "10:00:00.1", "\"10:00:00.1\"", "36000100000" },
	{ TYPE_TIME, 0, -1, "24:00:00", "\"24:00:00\"", "86400000000" },
	{ TYPE_TIME, 0, 3, "10:00:00.123", "\"10:00:00.123\"", "36000123" },
	{ TYPE_TIMETZ, 0, -1, "10:00:00+02", "\"10:00:00+02:00\"", "\"08:00:00Z\"" },
	{ TYPE_TIMETZ, 0, -1, "01:00:00.5+05:30", "\"01:00:00.5+05:30\"", "\"19:30:00.5Z\"" },
	{ TYPE_TIMETZ, 0, -1, "24:00:00+00", "\"24:00:00Z\"", "\"24:00:00Z\"" },
	{ TYPE_TIMETZ, 0, -1, "00:00:00-15:59:59", "\"00:00:00-15:59:59\"", "\"15:59:59Z\"" },
	{ TYPE_TIMESTAMP, 0, -1, "2026-01-31 10:00:00", "\"2026-01-31T10:00:00\"", "1769853600000000" },
	{ TYPE_TIMESTAMP, 0, -1, "2026-01-31 10:00:00.123456", "\"2026-01-31T10:00:00.123456\"", "1769853600123456" },
	{ TYPE_TIMESTAMP, 0, 3, "2026-01-31 10:00:00.123", "\"2026-01-31T10:00:00.123\"", "1769853600123" },
	{ TYPE_TIMESTAMP, 0, 0, "1969-12-31 23:59:59", "\"1969-12-31T23:59:59\"", "-1000" },
	{ TYPE_TIMESTAMP, 0, -1, "4713-11-24 00:00:00 BC", "\"-4712-11-24T00:00:00\"", "-210835180800000000" },
	{ TYPE_TIMESTAMP, 0, -1, "294276-12-31 23:59:59.999999", "\"+294276-12-31T23:59:59.999999\"", "9224318015999999999" },
	{ TYPE_TIMESTAMP, 0, -1, "infinity", "\"infinity\"", "9223372036825200000" },
	{ TYPE_TIMESTAMP, 0, -1, "-infinity", "\"-infinity\"", "-9223372036832400000" },
	{ TYPE_TIMESTAMP, 0, -1, "2026-01-31T10:00:00", NULL, NULL },
	{ TYPE_TIMESTAMP, 0, -1, "0000-01-31 10:00:00", NULL, NULL },
	{ TYPE_TIMESTAMPTZ, 0, -1, "2016-11-04 13:51:30.123456+02", "\"2016-11-04T13:51:30.123456+02:00\"", "\"2016-11-04T11:51:30.123456Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, -1, "2026-01-31 10:00:00+00", "\"2026-01-31T10:00:00Z\"", "\"2026-01-31T10:00:00.000000Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, 3, "2026-01-31 10:00:00.5-00:30", "\"2026-01-31T10:00:00.5-00:30\"", "\"2026-01-31T10:30:00.500Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, 0, "2025-12-31 23:00:00-02", "\"2025-12-31T23:00:00-02:00\"", "\"2026-01-01T01:00:00Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, -1, "0001-01-01 00:00:00+00 BC", "\"0000-01-01T00:00:00Z\"", "\"0000-01-01T00:00:00.000000Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, -1, "1800-01-01 00:00:00+00:53:28", "\"1800-01-01T00:00:00+00:53:28\"", "\"1799-12-31T23:06:32.000000Z\"" },
	{ TYPE_TIMESTAMPTZ, 0, -1, "infinity", "\"infinity\"", NULL },
	{ TYPE_INTERVAL, 0, -1, "1 year 2 mons 3 days 04:05:06.7", "\"P1Y2M3DT4H5M6.7S\"", "37091106700000" },
	{ TYPE_INTERVAL, 0, -1, "00:00:00", "\"PT0S\"", "0" },
	{ TYPE_INTERVAL, 0, -1, "-00:00:00.5", "\"PT-0.5S\"", "-500000" },
	{ TYPE_INTERVAL, 0, -1, "-1 years -2 mons +3 days -04:05:06", "\"P-1Y-2M3DT-4H-5M-6S\"", "-36572706000000" },
	{ TYPE_INTERVAL, 0, -1, "1 mon -1 days", "\"P1M-1D\"", "2543400000000" },
	{ TYPE_INTERVAL, 0, -1, "01:00:00", "\"PT1H\"", "3600000000" },
	{ TYPE_INTERVAL, 0, -1, "2562047788:00:54.775807", "\"PT2562047788H54.775807S\"", "9223372036854775807" },
	{ TYPE_INTERVAL, 0, -1, "-2562047788:00:54.775808", "\"PT-2562047788H-54.775808S\"", "-9223372036854775808" },
	{ TYPE_INTERVAL, 0, -1, "178956970 years 7 mons", "\"P178956970Y7M\"", NULL },
	{ TYPE_INTERVAL, 0, -1, "infinity", "\"infinity\"", "9223372036854775807" },
	{ TYPE_INTERVAL, 0, -1, "1 fortnight", NULL, NULL },
	{ TYPE_INTERVAL, 0, -1, "2147483648 days", NULL, NULL },
	{ TYPE_BIT, 0, 4, "0101", "\"0101\"", "\"BQ==\"" },
	{ TYPE_BIT, 0, 1, "1", "\"1\"", "true" },
	{ TYPE_VARBIT, 0, -1, "", "\"\"", "\"\"" },
	{ TYPE_VARBIT, 0, -1, "100000001", "\"100000001\"", "\"AQE=\"" },
	{ TYPE_VARBIT, 0, 33, "000000000000000101", "\"000000000000000101\"", "\"BQ==\"" },
	{ TYPE_INET, 0, -1, "192.168.0.1/24", "\"192.168.0.1/24\"", NULL },
	{ TYPE_POINT, 0, -1, "(1,-2.5)", "\"(1,-2.5)\"", "{\"x\":1,\"y\":-2.5,\"wkb\":\"AQEAAAAAAAAAAADwPwAAAAAAAATA\",\"srid\":null}" },
	{ TYPE_GEOMETRY, 0, -1, "<(1,2),3>", "\"<(1,2),3>\"", NULL },
	{ TYPE_TSVECTOR, 0, -1, "'a':1 'b''c':2", "\"'a':1 'b''c':2\"", NULL },
	{ TYPE_LSN, 0, -1, "16/B374D848", "\"16/B374D848\"", NULL },
	{ TYPE_COMPOSITE, 0, -1, "(1,\"a b\",)", "\"(1,\\\"a b\\\",)\"", NULL },
	{ TYPE_RANGE, TYPE_INT32, -1, "[1,5)", "\"[1,5)\"", NULL },
	{ TYPE_MULTIRANGE, TYPE_INT32, -1, "{[1,3),[5,7)}", "\"{[1,3),[5,7)}\"", NULL },
	{ TYPE_OTHER, 0, -1, "whatever", "\"whatever\"", NULL },
	{ TYPE_HSTORE, 0, -1, "", "{}", "\"{}\"" },
	{ TYPE_HSTORE, 0, -1, "\"a\"=>\"1\", \"b \\\"q\\\"\"=>NULL", "{\"a\":\"1\",\"b \\\"q\\\"\":null}",
		"\"{\\\"a\\\":\\\"1\\\",\\\"b \\\\\\\"q\\\\\\\"\\\":null}\"" },
	{ TYPE_HSTORE, 0, -1, "\"a\"=>\"1\",", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{}", "[]", NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{1,NULL,-3}", "[1,null,-3]", NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{{1,2},{3,4}}", "[[1,2],[3,4]]", NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "[0:1]={1,2}", "{\"bounds\":\"[0:1]\",\"values\":[1,2]}", NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "[-1:-1][2:3]={{1,2}}", "{\"bounds\":\"[-1:-1][2:3]\",\"values\":[[1,2]]}", NULL },
	{ TYPE_ARRAY, TYPE_TEXT, -1, "{a,\"b c\",\"NULL\",NULL,\"\",\"q\\\"\\\\\",\"{}\"}", "[\"a\",\"b c\",\"NULL\",null,\"\",\"q\\\"\\\\\",\"{}\"]", NULL },
	{ TYPE_ARRAY, TYPE_BYTES, -1, "{\"\\\\x0001\",NULL}", "[\"AAE=\",null]", NULL },
	{ TYPE_ARRAY, TYPE_BOOL, -1, "{t,f}", "[true,false]", NULL },
	{ TYPE_ARRAY, TYPE_NUMERIC, -1, "{1.5,NaN}", "[\"1.5\",\"NaN\"]", "[{\"scale\":1,\"value\":\"Dw==\"},\"NaN\"]" },
	{ TYPE_ARRAY, TYPE_TIMESTAMP, -1, "{\"2026-01-31 10:00:00\"}", "[\"2026-01-31T10:00:00\"]", "[1769853600000000]" },
	{ TYPE_ARRAY, TYPE_DATE, -1, "{2026-01-31,infinity}", "[\"2026-01-31\",\"infinity\"]", "[20484,-2147472692]" },
	{ TYPE_ARRAY, TYPE_GEOMETRY, -1, "{(1,1),(0,0);(2,2),(3,3)}", "[\"(1,1),(0,0)\",\"(2,2),(3,3)\"]", NULL },
	{ TYPE_ARRAY, TYPE_GEOMETRY, -1, "{\"[(1,1),(0,0)]\",NULL}", "[\"[(1,1),(0,0)]\",null]", NULL },
	{ TYPE_ARRAY, TYPE_JSONB, -1, "{\"{\\\"a\\\": 1}\"}", "[\"{\\\"a\\\": 1}\"]", NULL },
	{ TYPE_ARRAY, TYPE_HSTORE, -1, "{\"\\\"a\\\"=>\\\"1\\\"\"}", "[{\"a\":\"1\"}]", "[\"{\\\"a\\\":\\\"1\\\"}\"]" },
	{ TYPE_ARRAY, TYPE_HSTORE, -1, "{\"\\\"long name\\\"=>\\\"value\\\", \\\"n\\\"=>NULL\"}", "[{\"long name\":\"value\",\"n\":null}]",
		"[\"{\\\"long name\\\":\\\"value\\\",\\\"n\\\":null}\"]" },
	{ TYPE_ARRAY, TYPE_ARRAY, -1, "{\"{1,2}\",NULL}", "[\"{1,2}\",null]", NULL }, /* of a domain over arrays */
	{ TYPE_ARRAY, TYPE_GEOMETRY, -1, "{NULL;NULL}", "\"{NULL;NULL}\"", NULL },
	{ TYPE_ARRAY, TYPE_OTHER, -1, "{\"a;b\";c}", "\"{\\\"a;b\\\";c}\"", NULL }, /* a delimiter of its own */
	{ TYPE_ARRAY, TYPE_OTHER, -1, "[0:1]={\"a;b\";c}", "\"[0:1]={\\\"a;b\\\";c}\"", NULL },
	{ TYPE_ARRAY, TYPE_RANGE, -1, "{\"[1,5)\",empty}", "[\"[1,5)\",\"empty\"]", NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{1,}", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{,1}", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{1", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{1}}", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "{{{{{{{1}}}}}}}", NULL, NULL },
	{ TYPE_ARRAY, TYPE_INT32, -1, "[x]={1}", NULL, NULL },
	{ TYPE_ARRAY, TYPE_GEOMETRY, -1, "{NULL;(1,1),(0,0)}", "[null,\"(1,1),(0,0)\"]", NULL },
	{ TYPE_ARRAY, TYPE_TEXT, -1, "{\"a}", NULL, NULL },
};

static void values(void **state)
{
	struct dmsr_instance *plain = OPEN("tombstones=true", "shape=flat", "meta=false"), *debezium = OPEN("compat=debezium", "shape=flat", "meta=false");
	(void)state;
	for (size_t k = 0; k < sizeof examples / sizeof *examples; k++) {
		const struct example *x = &examples[k];
		check(plain, x, x->out);
		if (x->type == TYPE_TIMESTAMP && !strncmp(x->in, "294276", 6))
			check(debezium, x, NULL); /* its microseconds since 1970 have no place in 64 bits */
		else if (x->type == TYPE_INTERVAL && x->in[0] == '1' && x->in[1] == '7')
			check(debezium, x, "9223372036854775807");
		else
			check(debezium, x, x->debezium ? x->debezium : x->out);
	}
	struct value null = { 0 };
	const char *got = value_as(plain, &examples[0], &null);
	assert_string_equal(got, "null");
	free_as(got);
	dmsr_plugin_json.codec->close(plain);
	dmsr_plugin_json.codec->close(debezium);
}

static void options(void **state)
{
	struct dmsr_instance *i = OPEN("numbers=number_if_lossless", "json=embedded", "invalid_utf8=replace", "shape=flat", "meta=false");
	static const struct example more[] = {
		{ TYPE_NUMERIC, 0, -1, "1.10", "1.10", NULL },
		{ TYPE_NUMERIC, 0, -1, "123456789012345", "123456789012345", NULL },
		{ TYPE_NUMERIC, 0, -1, "0.000000000123456789012345", "0.000000000123456789012345", NULL },
		{ TYPE_NUMERIC, 0, -1, "1234567890123456", "\"1234567890123456\"", NULL },
		{ TYPE_NUMERIC, 0, -1, "NaN", "\"NaN\"", NULL },
		{ TYPE_UINT64, 0, -1, "18446744073709551615", "\"18446744073709551615\"", NULL },
		{ TYPE_UINT64, 0, -1, "42", "42", NULL },
		{ TYPE_JSON, 0, -1, " { \"a\" : [ 1 , \"x y\" , { } , [ ] ] ,\n\t\"b\":-1.5e3 } ", "{\"a\":[1,\"x y\",{},[]],\"b\":-1.5e3}", NULL },
		{ TYPE_JSONB, 0, -1, "\"\\u00e4\"", "\"\\u00e4\"", NULL },
		{ TYPE_JSON, 0, -1, "null", "null", NULL },
		{ TYPE_JSON, 0, -1, "", NULL, NULL },
		{ TYPE_JSON, 0, -1, "{", NULL, NULL },
		{ TYPE_JSON, 0, -1, "{\"a\":1,}", NULL, NULL },
		{ TYPE_JSON, 0, -1, "{\"a\":}", NULL, NULL },
		{ TYPE_JSON, 0, -1, "{1:2}", NULL, NULL },
		{ TYPE_JSON, 0, -1, "[1 2]", NULL, NULL },
		{ TYPE_JSON, 0, -1, "[1]]", NULL, NULL },
		{ TYPE_JSON, 0, -1, "[1}", NULL, NULL },
		{ TYPE_JSON, 0, -1, "01", NULL, NULL },
		{ TYPE_JSON, 0, -1, "\"\\x\"", NULL, NULL },
		{ TYPE_JSON, 0, -1, "nul", NULL, NULL },
		{ TYPE_JSON, 0, -1, "\"a\nb\"", NULL, NULL },
		{ TYPE_TEXT, 0, -1, "latin \xE4!", "\"latin \xEF\xBF\xBD!\"", NULL },
		{ TYPE_JSON, 0, -1, "[\"\xE4\"]", "[\"\xEF\xBF\xBD\"]", NULL },
		{ TYPE_ARRAY, TYPE_JSONB, -1, "{\"{\\\"a\\\": 1}\",NULL}", "[{\"a\":1},null]", NULL },
	};
	(void)state;
	for (size_t k = 0; k < sizeof more / sizeof *more; k++)
		check(i, &more[k], more[k].out);
	char deep[2 * 1025 + 1];
	memset(deep, '[', 1025);
	memset(deep + 1025, ']', 1025);
	deep[2050] = 0;
	check(i, &(struct example){ TYPE_JSON, 0, -1, deep, NULL, NULL }, NULL);
	check(i, &(struct example){ TYPE_JSON, 0, -1, deep + 1, NULL, NULL }, NULL);
	deep[2049] = 0;
	check(i, &(struct example){ TYPE_JSON, 0, -1, deep + 1, NULL, NULL }, deep + 1);
	dmsr_plugin_json.codec->close(i);
}

static void binary(void **state)
{
	struct dmsr_instance *i = OPEN("shape=flat", "meta=false"), *d = OPEN("shape=flat", "meta=false", "compat=debezium");
	static const struct {
		struct example x;
		const char *bytes;
		size_t n;
	} all[] = {
		{ { TYPE_BOOL, 0, -1, "bool", "true", NULL }, "\1", 1 },
		{ { TYPE_INT16, 0, -1, "int16", "-2", NULL }, "\xff\xfe", 2 },
		{ { TYPE_INT32, 0, -1, "int32", "258", NULL }, "\0\0\1\2", 4 },
		{ { TYPE_INT32, 0, -1, "cut", NULL, NULL }, "\0\0\1", 3 },
		{ { TYPE_INT64, 0, -1, "int64", "-9223372036854775808", NULL }, "\x80\0\0\0\0\0\0\0", 8 },
		{ { TYPE_FLOAT64, 0, -1, "float64", "1.5", NULL }, "\x3f\xf8\0\0\0\0\0\0", 8 },
		{ { TYPE_TEXT, 0, -1, "text", "\"a\\u0000\\\"\"", NULL }, "a\0\"", 3 },
		{ { TYPE_BYTES, 0, -1, "bytes", "\"AP8=\"", NULL }, "\0\xff", 2 },
		{ { TYPE_BYTES, 0, -1, "none", "\"\"", NULL }, "", 0 },
		{ { TYPE_DATE, 0, -1, "date", "\"2000-01-02\"", "10958" }, "\0\0\0\1", 4 },
		{ { TYPE_TIMESTAMP, 0, -1, "timestamp", "\"2000-01-01T00:00:00.000001\"", "946684800000001" }, "\0\0\0\0\0\0\0\1", 8 },
		{ { TYPE_TIMESTAMP, 0, -1, "the least", "\"-290278-12-22T19:59:05.224193\"", "-9222425352054775807" }, "\x80\0\0\0\0\0\0\1", 8 },
		{ { TYPE_NUMERIC, 0, -1, "numeric", "\"1.5\"", "{\"scale\":1,\"value\":\"Dw==\"}" }, "\0\2\0\0\0\0\0\1\0\1\x13\x88", 12 },
		{ { TYPE_ARRAY, TYPE_INT32, -1, "array", "[7,null]", NULL }, "\0\0\0\1\0\0\0\1\0\0\0\x17\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\7\xff\xff\xff\xff", 32 },
		{ { TYPE_JSONB, 0, -1, "jsonb", "\"{}\"", NULL }, "\1{}", 3 },
		{ { TYPE_OTHER, 0, -1, "other", NULL, NULL }, "x", 1 },
	};
	(void)state;
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct value v = { all[k].bytes, (uint32_t)all[k].n, VALUE_BINARY };
		for (int mode = 0; mode < 2; mode++) {
			const char *got = value_as(mode ? d : i, &all[k].x, &v);
			const char *want = mode && all[k].x.debezium ? all[k].x.debezium : all[k].x.out;
			if (!got != !want || (got && strcmp(got, want) != 0))
				fail_msg("%s: got %s, want %s", all[k].x.in, got ? got : "(none)", want ? want : "(none)");
			free_as(got);
		}
	}
	dmsr_plugin_json.codec->close(i);
	dmsr_plugin_json.codec->close(d);
}

/* ---- records ---- */

#define WHERE "'source':{'version':'" PACKAGE_VERSION "','connector':'postgresql','name':'shop','db':'sh\\\"op','schema':'public','table':'orders',"
#define WHEN "'ts_ms':1769853600123,'ts_us':1769853600123456,'snapshot':'false','txId':771,'lsn':23803720,"
#define SOURCE WHERE WHEN "'sequence':'[\\\"23803720\\\",\\\"3\\\"]','event':3"
#define END(op) "'op':'" op "','ts_ms':N,'transaction':{'id':'771:23803720','total_order':3}}"

struct fixture {
	struct batch *b;
	struct relation *rel;
};

static struct change row_change(struct fixture *f, enum change_op op, const struct value *before, const struct value *after)
{
	struct change ch = { .rel = f->rel, .txn = &txn, .event = 3, .op = (uint8_t)op };
	ch.u.row.before = before;
	ch.u.row.after = after;
	return ch;
}

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

static void create_update(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL);
	struct change c = row_change(f, OP_CREATE, NULL, KIT_ROW(f->b, "1", "ann", "1.50"));
	assert_int_equal(encode(i, &c), 1);
	assert_key(0, "{'id':1}");
	assert_value(0, "{'before':null,'after':{'id':1,'name':'ann','total':'1.50'}," SOURCE "}," END("c"));

	struct change u = row_change(f, OP_UPDATE, NULL, KIT_ROW(f->b, "1", "\1", NULL));
	assert_int_equal(encode(i, &u), 1);
	assert_key(0, "{'id':1}");
	assert_value(0, "{'before':null,'after':{'id':1,'total':null}," SOURCE ",'unchanged':['name']}," END("u"));

	/* the whole old row was sent: it knows what the new one leaves out */
	u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "ann", "1.50"), KIT_ROW(f->b, "1", "\1", NULL));
	assert_int_equal(encode(i, &u), 1);
	assert_value(0, "{'before':{'id':1,'name':'ann','total':'1.50'},'after':{'id':1,'name':'ann','total':null}," SOURCE "}," END("u"));

	/* an old key that is the same */
	u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "\1", "\1"), KIT_ROW(f->b, "1", "bo", "2"));
	u.flags = CHANGE_KEY_ONLY;
	assert_int_equal(encode(i, &u), 1);
	assert_value(0, "{'before':{'id':1},'after':{'id':1,'name':'bo','total':'2'}," SOURCE "}," END("u"));

	/* the key itself was not sent, nor before */
	u = row_change(f, OP_UPDATE, NULL, KIT_ROW(f->b, "\1", "bo", "2"));
	assert_int_equal(encode(i, &u), DMSR_EDATA);
	assert_string_equal(err.id, "codec.key");
	dmsr_plugin_json.codec->close(i);
}

static void delete_and_key_change(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL), *quiet = OPEN("tombstones=false");
	struct change d = row_change(f, OP_DELETE, KIT_ROW(f->b, "1", "\1", "\1"), NULL);
	d.flags = CHANGE_KEY_ONLY;
	assert_int_equal(encode(i, &d), 2);
	assert_key(0, "{'id':1}");
	assert_value(0, "{'before':{'id':1},'after':null," SOURCE "}," END("d"));
	assert_key(1, "{'id':1}");
	assert_null(records[1].value);
	assert_int_equal(encode(quiet, &d), 1);

	struct change u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "\1", "\1"), KIT_ROW(f->b, "2", "\1", "9"));
	u.flags = CHANGE_KEY_ONLY;
	assert_int_equal(encode(i, &u), 3);
	assert_key(0, "{'id':1}");
	assert_value(0, "{'before':{'id':1},'after':null," SOURCE "}," END("d"));
	assert_key(1, "{'id':1}");
	assert_null(records[1].value);
	assert_key(2, "{'id':2}");
	assert_value(2, "{'before':null,'after':{'id':2,'total':'9'}," SOURCE ",'unchanged':['name']}," END("c"));
	assert_int_equal(encode(quiet, &u), 2);

	/* the same key, once as text and once binary, is no other key */
	struct value *before = batch_values(f->b, 3);
	before[0] = (struct value){ "\0\0\0\2", 4, VALUE_BINARY };
	before[1] = before[2] = (struct value){ .kind = VALUE_UNCHANGED };
	u.u.row.before = before;
	assert_int_equal(encode(i, &u), 1);
	dmsr_plugin_json.codec->close(i);
	dmsr_plugin_json.codec->close(quiet);
}

static void one_record(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL), *bare = OPEN("shape=flat", "meta=false"), *d = OPEN("compat=debezium");
	const struct dmsr_codec *codec = dmsr_plugin_json.codec;
	struct change u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "\1", "\1"), KIT_ROW(f->b, "2", "\1", "9"));
	u.flags = CHANGE_KEY_ONLY;
	assert_int_equal(codec->encode(i, &u, records, 1, &err), 1);
	assert_key(0, "{'id':2}");
	assert_value(0, "{'before':{'id':1},'after':{'id':2,'total':'9'}," SOURCE ",'unchanged':['name']}," END("u"));
	assert_int_equal(codec->encode(bare, &u, records, 1, &err), 1);
	assert_value(0, "{'id':2,'total':'9'}");
	assert_int_equal(codec->encode(d, &u, records, 1, &err), 1);
	struct change gone = row_change(f, OP_DELETE, KIT_ROW(f->b, "1", "\1", "\1"), NULL);
	gone.flags = CHANGE_KEY_ONLY;
	assert_int_equal(codec->encode(i, &gone, records, 1, &err), 1);
	assert_key(0, "{'id':1}");
	assert_value(0, "{'before':{'id':1},'after':null," SOURCE "}," END("d"));
	assert_int_equal(codec->encode(bare, &gone, records, 1, &err), 1);
	assert_key(0, "{'id':1}");
	assert_null(records[0].value);
	codec->close(i);
	codec->close(bare);
	codec->close(d);
}

static void truncate_message_words(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL);
	struct change t = { .rel = f->rel, .txn = &txn, .event = 3, .op = OP_TRUNCATE };
	assert_int_equal(encode(i, &t), 1);
	assert_null(records[0].key);
	assert_value(0, "{'before':null,'after':null," SOURCE "}," END("t"));

	struct change m = { .txn = &txn, .event = 3, .op = OP_MESSAGE, .flags = CHANGE_TRANSACTIONAL };
	m.u.message.prefix = "fo\"o";
	m.u.message.data = "bar";
	m.u.message.len = 3;
	assert_int_equal(encode(i, &m), 1);
	assert_key(0, "{'prefix':'fo\\\"o'}");
	const char *got = text(records[0].value, records[0].value_len);
	assert_non_null(strstr(got, q("'schema':'','table':'',")));
	assert_non_null(strstr(got, q("'op':'m','ts_ms':N,'message':{'prefix':'fo\\\"o','content':'YmFy'},'transaction':{'id':")));
	m.txn = NULL;
	m.u.message.lsn = 99;
	assert_int_equal(encode(i, &m), 1);
	got = text(records[0].value, records[0].value_len);
	assert_non_null(strstr(got, q("'ts_ms':null,'ts_us':null,'snapshot':'false','txId':null,'lsn':99,")));
	assert_non_null(strstr(got, q("'transaction':null}")));

	static const enum change_op words[] = { OP_BEGIN, OP_COMMIT, OP_HEARTBEAT, OP_SCHEMA, OP_LOAD_BEGIN, OP_LOAD_END, OP_LOAD_DONE };
	for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
		struct change w = { .rel = f->rel, .txn = &txn, .op = (uint8_t)words[k] };
		assert_int_equal(encode(i, &w), 0);
	}
	struct change rows = { .rel = f->rel, .txn = &txn, .op = OP_ROWS };
	assert_int_equal(encode(i, &rows), DMSR_EINVAL);
	dmsr_plugin_json.codec->close(i);
}

static int encode_loaded(void *arg, const struct change *row)
{
	struct dmsr_instance *i = ((void **)arg)[0];
	struct buf *out = ((void **)arg)[1];
	assert_int_equal(encode(i, row), 1);
	buf_str(out, text(records[0].value, records[0].value_len));
	buf_byte(out, '\n');
	return 0;
}

static void load_rows(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL);
	struct txn snapshot = { .lsn = 100 };
	struct change rows = { .rel = f->rel, .txn = &snapshot, .op = OP_ROWS };
	struct buf out;
	buf_init(&out, 1 << 20);
	rows.u.rows.format = ROWS_COPY_TEXT;
	rows.u.rows.data = "1\ta\\tb\t\\N\n2\t\\\\x\t1.5\n";
	rows.u.rows.len = strlen(rows.u.rows.data);
	assert_int_equal(change_each_row(&rows, encode_loaded, (void *[]){ i, &out }, &err), 0);
#define SNAPSHOT "'ts_ms':null,'ts_us':null,'snapshot':'true','txId':null,'lsn':100,'sequence':'[\\\"100\\\",\\\"0\\\"]','event':0}"
#define LOADED WHERE SNAPSHOT ",'op':'r','ts_ms':N,'transaction':null}\n"
	static const char want[] = "{'before':null,'after':{'id':1,'name':'a\\tb','total':null}," LOADED
				   "{'before':null,'after':{'id':2,'name':'\\\\x','total':'1.5'}," LOADED;
	assert_string_equal(buf_cstr(&out), q(want));
	buf_fini(&out);
	/* they are taken apart first, and what are none are refused */
	assert_int_equal(encode(i, &rows), DMSR_EINVAL);
	assert_string_equal(err.id, "codec.rows");
	assert_non_null(strstr(err.message, "public.orders"));
	static const char *const wrong[] = { "1\ta\t\\N\n2\tb\n", "1\ta\t\\N\n2\tb\t3\t4\n" };
	for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
		buf_init(&out, 1 << 20);
		rows.u.rows.data = wrong[k];
		rows.u.rows.len = strlen(wrong[k]);
		err_clear(&err);
		assert_int_equal(change_each_row(&rows, encode_loaded, (void *[]){ i, &out }, &err), DMSR_EPROTO);
		assert_string_equal(err.id, "rows.malformed");
		assert_non_null(strstr(err.message, "public.orders: row 2 "));
		buf_fini(&out);
	}
	dmsr_plugin_json.codec->close(i);
}

/* Its real limit is 4 GiB. */
static void a_record_over_the_maximum(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL);
	struct change c = row_change(f, OP_CREATE, NULL, KIT_ROW(f->b, "1", "ann", "1.50"));
	assert_int_equal(encode(i, &c), 1);
	((struct json *)i)->out.max = 100;
	buf_fini(&((struct json *)i)->out);
	assert_int_equal(encode(i, &c), DMSR_EDATA);
	assert_string_equal(err.id, "codec.too-long");
	assert_non_null(strstr(err.message, "public.orders"));
	assert_non_null(strstr(err.hint, "leave the table out"));
	dmsr_plugin_json.codec->close(i);
}

static void flat(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = OPEN("shape=flat"), *bare = OPEN("shape=flat", "meta=false");
#define META(op) "'__op':'" op "','__table':'public.orders','__ts_ms':1769853600123,'__lsn':23803720,'__event':3}"
	struct change c = row_change(f, OP_CREATE, NULL, KIT_ROW(f->b, "1", "ann", "1.50"));
	assert_int_equal(encode(i, &c), 1);
	assert_value(0, "{'id':1,'name':'ann','total':'1.50'," META("c"));
	assert_int_equal(encode(bare, &c), 1);
	assert_value(0, "{'id':1,'name':'ann','total':'1.50'}");

	struct change d = row_change(f, OP_DELETE, KIT_ROW(f->b, "1", "\1", "\1"), NULL);
	d.flags = CHANGE_KEY_ONLY;
	assert_int_equal(encode(i, &d), 2);
	assert_value(0, "{'id':1," META("d"));
	assert_null(records[1].value);
	assert_int_equal(encode(bare, &d), 1);
	assert_key(0, "{'id':1}");
	assert_null(records[0].value);

	struct change u = row_change(f, OP_UPDATE, KIT_ROW(f->b, "1", "\1", "\1"), KIT_ROW(f->b, "2", "b", "9"));
	assert_int_equal(encode(bare, &u), 2);
	assert_key(0, "{'id':1}");
	assert_null(records[0].value);
	assert_value(1, "{'id':2,'name':'b','total':'9'}");

	struct change t = { .rel = f->rel, .txn = &txn, .event = 3, .op = OP_TRUNCATE };
	assert_int_equal(encode(i, &t), 1);
	assert_value(0, "{" META("t"));
	assert_int_equal(encode(bare, &t), 0);
	dmsr_plugin_json.codec->close(i);
	dmsr_plugin_json.codec->close(bare);
}

static void keyless(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = open_with(NULL), *bare = OPEN("shape=flat", "meta=false");
	struct relation_builder *b = relation_build("postgres", "p\"q", "o\nne", 1);
	struct column c = kit_column("a\"b", TYPE_TEXT, TYPE_OTHER, 0), g = kit_column("g", TYPE_INT32, TYPE_OTHER, 0);
	g.flags |= COLUMN_GENERATED;
	relation_build_column(b, &c);
	relation_build_column(b, &g);
	struct relation *rel = relation_seal(b, KEY_FULL);
	struct change d = { .rel = rel, .txn = &txn, .event = 3, .op = OP_DELETE };
	d.u.row.before = KIT_ROW(f->b, "x", "\1");
	assert_int_equal(encode(i, &d), 1);
	assert_null(records[0].key);
	const char *got = text(records[0].value, records[0].value_len);
	assert_non_null(strstr(got, q("{'before':{'a\\\"b':'x'},'after':null,")));
	assert_non_null(strstr(got, q("'schema':'p\\\"q','table':'o\\nne'")));
	assert_int_equal(encode(bare, &d), 0);
	struct change u = d;
	u.op = OP_UPDATE;
	u.u.row.after = KIT_ROW(f->b, "y", "\1");
	assert_int_equal(encode(i, &u), 1);
	assert_null(strstr(text(records[0].value, records[0].value_len), q("unchanged")));
	relation_unref(rel);
	dmsr_plugin_json.codec->close(i);
	dmsr_plugin_json.codec->close(bare);
}

static void debezium(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = OPEN("compat=debezium");
	struct change u = row_change(f, OP_UPDATE, NULL, KIT_ROW(f->b, "1", "\1", "1.5"));
	assert_int_equal(encode(i, &u), 1);
	const char *got = text(records[0].value, records[0].value_len);
	assert_non_null(strstr(got, q("'after':{'id':1,'name':'__debezium_unavailable_value','total':{'scale':1,'value':'Dw=='}},")));
	assert_non_null(strstr(got, q("'ts_ms':1769853600123,'ts_us':1769853600123456,'ts_ns':1769853600123456000,'xmin':null,'snapshot':'false'")));
	assert_null(strstr(got, q("unchanged")));
	assert_non_null(strstr(got, q("'transaction':null}")));
	struct txn snapshot = { .lsn = 100 };
	struct change r = row_change(f, OP_READ, NULL, KIT_ROW(f->b, "1", "a", "1.5"));
	r.txn = &snapshot;
	assert_int_equal(encode(i, &r), 1);
	got = text(records[0].value, records[0].value_len);
	assert_non_null(strstr(got, q("'snapshot':'true'")));
	assert_null(strstr(got, q("'ts_ms':null")));
	struct change d = row_change(f, OP_DELETE, KIT_ROW(f->b, "1", "\1", "\1"), NULL);
	d.flags = CHANGE_KEY_ONLY;
	assert_int_equal(encode(i, &d), 2);
	assert_non_null(strstr(text(records[0].value, records[0].value_len), q("{'before':{'id':1,'name':null,'total':null},'after':null,")));
	dmsr_plugin_json.codec->close(i);
}

/* Thousands of versions, and the same ones under new addresses: the right names every time. */
static void many_tables(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = OPEN("shape=flat", "meta=false");
	for (int k = 0; k < 10000; k++) {
		char name[32], want[64];
		struct relation_builder *b = relation_build("postgres", "s", "t", 1);
		snprintf(name, sizeof name, "c%d", k % 5000);
		struct column c = kit_column(name, TYPE_INT32, TYPE_OTHER, 1);
		relation_build_column(b, &c);
		struct relation *rel = relation_seal(b, KEY_PRIMARY);
		struct change ch = { .rel = rel, .txn = &txn, .op = OP_CREATE };
		ch.u.row.after = KIT_ROW(f->b, "5");
		for (int again = 0; again < 2; again++) {
			assert_int_equal(encode(i, &ch), 1);
			snprintf(want, sizeof want, "{'c%d':5}", k % 5000);
			assert_value(0, want);
			assert_key(0, want);
		}
		relation_unref(rel);
	}
	dmsr_plugin_json.codec->close(i);
}

static struct relation *numbered(int n)
{
	char name[32];
	struct relation_builder *b = relation_build("postgres", "s", "t", 1);
	snprintf(name, sizeof name, "c%d", n);
	struct column c = kit_column(name, TYPE_INT32, TYPE_OTHER, 1);
	relation_build_column(b, &c);
	return relation_seal(b, KEY_PRIMARY);
}

/* What was made for a table is found again, also when there are so many that the next one makes all be forgotten; which nobody sees. */
static void a_shape_is_made_once(void **state)
{
	enum { MANY = JSON_SHAPES_MAX };
	static const struct json_shape *first[MANY];
	(void)state;
	struct dmsr_instance *i = OPEN("shape=flat", "meta=false");
	struct json *j = (struct json *)(void *)i;
	for (int k = 0; k <= 2 * MANY; k++) {
		struct relation *rel = numbered(k == 2 * MANY ? MANY : k % MANY);
		const struct json_shape *s = json_shape_of(j, rel);
		if (k < MANY)
			first[k] = s;
		else if (k < 2 * MANY)
			assert_ptr_equal(s, first[k - MANY]);
		assert_string_equal(s->columns[0].name, rel->columns[0].name);
		relation_unref(rel);
	}
	dmsr_plugin_json.codec->close(i);
}

/* Lengths around the step of eight, with something to escape at each place. */
static void escaping_everywhere(void **state)
{
	struct fixture *f = *state;
	struct dmsr_instance *i = OPEN("shape=flat", "meta=false");
	static const char *const odd[] = { "\"", "\\", "\n", "\x02", "\xC3\xA4", "\xE2\x82\xAC", "\x7f", " ", "!" };
	static const char *const as[] = { "\\\"", "\\\\", "\\n", "\\u0002", "\xC3\xA4", "\xE2\x82\xAC", "\x7f", " ", "!" };
	static const char front[] = "abcdefghijklmnopqrstuvwxyz[]^_`#$%&()*+,", back[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ{|}~0123456789";
	for (unsigned n = 0; n < 40; n++)
		for (unsigned at = 0; at <= n; at++)
			for (size_t k = 0; k < sizeof odd / sizeof *odd; k++) {
				char in[128], want[256];
				snprintf(in, sizeof in, "%.*s%s%.*s", (int)at, front, odd[k], (int)(n - at), back);
				snprintf(want, sizeof want, "{'id':1,'name':'%.*s%s%.*s','total':null}", (int)at, front, as[k], (int)(n - at), back);
				struct change c = row_change(f, OP_CREATE, NULL, KIT_ROW(f->b, "1", in, NULL));
				assert_int_equal(encode(i, &c), 1);
				assert_value(0, want);
			}
	dmsr_plugin_json.codec->close(i);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
RUN_TESTS(cmocka_unit_test(values), cmocka_unit_test(options), cmocka_unit_test(binary), WITH(create_update), WITH(delete_and_key_change),
	WITH(one_record), WITH(truncate_message_words), WITH(load_rows), WITH(a_record_over_the_maximum), WITH(flat), WITH(keyless), WITH(debezium),
	WITH(many_tables), cmocka_unit_test(a_shape_is_made_once), WITH(escaping_everywhere))
