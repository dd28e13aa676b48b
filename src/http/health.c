/* health: /livez, /readyz, /version and /. Whether the daemon is alive never depends on a job or on a database. */
#include "config.h"
#include "http/http_int.h"
#include "http/text.h"
#include <string.h>

void health_livez(struct request *r) { reply_json(&r->reply, 200, json_pack("{s:s}", "status", "ok")); }

static void add_job(void *arg, const struct engine_job_metrics *m)
{
	json_array_append_new(arg, json_pack("{s:o, s:o, s:o}", "name", text_json(m->name), "state", text_json(m->state), "error", text_json(m->error_code)));
}

void health_readyz(struct request *r)
{
	struct err why = { 0 };
	bool verbose, ready = engine_is_ready(r->http->engine, &why), draining = engine_is_draining(r->http->engine);
	if (!query_bool(r, "verbose", &verbose))
		return;
	if (verbose && !r->actor[0]) {
		reply_error(&r->reply, DMSR_EAUTH, "auth.missing", "verbose=1 needs a token");
		return;
	}
	if (!ready || draining) {
		reply_error(&r->reply, DMSR_ESTATE, draining ? "draining" : "not-ready", "%s", draining ? "the daemon is stopping" : why.message);
		return;
	}
	json_t *o = json_pack("{s:s}", "status", "ready");
	if (verbose) {
		json_t *jobs = json_array();
		engine_each_job(r->http->engine, add_job, jobs);
		json_object_set_new(o, "jobs", jobs);
	}
	reply_json(&r->reply, 200, o);
}

void health_version(struct request *r)
{
	json_t *o = json_pack("{s:s, s:s, s:i}", "name", "dmsrd", "version", PACKAGE_VERSION, "plugin_abi", DMSR_ABI);
	json_object_set_new(o, "libraries", json_pack("{s:s, s:s}", "libmicrohttpd", MHD_get_version(), "jansson", jansson_version_str()));
	reply_json(&r->reply, 200, o);
}

void index_get(struct request *r)
{
	/* Paths without {..} are worth a link. */
	json_t *links = json_object();
	for (const struct route *route = routes; route->pattern; route++)
		if (route->methods & METHOD_GET && route->pattern[1] && !strchr(route->pattern, '{'))
			json_object_set_new(links, route->pattern + 1, text_json(route->pattern));
	reply_json(&r->reply, 200, json_pack("{s:s, s:s, s:o}", "name", "dmsrd", "version", PACKAGE_VERSION, "links", links));
}
