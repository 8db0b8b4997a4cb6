/*-------------------------------------------------------------------------
 *
 * gc.h
 *	  Collection: what gc_plan() and gc_run() share.
 *
 *	  gc_plan.c		marks, and stores what would go
 *	  gc_order.c	in which order it can go
 *	  gc_run.c		removes it, in batches
 *	  gc_alive.c	what of it came alive meanwhile
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_GC_H
#define NARINFO_GRAPH_GC_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"

#include "cache/cache.h"

/*
 * A row of touched may be older than the last touch by this: TOUCHED_AGE of
 * gate.c, in microseconds.
 */
#define GC_TOUCH_MARGIN (10 * USECS_PER_SEC)

/*
 * Nobody else collects in this cache, or an error
 * (ERRCODE_LOCK_NOT_AVAILABLE): until the end of the transaction, or of the
 * session or gc_unlock().
 */
extern void gc_lock(const char *cache, bool session);
extern void gc_unlock(const char *cache);

/*
 * Calls back with each row of a query, as the active snapshot has it.  SPI is
 * connected; what the row holds lives for the call, and so does what the
 * callback allocates in the current context of the time, at the least.
 */
typedef void (*GcRowVisitor) (void *arg, HeapTuple row, TupleDesc desc);

extern void gc_each_row(const char *query, int nargs, Oid *types,
						Datum *values, GcRowVisitor visit, void *arg);

/*
 * Runs a statement, SPI being connected; how many rows it was about.  Those
 * that it returns are in SPI_tuptable.
 */
extern uint64 gc_execute(const char *query, int nargs, Oid *types,
						 Datum *values, const char *nulls);

/* Raises ERRCODE_NARINFO_NO_ROOTS: the cache has none, or none is valid. */
extern void gc_refuse_no_roots(const char *cache, int64 roots)
			pg_attribute_noreturn();

/* What an event means to whoever collects. */
typedef enum GcMeaning
{
	GC_EVENT_NOTHING,
	GC_EVENT_PATH,				/* its path is used, and what that needs */
	GC_EVENT_ROOTS				/* what is a root may have changed */
} GcMeaning;

/* Events come in runs of one kind: the last one that was asked for. */
typedef struct GcKind
{
	Oid			kind;
	GcMeaning	meaning;
} GcKind;

extern GcMeaning gc_event_meaning(TupleTableSlot *slot, GcKind *known);

/*
 * ---- what came alive since a plan was made (gc_alive.c) ----
 *
 * It knows the planned paths that have not gone.  What a publish since then
 * refers to, what was touched and what is a root now is spared for good, with
 * all that it needs.
 */
typedef struct GcAlive GcAlive;

/* For so many planned paths: at most 62 bytes each. */
extern GcAlive *gc_alive_begin(MemoryContext context, int64 plan,
							   const char *cache, uint32 expected);

/* A planned path, and its place in the plan. */
extern void gc_alive_add(GcAlive *alive, const uint8 *hash, int64 place,
						 bool spared);
extern bool gc_alive_is_spared(GcAlive *alive, const uint8 *hash);

/* Spares a path, if it is planned, and what it needs. */
extern void gc_alive_spare(GcAlive *alive, const uint8 *hash);

/*
 * Looks at the events behind a number, as the active snapshot has them, and at
 * the roots if one of them changes what the roots are; the number of the last
 * one.  Raises ERRCODE_NARINFO_BEHIND when some are not kept any more.
 */
extern int64 gc_alive_events(GcAlive *alive, int64 after);

/* Looks at all roots; raises ERRCODE_NARINFO_NO_ROOTS if there is none. */
extern void gc_alive_roots(GcAlive *alive);

/* Spares those of these hashes, a store_hash[], that were touched since. */
extern void gc_alive_touched(GcAlive *alive, Datum hashes, TimestampTz since);

/* Writes down what was spared since the last call; how many there were. */
extern int64 gc_alive_store(GcAlive *alive);

#endif							/* NARINFO_GRAPH_GC_H */
