/* store_file: what the state store's rooms do with files, and how they tell a file's trouble: one id, one sentence, one advice each. */
#ifndef DMSR_ENGINE_STORE_FILE_H
#define DMSR_ENGINE_STORE_FILE_H
#include "base/err.h"

/* A system call failed, errno says why: "state.full" (DMSR_EFULL: no space, quota, file size) or "state.io" (DMSR_EIO). doing: "write to". */
int store_file_err(struct err *e, const char *doing, const char *path);
/* The bytes of path are not what was written: "state.corrupt" (DMSR_EPROTO). what: why we know. */
int store_file_corrupt(struct err *e, const char *path, const char *what, ...) __attribute__((format(printf, 3, 4)));
/* Makes the names in dir durable. */
int store_file_sync_dir(const char *dir, struct err *e);
/* Makes dir (mode 0700) and what is missing above it; each new name is durable. */
int store_file_make_dirs(const char *dir, struct err *e);
/* Removes dir and the files in it (no directories), at most max files in this call. 0: gone; 1: more to do; else e is set. */
int store_file_remove_dir(const char *dir, unsigned max, struct err *e);
/* Can some 16 MiB be written there? Nothing stays of the question. */
bool store_file_has_room(const char *dir);
/* An empty dir, and what is missing above it, for what may vanish: no name is durable, and it costs no wait for the disk. */
int store_file_make_scratch(const char *dir, struct err *e);

#endif
