/* metrics_process: process_*, as Prometheus' own client libraries name them, of /proc/self. Reading it does no I/O. */
#include "http/metrics.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void one(struct buf *b, const char *name, const char *type, double value, const char *help)
{
	metric_family(b, name, type, help);
	metric_sample(b, name, value, NULL);
}

/* Fields of /proc/self/stat from the third on (those before hold the program's name); false when it cannot be read. */
static bool read_stat(double *out, size_t n)
{
	char text[1024];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (len <= 0)
		return false;
	text[len] = 0;
	char *p = strrchr(text, ')');
	if (!p || !*++p)
		return false;
	p += 2; /* the state, a letter */
	for (size_t i = 0; i < n; i++)
		out[i] = strtod(p, &p);
	return true;
}

static unsigned count_fds(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

/* When the process began, as the kernel's clock since boot tells it. */
static double start_time(double start_ticks, double ticks_per_second)
{
	struct timespec boot, wall;
	clock_gettime(CLOCK_BOOTTIME, &boot);
	clock_gettime(CLOCK_REALTIME, &wall);
	return (double)(wall.tv_sec - boot.tv_sec) + (double)(wall.tv_nsec - boot.tv_nsec) / 1e9 + start_ticks / ticks_per_second;
}

void metrics_process(struct buf *b)
{
	enum { UTIME = 10, STIME = 11, THREADS = 16, START = 18, VSIZE = 19, RSS = 20, FIELDS = 21 };
	double f[FIELDS], ticks = (double)sysconf(_SC_CLK_TCK);
	struct rlimit fds;
	if (read_stat(f, FIELDS)) {
		one(b, "process_cpu_seconds_total", "counter", (f[UTIME] + f[STIME]) / ticks, "CPU time, user and system.");
		one(b, "process_resident_memory_bytes", "gauge", f[RSS] * (double)sysconf(_SC_PAGESIZE), "Resident memory.");
		one(b, "process_virtual_memory_bytes", "gauge", f[VSIZE], "Virtual memory.");
		one(b, "process_threads", "gauge", f[THREADS], "Threads.");
		one(b, "process_start_time_seconds", "gauge", start_time(f[START], ticks), "Start of the process since the epoch.");
	}
	one(b, "process_open_fds", "gauge", count_fds(), "Open descriptors.");
	if (!getrlimit(RLIMIT_NOFILE, &fds))
		one(b, "process_max_fds", "gauge", (double)fds.rlim_cur, "The most there may be.");
}
