/*-------------------------------------------------------------------------
 *
 * gate.h
 *	  The gate that every change of a cache passes: see gate.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_GATE_H
#define NARINFO_CACHE_GATE_H

#include "postgres.h"

#include "cache/cache.h"
#include "cache/change.h"
#include "cache/event.h"
#include "cache/hashset.h"
#include "cache/known.h"

/* Callbacks at the end of transactions; called once by _PG_init. */
extern void gate_init(void);

/* Does a transaction pass just now, with the locks of its caches? */
extern bool gate_is_passing(void);

/*
 * Takes the lock of a cache until the end of the transaction: whoever has it
 * sees the cache as it is and stays until the next number is taken.  To be
 * taken in the order of the names, or not while another is held.
 */
extern void gate_lock_cache(const char *cache);

/*
 * Lets go of it at once: for those who change nothing, and only wanted all
 * that others had begun to commit to be seen.
 */
extern void gate_unlock_cache(const char *cache);

/* Notes that a path was published as it is: at the end it is "touched". */
extern void gate_touch(const char *cache, const uint8 hash[STORE_HASH_LEN]);

/*
 * The same for those of these store_hashes that are valid, without publishing
 * them; how many.  The transaction fails with
 * ERRCODE_T_R_SERIALIZATION_FAILURE at its end if one was taken out meanwhile.
 */
extern int64 gate_touch_valid(const char *cache, const Datum *hashes, int n);

/*
 * ---- what the rules look at (rules.c) ----
 *
 * All net changes of one cache: sorted by table and key, one a row.
 */
typedef struct CacheChanges
{
	const char *name;
	CacheInfo	info;			/* as it will be */
	bool		exists;			/* it will; else "info" is empty */
	Change	   *changes;
	uint64		n;
	EventPosition last;			/* the event before them */
	KnownPaths *known;			/* NULL: references need not be valid */
} CacheChanges;

/* Is it a path that is valid now, as it was not before; or none any more? */
static inline bool
is_published(const Change *change)
{
	return change->table == GATED_VALID_PATH &&
		!(change->flags & CHANGE_TOUCH) && (change->flags & CHANGE_HAS_NEW);
}

static inline bool
is_removed(const Change *change)
{
	return change->table == GATED_VALID_PATH &&
		!(change->flags & (CHANGE_TOUCH | CHANGE_HAS_NEW));
}

/* Raises an error when the cache would not be as it has to be. */
extern void rules_check(const CacheChanges *cache);

/*
 * A room above has rules of its own, which are asked last, with the lock of
 * the cache and a fresh snapshot; called by its init.
 */
typedef void (*RuleCheck) (const CacheChanges *cache);

extern void rules_add(RuleCheck check);

/*
 * ---- closures (closure.c) ----
 *
 * The references of paths are looked up once each.
 */
typedef struct ClosureCheck ClosureCheck;

extern ClosureCheck *closure_begin(const char *cache, ValidPathScan *scan,
								   uint64 npaths);

/*
 * Are all of these valid with these changes?  What is found is remembered.
 */
extern bool closure_holds(const CacheChanges *cache, hashset_hash *refs);

/* This path is valid: it need not be looked up. */
extern void closure_add(ClosureCheck *check, const uint8 *hash);

/* Raises ERRCODE_NARINFO_DANGLING if a reference of it is not valid. */
extern void closure_check(ClosureCheck *check, const struct varlena *info);
extern void closure_end(ClosureCheck *check);

/* The same for every path of a cache. */
extern void closure_check_all(const char *cache);

/*
 * Raises ERRCODE_NARINFO_DANGLING if a valid path refers to one of these,
 * which are not valid any more.
 */
extern void closure_check_removed(const char *cache, const Change *removed,
								  uint64 n);

#endif							/* NARINFO_CACHE_GATE_H */
