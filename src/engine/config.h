/* config: the daemon's own settings. /etc/dmsr/dmsrd.json < conf.d/ *.json (by name) < environment DMSR_HTTP__LISTEN=... (two underscores = one level) <
 * command line -o http.listen=...; one table serves parsing, --dump-schema, --print-config and the man page. */
#ifndef DMSR_ENGINE_CONFIG_H
#define DMSR_ENGINE_CONFIG_H
#include "options.h"

#define CONFIG_JOBS_DIR DMSR_SYSCONF_DIR "/jobs.d" /* the default */

struct config;
struct config_source {
	const char *file;                /* NULL: the default, which may be missing */
	const char *const *overrides;    /* "key.path=value" */
	size_t noverrides;
	char *const *environ;            /* NULL: none */
	/* What others know to be wrong, told with all else that is: of the values that are right, and defaults for the others. NULL: nobody is asked. */
	void (*check)(void *arg, const struct config *c, problems *p);
	void *arg;
};
enum { CONFIG_POINTER_MAX = 512 };
/* The JSON pointer of the last key that ends at or before offset, as jansson's error has it; "" when there is none. text: JSON up to there. */
void config_text_pointer(const char *text, size_t n, size_t offset, char *out, size_t size);
const char *config_path(const struct config_source *src);      /* of the file that is looked for */
/* All layers. NULL with problems filled (pointer = key path, detail names the layer: file:line where jansson tells). */
struct config *config_load(const struct config_source *src, problems *p, struct err *e);
/* The findings from n on as one error, which tells the first. 0: there are none. */
int config_invalid(const problems *p, size_t n, struct err *e);
void config_free(struct config *c);
const char *config_str(const struct config *c, const char *path);       /* "http.listen"; a declared path */
int64_t config_int(const struct config *c, const char *path);
bool config_bool(const struct config *c, const char *path);
const json_t *config_json(const struct config *c, const char *path);    /* objects and lists: "secrets", "http.tokens", "jobs.streamer" */
const char *config_place(const struct config *c, const char *path);     /* where the value is: its layer, with the line in a file */
json_t *config_print(const struct config *c);   /* every value, redacted, with its origin: {"http.listen":{"value":..,"origin":"/etc/dmsr/dmsrd.json"}} */
json_t *config_schema(void);                    /* JSON Schema 2020-12 of the file */
/* The table, for the man page's check: path, type, default, help. */
struct config_entry {
	const char *path;
	uint8_t type;
	uint8_t flags;
	const char *dflt, *values;
	int64_t min, max;
	const char *help;
};
extern const struct config_entry config_table[]; /* ends with path NULL */
/* Beside enum dmsr_option_type: an object of named things, merged name by name over the layers. The pages say what may be in each:
 *   log.levels   room -> level
 *   secrets      name -> {"file": absolute path} | {"env": "NAME"} | {"credential": "name"}        (secrets_new takes it)
 *   http.tokens  name -> the same, or {"sha256": 64 hexadecimal digits}; never the token itself     (flag DMSR_OPT_SECRET: the digits are not printed)
 *   jobs.streamer  "type" and its options: only the plugin knows which (engine_check_config)            (and which of them are secret) */
enum { CONFIG_OPT_OBJECT = 64 };
/* The rooms of this house that write to the log (the lint compares them with the code), ends with NULL; a plugin from elsewhere has one of its own name, so
 * what log.levels names is checked where the plugins are known (engine_check_config). */
extern const char *const config_rooms[];
/* The first path that differs and takes effect only at a start (no DMSR_OPT_LIVE), or NULL. */
const char *config_needs_restart(const struct config *old, const struct config *now);
/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080" -> numeric host and port (0: any that is free). False: neither. */
bool config_split_listen(const char *listen, char *host, size_t size, uint16_t *port);
bool config_is_loopback(const char *host);      /* a numeric host as above */

#endif
