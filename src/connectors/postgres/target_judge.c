/* target_judge: see target_judge.h. */
#include "target_judge.h"
#include "catalog.h"
#include "types.h"
#include <stdlib.h>
#include <string.h>

/* ---- words ---- */

static unsigned word_of(const char *const *words, unsigned n, const char *word, unsigned otherwise)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(word, words[i]))
			return i;
	return otherwise;
}

enum policy judge_policy(const char *word)
{
	static const char *const words[] = { [POLICY_STOP] = "stop", [POLICY_RETRY] = "retry", [POLICY_DEAD_LETTER] = "dead-letter",
		[POLICY_IGNORE] = "ignore", [POLICY_APPLY] = "apply" };
	return (enum policy)word_of(words, sizeof words / sizeof *words, word, POLICY_STOP);
}

enum prepare judge_prepare(const char *word)
{
	static const char *const words[] = { [PREPARE_NONE] = "none", [PREPARE_CREATE] = "create", [PREPARE_TRUNCATE] = "truncate",
		[PREPARE_DROP] = "drop-and-create" };
	return (enum prepare)word_of(words, sizeof words / sizeof *words, word, PREPARE_CREATE);
}

/* ---- types ---- */

enum family { F_ANY, F_TEXT, F_NUMBER, F_BOOL, F_UUID, F_TIME, F_BYTES, F_ADDRESS, F_ARRAY };

static enum family family_of(enum logical_type t)
{
	switch (t) {
	case TYPE_TEXT: case TYPE_CHAR:
		return F_TEXT;
	case TYPE_INT16: case TYPE_INT32: case TYPE_INT64: case TYPE_UINT64: case TYPE_FLOAT32: case TYPE_FLOAT64: case TYPE_NUMERIC: case TYPE_OID:
		return F_NUMBER;
	case TYPE_BOOL:
		return F_BOOL;
	case TYPE_UUID:
		return F_UUID;
	case TYPE_DATE: case TYPE_TIME: case TYPE_TIMETZ: case TYPE_TIMESTAMP: case TYPE_TIMESTAMPTZ: case TYPE_INTERVAL:
		return F_TIME;
	case TYPE_BYTES:
		return F_BYTES;
	case TYPE_INET: case TYPE_CIDR: case TYPE_MACADDR: case TYPE_MACADDR8:
		return F_ADDRESS;
	case TYPE_ARRAY:
		return F_ARRAY;
	default:
		return F_ANY;
	}
}

/* Is no text of the one a text of the other? In doubt: false. (A number is a date, and true.) */
static bool never(enum family from, enum family to)
{
	static const bool table[F_ARRAY + 1][F_ARRAY + 1] = {
		[F_BOOL] = { [F_NUMBER] = true, [F_UUID] = true },
		[F_NUMBER] = { [F_UUID] = true },
		[F_UUID] = { [F_NUMBER] = true, [F_BOOL] = true, [F_TIME] = true },
		[F_TIME] = { [F_NUMBER] = true, [F_UUID] = true, [F_BOOL] = true },
		[F_BYTES] = { [F_NUMBER] = true, [F_UUID] = true, [F_BOOL] = true, [F_TIME] = true },
		[F_ADDRESS] = { [F_NUMBER] = true, [F_UUID] = true, [F_BOOL] = true },
		[F_ARRAY] = { [F_NUMBER] = true, [F_BOOL] = true, [F_TIME] = true },
	};
	return table[from][to];
}

/* n of varchar(n); -1: no limit. */
static long limit_of(const char *type)
{
	const char *at = strchr(type, '(');
	return at ? strtol(at + 1, NULL, 10) : -1;
}

/* Does every number of the one fit into the other, which has no modifier? */
static bool widens(enum logical_type from, enum logical_type to)
{
	static const uint8_t bits[TYPE_COUNT] = { [TYPE_INT16] = 16, [TYPE_INT32] = 32, [TYPE_OID] = 33, [TYPE_INT64] = 64, [TYPE_UINT64] = 65 };
	if (to == TYPE_NUMERIC)
		return bits[from] != 0;
	if (to == TYPE_FLOAT64)
		return from == TYPE_FLOAT32 || (bits[from] && bits[from] <= 33);
	return bits[from] && bits[from] < bits[to] && to != TYPE_OID && to != TYPE_UINT64;
}

enum type_fit judge_type(const struct relation *rel, const struct column *c, const struct target_column *own)
{
	enum logical_type from = (enum logical_type)c->type, elem, to = pgtype_builtin(own->type, &elem);
	struct buf sql;
	buf_init(&sql, 1 << 20);
	sql_type(&sql, rel, c);
	const char *type = buf_cstr(&sql), *full = own->type_full ? own->type_full : "";
	bool is_same = !strcmp(type, full) || !strcmp(type, own->type_sql ? own->type_sql : "");
	long has = limit_of(type), takes = limit_of(full);
	buf_fini(&sql);
	enum family f = family_of(from), g = family_of(to);
	if (is_same || !strcmp(full, "text"))
		return FIT_GOOD;
	if (never(f, g))
		return FIT_NEVER;
	if (g == F_TEXT && takes < 0 && strcmp(full, "name") != 0)
		return FIT_GOOD;
	if (f == F_TEXT && g == F_TEXT)
		return has > 0 && has <= takes ? FIT_GOOD : FIT_BY_VALUE;
	if (f == F_NUMBER && g == F_NUMBER && takes < 0 && (from == to || widens(from, to)))
		return FIT_GOOD;
	if (from == to && f == F_TIME && takes < 0)
		return FIT_GOOD;
	return (from == TYPE_JSONB && to == TYPE_JSON) || (from == TYPE_CIDR && to == TYPE_INET) ? FIT_GOOD : FIT_BY_VALUE;
}

bool judge_key(const struct target_table *tb)
{
	enum { OID_BPCHAR = 1042, OID_VARCHAR = 1043 };
	bool is_fine = true;
	struct buf sql;
	buf_init(&sql, 1 << 20);
	for (unsigned i = 0; i < tb->rel->nkeys && is_fine; i++) {
		const struct column *c = &tb->rel->columns[tb->rel->keys[i]];
		const struct target_column *own = tb->of[tb->rel->keys[i]];
		if (!own || !own->type_full || own->folds || judge_type(tb->rel, c, own) != FIT_GOOD) {
			is_fine = false;
			break;
		}
		buf_reset(&sql);
		sql_type(&sql, tb->rel, c);
		/* what fits, and takes two for one all the same: fewer digits; spaces at the end. Not a varchar that is as long */
		const bool is_same = !strcmp(own->type_full, buf_cstr(&sql)), is_bare = !strcmp(own->type_full, own->type_sql);
		is_fine = is_same || own->type == OID_VARCHAR || (is_bare && own->type != OID_BPCHAR);
	}
	buf_fini(&sql);
	return is_fine;
}

/* ---- columns ---- */

struct faults {
	struct buf what;                /* the differences, for the sentence */
	struct buf fix;                 /* what mends them and loses nothing */
	bool has_fix;                   /* it mends all of them */
};

static void fault(struct faults *f, const char *column, const char *what)
{
	buf_printf(&f->what, "%scolumn %s %s", f->what.len ? "; " : "", column, what);
}

static void mend(struct faults *f, const struct target_table *tb, const char *verb, const char *column)
{
	buf_str(&f->fix, f->fix.len ? "; ALTER TABLE " : "ALTER TABLE ");
	buf_printf(&f->fix, "%s %s ", tb->sql, verb);
	if (column)
		sql_ident(&f->fix, column);
}

static void judge_column(struct faults *f, const struct target_table *tb, unsigned i, enum missing missing, bool loads)
{
	const struct relation *rel = tb->rel;
	const struct column *c = &rel->columns[i];
	const struct target_column *own = tb->of[i];
	bool is_written = sql_is_written(rel, c);
	if (!own && (missing == MISSING_MADE || (missing == MISSING_LEFT_OUT && !c->key_pos)))
		return;
	if (!own) {
		fault(f, c->name, "is missing");
		mend(f, tb, "ADD COLUMN", NULL);
		sql_column(&f->fix, rel, c, false);
	} else if (is_written && own->is_generated) {
		fault(f, c->name, "is generated here, but not at the source");
		mend(f, tb, "ALTER COLUMN", c->name);
		buf_str(&f->fix, " DROP EXPRESSION");
	} else if (!is_written && !own->is_generated) {
		fault(f, c->name, "is generated at the source, which sends no values of it, but not here");
		f->has_fix = false;
	} else if (loads && is_written && judge_type(rel, c, own) == FIT_NEVER) {
		char *what = mem_printf("is %s here and %s at the source: no value but NULL would be taken", own->type_full, c->native_type);
		fault(f, c->name, what);
		free(what);
		f->has_fix = false;
	}
}

static void judge_columns(struct faults *f, const struct target_table *tb, enum missing missing, bool loads)
{
	for (unsigned i = 0; i < tb->rel->ncolumns; i++)
		judge_column(f, tb, i, missing, loads);
	for (unsigned i = 0; i < tb->ncolumns; i++) {
		const struct target_column *c = &tb->columns[i];
		if (!c->is_not_null || c->has_default || c->is_generated || relation_find_column(tb->rel, c->name) >= 0)
			continue;
		fault(f, c->name, "is NOT NULL here, without a default, and the source does not have it");
		mend(f, tb, "ALTER COLUMN", c->name);
		buf_str(&f->fix, " DROP NOT NULL");
		f->has_fix = f->has_fix && !c->is_in_primary_key;
	}
}

static int check(const struct target_table *tb, enum missing missing, bool loads, const char *where, struct err *e)
{
	static const char otherwise[] = "or rename one of the tables away; or set prepare to drop-and-create, which loses what the target's table has";
	struct faults f = { .has_fix = true };
	int rc = 0;
	buf_init(&f.what, 400);
	buf_init(&f.fix, sizeof e->hint - sizeof otherwise - 4);
	judge_columns(&f, tb, missing, loads);
	if (f.what.len || !buf_ok(&f.what)) {
		rc = err_set(e, DMSR_ESTATE, "target.table-mismatch", "%s in %s: %s", tb->sql, where,
			buf_ok(&f.what) ? buf_cstr(&f.what) : "many columns differ");
		if (f.has_fix && buf_ok(&f.fix))
			err_hint(e, "%s; %s", buf_cstr(&f.fix), otherwise);
		else
			err_hint(e, "alter the table so that it has the source's columns, %s", otherwise);
	}
	buf_fini(&f.what);
	buf_fini(&f.fix);
	return rc;
}

int judge_stream(const struct target_table *tb, enum missing missing, const char *where, struct err *e) { return check(tb, missing, false, where, e); }

/* ---- the load ---- */

bool judge_is_ours(enum prepare prepare, const struct target_table *tb)
{
	return prepare == PREPARE_CREATE || prepare == PREPARE_DROP || tb->is_made;
}

static int refuse(struct err *e, const struct target_table *tb, const char *id, const char *where, const char *why, const char *fix)
{
	err_set(e, DMSR_ESTATE, id, "%s in %s: %s", tb->sql, where, why);
	return err_hint(e, "%s", fix);
}

/* A table that we made for the source's earlier one of that name, which had other columns: its rows go anyway, so it is made anew. */
static bool is_outgrown(const struct target_table *tb, enum prepare prepare, bool has_begun, const char *where)
{
	bool differs = false;
	struct err e = { 0 };
	struct buf type;
	if (!has_begun || !tb->is_made || prepare != PREPARE_CREATE)
		return false;
	buf_init(&type, 1 << 20);
	for (unsigned i = 0; i < tb->rel->ncolumns && !differs; i++) {
		buf_reset(&type);
		sql_type(&type, tb->rel, &tb->rel->columns[i]);
		differs = !tb->of[i] || strcmp(tb->of[i]->type_full, buf_cstr(&type)) != 0;
	}
	buf_fini(&type);
	return differs || check(tb, MISSING_REFUSED, true, where, &e);
}

int judge_load(const struct target_table *tb, enum prepare prepare, bool has_begun, const char *where, enum how *how, struct err *e)
{
	*how = HOW_KEEP;
	if (tb->exists && (prepare == PREPARE_DROP || is_outgrown(tb, prepare, has_begun, where)))
		*how = HOW_DROP;
	else if (!tb->exists && prepare == PREPARE_NONE)
		return refuse(e, tb, "target.table-missing", where, "there is no such table, and prepare is none", "create it, or set prepare to create");
	else if (!tb->exists)
		*how = HOW_MAKE;
	else if (check(tb, MISSING_REFUSED, true, where, e))
		return e->code;
	else if (prepare == PREPARE_NONE && has_begun)
		return refuse(e, tb, "target.table-loaded", where, "rows of an earlier load by this job may be there, and prepare none does not remove any",
			"remove the rows that were loaded, which are lost by that, and the table's row in dmsr.loads");
	else if (prepare == PREPARE_TRUNCATE || has_begun)
		*how = HOW_EMPTY;
	return 0;
}

int judge_rows(const struct target_table *tb, const char *where, const char *job, struct err *e)
{
	if (!job)
		return refuse(e, tb, "target.table-not-empty", where, "the table has rows, which are not of this job",
			"set prepare to none, which adds the rows to those that are there; or rename the table away; or, which loses the rows that are there, "
			"empty or drop it, or set prepare to truncate or drop-and-create");
	err_set(e, DMSR_ESTATE, "target.table-not-empty", "%s in %s: the table has rows, which are of job \"%s\"", tb->sql, where, job);
	err_hint(e, "let this job write to another database, or leave the table out of it, or delete job \"%s\" first; or set prepare to none, which adds "
		"the rows to those of that job", job);
	return e->code;
}

static void hint_shared(const struct target_table *tb, const char *uid, struct err *e)
{
	struct buf where_it_is;
	buf_init(&where_it_is, sizeof e->hint);
	buf_str(&where_it_is, "pg_catalog.split_part(job_uid, '/', 1) = ");
	sql_literal(&where_it_is, uid);
	buf_str(&where_it_is, " AND schema_name = ");
	sql_literal(&where_it_is, tb->schema);
	buf_str(&where_it_is, " AND table_name = ");
	sql_literal(&where_it_is, tb->name);
	err_hint(e, "take the table out of this job; or, if the rows of that job may be lost, delete it; or, if they may and it has left the table out, "
		"or no dmsrd knows it any more: DELETE FROM dmsr.loads WHERE %s", buf_cstr(&where_it_is));
	buf_fini(&where_it_is);
}

int judge_shared(const struct target_table *tb, const char *where, const char *job, const char *uid, struct err *e)
{
	err_set(e, DMSR_ESTATE, "target.table-shared", "%s in %s is to be emptied for its load, and has rows of job \"%s\" (%s), which would be lost", tb->sql,
		where, job, uid);
	hint_shared(tb, uid, e);
	return e->code;
}

int judge_begun(const struct target_table *tb, const char *where, const char *job, const char *uid, struct err *e)
{
	err_set(e, DMSR_ESTATE, "target.table-shared", "%s in %s is to be loaded, and job \"%s\" (%s) has begun to load it: the rows of both would be there",
		tb->sql, where, job, uid);
	hint_shared(tb, uid, e);
	return e->code;
}

bool judge_needs_owner(const struct target_table *tb, enum prepare prepare, enum how how)
{
	const struct relation *rel = tb->rel;
	if (how == HOW_DROP || how == HOW_MAKE)
		return how == HOW_DROP;
	if (!judge_is_ours(prepare, tb))
		return false;
	for (uint32_t i = 0; i < rel->nddl; i++)
		if (rel->ddl[i].phase != DDL_BEFORE_TABLE && strcmp(rel->ddl[i].kind, "setval") != 0 && strcmp(rel->ddl[i].kind, "comment") != 0)
			return true;
	return false;
}

/* ---- a table that others refer to ---- */

/* Foreign keys of other tables that would act when its rows go, the worst first: by the triggers that they work with, which may rest. Those of a partition
 * stand under the name that they were made with. */
const char judge_references_sql[] =
	"WITH RECURSIVE r (oid) AS (SELECT $1::regclass::oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN r ON i.inhparent = r.oid), "
	"k (oid, above) AS (SELECT k.oid, k.conparentid FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint "
	"WHERE k.contype = 'f' AND g.tgrelid = k.confrelid AND (g.tgtype & 8) <> 0 AND k.confrelid IN (SELECT oid FROM r) "
	"AND k.conrelid NOT IN (SELECT oid FROM r) AND (g.tgenabled = 'A' "
	"OR g.tgenabled = CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END) "
	"UNION SELECT a.oid, a.conparentid FROM k JOIN pg_catalog.pg_constraint a ON a.oid = k.above) "
	"SELECT c.conrelid::regclass, pg_catalog.quote_ident(c.conname), pg_catalog.pg_get_constraintdef(c.oid), c.confdeltype "
	"FROM k JOIN pg_catalog.pg_constraint c ON c.oid = k.oid WHERE k.above = 0 ORDER BY c.confdeltype IN ('c','n','d') DESC, 2";
enum { REFERENCE_TABLE, REFERENCE_NAME, REFERENCE_TEXT, REFERENCE_ACTION };

static const char *action_text(char action)
{
	return action == 'c' ? "deleted (ON DELETE CASCADE)" : action == 'n' ? "changed (ON DELETE SET NULL)" : "changed (ON DELETE SET DEFAULT)";
}

/* Also where the other table is loaded anew as well: which is first, nobody knows. */
int judge_references(const struct target_table *tb, const PGresult *res, const char *where, const char *rest, struct err *e)
{
	if (!PQntuples(res) || !strchr("cnd", PQgetvalue(res, 0, REFERENCE_ACTION)[0]))
		return 0;
	const char *other = PQgetvalue(res, 0, REFERENCE_TABLE), *name = PQgetvalue(res, 0, REFERENCE_NAME);
	err_set(e, DMSR_ESTATE, "target.referenced", "%s in %s is to be emptied for its load, and foreign key %s of %s refers to it: rows of %s would be %s",
		tb->sql, where, name, other, other, action_text(PQgetvalue(res, 0, REFERENCE_ACTION)[0]));
	return err_hint(e, "%s; or ALTER TABLE %s DROP CONSTRAINT %s, let the table be loaded, and then ALTER TABLE %s ADD CONSTRAINT %s %s", rest, other,
		name, other, name, PQgetvalue(res, 0, REFERENCE_TEXT));
}
