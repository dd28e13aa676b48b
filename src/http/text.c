/* text: strings in JSON, base64url and hashes. */
#include "http/text.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *text_json(const char *s)
{
	if (!s)
		return json_null();
	json_t *j = json_string(s);
	if (j)
		return j;
	size_t n = strlen(s);
	char *copy = mem_strndup(s, n);
	for (size_t i = 0, len; i < n; i += len) {
		if (!(len = utf8_sequence(copy + i, n - i))) {
			copy[i] = '?';
			len = 1;
		}
	}
	j = json_string(copy);
	free(copy);
	return j;
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *cursor_encode(const char *text)
{
	size_t n = strlen(text), at = 0;
	char *out = mem_alloc((n + 2) / 3 * 4 + 1);
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)(unsigned char)text[i] << 16;
		v |= left > 1 ? (uint32_t)(unsigned char)text[i + 1] << 8 : 0;
		v |= left > 2 ? (uint32_t)(unsigned char)text[i + 2] : 0;
		out[at++] = digits[v >> 18];
		out[at++] = digits[v >> 12 & 63];
		if (left > 1)
			out[at++] = digits[v >> 6 & 63];
		if (left > 2)
			out[at++] = digits[v & 63];
	}
	out[at] = 0;
	return out;
}

char *cursor_decode(const char *cursor)
{
	size_t n = strlen(cursor), at = 0;
	uint32_t v = 0;
	int bits = 0;
	char *out = mem_alloc(n + 1);
	for (size_t i = 0; i < n; i++) {
		const char *d = strchr(digits, cursor[i]);
		v = d ? v << 6 | (uint32_t)(d - digits) : 0;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[at++] = (char)(v >> bits);
			v &= (1u << bits) - 1;
		}
		if (!d || (at && !out[at - 1])) {
			free(out);
			return NULL;
		}
	}
	out[at] = 0;
	if (at && !v && bits < 6)
		return out;
	free(out);
	return NULL;
}

void sha256(const void *p, size_t n, unsigned char out[SHA256_BYTES])
{
	unsigned len = 0;
	/* Fails only where the library has no SHA-256, and then nothing here can be trusted. */
	if (EVP_Digest(p, n, out, &len, EVP_sha256(), NULL) != 1 || len != SHA256_BYTES)
		abort();
}

void sha256_hex(const void *p, size_t n, char out[SHA256_HEX])
{
	unsigned char sum[SHA256_BYTES];
	sha256(p, n, sum);
	for (int i = 0; i < SHA256_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02x", sum[i]);
}
