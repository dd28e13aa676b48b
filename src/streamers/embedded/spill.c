/* spill: batches into the log, one a turn, from the oldest that is not there (rule 2). */
#include "embedded.h"
#include <assert.h>

enum {
	WRITING_BYTES = 4 << 20,        /* handed to the log and not durable: beyond, wait */
	PACK_KEEP_BYTES = 1 << 20,      /* memory that the packing buffer keeps */
	LONG_US = 5000000,
};

bool spill_is_full(const struct embedded *s) { return !s->log || s->disk >= s->disk_max; }

static void on_appended(void *arg, uint64_t seq, const struct err *e)
{
	struct embedded *s = arg;
	struct item *it = window_find(s, seq - s->shift);
	s->nwriting--;
	if (!s->nwriting)
		s->writing = 0;
	if (e) {
		struct err out = *e;
		err_prefix(&out, "the spill log of job %s", s->host.env.job);
		embedded_fail(s, &out);
		return;
	}
	if (it) {
		assert(it->log == ITEM_WRITING);
		s->writing -= it->packed < s->writing ? it->packed : s->writing;
		window_durable(s, it);
	}
	embedded_wake(s);
}

/* The log is empty, so far as it matters: its next entry is the oldest batch of the window. */
static void begin_run(struct embedded *s)
{
	s->logged = s->lo;
	s->shift = s->seq - s->lo;
}

static struct item *next_item(struct embedded *s)
{
	if (s->logged <= s->lo) {
		/* While the log is asked for anything the numbers stay: answers come by them. */
		if (s->nwriting || s->nreading)
			return NULL;
		begin_run(s);
	}
	struct item *it = s->logged < s->hi ? window_find(s, s->logged) : NULL;
	return it && it->b && !it->is_bound ? it : NULL;
}

static void write_item(struct embedded *s, struct item *it)
{
	struct position reached = position_is_none(&it->b->end) ? s->reached : it->b->end;
	buf_reset(&s->pack);
	if (entry_write(&s->pack, it->b, &reached)) {
		it->is_bound = true;
		return;
	}
	s->reached = reached;
	it->log = ITEM_WRITING;
	it->packed = s->pack.len;
	s->disk += it->packed;
	s->writing += it->packed;
	s->nwriting++;
	s->logged++;
	failpoint("streamer.spill");
	s->log->append(s->log->ctx, s->seq++, s->pack.data, s->pack.len, on_appended, s);
	if (s->pack.cap > PACK_KEEP_BYTES) {
		size_t max = s->pack.max;
		buf_fini(&s->pack);
		buf_init(&s->pack, max);
	}
}

/* A consumer has not even taken what came long ago: what waits for it is not delivered otherwise, and keeps the source's log, however little it is. */
static bool is_overdue(const struct embedded *s)
{
	uint64_t next = s->hi;
	for (const struct dmsr_subscription *c = s->subscriptions; c; c = c->next_one)
		next = c->next < next ? c->next : next;
	const struct item *it = next < s->hi ? window_find(s, next) : NULL;
	return it && it->b && it->log == ITEM_MEMORY && it->b->received_us && wall_now_us() - it->b->received_us > LONG_US;
}

void spill_turn(struct embedded *s)
{
	if (!s->log)
		return;
	if (s->is_spilling && s->memory <= s->memory_max / 2 && feed_all_have_all(s)) {
		s->is_spilling = false;
		log_debug("streamer", s->host.env.job, "the targets have taken all there was: batches stay in memory");
	}
	bool is_wanted = s->is_spilling || s->memory > s->memory_max / 4 * 3 || is_overdue(s);
	struct item *it = is_wanted && s->writing < WRITING_BYTES && !spill_is_full(s) ? next_item(s) : NULL;
	if (!it)
		return;
	if (!s->is_spilling)
		log_debug("streamer", s->host.env.job, "memory is full, or a target takes nothing: batches go to the log");
	s->is_spilling = true;
	write_item(s, it);
	embedded_wake(s);
}

void spill_trim(struct embedded *s)
{
	if (!s->log)
		return;
	uint64_t below = (s->lo < s->logged ? s->lo : s->logged) + s->shift;
	if (below <= s->trimmed)
		return;
	s->trimmed = below;
	failpoint("streamer.trim");
	s->log->trim(s->log->ctx, below);
}
