/* value: one column's bytes, as the source sent them.
 *
 * A value is NULL, UNCHANGED (the source did not send it: TOAST, NOBLOB, a non-key column of a key-only old row; never the same as
 * NULL), or bytes in one of two forms. Which logical type they have says the relation's column.
 *
 * TEXT, the neutral text form (it is PostgreSQL's output with DateStyle ISO, IntervalStyle postgres, bytea_output hex, extra_float_digits 1;
 * other sources write the same):
 *   bool t f | integers and numeric: plain decimal, NaN Infinity -Infinity | floats: shortest exact | date 2026-01-31, with " BC" behind, infinity -infinity
 *   time 10:00:00.123456 (24:00:00 is valid) | timetz 10:00:00+02 | timestamp 2026-01-31 10:00:00.123456 | timestamptz the same with +00 (offset hh[:mm[:ss]])
 *   interval "1 year 2 mons 3 days 04:05:06.7" | bytes \x0a1b | uuid, json, xml, inet ...: their text | bit 0101 | array {1,NULL,"a b"} with optional bounds
 *   [0:1]={..} (element delimiter: comma; box: semicolon) | composite (1,"a b",) | range [1,5) empty | multirange {[1,3),[5,7)} |
 *   everything else: the server's own text
 * BINARY, the neutral binary form (PostgreSQL's send functions), network byte order:
 *   bool 1 byte | int16/32/64 | float32/64 IEEE 754 | numeric: ndigits weight sign dscale (4 x int16), base-10000 digits | date int32 days since 2000-01-01 |
 *   time int64 us | timetz int64 us, int32 seconds west | timestamp, timestamptz int64 us since 2000-01-01 (UTC) |
 *   interval int64 us, int32 days, int32 months | bytes raw | uuid 16 bytes |
 *   text, json, xml, enum: the text | jsonb: version byte 1, text | bit: int32 bit length, bytes |
 *   arrays: ndim flags elemtype, dims, elements
 * The bytes lie in the arena of the batch and live as long as it. TEXT values are followed by a NUL that len does not count. */
#ifndef DMSR_MODEL_VALUE_H
#define DMSR_MODEL_VALUE_H
#include "base/buf.h"
#include "base/err.h"
#include <stdint.h>
#pragma GCC visibility push(default)

enum value_kind { VALUE_NULL = 0, VALUE_UNCHANGED, VALUE_TEXT, VALUE_BINARY };

struct value {
	const char *data;   /* NULL for NULL and UNCHANGED */
	uint32_t len;
	uint8_t kind;       /* enum value_kind */
};

/* What a column means, whatever server it came from. The names (logical_type_name) are part of the API, the numbers of
 * what the state store and the spill log keep: append only. */
enum logical_type {
	TYPE_OTHER = 0,     /* only the source knows: text form, native_type tells */
	TYPE_BOOL, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_UINT64, TYPE_FLOAT32, TYPE_FLOAT64, TYPE_NUMERIC, TYPE_MONEY,
	TYPE_TEXT,          /* text, varchar, name, citext, xid8 ... */
	TYPE_CHAR,          /* blank-padded char(n) */
	TYPE_BYTES, TYPE_UUID, TYPE_JSON, TYPE_JSONB, TYPE_XML, TYPE_ENUM,
	TYPE_DATE, TYPE_TIME, TYPE_TIMETZ, TYPE_TIMESTAMP, TYPE_TIMESTAMPTZ, TYPE_INTERVAL,
	TYPE_BIT, TYPE_VARBIT, TYPE_INET, TYPE_CIDR, TYPE_MACADDR, TYPE_MACADDR8,
	TYPE_POINT, TYPE_GEOMETRY, TYPE_TSVECTOR, TYPE_TSQUERY, TYPE_OID, TYPE_LSN,
	TYPE_ARRAY,         /* elem_type tells of what */
	TYPE_COMPOSITE, TYPE_RANGE, TYPE_MULTIRANGE, TYPE_HSTORE, TYPE_LTREE, TYPE_JSONPATH,
	TYPE_COUNT
};
const char *logical_type_name(enum logical_type t);        /* "int32" ... */
int logical_type_parse(const char *name);                  /* the type, or -1 */

static inline struct value value_text(const char *data, uint32_t len) { return (struct value){data, len, VALUE_TEXT}; }

/* Appends the neutral text form of v (TEXT or BINARY, not NULL, not UNCHANGED) to out. `elem` is the element type of an array.
 * Types whose binary form is not listed above are refused: DMSR_EPROTO. Exact: what PostgreSQL itself would print. */
int value_to_text(const struct value *v, enum logical_type type, enum logical_type elem, struct buf *out, struct err *e);
/* True if value_to_text can render the binary form of this type. */
bool value_has_binary(enum logical_type type, enum logical_type elem);
/* Does an element of an array stand in quotes in the neutral text form? */
bool value_element_needs_quotes(const char *p, size_t n, char delimiter);
/* Puts what stands in out from `start` on in quotes, as elements of arrays and the parts of an hstore are. */
void value_quote(struct buf *out, size_t start);

#pragma GCC visibility pop
#endif
