/* match: which tables a job means. Patterns "schema.table" with * (any run) and ? (one character); a part in double quotes is literal
 * ("a.b"."c""d"). A pattern without a dot means public.<pattern>. An empty include means every ordinary table outside of the
 * server's own schemas (the source knows those) and outside of schema "dmsr". Exclude wins. */
#ifndef DMSR_MODEL_MATCH_H
#define DMSR_MODEL_MATCH_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#pragma GCC visibility push(default)

struct dmsr_tables {
	const char *const *include;
	size_t ninclude;
	const char *const *exclude;
	size_t nexclude;
};
bool dmsr_table_matches(const struct dmsr_tables *t, const char *schema, const char *name);
/* Is the pattern well formed? DMSR_EINVAL with the reason otherwise. */
int dmsr_pattern_check(const char *pattern, struct err *e);

#pragma GCC visibility pop
#endif
