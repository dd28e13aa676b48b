/* json_nested: values that hold values.
 *
 *   array    {1,NULL,"a b",{...}}        JSON arrays, one in another for each dimension. Where a lower bound is not 1, an object, so that nothing is lost:
 *            [0:1]={1,2}                 {"bounds":"[0:1]","values":[1,2]}
 *   hstore   "k"=>"v", "n"=>NULL         an object of strings and nulls */
#include "json_int.h"
#include <strings.h>

enum { MAX_DIMS = 6 };

static const char bad_array[] = "is no text form of an array";
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

/* Of two delimiters, which: a box is the only element with parentheses that needs no quotes, and parts by semicolons. */
static char seen_delimiter(const char *p, const char *end)
{
	bool quoted = false;

	for (; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '"')
			quoted = !quoted;
		else if (!quoted && (*p == ';' || *p == '('))
			return ';';
	}
	return ',';
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
	return elem->write(j, elem, j->piece.len ? j->piece.data : "", j->piece.len);
}

/* [1:2][0:1]= at p: whether a bound is not 1, and where the braces begin; NULL: not there. */
static const char *skip_bounds(const char *p, const char *end)
{
	if (p == end || *p != '[')
		return p;
	const char *equals = memchr(p, '=', (size_t)(end - p));
	for (const char *c = p; equals && c < equals; c++)
		if (!strchr("[]:+-0123456789", *c))
			return NULL;
	return equals ? equals + 1 : NULL;
}

/* p: at the first brace. An element is wanted after '{' and after a delimiter, but for the empty array. */
static const char *put_braces(struct json *j, const struct json_column *c, const char *p, const char *end)
{
	char delimiter = c->delimiter ? c->delimiter : seen_delimiter(p, end);
	unsigned depth = 0;
	bool wants = true, fresh = false;

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

const char *json_write_array(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	const char *end = p + n, *braces = skip_bounds(p, end);

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

static const char *put_pair(struct json *j, const char **at, const char *end)
{
	const char *why;

	if (*at == end || **at != '"' || !unquote(at, end, &j->piece))
		return bad_hstore;
	if ((why = json_put_string(j, j->piece.data, j->piece.len)))
		return why;
	buf_byte(&j->out, ':');
	if (end - *at < 3 || memcmp(*at, "=>", 2) != 0)
		return bad_hstore;
	*at += 2;
	if (**at == '"') {
		if (!unquote(at, end, &j->piece))
			return bad_hstore;
		return json_put_string(j, j->piece.data, j->piece.len);
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
