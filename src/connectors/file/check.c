/* check: preflight of a file target: may files be made at the path? Looks, makes nothing. */
#include "file_int.h"
#include <stdlib.h>

struct check {
	struct dmsr_probe_host host;
	struct worker *worker;
};

/* One look at the disk, on the worker's thread. */
struct look {
	struct check *owner;
	char *path;
	int rc;
	struct err error;
};

static void look_free(void *arg)
{
	struct look *l = arg;
	free(l->path);
	free(l);
}

static void look(void *arg)
{
	struct look *l = arg;
	if (strcmp(l->path, "-") != 0)
		l->rc = disk_probe(l->path, &l->error);
}

static void on_looked(void *arg)
{
	struct look *l = arg;
	const struct check *c = l->owner;
	struct dmsr_check found = { "file.path", DMSR_CHECK_OK, l->path, "files can be made there", NULL };

	if (l->rc) {
		found.level = DMSR_CHECK_ERROR;
		found.message = l->error.message;
		found.fix = l->error.hint;
	}
	c->host.checked(c->host.ctx, &found, 1, NULL);
	look_free(l);
}

static int check_open(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	struct check *c = mem_zalloc(sizeof *c);
	struct look *l = mem_zalloc(sizeof *l);

	(void)tables;
	(void)mode;
	(void)e;
	c->host = *host;
	c->worker = worker_new(host->env.loop, "target");
	l->owner = c;
	l->path = mem_strdup(settings_str(s, "path"));
	worker_post(c->worker, &(struct worker_job){ look, on_looked, look_free, l });
	*out = (struct dmsr_instance *)c;
	return 0;
}

static void check_close(struct dmsr_instance *i)
{
	struct check *c = (struct check *)i;

	if (!c)
		return;
	worker_free(c->worker, NULL, NULL);
	free(c);
}

const struct dmsr_probe file_probe = { .check = check_open, .close = check_close };
