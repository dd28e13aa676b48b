/* parts: rows into the files being written. In: changes in their order. Out: bytes to the disk in pieces, and closed parts that wait to be published.
 *
 * Changes of a table go to one part, the rows of its load to others: those are published all at once, when the load of the table has ended. Loads of several
 * tables may be open. What the journal has already, what is in the loaded rows of a table, and what is of a load that is not open, is passed over. */
#include "file_int.h"
#include <stdlib.h>

enum { PIECE_BYTES = 256 * 1024, BUFFERED_BYTES_MAX = 16 << 20, LINE_BYTES_MAX = INT32_MAX };

/* ---- tables ---- */

static struct table *table_new(struct target *t, const char *schema, const char *name)
{
	struct table *tb = mem_zalloc(sizeof *tb);
	const struct journal_load *l = journal_find_load(&t->journal, schema, name);

	tb->schema = mem_strdup(schema);
	tb->name = mem_strdup(name);
	tb->dir = names_directory(schema, name);
	tb->loaded_lsn = l ? l->at.lsn : 0;
	parts_list_init(&tb->load.closed);
	tb->next = t->tables;
	return t->tables = tb;
}

/* rel NULL: of messages */
static struct table *find_table(struct target *t, const struct relation *rel)
{
	const char *schema = rel ? rel->schema : "", *name = rel ? rel->name : "";

	if (rel && rel == t->last_rel)
		return t->last_table;
	struct buf key;
	buf_init(&key, SIZE_MAX);
	relation_key(&key, schema, name);
	struct table *tb = map_get(t->by_name, key.data, key.len);
	if (!tb) {
		tb = table_new(t, schema, name);
		map_put(t->by_name, key.data, key.len, tb);
	}
	buf_fini(&key);
	/* Of the batch at hand; forgotten when that is given back. */
	t->last_rel = rel;
	t->last_table = tb;
	return tb;
}

static void count(struct table *tb, enum change_op op)
{
	tb->has_counts = true;
	switch (op) {
	case OP_CREATE: case OP_READ:
		tb->counts.created++;
		break;
	case OP_UPDATE:
		tb->counts.updated++;
		break;
	case OP_DELETE:
		tb->counts.deleted++;
		break;
	case OP_TRUNCATE:
		tb->counts.truncated++;
		break;
	default:
		tb->has_counts = *tb->schema || *tb->name; /* messages are of no table */
	}
}

/* ---- parts ---- */

void parts_list_init(struct parts *l) { *l = (struct parts){ NULL, &l->first }; }

static void list_add(struct parts *l, struct part *p)
{
	p->next = NULL;
	*l->last = p;
	l->last = &p->next;
}

static struct part *part_new(struct target *t, struct table *tb)
{
	struct part *p = mem_zalloc(sizeof *p);

	p->table = tb;
	p->number = ++t->numbers;
	buf_init(&p->buf, LINE_BYTES_MAX);
	return p;
}

static void part_free(struct part *p)
{
	if (!p)
		return;
	buf_fini(&p->buf);
	free(p);
}

/* Its bytes go to the disk. */
static void flush_part(struct target *t, struct part *p)
{
	if (!p->buf.len)
		return;
	t->buffered_bytes -= p->buf.len;
	publish_post_write(t, p->number, p->written == 0, &p->buf);
	p->written = p->bytes;
}

static void close_part(struct target *t, struct part *p, struct parts *to)
{
	flush_part(t, p);
	list_add(to, p);
}

static void flush_open(struct target *t)
{
	for (struct table *tb = t->tables; tb; tb = tb->next) {
		if (tb->changes)
			flush_part(t, tb->changes);
		if (tb->load.part)
			flush_part(t, tb->load.part);
	}
	if (t->single)
		flush_part(t, t->single);
}

static int put_line(struct target *t, struct part *p, const struct dmsr_record *r)
{
	bool ends = r->value_len && r->value[r->value_len - 1] == '\n';

	buf_append(&p->buf, r->value, r->value_len);
	if (!ends)
		buf_byte(&p->buf, '\n');
	p->bytes += r->value_len + !ends;
	t->buffered_bytes += r->value_len + !ends;
	return buf_ok(&p->buf) ? 0 : -1;
}

static int too_long(const struct part *p, struct err *e)
{
	err_set(e, DMSR_EDATA, "target.too-long", "%s.%s: a line would have more than 2 GiB", p->table->schema, p->table->name);
	return err_hint(e, "make the row smaller at the source, or leave that table out of the job");
}

static int encode(struct target *t, const struct change *ch, struct part *p, struct err *e)
{
	struct dmsr_record records[DMSR_RECORDS_MAX];
	int n = t->codec->encode(t->encoder, ch, records, DMSR_RECORDS_MAX, e);

	for (int i = 0; i < n; i++)
		if (records[i].value && put_line(t, p, &records[i]))
			return too_long(p, e);
	if (p->buf.len >= PIECE_BYTES)
		flush_part(t, p);
	if (t->buffered_bytes >= BUFFERED_BYTES_MAX)
		flush_open(t);
	return n < 0 ? n : 0;
}

/* A new file begins with its head, if its format has one. */
static int put_head(struct target *t, const struct change *of, struct part *p, struct err *e)
{
	const struct change word = { .op = OP_SCHEMA, .rel = of->rel, .txn = of->txn };

	p->fingerprint = of->rel ? of->rel->fingerprint : 0;
	int rc = of->rel && t->has_head ? encode(t, &word, p, e) : 0;
	p->head = p->bytes;
	return rc;
}

/* May the row go into p? Not behind the head of another version of the table. */
static bool fits(const struct target *t, const struct part *p, const struct change *ch)
{
	return p->bytes < t->roll_bytes && (!t->has_head || !ch->rel || p->fingerprint == ch->rel->fingerprint);
}

/* ---- changes ---- */

static struct part **changes_of(struct target *t, struct table *tb) { return t->is_single ? &t->single : &tb->changes; }

/* The next part, in place of the one that is full or has another head, if there is one. */
static struct part *next_changes(struct target *t, struct table *tb)
{
	struct part **at = changes_of(t, tb);

	if (*at) {
		t->is_roll_due |= (*at)->bytes >= t->roll_bytes;
		close_part(t, *at, &t->closed);
	} else if (!t->is_single) {
		tb->next_open = t->open;
		t->open = tb;
	}
	return *at = part_new(t, tb);
}

static int put_change(struct target *t, struct table *tb, const struct change *ch, struct err *e)
{
	struct part *p = *changes_of(t, tb);
	uint64_t lsn = ch->txn ? ch->txn->lsn : ch->u.message.lsn;
	int rc;

	if (!p || !fits(t, p, ch)) {
		p = next_changes(t, tb);
		if ((rc = put_head(t, ch, p, e)))
			return rc;
	}
	if (!p->span.last_lsn) {
		p->span.first_lsn = lsn;
		p->span.first_event = ch->event;
	}
	p->span.last_lsn = lsn;
	p->span.last_event = ch->event;
	return encode(t, ch, p, e);
}

void parts_close_changes(struct target *t)
{
	for (struct table *tb; (tb = t->open);) {
		t->open = tb->next_open;
		close_part(t, tb->changes, &t->closed);
		tb->changes = NULL;
	}
	if (t->single)
		close_part(t, t->single, &t->closed);
	t->single = NULL;
	t->is_roll_due = false;
}

/* ---- stdout ---- */

static int print(struct target *t, const struct change *ch, struct err *e)
{
	struct part p = { .table = t->last_table, .buf = t->lines };
	int rc = 0;

	/* The head of another table, where the format has one. */
	if (t->has_head && ch->rel && ch->rel->fingerprint != t->printed_fingerprint) {
		t->printed_fingerprint = ch->rel->fingerprint;
		const struct change word = { .op = OP_SCHEMA, .rel = ch->rel, .txn = ch->txn };
		struct dmsr_record records[DMSR_RECORDS_MAX];
		int n = t->codec->encode(t->encoder, &word, records, DMSR_RECORDS_MAX, e);
		for (int i = 0; i < n; i++)
			put_line(t, &p, &records[i]);
	}
	struct dmsr_record records[DMSR_RECORDS_MAX];
	int n = t->codec->encode(t->encoder, ch, records, DMSR_RECORDS_MAX, e);
	for (int i = 0; i < n && !rc; i++)
		if (records[i].value && put_line(t, &p, &records[i]))
			rc = too_long(&p, e);
	t->lines = p.buf;
	if (t->lines.len >= PIECE_BYTES)
		parts_flush(t);
	return n < 0 ? n : rc;
}

void parts_flush(struct target *t)
{
	if (!t->lines.len)
		return;
	t->buffered_bytes -= t->lines.len;
	publish_post_print(t, &t->lines);
}

/* ---- rows of the stream ---- */

static bool is_known(const struct target *t, const struct table *tb, const struct change *ch)
{
	return ch->txn && (position_covers(&t->journal.at, ch->txn->lsn, ch->event) || ch->txn->lsn < tb->loaded_lsn);
}

int parts_put(struct target *t, const struct change *ch, struct err *e)
{
	struct table *tb = find_table(t, ch->rel);

	if (!t->is_stdout && is_known(t, tb, ch))
		return 0;
	count(tb, (enum change_op)ch->op);
	return t->is_stdout ? print(t, ch, e) : put_change(t, tb, ch, e);
}

/* ---- the load ---- */

static void drop_load(struct target *t, struct table *tb)
{
	struct part *p;

	if (tb->load.part)
		list_add(&tb->load.closed, tb->load.part);
	tb->load.part = NULL;
	while ((p = tb->load.closed.first)) {
		tb->load.closed.first = p->next;
		t->buffered_bytes -= p->buf.len;
		if (p->written)
			publish_post_discard(t, p->number);
		part_free(p);
	}
	parts_list_init(&tb->load.closed);
	tb->load.parts = 0;
	tb->load.rows = 0;
}

static uint64_t snapshot_of(const struct change *ch) { return ch->txn ? ch->txn->lsn : 0; }

void parts_void_loads(struct target *t, const struct change *but_of)
{
	for (struct table *tb = t->open_loads ? t->tables : NULL; tb; tb = tb->next) {
		if (!tb->load.is_open || (but_of && tb->load.lsn == snapshot_of(but_of)))
			continue;
		drop_load(t, tb);
		tb->load.is_open = false;
		t->open_loads--;
	}
}

int parts_load_begin(struct target *t, const struct batch *b, const struct change *ch, struct err *e)
{
	struct table *tb = find_table(t, ch->rel);
	const struct journal_load *l = journal_find_load(&t->journal, tb->schema, tb->name);

	/* This target came late to a stream whose job had none but such as can. */
	if (ch->u.load.since) {
		err_set(e, DMSR_EINVAL, "target.load-goes-on", "the load of %s.%s was cut off and goes on in the stream: files cannot take back the rows "
			"of the part that was cut", tb->schema, tb->name);
		err_hint(e, "begin the job anew, behind what its topics hold: stop it, DELETE /jobs/%s/positions, start it", t->host.env.job);
		return e->code;
	}
	parts_void_loads(t, ch);
	drop_load(t, tb); /* begun, and cut off: this is its fresh start */
	t->open_loads += !tb->load.is_open;
	tb->load.is_open = true;
	tb->load.lsn = snapshot_of(ch);
	tb->load.server = b->end.server;
	tb->load.since = t->cur->seq;
	tb->load.is_skipped = !t->is_stdout && l && l->at.lsn == tb->load.lsn;
	return 0;
}

static int put_loaded(struct target *t, struct table *tb, const struct change *ch, struct err *e)
{
	int rc;

	if (t->is_stdout)
		return print(t, ch, e);
	if (tb->load.part && !fits(t, tb->load.part, ch)) {
		close_part(t, tb->load.part, &tb->load.closed);
		tb->load.part = NULL;
	}
	if (!tb->load.part) {
		tb->load.part = part_new(t, tb);
		tb->load.part->load_part = ++tb->load.parts;
		tb->load.part->load_lsn = tb->load.lsn;
		if ((rc = put_head(t, ch, tb->load.part, e)))
			return rc;
	}
	return encode(t, ch, tb->load.part, e);
}

struct load_row {
	struct target *t;
	struct table *tb;
	struct err *e;
};

static int put_load_row(void *arg, const struct change *row)
{
	const struct load_row *r = arg;

	r->tb->load.rows++;
	return put_loaded(r->t, r->tb, row, r->e);
}

static bool is_of_load(const struct table *tb, const struct change *ch) { return tb->load.is_open && tb->load.lsn == snapshot_of(ch); }

int parts_put_loaded(struct target *t, const struct change *ch, struct err *e)
{
	struct load_row r = { t, find_table(t, ch->rel), e };

	if (!is_of_load(r.tb, ch) || r.tb->load.is_skipped)
		return 0;
	return ch->op == OP_ROWS ? change_each_row(ch, put_load_row, &r, e) : put_load_row(&r, ch);
}

/* A table that is empty is told as one that was emptied: there may be rows in files of a load before, which the journal need not know of. */
static int put_no_rows(struct target *t, struct table *tb, const struct change *end, struct err *e)
{
	const struct change word = { .op = OP_TRUNCATE, .rel = end->rel, .txn = end->txn };

	return put_loaded(t, tb, &word, e);
}

int parts_load_end(struct target *t, const struct change *ch, struct err *e)
{
	struct table *tb = find_table(t, ch->rel);
	const struct position at = { .kind = POSITION_LSN, .server = tb->load.server, .lsn = tb->load.lsn };
	struct part *p;
	int rc;

	if (!is_of_load(tb, ch))
		return 0;
	if (!tb->load.rows && !tb->load.is_skipped && (rc = put_no_rows(t, tb, ch, e)))
		return rc;
	t->has_new_loads = true;
	tb->load.is_open = false;
	t->open_loads--;
	tb->counts.loaded += tb->load.rows;
	tb->has_counts |= tb->load.rows > 0;
	tb->load.rows = 0;
	if (tb->load.is_skipped || t->is_stdout)
		return 0;
	if (tb->load.part)
		close_part(t, tb->load.part, &tb->load.closed);
	tb->load.part = NULL;
	while ((p = tb->load.closed.first)) {
		tb->load.closed.first = p->next;
		list_add(&t->closed, p);
	}
	parts_list_init(&tb->load.closed);
	tb->load.parts = 0;
	tb->loaded_lsn = tb->load.lsn;
	journal_add_load(&t->fresh, tb->schema, tb->name, &at);
	return 0;
}

/* ---- the end ---- */

static void free_list(struct part *p)
{
	while (p) {
		struct part *next = p->next;
		part_free(p);
		p = next;
	}
}

void parts_fini(struct target *t)
{
	while (t->tables) {
		struct table *tb = t->tables;
		t->tables = tb->next;
		part_free(tb->changes);
		part_free(tb->load.part);
		free_list(tb->load.closed.first);
		free(tb->schema);
		free(tb->name);
		free(tb->dir);
		free(tb);
	}
	part_free(t->single);
	free_list(t->closed.first);
	map_free(t->by_name);
	buf_fini(&t->lines);
}
