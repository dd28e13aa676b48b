/* pgoutput, transactions in pieces: held, taken back, decoded at their commit, spilled to a file. The last test is a property: a random workload comes out
 * the same whether it was sent in pieces or whole. */
#include "test.h"

#include "connectors/postgres/spool.h"
#include "pgoutput_kit.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static const char *text_of(struct kit *k)
{
	kit_take(k, pgoutput_take(k->d));
	return buf_cstr(&k->text);
}

static int start(struct kit *k, unsigned xid, bool first) { return kit_send(k, "cwb", 'S', xid, first); }
static int stop(struct kit *k) { return kit_send(k, "c", 'E'); }
static int commit(struct kit *k, unsigned xid, unsigned lsn)
{
	return kit_send(k, "cwbqqq", 'c', xid, 0, (uint64_t)lsn, (uint64_t)lsn + 8, (uint64_t)0);
}
static int rollback(struct kit *k, unsigned xid, unsigned subxid) { return kit_send(k, "cww", 'A', xid, subxid); }
static int table(struct kit *k, unsigned xid, unsigned oid, const char *name)
{
	return kit_send(k, "cwwsschbswwbsww", 'R', xid, oid, "public", name, 'd', 2, 1, "id", 23u, ~0u, 0, "v", 25u, ~0u);
}
/* The same table with a third column. */
static int wider(struct kit *k, unsigned xid, unsigned oid, const char *name)
{
	return kit_send(k, "cwwsschbswwbswwbsww", 'R', xid, oid, "public", name, 'd', 3, 1, "id", 23u, ~0u, 0, "v", 25u, ~0u, 0, "w", 25u, ~0u);
}
static int insert(struct kit *k, unsigned xid, unsigned oid, const char *id, const char *v)
{
	return kit_send(k, "cwwchtt", 'I', xid, oid, 'N', 2, id, v);
}

static const char *without_schema(struct kit *k)
{
	static char out[8192];
	size_t n = 0;

	for (const char *p = text_of(k); *p;) {
		size_t len = strcspn(p, "\n") + 1;
		assert_true(n + len < sizeof out);
		if (*p != 'S')
			memcpy(out + n, p, len), n += len;
		p += len;
	}
	out[n] = 0;
	return out;
}

static void holds_pieces_that_take_turns(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	start(&k, 800, true);
	table(&k, 800, 5, "t");
	insert(&k, 800, 5, "1", "a");
	stop(&k);
	start(&k, 900, true);
	table(&k, 900, 5, "t");
	insert(&k, 900, 5, "2", "b");
	stop(&k);
	start(&k, 800, false);
	insert(&k, 801, 5, "3", "c");
	assert_int_equal(kit_send(&k, "cqs", 'O', (uint64_t)1, "upstream"), 0);
	assert_int_equal(kit_send(&k, "cwbqswc", 'M', 800u, 1, (uint64_t)0x99, "app", 1u, '!'), 0);
	stop(&k);
	assert_null(pgoutput_take(k.d));
	struct pgoutput_stat st;
	pgoutput_stat(k.d, &st);
	assert_int_equal(st.streamed, 2);
	assert_true(st.spool_memory > 0);
	/* a small transaction that commits in between */
	kit_begin(&k, 0x50);
	kit_table(&k, 5, "t");
	kit_insert(&k, 5, "9", "z");
	kit_commit(&k, 0x50);
	assert_int_equal(commit(&k, 900, 0x100), 0);
	assert_int_equal(commit(&k, 800, 0x200), 0);
	assert_string_equal(without_schema(&k),
		"B 0/50 xid 780 at 946684800000000\nc 1 public.t after(id='9' v='z')\nC *\n"
		"B 0/100 xid 900 at 946684800000000\nc 1 public.t after(id='2' v='b')\nC *\n"
		"B 0/200 xid 800 at 946684800000000\nc 1 public.t after(id='1' v='a')\nc 2 public.t after(id='3' v='c')\nm 3 app: !\nC *\n");
	pgoutput_stat(k.d, &st);
	assert_int_equal(st.streamed, 0);
	assert_int_equal(st.spool_memory, 0);
	kit_close(&k);
}

static void takes_back_subtransactions_but_not_what_they_said_of_tables(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 4, NULL);
	start(&k, 800, true);
	table(&k, 801, 5, "t");
	insert(&k, 801, 5, "1", "gone");
	insert(&k, 800, 5, "2", "stays");
	stop(&k);
	assert_int_equal(rollback(&k, 800, 801), 0);
	start(&k, 800, false);
	insert(&k, 803, 5, "3", "gone");
	insert(&k, 802, 5, "4", "stays");
	insert(&k, 804, 5, "5", "gone");
	stop(&k);
	assert_int_equal(kit_send(&k, "cwwqq", 'A', 800u, 804u, (uint64_t)1, (uint64_t)2), 0); /* version 4, inner before outer */
	assert_int_equal(kit_send(&k, "cwwqq", 'A', 800u, 803u, (uint64_t)1, (uint64_t)2), 0);
	commit(&k, 800, 0x100);
	assert_string_equal(without_schema(&k), "B 0/100 xid 800 at 946684800000000\nc 1 public.t after(id='2' v='stays')\n"
		"c 2 public.t after(id='4' v='stays')\nC *\n");
	kit_close(&k);
}

static void drops_what_was_rolled_back_whole(void **state)
{
	struct kit k = { 0 };
	struct pgoutput_stat st;
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	start(&k, 800, true);
	table(&k, 800, 5, "t");
	insert(&k, 800, 5, "1", "gone");
	stop(&k);
	assert_int_equal(rollback(&k, 800, 800), 0);
	assert_int_equal(rollback(&k, 777, 777), 0);
	pgoutput_stat(k.d, &st);
	assert_int_equal(st.streamed, 0);
	assert_int_equal(st.spool_memory, 0);
	assert_null(pgoutput_take(k.d));
	assert_int_equal(commit(&k, 800, 0x100), DMSR_EPROTO);
	kit_close(&k);
}

/* The shape that a piece was sent with is that of its rows; what follows the transaction has the shape that came last on the wire. */
static void keeps_shapes_apart(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	start(&k, 800, true);
	table(&k, 800, 5, "t");
	insert(&k, 800, 5, "1", "a");
	stop(&k);
	kit_begin(&k, 0x50);
	kit_send(&k, "cwsschbswwbswwbsww", 'R', 5u, "public", "t", 'd', 3, 1, "id", 23u, ~0u, 0, "v", 25u, ~0u, 0, "w", 25u, ~0u);
	assert_int_equal(kit_send(&k, "cwchttt", 'I', 5u, 'N', 3, "2", "b", "x"), 0);
	kit_commit(&k, 0x50);
	assert_int_equal(commit(&k, 800, 0x100), 0);
	kit_begin(&k, 0x150);
	assert_int_equal(kit_send(&k, "cwchttt", 'I', 5u, 'N', 3, "3", "c", "y"), 0);
	kit_commit(&k, 0x150);
	/* and a shape that came in a later piece stays */
	start(&k, 900, true);
	table(&k, 900, 5, "t");
	insert(&k, 900, 5, "4", "d");
	wider(&k, 900, 5, "t");
	stop(&k);
	commit(&k, 900, 0x200);
	kit_begin(&k, 0x250);
	assert_int_equal(kit_send(&k, "cwchttt", 'I', 5u, 'N', 3, "5", "e", "z"), 0);
	kit_commit(&k, 0x250);
	const char *text = without_schema(&k);
	assert_non_null(strstr(text, "after(id='1' v='a')\n"));
	assert_non_null(strstr(text, "after(id='3' v='c' w='y')\n"));
	assert_non_null(strstr(text, "after(id='4' v='d')\n"));
	assert_non_null(strstr(text, "after(id='5' v='e' w='z')\n"));
	kit_close(&k);
}

static void refuses_pieces_out_of_order(void **state)
{
	struct kit k = { 0 };
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	assert_int_equal(start(&k, 800, false), DMSR_EPROTO);
	kit_close(&k);
	kit_open(&k, NULL, 2, NULL);
	start(&k, 800, true);
	assert_int_equal(kit_begin(&k, 0x100), DMSR_EPROTO);
	kit_close(&k);
	kit_open(&k, NULL, 2, NULL);
	start(&k, 800, true);
	assert_int_equal(kit_send(&k, "ch", 'I', 1), DMSR_EPROTO);
	kit_close(&k);
	kit_open(&k, NULL, 1, NULL);
	assert_int_equal(start(&k, 800, true), DMSR_EPROTO);
	kit_close(&k);
}

/* ---- big ones ---------------------------------------------------------------------------------------------------- */
static void fill(struct kit *k, unsigned xid, unsigned rows, bool first, bool last)
{
	char id[16], v[300];

	memset(v, 'v', sizeof v - 1);
	v[sizeof v - 1] = 0;
	start(k, xid, first);
	if (first)
		table(k, xid, 5, "t");
	for (unsigned i = 0; i < rows; i++) {
		snprintf(id, sizeof id, "%u", i);
		v[i % 299] = (char)('a' + i % 26);
		assert_int_equal(insert(k, xid, 5, id, v), 0);
	}
	if (last) /* a row that is bigger than any chunk */
	{
		char *big = mem_alloc(700001);
		memset(big, 'B', 700000);
		big[700000] = 0;
		assert_int_equal(insert(k, xid, 5, "big", big), 0);
		free(big);
	}
	stop(k);
}

/* Of files, as it was asked for: whether the file system of /tmp can do it is not ours to test. */
static off_t given_back;

int __real_fallocate(int fd, int mode, off_t from, off_t len);
int __wrap_fallocate(int fd, int mode, off_t from, off_t len);
int __wrap_fallocate(int fd, int mode, off_t from, off_t len)
{
	assert_int_equal(mode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	given_back += len;
	return __real_fallocate(fd, mode, from, len);
}

/* Not all at its end: that would take long for a big one. */
static void the_file_shrinks_as_it_is_read(void **state)
{
	enum { RECORDS = 256, RECORD_BYTES = 64 << 10 };
	static char record[RECORD_BYTES];
	const char *data;
	size_t len;
	(void)state;
	struct spool *s = spool_new("/tmp", 64 << 10, 0);
	struct spool_run *run = spool_run_new(s);
	for (int i = 0; i < RECORDS; i++) {
		memset(record, i, sizeof record);
		assert_int_equal(spool_append(run, record, sizeof record, NULL), 0);
	}
	given_back = 0;
	for (int i = 0; i < RECORDS; i++) {
		assert_int_equal(spool_next(run, &data, &len, NULL), 1);
		assert_int_equal(len, sizeof record);
		assert_int_equal((unsigned char)data[0], i);
		assert_int_equal((unsigned char)data[len - 1], i);
		assert_true(given_back >= (off_t)(i - 8) * RECORD_BYTES);
	}
	assert_int_equal(spool_next(run, &data, &len, NULL), 0);
	spool_run_free(run);
	spool_free(s);
}

/* Three big transactions, memory for a fraction of them: what comes out is what comes out with memory for all. */
static void spills_and_reads_back(void **state)
{
	struct kit_limits small = { 64 << 10, 100 << 10, 0, NULL }, none = { 64 << 10, 0, 0, NULL };
	struct kit k[3] = { { 0 }, { 0 }, { .refuse = 2 } };
	struct pgoutput_stat st;
	(void)state;
	kit_open(&k[0], NULL, 2, NULL);
	kit_open(&k[1], &small, 2, NULL);
	kit_open(&k[2], &none, 2, NULL);
	for (int i = 0; i < 3; i++) {
		for (unsigned piece = 0; piece < 4; piece++)
			for (unsigned x = 0; x < 3; x++)
				fill(&k[i], 800 + x, 500 + 100 * x, piece == 0, piece == 3);
		pgoutput_stat(k[i].d, &st);
		if (i == 0) {
			assert_int_equal(st.spool_disk, 0);
		} else {
			assert_true(st.spool_disk > 1500000);
			assert_true(st.spool_memory <= (256 << 10));
		}
		assert_int_equal(rollback(&k[i], 801, 801), 0);
		assert_int_equal(commit(&k[i], 802, 0x100), 0);
		assert_int_equal(commit(&k[i], 800, 0x200), 0);
		pgoutput_stat(k[i].d, &st);
		assert_int_equal(st.spool_disk, 0);
		assert_int_equal(st.spool_memory, 0);
		text_of(&k[i]);
		assert_true(k[i].slices >= 1 || k[i].refuse);
	}
	for (int i = 1; i < 3; i++) {
		assert_true(k[i].batches > 10);
		assert_int_equal(k[i].text.len, k[0].text.len);
		assert_memory_equal(k[i].text.data, k[0].text.data, k[0].text.len);
	}
	for (int i = 0; i < 3; i++)
		kit_close(&k[i]);
}

static void says_why_it_cannot_spill(void **state)
{
	struct kit_limits nowhere = { 64 << 10, 0, 0, "/nonexistent" }, little = { 64 << 10, 0, 100000, NULL };
	struct rlimit file, zero;
	struct kit k = { 0 };
	int rc = 0;
	(void)state;
	kit_open(&k, &nowhere, 2, NULL);
	start(&k, 800, true);
	for (int i = 0; i < 1000 && !rc; i++)
		rc = insert(&k, 800, 5, "1", "0123456789012345678901234567890123456789");
	assert_int_equal(rc, DMSR_EIO);
	assert_string_equal(k.e.id, "source.spool");
	kit_close(&k);
	kit_open(&k, &little, 2, NULL);
	start(&k, 800, true);
	for (rc = 0; !rc;)
		rc = insert(&k, 800, 5, "1", "0123456789012345678901234567890123456789");
	assert_int_equal(rc, DMSR_EFULL);
	assert_string_equal(k.e.id, "source.spool");
	kit_close(&k);
	/* a file that may not grow */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &file);
	zero = file;
	zero.rlim_cur = 20000;
	setrlimit(RLIMIT_FSIZE, &zero);
	little.spool_disk = 0;
	kit_open(&k, &little, 2, NULL);
	start(&k, 800, true);
	for (rc = 0; !rc;)
		rc = insert(&k, 800, 5, "1", "0123456789012345678901234567890123456789");
	setrlimit(RLIMIT_FSIZE, &file);
	assert_int_equal(rc, DMSR_EIO);
	assert_string_equal(k.e.id, "source.spool");
	kit_close(&k);
}

static void says_when_the_disk_is_full(void **state)
{
	struct kit_limits none = { 64 << 10, 0, 0, NULL };
	struct kit k = { 0 };
	int rc = 0;
	(void)state;
	setenv("DMSR_FAILPOINT", "spool-write:2:fail", 1);
	failpoint_init();
	kit_open(&k, &none, 2, NULL);
	start(&k, 800, true);
	for (int i = 0; i < 100000 && !rc; i++)
		rc = insert(&k, 800, 5, "1", "0123456789012345678901234567890123456789");
	unsetenv("DMSR_FAILPOINT");
	failpoint_init();
	assert_int_equal(rc, DMSR_EIO);
	assert_string_equal(k.e.id, "disk.full");
	assert_true(k.e.retriable);
	kit_close(&k);
}

static void many_rolled_back_savepoints(void **state)
{
	struct kit k = { 0 };
	char id[16];
	(void)state;
	kit_open(&k, NULL, 2, NULL);
	start(&k, 1000, true);
	table(&k, 1000, 5, "t");
	stop(&k);
	for (unsigned x = 1001; x < 5000; x++) {
		start(&k, 1000, false);
		snprintf(id, sizeof id, "%u", x);
		insert(&k, x, 5, id, "v");
		stop(&k);
		if (x % 10)
			rollback(&k, 1000, x);
	}
	commit(&k, 1000, 0x100);
	const char *p = text_of(&k);
	for (unsigned x = 1010, n = 1; x < 5000; x += 10, n++) {
		char line[80];
		snprintf(line, sizeof line, "c %u public.t after(id='%u' v='v')\n", n, x);
		p = strstr(p, line);
		assert_non_null(p);
	}
	assert_string_equal(strchr(p, '\n'), "\nC *\n");
	kit_close(&k);
}

/* ---- the property -------------------------------------------------------------------------------------------------- */
static uint32_t seed_state;
static unsigned dice(unsigned n)
{
	seed_state = seed_state * 1664525u + 1013904223u;
	return (seed_state >> 8) % n;
}

enum { TXNS = 6, MAX_STEPS = 40, OPEN = 3 };
struct step {
	unsigned subxid;
	char op;            /* I, M, T; R: said anew, with one column more or less */
	bool aborted;
	unsigned value;
};
struct plan {
	struct step steps[MAX_STEPS];
	unsigned n, sent;
	unsigned oid;       /* tables are locked by who alters them, so each transaction has its own */
	bool started;
};

static void send_step(struct kit *k, const struct plan *p, const struct step *s, unsigned xid, bool streamed, bool *wide)
{
	struct buf b;
	char id[16];

	buf_init(&b, 1 << 16);
	snprintf(id, sizeof id, "%u", s->value);
	buf_byte(&b, s->op);
	if (streamed)
		buf_u32(&b, s->subxid);
	switch (s->op) {
	case 'R':
		*wide = s->value & 1;
		buf_u32(&b, p->oid);
		buf_append(&b, "public\0t\0d", 10);
		buf_u16(&b, *wide ? 2 : 1);
		buf_append(&b, "\1id\0\0\0\0\x17\xff\xff\xff\xff", 12);
		if (*wide)
			buf_append(&b, "\0v\0\0\0\0\x19\xff\xff\xff\xff", 11);
		break;
	case 'I':
		buf_u32(&b, p->oid);
		buf_byte(&b, 'N');
		buf_u16(&b, *wide ? 2 : 1);
		for (int i = 0; i <= *wide; i++) {
			buf_byte(&b, 't');
			buf_u32(&b, (uint32_t)strlen(id));
			buf_str(&b, id);
		}
		break;
	case 'T':
		buf_u32(&b, 2);
		buf_byte(&b, 0);
		buf_u32(&b, p->oid);
		buf_u32(&b, p->oid);
		break;
	default:
		buf_byte(&b, 1);
		buf_u64(&b, 0x10);
		buf_append(&b, "p\0\0\0\0\1m", 7);
		break;
	}
	assert_int_equal(kit_feed(k, 0x10, b.data, b.len), 0);
	buf_fini(&b);
	(void)xid;
}

static void make_plan(struct plan *p, unsigned xid, unsigned oid)
{
	*p = (struct plan){ .oid = oid, .n = 5 + dice(MAX_STEPS - 5) };
	bool said = false;
	for (unsigned i = 0; i < p->n; i++) {
		struct step *s = &p->steps[i];
		unsigned sub = dice(4);
		s->subxid = xid + sub;
		s->aborted = sub == 3;
		s->op = "IIIIMTRI"[dice(8)];
		if (!said || s->op == 'R') {
			s->op = 'R';
			/* a rolled back sub-transaction's alter is rolled back with it: the server says the shape again, see below */
			s->aborted = false;
			s->subxid = xid;
			said = true;
		}
		s->value = dice(1000);
	}
}

static void same_in_pieces_and_whole(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 300; seed++) {
		static struct plan plans[TXNS];
		struct kit_limits lim = { 1 + seed % 400, seed % 3 ? 1 << 20 : 0, 0, NULL };
		struct kit whole = { 0 }, pieces = { .refuse = seed % 2 };
		bool wide = false;
		seed_state = seed;
		kit_open(&whole, NULL, 1, NULL);
		kit_open(&pieces, &lim, 2, NULL);
		for (unsigned i = 0; i < TXNS; i++) {
			make_plan(&plans[i], 1000 + 10 * i, 50 + i % OPEN);
			/* whole, as if nothing had been rolled back because nothing had been there */
			kit_send(&whole, "cqqw", 'B', (uint64_t)(i + 1) * 0x100, (uint64_t)0, 1000 + 10 * i);
			for (unsigned s = 0; s < plans[i].n; s++)
				if (!plans[i].steps[s].aborted)
					send_step(&whole, &plans[i], &plans[i].steps[s], 0, false, &wide);
			kit_commit(&whole, (i + 1) * 0x100);
		}
		for (unsigned i = 0; i < TXNS; i += OPEN)
			for (unsigned left = OPEN, next = i; left;) {
				unsigned at = i + dice(OPEN);
				struct plan *p = &plans[at];
				unsigned xid = 1000 + 10 * at;
				static bool is_wide[TXNS];
				if (p->sent < p->n) {
					start(&pieces, xid, !p->started);
					p->started = true;
					for (unsigned n = 1 + dice(10); n-- && p->sent < p->n; p->sent++)
						send_step(&pieces, p, &p->steps[p->sent], xid, true, &is_wide[at]);
					stop(&pieces);
				}
				/* commits come in the order of their positions */
				while (next < i + OPEN && plans[next].sent == plans[next].n) {
					xid = 1000 + 10 * next;
					rollback(&pieces, xid, xid + 3);
					assert_int_equal(commit(&pieces, xid, (next + 1) * 0x100), 0);
					next++;
					left--;
				}
			}
		text_of(&pieces);
		assert_string_equal(text_of(&whole), buf_cstr(&pieces.text));
		kit_close(&whole);
		kit_close(&pieces);
	}
}

RUN_TESTS(cmocka_unit_test(holds_pieces_that_take_turns), cmocka_unit_test(takes_back_subtransactions_but_not_what_they_said_of_tables),
	cmocka_unit_test(drops_what_was_rolled_back_whole), cmocka_unit_test(keeps_shapes_apart), cmocka_unit_test(refuses_pieces_out_of_order),
	cmocka_unit_test(the_file_shrinks_as_it_is_read),
	cmocka_unit_test(spills_and_reads_back), cmocka_unit_test(says_why_it_cannot_spill), cmocka_unit_test(says_when_the_disk_is_full),
	cmocka_unit_test(many_rolled_back_savepoints), cmocka_unit_test(same_in_pieces_and_whole))
