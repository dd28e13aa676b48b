/* value_internal: binary forms -> text, one function a type, for value_text.c and its neighbours alone. Each reads exactly the bytes
 * of one value from c (the caller tests cursor_done), appends to out, and gives false when the bytes make no sense. */
#ifndef DMSR_MODEL_VALUE_INTERNAL_H
#define DMSR_MODEL_VALUE_INTERNAL_H
#include "base/cursor.h"
#include "model/value.h"

bool text_float32(struct cursor *c, struct buf *out);
bool text_float64(struct cursor *c, struct buf *out);
bool text_numeric(struct cursor *c, struct buf *out);
bool text_date(struct cursor *c, struct buf *out);
bool text_time(struct cursor *c, struct buf *out);
bool text_timetz(struct cursor *c, struct buf *out);
bool text_timestamp(struct cursor *c, struct buf *out);
bool text_timestamptz(struct cursor *c, struct buf *out);
bool text_interval(struct cursor *c, struct buf *out);
bool text_inet(struct cursor *c, struct buf *out);
bool text_macaddr(struct cursor *c, struct buf *out);
bool text_macaddr8(struct cursor *c, struct buf *out);
bool text_array(struct cursor *c, enum logical_type elem, struct buf *out);
bool text_range(struct cursor *c, enum logical_type elem, struct buf *out);
bool text_multirange(struct cursor *c, enum logical_type elem, struct buf *out);
bool text_hstore(struct cursor *c, struct buf *out);

/* One value of a type that has neither element nor bound type. */
bool text_scalar(struct cursor *c, enum logical_type type, struct buf *out);

/* v in decimal with at least `width` digits, zeros in front. */
void text_padded(struct buf *out, uint64_t v, int width);

#endif
