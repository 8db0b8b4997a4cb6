/*-------------------------------------------------------------------------
 *
 * dense.c
 *	  The graph of one cache in memory; see dense.h.
 *
 *	  valid_path ----> hashes, sorted
 *	  valid_path ----> sizes, time, numbers of the references, which are
 *					   searched in the sorted hashes
 *
 * The table is read twice, by one snapshot, in the way that the planner likes
 * best: the first time it needs the index alone, if the table was vacuumed of
 * late, and has the hashes in order then; the second time the paths of a cache
 * that is most of the table come as they lie.  To keep the references from
 * one reading would take five times the memory that they take at last.
 *
 * References lie in chunks, those of a path in one of them, so that none of
 * them ever moves and no room is left over.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/dense.h"

#include <limits.h>
#include <sys/mman.h>

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "port/pg_bswap.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/progress.h"
#include "types/types.h"

/*
 * Where references are: 20 bits of the place in the chunk, 20 of the chunk,
 * 24 of how many.  A narinfo has less than 2^24 bytes, so it never has more
 * than a chunk's.
 */
#define PLACE_BITS	20
#define CHUNK_BITS	20
#define CHUNK_MAX	((uint32) 1 << PLACE_BITS)
#define CHUNK_MIN	1024
#define CHUNKS_MAX	((uint32) 1 << CHUNK_BITS)

#define SIZE_BYTES	6
#define SIZE_LIMIT	(((uint64) 1 << (8 * SIZE_BYTES)) - 1)

#define BYTES_A_PATH 60			/* for estimates: with marks and queues */
#define BYTES_AN_EDGE 4
#define REFERENCES_GUESSED 8	/* while the reverse index knows nothing */

#define HUGE_PAGE ((uintptr_t) 2 * 1024 * 1024)

#define REPORT_AFTER 4096		/* paths */

typedef struct PathHash
{
	uint8		bytes[STORE_HASH_LEN];
} PathHash;

struct Dense
{
	MemoryContext context;
	const char *cache;
	Size		memory;			/* now */
	Size		memory_max;
	uint32		n;
	uint32		room;			/* in hashes */
	PathHash   *hashes;
	uint64	   *refs;			/* see PLACE_BITS */
	uint8	   *sizes;			/* of the nar, then of the file */
	TimestampTz *when;
	int			begin_bits;		/* of a hash that "begins" tells apart */
	uint32	   *begins;			/* first path of each, and the end */
	uint32	  **chunks;
	uint32		nchunks;
	uint32		chunk_size;		/* of the last one */
	uint32		chunk_used;
	uint64		edges;
	uint64		dangling;
};

static int	graph_memory = 4 * 1024 * 1024; /* kB */

/* The 20 bytes as numbers that compare as they do. */
typedef struct Words
{
	uint64		high;
	uint64		middle;
	uint32		low;
} Words;

static inline Words
words_of(const uint8 *hash)
{
	Words		words;

	memcpy(&words.high, hash, sizeof(words.high));
	memcpy(&words.middle, hash + 8, sizeof(words.middle));
	memcpy(&words.low, hash + 16, sizeof(words.low));
	words.high = pg_ntoh64(words.high);
	words.middle = pg_ntoh64(words.middle);
	words.low = pg_ntoh32(words.low);
	return words;
}

static inline int
compare_words(const Words *a, const Words *b)
{
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	if (a->middle != b->middle)
		return a->middle < b->middle ? -1 : 1;
	return a->low < b->low ? -1 : a->low > b->low;
}

static inline int
compare_hashes(const PathHash *a, const PathHash *b)
{
	Words		one = words_of(a->bytes);
	Words		other = words_of(b->bytes);

	return compare_words(&one, &other);
}

#define ST_SORT sort_hashes
#define ST_ELEMENT_TYPE PathHash
#define ST_COMPARE(a, b) compare_hashes(a, b)
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*-------------------------------------------------------------------------
 * Memory
 *-------------------------------------------------------------------------
 */

static void
refuse_memory(const char *cache, double bytes, bool estimated)
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
	Size		limit = (Size) graph_memory * 1024;

	if (bytes > limit || dense->memory > limit - bytes)
		refuse_memory(dense->cache, (double) limit, false);
	dense->memory += bytes;
	dense->memory_max = Max(dense->memory_max, dense->memory);
}

/*
 * Searches go everywhere in these arrays, and where the system has pages of
 * two megabytes it finds places in them sooner.  Only a hint.
 */
static void
advise(void *array, Size bytes)
{
#ifdef MADV_HUGEPAGE
	uintptr_t	begin = TYPEALIGN(HUGE_PAGE, (uintptr_t) array);
	uintptr_t	end = TYPEALIGN_DOWN(HUGE_PAGE, (uintptr_t) array + bytes);

	if (end > begin)
		(void) madvise((void *) begin, end - begin, MADV_HUGEPAGE);
#else
	(void) array;
	(void) bytes;
#endif
}

void *
dense_resize(Dense *dense, void *array, Size old, Size new)
{
	if (new > old)
		take(dense, new - old);
	else
		dense->memory -= old - new;
	if (array == NULL)
		array = MemoryContextAllocHuge(dense->context, Max(new, 1));
	else
		array = repalloc_huge(array, Max(new, 1));
	if (new > old)
		advise(array, new);
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
 * What the planner knows of the table, and the reverse index of the edges of
 * each cache; the caches share the table as they share the edges.
 */
void
dense_estimate(const char *cache, DenseEstimate *estimate)
{
	const CacheCatalog *catalog = cache_catalog();
	CacheUser	user = cache_become_owner();
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(cache);
	Relation	rel;
	BlockNumber pages;
	double		tuples;
	double		visible;
	double		edges[2] = {0, 0};
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args("SELECT coalesce(pg_catalog.sum(edges) "
							  "FILTER (WHERE cache OPERATOR(pg_catalog.=) "
							  "$1), 0)::pg_catalog.float8, "
							  "coalesce(pg_catalog.sum(edges), 0)"
							  "::pg_catalog.float8 "
							  "FROM narinfo.referrer_run", 1, &type, &name,
							  NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.referrer_run");
	for (int i = 0; i < 2; i++)
		edges[i] = DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, i + 1,
												&isnull));
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);

	rel = table_open(catalog->valid_path_rel, AccessShareLock);
	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	table_close(rel, AccessShareLock);
	estimate->is_bound = edges[0] <= 0;
	estimate->paths = estimate->is_bound ? tuples :
		tuples * edges[0] / edges[1];
	estimate->edges = estimate->is_bound ? tuples * REFERENCES_GUESSED :
		edges[0];
	estimate->bytes = BYTES_A_PATH * estimate->paths +
		BYTES_AN_EDGE * estimate->edges;
}

/*-------------------------------------------------------------------------
 * Reading the table
 *-------------------------------------------------------------------------
 */

typedef struct Reading Reading;

typedef void (*RowReceiver) (Reading *reading, TupleTableSlot *slot);

struct Reading
{
	DestReceiver receiver;		/* first: what the executor knows */
	RowReceiver receive;
	Dense	   *dense;
	MemoryContext row_context;
	uint32		nrows;
	ProgressPhase phase;
	int64		expected;		/* rows, for progress */
};

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Reading    *reading = (Reading *) self;
	MemoryContext old = MemoryContextSwitchTo(reading->row_context);

	reading->receive(reading, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(reading->row_context);
	if (++reading->nrows % REPORT_AFTER == 0)
		progress_report(reading->phase, reading->nrows, reading->expected, 0,
						0, 0);
	return true;
}

static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	(void) self;
	(void) operation;
	(void) desc;
}

static void
end_rows(DestReceiver *self)
{
	(void) self;
}

/* Rows come straight from the table: SPI would copy them all first. */
static void
read_table(Reading *reading, const char *query)
{
	ParamListInfo params = makeParamList(1);
	SPIExecuteOptions options = {0};

	params->params[0].value = CStringGetTextDatum(reading->dense->cache);
	params->params[0].isnull = false;
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].ptype = TEXTOID;
	reading->nrows = 0;
	reading->receiver.receiveSlot = receive_row;
	reading->receiver.rStartup = start_rows;
	reading->receiver.rShutdown = end_rows;
	reading->receiver.rDestroy = end_rows;
	/* what SPI takes for a receiver that is not its own */
	reading->receiver.mydest = DestTuplestore;
	options.params = params;
	options.read_only = true;	/* by the active snapshot */
	options.dest = &reading->receiver;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_extended(query, &options) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.valid_path");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
}

/*-------------------------------------------------------------------------
 * First reading: hashes
 *-------------------------------------------------------------------------
 */

static void
add_hash(Dense *dense, const uint8 *hash)
{
	if (dense->n == dense->room)
	{
		uint64		room = dense->room + dense->room / 8 + 1024;

		if (dense->n >= DENSE_NONE - 1)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("cache \"%s\" has more paths than can be counted",
							dense->cache)));
		room = Min(room, DENSE_NONE - 1);
		dense->hashes = dense_resize(dense, dense->hashes,
							   sizeof(PathHash) * dense->room,
							   sizeof(PathHash) * room);
		dense->room = (uint32) room;
	}
	memcpy(dense->hashes[dense->n++].bytes, hash, STORE_HASH_LEN);
}

/* So that they need not be moved while they become more. */
static void
reserve_hashes(Dense *dense, const DenseEstimate *estimate)
{
	if (estimate->is_bound || estimate->paths > DENSE_NONE / 2)
		return;
	dense->room = (uint32) estimate->paths + 1;
	dense->hashes = dense_resize(dense, NULL, 0,
								 sizeof(PathHash) * dense->room);
}

static void
receive_hash(Reading *reading, TupleTableSlot *slot)
{
	bool		isnull;

	add_hash(reading->dense,
			 DatumGetStoreHash(slot_getattr(slot, 1, &isnull)));
}

/*-------------------------------------------------------------------------
 * Search
 *-------------------------------------------------------------------------
 */

static inline uint32
begin_of(const Dense *dense, const uint8 *hash)
{
	uint32		top = (uint32) hash[0] << 24 | (uint32) hash[1] << 16 |
		(uint32) hash[2] << 8 | hash[3];

	return dense->begin_bits == 0 ? 0 : top >> (32 - dense->begin_bits);
}

/* Two to four paths to each beginning. */
static void
make_begins(Dense *dense)
{
	uint32		nbegins;
	uint32		path = 0;

	dense->begin_bits = 0;
	while (dense->begin_bits < 30 &&
		   dense->n >> (dense->begin_bits + 2) > 0)
		dense->begin_bits++;
	nbegins = (uint32) 1 << dense->begin_bits;
	dense->begins = dense_resize(dense, NULL, 0, sizeof(uint32) *
								 ((Size) nbegins + 1));
	for (uint32 i = 0; i < nbegins; i++)
	{
		while (path < dense->n &&
			   begin_of(dense, dense->hashes[path].bytes) < i)
			path++;
		dense->begins[i] = path;
	}
	dense->begins[nbegins] = dense->n;
}

uint32
dense_find(const Dense *dense, const uint8 hash[STORE_HASH_LEN])
{
	uint32		begin = begin_of(dense, hash);
	uint32		low = dense->begins[begin];
	uint32		high = dense->begins[begin + 1];
	Words		wanted = words_of(hash);

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		Words		there = words_of(dense->hashes[middle].bytes);
		int			cmp = compare_words(&wanted, &there);

		if (cmp == 0)
			return middle;
		if (cmp < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return DENSE_NONE;
}

/*-------------------------------------------------------------------------
 * Second reading: all the rest
 *-------------------------------------------------------------------------
 */

/* Room for the references of one path in one chunk. */
static uint32 *
reserve_refs(Dense *dense, uint32 n)
{
	if (dense->nchunks == 0 || dense->chunk_size - dense->chunk_used < n)
	{
		uint64		size = Max(dense->edges / 16, CHUNK_MIN);

		size = Min(Max(size, n), CHUNK_MAX);
		if (n > size || dense->nchunks == CHUNKS_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("cache \"%s\" has more references than can be counted",
							dense->cache)));
		if (dense->nchunks % 64 == 0)
			dense->chunks = dense_resize(dense, dense->chunks,
								   sizeof(uint32 *) * dense->nchunks,
								   sizeof(uint32 *) * (dense->nchunks + 64));
		dense->chunks[dense->nchunks++] =
			dense_resize(dense, NULL, 0, sizeof(uint32) * size);
		dense->chunk_size = (uint32) size;
		dense->chunk_used = 0;
	}
	return dense->chunks[dense->nchunks - 1] + dense->chunk_used;
}

/*
 * Memory answers slower than we count, so all that the searches for the
 * references of a path will look at is asked for before the first of them.
 */
static void
prefetch(const Dense *dense, const uint8 *packed, uint32 n)
{
	for (uint32 i = 0; i < n; i++)
		__builtin_prefetch(&dense->begins[begin_of(dense,
												   packed_ref(packed, i))]);
	for (uint32 i = 0; i < n; i++)
	{
		uint32		first = dense->begins[begin_of(dense,
												   packed_ref(packed, i))];

		__builtin_prefetch(&dense->hashes[first]);
		__builtin_prefetch(&dense->hashes[first + 2]);
	}
}

static void
set_size(uint8 *bytes, uint64 size)
{
	size = Min(size, SIZE_LIMIT);
	for (int i = 0; i < SIZE_BYTES; i++)
		bytes[i] = (uint8) (size >> (8 * i));
}

static int64
get_size(const uint8 *bytes)
{
	uint64		size = 0;

	for (int i = 0; i < SIZE_BYTES; i++)
		size |= (uint64) bytes[i] << (8 * i);
	return (int64) size;
}

static void
fill_refs(Dense *dense, uint32 path, const uint8 *packed)
{
	uint32		nrefs = packed_nrefs(packed);
	uint32	   *to = reserve_refs(dense, nrefs);
	uint32		n = 0;

	prefetch(dense, packed, nrefs);
	for (uint32 i = 0; i < nrefs; i++)
	{
		uint32		ref = dense_find(dense, packed_ref(packed, i));

		if (ref == DENSE_NONE)
			dense->dangling++;
		else if (ref != path)
			to[n++] = ref;
	}
	/* at the end of a full chunk there is no place, nor need of one */
	if (n > 0)
		dense->refs[path] = (uint64) n << (PLACE_BITS + CHUNK_BITS) |
			(uint64) (dense->nchunks - 1) << PLACE_BITS | dense->chunk_used;
	dense->chunk_used += n;
	dense->edges += n;
}

static void
receive_path(Reading *reading, TupleTableSlot *slot)
{
	Dense	   *dense = reading->dense;
	bool		isnull;
	const uint8 *hash = DatumGetStoreHash(slot_getattr(slot, 1, &isnull));
	Datum		value = slot_getattr(slot, 2, &isnull);
	struct varlena *info = PG_DETOAST_DATUM_PACKED(value);
	const uint8 *packed = NARINFO_PACKED(info);
	uint32		path = dense_find(dense, hash);

	if (path == DENSE_NONE || !packed_check(packed, NARINFO_PACKED_LEN(info)))
	{
		char		text[STORE_HASH_TEXT_LEN];

		store_hash_encode(hash, text);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 path == DENSE_NONE ?
				 errmsg("%.*s is not in the index of narinfo.valid_path",
						STORE_HASH_TEXT_LEN, text) :
				 errmsg("damaged narinfo of %.*s in cache \"%s\"",
						STORE_HASH_TEXT_LEN, text, dense->cache)));
	}
	fill_refs(dense, path, packed);
	dense->when[path] = DatumGetTimestampTz(slot_getattr(slot, 3, &isnull));
	set_size(dense->sizes + (Size) path * 2 * SIZE_BYTES,
			 packed_nar_size(packed));
	set_size(dense->sizes + ((Size) path * 2 + 1) * SIZE_BYTES,
			 packed_file_size(packed));
}

/* The arrays beside the hashes, which are no more now than they have to be. */
static void
make_arrays(Dense *dense)
{
	dense->hashes = dense_resize(dense, dense->hashes,
						   sizeof(PathHash) * dense->room,
						   sizeof(PathHash) * dense->n);
	dense->room = dense->n;
	dense->refs = dense_array(dense, sizeof(uint64));
	dense->sizes = dense_array(dense, 2 * SIZE_BYTES);
	dense->when = dense_array(dense, sizeof(TimestampTz));
}

static void
trim_chunk(Dense *dense)
{
	uint32	  **last;

	if (dense->nchunks == 0)
		return;
	last = &dense->chunks[dense->nchunks - 1];
	*last = dense_resize(dense, *last, sizeof(uint32) * dense->chunk_size,
				   sizeof(uint32) * dense->chunk_used);
	dense->chunk_size = dense->chunk_used;
}

static Dense *
make_dense(const char *cache)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo graph",
												  ALLOCSET_DEFAULT_SIZES);
	Dense	   *dense = MemoryContextAllocZero(context, sizeof(Dense));

	dense->context = context;
	dense->cache = MemoryContextStrdup(context, cache);
	return dense;
}

Dense *
dense_load(const char *cache)
{
	DenseEstimate estimate;
	Reading		reading = {0};
	Dense	   *dense;

	dense_estimate(cache, &estimate);
	if (!estimate.is_bound && estimate.bytes > graph_memory * 1024.0)
		refuse_memory(cache, estimate.bytes, true);
	dense = make_dense(cache);
	reading.dense = dense;
	reading.row_context = AllocSetContextCreate(CurrentMemoryContext,
												"narinfo graph row",
												ALLOCSET_DEFAULT_SIZES);
	reading.phase = PROGRESS_LOADING;
	reading.expected = (int64) estimate.paths;
	reading.receive = receive_hash;
	reserve_hashes(dense, &estimate);
	read_table(&reading, "SELECT hash FROM narinfo.valid_path "
			   "WHERE cache OPERATOR(pg_catalog.=) $1");
	sort_hashes(dense->hashes, dense->n);
	make_arrays(dense);
	make_begins(dense);
	reading.phase = PROGRESS_LINKING;
	reading.expected = dense->n;
	reading.receive = receive_path;
	read_table(&reading, "SELECT hash, info, registered "
			   "FROM narinfo.valid_path "
			   "WHERE cache OPERATOR(pg_catalog.=) $1");
	MemoryContextDelete(reading.row_context);
	trim_chunk(dense);
	return dense;
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

static inline const uint32 *
get_refs(const Dense *dense, uint32 path, uint32 *n)
{
	uint64		where = dense->refs[path];

	*n = (uint32) (where >> (PLACE_BITS + CHUNK_BITS));
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

uint32
dense_mark(const Dense *dense, uint32 path, uint8 bit, uint8 *marks,
		   uint32 *queue)
{
	uint32		n = 0;

	if (marks[path] & bit)
		return 0;
	marks[path] |= bit;
	queue[n++] = path;
	for (uint32 i = 0; i < n; i++)
	{
		uint32		nrefs;
		const uint32 *refs = get_refs(dense, queue[i], &nrefs);

		if (i % REPORT_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
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
