/* entry: what stands in the log, and which changes a position covers.
 *
 *   u8 version | u8 flags (1 has_end, 2 has_words) | position reached: u8 kind, and unless NONE u64 server lsn event flush | the packed batch
 *
 * `reached` never falls from entry to entry, so that the log can be searched without unpacking. */
#include "embedded.h"

enum { ENTRY_VERSION = 1, HAS_END = 1, HAS_WORDS = 2, ENTRY_FLAGS = 3 };

/* Words and rows of a load belong to no transaction of the stream: no position covers them. */
static bool is_of_load(const struct change *ch)
{
	return ch->op == OP_LOAD_BEGIN || ch->op == OP_ROWS || ch->op == OP_READ || ch->op == OP_LOAD_END || ch->op == OP_LOAD_DONE;
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

/* ---- what a position covers ---- */

static bool is_covered(const struct change *ch, const struct batch *b, const struct position *p)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_TRUNCATE:
		return ch->txn && position_covers(p, ch->txn->lsn, ch->event);
	case OP_BEGIN:
		return ch->txn && position_covers(p, ch->txn->lsn, 1);
	case OP_COMMIT:
		return ch->txn && position_covers(p, ch->txn->lsn, POSITION_WHOLE);
	case OP_SCHEMA:
		/* It has the number of the change before it: only the next one tells that it is behind. */
		return ch->txn && !b->is_load && position_covers(p, ch->txn->lsn, ch->event + 1);
	case OP_MESSAGE:
		return ch->txn ? position_covers(p, ch->txn->lsn, ch->event) : ch->u.message.lsn <= p->lsn;
	case OP_HEARTBEAT:
		return position_compare(&b->end, p) <= 0;
	case OP_READ: case OP_LOAD_BEGIN: case OP_ROWS: case OP_LOAD_END: case OP_LOAD_DONE:
		return false;
	}
	return false;
}

enum entry_known entry_known(const struct batch *b, const struct position *p)
{
	bool any = false, all = true;
	if (position_is_none(p) || position_is_none(&b->end))
		return KNOWN_NOTHING;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		bool is = is_covered(ch, b, p);
		any |= is;
		all &= is;
	}
	if (position_compare(&b->end, p) > 0)
		return any ? KNOWN_PART : KNOWN_NOTHING;
	return all ? KNOWN_ALL : KNOWN_PART;
}

void entry_cut(struct batch *b, const struct position *p)
{
	struct change **at = &b->first, *last = NULL;
	while (*at) {
		struct change *ch = *at;
		if (!is_covered(ch, b, p)) {
			last = ch;
			at = &ch->next;
			continue;
		}
		b->nchanges--;
		b->nrows -= change_is_row(ch);
		*at = ch->next;
	}
	b->last = last;
	int rest = position_compare(&b->end, p);
	if (rest > 0) {
		if (!b->first)
			batch_append(b, OP_HEARTBEAT, NULL)->txn = NULL;
		return;
	}
	/* Words alone are left, which may be known or not. They come behind p, and do not go back to where they were first. */
	position_copy(&b->end, p);
	b->more &= rest == 0;
}
