/*-------------------------------------------------------------------------
 *
 * jobs.h
 *	  What the HTTP worker leaves to the writer workers: jobs, and how they
 *	  are handed over and answered.
 *
 *	  job_room		is there somebody, and room?	before a body is read
 *	  job_submit	hands a job over				-> ticket
 *	  job_poll		its result, if it is there: then the ticket is void
 *	  job_cancel	nobody waits for it any more
 *
 * The latch of the process is set when one of its jobs is done.  How jobs
 * come to writers is the matter of worker/queue.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_JOBS_H
#define NARINFO_SERVE_JOBS_H

#include "postgres.h"

#include "cache/cache.h"
#include "nar/store.h"

/* A text up to this size travels in shared memory, a longer one as a file. */
#define JOB_TEXT_MAX	8192
#define JOB_PATHS_MAX	(JOB_TEXT_MAX / STORE_HASH_LEN)
#define JOB_REASON_MAX	800		/* bytes; nix shows less than 1024 */

typedef enum JobKind
{
	JOB_PUBLISH,				/* "text" is a narinfo, "path" its hash part */
	JOB_STORE,					/* the received file is to lie at "path"; with
								 * a text, a NarExpectation (nar/check.h), if
								 * it meets that */
	JOB_TOUCH,					/* "text" are store hashes, STORE_HASH_LEN
								 * bytes each: the paths are in use */
	JOB_DISCARD					/* the received file is to go */
} JobKind;

/* It lies in shared memory as it is. */
typedef struct Job
{
	JobKind		kind;
	bool		gzip;			/* the received file is to be unpacked */
	char		cache[CACHE_NAME_MAX + 1];
	char		path[STORE_FILE_PATH_MAX + 1];
	StoreTemp	temp;			/* what was received; name "": it is "text" */
	uint32		text_len;
} Job;

/* What came of it, as HTTP has it: 200, 201, 4xx, 5xx and why. */
typedef struct JobResult
{
	int			status;
	int			copies;			/* other sites that have it, */
	int			asked;			/* of so many; 0: nobody asked */
	char		reason[JOB_REASON_MAX];
} JobResult;

typedef struct JobTicket
{
	uint32		slot;
	uint64		number;			/* never given twice while the server runs */
} JobTicket;

typedef enum JobRoom
{
	JOB_ROOM,
	JOB_FULL,
	JOB_NOBODY,					/* no writer runs now */
	JOB_NEVER					/* nor will one: so it is set, or it is a
								 * standby */
} JobRoom;

extern JobRoom job_room(void);

/*
 * From a JOB_ROOM on, the job's temporary file is the writer's to remove;
 * else nothing was done.  Without a ticket nobody will ask for its result;
 * such a job has room only as long as half of the queue is free.
 */
extern JobRoom job_submit(const Job *job, const char *text,
						  JobTicket *ticket);

/* False as long as there is none. */
extern bool job_poll(const JobTicket *ticket, JobResult *result);

/* False when a writer is at it: then its result has to be waited for. */
extern bool job_cancel(const JobTicket *ticket);

#endif							/* NARINFO_SERVE_JOBS_H */
