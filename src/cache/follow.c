/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  Reading events and narinfos for a follower, and changes(after,
 *	  max_rows, cache), which does so in SQL; see follow.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/follow.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/event.h"
#include "cache/row.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(changes);

struct Follower
{
	char	   *cache;
	EventScan  *events;
	ValidPathScan *paths;
	MemoryContext context;		/* of the event at hand */
};

void
follow_range(const char *cache, FollowRange *range)
{
	EventPosition last;

	event_read_last(cache, &last);
	range->last = last.seq;
	range->first = event_first_seq(cache);
}

Follower *
follow_begin(const char *cache, int64 after)
{
	Follower   *follower = palloc(sizeof(Follower));

	follower->cache = pstrdup(cache);
	follower->events = event_scan_begin(cache, after);
	follower->paths = valid_path_begin();
	follower->context = AllocSetContextCreate(CurrentMemoryContext,
											  "narinfo followed event",
											  ALLOCSET_DEFAULT_SIZES);
	return follower;
}

static void
read_event(TupleTableSlot *slot, FollowEvent *event)
{
	bool		isnull;
	Datum		value;

	slot_getallattrs(slot);
	event->seq = DatumGetInt64(slot->tts_values[EVENT_COLUMN_SEQ]);
	event->epoch = DatumGetInt32(slot->tts_values[EVENT_COLUMN_EPOCH]);
	event->at = DatumGetTimestampTz(slot->tts_values[EVENT_COLUMN_AT]);
	event->kind = DatumGetObjectId(slot->tts_values[EVENT_COLUMN_KIND]);
	event->label = event_kind_label(event->kind);
	value = slot_getattr(slot, EVENT_COLUMN_HASH + 1, &isnull);
	event->hash = isnull ? NULL : DatumGetStoreHash(value);
	value = slot_getattr(slot, EVENT_COLUMN_NAME + 1, &isnull);
	event->name = isnull ? NULL : TextDatumGetCString(value);
	value = slot_getattr(slot, EVENT_COLUMN_DIGEST + 1, &isnull);
	event->digest = (const uint8 *) VARDATA_ANY(DatumGetByteaPP(value));
}

bool
follow_next(Follower *follower, FollowEvent *event)
{
	TupleTableSlot *slot;
	MemoryContext old;

	/* the scans' memory is not to be taken from that of an event */
	slot = event_scan_next(follower->events, ForwardScanDirection);
	if (slot == NULL)
		return false;
	MemoryContextReset(follower->context);
	old = MemoryContextSwitchTo(follower->context);
	read_event(slot, event);
	event->info = NULL;
	if (event->hash != NULL && strcmp(event->label, "retract") != 0)
		event->info = valid_path_find(follower->paths, follower->cache,
									  event->hash);
	MemoryContextSwitchTo(old);
	return true;
}

void
follow_end(Follower *follower)
{
	MemoryContextDelete(follower->context);
	valid_path_end(follower->paths);
	event_scan_end(follower->events);
	pfree(follower);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

static void
check_arguments(const char *cache, int64 after, int32 max_rows)
{
	FollowRange range;

	if (after < 0 || max_rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes() wants a number of an event, or 0, and at least one row")));
	follow_range(cache, &range);
	if (!follow_may_resume(&range, after))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_BEHIND),
				 errmsg("event " INT64_FORMAT
						" of cache \"%s\" is not kept any more",
						after + 1, cache),
				 errdetail("The first event that is kept is " INT64_FORMAT ".",
						   range.first),
				 errhint("Start over from a checkpoint (narinfo.checkpoint_cache) of event "
						 INT64_FORMAT " or later.", range.first - 1)));
}

static void
put_event(ReturnSetInfo *result, const FollowEvent *event, bytea *digest)
{
	Datum		values[] = {
		Int64GetDatum(event->seq), Int32GetDatum(event->epoch),
		TimestampTzGetDatum(event->at), ObjectIdGetDatum(event->kind),
		PointerGetDatum(event->hash), (Datum) 0, PointerGetDatum(digest),
		PointerGetDatum(event->info)
	};
	bool		nulls[] = {
		false, false, false, false, event->hash == NULL, event->name == NULL,
		false, event->info == NULL
	};
	text	   *name = NULL;

	if (event->name)
	{
		name = cstring_to_text(event->name);
		values[5] = PointerGetDatum(name);
	}
	memcpy(VARDATA(digest), event->digest, DIGEST_LEN);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (name)
		pfree(name);
}

/* changes(after bigint, max_rows integer, cache text) */
Datum
changes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		after = PG_GETARG_INT64(0);
	int32		max_rows = PG_GETARG_INT32(1);
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(2));
	bytea	   *digest = palloc(VARHDRSZ + DIGEST_LEN);
	Follower   *follower;
	FollowEvent event;

	InitMaterializedSRF(fcinfo, 0);
	check_arguments(cache, after, max_rows);
	SET_VARSIZE(digest, VARHDRSZ + DIGEST_LEN);
	follower = follow_begin(cache, after);
	for (int32 n = 0; n < max_rows && follow_next(follower, &event); n++)
	{
		CHECK_FOR_INTERRUPTS();
		put_event(result, &event, digest);
	}
	follow_end(follower);
	return (Datum) 0;
}
