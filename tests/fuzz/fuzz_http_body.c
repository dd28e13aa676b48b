/* A request's body: the first line is its Content-Type, the rest what came. What is taken is an object, not too deep, and reads the same again; what is
 * not taken is told without a word of it, but for a key that is there twice. */
#include "http/body.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int depth(const json_t *v)
{
	const char *key;
	json_t *item;
	size_t i;
	int most = 0, d;
	json_object_foreach((json_t *)(uintptr_t)v, key, item)
		most = (d = depth(item)) > most ? d : most;
	json_array_foreach(v, i, item)
		most = (d = depth(item)) > most ? d : most;
	return most + (json_is_object(v) || json_is_array(v));
}

static void must(int good)
{
	if (!good)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
	size_t n = line ? (size_t)(line - data) : 0;
	char *type = strndup((const char *)data, n);
	const char *body = (const char *)data + n + (line != NULL);
	size_t len = size - n - (line != NULL);
	struct err e = { 0 };
	problems *found = json_array();
	bool json = body_is_json(type, false);
	must(!json || body_is_json(type, true));
	body_is_json(NULL, true);
	bool empty = body_is_empty(body, len);
	json_t *o = body_parse(body, len, found, &e);
	if (o) {
		char *text = json_dumps(o, JSON_COMPACT);
		json_t *again = body_parse(text, strlen(text), found, &e);
		must(!json_array_size(found));
		must(json_is_object(o) && depth(o) <= BODY_DEPTH_MAX && again && json_equal(o, again));
		must(!empty || json_object_size(o) == 0);
		json_decref(again);
		free(text);
	} else {
		must(e.code == DMSR_EINVAL && !strncmp(e.id, "json.", 5) && (json_array_size(found) || !strstr(e.message, "hunter2")));
	}
	json_decref(found);
	json_decref(o);
	free(type);
	return 0;
}
