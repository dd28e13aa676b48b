/* err: one way to say what went wrong, over every room boundary.
 *
 * A function that can fail returns 0 or a negative DMSR_E* and takes `struct err *e` last; on failure it has filled e
 * with the object's name, the reason and what to do. `id` is the stable code of the API ("slot.lost"), documented in
 * dmsr-api(7). The room that decides logs it, once; pure code never logs. assert() is for our own bugs, err for the world. */
#ifndef DMSR_BASE_ERR_H
#define DMSR_BASE_ERR_H
#include <stdbool.h>
#pragma GCC visibility push(default)

enum dmsr_error {
	DMSR_EINVAL = -1,  /* the caller's input is wrong: option, specification, argument */
	DMSR_EPROTO = -2,  /* bytes from a wire or a file are not what their format says */
	DMSR_EIO = -3,     /* disk, network, a server that went away */
	DMSR_EAUTH = -4,   /* refused: password, right, certificate */
	DMSR_ENOTFOUND = -5,
	DMSR_EEXIST = -6,
	DMSR_ESTATE = -7,  /* not allowed in the present state */
	DMSR_EFULL = -8,   /* a stated limit is reached */
	DMSR_EDATA = -9,   /* a row that the target refuses: constraint, type */
	DMSR_EFATAL = -10, /* the position or the promise is gone: somebody must decide */
};

/* What a room says to a hand-over. That something is wrong it says by itself (failed), and then it takes nothing more. */
enum dmsr_verdict {
	DMSR_OK = 0,    /* taken: the callee owns it now */
	DMSR_AGAIN = 1, /* not taken: wait for resume */
};

struct err {
	int code;           /* enum dmsr_error; 0 = no error */
	bool retriable;     /* the same attempt may succeed later without anybody's doing */
	char id[48];        /* stable code: "source.auth", "slot.lost" ... */
	char message[640];  /* a sentence: names the object, says why */
	char hint[512];     /* what to do; may be empty */
};

/* Fills e (which may be NULL) and returns code. The message is cut at its size, control characters become spaces. */
int err_set(struct err *e, int code, const char *id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The same, with retriable = true. */
int err_retry(struct err *e, int code, const char *id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Adds what to do. Returns e->code, so that `return err_hint(e, ...)` may follow err_set. e NULL: DMSR_EINVAL, since nobody knows the code any more. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the message. */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_clear(struct err *e);
static inline bool err_is_set(const struct err *e) { return e && e->code != 0; }

#pragma GCC visibility pop
#endif
