/* config_check: the rules of the daemon's configuration that no table can say: objects of named things, and what holds between values. */
#include "engine/config_int.h"
#include "engine/spec.h"
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

const char *const config_rooms[] = { "audit", "config", "engine", "http", "job", "jobs.d", "kafka", "loop", "main", "pipeline", "plugin", "postgres", "store",
	"streamer", "target", NULL };

enum { SHA256_DIGITS = 64, NAME_MAX_LENGTH = 64 };

/* ---- objects ---- */

static bool is_name(const char *s)
{
	size_t n = strlen(s);
	return n > 0 && n <= NAME_MAX_LENGTH && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static void check_level(const char *name, const json_t *v, const char *at, problems *p)
{
	static const char *const levels[] = { "error", "warn", "info", "debug", NULL };
	const char *s = json_string_value(v);
	(void)name;
	if (!s)
		problem_add(p, "type", NULL, at, "must be a string");
	else if (log_level_parse(s) < 0)
		problem_add(p, "enum", options_nearest(s, NULL, NULL, levels), at, "must be one of: error, warn, info, debug");
}

/* A token is as secret as a password, so it is where secrets are; or only its hash is here. */
static void check_token(const char *name, const json_t *v, const char *at, problems *p)
{
	const char *sum = json_string_value(json_object_get(v, "sha256"));
	if (!is_name(name)) {
		problem_add(p, "pattern", NULL, at, "a token's name has 1 to %d letters, digits, '.', '_', '-'", NAME_MAX_LENGTH);
	} else if (sum) {
		if (json_object_size(v) != 1 || strlen(sum) != SHA256_DIGITS || strspn(sum, "0123456789abcdefABCDEF") != SHA256_DIGITS)
			problem_add(p, "pattern", NULL, at, "must be {\"sha256\": %d hexadecimal digits} and nothing else", SHA256_DIGITS);
	} else if (!json_is_object(v)) {
		problem_add(p, "type", NULL, at, "must be {\"file\": ...}, {\"env\": ...}, {\"credential\": ...} or {\"sha256\": ...}, never the token itself");
	} else {
		json_t *one = json_object();
		problems *found = json_array();
		json_object_set(one, name, (json_t *)(uintptr_t)v);
		secrets_free(secrets_new(one, found));
		if (json_array_size(found))
			problem_add(p, "type", NULL, at, "%s, or be {\"sha256\": ...}", json_string_value(json_object_get(json_array_get(found, 0), "detail")));
		json_decref(found);
		json_decref(one);
	}
}

/* What each option may be, the plugin says. */
static void check_streamer(const char *name, const json_t *v, const char *at, problems *p)
{
	if (!strcmp(name, "type") && !json_is_string(v))
		problem_add(p, "type", NULL, at, "must be a string");
	else if (json_is_null(v))
		problem_add(p, "type", NULL, at, "must not be null: leave it out");
}

static void each_name(const json_t *v, const char *pointer, void (*check)(const char *name, const json_t *v, const char *at, problems *p), problems *p)
{
	const char *key;
	json_t *one;
	char at[CONFIG_POINTER_MAX];
	json_object_foreach((json_t *)(uintptr_t)v, key, one)
	{
		if (key[0] == '/' && key[1] == '/')
			continue;
		check(key, one, pointer_join(at, sizeof at, pointer, key), p);
	}
}

void config_check_object(const struct config_entry *t, const json_t *v, const char *pointer, problems *p)
{
	if (!json_is_object(v))
		problem_add(p, "type", NULL, pointer, "must be an object: %s", t->help);
	else if (!strcmp(t->path, "secrets"))
		secrets_free(secrets_new(v, p));
	else if (!strcmp(t->path, "http.tokens"))
		each_name(v, pointer, check_token, p);
	else if (!strcmp(t->path, "log.levels"))
		each_name(v, pointer, check_level, p);
	else if (!strcmp(t->path, "jobs.streamer"))
		each_name(v, pointer, check_streamer, p);
	else
		assert(!"an object of the configuration that nobody checks");
}

/* {"file": path} | {"env": name} | {"credential": name} [| {"sha256": digits}] */
static json_t *place_schema(bool with_sum)
{
	json_t *s = json_pack("{s:s, s:i, s:i, s:{s:{s:s, s:s}, s:{s:s}, s:{s:s}}, s:b}", "type", "object", "minProperties", 1, "maxProperties", 1,
		"properties", "file", "type", "string", "pattern", "^/", "env", "type", "string", "credential", "type", "string", "additionalProperties", 0);
	if (with_sum)
		json_object_set_new(json_object_get(s, "properties"), "sha256", json_pack("{s:s, s:s}", "type", "string", "pattern", "^[0-9a-fA-F]{64}$"));
	return s;
}

json_t *config_object_schema(const struct config_entry *t)
{
	json_t *of = NULL;
	if (!strcmp(t->path, "secrets") || !strcmp(t->path, "http.tokens"))
		of = place_schema(t->flags & DMSR_OPT_SECRET);
	else if (!strcmp(t->path, "log.levels"))
		of = json_pack("{s:s, s:[s,s,s,s]}", "type", "string", "enum", "error", "warn", "info", "debug");
	else if (!strcmp(t->path, "jobs.streamer"))
		of = json_pack("{s:[s,s,s,s,s]}", "type", "string", "number", "boolean", "array", "object");
	assert(of && "an object of the configuration without a schema");
	return json_pack("{s:s, s:s, s:{}, s:{s:{}}, s:o}", "type", "object", "description", t->help, "default",
		"patternProperties", "^//", "additionalProperties", of);
}

void config_hide_secrets(const struct config_entry *t, json_t *v)
{
	const char *key;
	json_t *one;
	if (!strcmp(t->path, "jobs.streamer")) {
		/* Those built in; of another's options nobody here knows which are secret, so all are hidden. */
		struct plugins *plugins = plugins_new();
		json_t *part = json_pack("{s:O}", "streamer", v), *shown = spec_redact(part, plugins);
		json_object_update(v, json_object_get(shown, "streamer"));
		json_decref(shown);
		json_decref(part);
		plugins_free(plugins);
		return;
	}
	json_object_foreach(v, key, one)
	{
		if (json_object_get(one, "sha256"))
			json_object_set_new(one, "sha256", json_string("***"));
	}
}

/* ---- between values ---- */

bool config_split_listen(const char *listen, char *host, size_t size, uint16_t *port)
{
	const char *colon = strrchr(listen, ':');
	unsigned char address[sizeof(struct in6_addr)];
	char *end;
	if (!colon || !isdigit((unsigned char)colon[1]) || strlen(colon + 1) > 5)
		return false;
	unsigned long n = strtoul(colon + 1, &end, 10);
	if (*end || n > UINT16_MAX)
		return false;
	*port = (uint16_t)n;
	bool six = listen[0] == '[' && colon > listen + 1 && colon[-1] == ']';
	const char *from = six ? listen + 1 : listen;
	size_t len = (size_t)((six ? colon - 1 : colon) - from);
	if (len >= size)
		return false;
	memcpy(host, from, len);
	host[len] = 0;
	if (!strcmp(host, "localhost"))
		snprintf(host, size, "127.0.0.1");
	return inet_pton(six ? AF_INET6 : AF_INET, host, address) == 1;
}

bool config_is_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;
	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &six) != 1)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

struct check {
	const struct config *c;
	problems *p;
};

/* path: "http.listen". The layer is named by the value's origin. */
static void refuse(const struct check *k, const char *code, const char *path, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void refuse(const struct check *k, const char *code, const char *path, const char *fmt, ...)
{
	char pointer[CONFIG_POINTER_MAX], detail[320];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	snprintf(pointer, sizeof pointer, "/%s", path);
	for (char *c = pointer; *c; c++)
		if (*c == '.')
			*c = '/';
	problem_add(k->p, code, NULL, pointer, "%s: %s %s", config_place(k->c, path), path, detail);
}

/* A value that is wrong itself is not there: what follows from that is not told, too. */
static bool is_wrong(const struct check *k, const char *pointer)
{
	size_t i, n = strlen(pointer);
	json_t *one;
	json_array_foreach(k->p, i, one)
	{
		const char *at = json_string_value(json_object_get(one, "pointer"));
		if (!strncmp(at, pointer, n) && (!at[n] || at[n] == '/'))
			return true;
	}
	return false;
}

static void check_paths(const struct check *k)
{
	static const char *const paths[] = { "state_dir", "plugin_dir", "jobs_dir", "http.socket", "http.tls_cert", "http.tls_key", NULL };
	for (const char *const *path = paths; *path; path++) {
		const char *s = config_str(k->c, *path);
		if (s && *s && *s != '/')
			refuse(k, "pattern", *path, "must be an absolute path: a daemon has no directory of its own");
	}
	if (!*config_str(k->c, "state_dir"))
		refuse(k, "pattern", "state_dir", "must not be empty");
	if (strlen(config_str(k->c, "http.socket")) >= sizeof((struct sockaddr_un *)0)->sun_path)
		refuse(k, "range", "http.socket", "must be shorter than %zu bytes", sizeof((struct sockaddr_un *)0)->sun_path);
}

static void check_listen(const struct check *k)
{
	const char *listen = config_str(k->c, "http.listen"), *cert = config_str(k->c, "http.tls_cert"), *key = config_str(k->c, "http.tls_key");
	char host[INET6_ADDRSTRLEN];
	uint16_t port;
	if (!*cert != !*key && !is_wrong(k, "/http/tls_cert") && !is_wrong(k, "/http/tls_key")) {
		const char *without = *cert ? "http.tls_cert" : "http.tls_key";
		refuse(k, "conflict", without, "needs %s beside it", *cert ? "http.tls_key" : "http.tls_cert");
	}
	if (!*listen)
		return;
	if (!config_split_listen(listen, host, sizeof host, &port)) {
		refuse(k, "pattern", "http.listen", "must be ADDRESS:PORT, as 127.0.0.1:8080 or [::1]:8080");
		return;
	}
	if (config_is_loopback(host))
		return;
	bool tokens = json_object_size(config_json(k->c, "http.tokens")) > 0 || is_wrong(k, "/http/tokens");
	bool tls = *cert || is_wrong(k, "/http/tls_cert");
	if (!tls || !tokens)
		refuse(k, "conflict", "http.listen", "%s can be reached from other machines, so %s%s%s must be set", listen,
			tls ? "" : "http.tls_cert, http.tls_key",
			!tls && !tokens ? " and " : "", tokens ? "" : "http.tokens");
}

static void check_origins(const struct check *k)
{
	size_t i;
	const json_t *v;
	json_array_foreach(config_json(k->c, "http.allowed_origins"), i, v)
	{
		const char *s = json_string_value(v), *rest = !strncmp(s, "https://", 8) ? s + 8 : !strncmp(s, "http://", 7) ? s + 7 : NULL;
		if (!rest || !*rest || strchr(rest, '/'))
			refuse(k, "pattern", "http.allowed_origins", "holds \"%.80s\": an origin is https://HOST[:PORT], without a path", s);
	}
}

/* a must not be above b. */
static void check_order(const struct check *k, const char *a, const char *b)
{
	char pointer[2][CONFIG_POINTER_MAX];
	for (int i = 0; i < 2; i++) {
		snprintf(pointer[i], sizeof pointer[i], "/%s", i ? b : a);
		for (char *c = pointer[i]; *c; c++)
			if (*c == '.')
				*c = '/';
	}
	if (config_int(k->c, a) > config_int(k->c, b) && !is_wrong(k, pointer[0]) && !is_wrong(k, pointer[1]))
		refuse(k, "conflict", a, "must not be more than %s", b);
}

void config_check(const struct config *c, problems *p)
{
	struct check k = { c, p };
	check_paths(&k);
	check_listen(&k);
	check_origins(&k);
	check_order(&k, "jobs.retry_initial", "jobs.retry_max");
	const json_t *streamer = config_json(c, "jobs.streamer");
	if (json_object_size(streamer) && !json_object_get(streamer, "type") && !is_wrong(&k, "/jobs/streamer"))
		refuse(&k, "required", "jobs.streamer", "needs a \"type\": which streamer it is");
	check_order(&k, "http.connections_per_ip_max", "http.connections_max");
}
