/* index: where the rows of a batch stand, to bytes and back. The layout stands in index.h. */
#include "index.h"
#include <stdlib.h>

enum step { STEP_WORDS, STEP_ROWS, STEP_MOVE, STEP_TXN };
enum { FORMAT = 1 };

/* ---- numbers ---- */

static void put(struct buf *b, uint64_t v)
{
	for (; v > 0x7f; v >>= 7)
		buf_byte(b, (char)(v | 0x80));
	buf_byte(b, (char)v);
}

/* The shortest form alone: a record has one. */
static uint64_t get(struct cursor *c)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint64_t byte = cursor_u8(c);
		v |= (byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if ((!byte && shift) || (shift == 63 && byte > 1))
			cursor_fail(c);
		return c->bad ? 0 : v;
	}
	cursor_fail(c);
	return 0;
}

static uint64_t zigzag(int64_t v) { return (uint64_t)v << 1 ^ (uint64_t)(v >> 63); }
static int64_t zagzig(uint64_t v) { return (int64_t)(v >> 1 ^ -(v & 1)); }

/* ---- to bytes ---- */

struct lane {
	const struct index_row *first;
	uint64_t next;                  /* the offset behind the newest */
	uint32_t number;
};

struct encoder {
	struct map *by_name;            /* topic's pointer, partition */
	struct lane *lanes;
	uint32_t nlanes, cap;
	struct buf *out;
	const struct txn *txn;
	uint64_t event;
	uint32_t words;
};

static struct lane *lane_of(struct encoder *en, const struct index_row *r)
{
	struct { const char *topic; int64_t partition; } key = { r->topic, r->partition };
	uintptr_t number = (uintptr_t)map_get(en->by_name, &key, sizeof key);
	if (number)
		return &en->lanes[number - 1];
	if (en->nlanes == en->cap) {
		en->cap = en->cap ? 2 * en->cap : 16;
		en->lanes = mem_realloc_array(en->lanes, en->cap, sizeof *en->lanes);
	}
	struct lane *l = &en->lanes[en->nlanes];
	*l = (struct lane){ .first = r, .next = (uint64_t)r->offset, .number = en->nlanes++ };
	map_put(en->by_name, &key, sizeof key, (void *)(uintptr_t)en->nlanes);
	return l;
}

static void put_place(struct encoder *en, const struct index_row *r)
{
	struct lane *l = lane_of(en, r);
	put(en->out, l->number);
	put(en->out, (uint64_t)r->offset - l->next);
	l->next = (uint64_t)r->offset + 1;
}

static void put_words(struct encoder *en, uint32_t until)
{
	if (until == en->words)
		return;
	put(en->out, (uint64_t)(until - en->words) << 2 | STEP_WORDS);
	en->words = until;
}

static void put_txn(struct encoder *en, const struct txn *t)
{
	if (en->txn && en->txn->lsn == t->lsn)
		return;
	put(en->out, STEP_TXN);
	put(en->out, t->lsn);
	put(en->out, zigzag(t->commit_us));
	put(en->out, (uint64_t)t->xid << 1 | t->streamed);
	en->txn = t;
	en->event = 0;
}

static bool follows(const struct index_row *a, const struct index_row *b)
{
	return b && !b->is_old && b->topic == a->topic && b->partition == a->partition && b->offset == a->offset + 1 && b->words == a->words &&
		b->txn->lsn == a->txn->lsn && b->event == a->event + 1;
}

/* Returns the last row that is in it. */
static const struct index_row *put_rows(struct encoder *en, const struct index_row *r)
{
	const struct index_row *last = r;
	uint64_t n = 1;
	for (; follows(last, last->next); last = last->next)
		n++;
	put(en->out, n << 2 | STEP_ROWS);
	put_place(en, r);
	put(en->out, r->event - en->event - 1);
	lane_of(en, last)->next = (uint64_t)last->offset + 1;
	return last;
}

static const struct index_row *put_move(struct encoder *en, const struct index_row *r)
{
	put(en->out, (r->event - en->event - 1) << 2 | STEP_MOVE);
	put_place(en, r);
	put_place(en, r->next);
	return r->next;
}

static void put_lanes(struct encoder *en, const struct index_row *first)
{
	for (const struct index_row *r = first; r; r = r->next)
		lane_of(en, r);
	put(en->out, en->nlanes);
	for (uint32_t i = 0; i < en->nlanes; i++) {
		const struct index_row *r = en->lanes[i].first;
		const size_t len = strlen(r->topic);
		put(en->out, len);
		buf_append(en->out, r->topic, len);
		put(en->out, (uint64_t)r->partition);
		put(en->out, (uint64_t)r->offset);
	}
}

int index_encode(const struct index_row *first, uint64_t bytes, const char *words, size_t len, uint32_t nwords, struct buf *out)
{
	struct encoder en = { .by_name = map_new(), .out = out };
	size_t n = 0;
	for (const struct index_row *r = first; r; r = r->next)
		n++;
	buf_byte(out, FORMAT);
	put(out, bytes);
	put_lanes(&en, first);
	put(out, len);
	buf_append(out, words, len);
	for (const struct index_row *r = first; r; r = r->next) {
		put_words(&en, r->words);
		put_txn(&en, r->txn);
		r = r->is_old ? put_move(&en, r) : put_rows(&en, r);
		en.event = r->event;
	}
	put_words(&en, nwords);
	map_free(en.by_name);
	free(en.lanes);
	return buf_ok(out) && n <= INDEX_ROWS_MAX && en.nlanes <= INDEX_LANES_MAX ? 0 : DMSR_EFULL;
}

/* ---- and back ---- */

struct decoder {
	struct index *x;
	struct cursor c;
	uint64_t *next;                 /* of each lane */
	struct change *words;           /* those that no step has named yet */
	const struct txn *txn;          /* NULL: no TXN yet */
	uint64_t event;
	size_t cap;
};

static void get_lanes(struct decoder *d)
{
	struct index *x = d->x;
	uint64_t n = get(&d->c);
	enum { LANE_BYTES = 4 };
	if (n > INDEX_LANES_MAX || n > cursor_left(&d->c) / LANE_BYTES) {
		cursor_fail(&d->c);
		return;
	}
	x->lanes = mem_zalloc((size_t)(n + 1) * sizeof *x->lanes);
	d->next = mem_zalloc((size_t)(n + 1) * sizeof *d->next);
	for (; x->nlanes < n && !d->c.bad; x->nlanes++) {
		uint64_t len = get(&d->c);
		const char *name = len && len <= INDEX_TOPIC_MAX ? cursor_bytes(&d->c, (size_t)len) : NULL;
		uint64_t partition = get(&d->c);
		d->next[x->nlanes] = get(&d->c);
		if (!name || partition > INT32_MAX || d->next[x->nlanes] > INT64_MAX / 2 || memchr(name, 0, (size_t)len))
			cursor_fail(&d->c);
		else
			x->lanes[x->nlanes] = (struct index_lane){ mem_strndup(name, (size_t)len), (int32_t)partition };
	}
}

static void get_words(struct decoder *d, struct err *e)
{
	uint64_t len = get(&d->c);
	const char *packed = len <= cursor_left(&d->c) ? cursor_bytes(&d->c, (size_t)len) : NULL;
	struct batch *b = packed ? batch_unpack(packed, (size_t)len, e) : NULL;
	d->x->b = b;
	if (!b) {
		cursor_fail(&d->c);
		return;
	}
	d->words = b->first;
	b->first = b->last = NULL;
}

static void append_words(struct decoder *d, uint64_t n)
{
	struct batch *b = d->x->b;
	for (; n && d->words; n--) {
		struct change *ch = d->words;
		d->words = ch->next;
		ch->next = NULL;
		if (b->last)
			b->last->next = ch;
		else
			b->first = ch;
		b->last = ch;
		if (change_is_row(ch) || ch->op == OP_ROWS)
			cursor_fail(&d->c);
	}
	if (n)
		cursor_fail(&d->c);
}

static void get_txn(struct decoder *d, uint64_t n)
{
	struct batch *b = d->x->b;
	struct txn t = { .lsn = get(&d->c) };
	t.commit_us = zagzig(get(&d->c));
	uint64_t xid = get(&d->c);
	t.xid = (uint32_t)(xid >> 1);
	t.streamed = xid & 1;
	/* Of one transaction it stands once: what is counted goes on. */
	if (n || xid >> 1 > UINT32_MAX || (d->txn && d->txn->lsn == t.lsn))
		cursor_fail(&d->c);
	d->event = 0;
	/* With its begin it shares that one's. */
	d->txn = b->txn = b->last && b->last->txn && b->last->txn->lsn == t.lsn ? b->last->txn : batch_txn(b, &t);
}

static struct change *append_row(struct decoder *d, uint64_t gap)
{
	struct batch *b = d->x->b;
	if (!d->txn || gap >= POSITION_WHOLE - d->event - 1) {
		cursor_fail(&d->c);
		return NULL;
	}
	d->event += 1 + gap;
	struct change *ch = batch_append(b, OP_UPDATE, NULL);
	ch->txn = d->txn;
	ch->event = d->event;
	return ch;
}

static void add_spot(struct decoder *d, struct change *ch, uint32_t lane, bool is_old)
{
	struct index *x = d->x;
	if (x->nspots == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 64;
		x->spots = mem_realloc_array(x->spots, d->cap, sizeof *x->spots);
	}
	x->spots[x->nspots++] = (struct index_spot){ .ch = ch, .lane = lane, .offset = (int64_t)d->next[lane]++, .is_old = is_old };
}

/* Which lane; its next offset is behind what is passed over. */
static uint32_t get_lane(struct decoder *d)
{
	uint64_t lane = get(&d->c), skip = get(&d->c);
	if (lane >= d->x->nlanes || skip > INT64_MAX / 2 - d->next[lane]) {
		cursor_fail(&d->c);
		return 0;
	}
	d->next[lane] += skip;
	return (uint32_t)lane;
}

static void get_rows(struct decoder *d, uint64_t n)
{
	uint32_t lane = get_lane(d);
	uint64_t gap = get(&d->c);
	if (!n || n > INDEX_ROWS_MAX - d->x->nspots || (!d->c.bad && n > INT64_MAX / 2 - d->next[lane]))
		cursor_fail(&d->c);
	for (; n && !d->c.bad; n--, gap = 0) {
		struct change *ch = append_row(d, gap);
		if (ch)
			add_spot(d, ch, lane, false);
	}
}

static void get_move(struct decoder *d, uint64_t gap)
{
	uint32_t old = get_lane(d);
	struct change *ch = d->c.bad || d->x->nspots + 2 > INDEX_ROWS_MAX ? NULL : append_row(d, gap);
	if (!ch) {
		cursor_fail(&d->c);
		return;
	}
	add_spot(d, ch, old, true);
	uint32_t lane = get_lane(d);
	if (!d->c.bad)
		add_spot(d, ch, lane, false);
}

static void get_step(struct decoder *d)
{
	uint64_t tag = get(&d->c), n = tag >> 2;
	switch ((enum step)(tag & 3)) {
	case STEP_WORDS:
		append_words(d, n);
		break;
	case STEP_ROWS:
		get_rows(d, n);
		break;
	case STEP_MOVE:
		get_move(d, n);
		break;
	case STEP_TXN:
		get_txn(d, n);
		break;
	}
}

struct index *index_decode(const void *data, size_t len, struct err *e)
{
	struct index *x = mem_zalloc(sizeof *x);
	struct decoder d = { .x = x };
	cursor_init(&d.c, data, len);
	if (cursor_u8(&d.c) != FORMAT)
		cursor_fail(&d.c);
	x->bytes = get(&d.c);
	get_lanes(&d);
	if (!d.c.bad)
		get_words(&d, e);
	while (!d.c.bad && cursor_left(&d.c))
		get_step(&d);
	free(d.next);
	if (cursor_done(&d.c) && !d.words)
		return x;
	err_set(e, DMSR_EPROTO, "kafka.foreign", "it does not say where rows stand, as this version of dmsrd writes it");
	index_free(x);
	return NULL;
}

void index_forget_cut(struct index *x)
{
	enum { IS_THERE = 1 };
	size_t n = 0;
	for (struct change *ch = x->b->first; ch; ch = ch->next)
		ch->flags |= change_is_row(ch) ? IS_THERE : 0; /* one without values has none */
	for (size_t i = 0; i < x->nspots; i++)
		if (x->spots[i].ch->flags & IS_THERE)
			x->spots[n++] = x->spots[i];
	x->nspots = n;
}

void index_free(struct index *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->nlanes; i++)
		free(x->lanes[i].topic);
	free(x->lanes);
	free(x->spots);
	batch_free(x->b);
	free(x);
}
