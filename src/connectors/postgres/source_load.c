/* source_load: the rows that are there already. In comes a snapshot (or none: a full load alone takes its own); out go, a table at a time and the
 * largest first, OP_LOAD_BEGIN, batches of OP_ROWS as COPY gave them, OP_LOAD_END; after the last table OP_LOAD_DONE; then source_stream, or the end.
 *
 * One connection, one REPEATABLE READ transaction. When the host is full COPY is not read; a table is begun only when the host takes what was there before.
 *
 * A snapshot does not keep a table's rows from TRUNCATE or from an ALTER TABLE that rewrites it: a table that one of these met after the snapshot was
 * taken looks empty in it (PostgreSQL documentation, "Caveats" of MVCC). So each table is locked before it is read, for no longer than that; then, if the
 * file it has now is not the one that the snapshot's catalog names, it is put off to a round of its own, in a snapshot of its own:
 *
 *   snapshot -> [ lock -> is it the same file? -> COPY ] for each table -> (some were put off: another round) -> words -> stream */
#include "source_int.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct load {
	uint64_t lsn;                   /* of the snapshot */
	struct relation **todo;         /* borrowed from source.rels, largest first */
	char *kinds;                    /* relkind of each */
	size_t ntodo, at;
	size_t nread, nlater;           /* of todo: read in this round, put off to the next */
	bool is_open, is_looking, is_copying, is_done;

	struct relation *rel;           /* the one being read */
	bool binary, has_header;
	struct batch *b;
	struct change *rows;            /* its OP_ROWS; NULL: none yet */
	size_t room;                    /* bytes that fit behind rows->u.rows.len */
	int64_t nrows, nbytes;
};

enum {
	COPY_HEADER = 19,               /* signature 11, flags 4, length of the extension 4 (0) */
	ROUNDS = 8,                     /* without a table that could be read */
};

static void next_table(struct source *s);

/* ---- batches ---- */

static struct batch *load_batch(const struct load *l)
{
	struct batch *b = batch_new();
	b->is_load = true;
	b->received_us = wall_now_us();
	batch_txn(b, &(struct txn){ .lsn = l->lsn });
	return b;
}

static void report(struct source *s, const struct relation *rel, int64_t rows, bool done)
{
	const struct dmsr_load_progress p = {
		.schema = rel->schema,
		.name = rel->name,
		.rows = rows,
		.bytes = rows < 0 ? 0 : s->load->nbytes,
		.rows_total = rel->rows_estimate,
		.bytes_total = rel->bytes_estimate,
		.done = done,
	};
	s->host.progress(s->host.ctx, &p);
}

static void hand_on(struct source *s)
{
	struct load *l = s->load;
	struct batch *b = l->b;
	l->b = NULL;
	l->rows = NULL;
	l->room = 0;
	report(s, l->rel, l->nrows, false);
	if (b && !source_emit(s, b) && s->loader)
		pgconn_pause(s->loader);
}

static void new_rows(struct source *s, size_t len)
{
	struct load *l = s->load;
	size_t size = len > s->opt.batch_bytes ? len : s->opt.batch_bytes;
	if (l->rows)
		hand_on(s);
	if (!l->b)
		l->b = load_batch(l);
	l->rows = batch_append(l->b, OP_ROWS, l->rel);
	l->rows->u.rows.format = l->binary ? ROWS_COPY_BINARY : ROWS_COPY_TEXT;
	l->rows->u.rows.data = arena_alloc(&l->b->arena, size);
	l->room = size;
}

static bool is_trailer(const char *data, size_t len) { return len == 2 && data[0] == '\xff' && data[1] == '\xff'; }

static void on_row(void *arg, const char *data, size_t len)
{
	struct source *s = arg;
	struct load *l = s->load;
	if (l->binary && !l->has_header && len >= COPY_HEADER) {
		l->has_header = true;
		data += COPY_HEADER;
		len -= COPY_HEADER;
	}
	if (l->binary && (!len || is_trailer(data, len)))
		return;
	if (!l->rows || len > l->room)
		new_rows(s, len);
	/* The arena's memory is ours until the batch is handed on. */
	memcpy((char *)(uintptr_t)l->rows->u.rows.data + l->rows->u.rows.len, data, len);
	l->rows->u.rows.len += len;
	l->rows->u.rows.rows++;
	l->room -= len;
	l->b->nrows++;
	l->b->bytes += len;
	l->nrows++;
	l->nbytes += (int64_t)len;
}

/* ---- the end ---- */

static void go_on(struct source *s)
{
	source_load_free(s);
	if (s->mode & DMSR_CDC) {
		source_stream(s);
		return;
	}
	pgconn_free(s->sql);
	s->sql = NULL;
	source_enter(s, SOURCE_FINISHED, "all tables were read");
	s->tell_finished = true;
	loop_task_post(s->turn);
}

void source_load_words(struct source *s)
{
	uint64_t newest = s->snapshot_lsn, begins = s->from.kind ? s->from.lsn : s->start_lsn;
	bool is_loading = s->phase == SOURCE_LOADING;
	if (!(s->mode & DMSR_FULL_LOAD) || (s->load_done && !is_loading)) {
		go_on(s);
		return;
	}
	struct load words = { .lsn = begins };
	struct batch *b = load_batch(&words);
	/* Targets learn every table before the load is called done, also those that an earlier run has loaded. */
	for (size_t i = 0; i < s->nrels; i++) {
		const struct source_loaded *t = source_find_loaded(s, s->rels[i]);
		if (t && !t->is_earlier)
			continue;
		batch_append(b, OP_SCHEMA, s->rels[i]);
	}
	newest = source_newest_load(s) > newest ? source_newest_load(s) : newest;
	/* Tables read at different times do not fit each other before the stream has passed the last of these times; foreign keys must wait for it. */
	if ((s->mode & DMSR_CDC) && newest > begins)
		s->load_done_at = newest;
	else
		batch_append(b, OP_LOAD_DONE, NULL);
	failpoint("pg.load-done");
	if (b->nchanges)
		source_emit(s, b);
	else
		batch_free(b);
	go_on(s);
}

/* Tables of a second round are locked as soon as their snapshot is there, and the connection for it is made before. Should that not do again and again, the
 * job's back-off is better than a race with whoever rewrites them all the time. */
static void another_round(struct source *s)
{
	size_t nlater = s->load->nlater;
	s->rounds = s->load->nread ? 1 : s->rounds + 1;
	source_load_free(s);
	if (s->rounds > ROUNDS) {
		struct err e = { 0 };
		err_retry(&e, DMSR_ESTATE, "source.table-busy", "%zu table%s locked, or truncated or rewritten just after a snapshot was taken", nlater,
			nlater == 1 ? " was" : "s were");
		source_fail(s, &e);
		return;
	}
	log_info("postgres", s->host.env.job, "%zu table%s read in another snapshot", nlater, nlater == 1 ? " is" : "s are");
	if (s->mode & DMSR_CDC)
		source_slot_again(s);
	else
		source_load(s);
}

static void on_committed(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	(void)e; /* it has only read */
	pgconn_free(s->loader);
	s->loader = NULL;
	if (s->load->nlater)
		another_round(s);
	else
		source_load_words(s);
}

/* ---- a table ---- */

static void put_off(struct source *s, const char *why)
{
	struct load *l = s->load;
	log_info("postgres", s->host.env.job, "table %s.%s is put off: %s", l->todo[l->at]->schema, l->todo[l->at]->name, why);
	l->nlater++;
	l->at++;
	next_table(s);
}

static void fail_table(struct source *s, const struct relation *rel, const struct err *why)
{
	struct err e = *why;
	err_prefix(&e, "reading table %s.%s", rel->schema, rel->name);
	right_hint(&e, RIGHT_READ, s->settings, rel->schema, rel->name);
	source_fail(s, &e);
}

static void on_copied(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct load *l = s->load;
	(void)res;
	l->is_copying = false;
	if (e && !l->nrows && !strcmp(e->id, "source.undefined")) {
		batch_free(l->b); /* it has OP_LOAD_BEGIN alone */
		l->b = NULL;
		put_off(s, e->message);
		return;
	}
	if (e) {
		fail_table(s, l->rel, e);
		return;
	}
	l->nread++;
	if (!l->b)
		l->b = load_batch(l);
	batch_append(l->b, OP_LOAD_END, l->rel);
	source_add_loaded(s, l->rel, l->rel->schema, l->rel->name, l->lsn);
	hand_on(s);
	report(s, l->rel, l->nrows, true);
	failpoint("pg.table-copied");
	log_info("postgres", s->host.env.job, "table %s.%s read: %lld rows", l->rel->schema, l->rel->name, (long long)l->nrows);
	l->at++;
	next_table(s);
}

/* A partitioned table has no rows of its own, a table with heirs only those of its own are meant. */
static void copy_sql(const struct load *l, struct buf *sql)
{
	unsigned n = 0;
	bool is_query = l->kinds[l->at] == 'p' || !l->rel->ncolumns;
	buf_str(sql, is_query ? "COPY (SELECT " : "COPY ");
	if (!is_query) {
		sql_qualified(sql, l->rel->schema, l->rel->name);
		buf_str(sql, " (");
	}
	for (unsigned i = 0; i < l->rel->ncolumns; i++) {
		if (l->rel->columns[i].flags & COLUMN_GENERATED)
			continue;
		if (n++)
			buf_str(sql, ", ");
		sql_ident(sql, l->rel->columns[i].name);
	}
	if (is_query) {
		buf_str(sql, l->kinds[l->at] == 'p' ? " FROM " : " FROM ONLY ");
		sql_qualified(sql, l->rel->schema, l->rel->name);
	}
	buf_str(sql, ") TO STDOUT");
	if (l->binary)
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

static void copy(struct source *s)
{
	struct load *l = s->load;
	struct buf sql;
	l->rel = l->todo[l->at];
	l->binary = s->opt.binary && can_be_binary(l->rel);
	l->has_header = false;
	l->nrows = l->nbytes = 0;
	l->is_copying = true;
	l->b = load_batch(l);
	batch_append(l->b, OP_LOAD_BEGIN, l->rel);
	failpoint("pg.table-begun");
	buf_init(&sql, 1024 * 1024);
	copy_sql(l, &sql);
	pgconn_copy_out(s->loader, buf_cstr(&sql), on_row, on_copied, s);
	buf_fini(&sql);
}

static bool may_pass(const struct err *e) { return !strcmp(e->id, "source.undefined") || !strcmp(e->id, "source.locked"); }

static void on_looked(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	s->load->is_looking = false;
	if (e && may_pass(e))
		put_off(s, e->message);
	else if (e)
		fail_table(s, s->load->todo[s->load->at], e);
	else if (PQgetvalue(res, 0, 0)[0] != '0')
		put_off(s, "it was truncated or rewritten after the snapshot was taken");
	else
		copy(s);
}

/* Back to the savepoint: the lock of the table before goes. pg_relation_filenode tells of today, pg_class of the snapshot. */
static void look_at(struct source *s, const struct relation *rel)
{
	struct buf sql;
	buf_init(&sql, 64 * 1024);
	buf_str(&sql, "ROLLBACK TO dmsr_table; LOCK TABLE ");
	if (s->load->kinds[s->load->at] != 'p')
		buf_str(&sql, "ONLY ");
	sql_qualified(&sql, rel->schema, rel->name);
	buf_printf(&sql, " IN ACCESS SHARE MODE; SELECT count(*) FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND (c.oid = %u OR c.oid IN"
		" (SELECT p.relid FROM pg_catalog.pg_partition_tree(%u) p)) AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode",
		(unsigned)rel->id, (unsigned)rel->id);
	s->load->is_looking = true;
	pgconn_query(s->loader, buf_cstr(&sql), on_looked, s);
	buf_fini(&sql);
}

/* What is loaded now but for that: told once, behind the last table. */
static void on_sequences(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct buf names;
	if (e) {
		source_fail(s, e);
		return;
	}
	buf_init(&names, 64 * 1024);
	for (int i = 0; i < PQntuples(res); i++)
		buf_printf(&names, "%s%s", i ? ", " : "", PQgetvalue(res, i, MUTE_NAME));
	if (names.len)
		source_tell(s, "sequences that may not be read, which begin anew at a PostgreSQL target: %s; there SELECT setval(...) sets them",
			buf_ok(&names) ? buf_cstr(&names) : "too many to name");
	buf_fini(&names);
	pgconn_query(s->loader, "COMMIT", on_committed, s);
}

static void ask_sequences(struct source *s)
{
	struct buf oids;
	buf_init(&oids, SIZE_MAX);
	relations_oids(&oids, s->rels, s->nrels);
	const char *value = buf_cstr(&oids);
	pgconn_query_params(s->loader, catalog_mute_sequences_sql, 1, &value, on_sequences, s);
	buf_fini(&oids);
}

static void next_table(struct source *s)
{
	struct load *l = s->load;
	if (!l->is_open || !source_may_emit(s) || l->is_looking || l->is_copying || l->is_done)
		return;
	if (l->at < l->ntodo) {
		look_at(s, l->todo[l->at]);
		return;
	}
	l->is_done = true;
	if (l->nlater)
		pgconn_query(s->loader, "COMMIT", on_committed, s);
	else
		ask_sequences(s);
}

/* ---- the beginning ---- */

static int by_size(const void *a, const void *b)
{
	const struct relation *x = *(struct relation *const *)a, *y = *(struct relation *const *)b;
	return x->bytes_estimate < y->bytes_estimate ? 1 : x->bytes_estimate > y->bytes_estimate ? -1 : 0;
}

static void open_load(struct source *s)
{
	struct load *l = s->load;
	l->is_open = true;
	source_enter(s, SOURCE_LOADING, "the snapshot is taken");
	log_info("postgres", s->host.env.job, "%zu table%s to load", l->ntodo, l->ntodo == 1 ? "" : "s");
	for (size_t i = 0; i < l->ntodo; i++)
		report(s, l->todo[i], -1, false);
	next_table(s);
}

static void note_tables(struct source *s) { source_note_tables(s, s->load->lsn, open_load); }

static void on_kinds(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct load *l = s->load;
	if (e) {
		source_fail(s, e);
		return;
	}
	l->kinds = mem_zalloc(l->ntodo + 1);
	for (size_t i = 0; i < l->ntodo; i++)
		l->kinds[i] = 'r';
	for (int n = 0; n < PQntuples(res); n++)
		for (size_t i = 0; i < l->ntodo; i++)
			if (l->todo[i]->id == strtoul(PQgetvalue(res, n, 0), NULL, 10))
				l->kinds[i] = 'p';
	if (s->mode & DMSR_CDC)
		source_look_load(s, note_tables);
	else
		open_load(s);
}

static void take_tables(struct source *s, struct relation **rels, size_t n)
{
	struct load *l = s->load;
	size_t kept = 0;
	for (size_t i = 0; i < n; i++) {
		/* A table that was made since the publication has changes that nobody will send. */
		if ((s->mode & DMSR_CDC) && !source_find_rel(s, rels[i]->id))
			relation_unref(rels[i]);
		else
			rels[kept++] = rels[i];
	}
	source_set_rels(s, rels, kept);
	l->todo = mem_alloc((kept + 1) * sizeof *l->todo);
	for (size_t i = 0; i < kept; i++)
		if (!source_find_loaded(s, rels[i]))
			l->todo[l->ntodo++] = rels[i];
	qsort(l->todo, l->ntodo, sizeof *l->todo, by_size);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct source *s = arg;
	s->catalog = NULL;
	if (e) {
		source_fail(s, e);
		return;
	}
	take_tables(s, rels, n);
	if (!s->nrels) {
		source_fail_because(s, DMSR_ENOTFOUND, "source.no-tables",
			"check tables.include and tables.exclude, and that the role may see the tables' schemas",
			"no table of %s matches the job's patterns", pgconn_describe(s->loader));
		return;
	}
	pgconn_query(s->loader, "SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'p'", on_kinds, s);
}

static void on_label(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	if (e) {
		source_fail(s, e);
		return;
	}
	if (!s->snapshot && (!PQntuples(res) || lsn_parse(PQgetvalue(res, 0, 0), &s->snapshot_lsn)))
		s->snapshot_lsn = 0;
	s->load->lsn = s->snapshot_lsn;
	failpoint("pg.snapshot-imported");
	/* The loader holds the snapshot now; whoever exported it may go (a temporary slot goes with him). */
	pgconn_free(s->repl);
	s->repl = NULL;
	s->catalog = catalog_read(s->loader, s->tables, true, s->leaves, on_catalog, s);
}

static void ask_label(struct source *s)
{
	pgconn_query(s->loader, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
		" ELSE pg_catalog.pg_current_wal_lsn() END", on_label, s);
}

static void on_unlocked(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e)
		source_fail(s, e);
	else
		ask_label(s);
}

/* Refused when one of them is gone or has another name, or is locked: then what is read next is the catalog, and each table will be looked at. */
static void on_locked(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e)
		pgconn_query(s->loader, "ROLLBACK TO dmsr_lock; SAVEPOINT dmsr_table", on_unlocked, s);
	else
		ask_label(s);
}

/* What is left to load. Without a snapshot of the slot's, ours is taken after this. */
static void lock_all(struct source *s)
{
	struct buf sql;
	size_t n = 0;
	buf_init(&sql, SIZE_MAX);
	for (size_t i = 0; i < s->nrels; i++) {
		if (source_find_loaded(s, s->rels[i]))
			continue;
		buf_str(&sql, n++ ? ", " : "LOCK TABLE ");
		sql_qualified(&sql, s->rels[i]->schema, s->rels[i]->name);
	}
	buf_str(&sql, n ? " IN ACCESS SHARE MODE; SAVEPOINT dmsr_table" : "SAVEPOINT dmsr_table");
	pgconn_query(s->loader, buf_cstr(&sql), on_locked, s);
	buf_fini(&sql);
}

static void on_begun(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e && s->snapshot) {
		/* It lives only as long as the session that exported it; that one's end is on its way to us, or it is a hiccup: begin anew. */
		struct err out = { 0 };
		err_retry(&out, DMSR_EIO, "source.snapshot-lost", "the snapshot that the tables were to be read in is gone: %s", e->message);
		source_fail(s, &out);
		return;
	}
	if (e) {
		source_fail(s, e);
		return;
	}
	if (s->rounds)
		lock_all(s);
	else
		ask_label(s);
}

static void on_loader_ready(void *ctx)
{
	struct source *s = ctx;
	struct buf sql;
	buf_init(&sql, SIZE_MAX);
	/* row_security off: rows that a policy hides make an error, not a hole. */
	buf_str(&sql, "SET row_security = off; SET lock_timeout = '10s'; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
	if (s->snapshot) {
		buf_str(&sql, "; SET TRANSACTION SNAPSHOT ");
		sql_literal(&sql, s->snapshot);
	}
	buf_str(&sql, "; SAVEPOINT dmsr_lock; SAVEPOINT dmsr_table");
	pgconn_query(s->loader, buf_cstr(&sql), on_begun, s);
	buf_fini(&sql);
}

void source_load(struct source *s)
{
	s->doing = "taking the snapshot";
	s->load = mem_zalloc(sizeof *s->load);
	if (s->loader)
		on_loader_ready(s);
	else
		s->loader = source_connect(s, PGCONN_SQL, on_loader_ready);
}

void source_load_resumed(struct source *s)
{
	if (!s->loader || !s->load)
		return;
	if (s->load->is_copying)
		pgconn_resume(s->loader);
	else
		next_table(s);
}

void source_load_free(struct source *s)
{
	struct load *l = s->load;
	if (!l)
		return;
	batch_free(l->b);
	free(l->todo);
	free(l->kinds);
	free(l);
	s->load = NULL;
	free(s->snapshot);
	s->snapshot = NULL;
}
