/* source_mark: see source_mark.h. */
#include "source_mark.h"
#include <limits.h>
#include <string.h>

/* ---- the questions ---- */

/* What publishes $1's tables: itself or one that it is a partition of, by its name, its schema, or because all are. */
#define ABOVE "(SELECT t.oid UNION SELECT r.relid FROM pg_catalog.pg_partition_ancestors(t.oid) r)"
#define BY_TABLE "SELECT 'a' || p.oid FROM pg_catalog.pg_publication p WHERE p.pubname = $2 AND p.puballtables" \
	" UNION ALL SELECT 'r' || r.oid || ':' || r.xmin FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid" \
	" WHERE p.pubname = $2 AND r.prrelid IN " ABOVE
#define BY_SCHEMA " UNION ALL SELECT 'n' || n.oid || ':' || n.xmin FROM pg_catalog.pg_publication_namespace n" \
	" JOIN pg_catalog.pg_publication p ON p.oid = n.pnpubid WHERE p.pubname = $2" \
	" AND n.pnnspid IN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid IN " ABOVE ")"
/* Made as a partition: in one command, the table (its system columns are never written again) and its place among the partitions. A command of its own for the
 * place has a number that is further off. So for each step between the leaf and the root. */
#define BORN "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_partition_ancestors(l.oid) s(id) JOIN pg_catalog.pg_inherits i ON i.inhrelid = s.id" \
	" JOIN pg_catalog.pg_attribute x ON x.attrelid = s.id AND x.attnum = -1" \
	" WHERE NOT (i.xmin::pg_catalog.text = x.xmin::pg_catalog.text AND i.cmin::pg_catalog.text::int4 - x.cmin::pg_catalog.text::int4 BETWEEN 0 AND 2))"
/* The way to the root, as it was made last: another one for a partition that was detached and attached again. */
#define WAY "(SELECT coalesce(pg_catalog.sum(i.xmin::pg_catalog.text::pg_catalog.int8), 0) % 4294967296" \
	" FROM pg_catalog.pg_partition_ancestors(l.oid) s(id) JOIN pg_catalog.pg_inherits i ON i.inhrelid = s.id)"
/* The server does not let a table be UNLOGGED that is in a publication by its own name. */
#define LOG "CASE WHEN c.relpersistence = 'u' THEN 2 WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_publication_rel r" \
	" JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $2 AND r.prrelid = l.oid) THEN 1 ELSE 0 END"
#define LEAVES "(SELECT t.oid AS oid WHERE t.relkind <> 'p' UNION ALL SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(t.oid) p" \
	" WHERE t.relkind = 'p' AND p.isleaf)"
/* Not by md5, which a server in FIPS mode refuses; of the bytes as they are, which in a database of SQL_ASCII need not be UTF-8. */
#define HASH(text) "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(" text ", 'SQL_ASCII')), 'hex')"
/* For all tables at once: the types of the columns and those that these are made of, as far as they are not the server's own (by their oids). */
#define TYPES(more) "u(t, id) AS (SELECT a.attrelid, a.atttypid FROM pg_catalog.pg_attribute a" \
	" WHERE a.attrelid = ANY ($1::pg_catalog.oid[]) AND a.attnum > 0 AND a.atttypid >= 16384" \
	" UNION SELECT u.t, x.id FROM u JOIN pg_catalog.pg_type y ON y.oid = u.id CROSS JOIN LATERAL (SELECT y.typelem UNION ALL SELECT y.typbasetype" \
	" UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = y.oid" more \
	" UNION ALL SELECT b.atttypid FROM pg_catalog.pg_attribute b WHERE y.typtype = 'c' AND b.attrelid = y.typrelid AND b.attnum > 0) x(id)" \
	" WHERE x.id >= 16384), v(t, m) AS (SELECT u.t, pg_catalog.concat('l', e.oid, ':', pg_catalog.left(" HASH("e.enumlabel::pg_catalog.text") ", 8))" \
	" FROM u JOIN pg_catalog.pg_enum e ON e.enumtypid = u.id" \
	" UNION ALL SELECT u.t, pg_catalog.concat('t', y.oid, ':', (SELECT pg_catalog.left(" HASH("pg_catalog.string_agg(pg_catalog.concat_ws(':'," \
	" b.attnum, b.attname, b.atttypid, b.atttypmod), ',' ORDER BY b.attnum)") ", 8) FROM pg_catalog.pg_attribute b WHERE b.attrelid = y.typrelid" \
	" AND b.attnum > 0 AND NOT b.attisdropped)) FROM u JOIN pg_catalog.pg_type y ON y.oid = u.id WHERE y.typtype = 'c')," \
	" k(t, types) AS (SELECT v.t, pg_catalog.string_agg(v.m, ',' ORDER BY v.m) FROM v GROUP BY v.t)"
#define MULTIRANGES " UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = y.oid"
#define MARK(published, more) "WITH RECURSIVE " TYPES(more) " SELECT t.oid, pg_catalog.concat(" \
	"coalesce((SELECT pg_catalog.string_agg(w.m, ',' ORDER BY w.m) FROM (" published ") w(m)), '-'), '/'," \
	" (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', l.oid, c.relfilenode, CASE WHEN t.relkind <> 'p' OR " BORN " THEN 1 ELSE 0 END," \
	" " LOG ", c.reltoastrelid, " WAY "), ','" \
	" ORDER BY l.oid) FROM " LEAVES " l JOIN pg_catalog.pg_class c ON c.oid = l.oid), '/'," \
	" (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, pg_catalog.encode(pg_catalog.textsend(a.attname::pg_catalog.text), 'hex')," \
	" a.atttypid, a.atttypmod, coalesce(d.oid, 0), a.xmin, a.atthasmissing::int4, (a.attgenerated <> '')::int4), ','" \
	" ORDER BY a.attnum) FROM pg_catalog.pg_attribute a" \
	" LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum" \
	" WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped), '/', k.types), pg_catalog.pg_current_wal_insert_lsn()" \
	" FROM pg_catalog.pg_class t LEFT JOIN k ON k.t = t.oid WHERE t.oid = ANY ($1::pg_catalog.oid[])"

const char *mark_sql(int version)
{
	return version >= 150000 ? MARK(BY_TABLE BY_SCHEMA, MULTIRANGES) : version >= 140000 ? MARK(BY_TABLE, MULTIRANGES) : MARK(BY_TABLE, "");
}

/* Most of ALTER TABLE writes the table's row in pg_class; so do partitions that come and go. What drops a column or gives it another name writes nothing but
 * its row in pg_attribute: how often that happened in this database is counted, unless track_counts is off. What is counted
 * may be of any table, and of temporary ones: whether it is of these the second question tells, at a third of the cost. */
#define MEMBERS(catalog, publication) " (SELECT " HASH("pg_catalog.string_agg(pg_catalog.concat_ws(':', r.oid, r.xmin), ','" \
	" ORDER BY r.oid)") " FROM pg_catalog." catalog " r JOIN pg_catalog.pg_publication p ON p.oid = r." publication " WHERE p.pubname = $1)"
#define FILES "SELECT " HASH("pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.relname, n.nspname, c.relfilenode, c.xmin), ','" \
	" ORDER BY c.oid)") " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace" \
	" WHERE c.relkind IN ('r', 'p', 'c') AND c.relpersistence <> 't'"
#define LABELS "SELECT " HASH("pg_catalog.string_agg(pg_catalog.concat_ws(':', e.oid, e.enumlabel), ',' ORDER BY e.oid)") " FROM pg_catalog.pg_enum e"
#define COLUMNS "pg_catalog.pg_stat_get_tuples_updated('pg_catalog.pg_attribute'::pg_catalog.regclass)"
#define ROW "SELECT pg_catalog.concat(' ', p.oid, ':', p.xmin, ' ') FROM pg_catalog.pg_publication p WHERE p.pubname = $1"
#define ANY(more) "SELECT pg_catalog.concat((" FILES "), ' ', (" LABELS "), ' ', (" ROW ")," MEMBERS("pg_publication_rel", "prpubid") more ")," \
	" " COLUMNS

const char *mark_any_sql(int version)
{
	return version >= 150000 ? ANY("," MEMBERS("pg_publication_namespace", "pnpubid")) : ANY("");
}

#define WRITTEN "pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attrelid, a.attnum, a.xmin), ',' ORDER BY a.attrelid, a.attnum)"
const char mark_columns_sql[] = "SELECT " HASH(WRITTEN) " FROM pg_catalog.pg_attribute a"
	" WHERE a.attnum > 0 AND (a.attrelid = ANY ($1::pg_catalog.oid[])"
	" OR a.attrelid IN (SELECT y.typrelid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_class c ON c.oid = y.typrelid WHERE y.typtype = 'c'"
	" AND (c.relkind = 'c' OR y.oid IN (SELECT u.atttypid FROM pg_catalog.pg_attribute u)"
	" OR y.typarray IN (SELECT u.atttypid FROM pg_catalog.pg_attribute u))))";

/* ---- reading ---- */

enum { MAY_BE_UNLOGGED, LOGGED, UNLOGGED };
struct leaf { unsigned id, file, born, log, toast, way; };
/* A name has 63 bytes at most, in hex. */
struct col { unsigned num, type, dflt, written, missing, generated; int typmod; char name[127]; };

static const char *part(const char *mark, unsigned n)
{
	while (mark && n--) {
		mark = strchr(mark, '/');
		mark = mark ? mark + 1 : NULL;
	}
	return mark;
}

static bool is_at_end(const char *at) { return !at || !*at || *at == '/' || *at == ' '; }

static const char *behind(const char *at)
{
	at += strcspn(at, ",/ ");
	return *at == ',' ? at + 1 : at;
}

/* Not by sscanf, which measures all that follows. */
static bool take_number(const char **at, unsigned *out)
{
	uint64_t v = 0;
	const char *p = *at;
	for (; *p >= '0' && *p <= '9' && v <= UINT32_MAX; p++)
		v = v * 10 + (unsigned)(*p - '0');
	if (p == *at || v > UINT32_MAX)
		return false;
	*at = p;
	*out = (unsigned)v;
	return true;
}

static bool take_char(const char **at, char c)
{
	if (**at != c)
		return false;
	++*at;
	return true;
}

/* "1:2:3": how many there are, max at most; the others are 0. */
static unsigned take_numbers(const char **at, unsigned *out, unsigned max)
{
	unsigned n = 0;
	memset(out, 0, max * sizeof *out);
	while (n < max && take_number(at, &out[n])) {
		n++;
		if (!take_char(at, ':'))
			break;
	}
	return n;
}

static bool take_name(const char **at, char *out, size_t size)
{
	size_t n = strspn(*at, "0123456789abcdef");
	if (!n || n >= size)
		return false;
	memcpy(out, *at, n);
	out[n] = 0;
	*at += n;
	return true;
}

static bool take_signed(const char **at, int *out)
{
	unsigned n;
	bool is_negative = take_char(at, '-');
	if (!take_number(at, &n) || n > INT_MAX)
		return false;
	*out = is_negative ? -(int)n : (int)n;
	return true;
}

static bool next_leaf(const char **at, struct leaf *out)
{
	unsigned n[6];
	if (is_at_end(*at) || take_numbers(at, n, 6) < 3)
		return false;
	*out = (struct leaf){ n[0], n[1], n[2], n[3], n[4], n[5] };
	*at = behind(*at);
	return true;
}

static bool next_col(const char **at, struct col *out)
{
	unsigned n[4];
	if (is_at_end(*at) || !take_number(at, &out->num) || !take_char(at, ':') || !take_name(at, out->name, sizeof out->name) || !take_char(at, ':') ||
		!take_number(at, &out->type) || !take_char(at, ':') || !take_signed(at, &out->typmod) || !take_char(at, ':') || take_numbers(at, n, 4) < 3)
		return false;
	out->dflt = n[0];
	out->written = n[1];
	out->missing = n[2];
	out->generated = n[3];
	*at = behind(*at);
	return true;
}

/* ---- comparing ---- */

static bool has_item(const char *list, const char *item, size_t len)
{
	for (; !is_at_end(list); list = behind(list))
		if (strcspn(list, ",/ ") == len && !strncmp(list, item, len))
			return true;
	return false;
}

static bool is_unpublished(const char *was, const char *is)
{
	if (*is == '-' || *was == '-')
		return true;
	for (; !is_at_end(was); was = behind(was))
		if (has_item(is, was, strcspn(was, ",/ ")))
			return false;
	return true;
}

/* VACUUM FULL, CLUSTER, TRUNCATE and another tablespace make a file anew; ALTER TABLE that rewrites, as to UNLOGGED and back, also the table of the long
 * values. Where there is none, nothing tells one from the other. */
static void compare_leaf(const struct leaf *was, const struct leaf *is, struct mark_diff *out, unsigned *retoasted)
{
	bool is_refiled = was->file != is->file && !(was->log == LOGGED && is->log == LOGGED);
	if (was->log == UNLOGGED)
		out->is_relogged |= is->log != UNLOGGED;
	else if (is->log == UNLOGGED)
		out->is_unlogged_now = true;
	else if (is_refiled && was->toast && is->toast)
		*retoasted += was->toast != is->toast;
	else if (is_refiled)
		out->refiled++;
	out->attached += !is->born && was->way && was->way != is->way;
}

/* May it have been TRUNCATEd? */
static bool is_emptied(const struct leaf *was, const struct leaf *is)
{
	return was->file != is->file && was->toast && was->toast == is->toast && was->log != UNLOGGED && is->log != UNLOGGED;
}

/* Both lists are in the order of their oids. True: one that stayed has another file. A TRUNCATE of the root, which the stream has, leaves none as it was: then
 * the stream knows. A table that has no partitions is its own. */
static bool compare_files(const char *was, const char *is, struct mark_diff *out, unsigned *retoasted)
{
	struct leaf a, b;
	unsigned emptied = 0;
	bool has_kept = false, has_root = false, is_other = false, has_a = next_leaf(&was, &a), has_b = next_leaf(&is, &b);
	while (has_a || has_b) {
		bool both = has_a && has_b && a.id == b.id, only_a = has_a && (!has_b || a.id < b.id);
		if (both) {
			is_other |= a.file != b.file;
			has_kept |= a.file && a.file == b.file; /* a foreign table has none */
			emptied += is_emptied(&a, &b);
			has_root |= b.way != 0;
			compare_leaf(&a, &b, out, retoasted);
		} else if (only_a) {
			out->gone++;
		} else {
			out->attached += !b.born;
			out->is_unlogged_now |= b.log == UNLOGGED;
		}
		if (both || only_a)
			has_a = next_leaf(&was, &a);
		if (both || !only_a)
			has_b = next_leaf(&is, &b);
	}
	if (has_kept)
		out->refiled += emptied;
	else if (has_root)
		out->emptied = emptied;
	return is_other;
}

static bool next_plain_col(const char **at, struct col *out)
{
	while (next_col(at, out))
		if (!out->generated)
			return true;
	return false;
}

static bool has_col(const char *list, unsigned num)
{
	struct col c;
	while (next_col(&list, &c))
		if (c.num == num)
			return true;
	return false;
}

/* Was there a column that looked the same, and is none now? */
static bool is_again(const char *was, const char *is, const struct col *c)
{
	struct col a;
	while (next_plain_col(&was, &a))
		if (!strcmp(a.name, c->name) && a.type == c->type && a.typmod == c->typmod)
			return !has_col(is, a.num);
	return false;
}

/* Do the columns have the names of those that were there before, one after the other, and are not the same? The stream, which has names alone, does not tell
 * the one from the other. */
static bool is_shifted(const char *was, const char *is)
{
	struct col a, b;
	bool is_other = false;
	while (next_plain_col(&was, &a)) {
		if (!next_plain_col(&is, &b) || strcmp(a.name, b.name) != 0)
			return false;
		is_other |= a.num != b.num;
	}
	return is_other;
}

/* A rewrite moves the values that are kept apart into the rows, which writes the column's row too, also for VACUUM FULL: then the column was altered only if
 * its type or its default was made anew with it. (Of a column without a default the one cannot be told from the other: ALTER TYPE to the same type, of a column
 * that was added with a default, which it lost, in a table that was not written anew since. That is taken for VACUUM FULL.) */
static bool is_col_other(const struct col *was, const struct col *is)
{
	if (was->type != is->type || was->typmod != is->typmod)
		return true;
	return was->written != is->written && (!was->missing || was->dflt != is->dflt);
}

/* The default is made anew with the type, too. */
static void compare_generated(const struct col *was, const struct col *is, struct mark_diff *out)
{
	if (!is->generated)
		out->is_ungenerated = true;
	else if (was->type == is->type && was->dflt != is->dflt)
		out->is_recomputed = true;
}

/* Both lists are in the order of their numbers. True: a column was altered or added, and is not generated; generates: one that is. */
static bool compare_cols(const char *was, const char *is, struct mark_diff *out, bool *generates)
{
	struct col a, b;
	const char *old = was, *new = is;
	bool is_other = false, has_a = next_col(&old, &a);
	while (next_col(&new, &b)) {
		while (has_a && a.num < b.num)
			has_a = next_col(&old, &a);
		bool is_known = has_a && a.num == b.num;
		if (is_known && a.generated)
			compare_generated(&a, &b, out);
		*generates |= b.generated && (!is_known || a.dflt != b.dflt);
		if (b.generated || (is_known && a.generated))
			continue;
		is_other |= !is_known || is_col_other(&a, &b);
		out->is_made_again |= !is_known && is_again(was, is, &b);
	}
	out->is_made_again |= is_shifted(was, is);
	return is_other;
}

/* A label or a type is an item "kind, oid:what it is like". */
static void compare_types(const char *was, const char *is, struct mark_diff *out)
{
	for (; !is_at_end(was); was = behind(was)) {
		size_t len = strcspn(was, ",/ "), id = strcspn(was, ":,/ ") + 1;
		for (const char *at = is; !is_at_end(at) && id < len; at = behind(at)) {
			if (strncmp(at, was, id) != 0)
				continue;
			bool is_other = strcspn(at, ",/ ") != len || strncmp(at, was, len) != 0;
			out->is_relabelled |= is_other && *was == 'l';
			out->is_reshaped |= is_other && *was == 't';
			break;
		}
	}
}

unsigned mark_unlogged(const char *mark)
{
	struct leaf l;
	unsigned n = 0;
	for (const char *at = part(mark, 1); next_leaf(&at, &l);)
		n += l.log == UNLOGGED;
	return n;
}

void mark_compare(const char *was, const char *is, struct mark_diff *out)
{
	*out = (struct mark_diff){ .is_other = strcmp(was, is) != 0 };
	if (!part(was, 2) || !part(is, 2))
		return;
	out->is_unpublished = is_unpublished(was, is);
	if (!out->is_other)
		return;
	unsigned retoasted = 0;
	bool generates = false, has_other_file = compare_files(part(was, 1), part(is, 1), out, &retoasted);
	bool has_other_col = compare_cols(part(was, 2), part(is, 2), out, &generates);
	compare_types(part(was, 3), part(is, 3), out);
	if (generates) /* a new expression may be all that the table was rewritten for */
		out->refiled += retoasted;
	else
		out->is_relogged |= retoasted != 0;
	out->is_rewritten = has_other_file && has_other_col;
	if (out->is_rewritten)
		out->refiled = out->emptied = 0;
}

/* ---- of a load that goes on ---- */

static bool is_same_item(const char *a, const char *b)
{
	size_t len = strcspn(a, "/");
	return len == strcspn(b, "/") && !strncmp(a, b, len);
}

/* By names, numbers and types, in their order. */
static bool has_same_cols(const char *was, const char *is)
{
	struct col a, b;
	bool has_a = next_col(&was, &a), has_b = next_col(&is, &b);
	while (has_a && has_b && a.num == b.num && !strcmp(a.name, b.name) && a.type == b.type && a.typmod == b.typmod && a.generated == b.generated) {
		has_a = next_col(&was, &a);
		has_b = next_col(&is, &b);
	}
	return !has_a && !has_b;
}

bool mark_keeps_parts(const char *was, const char *is)
{
	struct mark_diff d;
	mark_compare(was, is, &d);
	if (!d.is_other)
		return true;
	if (!part(was, 2) || !part(is, 2) || !is_same_item(was, is) || !has_same_cols(part(was, 2), part(is, 2)))
		return false;
	return !(d.is_unpublished || d.is_rewritten || d.is_made_again || d.is_ungenerated || d.is_recomputed || d.is_relogged || d.is_unlogged_now ||
		d.is_relabelled || d.is_reshaped || d.attached || d.gone || d.refiled || d.emptied);
}

/* ---- shapes ---- */

static unsigned digit(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

static void unhex(char *text)
{
	char *to = text;
	for (; text[0] && text[1]; text += 2)
		*to++ = (char)(digit(text[0]) << 4 | digit(text[1]));
	*to = 0;
}

struct relation *mark_shape(const char *mark, const struct relation *of)
{
	const char *at = part(mark, 2);
	/* one of before has hashed names */
	unsigned colons = 0;
	for (const char *p = at; !is_at_end(p) && *p != ','; p++)
		colons += *p == ':';
	if (colons != 7)
		return NULL;
	struct relation_builder *b = relation_build(of->engine, of->schema, of->name, of->id);
	struct col c;
	while (next_col(&at, &c)) {
		unhex(c.name);
		struct column out = { .name = c.name, .native_type = "text", .type_id = c.type, .typmod = c.typmod, .source_id = (uint16_t)c.num };
		out.flags = (uint8_t)(COLUMN_NULLABLE | (c.generated ? COLUMN_GENERATED : 0));
		relation_build_column(b, &out);
	}
	return relation_seal(b, KEY_NONE);
}
