/* pipeline_flow: batches on their way down, acknowledgements on their way back, and the checkpoints between.
 *
 *   emit -> transforms -> ledger (token) -> produce        AGAIN: held here, the source waits
 *   delivered -> ledger -> [targets' positions, words of the load, position] -> store -> stored -> confirm */
#include "pipeline_int.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKPOINT_EVERY_US = 100000 };

/* ---- words of the load ---- */

void load_words_add(struct load_words *w, const struct batch *b, uint64_t token)
{
	/* among changes there is one word at most, the last: that all tables are loaded, when the stream has passed the newest snapshot */
	for (const struct change *ch = b->is_load ? b->first : b->last; ch; ch = ch->next) {
		bool is_anew = ch->op == OP_LOAD_BEGIN && !ch->u.load.since;
		if (!is_anew && ch->op != OP_LOAD_PART && ch->op != OP_LOAD_END && ch->op != OP_LOAD_DONE)
			continue;
		if (w->n == w->cap) {
			w->cap = w->cap ? 2 * w->cap : 16;
			w->list = mem_realloc_array(w->list, w->cap, sizeof *w->list);
		}
		struct load_word *n = &w->list[w->n++];
		*n = (struct load_word){ .token = token, .op = (enum change_op)ch->op };
		if (ch->op == OP_LOAD_DONE)
			continue;
		n->schema = mem_strdup(ch->rel->schema);
		n->name = mem_strdup(ch->rel->name);
		n->at = (struct position){ .kind = POSITION_LSN, .server = b->end.server, .lsn = change_loaded_lsn(ch) };
		n->part = ch->op == OP_LOAD_PART ? b->part : 0;
	}
}

void load_words_take(struct load_words *w, uint64_t token, void (*fn)(void *arg, const struct load_word *word), void *arg)
{
	size_t n = 0;
	for (; n < w->n && w->list[n].token <= token; n++) {
		fn(arg, &w->list[n]);
		free(w->list[n].schema);
		free(w->list[n].name);
	}
	w->n -= n;
	if (n)
		memmove(w->list, w->list + n, w->n * sizeof *w->list);
}

void load_words_fini(struct load_words *w)
{
	for (size_t i = 0; i < w->n; i++) {
		free(w->list[i].schema);
		free(w->list[i].name);
	}
	free(w->list);
	*w = (struct load_words){ 0 };
}

/* ---- counting ---- */

static struct table_count *count_of(struct pipeline *p, const struct relation *rel)
{
	if (p->last_rel != rel) {
		p->last_rel = rel;
		p->last_count = memory_count(p->run.memory, rel->schema, rel->name);
	}
	p->last_count->is_dirty = true;
	return p->last_count;
}

/* ch is the first that is seen of a table in this shape: a change of it, if this run or an earlier one has seen it in another. What a run says again, since the
 * one before it was cut off, is before the place where the shape was seen, and no change. */
static void note_shape(struct pipeline *p, const struct change *ch, uint64_t server)
{
	const struct relation *rel = ch->rel;
	const struct position at = { .kind = POSITION_LSN, .server = server, .lsn = ch->txn ? ch->txn->lsn : 0, .event = ch->event };
	struct table_shape *s = &count_of(p, rel)->shape, was = *s;
	if (s->fingerprint == rel->fingerprint || (s->at.server == server && position_covers(&s->at, at.lsn, at.event)))
		return;
	*s = (struct table_shape){ rel->fingerprint, rel->ncolumns, at };
	count_of(p, rel)->is_reshaped = true;
	if (!was.fingerprint)
		return;
	p->stat.events[EVENT_DDL]++;
	count_of(p, rel)->ddl++;
	p->run.host.ddl(p->run.host.ctx, was.columns, rel, &at);
}

static void count_batch(struct pipeline *p, const struct batch *b)
{
	uint64_t *events = p->stat.events;
	p->last_rel = NULL; /* the pointer may be another relation's by now */
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		switch ((enum change_op)ch->op) {
		case OP_CREATE:
			events[EVENT_INSERT]++;
			count_of(p, ch->rel)->captured[EVENT_INSERT]++;
			break;
		case OP_UPDATE:
			events[EVENT_UPDATE]++;
			count_of(p, ch->rel)->captured[EVENT_UPDATE]++;
			break;
		case OP_DELETE:
			events[EVENT_DELETE]++;
			count_of(p, ch->rel)->captured[EVENT_DELETE]++;
			break;
		case OP_TRUNCATE:
			events[EVENT_TRUNCATE]++;
			count_of(p, ch->rel)->captured[EVENT_TRUNCATE]++;
			break;
		case OP_READ: events[EVENT_READ]++; break;
		case OP_ROWS: events[EVENT_READ] += ch->u.rows.rows; break;
		case OP_COMMIT: p->stat.transactions++; break;
		case OP_SCHEMA:
			if (!b->is_load) /* there it is what the table is like now, which the stream may be far from */
				note_shape(p, ch, b->end.server);
			break;
		case OP_LOAD_BEGIN:
			note_shape(p, ch, b->end.server);
			count_of(p, ch->rel)->rows_loaded = 0; /* one that goes on counts all of its parts when it ends */
			break;
		case OP_BEGIN:
		case OP_MESSAGE:
		case OP_HEARTBEAT:
		case OP_LOAD_PART:
		case OP_LOAD_END:
		case OP_LOAD_DONE: break;
		}
	}
	p->stat.bytes += b->bytes;
	p->stat.last_event_us = wall_now_us();
}

/* ---- down ---- */

void flow_backpressure(struct pipeline *p, bool on)
{
	uint64_t now = loop_now_us(p->run.loop);
	if (on && !p->backpressure_since_us)
		p->backpressure_since_us = now;
	if (on || !p->backpressure_since_us)
		return;
	p->stat.backpressure_us += now - p->backpressure_since_us;
	p->backpressure_since_us = 0;
}

static int transform(struct pipeline *p, struct batch *b, struct err *e)
{
	for (size_t i = 0; i < p->run.spec->ntransforms; i++) {
		const struct spec_part *t = &p->run.spec->transforms[i];
		struct dmsr_env env = pipeline_env(p, t->plugin->name, NULL);
		if (!p->transforms)
			p->transforms = mem_zalloc(p->run.spec->ntransforms * sizeof(struct dmsr_instance *));
		if (!p->transforms[i] && t->plugin->transform->open(t->settings, &env, &p->transforms[i], e))
			return e->code;
		if (t->plugin->transform->apply(p->transforms[i], b, e))
			return e->code;
	}
	return 0;
}

static bool is_any_held(struct pipeline *p)
{
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (c->held)
			return true;
	return false;
}

/* Hands b to the streamer. False: it is held. */
static bool produce(struct channel *c, struct batch *b)
{
	struct pipeline *p = c->p;
	uint64_t token = b->token;
	bool has = c->ops->produce(c->i, b) == DMSR_OK;
	channel_took(c, has);
	if (!has) {
		c->held = b;
		flow_backpressure(p, true);
		return false;
	}
	c->held = NULL;
	ledger_streamed(c->ledger, token);
	flow_backpressure(p, is_any_held(p));
	return true;
}

static void owe(const struct channel *c, const struct batch *b)
{
	struct pipeline *p = c->p;
	for (size_t i = 0; i < p->ntargets; i++)
		target_owes(&p->targets[i], b, p->hold ? CHANNEL_STREAM : (int)(c - p->channels));
}

/* The tables that are being loaded; a change of the stream voids them, if that is the way that they go. */
static void note_loads(struct pipeline *p, const struct batch *b)
{
	struct buf key;
	if (!b->is_load && (!map_size(p->open_loads) || load_is_apart(p)))
		return;
	if (!b->is_load) {
		map_free(p->open_loads);
		p->open_loads = map_new();
		return;
	}
	buf_init(&key, 4096);
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (ch->op == OP_LOAD_DONE) { /* one that is open still is gone at the source */
			map_free(p->open_loads);
			p->open_loads = map_new();
		}
		if (ch->op != OP_LOAD_BEGIN && ch->op != OP_LOAD_END)
			continue;
		buf_reset(&key);
		relation_key(&key, ch->rel->schema, ch->rel->name);
		if (ch->op == OP_LOAD_BEGIN && !(ch->flags & CHANGE_TURNS)) /* what is behind such a one need not wait for its end */
			map_put(p->open_loads, key.data, key.len, p);
		else
			map_del(p->open_loads, key.data, key.len);
	}
	buf_fini(&key);
}

/* Rows of a turn have their place among the changes. Where the streamer takes no rows they go past it, and the targets see to that (pipeline_target.c). */
static int channel_of(const struct pipeline *p, const struct batch *b)
{
	bool is_beside = b->is_load && load_is_apart(p) && (!b->in_turn || pipeline_load_way(p) == DMSR_LOAD_PAST);
	return is_beside ? CHANNEL_LOAD : CHANNEL_STREAM;
}

enum dmsr_verdict flow_emit(void *ctx, struct batch *b)
{
	struct pipeline *p = ctx;
	struct err e = { 0 };
	int channel = channel_of(p, b);
	struct channel *c = &p->channels[channel];
	if (c->held || p->is_paused || p->phase != PHASE_FLOWING || p->must_fail) {
		p->source_waits = true;
		return DMSR_AGAIN;
	}
	failpoint("pipeline.received");
	if (transform(p, b, &e) || ledger_received(c->ledger, &b->end, b->bytes, &b->token, &e)) {
		pipeline_fail(p, &e, "source");
		p->source_waits = true;
		return DMSR_AGAIN;
	}
	load_words_add(&c->words, b, b->token);
	if (b->in_turn)
		p->turn_token = b->token;
	count_batch(p, b);
	/* what is behind the beginning of a table that is open cannot be stored before its end, which a paused source never sends */
	note_loads(p, b);
	bool is_among_loads = map_size(p->open_loads) && (channel == CHANNEL_LOAD || !load_is_apart(p));
	/* rows of a part are committed when its end comes */
	bool is_in_part = b->is_load && b->part && b->last->op != OP_LOAD_PART;
	if (!b->more && !is_among_loads && !is_in_part)
		c->whole_token = b->token;
	owe(c, b);
	produce(c, b);
	if (!p->told_flowing || p->source_finished)
		pipeline_turn(p);
	return DMSR_OK;
}

void flow_void_loads(struct pipeline *p)
{
	int channel = load_is_apart(p) ? CHANNEL_LOAD : CHANNEL_STREAM;
	struct channel *c = &p->channels[channel];
	struct err e = { 0 };
	struct batch *b = batch_new();
	b->received_us = wall_now_us();
	batch_append(b, OP_HEARTBEAT, NULL);
	if (c->held || p->must_fail || ledger_received(c->ledger, &b->end, b->bytes, &b->token, &e)) {
		batch_free(b);
		return;
	}
	c->whole_token = b->token;
	for (size_t i = 0; i < p->ntargets; i++)
		target_owes(&p->targets[i], b, CHANNEL_STREAM);
	produce(c, b);
}

void flow_wake_source(struct pipeline *p)
{
	if (!p->source_waits || p->is_paused || p->phase != PHASE_FLOWING)
		return;
	p->source_waits = false;
	p->source_ops->resume(p->source);
}

void flow_streamer_resume(void *ctx)
{
	struct channel *c = ctx;
	struct pipeline *p = c->p;
	if (p->phase > PHASE_DRAINING || p->must_fail)
		return;
	if (c->held) {
		owe(c, c->held); /* they may have been told that there is nothing more for them since it came */
		if (!produce(c, c->held))
			return;
	}
	flow_wake_source(p);
	pipeline_turn(p);
}

/* ---- back ---- */

void flow_look_level(struct pipeline *p, const struct dmsr_source_stat *s)
{
	uint64_t received = s->received.flush ? s->received.flush : s->received.lsn;
	if (p->is_level || s->lag_bytes < 0)
		return;
	if (!p->first_lsn)
		p->first_lsn = s->server_lsn;
	p->is_level = !s->lag_bytes || received >= p->first_lsn || s->confirmed.flush >= p->first_lsn;
}

static void look_level(struct pipeline *p)
{
	struct dmsr_source_stat s = { .lag_bytes = -1 };
	if (p->is_level || !p->source)
		return;
	p->source_ops->stat(p->source, &s);
	flow_look_level(p, &s);
}

static void tell_stored(const struct channel *c)
{
	struct ledger_stat s;
	if (!c->i || !c->ops->stored || c->is_stopped)
		return;
	ledger_stat(c->ledger, &s);
	c->ops->stored(c->i, s.stored.token);
}

static void on_stored(void *arg, const struct err *e)
{
	void *c_;
	struct pipeline *p = ticket_use(arg, &c_);
	struct channel *c = c_;
	struct position at;
	if (!p || !c->ledger)
		return;
	if (e) {
		ledger_store_failed(c->ledger);
		pipeline_fail(p, e, "state");
		return;
	}
	failpoint("pipeline.stored");
	ledger_stored(c->ledger);
	tell_stored(c);
	p->stat.checkpoints++;
	p->stat.last_checkpoint_us = wall_now_us();
	if (ledger_confirm(c->ledger, &at) && p->source && !p->source_stopped)
		p->source_ops->confirm(p->source, &at);
	look_level(p);
	p->run.host.progress(p->run.host.ctx);
	flow_checkpoint(p, false);
	pipeline_turn(p);
}

static void store_word(void *arg, const struct load_word *w)
{
	struct pipeline *p = arg;
	if (w->op == OP_LOAD_DONE)
		memory_load_done_put(p->run.memory);
	else if (w->op == OP_LOAD_BEGIN)
		begun_forget(p, w->schema, w->name);
	else if (w->op == OP_LOAD_PART)
		begun_note(p, w);
	else
		pipeline_is_loaded(p, w->schema, w->name, &w->at);
}

void flow_targets_save(struct pipeline *p)
{
	for (size_t i = 0; i < p->ntargets; i++) {
		struct ptarget *g = &p->targets[i];
		if (g->position_moved)
			memory_target_position_put(p->run.memory, g->memory, &g->applied);
		g->position_moved = false;
	}
}

/* Before the first of the stream is confirmed: what is confirmed then is where it began. */
static void note_beginning(struct pipeline *p, const struct position *at)
{
	struct dmsr_source_stat s = { 0 };
	if (!p->source || position_is_none(at) || !position_is_none(memory_delivered(p->run.memory)))
		return;
	p->source_ops->stat(p->source, &s);
	p->began_lsn = s.confirmed.flush;
}

static bool wants_store(struct pipeline *p)
{
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (c->ledger && ledger_wants_store(c->ledger))
			return true;
	return false;
}

/* What is durable first: each of these may be seen after a crash without the ones behind it, never the other way round. */
static void store(struct channel *c)
{
	struct pipeline *p = c->p;
	struct position at = { 0 };
	uint64_t token = ledger_store_begin(c->ledger, &at);
	load_words_take(&c->words, token, store_word, p);
	note_beginning(p, &at);
	failpoint("pipeline.before-store");
	memory_delivered_put(p->run.memory, &at, on_stored, ticket_new(p, c));
}

void flow_checkpoint(struct pipeline *p, bool now)
{
	if (p->must_fail || !wants_store(p))
		return;
	uint64_t t = loop_now_us(p->run.loop), due = p->checkpoint_at_us + CHECKPOINT_EVERY_US;
	if (!now && p->phase == PHASE_FLOWING && t < due) {
		if (!loop_timer_is_running(p->checkpoint_timer))
			loop_timer_start_us(p->checkpoint_timer, due - t);
		return;
	}
	loop_timer_stop(p->checkpoint_timer);
	p->checkpoint_at_us = t;
	flow_targets_save(p);
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (ledger_wants_store(c->ledger))
			store(c);
}

void flow_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct channel *c = ctx;
	struct pipeline *p = c->p;
	struct err bad = { 0 };
	if (p->must_fail || !c->ledger)
		return;
	if (e) {
		pipeline_fail(p, e, "streamer");
		return;
	}
	if (!ledger_delivered(c->ledger, token)) {
		err_set(&bad, DMSR_EPROTO, "streamer.protocol", "the streamer %s acknowledged batch %" PRIu64 ", which is not under way",
			p->run.spec->streamer.plugin->name, token);
		err_hint(&bad, "this is a bug of that plugin: report it");
		pipeline_fail(p, &bad, "streamer");
		return;
	}
	flow_checkpoint(p, false);
}

void flow_release(struct pipeline *p)
{
	if (p->source)
		p->source_ops->close(p->source);
	p->source = NULL;
	for (size_t i = 0; p->transforms && i < p->run.spec->ntransforms; i++)
		if (p->transforms[i])
			p->run.spec->transforms[i].plugin->transform->close(p->transforms[i]);
	free(p->transforms);
	p->transforms = NULL;
	if (p->dead_codec)
		p->dead_codec_ops->close(p->dead_codec);
	p->dead_codec = NULL;
	for (struct channel *c = NULL; (c = channel_next(p, c));) {
		batch_free(c->held);
		c->held = NULL;
		ledger_free(c->ledger);
		c->ledger = NULL;
		load_words_fini(&c->words);
	}
}
