/* log: both formats, escaping, levels per room, and whole lines from many threads. */
#include "base/log.h"
#include "test.h"
#include <jansson.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char last[65536];
static int lines;

static void keep(void *arg, const char *line, size_t len)
{
	(void)arg;
	assert_true(len < sizeof last);
	memcpy(last, line, len);
	last[len] = 0;
	lines++;
}

static int set_up(void **state)
{
	(void)state;
	log_set_sink(keep, NULL);
	log_set_format(LOG_FORMAT_LOGFMT);
	log_set_level(NULL, LOG_LEVEL_INFO);
	lines = 0;
	last[0] = 0;
	return 0;
}

/* The line without its time, which is checked for its shape. */
static const char *behind_ts(void)
{
	int n = 0;
	unsigned y, mo, d, h, mi, s, ms;
	assert_int_equal(sscanf(last, "ts=%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &y, &mo, &d, &h, &mi, &s, &ms, &n), 7);
	assert_int_equal(n, 28);
	return last + n;
}

static void logfmt(void **state)
{
	(void)state;
	log_info("job", "shop", "running -> %s: %s", "paused", "asked");
	assert_string_equal(behind_ts(), "level=info room=job job=shop msg=\"running -> paused: asked\"\n");
	log_error("engine", NULL, "x");
	assert_string_equal(behind_ts(), "level=error room=engine msg=\"x\"\n");
	log_warn("engine", "a b", "q\"\\\n\x01\x7f\xff\xc3\xa4");
	assert_string_equal(behind_ts(), "level=warn room=engine job=\"a b\" msg=\"q\\\"\\\\\\n\\u0001\\u007f\\ufffd\xc3\xa4\"\n");
	log_warn("engine", "", "x");
	assert_string_equal(behind_ts(), "level=warn room=engine job=\"\" msg=\"x\"\n");
}

static void json_is_json(void **state)
{
	(void)state;
	log_set_format(LOG_FORMAT_JSON);
	log_error("engine", "sh\"op", "%s", "tab\t nl\n bad \xc3( \xed\xa0\x80 \xf5 euro \xe2\x82\xac elephant \xf0\x9f\x90\x98 end \xe2\x82");
	json_error_t err;
	json_t *o = json_loads(last, JSON_REJECT_DUPLICATES, &err);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "level")), "error");
	assert_string_equal(json_string_value(json_object_get(o, "job")), "sh\"op");
	assert_int_equal(strlen(json_string_value(json_object_get(o, "ts"))), 24);
	const char *msg = json_string_value(json_object_get(o, "msg"));
	assert_non_null(strstr(msg, "tab\t nl\n bad \xef\xbf\xbd( "));
	assert_non_null(strstr(msg, "euro \xe2\x82\xac elephant \xf0\x9f\x90\x98 end \xef\xbf\xbd"));
	json_decref(o);
	assert_int_equal(strchr(last, '\n') - last, strlen(last) - 1);
}

static void long_messages_are_cut(void **state)
{
	static char text[100000];
	(void)state;
	memset(text, 1, sizeof text - 1); /* each becomes six bytes */
	log_info("engine", NULL, "%s", text);
	assert_true(strlen(last) < 32768);
	assert_string_equal(last + strlen(last) - 5, "...\"\n");
}

static void levels_per_room(void **state)
{
	(void)state;
	log_debug("chatty", NULL, "no");
	assert_int_equal(lines, 0);
	assert_int_equal(log_set_level("chatty", LOG_LEVEL_DEBUG), 0);
	log_debug("chatty", NULL, "yes");
	log_debug("other", NULL, "no");
	assert_int_equal(lines, 1);
	log_set_level(NULL, LOG_LEVEL_ERROR);
	log_warn("other", NULL, "no");
	log_debug("chatty", NULL, "yes");
	assert_int_equal(lines, 2);
	assert_int_equal(log_get_level("chatty"), LOG_LEVEL_DEBUG);
	assert_int_equal(log_get_level("never seen"), LOG_LEVEL_ERROR);
	log_unset_level("chatty");
	assert_int_equal(log_get_level("chatty"), LOG_LEVEL_ERROR);
	log_warn("chatty", NULL, "no");
	assert_int_equal(lines, 2);
}

static void count_rooms(void *arg, const char *room, enum log_level level, bool own)
{
	int *n = arg;
	(void)level;
	if (!strcmp(room, "seen"))
		n[0]++;
	if (!strcmp(room, "set"))
		n[1] += own;
	n[2]++;
}

static void rooms_are_listed_once_and_bounded(void **state)
{
	int n[3] = { 0 };
	char name[32];
	(void)state;
	log_debug("seen", NULL, "x");
	log_debug("seen", NULL, "x");
	log_set_level("set", LOG_LEVEL_WARN);
	log_each_room(count_rooms, n);
	assert_int_equal(n[0], 1);
	assert_int_equal(n[1], 1);
	int rc = 0;
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "room-%d", i);
		rc = log_set_level(name, LOG_LEVEL_DEBUG);
	}
	assert_int_equal(rc, -1);
	memset(n, 0, sizeof n);
	log_each_room(count_rooms, n);
	assert_int_equal(n[2], 64);
	/* A room beyond the table has the default's level. */
	lines = 0;
	log_debug("room-99", NULL, "no");
	log_info("room-99", NULL, "yes");
	assert_int_equal(lines, 1);
}

static void names(void **state)
{
	(void)state;
	for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++)
		assert_int_equal(log_level_parse(log_level_name((enum log_level)i)), i);
	assert_int_equal(log_level_parse("loud"), -1);
	assert_int_equal(log_level_parse(""), -1);
}

/* What a child writes to a pipe that is its stderr. */
static char *from_child(bool journal, void (*fn)(void))
{
	static char out[1 << 20];
	int fds[2], status;
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct stat st;
		char env[64];
		dup2(fds[1], STDERR_FILENO);
		fstat(STDERR_FILENO, &st);
		snprintf(env, sizeof env, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino + !journal);
		setenv("JOURNAL_STREAM", env, 1);
		log_set_sink(NULL, NULL);
		fn();
		_exit(0);
	}
	close(fds[1]);
	size_t len = 0;
	ssize_t n;
	while ((n = read(fds[0], out + len, sizeof out - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = 0;
	close(fds[0]);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	return out;
}

static void one_warning(void) { log_warn("engine", NULL, "careful"); }

static void the_journal_gets_a_prefix(void **state)
{
	(void)state;
	assert_string_equal(from_child(true, one_warning), "<4>level=warn room=engine msg=\"careful\"\n");
	log_set_format(LOG_FORMAT_JSON);
	assert_string_equal(from_child(true, one_warning), "<4>{\"level\":\"warn\",\"room\":\"engine\",\"msg\":\"careful\"}\n");
	/* The variable speaks of another stream than our stderr. */
	assert_memory_equal(from_child(false, one_warning), "{\"ts\":", 6);
}

enum { THREADS = 4, LINES_EACH = 250 };

static void *chatter(void *arg)
{
	for (int i = 0; i < LINES_EACH; i++)
		log_info("engine", NULL, "thread %s says %d", (char *)arg, i);
	return NULL;
}

static void many_threads(void)
{
	static char who[THREADS][2] = { "a", "b", "c", "d" };
	pthread_t t[THREADS];
	for (int i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, chatter, who[i]);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

static void lines_of_threads_are_whole(void **state)
{
	int n = 0, next[THREADS] = { 0 };
	(void)state;
	for (char *rest = from_child(false, many_threads), *line; (line = strsep(&rest, "\n")) && *line; n++) {
		char who;
		int i, end = 0;
		assert_int_equal(sscanf(line, "ts=%*s level=info room=engine msg=\"thread %c says %d\"%n", &who, &i, &end), 2);
		assert_int_equal(end, strlen(line));
		assert_int_equal(next[who - 'a']++, i);
	}
	assert_int_equal(n, THREADS * LINES_EACH);
}

RUN_TESTS(cmocka_unit_test_setup(logfmt, set_up), cmocka_unit_test_setup(json_is_json, set_up),
	cmocka_unit_test_setup(long_messages_are_cut, set_up), cmocka_unit_test_setup(levels_per_room, set_up),
	cmocka_unit_test_setup(the_journal_gets_a_prefix, set_up), cmocka_unit_test_setup(lines_of_threads_are_whole, set_up),
	cmocka_unit_test_setup(rooms_are_listed_once_and_bounded, set_up), cmocka_unit_test(names))
