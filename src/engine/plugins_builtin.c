/* plugins_builtin: one entry a plugin, in or out by configure's --with-plugin-X. */
#include "engine/plugins_builtin.h"
#include <config.h> /* configure's, not the room's of the same name */

/* Weak: a test program that links the library takes only the plugins that it names itself; the daemon takes them all. */
#define BUILTIN(name) extern const struct dmsr_plugin dmsr_plugin_##name __attribute__((weak))
BUILTIN(csv);
BUILTIN(embedded);
BUILTIN(file);
BUILTIN(json);
BUILTIN(kafka);
BUILTIN(null);
BUILTIN(postgres);

static const struct dmsr_plugin *const table[] = {
	&dmsr_plugin_csv,
	&dmsr_plugin_json,
#ifdef WITH_PLUGIN_EMBEDDED
	&dmsr_plugin_embedded,
#endif
#ifdef WITH_PLUGIN_FILE
	&dmsr_plugin_file,
#endif
#ifdef WITH_PLUGIN_KAFKA
	&dmsr_plugin_kafka,
#endif
#ifdef WITH_PLUGIN_NULL
	&dmsr_plugin_null,
#endif
#ifdef WITH_PLUGIN_POSTGRES
	&dmsr_plugin_postgres,
#endif
};

size_t plugins_builtin(const struct dmsr_plugin **out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < sizeof table / sizeof *table && n < max; i++)
		if (table[i])
			out[n++] = table[i];
	return n;
}
