/* target_diff: columns that were and columns that are -> ALTER TABLE. */
#include "target_diff.h"
#include "catalog.h"
#include <stdlib.h>

enum { SQL_MAX = 16 << 20 };

/* ---- which column is which ---- */

static bool same_type(const struct column *a, const struct column *b) { return !strcmp(a->native_type, b->native_type); }

static bool is_taken(const int *from, unsigned n, int column)
{
	for (unsigned i = 0; i < n; i++)
		if (from[i] == column)
			return true;
	return false;
}

/* Columns of the same name. One that stands before another which it stood behind was dropped and added again. */
static void match_names(const struct relation *old, const struct relation *new, int *from)
{
	int last = -1;
	for (unsigned i = 0; i < new->ncolumns; i++) {
		int at = relation_find_column(old, new->columns[i].name);
		from[i] = at > last ? at : -1;
		if (from[i] >= 0)
			last = at;
	}
}

/* A run of names between two columns that stayed: [new_at, new_end) came, [old_at, old_end) are gone. */
struct gap {
	unsigned new_at, new_end, old_at, old_end;
	bool is_last;
};

static bool has_same_types(const struct relation *old, const struct relation *new, const struct gap *g)
{
	for (unsigned i = 0; i < g->new_end - g->new_at; i++)
		if (!same_type(&new->columns[g->new_at + i], &old->columns[g->old_at + i]))
			return false;
	return true;
}

/* In the middle some were renamed and the others dropped; types tell which. */
static int match_middle(const struct relation *old, const struct relation *new, const struct gap *g, int *from, struct err *e)
{
	unsigned at = g->old_at;
	for (unsigned i = g->new_at; i < g->new_end; i++) {
		while (at < g->old_end && !same_type(&new->columns[i], &old->columns[at]))
			at++;
		if (at == g->old_end) {
			err_set(e, DMSR_ESTATE, "target.schema-unclear", "%s.%s: which of its columns is %s now cannot be told", new->schema, new->name,
				new->columns[i].name);
			return err_hint(e, "rename and drop its columns at the target as was done at the source, then start the job again");
		}
		from[i] = (int)at++;
	}
	return 0;
}

static int match_gap(const struct relation *old, const struct relation *new, const struct gap *g, int *from, struct err *e)
{
	unsigned came = g->new_end - g->new_at, gone = g->old_end - g->old_at;
	/* Other engines let a column be added anywhere. */
	bool may_be_added = g->is_last || strcmp(new->engine, "postgres") != 0;
	if (!came || !gone)
		return 0;
	if (came == gone && (!may_be_added || has_same_types(old, new, g))) {
		for (unsigned i = 0; i < came; i++)
			from[g->new_at + i] = (int)(g->old_at + i);
		return 0;
	}
	return may_be_added || came > gone ? 0 : match_middle(old, new, g, from, e);
}

static bool has_numbers(const struct relation *rel)
{
	unsigned n = 0;
	while (n < rel->ncolumns && rel->columns[n].source_id)
		n++;
	return n == rel->ncolumns;
}

static int find_number(const struct relation *rel, unsigned number)
{
	for (unsigned n = 0; n < rel->ncolumns; n++)
		if (rel->columns[n].source_id == number)
			return (int)n;
	return -1;
}

/* By the source's own numbers: then nothing is guessed. Of the old ones that have none yet each is the new one of its name, or gone. False: the numbers are
 * not known, or of another table; or one that is gone may be one that came. */
static bool match_numbers(const struct relation *old, const struct relation *new, int *from)
{
	bool has_come = false, has_gone = false, has_known = has_numbers(old);
	if (!old->id || old->id != new->id || !has_numbers(new))
		return false;
	for (unsigned i = 0; i < new->ncolumns; i++) {
		from[i] = find_number(old, new->columns[i].source_id);
		has_known |= from[i] >= 0;
		int same = from[i] < 0 ? relation_find_column(old, new->columns[i].name) : -1;
		if (same >= 0 && !old->columns[same].source_id)
			from[i] = same;
		has_come |= from[i] < 0;
	}
	for (unsigned n = 0; n < old->ncolumns; n++)
		has_gone |= !old->columns[n].source_id && !is_taken(from, new->ncolumns, (int)n);
	return has_known && !(has_come && has_gone);
}

int diff_map(const struct relation *old, const struct relation *new, int *from, struct err *e)
{
	struct gap g = { 0 };
	if (match_numbers(old, new, from))
		return 0;
	match_names(old, new, from);
	for (unsigned i = 0; i <= new->ncolumns; i++) {
		if (i < new->ncolumns && from[i] < 0)
			continue;
		g.new_end = i;
		g.is_last = i == new->ncolumns;
		g.old_end = g.is_last ? old->ncolumns : (unsigned)from[i];
		int rc = match_gap(old, new, &g, from, e);
		if (rc)
			return rc;
		g.new_at = i + 1;
		g.old_at = g.old_end + 1;
	}
	return 0;
}

/* ---- defaults ---- */

static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }

/* Behind a literal; NULL: it does not end. */
static const char *skip_literal(const char *s)
{
	for (s++; *s; s++) {
		if (*s != '\'')
			continue;
		if (s[1] != '\'')
			return s + 1;
		s++;
	}
	return NULL;
}

/* Behind "::type(1,2)[]"; a type's name has letters, quotes, dots and blanks. */
static const char *skip_cast(const char *s)
{
	bool is_quoted = false;
	for (s += 2; *s && (is_quoted || is_word(*s) || strchr(" .\"", *s)); s++)
		if (*s == '"')
			is_quoted = !is_quoted;
	if (*s == '(')
		while (*s && *s++ != ')')
			;
	while (*s == '[' || *s == ']')
		s++;
	return s;
}

/* A number, a literal, a word like true, with casts, signs and parentheses around them; an ARRAY of them. All else may be a function. */
bool diff_is_constant(const char *s)
{
	while (s && *s) {
		if (*s == '\'') {
			s = skip_literal(s);
		} else if (s[0] == ':' && s[1] == ':') {
			s = skip_cast(s);
		} else if (!strncmp(s, "ARRAY[", 6)) {
			s += 6;
		} else if (!strncmp(s, "true", 4) || !strncmp(s, "NULL", 4)) {
			s += 4;
		} else if (!strncmp(s, "false", 5)) {
			s += 5;
		} else if (*s && strchr("0123456789.eE+-() ,]", *s)) {
			s++;
		} else {
			return false;
		}
	}
	return s != NULL;
}

/* ---- statements ---- */

struct work {
	struct diff *out;
	const struct relation *old, *new;
	const struct target_table *tb;
	const int *from;
	char **names;                   /* of the target's columns as they will be; NULL: dropped */
	bool is_key_dropped;
	struct buf sql;
};

static void begin(struct work *w)
{
	buf_reset(&w->sql);
	buf_printf(&w->sql, "ALTER TABLE %s ", w->tb->sql);
}

static void add(struct work *w)
{
	struct diff *d = w->out;
	d->sql = mem_realloc_array(d->sql, d->n + 1, sizeof *d->sql);
	d->sql[d->n++] = mem_strdup(buf_cstr(&w->sql));
}

/* The target's column that has this name by now; -1: none. */
static int find(const struct work *w, const char *name)
{
	for (unsigned i = 0; i < w->tb->ncolumns; i++)
		if (w->names[i] && !strcmp(w->names[i], name))
			return (int)i;
	return -1;
}

/* Dropped and added again: it is the new one already if it has the new type, which is not the old. */
static bool is_there(const struct work *w, const struct column *was, const struct target_column *own)
{
	int again = relation_find_column(w->new, was->name);
	const struct column *c = again < 0 ? NULL : &w->new->columns[again];
	return c && !same_type(was, c) && own->type_full && !strcmp(own->type_full, c->native_type);
}

static void drop(struct work *w, unsigned column)
{
	int at = find(w, w->old->columns[column].name);
	if (at < 0 || is_there(w, &w->old->columns[column], &w->tb->columns[at]))
		return;
	begin(w);
	buf_str(&w->sql, "DROP COLUMN ");
	sql_ident(&w->sql, w->names[at]);
	add(w);
	free(w->names[at]);
	w->names[at] = NULL;
}

/* Generated ones first: they hang on the others. */
static void drop_all(struct work *w)
{
	for (int pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < w->old->ncolumns; i++)
			if (!is_taken(w->from, w->new->ncolumns, (int)i) && (pass == 0) == ((w->old->columns[i].flags & COLUMN_GENERATED) != 0))
				drop(w, i);
}

static void rename_to(struct work *w, int at, const char *name)
{
	begin(w);
	buf_str(&w->sql, "RENAME COLUMN ");
	sql_ident(&w->sql, w->names[at]);
	buf_str(&w->sql, " TO ");
	sql_ident(&w->sql, name);
	add(w);
	free(w->names[at]);
	w->names[at] = mem_strdup(name);
}

/* The column that holds a name, if it waits for a new name itself; -1: nobody has to wait for it. */
static int holder(const struct work *w, const int *at, const char *name)
{
	int held = find(w, name);
	for (unsigned i = 0; held >= 0 && i < w->new->ncolumns; i++)
		if (at[i] == held && strcmp(w->names[held], w->new->columns[i].name) != 0)
			return held;
	return -1;
}

static bool rename_one(struct work *w, const int *at, bool may_wait)
{
	for (unsigned i = 0; i < w->new->ncolumns; i++) {
		const char *name = w->new->columns[i].name;
		if (at[i] < 0 || !strcmp(w->names[at[i]], name))
			continue;
		if (find(w, name) < 0) {
			rename_to(w, at[i], name);
			return true;
		}
		if (!may_wait && holder(w, at, name) >= 0) {
			char *other = mem_printf("dmsr_%u", i);
			rename_to(w, at[i], other);
			free(other);
			return true;
		}
	}
	return false;
}

/* A name that another column has still is waited for; where they go in a circle one steps aside. */
static void rename_all(struct work *w)
{
	int *at = mem_alloc((w->new->ncolumns + 1u) * sizeof *at);
	for (unsigned i = 0; i < w->new->ncolumns; i++)
		at[i] = w->from[i] < 0 ? -1 : find(w, w->old->columns[w->from[i]].name);
	while (rename_one(w, at, true) || rename_one(w, at, false))
		;
	free(at);
}

static bool is_plain(const struct relation *rel, const struct column *c)
{
	return !(c->flags & COLUMN_GENERATED) && !strcmp(rel->engine, "postgres");
}

static void retype(struct work *w, const struct column *c, const struct target_column *own)
{
	begin(w);
	if (own->has_default && !own->is_identity) {
		buf_str(&w->sql, "ALTER COLUMN ");
		sql_ident(&w->sql, c->name);
		buf_str(&w->sql, " DROP DEFAULT, ");
	}
	buf_str(&w->sql, "ALTER COLUMN ");
	sql_ident(&w->sql, c->name);
	buf_str(&w->sql, " TYPE ");
	sql_type(&w->sql, w->new, c);
	if (c->collation)
		buf_printf(&w->sql, " COLLATE %s", c->collation);
	if (!(c->flags & COLUMN_GENERATED)) {
		buf_str(&w->sql, " USING ");
		sql_ident(&w->sql, c->name);
		buf_str(&w->sql, "::");
		sql_type(&w->sql, w->new, c);
		w->out->cast = c->name;
	}
	if (own->has_default && !own->is_identity && c->dflt && is_plain(w->new, c)) {
		buf_str(&w->sql, ", ALTER COLUMN ");
		sql_ident(&w->sql, c->name);
		buf_printf(&w->sql, " SET DEFAULT %s", c->dflt);
	}
	add(w);
	w->out->makes_types = true;
}

static void alter(struct work *w, const struct column *c, const char *what)
{
	begin(w);
	buf_str(&w->sql, "ALTER COLUMN ");
	sql_ident(&w->sql, c->name);
	buf_printf(&w->sql, " %s", what);
	add(w);
}

/* A column that stayed. Nothing is made stricter: what the source's catalog says may be newer than the rows that come. */
static void change(struct work *w, const struct column *was, const struct column *c, const struct target_column *own)
{
	struct buf type;
	buf_init(&type, SQL_MAX);
	sql_type(&type, w->new, c);
	bool is_type_there = own->type_full && !strcmp(own->type_full, buf_cstr(&type));
	buf_fini(&type);
	if (own->is_generated && !(c->flags & COLUMN_GENERATED) && was->flags & COLUMN_GENERATED)
		alter(w, c, "DROP EXPRESSION");
	if (!same_type(was, c) && !is_type_there)
		retype(w, c, own);
	else if (c->dflt && is_plain(w->new, c) && !own->is_identity && (!was->dflt || strcmp(was->dflt, c->dflt) != 0)) {
		char *what = mem_printf("SET DEFAULT %s", c->dflt);
		alter(w, c, what);
		free(what);
	}
}

static void change_all(struct work *w)
{
	for (unsigned i = 0; i < w->new->ncolumns; i++) {
		int at = w->from[i] < 0 ? -1 : find(w, w->new->columns[i].name);
		if (at >= 0)
			change(w, &w->old->columns[w->from[i]], &w->new->columns[i], &w->tb->columns[at]);
	}
}

/* Columns that may be NULL now. Those of a primary key that was given up may, too. */
static void relax_all(struct work *w)
{
	for (unsigned i = 0; i < w->new->ncolumns; i++) {
		const struct column *c = &w->new->columns[i];
		int at = w->from[i] < 0 ? -1 : find(w, c->name);
		if (at < 0 || w->old->columns[w->from[i]].flags & COLUMN_NULLABLE || !(c->flags & COLUMN_NULLABLE) || c->key_pos)
			continue;
		if (w->tb->columns[at].is_not_null && (w->is_key_dropped || !w->tb->columns[at].is_in_primary_key))
			alter(w, c, "DROP NOT NULL");
	}
}

/* Rows that are there get what they have at the source: that value, or NULL; the default is for those to come, and may be another one by now. */
static void make_with(struct work *w, const struct column *c, const char *value)
{
	begin(w);
	buf_str(&w->sql, "ADD COLUMN ");
	sql_column(&w->sql, w->new, c, false);
	if (value) {
		buf_str(&w->sql, " DEFAULT ");
		sql_literal(&w->sql, value);
		buf_str(&w->sql, "::");
		sql_type(&w->sql, w->new, c);
		if (!(c->flags & COLUMN_NULLABLE))
			buf_str(&w->sql, " NOT NULL");
	}
	add(w);
	if (!value && !c->dflt)
		return;
	char *what = c->dflt ? mem_printf("SET DEFAULT %s", c->dflt) : mem_strdup("DROP DEFAULT");
	alter(w, c, what);
	free(what);
}

/* A constant that is kept apart for no row was not given to any; but where no NULL may be, there must have been one, which was moved into the rows. */
static bool is_made_with(const struct work *w, const struct column *c)
{
	bool has_identity = c->flags & (COLUMN_IDENTITY_ALWAYS | COLUMN_IDENTITY_DEFAULT);
	if (!c->source_id || !is_plain(w->new, c) || has_identity)
		return false;
	return c->missing || (c->dflt && c->flags & COLUMN_NULLABLE && diff_is_constant(c->dflt));
}

/* NOT NULL only where rows that are there get a value: else it may be younger at the source than the rows that come. */
static void make(struct work *w, const struct column *c)
{
	bool has_default = c->dflt && is_plain(w->new, c);
	w->out->makes_types = true;
	if (is_made_with(w, c)) {
		make_with(w, c, c->missing);
		return;
	}
	begin(w);
	buf_str(&w->sql, "ADD COLUMN ");
	sql_column(&w->sql, w->new, c, false);
	if (c->flags & (COLUMN_IDENTITY_ALWAYS | COLUMN_IDENTITY_DEFAULT)) {
		buf_printf(&w->sql, " GENERATED %s AS IDENTITY", c->flags & COLUMN_IDENTITY_ALWAYS ? "ALWAYS" : "BY DEFAULT");
		w->out->own_value = c->name;
	} else if (has_default) {
		buf_printf(&w->sql, " DEFAULT %s", c->dflt);
		if (!diff_is_constant(c->dflt))
			w->out->own_value = c->name;
		if (!(c->flags & COLUMN_NULLABLE))
			buf_str(&w->sql, " NOT NULL");
	}
	add(w);
}

static void make_all(struct work *w)
{
	for (int pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < w->new->ncolumns; i++) {
			const struct column *c = &w->new->columns[i];
			if (w->from[i] < 0 && find(w, c->name) < 0 && (pass == 1) == ((c->flags & COLUMN_GENERATED) != 0))
				make(w, c);
		}
}

/* ---- the key ---- */

static bool has_key(const struct relation *rel) { return rel->key == KEY_PRIMARY || rel->key == KEY_UNIQUE; }

static bool is_key_same(const struct work *w)
{
	if (w->new->nkeys != w->old->nkeys || !has_key(w->old))
		return false;
	for (unsigned i = 0; i < w->new->ncolumns; i++) {
		if (w->new->columns[i].key_pos && (w->from[i] < 0 || !w->old->columns[w->from[i]].key_pos))
			return false;
	}
	return true;
}

static void add_key_columns(struct work *w)
{
	for (unsigned i = 0; i < w->new->nkeys; i++) {
		buf_str(&w->sql, i ? ", " : " (");
		sql_ident(&w->sql, w->new->columns[w->new->keys[i]].name);
	}
	buf_byte(&w->sql, ')');
}

/* The source's own words for its primary key, which name the constraint. */
static const char *primary_key_of(const struct relation *rel)
{
	for (uint32_t i = 0; i < rel->nddl; i++)
		if (!strcmp(rel->ddl[i].kind, "primary-key"))
			return rel->ddl[i].sql;
	return NULL;
}

static void change_key(struct work *w, bool is_ours)
{
	if (!has_key(w->new) || w->tb->has_key || is_key_same(w))
		return;
	if (!is_ours) {
		w->out->key = "its key is another one now, and no unique index here serves it: changes will be slow until one is made";
		return;
	}
	if (w->new->key == KEY_UNIQUE) {
		buf_reset(&w->sql);
		buf_printf(&w->sql, "CREATE UNIQUE INDEX ON %s", w->tb->sql);
		add_key_columns(w);
		add(w);
		return;
	}
	if (w->tb->primary_key) {
		begin(w);
		buf_str(&w->sql, "DROP CONSTRAINT IF EXISTS ");
		sql_ident(&w->sql, w->tb->primary_key);
		add(w);
		w->is_key_dropped = true;
	}
	const char *own = primary_key_of(w->new);
	begin(w);
	if (own) {
		buf_reset(&w->sql);
		buf_str(&w->sql, own);
	} else {
		buf_str(&w->sql, "ADD PRIMARY KEY");
		add_key_columns(w);
	}
	add(w);
}

/* ---- all of it ---- */

int diff_table(struct diff *out, const struct relation *old, const struct target_table *tb, bool is_ours, struct err *e)
{
	const struct relation *new = tb->rel;
	int *from = mem_alloc((new->ncolumns + 1u) * sizeof *from), rc = 0;
	struct work w = { .out = out, .old = old, .new = new, .tb = tb, .from = from };
	*out = (struct diff){ 0 };
	if (old)
		rc = diff_map(old, new, from, e);
	else
		memset(from, -1, new->ncolumns * sizeof *from);
	if (!rc) {
		buf_init(&w.sql, SQL_MAX);
		w.names = mem_alloc((tb->ncolumns + 1u) * sizeof *w.names);
		for (unsigned i = 0; i < tb->ncolumns; i++)
			w.names[i] = mem_strdup(tb->columns[i].name);
		if (old) {
			drop_all(&w);
			rename_all(&w);
			change_all(&w);
		}
		make_all(&w);
		if (old) {
			change_key(&w, is_ours);
			relax_all(&w);
		}
		for (unsigned i = 0; i < tb->ncolumns; i++)
			free(w.names[i]);
		free(w.names);
		buf_fini(&w.sql);
	}
	free(from);
	return rc;
}

void diff_fini(struct diff *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->sql[i]);
	free(d->sql);
	*d = (struct diff){ 0 };
}
