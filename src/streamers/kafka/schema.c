/* schema: the shapes of tables, as records of the compacted topic {prefix}.__schemas: key = the fingerprint that the header dmsr-schema of rows names, value =
 * the relation whole, as JSON. Sent once a run, before the first row that needs it. */
#include "kafka.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *key_name(enum key_kind key)
{
	switch (key) {
	case KEY_NONE: return "none";
	case KEY_PRIMARY: return "primary";
	case KEY_UNIQUE: return "unique";
	case KEY_FULL: return "full";
	}
	return "none";
}

static json_t *column_json(const struct column *c)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:i}", "name", c->name, "type", logical_type_name(c->type), "native_type", c->native_type, "nullable",
		(c->flags & COLUMN_NULLABLE) != 0, "key_position", (int)c->key_pos);
	if (c->type == TYPE_ARRAY || c->type == TYPE_RANGE || c->type == TYPE_MULTIRANGE)
		json_object_set_new(o, "element_type", json_string(logical_type_name(c->elem_type)));
	if (c->type_id)
		json_object_set_new(o, "type_id", json_integer(c->type_id));
	if (c->typmod >= 0)
		json_object_set_new(o, "type_modifier", json_integer(c->typmod));
	if (c->source_id)
		json_object_set_new(o, "source_id", json_integer(c->source_id));
	if (c->flags & COLUMN_GENERATED)
		json_object_set_new(o, "generated", json_true());
	if (c->flags & (COLUMN_IDENTITY_ALWAYS | COLUMN_IDENTITY_DEFAULT))
		json_object_set_new(o, "identity", json_string(c->flags & COLUMN_IDENTITY_ALWAYS ? "always" : "by default"));
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
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "fingerprint", fingerprint, "engine", r->engine, "schema", r->schema, "table", r->name, "key",
		key_name(r->key), "columns", columns);
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
	const struct record rec = { .key = key, .key_len = 16, .value = value, .len = value ? strlen(value) : 0 };
	bool is_sent = value && produce_record(k, f, k->schemas, &rec, r);
	if (is_sent)
		map_put(k->schemas_sent, &r->fingerprint, sizeof r->fingerprint, &sent);
	free(value);
	return is_sent;
}
