/*-------------------------------------------------------------------------
 *
 * sites_worker.c
 *	  The worker of sites: a background worker that does what a server owes to
 *	  the other sites, again and again (src/sites/sites.h says what).
 *
 *	  launcher ──> sites worker:	a turn, wait pg_narinfo.site_interval
 *									an error: noted, and the next turn later
 *
 * It is no part of the janitor, since it waits for other machines.  A server
 * that is alone costs it one lookup every few seconds.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "compat.h"
#include "sites/sites.h"
#include "worker/worker.h"

#define ALONE_PAUSE 5000		/* ms */
#define FAILED_PAUSE 5000		/* ms, at least */

/* Gives up locks before who drops or alters something has to. */
#define LOCK_PATIENCE "100ms"

static void
forget_error(MemoryContext context)
{
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/* The message of the error at hand, kept in "context". */
static char *
take_message(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	return error->message ? error->message : pstrdup("?");
}

/* What cannot be noted either is logged. */
static void
note_failure(MemoryContext context, const char *message)
{
	PG_TRY();
	{
		sites_turn_failed(message);
	}
	PG_CATCH();
	{
		EmitErrorReport();
		forget_error(context);
	}
	PG_END_TRY();
}

/* A turn; how many ms until the next. */
static long
try_turn(MemoryContext context)
{
	static char last[200] = "";
	volatile long wait = sites_interval;
	char	   *volatile message = NULL;

	PG_TRY();
	{
		if (!sites_turn(context))
			wait = ALONE_PAUSE;
		last[0] = '\0';
	}
	PG_CATCH();
	{
		message = take_message(context);
		/* the same is not logged again and again */
		if (strncmp(last, message, sizeof(last) - 1) != 0)
			EmitErrorReport();
		strlcpy(last, message, sizeof(last));
		forget_error(context);
		wait = Max(sites_interval, FAILED_PAUSE);
	}
	PG_END_TRY();
	if (message)
		note_failure(context, message);
	MemoryContextReset(context);
	return wait;
}

void
pg_narinfo_sites_main(Datum arg)
{
	MemoryContext context;
	uint32		wait_event;

	(void) arg;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(worker_database, worker_role, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	SetConfigOption("lock_timeout", LOCK_PATIENCE, PGC_SUSET, PGC_S_OVERRIDE);
	context = AllocSetContextCreate(TopMemoryContext, "narinfo sites worker",
									ALLOCSET_SMALL_SIZES);
	wait_event = compat_wait_event("PgNarinfoSites");

	while (!ShutdownRequestPending)
	{
		long		wait;

		pqsignal(SIGTERM, die);
		worker_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		wait = try_turn(context);
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
		worker_interrupts();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, wait, wait_event);
		ResetLatch(MyLatch);
	}
	proc_exit(0);
}
