/* Whatever a message holds, a line in JSON is JSON, and one line. */
#include "base/log.h"
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(void *arg, const char *line, size_t len)
{
	json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	(void)arg;
	if (!json_is_object(o) || json_object_size(o) != 5 || memchr(line, '\n', len) != line + len - 1)
		abort();
	json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	log_set_sink(check, NULL);
	log_set_format(LOG_FORMAT_JSON);
	log_error("fuzz", text, "%s", text);
	free(text);
	return 0;
}
