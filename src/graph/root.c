/*-------------------------------------------------------------------------
 *
 * root.c
 *	  What is a root now, for those who collect, and removing what is none any
 *	  more; see root.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/root.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "graph/root_query.h"
#include "graph/usage.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(root_hashes);
PG_FUNCTION_INFO_V1(root_prune_cache);

static int	prune_interval = 60;	/* s */

static RootQuery pins_query = {
	.sql = "SELECT store_hash(path), name FROM narinfo.root_status "
	"WHERE cache = $1 AND counts ORDER BY name",
	.types = "t"
};

static RootQuery prunable_query = {
	.sql = "SELECT DISTINCT name FROM narinfo.root_status "
	"WHERE cache = $1 AND NOT counts ORDER BY name LIMIT $2",
	.types = "ti"
};

/*
 * What has not expired and does not count is of a generation that has gone as
 * a whole.  No join: whatever the planner believes, this looks at each row of
 * the name once.
 */
static RootQuery prune_query = {
	.sql = "DELETE FROM narinfo.root WHERE cache = $1 AND name = $2 "
	"AND (expires <= now() OR generation = ANY (ARRAY(SELECT s.generation "
	"FROM narinfo.root_status AS s WHERE s.cache = $1 AND s.name = $2 "
	"AND NOT s.counts AND (s.expires IS NULL OR s.expires > now()) "
	"GROUP BY s.generation)))",
	.types = "tt"
};

/*-------------------------------------------------------------------------
 * Visiting
 *-------------------------------------------------------------------------
 */

/* The pins of one name: so many of the hashes, behind those before. */
typedef struct NamedRun
{
	char	   *name;
	uint64		n;
} NamedRun;

typedef struct Pins
{
	HashList	hashes;
	NamedRun   *runs;
	uint64		nruns;
	uint64		max_runs;
} Pins;

static void
add_pin(Pins *pins, const uint8 *hash, const char *name)
{
	if (pins->nruns == 0 ||
		strcmp(pins->runs[pins->nruns - 1].name, name) != 0)
	{
		if (pins->nruns == pins->max_runs)
		{
			pins->max_runs *= 2;
			pins->runs = repalloc_huge(pins->runs,
									   sizeof(NamedRun) * pins->max_runs);
		}
		pins->runs[pins->nruns].name = pstrdup(name);
		pins->runs[pins->nruns++].n = 0;
	}
	pins->runs[pins->nruns - 1].n++;
	hash_list_add(&pins->hashes, hash);
}

/* In the current memory context. */
static void
read_pins(const char *cache, Pins *pins)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		value = CStringGetTextDatum(cache);
	RootSession session;

	hash_list_init(&pins->hashes);
	pins->nruns = 0;
	pins->max_runs = 16;
	pins->runs = palloc(sizeof(NamedRun) * pins->max_runs);
	session = root_begin();
	root_read(&pins_query, &value, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		hash = root_value(i, 1, NULL);
		char	   *name = root_text(i, 2);
		MemoryContext old = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		add_pin(pins, DatumGetStoreHash(hash), name);
		MemoryContextSwitchTo(old);
		pfree(name);
	}
	root_end(session);
}

static int64
visit_pins(const Pins *pins, RootVisitor visit, void *arg)
{
	uint64		next = 0;

	for (uint64 i = 0; i < pins->nruns; i++)
	{
		for (uint64 j = 0; j < pins->runs[i].n; j++)
		{
			CHECK_FOR_INTERRUPTS();
			visit(arg, hash_list_get(&pins->hashes, next++),
				  pins->runs[i].name);
		}
	}
	return (int64) next;
}

static int64
visit_list(const HashList *list, const char *name, RootVisitor visit,
		   void *arg)
{
	for (uint64 i = 0; i < list->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		visit(arg, hash_list_get(list, i), name);
	}
	return (int64) list->n;
}

/*
 * All is read before the first call, so that a source that fails has not let
 * anybody see a part of the roots, and what the callback allocates is its own.
 */
int64
root_visit(const char *cache, RootVisitor visit, void *arg)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(outer, "narinfo roots",
												  ALLOCSET_DEFAULT_SIZES);
	RootSource *sources;
	HashList   *lists;
	Pins		pins;
	int			nsources;
	int64		n;

	MemoryContextSwitchTo(context);
	read_pins(cache, &pins);
	nsources = root_source_read(cache, &sources);
	lists = palloc(sizeof(HashList) * (Size) (nsources + 1));
	for (int i = 0; i < nsources; i++)
		root_source_run(&sources[i], &lists[i]);
	MemoryContextSwitchTo(outer);

	n = visit_pins(&pins, visit, arg);
	for (int i = 0; i < nsources; i++)
		n += visit_list(&lists[i], sources[i].name, visit, arg);
	MemoryContextDelete(context);
	return n;
}

static void
put_root(void *arg, const uint8 *hash, const char *name)
{
	ReturnSetInfo *result = arg;
	Datum		values[] = {PointerGetDatum(hash), CStringGetTextDatum(name)};
	bool		nulls[] = {false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[1]));
}

/* root_hashes(cache text) -> setof (hash store_hash, name text) */
Datum
root_hashes(PG_FUNCTION_ARGS)
{
	CacheInfo	cache;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(0)), &cache);
	InitMaterializedSRF(fcinfo, 0);
	(void) root_visit(cache.name, put_root, fcinfo->resultinfo);
	return (Datum) 0;
}

/*-------------------------------------------------------------------------
 * Pruning
 *-------------------------------------------------------------------------
 */

int64
root_prune_name(const char *cache, const char *name)
{
	Datum		values[] = {CStringGetTextDatum(cache),
	CStringGetTextDatum(name)};

	root_change(&prune_query, values, NULL);
	return (int64) SPI_processed;
}

/* Whoever pins under a name prunes it, so it need not be waited for. */
int64
root_prune(const char *cache)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[] = {CStringGetTextDatum(cache),
	Int32GetDatum(ROOT_NAMES_MAX)};
	RootSession session = root_begin();
	List	   *names = NIL;
	ListCell   *cell;
	int64		n = 0;

	root_read_latest(&prunable_query, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		names = lappend(names, root_text(i, 1));
	SPI_freetuptable(SPI_tuptable);
	foreach(cell, names)
	{
		CHECK_FOR_INTERRUPTS();
		if (root_lock_name(cache, lfirst(cell), false))
			n += root_prune_name(cache, lfirst(cell));
	}
	root_end(session);
	MemoryContextSwitchTo(context);
	return n;
}

bool
root_prune_is_due(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (prune_interval == 0 ||
		!TimestampDifferenceExceeds(last, now, prune_interval * 1000))
		return false;
	last = now;
	return true;
}

/* root_prune(cache text) -> bigint */
Datum
root_prune_cache(PG_FUNCTION_ARGS)
{
	CacheInfo	cache;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(0)), &cache);
	PG_RETURN_INT64(root_prune(cache.name));
}

void
root_init(void)
{
	DefineCustomIntVariable("pg_narinfo.root_prune_interval",
							"Time after which the janitor looks for pins that count no more.",
							"0 is never.",
							&prune_interval, 60, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	root_source_init();
	usage_init();
	root_rule_init();
}
