/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  What the files of the writer worker share: the jobs in its hands.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_WORKER_WRITER_H
#define NARINFO_WORKER_WRITER_H

#include "postgres.h"

#include "worker/queue.h"

typedef enum HeldState
{
	HELD_NEW,
	HELD_READY,					/* to be published */
	HELD_DONE					/* "result" is its answer */
} HeldState;

typedef struct HeldJob
{
	HeldState	state;
	JobTicket	ticket;
	Job			job;
	char	   *text;
	size_t		text_len;
	int			tries;			/* writers that had it before us */
	struct varlena *info;		/* of JOB_PUBLISH, from HELD_READY on */
	bool		existed;		/* the path was valid already */
	JobResult	result;
	MemoryContext context;		/* has all of it */
} HeldJob;

/* Gives a job its answer: HTTP's status, and a printf format. */
extern void held_answer(HeldJob *held, int status, const char *format,...)
			pg_attribute_printf(3, 4);

/* ---- writer_job.c: what is done to one job alone ---- */

/*
 * Stores what is to be stored; looks whether a narinfo may be published, and
 * leaves it HELD_READY.  May raise errors.
 */
extern void writer_prepare(HeldJob *held);

/* ---- writer_publish.c: what is done in transactions ---- */

/*
 * Publishes and touches jobs of one cache, in one transaction if it can be;
 * each is HELD_DONE afterwards.
 */
extern void writer_publish(HeldJob **jobs, int n);

/*
 * In the handler of an error: ends the transaction, if there is one, and gives
 * the job the answer that this error deserves; NULL: none.
 */
extern void writer_job_failed(HeldJob *held);

#endif							/* NARINFO_WORKER_WRITER_H */
