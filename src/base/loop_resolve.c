/* loop_resolve: names to addresses. Numeric addresses and localhost are answered by a task; other names by libevent's
 * evdns, with a base of its own for each question, so that a changed /etc/resolv.conf or /etc/hosts is seen and nothing
 * stays behind in the loop when the answer is there. */
#include "base/loop.h"
#include "base/loop_internal.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <assert.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_ADDRESSES = 16 };

const char *loop_resolve_conf = "/etc/resolv.conf";

struct loop_resolve {
	struct loop *loop;
	char *host;
	int port;
	void (*cb)(void *arg, const struct sockaddr_storage *addrs, int n, const struct err *e);
	void *arg;
	struct loop_task *answer; /* hands over what is below, never from inside a call of ours or of evdns */
	struct evdns_base *dns;
	struct evdns_getaddrinfo_request *question;
	bool cancelled;
	struct sockaddr_storage addrs[MAX_ADDRESSES];
	int n;
	struct err err;
};

static void resolve_free(struct loop_resolve *r)
{
	loop_task_free(r->answer);
	if (r->dns)
		evdns_base_free(r->dns, 0);
	free(r->host);
	free(r);
}

static void on_answer(void *arg)
{
	struct loop_resolve *r = arg;
	if (!r->cancelled)
		r->cb(r->arg, r->addrs, r->n, err_is_set(&r->err) ? &r->err : NULL);
	resolve_free(r);
}

static void add_address(struct loop_resolve *r, const void *sa, size_t len)
{
	if (r->n < MAX_ADDRESSES && len <= sizeof r->addrs[0])
		memcpy(&r->addrs[r->n++], sa, len);
}

static void add_loopback(struct loop_resolve *r)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	six.sin6_port = four.sin_port = htons((uint16_t)r->port);
	add_address(r, &six, sizeof six);
	add_address(r, &four, sizeof four);
}

/* AI_NUMERICHOST never asks anybody; unlike inet_pton it knows fe80::1%eth0. */
static bool add_numeric(struct loop_resolve *r)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *list;
	char port[16];
	snprintf(port, sizeof port, "%d", r->port);
	if (getaddrinfo(r->host, port, &hints, &list))
		return false;
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
		add_address(r, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	return r->n > 0;
}

static bool is_localhost(const char *host)
{
	size_t n = strlen(host);
	if (n && host[n - 1] == '.')
		n--;
	return (n == 9 && !strncasecmp(host, "localhost", 9)) ||
		(n > 10 && !strncasecmp(host + n - 10, ".localhost", 10));
}

/* libevent has one code for a server that fails, one that is silent and a name without addresses; only a name that a server
 * knows not to exist stands apart. */
static void set_failure(struct loop_resolve *r, int code)
{
	if (code == EVUTIL_EAI_NONAME) {
		err_set(&r->err, DMSR_ENOTFOUND, "resolve.unknown", "the host name \"%s\" is not known", r->host);
		err_hint(&r->err, "check its spelling, and the search list in %s", loop_resolve_conf);
	} else {
		err_retry(&r->err, DMSR_EIO, "resolve.failed",
			"the host name \"%s\" could not be resolved: no name server gave an address", r->host);
		err_hint(&r->err, "check that the name servers in %s answer", loop_resolve_conf);
	}
}

static void on_dns(int code, struct evutil_addrinfo *list, void *arg)
{
	struct loop_resolve *r = arg;
	r->question = NULL;
	for (const struct evutil_addrinfo *ai = code ? NULL : list; ai; ai = ai->ai_next)
		add_address(r, ai->ai_addr, ai->ai_addrlen);
	if (list)
		evutil_freeaddrinfo(list);
	if (!r->n && !r->cancelled)
		set_failure(r, code);
	loop_task_post(r->answer);
}

/* Labels of 1 to 63 bytes, 253 in all, a dot at the end allowed: evdns would send off what is none. */
static bool is_host_name(const char *host)
{
	size_t label = 0, n = 0;
	for (; host[n]; n++) {
		label = host[n] == '.' ? 0 : label + 1;
		if (label > 63 || (!label && (!n || host[n - 1] == '.')))
			return false;
	}
	return n > 0 && n <= 253 && strcmp(host, ".") != 0;
}

static void ask(struct loop_resolve *r)
{
	struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP };
	char port[16];
	snprintf(port, sizeof port, "%d", r->port);
	r->dns = evdns_base_new(loop_event_base(r->loop), EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (!r->dns) {
		set_failure(r, EVUTIL_EAI_FAIL);
		return;
	}
	/* Without the file there is still /etc/hosts, and a server on this machine, as for the C library. */
	evdns_base_resolv_conf_parse(r->dns, DNS_OPTIONS_ALL, loop_resolve_conf);
	/* NULL when it has called back already, from /etc/hosts or with a failure. */
	r->question = evdns_getaddrinfo(r->dns, r->host, port, &hints, on_dns, r);
}

struct loop_resolve *loop_resolve_start(struct loop *l, const char *host, int port,
	void (*cb)(void *arg, const struct sockaddr_storage *addrs, int n, const struct err *e), void *arg)
{
	struct loop_resolve *r = mem_zalloc(sizeof *r);
	r->loop = l;
	r->host = mem_strdup(host);
	r->port = port;
	r->cb = cb;
	r->arg = arg;
	r->answer = loop_task_new(l, "resolve", on_answer, r);
	if (is_localhost(host))
		add_loopback(r);
	else if (!add_numeric(r) && !is_host_name(host))
		set_failure(r, EVUTIL_EAI_NONAME);
	else if (!r->n)
		ask(r);
	if (r->n || err_is_set(&r->err))
		loop_task_post(r->answer);
	return r;
}

void loop_resolve_cancel(struct loop_resolve *r)
{
	if (!r)
		return;
	if (!r->question) {
		resolve_free(r);
		return;
	}
	r->cancelled = true;
	loop_task_cancel(r->answer);
	evdns_getaddrinfo_cancel(r->question);
}
