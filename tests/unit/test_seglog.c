/* seglog: what is on disk is what the format says, entries of the format before it are read, and none that was torn or changed is taken for what was
 * written. */
#include "engine/seglog.h"
#include "store_kit.h"
#include <fcntl.h>

enum { SEED = 7, OLD = 1, NEW = 2 };

struct room {
	char dir[64], first[128], second[128]; /* entries 1 to 3, 4 to 5 */
	struct seglog *g;
};

static const char *const words[] = { NULL, "words", "", "more than the eight bytes that a register takes, and than the sixteen of a head", "4", "five" };
enum { ENTRIES = sizeof words / sizeof *words - 1, IN_FIRST = 3 };

static int set_up(void **state)
{
	struct room *r = mem_zalloc(sizeof *r);
	test_directory(r->dir, sizeof r->dir, "seglog");
	snprintf(r->first, sizeof r->first, "%s/00000000000000000001.seg", r->dir);
	snprintf(r->second, sizeof r->second, "%s/00000000000000000004.seg", r->dir);
	*state = r;
	return 0;
}

static int tear_down(void **state)
{
	struct room *r = *state;
	seglog_close(r->g);
	kit_remove(r->dir);
	free(r);
	return 0;
}

static void write_file(const char *path, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static void read_file(const char *path, struct buf *out)
{
	char bytes[4096];
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t n = read(fd, bytes, sizeof bytes);
	assert_true(n >= 0);
	buf_reset(out);
	buf_append(out, bytes, (size_t)n);
	close(fd);
}

/* By the text at the head of seglog.c. */
static void put_old_entry(struct buf *out, uint64_t seq)
{
	size_t head = out->len;
	buf_append(out, "dmr1", 4);
	buf_u32(out, (uint32_t)strlen(words[seq]));
	buf_u64(out, seq);
	buf_u64(out, hash_stable(words[seq], strlen(words[seq]), hash_stable(out->data + head, 16, SEED)));
	buf_append(out, words[seq], strlen(words[seq]));
}

static int try_open(struct room *r, uint64_t tail, struct err *e)
{
	seglog_close(r->g);
	r->g = NULL;
	*e = (struct err){ 0 };
	return seglog_open(r->dir, SEED, &(struct seglog_promise){ 1, tail }, &r->g, e);
}

static void reopen(struct room *r, uint64_t tail)
{
	struct err e;
	if (try_open(r, tail, &e))
		fail_msg("%s: %s", e.id, e.message);
}

static void append(struct room *r, uint64_t from, uint64_t to)
{
	for (uint64_t seq = from; seq <= to; seq++)
		assert_int_equal(seglog_append(r->g, seq, words[seq], strlen(words[seq]), NULL), 0);
	assert_int_equal(seglog_sync(r->g, NULL), 0);
}

/* One that is read is what was written. */
static int try_read(struct room *r, uint64_t seq, struct err *e)
{
	struct arena a;
	const struct dmsr_log_entry *entries;
	size_t n;
	arena_init(&a, 512);
	*e = (struct err){ 0 };
	int rc = seglog_read(r->g, seq, 1, &a, &entries, &n, e);
	if (!rc) {
		assert_int_equal(n, 1);
		assert_int_equal(entries->seq, seq);
		assert_int_equal(entries->len, strlen(words[seq]));
		assert_memory_equal(entries->data, words[seq], entries->len);
	}
	arena_fini(&a);
	return rc;
}

static void read_all(struct room *r, uint64_t last)
{
	struct err e;
	assert_int_equal(seglog_first(r->g), 1);
	assert_int_equal(seglog_last(r->g), last);
	for (uint64_t seq = 1; seq <= last; seq++)
		if (try_read(r, seq, &e))
			fail_msg("%llu: %s", (unsigned long long)seq, e.message);
}

/* The files of a log whose first one is of this format. */
static void make_files(struct room *r, int format, struct buf *first, struct buf *second)
{
	buf_reset(first);
	for (uint64_t seq = 1; format == OLD && seq <= IN_FIRST; seq++)
		put_old_entry(first, seq);
	if (format == OLD)
		write_file(r->first, first->data, first->len);
	reopen(r, format == OLD ? IN_FIRST : 0);
	if (format == NEW)
		append(r, 1, IN_FIRST);
	reopen(r, IN_FIRST);
	append(r, IN_FIRST + 1, ENTRIES);
	read_file(r->first, first);
	read_file(r->second, second);
	assert_memory_equal(first->data, format == OLD ? "dmr1" : "dmr2", 4);
	assert_memory_equal(second->data, "dmr2", 4);
}

static void put_files(const struct room *r, const struct buf *first, const struct buf *second)
{
	write_file(r->first, first->data, first->len);
	if (second)
		write_file(r->second, second->data, second->len);
	else
		unlink(r->second);
}

static void write_hex(struct buf *out, const char *hex)
{
	for (; *hex; hex += 2) {
		unsigned byte;
		assert_int_equal(sscanf(hex, "%2x", &byte), 1);
		buf_append(out, &(char){ (char)byte }, 1);
	}
}

/* For good: logs of 1 and 2 with these bytes are on disks. */
static void test_bytes(void **state)
{
	static const char old[] = "646d7231000000050000000000000001666167a70e8aeee5776f726473"
				  "646d7231000000000000000000000002e3d2da918e7bc83f";
	static const char new[] = "646d723200000005000000000000000165a72b532deab2cd776f726473"
				  "646d723200000000000000000000000249f8624669c01e44";
	struct room *r = *state;
	struct buf wanted, found;
	buf_init(&wanted, 4096);
	buf_init(&found, 4096);
	write_hex(&wanted, new);
	reopen(r, 0);
	append(r, 1, 2);
	read_file(r->first, &found);
	assert_int_equal(found.len, wanted.len);
	assert_memory_equal(found.data, wanted.data, wanted.len);
	buf_reset(&wanted);
	write_hex(&wanted, old);
	write_file(r->first, wanted.data, wanted.len);
	reopen(r, 2);
	read_all(r, 2);
	buf_fini(&wanted);
	buf_fini(&found);
}

/* A log of the daemon before goes on: what is in it stays as it is, and what is new comes behind it in the new format. */
static void test_old_log_goes_on(void **state)
{
	struct room *r = *state;
	struct buf first, second, again;
	uint64_t bytes, wanted = 0;
	buf_init(&first, 4096);
	buf_init(&second, 4096);
	buf_init(&again, 4096);
	make_files(r, OLD, &first, &second);
	read_all(r, ENTRIES);
	for (int i = 0; i < 2; i++) {
		reopen(r, ENTRIES);
		read_all(r, ENTRIES);
	}
	for (int i = 1; i <= ENTRIES; i++)
		wanted += strlen(words[i]);
	assert_int_equal(seglog_data_bytes(r->g, &bytes, NULL), 0);
	assert_int_equal(bytes, wanted);
	read_file(r->first, &again);
	assert_int_equal(again.len, first.len);
	assert_memory_equal(again.data, first.data, first.len);
	seglog_trim(r->g, IN_FIRST + 1);
	assert_true(seglog_wants_sweep(r->g));
	assert_int_equal(seglog_sweep(r->g, 8, NULL), 0);
	assert_int_equal(access(r->first, F_OK), -1);
	assert_int_equal(seglog_last(r->g), ENTRIES);
	buf_fini(&first);
	buf_fini(&second);
	buf_fini(&again);
}

/* One bit of one byte, wherever it is: the log says at opening or when it is read that it is damaged, and gives nothing that was not written. */
static void flip_each(struct room *r, int format, bool is_last)
{
	struct buf first, second;
	struct err e;
	buf_init(&first, 4096);
	buf_init(&second, 4096);
	make_files(r, format, &first, &second);
	for (size_t i = 0; i < first.len; i++) {
		unsigned damaged = 0;
		first.data[i] = (char)(first.data[i] ^ 1 << i % 8);
		put_files(r, &first, is_last ? NULL : &second);
		first.data[i] = (char)(first.data[i] ^ 1 << i % 8);
		if (try_open(r, is_last ? IN_FIRST : ENTRIES, &e)) {
			assert_string_equal(e.id, "state.corrupt");
			continue;
		}
		assert_false(is_last); /* it is what opening looks through */
		for (uint64_t seq = 1; seq <= ENTRIES; seq++)
			if (try_read(r, seq, &e)) {
				assert_string_equal(e.id, "state.corrupt");
				damaged++;
			}
		if (!damaged)
			fail_msg("byte %zu was changed, and nothing said so", i);
	}
	buf_fini(&first);
	buf_fini(&second);
}

/* Cut anywhere: what is whole is there, what is not is as if it had never been begun; and if somebody relied on it, that is told. */
static void cut_each(struct room *r, int format)
{
	struct buf first, second;
	struct err e;
	buf_init(&first, 4096);
	buf_init(&second, 4096);
	make_files(r, format, &first, &second);
	for (size_t len = 0, whole = 0, end = 24 + strlen(words[1]); len < first.len; len++) {
		if (len == end)
			end += 24 + strlen(words[++whole + 1]);
		put_files(r, &first, NULL);
		assert_int_equal(truncate(r->first, (off_t)len), 0);
		assert_int_equal(try_open(r, whole + 1, &e), DMSR_EPROTO);
		assert_string_equal(e.id, "state.corrupt");
		put_files(r, &first, NULL);
		assert_int_equal(truncate(r->first, (off_t)len), 0);
		reopen(r, whole);
		if (whole)
			read_all(r, whole);
		append(r, whole + 1, ENTRIES);
		reopen(r, ENTRIES);
		read_all(r, ENTRIES);
		seglog_trim(r->g, ENTRIES + 1);
		assert_int_equal(seglog_sweep(r->g, 8, NULL), 0); /* the file behind the cut */
	}
	buf_fini(&first);
	buf_fini(&second);
}

static void test_changed_byte(void **state)
{
	for (int format = OLD; format <= NEW; format++)
		for (int is_last = 0; is_last < 2; is_last++) {
			flip_each(*state, format, is_last);
			tear_down(state);
			set_up(state);
		}
}

static void test_torn(void **state)
{
	for (int format = OLD; format <= NEW; format++) {
		cut_each(*state, format);
		tear_down(state);
		set_up(state);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
RUN_TESTS(TEST(test_bytes), TEST(test_old_log_goes_on), TEST(test_changed_byte), TEST(test_torn))
