/* Whatever a configuration holds: it is taken whole, or refused with findings that have a code and a sensible pointer. */
#include "engine/config_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_finding(const char *text, size_t size, const json_t *one)
{
	const char *pointer = json_string_value(json_object_get(one, "pointer"));
	if (!pointer || !json_string_value(json_object_get(one, "code")) || !json_string_value(json_object_get(one, "detail")))
		abort();
	if (*pointer && *pointer != '/')
		abort();
	unsigned line = config_text_line(text, size, pointer), lines = 1;
	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	if (line < 1 || line > lines)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	problems *p = json_array();
	struct config *c = config_load_text((const char *)data, size, p, NULL);
	size_t i;
	const json_t *one;
	if (!c != (json_array_size(p) > 0))
		abort();
	json_array_foreach(p, i, one)
	{
		check_finding((const char *)data, size, one);
	}
	if (c) {
		json_t *all = config_print(c);
		if (config_int(c, "http.body_max") < 1024 || config_int(c, "jobs.retry_initial") > config_int(c, "jobs.retry_max") ||
			json_object_size(all) < 20)
			abort();
		json_decref(all);
	}
	config_free(c);
	json_decref(p);
	return 0;
}
