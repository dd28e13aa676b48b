/* file_int: what the parts of the file target share: target.c (life, queue, order of work), parts.c (rows into parts), publish.c (parts into files that others
 * see), names.c (what files are called), journal.c (what was published, as text), disk.c (all that touches the disk, on the worker's thread), check.c
 * (preflight, and what goes with a job). Nobody else includes it.
 *
 *   {path}/{schema}.{table}/{lsn}-{event}-{lsn}-{event}.ndjson     changes, from the first to the last in it     ({path}/... with layout single)
 *   {path}/{schema}.{table}/{lsn}-0000000000-load-{part}.ndjson    rows of the load, lsn: the snapshot's; sorts before the changes; no rows: a truncate
 *   {path}/_messages/...                                            logical messages
 *   {path}/.dmsr/{uid}.{target}/journal, lock, {n}.part             ours: where we stand, what is being written
 *
 * Publishing: the parts are made durable, then one group is appended to the journal and made durable: that is the moment from which they count. Then they are
 * renamed to their names. After a crash the renames of the last group are finished and every other part is thrown away; what was in those is sent again,
 * since the journal says where we stand. So no row is lost, and none is there twice. */
#ifndef DMSR_FILE_INT_H
#define DMSR_FILE_INT_H
#include "dmsr.h"

/* ---- names.c ---- */
/* Appends text so that it is a plain file name: letters, digits, _ - and . (not first) stay, others become %XX. */
void names_encode(struct buf *out, const char *text);
char *names_decode(const char *p, size_t n);                    /* heap; NULL: not well formed */
/* "public.orders"; "_messages" when both are "". What is too long is cut and ends in ~ and a hash. */
char *names_directory(const char *schema, const char *name);
struct span {
	uint64_t first_lsn, first_event, last_lsn, last_event;
};
char *names_changes(const struct span *s, const char *ext);
char *names_load(uint64_t lsn, unsigned part, const char *table /* or NULL */, const char *ext);

/* ---- journal.c: pure ---- */
struct journal_load {
	char *schema, *name;
	struct position at;
};
struct journal_rename {
	uint64_t part;
	char *path;                     /* below the target's path */
	uint64_t bytes;                 /* what it must have; not in the journal */
};
struct journal {
	struct position at;
	bool load_done;
	struct journal_load *loads;     /* the newest of each table */
	size_t nloads;
	struct journal_rename *renames; /* of the last group */
	size_t nrenames;
};
void journal_fini(struct journal *j);
void journal_add_load(struct journal *j, const char *schema, const char *name, const struct position *at);
const struct journal_load *journal_find_load(const struct journal *j, const char *schema, const char *name);
/* A group: what is in j is all there is to say. head: the file begins with it. */
void journal_put(struct buf *out, const struct journal *j, bool head);
/* Reads all groups; a last one that is torn is left out. DMSR_EFATAL "target.state-damaged" otherwise. j was zeroed. */
int journal_parse(const char *text, size_t n, struct journal *j, struct err *e);

/* ---- disk.c: on the worker's thread ---- */
struct disk;
struct disk *disk_new(const char *path, const char *uid, const char *target);   /* path "-": stdout */
void disk_end(void *disk);              /* a worker's fini */
/* Makes the directories, takes the lock, reads the journal, finishes or drops what was left, writes the journal anew. `busy`: somebody has the lock. */
int disk_open(struct disk *d, struct journal *j, bool *busy, struct err *e);
int disk_write(struct disk *d, uint64_t part, bool is_new, const char *p, size_t n, struct err *e);
int disk_print(struct disk *d, struct worker *w, const char *p, size_t n, struct err *e); /* to stdout; DMSR_ESTATE when the worker is being freed */
int disk_publish(struct disk *d, const struct journal_rename *renames, size_t n, const char *group, size_t len, bool anew, struct err *e);
void disk_discard(struct disk *d, uint64_t part);
int disk_probe(const char *path, struct err *e);        /* could we write there? */
/* What was published is finished, then all of ours goes but the files; it may be gone already. `busy`: somebody has the lock. */
int disk_forget(struct disk *d, bool *busy, struct err *e);
const char *disk_own(const struct disk *d);             /* the directory that is ours */

/* ---- target.c, parts.c, publish.c: on the loop ---- */
int file_check_options(const struct settings *s, const struct dmsr_env *env, struct err *e);  /* would a target with these options open? */
enum target_state {
	TARGET_NEW,             /* opened */
	TARGET_OPENING,         /* directories, lock, journal */
	TARGET_WORKING,         /* takes batches */
	TARGET_STOPPING,        /* reads what it has, publishes it */
	TARGET_STOPPED,
	TARGET_DEAD,
	TARGET_STATES
};

/* A batch that was taken and not told applied. */
struct item {
	struct item *next;
	const struct batch *batch;      /* NULL: given back */
	uint64_t seq, token;
	size_t bytes;
};

/* A file being written. */
struct part {
	struct part *next;
	struct table *table;
	uint64_t number;
	uint64_t bytes, written, head;  /* in all; given to the disk; of its head */
	uint64_t fingerprint;           /* of the relation that its head was written for */
	unsigned load_part;             /* 0: changes */
	uint64_t load_lsn;
	struct span span;
	struct buf buf;                 /* not given to the disk yet */
};
struct parts {
	struct part *first, **last;
};

struct table {
	struct table *next;
	char *schema, *name, *dir;
	struct part *changes;           /* being written; NULL: none */
	struct table *next_open;        /* in target.open */
	struct {
		bool is_open, is_skipped;
		uint64_t lsn, server, since; /* since: the item that began it */
		unsigned parts;
		struct part *part;      /* being written */
		struct parts closed;
		uint64_t rows;
	} load;
	uint64_t loaded_lsn;            /* changes before that are in its loaded rows */
	struct dmsr_table_counts counts;
	bool has_counts;
};

struct target {
	struct dmsr_target_host host;
	struct loop *loop;
	char *path, *ext;
	bool is_stdout, is_single, has_head;
	uint64_t roll_bytes, roll_interval_us;
	const struct dmsr_codec *codec;
	struct dmsr_instance *encoder;

	enum target_state state;
	struct err error;
	bool told, in_task, is_closed;
	bool is_ready;                  /* ready() is to be said, or was */
	bool was_flushed;               /* flush() was called and nothing came since */
	struct loop_task *task;
	struct loop_timer *timer;
	struct worker *worker;
	struct disk *disk;
	uint64_t opening_since_us;

	struct item *head, *tail, *cur; /* oldest not applied; newest; being read */
	const struct change *at;
	uint64_t seqs;
	size_t queued_bytes;            /* not read yet */
	size_t writing_bytes;           /* given to the disk, not written */
	bool said_again;

	struct map *by_name;            /* "schema\0name" -> table */
	struct table *tables, *open;    /* all; those with changes being written */
	unsigned open_loads;
	struct table *last_table;
	const struct relation *last_rel;
	struct part *single;            /* layout single: the one part for changes */
	struct parts closed;            /* to be published next */
	struct buf lines;               /* stdout: not given to the disk yet */
	uint64_t printed_seq;           /* stdout: items up to this one are printed */
	uint64_t printed_fingerprint;   /* stdout: the table that its last head was of */
	uint64_t numbers;               /* of parts */
	size_t buffered_bytes;

	struct journal journal;         /* as it is, or is being written */
	size_t journal_bytes;
	struct position reached;        /* behind the last whole transaction that was read */
	uint64_t read_seq;              /* last item that was read to its end */
	uint64_t tx_since;              /* item in which the open transaction began; 0: none is open */
	bool has_new_loads, is_roll_due;
	struct journal fresh;           /* words for the next group */
	uint64_t dirty_since_us;        /* 0: nothing to publish */
	uint64_t idle_since_us;         /* flush() came then, and nothing since; 0: not so */
	uint64_t urgent_seq;            /* somebody waits for all up to this item; 0: not so */
	struct publish *publishing;
	struct position published;      /* while publishing: what is durable */
	struct dmsr_target_stat stat;
};

enum step { STEP_DONE, STEP_WAIT };

void file_fail(struct target *t, const struct err *e);
void file_wake(struct target *t);
static inline bool file_is_alive(const struct target *t) { return t->state == TARGET_WORKING || t->state == TARGET_STOPPING; }
void file_applied(struct target *t, uint64_t seq, const struct dmsr_table_counts *counts, size_t n);  /* all items up to seq */

/* parts.c */
int parts_put(struct target *t, const struct change *ch, struct err *e);        /* a row, truncate or message of the stream */
int parts_put_loaded(struct target *t, const struct change *ch, struct err *e); /* OP_ROWS or OP_READ */
void parts_void_loads(struct target *t, const struct change *but_of);   /* that are open; but_of: but those in its snapshot, or NULL */
int parts_load_begin(struct target *t, const struct batch *b, const struct change *ch, struct err *e);
int parts_load_end(struct target *t, const struct change *ch, struct err *e);   /* a load without rows is a record that the table was emptied */
void parts_close_changes(struct target *t);     /* all parts of changes: into target.closed */
void parts_flush(struct target *t);             /* stdout: what is buffered goes to the disk */
void parts_fini(struct target *t);
void parts_list_init(struct parts *l);

/* publish.c */
bool publish_is_due(const struct target *t, uint64_t now_us);
uint64_t publish_due_in(const struct target *t, uint64_t now_us);       /* us; 0: not by itself */
bool publish_has_work(const struct target *t);
void publish_start(struct target *t);
bool publish_is_done(const struct publish *p);  /* the disk has answered */
void publish_apply(struct target *t, const struct publish *p);  /* tells what came of it */
void publish_free(void *publish);
/* The last item such that no row of it, or of one before it, is held back by an open transaction or load. */
uint64_t publish_covered_seq(const struct target *t);
size_t publish_take_counts(struct target *t, struct dmsr_table_counts **out);   /* out: heap */
void publish_post_write(struct target *t, uint64_t part, bool is_new, struct buf *bytes);       /* takes the bytes */
void publish_post_print(struct target *t, struct buf *bytes);
void publish_post_discard(struct target *t, uint64_t part);
void publish_post_open(struct target *t);
/* target.c's answer to publish_post_open; takes what is in j */
void file_opened(struct target *t, struct journal *j, bool busy, int rc, const struct err *e);

/* check.c */
extern const struct dmsr_probe file_probe;

#endif
