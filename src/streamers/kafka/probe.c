/* probe: would a job come through with this broker? In come the options, and the tables and targets of a job, if there is one; out go findings. It connects,
 * looks and changes nothing: topics are asked for as if they were to be made (validate only), since the broker alone knows its rights and policies.
 *
 * librdkafka's metadata call blocks, so all of it runs on a thread of its own, from values that are copied before. */
#include "kafka.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TRY_MS = 500, TRIES = 16, ASK_MS = 10000, SLICE_MS = 100 };
enum { TOPICS_MAX = 500, SAME_MAX = 20, FOUND_MAX = 256 };
enum { SCRAM_MENDED = 0x02060100 };

/* A topic of the job. */
struct wanted {
	char *name;
	bool is_stream, is_compacted, is_single, is_there;
	bool is_fetched;                /* a table's, whose rows targets fetch from there */
};

struct found {
	char *id;
	enum dmsr_check_level level;
	char *object, *message, *fix;
	bool retriable;
	unsigned more;                  /* of the same id, that are not told one by one */
};

struct look {
	struct dmsr_probe_host host;
	struct worker *worker;
	bool is_done;
	/* what to look for */
	rd_kafka_conf_t *conf;          /* NULL: rk has it */
	rd_kafka_type_t type;
	char *brokers, *user;
	struct wanted *wanted;
	size_t nwanted;
	struct map *by_name;
	bool makes_topics, is_scram;
	int partitions, replication;
	int64_t retention, record_max, transaction_ms; /* transaction_ms 0: not exactly_once */
	int brokers_n;
	/* the thread's */
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	int32_t broker;
	struct err error;
	struct found found[FOUND_MAX];
	size_t nfound;
};

/* ---- findings ---- */

/* object NULL: the brokers. */
static void add(struct look *l, enum dmsr_check_level level, const char *id, const char *object, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
static void add(struct look *l, enum dmsr_check_level level, const char *id, const char *object, const char *fix, const char *fmt, ...)
{
	struct found *last = NULL;
	unsigned same = 0;
	char text[600];
	va_list ap;
	for (size_t i = 0; i < l->nfound; i++)
		if (!strcmp(l->found[i].id, id)) {
			last = &l->found[i];
			same++;
		}
	if (same >= SAME_MAX || l->nfound == FOUND_MAX) {
		if (last)
			last->more++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	l->found[l->nfound++] = (struct found){ mem_strdup(id), level, mem_strdup(object ? object : l->brokers), mem_strdup(text), mem_strdup(fix), false, 0 };
}

static void add_error(struct look *l, const char *object, const struct err *e)
{
	const size_t n = l->nfound;
	add(l, e->retriable ? DMSR_CHECK_WARNING : DMSR_CHECK_ERROR, e->id, object, e->hint[0] ? e->hint : NULL, "%s", e->message);
	if (l->nfound > n)
		l->found[n].retriable = e->retriable;
}

/* ---- the brokers ---- */

static void on_event(struct look *l, rd_kafka_event_t *ev, struct err *first, bool *is_down)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(ev);
	const char *text = rd_kafka_event_error_string(ev);
	struct err e = { 0 };
	char fatal[256], advertised[ADDRESS_MAX];
	if (rd_kafka_event_type(ev) != RD_KAFKA_EVENT_ERROR)
		return;
	if (rd_kafka_event_error_is_fatal(ev)) {
		code = rd_kafka_fatal_error(l->rk, fatal, sizeof fatal);
		text = fatal;
	}
	*is_down |= code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
	kafka_error(&e, code, NULL, text);
	if (kafka_advertised(text, l->brokers, advertised))
		kafka_not_there(&e, l->brokers, advertised, text);
	if (!err_is_set(first) || (first->code != DMSR_EAUTH && e.code == DMSR_EAUTH))
		*first = e;
}

/* False: l->error says why. When all brokers are down it is tried once more: a connection may have broken off before it said what is wrong. */
static bool connect_to(struct look *l, const struct rd_kafka_metadata **md)
{
	struct err first = { 0 };
	bool is_down = false;
	for (int left = TRIES; left > 0 && first.code != DMSR_EAUTH && !worker_is_leaving(l->worker); left--) {
		rd_kafka_event_t *ev;
		if (!rd_kafka_metadata(l->rk, 1, NULL, md, TRY_MS))
			return true;
		while ((ev = rd_kafka_queue_poll(l->queue, SLICE_MS))) {
			on_event(l, ev, &first, &is_down);
			rd_kafka_event_destroy(ev);
		}
		if (is_down && left > 2)
			left = 2;
	}
	if (err_is_set(&first))
		l->error = first;
	else
		kafka_error(&l->error, RD_KAFKA_RESP_ERR__TIMED_OUT, l->brokers, "no broker has answered in time");
	if (l->is_scram && !strcmp(l->error.id, "kafka.auth") && rd_kafka_version() < SCRAM_MENDED)
		err_hint(&l->error, "check user and password. If the brokers are Kafka 4: librdkafka %s sends its nonce twice, as all before 2.6.1 do, and "
			"Kafka 4 refuses that: use PLAIN with security sasl_ssl, or a newer librdkafka", rd_kafka_version_str());
	return false;
}

/* ---- questions to them ---- */

/* The answer, or NULL: it did not come in time, or nobody waits for it any more. */
static rd_kafka_event_t *answer(struct look *l, rd_kafka_queue_t *q)
{
	rd_kafka_event_t *ev = NULL;
	for (int waited = 0; !ev && waited < ASK_MS && !worker_is_leaving(l->worker); waited += SLICE_MS)
		ev = rd_kafka_queue_poll(q, SLICE_MS);
	return ev;
}

static rd_kafka_AdminOptions_t *options(struct look *l, rd_kafka_admin_op_t op)
{
	char why[256];
	rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(l->rk, op);
	rd_kafka_AdminOptions_set_request_timeout(o, ASK_MS - 1000, why, sizeof why);
	if (op == RD_KAFKA_ADMIN_OP_CREATETOPICS)
		rd_kafka_AdminOptions_set_validate_only(o, 1, why, sizeof why);
	return o;
}

/* -1: not there, or without a limit. */
static int64_t number(const rd_kafka_ConfigResource_t *r, const char *name)
{
	const char *s = topics_entry(r, name);
	return s && *s ? strtoll(s, NULL, 10) : -1;
}

static void describe(struct look *l, rd_kafka_ConfigResource_t **all, size_t n, void (*fn)(struct look *l, const rd_kafka_ConfigResource_t *r))
{
	rd_kafka_queue_t *q = rd_kafka_queue_new(l->rk);
	rd_kafka_AdminOptions_t *o = options(l, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_DescribeConfigs(l->rk, all, n, o, q);
	rd_kafka_event_t *ev = answer(l, q);
	size_t found = 0;
	const rd_kafka_ConfigResource_t **rs = ev && !rd_kafka_event_error(ev) ?
		rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(ev), &found) :
		NULL;
	if (!rs && !worker_is_leaving(l->worker))
		add(l, DMSR_CHECK_WARNING, "kafka.describe", NULL, NULL, "the brokers do not tell their configuration, so it was not looked at: %s",
			ev ? rd_kafka_event_error_string(ev) : "no answer in time");
	for (size_t i = 0; i < found; i++) {
		if (!rd_kafka_ConfigResource_error(rs[i])) {
			fn(l, rs[i]);
			continue;
		}
		bool is_topic = rd_kafka_ConfigResource_type(rs[i]) == RD_KAFKA_RESOURCE_TOPIC;
		char fix[512];
		snprintf(fix, sizeof fix, "kafka-acls.sh --bootstrap-server %s --add --allow-principal User:%s --operation DescribeConfigs %s%s", l->brokers,
			l->user ? l->user : "ANONYMOUS", is_topic ? "--topic " : "--cluster",
			is_topic ? rd_kafka_ConfigResource_name(rs[i]) : "");
		add(l, DMSR_CHECK_WARNING, "kafka.describe", is_topic ? rd_kafka_ConfigResource_name(rs[i]) : NULL, fix,
			"how long records are kept and how big they may be was not looked at: %s", rd_kafka_ConfigResource_error_string(rs[i]));
	}
	if (ev)
		rd_kafka_event_destroy(ev);
	rd_kafka_queue_destroy(q);
	rd_kafka_AdminOptions_destroy(o);
}

/* ---- what is found there ---- */

static void check_size(struct look *l, const char *topic, int64_t max)
{
	char fix[128];
	if (max < 0 || l->record_max + RECORD_MARGIN <= max)
		return;
	snprintf(fix, sizeof fix, "set record_bytes to %lld, or raise %s to %lld", (long long)(max > RECORD_MARGIN ? max - RECORD_MARGIN : 0),
		topic ? "the topic's max.message.bytes" : "the brokers' message.max.bytes", (long long)(l->record_max + RECORD_MARGIN));
	add(l, DMSR_CHECK_ERROR, "kafka.record-too-large", topic, fix, "%s takes records of up to %lld bytes, and record_bytes (%lld) may need %lld",
		topic ? topic : "the broker", (long long)max,
		(long long)l->record_max, (long long)(l->record_max + RECORD_MARGIN));
}

static void check_retention(struct look *l, const char *topic, bool is_there, int64_t ms, int64_t bytes)
{
	char fix[600], age[64] = "", size[64] = "";
	if (ms < 0 && bytes < 0)
		return;
	if (ms >= 0)
		snprintf(age, sizeof age, "%.4g hours", (double)ms / 3600000);
	if (bytes >= 0)
		snprintf(size, sizeof size, "%s%lld bytes", ms >= 0 ? " and " : "", (long long)bytes);
	snprintf(fix, sizeof fix, "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config "
		"retention.ms=-1,retention.bytes=-1%s", l->brokers, topic,
		is_there ? "" : "   (when the job has made it)");
	add(l, DMSR_CHECK_WARNING, "kafka.retention", topic, fix, "it is kept for %s%s: a target that is behind by more loses its place",
		age, size);
}

static const struct wanted *stream_of(const struct look *l)
{
	for (size_t i = 0; i < l->nwanted; i++)
		if (l->wanted[i].is_stream)
			return &l->wanted[i];
	return NULL;
}

static void check_transactions(struct look *l, const rd_kafka_ConfigResource_t *r)
{
	int64_t max = number(r, "transaction.max.timeout.ms"), replicas = number(r, "transaction.state.log.replication.factor");
	char fix[128];
	snprintf(fix, sizeof fix, "set transaction_timeout to %lldms, or raise transaction.max.timeout.ms of the brokers", (long long)max);
	if (max >= 0 && l->transaction_ms > max)
		add(l, DMSR_CHECK_ERROR, "kafka.transaction-timeout", "transaction_timeout", fix, "transaction_timeout is %lld ms, and the brokers allow %lld",
			(long long)l->transaction_ms, (long long)max);
	snprintf(fix, sizeof fix, "set transaction.state.log.replication.factor of the brokers to %d", l->brokers_n);
	if (replicas > l->brokers_n)
		add(l, DMSR_CHECK_WARNING, "kafka.transactions", NULL, fix,
			"the brokers are %d, and transactions want %lld replicas of their log: if that is not there yet, none can begin", l->brokers_n,
			(long long)replicas);
}

static void on_broker(struct look *l, const rd_kafka_ConfigResource_t *r)
{
	const struct wanted *stream = stream_of(l);
	int64_t ms = number(r, "log.retention.ms"), minutes = number(r, "log.retention.minutes"), hours = number(r, "log.retention.hours");
	check_size(l, NULL, number(r, "message.max.bytes"));
	if (l->transaction_ms)
		check_transactions(l, r);
	if (!stream || stream->is_there)
		return;
	if (!topics_entry(r, "log.retention.ms"))
		ms = topics_entry(r, "log.retention.minutes") ? minutes * 60000 : hours < 0 ? -1 : hours * 3600000;
	check_retention(l, stream->name, false, l->retention ? l->retention : ms, number(r, "log.retention.bytes"));
}

static void on_topic(struct look *l, const rd_kafka_ConfigResource_t *r)
{
	const char *name = rd_kafka_ConfigResource_name(r), *policy = topics_entry(r, "cleanup.policy");
	const struct wanted *w = map_get(l->by_name, name, strlen(name));
	bool is_compacted = policy && strstr(policy, "compact"), is_deleted = policy && strstr(policy, "delete");
	char fix[600];
	snprintf(fix, sizeof fix, "kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=%s",
		l->brokers, name, w->is_compacted ? "compact" : "delete");
	check_size(l, name, number(r, "max.message.bytes"));
	if (w->is_stream && is_compacted)
		add(l, DMSR_CHECK_ERROR, "kafka.topic-cleanup", name, fix, "it is compacted: of the stream only the newest record of each key would stay");
	if (!w->is_stream && w->is_compacted && (is_deleted || !is_compacted))
		add(l, DMSR_CHECK_WARNING, "kafka.topic-cleanup", name, fix, "it is not only compacted: what does not change will go");
	if (w->is_fetched && is_compacted)
		add(l, DMSR_CHECK_ERROR, "kafka.topic-cleanup", name, fix,
			"it is compacted: of each row only the newest record stays, and the job's targets need every one");
	if (!w->is_stream && !w->is_fetched && !w->is_compacted && is_compacted)
		add(l, DMSR_CHECK_WARNING, "kafka.topic-cleanup", name, fix,
			"it is compacted: of each row the newest record stays, and a table without a key cannot be written to it");
	if ((w->is_stream || w->is_fetched) && is_deleted)
		check_retention(l, name, true, number(r, "retention.ms"), number(r, "retention.bytes"));
}

static void on_partitions(struct look *l, const struct wanted *w, int n)
{
	int want = w->is_single ? 1 : l->partitions;
	char fix[300];
	if (n == want)
		return;
	snprintf(fix, sizeof fix, "set partitions to %d, or choose another prefix", n);
	if (w->is_single)
		add(l, DMSR_CHECK_WARNING, "kafka.topic-partitions", w->name, "choose another prefix, or make the topic anew with one partition",
			"%s is there with %d partitions: only the first is used", w->name, n);
	else
		add(l, DMSR_CHECK_WARNING, "kafka.topic-partitions", w->name, fix, "it is there with %d partitions, and would be made with %d: it stays so",
			n, want);
}

static void look_at_topics(struct look *l, const struct rd_kafka_metadata *md)
{
	rd_kafka_ConfigResource_t *all[TOPICS_MAX];
	size_t n = 0;
	for (int i = 0; i < md->topic_cnt; i++) {
		const rd_kafka_metadata_topic_t *t = &md->topics[i];
		struct wanted *w = map_get(l->by_name, t->topic, strlen(t->topic));
		if (!w || t->err)
			continue;
		w->is_there = true;
		on_partitions(l, w, t->partition_cnt);
		if (n < TOPICS_MAX)
			all[n++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, w->name);
	}
	if (n)
		describe(l, all, n, on_topic);
	rd_kafka_ConfigResource_destroy_array(all, n);
}

/* ---- topics that are not there ---- */

static rd_kafka_NewTopic_t *new_topic(struct look *l, const struct wanted *w)
{
	char why[256], ms[24];
	rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(w->name, w->is_single ? 1 : l->partitions, l->replication ? l->replication : -1, why, sizeof why);
	if (!t) {
		add(l, DMSR_CHECK_ERROR, "kafka.topic-name", w->name, "choose another prefix", "topic %s: %s", w->name, why);
		return NULL;
	}
	snprintf(ms, sizeof ms, "%lld", (long long)l->retention);
	rd_kafka_NewTopic_set_config(t, "cleanup.policy", w->is_compacted ? "compact" : "delete");
	if (l->retention)
		rd_kafka_NewTopic_set_config(t, "retention.ms", ms);
	return t;
}

static void on_creatable(struct look *l, const rd_kafka_topic_result_t *r)
{
	rd_kafka_resp_err_t code = rd_kafka_topic_result_error(r);
	const char *name = rd_kafka_topic_result_name(r);
	struct err e = { 0 };
	if (!code || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
		return;
	kafka_error(&e, code, name, rd_kafka_topic_result_error_string(r));
	err_prefix(&e, "the topic could not be made");
	add_error(l, name, &e);
}

static void ask_for(struct look *l, rd_kafka_NewTopic_t **all, size_t n)
{
	rd_kafka_queue_t *q = rd_kafka_queue_new(l->rk);
	rd_kafka_AdminOptions_t *o = options(l, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	struct err e = { 0 };
	size_t found = 0;
	rd_kafka_CreateTopics(l->rk, all, n, o, q);
	rd_kafka_event_t *ev = answer(l, q);
	if (!ev || rd_kafka_event_error(ev)) {
		kafka_error(&e, ev ? rd_kafka_event_error(ev) : RD_KAFKA_RESP_ERR__TIMED_OUT, NULL, ev ? rd_kafka_event_error_string(ev) : NULL);
		err_prefix(&e, "whether the job's topics could be made is not known");
		add_error(l, NULL, &e);
	} else {
		const rd_kafka_topic_result_t **rs = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &found);
		for (size_t i = 0; i < found; i++)
			on_creatable(l, rs[i]);
	}
	if (ev)
		rd_kafka_event_destroy(ev);
	rd_kafka_queue_destroy(q);
	rd_kafka_AdminOptions_destroy(o);
}

static void look_at_missing(struct look *l)
{
	rd_kafka_NewTopic_t *all[TOPICS_MAX];
	size_t n = 0;
	for (size_t i = 0; i < l->nwanted && n < TOPICS_MAX; i++) {
		const struct wanted *w = &l->wanted[i];
		if (w->is_there)
			continue;
		if (l->type == RD_KAFKA_CONSUMER)
			add(l, DMSR_CHECK_ERROR, "kafka.topic-missing", w->name, "start the job that writes the stream, with layout ordered or both; or set "
				"prefix to that job's", "the topic is not there");
		else if (!l->makes_topics)
			add(l, DMSR_CHECK_ERROR, "kafka.topic-missing", w->name, "make it, or set create_topics to true", "the topic is not there");
		else if ((all[n] = new_topic(l, w)))
			n++;
	}
	if (n)
		ask_for(l, all, n);
	rd_kafka_NewTopic_destroy_array(all, n);
}

/* ---- on the thread ---- */

static void look_around(struct look *l, const struct rd_kafka_metadata *md)
{
	char id[16];
	add(l, DMSR_CHECK_OK, "kafka.brokers", l->brokers, NULL, md->broker_cnt == 1 ? "%d broker answers" : "one of %d brokers answers",
		md->broker_cnt);
	if (l->is_scram && rd_kafka_version() < SCRAM_MENDED)
		add(l, DMSR_CHECK_WARNING, "kafka.scram", "sasl_mechanism", "use PLAIN with security sasl_ssl, or a newer librdkafka",
			"librdkafka %s sends its nonce twice in SCRAM, as all before 2.6.1 do: Kafka 4 would refuse that", rd_kafka_version_str());
	if (l->replication > md->broker_cnt)
		add(l, DMSR_CHECK_ERROR, "kafka.replication", "replication", "set replication to no more than there are brokers",
			"replication is %d, and the brokers are %d", l->replication, md->broker_cnt);
	l->brokers_n = md->broker_cnt;
	look_at_topics(l, md);
	if (l->replication <= md->broker_cnt)
		look_at_missing(l);
	if (!md->broker_cnt)
		return;
	snprintf(id, sizeof id, "%d", md->brokers[0].id);
	rd_kafka_ConfigResource_t *broker = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_BROKER, id);
	describe(l, &broker, 1, on_broker);
	rd_kafka_ConfigResource_destroy(broker);
}

static void run(void *arg)
{
	struct look *l = arg;
	const struct rd_kafka_metadata *md = NULL;
	char why[256];
	l->rk = rd_kafka_new(l->type, l->conf, why, sizeof why);
	if (!l->rk) {
		kafka_no_client(&l->error, l->conf, why);
		return;
	}
	l->conf = NULL;
	rd_kafka_set_log_queue(l->rk, NULL);
	l->queue = rd_kafka_queue_get_main(l->rk);
	if (connect_to(l, &md)) {
		look_around(l, md);
		rd_kafka_metadata_destroy(md);
	}
	rd_kafka_queue_destroy(l->queue);
	rd_kafka_destroy_flags(l->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

/* ---- on the loop ---- */

static void look_free(void *arg)
{
	struct look *l = arg;
	for (size_t i = 0; i < l->nfound; i++) {
		free(l->found[i].id);
		free(l->found[i].object);
		free(l->found[i].message);
		free(l->found[i].fix);
	}
	for (size_t i = 0; i < l->nwanted; i++)
		free(l->wanted[i].name);
	if (l->conf)
		rd_kafka_conf_destroy(l->conf);
	map_free(l->by_name);
	free(l->wanted);
	free(l->brokers);
	free(l->user);
	free(l);
}

static void on_done(void *arg)
{
	struct look *l = arg;
	struct dmsr_check checks[FOUND_MAX + 1];
	const struct err *e = &l->error;
	size_t n = l->nfound;
	for (size_t i = 0; i < l->nfound; i++) {
		struct found *f = &l->found[i];
		if (f->more) {
			char *with = mem_printf("%s (and %u more like it)", f->message, f->more);
			free(f->message);
			f->message = with;
		}
		checks[i] = (struct dmsr_check){ f->id, f->level, f->object, f->message, f->fix, f->retriable };
	}
	if (err_is_set(e))
		checks[n++] = (struct dmsr_check){ e->id, DMSR_CHECK_ERROR, l->brokers, e->message, e->hint[0] ? e->hint : NULL, e->retriable };
	l->is_done = true;
	l->host.checked(l->host.ctx, checks, n, NULL);
}

static void want(struct look *l, char *name /* taken */, const struct relation *rel, const struct wanted *as)
{
	if (map_get(l->by_name, name, strlen(name))) {
		add(l, DMSR_CHECK_ERROR, "kafka.topic-name", name, "exclude one of the tables, or rename it",
			"%s.%s would have the topic %s, as another one has: Kafka allows few characters in names", rel->schema, rel->name, name);
		free(name);
		return;
	}
	struct wanted *w = &l->wanted[l->nwanted++];
	*w = *as;
	w->name = name;
	map_put(l->by_name, name, strlen(name), w);
}

/* As the start of a job would find it. */
static void check_codec(struct look *l, const struct settings *s, const struct dmsr_probe_host *host, bool is_table)
{
	const char *name = settings_str(s, "codec");
	const struct dmsr_codec *codec = host->env.codec(host->env.codecs, name);
	struct dmsr_instance *i = NULL;
	struct err e = { 0 };
	if (!strcmp(name, "native")) {
		if (is_table)
			add(l, DMSR_CHECK_ERROR, "kafka.layout", "layout", "set codec to json, or layout to ordered",
				"the layout table is for readers that are not DMSR, who do not know the codec native");
		return;
	}
	if (!codec || codec->open(s, NULL, &i, &e)) {
		add(l, DMSR_CHECK_ERROR, "kafka.codec", "codec", e.hint[0] ? e.hint : NULL, "codec %s: %s", name, codec ? e.message : "there is none");
		return;
	}
	if (host->ntargets && !codec->is_exact(i))
		add(l, DMSR_CHECK_ERROR, "kafka.codec", "codec", "leave shape, compat, json and invalid_utf8 as they are by default, or set codec to native",
			"what codec %s writes with these options cannot be read back exactly, as the targets have to", name);
	codec->close(i);
}

static void want_all(struct look *l, const struct settings *s, const struct dmsr_probe_host *host)
{
	const char *prefix = settings_str(s, "prefix") ? settings_str(s, "prefix") : host->env.job, *layout = settings_str(s, "layout");
	bool is_both = !strcmp(layout, "both");
	bool is_ordered = is_both || !strcmp(layout, "ordered") || (!strcmp(layout, "auto") && host->ntargets);
	bool is_direct = !strcmp(settings_str(s, "load"), "direct"), is_indexed = host->ntargets && !is_ordered && is_direct;
	char *base = kafka_topic_name(prefix, NULL, NULL);
	l->wanted = mem_zalloc((host->nrels + 4) * sizeof *l->wanted);
	want(l, mem_printf("%s.__schemas", base), NULL, &(struct wanted){ .is_compacted = true, .is_single = true });
	if (l->transaction_ms)
		want(l, mem_printf("%s.__positions", base), NULL, &(struct wanted){ .is_compacted = true, .is_single = true });
	if (settings_bool(s, "transaction_topic"))
		want(l, mem_printf("%s.__transactions", base), NULL, &(struct wanted){ .is_single = true });
	if (is_ordered || is_indexed)
		want(l, mem_printf("%s.%s", base, is_indexed ? "__words" : "__stream"), NULL, &(struct wanted){ .is_stream = true, .is_single = true });
	for (size_t i = 0; (is_both || !is_ordered) && i < host->nrels; i++)
		want(l, kafka_topic_name(prefix, host->rels[i]->schema, host->rels[i]->name), host->rels[i], &(struct wanted){ .is_fetched = is_indexed });
	if (host->ntargets && !is_ordered && !is_direct)
		add(l, DMSR_CHECK_ERROR, "kafka.layout", "layout", "set load to direct, or layout to ordered, or to both",
			"the job has targets, and with layout table rows of a load do not come to them through the topics");
	check_codec(l, s, host, is_both || !is_ordered);
	free(base);
}

/* NULL: e is set. */
static struct look *look_new(const struct settings *s, const struct dmsr_probe_host *host, rd_kafka_type_t type, struct err *e)
{
	rd_kafka_conf_t *conf = kafka_conf(s, host->env.job, type, e);
	if (!conf)
		return NULL;
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	struct look *l = mem_zalloc(sizeof *l);
	*l = (struct look){
		.host = *host,
		.conf = conf,
		.type = type,
		.brokers = mem_strdup(settings_str(s, "bootstrap_servers")),
		.user = mem_strdup(settings_str(s, "user")),
		.by_name = map_new(),
		.is_scram = !strncmp(settings_str(s, "security"), "sasl", 4) && !strncmp(settings_str(s, "sasl_mechanism"), "SCRAM", 5),
	};
	if (kafka_unused_password(s))
		add(l, DMSR_CHECK_WARNING, "kafka.password", "password", "set security to sasl_ssl, or leave the password out", "%s", kafka_unused_password(s));
	return l;
}

/* Owned by the worker's job while that runs: then close leaves it to the thread. */
static void begin(struct look *l, struct dmsr_instance **out)
{
	l->worker = worker_new(l->host.env.loop, "kafka");
	worker_post(l->worker, &(struct worker_job){ .run = run, .done = on_done, .drop = look_free, .arg = l });
	*out = (struct dmsr_instance *)(void *)l;
}

static int check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	struct look *l = look_new(s, host, RD_KAFKA_PRODUCER, e);
	(void)tables;
	if (!l)
		return e->code;
	l->makes_topics = settings_bool(s, "create_topics");
	l->partitions = (int)settings_int(s, "partitions");
	l->replication = (int)settings_int(s, "replication");
	l->retention = settings_int(s, "retention");
	l->record_max = settings_int(s, "record_bytes");
	l->transaction_ms = settings_bool(s, "exactly_once") ? settings_int(s, "transaction_timeout") : 0;
	if (mode)
		want_all(l, s, host);
	begin(l, out);
	return 0;
}

/* Of a stream that another job writes. */
static int check_source(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	struct look *l = look_new(s, host, RD_KAFKA_CONSUMER, e);
	(void)tables;
	if (!l)
		return e->code;
	char *base = kafka_topic_name(settings_str(s, "prefix"), NULL, NULL);
	l->wanted = mem_zalloc(2 * sizeof *l->wanted);
	want(l, mem_printf("%s.__schemas", base), NULL, &(struct wanted){ .is_compacted = true, .is_single = true });
	want(l, mem_printf("%s.__stream", base), NULL, &(struct wanted){ .is_stream = true, .is_single = true });
	free(base);
	if (mode == DMSR_FULL_LOAD)
		add(l, DMSR_CHECK_ERROR, "kafka.no-end", "mode", "set mode to full-load-and-cdc, or to cdc",
			"a stream has no end at which a job of mode full-load would be completed");
	check_codec(l, s, host, false);
	begin(l, out);
	return 0;
}

static void probe_close(struct dmsr_instance *i)
{
	struct look *l = (struct look *)(void *)i;
	bool is_done = l->is_done;
	worker_free(l->worker, NULL, NULL);
	if (is_done)
		look_free(l);
}

const struct dmsr_probe kafka_probe = { .check = check, .close = probe_close };
const struct dmsr_probe kafka_source_probe = { .check = check_source, .close = probe_close };
