/* publish: what the loop asks of the disk, and when. A job that is under way owns all that it needs, so that the instance may be closed at any time.
 *
 * Parts are published together, between two transactions: all tables at once, so that what is there is always the state behind a whole transaction. That is
 * due when a file is full, when something has waited for roll_interval, when nothing came for a moment, when a load has ended, or when somebody waits. */
#include "file_int.h"
#include <stdlib.h>

enum { IDLE_US = 2000000, WORDS_ONLY_US = 1000000, JOURNAL_ANEW_BYTES = 4 << 20 };

/* ---- jobs: everything about one call of the disk ---- */

struct call {
	struct target *t;               /* used by done alone, which is never called for a target that was closed */
	struct disk *disk;
	struct worker *worker;
	struct err error;
	int rc;
	/* write, print, discard */
	uint64_t part;
	bool is_new;
	struct buf bytes;
	/* open */
	struct journal journal;
	bool busy;
};

/* What is being published. */
struct publish {
	struct call call;               /* bytes: the group */
	struct journal_rename *renames;
	size_t n;
	bool anew, is_done;
	uint64_t seq;                   /* items up to this one are applied with it */
	struct dmsr_table_counts *counts;
	size_t ncounts;
};

static struct call *call_new(struct target *t, size_t size)
{
	struct call *c = mem_zalloc(size);

	c->t = t;
	c->disk = t->disk;
	c->worker = t->worker;
	return c;
}

static void call_free(void *arg)
{
	struct call *c = arg;

	journal_fini(&c->journal);
	buf_fini(&c->bytes);
	free(c);
}

static void post(struct target *t, struct call *c, void (*run)(void *arg), void (*done)(void *arg))
{
	worker_post(t->worker, &(struct worker_job){ run, done, call_free, c });
}

static void take_bytes(struct call *c, struct buf *bytes)
{
	c->bytes = *bytes;
	buf_init(bytes, bytes->max);
	c->t->writing_bytes += c->bytes.len;
}

static void on_written(void *arg)
{
	struct call *c = arg;
	struct target *t = c->t;

	t->writing_bytes -= c->bytes.len;
	if (c->rc)
		file_fail(t, &c->error);
	file_wake(t);
	call_free(c);
}

static void run_write(void *arg)
{
	struct call *c = arg;
	c->rc = disk_write(c->disk, c->part, c->is_new, c->bytes.data, c->bytes.len, &c->error);
}

void publish_post_write(struct target *t, uint64_t part, bool is_new, struct buf *bytes)
{
	struct call *c = call_new(t, sizeof *c);

	c->part = part;
	c->is_new = is_new;
	take_bytes(c, bytes);
	post(t, c, run_write, on_written);
}

static void run_discard(void *arg)
{
	struct call *c = arg;
	disk_discard(c->disk, c->part);
}

void publish_post_discard(struct target *t, uint64_t part)
{
	struct call *c = call_new(t, sizeof *c);

	c->part = part;
	post(t, c, run_discard, on_written);
}

static void run_print(void *arg)
{
	struct call *c = arg;
	c->rc = disk_print(c->disk, c->worker, c->bytes.data, c->bytes.len, &c->error);
}

/* part is the item: all up to it is printed then. */
static void on_printed(void *arg)
{
	struct call *c = arg;
	struct target *t = c->t;

	t->printed_seq = c->rc ? t->printed_seq : c->part;
	on_written(c);
}

void publish_post_print(struct target *t, struct buf *bytes)
{
	struct call *c = call_new(t, sizeof *c);

	c->part = t->read_seq;
	take_bytes(c, bytes);
	post(t, c, run_print, on_printed);
}

static void run_open(void *arg)
{
	struct call *c = arg;
	c->rc = disk_open(c->disk, &c->journal, &c->busy, &c->error);
}

static void on_opened(void *arg)
{
	struct call *c = arg;
	struct target *t = c->t;

	if (c->rc)
		journal_fini(&c->journal);
	file_opened(t, &c->journal, c->busy, c->rc, &c->error);
	call_free(c);
}

void publish_post_open(struct target *t)
{
	struct call *c = call_new(t, sizeof *c);
	post(t, c, run_open, on_opened);
}

/* ---- publishing ---- */

void publish_free(void *publish)
{
	struct publish *p = publish;

	for (size_t i = 0; i < p->n; i++)
		free(p->renames[i].path);
	free(p->renames);
	free(p->counts);
	call_free(p);
}

static void run_publish(void *arg)
{
	struct publish *p = arg;
	p->call.rc = disk_publish(p->call.disk, p->renames, p->n, p->call.bytes.data, p->call.bytes.len, p->anew, &p->call.error);
}

/* The host is told from the task, where it may close us. */
static void on_published(void *arg)
{
	struct publish *p = arg;

	p->is_done = true;
	file_wake(p->call.t);
}

bool publish_is_done(const struct publish *p) { return p->is_done; }

void publish_apply(struct target *t, const struct publish *p)
{
	if (p->call.rc)
		file_fail(t, &p->call.error);
	else
		file_applied(t, p->seq, p->counts, p->ncounts);
}

uint64_t publish_covered_seq(const struct target *t)
{
	uint64_t seq = t->read_seq;

	if (t->tx_since && t->tx_since - 1 < seq)
		seq = t->tx_since - 1;
	for (const struct table *tb = t->open_loads ? t->tables : NULL; tb; tb = tb->next)
		if (tb->load.is_open && tb->load.since - 1 < seq)
			seq = tb->load.since - 1;
	return seq;
}

static char *path_of(const struct target *t, const struct part *p)
{
	const char *dir = p->table->dir;
	char *file = p->load_part ? names_load(p->load_lsn, p->load_part, t->is_single ? dir : NULL, t->ext) : names_changes(&p->span, t->ext);
	char *path = t->is_single ? mem_strdup(file) : mem_printf("%s/%s", dir, file);

	free(file);
	return path;
}

/* The closed parts become renames; those with nothing but their head are thrown away. */
static void take_parts(struct target *t, struct publish *p)
{
	struct part *part;
	size_t cap = 0;

	while ((part = t->closed.first)) {
		t->closed.first = part->next;
		if (part->bytes > part->head) {
			if (p->n == cap) {
				cap = cap ? 2 * cap : 16;
				p->renames = mem_realloc_array(p->renames, cap, sizeof *p->renames);
			}
			p->renames[p->n++] = (struct journal_rename){ part->number, path_of(t, part), part->bytes };
		} else if (part->written) {
			publish_post_discard(t, part->number);
		}
		buf_fini(&part->buf);
		free(part);
	}
	parts_list_init(&t->closed);
}

size_t publish_take_counts(struct target *t, struct dmsr_table_counts **out)
{
	size_t n = 0;

	for (const struct table *tb = t->tables; tb; tb = tb->next)
		n += tb->has_counts;
	struct dmsr_table_counts *c = *out = mem_alloc((n + 1) * sizeof *c);
	for (struct table *tb = t->tables; tb; tb = tb->next) {
		if (!tb->has_counts)
			continue;
		*c = tb->counts;
		c->schema = tb->schema;
		c++->name = tb->name;
		tb->counts = (struct dmsr_table_counts){ 0 };
		tb->has_counts = false;
	}
	return n;
}

/* The group, and the journal as it is with it. */
static void write_group(struct target *t, struct publish *p)
{
	struct journal *now = &t->journal, *fresh = &t->fresh;

	if (position_compare(&t->reached, &now->at) >= 0 || position_is_none(&now->at))
		now->at = t->reached;
	for (size_t i = 0; i < fresh->nloads; i++)
		journal_add_load(now, fresh->loads[i].schema, fresh->loads[i].name, &fresh->loads[i].at);
	now->load_done |= fresh->load_done;
	p->anew = t->journal_bytes > JOURNAL_ANEW_BYTES;
	struct journal group = p->anew ? *now : *fresh;
	group.at = now->at;
	group.renames = p->renames;
	group.nrenames = p->n;
	buf_init(&p->call.bytes, SIZE_MAX);
	journal_put(&p->call.bytes, &group, p->anew);
	t->journal_bytes = p->anew ? 0 : t->journal_bytes + p->call.bytes.len;
	journal_fini(fresh);
}

static bool moves(const struct target *t)
{
	return !position_is_none(&t->reached) && (position_is_none(&t->journal.at) || position_compare(&t->reached, &t->journal.at) > 0);
}

bool publish_has_work(const struct target *t)
{
	return t->open || t->single || t->closed.first || t->fresh.nloads || t->fresh.load_done || moves(t);
}

void publish_start(struct target *t)
{
	struct publish *p = (struct publish *)call_new(t, sizeof *p);

	parts_close_changes(t);
	p->seq = publish_covered_seq(t);
	take_parts(t, p);
	/* They go with a token; there is none while what is published stands behind a load that is open. */
	if (t->head && t->head->seq <= p->seq)
		p->ncounts = publish_take_counts(t, &p->counts);
	t->published = t->journal.at;
	write_group(t, p);
	t->has_new_loads = false;
	if (p->seq >= t->urgent_seq)
		t->urgent_seq = 0;
	t->dirty_since_us = 0;
	t->publishing = p;
	worker_post(t->worker, &(struct worker_job){ run_publish, on_published, publish_free, p });
}

/* ---- when ---- */

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The time when it is due by itself; UINT64_MAX: never. */
static uint64_t due_at(const struct target *t)
{
	uint64_t at = UINT64_MAX, interval = t->roll_interval_us;

	if (!t->dirty_since_us || !publish_has_work(t))
		return at;
	if (!t->open && !t->single && !t->closed.first)
		interval = least(interval, WORDS_ONLY_US);
	at = t->dirty_since_us + interval;
	if (t->idle_since_us)
		at = least(at, t->idle_since_us + least(interval, IDLE_US));
	return at;
}

bool publish_is_due(const struct target *t, uint64_t now_us)
{
	if (t->publishing || t->tx_since || t->is_stdout || !publish_has_work(t))
		return false;
	return t->has_new_loads || t->urgent_seq || t->is_roll_due || t->state == TARGET_STOPPING || now_us >= due_at(t);
}

uint64_t publish_due_in(const struct target *t, uint64_t now_us)
{
	uint64_t at = due_at(t);

	if (t->publishing || t->tx_since || at == UINT64_MAX)
		return 0;
	return at > now_us ? at - now_us : 1;
}
