/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  publish(info, cache) and publish_many(infos, cache).
 *
 * They write valid_path, each path in the way its row wants: none is updated
 * that is right already.  The gate does the rest,
 * as with rows that anybody else writes.
 *
 * Rows are written in the order of their hashes, so that two batches that
 * have paths in common wait for each other, and never both.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cache/gate.h"
#include "cache/policy.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(publish);
PG_FUNCTION_INFO_V1(publish_many);

typedef enum PathState
{
	PATH_OPEN = 0,				/* not looked at, or lost to somebody else */
	PATH_NEW,
	PATH_OTHER,					/* there, but not the same */
	PATH_DONE
} PathState;

typedef struct Path
{
	struct varlena *info;
	const uint8 *hash;			/* in it */
	PathState	state;
} Path;

typedef struct Publishing
{
	const char *cache;
	Path	   *paths;
	int			n;
	int64		changed;
} Publishing;

/*-------------------------------------------------------------------------
 * Queries, prepared once a session
 *-------------------------------------------------------------------------
 */

static SPIPlanPtr insert_plan = NULL;
static SPIPlanPtr update_plan = NULL;
static Oid	planned_type = InvalidOid;	/* narinfo when they were prepared */

static SPIPlanPtr
prepare(SPIPlanPtr previous, const char *query, int nargs, Oid *types)
{
	SPIPlanPtr	plan;

	if (previous)
		SPI_freeplan(previous);
	plan = SPI_prepare(query, nargs, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", query);
	return plan;
}

static void
prepare_plans(void)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			insert_types[] = {
		TEXTOID, catalog->store_hash_array_type, catalog->narinfo_array_type
	};
	Oid			update_types[] = {
		TEXTOID, catalog->store_hash_type, catalog->narinfo_type
	};

	/* the extension may have been made again since */
	if (planned_type == catalog->narinfo_type)
		return;
	planned_type = InvalidOid;
	insert_plan = prepare(insert_plan,
						  "INSERT INTO narinfo.valid_path (cache, hash, info) "
						  "SELECT $1, t.hash, t.info "
						  "FROM ROWS FROM (pg_catalog.unnest($2), "
						  "pg_catalog.unnest($3)) AS t (hash, info) "
						  "ON CONFLICT DO NOTHING RETURNING hash",
						  lengthof(insert_types), insert_types);
	update_plan = prepare(update_plan,
						  "UPDATE narinfo.valid_path SET info = $3 "
						  "WHERE cache = $1 AND hash OPERATOR(narinfo.=) $2",
						  lengthof(update_types), update_types);
	planned_type = catalog->narinfo_type;
}

/*
 * With a fresh snapshot whatever the isolation level, as look() has: an older
 * one would not find the rows that it has seen, and it would look for ever.
 */
static void
execute(SPIPlanPtr plan, Datum *values)
{
	MemoryContext old = CurrentMemoryContext;
	int			result = SPI_execute_snapshot(plan, values, NULL,
											  GetLatestSnapshot(),
											  InvalidSnapshot, false, true,
											  0);

	MemoryContextSwitchTo(old);
	if (result < 0)
		elog(ERROR, "publish: SPI_execute_snapshot failed: %s",
			 SPI_result_code_string(result));
}

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

static bool
same_info(const struct varlena *a, const struct varlena *b)
{
	size_t		len = NARINFO_PACKED_LEN(a);

	if (len == NARINFO_PACKED_LEN(b) &&
		memcmp(NARINFO_PACKED(a), NARINFO_PACKED(b), len) == 0)
		return true;
	return DatumGetBool(DirectFunctionCall2(narinfo_eq, PointerGetDatum(a),
											PointerGetDatum(b)));
}

/* Does the cache keep what it has?  Then another NarHash is noted. */
static bool
is_kept(Publishing *publishing, const struct varlena *there,
		const struct varlena *offered)
{
	CachePolicies policies;

	if (!cache_get_policies(publishing->cache, &policies) ||
		policies.on_divergence != DIVERGENCE_KEEP ||
		same_nar_hash(there, offered))
		return false;
	divergence_note(publishing->cache, there, offered, DIVERGENCE_KEEP);
	return true;
}

/* What is new is signed by the trigger that signs all that is inserted. */
static PathState
compare(Publishing *publishing, Path *path, struct varlena *there)
{
	struct varlena *wanted = policy_sign(publishing->cache, path->info, there);

	if (wanted == there || same_info(there, wanted) ||
		is_kept(publishing, there, wanted))
		return PATH_DONE;
	path->info = wanted;
	path->hash = packed_store_hash(NARINFO_PACKED(wanted));
	return PATH_OTHER;
}

/* What is there of those that are not done, seen with a fresh snapshot. */
static void
look(Publishing *publishing)
{
	ValidPathScan *scan;

	PushActiveSnapshot(GetLatestSnapshot());
	scan = valid_path_begin();
	for (int i = 0; i < publishing->n; i++)
	{
		Path	   *path = &publishing->paths[i];
		struct varlena *there;

		CHECK_FOR_INTERRUPTS();
		if (path->state == PATH_DONE)
			continue;
		there = valid_path_find(scan, publishing->cache, path->hash);
		path->state = there == NULL ? PATH_NEW :
			compare(publishing, path, there);
		if (path->state == PATH_DONE)
			gate_touch(publishing->cache, path->hash);
	}
	valid_path_end(scan);
	PopActiveSnapshot();
}

/* Those that were inserted are done; the others somebody else has. */
static void
mark_inserted(Publishing *publishing)
{
	uint64		row = 0;

	for (int i = 0; i < publishing->n; i++)
	{
		Path	   *path = &publishing->paths[i];

		if (path->state != PATH_NEW)
			continue;
		path->state = PATH_OPEN;
		if (row < SPI_processed)
		{
			bool		isnull;
			Datum		hash = SPI_getbinval(SPI_tuptable->vals[row],
											 SPI_tuptable->tupdesc, 1,
											 &isnull);

			/* both are in the order of the hashes */
			if (memcmp(DatumGetStoreHash(hash), path->hash,
					   STORE_HASH_LEN) == 0)
			{
				path->state = PATH_DONE;
				row++;
			}
		}
	}
	publishing->changed += (int64) SPI_processed;
	SPI_freetuptable(SPI_tuptable);
}

static void
insert_new(Publishing *publishing)
{
	const CacheCatalog *catalog = cache_catalog();
	Datum	   *hashes = palloc(sizeof(Datum) * publishing->n);
	Datum	   *infos = palloc(sizeof(Datum) * publishing->n);
	int			n = 0;
	Datum		values[3];

	for (int i = 0; i < publishing->n; i++)
	{
		if (publishing->paths[i].state != PATH_NEW)
			continue;
		hashes[n] = PointerGetDatum(publishing->paths[i].hash);
		infos[n++] = PointerGetDatum(publishing->paths[i].info);
	}
	if (n == 0)
		return;
	values[0] = CStringGetTextDatum(publishing->cache);
	values[1] = PointerGetDatum(construct_array(hashes, n,
												catalog->store_hash_type,
												STORE_HASH_LEN, false,
												TYPALIGN_CHAR));
	values[2] = PointerGetDatum(construct_array(infos, n,
												catalog->narinfo_type, -1,
												false, TYPALIGN_INT));
	execute(insert_plan, values);
	mark_inserted(publishing);
}

static void
update_others(Publishing *publishing)
{
	Datum		cache = CStringGetTextDatum(publishing->cache);

	for (int i = 0; i < publishing->n; i++)
	{
		Path	   *path = &publishing->paths[i];
		Datum		values[3] = {cache};

		if (path->state != PATH_OTHER)
			continue;
		values[1] = PointerGetDatum(path->hash);
		values[2] = PointerGetDatum(path->info);
		execute(update_plan, values);
		/* somebody may have removed it since we looked */
		path->state = SPI_processed > 0 ? PATH_DONE : PATH_OPEN;
		publishing->changed += (int64) SPI_processed;
	}
}

/*
 * Most that is published is new, so that is tried first: INSERT looks for
 * itself.  Not where the cache signs, which depends on what is there.
 */
static void
assume_new(Publishing *publishing)
{
	CachePolicies policies;

	if (!cache_get_policies(publishing->cache, &policies) ||
		policies.sign_with[0] != '\0')
		return;
	for (int i = 0; i < publishing->n; i++)
		publishing->paths[i].state = PATH_NEW;
	insert_new(publishing);
}

static bool
has_state(const Publishing *publishing, PathState state)
{
	for (int i = 0; i < publishing->n; i++)
	{
		if (publishing->paths[i].state == state)
			return true;
	}
	return false;
}

static bool
is_done(const Publishing *publishing)
{
	return !has_state(publishing, PATH_OPEN) &&
		!has_state(publishing, PATH_OTHER);
}

/*-------------------------------------------------------------------------
 * The functions
 *-------------------------------------------------------------------------
 */

static int
compare_paths(const void *a, const void *b)
{
	return memcmp(((const Path *) a)->hash, ((const Path *) b)->hash,
				  STORE_HASH_LEN);
}

/* In the order of the hashes, and each once. */
static void
sort_paths(Publishing *publishing)
{
	int			kept = 0;

	qsort(publishing->paths, publishing->n, sizeof(Path), compare_paths);
	for (int i = 0; i < publishing->n; i++)
	{
		Path	   *path = &publishing->paths[i];

		if (kept == 0 ||
			compare_paths(path, &publishing->paths[kept - 1]) != 0)
			publishing->paths[kept++] = *path;
		else if (!same_info(path->info, publishing->paths[kept - 1].info))
			ereport(ERROR,
					(errcode(ERRCODE_CARDINALITY_VIOLATION),
					 errmsg("two narinfos of the same path cannot be published at once")));
	}
	publishing->n = kept;
}

static void
add_path(Publishing *publishing, Datum info)
{
	Path	   *path = &publishing->paths[publishing->n++];

	path->info = PG_DETOAST_DATUM(info);
	path->hash = packed_store_hash(NARINFO_PACKED(path->info));
	path->state = PATH_OPEN;
}

/* How many paths have changed. */
static int64
publish_paths(Publishing *publishing)
{
	CacheInfo	info;

	cache_require(publishing->cache, &info);
	sort_paths(publishing);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	prepare_plans();
	assume_new(publishing);
	while (!is_done(publishing))
	{
		CHECK_FOR_INTERRUPTS();
		look(publishing);
		insert_new(publishing);
		/* one that was lost may have to be updated before others */
		if (!has_state(publishing, PATH_OPEN))
			update_others(publishing);
	}
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	return publishing->changed;
}

Datum
publish(PG_FUNCTION_ARGS)
{
	Publishing	publishing = {0};
	Path		path;

	publishing.cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	publishing.paths = &path;
	add_path(&publishing, PG_GETARG_DATUM(0));
	PG_RETURN_BOOL(publish_paths(&publishing) > 0);
}

Datum
publish_many(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	Publishing	publishing = {0};
	Datum	   *infos;
	bool	   *nulls;
	int			n;

	publishing.cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_INT,
					  &infos, &nulls, &n);
	publishing.paths = palloc_extended(sizeof(Path) * (n + 1),
									   MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("narinfo %d of %d is NULL", i + 1, n)));
		add_path(&publishing, infos[i]);
	}
	PG_RETURN_INT64(publish_paths(&publishing));
}
