/* Whatever a table and its values are, what codec json makes of a change is JSON, in one line; and what it calls exact it reads back: the text of a value
 * may be none that a server prints, but read twice it is the same.
 *
 * input: u8 options | u8 op | u8 ncolumns | columns: u8 type, u8 element type, i16 typmod, u8 flags (1 in key, 2 generated) | name: u8 length, bytes |
 *        old row, new row: values: u8 kind, for text and binary u16 length, bytes                                    (numbers big-endian) */
#include "dmsr.h"
#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const struct dmsr_plugin dmsr_plugin_json;

enum { COLUMNS_MAX = 12, DOC_FLAGS = JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL };

static struct dmsr_instance *open_codec(unsigned bits)
{
	struct settings *s = settings_new();
	const struct dmsr_codec_source from = { "postgres", "a \"job\"", bits & 1 ? "db" : NULL, 1 };
	struct dmsr_instance *i = NULL;

	settings_put_str(s, "shape", bits & 1 ? "flat" : "envelope");
	settings_put_bool(s, "meta", bits & 2);
	settings_put_bool(s, "tombstones", !(bits & 4));
	settings_put_str(s, "numbers", bits & 8 ? "number_if_lossless" : "string");
	settings_put_str(s, "json", bits & 16 ? "embedded" : "text");
	settings_put_str(s, "compat", bits & 32 ? "debezium" : "none");
	settings_put_str(s, "invalid_utf8", bits & 64 ? "replace" : "stop");
	if (dmsr_plugin_json.codec->open(s, &from, &i, NULL))
		abort();
	settings_free(s);
	return i;
}

static char *take_name(struct cursor *c)
{
	size_t n = cursor_u8(c);
	const char *p = cursor_bytes(c, n);
	char *name = mem_strndup(p ? p : "", p ? n : 0);

	return name;
}

static struct relation *take_relation(struct cursor *c)
{
	unsigned n = cursor_u8(c) % COLUMNS_MAX;
	char *schema = take_name(c), *table = take_name(c);
	struct relation_builder *b = relation_build("postgres", schema, table, 1);
	uint16_t keys = 0;

	for (unsigned i = 0; i < n; i++) {
		struct column col = { .native_type = "x", .type = cursor_u8(c) % TYPE_COUNT, .elem_type = cursor_u8(c) % TYPE_COUNT };
		col.typmod = (int16_t)cursor_be16(c);
		unsigned flags = cursor_u8(c);
		char *text = take_name(c), *name = mem_printf("%s%u", text, i); /* no two the same */
		free(text);
		col.name = name;
		col.key_pos = flags & 1 ? ++keys : 0;
		col.flags = flags & 2 ? COLUMN_GENERATED : 0;
		relation_build_column(b, &col);
		free(name);
	}
	free(schema);
	free(table);
	return relation_seal(b, keys ? KEY_PRIMARY : KEY_NONE);
}

static void take_row(struct cursor *c, struct value *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		v[i] = (struct value){ .kind = cursor_u8(c) % 4 };
		if (v[i].kind < VALUE_TEXT)
			continue;
		v[i].len = cursor_be16(c);
		v[i].data = cursor_bytes(c, v[i].len);
		if (!v[i].data)
			v[i] = (struct value){ 0 };
	}
}

/* jansson refuses some of what is JSON: U+0000 in a name; in documents of the user's own, numbers that no double holds and halves of surrogate pairs. */
static bool is_excused(const json_error_t *why, bool embeds)
{
	enum json_error_code code = json_error_code(why);
	return code == json_error_null_byte_in_key || (embeds && (code == json_error_numeric_overflow || code == json_error_invalid_syntax));
}

static void check(const char *p, size_t n, bool embeds)
{
	json_error_t why;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] < 0x20)
			abort();
	json_t *o = json_loadb(p, n, DOC_FLAGS, &why);
	if (o ? !json_is_object(o) : !is_excused(&why, embeds))
		abort();
	json_decref(o);
}

static void check_row(const struct value *a, const struct value *b, unsigned n)
{
	if (!a != !b)
		abort();
	for (unsigned i = 0; a && i < n; i++)
		if (a[i].kind != b[i].kind || a[i].len != b[i].len || (a[i].len && memcmp(a[i].data, b[i].data, a[i].len) != 0))
			abort();
}

/* The change that comes back; NULL: it cannot be written. */
static const struct change *around(struct dmsr_instance *i, const struct change *ch, struct batch *b)
{
	struct dmsr_record r;
	int n = dmsr_plugin_json.codec->encode(i, ch, &r, 1, NULL);

	if (n != 1)
		return NULL;
	if (dmsr_plugin_json.codec->decode(i, r.value, r.value_len, ch->rel, b, NULL) || b->last->op != ch->op)
		abort();
	return b->last;
}

static void check_back(struct dmsr_instance *i, const struct change *ch)
{
	struct batch *b = batch_new();
	const struct change *first = around(i, ch, b), *second = first ? around(i, first, b) : NULL;

	if (first && !second)
		abort();
	if (second) {
		check_row(first->u.row.before, second->u.row.before, ch->rel->ncolumns);
		check_row(first->u.row.after, second->u.row.after, ch->rel->ncolumns);
	}
	batch_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t ops[] = { OP_CREATE, OP_UPDATE, OP_DELETE, OP_READ, OP_TRUNCATE, OP_MESSAGE };
	struct value before[COLUMNS_MAX], after[COLUMNS_MAX];
	struct dmsr_record r[DMSR_RECORDS_MAX];
	struct cursor c;

	cursor_init(&c, data, size);
	unsigned bits = cursor_u8(&c), op = cursor_u8(&c);
	struct dmsr_instance *i = open_codec(bits);
	struct relation *rel = take_relation(&c);
	const struct txn txn = { .lsn = bits, .commit_us = op, .xid = 7 };
	struct change ch = { .rel = rel, .txn = &txn, .event = op, .op = ops[op % sizeof ops], .flags = op & 8 ? CHANGE_KEY_ONLY : 0 };
	take_row(&c, before, rel->ncolumns);
	take_row(&c, after, rel->ncolumns);
	char *prefix = take_name(&c);
	if (ch.op == OP_MESSAGE) {
		ch.rel = NULL;
		ch.u.message.prefix = prefix;
		ch.u.message.len = cursor_left(&c);
		ch.u.message.data = cursor_bytes(&c, cursor_left(&c));
	} else if (ch.op != OP_TRUNCATE) {
		ch.u.row.before = ch.op == OP_DELETE || (ch.op == OP_UPDATE && op & 16) ? before : NULL;
		ch.u.row.after = ch.op != OP_DELETE ? after : NULL;
	}
	int n = dmsr_plugin_json.codec->encode(i, &ch, r, DMSR_RECORDS_MAX, NULL);
	for (int k = 0; k < n; k++) {
		if (r[k].key)
			check(r[k].key, r[k].key_len, bits & 16);
		if (r[k].value)
			check(r[k].value, r[k].value_len, bits & 16);
	}
	if (change_is_row(&ch) && dmsr_plugin_json.codec->is_exact(i))
		check_back(i, &ch);
	dmsr_plugin_json.codec->close(i);
	relation_unref(rel);
	free(prefix);
	return 0;
}
