/* target_depend, target_claims, target_ahead: which transactions may pass each other. By hand, and as a property: random transactions on a model with
 * unique indexes and foreign keys are placed, begun and committed in every order that is allowed, until a crash; what the lanes' rows say is what is
 * there, no constraint was ever hurt, and with the rest, in order, the end is that of serial order. */
#include "test.h"

#include "connectors/postgres/target_ahead.h"
#include "connectors/postgres/target_claims.h"

/* ---- depend, by hand ---- */

static uint64_t place(struct depend *d, unsigned *lane, uint64_t after[DEPEND_LANES_MAX], uint64_t token, enum depend_mode mode)
{
	depend_claim(d, token, mode);
	return depend_place(d, 1, lane, after);
}

static void test_conflicts_stay_together(void **state)
{
	struct depend *d = depend_new(2);
	uint64_t after[DEPEND_LANES_MAX];
	unsigned a, b;
	(void)state;
	for (uint64_t token = 0; token < 3000; token++) { /* more than the table has at first */
		assert_int_equal(place(d, &a, after, token, DEPEND_ALONE), 2 * token + 1);
		place(d, &b, after, token, DEPEND_ALONE);
		assert_int_equal(a, b);
		assert_int_equal(after[0] + after[1], 0);
	}
	depend_free(d);
}

static void test_waits_for_other_lanes(void **state)
{
	struct depend *d = depend_new(2);
	uint64_t after[DEPEND_LANES_MAX], n0 = 0, n1 = 0;
	unsigned lane;
	(void)state;
	/* One token in each lane. */
	for (uint64_t token = 2; !n0 || !n1; token++) {
		uint64_t n = place(d, &lane, after, token, DEPEND_ALONE);
		*(lane ? &n1 : &n0) = n;
		depend_claim(d, 1000 + lane, DEPEND_ALONE);
		depend_drop(d);
		if (lane ? n1 == n : n0 == n)
			depend_claim(d, token, DEPEND_ALONE);
		depend_drop(d);
	}
	/* A third that claims everything so far goes behind the newest, and waits for the other lane. */
	for (uint64_t token = 2; token < 40; token++)
		depend_claim(d, token, DEPEND_ONE);
	uint64_t n = depend_place(d, 1, &lane, after);
	assert_int_equal(lane, n1 > n0);
	assert_int_equal(after[lane], 0);
	assert_int_equal(after[!lane], lane ? n0 : n1);
	depend_committed(d, !lane, after[!lane], 1);
	/* What is committed holds nobody up. */
	for (uint64_t token = 2; token < 40; token++)
		depend_claim(d, token, DEPEND_ONE);
	assert_int_equal(depend_place(d, 1, &lane, after), n + 1);
	assert_int_equal(after[0] + after[1], 0);
	assert_int_equal(depend_clear(d), n + 1);
	depend_free(d);
}

/* Where commits take long and most transactions conflict, those that do not follow the others; where one of it is not so, they are spread. */
static void test_stays_together_where_commits_take_long(void **state)
{
	(void)state;
	for (int n = 0; n < 4; n++) {
		bool is_slow = n & 1, conflict = n & 2;
		struct depend *d = depend_new(4);
		uint64_t after[DEPEND_LANES_MAX];
		unsigned lane, before = 0, moved = 0;
		for (int i = 0; i < 50; i++)
			depend_took(d, is_slow ? 20000 : 200);
		for (uint64_t i = 0; i < 400; i++) {
			if (conflict && i % 2)
				depend_claim(d, 7, DEPEND_ALONE);
			place(d, &lane, after, 1000 + i, DEPEND_ALONE);
			moved += i > 100 && lane != before;
			before = lane;
		}
		assert_true(is_slow && conflict ? !moved : moved > 50);
		depend_free(d);
	}
}

static void test_modes(void **state)
{
	static const struct { enum depend_mode first, second; bool conflict; } cases[] = {
		{ DEPEND_ONE, DEPEND_ONE, false }, { DEPEND_OTHER, DEPEND_OTHER, false }, { DEPEND_ONE, DEPEND_OTHER, true },
		{ DEPEND_OTHER, DEPEND_ONE, true }, { DEPEND_ALONE, DEPEND_ONE, true }, { DEPEND_ONE, DEPEND_ALONE, true },
		{ DEPEND_ALONE, DEPEND_OTHER, true }, { DEPEND_ALONE, DEPEND_ALONE, true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool apart = false;
		for (uint64_t other = 100; other < 140 && !apart; other++) {
			struct depend *d = depend_new(2);
			uint64_t after[DEPEND_LANES_MAX];
			unsigned a, b;
			place(d, &a, after, 7, cases[i].first);
			depend_claim(d, other, DEPEND_ALONE);
			place(d, &b, after, 7, cases[i].second);
			apart = a != b;
			depend_free(d);
		}
		assert_int_equal(apart, !cases[i].conflict);
	}
}

/* ---- ahead ---- */

static void test_ahead_text(void **state)
{
	struct ahead a, b;
	struct err e = { 0 };
	struct buf text;
	(void)state;
	ahead_init(&a);
	ahead_init(&b);
	buf_init(&text, 4096);
	assert_int_equal(ahead_merge(&a, "pg:7:0/100:*:0/108 +8 +f8", &e), 0);
	assert_true(ahead_has(&a, 0x108) && ahead_has(&a, 0x200) && !ahead_has(&a, 0x100) && !ahead_has(&a, 0x1ff));
	/* Another lane knows more of the position, and has one of its own. */
	assert_int_equal(ahead_merge(&a, "pg:7:0/108:*:0/110 +300 +1", &e), 0);
	ahead_format(&a, &text);
	assert_string_equal(buf_cstr(&text), "pg:7:0/108:*:0/110 +f8 +208 +1");
	assert_int_equal(ahead_merge(&b, buf_cstr(&text), &e), 0);
	assert_int_equal(ahead_merge(&b, "none +5", &e), 0);
	assert_int_equal(b.n, 3);
	/* Inside of a transaction that is whole elsewhere. */
	assert_int_equal(ahead_merge(&b, "pg:7:0/200:4:0/0", &e), 0);
	assert_true(ahead_has(&b, 0x200) && b.n == 3);
	ahead_raise(&b, &(struct position){ .kind = POSITION_LSN, .server = 7, .lsn = 0x408, .event = POSITION_WHOLE });
	assert_int_equal(b.n, 1);
	static const char *const bad[] = { "", "pg:7:0/100:*:0/108 ", "pg:7:0/100:*:0/108 +", "pg:7:0/100:*:0/108 +g",
		"pg:7:0/100:*:0/108 8", "pg:7:0/100:*:0/108 +8 +0", "pg:7:0/100:*:0/108 +-1", "pg:7:0/100:*:0/108 +ffffffffffffffff", "pg:7:0/100:*:0/108 +8+8",
		"pg:8:0/100:*:0/108", "what" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_not_equal(ahead_merge(&b, bad[i], &e), 0);
		assert_int_equal(b.n, 1);
	}
	ahead_fini(&a);
	ahead_fini(&b);
	buf_fini(&text);
}

/* ---- the model ---- */

enum { PARENT, CHILD, FULL, LOG, TABLES };
enum { ROWS = 14, VALUES = 10, LANES = 3, TRANSACTIONS = 60, STATEMENTS = 4 };
/* A row: a key, and one value: PARENT unique; CHILD: a parent's key or 0; FULL: any, and the key is its second column; LOG: counted. */
struct row { bool is; unsigned v; };
struct db { struct row rows[TABLES][ROWS]; unsigned log; };

struct txn_model {
	struct txn txn;
	struct change changes[STATEMENTS];
	unsigned n;
	uint64_t number, after[DEPEND_LANES_MAX];
	unsigned lane;
};

static struct relation *rels[TABLES];
static struct claim_rules *rules[TABLES];
static struct arena memory;
static unsigned seed;

static unsigned pick(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

static struct relation *relation_of(const char *name, enum key_kind key)
{
	struct relation_builder *b = relation_build("postgres", "public", name, 1);
	struct column c = { .name = "id", .native_type = "integer", .type_id = 23, .typmod = -1, .type = TYPE_INT32, .key_pos = key == KEY_PRIMARY };
	relation_build_column(b, &c);
	c.name = "v";
	c.key_pos = 0;
	relation_build_column(b, &c);
	return relation_seal(b, key);
}

static struct claim_row column_of(char kind, unsigned group, const char *ident, const char *column)
{
	return (struct claim_row){ .kind = kind, .group = group, .ident = ident, .column = column, .type = 23, .is_exact = true };
}

static int setup(void **state)
{
	struct claim_row parent[] = { column_of('p', 1, "P", "id"), column_of('u', 2, "2", "id"), column_of('u', 3, "3", "v") };
	struct claim_row child[] = { column_of('c', 1, "P", "v"), column_of('u', 4, "4", "id") };
	struct claim_row full[] = { column_of('u', 5, "5", "v") };
	(void)state;
	rels[PARENT] = relation_of("parent", KEY_PRIMARY);
	rels[CHILD] = relation_of("child", KEY_PRIMARY);
	rels[FULL] = relation_of("full", KEY_FULL);
	rels[LOG] = relation_of("log", KEY_NONE);
	rules[PARENT] = claim_rules_new(rels[PARENT], 1, parent, 3);
	rules[CHILD] = claim_rules_new(rels[CHILD], 2, child, 2);
	rules[FULL] = claim_rules_new(rels[FULL], 3, full, 1);
	rules[LOG] = claim_rules_new(rels[LOG], 4, NULL, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TABLES; i++) {
		claim_rules_free(rules[i]);
		relation_unref(rels[i]);
	}
	return 0;
}

static struct value number_of(unsigned n)
{
	char text[12];
	int len = snprintf(text, sizeof text, "%u", n);
	return value_text(arena_dup(&memory, text, (size_t)len), (uint32_t)len);
}

static const struct value *values_of(unsigned key, unsigned v, bool key_only)
{
	struct value *out = arena_alloc(&memory, 2 * sizeof *out);
	out[0] = number_of(key);
	out[1] = key_only ? (struct value){ .kind = VALUE_UNCHANGED } : v ? number_of(v) : (struct value){ .kind = VALUE_NULL };
	return out;
}

static const struct value *row_of(unsigned table, unsigned key, unsigned v, bool key_only)
{
	return table == FULL ? values_of(v, key, false) : values_of(key, v, key_only);
}

static unsigned read_value(const struct value *v) { return v->kind == VALUE_TEXT ? (unsigned)strtoul(v->data, NULL, 10) : 0; }

static bool takes(const struct db *db, unsigned table, unsigned v)
{
	if (table != PARENT)
		return true;
	for (unsigned i = 0; i < ROWS; i++)
		if (db->rows[table][i].is && db->rows[table][i].v == v)
			return false;
	return true;
}

static unsigned table_of(const struct change *ch)
{
	unsigned t = 0;
	while (rels[t] != ch->rel)
		t++;
	return t;
}

/* False: the server would refuse it. */
static bool apply(struct db *db, const struct change *ch)
{
	const struct value *before = ch->u.row.before, *after = ch->u.row.after;
	unsigned t = table_of(ch), at = t == FULL, key = read_value(&(before ? before : after)[at]);
	unsigned new_key = after ? read_value(&after[at]) : key, v = after ? read_value(&after[!at]) : 0;
	if (t == LOG) {
		db->log += v;
		return true;
	}
	struct row *row = &db->rows[t][key], *to = &db->rows[t][new_key];
	if ((ch->op != OP_CREATE) != row->is || (ch->op != OP_DELETE && new_key != key && to->is))
		return false;
	row->is = false;
	if (ch->op == OP_DELETE)
		return true;
	if (!takes(db, t, v))
		return false;
	*to = (struct row){ true, v };
	return true;
}

static bool refers_well(const struct db *db)
{
	for (unsigned i = 0; i < ROWS; i++)
		if (db->rows[CHILD][i].is && db->rows[CHILD][i].v && !db->rows[PARENT][db->rows[CHILD][i].v].is)
			return false;
	return true;
}

static bool apply_txn(struct db *db, const struct txn_model *x)
{
	for (unsigned i = 0; i < x->n; i++)
		if (!apply(db, &x->changes[i]))
			return false;
	return refers_well(db); /* deferred */
}

/* What the source would send of something random. */
static void random_change(const struct db *db, struct change *ch)
{
	unsigned t = pick(TABLES), key = 1 + pick(ROWS - 1), v = t == CHILD ? pick(ROWS) : 1 + pick(VALUES);
	const struct row *row = &db->rows[t][key];
	bool is_full = t == FULL;
	*ch = (struct change){ .op = OP_CREATE, .rel = rels[t] };
	if (t == LOG || !row->is) {
		ch->u.row.after = row_of(t, key, v, false);
		return;
	}
	if (pick(2)) {
		unsigned new_key = pick(4) ? key : 1 + pick(ROWS - 1);
		bool is_same = pick(3) == 0;
		ch->op = OP_UPDATE;
		ch->u.row.after = row_of(t, new_key, is_same ? row->v : v, false);
		if (new_key != key || is_full)
			ch->u.row.before = row_of(t, key, row->v, !is_full);
	} else {
		ch->op = OP_DELETE;
		ch->u.row.before = row_of(t, key, row->v, !is_full);
	}
}

static void random_txn(struct db *db, struct txn_model *x)
{
	for (;;) {
		struct db next = *db;
		unsigned n = 1 + pick(STATEMENTS);
		x->n = 0;
		while (x->n < n) {
			struct db before = next;
			random_change(&next, &x->changes[x->n]);
			if (apply(&next, &x->changes[x->n]))
				x->n++;
			else
				next = before;
		}
		if (!refers_well(&next))
			continue;
		*db = next;
		return;
	}
}

/* ---- the property ---- */

struct run {
	struct txn_model all[TRANSACTIONS];
	unsigned nplaced;
	struct depend *d;
	struct claimer *claimer;
	bool committed[TRANSACTIONS];
	unsigned queue[LANES][TRANSACTIONS], nqueue[LANES], begun[LANES], done[LANES];
	uint64_t committed_number[LANES];
	struct db db;
	char *told[LANES];              /* the lane's row */
	struct ahead own[LANES];
	unsigned moved_past;            /* commits while an earlier transaction was not committed */
};

static void place_next(struct run *r)
{
	struct txn_model *x = &r->all[r->nplaced];
	for (unsigned i = 0; i < x->n; i++)
		claimer_add(r->claimer, rules[table_of(&x->changes[i])], &x->changes[i]);
	x->number = depend_place(r->d, 1, &x->lane, x->after);
	r->queue[x->lane][r->nqueue[x->lane]++] = r->nplaced++;
}

/* In its lane's view: what is committed, and what that lane has begun. */
static void begin_next(struct run *r, unsigned lane)
{
	struct txn_model *x = &r->all[r->queue[lane][r->begun[lane]]];
	struct db view = r->db;
	for (unsigned l = 0; l < LANES; l++)
		if (x->after[l] > r->committed_number[l])
			return;
	for (unsigned i = r->done[lane]; i < r->begun[lane]; i++)
		assert_true(apply_txn(&view, &r->all[r->queue[lane][i]]));
	assert_true(apply_txn(&view, x));
	r->begun[lane]++;
}

static struct position low_of(const struct run *r)
{
	unsigned n = 0;
	while (n < TRANSACTIONS && r->committed[n])
		n++;
	if (!n)
		return (struct position){ 0 };
	return (struct position){ .kind = POSITION_LSN, .server = 7, .lsn = r->all[n - 1].txn.lsn, .event = POSITION_WHOLE };
}

static void commit(struct run *r, unsigned lane)
{
	struct position low = low_of(r);
	struct buf text;
	if (r->done[lane] == r->begun[lane])
		return;
	ahead_raise(&r->own[lane], &low);
	size_t n = r->begun[lane] - r->done[lane];
	for (; r->done[lane] < r->begun[lane]; r->done[lane]++) {
		unsigned at = r->queue[lane][r->done[lane]];
		assert_true(apply_txn(&r->db, &r->all[at]));
		ahead_add(&r->own[lane], r->all[at].txn.lsn);
		r->committed[at] = true;
		r->committed_number[lane] = r->all[at].number;
	}
	r->moved_past += low_of(r).lsn < r->own[lane].lsns[r->own[lane].n - 1];
	depend_committed(r->d, lane, r->committed_number[lane], n);
	buf_init(&text, 1 << 16);
	ahead_format(&r->own[lane], &text);
	free(r->told[lane]);
	r->told[lane] = mem_strdup(buf_cstr(&text));
	buf_fini(&text);
}

static void step(struct run *r)
{
	unsigned lane = pick(LANES);
	switch (pick(5)) {
	case 0: case 1:
		if (r->nplaced < TRANSACTIONS)
			place_next(r);
		break;
	case 2: case 3:
		if (r->begun[lane] < r->nqueue[lane])
			begin_next(r, lane);
		break;
	default:
		commit(r, lane);
	}
}

/* The next start: by the rows alone. */
static void recover(struct run *r, const struct db *serial)
{
	struct ahead known;
	struct err e = { 0 };
	ahead_init(&known);
	for (unsigned l = 0; l < LANES; l++)
		if (r->told[l])
			assert_int_equal(ahead_merge(&known, r->told[l], &e), 0);
	for (unsigned i = 0; i < TRANSACTIONS; i++) {
		uint64_t lsn = r->all[i].txn.lsn;
		bool is_there = position_covers(&known.low, lsn, POSITION_WHOLE) || ahead_has(&known, lsn);
		assert_int_equal(is_there, r->committed[i]);
		if (!is_there)
			assert_true(apply_txn(&r->db, &r->all[i]));
	}
	ahead_fini(&known);
	assert_memory_equal(r->db.rows[CHILD], serial->rows[CHILD], sizeof serial->rows[CHILD]);
	assert_int_equal(r->db.log, serial->log);
	for (unsigned t = 0; t < LOG; t++) {
		for (unsigned i = 0; i < ROWS; i++) {
			assert_int_equal(r->db.rows[t][i].is, serial->rows[t][i].is);
			assert_true(!serial->rows[t][i].is || r->db.rows[t][i].v == serial->rows[t][i].v);
		}
	}
}

static unsigned one_run(void)
{
	struct run *r = mem_zalloc(sizeof *r);
	struct db serial = { 0 };
	unsigned steps = 20 + pick(500), moved_past;
	arena_init(&memory, 0);
	for (unsigned i = 0; i < TRANSACTIONS; i++) {
		struct txn_model *x = &r->all[i];
		random_txn(&serial, x);
		x->txn.lsn = 100 + 10 * i;
		for (unsigned c = 0; c < x->n; c++)
			x->changes[c].txn = &x->txn;
	}
	r->d = depend_new(LANES);
	r->claimer = claimer_new(r->d);
	while (steps--)
		step(r);
	recover(r, &serial);
	moved_past = r->moved_past;
	for (unsigned l = 0; l < LANES; l++) {
		free(r->told[l]);
		ahead_fini(&r->own[l]);
	}
	claimer_free(r->claimer);
	depend_free(r->d);
	free(r);
	arena_fini(&memory);
	return moved_past;
}

static void test_any_order_that_is_allowed(void **state)
{
	unsigned moved_past = 0;
	(void)state;
	for (unsigned i = 1; i <= 4000; i++) {
		seed = i;
		moved_past += one_run();
	}
	assert_true(moved_past > 4000); /* it was not all in one lane */
}

/* ---- claims, by hand: may the second pass the first? ---- */

static struct change row_change(unsigned table, enum change_op op, const struct value *before, const struct value *after)
{
	struct change ch = { .op = (uint8_t)op, .rel = rels[table] };
	ch.u.row.before = before;
	ch.u.row.after = after;
	return ch;
}

static bool may_pass(const struct claim_rules *k, struct change first, struct change second)
{
	for (uint64_t other = 1; other < 60; other++) {
		struct depend *d = depend_new(4);
		struct claimer *c = claimer_new(d);
		uint64_t after[DEPEND_LANES_MAX];
		unsigned a, b;
		claimer_add(c, k, &first);
		depend_place(d, 1, &a, after);
		depend_claim(d, other, DEPEND_ALONE);
		claimer_add(c, k, &second);
		depend_place(d, 1, &b, after);
		claimer_free(c);
		depend_free(d);
		if (a != b)
			return true;
	}
	return false;
}

static void test_claims(void **state)
{
	struct claim_row numeric[] = { column_of('u', 1, "1", "id"), column_of('u', 2, "2", "v") };
	(void)state;
	arena_init(&memory, 0);
	struct change insert1 = row_change(PARENT, OP_CREATE, NULL, values_of(1, 1, false));
	struct change insert2 = row_change(PARENT, OP_CREATE, NULL, values_of(2, 2, false));
	struct change same_v = row_change(PARENT, OP_CREATE, NULL, values_of(2, 1, false));
	struct change delete3 = row_change(PARENT, OP_DELETE, values_of(3, 0, true), NULL);
	struct change delete4 = row_change(PARENT, OP_DELETE, values_of(4, 0, true), NULL);
	struct change update5 = row_change(PARENT, OP_UPDATE, NULL, values_of(5, 5, false));
	struct claim_rules *k = rules[PARENT];
	assert_true(may_pass(k, insert1, insert2));
	assert_false(may_pass(k, insert1, same_v));
	assert_true(may_pass(k, delete3, delete4));
	assert_false(may_pass(k, delete3, insert1));    /* it may have had that value */
	assert_false(may_pass(k, update5, insert1));
	/* Where equality is not that of bytes, or the columns are not the source's, none passes. */
	numeric[1].is_exact = false;
	k = claim_rules_new(rels[PARENT], 1, numeric, 2);
	assert_false(may_pass(k, insert1, insert2));
	claim_rules_free(k);
	numeric[1].is_exact = true;
	numeric[1].type = 25;
	k = claim_rules_new(rels[PARENT], 1, numeric, 2);
	assert_false(may_pass(k, insert1, insert2));
	claim_rules_free(k);
	/* Without a key: inserts alone. */
	assert_true(may_pass(rules[LOG], insert1, insert2));
	assert_false(may_pass(rules[LOG], insert1, delete3));
	/* Triggers and the like: the table is not for lanes. */
	numeric[0].kind = 'a';
	assert_null(claim_rules_new(rels[PARENT], 1, numeric, 2));
	/* The whole old row: an update tells which value it frees. */
	struct change full1 = row_change(FULL, OP_UPDATE, values_of(1, 1, false), values_of(1, 2, false));
	struct change full2 = row_change(FULL, OP_UPDATE, values_of(2, 3, false), values_of(2, 4, false));
	struct change full3 = row_change(FULL, OP_UPDATE, values_of(3, 5, false), values_of(3, 1, false));
	assert_true(may_pass(rules[FULL], full1, full2));
	assert_false(may_pass(rules[FULL], full1, full3));
	arena_fini(&memory);
}

static void test_trims(void **state)
{
	struct relation_builder *b = relation_build("postgres", "public", "n", 1);
	struct column c = { .name = "id", .native_type = "numeric", .type_id = 1700, .typmod = -1, .type = TYPE_NUMERIC, .key_pos = 1 };
	struct claim_row key = { .kind = 'u', .group = 1, .ident = "1", .column = "id", .type = 1700, .is_exact = true };
	static const struct { const char *a, *b; bool same; } cases[] = {
		{ "1.0", "1.00", true }, { "1", "1.000", true }, { "10", "1", false }, { "100", "10", false },
		{ "0.10", "0.1", true }, { "0.01", "0.1", false }, { "0.0", "0", true },
	};
	(void)state;
	relation_build_column(b, &c);
	struct relation *rel = relation_seal(b, KEY_PRIMARY);
	struct claim_rules *k = claim_rules_new(rel, 1, &key, 1);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct value one = value_text(cases[i].a, (uint32_t)strlen(cases[i].a)), two = value_text(cases[i].b, (uint32_t)strlen(cases[i].b));
		struct change first = { .op = OP_CREATE, .rel = rel }, second = first;
		first.u.row.after = &one;
		second.u.row.after = &two;
		assert_int_equal(may_pass(k, first, second), !cases[i].same);
	}
	claim_rules_free(k);
	relation_unref(rel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conflicts_stay_together),
		cmocka_unit_test(test_waits_for_other_lanes),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_stays_together_where_commits_take_long),
		cmocka_unit_test(test_ahead_text),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_trims),
		cmocka_unit_test(test_any_order_that_is_allowed),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
