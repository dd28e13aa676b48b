/* source: what this folder's plugin table needs of the PostgreSQL source. */
#ifndef DMSR_POSTGRES_SOURCE_H
#define DMSR_POSTGRES_SOURCE_H
#include "dmsr.h"

extern const struct dmsr_option pgsource_options[];
extern const struct dmsr_source pgsource;

#endif
