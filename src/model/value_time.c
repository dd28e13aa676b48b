/* value_time: dates, times and intervals in PostgreSQL's ISO and `postgres` styles. Days count from 2000-01-01, times are microseconds. */
#include "model/value_internal.h"

#define US_PER_SEC INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_SEC)

/* Year (0 = 1 BC), month and day of a day number: Gregorian, proleptic. Counts from 0000-03-01 in eras of 400 years. */
static void civil(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t z = days + 730425; /* 2000-01-01 is day 730,425 behind 0000-03-01 */
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	unsigned doe = (unsigned)(z - era * 146097);
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (5 * doy + 2) / 153;

	*day = doy - (153 * mp + 2) / 5 + 1;
	*month = mp < 10 ? mp + 3 : mp - 9;
	*year = (int64_t)yoe + era * 400 + (*month <= 2);
}

/* Returns whether " BC" has to follow at the end. */
static bool put_date(struct buf *out, int64_t days)
{
	int64_t year;
	unsigned month, day;

	civil(days, &year, &month, &day);
	text_padded(out, (uint64_t)(year > 0 ? year : 1 - year), 4);
	buf_byte(out, '-');
	text_padded(out, month, 2);
	buf_byte(out, '-');
	text_padded(out, day, 2);
	return year <= 0;
}

static void put_fraction(struct buf *out, uint32_t us)
{
	int digits = 6;

	if (!us)
		return;
	for (; us % 10 == 0; us /= 10)
		digits--;
	buf_byte(out, '.');
	text_padded(out, us, digits);
}

/* Time of day, or of an interval, whose hours may be many. */
static void put_time(struct buf *out, uint64_t us)
{
	uint64_t sec = us / 1000000;

	text_padded(out, sec / 3600, 2);
	buf_byte(out, ':');
	text_padded(out, sec / 60 % 60, 2);
	buf_byte(out, ':');
	text_padded(out, sec % 60, 2);
	put_fraction(out, (uint32_t)(us % 1000000));
}

bool text_date(struct cursor *c, struct buf *out)
{
	int32_t days = (int32_t)cursor_be32(c);

	if (days == INT32_MAX || days == INT32_MIN)
		buf_str(out, days < 0 ? "-infinity" : "infinity");
	else if (put_date(out, days))
		buf_str(out, " BC");
	return true;
}

bool text_time(struct cursor *c, struct buf *out)
{
	int64_t us = (int64_t)cursor_be64(c);

	if (us < 0 || us > US_PER_DAY)
		return false;
	put_time(out, (uint64_t)us);
	return true;
}

/* The zone is sent as seconds west of Greenwich and shown as the offset east of it. */
bool text_timetz(struct cursor *c, struct buf *out)
{
	bool ok = text_time(c, out);
	int64_t west = (int32_t)cursor_be32(c);
	uint64_t off = (uint64_t)(west < 0 ? -west : west);

	if (!ok || off >= 86400)
		return false;
	buf_byte(out, west <= 0 ? '+' : '-');
	text_padded(out, off / 3600, 2);
	if (off % 3600) {
		buf_byte(out, ':');
		text_padded(out, off / 60 % 60, 2);
	}
	if (off % 60) {
		buf_byte(out, ':');
		text_padded(out, off % 60, 2);
	}
	return true;
}

static bool put_timestamp(struct cursor *c, struct buf *out, const char *zone)
{
	int64_t us = (int64_t)cursor_be64(c);

	if (us == INT64_MAX || us == INT64_MIN) {
		buf_str(out, us < 0 ? "-infinity" : "infinity");
		return true;
	}
	int64_t days = us / US_PER_DAY, rest = us % US_PER_DAY;
	if (rest < 0) {
		days--;
		rest += US_PER_DAY;
	}
	bool bc = put_date(out, days);
	buf_byte(out, ' ');
	put_time(out, (uint64_t)rest);
	buf_str(out, zone);
	if (bc)
		buf_str(out, " BC");
	return true;
}

bool text_timestamp(struct cursor *c, struct buf *out)
{
	return put_timestamp(c, out, "");
}

bool text_timestamptz(struct cursor *c, struct buf *out)
{
	return put_timestamp(c, out, "+00");
}

/* What was put of an interval so far: a plus sign stands only behind a negative part. */
struct parts {
	bool any, negative;
};

static void put_part(struct buf *out, struct parts *p, int64_t v, const char *unit)
{
	if (!v)
		return;
	if (p->any)
		buf_byte(out, ' ');
	if (p->negative && v > 0)
		buf_byte(out, '+');
	buf_int(out, v);
	buf_str(out, unit);
	if (v != 1)
		buf_byte(out, 's');
	p->any = true;
	p->negative = v < 0;
}

bool text_interval(struct cursor *c, struct buf *out)
{
	int64_t us = (int64_t)cursor_be64(c);
	int32_t days = (int32_t)cursor_be32(c), months = (int32_t)cursor_be32(c);
	struct parts p = {0};

	if (us == INT64_MAX && days == INT32_MAX && months == INT32_MAX) {
		buf_str(out, "infinity");
		return true;
	}
	if (us == INT64_MIN && days == INT32_MIN && months == INT32_MIN) {
		buf_str(out, "-infinity");
		return true;
	}
	put_part(out, &p, months / 12, " year");
	put_part(out, &p, months % 12, " mon");
	put_part(out, &p, days, " day");
	if (p.any && !us)
		return true;
	if (p.any)
		buf_byte(out, ' ');
	if (us < 0)
		buf_byte(out, '-');
	else if (p.negative)
		buf_byte(out, '+');
	put_time(out, us < 0 ? -(uint64_t)us : (uint64_t)us);
	return true;
}
