/* consume_int: a subscription: what the broker's records become (consume.c), and what of that is with its target (lend.c). */
#ifndef DMSR_KAFKA_CONSUME_INT_H
#define DMSR_KAFKA_CONSUME_INT_H
#include "kafka.h"

/* A record of the stream: what a note says of it. */
struct place {
	int64_t offset;
	int64_t ts_ms;                  /* when it was written: two topics of one name differ in it */
	struct position at;
};

struct lent {
	struct lent *next;
	uint64_t token;
	struct place place;             /* the newest that is done when this one is */
	struct position end;            /* of a reader: of its batch; NONE: a load's */
	struct batch *b;                /* NULL: consumed */
};

/* A load that a target has. */
struct has {
	char *schema, *name;
	uint64_t lsn;
};

struct dmsr_subscription {
	struct kafka *k;
	struct dmsr_subscription *next;
	char *name;                     /* of the target; NULL: the scout */
	int64_t first_end;              /* the scout's: where the topic ended when something of it came first; 0: not known */
	struct dmsr_consumer c;
	enum dmsr_verdict (*take)(void *ctx, struct batch *b); /* of a reader; NULL: batches are lent */
	bool is_at_end;
	/* of a reader that begins at the stream's end: it looks for the newest position before that; so many records back */
	bool is_seeking;
	int64_t back;
	bool from_begin;                /* of a reader: whatever was noted, for its targets are to hear of all tables */
	bool must_reach;                /* the position where it goes on, whose place it does not know */
	const struct topic *topic;      /* that it reads */
	struct client *client;
	rd_kafka_topic_t *rkt;
	struct port *port;
	size_t taken_bytes, taken;      /* of records, since the client was told that it has room */

	struct has *has;
	size_t nhas;
	struct position reached;        /* changes up to here are its already */
	struct position confirmed;      /* of a reader */
	uint64_t load_run;              /* of the loads that it was given the begin of, and not the end; 0: none */
	unsigned nloads;                /* so many of them, at most */
	bool is_waiting;                /* said AGAIN, and not for a note that is to be durable first */
	bool has_more;                  /* something may have come since it was told drained */

	bool has_nothing;
	struct place done;              /* all up to this one is applied; offset -1: nothing */
	bool is_checked, is_saved;
	bool has_read;                  /* in this run, since it knows where the stream ends */
	bool must_begin;                /* once more, behind the noted record */
	int64_t next_offset;            /* behind the newest record read */

	struct batch *held;             /* read, not taken */
	struct place held_place;
	struct buf parts;
	uint32_t nparts, of_parts;      /* joined so far; 0: none */
	uint64_t run, nth;              /* the newest seen, and its newest record; 0: none */

	/* codec json */
	struct rebuild *rebuild;        /* NULL: records are batches */
	struct batch *word;             /* read, behind what is being rebuilt */
	struct place whole;             /* the newest record, word's not, behind which nothing is open; offset -1: none yet */
	struct place word_place;        /* the same behind word */
	rd_kafka_event_t *stuck;        /* a record that cannot be taken yet */
	const rd_kafka_message_t *stuck_message;
	bool waits_for_shape;
	uint64_t stuck_since_us;

	struct fetch *fetch;            /* of an indexed stream: what it names; NULL: it is none */

	struct lent *first, *last;
	uint64_t token;                 /* of the newest */
	size_t bytes;                   /* held and lent */
	bool is_over;                   /* so much was lent, and half of that is not free yet */
	bool is_told;                   /* to let go, and neither took nor gave back anything since */
};

void consume_fail(struct dmsr_subscription *s, struct err *e);

/* seek.c */
enum { SEEK_BACK = 64 };                                                /* so many records before the end are looked at first */
bool seek_sees(struct dmsr_subscription *s, const rd_kafka_message_t *m, const struct stamp *t, bool is_foreign); /* false: it is behind the end */
void seek_ends(struct dmsr_subscription *s);                            /* the end was reached */
bool seek_reaches(struct dmsr_subscription *s, const struct position *first); /* the first change that is there is not behind where it goes on; false: failed */

/* lend.c */
void lend_held(struct dmsr_subscription *s);                            /* to the target, or back to held: it waits */
bool lend_is_over(struct dmsr_subscription *s);                         /* rule 7: nothing more is lent for now */
void lend_hold_back(struct dmsr_subscription *s);                       /* then: asks the target to let go */
void lend_void_loads(struct dmsr_subscription *s);
void lend_read_note(struct dmsr_subscription *s);                       /* where it stands: s->done */
void lend_done(struct dmsr_subscription *s, const struct place *p);
void lend_pass(struct dmsr_subscription *s, const struct place *p);     /* a record that holds nothing for it */

#endif
