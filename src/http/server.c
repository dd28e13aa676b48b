/* server: opening, reloading and closing the API. */
#include "http/server.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/events.h"
#include "http/stat.h"
#include <stdlib.h>
#include <string.h>

static _Noreturn void on_panic(void *arg, const char *file, unsigned line, const char *reason)
{
	(void)arg;
	log_error("http", NULL, "libmicrohttpd %s:%u: %s", file, line, reason ? reason : "panic");
	abort();
}

static void on_cut(void *arg) { conns_cut(arg); }

static void on_reap(void *arg) { served_reap(arg); }

static const char *text(const struct config *c, const char *path)
{
	const char *s = config_str(c, path);
	return s && *s ? s : NULL;
}

static void read_limits(const struct config *c, struct limits *l)
{
	l->body_max = (size_t)config_int(c, "http.body_max");
	l->connections_max = (unsigned)config_int(c, "http.connections_max");
	l->connections_per_ip_max = (unsigned)config_int(c, "http.connections_per_ip_max");
	l->timeout_ms = (uint64_t)config_int(c, "http.timeout");
}

static struct auth *read_auth(const struct config *c, struct err *e)
{
	return auth_new(config_json(c, "http.tokens"), config_json(c, "http.allowed_hosts"), config_json(c, "http.allowed_origins"), e);
}

/* Off this machine nobody is asked to trust the wire or the neighbours. */
static int check_secure(const struct http *h, const struct config *c, const struct auth *a, struct err *e)
{
	bool tls = text(c, "http.tls_cert") != NULL;
	if (h->tcp.fd < 0 || h->loopback || (tls && auth_has_tokens(a)))
		return 0;
	err_set(e, DMSR_EINVAL, "http.insecure", "http.listen %s can be reached from other machines, but %s", h->address,
		!tls && !auth_has_tokens(a) ? "there is neither TLS nor a token" : tls ? "there is no token" : "there is no TLS");
	return err_hint(e, "set http.tls_cert, http.tls_key and http.tokens, or listen on 127.0.0.1");
}

/* New daemons for both listeners, or none. */
static int serve(struct http *h, const struct config *c, const struct limits *limits, struct served *out[2], struct err *e)
{
	out[0] = out[1] = NULL;
	if (h->tcp.fd >= 0 && !(out[0] = served_new(&h->tcp, limits, text(c, "http.tls_cert"), text(c, "http.tls_key"), e)))
		return e->code;
	if (h->local.fd >= 0 && !(out[1] = served_new(&h->local, limits, NULL, NULL, e))) {
		served_free(out[0]);
		return e->code;
	}
	return 0;
}

static void take_served(struct listener *l, struct served *s)
{
	if (!s)
		return;
	s->next = l->served;
	l->served = s;
}

static int open_listeners(struct http *h, const struct config *c, struct err *e)
{
	const char *address = text(c, "http.listen"), *path = text(c, "http.socket");
	int rc;
	if (!(h->auth = read_auth(c, e)))
		return e->code;
	if ((address && (rc = listen_tcp(h, address, e))) || (rc = check_secure(h, c, h->auth, e)) || (path && (rc = listen_unix(h, path, e))))
		return rc;
	return 0;
}

int http_open(struct loop *l, const struct config *c, struct http **out, struct err *e)
{
	struct err own = { 0 };
	struct http *h = mem_zalloc(sizeof *h);
	uint64_t now = (uint64_t)wall_now_us();
	e = e ? e : &own;
	MHD_set_panic_func(on_panic, NULL);
	h->loop = l;
	h->tcp = (struct listener){ .http = h, .fd = -1 };
	h->local = (struct listener){ .http = h, .fd = -1, .local = true };
	h->boot = (uint32_t)hash_bytes(&now, sizeof now);
	h->stat = http_stat_new();
	h->cutter = loop_timer_new(l, "http", on_cut, h);
	h->reaper = loop_task_new(l, "http", on_reap, h);
	read_limits(c, &h->limits);
	h->per_table = config_bool(c, "metrics.per_table");
	int rc = open_listeners(h, c, e);
	if (rc) {
		http_close(h);
		return rc;
	}
	*out = h;
	return 0;
}

int http_serve(struct http *h, const struct config *c, struct engine *g, struct err *e)
{
	struct served *served[2];
	struct err own = { 0 };
	int rc = serve(h, c, &h->limits, served, e ? e : &own);
	if (rc)
		return rc;
	h->engine = g;
	h->events = events_new(h);
	take_served(&h->tcp, served[0]);
	take_served(&h->local, served[1]);
	if (h->tcp.fd >= 0)
		log_info("http", NULL, "listening on %s%s%s", h->address, h->tcp.served->tls ? " with TLS" : "",
			auth_has_tokens(h->auth) ? "" : ", open to this machine");
	if (h->local.fd >= 0)
		log_info("http", NULL, "listening on %s", h->local.path);
	return 0;
}

int http_reload(struct http *h, const struct config *c, struct err *e)
{
	struct err own = { 0 };
	struct served *served[2];
	struct limits limits;
	int rc;
	e = e ? e : &own;
	struct auth *a = read_auth(c, e);
	if (!a)
		return e->code;
	read_limits(c, &limits);
	if ((rc = check_secure(h, c, a, e)) || (rc = serve(h, c, &limits, served, e))) {
		auth_free(a);
		return rc;
	}
	events_end(h->events);
	if (served[0])
		served_retire(h->tcp.served);
	if (served[1])
		served_retire(h->local.served);
	take_served(&h->tcp, served[0]);
	take_served(&h->local, served[1]);
	auth_free(h->auth);
	h->auth = a;
	h->limits = limits;
	h->per_table = config_bool(c, "metrics.per_table");
	log_info("http", NULL, "tokens, keys and limits were read again");
	return 0;
}

/* Lets what was answered just now reach its client. */
static void flush(struct listener *l)
{
	for (struct served *s = l->served; s; s = s->next)
		for (int i = 0; i < 3; i++)
			MHD_run(s->mhd);
}

void http_close(struct http *h)
{
	if (!h)
		return;
	h->closing = true;
	/* libmicrohttpd stops only when no connection is suspended. */
	for (struct request *r = h->requests; r; r = r->next)
		if (r->state == REQUEST_WAITING)
			request_refuse(r, DMSR_ESTATE, "draining", "the daemon stops");
	if (h->events)
		events_end(h->events);
	flush(&h->tcp);
	flush(&h->local);
	listener_close(&h->tcp);
	listener_close(&h->local);
	calls_forget_http(h);
	idempotency_forget_http(h);
	events_free(h->events);
	auth_free(h->auth);
	loop_timer_free(h->cutter);
	loop_task_free(h->reaper);
	http_stat_free(h->stat);
	free(h->openapi);
	free(h);
}

const char *http_address(const struct http *h) { return h->address; }

const char *request_header(const struct request *r, const char *name) { return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name); }

struct header_count { const char *name; unsigned n; };

static enum MHD_Result count_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct header_count *c = arg;
	(void)kind;
	(void)value;
	c->n += strcasecmp(name, c->name) == 0;
	return MHD_YES;
}

unsigned request_header_count(const struct request *r, const char *name)
{
	struct header_count c = { name, 0 };
	MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, count_header, &c);
	return c.n;
}
