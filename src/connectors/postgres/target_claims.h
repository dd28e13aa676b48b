/* target_claims: what a row change touches, as claims (target_depend.h). Pure: rules of a table, made of what the target's catalog says, and a change in.
 *
 *   the row itself, by its old and its new key                          value, ALONE
 *   each unique index of the target: the old and the new values         value, ALONE
 *   the table: ONE when all of that is known. A delete frees values of a unique index which the stream does not tell (only the key's old values
 *     come): OTHER, since it commutes with deletes, but not with who may take these values. An update does both: ALONE. So does a change of a table
 *     without a key, but for inserts.
 *   foreign keys, of the child: the value referred to                   value, ONE: many children may point at a parent
 *     and "a reference goes", for deletes and updates                   removal, OTHER
 *   foreign keys, of the parent: the values that come and go            value, ALONE
 *     and "a parent goes", for deletes and changes of the key           removal, ONE: it commutes with others, but not with the going of references
 *
 * Values are compared by their bytes. Where equality is not that (types other than a few, a collation that is not deterministic, expressions), or a
 * value is not known, the whole rule is claimed ALONE. */
#ifndef DMSR_POSTGRES_TARGET_CLAIMS_H
#define DMSR_POSTGRES_TARGET_CLAIMS_H
#include "target_depend.h"

/* A column of an index or a foreign key, as the target's catalog has it. Those of one rule stand together, in its order. */
struct claim_row {
	uint32_t group;                 /* differs between rules that stand beside each other */
	char kind;                      /* 'u' unique index; foreign keys: 'c' child, 'p' parent; 'a': this table is not for lanes */
	const char *ident;              /* of the index; of a foreign key: its parent and columns there */
	const char *column;             /* NULL: an expression */
	uint32_t type;                  /* the oid of the column's type; a domain's base type */
	bool is_enum;
	bool is_exact;                  /* the same value has the same bytes, and only that; for numeric and char(n) when they are trimmed */
	bool nulls_equal;               /* NULL is a value like others */
};

struct claim_rules;
/* table: a number of the target's table. NULL: changes of this table are not to be spread. */
struct claim_rules *claim_rules_new(const struct relation *rel, uint64_t table, const struct claim_row *rows, size_t n);
void claim_rules_free(struct claim_rules *r);   /* NULL is fine */

struct claimer;
struct claimer *claimer_new(struct depend *d);
void claimer_free(struct claimer *c);           /* NULL is fine */
/* ch is a create, update or delete on a relation with the columns of the rules'. */
void claimer_add(struct claimer *c, const struct claim_rules *r, const struct change *ch);

#endif
