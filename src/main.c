/* dmsrd: options. */
#include "config.h"
#include <getopt.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	switch (getopt_long(argc, argv, "hV", options, NULL)) {
	case 'h':
		puts("usage: dmsrd [--help] [--version]");
		return 0;
	case 'V':
		puts("dmsrd " PACKAGE_VERSION);
		return 0;
	}
	fputs("usage: dmsrd [--help] [--version]\n", stderr);
	return 2;
}
