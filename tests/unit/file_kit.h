/* file_kit: what the tests of the file target share: a host that waits for what it is told, a directory that is read as its readers see it, batches in a few
 * words. */
#ifndef DMSR_TESTS_UNIT_FILE_KIT_H
#define DMSR_TESTS_UNIT_FILE_KIT_H
#include "codec_kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIT __attribute__((unused)) static

extern const struct dmsr_plugin dmsr_plugin_file, dmsr_plugin_json, dmsr_plugin_csv;
KIT const char uid[] = "0123456789abcdefghijklmnop";

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

KIT void on_limit(void *arg)
{
	struct host *h = arg;
	(void)h;
	fail_msg("what was waited for did not come: %d applied, %d wanted", (int)h->applied, (int)h->wanted);
}

KIT void leave(struct host *h) { loop_stop(h->loop); }

KIT void on_ready(void *ctx, const struct position *applied, bool keeps, const struct dmsr_loaded *loaded, size_t n, bool load_done)
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

KIT void on_applied(void *ctx, uint64_t token, const struct dmsr_table_counts *counts, size_t n)
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

KIT void on_consumed(void *ctx, uint64_t token)
{
	struct host *h = ctx;
	assert_int_equal(token, h->consumed + 1);
	h->consumed = token;
}

KIT void on_resume(void *ctx)
{
	struct host *h = ctx;
	h->resumed++;
	leave(h);
}

KIT void on_failed(void *ctx, const struct err *e)
{
	struct host *h = ctx;
	h->error = *e;
	h->has_failed = true;
	leave(h);
}

KIT void on_stopped(void *ctx)
{
	struct host *h = ctx;
	h->is_stopped = true;
	leave(h);
}

KIT const struct dmsr_codec *find_codec(const void *codecs, const char *name)
{
	(void)codecs;
	return !strcmp(name, "json") ? dmsr_plugin_json.codec : !strcmp(name, "csv") ? dmsr_plugin_csv.codec : NULL;
}

KIT const struct dmsr_target *target(void) { return dmsr_plugin_file.target; }

KIT void run(struct host *h)
{
	loop_timer_start(h->limit, 120000);
	loop_run(h->loop);
	loop_timer_stop(h->limit);
}

KIT struct dmsr_target_host host_of(struct host *h)
{
	struct dmsr_target_host t = { .ctx = h, .ready = on_ready, .applied = on_applied, .consumed = on_consumed, .resume = on_resume, .failed = on_failed };
	t.stopped = on_stopped;
	t.env = (struct dmsr_env){ .loop = h->loop, .job = "shop", .uid = uid, .name = "lake", .codec = find_codec };
	return t;
}

KIT int host_try_open(struct host *h, const char *const *given, struct err *e)
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

KIT void host_close(struct host *h)
{
	target()->close(h->i);
	loop_timer_free(h->limit);
	loop_free(h->loop);
	settings_free(h->settings);
}

KIT void host_start(struct host *h, const char *const *given)
{
	assert_int_equal(host_try_open(h, given, NULL), 0);
	target()->start(h->i);
	while (!h->is_ready && !h->has_failed)
		run(h);
}

KIT void host_stop(struct host *h)
{
	target()->stop(h->i);
	while (!h->is_stopped && !h->has_failed)
		run(h);
	host_close(h);
}

KIT void apply(struct host *h, const struct batch *b, uint64_t token)
{
	while (target()->apply(h->i, b, token) == DMSR_AGAIN)
		run(h);
}

/* Until the batch with this token is applied, or the target has failed. */
KIT void wait_applied(struct host *h, uint64_t token)
{
	h->wanted = token;
	while (h->applied < token && !h->has_failed)
		run(h);
}

/* ---- the directory ---- */

KIT char dir[64];

KIT int setup(void **state)
{
	(void)state;
	test_directory(dir, sizeof dir, "file");
	unsetenv("DMSR_FAILPOINT");
	failpoint_init();
	return 0;
}

KIT int teardown(void **state)
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

KIT void anew(void **state)
{
	teardown(state);
	setup(state);
}

struct listing {
	struct buf names, text;         /* "dir/file\n" sorted by directory and name; all their bytes in that order */
};

KIT int not_hidden(const struct dirent *d) { return d->d_name[0] != '.'; }

KIT void list_into(struct listing *l, const char *path, const char *prefix)
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
KIT struct listing *listing(void)
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
KIT int count_parts(void)
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

KIT struct relation *orders, *odd;

KIT struct batch *batch_at(void)
{
	struct batch *b = batch_new();
	b->end = (struct position){ .kind = POSITION_LSN, .server = 7 };
	return b;
}

/* A transaction of n rows with ids from `id` on; all of it, or a piece. */
enum { PIECE_BEGIN = 1, PIECE_END = 2, PIECE_WHOLE = 3 };
KIT void add_rows(struct batch *b, struct relation *rel, uint64_t lsn, uint64_t event, int id, int n, int piece)
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

KIT struct batch *transaction(struct relation *rel, uint64_t lsn, int id, int n)
{
	struct batch *b = batch_at();
	add_rows(b, rel, lsn, 1, id, n, PIECE_WHOLE);
	return b;
}

KIT struct batch *word(enum change_op op, struct relation *rel, uint64_t lsn)
{
	struct batch *b = batch_new();
	const struct txn txn = { .lsn = lsn };
	b->is_load = true;
	b->end.server = 7;
	batch_txn(b, &txn);
	batch_append(b, op, rel);
	return b;
}

KIT struct batch *loaded_rows(struct relation *rel, uint64_t lsn, const char *copy)
{
	struct batch *b = word(OP_ROWS, rel, lsn);
	b->last->u.rows.format = ROWS_COPY_TEXT;
	b->last->u.rows.data = arena_strdup(&b->arena, copy);
	b->last->u.rows.len = strlen(copy);
	b->bytes = b->last->u.rows.len;
	return b;
}

KIT int group_setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	orders = kit_orders("public", "orders");
	odd = kit_orders("../a.b", "x/y \xC3\xA4.z");
	return 0;
}

KIT int group_teardown(void **state)
{
	(void)state;
	relation_unref(orders);
	relation_unref(odd);
	return 0;
}

#define FLAT "shape=flat", "meta=false"
#define GIVEN(...) ((const char *const[]){ __VA_ARGS__, NULL })
KIT char path_option[80];
KIT const char *path(void)
{
	snprintf(path_option, sizeof path_option, "path=%s", dir);
	return path_option;
}
#define ROW(id) "{\"id\":" #id ",\"name\":\"x\",\"total\":null}\n"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
