/* source_sql: questions and statements about publication, slot and replica identity, which the source and its probes share. Pure: text out, results
 * read. All names in it are quoted here. */
#ifndef DMSR_POSTGRES_SOURCE_SQL_H
#define DMSR_POSTGRES_SOURCE_SQL_H
#include "conn.h"

/* Default name of slot and publication: dmsr_<job>_<end of the uid>; of a job that is not there yet, dmsr_<job>. out: 64 bytes. */
void source_name(const struct dmsr_env *env, char out[64]);
/* 0, or DMSR_EINVAL ("source.slot-name"): no server takes it. NULL is fine. */
int slot_name_check(const char *name, struct err *e);
/* A copy that outlives the job's. table: the options that are in it. */
struct settings *pg_settings_copy(const struct settings *from, const struct dmsr_option *table);

/* ---- patterns without a table ---- */
/* A row for all that has such a name as a table has. Without parameters. */
enum { NAMED_SCHEMA, NAMED_NAME, NAMED_WHY /* why it is no table of a job; NULL: it may be one */ };
extern const char named_sql[];
/* Of a pattern of t's that means none of the job's tables, by named_sql's answer: a sentence, freed by the caller. NULL: what it means is there, and was left
 * out on purpose. */
char *pattern_problem(const char *pattern, const struct dmsr_tables *t, const PGresult *named);
/* Of one that leaves tables out: that there is none of that name. Only of one without wildcards, which may be about what is to come. */
bool exclude_names_one(const char *pattern);
char *exclude_problem(const char *pattern, const PGresult *named);

/* ---- publication ---- */
/* One row, or none when it is not there; $1: its name. */
enum { PUB_OPERATIONS /* four of t and f: insert update delete truncate */, PUB_VIA_ROOT /* t or f; NULL before 13 */,
	PUB_ROW /* "OID WRITTEN OWNER": which one it is, the transaction that wrote its row last, whose it is */,
	PUB_GENERATED /* are generated columns published, where they are stored? NULL before 18 */ };
const char *publication_sql(int version);
/* There is none called `name`: the one that was meant, among those of the answer to publication_names_sql, or NULL; borrowed from res. */
extern const char publication_names_sql[];
const char *publication_near(const char *name, const PGresult *res);
/* Of two PUB_ROW: it is the same, and was not altered since, but that it may have got another owner. */
bool publication_is_same(const char *was, const char *is);
/* A row a table; $1: the publication's name. */
enum { PUBTAB_SCHEMA, PUBTAB_NAME, PUBTAB_FILTER /* NULL: all rows and columns are published */ };
const char *publication_tables_sql(int version);
/* Of publication_tables_sql's rows; freed by map_free. */
struct map *publication_set(const PGresult *tables);
bool publication_holds(const struct map *set, const struct relation *rel);
void publication_create_sql(struct buf *out, const char *name, struct relation *const *rels, size_t n, int version);
/* ALTER PUBLICATION ... SET: all kinds of changes. */
void publication_publish_sql(struct buf *out, const char *name);
/* ALTER PUBLICATION ... ADD TABLE what is not in the set. Returns how many; 0: out is no statement. */
size_t publication_add_sql(struct buf *out, const char *name, struct relation *const *rels, size_t n, const struct map *set);

/* ---- slot ---- */
/* One row, or none. Without parameters, so that a replication connection can ask it. LOST: the server's reason, NULL: it is good. */
enum { SLOT_TYPE, SLOT_PLUGIN, SLOT_DATABASE /* t: this one */, SLOT_PID /* NULL: nobody reads it */, SLOT_CONFIRMED, SLOT_LOST, SLOT_APPLICATION };
void slot_sql(struct buf *out, int version, const char *slot);

struct slot_note {              /* the note "slot": "creating NAME", "made NAME LSN SYSTEM TIMELINE" */
	bool is_made, is_there;
	char name[64];
	uint64_t lsn, system;
	uint32_t timeline;
};
int slot_note_parse(const char *text, struct slot_note *out);  /* NULL: not there; 0 or -1 */

/* ---- replica identity ---- */
/* What the server sends of an old row is ruled by the replica identity of the table that holds it: with partitions, each leaf's own; but how it says so is
 * ruled by the root's. A row a table or leaf where that goes wrong, none when all is well. $1: array of oids. */
enum {
	IDENTITY_SCHEMA, IDENTITY_NAME,
	IDENTITY_OWN, IDENTITY_WANT,    /* relreplident as it is, as it should be */
	IDENTITY_IS_GOOD,               /* old rows are sent; else the server refuses updates and deletes once the table is published */
	IDENTITY_IS_SAME,               /* as the root's */
	IDENTITY_INDEX,                 /* one that would do; may be NULL */
	IDENTITY_ROOT,                  /* which of $1 it is, or a leaf of */
	IDENTITY_ROOT_HAS_PRIMARY,      /* one that serves */
};
extern const char identity_sql[];
/* What is wrong, as a piece of a sentence, and the statement that mends it. */
const char *identity_problem(const PGresult *res, int row);
void identity_fix(const PGresult *res, int row, struct buf *out); /* left empty: there is none */
/* How many of the tables have a replica identity with generated columns. $1: array of oids. */
extern const char identity_generated_sql[];
/* "{1,2,3}" */
void relations_oids(struct buf *out, struct relation *const *rels, size_t n);

#endif
