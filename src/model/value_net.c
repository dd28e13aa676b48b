/* value_net: addresses. inet and cidr: u8 family (2, 3), u8 prefix bits, u8 is_cidr, u8 bytes, the address. */
#include "model/value_internal.h"

enum { FAMILY_4 = 2, FAMILY_6 = 3 };

static void put_hex16(struct buf *out, unsigned v)
{
	static const char hex[] = "0123456789abcdef";

	for (int shift = v > 0xfff ? 12 : v > 0xff ? 8 : v > 0xf ? 4 : 0; shift >= 0; shift -= 4)
		buf_byte(out, hex[v >> shift & 15]);
}

static void put_ip4(struct buf *out, const unsigned char *a)
{
	for (int i = 0; i < 4; i++) {
		if (i)
			buf_byte(out, '.');
		buf_uint(out, a[i]);
	}
}

/* The longest run of zero words, two at least; *len 0 when there is none. */
static int zero_run(const unsigned w[8], int *len)
{
	int best = 0;

	*len = 0;
	for (int i = 0, n; i < 8; i += n + 1) {
		for (n = 0; i + n < 8 && !w[i + n];)
			n++;
		if (n > *len && n > 1) {
			best = i;
			*len = n;
		}
	}
	return best;
}

static void put_ip6(struct buf *out, const unsigned char *a)
{
	unsigned w[8];
	int len;

	for (int i = 0; i < 8; i++)
		w[i] = (unsigned)a[2 * i] << 8 | a[2 * i + 1];
	int run = zero_run(w, &len);
	/* An IPv4 address in disguise keeps its dots. */
	bool v4 = len && run == 0 && (len == 6 || (len == 5 && w[5] == 0xffff));
	for (int i = 0; i < 8; i++) {
		if (len && i == run) {
			buf_append(out, "::", 2);
			i += len - 1;
			continue;
		}
		if (i && !(len && i == run + len))
			buf_byte(out, ':');
		if (v4 && i == 6) {
			put_ip4(out, a + 12);
			return;
		}
		put_hex16(out, w[i]);
	}
}

bool text_inet(struct cursor *c, struct buf *out)
{
	unsigned family = cursor_u8(c), bits = cursor_u8(c), is_cidr = cursor_u8(c), n = cursor_u8(c);
	unsigned size = family == FAMILY_4 ? 4 : 16;
	const unsigned char *a = (const unsigned char *)cursor_bytes(c, size);

	if (!a || (family != FAMILY_4 && family != FAMILY_6) || n != size || bits > 8 * size)
		return false;
	if (family == FAMILY_4)
		put_ip4(out, a);
	else
		put_ip6(out, a);
	if (is_cidr || bits != 8 * size) {
		buf_byte(out, '/');
		buf_uint(out, bits);
	}
	return true;
}

static bool put_mac(struct cursor *c, struct buf *out, int n)
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < n; i++) {
		unsigned v = cursor_u8(c);
		if (i)
			buf_byte(out, ':');
		buf_byte(out, hex[v >> 4]);
		buf_byte(out, hex[v & 15]);
	}
	return true;
}

bool text_macaddr(struct cursor *c, struct buf *out)
{
	return put_mac(c, out, 6);
}

bool text_macaddr8(struct cursor *c, struct buf *out)
{
	return put_mac(c, out, 8);
}
