/* target_rows: changes of the stream: target_apply.c (row by row), target_net.c and target_set.c (many at once), target_stmt.c and target_rules.c (what they
 * need at the server), target_ddl.c (changed columns), target_shape.c (what they were). */
#ifndef DMSR_POSTGRES_TARGET_ROWS_H
#define DMSR_POSTGRES_TARGET_ROWS_H
#include "target_tx.h"

/* ---- target_net.c, target_set.c ---- */
bool net_is_free(const struct target *t, const struct target_table *tb); /* may its changes be taken out of the order of other tables? */
bool net_add(struct target *t, struct target_table *tb, const struct change *ch); /* false: it must be sent alone */
void net_flush(struct target *t, struct target_table *tb);
void net_flush_all(struct target *t);
void net_drop_all(struct target *t);
void net_free(struct target_table *tb);
void set_init(struct target *t);
void set_fini(struct target *t);
void set_send(struct target *t, struct target_table *tb, const struct change *rows, size_t n);

/* ---- target_rules.c ---- */
void rules_ask(struct target *t, struct target_table *tb);              /* in the pipeline */
void rules_told(struct target_table *tb, const PGresult *res);
void rules_forget(struct target_table *tb);

/* ---- target_stmt.c ---- */
enum { STMT_NAME_MAX = 16 };
/* The prepared statement for this shape; prepared now if it is not there. */
void stmt_get(struct target *t, struct target_table *tb, const struct shape *sh, char name[STMT_NAME_MAX]);
void stmt_forget(struct target *t, const struct target_table *tb);
void stmt_forget_all(struct target *t);
void stmt_init(struct target *t);
void stmt_fini(struct target *t);

/* ---- target_apply.c ---- */
enum step apply_table(struct target *t, struct target_table *tb);        /* DONE: described, there, and fit for our rows */
enum step apply_row(struct target *t, const struct change *ch);
enum step apply_truncate(struct target *t, const struct change *ch);
bool apply_is_known(const struct target *t, const struct target_table *tb, const struct change *ch); /* is it in the target already? */
/* May rows of the table be newer than the change? (target_catch.h) */
static inline bool apply_catches(const struct target_table *tb, const struct change *ch) { return ch->txn && ch->txn->lsn < tb->until_lsn; }
void apply_init(struct target *t);
void apply_fini(struct target *t);
/* Which values a change brings: after, then before; PARAM_TEXT or none. */
void apply_shape(const struct target_table *tb, const struct change *ch, uint8_t *shape);
int apply_send(struct target *t, struct target_table *tb, const struct change *ch, struct err *e);

/* ---- target_ddl.c ---- */
enum step ddl_step(struct target *t, const struct change *ch);
/* DONE: the table, which is described, has been made fit for its relation as the policy has it. Else it was altered, or is not to be. */
enum step ddl_adopt(struct target *t, struct target_table *tb);

/* ---- target_shape.c ---- */
void shape_ask(struct target *t, struct target_table *tb);              /* in the pipeline */
void shape_told(struct target *t, struct target_table *tb, const PGresult *res);
void shape_forget(struct target_table *tb);                             /* to be asked again */
/* The relation in force is the table's shape from now on: its text, for dmsr.loads (the caller's to free); or written in the pipeline. */
char *shape_take(struct target_table *tb);
void shape_write(struct target *t, struct target_table *tb);

#endif
