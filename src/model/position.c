/* position: compare, print and read positions. Text "pg:SERVER:LSN:EVENT:FLUSH", LSNs as PostgreSQL writes them. */
#include "model/position.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool position_is_comparable(const struct position *a, const struct position *b)
{
	return !a->kind || !b->kind || (a->kind == b->kind && a->server == b->server);
}

int position_compare(const struct position *a, const struct position *b)
{
	assert(position_is_comparable(a, b));
	if (!a->kind || !b->kind)
		return (a->kind != 0) - (b->kind != 0);
	if (a->lsn != b->lsn)
		return a->lsn < b->lsn ? -1 : 1;
	return (a->event > b->event) - (a->event < b->event);
}

bool position_is_past(const struct position *a, const struct position *b)
{
	int order = position_compare(a, b);
	return order > 0 || (order == 0 && position_is_inside(a) && !position_is_inside(b));
}

const char *lsn_format(uint64_t lsn, char out[24])
{
	snprintf(out, 24, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32), (uint32_t)lsn);
	return out;
}

/* Up to 8 hexadecimal digits, ended by `end`; NULL when it is anything else. */
static const char *hex32(const char *s, char end, uint32_t *out)
{
	uint32_t v = 0;
	int n = 0;

	for (; n < 8; n++, s++) {
		unsigned d;
		if (*s >= '0' && *s <= '9')
			d = (unsigned)(*s - '0');
		else if (*s >= 'A' && *s <= 'F')
			d = (unsigned)(*s - 'A') + 10;
		else if (*s >= 'a' && *s <= 'f')
			d = (unsigned)(*s - 'a') + 10;
		else
			break;
		v = v << 4 | d;
	}
	*out = v;
	return n && *s == end ? s + 1 : NULL;
}

static const char *lsn_read(const char *s, char end, uint64_t *out)
{
	uint32_t hi, lo;

	if (!(s = hex32(s, '/', &hi)) || !(s = hex32(s, end, &lo)))
		return NULL;
	*out = (uint64_t)hi << 32 | lo;
	return s;
}

int lsn_parse(const char *text, uint64_t *out)
{
	uint64_t v;

	if (!lsn_read(text, 0, &v))
		return -1;
	*out = v;
	return 0;
}

const char *position_format(const struct position *p, char out[POSITION_TEXT_MAX])
{
	char lsn[24], flush[24], event[24] = "*";

	if (!p->kind)
		return memcpy(out, "none", 5);
	if (p->event != POSITION_WHOLE)
		snprintf(event, sizeof event, "%" PRIu64, p->event);
	snprintf(out, POSITION_TEXT_MAX, "pg:%" PRIu64 ":%s:%s:%s", p->server, lsn_format(p->lsn, lsn), event,
		lsn_format(p->flush, flush));
	return out;
}

/* Decimal digits, ended by `end`; refuses what does not fit 64 bits. */
static const char *dec64(const char *s, char end, uint64_t *out)
{
	uint64_t v = 0;
	const char *p = s;

	for (; *p >= '0' && *p <= '9'; p++) {
		unsigned d = (unsigned)(*p - '0');
		if (v > (UINT64_MAX - d) / 10)
			return NULL;
		v = v * 10 + d;
	}
	*out = v;
	return p > s && *p == end ? p + 1 : NULL;
}

static bool parse(const char *s, struct position *p)
{
	if (strncmp(s, "pg:", 3) != 0 || !(s = dec64(s + 3, ':', &p->server)) || !(s = lsn_read(s, ':', &p->lsn)))
		return false;
	if (s[0] == '*' && s[1] == ':') {
		p->event = POSITION_WHOLE;
		s += 2;
	} else if (!(s = dec64(s, ':', &p->event)) || p->event == POSITION_WHOLE) {
		return false;
	}
	return lsn_read(s, 0, &p->flush) != NULL;
}

int position_parse(const char *text, struct position *out, struct err *e)
{
	struct position p = {.kind = POSITION_LSN};

	if (strcmp(text, "none") == 0)
		p.kind = POSITION_NONE;
	else if (!parse(text, &p))
		return err_set(e, DMSR_EINVAL, "position.malformed",
			"\"%.128s\" is not a position: pg:SERVER:LSN:EVENT:FLUSH or none", text);
	*out = p;
	return 0;
}
