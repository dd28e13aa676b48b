/* feed: gives scripted batches to a target and writes down what the target says. For tests of targets against real servers: the test writes the script, this
 * program is killed (DMSR_FAILPOINT) or not, and the database tells the rest.
 *
 *   feed OPTIONS < SCRIPT        OPTIONS: the target's settings as a JSON object, and "uid", "job" of the job
 *
 * The script is one JSON object a line:
 *   {"rel": NAME, "schema", "name", "id", "key": "primary|unique|full|none", "columns": [{"name", "oid", "typmod", "native", "key", "nullable", "generated",
 *      "identity": "a|d", "dflt", "collation"}], "ddl": [[phase, kind, name, sql]]}        makes a relation, known as NAME from then on
 *   {"catalog": OPTIONS, "tables": [PATTERN, ...]}        relations as a real source's catalogs tell them, known as SCHEMA.NAME
 *   {"begin": LSN, "us": N}  {"commit": true}
 *   {"c"|"u"|"d"|"r": NAME, "before": [...], "after": [...]}        a value: text, null, {"hex": binary}, {"fill": bytes}, {} for unchanged
 *   {"t": NAME, "cascade", "restart", "more"}  {"schema": NAME, "old": NAME}  {"heartbeat": true}
 *   {"load": NAME, "lsn": N, "parts": N, "since": N, "moves": bool}  {"rows": NAME, "text": ...|"hex": ..., "n": rows}  {"part": NAME}
 *   {"end": NAME, "since": N}  {"done": true}
 *      in a batch of its own each of them has an "lsn"
 *   {"emit": {"end": [lsn, event (-1: whole), flush], "more": bool, "part": N}}        hands the changes since the last emit over as a batch
 *   {"flush": true}  {"let_go": true}  {"wait": "applied"|"consumed"}  {"sleep": ms}  {"close": true}
 * It ends with stop(), or at failed() with status 1. Tokens count from 1. Output: ready, applied, consumed, again, dead, failed, stopped. */
#include "connectors/postgres/catalog.h"
#include "connectors/postgres/target.h"
#include "connectors/postgres/types.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { SERVER = 7, LINE_MAX_BYTES = 64 << 20 };

struct lent {
	struct lent *next;
	struct batch *b;
	uint64_t token;
	bool is_consumed, is_applied;
};

struct feed {
	struct loop *loop;
	struct loop_task *task;
	struct loop_timer *timer;
	struct settings *settings;
	struct dmsr_instance *target;
	json_t *script;
	size_t line;
	struct map *rels;
	struct batch *b;
	struct lent *lent;
	uint64_t tokens, applied, consumed;
	uint64_t event;         /* of the transaction at hand */
	bool is_ready, is_full, is_sleeping, is_stopping;
	struct pgconn *source;  /* whose catalogs are read */
	struct catalog *catalog;
	struct settings *source_settings;
	struct dmsr_tables tables;
	const char *patterns[16];
	bool is_catalog_read;
	int status;
	void (*dead_done)(void *arg, const struct err *e);
	void *dead_arg;
};

static void die(const char *why, const char *what)
{
	fprintf(stderr, "feed: %s: %s\n", why, what);
	exit(2);
}

/* ---- settings ---- */

static int64_t number(const char *text)
{
	static const struct { const char *unit; int64_t n; } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "KiB", 1024 },
		{ "MiB", 1 << 20 }, { "", 1 } };
	char *end;
	int64_t n = strtoll(text, &end, 10);
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (!strcmp(end, units[i].unit))
			return n * units[i].n;
	die("not a number", text);
	return 0;
}

static void put(struct settings *s, const struct dmsr_option *o, const json_t *given)
{
	const char *text = json_is_string(given) ? json_string_value(given) : o->dflt;
	switch ((enum dmsr_option_type)o->type) {
	case DMSR_OPT_STRING: case DMSR_OPT_ENUM: case DMSR_OPT_LIST:
		settings_put_str(s, o->name, text);
		return;
	case DMSR_OPT_BOOL:
		settings_put_bool(s, o->name, given ? json_is_true(given) : text && !strcmp(text, "true"));
		return;
	case DMSR_OPT_INT: case DMSR_OPT_BYTES: case DMSR_OPT_DURATION:
		settings_put_int(s, o->name, json_is_integer(given) ? json_integer_value(given) : number(text ? text : "0"));
		return;
	}
}

static struct settings *settings_of(json_t *given)
{
	struct settings *s = settings_new();
	for (const struct dmsr_option *o = pgtarget_options; o->name; o++)
		put(s, o, json_object_get(given, o->name));
	return s;
}

/* ---- what the script says ---- */

static const char *text_of(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static int64_t int_of(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }
static bool is_set(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static void add_column(struct relation_builder *rb, const json_t *o)
{
	enum logical_type elem = TYPE_OTHER;
	const char *identity = text_of(o, "identity");
	struct column c = {
		.name = text_of(o, "name"),
		.native_type = text_of(o, "native"),
		.dflt = text_of(o, "dflt"),
		.collation = text_of(o, "collation"),
		.missing = text_of(o, "missing"),
		.source_id = (uint16_t)int_of(o, "number"),
		.type_id = (uint32_t)int_of(o, "oid"),
		.typmod = (int32_t)int_of(o, "typmod"),
		.key_pos = (uint16_t)int_of(o, "key"),
	};
	c.type = (uint8_t)pgtype_builtin(c.type_id, &elem);
	c.elem_type = (uint8_t)elem;
	if (is_set(o, "nullable"))
		c.flags |= COLUMN_NULLABLE;
	if (is_set(o, "generated"))
		c.flags |= COLUMN_GENERATED;
	if (identity)
		c.flags |= identity[0] == 'a' ? COLUMN_IDENTITY_ALWAYS : COLUMN_IDENTITY_DEFAULT;
	relation_build_column(rb, &c);
}

static void make_relation(struct feed *f, const json_t *o)
{
	static const char *const kinds[] = { [KEY_NONE] = "none", [KEY_PRIMARY] = "primary", [KEY_UNIQUE] = "unique", [KEY_FULL] = "full" };
	struct relation_builder *rb = relation_build("postgres", text_of(o, "schema"), text_of(o, "name"), (uint32_t)int_of(o, "id"));
	const char *name = text_of(o, "rel"), *kind = text_of(o, "key");
	unsigned key = KEY_NONE;
	size_t i;
	json_t *e;
	json_array_foreach(json_object_get(o, "columns"), i, e)
		add_column(rb, e);
	json_array_foreach(json_object_get(o, "ddl"), i, e)
		relation_build_ddl(rb, (enum ddl_phase)json_integer_value(json_array_get(e, 0)), json_string_value(json_array_get(e, 1)),
			json_string_value(json_array_get(e, 2)), json_string_value(json_array_get(e, 3)));
	for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
		if (kind && !strcmp(kind, kinds[k]))
			key = k;
	relation_unref(map_put(f->rels, name, strlen(name), relation_seal(rb, (enum key_kind)key)));
}

static struct relation *rel_of(struct feed *f, const json_t *o, const char *key)
{
	const char *name = text_of(o, key);
	struct relation *rel = name ? map_get(f->rels, name, strlen(name)) : NULL;
	if (name && !rel)
		die("no such relation", name);
	return rel;
}

static unsigned digit(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

static const char *unhex(struct batch *b, const char *hex, size_t *n)
{
	*n = strlen(hex) / 2;
	char *out = arena_alloc(&b->arena, *n + 1);
	for (size_t i = 0; i < *n; i++) {
		unsigned byte;
		byte = digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]);
		out[i] = (char)byte;
	}
	return out;
}

static struct value value_of(struct batch *b, const json_t *j)
{
	size_t n;
	if (json_is_null(j))
		return (struct value){ .kind = VALUE_NULL };
	if (json_is_string(j)) {
		n = json_string_length(j);
		return value_text(arena_dup(&b->arena, json_string_value(j), n), (uint32_t)n);
	}
	if (json_object_get(j, "fill")) {
		n = (size_t)int_of(j, "fill");
		char *text = arena_alloc(&b->arena, n + 1);
		memset(text, 'b', n);
		text[n] = 0;
		return value_text(text, (uint32_t)n);
	}
	if (!text_of(j, "hex"))
		return (struct value){ .kind = VALUE_UNCHANGED };
	const char *data = unhex(b, text_of(j, "hex"), &n);
	return (struct value){ data, (uint32_t)n, VALUE_BINARY };
}

static const struct value *values_of(struct batch *b, const struct relation *rel, const json_t *list)
{
	if (!json_is_array(list))
		return NULL;
	if (json_array_size(list) != rel->ncolumns)
		die("wrong number of values", rel->name);
	struct value *v = batch_values(b, rel->ncolumns);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		v[i] = value_of(b, json_array_get(list, i));
		b->bytes += v[i].len;
	}
	return v;
}

static void add_row(struct feed *f, const json_t *o, const char *op)
{
	struct change *ch = batch_append(f->b, (enum change_op)op[0], rel_of(f, o, op));
	ch->event = ++f->event;
	if (op[0] == OP_TRUNCATE) {
		ch->flags = (uint8_t)((is_set(o, "cascade") ? CHANGE_CASCADE : 0) | (is_set(o, "restart") ? CHANGE_RESTART_IDENTITY : 0) |
			(is_set(o, "more") ? CHANGE_GROUP_MORE : 0));
		return;
	}
	ch->u.row.before = values_of(f->b, ch->rel, json_object_get(o, "before"));
	ch->u.row.after = values_of(f->b, ch->rel, json_object_get(o, "after"));
	ch->flags = is_set(o, "key_only") ? CHANGE_KEY_ONLY : 0;
}

static void add_rows(struct feed *f, const json_t *o)
{
	struct change *ch = batch_append(f->b, OP_ROWS, rel_of(f, o, "rows"));
	const char *text = text_of(o, "text");
	if (text) {
		ch->u.rows.format = ROWS_COPY_TEXT;
		ch->u.rows.len = strlen(text);
		ch->u.rows.data = arena_dup(&f->b->arena, text, ch->u.rows.len);
	} else {
		ch->u.rows.format = ROWS_COPY_BINARY;
		ch->u.rows.data = unhex(f->b, text_of(o, "hex"), &ch->u.rows.len);
	}
	ch->u.rows.rows = (uint32_t)int_of(o, "n");
	f->b->bytes += ch->u.rows.len;
}

/* False: not a word of a load. */
static bool add_of_load(struct feed *f, const json_t *o)
{
	static const struct { const char *word; enum change_op op; } words[] = {
		{ "load", OP_LOAD_BEGIN }, { "rows", OP_ROWS }, { "part", OP_LOAD_PART }, { "end", OP_LOAD_END } };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (!text_of(o, words[i].word))
			continue;
		f->b->is_load = true;
		if (json_object_get(o, "lsn"))
			batch_txn(f->b, &(struct txn){ .lsn = (uint64_t)int_of(o, "lsn") });
		if (words[i].op == OP_ROWS)
			add_rows(f, o);
		else
			batch_append(f->b, words[i].op, rel_of(f, o, words[i].word));
		if (words[i].op == OP_LOAD_BEGIN || words[i].op == OP_LOAD_END)
			f->b->last->u.load.since = (uint64_t)int_of(o, "since");
		if (words[i].op == OP_LOAD_BEGIN) {
			f->b->last->u.load.parts = (uint32_t)int_of(o, "parts");
			f->b->last->flags = json_is_true(json_object_get(o, "moves")) ? CHANGE_MOVES : 0;
		}
		return true;
	}
	return false;
}

/* False: not a word that adds a change. */
static bool add_change(struct feed *f, const json_t *o)
{
	static const char *const rows[] = { "c", "u", "d", "r", "t" };
	struct batch *b = f->b;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (json_object_get(o, rows[i])) {
			add_row(f, o, rows[i]);
			return true;
		}
	}
	if (json_object_get(o, "begin")) {
		batch_txn(b, &(struct txn){ .lsn = (uint64_t)int_of(o, "begin"), .commit_us = int_of(o, "us"), .xid = 1 });
		batch_append(b, OP_BEGIN, NULL);
		f->event = 0;
	} else if (json_object_get(o, "again")) { /* the rest of a transaction that an earlier batch began */
		batch_txn(b, &(struct txn){ .lsn = (uint64_t)int_of(o, "again"), .xid = 1 });
	} else if (json_object_get(o, "commit")) {
		batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
	} else if (json_object_get(o, "heartbeat")) {
		batch_append(b, OP_HEARTBEAT, NULL);
	} else if (json_object_get(o, "schema")) {
		struct change *ch = batch_append(b, OP_SCHEMA, rel_of(f, o, "schema"));
		ch->event = f->event;
		ch->u.schema.old = rel_of(f, o, "old");
		if (ch->u.schema.old)
			batch_hold(b, ch->u.schema.old);
	} else if (json_object_get(o, "done")) {
		/* in the stream it may come behind a transaction */
		b->is_load = !b->txn || b->is_load;
		batch_append(b, OP_LOAD_DONE, NULL);
	} else {
		return add_of_load(f, o);
	}
	return true;
}

/* ---- what the target says ---- */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void say_begun(struct feed *f)
{
	const struct dmsr_begun *list;
	size_t n = pgtarget.begun(f->target, &list);
	char text[POSITION_TEXT_MAX];
	for (size_t i = 0; i < n; i++)
		say("begun %s.%s %s %zu", list[i].schema, list[i].name, position_format(&list[i].at, text), list[i].nparts);
}

static void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t n, bool load_done)
{
	struct feed *f = ctx;
	char text[POSITION_TEXT_MAX];
	say("ready %s keeps=%d load_done=%d", position_format(applied, text), keeps, load_done);
	for (size_t i = 0; i < n; i++)
		say("loaded %s.%s %s", loaded[i].schema, loaded[i].name, position_format(&loaded[i].at, text));
	say_begun(f);
	f->is_ready = true;
	loop_task_post(f->task);
}

static void give_back(struct feed *f, uint64_t token, bool is_applied)
{
	for (struct lent *l = f->lent; l; l = l->next) {
		if (l->token > token || (!is_applied && l->is_applied))
			continue;
		l->is_consumed = true;
		l->is_applied |= is_applied;
		/* Whoever still reads it is found by the sanitizer. */
		batch_free(l->b);
		l->b = NULL;
	}
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct feed *f = ctx;
	assert(token == f->applied + 1);
	f->applied = token;
	if (f->consumed < token)
		f->consumed = token;
	give_back(f, token, true);
	say("applied %llu", (unsigned long long)token);
	for (size_t i = 0; i < n; i++)
		say("counts %s.%s loaded=%d c=%d u=%d d=%d t=%d ddl=%d dead=%d", counts[i].schema, counts[i].name, (int)counts[i].loaded,
			(int)counts[i].created, (int)counts[i].updated, (int)counts[i].deleted, (int)counts[i].truncated, (int)counts[i].ddl,
			(int)counts[i].dead);
	loop_task_post(f->task);
}

static void on_consumed(void *ctx, uint64_t token)
{
	struct feed *f = ctx;
	assert(token == f->consumed + 1);
	f->consumed = token;
	give_back(f, token, false);
	say("consumed %llu", (unsigned long long)token);
	loop_task_post(f->task);
}

static void on_resume(void *ctx)
{
	struct feed *f = ctx;
	f->is_full = false;
	loop_task_post(f->task);
}

static void on_dead_letter(void *ctx, const struct dmsr_dead_letter *d, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct feed *f = ctx;
	say("dead %s %s.%s %s", change_op_name((enum change_op)d->change->op), d->change->rel->schema, d->change->rel->name, d->error->id);
	assert(!f->dead_done);
	f->dead_done = done;
	f->dead_arg = arg;
	loop_task_post(f->task);
}

static void on_notice(void *ctx, const char *text)
{
	(void)ctx;
	say("notice %s", text);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct feed *f = ctx;
	say("failed %s retriable=%d %s | %s", e->id, e->retriable, e->message, e->hint);
	f->status = 1;
	loop_stop(f->loop);
}

static void on_stopped(void *ctx)
{
	struct feed *f = ctx;
	say("stopped");
	loop_stop(f->loop);
}

/* ---- a real source's catalogs ---- */

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct feed *f = arg;
	f->catalog = NULL;
	if (e)
		die("catalog", e->message);
	for (size_t i = 0; i < n; i++) {
		char *name = mem_printf("%s.%s", rels[i]->schema, rels[i]->name);
		relation_unref(map_put(f->rels, name, strlen(name), rels[i]));
		free(name);
	}
	free(rels);
	f->is_catalog_read = true;
	loop_task_post(f->task);
}

static void on_source_ready(void *ctx)
{
	struct feed *f = ctx;
	f->catalog = catalog_read(f->source, &f->tables, true, false, on_catalog, f);
}

static void on_source_failed(void *ctx, const struct err *e)
{
	(void)ctx;
	die("source", e->message);
}

/* True: it was read. */
static bool read_catalog(struct feed *f, const json_t *o)
{
	const struct pgconn_owner owner = { .ctx = f, .on_ready = on_source_ready, .on_failed = on_source_failed };
	const struct dmsr_env env = { .loop = f->loop, .job = "feed", .uid = "catalog", .name = "source" };
	size_t i;
	json_t *pattern;
	if (f->is_catalog_read) {
		pgconn_free(f->source);
		settings_free(f->source_settings);
		f->source = NULL;
		f->source_settings = NULL;
		f->is_catalog_read = false;
		return true;
	}
	if (f->source)
		return false;
	json_array_foreach(json_object_get(o, "tables"), i, pattern)
		f->patterns[i % 16] = json_string_value(pattern);
	f->tables = (struct dmsr_tables){ .include = f->patterns, .ninclude = json_array_size(json_object_get(o, "tables")) };
	f->source_settings = settings_of(json_object_get(o, "catalog"));
	f->source = pgconn_new(&env, f->source_settings, PGCONN_SQL, &owner);
	return false;
}

/* ---- one line after another ---- */

static bool emit(struct feed *f, const json_t *o)
{
	const json_t *end = json_object_get(o, "end");
	struct batch *b = f->b;
	if (json_is_array(end)) {
		int64_t event = json_integer_value(json_array_get(end, 1));
		b->end = (struct position){
			.kind = POSITION_LSN,
			.server = SERVER,
			.lsn = (uint64_t)json_integer_value(json_array_get(end, 0)),
			.event = event < 0 ? POSITION_WHOLE : (uint64_t)event,
			.flush = (uint64_t)json_integer_value(json_array_get(end, 2)),
		};
	}
	b->more = is_set(o, "more");
	b->part = (uint32_t)int_of(o, "part");
	enum dmsr_verdict v = pgtarget.apply(f->target, b, f->tokens + 1);
	if (v == DMSR_AGAIN) {
		say("again");
		f->is_full = true;
		return false;
	}
	assert(v == DMSR_OK);
	struct lent *l = mem_zalloc(sizeof *l);
	l->b = b;
	l->token = ++f->tokens;
	l->next = f->lent;
	f->lent = l;
	f->b = batch_new();
	return true;
}

/* True: go on with the next line. */
static bool run_line(struct feed *f, const json_t *o)
{
	const char *wait = text_of(o, "wait");
	if (json_object_get(o, "columns"))
		make_relation(f, o);
	else if (json_object_get(o, "catalog"))
		return read_catalog(f, o);
	else if (add_change(f, o))
		return true;
	else if (json_object_get(o, "emit"))
		return emit(f, json_object_get(o, "emit"));
	else if (wait)
		return (wait[0] == 'a' ? f->applied : f->consumed) == f->tokens;
	else if (json_object_get(o, "flush"))
		pgtarget.flush(f->target);
	else if (json_object_get(o, "let_go"))
		pgtarget.let_go(f->target);
	else if (json_object_get(o, "close"))
		exit((pgtarget.close(f->target), 0));
	else if (json_object_get(o, "sleep") && !f->is_sleeping) {
		f->is_sleeping = true;
		loop_timer_start(f->timer, (uint64_t)int_of(o, "sleep"));
	} else
		die("no such word", json_dumps(o, 0));
	return true;
}

static void on_task(void *arg)
{
	struct feed *f = arg;
	if (f->dead_done) {
		void (*done)(void *, const struct err *) = f->dead_done;
		f->dead_done = NULL;
		done(f->dead_arg, NULL);
	}
	while (f->is_ready && !f->is_full && !f->is_sleeping && f->line < json_array_size(f->script)) {
		if (!run_line(f, json_array_get(f->script, f->line)))
			return;
		f->line++;
	}
	if (f->is_ready && f->line == json_array_size(f->script) && !f->is_sleeping && !f->is_stopping) {
		f->is_stopping = true;
		pgtarget.stop(f->target);
	}
}

static void on_timer(void *arg)
{
	struct feed *f = arg;
	f->is_sleeping = false;
	loop_task_post(f->task);
}

/* ---- main ---- */

static json_t *read_script(FILE *in)
{
	json_t *lines = json_array();
	char *line = NULL;
	size_t cap = 0;
	json_error_t e;
	while (getline(&line, &cap, in) > 0) {
		json_t *o = json_loads(line, 0, &e);
		if (!o)
			die(e.text, line);
		json_array_append_new(lines, o);
	}
	free(line);
	return lines;
}

static void drop_relation(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	relation_unref(value);
}

static void fini(struct feed *f)
{
	pgtarget.close(f->target);
	while (f->lent) {
		struct lent *l = f->lent;
		f->lent = l->next;
		batch_free(l->b);
		free(l);
	}
	batch_free(f->b);
	map_each(f->rels, drop_relation, NULL);
	map_free(f->rels);
	settings_free(f->settings);
	loop_task_free(f->task);
	loop_timer_free(f->timer);
	loop_free(f->loop);
	json_decref(f->script);
}

int main(int argc, char **argv)
{
	struct feed f = { .rels = map_new(), .b = batch_new() };
	json_error_t je;
	struct err e = { 0 };
	failpoint_init();
	json_t *options = argc == 2 ? json_loads(argv[1], 0, &je) : NULL;
	if (!options)
		die("usage", "feed OPTIONS < SCRIPT");
	if (getenv("DMSR_LOG"))
		log_set_level(NULL, (enum log_level)log_level_parse(getenv("DMSR_LOG")));
	f.script = read_script(stdin);
	f.loop = loop_new();
	f.task = loop_task_new(f.loop, "feed", on_task, &f);
	f.timer = loop_timer_new(f.loop, "feed", on_timer, &f);
	f.settings = settings_of(options);
	const char *job = text_of(options, "job"), *uid = text_of(options, "uid");
	const struct dmsr_target_host host = {
		.ctx = &f,
		.env = { .loop = f.loop, .job = job ? job : "feed", .uid = uid ? uid : "01hzfeedfeedfeedfeedfeedfe", .name = "target" },
		.ready = on_ready,
		.applied = on_applied,
		.consumed = on_consumed,
		.resume = on_resume,
		.dead_letter = on_dead_letter,
		.notice = on_notice,
		.failed = on_failed,
		.stopped = on_stopped,
	};
	if (pgtarget.open(f.settings, &host, &f.target, &e))
		die(e.id, e.message);
	pgtarget.start(f.target);
	loop_run(f.loop);
	fini(&f);
	json_decref(options);
	return f.status;
}
