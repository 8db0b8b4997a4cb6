/*-------------------------------------------------------------------------
 *
 * gc_plan.c
 *	  gc_plan(older_than, max_bytes, max_fraction, cache): which paths of a
 *	  cache may go.
 *
 *	  nobody commits, snapshot		gate_lock_cache(), let go at once
 *	  load the graph				dense.c
 *	  mark from the roots			root_visit()
 *	  mark from what is young		published, replaced or touched of late
 *	  order the rest				gc_order.c, as far as max_bytes lets it
 *	  store							gc_plan, gc_plan_reason, gc_plan_path
 *
 * All is read by the one snapshot; what comes after it, gc_run() looks at.
 * The snapshot is taken while nobody is between the writing of what he changed
 * and its being seen, so all that it does not have comes later by the clock
 * as well, which is how touches are told apart.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/gc.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/event.h"
#include "cache/gate.h"
#include "cache/progress.h"
#include "graph/dense.h"
#include "graph/gc_order.h"
#include "graph/pace.h"
#include "graph/root.h"
#include "types/operators.h"

PG_FUNCTION_INFO_V1(gc_plan);
PG_FUNCTION_INFO_V1(gc_estimate);

/* Bits of marks */
#define MARK_ROOT		0x01	/* a root, or needed by one */
#define MARK_YOUNG		0x02
#define MARK_NEEDED		0x04	/* by what is young, or that itself */
#define MARK_PLANNED	0x08
#define MARK_ALIVE		(MARK_ROOT | MARK_NEEDED)

#define CHECK_AFTER 4096		/* paths */
#define STORE_BATCH 5000		/* rows that go in by one statement */

#define NOTICE_BYTES (100.0 * 1024 * 1024)	/* less is not worth a word */

/* In the order of the enum gc_reason. */
typedef enum Reason
{
	REASON_ROOT,
	REASON_YOUNG,
	REASON_NEEDED,
	REASON_OVER,
	REASON_UNREACHABLE,
	NREASONS
} Reason;

static const char *const reason_labels[NREASONS] = {
	[REASON_ROOT] = "root",
	[REASON_YOUNG] = "young",
	[REASON_NEEDED] = "needed_by_young",
	[REASON_OVER] = "over_max_bytes",
	[REASON_UNREACHABLE] = "unreachable"
};

typedef struct Count
{
	int64		paths;
	int64		nar_bytes;
	int64		file_bytes;
} Count;

typedef struct Planning
{
	/* what was asked for */
	CacheInfo	cache;
	Datum		older_than;		/* interval */
	int64		max_bytes;		/* -1: as many as there are */
	double		max_fraction;
	double		share;			/* of the time, while others commit */
	/* what is so */
	int64		plan;
	TimestampTz at;
	TimestampTz cutoff;
	bool		has_young;		/* older_than is not 0 */
	int64		seq;
	Dense	   *dense;
	uint8	   *marks;
	uint32	   *queue;
	uint32		queued;
	int64		roots;
	int64		valid_roots;
	Count		counts[NREASONS];
	double		load_ms;
	double		mark_ms;
	/* the rows that are being stored */
	int64		place;			/* of the last one */
	Datum		hashes[STORE_BATCH];
	Datum		joined[STORE_BATCH];	/* goes with the next one */
	int			nrows;
	MemoryContext row_context;
} Planning;

/*-------------------------------------------------------------------------
 * Locks, queries: see gc.h
 *-------------------------------------------------------------------------
 */

#define LOCK_CLASS 0x4e47		/* see gate_lock_cache() */

static void
make_tag(const char *cache, LOCKTAG *tag)
{
	uint64		hash = hash_bytes_xxh3(cache, strlen(cache), 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
}

void
gc_lock(const char *cache, bool session)
{
	LOCKTAG		tag;

	make_tag(cache, &tag);
	if (LockAcquire(&tag, ExclusiveLock, session, true) ==
		LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("cache \"%s\" is being collected already", cache),
				 errdetail("One gc_plan or gc_run at a time is carried out in a cache."),
				 errhint("narinfo.stat_progress shows it.")));
}

void
gc_unlock(const char *cache)
{
	LOCKTAG		tag;

	make_tag(cache, &tag);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

void
gc_each_row(const char *query, int nargs, Oid *types, Datum *values,
			GcRowVisitor visit, void *arg)
{
	MemoryContext old = CurrentMemoryContext;
	SPIPlanPtr	plan = SPI_prepare(query, nargs, types);
	Portal		cursor;
	uint64		n;

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", query);
	cursor = SPI_cursor_open(NULL, plan, values, NULL, true);
	do
	{
		SPITupleTable *rows;

		SPI_cursor_fetch(cursor, true, 1000);
		rows = SPI_tuptable;
		n = SPI_processed;
		for (uint64 i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			visit(arg, rows->vals[i], rows->tupdesc);
		}
		SPI_freetuptable(rows);
	} while (n > 0);
	SPI_cursor_close(cursor);
	SPI_freeplan(plan);
	MemoryContextSwitchTo(old);
}

uint64
gc_execute(const char *query, int nargs, Oid *types, Datum *values,
		   const char *nulls)
{
	MemoryContext old = CurrentMemoryContext;

	if (SPI_execute_with_args(query, nargs, types, values, nulls, false,
							  0) < 0)
		elog(ERROR, "could not execute \"%s\"", query);
	MemoryContextSwitchTo(old);
	return SPI_processed;
}

void
gc_refuse_no_roots(const char *cache, int64 roots)
{
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_NO_ROOTS),
			 roots == 0 ? errmsg("cache \"%s\" has no root", cache) :
			 errmsg("none of the " INT64_FORMAT
					" roots of cache \"%s\" is valid",
					roots, cache),
			 errdetail("Everything in it would go."),
			 errhint("narinfo.pin() names what is to stay, narinfo.add_root_source() asks your application.")));
}

/*-------------------------------------------------------------------------
 * Marking
 *-------------------------------------------------------------------------
 */

/* For the next dense_walk() with this bit. */
static void
queue_path(Planning *planning, uint32 path, uint8 bit)
{
	if (planning->marks[path] & bit)
		return;
	planning->marks[path] |= bit;
	planning->queue[planning->queued++] = path;
}

static void
walk_queue(Planning *planning, uint8 bit)
{
	(void) dense_walk(planning->dense, bit, planning->marks, planning->queue,
					  planning->queued);
	planning->queued = 0;
}

static void
mark_root(void *arg, const uint8 *hash, const char *name)
{
	Planning   *planning = arg;
	uint32		path = dense_find(planning->dense, hash);

	(void) name;
	planning->roots++;
	if (path == DENSE_NONE)
		return;
	planning->valid_roots++;
	queue_path(planning, path, MARK_ROOT);
}

static void
mark_roots(Planning *planning)
{
	(void) root_visit(planning->cache.name, mark_root, planning);
	if (planning->roots == 0 ||
		(planning->valid_roots == 0 && dense_count(planning->dense) > 0))
		gc_refuse_no_roots(planning->cache.name, planning->roots);
	walk_queue(planning, MARK_ROOT);
}

static void
use_touched(void *arg, HeapTuple row, TupleDesc desc)
{
	Planning   *planning = arg;
	bool		isnull;
	Datum		hash = SPI_getbinval(row, desc, 1, &isnull);
	Datum		at = SPI_getbinval(row, desc, 2, &isnull);
	uint32		path = dense_find(planning->dense, DatumGetStoreHash(hash));

	if (path != DENSE_NONE)
		dense_use(planning->dense, path,
				  DatumGetTimestampTz(at) + GC_TOUCH_MARGIN);
}

/* Replacing a narinfo is publishing it again, and leaves "registered". */
static void
use_events(Planning *planning)
{
	EventScan  *scan = event_scan_begin(planning->cache.name, 0);
	GcKind		known = {0};
	TupleTableSlot *slot;

	while ((slot = event_scan_next(scan, BackwardScanDirection)) != NULL)
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(slot_getattr(slot,
														  EVENT_COLUMN_AT + 1,
														  &isnull));
		Datum		hash = slot_getattr(slot, EVENT_COLUMN_HASH + 1, &isnull);
		uint32		path;

		CHECK_FOR_INTERRUPTS();
		if (at < planning->cutoff)
			break;
		if (isnull || gc_event_meaning(slot, &known) != GC_EVENT_PATH)
			continue;
		path = dense_find(planning->dense, DatumGetStoreHash(hash));
		if (path != DENSE_NONE)
			dense_use(planning->dense, path, at);
	}
	event_scan_end(scan);
}

static void
mark_young(Planning *planning)
{
	uint32		n = dense_count(planning->dense);
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(planning->cache.name);

	gc_each_row("SELECT hash, at FROM narinfo.touched "
				"WHERE cache OPERATOR(pg_catalog.=) $1", 1, &type, &name,
				use_touched, planning);
	if (!planning->has_young)
		return;
	use_events(planning);
	for (uint32 path = 0; path < n; path++)
	{
		if (path % CHECK_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		if (dense_when(planning->dense, path) < planning->cutoff)
			continue;
		planning->marks[path] |= MARK_YOUNG;
		queue_path(planning, path, MARK_NEEDED);
	}
	walk_queue(planning, MARK_NEEDED);
}

/*-------------------------------------------------------------------------
 * What goes
 *-------------------------------------------------------------------------
 */

static int64
add_saturating(int64 a, int64 b)
{
	int64		sum;

	return pg_add_s64_overflow(a, b, &sum) ? PG_INT64_MAX : sum;
}

/* What a path's file takes; Guix does not always say so. */
static int64
file_bytes(const Planning *planning, uint32 path)
{
	int64		bytes = dense_file_size(planning->dense, path);

	return bytes > 0 ? bytes : dense_nar_size(planning->dense, path);
}

static void
flush_rows(Planning *planning)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			types[] = {
		INT8OID, INT8OID, catalog->store_hash_array_type, BOOLARRAYOID
	};
	Datum		values[4];
	MemoryContext old;

	if (planning->nrows == 0)
		return;
	pace();
	old = MemoryContextSwitchTo(planning->row_context);
	values[0] = Int64GetDatum(planning->plan);
	values[1] = Int64GetDatum(planning->place - planning->nrows);
	values[2] = PointerGetDatum(construct_array(planning->hashes,
												planning->nrows,
												catalog->store_hash_type,
												STORE_HASH_LEN, false,
												TYPALIGN_CHAR));
	values[3] = PointerGetDatum(construct_array(planning->joined,
												planning->nrows, BOOLOID,
												sizeof(bool), true,
												TYPALIGN_CHAR));
	(void) gc_execute("INSERT INTO narinfo.gc_plan_path "
					  "(plan, place, hash, with_next) "
					  "SELECT $1, $2 OPERATOR(pg_catalog.+) t.n, t.hash, "
					  "t.joined FROM ROWS FROM (pg_catalog.unnest($3), "
					  "pg_catalog.unnest($4)) WITH ORDINALITY "
					  "AS t (hash, joined, n)",
					  lengthof(types), types, values, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextReset(planning->row_context);
	planning->nrows = 0;
}

static void
store_path(Planning *planning, uint32 path, bool joined)
{
	if (planning->nrows == STORE_BATCH)
	{
		flush_rows(planning);
		progress_report(PROGRESS_STORING, planning->place, 0,
						planning->place, 0, 0);
	}
	planning->hashes[planning->nrows] =
		PointerGetDatum(dense_hash(planning->dense, path));
	planning->joined[planning->nrows++] = BoolGetDatum(joined);
	planning->place++;
}

/* The next in the order: false when they would be more than may go. */
static bool
plan_paths(void *arg, const uint32 *paths, uint32 n)
{
	Planning   *planning = arg;
	Count	   *count = &planning->counts[REASON_UNREACHABLE];
	int64		bytes = count->file_bytes;

	for (uint32 i = 0; i < n; i++)
		bytes = add_saturating(bytes, file_bytes(planning, paths[i]));
	if (planning->max_bytes >= 0 && bytes > planning->max_bytes)
		return false;
	if (planning->place + n > PG_UINT32_MAX)
		return false;
	/* counted with the others; this is for the next question */
	count->file_bytes = bytes;
	for (uint32 i = 0; i < n; i++)
	{
		planning->marks[paths[i]] |= MARK_PLANNED;
		store_path(planning, paths[i], i + 1 < n);
	}
	return true;
}

static Reason
reason_of(uint8 marks)
{
	if (marks & MARK_ROOT)
		return REASON_ROOT;
	if (marks & MARK_YOUNG)
		return REASON_YOUNG;
	if (marks & MARK_NEEDED)
		return REASON_NEEDED;
	return (marks & MARK_PLANNED) ? REASON_UNREACHABLE : REASON_OVER;
}

static void
count_reasons(Planning *planning)
{
	memset(planning->counts, 0, sizeof(planning->counts));
	for (uint32 path = 0; path < dense_count(planning->dense); path++)
	{
		Reason		reason = reason_of(planning->marks[path]);
		Count	   *count = &planning->counts[reason];

		if (path % CHECK_AFTER == 0)
		{
			CHECK_FOR_INTERRUPTS();
			pace();
		}
		count->paths++;
		count->nar_bytes = add_saturating(count->nar_bytes,
										  dense_nar_size(planning->dense,
														 path));
		count->file_bytes = add_saturating(count->file_bytes,
										   file_bytes(planning, path));
	}
}

static void
check_fraction(Planning *planning, int64 planned)
{
	double		all = dense_count(planning->dense);

	if (planned <= planning->max_fraction * all)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_TOO_MUCH),
			 errmsg(INT64_FORMAT " of the %.0f paths of cache \"%s\" would go",
					planned, all, planning->cache.name),
			 errdetail("That is more than %g of them. There are " INT64_FORMAT
					   " roots, " INT64_FORMAT " of them valid.",
					   planning->max_fraction, planning->roots,
					   planning->valid_roots),
			 errhint("If that is right, say so with max_fraction, or let less go at once with max_bytes.")));
}

/*-------------------------------------------------------------------------
 * Rows of the plan
 *-------------------------------------------------------------------------
 */

/* Some at a time, for the sake of those who publish meanwhile. */
static void
delete_paths(int64 plan, int64 planned)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID};

	for (int64 place = 0; place < planned; place += STORE_BATCH)
	{
		Datum		values[] = {
			Int64GetDatum(plan), Int64GetDatum(place),
			Int64GetDatum(place + STORE_BATCH)
		};

		CHECK_FOR_INTERRUPTS();
		(void) gc_execute("DELETE FROM narinfo.gc_plan_path "
						  "WHERE plan OPERATOR(pg_catalog.=) $1 "
						  "AND place OPERATOR(pg_catalog.>) $2 "
						  "AND place OPERATOR(pg_catalog.<=) $3",
						  lengthof(types), types, values, NULL);
		pace();
	}
}

static void
forget_paths(void *arg, HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	(void) arg;
	delete_paths(DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull)),
				 DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)));
}

/* Those before it that were not carried out are not to be any more. */
static void
forget_plans(Planning *planning)
{
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(planning->cache.name);

	gc_each_row("SELECT g.plan, g.planned FROM narinfo.gc_plan AS g "
				"WHERE g.cache OPERATOR(pg_catalog.=) $1 AND EXISTS "
				"(SELECT FROM narinfo.gc_plan_path AS p "
				"WHERE p.plan OPERATOR(pg_catalog.=) g.plan)",
				1, &type, &name, forget_paths, NULL);
	(void) gc_execute("UPDATE narinfo.gc_plan SET state = 'replaced' "
					  "WHERE cache OPERATOR(pg_catalog.=) $1 "
					  "AND state OPERATOR(pg_catalog.<>) 'done'",
					  1, &type, &name, NULL);
}

static void
insert_plan(Planning *planning)
{
	Oid			types[] = {
		TEXTOID, TIMESTAMPTZOID, INT8OID, INTERVALOID, INT8OID, FLOAT8OID
	};
	Datum		values[] = {
		CStringGetTextDatum(planning->cache.name),
		TimestampTzGetDatum(planning->at), Int64GetDatum(planning->seq),
		planning->older_than, Int64GetDatum(planning->max_bytes),
		Float8GetDatum(planning->max_fraction)
	};
	char		nulls[] = "      ";
	bool		isnull;

	if (planning->max_bytes < 0)
		nulls[4] = 'n';
	(void) gc_execute("INSERT INTO narinfo.gc_plan (cache, at, seq, "
					  "checked_seq, older_than, max_bytes, max_fraction) "
					  "VALUES ($1, $2, $3, $3, $4, $5, $6) RETURNING plan",
					  lengthof(types), types, values, nulls);
	planning->plan = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
												 SPI_tuptable->tupdesc, 1,
												 &isnull));
}

static void
insert_reason(Planning *planning, Reason reason)
{
	const Count *count = &planning->counts[reason];
	Oid			types[] = {INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(planning->plan),
		CStringGetTextDatum(reason_labels[reason]),
		Int64GetDatum(count->paths), Int64GetDatum(count->nar_bytes),
		Int64GetDatum(count->file_bytes)
	};

	(void) gc_execute("INSERT INTO narinfo.gc_plan_reason "
					  "VALUES ($1, $2::narinfo.gc_reason, $3, $4, $5)",
					  lengthof(types), types, values, NULL);
}

static void
finish_plan(Planning *planning)
{
	Oid			types[] = {
		INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
		INT8OID, FLOAT8OID, FLOAT8OID
	};
	Datum		values[] = {
		Int64GetDatum(planning->plan),
		Int64GetDatum(dense_count(planning->dense)),
		Int64GetDatum((int64) dense_edges(planning->dense)),
		Int64GetDatum((int64) dense_dangling(planning->dense)),
		Int64GetDatum(planning->roots), Int64GetDatum(planning->valid_roots),
		Int64GetDatum(planning->place),
		Int64GetDatum((int64) dense_memory(planning->dense)),
		Float8GetDatum(planning->load_ms), Float8GetDatum(planning->mark_ms)
	};

	flush_rows(planning);
	for (int reason = 0; reason < NREASONS; reason++)
		insert_reason(planning, reason);
	(void) gc_execute("UPDATE narinfo.gc_plan SET paths = $2, edges = $3, "
					  "dangling = $4, roots = $5, valid_roots = $6, "
					  "planned = $7, memory = $8, load_ms = $9, "
					  "mark_ms = $10 WHERE plan OPERATOR(pg_catalog.=) $1",
					  lengthof(types), types, values, NULL);
}

/*-------------------------------------------------------------------------
 * The function
 *-------------------------------------------------------------------------
 */

static void
read_arguments(FunctionCallInfo fcinfo, Planning *planning)
{
	for (int i = 0; i < 5; i++)
	{
		if (PG_ARGISNULL(i) && i != 1)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("gc_plan wants older_than, max_fraction, share and a cache, not NULL")));
	}
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(4)), &planning->cache);
	planning->older_than = PG_GETARG_DATUM(0);
	planning->max_bytes = PG_ARGISNULL(1) ? -1 : PG_GETARG_INT64(1);
	planning->max_fraction = PG_GETARG_FLOAT8(2);
	if (!PG_ARGISNULL(1) && planning->max_bytes < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_bytes must not be negative")));
	if (isnan(planning->max_fraction) || planning->max_fraction < 0 ||
		planning->max_fraction > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_fraction must be from 0 to 1")));
	planning->share = PG_GETARG_FLOAT8(3);
	if (isnan(planning->share) || planning->share < PACE_SHARE_MIN ||
		planning->share > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("share must be from 0.001 to 1")));
}

/* The moment that the plan is of. */
static void
begin_snapshot(Planning *planning)
{
	EventPosition last;
	Datum		cutoff;

	gate_lock_cache(planning->cache.name);
	planning->at = GetCurrentTimestamp();
	PushActiveSnapshot(GetLatestSnapshot());
	gate_unlock_cache(planning->cache.name);
	cutoff = DirectFunctionCall2(timestamptz_mi_interval,
								 TimestampTzGetDatum(planning->at),
								 planning->older_than);
	planning->cutoff = DatumGetTimestampTz(cutoff);
	if (planning->cutoff > planning->at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("older_than must not be negative")));
	planning->has_young = planning->cutoff < planning->at;
	event_read_last(planning->cache.name, &last);
	planning->seq = last.seq;
}

static double
milliseconds_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

static void
tell_estimate(const char *cache)
{
	DenseEstimate estimate;

	dense_estimate(cache, &estimate);
	if (estimate.bytes >= NOTICE_BYTES)
		ereport(NOTICE,
				(errmsg("marking cache \"%s\" takes about %.0f MB", cache,
						estimate.bytes / 1024 / 1024),
				 errdetail("That is for about %.0f paths with %.0f references.",
						   estimate.paths, estimate.edges)));
}

static void
load(Planning *planning)
{
	instr_time	start;

	tell_estimate(planning->cache.name);
	INSTR_TIME_SET_CURRENT(start);
	planning->dense = dense_load(planning->cache.name);
	planning->load_ms = milliseconds_since(start);
}

static void
mark(Planning *planning)
{
	instr_time	start;

	progress_report(PROGRESS_MARKING, 0, dense_count(planning->dense), 0, 0,
					0);
	INSTR_TIME_SET_CURRENT(start);
	planning->marks = dense_array(planning->dense, sizeof(uint8));
	planning->queue = dense_array(planning->dense, sizeof(uint32));
	mark_roots(planning);
	mark_young(planning);
	planning->mark_ms = milliseconds_since(start);
}

static void
make_plan(Planning *planning)
{
	/* before it is ordered: nothing is planned yet, so all is "over" */
	count_reasons(planning);
	if (planning->max_bytes < 0)
		check_fraction(planning, planning->counts[REASON_OVER].paths);
	memset(planning->counts, 0, sizeof(planning->counts));
	insert_plan(planning);
	gc_order_visit(planning->dense, planning->marks, MARK_ALIVE,
				   planning->queue, planning->max_bytes >= 0, plan_paths,
				   planning);
	count_reasons(planning);
	check_fraction(planning, planning->counts[REASON_UNREACHABLE].paths);
	finish_plan(planning);
}

Datum
gc_plan(PG_FUNCTION_ARGS)
{
	Planning   *planning = palloc0(sizeof(Planning));
	int64		plan;

	read_arguments(fcinfo, planning);
	gc_lock(planning->cache.name, false);
	planning->row_context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo plan rows",
												  ALLOCSET_DEFAULT_SIZES);
	progress_start(PROGRESS_GC_PLAN, cache_catalog()->valid_path_rel);
	begin_snapshot(planning);
	pace_begin(planning->share);
	load(planning);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	mark(planning);
	forget_plans(planning);
	make_plan(planning);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	PopActiveSnapshot();
	progress_end();
	plan = planning->plan;
	dense_free(planning->dense);
	PG_RETURN_INT64(plan);
}

/* gc_estimate(cache text, OUT paths, OUT refs, OUT bytes) */
Datum
gc_estimate(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(0));
	DenseEstimate estimate;
	CacheInfo	info;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	cache_require(cache, &info);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	dense_estimate(cache, &estimate);
	values[0] = Int64GetDatum((int64) estimate.paths);
	values[1] = Int64GetDatum((int64) estimate.edges);
	values[2] = Int64GetDatum((int64) estimate.bytes);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
