/* pg_args: option=value words of a command line -> settings, by the plugin's own table and the engine's own checks. */
#ifndef DMSR_TESTS_IT_PG_ARGS_H
#define DMSR_TESTS_IT_PG_ARGS_H
#include "dmsr.h"
#include "engine/options.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct dmsr_plugin dmsr_plugin_postgres;

/* An option's text as the JSON that a job would have. */
static inline json_t *pg_arg_json(const struct dmsr_option *o, const char *v)
{
	if (o->type == DMSR_OPT_BOOL)
		return json_boolean(!strcmp(v, "true"));
	return o->type == DMSR_OPT_INT ? json_integer(strtoll(v, NULL, 10)) : json_string(v);
}

/* NULL, and the reasons on stderr. Takes given. */
static inline struct settings *pg_arg_settings(const struct dmsr_option *table, json_t *given)
{
	problems *p = json_array();
	struct settings *s = options_parse(table, NULL, given, NULL, "", NULL, p);
	char *text = s ? NULL : json_dumps(p, 0);
	if (text)
		fprintf(stderr, "%s\n", text);
	free(text);
	json_decref(p);
	json_decref(given);
	return s;
}

static inline enum dmsr_mode pg_arg_mode(const char *v)
{
	return !strcmp(v, "cdc") ? DMSR_CDC : !strcmp(v, "full-load") ? DMSR_FULL_LOAD : !strcmp(v, "none") ? (enum dmsr_mode)0 : DMSR_FULL_LOAD_AND_CDC;
}

#endif
