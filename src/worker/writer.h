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

#include "datatype/timestamp.h"

#include "nar/check.h"
#include "sites/copies.h"
#include "worker/queue.h"

typedef enum HeldState
{
	HELD_NEW,
	HELD_UNCHECKED,				/* its NARs are to be looked into */
	HELD_READY,					/* to be published */
	HELD_COPIES,				/* published; waits to be on other sites */
	HELD_DONE					/* "result" is its answer */
} HeldState;

/* Of one that is HELD_COPIES. */
typedef struct HeldCopies
{
	CachePolicies policies;
	CopiesTarget target;		/* cache "": not known yet */
	TimestampTz late_at;		/* until when it waits */
} HeldCopies;

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
	NarCheck   *check;			/* of the URL of this number, if it runs */
	int			url;
	JobResult	result;
	HeldCopies	copies;
	MemoryContext context;		/* has all of it */
} HeldJob;

/* Gives a job its answer: HTTP's status, and a printf format. */
extern void held_answer(HeldJob *held, int status, const char *format,...)
			pg_attribute_printf(3, 4);

/* ---- writer_job.c: what is done to one job alone ---- */

/*
 * Stores what is to be stored; looks whether a narinfo may be published, and
 * leaves it HELD_UNCHECKED or HELD_READY.  May raise errors.
 */
extern void writer_prepare(HeldJob *held);

/* Brings the file of a JOB_STORE to its place. */
extern void writer_store(HeldJob *held);

/* ---- writer_check.c: what is in the NARs of one job ---- */

extern bool writer_check_nars;	/* GUC pg_narinfo.check_nars */

/* Starts to look into the next NAR of one that is HELD_UNCHECKED. */
extern void writer_check_start(HeldJob *held);

/*
 * Takes up what the check has found, if it has ended: then the job is ready,
 * done, or wants its next check.
 */
extern void writer_check_poll(HeldJob *held);

/* The settings of these; called by worker_define_settings(). */
extern void writer_define_settings(void);

/* ---- writer_publish.c: what is done in transactions ---- */

/*
 * Publishes and touches jobs of one cache, in one transaction if it can be;
 * each is HELD_DONE or HELD_COPIES afterwards.
 */
extern void writer_publish(HeldJob **jobs, int n);

/*
 * In the handler of an error: ends the transaction, if there is one, and gives
 * the job the answer that this error deserves; NULL: none.
 */
extern void writer_job_failed(HeldJob *held);

/* ---- writer_copies.c: those that wait to be on other sites ---- */

/* Has a job that is published and HELD_DONE wait, if its cache wants that. */
extern void writer_copies_ask(HeldJob *held, const CachePolicies *policies);

/* Takes over one that is HELD_COPIES. */
extern void writer_copies_keep(HeldJob *held);

/* Gives those to "answer" that have waited enough, HELD_DONE. */
extern void writer_copies_look(void (*answer) (HeldJob *held));

/* ms until that is to be called again; -1: none waits. */
extern long writer_copies_pause(void);

#endif							/* NARINFO_WORKER_WRITER_H */
