/* kafka: the streamer on an Apache Kafka broker, by librdkafka.
 *
 * What a job sends goes into topics below its prefix, in one of two layouts, or in both:
 *
 *   ordered   {prefix}.__stream, one partition: everything, in the order of commits, with the words about the load. Targets read this one.
 *   table     {prefix}.{schema}.{table}: a record for each row change, key = the row's key. For consumers that are not DMSR. Where the job has targets, and
 *             load is direct, {prefix}.__words says in the order of commits where the rows stand (index.h): targets read that, and fetch the rows.
 *
 * {prefix}.__schemas says which shape a fingerprint in a header names, {prefix}.__transactions (an option, transactions.c) where transactions begin and end.
 *
 *   produce -> [fifo] -> records -> [gate] -> librdkafka -> broker -> delivery reports -> delivered      (a batch, when all its records are acknowledged)
 *   broker -> librdkafka -> [a subscription] -> deliver -> commit -> where it stands (a note)
 *
 * The rules
 *  1. With codec json a record of the stream is a change (ordered.c, rebuild.c). With codec native it is a batch (its lossless bytes, model/batch_pack.c), or,
 *     where that is bigger than a record may be, several records that stand one behind another: header dmsr-part "2/3". Header dmsr-pos says which position
 *     is behind it.
 *  2. Once on the broker is once for the source: delivered follows acks=all, nothing else. Order comes from the idempotent producer: a fatal error of it ends
 *     the run, and the next one begins at what was stored.
 *  3. What is sent twice, after a crash, stands in the stream twice. Who reads takes out what is behind it: changes by their position; a load of a table
 *     that is there by that snapshot or a later one. What a producer that is gone had under way may come late, between what the next one sends: each says
 *     which run it is (header dmsr-run: "RUN N JOB"; RUN rises), and who has seen a newer one passes over it: it was not acknowledged, so it is sent again.
 *     That goes for the runs of one job: another's are told from them by JOB (foreign.c).
 *  4. A subscription begins behind the record whose end its target has applied (note "at.TARGET": offset and position), or where this job's part of the
 *     stream begins (note "begin"). It reads the record at the noted offset again first: is that one not the same, then the topic is not the same.
 *  5. Notes of targets may be older than the truth, never newer: what a target has already it gets again, and rule 3 takes it out. That of the stream's end
 *     (note "end") covers whatever was told delivered: it is stored first.
 *  6. Nothing jumps: an offset that is not there any more (retention), a stream that ends before what was delivered (a broker without its unflushed
 *     log, a topic made anew) is an error with a code. A run counts its records in the stream (header dmsr-run), and who reads counts along: where one is
 *     missing it reads once more from where its target stands, and fails when it is missing again. Nothing goes behind a run's first record before that is
 *     acknowledged: of a producer that is new to it a broker takes any record for the first, also one that was sent behind one that it refused.
 *  7. Memory is bounded: what waits for acknowledgement (option memory), and for each target what was fetched and what it holds (the same).
 *  8. With exactly_once all records go in Kafka's transactions (exact.c), many of the source's in one. One ends where a transaction of the source and a table
 *     of the load are whole, unless that takes half of what the broker grants (transaction_timeout): then behind any batch, and a load that is cut off there
 *     is seen twice in part. Its last record says in {prefix}.__positions (known.c) which position is behind it, and which tables it has loaded. Delivered
 *     follows the commit.
 *  9. transactional.id is the job's uid. Who begins makes the broker abort what the one before left open, and refuse that one from then on (fenced). Then it
 *     reads __positions, and tells it (known): the source goes on there. Its note moves when the state store has what it stands for (stored). So a crash
 *     between any two of commit, note and store neither loses nor doubles. A process that has run the job before, and finds there what a later run than its
 *     own has committed, was replaced, and does not take it back.
 * 10. A record that names a shape goes when that is acknowledged. Each topic has an order of its own: were both sent at once, a crash could leave the record
 *     without its shape, whoever reads would wait for it, and hold up what could bring it.
 * 11. A table's topic that ends before where it went (deleted, made anew, a broker without its unflushed log) is an error with a code until its table is loaded
 *     again, and a key stays in its partition when others are added (extent.c).
 * 12. librdkafka gets of each topic no more than it can send, or will be able to before linger is over (gate.c). Nothing passes what waits for that. Where much
 *     waits, batches are not encoded. What librdkafka gets it does not copy: it reads a flight's memory, which is freed when all of it is acknowledged, or when
 *     librdkafka's threads are gone.
 *
 *   NEW -> STARTING -> RUNNING -> STOPPED         any but STOPPED -> DEAD         NEW, STARTING -> STOPPED too
 *
 * librdkafka's threads never call us: everything comes through its queues, whose descriptors wake the loop (port.c). Its handles are destroyed on a thread
 * of their own, since that waits for its threads. */
#ifndef DMSR_KAFKA_H
#define DMSR_KAFKA_H
#include "dmsr.h"
#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

enum { KAFKA_SLICE_US = 1000, RECORD_MARGIN = 65536 /* of a record, above record_bytes: headers, and what Kafka adds */ };
enum { KAFKA_QUEUED_MAX = 100000 };      /* records that a consumer may have fetched ahead, beside the option memory */

/* ---- options.c ---- */
extern const struct dmsr_option kafka_options[], kafka_source_options[];
/* For a producer or a consumer, all that both share; NULL: e is set. */
rd_kafka_conf_t *kafka_conf(const struct settings *s, const char *job, rd_kafka_type_t type, struct err *e);
/* What a producer with transactions needs beside; uid: the job's. */
int kafka_conf_exact(rd_kafka_conf_t *conf, const struct settings *s, const char *uid, struct err *e);
const char *kafka_unused_password(const struct settings *s);    /* one is given, and security is such that nobody is sent it: a sentence; else NULL */
void kafka_conf_rows(rd_kafka_conf_t *conf); /* a consumer that fetches rows here and there (fetch.h) */
/* Why rd_kafka_new made none of conf, which it leaves; returns e->code. */
int kafka_no_client(struct err *e, const rd_kafka_conf_t *conf, const char *why);
/* What Kafka does not allow becomes _xHH. schema NULL: the prefix alone. */
char *kafka_topic_name(const char *prefix, const char *schema, const char *table);

/* ---- errors.c ---- */
/* what: "topic shop.__stream", or NULL */
void kafka_error(struct err *e, rd_kafka_resp_err_t code, const char *what, const char *text);
enum { ADDRESS_MAX = 160 };
/* The address in librdkafka's text about a connection, when a broker has named it (advertised.listeners) and bootstrap_servers do not. */
bool kafka_advertised(const char *text, const char *bootstrap_servers, char out[ADDRESS_MAX]);
void kafka_not_there(struct err *e, const char *bootstrap_servers, const char *advertised, const char *why);

/* ---- port.c: one of librdkafka's queues on the loop ---- */
struct port;
/* event is called for what the queue has, some at a time; it is the callee's to destroy. */
struct port *port_new(struct loop *l, rd_kafka_queue_t *q /* taken */, void (*event)(void *arg, rd_kafka_event_t *ev), void *arg);
void port_pause(struct port *p);
void port_resume(struct port *p);
rd_kafka_queue_t *port_queue(struct port *p);
void port_free(struct port *p); /* NULL is fine; allowed in event */

/* ---- client.c: a handle and its main queue ---- */
struct client;
struct client_host {
	void *ctx;
	void (*event)(void *ctx, rd_kafka_event_t *ev);         /* reports, results; borrowed */
	void (*failed)(void *ctx, const struct err *e);         /* fatal, or the broker refuses us */
	void (*connected)(void *ctx, bool is);                  /* whether any broker answers, when that changes */
};
int client_new(struct loop *l, const char *job, rd_kafka_type_t type, rd_kafka_conf_t *conf /* taken */, const struct client_host *host, struct client **out,
	struct err *e);
rd_kafka_t *client_handle(struct client *c);
rd_kafka_queue_t *client_queue(struct client *c);               /* for answers; borrowed */
struct worker *client_worker(struct client *c);                 /* for calls that block */
void client_has_begun(struct client *c);                        /* transactions: from now on one may be open */
char *client_cluster(struct client *c);                         /* its id; NULL: not known (yet); malloc */
const char *client_refused(struct client *c);                   /* nobody listens where brokers are said to be, or there is no such name: why; else NULL */
const char *client_not_there(struct client *c, const char *bootstrap_servers, const char **why); /* where a broker has said that one is, and none is; NULL */
void client_answers(struct client *c);                          /* of a consumer: something came */
void client_has_room(struct client *c, const char *topic);      /* of a consumer: so much was taken of what it had fetched */
void client_reached(struct client *c);                          /* somebody has: from now on connected is told of what changes */
/* Who has read the topic to `end`, and was told so: is there nothing behind it, of a transaction that somebody has open? */
bool client_sees_all(struct client *c, const char *topic, int64_t end);
/* What librdkafka's threads look at until they end: dropped when they have, after client_free, on that thread. Any number of these. */
void client_keep(struct client *c, void (*drop)(void *arg), void *arg);
/* What its calls that block have of it, such as topics: ended after client_free, on that thread, before the handle is destroyed. */
void client_ends(struct client *c, void (*end)(void *arg), void *arg);
/* Gives the handle to a thread that ends the reading of `consumed` (taken), if there is one, aborts a transaction, if there may be one, and destroys it. Who
 * has not begun must not go on trying: the next producer of the job may have, which it would fence. NULL is fine. */
void client_free(struct client *c, rd_kafka_topic_t *consumed);

/* ---- topics.c ---- */
enum topic_state { TOPIC_NEW, TOPIC_MAKING, TOPIC_READY };
/* Of a table's, what stands in it from before. */
enum topic_past {
	PAST_UNKNOWN,
	PAST_ASKED,                     /* how it is kept */
	PAST_NONE,                      /* it was made in this run */
	PAST_ROWS,
	PAST_COMPACTED,                 /* the same, and the broker takes no record without a key */
};
/* How far a table's topic went. */
struct extent {
	_Atomic int32_t partitions;     /* that its keys lie in; 0: all that are there when the next record goes */
	_Atomic bool has_more;          /* there are others */
	int64_t *ends;                  /* of each partition, behind the newest acknowledged record; 0: none is known */
	size_t n;
	bool was_there, is_lost;        /* in an earlier run; lacks what was acknowledged */
	bool is_changed;                /* since it was noted */
	bool is_unnoted;                /* in k->unnoted */
	bool has_told_more;
	struct topic *next;             /* there */
};
struct topic {
	struct topic *next;
	char *name;
	char *schema, *table;           /* NULL: not a table's */
	rd_kafka_topic_t *rkt;
	enum topic_state state;
	enum topic_past past;
	bool is_compacted, is_single;   /* one partition */
	struct gate *gate;
	struct extent extent;           /* of a table's */
};

/* ---- kafka.c ---- */
enum kafka_state { KAFKA_NEW, KAFKA_STARTING, KAFKA_RUNNING, KAFKA_STOPPED, KAFKA_DEAD, KAFKA_STATES };

/* Whose a record is that was sent, for its report. */
struct sent {
	struct flight *f;
};

/* A batch that was produced. */
struct flight {
	struct sent self;               /* of records that nobody asks where they stand */
	struct words *words;            /* layout table with targets: where its rows do; NULL: not encoded yet, or that is sent */
	struct flight *next;
	uint64_t token;
	struct batch *b;                /* NULL: it is sent */
	const struct change *at;        /* the next to be encoded; NULL: not begun, or done */
	size_t row_at;                  /* bytes of its rows that are encoded already, where it is rows of a load; codec native: parts that are sent */
	size_t bytes;                   /* what it takes of the memory */
	struct arena records;           /* what librdkafka reads of them, and what waits at a gate, until all are acknowledged */
	uint32_t pending;               /* records that are not acknowledged */
	bool is_begun;                  /* some may be */
	bool is_sent;                   /* all records are librdkafka's, or wait at a gate */
	bool in_stream;                 /* has been sent there */
	bool in_tables;                 /* and there */
};

enum { WRITER_MAX = 12 }; /* the end of a job's uid, 8 characters of it */

/* What was written last into the headers of a row's record. */
struct known_row {
	const struct relation *rel;     /* of the batch at hand */
	const struct topic *topic;      /* NULL: not asked for */
	struct position at;
	size_t position_len;            /* before the event; 0: nothing */
	char position[POSITION_TEXT_MAX], schema[20];
};

/* exactly_once: the transaction at hand. */
enum exact_state { EXACT_OFF, EXACT_BEGINNING, EXACT_OPEN, EXACT_CLOSING, EXACT_COMMITTING, EXACT_STATES };
struct exact {
	enum exact_state state;
	struct flight own;              /* of the record with the position, whose topic is compacted: it is copied, `records` is not used */
	uint64_t began_us;              /* its first record was sent; 0: none was */
	uint64_t cut_us;                /* how old it may get */
	uint64_t last;                  /* token of the newest batch in it */
	struct position at;             /* behind that */
	bool is_whole;                  /* no transaction of the source, and no table of the load, is open behind that */
	struct map *loads;              /* those that are */
	uint64_t snapshot;              /* theirs */
	bool has_committed;             /* in this run */
	uint64_t unacknowledged;        /* records */
	uint64_t nrecords, nseen;       /* in this run; and when it was last looked at */
	struct loop_timer *due;
	char why[200];                  /* it does not begin */
};
struct known;
struct transactions;

struct kafka {
	struct dmsr_streamer_host host;
	const struct settings *settings;        /* borrowed for the life of the instance */
	enum kafka_state state;
	char *prefix;
	bool is_ordered, is_table, is_json; /* is_json: a record of the stream is a change, not a batch */
	bool is_indexed;                /* layout table, with targets: the stream is {prefix}.__words (index.h) */
	size_t memory, memory_max, record_max;

	bool reads_only;                /* another job writes: nothing is made, produced, or noted but where the reader stands (source.c) */
	struct client *producer;        /* NULL: it reads only */
	struct topic *topics;
	struct topic *unnoted;          /* those of which the first record of a partition was acknowledged, and no note has it yet */
	struct map *by_table;           /* "schema\0table" -> topic */
	struct map *by_name;            /* topic's name -> topic: two tables never share one */
	struct topic *stream, *schemas; /* stream NULL: neither ordered nor indexed */
	struct topic *positions;        /* NULL: not exactly_once */
	struct topic *transactions_topic;
	struct transactions *transactions; /* NULL: not transaction_topic */
	struct map *schemas_sent;       /* fingerprints, in this run */
	unsigned unknown_shapes;        /* of these, not acknowledged yet */
	struct shapes *shapes;          /* what is read back of them; NULL: nobody asks */
	unsigned nmaking;

	struct flight *first, *last;    /* in order of produce */
	struct flight *encoding;        /* the first that is not sent whole */
	struct flight *indexing;        /* of an indexed one, the first whose words are not sent */
	bool said_again;
	struct buf pack;
	struct known_row row;
	struct dmsr_instance *codec;
	const struct dmsr_codec *codec_ops;

	char run[24];                   /* names this producer; rises from run to run, whatever the clock does (note "run") */
	uint64_t nrecords;              /* of the stream, in this run */
	bool has_first;                 /* the broker has the first of them */
	char writer[WRITER_MAX];        /* this job, as its records name it; of a reader the one that it reads: "" not known yet */
	uint64_t past_run;              /* of a reader: whoever wrote up to this run was there before it began */
	struct newest {
		char writer[WRITER_MAX];
		uint64_t run;           /* 0: none */
	} newest, foreign;              /* that the scout saw of all, and of others than k->writer */
	int64_t scouted_end;            /* where the stream ended at start */
	bool has_told_foreign;          /* that records of another job come */
	uint64_t last_run;              /* that of the run before; 0: none */
	bool was_here;                  /* that was in this process */
	int64_t begin;                  /* where this job's part of the stream begins; -1: not known yet */
	uint64_t begin_run;             /* the run that found it; 0: not known */
	int64_t end, saved_end;         /* behind the newest acknowledged record of the stream, -1: not known yet; as the note "end" has it */
	int64_t visible;                /* behind the newest that targets can read */
	struct exact exact;
	struct known *known;            /* NULL: not exactly_once */
	struct dmsr_subscription *scout;        /* finds the stream's end at start; NULL: not under way */
	struct dmsr_subscription *subscriptions;

	/* To be told delivered; those up to ready now, those up to committed when the end is noted, the others when their transaction is committed. */
	struct tokens { uint64_t *all; size_t at, ready, committed, n, cap; } told;
	struct loop_task *turn;
	struct loop_timer *patience;    /* at start: until a broker answers */
	unsigned waited_ms;             /* for that */
	uint64_t slice_us;
	uint64_t linger_us;             /* librdkafka's */
	struct gate *opening;           /* those with records that may go now */
	size_t waiting;                 /* bytes of the records at all gates */
	unsigned nrows;                 /* encoded; the clock is not looked at for each */
	struct loop_timer *save;        /* the notes */
	bool is_barred;                 /* the producer takes no more: a report will say why */
	bool keeps;                     /* an earlier run has begun a stream */
	bool has_told_ready, has_told_end, is_in_turn, is_closed, is_scouted, is_noting;
	struct err error;
	struct err away;                /* no broker answers; none set: one does */
	int64_t away_us;                /* wall clock: since when */
};
void kafka_wake(struct kafka *k);
void kafka_fail(struct kafka *k, const struct err *e);
void kafka_connected(struct kafka *k, bool is);                 /* a broker answers, or none: somebody must know */
void kafka_save_soon(struct kafka *k);                          /* the notes; then what they cover is told delivered */
bool kafka_may_send(const struct kafka *k);                     /* it runs, and its producer lives */
bool kafka_slice_is_over(const struct kafka *k);
bool kafka_is_same_cluster(struct kafka *k, struct client *c);  /* as in earlier runs, that c has read in; false: failed */
void kafka_noted(struct kafka *k, const struct err *e);         /* a note that the start waits for is durable, or not */
int kafka_breathe(struct kafka *k);                             /* between two records: 0, or DMSR_AGAIN, to go on there in another turn */
bool kafka_waits_for_first(const struct kafka *k);              /* rule 6: nothing more goes into the stream; k is woken */

int kafka_open(const struct settings *settings, const struct dmsr_streamer_host *host, bool reads_only, struct kafka **out, struct err *e);
void kafka_start(struct kafka *k);
void kafka_stop(struct kafka *k);
void kafka_close(struct kafka *k);

/* ordered.c: the layout ordered, a record for each change */
bool ordered_send(struct kafka *k, struct flight *f); /* some of them; true: all are sent */
struct change *ordered_copy_word(struct batch *w, const struct change *ch); /* what is no row, into another batch that f's outlives */
char *ordered_table(const void *value, size_t len); /* "schema.table" that a record's value names, an envelope or a word; NULL: none; malloc */

/* rebuild.c: and back */
struct rebuild;
struct stamp;
struct rebuild *rebuild_new(struct kafka *k);
void rebuild_free(struct rebuild *r); /* NULL is fine */
/* One record: a row, begin or commit goes into the batch being filled, unless it is not behind reached; a word comes as a batch of its own, which belongs
 * behind what is being filled. Not taken: FLUSH, what is filled must go first; SHAPE, that of its table is not there yet. */
enum { REBUILD_FLUSH = 1, REBUILD_SHAPE };
int rebuild_record(struct rebuild *r, const rd_kafka_message_t *m, const struct stamp *t, const struct position *reached, struct batch **word, struct err *e);
bool rebuild_is_full(const struct rebuild *r);
bool rebuild_is_empty(const struct rebuild *r);
bool rebuild_is_whole(const struct rebuild *r);         /* behind the last record no transaction is open */
struct batch *rebuild_take(struct rebuild *r);          /* what is filled; NULL: nothing */

/* topics.c */
void topics_start(struct kafka *k);                             /* those that are no table's */
struct topic *topics_of(struct kafka *k, const struct relation *rel); /* NULL: failed */
/* Are those of all tables in b there, and is it known what stands in those whose loads begin in it? False: k is woken when it is. */
bool topics_ready(struct kafka *k, const struct batch *b);
void topics_event(struct kafka *k, rd_kafka_event_t *ev);       /* the result of making or asking */
const char *topics_entry(const rd_kafka_ConfigResource_t *r, const char *name); /* of a server's settings; NULL: not told */
void topics_free(struct kafka *k);                              /* before its producer, which keeps what its threads look at */

/* produce.c */
enum { HEADERS_MAX = 4 };
struct record {
	const char *key, *value;        /* NULL: none */
	size_t key_len, len;
	int32_t partition;
	unsigned nheaders;
	struct header {
		const char *name /* a literal */, *value;
		size_t len;
	} headers[HEADERS_MAX];
	size_t headers_len; /* of those that are big */
	struct sent *sent;  /* NULL: its flight's own */
};
/* Sends one, which is copied; rel names what it is of, for the error. False: failed. */
bool produce_record(struct kafka *k, struct flight *f, const struct topic *t, const struct record *r, const struct relation *rel);
/* A batch's bytes into the stream, in parts where they are bigger than a record may be; f->row_at counts these. True: all of it; false: not yet, or failed. */
bool produce_parts(struct kafka *k, struct flight *f, const char *data, size_t len, const struct position *end);
enum dmsr_verdict produce_take(struct kafka *k, struct batch *b);
void produce_turn(struct kafka *k);
void produce_reports(struct kafka *k, rd_kafka_event_t *ev);
bool produce_is_idle(const struct kafka *k);
void produce_free(struct kafka *k);

/* extent.c */
void extent_read(struct kafka *k, struct topic *t);             /* its note */
void extent_save(struct kafka *k);                              /* the notes of those that have none of a partition */
void extent_save_all(struct kafka *k);                          /* and of all that went on: a run ends */
void extent_made(struct kafka *k, struct topic *t);             /* it was not there */
void extent_begin(struct kafka *k, struct topic *t);            /* a load begins anew: whatever was there before does not count */
bool extent_is_good(struct kafka *k, const struct topic *t);    /* false: failed */
void extent_acknowledged(struct kafka *k, struct topic *t, int32_t partition, int64_t offset); /* of one of its records; -1: not known */
int32_t extent_partition(const rd_kafka_topic_t *rkt, const void *key, size_t len, int32_t partitions, void *opaque, void *record); /* opaque: the topic */

/* gate.c */
struct gate *gate_new(const struct topic *t);
/* r goes to librdkafka, or waits here behind what is under way; it is copied either way, for as long as f lives. An error of librdkafka's: not taken. */
rd_kafka_resp_err_t gate_pass(struct kafka *k, const struct topic *t, struct flight *f, const struct record *r);
void gate_took(const rd_kafka_message_t *m);                    /* m was answered: how long that took */
void gate_acknowledged(struct kafka *k, const rd_kafka_message_t *m);   /* k is woken when what waits may go */
bool gate_takes(const struct kafka *k);                         /* not too much waits; false: k is woken when it does not any more */
void gate_turn(struct kafka *k);                                /* then it goes */
void gate_free(struct gate *g);

/* refused.c */
void refused(struct kafka *k, rd_kafka_resp_err_t code, const char *topic);
void refused_as_too_large(struct kafka *k, const struct topic *t, const struct relation *rel, size_t len); /* by us; rel NULL: no table's */
void refused_by_broker(struct kafka *k, const rd_kafka_message_t *m, rd_kafka_event_t *ev); /* m is the report, the rest of ev the others sent with it */

/* transactions.c */
struct json_t;
void transactions_open(struct kafka *k);                        /* its known is there, or not */
void transactions_free(struct kafka *k);
bool transactions_send(struct kafka *k, struct flight *f);      /* some of them; true: all are sent */
void transactions_save(struct kafka *k);                        /* the note */
struct json_t *transactions_kept(const struct kafka *k);        /* of one that is open; NULL: none is */
void transactions_restore(struct kafka *k, struct json_t *kept, bool has_begun);

/* exact.c */
void exact_open(struct kafka *k);
void exact_free(struct kafka *k);
bool exact_has_begun(struct kafka *k);                          /* or need not; false: k is woken */
bool exact_waits(const struct kafka *k, struct err *e);         /* for a broker that answers, but not as it should: e says how */
void exact_waits_for(struct kafka *k, const struct topic *t);    /* another producer's transaction there is in the way */
bool exact_takes(const struct kafka *k);                        /* records now */
bool exact_is_pending(const struct kafka *k);                   /* what was sent will be seen with a commit that comes by itself */
void exact_record(struct kafka *k);                             /* one was sent */
void exact_took(struct kafka *k, const struct flight *f);       /* all of f was sent */
bool exact_is_due(const struct kafka *k);                       /* it shall be committed behind the batch at hand */
void exact_turn(struct kafka *k);
void exact_ask_why(struct kafka *k);                            /* the producer takes nothing more */
void exact_judge(const struct kafka *k, struct err *e);         /* is a producer that was fenced worth another attempt? */

/* known.c */
void known_open(struct kafka *k);
void known_shut(struct kafka *k);                               /* reads no more */
void known_free(struct kafka *k);
bool known_is_ours(struct kafka *k);                            /* no other dmsrd has taken the job from this one; false: k is woken, or has failed */
bool known_is_read(struct kafka *k);                            /* or need not; false: k is woken */
void known_tell(const struct kafka *k, struct dmsr_stand *out);
void known_words(struct kafka *k, const struct batch *b);       /* of the load, in a batch that was sent */
bool known_is_full(const struct kafka *k);
bool known_write(struct kafka *k);                              /* the last record of a transaction; false: failed */
void known_acknowledged(struct kafka *k, int64_t offset);       /* that record */
void known_committed(struct kafka *k);
void known_stored(struct kafka *k, uint64_t token);
void known_save(struct kafka *k);                               /* the note */

/* consume.c */
struct dmsr_subscription *consume_new(struct kafka *k, const char *target, const struct dmsr_stand *stand, const struct dmsr_consumer *c);
/* One whose batches are given away, as they come, and become durable by their positions: with consume_confirm, not consumed and commit. Its notes are
 * of this stream, by the prefix: the job may get another one as long as it has nothing. */
struct dmsr_subscription *consume_new_reader(struct kafka *k, const struct dmsr_stand *stand,
	enum dmsr_verdict (*take)(void *ctx, struct batch *b), void (*drained)(void *ctx), void *ctx);
struct position consume_reached(const struct dmsr_subscription *s);      /* changes up to there were read */
bool consume_has_begun(const struct dmsr_subscription *s);      /* where its part of the stream begins is known, and noted */
bool consume_is_at_end(const struct dmsr_subscription *s);      /* and the topic had no more then */
struct client *consume_client(const struct dmsr_subscription *s);
int consume_scout(struct kafka *k, struct err *e);              /* then k->begin and k->end are known */
int consume_start(struct dmsr_subscription *s, struct err *e);
void consume_turn(struct dmsr_subscription *s);
void consume_expect(struct kafka *k);                           /* something was produced */
void consume_free(struct dmsr_subscription *s);                 /* NULL is fine */
struct dmsr_subscription *consume_next(const struct dmsr_subscription *s);
size_t consume_bytes(const struct dmsr_subscription *s);

/* lend.c */
void consume_resume(struct dmsr_subscription *s);
void consume_consumed(struct dmsr_subscription *s, uint64_t token);
void consume_commit(struct dmsr_subscription *s, uint64_t token);
void consume_confirm(struct dmsr_subscription *s, const struct position *p); /* of a reader: what was given up to p is durable */
void consume_save(struct dmsr_subscription *s);                 /* the note, now */

/* schema.c */
const char *schema_key(const struct relation *r, char out[20]); /* 16 digits */
bool schema_send(struct kafka *k, struct flight *f, const struct relation *r); /* unless it was sent in this run; false: failed */
/* Shapes that records of the stream name: read from the topic, from its beginning on, for as long as the instance lives. */
int schemas_start(struct kafka *k, struct err *e);
struct relation *schemas_find(const struct kafka *k, const char key[16]); /* borrowed; NULL: not there yet */
void schemas_free(struct kafka *k);

/* record.c: headers. Pure. */
struct stamp {
	struct position at;             /* NONE: of a load */
	uint64_t run, nth;              /* of the producer that wrote it, and which of its records in the stream: from 1 */
	uint32_t part, parts;           /* 1/1 where the record is whole */
	char writer[WRITER_MAX];        /* which job's; "": of a build that did not say */
};
void stamp_read_run(const rd_kafka_message_t *m, struct stamp *out);    /* run, nth, writer, as far as they are there */
int stamp_read(const rd_kafka_message_t *m, struct stamp *out, struct err *e);
enum { RUN_TEXT_MAX = 64 };
const char *stamp_run(const struct kafka *k, char out[RUN_TEXT_MAX], size_t *len); /* of the next record of the stream */
void stamp_writer(const char *uid, char out[WRITER_MAX]);
/* A position's text (position_format), of which what the rows of a transaction share is written once: good until the next call. */
const char *stamp_position(struct known_row *known, const struct position *at, size_t *len);
const char *stamp_schema(struct known_row *known, const struct relation *rel); /* schema_key, the same way */

/* foreign.c */
void foreign_open(struct kafka *k);
bool foreign_is(struct kafka *k, const struct stamp *t);        /* another job's? */
/* Then: 0: it is passed over; else e. run: the newest of ours that was read. */
int foreign_judge(struct kafka *k, const struct stamp *t, const rd_kafka_message_t *m, uint64_t run, struct err *e);
void foreign_see(struct kafka *k, const rd_kafka_message_t *m); /* the scout has */
bool foreign_is_ahead(struct kafka *k, const struct topic *t);  /* what the scout saw of t is in this job's way: k has failed */

/* source.c */
extern const struct dmsr_source kafka_source;

/* probe.c */
extern const struct dmsr_probe kafka_probe, kafka_source_probe;

#endif
