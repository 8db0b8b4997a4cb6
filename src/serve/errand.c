/*-------------------------------------------------------------------------
 *
 * errand.c
 *	  Requests that wait for writer workers.
 *
 * While one waits, here or in the queue, nothing is held for it but its
 * request, and the other requests go on.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "serve/errand.h"
#include "serve/serve.h"

/* So long one waits for a writer before the client is sent away, ms. */
#define PATIENCE	30000

#define LOOK_PAUSE	1000		/* ms between looks when nobody wakes us */

static dlist_head waiting = DLIST_STATIC_INIT(waiting);

/* False as long as the queue has no room, or nobody takes from it. */
static bool
submit(Errand *errand)
{
	errand->submitted = job_submit(&errand->job, errand->text,
								   &errand->ticket) == JOB_ROOM;
	return errand->submitted;
}

void
errand_begin(Errand *errand)
{
	errand->give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  PATIENCE);
	(void) submit(errand);
	dlist_push_tail(&waiting, &errand->node);
}

static void
finish(Errand *errand, const JobResult *result)
{
	dlist_delete(&errand->node);
	errand->done(errand, result);
}

static void
look_after(Errand *errand, TimestampTz now)
{
	JobResult	result = {
		.status = 503, .reason = "no writer worker had time for it"
	};

	if (errand->submitted && job_poll(&errand->ticket, &result))
	{
		finish(errand, &result);
		return;
	}
	if (!errand->submitted && submit(errand))
		return;
	if (now < errand->give_up)
		return;
	if (errand->submitted)
	{
		/* a writer that is at it will end, well or not */
		if (!job_cancel(&errand->ticket))
			return;
		errand->submitted = false;
	}
	finish(errand, &result);
}

bool
serve_errands(bool woken)
{
	static TimestampTz next_look = 0;
	dlist_mutable_iter iter;
	TimestampTz now;

	if (dlist_is_empty(&waiting))
		return false;
	now = GetCurrentTimestamp();
	if (!woken && now < next_look)
		return true;
	next_look = TimestampTzPlusMilliseconds(now, LOOK_PAUSE);
	dlist_foreach_modify(iter, &waiting)
	{
		look_after(dlist_container(Errand, node, iter.cur), now);
	}
	serve_finish();
	return !dlist_is_empty(&waiting);
}
