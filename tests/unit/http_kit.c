/* http_kit: the API and a client in one loop. */
#include "http_kit.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void on_watchdog(void *arg)
{
	(void)arg;
	fputs("the loop was never stopped\n", stderr);
	abort();
}

struct config *kit_config(struct kit *k, const char *const *more)
{
	char file[96], socket[128];
	const char *all[32] = { "http.listen=127.0.0.1:0", socket, "http.timeout=2s" };
	size_t n = 3;
	problems *p = json_array();
	struct err e = { 0 };
	for (; more && *more; more++)
		all[n++] = *more;
	snprintf(file, sizeof file, "%s/dmsrd.json", k->dir);
	snprintf(socket, sizeof socket, "http.socket=%s", k->socket);
	struct config *c = config_load(&(struct config_source){ .file = file, .overrides = all, .noverrides = n }, p, &e);
	if (!c)
		fail_msg("%s", json_dumps(p, 0));
	json_decref(p);
	return c;
}

int kit_http_open(struct loop *l, const struct config *c, struct engine *g, struct http **out, struct err *e)
{
	struct http *h;
	int rc = http_open(l, c, &h, e);
	if (rc)
		return rc;
	rc = http_serve(h, c, g, e);
	if (rc)
		http_close(h);
	else
		*out = h;
	return rc;
}

void kit_open(struct kit *k, const char *const *more)
{
	struct err e = { 0 };
	k->config = kit_config(k, more);
	if (kit_http_open(k->loop, k->config, k->engine, &k->http, &e))
		fail_msg("%s: %s", e.id, e.message);
}

void kit_close(struct kit *k)
{
	http_close(k->http);
	k->http = NULL;
	config_free(k->config);
	k->config = NULL;
}

int kit_set_up_closed(void **state)
{
	struct kit *k = mem_zalloc(sizeof *k);
	log_set_level(NULL, getenv("DMSR_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
	test_directory(k->dir, sizeof k->dir, "http");
	snprintf(k->socket, sizeof k->socket, "%s/api.sock", k->dir);
	char file[96];
	snprintf(file, sizeof file, "%s/dmsrd.json", k->dir);
	FILE *f = fopen(file, "w");
	assert_non_null(f);
	fputs("{}", f);
	fclose(f);
	k->loop = loop_new();
	k->watchdog = loop_timer_new(k->loop, "test", on_watchdog, NULL);
	loop_timer_start(k->watchdog, 600000);
	k->engine = double_new(k->loop);
	*state = k;
	return 0;
}

int kit_set_up(void **state)
{
	kit_set_up_closed(state);
	kit_open(*state, NULL);
	return 0;
}

int kit_tear_down(void **state)
{
	struct kit *k = *state;
	char command[128];
	kit_close(k);
	double_free(k->engine);
	loop_timer_free(k->watchdog);
	loop_free(k->loop);
	snprintf(command, sizeof command, "%s/dmsrd.json", k->dir);
	unlink(command);
	unlink(k->socket);
	rmdir(k->dir);
	free(k);
	return 0;
}

static void on_enough(void *arg) { loop_stop(arg); }

void kit_turn(struct kit *k, unsigned ms)
{
	struct loop_timer *t = loop_timer_new(k->loop, "test", on_enough, k->loop);
	loop_timer_start(t, ms);
	loop_run(k->loop);
	loop_timer_free(t);
}

void kit_held(struct kit *k, size_t n)
{
	while (double_held(k->engine) < n)
		kit_turn(k, 5);
	assert_int_equal(double_held(k->engine), n);
}

/* ---- a connection ------------------------------------------------------------------------------------------------ */
static void on_readable(void *arg, unsigned ready)
{
	struct client *c = arg;
	char piece[65536];
	(void)ready;
	ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		c->ended = true;
		loop_io_want(c->io, 0);
	} else {
		c->data = mem_realloc(c->data, c->len + (size_t)n + 1);
		memcpy(c->data + c->len, piece, (size_t)n);
		c->len += (size_t)n;
		c->data[c->len] = 0;
	}
	if (c->ended || (c->needle && c->data && strstr(c->data, c->needle)))
		loop_stop(c->kit->loop);
}

static struct client *client_new(struct kit *k, const struct sockaddr *a, socklen_t n)
{
	struct client *c = mem_zalloc(sizeof *c);
	c->kit = k;
	c->fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c->fd, a, n), 0); /* the backlog takes it before the loop turns */
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	c->io = loop_io_new(k->loop, "test", c->fd, on_readable, c);
	loop_io_want(c->io, LOOP_READ);
	return c;
}

struct client *dial(struct kit *k)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	const char *address = http_address(k->http);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
	return client_new(k, (struct sockaddr *)&a, sizeof a);
}

struct client *dial_unix(struct kit *k)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	snprintf(a.sun_path, sizeof a.sun_path, "%s", k->socket);
	return client_new(k, (struct sockaddr *)&a, sizeof a);
}

void say_bytes(struct client *c, const char *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN) {
			kit_turn(c->kit, 2);
			continue;
		}
		if (sent <= 0)
			return; /* the server hung up: what it said is read later */
		bytes += sent;
		n -= (size_t)sent;
	}
}

void say(struct client *c, const char *fmt, ...)
{
	va_list ap;
	char *text = NULL;
	va_start(ap, fmt);
	assert_true(vasprintf(&text, fmt, ap) >= 0);
	va_end(ap);
	say_bytes(c, text, strlen(text));
	free(text);
}

bool hear_until(struct client *c, const char *needle)
{
	c->needle = needle;
	while (!c->ended && !(c->data && strstr(c->data, needle)))
		loop_run(c->kit->loop);
	c->needle = NULL;
	return c->data && strstr(c->data, needle);
}

void hear(struct client *c)
{
	while (!c->ended)
		loop_run(c->kit->loop);
}

void hang_up(struct client *c)
{
	if (!c)
		return;
	loop_io_free(c->io);
	close(c->fd);
	free(c->data);
	free(c);
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */
static char *dechunk(const char *p)
{
	struct buf b;
	buf_init(&b, SIZE_MAX / 2);
	char *end;
	size_t n;
	while ((n = strtoul(p, &end, 16)) > 0) {
		p = strstr(end, "\r\n") + 2;
		buf_append(&b, p, strnlen(p, n));
		p += strnlen(p, n);
		p += *p ? 2 : 0;
	}
	char *text = mem_strndup(b.len ? b.data : "", b.len);
	buf_fini(&b);
	return text;
}

struct answer *answer_parse(const char *data, size_t len)
{
	struct answer *a = mem_zalloc(sizeof *a);
	const char *blank = data ? strstr(data, "\r\n\r\n") : NULL;
	char text[64];
	if (!blank)
		fail_msg("no answer: %.*s", (int)len, data ? data : "");
	a->status = (int)strtol(data + 9, NULL, 10);
	a->head = mem_strndup(data, (size_t)(blank - data) + 2);
	a->body = answer_header(a, "Transfer-Encoding", text, sizeof text) ? dechunk(blank + 4) : mem_strdup(blank + 4);
	a->json = json_loads(a->body, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
	return a;
}

void answer_free(struct answer *a)
{
	free(a->head);
	free(a->body);
	json_decref(a->json);
	free(a);
}

const char *answer_header(const struct answer *a, const char *name, char *out, size_t size)
{
	size_t n = strlen(name);
	for (const char *line = strstr(a->head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, n) != 0 || line[n] != ':')
			continue;
		const char *value = line + n + 1 + strspn(line + n + 1, " ");
		snprintf(out, size, "%.*s", (int)strcspn(value, "\r"), value);
		return out;
	}
	return NULL;
}

const char *answer_code(const struct answer *a)
{
	char type[64];
	const char *code = json_string_value(json_object_get(a->json, "code"));
	assert_non_null(answer_header(a, "Content-Type", type, sizeof type));
	if (strcmp(type, "application/problem+json") != 0 || !code)
		fail_msg("no problem but %s: %s", type, a->body);
	assert_int_equal(json_integer_value(json_object_get(a->json, "status")), a->status);
	assert_non_null(json_object_get(a->json, "title"));
	return code;
}

struct answer *ask(struct kit *k, const char *method, const char *target, const char *extra, const char *body)
{
	struct client *c = dial(k);
	say(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, target, extra ? extra : "");
	if (body && (!extra || !strcasestr(extra, "content-type")))
		say(c, "Content-Type: application/json\r\n");
	if (body)
		say(c, "Content-Length: %zu\r\n", strlen(body));
	say(c, "\r\n%s", body ? body : "");
	hear(c);
	struct answer *a = answer_parse(c->data, c->len);
	hang_up(c);
	return a;
}

void expect(struct kit *k, const char *method, const char *target, const char *extra, const char *body, int status, const char *code)
{
	struct answer *a = ask(k, method, target, extra, body);
	if (a->status != status)
		fail_msg("%s %s: %d, not %d: %s", method, target, a->status, status, a->body);
	if (code && strcmp(method, "HEAD") != 0)
		assert_string_equal(answer_code(a), code);
	answer_free(a);
}
