/* The file target's journal may be torn or foreign: it is read or refused, and no path in it leads out of the directory. What was read is written the same
 * way again. */
#include "connectors/file/file_int.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input's lines as a group with a right hash, so that more than hashes is tried. */
static void make_right(struct buf *out, const uint8_t *data, size_t size)
{
	buf_str(out, "dmsr-file 1\n");
	size_t start = out->len;
	buf_append(out, data, size);
	buf_byte(out, '\n');
	buf_printf(out, "C %016llx\n", (unsigned long long)hash_stable(out->data + start, out->len - start, 0));
}

static void check(const char *text, size_t n)
{
	struct journal j = { 0 }, again = { 0 };
	struct buf out;

	buf_init(&out, SIZE_MAX);
	if (!journal_parse(text, n, &j, NULL)) {
		for (size_t i = 0; i < j.nrenames; i++)
			if (j.renames[i].path[0] == '/' || j.renames[i].path[0] == '.' || strstr(j.renames[i].path, "/."))
				abort();
		journal_put(&out, &j, true);
		if (journal_parse(out.data, out.len, &again, NULL) || again.nloads != j.nloads || again.nrenames != j.nrenames || again.at.lsn != j.at.lsn ||
			again.load_done != j.load_done)
			abort();
	}
	buf_fini(&out);
	journal_fini(&j);
	journal_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf text;

	check((const char *)data, size);
	buf_init(&text, SIZE_MAX);
	make_right(&text, data, size);
	check(text.data, text.len);
	buf_fini(&text);
	return 0;
}
