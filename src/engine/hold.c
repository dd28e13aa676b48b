/* hold: changes before a streamer. See hold.h. */
#include "hold.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/batch.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum hold_state { ENDING, HELD, FOLLOWING, PASSING };

static const char ended_key[] = "hold.ended", follows_key[] = "hold.follows";
enum sent_from { FROM_CHANGES = HOLD_CHANGES, FROM_ROWS = HOLD_ROWS, FROM_LOG };

/* What the streamer was given: its token is the place. */
struct sent {
	uint64_t token;                 /* the pipeline's, or the log's */
	uint8_t from;
	bool is_delivered, was_fed;     /* out of the log, and comes again: the streamer was not given this one */
};

/* Of what was told delivered: when the pipeline has stored that, the streamer hears of its own token. */
struct untold {
	uint64_t token, own;
	uint8_t from;
};

/* One of the two that the pipeline sees. */
struct face {
	struct hold *h;
	struct dmsr_streamer_host host;
	struct dmsr_streamer ops;
	bool is_closed;
};

/* Outlives a hold that is closed meanwhile. */
struct noting {
	struct hold *h;                 /* NULL: it is gone */
};

struct hold {
	struct hold_parts parts;
	struct face faces[HOLD_WAYS];
	struct dmsr_instance *streamer, *log;
	struct dmsr_subscription *feed; /* out of the log */
	enum hold_state state;
	bool has_begun;                 /* there was a log of an earlier run, which had begun to follow */
	bool is_earlier;                /* and what comes out of it is still of that run */
	bool is_fed;                    /* nothing waits in the log */
	struct noting *noting;          /* that the log is about to follow; NULL: no, or it is durable */
	bool has_told_ready, may_go_on;
	bool loads;                     /* the source has begun to, in this run */
	struct position given;          /* what the log has up to there an earlier run has given; NONE: nothing */
	bool is_unseen;                 /* the log is an earlier run's, and nothing has come out of it */
	struct txn oldest;              /* the first of the log, that the streamer was not given; lsn 0: not known, or it has but words */
	size_t nfed;                    /* out of the log, on their way */
	struct position fed;            /* where the newest of them ends; NONE: there was none */
	bool is_past_fed;               /* and the stream was read behind that */
	struct loop_task *later;        /* tells what was delivered already, and that nothing is held */
	uint64_t rows_lsn;              /* changes before that may be old; 0: none that are still to come */
	struct sent *ring;              /* at (first + n) & (cap - 1); the first has token `own` */
	size_t first, n, cap;
	uint64_t own;
	uint64_t stored[HOLD_WAYS];     /* the pipeline's tokens */
	struct untold *untold;
	size_t nuntold, capuntold;
};

static struct face *face_of(struct dmsr_instance *i) { return (struct face *)(void *)i; }
static struct hold *of(struct dmsr_instance *i) { return face_of(i)->h; }
static const struct hold *of_const(const struct dmsr_instance *i) { return ((const struct face *)(const void *)i)->h; }
static const struct dmsr_streamer *streamer_ops(const struct hold *h) { return h->parts.streamer.ops; }
static const struct dmsr_streamer *log_ops(const struct hold *h) { return h->parts.log.ops; }
static const struct dmsr_streamer_host *host_of(const struct hold *h) { return &h->faces[HOLD_CHANGES].host; }

/* ---- to the streamer ---- */

static struct sent *sent_at(struct hold *h, size_t n) { return &h->ring[(h->first + n) & (h->cap - 1)]; }

static void add_sent(struct hold *h, enum sent_from from, uint64_t token)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 64;
		struct sent *ring = mem_alloc(cap * sizeof *ring);
		for (size_t i = 0; i < h->n; i++)
			ring[i] = *sent_at(h, i);
		free(h->ring);
		h->ring = ring;
		h->cap = cap;
		h->first = 0;
	}
	h->n++;
	*sent_at(h, h->n - 1) = (struct sent){ .token = token, .from = (uint8_t)from };
}

/* Before the call: the answer may come at once. */
static enum dmsr_verdict give(struct hold *h, struct batch *b, enum sent_from from, uint64_t token)
{
	add_sent(h, from, token);
	b->token = h->own + h->n - 1;
	enum dmsr_verdict v = streamer_ops(h)->produce(h->streamer, b);
	if (v == DMSR_OK)
		return v;
	h->n--;
	b->token = token;
	return v;
}

/* What was read before the load was over may come behind it. Transactions come in order: behind the first that is new all are. */
static void leave_out_old(struct hold *h, struct batch *b)
{
	const struct change *ch = b->first;
	while (ch && !ch->txn)
		ch = ch->next;
	if (ch && ch->txn->lsn >= h->rows_lsn)
		h->rows_lsn = 0;
	else if (ch)
		batch_take_out(b, h->parts.is_old, h->parts.arg);
}

/* The source goes on from where it was stored to be, and what it sends again may have been in the log. */
static bool was_fed(const struct hold *h, struct batch *b)
{
	enum batch_known known = h->is_past_fed ? KNOWN_NOTHING : batch_known(b, &h->fed);
	if (known == KNOWN_PART)
		batch_cut(b, &h->fed);
	return known == KNOWN_ALL;
}

static enum dmsr_verdict pass_on(struct hold *h, struct batch *b)
{
	if (was_fed(h, b)) {
		add_sent(h, FROM_CHANGES, b->token);
		sent_at(h, h->n - 1)->is_delivered = sent_at(h, h->n - 1)->was_fed = true;
		batch_free(b);
		loop_task_post(h->later);
		return DMSR_OK;
	}
	if (h->rows_lsn)
		leave_out_old(h, b);
	bool is_past = !position_is_none(&b->end) && position_compare(&b->end, &h->fed) > 0;
	enum dmsr_verdict v = give(h, b, FROM_CHANGES, b->token);
	h->is_past_fed |= v == DMSR_OK && is_past;
	return v;
}

static void note_oldest(struct hold *h, const struct batch *b)
{
	const struct change *ch = b->first;
	while (ch && !ch->txn)
		ch = ch->next;
	if (!ch)
		return;
	h->oldest = *ch->txn;
	h->is_unseen = false;
}

static enum dmsr_verdict changes_produce(struct dmsr_instance *i, struct batch *b)
{
	struct hold *h = of(i);
	if (h->state == PASSING)
		return pass_on(h, b);
	if (h->is_fed && !h->loads) /* soon it is known: hold_loads, hold_release */
		return DMSR_AGAIN;
	if (h->is_fed)
		h->oldest.lsn = 0;
	if (!h->oldest.lsn && !h->is_unseen) /* a source that is quiet sends heartbeats before it */
		note_oldest(h, b);
	enum dmsr_verdict v = log_ops(h)->produce(h->log, b);
	h->is_fed &= v != DMSR_OK;
	return v;
}

/* Changes between the rows would void the load. */
static enum dmsr_verdict rows_produce(struct dmsr_instance *i, struct batch *b)
{
	return of(i)->state == ENDING ? DMSR_AGAIN : give(of(i), b, FROM_ROWS, b->token);
}

/* ---- out of the log ---- */

/* What is asked then is whether anything waits in the log (hold_has_any). One of an earlier run forgets late what it has given: it says so when it has looked
 * where its consumer stands, and gives the first, or says that there is none. */
static void tell_ready(struct hold *h)
{
	if (h->has_told_ready)
		return;
	h->has_told_ready = true;
	for (int way = 0; way < HOLD_WAYS; way++)
		h->faces[way].host.ready(h->faces[way].host.ctx);
}

static void end_is_there(struct hold *h)
{
	const struct dmsr_streamer_host *rows = &h->faces[HOLD_ROWS].host;
	h->is_earlier = false;
	if (h->state != ENDING)
		return;
	h->state = HELD;
	rows->resume(rows->ctx);
}

/* How a batch of the log stands to where an earlier run's ended: <0 it is of that run, and not the last; 0 the last; >0 of this run. */
static int stands(const struct hold *h, const struct batch *b)
{
	const struct position *ended = &h->parts.delivered;
	return position_is_comparable(&b->end, ended) ? position_compare(&b->end, ended) : b->more ? -1 : 0;
}

/* A word is covered by no position, and so the log gives it again: but what was given was given with its words. */
static bool was_given(const struct hold *h, const struct batch *b)
{
	return !position_is_none(&h->given) && !position_is_none(&b->end) && position_compare(&b->end, &h->given) <= 0;
}

static enum dmsr_verdict on_feed(void *ctx, const struct batch *b, uint64_t token)
{
	struct hold *h = ctx;
	if (was_given(h, b)) {
		log_ops(h)->commit(h->feed, token);
		return DMSR_OK;
	}
	tell_ready(h);
	note_oldest(h, b);
	if (h->is_unseen && !position_is_none(&b->end)) { /* a heartbeat: what is behind it is newer */
		h->oldest = (struct txn){ .lsn = b->end.lsn };
		h->is_unseen = false;
	}
	/* What is read beside the load may be newer than its rows: all of it waits. */
	if (h->is_earlier && stands(h, b) > 0)
		end_is_there(h);
	if (h->state == HELD || h->noting || !h->may_go_on)
		return DMSR_AGAIN;
	/* b is lent until what came of it is delivered */
	struct batch *view = batch_without(b, h->is_earlier ? h->parts.is_early : h->parts.is_old, h->parts.arg);
	for (uint32_t i = 0; i < b->nrels; i++)
		batch_hold(view, b->rels[i]);
	h->parts.feeds(h->parts.arg, view);
	enum dmsr_verdict v = give(h, view, FROM_LOG, token);
	if (v != DMSR_OK) {
		batch_free(view);
		return v;
	}
	h->nfed++;
	h->fed = position_is_none(&b->end) ? h->fed : b->end;
	if (!stands(h, b))
		end_is_there(h);
	return v;
}

/* The streamer has all of the log for good: none of it may go behind what goes straight now. And it has the end of what it has half of. */
static void note_fed(struct hold *h)
{
	char text[POSITION_TEXT_MAX];
	if (h->state != PASSING || h->nfed)
		return;
	if (host_of(h)->note_get(host_of(h)->ctx, follows_key))
		host_of(h)->note_put(host_of(h)->ctx, follows_key, NULL, NULL, NULL);
	if (!position_is_none(&h->fed))
		host_of(h)->note_put(host_of(h)->ctx, ended_key, position_format(&h->fed, text), NULL, NULL);
	loop_task_post(h->later);
}

static void pass(struct hold *h)
{
	if (h->state != FOLLOWING || !h->is_fed)
		return;
	h->state = PASSING;
	note_fed(h);
	log_info("streamer", h->parts.streamer.env.job, "nothing is held any more: changes go to the streamer as they come");
}

static void on_fed(void *ctx)
{
	struct hold *h = ctx;
	h->is_fed = true;
	h->is_unseen = false;
	tell_ready(h);
	end_is_there(h); /* or comes with the stream, behind the load */
	pass(h);
}

static void on_follow_noted(void *arg, const struct err *e)
{
	struct noting *n = arg;
	struct hold *h = n->h;
	free(n);
	if (!h)
		return;
	h->noting = NULL;
	if (e)
		host_of(h)->failed(host_of(h)->ctx, e);
	else
		log_ops(h)->consumer_resume(h->feed);
}

/* From now on the streamer may have the first half of a transaction of which the log has the rest. */
static void follow(struct hold *h)
{
	log_info("streamer", h->parts.streamer.env.job, "the streamer has the load: the changes that were held meanwhile follow");
	h->noting = mem_zalloc(sizeof *h->noting);
	h->noting->h = h;
	host_of(h)->note_put(host_of(h)->ctx, follows_key, "yes", on_follow_noted, h->noting);
}

void hold_release(struct hold *h, uint64_t rows_lsn)
{
	if (!hold_is_held(h))
		return;
	h->state = FOLLOWING;
	h->rows_lsn = rows_lsn;
	if (!h->is_fed)
		follow(h);
	else
		pass(h);
}

void hold_loads(struct hold *h)
{
	h->loads = true;
	loop_task_post(h->later); /* it may have said AGAIN */
}

void hold_go_on(struct hold *h)
{
	h->may_go_on = true;
	log_ops(h)->consumer_resume(h->feed);
}

bool hold_is_held(const struct hold *h) { return h->state <= HELD; }

bool hold_has_any(const struct hold *h) { return !h->is_fed; }

const struct txn *hold_oldest(const struct hold *h) { return h->is_fed || (!h->oldest.lsn && !h->is_unseen) ? NULL : &h->oldest; }

bool hold_is_over(const struct hold *h) { return h->state == PASSING && !h->nfed; }

bool hold_has_begun(const struct hold *h) { return h->has_begun; }

/* ---- back ---- */

static void remember_untold(struct hold *h, const struct sent *s)
{
	if (!streamer_ops(h)->stored || s->from == FROM_LOG || s->was_fed) /* what was held was stored long ago */
		return;
	if (h->nuntold == h->capuntold) {
		h->capuntold = h->capuntold ? 2 * h->capuntold : 64;
		h->untold = mem_realloc_array(h->untold, h->capuntold, sizeof *h->untold);
	}
	h->untold[h->nuntold++] = (struct untold){ .token = s->token, .own = h->own, .from = s->from };
}

/* In order: what went straight behind the log is told when all of that is there. */
static void tell_delivered(struct hold *h)
{
	while (h->n && sent_at(h, 0)->is_delivered) {
		const struct sent s = *sent_at(h, 0);
		remember_untold(h, &s);
		h->first = (h->first + 1) & (h->cap - 1);
		h->n--;
		h->own++;
		if (s.from == FROM_LOG) {
			h->nfed--;
			log_ops(h)->commit(h->feed, s.token);
			note_fed(h);
		} else {
			h->faces[s.from].host.delivered(h->faces[s.from].host.ctx, s.token, NULL);
		}
	}
}

static void on_delivered(void *ctx, uint64_t token, const struct err *e)
{
	struct hold *h = ctx;
	const struct dmsr_streamer_host *host = host_of(h);
	struct err odd = { 0 };
	bool is_known = token >= h->own && token - h->own < h->n;
	struct sent *s = is_known ? sent_at(h, (size_t)(token - h->own)) : NULL;
	if (!e && (!s || s->is_delivered)) {
		err_set(&odd, DMSR_EFATAL, "streamer.protocol", "the streamer acknowledged a batch that it does not have");
		e = &odd;
	}
	if (e) {
		host->failed(host->ctx, e);
		return;
	}
	s->is_delivered = true;
	tell_delivered(h);
}

static void on_later(void *arg)
{
	struct hold *h = arg;
	tell_delivered(h);
	host_of(h)->resume(host_of(h)->ctx); /* a run that ends with the load may wait for nothing but the log */
}

static void on_log_delivered(void *ctx, uint64_t token, const struct err *e)
{
	const struct hold *h = ctx;
	host_of(h)->delivered(host_of(h)->ctx, token, e);
}

/* Of the two that the pipeline counts, each in an order of its own. */
static void tell_stored(struct dmsr_instance *i, uint64_t token)
{
	struct hold *h = of(i);
	size_t n = 0;
	h->stored[face_of(i) - h->faces] = token;
	while (n < h->nuntold && h->untold[n].token <= h->stored[h->untold[n].from])
		n++;
	if (!n)
		return;
	uint64_t own = h->untold[n - 1].own;
	h->nuntold -= n;
	memmove(h->untold, h->untold + n, h->nuntold * sizeof *h->untold);
	streamer_ops(h)->stored(h->streamer, own);
}

/* ---- the hosts of the two below ---- */

static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	const struct hold *h = ctx;
	host_of(h)->note_put(host_of(h)->ctx, key, value, done, arg);
}

static const char *on_note_get(void *ctx, const char *key)
{
	const struct hold *h = ctx;
	return host_of(h)->note_get(host_of(h)->ctx, key);
}

static void on_notice(void *ctx, const char *text)
{
	const struct hold *h = ctx;
	host_of(h)->notice(host_of(h)->ctx, text);
}

static void on_failed(void *ctx, const struct err *e)
{
	const struct hold *h = ctx;
	host_of(h)->failed(host_of(h)->ctx, e);
}

/* Where the log ended when changes went straight, in an earlier run. What it had in memory alone may be told delivered later than that is noted, so that the
 * job goes on before it: the streamer has it. When somebody sends the job back by hand the note is forgotten. */
static struct position noted(const struct hold *h)
{
	struct position at = { 0 };
	const char *note = host_of(h)->note_get(host_of(h)->ctx, ended_key);
	if (!note || position_parse(note, &at, NULL) || !position_is_comparable(&at, &h->parts.delivered))
		return (struct position){ 0 };
	return at;
}

/* What it knows to have of an earlier run is not sent again. */
static void on_streamer_ready(void *ctx)
{
	struct hold *h = ctx;
	const struct dmsr_consumer consumer = { .ctx = h, .deliver = on_feed, .drained = on_fed };
	struct dmsr_stand has = { 0 }, stand = { .at = noted(h) };
	if (streamer_ops(h)->known)
		streamer_ops(h)->known(h->streamer, &has);
	if (position_is_comparable(&has.at, &stand.at) && position_compare(&has.at, &stand.at) > 0)
		stand.at = has.at;
	h->given = stand.at;
	h->has_begun = h->is_earlier = !h->is_fed && host_of(h)->note_get(host_of(h)->ctx, follows_key);
	h->state = h->has_begun ? ENDING : HELD;
	h->feed = log_ops(h)->subscribe(h->log, "streamer", &stand, &consumer);
	log_ops(h)->start(h->log);
}

static void on_log_ready(void *ctx)
{
	struct hold *h = ctx;
	if (h->is_fed)
		tell_ready(h);
}

static void on_streamer_resume(void *ctx)
{
	const struct hold *h = ctx;
	if (h->feed)
		log_ops(h)->consumer_resume(h->feed);
	for (int way = 0; way < HOLD_WAYS; way++)
		h->faces[way].host.resume(h->faces[way].host.ctx);
}

static void on_log_resume(void *ctx)
{
	const struct hold *h = ctx;
	host_of(h)->resume(host_of(h)->ctx);
}

/* What it still acknowledged is out of the log by then. */
static void on_streamer_stopped(void *ctx)
{
	const struct hold *h = ctx;
	log_ops(h)->stop(h->log);
}

static void on_log_stopped(void *ctx)
{
	const struct hold *h = ctx;
	for (int way = 0; way < HOLD_WAYS; way++)
		h->faces[way].host.stopped(h->faces[way].host.ctx);
}

/* ---- verbs ---- */

static bool changes_keeps(const struct dmsr_instance *i)
{
	const struct hold *h = of_const(i);
	return log_ops(h)->keeps(h->log) || streamer_ops(h)->keeps(h->streamer);
}

static bool has_readers(const struct dmsr_instance *i) { return streamer_ops(of_const(i))->has_readers(of_const(i)->streamer); }

static void changes_start(struct dmsr_instance *i) { streamer_ops(of(i))->start(of(i)->streamer); }

static void known(struct dmsr_instance *i, struct dmsr_stand *out) { streamer_ops(of(i))->known(of(i)->streamer, out); }

static struct dmsr_subscription *changes_subscribe(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c)
{
	return streamer_ops(of(i))->subscribe(of(i)->streamer, target, stand, c);
}

static void changes_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	const struct hold *h = of(i);
	struct dmsr_streamer_stat log = { 0 };
	streamer_ops(h)->stat(h->streamer, out);
	log_ops(h)->stat(h->log, &log);
	out->memory_bytes += log.memory_bytes;
	out->memory_limit_bytes += log.memory_limit_bytes;
	out->log_bytes += log.log_bytes;
	out->log_limit_bytes += log.log_limit_bytes;
	out->batches += log.batches;
}

static void changes_stop(struct dmsr_instance *i) { streamer_ops(of(i))->stop(of(i)->streamer); }

static void free_if_closed(struct hold *h)
{
	for (int way = 0; way < HOLD_WAYS; way++)
		if (!h->faces[way].is_closed)
			return;
	if (h->noting)
		h->noting->h = NULL;
	loop_task_free(h->later);
	free(h->ring);
	free(h->untold);
	free(h);
}

/* The streamer first: what it was given of the log is the log's. */
static void changes_close(struct dmsr_instance *i)
{
	struct hold *h = of(i);
	streamer_ops(h)->close(h->streamer);
	log_ops(h)->close(h->log);
	face_of(i)->is_closed = true;
	free_if_closed(h);
}

static bool rows_keeps(const struct dmsr_instance *i)
{
	(void)i;
	return false;
}

static void rows_start(struct dmsr_instance *i) { (void)i; }

static struct dmsr_subscription *rows_subscribe(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c)
{
	(void)i, (void)target, (void)stand, (void)c;
	return NULL;
}

static void rows_consumer(struct dmsr_subscription *s) { (void)s; }

static void rows_token(struct dmsr_subscription *s, uint64_t token) { (void)s, (void)token; }

static void rows_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	(void)i;
	*out = (struct dmsr_streamer_stat){ 0 };
}

static void rows_stop(struct dmsr_instance *i) { (void)i; }

static void rows_close(struct dmsr_instance *i)
{
	face_of(i)->is_closed = true;
	free_if_closed(of(i));
}

static void set_ops(struct hold *h)
{
	const struct dmsr_streamer *s = streamer_ops(h);
	h->faces[HOLD_CHANGES].ops = (struct dmsr_streamer){
		.takes_rests = s->takes_rests,
		.load_way = s->load_way,
		.gives_all = s->gives_all,
		.keeps = changes_keeps,
		.has_readers = s->has_readers ? has_readers : NULL,
		.start = changes_start,
		.known = s->known ? known : NULL,
		.stored = s->stored ? tell_stored : NULL,
		.produce = changes_produce,
		.subscribe = changes_subscribe,
		.consumer_resume = s->consumer_resume,
		.consumed = s->consumed,
		.commit = s->commit,
		.stat = changes_stat,
		.stop = changes_stop,
		.close = changes_close,
	};
	h->faces[HOLD_ROWS].ops = (struct dmsr_streamer){
		.keeps = rows_keeps,
		.start = rows_start,
		.stored = s->stored ? tell_stored : NULL,
		.produce = rows_produce,
		.subscribe = rows_subscribe,
		.consumer_resume = rows_consumer,
		.consumed = rows_token,
		.commit = rows_token,
		.stat = rows_stat,
		.stop = rows_stop,
		.close = rows_close,
	};
}

int hold_open(const struct hold_parts *parts, const struct dmsr_streamer_host hosts[HOLD_WAYS], struct hold **out, struct err *e)
{
	struct hold *h = mem_zalloc(sizeof *h);
	*h = (struct hold){ .parts = *parts, .state = HELD, .own = 1 };
	for (int way = 0; way < HOLD_WAYS; way++)
		h->faces[way] = (struct face){ .h = h, .host = hosts[way] };
	h->later = loop_task_new(parts->streamer.env.loop, "streamer", on_later, h);
	set_ops(h);
	const struct dmsr_streamer_host streamer = {
		.ctx = h,
		.env = parts->streamer.env,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.notice = on_notice,
		.ready = on_streamer_ready,
		.delivered = on_delivered,
		.resume = on_streamer_resume,
		.failed = on_failed,
		.stopped = on_streamer_stopped,
	};
	const struct dmsr_streamer_host log = {
		.ctx = h,
		.env = parts->log.env,
		.log = parts->entries,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.notice = on_notice,
		.ready = on_log_ready,
		.delivered = on_log_delivered,
		.resume = on_log_resume,
		.failed = on_failed,
		.stopped = on_log_stopped,
	};
	int rc = streamer_ops(h)->open(parts->streamer.settings, &streamer, &h->streamer, e);
	if (!rc && log_ops(h)->open(parts->log.settings, &log, &h->log, e)) {
		streamer_ops(h)->close(h->streamer);
		rc = e->code;
	}
	if (rc) {
		loop_task_free(h->later);
		free(h);
		return rc;
	}
	h->is_fed = !log_ops(h)->keeps(h->log);
	h->is_unseen = !h->is_fed;
	*out = h;
	return 0;
}

const struct dmsr_streamer *hold_ops(const struct hold *h, enum hold_way way) { return &h->faces[way].ops; }

struct dmsr_instance *hold_instance(struct hold *h, enum hold_way way) { return (struct dmsr_instance *)(void *)&h->faces[way]; }
