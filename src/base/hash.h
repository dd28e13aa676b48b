/* hash: a 64-bit hash of bytes (SipHash-1-3 with a per-process key: keys may be chosen by others), a fixed one for
 * fingerprints, and a map from byte keys to pointers. */
#ifndef DMSR_BASE_HASH_H
#define DMSR_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>
#pragma GCC visibility push(default)

uint64_t hash_bytes(const void *p, size_t n);                      /* differs from process to process */
uint64_t hash_stable(const void *p, size_t n, uint64_t seed);      /* the same everywhere, forever: FNV-1a 64 with a final mix. Byte by byte: not for much */

struct map;                                                        /* owns copies of the keys, not the values */
struct map *map_new(void);
void map_free(struct map *m);                                      /* NULL is fine */
void *map_get(const struct map *m, const void *key, size_t n);     /* NULL: not there */
/* Returns the value that was there before, or NULL. value must not be NULL. */
void *map_put(struct map *m, const void *key, size_t n, void *value);
void *map_del(struct map *m, const void *key, size_t n);           /* the value that was there, or NULL */
size_t map_size(const struct map *m);
/* Calls fn for each entry, in the order of insertion; fn must not change the map. */
void map_each(const struct map *m, void (*fn)(void *arg, const void *key, size_t n, void *value), void *arg);
static inline void *map_get_u32(const struct map *m, uint32_t k) { return map_get(m, &k, sizeof k); }
static inline void *map_put_u32(struct map *m, uint32_t k, void *v) { return map_put(m, &k, sizeof k, v); }
static inline void *map_del_u32(struct map *m, uint32_t k) { return map_del(m, &k, sizeof k); }

#pragma GCC visibility pop
#endif
