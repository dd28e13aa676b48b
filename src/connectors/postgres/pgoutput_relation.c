/* pgoutput_relation: the shape that rows have. In: Relation and Type messages, and what the host's catalog says. Out: struct relation, immutable, one for each
 * time that the server speaks of a table.
 *
 *   R  oid32  schema  name  identity8('d' 'n' 'f' 'i')  n16  n x { flags8(1: in the replica identity)  name  type32  typmod32 }
 *   Y  oid32  schema  name                                                            (schema "" is pg_catalog)
 *
 * The wire is exact for its place in the log, and poor; the catalog is rich, and may be newer. So the wire says which columns there are, of which
 * type, and what the key is; a description adds to a column what the wire does not tell, if name and type agree. Generated columns, which the server
 * does not send (or not before 18), are put in at their place, because a target has them: their values are UNCHANGED.
 *
 * A name alone does not say which column it is: it may have been another's when the row was written. The wire gives its columns in the order of their
 * numbers, so they are those of a shape whose numbers are known, the catalog's or the one before on the wire, if all the names agree, in order; of a
 * catalog that is younger for sure, if they are its first ones; of the two of them together, if they do not gainsay each other. Else the message is of a
 * time that nobody knows any more: the version is dated, and its columns have no numbers. New columns behind those of the shape before need none yet: which
 * they are matters only when they go, and others come. */
#include "pgoutput_int.h"
#include "catalog.h"
#include "types.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_COLUMNS = 1664, MAX_TABLES = 1 << 20, MAX_TYPES = 1 << 18, MAX_TYPE_TEXT = 512 };

struct wire_column {
	const char *name;
	uint32_t type_id;
	int32_t typmod;
	bool is_identity;
};

struct wire_relation {
	uint32_t id;
	const char *schema, *name;
	const char *own_schema, *own_name; /* its names at that moment, where it goes by others (host.named) */
	char identity;
	uint16_t n;
	struct wire_column columns[MAX_COLUMNS];
};

/* Building one version. */
struct merge {
	struct pgoutput *d;
	const struct wire_relation *w;
	const struct relation *known;   /* the catalog's description; NULL: none */
	const struct relation *before;  /* what the wire said last, if its numbers are known, or what was known in a former run; NULL */
	bool is_bare;                   /* known has names and numbers, and nothing else: the table is gone */
	bool is_answered;               /* known was read after the server wrote the message */
	int *place;                     /* wire column -> column of known of the same name, or -1 */
	int *match;                     /* the same, but -1 when the type is another */
	const struct column **column;   /* wire column -> the column of known or before that it is, or NULL */
	bool *on_wire;                  /* column of known: its name is on the wire */
	bool is_same;                   /* known has the wire's name, just its columns beside generated ones, and their types */
	bool is_known;                  /* so, or under the name that it has at that moment; and says nothing of them that the wire gainsays */
	char type_text[MAX_TYPE_TEXT];
};

/* ---- reading --------------------------------------------------------------------------------------------------- */
static int read_relation(struct cursor *c, struct wire_relation *w, struct err *e)
{
	w->id = cursor_be32(c);
	w->schema = cursor_cstr(c);
	w->name = cursor_cstr(c);
	w->identity = (char)cursor_u8(c);
	w->n = cursor_be16(c);
	if (!*w->schema)
		w->schema = "pg_catalog";
	w->own_schema = w->schema;
	w->own_name = w->name;
	if (c->bad || w->n > MAX_COLUMNS)
		return pgo_bad(e, "Relation is cut off or has too many columns");
	for (unsigned i = 0; i < w->n; i++) {
		struct wire_column *col = &w->columns[i];
		col->is_identity = cursor_u8(c) & 1;
		col->name = cursor_cstr(c);
		col->type_id = cursor_be32(c);
		col->typmod = (int32_t)cursor_be32(c);
	}
	return cursor_done(c) ? 0 : pgo_bad(e, "Relation of %s.%s has a wrong length", w->schema, w->name);
}

int pgo_type(struct pgoutput *d, struct cursor *c, struct err *e)
{
	uint32_t id = cursor_be32(c);
	const char *schema = cursor_cstr(c);
	const char *name = cursor_cstr(c);

	if (!cursor_done(c))
		return pgo_bad(e, "Type has a wrong length");
	if (map_size(d->types) >= MAX_TYPES && !map_get_u32(d->types, id))
		return pgo_bad(e, "more types than a database has");
	struct buf text;
	buf_init(&text, MAX_TYPE_TEXT);
	if (*schema)
		sql_qualified(&text, schema, name);
	else
		sql_qualified(&text, "pg_catalog", name);
	free(map_put_u32(d->types, id, mem_strdup(buf_cstr(&text))));
	buf_fini(&text);
	return 0;
}

/* ---- merging --------------------------------------------------------------------------------------------------- */
/* By name; `next` is the likely place, so that two lists in the same order cost no search. */
static int find_known(const struct relation *known, const char *name, unsigned next)
{
	if (next < known->ncolumns && !strcmp(known->columns[next].name, name))
		return (int)next;
	return relation_find_column(known, name);
}

static bool may_be_sent(const struct merge *m, const struct column *c) { return !(c->flags & COLUMN_GENERATED) || m->d->host.sends_generated; }

enum more { NO_MORE, MORE_IN_SHAPE, MORE_ON_WIRE };

/* Are the wire's columns those of that shape? One of them may have more, behind the others. */
static bool fits(struct merge *m, const struct relation *rel, enum more more)
{
	unsigned i = 0;

	for (unsigned k = 0; k < rel->ncolumns; k++) {
		const struct column *c = &rel->columns[k];
		if (i < m->w->n && !strcmp(m->w->columns[i].name, c->name) && may_be_sent(m, c))
			m->column[i++] = c;
		else if (!(c->flags & COLUMN_GENERATED) && !(i == m->w->n && more == MORE_IN_SHAPE))
			return false;
	}
	for (; i < m->w->n && more == MORE_ON_WIRE; i++)
		m->column[i] = NULL;
	return i == m->w->n;
}

static const struct column *named(const struct relation *rel, const char *name)
{
	int at = relation_find_column(rel, name);

	return at < 0 ? NULL : &rel->columns[at];
}

/* A column of the catalog that came after the shape before. */
static const struct column *new_named(const struct merge *m, const char *name)
{
	const struct column *c = named(m->known, name);

	for (unsigned k = 0; c && k < m->before->ncolumns; k++)
		if (m->before->columns[k].source_id >= c->source_id)
			return NULL;
	return c && may_be_sent(m, c) ? c : NULL;
}

/* A column that both have must have been there in between. */
static bool has_common(const struct merge *m)
{
	for (unsigned k = 0; k < m->known->ncolumns; k++) {
		const struct column *c = &m->known->columns[k], *a = named(m->before, c->name);
		bool is_common = a && a->source_id == c->source_id && !((a->flags | c->flags) & COLUMN_GENERATED);
		if (is_common && !m->on_wire[k])
			return false;
	}
	return true;
}

/* Is it a step of the way from the shape before to the catalog's? Each column is one of theirs, and they agree about it. */
static bool fits_between(struct merge *m)
{
	unsigned last = 0;

	for (unsigned i = 0; i < m->w->n; i++) {
		const char *name = m->w->columns[i].name;
		const struct column *a = named(m->before, name), *b = named(m->known, name), *c = b ? b : a;
		if (!c || !may_be_sent(m, c) || (a && b && a->source_id && a->source_id != b->source_id) || c->source_id <= last)
			return false;
		m->column[i] = c;
		last = c->source_id;
	}
	return has_common(m);
}

/* The columns of the shape before, and new ones behind them, of which the catalog may not know. */
static bool fits_behind(struct merge *m)
{
	for (unsigned k = 0; k < m->before->ncolumns; k++) {
		const struct column *a = &m->before->columns[k], *b = named(m->known, a->name);
		if (b && a->source_id && b->source_id != a->source_id)
			return false;
	}
	if (!fits(m, m->before, MORE_ON_WIRE))
		return false;
	for (unsigned i = 0; i < m->w->n; i++)
		if (!m->column[i])
			m->column[i] = new_named(m, m->w->columns[i].name);
	return true;
}

/* Which column is which. False: that cannot be told. */
static bool find_columns(struct merge *m)
{
	if (!m->known || (m->is_same = fits(m, m->known, NO_MORE)))
		return true;
	if (m->before && fits(m, m->before, NO_MORE))
		return true;
	if (m->before ? fits_between(m) : m->is_answered && fits(m, m->known, MORE_IN_SHAPE))
		return true;
	if (m->before ? fits_behind(m) : !m->is_answered && fits(m, m->known, MORE_ON_WIRE))
		return true;
	memset(m->column, 0, m->w->n * sizeof(const struct column *));
	return false;
}

static bool is_called(const struct relation *rel, const char *schema, const char *name) { return !strcmp(rel->name, name) && !strcmp(rel->schema, schema); }

/* False: see find_columns. */
static bool find_matches(struct merge *m)
{
	const struct wire_relation *w = m->w;
	const struct relation *known = m->known;
	int at = -1;

	for (unsigned i = 0; i < w->n; i++) {
		at = known ? find_known(known, w->columns[i].name, (unsigned)(at + 1)) : -1;
		m->place[i] = at;
		m->match[i] = at >= 0 && !m->is_bare && known->columns[at].type_id == w->columns[i].type_id ? at : -1;
		if (at >= 0)
			m->on_wire[at] = true;
	}
	bool is_clear = find_columns(m);
	for (unsigned i = 0; m->is_same && i < w->n; i++)
		m->is_same = m->match[i] >= 0 && known->columns[m->match[i]].typmod == w->columns[i].typmod;
	bool has_own = known && is_called(known, w->own_schema, w->own_name), has_name = known && is_called(known, w->schema, w->name);
	m->is_known = m->is_same && (has_own || has_name);
	m->is_same = m->is_same && has_name;
	for (unsigned i = 0; m->is_known && i < w->n; i++)
		m->is_known = !(known->columns[m->match[i]].flags & COLUMN_GENERATED); /* before it was made a plain one, or after? */
	return is_clear;
}

/* A column of the description that has the type, with the modifier if that matters. */
static const struct column *same_type(const struct merge *m, const struct wire_column *w, bool with_typmod)
{
	for (unsigned k = 0; m->known && !m->is_bare && k < m->known->ncolumns; k++) {
		const struct column *c = &m->known->columns[k];
		if (c->type_id == w->type_id && (!with_typmod || c->typmod == w->typmod))
			return c;
	}
	return NULL;
}

static void fill_type(struct merge *m, const struct wire_column *w, struct column *out)
{
	enum logical_type elem = TYPE_OTHER;
	const struct column *same;

	out->type = (uint8_t)pgtype_builtin(w->type_id, &elem);
	out->elem_type = (uint8_t)elem;
	out->native_type = pgtype_format(w->type_id, w->typmod, m->type_text, sizeof m->type_text);
	if (out->native_type)
		return;
	if ((same = same_type(m, w, false))) {
		out->type = same->type;
		out->elem_type = same->elem_type;
	}
	if ((same = same_type(m, w, true)))
		out->native_type = same->native_type;
	else
		out->native_type = map_get_u32(m->d->types, w->type_id);
	if (!out->native_type)
		out->native_type = "text"; /* the server names every type that is not built in before it uses it */
}

/* The column's place in the key, before places are counted; 0: not in it. */
static uint16_t key_place(const struct merge *m, enum key_kind key, bool key_is_known, unsigned i)
{
	const struct wire_column *w = &m->w->columns[i];

	if (key == KEY_NONE || key == KEY_FULL)
		return 0;
	if (key_is_known)
		return m->match[i] >= 0 ? m->known->columns[m->match[i]].key_pos : 0;
	return w->is_identity ? (uint16_t)(i + 1) : 0;
}

/* Does the description's key consist of just the wire's identity columns? Then its order is the right one. */
static bool is_key_same(const struct merge *m)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->w->n; i++) {
		bool in_known = m->match[i] >= 0 && m->known->columns[m->match[i]].key_pos;
		if (in_known != m->w->columns[i].is_identity)
			return false;
		n += in_known;
	}
	return m->known && n == m->known->nkeys;
}

/* Is the description's primary key wholly on the wire? */
static bool has_known_primary(const struct merge *m)
{
	unsigned n = 0;

	if (!m->known || m->known->key != KEY_PRIMARY)
		return false;
	for (unsigned i = 0; i < m->w->n; i++)
		n += m->match[i] >= 0 && m->known->columns[m->match[i]].key_pos;
	return n == m->known->nkeys;
}

static enum key_kind key_kind_of(const struct merge *m, bool *is_known)
{
	bool has_identity = false;

	for (unsigned i = 0; i < m->w->n; i++)
		has_identity |= m->w->columns[i].is_identity;
	switch (m->w->identity) {
	case 'f': /* the whole old row is sent; a primary key still finds the row sooner */
		*is_known = has_known_primary(m);
		return *is_known ? KEY_PRIMARY : KEY_FULL;
	case 'n':
		*is_known = has_known_primary(m);
		return *is_known ? KEY_PRIMARY : KEY_NONE;
	default:
		*is_known = is_key_same(m);
		if (!has_identity)
			return KEY_NONE;
		return m->w->identity == 'i' ? KEY_UNIQUE : KEY_PRIMARY;
	}
}

static void fill_column(struct merge *m, unsigned i, struct column *out)
{
	const struct wire_column *w = &m->w->columns[i];

	*out = (struct column){ .name = w->name, .type_id = w->type_id, .typmod = w->typmod, .flags = COLUMN_NULLABLE };
	fill_type(m, w, out);
	const struct column *of = m->column[i], *k = m->match[i] >= 0 ? &m->known->columns[m->match[i]] : NULL;
	if (of && (!k || k->source_id != of->source_id))
		k = of;
	out->source_id = of ? of->source_id : 0;
	if (!k || k->type_id != w->type_id) {
		if (w->is_identity && m->w->identity != 'f')
			out->flags = 0; /* neither a primary key nor an identity index has nullable columns */
		return;
	}
	out->collation = k->collation;
	if (!may_be_sent(m, k))
		return; /* it was generated, or will be: now it is not */
	out->dflt = k->dflt;
	out->missing = k->missing;
	out->flags = k->flags;
	if (w->is_identity && m->w->identity != 'f')
		out->flags &= (uint8_t)~COLUMN_NULLABLE; /* a shape does not say so */
}

/* Generated columns of the description that are not on the wire and stand before column `until` of it. */
static unsigned add_generated(struct merge *m, struct relation_builder *b, unsigned *next, unsigned until)
{
	unsigned added = 0;

	for (; *next < until && !m->is_bare; ++*next) {
		struct column c = m->known->columns[*next];
		if (!(c.flags & COLUMN_GENERATED) || m->on_wire[*next])
			continue;
		c.key_pos = 0;
		relation_build_column(b, &c);
		added++;
	}
	return added;
}

static void add_ddl(const struct merge *m, struct relation_builder *b)
{
	if (!m->known || m->is_bare)
		return;
	relation_build_estimate(b, m->known->rows_estimate, m->known->bytes_estimate);
	for (uint32_t i = 0; i < m->known->nddl; i++) {
		const struct ddl *s = &m->known->ddl[i];
		/* what names columns is right only if the columns are those */
		if (m->is_same || s->phase == DDL_BEFORE_TABLE)
			relation_build_ddl(b, s->phase, s->kind, s->name, s->sql);
	}
}

static struct version *build_version(struct merge *m)
{
	const struct wire_relation *w = m->w;
	struct version *v = mem_zalloc(sizeof *v);
	struct relation_builder *b = relation_build("postgres", w->schema, w->name, w->id);
	unsigned at = 0, next = 0;
	bool key_is_known = false;
	enum key_kind key = key_kind_of(m, &key_is_known);

	v->nwire = w->n;
	v->column = mem_alloc(w->n * sizeof *v->column + 1);
	v->is_identity = mem_alloc(w->n * sizeof *v->is_identity + 1);
	for (unsigned i = 0; i < w->n; i++) {
		struct column c;
		if (m->place[i] >= 0)
			at += add_generated(m, b, &next, (unsigned)m->place[i]);
		fill_column(m, i, &c);
		c.key_pos = key_place(m, key, key_is_known, i);
		relation_build_column(b, &c);
		v->is_identity[i] = w->columns[i].is_identity;
		v->column[i] = (uint16_t)at++;
	}
	if (m->known)
		at += add_generated(m, b, &next, m->known->ncolumns);
	add_ddl(m, b);
	v->is_straight = at == w->n;
	v->rel = relation_seal(b, key);
	return v;
}

static void version_free(struct version *v)
{
	if (!v)
		return;
	relation_unref(v->rel);
	free(v->column);
	free(v->is_identity);
	free(v);
}

/* ---- which version is in force ----------------------------------------------------------------------------------- */
struct table *pgo_table(struct pgoutput *d, uint32_t id)
{
	if (d->last_table && d->last_table->id == id)
		return d->last_table;
	struct table *t = map_get_u32(d->tables, id);
	if (t)
		d->last_table = t;
	return t;
}

/* A held transaction is decoded long after its Relation messages came. For its own rows they count; for those that follow it counts what came
 * last on the wire, and that may be a message that came between its pieces. */
static void put_in_force(struct pgoutput *d, struct table *t, struct version *v)
{
	if (t->now && t->now->seq > v->seq && !t->later) {
		t->later = t->now;
		t->next_later = d->laters;
		d->laters = t;
	} else {
		version_free(t->now);
	}
	t->now = v;
}

void pgo_end_of_held(struct pgoutput *d)
{
	while (d->laters) {
		struct table *t = d->laters;
		d->laters = t->next_later;
		if (t->later->seq > t->now->seq) {
			version_free(t->now);
			t->now = t->later;
		} else {
			version_free(t->later);
		}
		t->later = NULL;
	}
}

static struct table *table_for(struct pgoutput *d, uint32_t id)
{
	struct table *t = pgo_table(d, id);

	if (t || map_size(d->tables) >= MAX_TABLES)
		return t;
	t = mem_zalloc(sizeof *t);
	t->id = id;
	map_put_u32(d->tables, id, t);
	return t;
}

static bool has_any_number(const struct relation *rel)
{
	for (unsigned i = 0; i < rel->ncolumns; i++)
		if (rel->columns[i].source_id)
			return true;
	return false;
}

static bool has_number(const struct relation *rel, unsigned number)
{
	for (unsigned i = 0; i < rel->ncolumns; i++)
		if (rel->columns[i].source_id == number)
			return true;
	return false;
}

/* Has a column without a number gone, while there is one that it may be? */
static bool is_dated_after(const struct relation *old, const struct relation *new)
{
	bool has_gone = false, has_come = false;

	for (unsigned i = 0; i < old->ncolumns; i++)
		has_gone |= !old->columns[i].source_id && !named(new, old->columns[i].name);
	for (unsigned i = 0; i < new->ncolumns; i++) {
		const struct column *c = &new->columns[i];
		has_come |= !(c->flags & COLUMN_GENERATED) && !(c->source_id && has_number(old, c->source_id));
	}
	return has_gone && has_come;
}

int pgo_wait(struct pgoutput *d, char type, const struct cursor *c, uint64_t seq, struct relation *known)
{
	d->pending_len = cursor_left(c);
	d->pending = mem_alloc(d->pending_len);
	memcpy(d->pending, c->at, d->pending_len);
	d->pending_type = type;
	d->pending_seq = seq;
	d->pending_known = known ? relation_ref(known) : NULL;
	return DMSR_AGAIN;
}

static struct version *merge_version(struct merge *m, const struct table *t, bool is_asked)
{
	const struct wire_relation *w = m->w;
	struct relation *earlier = NULL;

	if (t && has_any_number(t->now->rel))
		m->before = t->now->rel;
	else if (m->d->host.earlier && m->known)
		m->before = earlier = m->d->host.earlier(m->d->host.ctx, m->known, m->d->txn.lsn);
	m->is_answered = is_asked && m->known != m->d->pending_known;
	m->place = mem_alloc(w->n * sizeof *m->place + 1);
	m->match = mem_alloc(w->n * sizeof *m->match + 1);
	m->column = mem_zalloc((w->n + 1u) * sizeof *m->column);
	m->on_wire = mem_zalloc(m->known ? m->known->ncolumns + 1u : 1);
	bool is_clear = find_matches(m);
	struct version *v = build_version(m);
	v->is_dated = !is_clear || (m->known && t && t->told && is_dated_after(t->told, v->rel));
	relation_unref(earlier);
	free(m->place);
	free(m->match);
	free(m->column);
	free(m->on_wire);
	return v;
}

int pgo_relation(struct pgoutput *d, struct cursor *c, uint64_t seq, bool is_asked, struct err *e)
{
	const struct cursor message = *c;
	struct wire_relation *w = mem_alloc(sizeof *w);
	int rc = read_relation(c, w, e);

	if (rc) {
		free(w);
		return rc;
	}
	const struct relation *as = d->host.named ? d->host.named(d->host.ctx, w->id) : NULL;
	if (as) {
		w->schema = as->schema;
		w->name = as->name;
	}
	struct table *t = pgo_table(d, w->id);
	struct relation *known = d->host.describe(d->host.ctx, w->id);
	bool is_bare = !known && d->host.remembered && (known = d->host.remembered(d->host.ctx, w->id));
	struct merge m = { .d = d, .w = w, .known = known, .is_bare = is_bare };
	struct version *v = merge_version(&m, t, is_asked);
	v->seq = seq;
	v->is_renamed = !is_called(v->rel, w->own_schema, w->own_name);
	v->wanted = d->host.wanted(d->host.ctx, v->rel, d->txn.lsn, &v->loaded_lsn);
	uint32_t id = w->id;
	free(w);
	if (v->wanted && !m.is_known && !is_asked && d->host.ask && d->host.ask(d->host.ctx, id) == DMSR_AGAIN) {
		version_free(v);
		return pgo_wait(d, 'R', &message, seq, known);
	}
	if (!(t = table_for(d, id))) {
		version_free(v);
		return pgo_bad(e, "more tables than a database has");
	}
	put_in_force(d, t, v);
	return 0;
}

void pgo_tell_schema(struct pgoutput *d, struct table *t)
{
	struct relation *rel = t->now->rel;
	struct relation *old = t->told;

	/* The first time in any case: what downstream knows from earlier runs, or from the load, may be another shape. */
	if (!old || !relation_is_same(old, rel)) {
		struct change *ch = pgo_emit(d, OP_SCHEMA, rel);
		ch->event = d->event - 1; /* it is before the row that is next */
		ch->u.schema.old = old;
		if (old)
			batch_hold(d->batch, old);
	}
	relation_ref(rel);
	relation_unref(t->told);
	t->told = rel;
}

static void free_table(void *arg, const void *key, size_t n, void *value)
{
	struct table *t = value;

	(void)arg;
	(void)key;
	(void)n;
	version_free(t->now);
	version_free(t->later);
	relation_unref(t->told);
	free(t);
}

static void free_type(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	free(value);
}

void pgo_tables_free(struct pgoutput *d)
{
	map_each(d->tables, free_table, NULL);
	map_free(d->tables);
	map_each(d->types, free_type, NULL);
	map_free(d->types);
}
