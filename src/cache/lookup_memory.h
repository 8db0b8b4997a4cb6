/*-------------------------------------------------------------------------
 *
 * lookup_memory.h
 *	  What a process remembers of its lookups in valid_path, in bounded
 *	  memory: where rows are, and which are absent.
 *
 * A place is a guess and no more: whoever uses it fetches the row there under
 * a snapshot and compares its key, so nothing that happens to the table has
 * to be told here.
 *
 * An absence is exact: it is remembered with the number of transactions that
 * had ended by the snapshot that saw it (snapXactCompletionCount), and holds
 * for snapshots of the same number, which see the same rows.  PostgreSQL uses
 * a snapshot again by that rule, on hot standbys too.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_LOOKUP_MEMORY_H
#define NARINFO_CACHE_LOOKUP_MEMORY_H

#include "postgres.h"

#include "storage/itemptr.h"

#include "base/nix32.h"

/*
 * Takes this much memory at most, as it comes to be used: half of it for
 * places, 8 bytes each, half for absences, 32 bytes each.  What was known is
 * forgotten when that changes.  0, as at the beginning: none.
 */
extern void lookup_memory_resize(size_t bytes);

/* "cache" is the number of a CacheInfo. */
extern bool lookup_recall_place(uint32 cache,
								const uint8 hash[STORE_HASH_LEN],
								ItemPointer tid);
extern void lookup_remember_place(uint32 cache,
								  const uint8 hash[STORE_HASH_LEN],
								  const ItemPointerData *tid);

/* "completions" 0: not known, so nothing is remembered. */
extern bool lookup_recall_absence(uint32 cache,
								  const uint8 hash[STORE_HASH_LEN],
								  uint64 completions);
extern void lookup_remember_absence(uint32 cache,
									const uint8 hash[STORE_HASH_LEN],
									uint64 completions);

#endif							/* NARINFO_CACHE_LOOKUP_MEMORY_H */
