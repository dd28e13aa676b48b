/* record: what stands in a record's headers beside its bytes. */
#include "kafka.h"
#include <stdio.h>
#include <stdlib.h>

static bool header(const rd_kafka_headers_t *h, const char *name, char *out, size_t room)
{
	const void *value;
	size_t len;
	if (rd_kafka_header_get_last(h, name, &value, &len) || !value || len >= room)
		return false;
	memcpy(out, value, len);
	out[len] = 0;
	return true;
}

/* It is written for each row: snprintf would be a tenth of the record's cost. */
const char *stamp_run(const struct kafka *k, char out[RUN_TEXT_MAX], size_t *all)
{
	char *p = out + RUN_TEXT_MAX;
	size_t len = strlen(k->run), of = strlen(k->writer);
	uint64_t n = k->nrecords + 1;
	p -= of;
	memcpy(p, k->writer, of);
	if (of)
		*--p = ' ';
	do
		*--p = (char)('0' + n % 10);
	while ((n /= 10));
	*--p = ' ';
	p -= len;
	*all = (size_t)(out + RUN_TEXT_MAX - p);
	return memcpy(p, k->run, len);
}

/* What is random in it. */
void stamp_writer(const char *uid, char out[WRITER_MAX])
{
	enum { LEN = 8 };
	size_t len = strlen(uid);
	snprintf(out, WRITER_MAX, "%.8s", len > LEN ? uid + len - LEN : uid);
}

static size_t put_event(char *to, uint64_t event)
{
	char digits[20], *p = digits + sizeof digits;
	do
		*--p = (char)('0' + event % 10);
	while ((event /= 10));
	size_t n = (size_t)(digits + sizeof digits - p);
	memcpy(to, p, n);
	memcpy(to + n, ":0/0", 5);
	return n + 4;
}

const char *stamp_position(struct known_row *known, const struct position *at, size_t *len)
{
	if (at->kind != POSITION_LSN || at->event == POSITION_WHOLE || at->flush) {
		known->position_len = 0;
		*len = strlen(position_format(at, known->position));
		return known->position;
	}
	if (!known->position_len || known->at.lsn != at->lsn || known->at.server != at->server) {
		known->at = (struct position){ .kind = POSITION_LSN, .server = at->server, .lsn = at->lsn };
		position_format(&known->at, known->position); /* pg:SERVER:LSN:0:0/0 */
		known->position_len = strlen(known->position) - (sizeof "0:0/0" - 1);
	}
	*len = known->position_len + put_event(known->position + known->position_len, at->event);
	return known->position;
}

const char *stamp_schema(struct known_row *known, const struct relation *rel)
{
	if (known->rel == rel)
		return known->schema;
	known->rel = rel;
	known->topic = NULL;
	return schema_key(rel, known->schema);
}

static void read_run(const rd_kafka_headers_t *h, struct stamp *out)
{
	char text[RUN_TEXT_MAX + 1], *end;
	if (!header(h, "dmsr-run", text, sizeof text))
		return;
	out->run = strtoull(text, &end, 10);
	out->nth = strtoull(end, &end, 10);
	if (*end == ' ')
		snprintf(out->writer, sizeof out->writer, "%.*s", WRITER_MAX - 1, end + 1);
}

void stamp_read_run(const rd_kafka_message_t *m, struct stamp *out)
{
	rd_kafka_headers_t *h;
	*out = (struct stamp){ .part = 1, .parts = 1 };
	if (!rd_kafka_message_headers(m, &h))
		read_run(h, out);
}

int stamp_read(const rd_kafka_message_t *m, struct stamp *out, struct err *e)
{
	rd_kafka_headers_t *h;
	char text[POSITION_TEXT_MAX], *end;
	*out = (struct stamp){ .part = 1, .parts = 1 };
	if (rd_kafka_message_headers(m, &h) || !header(h, "dmsr-pos", text, sizeof text) || position_parse(text, &out->at, NULL))
		return err_set(e, DMSR_EPROTO, "kafka.foreign", "topic %s, offset %lld: the record has no position (dmsr-pos): somebody else writes there",
			rd_kafka_topic_name(m->rkt), (long long)m->offset);
	read_run(h, out);
	if (!header(h, "dmsr-part", text, sizeof text))
		return 0;
	out->part = (uint32_t)strtoul(text, &end, 10);
	out->parts = *end == '/' ? (uint32_t)strtoul(end + 1, &end, 10) : 0;
	if (*end || !out->part || out->part > out->parts)
		return err_set(e, DMSR_EPROTO, "kafka.foreign", "topic %s, offset %lld: \"%s\" is no part of a record", rd_kafka_topic_name(m->rkt),
			(long long)m->offset, text);
	return 0;
}
