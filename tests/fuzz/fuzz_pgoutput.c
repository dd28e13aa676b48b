/* Whatever a server sends, what comes out is framed, numbered upwards, and readable to its last byte; what cannot be that is refused.
 *
 * Input: a byte of wishes (bits 0-1: protocol version - 1, 2: tiny batches, 3: the host is often full, 4: a spool on disk, 5: begins inside of the first
 * transaction, 6: the catalog is asked), then captured records (tests/unit/pgoutput_kit.h; made by tests/tools/capture_pgoutput.py). */
#include "connectors/postgres/pgoutput.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SERVER = 7 };

struct host {
	bool is_open, asks, is_often_full;
	unsigned n;
	uint64_t event;
	struct position end;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check_values(const struct relation *rel, const struct value *v)
{
	for (unsigned i = 0; v && i < rel->ncolumns; i++) {
		must(v[i].kind == VALUE_NULL || v[i].kind == VALUE_UNCHANGED || v[i].kind == VALUE_TEXT || v[i].kind == VALUE_BINARY);
		must(v[i].kind != VALUE_TEXT || v[i].data[v[i].len] == 0);
	}
}

static void check_change(struct host *h, const struct change *ch)
{
	switch (ch->op) {
	case OP_BEGIN:
		must(!h->is_open);
		h->is_open = true;
		h->event = 0;
		break;
	case OP_COMMIT:
		/* Without its begin: that of the transaction that was begun in an earlier run. */
		must(ch->event == POSITION_WHOLE);
		h->is_open = false;
		break;
	case OP_CREATE:
	case OP_UPDATE:
	case OP_DELETE:
	case OP_TRUNCATE:
		must(h->is_open && ch->rel && ch->event > h->event);
		h->event = ch->event;
		must(ch->op == OP_TRUNCATE || ch->u.row.before || ch->u.row.after);
		if (ch->op != OP_TRUNCATE) {
			check_values(ch->rel, ch->u.row.before);
			check_values(ch->rel, ch->u.row.after);
		}
		break;
	case OP_SCHEMA:
		must(ch->rel != NULL);
		break;
	case OP_MESSAGE:
		must(ch->u.message.data && ch->u.message.data[ch->u.message.len] == 0);
		break;
	case OP_HEARTBEAT:
		break;
	default:
		abort();
	}
}

static void check_batch(struct host *h, struct batch *b)
{
	struct buf packed;
	if (!b)
		return;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		check_change(h, ch);
	must(b->end.kind == POSITION_LSN && b->end.server == SERVER && b->more == h->is_open);
	/* Lone messages name their own address: between transactions they may come out of its order, when input is made up. */
	h->end = b->end;
	buf_init(&packed, 64 << 20);
	must(!batch_pack(b, &packed));
	buf_fini(&packed);
	batch_free(b);
}

static struct relation *describe(void *ctx, uint32_t relid)
{
	(void)ctx;
	(void)relid;
	return NULL;
}

static enum dmsr_verdict ask(void *ctx, uint32_t relid)
{
	struct host *h = ctx;
	(void)relid;
	return h->asks ? DMSR_AGAIN : DMSR_OK;
}

static bool wanted(void *ctx, const struct relation *rel, uint64_t lsn, uint64_t *loaded_lsn)
{
	(void)lsn;
	(void)ctx;
	*loaded_lsn = rel->id % 7 == 0 ? 0x2000000 : 0;
	return rel->id % 5 != 0;
}

static bool dated(void *ctx, const struct relation *rel, uint64_t lsn)
{
	(void)ctx;
	return rel->id % 2 || lsn % 2;
}

static enum dmsr_verdict full(void *ctx, struct batch *b)
{
	struct host *h = ctx;
	if (h->is_often_full && ++h->n % 3)
		return DMSR_AGAIN;
	check_batch(h, b);
	return DMSR_OK;
}

static void replay(struct pgoutput *d, struct host *h, struct cursor *c)
{
	struct err e = { 0 };
	while (!c->bad && cursor_left(c)) {
		uint32_t n = cursor_be32(c);
		uint64_t start = cursor_be64(c);
		const char *p = n >= 8 ? cursor_bytes(c, n - 8) : NULL;
		if (!p)
			return;
		int rc = pgoutput_message(d, start, p, n - 8, &e);
		while (rc == DMSR_AGAIN)
			rc = pgoutput_continue(d, &e);
		if (rc) {
			must(rc == e.code && e.id[0] && e.message[0]);
			return;
		}
		if (n % 8 == 1)
			check_batch(h, pgoutput_take(d));
		if (n % 16 == 3 && pgoutput_keepalive(d, start))
			check_batch(h, pgoutput_take(d));
	}
	check_batch(h, pgoutput_take(d));
}

/* What a Begin that comes first says is its transaction; elsewhere something. */
static uint64_t first_lsn(struct cursor c)
{
	cursor_bytes(&c, 12);
	return cursor_u8(&c) == 'B' ? cursor_be64(&c) : 0x1000000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct host h = { 0 };
	struct position from = { 0 };
	struct cursor c;
	cursor_init(&c, data, size);
	uint8_t wishes = cursor_u8(&c);
	h.is_often_full = wishes & 8;
	h.asks = wishes & 64;
	const struct pgoutput_host host = { &h, describe, ask, wanted, full, dated, NULL, NULL, NULL, NULL, wishes & 128 };
	const struct dmsr_env env = { .job = "fuzz", .name = "source", .scratch = "/tmp" };
	const struct pgoutput_limits lim = { wishes & 4 ? 1024 : 256 << 10, wishes & 16 ? 4096 : 8 << 20, 1 << 20 };
	if (wishes & 32)
		from = (struct position){ POSITION_LSN, SERVER, first_lsn(c), 3, 0 };
	struct pgoutput *d = pgoutput_new(&host, &env, &lim, 1 + (wishes & 3), SERVER, &from);
	replay(d, &h, &c);
	pgoutput_free(d);
	return 0;
}
