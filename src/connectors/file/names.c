/* names: what directories and files are called. Whatever a table's name holds, its file name is plain, below the path, and no other table's. */
#include "file_int.h"
#include <inttypes.h>
#include <stdlib.h>

enum { DIRECTORY_BYTES_MAX = 200, HASH_BYTES = 17 };

static bool is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static void put_encoded(struct buf *out, const char *text, bool dots)
{
	for (const char *p = text; *p; p++)
		if (is_plain((unsigned char)*p) || (*p == '.' && dots))
			buf_byte(out, *p);
		else
			buf_printf(out, "%%%02X", (unsigned)(unsigned char)*p);
}

void names_encode(struct buf *out, const char *text)
{
	if (*text == '.') {
		buf_str(out, "%2E");
		text++;
	}
	put_encoded(out, text, true);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *names_decode(const char *p, size_t n)
{
	char *out = mem_alloc(n + 1), *o = out;

	for (size_t i = 0; i < n; i++) {
		int high = 0, low = p[i];
		if (p[i] == '%') {
			high = n - i > 2 ? hex(p[i + 1]) : -1;
			low = n - i > 2 ? hex(p[i + 2]) : -1;
			i += 2;
		}
		if (high < 0 || low < 0 || !(high | low)) {
			free(out);
			return NULL;
		}
		*o++ = (char)(high << 4 | low);
	}
	*o = 0;
	return out;
}

/* A dot in a schema's name is written as %2E: the first dot is the one between schema and table. */
char *names_directory(const char *schema, const char *name)
{
	struct buf b;

	if (!*schema && !*name)
		return mem_strdup("_messages");
	buf_init(&b, SIZE_MAX);
	if (!*schema)
		buf_str(&b, "%00");
	put_encoded(&b, schema, false);
	buf_byte(&b, '.');
	put_encoded(&b, name, true);
	if (b.len > DIRECTORY_BYTES_MAX) {
		uint64_t hash = hash_stable(b.data, b.len, 0);
		b.len = DIRECTORY_BYTES_MAX - HASH_BYTES;
		buf_printf(&b, "~%016" PRIx64, hash);
	}
	char *out = mem_strdup(buf_cstr(&b));
	buf_fini(&b);
	return out;
}

char *names_changes(const struct span *s, const char *ext)
{
	return mem_printf("%016" PRIX64 "-%010" PRIu64 "-%016" PRIX64 "-%010" PRIu64 ".%s", s->first_lsn, s->first_event, s->last_lsn, s->last_event, ext);
}

char *names_load(uint64_t lsn, unsigned part, const char *table, const char *ext)
{
	return mem_printf("%016" PRIX64 "-0000000000-load-%06u%s%s.%s", lsn, part, table ? "-" : "", table ? table : "", ext);
}
