/* loop_internal: what loop.c shares with loop_resolve.c. Only the tests of the two include it too. */
#ifndef DMSR_BASE_LOOP_INTERNAL_H
#define DMSR_BASE_LOOP_INTERNAL_H
#include "base/loop.h"

struct event_base;
struct event_base *loop_event_base(struct loop *l);
/* Around every callback: begin gives the time to hand to end. */
uint64_t loop_slice_begin(void);
void loop_slice_end(struct loop *l, const char *room, uint64_t begun_ns);
/* The resolver's configuration file: /etc/resolv.conf. Tests name another. */
extern const char *loop_resolve_conf;

#endif
