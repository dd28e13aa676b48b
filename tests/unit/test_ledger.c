/* test_ledger: whatever the order of acks and wherever a crash falls: nothing is stored before it is delivered without a gap,
 * nothing confirmed before it is stored. A plain model says what is right. */
#include "test.h"

#include "engine/ledger.h"

enum { N = 400 };

static struct position at(uint64_t lsn, uint64_t event, uint64_t flush)
{
	return (struct position){ .kind = POSITION_LSN, .server = 7, .lsn = lsn, .event = event, .flush = flush };
}

static uint64_t take(struct ledger *l, const struct position *p)
{
	uint64_t token = 0;
	assert_int_equal(ledger_received(l, p, 10, &token, NULL), 0);
	ledger_streamed(l, token);
	return token;
}

struct model {
	struct position end[N + 1];
	bool delivered[N + 1];
	unsigned received, streamed, stored, confirmed, storing;
	struct position disk, writing;  /* what the "disk" has survives a crash */
};

static unsigned unbroken(const struct model *m)
{
	unsigned n = 0;
	while (n < m->streamed && m->delivered[n + 1])
		n++;
	return n;
}

static void compare(const struct ledger *l, const struct model *m)
{
	struct ledger_stat s;
	ledger_stat(l, &s);
	assert_int_equal(s.received.token, m->received);
	assert_int_equal(s.streamed.token, m->streamed);
	assert_int_equal(s.delivered.token, unbroken(m));
	assert_int_equal(s.stored.token, m->stored);
	assert_int_equal(s.bytes, 10u * (m->received - unbroken(m)));
	assert_true(s.received.token >= s.streamed.token && s.streamed.token >= s.delivered.token);
	assert_true(s.delivered.token >= s.stored.token && s.stored.token >= s.confirmed.token);
	if (s.delivered.token)
		assert_int_equal(s.delivered.position.lsn, m->end[s.delivered.token].lsn);
	assert_int_equal(ledger_is_idle(l), m->stored == m->received && !m->storing);
}

static void deliver_one(struct ledger *l, struct model *m)
{
	unsigned waiting = 0, pick;
	for (unsigned i = 1; i <= m->streamed; i++)
		waiting += !m->delivered[i];
	if (!waiting)
		return;
	pick = (unsigned)rand() % waiting;
	for (unsigned i = 1; i <= m->streamed; i++)
		if (!m->delivered[i] && !pick--) {
			m->delivered[i] = true;
			assert_true(ledger_delivered(l, i));
			assert_false(ledger_delivered(l, i));
			return;
		}
}

static void step(struct ledger *l, struct model *m, bool *confirmed_any, uint64_t *told)
{
	struct position p;
	uint64_t token;

	switch (rand() % 6) {
	case 0: case 1:
		if (m->received == N || m->received - m->streamed)
			return;
		assert_int_equal(ledger_received(l, &m->end[m->received + 1], 10, &token, NULL), 0);
		assert_int_equal(token, ++m->received);
		return;
	case 2:
		if (m->streamed < m->received)
			ledger_streamed(l, ++m->streamed);
		return;
	case 3:
		deliver_one(l, m);
		return;
	case 4:
		if (m->storing) {
			m->stored = m->storing;
			m->disk = m->writing;
			m->storing = 0;
			ledger_stored(l);
			return;
		}
		assert_int_equal(ledger_wants_store(l), unbroken(m) > m->stored);
		if (ledger_wants_store(l)) {
			m->storing = (unsigned)ledger_store_begin(l, &p);
			assert_int_equal(m->storing, unbroken(m));
			assert_int_equal(p.lsn, m->end[m->storing].lsn);
			m->writing = p;
		}
		return;
	default:
		if (ledger_confirm(l, &p)) {
			/* The promise: only what the disk has. */
			assert_int_equal(p.lsn, m->disk.lsn);
			assert_true(p.flush <= m->disk.lsn);
			assert_true(p.flush >= *told);
			*told = p.flush;
			*confirmed_any = true;
		}
	}
}

/* Random orders, and a crash after `life` steps: the next life begins where the disk is. */
static void random_lives(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 60; seed++) {
		srand(seed);
		uint64_t told = 0, lsn = 1000;
		struct position from = { 0 };
		bool confirmed_any = false;
		for (unsigned life = 0; life < 5; life++) {
			struct model m = { .disk = from };
			for (unsigned i = 1; i <= N; i++) {
				bool whole = rand() % 3;
				lsn += (unsigned)rand() % 50 + 1;
				m.end[i] = at(lsn, whole ? POSITION_WHOLE : i, whole ? lsn : 0);
			}
			struct ledger *l = ledger_new(&from);
			unsigned steps = (unsigned)rand() % (6 * N);
			for (unsigned i = 0; i < steps; i++) {
				step(l, &m, &confirmed_any, &told);
				compare(l, &m);
			}
			ledger_free(l);
			/* A store under way may or may not have reached the disk. */
			if (m.storing && rand() % 2)
				m.disk = m.writing;
			from = m.disk;
			assert_true(told <= from.lsn);
			lsn = from.lsn + 1; /* what was not stored comes again */
		}
		assert_true(confirmed_any);
	}
}

static void only_without_a_gap(void **state)
{
	(void)state;
	struct position none = { 0 }, p;
	struct ledger *l = ledger_new(&none);
	for (unsigned i = 1; i <= 3; i++) {
		p = at(i * 10, POSITION_WHOLE, i * 10);
		take(l, &p);
	}
	assert_true(ledger_delivered(l, 3));
	assert_true(ledger_delivered(l, 2));
	assert_false(ledger_wants_store(l));
	assert_true(ledger_delivered(l, 1));
	assert_true(ledger_wants_store(l));
	assert_int_equal(ledger_store_begin(l, &p), 3);
	assert_int_equal(p.lsn, 30);
	assert_false(ledger_confirm(l, &p));
	ledger_store_failed(l);
	assert_false(ledger_confirm(l, &p));
	ledger_store_begin(l, &p);
	ledger_stored(l);
	assert_true(ledger_confirm(l, &p));
	assert_int_equal(p.flush, 30);
	assert_false(ledger_confirm(l, &p));
	ledger_free(l);
}

static void not_streamed_is_not_delivered(void **state)
{
	(void)state;
	struct position none = { 0 }, p = at(10, POSITION_WHOLE, 10);
	struct ledger *l = ledger_new(&none);
	uint64_t token;
	assert_int_equal(ledger_received(l, &p, 1, &token, NULL), 0);
	assert_false(ledger_delivered(l, token));
	assert_false(ledger_delivered(l, 0));
	assert_false(ledger_delivered(l, 99));
	ledger_free(l);
}

static void the_load_moves_no_position(void **state)
{
	(void)state;
	struct position none = { 0 }, p;
	struct ledger *l = ledger_new(&none);
	take(l, &none);
	assert_true(ledger_delivered(l, 1));
	assert_true(ledger_wants_store(l));
	ledger_store_begin(l, &p);
	assert_true(position_is_none(&p));
	ledger_stored(l);
	assert_false(ledger_confirm(l, &p));
	assert_true(ledger_is_idle(l));
	ledger_free(l);
}

static void inside_a_transaction_flush_stays(void **state)
{
	(void)state;
	struct position from = at(10, POSITION_WHOLE, 12), p = at(20, 5, 0);
	struct ledger *l = ledger_new(&from);
	take(l, &p);
	ledger_delivered(l, 1);
	ledger_store_begin(l, &p);
	assert_int_equal(p.lsn, 20);
	assert_int_equal(p.flush, 12);
	ledger_stored(l);
	assert_true(ledger_confirm(l, &p));
	assert_int_equal(p.flush, 12);
	ledger_free(l);
}

static void foreign_and_backwards(void **state)
{
	(void)state;
	struct position from = at(10, POSITION_WHOLE, 10), p = at(9, POSITION_WHOLE, 9);
	struct ledger *l = ledger_new(&from);
	struct err e;
	uint64_t token;
	assert_int_equal(ledger_received(l, &p, 1, &token, &e), DMSR_EFATAL);
	assert_string_equal(e.id, "position.backwards");
	p = at(11, POSITION_WHOLE, 11);
	p.server = 8;
	assert_int_equal(ledger_received(l, &p, 1, &token, &e), DMSR_EFATAL);
	assert_string_equal(e.id, "server.changed");
	assert_int_equal(ledger_next(l), 1);
	ledger_free(l);
}

RUN_TESTS(cmocka_unit_test(random_lives), cmocka_unit_test(only_without_a_gap), cmocka_unit_test(not_streamed_is_not_delivered),
	cmocka_unit_test(the_load_moves_no_position), cmocka_unit_test(inside_a_transaction_flush_stays), cmocka_unit_test(foreign_and_backwards))
