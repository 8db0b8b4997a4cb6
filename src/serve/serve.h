/*-------------------------------------------------------------------------
 *
 * serve.h
 *	  What the HTTP worker answers: routes, narinfos, files.
 *
 * A process that serves calls serve_start() once it is connected to the
 * database, serve_reload() whenever the settings were read again, and then,
 * for every batch of requests that is ready:
 *
 *		while ((req = http_server_next(server)) != NULL)
 *			serve_request(req);
 *		serve_finish();
 *
 * The requests of a batch share one transaction, begun by the first that
 * needs the database.  None is open between batches.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_SERVE_H
#define NARINFO_SERVE_SERVE_H

#include "postgres.h"

#include "http/http.h"

/* Defines the room's settings; called once by _PG_init. */
extern void serve_init(void);

extern void serve_start(void);
extern void serve_reload(void);

/*
 * Answers a request, or has its body received, with which it comes again out
 * of http_server_next().  It answers whatever happens: an error costs the
 * batch's transaction and this request, which gets a 500 or 503, and nothing
 * else.
 */
extern void serve_request(HttpRequest *req);

/* Ends the batch's transaction, if there is one. */
extern void serve_finish(void);

/*
 * Answers the requests for which a writer has done what was to be done;
 * "woken" tells whether the latch was set.  To be called between batches, and
 * at least once a second as long as it returns true: then some wait.
 */
extern bool serve_errands(bool woken);

/*
 * Goes on with requests for files that are not here, and that somebody has or
 * that are being fetched; "woken" as above, or that something came.  To be
 * called between batches, behind fetch_poll(), and at least five times a
 * second as long as it returns true.
 */
extern bool serve_missing(bool woken);

/* How many wrong tokens this process was shown. */
extern uint64 serve_auth_failures(void);

#endif							/* NARINFO_SERVE_SERVE_H */
