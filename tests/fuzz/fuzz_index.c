/* Whatever stands in a record of PREFIX.__words: it is refused, or says where rows are, and written again it stays what it is.
 * Inputs: records of the encoder (tests/unit/test_kafka_index.c writes them, where DMSR_CORPUS names a directory). */
#include "streamers/kafka/index.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* x as its writer has it; its batch is left with the words alone. */
static struct buf written(struct index *x)
{
	struct index_row *rows = mem_zalloc((x->nspots + 1) * sizeof *rows);
	struct buf words, out;
	struct change **at = &x->b->first, *last = NULL;
	uint32_t nwords = 0;
	size_t n = 0;
	while (*at) {
		struct change *ch = *at;
		if (!change_is_row(ch)) {
			last = ch;
			at = &ch->next;
			nwords++;
			continue;
		}
		for (; n < x->nspots && x->spots[n].ch == ch; n++) {
			const struct index_lane *l = &x->lanes[x->spots[n].lane];
			rows[n] = (struct index_row){ .topic = l->topic, .partition = l->partition, .offset = x->spots[n].offset };
			rows[n].is_old = x->spots[n].is_old;
			rows[n].txn = ch->txn;
			rows[n].event = ch->event;
			rows[n].words = nwords;
			if (n)
				rows[n - 1].next = &rows[n];
		}
		x->b->nchanges--;
		x->b->nrows--;
		*at = ch->next;
	}
	x->b->last = last;
	if (n != x->nspots)
		abort();
	buf_init(&words, SIZE_MAX);
	buf_init(&out, SIZE_MAX);
	if (batch_pack(x->b, &words) || index_encode(n ? rows : NULL, x->bytes, words.data, words.len, nwords, &out))
		abort();
	buf_fini(&words);
	free(rows);
	index_free(x);
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = { 0 };
	struct index *x = index_decode(data, size, &e);
	if (!x)
		return e.code == DMSR_EPROTO ? 0 : (abort(), 0);
	struct buf once = written(x);
	x = index_decode(once.data, once.len, &e);
	if (!x)
		abort();
	struct buf twice = written(x);
	if (once.len != twice.len || memcmp(once.data, twice.data, once.len) != 0)
		abort();
	buf_fini(&once);
	buf_fini(&twice);
	return 0;
}
