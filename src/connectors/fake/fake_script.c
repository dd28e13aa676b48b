/* fake_script: the steps of a source, by name. */
#include "fake_int.h"
#include <assert.h>
#include <stdlib.h>

static struct fake_script *scripts;

struct fake_script *fake_script_find(const char *name)
{
	struct fake_script *s = scripts;
	while (s && strcmp(s->name, name) != 0)
		s = s->next;
	return s;
}

struct fake_script *fake_script_new(const char *name)
{
	struct fake_script *s = mem_zalloc(sizeof *s);
	assert(!fake_script_find(name));
	s->name = mem_strdup(name);
	s->next = scripts;
	return scripts = s;
}

void fake_script_free(struct fake_script *s)
{
	struct fake_script **at = &scripts;
	assert(!s->instances && "a source outlives its script");
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	for (size_t i = 0; i < s->nsteps; i++) {
		relation_unref(s->steps[i].rel);
		relation_unref(s->steps[i].old);
	}
	free(s->steps);
	free(s->name);
	free(s);
}

static struct step *add(struct fake_script *s, enum step_kind kind, struct relation *rel)
{
	s->steps = mem_realloc_array(s->steps, s->nsteps + 1, sizeof *s->steps);
	struct step *st = &s->steps[s->nsteps++];
	s->lsn += FAKE_LSN_STEP;
	*st = (struct step){ .kind = kind, .rel = rel ? relation_ref(rel) : NULL, .lsn = s->lsn, .first_id = s->rows + 1 };
	s->stat.is_at_end = false;
	fake_source_wake(s);
	return st;
}

void fake_script_load(struct fake_script *s, struct relation *rel, unsigned batches, uint32_t rows_each)
{
	struct step *st = add(s, STEP_LOAD, rel);
	st->n = batches;
	st->per = rows_each;
	s->rows += (int64_t)batches * rows_each;
}

void fake_script_turn(struct fake_script *s, struct relation *rel, unsigned batches, uint32_t rows_each)
{
	fake_script_load(s, rel, batches, rows_each);
	s->steps[s->nsteps - 1].in_turn = true;
}

void fake_script_load_done(struct fake_script *s) { add(s, STEP_LOAD_DONE, NULL); }

void fake_script_txn(struct fake_script *s, enum change_op op, struct relation *rel, unsigned n, unsigned per_batch, size_t pad)
{
	struct step *st = add(s, STEP_TXN, rel);
	assert(per_batch);
	st->op = op;
	st->n = n;
	st->per = per_batch;
	st->pad = pad;
	s->rows += n;
}

void fake_script_join(struct fake_script *s)
{
	assert(s->nsteps && s->steps[s->nsteps - 1].kind == STEP_TXN);
	s->steps[s->nsteps - 1].joins = true;
}

void fake_script_schema(struct fake_script *s, struct relation *old, struct relation *rel)
{
	fake_script_txn(s, OP_CREATE, rel, 1, 1, 1);
	struct step *st = &s->steps[s->nsteps - 1];
	st->has_schema = true;
	st->old = old ? relation_ref(old) : NULL;
}

void fake_script_heartbeat(struct fake_script *s) { add(s, STEP_HEARTBEAT, NULL); }
void fake_script_gate(struct fake_script *s) { add(s, STEP_GATE, NULL); }

void fake_script_open_gate(struct fake_script *s)
{
	size_t i = 0;
	while (i < s->nsteps && (s->steps[i].kind != STEP_GATE || s->steps[i].is_open))
		i++;
	assert(i < s->nsteps && "no gate is closed");
	s->steps[i].is_open = true;
	fake_source_wake(s);
}

void fake_script_fail(struct fake_script *s, const struct err *e, unsigned times)
{
	struct step *st = add(s, STEP_FAIL, NULL);
	st->error = *e;
	st->n = times;
}

void fake_script_durable(struct fake_script *s, bool (*is_durable)(void *arg, const struct position *p), void *arg)
{
	s->is_durable = is_durable;
	s->arg = arg;
}

void fake_script_wrote(struct fake_script *s, uint64_t lsn) { s->wrote = lsn; }

void fake_script_stat(const struct fake_script *s, struct fake_script_stat *out)
{
	*out = s->stat;
	out->end_lsn = s->lsn;
	out->rows = s->rows;
}
