/* words: what the writer of an index (index.h) keeps of a batch until all its rows are acknowledged: the words in it, and where its rows stand. Then they go
 * into {prefix}.__words, one batch behind another, and the batch is delivered when that is acknowledged, too.
 *
 * Where the report of a row does not say where it stands, the run ends, and the next one sends the row again: the broker had it already, from an attempt whose
 * answer was lost. */
#ifndef DMSR_KAFKA_WORDS_H
#define DMSR_KAFKA_WORDS_H
#include "kafka.h"

/* A record with a row of ch, of the table at hand, is sent; returns whose it is. bytes: of its value. */
struct sent *words_row(struct kafka *k, struct flight *f, const struct change *ch, size_t bytes, bool is_old);
bool words_keep(struct kafka *k, struct flight *f); /* all rows are sent, and f's batch may go; false: failed */
void words_acknowledged(struct kafka *k, struct sent *s, const rd_kafka_message_t *m, int64_t offset);
void words_turn(struct kafka *k);
bool words_are_due(const struct kafka *k); /* of what was begun some is not sent */
void words_drop(struct flight *f); /* of none is fine */

#endif
