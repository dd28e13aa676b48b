/* schema: the shapes of tables, as records of the compacted topic {prefix}.__schemas: key = the fingerprint that the header dmsr-schema of rows names, value =
 * the relation whole, as JSON. Sent once a run; no row goes before its shape is acknowledged (rule 10 of kafka.h). */
#include "kafka.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const key_names[] = { [KEY_NONE] = "none", [KEY_PRIMARY] = "primary", [KEY_UNIQUE] = "unique", [KEY_FULL] = "full" };
enum { KEYS = sizeof key_names / sizeof *key_names };

static const struct { const char *name; unsigned flag; } flags[] = {
	{ "nullable", COLUMN_NULLABLE }, { "generated", COLUMN_GENERATED }, { "identity_always", COLUMN_IDENTITY_ALWAYS },
	{ "identity_by_default", COLUMN_IDENTITY_DEFAULT },
};

static json_t *column_json(const struct column *c)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:i}", "name", c->name, "type", logical_type_name(c->type), "native_type", c->native_type,
		"key_position", (int)c->key_pos, "type_modifier", (int)c->typmod, "type_id", (json_int_t)c->type_id, "source_id", (int)c->source_id);
	if (c->elem_type)
		json_object_set_new(o, "element_type", json_string(logical_type_name(c->elem_type)));
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (c->flags & flags[i].flag)
			json_object_set_new(o, flags[i].name, json_true());
	if (c->dflt)
		json_object_set_new(o, "default", json_string(c->dflt));
	if (c->collation)
		json_object_set_new(o, "collation", json_string(c->collation));
	return o;
}

static char *relation_json(const struct relation *r, const char *fingerprint)
{
	json_t *columns = json_array();
	for (unsigned i = 0; i < r->ncolumns; i++)
		json_array_append_new(columns, column_json(&r->columns[i]));
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I}", "fingerprint", fingerprint, "engine", r->engine, "schema", r->schema, "table", r->name, "id",
		(json_int_t)r->id);
	json_object_set_new(o, "key", json_string(key_names[r->key]));
	json_object_set_new(o, "columns", columns);
	char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

const char *schema_key(const struct relation *r, char out[20])
{
	snprintf(out, 20, "%016llx", (unsigned long long)r->fingerprint);
	return out;
}

bool schema_send(struct kafka *k, struct flight *f, const struct relation *r)
{
	static char sent;
	char key[20];
	if (map_get(k->schemas_sent, &r->fingerprint, sizeof r->fingerprint))
		return true;
	schema_key(r, key);
	char *value = relation_json(r, key);
	char run[RUN_TEXT_MAX];
	struct record rec = { .key = key, .key_len = 16, .value = value, .len = value ? strlen(value) : 0, .nheaders = 1 };
	rec.headers[0].name = "dmsr-run"; /* whose it is: without a stream nothing else says that */
	rec.headers[0].value = stamp_run(k, run, &rec.headers[0].len);
	if (!value) {
		struct err e = { 0 };
		err_set(&e, DMSR_EDATA, "kafka.topic-name", "%s.%s: its names are no UTF-8, and its shape cannot be described", r->schema, r->name);
		err_hint(&e, "exclude the table, or rename it");
		kafka_fail(k, &e);
		return false;
	}
	bool is_sent = produce_record(k, f, k->schemas, &rec, r);
	if (is_sent) {
		map_put(k->schemas_sent, &r->fingerprint, sizeof r->fingerprint, &sent);
		k->unknown_shapes++;
	}
	free(value);
	return is_sent;
}

/* ---- back ---- */

struct shapes {
	struct client *client;
	rd_kafka_topic_t *rkt;
	struct port *port;
	struct map *all;                /* fingerprint, 16 digits -> relation */
};

static const char *text_of(const json_t *o, const char *name) { return json_string_value(json_object_get(o, name)); }
static json_int_t number_of(const json_t *o, const char *name) { return json_integer_value(json_object_get(o, name)); }

static bool read_column(struct relation_builder *b, const json_t *o)
{
	const char *type = text_of(o, "type"), *element = text_of(o, "element_type");
	int t = type ? logical_type_parse(type) : -1, el = element ? logical_type_parse(element) : 0;
	struct column c = { .name = text_of(o, "name"), .native_type = text_of(o, "native_type"), .type = (uint8_t)t, .elem_type = (uint8_t)el };
	c.dflt = text_of(o, "default");
	c.collation = text_of(o, "collation");
	c.type_id = (uint32_t)number_of(o, "type_id");
	c.typmod = (int32_t)number_of(o, "type_modifier");
	c.source_id = (uint16_t)number_of(o, "source_id");
	c.key_pos = (uint16_t)number_of(o, "key_position");
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (json_is_true(json_object_get(o, flags[i].name)))
			c.flags |= (uint8_t)flags[i].flag;
	if (!c.name || !c.native_type || t < 0 || el < 0)
		return false;
	relation_build_column(b, &c);
	return true;
}

/* NULL: it is no description of a relation, or not that of this fingerprint. */
static struct relation *read_relation(const json_t *o, const char *key, size_t key_len)
{
	const char *engine = text_of(o, "engine"), *schema = text_of(o, "schema"), *table = text_of(o, "table"), *kind = text_of(o, "key");
	const json_t *columns = json_object_get(o, "columns"), *column;
	size_t i, k = 0;
	char own[20];
	while (k < KEYS && kind && strcmp(kind, key_names[k]) != 0)
		k++;
	if (!engine || !schema || !table || !kind || k == KEYS || json_array_size(columns) > 1664)
		return NULL;
	struct relation_builder *b = relation_build(engine, schema, table, (uint32_t)number_of(o, "id"));
	json_array_foreach(columns, i, column)
	{
		if (read_column(b, column))
			continue;
		relation_build_free(b);
		return NULL;
	}
	struct relation *r = relation_seal(b, (enum key_kind)k);
	if (key_len == 16 && !memcmp(schema_key(r, own), key, 16))
		return r;
	relation_unref(r);
	return NULL;
}

static void on_shape(struct kafka *k, const rd_kafka_message_t *m)
{
	json_t *o = m->payload ? json_loadb(m->payload, m->len, 0, NULL) : NULL;
	struct relation *r = o ? read_relation(o, m->key ? m->key : "", m->key_len) : NULL;
	json_decref(o);
	if (!r && m->payload) { /* whoever needs it will say so */
		log_warn("streamer", k->host.env.job, "topic %s, offset %lld: it describes no table of the fingerprint that is its key", k->schemas->name,
			(long long)m->offset);
	} else if (r) {
		relation_unref(map_put(k->shapes->all, m->key, 16, r));
	}
}

static void on_fetched(void *arg, rd_kafka_event_t *ev)
{
	struct kafka *k = arg;
	const rd_kafka_message_t *m;
	rd_kafka_resp_err_t code = rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR ? rd_kafka_event_error(ev) : 0;
	struct err e = { 0 };
	if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_FETCH)
		while ((m = rd_kafka_event_message_next(ev)))
			on_shape(k, m);
	if (code && code != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		kafka_error(&e, code, k->schemas->name, rd_kafka_event_error_string(ev));
		if (!e.retriable || e.code == DMSR_ENOTFOUND)
			kafka_fail(k, &e);
	}
	rd_kafka_event_destroy(ev);
	kafka_wake(k);
}

static void on_event(void *ctx, rd_kafka_event_t *ev) { (void)ctx, (void)ev; }
static void on_failed(void *ctx, const struct err *e) { kafka_fail(ctx, e); }
static void on_connected(void *ctx, bool is) { (void)ctx, (void)is; }

int schemas_start(struct kafka *k, struct err *e)
{
	const struct client_host host = { .ctx = k, .event = on_event, .failed = on_failed, .connected = on_connected };
	struct shapes *s = k->shapes = mem_zalloc(sizeof *s);
	rd_kafka_conf_t *conf = kafka_conf(k->settings, k->host.env.job, RD_KAFKA_CONSUMER, e);
	s->all = map_new();
	if (!conf || client_new(k->host.env.loop, k->host.env.job, RD_KAFKA_CONSUMER, conf, &host, &s->client, e))
		return e->code;
	s->rkt = rd_kafka_topic_new(client_handle(s->client), k->schemas->name, NULL);
	rd_kafka_queue_t *q = rd_kafka_queue_new(client_handle(s->client));
	s->port = port_new(k->host.env.loop, q, on_fetched, k);
	if (!rd_kafka_consume_start_queue(s->rkt, 0, RD_KAFKA_OFFSET_BEGINNING, q))
		return 0;
	kafka_error(e, rd_kafka_last_error(), k->schemas->name, NULL);
	return e->code;
}

struct relation *schemas_find(const struct kafka *k, const char key[16]) { return map_get(k->shapes->all, key, 16); }

static void drop_shape(void *arg, const void *key, size_t n, void *value)
{
	(void)arg, (void)key, (void)n;
	relation_unref(value);
}

void schemas_free(struct kafka *k)
{
	struct shapes *s = k->shapes;
	if (!s)
		return;
	port_free(s->port);
	client_free(s->client, s->rkt);
	map_each(s->all, drop_shape, NULL);
	map_free(s->all);
	free(s);
	k->shapes = NULL;
}
