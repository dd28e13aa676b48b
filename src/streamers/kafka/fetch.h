/* fetch: the rows that an index (index.h) names, from the tables' topics, for one subscription; and batches of them, in order.
 *
 *   index -> [items] -> a round: all places of some items, partition by partition -> values -> decoded into the item's batch -> taken
 *
 * librdkafka can be told to read a partition from an offset on, and stop. So a round reads a few partitions at a time (LANES), in the order in which they are
 * needed, each from the first place that is wanted there to the last, and keeps what is wanted. That blocks: it runs on a thread, which has its own client. No
 * partition is read between rounds. Items wait in memory, by what their rows take: about as much as the option memory says, of which a round fetches a part.
 *
 * A place is lost when what stands there is another record, when something behind it comes without it, or when the partition begins behind it. One that is not
 * there yet is waited for: behind a transaction that somebody has open there for as long as it takes, behind the partition's end or without a topic for
 * LOST_MS, since who reads may hear later of what is acknowledged than who wrote. */
#ifndef DMSR_KAFKA_FETCH_H
#define DMSR_KAFKA_FETCH_H
#include "consume_int.h"
#include "index.h"

struct fetch;
int fetch_new(struct kafka *k, void (*fail)(void *arg, struct err *e), void *arg, struct fetch **out, struct err *e);
void fetch_free(struct fetch *f); /* NULL is fine */
void fetch_add(struct fetch *f, struct index *x /* taken */, const struct place *p);
bool fetch_pass(struct fetch *f, const struct place *p); /* a record that holds nothing, behind those that it has; false: it has none */
bool fetch_has_next(const struct fetch *f); /* fetch_take would do something */
bool fetch_is_full(const struct fetch *f);
bool fetch_is_empty(const struct fetch *f);
size_t fetch_bytes(const struct fetch *f);
/* The next batch, when it is there whole; NULL: k is woken when there may be more. */
struct batch *fetch_take(struct fetch *f, struct place *p);

#endif
