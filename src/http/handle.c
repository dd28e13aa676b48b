/* handle: the life of a request, from its first line to its end. libmicrohttpd calls; the states are drawn in http_int.h.
 *
 * What is wrong with a request's head is found at once but told when its body was read (and thrown away): a client that is still writing would be cut
 * off before it reads the answer. Only a client that waits for leave ("Expect") or announces more than we are
 * ready to throw away is answered at once. */
#include "base/log.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "http/body.h"
#include "http/events.h"
#include "http/http_int.h"
#include "http/stat.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { DRAIN_BYTES_MAX = 64 << 20 };

void *on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
	struct served *s = cls;
	struct http *h = s->listener->http;
	struct request *r = mem_zalloc(sizeof *r);
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->http = h;
	r->served = s;
	r->mhd = c;
	r->conn = info->socket_context;
	r->begun_us = loop_now_us(h->loop);
	snprintf(r->id, sizeof r->id, "%08x-%llx", h->boot, (unsigned long long)++h->nrequests);
	r->reply.request_id = r->id;
	buf_init(&r->body, h->limits.body_max);
	r->uri_rc = uri_parse(uri, &r->uri, &r->uri_err);
	r->next = h->requests;
	if (h->requests)
		h->requests->prev = r;
	h->requests = r;
	request_lost(r->conn->request);
	r->conn->request = r;
	return r;
}

static void refuse(struct request *r, const struct err *e) { reply_problem(&r->reply, e, NULL); }

/* ---- the head ---------------------------------------------------------------------------------------------------- */
/* Who asks, as far as they prove it. */
static int identify(struct request *r, struct err *e)
{
	struct ucred peer;
	socklen_t n = sizeof peer;
	if (r->served->listener->local) {
		bool known = getsockopt(r->conn->fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0;
		snprintf(r->actor, sizeof r->actor, "socket:uid %ld", known ? (long)peer.uid : -1L);
		return 0;
	}
	if (!auth_has_tokens(r->http->auth)) {
		snprintf(r->actor, sizeof r->actor, "loopback");
		return 0;
	}
	int rc = request_header_count(r, "Authorization") > 1 ? err_set(e, DMSR_EAUTH, "auth.invalid", "there is more than one Authorization header") :
								auth_token(r->http->auth, request_header(r, "Authorization"), r->actor, sizeof r->actor, e);
	return rc;
}

static int check_host(struct request *r, struct err *e)
{
	const char *host = request_header(r, "Host"), *origin = request_header(r, "Origin");
	bool foreign;
	int rc = 0;
	if (request_header_count(r, "Host") > 1 || request_header_count(r, "Origin") > 1)
		return err_set(e, DMSR_EINVAL, "header.invalid", "there is more than one Host or Origin header");
	if (!r->served->listener->local)
		rc = auth_host(r->http->auth, host, e);
	if (!rc)
		rc = auth_origin(r->http->auth, origin, host, r->served->tls, &foreign, e);
	if (!rc && foreign)
		r->origin = origin;
	return rc;
}

static int check_route(struct request *r, unsigned allow, struct err *e)
{
	char methods[80];
	if (r->uri_rc) {
		*e = r->uri_err;
		return r->uri_rc;
	}
	if (r->route)
		return route_check_query(r->route, &r->uri, e);
	if (allow)
		return err_set(e, DMSR_EINVAL, "method.not-allowed", "%.128s takes %s", r->uri.path, methods_text(allow, methods, sizeof methods));
	char near[NEAREST_MAX + 1];
	err_set(e, DMSR_ENOTFOUND, "path.not-found", "there is no %.128s here", r->uri.path);
	if (route_near(&r->uri, near, sizeof near))
		return err_hint(e, "was \"%s\" meant? GET /openapi.json lists all paths", near);
	return err_hint(e, "GET /openapi.json lists all paths");
}

static int check_head(struct request *r, unsigned allow, struct err *e)
{
	struct err who = { 0 };
	int rc = check_host(r, e);
	if (rc)
		return rc;
	rc = identify(r, &who);
	if (rc && !(r->route && r->route->flags & ROUTE_PUBLIC)) {
		r->http->stat->auth_failures++;
		*e = who;
		return rc;
	}
	return check_route(r, allow, e);
}

/* What a browser asks before it sends a foreign page's request, and what a person asks out of curiosity. */
static void answer_options(struct request *r, unsigned allow)
{
	char methods[80];
	reply_json(&r->reply, 204, NULL);
	reply_header(&r->reply, "Allow", "%s", methods_text(allow | METHOD_OPTIONS, methods, sizeof methods));
	if (!r->origin)
		return;
	reply_header(&r->reply, "Access-Control-Allow-Methods", "%s", methods);
	reply_header(&r->reply, "Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID");
	reply_header(&r->reply, "Access-Control-Max-Age", "600");
}

static bool has_body(const struct request *r)
{
	const char *length = request_header(r, "Content-Length");
	return request_header(r, "Transfer-Encoding") || (length && strtoull(length, NULL, 10) > 0);
}

static int check_body_head(struct request *r, struct err *e)
{
	const char *length = request_header(r, "Content-Length"), *encoding = request_header(r, "Content-Encoding");
	size_t max = r->http->limits.body_max;
	if (length && strtoull(length, NULL, 10) > max)
		return err_set(e, DMSR_EINVAL, "body.too-large", "the body is larger than http.body_max, %zu bytes", max);
	if (!r->route->body)
		return 0;
	if (encoding && strcasecmp(encoding, "identity") != 0)
		return err_set(e, DMSR_EINVAL, "media-type", "Content-Encoding %.40s is not taken", encoding);
	if (body_is_json(request_header(r, "Content-Type"), r->method == METHOD_PATCH))
		return 0;
	err_set(e, DMSR_EINVAL, "media-type", has_body(r) ? "the body's Content-Type is not application/json" : "a JSON body is needed");
	return err_hint(e, "send Content-Type: application/json%s", r->method == METHOD_PATCH ? " or application/merge-patch+json" : "");
}

/* Where a body ends must have one answer, also for whoever stands between the client and us. */
static int check_framing(const struct request *r, struct err *e)
{
	const char *length = request_header(r, "Content-Length"), *coding = request_header(r, "Transfer-Encoding");
	unsigned nlengths = request_header_count(r, "Content-Length"), ncodings = request_header_count(r, "Transfer-Encoding");
	if (nlengths + ncodings > 1)
		return err_set(e, DMSR_EINVAL, "header.invalid", "the length of the body is told more than once");
	if (coding && strcasecmp(coding, "chunked") != 0)
		return err_set(e, DMSR_EINVAL, "header.invalid", "Transfer-Encoding %.40s is not taken: chunked is", coding);
	if (length && (!*length || length[strspn(length, "0123456789")]))
		return err_set(e, DMSR_EINVAL, "header.invalid", "Content-Length %.40s is no number", length);
	return 0;
}

static void look_at_head(struct request *r, const char *method)
{
	struct err e = { 0 };
	unsigned allow = 0;
	r->head = !strcmp(method, "HEAD");
	r->method = method_parse(method);
	if (!r->uri_rc)
		r->route = route_find(r->method, &r->uri, r->args, &allow);
	if (check_framing(r, &e)) {
		r->must_close = true;
		refuse(r, &e);
	} else if (r->method == METHOD_OPTIONS && allow && !check_host(r, &e)) {
		answer_options(r, allow);
	} else if (check_head(r, allow, &e) || check_body_head(r, &e)) {
		char methods[80];
		refuse(r, &e);
		if (r->reply.status == 405)
			reply_header(&r->reply, "Allow", "%s", methods_text(allow, methods, sizeof methods));
		if (r->reply.status == 415)
			reply_header(&r->reply, r->method == METHOD_PATCH ? "Accept-Patch" : "Accept-Post", "application/json%s",
				r->method == METHOD_PATCH ? ", application/merge-patch+json" : "");
	} else if (r->route->flags & ROUTE_CHANGES && engine_is_draining(r->http->engine)) {
		reply_error(&r->reply, DMSR_ESTATE, "draining", "the daemon is stopping and takes no more changes");
	}
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */
/* false: it does not end. */
static bool take_body(struct request *r, const char *data, size_t n)
{
	r->drained += r->reply.status ? n : 0;
	if (r->reply.status || !buf_append(&r->body, data, n))
		return r->drained <= DRAIN_BYTES_MAX;
	reply_error(&r->reply, DMSR_EINVAL, "body.too-large", "the body is larger than http.body_max, %zu bytes", r->http->limits.body_max);
	buf_fini(&r->body);
	buf_init(&r->body, 0);
	return true;
}

static void parse_body(struct request *r)
{
	struct err e;
	problems *found = json_array();
	if (!r->route->body) {
		if (!body_is_empty(r->body.data, r->body.len))
			reply_error(&r->reply, DMSR_EINVAL, "body.unexpected", "%s %s takes no body", method_name(r->method), r->route->pattern);
	} else if (!(r->json = body_parse(r->body.data, r->body.len, found, &e))) {
		reply_problem(&r->reply, &e, found);
	}
	json_decref(found);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */
static void add_headers(struct request *r, struct MHD_Response *m)
{
	MHD_add_response_header(m, "DMSR-Request-Id", r->id);
	MHD_add_response_header(m, "Cache-Control", "no-store");
	MHD_add_response_header(m, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(m, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
	if (r->reply.type && (r->reply.body || r->state == REQUEST_STREAMING))
		MHD_add_response_header(m, "Content-Type", r->reply.type);
	for (size_t i = 0; i < r->reply.nheaders; i++)
		MHD_add_response_header(m, r->reply.headers[i].name, r->reply.headers[i].value);
	if (r->origin) {
		MHD_add_response_header(m, "Access-Control-Allow-Origin", r->origin);
		MHD_add_response_header(m, "Access-Control-Expose-Headers", "ETag, Location, Link, Retry-After, DMSR-Request-Id, Idempotency-Replayed");
		MHD_add_response_header(m, "Vary", "Origin");
	}
	if (r->must_close || r->served->retired || r->http->closing || r->state == REQUEST_STREAMING)
		MHD_add_response_header(m, "Connection", "close");
}

static enum MHD_Result send_reply(struct request *r)
{
	struct MHD_Response *m;
	bool stream = r->state == REQUEST_STREAMING;
	if (stream) {
		m = events_response(r->stream);
	} else {
		m = MHD_create_response_from_buffer(r->reply.len, r->reply.body ? r->reply.body : (char[]){ "" },
			r->reply.body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_MUST_COPY);
		r->state = REQUEST_ANSWERED;
	}
	if (!m)
		return MHD_NO;
	add_headers(r, m);
	if (!stream)
		r->reply.body = NULL; /* m frees it */
	r->conn->deadline_us = stream ? 0 : loop_now_us(r->http->loop) + r->http->limits.timeout_ms * 1000;
	r->replied = true;
	enum MHD_Result rc = MHD_queue_response(r->mhd, (unsigned)r->reply.status, m);
	MHD_destroy_response(m);
	return rc;
}

static void on_deadline(void *arg)
{
	struct request *r = arg;
	request_refuse(r, DMSR_EIO, "timeout", "the engine has not answered within http.timeout; what was asked for may still happen");
}

static void wait_for_answer(struct request *r)
{
	r->state = REQUEST_WAITING;
	r->deadline = loop_timer_new(r->http->loop, "http", on_deadline, r);
	loop_timer_start(r->deadline, r->http->limits.timeout_ms);
	MHD_suspend_connection(r->mhd);
}

static void run(struct request *r)
{
	r->state = REQUEST_RUNNING;
	r->conn->deadline_us = 0;
	if (r->http->closing && !r->reply.status)
		reply_error(&r->reply, DMSR_ESTATE, "draining", "the daemon stops");
	if (!r->reply.status)
		parse_body(r);
	if (!r->reply.status && !(r->method == METHOD_POST && idempotency_begin(r)))
		r->route->run(r);
}

static bool is_early(const struct request *r)
{
	const char *length = request_header(r, "Content-Length");
	return r->must_close || (r->reply.status && (request_header(r, "Expect") || (length && strtoull(length, NULL, 10) > DRAIN_BYTES_MAX)));
}

enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data, size_t *n,
	void **req)
{
	struct request *r = *req;
	(void)cls;
	(void)c;
	(void)url;
	(void)version;
	if (!r->seen) {
		r->seen = true;
		look_at_head(r, method);
		return is_early(r) ? send_reply(r) : MHD_YES;
	}
	if (*n) {
		bool goes_on = take_body(r, data, *n);
		*n = 0;
		return goes_on ? MHD_YES : MHD_NO;
	}
	if (r->replied)
		return MHD_YES;
	if (r->state == REQUEST_READING)
		run(r);
	if (r->reply.status)
		return send_reply(r);
	wait_for_answer(r);
	return MHD_YES;
}

void request_resume(struct request *r)
{
	assert(r->state == REQUEST_WAITING && r->reply.status);
	r->state = REQUEST_ANSWERED;
	loop_timer_stop(r->deadline);
	served_resume(r->served, r->mhd);
}

void request_refuse(struct request *r, int code, const char *id, const char *message)
{
	call_forget(r);
	metrics_forget(r);
	idempotency_forget(r);
	reply_error(&r->reply, code, id, "%s", message);
	request_resume(r);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */
static void log_access(const struct request *r, uint64_t us, bool whole)
{
	log_debug("http", NULL, "%s %s%s %s %.200s: %d in %llu us%s", r->id, r->actor[0] ? r->actor : "nobody", r->served->tls ? " (TLS)" : "",
		r->head ? "HEAD" : r->method ? method_name(r->method) : "?", r->uri.path, r->reply.status, (unsigned long long)us,
		whole ? "" : ", the client went away");
}

static void request_free(struct request *r)
{
	struct http *h = r->http;
	if (r->prev)
		r->prev->next = r->next;
	else
		h->requests = r->next;
	if (r->next)
		r->next->prev = r->prev;
	r->conn->request = NULL;
	call_forget(r);
	metrics_forget(r);
	idempotency_forget(r);
	events_leave(r);
	loop_timer_free(r->deadline);
	json_decref(r->json);
	/* A spec may hold passwords. */
	if (r->body.data)
		explicit_bzero(r->body.data, r->body.len);
	buf_fini(&r->body);
	uri_fini(&r->uri);
	reply_fini(&r->reply);
	free(r);
}

/* libmicrohttpd says nothing of a request whose target or headers do not fit into its memory: it knows it for ours only from on_access on. */
void request_lost(struct request *r)
{
	if (!r)
		return;
	assert(!r->seen);
	request_free(r);
}

void on_completed(void *cls, struct MHD_Connection *c, void **req, enum MHD_RequestTerminationCode why)
{
	struct request *r = *req;
	(void)cls;
	(void)c;
	if (!r)
		return;
	*req = NULL;
	uint64_t now = loop_now_us(r->http->loop);
	/* The next request on it: libmicrohttpd closes one that is silent for as long as http.timeout; one that dribbles is cut here. */
	r->conn->deadline_us = now + 2 * r->http->limits.timeout_ms * 1000;
	if (r->seen) {
		http_stat_request(r->http->stat, r->route, r->method, r->replied ? r->reply.status : 0, now - r->begun_us);
		log_access(r, now - r->begun_us, why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	}
	request_free(r);
}
