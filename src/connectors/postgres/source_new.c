/* source_new: tables that came since the last run, and that cannot be taken up: the server would not say which rows change, the publication lacks them and is
 * not ours to alter, or the role may not read them. In comes what the server says of them; out go words, and a run without them.
 *
 * A job that is to begin is refused for each of these reasons, so that somebody decides. One that is under way is not ended by a table that came new: who made
 * it need not know of the job, and the others would not be followed any more. So it stays new, and each start judges it again. */
#include "source_int.h"
#include <stdlib.h>
#include <string.h>

static bool is_begun(const struct source *s)
{
	struct slot_note slot;
	return !slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &slot) && slot.is_made;
}

/* ---- without a replica identity ---- */

static void leave_out_keyless(struct source *s, const PGresult *res, int row)
{
	struct buf fix;
	uint32_t id = catalog_oid(res, row, IDENTITY_ROOT);
	buf_init(&fix, 400);
	identity_fix(res, row, &fix);
	bool has_fix = fix.len && buf_ok(&fix);
	const struct relation *rel = source_find_rel(s, id);
	source_tell(s, "table %s.%s is left out: %s. To take it up give it one, then start the job again: %s", rel->schema, rel->name,
		identity_problem(res, row), has_fix ? buf_cstr(&fix) : "a primary key");
	buf_fini(&fix);
	source_leave_out(s, id);
}

/* A partition has not its root's identity unless somebody gives it that. The server sends of its old rows what its own one says, in the name of the root.
 * That is enough where it is all of the row, or the primary key, if the root has that too and says nothing of another; or the server refuses the change.
 * Else the targets would be given changes without a key. */
static bool is_leaf_that_will_do(const PGresult *res, int row, const struct relation *root)
{
	bool is_root = !strcmp(PQgetvalue(res, row, IDENTITY_SCHEMA), root->schema) && !strcmp(PQgetvalue(res, row, IDENTITY_NAME), root->name);
	bool is_good = *PQgetvalue(res, row, IDENTITY_IS_GOOD) == 't';
	char own = *PQgetvalue(res, row, IDENTITY_OWN), root_has = *PQgetvalue(res, row, IDENTITY_WANT);
	bool is_key = own == 'd' && root_has == 'f' && *PQgetvalue(res, row, IDENTITY_ROOT_HAS_PRIMARY) == 't';
	return !is_root && (!is_good || own == 'f' || is_key);
}

static void tell_of_leaf(const struct source *s, const PGresult *res, int row, const struct relation *root)
{
	struct buf fix;
	buf_init(&fix, 400);
	identity_fix(res, row, &fix);
	bool has_fix = fix.len && buf_ok(&fix);
	const char *but = *PQgetvalue(res, row, IDENTITY_IS_GOOD) != 't' ? ", but the server refuses to update and delete its rows" :
		*PQgetvalue(res, row, IDENTITY_OWN) == 'f'               ? "" :
									   ", but of its old rows nothing but the key is sent";
	source_tell(s, "partition %s.%s of table %s.%s: %s. It is followed%s. To mend it: %s", PQgetvalue(res, row, IDENTITY_SCHEMA),
		PQgetvalue(res, row, IDENTITY_NAME), root->schema, root->name, identity_problem(res, row), but,
		has_fix ? buf_cstr(&fix) : "give it a primary key");
	buf_fini(&fix);
}

int source_new_keyless(struct source *s, const PGresult *res, int *first)
{
	struct map *ids = source_noted_ids(s);
	int left = 0;
	bool begun = is_begun(s);
	struct map *keyless = map_new();
	for (int i = 0; i < PQntuples(res); i++) {
		const struct relation *rel = source_find_rel(s, catalog_oid(res, i, IDENTITY_ROOT));
		if (rel && (source_is_new(s, ids, rel) || !is_leaf_that_will_do(res, i, rel)))
			map_put_u32(keyless, rel->id, s);
	}
	/* Where none would be left there is nothing that must go on: it is refused. */
	bool may_leave = begun && map_size(keyless) < s->nrels;
	map_free(keyless);
	for (int i = 0; i < PQntuples(res); i++) {
		const struct relation *rel = source_find_rel(s, catalog_oid(res, i, IDENTITY_ROOT));
		bool is_new = rel && source_is_new(s, ids, rel);
		if (rel && begun && !is_new && is_leaf_that_will_do(res, i, rel))
			tell_of_leaf(s, res, i, rel);
		else if (rel && may_leave && is_new)
			leave_out_keyless(s, res, i);
		else if (rel && !left++)
			*first = i;
	}
	map_free(ids);
	return left;
}

/* ---- not published, not to be read ---- */

void source_new_ask(struct source *s, const char *oids, pgconn_done *done)
{
	const char *values[] = { oids, s->publication };
	pgconn_query_params(s->sql, "SELECT c.oid, n.nspname, c.relname, (n.nspname, c.relname) IN"
			" (SELECT t.schemaname, t.tablename FROM pg_catalog.pg_publication_tables t WHERE t.pubname = $2),"
			" pg_catalog.pg_has_role(c.relowner, 'USAGE'),"
			" pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),"
			" pg_catalog.row_security_active(c.oid)"
			" FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
			" WHERE c.oid = ANY ($1::pg_catalog.oid[]) ORDER BY 2, 3",
		2, values, done, s);
}

enum obstacle {
	IS_UNPUBLISHED = 1,     /* and its publication's owner must add it */
	IS_ANOTHERS = 2,        /* and the job may not add it to its own publication */
	IS_UNREADABLE = 4,
	IS_HIDDEN = 8,
};

static unsigned obstacles(const struct source *s, const PGresult *res, int row)
{
	bool is_own = source_has_own_publication(s), is_published = *PQgetvalue(res, row, NEW_IS_PUBLISHED) == 't';
	unsigned out = 0;
	if (!is_published && !is_own)
		out |= IS_UNPUBLISHED;
	if (!is_published && is_own && *PQgetvalue(res, row, NEW_IS_OURS) != 't')
		out |= IS_ANOTHERS;
	if (s->mode & DMSR_FULL_LOAD && *PQgetvalue(res, row, NEW_IS_READABLE) != 't')
		out |= IS_UNREADABLE;
	else if (s->mode & DMSR_FULL_LOAD && *PQgetvalue(res, row, NEW_IS_HIDDEN) == 't')
		out |= IS_HIDDEN;
	return out;
}

static void add_sql(const struct source *s, struct buf *out, const char *schema, const char *name)
{
	buf_str(out, "ALTER PUBLICATION ");
	sql_ident(out, s->publication);
	buf_str(out, " ADD TABLE ONLY ");
	sql_qualified(out, schema, name);
}

bool source_new_obstacle(const struct source *s, const PGresult *res, int row, struct buf *out)
{
	const char *schema = PQgetvalue(res, row, NEW_SCHEMA), *name = PQgetvalue(res, row, NEW_NAME), *user = settings_str(s->settings, "user");
	unsigned all = obstacles(s, res, row), publication = all & (IS_UNPUBLISHED | IS_ANOTHERS), rest = all & (IS_UNREADABLE | IS_HIDDEN);
	if (!all)
		return false;
	if (publication)
		buf_printf(out, "publication \"%s\" does not hold it", s->publication);
	if (all & IS_ANOTHERS)
		buf_printf(out, ", and role %s, who does not own it, may not add it", user);
	if (rest)
		buf_printf(out, "%srole %s may not read %s", publication ? ", and " : "", user,
			all & IS_HIDDEN ? "those of its rows that row security hides" : "it");
	buf_str(out, ". To take it up run this, then start the job again: ");
	if (all & IS_UNPUBLISHED)
		add_sql(s, out, schema, name);
	if (all & IS_ANOTHERS)
		right_sql(out, RIGHT_OWN, s->settings, schema, name);
	if (rest) {
		buf_str(out, publication ? "; " : "");
		right_sql(out, all & IS_HIDDEN ? RIGHT_ALL_ROWS : RIGHT_READ, s->settings, schema, name);
	}
	if (all & IS_ANOTHERS) {
		buf_str(out, "; or, instead of giving it another owner, let a superuser run ");
		add_sql(s, out, schema, name);
	}
	return true;
}

static void leave_out(struct source *s, const PGresult *res, int row)
{
	struct buf why;
	buf_init(&why, SIZE_MAX);
	if (source_new_obstacle(s, res, row, &why)) {
		source_tell(s, "table %s.%s is left out: it is new, and %s", PQgetvalue(res, row, NEW_SCHEMA), PQgetvalue(res, row, NEW_NAME), buf_cstr(&why));
		source_leave_out(s, catalog_oid(res, row, NEW_OID));
	}
	buf_fini(&why);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct source *s = arg;
	struct err gone = { 0 };
	s->catalog = NULL;
	if (e) {
		source_fail(s, e);
		return;
	}
	bool is_same = n == s->nrels;
	source_set_rels(s, rels, n);
	if (is_same) {
		s->new_judged(s);
		return;
	}
	err_retry(&gone, DMSR_ESTATE, "source.changed", "a table was dropped or renamed while the tables were looked at");
	source_fail(s, &gone);
}

static void on_parts(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++)
		map_put_u32(s->left_out, catalog_oid(res, i, 0), s);
	/* The others' foreign keys must not lead to a table that the targets do not get. */
	s->catalog = catalog_read(s->sql, s->tables, !s->load_done, s->leaves, on_catalog, s);
	catalog_only(s->catalog, &s->rel_by_id);
}

static void add_oid(void *arg, const void *key, size_t n, void *value)
{
	struct buf *oids = arg;
	(void)n;
	(void)value;
	buf_printf(oids, "%s%u", oids->len ? "," : "{", (unsigned)*(const uint32_t *)key);
}

/* What is left out goes with its partitions: they may be published without it, and changes of theirs are sent as their own. */
static void judged(struct source *s)
{
	struct buf oids;
	if (!s->left_out) {
		s->new_judged(s);
		return;
	}
	buf_init(&oids, SIZE_MAX);
	map_each(s->left_out, add_oid, &oids);
	buf_byte(&oids, '}');
	const char *values[] = { buf_cstr(&oids) };
	pgconn_query_params(s->sql, "SELECT p.relid::pg_catalog.oid FROM pg_catalog.unnest($1::pg_catalog.oid[]) o, pg_catalog.pg_partition_tree(o) p",
		1, values, on_parts, s);
	buf_fini(&oids);
}

static void on_new(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	size_t n = 0;
	if (e) {
		source_fail(s, e);
		return;
	}
	for (int i = 0; i < PQntuples(res); i++)
		n += obstacles(s, res, i) != 0;
	/* Where none would be left there is nothing that must go on: it is refused. */
	bool has_others = n < s->nrels;
	for (int i = 0; i < PQntuples(res) && has_others; i++)
		leave_out(s, res, i);
	judged(s);
}

void source_new(struct source *s, void (*next)(struct source *s))
{
	struct buf oids;
	struct map *ids = source_noted_ids(s);
	buf_init(&oids, SIZE_MAX);
	for (size_t i = 0; i < s->nrels; i++)
		if (source_is_new(s, ids, s->rels[i]))
			buf_printf(&oids, "%s%u", oids.len ? "," : "{", (unsigned)s->rels[i]->id);
	map_free(ids);
	s->new_judged = next;
	if (oids.len && is_begun(s)) {
		buf_byte(&oids, '}');
		source_new_ask(s, buf_cstr(&oids), on_new);
	} else {
		judged(s);
	}
	buf_fini(&oids);
}
