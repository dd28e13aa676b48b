/* json_time: dates, times and intervals as ISO 8601 has them. Years beyond 9999 have a plus, years before 1 AD are counted through zero (1 BC is 0000),
 * zones are hours and minutes (Z for none). What has no place in ISO 8601 stays a word: infinity, -infinity. Everything is exact. */
#include "json_int.h"

static const char not_a_date[] = "is no date or time in ISO form";

/* ---- reading ---- */

struct scan {
	const char *p, *end;
};

static bool next_is(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static bool number(struct scan *s, size_t min, size_t max, int64_t *out)
{
	const char *start = s->p;
	int64_t v = 0;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9' && (size_t)(s->p - start) < max)
		v = v * 10 + (*s->p++ - '0');
	*out = v;
	return (size_t)(s->p - start) >= min;
}

static bool two(struct scan *s, unsigned low, unsigned high, unsigned *out)
{
	if (s->end - s->p < 2)
		return false;
	unsigned a = (unsigned char)s->p[0] - (unsigned)'0', b = (unsigned char)s->p[1] - (unsigned)'0';
	s->p += 2;
	*out = a * 10 + b;
	return a <= 9 && b <= 9 && *out >= low && *out <= high;
}

/* .123 -> 123000 */
static bool micros(struct scan *s, unsigned *out)
{
	unsigned v = 0, n = 0;

	*out = 0;
	if (!next_is(s, '.'))
		return true;
	for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && n < 6; n++)
		v = v * 10 + (unsigned)(*s->p++ - '0');
	for (unsigned i = n; i < 6; i++)
		v *= 10;
	*out = v;
	return n > 0;
}

static bool clock_time(struct scan *s, struct json_when *w)
{
	return two(s, 0, 24, &w->hour) && next_is(s, ':') && two(s, 0, 59, &w->minute) && next_is(s, ':') && two(s, 0, 60, &w->second) && micros(s, &w->us);
}

static bool zone(struct scan *s, struct json_when *w)
{
	unsigned h, m = 0, sec = 0;
	bool west = s->p < s->end && *s->p == '-';

	if (!next_is(s, '-') && !next_is(s, '+'))
		return false;
	if (!two(s, 0, 99, &h) || (next_is(s, ':') && !two(s, 0, 59, &m)) || (next_is(s, ':') && !two(s, 0, 59, &sec)))
		return false;
	w->zone = (int)(h * 3600 + m * 60 + sec);
	w->zone = west ? -w->zone : w->zone;
	return true;
}

static int infinity_of(const char *p, size_t n)
{
	if (n == 8 && !memcmp(p, "infinity", 8))
		return 1;
	return n == 9 && !memcmp(p, "-infinity", 9) ? -1 : 0;
}

/* 0000 is 1 BC; a sign stands before more than four digits, and a minus before years that came earlier. */
static bool iso_year(struct scan *s, struct json_when *w)
{
	const char *start = s->p;
	bool minus = next_is(s, '-'), plus = !minus && next_is(s, '+');
	const char *first = s->p;

	if (!number(s, 4, 7, &w->year) || (s->p - first > 4 && (start == first || *first == '0')) || (plus && s->p - first == 4) || (minus && !w->year))
		return false;
	w->year = minus ? -w->year : w->year;
	return true;
}

static bool iso_zone(struct scan *s, struct json_when *w)
{
	const char *start = s->p;

	if (next_is(s, 'Z'))
		return true;
	return zone(s, w) && w->zone && (s->p - start == 6 || (s->p - start == 9 && w->zone % 60));
}

/* A year 0 is none in the neutral text: as ISO has it, it would read as 1 BC. */
static bool neutral_year(struct scan *s, struct json_when *w) { return number(s, 4, 7, &w->year) && w->year; }

static bool day(struct scan *s, struct json_when *w, bool iso)
{
	if (!(iso ? iso_year(s, w) : neutral_year(s, w)))
		return false;
	return next_is(s, '-') && two(s, 1, 12, &w->month) && next_is(s, '-') && two(s, 1, 31, &w->day);
}

bool json_when_parse(const char *p, size_t n, unsigned parts, struct json_when *w)
{
	struct scan s = { p, p + n };
	bool iso = parts & WHEN_ISO;

	*w = (struct json_when){ .infinite = parts & WHEN_DATE ? infinity_of(p, n) : 0 };
	if (w->infinite)
		return true;
	if (parts & WHEN_DATE && !day(&s, w, iso))
		return false;
	if ((parts & WHEN_DATE) && (parts & WHEN_TIME) && !next_is(&s, iso ? 'T' : ' '))
		return false;
	if ((parts & WHEN_TIME && !clock_time(&s, w)) || (parts & WHEN_ZONE && !(iso ? iso_zone(&s, w) : zone(&s, w))))
		return false;
	if (parts & WHEN_DATE && !iso && s.end - s.p == 3 && !memcmp(s.p, " BC", 3)) {
		w->year = 1 - w->year;
		s.p = s.end;
	}
	return s.p == s.end;
}

/* Gregorian, counted from 0000-03-01 in eras of 400 years. */
int64_t json_when_days(const struct json_when *w)
{
	int64_t y = w->year - (w->month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400, m = (int64_t)w->month + (w->month > 2 ? -3 : 9);
	int64_t doy = (153 * m + 2) / 5 + w->day - 1, doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return era * 146097 + doe - 719468;
}

void json_when_from_days(struct json_when *w, int64_t days)
{
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097, yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

	w->day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
	w->month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
	w->year = yoe + era * 400 + (w->month <= 2);
}

/* ---- writing ---- */

void json_put_digits(struct buf *out, uint64_t v, int width)
{
	char d[24];
	int at = sizeof d;

	do
		d[--at] = (char)('0' + v % 10);
	while ((v /= 10));
	while ((int)sizeof d - at < width)
		d[--at] = '0';
	buf_append(out, d + at, sizeof d - (size_t)at);
}

static char *put_two(char *o, unsigned v)
{
	o[0] = (char)('0' + v / 10);
	o[1] = (char)('0' + v % 10);
	return o + 2;
}

static void put_plain_date(struct buf *out, const struct json_when *w)
{
	char rest[6], *o = rest;

	json_put_digits(out, (uint64_t)(w->year < 0 ? -w->year : w->year), 4);
	*o++ = '-';
	o = put_two(o, w->month);
	*o++ = '-';
	put_two(o, w->day);
	buf_append(out, rest, sizeof rest);
}

void json_put_date(struct buf *out, const struct json_when *w)
{
	if (w->year > 9999 || w->year < 0)
		buf_byte(out, w->year < 0 ? '-' : '+');
	put_plain_date(out, w);
}

void json_put_hms(struct buf *out, const struct json_when *w)
{
	char text[8], *o = text;

	o = put_two(o, w->hour);
	*o++ = ':';
	o = put_two(o, w->minute);
	*o++ = ':';
	put_two(o, w->second);
	buf_append(out, text, sizeof text);
}

static void put_fraction(struct buf *out, unsigned us)
{
	int width = 6;

	if (!us)
		return;
	for (; us % 10 == 0; us /= 10)
		width--;
	buf_byte(out, '.');
	json_put_digits(out, us, width);
}

static void put_zone(struct buf *out, int east)
{
	unsigned s = (unsigned)(east < 0 ? -east : east);

	if (!s) {
		buf_byte(out, 'Z');
		return;
	}
	buf_byte(out, east < 0 ? '-' : '+');
	json_put_digits(out, s / 3600, 2);
	buf_byte(out, ':');
	json_put_digits(out, s / 60 % 60, 2);
	if (s % 60) {
		buf_byte(out, ':');
		json_put_digits(out, s % 60, 2);
	}
}

/* ---- the usual: 2026-01-31 10:00:00.123+00, copied ---- */

#define WORD(s) ((uint64_t)(s)[0] | (uint64_t)(s)[1] << 8 | (uint64_t)(s)[2] << 16 | (uint64_t)(s)[3] << 24 | (uint64_t)(s)[4] << 32 | \
	(uint64_t)(s)[5] << 40 | (uint64_t)(s)[6] << 48 | (uint64_t)(s)[7] << 56)

/* Are the eight bytes at p digits where the pattern has 0, and its characters elsewhere? limits has 0x76 for a digit and 0x7f for another: added to the
 * difference, it must not reach 0x80. */
static inline bool is_like(const char *p, uint64_t pattern, uint64_t limits)
{
	uint64_t w;
	memcpy(&w, p, 8);
	w = le64toh(w) ^ pattern;
	return !(((w + limits) | w) & 0x8080808080808080u);
}

static bool put_usual(struct json *j, const char *p, size_t n, bool has_zone)
{
	enum { WHOLE = 19, MOST = 19 + 7 + 3 };

	if (n < WHOLE || n > MOST || !is_like(p, WORD("0000-00-"), WORD("vvvv\x7fvv\x7f")) || !is_like(p + 8, WORD("00 00:00"), WORD("vv\x7fvv\x7fvv")) ||
		!is_like(p + 11, WORD("00:00:00"), WORD("vv\x7fvv\x7fvv")) || !memcmp(p, "0000", 4))
		return false;
	size_t end = WHOLE;
	if (end < n && p[end] == '.')
		for (end++; end < n && p[end] >= '0' && p[end] <= '9';)
			end++;
	if (p[end - 1] == '.' || (has_zone ? n - end != 3 || memcmp(p + end, "+00", 3) != 0 : n != end) || buf_reserve(&j->out, MOST + 3))
		return false;
	char *o = j->out.data + j->out.len;
	*o++ = '"';
	memcpy(o, p, end);
	o[10] = 'T';
	o += end;
	*o = 'Z';
	o += has_zone;
	*o++ = '"';
	j->out.len = (size_t)(o - j->out.data);
	return true;
}

/* ---- all the rest ---- */

static const char *write_when(struct json *j, const char *p, size_t n, unsigned parts)
{
	struct json_when w;

	if (!json_when_parse(p, n, parts, &w))
		return not_a_date;
	buf_byte(&j->out, '"');
	if (w.infinite) {
		json_put(j, p, n);
	} else {
		if (parts & WHEN_DATE)
			json_put_date(&j->out, &w);
		if ((parts & (WHEN_DATE | WHEN_TIME)) == (WHEN_DATE | WHEN_TIME))
			buf_byte(&j->out, 'T');
		if (parts & WHEN_TIME) {
			json_put_hms(&j->out, &w);
			put_fraction(&j->out, w.us);
		}
		if (parts & WHEN_ZONE)
			put_zone(&j->out, w.zone);
	}
	buf_byte(&j->out, '"');
	return NULL;
}

const char *json_write_date(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return write_when(j, p, n, WHEN_DATE);
}

const char *json_write_time(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return write_when(j, p, n, WHEN_TIME);
}

const char *json_write_timetz(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return write_when(j, p, n, WHEN_TIME | WHEN_ZONE);
}

const char *json_write_timestamp(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return put_usual(j, p, n, false) ? NULL : write_when(j, p, n, WHEN_DATE | WHEN_TIME);
}

const char *json_write_timestamptz(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	return put_usual(j, p, n, true) ? NULL : write_when(j, p, n, WHEN_DATE | WHEN_TIME | WHEN_ZONE);
}

/* ---- intervals: "1 year 2 mons -3 days +04:05:06.7" ---- */

static bool interval_unit(struct scan *s, int64_t v, struct json_interval *iv)
{
	static const struct {
		const char *word;
		size_t n;
		int64_t months, days;
	} units[] = { { "year", 4, 12, 0 }, { "mon", 3, 1, 0 }, { "day", 3, 0, 1 } };

	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if ((size_t)(s->end - s->p) < units[i].n || memcmp(s->p, units[i].word, units[i].n) != 0)
			continue;
		s->p += units[i].n;
		next_is(s, 's');
		iv->months += v * units[i].months;
		iv->days += v * units[i].days;
		return true;
	}
	return false;
}

/* hours is what stands before the colon. */
static bool interval_time(struct scan *s, int64_t hours, bool minus, struct json_interval *iv)
{
	unsigned m, sec, us;
	int64_t v, sign = minus ? -1 : 1;

	if (!two(s, 0, 59, &m) || !next_is(s, ':') || !two(s, 0, 60, &sec) || !micros(s, &us))
		return false;
	if (__builtin_mul_overflow(hours, sign * 3600000000, &v))
		return false;
	return !__builtin_add_overflow(v, sign * ((int64_t)m * 60000000 + (int64_t)sec * 1000000 + us), &iv->us);
}

static bool is_int32(int64_t v) { return v >= INT32_MIN && v <= INT32_MAX; }

bool json_interval_parse(const char *p, size_t n, struct json_interval *iv)
{
	struct scan s = { p, p + n };

	*iv = (struct json_interval){ .infinite = infinity_of(p, n) };
	if (iv->infinite)
		return true;
	while (s.p < s.end) {
		int64_t v;
		bool minus = next_is(&s, '-');
		if (!minus)
			next_is(&s, '+');
		if (!number(&s, 1, 12, &v))
			return false;
		if (next_is(&s, ':') ? !interval_time(&s, v, minus, iv) : !next_is(&s, ' ') || !interval_unit(&s, minus ? -v : v, iv))
			return false;
		if (s.p < s.end && !next_is(&s, ' '))
			return false;
	}
	return n > 0 && is_int32(iv->months) && is_int32(iv->days);
}

static void put_part(struct buf *out, int64_t v, char unit)
{
	if (!v)
		return;
	buf_int(out, v);
	buf_byte(out, unit);
}

static void put_duration(struct buf *out, const struct json_interval *iv)
{
	uint64_t us = iv->us < 0 ? -(uint64_t)iv->us : (uint64_t)iv->us;
	int64_t sign = iv->us < 0 ? -1 : 1;

	buf_byte(out, 'P');
	put_part(out, iv->months / 12, 'Y');
	put_part(out, iv->months % 12, 'M');
	put_part(out, iv->days, 'D');
	if (!us && (iv->months || iv->days))
		return;
	buf_byte(out, 'T');
	put_part(out, sign * (int64_t)(us / 3600000000), 'H');
	put_part(out, sign * (int64_t)(us / 60000000 % 60), 'M');
	us %= 60000000;
	if (!us && iv->us)
		return;
	if (us && sign < 0)
		buf_byte(out, '-');
	buf_uint(out, us / 1000000);
	put_fraction(out, (unsigned)(us % 1000000));
	buf_byte(out, 'S');
}

const char *json_write_interval(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_interval iv;

	(void)c;
	if (!json_interval_parse(p, n, &iv))
		return "is no interval in the style of postgres";
	buf_byte(&j->out, '"');
	if (iv.infinite)
		json_put(j, p, n);
	else
		put_duration(&j->out, &iv);
	buf_byte(&j->out, '"');
	return NULL;
}

/* ---- reading what was written ---- */

/* put_usual, the other way: between its quotes. */
static bool take_usual(struct json_in *r, const char *p, size_t n, bool has_zone)
{
	enum { WHOLE = 19, MOST = 19 + 7 };
	size_t end = n - has_zone, at = WHOLE;

	if (n < WHOLE || end < WHOLE || end > MOST || (has_zone && p[end] != 'Z') || !memcmp(p, "0000", 4))
		return false;
	if (!is_like(p, WORD("0000-00-"), WORD("vvvv\x7fvv\x7f")) || !is_like(p + 8, WORD("00T00:00"), WORD("vv\x7fvv\x7fvv")) ||
		!is_like(p + 11, WORD("00:00:00"), WORD("vv\x7fvv\x7fvv")))
		return false;
	if (at < end && p[at] == '.')
		for (at++; at < end && p[at] >= '0' && p[at] <= '9';)
			at++;
	if (at != end || p[at - 1] == '.' || buf_reserve(r->out, MOST + 3))
		return false;
	char *o = r->out->data + r->out->len;
	memcpy(o, p, end);
	o[10] = ' ';
	if (has_zone)
		memcpy(o + end, "+00", 3);
	r->out->len += end + (has_zone ? 3 : 0);
	return true;
}

static void put_short_zone(struct buf *out, int east)
{
	unsigned s = (unsigned)(east < 0 ? -east : east);

	buf_byte(out, east < 0 ? '-' : '+');
	json_put_digits(out, s / 3600, 2);
	if (s % 3600) {
		buf_byte(out, ':');
		json_put_digits(out, s / 60 % 60, 2);
	}
	if (s % 60) {
		buf_byte(out, ':');
		json_put_digits(out, s % 60, 2);
	}
}

static void put_neutral(struct buf *out, const struct json_when *w, unsigned parts)
{
	struct json_when positive = *w;

	positive.year = w->year > 0 ? w->year : 1 - w->year;
	if (parts & WHEN_DATE)
		put_plain_date(out, &positive);
	if ((parts & (WHEN_DATE | WHEN_TIME)) == (WHEN_DATE | WHEN_TIME))
		buf_byte(out, ' ');
	if (parts & WHEN_TIME) {
		json_put_hms(out, w);
		put_fraction(out, w->us);
	}
	if (parts & WHEN_ZONE)
		put_short_zone(out, w->zone);
	if (parts & WHEN_DATE && w->year <= 0)
		buf_append(out, " BC", 3);
}

static const char *read_when(struct json_in *r, unsigned parts)
{
	struct json_when w;
	const char *p, *why;
	size_t n;

	if ((why = json_take_plain(r, &p, &n)))
		return why;
	if ((parts & (WHEN_DATE | WHEN_TIME)) == (WHEN_DATE | WHEN_TIME) && take_usual(r, p, n, parts & WHEN_ZONE))
		return NULL;
	if (!json_when_parse(p, n, parts | WHEN_ISO, &w))
		return not_a_date;
	if (w.infinite)
		buf_append(r->out, p, n);
	else
		put_neutral(r->out, &w, parts);
	return NULL;
}

const char *json_read_date(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return read_when(r, WHEN_DATE);
}

const char *json_read_time(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return read_when(r, WHEN_TIME);
}

const char *json_read_timetz(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return read_when(r, WHEN_TIME | WHEN_ZONE);
}

const char *json_read_timestamp(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return read_when(r, WHEN_DATE | WHEN_TIME);
}

const char *json_read_timestamptz(struct json_in *r, const struct json_column *c)
{
	(void)c;
	return read_when(r, WHEN_DATE | WHEN_TIME | WHEN_ZONE);
}

/* A part of a duration with this unit, if it is next: v is multiplied into *sum. */
static bool duration_part(struct scan *s, char unit, int64_t factor, int64_t *sum, bool *any)
{
	struct scan ahead = *s;
	int64_t v;
	bool minus = next_is(&ahead, '-');

	if (!number(&ahead, 1, 10, &v) || !next_is(&ahead, unit))
		return true;
	*s = ahead;
	*any = true;
	return !__builtin_mul_overflow(minus ? -v : v, factor, &v) && !__builtin_add_overflow(*sum, v, sum);
}

static bool duration_seconds(struct scan *s, struct json_interval *iv, bool *any)
{
	unsigned us;
	int64_t v;
	bool minus = next_is(s, '-');

	if (s->p == s->end && !minus)
		return true;
	if (!number(s, 1, 2, &v) || !micros(s, &us) || !next_is(s, 'S'))
		return false;
	v = v * 1000000 + us;
	*any = true;
	return !__builtin_add_overflow(iv->us, minus ? -v : v, &iv->us);
}

/* P1Y-2M3DT4H5M6.7S */
static bool duration_parse(const char *p, size_t n, struct json_interval *iv)
{
	struct scan s = { p, p + n };
	bool any = false, any_time = false;

	*iv = (struct json_interval){ .infinite = infinity_of(p, n) };
	if (iv->infinite)
		return true;
	if (!next_is(&s, 'P') || !duration_part(&s, 'Y', 12, &iv->months, &any) || !duration_part(&s, 'M', 1, &iv->months, &any) ||
		!duration_part(&s, 'D', 1, &iv->days, &any) || !is_int32(iv->months) || !is_int32(iv->days))
		return false;
	if (s.p == s.end)
		return any;
	return next_is(&s, 'T') && duration_part(&s, 'H', 3600000000, &iv->us, &any_time) && duration_part(&s, 'M', 60000000, &iv->us, &any_time) &&
		duration_seconds(&s, iv, &any_time) && any_time && s.p == s.end;
}

/* A plus stands only behind a part that is negative. */
static void put_unit(struct buf *out, int64_t v, const char *unit, size_t start, bool *negative)
{
	if (!v)
		return;
	if (out->len > start)
		buf_byte(out, ' ');
	if (*negative && v > 0)
		buf_byte(out, '+');
	buf_int(out, v);
	buf_str(out, unit);
	if (v != 1)
		buf_byte(out, 's');
	*negative = v < 0;
}

/* Not by way of the binary form: there, the most of everything is infinity. */
static void put_interval(struct buf *out, const struct json_interval *iv)
{
	uint64_t us = iv->us < 0 ? -(uint64_t)iv->us : (uint64_t)iv->us;
	size_t start = out->len;
	bool negative = false;

	put_unit(out, iv->months / 12, " year", start, &negative);
	put_unit(out, iv->months % 12, " mon", start, &negative);
	put_unit(out, iv->days, " day", start, &negative);
	if (out->len > start && !us)
		return;
	if (out->len > start)
		buf_byte(out, ' ');
	if (iv->us < 0 || negative)
		buf_byte(out, iv->us < 0 ? '-' : '+');
	json_put_digits(out, us / 3600000000, 2);
	buf_byte(out, ':');
	json_put_digits(out, us / 60000000 % 60, 2);
	buf_byte(out, ':');
	json_put_digits(out, us / 1000000 % 60, 2);
	put_fraction(out, (unsigned)(us % 1000000));
}

const char *json_read_interval(struct json_in *r, const struct json_column *c)
{
	static const char bad[] = "is no duration";
	struct json_interval iv;
	const char *p, *why;
	size_t n;

	(void)c;
	if ((why = json_take_plain(r, &p, &n)))
		return why;
	if (!duration_parse(p, n, &iv))
		return bad;
	if (iv.infinite)
		buf_append(r->out, p, n);
	else
		put_interval(r->out, &iv);
	return NULL;
}
