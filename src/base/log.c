/* log: levels per room, and lines in two formats. In: what log_write is told. Out: whole lines, one write(2) each. */
#include "base/log.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROOMS = 64, MESSAGE_BYTES = 4096, OBJECT_BYTES = 512, LINE_BYTES = 8 * MESSAGE_BYTES }; /* each byte may become six */

struct room {
	char *name;
	enum log_level level;
	bool own; /* else: the default's */
};

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static const char syslog_priority[] = { '3', '4', '6', '7' };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct room rooms[MAX_ROOMS];
static int n_rooms;
static enum log_level default_level = LOG_LEVEL_INFO;
static enum log_format format = LOG_FORMAT_LOGFMT;
static void (*sink)(void *arg, const char *line, size_t len);
static void *sink_arg;

static struct room *find_room(const char *name)
{
	for (int i = 0; i < n_rooms; i++)
		if (!strcmp(rooms[i].name, name))
			return &rooms[i];
	return NULL;
}

/* NULL: no room left. */
static struct room *see_room(const char *name)
{
	struct room *r = find_room(name);
	if (!r && n_rooms < MAX_ROOMS) {
		r = &rooms[n_rooms++];
		*r = (struct room){ .name = mem_strdup(name) };
	}
	return r;
}

static enum log_level level_of(const struct room *r) { return r && r->own ? r->level : default_level; }

void log_set_format(enum log_format f)
{
	pthread_mutex_lock(&lock);
	format = f;
	pthread_mutex_unlock(&lock);
}

int log_set_level(const char *room, enum log_level level)
{
	int rc = 0;
	pthread_mutex_lock(&lock);
	struct room *r = room ? see_room(room) : NULL;
	if (!room) {
		default_level = level;
	} else if (r) {
		r->level = level;
		r->own = true;
	} else {
		rc = -1;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void log_unset_level(const char *room)
{
	pthread_mutex_lock(&lock);
	struct room *r = find_room(room);
	if (r)
		r->own = false;
	pthread_mutex_unlock(&lock);
}

enum log_level log_get_level(const char *room)
{
	pthread_mutex_lock(&lock);
	enum log_level level = level_of(room ? find_room(room) : NULL);
	pthread_mutex_unlock(&lock);
	return level;
}

void log_each_room(void (*fn)(void *arg, const char *room, enum log_level level, bool own), void *arg)
{
	/* A copy, so that fn may log or set levels. Names live for ever. */
	struct room copy[MAX_ROOMS];
	pthread_mutex_lock(&lock);
	int n = n_rooms;
	for (int i = 0; i < n; i++) {
		copy[i] = rooms[i];
		copy[i].level = level_of(&rooms[i]);
	}
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < n; i++)
		fn(arg, copy[i].name, copy[i].level, copy[i].own);
}

int log_level_parse(const char *name)
{
	for (int i = 0; i <= LOG_LEVEL_DEBUG; i++)
		if (!strcasecmp(level_names[i], name))
			return i;
	return -1;
}

const char *log_level_name(enum log_level level) { return level_names[level]; }

void log_set_sink(void (*fn)(void *arg, const char *line, size_t len), void *arg)
{
	pthread_mutex_lock(&lock);
	sink = fn;
	sink_arg = arg;
	pthread_mutex_unlock(&lock);
}

/* Is stderr the journal's own socket? (A child that was given another stderr inherits the variable too.) */
static bool to_journal(void)
{
	unsigned long long dev, ino;
	struct stat st;
	const char *env = getenv("JOURNAL_STREAM");
	return env && sscanf(env, "%llu:%llu", &dev, &ino) == 2 && !fstat(STDERR_FILENO, &st) &&
		st.st_dev == (dev_t)dev && st.st_ino == (ino_t)ino;
}

/* A JSON string, which is also what logfmt's quoted values look like. */
static void quoted(struct buf *b, const char *text)
{
	buf_byte(b, '"');
	for (const unsigned char *s = (const unsigned char *)text, *end = s + strlen(text); s < end;) {
		size_t n = 1;
		if (*s == '"' || *s == '\\')
			buf_printf(b, "\\%c", *s);
		else if (*s == '\n')
			buf_str(b, "\\n");
		else if (*s == '\t')
			buf_str(b, "\\t");
		else if (*s < 0x20 || *s == 0x7f)
			buf_printf(b, "\\u%04x", *s);
		else if (*s < 0x80)
			buf_byte(b, (char)*s);
		else if ((n = utf8_sequence(s, (size_t)(end - s))))
			buf_append(b, s, n);
		else
			buf_str(b, "\\ufffd");
		s += n ? n : 1;
	}
	buf_byte(b, '"');
}

/* As it is when it is a plain word, quoted otherwise. */
static void word(struct buf *b, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	while (*s > 0x20 && *s < 0x7f && *s != '"' && *s != '=' && *s != '\\')
		s++;
	if (*s || s == (const unsigned char *)text)
		quoted(b, text);
	else
		buf_str(b, text);
}

static void time_text(char *out, size_t size)
{
	struct timespec now;
	struct tm tm;
	char day[32];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, size, "%s.%03ldZ", day, now.tv_nsec / 1000000);
}

static void field(struct buf *b, enum log_format f, const char *name, const char *value)
{
	bool first = !b->len || b->data[b->len - 1] == '>';
	if (f == LOG_FORMAT_JSON) {
		buf_printf(b, "%s\"%s\":", first ? "{" : ",", name);
		quoted(b, value);
		return;
	}
	buf_printf(b, "%s%s=", first ? "" : " ", name);
	if (!strcmp(name, "msg"))
		quoted(b, value);
	else
		word(b, value);
}

static void emit(const struct buf *b)
{
	size_t at = 0;
	while (at < b->len) {
		ssize_t n = write(STDERR_FILENO, b->data + at, b->len - at);
		if (n < 0 && errno != EINTR)
			return; /* nobody is left to tell */
		at += n > 0 ? (size_t)n : 0;
	}
}

static void __attribute__((format(printf, 1, 0))) message_text(const char *fmt, va_list ap, char *out)
{
	int n = vsnprintf(out, MESSAGE_BYTES, fmt, ap);
	if (n < 0)
		snprintf(out, MESSAGE_BYTES, "(a message that could not be formatted: %s)", fmt);
	else if (n >= MESSAGE_BYTES)
		memcpy(out + MESSAGE_BYTES - 4, "...", 4);
}

void log_write(enum log_level level, const char *room, const char *object, const char *fmt, ...)
{
	int saved_errno = errno;
	pthread_mutex_lock(&lock);
	bool wanted = level <= level_of(see_room(room));
	enum log_format f = format;
	bool journal = wanted && !sink && to_journal();
	pthread_mutex_unlock(&lock);
	if (!wanted) {
		errno = saved_errno;
		return;
	}
	char message[MESSAGE_BYTES], job[OBJECT_BYTES], now[48];
	va_list ap;
	va_start(ap, fmt);
	errno = saved_errno; /* for %m */
	message_text(fmt, ap, message);
	va_end(ap);
	time_text(now, sizeof now);

	struct buf b;
	buf_init(&b, LINE_BYTES);
	if (journal)
		buf_printf(&b, "<%c>", syslog_priority[level]);
	else
		field(&b, f, "ts", now);
	field(&b, f, "level", level_names[level]);
	field(&b, f, "room", room);
	if (object) {
		snprintf(job, sizeof job, "%s", object);
		field(&b, f, "job", job);
	}
	field(&b, f, "msg", message);
	buf_str(&b, f == LOG_FORMAT_JSON ? "}\n" : "\n");

	pthread_mutex_lock(&lock);
	if (sink)
		sink(sink_arg, b.data, b.len);
	else
		emit(&b);
	pthread_mutex_unlock(&lock);
	buf_fini(&b);
	errno = saved_errno;
}
