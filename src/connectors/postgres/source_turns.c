/* source_turns: a big table that is loaded while the stream of the others flows on: it was added, or is loaded again. In come tables of which the load
 * (source_load.c) has read the first part; out go their other parts, one after the other, each in a turn of its own, in its place among the changes.
 *
 *   WAITING -> [ CONNECTING -> ] READY -> ASKING -> NOTING -> READING -> LEAVING -> WAITING       not every change that went out is seen, for a moment:
 *              (a session)       (the stream comes to where no transaction is open, and rests)                           ASKING -> LEAVING -> UNSEEN -> ASKING
 *
 * A part is of a snapshot that sees every transaction that the stream has let out, and so it takes the place of what these did to its rows; those that come
 * behind it are, some of them, in it already, which does no harm (target_catch.h). What the stream has let out is committed in the log, but a transaction
 * is seen a moment later than that: with synchronous standbys, a long moment. So the numbers of those that went out since the last part are kept, and
 * compared with the snapshot's; so is what the first snapshot sees. While the stream rests none is added to them: so they are waited for; and for the targets,
 * behind one of which the rows would stand in memory, in everybody's way. No turn waits for a transaction that is still open, as who makes a slot does.
 *
 * Parts are ranges of the primary key. A row that moves to another range is a key that moves: that comes by the stream, whole, and it has no other way. */
#include "source_load.h"
#include "source_mark.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LOOK_MS = 20,
	PATIENCE = 4,                   /* a stream that does not run dry gets so many times what the last turn took */
	AGAIN_MS = 200,                 /* after a turn in which nothing could be read, */
	BUSY_MS = 5000,                 /* because the table is locked, for which the stream rested too */
	VAIN_MAX = 8,                   /* so often in a row the table's name was another's, or nobody's */
	UNSEEN_MS = 10,                 /* the stream rests, and it is asked again whether all that went out is seen, and applied, */
	UNSEEN_MAX_US = 1000000,        /* so long at most; and twice as long after each turn that was given up for that, */
	UNSEEN_LIMIT_US = 8000000,      /* but no longer */
	BEGUN_MAX = 2,                  /* so often the load of a table begins in turns; then it is one that ends surely */
	XIDS_MAX = 1 << 13,             /* before it is asked which of them are seen */
};

enum turn_state { TURN_WAITING, TURN_CONNECTING, TURN_READY, TURN_ASKING, TURN_NOTING, TURN_READING, TURN_LEAVING, TURN_UNSEEN };

struct turns {
	struct load_table *tables;      /* not whole yet; the first is empty while it is at work, as s->load's */
	size_t n;
	enum turn_state state;
	bool has_turn;                  /* the stream rests */
	uint32_t *xids;                 /* of transactions that went out, and were not seen yet */
	size_t nxids, cap, many;        /* many: it is asked which are seen */
	struct pgconn *asker;           /* for that; NULL: none */
	bool is_asking;
	char *first;                    /* what the snapshot of the first parts sees */
	uint64_t newest;                /* no row of any part is newer */
	struct loop_timer *timer;
	uint64_t began_us, ended_us, took_us, not_before_us, pause_us;
	uint64_t patience_us;           /* for what is not seen, or applied, yet; 0: UNSEEN_MAX_US */
	unsigned vain;                  /* turns in a row in which that was so */
	uint64_t heard;                 /* messages of the stream when it was looked at last */
	bool was_dry;                   /* the stream, since the last turn */
	bool asks_again;                /* in this turn */
};

bool source_has_turn(const struct source *s) { return s->turns && s->turns->has_turn; }

uint64_t source_turns_since(const struct source *s, uint32_t id)
{
	for (size_t i = 0; s->turns && i < s->turns->n; i++)
		if (s->turns->tables[i].rel && s->turns->tables[i].rel->id == id)
			return s->turns->tables[i].since;
	return 0;
}

/* ---- what went out ---- */

static bool is_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

/* "xmin:xmax:xip,xip": what was open, or had no number yet, is not seen. */
struct sight { uint32_t xmin, xmax, *open; size_t nopen; };

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void read_sight(struct sight *v, const char *text)
{
	char *at = NULL;
	*v = (struct sight){ 0 };
	v->xmin = (uint32_t)strtoull(text, &at, 10);
	v->xmax = (uint32_t)strtoull(at + (*at == ':'), &at, 10);
	v->open = mem_alloc((strlen(at) / 2 + 1) * sizeof *v->open);
	while (*at == ':' || *at == ',') {
		char *next = NULL;
		uint32_t xid = (uint32_t)strtoull(at + 1, &next, 10);
		if (next == at + 1)
			break;
		v->open[v->nopen++] = xid;
		at = next;
	}
	qsort(v->open, v->nopen, sizeof *v->open, by_number);
}

static bool sees(const struct sight *v, uint32_t xid)
{
	if (is_before(xid, v->xmin))
		return true;
	return is_before(xid, v->xmax) && !bsearch(&xid, v->open, v->nopen, sizeof *v->open, by_number);
}

/* The first snapshot goes by the log: it may see what the procedure that the others are taken by does not show yet. */
static bool sees_less(const struct sight *now, const struct sight *first)
{
	for (size_t i = 0; i < now->nopen; i++)
		if (sees(first, now->open[i]))
			return true;
	for (uint32_t xid = now->xmax; is_before(xid, first->xmax); xid++)
		if (sees(first, xid))
			return true;
	return false;
}

static void forget_seen(struct turns *u, const struct sight *now)
{
	size_t kept = 0;
	for (size_t i = 0; i < u->nxids; i++)
		if (!sees(now, u->xids[i]))
			u->xids[kept++] = u->xids[i];
	u->nxids = kept;
}

/* All that went out, and all that the first parts have. */
static bool sees_all(struct turns *u, const char *snapshot)
{
	struct sight now, first;
	read_sight(&now, snapshot);
	read_sight(&first, u->first);
	forget_seen(u, &now);
	bool is_less = sees_less(&now, &first);
	free(first.open);
	free(now.open);
	return !u->nxids && !is_less;
}

/* ---- there are many, and no turn comes: a load of other tables goes beside, or a target is slow ---- */

static void on_seen(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct turns *u = s->turns;
	size_t n = u->nxids;
	u->is_asking = false;
	if (!e) {
		struct sight now;
		read_sight(&now, PQgetvalue(res, 0, 0));
		forget_seen(u, &now);
		free(now.open);
		log_debug("postgres", s->host.env.job, "of %zu transactions that went out %zu are not seen yet", n, u->nxids);
	}
	u->many = 2 * u->nxids;
}

static void on_asker_ready(void *ctx)
{
	const struct source *s = ctx;
	pgconn_query(s->turns->asker, "SELECT pg_catalog.txid_current_snapshot()", on_seen, ctx);
}

/* They are kept, for now. */
static void on_asker_failed(void *ctx, const struct err *e)
{
	struct turns *u = ((struct source *)ctx)->turns;
	log_info("postgres", ((struct source *)ctx)->host.env.job, "which transactions are seen is asked again later: %s", e->message);
	pgconn_free(u->asker);
	u->asker = NULL;
	u->is_asking = false;
	u->many = 2 * u->nxids;
}

static void ask_seen(struct source *s)
{
	struct turns *u = s->turns;
	const struct pgconn_owner o = { .ctx = s, .on_ready = on_asker_ready, .on_failed = on_asker_failed };
	if (u->is_asking || s->phase != SOURCE_STREAMING)
		return;
	u->is_asking = true;
	if (u->asker)
		on_asker_ready(s);
	else
		u->asker = pgconn_new(&s->host.env, s->settings, PGCONN_SQL, &o);
}

void source_turns_close(struct source *s)
{
	if (!s->turns)
		return;
	pgconn_free(s->turns->asker);
	s->turns->asker = NULL;
}

void source_turns_saw(struct source *s, const struct batch *b)
{
	struct turns *u = s->turns;
	bool will_be = s->takes_turns && s->is_loading; /* the load may leave tables to us */
	if (b->is_load || (!u && !will_be))
		return;
	if (!u)
		u = s->turns = mem_zalloc(sizeof *u);
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (ch->op != OP_COMMIT)
			continue;
		if (u->nxids == u->cap) {
			u->cap = u->cap ? 2 * u->cap : 256;
			u->xids = mem_realloc_array(u->xids, u->cap, sizeof *u->xids);
		}
		u->xids[u->nxids++] = ch->txn->xid;
	}
	if (u->nxids > XIDS_MAX && u->nxids > u->many)
		ask_seen(s);
}

/* ---- the end of a turn ---- */

static void wait_for_turn(struct source *s)
{
	struct turns *u = s->turns;
	uint64_t now = loop_now_us(s->host.env.loop);
	u->state = TURN_WAITING;
	u->not_before_us = now + u->pause_us;
	if (u->has_turn) {
		u->ended_us = now;
		u->took_us = now - u->began_us;
		u->was_dry = false;
	}
	u->has_turn = false;
	loop_timer_start(u->timer, LOOK_MS);
	loop_task_post(s->turn);
}

static void all_done(struct source *s)
{
	uint64_t newest = source_newest_load(s);
	source_stream_awaits(s, s->turns->newest > newest ? s->turns->newest : newest);
	pgconn_free(s->loader);
	s->loader = NULL;
	source_turns_free(s);
	loop_task_post(s->turn);
}

static void on_left(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct turns *u = s->turns;
	(void)res;
	(void)e; /* it has only read */
	if (u->asks_again) {
		u->state = TURN_UNSEEN;
		loop_timer_start(u->timer, UNSEEN_MS);
	} else if (u->n) {
		wait_for_turn(s);
	} else {
		all_done(s);
	}
}

static void leave(struct source *s, uint64_t pause_ms)
{
	s->turns->state = TURN_LEAVING;
	s->turns->pause_us = pause_ms * 1000;
	pgconn_query(s->loader, "ROLLBACK", on_left, s);
}

static void fail_changed(struct source *s, const struct load_table *t, const char *what)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "source.changed", "table %s.%s %s while it was loaded: its load begins anew", t->rel->schema, t->rel->name, what);
	source_fail(s, &e);
}

/* Somebody holds the table: the stream has rested for that, too. Or it, or a column, is not there by its name: that may pass. */
static void put_off(struct source *s, bool is_busy)
{
	struct turns *u = s->turns;
	u->vain = is_busy ? 0 : u->vain + 1;
	if (u->vain == VAIN_MAX)
		fail_changed(s, &u->tables[0], "was dropped or renamed");
	else
		leave(s, is_busy ? BUSY_MS : AGAIN_MS);
}

/* The table goes back to ours, or is whole. */
void source_turn_read(struct source *s)
{
	struct turns *u = s->turns;
	struct load_table *t = &s->load->tables[0];
	bool is_whole = t->state == TABLE_READ, is_put_off = t->state == TABLE_PUT_OFF, is_busy = t->is_busy;
	t->state = TABLE_TURNING;
	t->nreaders = 0;
	if (is_whole) {
		load_table_free(t);
		u->n--;
		memmove(u->tables, u->tables + 1, u->n * sizeof *u->tables);
	} else {
		if (is_put_off)
			t->next--;
		u->tables[0] = *t;
	}
	s->load->ntables = 0;
	source_load_free(s);
	if (is_put_off) {
		put_off(s, is_busy);
		return;
	}
	u->vain = 0;
	leave(s, 0);
}

/* ---- a turn ---- */

static void on_savepoint(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e) {
		source_fail(s, e);
		return;
	}
	struct turns *u = s->turns;
	struct load *l = s->load = load_new();
	u->state = TURN_READING;
	l->lsn = u->newest;
	l->is_turn = true;
	l->tables = mem_alloc(sizeof *l->tables);
	l->tables[l->ntables++] = u->tables[0];
	u->tables[0] = (struct load_table){ 0 };
	l->tables[0].state = TABLE_CUT;
	l->tables[0].is_busy = false;
	map_put_u32(l->by_id, l->tables[0].rel->id, &l->tables[0]);
	failpoint("pg.turn");
	source_read(s);
}

static void noted(struct source *s) { pgconn_query(s->loader, "SAVEPOINT dmsr_table", on_savepoint, s); }

/* As the stream has it the table is what it was; so it has to be in this snapshot, but for what no part depends on: a TRUNCATE, too, comes by the stream. A
 * later run must know how far the stream has to come. */
static void on_mark(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct turns *u = s->turns;
	char at[24];
	if (e) {
		source_fail(s, e);
	} else if (!PQntuples(res) || !mark_keeps_parts(u->tables[0].mark, PQgetvalue(res, 0, MARK_TEXT))) {
		fail_changed(s, &u->tables[0], "was altered");
	} else {
		u->state = TURN_NOTING;
		source_put_note(s, "load-snapshot", lsn_format(u->newest, at), noted);
	}
}

static uint64_t patience_us(const struct turns *u) { return u->patience_us ? u->patience_us : UNSEEN_MAX_US; }

static bool is_out_of_patience(const struct source *s)
{
	const struct turns *u = s->turns;
	return loop_now_us(s->host.env.loop) - u->began_us >= patience_us(u);
}

/* The stream rests meanwhile: where it does so in vain it rests longer the next time, and flows longer before that. */
static void wait_to_see(struct source *s)
{
	struct turns *u = s->turns;
	uint64_t rests_us = loop_now_us(s->host.env.loop) - u->began_us, more_us = 2 * patience_us(u);
	u->asks_again = !is_out_of_patience(s);
	if (u->asks_again) {
		leave(s, AGAIN_MS);
		return;
	}
	log_info("postgres", s->host.env.job, "the turn of table %s.%s is put off: not all that was sent before was seen, and applied by the targets, "
		"in %u ms", u->tables[0].rel->schema, u->tables[0].rel->name, (unsigned)(rests_us / 1000));
	u->patience_us = more_us < UNSEEN_LIMIT_US ? more_us : UNSEEN_LIMIT_US;
	leave(s, PATIENCE * rests_us / 1000);
}

static void on_snapshot(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct turns *u = s->turns;
	uint64_t newest = 0;
	char oid[24];
	if (e && read_may_pass(s->loader)) {
		log_info("postgres", s->host.env.job, "the turn of table %s.%s is put off: %s", u->tables[0].rel->schema, u->tables[0].rel->name, e->message);
		put_off(s, read_is_locked(s->loader));
		return;
	}
	if (e) {
		source_fail(s, e);
		return;
	}
	bool is_whole = sees_all(u, PQgetvalue(res, 0, 0)) && s->host.turn_is_applied(s->host.ctx, true);
	if (!is_whole) {
		wait_to_see(s);
		return;
	}
	u->patience_us = 0;
	if (lsn_parse(PQgetvalue(res, 0, 1), &newest)) {
		source_fail_because(s, DMSR_EPROTO, "source.protocol", NULL, "%s: its position cannot be read", pgconn_describe(s->loader));
		return;
	}
	u->newest = newest;
	snprintf(oid, sizeof oid, "{%u}", (unsigned)u->tables[0].rel->id);
	const char *values[] = { oid, s->publication };
	pgconn_query_params(s->loader, mark_sql(s->version), 2, values, on_mark, s);
}

/* In the statement behind LOCK the snapshot is taken: the table is what it is in it. The position is asked for behind it: what is seen was written before. */
static void ask(struct source *s)
{
	const struct load_table *t = &s->turns->tables[0];
	struct buf sql;
	s->turns->state = TURN_ASKING;
	s->turns->asks_again = false;
	buf_init(&sql, SIZE_MAX);
	source_load_begin_sql(NULL, &sql);
	buf_printf(&sql, "; SET LOCAL lock_timeout = '1s'; LOCK TABLE %s", t->is_partitioned ? "" : "ONLY ");
	sql_qualified(&sql, t->rel->schema, t->rel->name);
	buf_str(&sql, " IN ACCESS SHARE MODE; SELECT pg_catalog.txid_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn()");
	pgconn_query(s->loader, buf_cstr(&sql), on_snapshot, s);
	buf_fini(&sql);
}

/* The server is asked nothing while the targets have something to do. */
static void ask_when_applied(struct source *s)
{
	struct turns *u = s->turns;
	if (is_out_of_patience(s) || s->host.turn_is_applied(s->host.ctx, true)) {
		ask(s);
	} else {
		u->state = TURN_UNSEEN;
		loop_timer_start(u->timer, UNSEEN_MS);
	}
}

/* ---- when ---- */

static bool is_due(const struct source *s)
{
	const struct turns *u = s->turns;
	uint64_t now = loop_now_us(s->host.env.loop), heard = source_stream_heard(s);
	if (now < u->not_before_us || !s->host.turn_is_applied(s->host.ctx, false))
		return false;
	return u->was_dry || heard == u->heard || now - u->ended_us > PATIENCE * u->took_us;
}

void source_turns_dry(struct source *s)
{
	if (s->turns)
		s->turns->was_dry = true;
}

/* Everything that was decoded has gone out, and it ends with a transaction. */
void source_turns_rests(struct source *s)
{
	struct turns *u = s->turns;
	u->has_turn = true;
	u->began_us = loop_now_us(s->host.env.loop);
	ask_when_applied(s);
}

bool source_turns_wants(const struct source *s) { return s->turns && s->turns->state == TURN_READY; }

static void on_connected(void *ctx)
{
	struct source *s = ctx;
	s->turns->state = TURN_READY;
	loop_timer_start(s->turns->timer, LOOK_MS); /* amid a transaction it cannot rest, and behind that nothing may come */
	source_stream_rest(s);
}

static void on_timer(void *arg)
{
	struct source *s = arg;
	struct turns *u = s->turns;
	if (s->phase <= SOURCE_STREAMING && u->state == TURN_UNSEEN)
		ask_when_applied(s);
	if (s->phase > SOURCE_STREAMING || (u->state != TURN_WAITING && u->state != TURN_READY))
		return;
	loop_timer_start(u->timer, LOOK_MS);
	bool may_go = !s->is_loading && !s->paused && is_due(s);
	u->heard = source_stream_heard(s);
	if (u->state == TURN_READY) {
		source_stream_rest(s);
	} else if (may_go && !s->loader) {
		u->state = TURN_CONNECTING;
		s->loader = source_connect(s, PGCONN_SQL, on_connected);
	} else if (may_go) {
		on_connected(s);
	}
}

/* ---- their beginning ---- */

/* Rows that are not of one time would be in the way of each other. */
static bool has_other_unique(const struct relation *rel)
{
	for (uint32_t i = 0; i < rel->nddl; i++)
		if (!strcmp(rel->ddl[i].kind, "unique") || !strncmp(rel->ddl[i].sql, "CREATE UNIQUE", 13))
			return true;
	return false;
}

/* How often its load was begun in turns, and ended by what nobody had asked for, before all of it was read. */
static unsigned begun_in_vain(const struct source *s, const struct relation *rel)
{
	char *key = load_note_key("turns", rel);
	const char *note = s->host.note_get(s->host.ctx, key);
	free(key);
	return note ? (unsigned)strtoul(note, NULL, 10) : 0;
}

static void note_begun(struct source *s, const struct relation *rel, unsigned n)
{
	char *key = load_note_key("turns", rel), text[12];
	snprintf(text, sizeof text, "%u", n);
	source_put_note(s, key, n ? text : "", NULL);
	free(key);
}

void source_turns_begin(struct source *s, const struct load_table *t) { note_begun(s, t->rel, begun_in_vain(s, t->rel) + 1); }

void source_turns_over(struct source *s, const struct relation *rel)
{
	if (begun_in_vain(s, rel))
		note_begun(s, rel, 0);
}

static void stopped(struct source *s, const struct load_table *t)
{
	unsigned n = t->rel && t->in_turns && t->state != TABLE_READ ? begun_in_vain(s, t->rel) : 0;
	if (n)
		note_begun(s, t->rel, n - 1);
}

void source_turns_stopped(struct source *s)
{
	for (size_t i = 0; s->turns && i < s->turns->n; i++)
		stopped(s, &s->turns->tables[i]);
	for (size_t i = 0; s->load && i < s->load->ntables; i++)
		stopped(s, &s->load->tables[i]);
}

static void tell_at_once(const struct source *s, struct load_table *t, const char *why)
{
	if (!t->told_at_once)
		source_tell(s, "table %s.%s is loaded in one snapshot, for which the targets wait: %s", t->rel->schema, t->rel->name, why);
	t->told_at_once = true;
}

bool source_may_take_turns(struct source *s, struct load_table *t)
{
	const struct relation *rel = t->rel;
	bool has_mark = s->history && history_newest(s->history, rel->id);
	unsigned n = begun_in_vain(s, rel);
	if (!s->takes_turns || s->rounds || t->since || rel->key != KEY_PRIMARY || !has_mark || has_other_unique(rel) || t->is_lost)
		return false;
	if (t->is_full) {
		tell_at_once(s, t, "with REPLICA IDENTITY FULL its changes could not come between its parts");
	} else if (n >= BEGUN_MAX) {
		char *why = mem_printf("its load in turns was begun %u times, and none of them came to its end", n);
		tell_at_once(s, t, why);
		free(why);
	}
	return !t->is_full && n < BEGUN_MAX;
}

void source_turns_take(struct source *s)
{
	struct load *l = s->load;
	for (size_t i = 0; l && i < l->ntables; i++) {
		struct load_table *t = &l->tables[i];
		if (t->state != TABLE_TURNING)
			continue;
		if (!s->turns)
			s->turns = mem_zalloc(sizeof *s->turns);
		struct turns *u = s->turns;
		t->since = l->lsn;
		t->mark = mem_strdup(history_newest(s->history, t->rel->id));
		u->tables = mem_realloc_array(u->tables, u->n + 1, sizeof *u->tables);
		u->tables[u->n++] = *t;
		u->newest = l->lsn > u->newest ? l->lsn : u->newest;
		log_info("postgres", s->host.env.job, "table %s.%s takes turns with the stream: %u parts are left", t->rel->schema, t->rel->name,
			(unsigned)(t->nparts - t->next));
		*t = (struct load_table){ .state = TABLE_READ };
	}
	if (!s->turns || !s->turns->n) {
		source_turns_free(s);
		return;
	}
	if (!s->turns->first)
		s->turns->first = mem_strdup(l->sees);
	if (!s->turns->timer)
		s->turns->timer = loop_timer_new(s->host.env.loop, "postgres.turns", on_timer, s);
	s->turns->ended_us = loop_now_us(s->host.env.loop);
	loop_timer_start(s->turns->timer, LOOK_MS);
}

void source_turns_free(struct source *s)
{
	struct turns *u = s->turns;
	if (!u)
		return;
	for (size_t i = 0; i < u->n; i++)
		load_table_free(&u->tables[i]);
	source_turns_close(s);
	loop_timer_free(u->timer);
	free(u->tables);
	free(u->first);
	free(u->xids);
	free(u);
	s->turns = NULL;
}
