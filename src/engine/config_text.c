/* config_text: the daemon's configuration as text: read with a bound, and where in it a JSON pointer stands. jansson tells no line of a value that
 * it took, so the text is walked a second time, by somebody who may trust that it is JSON. */
#include "engine/config_int.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 32 };

struct level {
	size_t base;  /* length of the pointer of this object or list */
	bool is_list;
	bool pending; /* the next token is a key, or a list's item */
	unsigned index;
};

/* One walk over the text. `pointer` is always that of the last key or item seen; deeper than MAX_DEPTH nothing is looked at. */
struct scan {
	const char *at, *end;
	unsigned line;
	unsigned depth; /* of brackets */
	struct level levels[MAX_DEPTH];
	char pointer[CONFIG_POINTER_MAX];
	bool (*seen)(void *arg, const struct scan *s); /* a key or item; true stops */
	void *arg;
};

static struct level *top(struct scan *s)
{
	return s->depth && s->depth <= MAX_DEPTH ? &s->levels[s->depth - 1] : NULL;
}

static bool name_it(struct scan *s, struct level *l, const char *token)
{
	l->pending = false;
	s->pointer[l->base] = 0;
	char base[CONFIG_POINTER_MAX];
	memcpy(base, s->pointer, l->base + 1);
	pointer_join(s->pointer, sizeof s->pointer, base, token);
	return s->seen(s->arg, s);
}

/* at stands on the quote; afterwards behind the closing one. True stops. */
static bool scan_string(struct scan *s)
{
	const char *from = s->at++;
	while (s->at < s->end && *s->at != '"')
		s->at += *s->at == '\\' && s->at + 1 < s->end ? 2 : 1;
	if (s->at < s->end)
		s->at++;
	struct level *l = top(s);
	if (!l || l->is_list || !l->pending)
		return false;
	json_t *key = json_loadb(from, (size_t)(s->at - from), JSON_DECODE_ANY, NULL);
	bool stop = json_is_string(key) && name_it(s, l, json_string_value(key));
	json_decref(key);
	return stop;
}

static void scan_open(struct scan *s, bool is_list)
{
	s->depth++;
	s->at++;
	struct level *l = top(s);
	if (l)
		*l = (struct level){ .base = strlen(s->pointer), .is_list = is_list, .pending = true };
}

static void scan_close(struct scan *s)
{
	struct level *l = top(s);
	if (l)
		s->pointer[l->base] = 0;
	if (s->depth)
		s->depth--;
	s->at++;
}

static bool scan_item(struct scan *s)
{
	struct level *l = top(s);
	char number[24];
	if (!l || !l->is_list || !l->pending || *s->at == ']')
		return false;
	snprintf(number, sizeof number, "%u", l->index++);
	return name_it(s, l, number);
}

static void scan_text(struct scan *s)
{
	while (s->at < s->end) {
		if (*s->at == '\n')
			s->line++;
		if (strchr(" \t\r\n:", *s->at)) {
			s->at++;
			continue;
		}
		struct level *l = top(s);
		if (scan_item(s))
			return;
		switch (*s->at) {
		case '"':
			if (scan_string(s))
				return;
			break;
		case '{':
		case '[':
			scan_open(s, *s->at == '[');
			break;
		case '}':
		case ']':
			scan_close(s);
			break;
		case ',':
			if (l)
				l->pending = true;
			s->at++;
			break;
		default:
			s->at++;
		}
	}
}

struct find_line {
	const char *pointer;
	size_t best; /* how much of it has been found so far */
	unsigned line;
};

static bool is_nearer(void *arg, const struct scan *s)
{
	struct find_line *f = arg;
	size_t n = strlen(s->pointer);
	if (n > f->best && !strncmp(f->pointer, s->pointer, n) && (f->pointer[n] == '/' || !f->pointer[n])) {
		f->best = n;
		f->line = s->line;
	}
	return !strcmp(f->pointer, s->pointer);
}

unsigned config_text_line(const char *text, size_t n, const char *pointer)
{
	struct find_line f = { pointer, 0, 1 };
	struct scan s = { .at = text, .end = text + n, .line = 1, .seen = is_nearer, .arg = &f };
	scan_text(&s);
	return f.line;
}

struct find_pointer {
	const char *until;
	char *out;
	size_t size;
};

static bool is_last_before(void *arg, const struct scan *s)
{
	struct find_pointer *f = arg;
	if (s->at > f->until)
		return true;
	snprintf(f->out, f->size, "%s", s->pointer);
	return false;
}

void config_text_pointer(const char *text, size_t n, size_t offset, char *out, size_t size)
{
	struct find_pointer f = { text + (offset < n ? offset : n), out, size };
	struct scan s = { .at = text, .end = text + n, .line = 1, .seen = is_last_before, .arg = &f };
	out[0] = 0;
	scan_text(&s);
}

int config_text_said(const char *said)
{
	const char *near = strstr(said, " near ");
	return near ? (int)(near - said) : (int)strlen(said);
}

char *config_text_read(const char *path, size_t *n)
{
	struct stat st;
	/* O_NONBLOCK: a FIFO must not stop the loop before fstat has told what it is. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return NULL;
	FILE *f = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fdopen(fd, "r") : (errno = EINVAL, NULL);
	if (!f) {
		int why = errno;
		close(fd);
		errno = why;
		return NULL;
	}
	char *text = mem_alloc(CONFIG_FILE_MAX_BYTES + 2);
	*n = fread(text, 1, CONFIG_FILE_MAX_BYTES + 1, f);
	int why = ferror(f) ? EIO : *n > CONFIG_FILE_MAX_BYTES ? EFBIG : 0;
	fclose(f);
	text[*n] = 0;
	if (!why)
		return text;
	free(text);
	errno = why;
	return NULL;
}
