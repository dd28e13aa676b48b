/* sql: names and texts quoted for PostgreSQL's SQL. In: unquoted; out: appended to a buf. Pure. Nothing else in this folder quotes. */
#include "catalog.h"

static void quoted(struct buf *out, const char *text, char quote)
{
	buf_byte(out, quote);
	for (const char *p = text; *p; p++) {
		if (*p == quote)
			buf_byte(out, quote);
		buf_byte(out, *p);
	}
	buf_byte(out, quote);
}

void sql_ident(struct buf *out, const char *name)
{
	quoted(out, name, '"');
}

void sql_qualified(struct buf *out, const char *schema, const char *name)
{
	sql_ident(out, schema);
	buf_byte(out, '.');
	sql_ident(out, name);
}

const char *sql_skip_name(const char *p)
{
	bool is_quoted = false;
	for (; *p && (is_quoted || *p != ' '); p++)
		is_quoted = is_quoted != (*p == '"');
	return p;
}

void sql_literal(struct buf *out, const char *text)
{
	if (!strchr(text, '\\')) {
		quoted(out, text, '\'');
		return;
	}
	/* E'' reads the same whatever standard_conforming_strings says */
	buf_str(out, "E'");
	for (const char *p = text; *p; p++) {
		if (*p == '\'' || *p == '\\')
			buf_byte(out, *p);
		buf_byte(out, *p);
	}
	buf_byte(out, '\'');
}
