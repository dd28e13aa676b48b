/* change: the words for the operations. */
#include "model/change.h"

const char *change_op_name(enum change_op op)
{
	switch (op) {
	case OP_CREATE: return "create";
	case OP_UPDATE: return "update";
	case OP_DELETE: return "delete";
	case OP_READ: return "read";
	case OP_TRUNCATE: return "truncate";
	case OP_BEGIN: return "begin";
	case OP_COMMIT: return "commit";
	case OP_MESSAGE: return "message";
	case OP_HEARTBEAT: return "heartbeat";
	case OP_SCHEMA: return "schema";
	case OP_LOAD_BEGIN: return "load-begin";
	case OP_ROWS: return "rows";
	case OP_LOAD_PART: return "load-part";
	case OP_LOAD_END: return "load-end";
	case OP_LOAD_DONE: return "load-done";
	}
	return "?";
}
