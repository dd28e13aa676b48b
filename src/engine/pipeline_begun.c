/* pipeline_begun: loads of an earlier run that were not ended: the parts that are there, with which the source may go on.
 *
 * Where a load goes to the targets alone, these say what they have. Where it goes through the streamer, which keeps it, the parts are those that were
 * delivered: a note for each table, "POSITION PART...", with the oldest of their snapshots, that follows the words in the order in which they were stored. So a
 * part may be there that is not noted, which is sent again: who has it passes over that. What changed since the oldest snapshot comes behind the load:
 * nothing of it was given to the streamer, or the source does not know any more how it had cut the table (source_rest.c), or the note is gone. */
#include "pipeline_int.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct dmsr_begun *find_begun(const struct ptarget *t, const struct dmsr_begun *like)
{
	for (size_t i = 0; i < t->nbegun; i++)
		if (!strcmp(t->begun[i].schema, like->schema) && !strcmp(t->begun[i].name, like->name))
			return &t->begun[i];
	return NULL;
}

static bool has_part(const struct dmsr_begun *b, uint32_t part)
{
	for (size_t i = 0; b && i < b->nparts; i++)
		if (b->parts[i] == part)
			return true;
	return false;
}

/* A target that was given changes of then has not got them for these parts. */
static bool is_past(const struct pipeline *p, const struct dmsr_begun *b)
{
	for (size_t i = 0; i < p->ntargets; i++)
		if (p->targets[i].applied.kind && p->targets[i].applied.lsn >= b->at.lsn)
			return true;
	return false;
}

static bool is_unwanted(const struct pipeline *p, const struct dmsr_begun *b)
{
	return memory_is_unwanted(p->run.memory, &(struct dmsr_loaded){ .schema = b->schema, .name = b->name, .at = b->at });
}

static struct dmsr_begun *add(struct begun *to)
{
	to->list = mem_realloc_array(to->list, to->n + 1, sizeof *to->list);
	return &to->list[to->n++];
}

/* ---- as the targets say ---- */

/* The parts that all have; as of the oldest snapshot of any part that one of them has: what has it will not take it again. */
static void share(const struct pipeline *p, struct dmsr_begun *out)
{
	uint32_t *parts = mem_alloc((out->nparts + 1) * sizeof *parts);
	size_t n = 0;
	for (size_t i = 0; i < out->nparts; i++) {
		bool all = true;
		for (size_t t = 1; t < p->ntargets; t++)
			all = all && has_part(find_begun(&p->targets[t], out), out->parts[i]);
		if (all)
			parts[n++] = out->parts[i];
	}
	for (size_t t = 1; t < p->ntargets; t++) {
		const struct dmsr_begun *b = find_begun(&p->targets[t], out);
		if (b && b->nparts && b->at.lsn < out->at.lsn)
			out->at = b->at;
	}
	out->parts = parts;
	out->nparts = n;
}

static void take_said(const struct pipeline *p, struct begun *to)
{
	for (size_t i = 0; p->ntargets && i < p->targets[0].nbegun; i++) {
		struct dmsr_begun b = p->targets[0].begun[i];
		if (!b.nparts || (channel_of_load(p) && is_past(p, &b))) /* where all goes one way, the source knows what it has sent */
			continue;
		share(p, &b);
		if (b.nparts && !is_unwanted(p, &b))
			*add(to) = b;
		else
			free((void *)(uintptr_t)b.parts);
	}
}

/* ---- as was delivered ---- */

static bool goes_through(const struct pipeline *p) { return pipeline_load_way(p) == DMSR_LOAD_THROUGH; }

/* No two tables have one key, whatever their names hold. */
static char *note_key(const char *schema, const char *name) { return mem_printf(MEMORY_PARTS "%zu.%s.%s", strlen(schema), schema, name); }

static bool read_note(const char *note, struct dmsr_begun *out)
{
	const char *blank = note ? strchr(note, ' ') : NULL;
	char *at = blank ? mem_strndup(note, (size_t)(blank - note)) : NULL, *end;
	uint32_t *parts = NULL;
	if (at && !position_parse(at, &out->at, NULL)) {
		parts = mem_alloc((strlen(blank) / 2 + 1) * sizeof *parts);
		for (const char *p = blank; *p == ' '; p = end)
			parts[out->nparts++] = (uint32_t)strtoul(p + 1, &end, 10);
	}
	free(at);
	out->parts = parts;
	return parts;
}

void begun_note(const struct pipeline *p, const struct load_word *w)
{
	char *key = note_key(w->schema, w->name), position[POSITION_TEXT_MAX];
	const char *was = memory_note(p->run.memory, key);
	struct dmsr_begun b = { 0 };
	bool has_parts = read_note(was, &b);
	const struct position *at = has_parts && b.at.lsn < w->at.lsn ? &b.at : &w->at;
	char *text = mem_printf("%s%s %u", position_format(at, position), has_parts ? strchr(was, ' ') : "", (unsigned)w->part);
	if (goes_through(p))
		memory_note_put(p->run.memory, key, text, NULL, NULL);
	free(text);
	free((void *)(uintptr_t)b.parts);
	free(key);
}

void begun_forget(const struct pipeline *p, const char *schema, const char *name)
{
	char *key = note_key(schema, name);
	if (memory_note(p->run.memory, key))
		memory_note_put(p->run.memory, key, NULL, NULL, NULL);
	free(key);
}

struct taking {
	const struct pipeline *p;
	struct begun *to;
};

/* A target that has a part of the table has noted it with its rows: it can go on with it. */
static bool can_all_go_on(const struct pipeline *p, const struct dmsr_begun *b)
{
	for (size_t t = 0; t < p->ntargets; t++) {
		const struct dmsr_begun *has = find_begun(&p->targets[t], b);
		if (!has || !has->nparts)
			return false;
	}
	return !is_past(p, b) && !is_unwanted(p, b);
}

static void take_note(void *arg, struct table_count *c)
{
	const struct taking *take = arg;
	struct dmsr_begun b = { .schema = c->schema, .name = c->name };
	char *key = note_key(c->schema, c->name);
	if (read_note(memory_note(take->p->run.memory, key), &b) && can_all_go_on(take->p, &b))
		*add(take->to) = b;
	else
		free((void *)(uintptr_t)b.parts);
	free(key);
}

/* A log whose changes were given on lacks those of tables that were to be loaded. */
static bool is_all_to_come(const struct pipeline *p) { return !p->hold || !hold_has_begun(p->hold); }

/* A stream that is kept without targets is for jobs that read it; of theirs nobody knows whether they can take back the part that was cut. */
static bool is_for_others(const struct pipeline *p) { return !p->ntargets && memory_note(p->run.memory, MEMORY_STREAM_BEGAN); }

/* ---- both ---- */

/* Tables whose load one of them has lost. */
static void add_lost(const struct pipeline *p, struct begun *to)
{
	for (size_t t = 0; t < p->ntargets; t++)
		for (size_t i = 0; i < p->targets[t].nbegun; i++) {
			const struct dmsr_begun *b = &p->targets[t].begun[i];
			if (!b->nparts)
				*add(to) = (struct dmsr_begun){ .schema = b->schema, .name = b->name };
		}
}

struct begun begun_agree(const struct pipeline *p)
{
	struct begun out = { 0 };
	const struct channel *c = &p->channels[channel_of_load(p) ? CHANNEL_LOAD : CHANNEL_STREAM];
	if (!c->ops->takes_rests)
		return out;
	if (!goes_through(p))
		take_said(p, &out);
	else if ((p->run.spec->mode & DMSR_FULL_LOAD) && is_all_to_come(p) && !is_for_others(p))
		memory_each_count(p->run.memory, take_note, &(struct taking){ p, &out });
	else
		memory_notes_forget(p->run.memory, MEMORY_PARTS);
	add_lost(p, &out);
	return out;
}

void begun_free(struct begun *b)
{
	for (size_t i = 0; i < b->n; i++)
		free((void *)(uintptr_t)b->list[i].parts);
	free(b->list);
}
