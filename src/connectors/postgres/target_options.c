/* target_options: what may be said about a PostgreSQL target in a job. Read by target_open. */
#include "conn.h"
#include "target.h"

const struct dmsr_option pgtarget_options[] = {
	PGCONN_OPTIONS,
	{ "prepare", DMSR_OPT_ENUM, 0, "create", "none|create|truncate|drop-and-create", 0, 0,
		"What is done to a table before its load: nothing; made when missing, refused when it has rows; emptied; dropped and made." },
	{ "ddl", DMSR_OPT_ENUM, 0, "apply", "apply|ignore|stop", 0, 0,
		"What is done when columns of a table change at the source while it is followed." },
	{ "on_constraint_error", DMSR_OPT_ENUM, 0, "stop", "stop|retry|dead-letter", 0, 0,
		"What is done with a change that a constraint of the target refuses. stop: the job fails. retry: the job tries again until it is taken. "
		"dead-letter: its row is set aside, where GET /jobs/NAME/errors has it, and the others go on." },
	{ "on_data_error", DMSR_OPT_ENUM, 0, "stop", "stop|retry|dead-letter", 0, 0,
		"What is done with a change whose values the target's types refuse, or its indexes for their length: as with on_constraint_error." },
	{ "on_missing_row", DMSR_OPT_ENUM, 0, "stop", "stop|ignore|dead-letter", 0, 0,
		"What is done when the row that an update or delete means is not there: the job fails; nothing; or the change is set aside, as with "
		"on_constraint_error." },
	{ "apply", DMSR_OPT_ENUM, 0, "strict", "strict|parallel", 0, 0,
		"How changes are applied: in the source's order, through one connection; or through several, where only those that conflict keep it." },
	{ "apply_connections", DMSR_OPT_INT, 0, "4", NULL, 1, 16,
		"With apply parallel: how many connections changes are spread over, beside the one that loads and does what is not spread." },
	{ "commit_rows", DMSR_OPT_INT, 0, "10000", NULL, 1, 1000000, "Row changes after which the target transaction is committed." },
	{ "commit_bytes", DMSR_OPT_BYTES, 0, "8MiB", NULL, 1024, 1 << 30, "The same in bytes of values." },
	{ "commit_interval", DMSR_OPT_DURATION, 0, "500ms", NULL, 1, 60000,
		"The longest a change waits for others that are committed with it." },
	{ "synchronous_commit", DMSR_OPT_BOOL, 0, "true", NULL, 0, 0,
		"Whether each commit waits for the target's disk. When false, few do; a change is still told as applied only when it is on disk." },
	{ "session_replication_role", DMSR_OPT_ENUM, 0, "auto", "auto|on|off", 0, 0,
		"Whether the target's triggers and foreign keys rest while changes are applied: if the role may set that, always, or never." },
	{ "index_connections", DMSR_OPT_INT, 0, "2", NULL, 1, 64,
		"Tables whose indexes and constraints are made at once, after the load." },
	{ NULL, 0, 0, NULL, NULL, 0, 0, NULL },
};
