/* target_ddl: columns that changed at the source, in the middle of its stream. */
#include "target_int.h"

enum step ddl_step(struct target *t, const struct change *ch)
{
	struct err e = { 0 };
	if (!ch->u.schema.old || relation_is_same(ch->u.schema.old, ch->rel) || position_covers(&t->saved, ch->txn->lsn, ch->event)) {
		table_get(t, ch->rel);
		return STEP_DONE;
	}
	err_set(&e, DMSR_ESTATE, "target.schema-changed", "%s.%s: its columns changed at the source", ch->rel->schema, ch->rel->name);
	err_hint(&e, "change the table at the target in the same way, then start the job again");
	target_fail(t, &e);
	return STEP_WAIT;
}

void ddl_fini(struct target *t) { (void)t; }
