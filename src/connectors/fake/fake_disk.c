/* fake_disk: a log and positions that survive the instances that write them. Operations wait in one queue and are done in its order. */
#include "fake.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>

enum op_kind { OP_APPEND, OP_TAKE, OP_TRIM, OP_PUT };
struct op {
	struct op *next;
	enum op_kind kind;
	uint64_t seq;
	size_t len;                     /* append: of data; read: at most so many bytes */
	char *data;
	struct position *where, position;
	void (*appended)(void *arg, uint64_t seq, const struct err *e);
	void (*read)(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e);
	void (*put)(void *arg);
	void *arg;
};

struct fake_disk {
	struct dmsr_log log;
	struct dmsr_log_entry *entries; /* data is owned */
	size_t n, cap;
	struct op *head, **tail;
	struct loop_task *task;         /* NULL: closed */
	bool is_held, has_failed;
	unsigned max_ops;
	uint64_t fail_after;            /* of appends, ever */
	uint64_t next;                  /* seq of the next append, in this opening */
	uint64_t appends, reads;
};

static struct op *add(struct fake_disk *d, enum op_kind kind, void *arg)
{
	struct op *op = mem_zalloc(sizeof *op);
	op->kind = kind;
	op->arg = arg;
	*d->tail = op;
	d->tail = &op->next;
	loop_task_post(d->task);
	return op;
}

/* ---- the verbs of a log ---- */

static void log_append(void *ctx, uint64_t seq, const void *data, size_t len, void (*done)(void *arg, uint64_t seq, const struct err *e), void *arg)
{
	struct fake_disk *d = ctx;
	assert(seq == d->next && len);
	d->next++;
	struct op *op = add(d, OP_APPEND, arg);
	op->seq = seq;
	op->len = len;
	op->data = mem_alloc(len);
	memcpy(op->data, data, len);
	op->appended = done;
}

static void log_read(void *ctx, uint64_t seq, size_t max_bytes,
	void (*done)(void *arg, const struct dmsr_log_entry *entries, size_t n, const struct err *e), void *arg)
{
	struct op *op = add(ctx, OP_TAKE, arg);
	op->seq = seq;
	op->len = max_bytes;
	op->read = done;
}

static void log_trim(void *ctx, uint64_t below) { add(ctx, OP_TRIM, NULL)->seq = below; }

/* ---- what they do ---- */

static uint64_t bytes_of(const struct fake_disk *d)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < d->n; i++)
		bytes += d->entries[i].len;
	return bytes;
}

static void do_append(struct fake_disk *d, struct op *op)
{
	struct err e = { 0 };
	if (d->has_failed || d->appends >= d->fail_after) {
		d->has_failed = true;
		err_set(&e, DMSR_EIO, "state.full", "no space left on device");
		op->appended(op->arg, op->seq, &e);
		return;
	}
	if (d->n == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 64;
		d->entries = mem_realloc_array(d->entries, d->cap, sizeof *d->entries);
	}
	assert(!d->n || d->entries[d->n - 1].seq + 1 == op->seq);
	d->entries[d->n++] = (struct dmsr_log_entry){ .seq = op->seq, .data = op->data, .len = op->len };
	op->data = NULL;
	d->appends++;
	op->appended(op->arg, op->seq, NULL);
}

static void do_read(struct fake_disk *d, struct op *op)
{
	size_t i = 0, n = 0, bytes = 0;
	while (i < d->n && d->entries[i].seq < op->seq)
		i++;
	while (i + n < d->n && (!n || bytes + d->entries[i + n].len <= op->len))
		bytes += d->entries[i + n++].len;
	d->reads++;
	op->read(op->arg, d->entries + i, n, NULL);
}

static void do_trim(struct fake_disk *d, uint64_t below)
{
	size_t k = 0;
	while (k < d->n && d->entries[k].seq < below) {
		free((void *)(uintptr_t)d->entries[k].data);
		k++;
	}
	d->n -= k;
	if (k)
		memmove(d->entries, d->entries + k, d->n * sizeof *d->entries);
}

static struct op *pop(struct fake_disk *d)
{
	struct op *op = d->head;
	d->head = op->next;
	if (!d->head)
		d->tail = &d->head;
	return op;
}

static void do_one(struct fake_disk *d)
{
	struct op *op = pop(d);
	switch (op->kind) {
	case OP_APPEND:
		do_append(d, op);
		break;
	case OP_TAKE:
		do_read(d, op);
		break;
	case OP_TRIM:
		do_trim(d, op->seq);
		break;
	case OP_PUT:
		*op->where = op->position;
		if (op->put)
			op->put(op->arg);
		break;
	}
	free(op->data);
	free(op);
}

static void on_task(void *arg)
{
	struct fake_disk *d = arg;
	unsigned n = d->max_ops ? (unsigned)random() % (d->max_ops + 1) : UINT_MAX;
	while (n-- && d->head && !d->is_held && d->task)
		do_one(d);
	if (d->head && !d->is_held && d->task)
		loop_task_post(d->task);
}

/* ---- for the test ---- */

struct fake_disk *fake_disk_new(void)
{
	struct fake_disk *d = mem_zalloc(sizeof *d);
	d->tail = &d->head;
	d->fail_after = UINT64_MAX;
	return d;
}

const struct dmsr_log *fake_disk_open(struct fake_disk *d, struct loop *l)
{
	assert(!d->task);
	d->task = loop_task_new(l, "test", on_task, d);
	d->log = (struct dmsr_log){ .ctx = d, .append = log_append, .read = log_read, .trim = log_trim };
	if (d->n) {
		d->log.first = d->entries[0].seq;
		d->log.last = d->entries[d->n - 1].seq;
		d->log.bytes = bytes_of(d);
	}
	d->next = d->log.last + 1;
	return &d->log;
}

void fake_disk_close(struct fake_disk *d)
{
	loop_task_free(d->task);
	d->task = NULL;
	while (d->head) {
		struct op *op = pop(d);
		free(op->data);
		free(op);
	}
}

void fake_disk_free(struct fake_disk *d)
{
	fake_disk_close(d);
	do_trim(d, UINT64_MAX);
	free(d->entries);
	free(d);
}

void fake_disk_hold(struct fake_disk *d, bool hold)
{
	d->is_held = hold;
	if (d->task)
		loop_task_post(d->task);
}

void fake_disk_slow(struct fake_disk *d, unsigned max_ops) { d->max_ops = max_ops; }

void fake_disk_fail(struct fake_disk *d, unsigned after)
{
	d->has_failed = false;
	d->fail_after = after == UINT_MAX ? UINT64_MAX : d->appends + after;
}

void fake_disk_damage(struct fake_disk *d, uint64_t seq)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->entries[i].seq == seq)
			((char *)(uintptr_t)d->entries[i].data)[0] ^= 0x40;
}

void fake_disk_put(struct fake_disk *d, struct position *where, const struct position *p, void (*done)(void *arg), void *arg)
{
	struct op *op = add(d, OP_PUT, arg);
	op->where = where;
	op->position = *p;
	op->put = done;
}

void fake_disk_stat(const struct fake_disk *d, struct fake_disk_stat *out)
{
	*out = (struct fake_disk_stat){ .appends = d->appends, .reads = d->reads, .entries = d->n, .bytes = bytes_of(d) };
	if (d->n) {
		out->first = d->entries[0].seq;
		out->last = d->entries[d->n - 1].seq;
	}
}
