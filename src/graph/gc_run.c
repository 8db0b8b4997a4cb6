/*-------------------------------------------------------------------------
 *
 * gc_run.c
 *	  CALL gc_run(plan, batch, share): removes what was planned, but for what
 *	  came alive since.
 *
 *	  once			one of a cache at a time; the planned paths into memory;
 *					a look at all that happened since (gc_alive.c)
 *	  each batch	a look at the roots
 *					the lock of the cache, a fresh snapshot
 *					a look at the events since, and at touches of the batch
 *					lock its rows, if nobody else has them
 *					into trash, through the gate; commit
 *					leave the cache to others for a while
 *
 * Whoever publishes waits for the lock as long as a batch takes, so batches
 * are cut until they are short.  Roots are looked at before it: a source may
 * take long, and an application's rows have no order with our commits anyhow.
 * A pin has: it is an event, and when there is one, or another that changes
 * what the roots are, they are looked at again under the lock.
 *
 * Rows that somebody else has locked are about to be changed: to wait for him
 * with the lock of the cache would be to wait for one who waits for us, so
 * they are spared.  What goes has the events since under the same lock that
 * its own events are written under, so at each commit all references hold;
 * and the gate looks at them once more.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/gc.h"
#include "graph/pace.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/event.h"
#include "cache/gate.h"
#include "cache/progress.h"
#include "cache/referrer.h"
#include "cache/transfer.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(gc_run);

#define BATCH_MAX	10000		/* paths */
#define BATCH_MIN	10
#define BATCH_MS	25.0		/* that the lock of the cache is held */
#define INDEX_EVENTS 5000		/* that the reverse index takes up at once */

typedef struct Run
{
	MemoryContext context;		/* lives through the commits */
	MemoryContext batch_context;
	int64		plan;
	char		cache[CACHE_NAME_MAX + 1];
	TimestampTz at;
	int64		next_place;
	int64		checked_seq;
	int64		planned;
	bool		done;			/* before we came */
	GcAlive    *alive;
	int			batch;			/* as was asked for */
	int			size;			/* as time allows */
	double		share;
	double		roots_ms;		/* that the last look at them took */
	double		worked_ms;		/* since then */
	int64		removed;
	int64		spared;
	int64		gone;			/* removed by somebody else */
} Run;

/* The paths of one batch. */
typedef struct Batch
{
	Datum	   *hashes;			/* that may go */
	int			n;
	int			max;
	int64		end;			/* last place that it has come to */
	int64		gone;
	int64		removed;
	int64		nar_bytes;
	int64		file_bytes;
} Batch;

static double
milliseconds_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/*-------------------------------------------------------------------------
 * The plan
 *-------------------------------------------------------------------------
 */

static void
refuse_plan(int64 plan, const char *state)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("plan " INT64_FORMAT " cannot be carried out: it was %s",
					plan, state),
			 errhint("Use the plan that narinfo.gc_plan() returned last.")));
}

static int64
get_int64(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, column,
									   &isnull));
}

static void
read_plan(Run *run)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(run->plan);
	char	   *state;

	if (gc_execute("SELECT at, next_place, checked_seq, planned, cache, state "
				   "FROM narinfo.gc_plan WHERE plan OPERATOR(pg_catalog.=) $1",
				   1, &type, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no plan " INT64_FORMAT, run->plan),
				 errhint("narinfo.gc_plan() makes one.")));
	run->at = (TimestampTz) get_int64(1);
	run->next_place = get_int64(2);
	run->checked_seq = get_int64(3);
	run->planned = get_int64(4);
	strlcpy(run->cache, SPI_getvalue(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, 5),
			sizeof(run->cache));
	state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6);
	if (strcmp(state, "replaced") == 0)
		refuse_plan(run->plan, state);
	run->done = strcmp(state, "done") == 0;
	SPI_freetuptable(SPI_tuptable);
}

static void
add_planned(void *arg, HeapTuple row, TupleDesc desc)
{
	Run		   *run = arg;
	bool		isnull;
	Datum		hash = SPI_getbinval(row, desc, 1, &isnull);
	Datum		place = SPI_getbinval(row, desc, 2, &isnull);
	Datum		spared = SPI_getbinval(row, desc, 3, &isnull);

	gc_alive_add(run->alive, DatumGetStoreHash(hash), DatumGetInt64(place),
				 DatumGetBool(spared));
}

static void
load_planned(Run *run)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(run->plan), Int64GetDatum(run->next_place)
	};

	run->alive = gc_alive_begin(run->context, run->plan, run->cache);
	gc_each_row("SELECT hash, place, spared FROM narinfo.gc_plan_path "
				"WHERE plan OPERATOR(pg_catalog.=) $1 "
				"AND place OPERATOR(pg_catalog.>=) $2",
				lengthof(types), types, values, add_planned, run);
}

/*-------------------------------------------------------------------------
 * Transactions
 *-------------------------------------------------------------------------
 */

/*
 * Before a batch the transaction has no snapshot yet, so that the first one
 * that it takes, with the lock, is a fresh one whatever the isolation level.
 */
static CacheUser
begin_work(Run *run, MemoryContext *old)
{
	*old = MemoryContextSwitchTo(run->batch_context);
	PushActiveSnapshot(GetTransactionSnapshot());
	return cache_become_owner();
}

static void
end_work(Run *run, CacheUser user, MemoryContext old)
{
	PopActiveSnapshot();
	cache_become_user(user);
	MemoryContextSwitchTo(old);
	SPI_commit();
	MemoryContextReset(run->batch_context);
}

/* What was found out, and how far we are. */
static void
store_state(Run *run, const Batch *batch, bool done)
{
	Oid			types[] = {
		INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
		INT8OID, BOOLOID
	};
	int64		spared = gc_alive_store(run->alive);
	Datum		values[] = {
		Int64GetDatum(run->plan), Int64GetDatum(run->next_place),
		Int64GetDatum(run->checked_seq), Int64GetDatum(batch->removed),
		Int64GetDatum(spared), Int64GetDatum(batch->gone),
		Int64GetDatum(batch->nar_bytes), Int64GetDatum(batch->file_bytes),
		BoolGetDatum(done)
	};

	run->spared += spared;
	run->removed += batch->removed;
	run->gone += batch->gone;
	(void) gc_execute("UPDATE narinfo.gc_plan SET next_place = $2, "
					  "checked_seq = $3, "
					  "removed = removed OPERATOR(pg_catalog.+) $4, "
					  "spared = spared OPERATOR(pg_catalog.+) $5, "
					  "gone = gone OPERATOR(pg_catalog.+) $6, "
					  "removed_nar_bytes = removed_nar_bytes "
					  "OPERATOR(pg_catalog.+) $7, "
					  "removed_file_bytes = removed_file_bytes "
					  "OPERATOR(pg_catalog.+) $8, "
					  "state = CASE WHEN $9 THEN 'done' ELSE 'running' "
					  "END::narinfo.gc_state, finished = CASE WHEN $9 "
					  "THEN pg_catalog.clock_timestamp() END "
					  "WHERE plan OPERATOR(pg_catalog.=) $1",
					  lengthof(types), types, values, NULL);
}

/* All that happened since the plan, without the lock: most of it is here. */
static void
look_first(Run *run)
{
	Batch		none = {0};
	MemoryContext old;
	CacheUser	user = begin_work(run, &old);

	run->checked_seq = gc_alive_events(run->alive, run->checked_seq);
	store_state(run, &none, false);
	end_work(run, user, old);
}

/*
 * The roots, whenever as much time was spent on removing as the last look at
 * them took: before each batch, if they are quickly told.
 */
static void
look_at_roots(Run *run)
{
	MemoryContext old;
	CacheUser	user;
	instr_time	start;

	if (run->worked_ms < run->roots_ms)
		return;
	INSTR_TIME_SET_CURRENT(start);
	user = begin_work(run, &old);
	gc_alive_roots(run->alive);
	end_work(run, user, old);
	run->roots_ms = milliseconds_since(start);
	run->worked_ms = 0;
}

/*
 * The gate looks into the reverse index at what goes, and reads the events
 * that this has not seen: where no janitor takes them up, we do.
 */
static void
follow_index(Run *run)
{
	MemoryContext old;
	CacheUser	user = begin_work(run, &old);
	EventPosition last;
	bool		behind;

	event_read_last(run->cache, &last);
	behind = last.seq - referrer_seq(run->cache) > INDEX_EVENTS;
	if (behind)
		(void) referrer_follow(run->cache, 4 * INDEX_EVENTS);
	end_work(run, user, old);
}

/*-------------------------------------------------------------------------
 * A batch
 *-------------------------------------------------------------------------
 */

static void
add_candidate(Batch *batch, const uint8 *hash)
{
	uint8	   *copy = palloc(STORE_HASH_LEN);

	memcpy(copy, hash, STORE_HASH_LEN);
	if (batch->n == batch->max)
	{
		batch->max = Max(batch->max * 2, 1024);
		batch->hashes = batch->hashes ?
			repalloc_huge(batch->hashes, sizeof(Datum) * (Size) batch->max) :
			palloc(sizeof(Datum) * batch->max);
	}
	batch->hashes[batch->n++] = PointerGetDatum(copy);
}

typedef struct Reading
{
	Run		   *run;
	Batch	   *batch;
	MemoryContext context;
} Reading;

static void
read_path(void *arg, HeapTuple row, TupleDesc desc)
{
	Reading    *reading = arg;
	MemoryContext old = MemoryContextSwitchTo(reading->context);
	bool		isnull;
	Datum		hash = SPI_getbinval(row, desc, 1, &isnull);

	reading->batch->end = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	if (!gc_alive_is_spared(reading->run->alive, DatumGetStoreHash(hash)))
		add_candidate(reading->batch, DatumGetStoreHash(hash));
	MemoryContextSwitchTo(old);
}

/* The next ones of the plan; a cycle is not cut. */
static void
read_batch(Run *run, Batch *batch)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(run->plan), Int64GetDatum(run->next_place),
		Int64GetDatum(run->next_place + run->size - 1)
	};
	Reading		reading = {run, batch, CurrentMemoryContext};

	batch->end = run->next_place - 1;
	gc_each_row("SELECT hash, place FROM narinfo.gc_plan_path "
				"WHERE plan OPERATOR(pg_catalog.=) $1 "
				"AND place OPERATOR(pg_catalog.>=) $2 "
				"AND place OPERATOR(pg_catalog.<=) coalesce((SELECT place "
				"FROM narinfo.gc_plan_path "
				"WHERE plan OPERATOR(pg_catalog.=) $1 "
				"AND place OPERATOR(pg_catalog.>=) $3 AND NOT with_next "
				"ORDER BY place LIMIT 1), $3) ORDER BY place",
				lengthof(types), types, values, read_path, &reading);
	/* somebody may have deleted its rows */
	if (batch->end < run->next_place)
		batch->end = run->planned;
}

static Datum
hashes_of(const Batch *batch)
{
	return PointerGetDatum(construct_array(batch->hashes, batch->n,
										   cache_catalog()->store_hash_type,
										   STORE_HASH_LEN, false,
										   TYPALIGN_CHAR));
}

static void
drop_spared(Run *run, Batch *batch)
{
	int			kept = 0;

	for (int i = 0; i < batch->n; i++)
	{
		if (!gc_alive_is_spared(run->alive,
								DatumGetStoreHash(batch->hashes[i])))
			batch->hashes[kept++] = batch->hashes[i];
	}
	batch->n = kept;
}

static int
compare_hashes(const void *a, const void *b)
{
	return memcmp(DatumGetStoreHash(*(const Datum *) a),
				  DatumGetStoreHash(*(const Datum *) b), STORE_HASH_LEN);
}

/*
 * Locks what is there and not locked by others; "locked" gets it, in the order
 * of the hashes.
 */
static void
lock_rows(Run *run, const Batch *batch, Batch *locked)
{
	Oid			types[] = {TEXTOID, cache_catalog()->store_hash_array_type};
	Datum		values[] = {
		CStringGetTextDatum(run->cache), hashes_of(batch)
	};
	uint64		n;

	n = gc_execute("SELECT hash FROM narinfo.valid_path "
				   "WHERE cache OPERATOR(pg_catalog.=) $1 "
				   "AND hash OPERATOR(narinfo.=) ANY ($2) "
				   "FOR UPDATE SKIP LOCKED",
				   lengthof(types), types, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		hash = SPI_getbinval(SPI_tuptable->vals[i],
										 SPI_tuptable->tupdesc, 1, &isnull);

		add_candidate(locked, DatumGetStoreHash(hash));
	}
	SPI_freetuptable(SPI_tuptable);
	if (locked->n > 0)
		qsort(locked->hashes, locked->n, sizeof(Datum), compare_hashes);
}

/* What could not be locked is gone, or spared; the others are summed up. */
static void
keep_locked(Run *run, Batch *batch)
{
	Batch		locked = {0};
	ValidPathScan *scan;
	int			kept = 0;

	lock_rows(run, batch, &locked);
	scan = valid_path_begin();
	for (int i = 0; i < batch->n; i++)
	{
		const uint8 *hash = DatumGetStoreHash(batch->hashes[i]);
		struct varlena *info = valid_path_find(scan, run->cache, hash);

		if (info == NULL)
		{
			batch->gone++;
			continue;
		}
		if (locked.n == 0 ||
			bsearch(&batch->hashes[i], locked.hashes, locked.n,
					sizeof(Datum), compare_hashes) == NULL)
			gc_alive_spare(run->alive, hash);
		batch->hashes[kept++] = batch->hashes[i];
	}
	valid_path_end(scan);
	batch->n = kept;
	drop_spared(run, batch);
}

static void
remove_rows(Run *run, Batch *batch)
{
	Oid			types[] = {cache_catalog()->store_hash_array_type, TEXTOID};
	Datum		values[2];

	if (batch->n == 0)
		return;
	values[0] = hashes_of(batch);
	values[1] = CStringGetTextDatum(run->cache);
	(void) gc_execute("SELECT removed, nar_bytes, file_bytes "
					  "FROM narinfo.trash_paths($1, $2)",
					  lengthof(types), types, values, NULL);
	batch->removed = get_int64(1);
	batch->nar_bytes = get_int64(2);
	batch->file_bytes = get_int64(3);
	SPI_freetuptable(SPI_tuptable);
}

/* False when there was nothing left. */
static bool
run_batch(Run *run)
{
	Batch		batch = {0};
	MemoryContext old;
	CacheUser	user;
	instr_time	start;
	double		ms;

	gate_lock_cache(run->cache);
	INSTR_TIME_SET_CURRENT(start);
	user = begin_work(run, &old);
	run->checked_seq = gc_alive_events(run->alive, run->checked_seq);
	read_batch(run, &batch);
	if (batch.n > 0)
	{
		gc_alive_touched(run->alive, hashes_of(&batch),
						 run->at - GC_TOUCH_MARGIN);
		drop_spared(run, &batch);
	}
	if (batch.n > 0)
		keep_locked(run, &batch);
	remove_rows(run, &batch);
	run->next_place = batch.end + 1;
	store_state(run, &batch, batch.end >= run->planned);
	end_work(run, user, old);

	ms = milliseconds_since(start);
	run->worked_ms += ms;
	if (ms > BATCH_MS)
		run->size = Max((int) (run->size * BATCH_MS / ms),
						Min(BATCH_MIN, run->batch));
	else if (ms < BATCH_MS / 2)
		run->size = Min(run->size * 2, run->batch);
	progress_report(PROGRESS_REMOVING, run->next_place - 1, run->planned,
					run->removed, run->spared, run->gone);
	return run->next_place <= run->planned;
}

static void
run_batches(Run *run)
{
	bool		more = true;

	while (more)
	{
		instr_time	start;

		INSTR_TIME_SET_CURRENT(start);
		follow_index(run);
		look_at_roots(run);
		more = run_batch(run);
		if (more)
			pace_rest(milliseconds_since(start), run->share);
	}
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

static void
read_arguments(FunctionCallInfo fcinfo, Run *run)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("gc_run wants a plan, a batch and a share, not NULL")));
	run->plan = PG_GETARG_INT64(0);
	run->batch = PG_GETARG_INT32(1);
	run->share = PG_GETARG_FLOAT8(2);
	if (run->batch < 1 || run->batch > BATCH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be from 1 to %d paths", BATCH_MAX)));
	if (isnan(run->share) || run->share < PACE_SHARE_MIN || run->share > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("share must be from 0.001 to 1")));
	run->size = Min(run->batch, 100);
}

static void
carry_out(Run *run)
{
	MemoryContext old;
	CacheUser	user;

	/* from here on the plan is nobody else's; the first look may be old */
	user = begin_work(run, &old);
	read_plan(run);
	if (!run->done)
		load_planned(run);
	end_work(run, user, old);
	if (run->done)
	{
		ereport(NOTICE,
				(errmsg("plan " INT64_FORMAT " was carried out already",
						run->plan)));
		return;
	}
	progress_report(PROGRESS_REMOVING, run->next_place - 1, run->planned, 0,
					0, 0);
	look_first(run);
	run_batches(run);
	ereport(NOTICE,
			(errmsg("removed " INT64_FORMAT " of the " INT64_FORMAT
					" paths that were planned in cache \"%s\", spared "
					INT64_FORMAT " that came alive, "
					INT64_FORMAT " were gone",
					run->removed, run->planned, run->cache, run->spared,
					run->gone)));
}

/* gc_run(plan bigint, batch integer, share float8) */
Datum
gc_run(PG_FUNCTION_ARGS)
{
	Run		   *run;
	MemoryContext context;
	MemoryContext old;
	CacheUser	user;

	procedure_check_block(fcinfo, "gc_run");
	context = AllocSetContextCreate(PortalContext, "narinfo collection",
									ALLOCSET_DEFAULT_SIZES);
	run = MemoryContextAllocZero(context, sizeof(Run));
	run->context = context;
	run->batch_context = AllocSetContextCreate(context,
											   "narinfo collection batch",
											   ALLOCSET_DEFAULT_SIZES);
	read_arguments(fcinfo, run);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	user = begin_work(run, &old);
	read_plan(run);
	end_work(run, user, old);

	gc_lock(run->cache, true);
	PG_TRY();
	{
		progress_start(PROGRESS_GC_RUN, cache_catalog()->valid_path_rel);
		carry_out(run);
		progress_end();
	}
	PG_FINALLY();
	{
		gc_unlock(run->cache);
	}
	PG_END_TRY();
	MemoryContextDelete(context);
	SPI_finish();
	PG_RETURN_VOID();
}
