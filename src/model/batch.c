/* batch: changes in one arena, and the references to the relations that they use. */
#include "model/batch.h"
#include "base/mem.h"
#include <stdlib.h>

/* From so many relations on a table of places is kept; below, looking at each is quicker. */
enum { FEW_RELATIONS = 16, CHUNK_BYTES = 16 * 1024 };

struct batch *batch_new(void)
{
	struct batch *b = mem_zalloc(sizeof *b);

	arena_init(&b->arena, CHUNK_BYTES);
	return b;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->nrels; i++)
		relation_unref(b->rels[i]);
	free(b->rels);
	free(b->slots);
	arena_fini(&b->arena);
	free(b);
}

static uint32_t slot_of(const struct batch *b, const struct relation *rel)
{
	/* Pointers of one allocator share low and high bits: a multiplication mixes them. */
	uint64_t h = (uint64_t)(uintptr_t)rel * 0x9e3779b97f4a7c15u;
	uint32_t s = (uint32_t)(h >> 32) & (b->nslots - 1);

	while (b->slots[s] && b->rels[b->slots[s] - 1] != rel)
		s = (s + 1) & (b->nslots - 1);
	return s;
}

/* slots is open-addressed, at most half full, and holds places in rels plus one. */
static void slots_grow(struct batch *b)
{
	b->nslots = b->nslots ? 2 * b->nslots : 8 * FEW_RELATIONS;
	free(b->slots);
	b->slots = mem_zalloc(b->nslots * sizeof *b->slots);
	for (uint32_t i = 0; i < b->nrels; i++)
		b->slots[slot_of(b, b->rels[i])] = i + 1;
}

static bool is_held(const struct batch *b, const struct relation *rel)
{
	if (b->nslots)
		return b->slots[slot_of(b, rel)] != 0;
	for (uint32_t i = 0; i < b->nrels; i++)
		if (b->rels[i] == rel)
			return true;
	return false;
}

void batch_hold(struct batch *b, struct relation *rel)
{
	if (rel == b->last_rel)
		return;
	b->last_rel = rel;
	if (is_held(b, rel))
		return;
	if (b->nrels == b->caprels) {
		b->caprels = b->caprels ? 2 * b->caprels : 4;
		b->rels = mem_realloc_array(b->rels, b->caprels, sizeof *b->rels);
	}
	b->rels[b->nrels++] = relation_ref(rel);
	if (b->nrels > FEW_RELATIONS && 2 * b->nrels > b->nslots)
		slots_grow(b);
	else if (b->nslots)
		b->slots[slot_of(b, rel)] = b->nrels;
}

const struct txn *batch_txn(struct batch *b, const struct txn *t)
{
	struct txn *own = arena_alloc(&b->arena, sizeof *own);

	*own = *t;
	return b->txn = own;
}

struct change *batch_append(struct batch *b, enum change_op op, struct relation *rel)
{
	struct change *ch = arena_zalloc(&b->arena, sizeof *ch);

	ch->op = (uint8_t)op;
	ch->rel = rel;
	ch->txn = b->txn;
	if (rel)
		batch_hold(b, rel);
	if (b->last)
		b->last->next = ch;
	else
		b->first = ch;
	b->last = ch;
	b->nchanges++;
	b->nrows += change_is_row(ch);
	return ch;
}
