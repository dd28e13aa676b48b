/* http_kit: the API on a free port of 127.0.0.1 with a double of the engine, and a client, all in one loop. */
#ifndef DMSR_TESTS_UNIT_HTTP_KIT_H
#define DMSR_TESTS_UNIT_HTTP_KIT_H
#include "base/loop.h"
#include "engine_double.h"
#include "http/http.h"
#include "test.h"

struct kit {
	struct loop *loop;
	struct loop_timer *watchdog;
	struct config *config;
	struct engine *engine;
	struct http *http;
	char dir[64], socket[96];
};
/* More "http.x=y" settings than those that kit_set_up gives; NULL ends them. */
struct config *kit_config(struct kit *k, const char *const *more);
/* http_open and http_serve; closed again when one of them fails. */
int kit_http_open(struct loop *l, const struct config *c, struct engine *g, struct http **out, struct err *e);
void kit_open(struct kit *k, const char *const *more);
void kit_close(struct kit *k);
int kit_set_up(void **state);           /* opened without more */
int kit_set_up_closed(void **state);
int kit_tear_down(void **state);
void kit_turn(struct kit *k, unsigned ms);      /* runs the loop for so long */
void kit_held(struct kit *k, size_t n);         /* until the engine holds n requests */

/* A connection. */
struct client {
	struct kit *kit;
	int fd;
	struct loop_io *io;
	char *data;             /* all that came, NUL behind */
	size_t len;
	bool ended;
	const char *needle;     /* hear_until waits for it */
};
struct client *dial(struct kit *k);
struct client *dial_unix(struct kit *k);
void say(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void say_bytes(struct client *c, const char *bytes, size_t n);
bool hear_until(struct client *c, const char *needle); /* false: it ended without */
void hear(struct client *c);            /* to the end */
void hang_up(struct client *c);

struct answer {
	int status;
	char *head, *body;      /* head with status line and header lines; body decoded of chunks */
	json_t *json;           /* NULL: none */
};
struct answer *answer_parse(const char *data, size_t len);
void answer_free(struct answer *a);
const char *answer_header(const struct answer *a, const char *name, char *out, size_t size); /* NULL: none */
const char *answer_code(const struct answer *a);        /* of a problem; checks its type and status too */

/* One request on a connection of its own. extra: more header lines, each with \r\n; body NULL: none (Content-Type JSON and the length are added). */
struct answer *ask(struct kit *k, const char *method, const char *target, const char *extra, const char *body);
/* The same, and only its status is looked at, and the problem's code when code is given. */
void expect(struct kit *k, const char *method, const char *target, const char *extra, const char *body, int status, const char *code);

#endif
