/* probe_int: what the files of the probes share. probe.c owns the instance, its connection, its findings and the one answer; a probe is a table of steps,
 * each one question and the reading of its answer, put one after another.
 *
 *   probe_source.c   preflight of a source          probe_target.c   preflight of a target, and what is dropped there
 *   probe_table.c    the tables there, one by one
 *   probe_drop.c     a source's slot and publication    probe_look.c     how the slot of a job that does not run is */
#ifndef DMSR_POSTGRES_PROBE_INT_H
#define DMSR_POSTGRES_PROBE_INT_H
#include "catalog.h"
#include "conn.h"
#include "probe.h"
#include "rights.h"
#include "source_sql.h"

struct probe;
struct probe_step {
	/* Writes the question (left empty: the step is passed over) and up to 4 parameters; these live until the question is put. NULL: see `start`. */
	void (*ask)(struct probe *p, struct buf *sql, const char **values, int *nvalues);
	/* Reads the answer; without it a refused question ends the probe. res NULL: e tells why. */
	void (*read)(struct probe *p, const PGresult *res, const struct err *e);
	/* Instead of ask: begins something longer that ends with probe_next. */
	void (*start)(struct probe *p);
};

struct target_table;
struct probe_table {
	struct relation *rel;           /* the source's */
	bool is_there, is_owned;
	bool is_loaded, has_begun;      /* by this job: wholly; at all */
	bool is_made;                   /* by it */
};

struct probe {
	struct dmsr_probe_host host;
	struct settings *settings;
	struct dmsr_tables tables;
	enum dmsr_mode mode;
	bool is_target;
	const struct probe_step *steps; /* ends with an empty one */
	size_t step;
	struct pgconn *sql, *repl;
	const char *server;             /* "db1:5432/shop", also when sql is gone */
	struct catalog *catalog;
	struct loop_timer *timer;
	struct loop_task *turn;
	struct buf text;                /* parameters of the step's question */
	struct buf kept;                /* from step to step */
	struct probe_rows {             /* target: tables with rows */
		const char *schema, *name;
		const char *job; /* another's, by dmsr.loads; NULL: none is known */
		bool is_ours; /* this job has loaded it, or begun to, */
		bool is_loaded, is_forgotten; /* and that counts; or did, before it began anew */
	} * found;
	size_t nfound;
	struct map *meant;              /* target: the source's tables (relation_key -> struct probe_table); NULL: not known, the patterns say */
	struct probe_table *judged;     /* these, host.nrels of them */
	size_t njudged, ncompared;      /* so many are dealt with; so many of them were looked at column by column, */
	size_t npassed;                 /* and so many were not, though they are there */
	uint64_t compares_until_us;     /* 0: not begun */
	struct target_table *at_hand;
	bool is_dropped;                /* it would be; what is kept of the job was */

	/* what is known of the server */
	int version;
	bool is_read_only;              /* transactions are, unless they say otherwise, and it is no standby */
	int64_t asked_us;               /* wall clock when the step's question was put */
	struct relation **rels;
	size_t nrels;
	bool leaves;
	bool has_publication, hides_generated; /* it leaves generated columns out */
	char publication[64], slot[64];
	const char *near;               /* the publication that is meant by the name of one that is not there; NULL: none is like it */
	unsigned tries;

	/* look */
	struct position at;             /* NONE: not asked about */
	struct dmsr_kept keeps;

	/* the answer */
	void (*answer)(struct probe *p);
	struct arena arena;
	struct dmsr_check *checks;
	size_t nchecks;
	const char **left;
	size_t nleft;
	struct err failure;
	bool is_answered;
};

/* Copies what it is given but `steps` and `answer`. tables may be NULL. */
struct probe *probe_new(const struct settings *s, const struct dmsr_option *options, const struct dmsr_tables *tables,
	enum dmsr_mode mode, const struct dmsr_probe_host *host);
/* Connects, then puts the steps' questions, then answers. */
void probe_start(struct probe *p, const struct probe_step *steps, void (*answer)(struct probe *p));
void probe_next(struct probe *p);                       /* the step is done */
/* From a step's read: goes `back` steps (1: the same question again) after a while. */
void probe_again(struct probe *p, unsigned back, uint64_t after_ms);
void probe_fail(struct probe *p, const struct err *e);  /* the question could not be put: answers with e */
void probe_close(struct dmsr_instance *i);

/* A finding. fix NULL: none. object and fix are copied. */
void probe_found(struct probe *p, enum dmsr_check_level level, const char *id, const char *object, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* The fix in the buf, which is finished. */
void probe_found_fix(struct probe *p, enum dmsr_check_level level, const char *id, const char *object, struct buf *fix, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
void probe_left(struct probe *p, const char *statement);
/* "schema.table" in the probe's own memory. */
const char *probe_name(struct probe *p, const char *schema, const char *name);
/* The first bytes of a value that is true. */
static inline bool probe_true(const PGresult *res, int row, int column) { return *PQgetvalue(res, row, column) == 't'; }

/* ---- probe_table.c: the tables of the target that the source's rows are to go into ---- */
void probe_mean_tables(struct probe *p);                /* at the beginning: those that the host knows */
void probe_forget_tables(struct probe *p);
struct probe_table *probe_table(const struct probe *p, const char *schema, const char *name);  /* NULL: not meant */
void probe_ask_ours(struct probe *p, struct buf *sql, const char **values, int *nvalues);
void probe_read_ours(struct probe *p, const PGresult *res, const struct err *e);
void probe_ask_table(struct probe *p, struct buf *sql, const char **values, int *nvalues);    /* the next that a question is needed for */
void probe_read_table(struct probe *p, const PGresult *res, const struct err *e);
void probe_ask_ties(struct probe *p, struct buf *sql, const char **values, int *nvalues);     /* of the table at hand */
void probe_read_ties(struct probe *p, const PGresult *res, const struct err *e);
void probe_ask_values(struct probe *p, struct buf *sql, const char **values, int *nvalues);
void probe_read_values(struct probe *p, const PGresult *res, const struct err *e);

/* Of dmsr.loads l and dmsr.positions p: a table that was loaded before its job began anew; and one that had no part in the load that did, so that what is there
 * is nobody's (target_setup.c). */
#define PROBE_FORGOTTEN "(l.position IS NULL AND l.rows = " LOAD_FORGOTTEN ")"
#define PROBE_PASSED "(" PROBE_FORGOTTEN " AND l.job_uid = $1 AND coalesce(p.position <> 'none' OR p.load_done, false))"

/* What the catalog's reading has come to; false: failed. */
bool probe_take_relations(struct probe *p, struct relation **rels, size_t n, const struct err *e);
/* Answers through the host's callbacks. */
void probe_answer_checked(struct probe *p);
void probe_answer_dropped(struct probe *p);
int probe_discover(const struct settings *s, const struct dmsr_option *options, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out);
int pgsource_look(const struct settings *s, const struct position *at, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e);
int pgsource_drop(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e);

/* Steps that both roles begin with: connection, TLS, version, clock, encoding. */
void probe_ask_session(struct probe *p, struct buf *sql, const char **values, int *nvalues);
void probe_read_session(struct probe *p, const PGresult *res, const struct err *e);

#endif
