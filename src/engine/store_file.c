/* store_file: names of directories made durable, directories removed, and the words for what went wrong. */
#include "store_file.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ROOM = 16 << 20 };

int store_file_err(struct err *e, const char *doing, const char *path)
{
	int error = errno;
	if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
		err_set(e, DMSR_EFULL, "state.full", "cannot %s %s: %s", doing, path, strerror(error));
		if (error == EFBIG)
			return err_hint(e, "Lift the limit on the size of files (ulimit -f, or LimitFSIZE of the unit), then start dmsrd again: its jobs go on "
				"from where they are durable.");
		return err_hint(e, "%s there: a dmsrd that runs looks for it, and begins anew by itself; its jobs go on from where they are durable.",
			error == EDQUOT ? "Raise the quota, or make room" : "Make room");
	}
	err_set(e, DMSR_EIO, "state.io", "cannot %s %s: %s", doing, path, strerror(error));
	if (error == EACCES || error == EPERM || error == EROFS)
		return err_hint(e, "Give the user of dmsrd the right to write there, then start it again.");
	return err_hint(e, "Look into the disk and the kernel's log, then start dmsrd again: its jobs go on from where they are durable.");
}

bool store_file_has_room(const char *dir)
{
	struct statvfs fs;
	char *path = mem_printf("%s/room", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	bool has = fd >= 0 && !unlink(path) && !fallocate(fd, 0, 0, ROOM);
	if (fd >= 0 && !has && errno == EOPNOTSUPP)
		has = !fstatvfs(fd, &fs) && fs.f_bavail >= ROOM / fs.f_frsize;
	if (fd >= 0)
		close(fd);
	free(path);
	return has;
}

int store_file_corrupt(struct err *e, const char *path, const char *what, ...)
{
	char why[512];
	va_list ap;
	va_start(ap, what);
	int n = vsnprintf(why, sizeof why, what, ap);
	va_end(ap);
	if (n < 0)
		why[0] = 0;
	err_set(e, DMSR_EPROTO, "state.corrupt", "%s is damaged: %s", path, why);
	return err_hint(e, "Put the state directory back from a backup. Without one: move it away, start dmsrd and make the jobs anew, with "
		"\"prepare\": \"truncate\" at targets, which still have their rows; and drop the slots (dmsr_JOB_...) that the old ones have left at "
		"their sources.");
}

int store_file_sync_dir(const char *dir, struct err *e)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return store_file_err(e, "open", dir);
	int rc = fsync(fd) ? store_file_err(e, "sync", dir) : 0;
	close(fd);
	return rc;
}

/* may_climb: what is above it may be missing. It may be there, and mkdir() say all the same that it is not: a link to nowhere, or /proc. */
static int make_dirs(const char *dir, bool may_climb, bool lasts, struct err *e)
{
	if (!mkdir(dir, 0700)) {
		if (!lasts)
			return 0;
		char *parent = mem_printf("%s/..", dir);
		int rc = store_file_sync_dir(parent, e);
		free(parent);
		return rc;
	}
	if (errno == EEXIST)
		return 0;
	const char *slash = strrchr(dir, '/');
	if (errno != ENOENT || !slash || slash == dir || !may_climb)
		return store_file_err(e, "make", dir);
	char *above = mem_strndup(dir, (size_t)(slash - dir));
	int rc = make_dirs(above, true, lasts, e);
	free(above);
	return rc ? rc : make_dirs(dir, false, lasts, e);
}

int store_file_make_dirs(const char *dir, struct err *e) { return make_dirs(dir, true, true, e); }

int store_file_remove_dir(const char *dir, unsigned max, struct err *e)
{
	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : store_file_err(e, "read", dir);
	int rc = 0;
	for (struct dirent *f; !rc && (errno = 0, f = readdir(d));) {
		if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, ".."))
			continue;
		if (!max--)
			rc = 1;
		else if (unlinkat(dirfd(d), f->d_name, 0) && errno != ENOENT)
			rc = store_file_err(e, "remove a file in", dir);
	}
	closedir(d);
	if (!rc && rmdir(dir) && errno != ENOENT)
		rc = store_file_err(e, "remove", dir);
	return rc;
}

int store_file_make_scratch(const char *dir, struct err *e)
{
	int rc = store_file_remove_dir(dir, UINT_MAX, e);
	return rc ? rc : make_dirs(dir, true, false, e);
}
