/* plugin: the registry. Static plugins come from plugins_builtin.c, others from shared objects: both are checked alike. */
#include "plugin.h"
#include "plugins_builtin.h"
#include "base/worker.h"
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
	const struct dmsr_plugin *plugin;
	char *path;                     /* NULL: built in */
	void *handle;
};

struct plugins {
	struct entry *entries;
	size_t n;
};

static int check_name(const struct dmsr_plugin *p, struct err *e)
{
	size_t n = p->name ? strspn(p->name, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;

	if (!n || p->name[n] || n > 31 || p->name[0] < 'a')
		return err_set(e, DMSR_EINVAL, "plugin.name", "the plugin's name is not [a-z][a-z0-9-]{0,30}");
	return 0;
}

/* A role is its verbs and its options together. */
static int check_kind(const struct dmsr_plugin *p, struct err *e)
{
	if (!p->source && !p->target && !p->streamer && !p->transform && !p->codec)
		return err_set(e, DMSR_EINVAL, "plugin.kind", "plugin %s is nothing: no source, target, streamer, transform or codec", p->name);
	if ((p->source && !p->source_options) || (p->target && !p->target_options) || (p->streamer && !p->streamer_options) ||
		(p->transform && !p->transform_options) || (p->codec && !p->codec_options))
		return err_set(e, DMSR_EINVAL, "plugin.kind", "plugin %s has a role without a table of options", p->name);
	return 0;
}

static int check(const struct plugins *ps, const struct dmsr_plugin *p, struct err *e)
{
	if (p->abi != DMSR_ABI) {
		err_set(e, DMSR_EINVAL, "plugin.abi", "the plugin was made for ABI %u, this is %u", (unsigned)p->abi, (unsigned)DMSR_ABI);
		return err_hint(e, "compile it against this version's dmsr.h");
	}
	if (p->size != sizeof *p)
		return err_set(e, DMSR_EINVAL, "plugin.size", "the plugin's struct has %u bytes, this version's %zu", (unsigned)p->size, sizeof *p);
	if (check_name(p, e))
		return e ? e->code : DMSR_EINVAL;
	for (size_t i = 0; i < ps->n; i++)
		if (!strcmp(ps->entries[i].plugin->name, p->name))
			return err_set(e, DMSR_EEXIST, "plugin.duplicate", "there is a plugin %s already (%s)", p->name,
				plugins_origin(ps, ps->entries[i].plugin));
	return check_kind(p, e);
}

static void add(struct plugins *ps, const struct dmsr_plugin *p, const char *path, void *handle)
{
	ps->entries = mem_realloc_array(ps->entries, ps->n + 1, sizeof *ps->entries);
	ps->entries[ps->n++] = (struct entry){ p, mem_strdup(path), handle };
}

int plugins_add(struct plugins *ps, const struct dmsr_plugin *plugin, struct err *e)
{
	int r = check(ps, plugin, e);

	if (!r)
		add(ps, plugin, NULL, NULL);
	return r;
}

struct plugins *plugins_new(void)
{
	struct plugins *ps = mem_zalloc(sizeof *ps);
	const struct dmsr_plugin *builtin[PLUGINS_BUILTIN_MAX];
	size_t n = plugins_builtin(builtin, PLUGINS_BUILTIN_MAX);
	struct err e = { 0 };

	for (size_t i = 0; i < n; i++)
		if (plugins_add(ps, builtin[i], &e))
			log_error("plugin", builtin[i]->name, "%s", e.message);
	return ps;
}

void plugins_free(struct plugins *ps)
{
	if (!ps)
		return;
	bool is_left = !worker_wait_left(0); /* a thread that nobody waits for may yet return into one */
	for (size_t i = 0; i < ps->n; i++) {
		if (ps->entries[i].handle && !is_left)
			dlclose(ps->entries[i].handle);
		free(ps->entries[i].path);
	}
	free(ps->entries);
	free(ps);
}

static int load(struct plugins *ps, const char *path, struct err *e)
{
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!h)
		return err_set(e, DMSR_EIO, "plugin.load", "%s", dlerror());
	const struct dmsr_plugin *p = dlsym(h, "dmsr_plugin");
	int r = p ? check(ps, p, e) : err_set(e, DMSR_EINVAL, "plugin.symbol", "%s has no symbol dmsr_plugin", path);
	if (r)
		dlclose(h);
	else
		add(ps, p, path, h);
	return r;
}

static int is_so(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 3 && d->d_name[0] != '.' && !strcmp(d->d_name + n - 3, ".so");
}

int plugins_load_dir(struct plugins *ps, const char *dir, void (*on_error)(void *arg, const char *path, const struct err *e), void *arg)
{
	struct dirent **names;
	int n = scandir(dir, &names, is_so, alphasort), loaded = 0;

	for (int i = 0; i < n; i++) {
		struct err e = { 0 };
		struct stat st;
		char *path = mem_printf("%s/%s", dir, names[i]->d_name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (load(ps, path, &e))
				on_error(arg, path, &e);
			else
				loaded++;
		}
		free(path);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return loaded;
}

static bool plays(const struct dmsr_plugin *p, enum plugin_role role)
{
	switch (role) {
	case PLUGIN_SOURCE:
		return p->source;
	case PLUGIN_TARGET:
		return p->target;
	case PLUGIN_STREAMER:
		return p->streamer;
	case PLUGIN_TRANSFORM:
		return p->transform;
	case PLUGIN_CODEC:
		return p->codec;
	}
	return false;
}

const struct dmsr_plugin *plugins_find(const struct plugins *ps, enum plugin_role role, const char *name)
{
	for (size_t i = 0; i < ps->n; i++)
		if (!strcmp(ps->entries[i].plugin->name, name) && plays(ps->entries[i].plugin, role))
			return ps->entries[i].plugin;
	return NULL;
}

const struct dmsr_codec *plugins_codec(const void *plugins, const char *name)
{
	const struct dmsr_plugin *p = plugins_find(plugins, PLUGIN_CODEC, name);

	return p ? p->codec : NULL;
}

const struct dmsr_plugin *plugins_at(const struct plugins *ps, size_t i)
{
	return i < ps->n ? ps->entries[i].plugin : NULL;
}

const char *plugins_origin(const struct plugins *ps, const struct dmsr_plugin *plugin)
{
	for (size_t i = 0; i < ps->n; i++)
		if (ps->entries[i].plugin == plugin)
			return ps->entries[i].path ? ps->entries[i].path : "built in";
	return "unknown";
}
