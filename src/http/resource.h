/* resource: what the files with resources share: names of jobs, preconditions, pages. */
#ifndef DMSR_HTTP_RESOURCE_H
#define DMSR_HTTP_RESOURCE_H
#include "http/http_int.h"

/* The job that the path names by name or uid: a new reference, and its canonical name (borrowed of it). NULL: a reply is set (404). */
json_t *resource_job(struct request *r, const char **name, int64_t *generation);
/* If-Match and If-None-Match against what there is (exists, generation) -> what the engine must find when it acts: -1 any.
 * needed: without If-Match an existing job is not touched (428). False: a reply is set. */
bool resource_if_match(struct request *r, bool exists, int64_t generation, bool needed, int64_t *out);
/* A view of the engine's: taken; NULL: 404. */
void resource_view(struct request *r, json_t *view);
/* {"items","next"} of the engine -> {"items","next_cursor"}; finish for call_new. */
call_finish finish_page;
/* 200 with the result as it is; 204 when there is none. */
call_finish finish_plain;

#endif
