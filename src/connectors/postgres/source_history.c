/* source_history: see source_history.h. */
#include "source_history.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct older {
	char *mark;
	uint64_t until;
};

struct table {
	char *newest;
	bool is_bounded;        /* no change that comes is from before the newest: older ones were passed, or are in the table's load */
	struct older *older;    /* oldest first */
	size_t n;
};

struct history {
	struct map *tables;
};

static void drop_older(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->older[i].mark);
	free(t->older);
	t->older = NULL;
	t->n = 0;
}

static void free_table(void *arg, const void *key, size_t n, void *value)
{
	struct table *t = value;
	(void)arg;
	(void)key;
	(void)n;
	if (!t)
		return;
	drop_older(t);
	free(t->newest);
	free(t);
}

struct history *history_new(void)
{
	struct history *h = mem_zalloc(sizeof *h);
	h->tables = map_new();
	return h;
}

void history_free(struct history *h)
{
	if (!h)
		return;
	map_each(h->tables, free_table, NULL);
	map_free(h->tables);
	free(h);
}

static struct table *table_for(struct history *h, uint32_t id)
{
	struct table *t = map_get_u32(h->tables, id);
	if (!t)
		map_put_u32(h->tables, id, t = mem_zalloc(sizeof *t));
	return t;
}

static void add_older(struct table *t, char *mark, uint64_t until)
{
	t->older = mem_realloc_array(t->older, t->n + 1, sizeof *t->older);
	t->older[t->n++] = (struct older){ mark, until };
}

void history_saw(struct history *h, uint32_t id, const char *mark, uint64_t lsn)
{
	struct table *t = table_for(h, id);
	if (t->newest && !strcmp(t->newest, mark))
		return;
	if (t->newest)
		add_older(t, t->newest, lsn);
	t->newest = mem_strdup(mark);
	t->is_bounded = false;
}

void history_loaded(struct history *h, uint32_t id, const char *mark)
{
	struct table *t = table_for(h, id);
	drop_older(t);
	free(t->newest);
	t->newest = mem_strdup(mark);
	t->is_bounded = true;
}

const char *history_newest(const struct history *h, uint32_t id)
{
	const struct table *t = map_get_u32(h->tables, id);
	return t ? t->newest : NULL;
}

const char *history_at(const struct history *h, uint32_t id, uint64_t lsn)
{
	const struct table *t = map_get_u32(h->tables, id);
	for (size_t i = 0; t && i < t->n; i++)
		if (lsn < t->older[i].until)
			return t->older[i].mark;
	return t && (t->is_bounded || t->n) ? t->newest : NULL;
}

/* ---- as text ---- */

static void drop_passed(struct table *t, uint64_t passed)
{
	size_t n = 0;
	for (; n < t->n && t->older[n].until <= passed; n++)
		free(t->older[n].mark);
	t->n -= n;
	t->is_bounded |= n && !t->n;
	if (n && t->n)
		memmove(t->older, t->older + n, t->n * sizeof *t->older);
}

void history_write(struct history *h, uint32_t id, uint64_t passed, struct buf *out)
{
	struct table *t = map_get_u32(h->tables, id);
	char at[24];
	if (!t)
		return;
	drop_passed(t, passed);
	buf_str(out, t->newest);
	for (size_t i = 0; i < t->n; i++)
		buf_printf(out, " %s@%s", lsn_format(t->older[i].until, at), t->older[i].mark);
}

void history_read(struct history *h, uint32_t id, const char *text)
{
	size_t n = strcspn(text, " ");
	if (!n)
		return;
	free_table(NULL, NULL, 0, map_del_u32(h->tables, id));
	struct table *t = table_for(h, id);
	t->newest = mem_strndup(text, n);
	for (text += n; *text; text += n) {
		char at[24]; /* sscanf would measure all that follows */
		uint64_t until;
		text++;
		n = strcspn(text, " ");
		const char *mark = memchr(text, '@', n);
		if (!mark || mark - text >= (ptrdiff_t)sizeof at)
			continue;
		memcpy(at, text, (size_t)(mark - text));
		at[mark - text] = 0;
		mark++;
		if (!lsn_parse(at, &until))
			add_older(t, mem_strndup(mark, (size_t)(text + n - mark)), until);
	}
}
