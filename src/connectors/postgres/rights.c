/* rights: see rights.h. */
#include "rights.h"
#include "catalog.h"

/* %s: schema, %t: table, %d: database, %u: role */
static const char *const texts[] = {
	[RIGHT_DATABASE] = "GRANT CREATE ON DATABASE %d TO %u",
	[RIGHT_SCHEMA] = "GRANT USAGE, CREATE ON SCHEMA %s TO %u",
	[RIGHT_READ] = "GRANT USAGE ON SCHEMA %s TO %u; GRANT SELECT ON %t TO %u",
	[RIGHT_WRITE] = "GRANT USAGE ON SCHEMA %s TO %u; GRANT SELECT, INSERT, UPDATE, DELETE ON %t TO %u",
	[RIGHT_EMPTY] = "GRANT USAGE ON SCHEMA %s TO %u; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %t TO %u",
	[RIGHT_OWN] = "ALTER TABLE %t OWNER TO %u",
	[RIGHT_SEQUENCES] = "GRANT USAGE ON SCHEMA %s TO %u; GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA %s TO %u",
	[RIGHT_SET_ROLE] = "GRANT SET ON PARAMETER session_replication_role TO %u",
	[RIGHT_SUPERUSER] = "ALTER ROLE %u SUPERUSER",
	[RIGHT_POSITIONS] = "GRANT USAGE ON SCHEMA dmsr TO %u; GRANT SELECT, INSERT, UPDATE, DELETE ON dmsr.positions, dmsr.loads TO %u",
	[RIGHT_REPLICATION] = "ALTER ROLE %u REPLICATION",
	[RIGHT_ALL_ROWS] = "ALTER ROLE %u BYPASSRLS",
	[RIGHT_NOT_READ_ONLY] = "ALTER ROLE %u IN DATABASE %d SET default_transaction_read_only = off",
};

void right_sql(struct buf *out, enum right r, const struct settings *s, const char *schema, const char *name)
{
	for (const char *p = texts[r]; *p; p++) {
		if (*p != '%') {
			buf_byte(out, *p);
			continue;
		}
		switch (*++p) {
		case 's': sql_ident(out, schema); break;
		case 't': sql_qualified(out, schema, name); break;
		case 'd': sql_ident(out, settings_str(s, "database")); break;
		case 'u': sql_ident(out, settings_str(s, "user")); break;
		}
	}
}

void right_hint(struct err *e, enum right r, const struct settings *s, const char *schema, const char *name)
{
	struct buf sql;
	if (!strcmp(e->id, "source.row-security") || !strcmp(e->id, "target.row-security"))
		r = RIGHT_ALL_ROWS;
	else if (strcmp(e->id, "source.privilege") != 0 && strcmp(e->id, "target.privilege") != 0)
		return;
	buf_init(&sql, sizeof e->hint);
	right_sql(&sql, r, s, schema, name);
	if (buf_ok(&sql))
		err_hint(e, "%s", buf_cstr(&sql));
	buf_fini(&sql);
}

void right_rest_sql(struct buf *out, const struct settings *s, int version)
{
	if (!strcmp(settings_str(s, "session_replication_role"), "off"))
		buf_str(out, "set the target's session_replication_role to auto");
	else
		right_sql(out, version >= 150000 ? RIGHT_SET_ROLE : RIGHT_SUPERUSER, s, NULL, NULL);
}
