/* config_int: what the files of config share: texts with places, and the rules that go beyond one value. */
#ifndef DMSR_ENGINE_CONFIG_INT_H
#define DMSR_ENGINE_CONFIG_INT_H
#include "config.h"

enum { CONFIG_FILE_MAX_BYTES = 1 << 20, CONFIG_PATH_MAX = 128 };

/* The line (from 1) of the key or list item that pointer names, or of the nearest thing around it. text: JSON that jansson took. */
unsigned config_text_line(const char *text, size_t n, const char *pointer);
/* A whole regular file of at most CONFIG_FILE_MAX_BYTES, heap, NUL behind it; NULL with errno. */
char *config_text_read(const char *path, size_t *n);
/* Of what jansson says about a text: how much comes before the words of the text that it quotes, which may be a secret's. */
int config_text_said(const char *said);

/* Is v what this entry of type CONFIG_OPT_OBJECT may hold? */
void config_check_object(const struct config_entry *t, const json_t *v, const char *pointer, problems *p);
json_t *config_object_schema(const struct config_entry *t);
/* In place, of an entry with DMSR_OPT_SECRET. */
void config_hide_secrets(const struct config_entry *t, json_t *v);
/* What holds between values, all layers together. */
void config_check(const struct config *c, problems *p);
const char *config_origin(const struct config *c, const char *path);
/* Defaults and one text, as if it were the file's. For the fuzz target and tests. */
struct config *config_load_text(const char *text, size_t n, problems *p, struct err *e);

#endif
