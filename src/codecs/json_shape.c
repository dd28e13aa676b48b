/* json_shape: what is the same in every record of a table, made once per version of it. Found by the relation's address, which is held as long as it is in
 * the cache; else by its fingerprint: the same table comes under a new address with each batch that was unpacked from a log. */
#include "json_int.h"
#include <config.h>
#include <stdlib.h>

enum { ARENA_BYTES = 1024 };

/* ,"name": */
static void set_label(struct json_shape *s, struct json_column *c, const char *name)
{
	struct buf b;

	buf_init(&b, SIZE_MAX);
	buf_append(&b, ",\"", 2);
	json_escape(&b, name, strlen(name), true);
	buf_append(&b, "\":", 2);
	c->label = arena_dup(&s->arena, b.data, b.len);
	c->label_len = (uint32_t)b.len;
	buf_fini(&b);
}

/* Boxes part by semicolons, PostGIS' types by colons, all others by commas. */
static char delimiter_of(const struct column *col)
{
	if (col->elem_type == TYPE_GEOMETRY)
		return 0;
	if (col->elem_type == TYPE_OTHER && (strstr(col->native_type, "geometry") || strstr(col->native_type, "geography")))
		return ':';
	return ',';
}

static void add_column(struct json *j, struct json_shape *s, struct json_column *c, const struct column *col)
{
	c->name = arena_strdup(&s->arena, col->name);
	c->typmod = col->typmod;
	c->type = col->type;
	c->elem_type = col->elem_type;
	c->write = json_writer_of(j, col->type);
	c->read = json_reader_of(col->type);
	c->is_generated = col->flags & COLUMN_GENERATED;
	set_label(s, c, col->name);
	if (col->type != TYPE_ARRAY)
		return;
	struct json_column *elem = arena_zalloc(&s->arena, sizeof *elem);
	*elem = *c;
	/* An element that is an array itself, of a domain over arrays: of what, nobody told. */
	elem->type = col->elem_type == TYPE_ARRAY ? TYPE_OTHER : col->elem_type;
	elem->write = json_writer_of(j, elem->type);
	elem->read = json_reader_of(elem->type);
	c->elem = elem;
	c->delimiter = delimiter_of(col);
}

static void set_source(struct json *j, struct json_shape *s, const char *schema, const char *table)
{
	struct buf b;

	buf_init(&b, SIZE_MAX);
	buf_printf(&b, "{\"version\":\"%s\",\"connector\":%s,\"name\":%s,\"db\":%s", PACKAGE_VERSION, j->connector, j->job, j->database);
	s->where = (uint32_t)b.len;
	buf_str(&b, ",\"schema\":\"");
	json_escape(&b, schema, strlen(schema), true);
	buf_str(&b, "\",\"table\":\"");
	json_escape(&b, table, strlen(table), true);
	buf_byte(&b, '"');
	s->source = arena_dup(&s->arena, b.data, b.len);
	s->source_len = (uint32_t)b.len;
	buf_reset(&b);
	buf_str(&b, ",\"__table\":\"");
	json_escape(&b, schema, strlen(schema), true);
	buf_byte(&b, '.');
	json_escape(&b, table, strlen(table), true);
	buf_byte(&b, '"');
	s->table = arena_dup(&s->arena, b.data, b.len);
	s->table_len = (uint32_t)b.len;
	buf_fini(&b);
}

static struct json_shape *shape_new(struct json *j, const struct relation *rel)
{
	struct json_shape *s = mem_zalloc(sizeof *s);

	arena_init(&s->arena, ARENA_BYTES);
	set_source(j, s, rel ? rel->schema : "", rel ? rel->name : "");
	if (!rel)
		return s;
	s->schema = arena_strdup(&s->arena, rel->schema);
	s->name = arena_strdup(&s->arena, rel->name);
	s->ncolumns = rel->ncolumns;
	s->columns = arena_zalloc(&s->arena, (rel->ncolumns + 1) * sizeof *s->columns);
	for (unsigned i = 0; i < rel->ncolumns; i++)
		add_column(j, s, &s->columns[i], &rel->columns[i]);
	if (rel->key != KEY_PRIMARY && rel->key != KEY_UNIQUE)
		return s;
	s->nkeys = rel->nkeys;
	s->keys = arena_dup(&s->arena, rel->keys, rel->nkeys * sizeof *rel->keys);
	for (unsigned i = 0; i < s->nkeys; i++)
		s->columns[s->keys[i]].in_key = true;
	return s;
}

static void shape_free(struct json_shape *s)
{
	if (!s)
		return;
	arena_fini(&s->arena);
	free(s);
}

static void free_one(void *arg, const void *key, size_t n, void *value)
{
	(void)arg;
	(void)key;
	(void)n;
	shape_free(value);
}

static void forget(struct json *j)
{
	for (int i = 0; i < JSON_CACHE; i++) {
		relation_unref(j->cache[i].rel);
		j->cache[i].rel = NULL;
	}
	if (j->shapes)
		map_each(j->shapes, free_one, NULL);
	map_free(j->shapes);
	j->shapes = NULL;
}

void json_shapes_free(struct json *j)
{
	forget(j);
	shape_free(j->none);
	j->none = NULL;
}

static struct json_shape *by_fingerprint(struct json *j, struct relation *rel)
{
	struct json_shape *s = j->shapes ? map_get(j->shapes, &rel->fingerprint, sizeof rel->fingerprint) : NULL;
	if (s)
		return s;
	if (j->shapes && map_size(j->shapes) >= JSON_SHAPES_MAX)
		forget(j);
	if (!j->shapes)
		j->shapes = map_new();
	s = shape_new(j, rel);
	map_put(j->shapes, &rel->fingerprint, sizeof rel->fingerprint, s);
	return s;
}

const struct json_shape *json_shape_of(struct json *j, struct relation *rel)
{
	if (!rel)
		return j->none ? j->none : (j->none = shape_new(j, NULL));
	unsigned slot = (unsigned)((uint64_t)(uintptr_t)rel * 0x9e3779b97f4a7c15u >> 58);
	if (j->cache[slot].rel == rel)
		return j->cache[slot].shape;
	struct json_shape *s = by_fingerprint(j, rel);
	relation_unref(j->cache[slot].rel);
	j->cache[slot].rel = relation_ref(rel);
	j->cache[slot].shape = s;
	return s;
}
