/* pg_source_dump: runs the PostgreSQL source against a real server without the engine, and prints what it emits, a line a change. A small host stands in
 * for the engine: it takes each batch, calls it durable at once, and keeps notes, loads and position in a file, so that a second run goes on where the first
 * was killed.
 *
 * usage: pg_source_dump STATE [option=value ...] [table=PATTERN ...] [exclude=PATTERN ...] [mode=full-load|cdc|full-load-and-cdc] [seconds=N]
 *                       [out=FILE] [quiet=1] [slow_ms=N] [pause_ms=N] [stats=1] [debug=1] [json=1] [ends_first=1] [resolv=FILE]
 *
 * It ends by itself after `seconds` without a change, on SIGTERM, or when the source says finished or failed (exit 1). out: the changes as JSON, an array
 * a line, [op, schema, table, before, after], a value being a text, null or {} (not sent); the state holds how much of that file counts, so a run that
 * is killed between two batches leaves nothing behind that is not taken up again. json: each row goes through codec json, and what is printed is what was
 * read back. slow_ms: the host is full for that long after each batch; pause_ms: after
 * the first batch the source is paused for that long. resolv: as /etc/resolv.conf. The last lines on stderr tell whether the loop was held: a 10 ms
 * timer looks. */
#include "base/loop_internal.h"
#include "base/worker.h"
#include "pg_args.h"
#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const struct dmsr_plugin *const plugin = &dmsr_plugin_postgres;
extern const struct dmsr_plugin dmsr_plugin_json;

struct note { char *key, *value; };
struct put { void (*done)(void *arg, const struct err *e); void *arg; };

static struct loop *loop;
static struct dmsr_instance *source, *codec;
static struct loop_timer *idle, *slow, *stat_timer, *tick;
static struct loop_task *answer, *pause_task;
static FILE *out;
static const char *out_path;
static long offset;
static uint64_t nticks, most_slept, most_work_us, ntorn;
static const char *state_path;
static struct note notes[1000];
static size_t nnotes;
static struct put pending[16];
static size_t npending;
static struct dmsr_loaded loaded[10000];
static size_t nloaded;
static struct position position;
static bool load_done, quiet, failed, full, is_paused;
static int64_t seconds = 3, slow_ms, pause_ms;
static uint64_t rows;

static void save(void)
{
	char tmp[4096], text[POSITION_TEXT_MAX];
	snprintf(tmp, sizeof tmp, "%s.new", state_path);
	FILE *f = fopen(tmp, "w");
	for (size_t i = 0; i < nnotes; i++)
		if (strncmp(notes[i].key, "cut ", 4) != 0) /* no part is ever there in the next run; and they have lines of their own */
			fprintf(f, "note\t%s\t%s\n", notes[i].key, notes[i].value);
	for (size_t i = 0; i < nloaded; i++)
		fprintf(f, "loaded\t%s\t%s\t%s\n", loaded[i].schema, loaded[i].name, position_format(&loaded[i].at, text));
	if (position.kind)
		fprintf(f, "position\t%s\n", position_format(&position, text));
	if (load_done)
		fprintf(f, "done\n");
	fprintf(f, "out\t%ld\n", offset);
	fclose(f);
	rename(tmp, state_path);
}

static void load_state(void)
{
	char line[8192];
	struct err e = { 0 };
	FILE *f = fopen(state_path, "r");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		char *rest = line, *what = strsep(&rest, "\t");
		if (!strcmp(what, "note")) {
			char *key = strsep(&rest, "\t");
			notes[nnotes++] = (struct note){ mem_strdup(key), mem_strdup(rest) };
		} else if (!strcmp(what, "loaded")) {
			char *schema = strsep(&rest, "\t"), *name = strsep(&rest, "\t");
			loaded[nloaded] = (struct dmsr_loaded){ mem_strdup(schema), mem_strdup(name), { 0 } };
			position_parse(rest, &loaded[nloaded++].at, &e);
		} else if (!strcmp(what, "position")) {
			position_parse(rest, &position, &e);
		} else if (!strcmp(what, "out")) {
			offset = strtol(rest, NULL, 10);
		} else {
			load_done = true;
		}
	}
	if (f)
		fclose(f);
}

static json_t *value_json(const struct column *c, const struct value *v)
{
	if (v->kind == VALUE_NULL)
		return json_null();
	if (v->kind == VALUE_UNCHANGED)
		return json_object();
	if (v->kind == VALUE_TEXT)
		return json_stringn(v->data, v->len);
	struct buf text;
	struct err e = { 0 };
	buf_init(&text, 1 << 30);
	if (value_to_text(v, c->type, c->elem_type, &text, &e))
		buf_printf(&text, "! %s", e.message);
	json_t *j = json_stringn(text.data ? text.data : "", text.len);
	buf_fini(&text);
	return j;
}

static json_t *row_json(const struct relation *rel, const struct value *v)
{
	if (!v)
		return json_null();
	json_t *row = json_object();
	for (unsigned i = 0; i < rel->ncolumns; i++)
		json_object_set_new(row, rel->columns[i].name, value_json(&rel->columns[i], &v[i]));
	return row;
}

static void put_line(const struct change *ch)
{
	bool is_row = change_is_row(ch);
	char op[2] = { (char)ch->op, 0 };
	json_t *line = json_array();
	json_array_append_new(line, json_string(op));
	json_array_append_new(line, ch->rel ? json_string(ch->rel->schema) : json_null());
	json_array_append_new(line, ch->rel ? json_string(ch->rel->name) : json_null());
	json_array_append_new(line, is_row ? row_json(ch->rel, ch->u.row.before) : json_null());
	json_array_append_new(line, is_row ? row_json(ch->rel, ch->u.row.after) : json_null());
	if (ch->op == OP_MESSAGE)
		json_array_append_new(line, json_stringn(ch->u.message.data, ch->u.message.len));
	else if (ch->op == OP_TRUNCATE)
		json_array_append_new(line, json_integer(ch->flags));
	else if (ch->op == OP_LOAD_BEGIN)
		json_array_append_new(line, json_integer(ch->u.load.parts));
	char *text = json_dumps(line, JSON_COMPACT);
	fprintf(out, "%s\n", text);
	free(text);
	json_decref(line);
}

/* What is not as it was, but for a value that was not sent and that the old row had, ends the run. */
static void put_through_codec(const struct change *ch)
{
	struct err e = { 0 };
	struct dmsr_record r;
	struct batch *b = batch_new();
	if (dmsr_plugin_json.codec->encode(codec, ch, &r, 1, &e) != 1 || dmsr_plugin_json.codec->decode(codec, r.value, r.value_len, ch->rel, b, &e)) {
		fprintf(stderr, "failed: %s: %s\n", e.id, e.message);
		_exit(1);
	}
	if (b->last->op != ch->op || b->last->flags != ch->flags) {
		fprintf(stderr, "failed: %s.%s: %c with flags %d came back as %c with %d\n", ch->rel->schema, ch->rel->name, ch->op, ch->flags, b->last->op,
			b->last->flags);
		_exit(1);
	}
	put_line(b->last);
	batch_free(b);
}

static int put_row(void *arg, const struct change *ch)
{
	(void)arg;
	if (codec && change_is_row(ch))
		put_through_codec(ch);
	else
		put_line(ch);
	return 0;
}

/* All that counts of the file is in it before the state says so. */
static void put_change(const struct change *ch)
{
	struct err e = { 0 };
	if (ch->op != OP_ROWS)
		put_row(NULL, ch);
	else if (change_each_row(ch, put_row, NULL, &e))
		fprintf(out, "[\"!\",\"%s\"]\n", e.message);
}

static void remember_loaded(const struct change *ch, uint64_t server)
{
	size_t i = 0;
	while (i < nloaded && (strcmp(loaded[i].schema, ch->rel->schema) != 0 || strcmp(loaded[i].name, ch->rel->name) != 0))
		i++;
	if (i == nloaded)
		loaded[nloaded++] = (struct dmsr_loaded){ mem_strdup(ch->rel->schema), mem_strdup(ch->rel->name), { 0 } };
	loaded[i].at = (struct position){ .kind = POSITION_LSN, .server = server, .lsn = ch->txn->lsn, .flush = ch->txn->lsn };
}

static enum dmsr_verdict emit(void *ctx, struct batch *b)
{
	(void)ctx;
	if (full)
		return DMSR_AGAIN;
	for (const struct change *ch = b->first; ch; ch = ch->next) {
		if (!quiet)
			put_change(ch);
		if (ch->op == OP_LOAD_END)
			remember_loaded(ch, b->end.server);
		load_done |= ch->op == OP_LOAD_DONE;
	}
	rows += b->nrows;
	ntorn += b->more;
	if (b->end.kind)
		position = b->end;
	fflush(out);
	offset = out_path ? ftell(out) : 0;
	failpoint("dump.written");
	save();
	failpoint("dump.saved");
	if (pause_ms || slow_ms) {
		full = !pause_ms;
		if (pause_ms)
			loop_task_post(pause_task);
		loop_timer_start(slow, (uint64_t)(pause_ms ? pause_ms : slow_ms));
		pause_ms = 0;
	}
	if (b->end.kind)
		plugin->source->confirm(source, &position);
	if (b->nrows)
		loop_timer_start(idle, (uint64_t)seconds * 1000);
	batch_free(b);
	return DMSR_OK;
}

static void on_pause(void *arg)
{
	(void)arg;
	fprintf(stderr, "paused\n");
	is_paused = true;
	plugin->source->pause(source);
}

/* Looks every 10 ms at what was done since, by measures that do not change when others keep the machine busy: how much the loop's thread has computed, and
 * how often it went to sleep. Its own waiting for events is a sleep a callback at most; whoever waits inside of a callback sleeps more often. */
static void on_tick(void *arg)
{
	static uint64_t worked_us, slept, called;
	struct rusage use;
	struct timespec cpu;
	struct loop_slices slices;
	(void)arg;
	getrusage(RUSAGE_THREAD, &use);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	loop_slices(loop, &slices);
	uint64_t now_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000, now_slept = (uint64_t)use.ru_nvcsw;
	uint64_t sleeps = now_slept - slept, calls = slices.n - called;
	if (nticks++) {
		most_work_us = now_us - worked_us > most_work_us ? now_us - worked_us : most_work_us;
		most_slept = sleeps > calls && sleeps - calls > most_slept ? sleeps - calls : most_slept;
	}
	worked_us = now_us;
	slept = now_slept;
	called = slices.n;
	loop_timer_start(tick, 10);
}

static void on_slow(void *arg)
{
	(void)arg;
	if (is_paused)
		fprintf(stderr, "resumed\n");
	full = is_paused = false;
	plugin->source->resume(source);
}

static void progress(void *ctx, const struct dmsr_load_progress *p)
{
	(void)ctx;
	if (p->rows < 0)
		fprintf(stderr, "to load %s.%s: %" PRId64 " rows\n", p->schema, p->name, p->rows_total);
	if (p->done)
		fprintf(stderr, "loaded %s.%s: %" PRId64 " rows of %" PRId64 ", %" PRId64 " bytes\n", p->schema, p->name, p->rows, p->rows_total, p->bytes);
}

static void on_answer(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < npending; i++)
		pending[i].done(pending[i].arg, NULL);
	npending = 0;
}

static void note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	size_t i = 0;
	(void)ctx;
	while (i < nnotes && strcmp(notes[i].key, key) != 0)
		i++;
	if (i == nnotes)
		notes[nnotes++] = (struct note){ mem_strdup(key), NULL };
	free(notes[i].value);
	notes[i].value = mem_strdup(value);
	save();
	pending[npending++] = (struct put){ done, arg };
	loop_task_post(answer);
}

static const char *note_get(void *ctx, const char *key)
{
	(void)ctx;
	for (size_t i = 0; i < nnotes; i++)
		if (!strcmp(notes[i].key, key))
			return notes[i].value;
	return NULL;
}

static void on_notice(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "warning: %s\n", text);
}

static void on_load_begins(void *ctx) { (void)ctx; }

static void on_finished(void *ctx)
{
	(void)ctx;
	fprintf(stderr, "finished, %" PRIu64 " rows\n", rows);
	loop_stop(loop);
}

static void on_failed(void *ctx, const struct err *e)
{
	(void)ctx;
	fprintf(stderr, "failed: %s%s: %s (%s)\n", e->id, e->retriable ? ", retriable" : "", e->message, e->hint);
	failed = true;
	loop_stop(loop);
}

static void on_stopped(void *ctx)
{
	(void)ctx;
	fprintf(stderr, "stopped, %" PRIu64 " rows\n", rows);
	loop_stop(loop);
}

static void on_idle(void *arg)
{
	(void)arg;
	plugin->source->stop(source);
}

static void on_signal(void *arg, int signo)
{
	(void)arg;
	(void)signo;
	plugin->source->stop(source);
}

static void on_stat(void *arg)
{
	struct dmsr_source_stat st;
	(void)arg;
	plugin->source->stat(source, &st);
	fprintf(stderr, "%s%s lag %" PRId64 " retained %" PRId64 " safe %" PRId64 " slot %s %s spool %" PRIu64 "\n",
		st.phase, st.paused ? " paused" : "", st.lag_bytes,
		st.retained_bytes, st.safe_bytes, st.slot ? st.slot : "-", st.slot_status ? st.slot_status : "-", st.spool_bytes);
	loop_timer_start(stat_timer, 1000);
}

static void open_codec(void)
{
	static const struct dmsr_codec_source from = { "postgres", "dump", NULL, 0 };
	json_t *none = json_object();
	struct settings *s = pg_arg_settings(dmsr_plugin_json.codec_options, none);
	if (!s || dmsr_plugin_json.codec->open(s, &from, &codec, NULL))
		_exit(2);
	settings_free(s);
}

static void open_out(void)
{
	out = out_path ? fopen(out_path, "a") : stdout;
	if (!out || (out_path && (ftruncate(fileno(out), offset) || fseek(out, 0, SEEK_END)))) {
		perror(out_path);
		_exit(2);
	}
}

int main(int argc, char **argv)
{
	static const char *patterns[64], *excludes[64];
	struct dmsr_tables tables = { .include = patterns, .exclude = excludes };
	enum dmsr_mode mode = DMSR_FULL_LOAD_AND_CDC;
	json_t *given = json_object();
	struct err e = { 0 };
	bool stats = false, ends_first = false;
	if (argc < 2)
		return 2;
	failpoint_init();
	state_path = argv[1];
	for (int i = 2; i < argc; i++) {
		const struct dmsr_option *o;
		char *v = strchr(argv[i], '=');
		if (!v)
			return 2;
		*v++ = 0;
		if (!strcmp(argv[i], "table"))
			patterns[tables.ninclude++] = v;
		else if (!strcmp(argv[i], "mode"))
			mode = pg_arg_mode(v);
		else if (!strcmp(argv[i], "seconds"))
			seconds = strtoll(v, NULL, 10);
		else if (!strcmp(argv[i], "quiet"))
			quiet = true;
		else if (!strcmp(argv[i], "json"))
			open_codec();
		else if (!strcmp(argv[i], "stats"))
			stats = true;
		else if (!strcmp(argv[i], "ends_first"))
			ends_first = true;
		else if (!strcmp(argv[i], "slow_ms"))
			slow_ms = strtoll(v, NULL, 10);
		else if (!strcmp(argv[i], "pause_ms"))
			pause_ms = strtoll(v, NULL, 10);
		else if (!strcmp(argv[i], "resolv"))
			loop_resolve_conf = v;
		else if (!strcmp(argv[i], "out"))
			out_path = v;
		else if (!strcmp(argv[i], "exclude"))
			excludes[tables.nexclude++] = v;
		else if (!strcmp(argv[i], "debug"))
			log_set_level(NULL, LOG_LEVEL_DEBUG);
		else if ((o = options_find(plugin->source_options, argv[i])))
			json_object_set_new(given, o->name, pg_arg_json(o, v));
		else
			return 2;
	}
	struct settings *s = pg_arg_settings(plugin->source_options, given);
	if (!s)
		return 2;
	load_state();
	open_out();
	loop = loop_new();
	char scratch[] = "/tmp/pg_source_dump.XXXXXX";
	const struct dmsr_source_host host = {
		.env = { .loop = loop, .job = "dump", .uid = "01aaaaaaaaaaaaaaaa12345678", .name = "source", .scratch = mkdtemp(scratch)},
		.emit = emit,
		.progress = progress,
		.note_put = note_put,
		.note_get = note_get,
		.notice = on_notice,
		.load_begins = on_load_begins,
		.finished = on_finished,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	answer = loop_task_new(loop, "dump", on_answer, NULL);
	pause_task = loop_task_new(loop, "dump", on_pause, NULL);
	tick = loop_timer_new(loop, "dump", on_tick, NULL);
	loop_timer_start(tick, 10);
	idle = loop_timer_new(loop, "dump", on_idle, NULL);
	slow = loop_timer_new(loop, "dump", on_slow, NULL);
	stat_timer = loop_timer_new(loop, "dump", on_stat, NULL);
	struct loop_signal *sig = loop_signal_new(loop, SIGTERM, on_signal, NULL);
	if (plugin->source->open(s, &tables, &host, &source, &e)) {
		fprintf(stderr, "%s: %s\n", e.id, e.message);
		return 2;
	}
	settings_free(s);
	const struct dmsr_source_start start = {
		.mode = mode,
		.from = position,
		.loaded = loaded,
		.nloaded = nloaded,
		.load_done = load_done,
		.ends_first = ends_first,
	};
	plugin->source->start(source, &start);
	loop_timer_start(idle, (uint64_t)seconds * 1000);
	if (stats)
		loop_timer_start(stat_timer, 1000);
	loop_run(loop);
	plugin->source->close(source);
	struct loop_slices sl;
	loop_slices(loop, &sl);
	fprintf(stderr, "longest slice %" PRIu64 " us in %s, %" PRIu64 " slices\n", sl.max_us, sl.max_room ? sl.max_room : "-", sl.n);
	fprintf(stderr, "%" PRIu64 " ticks of 10 ms; between two at most %" PRIu64 " sleeps of others than the loop and %" PRIu64 " us of work\n", nticks,
		most_slept, most_work_us);
	fprintf(stderr, "torn: %" PRIu64 " batches ended inside of a transaction\n", ntorn);
	if (out_path)
		fclose(out);
	if (codec)
		dmsr_plugin_json.codec->close(codec);
	loop_task_free(answer);
	loop_task_free(pause_task);
	loop_timer_free(tick);
	loop_timer_free(idle);
	loop_timer_free(slow);
	loop_timer_free(stat_timer);
	loop_signal_free(sig);
	loop_free(loop);
	worker_wait_left(10000);
	rmdir(scratch);
	return failed;
}
