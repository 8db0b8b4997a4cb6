/*-------------------------------------------------------------------------
 *
 * touch.c
 *	  touch(hashes, cache): paths that somebody counts on.
 *
 * Whoever asks which paths are missing, and then pushes only those, counts
 * on the others as much as if they had been published again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cache/gate.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(touch);

/* Is the path valid?  What the lookup needs of memory is given back. */
static bool
is_valid(ValidPathScan *scan, const char *cache, const uint8 *hash,
		 MemoryContext row_context)
{
	MemoryContext old = MemoryContextSwitchTo(row_context);
	bool		found = valid_path_find(scan, cache, hash) != NULL;

	MemoryContextSwitchTo(old);
	MemoryContextReset(row_context);
	return found;
}

int64
gate_touch_valid(const char *cache, const Datum *hashes, int n)
{
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo touched",
													  ALLOCSET_DEFAULT_SIZES);
	ValidPathScan *scan;
	int64		touched = 0;

	PushActiveSnapshot(GetLatestSnapshot());
	scan = valid_path_begin();
	for (int i = 0; i < n && scan != NULL; i++)
	{
		const uint8 *hash = DatumGetStoreHash(hashes[i]);

		CHECK_FOR_INTERRUPTS();
		if (!is_valid(scan, cache, hash, row_context))
			continue;
		gate_touch(cache, hash);
		touched++;
	}
	if (scan != NULL)
		valid_path_end(scan);
	PopActiveSnapshot();
	MemoryContextDelete(row_context);
	return touched;
}

Datum
touch(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	CacheInfo	info;
	Datum	   *hashes;
	bool	   *nulls;
	int			n;

	cache_require(cache, &info);
	deconstruct_array(array, ARR_ELEMTYPE(array), STORE_HASH_LEN, false,
					  TYPALIGN_CHAR, &hashes, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("hash %d of %d is NULL", i + 1, n)));
	}
	PG_RETURN_INT64(gate_touch_valid(cache, hashes, n));
}
