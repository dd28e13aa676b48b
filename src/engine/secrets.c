/* secrets: names that a job may give, values that only the daemon's configuration can point at. Nothing is kept: each resolve reads afresh, so
 * that a rotated password is found at the next connect. */
#include "engine/options.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_MAX = 64 * 1024 };

struct secrets {
	json_t *all; /* name -> {"file"|"env"|"credential": where} */
};

static bool is_good_source(const char *kind, const json_t *where)
{
	const char *s = json_string_value(where);
	if (!s || !*s)
		return false;
	if (!strcmp(kind, "file"))
		return s[0] == '/';
	if (!strcmp(kind, "credential"))
		return !strchr(s, '/') && s[0] != '.';
	return !strcmp(kind, "env") && !strchr(s, '=');
}

static void check_secret(const char *name, const json_t *source, problems *p)
{
	char at[256];
	pointer_join(at, sizeof at, "/secrets", name);
	const char *kind = json_is_object(source) ? json_object_iter_key(json_object_iter((json_t *)(uintptr_t)source)) : NULL;
	if (!kind || json_object_size(source) != 1) {
		problem_add(p, "type", NULL, at, "must be one of {\"file\": \"/path\"}, {\"env\": \"NAME\"}, {\"credential\": \"name\"}");
		return;
	}
	if (!is_good_source(kind, json_object_get(source, kind)))
		problem_add(p, "pattern", NULL, at,
			"must be {\"file\": an absolute path}, {\"env\": a variable's name} or {\"credential\": a file name without a slash}");
}

struct secrets *secrets_new(const json_t *config_secrets, problems *p)
{
	size_t before = json_array_size(p);
	struct secrets *s = mem_zalloc(sizeof *s);
	const char *key;
	json_t *v;
	s->all = json_object();
	if (config_secrets && !json_is_object(config_secrets))
		problem_add(p, "type", NULL, "/secrets", "must be an object: name -> where its value is");
	json_object_foreach((json_t *)(uintptr_t)config_secrets, key, v)
	{
		if (key[0] == '/' && key[1] == '/')
			continue;
		check_secret(key, v, p);
		json_object_set_new(s->all, key, json_deep_copy(v));
	}
	if (json_array_size(p) == before)
		return s;
	secrets_free(s);
	return NULL;
}

void secrets_free(struct secrets *s)
{
	if (!s)
		return;
	json_decref(s->all);
	free(s);
}

static char *unresolved(struct err *e, const char *name, const char *why)
{
	err_set(e, DMSR_EINVAL, "secret.unresolved", "secret \"%.64s\": %s", name, why);
	err_hint(e, "see \"secrets\" in dmsrd.json(5)");
	return NULL;
}

/* Reads to the end or to the cap; -1 with errno. */
static ssize_t read_all(int fd, char *out, size_t size)
{
	size_t n = 0;
	while (n < size) {
		ssize_t got = read(fd, out + n, size - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

/* One newline at the end is the editor's, not the secret's. */
static char *secret_text(const char *bytes, size_t n, const char *name, struct err *e)
{
	if (n && bytes[n - 1] == '\n')
		n--;
	if (n && bytes[n - 1] == '\r')
		n--;
	if (!n)
		return unresolved(e, name, "is empty");
	if (memchr(bytes, 0, n))
		return unresolved(e, name, "holds a NUL byte");
	return mem_strndup(bytes, n);
}

static char *read_secret(const char *path, const char *name, struct err *e)
{
	/* O_NONBLOCK: a FIFO must not stop the loop before fstat has told what it is. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char why[320], *value = NULL;
	if (fd < 0) {
		snprintf(why, sizeof why, "%s: %s", path, strerror(errno));
		return unresolved(e, name, why);
	}
	char *bytes = mem_alloc(SECRET_MAX + 1);
	ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read_all(fd, bytes, SECRET_MAX + 1) : (errno = EINVAL, -1);
	if (n < 0 || n > SECRET_MAX) {
		snprintf(why, sizeof why, "%s: %s", path, n < 0 ? strerror(errno) : "is longer than 64 KiB");
		unresolved(e, name, why);
	} else {
		value = secret_text(bytes, (size_t)n, name, e);
	}
	close(fd);
	explicit_bzero(bytes, SECRET_MAX + 1);
	free(bytes);
	return value;
}

char *secret_resolve(const struct secrets *s, const char *name, struct err *e)
{
	const json_t *source = json_object_get(s->all, name);
	const char *where;
	if (!source)
		return unresolved(e, name, "is not configured: dmsrd.json says under secrets where each is");
	if ((where = json_string_value(json_object_get(source, "env")))) {
		const char *value = getenv(where);
		return value ? secret_text(value, strlen(value), name, e) : unresolved(e, name, "its environment variable is not set");
	}
	if ((where = json_string_value(json_object_get(source, "file"))))
		return read_secret(where, name, e);
	where = json_string_value(json_object_get(source, "credential"));
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	if (!dir || !*dir)
		return unresolved(e, name, "CREDENTIALS_DIRECTORY is not set: is LoadCredential= in the unit?");
	char *path = mem_printf("%s/%s", dir, where);
	char *value = read_secret(path, name, e);
	free(path);
	return value;
}
