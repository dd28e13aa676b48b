/* What decoding and encoding cost: a captured pgoutput stream through the decoder, and each row through codec json and back, ROUNDS times.
 *
 * usage: bench_codec decode|encode|read FILE ROUNDS      encode: decode, and then encode; read: encode, and then read the records back
 *
 * FILE: records, each u32 length of the rest, u64 wal_start, message; big-endian. Prints how many changes (rows) went through in all and the bytes that
 * came out. bench_instructions runs it under callgrind with two counts of rounds: the difference is free of the start. */
#include "connectors/postgres/pgoutput.h"
#include "engine/options.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct dmsr_plugin dmsr_plugin_json;

enum { SERVER = 7 };

struct bench {
	struct dmsr_instance *encoder;  /* NULL: nothing is encoded */
	bool reads;
	uint64_t rows, records, bytes;
	struct err error;               /* here and not on the stack: clearing one for every change is what this would measure */
};

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "bench_codec: %s: %s\n", what, e->message);
	exit(1);
}

/* ---- the decoder's host ---- */

static struct relation *describe(void *ctx, uint32_t relid)
{
	(void)ctx, (void)relid;
	return NULL;
}

static enum dmsr_verdict ask(void *ctx, uint32_t relid)
{
	(void)ctx, (void)relid;
	return DMSR_OK;
}

static bool wanted(void *ctx, const struct relation *rel, uint64_t lsn, uint64_t *loaded_lsn)
{
	(void)lsn;
	(void)ctx, (void)rel;
	*loaded_lsn = 0;
	return true;
}

/* back: where what is read goes; NULL: nothing is read */
static void encode(struct bench *b, const struct change *ch, struct batch *back)
{
	struct dmsr_record records[DMSR_RECORDS_MAX];
	const struct dmsr_codec *codec = dmsr_plugin_json.codec;
	int n = codec->encode(b->encoder, ch, records, back ? 1 : DMSR_RECORDS_MAX, &b->error);

	if (n < 0)
		die("encode", &b->error);
	for (int i = 0; i < n; i++)
		b->bytes += records[i].key_len + records[i].value_len;
	b->records += (uint64_t)n;
	if (n && back && codec->decode(b->encoder, records[0].value, records[0].value_len, ch->rel, back, &b->error))
		die("read", &b->error);
}

static enum dmsr_verdict take(void *ctx, struct batch *batch)
{
	struct bench *b = ctx;

	struct batch *back = b->reads ? batch_new() : NULL;

	b->rows += batch->nrows;
	for (const struct change *ch = batch->first; ch && b->encoder; ch = ch->next)
		encode(b, ch, back);
	batch_free(back);
	batch_free(batch);
	return DMSR_OK;
}

/* ---- the stream ---- */

static void feed(struct bench *b, struct pgoutput *d, uint64_t wal_start, const char *data, size_t len)
{
	int rc = pgoutput_message(d, wal_start, data, len, &b->error);

	while (rc == DMSR_AGAIN)
		rc = pgoutput_continue(d, &b->error);
	if (rc)
		die("decode", &b->error);
}

static void replay(struct bench *b, const char *data, size_t len)
{
	static const struct pgoutput_limits limits = { 256 << 10, 8 << 20, 0 };
	const struct dmsr_env env = { .job = "bench", .name = "source", .scratch = "." };
	const struct pgoutput_host host = { .ctx = b, .describe = describe, .ask = ask, .wanted = wanted, .full = take };
	const struct position none = { 0 };
	struct pgoutput *d = pgoutput_new(&host, &env, &limits, 1, SERVER, &none);
	struct cursor c;

	cursor_init(&c, data, len);
	while (cursor_left(&c)) {
		uint32_t n = cursor_be32(&c);
		uint64_t wal_start = cursor_be64(&c);
		const char *p = n >= 8 ? cursor_bytes(&c, n - 8) : NULL;
		if (!p || c.bad) {
			err_set(&b->error, DMSR_EPROTO, "bench.capture", "a record is cut off");
			die("the captured stream", &b->error);
		}
		feed(b, d, wal_start, p, n - 8);
	}
	struct batch *rest = pgoutput_take(d);
	if (rest)
		take(b, rest);
	pgoutput_free(d);
}

static char *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	struct buf b;

	if (!f) {
		perror(path);
		exit(1);
	}
	buf_init(&b, (size_t)1 << 30);
	char part[65536];
	for (size_t n; (n = fread(part, 1, sizeof part, f));)
		buf_append(&b, part, n);
	fclose(f);
	*len = b.len;
	return b.data;
}

static struct dmsr_instance *open_codec(void)
{
	const struct dmsr_codec_source from = { "postgres", "bench", "bench", SERVER };
	json_t *empty = json_object(), *found = json_array();
	struct settings *s = options_parse(dmsr_plugin_json.codec_options, NULL, empty, NULL, "", NULL, found);
	struct dmsr_instance *i = NULL;
	struct err e = { 0 };

	assert(s);
	if (dmsr_plugin_json.codec->open(s, &from, &i, &e))
		die("codec json", &e);
	settings_free(s);
	json_decref(empty);
	json_decref(found);
	return i;
}

int main(int argc, char **argv)
{
	struct bench b = { 0 };
	size_t len;

	if (argc != 4 || (strcmp(argv[1], "decode") != 0 && strcmp(argv[1], "encode") != 0 && strcmp(argv[1], "read") != 0)) {
		fprintf(stderr, "usage: bench_codec decode|encode|read FILE ROUNDS\n");
		return 2;
	}
	char *data = read_file(argv[2], &len);
	b.reads = !strcmp(argv[1], "read");
	if (strcmp(argv[1], "decode") != 0)
		b.encoder = open_codec();
	for (long rounds = strtol(argv[3], NULL, 10); rounds > 0; rounds--)
		replay(&b, data, len);
	printf("%" PRIu64 " changes %" PRIu64 " records %" PRIu64 " bytes\n", b.rows, b.records, b.bytes);
	if (b.encoder)
		dmsr_plugin_json.codec->close(b.encoder);
	free(data);
	return 0;
}
