/*-------------------------------------------------------------------------
 *
 * walk.h
 *	  Walking the graph of a cache: paths that are numbered as they are met,
 *	  each looked up by the index when its turn comes.
 *
 * A walk sees what the active snapshot sees.  It takes 40 to 90 bytes of
 * memory for each path that it meets, and none for references: those are read
 * where they lie, in the rows.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_WALK_H
#define NARINFO_GRAPH_WALK_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "utils/array.h"

#include "base/store_path.h"
#include "cache/cache.h"

typedef struct WalkNode
{
	uint8		hash[STORE_HASH_LEN];
	uint32		from;			/* number of the node that led here; its own
								 * where the walk begins */
	uint32		depth;			/* steps from there */
} WalkNode;

typedef struct Walk
{
	CacheInfo	cache;
	ValidPathScan *scan;
	WalkNode   *nodes;
	uint32		n;
	uint32		size;
	struct numbers_hash *numbers;
	MemoryContext context;		/* the walk's own */
	MemoryContext row_context;	/* of the row that was found last */
} Walk;

/* Raises ERRCODE_UNDEFINED_OBJECT when there is no such cache. */
extern Walk *walk_begin(const char *cache);
extern void walk_end(Walk *walk);

/*
 * The number of a path; if it is not met before, it gets the next one, and
 * "from" is noted (WALK_START: here the walk begins).
 */
#define WALK_START PG_UINT32_MAX

extern uint32 walk_meet(Walk *walk, const uint8 *hash, uint32 from);

/* Was it met? */
extern bool walk_has(Walk *walk, const uint8 *hash);

/*
 * The narinfo of a path, NULL if it is not valid; it lives until the
 * next one is asked for.
 */
extern struct varlena *walk_find(Walk *walk, const uint8 *hash);

/*
 * Is this very path valid, its directory and name as well as its hash?  Then
 * it is met.  walk_require() raises NI004 if not.
 */
extern bool walk_start(Walk *walk, StorePath path);
extern uint32 walk_require(Walk *walk, StorePath path);

/*
 * Breadth first along the references, from all that was met: visits every
 * valid path once, nearest first, until the visitor returns false.
 * References that are not valid have a number and no visit.  The visitor may
 * not look up other paths.
 */
typedef bool (*WalkVisitor) (void *arg, uint32 number,
							 const struct varlena *info);

extern void walk_references(Walk *walk, WalkVisitor visit, void *arg);

/*
 * The same against them, from all that was met, which itself is not visited;
 * the visitor has rights of the extension's owner at times.
 */
extern void walk_referrers(Walk *walk, WalkVisitor visit, void *arg);

/* The chain of nodes from where the walk began to this one. */
extern uint32 *walk_chain(const Walk *walk, uint32 number, int *n);

/* ---- values ---- */

/* The paths of a store_path[], without its NULLs. */
extern struct varlena **walk_array(ArrayType *array, int *n);

/* The path of a narinfo as a store_path; and of a node that is valid. */
extern Datum walk_path(const struct varlena *info);
extern Datum walk_node_path(Walk *walk, uint32 number);

/*
 * Sizes as a bigint has them: more than that is 2^63 - 1.  A FileSize that is
 * not there is NULL.
 */
extern Datum walk_nar_size(const struct varlena *info);
extern Datum walk_file_size(const struct varlena *info, bool *isnull);

/* A row (path, depth, nar_size, file_size). */
extern void walk_put_path(ReturnSetInfo *result, const struct varlena *info,
						  uint32 depth);

#endif							/* NARINFO_GRAPH_WALK_H */
