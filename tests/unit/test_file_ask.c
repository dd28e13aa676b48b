/* test_file_ask: what is not about files: lines to the standard output, preflight, and what goes with a job. */
#include "file_kit.h"

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
	struct batch *b[8] = { word(OP_LOAD_BEGIN, orders, 0x80), loaded_rows(orders, 0x80, "1\tx\t\\N\n"), word(OP_LOAD_END, orders, 0x80),
		word(OP_LOAD_BEGIN, orders, 0x88), word(OP_LOAD_END, orders, 0x88),
		transaction(odd, 0x100, 2, 1), transaction(odd, 0x200, 3, 1), transaction(orders, 0x300, 4, 1) };
	for (uint64_t i = 0; i < 8; i++)
		apply(&h, b[i], i + 1);
	wait_applied(&h, 8);
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
	if (h.applied || took > 60000000)
		_exit(2);
	host_close(&h);
	_exit(0);
}

static void stdout_lines(void **state)
{
	int status;
	(void)state;
	assert_string_equal(stdout_of(print_some, &status), "op,id,name,total\nI,1,x,\nT,,,\nop,id,name,total\nI,2,x,\nI,3,x,\nop,id,name,total\nI,4,x,\n");
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
	char id[64];
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
	} all[] = { { "", DMSR_CHECK_OK }, { "/not/there/yet", DMSR_CHECK_OK }, { "/file", DMSR_CHECK_ERROR }, { "/file/below", DMSR_CHECK_ERROR },
		/* where root may write, too, and makes no file */
		{ "/proc", DMSR_CHECK_ERROR }, { "/proc/x/y", DMSR_CHECK_ERROR } };
	(void)state;
	char *file = mem_printf("%s/file", dir);
	fclose(fopen(file, "w"));
	free(file);
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct asked a = { .loop = loop_new() };
		struct settings *s = settings_new();
		struct dmsr_instance *i;
		const struct dmsr_probe_host host = { .ctx = &a, .env = { .loop = a.loop, .codec = find_codec }, .checked = on_checked };
		char *p = mem_printf("%s%s", strncmp(all[k].path, "/proc", 5) ? dir : "", all[k].path);
		kit_settings(s, dmsr_plugin_file.target_options, NULL);
		kit_settings(s, dmsr_plugin_json.codec_options, NULL);
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

/* What would end the job at its start. */
static void preflight_of_options(void **state)
{
	static const struct { const char *path, *format, *layout, *delimiter, *id; } all[] = {
		{ "relative/directory", "json", "table", NULL, "target.path" }, { "", "json", "table", NULL, "target.path" },
		{ "./-", "json", "table", NULL, "target.path" }, { "/x", "csv", "single", ",", "target.format" },
		{ "/x", "csv", "table", "\"", "codec.option" }, { "/x", "morse", "table", NULL, "target.format" },
	};
	(void)state;
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		struct asked a = { .loop = loop_new() };
		struct settings *s = settings_new();
		struct dmsr_instance *i = NULL;
		struct err e = { 0 };
		const struct dmsr_probe_host host = { .ctx = &a, .env = { .loop = a.loop, .codec = find_codec }, .checked = on_checked };
		kit_settings(s, dmsr_plugin_file.target_options, NULL);
		kit_settings(s, all[k].delimiter ? dmsr_plugin_csv.codec_options : dmsr_plugin_json.codec_options, NULL);
		settings_put_str(s, "path", all[k].path);
		settings_put_str(s, "format", all[k].format);
		settings_put_str(s, "layout", all[k].layout);
		if (all[k].delimiter)
			settings_put_str(s, "delimiter", all[k].delimiter);
		assert_int_equal(dmsr_plugin_file.target_probe->check(s, NULL, 0, &host, &i, &e), DMSR_EINVAL);
		assert_string_equal(e.id, all[k].id);
		settings_free(s);
		loop_free(a.loop);
	}
}

/* ---- a job that goes ---- */

static void on_dropped(void *ctx, const char *const *left, size_t n, const struct err *e)
{
	struct asked *a = ctx;
	assert_int_equal(n, e ? 1 : 0);
	snprintf(a->id, sizeof a->id, "%s", e ? e->id : "");
	if (e)
		assert_non_null(strstr(left[0], "rm -r"));
	loop_stop(a->loop);
}

static void drop(const char *want)
{
	struct asked a = { .loop = loop_new() };
	struct settings *s = settings_new();
	struct dmsr_instance *i;
	const struct dmsr_probe_host host = { .ctx = &a, .env = { .loop = a.loop, .job = "j", .uid = uid, .name = "lake" }, .dropped = on_dropped };
	settings_put_str(s, "path", strchr(path(), '=') + 1);
	assert_int_equal(dmsr_plugin_file.target_probe->drop(s, &host, &i, NULL), 0);
	loop_run(a.loop);
	assert_string_equal(a.id, want);
	dmsr_plugin_file.target_probe->close(i);
	settings_free(s);
	loop_free(a.loop);
}

static void forgets(void **state)
{
	struct host h;
	struct stat st;
	char *ours = mem_printf("%s/.dmsr", strchr(path(), '=') + 1);
	(void)state;
	drop("");
	host_start(&h, GIVEN(path(), FLAT));
	struct batch *b = transaction(orders, 0x100, 1, 1);
	apply(&h, b, 1);
	drop("target.busy");
	host_stop(&h);
	assert_int_equal(stat(ours, &st), 0);
	drop("");
	assert_int_equal(stat(ours, &st), -1);
	assert_text("{\"id\":1,\"name\":\"x\",\"total\":null}\n");
	/* It is not known any more: all comes again. */
	host_start(&h, GIVEN(path(), FLAT));
	assert_true(position_is_none(&h.at));
	host_stop(&h);
	batch_free(b);
	free(ours);
}

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(stdout_lines), TEST(preflight), TEST(preflight_of_options), TEST(forgets) };
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
