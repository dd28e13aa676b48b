/* target_setup: from a session that is connected to one that takes batches.
 *
 *   look -> (make dmsr.*) -> lock -> lanes' lock -> role -> position -> (strands) -> loads -> ready
 *   of a lane: look -> lanes' lock -> role -> ready             of a strand: look -> lanes' lock -> role -> loads -> ready
 *
 * The lock is an advisory one, of the job's uid, held by the session. It is what makes "read the position, then write" safe: a session of a dead dmsrd
 * whose last COMMIT is still on its way holds the lock until the server is through with it. A holder that does not go away (a cut line, half open) is
 * terminated: what it had not committed is rolled back, what it had is in the position that is read next.
 *
 * The sessions of lanes share a second lock. Who has got the first waits until nobody has that, and gives it back. A lane that has it looks whether
 * its instance's session still has the first: if so, whoever comes next will wait for the lane.
 *
 * The strands of a parallel target (target_parallel.c) do as lanes do. What the rows of an earlier start's say is merged, in one transaction that removes
 * these rows and makes new ones under names that were never used: a strand that comes back from somewhere, even then, finds no row of its own, and can
 * commit nothing.
 *
 * Each commit of a session waits for the server's disk, whatever others have set, but those of the stream that say otherwise (target_tx.c). So the position
 * that is read here is there for good, and all that was committed before, by an earlier start and without waiting, is too: to read it writes the row.
 *
 * In dmsr.loads position is NULL where a table was not loaded; then rows is -1 where its load was begun, in parts, and may have left rows there, -2 where it
 * has to be loaded again, whatever others remember, -3 where it was loaded or begun before the job's positions were forgotten: to no end but that the load
 * that begins anew may take away what is there. A table that has no part in that may be somebody else's when it is taken up again: when that load is done,
 * or the stream has moved and nothing is loaded any more, the mark goes. "UID/N" is part N of a table that was begun: it is there, as of that position. And
 * "UID/0" says of a table which is loaded that parts of it are of snapshots up to that one (target_catch.h); rows is -4 where rows may have moved between
 * them. */
#include "target_int.h"
#include <stdlib.h>

enum {
	LOCK_LOOK_MS = 100,
	LOCK_TERMINATE_MS = 3000,       /* the holder had this long to go */
	LOCK_GIVE_UP_MS = 30000,
	MAKE_TRIES = 10,
};

static const char look_sql[] =
	"SELECT pg_catalog.set_config('row_security','off',false), "
	"pg_catalog.set_config('plan_cache_mode','force_generic_plan',false), "
	"pg_catalog.set_config('default_transaction_isolation','read committed',false), "
	"pg_catalog.set_config('default_transaction_read_only','off',false), "
	"pg_catalog.set_config('default_transaction_deferrable','off',false), "
	"pg_catalog.set_config('check_function_bodies','off',false), "
	"pg_catalog.set_config('synchronous_commit',CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
	"ELSE pg_catalog.current_setting('synchronous_commit') END,false), pg_catalog.pg_is_in_recovery(), "
	"pg_catalog.to_regclass('dmsr.positions') IS NOT NULL AND pg_catalog.to_regclass('dmsr.loads') IS NOT NULL, "
	"pg_catalog.to_regnamespace('dmsr') IS NOT NULL, pg_catalog.pg_backend_pid()";
enum { LOOK_RECOVERY = 7, LOOK_HAS_TABLES, LOOK_HAS_SCHEMA, LOOK_PID };

static const char make_schema_sql[] = "CREATE SCHEMA dmsr";
static const char make_sql[] =
	"CREATE TABLE IF NOT EXISTS dmsr.positions (job_uid text PRIMARY KEY, job text NOT NULL, position text NOT NULL, "
	"load_done boolean NOT NULL DEFAULT false, updated_at timestamptz NOT NULL DEFAULT pg_catalog.now()) WITH (fillfactor = 50); "
	"CREATE TABLE IF NOT EXISTS dmsr.loads (job_uid text, schema_name text, table_name text, position text, "
	"rows bigint NOT NULL DEFAULT 0, made boolean NOT NULL DEFAULT false, shape bytea, "
	"loaded_at timestamptz NOT NULL DEFAULT pg_catalog.now(), PRIMARY KEY (job_uid, schema_name, table_name))";

static const char position_sql[] =
	"INSERT INTO dmsr.positions AS p (job_uid, job, position) VALUES ($1, $2, 'none') "
	"ON CONFLICT (job_uid) DO UPDATE SET job = EXCLUDED.job RETURNING p.position, p.load_done, "
	"EXISTS (SELECT FROM dmsr.positions o WHERE pg_catalog.starts_with(o.job_uid, $1::text || '/'))";

#define HOLDERS                                                                                                 \
	"FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "                    \
	"AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) " \
	"AND ((classid::bigint << 32) | objid::bigint) = $1::bigint "
static const char terminate_sql[] = "SELECT pg_catalog.pg_terminate_backend(pid) " HOLDERS "AND pid <> pg_catalog.pg_backend_pid()";
static const char holder_sql[] = "SELECT 1 " HOLDERS "AND pid = $2::integer";

static bool is_true(const struct target *t, int column) { return PQgetvalue(t->answer, 0, column)[0] == 't'; }

/* ---- what is loaded ---- */

static void add_begun(struct target *t, size_t i, const char *rows)
{
	t->begun_rows[i] = strcmp(rows, LOAD_LOST) != 0 ? 0 : BEGUN_GONE;
	t->begun[i] = (struct dmsr_begun){ .schema = t->loaded[i].schema, .name = t->loaded[i].name };
}

/* Until here they lie as all that is known does. One of which nothing is there and which was not lost is no news. */
static void sift_begun(struct target *t)
{
	for (size_t i = 0; i < t->nknown; i++) {
		const struct dmsr_begun b = t->begun[i];
		t->begun[i] = (struct dmsr_begun){ 0 };
		if (!b.schema || (!b.nparts && t->begun_rows[i] != BEGUN_GONE))
			continue;
		t->begun_rows[t->nbegun] = t->begun_rows[i];
		t->begun[t->nbegun++] = b;
	}
}

/* Of the table's place in what is known; nknown: nothing is. */
static size_t place_of(const struct target *t, int row)
{
	struct buf key;
	buf_init(&key, 64 * 1024);
	relation_key(&key, PQgetvalue(t->answer, row, 0), PQgetvalue(t->answer, row, 1));
	const struct dmsr_loaded *l = map_get(t->known, key.data, key.len);
	buf_fini(&key);
	return l ? (size_t)(l - t->loaded) : t->nknown;
}

static void add_part(struct target *t, int row, const struct position *at)
{
	union { const uint32_t *in; uint32_t *own; } parts = { NULL };
	size_t i = place_of(t, row);
	struct dmsr_begun *b = &t->begun[i];
	if (!b->schema || t->begun_rows[i] >= BEGUN_PAST || t->prepare == PREPARE_NONE)
		return;
	/* What the stream has brought since then did not reach it: then none of them counts, or the source would read this one onto its rows. */
	if (t->saved.kind && at->lsn <= t->saved.lsn) {
		t->begun_rows[i] = BEGUN_PAST;
		b->nparts = 0;
		free((void *)(uintptr_t)b->parts);
		b->parts = NULL;
		return;
	}
	if (position_is_none(&b->at) || at->lsn < b->at.lsn)
		b->at = *at;
	parts.in = b->parts;
	parts.own = mem_realloc_array(parts.own, b->nparts + 1, sizeof *parts.own);
	parts.own[b->nparts++] = (uint32_t)strtoul(PQgetvalue(t->answer, row, 2), NULL, 10);
	b->parts = parts.in;
	t->begun_rows[i] += strtoull(PQgetvalue(t->answer, row, 4), NULL, 10);
}

static void add_until(struct target *t, int row, const struct position *at)
{
	size_t i = place_of(t, row);
	if (i >= t->nloaded)
		return;
	t->until[i] = at->lsn;
	t->moves[i] = !strcmp(PQgetvalue(t->answer, row, 4), LOAD_MOVED);
}

static void on_parts(struct target *t)
{
	for (int i = 0; i < PQntuples(t->answer); i++) {
		struct position at = { 0 };
		struct err e = { 0 };
		if (position_parse(PQgetvalue(t->answer, i, 3), &at, &e)) {
			err_prefix(&e, "dmsr.loads in %s", pgconn_describe(t->conn));
			target_fail(t, &e);
			return;
		}
		if (strcmp(PQgetvalue(t->answer, i, 2), "0") != 0)
			add_part(t, i, &at);
		else
			add_until(t, i, &at);
	}
	sift_begun(t);
	target_work(t);
}

static void ask_parts(struct target *t)
{
	const char *values[] = { t->host.env.uid };
	target_ask(t, "SELECT schema_name, table_name, pg_catalog.substr(job_uid, pg_catalog.length($1::text) + 2), position, rows FROM dmsr.loads "
		"WHERE pg_catalog.starts_with(job_uid, $1::text || '/') ORDER BY 1, 2", 1, values, on_parts);
}

static void put_known(struct target *t, struct dmsr_loaded *l)
{
	struct buf key;
	buf_init(&key, 64 * 1024);
	relation_key(&key, l->schema, l->name);
	map_put(t->known, key.data, key.len, l);
	t->nknown++;
	buf_fini(&key);
}

static void on_loads(struct target *t)
{
	int n = PQntuples(t->answer);
	t->loaded = mem_zalloc(((size_t)n + 1) * sizeof *t->loaded);
	t->made = mem_zalloc((size_t)n + 1);
	t->forgotten = mem_zalloc((size_t)n + 1);
	t->until = mem_zalloc(((size_t)n + 1) * sizeof *t->until);
	t->moves = mem_zalloc((size_t)n + 1);
	t->begun = mem_zalloc(((size_t)n + 1) * sizeof *t->begun);
	t->begun_rows = mem_zalloc(((size_t)n + 1) * sizeof *t->begun_rows);
	for (int i = 0; i < n; i++) {
		struct dmsr_loaded *l = &t->loaded[i];
		struct err e = { 0 };
		bool is_begun = PQgetisnull(t->answer, i, 2);
		if (!is_begun && position_parse(PQgetvalue(t->answer, i, 2), &l->at, &e)) {
			err_prefix(&e, "dmsr.loads in %s", pgconn_describe(t->conn));
			target_fail(t, &e);
			return;
		}
		l->schema = mem_strdup(PQgetvalue(t->answer, i, 0));
		l->name = mem_strdup(PQgetvalue(t->answer, i, 1));
		put_known(t, l);
		t->made[i] = PQgetvalue(t->answer, i, 3)[0] == 't';
		t->nloaded += !is_begun;
		t->forgotten[i] = is_begun && !strcmp(PQgetvalue(t->answer, i, 4), LOAD_FORGOTTEN);
		if (is_begun && !t->forgotten[i])
			add_begun(t, (size_t)i, PQgetvalue(t->answer, i, 4));
	}
	ask_parts(t);
}

static void ask_known(struct target *t)
{
	const char *values[] = { t->host.env.uid };
	target_ask(t, "SELECT schema_name, table_name, position, made, rows FROM dmsr.loads WHERE job_uid = $1 "
		"AND (position IS NOT NULL OR rows < 0) ORDER BY position IS NULL, 1, 2", 1, values, on_loads);
}

/* A table that is followed without a load keeps its shape. */
static void ask_loads(struct target *t)
{
	const char *values[] = { t->host.env.uid };
	bool is_past = t->load_done || (!t->host.loads && !position_is_none(&t->saved)); /* the load that began anew; the stream alone may be read before it */
	if (!is_past)
		ask_known(t);
	else
		target_ask(t, "WITH gone AS (DELETE FROM dmsr.loads WHERE job_uid = $1 AND position IS NULL AND rows = " LOAD_FORGOTTEN " AND shape IS NULL) "
			"UPDATE dmsr.loads SET rows = 0 WHERE job_uid = $1 AND position IS NULL AND rows = " LOAD_FORGOTTEN " AND shape IS NOT NULL",
			1, values, ask_known);
}

/* ---- what strands have applied ---- */

enum lock { LOCK_JOB = 0x646d7372, LOCK_LANES };

static void lock_key(const struct target *t, enum lock lock, char out[24])
{
	snprintf(out, 24, "%lld", (long long)hash_stable(t->host.env.uid, strlen(t->host.env.uid), lock));
}

/* None of an earlier start is left, and none of ours may begin before it is told how its row is called. */
static void let_lanes(struct target *t)
{
	char key[24];
	const char *values[] = { key };
	lock_key(t, LOCK_LANES, key);
	target_ask(t, "SELECT pg_catalog.pg_advisory_unlock($1::bigint)", 1, values, ask_loads);
}

static void on_merge_committed(struct target *t)
{
	t->saved = t->ahead.low;
	let_lanes(t);
}

static void on_position_raised(struct target *t) { target_ask(t, "COMMIT", 0, NULL, on_merge_committed); }

static void on_rows_made(struct target *t)
{
	char text[POSITION_TEXT_MAX];
	const char *values[] = { t->host.env.uid, position_format(&t->ahead.low, text) };
	snprintf(t->epoch, sizeof t->epoch, "%s", PQgetvalue(t->answer, 0, 0));
	target_ask(t, "UPDATE dmsr.positions SET position = $2 WHERE job_uid = $1", 2, values, on_position_raised);
}

/* Row 0 has what is beyond the position, the others are the lanes'. */
static void make_rows(struct target *t)
{
	char text[POSITION_TEXT_MAX], lanes[12];
	struct buf all;
	buf_init(&all, 64 << 20);
	ahead_format(&t->ahead, &all);
	snprintf(lanes, sizeof lanes, "%u", t->strands);
	const char *values[] = { t->host.env.uid, t->host.env.job, buf_cstr(&all), position_format(&t->ahead.low, text), lanes };
	target_ask(t, "WITH made AS (INSERT INTO dmsr.positions (job_uid, job, position) "
		"SELECT $1::text || '/' || pg_catalog.txid_current() || '/' || n, $2::text, CASE n WHEN 0 THEN $3::text ELSE $4::text END "
		"FROM pg_catalog.generate_series(0, $5::integer) n RETURNING 1) SELECT pg_catalog.txid_current(), (SELECT pg_catalog.count(*) FROM made)",
		5, values, on_rows_made);
	buf_fini(&all);
}

static void on_rows_gone(struct target *t)
{
	struct err e = { 0 };
	for (int i = 0; i < PQntuples(t->answer); i++) {
		if (!ahead_merge(&t->ahead, PQgetvalue(t->answer, i, 0), &e))
			continue;
		err_prefix(&e, "dmsr.positions in %s", pgconn_describe(t->conn));
		target_fail(t, &e);
		return;
	}
	make_rows(t);
}

static void on_merge_begun(struct target *t)
{
	const char *values[] = { t->host.env.uid };
	target_ask(t, "DELETE FROM dmsr.positions WHERE pg_catalog.starts_with(job_uid, $1::text || '/') RETURNING position", 1, values, on_rows_gone);
}

static void on_position(struct target *t)
{
	struct err e = { 0 };
	if (position_parse(PQgetvalue(t->answer, 0, 0), &t->saved, &e)) {
		err_prefix(&e, "dmsr.positions in %s", pgconn_describe(t->conn));
		target_fail(t, &e);
		return;
	}
	t->load_done = is_true(t, 1);
	t->ahead.low = t->saved;
	if (t->strands || is_true(t, 2))
		target_ask(t, "BEGIN", 0, NULL, on_merge_begun);
	else
		let_lanes(t);
}

static void look(struct target *t);

/* Who deletes the last other job drops the schema, and saw nothing of us yet. */
static void on_position_tried(struct target *t)
{
	static const char *const gone[] = { "42P01", "3F000", "XX000" };
	for (size_t i = 0; !t->answer && i < sizeof gone / sizeof *gone; i++) {
		if (!strcmp(t->sqlstate, gone[i]) && t->make_tries++ < MAKE_TRIES) {
			look(t);
			return;
		}
	}
	if (t->answer)
		on_position(t);
	else
		target_fail(t, &t->answer_error);
}

static void ask_position(struct target *t)
{
	if (t->lane || t->strand) {
		if (t->lane)
			target_work(t);
		else
			ask_loads(t);
		return;
	}
	const char *values[] = { t->host.env.uid, t->host.env.job };
	target_try(t, position_sql, 2, values, on_position_tried);
}

/* ---- triggers and foreign keys of the target ---- */

/* Of a lane or a strand: who has the job's lock. NULL: it is to have that itself. */
static const struct target *first_of(const struct target *t) { return t->lane ? lane_instance(t) : t->strand ? t->strand->first : NULL; }

static void on_foreign_keys(struct target *t)
{
	struct buf fix;
	char *text;
	if (is_true(t, 0)) {
		buf_init(&fix, 4096);
		right_sql(&fix, pgconn_server_version(t->conn) >= 150000 ? RIGHT_SET_ROLE : RIGHT_SUPERUSER, t->settings, NULL, NULL);
		text = mem_printf("session_replication_role may not be set: foreign keys act while rows are loaded and changes applied, and a table that "
			"others refer to may not be loaded again; %s lets them rest", buf_cstr(&fix));
		t->host.notice(t->host.ctx, text);
		free(text);
		buf_fini(&fix);
	}
	ask_position(t);
}

static void on_role(struct target *t)
{
	t->is_replica = t->answer != NULL;
	if (!t->is_replica && !strcmp(t->replication_role, "on")) {
		struct err e = t->answer_error;
		err_prefix(&e, "session_replication_role");
		right_hint(&e, pgconn_server_version(t->conn) >= 150000 ? RIGHT_SET_ROLE : RIGHT_SUPERUSER, t->settings, NULL, NULL);
		target_fail(t, &e);
		return;
	}
	if (!t->is_replica)
		log_info("target", t->host.env.job, "%s: session_replication_role may not be set: triggers and foreign keys work while changes "
			"are applied", t->host.env.name);
	if (t->is_replica || first_of(t) || !t->host.notice)
		ask_position(t);
	else
		target_ask(t, "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f')", 0, NULL, on_foreign_keys);
}

static void ask_role(struct target *t)
{
	const struct target *first = first_of(t);
	if (!strcmp(t->replication_role, "off") || (first && !first->is_replica))
		ask_position(t);
	else
		target_try(t, "SET session_replication_role = replica", 0, NULL, on_role);
}

/* ---- the locks ---- */

static void on_lock(struct target *t);

static void ask_lock(struct target *t)
{
	char key[24];
	const char *values[] = { key };
	lock_key(t, t->has_lock ? LOCK_LANES : LOCK_JOB, key);
	target_ask(t, "SELECT pg_catalog.pg_try_advisory_lock($1::bigint)", 1, values, on_lock);
}

static void on_terminated(struct target *t)
{
	loop_timer_start(t->timer, LOCK_LOOK_MS);
}

static void in_use(struct target *t)
{
	struct err e = { 0 };
	err_retry(&e, DMSR_ESTATE, "target.in-use", "%s: another session writes for this job and does not end", pgconn_describe(t->conn));
	err_hint(&e, "see pg_stat_activity for application_name dmsr:%s:...; is a second dmsrd running with a copy of the state directory?",
		t->host.env.job);
	target_fail(t, &e);
}

static void got_lock(struct target *t)
{
	if (!t->has_lock) {
		t->has_lock = true;
		ask_lock(t);
		return;
	}
	ask_role(t);
}

static void on_lock(struct target *t)
{
	uint64_t waited_ms = (loop_now_us(t->loop) - t->lock_asked_us) / 1000;
	char key[24];
	const char *values[] = { key };
	if (is_true(t, 0)) {
		got_lock(t);
		return;
	}
	if (waited_ms > LOCK_GIVE_UP_MS) {
		in_use(t);
		return;
	}
	if (waited_ms > LOCK_TERMINATE_MS) {
		lock_key(t, t->has_lock ? LOCK_LANES : LOCK_JOB, key);
		target_try(t, terminate_sql, 1, values, on_terminated);
		return;
	}
	loop_timer_start(t->timer, LOCK_LOOK_MS);
}

/* ---- a lane's ---- */

static void on_instance(struct target *t)
{
	if (PQntuples(t->answer))
		ask_role(t);
	else
		in_use(t);
}

static void on_lane_lock(struct target *t)
{
	const struct target *first = first_of(t);
	char key[24];
	const char *values[] = { key, first ? first->pid : NULL };
	lock_key(t, LOCK_JOB, key);
	if (is_true(t, 0))
		target_ask(t, holder_sql, 2, values, on_instance);
	else
		in_use(t);
}

static void ask_lane_lock(struct target *t)
{
	char key[24];
	const char *values[] = { key };
	lock_key(t, LOCK_LANES, key);
	target_ask(t, "SELECT pg_catalog.pg_try_advisory_lock_shared($1::bigint)", 1, values, on_lane_lock);
}

void target_setup_again(struct target *t)
{
	if (!t->is_asking)
		ask_lock(t);
}

/* ---- dmsr.* ---- */

static void on_look(struct target *t);

static void look(struct target *t) { target_ask(t, look_sql, 0, NULL, on_look); }

/* Another daemon may make them at this moment: IF NOT EXISTS then ends in a duplicate key. Or the schema was dropped again, with another job. */
static void on_made(struct target *t, enum right right)
{
	static const char *const races[] = { "23505", "3F000", "42P06", "42P07", "42710", "XX000" };
	if (t->answer) {
		look(t);
		return;
	}
	for (size_t i = 0; i < sizeof races / sizeof *races; i++) {
		if (!strcmp(t->sqlstate, races[i]) && t->make_tries++ < MAKE_TRIES) {
			look(t);
			return;
		}
	}
	struct err e = t->answer_error;
	err_prefix(&e, "the schema dmsr, where positions are kept");
	right_hint(&e, right, t->settings, "dmsr", NULL);
	target_fail(t, &e);
}

static void on_schema_made(struct target *t) { on_made(t, RIGHT_DATABASE); }
static void on_tables_made(struct target *t) { on_made(t, RIGHT_SCHEMA); }

static void on_look(struct target *t)
{
	snprintf(t->pid, sizeof t->pid, "%s", PQgetvalue(t->answer, 0, LOOK_PID));
	if (is_true(t, LOOK_RECOVERY)) {
		struct err e = { 0 };
		err_retry(&e, DMSR_ESTATE, "target.read-only", "%s is a standby: it takes no writes", pgconn_describe(t->conn));
		err_hint(&e, "connect to the primary");
		target_fail(t, &e);
	} else if (!is_true(t, LOOK_HAS_SCHEMA)) { /* to make it needs a right, even if it is there */
		target_try(t, make_schema_sql, 0, NULL, on_schema_made);
	} else if (!is_true(t, LOOK_HAS_TABLES)) {
		target_try(t, make_sql, 0, NULL, on_tables_made);
	} else if (first_of(t)) {
		ask_lane_lock(t);
	} else if (t->has_lock) { /* the tables were gone again */
		ask_position(t);
	} else {
		t->lock_asked_us = loop_now_us(t->loop);
		ask_lock(t);
	}
}

void target_setup(struct target *t) { look(t); }
