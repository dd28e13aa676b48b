/* lend: what a position that is confirmed says of what was given away before it, and of loads, which have none. */
#include "test.h"

#include "streamers/kafka/consume_int.h"

enum { MAX = 8 };

/* Ends of what was given, in order: 0 is a load. How many are done, when `from` was where it began, and `upto` is confirmed, and then `then`? */
static unsigned done_of(const uint64_t *ends, unsigned n, uint64_t from, uint64_t upto, uint64_t then)
{
	struct kafka k = { .state = KAFKA_RUNNING };
	struct dmsr_subscription s = { .k = &k, .confirmed = { .kind = from ? POSITION_LSN : 0, .server = 1, .lsn = from } };
	for (unsigned i = n; i-- > 0;) {
		struct lent *l = mem_zalloc(sizeof *l);
		*l = (struct lent){ .next = s.first, .token = i + 1, .place.offset = i };
		if (ends[i])
			l->end = (struct position){ .kind = POSITION_LSN, .server = 1, .lsn = ends[i] };
		s.first = l;
		s.last = s.last ? s.last : l;
	}
	const uint64_t told[] = { upto, then };
	for (unsigned i = 0; i < 2; i++)
		if (told[i])
			consume_confirm(&s, &(struct position){ .kind = POSITION_LSN, .server = 1, .lsn = told[i] });
	unsigned left = 0;
	for (struct lent *l = s.first; l; left++) {
		struct lent *next = l->next;
		free(l);
		l = next;
	}
	return n - left;
}

static void a_load_is_done_with_what_is_further_on(void **state)
{
	(void)state;
	assert_int_equal(done_of((const uint64_t[]){ 5, 6, 7 }, 3, 0, 6, 0), 2);
	assert_int_equal(done_of((const uint64_t[]){ 5, 6, 7 }, 3, 0, 4, 0), 0);
	assert_int_equal(done_of((const uint64_t[]){ 0, 0, 5, 6 }, 4, 0, 5, 0), 3);
	assert_int_equal(done_of((const uint64_t[]){ 0, 0, 5, 6 }, 4, 0, 6, 0), 4);
	assert_int_equal(done_of((const uint64_t[]){ 0, 0 }, 2, 0, 9, 0), 0);
}

/* A heartbeat says once more where the stream is: that may be confirmed while the load before it is under way. */
static void a_position_that_is_said_twice_says_nothing_of_a_load_between(void **state)
{
	(void)state;
	assert_int_equal(done_of((const uint64_t[]){ 5, 0, 5, 6 }, 4, 0, 5, 0), 1);
	assert_int_equal(done_of((const uint64_t[]){ 5, 0, 5, 6 }, 4, 0, 5, 5), 1);
	assert_int_equal(done_of((const uint64_t[]){ 5, 0, 5, 6 }, 4, 0, 5, 6), 4);
	assert_int_equal(done_of((const uint64_t[]){ 0, 5, 6 }, 3, 5, 5, 0), 0);
	assert_int_equal(done_of((const uint64_t[]){ 0, 5, 6 }, 3, 5, 5, 6), 3);
}

static enum dmsr_verdict take(void *ctx, struct batch *b)
{
	(void)ctx, (void)b;
	return DMSR_OK;
}

/* It could not be told any more that a reader was sent back to before it. */
static void the_noted_place_of_a_reader_has_a_position(void **state)
{
	(void)state;
	struct kafka k = { .state = KAFKA_RUNNING };
	struct dmsr_subscription s = { .k = &k, .take = take };
	const struct position five = { .kind = POSITION_LSN, .server = 1, .lsn = 5 };
	lend_pass(&s, &(struct place){ .offset = 3, .at = five });
	lend_pass(&s, &(struct place){ .offset = 4 });
	assert_int_equal(s.done.offset, 3);
	struct lent l = { .place = { .offset = 6, .at = five } };
	s.first = s.last = &l;
	lend_pass(&s, &(struct place){ .offset = 7 });
	assert_int_equal(l.place.offset, 6);
	s.take = NULL;
	lend_pass(&s, &(struct place){ .offset = 8 });
	assert_int_equal(l.place.offset, 8);
}

/* A target that takes one batch of two. */
static bool is_full;

static enum dmsr_verdict deliver(void *ctx, const struct batch *b, uint64_t token)
{
	(void)ctx, (void)b, (void)token;
	is_full = !is_full;
	return is_full ? DMSR_AGAIN : DMSR_OK;
}

static void lend(struct dmsr_subscription *s, struct relation *rel, enum change_op op)
{
	s->held = batch_new();
	s->held->is_load = op != OP_HEARTBEAT;
	batch_append(s->held, op, rel);
	while (s->held)
		lend_held(s);
	consume_commit(s, s->token);
}

/* Or more would be lent than there is memory for, for ever; or nobody would void the one that is open. */
static void loads_that_are_open_are_counted(void **state)
{
	(void)state;
	struct kafka k = { .state = KAFKA_RUNNING, .memory_max = 1 << 20 };
	struct dmsr_subscription s = { .k = &k, .c.deliver = deliver, .run = 1, .is_saved = true };
	struct relation *a = relation_seal(relation_build("postgres", "public", "a", 1), KEY_NONE);
	struct relation *b = relation_seal(relation_build("postgres", "public", "b", 2), KEY_NONE);
	s.stuck = (void *)&k; /* nothing is asked of the port */
	is_full = false;
	lend(&s, a, OP_LOAD_BEGIN);
	lend(&s, b, OP_LOAD_BEGIN);
	assert_int_equal(s.nloads, 2);
	lend(&s, a, OP_LOAD_END);
	assert_int_equal(s.nloads, 1);
	assert_int_equal(s.load_run, 1);
	lend(&s, b, OP_LOAD_END);
	assert_int_equal(s.nloads, 0);
	assert_int_equal(s.load_run, 0);
	lend(&s, a, OP_LOAD_BEGIN);
	lend(&s, NULL, OP_HEARTBEAT); /* which voids it */
	assert_int_equal(s.nloads, 0);
	assert_int_equal(s.load_run, 0);
	relation_unref(a);
	relation_unref(b);
}

RUN_TESTS(cmocka_unit_test(a_load_is_done_with_what_is_further_on), cmocka_unit_test(a_position_that_is_said_twice_says_nothing_of_a_load_between),
	cmocka_unit_test(the_noted_place_of_a_reader_has_a_position), cmocka_unit_test(loads_that_are_open_are_counted))
