/* clock: preloaded into a program, shows it a time of day that is $FAKE_CLOCK seconds ahead of the machine's. Clocks that only go on, timers and waits are as
 * ever: whoever waits until a time of day has read it here, so it is taken back. */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

typedef int read_clock(clockid_t id, struct timespec *ts);
typedef int wait_until(cnd_t *cond, mtx_t *mutex, const struct timespec *until);

/* What the program would have called. */
static void *next(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);
	if (!f)
		abort();
	return f;
}

static long ahead(void)
{
	const char *text = getenv("FAKE_CLOCK");
	return text ? strtol(text, NULL, 10) : 0;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	static read_clock *real;
	if (!real)
		real = (read_clock *)next("clock_gettime");
	int rc = real(id, ts);
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
		ts->tv_sec += ahead();
	return rc;
}

int timespec_get(struct timespec *ts, int base)
{
	return clock_gettime(CLOCK_REALTIME, ts) ? 0 : base;
}

int gettimeofday(struct timeval *tv, void *zone)
{
	struct timespec ts;
	(void)zone;
	int rc = clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return rc;
}

time_t time(time_t *out)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}

int cnd_timedwait(cnd_t *cond, mtx_t *mutex, const struct timespec *until)
{
	static wait_until *real;
	struct timespec ours = *until;
	if (!real)
		real = (wait_until *)next("cnd_timedwait");
	ours.tv_sec -= ahead();
	return real(cond, mutex, &ours);
}
