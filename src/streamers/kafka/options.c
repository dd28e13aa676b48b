/* options: what a job may say about its broker. Each is turned into librdkafka's properties here: nothing else reaches librdkafka, whose own properties can
 * run programs, open files and fetch from addresses. */
#include "kafka.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define CA_HINT "check ssl_ca: a file of certificates in PEM that the user of dmsrd may read"
#define BROKERS \
	{ \
		"bootstrap_servers", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Brokers to begin with: host:port, several with commas between." \
	}
#define SECURITY \
	{ "security", DMSR_OPT_ENUM, 0, "plaintext", "plaintext|ssl|sasl_plaintext|sasl_ssl", 0, 0, "How brokers are spoken to, in Kafka's own words." }, \
		{ "ssl_ca", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "File with the certificates to trust. Default: those of the system." }, \
		{ "sasl_mechanism", DMSR_OPT_ENUM, 0, "SCRAM-SHA-512", "PLAIN|SCRAM-SHA-256|SCRAM-SHA-512", 0, 0, "How the user proves who it is." }, \
		{ "user", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "User, for security sasl_plaintext and sasl_ssl." }, \
	{ \
		"password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "Its password." \
	}

const struct dmsr_option kafka_source_options[] = {
	BROKERS,
	{ "prefix", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0,
		"Whose stream it is: the prefix of the job that writes it, which is its name if it has none. That job's layout is ordered or both." },
	{ "codec", DMSR_OPT_ENUM, DMSR_OPT_CODEC, "json", "json|native", 0, 0, "That of the job that writes." },
	{ "memory", DMSR_OPT_BYTES, 0, "16MiB", NULL, 1 << 20, (int64_t)1 << 40, "How much may be fetched before the job takes it." },
	{ "record_bytes", DMSR_OPT_BYTES, 0, "900KiB", NULL, 1024, 1000000000, "That of the job that writes, where it has another than this." },
	SECURITY,
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

const struct dmsr_option kafka_options[] = {
	BROKERS,
	{ "prefix", DMSR_OPT_STRING, 0, NULL, NULL, 0, 0, "What the names of the job's topics begin with. Default: the job's name." },
	{ "layout", DMSR_OPT_ENUM, 0, "auto", "auto|ordered|table|both", 0, 0,
		"ordered: one topic in the order of commits, for targets; table: a topic for each table, with load direct for targets, too. "
		"auto: ordered when the job has targets, else table; what was begun goes on when targets come or go, until the job's positions "
		"are forgotten." },
	{ "codec", DMSR_OPT_ENUM, DMSR_OPT_CODEC, "json", "json|native", 0, 0,
		"json: a record for each change. native: a record for each batch, in DMSR's own form; cheaper for targets, and for the layout ordered alone." },
	{ "load", DMSR_OPT_ENUM, 0, "stream", "stream|direct", 0, 0,
		"Which way the rows of a load go. stream: through the topics, where the changes follow them. direct: straight to the job's targets, and "
		"changes alone into the topics, also while tables are loaded: a target that is new gets its rows from the source." },
	{ "create_topics", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0, "Make topics that are missing; false: they are expected to be there." },
	{ "partitions", DMSR_OPT_INT, 0, "1", NULL, 1, 10000, "Partitions of a table's topic that is made." },
	{ "replication", DMSR_OPT_INT, 0, "0", NULL, 0, 100, "Replicas of a topic that is made; 0: what the broker makes by default." },
	{ "retention", DMSR_OPT_DURATION, 0, "0", NULL, 0, INT64_MAX,
		"How long records are kept in topics that are made, by the brokers' clock; 0: what they do by default. "
		"A target that is behind by more has lost its place." },
	{ "memory", DMSR_OPT_BYTES, 0, "16MiB", NULL, 1 << 20, (int64_t)1 << 40,
		"How much may wait for the broker's acknowledgement, and for each target how much may be fetched before it takes it, and how much it may "
		"hold that it has not applied." },
	{ "disk", DMSR_OPT_BYTES, 0, "10GiB", NULL, 0, (int64_t)1 << 50,
		"How much of what changes while a load goes through the topics may be held on disk, so that the source need not keep its log for that long; "
		"when it is full the source waits. 0: the stream is read after the load, and the source keeps its log." },
	{ "record_bytes", DMSR_OPT_BYTES, 0, "900KiB", NULL, 1024, 1000000000,
		"The most bytes that a record of the stream or of a table may have; the brokers (message.max.bytes) and topics (max.message.bytes) must take "
		"64 KiB more. With codec native what is bigger goes in several records." },
	{ "compression", DMSR_OPT_ENUM, 0, "lz4", "none|gzip|snappy|lz4|zstd", 0, 0, "How records are compressed." },
	{ "exactly_once", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0,
		"Write in Kafka's transactions: who reads with isolation.level=read_committed sees every change once, whatever is killed." },
	{ "transaction_timeout", DMSR_OPT_DURATION, 0, "10m", NULL, 10000, INT32_MAX,
		"How long the broker leaves a transaction open (at most its transaction.max.timeout.ms). One of the source, or a table of the load, "
		"that takes more than half of it is cut." },
	{ "transaction_topic", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0,
		"Say in the topic PREFIX.__transactions where each transaction of the source begins and ends, and how many changes it has, in all and of each "
		"table. Switched on inside of a transaction it counts the rest of that one." },
	{ "linger", DMSR_OPT_DURATION, 0, "2ms", NULL, 0, 900000, "How long a record may wait for others to go with it." },
	SECURITY,
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

struct setup {
	rd_kafka_conf_t *conf;
	struct err *e;
	bool is_bad;
};

static void set(struct setup *u, const char *name, const char *value)
{
	char why[256];
	if (u->is_bad || !value || rd_kafka_conf_set(u->conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK)
		return;
	u->is_bad = true;
	err_set(u->e, DMSR_EINVAL, "kafka.option", "librdkafka does not take what the streamer's options say: %s", why);
}

static void set_known(struct setup *u, const char *name, const char *value)
{
	char known[16];
	size_t n = sizeof known;
	if (rd_kafka_conf_get(u->conf, name, known, &n) == RD_KAFKA_CONF_OK)
		set(u, name, value);
}

static void set_int(struct setup *u, const char *name, int64_t value)
{
	char text[24];
	snprintf(text, sizeof text, "%lld", (long long)value);
	set(u, name, text);
}

static void set_producer(struct setup *u, const struct settings *s)
{
	set(u, "enable.idempotence", "true");
	set(u, "acks", "all");
	/* Nothing goes on behind a record that was refused: who reads would take its place for known. */
	set(u, "enable.gapless.guarantee", "true");
	/* Never given up: a broker that is down for hours makes the source wait, and loses nothing. */
	set(u, "message.timeout.ms", "0");
	set_int(u, "message.max.bytes", settings_int(s, "record_bytes") + RECORD_MARGIN);
	/* Our own count (option memory) is the limit. */
	set(u, "queue.buffering.max.messages", "10000000");
	set(u, "queue.buffering.max.kbytes", "2147483647");
	set_int(u, "linger.ms", settings_int(s, "linger"));
	set(u, "compression.type", settings_str(s, "compression"));
}

static void set_consumer(struct setup *u, const struct settings *s)
{
	int64_t record = settings_int(s, "record_bytes") + RECORD_MARGIN, memory = settings_int(s, "memory");
	set(u, "enable.auto.commit", "false");
	set_int(u, "message.max.bytes", record); /* librdkafka raises the limits of a fetch to it */
	set(u, "isolation.level", "read_committed");
	set(u, "auto.offset.reset", "error");
	set(u, "enable.partition.eof", "true");
	set(u, "check.crcs", "true");
	set_int(u, "queued.max.messages.kbytes", memory / 1024 < 2097151 ? memory / 1024 : 2097151);
	set_int(u, "queued.min.messages", KAFKA_QUEUED_MAX);
	set_known(u, "fetch.queue.backoff.ms", "10"); /* from 2.2 on; with earlier ones consume.c says that there is room */
	set_int(u, "fetch.message.max.bytes", record > (1 << 20) ? record : 1 << 20);
	set_int(u, "fetch.wait.max.ms", 100);
}

/* librdkafka opens it on the loop's thread, and would wait there for somebody to write into a pipe. */
static void set_ca(struct setup *u, const char *path)
{
	struct stat st;
	if (u->is_bad || !path)
		return;
	if (!stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		u->is_bad = true;
		err_set(u->e, DMSR_EINVAL, "kafka.option", "the certificates to trust cannot be read from %s: it is no file", path);
		err_hint(u->e, CA_HINT);
		return;
	}
	set(u, "ssl.ca.location", path);
}

rd_kafka_conf_t *kafka_conf(const struct settings *s, const char *job, rd_kafka_type_t type, struct err *e)
{
	struct setup u = { .conf = rd_kafka_conf_new(), .e = e };
	char client[128];
	snprintf(client, sizeof client, "dmsr-%.100s", job);
	set(&u, "bootstrap.servers", settings_str(s, "bootstrap_servers"));
	set(&u, "client.id", client);
	set(&u, "log.queue", "true");
	set(&u, "log.connection.close", "false");
	set(&u, "reconnect.backoff.max.ms", "5000");
	set(&u, "topic.metadata.refresh.interval.ms", "60000");
	/* Within what it takes a topic that was just made to be known; a missing one is said to be that before patience is over. */
	set(&u, "topic.metadata.propagation.max.ms", "5000");
	set(&u, "security.protocol", settings_str(s, "security"));
	set_ca(&u, settings_str(s, "ssl_ca"));
	if (!strncmp(settings_str(s, "security"), "sasl", 4)) {
		set(&u, "sasl.mechanism", settings_str(s, "sasl_mechanism"));
		set(&u, "sasl.username", settings_str(s, "user"));
		set(&u, "sasl.password", settings_str(s, "password"));
	}
	if (type == RD_KAFKA_PRODUCER)
		set_producer(&u, s);
	else
		set_consumer(&u, s);
	if (!u.is_bad)
		return u.conf;
	rd_kafka_conf_destroy(u.conf);
	return NULL;
}

const char *kafka_unused_password(const struct settings *s)
{
	bool is_used = !strncmp(settings_str(s, "security"), "sasl", 4);
	if (is_used || !settings_str(s, "password"))
		return NULL;
	return "a password is given, and is sent to no broker, since security is not sasl_ssl (or sasl_plaintext): who reaches the brokers needs none";
}

int kafka_conf_exact(rd_kafka_conf_t *conf, const struct settings *s, const char *uid, struct err *e)
{
	struct setup u = { .conf = conf, .e = e };
	char id[80];
	snprintf(id, sizeof id, "dmsr-%s", uid);
	set(&u, "transactional.id", id);
	set_int(&u, "transaction.timeout.ms", settings_int(s, "transaction_timeout"));
	set(&u, "socket.timeout.ms", "10000"); /* librdkafka would wait for an answer as long as a transaction may last */
	return u.is_bad ? e->code : 0;
}

/* Each partition that it begins to read has to wait until the brokers answer what was asked before; and of what it fetches much may not be wanted. It comes
 * compressed: as much as is asked for may become a hundred times that. A record that is bigger comes all the same. */
void kafka_conf_rows(rd_kafka_conf_t *conf)
{
	char why[256];
	rd_kafka_conf_set(conf, "fetch.wait.max.ms", "5", why, sizeof why);
	rd_kafka_conf_set(conf, "fetch.message.max.bytes", "65536", why, sizeof why);
	rd_kafka_conf_set(conf, "fetch.error.backoff.ms", "20", why, sizeof why);
}

int kafka_no_client(struct err *e, const rd_kafka_conf_t *conf, const char *why)
{
	char file[300];
	size_t size = sizeof file;
	if (!strstr(why, "ssl.ca.location") || rd_kafka_conf_get(conf, "ssl.ca.location", file, &size) != RD_KAFKA_CONF_OK) {
		err_set(e, DMSR_EINVAL, "kafka.option", "librdkafka cannot begin: %s", why);
		return err_hint(e, "check the streamer's options");
	}
	err_set(e, DMSR_EINVAL, "kafka.option", "the certificates to trust cannot be read from %s: %s", file, why);
	return err_hint(e, CA_HINT);
}

static void put_name(struct buf *b, const char *name)
{
	for (const unsigned char *p = (const unsigned char *)name; *p; p++)
		if (isalnum(*p) || *p == '_' || *p == '-' || *p == '.')
			buf_byte(b, (char)*p);
		else
			buf_printf(b, "_x%02X", *p);
}

char *kafka_topic_name(const char *prefix, const char *schema, const char *table)
{
	struct buf b;
	buf_init(&b, 4096);
	put_name(&b, prefix);
	for (const char *const *part = (const char *const[]){ schema, table, NULL }; schema && *part; part++) {
		buf_byte(&b, '.');
		put_name(&b, *part);
	}
	char *name = mem_strdup(buf_cstr(&b));
	buf_fini(&b);
	return name;
}
