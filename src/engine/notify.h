/* notify: words to the service manager (sd_notify): readiness, status, the watchdog, which is fed from the loop alone: a loop that hangs is seen. Without
 * NOTIFY_SOCKET, or built without libsystemd, all of it does nothing. */
#ifndef DMSR_ENGINE_NOTIFY_H
#define DMSR_ENGINE_NOTIFY_H
#include "base/loop.h"

struct notify;
struct notify *notify_new(struct loop *l);      /* feeds the watchdog from the loop's first turn on, twice as often as it asks (WATCHDOG_USEC) */
void notify_free(struct notify *n);             /* NULL is fine */
void notify_ready(struct notify *n);            /* set up, or reloaded */
void notify_reloading(struct notify *n);
/* One line for `systemctl status`; the same line again is not sent. */
void notify_status(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The end has begun. Until notify_free more time is asked for, again and again, so that the manager's patience ends only when the loop hangs. */
void notify_stopping(struct notify *n);

#endif
