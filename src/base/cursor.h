/* cursor: reads bytes that somebody else wrote. Every read is bounded; the first that does not fit sets `bad`, which sticks:
 * later reads give 0 / "" / NULL and do not move, so that a decoder tests once at the end. Borrows the bytes. */
#ifndef DMSR_BASE_CURSOR_H
#define DMSR_BASE_CURSOR_H
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	const unsigned char *at, *end;
	bool bad;
};

static inline void cursor_init(struct cursor *c, const void *p, size_t n)
{
	c->at = n ? p : (const void *)""; /* of no bytes p may be NULL */
	c->end = c->at + n;
	c->bad = false;
}
static inline size_t cursor_left(const struct cursor *c) { return (size_t)(c->end - c->at); }
static inline bool cursor_done(const struct cursor *c) { return !c->bad && c->at == c->end; }
static inline void cursor_fail(struct cursor *c) { c->bad = true; c->at = c->end; }

/* n bytes, borrowed; NULL (and bad) when fewer are left. */
static inline const char *cursor_bytes(struct cursor *c, size_t n)
{
	if (cursor_left(c) < n) {
		cursor_fail(c);
		return NULL;
	}
	const char *p = (const char *)c->at;
	c->at += n;
	return p;
}
static inline uint8_t cursor_u8(struct cursor *c)
{
	const char *p = cursor_bytes(c, 1);
	return p ? (uint8_t)*p : 0;
}
#define CURSOR_INT(name, type, conv)                      \
	static inline type cursor_##name(struct cursor *c) \
	{                                                 \
		type v = 0;                               \
		const char *p = cursor_bytes(c, sizeof v); \
		if (p)                                    \
			memcpy(&v, p, sizeof v);          \
		return conv(v);                           \
	}
CURSOR_INT(be16, uint16_t, be16toh)
CURSOR_INT(be32, uint32_t, be32toh)
CURSOR_INT(be64, uint64_t, be64toh)
CURSOR_INT(le16, uint16_t, le16toh)
CURSOR_INT(le32, uint32_t, le32toh)
CURSOR_INT(le64, uint64_t, le64toh)
#undef CURSOR_INT
/* A NUL-terminated string, borrowed; "" (and bad) when there is no NUL. */
static inline const char *cursor_cstr(struct cursor *c)
{
	const void *z = memchr(c->at, 0, cursor_left(c));
	if (!z) {
		cursor_fail(c);
		return "";
	}
	return cursor_bytes(c, (size_t)((const unsigned char *)z - c->at) + 1);
}
#endif
