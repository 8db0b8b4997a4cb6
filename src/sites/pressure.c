/*-------------------------------------------------------------------------
 *
 * pressure.c
 *	  Overload means delay, then refusals, then slots that are dropped: never
 *	  a disk that is full, nor the loss of what was acknowledged.
 *
 * What a mirror has not confirmed is kept for it in pg_wal, as long as there
 * is room, be it for a weekend.  When that fills up PostgreSQL stops with a
 * PANIC, so the worker of sites looks every second (pressure_measure.c):
 *
 *	 free in pg_wal		kept for a mirror	level
 *	 2 * wal_reserve	max_retained_wal/2	delay	more and more, to a second
 *	 wal_reserve		max_retained_wal	refuse	nothing is published
 *	 wal_reserve / 2	2*max_retained_wal	drop	slots go that may go:
 *												pressure_room.c
 *
 * A level is left only when there is a tenth more room than where it begins,
 * and slots are never dropped in the second in which refusing begins.
 *
 * The level lies in shared memory, and a trigger that comes before each
 * statement that writes valid_path or root looks at it: before the transaction
 * has locked a row, or at its end a cache.  Delayed and refused is what adds
 * to a cache and may come in any amount: INSERT and UPDATE there.  What takes
 * out of it passes, so that somebody can make room where files and pg_wal
 * share a disk, until half of the reserve is used up; a removal makes
 * write-ahead log, too.  The other tables (caches, keys, tokens, quotas)
 * always pass: rows are few there, and a token must be revocable.  So do
 * dismiss_site() and what replication applies, or a restore.
 *
 * Workers that publish for others delay themselves, outside of transactions.
 * Without shared_preload_libraries there is no shared memory and no worker,
 * so nothing is watched.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/pressure.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "cache/node.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(pressure_admit);
PG_FUNCTION_INFO_V1(pressure_status);

#define DELAY_MAX	1000		/* ms */
#define MARGIN		0.1			/* of hysteresis */

#define RETRY_ACTIVE 5			/* s: the mirror is catching up */
#define RETRY_IDLE	 60			/* it is away, so nobody knows */

#define MEGABYTE (1024.0 * 1024.0)

#define NOT_PUBLISHED \
"nothing is published now: too much write-ahead log has to be kept for mirrors"
#define NOT_REMOVED \
"nothing is removed now: no room is left for write-ahead log"

typedef struct PressureShared
{
	pg_atomic_uint32 level;		/* PressureLevel */
	pg_atomic_uint32 database;	/* that is watched; 0: nobody watches */
	pg_atomic_uint32 delay;		/* ms */
	pg_atomic_uint32 full;		/* not even removals are let in */
	pg_atomic_uint64 delayed;	/* publishes since the server was started */
	pg_atomic_uint64 refused;
	pg_atomic_uint64 dropped;	/* slots */
	slock_t		mutex;			/* of all below */
	TimestampTz since;			/* of the level */
	PressureMeasure measure;
} PressureShared;

int			pressure_reserve = 512;
int			pressure_max_retained = 0;
int			pressure_drops = PRESSURE_DROPS_NON_VOTERS;
bool		pressure_waits_itself = false;

static PressureShared *shared = NULL;

/* This transaction was delayed. */
static bool waited = false;

static const struct config_enum_entry drop_options[] = {
	{"none", PRESSURE_DROPS_NONE, false},
	{"non_voters", PRESSURE_DROPS_NON_VOTERS, false},
	{"all", PRESSURE_DROPS_ALL, false},
	{NULL, 0, false}
};

static const char *const level_names[] = {
	[PRESSURE_NONE] = "none",
	[PRESSURE_DELAY] = "delay",
	[PRESSURE_REFUSE] = "refuse",
	[PRESSURE_DROP] = "drop"
};

/*-------------------------------------------------------------------------
 * Settings and shared memory
 *-------------------------------------------------------------------------
 */

static void
at_xact_event(XactEvent event, void *arg)
{
	(void) arg;
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		waited = false;
}

void
pressure_init(void)
{
	DefineCustomIntVariable("pg_narinfo.wal_reserve",
							"Space that publishing leaves free where pg_wal "
							"lies.",
							"Below it nothing is published, below twice as "
							"much later, and below half of it slots are "
							"dropped. 0: none.",
							&pressure_reserve, 512, 0, MAX_KILOBYTES / 4,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_retained_wal",
							"Write-ahead log that may be kept for a mirror.",
							"Above it nothing is published, above half of it "
							"later, and above twice as much slots are "
							"dropped. 0: as much as there is room for.",
							&pressure_max_retained, 0, 0, MAX_KILOBYTES / 4,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_narinfo.drop_slots",
							 "Whose slots are dropped when that is needed.",
							 "Of mirrors without a vote, of none, or, when "
							 "those are not enough, of all.",
							 &pressure_drops, PRESSURE_DROPS_NON_VOTERS,
							 drop_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	RegisterXactCallback(at_xact_event, NULL);
}

Size
pressure_shmem_size(void)
{
	return MAXALIGN(sizeof(PressureShared));
}

void
pressure_shmem_init(bool found)
{
	bool		found_ours;

	shared = ShmemInitStruct("pg_narinfo pressure", sizeof(PressureShared),
							 &found_ours);
	if (found)
		return;
	memset(shared, 0, sizeof(PressureShared));
	pg_atomic_init_u32(&shared->level, PRESSURE_NONE);
	pg_atomic_init_u32(&shared->database, InvalidOid);
	pg_atomic_init_u32(&shared->delay, 0);
	pg_atomic_init_u32(&shared->full, 0);
	pg_atomic_init_u64(&shared->delayed, 0);
	pg_atomic_init_u64(&shared->refused, 0);
	pg_atomic_init_u64(&shared->dropped, 0);
	SpinLockInit(&shared->mutex);
}

/* Of this database; costs a read where there is none. */
static PressureLevel
level_now(void)
{
	PressureLevel level;

	if (shared == NULL)
		return PRESSURE_NONE;
	level = (PressureLevel) pg_atomic_read_u32(&shared->level);
	if (level != PRESSURE_NONE &&
		pg_atomic_read_u32(&shared->database) != MyDatabaseId)
		level = PRESSURE_NONE;
	return level;
}

/*-------------------------------------------------------------------------
 * Levels
 *-------------------------------------------------------------------------
 */

static PressureLevel
level_of(double space, double retained)
{
	double		reserve = pressure_reserve * MEGABYTE;
	double		max = pressure_max_retained * MEGABYTE;

	if ((reserve > 0 && space < reserve / 2) ||
		(max > 0 && retained > max * 2))
		return PRESSURE_DROP;
	if ((reserve > 0 && space < reserve) || (max > 0 && retained > max))
		return PRESSURE_REFUSE;
	if ((reserve > 0 && space < reserve * 2) ||
		(max > 0 && retained > max / 2))
		return PRESSURE_DELAY;
	return PRESSURE_NONE;
}

/* As things are, and without the margin. */
static PressureLevel
level_measured(const PressureMeasure *measure)
{
	return measure->mirrors == 0 ? PRESSURE_NONE :
		level_of((double) measure->free, (double) measure->retained);
}

/* It rises at once, but not over refusing, and falls with a margin. */
static PressureLevel
next_level(const PressureMeasure *measure, PressureLevel now)
{
	PressureLevel level = level_measured(measure);

	if (measure->mirrors == 0)
		return PRESSURE_NONE;
	if (level == PRESSURE_DROP && now < PRESSURE_REFUSE)
		return PRESSURE_REFUSE;
	if (level >= now)
		return level;
	level = level_of(measure->free * (1 - MARGIN),
					 measure->retained * (1 + MARGIN));
	return Min(level, now);
}

/* From nothing, where delaying begins, to DELAY_MAX where refusing does. */
static uint32
delay_of(const PressureMeasure *measure)
{
	double		reserve = pressure_reserve * MEGABYTE;
	double		max = pressure_max_retained * MEGABYTE;
	double		share = 0;

	if (reserve > 0)
		share = Max(share, 2 - measure->free / reserve);
	if (max > 0)
		share = Max(share, 2 * (measure->retained / max) - 1);
	return (uint32) (Min(share, 1) * DELAY_MAX);
}

static char *
size_text(uint64 size)
{
	Datum		bytes = Int64GetDatum((int64) size);

	return TextDatumGetCString(DirectFunctionCall1(pg_size_pretty, bytes));
}

/* The numbers, in words. */
static char *
describe(const PressureMeasure *measure)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s are free for pg_wal",
					 size_text(measure->free));
	if (pressure_reserve > 0)
		appendStringInfo(&text, " (pg_narinfo.wal_reserve is %s)",
						 size_text((uint64) pressure_reserve << 20));
	appendStringInfo(&text,
					 ", slot \"%s\" of site \"%s\", which is %s, keeps %s",
					 measure->slot, pressure_site(measure->slot),
					 measure->active ? "connected" : "away",
					 size_text(measure->retained));
	if (pressure_max_retained > 0)
		appendStringInfo(&text, " (pg_narinfo.max_retained_wal is %s)",
						 size_text((uint64) pressure_max_retained << 20));
	if (measure->other_retained > measure->retained)
		appendStringInfo(&text,
						 ", slot \"%s\", which is no mirror's, keeps %s",
						 measure->other_slot,
						 size_text(measure->other_retained));
	return text.data;
}

static void
get_measure(PressureMeasure *measure)
{
	SpinLockAcquire(&shared->mutex);
	*measure = shared->measure;
	SpinLockRelease(&shared->mutex);
}

/*-------------------------------------------------------------------------
 * The worker's turn
 *-------------------------------------------------------------------------
 */

static void
unwatch(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&shared->level, PRESSURE_NONE);
	pg_atomic_write_u32(&shared->database, InvalidOid);
}

static void
watch(void)
{
	if (pg_atomic_read_u32(&shared->database) == MyDatabaseId)
		return;
	before_shmem_exit(unwatch, (Datum) 0);
	SpinLockAcquire(&shared->mutex);
	shared->since = GetCurrentTimestamp();
	SpinLockRelease(&shared->mutex);
	pg_atomic_write_u32(&shared->database, MyDatabaseId);
}

static void
share(const PressureMeasure *measure, PressureLevel level)
{
	bool		changed = level != pg_atomic_read_u32(&shared->level);

	SpinLockAcquire(&shared->mutex);
	shared->measure = *measure;
	if (changed)
		shared->since = measure->at;
	SpinLockRelease(&shared->mutex);
	pg_atomic_write_u32(&shared->delay, delay_of(measure));
	pg_atomic_write_u32(&shared->full, measure->free <
						pressure_reserve * MEGABYTE / 2);
	pg_atomic_write_u32(&shared->level, level);
}

static void
log_change(const PressureMeasure *measure, PressureLevel from,
		   PressureLevel to)
{
	static const char *const what[] = {
		[PRESSURE_NONE] = "publishing goes on as usual",
		[PRESSURE_DELAY] = "publishing is delayed",
		[PRESSURE_REFUSE] = "publishing is refused",
		[PRESSURE_DROP] = "publishing is refused, and slots may be dropped"
	};

	ereport(to > from && to >= PRESSURE_REFUSE ? WARNING : LOG,
			(errmsg("pressure of write-ahead log is \"%s\", after \"%s\": %s",
					level_names[to], level_names[from], what[to]),
			 measure->mirrors > 0 ? errdetail("%s", describe(measure)) : 0));
}

void
pressure_turn(MemoryContext context)
{
	PressureMeasure measure;
	PressureLevel before;
	PressureLevel level;

	if (shared == NULL)
		return;
	MemoryContextSwitchTo(context);
	watch();
	pressure_measure(&measure);
	before = (PressureLevel) pg_atomic_read_u32(&shared->level);
	level = next_level(&measure, before);
	share(&measure, level);
	if (level != before)
		log_change(&measure, before, level);
	if (level > PRESSURE_NONE)
		pressure_give_back(&measure);
	pressure_finish_drops();
	if (level == PRESSURE_DROP && level_measured(&measure) == level &&
		pressure_drop_slot(describe(&measure)))
		pg_atomic_fetch_add_u64(&shared->dropped, 1);
}

/*-------------------------------------------------------------------------
 * Publishing
 *-------------------------------------------------------------------------
 */

static void
refuse(bool removes)
{
	PressureMeasure measure;
	bool		no_room = pg_atomic_read_u32(&shared->full) != 0;

	get_measure(&measure);
	pg_atomic_fetch_add_u64(&shared->refused, 1);
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_OVERLOAD),
			 errmsg("%s", removes ? NOT_REMOVED : NOT_PUBLISHED),
			 errdetail("%s", describe(&measure)),
			 errhint("Try again later. Site \"%s\" has to catch up; if it is gone for good: SELECT narinfo.dismiss_site('%s')%s",
					 pressure_site(measure.slot), pressure_site(measure.slot),
					 no_room ? ", or make room on the disk of pg_wal." : "")));
}

int
pressure_begin_delay(void)
{
	int			delay = level_now() == PRESSURE_DELAY ?
	(int) pg_atomic_read_u32(&shared->delay) : 0;

	if (delay > 0)
		pg_atomic_fetch_add_u64(&shared->delayed, 1);
	return delay;
}

static void
wait_once(void)
{
	TimestampTz until;
	long		left;

	if (waited || pressure_waits_itself)
		return;
	waited = true;
	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										pressure_begin_delay());
	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												   until)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, left,
						 compat_wait_event("PgNarinfoDelay"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
admit(bool removes)
{
	/* a mirror says that it is one, and what a hook publishes has waited */
	if (node_takes_dump() || gate_is_passing())
		return;
	node_check_fence();
	if (!removes && level_now() == PRESSURE_DELAY)
		wait_once();
	if (level_now() >= PRESSURE_REFUSE &&
		(!removes || pg_atomic_read_u32(&shared->full) != 0))
		refuse(removes);
}

/* A statement trigger, before the rows are touched. */
Datum
pressure_admit(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("pressure_admit() is a trigger function")));
	if (level_now() != PRESSURE_NONE)
		admit(TRIGGER_FIRED_BY_DELETE(trigger->tg_event));
	return PointerGetDatum(NULL);
}

char *
pressure_refusal(void)
{
	PressureMeasure measure;

	if (level_now() < PRESSURE_REFUSE)
		return NULL;
	get_measure(&measure);
	pg_atomic_fetch_add_u64(&shared->refused, 1);
	return psprintf(NOT_PUBLISHED "\n%s", describe(&measure));
}

int
pressure_retry_after(void)
{
	PressureMeasure measure;

	if (level_now() < PRESSURE_REFUSE)
		return 0;
	get_measure(&measure);
	return measure.active ? RETRY_ACTIVE : RETRY_IDLE;
}

/*-------------------------------------------------------------------------
 * What is shown
 *-------------------------------------------------------------------------
 */

enum
{
	STATUS_LEVEL,
	STATUS_SINCE,
	STATUS_REASON,
	STATUS_MEASURED,
	STATUS_FREE,
	STATUS_SITE,
	STATUS_SLOT,
	STATUS_RETAINED,
	STATUS_BEHIND,
	STATUS_OTHER_SLOT,
	STATUS_OTHER_RETAINED,
	STATUS_DELAY,
	STATUS_DELAYED,
	STATUS_REFUSED,
	STATUS_DROPPED,
	STATUS_COLUMNS
};

typedef struct Status
{
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
} Status;

static void
set(Status *status, int column, Datum value)
{
	status->values[column] = value;
	status->nulls[column] = false;
}

static void
set_text(Status *status, int column, const char *value)
{
	set(status, column, CStringGetTextDatum(value));
}

static void
set_counts(Status *status)
{
	set(status, STATUS_DELAYED,
		Int64GetDatum((int64) pg_atomic_read_u64(&shared->delayed)));
	set(status, STATUS_REFUSED,
		Int64GetDatum((int64) pg_atomic_read_u64(&shared->refused)));
	set(status, STATUS_DROPPED,
		Int64GetDatum((int64) pg_atomic_read_u64(&shared->dropped)));
}

static void
set_measure(Status *status, const PressureMeasure *measure)
{
	set(status, STATUS_MEASURED, TimestampTzGetDatum(measure->at));
	set(status, STATUS_FREE, Int64GetDatum((int64) measure->free));
	if (measure->mirrors > 0)
	{
		set_text(status, STATUS_SITE, pressure_site(measure->slot));
		set_text(status, STATUS_SLOT, measure->slot);
		set(status, STATUS_RETAINED,
			Int64GetDatum((int64) measure->retained));
		set(status, STATUS_BEHIND, Int64GetDatum((int64) measure->behind));
	}
	if (measure->other_slot[0] == '\0')
		return;
	set_text(status, STATUS_OTHER_SLOT, measure->other_slot);
	set(status, STATUS_OTHER_RETAINED,
		Int64GetDatum((int64) measure->other_retained));
}

static void
set_level(Status *status)
{
	PressureLevel level = level_now();
	PressureMeasure measure;
	TimestampTz since;

	SpinLockAcquire(&shared->mutex);
	measure = shared->measure;
	since = shared->since;
	SpinLockRelease(&shared->mutex);
	if (measure.at == 0)
		return;
	set_text(status, STATUS_LEVEL, level_names[level]);
	set(status, STATUS_SINCE, TimestampTzGetDatum(since));
	set_measure(status, &measure);
	set(status, STATUS_DELAY,
		Int32GetDatum(level != PRESSURE_DELAY ? 0 :
					  (int32) pg_atomic_read_u32(&shared->delay)));
	if (level != PRESSURE_NONE)
		set_text(status, STATUS_REASON, describe(&measure));
}

/* pressure_status() -> record; its columns stand in pressure.sql */
Datum
pressure_status(PG_FUNCTION_ARGS)
{
	Status		status;
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "pressure_status() returns a row");
	memset(status.nulls, true, sizeof(status.nulls));
	set_text(&status, STATUS_LEVEL, level_names[PRESSURE_NONE]);
	if (shared == NULL)
		set_text(&status, STATUS_REASON,
				 "nothing is watched: pg_narinfo is not in shared_preload_libraries");
	else if (pg_atomic_read_u32(&shared->database) != MyDatabaseId)
		set_text(&status, STATUS_REASON,
				 "nothing is watched: no sites worker runs in this database");
	else
		set_level(&status);
	if (shared != NULL)
		set_counts(&status);
	return HeapTupleGetDatum(heap_form_tuple(desc, status.values,
											 status.nulls));
}
