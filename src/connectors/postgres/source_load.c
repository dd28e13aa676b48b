/* source_load: the rows that are there already. In comes a snapshot (or none: a full load alone takes its own); out go the tables in it, read by
 * source_read.c; after the last one OP_LOAD_DONE; then source_stream, or the end.
 *
 *   snapshot -> catalog -> [ the tables ] -> (some were put off: another round, in another snapshot) -> words -> stream
 *
 * The loader is the connection that asks; its REPEATABLE READ transaction holds the snapshot for the other readers, and lasts until all is read. */
#include "source_load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 8 };                    /* without a table that could be read */

struct batch *load_batch(const struct source *s, uint64_t lsn)
{
	struct batch *b = batch_new();
	b->is_load = true;
	b->end.server = s->system;
	b->received_us = wall_now_us();
	batch_txn(b, &(struct txn){ .lsn = lsn });
	return b;
}

/* ---- the end ---- */

static void tell_loaded(struct source *s)
{
	s->tell_loaded = true;
	loop_task_post(s->turn);
}

static void go_on(struct source *s)
{
	source_load_free(s);
	source_rest_forget(s);
	s->is_loading = false;
	if (s->is_beside)
		source_stream_flows(s, tell_loaded);
	if (s->mode & DMSR_CDC) {
		loop_task_post(s->turn);
		if (!s->is_stream_due)
			source_stream(s);
		return;
	}
	struct slot_note slot;
	if (!slot_note_parse(s->host.note_get(s->host.ctx, "slot"), &slot) && slot.is_made)
		source_tell(s, "the job followed changes before: its slot %s stays, and the server keeps its log for that, which grows. To follow "
			"them again, from where that ended, give the job the mode full-load-and-cdc; else delete it, and its slot with it", slot.name);
	pgconn_free(s->sql);
	s->sql = NULL;
	source_enter(s, SOURCE_FINISHED, "all tables were read");
	s->tell_finished = true;
	loop_task_post(s->turn);
}

/* What this run leaves out of the stream, parts that are there of their rows would need; and a load that the streamer has, of which a target tells later. */
void source_load_later(struct source *s)
{
	log_info("postgres", s->host.env.job, "the end of the transaction that may be under way is read before anything is loaded");
	for (size_t i = 0; i < s->nrels; i++)
		if (!source_find_loaded(s, s->rels[i]))
			rest_void(s, s->rels[i]);
	source_note_left_out(s);
	source_note_tables(s, s->began_lsn + 1, go_on);
}

static uint64_t noted_snapshot(const struct source *s)
{
	const char *note = s->host.note_get(s->host.ctx, "load-snapshot");
	uint64_t lsn = 0;
	return note && !lsn_parse(note, &lsn) ? lsn : 0;
}

void source_load_words(struct source *s)
{
	uint64_t newest = s->snapshot_lsn, begins = s->from.kind ? s->from.lsn : s->start_lsn;
	bool is_loading = s->load != NULL;
	if (s->is_beside) /* what the targets have not got yet comes behind the words */
		begins = s->applied.kind ? s->applied.lsn : s->start_lsn;
	if (!(s->mode & DMSR_FULL_LOAD) || (s->load_done && !is_loading)) {
		go_on(s);
		return;
	}
	struct batch *b = load_batch(s, begins);
	/* Targets learn every table before the load is called done, also those that an earlier run has loaded. */
	for (size_t i = 0; i < s->nrels; i++) {
		const struct source_loaded *t = source_find_loaded(s, s->rels[i]);
		if (t && !t->is_earlier)
			continue;
		batch_append(b, OP_SCHEMA, s->rels[i]);
	}
	newest = source_newest_load(s) > newest ? source_newest_load(s) : newest;
	newest = noted_snapshot(s) > newest ? noted_snapshot(s) : newest;
	/* Tables read at different times do not fit each other before the stream has passed the last of these times; foreign keys must wait for it. */
	if (s->turns) /* behind the last of them */
		s->load_done_at = 0;
	else if ((s->mode & DMSR_CDC) && newest > begins)
		source_stream_awaits(s, newest);
	else
		batch_append(b, OP_LOAD_DONE, NULL);
	failpoint("pg.load-done");
	if (b->nchanges)
		source_emit(s, b);
	else
		batch_free(b);
	go_on(s);
}

static void fail_busy(struct source *s, const struct load *l)
{
	struct err e = { 0 };
	struct buf names;
	size_t n = 0;
	buf_init(&names, 400);
	for (size_t i = 0; i < l->ntables; i++)
		if (l->tables[i].state == TABLE_PUT_OFF && n++ < 5)
			buf_printf(&names, "%s%s.%s", n > 1 ? ", " : "", l->tables[i].rel->schema, l->tables[i].rel->name);
	err_retry(&e, DMSR_ESTATE, "source.table-busy", "tables were locked, or truncated, rewritten or renamed just after each of %d snapshots: %s%s", ROUNDS,
		buf_ok(&names) ? buf_cstr(&names) : "their names are too long", n > 5 ? " and others" : "");
	err_hint(&e, "let what does that rest until they are read; it is tried again");
	buf_fini(&names);
	source_fail(s, &e);
}

/* Tables of a second round are locked as soon as their snapshot is there, and the connection for it is made before. Should that not do again and again, the
 * job's back-off is better than a race with whoever rewrites them all the time. */
static void another_round(struct source *s)
{
	size_t nlater = s->load->nlater;
	for (size_t i = 0; s->is_beside && i < s->load->ntables; i++)
		if (s->load->tables[i].state == TABLE_PUT_OFF)
			rest_void(s, s->load->tables[i].rel);
	s->rounds = s->load->nread ? 1 : s->rounds + 1;
	if (s->rounds > ROUNDS) {
		fail_busy(s, s->load);
		return;
	}
	source_load_free(s);
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
	source_turns_take(s);
	if (s->load->nlater)
		another_round(s);
	else
		source_load_words(s);
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

void source_load_read(struct source *s)
{
	if (s->load->is_turn)
		source_turn_read(s);
	else if (s->load->nlater)
		pgconn_query(s->loader, "COMMIT", on_committed, s);
	else
		ask_sequences(s);
}

/* ---- the beginning ---- */

static int by_size(const void *a, const void *b)
{
	const struct relation *x = ((const struct load_table *)a)->rel, *y = ((const struct load_table *)b)->rel;
	return x->bytes_estimate < y->bytes_estimate ? 1 : x->bytes_estimate > y->bytes_estimate ? -1 : 0;
}

static void open_load(struct source *s)
{
	size_t n = s->load->ntables;
	if (s->phase != SOURCE_STREAMING)
		source_enter(s, SOURCE_LOADING, "the snapshot is taken");
	log_info("postgres", s->host.env.job, "%zu table%s to load", n, n == 1 ? "" : "s");
	/* from here on, for what was noted of them is durable */
	for (size_t i = 0; i < n; i++)
		map_put_u32(s->load->by_id, s->load->tables[i].rel->id, &s->load->tables[i]);
	source_read(s);
	if (!s->is_beside || s->is_stream_due || !(s->mode & DMSR_CDC))
		return;
	s->is_stream_due = true;
	source_rest_forget(s);
	source_stream(s);
}

/* What a later run must know of this one: the stream has to pass all snapshots before the tables fit each other. */
static void note_snapshot(struct source *s)
{
	char at[24];
	source_put_note(s, "load-snapshot", lsn_format(s->load->lsn, at), open_load);
}

static void note_alone(struct source *s) { source_note_alone(s, s->load->lsn, open_load); }

static void note_tables(struct source *s)
{
	for (size_t i = 0; i < s->load->ntables; i++)
		rest_find(s, &s->load->tables[i]);
	source_note_tables(s, s->load->lsn, note_snapshot);
}

enum { KIND_OID, KIND_IS_PARTITIONED, KIND_IS_FULL };
static const char kinds_sql[] = "SELECT c.oid, c.relkind = 'p', c.relreplident = 'f' OR (c.relkind = 'p' AND EXISTS (SELECT FROM"
	" pg_catalog.pg_partition_tree(c.oid) p JOIN pg_catalog.pg_class l ON l.oid = p.relid WHERE l.relreplident = 'f'))"
	" FROM pg_catalog.pg_class c WHERE c.relkind = 'p' OR (c.relkind = 'r' AND c.relreplident = 'f')";

static void on_kinds(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	struct load *l = s->load;
	if (e) {
		source_fail(s, e);
		return;
	}
	struct map *rows = map_new(); /* oid -> 1 and its number */
	for (int n = 0; n < PQntuples(res); n++)
		map_put_u32(rows, catalog_oid(res, n, KIND_OID), (void *)(uintptr_t)(n + 1));
	for (size_t i = 0; i < l->ntables; i++) {
		struct load_table *t = &l->tables[i];
		int n = (int)(uintptr_t)map_get_u32(rows, t->rel->id) - 1;
		t->is_partitioned = n >= 0 && *PQgetvalue(res, n, KIND_IS_PARTITIONED) == 't';
		t->is_full = n >= 0 && *PQgetvalue(res, n, KIND_IS_FULL) == 't';
	}
	map_free(rows);
	if (s->mode & DMSR_CDC)
		source_look_load(s, note_tables);
	else if (!s->rounds)
		source_tell_unmatched(s, s->loader, note_alone);
	else
		note_alone(s);
}

/* Whatever becomes of it, the rows of a table that is not loaded yet are read in this snapshot or in a later one. */
uint64_t source_load_newer(const struct source *s, uint32_t id)
{
	const struct load_table *t = s->load ? map_get_u32(s->load->by_id, id) : NULL;
	return t ? t->since ? t->since : s->load->lsn : source_turns_since(s, id);
}

/* The stream, which is read meanwhile, may have changes of a table that will not be loaded: another run finds out from its notes what became of it. */
static const struct relation *find_gone(const struct source *s, struct relation *const *rels, size_t n)
{
	struct map *by_id = map_new();
	const struct relation *gone = NULL;
	bool has_stream = s->is_stream_due || (s->is_beside && s->from.kind); /* or a log of an earlier run's */
	for (size_t i = 0; i < n; i++)
		map_put_u32(by_id, rels[i]->id, rels[i]);
	for (size_t i = 0; has_stream && i < s->nrels && !gone; i++) {
		const struct relation *was = s->rels[i], *is = map_get_u32(by_id, was->id);
		if (!source_find_loaded(s, was) && (!is || strcmp(is->schema, was->schema) != 0 || strcmp(is->name, was->name) != 0))
			gone = was;
	}
	map_free(by_id);
	return gone;
}

static void fail_gone(struct source *s, const struct relation *gone)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "source.table-busy", "table %s.%s was dropped or renamed before it was loaded", gone->schema, gone->name);
	source_fail(s, &e);
}

static void take_tables(struct source *s, struct relation **rels, size_t n)
{
	struct load *l = s->load;
	source_set_rels(s, rels, n);
	if (!(s->mode & DMSR_CDC)) /* where they are followed that was done before the snapshot */
		source_forget_missed(s);
	l->tables = mem_zalloc((n + 1) * sizeof *l->tables);
	for (size_t i = 0; i < n; i++)
		if (!source_find_loaded(s, rels[i]) && !source_turns_since(s, rels[i]->id))
			l->tables[l->ntables++].rel = relation_ref(rels[i]);
	qsort(l->tables, l->ntables, sizeof *l->tables, by_size);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	struct source *s = arg;
	s->load_catalog = NULL;
	if (e) {
		source_fail(s, e);
		return;
	}
	const struct relation *gone = find_gone(s, rels, n);
	if (gone) {
		fail_gone(s, gone);
		for (size_t i = 0; i < n; i++)
			relation_unref(rels[i]);
		free(rels);
		return;
	}
	take_tables(s, rels, n);
	if (!s->nrels) {
		source_fail_no_tables(s, s->loader);
		return;
	}
	pgconn_query(s->loader, kinds_sql, on_kinds, s);
}

static void on_savepoint(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e) {
		source_fail(s, e);
		return;
	}
	failpoint("pg.snapshot-imported");
	/* The loader holds the snapshot now; whoever exported it may go (a temporary slot goes with him). */
	struct pgconn **exporter = s->exporter ? &s->exporter : &s->repl;
	pgconn_free(*exporter);
	*exporter = NULL;
	s->load_catalog = catalog_read(s->loader, s->tables, true, s->leaves, on_catalog, s);
	/* A table that was made since the publication has changes that nobody will send. */
	if (s->mode & DMSR_CDC)
		catalog_only(s->load_catalog, &s->rel_by_id);
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
	if (PQntuples(res))
		s->load->sees = mem_strdup(PQgetvalue(res, 0, 1));
	if (PQntuples(res) && PQnfields(res) > 2)
		s->load->snapshot = mem_strdup(PQgetvalue(res, 0, 2));
	/* Locks of what the catalog tells of (a sequence's value) go with the first table's. */
	pgconn_query(s->loader, "SAVEPOINT dmsr_table", on_savepoint, s);
}

/* A snapshot is not exported from a savepoint. */
static void ask_label(struct source *s)
{
	struct buf sql;
	buf_init(&sql, 1024);
	buf_printf(&sql, "RELEASE SAVEPOINT dmsr_lock; SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
		" ELSE pg_catalog.pg_current_wal_lsn() END, pg_catalog.txid_current_snapshot()%s",
		s->opt.load_connections > 1 ? ", pg_catalog.pg_export_snapshot()" : "");
	pgconn_query(s->loader, buf_cstr(&sql), on_label, s);
	buf_fini(&sql);
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
	s->load->holds_all = !e;
	if (e)
		pgconn_query(s->loader, "ROLLBACK TO dmsr_lock", on_unlocked, s);
	else
		ask_label(s);
}

bool source_load_lock_sql(const struct source *s, struct buf *out)
{
	size_t n = 0;
	for (size_t i = 0; i < s->nrels; i++) {
		if (source_find_loaded(s, s->rels[i]) || source_turns_since(s, s->rels[i]->id))
			continue;
		buf_str(out, n++ ? ", " : "LOCK TABLE ");
		sql_qualified(out, s->rels[i]->schema, s->rels[i]->name);
	}
	buf_str(out, n ? " IN ACCESS SHARE MODE" : "");
	return n;
}

/* Without a snapshot of the slot's, ours is taken after this. Who wants to rewrite one of them waits until all are read, or this would not come to its end.
 * The other readers do not wait behind him: they hold the same, or are not needed. */
static void lock_all(struct source *s)
{
	struct buf sql;
	buf_init(&sql, SIZE_MAX);
	if (source_load_lock_sql(s, &sql))
		pgconn_query(s->loader, buf_cstr(&sql), on_locked, s);
	else
		ask_label(s);
	buf_fini(&sql);
}

void source_snapshot_lost(struct source *s, const struct err *why)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_EIO, "source.snapshot-lost", "the snapshot that the tables were to be read in is gone: %s", why->message);
	err_hint(&e, "a new one is taken; if it goes again, see what ends idle sessions of the job");
	source_fail(s, &e);
}

static void on_begun(void *arg, const PGresult *res, const struct err *e)
{
	struct source *s = arg;
	(void)res;
	if (e && s->snapshot) {
		source_snapshot_lost(s, e);
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

/* row_security off: rows that a policy hides make an error, not a hole. Side by side is what the readers are: each COPY by itself. */
const char *source_load_begin_sql(const char *snapshot, struct buf *out)
{
	buf_str(out, "SET row_security = off; SET lock_timeout = '10s'; SET max_parallel_workers_per_gather = 0;"
		" BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
	if (snapshot) {
		buf_str(out, "; SET TRANSACTION SNAPSHOT ");
		sql_literal(out, snapshot);
	}
	return buf_cstr(out);
}

static void on_loader_ready(void *ctx)
{
	struct source *s = ctx;
	struct buf sql;
	buf_init(&sql, 4096);
	source_load_begin_sql(s->snapshot, &sql);
	buf_str(&sql, "; SAVEPOINT dmsr_lock");
	pgconn_query(s->loader, buf_cstr(&sql), on_begun, s);
	buf_fini(&sql);
}

struct load *load_new(void)
{
	struct load *l = mem_zalloc(sizeof *l);
	l->rests = map_new();
	l->by_id = map_new();
	return l;
}

void load_table_free(struct load_table *t)
{
	relation_unref(t->rel);
	for (uint32_t i = 0; i < t->nparts; i++) {
		free(t->parts[i].from);
		free(t->parts[i].where);
	}
	free(t->parts);
	free(t->kept);
	free(t->mark);
}

void source_load(struct source *s)
{
	s->doing = "taking the snapshot";
	s->load = load_new();
	if (s->loader)
		on_loader_ready(s);
	else
		s->loader = source_connect(s, PGCONN_SQL, on_loader_ready);
}

void source_load_free(struct source *s)
{
	struct load *l = s->load;
	if (!l)
		return;
	source_read_free(s);
	for (size_t i = 0; i < l->ntables; i++)
		load_table_free(&l->tables[i]);
	map_free(l->rests);
	map_free(l->by_id);
	free(l->tables);
	free(l->snapshot);
	free(l->sees);
	free(l);
	s->load = NULL;
	free(s->snapshot);
	s->snapshot = NULL;
}
