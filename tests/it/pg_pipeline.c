/* pg_pipeline: statements through the pipeline of a real connection, the first of each group refused, and more sent amid the answers: as soon as one came, and
 * between two turns of the loop. Says how many were answered, and how many groups ended with as many answers as they had statements.
 *
 * usage: pg_pipeline STATEMENTS [option=value ...] */
#include "base/worker.h"
#include "pg_args.h"
#include "connectors/postgres/conn.h"
#include <unistd.h>

enum { GROUPS_MAX = 1 << 16, SIZES = 23, AT_ONCE = 400, LATE_US = 300 };

static struct {
	struct loop *loop;
	struct loop_task *task;
	struct pgconn *conn;
	unsigned limit, sent, answered, whole;
	unsigned sizes[GROUPS_MAX], group, open;        /* how many statements each has; which are being sent and answered */
	unsigned got;                                   /* answers, in the open one */
} run;

static void send_one(void)
{
	bool is_first = !run.sizes[run.group];
	run.sent++;
	run.sizes[run.group]++;
	pgconn_pipeline_sql(run.conn, is_first ? "SELECT 1/0" : "SELECT 1", 0, NULL, NULL, NULL, NULL);
}

static void end_group(void)
{
	run.group++;
	pgconn_pipeline_sync(run.conn);
}

/* Many at once, in groups of all sizes: a turn is over at every place in one. */
static void send_more(void *arg)
{
	(void)arg;
	while (run.sent < run.limit && run.sent - run.answered < AT_ONCE) {
		send_one();
		if (run.sizes[run.group] > run.group % SIZES || run.sent == run.limit)
			end_group();
	}
	pgconn_pipeline_flush(run.conn);
}

static void on_result(void *arg, const PGresult *res)
{
	(void)arg;
	(void)res;
	run.answered++;
	run.got++;
	usleep(LATE_US);
	loop_task_post(run.task);
}

static void on_sync(void *arg)
{
	(void)arg;
	run.whole += run.got == run.sizes[run.open++];
	run.got = 0;
	if (run.answered == run.limit)
		loop_stop(run.loop);
}

static void on_ready(void *ctx)
{
	static const struct pgconn_pipeline owner = { .on_result = on_result, .on_sync = on_sync };
	(void)ctx;
	if (!pgconn_pipeline_enter(run.conn, &owner))
		send_more(NULL);
}

static void on_failed(void *ctx, const struct err *e)
{
	(void)ctx;
	fprintf(stderr, "%s: %s\n", e->id, e->message);
	exit(1);
}

int main(int argc, char **argv)
{
	static const struct pgconn_owner owner = { .on_ready = on_ready, .on_failed = on_failed };
	struct dmsr_env env = { .job = "pipeline", .name = "target" };
	json_t *given = json_object();
	if (argc < 2)
		return 2;
	run.limit = (unsigned)strtoul(argv[1], NULL, 10);
	for (int i = 2; i < argc; i++) {
		char *v = strchr(argv[i], '=');
		if (!v)
			return 2;
		*v++ = 0;
		const struct dmsr_option *o = options_find(dmsr_plugin_postgres.target_options, argv[i]);
		if (!o)
			return 2;
		json_object_set_new(given, o->name, pg_arg_json(o, v));
	}
	struct settings *s = pg_arg_settings(dmsr_plugin_postgres.target_options, given);
	if (!s)
		return 2;
	env.loop = run.loop = loop_new();
	run.task = loop_task_new(run.loop, "pipeline", send_more, NULL);
	run.conn = pgconn_new(&env, s, PGCONN_SQL, &owner);
	loop_run(run.loop);
	pgconn_free(run.conn);
	loop_task_free(run.task);
	loop_free(run.loop);
	worker_wait_left(10000);
	settings_free(s);
	printf("%u answered, %u of %u groups whole\n", run.answered, run.whole, run.group);
	return 0;
}
