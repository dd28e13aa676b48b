/* source_rest: the load of a table, that an earlier run began and did not end, goes on with the parts that are missing. In come the parts that the targets have
 * (start), and how the table was cut, from a note; out goes a table whose parts are known and some of which need not be read.
 *
 * The note "cut "schema"."name"" is durable before the first part is sent:
 *
 *   OID SYSTEM TIMELINE LSN FINGERPRINT NPARTS MARK, and for each part OID FROM WHERE, the two as LENGTH:TEXT     LSN: of the snapshot that it was cut in
 *
 * A part at LSN or later is of this cut, for older ones were of another, which this note took the place of. It may be a range of the key, or of blocks, whose
 * last one is open: there a table grows. It counts if the table is the same as then
 * (source_mark.h: the same file, the same columns, always published), and all that changed since the oldest part comes by the stream: no run since then was
 * to load it anew (the note "tables", which is written before the stream is read), whether it began to or not. */
#include "source_load.h"
#include "source_mark.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOTE_MAX = 1 << 20 };            /* a table with longer bounds starts over */

struct source_rest {
	char *schema, *name;
	struct position at;             /* the oldest of its parts */
	uint32_t *parts;
	size_t nparts;
};

void source_rest_init(struct source *s, const struct dmsr_begun *begun, size_t n)
{
	s->rests = mem_zalloc((n + 1) * sizeof *s->rests);
	for (size_t i = 0; i < n; i++) {
		struct source_rest *r = &s->rests[s->nrests++];
		r->schema = mem_strdup(begun[i].schema);
		r->name = mem_strdup(begun[i].name);
		r->at = begun[i].at;
		r->nparts = begun[i].nparts;
		r->parts = mem_alloc((r->nparts + 1) * sizeof *r->parts);
		if (r->nparts)
			memcpy(r->parts, begun[i].parts, r->nparts * sizeof *r->parts);
	}
}

void source_rest_free(struct source *s)
{
	for (size_t i = 0; i < s->nrests; i++) {
		free(s->rests[i].schema);
		free(s->rests[i].name);
		free(s->rests[i].parts);
	}
	free(s->rests);
	s->rests = NULL;
	s->nrests = 0;
}

uint64_t source_rest_lsn(const struct source *s, uint32_t id, uint64_t lsn)
{
	const struct load_table *t = s->load ? map_get_u32(s->load->rests, id) : NULL;
	return t ? t->since : lsn;
}

/* ---- the note ---- */

char *load_note_key(const char *what, const struct relation *rel)
{
	struct buf key;
	buf_init(&key, SIZE_MAX);
	buf_printf(&key, "%s ", what);
	sql_qualified(&key, rel->schema, rel->name);
	char *out = mem_strdup(buf_cstr(&key));
	buf_fini(&key);
	return out;
}

static void put_text(struct buf *out, const char *text)
{
	if (text)
		buf_printf(out, " %zu:", strlen(text));
	buf_str(out, text ? text : " -");
}

static const char *mark_of(const struct source *s, const struct relation *rel) { return s->history ? history_newest(s->history, rel->id) : NULL; }

/* A row that changes may leave its block. Of one that went from a range which is to be read into one which was, the stream's update is all that comes: a target
 * makes the row of that, or knows that it lacks it. A reader of a topic does not; and what is of another origin, or UNLOGGED, does not come. */
static bool can_go_on(const struct source *s, const struct load_table *t)
{
	return cut_lasts(t) && !(cut_moves(t) && (s->is_load_kept || !strcmp(s->opt.origin, "none") || mark_unlogged(mark_of(s, t->rel))));
}

static void note_text(const struct source *s, const struct load_table *t, struct buf *out)
{
	char at[24];
	buf_printf(out, "%u %" PRIu64 " %" PRIu32 " %s %" PRIx64 " %u %s", (unsigned)t->rel->id, s->system, s->timeline, lsn_format(s->load->lsn, at),
		t->rel->fingerprint, (unsigned)t->nparts, mark_of(s, t->rel));
	for (uint32_t i = 0; i < t->nparts && buf_ok(out); i++) {
		buf_printf(out, " %u", (unsigned)t->parts[i].id);
		put_text(out, t->parts[i].from);
		put_text(out, t->parts[i].where);
	}
}

bool rest_note(struct source *s, const struct load_table *t, void (*next)(struct source *s))
{
	struct buf text;
	char *key = load_note_key("cut", t->rel);
	const char *was = s->host.note_get(s->host.ctx, key);
	buf_init(&text, NOTE_MAX);
	if ((s->mode & DMSR_CDC) && mark_of(s, t->rel) && can_go_on(s, t) && !t->in_turns)
		note_text(s, t, &text);
	/* Without one a note that is there would take the parts of this cut for its own. */
	bool is_due = text.len || (was && *was);
	if (is_due)
		source_put_note(s, key, buf_ok(&text) && text.len ? buf_cstr(&text) : "", next);
	buf_fini(&text);
	free(key);
	return is_due;
}

/* Changes of it will not come that its parts would need. */
void rest_void(struct source *s, const struct relation *rel)
{
	char *key = load_note_key("cut", rel);
	const char *was = s->host.note_get(s->host.ctx, key);
	if (was && *was)
		source_put_note(s, key, "", NULL);
	free(key);
}

static bool is_in_run(const struct source *s, const struct source_rest *r)
{
	for (size_t i = 0; i < s->nrels; i++)
		if (!strcmp(s->rels[i]->schema, r->schema) && !strcmp(s->rels[i]->name, r->name))
			return true;
	return false;
}

/* The stream goes past those that are no part of this run. Of the others the targets need not have all yet. */
void source_rest_forget(struct source *s)
{
	for (size_t i = 0; i < s->nrests; i++) {
		struct relation named = { .schema = s->rests[i].schema, .name = s->rests[i].name };
		if (is_in_run(s, &s->rests[i]))
			continue;
		char *key = load_note_key("cut", &named);
		source_put_note(s, key, "", NULL);
		free(key);
	}
	source_rest_free(s);
}

/* ---- reading it ---- */

struct cut_note {
	unsigned id, timeline, nparts;
	uint64_t system, lsn, fingerprint;
	const char *mark, *parts;       /* in the note */
	size_t mark_len;
};

static bool read_note(const char *note, struct cut_note *n)
{
	unsigned high = 0, low = 0;
	int used = 0;
	if (sscanf(note, "%u %" SCNu64 " %u %X/%X %" SCNx64 " %u %n", &n->id, &n->system, &n->timeline, &high, &low, &n->fingerprint, &n->nparts, &used) != 7 ||
		!used)
		return false;
	n->lsn = (uint64_t)high << 32 | low;
	n->mark = note + used;
	n->mark_len = strcspn(n->mark, " ");
	n->parts = n->mark + n->mark_len;
	return n->nparts > 0;
}

/* Behind it; NULL: that is none. */
static const char *read_text(const char *at, char **out)
{
	char *end = NULL;
	*out = NULL;
	if (!strncmp(at, " -", 2))
		return at + 2;
	size_t len = *at == ' ' ? strtoul(at + 1, &end, 10) : 0;
	if (!end || *end != ':' || strnlen(end + 1, len) < len)
		return NULL;
	*out = mem_strndup(end + 1, len);
	return end + 1 + len;
}

static void forget_parts(struct load_table *t)
{
	for (uint32_t i = 0; i < t->nparts; i++) {
		free(t->parts[i].from);
		free(t->parts[i].where);
	}
	free(t->parts);
	free(t->kept);
	t->parts = NULL;
	t->kept = NULL;
	t->nparts = 0;
}

static bool read_parts(const struct cut_note *n, struct load_table *t)
{
	const char *at = n->parts;
	char *end = NULL;
	t->parts = mem_zalloc(strlen(at) / 4 * sizeof *t->parts + sizeof *t->parts);
	while (at && *at && t->nparts < n->nparts) {
		struct load_part *p = &t->parts[t->nparts++];
		p->id = (uint32_t)strtoul(at, &end, 10);
		at = end > at ? read_text(end, &p->from) : NULL;
		at = at ? read_text(at, &p->where) : NULL;
		p->is_key_range = p->where && p->where[0] == '('; /* else "ctid >= ..." (source_cut.c) */
		if (!p->from)
			at = NULL;
	}
	if (at && !*at && t->nparts == n->nparts)
		return true;
	forget_parts(t);
	return false;
}

/* ---- may it go on? ---- */

static const struct source_rest *rest_of(const struct source *s, const struct relation *rel)
{
	for (size_t i = 0; i < s->nrests; i++)
		if (!strcmp(s->rests[i].schema, rel->schema) && !strcmp(s->rests[i].name, rel->name))
			return &s->rests[i];
	return NULL;
}

/* Why not; NULL: it may. */
static const char *refusal(const struct source *s, const struct source_rest *r, const struct relation *rel, const struct cut_note *n)
{
	const char *mark = mark_of(s, rel);
	/* beside the stream the host knows where the targets are */
	bool has_changes = s->from.kind && !s->is_beside ? s->from.lsn < r->at.lsn : s->start_lsn <= r->at.lsn;
	if (n->id != rel->id || n->fingerprint != rel->fingerprint || !mark || strlen(mark) != n->mark_len || strncmp(mark, n->mark, n->mark_len) != 0)
		return "the table is not what it was";
	if (n->system != s->system || n->timeline != s->timeline)
		return "the server is not what it was";
	if (r->at.lsn < n->lsn)
		return "it was cut anew";
	/* a run that was to load it anew has read the stream without these changes; or it was none of the job's */
	uint64_t counts = source_noted_lsn(s, rel);
	if (!counts || r->at.lsn < counts)
		return "changes of it went by since";
	return has_changes ? NULL : "the stream is past its parts";
}

static bool keep(const struct source_rest *r, struct load_table *t)
{
	t->kept = mem_zalloc(((size_t)t->nparts + 1) * sizeof *t->kept);
	for (size_t i = 0; i < r->nparts; i++) {
		if (!r->parts[i] || r->parts[i] > t->nparts) {
			forget_parts(t);
			return false;
		}
		t->kept[r->parts[i]] = true;
	}
	return true;
}

void rest_find(struct source *s, struct load_table *t)
{
	const struct source_rest *r = rest_of(s, t->rel);
	struct cut_note n = { 0 };
	t->is_lost = r && !r->nparts;
	/* In another round of the same run the target's load has begun anew. */
	if (!r || t->is_lost || s->rounds || !(s->mode & DMSR_CDC))
		return;
	char *key = load_note_key("cut", t->rel);
	const char *note = s->host.note_get(s->host.ctx, key), *why = "how it was cut is not known";
	free(key);
	if (note && read_note(note, &n))
		why = refusal(s, r, t->rel, &n);
	if (!why && (!read_parts(&n, t) || !keep(r, t)))
		why = "the record of its parts cannot be read";
	if (!why && !can_go_on(s, t)) {
		forget_parts(t);
		why = "rows may have moved between its parts";
	}
	if (why) {
		log_info("postgres", s->host.env.job, "table %s.%s starts over, though parts of it are there: %s", t->rel->schema, t->rel->name, why);
		if (s->is_beside) /* the stream leaves out what the rows of the new load have */
			rest_void(s, t->rel);
		return;
	}
	t->since = r->at.lsn;
	map_put_u32(s->load->rests, t->rel->id, t);
	log_info("postgres", s->host.env.job, "table %s.%s goes on: %zu of its %u parts are there", t->rel->schema, t->rel->name, r->nparts, t->nparts);
}
