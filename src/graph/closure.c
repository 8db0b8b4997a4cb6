/*-------------------------------------------------------------------------
 *
 * closure.c
 *	  What a path needs, what needs it, and how two closures differ.
 *
 *	  closure, closures		breadth first along the references
 *	  referrer_closure		the same against them
 *	  compare_closures		two walks: what is in the one, the other, or both
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_closure);
PG_FUNCTION_INFO_V1(graph_closures);
PG_FUNCTION_INFO_V1(graph_referrer_closure);
PG_FUNCTION_INFO_V1(graph_compare_closures);

typedef struct Telling
{
	Walk	   *walk;
	ReturnSetInfo *result;
} Telling;

static bool
tell_path(void *arg, uint32 number, const struct varlena *info)
{
	Telling    *telling = arg;

	walk_put_path(telling->result, info, telling->walk->nodes[number].depth);
	return true;
}

static void
tell_references(FunctionCallInfo fcinfo, Walk *walk)
{
	Telling		telling = {.walk = walk};

	telling.result = (ReturnSetInfo *) fcinfo->resultinfo;
	walk_references(walk, tell_path, &telling);
	walk_end(walk);
}

/* closure(path store_path, cache text) -> table */
Datum
graph_closure(PG_FUNCTION_ARGS)
{
	Walk	   *walk = walk_begin(text_to_cstring(PG_GETARG_TEXT_PP(1)));

	InitMaterializedSRF(fcinfo, 0);
	(void) walk_start(walk, store_path_parts(PG_GETARG_VARLENA_PP(0)));
	tell_references(fcinfo, walk);
	PG_RETURN_VOID();
}

/* closures(paths store_path[], cache text) -> table */
Datum
graph_closures(PG_FUNCTION_ARGS)
{
	Walk	   *walk = walk_begin(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	struct varlena **paths;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	paths = walk_array(PG_GETARG_ARRAYTYPE_P(0), &n);
	for (int i = 0; i < n; i++)
		(void) walk_start(walk, store_path_parts(paths[i]));
	tell_references(fcinfo, walk);
	PG_RETURN_VOID();
}

/*
 * referrer_closure(path store_path, cache text) -> table: also of a path that
 * is not valid, which then is not told itself.
 */
Datum
graph_referrer_closure(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));
	Walk	   *walk = walk_begin(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	Telling		telling = {.walk = walk};

	InitMaterializedSRF(fcinfo, 0);
	telling.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (walk_start(walk, path))
		(void) tell_path(&telling, 0, walk_find(walk, path.hash));
	else
		(void) walk_meet(walk, path.hash, WALK_START);
	walk_referrers(walk, tell_path, &telling);
	walk_end(walk);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * Two closures
 *-------------------------------------------------------------------------
 */

typedef struct Comparing
{
	Walk	   *before;
	Walk	   *after;
	ReturnSetInfo *result;
} Comparing;

static bool
go_on(void *arg, uint32 number, const struct varlena *info)
{
	(void) arg;
	(void) number;
	(void) info;
	return true;
}

/* A row (path, before, after, nar_size, file_size). */
static void
tell_compared(ReturnSetInfo *result, const struct varlena *info, bool before,
			  bool after)
{
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = walk_path(info);
	values[1] = BoolGetDatum(before);
	values[2] = BoolGetDatum(after);
	values[3] = walk_nar_size(info);
	values[4] = walk_file_size(info, &nulls[4]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[0]));
}

static bool
tell_after(void *arg, uint32 number, const struct varlena *info)
{
	Comparing  *comparing = arg;
	const uint8 *hash = comparing->after->nodes[number].hash;

	tell_compared(comparing->result, info,
				  walk_has(comparing->before, hash), true);
	return true;
}

static void
tell_before_alone(Comparing *comparing)
{
	Walk	   *before = comparing->before;

	for (uint32 number = 0; number < before->n; number++)
	{
		struct varlena *info;

		CHECK_FOR_INTERRUPTS();
		if (walk_has(comparing->after, before->nodes[number].hash))
			continue;
		info = walk_find(before, before->nodes[number].hash);
		if (info)
			tell_compared(comparing->result, info, true, false);
	}
}

/* compare_closures(a store_path, b store_path, cache text) -> table */
Datum
graph_compare_closures(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(2));
	Comparing	comparing;

	InitMaterializedSRF(fcinfo, 0);
	comparing.result = (ReturnSetInfo *) fcinfo->resultinfo;
	comparing.before = walk_begin(cache);
	comparing.after = walk_begin(cache);
	(void) walk_require(comparing.before,
						store_path_parts(PG_GETARG_VARLENA_PP(0)));
	(void) walk_require(comparing.after,
						store_path_parts(PG_GETARG_VARLENA_PP(1)));
	walk_references(comparing.before, go_on, NULL);
	walk_references(comparing.after, tell_after, &comparing);
	tell_before_alone(&comparing);
	walk_end(comparing.after);
	walk_end(comparing.before);
	PG_RETURN_VOID();
}
