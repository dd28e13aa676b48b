/* value_number: floats in their shortest exact text, numerics of any size.
 *
 * Floats: the shortest decimal that lies strictly between the neighbours' midpoints, the closest of those (R. Giulietti, "The Schubfach way to
 * render doubles"). The strictness (a decimal that is exactly a midpoint is not taken) is PostgreSQL's. */
#include "model/value_internal.h"
#include "model/pow10.h"

struct decimal {
	uint64_t digits;
	int exponent;
};

/* floor(log2(10^e)), floor(log10(2^e)) and floor(log10(3/4 * 2^e)), exact for every exponent of a double */
static int log2_pow10(int e) { return e * 1741647 >> 19; }
static int log10_pow2(int e) { return e * 1262611 >> 22; }
static int log10_pow2_34(int e) { return (e * 1262611 - 524031) >> 22; }

/* The high bits of g * cp; a lost remainder sets the lowest bit, so that comparisons stay exact. */
static uint64_t round_to_odd64(struct pow10 g, uint64_t cp)
{
	unsigned __int128 x = (unsigned __int128)g.lo * cp;
	unsigned __int128 y = (unsigned __int128)g.hi * cp + (uint64_t)(x >> 64);
	return (uint64_t)(y >> 64) | ((uint64_t)y > 1);
}

static uint64_t round_to_odd32(uint64_t g, uint32_t cp)
{
	unsigned __int128 p = (unsigned __int128)g * cp;
	return (uint32_t)(p >> 64) | ((uint32_t)(p >> 32) > 1);
}

/* From four times the value (v) and its midpoints (below, above), all in units of a quarter of 10^k. */
static struct decimal choose(uint64_t below, uint64_t v, uint64_t above, int k)
{
	uint64_t s = v / 4, lower = below + 1, upper = above - 1;

	if (s >= 10) {
		uint64_t ten = s / 10;
		bool down = lower <= 40 * ten, up = 40 * ten + 40 <= upper;
		if (down != up)
			return (struct decimal){ ten + up, k + 1 };
	}
	bool down = lower <= 4 * s, up = 4 * s + 4 <= upper;
	if (down != up)
		return (struct decimal){ s + up, k };
	uint64_t mid = 4 * s + 2;
	return (struct decimal){ s + (v > mid || (v == mid && (s & 1))), k };
}

/* c * 2^q, both not zero; lopsided: the neighbour below is nearer than the one above. */
static struct decimal shortest64(uint64_t c, int q, bool lopsided)
{
	int k = lopsided ? log10_pow2_34(q) : log10_pow2(q);
	int h = q + log2_pow10(-k) + 1;
	struct pow10 g = pow10_table[-k - POW10_MIN];

	return choose(round_to_odd64(g, (4 * c - 2 + lopsided) << h), round_to_odd64(g, (4 * c) << h),
		round_to_odd64(g, (4 * c + 2) << h), k);
}

static struct decimal shortest32(uint32_t c, int q, bool lopsided)
{
	int k = lopsided ? log10_pow2_34(q) : log10_pow2(q);
	int h = q + log2_pow10(-k) + 1;
	struct pow10 g128 = pow10_table[-k - POW10_MIN];
	uint64_t g = g128.hi + (g128.lo != 0);

	return choose(round_to_odd32(g, (4 * c - 2 + lopsided) << h), round_to_odd32(g, (4 * c) << h),
		round_to_odd32(g, (4 * c + 2) << h), k);
}

/* As printf's %g would lay it out with `precision` digits: plain from 1e-4 up to that many digits, else d.ddde+XX. */
static void put_decimal(struct buf *out, bool negative, struct decimal d, int precision)
{
	char digits[24], *p = digits + sizeof digits;

	while (d.digits % 10 == 0) {
		d.digits /= 10;
		d.exponent++;
	}
	for (; d.digits; d.digits /= 10)
		*--p = (char)('0' + d.digits % 10);
	int n = (int)(digits + sizeof digits - p), exp = d.exponent + n - 1;

	if (negative)
		buf_byte(out, '-');
	if (exp < -4 || exp >= precision) {
		buf_byte(out, *p);
		if (n > 1)
			buf_byte(out, '.');
		buf_append(out, p + 1, (size_t)n - 1);
		buf_append(out, exp < 0 ? "e-" : "e+", 2);
		text_padded(out, (uint64_t)(exp < 0 ? -exp : exp), 2);
		return;
	}
	int whole = exp + 1; /* digits before the point */
	if (whole <= 0) {
		buf_append(out, "0.000", (size_t)(2 - whole));
		buf_append(out, p, (size_t)n);
	} else if (n <= whole) {
		buf_append(out, p, (size_t)n);
		buf_append(out, "00000000000000", (size_t)(whole - n));
	} else {
		buf_append(out, p, (size_t)whole);
		buf_byte(out, '.');
		buf_append(out, p + whole, (size_t)(n - whole));
	}
}

static void put_special(struct buf *out, bool negative, bool nan)
{
	buf_str(out, nan ? "NaN" : negative ? "-Infinity" : "Infinity");
}

bool text_float64(struct cursor *c, struct buf *out)
{
	uint64_t bits = cursor_be64(c), fraction = bits & (((uint64_t)1 << 52) - 1);
	int exponent = (int)(bits >> 52 & 2047);
	bool negative = bits >> 63;

	if (exponent == 2047)
		put_special(out, negative, fraction);
	else if (!exponent && !fraction)
		buf_str(out, negative ? "-0" : "0");
	else if (!exponent)
		put_decimal(out, negative, shortest64(fraction, -1074, false), 15);
	else
		put_decimal(out, negative, shortest64(fraction | (uint64_t)1 << 52, exponent - 1075, !fraction && exponent > 1), 15);
	return true;
}

bool text_float32(struct cursor *c, struct buf *out)
{
	uint32_t bits = cursor_be32(c), fraction = bits & (((uint32_t)1 << 23) - 1);
	int exponent = (int)(bits >> 23 & 255);
	bool negative = bits >> 31;

	if (exponent == 255)
		put_special(out, negative, fraction);
	else if (!exponent && !fraction)
		buf_str(out, negative ? "-0" : "0");
	else if (!exponent)
		put_decimal(out, negative, shortest32(fraction, -149, false), 6);
	else
		put_decimal(out, negative, shortest32(fraction | (uint32_t)1 << 23, exponent - 150, !fraction && exponent > 1), 6);
	return true;
}

/* ---- numeric: digits to base 10000, the first worth 10000^weight; dscale decimal digits are shown behind the point ---- */

enum { NUMERIC_POS = 0, NUMERIC_NEG = 0x4000, NUMERIC_NAN = 0xC000, NUMERIC_PINF = 0xD000, NUMERIC_NINF = 0xF000, DSCALE_MAX = 0x3FFF };

struct digits {
	const unsigned char *at;
	int n, weight;
};

/* The digit worth 10000^place; zero outside of what was sent. */
static unsigned digit(const struct digits *d, int place)
{
	int i = d->weight - place;

	return i >= 0 && i < d->n ? (unsigned)d->at[2 * i] << 8 | d->at[2 * i + 1] : 0;
}

static void put_numeric(struct buf *out, const struct digits *d, int dscale)
{
	if (d->weight < 0)
		buf_byte(out, '0');
	else
		buf_uint(out, digit(d, d->weight));
	for (int place = d->weight - 1; place >= 0; place--)
		text_padded(out, digit(d, place), 4);
	if (!dscale)
		return;
	buf_byte(out, '.');
	int place = -1;
	for (; dscale >= 4; dscale -= 4)
		text_padded(out, digit(d, place--), 4);
	if (dscale) {
		static const unsigned cut[] = {0, 1000, 100, 10};
		text_padded(out, digit(d, place) / cut[dscale], dscale);
	}
}

bool text_numeric(struct cursor *c, struct buf *out)
{
	struct digits d = {.n = cursor_be16(c)};
	d.weight = (int16_t)cursor_be16(c);
	int sign = cursor_be16(c), dscale = cursor_be16(c);

	d.at = (const unsigned char *)cursor_bytes(c, 2 * (size_t)d.n);
	if (!d.at || dscale > DSCALE_MAX)
		return false;
	for (int i = 0; i < d.n; i++)
		if (digit(&d, d.weight - i) > 9999)
			return false;
	switch (sign) {
	case NUMERIC_NAN: buf_str(out, "NaN"); return true;
	case NUMERIC_PINF: buf_str(out, "Infinity"); return true;
	case NUMERIC_NINF: buf_str(out, "-Infinity"); return true;
	case NUMERIC_NEG: buf_byte(out, '-'); break;
	case NUMERIC_POS: break;
	default: return false;
	}
	if (d.n == 0)
		d.weight = -1; /* zero: its weight says nothing */
	put_numeric(out, &d, dscale);
	return true;
}
