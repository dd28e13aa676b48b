/* target_load: the rows of a table, in one transaction with the word that they are there (dmsr.loads). What a lane does (target_lanes.c).
 *
 *   NONE -> PREPARING -> OPEN -> ENDING -> NONE
 *   NONE -> PREPARING -> NONE, [ NONE -> PREPARING -> OPEN -> ENDING -> NONE ] a part, NONE -> ENDING -> NONE         a divided table, on several lanes
 *
 * In come OP_LOAD_BEGIN, rows, OP_LOAD_END of one table after another; of a divided one its beginning, or a part with OP_LOAD_PART, or its end, each a
 * transaction. Opaque rows go to COPY as they are, when both sides have the same types; other rows
 * are written in COPY's text form. Nothing is durable, and nothing is told as applied, before the COMMIT. */
#include "target_int.h"
#include <stdlib.h>

enum {
	PENDING_BYTES = 1 << 20,        /* not taken by the kernel: beyond, wait */
	PIECE_BYTES = 256 << 10,          /* put at once */
	ROW_BYTES_MAX = 1 << 30,
};

static const char copy_header[19] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";
static const char copy_trailer[2] = "\377\377";

/* ---- COPY ---- */

/* Changes alone are set aside. */
static void hint_load(struct err *e)
{
	bool is_constraint = !strcmp(e->id, "target.constraint");
	if (strstr(e->hint, "dead-letter"))
		err_hint(e, "%s, and start the job: a row of a load is not set aside",
			is_constraint ? "mend the row at the source or the constraint at the target" : "make the target's column take what the source sends");
}

/* Rows of two snapshots may meet in an index or constraint that the table has not, but a partition of it: in one snapshot they do not. */
static bool may_be_for_the_rest(const struct target *t)
{
	return t->load.piece == LOAD_PART && (t->load.goes_on || t->load.in_turns) && !strncmp(pgconn_sqlstate(t->conn), "23", 2);
}

static void fail_copy(struct target *t, const struct err *why)
{
	struct err e = *why;
	if (may_be_for_the_rest(t)) {
		load_lose_refused(t, why);
		return;
	}
	err_prefix(&e, "loading %s", t->load.table->sql);
	right_hint(&e, RIGHT_EMPTY, t->settings, t->load.table->schema, t->load.table->name);
	hint_load(&e);
	target_fail_row(t, &e);
}

static void on_copy_opened(void *arg)
{
	struct target *t = arg;
	t->load.copy = COPY_OPEN;
	if (t->load.is_binary)
		pgconn_copy_put(t->conn, copy_header, sizeof copy_header);
	target_wake(t);
}

static void on_copy_done(void *arg, const PGresult *res, const struct err *e)
{
	struct target *t = arg;
	(void)res;
	t->load.copy = COPY_NONE;
	if (e)
		fail_copy(t, e);
	target_wake(t);
}

static void on_copy_drain(void *arg) { target_wake(arg); }

static void open_copy(struct target *t, bool is_binary)
{
	struct buf sql;
	t->load.copy = COPY_OPENING;
	t->load.is_binary = is_binary;
	buf_init(&sql, 1 << 20);
	if (t->load.merges)
		sql_part_copy(&sql, t->load.table->rel, is_binary);
	else
		sql_copy(&sql, t->load.table->rel, is_binary, t->load.is_fresh);
	pgconn_copy_in(t->conn, buf_cstr(&sql), on_copy_opened, on_copy_drain, on_copy_done, t);
	buf_fini(&sql);
}

static void end_copy(struct target *t)
{
	t->load.copy = COPY_ENDING;
	if (t->load.is_binary)
		pgconn_copy_put(t->conn, copy_trailer, sizeof copy_trailer);
	pgconn_copy_end(t->conn, NULL);
}

/* DONE: no COPY is going on. */
static enum step close_copy(struct target *t)
{
	if (t->load.copy == COPY_OPEN)
		end_copy(t);
	return t->load.copy == COPY_NONE ? STEP_DONE : STEP_WAIT;
}

/* DONE: a COPY of this form is open and there is room. */
static enum step have_copy(struct target *t, bool is_binary)
{
	struct load *l = &t->load;
	if (l->copy == COPY_OPEN && l->is_binary == is_binary)
		return pgconn_pending(t->conn) > PENDING_BYTES ? STEP_WAIT : STEP_DONE;
	if (l->copy == COPY_OPENING || close_copy(t) == STEP_WAIT)
		return STEP_WAIT;
	open_copy(t, is_binary);
	return STEP_WAIT;
}

/* ---- rows ---- */

/* Would the server read the source's binary form as what it is? */
static bool has_same_types(const struct target *t, const struct target_table *tb)
{
	const struct relation *rel = tb->rel;
	if (t->load.table->is_made && (t->load.how == HOW_MAKE || t->load.how == HOW_DROP))
		return true;
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct column *c = &rel->columns[i];
		const struct target_column *own = tb->of[i];
		if (!sql_is_written(rel, c))
			continue;
		uint32_t type = sql_binary_type(rel, c);
		if (type ? type != own->type : strcmp(c->native_type, own->type_sql) != 0 && strcmp(c->native_type, own->type_full) != 0)
			return false;
	}
	return true;
}

/* A chunk may hold generated columns too, which COPY does not take: the first row tells. */
static bool has_all_columns(const struct change *ch)
{
	const char *p = ch->u.rows.data, *end = p + ch->u.rows.len;
	unsigned written = 0, fields = 1;
	for (unsigned i = 0; i < ch->rel->ncolumns; i++)
		written += sql_is_written(ch->rel, &ch->rel->columns[i]);
	if (written == ch->rel->ncolumns)
		return false;
	if (ch->u.rows.format == ROWS_COPY_BINARY)
		return ch->u.rows.len >= 2 && (unsigned)((unsigned char)p[0] << 8 | (unsigned char)p[1]) != written;
	for (; p < end && *p != '\n'; p++)
		fields += *p == '\t';
	return fields > written && written > 0;
}

struct lines {
	struct target *t;
	struct buf text;
	struct err *e;
};

static int add_line(void *arg, const struct change *row)
{
	struct lines *l = arg;
	return sql_copy_row(&l->text, row->rel, row->u.row.after, l->e);
}

static enum step put_lines(struct target *t, const struct change *ch)
{
	struct err e = { 0 };
	struct lines l = { .t = t, .e = &e };
	buf_init(&l.text, ROW_BYTES_MAX);
	int rc = ch->op == OP_READ ? add_line(&l, ch) : change_each_row(ch, add_line, &l, &e);
	if (!rc && !buf_ok(&l.text))
		rc = err_set(&e, DMSR_EFULL, "target.limit", "rows of more than 1 GiB");
	if (rc) {
		err_prefix(&e, "loading %s", t->load.table->sql);
		target_fail(t, &e);
	} else {
		pgconn_copy_put(t->conn, l.text.data, l.text.len);
	}
	buf_fini(&l.text);
	return rc ? STEP_WAIT : STEP_DONE;
}

/* The next piece of rows as they are. The server takes a row in pieces, and libpq would move the rest of a big one to the front for each bit that is sent. */
static enum step put_opaque(struct target *t, const struct change *ch)
{
	struct load *l = &t->load;
	size_t left = ch->u.rows.len - l->put, n = left < PIECE_BYTES ? left : PIECE_BYTES;
	pgconn_copy_put(t->conn, ch->u.rows.data + l->put, n);
	l->put = n < left ? l->put + n : 0;
	if (!l->put)
		return STEP_DONE;
	target_wake(t);
	return STEP_WAIT;
}

static enum step put_rows(struct target *t, const struct change *ch)
{
	bool is_opaque = ch->op == OP_ROWS && !has_all_columns(ch);
	bool is_binary = is_opaque && ch->u.rows.format == ROWS_COPY_BINARY && has_same_types(t, t->load.table);
	if (is_opaque && ch->u.rows.format == ROWS_COPY_BINARY && !is_binary)
		is_opaque = false;
	if (have_copy(t, is_binary) == STEP_WAIT)
		return STEP_WAIT;
	if (target_died(t, failpoint("target.load-rows")))
		return STEP_WAIT;
	if ((is_opaque ? put_opaque(t, ch) : put_lines(t, ch)) == STEP_WAIT)
		return STEP_WAIT;
	t->load.rows += ch->op == OP_ROWS ? ch->u.rows.rows : 1;
	return STEP_DONE;
}

/* ---- the end of a table ---- */

static void on_table_committed(struct target *t)
{
	if (target_died(t, failpoint("target.load-after-commit")))
		return;
	lane_loaded(t);
	t->load.state = LOAD_NONE;
	table_reset(t, t->load.table);
}

static void on_noted(struct target *t)
{
	if (target_died(t, failpoint("target.load-before-commit")))
		return;
	target_ask(t, "COMMIT", 0, NULL, on_table_committed);
}

static void note_load(struct target *t);

/* It is whole: what its parts were does not matter any more, but how far they are apart. */
static void forget_parts(struct target *t)
{
	const struct target_table *tb = t->load.table;
	char position[POSITION_TEXT_MAX];
	const struct position at = { .kind = POSITION_LSN, .server = t->load.server, .lsn = t->load.lsn };
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, position_format(&at, position), t->load.since < t->load.lsn ? "t" : "f",
		t->load.rows_move ? LOAD_MOVED : "0" };
	if (!tb->has_rests) {
		note_load(t);
		return;
	}
	target_ask(t, "WITH until AS (INSERT INTO dmsr.loads (job_uid, schema_name, table_name, position, rows) "
		"SELECT $1::text || '/0', $2, $3, $4, $6::bigint WHERE $5::boolean ON CONFLICT (job_uid, schema_name, table_name) "
		"DO UPDATE SET position = EXCLUDED.position, rows = EXCLUDED.rows) DELETE FROM dmsr.loads "
		"WHERE pg_catalog.starts_with(job_uid, $1::text || '/') AND schema_name = $2 AND table_name = $3 "
		"AND (job_uid <> $1::text || '/0' OR NOT $5::boolean)", 6, values, note_load);
}

static void note_load(struct target *t)
{
	struct target_table *tb = t->load.table;
	char position[POSITION_TEXT_MAX], rows[24], *shape = shape_take(tb);
	const struct position at = { .kind = POSITION_LSN, .server = t->load.server, .lsn = t->load.since };
	snprintf(rows, sizeof rows, "%llu", (unsigned long long)t->load.rows);
	const char *values[] = { t->host.env.uid, tb->schema, tb->name, position_format(&at, position), rows, tb->is_made ? "t" : "f", shape };
	/* Its key, indexes and foreign keys are still to be made, whatever was done for tables before it. */
	target_ask(t, "WITH undone AS (UPDATE dmsr.positions SET load_done = false WHERE job_uid = $1 AND load_done) "
		"INSERT INTO dmsr.loads AS l (job_uid, schema_name, table_name, position, rows, made, shape) "
		"VALUES ($1, $2, $3, $4, $5::bigint, $6::boolean, $7::bytea) ON CONFLICT (job_uid, schema_name, table_name) DO UPDATE SET "
		"position = EXCLUDED.position, rows = EXCLUDED.rows, made = l.made OR EXCLUDED.made, shape = EXCLUDED.shape, "
		"loaded_at = pg_catalog.now()", 7, values, on_noted);
	free(shape);
}

static void on_key(struct target *t)
{
	t->load.table->has_made_key = true;
	forget_parts(t);
}

static void add_key(struct target *t)
{
	if (table_is_ours(t, t->load.table))
		ddlrun_key(t, t->load.table, on_key);
	else
		forget_parts(t);
}

/* In a divided table nothing is open: its parts are committed. The batch is given back before the key is made, which may take long: what other lanes have
 * read is behind it, and would stay in memory. */
static enum step end_table(struct target *t, const struct change *ch)
{
	bool is_open = t->load.state == LOAD_OPEN;
	if (is_open && close_copy(t) == STEP_WAIT)
		return STEP_WAIT;
	if (!is_open)
		lane_load(t, LOAD_ENDING, ch->rel);
	t->load.state = LOAD_ENDING;
	t->load.end = is_open ? END_DUE : END_DUE_ALONE;
	return STEP_DONE;
}

bool load_end(struct target *t)
{
	enum load_end end = t->load.end;
	t->load.end = END_NONE;
	if (end == END_DUE)
		add_key(t);
	else if (end == END_DUE_ALONE)
		target_ask(t, "BEGIN", 0, NULL, add_key);
	return t->load.state == LOAD_ENDING && !t->cur;
}

/* ---- a part ---- */

static void on_part_committed(struct target *t)
{
	if (target_died(t, failpoint("target.load-part-done")))
		return;
	lane_put_part(t);
	t->load.state = LOAD_NONE;
}

static enum step begin_part(struct target *t, const struct change *ch)
{
	lane_load(t, LOAD_PREPARING, ch->rel);
	t->load.piece = LOAD_PART;
	t->load.rows = 0;
	load_prepare_part(t);
	return STEP_WAIT;
}

static void on_part_noted(struct target *t)
{
	if (!target_died(t, failpoint("target.load-part-noted")))
		target_ask(t, "COMMIT", 0, NULL, on_part_committed);
}

static void note_part(struct target *t)
{
	const struct target_table *tb = t->load.table;
	char position[POSITION_TEXT_MAX], rows[24], part[12];
	const struct position at = { .kind = POSITION_LSN, .server = t->load.server, .lsn = t->load.lsn };
	snprintf(rows, sizeof rows, "%llu", (unsigned long long)t->load.rows);
	snprintf(part, sizeof part, "%u", (unsigned)t->load.part);
	const char *values[] = { t->host.env.uid, part, tb->schema, tb->name, position_format(&at, position), rows };
	target_ask(t, "INSERT INTO dmsr.loads (job_uid, schema_name, table_name, position, rows) VALUES ($1::text || '/' || $2::text, $3, $4, $5, $6::bigint)",
		6, values, on_part_noted);
}

static void end_put(struct target *t)
{
	if (t->load.keeps_parts)
		note_part(t);
	else
		target_ask(t, "COMMIT", 0, NULL, on_part_committed);
}

static void on_merged(struct target *t)
{
	if (!t->answer)
		fail_copy(t, &t->answer_error);
	else if (!target_died(t, failpoint("target.load-part-merged")))
		end_put(t);
}

static void merge(struct target *t)
{
	struct buf sql;
	buf_init(&sql, 1 << 20);
	sql_part_merge(&sql, t->load.table);
	target_try(t, buf_cstr(&sql), 0, NULL, on_merged);
	buf_fini(&sql);
}

static enum step end_part(struct target *t, const struct change *ch)
{
	if (close_copy(t) == STEP_WAIT || target_died(t, failpoint("target.load-part")))
		return STEP_WAIT;
	t->load.state = LOAD_ENDING;
	t->load.word = ch;
	if (t->load.merges)
		merge(t);
	else
		end_put(t);
	return STEP_WAIT;
}

/* ---- one change ---- */

static enum step begin_table(struct target *t, const struct change *ch)
{
	if (!lane_may_prepare(t))
		return STEP_WAIT;
	lane_load(t, LOAD_PREPARING, ch->rel);
	t->load.word = ch;
	t->load.is_ours = t->load.table->loaded_lsn != 0 || t->load.table->was_loaded;
	load_prepare(t);
	return STEP_WAIT;
}

enum step load_step(struct target *t, const struct change *ch)
{
	struct load *l = &t->load;
	bool is_at_rest = l->state == LOAD_NONE || l->state == LOAD_OPEN;
	if (is_at_rest && l->word == ch) {
		l->word = NULL;
		return STEP_DONE;
	}
	if (!is_at_rest)
		return STEP_WAIT;
	switch ((enum change_op)ch->op) {
	case OP_LOAD_BEGIN:
		return begin_table(t, ch);
	case OP_ROWS: case OP_READ:
		return l->state == LOAD_NONE ? begin_part(t, ch) : put_rows(t, ch);
	case OP_LOAD_PART:
		if (l->state == LOAD_NONE)
			return begin_part(t, ch);
		return l->piece == LOAD_PART ? end_part(t, ch) : STEP_DONE;
	case OP_LOAD_END:
		return end_table(t, ch);
	default:
		return STEP_DONE;
	}
}
