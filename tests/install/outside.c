/* outside: a source and a target that were written elsewhere. It is compiled against the installed headers alone, and uses something of
 * each of them, so that a header or a symbol that is not installed or not exported is missed here. The source has one table, of three rows. */
#include <dmsr/dmsr.h>
#include <dmsr/base/fiber.h>
#include <stdlib.h>

struct outside {
	struct dmsr_target_host host;
	struct arena arena;
	struct buf buf;
	struct map *seen;
	struct loop_task *later;
};

static const struct dmsr_option options[] = {
	{ "greeting", DMSR_OPT_STRING, 0, "hello", NULL, 0, 0, "What it says when it is opened." },
	{ 0 },
};

static void on_later(void *arg)
{
	struct outside *o = arg;
	struct cursor c;
	cursor_init(&c, o->buf.data, o->buf.len);
	log_debug("outside", NULL, "%s %u", fiber_current() ? "in a fiber" : "on the loop", cursor_u8(&c));
}

static int outside_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	const char *greeting = settings_str(s, "greeting");
	if (failpoint("outside.open"))
		return err_retry(e, DMSR_EIO, "outside.failpoint", "told to fail");
	struct outside *o = mem_zalloc(sizeof *o);
	o->host = *host;
	arena_init(&o->arena, 0);
	buf_init(&o->buf, 1024);
	o->seen = map_new();
	buf_printf(&o->buf, "%s %llu", arena_strdup(&o->arena, greeting), (unsigned long long)hash_stable(greeting, 1, 0));
	o->later = loop_task_new(host->env.loop, "outside", on_later, o);
	loop_task_post(o->later);
	*out = (struct dmsr_instance *)o;
	return 0;
}

static void outside_close(struct dmsr_instance *i)
{
	struct outside *o = (struct outside *)i;
	loop_task_free(o->later);
	map_free(o->seen);
	buf_fini(&o->buf);
	arena_fini(&o->arena);
	free(o);
}

static const struct dmsr_target target = { .open = outside_open, .close = outside_close };

/* ---- the source ---- */

static const char rows[] = "1\tone\n2\ttwo\n3\tthree\n";

struct from_outside {
	struct dmsr_source_host host;
	struct relation *rel;
	struct loop_task *task;
	bool is_sent, is_over, is_stopping;
};

static struct batch *all_rows(const struct from_outside *o)
{
	struct batch *b = batch_new();
	b->is_load = true;
	b->received_us = wall_now_us();
	batch_txn(b, &(struct txn){ .lsn = 1 });
	batch_append(b, OP_SCHEMA, o->rel);
	batch_append(b, OP_LOAD_BEGIN, o->rel);
	struct change *ch = batch_append(b, OP_ROWS, o->rel);
	ch->u.rows.len = sizeof rows - 1;
	ch->u.rows.data = arena_dup(&b->arena, rows, ch->u.rows.len);
	ch->u.rows.rows = 3;
	ch->u.rows.format = ROWS_COPY_TEXT;
	b->bytes += ch->u.rows.len;
	b->nrows += ch->u.rows.rows;
	batch_append(b, OP_LOAD_END, o->rel);
	batch_append(b, OP_LOAD_DONE, NULL);
	return b;
}

static void on_task(void *arg)
{
	struct from_outside *o = arg;
	if (!o->is_sent && !o->is_stopping) {
		struct batch *b = all_rows(o);
		o->is_sent = o->host.emit(o->host.ctx, b) == DMSR_OK;
		if (!o->is_sent) {
			batch_free(b);
			return;
		}
	}
	if (o->is_over)
		return;
	o->is_over = true;
	(o->is_stopping ? o->host.stopped : o->host.finished)(o->host.ctx);
}

static int source_open(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_source_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)s, (void)tables, (void)e;
	const struct column id = { .name = "id", .native_type = "bigint", .typmod = -1, .key_pos = 1, .type = TYPE_INT64 };
	const struct column name = { .name = "name", .native_type = "text", .typmod = -1, .type = TYPE_TEXT, .flags = COLUMN_NULLABLE };
	struct relation_builder *b = relation_build("outside", "public", "numbers", 1);
	relation_build_column(b, &id);
	relation_build_column(b, &name);
	struct from_outside *o = mem_zalloc(sizeof *o);
	o->host = *host;
	o->rel = relation_seal(b, KEY_PRIMARY);
	o->task = loop_task_new(host->env.loop, "outside", on_task, o);
	*out = (struct dmsr_instance *)o;
	return 0;
}

static void source_start(struct dmsr_instance *i, const struct dmsr_source_start *start)
{
	struct from_outside *o = (struct from_outside *)i;
	o->is_sent = start->load_done;
	loop_task_post(o->task);
}

static void source_pause(struct dmsr_instance *i) { (void)i; }
static void source_resume(struct dmsr_instance *i) { loop_task_post(((struct from_outside *)i)->task); }
static void source_confirm(struct dmsr_instance *i, const struct position *p) { (void)i, (void)p; }

static void source_stat(struct dmsr_instance *i, struct dmsr_source_stat *out)
{
	*out = (struct dmsr_source_stat){ .lag_bytes = -1, .retained_bytes = -1, .safe_bytes = -1, .connected = true };
	out->phase = ((struct from_outside *)i)->is_sent ? "streaming" : "loading";
}

static void source_stop(struct dmsr_instance *i)
{
	struct from_outside *o = (struct from_outside *)i;
	o->is_stopping = true;
	o->is_over = false;
	loop_task_post(o->task);
}

static void source_close(struct dmsr_instance *i)
{
	struct from_outside *o = (struct from_outside *)i;
	loop_task_free(o->task);
	relation_unref(o->rel);
	free(o);
}

static const struct dmsr_source source = {
	.open = source_open,
	.start = source_start,
	.pause = source_pause,
	.resume = source_resume,
	.confirm = source_confirm,
	.stat = source_stat,
	.stop = source_stop,
	.close = source_close,
};
static const struct dmsr_option none[] = { { 0 } };

DMSR_PLUGIN(outside) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "outside",
	.summary = "a source and a target that were written elsewhere",
	.source_options = none,
	.source = &source,
	.target_options = options,
	.target = &target,
};
