/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Is a file the NAR that a narinfo says it is?  Answered by a process of
 *	  its own, pg_narinfo_check, while the caller does something else.
 *
 *		check = nar_check_start(fd, &expect, timeout);
 *		... until nar_check_socket(check) is readable or the time is over ...
 *		while (!nar_check_poll(check, &result))
 *			wait;
 *		nar_check_end(check);
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_CHECK_H
#define NARINFO_NAR_CHECK_H

#include "postgres.h"

#include "base/narinfo.h"
#include "nar/checker/protocol.h"

/* What is known of the file and its NAR; what is not has "false" or "". */
typedef struct NarExpectation
{
	char		compression[32];	/* as a narinfo names it */
	bool		has_file_hash;
	bool		has_file_size;
	bool		has_nar_hash;
	bool		has_nar_size;
	Digest		file_hash;
	uint64		file_size;		/* bytes */
	Digest		nar_hash;
	uint64		nar_size;		/* bytes */
} NarExpectation;

typedef enum NarCheckStatus
{
	NAR_CHECK_GOOD,
	NAR_CHECK_BAD,				/* the file's fault: "reason" is for the one
								 * who sent it */
	NAR_CHECK_TROUBLE			/* ours: it could not be checked */
} NarCheckStatus;

typedef struct NarCheckResult
{
	NarCheckStatus status;
	char		reason[CHECKER_LINE_MAX];	/* "" when good */
	NarExpectation found;		/* when good, all of it */
} NarCheckResult;

typedef struct NarCheck NarCheck;

/* What a narinfo says of the file of its URL number "url". */
extern void nar_check_expect(const Narinfo *info, int url,
							 NarExpectation *expect);

/*
 * Starts a check of a file, from its beginning; the caller may close its
 * descriptor at once, but should not move it.  "timeout" is in ms, 0 for
 * none.  The check belongs to the current memory context: when that is reset,
 * by an error or otherwise, and when this process ends in whatever way, the
 * other process is killed.  Raises an error when no process can be made.
 */
extern NarCheck *nar_check_start(int fd, const NarExpectation *expect,
								 int timeout);

/* Readable, in the sense of WL_SOCKET_READABLE, when there is a result. */
extern pgsocket nar_check_socket(const NarCheck *check);

/* ms until the time is over, -1 if it never is. */
extern long nar_check_timeout(const NarCheck *check);

/*
 * False while there is no result; does not wait.  Raises an error when the
 * zygote was lost before it made a process and no other one can be made.
 */
extern bool nar_check_poll(NarCheck *check, NarCheckResult *result);

/* Kills the process if it still runs; the memory goes with its context. */
extern void nar_check_end(NarCheck *check);

#endif							/* NARINFO_NAR_CHECK_H */
