/* buf: a growing run of bytes, born with a maximum. Going over the maximum makes it `full`, which sticks: later appends do
 * nothing and return -1, so that a writer tests once at the end (buf_ok). Freed by buf_fini. */
#ifndef DMSR_BASE_BUF_H
#define DMSR_BASE_BUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#pragma GCC visibility push(default)

struct buf {
	char *data;   /* NULL while nothing was appended; NOT NUL-terminated, see buf_cstr */
	size_t len, cap, max;
	bool full;
};

void buf_init(struct buf *b, size_t max_bytes); /* allocates nothing */
void buf_fini(struct buf *b);
void buf_reset(struct buf *b);                  /* len = 0, full = false; keeps the memory */
void buf_consume(struct buf *b, size_t n);      /* drops the first n bytes (n <= len) by moving the rest down */
int buf_reserve_slow(struct buf *b, size_t n);
const char *buf_cstr(struct buf *b);            /* NUL put behind the last byte; "" when empty or full */
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool buf_ok(const struct buf *b) { return !b->full; }

/* Room for n more bytes at data + len. 0, or -1 when that passes the maximum. */
static inline int buf_reserve(struct buf *b, size_t n)
{
	return b->cap - b->len >= n && !b->full ? 0 : buf_reserve_slow(b, n);
}
static inline int buf_append(struct buf *b, const void *p, size_t n)
{
	if (buf_reserve(b, n))
		return -1;
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	return 0;
}
static inline int buf_str(struct buf *b, const char *s) { return buf_append(b, s, strlen(s)); }
static inline int buf_byte(struct buf *b, char c) { return buf_append(b, &c, 1); }
/* big-endian integers */
int buf_u16(struct buf *b, uint16_t v);
int buf_u32(struct buf *b, uint32_t v);
int buf_u64(struct buf *b, uint64_t v);
/* decimal digits, without printf */
int buf_int(struct buf *b, int64_t v);
int buf_uint(struct buf *b, uint64_t v);

#pragma GCC visibility pop
#endif
