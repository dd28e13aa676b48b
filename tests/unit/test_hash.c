/* hash: published and frozen values, and the map against a plain array under random work. */
#include "base/hash.h"
#include "test.h"

static void stable_is_the_same_for_ever(void **state)
{
	(void)state;
	assert_true(hash_stable("", 0, 0) == 0xefd01f60ba992926);
	assert_true(hash_stable("a", 1, 0) == 0x82a2a958a9bece5b);
	assert_true(hash_stable("public.orders", 13, 0) == 0x93ce6301a1494b13);
	assert_true(hash_stable("public.orders", 13, 1) == 0x9e28fd35dc8f8907);
}

static void bytes_tells_lengths_and_bits_apart(void **state)
{
	enum { N = 64 };
	uint64_t seen[N * 8 + N + 1];
	size_t n = 0;
	char zeros[N] = { 0 };
	(void)state;
	for (size_t len = 0; len <= N; len++)
		seen[n++] = hash_bytes(zeros, len);
	for (int bit = 0; bit < N * 8 - 1; bit++) {
		zeros[bit / 8] = (char)(1 << bit % 8);
		seen[n++] = hash_bytes(zeros, N);
		zeros[bit / 8] = 0;
	}
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			assert_false(seen[i] == seen[j]);
	assert_true(hash_bytes("abc", 3) == hash_bytes("abc", 3));
}

static void map_basics(void **state)
{
	int one = 1, two = 2;
	struct map *m = map_new();
	(void)state;
	assert_null(map_get(m, "a", 1));
	assert_null(map_put(m, "a", 1, &one));
	assert_null(map_put(m, "", 0, &two));
	assert_ptr_equal(map_get(m, "a", 1), &one);
	assert_ptr_equal(map_get(m, "", 0), &two);
	assert_null(map_get(m, "a\0", 2));
	assert_ptr_equal(map_put(m, "a", 1, &two), &one);
	assert_int_equal(map_size(m), 2);
	assert_ptr_equal(map_del(m, "a", 1), &two);
	assert_null(map_del(m, "a", 1));
	assert_int_equal(map_size(m), 1);
	assert_null(map_put_u32(m, 7, &one));
	assert_ptr_equal(map_get_u32(m, 7), &one);
	assert_ptr_equal(map_del_u32(m, 7), &one);
	map_free(m);
	map_free(NULL);
}

enum { KEYS = 500 };

struct order {
	const uint64_t *inserted_at; /* per key; 0: not there */
	uint64_t last;
	size_t n;
};

static void check_order(void *arg, const void *key, size_t n, void *value)
{
	struct order *o = arg;
	uint32_t k;
	assert_int_equal(n, sizeof k);
	memcpy(&k, key, sizeof k);
	assert_non_null(value);
	assert_true(o->inserted_at[k] > o->last);
	o->last = o->inserted_at[k];
	o->n++;
}

static void map_agrees_with_an_array(void **state)
{
	static int values[KEYS];
	static void *want[KEYS];
	static uint64_t inserted_at[KEYS];
	struct map *m = map_new();
	size_t live = 0;
	(void)state;
	srand(1);
	for (uint64_t step = 1; step < 60000; step++) {
		/* Waves of filling and emptying, so that the table grows, packs and shrinks. */
		bool filling = step / 3000 % 2 == 0;
		uint32_t k = (uint32_t)rand() % KEYS;
		if (rand() % 10 < (filling ? 8 : 2)) {
			assert_ptr_equal(map_put_u32(m, k, &values[rand() % KEYS]), want[k]);
			if (!want[k]) {
				inserted_at[k] = step;
				live++;
			}
			want[k] = map_get_u32(m, k);
			assert_non_null(want[k]);
		} else {
			assert_ptr_equal(map_del_u32(m, k), want[k]);
			live -= want[k] != NULL;
			want[k] = NULL;
		}
		assert_int_equal(map_size(m), live);
		k = (uint32_t)rand() % KEYS;
		assert_ptr_equal(map_get_u32(m, k), want[k]);
		if (step % 1000 == 0) {
			struct order o = { .inserted_at = inserted_at };
			map_each(m, check_order, &o);
			assert_int_equal(o.n, live);
		}
	}
	map_free(m);
}

RUN_TESTS(cmocka_unit_test(stable_is_the_same_for_ever), cmocka_unit_test(bytes_tells_lengths_and_bits_apart),
	cmocka_unit_test(map_basics), cmocka_unit_test(map_agrees_with_an_array))
