/* lend: what a subscription has read, to its target, and back: lent until it is durable there, or given away to a reader (source.c); and the note of where it
 * stands, which is the newest record behind which all is done. Rules 4 and 5 of kafka.h. */
#include "fetch.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- notes ---- */

static char *note_key(const struct dmsr_subscription *s) { return mem_printf("at.%s", s->name); }

void lend_read_note(struct dmsr_subscription *s)
{
	char *key = note_key(s), *end;
	const char *note = s->k->host.note_get(s->k->host.ctx, key);
	free(key);
	s->done = (struct place){ .offset = -1 };
	if (!note)
		return;
	struct place p = { .offset = strtoll(note, &end, 10) };
	p.ts_ms = strtoll(end, &end, 10);
	if (*end == ' ' && !position_parse(end + 1, &p.at, NULL))
		s->done = p;
}

/* An older note does too; that the store failed ends the job anyway. */
void consume_save(struct dmsr_subscription *s)
{
	char position[POSITION_TEXT_MAX];
	if (!s->name || s->is_saved || s->done.offset < 0)
		return;
	s->is_saved = true;
	char *key = note_key(s), *note = mem_printf("%" PRId64 " %" PRId64 " %s", s->done.offset, s->done.ts_ms, position_format(&s->done.at, position));
	s->k->host.note_put(s->k->host.ctx, key, note, NULL, NULL);
	free(key);
	free(note);
}

void lend_done(struct dmsr_subscription *s, const struct place *p)
{
	if (p->offset < 0)
		return;
	s->done = *p;
	s->is_saved = false;
	kafka_save_soon(s->k);
}

/* A record that holds nothing for the target is done with what is before it. Not one without a position (of a load) for a reader: it may be sent back by hand,
 * and has to see by the noted place's position that it was. */
void lend_pass(struct dmsr_subscription *s, const struct place *p)
{
	if (s->take && position_is_none(&p->at))
		return;
	if (s->last)
		s->last->place = *p;
	else
		lend_done(s, p);
}

/* ---- loads that were cut off ---- */

/* Any change of the stream voids them. A table that is begun twice counts twice: then its load is voided, in the end, though it is none. */
static void note_loads(struct dmsr_subscription *s, const struct batch *b)
{
	if (!b->is_load)
		s->load_run = s->nloads = 0;
	for (const struct change *ch = b->is_load ? b->first : NULL; ch; ch = ch->next) {
		if (ch->op == OP_LOAD_BEGIN) {
			s->nloads = s->load_run == s->run ? s->nloads + 1 : 1;
			s->load_run = s->run;
		} else if (ch->op == OP_LOAD_END && s->nloads && !--s->nloads) {
			s->load_run = 0;
		}
	}
}

/* All there is was taken, and what is open are loads of an earlier run: their ends will never come. A target that waits for them in transactions could keep
 * the source from the snapshot of the next attempt, when both are on one server. Anything that is no load voids them. */
void lend_void_loads(struct dmsr_subscription *s)
{
	s->load_run = 0;
	s->nloads = 0;
	s->held = batch_new();
	s->held->received_us = wall_now_us();
	batch_append(s->held, OP_HEARTBEAT, NULL);
	s->held_place = (struct place){ .offset = -1 };
	s->bytes += s->held->bytes;
	port_pause(s->port);
	kafka_wake(s->k);
}

/* ---- to the target ---- */

static enum dmsr_verdict deliver(struct dmsr_subscription *s, struct lent *l)
{
	size_t bytes = l->b->bytes;
	if (!s->take)
		return s->c.deliver(s->c.ctx, l->b, l->token);
	enum dmsr_verdict v = s->take(s->c.ctx, l->b);
	if (v == DMSR_OK) {
		s->bytes -= bytes;
		l->b = NULL;
	}
	return v;
}

/* One that holds nothing gets its next batch, however big; and one that cannot be asked to let go may wait for more before it commits. */
bool lend_is_over(struct dmsr_subscription *s)
{
	size_t lent = s->bytes - (s->held ? s->held->bytes : 0), limit = s->k->memory_max;
	s->is_over = lent > (s->is_over ? limit / 2 : limit);
	return s->is_over && s->c.let_go;
}

void lend_hold_back(struct dmsr_subscription *s)
{
	if (s->is_told)
		return;
	s->is_told = true;
	s->c.let_go(s->c.ctx);
}

void lend_held(struct dmsr_subscription *s)
{
	struct lent *l = mem_alloc(sizeof *l), *before = s->last;
	const uint64_t load_run = s->load_run;
	const unsigned nloads = s->nloads;
	*l = (struct lent){ .token = s->token + 1, .place = s->held_place, .b = s->held };
	if (!l->b->is_load)
		l->end = l->b->end;
	/* Before the call: an answer that comes at once must find it lent. */
	if (s->last)
		s->last->next = l;
	else
		s->first = l;
	s->last = l;
	s->token++;
	s->held = NULL;
	note_loads(s, l->b);
	enum dmsr_verdict v = deliver(s, l);
	if (v == DMSR_OK) {
		s->is_told = false;
		if (!s->word && !s->stuck && !(s->fetch && fetch_is_full(s->fetch)))
			port_resume(s->port);
		return;
	}
	assert(v == DMSR_AGAIN);
	s->load_run = load_run; /* it is counted when it is taken */
	s->nloads = nloads;
	s->held = l->b;
	s->token--;
	s->is_waiting = !s->k->is_noting;
	s->last = before;
	if (before)
		before->next = NULL;
	else
		s->first = NULL;
	free(l);
}

void consume_resume(struct dmsr_subscription *s)
{
	s->is_waiting = false;
	kafka_wake(s->k);
}

static void drop(struct dmsr_subscription *s, struct lent *l)
{
	if (l->b)
		s->bytes -= l->b->bytes;
	batch_free(l->b);
	l->b = NULL;
	s->is_told = false;
	if (s->is_over)
		kafka_wake(s->k);
}

void consume_consumed(struct dmsr_subscription *s, uint64_t token)
{
	for (struct lent *l = s->first; l && l->token <= token; l = l->next)
		drop(s, l);
}

void consume_commit(struct dmsr_subscription *s, uint64_t token)
{
	while (s->first && s->first->token <= token) {
		struct lent *l = s->first;
		s->first = l->next;
		if (!s->first)
			s->last = NULL;
		drop(s, l);
		lend_done(s, &l->place);
		free(l);
	}
	if (s->k->state == KAFKA_STOPPED) /* what a target commits on its way out */
		consume_save(s);
}

/* A load has no position: it is durable when something is that stands behind it, and further on than all before it. */
void consume_confirm(struct dmsr_subscription *s, const struct position *p)
{
	struct position before = s->confirmed;
	uint64_t token = 0;
	bool is_behind_load = false;
	if (!position_is_comparable(p, &before))
		return;
	for (const struct lent *l = s->first; l; l = l->next) {
		if (position_is_none(&l->end)) {
			is_behind_load = true;
			continue;
		}
		if (!position_is_comparable(&l->end, p) || position_compare(&l->end, p) > 0)
			break;
		if (is_behind_load && position_is_comparable(&l->end, &before) && position_compare(&l->end, &before) <= 0)
			continue;
		is_behind_load = false;
		before = l->end;
		token = l->token;
	}
	s->confirmed = before;
	if (token)
		consume_commit(s, token);
}
