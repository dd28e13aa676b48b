/* json_debezium: values as Debezium's PostgreSQL connector has them by default (decimal.handling.mode precise, time.precision.mode adaptive, interval
 * numeric, hstore json, binary bytes), in JSON without schemas.
 *
 *   numeric(p,s)       base64 of the unscaled value             numeric            {"scale":n,"value":base64}, zeros at the end left out
 *   money              as numeric(,2)                           date               days since 1970
 *   time, timestamp    ms up to 3 digits of precision, else us  timestamptz        UTC text, as many digits as the column's precision
 *   timetz             UTC text                                 interval           us, a month being 30.4375 days
 *   bit(1)             boolean                                  other bits         base64 of the bytes, the lowest first, without zeros at the end
 *   point              {"x","y","wkb","srid"}                   hstore             a string that holds the object
 *
 * Where Debezium fails or leaves a column out (NaN in numerics, composites, unknown types), the text stands: nothing is lost. */
#include "json_int.h"
#include <limits.h>
#include <stdlib.h>

static const char unavailable[] = "__debezium_unavailable_value";
static const char out_of_range[] = "is out of the range that Debezium has for it";
static const char not_a_date[] = "is no date or time in ISO form";

#define US_PER_SECOND INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_SECOND)

static void put_quoted_base64(struct json *j)
{
	buf_byte(&j->out, '"');
	json_put_base64(&j->out, j->bytes.data, j->bytes.len);
	buf_byte(&j->out, '"');
}

/* ---- decimals ---- */

static const char *write_numeric(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	bool is_bound = c->typmod >= 4;
	int scale = is_bound ? (int)((((uint32_t)c->typmod - 4) & 0x7ff) ^ 1024) - 1024 : INT_MIN;

	if (n && (p[n - 1] == 'N' || p[n - 1] == 'y'))
		return json_write_numeric(j, c, p, n);
	buf_reset(&j->bytes);
	if (!json_unscaled(p, n, &scale, &j->bytes))
		return "is no number of its column's scale";
	if (is_bound) {
		put_quoted_base64(j);
		return NULL;
	}
	JSON_PUT(j, "{\"scale\":");
	buf_int(&j->out, scale);
	JSON_PUT(j, ",\"value\":");
	put_quoted_base64(j);
	buf_byte(&j->out, '}');
	return NULL;
}

/* In the words of the server's locale, as -$1,234.56: what counts is the digits, and whether two of them follow the last mark. */
static const char *write_money(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	char plain[64];
	size_t len = 0, behind = 0;
	bool negative = false, marked = false;
	int scale = 0;

	(void)c;
	plain[len++] = '-';
	for (size_t i = 0; i < n && len + 3 < sizeof plain; i++) {
		negative |= p[i] == '-' || p[i] == '(';
		if (p[i] == '.' || p[i] == ',') {
			marked = true;
			behind = 0;
		} else if (p[i] >= '0' && p[i] <= '9') {
			behind++;
			if (len > 1 || p[i] != '0')
				plain[len++] = p[i];
		}
	}
	if (!behind)
		return "is no amount of money";
	if (!marked || behind != 2) {
		plain[len++] = '0';
		plain[len++] = '0';
	}
	if (len == 1)
		plain[len++] = '0';
	else if (len == 3 && plain[1] == '0')
		len = 2;
	buf_reset(&j->bytes);
	if (!json_unscaled(plain + !negative, len - !negative, &scale, &j->bytes))
		return "is no amount of money";
	put_quoted_base64(j);
	return NULL;
}

/* ---- times ---- */

static int64_t us_of_day(const struct json_when *w)
{
	return ((int64_t)w->hour * 3600 + w->minute * 60 + w->second) * US_PER_SECOND + w->us;
}

static bool in_ms(const struct json_column *c) { return c->typmod >= 0 && c->typmod <= 3; }

static int64_t to_ms(int64_t us) { return us / 1000 - (us % 1000 < 0); }

/* Java's LocalDate of the driver's infinities, which it has from an overflow. */
static int64_t infinite_days(int sign)
{
	struct json_when w = { .year = -5877611, .month = 6, .day = sign > 0 ? 21 : 22 };
	return json_when_days(&w);
}

static const char *write_date(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_when w;

	(void)c;
	if (!json_when_parse(p, n, WHEN_DATE, &w))
		return not_a_date;
	buf_int(&j->out, w.infinite ? infinite_days(w.infinite) : json_when_days(&w));
	return NULL;
}

static const char *write_time(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_when w;

	if (!json_when_parse(p, n, WHEN_TIME, &w))
		return not_a_date;
	buf_int(&j->out, in_ms(c) ? to_ms(us_of_day(&w)) : us_of_day(&w));
	return NULL;
}

static const char *write_timestamp(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_when w;
	int64_t us;

	if (!json_when_parse(p, n, WHEN_DATE | WHEN_TIME, &w))
		return not_a_date;
	if (w.infinite)
		us = w.infinite > 0 ? INT64_C(9223372036825200000) : INT64_C(-9223372036832400000);
	else if (__builtin_mul_overflow(json_when_days(&w), US_PER_DAY, &us) || __builtin_add_overflow(us, us_of_day(&w), &us))
		return out_of_range;
	buf_int(&j->out, in_ms(c) ? to_ms(us) : us);
	return NULL;
}

static void set_time(struct json_when *w, int64_t us)
{
	w->hour = (unsigned)(us / (3600 * US_PER_SECOND));
	w->minute = (unsigned)(us / (60 * US_PER_SECOND) % 60);
	w->second = (unsigned)(us / US_PER_SECOND % 60);
	w->us = (unsigned)(us % US_PER_SECOND);
}

/* width < 0: as many digits as there are */
static void put_fraction(struct buf *out, unsigned us, int width)
{
	int digits = 6;

	if (width < 0 && !us)
		return;
	for (; width < 0 ? us % 10 == 0 : digits > width; digits--)
		us /= 10;
	buf_byte(out, '.');
	json_put_digits(out, us, digits);
}

static const char *write_timestamptz(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_when w;
	int width = c->typmod < 0 || c->typmod > 6 ? 6 : c->typmod;

	if (!json_when_parse(p, n, WHEN_DATE | WHEN_TIME | WHEN_ZONE, &w))
		return not_a_date;
	buf_byte(&j->out, '"');
	if (w.infinite) {
		json_put(j, p, n);
	} else {
		int64_t days = json_when_days(&w), us = us_of_day(&w) - w.zone * US_PER_SECOND;
		int64_t over = us / US_PER_DAY - (us % US_PER_DAY < 0);
		json_when_from_days(&w, days + over);
		set_time(&w, us - over * US_PER_DAY);
		json_put_date(&j->out, &w);
		buf_byte(&j->out, 'T');
		json_put_hms(&j->out, &w);
		put_fraction(&j->out, w.us, width ? width : -1);
		buf_byte(&j->out, 'Z');
	}
	buf_byte(&j->out, '"');
	return NULL;
}

static const char *write_timetz(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_when w;

	(void)c;
	if (!json_when_parse(p, n, WHEN_TIME | WHEN_ZONE, &w))
		return not_a_date;
	int64_t us = us_of_day(&w) - w.zone * US_PER_SECOND;
	if (us < 0 || us > US_PER_DAY || (us == US_PER_DAY && w.zone))
		us = (us % US_PER_DAY + US_PER_DAY) % US_PER_DAY;
	set_time(&w, us);
	buf_byte(&j->out, '"');
	json_put_hms(&j->out, &w);
	put_fraction(&j->out, w.us, -1);
	JSON_PUT(j, "Z\"");
	return NULL;
}

static const char *write_interval(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct json_interval iv;

	(void)c;
	if (!json_interval_parse(p, n, &iv))
		return "is no interval in the style of postgres";
	/* 365.25 / 12 days are whole seconds: no rounding. Java's conversion stops at the ends of its range. */
	__int128 us = (__int128)iv.months * 2629800 * US_PER_SECOND + (__int128)iv.days * US_PER_DAY + iv.us;
	if (iv.infinite)
		us = iv.infinite > 0 ? INT64_MAX : INT64_MIN;
	buf_int(&j->out, us > INT64_MAX ? INT64_MAX : us < INT64_MIN ? INT64_MIN : (int64_t)us);
	return NULL;
}

/* ---- bits, points, hstore ---- */

static const char *write_bits(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	unsigned char byte = 0;
	size_t used = 0;

	for (size_t i = 0; i < n; i++)
		if (p[i] != '0' && p[i] != '1')
			return "is no string of bits";
	if (c->typmod == 1 && n == 1) {
		if (*p == '1')
			JSON_PUT(j, "true");
		else
			JSON_PUT(j, "false");
		return NULL;
	}
	buf_reset(&j->bytes);
	for (size_t i = 0; i < n; i++) {
		byte = (unsigned char)(byte | (p[n - 1 - i] - '0') << i % 8);
		if (i % 8 < 7 && i + 1 < n)
			continue;
		buf_byte(&j->bytes, (char)byte);
		if (byte)
			used = j->bytes.len;
		byte = 0;
	}
	j->bytes.len = used;
	put_quoted_base64(j);
	return NULL;
}

/* The text of a coordinate as JSON, and its bytes, the lowest first, behind j->bytes. */
static const char *put_coordinate(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	char copy[64];
	double v;
	uint64_t bits;

	if (n >= sizeof copy)
		return "is no point";
	memcpy(copy, p, n);
	copy[n] = 0;
	v = strtod(copy, NULL);
	memcpy(&bits, &v, sizeof bits);
	bits = htole64(bits);
	buf_append(&j->bytes, &bits, sizeof bits);
	return json_write_float(j, c, p, n);
}

static const char *write_point(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	const char *comma = memchr(p, ',', n), *why;

	if (!comma || n < 5 || p[0] != '(' || p[n - 1] != ')')
		return "is no point";
	buf_reset(&j->bytes);
	buf_append(&j->bytes, "\1\1\0\0\0", 5);
	JSON_PUT(j, "{\"x\":");
	if ((why = put_coordinate(j, c, p + 1, (size_t)(comma - p) - 1)))
		return why;
	JSON_PUT(j, ",\"y\":");
	if ((why = put_coordinate(j, c, comma + 1, (size_t)(p + n - 1 - comma) - 1)))
		return why;
	JSON_PUT(j, ",\"wkb\":");
	put_quoted_base64(j);
	JSON_PUT(j, ",\"srid\":null}");
	return NULL;
}

static const char *write_hstore(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	size_t start = j->out.len;
	const char *why = json_write_hstore(j, c, p, n);

	if (why || !buf_ok(&j->out))
		return why;
	buf_reset(&j->bytes);
	buf_append(&j->bytes, j->out.data + start, j->out.len - start);
	j->out.len = start;
	return json_put_string(j, j->bytes.data, j->bytes.len);
}

json_writer *json_debezium_writer(enum logical_type type)
{
	static json_writer *const writers[TYPE_COUNT] = {
		[TYPE_NUMERIC] = write_numeric, [TYPE_MONEY] = write_money, [TYPE_DATE] = write_date, [TYPE_TIME] = write_time,
		[TYPE_TIMETZ] = write_timetz, [TYPE_TIMESTAMP] = write_timestamp, [TYPE_TIMESTAMPTZ] = write_timestamptz,
		[TYPE_INTERVAL] = write_interval, [TYPE_BIT] = write_bits, [TYPE_VARBIT] = write_bits, [TYPE_POINT] = write_point,
		[TYPE_HSTORE] = write_hstore,
	};
	return (unsigned)type < TYPE_COUNT ? writers[type] : NULL;
}

void json_debezium_unavailable(struct json *j, const struct json_column *c)
{
	if (c->type == TYPE_BYTES) {
		buf_byte(&j->out, '"');
		json_put_base64(&j->out, unavailable, sizeof unavailable - 1);
		buf_byte(&j->out, '"');
		return;
	}
	buf_printf(&j->out, c->type == TYPE_ARRAY ? "[\"%s\"]" : "\"%s\"", unavailable);
}
