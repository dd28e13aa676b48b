/* fake_int: what the files of the fakes share. */
#ifndef DMSR_FAKE_INT_H
#define DMSR_FAKE_INT_H
#include "fake.h"

enum step_kind { STEP_LOAD, STEP_LOAD_DONE, STEP_TXN, STEP_HEARTBEAT, STEP_GATE, STEP_FAIL };
struct step {
	enum step_kind kind;
	struct relation *rel, *old;     /* references; old: an OP_SCHEMA comes first */
	bool has_schema;
	enum change_op op;
	unsigned n, per;                /* load: batches, rows each; txn: changes, per batch; fail: times left */
	size_t pad;
	uint64_t lsn;
	int64_t first_id;
	bool is_open;                   /* gate */
	bool joins;                     /* txn: the next one */
	bool in_turn;                   /* load */
	struct err error;
};
struct fake_script {
	struct fake_script *next;
	char *name;
	struct step *steps;
	size_t nsteps;
	uint64_t lsn, wrote;
	int64_t rows;
	struct fake_source *instances;
	bool (*is_durable)(void *arg, const struct position *p);
	void *arg;
	struct fake_script_stat stat;
};
struct fake_script *fake_script_find(const char *name);
struct fake_server *fake_server_find(const char *name);
void fake_source_wake(struct fake_script *s);

extern const struct dmsr_source fake_source;
extern const struct dmsr_target fake_target;

#endif
