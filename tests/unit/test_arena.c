/* arena: pieces are aligned, apart from each other, and counted. */
#include "base/arena.h"
#include "base/sanitizer.h"
#include "test.h"

static void pieces_are_aligned_and_apart(void **state)
{
	enum { N = 2000 };
	static unsigned char *pieces[N];
	struct arena a;
	(void)state;
	arena_init(&a, 1000);
	for (int i = 0; i < N; i++) {
		size_t n = (size_t)i % 700;
		pieces[i] = arena_alloc(&a, n);
		assert_int_equal((uintptr_t)pieces[i] % 8, 0);
		memset(pieces[i], i & 0xff, n);
	}
	for (int i = 0; i < N; i++)
		for (int j = 0; j < i % 700; j++)
			assert_int_equal(pieces[i][j], i & 0xff);
	arena_fini(&a);
}

static void no_bytes_have_an_address(void **state)
{
	struct arena a;
	(void)state;
	arena_init(&a, 0);
	assert_non_null(arena_alloc(&a, 0));
	assert_int_equal(a.bytes, 0);
	arena_fini(&a);
}

static void bytes_counts_what_malloc_gave(void **state)
{
	struct arena a;
	size_t asked = 0;
	(void)state;
	arena_init(&a, 4096);
	for (size_t n = 1; n < 100000; n = n * 3 + 1) {
		size_t before = a.bytes;
		arena_alloc(&a, n);
		asked += n;
		assert_true(a.bytes >= asked);
		assert_true(a.bytes - before <= n + 4096 + 64);
	}
	arena_fini(&a);
	assert_int_equal(a.bytes, 0);
	assert_null(a.chunks);
	assert_int_equal(a.chunk_bytes, 4096);
}

/* A batch of one row takes what a row needs, one of many asks malloc as rarely as ever. */
static void begins_small_and_doubles(void **state)
{
#ifndef DMSR_ASAN
	enum { CHUNK = 65536, FRAME = 64 };
	struct arena a;
	unsigned chunks = 0;
	size_t biggest = 0;
	arena_init(&a, CHUNK);
	arena_alloc(&a, 100);
	assert_in_range(a.bytes, 100, 2048 + FRAME);
	while (a.bytes < 20 * CHUNK) {
		size_t before = a.bytes;
		arena_alloc(&a, 100);
		if (a.bytes == before)
			continue;
		assert_true(a.bytes - before <= 2 * before); /* no more than twice what there is */
		biggest = a.bytes - before > biggest ? a.bytes - before : biggest;
		chunks++;
	}
	assert_in_range(biggest, CHUNK, CHUNK + FRAME);
	assert_in_range(chunks, 20, 26);
	arena_fini(&a);
	/* a piece that the first chunk has no room for lies in one that has room for more */
	arena_init(&a, CHUNK);
	char *first = arena_alloc(&a, 3000);
	assert_ptr_equal(arena_alloc(&a, 8), first + 3000);
	arena_fini(&a);
	/* one whose chunks are small begins with one of these */
	arena_init(&a, 512);
	arena_alloc(&a, 8);
	assert_in_range(a.bytes, 512, 512 + FRAME);
	arena_fini(&a);
#endif
	(void)state;
}

static void a_big_piece_leaves_the_chunk_in_use(void **state)
{
#ifndef DMSR_ASAN
	struct arena a;
	arena_init(&a, 4096);
	char *first = arena_alloc(&a, 16);
	arena_alloc(&a, 100000);
	assert_ptr_equal(arena_alloc(&a, 16), first + 16);
	arena_fini(&a);
#endif
	(void)state;
}

static void is_usable_again(void **state)
{
	struct arena a;
	(void)state;
	arena_init(&a, 64);
	for (int i = 0; i < 3; i++) {
		char *text = arena_dup(&a, "ab\0cd", 5);
		assert_memory_equal(text, "ab\0cd", 6);
		assert_string_equal(arena_strdup(&a, "hello"), "hello");
		assert_null(arena_strdup(&a, NULL));
		assert_string_equal(arena_dup(&a, NULL, 0), "");
		assert_memory_equal(arena_zalloc(&a, 40), (char[40]){ 0 }, 40);
		arena_fini(&a);
	}
}

RUN_TESTS(cmocka_unit_test(pieces_are_aligned_and_apart), cmocka_unit_test(no_bytes_have_an_address),
	cmocka_unit_test(bytes_counts_what_malloc_gave), cmocka_unit_test(begins_small_and_doubles),
	cmocka_unit_test(a_big_piece_leaves_the_chunk_in_use),
	cmocka_unit_test(is_usable_again))
