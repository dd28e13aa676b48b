/* plugin: which connectors, streamers, transforms and codecs there are: those built in, then those of plugin_dir. */
#ifndef DMSR_ENGINE_PLUGIN_H
#define DMSR_ENGINE_PLUGIN_H
#include "dmsr.h"

struct plugins;
struct plugins *plugins_new(void);              /* the built-in ones */
void plugins_free(struct plugins *p);           /* dlclose; no instance may live */
/* Loads every *.so of dir (regular files, by name). Each failure is its own err through on_error ("plugin.abi", "plugin.size", "plugin.symbol",
 * "plugin.name", "plugin.duplicate", "plugin.kind", "plugin.load"), the others go on. A missing dir is no error. Returns how many were loaded. */
int plugins_load_dir(struct plugins *p, const char *dir, void (*on_error)(void *arg, const char *path, const struct err *e), void *arg);
int plugins_add(struct plugins *p, const struct dmsr_plugin *plugin, struct err *e); /* checked like a loaded one; for tests */
enum plugin_role { PLUGIN_SOURCE,
	PLUGIN_TARGET,
	PLUGIN_STREAMER,
	PLUGIN_TRANSFORM,
	PLUGIN_CODEC };
const struct dmsr_plugin *plugins_find(const struct plugins *p, enum plugin_role role, const char *name);
/* As dmsr_env.codec has it; plugins: a struct plugins. */
const struct dmsr_codec *plugins_codec(const void *plugins, const char *name);
const struct dmsr_plugin *plugins_at(const struct plugins *p, size_t i);  /* NULL behind the last */
const char *plugins_origin(const struct plugins *p, const struct dmsr_plugin *plugin); /* "built in" or the path */

#endif
