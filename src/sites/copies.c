/*-------------------------------------------------------------------------
 *
 * copies.c
 *	  How many other sites have an event on disk; wait_copies().
 *
 * An event is on a mirror when its whole transaction is.  The mirror's slot
 * here tells that once it has confirmed the end of the commit record, for the
 * subscription applies in the order of the commits, flushes
 * (synchronous_commit = local), and confirms afterwards.  The position that we
 * ask for is one of
 *
 *	  the end of its commit record		as long as that is remembered
 *	  the lsn of a later event, of		it was written under the cache's lock,
 *	  another transaction and of this	when the commit before it had ended
 *	  server's epoch
 *	  the end of what is flushed, as	what is visible was flushed before;
 *	  of now							walsenders have idle mirrors confirm
 *										that, too
 *
 * Never the lsn of an event of the same transaction: a mirror confirms what it
 * has received of a transaction that it has not yet committed.
 *
 * Who has a vote is asked after the positions were read, and every time, so
 * nothing counts of a site that has been dismissed, joins anew, or was found
 * unequal; see copy_voters().  Where the cache says so (copies_include_files),
 * a site has an event when it also tells that it has the files up to it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/copies.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/event.h"
#include "cache/node.h"
#include "cache/transfer.h"

PG_FUNCTION_INFO_V1(wait_copies);
PG_FUNCTION_INFO_V1(copies_told);

/* So many events are looked through for one of another transaction. */
#define EVENTS_MAX 1000

/* ms between looks when no slot has moved: votes, and sites further below. */
#define LOOK_PAUSE 100

#define COPIES_MAX 1000
#define DAYS_MAX 10000			/* who waits longer waits without an end */

static bool told = false;		/* copies_told() was called */

static void
note_end(XactEvent event, void *arg)
{
	(void) arg;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (event_written && event == XACT_EVENT_COMMIT)
		copies_remember_commit(GetTopTransactionIdIfAny(), XactLastCommitEnd);
	if (event_applied && event == XACT_EVENT_COMMIT)
		copies_wake_follower();
	if (told && event == XACT_EVENT_COMMIT)
		copies_look_again();
	event_written = event_applied = told = false;
}

/* copies_told() */
Datum
copies_told(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	told = true;
	PG_RETURN_VOID();
}

void
copies_init(void)
{
	RegisterXactCallback(note_end, NULL);
}

/*-------------------------------------------------------------------------
 * The position of an event
 *-------------------------------------------------------------------------
 */

static Datum
event_value(TupleTableSlot *slot, int column)
{
	bool		isnull;

	return slot_getattr(slot, column + 1, &isnull);
}

static int64
event_seq(TupleTableSlot *slot)
{
	return DatumGetInt64(event_value(slot, EVENT_COLUMN_SEQ));
}

static TransactionId
event_xid(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber,
									   &isnull);

	return DatumGetTransactionId(xmin);
}

/* The last event's number and its transaction. */
static void
find_last(const char *cache, CopiesTarget *target, TransactionId *xid)
{
	EventScan  *scan = event_scan_begin(cache, 0);
	TupleTableSlot *slot = event_scan_next(scan, BackwardScanDirection);

	target->seq = slot ? event_seq(slot) : 0;
	*xid = slot ? event_xid(slot) : InvalidTransactionId;
	event_scan_end(scan);
}

/*
 * The lsn of the first later event of another transaction, 0 if there is
 * none.  If the event itself is not kept any more, what follows it may be of
 * its transaction.
 */
static XLogRecPtr
find_later(const CopiesTarget *target, TransactionId *xid)
{
	EventScan  *scan = event_scan_begin(target->cache, target->seq - 1);
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	TupleTableSlot *slot;

	*xid = InvalidTransactionId;
	for (int n = 0; n < EVENTS_MAX && lsn == InvalidXLogRecPtr; n++)
	{
		CHECK_FOR_INTERRUPTS();
		slot = event_scan_next(scan, ForwardScanDirection);
		if (slot == NULL)
			break;
		if (n == 0)
			*xid = event_xid(slot);
		else if (event_xid(slot) != *xid &&
				 DatumGetInt32(event_value(slot, EVENT_COLUMN_EPOCH)) ==
				 node_epoch())
			lsn = DatumGetLSN(event_value(slot, EVENT_COLUMN_LSN));
	}
	event_scan_end(scan);
	return lsn;
}

void
copies_find(const char *cache, int64 seq, CopiesTarget *target)
{
	TransactionId xid;
	XLogRecPtr	later = InvalidXLogRecPtr;

	strlcpy(target->cache, cache, sizeof(target->cache));
	target->seq = seq;
	if (seq == 0)
		find_last(cache, target, &xid);
	else
		later = find_later(target, &xid);
	target->lsn = copies_recall_commit(xid);
	if (target->lsn == InvalidXLogRecPtr)
		target->lsn = later;
	if (target->lsn == InvalidXLogRecPtr && target->seq > 0)
		target->lsn = GetFlushRecPtr(NULL);
}

/*-------------------------------------------------------------------------
 * Counting
 *-------------------------------------------------------------------------
 */

typedef struct SlotPosition
{
	NameData	name;
	XLogRecPtr	lsn;
} SlotPosition;

/* Of the logical slots of this database that have not been lost. */
static SlotPosition *
read_positions(int *n)
{
	SlotPosition *positions = palloc(sizeof(SlotPosition) *
									 Max(max_replication_slots, 1));

	*n = 0;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		SlotPosition *position = &positions[*n];

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		if (slot->data.database == MyDatabaseId &&
			slot->data.restart_lsn != InvalidXLogRecPtr)
		{
			position->name = slot->data.name;
			position->lsn = slot->data.confirmed_flush;
			(*n)++;
		}
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return positions;
}

static bool
has_confirmed(const SlotPosition *positions, int n, Name slot, XLogRecPtr lsn)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(NameStr(positions[i].name), NameStr(*slot)) == 0)
			return positions[i].lsn >= lsn;
	}
	return false;
}

/* A site with a vote, as copy_voters() tells of it. */
typedef struct Voter
{
	Datum		slot;
	Datum		seq;
	Datum		files;
	bool		no_slot;		/* it mirrors another one, and tells "seq" */
	bool		no_seq;
	bool		no_files;		/* the cache does not ask for them */
} Voter;

static void
read_voter(HeapTuple row, TupleDesc desc, Voter *voter)
{
	voter->slot = SPI_getbinval(row, desc, 1, &voter->no_slot);
	voter->seq = SPI_getbinval(row, desc, 2, &voter->no_seq);
	voter->files = SPI_getbinval(row, desc, 3, &voter->no_files);
}

/* Is the event there, with what the cache says belongs to it? */
static bool
has_event(const Voter *voter, const CopiesTarget *target,
		  const SlotPosition *positions, int npositions)
{
	if (!voter->no_files && DatumGetInt64(voter->files) < target->seq)
		return false;
	if (voter->no_slot)
		return !voter->no_seq && DatumGetInt64(voter->seq) >= target->seq;
	return has_confirmed(positions, npositions, DatumGetName(voter->slot),
						 target->lsn);
}

/* The sites with a vote for a cache, into SPI_tuptable: see read_voter(). */
static void
ask_voters(const char *cache)
{
	static SPIPlanPtr plan = NULL;
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(cache);

	if (plan == NULL)
	{
		plan = SPI_prepare("SELECT v.slot, v.seq, v.files "
						   "FROM narinfo.copy_voters($1) AS v", 1, &type);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not ask who has a vote");
	}
	/* as of the active snapshot, whatever the isolation level */
	if (SPI_execute_plan(plan, &name, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not ask who has a vote");
}

int
copies_count(const CopiesTarget *target, int *voters)
{
	int			npositions;
	SlotPosition *positions = read_positions(&npositions);
	CacheUser	user = cache_become_owner();
	int			n = 0;

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	ask_voters(target->cache);
	*voters = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Voter		voter;

		read_voter(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &voter);
		n += has_event(&voter, target, positions, npositions) ? 1 : 0;
	}
	SPI_finish();
	PopActiveSnapshot();
	cache_become_user(user);
	pfree(positions);
	return n;
}

/*-------------------------------------------------------------------------
 * wait_copies()
 *-------------------------------------------------------------------------
 */

typedef struct Wait
{
	char	   *cache;
	int64		seq;
	int32		copies;
	TimestampTz end;			/* DT_NOEND: none */
	CopiesTarget target;
	int			confirmed;
} Wait;

static void
refuse_arguments(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message)));
}

/* When a wait of this length ends; years are no reason for an error. */
static TimestampTz
end_of(const Interval *length)
{
	static const Interval none = {0};
	TimestampTz start = GetCurrentTimestamp();
	Datum		negative = DirectFunctionCall2(interval_lt,
											   IntervalPGetDatum(length),
											   IntervalPGetDatum(&none));

	if (DatumGetBool(negative))
		refuse_arguments("wait_copies cannot wait for a negative time");
	if (length->month != 0 || length->day > DAYS_MAX ||
		length->time > DAYS_MAX * USECS_PER_DAY)
		return DT_NOEND;
	return start + length->day * USECS_PER_DAY + length->time;
}

static void
read_arguments(FunctionCallInfo fcinfo, Wait *wait)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("wait_copies wants an event, a number of copies and a cache, not NULL")));
	wait->seq = PG_GETARG_INT64(0);
	wait->copies = PG_GETARG_INT32(1);
	wait->cache = text_to_cstring(PG_GETARG_TEXT_PP(4));
	if (wait->seq < 0)
		refuse_arguments("the number of an event is not negative");
	if (wait->copies < 0 || wait->copies > COPIES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("one can wait for 0 to %d copies, not %d",
						COPIES_MAX, wait->copies)));
	wait->end = PG_ARGISNULL(2) ? DT_NOEND : end_of(PG_GETARG_INTERVAL_P(2));
}

/* Others do not know who has what is published here. */
static void
check_state(void)
{
	NodeState	state;

	if (cache_catalog() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the tables of pg_narinfo are not complete")));
	state = node_state();
	if (state == NODE_MIRROR)
	{
		const char *detail = node_mirror_detail ? node_mirror_detail() : NULL;

		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_MIRROR),
				 errmsg("copies are counted by the primary, and this server is a mirror"),
				 detail ? errdetail("%s", detail) : 0));
	}
	if (state == NODE_STANDBY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("copies are counted by the primary, and this server is in recovery")));
	node_check_fence();
}

static void
check_event(const Wait *wait)
{
	CacheInfo	info;
	EventPosition last;

	cache_require(wait->cache, &info);
	event_read_last(wait->cache, &last);
	if (wait->seq > last.seq)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_BEHIND),
				 errmsg("cache \"%s\" has no event " INT64_FORMAT,
						wait->cache, wait->seq),
				 errdetail("Its last event is " INT64_FORMAT ".", last.seq),
				 errhint("Has the transaction that publishes been committed?")));
}

static void
begin_wait(Wait *wait)
{
	PushActiveSnapshot(GetLatestSnapshot());
	check_state();
	check_event(wait);
	if (wait->seq > 0)
		copies_find(wait->cache, wait->seq, &wait->target);
	else
		strlcpy(wait->target.cache, wait->cache, sizeof(wait->target.cache));
	PopActiveSnapshot();
}

/* Commits, and so leaves no snapshot and no lock. */
static void
look(Wait *wait, bool first)
{
	MemoryContext old = CurrentMemoryContext;
	int			voters;

	if (!first)
		check_state();
	wait->confirmed = copies_count(&wait->target, &voters);
	SPI_commit();
	MemoryContextSwitchTo(old);
	if (first && voters < wait->copies)
		ereport(NOTICE,
				(errmsg_plural("only %d site has a vote for cache \"%s\" now",
							   "only %d sites have a vote for cache \"%s\" now",
							   voters, voters, wait->cache),
				 errhint("See narinfo.stat_copies.")));
}

/* ms until the next look, when no slot moves before. */
static long
pause_before_look(const Wait *wait)
{
	if (wait->end == DT_NOEND)
		return LOOK_PAUSE;
	return Min(LOOK_PAUSE,
			   TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
											   wait->end));
}

static void
wait_for(Wait *wait)
{
	copies_watch(wait->target.lsn);
	PG_TRY();
	{
		look(wait, true);
		while (wait->confirmed < wait->copies)
		{
			long		ms = pause_before_look(wait);

			if (ms <= 0)
				break;
			copies_sleep(ms);
			look(wait, false);
		}
	}
	PG_FINALLY();
	{
		copies_unwatch();
	}
	PG_END_TRY();
}

/* The one output of the procedure, as a row. */
static Datum
make_result(FunctionCallInfo fcinfo, int confirmed)
{
	TupleDesc	desc;
	Datum		value = Int32GetDatum(confirmed);
	bool		isnull = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "wait_copies() has no row as its result");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value,
											 &isnull));
}

/* wait_copies(seq, copies, wait_at_most, INOUT confirmed, cache) */
Datum
wait_copies(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	Wait		wait = {0};

	procedure_check_block(fcinfo, "wait_copies");
	read_arguments(fcinfo, &wait);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	MemoryContextSwitchTo(context);
	begin_wait(&wait);
	wait_for(&wait);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	MemoryContextSwitchTo(context);
	return make_result(fcinfo, wait.confirmed);
}
