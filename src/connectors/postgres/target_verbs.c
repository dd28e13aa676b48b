/* target_verbs: the target as the plugin's table has it: strict or parallel, as the job's option `apply` says. */
#include "target.h"
#include "target_int.h"

static int verb_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	const struct dmsr_target *verbs = !strcmp(settings_str(s, "apply"), "parallel") ? &target_parallel : &target_strict;
	int rc = verbs->open(s, host, out, e);
	if (!rc)
		(*out)->verbs = verbs;
	return rc;
}

static void verb_start(struct dmsr_instance *i) { i->verbs->start(i); }
static size_t verb_begun(struct dmsr_instance *i, const struct dmsr_begun **out) { return i->verbs->begun(i, out); }
static enum dmsr_verdict verb_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token) { return i->verbs->apply(i, b, token); }
static void verb_flush(struct dmsr_instance *i) { i->verbs->flush(i); }
static void verb_let_go(struct dmsr_instance *i) { i->verbs->let_go(i); }
static void verb_stat(struct dmsr_instance *i, struct dmsr_target_stat *out) { i->verbs->stat(i, out); }
static void verb_stop(struct dmsr_instance *i) { i->verbs->stop(i); }

static void verb_close(struct dmsr_instance *i)
{
	if (i)
		i->verbs->close(i);
}

/* Rows that were there before cannot be told from those of parts. */
static bool takes_turns(const struct settings *s) { return strcmp(settings_str(s, "prepare"), "none") != 0; }

const struct dmsr_target pgtarget = {
	.takes_turns = takes_turns,
	.open = verb_open,
	.start = verb_start,
	.begun = verb_begun,
	.apply = verb_apply,
	.flush = verb_flush,
	.let_go = verb_let_go,
	.stat = verb_stat,
	.stop = verb_stop,
	.close = verb_close,
};
