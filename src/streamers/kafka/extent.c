/* extent: of each table's topic, how many partitions its keys lie in, and how far each of these went: note "topic.NAME", "PARTITIONS END...", or "lost".
 *
 * A topic that is made anew ends before where it went, and lacks what it had. The broker's report of the first record that is sent there tells; from then on
 * nothing goes into it, in later runs neither, until the table's load begins anew in it. The note is there from a partition's first record on, and is
 * brought up to date when a run ends: so a crash of dmsrd leaves one that knows of a topic made anew, and not of a broker that came back without its newest.
 *
 * A key stays in its partition, whatever partitions are added: where a load begins anew, it uses all there are. */
#include "kafka.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTITIONS_MAX = 1000000 };

static char *key_of(const struct topic *t) { return mem_printf("topic.%s", t->name); }

static void put(struct kafka *k, const struct topic *t, const char *text)
{
	char *key = key_of(t);
	k->host.note_put(k->host.ctx, key, text, NULL, NULL);
	free(key);
}

static int64_t *end_of(struct topic *t, int32_t partition)
{
	struct extent *x = &t->extent;
	if ((size_t)partition >= x->n) {
		x->ends = mem_realloc_array(x->ends, (size_t)partition + 1, sizeof *x->ends);
		while (x->n <= (size_t)partition)
			x->ends[x->n++] = 0;
	}
	return &x->ends[partition];
}

void extent_read(struct kafka *k, struct topic *t)
{
	char *key = key_of(t), *end;
	const char *p = k->host.note_get(k->host.ctx, key);
	t->extent.is_lost = p && !strcmp(p, "lost");
	if (p && !t->extent.is_lost) {
		atomic_store(&t->extent.partitions, (int32_t)strtol(p, &end, 10));
		for (int32_t i = 0; *end == ' ' && i < PARTITIONS_MAX; i++)
			*end_of(t, i) = strtoll(end, &end, 10);
	}
	t->extent.was_there = p != NULL;
	free(key);
}

static void save(struct kafka *k, struct topic *t)
{
	struct extent *x = &t->extent;
	struct buf b;
	buf_init(&b, SIZE_MAX);
	buf_printf(&b, "%d", (int)atomic_load(&x->partitions));
	for (size_t i = 0; i < x->n; i++)
		buf_printf(&b, " %" PRId64, x->ends[i]);
	buf_byte(&b, 0);
	put(k, t, (const char *)b.data);
	buf_fini(&b);
	x->is_changed = false;
}

void extent_save(struct kafka *k)
{
	while (k->unnoted) {
		struct topic *t = k->unnoted;
		k->unnoted = t->extent.next;
		t->extent.is_unnoted = false;
		if (!t->extent.is_lost && t->extent.n)
			save(k, t);
	}
}

void extent_save_all(struct kafka *k)
{
	extent_save(k);
	for (struct topic *t = k->topics; t; t = t->next)
		if (t->extent.is_changed && !t->extent.is_lost)
			save(k, t);
}

/* ---- lost ---- */

static void lose(struct kafka *k, struct topic *t)
{
	t->extent.is_lost = true;
	put(k, t, "lost");
}

/* Then a load of the table is none of the topic's. */
static bool rows_go_past(const struct kafka *k) { return !strcmp(settings_str(k->settings, "load"), "direct"); }

static void fail(struct kafka *k, const struct topic *t)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EFATAL, "kafka.topic-lost",
		"topic %s lacks records of %s.%s that were acknowledged: it was deleted or made anew, or the brokers lost them", t->name, t->schema, t->table);
	if (rows_go_past(k))
		err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it: with load direct the topic begins there",
			k->host.env.job);
	else
		err_hint(&e, "load the table again: POST /jobs/%s/tables/%s.%s/reload, and start the job; or all of them: DELETE /jobs/%s/positions first",
			k->host.env.job, t->schema, t->table, k->host.env.job);
	kafka_fail(k, &e);
}

/* It is asked for each row: an error is made only when there is one. */
bool extent_is_good(struct kafka *k, const struct topic *t)
{
	if (t->extent.is_lost)
		fail(k, t);
	return !t->extent.is_lost;
}

void extent_made(struct kafka *k, struct topic *t)
{
	if (t->extent.was_there && !t->extent.is_lost)
		lose(k, t);
}

/* ---- on the way out, and back ---- */

void extent_begin(struct kafka *k, struct topic *t)
{
	struct extent *x = &t->extent;
	if (x->was_there || x->n)
		put(k, t, NULL);
	x->was_there = x->is_lost = x->is_changed = false;
	x->n = 0; /* each is noted with its first record */
	atomic_store(&x->partitions, 0);
}

/* librdkafka's, also on a thread of its own. As its murmur2_random has it, which is that of Java's clients, so that who joins topics finds the same key in the
 * same partition. */
int32_t extent_partition(const rd_kafka_topic_t *rkt, const void *key, size_t len, int32_t partitions, void *opaque, void *record)
{
	struct topic *t = opaque;
	int32_t none = 0, n = partitions;
	if (!atomic_compare_exchange_strong(&t->extent.partitions, &none, partitions) && none < partitions) {
		n = none;
		atomic_store(&t->extent.has_more, true);
	}
	return rd_kafka_msg_partitioner_murmur2(rkt, key, len, n, opaque, record);
}

static void tell_more(struct kafka *k, struct topic *t)
{
	char *text = mem_printf("topic %s has got more partitions: the keys of %s.%s stay in the first %d, so that the changes of each keep their order, "
				"until %s loaded again", t->name, t->schema, t->table, (int)atomic_load(&t->extent.partitions),
		rows_go_past(k) ? "all tables are" : "the table is");
	t->extent.has_told_more = true;
	k->host.notice(k->host.ctx, text);
	free(text);
}

void extent_acknowledged(struct kafka *k, struct topic *t, int32_t partition, int64_t offset)
{
	struct extent *x = &t->extent;
	if (!t->table || offset < 0 || partition < 0)
		return;
	int64_t *end = end_of(t, partition);
	if (offset < *end) {
		log_warn("streamer", k->host.env.job, "topic %s, partition %d: a new record has offset %lld, and it ended at %lld", t->name, (int)partition,
			(long long)offset, (long long)*end);
		lose(k, t);
		extent_is_good(k, t);
		return;
	}
	if (!*end && !x->is_unnoted) {
		x->is_unnoted = true;
		x->next = k->unnoted;
		k->unnoted = t;
	}
	*end = offset + 1;
	x->is_changed = true;
	if (atomic_load(&x->has_more) && !x->has_told_more)
		tell_more(k, t);
}
