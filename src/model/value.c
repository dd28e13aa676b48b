/* value: the names of the logical types. They are written into logs and streams: append only. */
#include "model/value.h"
#include <string.h>

static const char *const names[TYPE_COUNT] = {
	[TYPE_OTHER] = "other", [TYPE_BOOL] = "bool",
	[TYPE_INT16] = "int16", [TYPE_INT32] = "int32", [TYPE_INT64] = "int64", [TYPE_UINT64] = "uint64",
	[TYPE_FLOAT32] = "float32", [TYPE_FLOAT64] = "float64",
	[TYPE_NUMERIC] = "numeric", [TYPE_MONEY] = "money",
	[TYPE_TEXT] = "text", [TYPE_CHAR] = "char", [TYPE_BYTES] = "bytes", [TYPE_UUID] = "uuid",
	[TYPE_JSON] = "json", [TYPE_JSONB] = "jsonb", [TYPE_XML] = "xml", [TYPE_ENUM] = "enum",
	[TYPE_DATE] = "date", [TYPE_TIME] = "time", [TYPE_TIMETZ] = "timetz",
	[TYPE_TIMESTAMP] = "timestamp", [TYPE_TIMESTAMPTZ] = "timestamptz", [TYPE_INTERVAL] = "interval",
	[TYPE_BIT] = "bit", [TYPE_VARBIT] = "varbit",
	[TYPE_INET] = "inet", [TYPE_CIDR] = "cidr", [TYPE_MACADDR] = "macaddr", [TYPE_MACADDR8] = "macaddr8",
	[TYPE_POINT] = "point", [TYPE_GEOMETRY] = "geometry",
	[TYPE_TSVECTOR] = "tsvector", [TYPE_TSQUERY] = "tsquery", [TYPE_OID] = "oid", [TYPE_LSN] = "lsn",
	[TYPE_ARRAY] = "array", [TYPE_COMPOSITE] = "composite", [TYPE_RANGE] = "range",
	[TYPE_MULTIRANGE] = "multirange", [TYPE_HSTORE] = "hstore", [TYPE_LTREE] = "ltree",
	[TYPE_JSONPATH] = "jsonpath",
};

const char *logical_type_name(enum logical_type t)
{
	return (unsigned)t < TYPE_COUNT ? names[t] : "?";
}

int logical_type_parse(const char *name)
{
	for (int t = 0; t < TYPE_COUNT; t++)
		if (strcmp(names[t], name) == 0)
			return t;
	return -1;
}
