/* hold: a job's streamer, before which changes wait while a load goes through it.
 *
 * In the streamer's own order the rows of a load stand before the changes of their table, so the stream would have to be read behind the load, and the source
 * would keep its log for as long as that takes. Here it is read beside it: changes wait in a log of the state store (the streamer embedded, with one consumer:
 * the streamer itself), are durable there, and go on when the load is over.
 *
 *                 rows of a load ------------------------------> streamer
 *                 changes ----- all but PASSING: log ----------> streamer          [ENDING ->] HELD -> FOLLOWING -> PASSING
 *                               PASSING -----------------------> streamer
 *
 * HELD: from the start until hold_release(): there may be a log of an earlier run, and nobody knows yet whether there is something to load. FOLLOWING: the
 * log empties. PASSING: it is empty, and stays so in this run. ENDING: there is a log of an earlier run, which had begun to follow (the note "hold.follows"):
 * the streamer may have the first half of a transaction, which a target would keep open for the time of the load. Its end goes first, before any rows, with
 * all that the log had, since where in it the streamer stands is not known (it forgets late what was acknowledged), but for tables that are to be loaded:
 * it waits until it is agreed which these are (hold_go_on).
 * Where the log ends inside of a transaction the source reads the end of that before it loads (ends_first in dmsr.h): who asks it to is told (has_begun).
 * No log begins inside of one: nothing is held before the source has said that it loads (hold_loads), which it does when it knows that the streamer has no
 * first half, or not at all. Else a run that is killed before its hold is released would leave the end of what the streamer has the first half of.
 *
 * What is held and is in the rows of a load already, by its LSN, is left out on its way (is_old). Each change goes to the streamer at least once: what it
 * had not acknowledged when we were killed is in the log, and goes again; what it knows by a memory of its own (known) does not. Nor does anything when
 * changes that went straight may be stored: what is in the log still, since that is trimmed when there is time, would come behind them. So the note
 * "hold.ended" is put before one of them is told delivered: where the log ended. And what the source sends once more of what was in the log is left out.
 *
 * To the pipeline these are two streamers, with a host each: one for changes, to which the targets subscribe and which answers for both, and one for the rows
 * alone, which has nobody: AGAIN for the one says nothing of the other. */
#ifndef DMSR_ENGINE_HOLD_H
#define DMSR_ENGINE_HOLD_H
#include "dmsr.h"

enum hold_way { HOLD_CHANGES, HOLD_ROWS, HOLD_WAYS };

struct hold_part {
	const struct dmsr_streamer *ops;
	const struct settings *settings;        /* borrowed for the life of the hold */
	struct dmsr_env env;
};
struct hold_parts {
	struct hold_part streamer, log;
	const struct dmsr_log *entries;         /* the log's; borrowed */
	struct position delivered;              /* where the job goes on */
	/* Is that change in rows that went before it? And may it be of a table whose rows are still to come? */
	bool (*is_old)(void *arg, const struct change *ch);
	bool (*is_early)(void *arg, const struct change *ch);
	void (*feeds)(void *arg, const struct batch *b);        /* b, of the log, goes to the streamer: its consumers are to get more */
	void *arg;
};
struct hold;
/* hosts: what the pipeline is to each of the two; their env and log are not used. 0, or e's code, and nothing is left open. */
int hold_open(const struct hold_parts *parts, const struct dmsr_streamer_host hosts[HOLD_WAYS], struct hold **out, struct err *e);
const struct dmsr_streamer *hold_ops(const struct hold *h, enum hold_way way); /* valid as long as the instances */
struct dmsr_instance *hold_instance(struct hold *h, enum hold_way way);        /* closed as others are; the hold goes with the second */
/* The rows of all loads are the streamer's, or there are none. Changes before rows_lsn may be in them; 0: none. Twice is once. */
void hold_release(struct hold *h, uint64_t rows_lsn);
/* The source has begun to load, beside the stream: AGAIN to changes before that, or before hold_release, where the log has none. Twice is once. */
void hold_loads(struct hold *h);
/* It is agreed what is loaded: from now on is_early may be asked, and what an earlier run had begun to give goes on. */
void hold_go_on(struct hold *h);
bool hold_is_held(const struct hold *h);
bool hold_has_any(const struct hold *h); /* changes that the streamer has not been given; from ready on */
const struct txn *hold_oldest(const struct hold *h);   /* the transaction of the first of them; lsn 0: not known yet; NULL: none, but heartbeats perhaps */
bool hold_is_over(const struct hold *h);   /* the streamer has acknowledged all that was in the log, and is given what comes */
bool hold_has_begun(const struct hold *h); /* and is given before any rows, since it may have the first half of a transaction; that may end behind them, too */

#endif
