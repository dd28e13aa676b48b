/* buf: growth, and the writers that are not worth inlining. */
#include "base/buf.h"
#include "base/mem.h"
#include <assert.h>
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_BYTES = 64 };

void buf_init(struct buf *b, size_t max_bytes)
{
	*b = (struct buf){ .max = max_bytes };
}

void buf_fini(struct buf *b)
{
	free(b->data);
	buf_init(b, b->max);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->full = false;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= b->len);
	b->len -= n;
	if (n && b->len)
		memmove(b->data, b->data + n, b->len);
}

int buf_reserve_slow(struct buf *b, size_t n)
{
	if (b->full || n > b->max - b->len) {
		b->full = true;
		return -1;
	}
	size_t need = b->len + n;
	size_t cap = b->cap > b->max / 2 ? b->max : b->cap * 2;
	if (cap < FIRST_BYTES)
		cap = FIRST_BYTES < b->max ? FIRST_BYTES : b->max;
	if (cap < need)
		cap = need;
	b->data = mem_realloc(b->data, cap + 1); /* one more for buf_cstr */
	b->cap = cap;
	return 0;
}

const char *buf_cstr(struct buf *b)
{
	if (b->full || !b->len)
		return "";
	b->data[b->len] = 0;
	return b->data;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	size_t room = b->data ? b->cap - b->len + 1 : 0;
	va_start(ap, fmt);
	int n = vsnprintf(room ? b->data + b->len : NULL, room, fmt, ap);
	va_end(ap);
	if (n < 0 || buf_reserve(b, (size_t)n)) {
		b->full = true;
		return -1;
	}
	if ((size_t)n >= room && n) {
		va_start(ap, fmt);
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	b->len += (size_t)n;
	return 0;
}

int buf_u16(struct buf *b, uint16_t v)
{
	v = htobe16(v);
	return buf_append(b, &v, sizeof v);
}

int buf_u32(struct buf *b, uint32_t v)
{
	v = htobe32(v);
	return buf_append(b, &v, sizeof v);
}

int buf_u64(struct buf *b, uint64_t v)
{
	v = htobe64(v);
	return buf_append(b, &v, sizeof v);
}

static int append_digits(struct buf *b, uint64_t v, bool minus)
{
	char text[21];
	size_t at = sizeof text;
	do {
		text[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	if (minus)
		text[--at] = '-';
	return buf_append(b, text + at, sizeof text - at);
}

int buf_int(struct buf *b, int64_t v)
{
	return append_digits(b, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
}

int buf_uint(struct buf *b, uint64_t v)
{
	return append_digits(b, v, false);
}
