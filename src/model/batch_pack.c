/* batch_pack: a batch as bytes for a log on disk, and back. The log may be torn or foreign: unpacking trusts nothing.
 *
 * All numbers big-endian:
 *   u8 version | u8 flags (1 more, 2 is_load, 4 has parts, 8 goes on with a load, 16 says the server of a load) | i64 received_us
 *   position end: u8 kind, and unless NONE u64 server lsn event flush | says the server of a load: u64 server
 *   u64 bytes | u64 nrows | has parts: u32 part
 *   u32 nrels, each a packed relation | u32 ntxns, each: u64 lsn, i64 commit_us, u32 xid, u8 streamed
 *   u32 nchanges, each: u8 op, u8 flags, u32 relation + 1 (0: none), u32 txn + 1 (0: none), u64 event, and
 *     c u d r: u8 which (1 before, 2 after), rows of values; value: u8 kind, for TEXT and BINARY u32 len, bytes
 *     rows:    u8 format, u32 rows, u32 len, bytes
 *     message: u64 lsn, u32 len, prefix, u32 len, bytes
 *     schema:  u32 old relation + 1
 *     load begin, in a batch that has parts: u32 parts
 *     load begin and end, in a batch that goes on with a load: u64 since */
#include "model/batch.h"
#include "base/hash.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

enum { PACK_VERSION = 1, FLAG_MORE = 1, FLAG_LOAD = 2, FLAG_PARTS = 4, FLAG_SINCE = 8, FLAG_SERVER = 16, HAS_BEFORE = 1, HAS_AFTER = 2 };

/* ---- out ---- */

struct packer {
	struct buf *out;
	struct map *rels;            /* pointer -> place + 1 as a pointer; only when there are several */
	const struct batch *b;
	uint32_t last_rel, ntxns;
	const struct txn *last_txn;
	bool has_parts, has_since;
};

static uint32_t rel_number(struct packer *p, struct relation *rel)
{
	if (!rel)
		return 0;
	if (p->last_rel && p->b->rels[p->last_rel - 1] == rel)
		return p->last_rel;
	if (!p->rels) {
		p->rels = map_new();
		for (uint32_t i = 0; i < p->b->nrels; i++)
			map_put(p->rels, &p->b->rels[i], sizeof rel, &p->b->rels[i]);
	}
	struct relation *const *at = map_get(p->rels, &rel, sizeof rel);
	return p->last_rel = at ? (uint32_t)(at - p->b->rels) + 1 : 0;
}

static void pack_bytes(struct buf *out, const char *data, size_t len)
{
	buf_u32(out, (uint32_t)len);
	buf_append(out, data, len);
}

static void pack_values(struct buf *out, const struct value *v, unsigned n)
{
	for (; n; n--, v++) {
		buf_byte(out, (char)v->kind);
		if (v->kind >= VALUE_TEXT)
			pack_bytes(out, v->data, v->len);
	}
}

static void pack_row(struct buf *out, const struct change *ch)
{
	const struct value *before = ch->u.row.before, *after = ch->u.row.after;

	buf_byte(out, (char)((before ? HAS_BEFORE : 0) | (after ? HAS_AFTER : 0)));
	if (before)
		pack_values(out, before, ch->rel->ncolumns);
	if (after)
		pack_values(out, after, ch->rel->ncolumns);
}

static void pack_change(struct packer *p, const struct change *ch)
{
	struct buf *out = p->out;

	if (ch->txn && ch->txn != p->last_txn) {
		p->last_txn = ch->txn;
		p->ntxns++;
	}
	buf_byte(out, (char)ch->op);
	buf_byte(out, (char)ch->flags);
	buf_u32(out, rel_number(p, ch->rel));
	buf_u32(out, ch->txn ? p->ntxns : 0);
	buf_u64(out, ch->event);
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_READ:
		pack_row(out, ch);
		break;
	case OP_ROWS:
		buf_byte(out, (char)ch->u.rows.format);
		buf_u32(out, ch->u.rows.rows);
		pack_bytes(out, ch->u.rows.data, ch->u.rows.len);
		break;
	case OP_MESSAGE:
		buf_u64(out, ch->u.message.lsn);
		pack_bytes(out, ch->u.message.prefix, strlen(ch->u.message.prefix));
		pack_bytes(out, ch->u.message.data, ch->u.message.len);
		break;
	case OP_SCHEMA:
		buf_u32(out, rel_number(p, ch->u.schema.old));
		break;
	case OP_LOAD_BEGIN:
		if (p->has_parts)
			buf_u32(out, ch->u.load.parts);
		if (p->has_since)
			buf_u64(out, ch->u.load.since);
		break;
	case OP_LOAD_END:
		if (p->has_since)
			buf_u64(out, ch->u.load.since);
		break;
	case OP_TRUNCATE: case OP_BEGIN: case OP_COMMIT: case OP_HEARTBEAT: case OP_LOAD_PART: case OP_LOAD_DONE:
		break;
	}
}

static void pack_position(struct buf *out, const struct position *p)
{
	buf_byte(out, (char)p->kind);
	if (!p->kind)
		return;
	buf_u64(out, p->server);
	buf_u64(out, p->lsn);
	buf_u64(out, p->event);
	buf_u64(out, p->flush);
}

/* Changes of one transaction stand together, so that a txn is new whenever it differs from the one before. */
static void pack_txns(const struct batch *b, struct buf *out)
{
	const struct txn *last = NULL;
	uint32_t n = 0;

	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (ch->txn && ch->txn != last) {
			last = ch->txn;
			n++;
		}
	buf_u32(out, n);
	last = NULL;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (ch->txn && ch->txn != last) {
			last = ch->txn;
			buf_u64(out, last->lsn);
			buf_u64(out, (uint64_t)last->commit_us);
			buf_u32(out, last->xid);
			buf_byte(out, last->streamed);
		}
}

static bool has_parts(const struct batch *b)
{
	for (const struct change *ch = b->is_load && !b->part ? b->first : NULL; ch; ch = ch->next)
		if (ch->op == OP_LOAD_BEGIN && ch->u.load.parts)
			return true;
	return b->part != 0;
}

static bool has_since(const struct batch *b)
{
	for (const struct change *ch = b->is_load && !b->part ? b->first : NULL; ch; ch = ch->next)
		if ((ch->op == OP_LOAD_BEGIN || ch->op == OP_LOAD_END) && ch->u.load.since)
			return true;
	return false;
}

int batch_pack(const struct batch *b, struct buf *out)
{
	struct packer p = {.out = out, .b = b, .has_parts = has_parts(b), .has_since = has_since(b)};
	bool says_server = position_is_none(&b->end) && b->end.server;
	int says = (p.has_parts ? FLAG_PARTS : 0) | (p.has_since ? FLAG_SINCE : 0) | (says_server ? FLAG_SERVER : 0);

	buf_byte(out, PACK_VERSION);
	buf_byte(out, (char)((b->more ? FLAG_MORE : 0) | (b->is_load ? FLAG_LOAD : 0) | says));
	buf_u64(out, (uint64_t)b->received_us);
	pack_position(out, &b->end);
	if (says_server)
		buf_u64(out, b->end.server);
	buf_u64(out, b->bytes);
	buf_u64(out, b->nrows);
	if (p.has_parts)
		buf_u32(out, b->part);
	buf_u32(out, b->nrels);
	for (uint32_t i = 0; i < b->nrels && buf_ok(out); i++)
		relation_pack(b->rels[i], out);
	pack_txns(b, out);
	buf_u32(out, b->nchanges);
	for (const struct change *ch = b->first; ch && buf_ok(out); ch = ch->next)
		pack_change(&p, ch);
	map_free(p.rels);
	return buf_ok(out) ? 0 : DMSR_EFULL;
}

/* ---- in ---- */

struct unpacker {
	struct cursor c;
	struct batch *b;
	const struct txn *txns;
	uint32_t ntxns;
	bool has_parts, has_since;
};

/* A count of things that take at least `least` bytes each: more than fit in what is left is a lie. */
static uint32_t count(struct cursor *c, size_t least)
{
	uint32_t n = cursor_be32(c);

	if (n > cursor_left(c) / least)
		cursor_fail(c);
	return c->bad ? 0 : n;
}

static const char *unpack_bytes(struct unpacker *u, uint32_t *len)
{
	*len = cursor_be32(&u->c);
	const char *p = cursor_bytes(&u->c, *len);
	return p ? arena_dup(&u->b->arena, p, *len) : NULL;
}

static void unpack_position(struct cursor *c, struct position *p)
{
	p->kind = cursor_u8(c);
	if (p->kind > POSITION_LSN)
		cursor_fail(c);
	if (!p->kind)
		return;
	p->server = cursor_be64(c);
	p->lsn = cursor_be64(c);
	p->event = cursor_be64(c);
	p->flush = cursor_be64(c);
}

static void unpack_rels(struct unpacker *u)
{
	uint32_t n = count(&u->c, 40);

	for (uint32_t i = 0; i < n && !u->c.bad; i++) {
		struct relation *rel = relation_unpack(&u->c, NULL);
		if (!rel)
			return;
		batch_hold(u->b, rel);
		relation_unref(rel);
	}
}

static void unpack_txns(struct unpacker *u)
{
	struct cursor *c = &u->c;
	uint32_t n = count(c, 21);
	struct txn *t = arena_alloc(&u->b->arena, n * sizeof *t);

	for (uint32_t i = 0; i < n; i++) {
		t[i].lsn = cursor_be64(c);
		t[i].commit_us = (int64_t)cursor_be64(c);
		t[i].xid = cursor_be32(c);
		t[i].streamed = cursor_u8(c) != 0;
	}
	u->txns = t;
	u->ntxns = n;
}

static struct relation *unpack_rel(struct unpacker *u)
{
	uint32_t n = cursor_be32(&u->c);

	if (n > u->b->nrels)
		cursor_fail(&u->c);
	return n && !u->c.bad ? u->b->rels[n - 1] : NULL;
}

static const struct value *unpack_values(struct unpacker *u, unsigned n)
{
	if (cursor_left(&u->c) < n) /* a byte each at least */
		cursor_fail(&u->c);
	if (u->c.bad)
		return NULL;
	struct value *v = batch_values(u->b, n);
	for (unsigned i = 0; i < n; i++) {
		v[i] = (struct value){ .kind = cursor_u8(&u->c) };
		if (v[i].kind > VALUE_BINARY)
			cursor_fail(&u->c);
		else if (v[i].kind >= VALUE_TEXT)
			v[i].data = unpack_bytes(u, &v[i].len);
	}
	return v;
}

static void unpack_row(struct unpacker *u, struct change *ch)
{
	uint8_t has = cursor_u8(&u->c);
	bool before = has & HAS_BEFORE, after = has & HAS_AFTER;

	/* Every reader relies on these: a row without the image that its operation is about does not exist. */
	if (!ch->rel || has > (HAS_BEFORE | HAS_AFTER) || (ch->op == OP_DELETE ? !before || after : !after)) {
		cursor_fail(&u->c);
		return;
	}
	if (before)
		ch->u.row.before = unpack_values(u, ch->rel->ncolumns);
	if (after)
		ch->u.row.after = unpack_values(u, ch->rel->ncolumns);
}

static void unpack_rows(struct unpacker *u, struct change *ch)
{
	uint32_t len;

	ch->u.rows.format = cursor_u8(&u->c);
	ch->u.rows.rows = cursor_be32(&u->c);
	ch->u.rows.data = unpack_bytes(u, &len);
	ch->u.rows.len = len;
	if (!ch->rel || (ch->u.rows.format != ROWS_COPY_TEXT && ch->u.rows.format != ROWS_COPY_BINARY))
		cursor_fail(&u->c);
}

static void unpack_message(struct unpacker *u, struct change *ch)
{
	uint32_t len;

	ch->u.message.lsn = cursor_be64(&u->c);
	ch->u.message.prefix = unpack_bytes(u, &len);
	if (ch->u.message.prefix && memchr(ch->u.message.prefix, 0, len))
		cursor_fail(&u->c);
	ch->u.message.data = unpack_bytes(u, &len);
	ch->u.message.len = len;
}

static void unpack_payload(struct unpacker *u, struct change *ch)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_READ:
		unpack_row(u, ch);
		return;
	case OP_ROWS:
		unpack_rows(u, ch);
		return;
	case OP_MESSAGE:
		unpack_message(u, ch);
		return;
	case OP_SCHEMA:
		ch->u.schema.old = unpack_rel(u);
		if (!ch->rel)
			cursor_fail(&u->c);
		return;
	case OP_TRUNCATE: case OP_LOAD_BEGIN: case OP_LOAD_PART: case OP_LOAD_END:
		if (ch->op == OP_LOAD_BEGIN && u->has_parts)
			ch->u.load.parts = cursor_be32(&u->c);
		if ((ch->op == OP_LOAD_BEGIN || ch->op == OP_LOAD_END) && u->has_since)
			ch->u.load.since = cursor_be64(&u->c);
		if (!ch->rel)
			cursor_fail(&u->c);
		return;
	case OP_BEGIN: case OP_COMMIT: case OP_HEARTBEAT: case OP_LOAD_DONE:
		return;
	}
	cursor_fail(&u->c);
}

static void unpack_change(struct unpacker *u)
{
	struct cursor *c = &u->c;
	uint8_t op = cursor_u8(c), flags = cursor_u8(c);
	struct relation *rel = unpack_rel(u);
	uint32_t txn = cursor_be32(c);
	uint64_t event = cursor_be64(c);

	/* Only what is outside of any transaction goes without one. */
	if (txn > u->ntxns || (!txn && op != OP_HEARTBEAT && op != OP_MESSAGE && op != OP_SCHEMA && op != OP_LOAD_DONE))
		cursor_fail(c);
	if (c->bad)
		return;
	struct change *ch = batch_append(u->b, (enum change_op)op, rel);
	ch->flags = flags;
	ch->event = event;
	ch->txn = txn ? &u->txns[txn - 1] : NULL;
	unpack_payload(u, ch);
}

static void unpack(struct unpacker *u)
{
	struct cursor *c = &u->c;
	struct batch *b = u->b;

	uint8_t version = cursor_u8(c), flags = cursor_u8(c);
	if (version != PACK_VERSION || flags > (FLAG_MORE | FLAG_LOAD | FLAG_PARTS | FLAG_SINCE | FLAG_SERVER))
		cursor_fail(c);
	b->more = flags & FLAG_MORE;
	b->is_load = flags & FLAG_LOAD;
	u->has_parts = flags & FLAG_PARTS;
	u->has_since = flags & FLAG_SINCE;
	b->received_us = (int64_t)cursor_be64(c);
	unpack_position(c, &b->end);
	if (flags & FLAG_SERVER)
		b->end.server = cursor_be64(c);
	uint64_t bytes = cursor_be64(c), nrows = cursor_be64(c);
	b->part = u->has_parts ? cursor_be32(c) : 0;
	unpack_rels(u);
	unpack_txns(u);
	for (uint32_t n = count(c, 18); n && !c->bad; n--)
		unpack_change(u);
	b->bytes = bytes;
	b->nrows = nrows;
	b->txn = u->ntxns ? &u->txns[u->ntxns - 1] : NULL;
}

struct batch *batch_unpack(const void *data, size_t len, struct err *e)
{
	struct unpacker u = {.b = batch_new()};

	cursor_init(&u.c, data, len);
	unpack(&u);
	if (cursor_done(&u.c))
		return u.b;
	batch_free(u.b);
	err_set(e, DMSR_EPROTO, "batch.malformed", "a packed batch is damaged, or was written by a newer version");
	return NULL;
}
