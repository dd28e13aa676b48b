/* client: one of librdkafka's handles: its main queue (logs, errors, reports, results) on the loop; destroyed on a thread. */
#include "kafka.h"
#include <stdio.h>
#include <stdlib.h>

enum { ABORT_MS = 3000, ABORT_SLICE_MS = 100 };
enum { REFUSED_US = 5000000 };          /* an answer of the system's, no broker that is slow: librdkafka gives that one at least ten seconds */

struct client {
	struct loop *loop;
	struct worker *worker;          /* for calls that block; NULL: none was made */
	const char *job;
	rd_kafka_t *rk;
	struct port *main;
	struct client_host host;
	uint64_t born_us;
	bool is_down, may_be_open;
	bool is_refused;                /* it is down because nobody listens there, or there is no such name */
	char why[256];                  /* newest error of a connection */
	rd_kafka_resp_err_t why_code;
	char advertised[ADDRESS_MAX];
	struct kept *kept;              /* what outlives its threads */
	struct kept *ended;             /* what must go before the handle */
};

struct kept {
	struct kept *next;
	void (*drop)(void *arg);
	void *arg;
};

/* Its own lines: most of them repeat what we say ourselves. */
static void on_log(const struct client *c, rd_kafka_event_t *ev)
{
	const char *fac, *text;
	int level;
	if (!rd_kafka_event_log(ev, &fac, &text, &level))
		log_write(level <= 4 && strcmp(fac, "CONFWARN") != 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "kafka", c->job, "librdkafka: %s: %s", fac, text);
}

static void set_down(struct client *c, bool is_down)
{
	if (c->is_down == is_down)
		return;
	c->is_down = is_down;
	c->host.connected(c->host.ctx, !is_down);
}

void client_answers(struct client *c) { set_down(c, false); }

/* Before 2.2 librdkafka's thread of a broker, when it has fetched as much as it may, does not look again but once a second, unless it has something to do:
 * here, to ask where the partition ends. Nobody waits for the answer. */
void client_has_room(struct client *c, const char *topic)
{
	if (rd_kafka_version() >= 0x02020000)
		return;
	rd_kafka_topic_partition_list_t *one = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(one, topic, 0)->offset = RD_KAFKA_OFFSET_END;
	rd_kafka_offsets_for_times(c->rk, one, 0);
	rd_kafka_topic_partition_list_destroy(one);
}

static void on_error(struct client *c, rd_kafka_event_t *ev)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(ev);
	struct err e = { 0 };
	char text[256];
	if (rd_kafka_event_error_is_fatal(ev)) {
		code = rd_kafka_fatal_error(c->rk, text, sizeof text);
		if (code == RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE)
			return; /* the report of the record that was refused says why */
		kafka_error(&e, code, NULL, text);
		if (e.retriable)
			err_retry(&e, DMSR_EIO, "kafka.producer-fatal", "Kafka's producer cannot go on, a new one begins at what was stored: %s (%s)", text,
				rd_kafka_err2name(code));
		c->host.failed(c->host.ctx, &e);
		return;
	}
	kafka_error(&e, code, NULL, rd_kafka_event_error_string(ev));
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
		c->is_refused = c->why_code == RD_KAFKA_RESP_ERR__RESOLVE || loop_now_us(c->loop) - c->born_us < REFUSED_US;
		set_down(c, true);
	} else {
		c->why_code = code;
		snprintf(c->why, sizeof c->why, "%s", rd_kafka_event_error_string(ev));
	}
	if (e.code == DMSR_EAUTH)
		c->host.failed(c->host.ctx, &e);
	else
		log_debug("kafka", c->job, "%s", e.message);
}

static void on_event(void *arg, rd_kafka_event_t *ev)
{
	struct client *c = arg;
	switch (rd_kafka_event_type(ev)) {
	case RD_KAFKA_EVENT_LOG:
		on_log(c, ev);
		break;
	case RD_KAFKA_EVENT_ERROR:
		on_error(c, ev);
		break;
	case RD_KAFKA_EVENT_DR:
		set_down(c, false);
		c->host.event(c->host.ctx, ev);
		break;
	default:
		c->host.event(c->host.ctx, ev);
		break;
	}
	rd_kafka_event_destroy(ev);
}

int client_new(struct loop *l, const char *job, rd_kafka_type_t type, rd_kafka_conf_t *conf, const struct client_host *host, struct client **out, struct err *e)
{
	char why[256];
	struct client *c = mem_zalloc(sizeof *c);
	*c = (struct client){ .loop = l, .job = job, .host = *host, .born_us = loop_now_us(l) };
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	c->rk = rd_kafka_new(type, conf, why, sizeof why);
	if (!c->rk) {
		int rc = kafka_no_client(e, conf, why);
		rd_kafka_conf_destroy(conf);
		free(c);
		return rc;
	}
	rd_kafka_set_log_queue(c->rk, NULL);
	c->main = port_new(l, rd_kafka_queue_get_main(c->rk), on_event, c);
	*out = c;
	return 0;
}

rd_kafka_t *client_handle(struct client *c) { return c->rk; }
rd_kafka_queue_t *client_queue(struct client *c) { return port_queue(c->main); }

struct worker *client_worker(struct client *c)
{
	if (!c->worker)
		c->worker = worker_new(c->loop, "kafka");
	return c->worker;
}

void client_has_begun(struct client *c) { c->may_be_open = true; }

char *client_cluster(struct client *c)
{
	char *id = rd_kafka_clusterid(c->rk, 0), *own = mem_strdup(id);
	if (id)
		rd_kafka_mem_free(c->rk, id);
	return own;
}

const char *client_refused(struct client *c)
{
	char *cluster = client_cluster(c);
	bool is_refused = c->is_down && c->is_refused && !cluster;
	free(cluster);
	return is_refused ? c->why : NULL;
}

const char *client_not_there(struct client *c, const char *bootstrap_servers, const char **why)
{
	char *cluster = client_cluster(c); /* it is known when one has answered */
	bool is = cluster && kafka_advertised(c->why, bootstrap_servers, c->advertised);
	free(cluster);
	*why = c->why;
	return is ? c->advertised : NULL;
}

void client_reached(struct client *c) { c->is_down = false; }

bool client_sees_all(struct client *c, const char *topic, int64_t end)
{
	int64_t low, high;
	return rd_kafka_get_watermark_offsets(c->rk, topic, 0, &low, &high) || high <= end;
}

struct grave {
	rd_kafka_t *rk;
	rd_kafka_topic_t *consumed;
	bool may_be_open;               /* a transaction */
	struct kept *kept, *ended;
};

/* Readers need not wait for the broker's patience to be over. Who cannot reach it leaves that to the next run. */
static void give_up(rd_kafka_t *rk)
{
	rd_kafka_queue_t *q = rd_kafka_queue_get_main(rk);
	rd_kafka_event_t *ev;
	bool is_through = false;
	for (int left = ABORT_MS; left > 0 && !is_through; left -= ABORT_SLICE_MS) {
		rd_kafka_error_t *error = rd_kafka_abort_transaction(rk, ABORT_SLICE_MS);
		is_through = !error || !rd_kafka_error_is_retriable(error);
		if (error)
			rd_kafka_error_destroy(error);
		while ((ev = rd_kafka_queue_poll(q, 0))) /* reports, which it waits for */
			rd_kafka_event_destroy(ev);
	}
	rd_kafka_queue_destroy(q);
}

static void drop_kept(struct kept *all)
{
	while (all) {
		struct kept *one = all;
		all = one->next;
		one->drop(one->arg);
		free(one);
	}
}

static void bury(void *arg)
{
	struct grave *g = arg;
	drop_kept(g->ended);
	if (g->consumed) {
		rd_kafka_consume_stop(g->consumed, 0);
		rd_kafka_topic_destroy(g->consumed);
	}
	if (g->may_be_open)
		give_up(g->rk);
	rd_kafka_purge(g->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
	rd_kafka_destroy_flags(g->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE); /* joins its threads */
	drop_kept(g->kept);
	free(g);
}

void client_keep(struct client *c, void (*drop)(void *arg), void *arg)
{
	struct kept *one = mem_alloc(sizeof *one);
	*one = (struct kept){ .next = c->kept, .drop = drop, .arg = arg };
	c->kept = one;
}

void client_ends(struct client *c, void (*end)(void *arg), void *arg)
{
	struct kept *one = mem_alloc(sizeof *one);
	*one = (struct kept){ .next = c->ended, .drop = end, .arg = arg };
	c->ended = one;
}

void client_free(struct client *c, rd_kafka_topic_t *consumed)
{
	if (!c)
		return;
	struct grave *g = mem_alloc(sizeof *g);
	*g = (struct grave){ .rk = c->rk, .consumed = consumed, .may_be_open = c->may_be_open, .kept = c->kept, .ended = c->ended };
	port_free(c->main);
	worker_leave(client_worker(c), bury, g);
	free(c);
}
