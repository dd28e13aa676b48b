/* target_catch: a table whose parts are of several snapshots comes to what the source had at the newest of them. By hand, and as a property: a source's random
 * history, loads that are killed again and again, parts that were kept, and the changes since the oldest of them; parts that rows move between; and parts
 * that such changes come between. */
#include "test.h"

#include "connectors/postgres/target_catch.h"

enum { KEYS = 24, PARTS = 6, HISTORY = 400 };

/* ---- a table: a key, a value, and a long one that updates leave out when it stays; and one that the server computes ---- */

struct row { bool is_there; int v, big, place; /* of which part it is, where that is no matter of the key; at the source */ };
struct table { struct row rows[KEYS]; };

enum what { INSERT, UPDATE, MOVE, DELETE, TRUNCATE };
struct event { enum what what; int key, to, v, big /* -1: it stays */, place; };

static struct relation *table_relation(enum key_kind key)
{
	struct relation_builder *b = relation_build("postgres", "public", "t", 1);
	struct column columns[] = {
		{ .name = "id", .native_type = "integer", .type = TYPE_INT32, .key_pos = 1 },
		{ .name = "v", .native_type = "integer", .type = TYPE_INT32 },
		{ .name = "big", .native_type = "text", .type = TYPE_TEXT },
		{ .name = "g", .native_type = "integer", .type = TYPE_INT32, .flags = COLUMN_GENERATED },
	};
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
		relation_build_column(b, &columns[i]);
	return relation_seal(b, key);
}

static struct value number(struct batch *b, int n)
{
	char text[16];
	int len = snprintf(text, sizeof text, "%d", n);
	char *own = arena_alloc(&b->arena, (size_t)len + 1);
	memcpy(own, text, (size_t)len + 1);
	return (struct value){ .kind = VALUE_TEXT, .data = own, .len = (uint32_t)len };
}

static const struct value *image(struct batch *b, int key, int v, int big)
{
	struct value *row = batch_values(b, 4);
	row[0] = number(b, key);
	row[1] = number(b, v);
	row[2] = big < 0 ? (struct value){ .kind = VALUE_UNCHANGED } : number(b, big);
	row[3] = (struct value){ .kind = VALUE_UNCHANGED };
	return row;
}

static const struct value *key_image(struct batch *b, int key)
{
	struct value *row = batch_values(b, 4);
	for (int i = 1; i < 4; i++)
		row[i] = (struct value){ .kind = VALUE_UNCHANGED };
	row[0] = number(b, key);
	return row;
}

static struct change *change_of(struct batch *b, struct relation *rel, const struct event *ev)
{
	static const enum change_op ops[] = { OP_CREATE, OP_UPDATE, OP_UPDATE, OP_DELETE };
	struct change *ch = batch_append(b, ops[ev->what], rel);
	if (ev->what != INSERT && ev->what != UPDATE)
		ch->u.row.before = key_image(b, ev->key), ch->flags = CHANGE_KEY_ONLY;
	if (ev->what != DELETE)
		ch->u.row.after = image(b, ev->what == MOVE ? ev->to : ev->key, ev->v, ev->big);
	return ch;
}

/* ---- what a server does with a statement ---- */

static int int_of(const struct value *v) { return (int)strtol(v->data, NULL, 10); }

/* How many rows it hit; -1: there is one of that key already. */
static int run(struct table *t, const struct change *ch)
{
	const struct value *after = ch->u.row.after, *before = ch->u.row.before ? ch->u.row.before : after;
	struct row *old = &t->rows[int_of(&before[0])];
	if (ch->op == OP_CREATE) {
		struct row *new = &t->rows[int_of(&after[0])];
		if (new->is_there)
			return -1;
		assert_int_equal(after[2].kind, VALUE_TEXT);
		*new = (struct row){ .is_there = true, .v = int_of(&after[1]), .big = int_of(&after[2]) };
		return 1;
	}
	if (!old->is_there)
		return 0;
	if (ch->op == OP_DELETE) {
		old->is_there = false;
		return 1;
	}
	struct row *new = &t->rows[int_of(&after[0])], moved = *old;
	if (new != old &&new->is_there)
		return -1;
	moved.v = int_of(&after[1]);
	if (after[2].kind != VALUE_UNCHANGED)
		moved.big = int_of(&after[2]);
	old->is_there = false;
	*new = moved;
	return 1;
}

/* ---- the source ---- */

static uint64_t dice_of(uint64_t *rnd, uint64_t sides)
{
	*rnd = *rnd * 6364136223846793005u + 1442695040888963407u;
	return (*rnd >> 33) % sides;
}

static struct event random_event(const struct table *t, uint64_t *rnd)
{
	struct event ev = { .key = (int)dice_of(rnd, KEYS), .to = (int)dice_of(rnd, KEYS), .v = (int)dice_of(rnd, 1000), .big = (int)dice_of(rnd, 1000) };
	unsigned dice = (unsigned)dice_of(rnd, 100);
	if (dice < 1)
		ev.what = TRUNCATE;
	else if (!t->rows[ev.key].is_there)
		ev.what = INSERT;
	else if (dice < 25)
		ev.what = DELETE;
	else if (dice < 50 && !t->rows[ev.to].is_there)
		ev.what = MOVE;
	else
		ev.what = UPDATE;
	ev.place = ev.what == INSERT || dice_of(rnd, 2) ? (int)dice_of(rnd, PARTS) : -1;
	if ((ev.what == UPDATE && dice_of(rnd, 2)) || (ev.what == MOVE && !dice_of(rnd, 40)))
		ev.big = -1;
	return ev;
}

static void happen(struct table *t, struct relation *rel, const struct event *ev)
{
	if (ev->what == TRUNCATE) {
		*t = (struct table){ 0 };
		return;
	}
	struct batch *b = batch_new();
	assert_int_equal(run(t, change_of(b, rel, ev)), 1);
	batch_free(b);
	if (ev->what != DELETE && ev->place >= 0)
		t->rows[ev->what == MOVE ? ev->to : ev->key].place = ev->place;
}

static void assert_same(const struct table *a, const struct table *b)
{
	for (int k = 0; k < KEYS; k++) {
		assert_int_equal(a->rows[k].is_there, b->rows[k].is_there);
		if (!a->rows[k].is_there)
			continue;
		assert_int_equal(a->rows[k].v, b->rows[k].v);
		assert_int_equal(a->rows[k].big, b->rows[k].big);
	}
}

/* ---- the property ---- */

/* Rows that lie there take the place of those of the same key. */
static void take_place(struct table *target, const struct table *seen, int part)
{
	for (int k = 0; k < KEYS; k++)
		if (seen->rows[k].is_there && seen->rows[k].place == part)
			target->rows[k] = seen->rows[k];
}

/* Loads, killed until all parts are there; the snapshot of each. */
static void load(const struct table *history, struct table *target, int at[PARTS], bool by_place, uint64_t *rnd)
{
	int now = (int)dice_of(rnd, HISTORY / 4), left = PARTS;
	for (int p = 0; p < PARTS; p++)
		at[p] = -1;
	while (left) {
		bool is_killed = dice_of(rnd, 3);
		for (int p = 0; p < PARTS; p++) {
			if (at[p] >= 0 || (is_killed && dice_of(rnd, 2)))
				continue;
			at[p] = now;
			left--;
			if (by_place)
				take_place(target, &history[now], p);
			else
				memcpy(&target->rows[p * KEYS / PARTS], &history[now].rows[p * KEYS / PARTS], KEYS / PARTS * sizeof(struct row));
		}
		now += (int)dice_of(rnd, HISTORY / 8);
		now = now < HISTORY ? now : HISTORY;
	}
}

/* False: a change came that the parts cannot do with. */
static bool catch_up(struct table *target, struct relation *rel, const struct event *events, int from, int until, bool by_place)
{
	bool is_lost = false;
	for (int i = from; i < until && !is_lost; i++) {
		if (events[i].what == TRUNCATE) {
			*target = (struct table){ 0 };
			continue;
		}
		struct change plan[CATCH_MAX];
		struct batch *b = batch_new();
		unsigned n = catch_plan(change_of(b, rel, &events[i]), by_place, plan);
		for (unsigned k = 0; k < n; k++) {
			int hit = run(target, &plan[k]);
			assert_int_not_equal(hit, -1);
			is_lost |= by_place && plan[k].op == OP_UPDATE && !hit;
		}
		batch_free(b);
		if (!n) {
			assert_true(events[i].what == MOVE && events[i].big < 0);
			return false;
		}
	}
	return !is_lost;
}

static bool one_life(struct relation *rel, bool by_place, uint64_t seed)
{
	static struct event events[HISTORY];
	static struct table history[HISTORY + 1];
	struct table target = { 0 };
	int at[PARTS], from = HISTORY, until = 0;
	uint64_t rnd = seed;
	history[0] = (struct table){ 0 };
	for (int i = 0; i < HISTORY; i++) {
		history[i + 1] = history[i];
		events[i] = random_event(&history[i], &rnd);
		happen(&history[i + 1], rel, &events[i]);
	}
	load(history, &target, at, by_place, &rnd);
	for (int p = 0; p < PARTS; p++) {
		from = at[p] < from ? at[p] : from;
		until = at[p] > until ? at[p] : until;
	}
	if (!catch_up(&target, rel, events, from, until, by_place))
		return false;
	assert_same(&target, &history[until]);
	/* From here on nothing is forgiven. */
	for (int i = until; i < HISTORY; i++)
		happen(&target, rel, &events[i]);
	assert_same(&target, &history[HISTORY]);
	return true;
}

/* ---- the same of a table that takes turns with the stream ---- */

/* What a snapshot sees when `out` of the history have come by the stream: these, and of those up to `until` some. Who changes what another has changed waits
 * until that is seen; else commits are seen in any order. */
static struct table snapshot(const struct table *history, struct relation *rel, const struct event *events, int out, int until, uint64_t *rnd)
{
	struct table seen = history[out];
	bool is_hidden[KEYS] = { false }, hides = false;
	for (int i = out; i < until; i++) {
		const struct event *ev = &events[i];
		int to = ev->what == MOVE ? ev->to : ev->key;
		bool is_behind = ev->what == TRUNCATE ? hides : is_hidden[ev->key] || is_hidden[to];
		if (!is_behind && dice_of(rnd, 3)) {
			happen(&seen, rel, ev);
			continue;
		}
		hides = is_hidden[ev->key] = is_hidden[to] = true;
		for (int k = 0; k < KEYS && ev->what == TRUNCATE; k++)
			is_hidden[k] = true;
	}
	return seen;
}

/* Rows of the part take the place of those of the same key; others that came by the stream stay. */
static void merge(struct table *target, const struct table *seen, int part)
{
	for (int k = part * KEYS / PARTS; k < (part + 1) * KEYS / PARTS; k++)
		if (seen->rows[k].is_there)
			target->rows[k] = seen->rows[k];
}

static bool one_life_in_turns(struct relation *rel, uint64_t seed)
{
	static struct event events[HISTORY];
	static struct table history[HISTORY + 1];
	struct table target = { 0 };
	uint64_t rnd = seed;
	history[0] = (struct table){ 0 };
	for (int i = 0; i < HISTORY; i++) {
		history[i + 1] = history[i];
		events[i] = random_event(&history[i], &rnd);
		happen(&history[i + 1], rel, &events[i]);
	}
	int out = (int)dice_of(&rnd, HISTORY / 4), newest = out;
	merge(&target, &history[out], 0);
	for (int p = 1; p < PARTS; p++) {
		int next = out + (int)dice_of(&rnd, HISTORY / 10), until = next + (int)dice_of(&rnd, HISTORY / 10);
		if (!catch_up(&target, rel, events, out, next, false))
			return false;
		out = next;
		struct table seen = snapshot(history, rel, events, out, until, &rnd);
		merge(&target, &seen, p);
		newest = until > newest ? until : newest;
	}
	if (!catch_up(&target, rel, events, out, newest, false))
		return false;
	assert_same(&target, &history[newest]);
	for (int i = newest; i < HISTORY; i++)
		happen(&target, rel, &events[i]);
	assert_same(&target, &history[HISTORY]);
	return true;
}

static void test_any_history_in_turns(void **state)
{
	struct relation *rel = table_relation(KEY_PRIMARY);
	unsigned whole = 0, lives = 4000;
	(void)state;
	for (unsigned seed = 1; seed <= lives; seed++)
		whole += one_life_in_turns(rel, seed);
	assert_in_range(whole, lives / 4, lives - 1);
	relation_unref(rel);
}

static void test_any_history(void **state)
{
	struct relation *rel = table_relation(KEY_PRIMARY);
	unsigned whole = 0, lives = 4000;
	(void)state;
	for (unsigned seed = 1; seed <= lives; seed++)
		whole += one_life(rel, false, seed);
	assert_in_range(whole, lives / 4, lives - 1);
	relation_unref(rel);
}

/* Parts are ranges of blocks: a row that is updated may go from one into another. */
static void test_any_history_of_places(void **state)
{
	struct relation *rel = table_relation(KEY_PRIMARY);
	unsigned whole = 0, lives = 4000;
	(void)state;
	for (unsigned seed = 1; seed <= lives; seed++)
		whole += one_life(rel, true, seed);
	assert_in_range(whole, lives / 4, lives - 1);
	relation_unref(rel);
}

/* ---- by hand ---- */

static void test_plans(void **state)
{
	struct relation *rel = table_relation(KEY_PRIMARY), *full = table_relation(KEY_FULL);
	struct batch *b = batch_new();
	struct change plan[CATCH_MAX];
	(void)state;
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ INSERT, 1, 0, 2, 3, -1 }), false, plan), 2);
	assert_int_equal(plan[0].op, OP_DELETE);
	assert_int_equal(plan[1].op, OP_CREATE);
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ UPDATE, 1, 0, 2, -1, -1 }), false, plan), 1);
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ DELETE, 1, 0, 0, 0, -1 }), false, plan), 1);
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ MOVE, 1, 2, 5, 6, -1 }), false, plan), 3);
	assert_int_equal(int_of(&plan[0].u.row.before[0]), 1);
	assert_int_equal(int_of(&plan[1].u.row.before[0]), 2);
	assert_int_equal(plan[2].op, OP_CREATE);
	assert_null(plan[2].u.row.before);
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ MOVE, 1, 2, 5, -1, -1 }), false, plan), 0);
	assert_int_equal(catch_plan(change_of(b, full, &(struct event){ DELETE, 1, 0, 0, 0, -1 }), false, plan), 0);
	/* The old key is sent, and is the new one too: nothing moves. */
	struct change *ch = change_of(b, rel, &(struct event){ MOVE, 1, 1, 5, -1, -1 });
	assert_false(catch_moves_key(ch));
	assert_int_equal(catch_plan(ch, false, plan), 1);
	/* A row that may be in no part: an update that has all of it makes it. */
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ UPDATE, 1, 0, 2, 3, -1 }), true, plan), 2);
	assert_int_equal(plan[0].op, OP_DELETE);
	assert_int_equal(plan[1].op, OP_CREATE);
	assert_int_equal(catch_plan(change_of(b, rel, &(struct event){ UPDATE, 1, 0, 2, -1, -1 }), true, plan), 1);
	assert_int_equal(plan[0].op, OP_UPDATE);
	/* The whole old row: who sends it may have a key that two rows have for a while. */
	ch = change_of(b, rel, &(struct event){ DELETE, 1, 0, 0, 0, -1 });
	ch->flags = 0;
	assert_int_equal(catch_plan(ch, false, plan), 0);
	batch_free(b);
	relation_unref(rel);
	relation_unref(full);
}

RUN_TESTS(cmocka_unit_test(test_plans), cmocka_unit_test(test_any_history), cmocka_unit_test(test_any_history_of_places),
	cmocka_unit_test(test_any_history_in_turns))
