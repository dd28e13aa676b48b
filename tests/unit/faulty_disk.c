/* faulty_disk: see the header. What was done and not synced is kept as a list of what undoes it, the newest first. */
#include "faulty_disk.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
	enum fault what;
	int error;
	long at; /* the call that is hit */
	char dir[64];
} fault;
static atomic_long calls;
static atomic_int hits;

/* What a power cut takes back: the newest first. */
struct undo {
	struct undo *next;
	enum { UNDO_BYTES, UNDO_MAKE, UNDO_REMOVE, UNDO_RMDIR, UNDO_RENAME } kind;
	char path[192];
	char other[192];                /* of a rename: its new name; else a second name of the file, which no rename takes away */
	char replaced[192];             /* what stood at other before; "": nothing */
	ino_t inode;                    /* of BYTES */
	char *bytes;
	size_t n;
	off_t offset, size;
};
static struct undo *undos;
static pthread_mutex_t disk_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned chance, graves;

#define REAL(name) (*(__typeof__(&(name)) *)real(#name))
static void **real(const char *name)
{
	static __thread void *f;
	f = dlsym(RTLD_NEXT, name);
	return &f;
}

static bool is_watched(const char *path) { return fault.what && !strncmp(path, fault.dir, strlen(fault.dir)); }

static bool path_of_fd(int fd, char *out, size_t size)
{
	char link[40];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = fault.what ? readlink(link, out, size - 1) : -1;
	out[n > 0 ? (size_t)n : 0] = 0;
	return n > 0 && is_watched(out);
}

static bool by_chance(void)
{
	chance = chance * 1103515245 + 12345;
	return (chance >> 16) & 1;
}

static const char *in_grave(char *out, size_t size)
{
	snprintf(out, size, "%s.grave/%u", fault.dir, graves++);
	return out;
}

static void undo_one(struct undo *u)
{
	if (u->kind == UNDO_MAKE) {
		/* a directory goes with all that is in it, synced or not: nothing leads there */
		if (REAL(unlink)(u->path) && REAL(rmdir)(u->path) && errno == ENOTEMPTY)
			REAL(rename)
		(u->path, in_grave(u->other, sizeof u->other));
	} else if (u->kind == UNDO_REMOVE) {
		if (link(u->other, u->path) && errno != EEXIST && errno != ENOENT)
			abort();
	} else if (u->kind == UNDO_RMDIR) {
		REAL(mkdir)
		(u->path, 0700);
	} else if (u->kind == UNDO_RENAME) {
		REAL(rename)
		(u->other, u->path);
		if (u->replaced[0] && link(u->replaced, u->other) && errno != EEXIST && errno != ENOENT)
			abort();
	} else {
		int fd = REAL(open)(u->other, O_RDWR);
		if (fd < 0)
			abort();
		size_t n = u->n;
		size_t from = fault.what == FAULT_CUT_IN_PART && n > 1024 && by_chance() ? n / 2 : 0; /* the first half got through */
		if (n && REAL(pwrite)(fd, u->bytes + from, n - from, u->offset + (off_t)from) < 0)
			abort();
		if (!from && REAL(ftruncate)(fd, u->size))
			abort();
		close(fd);
	}
}

_Noreturn void faulty_disk_cut(void)
{
	for (struct undo *u = undos; u && fault.what != FAULT_KILL; u = u->next)
		if (fault.what == FAULT_CUT || by_chance())
			undo_one(u);
	_exit(FAULT_EXIT);
}

/* Before a call that changes something. -1: it fails, errno is set. */
static int before_change(void)
{
	pthread_mutex_lock(&disk_mutex);
	bool is_hit = atomic_fetch_add(&calls, 1) + 1 == fault.at;
	if (is_hit) {
		atomic_fetch_add(&hits, 1);
		if (fault.what != FAULT_ERROR)
			faulty_disk_cut();
		errno = fault.error;
	}
	pthread_mutex_unlock(&disk_mutex);
	return is_hit ? -1 : 0;
}

static struct undo *remember(int kind, const char *path)
{
	if (fault.what < FAULT_CUT)
		return NULL;
	struct undo *u = calloc(1, sizeof *u);
	u->kind = kind;
	snprintf(u->path, sizeof u->path, "%s", path);
	pthread_mutex_lock(&disk_mutex);
	u->next = undos;
	undos = u;
	pthread_mutex_unlock(&disk_mutex);
	return u;
}

/* The bytes of [offset, offset + n) as they are, and the size. */
static void remember_bytes(const char *path, off_t offset, size_t n)
{
	struct stat st;
	if (fault.what < FAULT_CUT || stat(path, &st))
		return;
	char *bytes = malloc(n + 1);
	int fd = REAL(open)(path, O_RDONLY);
	ssize_t got = pread(fd, bytes, n, offset);
	close(fd);
	struct undo *u = remember(UNDO_BYTES, path);
	if (link(path, in_grave(u->other, sizeof u->other)))
		abort();
	u->inode = st.st_ino;
	u->bytes = bytes;
	u->offset = offset;
	u->n = got > 0 ? (size_t)got : 0;
	u->size = st.st_size;
}

/* Synced: no power cut takes it back. A directory's sync is about the names in it. */
static void forget(const char *path)
{
	struct stat st;
	if (stat(path, &st))
		return; /* it has no name any more */
	bool is_dir = S_ISDIR(st.st_mode);
	size_t n = strlen(path);
	pthread_mutex_lock(&disk_mutex);
	for (struct undo **at = &undos, *u; (u = *at);) {
		const char *name = u->kind == UNDO_RENAME ? u->other : u->path;
		bool is_in = !strncmp(name, path, n) && name[n] == '/' && !strchr(name + n + 1, '/');
		if (is_dir ? u->kind != UNDO_BYTES && is_in : u->kind == UNDO_BYTES && u->inode == st.st_ino) {
			*at = u->next;
			free(u->bytes);
			free(u);
		} else {
			at = &u->next;
		}
	}
	pthread_mutex_unlock(&disk_mutex);
}

/* Seen by SQLite's library too. */
#pragma GCC visibility push(default)

static ssize_t do_pwrite(int fd, const void *p, size_t n, off_t offset)
{
	char path[192];
	if (path_of_fd(fd, path, sizeof path)) {
		if (before_change())
			return -1;
		remember_bytes(path, offset, n);
	}
	return REAL(pwrite)(fd, p, n, offset);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t offset) { return do_pwrite(fd, p, n, offset); }
ssize_t pwrite64(int fd, const void *p, size_t n, off_t offset) { return do_pwrite(fd, p, n, offset); }

ssize_t write(int fd, const void *p, size_t n)
{
	char path[192];
	if (path_of_fd(fd, path, sizeof path)) {
		if (before_change())
			return -1;
		remember_bytes(path, lseek(fd, 0, SEEK_CUR), n);
	}
	return REAL(write)(fd, p, n);
}

static int do_ftruncate(int fd, off_t size)
{
	char path[192];
	if (path_of_fd(fd, path, sizeof path)) {
		struct stat st;
		if (before_change())
			return -1;
		if (!fstat(fd, &st))
			remember_bytes(path, size, st.st_size > size ? (size_t)(st.st_size - size) : 0);
	}
	return REAL(ftruncate)(fd, size);
}
int ftruncate(int fd, off_t size) { return do_ftruncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_ftruncate(fd, size); }

static int do_sync(int fd)
{
	char path[192];
	if (!path_of_fd(fd, path, sizeof path))
		return 0; /* nothing here is worth a real one */
	if (before_change())
		return -1;
	forget(path);
	return 0;
}
int fsync(int fd) { return do_sync(fd); }
int fdatasync(int fd) { return do_sync(fd); }

static int do_open(const char *path, int flags, mode_t mode)
{
	bool makes = is_watched(path) && (flags & O_CREAT) && access(path, F_OK);
	if (makes && before_change())
		return -1;
	int fd = REAL(open)(path, flags, mode);
	if (makes && fd >= 0)
		remember(UNDO_MAKE, path);
	return fd;
}
int open(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return do_open(path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return do_open(path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
	bool makes = is_watched(path) && access(path, F_OK);
	if (makes && before_change())
		return -1;
	int rc = REAL(mkdir)(path, mode);
	if (makes && !rc)
		remember(UNDO_MAKE, path);
	return rc;
}

int rmdir(const char *path)
{
	bool removes = is_watched(path) && !access(path, F_OK);
	if (removes && before_change())
		return -1;
	int rc = REAL(rmdir)(path);
	if (removes && !rc)
		remember(UNDO_RMDIR, path);
	return rc;
}

int unlink(const char *path)
{
	bool removes = is_watched(path) && !access(path, F_OK);
	if (removes && before_change())
		return -1;
	struct undo *u = removes ? remember(UNDO_REMOVE, path) : NULL;
	if (u) {
		if (link(path, in_grave(u->other, sizeof u->other)))
			abort();
	}
	return REAL(unlink)(path);
}

int unlinkat(int dir, const char *name, int flags)
{
	char path[192];
	if (path_of_fd(dir, path, sizeof path) && strlen(path) + strlen(name) + 2 < sizeof path) {
		size_t n = strlen(path);
		snprintf(path + n, sizeof path - n, "/%s", name);
		return unlink(path);
	}
	return REAL(unlinkat)(dir, name, flags);
}

int rename(const char *from, const char *to)
{
	if (is_watched(from) && before_change())
		return -1;
	struct undo *u = is_watched(from) ? remember(UNDO_RENAME, from) : NULL;
	if (u) {
		snprintf(u->other, sizeof u->other, "%s", to);
		if (link(to, in_grave(u->replaced, sizeof u->replaced)))
			u->replaced[0] = 0;
	}
	int rc = REAL(rename)(from, to);
	if (u && rc)
		snprintf(u->other, sizeof u->other, "%s", u->path); /* nothing is to be undone */
	return rc;
}

#pragma GCC visibility pop

/* ---- what the tests see ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

void faulty_disk_begin(const char *dir, enum fault what, long at, int error)
{
	char grave[80];
	fault.what = FAULT_NONE;
	snprintf(fault.dir, sizeof fault.dir, "%s", dir);
	snprintf(grave, sizeof grave, "%s.grave", dir);
	if (mkdir(grave, 0700))
		abort();
	fault.at = at;
	fault.error = error;
	atomic_store(&calls, 0);
	atomic_store(&hits, 0);
	chance = (unsigned)at;
	fault.what = what;
}

void faulty_disk_rest(void) { fault.what = FAULT_NONE; }

void faulty_disk_end(void)
{
	char grave[80];
	faulty_disk_rest();
	snprintf(grave, sizeof grave, "%s.grave", fault.dir);
	nftw(grave, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

long faulty_disk_calls(void) { return atomic_load(&calls); }
bool faulty_disk_was_hit(void) { return atomic_load(&hits) > 0; }
