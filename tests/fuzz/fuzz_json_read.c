/* Whatever stands in a record: codec json refuses it, or makes a change of it that it writes and reads back as the same.
 *
 * input: u8 ncolumns | columns: u8 type, u8 element type, u8 flags (1 in key, 2 generated) | the record. The table is s.t, its columns a, b, c ... */
#include "dmsr.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const struct dmsr_plugin dmsr_plugin_json;

enum { COLUMNS_MAX = 12 };

static struct dmsr_instance *open_codec(void)
{
	struct settings *s = settings_new();
	const struct dmsr_codec_source from = { "postgres", "job", "db", 1 };
	struct dmsr_instance *i = NULL;

	settings_put_str(s, "shape", "envelope");
	settings_put_bool(s, "meta", true);
	settings_put_bool(s, "tombstones", true);
	settings_put_str(s, "numbers", "string");
	settings_put_str(s, "json", "text");
	settings_put_str(s, "compat", "none");
	settings_put_str(s, "invalid_utf8", "stop");
	if (dmsr_plugin_json.codec->open(s, &from, &i, NULL) || !dmsr_plugin_json.codec->is_exact(i))
		abort();
	settings_free(s);
	return i;
}

static struct relation *take_relation(struct cursor *c)
{
	unsigned n = cursor_u8(c) % (COLUMNS_MAX + 1);
	struct relation_builder *b = relation_build("postgres", "s", "t", 1);
	uint16_t keys = 0;

	for (unsigned i = 0; i < n; i++) {
		char name[] = { (char)('a' + i), 0 };
		struct column col = { .name = name, .native_type = "x", .typmod = -1 };
		col.type = cursor_u8(c) % TYPE_COUNT;
		col.elem_type = cursor_u8(c) % TYPE_COUNT;
		unsigned flags = cursor_u8(c);
		col.key_pos = flags & 1 ? ++keys : 0;
		col.flags = flags & 2 ? COLUMN_GENERATED : 0;
		relation_build_column(b, &col);
	}
	return relation_seal(b, keys ? KEY_PRIMARY : KEY_NONE);
}

static bool is_same(const struct value *a, const struct value *b)
{
	return a->kind == b->kind && a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static void check_rows(const struct relation *rel, const struct value *a, const struct value *b, bool with_arrays)
{
	if (!a != !b)
		abort();
	for (unsigned i = 0; a && i < rel->ncolumns; i++)
		if ((with_arrays || rel->columns[i].type != TYPE_ARRAY) && !is_same(&a[i], &b[i]))
			abort();
}

/* The change once more around; NULL: it cannot be written, for want of a key or because a writer looks closer than a reader. An array may be any text at
 * first, with spaces that are not there any more when it has been written. */
static struct batch *again(struct dmsr_instance *i, const struct change *ch, bool with_arrays)
{
	const struct dmsr_codec *codec = dmsr_plugin_json.codec;
	struct dmsr_record r;
	struct batch *b = batch_new();
	int n = codec->encode(i, ch, &r, 1, NULL);

	if (n == DMSR_EDATA) {
		batch_free(b);
		return NULL;
	}
	if (n != 1 || !r.value || codec->decode(i, r.value, r.value_len, ch->rel, b, NULL) || b->last->op != ch->op || b->last->flags != ch->flags)
		abort();
	check_rows(ch->rel, ch->u.row.before, b->last->u.row.before, with_arrays);
	check_rows(ch->rel, ch->u.row.after, b->last->u.row.after, with_arrays);
	return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor c;
	struct err e = { 0 };

	cursor_init(&c, data, size);
	struct dmsr_instance *i = open_codec();
	struct relation *rel = take_relation(&c);
	struct batch *b = batch_new();
	size_t len = cursor_left(&c);
	int rc = dmsr_plugin_json.codec->decode(i, cursor_bytes(&c, len), len, rel, b, &e);
	if (rc ? rc != DMSR_EPROTO || b->nchanges || !e.message[0] : b->nchanges != 1)
		abort();
	struct batch *second = rc ? NULL : again(i, b->first, false), *third = second ? again(i, second->first, true) : NULL;
	if (second && !third)
		abort();
	batch_free(third);
	batch_free(second);
	batch_free(b);
	relation_unref(rel);
	dmsr_plugin_json.codec->close(i);
	return 0;
}
