/* codec_kit: what tests of codecs and of the file target share: settings from a plugin's table, relations and changes in a few words. */
#ifndef DMSR_TESTS_UNIT_CODEC_KIT_H
#define DMSR_TESTS_UNIT_CODEC_KIT_H
#include "test.h"

#include "dmsr.h"
#include "engine/options.h"

/* Adds the table's defaults, then "name=value" texts, up to NULL. */
static inline void kit_settings(struct settings *s, const struct dmsr_option *table, const char *const *given)
{
	for (const struct dmsr_option *o = table; o->name; o++) {
		const char *value = o->dflt;
		for (const char *const *g = given; g && *g; g++)
			if (!strncmp(*g, o->name, strlen(o->name)) && (*g)[strlen(o->name)] == '=')
				value = *g + strlen(o->name) + 1;
		int64_t n = 0;
		switch (o->type) {
		case DMSR_OPT_BOOL:
			settings_put_bool(s, o->name, value && !strcmp(value, "true"));
			break;
		case DMSR_OPT_BYTES:
			assert_int_equal(options_parse_bytes(value, &n), 0);
			settings_put_int(s, o->name, n);
			break;
		case DMSR_OPT_DURATION:
			assert_int_equal(options_parse_duration(value, &n), 0);
			settings_put_int(s, o->name, n);
			break;
		case DMSR_OPT_INT:
			settings_put_int(s, o->name, strtoll(value, NULL, 10));
			break;
		default:
			settings_put_str(s, o->name, value);
		}
	}
}

static inline struct column kit_column(const char *name, enum logical_type type, enum logical_type elem, int key_pos)
{
	struct column c = { .name = name, .native_type = "x", .typmod = -1, .flags = COLUMN_NULLABLE };
	c.type = (uint8_t)type;
	c.elem_type = (uint8_t)elem;
	c.key_pos = (uint16_t)key_pos;
	return c;
}

/* id int primary key, name text, total numeric */
static inline struct relation *kit_orders(const char *schema, const char *name)
{
	struct relation_builder *b = relation_build("postgres", schema, name, 16384);
	struct column id = kit_column("id", TYPE_INT32, TYPE_OTHER, 1), text = kit_column("name", TYPE_TEXT, TYPE_OTHER, 0),
		      total = kit_column("total", TYPE_NUMERIC, TYPE_OTHER, 0);
	relation_build_column(b, &id);
	relation_build_column(b, &text);
	relation_build_column(b, &total);
	return relation_seal(b, KEY_PRIMARY);
}

/* A value from a text; NULL: null; "\1": not sent. */
static inline struct value kit_value(const char *text)
{
	if (!text)
		return (struct value){ 0 };
	if (!strcmp(text, "\1"))
		return (struct value){ .kind = VALUE_UNCHANGED };
	return value_text(text, (uint32_t)strlen(text));
}

static inline const struct value *kit_row(struct batch *b, const char *const *texts, unsigned n)
{
	struct value *v = batch_values(b, n);
	for (unsigned i = 0; i < n; i++)
		v[i] = kit_value(texts[i]);
	return v;
}
#define KIT_ROW(b, ...) kit_row(b, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

#endif
