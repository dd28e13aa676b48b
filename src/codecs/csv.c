/* csv: changes as lines of comma-separated values (RFC 4180), in the server's own text, as COPY ... CSV takes them.
 *
 *   op,ts,id,name          the head, which is asked for with OP_SCHEMA (option header)
 *   I,,1,"a ""b"""         I: created, or a row of the load   U: the new row   D: what is known of the old row   T: the table was emptied
 *
 * NULL is the text of option `null`, never in quotes; a value that reads the same is put in quotes: so the empty string is "" where NULL is nothing. A value
 * that the source did not send is the text of option `unchanged`, never in quotes either; but in a D line and in generated columns, where nobody looks for
 * it, it is NULL. A changed key is a D line and an I line. Without the column op, deletes and truncates are left out. Messages have no line. */
#include "dmsr.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KEEP_BYTES = 4 << 20 };
static const size_t line_max = (size_t)4 << 30;

static const struct dmsr_option options[] = {
	{ "delimiter", DMSR_OPT_STRING, 0, ",", NULL, 0, 0, "One character that parts the values." },
	{ "header", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0, "Whether the first line of a file holds the names of the columns." },
	{ "null", DMSR_OPT_STRING, 0, "", NULL, 0, 0, "What stands for NULL, outside of quotes." },
	{ "unchanged", DMSR_OPT_STRING, 0, "__unchanged", NULL, 0, 0,
		"What stands for a value that the source did not send because it did not change, outside of quotes." },
	{ "op", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0,
		"A first column with I, U, D or T for what happened to the row. Without it, deletes and truncates are left out." },
	{ "timestamp", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0, "A column with the time of the commit at the source, in UTC." },
	{ "line_end", DMSR_OPT_ENUM, 0, "lf", "lf|crlf", 0, 0, "What ends a line: crlf as RFC 4180 has it, or lf as PostgreSQL's COPY and most others do." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

struct csv {
	char delimiter;
	bool header, op, timestamp, crlf;
	char *null, *unchanged;
	size_t null_len, unchanged_len;
	bool is_special[256];           /* a value with one of these is put in quotes */
	struct buf out, text;
	size_t starts[DMSR_RECORDS_MAX];
	int n;
	size_t line;                    /* where the line at hand began */
};

/* ---- one value ---- */

static bool needs_quotes(const struct csv *c, const char *p, size_t n)
{
	if ((n == c->null_len && !memcmp(p, c->null, n)) || (n == c->unchanged_len && !memcmp(p, c->unchanged, n)))
		return true;
	if (n == 2 && p[0] == '\\' && p[1] == '.') /* ends COPY's input when it stands alone */
		return true;
	for (size_t i = 0; i < n; i++)
		if (c->is_special[(unsigned char)p[i]])
			return true;
	return false;
}

static void put_text(struct csv *c, const char *p, size_t n)
{
	if (!n)
		p = "";
	if (!needs_quotes(c, p, n)) {
		buf_append(&c->out, p, n);
		return;
	}
	buf_byte(&c->out, '"');
	while (n) {
		const char *quote = memchr(p, '"', n);
		size_t len = quote ? (size_t)(quote - p) + 1 : n;
		buf_append(&c->out, p, len);
		if (quote)
			buf_byte(&c->out, '"');
		p += len;
		n -= len;
	}
	buf_byte(&c->out, '"');
}

static void next_column(struct csv *c)
{
	if (c->out.len != c->line)
		buf_byte(&c->out, c->delimiter);
}

static int put_value(struct csv *c, const struct column *col, const struct value *v, bool is_gone, struct err *e)
{
	if (v->kind == VALUE_TEXT) {
		put_text(c, v->data, v->len);
		return 0;
	}
	if (v->kind == VALUE_BINARY) {
		buf_reset(&c->text);
		int rc = value_to_text(v, (enum logical_type)col->type, (enum logical_type)col->elem_type, &c->text, e);
		if (!rc)
			put_text(c, c->text.data, c->text.len);
		return rc;
	}
	if (v->kind == VALUE_UNCHANGED && !is_gone && !(col->flags & COLUMN_GENERATED))
		buf_append(&c->out, c->unchanged, c->unchanged_len);
	else
		buf_append(&c->out, c->null, c->null_len);
	return 0;
}

/* ---- lines ---- */

static void put_time(struct csv *c, int64_t us)
{
	struct tm tm;
	time_t sec = (time_t)(us / 1000000 - (us % 1000000 < 0));
	char text[64];

	if (!us || !gmtime_r(&sec, &tm)) {
		buf_append(&c->out, c->null, c->null_len);
		return;
	}
	int n = snprintf(text, sizeof text, "%04d-%02d-%02d %02d:%02d:%02d.%06" PRId64, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
		tm.tm_sec, us - (int64_t)sec * 1000000);
	put_text(c, text, (size_t)n);
}

/* The one value of a line may be NULL, and NULL nothing: then the line is empty, as COPY reads and writes it. */
static void end_line(struct csv *c)
{
	buf_append(&c->out, &"\r\n"[!c->crlf], 1 + (size_t)c->crlf);
	c->starts[c->n++] = c->line;
}

static void begin_line(struct csv *c, const struct change *ch, char op)
{
	c->line = c->out.len;
	if (c->op)
		buf_byte(&c->out, op);
	if (c->timestamp) {
		next_column(c);
		put_time(c, ch->txn ? ch->txn->commit_us : 0);
	}
}

/* v NULL: a line about the whole table. or: where a value stands that v has not. */
static int put_line(struct csv *c, const struct change *ch, char op, const struct value *v, const struct value * or, struct err *e)
{
	const struct relation *rel = ch->rel;
	bool is_gone = op == 'D' || op == 'T';
	static const struct value none = { .kind = VALUE_UNCHANGED };

	if (is_gone && !c->op)
		return 0;
	begin_line(c, ch, op);
	bool is_first = !c->op && !c->timestamp;
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct value *at = !v ? &none : v[i].kind == VALUE_UNCHANGED && or ? &or[i] : &v[i];
		if (!is_first)
			buf_byte(&c->out, c->delimiter);
		is_first = false;
		int rc = put_value(c, &rel->columns[i], at, is_gone, e);
		if (rc) {
			err_prefix(e, "%s.%s: column %s", rel->schema, rel->name, rel->columns[i].name);
			return rc;
		}
	}
	end_line(c);
	return 0;
}

static int put_head(struct csv *c, const struct relation *rel)
{
	if (!c->header)
		return 0;
	c->line = c->out.len;
	if (c->op)
		buf_str(&c->out, "op");
	if (c->timestamp) {
		next_column(c);
		buf_str(&c->out, "ts");
	}
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		next_column(c);
		put_text(c, rel->columns[i].name, strlen(rel->columns[i].name));
	}
	end_line(c);
	return 0;
}

static bool is_key_changed(const struct change *ch)
{
	const struct relation *rel = ch->rel;
	const struct value *before = ch->u.row.before, *after = ch->u.row.after;

	if (!before || (rel->key != KEY_PRIMARY && rel->key != KEY_UNIQUE))
		return false;
	for (unsigned i = 0; i < rel->nkeys; i++) {
		const struct value *a = &before[rel->keys[i]], *b = &after[rel->keys[i]];
		if (a->kind == VALUE_UNCHANGED || b->kind == VALUE_UNCHANGED)
			continue;
		/* in different forms they may be the same: then two lines say what one would */
		if (a->kind != b->kind || a->len != b->len || (a->len && memcmp(a->data, b->data, a->len) != 0))
			return true;
	}
	return false;
}

static int put_update(struct csv *c, const struct change *ch, struct err *e)
{
	if (!is_key_changed(ch))
		return put_line(c, ch, 'U', ch->u.row.after, ch->u.row.before, e);
	int rc = put_line(c, ch, 'D', ch->u.row.before, NULL, e);
	return rc ? rc : put_line(c, ch, 'I', ch->u.row.after, ch->u.row.before, e);
}

static int put_change(struct csv *c, const struct change *ch, struct err *e)
{
	switch ((enum change_op)ch->op) {
	case OP_CREATE: case OP_READ:
		return put_line(c, ch, 'I', ch->u.row.after, NULL, e);
	case OP_UPDATE:
		return put_update(c, ch, e);
	case OP_DELETE:
		return put_line(c, ch, 'D', ch->u.row.before, NULL, e);
	case OP_TRUNCATE:
		return put_line(c, ch, 'T', NULL, NULL, e);
	case OP_SCHEMA:
		return put_head(c, ch->rel);
	case OP_ROWS:
		return err_set(e, DMSR_EINVAL, "codec.rows", "%s.%s: rows of the load are encoded one by one", ch->rel->schema, ch->rel->name);
	case OP_MESSAGE: case OP_BEGIN: case OP_COMMIT: case OP_HEARTBEAT: case OP_LOAD_BEGIN: case OP_LOAD_PART: case OP_LOAD_END: case OP_LOAD_DONE:
		return 0;
	}
	return 0;
}

static int csv_encode(struct dmsr_instance *i, const struct change *ch, struct dmsr_record *records, unsigned max, struct err *e)
{
	struct csv *c = (struct csv *)i;

	assert(max >= DMSR_RECORDS_MAX);
	if (c->out.cap > KEEP_BYTES && c->out.len < KEEP_BYTES)
		buf_fini(&c->out);
	buf_reset(&c->out);
	c->n = 0;
	int rc = put_change(c, ch, e);
	if (rc)
		return rc;
	if (!buf_ok(&c->out)) {
		err_set(e, DMSR_EDATA, "codec.too-long", "%s.%s: a line would have more than 4 GiB", ch->rel->schema, ch->rel->name);
		err_hint(e, "make the row smaller at the source, or leave the table out of the job");
		return DMSR_EDATA;
	}
	for (int n = 0; n < c->n; n++) {
		size_t end = n + 1 < c->n ? c->starts[n + 1] : c->out.len;
		records[n] = (struct dmsr_record){ .value = c->out.data + c->starts[n], .value_len = end - c->starts[n] };
	}
	return c->n;
}

/* ---- life ---- */

static int check_word(const struct csv *c, const char *name, const char *text, struct err *e)
{
	for (const char *p = text; *p; p++)
		if (c->is_special[(unsigned char)*p])
			return err_set(e, DMSR_EINVAL, "codec.option", "%s must hold neither the delimiter, nor quotes, nor line ends", name);
	return 0;
}

static int check_options(struct csv *c, const char *delimiter, struct err *e)
{
	if (strlen(delimiter) != 1 || strchr("\"\r\n", *delimiter))
		return err_set(e, DMSR_EINVAL, "codec.option", "delimiter must be one character of one byte, and no quote or line end");
	c->delimiter = *delimiter;
	c->is_special[(unsigned char)*delimiter] = c->is_special['"'] = c->is_special['\r'] = c->is_special['\n'] = true;
	if (check_word(c, "null", c->null, e) || check_word(c, "unchanged", c->unchanged, e))
		return DMSR_EINVAL;
	if (!strcmp(c->null, c->unchanged))
		return err_set(e, DMSR_EINVAL, "codec.option", "null and unchanged must differ: what was not sent is not NULL");
	return 0;
}

static void csv_close(struct dmsr_instance *i)
{
	struct csv *c = (struct csv *)i;

	if (!c)
		return;
	buf_fini(&c->out);
	buf_fini(&c->text);
	free(c->null);
	free(c->unchanged);
	free(c);
}

static int csv_open(const struct settings *s, const struct dmsr_codec_source *src, struct dmsr_instance **out, struct err *e)
{
	struct csv *c = mem_zalloc(sizeof *c);

	(void)src;
	c->header = settings_bool(s, "header");
	c->op = settings_bool(s, "op");
	c->timestamp = settings_bool(s, "timestamp");
	c->crlf = !strcmp(settings_str(s, "line_end"), "crlf");
	c->null = mem_strdup(settings_str(s, "null"));
	c->unchanged = mem_strdup(settings_str(s, "unchanged"));
	c->null_len = strlen(c->null);
	c->unchanged_len = strlen(c->unchanged);
	buf_init(&c->out, line_max);
	buf_init(&c->text, line_max);
	int rc = check_options(c, settings_str(s, "delimiter"), e);
	if (rc) {
		csv_close((struct dmsr_instance *)c);
		return rc;
	}
	*out = (struct dmsr_instance *)c;
	return 0;
}

static const struct dmsr_codec codec = { .open = csv_open, .encode = csv_encode, .close = csv_close };

DMSR_PLUGIN(csv) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "csv",
	.summary = "changes as comma-separated values, RFC 4180",
	.codec_options = options,
	.codec = &codec,
};
