/* pg_probe: puts one of the plugin's one-shot questions to a real server and prints the answer as JSON.
 *
 * usage: pg_probe source|target check|discover|drop|look [option=value ...] [table=PATTERN ...] [exclude=PATTERN ...]
 *                 [mode=full-load|cdc|full-load-and-cdc|none] [job=NAME] [uid=UID] [note.KEY=VALUE ...] [at=POSITION] [cancel_us=N]
 * cancel_us: close after that time, whatever it is doing; prints {"cancelled":true} if no answer came before. */
#include "base/worker.h"
#include "pg_args.h"

static struct loop *loop;
static struct { const char *key, *value; } notes[4];
static size_t nnotes;
static json_t *out;

static void answer(const char *key, json_t *list, const struct err *e)
{
	out = json_pack("{s:o}", key, list);
	if (e) {
		json_t *error = json_pack("{s:s,s:s,s:s}", "id", e->id, "message", e->message, "hint", e->hint);
		json_object_set_new(error, "retriable", json_boolean(e->retriable));
		json_object_set_new(out, "error", error);
	}
	loop_stop(loop);
}

static void on_checked(void *ctx, const struct dmsr_check *checks, size_t n, const struct err *e)
{
	static const char *const levels[] = { "ok", "warning", "error" };
	json_t *list = json_array();
	(void)ctx;
	for (size_t i = 0; i < n; i++) {
		const struct dmsr_check *c = &checks[i];
		json_t *one = json_pack("{s:s,s:s,s:s}", "id", c->id, "level", levels[c->level], "object", c->object);
		json_object_set_new(one, "message", json_string(c->message));
		json_object_set_new(one, "fix", c->fix ? json_string(c->fix) : json_null());
		json_object_set_new(one, "retriable", json_boolean(c->retriable));
		json_array_append_new(list, one);
	}
	answer("checks", list, e);
}

static void on_discovered(void *ctx, struct relation *const *rels, size_t n, const struct err *e)
{
	json_t *list = json_array();
	(void)ctx;
	for (size_t i = 0; i < n; i++) {
		json_t *one = json_pack("{s:s,s:s}", "schema", rels[i]->schema, "name", rels[i]->name);
		json_object_set_new(one, "columns", json_integer(rels[i]->ncolumns));
		json_object_set_new(one, "keys", json_integer(rels[i]->nkeys));
		json_array_append_new(list, one);
	}
	answer("relations", list, e);
}

static void on_dropped(void *ctx, const char *const *left, size_t n, const struct err *e)
{
	json_t *list = json_array();
	(void)ctx;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(left[i]));
	answer("left", list, e);
}

static void on_looked(void *ctx, const struct dmsr_kept *k, const struct err *e)
{
	json_t *one = NULL;
	(void)ctx;
	if (k && k->slot)
		one = json_pack("{s:s,s:s,s:b,s:I,s:I,s:I}", "slot", k->slot, "status", k->slot_status, "lost", k->is_lost, "retained",
			(json_int_t)k->retained_bytes, "safe", (json_int_t)k->safe_bytes, "lag", (json_int_t)k->lag_bytes);
	answer("kept", one ? one : json_object(), e);
}

static const char *note_get(void *ctx, const char *key)
{
	(void)ctx;
	for (size_t i = 0; i < nnotes; i++)
		if (!strcmp(notes[i].key, key))
			return notes[i].value;
	return NULL;
}

static void on_cancel(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

int main(int argc, char **argv)
{
	static const char *includes[64], *excludes[64];
	struct dmsr_tables tables = { .include = includes, .exclude = excludes };
	enum dmsr_mode mode = DMSR_FULL_LOAD_AND_CDC;
	json_t *given = json_object();
	int64_t cancel_us = -1;
	struct position at = { 0 };
	if (argc < 3)
		return 2;
	bool is_source = !strcmp(argv[1], "source");
	const struct dmsr_option *table = is_source ? dmsr_plugin_postgres.source_options : dmsr_plugin_postgres.target_options;
	const struct dmsr_probe *probe = is_source ? dmsr_plugin_postgres.source_probe : dmsr_plugin_postgres.target_probe;
	struct dmsr_probe_host host = {
		.env = { .job = "probe", .uid = "01aaaaaaaaaaaaaaaa12345678", .name = is_source ? "source" : "target", .scratch = "/tmp" },
		.checked = on_checked,
		.discovered = on_discovered,
		.dropped = on_dropped,
		.looked = on_looked,
		.note_get = note_get,
	};
	for (int i = 3; i < argc; i++) {
		const struct dmsr_option *o;
		char *v = strchr(argv[i], '=');
		if (!v)
			return 2;
		*v++ = 0;
		if (!strcmp(argv[i], "table"))
			includes[tables.ninclude++] = v;
		else if (!strcmp(argv[i], "exclude"))
			excludes[tables.nexclude++] = v;
		else if (!strcmp(argv[i], "mode"))
			mode = pg_arg_mode(v);
		else if (!strcmp(argv[i], "job"))
			host.env.job = v;
		else if (!strcmp(argv[i], "uid"))
			host.env.uid = v;
		else if (!strcmp(argv[i], "at") && position_parse(v, &at, NULL))
			return 2;
		else if (!strcmp(argv[i], "at"))
			continue;
		else if (!strcmp(argv[i], "cancel_us"))
			cancel_us = strtoll(v, NULL, 10);
		else if (!strncmp(argv[i], "note.", 5)) {
			notes[nnotes].key = argv[i] + 5;
			notes[nnotes++].value = v;
		} else if ((o = options_find(table, argv[i])))
			json_object_set_new(given, o->name, pg_arg_json(o, v));
		else
			return 2;
	}
	struct settings *s = pg_arg_settings(table, given);
	if (!s)
		return 2;
	host.env.loop = loop = loop_new();
	struct loop_timer *cancel = loop_timer_new(loop, "probe", on_cancel, NULL);
	if (cancel_us >= 0)
		loop_timer_start_us(cancel, (uint64_t)cancel_us);
	struct dmsr_instance *instance = NULL;
	struct err e = { 0 };
	int rc = !strcmp(argv[2], "check")   ? probe->check(s, &tables, mode, &host, &instance, &e) :
		!strcmp(argv[2], "discover") ? probe->discover(s, &tables, &host, &instance, &e) :
		!strcmp(argv[2], "look")     ? probe->look(s, at.kind ? &at : NULL, &host, &instance, &e) :
					       probe->drop(s, &host, &instance, &e);
	settings_free(s);
	if (rc) {
		fprintf(stderr, "%s: %s\n", e.id, e.message);
		return 1;
	}
	loop_run(loop);
	probe->close(instance);
	loop_timer_free(cancel);
	loop_free(loop);
	worker_wait_left(10000);
	if (!out)
		out = json_pack("{s:b}", "cancelled", 1);
	char *text = json_dumps(out, JSON_INDENT(1));
	printf("%s\n", text);
	free(text);
	json_decref(out);
	return 0;
}
