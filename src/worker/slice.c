/*-------------------------------------------------------------------------
 *
 * slice.c
 *	  The time slice of an HTTP worker.
 *
 * Beside busy processes, a pg_dump say, a worker that wakes for a request
 * waits until the one that has the processor has used its slice, some
 * milliseconds, which is a hundred times as long as the answer takes.  Linux
 * 6.12 and newer lets a process ask for shorter slices, without any right:
 * those who have them get no more of the processor, but get it sooner (EEVDF,
 * PREEMPT_SHORT).  Older kernels ignore the wish.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/slice.h"

#define SLICE	500000			/* ns */

/* From linux/sched.h, which does not go together with sched.h. */
#define POLICY_NORMAL 0

void
worker_shorten_slice(void)
{
	struct sched_attr attr = {.size = sizeof(attr)};

	/* whoever gave the server another policy knows better */
	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) != 0 ||
		attr.sched_policy != POLICY_NORMAL)
		return;
	attr.size = sizeof(attr);
	attr.sched_runtime = SLICE;
	(void) syscall(SYS_sched_setattr, 0, &attr, 0);
}
