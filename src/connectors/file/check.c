/* check: one-shot questions about the target's path. Preflight: may files be made there? Looks, makes nothing. Drop: the job is deleted, or begins anew: its
 * journal goes, so that nobody trusts it; the files stay, they are their readers'. */
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
	struct disk *disk;              /* drop */
	bool busy;
	int rc;
	struct err error;
};

static void look_free(void *arg)
{
	struct look *l = arg;
	if (l->disk)
		disk_end(l->disk);
	free(l->path);
	free(l);
}

static bool is_stdout(const struct look *l) { return !strcmp(l->path, "-"); }

static struct dmsr_instance *begin(const struct settings *s, const struct dmsr_probe_host *host, struct disk *disk, void (*run)(void *arg),
	void (*done)(void *arg))
{
	struct check *c = mem_zalloc(sizeof *c);
	struct look *l = mem_zalloc(sizeof *l);

	c->host = *host;
	c->worker = worker_new(host->env.loop, "target");
	l->owner = c;
	l->path = mem_strdup(settings_str(s, "path"));
	l->disk = disk;
	worker_post(c->worker, &(struct worker_job){ run, done, look_free, l });
	return (struct dmsr_instance *)c;
}

/* ---- preflight ---- */

static void look(void *arg)
{
	struct look *l = arg;
	if (!is_stdout(l))
		l->rc = disk_probe(l->path, &l->error);
}

static void on_looked(void *arg)
{
	struct look *l = arg;
	const struct check *c = l->owner;
	struct dmsr_check found = { "file.path", DMSR_CHECK_OK, l->path, "files can be made there", NULL, false };

	if (l->rc) {
		found.level = DMSR_CHECK_ERROR;
		found.message = l->error.message;
		found.fix = l->error.hint;
		found.retriable = l->error.retriable;
	}
	c->host.checked(c->host.ctx, &found, 1, NULL);
	look_free(l);
}

static int check_open(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	int rc = file_check_options(s, &host->env, e);
	(void)tables;
	(void)mode;
	if (rc)
		return rc;
	*out = begin(s, host, NULL, look, on_looked);
	return 0;
}

/* ---- drop ---- */

static void forget(void *arg)
{
	struct look *l = arg;
	if (!is_stdout(l))
		l->rc = disk_forget(l->disk, &l->busy, &l->error);
}

static void on_forgotten(void *arg)
{
	struct look *l = arg;
	const struct check *c = l->owner;
	char *left = mem_printf("rm -r '%s'", disk_own(l->disk));
	const char *const list[] = { left };

	if (!l->rc)
		log_info("target", c->host.env.job, "%s: %s is removed, its files stay in %s", c->host.env.name, disk_own(l->disk), l->path);
	c->host.dropped(c->host.ctx, list, l->rc ? 1 : 0, l->rc ? &l->error : NULL);
	free(left);
	look_free(l);
}

static int drop_open(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)e;
	*out = begin(s, host, disk_new(settings_str(s, "path"), host->env.uid, host->env.name), forget, on_forgotten);
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

const struct dmsr_probe file_probe = { .check = check_open, .drop = drop_open, .close = check_close };
