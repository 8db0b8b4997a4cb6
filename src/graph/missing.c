/*-------------------------------------------------------------------------
 *
 * missing.c
 *	  References to what is not valid, which only a cache that does not
 *	  require closures has.
 *
 * The hashes of all paths first, 24 to 50 bytes of memory each, so that no
 * reference is looked up.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "utils/builtins.h"

#include "cache/hashset.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_missing);

typedef struct Missing
{
	hashset_hash *valid;
	ReturnSetInfo *result;
} Missing;

static void
note_valid(void *arg, const uint8 *hash, const struct varlena *info)
{
	Missing    *missing = arg;

	(void) info;
	add_hash(missing->valid, hash);
}

static bool
has_all(hashset_hash * valid, const uint8 *packed)
{
	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		if (!has_hash(valid, packed_ref(packed, i)))
			return false;
	}
	return true;
}

static void
tell_missing(void *arg, const uint8 *hash, const struct varlena *info)
{
	Missing    *missing = arg;
	PackedRefs	refs;
	StorePath	path;
	Datum		values[2];
	bool		nulls[2] = {false};

	(void) hash;
	if (!packed_check(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info)) ||
		!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	if (has_all(missing->valid, NARINFO_PACKED(info)))
		return;
	values[1] = PointerGetDatum(store_path_make(&path));
	while (packed_next_ref(&refs, &path))
	{
		if (has_hash(missing->valid, path.hash))
			continue;
		values[0] = PointerGetDatum(store_path_make(&path));
		tuplestore_putvalues(missing->result->setResult,
							 missing->result->setDesc, values, nulls);
	}
}

/* missing(cache text) -> table (reference, wanted_by) */
Datum
graph_missing(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CacheInfo	known;
	Missing		missing;

	InitMaterializedSRF(fcinfo, 0);
	cache_require(cache, &known);
	missing.result = (ReturnSetInfo *) fcinfo->resultinfo;
	missing.valid = hashset_create(CurrentMemoryContext, 1024, NULL);
	valid_path_each(cache, note_valid, &missing);
	valid_path_each(cache, tell_missing, &missing);
	hashset_destroy(missing.valid);
	PG_RETURN_VOID();
}
