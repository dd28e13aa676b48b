/* served: libmicrohttpd's daemons on our loop, and the connections they accept.
 *
 * A daemon's epoll descriptor is one descriptor of ours, and its next time-out a timer; MHD_run does what is due and never waits. A daemon cannot change
 * its certificate or its limits: a reload starts another on the same socket and retires the old one. */
#include "base/log.h"
#include "base/mem.h"
#include "http/server.h"
#include "http/stat.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PEM_BYTES_MAX = 256 * 1024, CUT_EVERY_MS_MAX = 500 };

static const char priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

static void pump(void *arg)
{
	struct served *s = arg;
	MHD_UNSIGNED_LONG_LONG ms;
	unsigned closed = s->nclosed;
	s->kicked = false;
	MHD_run(s->mhd);
	/* A daemon that was full listens again only when it is run once more. */
	if (s->kicked || s->nclosed != closed)
		loop_timer_start(s->timer, 0);
	else if (MHD_get_timeout(s->mhd, &ms) == MHD_YES)
		loop_timer_start(s->timer, ms);
	else
		loop_timer_stop(s->timer);
}

/* Without a thread of its own libmicrohttpd does not wake itself. */
void served_resume(struct served *s, struct MHD_Connection *c)
{
	MHD_resume_connection(c);
	s->kicked = true;
	loop_timer_start(s->timer, 0);
}

static void on_ready(void *arg, unsigned ready)
{
	(void)ready;
	pump(arg);
}

static void on_log(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_log(void *arg, const char *fmt, va_list ap)
{
	char text[512];
	(void)arg;
	vsnprintf(text, sizeof text, fmt, ap);
	text[strcspn(text, "\n")] = 0;
	log_debug("http", NULL, "libmicrohttpd: %s", text);
}

static size_t on_unescape(void *arg, struct MHD_Connection *c, char *s)
{
	(void)arg;
	(void)c;
	return strlen(s); /* uri.c does it, after it has cut the path */
}

static void arm_cutter(struct http *h)
{
	uint64_t every = h->limits.timeout_ms / 4;
	if (!loop_timer_is_running(h->cutter))
		loop_timer_start(h->cutter, every > CUT_EVERY_MS_MAX ? CUT_EVERY_MS_MAX : every + 1);
}

static struct conn *conn_open(struct served *s, struct MHD_Connection *c)
{
	struct http *h = s->listener->http;
	const union MHD_ConnectionInfo *fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct conn *conn = mem_zalloc(sizeof *conn);
	conn->served = s;
	conn->fd = fd->connect_fd;
	conn->deadline_us = loop_now_us(h->loop) + h->limits.timeout_ms * 1000;
	conn->next = h->conns;
	if (h->conns)
		h->conns->prev = conn;
	h->conns = conn;
	s->nconns++;
	h->stat->connections++;
	arm_cutter(h);
	return conn;
}

static void conn_close(struct conn *conn)
{
	struct served *s = conn->served;
	struct http *h = s->listener->http;
	request_lost(conn->request);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		h->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	free(conn);
	s->nconns--;
	s->nclosed++;
	h->stat->connections--;
	if (s->retired && !s->nconns)
		loop_task_post(h->reaper);
}

static void on_connection(void *arg, struct MHD_Connection *c, void **conn, enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*conn = conn_open(arg, c);
	} else if (*conn) {
		conn_close(*conn);
		*conn = NULL;
	}
}

void conns_cut(struct http *h)
{
	uint64_t now = loop_now_us(h->loop);
	for (struct conn *c = h->conns; c; c = c->next) {
		if (!c->deadline_us || now < c->deadline_us)
			continue;
		/* libmicrohttpd sees the end of the stream, and closes. */
		shutdown(c->fd, SHUT_RDWR);
		c->deadline_us = 0;
		h->stat->cut++;
		log_debug("http", NULL, "a connection was too slow and is cut");
	}
	if (h->conns)
		arm_cutter(h);
}

static char *read_pem(const char *path, const char *what, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *text = NULL;
	if (fd < 0 || fstat(fd, &st)) {
		err_set(e, DMSR_EINVAL, "http.tls", "%s: %s: %s", what, path, strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size > PEM_BYTES_MAX) {
		err_set(e, DMSR_EINVAL, "http.tls", "%s: %s is no file of at most 256 KiB", what, path);
	} else {
		text = mem_zalloc((size_t)st.st_size + 1);
		if (read(fd, text, (size_t)st.st_size) < 0) {
			err_set(e, DMSR_EINVAL, "http.tls", "%s: %s: %s", what, path, strerror(errno));
			free(text);
			text = NULL;
		}
	}
	if (fd >= 0)
		close(fd);
	return text;
}

static int load_keys(struct served *s, const char *cert, const char *key, struct err *e)
{
	if (!cert && !key)
		return 0;
	if (!cert || !key)
		return err_set(e, DMSR_EINVAL, "http.tls", "http.tls_cert and http.tls_key go together");
	if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
		return err_set(e, DMSR_EINVAL, "http.tls", "this libmicrohttpd was built without TLS");
	if (!(s->cert = read_pem(cert, "http.tls_cert", e)) || !(s->key = read_pem(key, "http.tls_key", e)))
		return DMSR_EINVAL;
	s->tls = true;
	return 0;
}

static int start(struct served *s, const struct limits *limits, int fd, struct err *e)
{
	unsigned seconds = (unsigned)((limits->timeout_ms + 999) / 1000);
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, s->key },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)priorities },
		{ MHD_OPTION_END, 0, NULL },
	};
	s->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (s->tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_access, s,
		MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, limits->connections_max,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT, s->listener->local ? 0 : limits->connections_per_ip_max,
		MHD_OPTION_CONNECTION_TIMEOUT, seconds ? seconds : 1,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADER_BYTES_MAX,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, s,
		MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
		s->tls ? MHD_OPTION_ARRAY : MHD_OPTION_END, tls, MHD_OPTION_END);
	if (s->mhd)
		return 0;
	if (!s->tls)
		return err_set(e, DMSR_EIO, "http.listen", "libmicrohttpd does not start: %s", strerror(errno));
	err_set(e, DMSR_EINVAL, "http.tls", "http.tls_cert and http.tls_key are no certificate (PEM, with its chain) and the private key of it");
	return err_hint(e, "log.levels {\"http\":\"debug\"} shows what libmicrohttpd says");
}

/* A daemon that fails to start has closed its socket or not, as it failed late or early. The number may be another thread's by now: what it stands for
 * is asked first. */
static void close_copy(int fd, int of)
{
	struct stat copy, original;
	if (fd >= 0 && !fstat(fd, &copy) && !fstat(of, &original) && copy.st_dev == original.st_dev && copy.st_ino == original.st_ino)
		close(fd);
}

struct served *served_new(struct listener *l, const struct limits *limits, const char *cert, const char *key, struct err *e)
{
	struct served *s = mem_zalloc(sizeof *s);
	struct loop *loop = l->http->loop;
	s->listener = l;
	int fd = -1;
	if (load_keys(s, cert, key, e))
		goto failed;
	/* A daemon closes its listening socket with itself: each has a descriptor of its own. */
	if ((fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3)) < 0) {
		err_set(e, DMSR_EIO, "http.listen", "dup: %s", strerror(errno));
		goto failed;
	}
	if (start(s, limits, fd, e))
		goto failed;
	s->io = loop_io_new(loop, "http", MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, on_ready, s);
	s->timer = loop_timer_new(loop, "http", pump, s);
	loop_io_want(s->io, LOOP_READ);
	loop_timer_start(s->timer, 0);
	return s;
failed:
	close_copy(fd, l->fd);
	served_free(s);
	return NULL;
}

void served_retire(struct served *s)
{
	struct http *h = s->listener->http;
	MHD_socket fd = MHD_quiesce_daemon(s->mhd);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	s->retired = true;
	if (!s->nconns)
		loop_task_post(h->reaper);
}

void served_free(struct served *s)
{
	if (!s)
		return;
	loop_io_free(s->io);
	loop_timer_free(s->timer);
	if (s->mhd)
		MHD_stop_daemon(s->mhd);
	free(s->cert);
	if (s->key)
		explicit_bzero(s->key, strlen(s->key));
	free(s->key);
	free(s);
}

static void reap(struct listener *l)
{
	for (struct served **at = &l->served; *at;) {
		struct served *s = *at;
		if (!s->retired || s->nconns) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		served_free(s);
	}
}

void served_reap(struct http *h)
{
	reap(&h->tcp);
	reap(&h->local);
}
