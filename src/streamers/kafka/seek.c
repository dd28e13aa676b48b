/* seek: where a reader begins that knows no place in the stream: at its end, with what stands there as known; or at a position, which must be there. */
#include "consume_int.h"
#include <stdlib.h>

enum { SEEK_BACK_TIMES = 16 };

static void on_floor_noted(void *arg, const struct err *e) { kafka_noted(arg, e); }

/* What stands before the end may come again, with a run that goes on where an earlier one was cut off: the rest of a transaction, behind a begin like any
 * other. So the newest position there is what is known, and with one amid a transaction all of that. */
void seek_ends(struct dmsr_subscription *s)
{
	char position[POSITION_TEXT_MAX];
	if (position_is_none(&s->reached) && s->back < s->k->end) {
		s->back *= SEEK_BACK_TIMES;
		s->next_offset = s->back < s->k->end ? s->k->end - s->back : RD_KAFKA_OFFSET_BEGINNING;
		s->must_begin = true;
		kafka_wake(s->k);
		return;
	}
	s->is_seeking = false;
	if (position_is_inside(&s->reached))
		s->reached.event = POSITION_WHOLE;
	char *key = mem_printf("floor.%s", s->name);
	s->k->is_noting = true;
	s->k->host.note_put(s->k->host.ctx, key, position_format(&s->reached, position), on_floor_noted, s->k);
	free(key);
}

bool seek_sees(struct dmsr_subscription *s, const rd_kafka_message_t *m, const struct stamp *t, bool is_foreign)
{
	if (m->offset >= s->k->end) {
		seek_ends(s);
		return s->must_begin;
	}
	if (!is_foreign && !position_is_none(&t->at) && (!position_is_comparable(&t->at, &s->reached) || position_compare(&t->at, &s->reached) > 0))
		s->reached = t->at;
	return true;
}

/* A reader that goes on from a position, and knows no place for it: the first change there is must not be behind that. */
bool seek_reaches(struct dmsr_subscription *s, const struct position *first)
{
	struct err e = { 0 };
	char is[POSITION_TEXT_MAX], was[POSITION_TEXT_MAX];
	s->must_reach = false;
	if (!position_is_comparable(first, &s->reached) || position_compare(first, &s->reached) <= 0)
		return true;
	err_set(&e, DMSR_EFATAL, "kafka.retention", "topic %s begins at %s, past the position where the job goes on, %s", s->k->stream->name,
		position_format(first, is), position_format(&s->reached, was));
	err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it; and raise the topic's retention", s->k->host.env.job);
	consume_fail(s, &e);
	return false;
}
