/* err: filling the one error record that rooms hand to each other. */
#include "base/err.h"
#include "base/utf8.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The text goes into JSON, which allows no half characters. */
static void one_line(char *s, size_t size, int wanted)
{
	size_t n = strlen(s);
	if (wanted >= 0 && (size_t)wanted >= size)
		s[n = utf8_whole(s, n)] = 0;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = ' ';
}

static void __attribute__((format(printf, 3, 0))) fill(char *out, size_t size, const char *fmt, va_list ap)
{
	int wanted = vsnprintf(out, size, fmt, ap);
	if (wanted < 0)
		out[0] = 0;
	one_line(out, size, wanted);
}

/* The arguments may point into e itself (an error that is told anew), so the new text is made beside it. */
static void __attribute__((format(printf, 5, 0))) put(struct err *e, int code, bool retriable, const char *id, const char *fmt, va_list ap)
{
	char message[sizeof e->message];
	fill(message, sizeof message, fmt, ap);
	e->code = code;
	e->retriable = retriable;
	size_t n = strnlen(id, sizeof e->id - 1);
	memmove(e->id, id, n); /* id may be e's own */
	e->id[n] = 0;
	e->hint[0] = 0;
	memcpy(e->message, message, sizeof message);
}

int err_set(struct err *e, int code, const char *id, const char *fmt, ...)
{
	if (!e)
		return code;
	va_list ap;
	va_start(ap, fmt);
	put(e, code, false, id, fmt, ap);
	va_end(ap);
	return code;
}

int err_retry(struct err *e, int code, const char *id, const char *fmt, ...)
{
	if (!e)
		return code;
	va_list ap;
	va_start(ap, fmt);
	put(e, code, true, id, fmt, ap);
	va_end(ap);
	return code;
}

int err_hint(struct err *e, const char *fmt, ...)
{
	if (!e)
		return DMSR_EINVAL;
	char hint[sizeof e->hint];
	va_list ap;
	va_start(ap, fmt);
	fill(hint, sizeof hint, fmt, ap);
	va_end(ap);
	memcpy(e->hint, hint, sizeof hint);
	return e->code;
}

void err_prefix(struct err *e, const char *fmt, ...)
{
	if (!e)
		return;
	char prefix[sizeof e->message], message[sizeof e->message];
	va_list ap;
	va_start(ap, fmt);
	fill(prefix, sizeof prefix, fmt, ap);
	va_end(ap);
	int wanted = snprintf(message, sizeof message, "%s: %s", prefix, e->message);
	one_line(message, sizeof message, wanted);
	memcpy(e->message, message, sizeof message);
}

void err_clear(struct err *e)
{
	if (!e)
		return;
	e->code = 0;
	e->retriable = false;
	e->id[0] = e->message[0] = e->hint[0] = 0;
}
