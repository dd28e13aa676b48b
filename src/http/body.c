/* body: a request's bytes -> JSON. */
#include "http/body.h"
#include "engine/config.h"
#include <string.h>
#include <strings.h>

/* How deep the brackets go. jansson's own limit is 2048, and it recurses. */
static int depth(const char *p, size_t n)
{
	int now = 0, most = 0;
	bool quoted = false;
	for (size_t i = 0; i < n; i++) {
		if (quoted) {
			if (p[i] == '\\')
				i++; /* whatever it is, it closes nothing */
			else
				quoted = p[i] != '"';
			continue;
		}
		quoted = p[i] == '"';
		now += (p[i] == '{' || p[i] == '[') - (p[i] == '}' || p[i] == ']');
		most = now > most ? now : most;
	}
	return most;
}

static bool is_blank(const char *data, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr(" \t\r\n", data[i]) || !data[i])
			return false;
	return true;
}

/* jansson tells what it expected and "near" which words of the body; those may be a secret's, unless they are a key. */
static int malformed(const json_error_t *j, struct err *e)
{
	const char *near = strstr(j->text, " near "), *what = j->text;
	int n = near ? (int)(near - j->text) : (int)strlen(j->text);
	if (json_error_code(j) == json_error_duplicate_key)
		n = (int)strlen(j->text);
	if (json_error_code(j) == json_error_null_character || json_error_code(j) == json_error_null_byte_in_key)
		n = (int)strlen(what = "\\u0000 is not allowed");
	return err_set(e, DMSR_EINVAL, "json.malformed", "line %d, column %d: %.*s", j->line, j->column, n, what);
}

json_t *body_parse(const char *data, size_t n, problems *found, struct err *e)
{
	json_error_t j;
	if (depth(data, n) > BODY_DEPTH_MAX) {
		err_set(e, DMSR_EINVAL, "json.too-deep", "the body is nested more than %d deep", BODY_DEPTH_MAX);
		return NULL;
	}
	json_t *o = json_loadb(n ? data : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &j);
	if (!o && is_blank(data, n)) {
		err_set(e, DMSR_EINVAL, "json.malformed", "the body is empty: it must be one JSON object");
		return NULL;
	}
	if (!o && json_error_code(&j) == json_error_duplicate_key) {
		char at[CONFIG_POINTER_MAX];
		config_text_pointer(data, n, (size_t)j.position, at, sizeof at);
		problem_add(found, "duplicate", NULL, at, "is there twice");
	}
	if (!o) {
		malformed(&j, e);
		return NULL;
	}
	if (json_is_object(o))
		return o;
	json_decref(o);
	err_set(e, DMSR_EINVAL, "json.not-object", "the body must be one JSON object");
	return NULL;
}

bool body_is_empty(const char *data, size_t n)
{
	size_t brackets = 0;
	for (size_t i = 0; i < n; i++) {
		if (brackets < 2 && data[i] == "{}"[brackets])
			brackets++;
		else if (data[i] != ' ' && data[i] != '\t' && data[i] != '\r' && data[i] != '\n')
			return false;
	}
	return brackets != 1;
}

bool body_is_json(const char *content_type, bool patch)
{
	static const char charset[] = "charset=";
	if (!content_type)
		return false;
	size_t n = strcspn(content_type, "; \t");
	bool json = n == strlen("application/json") && !strncasecmp(content_type, "application/json", n);
	bool merge = n == strlen("application/merge-patch+json") && !strncasecmp(content_type, "application/merge-patch+json", n);
	if (!json && !(merge && patch))
		return false;
	for (const char *p = content_type + n; *p; p += strcspn(p, ";")) {
		p += strspn(p, "; \t");
		if (strncasecmp(p, charset, sizeof charset - 1) != 0)
			continue;
		p += sizeof charset - 1;
		p += *p == '"';
		size_t len = strcspn(p, "\"; \t");
		if (len != 5 || strncasecmp(p, "utf-8", len) != 0)
			return false;
	}
	return true;
}
