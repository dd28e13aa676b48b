/* listen: the sockets that clients come to. */
#include "base/log.h"
#include "base/mem.h"
#include "http/server.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128 };

/* A numeric host and its port -> a socket address. */
static int parse_address(const char *text, struct sockaddr_storage *out, bool *loopback, struct err *e)
{
	char host[INET6_ADDRSTRLEN];
	uint16_t port;
	struct sockaddr_in *four = (struct sockaddr_in *)out;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
	memset(out, 0, sizeof *out);
	if (!config_split_listen(text, host, sizeof host, &port))
		goto bad;
	*loopback = config_is_loopback(host);
	if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		return 0;
	}
bad:
	err_set(e, DMSR_EINVAL, "http.listen", "http.listen \"%.128s\" is no address and port", text);
	return err_hint(e, "as in 127.0.0.1:8080 or [::1]:8080");
}

static void name_address(struct http *h)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	char text[INET6_ADDRSTRLEN] = "?";
	memset(&a, 0, sizeof a);
	getsockname(h->tcp.fd, (struct sockaddr *)&a, &n);
	if (a.ss_family == AF_INET) {
		const struct sockaddr_in *four = (const struct sockaddr_in *)&a;
		inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
		snprintf(h->address, sizeof h->address, "%s:%d", text, ntohs(four->sin_port));
	} else {
		const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&a;
		inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
		snprintf(h->address, sizeof h->address, "[%s]:%d", text, ntohs(six->sin6_port));
	}
}

static int refused(struct err *e, const char *text, int error)
{
	if (error == EADDRINUSE) {
		err_set(e, DMSR_ESTATE, "http.port-taken", "%s: another program listens there", text);
		return err_hint(e, "is dmsrd running already? ss -ltnp shows who it is; http.listen sets another address");
	}
	return err_set(e, DMSR_EIO, "http.listen", "%s: %s", text, strerror(error));
}

int listen_tcp(struct http *h, const char *text, struct err *e)
{
	struct sockaddr_storage a;
	int one = 1, zero = 0, rc = parse_address(text, &a, &h->loopback, e);
	if (rc)
		return rc;
	h->tcp.fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (h->tcp.fd < 0)
		return refused(e, text, errno);
	setsockopt(h->tcp.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (a.ss_family == AF_INET6)
		setsockopt(h->tcp.fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(h->tcp.fd, (struct sockaddr *)&a, a.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) ||
		listen(h->tcp.fd, BACKLOG))
		return refused(e, text, errno);
	name_address(h);
	return 0;
}

/* A socket's file outlives a daemon that was killed: nobody answers behind it, and it may be taken. */
static int take_over(const struct sockaddr_un *a, struct err *e)
{
	struct stat st;
	if (lstat(a->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, DMSR_EIO, "http.socket", "%s is there and no socket", a->sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc = connect(fd, (const struct sockaddr *)a, sizeof *a), error = errno;
	close(fd);
	if (rc == 0 || error != ECONNREFUSED)
		return err_set(e, DMSR_ESTATE, "http.socket-taken", "%s: another program listens there", a->sun_path);
	if (unlink(a->sun_path))
		return err_set(e, DMSR_EIO, "http.socket", "%s: %s", a->sun_path, strerror(errno));
	return 0;
}

int listen_unix(struct http *h, const char *path, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t n = strlen(path);
	if (n >= sizeof a.sun_path)
		return err_set(e, DMSR_EINVAL, "http.socket", "http.socket \"%.64s...\" is longer than %zu bytes", path, sizeof a.sun_path - 1);
	memcpy(a.sun_path, path, n + 1);
	int rc = take_over(&a, e);
	if (rc)
		return rc;
	h->local.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Between bind and chmod it must not be open to more than its owner and group. */
	mode_t before = umask(0117);
	rc = h->local.fd < 0 ? -1 : bind(h->local.fd, (struct sockaddr *)&a, sizeof a);
	int error = errno;
	umask(before);
	if (rc) {
		err_set(e, DMSR_EIO, "http.socket", "%s: %s", path, strerror(error));
		return err_hint(e, "its directory must be there and writable; \"http.socket\": \"\" does without");
	}
	h->local.path = mem_strdup(path);
	if (listen(h->local.fd, BACKLOG))
		return err_set(e, DMSR_EIO, "http.socket", "%s: %s", path, strerror(errno));
	return 0;
}

void listener_close(struct listener *l)
{
	while (l->served) {
		struct served *s = l->served;
		l->served = s->next;
		served_free(s);
	}
	if (l->fd >= 0)
		close(l->fd);
	if (l->path)
		unlink(l->path);
	free(l->path);
	l->path = NULL;
	l->fd = -1;
}
