/* Whatever stands in a packed batch, of a log on disk or a broker's record: it is refused, or readable to its last byte, and packed again it stays what it is.
 * Inputs: batches of decoded streams of real servers (corpus/pgoutput), and words of a load. */
#include "model/batch.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned seen;

static void look(const char *p, size_t n) { seen += n ? (unsigned char)p[0] + (unsigned char)p[n - 1] : 0; }

static void look_at_values(const struct change *ch, const struct value *v)
{
	for (unsigned i = 0; v && i < ch->rel->ncolumns; i++)
		look(v[i].data, v[i].len);
}

static int look_at_row(void *arg, const struct change *ch)
{
	(void)arg;
	look_at_values(ch, ch->u.row.before);
	look_at_values(ch, ch->u.row.after);
	return 0;
}

static void look_at(const struct batch *b)
{
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (change_is_row(ch))
			look_at_row(NULL, ch);
		else if (ch->op == OP_ROWS)
			change_each_row(ch, look_at_row, NULL, NULL);
		else if (ch->op == OP_MESSAGE)
			look(ch->u.message.data, ch->u.message.len);
}

/* b, packed; it is given up. */
static struct buf packed(struct batch *b)
{
	struct buf out;
	buf_init(&out, SIZE_MAX);
	look_at(b);
	if (batch_pack(b, &out))
		abort();
	batch_free(b);
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = { 0 };
	struct batch *b = batch_unpack(data, size, &e);
	if (!b)
		return e.code == DMSR_EPROTO ? 0 : (abort(), 0);
	struct buf once = packed(b);
	b = batch_unpack(once.data, once.len, NULL);
	if (!b)
		abort();
	struct buf twice = packed(b);
	if (once.len != twice.len || memcmp(once.data, twice.data, once.len) != 0)
		abort();
	buf_fini(&once);
	buf_fini(&twice);
	return 0;
}
