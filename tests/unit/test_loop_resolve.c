/* loop_resolve: against a name server of the test's own on the loopback. */
#include "base/buf.h"
#include "base/cursor.h"
#include "base/loop.h"
#include "base/loop_internal.h"
#include "base/mem.h"
#include "test.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <strings.h>
#include <unistd.h>

struct scene {
	struct loop *loop;
	struct loop_timer *watchdog;
	struct loop_io *server;
	int fd;
	int questions;
	char conf[64];
	bool inside_start;
	int answers, n;
	char addrs[16][64];
	bool failed;
	struct err err;
};

static void on_watchdog(void *arg)
{
	(void)arg;
	fputs("no answer came\n", stderr);
	abort();
}

enum { NOERROR = 0, SERVFAIL = 2, NXDOMAIN = 3 };

/* The answer to one question, by its first label: a and b have addresses, nodata has none, broken fails, mute is not answered. */
static void on_question(void *arg, unsigned ready)
{
	struct scene *s = arg;
	unsigned char bytes[1500];
	struct sockaddr_in from;
	socklen_t from_len = sizeof from;
	(void)ready;
	ssize_t n = recvfrom(s->fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &from_len);
	if (n < 0)
		return;
	s->questions++;
	struct cursor c;
	cursor_init(&c, bytes, (size_t)n);
	uint16_t id = cursor_be16(&c);
	cursor_bytes(&c, 10);
	const char *name = (const char *)c.at;
	uint8_t len = cursor_u8(&c);
	char label[64] = "";
	memcpy(label, cursor_bytes(&c, len), len);
	while ((len = cursor_u8(&c)))
		cursor_bytes(&c, len);
	uint16_t type = cursor_be16(&c);
	cursor_be16(&c);
	assert_false(c.bad);
	if (!strcasecmp(label, "mute"))
		return;

	bool has = !strcasecmp(label, "a") || (!strcasecmp(label, "b") && type == 1);
	bool known = has || !strcasecmp(label, "b") || !strcasecmp(label, "nodata");
	struct buf b;
	buf_init(&b, sizeof bytes);
	buf_u16(&b, id);
	buf_u16(&b, (uint16_t)(0x8180 | (known ? NOERROR : !strcasecmp(label, "broken") ? SERVFAIL : NXDOMAIN)));
	buf_u16(&b, 1);
	buf_u16(&b, has);
	buf_u32(&b, 0);
	buf_append(&b, name, (size_t)((const char *)c.at - name));
	if (has) {
		buf_u16(&b, 0xc00c);
		buf_u16(&b, type);
		buf_u16(&b, 1);
		buf_u32(&b, 60);
		buf_u16(&b, type == 1 ? 4 : 16);
		buf_append(&b, type == 1 ? "\x0a\x01\x02\x03" : "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07", type == 1 ? 4 : 16);
	}
	assert_int_equal(sendto(s->fd, b.data, b.len, 0, (struct sockaddr *)&from, from_len), b.len);
	buf_fini(&b);
}

static void write_conf(struct scene *s)
{
	struct sockaddr_in me = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof me;
	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&me, len), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&me, &len), 0);
	snprintf(s->conf, sizeof s->conf, "/tmp/dmsr-test-resolv-XXXXXX");
	int conf = mkstemp(s->conf);
	assert_true(conf >= 0);
	dprintf(conf, "nameserver 127.0.0.1:%d\noptions timeout:1 attempts:1\n", ntohs(me.sin_port));
	close(conf);
}

static int set_up(void **state)
{
	struct scene *s = mem_zalloc(sizeof *s);
	s->loop = loop_new();
	s->watchdog = loop_timer_new(s->loop, "test", on_watchdog, NULL);
	loop_timer_start(s->watchdog, 600000);
	write_conf(s);
	loop_resolve_conf = s->conf;
	s->server = loop_io_new(s->loop, "test", s->fd, on_question, s);
	loop_io_want(s->server, LOOP_READ);
	*state = s;
	return 0;
}

static int tear_down(void **state)
{
	struct scene *s = *state;
	loop_timer_free(s->watchdog);
	loop_io_free(s->server);
	loop_free(s->loop);
	close(s->fd);
	unlink(s->conf);
	free(s);
	return 0;
}

static void on_addresses(void *arg, const struct sockaddr_storage *addrs, int n, const struct err *e)
{
	struct scene *s = arg;
	assert_false(s->inside_start);
	assert_true((n == 0) == (e != NULL));
	s->answers++;
	s->n = n;
	s->failed = e != NULL;
	if (e)
		s->err = *e;
	for (int i = 0; i < n; i++) {
		char text[INET6_ADDRSTRLEN];
		const struct sockaddr_in *four = (const struct sockaddr_in *)&addrs[i];
		const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&addrs[i];
		bool is_four = addrs[i].ss_family == AF_INET;
		inet_ntop(addrs[i].ss_family, is_four ? (const void *)&four->sin_addr : &six->sin6_addr, text, sizeof text);
		snprintf(s->addrs[i], sizeof s->addrs[i], "%s %d", text, ntohs(is_four ? four->sin_port : six->sin6_port));
	}
	loop_stop(s->loop);
}

static struct loop_resolve *start(struct scene *s, const char *host)
{
	s->inside_start = true;
	struct loop_resolve *r = loop_resolve_start(s->loop, host, 5432, on_addresses, s);
	s->inside_start = false;
	return r;
}

static void ask(struct scene *s, const char *host)
{
	int before = s->answers;
	start(s, host);
	loop_run(s->loop);
	assert_int_equal(s->answers, before + 1);
}

static void numeric_asks_nobody(void **state)
{
	struct scene *s = *state;
	ask(s, "192.0.2.7");
	assert_int_equal(s->n, 1);
	assert_string_equal(s->addrs[0], "192.0.2.7 5432");
	ask(s, "2001:db8::1");
	assert_int_equal(s->n, 1);
	assert_string_equal(s->addrs[0], "2001:db8::1 5432");
	assert_int_equal(s->questions, 0);
}

static void localhost_asks_nobody(void **state)
{
	struct scene *s = *state;
	static const char *const names[] = { "localhost", "LocalHost", "localhost.", "db.localhost" };
	for (size_t i = 0; i < 4; i++) {
		ask(s, names[i]);
		assert_int_equal(s->n, 2);
		assert_string_equal(s->addrs[0], "::1 5432");
		assert_string_equal(s->addrs[1], "127.0.0.1 5432");
	}
	assert_int_equal(s->questions, 0);
}

static void names_have_addresses(void **state)
{
	struct scene *s = *state;
	ask(s, "a.example");
	assert_int_equal(s->n, 2);
	assert_string_equal(s->addrs[0], "10.1.2.3 5432");
	assert_string_equal(s->addrs[1], "fd00::7 5432");
	ask(s, "b.example");
	assert_int_equal(s->n, 1);
	assert_string_equal(s->addrs[0], "10.1.2.3 5432");
}

static void an_unknown_name_is_final(void **state)
{
	struct scene *s = *state;
	ask(s, "nobody.example");
	assert_true(s->failed);
	assert_int_equal(s->err.code, DMSR_ENOTFOUND);
	assert_string_equal(s->err.id, "resolve.unknown");
	assert_false(s->err.retriable);
	assert_non_null(strstr(s->err.message, "nobody.example"));
}

static void what_is_no_name_is_not_sent(void **state)
{
	struct scene *s = *state;
	char label[65] = "", whole[300] = "";
	memset(label, 'x', 64);
	for (int i = 0; i < 60; i++)
		memcpy(whole + 4 * i, "abc.", 4);
	memcpy(whole + 240, "0123456789abcd", 14);
	const char *const names[] = { "", ".", "..", ".a", "a..b", label, whole };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		ask(s, names[i]);
		assert_string_equal(s->err.id, "resolve.unknown");
	}
	assert_int_equal(s->questions, 0);
	ask(s, label + 1);
	ask(s, whole + 1);
	assert_true(s->questions > 0);
}

static void a_failing_server_may_be_asked_again(void **state)
{
	struct scene *s = *state;
	static const char *const names[] = { "broken.example", "mute.example", "nodata.example" };
	for (size_t i = 0; i < 3; i++) {
		ask(s, names[i]);
		assert_true(s->failed);
		assert_int_equal(s->err.code, DMSR_EIO);
		assert_string_equal(s->err.id, "resolve.failed");
		assert_true(s->err.retriable);
	}
}

static void without_a_file_localhost_still_works(void **state)
{
	struct scene *s = *state;
	loop_resolve_conf = "/nonexistent/resolv.conf";
	ask(s, "localhost");
	assert_int_equal(s->n, 2);
}

/* Leaks are the sanitizer's to see. */
static void a_cancelled_question_is_silent(void **state)
{
	struct scene *s = *state;
	loop_resolve_cancel(NULL);
	loop_resolve_cancel(start(s, "192.0.2.7"));
	loop_resolve_cancel(start(s, "localhost"));
	loop_resolve_cancel(start(s, "a.example"));
	loop_resolve_cancel(start(s, "mute.example"));
	ask(s, "b.example");
	assert_int_equal(s->answers, 1);
	loop_resolve_cancel(start(s, "mute.example")); /* and the loop goes at once */
}

static void many_at_once(void **state)
{
	struct scene *s = *state;
	for (int i = 0; i < 20; i++)
		start(s, i % 2 ? "a.example" : "localhost");
	while (s->answers < 20)
		loop_run(s->loop);
	assert_int_equal(s->answers, 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
RUN_TESTS(TEST(numeric_asks_nobody), TEST(localhost_asks_nobody), TEST(names_have_addresses), TEST(an_unknown_name_is_final),
	TEST(what_is_no_name_is_not_sent),
	TEST(a_failing_server_may_be_asked_again), TEST(without_a_file_localhost_still_works),
	TEST(a_cancelled_question_is_silent), TEST(many_at_once))
