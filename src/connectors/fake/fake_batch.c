/* fake_batch: relations, rows and batches as the fakes and the tests send them, and the loop for a while. */
#include "fake.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct relation *fake_relation(const char *name, uint32_t id)
{
	struct relation_builder *b = relation_build("postgres", "public", name, id);
	const struct column id_column = { .name = "id", .native_type = "bigint", .type_id = 20, .typmod = -1, .key_pos = 1, .type = TYPE_INT64 };
	const struct column v = { .name = "v", .native_type = "text", .type_id = 25, .typmod = -1, .type = TYPE_TEXT, .flags = COLUMN_NULLABLE };
	relation_build_column(b, &id_column);
	relation_build_column(b, &v);
	return relation_seal(b, KEY_PRIMARY);
}

struct position fake_position(uint64_t lsn, uint64_t event)
{
	uint64_t flush = event == POSITION_WHOLE ? lsn + FAKE_LSN_STEP / 2 : 0;
	return (struct position){ .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = lsn, .event = event, .flush = flush };
}

void fake_add_row(struct batch *b, enum change_op op, struct relation *rel, uint64_t event, int64_t id, size_t pad)
{
	struct change *ch = batch_append(b, op, rel);
	struct value *v = batch_values(b, 2);
	char text[24];
	int n = snprintf(text, sizeof text, "%" PRId64, id);
	char *fill = arena_alloc(&b->arena, pad + 1);
	memset(fill, 'x', pad);
	fill[pad] = 0;
	v[0] = value_text(arena_dup(&b->arena, text, (size_t)n), (uint32_t)n);
	v[1] = value_text(fill, (uint32_t)pad);
	ch->event = event;
	if (op == OP_DELETE)
		ch->u.row.before = v;
	else
		ch->u.row.after = v;
	b->bytes += (size_t)n + pad;
}

void fake_add_rows(struct batch *b, struct relation *rel, int64_t first_id, uint32_t n)
{
	struct buf text;
	buf_init(&text, (size_t)n * 32 + 1);
	for (uint32_t i = 0; i < n; i++)
		buf_printf(&text, "%" PRId64 "\tx\n", first_id + i);
	struct change *ch = batch_append(b, OP_ROWS, rel);
	ch->u.rows.data = arena_dup(&b->arena, text.data, text.len);
	ch->u.rows.len = text.len;
	ch->u.rows.rows = n;
	ch->u.rows.format = ROWS_COPY_TEXT;
	b->bytes += text.len;
	b->nrows += n;
	buf_fini(&text);
}

int64_t fake_row_id(const struct change *ch)
{
	const struct value *v = ch->u.row.after ? ch->u.row.after : ch->u.row.before;
	int64_t id = 0;
	for (uint32_t i = 0; i < v->len; i++)
		id = id * 10 + (v->data[i] - '0');
	return id;
}

/* ---- the loop for a while ---- */

struct run {
	struct loop *loop;
	bool (*until)(void *arg);
	void *arg;
	struct loop_timer *look, *limit;
	bool is_true;
};

static void on_look(void *arg)
{
	struct run *r = arg;
	r->is_true = r->until && r->until(r->arg);
	if (r->is_true)
		loop_stop(r->loop);
	else
		loop_timer_start_us(r->look, 200);
}

static void on_limit(void *arg)
{
	struct run *r = arg;
	loop_stop(r->loop);
}

bool fake_run(struct loop *l, bool (*until)(void *arg), void *arg, unsigned limit_ms)
{
	struct run r = { .loop = l, .until = until, .arg = arg };
	r.look = loop_timer_new(l, "test", on_look, &r);
	r.limit = loop_timer_new(l, "test", on_limit, &r);
	loop_timer_start_us(r.look, 0);
	loop_timer_start(r.limit, limit_ms);
	loop_run(l);
	loop_timer_free(r.look);
	loop_timer_free(r.limit);
	return until ? r.is_true || until(arg) : true;
}

struct quiet {
	struct loop *loop;
	uint64_t slices;
};

/* Since the last look nothing ran but that look itself. */
static bool is_quiet(void *arg)
{
	struct quiet *q = arg;
	struct loop_slices now;
	loop_slices(q->loop, &now);
	bool is = now.n == q->slices + 1;
	q->slices = now.n;
	return is;
}

void fake_settle(struct loop *l)
{
	struct quiet q = { .loop = l, .slices = UINT64_MAX - 1 };
	fake_run(l, is_quiet, &q, 5000);
}
