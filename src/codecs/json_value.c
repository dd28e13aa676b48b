/* json_value: one value as JSON, by its logical type.
 *
 *   bool true false | integers, floats: numbers (NaN, Infinity, -Infinity: strings) | numeric, uint64: strings, or numbers where a double holds them (option)
 *   bytes: base64 | dates and times: ISO 8601 | json, jsonb: a string that holds the text, or the document itself (option) | arrays: arrays | hstore: objects
 *   everything else, and an array of which JSON would not say all: the server's own text as a string */
#include "json_int.h"

static const char *write_bool(struct json *j, const struct json_column *c, const char *p, size_t n)
{
	(void)c;
	if (n != 1 || (*p != 't' && *p != 'f'))
		return "is neither t nor f";
	if (*p == 't')
		JSON_PUT(j, "true");
	else
		JSON_PUT(j, "false");
	return NULL;
}

static const char *read_bool(struct json_in *r, const struct json_column *c)
{
	(void)c;
	if (JSON_TAKE(r, "true"))
		buf_byte(r->out, 't');
	else if (JSON_TAKE(r, "false"))
		buf_byte(r->out, 'f');
	else
		return "is neither true nor false";
	return NULL;
}

static json_writer *const writers[TYPE_COUNT] = {
	[TYPE_BOOL] = write_bool, [TYPE_INT16] = json_write_int, [TYPE_INT32] = json_write_int, [TYPE_INT64] = json_write_int,
	[TYPE_OID] = json_write_int, [TYPE_UINT64] = json_write_uint64, [TYPE_FLOAT32] = json_write_float, [TYPE_FLOAT64] = json_write_float,
	[TYPE_NUMERIC] = json_write_numeric, [TYPE_BYTES] = json_write_bytes, [TYPE_DATE] = json_write_date, [TYPE_TIME] = json_write_time,
	[TYPE_TIMETZ] = json_write_timetz, [TYPE_TIMESTAMP] = json_write_timestamp, [TYPE_TIMESTAMPTZ] = json_write_timestamptz,
	[TYPE_INTERVAL] = json_write_interval, [TYPE_ARRAY] = json_write_array, [TYPE_HSTORE] = json_write_hstore,
};

static json_reader *const readers[TYPE_COUNT] = {
	[TYPE_BOOL] = read_bool, [TYPE_INT16] = json_read_int, [TYPE_INT32] = json_read_int, [TYPE_INT64] = json_read_int,
	[TYPE_OID] = json_read_int, [TYPE_UINT64] = json_read_uint64, [TYPE_FLOAT32] = json_read_float, [TYPE_FLOAT64] = json_read_float,
	[TYPE_NUMERIC] = json_read_numeric, [TYPE_BYTES] = json_read_bytes, [TYPE_DATE] = json_read_date, [TYPE_TIME] = json_read_time,
	[TYPE_TIMETZ] = json_read_timetz, [TYPE_TIMESTAMP] = json_read_timestamp, [TYPE_TIMESTAMPTZ] = json_read_timestamptz,
	[TYPE_INTERVAL] = json_read_interval, [TYPE_ARRAY] = json_read_array, [TYPE_HSTORE] = json_read_hstore,
};

json_writer *json_writer_of(const struct json *j, enum logical_type type)
{
	json_writer *w = j->debezium ? json_debezium_writer(type) : NULL;

	if (w)
		return w;
	if ((type == TYPE_JSON || type == TYPE_JSONB) && j->embed && !j->debezium)
		return json_write_doc;
	return (unsigned)type < TYPE_COUNT && writers[type] ? writers[type] : json_write_string;
}

json_reader *json_reader_of(enum logical_type type)
{
	return (unsigned)type < TYPE_COUNT && readers[type] ? readers[type] : json_read_string;
}

/* Binary forms that are written without a detour over their text; false: this one is not. */
static bool put_binary(struct json *j, const struct json_column *c, const struct value *v, const char **why)
{
	struct cursor in;

	cursor_init(&in, v->data, v->len);
	switch (c->type) {
	case TYPE_TEXT: case TYPE_CHAR: case TYPE_ENUM: case TYPE_XML:
		*why = json_put_string(j, v->data, v->len);
		return true;
	case TYPE_JSON:
		*why = c->write(j, c, v->data, v->len);
		return true;
	case TYPE_BYTES:
		buf_byte(&j->out, '"');
		json_put_base64(&j->out, v->data, v->len);
		buf_byte(&j->out, '"');
		return true;
	case TYPE_INT16:
		buf_int(&j->out, (int16_t)cursor_be16(&in));
		break;
	case TYPE_INT32:
		buf_int(&j->out, (int32_t)cursor_be32(&in));
		break;
	case TYPE_INT64:
		buf_int(&j->out, (int64_t)cursor_be64(&in));
		break;
	default:
		return false;
	}
	*why = cursor_done(&in) ? NULL : "has a wrong length";
	return true;
}

const char *json_put_value(struct json *j, const struct json_column *c, const struct value *v)
{
	const char *why = NULL;

	if (v->kind == VALUE_NULL) {
		JSON_PUT(j, "null");
		return NULL;
	}
	if (v->kind == VALUE_TEXT)
		return c->write(j, c, v->data, v->len);
	if (put_binary(j, c, v, &why))
		return why;
	buf_reset(&j->text);
	if (value_to_text(v, c->type, c->elem_type, &j->text, NULL))
		return buf_ok(&j->text) ? "is not the binary form of its type" : "is too long";
	return c->write(j, c, j->text.len ? j->text.data : "", j->text.len);
}
