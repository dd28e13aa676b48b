/* refused: what a record was that was not taken, so that somebody can do something about it. */
#include "kafka.h"
#include <stdio.h>
#include <stdlib.h>

enum { REPORT_MS = 5000 };

/* Of an error that is told elsewhere. */
static bool is_echo(rd_kafka_resp_err_t code)
{
	return code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE || code == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
		code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT || code == RD_KAFKA_RESP_ERR__STATE;
}

void refused(struct kafka *k, rd_kafka_resp_err_t code, const char *topic)
{
	struct err e = { 0 };
	/* The producer is dead: the report of the record that the broker refused is under way, and says why. */
	if (is_echo(code)) {
		if (!k->is_barred)
			exact_ask_why(k);
		k->is_barred = true;
		loop_timer_start(k->patience, REPORT_MS);
		return;
	}
	kafka_error(&e, code, topic, NULL);
	exact_judge(k, &e);
	kafka_fail(k, &e);
}

/* ---- too large ---- */

static char *table_of(const struct kafka *k, const char *topic, const rd_kafka_message_t *m)
{
	const struct topic *t = map_get(k->by_name, topic, strlen(topic));
	return t && t->table ? mem_printf("%s.%s", t->schema, t->table) : ordered_table(m->payload, m->len);
}

/* Rows in parts are for DMSR's own targets alone, and in a stream from its beginning on. */
static const char *or_native(const struct kafka *k)
{
	return k->is_json && !k->is_table ? "; a job that begins anew can have codec native, which sends in parts what is bigger" : "";
}

void refused_as_too_large(struct kafka *k, const struct topic *t, const struct relation *rel, size_t len)
{
	struct err e = { 0 };
	err_set(&e, DMSR_EFULL, "kafka.record-too-large", "topic %s: a record of %s%s%s has %zu bytes, and record_bytes allows %zu", t->name,
		rel ? rel->schema : "the stream", rel ? "." : "", rel ? rel->name : "", len, k->record_max);
	err_hint(&e, "set record_bytes to %zu or more, and max.message.bytes of that topic (the brokers' message.max.bytes) to %d bytes above it, "
		"or leave the table out%s", len, RECORD_MARGIN, or_native(k));
	kafka_fail(k, &e);
}

void refused_by_broker(struct kafka *k, const rd_kafka_message_t *m, rd_kafka_event_t *ev)
{
	const rd_kafka_message_t *big = m, *next;
	const char *topic = rd_kafka_topic_name(m->rkt);
	struct err e = { 0 };
	if (m->err != RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) {
		refused(k, m->err, topic);
		return;
	}
	while ((next = rd_kafka_event_message_next(ev)))
		if (next->rkt == m->rkt && next->len + next->key_len > big->len + big->key_len)
			big = next;
	char *table = table_of(k, topic, big);
	kafka_error(&e, m->err, topic, NULL);
	char why[sizeof e.message];
	snprintf(why, sizeof why, "%s", e.message);
	err_set(&e, DMSR_EFULL, e.id, "%s: a record of %s has %zu bytes, with others or alone; record_bytes allows %zu, so the topic must take %zu", why,
		table ? table : "the stream", big->len + big->key_len, k->record_max, k->record_max + RECORD_MARGIN);
	err_hint(&e, "set max.message.bytes of topic %s (the brokers' message.max.bytes) to %zu, or lower record_bytes to what it takes less %d%s", topic,
		k->record_max + RECORD_MARGIN, RECORD_MARGIN, or_native(k));
	kafka_fail(k, &e);
	free(table);
}
