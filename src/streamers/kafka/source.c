/* source: the stream that another job writes, be it in another daemon, as the source of a job.
 *
 * It reads {prefix}.__stream as a target's subscription does (consume.c), and gives what it reads to its own job, whose streamer and targets take it from
 * there. Positions are those of the database that the writer reads. Nothing is written to the brokers. Where it goes on is the place behind the newest record
 * whose position was confirmed; what is read again is taken out by the position that the job starts from, and by the loads that it has.
 *
 * A table's rows come with its load. Changes of one before any load of it are left out: the load is still to come, or the stream does not have it (it went
 * past the stream, or was not kept). Which of the two is known when all that the stream had at the start was read: then the run fails, and names the table. So
 * does every run until the writer has loaded it again, whatever the mode, since the job's position is behind what was left out (note "lacking.PREFIX"). As
 * long as not all is loaded a run begins with the stream, so that the targets hear of every table before OP_LOAD_DONE. With mode cdc rows are nobody's
 * concern, and reading begins at the stream's end, behind the newest position there. */
#include "kafka.h"
#include <jansson.h>
#include <stdlib.h>

struct source {
	struct dmsr_source_host host;
	const struct dmsr_tables *tables;
	struct kafka *k;
	struct dmsr_subscription *sub;
	enum dmsr_mode mode;
	struct map *loaded;             /* relation_key: its rows are there, or their load was given on */
	struct map *loading;            /* its load has begun, and not ended */
	struct map *awaited;            /* it is to be loaded again, by a load that is still to come: the snapshot before that, as a number */
	uint64_t floor;                 /* changes up to there do not come again, so a load of before is of no use */
	struct map *missed;             /* of those awaited: changes were left out since, and no load of before is of use, whoever has it */
	struct map *lacking;            /* changes were left out, in this run or an earlier one, and no load has come since: "schema.table" */
	bool must_note;                 /* lacking or missed has changed */
	bool is_past_start;             /* all was read that was there at the start */
	bool is_ready, is_paused, waits;
	const struct batch *judged;     /* what goes was taken out of it, and the host has not taken it yet */
	struct position confirmed;
	int64_t last_event_us, last_commit_us;
	struct buf key;
};

static struct source *of(struct dmsr_instance *i) { return (struct source *)(void *)i; }

/* ---- tables ---- */

static const struct buf *key_of(struct source *s, const char *schema, const char *name)
{
	buf_reset(&s->key);
	relation_key(&s->key, schema, name);
	return &s->key;
}

static void *find(struct source *s, const struct map *m, const struct relation *rel)
{
	const struct buf *key = key_of(s, rel->schema, rel->name);
	return map_get(m, key->data, key->len);
}

static bool is_meant(const struct source *s, const struct relation *rel) { return dmsr_table_matches(s->tables, rel->schema, rel->name); }

static void lacks(struct source *s, const struct relation *rel)
{
	const struct buf *key = key_of(s, rel->schema, rel->name);
	if (map_get(s->lacking, key->data, key->len))
		return;
	map_put(s->lacking, key->data, key->len, mem_printf("%s.%s", rel->schema, rel->name));
	s->must_note = true;
}

static void has_come(struct source *s, const struct relation *rel)
{
	static char yes;
	const struct buf *key = key_of(s, rel->schema, rel->name);
	char *lacked = map_del(s->lacking, key->data, key->len);
	s->must_note |= lacked != NULL;
	free(lacked);
	s->must_note |= map_del(s->awaited, key->data, key->len) != NULL;
	map_del(s->missed, key->data, key->len);
	map_put(s->loaded, key->data, key->len, &yes);
}

/* Of one that is awaited: from now on, also for later starts. Noted before the position moves past what was left out. */
static void is_missed(struct source *s, const char *schema, const char *name)
{
	static char yes;
	const struct buf *key = key_of(s, schema, name);
	if (!map_get(s->missed, key->data, key->len))
		s->must_note = true;
	map_put(s->missed, key->data, key->len, &yes);
}

static void add(json_t *all, const void *key, size_t n, uint64_t upto, bool missed)
{
	const char *schema = key, *table = schema + strlen(schema) + 1;
	json_array_append_new(all, json_pack("[s, s#, I, b]", schema, table, (int)(n - (size_t)(table - schema)), (json_int_t)upto, missed));
}

static void add_lacking(void *arg, const void *key, size_t n, void *value)
{
	(void)value;
	add(arg, key, n, 0, false);
}

struct pairs {
	json_t *all;
	const struct source *s;
};

static void add_awaited(void *arg, const void *key, size_t n, void *value)
{
	const struct pairs *p = arg;
	add(p->all, key, n, (uintptr_t)value, map_get(p->s->missed, key, n) != NULL);
}

static void await(struct source *s, const char *schema, const char *name, uint64_t upto)
{
	const struct buf *key = key_of(s, schema, name);
	if (map_get(s->loaded, key->data, key->len) || !dmsr_table_matches(s->tables, schema, name))
		return;
	if (upto > (uintptr_t)map_get(s->awaited, key->data, key->len))
		map_put(s->awaited, key->data, key->len, (void *)(uintptr_t)upto);
	free(map_del(s->lacking, key->data, key->len));
	char *text = mem_printf("table %s.%s waits for a load in the stream: have the job that writes it load the table again", schema, name);
	s->host.notice(s->host.ctx, text);
	free(text);
}

static char *lacking_key(const struct source *s) { return mem_printf("lacking.%s", s->k->prefix); }

/* Before what moves the position: it is never stored without this. */
static void note_lacking(struct source *s)
{
	if (!s->must_note)
		return;
	s->must_note = false;
	json_t *all = json_array();
	map_each(s->lacking, add_lacking, all);
	map_each(s->awaited, add_awaited, &(struct pairs){ all, s });
	char *key = lacking_key(s), *text = json_dumps(all, JSON_COMPACT);
	s->host.note_put(s->host.ctx, key, json_array_size(all) ? text : NULL, NULL, NULL);
	free(key);
	free(text);
	json_decref(all);
}

static void read_lacking(struct source *s)
{
	char *noted = lacking_key(s);
	const char *note = s->host.note_get(s->host.ctx, noted);
	free(noted);
	json_t *all = note ? json_loads(note, 0, NULL) : NULL, *pair;
	size_t i;
	json_array_foreach(all, i, pair)
	{
		const char *schema = json_string_value(json_array_get(pair, 0)), *table = json_string_value(json_array_get(pair, 1));
		uint64_t upto = (uint64_t)json_integer_value(json_array_get(pair, 2));
		if (!schema || !table || !dmsr_table_matches(s->tables, schema, table))
			continue;
		const struct buf *key = key_of(s, schema, table);
		if (json_is_true(json_array_get(pair, 3))) {
			map_del(s->loaded, key->data, key->len); /* what a target has is of before what was left out */
			is_missed(s, schema, table);
		}
		if (upto)
			await(s, schema, table, upto);
		else if (!map_get(s->awaited, key->data, key->len))
			free(map_put(s->lacking, key->data, key->len, mem_printf("%s.%s", schema, table)));
	}
	s->must_note = false;
	json_decref(all);
}

/* ---- what is given on ---- */

static bool is_of_rows(const struct change *ch) { return change_is_row(ch) || ch->op == OP_TRUNCATE; }

/* A change of the stream. */
static bool is_left_out(void *arg, const struct change *ch)
{
	struct source *s = arg;
	if (!ch->rel)
		return false;
	if (!is_meant(s, ch->rel) || find(s, s->lacking, ch->rel))
		return true;
	if (!(s->mode & DMSR_FULL_LOAD) || find(s, s->loaded, ch->rel))
		return false;
	if (is_of_rows(ch) && find(s, s->awaited, ch->rel))
		is_missed(s, ch->rel->schema, ch->rel->name);
	else if (is_of_rows(ch))
		lacks(s, ch->rel);
	return true;
}

/* A table that has no rows yet is nothing to tell a target of. */
static bool is_no_news(void *arg, const struct change *ch)
{
	struct source *s = arg;
	return ch->rel && (!is_meant(s, ch->rel) || (s->mode & DMSR_FULL_LOAD && !find(s, s->loaded, ch->rel)));
}

/* What is told before OP_LOAD_DONE is of tables that the writer has loaded: but not here, if that is not kept any more. */
static void look_for_lacking(struct source *s, const struct batch *b)
{
	for (const struct change *ch = b->first; ch && s->mode & DMSR_FULL_LOAD; ch = ch->next)
		if (ch->rel && is_meant(s, ch->rel) && !find(s, s->loaded, ch->rel) && !find(s, s->awaited, ch->rel))
			lacks(s, ch->rel);
}

/* Rows and words of one table's load: is it one that is wanted, from its begin on? Others tell of tables, and that all are loaded. */
static bool takes_load(struct source *s, struct batch *b)
{
	static char yes;
	const struct relation *rel = NULL;
	bool begins = false, ends = false, is_of_one = false, all_came = false;
	uint64_t lsn = 0;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		rel = ch->rel ? ch->rel : rel;
		lsn = ch->rel && ch->txn ? ch->txn->lsn : lsn;
		begins |= ch->op == OP_LOAD_BEGIN;
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
	bool is_wanted = lsn > (uintptr_t)find(s, s->awaited, rel);
	if (begins && is_wanted && lsn < s->floor) {
		await(s, rel->schema, rel->name, s->floor - 1);
		s->must_note = true;
		is_wanted = false;
	}
	const struct buf *key = key_of(s, rel->schema, rel->name);
	if (begins && is_wanted)
		map_put(s->loading, key->data, key->len, &yes);
	bool takes = map_get(s->loading, key->data, key->len) != NULL;
	if (takes && ends) {
		map_del(s->loading, key->data, key->len);
		has_come(s, rel);
	}
	return takes;
}

struct names {
	const struct source *s;
	struct buf text;
};

static void name(void *arg, const void *key, size_t n, void *value)
{
	struct names *out = arg;
	if (!map_get(out->s->loading, key, n))
		buf_printf(&out->text, "%s%s", out->text.len ? ", " : "", (const char *)value);
}

/* Is one of them not even being loaded, though all was read that was there at the start? */
static bool is_failed_for_lack(struct source *s)
{
	struct err e = { 0 };
	struct names tables = { .s = s };
	if (!s->is_past_start || !map_size(s->lacking))
		return false;
	buf_init(&tables.text, 300);
	map_each(s->lacking, name, &tables);
	if (!tables.text.len) {
		buf_fini(&tables.text);
		return false;
	}
	err_set(&e, DMSR_ESTATE, "kafka.no-load", "topic %s has changes of %s%s, and no load before them: it went past the stream (load direct), was not "
		"kept, or the job that writes has never loaded it", s->k->stream->name, buf_cstr(&tables.text), buf_ok(&tables.text) ? "" : " ...");
	err_hint(&e, "have the job that writes the stream load it again (POST /jobs/JOB/tables/TABLE/reload there), with load stream, and start this job; or "
		"exclude the table");
	buf_fini(&tables.text);
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
	if (is_failed_for_lack(s))
		return DMSR_AGAIN;
	note_lacking(s);
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
	s->loaded = map_new();
	s->loading = map_new();
	s->awaited = map_new();
	s->missed = map_new();
	s->lacking = map_new();
	buf_init(&s->key, SIZE_MAX);
	*out = (struct dmsr_instance *)(void *)s;
	return 0;
}

static void source_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	static char yes;
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
	s->confirmed = start->from;
	s->floor = start->from.lsn + (start->from.event > 0); /* a snapshot has what was committed before it */
	for (size_t n = 0; n < start->nloaded; n++) {
		const struct buf *key = key_of(s, start->loaded[n].schema, start->loaded[n].name);
		map_put(s->loaded, key->data, key->len, &yes);
	}
	for (size_t n = 0; n < start->nunwanted; n++) { /* whose load is still to come, as the host knows */
		const struct dmsr_loaded *u = &start->unwanted[n];
		await(s, u->schema, u->name, u->at.lsn ? u->at.lsn : 1);
	}
	read_lacking(s);
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

static void drop_name(void *arg, const void *key, size_t n, void *value)
{
	(void)arg, (void)key, (void)n;
	free(value);
}

/* The reader may be in a turn of its own, and ends behind that; it calls nobody then. */
static void source_close(struct dmsr_instance *i)
{
	struct source *s = of(i);
	kafka_close(s->k);
	map_each(s->lacking, drop_name, NULL);
	map_free(s->lacking);
	map_free(s->missed);
	map_free(s->loaded);
	map_free(s->loading);
	map_free(s->awaited);
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
