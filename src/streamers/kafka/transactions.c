/* transactions: where the source's transactions begin and end, for readers of the tables' topics, as records of the topic {prefix}.__transactions.
 *
 *   key     "XID:LSN", as in the envelopes of its rows ("transaction")
 *   value   {"status":"BEGIN","id":..,"ts_ms":N,"event_count":null,"data_collections":null}
 *           {"status":"END","id":..,"ts_ms":N,"event_count":N,"data_collections":[{"data_collection":"schema.table","event_count":N},..]}
 *
 * Header dmsr-pos is the position of its begin (event 0), or of its end: who has read that one knows it when it stands there twice. A transaction without
 * rows has neither.
 *
 * A run may begin in the middle of a transaction: what was counted before stands, with the event up to which, in the note "transaction", which is stored
 * before anything that it covers is told delivered; with exactly_once in the record of the position. What comes again is not counted again. */
#include "kafka.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct transactions {
	struct position at;             /* the transaction; event: counted up to that one */
	uint64_t total;
	struct map *tables;             /* "schema.table" -> struct counted */
	bool has_begun;                 /* need not be said again */
};
struct counted { uint64_t n; };

static void drop(void *arg, const void *key, size_t len, void *value)
{
	(void)arg, (void)key, (void)len;
	free(value);
}

static void forget(struct transactions *t)
{
	map_each(t->tables, drop, NULL);
	map_free(t->tables);
	*t = (struct transactions){ .tables = map_new() };
}

static void count(struct transactions *t, const char *table, uint64_t n)
{
	struct counted *c = map_get(t->tables, table, strlen(table));
	if (!c) {
		c = mem_zalloc(sizeof *c);
		map_put(t->tables, table, strlen(table), c);
	}
	c->n += n;
	t->total += n;
}

/* ---- what is kept of one that is open ---- */

static void add_to_object(void *arg, const void *key, size_t len, void *value)
{
	char *name = mem_printf("%.*s", (int)len, (const char *)key);
	json_object_set_new(arg, name, json_integer((json_int_t)((struct counted *)value)->n));
	free(name);
}

json_t *transactions_kept(const struct kafka *k)
{
	const struct transactions *t = k->transactions;
	char text[POSITION_TEXT_MAX];
	if (!t || !t->total || t->at.event == POSITION_WHOLE)
		return NULL;
	json_t *tables = json_object();
	map_each(t->tables, add_to_object, tables);
	return json_pack("{s:s, s:o}", "position", position_format(&t->at, text), "tables", tables);
}

void transactions_restore(struct kafka *k, json_t *kept, bool has_begun)
{
	struct transactions *t = k->transactions;
	const char *text = json_string_value(json_object_get(kept, "position")), *table;
	json_t *n;
	if (!t)
		return;
	forget(t);
	if (!text || position_parse(text, &t->at, NULL))
		return;
	t->has_begun = has_begun;
	json_object_foreach(json_object_get(kept, "tables"), table, n)
		count(t, table, (uint64_t)json_integer_value(n));
}

void transactions_save(struct kafka *k)
{
	json_t *kept = k->known ? NULL : transactions_kept(k);
	if (!kept)
		return;
	char *text = json_dumps(kept, JSON_COMPACT);
	k->host.note_put(k->host.ctx, "transaction", text, NULL, NULL);
	free(text);
	json_decref(kept);
}

/* ---- records ---- */

static bool put(struct kafka *k, struct flight *f, const struct txn *txn, const struct position *at, const char *value)
{
	char id[48], text[POSITION_TEXT_MAX];
	int n = snprintf(id, sizeof id, "%u:%" PRIu64, (unsigned)txn->xid, txn->lsn);
	position_format(at, text);
	const struct record r = { .key = id, .key_len = (size_t)n, .value = value, .len = strlen(value), .nheaders = 1,
		.headers = { { "dmsr-pos", text, strlen(text) } } };
	return produce_record(k, f, k->transactions_topic, &r, NULL);
}

static bool send_begin(struct kafka *k, struct flight *f, const struct txn *txn)
{
	char value[200];
	const struct position at = { .kind = POSITION_LSN, .server = f->b->end.server, .lsn = txn->lsn };
	snprintf(value, sizeof value, "{\"status\":\"BEGIN\",\"id\":\"%u:%" PRIu64 "\",\"ts_ms\":%lld,\"event_count\":null,\"data_collections\":null}",
		(unsigned)txn->xid, txn->lsn, (long long)(txn->commit_us / 1000));
	k->transactions->has_begun = true;
	return put(k, f, txn, &at, value);
}

static void add_to_array(void *arg, const void *key, size_t len, void *value)
{
	json_t *o = json_pack("{s:s%, s:I}", "data_collection", (const char *)key, len, "event_count", (json_int_t)((struct counted *)value)->n);
	json_array_append_new(arg, o);
}

static bool send_end(struct kafka *k, struct flight *f, const struct txn *txn)
{
	struct transactions *t = k->transactions;
	char id[48];
	json_t *tables = json_array();
	map_each(t->tables, add_to_array, tables);
	snprintf(id, sizeof id, "%u:%" PRIu64, (unsigned)txn->xid, txn->lsn);
	json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:o}", "status", "END", "id", id, "ts_ms", (json_int_t)(txn->commit_us / 1000), "event_count",
		(json_int_t)t->total, "data_collections", tables);
	char *value = json_dumps(o, JSON_COMPACT);
	t->at.event = POSITION_WHOLE;
	bool is_sent = put(k, f, txn, &t->at, value);
	free(value);
	json_decref(o);
	return is_sent;
}

static bool take_row(struct kafka *k, struct flight *f, const struct change *ch)
{
	struct transactions *t = k->transactions;
	if (!t->has_begun && !send_begin(k, f, ch->txn))
		return false;
	if (ch->event <= t->at.event)
		return true;
	char *table = mem_printf("%s.%s", ch->rel->schema, ch->rel->name);
	count(t, table, 1);
	free(table);
	t->at.event = ch->event;
	return true;
}

static bool take(struct kafka *k, struct flight *f, const struct change *ch)
{
	struct transactions *t = k->transactions;
	if (!ch->txn)
		return true;
	if (t->at.lsn != ch->txn->lsn || t->at.server != f->b->end.server) {
		forget(t);
		t->at = (struct position){ .kind = POSITION_LSN, .server = f->b->end.server, .lsn = ch->txn->lsn };
	}
	if (change_is_row(ch) || ch->op == OP_TRUNCATE)
		return take_row(k, f, ch);
	return ch->op != OP_COMMIT || !t->total || send_end(k, f, ch->txn);
}

bool transactions_send(struct kafka *k, struct flight *f)
{
	if (!k->transactions || f->b->is_load)
		return true;
	if (!f->at)
		f->at = f->b->first;
	while (f->at) {
		if (!take(k, f, f->at))
			return false;
		f->at = f->at->next;
		if (f->at && kafka_breathe(k))
			return false;
	}
	return true;
}

/* ---- life ---- */

void transactions_open(struct kafka *k)
{
	const char *note = k->host.note_get(k->host.ctx, "transaction");
	json_t *kept = note ? json_loads(note, 0, NULL) : NULL;
	k->transactions = mem_zalloc(sizeof *k->transactions);
	k->transactions->tables = map_new();
	if (!k->known)
		transactions_restore(k, kept, false);
	json_decref(kept);
}

void transactions_free(struct kafka *k)
{
	if (!k->transactions)
		return;
	map_each(k->transactions->tables, drop, NULL);
	map_free(k->transactions->tables);
	free(k->transactions);
}
