/* target_sql: the text of the target's statements. Pure: a table as the server has it and the shape of a change in, SQL out.
 *
 * A shape says for each column of the source's relation how its value comes: not at all, as text (its type is left to the server, which takes the
 * column's), or in binary form of a type that is named. Changes of one shape share one prepared statement. Parameters stand in this order:
 * the new values by column number, then the old ones by column number. */
#ifndef DMSR_POSTGRES_TARGET_SQL_H
#define DMSR_POSTGRES_TARGET_SQL_H
#include "dmsr.h"

/* A column that the target's table has. */
struct target_column {
	char *name;
	uint32_t type;                  /* oid */
	char *type_sql;                 /* "pg_catalog" names plain, others qualified; without modifiers */
	char *type_full;                /* the same with them */
	char *equals;                   /* OPERATOR(schema.=) of its type */
	bool is_generated, is_identity, is_identity_always, is_not_null, has_default;
	bool is_by_text;                /* an array of it is not taken apart into its values, or not written with commas */
	bool is_enum;
	bool is_in_primary_key;
	bool folds;                     /* its collation takes different texts for one */
};

struct claim_rules;
/* Rows of a table in dmsr.loads that is not loaded: */
#define LOAD_BEGUN "-1"
#define LOAD_LOST "-2"                  /* it is not to be waited for: the table has to be loaded again */
#define LOAD_FORGOTTEN "-3"             /* the job began anew since then: no load counts. Of nothing when that load is over (target_setup.c) */
#define LOAD_MOVED "-4"                 /* of "UID/0": its rows may have moved from part to part */
#define LOADED_IN_PART UINT64_MAX       /* a load was begun, and is not ended: another will be, from a later snapshot */
struct target_table {
	char *schema, *name;
	char *sql;                      /* "schema"."name" */
	struct relation *rel;           /* in force now; held */
	struct relation *shape;         /* what the target was last made fit for, by dmsr.loads; held; NULL: not known */
	bool has_shape;                 /* dmsr.loads was asked */
	bool is_asked, is_described;    /* described: what follows is known */
	bool exists;
	bool is_made;                   /* by us */
	bool has_made_key;              /* in this session */
	bool is_checked;                /* its columns take our rows */
	bool is_partitioned;
	bool has_key;                   /* a unique index on exactly the key's columns */
	bool has_other_unique;          /* unique or exclusion constraints beside it */
	bool has_triggers;              /* that fire when we write */
	bool is_foreign;                /* its rows are elsewhere */
	bool has_told_triggers;
	bool has_references;            /* foreign keys from or to it */
	bool has_cascade;               /* its rows may be changed by a foreign key's action */
	char *primary_key;              /* the constraint's name; NULL: none */
	struct target_column *columns;
	unsigned ncolumns;
	struct target_column **of;      /* for each column of rel: the target's, or NULL */
	uint8_t *lately;                /* for each column of rel: how its last value came (enum param) */
	bool has_rules;                 /* the catalog was asked for them (target_rules.c) */
	struct claim_rules *rules;      /* which changes must not pass each other; NULL: none of it may be spread */
	uint64_t loaded_lsn;            /* changes of transactions before it are in the loaded rows; 0: none are. LOADED_IN_PART: all are in rows to come */
	uint64_t until_lsn;             /* of transactions before this one some rows have the changes already; 0: see loaded_lsn */
	bool rows_move;                 /* until then: a row that was updated may be in none of its parts */
	bool was_loaded;                /* before the job began anew: its rows are there, but no load counts */
	bool has_rests;                 /* dmsr.loads has rows of its parts */
	uint64_t written_us;            /* when the last transaction that wrote to it began */
	unsigned by_row;                /* so many of its changes go one by one: a set was refused, but not its rows */
	struct net *net;                /* changes that are gathered (target_net.c) */
	struct dmsr_table_counts counts, open; /* not told yet: durable; in the open transaction. Their names are unused */
	bool has_counts;
	struct target_table *next_counted;
};

enum param { PARAM_NONE = 0, PARAM_TEXT, PARAM_BINARY };
struct shape {
	uint8_t op;                     /* OP_CREATE, OP_UPDATE, OP_DELETE */
	bool is_set;                    /* many rows: parameters are arrays of texts, the old values are the key */
	uint8_t has_key_only;           /* the old values are the key; else the whole row is looked for */
	const uint8_t *after, *before;  /* enum param for each column of rel; NULL: no such values */
};

/* The statement of a row change. An update returns, where it brings columns that the server lets nobody write in one (GENERATED ALWAYS AS IDENTITY), a row
 * for each: t if they have the values already. Its parameters' types: 0 or the oid of the binary form, into types (2 x rel->ncolumns); returns their number. */
int sql_row_change(struct buf *out, const struct target_table *tb, const struct shape *sh, uint32_t *types);
/* The same for a set of rows: after and before are PARAM_TEXT or none; each parameter is an array with a value a row. */
int sql_set_change(struct buf *out, const struct target_table *tb, const struct shape *sh, uint32_t *types);
bool sql_sets_any(const struct target_table *tb, const uint8_t *after); /* does an update that brings these write any? */
/* The oid whose send and receive functions the binary form of this column's values belongs to; 0: text must be made of them. */
uint32_t sql_binary_type(const struct relation *rel, const struct column *c);

/* TRUNCATE of several tables; flags: enum change_flags. Tables of the job that the source emptied with them, and whose rows here are newer than that, are not
 * among them, and are spared: where a foreign key leads from such a one to these, TRUNCATE would take its rows along (CASCADE) or refuse. */
struct sql_truncate_for {
	const char *uid;
	uint64_t lsn;                   /* of the source's transaction */
	bool keys_rest;                 /* foreign keys do not look at a DELETE; else the server refuses to empty the tables */
};
void sql_truncate(struct buf *out, struct target_table *const *tables, size_t n, unsigned flags, const struct sql_truncate_for *job);
/* CREATE TABLE as the source has it, without keys, defaults and identity. */
void sql_create_table(struct buf *out, const struct relation *rel);
/* "name" type COLLATE ... [NOT NULL], as in CREATE TABLE */
void sql_column(struct buf *out, const struct relation *rel, const struct column *c, bool with_not_null);
/* A statement that makes something, so that it is no error when that is there. False: it cannot be wrapped. */
bool sql_make_once(struct buf *out, const struct ddl *d);
/* A question: one row, one text: the statements, in one, that give an enum which is there the labels of the source's that it lacks, each behind the one that
 * it follows at the source; NULL: it lacks none, or there is no such enum. d is of that kind; false: it cannot be read. */
bool sql_ask_labels(struct buf *out, const struct ddl *d);
/* Its type as the target is to have it: the source's own words, or what comes closest when it is another engine's. */
void sql_type(struct buf *out, const struct relation *rel, const struct column *c);
/* COPY ... FROM STDIN of the columns that are written. is_frozen: the table was made or truncated in this transaction; its rows are written as old ones. */
void sql_copy(struct buf *out, const struct relation *rel, bool is_binary, bool is_frozen);
/* A temporary table for these columns, until COMMIT; COPY into that; and its rows into the table, in the place of those of the same key. */
void sql_part_table(struct buf *out, const struct relation *rel);
void sql_part_copy(struct buf *out, const struct relation *rel, bool is_binary);
void sql_part_merge(struct buf *out, const struct target_table *tb);
/* One row in COPY's text form. */
int sql_copy_row(struct buf *out, const struct relation *rel, const struct value *row, struct err *e);
/* Is it a column that we write? One that the source's server computes is computed again by ours, if that is of the same kind. */
bool sql_is_written(const struct relation *rel, const struct column *c);

#endif
