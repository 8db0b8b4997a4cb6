/*-------------------------------------------------------------------------
 *
 * known.c
 *	  What this session knows to be valid; see known.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/known.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "cache/cache.h"
#include "cache/hashset.h"
#include "cache/row.h"

#define CACHES_MAX		4		/* caches of which anything is known */
#define EVENTS_MAX		10000	/* of others that are caught up with */
#define FEW				16384	/* paths that any session may remember */
#define BYTES_A_PATH	48		/* at most, in a table that has just grown */

struct KnownPaths
{
	char		cache[CACHE_NAME_MAX + 1];	/* "": unused */
	EventPosition at;
	MemoryContext context;
	hashset_hash *paths;
	uint64		max;
	bool		pending;		/* the transaction has not committed yet */
};

static KnownPaths all[CACHES_MAX];

static void
forget(KnownPaths *known)
{
	if (known->context != NULL)
		MemoryContextDelete(known->context);
	memset(known, 0, sizeof(KnownPaths));
}

static KnownPaths *
find(const char *cache)
{
	static int	oldest = 0;

	for (int i = 0; i < CACHES_MAX; i++)
	{
		if (strcmp(all[i].cache, cache) == 0)
			return &all[i];
	}
	oldest = (oldest + 1) % CACHES_MAX;
	forget(&all[oldest]);
	return &all[oldest];
}

static void
start(KnownPaths *known, const char *cache)
{
	forget(known);
	known->context = AllocSetContextCreate(TopMemoryContext,
										   "narinfo known paths",
										   ALLOCSET_DEFAULT_SIZES);
	known->paths = hashset_create(known->context, 256, NULL);
	strlcpy(known->cache, cache, sizeof(known->cache));
}

/* One event that is not ours.  Most are of a kind that takes nothing out. */
static void
follow_event(KnownPaths *known, TupleTableSlot *slot, Oid *harmless)
{
	bool		isnull;
	Oid			kind = DatumGetObjectId(slot_getattr(slot,
													 EVENT_COLUMN_KIND + 1,
													 &isnull));
	Datum		hash = slot_getattr(slot, EVENT_COLUMN_HASH + 1, &isnull);
	const char *label;

	if (kind == *harmless)
		return;
	label = event_kind_label(kind);
	if (strcmp(label, "drop_cache") == 0)
		hashset_reset(known->paths);
	else if (strcmp(label, "retract") == 0 && !isnull)
		known_remove(known, DatumGetStoreHash(hash));
	else
		*harmless = kind;
}

/* Makes true of the last event what was true of an earlier one, or fails. */
static bool
catch_up(KnownPaths *known, const EventPosition *last)
{
	EventScan  *scan;
	TupleTableSlot *slot;
	EventPosition position;
	Oid			harmless = InvalidOid;
	bool		same;

	if (known->at.seq == last->seq)
		return memcmp(known->at.digest, last->digest, DIGEST_LEN) == 0;
	if (known->at.seq == 0 || known->at.seq > last->seq ||
		last->seq - known->at.seq > EVENTS_MAX)
		return false;
	scan = event_scan_begin(known->cache, known->at.seq - 1);
	slot = event_scan_next(scan, ForwardScanDirection);
	if (slot != NULL)
		event_read_position(slot, &position);
	same = slot != NULL && position.seq == known->at.seq &&
		memcmp(known->at.digest, position.digest, DIGEST_LEN) == 0;
	while (same &&
		   (slot = event_scan_next(scan, ForwardScanDirection)) != NULL)
		follow_event(known, slot, &harmless);
	event_scan_end(scan);
	return same;
}

KnownPaths *
known_begin(const char *cache, const EventPosition *last, bool many)
{
	KnownPaths *known = find(cache);
	uint64		max = FEW;

	if (many)
		max = Max(max, (uint64) maintenance_work_mem * 1024 / BYTES_A_PATH);
	if (known->paths == NULL || known->paths->size > 4 * max ||
		!catch_up(known, last))
		start(known, cache);
	known->max = max;
	known->at = *last;
	known->pending = true;
	return known;
}

bool
known_has(KnownPaths *known, const uint8 *hash)
{
	return has_hash(known->paths, hash);
}

void
known_add(KnownPaths *known, const uint8 *hash)
{
	/* any part of it is as true as the whole */
	if (known->paths->members >= known->max)
		hashset_reset(known->paths);
	add_hash(known->paths, hash);
}

void
known_remove(KnownPaths *known, const uint8 *hash)
{
	HashKey		key;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	(void) hashset_delete(known->paths, key);
}

void
known_end(KnownPaths *known, const EventPosition *last)
{
	known->at = *last;
}

void
known_end_transaction(bool committed)
{
	for (int i = 0; i < CACHES_MAX; i++)
	{
		if (all[i].pending && !committed)
			forget(&all[i]);
		all[i].pending = false;
	}
}
