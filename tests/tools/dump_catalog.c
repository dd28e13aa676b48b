/* dump_catalog: what catalog.c says of a database, as text, for the tests that compare two.
 * usage: dump_catalog HOST PORT DATABASE shapes|ddl|fingerprints [leaves] [PATTERN...] */
#include "connectors/postgres/catalog.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static struct loop *loop;
static struct pgconn *conn;
static struct dmsr_tables tables;
static const char *what;
static bool leaves;
static int result = 1;

static void print_shape(const struct relation *r)
{
	static const char *const kinds[] = { "none", "primary", "unique", "full" };

	printf("%s.%s key %s rows %" PRId64 "\n", r->schema, r->name, kinds[r->key], r->rows_estimate);
	for (unsigned i = 0; i < r->ncolumns; i++) {
		const struct column *c = &r->columns[i];
		printf("  %s | %s | %s/%s | key %u | flags %u | typmod %d | %s | %s\n", c->name, c->native_type, logical_type_name(c->type),
			logical_type_name(c->elem_type), c->key_pos, c->flags, c->typmod, c->dflt ? c->dflt : "-", c->collation ? c->collation : "-");
	}
}

static void print(const struct relation *r)
{
	if (!strcmp(what, "shapes"))
		print_shape(r);
	else if (!strcmp(what, "fingerprints"))
		printf("%u %016" PRIx64 " %s.%s\n", r->id, r->fingerprint, r->schema, r->name);
	else
		for (uint32_t i = 0; i < r->nddl; i++)
			printf("%u\t%s.%s\t%s\t%s\t%s\n", r->ddl[i].phase, r->schema, r->name, r->ddl[i].kind, r->ddl[i].name, r->ddl[i].sql);
}

static void on_catalog(void *arg, struct relation **rels, size_t n, const struct err *e)
{
	(void)arg;
	if (e)
		fprintf(stderr, "%s\n", e->message);
	for (size_t i = 0; i < n; i++) {
		print(rels[i]);
		relation_unref(rels[i]);
	}
	free(rels);
	result = e != NULL;
	loop_stop(loop);
}

static void on_ready(void *ctx)
{
	(void)ctx;
	catalog_read(conn, &tables, true, leaves, on_catalog, NULL);
}

static void on_failed(void *ctx, const struct err *e)
{
	(void)ctx;
	fprintf(stderr, "%s\n", e->message);
	loop_stop(loop);
}

int main(int argc, char **argv)
{
	const struct pgconn_owner owner = { .on_ready = on_ready, .on_failed = on_failed };
	struct dmsr_env env = { .job = "dump", .name = "source" };
	struct settings *s = settings_new();

	if (argc < 5)
		return 2;
	env.loop = loop = loop_new();
	what = argv[4];
	leaves = argc > 5 && !strcmp(argv[5], "leaves");
	tables.include = (const char *const *)&argv[5 + leaves];
	tables.ninclude = (size_t)(argc - 5 - leaves);
	settings_put_str(s, "host", argv[1]);
	settings_put_int(s, "port", strtol(argv[2], NULL, 10));
	settings_put_str(s, "database", argv[3]);
	settings_put_str(s, "user", "postgres");
	settings_put_str(s, "password", NULL);
	settings_put_str(s, "sslmode", "disable");
	settings_put_str(s, "sslrootcert", NULL);
	settings_put_int(s, "connect_timeout", 10000);
	conn = pgconn_new(&env, s, PGCONN_SQL, &owner);
	loop_run(loop);
	pgconn_free(conn);
	loop_free(loop);
	settings_free(s);
	return result;
}
