/* plugins_builtin: the plugins that configure put inside. */
#ifndef DMSR_ENGINE_PLUGINS_BUILTIN_H
#define DMSR_ENGINE_PLUGINS_BUILTIN_H
#include "dmsr.h"

enum { PLUGINS_BUILTIN_MAX = 32 };
size_t plugins_builtin(const struct dmsr_plugin **out, size_t max); /* how many there are */

#endif
