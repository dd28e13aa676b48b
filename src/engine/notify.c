/* notify: sd_notify, and the two timers behind it: the watchdog's, and that of a long stop. */
#include "engine/notify.h"
#include "base/mem.h"
#include <config.h> /* configure's, not the room's of the same name */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

enum { EXTEND_US = 10 * 1000 * 1000 };

struct notify {
	struct loop *loop;
	struct loop_timer *watchdog, *extend;
	uint64_t period_us; /* 0: nobody watches */
	char status[160];
};

static void say(const char *text)
{
#ifdef HAVE_SYSTEMD
	/* A manager that does not listen is no reason to stop working. */
	(void)sd_notify(0, text);
#else
	(void)text;
#endif
}

static void on_watchdog(void *arg)
{
	struct notify *n = arg;
	say("WATCHDOG=1");
	loop_timer_start_us(n->watchdog, n->period_us);
}

static void on_extend(void *arg)
{
	struct notify *n = arg;
	char text[64];
	snprintf(text, sizeof text, "EXTEND_TIMEOUT_USEC=%d", EXTEND_US);
	say(text);
	loop_timer_start_us(n->extend, EXTEND_US / 2);
}

struct notify *notify_new(struct loop *l)
{
	struct notify *n = mem_zalloc(sizeof *n);
	n->loop = l;
	n->watchdog = loop_timer_new(l, "notify", on_watchdog, n);
	n->extend = loop_timer_new(l, "notify", on_extend, n);
#ifdef HAVE_SYSTEMD
	uint64_t usec = 0;
	if (sd_watchdog_enabled(0, &usec) > 0)
		n->period_us = usec / 2;
#endif
	if (n->period_us)
		loop_timer_start_us(n->watchdog, 0);
	return n;
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	loop_timer_free(n->watchdog);
	loop_timer_free(n->extend);
	free(n);
}

void notify_ready(struct notify *n)
{
	(void)n;
	say("READY=1");
}

void notify_reloading(struct notify *n)
{
	char text[64];
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, loop_now_us(n->loop));
	say(text);
}

void notify_status(struct notify *n, const char *fmt, ...)
{
	char text[sizeof n->status] = "STATUS=";
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text + 7, sizeof text - 7, fmt, ap);
	va_end(ap);
	if (!strcmp(text, n->status))
		return;
	memcpy(n->status, text, sizeof text);
	say(text);
}

void notify_stopping(struct notify *n)
{
	say("STOPPING=1");
	on_extend(n);
}
