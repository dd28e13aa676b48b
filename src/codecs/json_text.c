/* json_text: strings and bytes. Most text is plain ASCII: eight bytes are looked at together, and only what needs it is taken byte by byte. */
#include "json_int.h"

const char json_bad_encoding[] = "is not valid UTF-8";

static const char hex_digits[] = "0123456789abcdef";

/* ---- strings ---- */

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* The high bit of the lowest byte that cannot stand in a JSON string as it is; bits above that one may be wrong. */
static inline uint64_t special(uint64_t w)
{
	uint64_t quote = w ^ ONES * '"', backslash = w ^ ONES * '\\';
	return (((w - ONES * 0x20) & ~w) | ((quote - ONES) & ~quote) | ((backslash - ONES) & ~backslash) | w) & HIGHS;
}

/* The length of the UTF-8 sequence at p, or 0. */
static unsigned sequence(const unsigned char *p, size_t n)
{
	unsigned c = p[0];

	if (c >= 0xC2 && c <= 0xDF)
		return n >= 2 && (p[1] & 0xC0) == 0x80 ? 2 : 0;
	if (c >= 0xE0 && c <= 0xEF) {
		unsigned low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF; /* no overlong ones, no surrogates */
		return n >= 3 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 ? 3 : 0;
	}
	if (c >= 0xF0 && c <= 0xF4) {
		unsigned low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF;
		return n >= 4 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
	}
	return 0;
}

/* A control character, a quote or a backslash. */
static char *put_escape(char *o, unsigned char c)
{
	static const char letters[0x20] = { ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r' };
	char letter = c < 0x20 ? letters[c] : (char)c;

	*o++ = '\\';
	if (letter) {
		*o++ = letter;
		return o;
	}
	memcpy(o, "u00", 3);
	o[3] = hex_digits[c >> 4];
	o[4] = hex_digits[c & 15];
	return o + 5;
}

enum { ESCAPED_MAX = 6 };

bool json_escape(struct buf *out, const char *text, size_t n, bool replace)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + n;

	if (buf_reserve(out, n + 8))
		return true;
	char *o = out->data + out->len;
	while (p < end) {
		/* There is room for what is left as it is, and a word more. */
		uint64_t w = 0, found;
		size_t have = (size_t)(end - p) < 8 ? (size_t)(end - p) : 8;
		if (have == 8)
			memcpy(&w, p, 8);
		else
			for (size_t i = 0; i < have; i++)
				w |= (uint64_t)p[i] << 8 * i;
		w = have == 8 ? le64toh(w) : w;
		found = special(have == 8 ? w : w | (ONES * ' ' << 8 * have));
		uint64_t as_is = htole64(w);
		memcpy(o, &as_is, 8);
		size_t plain = found ? (size_t)__builtin_ctzll(found) / 8 : have;
		o += plain;
		p += plain;
		if (!found)
			continue;
		unsigned len = *p < 0x80 ? 1 : sequence(p, (size_t)(end - p));
		if (!len && !replace)
			return false;
		out->len = (size_t)(o - out->data);
		if (buf_reserve(out, (size_t)(end - p) + ESCAPED_MAX + 8))
			return true;
		o = out->data + out->len;
		if (*p < 0x80) {
			o = put_escape(o, *p++);
		} else if (len) {
			memcpy(o, p, len);
			o += len;
			p += len;
		} else {
			memcpy(o, "\xEF\xBF\xBD", 3);
			o += 3;
			p++;
		}
	}
	out->len = (size_t)(o - out->data);
	return true;
}

const char *json_put_string(struct json *j, const char *p, size_t n)
{
	buf_byte(&j->out, '"');
	bool good = json_escape(&j->out, p, n, j->replace_bad);
	buf_byte(&j->out, '"');
	return good ? NULL : json_bad_encoding;
}

const char *json_put_utf8(struct json *j, const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + n, *run = p;

	while (p < end) {
		unsigned len = *p < 0x80 ? 1 : sequence(p, (size_t)(end - p));
		if (!len && !j->replace_bad)
			return json_bad_encoding;
		if (!len) {
			buf_append(&j->out, run, (size_t)(p - run));
			JSON_PUT(j, "\xEF\xBF\xBD");
			run = p + 1;
		}
		p += len ? len : 1;
	}
	buf_append(&j->out, run, (size_t)(p - run));
	return NULL;
}

const char *json_write_string(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return json_put_string(j, p, n);
}

/* ---- bytes ---- */

void json_put_base64(struct buf *out, const void *data, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = data;

	if (buf_reserve(out, (n + 2) / 3 * 4))
		return;
	char *o = out->data + out->len;
	for (; n >= 3; n -= 3, p += 3) {
		unsigned v = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = digits[v >> 6 & 63];
		*o++ = digits[v & 63];
	}
	if (n) {
		unsigned v = (unsigned)p[0] << 16 | (n == 2 ? (unsigned)p[1] << 8 : 0);
		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = n == 2 ? digits[v >> 6 & 63] : '=';
		*o++ = '=';
	}
	out->len = (size_t)(o - out->data);
}

static int hex_value(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool json_unhex(struct buf *out, const char *p, size_t n)
{
	if (n < 2 || n % 2 || p[0] != '\\' || p[1] != 'x')
		return false;
	p += 2;
	n -= 2;
	if (!n || buf_reserve(out, n / 2))
		return true;
	char *o = out->data + out->len;
	for (size_t i = 0; i < n; i += 2) {
		int high = hex_value((unsigned char)p[i]), low = hex_value((unsigned char)p[i + 1]);
		if (high < 0 || low < 0)
			return false;
		*o++ = (char)(high << 4 | low);
	}
	out->len += n / 2;
	return true;
}

const char *json_write_bytes(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	buf_reset(&j->bytes);
	if (!json_unhex(&j->bytes, p, n))
		return "is no text form of bytes (\\x0a1b)";
	buf_byte(&j->out, '"');
	json_put_base64(&j->out, j->bytes.data, j->bytes.len);
	buf_byte(&j->out, '"');
	return NULL;
}
