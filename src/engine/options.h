/* options: option tables -> checked settings, JSON Schema, man page. The one place where a job's or the daemon's JSON meets a table. Pure but for secrets. */
#ifndef DMSR_ENGINE_OPTIONS_H
#define DMSR_ENGINE_OPTIONS_H
#include "dmsr.h"
#include <jansson.h>

/* Findings about somebody's JSON: an array of {"pointer","code","detail","suggestion"?}. Codes: unknown-key, required, type, range, enum, pattern,
 * duplicate, conflict, not-found, immutable, reserved, secret, syntax. Never holds a secret's value. */
typedef json_t problems; /* an alias, not a struct: jansson's own type */
void problem_add(problems *p, const char *code, const char *suggestion /* or NULL */, const char *pointer, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Appends one escaped token to a JSON pointer: "/targets/0" + "a/b" -> "/targets/0/a~1b". out: size bytes. */
const char *pointer_join(char *out, size_t size, const char *base, const char *token);

/* Checks obj against the table (skipping the keys in `also`, which the caller handles itself) and fills settings with every declared option. Secrets may be
 * {"$secret":"name"}: resolved by secret_resolve. Returns NULL when problems were added. A key that begins with "//" is a comment. */
struct secrets;
struct settings *options_parse(const struct dmsr_option *table, const struct dmsr_option *extra /* a codec's; or NULL */, const json_t *obj,
	const char *const *also, const char *pointer, const struct secrets *secrets, problems *p);
/* The nearest known key for a misspelt one (edit distance <= 2 or a third of its length), or NULL. */
const char *options_nearest(const char *word, const struct dmsr_option *table, const struct dmsr_option *extra, const char *const *also);
/* JSON Schema of the object: properties, required, additionalProperties false, writeOnly for secrets */
json_t *options_schema(const struct dmsr_option *table, const struct dmsr_option *extra);
/* A copy of obj with every secret's literal value replaced by "***" ({"$secret":..} stays). */
json_t *options_redact(const struct dmsr_option *table, const struct dmsr_option *extra, const json_t *obj);
int options_parse_bytes(const char *text, int64_t *out);      /* "64KiB" ...; -1 */
int options_parse_duration(const char *text, int64_t *out_ms); /* "10s" ...; -1 */
const struct dmsr_option *options_find(const struct dmsr_option *table, const char *name);

/* secrets: names -> values. Where from: the daemon's configuration "secrets": {"shop": {"file": "/run/credentials/..."} | {"env": "NAME"} |
 * {"credential": "pg"}}, read afresh at each resolve. A job can only name a secret, never a file or a variable. */
struct secrets *secrets_new(const json_t *config_secrets, problems *p);
void secrets_free(struct secrets *s);
char *secret_resolve(const struct secrets *s, const char *name, struct err *e); /* heap, wipe and free; NULL: secret.unresolved */

#endif
