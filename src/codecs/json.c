/* json: changes as JSON records, written straight into one buffer.
 *
 * Envelope, in the shape of Debezium (shape "envelope"):
 *   {"before":{..}|null,"after":{..}|null,"source":{..},"op":"c","ts_ms":N,"transaction":{"id":"xid:lsn","total_order":N}|null}
 *   source: version connector name db schema table, ts_ms ts_us (commit time), snapshot, txId, lsn (of the commit), event (number of the change in its
 *   transaction: (lsn, event) is the order of changes), sequence ("[\"lsn\",\"event\"]"), unchanged (columns that the source did not send, if any).
 *   op: c u d r (row of the load) t (truncate) m (message, with "message":{"prefix","content":base64})
 * Row (shape "flat"): {..,"__op","__table","__ts_ms","__lsn","__event"}; the row of a delete is what is known of it. Messages have no row: no record.
 *
 * Key: {"id":1}, the columns of the key; none for a table without. A delete is followed by a tombstone, a record with that key and no value. A changed key
 * is a delete of the old one and a create of the new one. A value that was not sent is left out, so is what a key-only old row does not hold.
 * A caller with room for one record gets one: no tombstone, and a changed key is an update like others.
 *
 * A value that the new row has not is taken from the old one, if that was sent: not sent means that it is the same in both. */
#include "json_int.h"
#include <assert.h>
#include <stdlib.h>

enum { KEEP_BYTES = 4 << 20 };
static const size_t record_max = (size_t)4 << 30;

static const struct dmsr_option options[] = {
	{ "shape", DMSR_OPT_ENUM, 0, "envelope", "envelope|flat", 0, 0,
		"What a record holds: the old and new row with their source and operation, or the row alone." },
	{ "meta", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0,
		"In flat rows, add __op, __table, __ts_ms, __lsn and __event. Without them a delete is a tombstone only, and a truncate nothing." },
	{ "tombstones", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0, "After each delete, a record with the key and no value." },
	{ "numbers", DMSR_OPT_ENUM, 0, "string", "string|number_if_lossless", 0, 0,
		"Numeric and unsigned 64 bit values: strings always, or numbers where a double holds them exactly." },
	{ "json", DMSR_OPT_ENUM, 0, "text", "text|embedded", 0, 0, "Values of type json and jsonb: strings that hold the text, or the document itself." },
	{ "compat", DMSR_OPT_ENUM, 0, "none", "none|debezium", 0, 0, "With debezium, every value in the representation that Debezium has by default." },
	{ "invalid_utf8", DMSR_OPT_ENUM, 0, "stop", "stop|replace", 0, 0,
		"Text that is not valid UTF-8 (databases in SQL_ASCII): an error, or U+FFFD in place of each wrong byte." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

/* A record while the buffer may still move. */
struct span {
	size_t key, key_len, value, value_len;
	bool has_key, has_value;
};

struct encoder {
	struct json *j;
	const struct json_shape *s;
	const struct change *ch;
	struct err *e;
	struct span spans[DMSR_RECORDS_MAX];
	int n;
	char event[20];                 /* its digits */
	size_t event_len;
	bool is_key_only;               /* the row at hand: Debezium has nulls for the rest */
	bool is_single;                 /* a change stays one record */
};

/* ---- rows ---- */

static int bad_value(struct encoder *en, const struct json_column *c, const char *why)
{
	err_set(en->e, DMSR_EDATA, why == json_bad_encoding ? "codec.encoding" : "codec.value", "%s.%s: the value of column %s %s", en->s->schema, en->s->name,
		c->name, why);
	if (why == json_bad_encoding)
		err_hint(en->e, "invalid_utf8: replace writes U+FFFD for what is no UTF-8");
	else
		err_hint(en->e, "mend the value at the source, have it written in another way (options json and compat), or leave the table out of the job");
	return DMSR_EDATA;
}

/* A value that was not sent. */
static void put_unsent(struct encoder *en, const struct json_column *c, bool is_first)
{
	struct json *j = en->j;

	if (!j->debezium || c->is_generated)
		return;
	json_put(j, c->label + is_first, c->label_len - is_first);
	if (en->is_key_only)
		JSON_PUT(j, "null");
	else
		json_debezium_unavailable(j, c);
}

/* or: where a value stands that v has not; NULL: nowhere. */
static int put_columns(struct encoder *en, const struct value *v, const struct value * or)
{
	struct json *j = en->j;
	const unsigned n = en->s->ncolumns;
	const size_t start = j->out.len;

	en->is_key_only = v == en->ch->u.row.before && en->ch->flags & CHANGE_KEY_ONLY;
	for (unsigned i = 0; i < n; i++) {
		const struct json_column *c = &en->s->columns[i];
		const struct value *at = v[i].kind == VALUE_UNCHANGED && or ? & or [i] : &v[i];
		bool is_first = j->out.len == start; /* its label leaves the comma out */
		const char *why;
		if (at->kind == VALUE_UNCHANGED) {
			put_unsent(en, c, is_first);
			continue;
		}
		json_put(j, c->label + is_first, c->label_len - is_first);
		why = at->kind == VALUE_TEXT ? c->write(j, c, at->data, at->len) : json_put_value(j, c, at);
		if (why)
			return bad_value(en, c, why);
	}
	return 0;
}

static int put_row(struct encoder *en, const struct value *v, const struct value * or)
{
	if (!v) {
		JSON_PUT(en->j, "null");
		return 0;
	}
	buf_byte(&en->j->out, '{');
	int rc = put_columns(en, v, or);
	buf_byte(&en->j->out, '}');
	return rc;
}

/* ---- keys ---- */

static const struct value *key_value(const struct value *v, const struct value * or, unsigned column)
{
	return v[column].kind == VALUE_UNCHANGED && or ? & or [column] : &v[column];
}

/* Begins a record with the key of row v. */
static int begin_record(struct encoder *en, const struct value *v, const struct value * or)
{
	struct json *j = en->j;
	const struct json_shape *s = en->s;
	struct span *r = &en->spans[en->n];

	*r = (struct span){ .key = j->out.len };
	if (!s->nkeys || !v)
		return 0;
	buf_byte(&j->out, '{');
	for (unsigned i = 0; i < s->nkeys; i++) {
		const struct json_column *c = &s->columns[s->keys[i]];
		const struct value *at = key_value(v, or, s->keys[i]);
		if (at->kind == VALUE_UNCHANGED)
			return err_set(en->e, DMSR_EDATA, "codec.key", "%s.%s: the source did not send column %s, which is part of the key", s->schema,
				s->name, c->name);
		json_put(j, c->label + (i == 0), c->label_len - (i == 0));
		const char *why = json_put_value(j, c, at);
		if (why)
			return bad_value(en, c, why);
	}
	buf_byte(&j->out, '}');
	r->key_len = j->out.len - r->key;
	r->has_key = true;
	return 0;
}

static void begin_value(struct encoder *en) { en->spans[en->n].value = en->j->out.len; }

static void end_record(struct encoder *en)
{
	struct span *r = &en->spans[en->n++];

	r->value_len = en->j->out.len - r->value;
	r->has_value = true;
}

/* Behind a delete's record: the same key, no value. */
static void put_tombstone(struct encoder *en)
{
	if (en->is_single || !en->j->tombstones || !en->spans[en->n - 1].has_key)
		return;
	en->spans[en->n] = en->spans[en->n - 1];
	en->spans[en->n++].has_value = false;
}

static bool is_same(struct encoder *en, const struct json_column *c, const struct value *a, const struct value *b)
{
	struct json *j = en->j;
	size_t start = j->out.len;

	if (a->kind == b->kind)
		return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
	if (a->kind < VALUE_TEXT || b->kind < VALUE_TEXT)
		return false;
	/* One as text, one binary: as JSON they can be compared. */
	const char *why = json_put_value(j, c, a);
	size_t middle = j->out.len;
	why = why ? why : json_put_value(j, c, b);
	bool same = !why && buf_ok(&j->out) && middle - start == j->out.len - middle && !memcmp(j->out.data + start, j->out.data + middle, middle - start);
	j->out.len = start;
	return same;
}

static bool is_key_changed(struct encoder *en)
{
	const struct value *before = en->ch->u.row.before, *after = en->ch->u.row.after;
	const struct json_shape *s = en->s;

	for (unsigned i = 0; before && i < s->nkeys; i++) {
		unsigned k = s->keys[i];
		if (before[k].kind != VALUE_UNCHANGED && after[k].kind != VALUE_UNCHANGED && !is_same(en, &s->columns[k], &before[k], &after[k]))
			return true;
	}
	return false;
}

/* ---- what stands around a row ---- */

static bool is_load(const struct change *ch) { return ch->op == OP_READ; }

static void put_number_or_null(struct buf *b, const char *label, int64_t v)
{
	buf_str(b, label);
	if (v)
		buf_int(b, v);
	else
		buf_append(b, "null", 4);
}

static int64_t to_ms(int64_t us) { return us / 1000 - (us % 1000 < 0); }

static uint64_t lsn_of(const struct change *ch)
{
	return ch->txn ? ch->txn->lsn : ch->op == OP_MESSAGE ? ch->u.message.lsn : 0;
}

/* Changes of one transaction come one behind another: what they share is written once. */
static void set_txn(struct json *j, const struct change *ch)
{
	static const struct txn none;
	const struct txn *t = ch->txn ? ch->txn : &none;
	struct buf *b = &j->txn_source;
	uint64_t lsn = lsn_of(ch);

	if (j->has_txn && j->txn_lsn == lsn && j->txn.xid == t->xid && j->txn.commit_us == t->commit_us && j->txn_is_load == is_load(ch))
		return;
	j->txn = *t;
	j->txn_lsn = lsn;
	j->has_txn = true;
	j->txn_is_load = is_load(ch);
	buf_reset(b);
	/* The rows of a load were committed at times that nobody knows; Debezium's consumers want one. */
	int64_t us = t->commit_us || !j->debezium ? t->commit_us : wall_now_us();
	put_number_or_null(b, ",\"ts_ms\":", to_ms(us));
	put_number_or_null(b, ",\"ts_us\":", us);
	if (j->debezium) {
		put_number_or_null(b, ",\"ts_ns\":", us > INT64_MAX / 1000 || us < INT64_MIN / 1000 ? 0 : us * 1000);
		buf_str(b, ",\"xmin\":null");
	}
	buf_str(b, j->txn_is_load ? ",\"snapshot\":\"true\"" : ",\"snapshot\":\"false\"");
	put_number_or_null(b, ",\"txId\":", t->xid);
	buf_printf(b, ",\"lsn\":%llu,\"sequence\":\"[\\\"%llu\\\",\\\"", (unsigned long long)lsn, (unsigned long long)lsn);
	buf_reset(&j->txn_flat);
	put_number_or_null(&j->txn_flat, ",\"__ts_ms\":", to_ms(t->commit_us));
	buf_printf(&j->txn_flat, ",\"__lsn\":%llu,\"__event\":", (unsigned long long)lsn);
	buf_reset(&j->txn_id);
	buf_printf(&j->txn_id, ",\"transaction\":{\"id\":\"%u:%llu\",\"total_order\":", (unsigned)t->xid, (unsigned long long)t->lsn);
}

/* Names of the columns whose values are not known. */
static void put_unchanged(struct encoder *en, const struct value *after, const struct value * or)
{
	struct json *j = en->j;
	bool any = false;

	for (unsigned i = 0; i < en->s->ncolumns; i++) {
		const struct json_column *c = &en->s->columns[i];
		if (key_value(after, or, i)->kind != VALUE_UNCHANGED || c->is_generated)
			continue;
		if (any)
			buf_byte(&j->out, ',');
		else
			JSON_PUT(j, ",\"unchanged\":[");
		json_put(j, c->label + 1, c->label_len - 2);
		any = true;
	}
	if (any)
		buf_byte(&j->out, ']');
}

/* Written in three places. */
static void set_event(struct encoder *en)
{
	char digits[20], *p = digits + sizeof digits;
	uint64_t v = en->ch->event;

	do
		*--p = (char)('0' + v % 10);
	while ((v /= 10));
	en->event_len = (size_t)(digits + sizeof digits - p);
	memcpy(en->event, p, en->event_len);
}

static void put_event(struct encoder *en) { json_put(en->j, en->event, en->event_len); }

/* after: the new row, if the record has one */
static void put_source(struct encoder *en, const struct value *after, const struct value * or)
{
	struct json *j = en->j;

	JSON_PUT(j, "\"source\":");
	json_put(j, en->s->source, en->s->source_len);
	json_put(j, j->txn_source.data, j->txn_source.len);
	put_event(en);
	JSON_PUT(j, "\\\"]\"");
	if (!j->debezium) {
		JSON_PUT(j, ",\"event\":");
		put_event(en);
	}
	if (after && !j->debezium)
		put_unchanged(en, after, or);
	buf_byte(&j->out, '}');
}

static void put_end(struct encoder *en, char op)
{
	struct json *j = en->j;
	int64_t now = wall_now_us();

	JSON_PUT(j, ",\"op\":\"");
	buf_byte(&j->out, op);
	if (now / 1000 != j->now_ms || !j->now_text.len) {
		j->now_ms = now / 1000;
		buf_reset(&j->now_text);
		buf_str(&j->now_text, "\",\"ts_ms\":");
		buf_int(&j->now_text, j->now_ms);
	}
	json_put(j, j->now_text.data, j->now_text.len);
	if (j->debezium) {
		JSON_PUT(j, ",\"ts_us\":");
		buf_int(&j->out, now);
		JSON_PUT(j, ",\"ts_ns\":");
		buf_int(&j->out, now * 1000);
	}
}

static void put_transaction(struct encoder *en)
{
	struct json *j = en->j;

	if (j->debezium || is_load(en->ch) || !en->ch->txn) {
		JSON_PUT(j, ",\"transaction\":null}");
		return;
	}
	json_put(j, j->txn_id.data, j->txn_id.len);
	put_event(en);
	JSON_PUT(j, "}}");
}

static int put_envelope(struct encoder *en, char op, const struct value *before, const struct value *after, const struct value * or)
{
	int rc;

	JSON_PUT(en->j, "{\"before\":");
	if ((rc = put_row(en, before, NULL)))
		return rc;
	JSON_PUT(en->j, ",\"after\":");
	if ((rc = put_row(en, after, or)))
		return rc;
	buf_byte(&en->j->out, ',');
	put_source(en, after, or);
	put_end(en, op);
	put_transaction(en);
	return 0;
}

static int put_flat(struct encoder *en, char op, const struct value *row, const struct value * or)
{
	struct json *j = en->j;
	int rc;

	buf_byte(&j->out, '{');
	size_t first = j->out.len;
	if (row && (rc = put_columns(en, row, or)))
		return rc;
	if (j->meta) {
		json_put(j, &",\"__op\":\""[j->out.len == first], 9 - (j->out.len == first));
		buf_byte(&j->out, op);
		buf_byte(&j->out, '"');
		json_put(j, en->s->table, en->s->table_len);
		json_put(j, j->txn_flat.data, j->txn_flat.len);
		put_event(en);
	}
	buf_byte(&j->out, '}');
	return 0;
}

/* ---- changes ---- */

/* One record: key and value. or: what completes `after`. */
static int put_record(struct encoder *en, char op, const struct value *before, const struct value *after, const struct value * or)
{
	bool is_delete = op == OP_DELETE;
	int rc = begin_record(en, is_delete ? before : after, is_delete ? NULL : or);

	if (rc)
		return rc;
	begin_value(en);
	if (en->j->flat)
		rc = put_flat(en, op, is_delete ? before : after, is_delete ? NULL : or);
	else
		rc = put_envelope(en, op, before, after, or);
	if (rc)
		return rc;
	end_record(en);
	/* A flat row that does not say that it was deleted would say that it is there. */
	if (is_delete && en->j->flat && !en->j->meta) {
		en->spans[en->n - 1].has_value = false;
		en->n -= !en->spans[en->n - 1].has_key || !en->j->tombstones;
	} else if (is_delete) {
		put_tombstone(en);
	}
	return 0;
}

static int put_update(struct encoder *en)
{
	const struct value *before = en->ch->u.row.before, *after = en->ch->u.row.after;

	if (en->is_single || !is_key_changed(en))
		return put_record(en, OP_UPDATE, before, after, before);
	int rc = put_record(en, OP_DELETE, before, NULL, NULL);
	return rc ? rc : put_record(en, OP_CREATE, NULL, after, before);
}

static int put_truncate(struct encoder *en)
{
	struct json *j = en->j;
	int rc;

	if (j->flat && !j->meta)
		return 0;
	if ((rc = begin_record(en, NULL, NULL)))
		return rc;
	begin_value(en);
	rc = j->flat ? put_flat(en, OP_TRUNCATE, NULL, NULL) : put_envelope(en, OP_TRUNCATE, NULL, NULL, NULL);
	end_record(en);
	return rc;
}

static int put_message(struct encoder *en)
{
	struct json *j = en->j;
	const char *prefix = en->ch->u.message.prefix ? en->ch->u.message.prefix : "";
	struct span *r = &en->spans[en->n];

	if (j->flat)
		return 0;
	*r = (struct span){ .key = j->out.len, .has_key = true };
	JSON_PUT(j, "{\"prefix\":\"");
	json_escape(&j->out, prefix, strlen(prefix), true);
	JSON_PUT(j, "\"}");
	r->key_len = j->out.len - r->key;
	begin_value(en);
	buf_byte(&j->out, '{');
	put_source(en, NULL, NULL);
	put_end(en, OP_MESSAGE);
	JSON_PUT(j, ",\"message\":{\"prefix\":\"");
	json_escape(&j->out, prefix, strlen(prefix), true);
	JSON_PUT(j, "\",\"content\":\"");
	json_put_base64(&j->out, en->ch->u.message.data, en->ch->u.message.len);
	JSON_PUT(j, "\"}");
	put_transaction(en);
	end_record(en);
	return 0;
}

static int put_change(struct encoder *en)
{
	const struct value *before = en->ch->u.row.before, *after = en->ch->u.row.after;

	switch ((enum change_op)en->ch->op) {
	case OP_CREATE: case OP_READ:
		return put_record(en, (char)en->ch->op, NULL, after, NULL);
	case OP_UPDATE:
		return put_update(en);
	case OP_DELETE:
		return put_record(en, OP_DELETE, before, NULL, NULL);
	case OP_TRUNCATE:
		return put_truncate(en);
	case OP_MESSAGE:
		return put_message(en);
	case OP_ROWS:
		return err_set(en->e, DMSR_EINVAL, "codec.rows", "%s.%s: rows of the load are encoded one by one", en->s->schema, en->s->name);
	case OP_BEGIN: case OP_COMMIT: case OP_HEARTBEAT: case OP_SCHEMA: case OP_LOAD_BEGIN: case OP_LOAD_PART: case OP_LOAD_END: case OP_LOAD_DONE:
		return 0;
	}
	return 0;
}

static int json_encode(struct dmsr_instance *i, const struct change *ch, struct dmsr_record *records, unsigned max, struct err *e)
{
	struct json *j = (struct json *)i;

	assert(max == 1 || max >= DMSR_RECORDS_MAX);
	if (j->out.cap > KEEP_BYTES && j->out.len < KEEP_BYTES)
		buf_fini(&j->out);
	buf_reset(&j->out);
	if (!change_is_row(ch) && ch->op != OP_TRUNCATE && ch->op != OP_MESSAGE && ch->op != OP_ROWS)
		return 0;
	struct encoder en = { .j = j, .s = json_shape_of(j, ch->rel), .ch = ch, .e = e, .is_single = max == 1 };
	set_txn(j, ch);
	set_event(&en);
	int rc = put_change(&en);
	if (rc)
		return rc;
	if (!buf_ok(&j->out)) {
		err_set(e, DMSR_EDATA, "codec.too-long", "%s.%s: a record would have more than 4 GiB", en.s->schema ? en.s->schema : "",
			en.s->name ? en.s->name : "");
		err_hint(e, "make the row smaller at the source, or leave the table out of the job");
		return DMSR_EDATA;
	}
	for (int n = 0; n < en.n; n++) {
		const struct span *r = &en.spans[n];
		records[n] = (struct dmsr_record){ .key = r->has_key ? j->out.data + r->key : NULL, .key_len = r->has_key ? r->key_len : 0,
			.value = r->has_value ? j->out.data + r->value : NULL, .value_len = r->has_value ? r->value_len : 0 };
	}
	return en.n;
}

/* ---- life ---- */

/* text as a JSON string on the heap; NULL: null */
static char *quoted(const char *text)
{
	struct buf b;

	if (!text)
		return mem_strdup("null");
	buf_init(&b, SIZE_MAX);
	buf_byte(&b, '"');
	json_escape(&b, text, strlen(text), true);
	buf_byte(&b, '"');
	char *out = mem_strdup(buf_cstr(&b));
	buf_fini(&b);
	return out;
}

static bool is_set(const struct settings *s, const char *name, const char *value) { return !strcmp(settings_str(s, name), value); }

static int json_open(const struct settings *s, const struct dmsr_codec_source *src, struct dmsr_instance **out, struct err *e)
{
	struct json *j = mem_zalloc(sizeof *j);
	const char *connector = src && src->connector ? src->connector : "";

	(void)e;
	j->flat = is_set(s, "shape", "flat");
	j->meta = settings_bool(s, "meta");
	j->tombstones = settings_bool(s, "tombstones");
	j->numbers = is_set(s, "numbers", "number_if_lossless");
	j->embed = is_set(s, "json", "embedded");
	j->debezium = is_set(s, "compat", "debezium");
	j->replace_bad = is_set(s, "invalid_utf8", "replace");
	/* Debezium's word for it, which its consumers look at */
	j->connector = quoted(!strcmp(connector, "postgres") ? "postgresql" : connector);
	j->job = quoted(src && src->name ? src->name : "");
	j->database = quoted(src ? src->database : NULL);
	buf_init(&j->out, record_max);
	buf_init(&j->text, record_max);
	buf_init(&j->piece, record_max);
	buf_init(&j->bytes, record_max);
	buf_init(&j->row, UINT32_MAX);
	buf_init(&j->read_txn, 4096);
	buf_init(&j->txn_source, 4096);
	buf_init(&j->txn_id, 4096);
	buf_init(&j->txn_flat, 4096);
	buf_init(&j->now_text, 4096);
	*out = (struct dmsr_instance *)j;
	return 0;
}

static void json_close(struct dmsr_instance *i)
{
	struct json *j = (struct json *)i;

	if (!j)
		return;
	json_shapes_free(j);
	free(j->connector);
	free(j->job);
	free(j->database);
	buf_fini(&j->out);
	buf_fini(&j->text);
	buf_fini(&j->piece);
	buf_fini(&j->bytes);
	buf_fini(&j->row);
	buf_fini(&j->read_txn);
	buf_fini(&j->txn_source);
	buf_fini(&j->txn_id);
	buf_fini(&j->txn_flat);
	buf_fini(&j->now_text);
	free(j);
}

static const struct dmsr_codec codec = {
	.open = json_open,
	.encode = json_encode,
	.is_exact = json_is_exact,
	.decode = json_decode,
	.close = json_close,
};

DMSR_PLUGIN(json) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "json",
	.summary = "changes as JSON: Debezium's envelope, or flat rows",
	.codec_options = options,
	.codec = &codec,
};
