/*-------------------------------------------------------------------------
 *
 * usage.c
 *	  What the roots of each owner and environment hold: usage() and, for the
 *	  janitor, when to sample it.
 *
 *	  roots, sorted by holder (owner and environment)
 *	  graph of the cache in memory (dense.h)
 *	  for each holder:	mark what its roots need, summing as it is marked;
 *						note at each path who holds it alone, or that many do
 *	  once more over all paths: what each holds alone
 *
 * Nine bytes a path beside the graph.  A mark is a bit of a byte, so eight
 * holders pass before the marks are cleared.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/usage.h"

#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "cache/cache.h"
#include "graph/dense.h"
#include "graph/pace.h"
#include "graph/root_query.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(narinfo_usage);

#define HOUR (60 * 60)			/* seconds */
#define LOOK_EVERY 60			/* seconds, at most */

/* Who holds a path: nobody, one of them (from 1 on), or many. */
#define HELD_BY_NONE 0
#define HELD_BY_MANY PG_UINT32_MAX

#define MARK_BITS 8

static int	usage_interval = HOUR;

typedef struct Holder
{
	char	   *owner;
	char	   *environment;	/* NULL: none */
	int64		roots;
	int64		paths;
	int64		nar_bytes;
	int64		file_bytes;
	int64		only_nar_bytes;
	int64		only_file_bytes;
} Holder;

typedef struct Holders
{
	Holder	   *holders;
	int			n;
	int			max;
	HashList	roots;			/* those of the first, the second, … */
} Holders;

static RootQuery roots_query = {
	.sql = "SELECT owner, environment, hash FROM narinfo.roots "
	"WHERE cache = $1 ORDER BY owner, environment, hash",
	.types = "t"
};

static RootQuery due_query = {
	.sql = "SELECT max(sampled), EXISTS (SELECT FROM narinfo.root "
	"WHERE cache = $1) OR EXISTS (SELECT FROM narinfo.root_source "
	"WHERE cache = $1) FROM narinfo.usage_sample WHERE cache = $1",
	.types = "t"
};

static RootQuery sample_query = {
	.sql = "SELECT narinfo.sample_usage($1)",
	.types = "t"
};

/*-------------------------------------------------------------------------
 * Holders
 *-------------------------------------------------------------------------
 */

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void
add_root(Holders *all, const char *owner, const char *environment,
		 const uint8 *hash)
{
	Holder	   *last = all->n > 0 ? &all->holders[all->n - 1] : NULL;

	if (last == NULL || strcmp(last->owner, owner) != 0 ||
		!same_text(last->environment, environment))
	{
		if (all->n == all->max)
		{
			all->max *= 2;
			all->holders = repalloc_huge(all->holders, sizeof(Holder) *
										 (Size) all->max);
		}
		last = &all->holders[all->n++];
		memset(last, 0, sizeof(Holder));
		last->owner = pstrdup(owner);
		last->environment = environment ? pstrdup(environment) : NULL;
	}
	last->roots++;
	hash_list_add(&all->roots, hash);
}

/* In the current memory context. */
static void
read_holders(const char *cache, Holders *all)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		value = CStringGetTextDatum(cache);
	RootSession session;

	all->n = 0;
	all->max = 16;
	all->holders = palloc(sizeof(Holder) * (Size) all->max);
	hash_list_init(&all->roots);
	session = root_begin();
	root_read(&roots_query, &value, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *owner = root_text(i, 1);
		char	   *environment = root_text(i, 2);
		Datum		hash = root_value(i, 3, NULL);
		MemoryContext old = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		add_root(all, owner, environment, DatumGetStoreHash(hash));
		MemoryContextSwitchTo(old);
		pfree(owner);
		if (environment)
			pfree(environment);
	}
	root_end(session);
}

/*-------------------------------------------------------------------------
 * Counting
 *-------------------------------------------------------------------------
 */

typedef struct Counting
{
	Dense	   *dense;
	uint8	   *marks;
	uint32	   *queue;
	uint32	   *held_by;
} Counting;

/* One root: what it needs and no earlier one of this holder has brought. */
static void
count_root(Counting *counting, Holder *holder, uint32 number, uint8 bit,
		   const uint8 *hash)
{
	uint32		root = dense_find(counting->dense, hash);
	uint32		n;

	if (root == DENSE_NONE)
		return;
	n = dense_mark(counting->dense, root, bit, counting->marks,
				   counting->queue);
	for (uint32 i = 0; i < n; i++)
	{
		uint32		path = counting->queue[i];
		uint32	   *held_by = &counting->held_by[path];

		holder->nar_bytes += dense_nar_size(counting->dense, path);
		holder->file_bytes += dense_file_size(counting->dense, path);
		*held_by = *held_by == HELD_BY_NONE ? number : HELD_BY_MANY;
	}
	holder->paths += n;
}

static void
count_alone(Counting *counting, Holders *all)
{
	for (uint32 path = 0; path < dense_count(counting->dense); path++)
	{
		uint32		number = counting->held_by[path];
		Holder	   *holder;

		if (number == HELD_BY_NONE || number == HELD_BY_MANY)
			continue;
		holder = &all->holders[number - 1];
		holder->only_nar_bytes += dense_nar_size(counting->dense, path);
		holder->only_file_bytes += dense_file_size(counting->dense, path);
	}
}

static void
count_all(const char *cache, Holders *all)
{
	CacheUser	user = cache_become_owner();
	Dense	   *dense;
	Counting	counting = {0};
	uint64		next = 0;

	pace_begin(1);
	dense = dense_load(cache);
	counting.dense = dense;
	cache_become_user(user);
	counting.marks = dense_array(dense, sizeof(uint8));
	counting.queue = dense_array(dense, sizeof(uint32));
	counting.held_by = dense_array(dense, sizeof(uint32));
	for (int i = 0; i < all->n; i++)
	{
		Holder	   *holder = &all->holders[i];

		if (i > 0 && i % MARK_BITS == 0)
			memset(counting.marks, 0, dense_count(dense));
		for (int64 j = 0; j < holder->roots; j++)
		{
			CHECK_FOR_INTERRUPTS();
			count_root(&counting, holder, (uint32) i + 1,
					   (uint8) (1 << (i % MARK_BITS)),
					   hash_list_get(&all->roots, next++));
		}
	}
	count_alone(&counting, all);
	dense_free(dense);
}

static void
put_holder(ReturnSetInfo *result, const Holder *holder)
{
	int64		sums[] = {
		holder->nar_bytes, holder->file_bytes,
		holder->nar_bytes - holder->only_nar_bytes,
		holder->file_bytes - holder->only_file_bytes,
		holder->only_nar_bytes, holder->only_file_bytes
	};
	Datum		values[4 + lengthof(sums)];
	bool		nulls[lengthof(values)] = {false};

	values[0] = CStringGetTextDatum(holder->owner);
	if (holder->environment)
		values[1] = CStringGetTextDatum(holder->environment);
	else
		nulls[1] = true;
	values[2] = Int64GetDatum(holder->roots);
	values[3] = Int64GetDatum(holder->paths);
	for (size_t i = 0; i < lengthof(sums); i++)
		values[4 + i] = NumericGetDatum(int64_to_numeric(sums[i]));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* usage(cache text) -> setof record */
Datum
narinfo_usage(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CacheInfo	cache;
	Holders		all;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(0)), &cache);
	InitMaterializedSRF(fcinfo, 0);
	read_holders(cache.name, &all);
	if (all.n > 0)
		count_all(cache.name, &all);
	for (int i = 0; i < all.n; i++)
		put_holder(result, &all.holders[i]);
	return (Datum) 0;
}

/*-------------------------------------------------------------------------
 * Sampling
 *-------------------------------------------------------------------------
 */

bool
usage_is_due(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();
	int			wait = Min(usage_interval, LOOK_EVERY);

	if (wait == 0 || !TimestampDifferenceExceeds(last, now, wait * 1000))
		return false;
	last = now;
	return true;
}

/*
 * Long enough after the last sample; or there was none, and something could
 * be counted.
 */
static bool
is_old(void)
{
	bool		isnull;
	Datum		sampled = root_value(0, 1, &isnull);

	if (isnull)
		return DatumGetBool(root_value(0, 2, NULL));
	return TimestampDifferenceExceeds(DatumGetTimestampTz(sampled),
									  GetCurrentTimestamp(),
									  usage_interval * 1000);
}

bool
usage_follow(const char *cache)
{
	Datum		value = CStringGetTextDatum(cache);
	RootSession session = root_begin();
	bool		old;

	root_read(&due_query, &value, NULL);
	old = usage_interval > 0 && is_old();
	if (old)
		root_change(&sample_query, &value, NULL);
	root_end(session);
	return old;
}

void
usage_init(void)
{
	DefineCustomIntVariable("pg_narinfo.usage_interval",
							"Time after which the janitor looks who holds how much.",
							"0 is never; byte-days are counted by it.",
							&usage_interval, HOUR, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}
