/* target_build: how far the statements behind the load are (keys, indexes, foreign keys), for who looks at the job meanwhile. What is under way each lane
 * knows; of an index the server tells how far it is, about once a second, on the instance's own connection, which has nothing to do then. */
#include "target_int.h"
#include <stdlib.h>

enum { LOOK_EVERY_MS = 1000 };

static const char look_sql[] =
	"SELECT pid, phase, CASE WHEN tuples_total > 0 THEN 100.0 * tuples_done / tuples_total "
	"WHEN blocks_total > 0 THEN 100.0 * blocks_done / blocks_total ELSE -1 END "
	"FROM pg_catalog.pg_stat_progress_create_index WHERE datname = pg_catalog.current_database()";

static void on_due(void *arg)
{
	struct target *t = arg;
	t->build.is_due = true;
	target_wake(t);
}

void build_begin(struct target *t, size_t total)
{
	t->build.made = 0;
	t->build.total = (uint32_t)total;
	t->build.began_us = loop_now_us(t->loop);
	if (!t->build.timer)
		t->build.timer = loop_timer_new(t->loop, "target", on_due, t);
	loop_timer_start(t->build.timer, LOOK_EVERY_MS);
}

void build_end(struct target *t)
{
	loop_timer_free(t->build.timer);
	t->build = (struct build){ 0 };
}

void build_statement(struct target *t)
{
	t->build.phase[0] = 0;
	t->build.percent = -1;
}

void build_made(struct target *t)
{
	build_statement(t);
	lane_instance(t)->build.made++;
}

/* ---- what the server says ---- */

static void take_phase(struct target *l, const char *phase, double percent)
{
	struct build *b = &l->build;
	if (strcmp(b->phase, phase) != 0 || percent < b->percent || b->seen_percent < 0) {
		snprintf(b->phase, sizeof b->phase, "%s", phase);
		b->seen_percent = percent;
		b->seen_us = loop_now_us(l->loop);
	}
	b->percent = percent;
}

/* Without the right to see it, or in a server that has no such view, there is nothing to tell. */
static void on_look(struct target *t)
{
	int n = t->answer ? PQntuples(t->answer) : 0;
	for (struct target *l = lanes_next(t, NULL); l; l = lanes_next(t, l)) {
		int i = 0;
		while (i < n && strcmp(PQgetvalue(t->answer, i, 0), l->pid) != 0)
			i++;
		if (i < n)
			take_phase(l, PQgetvalue(t->answer, i, 1), strtod(PQgetvalue(t->answer, i, 2), NULL));
		else
			build_statement(l);
	}
	if (t->build.timer)
		loop_timer_start(t->build.timer, LOOK_EVERY_MS);
}

void build_look(struct target *t)
{
	if (!t->build.is_due || t->is_asking || (t->in_pipeline && tx_out(t) == STEP_WAIT))
		return;
	t->build.is_due = false;
	target_try(t, look_sql, 0, NULL, on_look);
}

/* ---- how long that takes ---- */

static double seconds_since(const struct target *t, uint64_t us) { return (double)(loop_now_us(t->loop) - us) / 1e6; }

/* Of its phase, as fast as that went since it was seen first. */
static double seconds_left(const struct target *l)
{
	const struct build *b = &l->build;
	double done = b->percent - b->seen_percent;
	return b->phase[0] && b->seen_percent >= 0 && done > 0 ? seconds_since(l, b->seen_us) * (100 - b->percent) / done : -1;
}

/* One that is under way is taken for half done behind its first half of a phase: the server does not say how long the phases to come are. */
static double seconds_left_of_all(const struct target *t, const struct dmsr_target_stat *s)
{
	double made = t->build.made, left = -1, least = 0;
	for (unsigned i = 0; i < s->nbuilds; i++) {
		made += s->builds[i].percent > 0 ? s->builds[i].percent / 200 : 0;
		least = s->builds[i].seconds_left > least ? s->builds[i].seconds_left : least;
	}
	if (t->build.timer && made > 0 && made < t->build.total)
		left = seconds_since(t, t->build.began_us) * (t->build.total - made) / made;
	return left >= 0 && left < least ? least : left;
}

void build_stat(const struct target *t, struct dmsr_target_stat *out)
{
	out->builds_made = t->build.made;
	out->builds_total = t->build.total;
	out->nbuilds = 0;
	uint32_t keys = 0;
	for (struct target *l = lanes_next(t, NULL); l && out->nbuilds < DMSR_BUILDS_MAX; l = lanes_next(t, l)) {
		const struct ddl *d = ddlrun_under_way(l);
		if (!d)
			continue;
		keys++;
		out->builds[out->nbuilds++] = (struct dmsr_build){
			d->kind, d->name, l->build.phase[0] ? l->build.phase : NULL, l->build.phase[0] ? l->build.percent : -1, seconds_left(l)
		};
	}
	out->builds_seconds_left = seconds_left_of_all(t, out);
	if (!t->build.timer) /* nothing but keys yet, each with the rows of its table */
		out->builds_total = keys;
}
