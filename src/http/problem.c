/* problem: errors as RFC 9457 has them, and replies in general. The one table from an error's id to a status. */
#include "base/mem.h"
#include "http/reply.h"
#include "http/text.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct problem_kind problem_kinds[] = {
	{ "auth.invalid", 401, "The token is not known" },
	{ "auth.missing", 401, "A token is needed" },
	{ "body.too-large", 413, "The body is too large" },
	{ "body.unexpected", 400, "No body is expected here" },
	{ "connection.validation", 422, "The connection's settings are not valid" },
	{ "connector.not-found", 404, "No such connector" },
	{ "draining", 503, "The daemon is stopping" },
	{ "events.too-many", 503, "Too many clients follow the events" },
	{ "header.invalid", 400, "A header is not valid" },
	{ "host.not-allowed", 421, "This host name is not served here" },
	{ "idempotency.in-flight", 409, "A request with this idempotency key is under way" },
	{ "idempotency.mismatch", 422, "This idempotency key was used for another request" },
	{ "job.conflict", 409, "Another job writes there" },
	{ "job.exists", 409, "A job of this name exists" },
	{ "job.invalid-transition", 409, "Not possible in the job's present state" },
	{ "job.managed-by-file", 409, "The job is managed by a file" },
	{ "job.not-found", 404, "No such job" },
	{ "job.not-stopped", 409, "The job must be stopped first" },
	{ "job.validation", 422, "The job's specification is not valid" },
	{ "json.malformed", 400, "The body is not JSON" },
	{ "json.not-object", 400, "The body is not a JSON object" },
	{ "json.too-deep", 400, "The body is nested too deep" },
	{ "logger.not-found", 404, "No such logger" },
	{ "logger.validation", 422, "The logger's settings are not valid" },
	{ "media-type", 415, "Only JSON is taken" },
	{ "method.not-allowed", 405, "This method is not allowed here" },
	{ "not-ready", 503, "The daemon is not ready" },
	{ "origin.not-allowed", 403, "This web origin is not allowed" },
	{ "path.not-found", 404, "No such path" },
	{ "precondition.failed", 412, "The job has changed since" },
	{ "precondition.required", 428, "If-Match is needed" },
	{ "query.invalid", 400, "A query parameter is not valid" },
	{ "query.unknown", 400, "No such query parameter" },
	{ "secret.unresolved", 422, "A secret has no value" },
	{ "state.corrupt", 503, "The state store is damaged" },
	{ "state.full", 507, "The state store is full" },
	{ "state.io", 503, "The state store cannot be written" },
	{ "timeout", 504, "No answer in time" },
	{ "uri.malformed", 400, "The request's target is malformed" },
	{ "uri.too-long", 414, "The request's target is too long" },
	{ NULL, 0, NULL },
};

/* For ids that other rooms made: what the world did to us is a bad gateway, not our own failure; 401 is about our own tokens alone. */
static int status_of_code(int code)
{
	switch ((enum dmsr_error)code) {
	case DMSR_EINVAL:
	case DMSR_EDATA: return 422;
	case DMSR_EPROTO:
	case DMSR_EIO:
	case DMSR_EAUTH: return 502;
	case DMSR_ENOTFOUND: return 404;
	case DMSR_EEXIST:
	case DMSR_ESTATE: return 409;
	case DMSR_EFULL: return 503;
	case DMSR_EFATAL: return 500;
	}
	return 500;
}

static const char *title_of_status(int status)
{
	switch (status) {
	case 404: return "Not found";
	case 409: return "Not possible in the present state";
	case 422: return "The request is not valid";
	case 502: return "The other side could not be reached or refused";
	case 503: return "Not possible at the moment";
	}
	return "The request failed";
}

static const struct problem_kind *find_kind(const char *id)
{
	for (const struct problem_kind *k = problem_kinds; k->id; k++)
		if (!strcmp(k->id, id))
			return k;
	return NULL;
}

static int status_of(const struct err *e)
{
	const struct problem_kind *k = find_kind(e->id);
	return k ? k->status : status_of_code(e->code);
}

void reply_fini(struct reply *r)
{
	const char *id = r->request_id;
	for (size_t i = 0; i < r->nheaders; i++)
		free(r->headers[i].value);
	free(r->body);
	memset(r, 0, sizeof *r);
	r->request_id = id;
}

void reply_json(struct reply *r, int status, json_t *body)
{
	reply_fini(r);
	r->status = status;
	r->type = "application/json";
	if (!body)
		return;
	char *text = json_dumps(body, TEXT_JSON | JSON_ENCODE_ANY);
	assert(text && "a value of ours cannot be written");
	r->len = strlen(text) + 1;
	r->body = mem_realloc(text, r->len + 1);
	memcpy(r->body + r->len - 1, "\n", 2); /* for people at a terminal */
	json_decref(body);
}

void reply_text(struct reply *r, int status, const char *type, struct buf *text)
{
	reply_fini(r);
	r->status = status;
	r->type = type;
	r->len = text->len;
	r->body = text->data;
	buf_init(text, text->max);
}

void reply_header(struct reply *r, const char *name, const char *fmt, ...)
{
	char value[2048];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(value, sizeof value, fmt, ap);
	va_end(ap);
	assert(r->nheaders < REPLY_HEADERS_MAX);
	/* Names of jobs are in some of them: nothing may end the line. */
	for (char *c = value; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	r->headers[r->nheaders].name = name;
	r->headers[r->nheaders++].value = mem_strdup(value);
}

void reply_etag(struct reply *r, json_int_t generation) { reply_header(r, "ETag", "\"%" JSON_INTEGER_FORMAT "\"", generation); }

static void set(json_t *o, const char *key, const char *value)
{
	if (value && *value)
		json_object_set_new(o, key, text_json(value));
}

void reply_problem(struct reply *r, const struct err *e, const json_t *errors)
{
	const struct problem_kind *k = find_kind(e->id);
	int status = status_of(e);
	char type[sizeof e->id + 20], instance[64];
	json_t *o = json_object();
	snprintf(type, sizeof type, "urn:dmsr:problem:%s", e->id);
	set(o, "type", type);
	set(o, "title", k ? k->title : title_of_status(status));
	json_object_set_new(o, "status", json_integer(status));
	set(o, "detail", e->message);
	set(o, "code", e->id);
	set(o, "suggestion", e->hint);
	if (e->retriable)
		json_object_set_new(o, "retriable", json_true());
	if (r->request_id) {
		snprintf(instance, sizeof instance, "urn:dmsr:request:%s", r->request_id);
		set(o, "instance", instance);
	}
	if (json_array_size(errors))
		json_object_set_new(o, "errors", json_deep_copy(errors));
	reply_json(r, status, o);
	r->type = "application/problem+json";
	if (status == 401)
		reply_header(r, "WWW-Authenticate", "Bearer realm=\"dmsr\"%s", strcmp(e->id, "auth.invalid") == 0 ? ", error=\"invalid_token\"" : "");
	if (status == 503)
		reply_header(r, "Retry-After", "5");
}

void reply_error(struct reply *r, int code, const char *id, const char *fmt, ...)
{
	struct err e;
	char message[sizeof e.message];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	err_set(&e, code, id, "%s", message);
	reply_problem(r, &e, NULL);
}
