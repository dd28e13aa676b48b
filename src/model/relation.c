/* relation: builds, seals, packs and reads back the shape of a table. Everything a relation points to lies in its own arena.
 *
 * Packed, all numbers big-endian, str = u32 length + bytes, length 0xffffffff = NULL:
 *   u8 version | u64 fingerprint | str engine schema name | u32 id | u8 key | i64 rows bytes (estimates)
 *   u16 ncolumns, each: str name native_type dflt collation | u32 type_id | i32 typmod | u16 key_pos | u8 type elem_type flags
 *     u16 source_id | str missing (both from version 2 on)
 *   u32 nddl, each: u8 phase | str kind name sql */
#include "model/relation.h"
#include "base/arena.h"
#include "base/hash.h"
#include "base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PACK_VERSION = 2, MAX_COLUMNS = 1664, MAX_NAME_BYTES = 64 * 1024 };
#define MAX_SQL_BYTES ((uint32_t)64 << 20)
#define NO_STRING UINT32_MAX

/* What relation pointers point into. */
struct holder {
	struct relation r;
	struct arena arena;
};

struct relation_builder {
	struct holder *h;
	struct column *columns;
	struct ddl *ddl;
	size_t ncolumns, capcolumns, nddl, capddl;
};

/* ---- building ---- */

static char *keep(struct relation_builder *b, const char *s)
{
	return arena_strdup(&b->h->arena, s);
}

struct relation_builder *relation_build(const char *engine, const char *schema, const char *name, uint32_t id)
{
	struct relation_builder *b = mem_zalloc(sizeof *b);

	b->h = mem_zalloc(sizeof *b->h);
	arena_init(&b->h->arena, 2048);
	b->h->r.engine = keep(b, engine);
	b->h->r.schema = keep(b, schema);
	b->h->r.name = keep(b, name);
	b->h->r.id = id;
	b->h->r.rows_estimate = b->h->r.bytes_estimate = -1;
	return b;
}

void relation_build_column(struct relation_builder *b, const struct column *c)
{
	assert(b->ncolumns < UINT16_MAX);
	if (b->ncolumns == b->capcolumns) {
		b->capcolumns = b->capcolumns ? 2 * b->capcolumns : 16;
		b->columns = mem_realloc_array(b->columns, b->capcolumns, sizeof *b->columns);
	}
	struct column *to = &b->columns[b->ncolumns++];
	*to = *c;
	to->name = keep(b, c->name);
	to->native_type = keep(b, c->native_type ? c->native_type : "");
	to->dflt = keep(b, c->dflt);
	to->collation = keep(b, c->collation);
	to->missing = keep(b, c->missing);
}

void relation_build_ddl(struct relation_builder *b, enum ddl_phase phase, const char *kind, const char *name, const char *sql)
{
	if (b->nddl == b->capddl) {
		b->capddl = b->capddl ? 2 * b->capddl : 8;
		b->ddl = mem_realloc_array(b->ddl, b->capddl, sizeof *b->ddl);
	}
	b->ddl[b->nddl++] = (struct ddl){ (uint8_t)phase, keep(b, kind), keep(b, name), keep(b, sql) };
}

void relation_build_estimate(struct relation_builder *b, int64_t rows, int64_t bytes)
{
	b->h->r.rows_estimate = rows;
	b->h->r.bytes_estimate = bytes;
}

static void builder_drop(struct relation_builder *b)
{
	free(b->columns);
	free(b->ddl);
	free(b);
}

void relation_build_free(struct relation_builder *b)
{
	if (!b)
		return;
	arena_fini(&b->h->arena);
	free(b->h);
	builder_drop(b);
}

/* Column numbers in key order; the places are numbered 1, 2 ... without gaps, whatever the source called them. */
static void seal_keys(struct holder *h, struct column *columns)
{
	struct relation *r = &h->r;
	uint16_t *keys = arena_alloc(&h->arena, r->ncolumns * sizeof *keys);

	for (uint16_t i = 0; i < r->ncolumns; i++) {
		if (!columns[i].key_pos)
			continue;
		unsigned at = r->nkeys++;
		for (; at && columns[keys[at - 1]].key_pos > columns[i].key_pos; at--)
			keys[at] = keys[at - 1];
		keys[at] = i;
	}
	for (uint16_t k = 0; k < r->nkeys; k++)
		columns[keys[k]].key_pos = (uint16_t)(k + 1);
	r->keys = keys;
}

static void pack_str(struct buf *out, const char *s)
{
	if (!s) {
		buf_u32(out, NO_STRING);
		return;
	}
	size_t n = strlen(s);
	buf_u32(out, (uint32_t)n);
	buf_append(out, s, n);
}

/* What the fingerprint is over: the packed form from `engine` to `key`, without estimates, and the columns. */
static void pack_shape(const struct relation *r, struct buf *out)
{
	pack_str(out, r->engine);
	pack_str(out, r->schema);
	pack_str(out, r->name);
	buf_u32(out, r->id);
	buf_byte(out, (char)r->key);
}

static void pack_columns(const struct relation *r, struct buf *out, bool is_for_print)
{
	buf_u16(out, r->ncolumns);
	for (unsigned i = 0; i < r->ncolumns; i++) {
		const struct column *c = &r->columns[i];
		pack_str(out, c->name);
		pack_str(out, c->native_type);
		pack_str(out, c->dflt);
		pack_str(out, c->collation);
		buf_u32(out, c->type_id);
		buf_u32(out, (uint32_t)c->typmod);
		buf_u16(out, c->key_pos);
		buf_byte(out, (char)c->type);
		buf_byte(out, (char)c->elem_type);
		buf_byte(out, (char)c->flags);
		/* One that is not known leaves the fingerprint as it was before there were any. */
		if (!is_for_print || c->source_id)
			buf_u16(out, c->source_id);
		if (!is_for_print)
			pack_str(out, c->missing);
	}
}

static uint64_t fingerprint(const struct relation *r)
{
	struct buf b;

	buf_init(&b, SIZE_MAX);
	pack_shape(r, &b);
	pack_columns(r, &b, true);
	uint64_t h = hash_stable(b.data, b.len, 0);
	buf_fini(&b);
	return h;
}

struct relation *relation_seal(struct relation_builder *b, enum key_kind key)
{
	struct holder *h = b->h;
	struct relation *r = &h->r;
	struct column *columns = arena_alloc(&h->arena, b->ncolumns * sizeof *columns);
	struct ddl *ddl = arena_alloc(&h->arena, b->nddl * sizeof *ddl);

	if (b->ncolumns)
		memcpy(columns, b->columns, b->ncolumns * sizeof *columns);
	if (b->nddl)
		memcpy(ddl, b->ddl, b->nddl * sizeof *ddl);
	r->key = (uint8_t)key;
	r->ncolumns = (uint16_t)b->ncolumns;
	r->columns = columns;
	r->nddl = (uint32_t)b->nddl;
	r->ddl = ddl;
	seal_keys(h, columns);
	r->fingerprint = fingerprint(r);
	r->refs = 1;
	builder_drop(b);
	return r;
}

/* ---- holding ---- */

struct relation *relation_ref(struct relation *r)
{
	r->refs++;
	return r;
}

void relation_unref(struct relation *r)
{
	if (!r)
		return;
	assert(r->refs > 0);
	if (--r->refs)
		return;
	struct holder *h = (struct holder *)r;
	arena_fini(&h->arena);
	free(h);
}

void relation_key(struct buf *out, const char *schema, const char *name)
{
	buf_append(out, schema, strlen(schema) + 1);
	buf_str(out, name);
}

int relation_find_column(const struct relation *r, const char *name)
{
	for (int i = 0; i < r->ncolumns; i++)
		if (strcmp(r->columns[i].name, name) == 0)
			return i;
	return -1;
}

bool relation_is_same(const struct relation *a, const struct relation *b)
{
	return a == b || a->fingerprint == b->fingerprint;
}

/* ---- bytes ---- */

int relation_pack(const struct relation *r, struct buf *out)
{
	buf_byte(out, PACK_VERSION);
	buf_u64(out, r->fingerprint);
	pack_shape(r, out);
	buf_u64(out, (uint64_t)r->rows_estimate);
	buf_u64(out, (uint64_t)r->bytes_estimate);
	pack_columns(r, out, false);
	buf_u32(out, r->nddl);
	for (uint32_t i = 0; i < r->nddl; i++) {
		buf_byte(out, (char)r->ddl[i].phase);
		pack_str(out, r->ddl[i].kind);
		pack_str(out, r->ddl[i].name);
		pack_str(out, r->ddl[i].sql);
	}
	return buf_ok(out) ? 0 : DMSR_EFULL;
}

/* A string into the builder's arena. NULL when it is one; `required` ones must not be. */
static char *unpack_str(struct cursor *c, struct arena *a, uint32_t max, bool required)
{
	uint32_t n = cursor_be32(c);

	if (n == NO_STRING && !required)
		return NULL;
	const char *p = n <= max ? cursor_bytes(c, n) : NULL;
	if (!p || memchr(p, 0, n)) {
		cursor_fail(c);
		return NULL;
	}
	return arena_dup(a, p, n);
}

static void unpack_column(struct cursor *c, struct arena *a, unsigned version, struct column *to)
{
	*to = (struct column){ 0 };
	to->name = unpack_str(c, a, MAX_NAME_BYTES, true);
	to->native_type = unpack_str(c, a, MAX_NAME_BYTES, true);
	to->dflt = unpack_str(c, a, MAX_SQL_BYTES, false);
	to->collation = unpack_str(c, a, MAX_NAME_BYTES, false);
	to->type_id = cursor_be32(c);
	to->typmod = (int32_t)cursor_be32(c);
	to->key_pos = cursor_be16(c);
	to->type = cursor_u8(c);
	to->elem_type = cursor_u8(c);
	to->flags = cursor_u8(c);
	if (version > 1) {
		to->source_id = cursor_be16(c);
		to->missing = unpack_str(c, a, MAX_SQL_BYTES, false);
	}
	if (to->type >= TYPE_COUNT || to->elem_type >= TYPE_COUNT)
		cursor_fail(c);
}

static void unpack_ddl(struct cursor *c, struct arena *a, struct relation_builder *b)
{
	uint8_t phase = cursor_u8(c);
	char *kind = unpack_str(c, a, MAX_NAME_BYTES, true);
	char *name = unpack_str(c, a, MAX_NAME_BYTES, true);
	char *sql = unpack_str(c, a, MAX_SQL_BYTES, true);

	if (phase > DDL_AFTER_ALL)
		cursor_fail(c);
	if (!c->bad)
		relation_build_ddl(b, (enum ddl_phase)phase, kind, name, sql);
}

/* The head, up to the columns. NULL when it is bad. */
static struct relation_builder *unpack_head(struct cursor *c, struct arena *a, unsigned *version, uint64_t *print, uint8_t *key)
{
	*version = cursor_u8(c);
	if (!*version || *version > PACK_VERSION)
		cursor_fail(c);
	*print = cursor_be64(c);
	char *engine = unpack_str(c, a, MAX_NAME_BYTES, true);
	char *schema = unpack_str(c, a, MAX_NAME_BYTES, true);
	char *name = unpack_str(c, a, MAX_NAME_BYTES, true);
	uint32_t id = cursor_be32(c);
	*key = cursor_u8(c);
	int64_t rows = (int64_t)cursor_be64(c), bytes = (int64_t)cursor_be64(c);
	if (c->bad || *key > KEY_FULL)
		return NULL;
	struct relation_builder *b = relation_build(engine, schema, name, id);
	relation_build_estimate(b, rows, bytes);
	return b;
}

static struct relation *unpack(struct cursor *c, struct arena *a)
{
	uint64_t print;
	uint8_t key;
	unsigned version;
	struct relation_builder *b = unpack_head(c, a, &version, &print, &key);

	if (!b)
		return NULL;
	unsigned ncolumns = cursor_be16(c);
	if (ncolumns > MAX_COLUMNS)
		cursor_fail(c);
	for (unsigned i = 0; i < ncolumns && !c->bad; i++) {
		struct column col;
		unpack_column(c, a, version, &col);
		if (!c->bad)
			relation_build_column(b, &col);
	}
	uint32_t nddl = cursor_be32(c);
	for (uint32_t i = 0; i < nddl && !c->bad; i++)
		unpack_ddl(c, a, b);
	if (c->bad) {
		relation_build_free(b);
		return NULL;
	}
	struct relation *r = relation_seal(b, (enum key_kind)key);
	if (r->fingerprint == print)
		return r;
	relation_unref(r);
	return NULL;
}

struct relation *relation_unpack(struct cursor *c, struct err *e)
{
	struct arena a; /* for strings whose length is known but that have no NUL behind them */

	arena_init(&a, 2048);
	struct relation *r = unpack(c, &a);
	arena_fini(&a);
	if (!r) {
		cursor_fail(c);
		err_set(e, DMSR_EPROTO, "relation.malformed", "a packed relation is damaged, or was written by a newer version");
	}
	return r;
}
