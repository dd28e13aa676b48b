/* target_stmt: prepared statements of the pipeline, one per table and shape of a change; the least used one is given up beyond a limit. */
#include "target_int.h"
#include <stdlib.h>

enum { STATEMENTS_MAX = 2000 /* some 10 to 20 KiB of the server's memory each */ };

struct stmt {
	struct stmt *newer, *older;
	const struct target_table *table;
	unsigned number;
	uint8_t *key;
	size_t nkey;
};

/* All statements in the order of their last use. */
struct stmt_cache {
	struct map *by_shape;
	struct stmt *newest, *oldest;
	unsigned numbers;
	struct buf key, sql;
	uint32_t *types;
	unsigned cap;
};

static void unlink_stmt(struct stmt_cache *k, struct stmt *s)
{
	*(s->newer ? &s->newer->older : &k->newest) = s->older;
	*(s->older ? &s->older->newer : &k->oldest) = s->newer;
	s->newer = s->older = NULL;
}

static void link_newest(struct stmt_cache *k, struct stmt *s)
{
	s->older = k->newest;
	s->newer = NULL;
	*(k->newest ? &k->newest->newer : &k->oldest) = s;
	k->newest = s;
}

static void name_of(const struct stmt *s, char out[STMT_NAME_MAX]) { snprintf(out, STMT_NAME_MAX, "d%u", s->number); }

static void drop(struct stmt_cache *k, struct stmt *s)
{
	unlink_stmt(k, s);
	map_del(k->by_shape, s->key, s->nkey);
	free(s->key);
	free(s);
}

/* The server is told too. A statement that it has already begun to run is not harmed: they are worked off in order. */
static void give_up(struct target *t, struct stmt *s)
{
	char sql[40], name[STMT_NAME_MAX];
	name_of(s, name);
	snprintf(sql, sizeof sql, "DEALLOCATE %s", name);
	if (t->in_pipeline && t->conn)
		tx_sql(t, SENT_QUIET, NULL, sql, 0, NULL);
	drop(t->statements, s);
}

void stmt_forget(struct target *t, const struct target_table *tb)
{
	struct stmt *s = t->statements->newest;
	while (s) {
		struct stmt *older = s->older;
		if (s->table == tb)
			give_up(t, s);
		s = older;
	}
}

void stmt_forget_all(struct target *t)
{
	while (t->statements->newest)
		drop(t->statements, t->statements->newest);
	if (t->in_pipeline && t->conn)
		tx_sql(t, SENT_QUIET, NULL, "DEALLOCATE ALL", 0, NULL);
}

static void make_key(struct stmt_cache *k, const struct target_table *tb, const struct shape *sh)
{
	buf_reset(&k->key);
	buf_append(&k->key, &tb, sizeof tb);
	buf_byte(&k->key, (char)sh->op);
	buf_byte(&k->key, (char)sh->is_set);
	buf_append(&k->key, sh->after, tb->rel->ncolumns);
	buf_append(&k->key, sh->before, tb->rel->ncolumns);
}

static struct stmt *add(struct target *t, struct target_table *tb, const struct shape *sh)
{
	struct stmt_cache *k = t->statements;
	struct stmt *s = mem_zalloc(sizeof *s);
	char name[STMT_NAME_MAX];
	if (k->cap < tb->rel->ncolumns) {
		k->cap = tb->rel->ncolumns;
		k->types = mem_realloc_array(k->types, 2u * k->cap, sizeof *k->types);
	}
	s->table = tb;
	s->number = ++k->numbers;
	s->nkey = k->key.len;
	s->key = mem_alloc(s->nkey);
	memcpy(s->key, k->key.data, s->nkey);
	buf_reset(&k->sql);
	int n = sh->is_set ? sql_set_change(&k->sql, tb, sh, k->types) : sql_row_change(&k->sql, tb, sh, k->types);
	name_of(s, name);
	tx_note(t, SENT_ROW, (enum change_op)sh->op, tb, 0);
	pgconn_pipeline_prepare(t->conn, name, buf_cstr(&k->sql), n, k->types);
	map_put(k->by_shape, s->key, s->nkey, s);
	link_newest(k, s);
	if (map_size(k->by_shape) > STATEMENTS_MAX)
		give_up(t, k->oldest);
	return s;
}

void stmt_get(struct target *t, struct target_table *tb, const struct shape *sh, char name[STMT_NAME_MAX])
{
	struct stmt_cache *k = t->statements;
	make_key(k, tb, sh);
	struct stmt *s = map_get(k->by_shape, k->key.data, k->key.len);
	if (!s) {
		s = add(t, tb, sh);
	} else if (s != k->newest) {
		unlink_stmt(k, s);
		link_newest(k, s);
	}
	name_of(s, name);
}

void stmt_init(struct target *t)
{
	t->statements = mem_zalloc(sizeof *t->statements);
	t->statements->by_shape = map_new();
	buf_init(&t->statements->key, 16 << 10);
	buf_init(&t->statements->sql, 16 << 20);
}

void stmt_fini(struct target *t)
{
	struct stmt_cache *k = t->statements;
	while (k->newest)
		drop(k, k->newest);
	map_free(k->by_shape);
	buf_fini(&k->key);
	buf_fini(&k->sql);
	free(k->types);
	free(k);
}
