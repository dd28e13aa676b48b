/* json_text: strings and bytes. Most text is plain ASCII: eight or sixteen bytes are looked at together, and only what needs it is taken byte by byte. */
#include "json_int.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

const char json_bad_encoding[] = "is not valid UTF-8";

static const char hex_digits[] = "0123456789abcdef";

static int hex_value(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- strings ---- */

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* The high bit of the lowest byte that cannot stand in a JSON string as it is; bits above that one may be wrong. */
static inline uint64_t special(uint64_t w)
{
	uint64_t quote = w ^ ONES * '"', backslash = w ^ ONES * '\\';
	return (((w - ONES * 0x20) & ~w) | ((quote - ONES) & ~quote) | ((backslash - ONES) & ~backslash) | w) & HIGHS;
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
	*o++ = 'u';
	*o++ = '0';
	*o++ = '0';
	*o++ = hex_digits[c >> 4];
	*o++ = hex_digits[c & 15];
	return o;
}

enum { ESCAPED_MAX = 6 };

static inline uint64_t load8(const unsigned char *p)
{
	uint64_t w;
	memcpy(&w, p, 8);
	return le64toh(w);
}

static inline uint32_t load4(const unsigned char *p)
{
	uint32_t w;
	memcpy(&w, p, 4);
	return le32toh(w);
}

static inline unsigned first_special(uint64_t w)
{
	uint64_t found = special(w);
	return found ? (unsigned)__builtin_ctzll(found) / 8 : 8;
}

/* STEP bytes at p: how many of them can stand as they are before the first that cannot. */
#ifdef __SSE2__
enum { STEP = 16 };
static inline unsigned plain_bytes(const unsigned char *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i bad = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
	/* bytes beyond ASCII have the bit that is looked at */
	unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(bad, v));
	return mask ? (unsigned)__builtin_ctz(mask) : STEP;
}
#else
enum { STEP = 8 };
static inline unsigned plain_bytes(const unsigned char *p) { return first_special(load8(p)); }
#endif

/* n < STEP bytes from p to o, where STEP may be written: how many can stand as they are. */
static inline unsigned copy_short(char *o, const unsigned char *p, unsigned n)
{
	uint64_t w;

	if (n >= 8) {
		w = load8(p);
		memcpy(o, p, 8);
		unsigned plain = first_special(w);
		if (plain < 8 || n == 8)
			return plain;
		memcpy(o + n - 8, p + n - 8, 8);
		return n - 8 + first_special(load8(p + n - 8));
	}
	if (n >= 4)
		w = load4(p) | (uint64_t)load4(p + n - 4) << 8 * (n - 4);
	else
		w = p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1);
	uint64_t bytes = htole64(w);
	memcpy(o, &bytes, 8);
	unsigned plain = first_special(w | ONES * ' ' << 8 * n);
	return plain < n ? plain : n;
}

/* What cannot stand as it is, at p: moves p over it. NULL: bad UTF-8. */
static char *put_special(char *o, const unsigned char **p, const unsigned char *end, bool replace)
{
	if (**p < 0x80)
		return put_escape(o, *(*p)++);
	unsigned len = utf8_sequence(*p, (size_t)(end - *p));
	if (!len && !replace)
		return NULL;
	memcpy(o, len ? (const char *)*p : "\xEF\xBF\xBD", len ? len : 3);
	*p += len ? len : 1;
	return o + (len ? len : 3);
}

bool json_escape(struct buf *out, const char *text, size_t n, bool replace)
{
	const unsigned char *p = (const unsigned char *)text, *end = n ? p + n : p, *plain = p; /* NULL is fine, with nothing in it */

	if (buf_reserve(out, n + STEP))
		return true;
	char *o = out->data + out->len;
	/* There is always room for what is left as it is, and a step more. plain: from there on all was written as it is. */
	while (p < end) {
		size_t left = (size_t)(end - p), good;
		if (left >= STEP) {
			good = plain_bytes(p);
			memcpy(o, p, STEP);
		} else if ((size_t)(p - plain) >= STEP - left && plain_bytes(end - STEP) == STEP) {
			memcpy(o + left - STEP, end - STEP, STEP);
			good = left;
		} else {
			good = copy_short(o, p, (unsigned)left);
		}
		o += good;
		p += good;
		if (good == left || good == STEP)
			continue;
		out->len = (size_t)(o - out->data);
		if (buf_reserve(out, (size_t)(end - p) + ESCAPED_MAX + STEP))
			return true;
		o = put_special(out->data + out->len, &p, end, replace);
		if (!o)
			return false;
		plain = p;
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
		unsigned len = utf8_sequence(p, (size_t)(end - p));
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

static const char no_string[] = "is no string";
static const char bad_escape[] = "has an escape that is none";

/* An escape as put_escape writes it, or a character beyond ASCII, at p: moves p over it. */
static const char *take_special(const unsigned char **at, const unsigned char *end, struct buf *out)
{
	static const char letters[0x80] = { ['b'] = '\b', ['t'] = '\t', ['n'] = '\n', ['f'] = '\f', ['r'] = '\r', ['"'] = '"', ['\\'] = '\\' };
	const unsigned char *p = *at;

	if (*p >= 0x80) {
		unsigned len = utf8_sequence(p, (size_t)(end - p));
		buf_append(out, p, len);
		*at = p + len;
		return len ? NULL : json_bad_encoding;
	}
	if (*p != '\\' || end - p < 2)
		return no_string;
	if (p[1] < 0x80 && letters[p[1]]) {
		buf_byte(out, letters[p[1]]);
		*at = p + 2;
		return NULL;
	}
	if (end - p < 6 || memcmp(p, "\\u00", 4) != 0 || (p[4] != '0' && p[4] != '1') || hex_value(p[5]) < 0)
		return bad_escape;
	buf_byte(out, (char)((p[4] - '0') << 4 | hex_value(p[5])));
	*at = p + 6;
	return NULL;
}

const char *json_take_string(struct json_in *r)
{
	const unsigned char *p = r->in.at + 1, *end = r->in.end;
	struct buf *out = r->out;

	if (!json_is_next(r, '"'))
		return no_string;
	for (;;) {
		unsigned good = 0;
		size_t left = (size_t)(end - p);
		if (buf_reserve(out, STEP))
			return "is too long";
		char *o = out->data + out->len;
		if (left >= STEP) {
			memcpy(o, p, STEP);
			good = plain_bytes(p);
		} else {
			for (; good < left && p[good] >= 0x20 && p[good] < 0x80 && p[good] != '"' && p[good] != '\\'; good++)
				o[good] = (char)p[good];
		}
		out->len += good;
		p += good;
		if (good == STEP)
			continue;
		if (p == end)
			return no_string;
		if (*p == '"')
			break;
		const char *why = take_special(&p, end, out);
		if (why)
			return why;
	}
	r->in.at = p + 1;
	return NULL;
}

const char *json_take_plain(struct json_in *r, const char **p, size_t *n)
{
	if (!json_take_byte(r, '"'))
		return no_string;
	const unsigned char *close = memchr(r->in.at, '"', cursor_left(&r->in));
	if (!close)
		return no_string;
	*p = (const char *)r->in.at;
	*n = (size_t)(close - r->in.at);
	r->in.at = close + 1;
	return NULL;
}

const char *json_read_string(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return json_take_string(r);
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

/* "\x0a1b" -> the bytes, appended to out. */
static bool unhex(struct buf *out, const char *p, size_t n)
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
	if (!unhex(&j->bytes, p, n))
		return "is no text form of bytes (\\x0a1b)";
	buf_byte(&j->out, '"');
	json_put_base64(&j->out, j->bytes.data, j->bytes.len);
	buf_byte(&j->out, '"');
	return NULL;
}

/* A digit of base64, or less than 0. */
static int base64_value(unsigned char c)
{
	/* for each character from + to z its value and 62; $ for what is none */
	static const char values[] = "|$$$}rstuvwxyz{$$$$$$$>?@ABCDEFGHIJKLMNOPQRSTUVW$$$$$$XYZ[\\]^_`abcdefghijklmnopq";
	return c >= '+' && c <= 'z' ? values[c - '+'] - 62 : -1;
}

static char *put_hex(char *o, unsigned byte)
{
	*o++ = hex_digits[byte >> 4 & 15];
	*o++ = hex_digits[byte & 15];
	return o;
}

/* Four digits at p with `pad` of them '=': 3 - pad bytes as hex. NULL: they are not that, or bits would be lost. */
static char *put_group(char *o, const unsigned char *p, unsigned pad)
{
	int a = base64_value(p[0]), b = base64_value(p[1]), c = pad > 1 ? 0 : base64_value(p[2]), d = pad ? 0 : base64_value(p[3]);

	if ((a | b | c | d) < 0)
		return NULL;
	unsigned v = (unsigned)a << 18 | (unsigned)b << 12 | (unsigned)c << 6 | (unsigned)d;
	if (pad && v & (pad > 1 ? 0xffff : 0xff))
		return NULL;
	o = put_hex(o, v >> 16);
	o = pad > 1 ? o : put_hex(o, v >> 8);
	return pad ? o : put_hex(o, v);
}

const char *json_read_bytes(struct json_in *r, const struct json_column *c)
{
	static const char bad[] = "is no base64";
	const char *text, *why;
	size_t n;

	(void)c;
	if ((why = json_take_plain(r, &text, &n)))
		return why;
	if (n % 4)
		return bad;
	if (buf_reserve(r->out, 2 + n / 4 * 6))
		return "is too long";
	const unsigned char *p = (const unsigned char *)text;
	char *o = r->out->data + r->out->len;
	*o++ = '\\';
	*o++ = 'x';
	for (; n; n -= 4, p += 4) {
		unsigned pad = n > 4 || p[3] != '=' ? 0 : p[2] != '=' ? 1 : 2;
		if (!(o = put_group(o, p, pad)))
			return bad;
	}
	r->out->len = (size_t)(o - r->out->data);
	return NULL;
}
