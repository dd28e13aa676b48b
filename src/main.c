/* main: options, configuration, ordered set-up, loop, tear-down. What the daemon does is in engine/ and http/.
 *
 *   0 ended as it was asked to    1 went wrong while running    2 usage or configuration    3 environment: port taken, state directory locked */
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sanitizer.h"
#include "base/worker.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/notify.h"
#include "http/http.h"
#include <config.h> /* configure's */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_RUN_TIME = 1, EXIT_CONFIG = 2, EXIT_ENVIRONMENT = 3 };
enum { STATUS_MS = 5000, FULL_STATUS_MS = 1000, DRAIN_GRACE_MS = 1000, SOON_MS = 50, LEAVE_MS = 4000 };
/* How long a store that is full is left alone: twice as long each time, unless all went well for a while in between. */
enum { ANEW_MS_MIN = 3000, ANEW_MS_MAX = 300000, ANEW_WELL_MS = 300000 };
enum action { DO_SERVE, DO_CHECK, DO_PRINT, DO_SCHEMA, DO_VERSION, DO_HELP };

extern char **environ;

/* How long was waited before this beginning: what the process that begins anew is told by the one it was. No file would do, the disk was full. */
static const char anew_variable[] = "DMSRD_ANEW_MS";

static const char usage[] =
	"usage: dmsrd [-c FILE] [-o KEY.PATH=VALUE]... [ACTION]\n"
	"\n"
	"  -c, --config FILE       the configuration, instead of " DMSR_SYSCONF_DIR "/dmsrd.json\n"
	"  -o KEY.PATH=VALUE       one option of the configuration, over all else; may be repeated\n"
	"\n"
	"without an action it serves; actions:\n"
	"  -t, --check-config      say whether the configuration is good, and what is wrong with it\n"
	"      --print-config      every value, without secrets, and where it comes from\n"
	"      --dump-schema       JSON Schema of the configuration\n"
	"  -V, --version\n"
	"  -h, --help              this; more in dmsrd(8) and dmsrd.json(5)\n";

struct daemon {
	struct config_source source;
	struct config *config;
	struct loop *loop;
	struct notify *notify;
	struct engine *engine;
	struct http *http;
	struct loop_signal *signals[3]; /* SIGTERM SIGINT SIGHUP */
	struct loop_timer *status, *limit, *again;
	bool begins_anew; /* soon; behind its end, in the same process */
	unsigned anew_ms; /* what was, or is, waited before beginning anew; 0: the store was not full yet */
	bool is_full;
	uint64_t since_us; /* it is full, or it runs */
	int rc;
};

/* ---- configuration ---- */

/* To stderr while nobody has asked for a log, to the log afterwards. */
static void show_problems(const problems *p, bool to_log)
{
	size_t i;
	const json_t *one;
	json_array_foreach(p, i, one)
	{
		const char *detail = json_string_value(json_object_get(one, "detail"));
		if (to_log)
			log_error("config", NULL, "%s", detail);
		else
			fprintf(stderr, "dmsrd: %s\n", detail);
	}
}

static struct config *load_config(const struct config_source *source, bool to_log)
{
	problems *p = json_array();
	struct config *c = config_load(source, p, NULL);
	show_problems(p, to_log);
	json_decref(p);
	return c;
}

static void check_plugins(void *arg, const struct config *c, problems *p)
{
	const struct daemon *d = arg;
	engine_check_config(d->engine, c, p);
}

#define NO_FILE ": there is no such file: defaults are in force, but for what conf.d beside it, the environment and -o say"

static bool is_missing(const struct config_source *source) { return access(config_path(source), F_OK) && errno == ENOENT; }

/* What old set and the new one does not mention goes back to the default. */
static void apply_log(const struct config *c, const struct config *old)
{
	const char *room;
	json_t *level;
	json_object_foreach((json_t *)(uintptr_t)(old ? config_json(old, "log.levels") : NULL), room, level)
	{
		log_unset_level(room);
	}
	log_set_format(!strcmp(config_str(c, "log.format"), "json") ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
	log_set_level(NULL, (enum log_level)log_level_parse(config_str(c, "log.level")));
	json_object_foreach((json_t *)(uintptr_t)config_json(c, "log.levels"), room, level)
	{
		if (log_set_level(room, (enum log_level)log_level_parse(json_string_value(level))) < 0)
			log_warn("config", NULL, "log.levels: more rooms than can have a level of their own: %s is left out", room);
	}
}

static int print_json(json_t *v)
{
	int bad = json_dumpf(v, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) || fputc('\n', stdout) == EOF || fflush(stdout) == EOF;
	json_decref(v);
	return bad ? EXIT_RUN_TIME : EXIT_OK;
}

/* ---- while it runs ---- */

struct tally {
	unsigned all, running, failed, retrying;
};

static void count_job(void *arg, const struct engine_job_metrics *m)
{
	struct tally *t = arg;
	t->all++;
	t->running += !strcmp(m->state, "running") || !strcmp(m->state, "loading");
	t->failed += !strcmp(m->state, "failed");
	t->retrying += !strcmp(m->state, "retrying");
}

static void wait_longer(struct daemon *d)
{
	d->anew_ms = d->anew_ms < ANEW_MS_MIN ? ANEW_MS_MIN : d->anew_ms < ANEW_MS_MAX / 2 ? d->anew_ms * 2 : ANEW_MS_MAX;
	d->is_full = true;
	d->since_us = loop_now_us(d->loop);
}

static uint64_t ms_since(const struct daemon *d) { return (loop_now_us(d->loop) - d->since_us) / 1000; }

/* The engine has said what is full. What only we know is whether it was so before. */
static void on_full(struct daemon *d, const struct err *why)
{
	uint64_t ran_ms = ms_since(d);
	bool is_again = d->anew_ms && ran_ms < ANEW_WELL_MS;
	if (!is_again)
		d->anew_ms = 0;
	wait_longer(d);
	if (is_again)
		log_warn("main", NULL,
			"the state directory %s is full again, %" PRIu64 " s after the daemon began anew: %s. Either the jobs fill it as soon as they run: "
			"make more room in it; or a quota or a limit on the size of files (ulimit -f) is in the way, which does not show: lift that. "
			"The daemon begins anew in %u s, and waits twice as long each time that this comes again, at most %d s",
			config_str(d->config, "state_dir"), ran_ms / 1000, why->message, d->anew_ms / 1000, ANEW_MS_MAX / 1000);
}

/* The store was full, and all jobs have stopped: all begins as after a crash, if the configuration lets it. */
static void begin_anew(struct daemon *d)
{
	struct config *c = load_config(&d->source, true);
	if (!c) {
		wait_longer(d);
		log_error("main", NULL, "there is room for the state again, but with this configuration the daemon cannot begin anew: it tries again in %u s",
			d->anew_ms / 1000);
		return;
	}
	config_free(c);
	/* Who wants the end from here on gets it at once: nothing runs. Who asked for it before is heard in the loop's next turns. */
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	d->begins_anew = true;
	loop_timer_start(d->status, SOON_MS);
}

static void look_at_store(struct daemon *d)
{
	struct err why;
	if (engine_is_draining(d->engine) || engine_is_ready(d->engine, &why) || why.code != DMSR_EFULL)
		return;
	if (!d->is_full)
		on_full(d, &why);
	if (engine_has_room(d->engine) && ms_since(d) >= d->anew_ms)
		begin_anew(d);
}

static void on_status(void *arg)
{
	struct daemon *d = arg;
	struct tally t = { 0 };
	if (d->begins_anew) {
		log_info("main", NULL, "there is room for the state again: beginning anew");
		loop_stop(d->loop);
		return;
	}
	engine_each_job(d->engine, count_job, &t);
	notify_status(d->notify, "%s%u jobs: %u running, %u retrying, %u failed",
		engine_is_draining(d->engine) ? "stopping; " : "", t.all, t.running, t.retrying, t.failed);
	loop_timer_start(d->status, d->is_full ? FULL_STATUS_MS : STATUS_MS);
	look_at_store(d);
}

static void reload(struct daemon *d)
{
	struct err e = { 0 };
	struct config *now = load_config(&d->source, true);
	if (!now || http_reload(d->http, now, &e)) {
		if (now)
			log_error("config", NULL, "%s: %s%s%s", e.id, e.message, *e.hint ? "; " : "", e.hint);
		log_error("config", NULL, "not reloaded: all stays as it was");
		config_free(now);
		return;
	}
	const char *path = config_needs_restart(d->config, now);
	if (path)
		log_warn("config", NULL, "%s has changed: that takes effect at the next start", path);
	apply_log(now, d->config);
	unsigned nbad = engine_reload(d->engine, now);
	config_free(d->config);
	d->config = now;
	if (nbad)
		log_warn("config", NULL, "reloaded, but %u file%s of %s could not be taken", nbad, nbad == 1 ? "" : "s", config_str(now, "jobs_dir"));
	else
		log_info("config", NULL, "reloaded");
}

/* For the beginning that it waits with: nothing is open yet, so all of it takes effect. */
static void read_again(struct daemon *d)
{
	struct config *now = load_config(&d->source, true);
	if (!now) {
		log_error("config", NULL, "not reloaded: all stays as it was");
		return;
	}
	apply_log(now, d->config);
	config_free(d->config);
	d->config = now;
}

static void on_hangup(void *arg, int signo)
{
	struct daemon *d = arg;
	(void)signo;
	if (!d->engine) {
		notify_reloading(d->notify);
		read_again(d);
		loop_timer_start(d->again, 0);
		notify_ready(d->notify);
		return;
	}
	if (engine_is_draining(d->engine))
		return;
	notify_reloading(d->notify);
	reload(d);
	notify_ready(d->notify);
}

static void on_drained(void *arg)
{
	struct daemon *d = arg;
	log_info("main", NULL, "drained");
	loop_stop(d->loop);
}

static void on_limit(void *arg)
{
	struct daemon *d = arg;
	log_warn("main", NULL, "not drained within drain_timeout: ending all the same; what is missing is read again at the next start");
	loop_stop(d->loop);
}

/* Not by the loop: it may be what hangs. */
static _Noreturn void on_second(int signo)
{
	static const char line[] = "dmsrd: a second signal: ending at once\n";
	ssize_t n = write(STDERR_FILENO, line, sizeof line - 1);
	(void)n;
	_exit(128 + signo);
}

static void on_terminate(void *arg, int signo)
{
	struct daemon *d = arg;
	d->begins_anew = false;
	if (!d->engine) {
		loop_stop(d->loop);
		return;
	}
	if (engine_is_draining(d->engine))
		on_second(signo); /* it was on its way when the first was dealt with */
	log_info("main", NULL, "%s: draining; a second signal ends at once", signo == SIGTERM ? "SIGTERM" : "SIGINT");
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_second }, NULL);
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_second }, NULL);
	notify_stopping(d->notify);
	loop_timer_start(d->limit, (uint64_t)config_int(d->config, "drain_timeout") + DRAIN_GRACE_MS);
	engine_drain(d->engine, on_drained, d);
	on_status(d);
}

/* ---- set-up ---- */

/* librdkafka's threads fill memory that the loop frees: an arena for each would keep what it had at its most. */
static void have_one_arena(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
#endif
}

/* A core and a debugger see passwords. Tests that kill us and sanitizers need both. */
static void shut_in(void)
{
#if !defined DMSR_ASAN && !defined DMSR_TSAN
	if (!failpoint_armed) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
		prctl(PR_SET_DUMPABLE, 0);
	}
#endif
	struct rlimit files;
	umask(0077);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write, not our end */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int exit_code(const struct err *e)
{
	switch ((enum dmsr_error)e->code) {
	case DMSR_EINVAL:
		return EXIT_CONFIG;
	case DMSR_ESTATE:
	case DMSR_EIO:
	case DMSR_EAUTH:
	case DMSR_EFULL:
	case DMSR_EEXIST:
	case DMSR_ENOTFOUND:
		return EXIT_ENVIRONMENT;
	case DMSR_EPROTO:
	case DMSR_EDATA:
	case DMSR_EFATAL:
		return EXIT_RUN_TIME;
	}
	return EXIT_RUN_TIME;
}

static int open_rooms(struct daemon *d, struct err *e)
{
	/* A port that is taken is found before a state directory is made and before a job begins. */
	int rc = http_open(d->loop, d->config, &d->http, e);
	rc = rc ? rc : engine_open(d->loop, d->config, &d->engine, e);
	return rc ? rc : http_serve(d->http, d->config, d->engine, e);
}

static void close_rooms(struct daemon *d)
{
	http_close(d->http);
	engine_close(d->engine);
	d->http = NULL;
	d->engine = NULL;
}

/* At its first start a daemon says at once that there is no room. One that was well until the disk was full stays, as it did before it began anew; but it
 * cannot tell of its jobs, which are in the store, so nobody is answered. */
static void wait_for_room(struct daemon *d, const struct err *e)
{
	bool is_told = d->is_full;
	wait_longer(d);
	if (!is_told)
		log_error("main", NULL,
			"%s: %s: the daemon cannot begin anew in the state directory %s; make room there. It tries again in %u s, then after twice as long "
			"each time, at most %d s, and at once on SIGHUP; nobody is answered meanwhile",
			e->id, e->message, config_str(d->config, "state_dir"), d->anew_ms / 1000, ANEW_MS_MAX / 1000);
	notify_status(d->notify, "no room for the state: %s", e->message);
	loop_timer_start(d->again, d->anew_ms);
}

/* false: there is no more to be done, and rc says why. */
static bool begin(struct daemon *d)
{
	struct err e = { 0 };
	if (!open_rooms(d, &e)) {
		d->source.check = check_plugins; /* at a reload; the engine has checked what it was opened with */
		d->is_full = false;
		d->since_us = loop_now_us(d->loop);
		on_status(d);
		notify_ready(d->notify);
		log_info("main", NULL, "ready");
		return true;
	}
	close_rooms(d);
	if (e.code == DMSR_EFULL && d->anew_ms) {
		wait_for_room(d, &e);
		return true;
	}
	log_error("main", NULL, "%s: %s%s%s", e.id, e.message, *e.hint ? "; " : "", e.hint);
	d->rc = exit_code(&e);
	return false;
}

static void on_again(void *arg)
{
	struct daemon *d = arg;
	if (!begin(d))
		loop_stop(d->loop);
}

static void open_all(struct daemon *d)
{
	d->loop = loop_new();
	d->notify = notify_new(d->loop);
	d->status = loop_timer_new(d->loop, "main", on_status, d);
	d->limit = loop_timer_new(d->loop, "main", on_limit, d);
	d->again = loop_timer_new(d->loop, "main", on_again, d);
	d->signals[0] = loop_signal_new(d->loop, SIGTERM, on_terminate, d);
	d->signals[1] = loop_signal_new(d->loop, SIGINT, on_terminate, d);
	d->signals[2] = loop_signal_new(d->loop, SIGHUP, on_hangup, d);
}

static void close_all(struct daemon *d)
{
	close_rooms(d);
	for (int i = 0; i < 3; i++)
		loop_signal_free(d->signals[i]);
	loop_timer_free(d->status);
	loop_timer_free(d->limit);
	loop_timer_free(d->again);
	notify_free(d->notify);
	loop_free(d->loop);
}

/* A library's thread that is not done in time must not see exit take that library down. */
static void end_threads(const struct daemon *d)
{
	if (worker_wait_left(LEAVE_MS) || d->begins_anew)
		return;
	log_warn("main", NULL, "end, while a library still waits for its brokers or for a name");
	fflush(NULL);
	_exit(d->rc);
}

static int serve(struct daemon *d)
{
	apply_log(d->config, NULL);
	shut_in();
	have_one_arena();
	log_info("main", NULL, "dmsrd " PACKAGE_VERSION ", pid %ld, state in %s", (long)getpid(), config_str(d->config, "state_dir"));
	if (is_missing(&d->source))
		log_info("main", NULL, "%s" NO_FILE, config_path(&d->source));
	open_all(d);
	if (begin(d))
		loop_run(d->loop);
	close_all(d);
	end_threads(d);
	log_info("main", NULL, "end");
	return d->rc;
}

/* ---- options ---- */

static int check(const struct daemon *d)
{
	printf("%s%s\nthe configuration is good\n", config_path(&d->source), is_missing(&d->source) ? NO_FILE : ": read");
	return fflush(stdout) == EOF ? EXIT_RUN_TIME : EXIT_OK;
}

/* For nobody but us: not for what a configuration may name, and not for the beginning after this one. */
static unsigned take_anew_ms(void)
{
	const char *text = getenv(anew_variable);
	unsigned long ms = text ? strtoul(text, NULL, 10) : 0;
	unsetenv(anew_variable);
	return ms < ANEW_MS_MAX ? (unsigned)ms : ANEW_MS_MAX;
}

static int act(struct daemon *d, enum action action)
{
	int rc = EXIT_OK;
	if (action == DO_HELP || action == DO_VERSION)
		return fputs(action == DO_HELP ? usage : "dmsrd " PACKAGE_VERSION "\n", stdout) == EOF || fflush(stdout) == EOF ? EXIT_RUN_TIME : EXIT_OK;
	if (action == DO_SCHEMA)
		return print_json(config_schema());
	if (action == DO_CHECK)
		d->source.check = check_plugins;
	if (!(d->config = load_config(&d->source, false)))
		return EXIT_CONFIG;
	if (action == DO_PRINT)
		rc = print_json(config_print(d->config));
	else if (action == DO_CHECK)
		rc = check(d);
	else
		rc = serve(d);
	config_free(d->config);
	return rc;
}

/* argv[0] may name no file, or another one. */
static void exec_again(char **argv)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	if (n > 0) {
		path[n] = 0;
		execv(path, argv);
	}
	execv("/proc/self/exe", argv); /* its file has been replaced */
}

int main(int argc, char **argv)
{
	enum { OPT_PRINT = 256, OPT_SCHEMA };
	static const struct option options[] = { { "config", required_argument, NULL, 'c' }, { "check-config", no_argument, NULL, 't' },
		{ "print-config", no_argument, NULL, OPT_PRINT }, { "dump-schema", no_argument, NULL, OPT_SCHEMA }, { "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct daemon d = { .anew_ms = take_anew_ms(), .source = { .environ = environ, .arg = &d } };
	enum action action = DO_SERVE;
	const char **overrides = mem_zalloc((size_t)argc * sizeof *overrides);
	bool is_good = true;
	int c;
	failpoint_init();
	while ((c = getopt_long(argc, argv, "c:o:tVh", options, NULL)) != -1)
		switch (c) {
		case 'c': d.source.file = optarg; break;
		case 'o': overrides[d.source.noverrides++] = optarg; break;
		case 't': action = DO_CHECK; break;
		case OPT_PRINT: action = DO_PRINT; break;
		case OPT_SCHEMA: action = DO_SCHEMA; break;
		case 'V': action = DO_VERSION; break;
		case 'h': action = DO_HELP; break;
		default: is_good = false; break; /* getopt has said what is wrong */
		}
	d.source.overrides = overrides;
	int rc = EXIT_CONFIG;
	if (is_good && optind < argc) {
		fprintf(stderr, "%s: '%s' is no option: jobs are made over HTTP, or as files in jobs_dir\n", argv[0], argv[optind]);
		is_good = false;
	}
	if (is_good)
		rc = act(&d, action);
	else
		fputs(usage, stderr);
	free(overrides);
	if (d.begins_anew) {
		char waited[16];
		snprintf(waited, sizeof waited, "%u", d.anew_ms);
		setenv(anew_variable, waited, 1);
		signal(SIGHUP, SIG_IGN); /* until it is listened to again */
		exec_again(argv);
		fprintf(stderr, "dmsrd: cannot begin anew: %s\n", strerror(errno));
		rc = EXIT_RUN_TIME;
	}
	return rc;
}
