/* source_read: the tables of a load, read by COPY on several connections side by side, all in one snapshot. In come tables, the largest first; out go, for
 * each, OP_LOAD_BEGIN, batches of OP_ROWS as COPY gave them, OP_LOAD_PART for each part of one that is cut, OP_LOAD_END; then source_load_read.
 *
 *   a reader:  CONNECTING -> IDLE -> LOOKING -+-> [ CUTTING -> NOTING -> LOOKING -> ] COPYING -> IDLE
 *                            | ^--------------+ the table is put off
 *                            +-> LEAVING -> IDLE: there is nothing that it may read now
 *              LOOKING -> LEAVING -> READY -> LOOKING: the host is full now
 *
 * The first is the load's own connection; it holds the snapshot that the others take over. When the host is full no COPY is read, and none is begun.
 *
 * A snapshot does not keep a table's rows from TRUNCATE or from an ALTER TABLE that rewrites it: a table that one of these met after the snapshot was
 * taken looks empty in it (PostgreSQL documentation, "Caveats" of MVCC). So each table is locked before it, or a part of it, is read, for no longer than
 * that: a reader that kept its lock with nothing to do would hold up whoever wants to alter the table, and the other readers behind him. (A COPY that the
 * host takes nothing of holds on to it.) Then, if the file that the table has is not the one that the snapshot's catalog names, it is put off to a round of
 * its own, in a snapshot of its own. Parts that were begun are sent whole all the same: nothing that waits for their end may keep the server from the next
 * snapshot.
 *
 * Nor does a snapshot keep names: COPY finds a table and its columns by today's, which may be another's since. Such a table is put off as well. */
#include "source_load.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_HEADER = 19 };              /* signature 11, flags 4, length of the extension 4 (0) */

static void reader_next(struct reader *r);
static void look(struct reader *r);

/* ---- batches ---- */

/* Does the host take what is read? */
static bool may_read(const struct source *s)
{
	bool is_beside = s->is_beside && !s->load->is_turn;
	return !s->outlets[is_beside ? OUTLET_LOAD : OUTLET_STREAM].blocked && !s->paused;
}

static void report(struct source *s, const struct load_table *t, bool done)
{
	const struct dmsr_load_progress p = {
		.schema = t->rel->schema,
		.name = t->rel->name,
		.rows = t->state == TABLE_WAITING ? -1 : t->nrows,
		.bytes = t->nbytes,
		.rows_total = t->rel->rows_estimate,
		.bytes_total = t->rel->bytes_estimate,
		.done = done,
	};
	s->host.progress(s->host.ctx, &p);
}

void source_read_pause(struct source *s)
{
	for (unsigned i = 0; s->load && i < s->load->nreaders; i++)
		if (s->load->readers[i].conn)
			pgconn_pause(s->load->readers[i].conn);
}

static void send_on(struct source *s, struct batch *b)
{
	if (!source_emit(s, b))
		source_read_pause(s);
}

static void hand_on(struct reader *r)
{
	struct batch *b = r->b;
	r->b = NULL;
	r->rows = NULL;
	r->room = 0;
	report(r->s, r->table, false);
	if (b)
		send_on(r->s, b);
}

static struct batch *filling(struct reader *r)
{
	if (!r->b) {
		r->b = load_batch(r->s, r->s->load->lsn);
		r->b->in_turn = r->s->load->is_turn;
		r->b->part = r->part;
	}
	return r->b;
}

static void new_rows(struct reader *r, size_t len)
{
	size_t size = len > r->s->opt.batch_bytes ? len : r->s->opt.batch_bytes;
	if (r->rows)
		hand_on(r);
	r->rows = batch_append(filling(r), OP_ROWS, r->table->rel);
	r->rows->u.rows.format = r->is_binary ? ROWS_COPY_BINARY : ROWS_COPY_TEXT;
	r->rows->u.rows.data = arena_alloc(&r->b->arena, size);
	r->room = size;
}

static bool is_trailer(const char *data, size_t len) { return len == 2 && data[0] == '\xff' && data[1] == '\xff'; }

static void on_row(void *arg, const char *data, size_t len)
{
	struct reader *r = arg;
	if (r->is_binary && !r->has_header && len >= COPY_HEADER) {
		r->has_header = true;
		data += COPY_HEADER;
		len -= COPY_HEADER;
	}
	if (r->is_binary && (!len || is_trailer(data, len)))
		return;
	if (!r->rows || len > r->room)
		new_rows(r, len);
	/* The arena's memory is ours until the batch is handed on. */
	memcpy((char *)(uintptr_t)r->rows->u.rows.data + r->rows->u.rows.len, data, len);
	r->rows->u.rows.len += len;
	r->rows->u.rows.rows++;
	r->room -= len;
	r->b->nrows++;
	r->b->bytes += len;
	r->nrows++;
	r->table->nrows++;
	r->table->nbytes += (int64_t)len;
}

/* ---- a table's states ---- */

static void word(struct reader *r, enum change_op op, uint32_t parts)
{
	struct batch *b = load_batch(r->s, r->s->load->lsn);
	struct change *ch = batch_append(b, op, r->table->rel);
	b->in_turn = r->s->load->is_turn;
	ch->u.load.since = r->table->since;
	if (op == OP_LOAD_BEGIN)
		ch->u.load.parts = parts;
	if (op == OP_LOAD_BEGIN)
		ch->flags = r->table->in_turns ? CHANGE_TURNS : r->table->since && cut_moves(r->table) ? CHANGE_MOVES : 0;
	send_on(r->s, b);
}

static bool all_is_read(const struct load_table *t) { return !t->nreaders && (t->state == TABLE_CUT ? t->next == t->nparts : t->state == TABLE_BEGUN); }

static void table_read(struct reader *r)
{
	struct source *s = r->s;
	struct load_table *t = r->table;
	t->state = TABLE_READ;
	s->load->nread++;
	source_add_loaded(s, t->rel, t->rel->schema, t->rel->name, t->since ? t->since : s->load->lsn);
	source_turns_over(s, t->rel);
	report(s, t, true);
	failpoint("pg.table-copied");
	log_info("postgres", s->host.env.job, "table %s.%s read: %lld rows", t->rel->schema, t->rel->name, (long long)t->nrows);
}

static void leave(struct reader *r)
{
	r->table->nreaders--;
	r->table = NULL;
	r->part = 0;
	r->state = READER_IDLE;
}

bool read_is_locked(const struct pgconn *c) { return !strcmp(pgconn_sqlstate(c), "55P03") || !strcmp(pgconn_sqlstate(c), "40P01"); }

static void put_off(struct reader *r, const char *why, bool is_busy)
{
	struct load_table *t = r->table;
	t->is_busy = is_busy;
	if (t->state != TABLE_PUT_OFF) {
		log_info("postgres", r->s->host.env.job, "table %s.%s is put off: %s", t->rel->schema, t->rel->name, why);
		t->state = TABLE_PUT_OFF;
		r->s->load->nlater++;
	}
	leave(r);
	reader_next(r);
}

/* The table, its schema or a column is not there any more, the name is a sequence's now, or somebody holds it, who may wait for us himself: that passes by
 * itself, or another snapshot's catalog tells of it. */
bool read_may_pass(const struct pgconn *c)
{
	static const char *const states[] = { "42P01", "3F000", "42703", "42809", "55P03", "40P01" };
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		if (!strcmp(pgconn_sqlstate(c), states[i]))
			return true;
	return false;
}

static void fail_table(const struct reader *r, const struct err *why)
{
	const struct relation *rel = r->table->rel;
	struct err e = *why;
	err_prefix(&e, "reading table %s.%s", rel->schema, rel->name);
	right_hint(&e, RIGHT_READ, r->s->settings, rel->schema, rel->name);
	source_fail(r->s, &e);
}

/* ---- COPY ---- */

/* It has read all it was to read of its table. */
static void done_with(struct reader *r, bool is_part)
{
	struct source *s = r->s;
	struct load_table *t = r->table;
	t->nreaders--;
	if (all_is_read(t)) {
		if (is_part)
			word(r, OP_LOAD_END, 0);
		table_read(r);
	} else if (t->in_turns) {
		t->state = TABLE_TURNING;
	}
	r->table = NULL;
	r->part = 0;
	r->state = READER_IDLE;
	for (unsigned i = 0; s->load && i < s->load->nreaders; i++)
		reader_next(&s->load->readers[i]);
}

static void part_read(struct reader *r)
{
	bool is_part = r->part != 0;
	batch_append(filling(r), is_part ? OP_LOAD_PART : OP_LOAD_END, r->table->rel);
	hand_on(r);
	failpoint("pg.part-copied");
	done_with(r, is_part);
}

static void on_copied(void *arg, const PGresult *res, const struct err *e)
{
	struct reader *r = arg;
	(void)res;
	if (e && !r->nrows && read_may_pass(r->conn)) {
		batch_free(r->b); /* it has OP_LOAD_BEGIN alone, if anything */
		r->b = NULL;
		put_off(r, e->message, read_is_locked(r->conn));
	} else if (e) {
		fail_table(r, e);
	} else {
		part_read(r);
	}
}

/* A partitioned table has no rows of its own, a table with heirs only those of its own are meant. */
static void copy_sql(const struct reader *r, struct buf *sql)
{
	const struct load_table *t = r->table;
	const struct load_part *p = r->part ? &t->parts[r->part - 1] : NULL;
	unsigned n = 0;
	bool is_query = p || t->is_partitioned || !t->rel->ncolumns;
	buf_str(sql, is_query ? "COPY (SELECT " : "COPY ");
	if (!is_query) {
		sql_qualified(sql, t->rel->schema, t->rel->name);
		buf_str(sql, " (");
	}
	for (unsigned i = 0; i < t->rel->ncolumns; i++) {
		if (t->rel->columns[i].flags & COLUMN_GENERATED)
			continue;
		if (n++)
			buf_str(sql, ", ");
		sql_ident(sql, t->rel->columns[i].name);
	}
	if (p) {
		buf_printf(sql, " FROM ONLY %s", p->from);
		buf_printf(sql, "%s%s", p->where ? " WHERE " : "", p->where ? p->where : "");
	} else if (is_query) {
		buf_str(sql, t->is_partitioned ? " FROM " : " FROM ONLY ");
		sql_qualified(sql, t->rel->schema, t->rel->name);
	}
	buf_str(sql, ") TO STDOUT");
	if (r->is_binary)
		buf_str(sql, " (FORMAT binary)");
}

static bool can_be_binary(const struct relation *rel)
{
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct column *c = &rel->columns[i];
		if (!(c->flags & COLUMN_GENERATED) && !value_has_binary(c->type, c->elem_type))
			return false;
	}
	return true;
}

static void on_left(void *arg, const PGresult *res, const struct err *e)
{
	struct reader *r = arg;
	(void)res;
	if (e) {
		source_fail(r->s, e);
		return;
	}
	r->state = r->table ? READER_READY : READER_IDLE;
	if (!r->table)
		reader_next(r);
	else if (may_read(r->s) && source_is_loading(r->s))
		look(r);
}

static void leave_table(struct reader *r)
{
	r->has_lock = false;
	r->state = READER_LEAVING;
	pgconn_query(r->conn, "ROLLBACK TO dmsr_table", on_left, r);
}

static void copy(struct reader *r)
{
	struct load_table *t = r->table;
	struct buf sql;
	if (!may_read(r->s)) {
		leave_table(r);
		return;
	}
	r->is_binary = r->s->opt.binary && can_be_binary(t->rel);
	r->has_header = false;
	r->nrows = 0;
	r->state = READER_COPYING;
	if (!r->part)
		batch_append(filling(r), OP_LOAD_BEGIN, t->rel);
	failpoint("pg.table-begun");
	buf_init(&sql, 1024 * 1024);
	copy_sql(r, &sql);
	pgconn_copy_out(r->conn, buf_cstr(&sql), on_row, on_copied, r);
	buf_fini(&sql);
}

/* ---- what is to be read ---- */

static void skip_kept(struct load_table *t)
{
	while (t->kept && t->next < t->nparts && t->kept[t->next + 1])
		t->next++;
}

static uint32_t next_part(struct load_table *t)
{
	uint32_t part = ++t->next;
	skip_kept(t);
	return part;
}

static void begin_parts(struct reader *r)
{
	struct load *l = r->s->load;
	struct load_table *t = r->table;
	log_info("postgres", r->s->host.env.job, "table %s.%s is read in %u parts", t->rel->schema, t->rel->name, (unsigned)t->nparts);
	t->state = TABLE_CUT;
	word(r, OP_LOAD_BEGIN, t->nparts);
	r->part = next_part(t);
	look(r);
	for (unsigned i = 0; i < l->nreaders; i++)
		reader_next(&l->readers[i]);
}

/* Notes become durable in their order. */
static void on_cut_noted(struct source *s)
{
	struct reader *first = NULL;
	for (unsigned i = 0; i < s->load->nreaders; i++) {
		struct reader *r = &s->load->readers[i];
		if (r->state == READER_NOTING && (!first || r->noted < first->noted))
			first = r;
	}
	failpoint("pg.cut-noted");
	begin_parts(first);
}

/* Of another run, and some of its parts are there. */
static void go_on_with(struct reader *r)
{
	struct load_table *t = r->table;
	t->state = TABLE_CUT;
	word(r, OP_LOAD_BEGIN, t->nparts);
	skip_kept(t);
	if (t->next == t->nparts) {
		done_with(r, true);
		return;
	}
	r->part = next_part(t);
	look(r);
	for (unsigned i = 0; i < r->s->load->nreaders; i++)
		reader_next(&r->s->load->readers[i]);
}

static void on_cut(void *arg, const struct err *e)
{
	struct reader *r = arg;
	struct load_table *t = r->table;
	cut_free(r->cut);
	r->cut = NULL;
	if (e) {
		log_info("postgres", r->s->host.env.job, "table %s.%s is %s: %s", t->rel->schema, t->rel->name,
			cut_is_due(r->s, t) ? "not cut by its key" : "read undivided", e->message);
		t->state = TABLE_WAITING;
		leave(r);
		reader_next(r);
		return;
	}
	t->in_turns = t->in_turns && t->nparts > 1 && cut_lasts(t) && !cut_moves(t);
	if (!t->nparts) {
		copy(r);
		return;
	}
	r->state = READER_NOTING;
	r->noted = ++r->s->load->notes;
	if (t->in_turns)
		source_turns_begin(r->s, t);
	if (!rest_note(r->s, t, on_cut_noted))
		begin_parts(r);
}

enum { LOOK_REWRITTEN, LOOK_NUMBERS, LOOK_TABLE, LOOK_COLUMNS };

static uint32_t id_to_read(const struct reader *r) { return r->part ? r->table->parts[r->part - 1].id : r->table->rel->id; }

/* By the names it is not the table, or not the columns, that it was in the snapshot. */
static bool is_another(const struct reader *r, const PGresult *res)
{
	struct buf numbers;
	buf_init(&numbers, SIZE_MAX);
	for (int i = LOOK_COLUMNS; i < PQnfields(res); i++)
		buf_printf(&numbers, "%s%d", numbers.len ? " " : "", PQftablecol(res, i));
	bool is = PQftable(res, LOOK_TABLE) != id_to_read(r) || strcmp(buf_cstr(&numbers), PQgetvalue(res, 0, LOOK_NUMBERS)) != 0;
	buf_fini(&numbers);
	return is;
}

static void on_looked(void *arg, const PGresult *res, const struct err *e)
{
	struct reader *r = arg;
	if (e && read_may_pass(r->conn)) {
		put_off(r, e->message, read_is_locked(r->conn));
	} else if (e) {
		fail_table(r, e);
	} else if (PQgetvalue(res, 0, LOOK_REWRITTEN)[0] != '0') {
		put_off(r, "it was truncated or rewritten after the snapshot was taken", false);
	} else if (is_another(r, res)) {
		put_off(r, "it, a partition or a column was renamed after the snapshot was taken, and the name is another's", false);
	} else if (!r->part && r->table->since) {
		go_on_with(r);
	} else if (!r->part && cut_is_due(r->s, r->table)) {
		r->state = READER_CUTTING;
		r->table->in_turns = source_may_take_turns(r->s, r->table);
		r->cut = cut_begin(r->s, r->conn, r->table, on_cut, r);
	} else {
		copy(r);
	}
}

/* pg_relation_filenode tells of today, pg_class of the snapshot. What was detached meanwhile is none of the tree's. */
static void ask_rewritten(const struct reader *r, struct buf *sql)
{
	buf_printf(sql, "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND (c.oid IN (%u, %u) OR c.oid IN"
		" (SELECT p.relid FROM pg_catalog.pg_partition_tree(%u) p)) AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode)",
		(unsigned)r->table->rel->id, (unsigned)id_to_read(r), (unsigned)r->table->rel->id);
}

/* The numbers that the columns had in the snapshot: rows of pg_attribute are its. The description of the answer has those of today. */
static void ask_columns(const struct reader *r, const char *from, struct buf *sql)
{
	const struct relation *rel = r->table->rel;
	struct buf today;
	unsigned n = 0;
	buf_init(&today, SIZE_MAX);
	buf_str(sql, "(SELECT pg_catalog.string_agg(a.attnum::pg_catalog.text, ' ' ORDER BY n.i) FROM pg_catalog.unnest(ARRAY[");
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		if (rel->columns[i].flags & COLUMN_GENERATED)
			continue;
		buf_str(sql, n++ ? ", " : "");
		sql_literal(sql, rel->columns[i].name);
		buf_str(&today, ", t.");
		sql_ident(&today, rel->columns[i].name);
	}
	buf_printf(sql, "]::pg_catalog.name[]) WITH ORDINALITY n(name, i) JOIN pg_catalog.pg_attribute a ON a.attrelid = %u AND a.attname = n.name)"
		", t.tableoid%s FROM (SELECT) x LEFT JOIN ONLY %s t ON false", (unsigned)id_to_read(r), buf_cstr(&today), from);
	buf_fini(&today);
}

/* Back to the savepoint: the lock of the table before goes. What a name means is asked when it is locked: then it stays so. An index of the key is what a
 * range of it is to be read by, whatever the planner thinks of its statistics. */
static void look(struct reader *r)
{
	const struct load_table *t = r->table;
	const struct load_part *p = r->part ? &t->parts[r->part - 1] : NULL;
	const char *leaf = p && t->is_partitioned ? p->from : NULL;
	struct buf sql, name;
	buf_init(&name, SIZE_MAX);
	buf_init(&sql, SIZE_MAX);
	sql_qualified(&name, t->rel->schema, t->rel->name);
	buf_printf(&sql, "ROLLBACK TO dmsr_table; SET LOCAL enable_seqscan = %s; LOCK TABLE %s%s IN ACCESS SHARE MODE; ", p && p->is_key_range ? "off" : "on",
		t->is_partitioned ? "" : "ONLY ", buf_cstr(&name));
	if (leaf)
		buf_printf(&sql, "LOCK TABLE ONLY %s IN ACCESS SHARE MODE; ", leaf);
	buf_str(&sql, "SELECT ");
	ask_rewritten(r, &sql);
	buf_str(&sql, ", ");
	ask_columns(r, leaf ? leaf : buf_cstr(&name), &sql);
	r->state = READER_LOOKING;
	r->has_lock = true;
	pgconn_query(r->conn, buf_cstr(&sql), on_looked, r);
	buf_fini(&sql);
	buf_fini(&name);
}

/* A part of a table that is being read already comes before a table of its own: so that few are open. */
static bool take(struct reader *r)
{
	struct load *l = r->s->load;
	struct load_table *waiting = NULL;
	for (size_t i = 0; i < l->ntables; i++) {
		struct load_table *t = &l->tables[i];
		if (t->state == TABLE_CUT && t->next < t->nparts && (!t->in_turns || (l->is_turn && !t->nreaders))) {
			t->nreaders++;
			r->table = t;
			r->part = next_part(t);
			return true;
		}
		if (t->state == TABLE_WAITING && !waiting)
			waiting = t;
	}
	if (!waiting)
		return false;
	waiting->state = TABLE_BEGUN;
	waiting->nreaders++;
	r->table = waiting;
	r->part = 0;
	return true;
}

static bool is_all_done(const struct load *l)
{
	for (size_t i = 0; i < l->ntables; i++)
		if (l->tables[i].state < TABLE_TURNING || l->tables[i].nreaders)
			return false;
	for (unsigned i = 0; i < l->nreaders; i++)
		if (l->readers[i].state > READER_IDLE)
			return false;
	return true;
}

static void reader_next(struct reader *r)
{
	struct load *l = r->s->load;
	if (!l || l->is_done || r->state != READER_IDLE || !source_is_loading(r->s))
		return;
	bool may = may_read(r->s);
	if (may && take(r)) {
		look(r);
	} else if (may && is_all_done(l)) {
		l->is_done = true;
		source_load_read(r->s);
	} else if (r->has_lock) {
		leave_table(r);
	}
}

void source_load_resumed(struct source *s)
{
	struct load *l = s->load;
	for (unsigned i = 0; l && l == s->load && i < l->nreaders && may_read(s); i++) {
		if (l->readers[i].state == READER_COPYING)
			pgconn_resume(l->readers[i].conn);
		else if (l->readers[i].state == READER_READY)
			look(&l->readers[i]);
		else
			reader_next(&l->readers[i]);
	}
}

/* ---- the connections ---- */

/* What the loader holds until all is read it can read by itself, whoever waits for that. */
static void go_without(struct reader *r, const struct err *why)
{
	log_info("postgres", r->s->host.env.job, "the load goes on with fewer connections: %s", why->message);
	pgconn_free(r->conn);
	r->conn = NULL;
}

static void on_reader_begun(void *arg, const PGresult *res, const struct err *e)
{
	struct reader *r = arg;
	(void)res;
	if (r->s->load->is_done) /* the snapshot may have gone with the loader's transaction */
		return;
	if (e && r->s->load->holds_all && read_may_pass(r->conn)) {
		go_without(r, e);
		return;
	}
	if (e) {
		source_snapshot_lost(r->s, e);
		return;
	}
	r->state = READER_IDLE;
	reader_next(r);
}

static void on_reader_ready(void *ctx)
{
	struct reader *r = ctx;
	struct buf sql;
	if (r->s->load->is_done)
		return;
	buf_init(&sql, SIZE_MAX);
	source_load_begin_sql(r->s->load->snapshot, &sql);
	buf_str(&sql, "; ");
	if (r->s->load->holds_all && source_load_lock_sql(r->s, &sql))
		buf_str(&sql, " NOWAIT; ");
	buf_str(&sql, "SAVEPOINT dmsr_table");
	pgconn_query(r->conn, buf_cstr(&sql), on_reader_begun, r);
	buf_fini(&sql);
}

/* A server that has no room for one more is read with those that are there. */
static void on_reader_failed(void *ctx, const struct err *e)
{
	struct reader *r = ctx;
	if (r->state == READER_CONNECTING && r->s->load->is_done)
		return;
	if (r->state == READER_CONNECTING && !strcmp(e->id, "source.busy"))
		log_warn("postgres", r->s->host.env.job, "the load goes on with fewer connections: %s", e->message);
	else
		source_fail(r->s, e);
}

/* How many COPYs could be under way at once. */
static unsigned useful_readers(const struct source *s)
{
	uint64_t n = 0;
	for (size_t i = 0; i < s->load->ntables; i++) {
		const struct load_table *t = &s->load->tables[i];
		n += cut_is_due(s, t) ? (uint64_t)(t->rel->bytes_estimate / s->opt.load_part_bytes) + 1 : 1;
	}
	return n > s->opt.load_connections ? s->opt.load_connections : n ? (unsigned)n : 1;
}

void source_read(struct source *s)
{
	struct load *l = s->load;
	const struct pgconn_owner other = { .on_ready = on_reader_ready, .on_failed = on_reader_failed };
	l->nreaders = l->is_turn ? 1 : useful_readers(s);
	l->readers = mem_zalloc(l->nreaders * sizeof *l->readers);
	for (size_t i = 0; i < l->ntables; i++)
		report(s, &l->tables[i], false);
	for (unsigned i = 1; i < l->nreaders; i++) {
		struct pgconn_owner o = other;
		o.ctx = &l->readers[i];
		l->readers[i] = (struct reader){ .s = s, .state = READER_CONNECTING };
		l->readers[i].conn = pgconn_new(&s->host.env, s->settings, PGCONN_SQL, &o);
	}
	l->readers[0] = (struct reader){ .s = s, .conn = s->loader, .state = READER_IDLE };
	reader_next(&l->readers[0]);
}

void source_read_close(struct source *s)
{
	source_turns_close(s);
	for (unsigned i = 0; s->load && i < s->load->nreaders; i++) {
		if (i)
			pgconn_free(s->load->readers[i].conn);
		s->load->readers[i].conn = NULL;
	}
	pgconn_free(s->loader);
	s->loader = NULL;
}

void source_read_free(struct source *s)
{
	struct load *l = s->load;
	for (unsigned i = 0; i < l->nreaders; i++) {
		if (i)
			pgconn_free(l->readers[i].conn);
		cut_free(l->readers[i].cut);
		batch_free(l->readers[i].b);
	}
	free(l->readers);
	l->readers = NULL;
	l->nreaders = 0;
}
