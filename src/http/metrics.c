/* metrics: /metrics: the daemon, its loop, store and API; then jobs and process. And what the API counts of itself. */
#include "config.h"
#include "http/metrics.h"
#include "base/hash.h"
#include "base/mem.h"
#include "http/http_int.h"
#include "http/stat.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METRICS_BYTES_MAX = 64 * 1024 * 1024, SLICE_US = 1000 };

/* ---- the format -------------------------------------------------------------------------------------------------- */
void metric_family(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_labels(struct buf *b, const char *const *labels, const char *le)
{
	const char *sep = "{";
	for (; labels && *labels; labels += 2, sep = ",") {
		buf_printf(b, "%s%s=\"", sep, labels[0]);
		for (const char *c = labels[1] ? labels[1] : ""; *c; c++) {
			if (*c == '\\' || *c == '"')
				buf_byte(b, '\\');
			buf_str(b, *c == '\n' ? "\\n" : (const char[]){ *c, 0 });
		}
		buf_byte(b, '"');
	}
	if (le)
		buf_printf(b, "%sle=\"%s\"", sep, le);
	if (le || *sep == ',')
		buf_byte(b, '}');
}

void metric_sample(struct buf *b, const char *name, double value, const char *const *labels)
{
	buf_str(b, name);
	put_labels(b, labels, NULL);
	buf_printf(b, " %.15g\n", value);
}

void metric_histogram(struct buf *b, const char *name, const struct loop_slices *s, const char *const *labels)
{
	uint64_t n = 0;
	char le[32];
	for (int i = 0; i <= LOOP_SLICE_BOUNDS; i++) {
		n += s->count[i];
		snprintf(le, sizeof le, i < LOOP_SLICE_BOUNDS ? "%.9g" : "+Inf", i < LOOP_SLICE_BOUNDS ? loop_slice_bounds_us[i] / 1e6 : 0.0);
		buf_printf(b, "%s_bucket", name);
		put_labels(b, labels, le);
		buf_printf(b, " %llu\n", (unsigned long long)n);
	}
	buf_printf(b, "%s_sum", name);
	put_labels(b, labels, NULL);
	buf_printf(b, " %.15g\n%s_count", (double)s->total_us / 1e6, name);
	put_labels(b, labels, NULL);
	buf_printf(b, " %llu\n", (unsigned long long)n);
}

/* ---- what the API counts ----------------------------------------------------------------------------------------- */
struct http_stat *http_stat_new(void)
{
	struct http_stat *s = mem_zalloc(sizeof *s);
	s->requests = map_new();
	return s;
}

static void free_count(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	free(value);
}

void http_stat_free(struct http_stat *s)
{
	if (!s)
		return;
	map_each(s->requests, free_count, NULL);
	map_free(s->requests);
	free(s);
}

static void count_duration(struct loop_slices *s, uint64_t us)
{
	int i = 0;
	while (i < LOOP_SLICE_BOUNDS && us >= loop_slice_bounds_us[i])
		i++;
	s->count[i]++;
	s->total_us += us;
	s->n++;
	s->max_us = us > s->max_us ? us : s->max_us;
}

void http_stat_request(struct http_stat *s, const struct route *route, unsigned method, int status, uint64_t us)
{
	char key[128];
	const char *pattern = route ? route->pattern : "";
	size_t n = (size_t)snprintf(key, sizeof key, "%.80s %u %d", pattern, method, status);
	struct request_count *c = map_get(s->requests, key, n);
	if (!c) {
		c = mem_zalloc(sizeof *c);
		*c = (struct request_count){ .route = pattern, .method = method, .status = status };
		map_put(s->requests, key, n, c);
	}
	c->n++;
	count_duration(&s->durations, us);
}

/* ---- the daemon -------------------------------------------------------------------------------------------------- */
static void one(struct buf *b, const char *name, const char *type, double value, const char *help)
{
	metric_family(b, name, type, help);
	metric_sample(b, name, value, NULL);
}

static void put_count(void *arg, const void *key, size_t n, void *value)
{
	struct request_count *c = value;
	char code[16];
	(void)key;
	(void)n;
	snprintf(code, sizeof code, "%d", c->status);
	metric_sample(arg, "dmsr_http_requests_total", (double)c->n,
		(const char *const[]){ "method", c->method ? method_name(c->method) : "other", "route", c->route, "code", code, NULL });
}

static void put_http(struct buf *b, const struct http *h)
{
	const struct http_stat *s = h->stat;
	metric_family(b, "dmsr_http_requests_total", "counter", "Requests by method, route and status; code 0: the client went away first.");
	map_each(s->requests, put_count, b);
	metric_family(b, "dmsr_http_request_duration_seconds", "histogram", "From a request's first line to the end of its answer.");
	metric_histogram(b, "dmsr_http_request_duration_seconds", &s->durations, NULL);
	one(b, "dmsr_http_connections", "gauge", s->connections, "Open connections to the API.");
	one(b, "dmsr_http_events_clients", "gauge", s->events_clients, "Clients that follow the events.");
	one(b, "dmsr_http_connections_cut_total", "counter", (double)s->cut, "Connections that were too slow.");
	one(b, "dmsr_auth_failures_total", "counter", (double)s->auth_failures, "Requests without a known token.");
}

static void put_store(struct buf *b, struct engine *g)
{
	struct store_stat s;
	store_stat(engine_store(g), &s);
	one(b, "dmsr_store_commits_total", "counter", (double)s.commits, "Transactions of the state store.");
	one(b, "dmsr_store_writes_total", "counter", (double)s.writes, "Writes in them.");
	one(b, "dmsr_store_queued", "gauge", (double)s.queued, "Writes that wait for the state store.");
	one(b, "dmsr_store_queued_bytes", "gauge", (double)s.queued_bytes, "Bytes of them.");
	metric_family(b, "dmsr_checkpoint_duration_seconds", "summary", "How long a transaction of the state store took.");
	metric_sample(b, "dmsr_checkpoint_duration_seconds_sum", (double)s.commit_us_total / 1e6, NULL);
	metric_sample(b, "dmsr_checkpoint_duration_seconds_count", (double)s.commits, NULL);
	one(b, "dmsr_checkpoint_errors_total", "counter", (double)s.errors, "Writes of the state store that failed.");
}

static void put_slices(struct buf *b, const char *name, const char *help, const char *max_name, const char *max_help, const struct loop_slices *s)
{
	metric_family(b, name, "histogram", help);
	metric_histogram(b, name, s, NULL);
	metric_family(b, max_name, "gauge", max_help);
	metric_sample(b, max_name, (double)s->max_us / 1e6, (const char *const[]){ "room", s->max_room, NULL });
}

static void put_daemon(struct buf *b, const struct http *h)
{
	struct loop_slices slices, cpu;
	loop_cpu_slices(h->loop, &cpu);
	loop_slices(h->loop, &slices);
	metric_family(b, "dmsr_build_info", "gauge", "Always 1; the version is in the label.");
	metric_sample(b, "dmsr_build_info", 1, (const char *const[]){ "version", PACKAGE_VERSION, NULL });
	put_slices(b, "dmsr_event_loop_lag_seconds", "How long each callback held the loop.",
		"dmsr_event_loop_lag_max_seconds", "The longest of them, and whose it was.", &slices);
	put_slices(b, "dmsr_event_loop_cpu_seconds", "How much of the processor's time each callback took.",
		"dmsr_event_loop_cpu_max_seconds", "The most that one took, and whose it was.", &cpu);
	one(b, "dmsr_ready", "gauge", engine_is_ready(h->engine, NULL) && !engine_is_draining(h->engine), "What /readyz says.");
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */
/* Of many jobs it is written a slice at a time. */
struct metrics_answer {
	struct request *request;
	struct metrics_jobs *jobs;
	struct buf text;
	struct loop_task *task;
};

void metrics_forget(struct request *r)
{
	struct metrics_answer *a = r->metrics;
	if (!a)
		return;
	r->metrics = NULL;
	metrics_jobs_free(a->jobs);
	loop_task_free(a->task);
	buf_fini(&a->text);
	free(a);
}

/* True: it is there. */
static bool go_on(struct metrics_answer *a)
{
	struct request *r = a->request;
	const struct http *h = r->http;
	if (!metrics_jobs_put(a->jobs, &a->text, h->loop, loop_now_us(h->loop) + SLICE_US))
		return false;
	put_store(&a->text, h->engine);
	put_http(&a->text, h);
	metrics_process(&a->text);
	reply_text(&r->reply, 200, "text/plain; version=0.0.4; charset=utf-8", &a->text);
	metrics_forget(r);
	return true;
}

static void on_slice(void *arg)
{
	struct metrics_answer *a = arg;
	struct request *r = a->request;
	if (go_on(a))
		request_resume(r);
	else
		loop_task_post(a->task);
}

void metrics_get(struct request *r)
{
	struct http *h = r->http;
	struct metrics_answer *a = r->metrics = mem_zalloc(sizeof *a);
	a->request = r;
	buf_init(&a->text, METRICS_BYTES_MAX);
	put_daemon(&a->text, h);
	a->jobs = metrics_jobs_new(h->engine, h->per_table);
	if (go_on(a))
		return;
	a->task = loop_task_new(h->loop, "http", on_slice, a);
	loop_task_post(a->task);
}
