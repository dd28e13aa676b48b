/* source: the stream that another job writes, be it in another daemon, as the source of a job.
 *
 * It reads {prefix}.__stream as a target's subscription does (consume.c), and gives what it reads to its own job, whose streamer and targets take it from
 * there. Positions are those of the database that the writer reads. Nothing is written to the brokers. Where it goes on is the place behind the newest record
 * whose position was confirmed; what is read again is taken out by the position that the job starts from, and by the loads that it has.
 *
 * A table's rows come with its load. Changes of one before any load of it are left out: the load is still to come, or the stream does not have it (it went
 * past the stream, or was not kept). Which of the two is known when all that the stream had at the start was read: then the run fails, and names the table. So
 * does every run until the writer has loaded it again, whatever the mode, since the job's position is behind what was left out. As long as not all is loaded a
 * run begins with the stream, so that the targets hear of every table before OP_LOAD_DONE. With mode cdc rows are nobody's concern, and reading begins at the
 * stream's end, behind the newest position there.
 *
 * What was left out is noted ("lacking.PREFIX") before anything that comes behind it is given on: whoever has that never goes without the note. Nothing is
 * taken out of the note when the load has come, for it may be lost before the targets have it: a start forgets what is older than the load that they have. */
#include "kafka.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum stand {
	TABLE_NEW,      /* nothing is known of it */
	TABLE_LOADED,   /* its rows are there, or their load was given on */
	TABLE_AWAITED,  /* it is to be loaded again, by a load that is still to come */
	TABLE_LACKING,  /* it is not there, and nobody has said that a load will come */
};

struct table {
	enum stand stand;
	bool is_loading;                /* its load has begun, and not ended */
	bool is_lost;                   /* a target could not go on with one */
	uint64_t above;                 /* awaited: a load up to there is of no use */
	uint64_t left_out;              /* the newest change that was left out: nor is one up to there, whoever has it; 0: none. The note may have an older */
};

struct source {
	struct dmsr_source_host host;
	const struct dmsr_tables *tables;
	struct kafka *k;
	struct dmsr_subscription *sub;
	enum dmsr_mode mode;
	struct map *stands;             /* relation_key: struct table */
	size_t nlacking;
	uint64_t floor;                 /* changes up to there do not come again, so a load of before is of no use */
	bool must_note;                 /* something was left out, or is awaited, that is not noted */
	bool takes_rests;               /* the targets can go on with a load that was cut off */
	bool is_past_start;             /* all was read that was there at the start */
	bool is_ready, is_paused, waits;
	const struct batch *judged;     /* what goes was taken out of it, and the host has not taken it yet */
	struct position confirmed;
	int64_t last_event_us, last_commit_us;
	struct buf key;
};

static struct source *of(struct dmsr_instance *i) { return (struct source *)(void *)i; }

/* ---- tables ---- */

static struct table *find(struct source *s, const char *schema, const char *name)
{
	buf_reset(&s->key);
	relation_key(&s->key, schema, name);
	struct table *t = map_get(s->stands, s->key.data, s->key.len);
	if (!t) {
		t = mem_zalloc(sizeof *t);
		map_put(s->stands, s->key.data, s->key.len, t);
	}
	return t;
}

static struct table *table_of(struct source *s, const struct relation *rel) { return find(s, rel->schema, rel->name); }

static bool is_meant(const struct source *s, const struct relation *rel) { return dmsr_table_matches(s->tables, rel->schema, rel->name); }

static void set_stand(struct source *s, struct table *t, enum stand stand)
{
	s->nlacking += (stand == TABLE_LACKING) - (t->stand == TABLE_LACKING);
	s->must_note |= t->stand != stand && (stand == TABLE_AWAITED || stand == TABLE_LACKING);
	t->stand = stand;
}

static void leave_out(struct source *s, struct table *t, uint64_t lsn)
{
	if (t->stand == TABLE_NEW)
		set_stand(s, t, TABLE_LACKING);
	/* What a target has is no newer than `above`, or was given on when all that is left out here was known: so one that is newer than that says it. */
	s->must_note |= lsn > t->left_out && t->left_out <= t->above;
	t->left_out = lsn > t->left_out ? lsn : t->left_out;
}

static void await(struct source *s, struct table *t, uint64_t above)
{
	set_stand(s, t, TABLE_AWAITED);
	s->must_note |= above > t->above;
	t->above = above > t->above ? above : t->above;
}

/* Of a key of the map: the table's name is not ended by NUL. */
struct names {
	const char *schema, *table;
	int len;
};

static struct names names_of(const void *key, size_t n)
{
	struct names out = { .schema = key };
	out.table = out.schema + strlen(out.schema) + 1;
	out.len = (int)(n - (size_t)(out.table - out.schema));
	return out;
}

static void tell_awaited(void *arg, const void *key, size_t n, void *value)
{
	struct source *s = arg;
	const struct table *t = value;
	struct names at = names_of(key, n);
	if (t->stand != TABLE_AWAITED)
		return;
	char *text = mem_printf("table %s.%.*s waits for a load in the stream: have the job that writes it load the table again", at.schema, at.len, at.table);
	s->host.notice(s->host.ctx, text);
	free(text);
}

/* ---- the note ---- */

static char *lacking_key(const struct source *s) { return mem_printf("lacking.%s", s->k->prefix); }

static void add(void *arg, const void *key, size_t n, void *value)
{
	const struct table *t = value;
	struct names at = names_of(key, n);
	const json_int_t above = (json_int_t)t->above, left_out = (json_int_t)t->left_out;
	if (above || left_out || t->stand == TABLE_LACKING)
		json_array_append_new(arg, json_pack("[s, s#, I, I]", at.schema, at.table, at.len, above, left_out));
}

static void on_noted(void *arg, const struct err *e) { kafka_noted(arg, e); }

/* True: what is left out so far is noted for good. */
static bool is_noted(struct source *s)
{
	if (s->must_note) {
		json_t *all = json_array();
		map_each(s->stands, add, all);
		char *key = lacking_key(s), *text = json_dumps(all, JSON_COMPACT);
		s->must_note = false;
		s->k->is_noting = true;
		s->host.note_put(s->host.ctx, key, text, on_noted, s->k);
		free(key);
		free(text);
		json_decref(all);
	}
	return !s->k->is_noting;
}

static void read_note(struct source *s)
{
	char *noted = lacking_key(s);
	const char *note = s->host.note_get(s->host.ctx, noted);
	free(noted);
	json_t *all = note ? json_loads(note, 0, NULL) : NULL, *one;
	size_t i;
	json_array_foreach(all, i, one)
	{
		const char *schema = json_string_value(json_array_get(one, 0)), *name = json_string_value(json_array_get(one, 1));
		uint64_t above = (uint64_t)json_integer_value(json_array_get(one, 2));
		if (!schema || !name || !dmsr_table_matches(s->tables, schema, name))
			continue;
		struct table *t = find(s, schema, name);
		set_stand(s, t, above ? TABLE_AWAITED : TABLE_LACKING);
		t->above = above;
		t->left_out = (uint64_t)json_integer_value(json_array_get(one, 3));
	}
	json_decref(all);
}

/* What an earlier run has left out, but for what the targets have a newer load of; and what is to be loaded again, as the host knows. */
static void read_stands(struct source *s, const struct dmsr_source_start *start)
{
	read_note(s);
	for (size_t n = 0; n < start->nloaded; n++) {
		const struct dmsr_loaded *l = &start->loaded[n];
		struct table *t = find(s, l->schema, l->name);
		if (t->left_out && l->at.lsn <= t->left_out)
			continue;
		set_stand(s, t, TABLE_LOADED);
		t->above = t->left_out = 0;
	}
	for (size_t n = 0; n < start->nunwanted; n++) {
		const struct dmsr_loaded *u = &start->unwanted[n];
		struct table *t = find(s, u->schema, u->name);
		if (t->stand != TABLE_LOADED && dmsr_table_matches(s->tables, u->schema, u->name))
			await(s, t, u->at.lsn ? u->at.lsn : 1);
	}
	for (size_t n = 0; n < start->nbegun; n++)
		find(s, start->begun[n].schema, start->begun[n].name)->is_lost = !start->begun[n].nparts;
	s->must_note = false;
	map_each(s->stands, tell_awaited, s);
}

/* ---- what is given on ---- */

static bool is_of_rows(const struct change *ch) { return change_is_row(ch) || ch->op == OP_TRUNCATE; }

/* A change of the stream. */
static bool is_left_out(void *arg, const struct change *ch)
{
	struct source *s = arg;
	if (!ch->rel)
		return false;
	if (!is_meant(s, ch->rel))
		return true;
	struct table *t = table_of(s, ch->rel);
	bool is_needed = s->mode & DMSR_FULL_LOAD || t->stand == TABLE_LACKING || t->left_out;
	if (t->stand == TABLE_LOADED || !is_needed)
		return false;
	if (!is_of_rows(ch))
		return true;
	leave_out(s, t, ch->txn ? ch->txn->lsn : 0);
	t->is_loading = false; /* a load that has begun was cut off, and the writer goes on without it */
	return true;
}

/* A table that has no rows yet is nothing to tell a target of. */
static bool is_no_news(void *arg, const struct change *ch)
{
	struct source *s = arg;
	return ch->rel && (!is_meant(s, ch->rel) || (s->mode & DMSR_FULL_LOAD && table_of(s, ch->rel)->stand != TABLE_LOADED));
}

/* What is told before OP_LOAD_DONE is of tables that the writer has loaded: but not here, if that is not kept any more. */
static void look_for_lacking(struct source *s, const struct batch *b)
{
	for (const struct change *ch = b->first; ch && s->mode & DMSR_FULL_LOAD; ch = ch->next)
		if (ch->rel && is_meant(s, ch->rel) && table_of(s, ch->rel)->stand == TABLE_NEW)
			set_stand(s, table_of(s, ch->rel), TABLE_LACKING);
}

/* The load of a table begins, in a snapshot at lsn. */
static bool is_wanted(struct source *s, const struct relation *rel, uint64_t lsn)
{
	struct table *t = table_of(s, rel);
	bool is_newer = lsn > t->above && lsn > t->left_out;
	if (!is_newer || lsn >= s->floor)
		return is_newer;
	if (t->stand == TABLE_LOADED) /* somebody has sent the job on by hand, past a load of before */
		return false;
	await(s, t, s->floor - 1);
	tell_awaited(s, s->key.data, s->key.len, t);
	return false;
}

/* Rows and words of one table's load: is it one that is wanted, from its begin on? Others tell of tables, and that all are loaded. */
static bool takes_load(struct source *s, struct batch *b)
{
	const struct relation *rel = NULL;
	bool begins = false, goes_on = false, ends = false, is_of_one = false, all_came = false;
	uint64_t lsn = 0;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		rel = ch->rel ? ch->rel : rel;
		lsn = ch->rel && ch->txn ? ch->txn->lsn : lsn;
		begins |= ch->op == OP_LOAD_BEGIN && !ch->u.load.since;
		goes_on |= ch->op == OP_LOAD_BEGIN && ch->u.load.since;
		ends |= ch->op == OP_LOAD_END;
		is_of_one |= ch->op != OP_SCHEMA && ch->op != OP_LOAD_DONE;
		all_came |= ch->op == OP_LOAD_DONE;
	}
	if (!is_of_one) {
		if (all_came)
			look_for_lacking(s, b);
		batch_take_out(b, is_no_news, s);
		return b->first->op != OP_HEARTBEAT;
	}
	if (!is_meant(s, rel))
		return false;
	struct table *t = table_of(s, rel);
	t->is_loading |= begins && is_wanted(s, rel, lsn);
	if (goes_on && t->is_loading && (!s->takes_rests || t->is_lost)) { /* what it has of it is of no use: it waits for another */
		t->is_loading = false;
		set_stand(s, t, TABLE_LACKING);
		leave_out(s, t, lsn);
	}
	if (!t->is_loading)
		return false;
	if (ends) {
		t->is_loading = false;
		set_stand(s, t, TABLE_LOADED);
	}
	return true;
}

static void name(void *arg, const void *key, size_t n, void *value)
{
	const struct table *t = value;
	struct buf *text = arg;
	struct names at = names_of(key, n);
	if (t->stand == TABLE_LACKING && !t->is_loading)
		buf_printf(text, "%s%s.%.*s", text->len ? ", " : "", at.schema, at.len, at.table);
}

/* Is one of them not even being loaded, though all was read that was there at the start? */
static bool is_failed_for_lack(struct source *s)
{
	struct err e = { 0 };
	struct buf names;
	if (!s->is_past_start || !s->nlacking)
		return false;
	buf_init(&names, 300);
	map_each(s->stands, name, &names);
	if (!names.len) {
		buf_fini(&names);
		return false;
	}
	err_set(&e, DMSR_ESTATE, "kafka.no-load", "topic %s has changes of %s%s, and no load before them: it went past the stream (load direct), was not "
		"kept, or the job that writes has never loaded it", s->k->stream->name, buf_cstr(&names), buf_ok(&names) ? "" : " ...");
	err_hint(&e, "have the job that writes the stream load it again (POST /jobs/JOB/tables/TABLE/reload there), with load stream, and start this job; or "
		"exclude the table");
	buf_fini(&names);
	kafka_fail(s->k, &e);
	s->waits = true;
	return true;
}

/* OP_SCHEMA among words that a batch of a load may hold stays with it. */
static enum dmsr_verdict take(void *ctx, struct batch *b)
{
	struct source *s = ctx;
	if (s->is_paused || s->waits)
		return DMSR_AGAIN;
	if (b != s->judged && !b->is_load) {
		batch_take_out(b, is_left_out, s);
	} else if (b != s->judged && !takes_load(s, b)) {
		batch_free(b);
		return DMSR_OK;
	}
	s->judged = b;
	if (is_failed_for_lack(s) || !is_noted(s))
		return DMSR_AGAIN;
	int64_t commit_us = b->last && !b->is_load && !b->more && b->last->txn ? b->last->txn->commit_us : 0;
	s->last_event_us = wall_now_us();
	b->received_us = s->last_event_us;
	enum dmsr_verdict v = s->host.emit(s->host.ctx, b);
	s->waits = v != DMSR_OK;
	if (s->waits)
		return v;
	s->judged = NULL;
	s->last_commit_us = commit_us ? commit_us : s->last_commit_us;
	return DMSR_OK;
}

static void on_drained(void *ctx)
{
	struct source *s = ctx;
	s->is_past_start = true;
	is_failed_for_lack(s);
}

/* ---- the reader's host ---- */

static void on_ready(void *ctx)
{
	struct source *s = ctx;
	s->is_ready = true;
}

static void on_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct source *s = ctx;
	s->host.note_put(s->host.ctx, key, value, done, arg);
}

static const char *on_note_get(void *ctx, const char *key)
{
	struct source *s = ctx;
	return s->host.note_get(s->host.ctx, key);
}

static void on_notice(void *ctx, const char *text)
{
	struct source *s = ctx;
	s->host.notice(s->host.ctx, text);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct source *s = ctx;
	s->host.failed(s->host.ctx, e);
}

static void on_stopped(void *ctx)
{
	struct source *s = ctx;
	s->host.stopped(s->host.ctx);
}

/* ---- verbs ---- */

static int source_open(const struct settings *settings, const struct dmsr_tables *tables, const struct dmsr_source_host *host, struct dmsr_instance **out,
	struct err *e)
{
	struct source *s = mem_zalloc(sizeof *s);
	const struct dmsr_streamer_host reader = {
		.ctx = s,
		.env = host->env,
		.note_put = on_note_put,
		.note_get = on_note_get,
		.notice = on_notice,
		.ready = on_ready,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	s->host = *host;
	s->tables = tables;
	if (kafka_open(settings, &reader, true, &s->k, e)) {
		free(s);
		return e->code;
	}
	s->stands = map_new();
	buf_init(&s->key, SIZE_MAX);
	*out = (struct dmsr_instance *)(void *)s;
	return 0;
}

static void source_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	struct source *s = of(i);
	struct err e = { 0 };
	const struct dmsr_stand stand = {
		.at = start->from,
		.loaded = start->loaded,
		.nloaded = start->nloaded,
		.load_done = start->load_done || !(start->mode & DMSR_FULL_LOAD),
		.has_nothing = start->mode == DMSR_CDC && position_is_none(&start->from) && !start->nloaded,
	};
	s->mode = start->mode;
	s->takes_rests = start->takes_rests;
	s->confirmed = start->from;
	s->floor = start->from.lsn + (start->from.event > 0); /* a snapshot has what was committed before it */
	read_stands(s, start);
	s->sub = consume_new_reader(s->k, &stand, take, on_drained, s);
	kafka_start(s->k);
	if (!(s->mode & DMSR_CDC)) {
		err_set(&e, DMSR_EINVAL, "kafka.no-end", "a stream has no end at which a job of mode full-load would be completed");
		err_hint(&e, "set mode to full-load-and-cdc, or to cdc");
		kafka_fail(s->k, &e);
	}
}

static void source_pause(struct dmsr_instance *i) { of(i)->is_paused = true; }

static void source_resume(struct dmsr_instance *i)
{
	struct source *s = of(i);
	s->is_paused = s->waits = false;
	consume_resume(s->sub);
}

static void source_confirm(struct dmsr_instance *i, const struct position *p)
{
	of(i)->confirmed = *p;
	consume_confirm(of(i)->sub, p);
}

/* How far the writer is, nobody says; but at the stream's end all of it was read. */
static void source_stat(struct dmsr_instance *i, struct dmsr_source_stat *out)
{
	const struct source *s = of(i);
	*out = (struct dmsr_source_stat){ .confirmed = s->confirmed, .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1, .paused = s->is_paused };
	out->connected = s->is_ready;
	out->streaming = s->is_ready && s->sub && consume_has_begun(s->sub);
	out->last_event_us = s->last_event_us;
	out->last_commit_us = s->last_commit_us;
	out->phase = s->is_ready ? "reading the stream" : "connecting";
	if (!s->sub)
		return;
	out->received = consume_reached(s->sub);
	if (!s->is_past_start || !consume_is_at_end(s->sub) || s->waits)
		return;
	uint64_t read = out->received.flush ? out->received.flush : out->received.lsn;
	uint64_t has = position_is_none(&s->confirmed) ? read : s->confirmed.flush ? s->confirmed.flush : s->confirmed.lsn;
	out->server_lsn = read;
	out->lag_bytes = read > has ? (int64_t)(read - has) : 0;
}

static void source_stop(struct dmsr_instance *i) { kafka_stop(of(i)->k); }

static void drop_table(void *arg, const void *key, size_t n, void *value)
{
	(void)arg, (void)key, (void)n;
	free(value);
}

/* The reader may be in a turn of its own, and ends behind that; it calls nobody then. */
static void source_close(struct dmsr_instance *i)
{
	struct source *s = of(i);
	kafka_close(s->k);
	map_each(s->stands, drop_table, NULL);
	map_free(s->stands);
	buf_fini(&s->key);
	free(s);
}

const struct dmsr_source kafka_source = {
	.open = source_open,
	.start = source_start,
	.pause = source_pause,
	.resume = source_resume,
	.confirm = source_confirm,
	.stat = source_stat,
	.stop = source_stop,
	.close = source_close,
};
