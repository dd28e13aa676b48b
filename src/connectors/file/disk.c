/* disk: everything that touches the file system, on the worker's thread; it may take as long as it likes. One struct disk belongs to one worker.
 *
 * A directory that was made, a name that was given: made durable by fsync of the directory they stand in. A failed fsync is an error and the end of the
 * instance; the next one writes everything anew that was not published. */
#include "file_int.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { FDS_MAX = 64, JOURNAL_BYTES_MAX = 256 << 20, PIPE_PIECE = 4096, PIPE_WAIT_MS = 100, SLICE_BYTES = 64 * 1024 };

struct open_part {
	uint64_t number;
	int fd;
};

struct disk {
	char *path, *own;               /* own: below path, for this job and target */
	int lock, journal;
	struct open_part fds[FDS_MAX];
	unsigned nfds, next_out;
	bool is_broken;                 /* something failed: what was asked for since does not count */
};

/* ---- errors ---- */

static int disk_error(struct err *e, const char *what, const char *path)
{
	int no = errno;

	switch (no) {
	case ENOSPC: case EDQUOT: case EFBIG:
		err_retry(e, DMSR_EFULL, "target.disk-full", "%s %s: %s", what, path, strerror(no));
		return err_hint(e, "make room; the job goes on by itself, nothing is lost");
	case EACCES: case EPERM: case EROFS: case ENOTDIR: case ENAMETOOLONG: case ELOOP:
		err_set(e, DMSR_EAUTH, "target.path", "%s %s: %s", what, path, strerror(no));
		return err_hint(e, "the user that runs dmsrd must be able to make files and directories there");
	case EPIPE:
		return err_set(e, DMSR_EIO, "target.closed", "%s %s: nobody reads it any more", what, path);
	default:
		return err_retry(e, DMSR_EIO, "target.io", "%s %s: %s", what, path, strerror(no));
	}
}

static int injected(struct err *e, const char *name)
{
	return err_retry(e, DMSR_EIO, "target.io", "a failpoint says so: %s", name);
}

static int broken(const struct disk *d, struct err *e)
{
	return err_retry(e, DMSR_EIO, "target.io", "%s: nothing is written after something that failed", d->own);
}

/* ---- small things ---- */

static int sync_directory(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return disk_error(e, "cannot open", path);
	int rc = fsync(fd) ? disk_error(e, "cannot make durable", path) : 0;
	close(fd);
	return rc;
}

/* The directory that path stands in; path is put right again. */
static int sync_parent(char *path, struct err *e)
{
	char *slash = strrchr(path, '/');

	if (!slash)
		return sync_directory(".", e);
	if (slash == path)
		return sync_directory("/", e);
	*slash = 0;
	int rc = sync_directory(path, e);
	*slash = '/';
	return rc;
}

/* Makes path and what is above it. */
static int make_directories(const char *path, struct err *e)
{
	char *copy = mem_strdup(path);
	int rc = 0;

	for (char *p = copy + 1; !rc; p++) {
		char was = *p;
		if (was && was != '/')
			continue;
		*p = 0;
		if (!mkdir(copy, 0777))
			rc = sync_parent(copy, e);
		else if (errno != EEXIST)
			rc = disk_error(e, "cannot make", copy);
		*p = was;
		if (!was)
			break;
	}
	free(copy);
	return rc;
}

static int write_all(int fd, const char *p, size_t n, const char *path, struct err *e)
{
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return disk_error(e, "cannot write", path);
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

static char *part_path(const struct disk *d, uint64_t part) { return mem_printf("%s/%" PRIu64 ".part", d->own, part); }

/* ---- parts ---- */

static void close_part(struct disk *d, unsigned i)
{
	close(d->fds[i].fd);
	d->fds[i] = d->fds[--d->nfds];
}

/* Its descriptor; only so many are kept open. flags: O_CREAT | O_EXCL for a new one. */
static int part_fd(struct disk *d, uint64_t part, int flags, struct err *e)
{
	for (unsigned i = 0; i < d->nfds; i++)
		if (d->fds[i].number == part)
			return d->fds[i].fd;
	if (d->nfds == FDS_MAX)
		close_part(d, d->next_out++ % FDS_MAX);
	char *path = part_path(d, part);
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0666);
	if (fd < 0)
		fd = disk_error(e, "cannot open", path);
	else
		d->fds[d->nfds++] = (struct open_part){ part, fd };
	free(path);
	return fd;
}

static int write_part(struct disk *d, uint64_t part, bool is_new, const char *p, size_t n, struct err *e)
{
	int fd = part_fd(d, part, is_new ? O_CREAT | O_EXCL : 0, e);

	if (fd < 0)
		return fd;
	if (failpoint("file.write")) {
		errno = ENOSPC;
		return disk_error(e, "cannot write", d->own);
	}
	return write_all(fd, p, n, d->own, e);
}

int disk_write(struct disk *d, uint64_t part, bool is_new, const char *p, size_t n, struct err *e)
{
	int rc = d->is_broken ? broken(d, e) : write_part(d, part, is_new, p, n, e);

	d->is_broken |= rc != 0;
	return rc;
}

static void forget_fd(struct disk *d, uint64_t part)
{
	for (unsigned i = 0; i < d->nfds; i++)
		if (d->fds[i].number == part) {
			close_part(d, i);
			return;
		}
}

void disk_discard(struct disk *d, uint64_t part)
{
	char *path = part_path(d, part);

	forget_fd(d, part);
	unlink(path); /* if it stays, the next start throws it away */
	free(path);
}

/* ---- publishing ---- */

static int sync_part(struct disk *d, const struct journal_rename *r, struct err *e)
{
	struct stat st;
	int fd = part_fd(d, r->part, 0, e), rc = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || fsync(fd))
		rc = disk_error(e, "cannot make durable a file in", d->own);
	else if ((uint64_t)st.st_size != r->bytes)
		rc = err_retry(e, DMSR_EIO, "target.io", "%s: part %" PRIu64 " has %lld bytes instead of %" PRIu64 ": somebody else writes there", d->own,
			r->part, (long long)st.st_size, r->bytes);
	forget_fd(d, r->part);
	return rc;
}

/* Calls fn with each directory of the files once; they stand together by directory. */
static int each_directory(struct disk *d, const struct journal_rename *r, size_t n, int (*fn)(const char *path, struct err *e), struct err *e)
{
	char *last = NULL;
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		const char *slash = strrchr(r[i].path, '/');
		char *dir = slash ? mem_printf("%s/%.*s", d->path, (int)(slash - r[i].path), r[i].path) : mem_strdup(d->path);
		if (!last || strcmp(dir, last) != 0)
			rc = fn(dir, e);
		free(last);
		last = dir;
	}
	free(last);
	return rc;
}

static int rename_part(struct disk *d, const struct journal_rename *r, struct err *e)
{
	char *from = part_path(d, r->part), *to = mem_printf("%s/%s", d->path, r->path);
	/* Not there: it was renamed before a crash, and perhaps taken away by its reader since. */
	int rc = rename(from, to) && errno != ENOENT ? disk_error(e, "cannot rename a file to", to) : 0;

	free(from);
	free(to);
	return rc;
}

static int rename_all(struct disk *d, const struct journal_rename *r, size_t n, struct err *e)
{
	int rc = each_directory(d, r, n, make_directories, e);

	for (size_t i = 0; i < n && !rc; i++) {
		rc = rename_part(d, &r[i], e);
		if (!rc && failpoint("file.renamed"))
			rc = injected(e, "file.renamed");
	}
	return rc ? rc : each_directory(d, r, n, sync_directory, e);
}

/* In place of the old one, all at once. */
static int write_journal(struct disk *d, const char *text, size_t n, struct err *e)
{
	char *now = mem_printf("%s/journal", d->own), *next = mem_printf("%s/journal.new", d->own);
	int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
	int rc = fd < 0 ? disk_error(e, "cannot make", next) : write_all(fd, text, n, next, e);

	if (!rc && fsync(fd))
		rc = disk_error(e, "cannot make durable", next);
	if (!rc && rename(next, now))
		rc = disk_error(e, "cannot rename", next);
	if (!rc)
		rc = sync_directory(d->own, e);
	if (rc && fd >= 0) {
		close(fd);
	} else if (!rc) {
		if (d->journal >= 0)
			close(d->journal);
		d->journal = fd;
	}
	free(now);
	free(next);
	return rc;
}

static int append_journal(struct disk *d, const char *text, size_t n, struct err *e)
{
	int rc = write_all(d->journal, text, n, d->own, e);

	if (!rc && fdatasync(d->journal))
		rc = disk_error(e, "cannot make durable the journal in", d->own);
	return rc;
}

static int publish(struct disk *d, const struct journal_rename *r, size_t n, const char *group, size_t len, bool anew, struct err *e)
{
	int rc = each_directory(d, r, n, make_directories, e);

	for (size_t i = 0; i < n && !rc; i++)
		rc = sync_part(d, &r[i], e);
	/* The names of the parts, so that the renames can be finished after a power cut. */
	if (!rc && n)
		rc = sync_directory(d->own, e);
	if (!rc && failpoint("file.before-journal"))
		rc = injected(e, "file.before-journal");
	if (!rc)
		rc = anew ? write_journal(d, group, len, e) : append_journal(d, group, len, e);
	if (!rc && failpoint("file.before-rename"))
		rc = injected(e, "file.before-rename");
	if (!rc)
		rc = rename_all(d, r, n, e);
	if (!rc && failpoint("file.after-rename"))
		rc = injected(e, "file.after-rename");
	return rc;
}

int disk_publish(struct disk *d, const struct journal_rename *r, size_t n, const char *group, size_t len, bool anew, struct err *e)
{
	int rc = d->is_broken ? broken(d, e) : publish(d, r, n, group, len, anew, e);

	d->is_broken |= rc != 0;
	return rc;
}

/* ---- the start ---- */

static int take_lock(struct disk *d, bool *busy, struct err *e)
{
	char *path = mem_printf("%s/lock", d->own);
	int rc = 0;

	*busy = false;
	if (d->lock < 0)
		d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (d->lock < 0) {
		rc = disk_error(e, "cannot open", path);
	} else if (flock(d->lock, LOCK_EX | LOCK_NB)) {
		*busy = errno == EWOULDBLOCK;
		rc = *busy ? err_retry(e, DMSR_ESTATE, "target.busy", "%s is in use by another run of this job", d->own) :
			     disk_error(e, "cannot lock", path);
	}
	free(path);
	return rc;
}

static int read_all(int fd, struct buf *out, const char *path, struct err *e)
{
	for (;;) {
		if (buf_reserve(out, SLICE_BYTES))
			return err_set(e, DMSR_EFATAL, "target.state-damaged", "%s: has more than %d bytes", path, JOURNAL_BYTES_MAX);
		ssize_t n = read(fd, out->data + out->len, SLICE_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return disk_error(e, "cannot read", path);
		if (!n)
			return 0;
		out->len += (size_t)n;
	}
}

static int read_journal(struct disk *d, struct journal *j, struct err *e)
{
	char *path = mem_printf("%s/journal", d->own);
	struct buf text;
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

	buf_init(&text, JOURNAL_BYTES_MAX);
	if (fd >= 0) {
		rc = read_all(fd, &text, path, e);
		if (!rc && (rc = journal_parse(text.data, text.len, j, e))) {
			err_prefix(e, "%s", path);
			err_hint(e, "move %s away and load the tables again: what was published stays, but where it ends is not known", d->own);
		}
		close(fd);
	} else if (errno != ENOENT) {
		rc = disk_error(e, "cannot open", path);
	}
	buf_fini(&text);
	free(path);
	return rc;
}

/* What was being written when we died: it is sent again. */
static int drop_parts(struct disk *d, struct err *e)
{
	DIR *dir = opendir(d->own);
	const struct dirent *entry;

	if (!dir)
		return disk_error(e, "cannot read", d->own);
	while ((entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);
		if (n > 5 && !strcmp(entry->d_name + n - 5, ".part"))
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
	return 0;
}

int disk_open(struct disk *d, struct journal *j, bool *busy, struct err *e)
{
	struct buf text;
	int rc = disk_probe(d->path, e);

	if (rc || (rc = make_directories(d->own, e)) || (rc = take_lock(d, busy, e)) || (rc = read_journal(d, j, e)))
		return rc;
	if ((rc = rename_all(d, j->renames, j->nrenames, e)) || (rc = drop_parts(d, e)))
		return rc;
	for (size_t i = 0; i < j->nrenames; i++)
		free(j->renames[i].path);
	j->nrenames = 0;
	buf_init(&text, JOURNAL_BYTES_MAX);
	journal_put(&text, j, true);
	rc = write_journal(d, text.data, text.len, e);
	buf_fini(&text);
	return rc;
}

struct disk *disk_new(const char *path, const char *uid, const char *target)
{
	struct disk *d = mem_zalloc(sizeof *d);
	struct buf own;

	d->lock = d->journal = -1;
	d->path = mem_strdup(path);
	buf_init(&own, SIZE_MAX);
	buf_printf(&own, "%s/.dmsr/", path);
	names_encode(&own, uid);
	buf_byte(&own, '.');
	names_encode(&own, target);
	d->own = mem_strdup(buf_cstr(&own));
	buf_fini(&own);
	return d;
}

void disk_end(void *disk)
{
	struct disk *d = disk;

	while (d->nfds)
		close_part(d, 0);
	if (d->journal >= 0)
		close(d->journal);
	if (d->lock >= 0)
		close(d->lock); /* and with it the lock: the next instance may go on */
	free(d->path);
	free(d->own);
	free(d);
}

/* root may "write" there, and makes no file all the same. */
static bool is_of_kernel(const char *path)
{
	static const long magic[] = { PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC,
		DEVPTS_SUPER_MAGIC };
	struct statfs fs;
	if (statfs(path, &fs))
		return false;
	for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
		if (fs.f_type == magic[i])
			return true;
	return false;
}

static int probe_directory(const char *at, struct err *e)
{
	struct stat st;
	if (is_of_kernel(at)) {
		err_set(e, DMSR_EAUTH, "target.path", "%s is the kernel's: no files can be made there", at);
		return err_hint(e, "name a directory of a disk");
	}
	if (access(at, W_OK | X_OK) || stat(at, &st))
		return disk_error(e, "cannot write to", at);
	return S_ISDIR(st.st_mode) ? 0 : (errno = ENOTDIR, disk_error(e, "cannot write to", at));
}

int disk_probe(const char *path, struct err *e)
{
	char *copy = mem_strdup(path);
	int rc = 0;

	/* What is there of the path must let us make the rest. */
	for (;;) {
		char *slash;
		const char *at = *copy ? copy : ".";
		if (!access(at, F_OK)) {
			rc = probe_directory(at, e);
			break;
		}
		if (errno != ENOENT) {
			rc = disk_error(e, "cannot look at", at);
			break;
		}
		slash = strrchr(copy, '/');
		*(slash == copy ? slash + 1 : slash ? slash : copy) = 0;
	}
	free(copy);
	return rc;
}

/* ---- the end of a job ---- */

const char *disk_own(const struct disk *d) { return d->own; }

static int remove_own(struct disk *d, struct err *e)
{
	static const char *const files[] = { "journal", "journal.new", "lock" };
	int rc = 0;

	for (size_t i = 0; i < sizeof files / sizeof *files && !rc; i++) {
		char *path = mem_printf("%s/%s", d->own, files[i]);
		if (unlink(path) && errno != ENOENT)
			rc = disk_error(e, "cannot remove", path);
		free(path);
	}
	if (!rc && rmdir(d->own))
		rc = disk_error(e, "cannot remove", d->own);
	return rc;
}

int disk_forget(struct disk *d, bool *busy, struct err *e)
{
	struct journal j = { 0 };
	struct stat st;
	int rc = 0;

	*busy = false;
	if (stat(d->own, &st))
		return errno == ENOENT ? 0 : disk_error(e, "cannot look at", d->own);
	rc = disk_open(d, &j, busy, e);
	journal_fini(&j);
	if (!rc)
		rc = remove_own(d, e);
	if (!rc) {
		char *all = mem_printf("%s/.dmsr", d->path);
		rmdir(all); /* other jobs may be there */
		free(all);
	}
	return rc;
}

/* ---- stdout ---- */

int disk_print(struct disk *d, struct worker *w, const char *p, size_t n, struct err *e)
{
	(void)d;
	if (failpoint("file.write")) {
		errno = ENOSPC;
		return disk_error(e, "cannot write to", "stdout");
	}
	while (n) {
		/* A pipe that is said to be ready takes this much without waiting: so freeing the worker is noticed. */
		struct pollfd pfd = { .fd = STDOUT_FILENO, .events = POLLOUT };
		int ready = poll(&pfd, 1, PIPE_WAIT_MS);
		if (worker_is_leaving(w))
			return err_set(e, DMSR_ESTATE, "target.closed", "stdout: closed while its reader was waited for");
		if (ready <= 0 && (ready == 0 || errno == EINTR))
			continue;
		ssize_t done = ready < 0 ? -1 : write(STDOUT_FILENO, p, n < PIPE_PIECE ? n : PIPE_PIECE);
		if (done < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (done < 0)
			return disk_error(e, "cannot write to", "stdout");
		p += done;
		n -= (size_t)done;
	}
	return 0;
}
