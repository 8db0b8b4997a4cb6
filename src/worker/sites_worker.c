/*-------------------------------------------------------------------------
 *
 * sites_worker.c
 *	  The worker of sites: a background worker that does what a server owes to
 *	  the other sites, again and again (src/sites/sites.h says what).
 *
 *	  launcher ──> sites worker:	a turn, wait pg_narinfo.site_interval
 *									an error: noted, and the next turn later
 *
 * It is no part of the janitor, since it waits for other machines.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "sites/sites.h"
#include "worker/worker.h"

#define ALONE_PAUSE 5000		/* ms */
#define FAILED_PAUSE 5000		/* ms, at least */

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
		worker_forget_error(context);
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
		worker_forget_error(context);
		wait = Max(sites_interval, FAILED_PAUSE);
	}
	PG_END_TRY();
	if (message)
		note_failure(context, message);
	return wait;
}

void
pg_narinfo_sites_main(Datum arg)
{
	(void) arg;
	worker_take_turns("sites", compat_wait_event("PgNarinfoSites"), try_turn);
}
