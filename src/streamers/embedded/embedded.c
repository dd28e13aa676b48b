/* embedded: the life of an instance, its verbs, and its turns. The rules stand in embedded.h. */
#include "embedded.h"
#include <assert.h>
#include <stdlib.h>

enum { SLICE_US = 1000 };

static const char *const state_names[EMBEDDED_STATES] = { "new", "starting", "running", "stopping", "stopped", "dead" };
static const bool allowed[EMBEDDED_STATES][EMBEDDED_STATES] = {
	[EMBEDDED_NEW] = { [EMBEDDED_STARTING] = true, [EMBEDDED_STOPPING] = true, [EMBEDDED_DEAD] = true },
	[EMBEDDED_STARTING] = { [EMBEDDED_RUNNING] = true, [EMBEDDED_STOPPING] = true, [EMBEDDED_DEAD] = true },
	[EMBEDDED_RUNNING] = { [EMBEDDED_STOPPING] = true, [EMBEDDED_DEAD] = true },
	[EMBEDDED_STOPPING] = { [EMBEDDED_STOPPED] = true, [EMBEDDED_DEAD] = true },
};

static struct embedded *of(struct dmsr_instance *i) { return (struct embedded *)(void *)i; }

static void set_state(struct embedded *s, enum embedded_state to, const char *why)
{
	assert(allowed[s->state][to]);
	log_debug("streamer", s->host.env.job, "%s -> %s: %s", state_names[s->state], state_names[to], why);
	s->state = to;
}

void embedded_wake(struct embedded *s) { loop_task_post(s->turn); }

bool embedded_slice_is_over(const struct embedded *s) { return loop_now_us(s->host.env.loop) > s->slice_us; }

void embedded_fail(struct embedded *s, const struct err *e)
{
	if (s->state == EMBEDDED_DEAD || s->state == EMBEDDED_STOPPED)
		return;
	s->error = *e;
	set_state(s, EMBEDDED_DEAD, e->message);
	embedded_wake(s);
}

/* ---- a turn ---- */

static void tell_ready(struct embedded *s)
{
	if (s->state == EMBEDDED_STARTING && !s->nreading)
		set_state(s, EMBEDDED_RUNNING, "the log is known");
	if (s->state != EMBEDDED_RUNNING || s->has_told_ready)
		return;
	s->has_told_ready = true;
	s->host.ready(s->host.ctx);
}

static void tell_delivered(struct embedded *s)
{
	struct tokens *t = &s->told;
	while (t->at < t->n && !s->is_closed && s->state != EMBEDDED_DEAD) {
		s->host.delivered(s->host.ctx, t->all[t->at++], NULL);
		if (!s->is_closed && embedded_slice_is_over(s)) {
			embedded_wake(s);
			return;
		}
	}
	if (t->at == t->n)
		t->at = t->n = 0;
}

static void tell_room(struct embedded *s)
{
	if (!s->said_again || s->state != EMBEDDED_RUNNING)
		return;
	if (window_is_over(s, s->memory_max / 4 * 3) && !feed_is_starving(s))
		return;
	s->said_again = false;
	s->host.resume(s->host.ctx);
}

static void tell_end(struct embedded *s)
{
	if (s->state == EMBEDDED_STOPPING && !s->nwriting && !s->nreading && !s->told.n)
		set_state(s, EMBEDDED_STOPPED, "asked to");
	if (s->has_told_end || (s->state != EMBEDDED_STOPPED && s->state != EMBEDDED_DEAD))
		return;
	s->has_told_end = true;
	if (s->state == EMBEDDED_STOPPED)
		s->host.stopped(s->host.ctx);
	else
		s->host.failed(s->host.ctx, &s->error);
}

static void free_subscription(struct dmsr_subscription *c)
{
	recall_free(c);
	c->consumed = UINT64_MAX;
	feed_forget(c);
	free(c->name);
	free(c);
}

static void release(struct embedded *s)
{
	while (s->subscriptions) {
		struct dmsr_subscription *c = s->subscriptions;
		s->subscriptions = c->next_one;
		free_subscription(c);
	}
	window_free(s);
	buf_fini(&s->pack);
	loop_task_free(s->turn);
	free(s);
}

static void work(struct embedded *s)
{
	if (s->state == EMBEDDED_RUNNING || s->state == EMBEDDED_STOPPING) {
		window_advance(s);
		spill_trim(s);
	}
	if (s->state != EMBEDDED_RUNNING)
		return;
	window_make_room(s);
	spill_turn(s);
	feed_turn(s);
	window_make_room(s); /* what was read for the consumers came in; if they refuse it, and the source waits, there is no other turn */
}

static void on_turn(void *arg)
{
	struct embedded *s = arg;
	s->is_in_turn = true;
	s->slice_us = loop_now_us(s->host.env.loop) + SLICE_US;
	tell_ready(s);
	if (!s->is_closed)
		work(s);
	if (!s->is_closed)
		tell_delivered(s);
	if (!s->is_closed)
		tell_room(s);
	if (!s->is_closed)
		tell_end(s);
	s->is_in_turn = false;
	if (s->is_closed)
		release(s);
}

/* ---- life ---- */

static int embedded_open(const struct settings *settings, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	struct embedded *s = mem_zalloc(sizeof *s);
	(void)e;
	s->host = *host;
	s->memory_max = (size_t)settings_int(settings, "memory");
	s->disk_max = (uint64_t)settings_int(settings, "disk");
	s->log = s->disk_max ? host->log : NULL;
	s->items = map_new();
	s->lo = s->hi = s->logged = s->seq = s->trimmed = 1;
	/* What is in the log is delivered, also when nothing more may be written. */
	if (host->log && host->log->last) {
		s->log = host->log;
		s->disk = host->log->bytes;
		s->trimmed = host->log->first;
		s->shift = host->log->first - 1;
		s->seq = host->log->last + 1;
		s->hi = s->logged = s->seq - s->shift;
	}
	buf_init(&s->pack, DMSR_LOG_ENTRY_MAX);
	s->turn = loop_task_new(host->env.loop, "streamer", on_turn, s);
	*out = (struct dmsr_instance *)(void *)s;
	return 0;
}

static enum dmsr_load_way embedded_load_way(const struct settings *s)
{
	(void)s;
	return DMSR_LOAD_EITHER;
}

static bool embedded_keeps(const struct dmsr_instance *i)
{
	const struct embedded *s = (const struct embedded *)(const void *)i;
	return s->log && s->log->last;
}

static struct dmsr_subscription *embedded_subscribe(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand,
	const struct dmsr_consumer *consumer)
{
	struct embedded *s = of(i);
	struct dmsr_subscription *c = mem_zalloc(sizeof *c), **end = &s->subscriptions;
	assert(s->state == EMBEDDED_NEW);
	c->s = s;
	c->name = mem_strdup(target);
	c->c = *consumer;
	c->next = s->lo;
	c->from = stand->at;
	c->is_behind = !position_is_none(&stand->at);
	while (*end)
		end = &(*end)->next_one;
	*end = c;
	return c;
}

static void embedded_start(struct dmsr_instance *i)
{
	struct embedded *s = of(i);
	set_state(s, EMBEDDED_STARTING, "asked to");
	if (s->logged > s->lo) {
		recall_tail(s);
		feed_expect(s);
	}
	embedded_wake(s);
}

static void embedded_stop(struct dmsr_instance *i)
{
	struct embedded *s = of(i);
	if (s->state == EMBEDDED_NEW || s->state == EMBEDDED_STARTING || s->state == EMBEDDED_RUNNING)
		set_state(s, EMBEDDED_STOPPING, "asked to");
	embedded_wake(s);
}

static void embedded_close(struct dmsr_instance *i)
{
	struct embedded *s = of(i);
	s->is_closed = true;
	if (!s->is_in_turn)
		release(s);
}

/* ---- in ---- */

/* Rule 6. True: nothing of the batch is new. */
static bool is_known(struct embedded *s, struct batch *b)
{
	if (position_is_none(&s->tail) || position_is_none(&b->end))
		return false;
	return batch_known(b, &s->tail) == KNOWN_ALL;
}

static void cut_known(struct embedded *s, struct batch *b)
{
	if (position_is_none(&s->tail) || position_is_none(&b->end))
		return;
	bool is_behind_it = position_compare(&b->end, &s->tail) > 0;
	if (batch_known(b, &s->tail) == KNOWN_PART)
		batch_cut(b, &s->tail);
	if (is_behind_it)
		s->tail = (struct position){ 0 };
}

static void fail_foreign(struct embedded *s)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EFATAL, "server.changed", "the source of job %s is another server than the one whose changes wait in the spill log", s->host.env.job);
	err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->host.env.job);
	embedded_fail(s, &e);
}

static enum dmsr_verdict embedded_produce(struct dmsr_instance *i, struct batch *b)
{
	struct embedded *s = of(i);
	if (!position_is_comparable(&b->end, &s->tail)) {
		fail_foreign(s);
		return DMSR_AGAIN;
	}
	bool is_full = window_is_over(s, s->memory_max) && !feed_is_starving(s);
	if (s->state != EMBEDDED_RUNNING || is_full) {
		s->said_again = true;
		embedded_wake(s); /* somebody may be in the way */
		return DMSR_AGAIN;
	}
	if (is_known(s, b)) {
		window_tell(s, &(struct item){ .token = b->token });
		batch_free(b);
	} else {
		cut_known(s, b);
		window_append(s, b);
	}
	feed_expect(s);
	embedded_wake(s);
	return DMSR_OK;
}

/* ---- back from the consumers ---- */

static void embedded_consumer_resume(struct dmsr_subscription *c)
{
	c->is_waiting = false;
	embedded_wake(c->s);
}

static void embedded_consumed(struct dmsr_subscription *c, uint64_t token)
{
	assert(token <= c->last);
	if (token == c->last)
		token = c->next - 1; /* what was skipped behind it goes with it */
	if (token <= c->consumed)
		return;
	c->consumed = token;
	c->is_told = false;
	feed_forget(c);
	embedded_wake(c->s);
}

static void embedded_commit(struct dmsr_subscription *c, uint64_t token)
{
	embedded_consumed(c, token);
	if (token == c->last)
		token = c->next - 1;
	if (token <= c->committed)
		return;
	c->committed = token;
	embedded_wake(c->s);
}

static void embedded_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	const struct embedded *s = of(i);
	*out = (struct dmsr_streamer_stat){
		.memory_bytes = s->memory,
		.memory_limit_bytes = s->memory_max,
		.log_bytes = s->disk,
		.log_limit_bytes = s->disk_max,
		.batches = s->hi - s->lo,
	};
}

/* ---- the plugin ---- */

static const struct dmsr_option options[] = {
	{ "memory", DMSR_OPT_BYTES, 0, "32MiB", NULL, 65536, (int64_t)1 << 40,
		"How much of what the targets have not applied may be in memory, whether it waits or they hold it; beyond it goes to the log on disk. "
		"At most one batch, and two for each target, come on top; a batch takes up to four times the source's batch_bytes, or as much as one row. "
		"While a load goes beside the stream it has as much for itself." },
	{ "disk", DMSR_OPT_BYTES, 0, "10GiB", NULL, 0, (int64_t)1 << 50,
		"How big that log may get before the source is made to wait. 0: there is no log, and a full memory makes the source wait." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

static const struct dmsr_streamer streamer = {
	.takes_rests = true,
	.load_way = embedded_load_way,
	.open = embedded_open,
	.keeps = embedded_keeps,
	.start = embedded_start,
	.produce = embedded_produce,
	.subscribe = embedded_subscribe,
	.consumer_resume = embedded_consumer_resume,
	.consumed = embedded_consumed,
	.commit = embedded_commit,
	.stat = embedded_stat,
	.stop = embedded_stop,
	.close = embedded_close,
};

DMSR_PLUGIN(embedded) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "embedded",
	.summary = "streamer: in this process, in memory and over that in a log on disk",
	.streamer_options = options,
	.streamer = &streamer,
};
