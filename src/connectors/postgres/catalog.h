/* catalog: what the server's catalogs say: tables, columns, types, keys, and the ddl that recreates the rest. SQL text and the reading of its results;
 * the asking is the caller's (pgconn). Works with PostgreSQL 12 to 18. */
#ifndef DMSR_POSTGRES_CATALOG_H
#define DMSR_POSTGRES_CATALOG_H
#include "conn.h"

/* Runs its queries on c (READY; inside the caller's transaction, so a snapshot is honoured) and gives the relations of the permanent tables that match,
 * with ddl if wanted. Partitioned tables: the root, as one relation, unless `leaves`: then the leaves, each of which matches by its own name or its root's.
 * An empty include leaves out the tables that belong to an extension. done(rels moved: the caller unrefs and frees the array; NULL with e), once.
 *
 * The ddl's kinds, in the order in which they come; `name` is unquoted, its parts joined by dots:
 *   DDL_BEFORE_TABLE  schema (schema), extension (name), collation (schema.collation; of columns, indexes and constraints),
 *                     enum composite domain range (schema.type), sequence (schema.sequence)
 *   DDL_AFTER_LOAD    default (schema.table.column), primary-key unique exclude check (schema.table.constraint), index (schema.index),
 *                     sequence-owner (schema.sequence), identity (schema.table.column), setval (schema.sequence), comment (schema.table[.column])
 *   DDL_AFTER_ALL     foreign-key (schema.table.constraint), of tables that match alone
 * schema, extension, collation, sequence, default, sequence-owner, setval and comment may be run again as they are. A sequence's value is that of the moment.
 * Not told of: triggers, rules, row security, grants, statistics objects, inheritance and partitioning, replica identity. */
struct catalog;
struct catalog *catalog_read(struct pgconn *c, const struct dmsr_tables *tables, bool with_ddl, bool leaves,
	void (*done)(void *arg, struct relation **rels, size_t n, const struct err *e), void *arg);
/* Of some tables of a job: foreign keys may lead to its others too, by their oids. Borrowed until done; the map may be another by then. */
void catalog_refers_to(struct catalog *k, struct map *const *others);
/* Of the tables that match, those with these oids alone are read, and foreign keys lead to no others. Borrowed likewise. */
void catalog_only(struct catalog *k, struct map *const *these);
/* Before done only, also after the connection failed; NULL is fine. The connection is then good for pgconn_free alone: a query is under way on it. */
void catalog_cancel(struct catalog *k);

/* The sequences of tables whose value the role may not read, so that they begin anew at a target: their names, and the statement that mends it.
 * $1: array of oids. */
enum { MUTE_NAME, MUTE_FIX };
extern const char catalog_mute_sequences_sql[];

/* The first of its questions, for who wants no more: a row a table; and whether that one matches. */
enum { TABLE_OID, TABLE_SCHEMA, TABLE_NAME, TABLE_IDENTITY, TABLE_ROOT_SCHEMA /* of a leaf; NULL: it is none */, TABLE_ROOT_NAME };
void catalog_tables_sql(struct buf *out, const struct dmsr_tables *patterns, bool leaves);
bool catalog_is_meant(const struct dmsr_tables *patterns, const PGresult *res, int row);
uint32_t catalog_oid(const PGresult *res, int row, int column);

/* "schema"."table", quoted for SQL; appended to out. Identifiers are quoted by libpq's own rule (doubling the quote). */
void sql_ident(struct buf *out, const char *name);
void sql_qualified(struct buf *out, const char *schema, const char *name);
const char *sql_skip_name(const char *p);       /* to the blank, or the end, behind such a name */
void sql_literal(struct buf *out, const char *text);   /* '...' , E'' with backslashes */

#endif
