/* pipeline_target: one target's way: opened, asked where it stands, subscribed; batches handed to it, what it applied handed back; rows it refuses
 * written down before it goes on. */
#include "pipeline_int.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- batches to it ---- */

static void push_flight(struct ptarget *t, const struct flight *f)
{
	if (t->count == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 64;
		struct flight *ring = mem_alloc(cap * sizeof *ring);
		for (size_t i = 0; i < t->count; i++)
			ring[i] = t->ring[(t->first + i) & (t->cap - 1)];
		free(t->ring);
		t->ring = ring;
		t->cap = cap;
		t->first = 0;
	}
	t->ring[(t->first + t->count++) & (t->cap - 1)] = *f;
}

/* Of a batch's first change, at the source; 0: unknown, or rows of the load. */
static int64_t first_commit_us(const struct batch *b)
{
	const struct txn *txn = b->first && !b->is_load ? b->first->txn : NULL;
	return txn ? txn->commit_us : 0;
}

/* Where rows of a turn go past the streamer the source sends no change before all of them were sent, and none while the target lacks one of before. So what
 * the stream has for it comes behind those that are on their way. */
static bool has_rows_before(const struct ptarget *t)
{
	return channel_of_load(t->p) && (t->p->channels[CHANNEL_LOAD].held || !t->in[CHANNEL_LOAD].is_drained);
}

/* One channel at a time, and a transaction of the stream whole. */
static bool may_take(const struct ptarget *t, int channel)
{
	if (channel == CHANNEL_LOAD)
		return !t->is_amid;
	return t->is_amid || !(t->is_held || has_rows_before(t));
}

static void wake(struct ptarget *t, int channel)
{
	struct inlet *in = &t->in[channel];
	if (!in->is_waiting)
		return;
	in->is_waiting = false;
	t->p->channels[channel].ops->consumer_resume(in->sub);
}

/* ---- what is in its rows already ---- */

static bool is_void(const struct pipeline *p, const struct relation *rel)
{
	struct buf key;
	if (!p->voids)
		return false;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, rel->schema, rel->name);
	bool is = map_get(p->voids, key.data, key.len) != NULL;
	buf_fini(&key);
	return is;
}

bool pipeline_is_old(const struct pipeline *p, const struct dmsr_loaded *l, const struct change *ch)
{
	return (l && ch->txn->lsn < l->at.lsn) || is_void(p, ch->rel);
}

/* Is that of a transaction that the rows of the table's load are newer than, which it has, or which come behind; or of a table that is none any more? */
static bool is_in_rows(void *arg, const struct change *ch)
{
	const struct ptarget *t = arg;
	if (!ch->rel || !ch->txn || ch->txn->lsn >= t->rows_lsn)
		return false;
	const struct dmsr_loaded *l = table_set_find(&t->memory->loaded, ch->rel->schema, ch->rel->name);
	return pipeline_is_old(t->p, l, ch) || table_set_find(&t->awaited, ch->rel->schema, ch->rel->name);
}

void target_note_rows(struct ptarget *t)
{
	t->rows_lsn = t->p->voids || t->awaited.n ? UINT64_MAX : table_set_newest(&t->memory->loaded);
}

/* A table that it has as nobody wants it any more is loaded again. Where its rows come by the stream, what is before them is older than they: it would be
 * applied to rows that may not be what they should, which is why somebody wants others. */
static void await_loads(struct ptarget *t)
{
	const struct spec *s = t->p->run.spec;
	const struct table_set *loaded = &t->memory->loaded;
	if (channel_of_load(t->p) || !(s->mode & DMSR_FULL_LOAD))
		return;
	for (size_t i = 0; i < loaded->n; i++) {
		const struct dmsr_loaded *l = &loaded->list[i];
		if (memory_is_unwanted(t->p->run.memory, l) && dmsr_table_matches(&s->tables, l->schema, l->name))
			table_set_put(&t->awaited, l->schema, l->name, &l->at);
	}
}

static void note_awaited(struct ptarget *t, const struct batch *b)
{
	if (!t->awaited.n || !b->is_load)
		return;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		if (ch->op == OP_LOAD_END)
			table_set_del(&t->awaited, ch->rel->schema, ch->rel->name);
	if (!t->awaited.n)
		target_note_rows(t);
}

/* Where a load goes beside the stream the two are not in order: changes come, behind the rows, that are older. NULL: none of b. */
static struct batch *newer_than_rows(struct ptarget *t, const struct batch *b)
{
	if (b->is_load || !t->rows_lsn)
		return NULL;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (ch->txn && ch->txn->lsn >= t->rows_lsn) {
			t->rows_lsn = 0; /* transactions come in order: nor is any that follows older */
			return NULL;
		}
		if (is_in_rows(t, ch))
			return batch_without(b, is_in_rows, t);
	}
	return NULL;
}

/* One that is said again, behind a crash, may stand inside of a later transaction than its own (batch_cut). */
static bool is_word(const struct change *ch) { return !ch->txn || ch->op == OP_LOAD_DONE; }

/* A run that was killed amid a transaction has left a part of it in the log, and the next one sends nothing of the rest, nor the commit, if the rows of a
 * table that is loaded again have all that is left of it. Then it ends where the next one begins. */
static bool has_ended_unsaid(const struct ptarget *t, const struct batch *b)
{
	if (!t->is_amid || b->is_load)
		return false;
	const struct change *first = b->first;
	while (first && is_word(first))
		first = first->next;
	return (first && first->txn ? first->txn->lsn : b->end.lsn) > t->amid.lsn;
}

/* What the target is given of it. NULL: all, as it is. */
static struct batch *view_of(struct ptarget *t, const struct batch *b)
{
	struct batch *newer = newer_than_rows(t, b);
	if (!has_ended_unsaid(t, b))
		return newer;
	struct batch *v = batch_behind_commit(newer ? newer : b, &t->amid);
	batch_free(newer);
	return v;
}

/* ---- a half that may have no end ---- */

static bool is_of_last(void *arg, const struct change *ch)
{
	const struct batch *b = arg;
	return ch->txn && ch->txn->lsn == b->last->txn->lsn;
}

static bool is_before_last(void *arg, const struct change *ch) { return !is_of_last(arg, ch); }

static const struct change *first_of_stream(const struct batch *b)
{
	const struct change *ch = b->first;
	while (ch && !ch->txn)
		ch = ch->next;
	return ch;
}

/* Whole transactions, or the end of one, and the first half of another. */
static bool ends_in_half(const struct batch *b)
{
	const struct change *first = first_of_stream(b);
	return b->more && !b->is_load && first && b->last->txn && first->txn->lsn != b->last->txn->lsn;
}

static const struct txn *newest_txn(const struct batch *b)
{
	const struct txn *out = NULL;
	for (const struct change *ch = b->first; ch; ch = ch->next)
		out = ch->txn ? ch->txn : out;
	return out;
}

/* What stands before the half in b, a flight of its own. It keeps f's view, which b is then. */
static bool give_whole(struct ptarget *t, const struct flight *f, const struct batch *b)
{
	struct batch *whole = batch_without(b, is_of_last, (void *)(uintptr_t)b);
	const struct txn *last = newest_txn(whole);
	assert(last);
	whole->more = false;
	whole->end = (struct position){ .kind = POSITION_LSN, .server = b->end.server, .lsn = last->lsn, .event = POSITION_WHOLE };
	struct flight g = { .token = f->token, .view = whole, .base = f->view, .channel = f->channel, .end = whole->end };
	g.first_us = first_commit_us(whole);
	g.commit_us = last->commit_us;
	if (t->ops->apply(t->i, whole, g.token) != DMSR_OK) {
		batch_free(whole);
		return false;
	}
	t->handed = g.token;
	t->server = b->end.server;
	push_flight(t, &g);
	t->is_amid = false; /* the half is taken later, perhaps */
	wake(t, CHANNEL_LOAD);
	return true;
}

/* Where nobody follows the stream the end of a half that a log has may never come: the run is over when all before it is applied. A target may apply what
 * it is given in one batch together, so that goes apart. f becomes the half, alone. False: not now. */
static bool split(struct ptarget *t, struct flight *f, const struct batch *b)
{
	const struct batch *all = f->view ? f->view : b;
	struct batch *half = batch_without(all, is_before_last, (void *)(uintptr_t)all);
	if (t->cut == f->own) { /* what is before it was taken before */
		batch_free(f->view);
	} else if (!give_whole(t, f, all)) {
		batch_free(half);
		return false;
	} else {
		t->cut = f->own;
		f->token = t->handed + 1;
	}
	f->first_us = first_commit_us(half);
	f->view = half;
	return true;
}

static bool may_have_no_end(const struct ptarget *t, int channel) { return channel == CHANNEL_STREAM && !(t->p->run.spec->mode & DMSR_CDC); }

static void note_amid(struct ptarget *t, const struct batch *b, uint64_t token)
{
	const struct txn *last = b->last ? b->last->txn : NULL;
	bool is_same = t->is_amid && t->amid.lsn == b->end.lsn;
	t->is_amid = b->more;
	if (!b->more || is_same)
		return;
	t->amid_token = token;
	t->amid = last && last->lsn == b->end.lsn ? *last : (struct txn){ .lsn = b->end.lsn };
}

static enum dmsr_verdict on_deliver(void *ctx, const struct batch *b, uint64_t token)
{
	struct inlet *in = ctx;
	struct ptarget *t = in->t;
	int channel = (int)(in - t->in);
	const struct txn *last = b->last && !b->is_load && !b->more ? b->last->txn : NULL;
	struct flight f = { .token = t->handed + 1, .own = token, .channel = (uint8_t)channel, .end = b->end };
	f.first_us = first_commit_us(b);
	f.commit_us = last ? last->commit_us : 0;
	if (t->p->must_fail)
		return DMSR_AGAIN;
	in->is_waiting = !may_take(t, channel);
	if (in->is_waiting)
		return DMSR_AGAIN;
	f.view = view_of(t, b);
	if (may_have_no_end(t, channel) && ends_in_half(f.view ? f.view : b) && !split(t, &f, b)) {
		batch_free(f.view);
		return DMSR_AGAIN;
	}
	enum dmsr_verdict v = t->ops->apply(t->i, f.view ? f.view : b, f.token);
	if (v != DMSR_OK) {
		batch_free(f.view);
		return v;
	}
	t->handed = f.token;
	note_awaited(t, b);
	load_words_add(&t->words, b, f.token);
	if (!position_is_none(&b->end))
		t->server = b->end.server;
	push_flight(t, &f);
	in->is_drained = false;
	t->nloads += channel == CHANNEL_LOAD;
	if (channel == CHANNEL_LOAD || b->is_load) /* also in the stream: the transaction before it goes on, or has ended */
		return DMSR_OK;
	note_amid(t, b, f.token);
	if (!t->is_amid)
		wake(t, CHANNEL_LOAD);
	return DMSR_OK;
}

void target_hold(struct ptarget *t) { t->is_held = true; }

/* Where the rows come by the stream they are the streamer's long before they are its: a table that it has not, or as an earlier load left it. */
static bool lacks_rows(const struct ptarget *t)
{
	const struct table_set *loaded = memory_loaded(t->p->run.memory);
	for (struct channel *c = NULL; (c = channel_next(t->p, c));)
		if (c->words.n)
			return true;
	for (size_t i = 0; i < loaded->n; i++) {
		const struct dmsr_loaded *l = &loaded->list[i], *has = table_set_find(&t->memory->loaded, l->schema, l->name);
		if (!has || has->at.lsn < l->at.lsn)
			return true;
	}
	return t->words.n;
}

bool target_is_loading(const struct ptarget *t)
{
	if (channel_of_load(t->p))
		return t->is_held && t->p->load_has_begun;
	return map_size(t->p->open_loads) || (t->p->run.spec->mode & DMSR_FULL_LOAD && !t->p->told_flowing && lacks_rows(t));
}

/* Behind the load is what was read beside it. */
static void note_loaded(struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (p->targets[i].is_held || !p->targets[i].in[CHANNEL_STREAM].is_drained || p->targets[i].count)
			return;
	if (memory_note(p->run.memory, PIPELINE_LOADING))
		memory_note_put(p->run.memory, PIPELINE_LOADING, NULL, NULL, NULL);
}

void target_look(struct ptarget *t)
{
	if (!t->is_held && t->p->load_is_sent)
		note_loaded(t->p);
	if (may_take(t, CHANNEL_STREAM))
		wake(t, CHANNEL_STREAM);
	if (!t->is_held || !t->p->load_is_sent || t->nloads || t->p->channels[CHANNEL_LOAD].held || !t->in[CHANNEL_LOAD].is_drained)
		return;
	t->is_held = false;
	target_note_rows(t);
	log_info("pipeline", t->p->run.name, "target %s has the load: its changes follow", t->name);
	wake(t, CHANNEL_STREAM);
}

static void on_drained(void *ctx)
{
	struct inlet *in = ctx;
	struct ptarget *t = in->t;
	in->is_drained = true;
	if (t->i && !t->is_stopped && t->p->phase <= PHASE_DRAINING)
		t->ops->flush(t->i);
	pipeline_turn(t->p);
}

static void on_let_go(void *ctx)
{
	struct inlet *in = ctx;
	struct ptarget *t = in->t;
	if (t->i && !t->is_stopped && t->p->phase <= PHASE_DRAINING)
		t->ops->let_go(t->i);
}

void target_owes(struct ptarget *t, const struct batch *b, int channel)
{
	int64_t us = first_commit_us(b);
	if (target_is_done(t))
		t->due_us = us ? us : wall_now_us();
	t->in[channel].is_drained = false;
}

void target_is_level(struct ptarget *t, const struct position *p)
{
	if (p->flush > t->level_lsn) /* 0 inside of a transaction: what was before it still holds */
		t->level_lsn = p->flush;
}

int64_t target_behind_us(const struct ptarget *t)
{
	int64_t us = t->count ? t->ring[t->first].first_us : 0;
	if (us)
		return us;
	return t->due_us > t->last_commit_us ? t->due_us : t->last_commit_us;
}

static bool is_drained(struct ptarget *t)
{
	for (struct channel *c = NULL; (c = channel_next(t->p, c));)
		if (!inlet_of(t, c)->is_drained)
			return false;
	return !(t->p->hold && hold_has_any(t->p->hold));
}

bool target_is_done(struct ptarget *t) { return !t->count && is_drained(t); }

static bool has_rows_open(const struct ptarget *t)
{
	for (size_t i = 0; i < t->words.n; i++)
		if (t->words.list[i].op == OP_LOAD_END)
			return true;
	return map_size(t->p->open_loads);
}

/* Keys and indexes of the load stand before it, too. */
static bool has_all_before(const struct ptarget *t) { return !t->count || t->ring[t->first].token >= t->amid_token; }

bool target_is_left_open(struct ptarget *t) { return t->is_amid && !t->is_held && has_all_before(t) && !has_rows_open(t) && is_drained(t); }

/* ---- what comes back ---- */

static void note_latency(struct loop_slices *l, int64_t commit_us)
{
	int64_t us = wall_now_us() - commit_us;
	if (commit_us <= 0 || us < 0)
		return;
	size_t i = 0;
	while (i < LOOP_SLICE_BOUNDS && (uint64_t)us >= loop_slice_bounds_us[i])
		i++;
	l->count[i]++;
	l->n++;
	l->total_us += (uint64_t)us;
}

static void count_applied(struct ptarget *t, const struct dmsr_table_counts *counts, size_t n)
{
	struct pipeline *p = t->p;
	for (size_t i = 0; i < n; i++) {
		const struct dmsr_table_counts *c = &counts[i];
		struct table_count *to = memory_count(p->run.memory, c->schema, c->name);
		const uint64_t by_op[4] = { c->created, c->updated, c->deleted, c->truncated };
		for (size_t op = 0; op < 4; op++) {
			to->applied[op] += by_op[op];
			p->stat.applied[op] += by_op[op];
			t->rows_applied += by_op[op];
		}
		if (t == p->targets)
			to->rows_loaded += c->loaded;
		to->dead += c->dead;
		to->is_dirty = true;
		p->stat.applied[EVENT_READ] += c->loaded;
		p->stat.applied[EVENT_DDL] += c->ddl;
		p->stat.dead_letters += c->dead;
		t->rows_applied += c->loaded;
	}
}

static void word_applied(void *arg, const struct load_word *w)
{
	struct ptarget *t = arg;
	if (w->op == OP_LOAD_END)
		memory_target_load_put(t->p->run.memory, t->memory, w->schema, w->name, &w->at);
	else if (w->op == OP_LOAD_DONE)
		memory_target_load_done_put(t->p->run.memory, t->memory);
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct ptarget *t = ctx;
	struct pipeline *p = t->p;
	uint64_t own[CHANNELS] = { 0 };
	if (p->must_fail)
		return;
	failpoint("pipeline.applied");
	while (t->count && t->ring[t->first].token <= token) {
		const struct flight *f = &t->ring[t->first];
		/* A begin alone is no step: a target may have nothing to store for it, and stands behind the transaction before. So may one that keeps its
		 * place itself, when all that it was given of a transaction was left out as older than its rows: it would be behind what we know of it. */
		bool is_step = !position_is_inside(&f->end) || (f->end.event && !t->memory->keeps);
		if (!position_is_none(&f->end) && is_step) {
			t->applied = f->end;
			target_is_level(t, &f->end);
			t->position_moved = true;
			if (!loop_timer_is_running(p->checkpoint_timer)) /* what comes from the log was stored long ago: no checkpoint takes it along */
				loop_timer_start(p->checkpoint_timer, 1000);
		}
		if (f->commit_us) {
			t->last_commit_us = f->commit_us;
			note_latency(&p->stat.latency, f->commit_us);
		}
		own[f->channel] = f->own ? f->own : own[f->channel]; /* 0: the rest of it goes on */
		batch_free(f->view);
		batch_free(f->base);
		t->nloads -= f->channel == CHANNEL_LOAD;
		t->first = (t->first + 1) & (t->cap - 1);
		t->count--;
	}
	count_applied(t, counts, n);
	load_words_take(&t->words, token, word_applied, t);
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (own[c - p->channels])
			c->ops->commit(inlet_of(t, c)->sub, own[c - p->channels]);
	pipeline_turn(p);
}

static void on_consumed(void *ctx, uint64_t token)
{
	struct ptarget *t = ctx;
	uint64_t own[CHANNELS] = { 0 };
	if (t->p->must_fail || !t->count)
		return;
	/* tokens are without gaps, so each flight's place is known */
	const struct flight *oldest = &t->ring[t->first];
	uint64_t from = t->consumed + 1 > oldest->token ? t->consumed + 1 : oldest->token;
	for (uint64_t n = from; n <= token; n++) {
		const struct flight *f = &t->ring[(t->first + (n - oldest->token)) & (t->cap - 1)];
		own[f->channel] = f->own ? f->own : own[f->channel];
	}
	t->consumed = token > t->consumed ? token : t->consumed;
	for (struct channel *c = NULL; (c = channel_next(t->p, c));)
		if (own[c - t->p->channels])
			c->ops->consumed(inlet_of(t, c)->sub, own[c - t->p->channels]);
}

static void on_resume(void *ctx)
{
	struct ptarget *t = ctx;
	if (t->p->phase > PHASE_DRAINING || t->p->must_fail)
		return;
	for (struct channel *c = NULL; (c = channel_next(t->p, c));)
		if (inlet_of(t, c)->sub && !inlet_of(t, c)->is_waiting)
			c->ops->consumer_resume(inlet_of(t, c)->sub);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct ptarget *t = ctx;
	pipeline_fail(t->p, e, t->name);
}

static void on_stopped(void *ctx)
{
	struct ptarget *t = ctx;
	t->is_stopped = true;
	pipeline_turn(t->p);
}

/* ---- rows that it refuses ---- */

/* A dead letter being written: the target waits for done. */
struct dead {
	struct ptarget *t;
	void (*done)(void *arg, const struct err *e);
	void *arg;
	char *table;
};

static void on_dead_stored(void *arg, const struct err *e)
{
	void *d_;
	struct pipeline *p = ticket_use(arg, &d_);
	struct dead *d = d_;
	if (p && e) {
		struct err why = *e;
		err_prefix(&why, "target %s refused a row of %s, which cannot be set aside", d->t->name, d->table);
		if (!why.hint[0])
			err_hint(&why, "mend the row at the source, or let the target take it, and start the job");
		pipeline_fail(p, &why, "state");
	} else if (p && d->t->i) {
		d->done(d->arg, NULL);
	}
	free(d->table);
	free(d);
}

/* The change as the json codec has it; heap. */
static char *change_json(struct pipeline *p, const struct change *ch)
{
	const struct dmsr_plugin *json = plugins_find(p->run.plugins, PLUGIN_CODEC, "json");
	struct dmsr_record r[DMSR_RECORDS_MAX];
	struct err e = { 0 };
	if (json && !p->dead_codec) {
		json_t *none = json_object();
		problems *ps = json_array();
		struct settings *s = options_parse(json->codec_options, NULL, none, NULL, "", NULL, ps);
		p->dead_codec_ops = json->codec;
		if (!s || json->codec->open(s, &p->origin, &p->dead_codec, &e))
			p->dead_codec = NULL;
		settings_free(s);
		json_decref(ps);
		json_decref(none);
	}
	if (p->dead_codec && p->dead_codec_ops->encode(p->dead_codec, ch, r, DMSR_RECORDS_MAX, &e) > 0 && r[0].value)
		return mem_strndup(r[0].value, r[0].value_len);
	return mem_strdup("{}");
}

static void on_dead_letter(void *ctx, const struct dmsr_dead_letter *l, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct ptarget *t = ctx;
	struct pipeline *p = t->p;
	const struct change *ch = l->change;
	const struct position at = { .kind = POSITION_LSN, .server = t->server, .lsn = ch->txn ? ch->txn->lsn : 0, .event = ch->event };
	char text[POSITION_TEXT_MAX], *json = change_json(p, ch);
	struct dead *d = mem_alloc(sizeof *d);
	*d = (struct dead){ .t = t, .done = done, .arg = arg };
	d->table = ch->rel ? mem_printf("%s.%s", ch->rel->schema, ch->rel->name) : mem_strdup("no table");
	const struct store_dead_letter row = {
		.ts_us = wall_now_us(),
		.target = t->name,
		.position = position_format(&at, text),
		.schema = ch->rel ? ch->rel->schema : "",
		.table = ch->rel ? ch->rel->name : "",
		.op = change_op_name(ch->op),
		.code = l->error->id,
		.message = l->error->message,
		.change_json = json,
	};
	/* not the message: it may quote the row */
	log_warn("pipeline", p->run.name, "target %s: a row of %s is set aside: %s; GET /jobs/%s/errors has it", t->name, d->table, l->error->id, p->run.name);
	store_dead_letter_put(p->run.store, p->run.uid, &row, on_dead_stored, ticket_new(p, d));
	free(json);
}

/* ---- where it stands ---- */

static void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t nloaded, bool load_done)
{
	struct ptarget *t = ctx;
	struct pipeline *p = t->p;
	const struct position known = t->memory->applied;
	struct err e = { 0 };
	char was[POSITION_TEXT_MAX], is[POSITION_TEXT_MAX];
	memory_target_keeps_put(p->run.memory, t->memory, keeps);
	if (!keeps) {
		t->applied = t->memory->applied;
	} else if (!position_is_none(&known) && (!position_is_comparable(&known, applied) || position_compare(applied, &known) < 0)) {
		err_set(&e, DMSR_EFATAL, "target.behind",
			"target %s stands at %s, but it was at %s: it is another database than it was, or was replaced or restored from an older copy, and "
			"what lies between is not held any more", t->name, position_format(applied, is), position_format(&known, was));
		err_hint(&e, "if its options were changed, change them back; else restore the newer state, or load the tables again: stop the job, "
			"DELETE /jobs/%s/positions, start it; rows that this server does not know to be the job's are in "
			"the way then, unless prepare is truncate, which destroys them", p->run.name);
		pipeline_fail(p, &e, t->name);
		return;
	} else {
		t->applied = *applied;
		memory_target_is(p->run.memory, t->memory, applied, loaded, nloaded, load_done);
	}
	target_is_level(t, &t->applied);
	t->is_ready = true;
	pipeline_turn(p);
}

/* Are there targets that can take what the log holds? */
static bool has_others(const struct ptarget *t)
{
	for (size_t i = 0; i < t->p->ntargets; i++)
		if (!t->p->targets[i].memory->is_new)
			return true;
	return false;
}

/* A target that never stood anywhere, or was away, in a job whose changes have begun to flow and are held by nobody: it would miss what is past. */
int target_check_stand(struct ptarget *t, struct err *e)
{
	const struct pipeline *p = t->p;
	const struct channel *c = &p->channels[CHANNEL_STREAM];
	const struct memory_target *m = t->memory;
	const struct position *delivered = memory_delivered(p->run.memory);
	bool loads = p->run.spec->mode & DMSR_FULL_LOAD, keeps = c->ops->keeps(c->i);
	bool was_away = m->loaded.n || !position_is_none(&t->applied);
	if ((was_away && !m->is_new) || (position_is_none(delivered) && !memory_loaded(p->run.memory)->n))
		return 0;
	/* What is held is all that it lacks, or the rows come again, and what is older than they is left out. */
	if (pipeline_gives_all(p) && (keeps || was_away))
		return 0;
	if (keeps ? !m->is_new || pipeline_wants_beside(p) : loads)
		return 0;
	char at[POSITION_TEXT_MAX];
	position_format(delivered, at);
	if (!loads) {
		err_set(e, DMSR_EFATAL, "target.behind", "target %s has %s of this job, which is at %s already", t->name,
			was_away ? "missed a part" : "nothing", at);
		return err_hint(e, "a job of mode cdc cannot give a target what is past: make a new job with mode full-load-and-cdc");
	}
	err_set(e, DMSR_EFATAL, "target.behind", "target %s %s, and the log holds changes that other targets have not taken yet, up to %s: they are of no use "
		"to it without the rows that were there before", t->name, was_away ? "was no part of the job for a while" : "is new", at);
	if (has_others(t))
		return err_hint(e, "let the others take them first: take it out of the job, start the job, and add it again when streamer.log_bytes in "
			"GET /jobs/%s/status is 0; or, where the source has hold_wal, set that to false, and the rows come to it beside the log", p->run.name);
	return err_hint(e, "the job has nobody any more who could take them: load the tables again: stop the job, DELETE /jobs/%s/positions, start it",
		p->run.name);
}

/* Nor has one that was away: what it has is not wanted (pipeline_source.c). */
static bool has_nothing(const struct ptarget *t)
{
	bool was_away = t->memory->is_new && !position_is_none(memory_delivered(t->p->run.memory));
	return was_away || (position_is_none(&t->applied) && !t->memory->loaded.n && !t->nbegun);
}

void target_subscribe(struct ptarget *t)
{
	if (t->ops->begun)
		t->nbegun = t->ops->begun(t->i, &t->begun);
	const struct dmsr_stand stand = {
		.at = t->applied,
		.loaded = t->memory->loaded.list,
		.nloaded = t->memory->loaded.n,
		.has_nothing = channel_of_load(t->p) && has_nothing(t),
	};
	await_loads(t);
	target_note_rows(t);
	/* Until the source has found its server, and said whether there is something to load: amid a transaction that the log has a part of that would be
	 * too late. */
	t->is_held = channel_of_load(t->p);
	for (struct channel *c = NULL; (c = channel_next(t->p, c));) {
		struct inlet *in = inlet_of(t, c);
		const struct dmsr_consumer consumer = { .ctx = in, .deliver = on_deliver, .drained = on_drained, .let_go = t->ops->let_go ? on_let_go : NULL };
		in->t = t;
		in->sub = c->ops->subscribe(c->i, t->name, &stand, &consumer);
		in->is_drained = !c->ops->keeps(c->i);
	}
}

/* ---- life ---- */

static void on_notice(void *ctx, const char *text)
{
	struct ptarget *t = ctx;
	t->p->run.host.notice(t->p->run.host.ctx, t->name, text);
}

int target_open(struct pipeline *p, size_t n, struct err *e)
{
	struct ptarget *t = &p->targets[n];
	t->scratch = pipeline_scratch(p, t->name, e);
	if (!t->scratch)
		return e->code;
	const struct dmsr_target_host host = {
		.ctx = t,
		.env = pipeline_env(p, t->name, t->scratch),
		.ready = on_ready,
		.applied = on_applied,
		.consumed = on_consumed,
		.resume = on_resume,
		.dead_letter = on_dead_letter,
		.notice = on_notice,
		.failed = on_failed,
		.stopped = on_stopped,
		.loads = p->run.spec->mode & DMSR_FULL_LOAD,
	};
	if (t->ops->open(p->run.spec->targets[n].settings, &host, &t->i, e))
		return e->code;
	t->ops->start(t->i);
	return 0;
}

void target_release(struct ptarget *t)
{
	if (t->i)
		t->ops->close(t->i);
	t->i = NULL;
	for (size_t i = 0; i < t->count; i++) {
		const struct flight *f = &t->ring[(t->first + i) & (t->cap - 1)];
		batch_free(f->view);
		batch_free(f->base);
	}
	t->begun = NULL;
	t->nbegun = 0;
	for (size_t n = 0; n < CHANNELS; n++)
		t->in[n].sub = NULL;
	free(t->ring);
	t->ring = NULL;
	t->count = t->cap = t->first = 0;
	load_words_fini(&t->words);
}
