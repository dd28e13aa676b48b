/* spool: see spool.h. A run is a list of chunks, filled one behind the other; a record (length, bytes) may lie across several.
 *
 *   run: [on disk] [on disk] [memory] [memory, being filled]       file: slot 0 | slot 1 | slot 2 ... of 256 KiB, shared by all runs
 *
 * Over the memory limit the run that holds most of it gives its oldest chunk in memory to a slot of the file, so those on disk are always the
 * first. Slots are used again; the file shrinks when the last is free. The file has no name: it cannot outlive the process. */
#include "spool.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { CHUNK_MIN = 8 << 10, CHUNK_MAX = 256 << 10 };
#define NO_SLOT UINT64_MAX

struct chunk {
	struct chunk *next;
	char *data;                     /* NULL: in the file */
	uint64_t slot;                  /* in the file; NO_SLOT: never was */
	uint32_t len, cap;
};

struct spool_run {
	struct spool *spool;
	struct spool_run *prev, *next;
	struct chunk *first, *last, *first_in_memory;
	size_t memory;
	uint64_t left;                  /* bytes not yet read */
	uint32_t next_cap;
	uint32_t at;                    /* read so far of the first chunk */
	char *join;                     /* a record that lies across chunks */
	size_t join_cap;
};

struct spool {
	const char *dir;
	size_t memory_limit, memory;
	uint64_t disk_limit, disk;
	int fd;
	uint64_t nslots;
	uint64_t *free_slots;
	size_t nfree, cap_free;
	struct spool_run *runs;
};

struct spool *spool_new(const char *dir, size_t memory_limit, uint64_t disk_limit)
{
	struct spool *s = mem_zalloc(sizeof *s);

	s->dir = dir;
	s->memory_limit = memory_limit;
	s->disk_limit = disk_limit;
	s->fd = -1;
	return s;
}

void spool_free(struct spool *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	free(s->free_slots);
	free(s);
}

uint64_t spool_memory(const struct spool *s)
{
	return s->memory;
}

uint64_t spool_disk(const struct spool *s)
{
	return s->disk;
}

/* ---- the file ------------------------------------------------------------------------------------------------- */
static int disk_error(const struct spool *s, const char *doing, struct err *e)
{
	int error = errno;

	if (error == ENOSPC || error == EDQUOT)
		err_retry(e, DMSR_EIO, "disk.full", "no room in %s for transactions in progress", s->dir);
	else
		err_set(e, DMSR_EIO, "source.spool", "cannot %s the file for transactions in progress in %s: %s", doing, s->dir, strerror(error));
	if (e)
		err_hint(e, "Make room there, or put the state directory on a bigger disk; the transactions will be sent again.");
	return DMSR_EIO;
}

static int open_file(struct spool *s, struct err *e)
{
	s->fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return disk_error(s, "make", e);
	char *path = mem_printf("%s/spool-XXXXXX", s->dir);
	s->fd = mkostemp(path, O_CLOEXEC);
	int rc = s->fd < 0 || unlink(path) ? disk_error(s, "make", e) : 0;
	free(path);
	return rc;
}

static int write_all(int fd, const char *data, size_t len, uint64_t offset)
{
	if (failpoint("spool-write")) {
		errno = ENOSPC;
		return -1;
	}
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int read_all(int fd, char *data, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pread(fd, data, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : EIO;
			return -1;
		}
		data += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static void free_slot(struct spool *s, struct chunk *c)
{
	s->disk -= c->len;
	if (s->nfree == s->cap_free) {
		s->cap_free = s->cap_free ? s->cap_free * 2 : 64;
		s->free_slots = mem_realloc_array(s->free_slots, s->cap_free, sizeof *s->free_slots);
	}
	s->free_slots[s->nfree++] = c->slot;
	c->slot = NO_SLOT;
	if (s->nfree < s->nslots)
		return;
	s->nfree = 0;
	s->nslots = 0;
	/* a file that stays too long costs room, nothing else: the next spill writes over it */
	if (ftruncate(s->fd, 0))
		errno = 0;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */
struct spool_run *spool_run_new(struct spool *s)
{
	struct spool_run *r = mem_zalloc(sizeof *r);

	r->spool = s;
	r->next_cap = CHUNK_MIN;
	r->next = s->runs;
	if (s->runs)
		s->runs->prev = r;
	s->runs = r;
	return r;
}

static void account(struct spool_run *r, const struct chunk *c, bool more)
{
	if (more) {
		r->memory += c->cap;
		r->spool->memory += c->cap;
	} else {
		r->memory -= c->cap;
		r->spool->memory -= c->cap;
	}
}

static void add_chunk(struct spool_run *r)
{
	struct chunk *c = mem_zalloc(sizeof *c);

	c->cap = r->next_cap;
	c->data = mem_alloc(c->cap);
	c->slot = NO_SLOT;
	if (r->next_cap < CHUNK_MAX)
		r->next_cap *= 2;
	account(r, c, true);
	if (r->last)
		r->last->next = c;
	else
		r->first = c;
	r->last = c;
	if (!r->first_in_memory)
		r->first_in_memory = c;
}

/* Moves the oldest chunk in memory of the run to the file. */
static int spill(struct spool_run *r, struct err *e)
{
	struct spool *s = r->spool;
	struct chunk *c = r->first_in_memory;

	if (s->fd < 0 && open_file(s, e))
		return DMSR_EIO;
	if (s->disk_limit && s->disk + c->len > s->disk_limit)
		return err_set(e, DMSR_EFULL, "source.spool", "transactions in progress take more than the %llu bytes of disk that they may",
			(unsigned long long)s->disk_limit);
	uint64_t slot = s->nfree ? s->free_slots[s->nfree - 1] : s->nslots;
	if (write_all(s->fd, c->data, c->len, slot * CHUNK_MAX))
		return disk_error(s, "write", e);
	if (s->nfree)
		s->nfree--;
	else
		s->nslots++;
	account(r, c, false);
	free(c->data);
	c->data = NULL;
	c->slot = slot;
	c->cap = c->len;
	s->disk += c->len;
	r->first_in_memory = c->next;
	return 0;
}

static int make_room(struct spool *s, size_t need, struct err *e)
{
	while (s->memory && s->memory + need > s->memory_limit) {
		struct spool_run *biggest = NULL;
		for (struct spool_run *r = s->runs; r; r = r->next)
			if (!biggest || r->memory > biggest->memory)
				biggest = r;
		assert(biggest && biggest->first_in_memory);
		int rc = spill(biggest, e);
		if (rc)
			return rc;
	}
	return 0;
}

static int append_bytes(struct spool_run *r, const char *data, size_t len, struct err *e)
{
	while (len) {
		if (!r->last || r->last->len == r->last->cap) {
			int rc = make_room(r->spool, r->next_cap, e);
			if (rc)
				return rc;
			add_chunk(r);
		}
		struct chunk *c = r->last;
		size_t n = c->cap - c->len < len ? c->cap - c->len : len;
		memcpy(c->data + c->len, data, n);
		c->len += (uint32_t)n;
		r->left += n;
		data += n;
		len -= n;
	}
	return 0;
}

int spool_append(struct spool_run *r, const void *data, size_t len, struct err *e)
{
	uint32_t head = (uint32_t)len;

	assert(len <= UINT32_MAX);
	int rc = append_bytes(r, (const char *)&head, sizeof head, e);
	return rc ? rc : append_bytes(r, data, len, e);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */
static void drop_first(struct spool_run *r)
{
	struct chunk *c = r->first;

	if (c->slot != NO_SLOT)
		free_slot(r->spool, c);
	else
		account(r, c, false);
	r->first = c->next;
	if (r->last == c)
		r->last = NULL;
	if (r->first_in_memory == c)
		r->first_in_memory = c->next;
	free(c->data);
	free(c);
	r->at = 0;
}

static void read_ahead(const struct spool_run *r)
{
	const struct chunk *next = r->first->next;

	if (next && next->slot != NO_SLOT)
		(void)posix_fadvise(r->spool->fd, (off_t)(next->slot * CHUNK_MAX), next->len, POSIX_FADV_WILLNEED);
}

/* What was read gives its blocks back at once: all of a big file's, at its end, would hold the loop. */
static void give_back(const struct spool *s, const struct chunk *c)
{
	if (c->slot != NO_SLOT && fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(c->slot * CHUNK_MAX), CHUNK_MAX))
		errno = 0; /* not every file system can: then they go with the file */
}

/* Unread bytes are at hand in the first chunk: 1; none is left: 0. */
static int load(struct spool_run *r, struct err *e)
{
	while (r->first && r->at == r->first->len) {
		give_back(r->spool, r->first);
		drop_first(r);
	}
	struct chunk *c = r->first;
	if (!c)
		return 0;
	if (c->data)
		return 1;
	c->data = mem_alloc(c->len);
	if (read_all(r->spool->fd, c->data, c->len, c->slot * CHUNK_MAX))
		return disk_error(r->spool, "read", e);
	read_ahead(r);
	return 1;
}

/* n bytes in one piece; more than are left is a broken file. */
static int take(struct spool_run *r, size_t n, const char **out, struct err *e)
{
	int rc = load(r, e);

	if (rc < 0)
		return rc;
	if (n > r->left) {
		errno = EIO;
		return disk_error(r->spool, "read", e);
	}
	r->left -= n;
	if (rc && n <= r->first->len - r->at) {
		*out = r->first->data + r->at;
		r->at += (uint32_t)n;
		return 0;
	}
	if (n > r->join_cap) {
		r->join_cap = n;
		free(r->join);
		r->join = mem_alloc(n);
	}
	*out = r->join;
	for (size_t have = 0; have < n;) {
		rc = load(r, e);
		if (rc < 0)
			return rc;
		assert(rc > 0); /* left counts them */
		size_t part = r->first->len - r->at < n - have ? r->first->len - r->at : n - have;
		memcpy(r->join + have, r->first->data + r->at, part);
		r->at += (uint32_t)part;
		have += part;
	}
	return 0;
}

int spool_next(struct spool_run *r, const char **data, size_t *len, struct err *e)
{
	const char *head;
	uint32_t n;

	if (!r->left)
		return 0;
	int rc = take(r, sizeof n, &head, e);
	if (rc)
		return rc;
	memcpy(&n, head, sizeof n);
	rc = take(r, n, data, e);
	*len = n;
	return rc ? rc : 1;
}

void spool_run_free(struct spool_run *r)
{
	if (!r)
		return;
	while (r->first)
		drop_first(r);
	if (r->prev)
		r->prev->next = r->next;
	else
		r->spool->runs = r->next;
	if (r->next)
		r->next->prev = r->prev;
	free(r->join);
	free(r);
}
