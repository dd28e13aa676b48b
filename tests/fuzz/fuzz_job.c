/* A job's JSON, whatever it holds: it is taken, or refused with findings that have a code and a sensible pointer. What is taken hides every secret when it is
 * shown, is the same again when what was shown is put back, and is taken again without what only a reply has. */
#include "engine/spec.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const struct dmsr_plugin dmsr_plugin_embedded, dmsr_plugin_file, dmsr_plugin_json, dmsr_plugin_null, dmsr_plugin_postgres;
/* the table of what is built in knows only what is linked */
extern const struct dmsr_plugin *const linked[5];
const struct dmsr_plugin *const linked[5] = { &dmsr_plugin_embedded, &dmsr_plugin_file, &dmsr_plugin_json, &dmsr_plugin_null, &dmsr_plugin_postgres };

static void must(bool good)
{
	if (!good)
		abort();
}

static void check_findings(const problems *p)
{
	size_t i;
	json_t *one;
	json_array_foreach((json_t *)(uintptr_t)p, i, one)
	{
		const char *pointer = json_string_value(json_object_get(one, "pointer"));
		must(pointer && (!*pointer || *pointer == '/'));
		must(json_string_value(json_object_get(one, "code")) && json_string_value(json_object_get(one, "detail")));
	}
}

static void check_password(const json_t *shown, const json_t *part)
{
	const char *text = json_string_value(json_object_get(shown, "password"));
	must(!json_is_string(json_object_get(part, "password")) || (text && !strcmp(text, "***")));
}

static void check_shown(const json_t *job, const struct plugins *plugins)
{
	json_t *shown = spec_redact(job, plugins), *back = spec_keep_secrets(shown, job, plugins);
	check_password(json_object_get(shown, "source"), json_object_get(job, "source"));
	for (size_t i = 0; i < json_array_size(json_object_get(job, "targets")); i++)
		check_password(json_array_get(json_object_get(shown, "targets"), i), json_array_get(json_object_get(job, "targets"), i));
	must(json_equal(back, job));
	json_decref(shown);
	json_decref(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct plugins *plugins;
	if (!plugins)
		plugins = plugins_new();
	json_t *job = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	problems *p = json_array(), *again = json_array();
	struct spec *s = spec_parse(job, plugins, NULL, p);
	must(!s == (json_array_size(p) > 0));
	check_findings(p);
	json_t *kept = json_is_object(job) ? spec_clean(job) : NULL;
	if (s) {
		struct spec *same = spec_parse(kept, plugins, NULL, again);
		must(same && same->ntargets == s->ntargets && same->mode == s->mode && !strcmp(same->name, s->name));
		check_shown(kept, plugins);
		spec_free(same);
	} else if (kept) {
		json_decref(spec_redact(kept, plugins)); /* a reply shows it all the same */
	}
	spec_free(s);
	json_decref(kept);
	json_decref(job);
	json_decref(p);
	json_decref(again);
	return 0;
}
