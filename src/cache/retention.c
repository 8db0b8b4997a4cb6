/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  Removing events that are old and that nobody needs any more.
 *
 * Events go from the first on, so what is left has no gap.  Kept are, however
 * old they are,
 *
 *	  those that the reverse index has not taken up yet
 *	  those that a logical replication slot of this database has not
 *		confirmed: the site behind it may ask for them yet
 *	  the last one, which has the number and the digest of the cache
 *
 * A slot that lags, or that nobody uses any more, keeps them all; PostgreSQL
 * keeps the write-ahead log for it, too.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/retention.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/event.h"
#include "cache/referrer.h"
#include "types/operators.h"

PG_FUNCTION_INFO_V1(cut_events);

#define DAY (24 * 60 * 60)		/* seconds */

#define LOCK_CLASS 0x4e54		/* see gate_lock_cache() */

static int	event_retention = 30 * DAY;

/* What may go: events that are all of these. */
typedef struct Bounds
{
	TimestampTz before;			/* written before */
	XLogRecPtr	confirmed;		/* by every slot */
	int64		last;			/* at most this number */
} Bounds;

void
retention_init(void)
{
	DefineCustomIntVariable("pg_narinfo.event_retention",
							"Time for which events are kept.",
							"0 keeps them for ever; none goes that a site or "
							"the reverse index has not seen.",
							&event_retention, 30 * DAY, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/*-------------------------------------------------------------------------
 * Who needs what
 *-------------------------------------------------------------------------
 */

/*
 * The position that every slot of this database has confirmed.  One that has
 * confirmed nothing yet is at the very beginning.
 */
static XLogRecPtr
confirmed_position(void)
{
	XLogRecPtr	least = PG_UINT64_MAX;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		SpinLockAcquire(&slot->mutex);
		if (slot->in_use && slot->data.database == MyDatabaseId)
			least = Min(least, slot->data.confirmed_flush);
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return least;
}

/* Two that cut the same events would be in each other's way. */
static bool
lock_events(const char *cache)
{
	uint64		hash = hash_bytes_xxh3(cache, strlen(cache), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/*-------------------------------------------------------------------------
 * Cutting
 *-------------------------------------------------------------------------
 */

static bool
may_go(TupleTableSlot *slot, const Bounds *bounds)
{
	slot_getallattrs(slot);
	return DatumGetInt64(slot->tts_values[EVENT_COLUMN_SEQ]) <= bounds->last &&
		DatumGetTimestampTz(slot->tts_values[EVENT_COLUMN_AT]) <
		bounds->before &&
		DatumGetLSN(slot->tts_values[EVENT_COLUMN_LSN]) < bounds->confirmed;
}

/*
 * The system catalogs' way of deleting rows, which fires nothing: the guard
 * of the table is for everybody else.
 */
static int64
cut(const char *cache, const Bounds *bounds, int64 max_events)
{
	Relation	rel = table_open(cache_catalog()->event_rel, RowExclusiveLock);
	EventScan  *scan = event_scan_begin(cache, 0);
	TupleTableSlot *slot;
	int64		n = 0;

	while (n < max_events &&
		   (slot = event_scan_next(scan, ForwardScanDirection)) != NULL &&
		   may_go(slot, bounds))
	{
		CHECK_FOR_INTERRUPTS();
		simple_heap_delete(rel, &slot->tts_tid);
		n++;
	}
	event_scan_end(scan);
	table_close(rel, NoLock);
	/* a further call of the same command must not see them */
	CommandCounterIncrement();
	return n;
}

int64
retention_cut(const char *cache, TimestampTz before, int64 max_events)
{
	Bounds		bounds = {.before = before};
	EventPosition last;
	int64		n = 0;

	if (!lock_events(cache))
		return 0;
	/* before the snapshot: what is confirmed by now is seen by it */
	bounds.confirmed = confirmed_position();
	/* what the one before has committed must be seen */
	PushActiveSnapshot(GetLatestSnapshot());
	event_read_last(cache, &last);
	bounds.last = Min(last.seq - 1, referrer_seq(cache));
	if (bounds.last > 0)
		n = cut(cache, &bounds, max_events);
	PopActiveSnapshot();
	return n;
}

int64
retention_follow(const char *cache, int64 max_events)
{
	TimestampTz now = GetCurrentTimestamp();

	if (event_retention == 0)
		return 0;
	return retention_cut(cache, now - (TimestampTz) event_retention *
						 USECS_PER_SEC, max_events);
}

/* cut_events(older_than interval, max_events bigint, cache text) -> bigint */
Datum
cut_events(PG_FUNCTION_ARGS)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	Datum		before = DirectFunctionCall2(timestamptz_mi_interval, now,
											 PG_GETARG_DATUM(0));

	PG_RETURN_INT64(retention_cut(text_to_cstring(PG_GETARG_TEXT_PP(2)),
								  DatumGetTimestampTz(before),
								  PG_GETARG_INT64(1)));
}
