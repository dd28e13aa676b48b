/* ledger: a ring of the batches that are not delivered yet (or are, behind one that is not), and five marks that only rise. */
#include "ledger.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>

struct entry {
	struct position end;
	size_t bytes;
	bool delivered;
};

struct ledger {
	struct entry *ring;             /* of tokens delivered.token + 1 ... received.token, at token & (cap - 1) */
	size_t cap;
	struct ledger_mark received, streamed, delivered, stored, confirmed;
	struct ledger_mark storing;
	bool is_storing;
	uint64_t bytes;
};

struct ledger *ledger_new(const struct position *from)
{
	struct ledger *l = mem_zalloc(sizeof *l);

	l->cap = 64;
	l->ring = mem_alloc(l->cap * sizeof *l->ring);
	l->received.position = *from;
	l->streamed.position = *from;
	l->delivered.position = *from;
	l->stored.position = *from;
	/* What an earlier run has confirmed is not known: it is said once more. */
	return l;
}

void ledger_free(struct ledger *l)
{
	if (!l)
		return;
	free(l->ring);
	free(l);
}

uint64_t ledger_next(const struct ledger *l)
{
	return l->received.token + 1;
}

static struct entry *entry_of(const struct ledger *l, uint64_t token)
{
	return &l->ring[token & (l->cap - 1)];
}

static void grow(struct ledger *l)
{
	struct entry *old = l->ring;
	size_t cap = l->cap;

	l->cap *= 2;
	l->ring = mem_alloc(l->cap * sizeof *l->ring);
	for (uint64_t t = l->delivered.token + 1; t <= l->received.token; t++)
		*entry_of(l, t) = old[t & (cap - 1)];
	free(old);
}

/* The mark moves to the entry's end. Inside a transaction a position says nothing about what the server may forget: what the one
 * before it said still holds. */
static void advance(struct ledger_mark *m, uint64_t token, const struct position *end)
{
	uint64_t flush = m->position.flush;

	m->token = token;
	if (position_is_none(end))
		return;
	m->position = *end;
	if (!m->position.flush)
		m->position.flush = flush;
}

int ledger_received(struct ledger *l, const struct position *end, size_t bytes, uint64_t *token, struct err *e)
{
	const struct position *have = &l->received.position;
	char was[POSITION_TEXT_MAX], is[POSITION_TEXT_MAX];

	if (!position_is_comparable(end, have)) {
		err_set(e, DMSR_EFATAL, "server.changed", "the source is at %s, which is another server than the one of %s", position_format(end, is),
			position_format(have, was));
		return err_hint(e, "the source's server was replaced: delete the job and make it anew, so that the tables are loaded again");
	}
	if (!position_is_none(end) && position_compare(end, have) < 0)
		return err_set(e, DMSR_EFATAL, "position.backwards", "the source went back from %s to %s", position_format(have, was),
			position_format(end, is));
	if (l->received.token - l->delivered.token == l->cap)
		grow(l);
	*token = l->received.token + 1;
	*entry_of(l, *token) = (struct entry){ .end = *end, .bytes = bytes };
	l->bytes += bytes;
	advance(&l->received, *token, end);
	return 0;
}

void ledger_streamed(struct ledger *l, uint64_t token)
{
	assert(token == l->streamed.token + 1 && token <= l->received.token);
	advance(&l->streamed, token, &entry_of(l, token)->end);
}

bool ledger_delivered(struct ledger *l, uint64_t token)
{
	if (token <= l->delivered.token || token > l->streamed.token || entry_of(l, token)->delivered)
		return false;
	entry_of(l, token)->delivered = true;
	while (l->delivered.token < l->streamed.token) {
		struct entry *n = entry_of(l, l->delivered.token + 1);
		if (!n->delivered)
			break;
		l->bytes -= n->bytes;
		advance(&l->delivered, l->delivered.token + 1, &n->end);
	}
	return true;
}

bool ledger_wants_store(const struct ledger *l)
{
	return !l->is_storing && l->delivered.token > l->stored.token;
}

uint64_t ledger_store_begin(struct ledger *l, struct position *out)
{
	assert(ledger_wants_store(l));
	l->is_storing = true;
	l->storing = l->delivered;
	*out = l->storing.position;
	return l->storing.token;
}

void ledger_stored(struct ledger *l)
{
	assert(l->is_storing);
	l->is_storing = false;
	l->stored = l->storing;
}

void ledger_store_failed(struct ledger *l)
{
	assert(l->is_storing);
	l->is_storing = false;
}

bool ledger_confirm(struct ledger *l, struct position *out)
{
	const struct position *c = &l->confirmed.position;

	l->confirmed.token = l->stored.token;
	if (position_is_none(&l->stored.position) || (position_compare(&l->stored.position, c) == 0 && l->stored.position.flush == c->flush))
		return false;
	l->confirmed.position = l->stored.position;
	*out = l->stored.position;
	return true;
}

bool ledger_is_idle(const struct ledger *l)
{
	return !l->is_storing && l->stored.token == l->received.token;
}

void ledger_stat(const struct ledger *l, struct ledger_stat *out)
{
	*out = (struct ledger_stat){ l->received, l->streamed, l->delivered, l->stored, l->confirmed, l->bytes };
}
