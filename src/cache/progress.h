/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  How far a long-running procedure is, for narinfo.stat_progress.
 *
 * The figures travel through PostgreSQL's own progress reporting, so they
 * cost no row, are seen before anything commits, and go away by themselves
 * when the procedure ends or fails.  Its commands are a closed list: we report
 * as a COPY of valid_path, which an import and an export are much alike, and
 * keep figures of our own in parameters that COPY leaves free.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_PROGRESS_H
#define NARINFO_CACHE_PROGRESS_H

#include "postgres.h"

/* Shown by name in the view stat_progress: keep both in step. */
typedef enum ProgressCommand
{
	PROGRESS_IMPORT = 1,
	PROGRESS_EXPORT = 2,
	PROGRESS_RESIGN = 3,
	PROGRESS_CHECKPOINT = 4,
	PROGRESS_GC_PLAN = 5,
	PROGRESS_GC_RUN = 6,
	PROGRESS_CHECK_FILES = 9,
	PROGRESS_JOIN = 20,
	PROGRESS_REPOINT = 21
} ProgressCommand;

typedef enum ProgressPhase
{
	PROGRESS_READING = 1,
	PROGRESS_WRITING = 2,
	PROGRESS_SIGNING = 3,
	PROGRESS_LOADING = 4,
	PROGRESS_MARKING = 5,
	PROGRESS_STORING = 6,
	PROGRESS_REMOVING = 7,
	PROGRESS_FILES = 8,
	PROGRESS_NARINFOS = 9,
	PROGRESS_COPYING = 20,
	PROGRESS_PROVING = 21
} ProgressPhase;

extern void progress_start(ProgressCommand command, Oid relation);

/*
 * "done" of "total" in this phase, 0 while the total is not known; and how
 * many narinfos went in or out, were there already, and were left out.
 */
extern void progress_report(ProgressPhase phase, int64 done, int64 total,
							int64 processed, int64 unchanged,
							int64 left_out);
extern void progress_end(void);

#endif							/* NARINFO_CACHE_PROGRESS_H */
