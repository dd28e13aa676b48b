/* seglog: segments on disk.
 *
 *   directory   00000000000000000001.seg  00000000000000000214.seg ...       the number of the first entry of each
 *   segment     entry entry entry ...
 *   entry       magic u32 | length u32 | seq u64 | sum u64 | data            big-endian; the sum is over seed, the 16 bytes before it, and data
 *   sum         XXH3 of 64 bits: of data, seeded with that of the 16 bytes, seeded with seed. With the magic "dmr1", which the first daemons wrote and
 *               none makes any more, hash_stable in the same way
 *
 * A segment is synced before the next one is made: only the last can be torn. At opening its tail is cut where an entry does not verify; what
 * nobody relied on yet is written once more in place, for if an fsync failed under an earlier process these bytes may be in memory only. Then it is
 * closed for good: a new process appends to a new segment. Earlier segments are verified when they are read. */
#include "seglog.h"
#include "store_file.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
	MAGIC = 0x646d7232,     /* "dmr2" */
	MAGIC_OLD = 0x646d7231, /* "dmr1" */
	HEAD_BYTES = 24,
	SEGMENT_BYTES_MAX = (64 << 20) + DMSR_LOG_ENTRY_MAX + HEAD_BYTES,
	SEGMENT_ENTRIES = 65536, /* bounds the index of one that is loaded */
	NAME_BYTES = 20 + 4,
};

struct seglog_tune seglog_tune = { .segment_bytes = 64 << 20, .keep_bytes = 1 << 20 };

struct segment {
	uint64_t first;
	uint32_t n;      /* entries */
	uint64_t bytes;  /* of the entries */
	uint32_t *at;    /* n + 1 offsets; NULL: not loaded */
	uint32_t cap;
};

struct seglog {
	char *dir;
	uint64_t seed, first, next; /* first == next: empty */
	struct segment *segments;
	size_t n, cap;
	int fd; /* of the last segment while it is appended to; -1: the next append makes one */
	bool is_dirty, has_dir; /* has_dir: made, and its name durable */
};

static struct segment *last_of(const struct seglog *g) { return &g->segments[g->n - 1]; }

static char *path_of(const struct seglog *g, const struct segment *s)
{
	return mem_printf("%s/%020" PRIu64 ".seg", g->dir, s->first);
}

static int fail(const struct seglog *g, const struct segment *s, const char *doing, struct err *e)
{
	int error = errno;
	char *path = path_of(g, s);
	errno = error;
	int rc = store_file_err(e, doing, path);
	free(path);
	return rc;
}

static int damaged(const struct seglog *g, const struct segment *s, struct err *e)
{
	char *path = path_of(g, s);
	int rc = store_file_corrupt(e, path, "an entry is not what was written");
	free(path);
	return rc;
}

static struct segment *add_segment(struct seglog *g, uint64_t first)
{
	if (g->n == g->cap) {
		g->cap = g->cap ? g->cap * 2 : 8;
		g->segments = mem_realloc_array(g->segments, g->cap, sizeof *g->segments);
	}
	struct segment *s = &g->segments[g->n++];
	*s = (struct segment){ .first = first };
	return s;
}

static void drop_segments(struct seglog *g, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(g->segments[i].at);
	g->n -= n;
	if (g->n)
		memmove(g->segments, g->segments + n, g->n * sizeof *g->segments);
}

/* Entry i begins at at[i]; the one behind the last is where it ends. */
static void add_offset(struct segment *s, uint32_t i, uint64_t offset)
{
	if (i >= s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->at = mem_realloc_array(s->at, s->cap, sizeof *s->at);
	}
	s->at[i] = (uint32_t)offset;
}

/* ---- entries ---- */

static bool is_magic(uint32_t magic) { return magic == MAGIC || magic == MAGIC_OLD; }

static uint64_t sum_of(const struct seglog *g, uint32_t magic, const char head[16], const void *data, size_t len)
{
	if (magic == MAGIC_OLD)
		return hash_stable(data, len, hash_stable(head, 16, g->seed));
	return XXH3_64bits_withSeed(data, len, XXH3_64bits_withSeed(head, 16, g->seed));
}

static void make_head(const struct seglog *g, uint64_t seq, const void *data, size_t len, struct buf *out)
{
	buf_u32(out, MAGIC);
	buf_u32(out, (uint32_t)len);
	buf_u64(out, seq);
	buf_u64(out, sum_of(g, MAGIC, out->data, data, len));
}

/* The next entry of the bytes, if it is whole and number seq. */
static bool parse_entry(const struct seglog *g, struct cursor *c, uint64_t seq, struct dmsr_log_entry *out)
{
	const char *head = (const char *)c->at;
	uint32_t magic = cursor_be32(c);
	uint32_t len = cursor_be32(c);
	out->seq = cursor_be64(c);
	uint64_t sum = cursor_be64(c);
	out->len = len;
	out->data = cursor_bytes(c, len);
	return !c->bad && is_magic(magic) && out->seq == seq && sum == sum_of(g, magic, head, out->data, len);
}

/* pread, whole; -1 with errno, or with errno 0 at the end of the file. */
static int read_at(int fd, void *p, size_t n, uint64_t offset)
{
	for (size_t got = 0; got < n;) {
		ssize_t k = pread(fd, (char *)p + got, n - got, (off_t)(offset + got));
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			errno = k < 0 ? errno : 0;
			return -1;
		}
		got += (size_t)k;
	}
	return 0;
}

static int write_at(int fd, const void *p, size_t n, uint64_t offset)
{
	for (size_t put = 0; put < n;) {
		ssize_t k = pwrite(fd, (const char *)p + put, n - put, (off_t)(offset + put));
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			errno = k < 0 ? errno : ENOSPC;
			return -1;
		}
		put += (size_t)k;
	}
	return 0;
}

/* ---- opening ---- */

static int compare_segments(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;
	return x->first < y->first ? -1 : x->first > y->first;
}

/* The number in a segment's name, 0: it is none. */
static uint64_t parse_name(const char *name)
{
	if (strlen(name) != NAME_BYTES || strspn(name, "0123456789") != 20 || strcmp(name + 20, ".seg") != 0)
		return 0;
	errno = 0;
	uint64_t first = strtoull(name, NULL, 10);
	return errno ? 0 : first;
}

static int list_segments(struct seglog *g, struct err *e)
{
	DIR *d = opendir(g->dir);
	if (!d)
		return errno == ENOENT ? 0 : store_file_err(e, "read", g->dir);
	errno = 0;
	for (struct dirent *f; (f = readdir(d));) {
		uint64_t first = parse_name(f->d_name);
		if (first)
			add_segment(g, first);
		errno = 0;
	}
	int rc = errno ? store_file_err(e, "read", g->dir) : 0;
	closedir(d);
	if (g->n)
		qsort(g->segments, g->n, sizeof *g->segments, compare_segments);
	return rc;
}

static int size_segments(struct seglog *g, struct err *e)
{
	for (size_t i = 0; i < g->n; i++) {
		struct segment *s = &g->segments[i];
		char *path = path_of(g, s);
		struct stat st;
		int rc = stat(path, &st) ? store_file_err(e, "look at", path) : 0;
		free(path);
		if (rc)
			return rc;
		s->bytes = (uint64_t)st.st_size;
		if (i + 1 == g->n)
			break;
		uint64_t n = g->segments[i + 1].first - s->first;
		if (n > SEGMENT_ENTRIES)
			return store_file_corrupt(e, g->dir, "a file behind entry %" PRIu64 " is missing", s->first);
		s->n = (uint32_t)n;
	}
	return 0;
}

/* The whole bytes of a segment, for the caller to free. NULL: e is set. */
static char *read_segment(const struct seglog *g, const struct segment *s, int fd, struct err *e)
{
	if (s->bytes > SEGMENT_BYTES_MAX) {
		damaged(g, s, e);
		return NULL;
	}
	char *bytes = mem_alloc(s->bytes ? s->bytes : 1);
	if (!read_at(fd, bytes, s->bytes, 0))
		return bytes;
	if (errno)
		fail(g, s, "read", e);
	else
		damaged(g, s, e);
	free(bytes);
	return NULL;
}

/* Counts the whole entries of the last segment, cuts off what is behind them, and makes what is left durable beyond doubt. */
static int mend_last(struct seglog *g, struct segment *s, int fd, uint64_t tail, struct err *e)
{
	char *bytes = read_segment(g, s, fd, e);
	if (!bytes)
		return e->code;
	struct cursor c;
	struct dmsr_log_entry entry;
	uint64_t good = 0, doubted = 0;
	cursor_init(&c, bytes, s->bytes);
	while (parse_entry(g, &c, s->first + s->n, &entry)) {
		good += HEAD_BYTES + entry.len;
		s->n++;
		if (entry.seq <= tail)
			doubted = good;
	}
	int rc = 0;
	if (good < s->bytes && ftruncate(fd, (off_t)good))
		rc = fail(g, s, "cut", e);
	else if (write_at(fd, bytes + doubted, good - doubted, doubted))
		rc = fail(g, s, "write to", e);
	else if (fsync(fd))
		rc = fail(g, s, "sync", e);
	s->bytes = good;
	free(bytes);
	return rc;
}

static int make_dir(struct seglog *g, struct err *e)
{
	if (g->has_dir)
		return 0;
	if (mkdir(g->dir, 0700) && errno != EEXIST)
		return store_file_err(e, "make", g->dir);
	char *parent = mem_printf("%s/..", g->dir);
	int rc = store_file_sync_dir(parent, e);
	free(parent);
	g->has_dir = !rc;
	return rc;
}

static int check_last(struct seglog *g, uint64_t tail, struct err *e)
{
	struct segment *s = last_of(g);
	char *path = path_of(g, s);
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	int rc = fd < 0 ? store_file_err(e, "open", path) : mend_last(g, s, fd, tail, e);
	if (fd >= 0)
		close(fd);
	if (!rc && !s->n) {
		/* made, and then we died */
		rc = unlink(path) ? store_file_err(e, "remove", path) : 0;
		g->n--;
	}
	free(path);
	if (!rc)
		rc = make_dir(g, e);
	return rc ? rc : store_file_sync_dir(g->dir, e);
}

static int remove_all(struct seglog *g, struct err *e)
{
	if (!g->n)
		return 0;
	int rc = seglog_sweep(g, UINT_MAX, e);
	return rc ? rc : store_file_sync_dir(g->dir, e);
}

static int load(struct seglog *g, const struct seglog_promise *p, struct err *e)
{
	int rc = list_segments(g, e);
	if (!rc)
		rc = size_segments(g, e);
	if (!rc && g->n)
		rc = check_last(g, p->tail, e);
	if (rc)
		return rc;
	uint64_t first = g->n ? g->segments[0].first : 0;
	uint64_t end = g->n ? last_of(g)->first + last_of(g)->n : 0;
	if (p->tail >= p->below && (!g->n || first > p->below || end <= p->tail))
		return store_file_corrupt(e, g->dir, "entries %" PRIu64 " to %" PRIu64 " must be there, but it holds %" PRIu64 " to %" PRIu64,
			p->below, p->tail, first, end ? end - 1 : 0);
	g->first = first < p->below ? p->below : first;
	g->next = end;
	if (g->first < end)
		return 0;
	/* What is there was trimmed. Numbers may begin anew, and must not meet it. */
	g->first = g->next = 0;
	return remove_all(g, e);
}

int seglog_open(const char *dir, uint64_t seed, const struct seglog_promise *p, struct seglog **out, struct err *e)
{
	struct err own;
	if (!e)
		e = &own;
	struct seglog *g = mem_zalloc(sizeof *g);
	g->dir = mem_strdup(dir);
	g->seed = seed;
	g->fd = -1;
	int rc = load(g, p, e);
	if (rc) {
		seglog_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

void seglog_close(struct seglog *g)
{
	if (!g)
		return;
	if (g->fd >= 0)
		close(g->fd);
	drop_segments(g, g->n);
	free(g->segments);
	free(g->dir);
	free(g);
}

uint64_t seglog_first(const struct seglog *g) { return g->first < g->next ? g->first : 1; }
uint64_t seglog_last(const struct seglog *g) { return g->first < g->next ? g->next - 1 : 0; }
uint64_t seglog_next(const struct seglog *g) { return g->next; }
bool seglog_is_dirty(const struct seglog *g) { return g->is_dirty; }

struct seglog_promise seglog_can_promise(const struct seglog *g)
{
	assert(!g->is_dirty);
	return g->next ? (struct seglog_promise){ g->first, g->next - 1 } : (struct seglog_promise){ 1, 0 };
}

/* ---- appending ---- */

static int begin_segment(struct seglog *g, uint64_t first, struct err *e)
{
	int rc = seglog_sync(g, e);
	if (!rc)
		rc = make_dir(g, e);
	if (rc)
		return rc;
	if (g->fd >= 0)
		close(g->fd);
	struct segment *s = add_segment(g, first);
	char *path = path_of(g, s);
	g->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = g->fd < 0 ? store_file_err(e, "make", path) : store_file_sync_dir(g->dir, e);
	free(path);
	add_offset(s, 0, 0);
	return rc;
}

int seglog_append(struct seglog *g, uint64_t seq, const void *data, size_t len, struct err *e)
{
	assert(len <= DMSR_LOG_ENTRY_MAX && seq && (!g->next || seq == g->next));
	struct segment *s = g->fd >= 0 ? last_of(g) : NULL;
	if (!s || s->n == SEGMENT_ENTRIES || (s->n && s->bytes + HEAD_BYTES + len > seglog_tune.segment_bytes)) {
		int rc = begin_segment(g, seq, e);
		if (rc)
			return rc;
		s = last_of(g);
	}
	struct buf head;
	buf_init(&head, HEAD_BYTES);
	make_head(g, seq, data, len, &head);
	g->is_dirty = true;
	int rc = 0;
	if (write_at(g->fd, head.data, HEAD_BYTES, s->bytes) || write_at(g->fd, data, len, s->bytes + HEAD_BYTES))
		rc = fail(g, s, "write to", e);
	buf_fini(&head);
	if (rc)
		return rc;
	s->bytes += HEAD_BYTES + len;
	add_offset(s, ++s->n, s->bytes);
	if (g->first == g->next)
		g->first = seq;
	g->next = seq + 1;
	return 0;
}

int seglog_sync(struct seglog *g, struct err *e)
{
	if (!g->is_dirty)
		return 0;
	if (fdatasync(g->fd))
		return fail(g, last_of(g), "sync", e);
	g->is_dirty = false;
	return 0;
}

/* ---- reading ---- */

/* The index of a segment of an earlier process: by the lengths in it, which are verified when the entries are read. */
static int load_offsets(const struct seglog *g, struct segment *s, int fd, struct err *e)
{
	uint64_t offset = 0;
	if (s->bytes > SEGMENT_BYTES_MAX)
		return damaged(g, s, e);
	for (uint32_t i = 0; i < s->n; i++) {
		char head[HEAD_BYTES];
		struct cursor c;
		add_offset(s, i, offset);
		if (read_at(fd, head, sizeof head, offset))
			return errno ? fail(g, s, "read", e) : damaged(g, s, e);
		cursor_init(&c, head, sizeof head);
		if (!is_magic(cursor_be32(&c)))
			return damaged(g, s, e);
		offset += HEAD_BYTES + (uint64_t)cursor_be32(&c);
		if (offset > s->bytes)
			return damaged(g, s, e);
	}
	add_offset(s, s->n, offset);
	return 0;
}

static int read_entries(const struct seglog *g, struct segment *s, int fd, uint32_t from, uint32_t to, struct arena *a,
	struct dmsr_log_entry *entries, struct err *e)
{
	size_t bytes = s->at[to] - s->at[from];
	char *p = arena_alloc(a, bytes);
	if (read_at(fd, p, bytes, s->at[from]))
		return errno ? fail(g, s, "read", e) : damaged(g, s, e);
	struct cursor c;
	cursor_init(&c, p, bytes);
	for (uint32_t i = from; i < to; i++)
		if (!parse_entry(g, &c, s->first + i, &entries[i - from]))
			return damaged(g, s, e);
	return 0;
}

static struct segment *find_segment(const struct seglog *g, uint64_t seq)
{
	size_t low = 0, high = g->n;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;
		if (g->segments[middle].first <= seq)
			low = middle;
		else
			high = middle;
	}
	return &g->segments[low];
}

/* The index of s, for which its file must be read once. */
static int need_offsets(const struct seglog *g, struct segment *s, int fd, struct err *e)
{
	int rc = s->at ? 0 : load_offsets(g, s, fd, e);
	if (rc) {
		free(s->at);
		s->at = NULL;
		s->cap = 0;
	}
	return rc;
}

static int open_to_read(const struct seglog *g, const struct segment *s, struct err *e)
{
	char *path = path_of(g, s);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		fd = errno == ENOENT ? store_file_corrupt(e, path, "it is gone") : store_file_err(e, "open", path);
	free(path);
	return fd;
}

int seglog_read(struct seglog *g, uint64_t seq, size_t max_bytes, struct arena *a, const struct dmsr_log_entry **entries, size_t *n, struct err *e)
{
	*n = 0;
	if (seq < g->first || seq >= g->next)
		return 0;
	struct segment *s = find_segment(g, seq);
	int fd = open_to_read(g, s, e);
	if (fd < 0)
		return fd;
	int rc = need_offsets(g, s, fd, e);
	if (!rc) {
		uint32_t from = (uint32_t)(seq - s->first), to = from + 1;
		while (to < s->n && s->at[to + 1] - s->at[from] <= max_bytes)
			to++;
		struct dmsr_log_entry *found = arena_alloc(a, (to - from) * sizeof *found);
		rc = read_entries(g, s, fd, from, to, a, found, e);
		*entries = found;
		*n = rc ? 0 : to - from;
	}
	close(fd);
	return rc;
}

int seglog_data_bytes(struct seglog *g, uint64_t *bytes, struct err *e)
{
	*bytes = 0;
	if (g->first == g->next)
		return 0;
	struct segment *s = find_segment(g, g->first);
	int fd = open_to_read(g, s, e);
	if (fd < 0)
		return fd;
	int rc = need_offsets(g, s, fd, e);
	close(fd);
	if (rc)
		return rc;
	/* of the first file what is trimmed does not count, of all others all does */
	*bytes = s->at[s->n] - s->at[g->first - s->first];
	while (++s < g->segments + g->n)
		*bytes += s->bytes;
	*bytes -= HEAD_BYTES * (g->next - g->first);
	return 0;
}

/* ---- trimming ---- */

void seglog_trim(struct seglog *g, uint64_t below)
{
	if (below > g->next)
		below = g->next;
	if (below > g->first)
		g->first = below;
}

/* Segments that hold no entry any more. */
static size_t count_dead(const struct seglog *g)
{
	size_t dead = 0;
	while (dead + 1 < g->n && g->segments[dead + 1].first <= g->first)
		dead++;
	bool is_empty = g->first == g->next;
	if (!g->next)
		return g->n; /* found at opening, and none of it counts */
	if (dead + 1 == g->n && is_empty && !g->is_dirty && (g->fd < 0 || last_of(g)->bytes >= seglog_tune.keep_bytes))
		dead++;
	return dead;
}

bool seglog_wants_sweep(const struct seglog *g) { return count_dead(g) > 0; }

int seglog_sweep(struct seglog *g, unsigned max, struct err *e)
{
	size_t dead = count_dead(g), n = dead < max ? dead : max;
	for (size_t i = 0; i < n; i++) {
		char *path = path_of(g, &g->segments[i]);
		int rc = unlink(path) && errno != ENOENT ? store_file_err(e, "remove", path) : 0;
		free(path);
		if (rc)
			return rc;
	}
	if (n == g->n && g->fd >= 0) {
		close(g->fd);
		g->fd = -1;
	}
	drop_segments(g, n);
	return 0;
}
