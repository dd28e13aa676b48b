/* source_mark: what a table is like at the server, in ways of which the stream says nothing: what publishes it, which files its rows lie in, which columns
 * it has, by number. A text, made by one question; two of them, from before and from now, tell what happened in between. Pure.
 *
 *   "PUBLISHED/FILES/COLUMNS/TYPES"
 *   PUBLISHED  what publishes it, as it was written last: "r16390:754,n16412:755,a16389"; "-": nothing
 *   FILES      each leaf, or the table itself: "oid:file:born:log:toast:way"; born 1: it was made as a partition, so it was empty when it came; log 2: it
 *              is UNLOGGED, 1: it cannot be, 0: it could; the oid of the table of its long values; since when it is where it is among the partitions. (Only
 *              the first three in notes of before.)
 *   COLUMNS    "number:name:type:modifier:default:written:missing:generated", the name in hex, the oid of its default, the transaction that wrote the
 *              column's row last, whether older rows have a value that is kept apart (attmissingval), whether it is generated. (Without the last, and
 *              without those that are generated, and the name hashed, in notes of before.)
 *   TYPES      "lOID:HASH" each label of its enums; "tOID:HASH" its composite types. ("e", "c" and other hashes in notes of before, which are compared
 *              with nothing; and none.)
 *
 * A table that is written anew has other files; VACUUM FULL, CLUSTER and TRUNCATE do that too, and change no row that is left. What changes rows alters a
 * column in the same breath. But ALTER TABLE to UNLOGGED and back, of what was written in between there is no log: it makes the table of the long values anew,
 * too, and no more than VACUUM FULL where there is none. */
#ifndef DMSR_POSTGRES_SOURCE_MARK_H
#define DMSR_POSTGRES_SOURCE_MARK_H
#include "dmsr.h"

/* One row a table: its oid, its mark, the server's newest LSN, which is not before what the mark shows. $1: an array of oids; $2: the publication's name. */
enum { MARK_OID, MARK_TEXT, MARK_LSN };
const char *mark_sql(int version);
/* One row: another one when anything of that may have changed for any table, or tables came or went. ANY_COLUMNS changes with columns of any table, also of
 * temporary ones. $1: the publication's name. */
enum { ANY_TEXT, ANY_COLUMNS };
const char *mark_any_sql(int version);
/* One row, one text: another one when columns of those tables, or attributes of a composite type, may have changed. $1: an array of oids. */
extern const char mark_columns_sql[];

struct mark_diff {
	bool is_other;                  /* in any way */
	bool is_unpublished;            /* nothing of what published it then publishes it now: changes were not sent, at least for a while */
	bool is_rewritten;              /* its rows got values that the stream does not carry */
	bool is_made_again;             /* a column was dropped, and another one looks the same; or the columns are others, by names that were there before */
	bool is_ungenerated;            /* a generated column is a plain one now: its values are those that it had, which were never sent */
	bool is_recomputed;             /* a generated column has another expression (17), which the stream does not carry */
	bool is_relogged;               /* it, or a partition, was UNLOGGED and is no more, or was altered as if */
	bool is_unlogged_now;           /* it, or a partition, is UNLOGGED and was not */
	bool is_relabelled;             /* a label of an enum has another name: so have the rows that have it, which the stream does not carry */
	bool is_reshaped;               /* a composite type of its columns has other attributes */
	unsigned attached, gone;        /* partitions that came with rows of their own, that went with theirs; who did both counts as attached */
	unsigned refiled;               /* partitions, or it itself, that may have been UNLOGGED in between; partitions that may have been TRUNCATEd alone */
	unsigned emptied;               /* partitions, if none stayed as it was, that may have been TRUNCATEd: one by one, or with the table */
};
/* Of texts that cannot be read: is_other, and nothing else. */
void mark_compare(const char *was, const char *is, struct mark_diff *out);
/* May a load whose parts are ranges of the primary key, or partitions, and to which all changes come, go on? What is other does no harm then: new files, as
 * VACUUM FULL, CLUSTER and TRUNCATE make them, partitions that were empty when they came, defaults, settings of columns. */
bool mark_keeps_parts(const char *was, const char *is);
unsigned mark_unlogged(const char *mark);       /* how many partitions are UNLOGGED, or is it itself */
/* The numbers and names of the columns, as those of that relation; nothing else of them is right. NULL: the mark does not tell. */
struct relation *mark_shape(const char *mark, const struct relation *of);

#endif
