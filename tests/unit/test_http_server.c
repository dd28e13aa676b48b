/* http: who may ask, and what the server does with connections: limits, slow and vanished clients, streams, reloads. */
#include "base/mem.h"
#include "http/auth.h"
#include "http/http_int.h"
#include "http_kit.h"
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char token[] = "a-token-of-enough-letters";

/* A file in the kit's directory; the caller frees its path. */
static char *write_file(struct kit *k, const char *name, const char *text)
{
	char *path = mem_printf("%s/%s", k->dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return path;
}

static void open_with_token(struct kit *k)
{
	char *path = write_file(k, "token", token);
	char *tokens = mem_printf("http.tokens={\"ops\":{\"file\":\"%s\"},"
				  "\"ci\":{\"sha256\":\"9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08\"}}", path); /* of "test" */
	kit_open(k, (const char *const[]){ tokens, NULL });
	free(tokens);
	unlink(path);
	free(path);
}

/* ---- who may ask ------------------------------------------------------------------------------------------------- */
static void tokens(void **state)
{
	struct kit *k = *state;
	char v[128];
	open_with_token(k);
	double_add(k->engine, "shop");
	struct answer *a = ask(k, "GET", "/jobs", NULL, NULL);
	assert_int_equal(a->status, 401);
	assert_string_equal(answer_code(a), "auth.missing");
	assert_string_equal(answer_header(a, "WWW-Authenticate", v, sizeof v), "Bearer realm=\"dmsr\"");
	answer_free(a);
	expect(k, "GET", "/jobs", "Authorization: Basic b3BzOm9wcw==\r\n", NULL, 401, "auth.missing");
	expect(k, "GET", "/jobs", "Authorization: Bearer wrong\r\n", NULL, 401, "auth.invalid");
	expect(k, "GET", "/jobs", "Authorization: Bearer \r\n", NULL, 401, "auth.invalid");
	expect(k, "GET", "/jobs", "Authorization: Bearer a-token-of-enough-letters-and-more\r\n", NULL, 401, "auth.invalid");
	expect(k, "GET", "/jobs", "Authorization: Bearer a-token-of-enough-letters\r\nAuthorization: Bearer x\r\n", NULL, 401, "auth.invalid");
	expect(k, "GET", "/jobs", "Authorization: Bearer a-token-of-enough-letters\r\n", NULL, 200, NULL);
	expect(k, "POST", "/jobs/shop/pause", "Authorization: bearer   test\r\n", NULL, 202, NULL);
	assert_string_equal(double_seen(k->engine)->actor, "token:ci");
	/* who is not let in learns nothing of what there is, nor makes us read */
	expect(k, "GET", "/nowhere", NULL, NULL, 401, "auth.missing");
	expect(k, "DELETE", "/jobs", NULL, NULL, 401, "auth.missing");
	expect(k, "POST", "/jobs", NULL, "{malformed", 401, "auth.missing");
	expect(k, "GET", "/metrics", NULL, NULL, 401, "auth.missing");
	/* but whether the daemon lives, anybody may know */
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	expect(k, "GET", "/readyz", NULL, NULL, 200, NULL);
	expect(k, "GET", "/readyz?verbose=1", NULL, NULL, 401, "auth.missing");
	expect(k, "GET", "/readyz?verbose=1", "Authorization: Bearer test\r\n", NULL, 200, NULL);
}

static void a_key_belongs_to_who_uses_it(void **state)
{
	struct kit *k = *state;
	open_with_token(k);
	expect(k, "POST", "/jobs", "Authorization: Bearer test\r\nIdempotency-Key: abc\r\n", "{\"name\":\"shop\"}", 201, NULL);
	expect(k, "POST", "/jobs", "Authorization: Bearer a-token-of-enough-letters\r\nIdempotency-Key: abc\r\n", "{\"name\":\"shop\"}", 409, "job.exists");
}

static void the_socket_needs_no_token(void **state)
{
	struct kit *k = *state;
	char actor[64];
	struct stat st;
	open_with_token(k);
	double_add(k->engine, "shop");
	assert_int_equal(stat(k->socket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	struct client *c = dial_unix(k);
	say(c, "POST /jobs/shop/pause HTTP/1.1\r\nHost: whatever.example\r\nConnection: close\r\n\r\n");
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	assert_int_equal(a->status, 202);
	answer_free(a);
	hang_up(c);
	snprintf(actor, sizeof actor, "socket:uid %ld", (long)getuid());
	assert_string_equal(double_seen(k->engine)->actor, actor);
	kit_close(k);
	assert_int_equal(access(k->socket, F_OK), -1);
}

static void bad_tokens(void **state)
{
	(void)state;
	static const char *const bad[] = { "{\"a\":\"hunter2hunter2hunter2\"}", "{\"a\":{\"sha256\":\"12\"}}", "{\"a\":{\"file\":\"/nowhere/at/all\"}}",
		"{\"a\":{\"env\":\"DMSR_TEST_SHORT\"}}", "[]", "{\"a\":{}}" };
	setenv("DMSR_TEST_SHORT", "tooshort", 1);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct err e = { 0 };
		json_t *o = json_loads(bad[i], 0, NULL);
		assert_null(auth_new(o, NULL, NULL, &e));
		assert_string_equal(e.id, "http.token");
		assert_null(strstr(e.message, "hunter2"));
		assert_null(strstr(e.message, "tooshort"));
		json_decref(o);
	}
}

/* A request with these header lines and no other; its status. */
static int raw(struct kit *k, const char *head)
{
	struct client *c = dial(k);
	say(c, "%s", head);
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	int status = a->status;
	if (status >= 400)
		answer_code(a);
	answer_free(a);
	hang_up(c);
	return status;
}

static void host_names(void **state)
{
	struct kit *k = *state;
	static const struct { const char *host; int status; } cases[] = {
		{ "localhost", 200 }, { "LOCALHOST:8080", 200 }, { "127.0.0.1:1", 200 }, { "10.1.2.3", 200 }, { "[::1]", 200 },
		{ "[::1]:8080", 200 }, { "dmsr.example", 200 }, { "DMSR.example:443", 200 }, { "evil.example", 421 },
		{ "dmsr.example.evil.example", 421 }, { "localhost.evil.example", 421 }, { "127.0.0.1.evil.example", 421 },
		{ "localhost:", 200 }, { "localhost:x", 400 }, { "localhost:80@evil", 400 }, { "[::1", 421 }, { "::1", 400 },
		{ "", 400 }, { "0x7f.1", 421 }, { "local host", 421 },
	};
	kit_open(k, (const char *const[]){ "http.allowed_hosts=[\"dmsr.example\"]", NULL });
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char head[256];
		snprintf(head, sizeof head, "GET /livez HTTP/1.1\r\nConnection: close\r\nHost: %s\r\n\r\n", cases[i].host);
		int status = raw(k, head);
		if (status != cases[i].status)
			fail_msg("Host \"%s\": %d", cases[i].host, status);
	}
	struct client *c = dial(k);
	say(c, "GET /livez HTTP/1.1\r\nConnection: close\r\nHost: evil.example:80\r\n\r\n");
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	assert_string_equal(answer_code(a), "host.not-allowed");
	assert_non_null(strstr(a->body, "\\\"evil.example\\\" is not served here"));
	assert_non_null(strstr(a->body, "http.allowed_hosts"));
	answer_free(a);
	hang_up(c);
	assert_int_equal(raw(k, "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n"), 400);
	assert_int_equal(raw(k, "GET /livez HTTP/1.0\r\n\r\n"), 400);
	assert_int_equal(raw(k, "GET /livez HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"), 400);
}

static void origins(void **state)
{
	struct kit *k = *state;
	char v[256];
	kit_open(k, (const char *const[]){ "http.allowed_origins=[\"https://ui.example\"]", NULL });
	double_add(k->engine, "shop");
	expect(k, "POST", "/jobs/shop/pause", "Origin: http://localhost\r\n", NULL, 202, NULL);
	expect(k, "POST", "/jobs/shop/pause", "Origin: https://localhost\r\n", NULL, 403, "origin.not-allowed");
	expect(k, "POST", "/jobs/shop/pause", "Origin: http://localhost:81\r\n", NULL, 403, "origin.not-allowed");
	expect(k, "POST", "/jobs/shop/pause", "Origin: http://evil.example\r\n", NULL, 403, "origin.not-allowed");
	expect(k, "POST", "/jobs/shop/pause", "Origin: null\r\n", NULL, 403, "origin.not-allowed");
	expect(k, "GET", "/jobs", "Origin: http://evil.example\r\n", NULL, 403, "origin.not-allowed");
	expect(k, "OPTIONS", "/jobs", "Origin: http://evil.example\r\n", NULL, 403, "origin.not-allowed");
	assert_int_equal(double_seen(k->engine)->ncalls, 1);
	struct answer *a = ask(k, "GET", "/jobs", "Origin: https://ui.example\r\n", NULL);
	assert_string_equal(answer_header(a, "Access-Control-Allow-Origin", v, sizeof v), "https://ui.example");
	assert_string_equal(answer_header(a, "Vary", v, sizeof v), "Origin");
	answer_free(a);
	a = ask(k, "OPTIONS", "/jobs/shop", "Origin: https://ui.example\r\nAccess-Control-Request-Method: PATCH\r\n", NULL);
	assert_int_equal(a->status, 204);
	assert_non_null(strstr(answer_header(a, "Access-Control-Allow-Methods", v, sizeof v), "PATCH"));
	assert_non_null(strstr(answer_header(a, "Access-Control-Allow-Headers", v, sizeof v), "If-Match"));
	answer_free(a);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */
static void fails_to_open(struct kit *k, const char *const *more, const char *id)
{
	struct err e = { 0 };
	struct http *h = NULL;
	struct config *c = kit_config(k, more);
	int rc = kit_http_open(k->loop, c, k->engine, &h, &e);
	config_free(c);
	assert_true(rc < 0);
	assert_string_equal(e.id, id);
}

static void a_port_that_is_taken(void **state)
{
	struct kit *k = *state;
	char listen[64];
	kit_open(k, NULL);
	snprintf(listen, sizeof listen, "http.listen=%s", http_address(k->http));
	fails_to_open(k, (const char *const[]){ listen, "http.socket=", NULL }, "http.port-taken");
	fails_to_open(k, NULL, "http.socket-taken");
	/* the one that was there is not disturbed */
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	struct client *c = dial_unix(k);
	say(c, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	assert_true(hear_until(c, "200 OK"));
	hang_up(c);
}

static void a_socket_left_by_a_dead_daemon_is_taken_over(void **state)
{
	struct kit *k = *state;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	snprintf(a.sun_path, sizeof a.sun_path, "%s", k->socket);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	close(fd);
	kit_open(k, (const char *const[]){ "http.listen=", NULL });
	assert_string_equal(http_address(k->http), "");
	struct client *c = dial_unix(k);
	say(c, "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n");
	assert_true(hear_until(c, "200 OK"));
	hang_up(c);
	kit_close(k);
	/* but what is no socket is somebody's file */
	FILE *f = fopen(k->socket, "w");
	assert_non_null(f);
	fclose(f);
	fails_to_open(k, NULL, "http.socket");
}

/* ---- suspended requests ------------------------------------------------------------------------------------------ */
static struct client *start_pause(struct kit *k)
{
	struct client *c = dial(k);
	say(c, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
	return c;
}

static void a_client_vanishes_while_the_engine_works(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	double_add(k->engine, "shop");
	double_hold(k->engine, true);
	struct client *stays = start_pause(k), *goes = start_pause(k);
	kit_held(k, 2);
	hang_up(goes);
	kit_turn(k, 30);
	double_hold(k->engine, false);
	hear(stays);
	assert_non_null(strstr(stays->data, "202 Accepted"));
	hang_up(stays);
	kit_turn(k, 30);
	struct answer *a = ask(k, "GET", "/metrics", NULL, NULL);
	assert_non_null(strstr(a->body, "\ndmsr_http_connections 1\n"));
	answer_free(a);
}

static void an_engine_that_is_late(void **state)
{
	struct kit *k = *state;
	kit_open(k, (const char *const[]){ "http.timeout=1s", NULL });
	double_add(k->engine, "shop");
	double_hold(k->engine, true);
	struct client *c = start_pause(k);
	kit_turn(k, 500);
	expect(k, "GET", "/jobs", NULL, NULL, 200, NULL); /* others are served */
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	assert_int_equal(a->status, 504);
	assert_string_equal(answer_code(a), "timeout");
	answer_free(a);
	hang_up(c);
	double_hold(k->engine, false);
	kit_turn(k, 30); /* its answer finds nobody */
	expect(k, "POST", "/jobs/shop/pause", NULL, NULL, 202, NULL);
}

static void closed_while_requests_wait(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	double_add(k->engine, "shop");
	double_hold(k->engine, true);
	double_hold_store(k->engine, true);
	struct client *c = start_pause(k), *keyed = dial(k), *stream = dial(k), *half = dial(k);
	say(keyed, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: a\r\n\r\n");
	say(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
	say(half, "POST /jobs HTTP/1.1\r\nHost: loc");
	assert_true(hear_until(stream, "retry:"));
	kit_held(k, 1);
	kit_close(k);
	hear(c);
	hear(keyed);
	hear(stream);
	hear(half);
	assert_non_null(strstr(c->data, "503 "));
	assert_non_null(strstr(c->data, "\"code\":\"draining\""));
	assert_non_null(strstr(keyed->data, "503 "));
	assert_non_null(strstr(stream->data, "\r\n0\r\n\r\n")); /* whole */
	hang_up(c);
	hang_up(keyed);
	hang_up(stream);
	hang_up(half);
	/* the engine's answers come after the server is gone */
	double_hold(k->engine, false);
	double_hold_store(k->engine, false);
	kit_turn(k, 30);
	/* and one whose key was being kept */
	kit_open(k, NULL);
	double_hold_store(k->engine, false);
	keyed = dial(k);
	say(keyed, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: b\r\n\r\n");
	double_hold(k->engine, true);
	kit_turn(k, 30);
	double_hold_store(k->engine, true);
	double_hold(k->engine, false);
	kit_turn(k, 30);
	kit_close(k);
	double_hold_store(k->engine, false);
	kit_turn(k, 30);
	hang_up(keyed);
}

/* ---- many and slow ----------------------------------------------------------------------------------------------- */
static void two_hundred_at_once(void **state)
{
	enum { N = 200 };
	struct kit *k = *state;
	struct client *c[N];
	kit_open(k, (const char *const[]){ "http.connections_max=256", "http.connections_per_ip_max=256", NULL });
	double_add(k->engine, "shop");
	double_hold(k->engine, true);
	for (int i = 0; i < N; i++) {
		c[i] = i % 2 ? start_pause(k) : dial(k);
		if (i % 20 == 0)
			kit_turn(k, 1); /* the backlog is 128 */
	}
	for (int i = 0; i < N; i += 2)
		say(c[i], "GET /jobs/shop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
	kit_held(k, N / 2);
	double_hold(k->engine, false);
	for (int i = 0; i < N; i++) {
		hear(c[i]);
		assert_non_null(strstr(c[i]->data, i % 2 ? "202 Accepted" : "200 OK"));
		hang_up(c[i]);
	}
}

static void limits_of_connections(void **state)
{
	struct kit *k = *state;
	kit_open(k, (const char *const[]){ "http.connections_max=3", "http.connections_per_ip_max=2", NULL });
	struct client *a = dial(k), *b = dial(k);
	kit_turn(k, 20);
	struct client *c = dial(k); /* one too many of this address */
	say(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
	hear(c);
	assert_int_equal(c->len, 0);
	hang_up(c);
	hang_up(a);
	kit_turn(k, 20);
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	hang_up(b);
	kit_close(k);
	/* all that there may be: the next waits until there is room, and no longer */
	kit_open(k, (const char *const[]){ "http.connections_max=2", "http.connections_per_ip_max=2", "http.timeout=120s", NULL });
	a = dial(k);
	b = dial(k);
	kit_turn(k, 20);
	c = dial(k);
	say(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
	kit_turn(k, 50);
	assert_int_equal(c->len, 0);
	uint64_t before = loop_now_us(k->loop);
	hang_up(a);
	hear(c);
	assert_non_null(strstr(c->data, "200 OK"));
	assert_true(loop_now_us(k->loop) - before < 100000000);
	hang_up(b);
	hang_up(c);
}

static void slow_clients_are_cut_while_others_are_served(void **state)
{
	struct kit *k = *state;
	kit_open(k, (const char *const[]){ "http.timeout=1s", NULL });
	struct client *head = dial(k), *body = dial(k), *silent = dial(k);
	say(body, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n");
	say(head, "GET /jobs HTTP/1.1\r\nHost: localhost\r\n");
	uint64_t before = loop_now_us(k->loop);
	for (int i = 0; i < 200 && !(head->ended && body->ended && silent->ended); i++) {
		/* each sends something ten times a second: they are never idle */
		say(head, "X-%d: y\r\n", i);
		say(body, " ");
		kit_turn(k, 100);
		expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	}
	assert_true(head->ended && body->ended && silent->ended);
	assert_true(loop_now_us(k->loop) - before > 900000);
	assert_int_equal(double_seen(k->engine)->ncalls, 0);
	hang_up(head);
	hang_up(body);
	hang_up(silent);
	struct answer *a = ask(k, "GET", "/metrics", NULL, NULL);
	const char *cut = strstr(a->body, "\ndmsr_http_connections_cut_total ");
	assert_non_null(cut);
	assert_true(strtol(strchr(cut + 1, ' '), NULL, 10) >= 2);
	answer_free(a);
}

static void a_connection_is_kept(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	struct client *c = dial(k);
	for (int i = 0; i < 5; i++) {
		char needle[48];
		snprintf(needle, sizeof needle, "there is no /path%d here", i);
		say(c, "POST /path%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345", i);
		assert_true(hear_until(c, needle));
	}
	/* two at once, one behind the other */
	say(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
	hear(c);
	assert_non_null(strstr(c->data, "\"status\":\"ok\""));
	assert_non_null(strstr(c->data, "plugin_abi"));
	hang_up(c);
}

static void what_is_no_http(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	static const char *const lines[] = {
		"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
	};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		struct client *c = dial(k);
		say(c, "%s", lines[i]);
		kit_turn(k, 20);
		hang_up(c);
	}
	/* a head without an end */
	struct client *c = dial(k);
	char *line = malloc(40001);
	memset(line, 'x', 40000);
	line[40000] = 0;
	say(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", line);
	free(line);
	hear(c);
	assert_non_null(strstr(c->data, "431 "));
	hang_up(c);
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	assert_int_equal(double_seen(k->engine)->ncalls, 0);
}

/* libmicrohttpd takes apart what stands behind the question mark, too, and has no room for so many: it never asks us, and never says that this was all. */
static void a_request_that_is_never_asked_leaves_nothing(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	char *query = malloc(4 * 1000 + 1);
	for (int i = 0; i < 1000; i++)
		memcpy(query + 4 * i, "a=1&", 5);
	for (int i = 0; i < 3; i++) {
		struct client *c = dial(k);
		say(c, "GET /livez?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", query);
		kit_turn(k, 20);
		hang_up(c);
		kit_turn(k, 20);
	}
	free(query);
	assert_null(k->http->requests);
	assert_null(k->http->conns);
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
}

/* What an intermediary reads otherwise than we do is a second request, smuggled in. */
static void a_body_has_one_length(void **state)
{
	static const char *const framings[] = { "Content-Length: 2\r\nContent-Length: 5\r\n", "Content-Length: 2\r\nContent-Length: 2\r\n",
		"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"Transfer-Encoding: gzip, chunked\r\n" };
	struct kit *k = *state;
	kit_open(k, NULL);
	double_add(k->engine, "shop");
	for (size_t i = 0; i < sizeof framings / sizeof *framings; i++) {
		struct client *c = dial(k);
		say(c, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\n%s\r\n{}POST /jobs/shop/stop HTTP/1.1\r\nHost: localhost\r\n\r\n", framings[i]);
		hear(c);
		assert_non_null(strstr(c->data, "400 "));
		assert_non_null(strstr(c->data, "\"code\":\"header.invalid\""));
		assert_null(strstr(c->data, "202 "));
		hang_up(c);
	}
	assert_int_equal(double_seen(k->engine)->ncalls, 0);
	expect(k, "POST", "/jobs/shop/pause", NULL, "{}", 202, NULL);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */
static struct client *follow(struct kit *k, const char *target, const char *extra)
{
	struct client *c = dial(k);
	say(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n%s\r\n", target, extra);
	assert_true(hear_until(c, "retry: 3000"));
	assert_non_null(strstr(c->data, "Content-Type: text/event-stream\r\n"));
	return c;
}

static void events_are_followed(void **state)
{
	struct kit *k = *state;
	kit_open(k, NULL);
	double_add(k->engine, "shop");
	double_emit(k->engine, "state", "shop", json_pack("{s:s}", "to", "before")); /* nobody listens */
	assert_false(double_wants_progress(k->engine));
	struct client *all = follow(k, "/events", ""), *shop = follow(k, "/jobs/uid-of-shop/events?types=state,error", "");
	assert_true(double_wants_progress(k->engine));
	double_emit(k->engine, "state", "shop", json_pack("{s:s}", "to", "run\nning"));
	double_emit(k->engine, "progress", "shop", json_pack("{s:i}", "rows", 7));
	double_emit(k->engine, "stat", "shop", json_object());
	double_emit(k->engine, "state", "other", NULL);
	double_emit(k->engine, "error", "shop", json_pack("[i]", 1));
	assert_true(hear_until(all, "event: error\ndata: {\"data\":[1],\"job\":\"shop\"}\n\n"));
	assert_true(hear_until(shop, "event: error\n"));
	assert_null(strstr(all->data, "before"));
	assert_non_null(strstr(all->data, "event: state\ndata: {\"to\":\"run\\nning\",\"job\":\"shop\"}\n\n"));
	assert_non_null(strstr(all->data, "event: progress\ndata: {\"rows\":7,\"job\":\"shop\"}\n\n"));
	assert_non_null(strstr(all->data, "\"job\":\"other\""));
	assert_null(strstr(shop->data, "progress"));
	assert_null(strstr(shop->data, "event: stat\n"));
	assert_null(strstr(shop->data, "other"));
	hang_up(all);
	hang_up(shop);
	for (unsigned n = 0; n < 100 && double_wants_progress(k->engine); n++) {
		double_emit(k->engine, "state", "shop", NULL); /* that they are gone is seen when something is sent */
		kit_turn(k, 10);
	}
	assert_false(double_wants_progress(k->engine));
	expect(k, "HEAD", "/events", "Accept: text/event-stream\r\n", NULL, 200, NULL);
	expect(k, "GET", "/events?types=a%20b", "Accept: text/event-stream\r\n", NULL, 400, "query.invalid");
	expect(k, "GET", "/events?cursor=x", "Accept: text/event-stream\r\n", NULL, 400, "query.invalid");
	expect(k, "GET", "/events?order=desc", "Accept: text/event-stream\r\n", NULL, 400, "query.invalid");
	expect(k, "GET", "/events?types=state", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/events?limit=2", "Accept: */*\r\n", NULL, 200, NULL);
	expect(k, "GET", "/jobs/shop/events?types=state", NULL, NULL, 400, "query.invalid");
	expect(k, "GET", "/jobs/nobody/events", "Accept: text/event-stream\r\n", NULL, 404, "job.not-found");
}

/* The newest id that the client has seen, as a header line. */
static void last_id(const struct client *c, char *out, size_t size)
{
	const char *at = NULL;
	for (const char *p = c->data; (p = strstr(p, "\nid: ")); p++)
		at = p + 5;
	assert_non_null(at);
	snprintf(out, size, "Last-Event-ID: %.*s\r\n", (int)strcspn(at, "\n"), at);
}

static void what_was_missed_comes_later(void **state)
{
	struct kit *k = *state;
	char header[80], text[32];
	kit_open(k, NULL);
	struct client *c = follow(k, "/events", "");
	double_emit(k->engine, "state", "a", NULL);
	assert_true(hear_until(c, "\"job\":\"a\"}\n\n"));
	last_id(c, header, sizeof header);
	hang_up(c);
	double_emit(k->engine, "state", "b", NULL);
	double_emit(k->engine, "state", "c", NULL);
	kit_turn(k, 20);
	c = follow(k, "/events", header);
	assert_true(hear_until(c, "\"job\":\"c\"}\n\n"));
	assert_non_null(strstr(c->data, "\"job\":\"b\""));
	assert_null(strstr(c->data, "\"job\":\"a\""));
	assert_null(strstr(c->data, "reset"));
	hang_up(c);
	/* an id of another life, or none */
	static const char *const others[] = { "Last-Event-ID: 00000000-1\r\n", "Last-Event-ID: nonsense\r\n", "Last-Event-ID: 1\r\n" };
	for (size_t i = 0; i < 3; i++) {
		c = follow(k, "/events", others[i]);
		assert_true(hear_until(c, "event: reset\n"));
		hang_up(c);
	}
	/* more happened than is kept */
	for (int i = 0; i < 3000; i++) {
		snprintf(text, sizeof text, "job%d", i);
		double_emit(k->engine, "state", text, NULL);
	}
	c = follow(k, "/events", header);
	assert_true(hear_until(c, "\"job\":\"job2999\"}\n\n"));
	assert_non_null(strstr(c->data, "event: reset\n"));
	assert_null(strstr(c->data, "\"job\":\"job1000\""));
	assert_non_null(strstr(c->data, "\"job\":\"job1976\""));
	hang_up(c);
}

static void a_follower_that_does_not_read(void **state)
{
	struct kit *k = *state;
	char *big = malloc(100001);
	memset(big, 'x', 100000);
	big[100000] = 0;
	kit_open(k, (const char *const[]){ "http.timeout=60s", NULL }); /* it is cut when it takes nothing for so long */
	struct client *c = follow(k, "/events", "");
	loop_io_want(c->io, 0);
	for (int i = 0; i < 200; i++) { /* 20 MB, of which 4 are kept */
		double_emit(k->engine, "state", "shop", json_pack("{s:s, s:i}", "text", big, "n", i));
		if (i % 10 == 0)
			kit_turn(k, 1);
	}
	free(big);
	expect(k, "GET", "/livez", NULL, NULL, 200, NULL);
	loop_io_want(c->io, LOOP_READ);
	double_emit(k->engine, "end", "shop", NULL);
	assert_true(hear_until(c, "event: end\n"));
	assert_non_null(strstr(c->data, "event: reset\n")); /* it is told that it missed something */
	assert_non_null(strstr(c->data, "\"n\":199"));
	hang_up(c);
}

static void too_many_followers(void **state)
{
	struct kit *k = *state;
	struct client *c[4];
	kit_open(k, (const char *const[]){ "http.connections_max=8", "http.connections_per_ip_max=8", NULL });
	for (int i = 0; i < 4; i++)
		c[i] = follow(k, "/events", "");
	expect(k, "GET", "/events", "Accept: text/event-stream\r\n", NULL, 503, "events.too-many");
	hang_up(c[0]);
	double_emit(k->engine, "state", "shop", NULL); /* who is gone is found out when there is something to say */
	kit_turn(k, 50);
	double_emit(k->engine, "state", "shop", NULL);
	kit_turn(k, 50);
	c[0] = follow(k, "/events", "");
	for (int i = 0; i < 4; i++)
		hang_up(c[i]);
}

/* ---- reload ------------------------------------------------------------------------------------------------------ */
static void a_reload_changes_tokens_and_limits(void **state)
{
	struct kit *k = *state;
	struct err e = { 0 };
	open_with_token(k);
	double_add(k->engine, "shop");
	double_hold(k->engine, true);
	struct client *waits = dial(k), *kept = dial(k), *stream = dial(k);
	say(waits, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test\r\n\r\n");
	say(kept, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
	say(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer test\r\n\r\n");
	assert_true(hear_until(kept, "\"ok\""));
	assert_true(hear_until(stream, "retry:"));
	setenv("DMSR_TEST_TOKEN", "another-token-of-letters", 1);
	struct config *c = kit_config(k, (const char *const[]){ "http.tokens={\"new\":{\"env\":\"DMSR_TEST_TOKEN\"}}", "http.body_max=2KiB", NULL });
	assert_int_equal(http_reload(k->http, c, &e), 0);
	config_free(c);
	hear(stream); /* to come again */
	hang_up(stream);
	expect(k, "GET", "/jobs", "Authorization: Bearer test\r\n", NULL, 401, "auth.invalid");
	expect(k, "GET", "/jobs", "Authorization: Bearer another-token-of-letters\r\n", NULL, 200, NULL);
	char *body = malloc(2050);
	memset(body, ' ', 2049);
	body[2049] = 0;
	expect(k, "POST", "/jobs", "Authorization: Bearer another-token-of-letters\r\n", body, 413, "body.too-large");
	free(body);
	/* what was under way goes on, on connections that end now */
	say(kept, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
	hear(kept);
	assert_non_null(strstr(kept->data, "auth.missing"));
	double_hold(k->engine, false);
	hear(waits);
	assert_non_null(strstr(waits->data, "202 Accepted"));
	assert_non_null(strstr(waits->data, "Connection: close"));
	hang_up(kept);
	hang_up(waits);
	/* one that cannot be leaves all as it is */
	unsetenv("DMSR_TEST_TOKEN");
	c = kit_config(k, (const char *const[]){ "http.tokens={\"new\":{\"env\":\"DMSR_TEST_TOKEN\"}}", NULL });
	assert_true(http_reload(k->http, c, &e) < 0);
	assert_string_equal(e.id, "http.token");
	config_free(c);
	expect(k, "GET", "/jobs", "Authorization: Bearer another-token-of-letters\r\n", NULL, 200, NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, kit_set_up_closed, kit_tear_down)
RUN_TESTS(T(tokens), T(a_key_belongs_to_who_uses_it), T(the_socket_needs_no_token),
	cmocka_unit_test(bad_tokens), T(host_names), T(origins), T(a_port_that_is_taken),
	T(a_socket_left_by_a_dead_daemon_is_taken_over), T(a_client_vanishes_while_the_engine_works),
	T(an_engine_that_is_late), T(closed_while_requests_wait), T(two_hundred_at_once), T(limits_of_connections),
	T(slow_clients_are_cut_while_others_are_served), T(a_connection_is_kept), T(what_is_no_http),
	T(a_request_that_is_never_asked_leaves_nothing),
	T(a_body_has_one_length), T(events_are_followed), T(what_was_missed_comes_later), T(a_follower_that_does_not_read),
	T(too_many_followers), T(a_reload_changes_tokens_and_limits))
