/* rights: what a role must be allowed, as the statements that allow it: for preflight's findings and for a job's errors alike. Pure. */
#ifndef DMSR_POSTGRES_RIGHTS_H
#define DMSR_POSTGRES_RIGHTS_H
#include "dmsr.h"

enum right {
	RIGHT_DATABASE,         /* to make schemas and publications */
	RIGHT_SCHEMA,           /* to make things in it */
	RIGHT_READ,             /* a table */
	RIGHT_WRITE,
	RIGHT_EMPTY,            /* and to truncate it */
	RIGHT_OWN,              /* to alter or drop it */
	RIGHT_SEQUENCES,        /* of a schema, to set their values */
	RIGHT_POSITIONS,        /* the job's own memory */
	RIGHT_SET_ROLE,         /* session_replication_role, from 15 on */
	RIGHT_SUPERUSER,
	RIGHT_REPLICATION,
	RIGHT_ALL_ROWS,         /* those that row security hides too */
	RIGHT_NOT_READ_ONLY,    /* whatever the database or the server says: nothing but the session itself counts for more */
};
/* Of the settings' user, in their database. schema and name as far as the right is about them; else NULL. */
void right_sql(struct buf *out, enum right r, const struct settings *s, const char *schema, const char *name);
/* The same as the hint of an error that says that a right is missing, or that row security may hide rows; others are left as they are. */
void right_hint(struct err *e, enum right r, const struct settings *s, const char *schema, const char *name);

/* Before a statement that takes something away for good: a comment, so that whoever copies it or runs it has that before his eyes. No name of the world's
 * is in it: one with an end of a comment in it would end it. */
#define DESTROYS(what) "/* this destroys " what " */ "

/* What lets foreign keys and triggers rest while rows are written. */
void right_rest_sql(struct buf *out, const struct settings *s, int version);

#endif
