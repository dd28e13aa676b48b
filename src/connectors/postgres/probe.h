/* probe: what this folder's plugin table needs of the one-shot questions. */
#ifndef DMSR_POSTGRES_PROBE_H
#define DMSR_POSTGRES_PROBE_H
#include "dmsr.h"

extern const struct dmsr_probe pgsource_probe;
extern const struct dmsr_probe pgtarget_probe;

#endif
