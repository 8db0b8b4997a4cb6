/*-------------------------------------------------------------------------
 *
 * alive.c
 *	  Why a path is alive: a shortest chain of references from a root to it.
 *
 * The roots first, 32 to 70 bytes of memory each; then from the path upwards,
 * one level of referrers at a time, until a root is met.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "utils/builtins.h"

#include "cache/hashset.h"
#include "graph/root.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_why_alive);

typedef struct RootEntry
{
	HashKey		key;
	const char *name;			/* of the first pin or source that has it */
	char		status;
} RootEntry;

#define SH_PREFIX roots
#define SH_ELEMENT_TYPE RootEntry
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

typedef struct Climbing
{
	Walk	   *walk;
	roots_hash *roots;
	MemoryContext context;		/* of the names */
	const char *last_name;
	uint32		found;			/* WALK_START: none yet */
	const char *root;
} Climbing;

/* They come name by name, so each name is kept once. */
static void
note_root(void *arg, const uint8 *hash, const char *name)
{
	Climbing   *climbing = arg;
	RootEntry  *entry;
	HashKey		key;
	bool		found;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	entry = roots_insert(climbing->roots, key, &found);
	if (found)
		return;
	if (climbing->last_name == NULL || strcmp(climbing->last_name, name) != 0)
		climbing->last_name = MemoryContextStrdup(climbing->context, name);
	entry->name = climbing->last_name;
}

static bool
is_no_root(void *arg, uint32 number, const struct varlena *info)
{
	Climbing   *climbing = arg;
	RootEntry  *entry;
	HashKey		key;

	(void) info;
	memcpy(key.bytes, climbing->walk->nodes[number].hash, STORE_HASH_LEN);
	entry = roots_lookup(climbing->roots, key);
	if (entry == NULL)
		return true;
	climbing->found = number;
	climbing->root = entry->name;
	return false;
}

/* Rows (root, step, path), from the root down. */
static void
tell_chain(ReturnSetInfo *result, Climbing *climbing)
{
	int			n;
	uint32	   *chain = walk_chain(climbing->walk, climbing->found, &n);

	for (int step = 0; step < n; step++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		values[0] = CStringGetTextDatum(climbing->root);
		values[1] = Int32GetDatum(step);
		values[2] = walk_node_path(climbing->walk, chain[n - 1 - step]);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}

/* why_alive(path store_path, cache text) -> table */
Datum
graph_why_alive(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Climbing	climbing = {.found = WALK_START};
	uint32		path;

	InitMaterializedSRF(fcinfo, 0);
	climbing.context = CurrentMemoryContext;
	climbing.roots = roots_create(CurrentMemoryContext, 64, NULL);
	climbing.walk = walk_begin(cache);
	path = walk_require(climbing.walk,
						store_path_parts(PG_GETARG_VARLENA_PP(0)));
	(void) root_visit(cache, note_root, &climbing);
	if (is_no_root(&climbing, path, NULL))
		walk_referrers(climbing.walk, is_no_root, &climbing);
	if (climbing.found != WALK_START)
		tell_chain((ReturnSetInfo *) fcinfo->resultinfo, &climbing);
	walk_end(climbing.walk);
	PG_RETURN_VOID();
}
