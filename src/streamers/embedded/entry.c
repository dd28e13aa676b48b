/* entry: what stands in the log.
 *
 *   u8 version | u8 flags (1 has_end, 2 has_words) | position reached: u8 kind, and unless NONE u64 server lsn event flush | the packed batch
 *
 * `reached` never falls from entry to entry, so that the log can be searched without unpacking. */
#include "embedded.h"

enum { ENTRY_VERSION = 1, HAS_END = 1, HAS_WORDS = 2, ENTRY_FLAGS = 3 };

/* Words and rows of a load belong to no transaction of the stream: no position covers them. */
static bool is_of_load(const struct change *ch)
{
	return ch->op == OP_LOAD_BEGIN || ch->op == OP_ROWS || ch->op == OP_READ || ch->op == OP_LOAD_PART ||
		ch->op == OP_LOAD_END || ch->op == OP_LOAD_DONE;
}

static bool has_words(const struct batch *b)
{
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (is_of_load(ch))
			return true;
	return false;
}

bool entry_has_rows(const struct batch *b)
{
	if (!b->is_load)
		return false;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (is_of_load(ch) && ch->op != OP_LOAD_DONE)
			return true;
	return false;
}

int entry_write(struct buf *out, const struct batch *b, const struct position *reached)
{
	buf_byte(out, ENTRY_VERSION);
	buf_byte(out, (char)((position_is_none(&b->end) ? 0 : HAS_END) | (has_words(b) ? HAS_WORDS : 0)));
	buf_byte(out, (char)reached->kind);
	if (!position_is_none(reached)) {
		buf_u64(out, reached->server);
		buf_u64(out, reached->lsn);
		buf_u64(out, reached->event);
		buf_u64(out, reached->flush);
	}
	return batch_pack(b, out);
}

int entry_read(const void *data, size_t len, struct entry *out, struct err *e)
{
	struct cursor c;
	cursor_init(&c, data, len);
	*out = (struct entry){ 0 };
	uint8_t version = cursor_u8(&c), flags = cursor_u8(&c);
	struct position *p = &out->reached;
	p->kind = cursor_u8(&c);
	if (version != ENTRY_VERSION || flags > ENTRY_FLAGS || p->kind > POSITION_LSN)
		cursor_fail(&c);
	if (!c.bad && !position_is_none(p)) {
		p->server = cursor_be64(&c);
		p->lsn = cursor_be64(&c);
		p->event = cursor_be64(&c);
		p->flush = cursor_be64(&c);
	}
	out->has_end = flags & HAS_END;
	out->has_words = flags & HAS_WORDS;
	out->len = cursor_left(&c);
	out->batch = cursor_bytes(&c, out->len);
	if (!c.bad && !(out->has_end && position_is_none(p)))
		return 0;
	return err_set(e, DMSR_EPROTO, "streamer.log-damaged", "an entry of the spill log is damaged, or was written by a newer version");
}
