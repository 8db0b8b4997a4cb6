/*-------------------------------------------------------------------------
 *
 * pace.c
 *	  Long work that leaves the processors to those who publish; see pace.h.
 *
 * Who reads a whole cache has a processor full, and one more with its parallel
 * worker; on a small server, commits beside it take several times as long.  So
 * it works in slices, and rests after each in which somebody else has begun to
 * write: a transaction ID was given out, and we have had ours.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/pace.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"

#include "compat.h"

#define SLICE_MS	10
#define REST_MS_MAX 1000

static double pace_share = 1;
static instr_time slice_start;
static uint64 next_xid;

static void
start_slice(void)
{
	next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	INSTR_TIME_SET_CURRENT(slice_start);
}

void
pace_begin(double share)
{
	pace_share = share;
	if (share >= 1)
		return;
	(void) GetTopTransactionId();
	start_slice();
}

void
pace_rest(double worked, double share)
{
	long		wait = (long) Min(worked * (1 / share - 1), REST_MS_MAX);

	if (wait > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, wait,
						 compat_wait_event("PgNarinfoCollection"));
		ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
}

void
pace(void)
{
	instr_time	now;
	double		worked;

	if (pace_share >= 1)
		return;
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, slice_start);
	worked = INSTR_TIME_GET_MILLISEC(now);
	if (worked < SLICE_MS)
		return;
	if (U64FromFullTransactionId(ReadNextFullTransactionId()) != next_xid)
		pace_rest(worked, pace_share);
	start_slice();
}
