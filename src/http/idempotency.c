/* idempotency: a POST that is sent again with its Idempotency-Key is done once.
 *
 *   LOOKING --unknown--> RUNNING --success--> KEEPING --durable--> over       looking and keeping wait for the store
 *      \--known, other body, no store--> over    \--failure--> over: the same may be tried again
 *
 * A key belongs to who asks (the actor). The job is durable before its key is: after a crash in between the second try is told job.exists, never made
 * twice. What is kept: the status, body, ETag and Location of the first reply, for 24 hours (engine/store). */
#include "base/mem.h"
#include "http/http_int.h"
#include "http/text.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES_MAX = 255 };
enum key_state { KEY_LOOKING, KEY_RUNNING, KEY_KEEPING };

struct idempotency {
	struct idempotency *prev, *next; /* of all keys of http, which are the keys in flight */
	struct http *http;               /* NULL: closed */
	struct request *request;         /* NULL: gone, or the call has taken the key */
	enum key_state state;
	char key[SHA256_HEX], hash[SHA256_HEX];
	void (*done)(void *arg);
	void *arg;
};

static void key_free(struct idempotency *i)
{
	if (i->request)
		i->request->idempotency = NULL;
	if (i->http) {
		if (i->prev)
			i->prev->next = i->next;
		else
			i->http->keys = i->next;
		if (i->next)
			i->next->prev = i->prev;
	}
	free(i);
}

static void replay(struct reply *out, int status, const char *kept)
{
	json_t *o = json_loads(kept, 0, NULL), *body = json_object_get(o, "body");
	const char *etag = json_string_value(json_object_get(o, "etag")), *location = json_string_value(json_object_get(o, "location"));
	reply_json(out, status, json_incref(body));
	if (etag)
		reply_header(out, "ETag", "%s", etag);
	if (location)
		reply_header(out, "Location", "%s", location);
	reply_header(out, "Idempotency-Replayed", "true");
	json_decref(o);
}

/* The store has looked. Runs what was asked for, or tells what it became the first time. */
static void on_found(void *arg, const char *hash, int status, const char *kept, const struct err *e)
{
	struct idempotency *i = arg;
	struct request *r = i->request;
	if (!r) {
		key_free(i);
		return;
	}
	assert(r->state == REQUEST_WAITING);
	if (err_is_set(e)) {
		reply_problem(&r->reply, e, NULL);
	} else if (hash && strcmp(hash, i->hash) != 0) {
		reply_error(&r->reply, DMSR_EINVAL, "idempotency.mismatch", "this Idempotency-Key came before with another path or body");
	} else if (hash) {
		replay(&r->reply, status, kept);
	} else {
		i->state = KEY_RUNNING;
		r->route->run(r);
		if (!r->reply.status)
			return;
	}
	if (r->idempotency)
		key_free(i);
	request_resume(r);
}

static bool is_key(const char *key)
{
	size_t n = strlen(key);
	for (size_t i = 0; i < n; i++)
		if (key[i] < 0x21 || key[i] > 0x7e)
			return false;
	return n > 0 && n <= KEY_BYTES_MAX;
}

static struct idempotency *key_new(struct request *r, const char *key)
{
	struct idempotency *i = mem_zalloc(sizeof *i);
	struct buf b;
	buf_init(&b, SIZE_MAX / 2);
	buf_printf(&b, "%s %s", r->actor, key);
	sha256_hex(b.data, b.len, i->key);
	buf_reset(&b);
	buf_str(&b, r->uri.path);
	for (size_t p = 0; p < r->uri.nparams; p++)
		buf_printf(&b, "&%s=%s", r->uri.params[p].name, r->uri.params[p].value);
	buf_byte(&b, '\n');
	buf_append(&b, r->body.data, r->body.len);
	sha256_hex(b.data, b.len, i->hash);
	explicit_bzero(b.data, b.len);
	buf_fini(&b);
	i->http = r->http;
	return i;
}

bool idempotency_begin(struct request *r)
{
	const char *key = request_header(r, "Idempotency-Key");
	if (!key)
		return false;
	if (!is_key(key)) {
		reply_error(&r->reply, DMSR_EINVAL, "header.invalid", "Idempotency-Key must be 1 to %d visible ASCII characters", KEY_BYTES_MAX);
		return true;
	}
	struct idempotency *i = key_new(r, key);
	for (struct idempotency *other = r->http->keys; other; other = other->next) {
		if (strcmp(other->key, i->key) != 0)
			continue;
		free(i);
		reply_error(&r->reply, DMSR_ESTATE, "idempotency.in-flight", "the first request with this Idempotency-Key is not answered yet");
		reply_header(&r->reply, "Retry-After", "1");
		return true;
	}
	i->request = r;
	r->idempotency = i;
	i->next = r->http->keys;
	if (i->next)
		i->next->prev = i;
	r->http->keys = i;
	store_idem_get(engine_store(r->http->engine), i->key, on_found, i);
	return true;
}

void idempotency_forget(struct request *r)
{
	if (r->idempotency)
		r->idempotency->request = NULL; /* the store's answer frees it */
	r->idempotency = NULL;
}

struct idempotency *idempotency_take(struct request *r)
{
	struct idempotency *i = r->idempotency;
	if (i)
		i->request = NULL;
	r->idempotency = NULL;
	return i;
}

/* Not durable: the client is told its success all the same; only a second try would not be known. The store has told on_failed. */
static void on_kept(void *arg, const struct err *e)
{
	struct idempotency *i = arg;
	(void)e;
	i->done(i->arg);
	key_free(i);
}

void idempotency_end(struct idempotency *i, const struct reply *reply, void (*done)(void *arg), void *arg)
{
	if (!i->http || reply->status < 200 || reply->status > 299) {
		done(arg);
		key_free(i);
		return;
	}
	json_t *o = json_object(), *body = reply->body ? json_loadb(reply->body, reply->len, JSON_DECODE_ANY, NULL) : NULL;
	for (size_t n = 0; n < reply->nheaders; n++) {
		if (!strcmp(reply->headers[n].name, "ETag"))
			json_object_set_new(o, "etag", text_json(reply->headers[n].value));
		if (!strcmp(reply->headers[n].name, "Location"))
			json_object_set_new(o, "location", text_json(reply->headers[n].value));
	}
	if (body)
		json_object_set_new(o, "body", body);
	char *text = json_dumps(o, TEXT_JSON);
	json_decref(o);
	i->state = KEY_KEEPING;
	i->done = done;
	i->arg = arg;
	store_idem_put(engine_store(i->http->engine), i->key, i->hash, reply->status, text, on_kept, i);
	free(text);
}

void idempotency_forget_http(struct http *h)
{
	for (struct idempotency *i = h->keys, *next; i; i = next) {
		next = i->next;
		i->prev = i->next = NULL;
		i->http = NULL;
		i->request = NULL;
	}
	h->keys = NULL;
}
