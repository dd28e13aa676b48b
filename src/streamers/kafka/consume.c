/* consume: the stream back from the broker, for one target. Rules 3 to 6 of kafka.h.
 *
 *   fetched record -> (parts joined) -> batch -> (known? taken out) -> held -> deliver -> lent -> commit -> note
 *
 * One record is held at a time: until its target takes it nothing more is asked of librdkafka, which has what it may fetch ahead (option memory). */
#include "fetch.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SHAPE_MS = 10000 };

/* What stands in a stream stands there for all who read it from its begin. */
#define HINT_OTHER_PREFIX "have the job that writes begin under another prefix, and make a new job that reads that; or one of mode cdc, for targets that " \
	"have the rows"

void consume_fail(struct dmsr_subscription *s, struct err *e)
{
	if (s->name && !s->take)
		err_prefix(e, "target %s", s->name);
	kafka_fail(s->k, e);
}

/* ---- what it has already ---- */

static bool has_load(const struct dmsr_subscription *s, const struct change *ch)
{
	bool is_word = ch->op == OP_LOAD_BEGIN || ch->op == OP_LOAD_END;
	uint64_t lsn = is_word ? change_loaded_lsn(ch) : ch->txn->lsn;
	for (size_t i = 0; i < s->nhas; i++)
		if (s->has[i].lsn >= lsn && !strcmp(s->has[i].name, ch->rel->name) && !strcmp(s->has[i].schema, ch->rel->schema))
			return true;
	return false;
}

/* A batch of a load holds words and rows of one table, each with its snapshot: which load it is needs no word before it, that an earlier run has read. Of one
 * that went on the rows are newer than the snapshot that it counts by: they mean nothing without its begin. */
static bool is_known_load(const struct dmsr_subscription *s, const struct batch *b)
{
	const struct change *ch = b->first;
	while (ch && ch->op == OP_SCHEMA)
		ch = ch->next;
	return ch && ch->op != OP_LOAD_DONE && ch->rel && ch->txn && has_load(s, ch);
}

static void fail_foreign(struct dmsr_subscription *s)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EFATAL, "server.changed", "the stream goes on with the changes of another server");
	if (s->take)
		err_hint(&e, HINT_OTHER_PREFIX);
	else
		err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->k->host.env.job);
	consume_fail(s, &e);
}

/* The end of a load that a reader's job has. Its targets have to hear of the table all the same, before OP_LOAD_DONE: nobody else tells them in this run. */
static bool is_left_as_shape(const struct dmsr_subscription *s, struct batch *b)
{
	if (!s->take || b->last->op != OP_LOAD_END)
		return false;
	struct relation *rel = b->last->rel;
	b->first = b->last = NULL;
	b->nchanges = 0;
	b->nrows = 0;
	batch_append(b, OP_SCHEMA, rel);
	return true;
}

/* False: nothing of b is new. */
static bool is_new(struct dmsr_subscription *s, struct batch *b)
{
	if (b->is_load)
		return !is_known_load(s, b) || is_left_as_shape(s, b);
	if (position_is_none(&b->end))
		return true;
	if (!position_is_comparable(&b->end, &s->reached)) {
		fail_foreign(s);
		return false;
	}
	enum batch_known known = batch_known(b, &s->reached);
	if (known == KNOWN_ALL)
		return false;
	if (known == KNOWN_PART)
		batch_cut(b, &s->reached);
	s->reached = b->end;
	return true;
}

/* ---- from the broker ---- */

static void take_index(struct dmsr_subscription *s, const void *data, size_t len, const struct place *p);

static void take(struct dmsr_subscription *s, const void *data, size_t len, const struct place *p)
{
	struct err e = { 0 };
	if (s->fetch) {
		take_index(s, data, len, p);
		return;
	}
	struct batch *b = batch_unpack(data, len, &e);
	if (!b) {
		err_prefix(&e, "topic %s, offset %" PRId64, s->k->stream->name, p->offset);
		consume_fail(s, &e);
		return;
	}
	if (!is_new(s, b)) {
		batch_free(b);
		lend_pass(s, p);
		return;
	}
	s->held = b;
	s->held_place = *p;
	s->bytes += b->bytes;
	port_pause(s->port);
}

/* As take() does, of a record that names rows. */
static void take_index(struct dmsr_subscription *s, const void *data, size_t len, const struct place *p)
{
	struct err e = { 0 };
	struct index *x = index_decode(data, len, &e);
	if (!x) {
		err_prefix(&e, "topic %s, offset %" PRId64, s->k->stream->name, p->offset);
		consume_fail(s, &e);
	} else if (is_new(s, x->b)) {
		index_forget_cut(x);
		fetch_add(s->fetch, x, p);
		if (fetch_is_full(s->fetch))
			port_pause(s->port);
	} else {
		index_free(x);
		if (!fetch_pass(s->fetch, p) && s->held)
			s->held_place = *p;
		else if (fetch_is_empty(s->fetch) && !s->held)
			lend_pass(s, p);
	}
}

static void drop_parts(struct dmsr_subscription *s)
{
	buf_fini(&s->parts);
	s->nparts = s->of_parts = 0;
}

/* A producer that died between the parts of a record begins again with the first. */
static void join(struct dmsr_subscription *s, const rd_kafka_message_t *m, const struct stamp *t, const struct place *p)
{
	struct err e = { 0 };
	if (t->part == 1) {
		drop_parts(s);
		s->of_parts = t->parts;
	}
	if (t->parts != s->of_parts || t->part != s->nparts + 1) {
		err_set(&e, DMSR_EPROTO, "kafka.foreign", "topic %s, offset %" PRId64 ": part %u of %u does not follow part %u", s->k->stream->name,
			p->offset, t->part,
			t->parts, s->nparts);
		consume_fail(s, &e);
		return;
	}
	s->nparts++;
	if (buf_append(&s->parts, m->payload, m->len)) {
		err_set(&e, DMSR_EFULL, "kafka.record-too-large", "topic %s, offset %" PRId64 ": a batch of more than %zu bytes", s->k->stream->name,
			p->offset, s->parts.max);
		consume_fail(s, &e);
		return;
	}
	if (s->nparts < s->of_parts)
		return;
	take(s, s->parts.data, s->parts.len, p);
	drop_parts(s);
}

/* Rule 4: the record at the noted offset must be the one that was noted. */
static void check(struct dmsr_subscription *s, const struct place *p)
{
	struct err e = { 0 };
	char is[POSITION_TEXT_MAX], was[POSITION_TEXT_MAX];
	position_format(&p->at, is);
	position_format(&s->done.at, was);
	s->is_checked = true;
	if (p->offset == s->done.offset && p->ts_ms == s->done.ts_ms && !strcmp(is, was))
		return;
	err_set(&e, DMSR_EFATAL, "kafka.topic-changed", "topic %s is not the one that was read before: offset %" PRId64 " held %s, now offset %" PRId64 " "
		"holds %s",
		s->k->stream->name, s->done.offset, was, p->offset, is);
	err_hint(&e, "if the topic was made anew, load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->k->host.env.job);
	consume_fail(s, &e);
}

/* ---- codec json ---- */

/* What was read goes to the target when there is enough of it, when a word must follow it, or when nothing more is here. */
static void hold_next(struct dmsr_subscription *s)
{
	struct rebuild *r = s->rebuild;
	bool is_dry = s->word || s->stuck || rebuild_is_full(r) || !rd_kafka_queue_length(port_queue(s->port));
	if (s->held || !is_dry)
		return;
	s->held = rebuild_take(r);
	if (s->held && s->held->is_load && is_known_load(s, s->held)) {
		batch_free(s->held);
		s->held = NULL;
		if (!s->word)
			lend_pass(s, &s->whole);
		if (!s->word && !s->stuck)
			port_resume(s->port); /* which had to wait while that was full */
	}
	if (!s->held && s->word) {
		s->held = s->word;
		s->word = NULL;
		s->whole = s->word_place;
	}
	if (!s->held)
		return;
	s->held_place = s->whole;
	s->bytes += s->held->bytes;
	port_pause(s->port);
}

static void take_word(struct dmsr_subscription *s, struct batch *word)
{
	if (is_new(s, word)) {
		s->word = word;
		port_pause(s->port);
	} else {
		batch_free(word);
	}
}

/* False: it must wait: what is before it goes first, or its table's shape is not known yet. */
static bool take_change(struct dmsr_subscription *s, const rd_kafka_message_t *m, const struct stamp *t, const struct place *p)
{
	struct err e = { 0 };
	struct batch *word;
	bool has_position = !position_is_none(&t->at);
	if (has_position && !position_is_comparable(&t->at, &s->reached)) {
		fail_foreign(s);
		return true;
	}
	int rc = rebuild_record(s->rebuild, m, t, &s->reached, &word, &e);
	s->waits_for_shape = rc == REBUILD_SHAPE;
	if (rc > 0)
		return false;
	if (rc) {
		consume_fail(s, &e);
		return true;
	}
	if (word)
		take_word(s, word);
	else if (has_position && position_is_past(&t->at, &s->reached))
		s->reached = t->at;
	bool is_whole = rebuild_is_whole(s->rebuild);
	if (s->word) {
		s->word_place = is_whole ? *p : s->whole;
	} else if (is_whole) {
		s->whole = *p;
		if (!s->held && rebuild_is_empty(s->rebuild))
			lend_pass(s, p);
	}
	if (rebuild_is_full(s->rebuild))
		port_pause(s->port);
	return true;
}

/* ---- a record ---- */

/* Rule 6. What this client did not get, though the broker has it, comes when it is read again. */
static void missing(struct dmsr_subscription *s, const struct stamp *t, uint64_t next, int64_t offset)
{
	struct err e = { 0 };
	char *key = mem_printf("gap.%s", s->name), now[24], what[400];
	const char *before = s->k->host.note_get(s->k->host.ctx, key);
	snprintf(now, sizeof now, "%" PRId64, offset);
	snprintf(what, sizeof what, "topic %.200s, offset %s: record %" PRIu64 " of run %" PRIu64 " stands there, and record %" PRIu64 " not before it",
		s->k->stream->name, now, t->nth, t->run, next);
	if (before && !strcmp(before, now)) {
		err_set(&e, DMSR_EFATAL, "kafka.gap", "%s, as when it was read before", what);
		if (s->take)
			err_hint(&e, HINT_OTHER_PREFIX);
		else
			err_hint(&e, "the brokers have lost what is missing (unclean.leader.election.enable must be false, and the topic not "
				"compacted): load the tables again: stop the job, DELETE /jobs/%s/positions, start it", s->k->host.env.job);
	} else {
		err_retry(&e, DMSR_EIO, "kafka.gap", "%s: it is read once more", what);
	}
	s->k->host.note_put(s->k->host.ctx, key, now, NULL, NULL);
	free(key);
	consume_fail(s, &e);
}

static bool follows(struct dmsr_subscription *s, const struct stamp *t, int64_t offset)
{
	uint64_t next = t->run == s->run ? s->nth + 1 : 1;
	bool is_first = !s->run; /* of what is read, and not where the stream begins: it may be any */
	if (!is_first && t->nth && t->nth != next) { /* 0: of a build that did not count */
		missing(s, t, next, offset);
		return false;
	}
	s->run = t->run;
	s->nth = t->nth;
	return true;
}

static void set_end(struct kafka *k, int64_t offset)
{
	k->end = k->visible = offset;
	if (k->begin < 0)
		k->begin = k->reads_only ? RD_KAFKA_OFFSET_BEGINNING : offset;
}

/* Where somebody writes all the time no fetch comes back empty, so nobody says that it is the end: that of the first fetch is one, too. */
static void scout_sees(struct dmsr_subscription *s, const rd_kafka_message_t *m)
{
	int64_t low, high;
	foreign_see(s->k, m);
	if (!s->first_end && !rd_kafka_get_watermark_offsets(client_handle(s->client), s->topic->name, 0, &low, &high))
		s->first_end = high;
	if (s->first_end && m->offset + 1 >= s->first_end && s->k->end < 0 && (s->k->reads_only || s->k->exact.state == EXACT_OFF))
		set_end(s->k, s->first_end);
}

static bool on_message(struct dmsr_subscription *s, const rd_kafka_message_t *m)
{
	struct err e = { 0 };
	struct stamp t;
	rd_kafka_timestamp_type_t type;
	if (s->must_begin)
		return true;
	if (!s->name) { /* the scout wants the end, and late ones of a producer that is gone stand before it */
		scout_sees(s, m);
		return true;
	}
	if (stamp_read(m, &t, &e)) {
		consume_fail(s, &e);
		return true;
	}
	const struct place p = { .offset = m->offset, .ts_ms = rd_kafka_message_timestamp(m, &type), .at = t.at };
	s->next_offset = m->offset + 1;
	s->has_read = true;
	s->is_at_end = false;
	if (s->take) {
		s->has_more = true; /* nobody here expects it */
		client_answers(s->client);
	}
	const bool is_foreign = foreign_is(s->k, &t);
	if (s->is_seeking && seek_sees(s, m, &t, is_foreign))
		return true;
	if (is_foreign && s->is_checked) {
		if (foreign_judge(s->k, &t, m, s->run, &e))
			consume_fail(s, &e);
		return true;
	}
	if (s->must_reach && !position_is_none(&t.at) && !seek_reaches(s, &t.at))
		return true;
	if (t.run < s->run) /* late, and sent again by the newer one; no note is of it, since it may stand between what belongs together */
		return true;
	if (!follows(s, &t, m->offset))
		return true;
	if (!s->is_checked) {
		check(s, &p);
		return true;
	}
	if (s->rebuild)
		return take_change(s, m, &t, &p);
	if (t.parts > 1)
		join(s, m, &t, &p);
	else
		take(s, m->payload, m->len, &p);
	return true;
}

/* At start, when k->end is fresh. */
static void lost(struct dmsr_subscription *s)
{
	struct err e = { 0 };
	int64_t at = s->next_offset;
	if (s->k->end < at || (s->k->end == at && !s->is_checked))
		err_set(&e, DMSR_EFATAL, "kafka.stream-lost", "topic %s ends at offset %" PRId64 ", and what was read before went to %" PRId64 ": the brokers "
			"have lost records that they had acknowledged, or the topic was made anew", s->k->stream->name, s->k->end, at);
	else
		err_set(&e, DMSR_EFATAL, "kafka.retention", "topic %s has offset %" PRId64 " no more, where the target goes on: it was kept for a shorter "
			"time than the target was behind", s->k->stream->name, at);
	err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it; and raise the topic's retention", s->k->host.env.job);
	consume_fail(s, &e);
}

/* The broker has nothing at the offset where we go on. */
static void out_of_range(struct dmsr_subscription *s)
{
	struct err e = { 0 };
	if (!s->name || (s->is_seeking && s->back < s->k->end)) { /* so far back there is nothing any more */
		s->back = INT64_MAX;
		s->next_offset = RD_KAFKA_OFFSET_BEGINNING;
		s->must_begin = true;
	} else if (s->has_read) {
		err_retry(&e, DMSR_EIO, "kafka.broker", "topic %s has offset %" PRId64 " no more: what became of it is looked at anew", s->k->stream->name,
			s->next_offset);
		consume_fail(s, &e);
	} else if (!s->is_checked && s->k->end > s->done.offset) { /* the noted record is gone, which was applied: what is behind it may be there */
		s->must_begin = s->is_checked = true;
		s->next_offset = s->done.offset + 1;
	} else {
		lost(s);
	}
}

static void on_end(struct dmsr_subscription *s, int64_t offset)
{
	if (!s->is_checked && s->name) {
		lost(s); /* the noted record is not there */
		return;
	}
	s->has_read = true;
	s->next_offset = offset > s->next_offset ? offset : s->next_offset;
	s->is_at_end = true;
	if (s->take)
		client_answers(s->client);
	if (s->is_seeking && !s->must_begin && s->next_offset >= s->k->end)
		seek_ends(s);
	if (s->name)
		return;
	/* For a subscription this is no news: the reports say it, and of what is acknowledged some may be under way to us yet. */
	if (!s->k->reads_only && s->topic == s->k->stream && !client_sees_all(s->client, s->topic->name, offset)) {
		exact_waits_for(s->k, s->k->stream);
		return;
	}
	set_end(s->k, offset);
}

static void on_error(struct dmsr_subscription *s, rd_kafka_event_t *ev)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(ev);
	struct err e = { 0 };
	if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		rd_kafka_topic_partition_t *p = rd_kafka_event_topic_partition(ev);
		on_end(s, p ? p->offset : s->next_offset);
		if (p)
			rd_kafka_topic_partition_destroy(p);
		return;
	}
	if (code == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || code == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
		out_of_range(s);
		return;
	}
	kafka_error(&e, code, s->topic->name, rd_kafka_event_error_string(ev));
	if (e.retriable && e.code != DMSR_ENOTFOUND) {
		log_info("streamer", s->k->host.env.job, "%s", e.message); /* librdkafka tries again by itself */
	} else if (!s->k->stream) { /* who writes tables alone need not have the right to read */
		log_info("streamer", s->k->host.env.job, "whether another job writes there is not looked at: %s", e.message);
		s->k->end = 0;
	} else {
		consume_fail(s, &e);
	}
}

/* Half of what it may hold: so it is never full for long, as long as somebody takes it. */
static void count_taken(struct dmsr_subscription *s, const rd_kafka_message_t *m)
{
	s->taken_bytes += m->len + m->key_len;
	s->taken++;
	if (s->taken_bytes < s->k->memory_max / 2 && s->taken < KAFKA_QUEUED_MAX / 2)
		return;
	s->taken_bytes = s->taken = 0;
	client_has_room(s->client, s->topic->name);
}

static void on_fetched(void *arg, rd_kafka_event_t *ev)
{
	struct dmsr_subscription *s = arg;
	const rd_kafka_message_t *m = rd_kafka_event_type(ev) == RD_KAFKA_EVENT_FETCH ? rd_kafka_event_message_next(ev) : NULL;
	if (s->k->state == KAFKA_STARTING || s->k->state == KAFKA_RUNNING) {
		if (m)
			count_taken(s, m);
		if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR)
			on_error(s, ev);
		else if (m && !on_message(s, m)) {
			s->stuck = ev;
			s->stuck_message = m;
			s->stuck_since_us = loop_now_us(s->k->host.env.loop);
			loop_timer_start(s->k->patience, SHAPE_MS);
			port_pause(s->port);
			kafka_wake(s->k);
			return;
		}
		kafka_wake(s->k);
	}
	rd_kafka_event_destroy(ev);
}

static void no_shape(struct dmsr_subscription *s, const struct place *p)
{
	struct err e = { 0 };
	/* Its broker may be away, and ours not: then it comes with what the next run sends again. */
	err_retry(&e, DMSR_EIO, "kafka.schema-missing", "topic %s, offset %" PRId64 ": the shape of the row's table is not in topic %s",
		s->k->stream->name, p->offset, s->k->schemas->name);
	err_hint(&e, "that topic must be compacted and keep every record: load the tables again (stop the job, DELETE /jobs/%s/positions, start it)",
		s->k->host.env.job);
	consume_fail(s, &e);
}

/* What it waits for may have come. */
static void try_stuck(struct dmsr_subscription *s)
{
	struct stamp t;
	struct err e = { 0 };
	rd_kafka_timestamp_type_t type;
	const rd_kafka_message_t *m = s->stuck_message;
	if (!s->stuck || stamp_read(m, &t, &e))
		return;
	const struct place p = { .offset = m->offset, .ts_ms = rd_kafka_message_timestamp(m, &type), .at = t.at };
	if (!take_change(s, m, &t, &p)) {
		if (s->waits_for_shape && loop_now_us(s->k->host.env.loop) >= s->stuck_since_us + SHAPE_MS * 1000ULL)
			no_shape(s, &p);
		return;
	}
	rd_kafka_event_destroy(s->stuck);
	s->stuck = NULL;
	if (!s->held && !s->word)
		port_resume(s->port);
}

/* ---- turns ---- */

/* Is there, or may there be, something that it has not taken? */
static bool is_behind(const struct dmsr_subscription *s)
{
	bool is_rebuilding = s->word || s->stuck || (s->rebuild && !rebuild_is_empty(s->rebuild)) || (s->fetch && !fetch_is_empty(s->fetch));
	bool is_coming = !produce_is_idle(s->k) || exact_is_pending(s->k) || s->next_offset < s->k->visible;
	return s->held || is_rebuilding || is_coming || !s->is_checked || s->is_seeking;
}

static int begin(struct dmsr_subscription *s, int64_t offset, struct err *e);

static void begin_again(struct dmsr_subscription *s)
{
	struct err e = { 0 };
	s->must_begin = false;
	port_free(s->port);
	client_free(s->client, s->rkt);
	s->port = NULL;
	s->client = NULL;
	s->rkt = NULL;
	if (begin(s, s->next_offset, &e))
		consume_fail(s, &e);
}

/* What is fetched goes to the target, batch by batch. */
static void hold_fetched(struct dmsr_subscription *s)
{
	if (s->held)
		return;
	s->held = fetch_take(s->fetch, &s->held_place);
	if (s->held)
		s->bytes += s->held->bytes;
	if (s->held && !fetch_is_full(s->fetch))
		port_resume(s->port);
}

static bool may_lend(struct dmsr_subscription *s) { return !s->is_waiting && !s->k->is_noting && !lend_is_over(s); }

void consume_turn(struct dmsr_subscription *s)
{
	if (s->must_begin)
		begin_again(s);
	if (s->rebuild) {
		try_stuck(s);
		hold_next(s);
	}
	if (s->fetch)
		hold_fetched(s);
	if (s->held && may_lend(s))
		lend_held(s);
	else if (s->held && lend_is_over(s))
		lend_hold_back(s);
	if (s->rebuild && may_lend(s) && (s->word || !rebuild_is_empty(s->rebuild) || (s->stuck && !s->waits_for_shape)))
		kafka_wake(s->k);
	if (s->fetch && !s->held && fetch_has_next(s->fetch))
		kafka_wake(s->k);
	if (is_behind(s) || !s->has_more)
		return;
	if (s->load_run && s->load_run < strtoull(s->k->run, NULL, 10)) {
		lend_void_loads(s);
		return;
	}
	s->has_more = false;
	if (s->c.drained)
		s->c.drained(s->c.ctx);
}

struct position consume_reached(const struct dmsr_subscription *s) { return s->reached; }

bool consume_is_at_end(const struct dmsr_subscription *s) { return s->is_at_end && !s->is_seeking; }

bool consume_has_begun(const struct dmsr_subscription *s) { return s->client && !s->is_seeking && !s->k->is_noting; }

void consume_expect(struct kafka *k)
{
	for (struct dmsr_subscription *s = k->subscriptions; s; s = s->next)
		s->has_more = true;
}

struct dmsr_subscription *consume_next(const struct dmsr_subscription *s) { return s->next; }

struct client *consume_client(const struct dmsr_subscription *s) { return s->client; }

size_t consume_bytes(const struct dmsr_subscription *s) { return s->bytes + (s->fetch ? fetch_bytes(s->fetch) : 0); }

/* ---- life ---- */

struct dmsr_subscription *consume_new(struct kafka *k, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c)
{
	struct dmsr_subscription *s = mem_zalloc(sizeof *s), **end = &k->subscriptions;
	*s = (struct dmsr_subscription){ .k = k, .name = mem_strdup(target), .has_more = true, .is_saved = true };
	s->done.offset = s->whole.offset = -1;
	buf_init(&s->parts, (size_t)1 << 31);
	if (!target)
		return s;
	s->c = *c;
	s->has_nothing = stand->has_nothing;
	s->reached = stand->at;
	s->has = mem_alloc((stand->nloaded + 1) * sizeof *s->has);
	for (size_t i = 0; i < stand->nloaded; i++)
		s->has[s->nhas++] = (struct has){ mem_strdup(stand->loaded[i].schema), mem_strdup(stand->loaded[i].name), stand->loaded[i].at.lsn };
	while (*end)
		end = &(*end)->next;
	*end = s;
	return s;
}

struct dmsr_subscription *consume_new_reader(struct kafka *k, const struct dmsr_stand *stand, enum dmsr_verdict (*taker)(void *ctx, struct batch *b),
	void (*drained)(void *ctx), void *ctx)
{
	struct dmsr_subscription *s = consume_new(k, k->prefix, stand, &(struct dmsr_consumer){ .ctx = ctx, .drained = drained });
	s->take = taker;
	s->from_begin = !stand->load_done && !stand->has_nothing;
	s->confirmed = stand->at;
	return s;
}

static void on_event(void *ctx, rd_kafka_event_t *ev) { (void)ctx, (void)ev; }

static void on_failed(void *ctx, const struct err *e)
{
	struct err own = *e;
	consume_fail(ctx, &own);
}

static void fail_arg(void *arg, struct err *e) { consume_fail(arg, e); }

static void on_connected(void *ctx, bool is)
{
	const struct dmsr_subscription *s = ctx;
	if (s->take) /* for others the producer says it */
		kafka_connected(s->k, is);
}

static int begin(struct dmsr_subscription *s, int64_t offset, struct err *e)
{
	struct kafka *k = s->k;
	const struct client_host host = { .ctx = s, .event = on_event, .failed = on_failed, .connected = on_connected };
	rd_kafka_conf_t *conf = kafka_conf(k->settings, k->host.env.job, RD_KAFKA_CONSUMER, e);
	if (!conf || client_new(k->host.env.loop, k->host.env.job, RD_KAFKA_CONSUMER, conf, &host, &s->client, e))
		return e->code;
	s->topic = k->stream ? k->stream : k->schemas;
	s->rkt = rd_kafka_topic_new(client_handle(s->client), s->topic->name, NULL);
	rd_kafka_queue_t *q = rd_kafka_queue_new(client_handle(s->client));
	s->port = port_new(k->host.env.loop, q, on_fetched, s);
	if (!rd_kafka_consume_start_queue(s->rkt, 0, offset, q))
		return 0;
	kafka_error(e, rd_kafka_last_error(), s->topic->name, NULL);
	return e->code;
}

struct beginning {
	int64_t offset;
	uint64_t run;                   /* what stands there is the first record of that run, or of a later one; 0: not known */
};

/* Where its part of the stream begins: where the job's does, or where the stream ended when it had nothing. */
static struct beginning beginning_of(struct dmsr_subscription *s)
{
	struct kafka *k = s->k;
	struct beginning b = { k->begin, k->begin_run };
	char *key = mem_printf("begin.%s", s->name), *end, text[48];
	const char *note = k->host.note_get(k->host.ctx, key);
	if (s->has_nothing && !(s->take && note)) {
		b = (struct beginning){ k->end, strtoull(k->run, NULL, 10) };
		snprintf(text, sizeof text, "%" PRId64 " %" PRIu64, b.offset, b.run);
		k->host.note_put(k->host.ctx, key, text, NULL, NULL);
	} else if (note) {
		b.offset = strtoll(note, &end, 10);
		b.run = strtoull(end, NULL, 10);
	}
	free(key);
	return b;
}

/* A reader's note of it says what was found there, in its first run. */
static void begin_at_end(struct dmsr_subscription *s, struct beginning *b)
{
	char *key = mem_printf("floor.%s", s->name);
	const char *note = s->take && s->has_nothing ? s->k->host.note_get(s->k->host.ctx, key) : NULL;
	s->is_seeking = s->take && s->has_nothing && (!note || position_parse(note, &s->reached, NULL));
	free(key);
	if (!s->is_seeking)
		return;
	s->back = SEEK_BACK;
	b->offset = s->k->end > s->back ? s->k->end - s->back : RD_KAFKA_OFFSET_BEGINNING;
}

int consume_start(struct dmsr_subscription *s, struct err *e)
{
	struct beginning b = beginning_of(s);
	begin_at_end(s, &b);
	lend_read_note(s);
	if (s->done.offset < b.offset) /* of before it was away */
		s->done = (struct place){ .offset = -1 };
	/* A reader may be sent back by hand, to before the noted place: then it looks for that from the stream's begin on. */
	bool is_sent_back = s->take && position_is_comparable(&s->done.at, &s->reached) && position_compare(&s->done.at, &s->reached) > 0;
	if (is_sent_back || s->from_begin)
		b.offset = s->k->begin;
	if (s->is_seeking || is_sent_back || s->from_begin)
		s->done.offset = -1;
	s->must_reach = s->take && s->done.offset < 0 && !position_is_none(&s->reached) && !s->has_nothing;
	s->whole = s->done;
	s->rebuild = s->k->is_json && !s->k->is_indexed ? rebuild_new(s->k) : NULL;
	if (s->k->is_indexed && fetch_new(s->k, fail_arg, s, &s->fetch, e))
		return e->code;
	s->is_checked = s->done.offset < 0;
	s->next_offset = s->is_checked ? b.offset : s->done.offset;
	if (s->is_checked && b.run)
		s->run = b.run - 1;
	return begin(s, s->next_offset, e);
}

/* Where it reads is the stream; without one, the topic that every run of every job writes to. The newest few say whose they are. */
int consume_scout(struct kafka *k, struct err *e)
{
	enum { SCOUT_BACK = 8 }; /* of transactions some of them are Kafka's own */

	k->scout = consume_new(k, NULL, NULL, NULL);
	k->scout->has_more = false;
	return begin(k->scout, RD_KAFKA_OFFSET_TAIL(SCOUT_BACK), e);
}

void consume_free(struct dmsr_subscription *s)
{
	if (!s)
		return;
	if (s->stuck)
		rd_kafka_event_destroy(s->stuck);
	port_free(s->port);
	client_free(s->client, s->rkt);
	rebuild_free(s->rebuild);
	fetch_free(s->fetch);
	batch_free(s->word);
	consume_consumed(s, UINT64_MAX);
	while (s->first) {
		struct lent *l = s->first;
		s->first = l->next;
		free(l);
	}
	batch_free(s->held);
	buf_fini(&s->parts);
	for (size_t i = 0; i < s->nhas; i++) {
		free(s->has[i].schema);
		free(s->has[i].name);
	}
	free(s->has);
	free(s->name);
	free(s);
}
