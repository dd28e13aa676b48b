/* plugin: what is refused, each for its own reason; and real shared objects, loaded from a directory. */
#include "base/worker.h"
#include "engine/plugin.h"
#include "test.h"
#include <dlfcn.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const struct dmsr_option none[] = { { 0 } };
static const struct dmsr_target target = { 0 };
static const struct dmsr_plugin good = { .abi = DMSR_ABI, .size = sizeof good, .name = "good", .target = &target, .target_options = none };

static void refused(struct dmsr_plugin p, const char *id)
{
	struct plugins *ps = plugins_new();
	struct err e = { 0 };
	assert_int_equal(plugins_add(ps, &good, &e), 0);
	if (!plugins_add(ps, &p, &e))
		fail_msg("%s: a plugin that is to be refused as %s is taken", p.name ? p.name : "", id);
	assert_string_equal(e.id, id);
	assert_ptr_equal(plugins_find(ps, PLUGIN_TARGET, "good"), &good);
	plugins_free(ps);
}

static void each_fault_has_its_error(void **state)
{
	struct dmsr_plugin p = good;
	(void)state;
	refused(p, "plugin.duplicate");
	p.name = "other";
	p.abi++;
	refused(p, "plugin.abi");
	p.abi--;
	p.size--;
	refused(p, "plugin.size");
	p.size++;
	static const char *const names[] = { NULL, "", "9lives", "With-Capitals", "under_score", "longer-than-the-thirty-one-of-it" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		p.name = names[i];
		refused(p, "plugin.name");
	}
	p.name = "other";
	p.target_options = NULL;
	refused(p, "plugin.kind");
	p.target = NULL;
	refused(p, "plugin.kind");
}

struct seen { unsigned n; char ids[4][48]; };

static void on_error(void *arg, const char *path, const struct err *e)
{
	struct seen *s = arg;
	assert_non_null(strstr(path, ".so"));
	assert_true(s->n < 4);
	snprintf(s->ids[s->n], sizeof s->ids[s->n], "%s", e->id);
	s->n++;
}

static void nothing(void *arg) { (void)arg; }

static void make(const char *dir, const char *name, const char *text)
{
	char *source = mem_printf("%s/%s.c", dir, name), *object = mem_printf("%s/%s.so", dir, name);
	char *include = mem_printf("-I%s/src", getenv("srcdir") ? getenv("srcdir") : ".");
	char cc[] = "cc", shared[] = "-shared", pic[] = "-fPIC", out[] = "-o";
	char *const words[] = { cc, shared, pic, include, out, object, source, NULL };
	pid_t pid;
	int status;
	FILE *f = fopen(source, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(posix_spawnp(&pid, words[0], NULL, NULL, words, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	unlink(source);
	free(include);
	free(object);
	free(source);
}

/* By name: one that is no object, one that is no plugin, one of another ABI, one that is good; the others are not looked at. */
static void loads_what_is_in_a_directory(void **state)
{
#define PLUGIN(abi) "#include \"dmsr.h\"\nstatic const struct dmsr_option none[] = { { 0 } };\nstatic const struct dmsr_target target = { 0 };\n" \
	"DMSR_PLUGIN(x) = { .abi = " abi ", .size = sizeof(struct dmsr_plugin), .name = \"loaded\", .target = &target, .target_options = none };\n"
	char dir[200];
	struct plugins *ps = plugins_new();
	struct seen s = { 0 };
	(void)state;
	test_directory(dir, sizeof dir, "plugin");
	char *bad = mem_printf("%s/a.so", dir), *where = mem_printf("%s/d.so", dir);
	FILE *f = fopen(bad, "w");
	assert_non_null(f);
	fputs("no object\n", f);
	fclose(f);
	make(dir, "b", "int something;\n");
	make(dir, "c", PLUGIN("DMSR_ABI + 1"));
	make(dir, "d", PLUGIN("DMSR_ABI"));
	assert_int_equal(plugins_load_dir(ps, dir, on_error, &s), 1);
	assert_int_equal(s.n, 3);
	assert_string_equal(s.ids[0], "plugin.load");
	assert_string_equal(s.ids[1], "plugin.symbol");
	assert_string_equal(s.ids[2], "plugin.abi");
	const struct dmsr_plugin *p = plugins_find(ps, PLUGIN_TARGET, "loaded");
	assert_non_null(p);
	assert_null(plugins_find(ps, PLUGIN_SOURCE, "loaded"));
	assert_string_equal(plugins_origin(ps, p), where);
	assert_int_equal(plugins_load_dir(ps, "/nowhere/at/all", on_error, &s), 0);
	assert_int_equal(s.n, 3);
	plugins_free(ps);
	for (char name = 'a'; name <= 'd'; name++) {
		char *path = mem_printf("%s/%c.so", dir, name);
		assert_int_equal(unlink(path), 0);
		free(path);
	}
	assert_int_equal(rmdir(dir), 0);
	free(where);
	free(bad);
}

/* What it does on a thread that nobody waits for returns into it. */
static void one_that_is_at_work_stays(void **state)
{
	char dir[200];
	int x[2] = { 0 };
	struct plugins *ps = plugins_new();
	struct seen s = { 0 };
	(void)state;
	test_directory(dir, sizeof dir, "plugin");
	char *where = mem_printf("%s/e.so", dir);
	make(dir, "e", PLUGIN("DMSR_ABI") "#include <unistd.h>\n"
		"__attribute__((visibility(\"default\"))) void work(void *arg)\n"
		"{ int *x = arg; __atomic_store_n(&x[0], 1, __ATOMIC_RELEASE); while (!__atomic_load_n(&x[1], __ATOMIC_ACQUIRE)) usleep(1000); }\n");
	assert_int_equal(plugins_load_dir(ps, dir, on_error, &s), 1);
	void *handle = dlopen(where, RTLD_NOW | RTLD_NOLOAD);
	assert_non_null(handle);
	struct worker_job job = { .arg = x, .done = nothing, .drop = nothing };
	*(void **)&job.run = dlsym(handle, "work");
	assert_non_null(job.run);
	dlclose(handle);
	struct loop *l = loop_new();
	struct worker *w = worker_new(l, "plugin");
	worker_post(w, &job);
	while (!__atomic_load_n(&x[0], __ATOMIC_ACQUIRE))
		usleep(1000);
	worker_free(w, NULL, NULL);
	plugins_free(ps);
	__atomic_store_n(&x[1], 1, __ATOMIC_RELEASE);
	assert_true(worker_wait_left(10000));
	loop_free(l);
	assert_int_equal(unlink(where), 0);
	assert_int_equal(rmdir(dir), 0);
	free(where);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_fault_has_its_error),
		cmocka_unit_test(loads_what_is_in_a_directory),
		cmocka_unit_test(one_that_is_at_work_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
