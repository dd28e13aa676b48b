/* file_story: what the tests of the file target feed when something happens on the way: transactions 3 to 22 of two tables, and a load before them; in as many
 * lives as it takes, all again. */
#ifndef DMSR_TESTS_UNIT_FILE_STORY_H
#define DMSR_TESTS_UNIT_FILE_STORY_H
#include "file_kit.h"

enum { STORY_BATCHES = 23 };

/* told: each lsn that is applied, when it is; may be NULL. */
KIT void story_feed(struct host *h, void (*told)(uint64_t lsn))
{
	struct batch *b[STORY_BATCHES] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n2\tx\t\\N\n"),
		word(OP_LOAD_END, orders, 0x80) };
	for (int i = 3; i < STORY_BATCHES; i++)
		b[i] = transaction(i % 2 ? orders : odd, 0x100 * (uint64_t)i, i, 1);
	for (uint64_t i = 0; i < STORY_BATCHES && !h->has_failed; i++) {
		apply(h, b[i], i + 1);
		if (i % 5 != 4 && i + 1 != STORY_BATCHES)
			continue;
		target()->flush(h->i);
		target()->flush(h->i);
		wait_applied(h, i + 1);
		if (told && !h->has_failed)
			told(0x100 * i);
	}
	for (int i = 0; i < STORY_BATCHES; i++)
		batch_free(b[i]);
}

/* Each id once, in each table in its order. */
KIT void story_assert_all_there(void)
{
	struct buf want;
	buf_init(&want, 1 << 16);
	for (int i = 4; i < STORY_BATCHES; i += 2)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	for (int i = 1; i < 3; i++)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	for (int i = 3; i < STORY_BATCHES; i += 2)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	assert_text(buf_cstr(&want));
	buf_fini(&want);
	assert_int_equal(count_parts(), 0);
}

#endif
