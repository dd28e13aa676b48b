/* engine_double: an engine that does nothing, for tests of the API: it defines engine.h's functions and the store's that http calls, so that the real ones
 * stay in the library. Jobs are kept as JSON; answers come from a task of the loop, as the contract says, unless they are held back. */
#ifndef DMSR_TESTS_UNIT_ENGINE_DOUBLE_H
#define DMSR_TESTS_UNIT_ENGINE_DOUBLE_H
#include "engine/engine.h"

struct engine *double_new(struct loop *l);
void double_free(struct engine *g);             /* what is held back is never answered */
/* The next commands are answered with this instead: {"code","message"} or problems; NULL: as they are. Copied. */
void double_fail(struct engine *g, int code, const char *id, const json_t *errors);
void double_hold(struct engine *g, bool hold);  /* false: what was held back is answered in the next turns */
void double_hold_store(struct engine *g, bool hold); /* the same for idempotency keys */
void double_set_ready(struct engine *g, bool ready, bool draining);
void double_emit(struct engine *g, const char *type, const char *job, json_t *data); /* data is taken */
void double_add(struct engine *g, const char *name);
bool double_wants_progress(const struct engine *g);     /* does who observes it? */
void double_bump(struct engine *g, const char *name);   /* its generation moves, as by somebody else's change */
json_t *double_peek(struct engine *g, const char *name); /* the job as kept, borrowed */

/* What was called last: "create shop dry_run", "command shop pause" ... */
struct double_seen {
	char what[256];
	char actor[128];
	int64_t if_generation;
	json_t *spec;           /* borrowed until the next call */
	unsigned ncalls;
};
const struct double_seen *double_seen(const struct engine *g);
size_t double_held(const struct engine *g);

#endif
