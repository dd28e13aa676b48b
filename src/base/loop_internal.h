/* loop_internal: what loop.c shares with loop_resolve.c. Only the tests of the two include it too. */
#ifndef DMSR_BASE_LOOP_INTERNAL_H
#define DMSR_BASE_LOOP_INTERNAL_H
#include "base/loop.h"

struct event_base;
struct event_base *loop_event_base(struct loop *l);
/* Around every callback: begin gives the times to hand to end. */
struct loop_slice {
	uint64_t wall_ns, cpu_ns;
};
struct loop_slice loop_slice_begin(void);
void loop_slice_end(struct loop *l, const char *room, struct loop_slice begun);
/* The resolver's configuration file: /etc/resolv.conf. Tests name another. */
extern const char *loop_resolve_conf;

#endif
