/* null: a target that counts and forgets: for benches of what is before it, and for trying a source.
 *
 * In come lent batches; out go their counts, table by table, with applied(). It keeps nothing, so the host's position is the truth. Option
 * encode renders every change with a codec and throws the bytes away: what any target that writes bytes pays. Option delay makes it a slow one:
 * each batch waits for so long before it is read.
 *
 *   NEW -> READY -> STOPPING -> STOPPED        NEW -> STOPPED        READY, STOPPING -> DEAD: a change that its codec refuses
 *
 * All work is done in one task, a slice at a time. A stop reads what was taken, without the delay. */
#include "dmsr.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
	QUEUE_BYTES = 8 << 20,          /* taken and not applied: beyond, AGAIN */
	QUEUE_BATCHES = 4096,
	SLICE_US = 1000,
	SLICE_LOOK = 64,                /* changes between two looks at the clock */
};

enum state { NULL_NEW, NULL_READY, NULL_STOPPING, NULL_STOPPED, NULL_DEAD, NULL_STATES };
static const char *const state_names[NULL_STATES] = { "new", "ready", "stopping", "stopped", "dead" };
static const bool allowed[NULL_STATES][NULL_STATES] = {
	[NULL_NEW] = { [NULL_READY] = true, [NULL_STOPPED] = true },
	[NULL_READY] = { [NULL_STOPPING] = true, [NULL_DEAD] = true },
	[NULL_STOPPING] = { [NULL_STOPPED] = true, [NULL_DEAD] = true },
};

struct item {
	struct item *next;
	const struct batch *batch;
	uint64_t token;
};

struct null {
	struct dmsr_target_host host;
	enum state state;
	bool has_told_ready, has_told_end;
	bool is_in_task, is_closed;     /* closed by a callback: freed when it returns */
	bool said_again;
	bool has_waited;                /* the delay of the first item is over */
	int64_t delay_ms;
	const struct dmsr_codec *codec;
	struct dmsr_instance *encoder;  /* NULL: nothing is encoded */
	struct loop_task *task;
	struct loop_timer *timer;
	struct item *head, *tail;
	const struct change *at;        /* of the first item: the next change; NULL: not begun, or all were read */
	bool is_begun;                  /* of the first item */
	size_t nitems;
	struct dmsr_table_counts *counts; /* of the first item, a table each */
	size_t ncounts, capcounts;
	struct map *places;             /* relation -> its place in counts + 1 */
	const struct relation *last_rel;
	size_t last_place;
	struct dmsr_target_stat stat;
	struct err error;
};

static struct null *of(struct dmsr_instance *i) { return (struct null *)(void *)i; }

static void set_state(struct null *t, enum state to, const char *why)
{
	assert(allowed[t->state][to]);
	log_debug("target", t->host.env.job, "%s: %s -> %s: %s", t->host.env.name, state_names[t->state], state_names[to], why);
	t->state = to;
}

static bool is_working(const struct null *t) { return t->state == NULL_READY || t->state == NULL_STOPPING; }

/* ---- counts ---- */

static struct dmsr_table_counts *counts_of(struct null *t, const struct relation *rel)
{
	if (rel == t->last_rel)
		return &t->counts[t->last_place];
	uintptr_t place = (uintptr_t)map_get(t->places, &rel, sizeof rel);
	if (!place) {
		if (t->ncounts == t->capcounts) {
			t->capcounts = t->capcounts ? 2 * t->capcounts : 8;
			t->counts = mem_realloc_array(t->counts, t->capcounts, sizeof *t->counts);
		}
		t->counts[t->ncounts] = (struct dmsr_table_counts){ .schema = rel->schema, .name = rel->name };
		place = ++t->ncounts;
		map_put(t->places, &rel, sizeof rel, (void *)place);
	}
	t->last_rel = rel;
	t->last_place = place - 1;
	return &t->counts[t->last_place];
}

static void forget_counts(struct null *t)
{
	map_free(t->places);
	t->places = map_new();
	t->ncounts = 0;
	t->last_rel = NULL;
}

static void count(struct null *t, const struct change *ch)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE:
		counts_of(t, ch->rel)->created++;
		break;
	case OP_UPDATE:
		counts_of(t, ch->rel)->updated++;
		break;
	case OP_DELETE:
		counts_of(t, ch->rel)->deleted++;
		break;
	case OP_READ:
		counts_of(t, ch->rel)->loaded++;
		break;
	case OP_ROWS:
		counts_of(t, ch->rel)->loaded += ch->u.rows.rows;
		t->stat.rows_applied += ch->u.rows.rows;
		return;
	case OP_TRUNCATE:
		counts_of(t, ch->rel)->truncated++;
		return;
	case OP_SCHEMA:
		if (ch->u.schema.old && !relation_is_same(ch->u.schema.old, ch->rel))
			counts_of(t, ch->rel)->ddl++;
		return;
	case OP_LOAD_BEGIN: case OP_LOAD_END:
		counts_of(t, ch->rel); /* so that an empty table is told of too */
		return;
	case OP_COMMIT:
		t->stat.transactions++;
		t->stat.last_commit_us = ch->txn->commit_us;
		return;
	case OP_BEGIN: case OP_MESSAGE: case OP_HEARTBEAT: case OP_LOAD_PART: case OP_LOAD_DONE:
		return;
	}
	t->stat.rows_applied++;
}

/* ---- one change ---- */

struct encoding {
	struct null *t;
	struct err *e;
};

static int encode(void *arg, const struct change *ch)
{
	struct encoding *en = arg;
	struct dmsr_record records[DMSR_RECORDS_MAX];
	int n = en->t->codec->encode(en->t->encoder, ch, records, DMSR_RECORDS_MAX, en->e);
	return n < 0 ? n : 0;
}

static int read_change(struct null *t, const struct change *ch, struct err *e)
{
	struct encoding en = { t, e };
	int rc = 0;
	if (t->encoder)
		rc = ch->op == OP_ROWS ? change_each_row(ch, encode, &en, e) : encode(&en, ch);
	if (!rc)
		count(t, ch);
	return rc;
}

/* ---- the queue ---- */

static void take_room(struct null *t)
{
	if (!t->said_again || t->stat.queued_bytes > QUEUE_BYTES / 2 || t->nitems > QUEUE_BATCHES / 2 || t->state != NULL_READY)
		return;
	t->said_again = false;
	t->host.resume(t->host.ctx);
}

static void finish_item(struct null *t)
{
	struct item *it = t->head;
	uint64_t token = it->token;
	t->head = it->next;
	if (!t->head)
		t->tail = NULL;
	t->nitems--;
	t->is_begun = t->has_waited = false;
	t->stat.queued_bytes -= it->batch->bytes;
	t->stat.last_applied_us = wall_now_us();
	if (!position_is_none(&it->batch->end))
		t->stat.applied = it->batch->end;
	free(it);
	t->host.applied(t->host.ctx, token, t->counts, t->ncounts);
	forget_counts(t);
	if (!t->is_closed)
		take_room(t);
}

/* False: not now, the timer runs. */
static bool begin_item(struct null *t)
{
	if (t->delay_ms && !t->has_waited && t->state == NULL_READY) {
		if (!loop_timer_is_running(t->timer))
			loop_timer_start(t->timer, (uint64_t)t->delay_ms);
		return false;
	}
	t->at = t->head->batch->first;
	t->is_begun = true;
	return true;
}

static void die(struct null *t, const struct err *e)
{
	t->error = *e;
	err_prefix(&t->error, "%s", t->host.env.name);
	set_state(t, NULL_DEAD, e->message);
	loop_task_post(t->task);
}

static void advance(struct null *t)
{
	uint64_t began_us = loop_now_us(t->host.env.loop);
	struct err e = { 0 };
	for (unsigned n = 1; t->head && is_working(t) && !t->is_closed; n++) {
		if (!t->is_begun && !begin_item(t))
			return;
		if (!t->at) {
			finish_item(t);
		} else if (read_change(t, t->at, &e)) {
			die(t, &e);
			return;
		} else {
			t->at = t->at->next;
		}
		if (n % SLICE_LOOK == 0 && loop_now_us(t->host.env.loop) - began_us > SLICE_US) {
			loop_task_post(t->task);
			return;
		}
	}
	if (t->state == NULL_STOPPING && !t->is_closed)
		set_state(t, NULL_STOPPED, "asked to");
}

static void tell_end(struct null *t)
{
	if (t->has_told_end || (t->state != NULL_STOPPED && t->state != NULL_DEAD))
		return;
	t->has_told_end = true;
	if (t->state == NULL_DEAD)
		t->host.failed(t->host.ctx, &t->error);
	else
		t->host.stopped(t->host.ctx);
}

static void release(struct null *t)
{
	if (t->encoder)
		t->codec->close(t->encoder);
	loop_task_free(t->task);
	loop_timer_free(t->timer);
	while (t->head) {
		struct item *it = t->head;
		t->head = it->next;
		free(it);
	}
	free(t->counts);
	map_free(t->places);
	free(t);
}

static void on_task(void *arg)
{
	struct null *t = arg;
	t->is_in_task = true;
	if (t->state == NULL_READY && !t->has_told_ready) {
		t->has_told_ready = true;
		t->host.ready(t->host.ctx, &(struct position){ 0 }, false, NULL, 0, false);
	}
	if (!t->is_closed)
		advance(t);
	if (!t->is_closed)
		tell_end(t);
	t->is_in_task = false;
	if (t->is_closed)
		release(t);
}

static void on_timer(void *arg)
{
	struct null *t = arg;
	t->has_waited = true;
	loop_task_post(t->task);
}

/* ---- the verbs of a target ---- */

static const struct dmsr_option options[] = {
	{ "delay", DMSR_OPT_DURATION, 0, "0", NULL, 0, 3600000, "How long each batch waits before it is read: a slow target, for trials." },
	{ "encode", DMSR_OPT_ENUM, DMSR_OPT_CODEC, "none", "none|json|csv", 0, 0,
		"The codec that renders every change before it is forgotten, for benches; its options stand beside it." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

static int open_codec(struct null *t, const struct settings *s, struct err *e)
{
	const char *name = settings_str(s, "encode");
	const struct dmsr_codec_source unknown = { .name = t->host.env.job }, *source = t->host.env.source;
	if (!name || !strcmp(name, "none"))
		return 0;
	t->codec = t->host.env.codec ? t->host.env.codec(t->host.env.codecs, name) : NULL;
	if (!t->codec)
		return err_set(e, DMSR_ENOTFOUND, "option.codec", "%s: there is no codec %s in this build", t->host.env.name, name);
	return t->codec->open(s, source ? source : &unknown, &t->encoder, e);
}

static int null_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	struct null *t = mem_zalloc(sizeof *t);
	t->host = *host;
	t->delay_ms = settings_int(s, "delay");
	t->places = map_new();
	t->task = loop_task_new(host->env.loop, "target", on_task, t);
	t->timer = loop_timer_new(host->env.loop, "target", on_timer, t);
	int rc = open_codec(t, s, e);
	if (rc)
		release(t);
	else
		*out = (struct dmsr_instance *)(void *)t;
	return rc;
}

static void null_start(struct dmsr_instance *i)
{
	struct null *t = of(i);
	set_state(t, NULL_READY, "started");
	loop_task_post(t->task);
}

static enum dmsr_verdict null_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	struct null *t = of(i);
	if (t->state != NULL_READY || t->stat.queued_bytes >= QUEUE_BYTES || t->nitems >= QUEUE_BATCHES) {
		t->said_again = true;
		return DMSR_AGAIN;
	}
	struct item *it = mem_alloc(sizeof *it);
	*it = (struct item){ .batch = b, .token = token };
	if (t->tail)
		t->tail->next = it;
	else
		t->head = it;
	t->tail = it;
	t->nitems++;
	t->stat.queued_bytes += b->bytes;
	loop_task_post(t->task);
	return DMSR_OK;
}

static void null_flush(struct dmsr_instance *i) { (void)i; /* nothing is ever held back */ }
static void null_let_go(struct dmsr_instance *i) { (void)i; }

static void null_stat(struct dmsr_instance *i, struct dmsr_target_stat *out)
{
	const struct null *t = of(i);
	*out = t->stat;
	out->connected = is_working(t);
	out->phase = t->state == NULL_READY ? t->head ? "applying" : "idle" : state_names[t->state];
}

static void null_stop(struct dmsr_instance *i)
{
	struct null *t = of(i);
	if (t->state == NULL_NEW)
		set_state(t, NULL_STOPPED, "asked to");
	else if (t->state == NULL_READY)
		set_state(t, NULL_STOPPING, "asked to");
	loop_task_post(t->task);
}

static void null_close(struct dmsr_instance *i)
{
	struct null *t = of(i);
	t->is_closed = true;
	if (!t->is_in_task)
		release(t);
}

/* ---- a question ---- */

struct probe {
	struct dmsr_probe_host host;
	struct loop_task *task;
};

static void on_checked(void *arg)
{
	struct probe *p = arg;
	const struct dmsr_check ok = { "null.ok", DMSR_CHECK_OK, "null", "This target counts what it gets, and keeps nothing.", NULL, false };
	p->host.checked(p->host.ctx, &ok, 1, NULL);
}

static void on_discovered(void *arg)
{
	struct probe *p = arg;
	p->host.discovered(p->host.ctx, NULL, 0, NULL);
}

static struct dmsr_instance *ask(const struct dmsr_probe_host *host, void (*answer)(void *arg))
{
	struct probe *p = mem_zalloc(sizeof *p);
	p->host = *host;
	p->task = loop_task_new(host->env.loop, "target", answer, p);
	loop_task_post(p->task);
	return (struct dmsr_instance *)(void *)p;
}

static int probe_check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)s;
	(void)tables;
	(void)mode;
	(void)e;
	*out = ask(host, on_checked);
	return 0;
}

static int probe_discover(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)s;
	(void)tables;
	(void)e;
	*out = ask(host, on_discovered);
	return 0;
}

static void probe_close(struct dmsr_instance *i)
{
	struct probe *p = (struct probe *)(void *)i;
	loop_task_free(p->task);
	free(p);
}

static const struct dmsr_target target = {
	.open = null_open,
	.start = null_start,
	.apply = null_apply,
	.flush = null_flush,
	.let_go = null_let_go,
	.stat = null_stat,
	.stop = null_stop,
	.close = null_close,
};
static const struct dmsr_probe probe = { .check = probe_check, .discover = probe_discover, .close = probe_close };

DMSR_PLUGIN(null) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "null",
	.summary = "target: counts what it gets and forgets it",
	.target_options = options,
	.target = &target,
	.target_probe = &probe,
};
