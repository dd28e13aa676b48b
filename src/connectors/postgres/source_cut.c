/* source_cut: how a big table is cut into parts that are read side by side. In comes a table, as large as the catalog says; out go statements' FROM and
 * WHERE: a few parts of about load_part_bytes each, which together are the table, whatever the estimates were worth.
 *
 *   a partitioned table -> its partitions -> each that is big:
 *     sample its key at some blocks, sorted by the server -> bounds in equal distances: skewed keys make no skewed parts
 *        the key goes with the place on disk, or most is TOASTed -> ranges of the key         WHERE (a, b) >= ('1', 'x') AND (a, b) < ('7', 'c')
 *        it does not, or there is none        -> ranges of blocks (14 on)  WHERE ctid >= '(0,0)' AND ctid < '(8192,0)'
 *
 * Where the server refuses the sample it is ranges of blocks too: so a bound that is in a part is one that it can compare.
 *
 * A row that nobody changes stays in its block, as long as the table has the file that it has: so ranges of blocks may last, too, if what became of the rows
 * that were changed can be told by a primary key.
 *
 * The first part has no lower bound and the last no upper one. A bound is the key's text as the server gave it, and compared by the server alone. */
#include "source_load.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PARTS_MAX = 4096,               /* of a table */
	SAMPLED_BLOCKS = 200,           /* at least */
	SAMPLED_PER_PART = 30,
	BOUND_BYTES_MAX = 64 << 10,     /* a bound's text */
	BLOCK_BYTES = 8192,             /* as good as always */
	BUILT_IN_OIDS = 16384,          /* below: types that come with the server */
};
static const double goes_with_place = 0.9;      /* correlation of key and block */

struct leaf {
	char *from;                     /* quoted */
	uint32_t id;
	int64_t bytes;
};

struct cut {
	struct source *s;
	struct pgconn *conn;
	struct load_table *t;
	void (*done)(void *arg, const struct err *e);
	void *arg;
	struct leaf *leaves;
	size_t nleaves, at;
	uint32_t cap;
};

static uint32_t wanted(const struct cut *c, int64_t bytes)
{
	int64_t n = (bytes + c->s->opt.load_part_bytes - 1) / c->s->opt.load_part_bytes;
	return n > PARTS_MAX ? PARTS_MAX : n < 1 ? 1 : (uint32_t)n;
}

/* ---- what comes out ---- */

static struct load_part *add_part(struct cut *c, char *where /* taken */)
{
	struct load_table *t = c->t;
	if (t->nparts == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		t->parts = mem_realloc_array(t->parts, c->cap, sizeof *t->parts);
	}
	t->parts[t->nparts++] = (struct load_part){ .from = mem_strdup(c->leaves[c->at].from), .id = c->leaves[c->at].id, .where = where };
	return &t->parts[t->nparts - 1];
}

bool cut_lasts(const struct load_table *t)
{
	bool has_ranges = false;
	if (t->rel->key != KEY_PRIMARY || (t->is_no_heap && cut_moves(t)))
		return false;
	for (uint32_t i = 0; i < t->nparts; i++)
		has_ranges |= t->parts[i].is_key_range;
	/* Of these a bound's text may mean something else later: a label, or what an oid's alias names, may be renamed. */
	for (unsigned i = 0; has_ranges && i < t->rel->nkeys; i++) {
		const struct column *k = &t->rel->columns[t->rel->keys[i]];
		if (k->type == TYPE_ENUM || k->type == TYPE_OID)
			return false;
	}
	return true;
}

bool cut_moves(const struct load_table *t)
{
	for (uint32_t i = 0; i < t->nparts; i++)
		if (t->parts[i].where && !t->parts[i].is_key_range)
			return true;
	return false;
}

static void next_leaf(struct cut *c);

static void leaf_is_cut(struct cut *c)
{
	c->at++;
	next_leaf(c);
}

static void drop_parts(struct cut *c)
{
	for (uint32_t i = 0; i < c->t->nparts; i++) {
		free(c->t->parts[i].from);
		free(c->t->parts[i].where);
	}
	c->t->nparts = 0;
}

static void give_up(struct cut *c, const struct err *e)
{
	drop_parts(c);
	c->t->is_whole = true;
	c->done(c->arg, e);
}

/* ---- by blocks ---- */

static void on_blocks(void *arg, const PGresult *res, const struct err *e)
{
	struct cut *c = arg;
	if (e) {
		give_up(c, e);
		return;
	}
	int64_t blocks = PQntuples(res) ? strtoll(PQgetvalue(res, 0, 0), NULL, 10) : 0, n = wanted(c, c->leaves[c->at].bytes);
	n = n < blocks ? n : blocks ? blocks : 1;
	c->t->is_no_heap |= !PQntuples(res) || PQgetvalue(res, 0, 1)[0] != 't';
	for (int64_t i = 0; i < n; i++) {
		char low[64] = "", high[64] = "";
		if (i)
			snprintf(low, sizeof low, "ctid >= '(%" PRId64 ",0)'", blocks * i / n);
		if (i < n - 1)
			snprintf(high, sizeof high, "ctid < '(%" PRId64 ",0)'", blocks * (i + 1) / n);
		add_part(c, n == 1 ? NULL : mem_printf("%s%s%s", low, i && i < n - 1 ? " AND " : "", high));
	}
	leaf_is_cut(c);
}

static void by_blocks(struct cut *c)
{
	char *sql;
	if (c->s->version < 140000) { /* earlier ones would read the whole table for each range */
		add_part(c, NULL);
		leaf_is_cut(c);
		return;
	}
	sql = mem_printf("SELECT pg_catalog.pg_relation_size(oid) / pg_catalog.current_setting('block_size')::int8, relam = 2 FROM pg_catalog.pg_class"
		" WHERE oid = %u", (unsigned)c->leaves[c->at].id); /* 2: heap, everywhere */
	pgconn_query(c->conn, sql, on_blocks, c);
	free(sql);
}

/* ---- by key ---- */

/* An index by a collation of the operating system's, or of ICU, is another order than today's when that was upgraded under it: a range that is read by the
 * index would miss rows. */
static bool has_fixed_order(const struct column *k)
{
	return k->collation && (!strcmp(k->collation, "pg_catalog.\"C\"") || !strcmp(k->collation, "pg_catalog.\"POSIX\""));
}

/* Of a type whose order an index of the server's own kind knows, and whose operators are found without a search path. */
static bool is_sortable(const struct column *k)
{
	switch ((enum logical_type)k->type) {
	case TYPE_TEXT: case TYPE_CHAR:
		return k->type_id < BUILT_IN_OIDS && has_fixed_order(k);
	case TYPE_BYTES:
		return k->type_id < BUILT_IN_OIDS;
	case TYPE_BOOL: case TYPE_INT16: case TYPE_INT32: case TYPE_INT64: case TYPE_UINT64: case TYPE_FLOAT32: case TYPE_FLOAT64: case TYPE_NUMERIC:
	case TYPE_UUID: case TYPE_ENUM: case TYPE_DATE: case TYPE_TIME: case TYPE_TIMETZ: case TYPE_TIMESTAMP: case TYPE_TIMESTAMPTZ: case TYPE_OID:
		return true;
	default:
		return false;
	}
}

static bool has_sortable_key(const struct relation *rel)
{
	if ((rel->key != KEY_PRIMARY && rel->key != KEY_UNIQUE) || !rel->nkeys)
		return false;
	for (unsigned i = 0; i < rel->nkeys; i++)
		if (!is_sortable(&rel->columns[rel->keys[i]]) || rel->columns[rel->keys[i]].flags & COLUMN_NULLABLE)
			return false;
	return true;
}

static bool is_cut_by_key(const struct load_table *t) { return !t->is_unordered && has_sortable_key(t->rel); }

bool cut_is_due(const struct source *s, const struct load_table *t)
{
	if (t->is_whole || !t->rel->ncolumns || !s->opt.load_part_bytes || t->rel->bytes_estimate <= s->opt.load_part_bytes)
		return false;
	return t->is_partitioned || s->version >= 140000 || is_cut_by_key(t);
}

static void put_key(struct buf *out, const struct relation *rel)
{
	for (unsigned i = 0; i < rel->nkeys; i++) {
		buf_str(out, i ? ", " : "");
		sql_ident(out, rel->columns[rel->keys[i]].name);
	}
}

static void put_bound(struct buf *out, const struct relation *rel, const char *op, const PGresult *res, int row)
{
	buf_str(out, "(");
	put_key(out, rel);
	buf_printf(out, ") %s (", op);
	for (unsigned i = 0; i < rel->nkeys; i++) {
		buf_str(out, i ? ", " : "");
		sql_literal(out, PQgetvalue(res, row, (int)i + 2));
	}
	buf_str(out, ")");
}

/* A statement for each part holds two bounds. */
static bool is_too_long(const PGresult *res)
{
	for (int i = 0; i < PQntuples(res); i++)
		for (int k = 2, len = 0; k < PQnfields(res); k++)
			if ((len += PQgetlength(res, i, k)) > BOUND_BYTES_MAX)
				return true;
	return false;
}

static void on_sample(void *arg, const PGresult *res, const struct err *e)
{
	struct cut *c = arg;
	const struct relation *rel = c->t->rel;
	if (e) {
		drop_parts(c);
		c->t->is_unordered = true;
		c->done(c->arg, e);
		return;
	}
	int n = PQntuples(res);
	double blocks = n ? strtod(PQgetvalue(res, 0, 1), NULL) + 1 : 0;
	bool is_aside = blocks * BLOCK_BYTES < (double)c->leaves[c->at].bytes / 4;
	if (!n || (fabs(strtod(PQgetvalue(res, 0, 0), NULL)) < goes_with_place && !is_aside && !c->t->in_turns)) {
		by_blocks(c);
		return;
	}
	if (is_too_long(res)) {
		by_blocks(c);
		return;
	}
	log_debug("postgres", c->s->host.env.job, "%s is cut by ranges of its key", c->leaves[c->at].from);
	for (int i = 0; i <= n; i++) {
		struct buf where;
		buf_init(&where, SIZE_MAX);
		if (i)
			put_bound(&where, rel, ">=", res, i - 1);
		buf_str(&where, i && i < n ? " AND " : "");
		if (i < n)
			put_bound(&where, rel, "<", res, i);
		add_part(c, mem_strdup(buf_cstr(&where)))->is_key_range = true;
		buf_fini(&where);
	}
	leaf_is_cut(c);
}

/* Sorted by the server, numbered; those stay where one of the parts begins. Each with the correlation of number and block, of all. The comparison with NULL
 * is for the server to say whether it can compare the key with a text: a domain of an enum has an order, but none with that. */
static void sample(struct cut *c)
{
	const struct relation *rel = c->t->rel;
	const struct leaf *leaf = &c->leaves[c->at];
	uint32_t n = wanted(c, leaf->bytes);
	double blocks = (double)leaf->bytes / BLOCK_BYTES, want = SAMPLED_PER_PART * (double)n;
	double percent = 100.0 * (want > SAMPLED_BLOCKS ? want : SAMPLED_BLOCKS) / blocks;
	struct buf sql;
	buf_init(&sql, 1 << 20);
	buf_str(&sql, "SELECT y.r, y.m");
	for (unsigned i = 0; i < rel->nkeys; i++)
		buf_printf(&sql, ", y.k%u", i);
	buf_str(&sql, " FROM (SELECT x.*, pg_catalog.corr(x.n, x.b) OVER () AS r, pg_catalog.max(x.b) OVER () AS m FROM"
		" (SELECT (ctid::pg_catalog.text::pg_catalog.point)[0] AS b,"
		" pg_catalog.count(*) OVER () AS c, pg_catalog.row_number() OVER (ORDER BY ");
	put_key(&sql, rel);
	buf_str(&sql, ") AS n");
	for (unsigned i = 0; i < rel->nkeys; i++) {
		buf_str(&sql, ", ");
		sql_ident(&sql, rel->columns[rel->keys[i]].name);
		buf_printf(&sql, "::pg_catalog.text AS k%u", i);
	}
	buf_str(&sql, ", (");
	put_key(&sql, rel);
	for (unsigned i = 0; i < rel->nkeys; i++)
		buf_str(&sql, i ? ", NULL" : ") < (NULL");
	buf_str(&sql, ")");
	buf_printf(&sql, " FROM ONLY %s TABLESAMPLE SYSTEM (%.6f)) x) y WHERE y.n > 1 AND (y.n - 1) * %u / y.c <> (y.n - 2) * %u / y.c ORDER BY y.n",
		leaf->from, percent < 100.0 ? percent : 100.0, (unsigned)n, (unsigned)n);
	pgconn_query(c->conn, buf_cstr(&sql), on_sample, c);
	buf_fini(&sql);
}

/* ---- partitions ---- */

static bool is_small(const struct cut *c)
{
	uint32_t n = wanted(c, c->leaves[c->at].bytes);
	return n < 2 || c->t->nparts + n > 2 * PARTS_MAX;
}

static void next_leaf(struct cut *c)
{
	for (; c->at < c->nleaves && is_small(c); c->at++)
		add_part(c, NULL);
	if (c->at == c->nleaves && c->t->nparts < 2)
		give_up(c, NULL);
	else if (c->at == c->nleaves)
		c->done(c->arg, NULL);
	else if (is_cut_by_key(c->t))
		sample(c);
	else
		by_blocks(c);
}

static void on_leaves(void *arg, const PGresult *res, const struct err *e)
{
	struct cut *c = arg;
	int n = e ? 0 : PQntuples(res);
	for (int i = 0; i < n; i++)
		if (PQgetvalue(res, i, 3)[0] != 't')
			n = 0;
	if (!n) {
		give_up(c, e);
		return;
	}
	c->leaves = mem_zalloc((size_t)n * sizeof *c->leaves);
	for (int i = 0; i < n; i++) {
		struct leaf *l = &c->leaves[c->nleaves++];
		l->id = catalog_oid(res, i, 0);
		l->from = mem_strdup(PQgetvalue(res, i, 1));
		l->bytes = strtoll(PQgetvalue(res, i, 2), NULL, 10);
	}
	next_leaf(c);
}

/* Rights and policies are the root's for who reads the root, and their own for who reads them by name. */
static void find_leaves(struct cut *c)
{
	char *sql = mem_printf("SELECT c.oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname), pg_catalog.pg_table_size(c.oid),"
		" c.relkind = 'r' AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid)"
		" FROM pg_catalog.pg_partition_tree(%u) p JOIN pg_catalog.pg_class c ON c.oid = p.relid"
		" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.isleaf ORDER BY 3 DESC, 1", (unsigned)c->t->rel->id);
	pgconn_query(c->conn, sql, on_leaves, c);
	free(sql);
}

struct cut *cut_begin(struct source *s, struct pgconn *conn, struct load_table *t, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct cut *c = mem_zalloc(sizeof *c);
	*c = (struct cut){ .s = s, .conn = conn, .t = t, .done = done, .arg = arg };
	if (t->is_partitioned) {
		find_leaves(c);
		return c;
	}
	struct buf name;
	buf_init(&name, 1024);
	sql_qualified(&name, t->rel->schema, t->rel->name);
	c->leaves = mem_alloc(sizeof *c->leaves);
	c->leaves[c->nleaves++] = (struct leaf){ .id = t->rel->id, .from = mem_strdup(buf_cstr(&name)), .bytes = t->rel->bytes_estimate };
	buf_fini(&name);
	if (is_cut_by_key(t))
		sample(c);
	else
		by_blocks(c);
	return c;
}

void cut_free(struct cut *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->nleaves; i++)
		free(c->leaves[i].from);
	free(c->leaves);
	free(c);
}
