/* types: what PostgreSQL's types mean. In: an oid (and modifier), or what pg_type says of a type that is not built in. Out: the
 * logical type, and the spelling that the server's own format_type would give. Pure.
 *
 * The table holds the types of pg_catalog that a column can have, of PostgreSQL 12 to 18; their oids never change. A type whose
 * binary form is not the one that value.h lists for its logical type is TYPE_OTHER ("char", the reg* types), so that nobody reads it wrongly. */
#include "types.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct builtin {
	uint16_t oid;
	uint16_t element;    /* arrays: oid of the element type; else 0 */
	uint8_t type, elem;  /* enum logical_type */
	const char *sql;     /* without a modifier; NULL: the element's and [] */
};

enum {
	OID_BPCHAR = 1042, OID_VARCHAR = 1043, OID_TIME = 1083, OID_TIMESTAMP = 1114, OID_TIMESTAMPTZ = 1184,
	OID_INTERVAL = 1186, OID_TIMETZ = 1266, OID_BIT = 1560, OID_VARBIT = 1562, OID_NUMERIC = 1700,
};

/* sorted by oid */
static const struct builtin builtins[] = {
	{ 16, 0, TYPE_BOOL, TYPE_OTHER, "boolean" },
	{ 17, 0, TYPE_BYTES, TYPE_OTHER, "bytea" },
	{ 18, 0, TYPE_OTHER, TYPE_OTHER, "\"char\"" },
	{ 19, 0, TYPE_TEXT, TYPE_OTHER, "name" },
	{ 20, 0, TYPE_INT64, TYPE_OTHER, "bigint" },
	{ 21, 0, TYPE_INT16, TYPE_OTHER, "smallint" },
	{ 22, 0, TYPE_OTHER, TYPE_OTHER, "int2vector" },
	{ 23, 0, TYPE_INT32, TYPE_OTHER, "integer" },
	{ 24, 0, TYPE_OTHER, TYPE_OTHER, "regproc" },
	{ 25, 0, TYPE_TEXT, TYPE_OTHER, "text" },
	{ 26, 0, TYPE_OID, TYPE_OTHER, "oid" },
	{ 27, 0, TYPE_OTHER, TYPE_OTHER, "tid" },
	{ 28, 0, TYPE_OID, TYPE_OTHER, "xid" },
	{ 29, 0, TYPE_OID, TYPE_OTHER, "cid" },
	{ 30, 0, TYPE_OTHER, TYPE_OTHER, "oidvector" },
	{ 114, 0, TYPE_JSON, TYPE_OTHER, "json" },
	{ 142, 0, TYPE_XML, TYPE_OTHER, "xml" },
	{ 143, 142, TYPE_ARRAY, TYPE_XML, NULL },
	{ 194, 0, TYPE_OTHER, TYPE_OTHER, "pg_node_tree" },
	{ 199, 114, TYPE_ARRAY, TYPE_JSON, NULL },
	{ 271, 5069, TYPE_ARRAY, TYPE_UINT64, NULL },
	{ 600, 0, TYPE_POINT, TYPE_OTHER, "point" },
	{ 601, 0, TYPE_GEOMETRY, TYPE_OTHER, "lseg" },
	{ 602, 0, TYPE_GEOMETRY, TYPE_OTHER, "path" },
	{ 603, 0, TYPE_GEOMETRY, TYPE_OTHER, "box" },
	{ 604, 0, TYPE_GEOMETRY, TYPE_OTHER, "polygon" },
	{ 628, 0, TYPE_GEOMETRY, TYPE_OTHER, "line" },
	{ 629, 628, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 650, 0, TYPE_CIDR, TYPE_OTHER, "cidr" },
	{ 651, 650, TYPE_ARRAY, TYPE_CIDR, NULL },
	{ 700, 0, TYPE_FLOAT32, TYPE_OTHER, "real" },
	{ 701, 0, TYPE_FLOAT64, TYPE_OTHER, "double precision" },
	{ 718, 0, TYPE_GEOMETRY, TYPE_OTHER, "circle" },
	{ 719, 718, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 774, 0, TYPE_MACADDR8, TYPE_OTHER, "macaddr8" },
	{ 775, 774, TYPE_ARRAY, TYPE_MACADDR8, NULL },
	{ 790, 0, TYPE_MONEY, TYPE_OTHER, "money" },
	{ 791, 790, TYPE_ARRAY, TYPE_MONEY, NULL },
	{ 829, 0, TYPE_MACADDR, TYPE_OTHER, "macaddr" },
	{ 869, 0, TYPE_INET, TYPE_OTHER, "inet" },
	{ 1000, 16, TYPE_ARRAY, TYPE_BOOL, NULL },
	{ 1001, 17, TYPE_ARRAY, TYPE_BYTES, NULL },
	{ 1002, 18, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1003, 19, TYPE_ARRAY, TYPE_TEXT, NULL },
	{ 1005, 21, TYPE_ARRAY, TYPE_INT16, NULL },
	{ 1006, 22, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1007, 23, TYPE_ARRAY, TYPE_INT32, NULL },
	{ 1008, 24, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1009, 25, TYPE_ARRAY, TYPE_TEXT, NULL },
	{ 1010, 27, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1011, 28, TYPE_ARRAY, TYPE_OID, NULL },
	{ 1012, 29, TYPE_ARRAY, TYPE_OID, NULL },
	{ 1013, 30, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1014, 1042, TYPE_ARRAY, TYPE_CHAR, NULL },
	{ 1015, 1043, TYPE_ARRAY, TYPE_TEXT, NULL },
	{ 1016, 20, TYPE_ARRAY, TYPE_INT64, NULL },
	{ 1017, 600, TYPE_ARRAY, TYPE_POINT, NULL },
	{ 1018, 601, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 1019, 602, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 1020, 603, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 1021, 700, TYPE_ARRAY, TYPE_FLOAT32, NULL },
	{ 1022, 701, TYPE_ARRAY, TYPE_FLOAT64, NULL },
	{ 1027, 604, TYPE_ARRAY, TYPE_GEOMETRY, NULL },
	{ 1028, 26, TYPE_ARRAY, TYPE_OID, NULL },
	{ 1033, 0, TYPE_OTHER, TYPE_OTHER, "aclitem" },
	{ 1034, 1033, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 1040, 829, TYPE_ARRAY, TYPE_MACADDR, NULL },
	{ 1041, 869, TYPE_ARRAY, TYPE_INET, NULL },
	{ 1042, 0, TYPE_CHAR, TYPE_OTHER, "bpchar" },
	{ 1043, 0, TYPE_TEXT, TYPE_OTHER, "character varying" },
	{ 1082, 0, TYPE_DATE, TYPE_OTHER, "date" },
	{ 1083, 0, TYPE_TIME, TYPE_OTHER, "time without time zone" },
	{ 1114, 0, TYPE_TIMESTAMP, TYPE_OTHER, "timestamp without time zone" },
	{ 1115, 1114, TYPE_ARRAY, TYPE_TIMESTAMP, NULL },
	{ 1182, 1082, TYPE_ARRAY, TYPE_DATE, NULL },
	{ 1183, 1083, TYPE_ARRAY, TYPE_TIME, NULL },
	{ 1184, 0, TYPE_TIMESTAMPTZ, TYPE_OTHER, "timestamp with time zone" },
	{ 1185, 1184, TYPE_ARRAY, TYPE_TIMESTAMPTZ, NULL },
	{ 1186, 0, TYPE_INTERVAL, TYPE_OTHER, "interval" },
	{ 1187, 1186, TYPE_ARRAY, TYPE_INTERVAL, NULL },
	{ 1231, 1700, TYPE_ARRAY, TYPE_NUMERIC, NULL },
	{ 1266, 0, TYPE_TIMETZ, TYPE_OTHER, "time with time zone" },
	{ 1270, 1266, TYPE_ARRAY, TYPE_TIMETZ, NULL },
	{ 1560, 0, TYPE_BIT, TYPE_OTHER, "\"bit\"" },
	{ 1561, 1560, TYPE_ARRAY, TYPE_BIT, NULL },
	{ 1562, 0, TYPE_VARBIT, TYPE_OTHER, "bit varying" },
	{ 1563, 1562, TYPE_ARRAY, TYPE_VARBIT, NULL },
	{ 1700, 0, TYPE_NUMERIC, TYPE_OTHER, "numeric" },
	{ 1790, 0, TYPE_TEXT, TYPE_OTHER, "refcursor" },
	{ 2201, 1790, TYPE_ARRAY, TYPE_TEXT, NULL },
	{ 2202, 0, TYPE_OTHER, TYPE_OTHER, "regprocedure" },
	{ 2203, 0, TYPE_OTHER, TYPE_OTHER, "regoper" },
	{ 2204, 0, TYPE_OTHER, TYPE_OTHER, "regoperator" },
	{ 2205, 0, TYPE_OTHER, TYPE_OTHER, "regclass" },
	{ 2206, 0, TYPE_OTHER, TYPE_OTHER, "regtype" },
	{ 2207, 2202, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2208, 2203, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2209, 2204, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2210, 2205, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2211, 2206, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2949, 2970, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 2950, 0, TYPE_UUID, TYPE_OTHER, "uuid" },
	{ 2951, 2950, TYPE_ARRAY, TYPE_UUID, NULL },
	{ 2970, 0, TYPE_OTHER, TYPE_OTHER, "txid_snapshot" },
	{ 3220, 0, TYPE_LSN, TYPE_OTHER, "pg_lsn" },
	{ 3221, 3220, TYPE_ARRAY, TYPE_LSN, NULL },
	{ 3361, 0, TYPE_OTHER, TYPE_OTHER, "pg_ndistinct" },
	{ 3402, 0, TYPE_OTHER, TYPE_OTHER, "pg_dependencies" },
	{ 3614, 0, TYPE_TSVECTOR, TYPE_OTHER, "tsvector" },
	{ 3615, 0, TYPE_TSQUERY, TYPE_OTHER, "tsquery" },
	{ 3642, 0, TYPE_OTHER, TYPE_OTHER, "gtsvector" },
	{ 3643, 3614, TYPE_ARRAY, TYPE_TSVECTOR, NULL },
	{ 3644, 3642, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 3645, 3615, TYPE_ARRAY, TYPE_TSQUERY, NULL },
	{ 3734, 0, TYPE_OTHER, TYPE_OTHER, "regconfig" },
	{ 3735, 3734, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 3769, 0, TYPE_OTHER, TYPE_OTHER, "regdictionary" },
	{ 3770, 3769, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 3802, 0, TYPE_JSONB, TYPE_OTHER, "jsonb" },
	{ 3807, 3802, TYPE_ARRAY, TYPE_JSONB, NULL },
	{ 3904, 0, TYPE_RANGE, TYPE_INT32, "int4range" },
	{ 3905, 3904, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 3906, 0, TYPE_RANGE, TYPE_NUMERIC, "numrange" },
	{ 3907, 3906, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 3908, 0, TYPE_RANGE, TYPE_TIMESTAMP, "tsrange" },
	{ 3909, 3908, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 3910, 0, TYPE_RANGE, TYPE_TIMESTAMPTZ, "tstzrange" },
	{ 3911, 3910, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 3912, 0, TYPE_RANGE, TYPE_DATE, "daterange" },
	{ 3913, 3912, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 3926, 0, TYPE_RANGE, TYPE_INT64, "int8range" },
	{ 3927, 3926, TYPE_ARRAY, TYPE_RANGE, NULL },
	{ 4072, 0, TYPE_JSONPATH, TYPE_OTHER, "jsonpath" },
	{ 4073, 4072, TYPE_ARRAY, TYPE_JSONPATH, NULL },
	{ 4089, 0, TYPE_OTHER, TYPE_OTHER, "regnamespace" },
	{ 4090, 4089, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 4096, 0, TYPE_OTHER, TYPE_OTHER, "regrole" },
	{ 4097, 4096, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 4191, 0, TYPE_OTHER, TYPE_OTHER, "regcollation" },
	{ 4192, 4191, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 4451, 0, TYPE_MULTIRANGE, TYPE_INT32, "int4multirange" },
	{ 4532, 0, TYPE_MULTIRANGE, TYPE_NUMERIC, "nummultirange" },
	{ 4533, 0, TYPE_MULTIRANGE, TYPE_TIMESTAMP, "tsmultirange" },
	{ 4534, 0, TYPE_MULTIRANGE, TYPE_TIMESTAMPTZ, "tstzmultirange" },
	{ 4535, 0, TYPE_MULTIRANGE, TYPE_DATE, "datemultirange" },
	{ 4536, 0, TYPE_MULTIRANGE, TYPE_INT64, "int8multirange" },
	{ 4600, 0, TYPE_OTHER, TYPE_OTHER, "pg_brin_bloom_summary" },
	{ 4601, 0, TYPE_OTHER, TYPE_OTHER, "pg_brin_minmax_multi_summary" },
	{ 5017, 0, TYPE_OTHER, TYPE_OTHER, "pg_mcv_list" },
	{ 5038, 0, TYPE_OTHER, TYPE_OTHER, "pg_snapshot" },
	{ 5039, 5038, TYPE_ARRAY, TYPE_OTHER, NULL },
	{ 5069, 0, TYPE_UINT64, TYPE_OTHER, "xid8" },
	{ 6150, 4451, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
	{ 6151, 4532, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
	{ 6152, 4533, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
	{ 6153, 4534, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
	{ 6155, 4535, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
	{ 6157, 4536, TYPE_ARRAY, TYPE_MULTIRANGE, NULL },
};

static int compare_oid(const void *key, const void *entry)
{
	uint32_t oid = *(const uint32_t *)key;
	uint32_t other = ((const struct builtin *)entry)->oid;

	return oid < other ? -1 : oid > other;
}

static const struct builtin *find(uint32_t oid)
{
	return bsearch(&oid, builtins, sizeof builtins / sizeof *builtins, sizeof *builtins, compare_oid);
}

enum logical_type pgtype_builtin(uint32_t oid, enum logical_type *elem)
{
	const struct builtin *t = find(oid);

	*elem = t ? (enum logical_type)t->elem : TYPE_OTHER;
	return t ? (enum logical_type)t->type : TYPE_OTHER;
}

enum logical_type pgtype_from_catalog(char typtype, char typcategory, const char *nspname, const char *typname)
{
	(void)nspname; /* extensions may be installed in any schema */
	switch (typtype) {
	case 'c':
		return TYPE_COMPOSITE;
	case 'e':
		return TYPE_ENUM;
	case 'r':
		return TYPE_RANGE;
	case 'm':
		return TYPE_MULTIRANGE;
	case 'b':
		if (typcategory == 'A')
			return TYPE_ARRAY;
		if (!strcmp(typname, "citext"))
			return TYPE_TEXT;
		if (!strcmp(typname, "hstore"))
			return TYPE_HSTORE;
		if (!strcmp(typname, "ltree"))
			return TYPE_LTREE;
		return TYPE_OTHER;
	default:
		return TYPE_OTHER;
	}
}

/* An interval's modifier: in the upper half a bit per field that is kept, in the lower the digits of the seconds. */
static const char *interval_fields(uint32_t mask)
{
	enum { MONTH = 1 << 1, YEAR = 1 << 2, DAY = 1 << 3, HOUR = 1 << 10, MINUTE = 1 << 11, SECOND = 1 << 12 };
	static const struct {
		uint32_t mask;
		const char *words;
	} fields[] = {
		{ YEAR, " year" }, { MONTH, " month" }, { DAY, " day" }, { HOUR, " hour" }, { MINUTE, " minute" }, { SECOND, " second" },
		{ YEAR | MONTH, " year to month" }, { DAY | HOUR, " day to hour" }, { DAY | HOUR | MINUTE, " day to minute" },
		{ DAY | HOUR | MINUTE | SECOND, " day to second" }, { HOUR | MINUTE, " hour to minute" },
		{ HOUR | MINUTE | SECOND, " hour to second" }, { MINUTE | SECOND, " minute to second" },
	};

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		if (fields[i].mask == mask)
			return fields[i].words;
	return "";
}

static int format_interval(int32_t typmod, char *out, size_t size)
{
	uint32_t digits = (uint32_t)typmod & 0xffff;
	const char *fields = interval_fields((uint32_t)typmod >> 16 & 0x7fff);

	if (digits == 0xffff)
		return snprintf(out, size, "interval%s", fields);
	return snprintf(out, size, "interval%s(%" PRIu32 ")", fields, digits);
}

/* The scale is signed since PostgreSQL 15: eleven bits; before it was never above 1000, which reads the same. */
static int format_numeric(int32_t typmod, char *out, size_t size)
{
	uint32_t bits = (uint32_t)typmod - 4;
	int scale = (int)((bits & 0x7ff) ^ 1024) - 1024;

	return snprintf(out, size, "numeric(%" PRIu32 ",%d)", bits >> 16 & 0xffff, scale);
}

static int format_modified(const struct builtin *t, int32_t typmod, char *out, size_t size)
{
	switch (t->oid) {
	case OID_BPCHAR:
		return snprintf(out, size, "character(%" PRId64 ")", (int64_t)typmod - 4);
	case OID_VARCHAR:
		return snprintf(out, size, "character varying(%" PRId64 ")", (int64_t)typmod - 4);
	case OID_NUMERIC:
		return format_numeric(typmod, out, size);
	case OID_BIT:
		return snprintf(out, size, "bit(%" PRId32 ")", typmod);
	case OID_VARBIT:
		return snprintf(out, size, "bit varying(%" PRId32 ")", typmod);
	case OID_TIME:
		return snprintf(out, size, "time(%" PRId32 ") without time zone", typmod);
	case OID_TIMETZ:
		return snprintf(out, size, "time(%" PRId32 ") with time zone", typmod);
	case OID_TIMESTAMP:
		return snprintf(out, size, "timestamp(%" PRId32 ") without time zone", typmod);
	case OID_TIMESTAMPTZ:
		return snprintf(out, size, "timestamp(%" PRId32 ") with time zone", typmod);
	case OID_INTERVAL:
		return format_interval(typmod, out, size);
	default:
		return snprintf(out, size, "%s", t->sql);
	}
}

const char *pgtype_format(uint32_t oid, int32_t typmod, char *out, size_t size)
{
	const struct builtin *t = find(oid);

	if (!t)
		return NULL;
	const struct builtin *base = t->element ? find(t->element) : t;
	char text[64];
	if (typmod < 0)
		snprintf(text, sizeof text, "%s", base->sql);
	else
		format_modified(base, typmod, text, sizeof text);
	snprintf(out, size, "%s%s", text, t->element ? "[]" : "");
	return out;
}
