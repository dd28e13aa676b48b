/* target_shape: what a table's columns were when the target was last made fit for them (dmsr.loads). Written in the transaction that alters or loads the
 * table, so it is as old as the rows are. Without it a target that starts again could not tell what became of a column. The statements are not part of it. */
#include "target_int.h"
#include <stdlib.h>

enum { SHAPE_MAX = 64 << 20 };

static const char ask_sql[] = "SELECT shape FROM dmsr.loads WHERE job_uid = $1 AND schema_name = $2 AND table_name = $3 AND shape IS NOT NULL";
static const char write_sql[] =
	"INSERT INTO dmsr.loads (job_uid, schema_name, table_name, shape) VALUES ($1, $2, $3, $4::bytea) "
	"ON CONFLICT (job_uid, schema_name, table_name) DO UPDATE SET shape = EXCLUDED.shape";

void shape_forget(struct target_table *tb)
{
	relation_unref(tb->shape);
	tb->shape = NULL;
	tb->has_shape = false;
}

void shape_ask(struct target *t, struct target_table *tb)
{
	const char *values[] = { t->host.env.uid, tb->schema, tb->name };
	tx_sql(t, SENT_SHAPE, tb, ask_sql, 3, values);
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool unhex(const char *text, struct buf *out)
{
	if (*text++ != '\\' || *text++ != 'x')
		return false;
	for (; *text; text += 2) {
		int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
		if (low < 0)
			return false;
		buf_byte(out, (char)(high << 4 | low));
	}
	return buf_ok(out);
}

/* A shape that cannot be read, because a newer version wrote it, is none. */
void shape_told(struct target *t, struct target_table *tb, const PGresult *res)
{
	struct buf bytes;
	struct err e = { 0 };
	shape_forget(tb);
	tb->has_shape = true;
	if (!PQntuples(res))
		return;
	buf_init(&bytes, SHAPE_MAX);
	if (unhex(PQgetvalue(res, 0, 0), &bytes)) {
		struct cursor c;
		cursor_init(&c, bytes.data, bytes.len);
		tb->shape = relation_unpack(&c, &e);
	}
	if (!tb->shape)
		log_warn("target", t->host.env.job, "%s: what %s was like cannot be read from dmsr.loads: columns that changed since then are not seen",
			t->host.env.name, tb->sql);
	buf_fini(&bytes);
}

/* ---- writing ---- */

static struct relation *without_ddl(const struct relation *rel)
{
	struct relation_builder *b = relation_build(rel->engine, rel->schema, rel->name, rel->id);
	for (unsigned i = 0; i < rel->ncolumns; i++)
		relation_build_column(b, &rel->columns[i]);
	return relation_seal(b, (enum key_kind)rel->key);
}

char *shape_take(struct target_table *tb)
{
	static const char digits[] = "0123456789abcdef";
	struct relation *bare = without_ddl(tb->rel);
	struct buf bytes;
	buf_init(&bytes, SHAPE_MAX);
	relation_pack(bare, &bytes);
	char *text = mem_alloc(2 * bytes.len + 3), *at = text;
	*at++ = '\\';
	*at++ = 'x';
	for (size_t i = 0; i < bytes.len; i++) {
		*at++ = digits[(unsigned char)bytes.data[i] >> 4];
		*at++ = digits[(unsigned char)bytes.data[i] & 15];
	}
	*at = 0;
	buf_fini(&bytes);
	relation_unref(bare);
	shape_forget(tb);
	tb->shape = relation_ref(tb->rel);
	tb->has_shape = true;
	return text;
}

void shape_write(struct target *t, struct target_table *tb)
{
	char *text = shape_take(tb);
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, text };
	tx_sql(t, SENT_QUIET, tb, write_sql, 4, values);
	free(text);
}
