/*-------------------------------------------------------------------------
 *
 * errand.h
 *	  A job for a writer worker (jobs.h), and the request that waits for it.
 *
 *	  errand_begin	into the queue, or behind it while it is full
 *		|
 *		v
 *	  serve_errands	looks for results			-> errand->done
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_ERRAND_H
#define NARINFO_SERVE_ERRAND_H

#include "postgres.h"

#include "lib/ilist.h"

#include "http/http.h"
#include "serve/jobs.h"

typedef struct Errand Errand;

/*
 * Part of what somebody knows of a request.  "done" is called once, between
 * requests: it may call http_reply or serve_request, and frees the errand.
 */
struct Errand
{
	dlist_node	node;			/* among those that wait */
	HttpRequest *req;
	Job			job;
	const char *text;			/* of the job, JOB_TEXT_MAX at most */
	bool		submitted;		/* so that "ticket" is valid, and the job's
								 * temporary file the writer's */
	JobTicket	ticket;
	TimestampTz give_up;
	void		(*done) (Errand *errand, const JobResult *result);
};

/* Raises no error.  The errand and its text stay where they are until then. */
extern void errand_begin(Errand *errand);

#endif							/* NARINFO_SERVE_ERRAND_H */
