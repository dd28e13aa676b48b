/* store_db: the SQLite file of the store: opening and checking it, its schema, its rows with their sums, its transaction.
 *
 * One connection, in exclusive mode: no shared memory file, and no other program can get between. The write-ahead log is folded in by us alone
 * (SQLite would not tell when that fails), always outside of a commit that somebody waits for. */
#include "store_file.h"
#include "store_int.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	STATEMENTS_MAX = 56,
	APPLICATION_ID = 0x646d7372, /* "dmsr" */
	WAL_BYTES = 4 << 20,         /* what is left of its file after that */
};

struct store_tune store_tune = { .wal_pages = 1000, .free_pages = 256, .record_bytes = 256 << 20 };

struct statement {
	const char *sql; /* a literal: found by its address */
	enum table table;
	sqlite3_stmt *stmt;
};

struct store_db {
	sqlite3 *sql;
	char *path;
	bool in_transaction, is_broken, looks_for_free_pages;
	int wal_pages;
	struct statement statements[STATEMENTS_MAX];
	unsigned nstatements;
};

static const struct {
	const char *name;
	unsigned columns; /* without sum */
} tables[TABLES] = {
	[TABLE_JOB] = { "job", 9 },
	[TABLE_KV] = { "kv", 4 },
	[TABLE_DEAD_LETTER] = { "dead_letter", 11 },
	[TABLE_SERIAL] = { "serial", 2 },
	[TABLE_EVENT] = { "event", 7 },
	[TABLE_IDEM] = { "idem", 5 },
	[TABLE_LOG] = { "log", 3 },
};

/* migrations[n] leads from user_version n to n + 1. Never change one that was released. */
static const char *const migrations[] = {
	"CREATE TABLE job(uid TEXT NOT NULL PRIMARY KEY, name TEXT, spec TEXT, generation INT, desired_state TEXT, state TEXT, error TEXT,"
	" created_us INT, updated_us INT, sum INT) WITHOUT ROWID, STRICT;"
	"CREATE TABLE kv(uid TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT, sum INT,"
	" PRIMARY KEY(uid, kind, key)) WITHOUT ROWID, STRICT;"
	"CREATE TABLE dead_letter(uid TEXT NOT NULL, id INT NOT NULL, ts_us INT, target TEXT, position TEXT, schema TEXT, name TEXT, op TEXT,"
	" code TEXT, message TEXT, change TEXT, sum INT, PRIMARY KEY(uid, id)) WITHOUT ROWID, STRICT;"
	/* the last id of a job's dead letters: none comes twice, also when they are deleted */
	"CREATE TABLE serial(uid TEXT NOT NULL PRIMARY KEY, last INT, sum INT) WITHOUT ROWID, STRICT;"
	"CREATE TABLE event(uid TEXT NOT NULL, id INT NOT NULL, ts_us INT, kind TEXT, actor TEXT, text TEXT, data TEXT, sum INT,"
	" PRIMARY KEY(uid, id)) WITHOUT ROWID, STRICT;"
	"CREATE TABLE idem(key TEXT NOT NULL PRIMARY KEY, ts_us INT, hash TEXT, status INT, reply TEXT, sum INT) WITHOUT ROWID, STRICT;"
	/* what a job's log holds by all means: below..tail; tail < below: nothing */
	"CREATE TABLE log(uid TEXT NOT NULL PRIMARY KEY, below INT, tail INT, sum INT) WITHOUT ROWID, STRICT;",
	/* the first builds made one more in version 1, which nobody reads */
	"DROP TABLE IF EXISTS relation",
	"CREATE INDEX dead_letter_at ON dead_letter(uid, position)",
	/* nothing here, but in the logs: a daemon that does not know their new sum would cut their entries off as torn ones, so it must not begin */
	"",
};
enum { SCHEMA_VERSION = sizeof migrations / sizeof *migrations };

/* Read-only: the file can be written to (make_file did open it so), but says of itself that it is from the future. Error: our statements are right, so
 * it is the header or the schema that is not. */
static bool is_damage(int rc)
{
	return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB || (rc & 0xff) == SQLITE_FORMAT || rc == SQLITE_READONLY ||
		rc == SQLITE_ERROR;
}

static int fail(struct store_db *d, int rc, struct err *e)
{
	d->is_broken = true;
	if (is_damage(rc))
		return store_file_corrupt(e, d->path, "%s", sqlite3_errmsg(d->sql));
	int error = sqlite3_system_errno(d->sql);
	errno = (rc & 0xff) == SQLITE_FULL ? ENOSPC : error;
	if ((rc & 0xff) == SQLITE_FULL || ((rc & 0xff) == SQLITE_IOERR && error == EDQUOT) || ((rc & 0xff) == SQLITE_IOERR && error == EFBIG))
		return store_file_err(e, "write to", d->path);
	if (((rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN) && error)
		return store_file_err(e, "read or write", d->path);
	if ((rc & 0xff) == SQLITE_BUSY) {
		err_set(e, DMSR_EIO, "state.io", "%s is in use by another program", d->path);
		return err_hint(e, "Look with fuser(1) which one it is, end it, then start dmsrd again.");
	}
	err_set(e, DMSR_EIO, "state.io", "cannot read or write %s: %s (SQLite's code %d)", d->path, sqlite3_errmsg(d->sql), rc);
	return err_hint(e, "Look into the disk and the kernel's log, then start dmsrd again: its jobs go on from where they are durable.");
}

/* ---- statements ---- */

static int bind_one(sqlite3_stmt *stmt, int at, const struct field *f)
{
	switch ((enum field_type)f->type) {
	case FIELD_NULL: return sqlite3_bind_null(stmt, at);
	case FIELD_INT: return sqlite3_bind_int64(stmt, at, f->i);
	case FIELD_TEXT: return sqlite3_bind_text64(stmt, at, f->p, f->n, SQLITE_STATIC, SQLITE_UTF8);
	case FIELD_BLOB: return sqlite3_bind_blob64(stmt, at, f->p, f->n, SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

/* The statement of a literal, compiled once; NULL: e is set. */
static sqlite3_stmt *prepare(struct store_db *d, const char *literal, enum table t, const char *sql, struct err *e)
{
	for (unsigned i = 0; i < d->nstatements; i++)
		if (d->statements[i].sql == literal && d->statements[i].table == t)
			return d->statements[i].stmt;
	assert(d->nstatements < STATEMENTS_MAX);
	struct statement *s = &d->statements[d->nstatements];
	int rc = sqlite3_prepare_v3(d->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
	if (rc) {
		fail(d, rc, e);
		return NULL;
	}
	s->sql = literal;
	s->table = t;
	d->nstatements++;
	return s->stmt;
}

static int bind_all(struct store_db *d, sqlite3_stmt *stmt, const struct field *params, struct err *e)
{
	int n = sqlite3_bind_parameter_count(stmt);
	for (int i = 0; i < n; i++) {
		int rc = bind_one(stmt, i + 1, &params[i]);
		if (rc)
			return fail(d, rc, e);
	}
	return 0;
}

/* Ends a use of stmt. Parameters are borrowed: none may stay. */
static int finish(struct store_db *d, sqlite3_stmt *stmt, int rc, struct err *e)
{
	int failed = rc != SQLITE_DONE && rc != SQLITE_ROW ? fail(d, rc, e) : 0;
	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return failed;
}

int store_db_run(struct store_db *d, const char *sql, const struct field *params, int64_t *result, struct err *e)
{
	assert(!d->is_broken);
	sqlite3_stmt *stmt = prepare(d, sql, TABLES, sql, e);
	if (!stmt || bind_all(d, stmt, params, e))
		return DMSR_EIO;
	int rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW && result && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
		*result = sqlite3_column_int64(stmt, 0);
	while (rc == SQLITE_ROW)
		rc = sqlite3_step(stmt);
	return finish(d, stmt, rc, e);
}

/* ---- rows ---- */

static int64_t sum_of(enum table t, const struct field *columns)
{
	uint64_t sum = hash_stable(tables[t].name, strlen(tables[t].name), 0);
	for (unsigned i = 0; i < tables[t].columns; i++) {
		const struct field *f = &columns[i];
		uint64_t head[2] = { htobe64(f->type), htobe64(f->type == FIELD_INT ? (uint64_t)f->i : f->n) };
		sum = hash_stable(head, sizeof head, sum);
		if (f->type >= FIELD_TEXT)
			sum = hash_stable(f->p, f->n, sum);
	}
	return (int64_t)sum;
}

int store_db_put(struct store_db *d, enum table t, const struct field *columns, struct err *e)
{
	static const char literal[] = "INSERT OR REPLACE INTO";
	assert(d->in_transaction && !d->is_broken);
	unsigned n = tables[t].columns;
	char sql[128];
	snprintf(sql, sizeof sql, "%s %s VALUES(?%.*s)", literal, tables[t].name, (int)n * 2, ",?,?,?,?,?,?,?,?,?,?,?,?");
	sqlite3_stmt *stmt = prepare(d, literal, t, sql, e);
	struct field all[TABLE_COLUMNS_MAX];
	assert(n < TABLE_COLUMNS_MAX);
	memcpy(all, columns, n * sizeof *all);
	all[n] = field_int(sum_of(t, columns));
	if (!stmt || bind_all(d, stmt, all, e))
		return DMSR_EIO;
	return finish(d, stmt, sqlite3_step(stmt), e);
}

/* 0, or -1 when the column is of a kind that we never write. */
static int read_column(sqlite3_stmt *stmt, int at, struct field *f)
{
	switch (sqlite3_column_type(stmt, at)) {
	case SQLITE_NULL: *f = field_text(NULL); return 0;
	case SQLITE_INTEGER: *f = field_int(sqlite3_column_int64(stmt, at)); return 0;
	case SQLITE_TEXT:
		*f = (struct field){ .type = FIELD_TEXT, .p = (const char *)sqlite3_column_text(stmt, at) };
		break;
	case SQLITE_BLOB:
		*f = (struct field){ .type = FIELD_BLOB, .p = sqlite3_column_blob(stmt, at) };
		break;
	default: return -1;
	}
	f->n = (size_t)sqlite3_column_bytes(stmt, at);
	if (!f->p)
		f->p = "";
	return 0;
}

static int read_row(struct store_db *d, enum table t, sqlite3_stmt *stmt, struct field *columns, struct err *e)
{
	unsigned n = tables[t].columns;
	int bad = 0;
	for (unsigned i = 0; i <= n; i++)
		bad |= read_column(stmt, (int)i, &columns[i]);
	if (bad || columns[n].type != FIELD_INT || columns[n].i != sum_of(t, columns))
		return store_file_corrupt(e, d->path, "a row of table %s is not what was written (of %.60s)", tables[t].name,
			columns[0].type == FIELD_TEXT ? columns[0].p : "?");
	return 0;
}

int store_db_each(struct store_db *d, enum table t, const char *tail, const struct field *params,
	int (*fn)(void *arg, const struct field *columns), void *arg, struct err *e)
{
	assert(!d->is_broken);
	char sql[256];
	int n = snprintf(sql, sizeof sql, "SELECT * FROM %s %s", tables[t].name, tail);
	assert(n > 0 && (size_t)n < sizeof sql);
	sqlite3_stmt *stmt = prepare(d, tail, t, sql, e);
	if (!stmt || bind_all(d, stmt, params, e))
		return DMSR_EIO;
	int rc, stopped = 0;
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && !stopped) {
		struct field columns[TABLE_COLUMNS_MAX];
		stopped = read_row(d, t, stmt, columns, e);
		if (!stopped)
			stopped = fn(arg, columns);
	}
	int failed = finish(d, stmt, rc, e);
	return failed ? failed : stopped;
}

/* ---- the transaction ---- */

bool store_db_in_transaction(const struct store_db *d) { return d->in_transaction; }
bool store_db_is_broken(const struct store_db *d) { return d->is_broken; }

int store_db_begin(struct store_db *d, struct err *e)
{
	if (d->in_transaction)
		return 0;
	int rc = store_db_run(d, "BEGIN IMMEDIATE", NULL, NULL, e);
	d->in_transaction = !rc;
	return rc;
}

int store_db_commit(struct store_db *d, struct err *e)
{
	assert(d->in_transaction);
	if (failpoint("store.full"))
		return fail(d, SQLITE_FULL, e);
	int rc = store_db_run(d, "COMMIT", NULL, NULL, e);
	if (!rc)
		d->in_transaction = false;
	return rc;
}

void store_db_rollback(struct store_db *d)
{
	/* What fails here was rolled back by SQLite already; either way none of it counts. */
	if (d->in_transaction)
		sqlite3_exec(d->sql, "ROLLBACK", NULL, NULL, NULL);
	d->in_transaction = false;
	d->is_broken = true;
}

static int fold_in(struct store_db *d, int mode, struct err *e)
{
	int rc = sqlite3_wal_checkpoint_v2(d->sql, NULL, mode, NULL, NULL);
	if (rc)
		return fail(d, rc, e);
	d->wal_pages = 0;
	return 0;
}

int store_db_tidy(struct store_db *d, bool *more, struct err *e)
{
	assert(!d->in_transaction);
	if (d->wal_pages > store_tune.wal_pages) {
		d->looks_for_free_pages = true;
		return fold_in(d, SQLITE_CHECKPOINT_PASSIVE, e);
	}
	if (!d->looks_for_free_pages)
		return 0;
	int64_t unused = 0, all = 0;
	if (store_db_run(d, "PRAGMA freelist_count", NULL, &unused, e) || store_db_run(d, "PRAGMA page_count", NULL, &all, e))
		return DMSR_EIO;
	d->looks_for_free_pages = unused > store_tune.free_pages && unused > all / 4;
	*more |= d->looks_for_free_pages;
	return d->looks_for_free_pages ? store_db_run(d, "PRAGMA incremental_vacuum(64)", NULL, NULL, e) : 0;
}

static int on_wal(void *arg, sqlite3 *sql, const char *name, int pages)
{
	struct store_db *d = arg;
	(void)sql;
	(void)name;
	d->wal_pages = pages;
	return SQLITE_OK;
}

/* ---- opening ---- */

/* A new file is made here, for its mode and its directory entry; the write-ahead log takes its mode. */
static int make_file(const char *dir, const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return store_file_err(e, "open", path);
	int rc = fchmod(fd, 0600) ? store_file_err(e, "set the mode of", path) : 0;
	close(fd);
	return rc ? rc : store_file_sync_dir(dir, e);
}

static int pragma(struct store_db *d, const char *sql, struct err *e)
{
	int rc = sqlite3_exec(d->sql, sql, NULL, NULL, NULL);
	return rc ? fail(d, rc, e) : 0;
}

/* Calls fn with the first column of each row. */
static int each_text(struct store_db *d, const char *sql, void (*fn)(void *arg, const char *text), void *arg, struct err *e)
{
	sqlite3_stmt *stmt;
	int rc = sqlite3_prepare_v2(d->sql, sql, -1, &stmt, NULL);
	if (rc)
		return fail(d, rc, e);
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(stmt, 0);
		fn(arg, text ? text : "");
	}
	int failed = rc == SQLITE_DONE ? 0 : fail(d, rc, e);
	sqlite3_finalize(stmt);
	return failed;
}

static void collect(void *arg, const char *text)
{
	struct buf *b = arg;
	buf_str(b, text);
	buf_byte(b, '\n');
}

static const char schema_sql[] = "SELECT type || name || tbl_name || ifnull(sql, '') FROM sqlite_schema WHERE name <> 'relation' ORDER BY name";

/* integrity_check finds pages that do not fit together and keys out of order (quick_check does not look at these; without secondary indexes it costs
 * the same); the comparison finds a changed word in the schema. What is left, a changed byte in a row, check_rows finds. */
static int check(struct store_db *d, int version, struct err *e)
{
	struct buf found, wanted;
	buf_init(&found, 1 << 20);
	buf_init(&wanted, 1 << 20);
	int rc = each_text(d, "PRAGMA integrity_check(1)", collect, &found, e);
	const char *verdict = buf_cstr(&found);
	if (!rc && strcmp(verdict, "ok\n") != 0)
		rc = store_file_corrupt(e, d->path, "%s", verdict);
	struct store_db model = { .path = d->path };
	if (!rc && sqlite3_open(":memory:", &model.sql))
		rc = fail(&model, SQLITE_NOMEM, e);
	for (int i = 0; !rc && i < version; i++)
		rc = pragma(&model, migrations[i], e);
	buf_reset(&found);
	if (!rc)
		rc = each_text(d, schema_sql, collect, &found, e);
	if (!rc)
		rc = each_text(&model, schema_sql, collect, &wanted, e);
	if (!rc && strcmp(buf_cstr(&found), buf_cstr(&wanted)) != 0)
		rc = store_file_corrupt(e, d->path, "its tables are not those of version %d", version);
	sqlite3_close(model.sql);
	buf_fini(&found);
	buf_fini(&wanted);
	return rc;
}

static int on_good_row(void *arg, const struct field *columns)
{
	(void)arg;
	(void)columns;
	return 0;
}

/* Each row once: a changed key would hide its row from every later question, without a word. */
static int check_rows(struct store_db *d, struct err *e)
{
	int rc = 0;
	for (int t = 0; t < TABLES && !rc; t++)
		rc = store_db_each(d, (enum table)t, "", NULL, on_good_row, NULL, e);
	return rc;
}

static int migrate(struct store_db *d, int version, struct err *e)
{
	for (; version < SCHEMA_VERSION; version++) {
		char number[80];
		snprintf(number, sizeof number, "PRAGMA user_version=%d; PRAGMA application_id=%d", version + 1, APPLICATION_ID);
		if (pragma(d, "BEGIN IMMEDIATE", e) || pragma(d, migrations[version], e) || pragma(d, number, e) || pragma(d, "COMMIT", e))
			return e->code;
	}
	return 0;
}

static int check_and_migrate(struct store_db *d, struct err *e)
{
	int64_t version = 0, id = 0, things = 0;
	if (store_db_run(d, "PRAGMA user_version", NULL, &version, e) || store_db_run(d, "PRAGMA application_id", NULL, &id, e) ||
		store_db_run(d, "SELECT count(*) FROM sqlite_schema", NULL, &things, e))
		return e->code;
	bool is_new = !version && !id && !things;
	if (!is_new && (id != APPLICATION_ID || version < 1))
		return store_file_corrupt(e, d->path, "it is not a database of dmsrd's");
	if (version > SCHEMA_VERSION) {
		err_set(e, DMSR_ESTATE, "state.newer", "%s was written by a newer dmsrd (version %d, this one knows %d)",
			d->path, (int)version, SCHEMA_VERSION);
		return err_hint(e, "Start the newer dmsrd; or put the state directory back from a backup made before it.");
	}
	int rc = check(d, (int)version, e);
	/* Folding in writes all that the log holds once more and syncs it: should an fsync have failed under an earlier process, what is
	 * read here may be in memory only. */
	if (!rc)
		rc = fold_in(d, SQLITE_CHECKPOINT_TRUNCATE, e);
	if (!rc)
		rc = migrate(d, (int)version, e);
	return rc ? rc : check_rows(d, e);
}

static int set_up(struct store_db *d, struct err *e)
{
	char settings[512];
	sqlite3_extended_result_codes(d->sql, 1);
	sqlite3_busy_timeout(d->sql, 2000);
	sqlite3_db_config(d->sql, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(d->sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	snprintf(settings, sizeof settings,
		"PRAGMA locking_mode=EXCLUSIVE; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		"PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=%d; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON",
		(int)WAL_BYTES);
	if (pragma(d, settings, e))
		return e->code;
	sqlite3_wal_hook(d->sql, on_wal, d);
	struct buf mode;
	buf_init(&mode, 64);
	int rc = each_text(d, "PRAGMA journal_mode", collect, &mode, e);
	if (!rc && strcmp(buf_cstr(&mode), "wal\n") != 0)
		rc = err_set(e, DMSR_EIO, "state.io", "%s: SQLite cannot keep a write-ahead log there", d->path);
	buf_fini(&mode);
	return rc ? rc : check_and_migrate(d, e);
}

int store_db_open(const char *dir, struct store_db **out, struct err *e)
{
	struct store_db *d = mem_zalloc(sizeof *d);
	d->path = mem_printf("%s/state.db", dir);
	int rc = make_file(dir, d->path, e);
	if (!rc) {
		rc = sqlite3_open_v2(d->path, &d->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, NULL);
		rc = rc ? fail(d, rc, e) : set_up(d, e);
	}
	if (rc) {
		store_db_close(d, false);
		return rc;
	}
	*out = d;
	return 0;
}

void store_db_close(struct store_db *d, bool clean)
{
	if (!d)
		return;
	for (unsigned i = 0; i < d->nstatements; i++)
		sqlite3_finalize(d->statements[i].stmt);
	/* Else closing would write once more to a disk that has failed. */
	if (d->sql)
		sqlite3_db_config(d->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !clean || d->is_broken, NULL);
	sqlite3_close(d->sql);
	free(d->path);
	free(d);
}
