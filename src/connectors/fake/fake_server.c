/* fake_server: what a target wrote, by name; and whether it is what a script sent. */
#include "fake_int.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static struct fake_server *servers;

struct fake_server *fake_server_find(const char *name)
{
	struct fake_server *v = servers;
	while (v && strcmp(v->name, name) != 0)
		v = v->next;
	return v;
}

struct fake_server *fake_server_new(const char *name)
{
	struct fake_server *v = mem_zalloc(sizeof *v);
	assert(!fake_server_find(name));
	v->name = mem_strdup(name);
	v->keeps = true;
	v->next = servers;
	return servers = v;
}

void fake_server_free(struct fake_server *v)
{
	struct fake_server **at = &servers;
	assert(!v->instances && "a target outlives its server");
	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	for (size_t i = 0; i < v->ntables; i++) {
		free(v->tables[i].schema);
		free(v->tables[i].name);
	}
	free(v->tables);
	free(v->rows);
	free(v->name);
	free(v);
}

const struct fake_table *fake_server_table(const struct fake_server *v, const char *name)
{
	for (size_t i = 0; i < v->ntables; i++)
		if (!strcmp(v->tables[i].name, name))
			return &v->tables[i];
	return NULL;
}

/* ---- is it all there? ---- */

static char verdict[256];

static const char *check_load(const struct fake_server *v, const struct step *st)
{
	const struct fake_table *t = fake_server_table(v, st->rel->name);
	uint64_t rows = (uint64_t)st->n * st->per;
	if (!t || !t->is_loaded)
		snprintf(verdict, sizeof verdict, "missing: %s is not loaded", st->rel->name);
	else if (t->rows != rows)
		snprintf(verdict, sizeof verdict, "%s has %" PRIu64 " loaded rows, not %" PRIu64, st->rel->name, t->rows, rows);
	else
		return NULL;
	return verdict;
}

/* The rows of st at row *at of the server. */
static const char *check_txn(const struct fake_server *v, const struct step *st, size_t *at)
{
	for (unsigned k = 0; k < st->n; k++, (*at)++) {
		const struct fake_row *r = v->rows ? &v->rows[*at] : NULL;
		int64_t id = st->first_id + k;
		if (*at == v->nrows)
			snprintf(verdict, sizeof verdict, "missing: row %" PRId64 " and what follows", id);
		else if (r->id != id || r->op != st->op || r->lsn != st->lsn || r->event != k + 1)
			snprintf(verdict, sizeof verdict, "row %" PRId64 " (%c) stands where row %" PRId64 " (%c) should", r->id, r->op, id, st->op);
		else
			continue;
		return verdict;
	}
	return NULL;
}

const char *fake_server_check(const struct fake_server *v, const struct fake_script *s)
{
	bool loads = s->stat.mode & DMSR_FULL_LOAD, follows = s->stat.mode & DMSR_CDC;
	const char *load = NULL, *why = NULL;
	size_t at = 0;
	for (size_t i = 0; i < s->nsteps && !why; i++) {
		const struct step *st = &s->steps[i];
		if (st->kind == STEP_LOAD && loads && !load)
			load = check_load(v, st);
		if (st->kind == STEP_LOAD_DONE && loads && !v->load_done && !load)
			load = "missing: the load is not done";
		if (st->kind == STEP_TXN && follows)
			why = check_txn(v, st, &at);
	}
	if (!why && at != v->nrows) {
		snprintf(verdict, sizeof verdict, "%zu rows too many, the first is %" PRId64, v->nrows - at, v->rows[at].id);
		return verdict;
	}
	return why && strncmp(why, "missing", 7) != 0 ? why : load ? load : why;
}
