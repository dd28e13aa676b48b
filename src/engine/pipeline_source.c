/* pipeline_source: the source's side of a run: what it is told when it starts, and what it says. Its batches go to pipeline_flow.c. */
#include "pipeline_int.h"
#include <stdlib.h>

/* ---- what need not be loaded again ---- */

/* Is table l there, by the same snapshot, at every target? */
static bool all_have(const struct pipeline *p, const struct dmsr_loaded *l)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		if (memory_is_unwanted(p->run.memory, l))
			return false;
		const struct dmsr_loaded *has = table_set_find(&p->targets[i].memory->loaded, l->schema, l->name);
		if (!has || has->at.lsn != l->at.lsn)
			return false;
	}
	return p->ntargets > 0;
}

/* Of what is loaded. */
static bool has_readers(const struct pipeline *p)
{
	const struct channel *c = &p->channels[CHANNEL_STREAM];
	return !channel_of_load(p) && c->ops->has_readers && c->ops->has_readers(c->i);
}

/* May what is said of a load be on its way still? */
static bool keeps_loads(const struct pipeline *p)
{
	const struct channel *c = &p->channels[CHANNEL_STREAM];
	return !channel_of_load(p) && c->ops->keeps(c->i);
}

/* An OP_LOAD_DONE of before says nothing of this table: its own is to come, and is said again if a crash comes first. Beside the stream it may have come,
 * in the log, before the rows are everywhere: there the targets say whether they have had it. */
void pipeline_is_loaded(struct pipeline *p, const char *schema, const char *name, const struct position *at)
{
	if (!load_is_apart(p))
		memory_load_done_forget(p->run.memory);
	begun_forget(p, schema, name);
	memory_load_put(p->run.memory, schema, name, at);
}

/* What need not be loaded again. What all targets agree on is true, whatever was remembered here: the last step before a crash may be missing; unless others
 * read it too, of whom only the streamer knew. What is in the stream is on its way to them. */
static void agree_on_loads(struct pipeline *p)
{
	struct memory *m = p->run.memory;
	const struct table_set *known = memory_loaded(m);
	if (!p->ntargets)
		return;
	const struct table_set *first = &p->targets[0].memory->loaded;
	for (size_t i = 0; i < first->n && !has_readers(p); i++) {
		const struct dmsr_loaded *l = &first->list[i], *k = table_set_find(known, l->schema, l->name);
		bool is_on_its_way = k && k->at.lsn > l->at.lsn && keeps_loads(p); /* a newer load of it */
		if ((!k || k->at.lsn != l->at.lsn) && !is_on_its_way && all_have(p, l))
			pipeline_is_loaded(p, l->schema, l->name, &l->at);
	}
	for (size_t i = known->n; i-- > 0 && !keeps_loads(p);) {
		const struct dmsr_loaded k = known->list[i];
		if (all_have(p, &k))
			continue;
		log_warn("pipeline", p->run.name, "%s.%s is loaded again: not every target has it as it was loaded", k.schema, k.name);
		char *schema = mem_strdup(k.schema), *name = mem_strdup(k.name);
		memory_load_forget(m, schema, name);
		free(schema);
		free(name);
	}
}

/* What the job's patterns do not mean any more is read no longer. Should they mean it again, then it has missed changes, and is loaded anew. */
static void leave_out(struct pipeline *p)
{
	struct memory *m = p->run.memory;
	const struct table_set *loaded = memory_loaded(m);
	for (size_t i = loaded->n; i-- > 0;) {
		const struct dmsr_loaded *l = &loaded->list[i];
		if (dmsr_table_matches(&p->run.spec->tables, l->schema, l->name))
			continue;
		char *schema = mem_strdup(l->schema), *name = mem_strdup(l->name), *text = mem_printf("table %s.%s is no part of the job any more: the "
			"rows that were written stay", schema, name);
		memory_load_unwant(m, schema, name, NULL, NULL);
		p->run.host.notice(p->run.host.ctx, "tables", text);
		free(schema);
		free(name);
		free(text);
	}
}

/* ---- targets that were no part of the job for a while ---- */

static const struct ptarget *part_of(const struct pipeline *p, const struct memory_target *m)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (p->targets[i].memory == m)
			return &p->targets[i];
	return NULL;
}

/* Changes went by while a target was away: what it has of any load, ended or not, is of no use any more. A new one has nothing. */
static void unwant_what_it_has(const struct pipeline *p, const struct ptarget *t)
{
	struct memory *m = p->run.memory;
	for (size_t i = 0; i < t->memory->loaded.n; i++)
		memory_unwant(m, &t->memory->loaded.list[i]);
	for (size_t i = 0; i < t->nbegun; i++)
		memory_unwant(m, &(struct dmsr_loaded){ t->begun[i].schema, t->begun[i].name, t->begun[i].at });
	if (!t->memory->loaded.n)
		return;
	char *text = mem_printf("target %s was no part of the job for a while, and missed changes: all tables are loaded again", t->name);
	p->run.host.notice(p->run.host.ctx, "tables", text);
	free(text);
}

/* Who is away misses what goes by, unless the streamer has all that ever went by. */
static void note_who_is_away(struct pipeline *p)
{
	if (pipeline_gives_all(p))
		return;
	for (struct memory_target *m = NULL; (m = memory_target_next(p->run.memory, m));) {
		const struct ptarget *t = part_of(p, m);
		if (!t)
			memory_target_miss_put(p->run.memory, m);
		else if (m->is_new)
			unwant_what_it_has(p, t);
	}
}

/* What a target says it has lost does not count, whatever is remembered here. */
static void forget_lost(struct pipeline *p)
{
	for (size_t t = 0; t < p->ntargets; t++)
		for (size_t i = 0; i < p->targets[t].nbegun; i++) {
			const struct dmsr_begun *b = &p->targets[t].begun[i];
			if (!position_is_none(&b->at) || !table_set_find(memory_loaded(p->run.memory), b->schema, b->name))
				continue;
			log_warn("pipeline", p->run.name, "%s.%s is loaded again: target %s could not go on with it", b->schema, b->name, p->targets[t].name);
			memory_load_forget(p->run.memory, b->schema, b->name);
		}
}

/* ---- what it says ---- */

static void on_source_stopped(void *ctx)
{
	struct pipeline *p = ctx;
	p->source_stopped = true;
	pipeline_turn(p);
}

/* A job that reads the stream may have rows of a load open that an earlier run has begun, and wait for more of it. If its target is on the source's server no
 * snapshot can be taken as long as it does: so it is told first that there is no more. Whether there was an earlier run nothing need know. */
static void void_loads_of_before(struct pipeline *p)
{
	if (!channel_of_load(p))
		flow_void_loads(p);
}

static void on_load_begins(void *ctx)
{
	struct pipeline *p = ctx;
	if (!p->load_has_begun)
		void_loads_of_before(p);
	p->load_has_begun = true;
	p->load_is_sent = false;
	if (p->hold) {
		memory_load_done_forget(p->run.memory); /* at the end of a table it may be there already, held: the two are stored in any order */
		hold_loads(p->hold);
	}
	if (!channel_of_load(p))
		return;
	/* before any change that is read beside it: a run that ends amid the load leaves a log that no target is to be given before it has the tables */
	if (!memory_note(p->run.memory, PIPELINE_LOADING))
		memory_note_put(p->run.memory, PIPELINE_LOADING, "1", NULL, NULL);
	for (size_t i = 0; i < p->ntargets; i++)
		target_hold(&p->targets[i]);
}

static void on_load_ends(void *ctx)
{
	struct pipeline *p = ctx;
	p->load_is_sent = true;
	pipeline_turn(p);
}

/* Rows that go through the streamer are kept by none that lets loads take turns: it has told them delivered when all targets had committed them. Behind what
 * waits for one of the targets they would wait in memory, and the source, with all the other targets, for that. */
static bool is_turn_through_applied(struct pipeline *p, const struct ledger_stat *s, bool is_all)
{
	const struct channel *c = channel_stream(p);
	struct dmsr_streamer_stat log = { 0 };
	c->ops->stat(c->i, &log);
	return s->delivered.token >= p->turn_token && s->delivered.token >= (is_all ? s->received.token : p->turn_asked) && !log.log_bytes;
}

/* It has all that was sent, or, without is_all, what was sent when that was asked last. */
static bool has_all_sent(struct ptarget *t, bool is_all)
{
	if (is_all)
		return target_is_done(t) && !t->is_held && !t->is_amid;
	return target_is_done(t) || (position_is_comparable(&t->applied, &t->p->turn_at) && position_compare(&t->applied, &t->p->turn_at) >= 0);
}

/* Past the streamer they pass what a target has not been given of the stream; and what the streamer has told delivered says nothing of the targets. */
static bool is_turn_past_applied(struct pipeline *p, const struct ledger_stat *s, bool is_all)
{
	struct ledger_stat rows;
	ledger_stat(p->channels[CHANNEL_LOAD].ledger, &rows);
	if (!p->load_is_sent || rows.delivered.token < rows.received.token || (is_all && s->delivered.token < s->received.token))
		return false;
	for (size_t i = 0; i < p->ntargets; i++)
		if (!has_all_sent(&p->targets[i], is_all))
			return false;
	return true;
}

static bool turn_is_applied(void *ctx, bool is_all)
{
	struct pipeline *p = ctx;
	struct ledger_stat s;
	ledger_stat(channel_stream(p)->ledger, &s);
	bool is_past = pipeline_load_way(p) == DMSR_LOAD_PAST;
	if (!(is_past ? is_turn_past_applied(p, &s, is_all) : is_turn_through_applied(p, &s, is_all)))
		return false;
	p->turn_asked = s.received.token;
	p->turn_at = s.received.position;
	return true;
}

static void on_load_void(void *ctx, const char *schema, const char *name)
{
	struct pipeline *p = ctx;
	struct buf key;
	if (!p->voids)
		p->voids = map_new();
	buf_init(&key, SIZE_MAX);
	relation_key(&key, schema, name);
	map_put(p->voids, key.data, key.len, p);
	buf_fini(&key);
	for (size_t i = 0; i < p->ntargets; i++)
		target_note_rows(&p->targets[i]);
}

struct named { const char *schema, *name; };

static void pass_over(void *arg, struct table_count *c)
{
	const struct named *n = arg;
	c->is_passed_over |= !strcmp(c->schema, n->schema) && !strcmp(c->name, n->name);
}

static void take_up(void *arg, struct table_count *c)
{
	(void)arg;
	c->is_passed_over = false;
}

/* Of one that nothing is known of there is nothing to correct. */
static void on_left_out(void *ctx, const char *schema, const char *name)
{
	const struct pipeline *p = ctx;
	memory_each_count(p->run.memory, pass_over, &(struct named){ schema, name });
}

static void on_source_finished(void *ctx)
{
	struct pipeline *p = ctx;
	if (p->run.spec->mode & DMSR_CDC) /* there changes come, and no end */
		return;
	p->source_finished = true;
	flow_checkpoint(p, true);
	pipeline_turn(p);
}

static void on_source_failed(void *ctx, const struct err *e) { pipeline_fail(ctx, e, "source"); }

static void on_source_progress(void *ctx, const struct dmsr_load_progress *g)
{
	struct pipeline *p = ctx;
	struct table_count *c = memory_count(p->run.memory, g->schema, g->name);
	c->rows_read = (uint64_t)(g->rows < 0 ? 0 : g->rows);
	c->bytes_read = (uint64_t)(g->bytes < 0 ? 0 : g->bytes);
	c->rows_total = g->rows_total;
	c->bytes_total = g->bytes_total;
	c->is_loading = g->rows >= 0 && !g->done;
	c->is_dirty = true;
	pipeline_turn(p);
}

static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct pipeline *p = ctx;
	memory_note_put(p->run.memory, key, value, done, arg);
}

static const char *on_note_get(void *ctx, const char *key)
{
	struct pipeline *p = ctx;
	return memory_note(p->run.memory, key);
}

static void on_source_notice(void *ctx, const char *text)
{
	struct pipeline *p = ctx;
	p->run.host.notice(p->run.host.ctx, "source", text);
}

/* ---- its start ---- */

int pipeline_source_open(struct pipeline *p, struct err *e)
{
	const struct dmsr_plugin *plugin = p->run.spec->source.plugin;
	p->source_scratch = pipeline_scratch(p, "source", e);
	if (!p->source_scratch)
		return e->code;
	const struct dmsr_source_host host = {
		.ctx = p,
		.env = pipeline_env(p, "source", p->source_scratch),
		.emit = flow_emit,
		.progress = on_source_progress,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.notice = on_source_notice,
		.load_begins = on_load_begins,
		.load_ends = on_load_ends,
		.turn_is_applied = turn_is_applied,
		.load_void = on_load_void,
		.left_out = on_left_out,
		.finished = on_source_finished,
		.failed = on_source_failed,
		.stopped = on_source_stopped,
	};
	const struct position none = { 0 };
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		c->ledger = ledger_new(c == channel_stream(p) ? memory_delivered(p->run.memory) : &none);
	p->source_ops = plugin->source;
	return p->source_ops->open(p->run.spec->source.settings, &p->run.spec->tables, &host, &p->source, e);
}

/* Up to where every target has all; none: one has nothing, or that cannot be said. */
static struct position applied_by_all(const struct pipeline *p)
{
	struct position out = p->ntargets ? (struct position){ 0 } : *memory_delivered(p->run.memory);
	for (size_t i = 0; i < p->ntargets; i++) {
		const struct position *at = &p->targets[i].applied;
		if (position_is_none(at) || (i && !position_is_comparable(at, &out)))
			return (struct position){ 0 };
		if (!i || position_compare(at, &out) < 0)
			out = *at;
	}
	return out;
}

/* A target that has OP_LOAD_DONE still to come gets it again, where it is not on its way with the words before it, of each table: those that went beside the
 * stream are gone. */
static bool load_is_done(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets && !keeps_loads(p); i++)
		if (!p->targets[i].memory->load_done)
			return false;
	return memory_load_done(p->run.memory);
}

/* Is nothing to be loaded but tables that were added, or are to be loaded again, of a job whose changes flow? What stands in a topic is read by others, too,
 * who need a load without changes between its parts. */
static bool may_take_turns(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		const struct dmsr_target *ops = p->targets[i].ops;
		if (!ops->takes_turns || !ops->takes_turns(p->run.spec->targets[i].settings))
			return false;
	}
	return pipeline_wants_beside(p) && pipeline_load_way(p) != DMSR_LOAD_THROUGH && load_is_done(p);
}

/* What goes past a streamer waits in memory alone: where a part has no room there the stream would rest until the slowest target has taken it. */
static int64_t turn_bytes(const struct pipeline *p)
{
	return pipeline_load_way(p) == DMSR_LOAD_PAST ? channels_memory(p) / 2 : INT64_MAX;
}

static bool all_keep_parts(const struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (!p->targets[i].ops->begun)
			return false;
	return true;
}

/* The mode was another when it began. */
static void tell_of_unfinished(struct pipeline *p)
{
	bool has_begun = memory_loaded(p->run.memory)->n > 0;
	for (size_t i = 0; i < p->ntargets; i++)
		has_begun |= p->targets[i].nbegun > 0;
	if (!(p->run.spec->mode & DMSR_FULL_LOAD) && has_begun && !memory_load_done(p->run.memory))
		p->run.host.notice(p->run.host.ctx, "tables", "a load was not over when the job's mode became cdc: tables that are not whole at "
			"the targets stay so, without their keys and indexes, until the mode is full-load-and-cdc again");
}

/* May a target have what it keeps open until the stream has its end? Nothing that is stored says: a run that was killed may have given the streamer more.
 * Where loads do not go through the streamer the targets are held; and of what the hold's log has it has nothing, unless an earlier run had begun to give it.
 * Then it is given all of that first, which may end inside of a transaction. */
static bool may_be_amid_transaction(const struct pipeline *p)
{
	bool is_held = p->hold && hold_has_any(p->hold) && !hold_has_begun(p->hold);
	return pipeline_load_way(p) == DMSR_LOAD_THROUGH && !is_held;
}

void pipeline_source_start(struct pipeline *p)
{
	if (p->run.spec->mode & DMSR_CDC && !memory_note(p->run.memory, PIPELINE_FOLLOWED))
		memory_note_put(p->run.memory, PIPELINE_FOLLOWED, "1", NULL, NULL);
	memory_each_count(p->run.memory, take_up, NULL);
	tell_of_unfinished(p);
	note_who_is_away(p);
	agree_on_loads(p);
	for (size_t i = 0; i < p->ntargets; i++) /* behind that: the store keeps the order */
		memory_target_feed_put(p->run.memory, p->targets[i].memory);
	forget_lost(p);
	leave_out(p);
	if (p->hold)
		hold_go_on(p->hold);
	struct begun begun = begun_agree(p);
	const struct table_set *loaded = memory_loaded(p->run.memory), *unwanted = memory_unwanted(p->run.memory);
	const struct dmsr_source_start start = {
		.mode = p->run.spec->mode,
		.from = *memory_delivered(p->run.memory),
		.applied = applied_by_all(p),
		.is_beside = load_is_apart(p),
		.loaded = loaded->list,
		.nloaded = loaded->n,
		.unwanted = unwanted->list,
		.nunwanted = unwanted->n,
		.begun = begun.list,
		.nbegun = begun.n,
		.load_done = load_is_done(p),
		.ends_first = may_be_amid_transaction(p),
		.is_held = p->hold && !hold_has_begun(p->hold),
		.is_load_kept = pipeline_load_way(p) == DMSR_LOAD_THROUGH,
		.turn_bytes = may_take_turns(p) ? turn_bytes(p) : 0,
		.takes_rests = all_keep_parts(p),
	};
	if (p->hold && !p->source_ops->loads_beside) /* it does not say when a load ends: what it loads stands before its changes */
		hold_release(p->hold, 0);
	p->source_ops->start(p->source, &start);
	begun_free(&begun);
	if (p->is_paused)
		p->source_ops->pause(p->source);
}
