/* journal: where the target stands, as lines of text in groups. A group counts when its last line is there and right.
 *
 *   dmsr-file 1                                     the first line
 *   P pg:721..:0/16B3748:*:0/16B3790                everything up to here is published
 *   L 0/16B3748 721.. public orders                 the table is loaded, with the rows of that snapshot (its server's identity in decimal)
 *   D                                               all tables are loaded
 *   R 12 public.orders/0000...ndjson                part 12 is, or is still to be, renamed
 *   C 0123456789abcdef                              hash of the group's lines
 * Names are encoded as file names are. */
#include "file_int.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char first_line[] = "dmsr-file 1\n";

/* ---- the model ---- */

static void drop_renames(struct journal *j)
{
	for (size_t i = 0; i < j->nrenames; i++)
		free(j->renames[i].path);
	free(j->renames);
	j->renames = NULL;
	j->nrenames = 0;
}

void journal_fini(struct journal *j)
{
	for (size_t i = 0; i < j->nloads; i++) {
		free(j->loads[i].schema);
		free(j->loads[i].name);
	}
	free(j->loads);
	drop_renames(j);
	*j = (struct journal){ 0 };
}

static struct journal_load *find(const struct journal *j, const char *schema, const char *name)
{
	for (size_t i = j->nloads; i-- > 0;)
		if (!strcmp(j->loads[i].name, name) && !strcmp(j->loads[i].schema, schema))
			return &j->loads[i];
	return NULL;
}

const struct journal_load *journal_find_load(const struct journal *j, const char *schema, const char *name)
{
	return find(j, schema, name);
}

void journal_add_load(struct journal *j, const char *schema, const char *name, const struct position *at)
{
	struct journal_load *l = find(j, schema, name);

	if (!l) {
		j->loads = mem_realloc_array(j->loads, j->nloads + 1, sizeof *j->loads);
		l = &j->loads[j->nloads++];
		*l = (struct journal_load){ mem_strdup(schema), mem_strdup(name), { 0 } };
	}
	l->at = *at;
}

/* ---- out ---- */

void journal_put(struct buf *out, const struct journal *j, bool head)
{
	char text[POSITION_TEXT_MAX], lsn[24];

	if (head)
		buf_str(out, first_line);
	size_t start = out->len;
	buf_printf(out, "P %s\n", position_format(&j->at, text));
	for (size_t i = 0; i < j->nloads; i++) {
		buf_printf(out, "L %s %" PRIu64 " ", lsn_format(j->loads[i].at.lsn, lsn), j->loads[i].at.server);
		names_encode(out, j->loads[i].schema);
		buf_byte(out, ' ');
		names_encode(out, j->loads[i].name);
		buf_byte(out, '\n');
	}
	if (j->load_done)
		buf_str(out, "D\n");
	for (size_t i = 0; i < j->nrenames; i++)
		buf_printf(out, "R %" PRIu64 " %s\n", j->renames[i].part, j->renames[i].path);
	buf_printf(out, "C %016" PRIx64 "\n", hash_stable(out->data + start, out->len - start, 0));
}

/* ---- in ---- */

struct line {
	const char *at, *end;
};

/* The next word of the line; empty: there is none. */
static struct line word(struct line *l)
{
	struct line w = { l->at, l->at };
	while (w.end < l->end && *w.end != ' ')
		w.end++;
	l->at = w.end + (w.end < l->end);
	return w;
}

static size_t length(struct line l) { return (size_t)(l.end - l.at); }

static bool number(struct line l, int base, uint64_t *out)
{
	char copy[24], *end;

	if (!length(l) || length(l) >= sizeof copy)
		return false;
	memcpy(copy, l.at, length(l));
	copy[length(l)] = 0;
	*out = strtoull(copy, &end, base);
	return !*end && *copy != '-';
}

static bool read_position(struct line l, struct journal *j)
{
	char text[POSITION_TEXT_MAX];

	if (length(l) >= sizeof text)
		return false;
	memcpy(text, l.at, length(l));
	text[length(l)] = 0;
	return !position_parse(text, &j->at, NULL);
}

static bool read_load(struct line l, struct journal *j)
{
	struct position at = { .kind = POSITION_LSN };
	char lsn[24];
	struct line w = word(&l);

	if (length(w) >= sizeof lsn)
		return false;
	memcpy(lsn, w.at, length(w));
	lsn[length(w)] = 0;
	if (lsn_parse(lsn, &at.lsn) || !number(word(&l), 10, &at.server))
		return false;
	w = word(&l);
	char *schema = names_decode(w.at, length(w)), *name = names_decode(l.at, length(l));
	bool good = schema && name;
	if (good)
		journal_add_load(j, schema, name, &at);
	free(schema);
	free(name);
	return good;
}

static bool read_rename(struct line l, struct journal *j)
{
	uint64_t part;

	/* Only names that we make ourselves: never out of the directory. */
	if (!number(word(&l), 10, &part) || !length(l) || *l.at == '/' || *l.at == '.' || memmem(l.at, length(l), "/.", 2) || memchr(l.at, 0, length(l)))
		return false;
	j->renames = mem_realloc_array(j->renames, j->nrenames + 1, sizeof *j->renames);
	j->renames[j->nrenames++] = (struct journal_rename){ part, mem_strndup(l.at, length(l)), 0 };
	return true;
}

static bool read_line(struct line l, struct journal *j)
{
	struct line kind = word(&l);

	if (length(kind) != 1)
		return false;
	switch (*kind.at) {
	case 'P': return read_position(l, j);
	case 'L': return read_load(l, j);
	case 'R': return read_rename(l, j);
	case 'D': return j->load_done = true;
	default: return false;
	}
}

/* The group at p: its end behind the C line, NULL: it has none. */
static const char *group_end(const char *p, const char *end, struct line *check)
{
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl)
			return NULL;
		if (*p == 'C') {
			*check = (struct line){ p, nl };
			return nl + 1;
		}
		p = nl + 1;
	}
	return NULL;
}

static bool is_right(const char *p, struct line check)
{
	uint64_t hash;

	word(&check);
	const char *c_line = check.at - 2;
	return number(check, 16, &hash) && hash == hash_stable(p, (size_t)(c_line - p), 0);
}

static bool read_group(const char *p, const char *end, struct journal *j)
{
	drop_renames(j);
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		if (*p == 'C')
			return true;
		if (!read_line((struct line){ p, nl }, j))
			return false;
		p = nl + 1;
	}
	return true;
}

/* Every group begins with a P line: is there one behind the first line at p? */
static bool goes_on(const char *p, const char *end)
{
	return memmem(p, (size_t)(end - p), "\nP ", 3);
}

int journal_parse(const char *text, size_t n, struct journal *j, struct err *e)
{
	const char *p = text, *end = text + n;
	struct line check;

	if (n < sizeof first_line - 1 || memcmp(text, first_line, sizeof first_line - 1) != 0)
		return err_set(e, DMSR_EFATAL, "target.state-damaged", "the file does not begin as a journal does");
	for (p += sizeof first_line - 1; p < end;) {
		const char *next = group_end(p, end, &check);
		if (!next || !is_right(p, check)) {
			/* Nothing was said to be durable that stands in a group that was not finished. Only the last one can be such. */
			if ((!next || next == end) && !goes_on(p, end))
				return 0;
			return err_set(e, DMSR_EFATAL, "target.state-damaged", "a group in its middle is damaged (byte %zu)", (size_t)(p - text));
		}
		if (!read_group(p, next, j))
			return err_set(e, DMSR_EFATAL, "target.state-damaged", "a line of the group at byte %zu is not understood", (size_t)(p - text));
		p = next;
	}
	return 0;
}
