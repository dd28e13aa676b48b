/* target_spread: which change goes where.
 *
 * A batch goes whole to the first connection, when all before it is committed, if it holds anything but rows of tables whose rules are known: words of a
 * load, changed columns, truncations, tables with triggers or partitions, a table seen for the first time, a part of a big transaction. Any other is cut into
 * its transactions. Each is placed (target_depend.h) and waits with its lane until what it conflicts with in other lanes is committed; a lane is
 * given what it may begin, many transactions at a time. Who waits for a lane makes it commit. */
#include "target_parallel.h"
#include <assert.h>
#include <stdlib.h>

enum {
	WORKS_MAX = 32768,              /* placed and not told */
	GIFT_WORKS = 256,
	GIFT_BYTES = 128 << 10,
	CHANGE_BYTES = 64,              /* what a change weighs beside its values */
};

void works_add(struct works *w, struct work *add)
{
	if (!w->last)
		w->last = &w->first;
	add->next_here = NULL;
	*w->last = add;
	w->last = &add->next_here;
}

static struct work *works_take(struct works *w)
{
	struct work *out = w->first;
	w->first = out->next_here;
	if (!w->first)
		w->last = &w->first;
	return out;
}

/* ---- parcels ---- */

static bool is_done(const struct parcel *c) { return c && c->is_read && !c->left; }

void spread_take(struct parallel *p, const struct batch *b, uint64_t token)
{
	struct parcel *c = mem_zalloc(sizeof *c);
	c->batch = b;
	c->token = token;
	c->bytes = b->bytes + 1;
	if (!b->more && !b->is_load)
		c->end = b->end;
	if (p->tail)
		p->tail->next = c;
	else
		p->head = c;
	p->tail = c;
	if (!p->cur) {
		p->cur = c;
		p->at = b->first;
	}
	/* A part of a big transaction, between which words of a load may come. */
	c->is_whole = b->is_load || b->more || p->was_more;
	if (!b->is_load)
		p->was_more = b->more;
	p->queued_bytes += c->bytes;
}

static void next_parcel(struct parallel *p)
{
	p->cur->is_read = true;
	p->cur = p->cur->next;
	p->at = p->cur ? p->cur->batch->first : NULL;
}

/* ---- may it be spread? ---- */

/* The table as the first connection knows it; NULL: not, or not as it is now. */
static struct target_table *table_of(struct parallel *p, struct relation *rel)
{
	struct known *known = &p->known[((uintptr_t)rel >> 5) % (sizeof p->known / sizeof *p->known)];
	struct buf key;
	if (known->rel == rel && known->table->has_rules)
		return known->table;
	buf_init(&key, 64 * 1024);
	relation_key(&key, rel->schema, rel->name);
	struct target_table *tb = map_get(p->first->t->tables, key.data, key.len);
	buf_fini(&key);
	if (!tb || !tb->has_rules || !tb->is_checked || !relation_is_same(tb->rel, rel))
		return NULL;
	relation_unref(known->rel);
	*known = (struct known){ relation_ref(rel), tb };
	return tb;
}

static void forget_known(struct parallel *p)
{
	for (size_t i = 0; i < sizeof p->known / sizeof *p->known; i++) {
		relation_unref(p->known[i].rel);
		p->known[i] = (struct known){ 0 };
	}
}

static bool is_known(const struct parallel *p, uint64_t lsn)
{
	const struct target *t = p->first->t;
	return position_covers(&p->low, lsn, POSITION_WHOLE) || (t->ahead.n && ahead_has(&t->ahead, lsn));
}

enum fit { FIT_LANES, FIT_UNKNOWN /* the first connection shall tell what it knows of the table */, FIT_WHOLE };

static enum fit fit_of(struct parallel *p, const struct change *ch)
{
	const struct target_table *tb;
	switch ((enum change_op)ch->op) {
	case OP_BEGIN: case OP_COMMIT: case OP_MESSAGE: case OP_HEARTBEAT:
		return FIT_LANES;
	case OP_SCHEMA:
		return table_of(p, ch->rel) ? FIT_LANES : FIT_UNKNOWN;
	case OP_CREATE: case OP_UPDATE: case OP_DELETE:
		/* Nothing is done with it, and so the first connection would learn nothing of its table. */
		if (is_known(p, ch->txn->lsn))
			return FIT_LANES;
		tb = table_of(p, ch->rel);
		if (!tb)
			return FIT_UNKNOWN;
		if (apply_catches(tb, ch))
			return FIT_WHOLE;
		return tb->rules && !tb->has_triggers && !tb->is_partitioned ? FIT_LANES : FIT_WHOLE;
	case OP_READ: case OP_TRUNCATE: case OP_LOAD_BEGIN: case OP_ROWS: case OP_LOAD_PART: case OP_LOAD_END: case OP_LOAD_DONE:
		break;
	}
	return FIT_WHOLE;
}

static enum fit fit_of_all(struct parallel *p, const struct parcel *c)
{
	enum fit worst = FIT_LANES;
	/* Inside of the transaction that the position of the start is in, the first connection knows what it has. */
	/* A load that was cut off is void only when the stream comes after it. */
	if (c->is_whole || p->nloads || position_is_inside(&p->low) || !position_is_comparable(&p->low, &c->end))
		return FIT_WHOLE;
	for (const struct change *ch = c->batch->first; ch && worst != FIT_WHOLE; ch = ch->next) {
		enum fit fit = fit_of(p, ch);
		worst = fit > worst ? fit : worst;
	}
	return worst;
}

/* ---- transactions ---- */

static size_t weigh(const struct change *ch)
{
	size_t n = CHANGE_BYTES;
	for (unsigned i = 0; i < ch->rel->ncolumns; i++)
		n += (ch->u.row.after ? ch->u.row.after[i].len : 0) + (ch->u.row.before ? ch->u.row.before[i].len : 0);
	return n;
}

/* Claims what the transaction touches; its weight, 0: nothing of it is to be done. */
static size_t claim_all(struct parallel *p, const struct change *first, const struct change *last)
{
	size_t bytes = 0;
	depend_drop(p->depend);
	if (is_known(p, first->txn->lsn))
		return 0;
	for (const struct change *ch = first; ch != last; ch = ch->next) {
		if (!change_is_row(ch))
			continue;
		const struct target_table *tb = table_of(p, ch->rel);
		if (ch->txn->lsn < tb->loaded_lsn)
			continue;
		claimer_add(p->claimer, tb->rules, ch);
		bytes += weigh(ch);
	}
	return bytes;
}

static void place(struct parallel *p, const struct change *first, const struct change *last, size_t bytes)
{
	struct work *w = mem_zalloc(sizeof *w + p->n * sizeof *w->after);
	uint64_t after[DEPEND_LANES_MAX];
	*w = (struct work){ .parcel = p->cur, .first = first, .last = last, .lsn = last->txn->lsn, .commit_us = last->txn->commit_us, .bytes = bytes };
	p->cur->left++;
	p->cur->has_works = true;
	if (p->newest)
		p->newest->next = w;
	else
		p->oldest = w;
	p->newest = w;
	p->nworks++;
	if (!bytes) {
		w->is_done = true;
		p->cur->left--;
		return;
	}
	w->number = depend_place(p->depend, bytes, &w->lane, after);
	memcpy(w->after, after, p->n * sizeof *after);
	works_add(&p->all[w->lane + 1].waiting, w);
}

/* One transaction of the batch at hand, or a word between them. */
static void read_one(struct parallel *p)
{
	const struct change *first = p->at, *last = first;
	if (first->op != OP_BEGIN) {
		assert(!change_is_row(first)); /* a transaction whose begin is not here is not spread */
		p->at = first->next;
		return;
	}
	while (last->op != OP_COMMIT)
		last = last->next;
	place(p, first, last, claim_all(p, first, last));
	p->at = last->next;
}

/* ---- giving ---- */

static void add_changes(struct batch *b, const struct work *w)
{
	for (const struct change *ch = w->first;; ch = ch->next) {
		struct change *copy = batch_append(b, (enum change_op)ch->op, ch->rel);
		copy->txn = ch->txn;
		copy->event = ch->event;
		copy->flags = ch->flags;
		copy->u = ch->u;
		if (ch == w->last)
			break;
	}
	b->bytes += w->bytes;
}

static struct batch *batch_of(struct batch *b, const struct work *w)
{
	if (!b)
		b = batch_new();
	add_changes(b, w);
	b->end = (struct position){ .kind = POSITION_LSN, .server = w->parcel->end.server, .lsn = w->lsn, .event = POSITION_WHOLE };
	return b;
}

/* Is all that it must not pass committed? What is not, is wanted. */
static bool may_begin(struct parallel *p, const struct work *w)
{
	bool may = true;
	for (unsigned i = 0; i < p->n; i++) {
		struct strand *other = &p->all[i + 1];
		if (w->after[i] <= other->committed_number)
			continue;
		may = false;
		if (other->wanted < w->after[i])
			other->wanted = w->after[i];
	}
	return may;
}

static bool is_held(const struct strand *l)
{
	return !l->is_ready || l->is_full || (l->wanted > l->committed_number && l->given_number >= l->wanted) || l->given_bytes >= l->owner->lane_bytes;
}

static void add_gift(struct gifts *q, struct gift *g)
{
	if (!q->last || !q->first)
		q->last = &q->first;
	*q->last = g;
	q->last = &g->next;
}

/* False: not now; the gift stays the caller's. */
static bool strand_give(struct strand *l, struct gift *g, const struct batch *b)
{
	enum dmsr_verdict said = target_strict.apply(&l->t->base, b, g->token);
	if (said != DMSR_OK) {
		l->is_full = true;
		return false;
	}
	add_gift(&l->gifts, g);
	return true;
}

static bool give_some(struct strand *l)
{
	struct parallel *p = l->owner;
	struct batch *b = NULL;
	unsigned n = 0;
	if (is_held(l))
		return false;
	while (l->waiting.first && n < GIFT_WORKS && !is_held(l) && (!b || b->bytes < GIFT_BYTES) && may_begin(p, l->waiting.first)) {
		struct work *w = works_take(&l->waiting);
		b = batch_of(b, w);
		works_add(&l->given, w);
		l->given_bytes += w->bytes;
		l->given_number = w->number;
		n++;
	}
	if (!b)
		return false;
	struct gift *g = mem_zalloc(sizeof *g);
	g->token = l->given_number;
	g->batch = b;
	/* Its own queue is bigger than what we let it have: it has failed, and will say so. */
	if (!strand_give(l, g, b))
		add_gift(&l->gifts, g);
	return true;
}

static void flush(struct strand *l)
{
	if (l->t && l->is_ready && l->given.first)
		target_strict.flush(&l->t->base);
}

static bool feed(struct parallel *p)
{
	bool has_moved = false;
	for (unsigned i = 1; i <= p->n; i++)
		while (give_some(&p->all[i]))
			has_moved = true;
	for (unsigned i = 1; i <= p->n; i++) {
		struct strand *l = &p->all[i];
		bool is_dry = !l->waiting.first && (p->said_again || p->nworks >= WORKS_MAX || (p->is_flushing && !p->cur));
		if (is_dry || l->waiting.first || l->wanted > l->committed_number || p->is_draining)
			flush(l);
	}
	return has_moved;
}

/* ---- the first connection ---- */

/* A position that moved alone may wait a while; but not when something waits for it: what it is given next, or the telling of rows. */
static void hurry_first(struct parallel *p)
{
	p->first->t->tx.ended_us = 0;
	target_strict.flush(&p->first->t->base);
}

static bool give_first(struct parallel *p, struct batch *own, struct parcel *parcel, struct work *until)
{
	struct gift *g = mem_zalloc(sizeof *g);
	*g = (struct gift){ .token = (uintptr_t)g, .batch = own, .parcel = parcel, .until = until };
	if (!p->first->is_full && strand_give(p->first, g, own ? own : parcel->batch))
		return true;
	free(g);
	return false;
}

/* How far all is that went before, for the first connection to write down. */
static bool give_low(struct parallel *p)
{
	struct batch *b = batch_new();
	b->end = p->low;
	if (give_first(p, b, NULL, NULL))
		return true;
	batch_free(b);
	return false;
}

/* Before the first half of a transaction, and before a load: nothing is told while these go on. */
static bool is_to_be_noted(const struct parallel *p)
{
	const struct batch *b = p->cur->batch;
	return (b->more || b->is_load) && !p->nfirst && position_compare(&p->low, &p->durable) > 0;
}

static bool give_whole(struct parallel *p)
{
	p->is_draining = p->oldest != NULL;
	if (p->is_draining || (is_to_be_noted(p) && !give_low(p)) || !give_first(p, NULL, p->cur, NULL))
		return false;
	p->nfirst++;
	p->cur->left = 1;
	/* From now on the first connection says how much it takes: a load is told only when its table is whole. */
	p->queued_bytes -= p->cur->bytes;
	p->cur->bytes = 0;
	p->cur->is_load = p->cur->batch->is_load;
	p->nloads += p->cur->is_load;
	p->are_stale |= p->cur->is_load;
	next_parcel(p);
	return true;
}

static bool has_rows_to_tell(const struct parallel *p)
{
	const struct parcel *c = p->head;
	while (is_done(c) && !c->has_works)
		c = c->next;
	return is_done(c);
}

void spread_note(struct parallel *p)
{
	if (!spread_is_idle(p) || position_compare(&p->low, &p->durable) <= 0)
		return;
	if (!p->first->gifts.first && !give_low(p))
		return;
	if (has_rows_to_tell(p))
		hurry_first(p);
}

bool spread_is_idle(const struct parallel *p) { return !p->oldest && !p->nfirst; }

/* ---- one step ---- */

static bool read_some(struct parallel *p)
{
	struct parcel *c = p->cur;
	p->is_draining = false;
	if (!c || p->nworks >= WORKS_MAX)
		return false;
	if (!p->at && !c->is_whole) {
		next_parcel(p);
		return true;
	}
	if (p->must_ask && p->at == c->batch->first) {
		/* It may be that a table's rules are not what they were; in the middle of a batch those go that it began with. */
		careful_forget(p->first->t);
		forget_known(p);
		p->must_ask = false;
	}
	enum fit fit = p->at == c->batch->first ? fit_of_all(p, c) : FIT_LANES;
	if (fit == FIT_WHOLE || (fit == FIT_UNKNOWN && !p->nfirst))
		return give_whole(p);
	if (p->nfirst) {
		hurry_first(p);
		return false;
	}
	if (!parallel_open(p))
		return false;
	read_one(p);
	return true;
}

bool spread_step(struct parallel *p)
{
	bool has_moved = p->state == PARALLEL_WORKING && read_some(p);
	return has_moved || feed(p);
}

/* ---- what comes back ---- */

void spread_committed(struct strand *l, uint64_t number)
{
	struct parallel *p = l->owner;
	size_t bytes = 0;
	while (l->given.first && l->given.first->number <= number) {
		struct work *w = works_take(&l->given);
		w->is_done = true;
		w->parcel->left--;
		bytes += w->bytes;
		ahead_add(&l->done, w->lsn);
	}
	l->given_bytes -= bytes;
	l->committed_number = number;
	depend_committed(p->depend, l->n - 1, number, bytes);
}

static void raise_low(struct parallel *p, const struct position *to)
{
	int order = position_compare(to, &p->low);
	if (order > 0 || (order == 0 && to->flush > p->low.flush))
		p->low = *to;
}

void spread_is_durable(struct parallel *p, const struct position *at)
{
	if (position_compare(at, &p->durable) > 0)
		p->durable = *at;
}

/* Lanes that commit at the same time do not know of each other: then the next commit says it, or the first connection does when all is quiet. */
void spread_foresee(const struct strand *l, uint64_t lsn, struct position *out)
{
	const struct parallel *p = l->owner;
	*out = p->low;
	for (const struct work *w = p->oldest; w && (w->is_done || (w->lane + 1 == l->n && w->number && w->lsn <= lsn)); w = w->next) {
		bool is_last = w->parcel->is_read && (!w->next || w->next->parcel != w->parcel);
		*out = (struct position){ .kind = POSITION_LSN, .server = w->parcel->end.server, .lsn = w->lsn, .event = POSITION_WHOLE };
		if (is_last && position_compare(&w->parcel->end, out) >= 0)
			*out = w->parcel->end;
	}
}

static void drop_done(struct parallel *p)
{
	while (p->oldest && p->oldest->is_done) {
		struct work *w = p->oldest;
		raise_low(p, &(struct position){ .kind = POSITION_LSN, .server = w->parcel->end.server, .lsn = w->lsn, .event = POSITION_WHOLE });
		if (w->commit_us)
			p->stat.last_commit_us = w->commit_us;
		p->oldest = w->next;
		if (!p->oldest)
			p->newest = NULL;
		p->nworks--;
		free(w);
	}
}

void spread_free(struct parallel *p)
{
	while (p->oldest) {
		struct work *w = p->oldest;
		p->oldest = w->next;
		free(w);
	}
	while (p->head) {
		struct parcel *c = p->head;
		p->head = c->next;
		free(c);
	}
	forget_known(p);
}

/* ---- rescue ---- */

void spread_give_back(struct strand *l)
{
	l->given = (struct works){ 0 };
	l->given_bytes = 0;
	l->given_number = l->committed_number;
}

static bool has_given(const struct parallel *p)
{
	for (unsigned i = 1; i <= p->n; i++)
		if (p->all[i].given.first)
			return true;
	return false;
}

/* All that is not done, in the source's order: whatever was read of the queues is void. */
static void give_rest(struct parallel *p)
{
	struct batch *b = NULL;
	struct work *last = NULL;
	for (struct work *w = p->oldest; w; w = w->next) {
		if (w->is_done)
			continue;
		b = batch_of(b, w);
		last = w;
	}
	if (!b)
		return;
	if (!give_first(p, b, NULL, last)) {
		batch_free(b);
		return;
	}
	p->nfirst++;
}

static void end_rescue(struct parallel *p)
{
	uint64_t newest = depend_clear(p->depend);
	for (unsigned i = 1; i <= p->n; i++) {
		struct strand *l = &p->all[i];
		l->waiting = (struct works){ 0 };
		l->committed_number = l->given_number = newest;
		l->wanted = 0;
	}
	p->must_ask = true;
	parallel_close(p);
	p->is_cut = false;
	parallel_set_state(p, PARALLEL_WORKING, "what was left over is done");
	parallel_wake(p);
}

void spread_rescue(struct parallel *p)
{
	for (unsigned i = 1; i <= p->n; i++)
		flush(&p->all[i]);
	if (has_given(p))
		return;
	if (p->nfirst) {
		hurry_first(p);
		return;
	}
	drop_done(p);
	if (!p->oldest)
		end_rescue(p);
	else
		give_rest(p);
}

/* ---- telling ---- */

struct tell { struct dmsr_table_counts *counts; size_t n; };

static void add_count(void *arg, const void *key, size_t n, void *value)
{
	struct tell *tell = arg;
	struct dmsr_table_counts *c = value, none = { .schema = c->schema, .name = c->name };
	(void)key;
	(void)n;
	if (!memcmp(c, &none, sizeof none))
		return;
	tell->counts[tell->n++] = *c;
	*c = none;
}

static bool is_told(const struct parallel *p, const struct parcel *c) { return is_done(c) && position_compare(&c->end, &p->durable) <= 0; }

static void raise_to_parcels(struct parallel *p)
{
	for (const struct parcel *c = p->head; is_done(c); c = c->next)
		if (!position_is_none(&c->end))
			raise_low(p, &c->end);
}

/* What nobody reads any more: the streamer may forget a load's bytes long before its table is whole. */
static void tell_consumed(struct parallel *p)
{
	struct parcel *c = p->eaten ? p->eaten->next : p->head;
	for (; c && (c->is_eaten || is_done(c)) && !p->is_closed; c = c->next) {
		p->eaten = c;
		if (p->host.consumed)
			p->host.consumed(p->host.ctx, c->token);
	}
}

static void tell_applied(struct parallel *p)
{
	struct tell tell = { mem_alloc((map_size(p->counts) + 1) * sizeof *tell.counts), 0 };
	map_each(p->counts, add_count, &tell);
	p->stat.last_applied_us = wall_now_us();
	while (is_told(p, p->head) && !p->is_closed) {
		struct parcel *c = p->head;
		bool is_last = !is_told(p, c->next);
		p->head = c->next;
		if (!p->head)
			p->tail = NULL;
		if (p->eaten == c)
			p->eaten = NULL;
		p->queued_bytes -= c->bytes;
		p->host.applied(p->host.ctx, c->token, tell.counts, is_last ? tell.n : 0);
		free(c);
	}
	free(tell.counts);
}

void spread_tell(struct parallel *p)
{
	drop_done(p);
	raise_to_parcels(p);
	if (is_told(p, p->head))
		tell_applied(p);
	tell_consumed(p);
}

void spread_take_room(struct parallel *p)
{
	if (!p->said_again || p->queued_bytes > p->queued_max / 2)
		return;
	p->said_again = false;
	p->host.resume(p->host.ctx);
}
