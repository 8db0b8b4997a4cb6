/*-------------------------------------------------------------------------
 *
 * why.c
 *	  Why one path needs another: a shortest chain of references.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "utils/builtins.h"

#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_why_depends);

typedef struct Seeking
{
	Walk	   *walk;
	const uint8 *hash;
	uint32		found;			/* WALK_START: not yet */
} Seeking;

static bool
is_it(void *arg, uint32 number, const struct varlena *info)
{
	Seeking    *seeking = arg;

	(void) info;
	if (memcmp(seeking->walk->nodes[number].hash, seeking->hash,
			   STORE_HASH_LEN) == 0)
		seeking->found = number;
	return seeking->found == WALK_START;
}

/* Rows (step, path). */
static void
tell_chain(ReturnSetInfo *result, Walk *walk, uint32 number)
{
	int			n;
	uint32	   *chain = walk_chain(walk, number, &n);

	for (int step = 0; step < n; step++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		values[0] = Int32GetDatum(step);
		values[1] = walk_node_path(walk, chain[step]);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}

/* why_depends(a store_path, b store_path, cache text) -> table */
Datum
graph_why_depends(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(2));
	StorePath	b = store_path_parts(PG_GETARG_VARLENA_PP(1));
	Seeking		seeking = {.hash = b.hash, .found = WALK_START};
	Walk	   *walk;

	InitMaterializedSRF(fcinfo, 0);
	walk = walk_begin(cache);
	(void) walk_require(walk, b);
	walk_end(walk);

	seeking.walk = walk_begin(cache);
	(void) walk_require(seeking.walk,
						store_path_parts(PG_GETARG_VARLENA_PP(0)));
	walk_references(seeking.walk, is_it, &seeking);
	if (seeking.found != WALK_START)
		tell_chain((ReturnSetInfo *) fcinfo->resultinfo, seeking.walk,
				   seeking.found);
	walk_end(seeking.walk);
	PG_RETURN_VOID();
}
