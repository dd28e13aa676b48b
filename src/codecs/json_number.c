/* json_number: numbers. What is no number by JSON's grammar (NaN, infinities) becomes a string; what a double cannot hold does so too, where exactness is
 * the default (numeric, unsigned 64 bit). */
#include "json_int.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { INT_TEXT_MAX = 20 };

static const char not_a_number[] = "is no number";

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* The end of the digits at p. */
static const char *digits(const char *p, const char *end)
{
	while (p < end && is_digit(*p))
		p++;
	return p;
}

/* The end of a whole number without leading zeros at p; NULL: there is none. */
static const char *whole(const char *p, const char *end)
{
	p += p < end && *p == '-';
	const char *behind = digits(p, end);
	return behind == p || (*p == '0' && behind - p > 1) ? NULL : behind;
}

/* The end of a fraction (.5) at p, or p; NULL: a point without digits. */
static const char *fraction(const char *p, const char *end)
{
	if (p == end || *p != '.')
		return p;
	const char *behind = digits(p + 1, end);
	return behind == p + 1 ? NULL : behind;
}

static bool is_decimal(const char *p, size_t n)
{
	const char *end = p + n, *at = whole(p, end);
	return at && fraction(at, end) == end;
}

/* Is it in JSON's grammar, and in the range of a double? */
static bool is_real(const char *p, size_t n)
{
	const char *start = p, *end = p + n;
	char copy[64];

	p = whole(p, end);
	p = p ? fraction(p, end) : NULL;
	if (!p)
		return false;
	if (p == end && n < 40)
		return true;
	if (p < end) {
		if (*p != 'e' && *p != 'E')
			return false;
		p++;
		p += p < end && (*p == '+' || *p == '-');
		const char *behind = digits(p, end);
		if (behind == p || behind != end)
			return false;
		if (n < 40 && end - p < 3)
			return true;
	}
	if (n >= sizeof copy)
		return false;
	memcpy(copy, start, n);
	copy[n] = 0;
	return isfinite(strtod(copy, NULL));
}

static bool is_word(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && !memcmp(p, word, n);
}

static bool is_special(const char *p, size_t n)
{
	return is_word(p, n, "NaN") || is_word(p, n, "Infinity") || is_word(p, n, "-Infinity");
}

static void put_quoted(struct json *j, const char *p, size_t n)
{
	if (buf_reserve(&j->out, n + 2))
		return;
	char *o = j->out.data + j->out.len;
	*o = '"';
	memcpy(o + 1, p, n);
	o[n + 1] = '"';
	j->out.len += n + 2;
}

const char *json_write_int(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	if (n > INT_TEXT_MAX || whole(p, p + n) != p + n)
		return not_a_number;
	json_put(j, p, n);
	return NULL;
}

const char *json_write_float(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	if (is_special(p, n)) {
		put_quoted(j, p, n);
		return NULL;
	}
	if (!is_real(p, n))
		return not_a_number;
	json_put(j, p, n);
	if (n == 2 && p[0] == '-' && p[1] == '0')
		JSON_PUT(j, ".0"); /* a whole number has no negative zero: readers would lose the sign */
	return NULL;
}

/* Fifteen significant digits go through a double and back unharmed. */
static bool fits_double(const char *p, size_t n)
{
	enum { MAX_TEXT = 32, MAX_DIGITS = 15 };
	unsigned count = 0;

	if (n > MAX_TEXT)
		return false;
	for (size_t i = 0; i < n; i++)
		count += is_digit(p[i]) && (count || p[i] != '0');
	return count <= MAX_DIGITS;
}

const char *json_write_numeric(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	if (!is_decimal(p, n) && !is_special(p, n))
		return not_a_number;
	if (j->numbers && !is_special(p, n) && fits_double(p, n))
		json_put(j, p, n);
	else
		put_quoted(j, p, n);
	return NULL;
}

const char *json_write_uint64(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	if (n > INT_TEXT_MAX || whole(p, p + n) != p + n || *p == '-')
		return not_a_number;
	if (j->numbers && fits_double(p, n))
		json_put(j, p, n);
	else
		put_quoted(j, p, n);
	return NULL;
}

/* ---- reading ---- */

/* What may be a number, off the front. */
static size_t take_token(struct json_in *r, const char **p)
{
	const unsigned char *at = r->in.at;

	while (at < r->in.end && (is_digit((char)*at) || *at == '-' || *at == '.' || *at == '+' || *at == 'e' || *at == 'E'))
		at++;
	*p = (const char *)r->in.at;
	r->in.at = at;
	return (size_t)(at - (const unsigned char *)*p);
}

const char *json_read_int(struct json_in *r, const struct json_column *c)
{
	const char *p;
	size_t n = take_token(r, &p);

	(void)c;
	if (n > INT_TEXT_MAX || whole(p, p + n) != p + n)
		return not_a_number;
	buf_append(r->out, p, n);
	return NULL;
}

const char *json_read_float(struct json_in *r, const struct json_column *c)
{
	const char *p, *why;
	size_t n;

	(void)c;
	if (json_is_next(r, '"')) {
		if ((why = json_take_plain(r, &p, &n)))
			return why;
		if (!is_special(p, n))
			return not_a_number;
	} else {
		n = take_token(r, &p);
		if (!is_real(p, n))
			return not_a_number;
	}
	buf_append(r->out, p, is_word(p, n, "-0.0") ? 2 : n);
	return NULL;
}

/* A string or a number, whatever the option is now: of records that were written before it was changed too. */
static const char *take_exact(struct json_in *r, const char **p, size_t *n)
{
	if (json_is_next(r, '"'))
		return json_take_plain(r, p, n);
	*n = take_token(r, p);
	return NULL;
}

const char *json_read_numeric(struct json_in *r, const struct json_column *c)
{
	const char *p, *why;
	size_t n;

	(void)c;
	if ((why = take_exact(r, &p, &n)))
		return why;
	if (!is_decimal(p, n) && !is_special(p, n))
		return not_a_number;
	buf_append(r->out, p, n);
	return NULL;
}

const char *json_read_uint64(struct json_in *r, const struct json_column *c)
{
	const char *p, *why;
	size_t n;

	(void)c;
	if ((why = take_exact(r, &p, &n)))
		return why;
	if (n > INT_TEXT_MAX || whole(p, p + n) != p + n || *p == '-')
		return not_a_number;
	buf_append(r->out, p, n);
	return NULL;
}

/* ---- unscaled values ---- */

enum { CHUNK_DIGITS = 18 };

static uint64_t limb(const char *at, size_t i)
{
	uint64_t v;
	memcpy(&v, at + 8 * i, 8);
	return v;
}

/* at: n limbs, the lowest first: times 10^digits, plus `add`; returns how many they are now. */
static size_t multiply_add(char *at, size_t n, uint64_t factor, uint64_t add)
{
	unsigned __int128 carry = add;

	for (size_t i = 0; i < n; i++) {
		carry += (unsigned __int128)limb(at, i) * factor;
		uint64_t low = (uint64_t)carry;
		memcpy(at + 8 * i, &low, 8);
		carry >>= 64;
	}
	if (carry) {
		uint64_t low = (uint64_t)carry;
		memcpy(at + 8 * n++, &low, 8);
	}
	return n;
}

/* n limbs, and a byte of room behind them, become the shortest big-endian two's complement; returns its length. */
static size_t to_bytes(char *at, size_t n, bool negative)
{
	size_t len = 8 * n + 1;
	unsigned char *b = (unsigned char *)at;

	for (size_t i = 0; i < n; i++) {
		uint64_t v = htole64(limb(at, i));
		memcpy(at + 8 * i, &v, 8);
	}
	b[len - 1] = 0;
	for (size_t i = 0; i < len / 2; i++) {
		unsigned char x = b[i];
		b[i] = b[len - 1 - i];
		b[len - 1 - i] = x;
	}
	for (size_t i = len, carry = 1; negative && i-- > 0;) {
		carry += (unsigned char)~b[i];
		b[i] = (unsigned char)carry;
		carry >>= 8;
	}
	size_t skip = 0;
	while (skip + 1 < len && ((b[skip] == 0 && !(b[skip + 1] & 0x80)) || (b[skip] == 0xff && (b[skip + 1] & 0x80))))
		skip++;
	memmove(b, b + skip, len - skip);
	return len - skip;
}

/* How many of the digits (the point left out) count at *scale, and how many zeros follow them. False: digits would be lost. */
static bool rescale(const char *p, size_t n, size_t places, int *scale, size_t *keep, size_t *zeros)
{
	size_t count = n - (places > 0);

	*zeros = 0;
	if (*scale == INT_MIN) {
		while (places && p[n - 1] == '0') {
			n--;
			count--;
			places--;
		}
		*scale = (int)places;
	}
	int64_t more = (int64_t)*scale - (int64_t)places;
	if (more >= 0) {
		*zeros = (size_t)more;
	} else {
		for (int64_t i = 0; i < -more && count; i++, count--, n--) {
			n -= p[n - 1] == '.';
			if (p[n - 1] != '0')
				return false;
		}
	}
	*keep = count;
	return true;
}

bool json_unscaled(const char *p, size_t n, int *scale, struct buf *out)
{
	bool negative = n && *p == '-';
	size_t keep, zeros, limbs = 0;

	if (!is_decimal(p, n))
		return false;
	p += negative;
	n -= negative;
	const char *point = memchr(p, '.', n);
	if (!rescale(p, n, point ? n - (size_t)(point - p) - 1 : 0, scale, &keep, &zeros))
		return false;
	/* 18 digits fit in a limb; a limb more for the carry, and the sign's byte */
	if (buf_reserve(out, ((keep + zeros) / CHUNK_DIGITS + 2) * 8 + 1))
		return true;
	char *at = out->data + out->len;
	while (keep + zeros) {
		uint64_t factor = 1, chunk = 0;
		for (int i = 0; i < CHUNK_DIGITS && keep + zeros; i++) {
			unsigned digit = 0;
			if (keep) {
				p += *p == '.';
				digit = (unsigned)(*p++ - '0');
				keep--;
			} else {
				zeros--;
			}
			chunk = chunk * 10 + digit;
			factor *= 10;
		}
		limbs = multiply_add(at, limbs, factor, chunk);
	}
	out->len += to_bytes(at, limbs, negative);
	return true;
}
