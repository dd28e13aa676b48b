/* server: sockets and libmicrohttpd's daemons on them. */
#ifndef DMSR_HTTP_SERVER_H
#define DMSR_HTTP_SERVER_H
#include "http/http_int.h"

/* listen.c: the sockets. */
int listen_tcp(struct http *h, const char *text, struct err *e);     /* as config_split_listen has it */
int listen_unix(struct http *h, const char *path, struct err *e);
void listener_close(struct listener *l);

/* served.c: the daemons. cert, key: file names, NULL: no TLS. */
struct served *served_new(struct listener *l, const struct limits *limits, const char *cert, const char *key, struct err *e);
void served_retire(struct served *s);   /* no new connections */
void served_free(struct served *s);     /* cuts what is left */
void served_reap(struct http *h);
void conns_cut(struct http *h);         /* those past their deadline */

#endif
