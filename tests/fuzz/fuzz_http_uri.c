/* A request's line: method, space, target. What the parts decode to is text without control characters, and a route gets no more than it takes. */
#include "base/utf8.h"
#include "http/router.h"
#include "http/text.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int good)
{
	if (!good)
		abort();
}

static void check_text(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0, len; i < n; i += len) {
		must((unsigned char)s[i] >= 0x20 && s[i] != 0x7f);
		must((len = utf8_sequence(s + i, n - i)) > 0);
	}
}

static void check_route(const char *method, const struct uri *u)
{
	const char *args[ROUTE_ARGS_MAX] = { NULL };
	struct err e;
	unsigned allow;
	const struct route *r = route_find(method_parse(method), u, args, &allow);
	if (!r)
		return;
	must(r->methods & method_parse(method));
	for (const char *p = strchr(r->pattern, '{'), **arg = args; p; p = strchr(p + 1, '{'), arg++)
		must(*arg && **arg);
	if (route_check_query(r, u, &e))
		must(!strncmp(e.id, "query.", 6));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line = strndup((const char *)data, size), *space = strchr(line, ' ');
	struct uri u;
	struct err e = { 0 };
	if (space) {
		*space = 0;
		if (!uri_parse(space + 1, &u, &e)) {
			for (size_t i = 0; i < u.nsegments; i++)
				check_text(u.segments[i]);
			for (size_t i = 0; i < u.nparams; i++) {
				check_text(u.params[i].name);
				check_text(u.params[i].value);
				must(uri_param(&u, u.params[i].name) != NULL);
			}
			check_route(line, &u);
		} else {
			must(e.code != 0 && u.path != NULL);
		}
		uri_fini(&u);
	}
	char *text = cursor_decode(line), *cursor = text ? cursor_encode(text) : NULL;
	must(!cursor || !strcmp(cursor, line)); /* one text, one cursor */
	free(cursor);
	free(text);
	free(line);
	return 0;
}
