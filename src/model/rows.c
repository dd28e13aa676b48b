/* rows: opaque rows (a COPY chunk) into values.
 *
 * COPY text: a row is a line, columns parted by a tab, \N is NULL; \b \f \n \r \t \v, \ooo (octal), \xhh, and \c for any other c.
 * COPY binary: a row is u16 number of columns, then for each i32 length (-1: NULL) and the bytes.
 * A row has every column of the relation, or every one that is not generated. */
#include "model/batch.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>

struct reader {
	const struct change *ch;
	struct cursor c;
	uint32_t row;            /* number of the row being read, from 1 */
	unsigned nwritable;      /* columns that are not generated */
	struct err *e;
};

static void reader_init(struct reader *r, const struct change *ch, struct err *e)
{
	const struct relation *rel = ch->rel;

	*r = (struct reader){ .ch = ch, .e = e };
	cursor_init(&r->c, ch->u.rows.data, ch->u.rows.len);
	for (unsigned i = 0; i < rel->ncolumns; i++)
		r->nwritable += !(rel->columns[i].flags & COLUMN_GENERATED);
}

static int bad_row(const struct reader *r, const char *why)
{
	return err_set(r->e, DMSR_EPROTO, "rows.malformed", "%s.%s: row %u of a COPY chunk: %s", r->ch->rel->schema,
		r->ch->rel->name, r->row, why);
}

/* Puts the n fields that were read, at the front of v, to their columns. */
static int place(const struct reader *r, struct value *v, unsigned n)
{
	static const struct value unchanged = { .kind = VALUE_UNCHANGED };
	const struct relation *rel = r->ch->rel;

	if (n == rel->ncolumns)
		return 0;
	if (n != r->nwritable)
		return bad_row(r, "the number of columns is not the table's");
	for (unsigned i = rel->ncolumns; i-- > 0;)
		v[i] = rel->columns[i].flags & COLUMN_GENERATED ? unchanged : v[--n];
	return 0;
}

/* ---- text ---- */

static bool is_octal(unsigned char c) { return c >= '0' && c <= '7'; }

static int hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What stands behind a backslash; *at is moved over it. */
static char unescape(const unsigned char **at, const unsigned char *end)
{
	const unsigned char *p = *at;
	unsigned v = *p++;

	switch (v) {
	case 'b': v = '\b'; break;
	case 'f': v = '\f'; break;
	case 'n': v = '\n'; break;
	case 'r': v = '\r'; break;
	case 't': v = '\t'; break;
	case 'v': v = '\v'; break;
	case 'x':
		if (p < end && hex_digit(*p) >= 0) {
			v = (unsigned)hex_digit(*p++);
			if (p < end && hex_digit(*p) >= 0)
				v = v << 4 | (unsigned)hex_digit(*p++);
		}
		break;
	default:
		if (!is_octal((unsigned char)v))
			break;
		v -= '0';
		for (int i = 0; i < 2 && p < end && is_octal(*p); i++)
			v = v << 3 | (unsigned)(*p++ - '0');
	}
	*at = p;
	return (char)v;
}

/* One field [p, end), taken out of its escapes into dst with a NUL behind; gives the place behind that. */
static char *text_field(const unsigned char *p, const unsigned char *end, char *dst, struct value *v)
{
	if (end - p == 2 && p[0] == '\\' && p[1] == 'N') {
		*v = (struct value){ 0 };
		return dst;
	}
	char *to = dst;
	while (p < end) {
		const unsigned char *esc = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((esc ? esc : end) - p);
		memcpy(to, p, plain);
		to += plain;
		p += plain;
		if (esc && ++p < end)
			*to++ = unescape(&p, end);
		else if (esc)
			*to++ = '\\';
	}
	*to = 0;
	*v = value_text(dst, (uint32_t)(to - dst));
	return to + 1;
}

/* The end of the line at the cursor: its newline, or the end of the chunk. */
static const unsigned char *line_end(const struct cursor *c)
{
	const unsigned char *nl = memchr(c->at, '\n', cursor_left(c));
	return nl ? nl : c->end;
}

/* dst holds as many bytes as the line and one more: each field's NUL takes the place of its tab or newline. */
static int text_row(struct reader *r, struct value *v, char *dst)
{
	const unsigned char *p = r->c.at, *end = line_end(&r->c);
	const unsigned ncolumns = r->ch->rel->ncolumns;
	unsigned n = 0;

	r->c.at = end + (end < r->c.end);
	if (r->nwritable == 0 && p == end)
		return place(r, v, 0);
	for (;;) {
		const unsigned char *tab = memchr(p, '\t', (size_t)(end - p));
		if (n == ncolumns)
			return bad_row(r, "it has more columns than the table");
		dst = text_field(p, tab ? tab : end, dst, &v[n++]);
		if (!tab)
			return place(r, v, n);
		p = tab + 1;
	}
}

/* ---- binary ---- */

/* Values point into the chunk. */
static int binary_row(struct reader *r, struct value *v)
{
	unsigned n = cursor_be16(&r->c);

	if (n > r->ch->rel->ncolumns)
		return bad_row(r, "it has more columns than the table");
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = cursor_be32(&r->c);
		if (len == UINT32_MAX && !r->c.bad)
			v[i] = (struct value){ 0 };
		else
			v[i] = (struct value){ cursor_bytes(&r->c, len), len, VALUE_BINARY };
	}
	return r->c.bad ? bad_row(r, "it ends too early") : place(r, v, n);
}

static bool is_text(const struct reader *r)
{
	return r->ch->u.rows.format == ROWS_COPY_TEXT;
}

/* Bytes that text_row needs for the next row. */
static size_t row_bytes(const struct reader *r)
{
	return is_text(r) ? (size_t)(line_end(&r->c) - r->c.at) + 1 : 0;
}

static int next_row(struct reader *r, struct value *v, char *dst)
{
	r->row++;
	return is_text(r) ? text_row(r, v, dst) : binary_row(r, v);
}

static struct change read_change(const struct change *rows, const struct value *v)
{
	struct change ch = {.rel = rows->rel, .txn = rows->txn, .event = rows->event, .op = OP_READ};
	ch.u.row.after = v;
	return ch;
}

int change_some_rows(const struct change *rows, size_t *at, int (*fn)(void *arg, const struct change *row), void *arg, struct err *e)
{
	const unsigned char *data = (const unsigned char *)rows->u.rows.data;
	struct reader r;
	struct buf text;
	int rc = 0;

	assert(rows->op == OP_ROWS);
	assert(*at <= rows->u.rows.len);
	reader_init(&r, rows, e);
	cursor_init(&r.c, data + *at, rows->u.rows.len - *at);
	buf_init(&text, SIZE_MAX);
	struct value *v = mem_alloc((rows->rel->ncolumns + 1) * sizeof *v);
	while (cursor_left(&r.c) && !rc) {
		buf_reserve(&text, row_bytes(&r) + 1);
		rc = next_row(&r, v, text.data);
		if (rc)
			break;
		const struct change row = read_change(rows, v);
		rc = fn(arg, &row);
		*at = (size_t)(r.c.at - data);
	}
	free(v);
	buf_fini(&text);
	return rc;
}

int change_each_row(const struct change *rows, int (*fn)(void *arg, const struct change *row), void *arg, struct err *e)
{
	size_t at = 0;
	return change_some_rows(rows, &at, fn, arg, e);
}
