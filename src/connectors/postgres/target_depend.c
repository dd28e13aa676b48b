/* target_depend: a table of tokens. For each the number of the last transaction in every lane that claimed it in either mode; what a lane has committed
 * since then holds nobody up, so that nothing need be taken out: dead entries go when the table is full. */
#include "target_depend.h"
#include <assert.h>
#include <stdlib.h>

enum {
	SLOTS_MIN = 1024,
	COSTLY_US = 3000,               /* what a commit may take before a conflict with another lane is to be avoided */
	ALL = 1024, MOST = ALL / 4,     /* of the transactions */
	SLACK_BYTES = 128 << 10,        /* the lane of a token's hash is kept as long as it is no more than this behind the least busy one */
};

struct claim {
	uint64_t token;
	enum depend_mode mode;
};

struct depend {
	unsigned nlanes;
	uint64_t numbers;               /* given out so far */
	uint64_t committed[DEPEND_LANES_MAX];
	size_t load[DEPEND_LANES_MAX];  /* weight of what is not committed */
	uint64_t commit_us;             /* of the last few, the newest most */
	int conflicting;                /* so many of ALL, lately */
	unsigned last;                  /* lane of the newest */
	struct claim *claims;
	size_t nclaims, cap;
	/* Open addressing. A slot: the token (0: free), then the last number in mode ONE of each lane, then in mode OTHER. */
	uint64_t *slots;
	size_t nslots, used;
};

static size_t stride(const struct depend *d) { return 1 + 2 * (size_t)d->nlanes; }

static uint64_t *slot_of(uint64_t *slots, size_t nslots, size_t width, uint64_t token)
{
	size_t i = (size_t)(token * 0x9e3779b97f4a7c15u >> 20) & (nslots - 1);
	while (slots[i * width] && slots[i * width] != token)
		i = (i + 1) & (nslots - 1);
	return &slots[i * width];
}

struct depend *depend_new(unsigned nlanes)
{
	assert(nlanes && nlanes <= DEPEND_LANES_MAX);
	struct depend *d = mem_zalloc(sizeof *d);
	d->nlanes = nlanes;
	d->nslots = SLOTS_MIN;
	d->slots = mem_zalloc(d->nslots * stride(d) * sizeof *d->slots);
	return d;
}

void depend_free(struct depend *d)
{
	if (!d)
		return;
	free(d->claims);
	free(d->slots);
	free(d);
}

/* ---- claims ---- */

void depend_claim(struct depend *d, uint64_t token, enum depend_mode mode)
{
	token += !token;
	if (d->nclaims && d->claims[d->nclaims - 1].token == token && d->claims[d->nclaims - 1].mode == mode)
		return;
	if (d->nclaims == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 64;
		d->claims = mem_realloc_array(d->claims, d->cap, sizeof *d->claims);
	}
	d->claims[d->nclaims++] = (struct claim){ token, mode };
}

void depend_drop(struct depend *d) { d->nclaims = 0; }
size_t depend_claims(const struct depend *d) { return d->nclaims; }

/* ---- the table ---- */

static bool is_live(const struct depend *d, const uint64_t *slot)
{
	for (unsigned l = 0; l < d->nlanes; l++)
		if (slot[1 + l] > d->committed[l] || slot[1 + d->nlanes + l] > d->committed[l])
			return true;
	return false;
}

/* Room for as many more as the transaction at hand claims. */
static void make_room(struct depend *d)
{
	size_t width = stride(d), live = 0;
	if (2 * (d->used + d->nclaims) <= d->nslots)
		return;
	for (size_t i = 0; i < d->nslots; i++)
		live += d->slots[i * width] && is_live(d, &d->slots[i * width]);
	size_t nslots = SLOTS_MIN;
	while (nslots < 4 * (live + d->nclaims))
		nslots *= 2;
	uint64_t *slots = mem_zalloc(nslots * width * sizeof *slots);
	for (size_t i = 0; i < d->nslots; i++) {
		const uint64_t *old = &d->slots[i * width];
		if (*old && is_live(d, old))
			memcpy(slot_of(slots, nslots, width, *old), old, width * sizeof *old);
	}
	free(d->slots);
	d->slots = slots;
	d->nslots = nslots;
	d->used = live;
}

/* ---- placing ---- */

/* after[l]: the newest transaction in l that it conflicts with and that is not committed. */
static void find_conflicts(const struct depend *d, uint64_t after[DEPEND_LANES_MAX])
{
	for (size_t i = 0; i < d->nclaims; i++) {
		const struct claim *c = &d->claims[i];
		const uint64_t *slot = slot_of(d->slots, d->nslots, stride(d), c->token);
		for (unsigned l = 0; *slot && l < d->nlanes; l++) {
			uint64_t one = slot[1 + l], other = slot[1 + d->nlanes + l];
			if ((c->mode & DEPEND_OTHER) && one > d->committed[l] && one > after[l])
				after[l] = one;
			if ((c->mode & DEPEND_ONE) && other > d->committed[l] && other > after[l])
				after[l] = other;
		}
	}
}

static void count_conflict(struct depend *d, const uint64_t after[DEPEND_LANES_MAX])
{
	bool any = false;
	for (unsigned l = 0; l < d->nlanes; l++)
		any |= after[l] != 0;
	d->conflicting += ((any ? ALL : 0) - d->conflicting) / 16;
}

/* Behind the newest that it conflicts with: that waits for the older ones already, mostly. Without any: by hash, unless that lane is far behind. */
static unsigned choose(const struct depend *d, const uint64_t after[DEPEND_LANES_MAX])
{
	unsigned newest = 0, idlest = 0;
	for (unsigned l = 1; l < d->nlanes; l++) {
		if (after[l] > after[newest])
			newest = l;
		if (d->load[l] < d->load[idlest])
			idlest = l;
	}
	if (after[newest])
		return newest;
	if (d->commit_us >= COSTLY_US && d->conflicting >= MOST)
		return d->last;
	unsigned own = d->nclaims ? (unsigned)(d->claims[0].token % d->nlanes) : idlest;
	return d->load[own] <= d->load[idlest] + SLACK_BYTES ? own : idlest;
}

uint64_t depend_place(struct depend *d, size_t weight, unsigned *lane, uint64_t after[DEPEND_LANES_MAX])
{
	memset(after, 0, DEPEND_LANES_MAX * sizeof *after);
	make_room(d);
	find_conflicts(d, after);
	count_conflict(d, after);
	*lane = d->last = choose(d, after);
	after[*lane] = 0;
	uint64_t number = ++d->numbers;
	for (size_t i = 0; i < d->nclaims; i++) {
		const struct claim *c = &d->claims[i];
		uint64_t *slot = slot_of(d->slots, d->nslots, stride(d), c->token);
		d->used += !*slot;
		*slot = c->token;
		if (c->mode & DEPEND_ONE)
			slot[1 + *lane] = number;
		if (c->mode & DEPEND_OTHER)
			slot[1 + d->nlanes + *lane] = number;
	}
	d->load[*lane] += weight;
	d->nclaims = 0;
	return number;
}

void depend_committed(struct depend *d, unsigned lane, uint64_t number, size_t weight)
{
	assert(lane < d->nlanes && d->load[lane] >= weight);
	if (number > d->committed[lane])
		d->committed[lane] = number;
	d->load[lane] -= weight;
}

void depend_took(struct depend *d, uint64_t us) { d->commit_us += us / 8 - d->commit_us / 8; }

uint64_t depend_clear(struct depend *d)
{
	for (unsigned l = 0; l < d->nlanes; l++) {
		d->committed[l] = d->numbers;
		d->load[l] = 0;
	}
	return d->numbers;
}
