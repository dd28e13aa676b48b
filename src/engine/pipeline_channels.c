/* pipeline_channels: the ways from the source to the targets: which there are, how they are opened, and what is known when they are. */
#include "options.h"
#include "pipeline_int.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

enum { HOLD_MEMORY = 4 << 20 };         /* of what is held for the time of a load, before it goes to disk */

static void on_streamer_stopped(void *ctx)
{
	struct channel *c = ctx;
	c->is_stopped = true;
	pipeline_turn(c->p);
}

struct channel *channel_next(struct pipeline *p, const struct channel *c)
{
	for (size_t n = c ? (size_t)(c - p->channels) + 1 : 0; n < CHANNELS; n++)
		if (p->channels[n].ops)
			return &p->channels[n];
	return NULL;
}

static void on_streamer_failed(void *ctx, const struct err *e)
{
	struct channel *c = ctx;
	pipeline_fail(c->p, e, "streamer");
}

static void on_streamer_note_put(void *ctx, const char *key, const char *value, void (*done)(void *arg, const struct err *e), void *arg)
{
	struct pipeline *p = ((struct channel *)ctx)->p;
	char *own = mem_printf(MEMORY_OF_STREAMER "%s", key);
	memory_note_put(p->run.memory, own, value, done, arg);
	free(own);
}

static const char *on_streamer_note_get(void *ctx, const char *key)
{
	struct pipeline *p = ((struct channel *)ctx)->p;
	char *own = mem_printf(MEMORY_OF_STREAMER "%s", key);
	const char *value = memory_note(p->run.memory, own);
	free(own);
	return value;
}

static void on_streamer_notice(void *ctx, const char *text)
{
	struct pipeline *p = ((struct channel *)ctx)->p;
	p->run.host.notice(p->run.host.ctx, "streamer", text);
}

static void on_known_stored(void *arg, const struct err *e)
{
	struct pipeline *p = ticket_use(arg, NULL);
	if (!p)
		return;
	if (e)
		pipeline_fail(p, e, "state");
	p->streamer_knows = true;
	pipeline_turn(p);
}

/* Whatever it knows that is not remembered here died on its way, in the last crash. */
static void remember_known(struct pipeline *p)
{
	struct memory *m = p->run.memory;
	struct dmsr_stand known = { 0 };
	struct err e = { 0 };
	const struct channel *c = channel_stream(p);
	if (c->ops->known)
		c->ops->known(c->i, &known);
	const struct position *at = memory_delivered(m);
	if (!position_is_comparable(at, &known.at)) {
		err_set(&e, DMSR_EFATAL, "server.changed", "the streamer holds the changes of another server than the job's position is of");
		err_hint(&e, "load the tables again: stop the job, DELETE /jobs/%s/positions, start it", p->run.name);
		pipeline_fail(p, &e, "streamer");
		return;
	}
	for (size_t i = 0; i < known.nloaded; i++) {
		const struct dmsr_loaded *l = &known.loaded[i], *has = table_set_find(memory_loaded(m), l->schema, l->name);
		if ((!has || has->at.lsn < l->at.lsn) && !memory_is_unwanted(m, l))
			pipeline_is_loaded(p, l->schema, l->name, &l->at);
	}
	if (known.load_done && !memory_load_done(m))
		memory_load_done_put(m);
	bool is_ahead = position_compare(&known.at, at) > 0;
	if (is_ahead || known.nloaded || known.load_done)
		memory_delivered_put(m, is_ahead ? &known.at : at, on_known_stored, ticket_new(p, NULL));
	else
		p->streamer_knows = true;
}

static void on_streamer_ready(void *ctx)
{
	struct channel *c = ctx;
	c->is_ready = true;
	pipeline_turn(c->p);
}

static bool channels_ready(struct pipeline *p)
{
	for (struct channel *c = NULL; (c = channel_next(p, c));)
		if (!c->is_ready)
			return false;
	return true;
}

void channels_remember(struct pipeline *p)
{
	if (!channels_ready(p) || p->streamer_is_asked)
		return;
	p->streamer_is_asked = true;
	remember_known(p);
}

/* ---- opened ---- */

static int make_channel(struct pipeline *p, int n, const char *name, struct dmsr_streamer_host *host, struct err *e)
{
	struct channel *c = &p->channels[n];
	c->p = p;
	c->scratch = pipeline_scratch(p, name, e);
	if (!c->scratch)
		return e->code;
	*host = (struct dmsr_streamer_host){
		.ctx = c,
		.env = pipeline_env(p, name, c->scratch),
		.note_put = on_streamer_note_put,
		.note_get = on_streamer_note_get,
		.notice = on_streamer_notice,
		.ready = on_streamer_ready,
		.delivered = flow_delivered,
		.resume = flow_streamer_resume,
		.failed = on_streamer_failed,
		.stopped = on_streamer_stopped,
	};
	return 0;
}

static int open_channel(struct pipeline *p, int n, const char *name, const struct dmsr_plugin *plugin, const struct settings *settings,
	const struct dmsr_log *log, struct err *e)
{
	struct channel *c = &p->channels[n];
	struct dmsr_streamer_host host;
	if (make_channel(p, n, name, &host, e))
		return e->code;
	host.log = log;
	c->ops = plugin->streamer;
	return c->ops->open(settings, &host, &c->i, e);
}

static bool may_load_beside(const struct pipeline *p)
{
	const struct spec *s = p->run.spec;
	return s->mode & DMSR_FULL_LOAD && pipeline_load_way(p) != DMSR_LOAD_THROUGH && s->source.plugin->source->loads_beside;
}

bool pipeline_wants_beside(const struct pipeline *p)
{
	const struct spec *s = p->run.spec;
	if (!may_load_beside(p))
		return false;
	/* where it was so in an earlier run its log has changes that the targets are not to be given before the load, whatever is wanted now */
	return memory_note(p->run.memory, PIPELINE_LOADING) || (s->mode & DMSR_CDC && s->source.plugin->source->loads_beside(s->source.settings));
}

/* What the log has may end inside of a transaction. A target that is given that, and its end by the stream behind the load, has it open all that time; and
 * where the source is on the same server, for ever: no snapshot is made before it is over. */
static bool loads_beside(const struct pipeline *p)
{
	const struct channel *c = &p->channels[CHANNEL_STREAM];
	return pipeline_wants_beside(p) || (may_load_beside(p) && c->ops->keeps(c->i));
}

enum dmsr_load_way pipeline_load_way(const struct pipeline *p)
{
	const struct spec_part *s = &p->run.spec->streamer;
	return s->plugin->streamer->load_way ? s->plugin->streamer->load_way(s->settings) : DMSR_LOAD_THROUGH;
}

bool pipeline_gives_all(const struct pipeline *p)
{
	return p->run.spec->streamer.plugin->streamer->gives_all && pipeline_load_way(p) == DMSR_LOAD_THROUGH;
}

/* The job's streamer's own value of an option; 0: it has no such. */
static int64_t streamer_number(const struct pipeline *p, const char *name)
{
	const struct spec_part *s = &p->run.spec->streamer;
	for (const struct dmsr_option *o = s->plugin->streamer_options; o && o->name; o++)
		if (!strcmp(o->name, name))
			return settings_int(s->settings, name);
	return 0;
}

/* The streamer embedded, whatever the stream goes through; memory 0: as much as it likes. */
static const struct dmsr_plugin *embedded(struct pipeline *p, int64_t memory, int64_t disk)
{
	const struct dmsr_plugin *plugin = plugins_find(p->run.plugins, PLUGIN_STREAMER, "embedded");
	json_t *options = json_pack("{s:I}", "disk", (json_int_t)disk);
	if (memory)
		json_object_set_new(options, "memory", json_integer(memory));
	problems *bad = json_array();
	p->load_settings = options_parse(plugin->streamer_options, NULL, options, NULL, "", NULL, bad);
	assert(p->load_settings);
	json_decref(bad);
	json_decref(options);
	return plugin;
}

int64_t channels_memory(const struct pipeline *p) { return streamer_number(p, "memory"); }

/* In this process, and with as much memory as the stream has. */
static int open_load(struct pipeline *p, struct err *e)
{
	const struct dmsr_plugin *plugin = embedded(p, channels_memory(p), 0); /* spec.c has looked that it is there */
	return open_channel(p, CHANNEL_LOAD, "load", plugin, p->load_settings, NULL, e);
}

/* A load goes through the stream, and the source's log is not to wait for it; or an earlier run has left what it held. */
static bool wants_hold(const struct pipeline *p)
{
	const struct spec *s = p->run.spec;
	const struct dmsr_source *source = s->source.plugin->source;
	if (pipeline_load_way(p) != DMSR_LOAD_THROUGH || !plugins_find(p->run.plugins, PLUGIN_STREAMER, "embedded"))
		return false;
	if (store_log_ops(p->log)->last)
		return true;
	return s->mode == DMSR_FULL_LOAD_AND_CDC && streamer_number(p, "disk") && source->loads_beside && source->loads_beside(s->source.settings);
}

static bool is_old(void *arg, const struct change *ch)
{
	const struct pipeline *p = arg;
	return ch->rel && ch->txn && pipeline_is_old(p, table_set_find(memory_loaded(p->run.memory), ch->rel->schema, ch->rel->name), ch);
}

static bool is_early(void *arg, const struct change *ch)
{
	const struct pipeline *p = arg;
	bool is_loaded = !ch->rel || table_set_find(memory_loaded(p->run.memory), ch->rel->schema, ch->rel->name);
	return is_old(arg, ch) || (p->run.spec->mode & DMSR_FULL_LOAD && !is_loaded);
}

static void on_feeds(void *arg, const struct batch *b)
{
	struct pipeline *p = arg;
	for (size_t i = 0; i < p->ntargets; i++)
		target_owes(&p->targets[i], b, CHANNEL_STREAM);
}

static int open_hold(struct pipeline *p, struct err *e)
{
	const struct spec_part *s = &p->run.spec->streamer;
	struct dmsr_streamer_host hosts[HOLD_WAYS];
	if (make_channel(p, CHANNEL_STREAM, "streamer", &hosts[HOLD_CHANGES], e) || make_channel(p, CHANNEL_LOAD, "held", &hosts[HOLD_ROWS], e))
		return e->code;
	int64_t memory = streamer_number(p, "memory"), disk = streamer_number(p, "disk");
	const struct dmsr_plugin *log = embedded(p, memory && memory < HOLD_MEMORY ? memory : HOLD_MEMORY, disk ? disk : HOLD_MEMORY);
	const struct hold_parts parts = {
		.streamer = { s->plugin->streamer, s->settings, hosts[HOLD_CHANGES].env },
		.log = { log->streamer, p->load_settings, hosts[HOLD_ROWS].env },
		.entries = store_log_ops(p->log),
		.delivered = *memory_delivered(p->run.memory),
		.is_old = is_old,
		.is_early = is_early,
		.feeds = on_feeds,
		.arg = p,
	};
	if (hold_open(&parts, hosts, &p->hold, e))
		return e->code;
	for (int way = 0; way < HOLD_WAYS; way++) {
		struct channel *c = &p->channels[way == HOLD_ROWS ? CHANNEL_LOAD : CHANNEL_STREAM];
		c->ops = hold_ops(p->hold, (enum hold_way)way);
		c->i = hold_instance(p->hold, (enum hold_way)way);
	}
	return 0;
}

int channels_open(struct pipeline *p, struct err *e)
{
	const struct spec_part *s = &p->run.spec->streamer;
	if (wants_hold(p))
		return open_hold(p, e);
	if (open_channel(p, CHANNEL_STREAM, "streamer", s->plugin, s->settings, store_log_ops(p->log), e))
		return e->code;
	return loads_beside(p) ? open_load(p, e) : 0;
}

/* All tables are in the stream, and remembered: by that is told what of the changes is in their rows. */
void channels_look(struct pipeline *p)
{
	const struct channel *rows = &p->channels[CHANNEL_LOAD];
	if (p->hold && hold_is_held(p->hold) && p->load_is_sent && !rows->held && !rows->words.n)
		hold_release(p->hold, p->voids ? UINT64_MAX : table_set_newest(memory_loaded(p->run.memory)));
}

/* ---- no room for what waits for a load ---- */

static bool is_load_waited_for(const struct pipeline *p)
{
	if (p->hold)
		return hold_is_held(p->hold) && !p->load_is_sent;
	for (size_t i = 0; i < p->ntargets; i++)
		if (p->targets[i].is_held && p->load_has_begun)
			return true;
	return false;
}

static bool is_log_full(const struct channel *c)
{
	struct dmsr_streamer_stat s = { 0 };
	c->ops->stat(c->i, &s);
	return s.log_limit_bytes && s.log_bytes >= s.log_limit_bytes;
}

/* Who has given it a disk counts upon the source's log not to grow for as long as the load takes. */
static void tell_full(struct pipeline *p, int64_t disk)
{
	char *text = mem_printf("what changes while tables are loaded has filled the disk that it may take, %" PRId64 " bytes: the source keeps its log from "
		"now on, until the load is over; see that there is room for it at the source, or give job %s more disk (PATCH /jobs/%s {\"streamer\": "
		"{\"disk\": ...}}): it starts again then, and with it the tables whose load is under way", disk, p->run.name, p->run.name);
	p->run.host.notice(p->run.host.ctx, "streamer", text);
	free(text);
	p->told_full = true;
}

void channel_took(struct channel *c, bool has)
{
	struct pipeline *p = c->p;
	if (c != channel_stream(p) || has != p->told_full)
		return;
	int64_t disk = streamer_number(p, "disk");
	if (!has) {
		if (disk && is_load_waited_for(p) && is_log_full(c))
			tell_full(p, disk);
	} else if (!is_log_full(c)) { /* else it took a batch into memory */
		p->told_full = false;
		log_info("pipeline", p->run.name, "there is room again for what waited for the load: the source goes on, and need not keep its log");
	}
}
