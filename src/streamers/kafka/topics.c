/* topics: which there are, and making those that are missing, some in one request. A topic is used when the broker has said that it is there; and when a
 * table's load is to begin in it, whether it is compacted. */
#include "kafka.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAKE_TIMEOUT_MS = 30000, TOPIC_NAME_MAX = 249 };

/* As the producer's options have it, and known in the reports. */
static rd_kafka_topic_t *handle_of(struct kafka *k, struct topic *t)
{
	rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(client_handle(k->producer));
	rd_kafka_topic_conf_set_opaque(conf, t);
	rd_kafka_topic_conf_set_partitioner_cb(conf, extent_partition);
	return rd_kafka_topic_new(client_handle(k->producer), t->name, conf);
}

static struct topic *add(struct kafka *k, char *name /* taken */, const char *schema, const char *table)
{
	struct topic *t = mem_zalloc(sizeof *t);
	*t = (struct topic){ .next = k->topics, .name = name, .schema = mem_strdup(schema), .table = mem_strdup(table) };
	t->gate = gate_new(t);
	t->rkt = k->producer ? handle_of(k, t) : NULL;
	t->state = !k->reads_only && settings_bool(k->settings, "create_topics") ? TOPIC_NEW : TOPIC_READY;
	k->topics = t;
	map_put(k->by_name, name, strlen(name), t);
	return t;
}

struct topic *topics_of(struct kafka *k, const struct relation *rel)
{
	char key[512];
	int n = snprintf(key, sizeof key, "%.250s%c%.250s", rel->schema, 0, rel->name);
	struct topic *t = map_get(k->by_table, key, (size_t)n);
	struct err e = { 0 };
	if (t)
		return t;
	char *name = kafka_topic_name(k->prefix, rel->schema, rel->name);
	const struct topic *other = map_get(k->by_name, name, strlen(name));
	if (strlen(name) > TOPIC_NAME_MAX) {
		err_set(&e, DMSR_EINVAL, "kafka.topic-name", "%s.%s: its topic would be called %s, and Kafka's names have at most %d characters",
			rel->schema, rel->name, name,
			TOPIC_NAME_MAX);
		err_hint(&e, "choose a shorter prefix, or exclude the table");
	} else if (other) {
		err_set(&e, DMSR_EINVAL, "kafka.topic-name", "%s.%s and %s.%s would have the same topic %s, since Kafka allows few characters in names",
			rel->schema, rel->name,
			other->schema ? other->schema : "", other->table ? other->table : "", name);
		err_hint(&e, "exclude one of the two tables, or rename it");
	}
	if (err_is_set(&e)) {
		kafka_fail(k, &e);
		free(name);
		return NULL;
	}
	t = add(k, name, rel->schema, rel->name);
	map_put(k->by_table, key, (size_t)n, t);
	extent_read(k, t);
	return t;
}

/* ---- making ---- */

static void configure(const struct kafka *k, const struct topic *t, rd_kafka_NewTopic_t *nt)
{
	char text[24];
	int64_t retention = settings_int(k->settings, "retention");
	snprintf(text, sizeof text, "%lld", (long long)retention);
	rd_kafka_NewTopic_set_config(nt, "cleanup.policy", t->is_compacted ? "compact" : "delete");
	/* By the broker's clock, which also says what is too old to keep, or too new to take. When it happened stands in the record. */
	rd_kafka_NewTopic_set_config(nt, "message.timestamp.type", "LogAppendTime");
	if (retention)
		rd_kafka_NewTopic_set_config(nt, "retention.ms", text);
}

/* Asks for all that are NEW. */
static void make(struct kafka *k)
{
	size_t n = 0;
	char why[256];
	for (const struct topic *t = k->topics; t; t = t->next)
		n += t->state == TOPIC_NEW;
	rd_kafka_NewTopic_t **all = mem_alloc((n + 1) * sizeof *all);
	int replication = (int)settings_int(k->settings, "replication");
	n = 0;
	for (struct topic *t = k->topics; t; t = t->next) {
		if (t->state != TOPIC_NEW)
			continue;
		int partitions = t->is_single ? 1 : (int)settings_int(k->settings, "partitions");
		all[n] = rd_kafka_NewTopic_new(t->name, partitions, replication ? replication : -1, why, sizeof why);
		if (!all[n]) {
			struct err e = { 0 };
			err_set(&e, DMSR_EINVAL, "kafka.topic-name", "topic %s: %s", t->name, why);
			kafka_fail(k, &e);
			continue;
		}
		configure(k, t, all[n++]);
		t->state = TOPIC_MAKING;
		k->nmaking++;
	}
	rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(client_handle(k->producer), RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_AdminOptions_set_request_timeout(o, MAKE_TIMEOUT_MS, why, sizeof why);
	rd_kafka_AdminOptions_set_operation_timeout(o, MAKE_TIMEOUT_MS - 5000, why, sizeof why);
	if (n)
		rd_kafka_CreateTopics(client_handle(k->producer), all, n, o, client_queue(k->producer));
	rd_kafka_AdminOptions_destroy(o);
	rd_kafka_NewTopic_destroy_array(all, n);
	free(all);
}

static void made(struct kafka *k, const rd_kafka_topic_result_t *r)
{
	const char *name = rd_kafka_topic_result_name(r);
	rd_kafka_resp_err_t code = rd_kafka_topic_result_error(r);
	struct topic *t = map_get(k->by_name, name, strlen(name));
	struct err e = { 0 };
	if (!t || t->state != TOPIC_MAKING)
		return;
	k->nmaking--;
	t->state = TOPIC_READY;
	if (!code) {
		t->past = PAST_NONE;
		extent_made(k, t);
		log_info("streamer", k->host.env.job, "topic %s was made", name);
	} else if (code != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
		kafka_error(&e, code, name, rd_kafka_topic_result_error_string(r));
		err_prefix(&e, "the topic cannot be made");
		kafka_fail(k, &e);
	}
	kafka_wake(k);
}

/* ---- asking ---- */

static void ask(struct kafka *k, const struct batch *b)
{
	char why[256];
	size_t n = 0;
	rd_kafka_ConfigResource_t **all = mem_alloc((b->nrels + 1) * sizeof *all);
	for (uint32_t i = 0; i < b->nrels; i++) {
		struct topic *t = topics_of(k, b->rels[i]);
		if (!t || t->state != TOPIC_READY || t->past != PAST_UNKNOWN)
			continue;
		t->past = PAST_ASKED;
		all[n++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, t->name);
	}
	rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(client_handle(k->producer), RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_AdminOptions_set_request_timeout(o, MAKE_TIMEOUT_MS, why, sizeof why);
	rd_kafka_DescribeConfigs(client_handle(k->producer), all, n, o, client_queue(k->producer));
	rd_kafka_AdminOptions_destroy(o);
	rd_kafka_ConfigResource_destroy_array(all, n);
	free(all);
}

const char *topics_entry(const rd_kafka_ConfigResource_t *r, const char *name)
{
	size_t n;
	const rd_kafka_ConfigEntry_t **all = rd_kafka_ConfigResource_configs(r, &n);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(rd_kafka_ConfigEntry_name(all[i]), name))
			return rd_kafka_ConfigEntry_value(all[i]);
	return NULL;
}

static bool is_deleted_only(const rd_kafka_ConfigResource_t *r)
{
	const char *policy = topics_entry(r, "cleanup.policy");
	return policy && !strcmp(policy, "delete");
}

/* One whose settings may not be read is taken for compacted: it gets nothing that such a one would refuse. */
static void told(struct kafka *k, const rd_kafka_ConfigResource_t *r)
{
	const char *name = rd_kafka_ConfigResource_name(r);
	struct topic *t = map_get(k->by_name, name, strlen(name));
	if (!t || t->past != PAST_ASKED)
		return;
	t->past = !rd_kafka_ConfigResource_error(r) && is_deleted_only(r) ? PAST_ROWS : PAST_COMPACTED;
	if (rd_kafka_ConfigResource_error(r))
		log_info("streamer", k->host.env.job, "topic %s: its settings are not told: %s", name, rd_kafka_ConfigResource_error_string(r));
	kafka_wake(k);
}

static void answered(struct kafka *k, rd_kafka_event_t *ev, const rd_kafka_DescribeConfigs_result_t *result)
{
	struct err e = { 0 };
	size_t n = 0;
	if (rd_kafka_event_error(ev)) {
		kafka_error(&e, rd_kafka_event_error(ev), NULL, NULL);
		err_prefix(&e, "the settings of the job's topics cannot be read");
		kafka_fail(k, &e);
		return;
	}
	const rd_kafka_ConfigResource_t **all = rd_kafka_DescribeConfigs_result_resources(result, &n);
	for (size_t i = 0; i < n; i++)
		told(k, all[i]);
}

void topics_event(struct kafka *k, rd_kafka_event_t *ev)
{
	const rd_kafka_DescribeConfigs_result_t *configs = rd_kafka_event_DescribeConfigs_result(ev);
	const rd_kafka_CreateTopics_result_t *all = rd_kafka_event_CreateTopics_result(ev);
	struct err e = { 0 };
	size_t n = 0;
	if (configs)
		answered(k, ev, configs);
	if (!all)
		return;
	if (rd_kafka_event_error(ev)) { /* of the request, not of a topic */
		kafka_error(&e, rd_kafka_event_error(ev), NULL, rd_kafka_event_error_string(ev));
		err_prefix(&e, "the job's topics cannot be made");
		kafka_fail(k, &e);
		return;
	}
	const rd_kafka_topic_result_t **results = rd_kafka_CreateTopics_result_topics(all, &n);
	for (size_t i = 0; i < n; i++)
		made(k, results[i]);
}

bool topics_ready(struct kafka *k, const struct batch *b)
{
	bool any_new = false, any_unknown = false, all = true;
	for (uint32_t i = 0; i < b->nrels; i++) {
		const struct topic *t = topics_of(k, b->rels[i]);
		if (!t)
			return false;
		any_new |= t->state == TOPIC_NEW;
		all &= t->state == TOPIC_READY && (!b->is_load || t->past > PAST_ASKED);
		any_unknown |= b->is_load && t->state == TOPIC_READY && t->past == PAST_UNKNOWN;
	}
	if (any_new)
		make(k);
	if (any_unknown)
		ask(k, b);
	return all;
}

void topics_start(struct kafka *k)
{
	char *prefix = kafka_topic_name(k->prefix, NULL, NULL);
	k->schemas = add(k, mem_printf("%s.__schemas", prefix), NULL, NULL);
	k->schemas->is_single = k->schemas->is_compacted = true;
	if (k->is_ordered || k->is_indexed) {
		k->stream = add(k, mem_printf("%s.%s", prefix, k->is_indexed ? "__words" : "__stream"), NULL, NULL);
		k->stream->is_single = true;
	}
	if (k->known) {
		k->positions = add(k, mem_printf("%s.__positions", prefix), NULL, NULL);
		k->positions->is_single = k->positions->is_compacted = true;
	}
	if (k->transactions) {
		k->transactions_topic = add(k, mem_printf("%s.__transactions", prefix), NULL, NULL);
		k->transactions_topic->is_single = true;
	}
	free(prefix);
	if (k->schemas->state == TOPIC_NEW)
		make(k);
}

static void drop_all(void *arg)
{
	struct topic *next;
	for (struct topic *t = arg; t; t = next) {
		next = t->next;
		free(t->extent.ends);
		free(t->name);
		free(t->schema);
		free(t->table);
		free(t);
	}
}

/* A record that was sent before its topic's partitions were known is given one of these (extent_partition) when they are, on librdkafka's thread, also when
 * nobody here uses the topic any more. */
void topics_free(struct kafka *k)
{
	for (struct topic *t = k->topics; t; t = t->next) {
		if (t->rkt)
			rd_kafka_topic_destroy(t->rkt);
		gate_free(t->gate);
		t->gate = NULL;
	}
	if (k->producer)
		client_keep(k->producer, drop_all, k->topics);
	else
		drop_all(k->topics);
	k->topics = NULL;
	k->opening = NULL;
	k->unnoted = NULL;
}
