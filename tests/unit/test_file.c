/* test_file: the file target as its host sees it, and as somebody who reads the directory sees it: whole files under names made of positions, each row in them
 * once, whenever the process was killed. */
#include "codec_kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern const struct dmsr_plugin dmsr_plugin_file, dmsr_plugin_json, dmsr_plugin_csv;
static const char uid[] = "0123456789abcdefghijklmnop";

/* ---- the host ---- */

struct host {
	struct loop *loop;
	struct loop_timer *limit;
	struct dmsr_instance *i;
	struct settings *settings;
	struct position at;
	bool is_ready, keeps, load_done, is_stopped, has_failed, wants_stop;
	char loads[512];                /* " schema.name@lsn" */
	struct err error;
	uint64_t applied, consumed, wanted;
	struct dmsr_table_counts counts; /* summed over all tables */
	int resumed;
};

static void on_limit(void *arg)
{
	struct host *h = arg;
	(void)h;
	fail_msg("what was waited for did not come: %d applied, %d wanted", (int)h->applied, (int)h->wanted);
}

static void leave(struct host *h) { loop_stop(h->loop); }

static void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t n, bool load_done)
{
	struct host *h = ctx;
	h->at = *applied;
	h->keeps = keeps;
	h->load_done = load_done;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(h->loads);
		snprintf(h->loads + len, sizeof h->loads - len, " %s.%s@%llu", loaded[i].schema, loaded[i].name, (unsigned long long)loaded[i].at.lsn);
	}
	h->is_ready = true;
	leave(h);
}

static void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
{
	struct host *h = ctx;
	assert_int_equal(token, h->applied + 1);
	assert_true(h->consumed >= token);
	h->applied = token;
	for (size_t i = 0; i < n; i++) {
		h->counts.loaded += counts[i].loaded;
		h->counts.created += counts[i].created;
		h->counts.updated += counts[i].updated;
		h->counts.deleted += counts[i].deleted;
		h->counts.truncated += counts[i].truncated;
	}
	if (h->applied >= h->wanted)
		leave(h);
}

static void on_consumed(void *ctx, uint64_t token)
{
	struct host *h = ctx;
	assert_int_equal(token, h->consumed + 1);
	h->consumed = token;
}

static void on_resume(void *ctx)
{
	struct host *h = ctx;
	h->resumed++;
	leave(h);
}

static void on_failed(void *ctx, const struct err *e)
{
	struct host *h = ctx;
	h->error = *e;
	h->has_failed = true;
	leave(h);
}

static void on_stopped(void *ctx)
{
	struct host *h = ctx;
	h->is_stopped = true;
	leave(h);
}

static const struct dmsr_codec *find_codec(const void *codecs, const char *name)
{
	(void)codecs;
	return !strcmp(name, "json") ? dmsr_plugin_json.codec : !strcmp(name, "csv") ? dmsr_plugin_csv.codec : NULL;
}

static const struct dmsr_target *target(void) { return dmsr_plugin_file.target; }

static void run(struct host *h)
{
	loop_timer_start(h->limit, 20000);
	loop_run(h->loop);
	loop_timer_stop(h->limit);
}

static struct dmsr_target_host host_of(struct host *h)
{
	struct dmsr_target_host t = { .ctx = h, .ready = on_ready, .applied = on_applied, .consumed = on_consumed, .resume = on_resume, .failed = on_failed };
	t.stopped = on_stopped;
	t.env = (struct dmsr_env){ .loop = h->loop, .job = "shop", .uid = uid, .name = "lake", .codec = find_codec };
	return t;
}

static int host_try_open(struct host *h, const char *const *given, struct err *e)
{
	*h = (struct host){ .loop = loop_new(), .settings = settings_new() };
	bool csv = false;
	for (const char *const *g = given; *g; g++)
		csv |= !strcmp(*g, "format=csv");
	kit_settings(h->settings, dmsr_plugin_file.target_options, given);
	kit_settings(h->settings, csv ? dmsr_plugin_csv.codec_options : dmsr_plugin_json.codec_options, given);
	h->limit = loop_timer_new(h->loop, "test", on_limit, h);
	struct dmsr_target_host t = host_of(h);
	return target()->open(h->settings, &t, &h->i, e);
}

static void host_close(struct host *h)
{
	target()->close(h->i);
	loop_timer_free(h->limit);
	loop_free(h->loop);
	settings_free(h->settings);
}

static void host_start(struct host *h, const char *const *given)
{
	assert_int_equal(host_try_open(h, given, NULL), 0);
	target()->start(h->i);
	while (!h->is_ready && !h->has_failed)
		run(h);
}

static void host_stop(struct host *h)
{
	target()->stop(h->i);
	while (!h->is_stopped && !h->has_failed)
		run(h);
	host_close(h);
}

static void apply(struct host *h, const struct batch *b, uint64_t token)
{
	while (target()->apply(h->i, b, token) == DMSR_AGAIN)
		run(h);
}

/* Until the batch with this token is applied, or the target has failed. */
static void wait_applied(struct host *h, uint64_t token)
{
	h->wanted = token;
	while (h->applied < token && !h->has_failed)
		run(h);
}

/* ---- the directory ---- */

static char dir[64];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/dmsr-file-XXXXXX");
	assert_non_null(mkdtemp(dir));
	unsetenv("DMSR_FAILPOINT");
	failpoint_init();
	return 0;
}

static int teardown(void **state)
{
	char command[128];
	(void)state;
	unsetenv("DMSR_FAILPOINT");
	failpoint_init();
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	pid_t pid = fork();
	if (!pid)
		_exit(execl("/bin/sh", "sh", "-c", command, (char *)NULL));
	waitpid(pid, NULL, 0);
	return 0;
}

struct listing {
	struct buf names, text;         /* "dir/file\n" sorted by directory and name; all their bytes in that order */
};

static int not_hidden(const struct dirent *d) { return d->d_name[0] != '.'; }

static void list_into(struct listing *l, const char *path, const char *prefix)
{
	struct dirent **all;
	int n = scandir(path, &all, not_hidden, alphasort);
	for (int i = 0; i < n; i++) {
		char *full = mem_printf("%s/%s", path, all[i]->d_name), *name = mem_printf("%s%s%s", prefix, *prefix ? "/" : "", all[i]->d_name);
		struct stat st;
		assert_int_equal(stat(full, &st), 0);
		if (S_ISDIR(st.st_mode)) {
			list_into(l, full, name);
		} else {
			buf_printf(&l->names, "%s\n", name);
			FILE *f = fopen(full, "r");
			char piece[4096];
			for (size_t got; (got = fread(piece, 1, sizeof piece, f)) > 0;)
				buf_append(&l->text, piece, got);
			fclose(f);
		}
		free(full);
		free(name);
		free(all[i]);
	}
	if (n >= 0)
		free(all);
}

/* Names or bytes of all files, until the next call. */
static struct listing *listing(void)
{
	static struct listing l;
	buf_fini(&l.names);
	buf_fini(&l.text);
	buf_init(&l.names, SIZE_MAX);
	buf_init(&l.text, SIZE_MAX);
	list_into(&l, dir, "");
	return &l;
}
#define assert_names(expected) assert_string_equal(buf_cstr(&listing()->names), expected)
#define assert_text(expected) assert_string_equal(buf_cstr(&listing()->text), expected)

/* Files of ours that are being written. */
static int count_parts(void)
{
	char *own = mem_printf("%s/.dmsr/%s.lake", dir, uid);
	DIR *d = opendir(own);
	int n = 0;
	for (const struct dirent *e; d && (e = readdir(d));)
		n += strstr(e->d_name, ".part") != NULL;
	if (d)
		closedir(d);
	free(own);
	return n;
}

/* ---- what comes ---- */

static struct relation *orders, *odd;

static struct batch *batch_at(void)
{
	struct batch *b = batch_new();
	b->end = (struct position){ .kind = POSITION_LSN, .server = 7 };
	return b;
}

/* A transaction of n rows with ids from `id` on; all of it, or a piece. */
enum { PIECE_BEGIN = 1, PIECE_END = 2, PIECE_WHOLE = 3 };
static void add_rows(struct batch *b, struct relation *rel, uint64_t lsn, uint64_t event, int id, int n, int piece)
{
	const struct txn txn = { .lsn = lsn, .commit_us = 1, .xid = (uint32_t)lsn };
	batch_txn(b, &txn);
	if (piece & PIECE_BEGIN)
		batch_append(b, OP_BEGIN, NULL);
	for (int i = 0; i < n; i++) {
		char text[16];
		struct value *v = batch_values(b, 3);
		int len = snprintf(text, sizeof text, "%d", id + i);
		v[0] = value_text(arena_dup(&b->arena, text, (size_t)len), (uint32_t)len);
		v[1] = value_text("x", 1);
		v[2] = (struct value){ 0 };
		struct change *ch = batch_append(b, OP_CREATE, rel);
		ch->event = event + (uint64_t)i;
		ch->u.row.after = v;
		b->bytes += 20;
	}
	b->more = !(piece & PIECE_END);
	b->end.lsn = lsn;
	b->end.event = b->more ? event + (uint64_t)n - 1 : POSITION_WHOLE;
	b->end.flush = b->more ? 0 : lsn + 8;
	if (piece & PIECE_END)
		batch_append(b, OP_COMMIT, NULL)->event = POSITION_WHOLE;
}

static struct batch *transaction(struct relation *rel, uint64_t lsn, int id, int n)
{
	struct batch *b = batch_at();
	add_rows(b, rel, lsn, 1, id, n, PIECE_WHOLE);
	return b;
}

static struct batch *word(enum change_op op, struct relation *rel, uint64_t lsn)
{
	struct batch *b = batch_new();
	const struct txn txn = { .lsn = lsn };
	b->is_load = true;
	b->end.server = 7;
	batch_txn(b, &txn);
	batch_append(b, op, rel);
	return b;
}

static struct batch *loaded_rows(struct relation *rel, uint64_t lsn, const char *copy)
{
	struct batch *b = word(OP_ROWS, rel, lsn);
	b->last->u.rows.format = ROWS_COPY_TEXT;
	b->last->u.rows.data = arena_strdup(&b->arena, copy);
	b->last->u.rows.len = strlen(copy);
	b->bytes = b->last->u.rows.len;
	return b;
}

static int group_setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	orders = kit_orders("public", "orders");
	odd = kit_orders("../a.b", "x/y \xC3\xA4.z");
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	relation_unref(orders);
	relation_unref(odd);
	return 0;
}

#define FLAT "shape=flat", "meta=false"
#define GIVEN(...) ((const char *const[]){ __VA_ARGS__, NULL })
static char path_option[80];
static const char *path(void)
{
	snprintf(path_option, sizeof path_option, "path=%s", dir);
	return path_option;
}
#define ROW(id) "{\"id\":" #id ",\"name\":\"x\",\"total\":null}\n"

/* ---- tests ---- */

static void publishes_and_remembers(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_true(h.keeps);
	assert_true(position_is_none(&h.at));
	struct batch *b1 = transaction(orders, 0x100, 1, 2), *b2 = transaction(orders, 0x200, 3, 1);
	apply(&h, b1, 1);
	apply(&h, b2, 2);
	wait_applied(&h, 2);
	batch_free(b1);
	batch_free(b2);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000200-0000000001.ndjson\n");
	assert_text(ROW(1) ROW(2) ROW(3));
	assert_int_equal(h.counts.created, 3);
	assert_int_equal(count_parts(), 0);
	struct dmsr_target_stat stat;
	target()->stat(h.i, &stat);
	assert_int_equal(stat.applied.lsn, 0x200);
	assert_int_equal(stat.transactions, 2);
	assert_int_equal(stat.rows_applied, 3);
	assert_string_equal(stat.phase, "idle");
	host_stop(&h);

	/* what it has is passed over, and told applied */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_int_equal(h.at.lsn, 0x200);
	assert_true(h.at.event == POSITION_WHOLE);
	assert_int_equal(h.at.flush, 0x208);
	assert_int_equal(h.at.server, 7);
	b1 = transaction(orders, 0x100, 1, 2);
	b2 = transaction(orders, 0x200, 3, 1);
	struct batch *b3 = transaction(odd, 0x300, 4, 1);
	apply(&h, b1, 1);
	apply(&h, b2, 2);
	wait_applied(&h, 2);
	assert_text(ROW(1) ROW(2) ROW(3));
	apply(&h, b3, 3);
	host_stop(&h); /* a stop publishes what is whole */
	batch_free(b1);
	batch_free(b2);
	batch_free(b3);
	assert_names("%2E%2E%2Fa%2Eb.x%2Fy%20%C3%A4.z/0000000000000300-0000000001-0000000000000300-0000000001.ndjson\n"
		     "public.orders/0000000000000100-0000000001-0000000000000200-0000000001.ndjson\n");
	assert_text(ROW(4) ROW(1) ROW(2) ROW(3));
}

static void rolls_by_size(void **state)
{
	struct host h;
	struct batch *b[30];
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=1h"));
	for (int i = 0; i < 30; i++) {
		b[i] = transaction(orders, 0x100 + (uint64_t)i, i, 10);
		apply(&h, b[i], (uint64_t)i + 1);
	}
	wait_applied(&h, 5); /* full files do not wait for the interval */
	host_stop(&h);
	assert_int_equal(h.applied, 30);
	for (int i = 0; i < 30; i++)
		batch_free(b[i]);
	struct listing *l = listing();
	int files = 0, lines = 0;
	for (size_t i = 0; i < l->names.len; i++)
		files += l->names.data[i] == '\n';
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 300);
	assert_true(files >= 5 && files < 20);
}

/* A big transaction: many files, which appear together, when it has ended. */
static void whole_transactions(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=100ms"));
	struct batch *first = transaction(orders, 0x100, 1, 1), *b[4];
	apply(&h, first, 1);
	for (int i = 0; i < 3; i++) {
		b[i] = batch_at();
		add_rows(b[i], orders, 0x200, 1 + 100 * (uint64_t)i, 100 * (i + 1), 100, i == 0 ? PIECE_BEGIN : 0);
		apply(&h, b[i], 2 + (uint64_t)i);
	}
	wait_applied(&h, 1);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000100-0000000001.ndjson\n");
	assert_text(ROW(1));
	b[3] = batch_at();
	add_rows(b[3], orders, 0x200, 301, 400, 100, PIECE_END);
	apply(&h, b[3], 5);
	wait_applied(&h, 5);
	struct listing *l = listing();
	assert_non_null(strstr(buf_cstr(&l->names), "public.orders/0000000000000200-0000000001-0000000000000200-"));
	int lines = 0;
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 401);
	host_stop(&h);

	/* stopped in the middle: nothing of it, and it comes again */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	assert_int_equal(h.at.lsn, 0x200);
	batch_free(b[0]);
	b[0] = batch_at();
	add_rows(b[0], orders, 0x300, 1, 1000, 100, PIECE_BEGIN);
	apply(&h, b[0], 1);
	host_stop(&h);
	assert_int_equal(h.applied, 0);
	assert_null(strstr(buf_cstr(&listing()->names), "0000000000000300-"));
	for (int i = 0; i < 4; i++)
		batch_free(b[i]);
	batch_free(first);
}

static void loads(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), "format=csv", "roll_bytes=1KiB", "roll_interval=1h"));
	struct batch *b[8] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\ta\t\\N\n2\tb,c\t1.5\n"), word(OP_LOAD_END, orders, 0x80) };
	apply(&h, b[0], 1);
	apply(&h, b[1], 2);
	wait_applied(&h, 0);
	assert_names("");
	apply(&h, b[2], 3);
	wait_applied(&h, 3); /* a table's end does not wait for the interval */
	assert_names("public.orders/0000000000000080-0000000000-load-000001.csv\n");
	assert_text("op,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	assert_int_equal(h.counts.loaded, 2);
	/* begun, cut off, begun anew from another snapshot: of the first nothing stays */
	b[3] = word(OP_LOAD_BEGIN, odd, 0x80);
	b[4] = loaded_rows(odd, 0x80, "7\tlost\t\\N\n");
	apply(&h, b[3], 4);
	apply(&h, b[4], 5);
	host_close(&h);
	for (int i = 0; i < 5; i++)
		batch_free(b[i]);

	host_start(&h, GIVEN(path(), "format=csv", "roll_interval=1h"));
	assert_string_equal(h.loads, " public.orders@128");
	assert_false(h.load_done);
	assert_int_equal(count_parts(), 0);
	struct batch *again[10] = {
		word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\ta\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		word(OP_LOAD_BEGIN, odd, 0x90), loaded_rows(odd, 0x90, "7\tlost\t\\N\n"), word(OP_LOAD_BEGIN, odd, 0x98),
		loaded_rows(odd, 0x98, "8\tkept\t\\N\n"), word(OP_LOAD_END, odd, 0x98), word(OP_LOAD_DONE, NULL, 0x98),
		transaction(odd, 0x97, 9, 1), /* in the loaded rows already */
	};
	for (uint64_t i = 0; i < 10; i++)
		apply(&h, again[i], i + 1);
	wait_applied(&h, 9);
	assert_text("op,id,name,total\nI,8,kept,\nop,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	host_stop(&h);
	assert_int_equal(h.applied, 10);
	assert_text("op,id,name,total\nI,8,kept,\nop,id,name,total\nI,1,a,\nI,2,\"b,c\",1.5\n");
	assert_int_equal(count_parts(), 0);
	for (int i = 0; i < 10; i++)
		batch_free(again[i]);
	host_start(&h, GIVEN(path(), "format=csv"));
	assert_true(h.load_done);
	assert_int_equal(h.at.lsn, 0x97);
	host_stop(&h);
}

/* A file's head is right for all of its lines. */
static void columns_change(void **state)
{
	struct host h;
	(void)state;
	struct relation_builder *rb = relation_build("postgres", "public", "orders", 16384);
	struct column id = kit_column("id", TYPE_INT32, TYPE_OTHER, 1);
	struct column a = kit_column("a", TYPE_TEXT, TYPE_OTHER, 0), z = kit_column("z", TYPE_TEXT, TYPE_OTHER, 0);
	relation_build_column(rb, &id);
	relation_build_column(rb, &a);
	relation_build_column(rb, &z);
	struct relation *later = relation_seal(rb, KEY_PRIMARY);
	host_start(&h, GIVEN(path(), "format=csv"));
	struct batch *b[3] = { transaction(orders, 0x100, 1, 1), transaction(later, 0x200, 2, 1), batch_at() };
	add_rows(b[2], NULL, 0x300, 0, 0, 0, PIECE_WHOLE);
	for (uint64_t i = 0; i < 3; i++)
		apply(&h, b[i], i + 1);
	host_stop(&h);
	assert_names("public.orders/0000000000000100-0000000001-0000000000000100-0000000001.csv\n"
		     "public.orders/0000000000000200-0000000001-0000000000000200-0000000001.csv\n");
	assert_text("op,id,name,total\nI,1,x,\nop,id,a,z\nI,2,x,\n");
	for (int i = 0; i < 3; i++)
		batch_free(b[i]);
	relation_unref(later);
}

static void single_layout(void **state)
{
	struct host h;
	struct err e;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "layout=single"));
	struct batch *b[6] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		transaction(odd, 0x100, 2, 1), transaction(orders, 0x200, 3, 1), transaction(odd, 0x300, 4, 1) };
	for (uint64_t i = 0; i < 6; i++)
		apply(&h, b[i], i + 1);
	host_stop(&h);
	assert_int_equal(h.applied, 6);
	assert_text(ROW(1) ROW(2) ROW(3) ROW(4));
	for (int i = 0; i < 6; i++)
		batch_free(b[i]);
	assert_int_equal(host_try_open(&h, GIVEN(path(), "format=csv", "layout=single"), &e), DMSR_EINVAL);
	h.i = NULL;
	host_close(&h);
}

/* When nothing comes any more, files appear soon; who asks twice does not wait at all. */
static void idle_and_urgent(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b1 = transaction(orders, 0x100, 1, 1), *b2 = transaction(orders, 0x200, 2, 1), *b3 = batch_at();
	uint64_t began = loop_now_us(h.loop);
	apply(&h, b1, 1);
	target()->flush(h.i);
	wait_applied(&h, 1);
	uint64_t took = loop_now_us(h.loop) - began;
	assert_true(took > 1500000 && took < 10000000);
	apply(&h, b2, 2);
	target()->flush(h.i);
	target()->flush(h.i);
	began = loop_now_us(h.loop);
	wait_applied(&h, 2);
	assert_true(loop_now_us(h.loop) - began < 1500000);
	/* a position alone moves within a second or so */
	b3->end.lsn = 0x300;
	b3->end.event = POSITION_WHOLE;
	b3->end.flush = 0x300;
	batch_append(b3, OP_HEARTBEAT, NULL);
	apply(&h, b3, 3);
	wait_applied(&h, 3);
	host_stop(&h);
	assert_text(ROW(1) ROW(2));
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(h.at.lsn, 0x300);
	host_stop(&h);
	batch_free(b1);
	batch_free(b2);
	batch_free(b3);
}

/* In a child that is killed at the failpoint: transactions 1 to 20, two tables, and a load before them; then, in as many lives as it takes, all again. */
static void feed_all(struct host *h)
{
	struct batch *b[23] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n2\tx\t\\N\n"), word(OP_LOAD_END, orders, 0x80) };
	for (int i = 3; i < 23; i++)
		b[i] = transaction(i % 2 ? orders : odd, 0x100 * (uint64_t)i, i, 1);
	for (uint64_t i = 0; i < 23 && !h->has_failed; i++) {
		apply(h, b[i], i + 1);
		if (i % 5 == 4) {
			target()->flush(h->i);
			target()->flush(h->i);
			wait_applied(h, i + 1);
		}
	}
	if (!h->has_failed) {
		target()->flush(h->i);
		target()->flush(h->i);
		wait_applied(h, 23);
	}
	for (int i = 0; i < 23; i++)
		batch_free(b[i]);
}

/* The process dies there by SIGKILL. */
static bool dies_at(const char *failpoint_text)
{
	int status;
	pid_t pid = fork();
	if (!pid) {
		struct host h;
		setenv("DMSR_FAILPOINT", failpoint_text, 1);
		failpoint_init();
		host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
		feed_all(&h);
		host_stop(&h);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

/* Each id once, in each table in its order. */
static void assert_all_there(void)
{
	struct buf want;
	buf_init(&want, 1 << 16);
	for (int i = 4; i < 23; i += 2)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	for (int i = 1; i < 3; i++)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	for (int i = 3; i < 23; i += 2)
		buf_printf(&want, "{\"id\":%d,\"name\":\"x\",\"total\":null}\n", i);
	assert_text(buf_cstr(&want));
	buf_fini(&want);
	assert_int_equal(count_parts(), 0);
}

static void killed_anywhere(void **state)
{
	static const char *const points[] = { "file.write", "file.before-journal", "file.before-rename", "file.renamed", "file.after-rename" };
	for (size_t k = 0; k < sizeof points / sizeof *points; k++)
		for (int nth = 1; nth < 12; nth += 3) {
			char text[64];
			setup(state);
			snprintf(text, sizeof text, "%s:%d", points[k], nth);
			bool died = dies_at(text);
			assert_true(died || nth > 1);
			struct host h;
			host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
			assert_int_equal(count_parts(), 0);
			feed_all(&h);
			host_stop(&h);
			assert_all_there();
			teardown(state);
		}
	setup(state);
}

/* The instance says why, in a child; the exit status tells whether it did. */
static int fails_at(const char *failpoint_text, const char *id)
{
	int status;
	pid_t pid = fork();
	if (!pid) {
		struct host h;
		setenv("DMSR_FAILPOINT", failpoint_text, 1);
		failpoint_init();
		host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
		feed_all(&h);
		_exit(!h.has_failed ? 1 : !h.error.retriable ? 2 : strcmp(h.error.id, id) ? 3 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* The same places fail instead: the instance says so, the next one goes on. */
static void fails_anywhere(void **state)
{
	static const char *const points[] = { "file.write", "file.before-journal", "file.before-rename", "file.renamed", "file.after-rename" };
	for (size_t k = 0; k < sizeof points / sizeof *points; k++)
		for (int nth = 1; nth < 6; nth += 2) {
			char text[64];
			struct host h;
			setup(state);
			snprintf(text, sizeof text, "%s:%d:fail", points[k], nth);
			assert_int_equal(fails_at(text, k ? "target.io" : "target.disk-full"), 0);
			host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
			feed_all(&h);
			host_stop(&h);
			assert_all_there();
			teardown(state);
		}
	setup(state);
}

/* No room, for real. */
static void disk_full(void **state)
{
	struct host h;
	struct rlimit before, small = { 4096, 4096 };
	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	struct batch *b = transaction(orders, 0x100, 1, 1000);
	setrlimit(RLIMIT_FSIZE, &small);
	apply(&h, b, 1);
	target()->flush(h.i);
	target()->flush(h.i);
	wait_applied(&h, 1);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "target.disk-full");
	assert_true(h.error.retriable);
	host_close(&h);
	assert_names("");
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=1h"));
	apply(&h, b, 1);
	host_stop(&h);
	assert_int_equal(h.applied, 1);
	batch_free(b);
}

static void refuses(void **state)
{
	struct host h;
	struct err e;
	(void)state;
	assert_int_equal(host_try_open(&h, GIVEN("path=", FLAT), &e), DMSR_EINVAL);
	h.i = NULL;
	host_close(&h);
	host_start(&h, GIVEN("path=/proc/dmsr-no-such-place", FLAT));
	assert_true(h.has_failed);
	host_close(&h);

	/* a second one of the same job waits, and in the end says who is in its way */
	struct host other;
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(host_try_open(&other, GIVEN(path(), FLAT), NULL), 0);
	target()->start(other.i);
	loop_timer_start(other.limit, 15000);
	struct loop_timer *stop = loop_timer_new(other.loop, "test", (void (*)(void *))loop_stop, other.loop);
	loop_timer_start(stop, 500);
	loop_run(other.loop);
	assert_false(other.is_ready || other.has_failed);
	host_stop(&h);
	while (!other.is_ready)
		run(&other);
	loop_timer_free(stop);
	host_stop(&other);

	/* a row that the format cannot hold */
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	b->first->next->u.row.after = KIT_ROW(b, "1", "latin \xE4", "1");
	apply(&h, b, 1);
	wait_applied(&h, 1);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "codec.encoding");
	host_close(&h);
	batch_free(b);

	/* another server's changes do not go into the same files */
	host_start(&h, GIVEN(path(), FLAT, "roll_interval=100ms"));
	b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	wait_applied(&h, 1);
	struct batch *foreign = transaction(orders, 0x200, 1, 1);
	foreign->end.server = 8;
	apply(&h, foreign, 2);
	wait_applied(&h, 2);
	assert_true(h.has_failed);
	assert_string_equal(h.error.id, "target.server-changed");
	host_close(&h);
	batch_free(b);
	batch_free(foreign);
}

static void damaged_journal(void **state)
{
	struct host h;
	(void)state;
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	host_stop(&h);
	char *journal = mem_printf("%s/.dmsr/%s.lake/journal", dir, uid);
	/* torn at its end: what the last group said did not count */
	FILE *f = fopen(journal, "a");
	fputs("P pg:7:0/900:*:0/900\nR 9 public.orders/x\n", f);
	fclose(f);
	host_start(&h, GIVEN(path(), FLAT));
	assert_int_equal(h.at.lsn, 0x100);
	host_stop(&h);
	/* in its middle: it is not believed */
	int fd = open(journal, O_WRONLY);
	assert_int_equal(pwrite(fd, "X", 1, 14), 1);
	assert_int_equal(lseek(fd, 0, SEEK_END) > 0, 1);
	assert_true(write(fd, "P none\nC 0000000000000000\n", 26) == 26);
	close(fd);
	host_start(&h, GIVEN(path(), FLAT));
	assert_true(h.has_failed);
	assert_false(h.error.retriable);
	assert_string_equal(h.error.id, "target.state-damaged");
	host_close(&h);
	free(journal);
	batch_free(b);
}

/* Closed at any moment, in the middle of anything, again and again. */
static void closed_anywhere(void **state)
{
	(void)state;
	for (int turn = 0; turn < 40; turn++) {
		struct host h;
		struct batch *b[20];
		host_start(&h, GIVEN(path(), FLAT, "roll_bytes=1KiB", "roll_interval=100ms"));
		assert_true(h.is_ready);
		for (int i = 0; i < 20; i++) {
			b[i] = transaction(i % 2 ? orders : odd, 0x1000 * (uint64_t)(i + 1), i, 5);
			apply(&h, b[i], (uint64_t)i + 1);
		}
		wait_applied(&h, (uint64_t)turn % 3);
		host_close(&h);
		for (int i = 0; i < 20; i++)
			batch_free(b[i]);
	}
	struct host h;
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b[20];
	for (int i = 0; i < 20; i++) {
		b[i] = transaction(i % 2 ? orders : odd, 0x1000 * (uint64_t)(i + 1), i, 5);
		apply(&h, b[i], (uint64_t)i + 1);
	}
	host_stop(&h);
	assert_int_equal(h.applied, 20);
	int lines = 0;
	struct listing *l = listing();
	for (size_t i = 0; i < l->text.len; i++)
		lines += l->text.data[i] == '\n';
	assert_int_equal(lines, 100);
	for (int i = 0; i < 20; i++)
		batch_free(b[i]);
}

/* ---- stdout ---- */

/* Runs fn in a child whose stdout is a pipe; everything that came through it. */
static const char *stdout_of(void (*fn)(void), int *status)
{
	static char out[1 << 20];
	int fds[2];
	size_t n = 0;
	assert_int_equal(pipe(fds), 0);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		fn();
		_exit(0);
	}
	close(fds[1]);
	for (ssize_t got; (got = read(fds[0], out + n, sizeof out - 1 - n)) > 0;)
		n += (size_t)got;
	close(fds[0]);
	out[n] = 0;
	assert_int_equal(waitpid(pid, status, 0), pid);
	return out;
}

static void print_some(void)
{
	struct host h;
	host_start(&h, GIVEN("path=-", "format=csv"));
	if (h.keeps)
		_exit(1);
	struct batch *b[6] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		transaction(odd, 0x100, 2, 1), transaction(odd, 0x200, 3, 1), transaction(orders, 0x300, 4, 1) };
	for (uint64_t i = 0; i < 6; i++)
		apply(&h, b[i], i + 1);
	wait_applied(&h, 6);
	if (h.counts.created != 3 || h.counts.loaded != 1)
		_exit(2);
	host_stop(&h);
}

static void print_to_nobody(void)
{
	struct host h;
	int fds[2];
	if (pipe(fds) || dup2(fds[1], STDOUT_FILENO) < 0)
		_exit(1);
	close(fds[0]);
	close(fds[1]);
	host_start(&h, GIVEN("path=-", FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	wait_applied(&h, 1);
	_exit(h.has_failed && !strcmp(h.error.id, "target.closed") && !h.error.retriable ? 0 : 3);
}

/* The reader does not read: the loop lives on, and closing does not wait. */
static void print_to_the_deaf(void)
{
	struct host h;
	int fds[2];
	if (pipe(fds) || dup2(fds[1], STDOUT_FILENO) < 0)
		_exit(1);
	host_start(&h, GIVEN("path=-", FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 10000);
	apply(&h, b, 1);
	struct loop_timer *stop = loop_timer_new(h.loop, "test", (void (*)(void *))loop_stop, h.loop);
	loop_timer_start(stop, 300);
	uint64_t began = loop_now_us(h.loop);
	loop_run(h.loop);
	uint64_t took = loop_now_us(h.loop) - began;
	loop_timer_free(stop);
	if (h.applied || took > 3000000)
		_exit(2);
	host_close(&h);
	_exit(0);
}

static void stdout_lines(void **state)
{
	int status;
	(void)state;
	assert_string_equal(stdout_of(print_some, &status), "op,id,name,total\nI,1,x,\nop,id,name,total\nI,2,x,\nI,3,x,\nop,id,name,total\nI,4,x,\n");
	assert_int_equal(status, 0);
	stdout_of(print_to_nobody, &status);
	assert_int_equal(status, 0);
	stdout_of(print_to_the_deaf, &status);
	assert_int_equal(status, 0);
}

/* ---- preflight ---- */

struct asked {
	struct loop *loop;
	enum dmsr_check_level level;
	char id[32];
};

static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	struct asked *a = ctx;
	assert_null(e);
	assert_int_equal(n, 1);
	a->level = checks->level;
	snprintf(a->id, sizeof a->id, "%s", checks->id);
	loop_stop(a->loop);
}

static void preflight(void **state)
{
	static const struct {
		const char *path;
		enum dmsr_check_level level;
	} all[] = { { "", DMSR_CHECK_OK }, { "/not/there/yet", DMSR_CHECK_OK }, { "/file", DMSR_CHECK_ERROR }, { "/file/below", DMSR_CHECK_ERROR } };
	(void)state;
	char *file = mem_printf("%s/file", dir);
	fclose(fopen(file, "w"));
	free(file);
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct asked a = { .loop = loop_new() };
		struct settings *s = settings_new();
		struct dmsr_instance *i;
		const struct dmsr_probe_host host = { .ctx = &a, .env = { .loop = a.loop }, .checked = on_checked };
		char *p = mem_printf("%s%s", dir, all[k].path);
		settings_put_str(s, "path", p);
		assert_int_equal(dmsr_plugin_file.target_probe->check(s, NULL, 0, &host, &i, NULL), 0);
		loop_run(a.loop);
		assert_int_equal(a.level, all[k].level);
		assert_string_equal(a.id, "file.path");
		dmsr_plugin_file.target_probe->close(i);
		free(p);
		settings_free(s);
		loop_free(a.loop);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = { TEST(publishes_and_remembers), TEST(rolls_by_size), TEST(whole_transactions), TEST(loads), TEST(columns_change),
		TEST(single_layout), TEST(idle_and_urgent), TEST(killed_anywhere), TEST(fails_anywhere), TEST(disk_full), TEST(refuses), TEST(damaged_journal),
		TEST(closed_anywhere), TEST(stdout_lines), TEST(preflight) };
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
