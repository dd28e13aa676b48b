/* errors: what PostgreSQL and libpq say -> err. In comes a result with an SQLSTATE, or libpq's text when there is none; out goes a stable id, whether a
 * later attempt may succeed by itself, and a sentence. Ids begin with the connection's role. Passwords are in none of these texts; the detail of a data error
 * holds a row's values and is left out, since errors are logged. */
#include "conn_int.h"
#include <stdio.h>
#include <string.h>

struct class
{
	const char *state; /* the first 2 or all 5 characters of an SQLSTATE */
	int code; /* enum dmsr_error */
	bool retriable;
	const char *id;         /* behind "<role>." */
};

/* The first that fits counts: single states before their class. */
static const struct class classes[] = {
	{ "08", DMSR_EIO, true, "unreachable" },
	{ "57P01", DMSR_EIO, true, "unreachable" },     /* admin_shutdown */
	{ "57P02", DMSR_EIO, true, "unreachable" },     /* crash_shutdown */
	{ "57P03", DMSR_EIO, true, "unreachable" },     /* cannot_connect_now */
	{ "57P05", DMSR_EIO, true, "unreachable" },     /* idle_session_timeout */
	{ "57014", DMSR_EIO, true, "cancelled" },
	{ "53300", DMSR_EIO, true, "busy" },            /* too_many_connections */
	{ "53100", DMSR_EIO, true, "disk-full" },
	{ "53200", DMSR_EIO, true, "busy" },            /* out_of_memory */
	{ "53", DMSR_EFULL, false, "limit" },           /* 53400: slots, senders */
	{ "55006", DMSR_ESTATE, true, "in-use" },
	{ "55P03", DMSR_ESTATE, true, "locked" },
	{ "55", DMSR_ESTATE, false, "state" },
	{ "40", DMSR_EIO, true, "conflict" },           /* serialization, deadlock */
	{ "25006", DMSR_ESTATE, false, "read-only" },
	{ "25P03", DMSR_EIO, true, "unreachable" },     /* idle_in_transaction_session_timeout */
	{ "28", DMSR_EAUTH, false, "auth" },
	{ "42501", DMSR_EAUTH, false, "privilege" },
	{ "3D", DMSR_ENOTFOUND, false, "database" },
	{ "23", DMSR_EDATA, false, "constraint" },
	{ "22", DMSR_EDATA, false, "data" },
	{ "42804", DMSR_EDATA, false, "data" },         /* datatype_mismatch */
	{ "42P01", DMSR_ENOTFOUND, false, "undefined" },
	{ "42703", DMSR_ENOTFOUND, false, "undefined" },
	{ "42704", DMSR_ENOTFOUND, false, "undefined" },
	{ "42883", DMSR_ENOTFOUND, false, "undefined" },
	{ "3F", DMSR_ENOTFOUND, false, "undefined" },
	{ "42P06", DMSR_EEXIST, false, "exists" },
	{ "42P07", DMSR_EEXIST, false, "exists" },
	{ "42701", DMSR_EEXIST, false, "exists" },
	{ "42710", DMSR_EEXIST, false, "exists" },
	{ "54", DMSR_EFULL, false, "limit" },
	{ "58030", DMSR_EIO, true, "io" },
	{ "58P01", DMSR_EFATAL, false, "missing-file" },
	{ "0A", DMSR_EINVAL, false, "unsupported" },
	{ "XX", DMSR_EFATAL, false, "internal" },
	{ "", DMSR_EINVAL, false, "sql" },
};

static const struct class *classify(const char *state)
{
	const struct class *k = classes;
	while (strncmp(k->state, state, strlen(k->state)) != 0)
		k++;
	return k;
}

static void set(struct err *e, const struct pgconn *c, const struct class *k, const char *text)
{
	char id[sizeof e->id];
	snprintf(id, sizeof id, "%s.%s", c->role, k->id);
	if (k->retriable)
		err_retry(e, k->code, id, "%s: %s", c->description, text);
	else
		err_set(e, k->code, id, "%s: %s", c->description, text);
}

/* What to do, where the server does not say it; the first that fits counts. */
static const struct { const char *id, *text; } hints[] = {
	{ "tls", "check sslmode and sslrootcert, and that host is the name in the server's certificate" },
	{ "unreachable", "is the server up, and reachable from here?" },
	{ "busy", "the server has no room for more connections or memory now: free some, or raise its limits" },
	{ "disk-full", "free space on the server's disk" },
	{ "io", "see the server's disk, and its log" },
	{ "cancelled", "who cancels the job's statements? It is tried again" },
	{ "locked", "see in pg_locks and pg_stat_activity which session holds the lock for so long, and end it" },
	{ "in-use", "see in pg_stat_activity which session uses it, and end it" },
	{ "conflict", "another session is at the same rows or tables; it is tried again" },
	{ "state", "bring what is named into the state that is asked for, then start the job again" },
	{ "limit", "raise the server's limit that is named, or use less of it" },
	{ "privilege", "grant the role what is named, or use a role that has it" },
	{ "row-security", "give the role BYPASSRLS, or use one that has it" },
	{ "read-only", "a standby takes no writes: connect to its primary; at a primary default_transaction_read_only is on for role, database or server" },
	{ "database", "create the database, or mend the option database" },
	{ "source.constraint", "see which constraint or trigger of the source's own refuses what the job makes there" },
	{ "source.data", "mend at the source the value that its server cannot read or send, or leave its table out of the job" },
	{ "constraint",
		"mend the row at the source or the constraint at the target, and start the job; or set on_constraint_error to dead-letter" },
	{ "data", "make the target's column take what the source sends, and start the job; or set on_data_error to dead-letter" },
	{ "undefined", "create what is named, or mend what names it, then start the job again" },
	{ "exists", "something of that name is there already: drop or rename it, then start the job again" },
	{ "unsupported", "this server cannot do that: see its version and the job's options" },
	{ "missing-file", "the server lost a file: see its log" },
	{ "internal", "the server found itself damaged or met a bug of its own: see its log" },
	{ "sql", "see the server's log" },
};

/* A row that is too long: for a page, an index, or the words that are found in it. Also a server that is out of transaction ids says 54000, and nobody's row is
 * to blame for that: it is known by what says it, since the texts are translated. */
static const struct class long_row = { "", DMSR_EDATA, false, "limit" };

static bool is_long_row(const char *state, const PGresult *res)
{
	static const char *const says[] = { "RelationGetBufferForTuple", "index_form_tuple", "_bt_", "_hash_", "brin_", "Gin", "gist", "spg", "tsvectorin",
		"make_tsvector" };
	const char *where = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);
	if (strcmp(state, "54000") != 0 || !where)
		return false;
	for (size_t i = 0; i < sizeof says / sizeof *says; i++)
		if (!strncmp(where, says[i], strlen(says[i])))
			return true;
	return false;
}

static void hint_for(struct err *e, const struct class *k, const char *state)
{
	if (!strcmp(k->id, "auth")) {
		err_hint(e, "check user and password, and the server's pg_hba.conf%s",
			state && !strncmp(state, "28000", 5) ?
				" (it needs a line for this user, database and address; replication connections match the database's own name)" : "");
		return;
	}
	if (k == &long_row) {
		err_hint(e, "mend the row at the source, or what does not take it at the target, and start the job; or set on_data_error to dead-letter");
		return;
	}
	for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
		if (!strcmp(k->id, hints[i].id) || !strcmp(e->id, hints[i].id)) {
			err_hint(e, "%s", hints[i].text);
			return;
		}
}

static void add_field(struct buf *b, const PGresult *res, int field, const char *before, const char *after)
{
	const char *v = PQresultErrorField(res, field);
	if (v && v[0])
		buf_printf(b, "%s%s%s", before, v, after);
}

/* With row_security off, a policy that may hide rows is an error under the SQLSTATE of a missing privilege; its text is translated. */
static const struct class row_security = { "", DMSR_EAUTH, false, "row-security" };

static bool is_row_security(const char *state, const PGresult *res)
{
	const char *where = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);
	return !strcmp(state, "42501") && where && !strcmp(where, "check_enable_rls");
}

int pgerr_from_result(struct err *e, const struct pgconn *c, const PGresult *res)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	if (!state)
		return pgerr_from_conn(e, c, "waiting for an answer");
	const struct class *k = is_row_security(state, res) ? &row_security : is_long_row(state, res) ? &long_row : classify(state);
	struct buf text;
	buf_init(&text, sizeof e->message);
	add_field(&text, res, PG_DIAG_MESSAGE_PRIMARY, "", "");
	if (k->code != DMSR_EDATA)
		add_field(&text, res, PG_DIAG_MESSAGE_DETAIL, "; ", "");
	buf_printf(&text, " [%s", state);
	add_field(&text, res, PG_DIAG_SCHEMA_NAME, ", schema ", "");
	add_field(&text, res, PG_DIAG_TABLE_NAME, ", table ", "");
	add_field(&text, res, PG_DIAG_COLUMN_NAME, ", column ", "");
	add_field(&text, res, PG_DIAG_CONSTRAINT_NAME, ", constraint ", "");
	buf_byte(&text, ']');
	/* A text too long for the buffer: the primary message alone, cut by err. */
	set(e, c, k, buf_ok(&text) ? buf_cstr(&text) : PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
	buf_fini(&text);
	const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
	if (!strcmp(state, "2BP01")) /* the server would have it dropped as well */
		err_hint(e, "set the target's prepare to truncate, which keeps what depends on it; or drop that by hand, and start the job again");
	else if (hint)
		err_hint(e, "%s", hint);
	else
		hint_for(e, k, state);
	return e->code;
}

/* "...failed: FATAL:  28P01: password authentication failed\nLOCATION: ..." (PQERRORS_VERBOSE): where the SQLSTATE begins, or NULL. */
static const char *find_state(const char *text)
{
	for (const char *s = strstr(text, ":  "); s; s = strstr(s + 1, ":  ")) {
		const char *at = s + 3;
		if (strspn(at, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && at[5] == ':')
			return at;
	}
	return NULL;
}

static bool is_about_tls(const char *text)
{
	static const char *const signs[] = { "certificate verify failed", "does not match host name", "root certificate file", "certificate file",
		"private key file", "does not support SSL", "could not read root certificate", "could not load root certificate" };
	for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
		if (strstr(text, signs[i]))
			return true;
	return false;
}

/* libpq's own refusals, which no retry mends. */
static bool is_about_auth(const char *text)
{
	return strstr(text, "no password supplied") || strstr(text, "authentication method") || strstr(text, "SCRAM");
}

/* Without what is said already: `connection to server at "name" (address), port 5432 failed: ` as the description does, and behind the reason a question
 * that is our hint's. */
static const char *reason_of(const char *said, size_t *n)
{
	static const char to[] = "connection to server ", failed[] = " failed: ";
	const char *behind = !strncmp(said, to, sizeof to - 1) ? strstr(said, failed) : NULL;
	if (behind)
		said = behind + sizeof failed - 1;
	const char *end = strstr(said, "\nLOCATION:"), *question = strstr(said, "\n\tIs the server running");
	end = end ? end : said + strlen(said);
	end = question && question < end ? question : end;
	while (end > said && (end[-1] == '\n' || end[-1] == ' '))
		end--;
	*n = (size_t)(end - said);
	return said;
}

int pgerr_from_conn(struct err *e, const struct pgconn *c, const char *doing)
{
	static const struct class tls = { "", DMSR_EAUTH, false, "tls" }, auth = { "", DMSR_EAUTH, false, "auth" },
		lost = { "", DMSR_EIO, true, "unreachable" };
	const char *said = c->pg ? PQerrorMessage(c->pg) : "out of memory";
	const char *state = find_state(said);
	const struct class *k = state ? classify(state) : is_about_tls(said) ? &tls : is_about_auth(said) ? &auth : &lost;
	char text[sizeof e->message];
	size_t n;
	const char *reason = reason_of(said, &n);
	snprintf(text, sizeof text, "%s: %.*s", doing, (int)n, reason);
	if (!n)
		snprintf(text, sizeof text, "%s: the connection was closed", doing);
	set(e, c, k, text);
	hint_for(e, k, state);
	return e->code;
}
