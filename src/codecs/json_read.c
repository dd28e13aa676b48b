/* json_read: an envelope, as encode writes it with room for one record, back into the change that it was. No document is built: the bytes are walked once,
 * in the order in which encode writes them, and what stands otherwise is refused.
 *
 *   {"before":ROW,"after":ROW,"source":{..,"unchanged":[names]},"op":"u","ts_ms":N,"transaction":{..}}        ROW: {"column":value,..} or null
 *
 * Columns come in the table's order. One that is not there was not sent: in `after` it must be named in unchanged, or be generated. An old row that has the
 * key and nothing else is flagged key-only. Every value becomes its neutral text. What tells of the transaction is passed over: the batch knows it. */
#include "json_int.h"
#include <assert.h>

enum { KEEP_BYTES = 4 << 20, NAME_MAX_BYTES = 256 };

struct decoder {
	struct json_in r;
	struct json *j;
	const struct json_shape *s;
	struct err *e;
	struct value *before, *after;   /* of a TEXT the data are set at the end: the buffer moves */
	char op;
};

/* ---- complaints ---- */

static int bad_record(struct decoder *d, const char *why)
{
	return err_set(d->e, DMSR_EPROTO, "codec.malformed", "%s.%s: a record %s", d->s->schema, d->s->name, why);
}

static int bad_column(struct decoder *d, const char *column, const char *why)
{
	return err_set(d->e, DMSR_EPROTO, "codec.malformed", "%s.%s: in a record, column %s %s", d->s->schema, d->s->name, column, why);
}

/* Something stands where a row should end: a column, most likely. It comes from outside: not all of it may be fit to be told. */
static int bad_end(struct decoder *d)
{
	struct buf name;

	if (!JSON_TAKE(&d->r, ",\"") && !JSON_TAKE(&d->r, "\""))
		return bad_record(d, "has a row that does not end");
	const unsigned char *close = memchr(d->r.in.at, '"', cursor_left(&d->r.in));
	size_t n = close ? (size_t)(close - d->r.in.at) : 0;
	buf_init(&name, SIZE_MAX);
	json_escape(&name, (const char *)d->r.in.at, n < NAME_MAX_BYTES ? n : NAME_MAX_BYTES, true);
	int rc = bad_column(d, buf_cstr(&name), "is not of the table, or stands twice or out of order");
	buf_fini(&name);
	return rc;
}

/* ---- rows ---- */

static int take_value(struct decoder *d, const struct json_column *c, struct value *v)
{
	struct buf *out = d->r.out;
	size_t start = out->len;

	if (json_is_next(&d->r, 'n')) {
		*v = (struct value){ 0 };
		return JSON_TAKE(&d->r, "null") ? 0 : bad_column(d, c->name, "is neither null nor a value");
	}
	const char *why = c->read(&d->r, c);
	if (why)
		return bad_column(d, c->name, why);
	*v = value_text(NULL, (uint32_t)(out->len - start));
	buf_byte(out, 0);
	return buf_ok(out) ? 0 : bad_column(d, c->name, "is too long");
}

static int take_columns(struct decoder *d, struct value *v)
{
	const struct json_column *c = d->s->columns;
	bool is_first = true;
	int rc;

	for (unsigned n = d->s->ncolumns; n; n--, c++, v++) {
		if (!json_take(&d->r, c->label + is_first, c->label_len - is_first)) {
			*v = (struct value){ .kind = VALUE_UNCHANGED };
			continue;
		}
		is_first = false;
		if ((rc = take_value(d, c, v)))
			return rc;
	}
	return json_take_byte(&d->r, '}') ? 0 : bad_end(d);
}

/* *row stays NULL for null. */
static int take_row(struct decoder *d, struct batch *b, struct value **row)
{
	if (JSON_TAKE(&d->r, "null"))
		return 0;
	if (!json_take_byte(&d->r, '{'))
		return bad_record(d, "has a row that is neither null nor an object");
	*row = batch_values(b, d->s->ncolumns + 1);
	return take_columns(d, *row);
}

/* ---- what stands around them ---- */

/* A label, and behind it a string or a number; or null. */
struct member {
	const char *label;
	uint8_t len;
	bool is_string;
};
#define STRING(label) \
	{ \
		label, sizeof(label) - 1, true \
	}
#define NUMBER(label) \
	{ \
		label, sizeof(label) - 1, false \
	}

static bool take_number(struct json_in *r)
{
	json_take_byte(r, '-');
	const unsigned char *start = r->in.at;
	while (r->in.at < r->in.end && *r->in.at >= '0' && *r->in.at <= '9')
		r->in.at++;
	return r->in.at > start;
}

/* A string that nobody asks for. */
static bool pass_string(struct json_in *r)
{
	size_t start = r->out->len;
	const char *why = json_take_string(r);

	r->out->len = start;
	return !why;
}

static bool pass_members(struct json_in *r, const struct member *m, size_t n)
{
	for (; n; n--, m++)
		if (!json_take(r, m->label, m->len) || !(JSON_TAKE(r, "null") || (m->is_string ? pass_string(r) : take_number(r))))
			return false;
	return true;
}
#define PASS(r, members) pass_members(r, members, sizeof(members) / sizeof *(members))

/* Its columns are those that the new row has not, but for generated ones. */
static int take_unchanged(struct decoder *d)
{
	bool is_first = true;

	for (unsigned i = 0; d->after && i < d->s->ncolumns; i++) {
		const struct json_column *c = &d->s->columns[i];
		if (d->after[i].kind != VALUE_UNCHANGED || c->is_generated)
			continue;
		/* a label is ,"name": */
		if (is_first ? !JSON_TAKE(&d->r, ",\"unchanged\":[") : !json_take_byte(&d->r, ','))
			return bad_column(d, c->name, "is missing");
		if (!json_take(&d->r, c->label + 1, c->label_len - 2))
			return bad_column(d, c->name, "is missing, and not named as unchanged");
		is_first = false;
	}
	if (!is_first && !json_take_byte(&d->r, ']'))
		return bad_record(d, "names a column as unchanged that it has, or twice");
	return 0;
}

static bool pass_txn(struct decoder *d)
{
	static const struct member txn[] = { NUMBER(",\"ts_ms\":"), NUMBER(",\"ts_us\":"), STRING(",\"snapshot\":"),
		NUMBER(",\"txId\":"), NUMBER(",\"lsn\":") };
	static const struct member event[] = { STRING("\"sequence\":"), NUMBER(",\"event\":") };
	struct buf *known = &d->j->read_txn;
	const unsigned char *start = d->r.in.at;

	if (!known->len || !json_take(&d->r, known->data, known->len)) {
		/* with the comma, or a longer number would do too */
		if (!PASS(&d->r, txn) || !json_take_byte(&d->r, ','))
			return false;
		buf_reset(known);
		buf_append(known, start, (size_t)(d->r.in.at - start));
	}
	return PASS(&d->r, event);
}

static int take_source(struct decoder *d)
{
	static const struct member origin[] = { STRING("{\"version\":"), STRING(",\"connector\":"), STRING(",\"name\":"), STRING(",\"db\":") };
	const struct json_shape *s = d->s;
	int rc;

	/* Another version of this program may have written it, or a job with another name. */
	if (!json_take(&d->r, s->source, s->source_len)) {
		if (!PASS(&d->r, origin))
			return bad_record(d, "does not say where it comes from");
		if (!json_take(&d->r, s->source + s->where, s->source_len - s->where))
			return bad_record(d, "is of another table");
	}
	if (!pass_txn(d))
		return bad_record(d, "does not say where in the stream it stood");
	if ((rc = take_unchanged(d)))
		return rc;
	return json_take_byte(&d->r, '}') ? 0 : bad_record(d, "has a source that does not end");
}

static bool take_end(struct decoder *d)
{
	static const struct member made[] = { NUMBER("\",\"ts_ms\":") };
	static const struct member order[] = { STRING("{\"id\":"), NUMBER(",\"total_order\":") };
	struct json_in *r = &d->r;

	if (!JSON_TAKE(r, ",\"op\":\"") || !cursor_left(&r->in))
		return false;
	d->op = (char)*r->in.at++;
	if (!PASS(r, made) || !JSON_TAKE(r, ",\"transaction\":"))
		return false;
	if (!JSON_TAKE(r, "null") && (!PASS(r, order) || !json_take_byte(r, '}')))
		return false;
	return json_take_byte(r, '}') && cursor_done(&r->in);
}

static bool has_fitting_rows(const struct decoder *d)
{
	switch (d->op) {
	case OP_CREATE: case OP_READ: return !d->before && d->after;
	case OP_UPDATE: return d->after;
	case OP_DELETE: return !d->after;
	default: return false;
	}
}

/* ---- the record ---- */

static int take_record(struct decoder *d, struct batch *b)
{
	int rc;

	if (!JSON_TAKE(&d->r, "{\"before\":"))
		return bad_record(d, "is no envelope");
	if ((rc = take_row(d, b, &d->before)))
		return rc;
	if (!JSON_TAKE(&d->r, ",\"after\":"))
		return bad_record(d, "has no new row");
	if ((rc = take_row(d, b, &d->after)))
		return rc;
	if (!JSON_TAKE(&d->r, ",\"source\":"))
		return bad_record(d, "has no source");
	if ((rc = take_source(d)))
		return rc;
	if (!take_end(d))
		return bad_record(d, "does not end as one does");
	return has_fitting_rows(d) ? 0 : bad_record(d, "has rows that its op has not, or is of no row");
}

static bool is_key_only(const struct json_shape *s, const struct value *v)
{
	if (!v || !s->nkeys)
		return false;
	for (unsigned i = 0; i < s->ncolumns; i++)
		if ((v[i].kind == VALUE_UNCHANGED) == s->columns[i].in_key)
			return false;
	return true;
}

/* The texts stand one behind another, as they were taken. */
static const char *place_texts(struct value *v, unsigned n, const char *at)
{
	for (unsigned i = 0; v && i < n; i++) {
		if (v[i].kind != VALUE_TEXT)
			continue;
		v[i].data = at;
		at += v[i].len + 1;
	}
	return at;
}

static void append(const struct decoder *d, struct relation *rel, struct batch *b)
{
	const struct buf *texts = d->r.out;
	struct change *ch = batch_append(b, (enum change_op)d->op, rel);
	const char *at = arena_dup(&b->arena, texts->data, texts->len);

	at = place_texts(d->before, d->s->ncolumns, at);
	place_texts(d->after, d->s->ncolumns, at);
	b->bytes += texts->len;
	ch->flags = is_key_only(d->s, d->before) ? CHANGE_KEY_ONLY : 0;
	ch->u.row.before = d->before;
	ch->u.row.after = d->after;
}

bool json_is_exact(const struct dmsr_instance *i)
{
	const struct json *j = (const struct json *)(const void *)i;
	return !j->flat && !j->debezium && !j->embed && !j->replace_bad;
}

int json_decode(struct dmsr_instance *i, const void *value, size_t len, struct relation *rel, struct batch *b, struct err *e)
{
	struct json *j = (struct json *)i;

	assert(json_is_exact(i));
	if (j->row.cap > KEEP_BYTES && j->row.len < KEEP_BYTES)
		buf_fini(&j->row);
	buf_reset(&j->row);
	struct decoder d = { .r.out = &j->row, .j = j, .s = json_shape_of(j, rel), .e = e };
	cursor_init(&d.r.in, value, len);
	int rc = take_record(&d, b);
	if (!rc)
		append(&d, rel, b);
	return rc;
}
