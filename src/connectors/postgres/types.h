/* types: PostgreSQL's type oids -> logical types. Pure. The built-in ones by table (pg_type.dat's fixed oids); others by what the catalog says of them. */
#ifndef DMSR_POSTGRES_TYPES_H
#define DMSR_POSTGRES_TYPES_H
#include "dmsr.h"

/* 0 and TYPE_OTHER for an oid that is not built in. elem is set for arrays, ranges and multiranges. */
enum logical_type pgtype_builtin(uint32_t oid, enum logical_type *elem);
/* What pg_type tells of a type that is not built in: typtype 'b' 'c' 'd' 'e' 'r' 'm', typcategory, name, and of its base/element already mapped. */
enum logical_type pgtype_from_catalog(char typtype, char typcategory, const char *nspname, const char *typname);
/* format_type for a built-in oid and typmod, without asking the server: "numeric(12,2)"; NULL: not built in. Into out. */
const char *pgtype_format(uint32_t oid, int32_t typmod, char *out, size_t size);

#endif
