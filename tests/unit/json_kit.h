/* json_kit: codec json, opened as tests want it. */
#ifndef DMSR_TESTS_UNIT_JSON_KIT_H
#define DMSR_TESTS_UNIT_JSON_KIT_H
#include "codec_kit.h"

extern const struct dmsr_plugin dmsr_plugin_json;
static const struct dmsr_codec_source origin = { .connector = "postgres", .name = "shop", .database = "sh\"op", .server = 7 };
static const struct txn txn = { .lsn = 0x16B3748, .commit_us = 1769853600123456, .xid = 771 };

static inline struct dmsr_instance *open_with(const char *const *given)
{
	struct dmsr_instance *i = NULL;
	struct settings *s = settings_new();
	kit_settings(s, dmsr_plugin_json.codec_options, given);
	assert_int_equal(dmsr_plugin_json.codec->open(s, &origin, &i, NULL), 0);
	settings_free(s);
	return i;
}
#define OPEN(...) open_with((const char *const[]){ __VA_ARGS__, NULL })

#endif
