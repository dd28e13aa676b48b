/* catalog: what the server's catalogs say: tables, columns, types, keys, and the ddl that recreates the rest. SQL text and the reading of its results;
 * the asking is the caller's (pgconn). Works with PostgreSQL 12 to 18. */
#ifndef DMSR_POSTGRES_CATALOG_H
#define DMSR_POSTGRES_CATALOG_H
#include "conn.h"

/* Runs its queries on c (READY; inside the caller's transaction, so a snapshot is honoured) and gives the relations of the tables that match, with ddl if wanted.
 * Partitioned tables: the root, as one relation, unless `leaves`. done(rels moved: the caller unrefs and frees the array). */
struct catalog;
struct catalog *catalog_read(struct pgconn *c, const struct dmsr_tables *tables, bool with_ddl, bool leaves,
	void (*done)(void *arg, struct relation **rels, size_t n, const struct err *e), void *arg);
void catalog_cancel(struct catalog *k);         /* before done only; NULL is fine */

/* "schema"."table", quoted for SQL; appended to out. Identifiers are quoted by libpq's own rule (doubling the quote). */
void sql_ident(struct buf *out, const char *name);
void sql_qualified(struct buf *out, const char *schema, const char *name);
void sql_literal(struct buf *out, const char *text);   /* '...' , E'' with backslashes */

#endif
