/* http: TLS, and what is not listened on without it. */
#include "base/mem.h"
#include "http/http_int.h"
#include "http_kit.h"
#include <dirent.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

static const char with_token[] = "http.tokens={\"ci\":{\"sha256\":\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"}}"; /* "test" */

/* A key and a certificate of it for `name`, as NAME.key and NAME.crt in the kit's directory. */
static void make_certificate(struct kit *k, const char *name)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	char path[128];
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	snprintf(path, sizeof path, "%s/%s.crt", k->dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	PEM_write_X509(f, x);
	fclose(f);
	snprintf(path, sizeof path, "%s/%s.key", k->dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	X509_free(x);
	EVP_PKEY_free(key);
}

static void remove_certificate(struct kit *k, const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s.crt", k->dir, name);
	unlink(path);
	snprintf(path, sizeof path, "%s/%s.key", k->dir, name);
	unlink(path);
}

/* Settings that name the certificate and the key, each of its own. */
static struct config *tls_config(struct kit *k, const char *cert, const char *key, const char *listen)
{
	char *c = mem_printf("http.tls_cert=%s/%s.crt", k->dir, cert), *p = mem_printf("http.tls_key=%s/%s.key", k->dir, key);
	struct config *config = kit_config(k, (const char *const[]){ c, p, listen, with_token, NULL });
	free(c);
	free(p);
	return config;
}

struct secure {
	struct client *client;
	SSL_CTX *ctx;
	SSL *ssl;
	char name[64];  /* the server's, as its certificate has it */
};

/* The client reads by itself: its descriptor is looked at between the loop's turns. False: no TLS with this version. */
static bool secure_dial(struct kit *k, struct secure *s, int max_version)
{
	s->client = dial(k);
	loop_io_want(s->client->io, 0);
	s->ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_security_level(s->ctx, 0);
	SSL_CTX_set_max_proto_version(s->ctx, max_version);
	s->ssl = SSL_new(s->ctx);
	SSL_set_fd(s->ssl, s->client->fd);
	for (int rc; (rc = SSL_connect(s->ssl)) != 1;) {
		int why = SSL_get_error(s->ssl, rc);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			return false;
		kit_turn(k, 1);
	}
	X509 *x = SSL_get1_peer_certificate(s->ssl);
	X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, s->name, sizeof s->name);
	X509_free(x);
	return true;
}

static struct answer *secure_ask(struct secure *s, const char *request)
{
	char text[65536];
	size_t len = 0;
	assert_int_equal(SSL_write(s->ssl, request, (int)strlen(request)), (int)strlen(request));
	for (;;) {
		int n = SSL_read(s->ssl, text + len, (int)(sizeof text - 1 - len));
		if (n <= 0 && SSL_get_error(s->ssl, n) != SSL_ERROR_WANT_READ)
			break;
		len += n > 0 ? (size_t)n : 0;
		kit_turn(s->client->kit, 1);
	}
	text[len] = 0;
	return answer_parse(text, len);
}

static void secure_hang_up(struct secure *s)
{
	SSL_free(s->ssl);
	SSL_CTX_free(s->ctx);
	hang_up(s->client);
}

static unsigned count_descriptors(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void the_api_over_tls(void **state)
{
	struct kit *k = *state;
	struct err e = { 0 };
	struct secure s;
	make_certificate(k, "one.example");
	make_certificate(k, "two.example");
	k->config = tls_config(k, "one.example", "one.example", "http.listen=127.0.0.1:0");
	assert_int_equal(kit_http_open(k->loop, k->config, k->engine, &k->http, &e), 0);
	double_add(k->engine, "shop");
	assert_true(secure_dial(k, &s, TLS1_3_VERSION));
	assert_string_equal(s.name, "one.example");
	struct answer *a = secure_ask(&s, "POST /jobs/shop/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test\r\nOrigin: https://localhost\r\n"
					  "Connection: close\r\n\r\n");
	assert_int_equal(a->status, 202);
	answer_free(a);
	secure_hang_up(&s);
	assert_true(secure_dial(k, &s, TLS1_2_VERSION));
	a = secure_ask(&s, "GET /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test\r\nOrigin: http://localhost\r\nConnection: close\r\n\r\n");
	assert_string_equal(answer_code(a), "origin.not-allowed");
	answer_free(a);
	secure_hang_up(&s);
	assert_false(secure_dial(k, &s, TLS1_1_VERSION));
	secure_hang_up(&s);
	/* one who does not speak it gets nothing, and disturbs nobody */
	struct client *c = dial(k);
	say(c, "GET /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test\r\n\r\n");
	kit_turn(k, 50);
	assert_true(!c->data || !strstr(c->data, "HTTP/"));
	hang_up(c);
	/* a new certificate, for those who come from now on */
	struct config *config = tls_config(k, "two.example", "two.example", "http.listen=127.0.0.1:0");
	assert_int_equal(http_reload(k->http, config, &e), 0);
	config_free(config);
	assert_true(secure_dial(k, &s, TLS1_3_VERSION));
	assert_string_equal(s.name, "two.example");
	secure_hang_up(&s);
	/* one that does not fit its key is refused, and the old one stays; nothing is left behind */
	config = tls_config(k, "one.example", "two.example", "http.listen=127.0.0.1:0");
	kit_turn(k, 20);
	unsigned before = count_descriptors();
	for (int i = 0; i < 3; i++) {
		assert_true(http_reload(k->http, config, &e) < 0);
		assert_string_equal(e.id, "http.tls");
	}
	assert_int_equal(count_descriptors(), before);
	config_free(config);
	assert_true(secure_dial(k, &s, TLS1_3_VERSION));
	assert_string_equal(s.name, "two.example");
	secure_hang_up(&s);
	remove_certificate(k, "one.example");
	remove_certificate(k, "two.example");
}

static void nothing_insecure_is_opened(void **state)
{
	struct kit *k = *state;
	struct err e = { 0 };
	struct http *h = NULL;
	make_certificate(k, "one.example");
	/* files that are not there */
	struct config *c = tls_config(k, "nobody", "nobody", "http.listen=127.0.0.1:0");
	assert_true(kit_http_open(k->loop, c, k->engine, &h, &e) < 0);
	assert_string_equal(e.id, "http.tls");
	config_free(c);
	/* As if it could be reached from elsewhere: what is good for loopback is then refused. The address changes only with a restart. */
	k->config = tls_config(k, "one.example", "one.example", "http.listen=127.0.0.1:0");
	assert_int_equal(kit_http_open(k->loop, k->config, k->engine, &k->http, &e), 0);
	k->http->loopback = false;
	assert_int_equal(http_reload(k->http, k->config, &e), 0);
	c = kit_config(k, NULL);
	assert_true(http_reload(k->http, c, &e) < 0);
	assert_string_equal(e.id, "http.insecure");
	config_free(c);
	c = kit_config(k, (const char *const[]){ with_token, NULL });
	assert_true(http_reload(k->http, c, &e) < 0);
	assert_non_null(strstr(e.message, "there is no TLS"));
	config_free(c);
	remove_certificate(k, "one.example");
}

#define T(f) cmocka_unit_test_setup_teardown(f, kit_set_up_closed, kit_tear_down)
RUN_TESTS(T(the_api_over_tls), T(nothing_insecure_is_opened))
