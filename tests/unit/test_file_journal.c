/* test_file_journal: what the file target remembers: written, torn at every byte, read again; and what it calls its files. */
#include "test.h"

#include "connectors/file/file_int.h"

static struct position at(uint64_t lsn)
{
	return (struct position){ .kind = POSITION_LSN, .server = 7, .lsn = lsn, .event = POSITION_WHOLE, .flush = lsn + 8 };
}

static void add_rename(struct journal *j, uint64_t part, const char *path)
{
	j->renames = mem_realloc_array(j->renames, j->nrenames + 1, sizeof *j->renames);
	j->renames[j->nrenames++] = (struct journal_rename){ part, mem_strdup(path), 5 };
}

static void put_group(struct buf *out, uint64_t lsn, const char *load, const char *path, bool done)
{
	struct journal j = { .at = at(lsn), .load_done = done };
	struct position snapshot = { .kind = POSITION_LSN, .server = 7, .lsn = lsn };
	if (load)
		journal_add_load(&j, "pub lic", load, &snapshot);
	if (path)
		add_rename(&j, lsn, path);
	journal_put(out, &j, !out->len);
	journal_fini(&j);
}

static void torn_at_every_byte(void **state)
{
	struct buf text;
	size_t ends[4];
	(void)state;
	buf_init(&text, 1 << 16);
	put_group(&text, 0, NULL, NULL, false);
	ends[0] = text.len;
	put_group(&text, 0x100, "or\nders", "a/b", false);
	ends[1] = text.len;
	put_group(&text, 0x200, "x", NULL, false);
	ends[2] = text.len;
	put_group(&text, 0x300, "or\nders", "c/d", true);
	ends[3] = text.len;
	for (size_t n = 0; n <= text.len; n++) {
		struct journal j = { 0 };
		struct err e = { 0 };
		char *copy = mem_strndup(text.data, n);
		int rc = journal_parse(copy, n, &j, &e);
		int whole = (n >= ends[0]) + (n >= ends[1]) + (n >= ends[2]) + (n >= ends[3]);
		if (n < strlen("dmsr-file 1\n")) {
			assert_int_equal(rc, DMSR_EFATAL);
		} else {
			static const uint64_t lsns[] = { 0, 0, 0x100, 0x200, 0x300 };
			assert_int_equal(rc, 0);
			assert_int_equal(j.at.lsn, lsns[whole]);
			assert_int_equal(j.nloads, whole < 2 ? 0 : whole < 3 ? 1 : 2);
			assert_int_equal(j.load_done, whole == 4);
			assert_int_equal(j.nrenames, whole == 2 || whole == 4);
			const struct journal_load *l = journal_find_load(&j, "pub lic", "or\nders");
			assert_int_equal(l != NULL, whole >= 2);
			if (l)
				assert_int_equal(l->at.lsn, whole == 4 ? 0x300 : 0x100);
			if (whole == 4)
				assert_string_equal(j.renames[0].path, "c/d");
		}
		journal_fini(&j);
		free(copy);
	}
	buf_fini(&text);
}

/* A group that is damaged does not count when it is the last; before others it is an error. */
static void flipped_bits(void **state)
{
	struct buf text;
	(void)state;
	buf_init(&text, 1 << 16);
	put_group(&text, 0x100, NULL, NULL, false);
	size_t first = text.len;
	put_group(&text, 0x200, "x", "a/b", false);
	size_t second = text.len;
	put_group(&text, 0x300, NULL, NULL, false);
	for (size_t i = 0; i < text.len; i++) {
		struct journal j = { 0 };
		text.data[i] ^= 4;
		int rc = journal_parse(text.data, text.len, &j, NULL);
		text.data[i] ^= 4;
		if (i < second)
			assert_true(rc == DMSR_EFATAL || j.at.lsn == 0x300);
		else
			assert_true(rc == DMSR_EFATAL || j.at.lsn == 0x200);
		if (i >= first && i < second)
			assert_int_equal(rc, DMSR_EFATAL);
		journal_fini(&j);
	}
	buf_fini(&text);
}

static void paths_stay_inside(void **state)
{
	static const char *const bad[] = { "../x", "/etc/x", "a/../x", ".dmsr/x", "a/.x", "" };
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct journal out = { .at = at(1) }, in = { 0 };
		struct buf text;
		buf_init(&text, 4096);
		add_rename(&out, 1, bad[i]);
		journal_put(&text, &out, true);
		assert_int_equal(journal_parse(text.data, text.len, &in, NULL), DMSR_EFATAL);
		journal_fini(&out);
		journal_fini(&in);
		buf_fini(&text);
	}
}

static void assert_directory(const char *schema, const char *name, const char *want)
{
	char *got = names_directory(schema, name);
	assert_string_equal(got, want);
	free(got);
}

static void names(void **state)
{
	char longest[400], *a, *b;
	(void)state;
	assert_directory("public", "orders", "public.orders");
	assert_directory("a.b", "c", "a%2Eb.c");
	assert_directory("a", "b.c", "a.b.c");
	assert_directory("..", "..", "%2E%2E...");
	assert_directory("", "x", "%00.x");
	assert_directory("", "", "_messages");
	assert_directory("S", "a/b \n\"\xC3\xA4%", "S.a%2Fb%20%0A%22%C3%A4%25");
	memset(longest, '/', sizeof longest);
	longest[sizeof longest - 1] = 0;
	a = names_directory("s", longest);
	longest[sizeof longest - 2] = '\\';
	b = names_directory("s", longest);
	assert_int_equal(strlen(a), 200);
	assert_int_equal(strlen(b), 200);
	assert_string_not_equal(a, b);
	free(a);
	free(b);
	static const char *const texts[] = { "", "a", ".", "..a", "a b", "\xC3\xA4/%", "\x01\x7f" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct buf out;
		buf_init(&out, 4096);
		names_encode(&out, texts[i]);
		assert_true(!out.len || out.data[0] != '.');
		assert_null(memchr(out.data ? out.data : "", '/', out.len));
		a = names_decode(out.data, out.len);
		assert_string_equal(a, texts[i]);
		free(a);
		buf_fini(&out);
	}
	assert_null(names_decode("%", 1));
	assert_null(names_decode("%4", 2));
	assert_null(names_decode("%00", 3));
	assert_null(names_decode("%g0", 3));
	struct span s = { 0x100, 1, 0xFFFFFFFFFFFFFFFF, 12 };
	a = names_changes(&s, "csv");
	b = names_load(0x100, 3, NULL, "csv");
	assert_string_equal(a, "0000000000000100-0000000001-FFFFFFFFFFFFFFFF-0000000012.csv");
	assert_string_equal(b, "0000000000000100-0000000000-load-000003.csv");
	assert_true(strcmp(b, a) < 0); /* the load comes first */
	free(a);
	free(b);
}

RUN_TESTS(cmocka_unit_test(torn_at_every_byte), cmocka_unit_test(flipped_bits), cmocka_unit_test(paths_stay_inside), cmocka_unit_test(names))
