/* fake: a scripted source and a recording target, for the tests alone; no part of the daemon. The tests register the plugin "fake" (plugins_add) or
 * call its vtables, and hold the two ends in their hands: a script, which says what the source sends, and a server, which keeps what the target
 * was given. Both outlive every instance: a kill is an instance that is closed, a restart a new one that finds its script or server by name.
 *
 * What is sent can be told apart: every row of a script has a number of its own (column id), counted from 1 in the order of the script. So a server
 * knows at the end whether each came exactly once and in order (fake_server_check). */
#ifndef DMSR_FAKE_H
#define DMSR_FAKE_H
#include "dmsr.h"

extern const struct dmsr_plugin dmsr_plugin_fake;

/* ---- small things ---- */
enum { FAKE_SERVER_ID = 7,
	FAKE_LSN_STEP = 0x100 };
struct relation *fake_relation(const char *name, uint32_t id); /* public.NAME (id bigint primary key, v text); the caller's reference */
struct position fake_position(uint64_t lsn, uint64_t event); /* event POSITION_WHOLE: flush is behind it */
/* Appends a row (c u r: after, d: before); pad bytes of text in v. Counts it in b->bytes. */
void fake_add_row(struct batch *b, enum change_op op, struct relation *rel, uint64_t event, int64_t id, size_t pad);
void fake_add_rows(struct batch *b, struct relation *rel, int64_t first_id, uint32_t n); /* OP_ROWS, COPY text */
int64_t fake_row_id(const struct change *ch);                   /* column id */
/* Runs the loop until `until` is true or the time is over: false then. until NULL: for that time. */
bool fake_run(struct loop *l, bool (*until)(void *arg), void *arg, unsigned limit_ms);
void fake_settle(struct loop *l);       /* runs it until nothing moves but timers that are not due */

/* ---- a disk ---- */
/* A log that lasts (struct dmsr_log) and a place for positions, both written in one order, as the state store does it. What was not written yet when it is
 * closed is lost, as by a power cut. */
struct fake_disk;
struct fake_disk *fake_disk_new(void);
void fake_disk_free(struct fake_disk *d);
const struct dmsr_log *fake_disk_open(struct fake_disk *d, struct loop *l);     /* the log as it is; valid until the close */
void fake_disk_close(struct fake_disk *d);                      /* no callback comes any more */
void fake_disk_hold(struct fake_disk *d, bool hold);            /* nothing is done while it is held */
void fake_disk_slow(struct fake_disk *d, unsigned max_ops);     /* in each turn 0 to max_ops operations are done, by chance; 0: all */
void fake_disk_fail(struct fake_disk *d, unsigned after);       /* after so many more an append fails, and all later ones; UINT_MAX: none */
void fake_disk_damage(struct fake_disk *d, uint64_t seq);       /* changes a byte of the entry */
/* *where becomes p when it is durable; then done (may be NULL). */
void fake_disk_put(struct fake_disk *d, struct position *where, const struct position *p, void (*done)(void *arg), void *arg);
struct fake_disk_stat { uint64_t appends, reads, entries, bytes, first, last; };
void fake_disk_stat(const struct fake_disk *d, struct fake_disk_stat *out);

#endif
