/* Lines of dmsr.positions, merged: whatever they say, what is written of it reads back as the same. */
#include "connectors/postgres/target_ahead.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct ahead *a)
{
	struct ahead again;
	struct err e = { 0 };
	struct buf text;
	ahead_init(&again);
	buf_init(&text, 1 << 24);
	ahead_format(a, &text);
	if (ahead_merge(&again, buf_cstr(&text), &e) || again.n != a->n || position_compare(&again.low, &a->low))
		abort();
	for (size_t i = 0; i < a->n; i++)
		if (again.lsns[i] != a->lsns[i] || !ahead_has(&again, a->lsns[i]))
			abort();
	buf_fini(&text);
	ahead_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *at = text, *line;
	struct ahead a;
	ahead_init(&a);
	while ((line = strsep(&at, "\n"))) {
		struct err e = { 0 };
		if (!ahead_merge(&a, line, &e))
			check(&a);
	}
	ahead_fini(&a);
	free(text);
	return 0;
}
