/* source_history: what each table was like (source_mark.h) whenever that was looked at. The newest mark tells what is missed by the stream; those before it
 * tell which columns a change has that was written before the look, and is read after it, perhaps by another run. Pure.
 *
 *   M1 until L1, M2 until L2, M3: M1 was seen first; by L1 it was M2, by L2 M3. At L1 or later it is M1 no more.
 *
 * As text, in a note: "M3 L1@M1 L2@M2". */
#ifndef DMSR_POSTGRES_SOURCE_HISTORY_H
#define DMSR_POSTGRES_SOURCE_HISTORY_H
#include "dmsr.h"

struct history;         /* of all tables, by oid */
struct history *history_new(void);
void history_free(struct history *h);           /* NULL is fine */

/* lsn: the server's newest when that was seen. */
void history_saw(struct history *h, uint32_t id, const char *mark, uint64_t lsn);
/* Its rows are those of a snapshot where it was so: no change of before comes. */
void history_loaded(struct history *h, uint32_t id, const char *mark);

const char *history_newest(const struct history *h, uint32_t id);       /* NULL: it was not there when that was looked at */
/* The oldest that a change of a transaction with that commit LSN may have; NULL: nothing tells. The newest only if the table was
 * loaded since, or another one was seen before it. */
const char *history_at(const struct history *h, uint32_t id, uint64_t lsn);

/* What no change behind `passed` can have is forgotten, here and in the text; nothing, if there is none. */
void history_write(struct history *h, uint32_t id, uint64_t passed, struct buf *out);
/* Such a text; what of it cannot be read is not there. */
void history_read(struct history *h, uint32_t id, const char *text);

#endif
