/* target: rows and changes into files, or to stdout.
 *
 * In come lent batches, in order; out go files that appear whole, under names made of positions, and to the host the tokens of what is durable. Where we
 * stand is in a journal beside the files (file_int.h): what it says at the next start is the truth. stdout keeps nothing: what was written is applied, and
 * after a crash some of it comes again.
 *
 *   NEW -> OPENING -> WORKING -> STOPPING -> STOPPED          NEW, OPENING -> STOPPED, asked to
 *   OPENING, WORKING, STOPPING -> DEAD: told by failed(), once
 *
 * This file is the life of an instance, its queue, and the order of work. Nothing here touches a file: that is the worker's. */
#include "file_int.h"
#include <assert.h>
#include <stdlib.h>

enum {
	QUEUE_BYTES = 8 << 20,          /* taken and not read yet: beyond, AGAIN */
	WRITING_BYTES = 16 << 20,       /* given to the disk and not written: beyond, nothing is read */
	SLICE_US = 1000,
	SLICE_LOOK = 32,                /* changes between two looks at the clock */
	BUSY_AGAIN_MS = 100,
	BUSY_US = 10000000,
};

static const struct dmsr_option options[] = {
	{ "path", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0,
		"The directory that the files go to, an absolute path, made when it is missing; \"-\" is the standard output of dmsrd." },
	{ "format", DMSR_OPT_ENUM, DMSR_OPT_CODEC, "json", "json|csv", 0, 0,
		"What the files hold: one JSON record a line, or CSV. The options of that codec go beside it." },
	{ "layout", DMSR_OPT_ENUM, 0, "table", "table|single", 0, 0,
		"A directory for each table, or one row of files for all changes in the order of their commits (not with csv)." },
	{ "roll_bytes", DMSR_OPT_BYTES, 0, "64MiB", NULL, 1024, (int64_t)1 << 40,
		"A file that has this many bytes is ended; all files then appear with the end of the transaction." },
	{ "roll_interval", DMSR_OPT_DURATION, 0, "60s", NULL, 100, 86400000,
		"The longest a change waits until its file appears. When nothing comes any more, files appear after two seconds." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

static const char *const state_names[TARGET_STATES] = { "new", "opening", "working", "stopping", "stopped", "dead" };
static const bool allowed[TARGET_STATES][TARGET_STATES] = {
	[TARGET_NEW] = { [TARGET_OPENING] = true, [TARGET_STOPPED] = true },
	[TARGET_OPENING] = { [TARGET_WORKING] = true, [TARGET_STOPPED] = true, [TARGET_DEAD] = true },
	[TARGET_WORKING] = { [TARGET_STOPPING] = true, [TARGET_DEAD] = true },
	[TARGET_STOPPING] = { [TARGET_STOPPED] = true, [TARGET_DEAD] = true },
};

static void set_state(struct target *t, enum target_state to, const char *why)
{
	assert(allowed[t->state][to]);
	log_debug("target", t->host.env.job, "%s: %s -> %s: %s", t->host.env.name, state_names[t->state], state_names[to], why);
	t->state = to;
}

void file_wake(struct target *t) { loop_task_post(t->task); }

void file_fail(struct target *t, const struct err *e)
{
	if (t->state == TARGET_DEAD || t->state == TARGET_STOPPED)
		return;
	set_state(t, TARGET_DEAD, e->message);
	t->error = *e;
	loop_timer_stop(t->timer);
	file_wake(t);
}

static void stopped(struct target *t, const char *why)
{
	set_state(t, TARGET_STOPPED, why);
	loop_timer_stop(t->timer);
	file_wake(t);
}

static void tell_end(struct target *t)
{
	if (t->told)
		return;
	t->told = true;
	if (t->state == TARGET_STOPPED)
		t->host.stopped(t->host.ctx);
	else
		t->host.failed(t->host.ctx, &t->error);
}

/* ---- the start ---- */

static void say_ready(struct target *t)
{
	const struct journal *j = &t->journal;
	struct dmsr_loaded *loaded = mem_alloc((j->nloads + 1) * sizeof *loaded);

	for (size_t i = 0; i < j->nloads; i++)
		loaded[i] = (struct dmsr_loaded){ j->loads[i].schema, j->loads[i].name, j->loads[i].at };
	set_state(t, TARGET_WORKING, "open");
	t->host.ready(t->host.ctx, &j->at, !t->is_stdout, loaded, j->nloads, j->load_done);
	free(loaded);
}

void file_opened(struct target *t, struct journal *j, bool busy, int rc, const struct err *e)
{
	if (t->state != TARGET_OPENING)
		return;
	if (busy && loop_now_us(t->loop) - t->opening_since_us < BUSY_US) {
		/* Another instance of this job is in the middle of a call: it lets go when that is over. */
		loop_timer_start(t->timer, BUSY_AGAIN_MS);
		return;
	}
	if (rc) {
		file_fail(t, e);
		return;
	}
	t->journal = *j;
	*j = (struct journal){ 0 };
	t->reached = t->journal.at;
	t->is_ready = true;
	file_wake(t);
}

/* ---- the queue ---- */

static void take_room(struct target *t)
{
	if (!t->said_again || t->queued_bytes > QUEUE_BYTES / 2)
		return;
	t->said_again = false;
	t->host.resume(t->host.ctx);
}

static void note_dirty(struct target *t)
{
	if (!t->dirty_since_us && publish_has_work(t))
		t->dirty_since_us = loop_now_us(t->loop);
}

static int reach(struct target *t, const struct position *p)
{
	struct err e = { 0 };

	if (!position_is_none(&t->reached) && !position_is_comparable(&t->reached, p)) {
		err_set(&e, DMSR_EFATAL, "target.server-changed", "the changes are of another server than those that %s has", t->path);
		err_hint(&e, "make a new job, or give this one another path");
		file_fail(t, &e);
		return -1;
	}
	int order = position_is_none(&t->reached) ? 1 : position_compare(p, &t->reached);
	if (order > 0 || (order == 0 && p->flush > t->reached.flush))
		t->reached = *p;
	return 0;
}

/* All changes of the batch at hand were dealt with. */
static void finish_item(struct target *t)
{
	struct item *it = t->cur;
	const struct batch *b = it->batch;

	if (!b->more && !b->is_load && !position_is_none(&b->end) && reach(t, &b->end))
		return;
	t->read_seq = it->seq;
	t->cur = it->next;
	t->at = t->cur ? t->cur->batch->first : NULL;
	t->queued_bytes -= it->bytes;
	t->last_rel = NULL;
	it->batch = NULL;
	note_dirty(t);
	t->host.consumed(t->host.ctx, it->token);
	if (!t->is_closed)
		take_room(t);
}

void file_applied(struct target *t, uint64_t seq, const struct dmsr_table_counts *counts, size_t n)
{
	while (t->head && t->head->seq <= seq && t->head != t->cur && !t->is_closed) {
		struct item *it = t->head;
		bool is_last = !it->next || it->next->seq > seq;
		t->head = it->next;
		if (!t->head)
			t->tail = NULL;
		t->stat.last_applied_us = wall_now_us();
		t->host.applied(t->host.ctx, it->token, is_last ? counts : NULL, is_last ? n : 0);
		free(it);
	}
	if (seq >= t->urgent_seq)
		t->urgent_seq = 0;
	for (size_t i = 0; i < n; i++)
		t->stat.rows_applied += counts[i].loaded + counts[i].created + counts[i].updated + counts[i].deleted + counts[i].truncated;
}

/* ---- the order of work ---- */

static int begin_transaction(struct target *t, const struct batch *b, const struct change *ch)
{
	/* One that does not end here may take long: what came before it should not have to wait. */
	if (b->more && b->last->txn == ch->txn && !t->is_stdout && publish_has_work(t)) {
		if (t->publishing)
			return STEP_WAIT;
		publish_start(t);
	}
	t->tx_since = t->cur->seq;
	return STEP_DONE;
}

static void end_transaction(struct target *t, const struct batch *b, const struct change *ch)
{
	const struct position at = { .kind = POSITION_LSN, .server = b->end.server, .lsn = ch->txn->lsn, .event = POSITION_WHOLE };

	t->tx_since = 0;
	t->stat.transactions++;
	t->stat.last_commit_us = ch->txn->commit_us;
	if (!reach(t, &at))
		note_dirty(t);
}

static enum step one_change(struct target *t)
{
	const struct batch *b = t->cur->batch;
	const struct change *ch = t->at;
	struct err e = { 0 };
	int rc = 0;

	if (!b->is_load)
		parts_void_loads(t, NULL);
	switch ((enum change_op)ch->op) {
	case OP_BEGIN:
		return (enum step)begin_transaction(t, b, ch);
	case OP_COMMIT:
		end_transaction(t, b, ch);
		break;
	case OP_CREATE: case OP_UPDATE: case OP_DELETE: case OP_TRUNCATE: case OP_MESSAGE:
		rc = parts_put(t, ch, &e);
		break;
	case OP_READ: case OP_ROWS:
		rc = parts_put_loaded(t, ch, &e);
		break;
	case OP_LOAD_BEGIN:
		rc = parts_load_begin(t, b, ch, &e);
		break;
	case OP_LOAD_END:
		rc = parts_load_end(t, ch, &e);
		break;
	case OP_LOAD_DONE:
		parts_void_loads(t, NULL);
		t->fresh.load_done = !t->journal.load_done;
		t->has_new_loads = true;
		break;
	case OP_SCHEMA: case OP_HEARTBEAT: case OP_LOAD_PART:
		break;
	}
	if (rc)
		file_fail(t, &e);
	return STEP_DONE;
}

static bool has_slice_left(struct target *t, uint64_t began_us, unsigned *n)
{
	if (++*n % SLICE_LOOK || loop_now_us(t->loop) - began_us < SLICE_US)
		return true;
	file_wake(t);
	return false;
}

static void settle_published(struct target *t)
{
	struct publish *p = t->publishing;

	if (!publish_is_done(p))
		return;
	t->publishing = NULL;
	publish_apply(t, p);
	publish_free(p);
}

/* All up to seq, with what was counted. */
static void settle_up_to(struct target *t, uint64_t seq)
{
	struct dmsr_table_counts *counts;

	if (t->head->seq > seq)
		return;
	size_t n = publish_take_counts(t, &counts);
	file_applied(t, seq, counts, n);
	free(counts);
}

static void settle_stdout(struct target *t)
{
	if (t->writing_bytes || t->lines.len)
		file_applied(t, t->printed_seq, NULL, 0);
	else
		settle_up_to(t, t->read_seq);
}

/* Tells what has been on the disk, or needs none. */
static void settle(struct target *t)
{
	if (t->publishing)
		settle_published(t);
	if (t->is_closed || !file_is_alive(t) || !t->head || t->head == t->cur)
		return;
	if (t->is_stdout)
		settle_stdout(t);
	else if (!t->publishing && !publish_has_work(t))
		settle_up_to(t, publish_covered_seq(t));
}

/* Stopping: nothing is left that could be finished. */
static bool may_leave(const struct target *t)
{
	if (t->cur || t->publishing || t->writing_bytes || t->lines.len)
		return false;
	return t->is_stdout || t->tx_since || !publish_has_work(t);
}

static void wait_for_more(struct target *t)
{
	uint64_t left_us = t->is_stdout ? 0 : publish_due_in(t, loop_now_us(t->loop));

	if (t->is_stdout)
		parts_flush(t);
	if (left_us)
		loop_timer_start_us(t->timer, left_us);
}

/* One thing; false: nothing more is to be done now. */
static bool advance_once(struct target *t)
{
	if (t->cur && !t->at) {
		finish_item(t);
		return true;
	}
	if (publish_is_due(t, loop_now_us(t->loop))) {
		publish_start(t);
		return true;
	}
	if (!t->cur) {
		wait_for_more(t);
		return false;
	}
	if (t->writing_bytes > WRITING_BYTES || one_change(t) == STEP_WAIT)
		return false;
	if (file_is_alive(t))
		t->at = t->at->next;
	return true;
}

static void advance(struct target *t)
{
	uint64_t began_us = loop_now_us(t->loop);
	unsigned n = 0;

	while (file_is_alive(t) && !t->is_closed) {
		settle(t);
		if (t->is_closed || !file_is_alive(t))
			return;
		if (t->state == TARGET_STOPPING && may_leave(t)) {
			stopped(t, "asked to");
			return;
		}
		if (!advance_once(t) || !has_slice_left(t, began_us, &n))
			return;
	}
}

/* ---- life ---- */

static void release(struct target *t)
{
	if (t->publishing && publish_is_done(t->publishing))
		publish_free(t->publishing); /* else it is the worker's */
	worker_free(t->worker, disk_end, t->disk);
	if (!t->worker && t->disk)
		disk_end(t->disk);
	loop_task_free(t->task);
	loop_timer_free(t->timer);
	while (t->head) {
		struct item *it = t->head;
		t->head = it->next;
		free(it);
	}
	parts_fini(t);
	journal_fini(&t->journal);
	journal_fini(&t->fresh);
	if (t->encoder)
		t->codec->close(t->encoder);
	free(t->path);
	free(t->ext);
	free(t);
}

static void on_task(void *arg)
{
	struct target *t = arg;

	t->in_task = true;
	if (t->is_ready && t->state == TARGET_OPENING)
		say_ready(t);
	else if (t->state == TARGET_DEAD || t->state == TARGET_STOPPED)
		tell_end(t);
	if (!t->is_closed)
		advance(t);
	if (!t->is_closed && (t->state == TARGET_DEAD || t->state == TARGET_STOPPED))
		tell_end(t);
	t->in_task = false;
	if (t->is_closed)
		release(t);
}

static void on_timer(void *arg)
{
	struct target *t = arg;

	if (t->state == TARGET_OPENING)
		publish_post_open(t);
	else
		file_wake(t);
}

/* Does the format begin a file with a head? */
static bool find_head(struct target *t)
{
	struct relation_builder *b = relation_build("", "x", "x", 0);
	struct dmsr_record records[DMSR_RECORDS_MAX];
	const struct column c = { .name = "x", .native_type = "text", .typmod = -1, .type = TYPE_TEXT };

	relation_build_column(b, &c);
	struct relation *rel = relation_seal(b, KEY_NONE);
	const struct change word = { .op = OP_SCHEMA, .rel = rel };
	bool has = t->codec->encode(t->encoder, &word, records, DMSR_RECORDS_MAX, NULL) > 0;
	relation_unref(rel);
	return has;
}

static int open_codec(struct target *t, const struct settings *s, struct err *e)
{
	const char *format = settings_str(s, "format");
	const struct dmsr_codec_source unknown = { .name = t->host.env.job };

	t->codec = t->host.env.codec ? t->host.env.codec(t->host.env.codecs, format) : NULL;
	if (!t->codec)
		return err_set(e, DMSR_EINVAL, "target.format", "there is no codec %s here", format);
	if (t->is_single && !strcmp(format, "csv"))
		return err_set(e, DMSR_EINVAL, "target.format", "csv needs layout table: lines of different tables have different columns");
	int rc = t->codec->open(s, t->host.env.source ? t->host.env.source : &unknown, &t->encoder, e);
	if (rc)
		return rc;
	t->has_head = find_head(t);
	t->ext = mem_strdup(!strcmp(format, "json") ? "ndjson" : format);
	return 0;
}

static int check_path(const char *path, struct err *e)
{
	if (!*path)
		return err_set(e, DMSR_EINVAL, "target.path", "path must not be empty");
	if (*path != '/' && strcmp(path, "-") != 0)
		return err_set(e, DMSR_EINVAL, "target.path", "path must be absolute, or \"-\": a daemon has no directory of its own");
	return 0;
}

/* As far as it goes without a disk; NULL: the options say what cannot be. */
static struct target *target_new(const struct settings *s, const struct dmsr_env *env, struct err *e)
{
	struct target *t = mem_zalloc(sizeof *t);

	t->host.env = *env;
	t->loop = env->loop;
	t->path = mem_strdup(settings_str(s, "path"));
	t->is_stdout = !strcmp(t->path, "-");
	for (size_t n = strlen(t->path); n > 1 && t->path[n - 1] == '/'; n--)
		t->path[n - 1] = 0;
	t->is_single = !strcmp(settings_str(s, "layout"), "single");
	t->roll_bytes = (uint64_t)settings_int(s, "roll_bytes");
	t->roll_interval_us = (uint64_t)settings_int(s, "roll_interval") * 1000;
	t->by_name = map_new();
	parts_list_init(&t->closed);
	buf_init(&t->lines, INT32_MAX);
	t->stat.phase = "connecting";
	if (!check_path(t->path, e) && !open_codec(t, s, e))
		return t;
	release(t);
	return NULL;
}

int file_check_options(const struct settings *s, const struct dmsr_env *env, struct err *e)
{
	struct target *t = target_new(s, env, e);
	if (!t)
		return DMSR_EINVAL;
	release(t);
	return 0;
}

static int target_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	struct target *t = target_new(s, &host->env, e);

	if (!t)
		return DMSR_EINVAL;
	t->host = *host;
	t->task = loop_task_new(t->loop, "target", on_task, t);
	t->timer = loop_timer_new(t->loop, "target", on_timer, t);
	t->disk = disk_new(t->path, host->env.uid, host->env.name);
	t->worker = worker_new(t->loop, "target");
	*out = (struct dmsr_instance *)t;
	return 0;
}

static void target_start(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;

	set_state(t, TARGET_OPENING, "started");
	t->opening_since_us = loop_now_us(t->loop);
	if (t->is_stdout) {
		t->is_ready = true;
		file_wake(t);
	} else {
		publish_post_open(t);
	}
}

static enum dmsr_verdict target_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	struct target *t = (struct target *)i;

	if (t->state != TARGET_WORKING || (t->queued_bytes > QUEUE_BYTES && t->cur)) {
		t->said_again = true;
		return DMSR_AGAIN;
	}
	struct item *it = mem_zalloc(sizeof *it);
	*it = (struct item){ .batch = b, .token = token, .bytes = b->bytes, .seq = ++t->seqs };
	if (t->tail)
		t->tail->next = it;
	else
		t->head = it;
	t->tail = it;
	if (!t->cur) {
		t->cur = it;
		t->at = b->first;
	}
	t->queued_bytes += it->bytes;
	t->was_flushed = false;
	t->idle_since_us = 0;
	file_wake(t);
	return DMSR_OK;
}

/* At the first call nothing waits upstream now, and more may come soon: a file for each transaction would be many. Who calls again waits for it. */
static void target_flush(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;

	if (!file_is_alive(t))
		return;
	if (t->was_flushed && t->head)
		t->urgent_seq = t->seqs;
	else
		t->idle_since_us = loop_now_us(t->loop);
	t->was_flushed = true;
	file_wake(t);
}

/* What was read is consumed already. */
static void target_let_go(struct dmsr_instance *i) { (void)i; }

static const char *phase_of(const struct target *t)
{
	switch (t->state) {
	case TARGET_NEW: case TARGET_OPENING:
		return "connecting";
	case TARGET_WORKING: case TARGET_STOPPING:
		break;
	case TARGET_STOPPED: case TARGET_DEAD: case TARGET_STATES:
		return "stopped";
	}
	for (const struct table *tb = t->tables; tb; tb = tb->next)
		if (tb->load.is_open)
			return "loading";
	return t->cur || t->publishing ? "applying" : "idle";
}

static void target_stat(struct dmsr_instance *i, struct dmsr_target_stat *out)
{
	const struct target *t = (struct target *)i;

	*out = t->stat;
	out->applied = t->publishing ? t->published : t->journal.at;
	out->queued_bytes = t->queued_bytes + t->writing_bytes + t->buffered_bytes;
	out->connected = file_is_alive(t);
	out->phase = phase_of(t);
}

static void target_stop(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;

	if (t->state == TARGET_WORKING)
		set_state(t, TARGET_STOPPING, "asked to");
	else if (t->state < TARGET_WORKING)
		stopped(t, "asked to, before it worked");
	file_wake(t);
}

static void target_close(struct dmsr_instance *i)
{
	struct target *t = (struct target *)i;

	if (!t)
		return;
	t->is_closed = true;
	if (!t->in_task)
		release(t);
}

static const struct dmsr_target verbs = {
	.open = target_open,
	.start = target_start,
	.apply = target_apply,
	.flush = target_flush,
	.let_go = target_let_go,
	.stat = target_stat,
	.stop = target_stop,
	.close = target_close,
};

DMSR_PLUGIN(file) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "file",
	.summary = "files in a directory, or stdout: JSON or CSV",
	.target_options = options,
	.target = &verbs,
	.target_probe = &file_probe,
};
