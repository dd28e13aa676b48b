/* man_options: the option tables of the code as the lists of the manual (mdoc), for tests/tools/man-options.
 * Each list begins with a line ".\" options NAME" and ends with ".\" end". */
#include "engine/config.h"
#include "engine/plugin.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A new sentence is a new line (mandoc -Tlint). */
static void print_escaped(const char *s)
{
	for (; *s; s++) {
		if (s[0] == '.' && s[1] == ' ') {
			fputs(".\n", stdout);
			s++;
		} else if (*s == '\\')
			fputs("\\e", stdout);
		else if (*s == '-')
			fputs("\\-", stdout);
		else
			putchar(*s);
	}
}

/* A text line: the first letter large, a full stop at the end. */
static void print_sentence(const char *s)
{
	if (strchr(".'", *s))
		fputs("\\&", stdout);
	char first[2] = { (char)toupper((unsigned char)*s), 0 };
	/* "name -> where" begins with a word of the file */
	print_escaped(isalpha((unsigned char)*s) && !strstr(s, "->") ? first : (char[]){ *s, 0 });
	print_escaped(s + 1);
	puts(s[strlen(s) - 1] == '.' ? "" : ".");
}

static void print_number(int type, int64_t v)
{
	static const struct { const char *unit; int64_t factor; }
		bytes[] = { { "TiB", (int64_t)1 << 40 }, { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 }, { "", 1 } },
		times[] = { { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
	if (type == DMSR_OPT_BYTES)
		for (size_t i = 0; i < 5; i++)
			if (v % bytes[i].factor == 0 && (v || i == 4)) {
				printf("%" PRId64 "%s", v / bytes[i].factor, bytes[i].unit);
				return;
			}
	if (type == DMSR_OPT_DURATION && v)
		for (size_t i = 0; i < 5; i++)
			if (v % times[i].factor == 0) {
				printf("%" PRId64 "%s", v / times[i].factor, times[i].unit);
				return;
			}
	printf("%" PRId64, v);
}

/* What configure was told about directories is no part of the manual: a package's are. */
static const char *default_text(const char *dflt)
{
	if (!strcmp(dflt, DMSR_STATE_DIR))
		return "/var/lib/dmsr";
	if (!strcmp(dflt, DMSR_PLUGIN_DIR))
		return "/usr/lib/dmsr/plugins";
	if (!strcmp(dflt, DMSR_SYSCONF_DIR "/jobs.d"))
		return "/etc/dmsr/jobs.d";
	return dflt;
}

static void print_type(const struct dmsr_option *o)
{
	static const char *const names[] = { [DMSR_OPT_STRING] = "String", [DMSR_OPT_INT] = "Number", [DMSR_OPT_BOOL] = "Boolean", [DMSR_OPT_BYTES] = "Size",
		[DMSR_OPT_DURATION] = "Duration", [DMSR_OPT_ENUM] = "One of", [DMSR_OPT_LIST] = "List of strings" };
	fputs(o->type == CONFIG_OPT_OBJECT ? "Object" : o->flags & DMSR_OPT_SECRET ? "Secret" : names[o->type], stdout);
	if (o->type == DMSR_OPT_ENUM)
		for (const char *s = o->values; *s; s += *s == '|') {
			int n = (int)strcspn(s, "|");
			printf("%s %.*s", s == o->values ? "" : ",", n, s);
			s += n;
		}
	if (o->min || o->max) {
		fputs(o->max == INT64_MAX ? ", at least " : ", ", stdout);
		print_number(o->type, o->min);
		if (o->max != INT64_MAX) {
			fputs(" to ", stdout);
			print_number(o->type, o->max);
		}
	}
	if (o->dflt && *o->dflt) {
		bool is_word = isalnum((unsigned char)*o->dflt) || *o->dflt == '/' || *o->dflt == '_';
		fputs(is_word ? "; default " : "; default \\(dq", stdout);
		print_escaped(default_text(o->dflt));
		fputs(is_word ? "" : "\\(dq", stdout);
	}
}

static void print_option(const struct dmsr_option *o, const char *more)
{
	fputs(".It Ic ", stdout);
	print_escaped(o->name);
	putchar('\n');
	print_sentence(o->help ? o->help : o->name);
	print_type(o);
	puts(o->flags & DMSR_OPT_REQUIRED && !o->dflt ? "; required." : ".");
	if (*more)
		puts(more);
}

static void print_config(void)
{
	puts(".\\\" options config\n.Bl -tag -width Ds");
	for (const struct config_entry *t = config_table; t->path; t++) {
		struct dmsr_option o = { t->path, t->type, t->flags, t->dflt, t->values, t->min, t->max, t->help };
		if (t->type == CONFIG_OPT_OBJECT)
			o.flags &= (uint8_t)~DMSR_OPT_SECRET;
		print_option(&o, t->flags & DMSR_OPT_LIVE ? "" : "A change takes effect at the next start.");
	}
	puts(".El\n.\\\" end");
}

static void print_table(const char *plugin, const char *role, const struct dmsr_option *table)
{
	if (!table)
		return;
	printf(".\\\" options %s %s\n.Bl -tag -width Ds\n", plugin, role);
	for (; table->name; table++)
		print_option(table, table->flags & DMSR_OPT_LIVE ? "May be changed while the job runs." : "");
	puts(".El\n.\\\" end");
}

int main(void)
{
	struct plugins *plugins = plugins_new();
	const struct dmsr_plugin *p;
	print_config();
	for (size_t i = 0; (p = plugins_at(plugins, i)); i++) {
		print_table(p->name, "source", p->source_options);
		print_table(p->name, "target", p->target_options);
		print_table(p->name, "streamer", p->streamer_options);
		print_table(p->name, "transform", p->transform_options);
		print_table(p->name, "codec", p->codec_options);
	}
	plugins_free(plugins);
	return 0;
}
