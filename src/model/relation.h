/* relation: the shape of a table at a position. Immutable once built, counted, versioned. The only thing that rooms share.
 * All strings are owned by the relation. Identifiers are the server's own, unquoted, UTF-8. Not thread-safe: loop thread only. */
#ifndef DMSR_MODEL_RELATION_H
#define DMSR_MODEL_RELATION_H
#include "base/buf.h"
#include "base/cursor.h"
#include "value.h"
#include <stdint.h>
#pragma GCC visibility push(default)

enum key_kind {
	KEY_NONE = 0,       /* no way to find a row again (replica identity nothing, or default without a primary key) */
	KEY_PRIMARY,        /* primary key columns */
	KEY_UNIQUE,         /* columns of the unique index that is the replica identity */
	KEY_FULL,           /* the whole old row is the key */
};

enum column_flags {
	COLUMN_NULLABLE = 1,
	COLUMN_GENERATED = 2,          /* computed by the server: never written by a target of the same engine */
	COLUMN_IDENTITY_ALWAYS = 4,
	COLUMN_IDENTITY_DEFAULT = 8,
};

struct column {
	const char *name;
	const char *native_type;       /* as its server would spell it in DDL, with modifiers: numeric(12,2), "My Schema".mood, int[] */
	const char *dflt;              /* default or generation expression in the source's dialect; NULL: none */
	const char *collation;         /* quoted and qualified as in DDL; NULL: default */
	const char *missing;           /* what rows have in it that are older than the column, as text; NULL: NULL, or not known */
	uint32_t type_id;              /* the source's own number of the type (PostgreSQL: oid); 0: none */
	int32_t typmod;                /* PostgreSQL's; -1: none */
	uint16_t source_id;            /* the source's own number of the column, never used for another (PostgreSQL: attnum); 0: not known */
	uint16_t key_pos;              /* 1-based place in the key; 0: not part of it */
	uint8_t type;                  /* enum logical_type; a domain has its base type's */
	uint8_t elem_type;             /* TYPE_ARRAY: of its elements; TYPE_RANGE/MULTIRANGE: of the bounds */
	uint8_t flags;                 /* enum column_flags */
};

/* What neutral columns do not hold, as statements in the source's own dialect. A target of the same engine runs them in
 * order, the phase says when; others ignore them. Each is safe to meet again: `kind` and `name` tell the target how to see whether it is there. */
enum ddl_phase { DDL_BEFORE_TABLE = 0, DDL_AFTER_LOAD, DDL_AFTER_ALL /* foreign keys: when every table is loaded */ };
struct ddl {
	uint8_t phase;                 /* enum ddl_phase */
	/* "schema" "extension" "enum" "domain" "composite" "range" "sequence" "primary-key" "unique" "check" "exclude" "index" "foreign-key"
	 * "default" "identity" "setval" "comment" ... */
	const char *kind;
	const char *name;              /* of the object, for messages and for "is it there": qualified, unquoted */
	const char *sql;               /* one statement, without a semicolon at the end */
};

struct relation {
	const char *engine;            /* "postgres", "mysql": whose native types and ddl these are */
	const char *schema, *name;
	uint32_t id;                   /* the source's number of the table (PostgreSQL: oid); 0: none */
	uint64_t fingerprint;          /* hash_stable of all below but ddl, estimates and what is missing in old rows: the version */
	uint8_t key;                   /* enum key_kind */
	uint16_t ncolumns, nkeys;
	const struct column *columns;
	const uint16_t *keys;          /* column numbers in key order, nkeys of them */
	uint32_t nddl;
	const struct ddl *ddl;
	int64_t rows_estimate, bytes_estimate; /* -1: unknown */
	uint32_t refs;
};

/* Building: fill a builder, then seal it. */
struct relation_builder;
struct relation_builder *relation_build(const char *engine, const char *schema, const char *name, uint32_t id);
/* Copies all strings. key_pos is taken from the column. */
void relation_build_column(struct relation_builder *b, const struct column *c);
void relation_build_ddl(struct relation_builder *b, enum ddl_phase phase, const char *kind, const char *name, const char *sql);
void relation_build_estimate(struct relation_builder *b, int64_t rows, int64_t bytes);
/* Computes keys and fingerprint; frees the builder. The relation has one reference, the caller's. */
struct relation *relation_seal(struct relation_builder *b, enum key_kind key);
void relation_build_free(struct relation_builder *b);

struct relation *relation_ref(struct relation *r);
void relation_unref(struct relation *r);                     /* NULL is fine */
void relation_key(struct buf *out, const char *schema, const char *name); /* appends what a map of tables has as its key */
int relation_find_column(const struct relation *r, const char *name); /* number or -1 */
bool relation_is_same(const struct relation *a, const struct relation *b); /* fingerprints equal */

/* Lossless bytes, versioned (of a packed batch; a target's memory of a table's shape). Big-endian, length-prefixed. */
int relation_pack(const struct relation *r, struct buf *out);
struct relation *relation_unpack(struct cursor *c, struct err *e); /* NULL on DMSR_EPROTO; bounded: 1,664 columns x 64 KiB strings */

#pragma GCC visibility pop
#endif
