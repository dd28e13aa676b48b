/* fake_target: writes into a fake_server. A batch is read in one turn; what was read is committed at once or later, as the server wants it, but never
 * within a transaction or while a load is open, of which there may be several. */
#include "fake_int.h"
#include <assert.h>
#include <stdlib.h>

struct item {
	struct item *next;
	const struct batch *batch;
	uint64_t token;
	bool is_read;
};

/* Of a table, between its words; then until it is committed. */
struct load {
	struct load *next;
	struct relation *rel;           /* held */
	struct position at;
	uint64_t rows;
	uint32_t parts, ended;
	bool is_known;
};

struct count {
	struct count *next;
	struct dmsr_table_counts counts; /* names are owned */
};

struct fake_target {
	struct fake_server *server;
	struct fake_target *next;
	struct dmsr_target_host host;
	struct loop_task *task;
	bool is_started, is_ready, is_stopping, is_over, is_closed, is_in_task, said_again, is_flushed;
	struct item *head, **tail;
	size_t nitems, nread;           /* nread: of them, read and not committed */
	bool in_txn;
	struct fake_row *rows;          /* read, not committed */
	size_t nrows, caprows;
	struct position at;             /* of what was read */
	struct load *loads;             /* open */
	struct load *ended;             /* to be committed */
	bool load_done;                 /* the same */
	unsigned ddl;
	const struct change *letter;    /* a dead letter is under way for this row; its batch waits */
	bool is_letter_done;
	struct count *counts;
	struct err error;
	struct dmsr_target_stat stat;
};

static struct fake_target *of(struct dmsr_instance *i) { return (struct fake_target *)(void *)i; }

void fake_server_go(struct fake_server *v)
{
	for (struct fake_target *t = v->instances; t; t = t->next)
		loop_task_post(t->task);
}

static void die(struct fake_target *t)
{
	if (t->server->fail_with.code)
		t->error = t->server->fail_with;
	else
		err_retry(&t->error, DMSR_EIO, "target.fake", "the fake server %s fails, as it was told", t->server->name);
	loop_task_post(t->task);
}

/* ---- reading ---- */

static struct dmsr_table_counts *counts_of(struct fake_target *t, const struct relation *rel)
{
	struct count *c = t->counts;
	while (c && (strcmp(c->counts.schema, rel->schema) != 0 || strcmp(c->counts.name, rel->name) != 0))
		c = c->next;
	if (c)
		return &c->counts;
	c = mem_zalloc(sizeof *c);
	c->counts.schema = mem_strdup(rel->schema);
	c->counts.name = mem_strdup(rel->name);
	c->next = t->counts;
	t->counts = c;
	return &c->counts;
}

static void add_row(struct fake_target *t, const struct change *ch)
{
	struct dmsr_table_counts *c = counts_of(t, ch->rel);
	if (t->server->keeps && position_covers(&t->server->applied, ch->txn->lsn, ch->event))
		return;
	if (t->nrows == t->caprows) {
		t->caprows = t->caprows ? 2 * t->caprows : 64;
		t->rows = mem_realloc_array(t->rows, t->caprows, sizeof *t->rows);
	}
	t->rows[t->nrows++] = (struct fake_row){ fake_row_id(ch), ch->txn->lsn, ch->event, ch->op };
	c->created += ch->op == OP_CREATE;
	c->updated += ch->op == OP_UPDATE;
	c->deleted += ch->op == OP_DELETE;
}

static void free_load(struct load *l)
{
	relation_unref(l->rel);
	free(l);
}

static void free_loads(struct load **list)
{
	while (*list) {
		struct load *l = *list;
		*list = l->next;
		free_load(l);
	}
}

/* Where the open load of its table is; NULL there: none is. */
static struct load **find_load(struct fake_target *t, const struct change *ch)
{
	struct load **at = &t->loads;
	while (*at && (strcmp((*at)->rel->name, ch->rel->name) != 0 || (*at)->at.lsn != ch->txn->lsn))
		at = &(*at)->next;
	return at;
}

static void begin_load(struct fake_target *t, const struct change *ch)
{
	const struct fake_table *known = fake_server_table(t->server, ch->rel->name);
	assert(!t->in_txn && "a load in mid-transaction");
	if (t->loads && t->loads->at.lsn != ch->txn->lsn)
		free_loads(&t->loads);
	struct load **again = find_load(t, ch), *l = *again;
	if (l) {
		*again = l->next;
		free_load(l);
	}
	l = mem_zalloc(sizeof *l);
	l->rel = relation_ref(ch->rel);
	l->is_known = t->server->keeps && known && known->is_loaded;
	l->at = (struct position){ .kind = POSITION_LSN, .server = FAKE_SERVER_ID, .lsn = ch->txn->lsn };
	l->parts = ch->u.load.parts;
	l->next = t->loads;
	t->loads = l;
}

static void end_load(struct fake_target *t, const struct change *ch)
{
	struct load **at = find_load(t, ch), *l = *at;
	if (!l)
		return;
	assert(l->ended == l->parts && "the end of a table before those of its parts");
	*at = l->next;
	l->next = t->ended;
	t->ended = l;
}

/* Of a load that is not open it means nothing. */
static void add_to_load(struct fake_target *t, const struct batch *b, const struct change *ch)
{
	struct load *l = *find_load(t, ch);
	if (!l)
		return;
	assert(b->part <= l->parts && (!l->parts || b->part) && "rows of no part");
	l->ended += ch->op == OP_LOAD_PART;
	l->rows += ch->op == OP_ROWS ? ch->u.rows.rows : ch->op == OP_READ;
}

static void on_letter(void *arg, const struct err *e)
{
	struct fake_target *t = arg;
	t->is_letter_done = true;
	if (e)
		t->error = *e;
	else
		t->server->dead++;
	loop_task_post(t->task);
}

/* False: the row is not had, its dead letter is under way. */
static bool is_taken(struct fake_target *t, const struct change *ch)
{
	struct err e = { 0 };
	if (!change_is_row(ch) || !t->server->bad_row || fake_row_id(ch) != t->server->bad_row || ch == t->letter)
		return true;
	t->letter = ch;
	t->is_letter_done = false;
	err_set(&e, DMSR_EDATA, "target.constraint", "row %lld is refused", (long long)t->server->bad_row);
	t->host.dead_letter(t->host.ctx, &(struct dmsr_dead_letter){ ch, &e }, on_letter, t);
	counts_of(t, ch->rel)->dead++;
	return false;
}

static void read_change(struct fake_target *t, const struct batch *b, const struct change *ch)
{
	if (!b->is_load)
		free_loads(&t->loads);
	switch ((enum change_op)ch->op) {
	case OP_BEGIN:
		assert(!t->in_txn);
		t->in_txn = true;
		break;
	case OP_COMMIT:
		t->in_txn = false;
		t->stat.transactions++;
		t->stat.last_commit_us = ch->txn->commit_us;
		break;
	case OP_CREATE: case OP_UPDATE: case OP_DELETE:
		if (ch != t->letter)
			add_row(t, ch);
		break;
	case OP_TRUNCATE:
		counts_of(t, ch->rel)->truncated++;
		break;
	case OP_SCHEMA:
		t->ddl += ch->u.schema.old != NULL;
		counts_of(t, ch->rel)->ddl += ch->u.schema.old != NULL;
		break;
	case OP_LOAD_BEGIN:
		begin_load(t, ch);
		break;
	case OP_ROWS: case OP_READ: case OP_LOAD_PART:
		add_to_load(t, b, ch);
		break;
	case OP_LOAD_END:
		end_load(t, ch);
		break;
	case OP_LOAD_DONE:
		free_loads(&t->loads);
		t->load_done = true;
		break;
	case OP_MESSAGE: case OP_HEARTBEAT:
		break;
	}
}

static struct item *next_unread(struct fake_target *t)
{
	struct item *it = t->head;
	while (it && it->is_read)
		it = it->next;
	return it;
}

/* False: not now. */
static bool read_item(struct fake_target *t, struct item *it)
{
	const struct batch *b = it->batch;
	if (t->letter && !t->is_letter_done)
		return false;
	for (const struct change *ch = b->first; ch && !t->letter; ch = ch->next)
		if (!is_taken(t, ch))
			return false;
	if (t->server->fail_at && !--t->server->fail_at) {
		die(t);
		return false;
	}
	for (const struct change *ch = b->first; ch; ch = ch->next)
		read_change(t, b, ch);
	t->letter = NULL;
	if (!position_is_none(&b->end)) {
		assert(position_compare(&b->end, &t->at) >= 0 || t->server->keeps);
		t->at = b->end;
	}
	it->is_read = true;
	t->nread++;
	t->server->batches++;
	t->stat.queued_bytes -= b->bytes;
	if (!t->server->is_silent && t->host.consumed)
		t->host.consumed(t->host.ctx, it->token);
	return true;
}

/* ---- committing ---- */

static struct fake_table *server_table(struct fake_server *v, const struct relation *rel)
{
	struct fake_table *t = (struct fake_table *)(uintptr_t)fake_server_table(v, rel->name);
	if (t)
		return t;
	v->tables = mem_realloc_array(v->tables, v->ntables + 1, sizeof *v->tables);
	t = &v->tables[v->ntables++];
	*t = (struct fake_table){ .schema = mem_strdup(rel->schema), .name = mem_strdup(rel->name) };
	return t;
}

static void write_down(struct fake_target *t)
{
	struct fake_server *v = t->server;
	if (v->nrows + t->nrows > v->caprows) {
		v->caprows = 2 * (v->nrows + t->nrows);
		v->rows = mem_realloc_array(v->rows, v->caprows, sizeof *v->rows);
	}
	if (t->nrows)
		memcpy(v->rows + v->nrows, t->rows, t->nrows * sizeof *t->rows);
	v->nrows += t->nrows;
	v->ddl += t->ddl;
	t->stat.rows_applied += t->nrows;
	for (const struct load *l = t->ended; l; l = l->next) {
		if (l->is_known)
			continue;
		struct fake_table *table = server_table(v, l->rel);
		table->at = l->at;
		table->rows = l->rows;
		table->rows_before = v->nrows;
		table->is_loaded = true;
		table->loads++;
		counts_of(t, l->rel)->loaded += l->rows;
		t->stat.rows_applied += l->rows;
	}
	free_loads(&t->ended);
	v->load_done |= t->load_done;
	if (position_compare(&t->at, &v->applied) > 0)
		v->applied = t->at;
	t->nrows = t->ddl = 0;
	t->load_done = false;
	v->commits++;
}

static void forget_counts(struct fake_target *t)
{
	while (t->counts) {
		struct count *c = t->counts;
		t->counts = c->next;
		free((void *)(uintptr_t)c->counts.schema);
		free((void *)(uintptr_t)c->counts.name);
		free(c);
	}
}

static void tell_applied(struct fake_target *t)
{
	size_t n = 0, k = 0;
	for (struct count *c = t->counts; c; c = c->next)
		n++;
	struct dmsr_table_counts *all = mem_zalloc((n + 1) * sizeof *all);
	for (struct count *c = t->counts; c; c = c->next)
		all[k++] = c->counts;
	t->stat.last_applied_us = wall_now_us();
	t->stat.applied = t->at;
	while (t->head && t->head->is_read && !t->is_closed) {
		struct item *it = t->head;
		t->head = it->next;
		if (!t->head)
			t->tail = &t->head;
		t->nitems--;
		t->nread--;
		t->host.applied(t->host.ctx, it->token, all, t->nread ? 0 : n);
		free(it);
	}
	free(all);
	forget_counts(t);
}

static bool passes_over(const struct fake_target *t)
{
	return t->server->pass_over && t->in_txn && position_is_inside(&t->at) && !t->nrows && !t->ddl && !t->ended && !t->load_done;
}

static void commit(struct fake_target *t)
{
	struct fake_server *v = t->server;
	if (passes_over(t))
		v->stalls = !--v->pass_over;
	else
		write_down(t);
	if (v->die_at && !--v->die_at)
		die(t);
	else
		tell_applied(t);
}

static bool may_commit(struct fake_target *t)
{
	if (!t->nread || (t->in_txn && !passes_over(t)) || t->loads)
		return false;
	if (t->ended || t->load_done || t->nread >= t->server->commit_every)
		return true;
	return (t->is_flushed || t->is_stopping) && !next_unread(t);
}

/* ---- a turn ---- */

static bool is_working(const struct fake_target *t)
{
	return t->is_ready && !t->error.code && !t->is_over && !t->is_closed && !t->server->stalls;
}

static void take_room(struct fake_target *t)
{
	unsigned queue = t->server->queue ? t->server->queue : 8;
	if (!t->said_again || t->server->stalls || t->nitems - t->nread >= queue || t->is_stopping)
		return;
	t->said_again = false;
	t->host.resume(t->host.ctx);
}

static void work(struct fake_target *t)
{
	if (is_working(t) && may_commit(t)) {
		commit(t);
		loop_task_post(t->task);
		return;
	}
	struct item *it = is_working(t) ? next_unread(t) : NULL;
	if (it && read_item(t, it))
		loop_task_post(t->task);
	else if (is_working(t) && !it)
		t->is_flushed = false;
	if (is_working(t))
		take_room(t);
}

static void tell_ready(struct fake_target *t)
{
	const struct fake_server *v = t->server;
	if (!t->is_started || t->is_ready || t->error.code || t->is_stopping)
		return;
	if (v->refuses_start) {
		die(t);
		return;
	}
	t->is_ready = true;
	if (!v->keeps) {
		t->host.ready(t->host.ctx, &(struct position){ 0 }, false, NULL, 0, false);
		return;
	}
	struct dmsr_loaded *loaded = mem_zalloc((v->ntables + 1) * sizeof *loaded);
	for (size_t i = 0; i < v->ntables; i++)
		loaded[i] = (struct dmsr_loaded){ v->tables[i].schema, v->tables[i].name, v->tables[i].at };
	t->at = v->applied;
	t->host.ready(t->host.ctx, &v->applied, true, loaded, v->ntables, v->load_done);
	free(loaded);
}

static void tell_end(struct fake_target *t)
{
	if (t->is_over)
		return;
	if (t->error.code) {
		t->is_over = true;
		t->host.failed(t->host.ctx, &t->error);
	} else if (t->is_stopping && (!t->is_ready || t->server->stalls || (!next_unread(t) && !may_commit(t)))) {
		t->is_over = true;
		t->host.stopped(t->host.ctx);
	}
}

static void release(struct fake_target *t)
{
	struct fake_target **at = &t->server->instances;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->server->live--;
	while (t->head) {
		struct item *it = t->head;
		t->head = it->next;
		free(it);
	}
	forget_counts(t);
	free_loads(&t->loads);
	free_loads(&t->ended);
	loop_task_free(t->task);
	free(t->rows);
	free(t);
}

static void on_task(void *arg)
{
	struct fake_target *t = arg;
	t->is_in_task = true;
	tell_ready(t);
	if (!t->is_closed)
		work(t);
	if (!t->is_closed)
		tell_end(t);
	t->is_in_task = false;
	if (t->is_closed)
		release(t);
}

/* ---- the verbs ---- */

static int target_open(const struct settings *settings, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	const char *name = settings_str(settings, "server");
	struct fake_server *v = fake_server_find(name);
	if (!v)
		return err_set(e, DMSR_ENOTFOUND, "target.fake", "there is no server %s", name);
	struct fake_target *t = mem_zalloc(sizeof *t);
	t->server = v;
	t->host = *host;
	t->tail = &t->head;
	t->next = v->instances;
	v->instances = t;
	v->opened++;
	v->live++;
	t->task = loop_task_new(host->env.loop, "fake", on_task, t);
	*out = (struct dmsr_instance *)(void *)t;
	return 0;
}

static void target_start(struct dmsr_instance *i)
{
	of(i)->is_started = true;
	loop_task_post(of(i)->task);
}

static enum dmsr_verdict target_apply(struct dmsr_instance *i, const struct batch *b, uint64_t token)
{
	struct fake_target *t = of(i);
	unsigned queue = t->server->queue ? t->server->queue : 8;
	assert(t->is_ready && "apply before ready");
	if (t->server->stalls || t->is_stopping || t->error.code || t->nitems - t->nread >= queue) {
		t->said_again = true;
		t->server->refused++;
		return DMSR_AGAIN;
	}
	struct item *it = mem_zalloc(sizeof *it);
	it->batch = b;
	it->token = token;
	*t->tail = it;
	t->tail = &it->next;
	t->nitems++;
	t->stat.queued_bytes += b->bytes;
	loop_task_post(t->task);
	return DMSR_OK;
}

static void target_flush(struct dmsr_instance *i)
{
	struct fake_target *t = of(i);
	t->is_flushed = true;
	t->server->flushes++;
	loop_task_post(t->task);
}

static void target_stat(struct dmsr_instance *i, struct dmsr_target_stat *out)
{
	const struct fake_target *t = of(i);
	*out = t->stat;
	out->connected = t->is_ready && !t->is_over;
	out->phase = t->loads ? "loading" : t->nitems ? "applying" : "idle";
}

static size_t target_begun(struct dmsr_instance *i, const struct dmsr_begun **out)
{
	*out = of(i)->server->begun;
	return of(i)->server->nbegun;
}

static void target_stop(struct dmsr_instance *i)
{
	struct fake_target *t = of(i);
	t->is_stopping = true;
	loop_task_post(t->task);
}

static void target_close(struct dmsr_instance *i)
{
	struct fake_target *t = of(i);
	t->is_closed = true;
	if (!t->is_in_task)
		release(t);
}

const struct dmsr_target fake_target = {
	.open = target_open,
	.start = target_start,
	.begun = target_begun,
	.apply = target_apply,
	.flush = target_flush,
	.stat = target_stat,
	.stop = target_stop,
	.close = target_close,
};
