/* source_stream: the changes. In come XLogData and keepalive messages; out go batches from the decoder, and to the server a status: what was received, and what
 * the host has confirmed, never more. Statuses are sent on a timer, when the server asks, and soon after a confirmation; also while reading is paused.
 *
 * An idle server's keepalives move the position: each becomes a heartbeat batch that walks the same way as any change, and is confirmed like one. So the
 * slot of a database where nothing happens to our tables advances, and nothing is told that the ledger does not know. Where next to nothing is written
 * they come ever more rarely: a target that notes its position in the same server would else be what moves it, for ever.
 *
 * XLogData:  'w' start 8, end 8, time 8, payload      keepalive: 'k' end 8, time 8, reply wanted 1
 * status:    'r' written 8, flushed 8, applied 8, time 8, reply wanted 1     (PostgreSQL documentation, "Streaming Replication Protocol") */
#include "source_gone.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TICK_MS = 250,
	IDLE_TICK_MS = 1000,            /* while nothing comes, or more rarely, when something is due: a daemon may have a thousand such jobs */
	STOP_LIMIT_MS = 3000,           /* a server that does not end the stream is left */
	QUIET_US = 5000000,             /* so long without a word */
	FAR_BYTES = 1 << 20,            /* as much WAL as is not to be kept for want of a heartbeat */
	RARE = 4,                       /* heartbeats come at most 2^RARE times as rarely as they may */
};
#define EPOCH_US 946684800000000        /* 2000-01-01, in us since 1970 */

struct stream {
	struct pgoutput *decoder;
	bool is_open;                   /* the server has begun */
	bool is_stalled;                /* the decoder said AGAIN */
	bool is_kept;                   /* what was there when the server had no more for now, since it ended inside of a transaction */
	bool is_asked;                  /* the server wants to hear that we have caught up */
	uint64_t received, keepalive;   /* newest LSN in any message; in a keepalive */
	uint64_t confirmed, told;       /* what the host has, and what of it the server was told */
	uint64_t told_us, heartbeat_us; /* monotonic */
	uint64_t beat;                  /* keepalive of the newest heartbeat */
	uint64_t emitted;               /* behind the newest change that went out */
	bool is_torn;                   /* the newest batch that did ends inside of a transaction */
	uint64_t end;                   /* ends_first: of what went out, and no more does; 0: it is to come */
	bool was_whole;                 /* source_stream_is_whole, when it began */
	unsigned beats;                 /* heartbeats since there were changes, RARE at most */
	uint64_t server_lsn;
	uint64_t heard, ticked;         /* messages but for keepalives; as of the last tick */
	bool is_idle;                   /* none came between the last two: the next one is when something is due, or the stream is stirred */
	int64_t last_event_us;
	int64_t status_us;
	struct loop_timer *tick, *stop;
	struct err error;               /* the decoder's; not on the stack, where each message would clear it */
};

/* May changes go out? */
static bool may_go(const struct source *s) { return source_may_emit(s) && !source_has_turn(s) && !s->stream->end; }

/* ---- to the server ---- */

/* A server that writes nothing sends nothing, as long as we speak to it: then it is asked for a word, which shows that there is nothing to read. */
static bool is_quiet(const struct stream *st) { return wall_now_us() - st->last_event_us >= QUIET_US; }

static void send_status(struct source *s)
{
	struct stream *st = s->stream;
	struct buf b;
	uint64_t now = (uint64_t)(wall_now_us() - EPOCH_US);
	if (!s->repl || !st->is_open)
		return;
	uint64_t written = st->received > st->confirmed ? st->received : st->confirmed;
	buf_init(&b, 64);
	buf_byte(&b, 'r');
	buf_u64(&b, written);
	buf_u64(&b, st->confirmed);
	buf_u64(&b, st->confirmed);
	buf_u64(&b, now);
	buf_byte(&b, is_quiet(st));
	st->told = st->confirmed;
	st->told_us = loop_now_us(s->host.env.loop);
	if (st->told >= st->keepalive)
		st->is_asked = false;
	failpoint("pg.status");
	pgconn_stream_put(s->repl, b.data, b.len);
	buf_fini(&b);
}

/* A note: "yes", what the streamer was given ends with a transaction, and none has given it more since; "no": one may have. Before the first there is none.
 * While a load has it held "yes" stays, so that a run that is killed amid the load leaves nothing that has to be read before the next one goes on with that. */
static const char whole_key[] = "stream-is-whole";

/* Not when it is paused, for it may be about to stop: when it is resumed. */
static void begin_again(struct source *s)
{
	if (!s->paused || s->phase != SOURCE_STREAMING)
		source_fail_again(s, "the stream",
			"was read past the transaction that may have been under way when the job ended: tables that are left are loaded now");
}

void source_stream_flows(struct source *s, void (*then)(struct source *s))
{
	const char *note = s->host.note_get(s->host.ctx, whole_key);
	if (s->is_held && note && !strcmp(note, "yes")) /* also in mode full-load, where a log of before follows */
		source_put_note(s, whole_key, "no", then);
	else
		then(s);
}

void source_stream_whole(struct source *s) { source_put_note(s, whole_key, "yes", begin_again); }

/* Something came, or is owed or waited for: it is looked at sooner. */
static void stir(struct source *s)
{
	struct stream *st = s->stream;
	if (!st || !st->is_idle)
		return;
	st->is_idle = false;
	loop_timer_start(st->tick, TICK_MS);
}

void source_stream_awaits(struct source *s, uint64_t lsn)
{
	s->load_done_at = lsn;
	stir(s);
}

static void end_run(struct source *s)
{
	const struct stream *st = s->stream;
	if (st->end && st->confirmed >= st->end && s->phase == SOURCE_STREAMING)
		source_stream_whole(s);
}

void source_stream_confirm(struct source *s, uint64_t flush)
{
	struct stream *st = s->stream;
	if (!st || flush <= st->confirmed)
		return;
	st->confirmed = flush;
	stir(s);
	end_run(s);
	/* A server that shuts down waits until we have all. */
	if (st->is_asked && s->phase == SOURCE_STREAMING)
		send_status(s);
}

uint64_t source_stream_confirmed(const struct source *s) { return s->stream ? s->stream->confirmed : s->from.flush; }

/* ---- out ---- */

/* Of a run that ends_first: the end of a transaction. The streamer may have more than was stored when a run was killed: that was written before it looked. */
static bool is_end(const struct source *s, const struct position *at) { return s->ends_first && !position_is_inside(at) && at->flush >= s->began_lsn; }

bool source_stream_is_whole(const struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, whole_key);
	return (s->began_lsn && is_end(s, &s->from)) || (note ? !strcmp(note, "yes") : !s->from.kind);
}

static void emit(struct source *s, struct batch *b)
{
	/* Behind it the first half of another transaction would go, and the next run would stand where this one did. */
	if (!b->more && is_end(s, &b->end))
		s->stream->end = b->end.flush;
	if (s->load_done_at && !b->more && b->end.lsn >= s->load_done_at) {
		batch_append(b, OP_LOAD_DONE, NULL);
		s->load_done_at = 0;
	}
	s->stream->heartbeat_us = loop_now_us(s->host.env.loop);
	s->stream->beats = 0;
	s->stream->is_kept = false;
	s->stream->is_torn = b->more;
	if (!b->more && (b->first->op != OP_HEARTBEAT || b->first->next))
		s->stream->emitted = b->end.flush;
	failpoint("pg.batch");
	source_turns_saw(s, b);
	if (!source_emit(s, b) && s->repl)
		pgconn_pause(s->repl);
}

static void take(struct source *s)
{
	struct batch *b = pgoutput_take(s->stream->decoder);
	if (b)
		emit(s, b);
}

/* The load is done, and the stream is past the newest of its snapshots though nothing is written any more. */
static void word_done(struct source *s)
{
	struct position at = { 0 };
	if (!s->load_done_at || s->stream->is_stalled || !may_go(s))
		return;
	take(s);
	pgoutput_position(s->stream->decoder, &at);
	if (!s->load_done_at || at.lsn < s->load_done_at || position_is_inside(&at) || !may_go(s))
		return;
	struct batch *b = batch_new();
	b->received_us = wall_now_us();
	batch_append(b, OP_HEARTBEAT, NULL);
	b->end = at;
	emit(s, b);
}

static void heartbeat(struct source *s)
{
	struct stream *st = s->stream;
	unsigned beats = st->beats;
	if (st->is_stalled || !may_go(s) || !pgoutput_keepalive(st->decoder, st->keepalive))
		return;
	st->beat = st->keepalive;
	take(s);
	st->beats = beats < RARE ? beats + 1 : RARE;
}

/* monotonic: from then on */
static uint64_t next_heartbeat_us(const struct source *s)
{
	const struct stream *st = s->stream;
	uint64_t every_us = (uint64_t)s->opt.heartbeat_ms * 1000;
	bool is_wanted = s->load_done_at || s->ends_first || st->keepalive - st->beat >= FAR_BYTES;
	return st->heartbeat_us + (every_us << (is_wanted ? 0 : st->beats));
}

static bool heartbeat_is_due(const struct source *s) { return loop_now_us(s->host.env.loop) >= next_heartbeat_us(s); }

/* ---- the decoder's questions ---- */

static struct relation *describe(void *ctx, uint32_t relid) { return source_find_rel(ctx, relid); }

static struct relation *remembered(void *ctx, uint32_t relid) { return source_gone_rel(ctx, relid); }

static bool wanted(void *ctx, const struct relation *rel, uint64_t lsn, uint64_t *loaded_lsn)
{
	return source_look_named(ctx, rel, lsn) && source_wants(ctx, rel, loaded_lsn);
}

static enum dmsr_verdict on_full(void *ctx, struct batch *b)
{
	struct source *s = ctx;
	if (!may_go(s) || s->phase != SOURCE_STREAMING) /* the run may have ended between two rows: what lacks some must not go out */
		return DMSR_AGAIN;
	emit(s, b);
	return DMSR_OK;
}

/* ---- from the server ---- */

static void decoded(struct source *s, int rc, const struct err *e)
{
	struct stream *st = s->stream;
	if (rc < 0) {
		source_fail(s, e);
		return;
	}
	st->is_stalled = rc == DMSR_AGAIN;
	if (!st->is_stalled || s->phase != SOURCE_STREAMING)
		return;
	pgconn_pause(s->repl);
	if (may_go(s) && !source_is_asking(s))
		loop_task_post(s->turn);
}

/* Where transactions come without a pause batches end amid them. */
static void take_end(struct source *s)
{
	struct stream *st = s->stream;
	struct position at = { 0 };
	if (!s->ends_first || s->phase != SOURCE_STREAMING || st->is_stalled || !may_go(s) || source_is_asking(s))
		return;
	pgoutput_position(st->decoder, &at);
	if (!is_end(s, &at))
		return;
	pgoutput_keepalive(st->decoder, 0); /* nothing of it may be the job's */
	take(s);
}

static void on_keepalive(struct source *s, struct cursor *c)
{
	struct stream *st = s->stream;
	uint64_t end = cursor_be64(c);
	cursor_be64(c);
	bool reply = cursor_u8(c);
	st->keepalive = st->server_lsn = end;
	if (end > st->received)
		st->received = end;
	st->is_asked = st->is_asked || reply;
	if (reply || heartbeat_is_due(s))
		heartbeat(s);
	else if (end - st->beat >= FAR_BYTES)
		stir(s); /* it is due earlier than it was */
	if (reply)
		send_status(s);
}

static void on_message(void *arg, const char *data, size_t len)
{
	struct source *s = arg;
	struct stream *st = s->stream;
	struct err *e = &st->error;
	struct cursor c;
	cursor_init(&c, data, len);
	char kind = (char)cursor_u8(&c);
	if (kind == 'w') {
		uint64_t start = cursor_be64(&c), end = cursor_be64(&c);
		cursor_be64(&c);
		if (!c.bad) {
			st->server_lsn = end > st->server_lsn ? end : st->server_lsn;
			st->received = start > st->received ? start : st->received;
			st->heard++;
			stir(s);
			decoded(s, pgoutput_message(st->decoder, start, c.at, cursor_left(&c), e), e);
			take_end(s);
			if (source_turns_wants(s))
				source_stream_rest(s);
			return;
		}
	} else if (kind == 'k') {
		on_keepalive(s, &c);
		if (!c.bad)
			return;
	}
	source_fail_because(s, DMSR_EPROTO, "source.protocol", NULL, "%s: a message of the replication stream cannot be read", pgconn_describe(s->repl));
}

/* The rest of a transaction is under way: nobody can do anything with the first of it, and a target that spreads whole ones would do both parts alone. */
static void on_dry(void *arg)
{
	struct source *s = arg;
	struct stream *st = s->stream;
	st->last_event_us = wall_now_us();
	source_turns_dry(s);
	if (st->is_stalled || source_has_turn(s) || st->end)
		return;
	st->is_kept = pgoutput_is_torn(st->decoder);
	if (!st->is_kept)
		take(s);
}

/* Not so when it is long in coming: there may be whole ones before it. */
static void take_kept(struct source *s)
{
	if (s->stream->is_kept && !s->stream->is_stalled && may_go(s))
		take(s);
}

void source_stream_rest(struct source *s)
{
	struct stream *st = s->stream;
	struct position at = { 0 };
	struct pgoutput_stat d;
	if (!st || !st->is_open || s->phase != SOURCE_STREAMING || st->is_stalled || !may_go(s) || source_is_asking(s))
		return;
	pgoutput_stat(st->decoder, &d);
	pgoutput_position(st->decoder, &at);
	/* An earlier run may have sent the first half of a transaction, which has not come again yet. */
	if (d.in_transaction || position_is_inside(&at))
		return;
	take(s);
	pgconn_pause(s->repl);
	source_turns_rests(s);
}

uint64_t source_stream_heard(const struct source *s) { return s->stream ? s->stream->heard : 0; }

void source_stream_resumed(struct source *s)
{
	struct stream *st = s->stream;
	struct err e = { 0 };
	if (!st || !s->repl || source_is_asking(s) || source_has_turn(s))
		return;
	stir(s);
	end_run(s);
	if (st->is_stalled) {
		decoded(s, pgoutput_continue(st->decoder, &e), &e);
		if (s->phase != SOURCE_STREAMING || st->is_stalled)
			return;
		take(s);
		if (!may_go(s))
			return;
	}
	pgconn_resume(s->repl);
}

void source_stream_paused(struct source *s)
{
	if (s->phase == SOURCE_STREAMING && s->repl)
		pgconn_pause(s->repl);
}

/* ---- the clock ---- */

/* Nothing came since the last tick, and nothing is owed to the server or waited for: the clock has time, if the server has. */
static bool is_idle(const struct source *s)
{
	const struct stream *st = s->stream;
	bool is_awaited = st->confirmed != st->told || st->is_kept || s->load_done_at || s->ends_first;
	bool has_time = st->status_us >= (int64_t)4 * IDLE_TICK_MS * 1000 && s->opt.heartbeat_ms >= IDLE_TICK_MS;
	return st->is_open && st->heard == st->ticked && !is_awaited && has_time;
}

/* Until a status or a heartbeat is due, or the server is to be asked for a word; one that is due already was refused, or there is nothing that it could tell:
 * what changes that stirs the stream. */
static uint64_t rest_us(const struct source *s)
{
	const struct stream *st = s->stream;
	int64_t now = (int64_t)loop_now_us(s->host.env.loop), untold = now - (int64_t)st->told_us, silent = wall_now_us() - st->last_event_us;
	int64_t status = st->status_us - untold, word = QUIET_US - (untold < silent ? untold : silent), beat = (int64_t)next_heartbeat_us(s) - now;
	int64_t least = status < word ? status : word;
	least = beat > 0 && beat < least ? beat : least;
	return least < (int64_t)TICK_MS * 1000 ? TICK_MS * 1000 : least > QUIET_US ? QUIET_US : (uint64_t)least;
}

static void on_tick(void *arg)
{
	struct source *s = arg;
	struct stream *st = s->stream;
	uint64_t now = loop_now_us(s->host.env.loop);
	st->is_idle = is_idle(s);
	st->ticked = st->heard;
	loop_timer_start(st->tick, TICK_MS);
	if (!st->is_open || s->phase != SOURCE_STREAMING)
		return;
	if (heartbeat_is_due(s))
		heartbeat(s);
	word_done(s);
	take_kept(s);
	uint64_t untold_us = now - st->told_us;
	if (untold_us >= (uint64_t)st->status_us || (st->confirmed > st->told && untold_us >= 1000000) || (is_quiet(st) && untold_us >= QUIET_US))
		send_status(s);
	if (st->is_idle)
		loop_timer_start_us(st->tick, rest_us(s));
}

/* ---- begin and end ---- */

/* What the server says of a slot or a publication, under the id that people know it by. */
static void rename_for_slot(const struct source *s, struct err *e, bool is_open)
{
	bool is_missing = !strcmp(e->id, "source.undefined");
	if (!strcmp(e->id, "source.in-use")) {
		snprintf(e->id, sizeof e->id, "slot.in-use");
	} else if (is_missing && is_open) {
		/* It was found when the stream began; each change looks for the publication. */
		snprintf(e->id, sizeof e->id, "publication.lost");
		err_hint(e, "%s", s->anew);
	} else if (is_missing || !strcmp(e->id, "source.missing-file") || !strcmp(e->id, "source.state")) {
		snprintf(e->id, sizeof e->id, "slot.lost");
		err_hint(e, "%s", s->anew);
	}
}

static void on_ended(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (s->phase == SOURCE_STOPPING) {
		source_stopped(s);
		return;
	}
	struct err out = { 0 };
	if (e && e->code)
		out = *e;
	else
		err_retry(&out, DMSR_EIO, "source.unreachable", "%s: the server ended the replication stream", pgconn_describe(s->repl));
	rename_for_slot(s, &out, s->stream->is_open);
	source_fail(s, &out);
}

static void on_started(void *arg)
{
	struct source *s = arg;
	struct stream *st = s->stream;
	st->is_open = true;
	failpoint("pg.stream-started");
	s->doing = "streaming";
	log_info("postgres", s->host.env.job, "reading slot %s", s->slot);
	send_status(s);
	if (!may_go(s))
		pgconn_pause(s->repl);
}

static int protocol(const struct source *s)
{
	return s->version >= 160000 ? 4 : s->version >= 150000 ? 3 : s->version >= 140000 ? 2 : 1;
}

static bool all_binary(const struct source *s)
{
	for (size_t i = 0; i < s->nrels; i++)
		for (unsigned n = 0; n < s->rels[i]->ncolumns; n++)
			if (!value_has_binary(s->rels[i]->columns[n].type, s->rels[i]->columns[n].elem_type))
				return false;
	return true;
}

static void start_sql(const struct source *s, struct buf *sql, uint64_t from)
{
	char at[24];
	struct buf name;
	buf_init(&name, 256);
	sql_ident(&name, s->publication);
	buf_printf(sql, "START_REPLICATION SLOT \"%s\" LOGICAL %s (proto_version '%d', publication_names ", s->slot, lsn_format(from, at), protocol(s));
	/* the replication grammar knows no E'' and takes a backslash as it is */
	buf_byte(sql, '\'');
	for (const char *p = buf_cstr(&name); *p; p++) {
		if (*p == '\'')
			buf_byte(sql, '\'');
		buf_byte(sql, *p);
	}
	buf_byte(sql, '\'');
	if (s->version >= 140000)
		buf_str(sql, ", streaming 'on', messages 'true'");
	if (s->version >= 140000 && s->opt.binary && all_binary(s))
		buf_str(sql, ", binary 'true'");
	if (s->version >= 160000)
		buf_printf(sql, ", origin '%s'", s->opt.origin);
	buf_byte(sql, ')');
	buf_fini(&name);
}

static void begin_now(struct source *s)
{
	struct stream *st = s->stream;
	struct buf sql;
	buf_init(&sql, 4096);
	start_sql(s, &sql, st->confirmed);
	s->doing = "starting the stream";
	pgconn_stream(s->repl, buf_cstr(&sql), on_started, on_message, on_dry, on_ended, s);
	loop_timer_start(st->tick, TICK_MS);
	buf_fini(&sql);
}

static void begin(struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, whole_key);
	s->stream->was_whole = source_stream_is_whole(s);
	const char *is = s->is_held && s->is_loading && s->stream->was_whole ? "yes" : "no";
	if (note && !strcmp(note, is))
		begin_now(s);
	else
		source_put_note(s, whole_key, is, begin_now);
}

/* A third of the server's patience, at most. */
static int64_t status_interval_us(const struct source *s)
{
	int64_t ms = s->opt.status_ms;
	if (s->sender_timeout_ms && s->sender_timeout_ms / 3 < ms)
		ms = s->sender_timeout_ms / 3;
	return ms * 1000;
}

static void make_stream(struct source *s)
{
	struct stream *st = mem_zalloc(sizeof *st);
	struct position from = s->from;
	const struct pgoutput_host host = {
		.ctx = s,
		.describe = describe,
		.named = source_look_name,
		.remembered = remembered,
		.ask = source_ask,
		.wanted = wanted,
		.full = on_full,
		.dated = source_look_dated,
		.earlier = source_look_earlier,
		.empties = source_ask_name,
		.sends_generated = s->sends_generated,
	};
	const struct pgoutput_limits limits = { s->opt.batch_bytes, s->opt.spool_memory, s->opt.spool_disk };
	s->stream = st;
	if (!from.kind)
		from = (struct position){ .kind = POSITION_LSN, .server = s->system, .lsn = s->start_lsn, .flush = s->start_lsn };
	st->confirmed = st->received = st->beat = from.flush;
	st->heartbeat_us = st->told_us = loop_now_us(s->host.env.loop);
	st->status_us = status_interval_us(s);
	st->decoder = pgoutput_new(&host, &s->host.env, &limits, protocol(s), s->system, &from);
	st->tick = loop_timer_new(s->host.env.loop, "postgres.stream", on_tick, s);
}

static void verified(struct source *s)
{
	make_stream(s);
	source_enter(s, SOURCE_STREAMING, s->is_loading ? "the tables are loaded meanwhile" : "the tables are loaded");
	begin(s);
}

static void identified(struct source *s) { source_slot_verify(s, verified); }

static void on_repl_ready(void *ctx) { source_identify(ctx, identified); }

void source_stream(struct source *s)
{
	if (s->repl) {
		make_stream(s);
		source_enter(s, SOURCE_STREAMING, s->ends_first ? "what may be under way is read first" : "nothing is left to load");
		begin(s);
		return;
	}
	s->doing = "connecting for the stream";
	s->repl = source_connect(s, PGCONN_REPLICATION, on_repl_ready);
}

static void on_stop_limit(void *arg) { source_stopped(arg); }

void source_stream_stop(struct source *s)
{
	struct stream *st = s->stream;
	source_enter(s, SOURCE_STOPPING, "asked");
	/* An earlier run may have given the streamer more than this one: that was written before this one looked. */
	if ((st->was_whole || st->confirmed >= s->began_lsn) && !st->is_torn && st->emitted <= st->confirmed)
		source_put_note(s, whole_key, "yes", NULL);
	if (!st->is_open) {
		source_stopped(s);
		return;
	}
	send_status(s);
	st->stop = loop_timer_new(s->host.env.loop, "postgres.stream", on_stop_limit, s);
	loop_timer_start(st->stop, STOP_LIMIT_MS);
	pgconn_stream_end(s->repl);
}

/* No change of the job that is not confirmed is before that. It is told by the server's keepalives, each of which comes behind what was committed before it:
 * heartbeats, which have it confirmed, are rare where nothing happens. */
static uint64_t level(const struct stream *st)
{
	bool has_rest = st->is_stalled || st->emitted > st->confirmed || pgoutput_has_rest(st->decoder);
	return has_rest || st->keepalive < st->confirmed ? st->confirmed : st->keepalive;
}

uint64_t source_stream_passed(const struct source *s)
{
	const struct stream *st = s->stream;
	struct position at = { 0 };
	if (!st)
		return 0;
	pgoutput_position(st->decoder, &at);
	return !st->is_stalled && st->keepalive > at.lsn ? st->keepalive : at.lsn;
}

uint64_t source_stream_truncated(const struct source *s, uint32_t id) { return s->stream ? pgoutput_truncated(s->stream->decoder, id) : 0; }

void source_stream_stat(struct source *s, struct dmsr_source_stat *out)
{
	struct stream *st = s->stream;
	struct pgoutput_stat d;
	if (!st)
		return;
	out->streaming = s->phase == SOURCE_STREAMING && st->is_open && !s->is_loading && !s->ends_first;
	out->loads_later = s->ends_first;
	pgoutput_position(st->decoder, &out->received);
	pgoutput_stat(st->decoder, &d);
	out->confirmed = (struct position){ .kind = POSITION_LSN, .server = s->system, .lsn = st->confirmed, .event = 0, .flush = st->confirmed };
	out->last_event_us = st->last_event_us;
	out->last_commit_us = d.last_commit_us;
	out->spool_bytes = d.spool_memory + d.spool_disk;
	bool is_known = out->server_lsn; /* what comes by the stream says how far the server has read, and it may have far to go */
	if (st->server_lsn > out->server_lsn)
		out->server_lsn = st->server_lsn;
	if (is_known)
		out->lag_bytes = out->server_lsn > level(st) ? (int64_t)(out->server_lsn - level(st)) : 0;
}

void source_stream_free(struct source *s)
{
	struct stream *st = s->stream;
	if (!st)
		return;
	loop_timer_free(st->tick);
	loop_timer_free(st->stop);
	pgoutput_free(st->decoder);
	free(st);
	s->stream = NULL;
}
