/*-------------------------------------------------------------------------
 *
 * writer_copies.c
 *	  Pushed narinfos that are published, and wait to be on other sites
 *	  (push_copies of their cache) before they are answered.
 *
 *	  published ---> kept aside: the event to wait for is found, and counted
 *							  |
 *		  a slot has passed it, or LOOK_PAUSE is over: counted again
 *							  |
 *		  enough, or push_wait is over ---> answered
 *
 * They are in nobody's way: the writer goes on to publish others, and looks at
 * the slots every COPIES_PAUSE as long as some wait.  What was there already
 * waits for the last event of its cache.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "sites/watermark.h"
#include "worker/writer.h"

#define LOOK_PAUSE	100			/* ms: for votes, and sites further below */
#define FAILED_PAUSE 1000		/* ms after an error */

static HeldJob **waiting = NULL;
static int	nwaiting = 0;
static TimestampTz next_look = 0;
static TimestampTz failed_until = 0;

void
writer_copies_ask(HeldJob *held, const CachePolicies *policies)
{
	HeldCopies *copies = &held->copies;

	if (policies->push_copies == 0 || held->job.kind != JOB_PUBLISH)
		return;
	copies->policies = *policies;
	copies->late_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  policies->push_wait);
	held->result.asked = policies->push_copies;
	held->state = HELD_COPIES;
}

/* There are never more of them than places in the queue. */
void
writer_copies_keep(HeldJob *held)
{
	if (waiting == NULL)
		waiting = MemoryContextAlloc(TopMemoryContext,
									 sizeof(HeldJob *) * (Size) queue_size);
	Assert(nwaiting < queue_size);
	waiting[nwaiting++] = held;
}

long
writer_copies_pause(void)
{
	return nwaiting > 0 ? COPIES_PAUSE : -1;
}

/* ---- looking ---- */

static bool
is_known(const HeldJob *held)
{
	return held->copies.target.cache[0] != '\0';
}

static bool
is_due(const HeldJob *held, bool look_at_all)
{
	return look_at_all || !is_known(held) ||
		copies_passed(held->copies.target.lsn);
}

static bool
same_target(const HeldJob *a, const HeldJob *b)
{
	return a->copies.target.seq == b->copies.target.seq &&
		strcmp(a->job.cache, b->job.cache) == 0;
}

/* Those of one transaction stand side by side. */
static void
count(HeldJob *held, const HeldJob *before)
{
	int			voters;

	if (before != NULL && same_target(held, before))
	{
		held->result.copies = before->result.copies;
		return;
	}
	held->result.copies = copies_count(&held->copies.target, &voters);
	watermark_note(held->job.cache, held->copies.target.seq,
				   held->result.copies);
}

/* "fresh" is one whose event was found by this look, or NULL. */
static void
find_target(HeldJob *held, const HeldJob *fresh)
{
	if (fresh != NULL && strcmp(fresh->job.cache, held->job.cache) == 0)
		held->copies.target = fresh->copies.target;
	else
		copies_find(held->job.cache, 0, &held->copies.target);
}

static void
look_at_each(bool look_at_all)
{
	HeldJob    *before = NULL;
	HeldJob    *fresh = NULL;

	for (int i = 0; i < nwaiting; i++)
	{
		HeldJob    *held = waiting[i];

		CHECK_FOR_INTERRUPTS();
		if (!is_due(held, look_at_all))
			continue;
		if (!is_known(held))
		{
			find_target(held, fresh);
			fresh = held;
		}
		count(held, before);
		before = held;
	}
}

static void
try_look(bool look_at_all)
{
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (cache_catalog() != NULL)
			look_at_each(look_at_all);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		writer_job_failed(NULL);
		failed_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   FAILED_PAUSE);
	}
	PG_END_TRY();
}

/* ---- answering ---- */

static void
answer_late(HeldJob *held)
{
	const HeldCopies *copies = &held->copies;
	JobResult  *result = &held->result;

	if (copies->policies.refuse_late)
		held_answer(held, 409,
					"it is published, as event " INT64_FORMAT " or before, "
					"but %d of %d other sites have it after %d ms. It stays, "
					"and comes to them when they can be reached: "
					"CALL narinfo.wait_copies(" INT64_FORMAT ", %d, "
					"cache => '%s') tells",
					copies->target.seq, result->copies, result->asked,
					(int) copies->policies.push_wait, copies->target.seq,
					result->asked, held->job.cache);
	else
		held_answer(held, held->existed ? 200 : 201,
					"published; %d of %d other sites have it so far",
					result->copies, result->asked);
}

/* True when it is to be answered. */
static bool
is_over(HeldJob *held, TimestampTz now)
{
	if (held->result.copies >= held->result.asked)
		held_answer(held, held->existed ? 200 : 201, "%s",
					held->existed ? "it was there" : "published");
	else if (now >= held->copies.late_at)
		answer_late(held);
	return held->state == HELD_DONE;
}

static bool
any_due(bool look_at_all)
{
	for (int i = 0; i < nwaiting; i++)
	{
		if (is_due(waiting[i], look_at_all))
			return true;
	}
	return false;
}

static bool
any_late(TimestampTz now)
{
	for (int i = 0; i < nwaiting; i++)
	{
		if (now >= waiting[i]->copies.late_at)
			return true;
	}
	return false;
}

void
writer_copies_look(void (*answer) (HeldJob *held))
{
	TimestampTz now = GetCurrentTimestamp();
	bool		look_at_all;
	int			kept = 0;

	if (nwaiting == 0)
		return;
	copies_read_slots();
	look_at_all = now >= next_look || any_late(now);
	if (now >= failed_until && any_due(look_at_all))
	{
		try_look(look_at_all);
		if (look_at_all)
			next_look = TimestampTzPlusMilliseconds(now, LOOK_PAUSE);
	}
	for (int i = 0; i < nwaiting; i++)
	{
		if (is_over(waiting[i], now))
			answer(waiting[i]);
		else
			waiting[kept++] = waiting[i];
	}
	nwaiting = kept;
}
