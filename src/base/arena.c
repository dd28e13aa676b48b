/* arena: chunks from malloc, given back together. The first is small, and each as big as those before it, up to chunk_bytes: what holds one row takes little,
 * what holds many asks malloc rarely. Under ASan each piece is a chunk of its own, so that a step over its end is seen. */
#include "base/arena.h"
#include "base/mem.h"
#include "base/sanitizer.h"
#include <stdalign.h>
#include <stdbool.h>
#include <stdlib.h>

struct arena_chunk {
	struct arena_chunk *next;
	alignas(16) char data[];
};

enum { DEFAULT_CHUNK_BYTES = 64 * 1024, FIRST_CHUNK_BYTES = 2048 };

/* Where an arena without a chunk points, so that a piece of no bytes has an address too. */
static alignas(16) char nothing[16];

void arena_init(struct arena *a, size_t chunk_bytes)
{
	a->at = a->end = nothing;
	a->chunks = NULL;
	a->bytes = 0;
	a->chunk_bytes = chunk_bytes ? chunk_bytes : DEFAULT_CHUNK_BYTES;
}

void arena_fini(struct arena *a)
{
	for (struct arena_chunk *c = a->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	arena_init(a, a->chunk_bytes);
}

static struct arena_chunk *add_chunk(struct arena *a, size_t n)
{
	struct arena_chunk *c = mem_alloc(sizeof *c + n);
	c->next = a->chunks;
	a->chunks = c;
	a->bytes += sizeof *c + n;
	return c;
}

/* At least half of it is left behind a piece of n. */
static size_t next_chunk_bytes(const struct arena *a, size_t n)
{
	size_t size = FIRST_CHUNK_BYTES;
	while (size < a->chunk_bytes && (size <= a->bytes || size < 2 * n))
		size *= 2;
	return size < a->chunk_bytes ? size : a->chunk_bytes;
}

void *arena_grow(struct arena *a, size_t n)
{
#ifdef DMSR_ASAN
	bool own_chunk = true;
#else
	/* A big piece gets a chunk of its own: what is left of the present one stays in use. */
	bool own_chunk = n > a->chunk_bytes / 4;
#endif
	if (own_chunk)
		return add_chunk(a, n)->data;
	size_t size = next_chunk_bytes(a, n);
	a->at = add_chunk(a, size)->data;
	a->end = a->at + size;
	void *p = a->at;
	a->at += n;
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return s ? arena_dup(a, s, strlen(s)) : NULL;
}
