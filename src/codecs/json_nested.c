/* json_nested: values that hold values.
 *
 *   array    {1,NULL,"a b",{...}}        JSON arrays, one in another for each dimension. Where a lower bound is not 1, an object, so that nothing is lost:
 *            [0:1]={1,2}                 {"bounds":"[0:1]","values":[1,2]}
 *            {"a;b";c}                   an array whose quotes JSON would not give back (of a type whose delimiter is not known here): its text, as a string
 *   hstore   "k"=>"v", "n"=>NULL         an object of strings and nulls */
#include "json_int.h"
#include <strings.h>

enum { MAX_DIMS = 6, BOUNDS_MAX = MAX_DIMS * 25 };

static const char bad_array[] = "is no text form of an array";
static const char as_text[] = "has quotes that JSON does not tell";
static const char bad_hstore[] = "is no text form of an hstore";

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Behind the quote at *at: its inside, without backslashes, into out. */
static bool unquote(const char **at, const char *end, struct buf *out)
{
	const char *p = *at + 1;

	buf_reset(out);
	for (;;) {
		const char *run = p;
		while (p < end && *p != '"' && *p != '\\')
			p++;
		buf_append(out, run, (size_t)(p - run));
		if (p == end)
			return false;
		if (*p == '"') {
			*at = p + 1;
			return true;
		}
		if (++p == end)
			return false;
		buf_byte(out, *p++);
	}
}

static bool is_delimiter(char c) { return c == ',' || c == ';'; }

/* At the first element that is not NULL; end: there is none. */
static const char *first_element(const char *p, const char *end)
{
	while (p < end) {
		if (is_space(*p) || *p == '{' || is_delimiter(*p))
			p++;
		else if (end - p > 4 && !strncasecmp(p, "NULL", 4) && (is_delimiter(p[4]) || is_space(p[4]) || p[4] == '}'))
			p += 4;
		else
			break;
	}
	return p;
}

/* Of two delimiters, which: a box is the only element that begins with a parenthesis and needs no quotes, and parts by semicolons. The first one tells, as
 * it does when it is read. Without one to be seen (all are NULL) JSON would not tell; 0. */
static char seen_delimiter(const char *p, const char *end)
{
	const char *first = first_element(p, end);
	bool quoted = false, parted = false;

	if (end - first > 1 && first[0] == '(' && first[1] != '(')
		return ';';
	for (; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '"')
			quoted = !quoted;
		else if (!quoted && *p == ';')
			parted = true;
	}
	return parted ? 0 : ',';
}

static const char *put_bare(struct json *j, const struct json_column *elem, char delimiter, const char **at, const char *end)
{
	const char *p = *at, *start = p;

	while (p < end && *p != delimiter && *p != '}' && *p != '"' && *p != '{' && *p != '\\')
		p++;
	*at = p;
	while (p > start && is_space(p[-1]))
		p--;
	if (p == start)
		return bad_array;
	if (p - start == 4 && !strncasecmp(start, "NULL", 4)) {
		JSON_PUT(j, "null");
		return NULL;
	}
	return elem->write(j, elem, start, (size_t)(p - start));
}

static const char *put_element(struct json *j, const struct json_column *elem, char delimiter, const char **at, const char *end)
{
	if (**at != '"')
		return put_bare(j, elem, delimiter, at, end);
	if (!unquote(at, end, &j->piece))
		return bad_array;
	if (!value_element_needs_quotes(j->piece.data, j->piece.len, delimiter))
		return as_text;
	return elem->write(j, elem, j->piece.len ? j->piece.data : "", j->piece.len);
}

static bool is_bounds(const char *p, size_t n)
{
	if (!n || n > BOUNDS_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!p[i] || !strchr("[]:+-0123456789", p[i]))
			return false;
	return true;
}

/* [1:2][0:1]= at p: whether a bound is not 1, and where the braces begin; NULL: not there. */
static const char *skip_bounds(const char *p, const char *end)
{
	if (p == end || *p != '[')
		return p;
	const char *equals = memchr(p, '=', (size_t)(end - p));
	return equals && is_bounds(p, (size_t)(equals - p)) ? equals + 1 : NULL;
}

/* p: at the first brace. An element is wanted after '{' and after a delimiter, but for the empty array. */
static const char *put_braces(struct json *j, const struct json_column *c, const char *p, const char *end)
{
	char delimiter = c->delimiter ? c->delimiter : seen_delimiter(p, end);
	unsigned depth = 0;
	bool wants = true, fresh = false;

	if (!delimiter)
		return as_text;
	while (p < end) {
		if (is_space(*p)) {
			p++;
		} else if (*p == '{' && wants) {
			if (++depth > MAX_DIMS)
				return bad_array;
			buf_byte(&j->out, '[');
			fresh = true;
			p++;
		} else if (*p == '}' && depth && (!wants || fresh)) {
			buf_byte(&j->out, ']');
			wants = fresh = false;
			p++;
			if (!--depth)
				break;
		} else if (*p == delimiter && depth && !wants) {
			buf_byte(&j->out, ',');
			wants = true;
			fresh = false;
			p++;
		} else if (depth && wants) {
			const char *why = put_element(j, c->elem, delimiter, &p, end);
			if (why)
				return why;
			wants = fresh = false;
		} else {
			return bad_array;
		}
	}
	while (p < end && is_space(*p))
		p++;
	return p == end && !depth && !wants ? NULL : bad_array;
}

static const char *put_array(struct json *j, const struct json_column *c, const char *p, const char *end)
{
	const char *braces = skip_bounds(p, end);

	if (!braces || braces == end)
		return bad_array;
	if (braces == p)
		return put_braces(j, c, p, end);
	JSON_PUT(j, "{\"bounds\":\"");
	json_put(j, p, (size_t)(braces - p) - 1);
	JSON_PUT(j, "\",\"values\":");
	const char *why = put_braces(j, c, braces, end);
	buf_byte(&j->out, '}');
	return why;
}

const char *json_write_array(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	size_t start = j->out.len;
	const char *why = put_array(j, c, p, p + n);

	if (why != as_text)
		return why;
	j->out.len = start;
	return json_put_string(j, p, n);
}

/* Not through j->piece: an hstore may be the element of an array that stands in it. */
static const char *put_pair(struct json *j, const char **at, const char *end)
{
	const char *why;

	if (*at == end || **at != '"' || !unquote(at, end, &j->bytes))
		return bad_hstore;
	if ((why = json_put_string(j, j->bytes.data, j->bytes.len)))
		return why;
	buf_byte(&j->out, ':');
	if (end - *at < 3 || memcmp(*at, "=>", 2) != 0)
		return bad_hstore;
	*at += 2;
	if (**at == '"') {
		if (!unquote(at, end, &j->bytes))
			return bad_hstore;
		return json_put_string(j, j->bytes.data, j->bytes.len);
	}
	if (end - *at < 4 || strncasecmp(*at, "NULL", 4) != 0)
		return bad_hstore;
	*at += 4;
	JSON_PUT(j, "null");
	return NULL;
}

const char *json_write_hstore(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	const char *end = p + n, *why;

	(void)c;
	buf_byte(&j->out, '{');
	while (p < end) {
		if ((why = put_pair(j, &p, end)))
			return why;
		if (p == end)
			break;
		if (end - p < 3 || memcmp(p, ", ", 2) != 0)
			return bad_hstore;
		p += 2;
		buf_byte(&j->out, ',');
	}
	buf_byte(&j->out, '}');
	return NULL;
}

/* ---- reading ---- */

/* The delimiter of the array at hand, told by its first element that is not null. */
static char told_delimiter(const struct json_in *r)
{
	const unsigned char *p = r->in.at, *end = r->in.end;
	unsigned depth = 0;

	for (; p < end && *p != '"'; p++) {
		depth += *p == '[';
		if (*p == ']' && depth-- <= 1)
			return ',';
	}
	return end - p > 2 && p[0] == '"' && p[1] == '(' && p[2] != '(' ? ';' : ',';
}

static const char *take_element(struct json_in *r, const struct json_column *elem, char delimiter)
{
	size_t start = r->out->len;
	const char *why;

	if (JSON_TAKE(r, "null")) {
		buf_append(r->out, "NULL", 4);
		return NULL;
	}
	if ((why = elem->read(r, elem)))
		return why;
	if (buf_ok(r->out) && value_element_needs_quotes(r->out->data + start, r->out->len - start, delimiter))
		value_quote(r->out, start);
	return NULL;
}

/* put_braces, the other way. */
static const char *take_brackets(struct json_in *r, const struct json_column *c)
{
	char delimiter = c->delimiter ? c->delimiter : told_delimiter(r);
	unsigned depth = 0;
	bool wants = true, fresh = false;

	do {
		if (wants && json_take_byte(r, '[')) {
			if (++depth > MAX_DIMS)
				return "has more than 6 dimensions";
			buf_byte(r->out, '{');
			fresh = true;
		} else if ((!wants || fresh) && json_take_byte(r, ']')) {
			buf_byte(r->out, '}');
			depth--;
			wants = fresh = false;
		} else if (!wants && json_take_byte(r, ',')) {
			buf_byte(r->out, delimiter);
			wants = true;
		} else if (wants && depth) {
			const char *why = take_element(r, c->elem, delimiter);
			if (why)
				return why;
			wants = fresh = false;
		} else {
			return "is no array";
		}
	} while (depth);
	return NULL;
}

static const char *take_bounded(struct json_in *r, const struct json_column *c)
{
	static const char bad[] = "is no array with bounds";
	const char *p, *why;
	size_t n;

	if (!JSON_TAKE(r, "{\"bounds\":") || json_take_plain(r, &p, &n) || !is_bounds(p, n) || !JSON_TAKE(r, ",\"values\":"))
		return bad;
	buf_append(r->out, p, n);
	buf_byte(r->out, '=');
	if ((why = take_brackets(r, c)))
		return why;
	return json_take_byte(r, '}') ? NULL : bad;
}

const char *json_read_array(struct json_in *r, const struct json_column *c)
{
	if (json_is_next(r, '"'))
		return json_take_string(r);
	return json_is_next(r, '{') ? take_bounded(r, c) : take_brackets(r, c);
}

static const char *take_quoted(struct json_in *r)
{
	size_t start = r->out->len;
	const char *why = json_take_string(r);

	if (!why)
		value_quote(r->out, start);
	return why;
}

const char *json_read_hstore(struct json_in *r, const struct json_column *c)
{
	static const char bad[] = "is no object of strings";
	const char *why;

	(void)c;
	if (!json_take_byte(r, '{'))
		return bad;
	if (json_take_byte(r, '}'))
		return NULL;
	for (;;) {
		if ((why = take_quoted(r)))
			return why;
		if (!json_take_byte(r, ':'))
			return bad;
		buf_append(r->out, "=>", 2);
		if (JSON_TAKE(r, "null"))
			buf_append(r->out, "NULL", 4);
		else if ((why = take_quoted(r)))
			return why;
		if (json_take_byte(r, '}'))
			return NULL;
		if (!json_take_byte(r, ','))
			return bad;
		buf_append(r->out, ", ", 2);
	}
}
