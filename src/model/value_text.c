/* value_text: a value's bytes -> the text that PostgreSQL itself prints. A table of functions, and the ones that need no room of their own. */
#include "model/value_internal.h"
#include <inttypes.h>

static const char hex_digits[] = "0123456789abcdef";

void text_padded(struct buf *out, uint64_t v, int width)
{
	char d[20];
	int n = 0;

	do
		d[n++] = (char)('0' + v % 10);
	while ((v /= 10));
	while (n < width && n < 20)
		d[n++] = '0';
	while (n)
		buf_byte(out, d[--n]);
}

static void put_hex(struct buf *out, const char *p, size_t n)
{
	if (buf_reserve(out, 2 * n))
		return;
	char *to = out->data + out->len;
	for (size_t i = 0; i < n; i++) {
		*to++ = hex_digits[(unsigned char)p[i] >> 4];
		*to++ = hex_digits[(unsigned char)p[i] & 15];
	}
	out->len += 2 * n;
}

static bool text_rest(struct cursor *c, struct buf *out)
{
	size_t n = cursor_left(c);

	buf_append(out, cursor_bytes(c, n), n);
	return true;
}

static bool text_bool(struct cursor *c, struct buf *out)
{
	buf_byte(out, cursor_u8(c) ? 't' : 'f');
	return true;
}

static bool text_int16(struct cursor *c, struct buf *out)
{
	buf_int(out, (int16_t)cursor_be16(c));
	return true;
}

static bool text_int32(struct cursor *c, struct buf *out)
{
	buf_int(out, (int32_t)cursor_be32(c));
	return true;
}

static bool text_int64(struct cursor *c, struct buf *out)
{
	buf_int(out, (int64_t)cursor_be64(c));
	return true;
}

static bool text_uint64(struct cursor *c, struct buf *out)
{
	buf_uint(out, cursor_be64(c));
	return true;
}

static bool text_oid(struct cursor *c, struct buf *out)
{
	buf_uint(out, cursor_be32(c));
	return true;
}

static bool text_lsn(struct cursor *c, struct buf *out)
{
	uint64_t v = cursor_be64(c);

	buf_printf(out, "%" PRIX32 "/%" PRIX32, (uint32_t)(v >> 32), (uint32_t)v);
	return true;
}

static bool text_bytes(struct cursor *c, struct buf *out)
{
	size_t n = cursor_left(c);

	buf_append(out, "\\x", 2);
	put_hex(out, cursor_bytes(c, n), n);
	return true;
}

static bool text_uuid(struct cursor *c, struct buf *out)
{
	const char *p = cursor_bytes(c, 16);

	if (!p)
		return false;
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			buf_byte(out, '-');
		put_hex(out, p + i, 1);
	}
	return true;
}

/* jsonb, jsonpath and ltree: a version byte, then the text. */
static bool text_versioned(struct cursor *c, struct buf *out)
{
	return cursor_u8(c) == 1 && text_rest(c, out);
}

static bool text_bit(struct cursor *c, struct buf *out)
{
	uint32_t n = cursor_be32(c);
	const char *p = cursor_left(c) == ((uint64_t)n + 7) / 8 ? cursor_bytes(c, cursor_left(c)) : NULL;

	if (!p)
		return false;
	if (!n || buf_reserve(out, n))
		return true;
	char *to = out->data + out->len;
	for (uint32_t i = 0; i < n; i++)
		to[i] = (char)('0' + ((unsigned char)p[i / 8] >> (7 - i % 8) & 1));
	out->len += n;
	return true;
}

static bool text_point(struct cursor *c, struct buf *out)
{
	buf_byte(out, '(');
	bool ok = text_float64(c, out);
	buf_byte(out, ',');
	ok = ok && text_float64(c, out);
	buf_byte(out, ')');
	return ok;
}

static bool (*const scalars[TYPE_COUNT])(struct cursor *, struct buf *) = {
	[TYPE_BOOL] = text_bool, [TYPE_INT16] = text_int16, [TYPE_INT32] = text_int32, [TYPE_INT64] = text_int64,
	[TYPE_UINT64] = text_uint64, [TYPE_FLOAT32] = text_float32, [TYPE_FLOAT64] = text_float64, [TYPE_NUMERIC] = text_numeric,
	[TYPE_TEXT] = text_rest, [TYPE_CHAR] = text_rest, [TYPE_JSON] = text_rest, [TYPE_XML] = text_rest, [TYPE_ENUM] = text_rest,
	[TYPE_BYTES] = text_bytes, [TYPE_UUID] = text_uuid,
	[TYPE_JSONB] = text_versioned, [TYPE_JSONPATH] = text_versioned, [TYPE_LTREE] = text_versioned,
	[TYPE_DATE] = text_date, [TYPE_TIME] = text_time, [TYPE_TIMETZ] = text_timetz,
	[TYPE_TIMESTAMP] = text_timestamp, [TYPE_TIMESTAMPTZ] = text_timestamptz, [TYPE_INTERVAL] = text_interval,
	[TYPE_BIT] = text_bit, [TYPE_VARBIT] = text_bit,
	[TYPE_INET] = text_inet, [TYPE_CIDR] = text_inet, [TYPE_MACADDR] = text_macaddr, [TYPE_MACADDR8] = text_macaddr8,
	[TYPE_POINT] = text_point, [TYPE_OID] = text_oid, [TYPE_LSN] = text_lsn, [TYPE_HSTORE] = text_hstore,
};

static bool has_scalar(enum logical_type type)
{
	return (unsigned)type < TYPE_COUNT && scalars[type];
}

bool text_scalar(struct cursor *c, enum logical_type type, struct buf *out)
{
	return scalars[type](c, out) && cursor_done(c);
}

static bool is_nested(enum logical_type type)
{
	return type == TYPE_ARRAY || type == TYPE_RANGE || type == TYPE_MULTIRANGE;
}

bool value_has_binary(enum logical_type type, enum logical_type elem)
{
	return has_scalar(is_nested(type) ? elem : type);
}

static bool render(const struct value *v, enum logical_type type, enum logical_type elem, struct buf *out)
{
	struct cursor c;

	cursor_init(&c, v->data, v->len);
	if (type == TYPE_ARRAY)
		return text_array(&c, elem, out) && cursor_done(&c);
	if (type == TYPE_RANGE)
		return text_range(&c, elem, out) && cursor_done(&c);
	if (type == TYPE_MULTIRANGE)
		return text_multirange(&c, elem, out) && cursor_done(&c);
	return text_scalar(&c, type, out);
}

int value_to_text(const struct value *v, enum logical_type type, enum logical_type elem, struct buf *out, struct err *e)
{
	size_t start = out->len;
	bool good = false;

	if (v->kind == VALUE_TEXT)
		good = !buf_append(out, v->data, v->len);
	else if (v->kind == VALUE_BINARY && value_has_binary(type, elem))
		good = render(v, type, elem, out);
	if (!buf_ok(out))
		return err_set(e, DMSR_EFULL, "value.too-long", "a value of type %s is longer than what is left for it", logical_type_name(type));
	if (good)
		return 0;
	out->len = start;
	return err_set(e, DMSR_EPROTO, "value.malformed", "the %u bytes of a value are not the binary form of type %s", v->len,
		logical_type_name(type));
}
