/* utf8: what a well-formed sequence is, for whoever writes text that must be UTF-8: no overlong form, no surrogate, nothing beyond U+10FFFF. */
#ifndef DMSR_BASE_UTF8_H
#define DMSR_BASE_UTF8_H
#include <stddef.h>

/* Bytes of the sequence at p, of which n bytes are there: 1 for ASCII (NUL too) up to 4; 0: it is none, or n is 0. Here, since codecs call it in a loop. */
static inline unsigned utf8_sequence(const void *at, size_t n)
{
	const unsigned char *p = at;
	unsigned c = n ? p[0] : 0xFF;

	if (c < 0x80)
		return 1;
	if (c >= 0xC2 && c <= 0xDF)
		return n >= 2 && (p[1] & 0xC0) == 0x80 ? 2 : 0;
	if (c >= 0xE0 && c <= 0xEF) {
		unsigned low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF;
		return n >= 3 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 ? 3 : 0;
	}
	if (c >= 0xF0 && c <= 0xF4) {
		unsigned low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF;
		return n >= 4 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
	}
	return 0;
}

/* Length of s without a sequence that was begun at its end and cut off there: texts that are cut to fit a buffer. */
static inline size_t utf8_whole(const char *s, size_t n)
{
	for (size_t back = 1; back <= n && back <= 4; back++) {
		unsigned c = (unsigned char)s[n - back];
		if (c >= 0xC0)
			return back < (c >= 0xF0 ? 4u : c >= 0xE0 ? 3u : 2u) ? n - back : n;
		if (c < 0x80)
			break;
	}
	return n;
}

#endif
