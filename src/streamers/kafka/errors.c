/* errors: librdkafka's codes as ours: which are worth another attempt, and what to do about the others. */
#include "kafka.h"
#include <stdio.h>

#define FENCED "see to it that one dmsrd alone runs the job, and start it there"

static const struct known_code {
	rd_kafka_resp_err_t code;
	const char *id;
	int kind;
	bool retriable;
	const char *hint;
} known[] = {
	{ RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "kafka.unreachable", DMSR_EIO, true, "check bootstrap_servers, and that the brokers run" },
	{ RD_KAFKA_RESP_ERR__TRANSPORT, "kafka.unreachable", DMSR_EIO, true, "check bootstrap_servers, and that the brokers run" },
	{ RD_KAFKA_RESP_ERR__RESOLVE, "kafka.unreachable", DMSR_EIO, true, "check the names in bootstrap_servers" },
	{ RD_KAFKA_RESP_ERR__TIMED_OUT, "kafka.unreachable", DMSR_EIO, true, "check bootstrap_servers, and that the brokers run" },
	{ RD_KAFKA_RESP_ERR__SSL, "kafka.tls", DMSR_EAUTH, false, "check security and ssl_ca" },
	{ RD_KAFKA_RESP_ERR__AUTHENTICATION, "kafka.auth", DMSR_EAUTH, false, "check user, password and sasl_mechanism" },
	{ RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, "kafka.auth", DMSR_EAUTH, false, "check user, password and sasl_mechanism" },
	{ RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, "kafka.auth", DMSR_EAUTH, false, "choose a sasl_mechanism that the broker has" },
	{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "kafka.denied", DMSR_EAUTH, false, "give the user the rights Create, Describe, Write and Read on the "
		"topics below the prefix" },
	{ RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "kafka.denied", DMSR_EAUTH, false, "give the user the right IdempotentWrite (brokers before 2.8), "
		"or Create, on the cluster" },
	{ RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "kafka.topic-missing", DMSR_ENOTFOUND, true, "make the topic, or set create_topics to true" },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, "kafka.topic-missing", DMSR_ENOTFOUND, true, "make the topic, or set create_topics to true" },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, "kafka.topic-missing", DMSR_ENOTFOUND, true, "make the topic with as many partitions as it had" },
	{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "kafka.record-too-large", DMSR_EFULL, false,
		"raise max.message.bytes of the topic (message.max.bytes of the brokers), and record_bytes with it" },
	{ RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, "kafka.clock", DMSR_EIO, true, "set the clocks of this machine and of the brokers right, or set "
		"message.timestamp.type of the job's topics to LogAppendTime" },
	{ RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR, "kafka.replication", DMSR_EINVAL, false, "set replication to no more than there are brokers" },
	{ RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, "kafka.topic-name", DMSR_EINVAL, false, "choose another prefix: a topic's name has at most 249 characters" },
	{ RD_KAFKA_RESP_ERR_POLICY_VIOLATION, "kafka.policy", DMSR_EINVAL, false, "make the topics as the broker's policy wants them, and set create_topics "
		"to false" },
	{ RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, "kafka.retention", DMSR_EFATAL, false, NULL },
	{ RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, "kafka.retention", DMSR_EFATAL, false, NULL },
	{ RD_KAFKA_RESP_ERR__FENCED, "kafka.fenced", DMSR_ESTATE, false, FENCED },
	{ RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "kafka.fenced", DMSR_ESTATE, false, FENCED },
	{ RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "kafka.fenced", DMSR_ESTATE, false, FENCED },
	{ RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "kafka.denied", DMSR_EAUTH, false, "give the user the rights Write and Describe on the "
		"transactional id dmsr-UID, UID being that of the job (or on all that begin with dmsr-)" },
	{ RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT, "kafka.transaction-timeout", DMSR_EINVAL, false,
		"set transaction_timeout to no more than the brokers' transaction.max.timeout.ms" },
	{ RD_KAFKA_RESP_ERR__BAD_MSG, "kafka.damaged", DMSR_EPROTO, false,
		"does bootstrap_servers name a Kafka broker? If it does, its log is damaged: see to its disk; if the records are gone, load the tables again "
		"(stop the job, DELETE its positions, start it)" },
};

/* "HOST:PORT/ID: why", the protocol before it where it is not plaintext; those of bootstrap_servers have no id before they have said it. */
bool kafka_advertised(const char *text, const char *bootstrap_servers, char out[ADDRESS_MAX])
{
	const char *protocol = strstr(text, "://"), *end = strstr(text, ": "), *id = end;
	if (protocol && protocol < end)
		text = protocol + 3;
	while (id && id > text && id[-1] >= '0' && id[-1] <= '9')
		id--;
	if (!id || id == end || id <= text || id[-1] != '/' || id - text > ADDRESS_MAX)
		return false;
	snprintf(out, ADDRESS_MAX, "%.*s", (int)(id - 1 - text), text);
	return !strstr(bootstrap_servers, out);
}

void kafka_not_there(struct err *e, const char *bootstrap_servers, const char *advertised, const char *why)
{
	err_retry(e, DMSR_EIO, "kafka.unreachable", "a broker of %s answers, and says that brokers are reached at %s (advertised.listeners), where none "
		"answers this machine: %s", bootstrap_servers, advertised, why);
	err_hint(e, "set the brokers' advertised.listeners to an address that clients reach, for the listener that bootstrap_servers name; or make %s "
		"reachable from here", advertised);
}

void kafka_error(struct err *e, rd_kafka_resp_err_t code, const char *what, const char *text)
{
	const struct known_code *k = NULL;
	for (size_t i = 0; i < sizeof known / sizeof *known && !k; i++)
		if (known[i].code == code)
			k = &known[i];
	if (!text || !*text)
		text = rd_kafka_err2str(code);
	/* What is not in the table is the brokers' own trouble: a leader that moves, a replica that is late. */
	(k && !k->retriable ? err_set : err_retry)(e, k ? k->kind : DMSR_EIO, k ? k->id : "kafka.broker", "Kafka%s%s: %s (%s)", what ? ", " : "",
		what ? what : "", text,
		rd_kafka_err2name(code));
	if (k && k->hint)
		err_hint(e, "%s", k->hint);
}
