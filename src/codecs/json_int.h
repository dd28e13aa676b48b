/* json_int: what the parts of codec json share: json.c (records of a change), json_shape.c (what is known of a table beforehand), json_value.c (a value by
 * its type), json_text.c (strings, base64), json_number.c, json_time.c, json_nested.c (arrays, hstore), json_doc.c (documents put in as they are),
 * json_debezium.c (values as Debezium has them), json_read.c (a record becomes a change again). Nobody else includes it.
 *
 * A writer of a value takes the neutral text form and appends JSON to j->out. It returns NULL, or what is wrong with the value, as the end of a sentence
 * ("... is no number"); what it has appended by then is the caller's to drop.
 *
 * A reader is its inverse, beside it: it takes a JSON value off r->in and appends the neutral text form to r->out, and returns what a writer does. What the
 * writer makes of a text in the neutral form, the reader makes that text of, byte for byte; what no writer makes it refuses. */
#ifndef DMSR_CODECS_JSON_INT_H
#define DMSR_CODECS_JSON_INT_H
#include "dmsr.h"

struct json;
struct json_column;
typedef const char *json_writer(struct json *j, const struct json_column *c, const char *p, size_t n);

struct json_in {
	struct cursor in;
	struct buf *out;
};
typedef const char *json_reader(struct json_in *r, const struct json_column *c);

struct json_column {
	json_writer *write;
	json_reader *read;
	const struct json_column *elem; /* arrays: how an element is written */
	const char *label;              /* the name as JSON, with quotes and colon */
	const char *name;
	uint32_t label_len;
	int32_t typmod;
	uint8_t type, elem_type;        /* enum logical_type */
	char delimiter;                 /* between elements; 0: to be seen from the text (boxes part by semicolons) */
	bool is_generated, in_key;
};

/* A table at a version: everything about it that is the same in each record. Copied: outlives the relation. */
struct json_shape {
	struct arena arena;
	const char *schema, *name;
	unsigned ncolumns, nkeys;
	struct json_column *columns;
	const uint16_t *keys;           /* column numbers; nkeys 0: records have no key */
	const char *source;             /* the constant beginning of "source", behind its colon */
	uint32_t source_len;
	uint32_t where;                 /* from there on it names the table */
	const char *table;              /* flat: ,"__table":"..." */
	uint32_t table_len;
};

enum { JSON_CACHE = 64, JSON_SHAPES_MAX = 16384 /* a shape takes one or two KiB; then all are made again */ };

struct json {
	bool flat, meta, tombstones, debezium, numbers, embed, replace_bad;
	char *connector, *job, *database;       /* JSON strings; database: or null */
	struct buf out;                 /* the records of a change */
	struct buf text;                /* the text of a binary value */
	struct buf piece;               /* an element */
	struct buf bytes;               /* decoded, before base64; a part of an hstore */
	struct buf row;                 /* texts of a row that is read, a NUL behind each */
	struct buf read_txn;            /* what the record read last said of its transaction: as a rule, the next one says the same */
	struct map *shapes;             /* fingerprint -> shape */
	struct json_shape *none;        /* of changes without a table */
	struct {
		struct relation *rel;   /* held, so that no other gets its address */
		struct json_shape *shape;
	} cache[JSON_CACHE];
	/* what all changes of a transaction have in common */
	struct txn txn;
	uint64_t txn_lsn;
	bool has_txn, txn_is_load;
	struct buf txn_source;          /* its part of "source", to where the event stands in "sequence" */
	struct buf txn_id;              /* "transaction", to where the order stands */
	struct buf txn_flat;            /* a flat row's words about it, to where the event stands */
	int64_t now_ms;
	struct buf now_text;            /* "ts_ms" of now */
};

/* ---- json_shape.c ---- */
const struct json_shape *json_shape_of(struct json *j, struct relation *rel);   /* rel NULL: of no table */
void json_shapes_free(struct json *j);

/* ---- json_text.c ---- */
extern const char json_bad_encoding[];          /* the one complaint with an id of its own */
const char *json_put_string(struct json *j, const char *p, size_t n);           /* with its quotes */
const char *json_put_utf8(struct json *j, const char *text, size_t n);          /* as it is, but for what is no UTF-8 */
/* The string's inside into any buf; bad UTF-8 becomes U+FFFD when replace, else it returns false. */
bool json_escape(struct buf *out, const char *p, size_t n, bool replace);
void json_put_base64(struct buf *out, const void *data, size_t n);              /* without quotes */
json_writer json_write_string, json_write_bytes;
const char *json_take_string(struct json_in *r);                                /* its inside, without escapes, appended to r->out */
/* The inside of a string of which only plain text is wanted, borrowed and not looked at. */
const char *json_take_plain(struct json_in *r, const char **p, size_t *n);
json_reader json_read_string, json_read_bytes;

static inline void json_put(struct json *j, const char *p, size_t n) { buf_append(&j->out, p, n); }
#define JSON_PUT(j, literal) json_put(j, literal, sizeof(literal) - 1)

/* Takes these bytes off the front, if they stand there. */
static inline bool json_take(struct json_in *r, const char *p, size_t n)
{
	if (cursor_left(&r->in) < n || memcmp(r->in.at, p, n) != 0)
		return false;
	r->in.at += n;
	return true;
}
#define JSON_TAKE(r, literal) json_take(r, literal, sizeof(literal) - 1)
static inline bool json_is_next(const struct json_in *r, char c) { return r->in.at < r->in.end && (char)*r->in.at == c; }
static inline bool json_take_byte(struct json_in *r, char c)
{
	bool is = json_is_next(r, c);
	r->in.at += is;
	return is;
}

/* ---- json_value.c ---- */
json_writer *json_writer_of(const struct json *j, enum logical_type type);
json_reader *json_reader_of(enum logical_type type);
/* v: not UNCHANGED */
const char *json_put_value(struct json *j, const struct json_column *c, const struct value *v);

/* ---- json_number.c ---- */
json_writer json_write_int, json_write_float, json_write_numeric, json_write_uint64;
json_reader json_read_int, json_read_float, json_read_numeric, json_read_uint64;
/* Digits of a plain decimal number -> its unscaled value at `scale` (< 0: its own, without zeros at the end; then *scale is set), as the bytes of a
 * big-endian two's complement integer, appended to out. */
bool json_unscaled(const char *p, size_t n, int *scale, struct buf *out);

/* ---- json_time.c ---- */
struct json_when {
	int64_t year;                   /* 0 is 1 BC */
	unsigned month, day, hour, minute, second, us;
	int zone;                       /* seconds east */
	int infinite;                   /* -1, 1 */
};
enum { WHEN_DATE = 1, WHEN_TIME = 2, WHEN_ZONE = 4, WHEN_ISO = 8 /* as it is written here, else the neutral text */ };
bool json_when_parse(const char *p, size_t n, unsigned parts, struct json_when *w);
int64_t json_when_days(const struct json_when *w);              /* since 1970-01-01 */
void json_when_from_days(struct json_when *w, int64_t days);    /* sets year, month, day */
void json_put_date(struct buf *out, const struct json_when *w);
void json_put_hms(struct buf *out, const struct json_when *w);  /* hh:mm:ss */
void json_put_digits(struct buf *out, uint64_t v, int width);
struct json_interval {
	int64_t months, days, us;
	int infinite;
};
bool json_interval_parse(const char *p, size_t n, struct json_interval *iv);
json_writer json_write_date, json_write_time, json_write_timetz, json_write_timestamp, json_write_timestamptz, json_write_interval;
json_reader json_read_date, json_read_time, json_read_timetz, json_read_timestamp, json_read_timestamptz, json_read_interval;

/* ---- json_nested.c ---- */
json_writer json_write_array, json_write_hstore;
json_reader json_read_array, json_read_hstore;

/* ---- json_doc.c ---- */
json_writer json_write_doc;

/* ---- json_debezium.c ---- */
json_writer *json_debezium_writer(enum logical_type type);      /* NULL: as elsewhere */
void json_debezium_unavailable(struct json *j, const struct json_column *c);

/* ---- json_read.c: of struct dmsr_codec ---- */
bool json_is_exact(const struct dmsr_instance *i);
int json_decode(struct dmsr_instance *i, const void *value, size_t len, struct relation *rel, struct batch *b, struct err *e);

#endif
