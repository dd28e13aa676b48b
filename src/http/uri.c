/* uri: the target of a request, taken apart. */
#include "http/uri.h"
#include "base/utf8.h"
#include <string.h>

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int malformed(struct err *e, const char *why) { return err_set(e, DMSR_EINVAL, "uri.malformed", "the request's target %s", why); }

static int check_text(const char *s, size_t n, struct err *e)
{
	for (size_t i = 0, len; i < n; i += len) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return malformed(e, "holds a control character");
		if (!(len = utf8_sequence(s + i, n - i)))
			return malformed(e, "is not UTF-8 when its escapes are decoded");
	}
	return 0;
}

/* Decodes n bytes into the arena; NULL with e set. */
static const char *decode(struct uri *u, const char *s, size_t n, bool plus, struct err *e)
{
	char *out = arena_alloc(&u->arena, n + 1);
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		if (c == '%') {
			int high = n - i > 2 ? hex(s[i + 1]) : -1, low = n - i > 2 ? hex(s[i + 2]) : -1;
			if (high < 0 || low < 0) {
				malformed(e, "has a % that no two hexadecimal digits follow");
				return NULL;
			}
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+' && plus) {
			c = ' ';
		}
		out[at++] = c;
	}
	out[at] = 0;
	return check_text(out, at, e) ? NULL : out;
}

static int parse_path(struct uri *u, const char *s, size_t n, struct err *e)
{
	const char *end = s + n;
	if (n == 1)
		return 0;
	while (s < end) {
		const char *from = s + 1, *slash = memchr(from, '/', (size_t)(end - from));
		s = slash ? slash : end;
		if (u->nsegments == URI_SEGMENTS_MAX)
			return err_set(e, DMSR_ENOTFOUND, "path.not-found", "no path of this API has as many parts");
		if (!(u->segments[u->nsegments++] = decode(u, from, (size_t)(s - from), false, e)))
			return e ? e->code : DMSR_EINVAL;
	}
	return 0;
}

static int parse_query(struct uri *u, const char *s, struct err *e)
{
	while (*s) {
		size_t n = strcspn(s, "&");
		const char *equals = memchr(s, '=', n);
		size_t name = equals ? (size_t)(equals - s) : n;
		if (n) {
			if (u->nparams == URI_PARAMS_MAX)
				return malformed(e, "has too many query parameters");
			struct uri_param *p = &u->params[u->nparams];
			if (!(p->name = decode(u, s, name, true, e)) || !(p->value = decode(u, equals ? equals + 1 : "", equals ? n - name - 1 : 0, true, e)))
				return e ? e->code : DMSR_EINVAL;
			u->nparams++;
		}
		s += n + (s[n] == '&');
	}
	return 0;
}

int uri_parse(const char *raw, struct uri *u, struct err *e)
{
	size_t n = strlen(raw), path = strcspn(raw, "?");
	memset(u, 0, sizeof *u);
	arena_init(&u->arena, 1024);
	if (n > URI_BYTES_MAX) {
		u->path = "/...";
		return err_set(e, DMSR_EINVAL, "uri.too-long", "the request's target is longer than %d bytes", URI_BYTES_MAX);
	}
	u->path = arena_dup(&u->arena, raw, path);
	if (raw[0] != '/')
		return malformed(e, "does not begin with a slash");
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)raw[i] <= 0x20 || (unsigned char)raw[i] > 0x7e || raw[i] == '#')
			return malformed(e, "holds a character that must be escaped");
	int rc = parse_path(u, raw, path, e);
	return rc ? rc : parse_query(u, raw + path + (raw[path] == '?'), e);
}

void uri_fini(struct uri *u) { arena_fini(&u->arena); }

const char *uri_param(const struct uri *u, const char *name)
{
	for (size_t i = 0; i < u->nparams; i++)
		if (!strcmp(u->params[i].name, name))
			return u->params[i].value;
	return NULL;
}
