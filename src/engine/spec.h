/* spec: a job's JSON -> plugins and checked settings. Pure but for secrets, which are resolved here: a spec is parsed afresh for every run, so that a
 * rotated password is found. The JSON is what the API takes and gives (dmsr-job(5)):
 *
 *   { name, mode?, source {connector, ...}, tables? {include?, exclude?}, streamer? {type, ...}, transforms? [{type, ...}], targets? [{name?, connector, ...}],
 *     labels? {...}, description? }
 *
 * and, ignored on the way in so that what GET gave can be PUT back: uid, state, desired_state, stop_reason, error, generation, created_at, updated_at,
 * managed_by, file_error, deletion, links, created, restarted, note. */
#ifndef DMSR_ENGINE_SPEC_H
#define DMSR_ENGINE_SPEC_H
#include "options.h"
#include "plugin.h"

struct spec_part {
	const char *name;                       /* of a target; a transform's type */
	const struct dmsr_plugin *plugin;
	struct settings *settings;
};
struct spec {
	const char *name;
	enum dmsr_mode mode;
	struct spec_part source, streamer;
	struct dmsr_tables tables;
	struct spec_part *targets, *transforms;
	size_t ntargets, ntransforms;
	json_t *json;                           /* own copy that the names lie in */
};
/* NULL when problems were added. */
struct spec *spec_parse(const json_t *json, const struct plugins *plugins, const struct secrets *secrets, problems *p);
void spec_free(struct spec *s);                 /* NULL is fine */

/* What may be kept of a job's JSON: without the keys that only a reply has and without comments at the top. New reference. */
json_t *spec_clean(const json_t *json);
/* A copy with every secret's literal value replaced by "***". Parts that no plugin knows lose all that is a string and not a name. */
json_t *spec_redact(const json_t *json, const struct plugins *plugins);
/* A copy of json in which every secret given as "***" has the value that `old` has at the same place (targets are found by name). */
json_t *spec_keep_secrets(const json_t *json, const json_t *old, const struct plugins *plugins);
/* json, or a copy of it with this streamer, when it names none. streamer NULL or empty: it stays as it is, which is embedded. New reference. */
json_t *spec_give_streamer(const json_t *json, const json_t *streamer);
/* The patterns of a job's JSON that was found right; they lie in it. */
void spec_tables(const json_t *json, struct dmsr_tables *out);
void spec_tables_fini(struct dmsr_tables *t);
/* What a target is called; and the one of a job that is called so, NULL: none. */
const char *spec_target_name(const json_t *target);
const json_t *spec_target(const json_t *json, const char *name);
/* May a job have it as its streamer? If not, problems are added, each below pointer. */
void spec_check_streamer(const json_t *streamer, const char *pointer, const struct plugins *plugins, const struct secrets *secrets, problems *p);
/* JSON Schema of a job: one branch a connector. */
json_t *spec_schema(const struct plugins *plugins);
/* One connection on its own: {"connector", "role"?: source|target, "tables"?, ...options}, or {"type", "role": streamer, ...options}. role: source when
 * it does not say. */
struct spec_connection {
	struct spec_part part;
	enum plugin_role role;          /* PLUGIN_SOURCE, PLUGIN_TARGET, PLUGIN_STREAMER */
	struct dmsr_tables tables;
	json_t *json;
};
struct spec_connection *spec_connection_parse(const json_t *json, const struct plugins *plugins, const struct secrets *secrets, problems *p);
void spec_connection_free(struct spec_connection *c);

#endif
