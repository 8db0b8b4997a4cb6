/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far a long-running procedure is, for narinfo.stat_progress.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/progress.h"

#include "commands/progress.h"
#include "utils/backend_progress.h"

/* Parameters that COPY leaves free; stat_progress reads them one higher. */
#define PARAM_COMMAND	10
#define PARAM_PHASE		11
#define PARAM_DONE		12
#define PARAM_TOTAL		13
#define PARAM_UNCHANGED 14

void
progress_start(ProgressCommand command, Oid relation)
{
	pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relation);
	pgstat_progress_update_param(PROGRESS_COPY_COMMAND,
								 command == PROGRESS_EXPORT ?
								 PROGRESS_COPY_COMMAND_TO :
								 PROGRESS_COPY_COMMAND_FROM);
	pgstat_progress_update_param(PROGRESS_COPY_TYPE, PROGRESS_COPY_TYPE_FILE);
	pgstat_progress_update_param(PARAM_COMMAND, command);
}

void
progress_report(ProgressPhase phase, int64 done, int64 total,
				int64 processed, int64 unchanged, int64 left_out)
{
	const int	params[] = {
		PARAM_PHASE, PARAM_DONE, PARAM_TOTAL,
		PROGRESS_COPY_TUPLES_PROCESSED, PARAM_UNCHANGED,
		PROGRESS_COPY_TUPLES_EXCLUDED
	};
	const int64 values[] = {
		phase, done, total, processed, unchanged, left_out
	};

	pgstat_progress_update_multi_param(lengthof(params), params, values);
}

void
progress_end(void)
{
	pgstat_progress_end_command();
}
