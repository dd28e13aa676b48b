/* mem: allocation that cannot fail.
 *
 * Policy: a daemon that is out of memory dies (one line on stderr, abort), as it would by kill -9; the ledger and
 * the targets' own positions make that lose nothing. So no caller tests for NULL. What this needs in return: a size
 * that comes from any wire or file is bounded by its reader BEFORE it is allocated (see buf's maximum, cursor). */
#ifndef DMSR_BASE_MEM_H
#define DMSR_BASE_MEM_H
#include <stddef.h>
#pragma GCC visibility push(default)

void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull));          /* not zeroed */
void *mem_zalloc(size_t n) __attribute__((malloc, returns_nonnull));         /* zeroed */
void *mem_realloc(void *p, size_t n) __attribute__((returns_nonnull));
void *mem_realloc_array(void *p, size_t n, size_t size) __attribute__((returns_nonnull)); /* checks n * size */
char *mem_strdup(const char *s) __attribute__((malloc));                     /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));
/* All of these are given back by free(). */

#pragma GCC visibility pop
#endif
