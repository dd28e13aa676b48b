/* mem: malloc and friends, ending the process where they would fail. */
#include "base/mem.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
	static const char line[] = "dmsr: out of memory\n";
	/* Nothing that allocates may run any more; the result does not matter either, the process ends here. */
	ssize_t n = write(STDERR_FILENO, line, sizeof line - 1);
	(void)n;
	abort();
}

/* malloc(0) may give NULL, which would look like a failure. */
static size_t at_least_one(size_t n) { return n ? n : 1; }

void *mem_alloc(size_t n)
{
	void *p = malloc(at_least_one(n));
	if (!p)
		out_of_memory();
	return p;
}

void *mem_zalloc(size_t n)
{
	void *p = calloc(1, at_least_one(n));
	if (!p)
		out_of_memory();
	return p;
}

void *mem_realloc(void *p, size_t n)
{
	void *q = realloc(p, at_least_one(n));
	if (!q)
		out_of_memory();
	return q;
}

void *mem_realloc_array(void *p, size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes))
		out_of_memory();
	return mem_realloc(p, bytes);
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_strndup(const char *s, size_t n)
{
	n = strnlen(s, n);
	char *d = mem_alloc(n + 1);
	memcpy(d, s, n);
	d[n] = 0;
	return d;
}

char *mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return s;
}
