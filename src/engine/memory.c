/* memory: maps and positions of one job, each change written through to the state store. */
#include "memory.h"
#include <stdio.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct note { char *value; };

struct memory {
	struct store *store;
	char *uid;
	struct map *notes;              /* key -> struct note; forgotten ones stay, with value NULL */
	struct position delivered;
	struct table_set loaded, unwanted;
	bool load_done;
	struct memory_target **targets;
	size_t ntargets;
	struct map *counts;             /* quoted name -> struct table_count */
	struct table_count **list;      /* the same, the oldest first */
	size_t nlist, list_cap;
	size_t turn;                    /* whose it is to be saved */
};
enum { COUNTS_AT_ONCE = 500 };

/* ---- a table's name as a key: "schema"."name" with quotes doubled ---- */

static void put_quoted(struct buf *b, const char *s)
{
	buf_byte(b, '"');
	for (; *s; s++) {
		if (*s == '"')
			buf_byte(b, '"');
		buf_byte(b, *s);
	}
	buf_byte(b, '"');
}

static char *table_key(const char *schema, const char *name)
{
	struct buf b;
	buf_init(&b, 4096);
	put_quoted(&b, schema);
	buf_byte(&b, '.');
	put_quoted(&b, name);
	char *key = mem_strdup(buf_cstr(&b));
	buf_fini(&b);
	return key;
}

static const char *unquote(const char *s, char *out, size_t size)
{
	size_t n = 0;
	if (*s++ != '"')
		return NULL;
	for (; *s && n + 1 < size; s++) {
		if (*s == '"' && *++s != '"')
			break;
		out[n++] = *s;
	}
	out[n] = 0;
	return s;
}

/* 0, or -1 when key is no such name. schema, name: 2 KiB each. */
static int table_unkey(const char *key, char *schema, char *name)
{
	const char *s = unquote(key, schema, 2048);
	if (!s || *s != '.')
		return -1;
	s = unquote(s + 1, name, 2048);
	return s && !*s ? 0 : -1;
}

/* ---- sets of tables ---- */

/* Place in the list + 1; 0: it is not in it. */
static size_t place_of(const struct table_set *s, const char *schema, const char *name)
{
	if (!s->n)
		return 0;
	char *key = table_key(schema, name);
	size_t place = (size_t)(uintptr_t)map_get(s->places, key, strlen(key));
	free(key);
	return place;
}

static void set_place(struct table_set *s, const struct dmsr_loaded *l, size_t place)
{
	char *key = table_key(l->schema, l->name);
	if (!s->places)
		s->places = map_new();
	if (place)
		map_put(s->places, key, strlen(key), (void *)(uintptr_t)place);
	else
		map_del(s->places, key, strlen(key));
	free(key);
}

uint64_t table_set_newest(const struct table_set *s)
{
	uint64_t lsn = 0;
	for (size_t i = 0; i < s->n; i++)
		lsn = s->list[i].at.lsn > lsn ? s->list[i].at.lsn : lsn;
	return lsn;
}

const struct dmsr_loaded *table_set_find(const struct table_set *s, const char *schema, const char *name)
{
	size_t place = place_of(s, schema, name);
	return place ? &s->list[place - 1] : NULL;
}

void table_set_put(struct table_set *s, const char *schema, const char *name, const struct position *at)
{
	size_t place = place_of(s, schema, name);
	if (!place) {
		if (s->n == s->cap) {
			s->cap = s->cap ? 2 * s->cap : 16;
			s->list = mem_realloc_array(s->list, s->cap, sizeof *s->list);
		}
		s->list[s->n++] = (struct dmsr_loaded){ .schema = mem_strdup(schema), .name = mem_strdup(name) };
		place = s->n;
		set_place(s, &s->list[place - 1], place);
	}
	s->list[place - 1].at = *at;
}

static void table_free(struct dmsr_loaded *l)
{
	free((void *)(uintptr_t)l->schema);
	free((void *)(uintptr_t)l->name);
}

void table_set_del(struct table_set *s, const char *schema, const char *name)
{
	size_t place = place_of(s, schema, name);
	if (!place)
		return;
	struct dmsr_loaded *l = &s->list[place - 1], *last = &s->list[--s->n];
	set_place(s, l, 0);
	if (l != last)
		set_place(s, last, place);
	table_free(l);
	*l = *last;
}

void table_set_clear(struct table_set *s)
{
	for (size_t i = 0; i < s->n; i++)
		table_free(&s->list[i]);
	free(s->list);
	map_free(s->places);
	*s = (struct table_set){ 0 };
}

/* ---- life ---- */

struct memory *memory_new(struct store *st, const char *uid)
{
	struct memory *m = mem_zalloc(sizeof *m);
	m->store = st;
	m->uid = mem_strdup(uid);
	m->notes = map_new();
	m->counts = map_new();
	return m;
}

static void free_note(void *arg, const void *key, size_t n, void *value)
{
	(void)arg, (void)key, (void)n;
	free(((struct note *)value)->value);
	free(value);
}

void memory_free(struct memory *m)
{
	if (!m)
		return;
	map_each(m->notes, free_note, NULL);
	map_free(m->notes);
	for (size_t i = 0; i < m->nlist; i++) {
		free(m->list[i]->schema);
		free(m->list[i]->name);
		free(m->list[i]);
	}
	free(m->list);
	map_free(m->counts);
	table_set_clear(&m->loaded);
	table_set_clear(&m->unwanted);
	for (size_t i = 0; i < m->ntargets; i++) {
		table_set_clear(&m->targets[i]->loaded);
		free(m->targets[i]->name);
		free(m->targets[i]);
	}
	free(m->targets);
	free(m->uid);
	free(m);
}

/* ---- reading it back ---- */

static void remember_note(struct memory *m, const char *key, const char *value)
{
	struct note *n = map_get(m->notes, key, strlen(key));
	if (!n) {
		n = mem_zalloc(sizeof *n);
		map_put(m->notes, key, strlen(key), n);
	}
	free(n->value);
	n->value = mem_strdup(value);
}

static int read_position(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	struct err e = { 0 };
	return position_parse(value, *key ? &memory_target(m, key)->applied : &m->delivered, &e);
}

static int read_note(void *arg, const char *key, const char *value)
{
	remember_note(arg, key, value);
	return 0;
}

static int read_loaded(struct table_set *s, const char *key, const char *value)
{
	char schema[2048], name[2048];
	struct position p = { 0 };
	struct err e = { 0 };
	if (table_unkey(key, schema, name) || position_parse(value, &p, &e))
		return -1;
	table_set_put(s, schema, name, &p);
	return 0;
}

static int read_load(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	return read_loaded(&m->loaded, key, value);
}

static int read_unwanted(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	return read_loaded(&m->unwanted, key, value);
}

/* key: the target's name, a blank, the table */
static int read_target_load(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	const char *blank = strchr(key, ' ');
	char target[128];
	if (!blank || (size_t)(blank - key) >= sizeof target)
		return -1;
	memcpy(target, key, (size_t)(blank - key));
	target[blank - key] = 0;
	return read_loaded(&memory_target(m, target)->loaded, blank + 1, value);
}

static void target_is_ready(struct memory_target *t, bool keeps)
{
	t->was_ready = true;
	t->keeps = keeps;
}

/* "1", "0", or with " new" behind it */
static void read_ready(struct memory_target *t, const char *value)
{
	target_is_ready(t, *value == '1');
	t->is_new = value[1] == ' ';
}

static int read_flag(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	if (!strcmp(key, "load_done"))
		m->load_done = true;
	else if (!strncmp(key, "load_done:", 10))
		memory_target(m, key + 10)->load_done = true;
	else if (!strncmp(key, "keeps:", 6))
		read_ready(memory_target(m, key + 6), value);
	return 0;
}

static void note_stored(struct table_count *c)
{
	c->stored_loaded = c->rows_loaded;
	c->stored_read = c->rows_read;
	c->stored_dead = c->dead;
}

static int read_count(void *arg, const char *key, const char *value)
{
	struct memory *m = arg;
	char schema[2048], name[2048];
	if (table_unkey(key, schema, name))
		return -1;
	struct table_count *c = memory_count(m, schema, name);
	uint64_t *n[] = { &c->captured[0], &c->captured[1], &c->captured[2], &c->captured[3], &c->ddl, &c->applied[0], &c->applied[1], &c->applied[2],
		&c->applied[3], &c->rows_loaded, &c->rows_read, &c->bytes_read, &c->dead };
	char *at = (char *)(uintptr_t)value;
	for (size_t i = 0; i < sizeof n / sizeof *n; i++)
		*n[i] = strtoull(at, &at, 10);
	note_stored(c);
	struct table_shape *s = &c->shape;
	s->fingerprint = strtoull(at, &at, 10);
	s->columns = (uint32_t)strtoul(at, &at, 10);
	s->at.server = strtoull(at, &at, 10);
	s->at.lsn = strtoull(at, &at, 10);
	s->at.event = strtoull(at, &at, 10);
	s->at.kind = s->at.lsn ? POSITION_LSN : POSITION_NONE;
	return 0;
}

int memory_read(struct memory *m, struct err *e)
{
	static const struct {
		const char *kind;
		int (*fn)(void *arg, const char *key, const char *value);
	} kinds[] = {
		{ "position", read_position },
		{ "note", read_note },
		{ "load", read_load },
		{ "unwanted-load", read_unwanted },
		{ "target-load", read_target_load },
		{ "flag", read_flag },
		{ "count", read_count },
	};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		int rc = store_each(m->store, m->uid, kinds[i].kind, kinds[i].fn, m, e);
		if (rc && !err_is_set(e))
			err_set(e, DMSR_EPROTO, "state.corrupt", "what is remembered of job %s as \"%s\" cannot be read", m->uid, kinds[i].kind);
		if (rc)
			return DMSR_EPROTO;
	}
	for (size_t i = 0; i < m->loaded.n; i++)
		memory_count(m, m->loaded.list[i].schema, m->loaded.list[i].name)->is_loaded = true;
	return 0;
}

/* ---- notes ---- */

const char *memory_note(const struct memory *m, const char *key)
{
	const struct note *n = map_get(m->notes, key, strlen(key));
	return n ? n->value : NULL;
}

void memory_note_put(struct memory *m, const char *key, const char *value, store_done *done, void *arg)
{
	remember_note(m, key, value);
	store_put(m->store, m->uid, "note", key, value, done, arg);
}

/* ---- positions and loads ---- */

const struct position *memory_delivered(const struct memory *m) { return &m->delivered; }
const struct table_set *memory_loaded(const struct memory *m) { return &m->loaded; }
bool memory_load_done(const struct memory *m) { return m->load_done; }

struct memory_target *memory_target(struct memory *m, const char *name)
{
	for (size_t i = 0; i < m->ntargets; i++)
		if (!strcmp(m->targets[i]->name, name))
			return m->targets[i];
	m->targets = mem_realloc_array(m->targets, m->ntargets + 1, sizeof(struct memory_target *));
	struct memory_target *t = m->targets[m->ntargets++] = mem_zalloc(sizeof *t);
	t->name = mem_strdup(name);
	return t;
}

struct memory_target *memory_target_next(const struct memory *m, const struct memory_target *t)
{
	size_t i = 0;
	while (t && m->targets[i++] != t)
		;
	return i < m->ntargets ? m->targets[i] : NULL;
}

static void put_table(struct memory *m, const char *kind, const char *prefix, const struct dmsr_loaded *l, bool is_there)
{
	char text[POSITION_TEXT_MAX], *name = table_key(l->schema, l->name), *key = mem_printf("%s%s%s", prefix, *prefix ? " " : "", name);
	store_put(m->store, m->uid, kind, key, is_there ? position_format(&l->at, text) : NULL, NULL, NULL);
	free(key);
	free(name);
}

void memory_load_done_forget(struct memory *m)
{
	if (!m->load_done)
		return;
	m->load_done = false;
	store_put(m->store, m->uid, "flag", "load_done", NULL, NULL, NULL);
}

void memory_load_put(struct memory *m, const char *schema, const char *name, const struct position *at)
{
	table_set_put(&m->loaded, schema, name, at);
	memory_count(m, schema, name)->is_loaded = true;
	put_table(m, "load", "", &(struct dmsr_loaded){ schema, name, *at }, true);
}

void memory_load_forget(struct memory *m, const char *schema, const char *name)
{
	struct dmsr_loaded gone = { schema, name, { 0 } };
	memory_count(m, schema, name)->is_loaded = false;
	put_table(m, "load", "", &gone, false);
	table_set_del(&m->loaded, schema, name);
}

bool memory_is_unwanted(const struct memory *m, const struct dmsr_loaded *l)
{
	const struct dmsr_loaded *u = table_set_find(&m->unwanted, l->schema, l->name);
	return u && l->at.lsn <= u->at.lsn;
}

const struct table_set *memory_unwanted(const struct memory *m) { return &m->unwanted; }

void memory_unwant(struct memory *m, const struct dmsr_loaded *l)
{
	if (memory_is_unwanted(m, l))
		return;
	put_table(m, "unwanted-load", "", l, true);
	table_set_put(&m->unwanted, l->schema, l->name, &l->at);
}

void memory_load_unwant(struct memory *m, const char *schema, const char *name, store_done *done, void *arg)
{
	const struct dmsr_loaded *l = table_set_find(&m->loaded, schema, name);
	char *key = table_key(schema, name);
	assert(l);
	memory_unwant(m, l);
	table_set_del(&m->loaded, schema, name);
	memory_count(m, schema, name)->is_loaded = false;
	store_put(m->store, m->uid, "load", key, NULL, done, arg);
	free(key);
}

void memory_load_done_put(struct memory *m)
{
	if (m->load_done)
		return;
	m->load_done = true;
	store_put(m->store, m->uid, "flag", "load_done", "1", NULL, NULL);
}

void memory_target_position_put(struct memory *m, struct memory_target *t, const struct position *p)
{
	char text[POSITION_TEXT_MAX];
	t->applied = *p;
	store_put(m->store, m->uid, "position", t->name, position_is_none(p) ? NULL : position_format(p, text), NULL, NULL);
}

static void target_flag(struct memory *m, struct memory_target *t, const char *flag, const char *value)
{
	char *key = mem_printf("%s:%s", flag, t->name);
	store_put(m->store, m->uid, "flag", key, value, NULL, NULL);
	free(key);
}

void memory_target_load_put(struct memory *m, struct memory_target *t, const char *schema, const char *name, const struct position *at)
{
	if (t->load_done)
		target_flag(m, t, "load_done", NULL);
	t->load_done = false;
	table_set_put(&t->loaded, schema, name, at);
	put_table(m, "target-load", t->name, &(struct dmsr_loaded){ schema, name, *at }, true);
}

void memory_target_load_done_put(struct memory *m, struct memory_target *t)
{
	if (t->load_done)
		return;
	t->load_done = true;
	target_flag(m, t, "load_done", "1");
}

void memory_target_is(struct memory *m, struct memory_target *t, const struct position *p, const struct dmsr_loaded *loaded, size_t n, bool load_done)
{
	if (!position_is_comparable(&t->applied, p) || position_compare(&t->applied, p) != 0)
		memory_target_position_put(m, t, p);
	struct table_set old = t->loaded;
	t->loaded = (struct table_set){ 0 };
	for (size_t i = 0; i < n; i++) {
		const struct dmsr_loaded *was = table_set_find(&old, loaded[i].schema, loaded[i].name);
		if (was && position_is_comparable(&was->at, &loaded[i].at) && !position_compare(&was->at, &loaded[i].at))
			table_set_put(&t->loaded, loaded[i].schema, loaded[i].name, &loaded[i].at);
		else
			memory_target_load_put(m, t, loaded[i].schema, loaded[i].name, &loaded[i].at);
	}
	for (size_t i = 0; i < old.n; i++)
		if (!table_set_find(&t->loaded, old.list[i].schema, old.list[i].name))
			put_table(m, "target-load", t->name, &old.list[i], false);
	table_set_clear(&old);
	if (t->load_done == load_done)
		return;
	t->load_done = load_done;
	target_flag(m, t, "load_done", load_done ? "1" : NULL);
}

static void put_ready(struct memory *m, struct memory_target *t)
{
	static const char *const texts[2][2] = { { "0", "0 new" }, { "1", "1 new" } };
	target_flag(m, t, "keeps", texts[t->keeps][t->is_new]);
}

void memory_target_keeps_put(struct memory *m, struct memory_target *t, bool keeps)
{
	if (t->was_ready && t->keeps == keeps)
		return;
	t->is_new |= !t->was_ready && position_is_none(&t->applied) && !t->loaded.n;
	target_is_ready(t, keeps);
	put_ready(m, t);
}

void memory_target_feed_put(struct memory *m, struct memory_target *t)
{
	if (!t->is_new)
		return;
	t->is_new = false;
	put_ready(m, t);
}

void memory_target_miss_put(struct memory *m, struct memory_target *t)
{
	if (t->is_new || !t->was_ready)
		return;
	t->is_new = true;
	put_ready(m, t);
}

static void save_some(struct memory *m);

void memory_delivered_put(struct memory *m, const struct position *p, store_done *done, void *arg)
{
	char text[POSITION_TEXT_MAX];
	save_some(m);
	if (!position_is_none(p))
		m->delivered = *p;
	store_put(m->store, m->uid, "position", "", position_is_none(&m->delivered) ? NULL : position_format(&m->delivered, text), done, arg);
}

/* ---- counts ---- */

struct table_count *memory_count(struct memory *m, const char *schema, const char *name)
{
	char *key = table_key(schema, name);
	struct table_count *c = map_get(m->counts, key, strlen(key));
	if (!c) {
		c = mem_zalloc(sizeof *c);
		c->schema = mem_strdup(schema);
		c->name = mem_strdup(name);
		c->rows_total = c->bytes_total = -1;
		map_put(m->counts, key, strlen(key), c);
		if (m->nlist == m->list_cap) {
			m->list_cap = m->list_cap ? 2 * m->list_cap : 16;
			m->list = mem_realloc_array(m->list, m->list_cap, sizeof(struct table_count *));
		}
		m->list[m->nlist++] = c;
	}
	free(key);
	return c;
}

static int by_name(const void *a, const void *b)
{
	const struct table_count *x = *(struct table_count *const *)a, *y = *(struct table_count *const *)b;
	int c = strcmp(x->schema, y->schema);
	return c ? c : strcmp(x->name, y->name);
}

void memory_each_count(struct memory *m, void (*fn)(void *arg, struct table_count *c), void *arg)
{
	for (size_t i = 0; i < m->nlist; i++)
		fn(arg, m->list[i]);
}

void memory_each_count_by_name(struct memory *m, void (*fn)(void *arg, struct table_count *c), void *arg)
{
	size_t n = m->nlist;
	struct table_count **list = mem_alloc((n + 1) * sizeof(struct table_count *));
	for (size_t i = 0; i < n; i++)
		list[i] = m->list[i];
	qsort(list, n, sizeof(struct table_count *), by_name);
	for (size_t i = 0; i < n; i++)
		fn(arg, list[i]);
	free(list);
}

static void save_count(struct memory *m, struct table_count *c)
{
	c->is_dirty = c->is_reshaped = false;
	note_stored(c);
	const uint64_t numbers[] = { c->captured[0], c->captured[1], c->captured[2], c->captured[3], c->ddl, c->applied[0], c->applied[1], c->applied[2],
		c->applied[3], c->rows_loaded, c->rows_read, c->bytes_read, c->dead,
		c->shape.fingerprint, c->shape.columns, c->shape.at.server, c->shape.at.lsn, c->shape.at.event };
	char *name = table_key(c->schema, c->name);
	struct buf text;
	buf_init(&text, 1024);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		buf_uint(&text, numbers[i]);
		buf_byte(&text, ' ');
	}
	store_put(m->store, m->uid, "count", name, buf_cstr(&text), NULL, NULL);
	buf_fini(&text);
	free(name);
}

void memory_counts_save(struct memory *m)
{
	for (size_t i = 0; i < m->nlist; i++)
		if (m->list[i]->is_dirty)
			save_count(m, m->list[i]);
}

/* That the table is loaded, or the dead letter itself, is stored at once, and no later count would mend these. */
static bool must_not_wait(const struct table_count *c)
{
	bool has_loaded = c->rows_loaded != c->stored_loaded || (!c->is_loading && c->rows_read != c->stored_read);
	return c->is_dirty && (c->is_reshaped || has_loaded || c->dead != c->stored_dead);
}

/* What must not wait; and of the others some, each in its turn. */
static void save_some(struct memory *m)
{
	for (size_t i = 0; i < m->nlist; i++)
		if (must_not_wait(m->list[i]))
			save_count(m, m->list[i]);
	for (size_t looked = 0, saved = 0; looked < m->nlist && saved < COUNTS_AT_ONCE; looked++) {
		struct table_count *c = m->list[m->turn];
		m->turn = (m->turn + 1) % m->nlist;
		if (!c->is_dirty)
			continue;
		save_count(m, c);
		saved++;
	}
}

/* ---- by hand ---- */

static void forget_note(void *arg, const void *key, size_t n, void *value)
{
	struct memory *m = arg;
	char *name = mem_strndup(key, n);
	struct note *note = value;
	free(note->value);
	note->value = NULL;
	store_put(m->store, m->uid, "note", name, NULL, NULL, NULL);
	free(name);
}

static void forget_place(void *arg, struct table_count *c)
{
	(void)arg;
	c->is_dirty |= !position_is_none(&c->shape.at);
	c->shape.at = (struct position){ 0 };
}

struct with_prefix { struct memory *m; const char *prefix; };

static void forget_if(void *arg, const void *key, size_t n, void *value)
{
	const struct with_prefix *w = arg;
	size_t len = strlen(w->prefix);
	if (n >= len && !memcmp(key, w->prefix, len) && ((const struct note *)value)->value)
		forget_note(w->m, key, n, value);
}

void memory_notes_forget(struct memory *m, const char *prefix) { map_each(m->notes, forget_if, &(struct with_prefix){ m, prefix }); }

struct forgetting { store_done *done; void *arg; struct err log; };

static void on_log_cleared(void *arg, const struct err *e)
{
	struct forgetting *f = arg;
	if (e)
		f->log = *e;
}

/* Answers come in order: that of the log is there. */
static void on_forgotten(void *arg, const struct err *e)
{
	struct forgetting *f = arg;
	f->done(f->arg, !e && err_is_set(&f->log) ? &f->log : e);
	free(f);
}

void memory_forget(struct memory *m, store_done *done, void *arg)
{
	struct forgetting *f = mem_zalloc(sizeof *f);
	f->done = done;
	f->arg = arg;
	map_each(m->notes, forget_note, m);
	while (m->loaded.n) {
		char *schema = mem_strdup(m->loaded.list[0].schema), *name = mem_strdup(m->loaded.list[0].name);
		memory_load_forget(m, schema, name);
		free(schema);
		free(name);
	}
	for (size_t i = 0; i < m->unwanted.n; i++)
		put_table(m, "unwanted-load", "", &m->unwanted.list[i], false);
	table_set_clear(&m->unwanted);
	for (size_t i = 0; i < m->ntargets; i++)
		memory_target_is(m, m->targets[i], &(struct position){ 0 }, NULL, 0, false);
	m->load_done = false;
	store_put(m->store, m->uid, "flag", "load_done", NULL, NULL, NULL);
	/* What waits in the log belongs to the loads that were just forgotten. */
	store_log_clear(m->store, m->uid, on_log_cleared, f);
	memory_each_count(m, forget_place, NULL);
	memory_counts_save(m);
	m->delivered = (struct position){ 0 };
	store_put(m->store, m->uid, "position", "", NULL, on_forgotten, f);
}

void memory_position_set(struct memory *m, const struct position *p, store_done *done, void *arg)
{
	for (size_t i = 0; i < m->ntargets; i++)
		if (!m->targets[i]->keeps)
			memory_target_position_put(m, m->targets[i], p);
	/* what a streamer knows by itself (dmsr.h) would go before the position that was asked for */
	memory_note_put(m, MEMORY_OF_STREAMER "known", NULL, NULL, NULL);
	memory_note_put(m, MEMORY_OF_STREAMER "hold.ended", NULL, NULL, NULL);
	memory_notes_forget(m, MEMORY_PARTS); /* changes of them may not come */
	memory_delivered_put(m, p, done, arg);
}
