/* known: {prefix}.__positions, the job's memory on the broker's side, with exactly_once. The last record of each transaction is one of it:
 *
 *   key     the job's uid; with words behind it also what makes it unlike any other, since the topic is compacted
 *   value   {"position":"pg:...","run":"1795744497000000","loaded":[{"schema":"public","table":"t","position":"pg:..."}],"load_done":true}
 *
 * It is read at start, from the note "known" on to its end. The note is the offset behind the newest record whose content the state store has, too. */
#include "kafka.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS_MAX = 200 };

/* A transaction that was committed, and is not stored yet. */
struct commit {
	struct commit *next;
	uint64_t last;                  /* token */
	int64_t next_offset;            /* behind its record */
};

struct known {
	struct client *client;
	rd_kafka_topic_t *rkt;
	struct port *port;
	bool is_begun, is_looked_at, is_ours, is_read;
	uint64_t run;                   /* the newest that has committed */
	/* what was read: */
	struct position at;
	struct dmsr_loaded *loaded;
	size_t nloaded;
	bool load_done;
	/* what the open transaction says: */
	json_t *words;
	bool says_done;
	uint64_t nwords;                /* records with words in this run */
	int64_t offset;                 /* of the newest record acknowledged; -1: none */
	struct commit *first, *last;
	int64_t noted;                  /* the note; -1: none yet */
	bool is_saved;
};

/* ---- what is written ---- */

static json_t *position_json(const struct position *p)
{
	char text[POSITION_TEXT_MAX];
	return json_string(position_format(p, text));
}

void known_words(struct kafka *k, const struct batch *b)
{
	struct known *n = k->known;
	for (const struct change *ch = b->is_load ? b->first : b->last; ch; ch = ch->next) {
		n->says_done |= ch->op == OP_LOAD_DONE;
		if (ch->op != OP_LOAD_END)
			continue;
		const struct position at = { .kind = POSITION_LSN, .server = b->end.server, .lsn = change_loaded_lsn(ch) };
		json_t *word = json_pack("{s:s, s:s, s:o}", "schema", ch->rel->schema, "table", ch->rel->name, "position", position_json(&at));
		json_array_append_new(n->words, word);
	}
}

bool known_is_full(const struct kafka *k) { return json_array_size(k->known->words) >= WORDS_MAX; }

bool known_write(struct kafka *k)
{
	struct known *n = k->known;
	bool has_words = json_array_size(n->words) || n->says_done;
	char *key = has_words ? mem_printf("%s %s %" PRIu64, k->host.env.uid, k->run, ++n->nwords) : mem_strdup(k->host.env.uid);
	json_t *o = json_pack("{s:o, s:s}", "position", position_json(&k->exact.at), "run", k->run);
	if (json_array_size(n->words))
		json_object_set(o, "loaded", n->words);
	if (n->says_done)
		json_object_set_new(o, "load_done", json_true());
	json_object_set_new(o, "transaction", transactions_kept(k));
	char *value = json_dumps(o, JSON_COMPACT);
	const struct record r = { .key = key, .key_len = strlen(key), .value = value, .len = strlen(value) };
	bool is_sent = produce_record(k, &k->exact.own, k->positions, &r, NULL);
	free(key);
	free(value);
	json_decref(o);
	return is_sent;
}

void known_acknowledged(struct kafka *k, int64_t offset)
{
	if (offset >= 0) /* one that the broker had already comes without: then the one before does */
		k->known->offset = offset;
}

void known_committed(struct kafka *k)
{
	struct known *n = k->known;
	json_array_clear(n->words);
	n->says_done = false;
	if (n->offset < 0)
		return;
	struct commit *c = mem_alloc(sizeof *c);
	*c = (struct commit){ .last = k->exact.last, .next_offset = n->offset + 1 };
	if (n->last)
		n->last->next = c;
	else
		n->first = c;
	n->last = c;
}

void known_stored(struct kafka *k, uint64_t token)
{
	struct known *n = k->known;
	while (n->first && n->first->last <= token) {
		struct commit *c = n->first;
		n->noted = c->next_offset;
		n->is_saved = false;
		n->first = c->next;
		if (!n->first)
			n->last = NULL;
		free(c);
	}
	if (!n->is_saved)
		kafka_save_soon(k);
}

void known_save(struct kafka *k)
{
	struct known *n = k->known;
	char text[24];
	if (n->is_saved)
		return;
	n->is_saved = true;
	snprintf(text, sizeof text, "%" PRId64, n->noted);
	k->host.note_put(k->host.ctx, "known", text, NULL, NULL);
}

/* ---- what is read ---- */

static void add_loaded(struct known *n, const char *schema, const char *table, const struct position *at)
{
	struct dmsr_loaded *l = NULL;
	for (size_t i = 0; i < n->nloaded && !l; i++)
		if (!strcmp(n->loaded[i].name, table) && !strcmp(n->loaded[i].schema, schema))
			l = &n->loaded[i];
	if (!l) {
		n->loaded = mem_realloc_array(n->loaded, n->nloaded + 1, sizeof *n->loaded);
		l = &n->loaded[n->nloaded++];
		*l = (struct dmsr_loaded){ .schema = mem_strdup(schema), .name = mem_strdup(table) };
	}
	l->at = *at;
}

static int read_word(struct known *n, const json_t *o)
{
	const char *schema = json_string_value(json_object_get(o, "schema")), *table = json_string_value(json_object_get(o, "table"));
	const char *text = json_string_value(json_object_get(o, "position"));
	struct position at;
	if (!schema || !table || !text || position_parse(text, &at, NULL))
		return DMSR_EPROTO;
	add_loaded(n, schema, table, &at);
	return 0;
}

static int read_value(struct known *n, const json_t *o)
{
	const char *text = json_string_value(json_object_get(o, "position")), *run = json_string_value(json_object_get(o, "run"));
	const json_t *words = json_object_get(o, "loaded"), *word;
	struct position at;
	size_t i;
	if (!text || !run || position_parse(text, &at, NULL))
		return DMSR_EPROTO;
	n->run = strtoull(run, NULL, 10);
	if (!position_is_none(&at))
		n->at = at;
	/* said of the loads before it */
	n->load_done = json_is_true(json_object_get(o, "load_done")) || (n->load_done && !json_array_size(words));
	json_array_foreach(words, i, word)
	{
		if (read_word(n, word))
			return DMSR_EPROTO;
	}
	return 0;
}

static void on_message(struct kafka *k, const rd_kafka_message_t *m)
{
	struct err e = { 0 };
	size_t len = strlen(k->host.env.uid);
	if (m->key_len < len || memcmp(m->key, k->host.env.uid, len) != 0 || (m->key_len > len && ((const char *)m->key)[len] != ' '))
		return; /* of a job that had these topics before */
	json_t *o = m->payload ? json_loadb(m->payload, m->len, 0, NULL) : NULL;
	if (!o || read_value(k->known, o)) {
		err_set(&e, DMSR_EPROTO, "kafka.foreign", "topic %s, offset %" PRId64 ": it is no position of this job: somebody else writes there",
			k->positions->name, m->offset);
		kafka_fail(k, &e);
	}
	transactions_restore(k, json_object_get(o, "transaction"), true);
	json_decref(o);
}

static void on_noted(void *arg, const struct err *e)
{
	struct kafka *k = arg;
	k->known->is_read = !e;
	kafka_noted(k, e);
}

/* Where a job begins that has no note: nothing of it is there. A crash behind the first commit must find the place. */
static void note_begin(struct kafka *k, int64_t offset)
{
	char text[24];
	snprintf(text, sizeof text, "%" PRId64, offset);
	k->is_noting = true;
	k->host.note_put(k->host.ctx, "known", text, on_noted, k);
}

static void replaced(struct kafka *k)
{
	struct err e = { 0 };
	kafka_error(&e, RD_KAFKA_RESP_ERR__FENCED, k->positions->name, "another dmsrd has run the job since it ran in this one");
	kafka_fail(k, &e);
}

static void on_end(struct kafka *k, int64_t offset)
{
	struct known *n = k->known;
	if (n->is_read || k->is_noting)
		return;
	if (!n->is_ours) {
		n->is_looked_at = true;
		port_pause(n->port);
		if (n->run > k->last_run)
			replaced(k);
		return;
	}
	if (!client_sees_all(n->client, k->positions->name, offset)) {
		exact_waits_for(k, k->positions);
		return;
	}
	port_pause(n->port);
	if (!kafka_is_same_cluster(k, n->client))
		return;
	if (n->noted < 0)
		note_begin(k, offset);
	else
		n->is_read = true;
}

static void lost(struct kafka *k)
{
	struct err e = { 0 };
	if (!kafka_is_same_cluster(k, k->known->client))
		return;
	err_set(&e, DMSR_EFATAL, "kafka.positions-lost", "topic %s has offset %" PRId64 " no more, from where on it says what was committed: it was made "
		"anew, or not all of it was kept", k->positions->name, k->known->noted);
	err_hint(&e, "to go on at the position that is stored here, at the risk that what was sent last stands there twice: stop the job, PATCH that position "
		"into /jobs/%s/positions, start it; or DELETE it there, and load the tables again", k->host.env.job);
	kafka_fail(k, &e);
}

static void on_error(struct kafka *k, rd_kafka_event_t *ev)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(ev);
	struct err e = { 0 };
	if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		rd_kafka_topic_partition_t *p = rd_kafka_event_topic_partition(ev);
		if (p)
			on_end(k, p->offset);
		if (p)
			rd_kafka_topic_partition_destroy(p);
		return;
	}
	if (code == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || code == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
		lost(k);
		return;
	}
	kafka_error(&e, code, k->positions->name, rd_kafka_event_error_string(ev));
	if (!e.retriable || e.code == DMSR_ENOTFOUND)
		kafka_fail(k, &e);
}

static void on_fetched(void *arg, rd_kafka_event_t *ev)
{
	struct kafka *k = arg;
	const rd_kafka_message_t *m;
	if (k->state == KAFKA_STARTING && rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR)
		on_error(k, ev);
	while (k->state == KAFKA_STARTING && rd_kafka_event_type(ev) == RD_KAFKA_EVENT_FETCH && (m = rd_kafka_event_message_next(ev)))
		on_message(k, m);
	rd_kafka_event_destroy(ev);
	kafka_wake(k);
}

static void on_event(void *ctx, rd_kafka_event_t *ev) { (void)ctx, (void)ev; }
static void on_failed(void *ctx, const struct err *e) { kafka_fail(ctx, e); }
static void on_connected(void *ctx, bool is) { (void)ctx, (void)is; }

static void begin(struct kafka *k)
{
	const struct client_host host = { .ctx = k, .event = on_event, .failed = on_failed, .connected = on_connected };
	struct known *n = k->known;
	struct err e = { 0 };
	rd_kafka_conf_t *conf = kafka_conf(k->settings, k->host.env.job, RD_KAFKA_CONSUMER, &e);
	n->is_begun = true;
	if (!conf || client_new(k->host.env.loop, k->host.env.job, RD_KAFKA_CONSUMER, conf, &host, &n->client, &e)) {
		kafka_fail(k, &e);
		return;
	}
	n->rkt = rd_kafka_topic_new(client_handle(n->client), k->positions->name, NULL);
	rd_kafka_queue_t *q = rd_kafka_queue_new(client_handle(n->client));
	n->port = port_new(k->host.env.loop, q, on_fetched, k);
	if (!rd_kafka_consume_start_queue(n->rkt, 0, n->noted < 0 ? RD_KAFKA_OFFSET_END : n->noted, q))
		return;
	kafka_error(&e, rd_kafka_last_error(), k->positions->name, NULL);
	kafka_fail(k, &e);
}

static void end(struct known *n)
{
	port_free(n->port);
	client_free(n->client, n->rkt);
	n->port = NULL;
	n->client = NULL;
	n->rkt = NULL;
}

/* As far as it can be seen before what is open is aborted: what that hides is read once more. */
bool known_is_ours(struct kafka *k)
{
	struct known *n = k->known;
	if (!n || n->is_ours)
		return true;
	if (!k->was_here || n->noted < 0) {
		n->is_ours = true;
	} else if (!n->is_begun) {
		begin(k);
	} else if (n->is_looked_at) {
		end(n);
		n->is_begun = false;
		n->is_ours = true;
	}
	return n->is_ours;
}

bool known_is_read(struct kafka *k)
{
	struct known *n = k->known;
	if (!n)
		return true;
	if (!n->is_begun)
		begin(k);
	if (n->is_read)
		end(n);
	return n->is_read;
}

void known_tell(const struct kafka *k, struct dmsr_stand *out)
{
	const struct known *n = k->known;
	*out = (struct dmsr_stand){ 0 };
	if (n)
		*out = (struct dmsr_stand){ .at = n->at, .loaded = n->loaded, .nloaded = n->nloaded, .load_done = n->load_done };
}

void known_open(struct kafka *k)
{
	const char *note = k->host.note_get(k->host.ctx, "known");
	struct known *n = k->known = mem_zalloc(sizeof *n);
	n->words = json_array();
	n->offset = -1;
	n->noted = note ? strtoll(note, NULL, 10) : -1;
	n->is_saved = true;
}

void known_shut(struct kafka *k)
{
	if (k->known)
		end(k->known);
}

void known_free(struct kafka *k)
{
	struct known *n = k->known;
	if (!n)
		return;
	end(n);
	for (size_t i = 0; i < n->nloaded; i++) {
		free((void *)(uintptr_t)n->loaded[i].schema);
		free((void *)(uintptr_t)n->loaded[i].name);
	}
	free(n->loaded);
	while (n->first) {
		struct commit *c = n->first;
		n->first = c->next;
		free(c);
	}
	json_decref(n->words);
	free(n);
	k->known = NULL;
}
