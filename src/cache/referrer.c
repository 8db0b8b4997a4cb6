/*-------------------------------------------------------------------------
 *
 * referrer.c
 *	  The reverse index of a cache: asking it, and bringing it up to date;
 *	  see referrer.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/referrer.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/event.h"
#include "cache/hashset.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(referrers_of);
PG_FUNCTION_INFO_V1(referrers_follow);
PG_FUNCTION_INFO_V1(referrers_rebuild);

/* Beyond so many paths it is cheaper to read the cache as a whole. */
#define ASK_MAX 5000

/* Edges kept in memory for one run of a rebuild. */
#define REBUILD_EDGES (1024 * 1024)

/* Rows of a cursor that are fetched at once. */
#define FETCH 1000

#define LOCK_CLASS 0x4e52		/* see gate_lock_cache() */

/*-------------------------------------------------------------------------
 * Asking
 *-------------------------------------------------------------------------
 */

typedef struct Asking
{
	const char *cache;
	Datum		cache_text;
	hashset_hash *wanted;
	hashset_hash *seen;			/* paths that were looked at */
	hashset_hash *candidates;	/* what the index says */
	ReferrerVisitor visit;
	void	   *arg;
} Asking;

/* One valid path: is it a referrer? */
static void
look_at(void *arg, const uint8 *hash, const struct varlena *info)
{
	Asking	   *asking = arg;
	const uint8 *packed = NARINFO_PACKED(info);

	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		const uint8 *ref = packed_ref(packed, i);

		if (memcmp(ref, hash, STORE_HASH_LEN) != 0 &&
			has_hash(asking->wanted, ref))
			asking->visit(asking->arg, ref, info);
	}
}

/* The number up to which the index goes; 0 if there is none. */
static int64
indexed_seq(Datum cache)
{
	Oid			types[] = {TEXTOID};
	MemoryContext old = CurrentMemoryContext;
	int64		seq = 0;
	bool		isnull;

	if (SPI_execute_with_args("SELECT seq FROM narinfo.referrer_state "
							  "WHERE cache = $1", 1, types, &cache, NULL,
							  true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.referrer_state");
	if (SPI_processed > 0)
		seq = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(old);
	return seq;
}

/*
 * What was published behind this number and is still valid, up to another.
 * Each path is looked up by the index, whatever the planner knows of tables
 * that were filled a moment ago: the other way round would be quadratic.
 */
static Portal
open_published(Datum cache, int64 after, int64 last, bool read_only)
{
	Oid			types[] = {TEXTOID, INT8OID, INT8OID};
	Datum		values[] = {cache, Int64GetDatum(after), Int64GetDatum(last)};

	return SPI_cursor_open_with_args(NULL, "SELECT v.hash, v.info "
									 "FROM (SELECT DISTINCT hash FROM narinfo.event "
									 "WHERE cache = $1 AND seq > $2 AND seq <= $3 "
									 "AND kind IN ('publish', 'replace')) AS e, "
									 "LATERAL (SELECT p.hash, p.info "
									 "FROM narinfo.valid_path AS p "
									 "WHERE p.cache = $1 "
									 "AND p.hash OPERATOR(narinfo.=) e.hash "
									 "OFFSET 0) AS v",
									 lengthof(types), types, values, NULL,
									 read_only, 0);
}

typedef void (*PathVisitor) (void *arg, const uint8 *hash,
							 const struct varlena *info);

/* Every row of such a cursor, in a memory context that is reset. */
static void
visit_rows(Portal cursor, PathVisitor visit, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo referrer",
												  ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		SPITupleTable *rows;
		uint64		n;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, FETCH);
		rows = SPI_tuptable;
		n = SPI_processed;
		for (uint64 i = 0; i < n; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			bool		isnull;
			Datum		hash = SPI_getbinval(rows->vals[i], rows->tupdesc, 1,
											 &isnull);
			Datum		info = SPI_getbinval(rows->vals[i], rows->tupdesc, 2,
											 &isnull);

			visit(arg, DatumGetStoreHash(hash), PG_DETOAST_DATUM_PACKED(info));
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		SPI_freetuptable(rows);
		if (n == 0)
			break;
	}
	SPI_cursor_close(cursor);
	MemoryContextDelete(context);
}

static void
look_at_unseen(void *arg, const uint8 *hash, const struct varlena *info)
{
	Asking	   *asking = arg;

	add_hash(asking->seen, hash);
	look_at(arg, hash, info);
}

static void
add_candidate(void *arg, const uint8 *referrer)
{
	Asking	   *asking = arg;

	if (!has_hash(asking->seen, referrer))
		add_hash(asking->candidates, referrer);
}

/*
 * The pages that may have these: of each run the last one that begins before
 * the path, and all that begin with it.
 */
static void
ask_index(Asking *asking, const uint8 **hashes, uint64 n)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			types[] = {TEXTOID, catalog->store_hash_array_type};
	Datum	   *elements = palloc(sizeof(Datum) * n);
	Datum		values[2];

	for (uint64 i = 0; i < n; i++)
		elements[i] = PointerGetDatum(hashes[i]);
	values[0] = asking->cache_text;
	values[1] = PointerGetDatum(construct_array(elements, (int) n,
												catalog->store_hash_type,
												STORE_HASH_LEN, false,
												TYPALIGN_CHAR));
	if (SPI_execute_with_args("SELECT h.hash, p.data "
							  "FROM pg_catalog.unnest($2) AS h (hash), "
							  "narinfo.referrer_run AS r, LATERAL ("
							  "(SELECT q.data FROM narinfo.referrer_page AS q "
							  "WHERE q.cache = $1 AND q.run = r.run "
							  "AND q.first OPERATOR(narinfo.<) h.hash "
							  "ORDER BY q.cache DESC, q.run DESC, q.first DESC, "
							  "q.part DESC LIMIT 1) "
							  "UNION ALL SELECT q.data "
							  "FROM narinfo.referrer_page AS q "
							  "WHERE q.cache = $1 AND q.run = r.run "
							  "AND q.first OPERATOR(narinfo.=) h.hash) AS p "
							  "WHERE r.cache = $1", lengthof(types), types,
							  values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.referrer_page");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		Datum		hash = SPI_getbinval(row, SPI_tuptable->tupdesc, 1,
										 &isnull);
		bytea	   *page = DatumGetByteaPP(SPI_getbinval(row,
														 SPI_tuptable->tupdesc,
														 2, &isnull));

		page_visit((const uint8 *) VARDATA_ANY(page), VARSIZE_ANY_EXHDR(page),
				   DatumGetStoreHash(hash), add_candidate, asking);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* What the index says may be long gone. */
static void
look_at_candidates(Asking *asking)
{
	ValidPathScan *scan = valid_path_begin();
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo referrer",
												  ALLOCSET_DEFAULT_SIZES);
	hashset_iterator iterator;
	HashEntry  *entry;

	hashset_start_iterate(asking->candidates, &iterator);
	while ((entry = hashset_iterate(asking->candidates, &iterator)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		struct varlena *info = valid_path_find(scan, asking->cache,
											   entry->key.bytes);

		if (info)
			look_at(asking, entry->key.bytes, info);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	valid_path_end(scan);
}

void
referrer_visit(const char *cache, const uint8 **hashes, uint64 n,
			   ReferrerVisitor visit, void *arg)
{
	Asking		asking = {.cache = cache, .visit = visit, .arg = arg};
	CacheUser	user;

	asking.cache_text = CStringGetTextDatum(cache);
	asking.wanted = hashset_create(CurrentMemoryContext,
								   (uint32) Min(n + 1, 1 << 30), NULL);
	for (uint64 i = 0; i < n; i++)
		add_hash(asking.wanted, hashes[i]);
	if (n > ASK_MAX)
	{
		valid_path_each(cache, look_at, &asking);
		return;
	}
	asking.seen = hashset_create(CurrentMemoryContext, 64, NULL);
	asking.candidates = hashset_create(CurrentMemoryContext, 64, NULL);
	user = cache_become_owner();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	visit_rows(open_published(asking.cache_text,
							  indexed_seq(asking.cache_text), PG_INT64_MAX,
							  true), look_at_unseen, &asking);
	ask_index(&asking, hashes, n);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);
	look_at_candidates(&asking);
}

/*-------------------------------------------------------------------------
 * Following the events
 *-------------------------------------------------------------------------
 */

typedef struct Batch
{
	const char *cache;
	Edge	   *edges;
	uint64		n;
	uint64		max;
	uint64		limit;			/* a run is written at so many; 0: never */
} Batch;

static int
compare_edges(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(Edge));
}

static void
write_batch(Batch *batch)
{
	RunWriter  *writer = run_writer_begin(batch->cache, 0);

	qsort(batch->edges, batch->n, sizeof(Edge), compare_edges);
	for (uint64 i = 0; i < batch->n; i++)
		run_writer_add(writer, &batch->edges[i]);
	run_writer_end(writer);
	batch->n = 0;
}

static void
add_edges(void *arg, const uint8 *hash, const struct varlena *info)
{
	Batch	   *batch = arg;
	const uint8 *packed = NARINFO_PACKED(info);

	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		Edge	   *edge;

		if (batch->n == batch->max)
		{
			batch->max *= 2;
			batch->edges = repalloc_huge(batch->edges,
										 sizeof(Edge) * batch->max);
		}
		edge = &batch->edges[batch->n];
		memcpy(edge->ref, packed_ref(packed, i), STORE_HASH_LEN);
		memcpy(edge->referrer, hash, STORE_HASH_LEN);
		batch->n += memcmp(edge->ref, hash, STORE_HASH_LEN) != 0;
	}
	if (batch->limit > 0 && batch->n >= batch->limit)
		write_batch(batch);
}

static void
begin_batch(Batch *batch, const char *cache, uint64 limit)
{
	batch->cache = cache;
	batch->n = 0;
	batch->max = 8192;
	batch->limit = limit;
	batch->edges = palloc(sizeof(Edge) * batch->max);
}

int64
referrer_seq(const char *cache)
{
	CacheUser	user = cache_become_owner();
	int64		seq;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	seq = indexed_seq(CStringGetTextDatum(cache));
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);
	return seq;
}

/* One writer a cache. */
static bool
lock_index(const char *cache, bool wait)
{
	uint64		hash = hash_bytes_xxh3(cache, strlen(cache), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

static int64
last_seq(const char *cache)
{
	EventPosition last;

	PushActiveSnapshot(GetLatestSnapshot());
	event_read_last(cache, &last);
	PopActiveSnapshot();
	return last.seq;
}

static void
set_indexed_seq(Datum cache, int64 seq)
{
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[] = {cache, Int64GetDatum(seq)};

	if (SPI_execute_with_args("INSERT INTO narinfo.referrer_state AS s "
							  "(cache, seq) VALUES ($1, $2) "
							  "ON CONFLICT (cache) DO UPDATE SET seq = $2",
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_INSERT)
		elog(ERROR, "could not write narinfo.referrer_state");
}

static int64
follow_locked(const char *cache, int64 max_events)
{
	Datum		cache_text = CStringGetTextDatum(cache);
	int64		done = indexed_seq(cache_text);
	int64		last = Min(last_seq(cache), done + max_events);
	Batch		batch;

	if (last <= done)
		return 0;
	begin_batch(&batch, cache, 0);
	visit_rows(open_published(cache_text, done, last, false), add_edges,
			   &batch);
	write_batch(&batch);
	set_indexed_seq(cache_text, last);
	run_merge(cache);
	return last - done;
}

int64
referrer_follow(const char *cache, int64 max_events)
{
	int64		n = 0;
	CacheUser	user;

	if (!lock_index(cache, false))
		return 0;
	user = cache_become_owner();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	/* what the one before has committed must be seen */
	PushActiveSnapshot(GetLatestSnapshot());
	n = follow_locked(cache, max_events);
	PopActiveSnapshot();
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);
	return n;
}

/* From the rows, whatever events are kept. */
void
referrer_rebuild(const char *cache)
{
	Datum		cache_text = CStringGetTextDatum(cache);
	Oid			types[] = {TEXTOID};
	EventPosition last;
	Batch		batch;

	(void) lock_index(cache, true);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("DELETE FROM narinfo.referrer_page "
							  "WHERE cache = $1", 1, types, &cache_text, NULL,
							  false, 0) != SPI_OK_DELETE ||
		SPI_execute_with_args("DELETE FROM narinfo.referrer_run "
							  "WHERE cache = $1", 1, types, &cache_text, NULL,
							  false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not empty the reverse index");
	PushActiveSnapshot(GetLatestSnapshot());
	event_read_last(cache, &last);
	begin_batch(&batch, cache, REBUILD_EDGES);
	valid_path_each(cache, add_edges, &batch);
	write_batch(&batch);
	PopActiveSnapshot();
	set_indexed_seq(cache_text, last.seq);
	run_merge(cache);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* referrers_follow(max_events bigint, cache text) -> bigint */
Datum
referrers_follow(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(referrer_follow(text_to_cstring(PG_GETARG_TEXT_PP(1)),
									PG_GETARG_INT64(0)));
}

/* referrers_rebuild(cache text) */
Datum
referrers_rebuild(PG_FUNCTION_ARGS)
{
	referrer_rebuild(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

typedef struct Referrers
{
	Tuplestorestate *store;
	TupleDesc	desc;
	hashset_hash *told;
} Referrers;

static void
tell_referrer(void *arg, const uint8 *ref, const struct varlena *info)
{
	Referrers  *referrers = arg;
	const uint8 *hash = packed_store_hash(NARINFO_PACKED(info));
	PackedRefs	refs;
	StorePath	path;
	Datum		value;
	bool		isnull = false;

	(void) ref;
	if (has_hash(referrers->told, hash))
		return;
	add_hash(referrers->told, hash);
	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		return;
	value = PointerGetDatum(store_path_make(&path));
	tuplestore_putvalues(referrers->store, referrers->desc, &value, &isnull);
}

/* referrers_of(hashes store_hash[], cache text) -> setof store_path */
Datum
referrers_of(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CacheInfo	known;
	Referrers	referrers;
	const uint8 **hashes;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			kept = 0;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	cache_require(cache, &known);
	referrers.store = result->setResult;
	referrers.desc = result->setDesc;
	referrers.told = hashset_create(CurrentMemoryContext, 64, NULL);
	deconstruct_array(array, ARR_ELEMTYPE(array), STORE_HASH_LEN, false,
					  TYPALIGN_CHAR, &elements, &nulls, &n);
	hashes = palloc(sizeof(uint8 *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			hashes[kept++] = DatumGetStoreHash(elements[i]);
	}
	if (kept > 0)
		referrer_visit(cache, hashes, kept, tell_referrer, &referrers);
	PG_RETURN_VOID();
}
