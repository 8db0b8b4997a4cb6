/*-------------------------------------------------------------------------
 *
 * interrupts.c
 *	  What PostgreSQL asks of a process while it has no transaction.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/sinval.h"

#include "worker/worker.h"

/*
 * A query that is to be cancelled is over by now, and nothing else that may
 * be asked here is a reason to go, but for what is FATAL.
 */
void
worker_interrupts(void)
{
	if (InterruptPending)
	{
		PG_TRY();
		{
			QueryCancelPending = false;
			CHECK_FOR_INTERRUPTS();
		}
		PG_CATCH();
		{
			FlushErrorState();
		}
		PG_END_TRY();
	}

	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
}
