/* settings: the checked options of one instance: name -> typed value. Filled by engine/options from a job's JSON by the
 * plugin's own table, so a getter of a declared name never fails; asking for an undeclared one is our bug (assert). */
#ifndef DMSR_BASE_SETTINGS_H
#define DMSR_BASE_SETTINGS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#pragma GCC visibility push(default)

struct settings;
struct settings *settings_new(void);
void settings_free(struct settings *s);           /* secrets are wiped; NULL is fine */
void settings_put_str(struct settings *s, const char *name, const char *value); /* NULL: declared, without a value */
void settings_put_int(struct settings *s, const char *name, int64_t value);
void settings_put_bool(struct settings *s, const char *name, bool value);
void settings_put_list(struct settings *s, const char *name, const char *const *values, size_t n);

const char *settings_str(const struct settings *s, const char *name);  /* NULL: not given and no default */
int64_t settings_int(const struct settings *s, const char *name);      /* int, bytes, milliseconds */
bool settings_bool(const struct settings *s, const char *name);
const char *const *settings_list(const struct settings *s, const char *name, size_t *n);

#pragma GCC visibility pop
#endif
