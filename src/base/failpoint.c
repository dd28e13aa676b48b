/* failpoint: the armed places of DMSR_FAILPOINT, counted down as they are passed, from any thread. */
#include "base/failpoint.h"
#include "base/mem.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FAILPOINTS = 32 };

struct failpoint {
	char *name;
	atomic_long left; /* passings until it acts; below 1: it has acted */
	bool fail;        /* else: kill */
};

bool failpoint_armed;
static struct failpoint points[MAX_FAILPOINTS];
static size_t n_points;

/* A misspelt failpoint would make its test pass without having tested anything. */
static _Noreturn void refuse(const char *entry)
{
	fprintf(stderr, "dmsr: DMSR_FAILPOINT: cannot understand \"%s\", want name[:N][:kill|fail]\n", entry);
	exit(2);
}

static void parse_entry(char *entry)
{
	char whole[128];
	snprintf(whole, sizeof whole, "%s", entry);
	if (n_points == MAX_FAILPOINTS)
		refuse(whole);
	struct failpoint *p = &points[n_points++];
	char *rest = entry;
	char *name = strsep(&rest, ":");
	long count = 1;
	p->fail = false;
	if (rest && *rest >= '0' && *rest <= '9') {
		char *end;
		errno = 0;
		count = strtol(rest, &end, 10);
		if (errno || count < 1 || (*end && *end != ':'))
			refuse(whole);
		rest = *end ? end + 1 : NULL;
	}
	if (rest && !strcmp(rest, "fail"))
		p->fail = true;
	else if (rest && strcmp(rest, "kill") != 0)
		refuse(whole);
	if (!*name)
		refuse(whole);
	p->name = mem_strdup(name);
	atomic_init(&p->left, count);
}

void failpoint_init(void)
{
	while (n_points)
		free(points[--n_points].name);
	failpoint_armed = false;
	const char *env = getenv("DMSR_FAILPOINT");
	if (!env || !*env)
		return;
	char *copy = mem_strdup(env), *rest = copy, *entry;
	while ((entry = strsep(&rest, ",")))
		parse_entry(entry);
	free(copy);
	failpoint_armed = true;
}

bool failpoint_hit(const char *name)
{
	bool fail = false;
	for (size_t i = 0; i < n_points; i++) {
		struct failpoint *p = &points[i];
		if (strcmp(p->name, name) != 0 || atomic_fetch_sub(&p->left, 1) != 1)
			continue;
		if (!p->fail) {
			kill(getpid(), SIGKILL);
			for (;;)
				pause();
		}
		fail = true;
	}
	return fail;
}
