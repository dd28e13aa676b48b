/* log: lines for people and machines, to stderr (or, in tests, to a function).
 *
 * logfmt (default):  ts=2026-01-31T10:00:00.123Z level=info room=job job=shop msg="running -> paused: asked"
 * json:              {"ts":...,"level":"info","room":"job","job":"shop","msg":"..."}
 * Under systemd (JOURNAL_STREAM set) each line has the "<N>" prefix and no ts. Control bytes are escaped. No secret is
 * ever passed here. Nor are rows, but for what the message of an error that ends or holds up a run quotes: servers put the value at fault into theirs. Of a
 * row that is set aside the id of the error alone is told: its text is in the dead letter. A level may be set per room at run time. Thread-safe. */
#ifndef DMSR_BASE_LOG_H
#define DMSR_BASE_LOG_H
#include <stdbool.h>
#include <stddef.h>
#pragma GCC visibility push(default)

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

void log_set_format(enum log_format f);
/* room NULL: the default of all rooms without a level of their own. At most 64 rooms; -1 when there are more. */
int log_set_level(const char *room, enum log_level level);
void log_unset_level(const char *room);                 /* back to the default */
enum log_level log_get_level(const char *room);
/* Rooms seen or set so far, for GET /loggers; calls fn for each. */
void log_each_room(void (*fn)(void *arg, const char *room, enum log_level level, bool own), void *arg);
int log_level_parse(const char *name);                  /* "error" "warn" "info" "debug"; -1 */
const char *log_level_name(enum log_level level);
/* Lines go to fn instead of stderr; NULL: back to stderr. */
void log_set_sink(void (*fn)(void *arg, const char *line, size_t len), void *arg);

/* object: what the line is about (a job's name), or NULL. */
void log_write(enum log_level level, const char *room, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define log_error(room, object, ...) log_write(LOG_LEVEL_ERROR, room, object, __VA_ARGS__)
#define log_warn(room, object, ...) log_write(LOG_LEVEL_WARN, room, object, __VA_ARGS__)
#define log_info(room, object, ...) log_write(LOG_LEVEL_INFO, room, object, __VA_ARGS__)
#define log_debug(room, object, ...) log_write(LOG_LEVEL_DEBUG, room, object, __VA_ARGS__)

#pragma GCC visibility pop
#endif
