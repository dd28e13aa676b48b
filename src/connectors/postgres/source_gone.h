/* source_gone: tables that were the job's and are none of it any more: what became of them, said in a few words however many they are, and which columns they
 * had, because changes of theirs may come that are older than their end: the target's table stays, and none of its columns is to be taken for another. */
#ifndef DMSR_POSTGRES_SOURCE_GONE_H
#define DMSR_POSTGRES_SOURCE_GONE_H
#include "source_int.h"

enum gone_kind { GONE_DROPPED, GONE_RENAMED, GONE_UNLOGGED, GONE_UNMEANT, GONE_KINDS };
/* What is told of them: a few of each kind by name, the others by number. */
struct gone_notice {
	struct { struct buf names; unsigned n; } kinds[GONE_KINDS];
};
void gone_notice_init(struct gone_notice *g);
/* noted: the note "tables", which has its old name. */
void gone_notice_add_renamed(struct gone_notice *g, const struct map *noted, uint32_t id, const char *schema, const char *name);
void gone_notice_tell(struct gone_notice *g, const struct source *s);        /* and ends it */

/* At the start, on the SQL connection, when the tables are known: tells of those that the note "tables" has and the job has not. Then next. */
void source_gone(struct source *s, void (*next)(struct source *s));

/* What was noted of their columns; before anything is noted anew. noted: the note "tables". */
void source_gone_read(struct source *s, const struct map *noted);
/* The decoder's question: such a table, its columns as they were seen last, of which the names and numbers are right. NULL: it is none. Borrowed. */
struct relation *source_gone_rel(const struct source *s, uint32_t id);
const char *source_gone_at(const struct source *s, uint32_t id, uint64_t lsn);  /* history_at */
void source_gone_free(struct source *s);

#endif
