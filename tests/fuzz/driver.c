/* driver: main of a fuzz target where libFuzzer is not there. Arguments are files and directories; each file is an input.
 * Beside it, its prefixes and single flipped bytes are tried too, 512 of each at most: a decoder that steps over its end
 * does so there. Always the same work for the same files. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_VARIANTS = 512, MAX_INPUT_BYTES = 16 * 1024 * 1024 };

static long inputs, runs;

static _Noreturn void die(const char *what, const char *path)
{
	fprintf(stderr, "%s: %s: %s\n", path, what, strerror(errno));
	exit(2);
}

/* From a piece of memory of exactly this size, so that ASan sees one byte too many. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	if (!copy)
		die("malloc", "input");
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	runs++;
}

static void run_variants(uint8_t *data, size_t size)
{
	size_t step = size / MAX_VARIANTS + 1;
	for (size_t n = 0; n < size; n += step)
		run(data, n);
	for (size_t i = 0; i < size; i += step) {
		uint8_t before = data[i];
		data[i] = (uint8_t)(before ^ (i % 3 == 0 ? 0xff : i % 3 == 1 ? 0x80 : 0x01));
		run(data, size);
		data[i] = before;
	}
}

static void replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		die("open", path);
	uint8_t *data = malloc(MAX_INPUT_BYTES);
	if (!data)
		die("malloc", path);
	size_t size = fread(data, 1, MAX_INPUT_BYTES, f);
	if (ferror(f))
		die("read", path);
	fclose(f);
	run(data, size);
	run_variants(data, size);
	free(data);
	inputs++;
}

static int is_input(const struct dirent *d) { return d->d_name[0] != '.'; }

static void replay(const char *path)
{
	struct stat st;
	struct dirent **list;
	if (stat(path, &st))
		die("stat", path);
	if (!S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	int n = scandir(path, &list, is_input, alphasort);
	if (n < 0)
		die("scandir", path);
	for (int i = 0; i < n; i++) {
		char name[4096];
		snprintf(name, sizeof name, "%s/%s", path, list[i]->d_name);
		replay(name);
		free(list[i]);
	}
	free(list);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%ld inputs, %ld runs\n", inputs, runs);
	if (!inputs)
		fprintf(stderr, "%s: no input\n", argv[0]);
	return inputs ? 0 : 1;
}
