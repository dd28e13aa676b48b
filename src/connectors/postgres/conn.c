/* conn: making a connection, its descriptor, its failures; what is done with it is in the other conn_*.c.
 *
 * In come the settings; out goes a session that is ready, or one failure. Owned by whoever called pgconn_new.
 *
 * Connecting: the name is resolved by the loop, then its addresses are tried in turn, each by PQconnectStart with hostaddr (so libpq never resolves
 * and never blocks) beside host (what a certificate is checked against), and then in steps, which a thread makes. Each address gets an equal part of the time
 * that is left. An answer of the server, also a refusal, ends the search: only unreachable addresses are passed over. */
#include "conn_int.h"
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* A path that never exists, and is no error for libpq: ENOTDIR. Without it libpq looks into the home directory. */
#define NO_FILE "/dev/null/none"
#define SYSTEM_ROOTS "/etc/ssl/certs/ca-certificates.crt"

enum { SLICE_US = 1500, SLICE_LOOK = 16 };

static const char *const state_names[CONN_STATES] = { "idle", "resolving", "connecting", "set-up", "ready", "busy", "copy-in",
	"copy-out", "stream", "pipeline", "closed" };

static void start_address(struct pgconn *c);

/* ---- failures ---- */

/* A step of connecting never waits, but some take long: what a password has to be hashed into is up to the server (4096 rounds and more), and TLS may read all
 * certificates of the system. So they are made on threads, which have the PGconn meanwhile: a few for all connections, however many are made at once, and more
 * than one, so that a server that wants millions of rounds holds up a part of the others at most. */
struct step {
	struct pgconn *c;               /* NULL: it was given up; the loop's */
	atomic_bool is_given_up;        /* so, for the thread */
	PGconn *pg;
	PostgresPollingStatusType what;
};

static struct dialer {
	struct worker *worker;          /* NULL: it makes no connection */
	struct loop *loop;
	unsigned connections;
} dialers[4];

static struct worker *dial(struct pgconn *c)
{
	if (c->dialer)
		return c->dialer->worker;
	struct dialer *d = dialers;
	for (size_t i = 1; i < sizeof dialers / sizeof *dialers; i++)
		if (dialers[i].connections < d->connections)
			d = &dialers[i];
	if (!d->worker) {
		d->loop = c->loop;
		d->worker = worker_new(c->loop, "postgres");
	}
	assert(d->loop == c->loop);
	d->connections++;
	c->dialer = d;
	return d->worker;
}

static void stop_dialing(struct pgconn *c)
{
	struct dialer *d = c->dialer;
	c->dialer = NULL;
	if (!d || --d->connections)
		return;
	worker_leave(d->worker, NULL, NULL);
	d->worker = NULL;
}

/* A step of connecting that is under way, or waits, ends by itself, with the PGconn. */
static void hang_up(struct pgconn *c)
{
	if (c->step) {
		c->step->c = NULL;
		atomic_store(&c->step->is_given_up, true);
	}
	c->step = NULL;
	stop_dialing(c);
	PQfinish(c->pg);
	c->pg = NULL;
}

static void drop_connection(struct pgconn *c)
{
	loop_io_free(c->io);
	c->io = NULL;
	loop_timer_free(c->timer);
	c->timer = NULL;
	loop_timer_free(c->coalesce);
	c->coalesce = NULL;
	loop_resolve_cancel(c->resolve);
	c->resolve = NULL;
	PQclear(c->job.last);
	c->job.last = NULL;
	hang_up(c);
}

void conn_fail(struct pgconn *c, const struct err *e)
{
	if (c->state == CONN_CLOSED)
		return;
	if (e != &c->failure)
		c->failure = *e;
	log_debug("postgres", c->object, "%s: %s -> closed: %s", c->description, state_names[c->state], c->failure.message);
	c->state = CONN_CLOSED;
	c->on_input = NULL;
	c->on_drain = NULL;
	/* libpq's own objects stay until the callback is left: a caller further up may still hold a row or ask for a text. */
	loop_task_post(c->later);
}

void conn_lost(struct pgconn *c, const char *doing)
{
	if (c->state == CONN_CLOSED)
		return;
	struct err e = { 0 };
	if (err_is_set(&c->fatal))
		e = c->fatal;
	else
		pgerr_from_conn(&e, c, doing);
	conn_fail(c, &e);
}

/* ---- time ---- */

bool conn_is_late(struct pgconn *c)
{
	if (++c->slice_ticks % SLICE_LOOK)
		return false;
	return loop_now_us(c->loop) - c->slice_began_us > SLICE_US;
}

/* ---- the descriptor ---- */

static void enter(struct pgconn *c)
{
	assert(!c->in_callback);
	c->in_callback = true;
	c->slice_ticks = 0;
	c->slice_began_us = loop_now_us(c->loop);
}

static void wipe(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
	free(s);
}

static void release(struct pgconn *c)
{
	drop_connection(c);
	loop_task_free(c->later);
	conn_pipe_free(c->pipe);
	wipe(c->password);
	free(c->host);
	free(c->database);
	free(c->user);
	free(c->sslmode);
	free(c->sslrootcert);
	free(c->application);
	free(c->addresses);
	free(c->object);
	free(c->role);
	free(c->description);
	free(c);
}

static void leave(struct pgconn *c)
{
	c->in_callback = false;
	if (c->freed)
		release(c);
	else if (c->state == CONN_CLOSED)
		drop_connection(c);
}

void conn_again(struct pgconn *c) { loop_task_post(c->later); }

/* What the descriptor is to wait for, after paused or the activity changed. */
static void watch(struct pgconn *c)
{
	if (!c->io || c->state <= CONN_CONNECTING || c->state == CONN_CLOSED)
		return;
	unsigned what = c->paused ? 0 : LOOP_READ;
	loop_io_want(c->io, what | (c->pending ? LOOP_WRITE : 0));
}

void conn_take(struct pgconn *c, enum conn_state state, bool (*on_input)(struct pgconn *c))
{
	assert(c->state != CONN_CLOSED);
	c->state = state;
	c->on_input = on_input;
	if (state != CONN_READY)
		return;
	PQclear(c->job.last);
	c->job = (struct conn_job){ 0 };
	loop_timer_free(c->coalesce);
	c->coalesce = NULL;
	c->on_drain = NULL;
	c->was_full = false;
	if (c->paused) {
		c->paused = false;
		watch(c);
	}
}

void conn_flush(struct pgconn *c)
{
	if (c->state == CONN_CLOSED)
		return;
	int rc = PQflush(c->pg);
	if (rc < 0) {
		/* The server may have said why before it cut the line: read that first. */
		c->is_gone = true;
		conn_again(c);
		return;
	}
	if (rc == 0)
		c->pending = 0;
	else if (!c->pending)
		c->pending = 1;
	watch(c);
}

void conn_wrote(struct pgconn *c, size_t n)
{
	c->pending += n;
	c->input_is_known = false; /* who has no room to write reads, too */
	if (c->pending > CONN_DRAIN_MARK)
		c->was_full = true;
	conn_flush(c);
}

bool conn_has_input(struct pgconn *c)
{
	SSL *tls = PQsslStruct(c->pg, "OpenSSL");
	int n = 0;
	if (c->input_is_known)
		return c->has_input;
	c->input_is_known = true;
	c->has_input = (tls && SSL_pending(tls) > 0) || (!ioctl(PQsocket(c->pg), FIONREAD, &n) && n > 0);
	return c->has_input;
}

/* Reads once more. False: dead (the state says so). */
static bool read_more(struct pgconn *c)
{
	c->input_is_known = false;
	if (!PQconsumeInput(c->pg))
		c->is_gone = true;
	return !c->is_gone;
}

/* Nobody waits for anything: notices are seen, and a server that goes away. */
static bool idle_input(struct pgconn *c)
{
	PQisBusy(c->pg);
	for (PGnotify *n; (n = PQnotifies(c->pg));)
		PQfreemem(n);
	return false;
}

/* Reads and hands on until there is nothing left or the slice is over. */
static void read_on(struct pgconn *c)
{
	c->input_is_known = false;
	for (;;) {
		/* libpq moves what it still holds to the front for every read, and grows when it holds much: that is handed on first. */
		if (!c->is_gone && !c->has_rest)
			read_more(c);
		bool again = c->on_input ? c->on_input(c) : idle_input(c);
		if (c->freed || c->state == CONN_CLOSED)
			return;
		c->has_rest = again || c->paused;
		if (again) {
			conn_again(c);
			return;
		}
		if (c->is_gone) {
			if (!c->paused)
				conn_lost(c, "reading");
			return;
		}
		if (c->paused || !conn_has_input(c))
			return;
		if (loop_now_us(c->loop) - c->slice_began_us > SLICE_US) {
			conn_again(c);
			return;
		}
	}
}

static void drained(struct pgconn *c)
{
	if (c->state == CONN_CLOSED || c->pending || !c->was_full || !c->on_drain)
		return;
	c->was_full = false;
	c->on_drain(c);
}

static void on_io(void *arg, unsigned ready)
{
	struct pgconn *c = arg;
	enter(c);
	if (ready & LOOP_WRITE) {
		conn_flush(c);
		drained(c);
	}
	if ((ready & LOOP_READ) && !c->freed && c->state != CONN_CLOSED && !c->paused)
		read_on(c);
	leave(c);
}

static void on_later(void *arg)
{
	struct pgconn *c = arg;
	enter(c);
	if (c->state == CONN_CLOSED) {
		if (!c->told) {
			c->told = true;
			c->owner.on_failed(c->owner.ctx, &c->failure);
		}
	} else if (c->state == CONN_IDLE) {
		start_address(c);
	} else if (c->state > CONN_CONNECTING) {
		if (!c->paused || c->is_gone)
			read_on(c);
		if (!c->freed)
			drained(c);
	}
	leave(c);
}

/* ---- connecting ---- */

/* What libpq would otherwise take from the environment or the home directory, said outright. Values that are empty mean "none" there. */
static const struct { const char *keyword, *value; } fixed_keywords[] = {
	{ "passfile", NO_FILE }, { "sslcert", NO_FILE }, { "sslkey", NO_FILE }, { "sslcrl", NO_FILE }, { "sslcrldir", "" },
	{ "sslsni", "1" }, { "sslcompression", "0" }, { "ssl_min_protocol_version", "TLSv1.2" }, { "ssl_max_protocol_version", "" },
	{ "channel_binding", "prefer" }, { "requirepeer", "" }, { "gssencmode", "disable" }, { "krbsrvname", "postgres" }, { "gsslib", "" },
	{ "target_session_attrs", "any" }, { "options", "" }, { "connect_timeout", "0" }, { "client_encoding", "UTF8" },
	{ "keepalives", "1" }, { "keepalives_idle", "30" }, { "keepalives_interval", "10" }, { "keepalives_count", "3" },
	{ "tcp_user_timeout", "60000" },
};

static void add_keyword(struct buf *b, const char *keyword, const char *value)
{
	buf_printf(b, "%s='", keyword);
	for (const char *s = value; *s; s++) {
		if (*s == '\'' || *s == '\\')
			buf_byte(b, '\\');
		buf_byte(b, *s);
	}
	buf_str(b, "' ");
}

/* A string, not arrays of keywords: only in a string an empty value keeps the environment out. Those few variables that have no keyword, or
 * whose keyword cannot be made void, are removed from the process. */
static void forget_environment(void)
{
	static const char *const names[] = { "PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
}

static void conninfo(const struct pgconn *c, struct buf *b)
{
	char port[16];
	snprintf(port, sizeof port, "%d", c->port);
	for (size_t i = 0; i < sizeof fixed_keywords / sizeof *fixed_keywords; i++)
		add_keyword(b, fixed_keywords[i].keyword, fixed_keywords[i].value);
	add_keyword(b, "host", c->host);
	add_keyword(b, "hostaddr", c->naddresses ? c->addresses[c->address] : "");
	add_keyword(b, "port", port);
	add_keyword(b, "dbname", c->database);
	add_keyword(b, "user", c->user);
	add_keyword(b, "password", c->password ? c->password : "");
	add_keyword(b, "application_name", c->application);
	add_keyword(b, "sslmode", c->sslmode);
	const char *roots = c->sslrootcert;
	if (!roots)
		roots = !strncmp(c->sslmode, "verify-", 7) ? SYSTEM_ROOTS : NO_FILE;
	add_keyword(b, "sslrootcert", roots);
	if (c->kind == PGCONN_REPLICATION)
		add_keyword(b, "replication", "database");
}

/* A server that cuts an idle connection says why in a message that libpq takes for a notice. */
static void on_notice(void *arg, const PGresult *res)
{
	struct pgconn *c = arg;
	c->notices++;
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
	if (severity && (!strcmp(severity, "FATAL") || !strcmp(severity, "PANIC")))
		pgerr_from_result(&c->fatal, c, res);
	else if (c->owner.on_notice && !c->freed && PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY))
		c->owner.on_notice(c->owner.ctx, PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
}

static void on_session(void *arg, const PGresult *res, const struct err *e)
{
	struct pgconn *c = arg;
	(void)res;
	if (e) {
		conn_fail(c, e);
		return;
	}
	loop_timer_free(c->timer);
	c->timer = NULL;
	log_debug("postgres", c->object, "%s: connected, server %d", c->description, PQserverVersion(c->pg));
	c->owner.on_ready(c->owner.ctx);
}

/* All that a server, a database or a role may have set to make a value be written or read in another way, or a statement of ours mean another thing. In one
 * statement, as a replication connection takes no more: its output functions are ruled by the same settings. */
static void set_up_session(struct pgconn *c)
{
	static const struct { int since; const char *name, *value; } settings[] = {
		{ 0, "DateStyle", "ISO, MDY" }, { 0, "IntervalStyle", "postgres" }, { 0, "extra_float_digits", "1" }, { 0, "bytea_output", "hex" },
		{ 0, "TimeZone", "UTC" }, { 0, "lc_monetary", "C" }, { 0, "xmloption", "content" }, { 0, "standard_conforming_strings", "on" },
		{ 0, "array_nulls", "on" }, { 0, "transform_null_equals", "off" }, { 0, "gin_fuzzy_search_limit", "0" },
		{ 0, "quote_all_identifiers", "off" }, { 0, "statement_timeout", "0" }, { 0, "lock_timeout", "0" },
		{ 0, "idle_in_transaction_session_timeout", "0" }, { 140000, "idle_session_timeout", "0" },
		{ 170000, "transaction_timeout", "0" }, { 0, "search_path", "" },
		{ 0, "jit", "off" }, /* for what we ask of the catalogs a compiler takes seconds, and the query milliseconds */
	};
	struct buf sql;
	buf_init(&sql, 4096);
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
		if (PQserverVersion(c->pg) >= settings[i].since)
			buf_printf(&sql, "%spg_catalog.set_config('%s','%s',false)", sql.len ? ", " : "SELECT ", settings[i].name,
				settings[i].value);
	c->state = CONN_READY;
	pgconn_query(c, buf_cstr(&sql), on_session, c);
	buf_fini(&sql);
	if (c->state == CONN_BUSY)
		c->state = CONN_SETUP;
}

/* Only a server that did not answer is passed over for its next address. */
static void address_failed(struct pgconn *c, const struct err *e)
{
	bool unreachable = strstr(e->id, ".unreachable") && c->address + 1 < c->naddresses;
	loop_io_free(c->io);
	c->io = NULL;
	hang_up(c);
	if (!unreachable) {
		conn_fail(c, e);
		return;
	}
	c->address++;
	start_address(c);
}

static void on_connecting(void *arg, unsigned ready);

static void go_on(struct pgconn *c, PostgresPollingStatusType what)
{
	if (what == PGRES_POLLING_FAILED) {
		struct err e = { 0 };
		pgerr_from_conn(&e, c, "connecting");
		address_failed(c, &e);
		return;
	}
	if (what != PGRES_POLLING_OK) {
		c->io = loop_io_new(c->loop, "postgres", PQsocket(c->pg), on_connecting, c);
		loop_io_want(c->io, what == PGRES_POLLING_WRITING ? LOOP_WRITE : LOOP_READ);
		return;
	}
	PQsetErrorVerbosity(c->pg, PQERRORS_DEFAULT);
	PQsetNoticeReceiver(c->pg, on_notice, c);
	PQsetnonblocking(c->pg, 1);
	wipe(c->password);
	c->password = NULL;
	stop_dialing(c);
	c->io = loop_io_new(c->loop, "postgres", PQsocket(c->pg), on_io, c);
	set_up_session(c);
}

static void step_run(void *arg)
{
	struct step *s = arg;
	if (!atomic_load(&s->is_given_up))
		s->what = PQconnectPoll(s->pg);
}

static void step_drop(void *arg)
{
	struct step *s = arg;
	PQfinish(s->pg);
	free(s);
}

static void step_done(void *arg)
{
	struct step *s = arg;
	struct pgconn *c = s->c;
	PostgresPollingStatusType what = s->what;
	if (!c) {
		step_drop(s);
		return;
	}
	c->step = NULL;
	c->pg = s->pg;
	free(s);
	enter(c);
	go_on(c, what);
	leave(c);
}

static void on_connecting(void *arg, unsigned ready)
{
	struct pgconn *c = arg;
	(void)ready;
	/* libpq may close its socket and open another one under the same number. */
	loop_io_free(c->io);
	c->io = NULL;
	c->step = mem_alloc(sizeof *c->step);
	*c->step = (struct step){ .c = c, .pg = c->pg };
	c->pg = NULL;
	worker_post(dial(c), &(struct worker_job){ step_run, step_done, step_drop, c->step });
}

static void on_deadline(void *arg)
{
	struct pgconn *c = arg;
	struct err e = { 0 };
	char id[48];
	enter(c);
	snprintf(id, sizeof id, "%s.unreachable", c->role);
	const char *address = c->naddresses && strcmp(c->addresses[c->address], c->host) != 0 ? c->addresses[c->address] : "";
	err_retry(&e, DMSR_EIO, id, "%s: no answer in time while %s%s%s", c->description, state_names[c->state], address[0] ? " " : "", address);
	err_hint(&e, "is the server up, and reachable from here? connect_timeout sets how long to wait");
	if (c->state == CONN_CONNECTING)
		address_failed(c, &e);
	else if (c->state != CONN_CLOSED)
		conn_fail(c, &e);
	leave(c);
}

static void quiet(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static void start_address(struct pgconn *c)
{
	struct buf info;
	uint64_t now = loop_now_us(c->loop), left = c->deadline_us > now ? c->deadline_us - now : 1;
	int tries = c->naddresses > c->address ? c->naddresses - c->address : 1;
	loop_timer_start_us(c->timer, left / (unsigned)tries);
	buf_init(&info, 64 * 1024);
	conninfo(c, &info);
	c->state = CONN_CONNECTING;
	c->pg = buf_ok(&info) ? PQconnectStart(buf_cstr(&info)) : NULL;
	if (info.data)
		explicit_bzero(info.data, info.cap);
	buf_fini(&info);
	if (!c->pg || PQstatus(c->pg) == CONNECTION_BAD) {
		struct err e = { 0 };
		pgerr_from_conn(&e, c, "connecting");
		address_failed(c, &e);
		return;
	}
	/* So that a refusal tells its SQLSTATE: a text may be in any language. */
	PQsetErrorVerbosity(c->pg, PQERRORS_VERBOSE);
	PQsetNoticeProcessor(c->pg, quiet, NULL);
	c->io = loop_io_new(c->loop, "postgres", PQsocket(c->pg), on_connecting, c);
	loop_io_want(c->io, LOOP_WRITE);
}

static void on_resolved(void *arg, const struct sockaddr_storage *addrs, int n, const struct err *e)
{
	struct pgconn *c = arg;
	enter(c);
	c->resolve = NULL;
	if (e || !n) {
		struct err out = { 0 };
		char id[48];
		snprintf(id, sizeof id, "%s.unreachable", c->role);
		/* An unknown name too may be known later: a container's, a failed-over server's. */
		err_retry(&out, DMSR_EIO, id, "%s: %s", c->description, e ? e->message : "the name has no address");
		if (e && e->hint[0])
			err_hint(&out, "%s", e->hint);
		conn_fail(c, &out);
	} else {
		c->addresses = mem_zalloc((size_t)n * sizeof *c->addresses);
		for (int i = 0; i < n; i++) {
			socklen_t len = addrs[i].ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
			if (!getnameinfo((const struct sockaddr *)&addrs[i], len, c->addresses[c->naddresses],
				    sizeof *c->addresses, NULL, 0, NI_NUMERICHOST))
				c->naddresses++;
		}
		start_address(c);
	}
	leave(c);
}

static char *dup_setting(const struct settings *s, const char *name)
{
	const char *v = settings_str(s, name);
	return v && v[0] ? mem_strdup(v) : NULL;
}

struct pgconn *pgconn_new(const struct dmsr_env *env, const struct settings *s, enum pgconn_kind kind, const struct pgconn_owner *o)
{
	struct pgconn *c = mem_zalloc(sizeof *c);
	forget_environment();
	c->loop = env->loop;
	c->owner = *o;
	c->kind = kind;
	c->object = mem_strdup(env->job);
	c->role = mem_strdup(env->name && !strcmp(env->name, "source") ? "source" : "target");
	c->host = mem_strdup(settings_str(s, "host"));
	c->port = (int)settings_int(s, "port");
	c->database = mem_strdup(settings_str(s, "database"));
	c->user = mem_strdup(settings_str(s, "user"));
	c->password = dup_setting(s, "password");
	c->sslmode = mem_strdup(settings_str(s, "sslmode"));
	c->sslrootcert = dup_setting(s, "sslrootcert");
	c->application = mem_printf("dmsr:%s:%s", env->job ? env->job : "", env->name ? env->name : "");
	c->description = mem_printf("%s:%d/%s", c->host, c->port, c->database);
	c->later = loop_task_new(c->loop, "postgres", on_later, c);
	c->timer = loop_timer_new(c->loop, "postgres", on_deadline, c);
	uint64_t limit_us = (uint64_t)settings_int(s, "connect_timeout") * 1000;
	c->deadline_us = loop_now_us(c->loop) + limit_us;
	loop_timer_start_us(c->timer, limit_us);
	if (c->host[0] == '/') {
		loop_task_post(c->later);
	} else {
		c->state = CONN_RESOLVING;
		c->resolve = loop_resolve_start(c->loop, c->host, c->port, on_resolved, c);
	}
	return c;
}

void pgconn_free(struct pgconn *c)
{
	if (!c)
		return;
	c->freed = true;
	c->owner.on_notice = NULL;
	if (c->in_callback) {
		/* The socket goes at once, the rest when the callback is left. */
		if (c->state != CONN_CLOSED) {
			c->state = CONN_CLOSED;
			c->told = true;
			c->on_input = NULL;
			c->on_drain = NULL;
		}
		return;
	}
	release(c);
}

bool pgconn_is_ready(const struct pgconn *c) { return c->state == CONN_READY; }

int pgconn_server_version(const struct pgconn *c) { return PQserverVersion(c->pg); }

const char *pgconn_describe(const struct pgconn *c) { return c->description; }

size_t pgconn_pending(const struct pgconn *c) { return c->pending; }

void pgconn_pause(struct pgconn *c)
{
	if (c->paused || (c->state != CONN_COPY_OUT && c->state != CONN_STREAM))
		return;
	c->paused = true;
	watch(c);
}

void pgconn_resume(struct pgconn *c)
{
	if (!c->paused)
		return;
	c->paused = false;
	watch(c);
	if (c->state != CONN_CLOSED)
		conn_again(c);
}
