/*-------------------------------------------------------------------------
 *
 * turns.c
 *	  The life of a worker that serves nobody: a turn, a pause, a turn.
 *
 * It takes locks of several tables, and is in nobody's way: it gives up, by a
 * lock_timeout shorter than deadlock_timeout, before somebody who drops or
 * alters them has to.
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

#include "nar/root.h"
#include "worker/worker.h"

#define LOCK_PATIENCE "100ms"

static void
start_worker(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(worker_database, worker_role, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	SetConfigOption("lock_timeout", LOCK_PATIENCE, PGC_SUSET, PGC_S_OVERRIDE);
	/* its queries take moments, whatever the planner thinks of new tables */
	SetConfigOption("jit", "off", PGC_SUSET, PGC_S_OVERRIDE);
}

static void
reload_if_due(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	nar_root_reload();
}

void
worker_forget_error(MemoryContext context)
{
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

void
worker_take_turns(const char *name, uint32 wait_event, pgsocket socket,
				  long (*turn) (MemoryContext context))
{
	MemoryContext context;
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;

	if (socket != PGINVALID_SOCKET)
		events |= WL_SOCKET_READABLE;
	start_worker();
	context = AllocSetContextCreate(TopMemoryContext, "narinfo turn",
									ALLOCSET_SMALL_SIZES);
	MemoryContextSetIdentifier(context, name);
	while (!ShutdownRequestPending)
	{
		long		wait;

		/* a turn may take long: it is given up, but to be idle is no error */
		pqsignal(SIGTERM, die);
		worker_interrupts();
		reload_if_due();
		wait = turn(context);
		MemoryContextReset(context);
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
		worker_interrupts();
		(void) WaitLatchOrSocket(MyLatch, events, socket, wait, wait_event);
		ResetLatch(MyLatch);
	}
	proc_exit(0);
}
