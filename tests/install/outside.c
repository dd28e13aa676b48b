/* outside: a target that was written elsewhere. It is compiled against the installed headers alone, and uses something of
 * each of them, so that a header or a symbol that is not installed or not exported is missed here. */
#include <dmsr/dmsr.h>
#include <dmsr/base/fiber.h>
#include <stdlib.h>

struct outside {
	const struct dmsr_target_host *host;
	struct arena arena;
	struct buf buf;
	struct map *seen;
	struct loop_task *later;
};

static const struct dmsr_option options[] = {
	{ "greeting", DMSR_OPT_STRING, 0, "hello", NULL, 0, 0, "What it says when it is opened." },
	{ 0 },
};

static void on_later(void *arg)
{
	struct outside *o = arg;
	struct cursor c;
	cursor_init(&c, o->buf.data, o->buf.len);
	log_debug("outside", NULL, "%s %u", fiber_current() ? "in a fiber" : "on the loop", cursor_u8(&c));
}

static int outside_open(const struct settings *s, const struct dmsr_target_host *host, struct dmsr_instance **out, struct err *e)
{
	const char *greeting = settings_str(s, "greeting");
	if (failpoint("outside.open"))
		return err_retry(e, DMSR_EIO, "outside.failpoint", "told to fail");
	struct outside *o = mem_zalloc(sizeof *o);
	o->host = host;
	arena_init(&o->arena, 0);
	buf_init(&o->buf, 1024);
	o->seen = map_new();
	buf_printf(&o->buf, "%s %llu", arena_strdup(&o->arena, greeting), (unsigned long long)hash_stable(greeting, 1, 0));
	o->later = loop_task_new(host->env.loop, "outside", on_later, o);
	loop_task_post(o->later);
	*out = (struct dmsr_instance *)o;
	return 0;
}

static void outside_close(struct dmsr_instance *i)
{
	struct outside *o = (struct outside *)i;
	loop_task_free(o->later);
	map_free(o->seen);
	buf_fini(&o->buf);
	arena_fini(&o->arena);
	free(o);
}

static const struct dmsr_target target = { .open = outside_open, .close = outside_close };

DMSR_PLUGIN(outside) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "outside",
	.summary = "a target that was written elsewhere",
	.target_options = options,
	.target = &target,
};
