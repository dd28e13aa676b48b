/* target_catch: a table whose parts are of several snapshots, on its way to be what the source had at the newest of them. Pure.
 *
 * A load that was killed goes on with the parts that are missing, in a later snapshot. Each row is then as it was at its part's snapshot, s, between
 * the oldest, S, and the newest, L; and all changes of [S, L) come by the stream, those too that a row has already. They are applied one after another,
 * with these rules:
 *
 *   insert                  the row of that key goes, if there is one; the new one is put there
 *   update                  of a row that is not there: nothing
 *   update that moves a key both rows go, of the old key and of the new one, if they are there; the new one is put there
 *   delete                  of a row that is not there: nothing
 *
 * At L that is exact. The last insert, move or truncation in [S, L) that a key met decides, for it does not look at what was there; what follows it is
 * the same as at the source. A key that met none is there at S and up to its delete, if it has one: the updates that find it are repeated, or come;
 * values that they do not bring (TOAST that is unchanged) are at s what they are at L, but for updates that bring them. An update that does not find it
 * came before a delete, or a move away, that its part has seen already: so nothing is right.
 *
 * Where parts are no ranges of the key, but of the place on disk (rows_move), a row that is updated may be in two of them, and the one that was read last took
 * the place of the other: its age is no matter, by what was said. Or it is in none. Then there is one more rule:
 *
 *   update that has all     the row of that key goes, if there is one; the new one is put there: it decides, as an insert does
 *   values
 *   another update          of a row that is not there: the table must be loaded again
 *
 * A key that met nothing which decides, and no update, lies where it lay at S, and so in one part. One that met updates alone, which left values out, is found
 * by each, or by none: and then the first tells. (It may tell for nothing, of a row that its part does not have because it was deleted before that was read.)
 *
 * It needs a key that nobody else has, at any moment: the whole old row (replica identity full) comes also where the key is deferrable, or was away for a
 * while, and may be that of two rows until its statement, or transaction, ends. And it needs whole rows: a move that leaves values out could take them from
 * neither row (each may be another row by now), and rows that have no primary key cannot be told apart. Then the table has to be loaded again. */
#ifndef DMSR_POSTGRES_TARGET_CATCH_H
#define DMSR_POSTGRES_TARGET_CATCH_H
#include "dmsr.h"

enum { CATCH_MAX = 3 };
/* What to apply for a row change, in order, each whether it finds its row or not, but for an update where rows_move; values are borrowed from ch. Returns how
 * many; 0: the table must be loaded again. */
unsigned catch_plan(const struct change *ch, bool rows_move, struct change out[CATCH_MAX]);
bool catch_moves_key(const struct change *ch);

#endif
