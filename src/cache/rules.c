/*-------------------------------------------------------------------------
 *
 * rules.c
 *	  What has to be true of a cache when a transaction commits.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/gate.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/key.h"
#include "cache/offered.h"
#include "cache/policy.h"
#include "cache/token.h"
#include "types/types.h"

/* Rows after which their memory is given back. */
#define RESET_AFTER 64

#define RULES_MAX 4				/* rooms that have some */

static bool
is_touched(const Change *change)
{
	return change->table == GATED_VALID_PATH && (change->flags & CHANGE_TOUCH);
}

/*-------------------------------------------------------------------------
 * What is published
 *-------------------------------------------------------------------------
 */

static void
check_store_dir(const CacheChanges *cache, const struct varlena *info)
{
	Span		dir = span_of(cache->info.store_dir,
							  strlen(cache->info.store_dir));
	PackedRefs	refs;
	StorePath	path;

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	if (!span_equal(path.dir, dir))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_REFUSED),
				 errmsg("store directory %.*s is not that of cache \"%s\", %s",
						(int) path.dir.len, path.dir.data, cache->name,
						cache->info.store_dir)));
}

/*
 * Statements have asked for the policy that they saw: another transaction may
 * have changed it since.
 */
static void
check_replaced(const CacheChanges *cache)
{
	CachePolicies policies;

	/* our own change of it came before or after, as it was wanted */
	if (cache->n > 0 && cache->changes[0].table == GATED_CACHE)
		return;
	for (uint64 i = 0; i < cache->n; i++)
	{
		if (!(cache->changes[i].flags & CHANGE_OTHER) ||
			!is_published(&cache->changes[i]))
			continue;
		if (cache_get_policies(cache->name, &policies) &&
			policies.on_divergence == DIVERGENCE_REPLACE)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_DIVERGENT),
				 errmsg("path is valid in cache \"%s\" with another NarHash",
						cache->name),
				 errdetail("The cache does not replace them any more.")));
	}
}

/*
 * What was published as it is must be so when that commits, or somebody was
 * told of a path that is not there.
 */
static void
check_touched(const CacheChanges *cache)
{
	ValidPathScan *scan = valid_path_begin();
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo touched row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row_context);

	for (uint64 i = 0; i < cache->n; i++)
	{
		if (!is_touched(&cache->changes[i]))
			continue;
		CHECK_FOR_INTERRUPTS();
		if (valid_path_find(scan, cache->name, cache->changes[i].key) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a path was removed from cache \"%s\" while it was published again",
							cache->name),
					 errhint("Try again.")));
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
	valid_path_end(scan);
}

/*
 * What the statements have gathered often shows that all is well; what it
 * does not show may still be so.
 */
static bool
is_shown(const CacheChanges *cache)
{
	const Offered *offered = offered_find(cache->changes[0].cache);
	CachePolicies policies;

	if (offered == NULL || offered->mixed ||
		strcmp(offered->store_dir, cache->info.store_dir) != 0 ||
		!cache_get_policies(cache->name, &policies) ||
		policies.filter[0] != '\0')
		return false;
	if (policies.min_signatures > 0 &&
		(offered->signatures < policies.min_signatures ||
		 offered->keys != key_generation()))
		return false;
	return cache->known == NULL || closure_holds(cache, offered->refs);
}

/* Each row, to say which is wrong and why. */
static void
check_published(const CacheChanges *cache, uint64 npublished)
{
	ValidPathScan *scan = valid_path_begin();
	ClosureCheck *closure = NULL;
	ValidPathScan *references = NULL;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo published row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	PolicyCheck *policy = policy_begin(cache->name);
	uint64		done = 0;

	if (cache->info.require_closure)
	{
		/* one of its own: finding ends the life of what was found before */
		references = valid_path_begin();
		closure = closure_begin(cache->name, references, npublished);
		for (uint64 i = 0; i < cache->n; i++)
		{
			if (is_published(&cache->changes[i]))
				closure_add(closure, cache->changes[i].key);
		}
	}

	old = MemoryContextSwitchTo(row_context);
	for (uint64 i = 0; i < cache->n; i++)
	{
		struct varlena *info;

		if (!is_published(&cache->changes[i]))
			continue;
		info = valid_path_find(scan, cache->name, cache->changes[i].key);
		if (info == NULL)
			elog(ERROR, "a published path is not there");
		check_store_dir(cache, info);
		policy_check(policy, info);
		if (closure)
			closure_check(closure, info);
		if (++done % RESET_AFTER == 0)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(row_context);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);

	if (closure)
	{
		closure_end(closure);
		valid_path_end(references);
	}
	valid_path_end(scan);
}

/*-------------------------------------------------------------------------
 * What is removed
 *-------------------------------------------------------------------------
 */

static void
check_removed(const CacheChanges *cache, uint64 nremoved)
{
	Change	   *removed = palloc_extended(sizeof(Change) * nremoved,
										  MCXT_ALLOC_HUGE);
	uint64		n = 0;

	for (uint64 i = 0; i < cache->n; i++)
	{
		if (is_removed(&cache->changes[i]))
			removed[n++] = cache->changes[i];
	}
	closure_check_removed(cache->name, removed, n);
	pfree(removed);
}

/*-------------------------------------------------------------------------
 * The cache itself
 *-------------------------------------------------------------------------
 */

static void
check_store_dir_of_first(const CacheChanges *cache)
{
	struct varlena *info = valid_path_first(cache->name);

	if (info != NULL)
		check_store_dir(cache, info);
}

static void
check_cache_row(const CacheChanges *cache, const Change *change)
{
	if (change->table != GATED_CACHE)
		return;
	if (!(change->flags & CHANGE_HAS_NEW))
	{
		const char *has = valid_path_first(cache->name) ? "valid paths" :
			key_any(cache->name) ? "keys" :
			token_any(cache->name) ? "tokens" : NULL;

		if (has)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cache \"%s\" still has %s", cache->name, has),
					 errhint("narinfo.drop_cache() removes them too.")));
		return;
	}
	/* all are of the same directory, so one tells */
	check_store_dir_of_first(cache);
	if ((change->flags & CHANGE_RECHECK) && cache->info.require_closure)
		closure_check_all(cache->name);
}

/* Those of rooms above. */
static RuleCheck further_rules[RULES_MAX];
static int	nfurther_rules = 0;

void
rules_add(RuleCheck check)
{
	if (nfurther_rules == RULES_MAX)
		elog(ERROR, "more than %d rooms have rules", RULES_MAX);
	further_rules[nfurther_rules++] = check;
}

void
rules_check(const CacheChanges *cache)
{
	uint64		nadded = 0;
	uint64		npublished = 0;
	uint64		nremoved = 0;
	uint64		ntouched = 0;

	for (uint64 i = 0; i < cache->n; i++)
	{
		nadded += (cache->changes[i].flags & CHANGE_HAS_NEW) != 0;
		npublished += is_published(&cache->changes[i]);
		nremoved += is_removed(&cache->changes[i]);
		ntouched += is_touched(&cache->changes[i]);
		check_cache_row(cache, &cache->changes[i]);
	}
	if (nadded > 0 && !cache->exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cache \"%s\" does not exist", cache->name),
				 errhint("narinfo.create_cache() makes one.")));
	if (npublished > 0)
	{
		check_replaced(cache);
		if (!is_shown(cache))
			check_published(cache, npublished);
	}
	if (ntouched > 0)
		check_touched(cache);
	if (nremoved > 0 && cache->exists && cache->info.require_closure)
		check_removed(cache, nremoved);
	for (int i = 0; i < nfurther_rules; i++)
		further_rules[i] (cache);
}
