/*-------------------------------------------------------------------------
 *
 * hidden.c
 *	  What is valid in a cache, and not shown yet: paths whose last publish is
 *	  beyond the watermark (sites/watermark.h), where the cache has
 *	  visible_copies.
 *
 * A process keeps these paths of each such cache, with the numbers of their
 * events: it reads the events behind those that it has read before, once a
 * snapshot.  Caches without the setting cost nothing.
 *
 * Whoever may push is shown everything: what he pushes refers to what is
 * valid, seen or not, and what he were told is missing he would push again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "cache/event.h"
#include "cache/hashset.h"
#include "serve/auth.h"
#include "serve/route.h"
#include "sites/watermark.h"
#include "types/types.h"

/* One whose event is shown by now goes when there are so many of them. */
#define STALE_MAX 1000

#define KINDS_MAX 32			/* kinds of events are fewer */

typedef struct HiddenPath
{
	HashKey		key;
	int64		seq;			/* of its last publish or replace */
	char		status;
} HiddenPath;

#define SH_PREFIX hidden
#define SH_ELEMENT_TYPE HiddenPath
#define SH_KEY_TYPE HashKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) \
	((uint32) hash_bytes_xxh3((key).bytes, STORE_HASH_LEN, MyProcPid))
#define SH_EQUAL(table, a, b) \
	(memcmp((a).bytes, (b).bytes, STORE_HASH_LEN) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct HiddenCache
{
	char		name[CACHE_NAME_MAX + 1];
	uint64		completions;	/* of its snapshot; 0: not known */
	int64		watermark;
	int64		read_to;		/* last event that was read */
	int32		epoch;			/* of the last event then */
	hidden_hash *paths;
} HiddenCache;

static HTAB *caches = NULL;

static HiddenCache *
find_cache(const char *name)
{
	HiddenCache *cache;
	bool		found;

	if (caches == NULL)
	{
		HASHCTL		control;

		control.keysize = CACHE_NAME_MAX + 1;
		control.entrysize = sizeof(HiddenCache);
		control.hcxt = TopMemoryContext;
		caches = hash_create("narinfo hidden paths", 8, &control,
							 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	cache = hash_search(caches, name, HASH_ENTER, &found);
	if (!found)
	{
		cache->completions = 0;
		cache->watermark = WATERMARK_NONE;
		cache->read_to = 0;
		cache->epoch = 0;
		cache->paths = NULL;
	}
	return cache;
}

/* ---- reading ---- */

/* What a kind of event does to a path, each looked up once a reading. */
typedef struct Kinds
{
	int			n;
	Oid			values[KINDS_MAX];
	bool		publishes[KINDS_MAX];
} Kinds;

static bool
publishes(Kinds *kinds, Oid kind)
{
	char	   *label;

	for (int i = 0; i < kinds->n; i++)
	{
		if (kinds->values[i] == kind)
			return kinds->publishes[i];
	}
	label = event_kind_label(kind);
	if (kinds->n == KINDS_MAX)
		kinds->n = 0;
	kinds->values[kinds->n] = kind;
	kinds->publishes[kinds->n] = strcmp(label, "publish") == 0 ||
		strcmp(label, "replace") == 0;
	return kinds->publishes[kinds->n++];
}

static void
read_event(HiddenCache *cache, Kinds *kinds, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		hash = slot_getattr(slot, EVENT_COLUMN_HASH + 1, &isnull);
	Oid			kind;
	HashKey		key;
	bool		found;

	if (isnull)
		return;
	kind = DatumGetObjectId(slot_getattr(slot, EVENT_COLUMN_KIND + 1,
										 &isnull));
	if (!publishes(kinds, kind))
		return;
	memcpy(key.bytes, DatumGetStoreHash(hash), STORE_HASH_LEN);
	hidden_insert(cache->paths, key, &found)->seq = cache->read_to;
}

static void
read_events(HiddenCache *cache)
{
	EventScan  *scan = event_scan_begin(cache->name, cache->read_to);
	Kinds		kinds = {.n = 0};
	TupleTableSlot *slot;

	while ((slot = event_scan_next(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		cache->read_to = DatumGetInt64(slot_getattr(slot,
													EVENT_COLUMN_SEQ + 1,
													&isnull));
		read_event(cache, &kinds, slot);
	}
	event_scan_end(scan);
}

/* From the watermark on, with nothing known. */
static void
start_over(HiddenCache *cache, int64 watermark)
{
	if (cache->paths != NULL)
		hidden_destroy(cache->paths);
	cache->paths = NULL;
	cache->paths = hidden_create(TopMemoryContext, 64, NULL);
	cache->read_to = watermark;
}

/* Is what we have read a part of what is there now? */
static bool
goes_on(const HiddenCache *cache, int64 watermark, const EventPosition *last)
{
	return cache->paths != NULL && watermark >= cache->watermark &&
		watermark <= cache->read_to && last->epoch == cache->epoch &&
		last->seq >= cache->read_to &&
		cache->paths->members <= cache->read_to - watermark + STALE_MAX;
}

static void
refresh(HiddenCache *cache, uint64 completions)
{
	int64		watermark = watermark_of(cache->name);
	EventPosition last;

	cache->completions = 0;
	if (watermark != WATERMARK_NONE)
	{
		event_read_last(cache->name, &last);
		if (!goes_on(cache, watermark, &last))
			start_over(cache, watermark);
		cache->watermark = watermark;
		cache->epoch = last.epoch;
		read_events(cache);
	}
	cache->watermark = watermark;
	cache->completions = completions;
}

static HiddenCache *
refreshed(const CacheInfo *info, uint64 completions)
{
	HiddenCache *cache = find_cache(info->name);

	if (completions == 0 || cache->completions != completions)
		refresh(cache, completions);
	return cache;
}

/* ---- asking ---- */

bool
hidden_path(const CacheInfo *info, const uint8 *hash, uint64 completions)
{
	HiddenCache *cache;
	HiddenPath *path;
	HashKey		key;

	if (info->visible_copies == 0)
		return false;
	cache = refreshed(info, completions);
	if (cache->watermark == WATERMARK_NONE)
		return false;
	memcpy(key.bytes, hash, STORE_HASH_LEN);
	path = hidden_lookup(cache->paths, key);
	return path != NULL && path->seq > cache->watermark;
}

int64
hidden_from(const CacheInfo *info)
{
	int64		watermark = info->visible_copies == 0 ? WATERMARK_NONE :
		watermark_of(info->name);

	return watermark == WATERMARK_NONE ? PG_INT64_MAX : watermark;
}

ServeResult
shown_narinfo(HttpRequest *req, const CacheInfo *cache,
			  const uint8 hash[STORE_HASH_LEN], struct varlena **info)
{
	ServeResult result = batch_narinfo(cache, hash, info);

	if (result != SERVE_FOUND || cache->visible_copies == 0 ||
		!batch_hides(cache, hash) || auth_may(req, cache, AUTH_PUSH))
		return result;
	return SERVE_ABSENT;
}
