/* auth: who may ask.
 *
 * A token is kept as its SHA-256. What a client sends is hashed too and compared with every one of them to the end, so that the time taken tells nothing. */
#include "http/auth.h"
#include "base/mem.h"
#include "engine/options.h"
#include "http/text.h"
#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TOKEN_BYTES_MIN = 16, TOKENS_MAX = 64 };

struct token {
	char *name;
	unsigned char sum[SHA256_BYTES];
};
struct auth {
	struct token *tokens;
	size_t ntokens;
	json_t *hosts, *origins; /* arrays of strings; NULL: none */
};

static int bad_token(struct err *e, const char *name, const char *why)
{
	err_set(e, DMSR_EINVAL, "http.token", "http.tokens: \"%.64s\" %s", name, why);
	return err_hint(e, "{\"%.64s\": {\"file\": \"/etc/dmsr/token\"}}; make one with: head -c 32 /dev/urandom | base64", name);
}

static int parse_sum(struct token *t, const char *hex, struct err *e)
{
	size_t n = 0;
	if (strlen(hex) != SHA256_HEX - 1 || hex[strspn(hex, "0123456789abcdefABCDEF")])
		return bad_token(e, t->name, "has a sha256 that is not 64 hexadecimal digits");
	for (; n < SHA256_BYTES; n++) {
		char digits[3] = { hex[2 * n], hex[2 * n + 1], 0 };
		t->sum[n] = (unsigned char)strtoul(digits, NULL, 16);
	}
	return 0;
}

static int resolve(struct token *t, const json_t *where, struct err *e)
{
	json_t *one = json_object(), *found = json_array();
	json_object_set(one, t->name, (json_t *)(uintptr_t)where);
	struct secrets *s = secrets_new(one, found);
	int rc = 0;
	if (!s) {
		rc = bad_token(e, t->name, "must be {\"file\"|\"env\"|\"credential\": where} or {\"sha256\": hex}, never the token itself");
	} else {
		char *value = secret_resolve(s, t->name, e);
		size_t n = value ? strlen(value) : 0;
		if (!value) {
			rc = e ? bad_token(e, t->name, "has no value: its file, variable or credential cannot be read") : DMSR_EINVAL;
		} else if (n < TOKEN_BYTES_MIN) {
			rc = bad_token(e, t->name, "is shorter than 16 characters");
		} else {
			sha256(value, n, t->sum);
		}
		if (value)
			explicit_bzero(value, n);
		free(value);
	}
	secrets_free(s);
	json_decref(found);
	json_decref(one);
	return rc;
}

static int add_tokens(struct auth *a, const json_t *tokens, struct err *e)
{
	const char *name;
	json_t *where;
	int rc = 0;
	if (!tokens || json_is_null(tokens))
		return 0;
	if (!json_is_object(tokens) || json_object_size(tokens) > TOKENS_MAX)
		return err_set(e, DMSR_EINVAL, "http.token", "http.tokens must be an object of at most %d names", TOKENS_MAX);
	a->tokens = mem_zalloc(sizeof *a->tokens * (json_object_size(tokens) + 1));
	json_object_foreach((json_t *)(uintptr_t)tokens, name, where)
	{
		if (name[0] == '/' && name[1] == '/')
			continue;
		struct token *t = &a->tokens[a->ntokens++];
		t->name = mem_strdup(name);
		const char *hex = json_string_value(json_object_get(where, "sha256"));
		rc = hex && json_object_size(where) == 1 ? parse_sum(t, hex, e) : resolve(t, where, e);
		if (rc)
			return rc;
	}
	return 0;
}

static int add_list(json_t **out, const json_t *list, const char *what, const char *id, struct err *e)
{
	size_t i;
	json_t *v;
	if (!list || json_is_null(list))
		return 0;
	json_array_foreach((json_t *)(uintptr_t)list, i, v)
	{
		if (!json_string_length(v))
			return err_set(e, DMSR_EINVAL, id, "%s must be a list of names", what);
	}
	if (!json_is_array(list))
		return err_set(e, DMSR_EINVAL, id, "%s must be a list of names", what);
	*out = json_deep_copy(list);
	return 0;
}

struct auth *auth_new(const json_t *tokens, const json_t *hosts, const json_t *origins, struct err *e)
{
	struct auth *a = mem_zalloc(sizeof *a);
	if (!add_tokens(a, tokens, e) && !add_list(&a->hosts, hosts, "http.allowed_hosts", "http.allowed-hosts", e) &&
		!add_list(&a->origins, origins, "http.allowed_origins", "http.allowed-origins", e))
		return a;
	auth_free(a);
	return NULL;
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->ntokens; i++)
		free(a->tokens[i].name);
	if (a->tokens)
		explicit_bzero(a->tokens, a->ntokens * sizeof *a->tokens);
	free(a->tokens);
	json_decref(a->hosts);
	json_decref(a->origins);
	free(a);
}

bool auth_has_tokens(const struct auth *a) { return a->ntokens > 0; }

int auth_token(const struct auth *a, const char *authorization, char *actor, size_t size, struct err *e)
{
	static const char scheme[] = "Bearer ";
	if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0) {
		err_set(e, DMSR_EAUTH, "auth.missing", "this needs a token");
		return err_hint(e, "send \"Authorization: Bearer ...\" with one of http.tokens, or use the unix socket");
	}
	const char *token = authorization + sizeof scheme - 1;
	token += strspn(token, " ");
	unsigned char sum[SHA256_BYTES];
	const struct token *found = NULL;
	sha256(token, strlen(token), sum);
	for (size_t i = 0; i < a->ntokens; i++)
		if (CRYPTO_memcmp(sum, a->tokens[i].sum, sizeof sum) == 0 && *token)
			found = &a->tokens[i];
	if (!found)
		return err_set(e, DMSR_EAUTH, "auth.invalid", "this token is none of http.tokens");
	snprintf(actor, size, "token:%.64s", found->name);
	return 0;
}

/* The length of a host's name, without its port; brackets of an IPv6 address stay. */
static size_t host_len(const char *host)
{
	if (host[0] == '[')
		return strcspn(host, "]") + (strchr(host, ']') != NULL);
	return strcspn(host, ":");
}

/* An address can be asked for by name only if it was typed: no foreign page can make a browser believe it is its own host. */
static bool is_address(const char *host, size_t n)
{
	char text[64];
	unsigned char address[16];
	bool six = n > 2 && host[0] == '[' && host[n - 1] == ']';
	if (n >= sizeof text)
		return false;
	snprintf(text, sizeof text, "%.*s", (int)(six ? n - 2 : n), host + six);
	return inet_pton(six ? AF_INET6 : AF_INET, text, address) == 1;
}

static bool is_port(const char *s)
{
	if (!*s)
		return true;
	size_t n = strspn(s + 1, "0123456789");
	return *s == ':' && n <= 5 && !s[1 + n];
}

int auth_host(const struct auth *a, const char *host, struct err *e)
{
	size_t i, n = host ? host_len(host) : 0;
	json_t *v;
	if (!n || !is_port(host + n))
		return err_set(e, DMSR_EINVAL, "header.invalid", host ? "the Host header is malformed" : "the Host header is missing");
	if (is_address(host, n) || (n == strlen("localhost") && !strncasecmp(host, "localhost", n)))
		return 0;
	json_array_foreach(a->hosts, i, v)
	{
		const char *allowed = json_string_value(v);
		if (!strcmp(allowed, "*") || (host_len(allowed) == n && !strncasecmp(allowed, host, n)))
			return 0;
	}
	err_set(e, DMSR_EINVAL, "host.not-allowed", "the host name \"%.*s\" is not served here", n < 128 ? (int)n : 128, host);
	return err_hint(e, "add it to http.allowed_hosts");
}

int auth_origin(const struct auth *a, const char *origin, const char *host, bool tls, bool *foreign, struct err *e)
{
	const char *scheme = tls ? "https://" : "http://";
	size_t i, n = strlen(scheme);
	json_t *v;
	*foreign = false;
	if (!origin || (host && !strncasecmp(origin, scheme, n) && !strcasecmp(origin + n, host)))
		return 0;
	json_array_foreach(a->origins, i, v)
	{
		if (!strcasecmp(json_string_value(v), origin)) {
			*foreign = true;
			return 0;
		}
	}
	err_set(e, DMSR_EAUTH, "origin.not-allowed", "pages of \"%.128s\" may not call this API", origin);
	return err_hint(e, "add it to http.allowed_origins");
}
