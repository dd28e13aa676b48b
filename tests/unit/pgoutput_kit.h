/* pgoutput_kit: for the decoder's tests, fuzzer and bench: a writer of wire messages, a host that keeps a text of all it is given, and the reader of
 * captured streams (tests/fixtures/pgoutput: each record is u32 length of the rest, u64 wal_start, message; big-endian). */
#ifndef DMSR_TESTS_PGOUTPUT_KIT_H
#define DMSR_TESTS_PGOUTPUT_KIT_H
#include "connectors/postgres/pgoutput.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define KIT __attribute__((unused)) static
enum { KIT_SERVER = 7 };

/* ---- what comes out, as text ------------------------------------------------------------------------------------ */
KIT void kit_value(struct buf *out, const struct value *v)
{
	switch (v->kind) {
	case VALUE_NULL:
		buf_str(out, "NULL");
		return;
	case VALUE_UNCHANGED:
		buf_str(out, "~");
		return;
	case VALUE_TEXT:
		assert(v->data[v->len] == 0);
		break;
	default:
		buf_str(out, "0x");
		for (uint32_t i = 0; i < v->len; i++)
			buf_printf(out, "%02x", (unsigned char)v->data[i]);
		return;
	}
	if (v->len > 60) {
		buf_printf(out, "[%u bytes, %016" PRIx64 "]", v->len, hash_stable(v->data, v->len, 0));
		return;
	}
	buf_byte(out, '\'');
	buf_append(out, v->data, v->len);
	buf_byte(out, '\'');
}

KIT void kit_row(struct buf *out, const char *what, const struct relation *rel, const struct value *values)
{
	if (!values)
		return;
	buf_printf(out, " %s(", what);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		buf_printf(out, "%s%s=", i ? " " : "", rel->columns[i].name);
		kit_value(out, &values[i]);
	}
	buf_str(out, ")");
}

KIT void kit_relation(struct buf *out, const struct relation *rel)
{
	static const char *const kinds[] = { "none", "primary", "unique", "full" };

	buf_printf(out, "%s.%s[%s", rel->schema, rel->name, kinds[rel->key]);
	for (unsigned i = 0; i < rel->ncolumns; i++) {
		const struct column *c = &rel->columns[i];
		buf_printf(out, ", %s %s %s", c->name, c->native_type, logical_type_name(c->type));
		if (c->type == TYPE_ARRAY || c->type == TYPE_RANGE || c->type == TYPE_MULTIRANGE)
			buf_printf(out, " of %s", logical_type_name(c->elem_type));
		if (c->key_pos)
			buf_printf(out, " key%u", c->key_pos);
		if (!(c->flags & COLUMN_NULLABLE))
			buf_str(out, " not-null");
		if (c->flags & COLUMN_GENERATED)
			buf_str(out, " generated");
		if (c->dflt)
			buf_printf(out, " = %s", c->dflt);
	}
	buf_byte(out, ']');
}

KIT void kit_change(struct buf *out, const struct change *ch)
{
	char lsn[24];

	buf_byte(out, (char)ch->op);
	if (ch->op == OP_BEGIN) {
		buf_printf(out, " %s xid %u at %" PRId64 "\n", lsn_format(ch->txn->lsn, lsn), ch->txn->xid, ch->txn->commit_us);
		return;
	}
	if (ch->event == POSITION_WHOLE)
		buf_str(out, " *");
	else if (ch->event)
		buf_printf(out, " %" PRIu64, ch->event);
	if (ch->op == OP_SCHEMA) {
		buf_byte(out, ' ');
		kit_relation(out, ch->rel);
		if (ch->u.schema.old) {
			buf_str(out, " was ");
			kit_relation(out, ch->u.schema.old);
		}
	} else if (ch->rel) {
		buf_printf(out, " %s.%s", ch->rel->schema, ch->rel->name);
	}
	if (change_is_row(ch)) {
		kit_row(out, ch->flags & CHANGE_KEY_ONLY ? "key" : "before", ch->rel, ch->u.row.before);
		kit_row(out, "after", ch->rel, ch->u.row.after);
	} else if (ch->op == OP_MESSAGE) {
		buf_printf(out, " %s%s: ", ch->flags & CHANGE_TRANSACTIONAL ? "" : "alone ", ch->u.message.prefix);
		buf_append(out, ch->u.message.data, ch->u.message.len);
	} else if (ch->op == OP_TRUNCATE) {
		buf_printf(out, "%s%s%s", ch->flags & CHANGE_CASCADE ? " cascade" : "", ch->flags & CHANGE_RESTART_IDENTITY ? " restart" : "",
			ch->flags & CHANGE_GROUP_MORE ? " and" : "");
	}
	buf_byte(out, '\n');
}

/* ---- a host ------------------------------------------------------------------------------------------------------ */
struct kit {
	struct pgoutput *d;
	struct buf text;                /* every change, a line each */
	struct position end;            /* of the batch that came last */
	bool more;
	unsigned batches;
	bool with_ends;                 /* write each batch's end into the text */
	unsigned refuse;                /* `full` says AGAIN so many times before it takes one */
	unsigned refused;
	unsigned slices;                /* AGAIN without a refusal */
	struct relation *described[8];
	unsigned asked;                 /* how often `ask` was called */
	struct relation *answer;        /* what it learns; NULL: it says OK */
	struct relation *earlier, *remembered;
	const struct relation *as;      /* its names are those of the table with its id */
	unsigned emptied;               /* how often `empties` was called */
	bool sends_generated;
	unsigned dated;                 /* how often that was told: the row does not go out */
	const char *unwanted;           /* a table's name */
	const char *loaded;             /* a table's name, and its LSN */
	uint64_t loaded_lsn;
	struct err e;
};

KIT void kit_take(struct kit *k, struct batch *b)
{
	char text[POSITION_TEXT_MAX];
	unsigned n = 0;

	if (!b)
		return;
	assert(b->first);
	for (const struct change *ch = b->first; ch; ch = ch->next, n++)
		kit_change(&k->text, ch);
	assert(n == b->nchanges);
	k->end = b->end;
	k->more = b->more;
	k->batches++;
	if (k->with_ends)
		buf_printf(&k->text, "-- %s%s\n", position_format(&b->end, text), b->more ? " more" : "");
	batch_free(b);
}

KIT struct relation *kit_describe(void *ctx, uint32_t relid)
{
	struct kit *k = ctx;

	for (unsigned i = 0; i < 8; i++)
		if (k->described[i] && k->described[i]->id == relid)
			return k->described[i];
	return NULL;
}

KIT enum dmsr_verdict kit_ask(void *ctx, uint32_t relid)
{
	struct kit *k = ctx;

	(void)relid;
	k->asked++;
	return k->answer ? DMSR_AGAIN : DMSR_OK;
}

KIT bool kit_wanted(void *ctx, const struct relation *rel, uint64_t lsn, uint64_t *loaded_lsn)
{
	(void)lsn;
	struct kit *k = ctx;

	*loaded_lsn = k->loaded && !strcmp(k->loaded, rel->name) ? k->loaded_lsn : 0;
	return !k->unwanted || strcmp(k->unwanted, rel->name) != 0;
}

KIT struct relation *kit_earlier(void *ctx, const struct relation *rel, uint64_t lsn)
{
	(void)rel;
	(void)lsn;
	struct relation *earlier = ((struct kit *)ctx)->earlier;
	return earlier ? relation_ref(earlier) : NULL;
}

KIT struct relation *kit_remembered(void *ctx, uint32_t relid)
{
	(void)relid;
	return ((struct kit *)ctx)->remembered;
}

KIT const struct relation *kit_named(void *ctx, uint32_t relid)
{
	const struct kit *k = ctx;
	return k->as && relid == k->as->id ? k->as : NULL;
}

KIT enum dmsr_verdict kit_empties(void *ctx, uint32_t relid)
{
	struct kit *k = ctx;
	assert(k->as && relid == k->as->id);
	k->emptied++;
	return DMSR_AGAIN;
}

KIT bool kit_dated(void *ctx, const struct relation *rel, uint64_t lsn)
{
	(void)lsn;
	(void)rel;
	((struct kit *)ctx)->dated++;
	return false;
}

KIT enum dmsr_verdict kit_full(void *ctx, struct batch *b)
{
	struct kit *k = ctx;

	if (k->refused < k->refuse) {
		k->refused++;
		return DMSR_AGAIN;
	}
	k->refused = 0;
	kit_take(k, b);
	return DMSR_OK;
}

struct kit_limits {
	size_t batch_bytes, spool_memory;
	uint64_t spool_disk;
	const char *scratch;
};

/* k is zeroed but for the wishes in it. from NULL: the beginning. */
KIT void kit_open(struct kit *k, const struct kit_limits *lim, int proto_version, const struct position *from)
{
	static const struct position none = { 0 };
	static const struct kit_limits usual = { 256 << 10, 8 << 20, 0, "/tmp" };
	struct pgoutput_host host = { k, kit_describe, kit_ask, kit_wanted, kit_full, kit_dated, kit_earlier, kit_remembered, kit_named, kit_empties,
		k->sends_generated };

	lim = lim ? lim : &usual;
	struct dmsr_env env = { .job = "test", .name = "source", .scratch = lim->scratch ? lim->scratch : "/tmp" };
	struct pgoutput_limits l = { lim->batch_bytes, lim->spool_memory, lim->spool_disk };
	buf_init(&k->text, 1 << 30);
	k->d = pgoutput_new(&host, &env, &l, proto_version, KIT_SERVER, from ? from : &none);
}

KIT void kit_close(struct kit *k)
{
	pgoutput_free(k->d);
	buf_fini(&k->text);
	for (unsigned i = 0; i < 8; i++)
		relation_unref(k->described[i]);
	relation_unref(k->answer);
	relation_unref(k->earlier);
	relation_unref(k->remembered);
	memset(k, 0, sizeof *k);
}

/* Feeds one message and goes on until the decoder wants the next. */
KIT int kit_feed(struct kit *k, uint64_t wal_start, const void *data, size_t len)
{
	int rc = pgoutput_message(k->d, wal_start, data, len, &k->e);

	while (rc == DMSR_AGAIN) {
		if (k->answer) {
			for (unsigned i = 0; i < 8 && k->answer; i++)
				if (!k->described[i] || k->described[i]->id == k->answer->id) {
					relation_unref(k->described[i]);
					k->described[i] = k->answer;
					k->answer = NULL;
				}
		} else if (!k->refused) {
			k->slices++;
		}
		rc = pgoutput_continue(k->d, &k->e);
	}
	return rc;
}

/* Feeds captured records. 0, or the first error. */
KIT int kit_replay(struct kit *k, const void *data, size_t len)
{
	struct cursor c;

	cursor_init(&c, data, len);
	while (!c.bad && cursor_left(&c)) {
		uint32_t n = cursor_be32(&c);
		uint64_t wal_start = cursor_be64(&c);
		const char *p = n >= 8 ? cursor_bytes(&c, n - 8) : NULL;
		if (!p)
			return 0;
		int rc = kit_feed(k, wal_start, p, n - 8);
		if (rc)
			return rc;
	}
	return 0;
}

KIT char *kit_read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");

	if (!f)
		return NULL;
	fseek(f, 0, SEEK_END);
	*len = (size_t)ftell(f);
	rewind(f);
	char *p = mem_alloc(*len + 1);
	if (fread(p, 1, *len, f) != *len)
		*len = 0;
	p[*len] = 0;
	fclose(f);
	return p;
}

/* ---- writing messages -------------------------------------------------------------------------------------------- */
/* A message by a small language: one letter and its argument each:
 *   c character   b byte   h u16   w u32   q u64   s string with its NUL   t text value ('t' len bytes)   n NULL   u unchanged   x binary value (text) */
KIT int kit_send(struct kit *k, const char *format, ...)
{
	struct buf b;
	va_list ap;

	buf_init(&b, 1 << 30);
	va_start(ap, format);
	for (const char *f = format; *f; f++) {
		const char *s;
		switch (*f) {
		case 'c':
		case 'b':
			buf_byte(&b, (char)va_arg(ap, int));
			break;
		case 'h':
			buf_u16(&b, (uint16_t)va_arg(ap, int));
			break;
		case 'w':
			buf_u32(&b, va_arg(ap, unsigned));
			break;
		case 'q':
			buf_u64(&b, va_arg(ap, uint64_t));
			break;
		case 's':
			s = va_arg(ap, const char *);
			buf_append(&b, s, strlen(s) + 1);
			break;
		case 't':
		case 'x':
			s = va_arg(ap, const char *);
			buf_byte(&b, *f == 't' ? 't' : 'b');
			buf_u32(&b, (uint32_t)strlen(s));
			buf_str(&b, s);
			break;
		case 'n':
		case 'u':
			buf_byte(&b, *f);
			break;
		default:
			break;
		}
	}
	va_end(ap);
	int rc = kit_feed(k, 0x1000, b.data, b.len);
	buf_fini(&b);
	return rc;
}

KIT int kit_begin(struct kit *k, unsigned lsn) { return kit_send(k, "cqqw", 'B', (uint64_t)lsn, (uint64_t)0, 700 + lsn); }
KIT int kit_commit(struct kit *k, unsigned lsn) { return kit_send(k, "cbqqq", 'C', 0, (uint64_t)lsn, (uint64_t)lsn + 8, (uint64_t)0); }
/* A table (id int4 primary key, v text) */
KIT int kit_table(struct kit *k, unsigned oid, const char *name)
{
	return kit_send(k, "cwsschbswwbsww", 'R', oid, "public", name, 'd', 2, 1, "id", 23u, ~0u, 0, "v", 25u, ~0u);
}
KIT int kit_insert(struct kit *k, unsigned oid, const char *id, const char *v) { return kit_send(k, "cwchtt", 'I', oid, 'N', 2, id, v); }

#endif
