/* text: strings in JSON, base64url and hashes, for paths, cursors and keys. Pure. */
#ifndef DMSR_HTTP_TEXT_H
#define DMSR_HTTP_TEXT_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* How JSON is written: on one line, and numbers as people write them: 78.7, not 78.700000000000003. */
enum { TEXT_JSON = JSON_COMPACT | JSON_REAL_PRECISION(15) };
/* A JSON string of s whatever its bytes are: what is no UTF-8 becomes '?'. NULL gives null. */
json_t *text_json(const char *s);
/* Cursors: opaque to the client. decode gives NULL when it is none of ours or holds a NUL. Both heap. */
char *cursor_encode(const char *text);
char *cursor_decode(const char *cursor);

enum { SHA256_BYTES = 32, SHA256_HEX = 2 * SHA256_BYTES + 1 };
void sha256(const void *p, size_t n, unsigned char out[SHA256_BYTES]);
void sha256_hex(const void *p, size_t n, char out[SHA256_HEX]);

#endif
