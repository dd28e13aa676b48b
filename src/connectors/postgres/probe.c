/* probe: one-shot questions to a server. In come settings, tables and a host; out goes one answer, through the loop, never inside the call. The owner may
 * close at any time: that frees the connections, and nothing is answered.
 *
 *   connect -> step, step, ... -> answer -> (close) */
#include "probe_int.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_LIMIT_MS = 2000 };

/* ---- the instance ---- */

static const char *const *copy_patterns(struct arena *a, const char *const *from, size_t n)
{
	const char **to = arena_alloc(a, (n + 1) * sizeof *to);
	for (size_t i = 0; i < n; i++)
		to[i] = arena_strdup(a, from[i]);
	return to;
}

static void on_turn(void *arg)
{
	struct probe *p = arg;
	if (p->is_answered)
		return;
	p->is_answered = true;
	catalog_cancel(p->catalog);
	p->catalog = NULL;
	pgconn_free(p->repl);
	pgconn_free(p->sql);
	p->repl = p->sql = NULL;
	p->answer(p);
}

struct probe *probe_new(const struct settings *s, const struct dmsr_option *options, const struct dmsr_tables *tables,
	enum dmsr_mode mode, const struct dmsr_probe_host *host)
{
	struct probe *p = mem_zalloc(sizeof *p);
	p->host = *host;
	p->mode = mode;
	p->settings = pg_settings_copy(s, options);
	p->turn = loop_task_new(host->env.loop, "postgres.probe", on_turn, p);
	arena_init(&p->arena, 16 * 1024);
	buf_init(&p->text, SIZE_MAX);
	buf_init(&p->kept, SIZE_MAX);
	if (tables) {
		p->tables.include = copy_patterns(&p->arena, tables->include, tables->ninclude);
		p->tables.ninclude = tables->ninclude;
		p->tables.exclude = copy_patterns(&p->arena, tables->exclude, tables->nexclude);
		p->tables.nexclude = tables->nexclude;
	}
	return p;
}

void probe_close(struct dmsr_instance *i)
{
	struct probe *p = (struct probe *)i;
	if (!p)
		return;
	catalog_cancel(p->catalog);
	pgconn_free(p->repl);
	pgconn_free(p->sql);
	loop_timer_free(p->timer);
	loop_task_free(p->turn);
	for (size_t n = 0; n < p->nrels; n++)
		relation_unref(p->rels[n]);
	free(p->rels);
	free(p->checks);
	free(p->left);
	free(p->found);
	probe_forget_tables(p);
	buf_fini(&p->text);
	buf_fini(&p->kept);
	arena_fini(&p->arena);
	settings_free(p->settings);
	free(p);
}

static void end(struct probe *p) { loop_task_post(p->turn); }

void probe_fail(struct probe *p, const struct err *e)
{
	if (err_is_set(&p->failure))
		return;
	p->failure = *e;
	end(p);
}

/* ---- steps ---- */

static void on_step(void *arg, const PGresult *res, const struct err *e)
{
	struct probe *p = arg;
	const struct probe_step *step = &p->steps[p->step - 1];
	if (step->read)
		step->read(p, res, e);
	else if (e)
		probe_fail(p, e);
	if (!err_is_set(&p->failure) && !loop_timer_is_running(p->timer))
		probe_next(p);
}

static bool put(struct probe *p, const struct probe_step *step)
{
	struct buf sql;
	const char *values[4];
	int n = 0;
	buf_init(&sql, SIZE_MAX);
	buf_reset(&p->text);
	step->ask(p, &sql, values, &n);
	bool is_put = sql.len > 0;
	p->asked_us = wall_now_us();
	if (is_put && n)
		pgconn_query_params(p->sql, buf_cstr(&sql), n, values, on_step, p);
	else if (is_put)
		pgconn_query(p->sql, buf_cstr(&sql), on_step, p);
	buf_fini(&sql);
	return is_put;
}

void probe_next(struct probe *p)
{
	for (;;) {
		const struct probe_step *step = &p->steps[p->step];
		if (!step->ask && !step->start) {
			end(p);
			return;
		}
		p->step++;
		if (step->start) {
			step->start(p);
			return;
		}
		if (put(p, step))
			return;
	}
}

static void on_again(void *arg) { probe_next(arg); }

void probe_again(struct probe *p, unsigned back, uint64_t after_ms)
{
	p->step -= back;
	loop_timer_start(p->timer, after_ms);
}

static void on_ready(void *ctx)
{
	struct probe *p = ctx;
	p->version = pgconn_server_version(p->sql);
	probe_next(p);
}

static void on_failed(void *ctx, const struct err *e) { probe_fail(ctx, e); }

void probe_start(struct probe *p, const struct probe_step *steps, void (*answer)(struct probe *p))
{
	const struct pgconn_owner o = { .ctx = p, .on_ready = on_ready, .on_failed = on_failed };
	p->steps = steps;
	p->answer = answer;
	p->timer = loop_timer_new(p->host.env.loop, "postgres.probe", on_again, p);
	p->sql = pgconn_new(&p->host.env, p->settings, PGCONN_SQL, &o);
	p->server = arena_strdup(&p->arena, pgconn_describe(p->sql));
}

/* ---- findings ---- */

static void add_check(struct probe *p, const struct dmsr_check *c)
{
	p->checks = mem_realloc_array(p->checks, p->nchecks + 1, sizeof *p->checks);
	p->checks[p->nchecks++] = *c;
}

static __attribute__((format(printf, 5, 0))) void found(struct probe *p, struct dmsr_check *c, const char *object, const char *fix,
	const char *fmt, va_list ap)
{
	char message[1024];
	vsnprintf(message, sizeof message, fmt, ap);
	c->object = arena_strdup(&p->arena, object);
	c->message = arena_strdup(&p->arena, message);
	c->fix = fix && fix[0] ? arena_strdup(&p->arena, fix) : NULL;
	add_check(p, c);
}

void probe_found(struct probe *p, enum dmsr_check_level level, const char *id, const char *object, const char *fix, const char *fmt, ...)
{
	struct dmsr_check c = { .id = id, .level = level };
	va_list ap;
	va_start(ap, fmt);
	found(p, &c, object, fix, fmt, ap);
	va_end(ap);
}

void probe_found_fix(struct probe *p, enum dmsr_check_level level, const char *id, const char *object, struct buf *fix, const char *fmt, ...)
{
	struct dmsr_check c = { .id = id, .level = level };
	va_list ap;
	va_start(ap, fmt);
	found(p, &c, object, buf_cstr(fix), fmt, ap);
	va_end(ap);
	buf_fini(fix);
}

void probe_left(struct probe *p, const char *statement)
{
	p->left = mem_realloc_array(p->left, p->nleft + 1, sizeof *p->left);
	p->left[p->nleft++] = arena_strdup(&p->arena, statement);
}

const char *probe_name(struct probe *p, const char *schema, const char *name)
{
	char *text = mem_printf("%s.%s", schema, name);
	const char *out = arena_strdup(&p->arena, text);
	free(text);
	return out;
}

static const struct err *failure(const struct probe *p) { return err_is_set(&p->failure) ? &p->failure : NULL; }

void probe_answer_checked(struct probe *p)
{
	const struct err *e = failure(p);
	if (e) {
		const struct dmsr_check c = { e->id, DMSR_CHECK_ERROR, p->server, e->message, e->hint[0] ? e->hint : NULL, e->retriable };
		p->host.checked(p->host.ctx, &c, 1, NULL);
	} else {
		p->host.checked(p->host.ctx, p->checks, p->nchecks, NULL);
	}
}

void probe_answer_dropped(struct probe *p) { p->host.dropped(p->host.ctx, p->left, p->nleft, failure(p)); }

/* ---- what every preflight begins with ---- */

enum { SESSION_TLS, SESSION_ENCODING, SESSION_CLOCK, SESSION_USER, SESSION_RECOVERY, SESSION_READ_ONLY };

void probe_ask_session(struct probe *p, struct buf *sql, const char **values, int *nvalues)
{
	(void)p;
	(void)values;
	(void)nvalues;
	buf_str(sql, "SELECT (SELECT version || ' ' || cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl),"
		" pg_catalog.current_setting('server_encoding'),"
		" (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8, current_user,"
		" pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')");
}

static bool is_local(const char *host)
{
	return host[0] == '/' || !strncmp(host, "127.", 4) || !strcmp(host, "localhost") || !strcmp(host, "::1");
}

static void check_tls(struct probe *p, const PGresult *res)
{
	const char *host = settings_str(p->settings, "host"), *mode = settings_str(p->settings, "sslmode");
	if (!PQgetisnull(res, 0, SESSION_TLS) && !strcmp(mode, "verify-full"))
		probe_found(p, DMSR_CHECK_OK, "postgres.tls", "sslmode", NULL, "the connection uses %s, and the server's name was verified",
			PQgetvalue(res, 0, SESSION_TLS));
	else if (is_local(host))
		return;
	else if (PQgetisnull(res, 0, SESSION_TLS))
		probe_found(p, DMSR_CHECK_WARNING, "postgres.tls", "sslmode", "\"sslmode\": \"verify-full\"",
			"the connection to %s is not encrypted: password and data can be read on the way", host);
	else
		probe_found(p, DMSR_CHECK_WARNING, "postgres.tls", "sslmode", "\"sslmode\": \"verify-full\"",
			"the connection uses %s, but nothing proves that the server is %s", PQgetvalue(res, 0, SESSION_TLS), host);
}

static void check_clock(struct probe *p, const PGresult *res)
{
	int64_t now = wall_now_us(), server = strtoll(PQgetvalue(res, 0, SESSION_CLOCK), NULL, 10);
	int64_t off_ms = server < p->asked_us ? (p->asked_us - server) / 1000 : server > now ? (server - now) / 1000 : 0;
	if (off_ms > CLOCK_LIMIT_MS)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.clock", "clock", NULL,
			"the server's clock is %lld.%03lld s %s ours: lags in seconds will be wrong by that", (long long)(off_ms / 1000),
			(long long)(off_ms % 1000), server < p->asked_us ? "behind" : "ahead of");
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.clock", "clock", NULL, "the server's clock agrees with ours");
}

void probe_read_session(struct probe *p, const PGresult *res, const struct err *e)
{
	if (e) {
		probe_fail(p, e);
		return;
	}
	const char *encoding = PQgetvalue(res, 0, SESSION_ENCODING);
	probe_found(p, DMSR_CHECK_OK, "postgres.connection", pgconn_describe(p->sql), NULL, "connected as %s", PQgetvalue(res, 0, SESSION_USER));
	check_tls(p, res);
	if (p->version < 120000)
		probe_found(p, DMSR_CHECK_ERROR, "postgres.version", "version", NULL, "the server is PostgreSQL %d, and 12 is the oldest that is known",
			p->version / 10000);
	else
		probe_found(p, DMSR_CHECK_OK, "postgres.version", "version", NULL, "the server is PostgreSQL %d.%d", p->version / 10000,
			p->version % 10000);
	check_clock(p, res);
	if (!strcmp(encoding, "SQL_ASCII"))
		probe_found(p, DMSR_CHECK_WARNING, "postgres.encoding", "server_encoding", NULL,
			"the database's encoding is SQL_ASCII: bytes that are no UTF-8 will be refused");
	else if (p->is_target && strcmp(encoding, "UTF8") != 0)
		probe_found(p, DMSR_CHECK_WARNING, "postgres.encoding", "server_encoding", NULL,
			"the database's encoding is %s: characters that it lacks will be refused", encoding);
	p->is_read_only = !probe_true(res, 0, SESSION_RECOVERY) && !strcmp(PQgetvalue(res, 0, SESSION_READ_ONLY), "on");
	if (probe_true(res, 0, SESSION_RECOVERY) && (p->is_target || (p->mode & DMSR_CDC)))
		probe_found(p, DMSR_CHECK_ERROR, "postgres.standby", "host", NULL, "the server is a standby: name the primary as host");
}

/* ---- discover ---- */

static void answer_discovered(struct probe *p) { p->host.discovered(p->host.ctx, p->rels, p->nrels, failure(p)); }

bool probe_take_relations(struct probe *p, struct relation **rels, size_t n, const struct err *e)
{
	p->catalog = NULL;
	if (e) {
		probe_fail(p, e);
		return false;
	}
	p->rels = rels;
	p->nrels = n;
	return true;
}

static void on_relations(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	if (probe_take_relations(arg, rels, n, e))
		probe_next(arg);
}

static void read_relations(struct probe *p)
{
	p->catalog = catalog_read(p->sql, &p->tables, true, p->version < 130000, on_relations, p);
}

int probe_discover(const struct settings *s, const struct dmsr_option *options, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out)
{
	static const struct probe_step steps[] = { { .start = read_relations }, { 0 } };
	struct probe *p = probe_new(s, options, tables, 0, host);
	probe_start(p, steps, answer_discovered);
	*out = (struct dmsr_instance *)p;
	return 0;
}
