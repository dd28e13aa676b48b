/* target: what this folder's plugin table needs of the PostgreSQL target. */
#ifndef DMSR_POSTGRES_TARGET_H
#define DMSR_POSTGRES_TARGET_H
#include "dmsr.h"

extern const struct dmsr_option pgtarget_options[];
extern const struct dmsr_target pgtarget;

#endif
