/* loggers: /loggers: levels of the log, changed at run time; a restart brings the configured ones back. */
#include "base/buf.h"
#include "base/log.h"
#include "base/nearest.h"
#include "engine/config.h"
#include "http/http_int.h"
#include "http/text.h"
#include <string.h>

static const char everybody[] = "default";

static json_t *logger_json(const char *name, enum log_level level, bool own)
{
	return json_pack("{s:o, s:s, s:b}", "name", text_json(name), "level", log_level_name(level), "inherited", !own);
}

static void add(void *arg, const char *room, enum log_level level, bool own) { json_array_append_new(arg, logger_json(room, level, own)); }

void loggers_list(struct request *r)
{
	json_t *items = json_array();
	json_array_append_new(items, logger_json(everybody, log_get_level(NULL), true));
	log_each_room(add, items);
	reply_json(&r->reply, 200, json_pack("{s:o}", "items", items));
}

struct lookup { const char *name; json_t *found; };

static void look(void *arg, const char *room, enum log_level level, bool own)
{
	struct lookup *l = arg;
	if (!strcmp(l->name, room))
		l->found = logger_json(room, level, own);
}

/* NULL: none of this name has spoken or was set. */
static json_t *find(const char *name)
{
	struct lookup l = { name, NULL };
	if (!strcmp(name, everybody))
		return logger_json(everybody, log_get_level(NULL), true);
	log_each_room(look, &l);
	return l.found;
}

void loggers_get(struct request *r)
{
	json_t *one = find(r->args[0]);
	if (one)
		reply_json(&r->reply, 200, one);
	else
		reply_error(&r->reply, DMSR_ENOTFOUND, "logger.not-found", "no room \"%.64s\" has written to the log yet", r->args[0]);
}

/* Also those that have not spoken yet. */
static bool is_room(struct request *r, const char *name, struct nearest *n)
{
	json_t *known = find(name);
	if (!known)
		known = engine_connector(r->http->engine, name);
	bool is = known;
	json_decref(known);
	for (const char *const *h = config_rooms; *h && !is; h++) {
		is = !strcmp(*h, name);
		nearest_try(n, *h);
	}
	return is;
}

static void refuse_room(struct request *r, const char *name, const struct nearest *n)
{
	struct err e;
	struct buf all;
	buf_init(&all, 400);
	for (const char *const *h = config_rooms; *h; h++)
		buf_printf(&all, "%s%s", h == config_rooms ? "" : ", ", *h);
	err_set(&e, DMSR_ENOTFOUND, "logger.not-found", "there is no room \"%.64s\"", name);
	if (n->best)
		err_hint(&e, "is \"%s\" meant? The rooms are %s, and plugins by their names", n->best, buf_cstr(&all));
	else
		err_hint(&e, "the rooms are %s, and plugins by their names", buf_cstr(&all));
	reply_problem(&r->reply, &e, NULL);
	buf_fini(&all);
}

/* The body's level: LOG_LEVEL_*, -1 null, -2 wrong: problems are in found. */
static int parse_level(const json_t *body, json_t *found)
{
	const char *key;
	json_t *v;
	int level = -2;
	json_object_foreach((json_t *)(uintptr_t)body, key, v)
	{
		if (strcmp(key, "level") != 0) {
			char at[128];
			problem_add(found, "unknown-key", "level", pointer_join(at, sizeof at, "", key), "is not known");
		}
	}
	v = json_object_get(body, "level");
	if (json_is_null(v))
		level = -1;
	else if (json_is_string(v) && log_level_parse(json_string_value(v)) >= 0)
		level = log_level_parse(json_string_value(v));
	else
		problem_add(found, v ? "enum" : "required", NULL, "/level", "must be error, warn, info, debug or null");
	return json_array_size(found) ? -2 : level;
}

void loggers_put(struct request *r)
{
	const char *name = r->args[0], *room = strcmp(name, everybody) != 0 ? name : NULL;
	struct nearest near = NEAREST(name);
	json_t *found = json_array();
	int level = parse_level(r->json, found);
	if (level == -1 && !room) {
		problem_add(found, "type", NULL, "/level", "the default's level cannot be null");
		level = -2;
	}
	if (room && !is_room(r, room, &near)) {
		refuse_room(r, room, &near);
	} else if (level == -2) {
		struct err e;
		err_set(&e, DMSR_EINVAL, "logger.validation", "the logger's settings are not valid");
		reply_problem(&r->reply, &e, found);
	} else if (level == -1) {
		log_unset_level(room);
	} else if (log_set_level(room, (enum log_level)level)) {
		struct err e;
		err_set(&e, DMSR_EFULL, "logger.too-many", "%.64s can have no level of its own: there are as many rooms as can be told apart", room);
		err_hint(&e, "set the level of all, PUT /loggers/%s", everybody);
		reply_problem(&r->reply, &e, NULL);
	}
	json_decref(found);
	if (r->reply.status)
		return;
	log_info("http", NULL, "%s sets the log level of %s to %s", r->actor, name, level < 0 ? "the default" : log_level_name((enum log_level)level));
	json_t *now = find(name);
	reply_json(&r->reply, 200, now ? now : logger_json(name, log_get_level(NULL), false));
}
