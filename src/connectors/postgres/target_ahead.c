/* target_ahead: positions with transactions beyond them, merged and written. What others wrote is bounded by what the server lets through in a text. */
#include "target_ahead.h"
#include <assert.h>
#include <stdlib.h>

void ahead_init(struct ahead *a) { *a = (struct ahead){ 0 }; }

void ahead_fini(struct ahead *a)
{
	free(a->lsns);
	ahead_init(a);
}

static void push(struct ahead *a, uint64_t lsn)
{
	if (a->n == a->cap) {
		a->cap = a->cap ? 2 * a->cap : 64;
		a->lsns = mem_realloc_array(a->lsns, a->cap, sizeof *a->lsns);
	}
	a->lsns[a->n++] = lsn;
}

void ahead_add(struct ahead *a, uint64_t lsn)
{
	assert(!a->n || lsn > a->lsns[a->n - 1]);
	push(a, lsn);
}

/* The first that is not below. */
static size_t find(const struct ahead *a, uint64_t lsn)
{
	size_t low = 0, high = a->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (a->lsns[middle] < lsn)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void ahead_raise(struct ahead *a, const struct position *low)
{
	if (position_compare(low, &a->low) > 0)
		a->low = *low;
	size_t gone = find(a, a->low.kind ? a->low.lsn : 0);
	if (gone < a->n && position_covers(&a->low, a->lsns[gone], POSITION_WHOLE))
		gone++;
	if (!gone)
		return;
	memmove(a->lsns, a->lsns + gone, (a->n - gone) * sizeof *a->lsns);
	a->n -= gone;
}

bool ahead_has(const struct ahead *a, uint64_t lsn)
{
	size_t i = find(a, lsn);
	return i < a->n && a->lsns[i] == lsn;
}

/* ---- text ---- */

void ahead_format(const struct ahead *a, struct buf *out)
{
	char text[POSITION_TEXT_MAX];
	uint64_t at = a->low.kind ? a->low.lsn : 0;
	buf_str(out, position_format(&a->low, text));
	for (size_t i = 0; i < a->n; i++) {
		buf_printf(out, " +%llx", (unsigned long long)(a->lsns[i] - at));
		at = a->lsns[i];
	}
}

static int bad(const char *text, struct err *e)
{
	return err_set(e, DMSR_EPROTO, "position.malformed", "\"%.60s\" is no position with transactions beyond it", text);
}

/* " +1f0 +2": zero but at the very first would be the same one twice. */
static int read_lsns(const char *p, uint64_t at, struct ahead *out)
{
	while (*p) {
		char *end;
		if (p[0] != ' ' || p[1] != '+' || !p[2] || !strchr("0123456789abcdef", p[2]))
			return DMSR_EPROTO;
		unsigned long long step = strtoull(p + 2, &end, 16);
		if (end - p > 18 || at + step < at || (!step && out->n))
			return DMSR_EPROTO;
		at += step;
		push(out, at);
		p = end;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t x, y;
	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return (x > y) - (x < y);
}

static void add_all(struct ahead *a, const struct ahead *more)
{
	size_t n = 0;
	for (size_t i = 0; i < more->n; i++)
		push(a, more->lsns[i]);
	if (a->n)
		qsort(a->lsns, a->n, sizeof *a->lsns, compare);
	for (size_t i = 0; i < a->n; i++)
		if (!n || a->lsns[i] != a->lsns[n - 1])
			a->lsns[n++] = a->lsns[i];
	a->n = n;
}

int ahead_merge(struct ahead *a, const char *text, struct err *e)
{
	char position[POSITION_TEXT_MAX];
	struct ahead more = { 0 };
	const char *rest = strchr(text, ' ');
	size_t n = rest ? (size_t)(rest - text) : strlen(text);
	if (n >= sizeof position)
		return bad(text, e);
	memcpy(position, text, n);
	position[n] = 0;
	int rc = position_parse(position, &more.low, e);
	if (!rc && !position_is_comparable(&a->low, &more.low))
		rc = bad(text, e);
	if (!rc && rest && read_lsns(rest, more.low.kind ? more.low.lsn : 0, &more))
		rc = bad(text, e);
	if (!rc) {
		add_all(a, &more);
		ahead_raise(a, &more.low);
	}
	ahead_fini(&more);
	return rc;
}
