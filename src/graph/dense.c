/*-------------------------------------------------------------------------
 *
 * dense.c
 *	  The graph of one cache in memory: what it takes, what is in it, marking;
 *	  see dense.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/dense_private.h"

#include <limits.h>
#include <sys/mman.h>

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "cache/cache.h"
#include "graph/pace.h"

#define BYTES_A_PATH 60			/* for estimates: with marks and queues */
#define BYTES_AN_EDGE 4
#define REFERENCES_GUESSED 8	/* while the reverse index knows nothing */

#define PAGE ((Size) 4096)
#define PREPARED_MIN (64 * 1024)	/* bytes: less is not worth the calls */

static int	graph_memory = 4 * 1024 * 1024; /* kB */

/*-------------------------------------------------------------------------
 * Memory
 *-------------------------------------------------------------------------
 */

Size
dense_limit(void)
{
	return (Size) graph_memory * 1024;
}

void
dense_refuse_memory(const char *cache, double bytes, bool estimated)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 estimated ?
			 errmsg("the graph of cache \"%s\" would take about %.0f MB",
					cache, bytes / 1024 / 1024) :
			 errmsg("the graph of cache \"%s\" takes more than %.0f MB",
					cache, bytes / 1024 / 1024),
			 errdetail("pg_narinfo.graph_memory is %d MB.",
					   graph_memory / 1024),
			 errhint("Raise pg_narinfo.graph_memory if the server has the memory.")));
}

static void
take(Dense *dense, Size bytes)
{
	Size		limit = dense_limit();

	if (bytes > limit || dense->memory > limit - bytes)
		dense_refuse_memory(dense->cache, (double) limit, false);
	dense->memory += bytes;
	dense->memory_max = Max(dense->memory_max, dense->memory);
}

/*
 * Memory that will be filled, and walked at random: pages of 2 MB, where the
 * kernel gives them to who asks, cost fewer searches for the pages themselves;
 * and all at once fewer interruptions than each when it is first written to.
 */
static void
prepare_pages(char *begin, char *end)
{
	begin = (char *) TYPEALIGN(PAGE, begin);
	end = (char *) TYPEALIGN_DOWN(PAGE, end);
	if (end < begin + PREPARED_MIN)
		return;
#ifdef MADV_HUGEPAGE
	(void) madvise(begin, end - begin, MADV_HUGEPAGE);
#endif
#ifdef MADV_POPULATE_WRITE
	(void) madvise(begin, end - begin, MADV_POPULATE_WRITE);
#endif
}

void *
dense_resize(Dense *dense, void *array, Size old, Size new)
{
	if (new > old)
		take(dense, new - old);
	else
		dense->memory -= old - new;
	array = array == NULL ?
		MemoryContextAllocHuge(dense->context, Max(new, 1)) :
		repalloc_huge(array, Max(new, 1));
	if (new > old)
		prepare_pages((char *) array + old, (char *) array + new);
	return array;
}

void *
dense_array(Dense *dense, Size bytes_each)
{
	Size		bytes = bytes_each * dense->n;
	void	   *array = dense_resize(dense, NULL, 0, bytes);

	memset(array, 0, bytes);
	return array;
}

void
dense_array_free(Dense *dense, void *array, Size bytes_each)
{
	dense->memory -= bytes_each * dense->n;
	pfree(array);
}

Size
dense_memory(const Dense *dense)
{
	return dense->memory_max;
}

/*
 * The statistics know how much of the table is of a cache, if it is not
 * little; the reverse index how many edges it has, and so about how much.
 */
static const char estimate_query[] =
"SELECT coalesce((SELECT m.share FROM pg_catalog.pg_stats AS s, "
"ROWS FROM (pg_catalog.unnest(s.most_common_vals::pg_catalog.text"
"::pg_catalog.text[]), pg_catalog.unnest(s.most_common_freqs)) "
"AS m (cache, share) WHERE s.schemaname OPERATOR(pg_catalog.=) 'narinfo' "
"AND s.tablename OPERATOR(pg_catalog.=) 'valid_path' "
"AND s.attname OPERATOR(pg_catalog.=) 'cache' "
"AND m.cache OPERATOR(pg_catalog.=) $1), 0)::pg_catalog.float8, "
"coalesce(pg_catalog.sum(edges) FILTER (WHERE cache "
"OPERATOR(pg_catalog.=) $1), 0)::pg_catalog.float8, "
"coalesce(pg_catalog.sum(edges), 0)::pg_catalog.float8 "
"FROM narinfo.referrer_run";

static void
read_known(const char *cache, double *share, double *edges, double *all_edges)
{
	double	   *figures[] = {share, edges, all_edges};
	CacheUser	user = cache_become_owner();
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(cache);
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args(estimate_query, 1, &type, &name, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.referrer_run");
	for (size_t i = 0; i < lengthof(figures); i++)
		*figures[i] = DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0],
												   SPI_tuptable->tupdesc,
												   (int) i + 1, &isnull));
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);
}

void
dense_estimate(const char *cache, DenseEstimate *estimate)
{
	Relation	rel;
	BlockNumber pages;
	double		tuples;
	double		visible;
	double		edges;
	double		all_edges;

	read_known(cache, &estimate->share, &edges, &all_edges);
	rel = table_open(cache_catalog()->valid_path_rel, AccessShareLock);
	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	table_close(rel, AccessShareLock);
	estimate->is_bound = estimate->share <= 0 && edges <= 0;
	if (estimate->share <= 0)
		estimate->share = edges > 0 ? edges / all_edges : 1;
	estimate->paths = tuples * estimate->share;
	estimate->edges = edges > 0 ? edges :
		estimate->paths * REFERENCES_GUESSED;
	estimate->bytes = BYTES_A_PATH * estimate->paths +
		BYTES_AN_EDGE * estimate->edges;
}

void
dense_free(Dense *dense)
{
	MemoryContextDelete(dense->context);
}

/*-------------------------------------------------------------------------
 * What is in it
 *-------------------------------------------------------------------------
 */

uint32
dense_count(const Dense *dense)
{
	return dense->n;
}

uint64
dense_edges(const Dense *dense)
{
	return dense->edges;
}

uint64
dense_dangling(const Dense *dense)
{
	return dense->dangling;
}

const uint8 *
dense_hash(const Dense *dense, uint32 path)
{
	return dense->hashes[path].bytes;
}

static int64
get_size(const uint8 *bytes)
{
	uint64		size = 0;

	for (int i = 0; i < SIZE_BYTES; i++)
		size |= (uint64) bytes[i] << (8 * i);
	return (int64) size;
}

static inline const uint32 *
get_refs(const Dense *dense, uint32 path, uint32 *n)
{
	uint64		where = dense->refs[path];

	*n = (uint32) (where >> COUNT_SHIFT);
	return dense->chunks[(where >> PLACE_BITS) & (CHUNKS_MAX - 1)] +
		(where & (CHUNK_MAX - 1));
}

const uint32 *
dense_refs(const Dense *dense, uint32 path, uint32 *n)
{
	return get_refs(dense, path, n);
}

int64
dense_nar_size(const Dense *dense, uint32 path)
{
	return get_size(dense->sizes + (Size) path * 2 * SIZE_BYTES);
}

int64
dense_file_size(const Dense *dense, uint32 path)
{
	return get_size(dense->sizes + ((Size) path * 2 + 1) * SIZE_BYTES);
}

TimestampTz
dense_when(const Dense *dense, uint32 path)
{
	return dense->when[path];
}

void
dense_use(Dense *dense, uint32 path, TimestampTz at)
{
	dense->when[path] = Max(dense->when[path], at);
}

/*
 * As when it is read: what the queue will come to is asked for before, first
 * where the references of a path are, then these, then their marks.
 */
#define AHEAD 16				/* of the queue, for each of these */

static pg_attribute_always_inline void
prefetch_queue(const Dense *dense, const uint8 *marks, const uint32 *queue,
			   uint32 i, uint32 n)
{
	const uint32 *refs;
	uint32		nrefs;

	if (i + 3 * AHEAD < n)
		__builtin_prefetch(&dense->refs[queue[i + 3 * AHEAD]]);
	if (i + 2 * AHEAD < n)
	{
		refs = get_refs(dense, queue[i + 2 * AHEAD], &nrefs);
		__builtin_prefetch(refs);
		__builtin_prefetch(refs + nrefs);
	}
	if (i + AHEAD < n)
	{
		refs = get_refs(dense, queue[i + AHEAD], &nrefs);
		for (uint32 j = 0; j < nrefs; j++)
			__builtin_prefetch(&marks[refs[j]], 1);
	}
}

uint32
dense_walk(const Dense *dense, uint8 bit, uint8 *marks, uint32 *queue,
		   uint32 n)
{
	for (uint32 i = 0; i < n; i++)
	{
		uint32		nrefs;
		const uint32 *refs = get_refs(dense, queue[i], &nrefs);

		if (i % REPORT_AFTER == 0)
		{
			CHECK_FOR_INTERRUPTS();
			pace();
		}
		prefetch_queue(dense, marks, queue, i, n);
		for (uint32 j = 0; j < nrefs; j++)
		{
			if (marks[refs[j]] & bit)
				continue;
			marks[refs[j]] |= bit;
			queue[n++] = refs[j];
		}
	}
	return n;
}

uint32
dense_mark(const Dense *dense, uint32 path, uint8 bit, uint8 *marks,
		   uint32 *queue)
{
	if (marks[path] & bit)
		return 0;
	marks[path] |= bit;
	queue[0] = path;
	return dense_walk(dense, bit, marks, queue, 1);
}

void
dense_init(void)
{
	DefineCustomIntVariable("pg_narinfo.graph_memory",
							"Memory that the graph of a cache may take.",
							"Collection and other walks of a whole cache are "
							"refused above it; they take at most 60 bytes a "
							"path and 4 a reference.",
							&graph_memory, 4 * 1024 * 1024, 1024, INT_MAX,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
}
