/* json_doc: a JSON document inside of the record, without the white space between its parts, so that a record stays one line. The text is checked: nothing
 * that is not JSON gets into the record. An automaton with a stack of bits instead of a recursion. */
#include "json_int.h"

enum { MAX_DEPTH = 1024 };

static const char bad_doc[] = "is no JSON";

struct doc {
	const char *p, *end;
	struct buf *out;
	unsigned depth;
	uint64_t is_object[MAX_DEPTH / 64];
};

static void skip_space(struct doc *d)
{
	while (d->p < d->end && (*d->p == ' ' || *d->p == '\n' || *d->p == '\t' || *d->p == '\r'))
		d->p++;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static bool take_string(struct doc *d)
{
	const char *start = d->p++;

	while (d->p < d->end && *d->p != '"') {
		if ((unsigned char)*d->p < 0x20)
			return false;
		if (*d->p++ != '\\')
			continue;
		if (d->p == d->end || !*d->p || !strchr("\"\\/bfnrtu", *d->p))
			return false;
		if (*d->p++ != 'u')
			continue;
		for (int i = 0; i < 4; i++)
			if (d->p == d->end || !is_hex(*d->p++))
				return false;
	}
	if (d->p == d->end)
		return false;
	d->p++;
	buf_append(d->out, start, (size_t)(d->p - start));
	return true;
}

static bool take_digits(struct doc *d)
{
	const char *start = d->p;

	while (d->p < d->end && *d->p >= '0' && *d->p <= '9')
		d->p++;
	return d->p > start;
}

static bool take_number(struct doc *d)
{
	const char *start = d->p;

	d->p += *d->p == '-';
	const char *first = d->p;
	if (!take_digits(d) || (*first == '0' && d->p - first > 1))
		return false;
	if (d->p < d->end && *d->p == '.' && (d->p++, !take_digits(d)))
		return false;
	if (d->p < d->end && (*d->p == 'e' || *d->p == 'E')) {
		d->p++;
		d->p += d->p < d->end && (*d->p == '+' || *d->p == '-');
		if (!take_digits(d))
			return false;
	}
	buf_append(d->out, start, (size_t)(d->p - start));
	return true;
}

static bool take_word(struct doc *d, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(d->end - d->p) < n || memcmp(d->p, word, n) != 0)
		return false;
	d->p += n;
	buf_append(d->out, word, n);
	return true;
}

static bool take_scalar(struct doc *d)
{
	switch (*d->p) {
	case '"': return take_string(d);
	case 't': return take_word(d, "true");
	case 'f': return take_word(d, "false");
	case 'n': return take_word(d, "null");
	default: return take_number(d);
	}
}

static void take_byte(struct doc *d) { buf_byte(d->out, *d->p++); }

static bool in_object(const struct doc *d)
{
	return d->depth && d->is_object[(d->depth - 1) / 64] >> (d->depth - 1) % 64 & 1;
}

static bool take_label(struct doc *d)
{
	skip_space(d);
	if (d->p == d->end || *d->p != '"' || !take_string(d))
		return false;
	skip_space(d);
	if (d->p == d->end || *d->p != ':')
		return false;
	take_byte(d);
	return true;
}

static bool is_at_end_of_level(const struct doc *d)
{
	return d->p < d->end && *d->p == (in_object(d) ? '}' : ']');
}

/* wants: a value is to come next. */
static bool open_level(struct doc *d, bool *wants)
{
	uint64_t bit = (uint64_t)1 << d->depth % 64;

	if (*d->p == '{')
		d->is_object[d->depth / 64] |= bit;
	else
		d->is_object[d->depth / 64] &= ~bit;
	d->depth++;
	take_byte(d);
	skip_space(d);
	*wants = !is_at_end_of_level(d);
	return !*wants || !in_object(d) || take_label(d);
}

static bool behind_value(struct doc *d, bool *wants)
{
	if (is_at_end_of_level(d)) {
		take_byte(d);
		d->depth--;
		return true;
	}
	if (*d->p != ',')
		return false;
	take_byte(d);
	*wants = true;
	return !in_object(d) || take_label(d);
}

static const char *take_document(struct doc *d)
{
	bool wants = true;

	for (;;) {
		skip_space(d);
		if (!wants && !d->depth)
			return d->p == d->end ? NULL : bad_doc;
		if (d->p == d->end)
			return bad_doc;
		if (wants && (*d->p == '{' || *d->p == '[')) {
			if (d->depth == MAX_DEPTH)
				return "nests deeper than 1,024 levels";
			if (!open_level(d, &wants))
				return bad_doc;
		} else if (wants) {
			if (!take_scalar(d))
				return bad_doc;
			wants = false;
		} else if (!behind_value(d, &wants)) {
			return bad_doc;
		}
	}
}

const char *json_write_doc(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	struct doc d = { .p = p, .end = p + n };
	const char *why;

	(void)c;
	/* Through another buffer, because what stands in strings is not checked for its encoding yet. */
	buf_reset(&j->bytes);
	d.out = &j->bytes;
	if ((why = take_document(&d)))
		return why;
	return json_put_utf8(j, j->bytes.data, j->bytes.len);
}
