/* text: UTF-8, base64url and hashes. */
#include "http/text.h"
#include "base/mem.h"
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t utf8_sequence(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	static const unsigned char lead_mask[] = { 0, 0, 0x1f, 0x0f, 0x07 };
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	if (!n)
		return 0;
	if (u[0] < 0x80)
		return 1;
	size_t len = u[0] >= 0xf0 && u[0] < 0xf8 ? 4 : u[0] >= 0xe0 ? 3 : u[0] >= 0xc0 ? 2 : 0;
	if (!len || u[0] >= 0xf8 || len > n)
		return 0;
	uint32_t c = u[0] & lead_mask[len];
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	return c >= least[len] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? len : 0;
}

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
