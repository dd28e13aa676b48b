/* kafka: the life of an instance, its verbs, and its turns. The rules stand in kafka.h. */
#include "kafka.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum { PATIENCE_MS = 30000, LOOK_MS = 5000, SAVE_AFTER_MS = 50 };

static const char *const state_names[KAFKA_STATES] = { "new", "starting", "running", "stopped", "dead" };
static const bool allowed[KAFKA_STATES][KAFKA_STATES] = {
	[KAFKA_NEW] = { [KAFKA_STARTING] = true, [KAFKA_STOPPED] = true, [KAFKA_DEAD] = true },
	[KAFKA_STARTING] = { [KAFKA_RUNNING] = true, [KAFKA_STOPPED] = true, [KAFKA_DEAD] = true },
	[KAFKA_RUNNING] = { [KAFKA_STOPPED] = true, [KAFKA_DEAD] = true },
};

static struct kafka *of(struct dmsr_instance *i) { return (struct kafka *)(void *)i; }

static void set_state(struct kafka *k, enum kafka_state to, const char *why)
{
	assert(allowed[k->state][to]);
	log_debug("streamer", k->host.env.job, "%s -> %s: %s", state_names[k->state], state_names[to], why);
	k->state = to;
}

void kafka_wake(struct kafka *k) { loop_task_post(k->turn); }

bool kafka_may_send(const struct kafka *k) { return k->state == KAFKA_RUNNING && !k->is_barred; }

bool kafka_slice_is_over(const struct kafka *k) { return loop_now_us(k->host.env.loop) > k->slice_us; }

bool kafka_waits_for_first(const struct kafka *k) { return k->nrecords && !k->has_first; }

int kafka_breathe(struct kafka *k)
{
	enum { LOOK_EVERY = 32 };
	if (kafka_waits_for_first(k))
		return DMSR_AGAIN;
	if (++k->nrows % LOOK_EVERY || !kafka_slice_is_over(k))
		return 0;
	kafka_wake(k);
	return DMSR_AGAIN;
}

void kafka_fail(struct kafka *k, const struct err *e)
{
	if (k->state == KAFKA_DEAD || k->state == KAFKA_STOPPED)
		return;
	k->error = *e;
	if (k->reads_only && !strcmp(e->id, "kafka.topic-missing"))
		err_hint(&k->error, "start the job that writes the stream, with layout ordered or both; or set prefix to that job's");
	if (k->reads_only && !strcmp(e->id, "kafka.denied"))
		err_hint(&k->error, "give the user the rights Describe and Read on the topics %s.__stream and %s.__schemas", k->prefix, k->prefix);
	if (k->state == KAFKA_RUNNING && !k->is_closed)
		extent_save_all(k);
	set_state(k, KAFKA_DEAD, e->message);
	kafka_wake(k);
}

/* ---- the way up: topics -> where the stream ends -> where ours begins -> every subscription ---- */

static void run(struct kafka *k)
{
	struct err e = { 0 };
	loop_timer_stop(k->patience);
	if (k->is_json && k->subscriptions && schemas_start(k, &e)) {
		kafka_fail(k, &e);
		return;
	}
	for (struct dmsr_subscription *s = k->subscriptions; s; s = consume_next(s))
		if (consume_start(s, &e)) {
			kafka_fail(k, &e);
			return;
		}
	if (k->producer)
		client_reached(k->producer);
	set_state(k, KAFKA_RUNNING, "its topics are there");
	kafka_wake(k);
}

/* A note on which more depends is durable. False: that is as far as it goes. */
static bool is_noted(struct kafka *k, const struct err *e)
{
	k->is_noting = false;
	if (e && !k->is_closed)
		kafka_fail(k, e);
	kafka_wake(k);
	return !e && !k->is_closed && k->state == KAFKA_STARTING;
}

void kafka_noted(struct kafka *k, const struct err *e) { is_noted(k, e); }

static void on_run_noted(void *arg, const struct err *e)
{
	struct kafka *k = arg;
	if (is_noted(k, e))
		topics_start(k);
}

/* Made up at the first run of any job in this process. */
static uint64_t own_process(void)
{
	static uint64_t own;
	while (!own && getrandom(&own, sizeof own, 0) != (ssize_t)sizeof own)
		;
	return own;
}

/* Of the note "run": "RUN PROCESS". */
static void read_last_run(struct kafka *k)
{
	const char *last = k->host.note_get(k->host.ctx, "run");
	char *process = NULL;
	k->last_run = last ? strtoull(last, &process, 10) : 0;
	k->was_here = process && *process == ' ' && strtoull(process + 1, NULL, 16) == own_process();
}

/* Who reads passes over what is of a lower run than the newest: so it is above whatever was found, also where the notes are gone, and the clock is behind. */
static void note_run(struct kafka *k, void (*done)(void *arg, const struct err *e))
{
	const uint64_t now = (uint64_t)wall_now_us(), newest = k->newest.run > k->last_run ? k->newest.run : k->last_run;
	char text[48];
	snprintf(k->run, sizeof k->run, "%" PRIu64, now > newest ? now : newest + 1);
	snprintf(text, sizeof text, "%s %" PRIx64, k->run, own_process());
	k->is_noting = true;
	if (k->is_table && !k->host.note_get(k->host.ctx, "tables"))
		k->host.note_put(k->host.ctx, "tables", "begun", NULL, NULL); /* durable with the next */
	k->host.note_put(k->host.ctx, "run", text, done, k);
}

static void on_begin_noted(void *arg, const struct err *e)
{
	struct kafka *k = arg;
	if (is_noted(k, e))
		run(k);
}

bool kafka_is_same_cluster(struct kafka *k, struct client *c)
{
	struct err e = { 0 };
	const char *was = k->host.note_get(k->host.ctx, "cluster");
	char *is = client_cluster(c);
	bool is_same = !is || !was || !strcmp(is, was);
	if (is && !was)
		k->host.note_put(k->host.ctx, "cluster", is, NULL, NULL);
	if (!is_same) {
		err_set(&e, DMSR_EFATAL, "kafka.cluster-changed", "%s is of the cluster %s, and what the job has written is in the cluster %s",
			settings_str(k->settings, "bootstrap_servers"), is, was);
		err_hint(&e, "set bootstrap_servers to that one again; or begin anew in this one: stop the job, DELETE /jobs/%s/positions, start it",
			k->host.env.job);
		kafka_fail(k, &e);
	}
	free(is);
	return is_same;
}

static void note_begin(struct kafka *k)
{
	char text[48];
	if (!k->stream || k->host.note_get(k->host.ctx, "begin")) {
		run(k);
		return;
	}
	k->begin_run = strtoull(k->run, NULL, 10);
	snprintf(text, sizeof text, "%" PRId64 " %s", k->begin, k->run);
	k->is_noting = true;
	k->host.note_put(k->host.ctx, "begin", text, on_begin_noted, k);
}

static void on_run_raised(void *arg, const struct err *e)
{
	struct kafka *k = arg;
	if (is_noted(k, e))
		note_begin(k);
}

static bool is_shorter(struct kafka *k)
{
	const char *end = k->stream && !k->reads_only ? k->host.note_get(k->host.ctx, "end") : NULL;
	struct err e = { 0 };
	if (!end || strtoll(end, NULL, 10) <= k->end)
		return false;
	err_set(&e, DMSR_EFATAL, "kafka.stream-lost", "topic %s ends at offset %" PRId64 ", and went to %s before: the brokers have lost records that they had "
		"acknowledged, or the topic was made anew", k->stream->name, k->end, end);
	err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it", k->host.env.job);
	kafka_fail(k, &e);
	return true;
}

static void on_scouted(struct kafka *k)
{
	if (!kafka_is_same_cluster(k, consume_client(k->scout)))
		return;
	consume_free(k->scout);
	k->scout = NULL;
	k->scouted_end = k->end;
	if (is_shorter(k) || foreign_is_ahead(k, k->stream ? k->stream : k->schemas))
		return;
	if (k->reads_only)
		run(k);
	else if (k->newest.run >= strtoull(k->run, NULL, 10))
		note_run(k, on_run_raised);
	else
		note_begin(k);
}

static void start_turn(struct kafka *k)
{
	struct err e = { 0 };
	if (k->nmaking || k->is_noting || !known_is_ours(k) || !exact_has_begun(k) || !known_is_read(k))
		return;
	if (!k->scout && !k->is_scouted && consume_scout(k, &e))
		kafka_fail(k, &e);
	else if (k->scout && k->end >= 0)
		on_scouted(k);
	else if (k->scout)
		consume_turn(k->scout);
	k->is_scouted |= k->scout != NULL;
}

/* Who is slow has all of the patience; who refuses, or is not found, has no use for it: its address may still be the second of two. */
static void look_at_start(struct kafka *k)
{
	struct client *c = k->producer ? k->producer : k->scout ? consume_client(k->scout) : NULL;
	const char *brokers = settings_str(k->settings, "bootstrap_servers"), *why = c ? client_refused(c) : NULL, *not_there_why = NULL;
	const char *not_there = c ? client_not_there(c, brokers, &not_there_why) : NULL;
	struct err e = { 0 };
	k->waited_ms += LOOK_MS;
	if (!why && k->waited_ms < (not_there ? PATIENCE_MS / 2 : PATIENCE_MS)) {
		loop_timer_start(k->patience, LOOK_MS);
		return;
	}
	const bool is_exact = !why && exact_waits(k, &e);
	if (not_there && !is_exact) {
		kafka_not_there(&e, brokers, not_there, not_there_why);
	} else if (!is_exact) {
		err_retry(&e, DMSR_EIO, "kafka.unreachable", "no broker of %s answers: %s", brokers, why ? why : "not in time");
		err_hint(&e, "check bootstrap_servers, and that the brokers run");
	}
	kafka_fail(k, &e);
}

static void on_patience(void *arg)
{
	struct kafka *k = arg;
	struct err e = { 0 };
	if (k->state == KAFKA_STARTING) {
		look_at_start(k);
	} else if (k->is_barred) {
		err_retry(&e, DMSR_EIO, "kafka.producer-fatal", "Kafka's producer cannot go on, and does not say why: a new one begins at what was stored");
		kafka_fail(k, &e);
	} else {
		kafka_wake(k); /* somebody waits for a shape */
	}
}

/* ---- a turn ---- */

static void tell_delivered(struct kafka *k)
{
	struct tokens *t = &k->told;
	while (t->at < t->ready && !k->is_closed && k->state != KAFKA_DEAD) {
		k->host.delivered(k->host.ctx, t->all[t->at++], NULL);
		if (!k->is_closed && kafka_slice_is_over(k)) {
			kafka_wake(k);
			return;
		}
	}
	if (t->at < t->ready)
		return;
	t->n -= t->at;
	t->committed -= t->at;
	if (t->n)
		memmove(t->all, t->all + t->at, t->n * sizeof *t->all);
	t->at = t->ready = 0;
}

static void tell_room(struct kafka *k)
{
	if (!k->said_again || k->state != KAFKA_RUNNING || k->memory > k->memory_max / 4 * 3)
		return;
	k->said_again = false;
	k->host.resume(k->host.ctx);
}

static void tell_end(struct kafka *k)
{
	if (k->has_told_end || (k->state != KAFKA_STOPPED && k->state != KAFKA_DEAD))
		return;
	k->has_told_end = true;
	if (k->state == KAFKA_STOPPED)
		k->host.stopped(k->host.ctx);
	else
		k->host.failed(k->host.ctx, &k->error);
}

/* All that has librdkafka's threads, and the host's names. */
static void shut(struct kafka *k)
{
	schemas_free(k);
	known_shut(k);
	consume_free(k->scout);
	k->scout = NULL;
	while (k->subscriptions) {
		struct dmsr_subscription *s = k->subscriptions;
		k->subscriptions = consume_next(s);
		consume_free(s);
	}
	topics_free(k);
	produce_free(k);
	client_free(k->producer, NULL);
	k->producer = NULL;
}

static void release(struct kafka *k)
{
	shut(k);
	if (k->codec)
		k->codec_ops->close(k->codec);
	map_free(k->by_table);
	map_free(k->by_name);
	map_free(k->schemas_sent);
	loop_task_free(k->turn);
	loop_timer_free(k->patience);
	loop_timer_free(k->save);
	exact_free(k);
	known_free(k);
	transactions_free(k);
	free(k->prefix);
	free(k);
}

/* A note under way will still be answered. */
static void end(struct kafka *k)
{
	if (k->is_noting)
		shut(k);
	else
		release(k);
}

static void work(struct kafka *k)
{
	if (k->state == KAFKA_STARTING)
		start_turn(k);
	if (k->state == KAFKA_RUNNING && !k->has_told_ready) {
		k->has_told_ready = true;
		k->host.ready(k->host.ctx);
	}
	if (k->state == KAFKA_RUNNING && k->producer)
		produce_turn(k);
	for (struct dmsr_subscription *s = k->subscriptions; s && !k->is_closed && k->state == KAFKA_RUNNING; s = consume_next(s))
		consume_turn(s);
}

static void on_turn(void *arg)
{
	struct kafka *k = arg;
	k->is_in_turn = true;
	k->slice_us = loop_now_us(k->host.env.loop) + KAFKA_SLICE_US;
	if (!k->is_closed)
		work(k);
	if (!k->is_closed)
		tell_delivered(k);
	if (!k->is_closed)
		tell_room(k);
	if (!k->is_closed)
		tell_end(k);
	k->is_in_turn = false;
	if (k->is_closed)
		end(k);
}

/* ---- the producer ---- */

static void on_event(void *ctx, rd_kafka_event_t *ev)
{
	if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_DR)
		produce_reports(ctx, ev);
	else
		topics_event(ctx, ev);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct err own = *e;
	exact_judge(ctx, &own);
	kafka_fail(ctx, &own);
}

void kafka_connected(struct kafka *k, bool is)
{
	char text[400];
	const char *brokers = settings_str(k->settings, "bootstrap_servers");
	const bool was_away = err_is_set(&k->away);
	k->away = (struct err){ 0 };
	if (!is && k->state == KAFKA_RUNNING) {
		err_retry(&k->away, DMSR_EIO, "kafka.unreachable", "no broker of %s answers: %s until one does", brokers,
			k->reads_only ? "nothing is read" : "the source waits");
		err_hint(&k->away, "see to the brokers: nothing is lost, and what waits goes on by itself");
		k->away_us = was_away ? k->away_us : wall_now_us();
	}
	snprintf(text, sizeof text, "the brokers (%s) answer again", brokers);
	if (k->state == KAFKA_RUNNING)
		k->host.notice(k->host.ctx, is ? text : k->away.message);
}

static void on_connected(void *ctx, bool is) { kafka_connected(ctx, is); }

/* ---- life ---- */

static void save(struct kafka *k)
{
	char text[24];
	for (struct dmsr_subscription *s = k->subscriptions; s; s = consume_next(s))
		consume_save(s);
	if (k->stream && !k->reads_only && k->end > k->saved_end) {
		k->saved_end = k->end;
		snprintf(text, sizeof text, "%" PRId64, k->end);
		k->host.note_put(k->host.ctx, "end", text, NULL, NULL);
	}
	extent_save(k);
	transactions_save(k);
	if (k->known)
		known_save(k);
	k->told.ready = k->told.committed;
	kafka_wake(k);
}

static void on_save(void *arg)
{
	struct kafka *k = arg;
	if (k->state == KAFKA_RUNNING)
		save(k);
}

void kafka_save_soon(struct kafka *k)
{
	if (k->save && !loop_timer_is_running(k->save))
		loop_timer_start(k->save, SAVE_AFTER_MS);
}

static int open_codec(struct kafka *k, struct err *e)
{
	const char *name = settings_str(k->settings, "codec");
	k->is_json = strcmp(name, "native") != 0;
	if (!k->is_json)
		return 0;
	k->codec_ops = k->host.env.codec(k->host.env.codecs, name);
	if (!k->codec_ops)
		return err_set(e, DMSR_EINVAL, "kafka.codec", "there is no codec %s", name);
	return k->codec_ops->open(k->settings, k->host.env.source, &k->codec, e);
}

static rd_kafka_conf_t *conf_of(struct kafka *k, struct err *e)
{
	rd_kafka_conf_t *conf = kafka_conf(k->settings, k->host.env.job, RD_KAFKA_PRODUCER, e);
	if (!conf || !k->known || !kafka_conf_exact(conf, k->settings, k->host.env.uid, e))
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

static int make_producer(struct kafka *k, struct err *e)
{
	const struct client_host host = { .ctx = k, .event = on_event, .failed = on_failed, .connected = on_connected };
	rd_kafka_conf_t *conf = conf_of(k, e);
	return conf ? client_new(k->host.env.loop, k->host.env.job, RD_KAFKA_PRODUCER, conf, &host, &k->producer, e) : e->code;
}

int kafka_open(const struct settings *settings, const struct dmsr_streamer_host *host, bool reads_only, struct kafka **out, struct err *e)
{
	struct kafka *k = mem_zalloc(sizeof *k);
	const char *prefix = settings_str(settings, "prefix"), *begin = host->note_get(host->ctx, "begin");
	char *begin_run = NULL;
	k->host = *host;
	k->settings = settings;
	k->reads_only = reads_only;
	k->prefix = mem_strdup(prefix ? prefix : host->env.job);
	k->memory_max = (size_t)settings_int(settings, "memory");
	k->record_max = (size_t)settings_int(settings, "record_bytes");
	k->linger_us = reads_only ? 0 : (uint64_t)settings_int(settings, "linger") * 1000;
	k->begin = begin ? strtoll(begin, &begin_run, 10) : -1;
	k->begin_run = begin_run ? strtoull(begin_run, NULL, 10) : 0;
	k->end = -1;
	k->keeps = begin != NULL;
	k->by_table = map_new();
	k->by_name = map_new();
	k->schemas_sent = map_new();
	buf_init(&k->pack, (size_t)1 << 31);
	k->turn = loop_task_new(host->env.loop, "kafka", on_turn, k);
	k->patience = loop_timer_new(host->env.loop, "kafka", on_patience, k);
	k->save = loop_timer_new(host->env.loop, "kafka", on_save, k);
	foreign_open(k);
	exact_open(k);
	if (!reads_only && settings_bool(settings, "exactly_once"))
		known_open(k);
	if (!reads_only && settings_bool(settings, "transaction_topic"))
		transactions_open(k);
	if ((!reads_only && make_producer(k, e)) || open_codec(k, e)) {
		release(k);
		return e->code;
	}
	*out = k;
	return 0;
}

static int streamer_open(const struct settings *settings, const struct dmsr_streamer_host *host, struct dmsr_instance **out, struct err *e)
{
	return kafka_open(settings, host, false, (struct kafka **)(void *)out, e);
}

static enum dmsr_load_way kafka_load_way(const struct settings *s)
{
	return strcmp(settings_str(s, "load"), "direct") ? DMSR_LOAD_THROUGH : DMSR_LOAD_PAST;
}

static bool kafka_keeps(const struct dmsr_instance *i) { return ((const struct kafka *)(const void *)i)->keeps; }

static bool kafka_has_readers(const struct dmsr_instance *i) { return ((const struct kafka *)(const void *)i)->is_table; }

static struct dmsr_subscription *kafka_subscribe(struct dmsr_instance *i, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c)
{
	assert(of(i)->state == KAFKA_NEW || of(i)->state == KAFKA_DEAD);
	return consume_new(of(i), target, stand, c);
}

static void choose_layout(struct kafka *k)
{
	const char *layout = k->reads_only ? "ordered" : settings_str(k->settings, "layout");
	const bool is_auto = !strcmp(layout, "auto"), is_both = !strcmp(layout, "both");
	/* What began goes on: the stream while nobody reads it, and the topics of tables, whose readers nobody here knows, beside a target's stream. The
	 * engine sees to it that the option stays. */
	k->is_indexed = !strcmp(layout, "table") && (k->subscriptions || k->keeps);
	k->is_ordered = is_both || !strcmp(layout, "ordered") || (is_auto && (k->subscriptions || k->keeps));
	k->is_table = is_both || !strcmp(layout, "table") || !k->is_ordered || (is_auto && k->host.note_get(k->host.ctx, "tables"));
}

/* What the layout is not for. */
static int check_layout(struct kafka *k, struct err *e)
{
	const bool is_exact = !k->is_json || k->codec_ops->is_exact(k->codec);
	if (k->is_indexed && kafka_load_way(k->settings) != DMSR_LOAD_PAST) {
		err_set(e, DMSR_EINVAL, "kafka.layout", "the job has targets, and with layout table rows of a load do not come to them through the topics");
		return err_hint(e, "set load to direct, or layout to ordered, or to both");
	}
	if (k->is_table && !k->is_json) {
		err_set(e, DMSR_EINVAL, "kafka.layout", "the layout table is for readers that are not DMSR, who do not know the codec native");
		return err_hint(e, "set codec to json, or layout to ordered");
	}
	if ((k->is_ordered || k->is_indexed) && !is_exact) {
		err_set(e, DMSR_EINVAL, "kafka.codec", "what codec json writes with these options cannot be read back exactly, as the targets have to");
		return err_hint(e, "leave shape, compat, json and invalid_utf8 as they are by default%s", k->is_indexed ? "" : ", or set codec to native");
	}
	return 0;
}

void kafka_start(struct kafka *k)
{
	struct err e = { 0 };
	if (k->state != KAFKA_NEW) /* the producer connects at once, and was refused: that is yet to be told */
		return;
	choose_layout(k);
	set_state(k, KAFKA_STARTING, "asked to");
	if (check_layout(k, &e)) {
		kafka_fail(k, &e);
		return;
	}
	loop_timer_start(k->patience, LOOK_MS);
	if (kafka_unused_password(k->settings))
		k->host.notice(k->host.ctx, kafka_unused_password(k->settings));
	if (!k->reads_only) {
		read_last_run(k);
		note_run(k, on_run_noted);
		return;
	}
	snprintf(k->run, sizeof k->run, "0"); /* older than those of any that writes */
	topics_start(k);
	kafka_wake(k);
}

static void streamer_start(struct dmsr_instance *i) { kafka_start(of(i)); }

void kafka_stop(struct kafka *k)
{
	if (k->state == KAFKA_RUNNING) {
		save(k);
		extent_save_all(k);
	}
	if (k->state < KAFKA_STOPPED)
		set_state(k, KAFKA_STOPPED, "asked to");
	kafka_wake(k);
}

static void streamer_stop(struct dmsr_instance *i) { kafka_stop(of(i)); }

void kafka_close(struct kafka *k)
{
	k->is_closed = true;
	loop_timer_stop(k->save);
	loop_timer_stop(k->patience);
	loop_timer_stop(k->exact.due);
	if (!k->is_in_turn)
		end(k);
}

static void streamer_close(struct dmsr_instance *i) { kafka_close(of(i)); }

static enum dmsr_verdict kafka_produce(struct dmsr_instance *i, struct batch *b)
{
	struct kafka *k = of(i);
	consume_expect(k);
	return produce_take(k, b);
}

static void kafka_stat(struct dmsr_instance *i, struct dmsr_streamer_stat *out)
{
	const struct kafka *k = of(i);
	*out = (struct dmsr_streamer_stat){ .memory_bytes = k->memory, .memory_limit_bytes = k->memory_max };
	if (k->state == KAFKA_RUNNING && err_is_set(&k->away)) {
		out->error = &k->away;
		out->error_us = k->away_us;
	}
	for (const struct flight *f = k->first; f; f = f->next)
		out->batches++;
	for (const struct dmsr_subscription *s = k->subscriptions; s; s = consume_next(s))
		out->memory_bytes += consume_bytes(s);
}

static void kafka_known(struct dmsr_instance *i, struct dmsr_stand *out) { known_tell(of(i), out); }

static void kafka_stored(struct dmsr_instance *i, uint64_t token)
{
	if (of(i)->known)
		known_stored(of(i), token);
}

static char *topics_below(const char *prefix) { return kafka_topic_name(prefix, NULL, NULL); }

/* Whatever brokers are named: one has several addresses, so what is written differently may be the same cluster. */
static const struct dmsr_own own = {
	.option = "prefix",
	.name = topics_below,
	.otherwise = "give this one a prefix of its own; or, to read that job's stream, the source {\"connector\": \"kafka\"} with that prefix",
};

static const struct dmsr_streamer streamer = {
	.own = &own,
	.takes_rests = true,
	.gives_all = true,
	.load_way = kafka_load_way,
	.open = streamer_open,
	.keeps = kafka_keeps,
	.has_readers = kafka_has_readers,
	.start = streamer_start,
	.known = kafka_known,
	.stored = kafka_stored,
	.produce = kafka_produce,
	.subscribe = kafka_subscribe,
	.consumer_resume = consume_resume,
	.consumed = consume_consumed,
	.commit = consume_commit,
	.stat = kafka_stat,
	.stop = streamer_stop,
	.close = streamer_close,
};

DMSR_PLUGIN(kafka) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "kafka",
	.summary = "streamer: Apache Kafka; source: the stream that another job writes there",
	.source_options = kafka_source_options,
	.streamer_options = kafka_options,
	.source = &kafka_source,
	.streamer = &streamer,
	.source_probe = &kafka_source_probe,
	.streamer_probe = &kafka_probe,
};
