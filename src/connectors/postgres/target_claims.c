/* target_claims: rules, and the tokens that a change makes of them. */
#include "target_claims.h"
#include "types.h"
#include <stdlib.h>

enum { RULES_MAX = 64, KEY_MAX = 1 << 30 };
enum trim { TRIM_NOTHING, TRIM_NUMERIC, TRIM_BLANKS };
enum { OID_BPCHAR = 1042, OID_NUMERIC = 1700 };

struct rule {
	char kind;
	bool is_exact, nulls_equal;
	uint64_t ident;
	unsigned n;
	uint16_t *columns;              /* of the relation */
	uint8_t *trims;
};

struct claim_rules {
	uint64_t table;
	struct rule key;                /* a unique index whose values tell which row it is; n 0: none */
	struct rule rules[RULES_MAX];
	unsigned n;
};

struct claimer {
	struct depend *depend;
	struct buf bytes, text;
	unsigned table;                 /* modes that the change at hand claims its table in */
};

/* ---- rules ---- */

static bool is_integer(unsigned type) { return type == TYPE_INT16 || type == TYPE_INT32 || type == TYPE_INT64 || type == TYPE_OID; }

/* Does the source print such a value as the target would? */
static bool is_same_type(const struct column *c, const struct claim_row *row)
{
	enum logical_type elem, own = row->is_enum ? TYPE_ENUM : pgtype_builtin(row->type, &elem);
	return own == c->type || (is_integer(own) && is_integer(c->type));
}

static void add_column(struct rule *r, const struct relation *rel, const struct claim_row *row)
{
	int i = row->column ? relation_find_column(rel, row->column) : -1;
	r->nulls_equal = row->nulls_equal;
	if (i < 0 || !row->is_exact || !is_same_type(&rel->columns[i], row)) {
		r->is_exact = false;
		return;
	}
	r->columns = mem_realloc_array(r->columns, r->n + 1, sizeof *r->columns);
	r->trims = mem_realloc_array(r->trims, r->n + 1, sizeof *r->trims);
	r->columns[r->n] = (uint16_t)i;
	r->trims[r->n++] = row->type == OID_NUMERIC ? TRIM_NUMERIC : row->type == OID_BPCHAR ? TRIM_BLANKS : TRIM_NOTHING;
}

static void rule_fini(struct rule *r)
{
	free(r->columns);
	free(r->trims);
}

static bool is_key_column(const struct relation *rel, unsigned i)
{
	return rel->columns[i].key_pos && (rel->key == KEY_PRIMARY || rel->key == KEY_UNIQUE);
}

/* An index on exactly the key: the row itself is claimed anyway, by the same values. */
static bool is_of_key(const struct relation *rel, const struct rule *r)
{
	unsigned n = 0;
	for (unsigned i = 0; i < r->n; i++)
		n += is_key_column(rel, r->columns[i]);
	return r->kind == 'u' && r->is_exact && n == r->n && n == rel->nkeys;
}

static bool is_like(const struct rule *a, const struct rule *b)
{
	if (a->kind != b->kind || a->ident != b->ident || a->is_exact != b->is_exact || a->n != b->n)
		return false;
	return !a->n || !memcmp(a->columns, b->columns, a->n * sizeof *a->columns);
}

/* Where the whole old row comes, any unique index tells which one it was. */
static bool is_identity(const struct relation *rel, const struct rule *r)
{
	return is_of_key(rel, r) || (rel->key == KEY_FULL && r->kind == 'u' && r->is_exact && r->n);
}

static void take_rule(struct claim_rules *k, const struct relation *rel, struct rule *r)
{
	/* Many children may point at one parent's key. */
	for (unsigned i = 0; i < k->n; i++) {
		if (is_like(&k->rules[i], r)) {
			rule_fini(r);
			return;
		}
	}
	if (!k->key.n && is_identity(rel, r))
		k->key = *r;
	else
		k->rules[k->n++] = *r;
}

static uint64_t ident_of(const struct claim_row *row)
{
	return hash_stable(row->ident, strlen(row->ident), row->kind == 'u' ? 1 : 2);
}

struct claim_rules *claim_rules_new(const struct relation *rel, uint64_t table, const struct claim_row *rows, size_t n)
{
	struct claim_rules *k = mem_zalloc(sizeof *k);
	bool is_bad = false;
	k->table = hash_stable(&table, sizeof table, 3);
	for (size_t i = 0; i < n && !is_bad;) {
		struct rule r = { .kind = rows[i].kind, .is_exact = true, .ident = ident_of(&rows[i]) };
		is_bad = r.kind == 'a' || k->n == RULES_MAX;
		for (size_t first = i; i < n && rows[i].kind == r.kind && rows[i].group == rows[first].group; i++)
			add_column(&r, rel, &rows[i]);
		if (is_bad)
			rule_fini(&r);
		else
			take_rule(k, rel, &r);
	}
	if (!is_bad)
		return k;
	claim_rules_free(k);
	return NULL;
}

void claim_rules_free(struct claim_rules *r)
{
	if (!r)
		return;
	rule_fini(&r->key);
	for (unsigned i = 0; i < r->n; i++)
		rule_fini(&r->rules[i]);
	free(r);
}

/* ---- values ---- */

enum got { GOT_VALUES, GOT_NULL /* which is like no other */, GOT_UNKNOWN };

static const struct value *old_value(const struct change *ch, unsigned i)
{
	const struct value *before = ch->u.row.before;
	if (ch->op == OP_CREATE)
		return NULL;
	if (before)
		return before[i].kind == VALUE_UNCHANGED ? NULL : &before[i];
	/* An update without old values left the key alone. */
	return ch->u.row.after && is_key_column(ch->rel, i) && ch->u.row.after[i].kind != VALUE_UNCHANGED ? &ch->u.row.after[i] : NULL;
}

static const struct value *new_value(const struct change *ch, unsigned i)
{
	if (ch->op == OP_DELETE)
		return NULL;
	return ch->u.row.after[i].kind != VALUE_UNCHANGED ? &ch->u.row.after[i] : old_value(ch, i);
}

static size_t trimmed(const char *p, size_t n, enum trim trim)
{
	if (trim == TRIM_BLANKS)
		while (n && p[n - 1] == ' ')
			n--;
	if (trim == TRIM_NUMERIC && n && memchr(p, '.', n)) {
		while (p[n - 1] == '0')
			n--;
		n -= p[n - 1] == '.';
	}
	return n;
}

static bool add_value(struct claimer *c, const struct column *column, const struct value *v, enum trim trim)
{
	struct err e; /* only looked at when set: not cleared for each */
	const char *p = v->data;
	size_t n = v->len;
	if (v->kind == VALUE_BINARY) {
		buf_reset(&c->text);
		if (value_to_text(v, column->type, column->elem_type, &c->text, &e) || !buf_ok(&c->text))
			return false;
		p = c->text.data;
		n = c->text.len;
	}
	n = trimmed(p, n, trim);
	buf_u32(&c->bytes, (uint32_t)n);
	buf_append(&c->bytes, p, n);
	return buf_ok(&c->bytes);
}

typedef const struct value *value_of(const struct change *ch, unsigned i);

static enum got get_token(struct claimer *c, const struct rule *r, const struct change *ch, value_of *get, uint64_t *token)
{
	enum got got = GOT_VALUES;
	if (!r->is_exact || !r->n)
		return GOT_UNKNOWN;
	buf_reset(&c->bytes);
	buf_append(&c->bytes, &r->ident, sizeof r->ident);
	for (unsigned i = 0; i < r->n; i++) {
		const struct value *v = get(ch, r->columns[i]);
		if (!v)
			return GOT_UNKNOWN;
		if (v->kind == VALUE_NULL) {
			got = r->nulls_equal ? got : GOT_NULL;
			buf_u32(&c->bytes, UINT32_MAX);
		} else if (!add_value(c, &ch->rel->columns[r->columns[i]], v, r->trims[i])) {
			return GOT_UNKNOWN;
		}
	}
	*token = hash_bytes(c->bytes.data, c->bytes.len);
	return got;
}

/* ---- claims ---- */

/* One side of the change. */
static enum got claim_side(struct claimer *c, const struct rule *r, const struct change *ch, value_of *get)
{
	uint64_t token;
	enum got got = get_token(c, r, ch, get, &token);
	if (got == GOT_VALUES)
		depend_claim(c->depend, token, DEPEND_ALONE);
	return got;
}

/* Both. False: what comes is not known. */
static bool claim_values(struct claimer *c, const struct rule *r, const struct change *ch, enum got *old)
{
	*old = ch->op == OP_CREATE ? GOT_VALUES : claim_side(c, r, ch, old_value);
	return ch->op == OP_DELETE || claim_side(c, r, ch, new_value) != GOT_UNKNOWN;
}

static void claim_row(struct claimer *c, const struct claim_rules *k, const struct change *ch)
{
	enum got old = ch->op == OP_CREATE ? GOT_VALUES : GOT_UNKNOWN;
	bool new_known = !k->key.n || claim_values(c, &k->key, ch, &old);
	c->table = old == GOT_VALUES && new_known ? DEPEND_ONE : DEPEND_ALONE;
}

static void claim_unique(struct claimer *c, const struct rule *r, const struct change *ch)
{
	enum got old;
	bool new_known = claim_values(c, r, ch, &old);
	if (!r->is_exact || !new_known || (old == GOT_UNKNOWN && ch->op == OP_UPDATE))
		c->table |= DEPEND_ALONE;
	else if (old == GOT_UNKNOWN)
		c->table = c->table == DEPEND_ONE ? DEPEND_OTHER : c->table | DEPEND_OTHER;
}

/* Are the columns of this rule as they were, for certain? */
static bool is_same_row(const struct rule *r, const struct change *ch)
{
	if (ch->op != OP_UPDATE || !r->is_exact)
		return false;
	for (unsigned i = 0; i < r->n; i++) {
		const struct value *a = &ch->u.row.after[r->columns[i]], *b = old_value(ch, r->columns[i]);
		if (a->kind == VALUE_UNCHANGED || a == b)
			continue;
		if (!b || a->kind != b->kind || a->len != b->len || (a->len && memcmp(a->data, b->data, a->len)))
			return false;
	}
	return true;
}

static uint64_t of(const struct rule *r, uint64_t what) { return hash_stable(&what, sizeof what, r->ident); }
enum { REMOVAL = 1, PRECISION };

static void claim_child(struct claimer *c, const struct rule *r, const struct change *ch)
{
	uint64_t token;
	enum got got = GOT_NULL;
	if (is_same_row(r, ch))
		return;
	if (ch->op != OP_DELETE)
		got = get_token(c, r, ch, new_value, &token);
	if (got == GOT_VALUES)
		depend_claim(c->depend, token, DEPEND_ONE);
	if (ch->op != OP_CREATE)
		depend_claim(c->depend, of(r, REMOVAL), DEPEND_OTHER);
	depend_claim(c->depend, of(r, PRECISION), got == GOT_UNKNOWN || !r->is_exact ? DEPEND_ALONE : DEPEND_ONE);
}

static void claim_parent(struct claimer *c, const struct rule *r, const struct change *ch)
{
	enum got old;
	if (is_same_row(r, ch))
		return;
	bool new_known = claim_values(c, r, ch, &old);
	if (ch->op != OP_CREATE)
		depend_claim(c->depend, of(r, REMOVAL), DEPEND_ONE);
	depend_claim(c->depend, of(r, PRECISION), !new_known || !r->is_exact ? DEPEND_ALONE : DEPEND_ONE);
}

void claimer_add(struct claimer *c, const struct claim_rules *k, const struct change *ch)
{
	claim_row(c, k, ch);
	for (unsigned i = 0; i < k->n; i++) {
		const struct rule *r = &k->rules[i];
		if (r->kind == 'u')
			claim_unique(c, r, ch);
		else if (r->kind == 'c')
			claim_child(c, r, ch);
		else
			claim_parent(c, r, ch);
	}
	depend_claim(c->depend, k->table, (enum depend_mode)c->table);
}

struct claimer *claimer_new(struct depend *d)
{
	struct claimer *c = mem_zalloc(sizeof *c);
	c->depend = d;
	buf_init(&c->bytes, KEY_MAX);
	buf_init(&c->text, KEY_MAX);
	return c;
}

void claimer_free(struct claimer *c)
{
	if (!c)
		return;
	buf_fini(&c->bytes);
	buf_fini(&c->text);
	free(c);
}
