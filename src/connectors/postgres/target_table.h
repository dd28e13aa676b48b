/* target_table: what the server has under a table's name, by one question to its catalogs, and how the source's columns lie to it. */
#ifndef DMSR_POSTGRES_TARGET_TABLE_H
#define DMSR_POSTGRES_TARGET_TABLE_H
#include "target_sql.h"
#include <libpq-fe.h>

struct target_table *table_new(struct relation *rel);   /* rel is in force; referenced */
void table_free(struct target_table *tb);               /* NULL is fine */
/* The question about a table. Parameters: schema, name, key columns as an array. */
extern const char table_describe_sql[];
const char *table_describe_key(const struct target_table *tb, struct buf *out);
void table_described(struct target_table *tb, const PGresult *res);     /* its answer */

#endif
