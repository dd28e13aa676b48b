/* target_judge: may a table of the target take the source's rows, and what becomes of it before they come? One opinion for who loads and applies
 * (target_prepare.c, target_apply.c) and for who asks before (probe_table.c). Pure: a table as the server has it (target_table.h) in, a verdict out. */
#ifndef DMSR_POSTGRES_TARGET_JUDGE_H
#define DMSR_POSTGRES_TARGET_JUDGE_H
#include "target_sql.h"
#include <libpq-fe.h>

enum prepare { PREPARE_NONE, PREPARE_CREATE, PREPARE_TRUNCATE, PREPARE_DROP };
enum policy { POLICY_STOP, POLICY_RETRY, POLICY_DEAD_LETTER, POLICY_IGNORE, POLICY_APPLY };
enum how { HOW_KEEP, HOW_EMPTY, HOW_MAKE, HOW_DROP };
enum type_fit { FIT_GOOD, FIT_BY_VALUE /* some values may be refused, or changed */, FIT_NEVER };

enum prepare judge_prepare(const char *word);   /* of the option prepare, */
enum policy judge_policy(const char *word);     /* of those that have policies */

/* Are its keys, indexes and the like ours to make? */
bool judge_is_ours(enum prepare prepare, const struct target_table *tb);

/* What the load does to it; the first fault is "target.table-missing", -mismatch or -loaded. where: the server, for the sentence. has_begun: dmsr.loads has
 * a load of it by this job. With HOW_KEEP and prepare create it has to be empty, or "target.table-not-empty" is said by judge_rows; job: whose rows they are,
 * NULL: not known. */
int judge_load(const struct target_table *tb, enum prepare prepare, bool has_begun, const char *where, enum how *how, struct err *e);
int judge_rows(const struct target_table *tb, const char *where, const char *job, struct err *e);
/* With HOW_EMPTY or HOW_DROP and prepare create rows of other jobs are not ours to take away: "target.table-shared". */
int judge_shared(const struct target_table *tb, const char *where, const char *job, const char *uid, struct err *e);
/* Nor is a table ours alone that another job is loading: "target.table-shared". */
int judge_begun(const struct target_table *tb, const char *where, const char *job, const char *uid, struct err *e);
/* Do the columns take the rows of the stream? What of those that the source alone has is: a fault; left out, but for the key's; made before. */
enum missing { MISSING_REFUSED, MISSING_LEFT_OUT, MISSING_MADE };
int judge_stream(const struct target_table *tb, enum missing missing, const char *where, struct err *e);
/* The table is to be emptied: would foreign keys of others act ("target.referenced")? res: what judge_references_sql gives ($1: the table); rest: what lets
 * foreign keys rest, for the hint. */
extern const char judge_references_sql[];
int judge_references(const struct target_table *tb, const PGresult *res, const char *where, const char *rest, struct err *e);
/* Does what is done to it, or is made on it after its load, need its owner? */
bool judge_needs_owner(const struct target_table *tb, enum prepare prepare, enum how how);

/* How a column's values, which come as text, go into the target's. */
enum type_fit judge_type(const struct relation *rel, const struct column *c, const struct target_column *own);
/* Are two keys that differ at the source two here? No by the word of a type that may take both for one: of another length, precision or notion of case. */
bool judge_key(const struct target_table *tb);

#endif
