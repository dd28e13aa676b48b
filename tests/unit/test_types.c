/* types: oids to logical types, and the server's spelling of them. The spellings were read from format_type of real servers. */
#include "test.h"

#include "connectors/postgres/types.h"

static void knows_every_builtin(void **state)
{
	static const struct {
		uint32_t oid;
		enum logical_type type, elem;
	} cases[] = {
		{ 16, TYPE_BOOL, TYPE_OTHER }, { 17, TYPE_BYTES, TYPE_OTHER }, { 18, TYPE_OTHER, TYPE_OTHER }, { 20, TYPE_INT64, TYPE_OTHER },
		{ 21, TYPE_INT16, TYPE_OTHER }, { 23, TYPE_INT32, TYPE_OTHER }, { 25, TYPE_TEXT, TYPE_OTHER }, { 26, TYPE_OID, TYPE_OTHER },
		{ 114, TYPE_JSON, TYPE_OTHER }, { 600, TYPE_POINT, TYPE_OTHER }, { 700, TYPE_FLOAT32, TYPE_OTHER }, { 701, TYPE_FLOAT64, TYPE_OTHER },
		{ 1007, TYPE_ARRAY, TYPE_INT32 }, { 1020, TYPE_ARRAY, TYPE_GEOMETRY }, { 1042, TYPE_CHAR, TYPE_OTHER }, { 1043, TYPE_TEXT, TYPE_OTHER },
		{ 1082, TYPE_DATE, TYPE_OTHER }, { 1184, TYPE_TIMESTAMPTZ, TYPE_OTHER }, { 1231, TYPE_ARRAY, TYPE_NUMERIC }, { 1700, TYPE_NUMERIC, TYPE_OTHER },
		{ 2950, TYPE_UUID, TYPE_OTHER }, { 3802, TYPE_JSONB, TYPE_OTHER }, { 3904, TYPE_RANGE, TYPE_INT32 }, { 3905, TYPE_ARRAY, TYPE_RANGE },
		{ 3910, TYPE_RANGE, TYPE_TIMESTAMPTZ }, { 4451, TYPE_MULTIRANGE, TYPE_INT32 }, { 6157, TYPE_ARRAY, TYPE_MULTIRANGE },
		{ 5069, TYPE_UINT64, TYPE_OTHER }, { 0, TYPE_OTHER, TYPE_OTHER }, { 65552, TYPE_OTHER, TYPE_OTHER }, { UINT32_MAX, TYPE_OTHER, TYPE_OTHER },
	};
	char text[64];
	unsigned n = 0;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum logical_type elem = TYPE_COUNT;
		assert_int_equal(pgtype_builtin(cases[i].oid, &elem), cases[i].type);
		assert_int_equal(elem, cases[i].elem);
	}
	/* every one of the table is found (it is sorted), and every array's element is in it */
	for (uint32_t oid = 0; oid < 20000; oid++)
		n += pgtype_format(oid, -1, text, sizeof text) != NULL;
	assert_int_equal(n, 158);
}

static void spells_as_the_server_does(void **state)
{
	static const struct {
		uint32_t oid;
		int32_t typmod;
		const char *sql;
	} cases[] = {
		{ 16, -1, "boolean" }, { 18, -1, "\"char\"" }, { 1042, 14, "character(10)" }, { 1042, -1, "bpchar" }, { 1043, 24, "character varying(20)" },
		{ 1015, 24, "character varying(20)[]" }, { 1015, -1, "character varying[]" }, { 1700, ((12 << 16) | 2) + 4, "numeric(12,2)" },
		{ 1700, ((3 << 16) | 0x7fe) + 4, "numeric(3,-2)" }, { 1231, ((2 << 16) | 5) + 4, "numeric(2,5)[]" },
		{ 1700, ((1000 << 16) | 1000) + 4, "numeric(1000,1000)" },
		{ 1560, -1, "\"bit\"" }, { 1560, 3, "bit(3)" }, { 1562, 8, "bit varying(8)" }, { 1083, 0, "time(0) without time zone" },
		{ 1266, 3, "time(3) with time zone" }, { 1114, 6, "timestamp(6) without time zone" }, { 1184, -1, "timestamp with time zone" },
		{ 1185, 3, "timestamp(3) with time zone[]" }, { 1186, -1, "interval" }, { 1186, 0x7fff0003, "interval(3)" },
		{ 1186, (4 << 16) | 0xffff, "interval year" }, { 1186, (6 << 16) | 0xffff, "interval year to month" },
		{ 1186, (7176 << 16) | 3, "interval day to second(3)" },
		{ 3904, -1, "int4range" }, { 3905, -1, "int4range[]" }, { 30, -1, "oidvector" },
	};
	char text[64];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(pgtype_format(cases[i].oid, cases[i].typmod, text, sizeof text), cases[i].sql);
	assert_null(pgtype_format(16385, -1, text, sizeof text));
	assert_null(pgtype_format(0, -1, text, sizeof text));
}

static void reads_pg_type(void **state)
{
	(void)state;
	assert_int_equal(pgtype_from_catalog('e', 'E', "public", "mood"), TYPE_ENUM);
	assert_int_equal(pgtype_from_catalog('c', 'C', "public", "pair"), TYPE_COMPOSITE);
	assert_int_equal(pgtype_from_catalog('b', 'A', "public", "_mood"), TYPE_ARRAY);
	assert_int_equal(pgtype_from_catalog('r', 'R', "public", "r"), TYPE_RANGE);
	assert_int_equal(pgtype_from_catalog('m', 'R', "public", "mr"), TYPE_MULTIRANGE);
	assert_int_equal(pgtype_from_catalog('b', 'S', "ext", "citext"), TYPE_TEXT);
	assert_int_equal(pgtype_from_catalog('b', 'U', "ext", "hstore"), TYPE_HSTORE);
	assert_int_equal(pgtype_from_catalog('b', 'U', "ext", "geometry"), TYPE_OTHER);
}

RUN_TESTS(cmocka_unit_test(knows_every_builtin), cmocka_unit_test(spells_as_the_server_does), cmocka_unit_test(reads_pg_type))
