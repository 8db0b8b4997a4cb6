/*-------------------------------------------------------------------------
 *
 * valid_path.c
 *	  Lookups in narinfo.valid_path, many in one transaction.
 *
 *	  place remembered (lookup_memory.c): row there, visible, with this key?
 *		| no												yes: found
 *		v
 *	  absence remembered, and not a transaction has ended since?
 *		| no												yes: absent
 *		v
 *	  index scan, set up once for all: remember the place, or the absence
 *
 * A row that a snapshot sees at a place with the key that is asked for is the
 * only one that it sees with this key, however old the memory is.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/cache.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "cache/lookup_memory.h"
#include "cache/node.h"
#include "cache/policy.h"
#include "compat.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(valid_path_fill_hash);
PG_FUNCTION_INFO_V1(valid_path_sign);

/* Columns of narinfo.valid_path; the first two are the primary key's too. */
#define COLUMN_CACHE	1
#define COLUMN_HASH		2
#define COLUMN_INFO		3

struct ValidPathScan
{
	Relation	rel;
	BlockNumber nblocks;		/* no fewer as long as we hold our lock;
								 * Invalid until it is asked for */
	Oid			pkey;
	Oid			hash_type;
	Relation	index;			/* NULL until a lookup needs it */
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[2];
	size_t		cache_len;
	char		cache[VARHDRSZ + CACHE_NAME_MAX];	/* the key, a text */
};

ValidPathScan *
valid_path_begin(void)
{
	const CacheCatalog *catalog = cache_catalog();
	ValidPathScan *scan;

	if (catalog == NULL)
		return NULL;
	scan = palloc(sizeof(ValidPathScan));
	scan->rel = try_table_open(catalog->valid_path_rel, AccessShareLock);
	if (scan->rel == NULL)
		return NULL;
	scan->nblocks = InvalidBlockNumber;
	scan->pkey = catalog->valid_path_pkey;
	scan->hash_type = catalog->store_hash_type;
	scan->index = NULL;
	scan->slot = table_slot_create(scan->rel, NULL);
	return scan;
}

static Oid
equality_function(Relation index, int column)
{
	Oid			type = index->rd_opcintype[column];
	Oid			operator = get_opfamily_member(index->rd_opfamily[column],
											   type, type,
											   BTEqualStrategyNumber);

	return get_opcode(operator);
}

/* For searches by the cache alone, or by the hash as well. */
static void
open_index(ValidPathScan *scan, int nkeys)
{
	scan->index = index_open(scan->pkey, AccessShareLock);
	ScanKeyEntryInitialize(&scan->keys[0], 0, 1, BTEqualStrategyNumber,
						   TEXTOID, C_COLLATION_OID, F_TEXTEQ, (Datum) 0);
	ScanKeyEntryInitialize(&scan->keys[1], 0, 2, BTEqualStrategyNumber,
						   scan->hash_type, InvalidOid,
						   equality_function(scan->index, 1), (Datum) 0);
	scan->scan = compat_index_beginscan(scan->rel, scan->index,
										GetActiveSnapshot(), nkeys);
}

static void
set_cache(ValidPathScan *scan, const char *cache)
{
	scan->cache_len = strlen(cache);
	SET_VARSIZE(scan->cache, VARHDRSZ + scan->cache_len);
	memcpy(VARDATA(scan->cache), cache, scan->cache_len);
}

/* Is the row in the slot the one of scan->cache and this hash? */
static bool
is_wanted(ValidPathScan *scan, const uint8 hash[STORE_HASH_LEN])
{
	struct varlena *cache;
	bool		isnull;

	cache = (struct varlena *)
		DatumGetPointer(slot_getattr(scan->slot, COLUMN_CACHE, &isnull));
	if (VARATT_IS_EXTENDED(cache) && !VARATT_IS_SHORT(cache))
		return false;			/* no name is so long */
	return VARSIZE_ANY_EXHDR(cache) == scan->cache_len &&
		memcmp(VARDATA_ANY(cache), VARDATA(scan->cache),
			   scan->cache_len) == 0 &&
		memcmp(DatumGetPointer(slot_getattr(scan->slot, COLUMN_HASH,
											&isnull)),
			   hash, STORE_HASH_LEN) == 0;
}

/* Puts the row of scan->cache and this hash into the slot. */
static bool
find_by_index(ValidPathScan *scan, const uint8 hash[STORE_HASH_LEN])
{
	MemoryContext old;
	bool		found;

	/* what the index keeps from one lookup to the next lives as long as it */
	old = MemoryContextSwitchTo(GetMemoryChunkContext(scan));
	if (scan->index == NULL)
		open_index(scan, 2);
	scan->keys[0].sk_argument = PointerGetDatum(scan->cache);
	scan->keys[1].sk_argument = PointerGetDatum(hash);
	index_rescan(scan->scan, scan->keys, 2, NULL, 0);
	found = index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
	MemoryContextSwitchTo(old);
	return found;
}

static struct varlena *
narinfo_found(ValidPathScan *scan)
{
	bool		isnull;
	Datum		info = slot_getattr(scan->slot, COLUMN_INFO, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_PACKED(info);
}

struct varlena *
valid_path_find(ValidPathScan *scan, const char *cache,
				const uint8 hash[STORE_HASH_LEN])
{
	if (strlen(cache) > CACHE_NAME_MAX)
		return NULL;
	set_cache(scan, cache);
	return find_by_index(scan, hash) ? narinfo_found(scan) : NULL;
}

/* Is it where it was? */
static bool
find_remembered(ValidPathScan *scan, uint32 cache,
				const uint8 hash[STORE_HASH_LEN])
{
	ItemPointerData tid;

	if (!lookup_recall_place(cache, hash, &tid))
		return false;
	if (scan->nblocks == InvalidBlockNumber)
		scan->nblocks = RelationGetNumberOfBlocks(scan->rel);
	return ItemPointerGetBlockNumber(&tid) < scan->nblocks &&
		table_tuple_fetch_row_version(scan->rel, &tid, GetActiveSnapshot(),
									  scan->slot) &&
		is_wanted(scan, hash);
}

struct varlena *
valid_path_find_again(ValidPathScan *scan, const CacheInfo *cache,
					  const uint8 hash[STORE_HASH_LEN], uint64 completions)
{
	set_cache(scan, cache->name);
	if (find_remembered(scan, cache->number, hash))
		return narinfo_found(scan);
	if (lookup_recall_absence(cache->number, hash, completions))
		return NULL;
	if (!find_by_index(scan, hash))
	{
		lookup_remember_absence(cache->number, hash, completions);
		return NULL;
	}
	lookup_remember_place(cache->number, hash, &scan->slot->tts_tid);
	return narinfo_found(scan);
}

void
valid_path_end(ValidPathScan *scan)
{
	if (scan->index != NULL)
	{
		index_endscan(scan->scan);
		index_close(scan->index, AccessShareLock);
	}
	ExecDropSingleTupleTableSlot(scan->slot);
	table_close(scan->rel, AccessShareLock);
	pfree(scan);
}

/*
 * The index from a cache's first path on; nothing is known of the order in
 * which a caller wants them, so this is the order of the hashes.
 */
static void
begin_cache(ValidPathScan *scan, const char *cache)
{
	set_cache(scan, cache);
	open_index(scan, 1);
	scan->keys[0].sk_argument = PointerGetDatum(scan->cache);
	index_rescan(scan->scan, scan->keys, 1, NULL, 0);
}

void
valid_path_each(const char *cache, ValidPathVisitor visit, void *arg)
{
	ValidPathScan *scan;
	MemoryContext context;

	if (strlen(cache) > CACHE_NAME_MAX)
		return;
	scan = valid_path_begin();
	if (scan == NULL)
		return;
	begin_cache(scan, cache);
	context = AllocSetContextCreate(CurrentMemoryContext, "narinfo path",
									ALLOCSET_DEFAULT_SIZES);
	while (index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;
		Datum		hash = slot_getattr(scan->slot, COLUMN_HASH, &isnull);
		Datum		info = slot_getattr(scan->slot, COLUMN_INFO, &isnull);

		CHECK_FOR_INTERRUPTS();
		visit(arg, DatumGetStoreHash(hash), PG_DETOAST_DATUM_PACKED(info));
		/* the scan's memory is not to be taken from there */
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	valid_path_end(scan);
}

struct varlena *
valid_path_first(const char *cache)
{
	struct varlena *info = NULL;
	ValidPathScan *scan;

	if (strlen(cache) > CACHE_NAME_MAX)
		return NULL;
	scan = valid_path_begin();
	if (scan == NULL)
		return NULL;
	begin_cache(scan, cache);
	if (index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot))
	{
		bool		isnull;

		info = PG_DETOAST_DATUM_COPY(slot_getattr(scan->slot, COLUMN_INFO,
												  &isnull));
	}
	valid_path_end(scan);
	return info;
}

/* INSERT may leave the hash out: it is that of the narinfo. */
Datum
valid_path_fill_hash(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	int			column = COLUMN_HASH;
	bool		isnull;
	Datum		datum;
	struct varlena *info;
	Datum		hash;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("valid_path_fill_hash() is a trigger function")));
	row = trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	if (!heap_attisnull(row, COLUMN_HASH, desc))
		return PointerGetDatum(row);
	datum = heap_getattr(row, COLUMN_INFO, desc, &isnull);
	if (isnull)
		return PointerGetDatum(row);	/* NOT NULL will say so */
	info = PG_DETOAST_DATUM_PACKED(datum);
	hash = PointerGetDatum(packed_store_hash(NARINFO_PACKED(info)));
	row = heap_modify_tuple_by_cols(row, desc, 1, &column, &hash, &isnull);
	return PointerGetDatum(row);
}

/* The narinfo of a row, NULL if it has none. */
static struct varlena *
row_info(HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		datum = heap_getattr(row, COLUMN_INFO, desc, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_PACKED(datum);
}

/* INSERT and UPDATE store what the cache makes of a narinfo. */
Datum
valid_path_sign(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	int			column = COLUMN_INFO;
	bool		isnull;
	Datum		cache;
	struct varlena *offered;
	struct varlena *there = NULL;
	Datum		wanted;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("valid_path_sign() is a trigger function")));
	row = trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	if (node_takes_dump())
		return PointerGetDatum(row);	/* as it was */
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		there = row_info(row, desc);
		row = trigger->tg_newtuple;
	}
	cache = heap_getattr(row, COLUMN_CACHE, desc, &isnull);
	offered = row_info(row, desc);
	if (isnull || offered == NULL)
		return PointerGetDatum(row);	/* NOT NULL will say so */
	wanted = PointerGetDatum(policy_sign(TextDatumGetCString(cache), offered,
										 there));
	if (wanted == PointerGetDatum(offered))
		return PointerGetDatum(row);
	row = heap_modify_tuple_by_cols(row, desc, 1, &column, &wanted, &isnull);
	return PointerGetDatum(row);
}
