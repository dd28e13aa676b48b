/* value_nested: arrays, ranges, multiranges, hstore: values inside of values, quoted by PostgreSQL's rules.
 *
 *   array:      i32 ndim | i32 flags | u32 element oid | ndim x (i32 size, i32 lower bound) | elements: i32 length (-1 NULL), bytes
 *   range:      u8 flags | the bounds that are there, the lower first: i32 length, bytes
 *   multirange: i32 n | n x (i32 length, range)
 *   hstore:     i32 n | n x (i32 length, key, i32 length (-1 NULL), value) */
#include "model/value_internal.h"
#include <strings.h>

enum { MAX_DIMS = 6 };
enum { RANGE_EMPTY = 1, RANGE_LB_INC = 2, RANGE_UB_INC = 4, RANGE_LB_INF = 8, RANGE_UB_INF = 16 };

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A value of `len` bytes at the cursor. */
static bool put_piece(struct cursor *c, uint32_t len, enum logical_type type, struct buf *out)
{
	struct cursor piece;
	const char *p = cursor_bytes(c, len);

	if (!p)
		return false;
	cursor_init(&piece, p, len);
	return text_scalar(&piece, type, out);
}

/* Quotes what stands in out from `start` on, in place: `escapes` get a backslash, or are doubled, in front. */
static void quote(struct buf *out, size_t start, const char *escapes, bool doubled)
{
	size_t n = out->len - start, extra = 0;

	for (size_t i = start; i < out->len; i++)
		extra += out->data[i] == escapes[0] || out->data[i] == escapes[1];
	if (buf_reserve(out, extra + 2))
		return;
	char *from = out->data + start + n, *to = from + extra + 2;
	*--to = '"';
	while (from > out->data + start) {
		char ch = *--from;
		*--to = ch;
		if (ch == escapes[0] || ch == escapes[1])
			*--to = doubled ? ch : '\\';
	}
	*--to = '"';
	out->len += extra + 2;
}

void value_quote(struct buf *out, size_t start)
{
	quote(out, start, "\"\\", false);
}

bool value_element_needs_quotes(const char *p, size_t n, char delimiter)
{
	if (n == 0 || (n == 4 && strncasecmp(p, "NULL", 4) == 0))
		return true;
	for (; n; n--, p++)
		if (*p == '"' || *p == '\\' || *p == '{' || *p == '}' || *p == delimiter || is_space(*p))
			return true;
	return false;
}

static bool put_element(struct cursor *c, enum logical_type elem, struct buf *out)
{
	uint32_t len = cursor_be32(c);
	size_t start = out->len;

	if (c->bad)
		return false;
	if (len == UINT32_MAX) {
		buf_append(out, "NULL", 4);
		return true;
	}
	if (!put_piece(c, len, elem, out))
		return false;
	if (buf_ok(out) && value_element_needs_quotes(out->data + start, out->len - start, ','))
		value_quote(out, start);
	return true;
}

struct dims {
	uint32_t n, items;
	uint32_t size[MAX_DIMS];
	int32_t lower[MAX_DIMS];
};

static bool read_dims(struct cursor *c, struct dims *d)
{
	uint64_t items = 1;
	uint32_t n = cursor_be32(c);

	cursor_be32(c);
	cursor_be32(c);
	if (n > MAX_DIMS)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		d->size[i] = cursor_be32(c);
		d->lower[i] = (int32_t)cursor_be32(c);
		items *= d->size[i];
		/* four bytes an element at least: no more of them than fit */
		if (items > cursor_left(c) / 4 || (int64_t)d->lower[i] + d->size[i] - 1 > INT32_MAX)
			return false;
	}
	d->n = n;
	d->items = n ? (uint32_t)items : 0;
	return !c->bad;
}

static void put_bounds(struct buf *out, const struct dims *d)
{
	bool needed = false;

	for (uint32_t i = 0; i < d->n; i++)
		needed |= d->lower[i] != 1;
	for (uint32_t i = 0; i < d->n && needed; i++) {
		buf_byte(out, '[');
		buf_int(out, d->lower[i]);
		buf_byte(out, ':');
		buf_int(out, (int64_t)d->lower[i] + d->size[i] - 1);
		buf_byte(out, ']');
	}
	if (needed)
		buf_byte(out, '=');
}

bool text_array(struct cursor *c, enum logical_type elem, struct buf *out)
{
	struct dims d = {0};
	uint32_t at[MAX_DIMS] = {0}; /* how many of each dimension were put */

	if (!read_dims(c, &d))
		return false;
	if (!d.items) {
		buf_append(out, "{}", 2);
		return true;
	}
	put_bounds(out, &d);
	for (uint32_t depth = 0; depth < d.n; depth++)
		buf_byte(out, '{');
	for (uint32_t i = 0; i < d.items; i++) {
		if (!put_element(c, elem, out) || !buf_ok(out))
			return false;
		uint32_t depth = d.n;
		while (depth && ++at[depth - 1] == d.size[depth - 1]) {
			at[--depth] = 0;
			buf_byte(out, '}');
		}
		if (depth)
			buf_byte(out, ',');
		for (; depth && depth < d.n; depth++)
			buf_byte(out, '{');
	}
	return true;
}

static bool bound_needs_quotes(const char *p, size_t n)
{
	if (n == 0)
		return true;
	for (; n; n--, p++)
		if (*p == '"' || *p == '\\' || *p == '(' || *p == ')' || *p == '[' || *p == ']' || *p == ',' || is_space(*p))
			return true;
	return false;
}

static bool put_bound(struct cursor *c, enum logical_type elem, struct buf *out)
{
	uint32_t len = cursor_be32(c);
	size_t start = out->len;

	if (!put_piece(c, len, elem, out))
		return false;
	if (buf_ok(out) && bound_needs_quotes(out->data + start, out->len - start))
		quote(out, start, "\"\\", true);
	return true;
}

bool text_range(struct cursor *c, enum logical_type elem, struct buf *out)
{
	unsigned flags = cursor_u8(c);

	if (c->bad || flags > 31)
		return false;
	if (flags & RANGE_EMPTY) {
		buf_str(out, "empty");
		return true;
	}
	buf_byte(out, flags & RANGE_LB_INC ? '[' : '(');
	if (!(flags & RANGE_LB_INF) && !put_bound(c, elem, out))
		return false;
	buf_byte(out, ',');
	if (!(flags & RANGE_UB_INF) && !put_bound(c, elem, out))
		return false;
	buf_byte(out, flags & RANGE_UB_INC ? ']' : ')');
	return true;
}

bool text_multirange(struct cursor *c, enum logical_type elem, struct buf *out)
{
	uint32_t n = cursor_be32(c);

	if (n > cursor_left(c) / 5)
		return false;
	buf_byte(out, '{');
	for (uint32_t i = 0; i < n; i++) {
		struct cursor range;
		uint32_t len = cursor_be32(c);
		const char *p = cursor_bytes(c, len);
		if (!p)
			return false;
		if (i)
			buf_byte(out, ',');
		cursor_init(&range, p, len);
		if (!text_range(&range, elem, out) || !cursor_done(&range))
			return false;
	}
	buf_byte(out, '}');
	return true;
}

static bool put_hstore_text(struct cursor *c, uint32_t len, struct buf *out)
{
	size_t start = out->len;
	const char *p = cursor_bytes(c, len);

	if (!p)
		return false;
	buf_append(out, p, len);
	if (buf_ok(out))
		value_quote(out, start);
	return true;
}

bool text_hstore(struct cursor *c, struct buf *out)
{
	uint32_t n = cursor_be32(c);

	if (n > cursor_left(c) / 8)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_append(out, ", ", 2);
		if (!put_hstore_text(c, cursor_be32(c), out))
			return false;
		buf_append(out, "=>", 2);
		uint32_t len = cursor_be32(c);
		if (len == UINT32_MAX && !c->bad)
			buf_append(out, "NULL", 4);
		else if (!put_hstore_text(c, len, out))
			return false;
	}
	return true;
}
