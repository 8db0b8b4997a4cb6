/*-------------------------------------------------------------------------
 *
 * sites_worker.c
 *	  The worker of sites: a background worker that does what a server owes to
 *	  the other sites, again and again (src/sites/sites.h says what).
 *
 *	  launcher ──> sites worker:	a turn, wait pg_narinfo.site_interval or,
 *									while a cache has visible_copies, less
 *									an error: noted, and the next turn later
 *									and each second a look at how much
 *									write-ahead log is kept for mirrors
 *									and, whenever something comes, the files
 *									that a mirror has to have (sites_files.c);
 *									what is new of these is told at once
 *
 * It is no part of the janitor, since it waits for other machines.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fetch/fetch.h"
#include "sites/pressure.h"
#include "sites/sites.h"
#include "worker/queue.h"
#include "worker/worker.h"

#define ALONE_PAUSE 5000		/* ms */
#define FAILED_PAUSE 1000		/* ms, at least */

#define LAST_MAX 200

/*
 * In a PG_CATCH(): as if nothing had happened; the message, kept in "context".
 * It is logged unless it is the last one, so that the same is not logged again
 * and again.
 */
static char *
take_error(MemoryContext context, char last[LAST_MAX])
{
	ErrorData  *error;
	char	   *message;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	message = error->message ? error->message : pstrdup("?");
	if (strncmp(last, message, LAST_MAX - 1) != 0)
		EmitErrorReport();
	strlcpy(last, message, LAST_MAX);
	worker_forget_error(context);
	return message;
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
		worker_forget_error(context);
	}
	PG_END_TRY();
}

/* A turn; how many ms until the next. */
static long
try_turn(MemoryContext context)
{
	static char last[LAST_MAX] = "";
	long		pause = sites_interval;
	volatile long wait = ALONE_PAUSE;
	char	   *volatile message = NULL;

	PG_TRY();
	{
		if (sites_turn(context, &pause))
			wait = pause;
		last[0] = '\0';
	}
	PG_CATCH();
	{
		message = take_error(context, last);
		wait = Max(sites_interval, FAILED_PAUSE);
	}
	PG_END_TRY();
	if (message)
		note_failure(context, message);
	return wait;
}

/* What others keep from us must not keep us from this, nor the reverse. */
static void
try_pressure(MemoryContext context)
{
	static char last[LAST_MAX] = "";
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < next)
		return;
	/* a moment less, since we sleep for whole milliseconds */
	next = TimestampTzPlusMilliseconds(now, PRESSURE_INTERVAL - 10);
	PG_TRY();
	{
		pressure_turn(context);
		last[0] = '\0';
	}
	PG_CATCH();
	{
		(void) take_error(context, last);
	}
	PG_END_TRY();
}

static long
try_files(MemoryContext context)
{
	static char last[LAST_MAX] = "";
	volatile long wait = FAILED_PAUSE;
	bool		looked;

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		wait = sites_files_turn(&looked);
		if (looked)
			last[0] = '\0';
	}
	PG_CATCH();
	{
		(void) take_error(context, last);
	}
	PG_END_TRY();
	return wait;
}

/*
 * Files come first, again after each turn: it may have waited for another
 * machine, and our latch been set meanwhile.
 */
static long
take_turn(MemoryContext context)
{
	static TimestampTz next = 0;
	long		wait;
	long		tell;

	try_pressure(context);
	wait = try_files(context);
	tell = sites_tell_pause();
	if (GetCurrentTimestamp() >= next || tell == 0)
	{
		next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   try_turn(context));
		return 0;
	}
	if (tell > 0)
		wait = Min(wait, tell);
	wait = Min(wait, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													 next));
	return Min(wait, PRESSURE_INTERVAL);
}

/* Locks are to be had until then. */
static void
leave(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&worker_shared->sites_pid, 0);
	fetch_leave();
	queue_forget_mine();
}

void
pg_narinfo_sites_main(Datum arg)
{
	(void) arg;
	pg_atomic_write_u32(&worker_shared->sites_pid, (uint32) MyProcPid);
	before_shmem_exit(leave, (Datum) 0);
	worker_take_turns("sites", compat_wait_event("PgNarinfoSites"), fetch_fd(),
					  take_turn);
}
