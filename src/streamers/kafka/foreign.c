/* foreign: records of another job in the topics of this one: two daemons have a job with the same prefix, or one that was deleted left them.
 *
 * Which is which is told by the job that stands in a record (header dmsr-run: "RUN N JOB"), so that a subscription passes over what is another's, and loses
 * nothing of its own. But who reads the topics otherwise gets both, and a writer without targets sees nobody: so it is told, and the run fails, once for each
 * run of the other job that began after this job's newest (note "foreign.JOB": that run). When the job is started again it goes on.
 *
 *   a target's subscription   another's record of a newer run than the newest of ours
 *   a start                   the same, among the newest records of the stream; without a stream among the shapes, which each run writes anew
 *   a job's first start       what is there is the past: it begins behind it, and gives notice
 *   who reads another's       remembers whose it reads (note "writer.PREFIX": "JOB RUN"; the newest at its first start, and everything up to RUN is the past)
 *
 * Of a job that was deleted and made anew the uid is another, so to who reads its stream it is another job: what changed in between nobody has sent. */
#include "kafka.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- notes ---- */

static char *told_key(const char *writer) { return mem_printf("foreign.%s", writer); }

/* The newest run of that job that was told of. */
static uint64_t told(const struct kafka *k, const char *writer)
{
	char *key = told_key(writer);
	const char *note = k->host.note_get(k->host.ctx, key);
	free(key);
	return note ? strtoull(note, NULL, 10) : 0;
}

static void tell(struct kafka *k, const char *writer, uint64_t run)
{
	char *key = told_key(writer), text[24];
	snprintf(text, sizeof text, "%" PRIu64, run);
	k->host.note_put(k->host.ctx, key, text, NULL, NULL);
	free(key);
}

static char *writer_key(const struct kafka *k) { return mem_printf("writer.%s", k->prefix); }

/* Of a reader. */
static void remember(struct kafka *k, const char *writer, uint64_t run)
{
	char *key = writer_key(k), text[WRITER_MAX + 24];
	snprintf(k->writer, sizeof k->writer, "%s", writer);
	k->past_run = run;
	snprintf(text, sizeof text, "%s %" PRIu64, writer, run);
	k->host.note_put(k->host.ctx, key, text, NULL, NULL);
	free(key);
}

void foreign_open(struct kafka *k)
{
	if (!k->reads_only) {
		stamp_writer(k->host.env.uid, k->writer);
		return;
	}
	char *key = writer_key(k);
	const char *note = k->host.note_get(k->host.ctx, key), *run = note ? strchr(note, ' ') : NULL;
	if (run) {
		snprintf(k->writer, sizeof k->writer, "%.*s", (int)(run - note), note);
		k->past_run = strtoull(run, NULL, 10);
	}
	free(key);
}

/* ---- what is said ---- */

static void say(const struct kafka *k, const char *where, const char *writer, struct err *e)
{
	if (k->reads_only) {
		err_set(e, DMSR_ESTATE, "kafka.foreign", "%s: another job writes there now, whose uid ends in %s, and what was read is that of the "
			"one whose uid ends in %s", where, writer, k->writer);
		err_hint(e, "if that is the job that writes, made anew, load the tables again: stop the job, DELETE /jobs/%s/positions, start it; if it is "
			"not, give it a prefix of its own, and start this one, which goes on", k->host.env.job);
	} else {
		err_set(e, DMSR_ESTATE, "kafka.foreign", "%s: another job writes there, too, whose uid ends in %s", where, writer);
		err_hint(e, "give that job a prefix of its own, or delete it (GET /jobs of each dmsrd on these brokers shows its uid), and start this one: "
			"it goes on with its own, and nothing of it is lost; who reads the topics otherwise has records of both");
	}
}

/* ---- a record ---- */

bool foreign_is(struct kafka *k, const struct stamp *t)
{
	if (!t->writer[0])
		return false;
	if (!k->writer[0] && k->reads_only)
		remember(k, t->writer, 0);
	return k->writer[0] && strcmp(t->writer, k->writer) != 0;
}

/* One of a run that was told of, or is older than ours. */
static void pass(struct kafka *k, const struct stamp *t, const rd_kafka_message_t *m)
{
	if (m->offset < k->scouted_end || k->has_told_foreign)
		return;
	k->has_told_foreign = true;
	char *text = mem_printf("topic %s: records of another job come there, whose uid ends in %s: they are passed over; give it a prefix of its own",
		rd_kafka_topic_name(m->rkt), t->writer);
	k->host.notice(k->host.ctx, text);
	free(text);
}

int foreign_judge(struct kafka *k, const struct stamp *t, const rd_kafka_message_t *m, uint64_t run, struct err *e)
{
	if (t->run <= run || t->run <= k->past_run || t->run <= told(k, t->writer)) {
		pass(k, t, m);
		return 0;
	}
	char *where = mem_printf("topic %s, offset %" PRId64, rd_kafka_topic_name(m->rkt), m->offset);
	tell(k, t->writer, t->run);
	say(k, where, t->writer, e);
	free(where);
	return e->code;
}

/* ---- at start ---- */

static void keep_newer(struct newest *n, const struct stamp *t)
{
	if (t->run <= n->run)
		return;
	n->run = t->run;
	memcpy(n->writer, t->writer, sizeof n->writer);
}

void foreign_see(struct kafka *k, const rd_kafka_message_t *m)
{
	struct stamp t;
	stamp_read_run(m, &t);
	if (!t.writer[0])
		return;
	keep_newer(&k->newest, &t);
	if (strcmp(t.writer, k->writer) != 0)
		keep_newer(&k->foreign, &t);
}

static void begin_behind(struct kafka *k, const struct topic *t)
{
	char *text = mem_printf("topic %s has records of another job, whose uid ends in %s: this one begins behind them; if that one is not deleted, give one "
				"of the two a prefix of its own", t->name, k->foreign.writer);
	k->host.notice(k->host.ctx, text);
	free(text);
}

bool foreign_is_ahead(struct kafka *k, const struct topic *t)
{
	const struct newest *f = &k->foreign;
	struct err e = { 0 };
	if (k->reads_only) {
		if (!k->writer[0] && k->newest.run)
			remember(k, k->newest.writer, k->newest.run);
		return false; /* what comes before theirs is read */
	}
	if (!f->run)
		return false;
	if (k->stream ? !k->host.note_get(k->host.ctx, "begin") : !k->last_run) {
		begin_behind(k, t);
		return false;
	}
	if (f->run <= k->last_run || f->run <= told(k, f->writer))
		return false;
	char *where = mem_printf("topic %s", t->name);
	tell(k, f->writer, f->run);
	say(k, where, f->writer, &e);
	free(where);
	kafka_fail(k, &e);
	return true;
}
