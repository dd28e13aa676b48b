/* fake: the plugin, and its scripted answers. */
#include "fake_int.h"
#include <stdlib.h>

/* ---- questions ---- */

static struct map *answers;             /* by name; NULL: none are set */

void fake_answers_set(const char *name, struct fake_answers *a)
{
	if (!answers)
		answers = map_new();
	if (a)
		map_put(answers, name, strlen(name), a);
	else
		map_del(answers, name, strlen(name));
	if (!map_size(answers)) {
		map_free(answers);
		answers = NULL;
	}
}

struct probe {
	struct dmsr_probe_host host;
	struct fake_answers *answers;   /* NULL: all is well */
	struct loop_task *task;
};

static const struct err *error_of(const struct probe *p) { return p->answers && p->answers->error.code ? &p->answers->error : NULL; }

static void on_check(void *arg)
{
	struct probe *p = arg;
	struct fake_answers *a = p->answers;
	if (a)
		a->nrels_given = p->host.nrels;
	p->host.checked(p->host.ctx, a ? a->checks : NULL, a ? a->nchecks : 0, error_of(p));
}

static void on_discover(void *arg)
{
	struct probe *p = arg;
	const struct fake_answers *a = p->answers;
	p->host.discovered(p->host.ctx, a ? a->rels : NULL, a ? a->nrels : 0, error_of(p));
}

static void on_drop(void *arg)
{
	struct probe *p = arg;
	struct fake_answers *a = p->answers;
	if (a && !p->host.keep)
		a->dropped++;
	p->host.dropped(p->host.ctx, a ? a->left : NULL, a ? a->nleft : 0, error_of(p));
}

static void on_look(void *arg)
{
	struct probe *p = arg;
	static const struct dmsr_kept nothing = { .retained_bytes = -1, .safe_bytes = -1, .lag_bytes = -1 };
	struct fake_answers *a = p->answers;
	if (a)
		a->looks++;
	p->host.looked(p->host.ctx, error_of(p) ? NULL : a && a->kept.slot ? &a->kept : &nothing, error_of(p));
}

static int ask(const struct settings *s, const char *option, const struct dmsr_probe_host *host, void (*answer)(void *arg), struct dmsr_instance **out)
{
	struct probe *p = mem_zalloc(sizeof *p);
	const char *name = settings_str(s, option);
	p->host = *host;
	p->answers = answers && name ? map_get(answers, name, strlen(name)) : NULL;
	p->task = loop_task_new(host->env.loop, "fake", answer, p);
	if (p->answers) {
		p->answers->asked++;
		p->answers->live++;
	}
	if (!p->answers || !p->answers->is_mute)
		loop_task_post(p->task);
	*out = (struct dmsr_instance *)(void *)p;
	return 0;
}

static void probe_close(struct dmsr_instance *i)
{
	struct probe *p = (struct probe *)(void *)i;
	if (p->answers)
		p->answers->live--;
	loop_task_free(p->task);
	free(p);
}

static int source_check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)tables;
	(void)mode;
	(void)e;
	return ask(s, "script", host, on_check, out);
}

static int source_discover(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)tables;
	(void)e;
	return ask(s, "script", host, on_discover, out);
}

static int source_drop(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)e;
	return ask(s, "script", host, on_drop, out);
}

static int target_check(const struct settings *s, const struct dmsr_tables *tables, enum dmsr_mode mode, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)tables;
	(void)mode;
	(void)e;
	return ask(s, "server", host, on_check, out);
}

static int target_discover(const struct settings *s, const struct dmsr_tables *tables, const struct dmsr_probe_host *host,
	struct dmsr_instance **out, struct err *e)
{
	(void)tables;
	(void)e;
	return ask(s, "server", host, on_discover, out);
}

static int target_drop(const struct settings *s, const struct dmsr_probe_host *host, struct dmsr_instance **out, struct err *e)
{
	(void)e;
	return ask(s, "server", host, on_drop, out);
}

static int source_look(const struct settings *s, const struct position *at, const struct dmsr_probe_host *host, struct dmsr_instance **out,
	struct err *e)
{
	(void)e;
	int rc = ask(s, "script", host, on_look, out);
	if (at && ((struct probe *)(void *)*out)->answers)
		((struct probe *)(void *)*out)->answers->looked_at = *at;
	return rc;
}

static const struct dmsr_probe source_probe = {
	.check = source_check, .discover = source_discover, .drop = source_drop, .look = source_look, .close = probe_close
};
static const struct dmsr_probe target_probe = { .check = target_check, .discover = target_discover, .drop = target_drop, .close = probe_close };

/* ---- the plugin ---- */

static const struct dmsr_option source_options[] = {
	{ "script", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Name of the script that the test has made." },
	{ "beside", DMSR_OPT_BOOL, 0, "false", NULL, 0, 0, "Whether it loads beside the stream: loads may stand anywhere in the script." },
	{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "A secret that nobody asks for." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};
static const struct dmsr_option target_options[] = {
	{ "server", DMSR_OPT_STRING, DMSR_OPT_REQUIRED, NULL, NULL, 0, 0, "Name of the server that the test has made." },
	{ "password", DMSR_OPT_STRING, DMSR_OPT_SECRET, NULL, NULL, 0, 0, "A secret that nobody asks for." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};

const struct dmsr_plugin dmsr_plugin_fake = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "fake",
	.summary = "scripted source and recording target, for tests",
	.source_options = source_options,
	.target_options = target_options,
	.source = &fake_source,
	.target = &fake_target,
	.source_probe = &source_probe,
	.target_probe = &target_probe,
};
