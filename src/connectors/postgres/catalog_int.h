/* catalog_int: what the files of the catalog share. Nobody else includes it.
 *
 *   catalog.c       which tables, their columns and keys; the questions one after another
 *   catalog_types.c types that are not built in: what they mean, and what makes them
 *   catalog_ddl.c   extensions, sequences, constraints, indexes, comments */
#ifndef DMSR_POSTGRES_CATALOG_INT_H
#define DMSR_POSTGRES_CATALOG_INT_H
#include "catalog.h"

struct catalog_table {
	uint32_t id;
	char *schema, *name, *sql;      /* sql: quoted and qualified */
	char identity;                  /* pg_class.relreplident */
	bool has_key;
	struct relation_builder *b;
	struct relation *rel;           /* when all is known */
	char *schemas[8];               /* that were told of already */
	unsigned nschemas;
};

struct catalog {
	struct pgconn *conn;
	const struct dmsr_tables *patterns;
	bool with_ddl, leaves;
	void (*done)(void *arg, struct relation **rels, size_t n, const struct err *e);
	void *arg;

	struct catalog_table *tables;
	size_t ntables;
	struct map *by_id;              /* oid -> struct catalog_table */
	struct map *const *others;      /* by oid: tables that are not read, and may be referred to; NULL: none */
	struct map *const *only;        /* by oid: no other is read; NULL: all that match are */
	size_t first, last;             /* the group that is being asked about: tables[first .. last) */
	unsigned step;
	struct map *types;              /* oid -> struct catalog_type */
	struct buf values_sql;          /* the question for the sequences' values */
	struct catalog_sequence *sequences;
	size_t nsequences;
};

/* A field of a result: NULL when it is NULL. */
const char *catalog_cell(const PGresult *res, int row, int column);
bool catalog_true(const PGresult *res, int row, int column);
/* The table whose oid the field holds; NULL when it is not ours. */
struct catalog_table *catalog_table(const struct catalog *k, const PGresult *res, int row, int column);
/* "a.b.c" without quotes; c may be NULL. Freed by the caller. */
char *catalog_name(const char *a, const char *b, const char *c);
/* CREATE SCHEMA, once a table. */
void catalog_tell_schema(const struct catalog *k, struct catalog_table *t, const char *schema);

/* catalog_types.c. $1 is the array of the tables' oids in all questions. */
void catalog_types_sql(const struct catalog *k, struct buf *out);
void catalog_types_read(struct catalog *k, const PGresult *res);
/* What a column's type means; a domain means what its base type does. */
void catalog_type_meaning(const struct catalog *k, uint32_t oid, struct column *out);
/* The statements that make the type, what it is made of first; each once a table. */
void catalog_tell_type(const struct catalog *k, struct catalog_table *t, uint32_t oid);
void catalog_types_free(struct catalog *k);

/* catalog_ddl.c */
void catalog_tell_extension(const struct catalog *k, struct catalog_table *t, const char *extension, const char *schema);
void catalog_extensions_sql(const struct catalog *k, struct buf *out);
void catalog_extensions_read(struct catalog *k, const PGresult *res);
void catalog_collations_sql(const struct catalog *k, struct buf *out);
void catalog_collations_read(struct catalog *k, const PGresult *res);
void catalog_constraints_sql(const struct catalog *k, struct buf *out);
void catalog_constraints_read(struct catalog *k, const PGresult *res);
void catalog_indexes_sql(const struct catalog *k, struct buf *out);
void catalog_indexes_read(struct catalog *k, const PGresult *res);
void catalog_sequences_sql(const struct catalog *k, struct buf *out);
void catalog_sequences_read(struct catalog *k, const PGresult *res);
void catalog_values_sql(const struct catalog *k, struct buf *out);  /* empty: nothing to ask */
void catalog_values_read(struct catalog *k, const PGresult *res);
void catalog_comments_sql(const struct catalog *k, struct buf *out);
void catalog_comments_read(struct catalog *k, const PGresult *res);
void catalog_sequences_free(struct catalog *k);

#endif
