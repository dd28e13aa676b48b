/* hash: SipHash-1-3 (Aumasson and Bernstein) with a key of this process, FNV-1a, and a map over the former.
 *
 * The map is an array of entries in the order of insertion, and beside it an open-addressed table of places in that
 * array. A deleted entry stays, empty, until the array is packed. */
#include "base/hash.h"
#include "base/mem.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t key[2];
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	while (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
		if (errno != EINTR)
			abort();
}

static inline uint64_t rotl(uint64_t x, int b) { return x << b | x >> (64 - b); }

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

static inline uint64_t le64_at(const unsigned char *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return le64toh(v);
}

uint64_t hash_bytes(const void *p, size_t n)
{
	pthread_once(&key_once, make_key);
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
		key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
	const unsigned char *at = p;
	size_t left = n;
	for (; left >= 8; at += 8, left -= 8) {
		uint64_t m = le64_at(at);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	uint64_t last = (uint64_t)n << 56;
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)at[i] << (8 * i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t hash_stable(const void *p, size_t n, uint64_t seed)
{
	const unsigned char *at = p;
	uint64_t h = 0xcbf29ce484222325 ^ seed;
	for (size_t i = 0; i < n; i++)
		h = (h ^ at[i]) * 0x100000001b3;
	h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
	return h ^ h >> 33;
}

struct entry {
	uint64_t hash;
	void *key;
	size_t n;
	void *value; /* NULL: deleted */
};

struct map {
	struct entry *entries;
	size_t used, cap;   /* entries with the deleted ones; room */
	size_t live;
	uint32_t *table;    /* index into entries + 1; 0 = free */
	size_t mask;        /* slots of the table - 1 */
};

enum { FIRST_SLOTS = 8 };

struct map *map_new(void)
{
	struct map *m = mem_zalloc(sizeof *m);
	m->table = mem_zalloc(FIRST_SLOTS * sizeof *m->table);
	m->mask = FIRST_SLOTS - 1;
	return m;
}

void map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->used; i++)
		free(m->entries[i].key);
	free(m->entries);
	free(m->table);
	free(m);
}

static struct entry *find(const struct map *m, const void *k, size_t n, uint64_t hash)
{
	for (size_t slot = hash & m->mask; m->table[slot]; slot = (slot + 1) & m->mask) {
		struct entry *e = &m->entries[m->table[slot] - 1];
		if (e->value && e->hash == hash && e->n == n && (!n || !memcmp(e->key, k, n)))
			return e;
	}
	return NULL;
}

static void place(struct map *m, size_t index)
{
	size_t slot = m->entries[index].hash & m->mask;
	while (m->table[slot])
		slot = (slot + 1) & m->mask;
	m->table[slot] = (uint32_t)index + 1;
}

/* Drops the deleted entries and makes a table for twice the live ones at least. */
static void rebuild(struct map *m)
{
	size_t slots = FIRST_SLOTS, at = 0;
	while (slots < m->live * 4)
		slots *= 2;
	assert(slots <= UINT32_MAX);
	free(m->table);
	m->table = mem_zalloc(slots * sizeof *m->table);
	m->mask = slots - 1;
	for (size_t i = 0; i < m->used; i++)
		if (m->entries[i].value)
			m->entries[at++] = m->entries[i];
	m->used = at;
	m->cap = slots / 2;
	m->entries = mem_realloc_array(m->entries, m->cap, sizeof *m->entries);
	for (size_t i = 0; i < m->used; i++)
		place(m, i);
}

void *map_get(const struct map *m, const void *k, size_t n)
{
	const struct entry *e = find(m, k, n, hash_bytes(k, n));
	return e ? e->value : NULL;
}

void *map_put(struct map *m, const void *k, size_t n, void *value)
{
	assert(value);
	uint64_t hash = hash_bytes(k, n);
	struct entry *e = find(m, k, n, hash);
	if (e) {
		void *old = e->value;
		e->value = value;
		return old;
	}
	if (m->used == m->cap)
		rebuild(m);
	e = &m->entries[m->used];
	*e = (struct entry){ .hash = hash, .key = mem_alloc(n), .n = n, .value = value };
	if (n)
		memcpy(e->key, k, n);
	place(m, m->used++);
	m->live++;
	return NULL;
}

void *map_del(struct map *m, const void *k, size_t n)
{
	struct entry *e = find(m, k, n, hash_bytes(k, n));
	if (!e)
		return NULL;
	void *old = e->value;
	free(e->key);
	e->key = NULL;
	e->value = NULL;
	m->live--;
	return old;
}

size_t map_size(const struct map *m) { return m->live; }

void map_each(const struct map *m, void (*fn)(void *arg, const void *key, size_t n, void *value), void *arg)
{
	for (size_t i = 0; i < m->used; i++)
		if (m->entries[i].value)
			fn(arg, m->entries[i].key, m->entries[i].n, m->entries[i].value);
}
