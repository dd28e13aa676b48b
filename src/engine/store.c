/* store: the state directory itself: made, locked, known again; and the store's beginning and end.
 *
 *   lock        flock of the daemon that uses it, and its pid
 *   format      "dmsr state 1": written when state.db was whole for the first time. With it, an empty or missing state.db is damage, not a beginning
 *   state.db    store_db; state.db-wal beside it
 *   logs/UID/   store_log */
#include "store_file.h"
#include "store_int.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format_text[] = "dmsr state 1\n";

static bool is_empty_dir(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;
	while (d && n < 3 && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n == 2;
}

/* A directory that was there is closed to others when it is ours alone; one that others may write to is refused. */
static int check_dir(const char *dir, struct err *e)
{
	struct stat st;
	if (stat(dir, &st))
		return store_file_err(e, "look at", dir);
	if (!S_ISDIR(st.st_mode)) {
		errno = ENOTDIR;
		return store_file_err(e, "use", dir);
	}
	if (!(st.st_mode & 077))
		return 0;
	if (st.st_uid == geteuid() && is_empty_dir(dir))
		return chmod(dir, 0700) ? store_file_err(e, "set the mode of", dir) : 0;
	if (!(st.st_mode & 022))
		return 0; /* may be looked into: all that is secret has its own mode */
	err_set(e, DMSR_EAUTH, "state.mode", "%s may be written to by others (mode %04o)", dir, (unsigned)(st.st_mode & 07777));
	return err_hint(e, "chmod 0700 it if it is dmsrd's alone; else give dmsrd a directory of its own (state_dir).");
}

static int locked(const char *dir, int fd, struct err *e)
{
	char pid[24] = "";
	ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
	pid[n > 0 ? (size_t)n : 0] = 0;
	pid[strspn(pid, "0123456789")] = 0;
	err_set(e, DMSR_ESTATE, "state.locked", "%s is in use by another dmsrd, process %s", dir, *pid ? pid : "unknown");
	return err_hint(e, "Stop that process, or give this one a state_dir of its own.");
}

static int lock(struct store *s, struct err *e)
{
	char *path = mem_printf("%s/lock", s->dir);
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc = s->lock_fd < 0 ? store_file_err(e, "open", path) : 0;
	if (!rc && flock(s->lock_fd, LOCK_EX | LOCK_NB))
		rc = errno == EWOULDBLOCK ? locked(s->dir, s->lock_fd, e) : store_file_err(e, "lock", path);
	if (!rc) {
		char pid[24];
		int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
		if (ftruncate(s->lock_fd, 0) || pwrite(s->lock_fd, pid, (size_t)n, 0) != n)
			rc = store_file_err(e, "write to", path);
	}
	free(path);
	return rc;
}

/* 1: the directory was in use before; 0: it is new. */
static int read_format(const struct store *s, struct err *e)
{
	char text[32];
	char *path = mem_printf("%s/format", s->dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = 0;
	if (fd < 0) {
		rc = errno == ENOENT ? 0 : store_file_err(e, "open", path);
	} else {
		ssize_t n = read(fd, text, sizeof text);
		rc = n < 0 ? store_file_err(e, "read", path) : 1;
		if (rc == 1 && ((size_t)n != sizeof format_text - 1 || memcmp(text, format_text, (size_t)n) != 0))
			rc = store_file_corrupt(e, path, "it does not say \"dmsr state 1\"");
		close(fd);
	}
	free(path);
	return rc;
}

static int write_format(const struct store *s, struct err *e)
{
	char *part = mem_printf("%s/format.part", s->dir), *path = mem_printf("%s/format", s->dir);
	ssize_t n = sizeof format_text - 1;
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc = fd < 0 ? store_file_err(e, "make", part) : 0;
	if (!rc && (write(fd, format_text, (size_t)n) != n || fsync(fd)))
		rc = store_file_err(e, "write to", part);
	if (fd >= 0)
		close(fd);
	if (!rc && rename(part, path))
		rc = store_file_err(e, "rename", part);
	free(part);
	free(path);
	return rc ? rc : store_file_sync_dir(s->dir, e);
}

static int check_there(const struct store *s, struct err *e)
{
	char *path = mem_printf("%s/state.db", s->dir);
	struct stat st;
	int rc = 0;
	if (stat(path, &st))
		rc = errno == ENOENT ? store_file_corrupt(e, path, "it is missing, though %s was in use", s->dir) : store_file_err(e, "look at", path);
	else if (!st.st_size)
		rc = store_file_corrupt(e, path, "it is empty");
	free(path);
	return rc;
}

static int open_files(struct store *s, struct err *e)
{
	int rc = store_file_make_dirs(s->dir, e);
	if (!rc)
		rc = check_dir(s->dir, e);
	if (!rc)
		rc = lock(s, e);
	int was_used = rc ? rc : read_format(s, e);
	if (was_used < 0)
		return was_used;
	if (was_used && (rc = check_there(s, e)))
		return rc;
	rc = store_db_open(s->dir, &s->db, e);
	if (!rc && !was_used)
		rc = write_format(s, e);
	return rc ? rc : store_log_start(s, e);
}

static void free_store(struct store *s)
{
	store_log_end(s);
	store_db_close(s->db, !s->is_broken);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->q);
	free(s->dir);
	free(s);
}

int store_open(struct loop *l, const char *dir, void (*on_failed)(void *arg, const struct err *e), void *arg, struct store **out, struct err *e)
{
	struct err own;
	struct store *s = mem_zalloc(sizeof *s);
	s->dir = mem_strdup(dir);
	s->lock_fd = -1;
	s->now_us = wall_now_us;
	s->q = mem_zalloc(sizeof *s->q);
	s->loop = l;
	s->on_failed = on_failed;
	s->arg = arg;
	int rc = open_files(s, e ? e : &own);
	if (rc) {
		s->is_broken = true;
		free_store(s);
		return rc;
	}
	store_thread_start(s);
	*out = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	store_thread_end(s);
	free_store(s);
}

const char *store_dir(const struct store *s) { return s->dir; }

void store_stat(const struct store *s, struct store_stat *out)
{
	pthread_mutex_lock(&s->q->mutex);
	*out = s->q->stat;
	pthread_mutex_unlock(&s->q->mutex);
}
