/* arena: memory that is given back all at once. A batch's rows live in one. Not thread-safe; owned by one holder. */
#ifndef DMSR_BASE_ARENA_H
#define DMSR_BASE_ARENA_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#pragma GCC visibility push(default)

struct arena_chunk;
struct arena {
	char *at, *end;            /* free room in the newest chunk */
	struct arena_chunk *chunks;
	size_t bytes;              /* asked of malloc so far, all chunks */
	size_t chunk_bytes;        /* the most that an ordinary chunk has; the first is smaller */
};

void arena_init(struct arena *a, size_t chunk_bytes); /* 0: 64 KiB; allocates nothing yet */
void arena_fini(struct arena *a);                     /* gives all back; a is as after arena_init */
void *arena_grow(struct arena *a, size_t n);          /* slow path of arena_alloc */

/* n bytes, aligned to 8, not zeroed, valid until arena_fini. Never NULL (see mem.h). */
static inline void *arena_alloc(struct arena *a, size_t n)
{
	n = (n + 7) & ~(size_t)7;
	if ((size_t)(a->end - a->at) < n)
		return arena_grow(a, n);
	void *p = a->at;
	a->at += n;
	return p;
}
static inline void *arena_zalloc(struct arena *a, size_t n) { return memset(arena_alloc(a, n), 0, n); }
static inline void *arena_dup(struct arena *a, const void *p, size_t n)
{
	char *d = arena_alloc(a, n + 1);
	if (n)
		memcpy(d, p, n);
	d[n] = 0; /* so that a text may also be used as a C string */
	return d;
}
char *arena_strdup(struct arena *a, const char *s); /* NULL gives NULL */

#pragma GCC visibility pop
#endif
