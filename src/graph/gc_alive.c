/*-------------------------------------------------------------------------
 *
 * gc_alive.c
 *	  What came alive since a collection was planned.
 *
 * What was planned was closed under referrers: nothing that stayed referred
 * to it.  So whatever refers to a planned path now has been published since,
 * or replaced, and there is an event of that; and it is enough to follow
 * references as long as they lead to planned paths.
 *
 * A path that was spared once has spared all that it needed.  When another
 * narinfo takes its place there is an event of that too, so what is spared
 * need not be passed again but for its own events.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/gc.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/event.h"
#include "cache/gate.h"
#include "graph/root.h"
#include "types/operators.h"

typedef struct PlannedKey
{
	uint8		bytes[STORE_HASH_LEN];
} PlannedKey;

/* 28 bytes */
typedef struct Planned
{
	PlannedKey	key;
	uint32		place;
	bool		spared;
	char		status;
} Planned;

/* Whoever publishes chooses the hashes, so they are hashed with a seed. */
#define SH_PREFIX planned
#define SH_ELEMENT_TYPE Planned
#define SH_KEY_TYPE PlannedKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) \
	((uint32) hash_bytes_xxh3((key).bytes, STORE_HASH_LEN, MyProcPid))
#define SH_EQUAL(table, a, b) \
	(memcmp((a).bytes, (b).bytes, STORE_HASH_LEN) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Places, or paths that are to be passed. */
typedef struct List64
{
	Datum	   *values;
	int			n;
	int			max;
} List64;

struct GcAlive
{
	MemoryContext context;
	MemoryContext row_context;
	int64		plan;
	char	   *cache;
	planned_hash *planned;
	List64		spared;			/* places that were not written down */
	PlannedKey *stack;			/* spared, and their references not yet */
	int			nstack;
	int			stack_max;
	ValidPathScan *scan;		/* while something is looked at */
	int64		roots;			/* seen by the visit at hand */
};

GcAlive *
gc_alive_begin(MemoryContext context, int64 plan, const char *cache,
			   uint32 expected)
{
	GcAlive    *alive = MemoryContextAllocZero(context, sizeof(GcAlive));

	alive->context = context;
	alive->row_context = AllocSetContextCreate(context, "narinfo alive row",
											   ALLOCSET_DEFAULT_SIZES);
	alive->plan = plan;
	alive->cache = MemoryContextStrdup(context, cache);
	alive->planned = planned_create(context, Max(expected, 1024), NULL);
	alive->spared.max = 256;
	alive->spared.values = MemoryContextAlloc(context, sizeof(Datum) * 256);
	alive->stack_max = 256;
	alive->stack = MemoryContextAlloc(context, sizeof(PlannedKey) * 256);
	return alive;
}

void
gc_alive_add(GcAlive *alive, const uint8 *hash, int64 place, bool spared)
{
	PlannedKey	key;
	Planned    *entry;
	bool		found;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	entry = planned_insert(alive->planned, key, &found);
	entry->place = (uint32) place;
	entry->spared = spared;
}

static Planned *
find(GcAlive *alive, const uint8 *hash)
{
	PlannedKey	key;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	return planned_lookup(alive->planned, key);
}

bool
gc_alive_is_spared(GcAlive *alive, const uint8 *hash)
{
	Planned    *entry = find(alive, hash);

	return entry != NULL && entry->spared;
}

/*-------------------------------------------------------------------------
 * Sparing
 *-------------------------------------------------------------------------
 */

/* Its references have to be passed next. */
static void
push(GcAlive *alive, const uint8 *hash)
{
	if (alive->nstack == alive->stack_max)
	{
		alive->stack_max *= 2;
		alive->stack = repalloc_huge(alive->stack, sizeof(PlannedKey) *
									 (Size) alive->stack_max);
	}
	memcpy(alive->stack[alive->nstack++].bytes, hash, STORE_HASH_LEN);
}

static void
spare(GcAlive *alive, const uint8 *hash)
{
	Planned    *entry = find(alive, hash);
	List64	   *spared = &alive->spared;

	if (entry == NULL || entry->spared)
		return;
	entry->spared = true;
	if (spared->n == spared->max)
	{
		spared->max *= 2;
		spared->values = repalloc_huge(spared->values, sizeof(Datum) *
									   (Size) spared->max);
	}
	spared->values[spared->n++] = Int64GetDatum(entry->place);
	push(alive, hash);
}

/* As far as planned paths go. */
static void
pass_references(GcAlive *alive)
{
	MemoryContext old = MemoryContextSwitchTo(alive->row_context);

	while (alive->nstack > 0)
	{
		PlannedKey	key = alive->stack[--alive->nstack];
		struct varlena *info;

		CHECK_FOR_INTERRUPTS();
		info = valid_path_find(alive->scan, alive->cache, key.bytes);
		if (info != NULL)
		{
			const uint8 *packed = NARINFO_PACKED(info);

			for (uint32 i = 0; i < packed_nrefs(packed); i++)
				spare(alive, packed_ref(packed, i));
		}
		MemoryContextReset(alive->row_context);
	}
	MemoryContextSwitchTo(old);
}

/* SPI may have been connected and finished in between: ours is older. */
static void
begin_looking(GcAlive *alive)
{
	alive->scan = valid_path_begin();
	alive->nstack = 0;
}

static void
end_looking(GcAlive *alive)
{
	pass_references(alive);
	valid_path_end(alive->scan);
	alive->scan = NULL;
}

void
gc_alive_spare(GcAlive *alive, const uint8 *hash)
{
	begin_looking(alive);
	spare(alive, hash);
	end_looking(alive);
}

/*-------------------------------------------------------------------------
 * Where to look
 *-------------------------------------------------------------------------
 */

static void
look_at_root(void *arg, const uint8 *hash, const char *name)
{
	GcAlive    *alive = arg;

	(void) name;
	alive->roots++;
	spare(alive, hash);
}

void
gc_alive_roots(GcAlive *alive)
{
	begin_looking(alive);
	alive->roots = 0;
	(void) root_visit(alive->cache, look_at_root, alive);
	if (alive->roots == 0)
		gc_refuse_no_roots(alive->cache, 0);
	end_looking(alive);
}

static GcMeaning
meaning_of(Oid kind)
{
	char	   *label = event_kind_label(kind);
	GcMeaning	meaning = GC_EVENT_NOTHING;

	if (strcmp(label, "publish") == 0 || strcmp(label, "replace") == 0)
		meaning = GC_EVENT_PATH;
	else if (strcmp(label, "pin") == 0 || strcmp(label, "unpin") == 0 ||
			 strcmp(label, "add_root_source") == 0 ||
			 strcmp(label, "drop_root_source") == 0)
		meaning = GC_EVENT_ROOTS;
	pfree(label);
	return meaning;
}

GcMeaning
gc_event_meaning(TupleTableSlot *slot, GcKind *known)
{
	bool		isnull;
	Oid			kind = DatumGetObjectId(slot_getattr(slot,
													 EVENT_COLUMN_KIND + 1,
													 &isnull));

	if (kind != known->kind)
	{
		known->kind = kind;
		known->meaning = meaning_of(kind);
	}
	return known->meaning;
}

/* Itself, if it was planned; what it refers to in any case. */
static void
look_at_path(GcAlive *alive, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		hash = slot_getattr(slot, EVENT_COLUMN_HASH + 1, &isnull);

	if (isnull)
		return;
	spare(alive, DatumGetStoreHash(hash));
	push(alive, DatumGetStoreHash(hash));
	pass_references(alive);
}

static int64
seq_of(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, EVENT_COLUMN_SEQ + 1, &isnull));
}

int64
gc_alive_events(GcAlive *alive, int64 after)
{
	GcKind		known = {0};
	bool		roots_changed = false;
	int64		last = after;
	EventScan  *scan;
	TupleTableSlot *slot;

	begin_looking(alive);
	scan = event_scan_begin(alive->cache, after);
	while ((slot = event_scan_next(scan, ForwardScanDirection)) != NULL)
	{
		int64		seq = seq_of(slot);

		CHECK_FOR_INTERRUPTS();
		if (seq != last + 1)
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_BEHIND),
					 errmsg("plan " INT64_FORMAT " is too old",
							alive->plan),
					 errdetail("Event " INT64_FORMAT
							   " of cache \"%s\" is not kept any more.",
							   last + 1, alive->cache),
					 errhint("Make another one with narinfo.gc_plan().")));
		last = seq;
		switch (gc_event_meaning(slot, &known))
		{
			case GC_EVENT_PATH:
				look_at_path(alive, slot);
				break;
			case GC_EVENT_ROOTS:
				roots_changed = true;
				break;
			default:
				break;
		}
	}
	event_scan_end(scan);
	end_looking(alive);
	if (roots_changed)
		gc_alive_roots(alive);
	return last;
}

static void
look_at_touched(void *arg, HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	spare(arg, DatumGetStoreHash(SPI_getbinval(row, desc, 1, &isnull)));
}

void
gc_alive_touched(GcAlive *alive, Datum hashes, TimestampTz since)
{
	Oid			types[] = {
		TEXTOID, cache_catalog()->store_hash_array_type, TIMESTAMPTZOID
	};
	Datum		values[] = {
		CStringGetTextDatum(alive->cache), hashes, TimestampTzGetDatum(since)
	};

	begin_looking(alive);
	gc_each_row("SELECT hash FROM narinfo.touched "
				"WHERE cache OPERATOR(pg_catalog.=) $1 "
				"AND hash OPERATOR(narinfo.=) ANY ($2) "
				"AND at OPERATOR(pg_catalog.>=) $3",
				lengthof(types), types, values, look_at_touched, alive);
	end_looking(alive);
}

/*-------------------------------------------------------------------------
 * Writing down
 *-------------------------------------------------------------------------
 */

int64
gc_alive_store(GcAlive *alive)
{
	int			n = alive->spared.n;
	Oid			types[] = {INT8OID, INT8ARRAYOID};
	Datum		values[2];

	if (n == 0)
		return 0;
	values[0] = Int64GetDatum(alive->plan);
	values[1] = PointerGetDatum(construct_array(alive->spared.values, n,
												INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	(void) gc_execute("UPDATE narinfo.gc_plan_path SET spared = true "
					  "WHERE plan OPERATOR(pg_catalog.=) $1 "
					  "AND place OPERATOR(pg_catalog.=) ANY ($2)",
					  lengthof(types), types, values, NULL);
	alive->spared.n = 0;
	return n;
}
