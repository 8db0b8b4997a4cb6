/*-------------------------------------------------------------------------
 *
 * dense.c
 *	  The graph of one cache in memory; see dense.h.
 *
 *	  valid_path --+--> hashes in memory, then sorted
 *				   |
 *				   +--> temporary file: sizes, time, hashes of the references
 *							  |
 *							  +--> numbers, by search in the sorted hashes
 *
 * The table is read once, as its rows lie (rows.c).  Hashes of references
 * are five times as large as the numbers that they become, so they wait in a
 * file: memory never holds more than the graph.
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
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "port/pg_bswap.h"
#include "storage/buffile.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/progress.h"
#include "graph/rows.h"
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

#define HUGE_PAGE ((Size) 2 * 1024 * 1024)

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

/* In the file, before the hashes of the references. */
typedef struct Waiting
{
	PathHash	hash;
	uint32		nrefs;
	TimestampTz when;
	uint64		nar_size;
	uint64		file_size;
} Waiting;

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
 * Arrays are walked at random: with pages of 2 MB, where the kernel gives
 * them to who asks, that costs fewer searches for the pages themselves.
 */
static void *
advise(void *array, Size bytes)
{
#ifdef MADV_HUGEPAGE
	char	   *begin = (char *) TYPEALIGN(HUGE_PAGE, array);
	char	   *end = (char *) TYPEALIGN_DOWN(HUGE_PAGE,
											  (char *) array + bytes);

	if (end > begin)
		(void) madvise(begin, end - begin, MADV_HUGEPAGE);
#endif
	return array;
}

void *
dense_resize(Dense *dense, void *array, Size old, Size new)
{
	if (new > old)
		take(dense, new - old);
	else
		dense->memory -= old - new;
	if (array == NULL)
		return advise(MemoryContextAllocHuge(dense->context, Max(new, 1)),
					  new);
	return advise(repalloc_huge(array, Max(new, 1)), new);
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
	estimate->share = estimate->is_bound || edges[1] <= 0 ? 1 :
		edges[0] / edges[1];
	estimate->bytes = BYTES_A_PATH * estimate->paths +
		BYTES_AN_EDGE * estimate->edges;
}

/*-------------------------------------------------------------------------
 * First pass: the table into hashes and the file
 *-------------------------------------------------------------------------
 */

typedef struct Reading
{
	Dense	   *dense;
	BufFile    *file;
	int64		expected;		/* paths, for progress */
} Reading;

static void
make_room(Dense *dense, double wanted)
{
	uint32		room = (uint32) Min(wanted, DENSE_NONE - 1);

	if (dense->n >= DENSE_NONE - 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cache \"%s\" has more paths than can be counted",
						dense->cache)));
	dense->hashes = dense_resize(dense, dense->hashes,
								 sizeof(PathHash) * dense->room,
								 sizeof(PathHash) * room);
	dense->room = room;
}

static void
add_hash(Dense *dense, const uint8 *hash)
{
	if (dense->n == dense->room)
		make_room(dense, dense->room + dense->room / 8 + 1024);
	memcpy(dense->hashes[dense->n++].bytes, hash, STORE_HASH_LEN);
}

static void
add_row(void *arg, const uint8 *hash, const struct varlena *info,
		TimestampTz when)
{
	Reading    *reading = arg;
	const uint8 *packed = NARINFO_PACKED(info);
	Waiting		waiting;

	if (!packed_check(packed, NARINFO_PACKED_LEN(info)))
	{
		char		text[STORE_HASH_TEXT_LEN];

		store_hash_encode(hash, text);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo of %.*s in cache \"%s\"",
						STORE_HASH_TEXT_LEN, text, reading->dense->cache)));
	}
	add_hash(reading->dense, hash);
	memset(&waiting, 0, sizeof(waiting));
	memcpy(waiting.hash.bytes, hash, STORE_HASH_LEN);
	waiting.nrefs = packed_nrefs(packed);
	waiting.when = when;
	waiting.nar_size = packed_nar_size(packed);
	waiting.file_size = packed_file_size(packed);
	BufFileWrite(reading->file, &waiting, sizeof(waiting));
	if (waiting.nrefs > 0)
		BufFileWrite(reading->file, (void *) packed_ref(packed, 0),
					 (size_t) waiting.nrefs * STORE_HASH_LEN);
	if (reading->dense->n % REPORT_AFTER == 0)
		progress_report(PROGRESS_LOADING, reading->dense->n,
						reading->expected, 0, 0, 0);
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
 * Second pass: the file into numbers
 *-------------------------------------------------------------------------
 */

static void
read_file(BufFile *file, void *data, size_t n)
{
	if (BufFileRead(file, data, n) != n)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("temporary file is shorter than what was written")));
}

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

/* A path of the file, and room for its references. */
typedef struct Record
{
	Waiting		waiting;
	uint32		path;			/* its number, once it has been found */
	uint32		max;
	PathHash   *refs;
} Record;

static void
read_record(BufFile *file, Record *record)
{
	read_file(file, &record->waiting, sizeof(Waiting));
	if (record->waiting.nrefs > record->max)
	{
		record->max = record->waiting.nrefs;
		record->refs = repalloc(record->refs, sizeof(PathHash) * record->max);
	}
	read_file(file, record->refs, sizeof(PathHash) * record->waiting.nrefs);
}

/*
 * Memory answers far slower than we count, so a path is filled in when what
 * that looks at, and writes to, has been asked for three paths earlier; each
 * step needs what the one before it has asked for.  (GCC takes a function that
 * only prefetches for one without effect, and its calls away: so inline.)
 */
static pg_attribute_always_inline void
prefetch_begins(const Dense *dense, const Record *record)
{
	__builtin_prefetch(&dense->begins[begin_of(dense,
											   record->waiting.hash.bytes)]);
	for (uint32 i = 0; i < record->waiting.nrefs; i++)
		__builtin_prefetch(&dense->begins[begin_of(dense,
												   record->refs[i].bytes)]);
}

static pg_attribute_always_inline void
prefetch_hash(const Dense *dense, const PathHash *hash)
{
	uint32		first = dense->begins[begin_of(dense, hash->bytes)];

	__builtin_prefetch(&dense->hashes[first]);
	__builtin_prefetch(&dense->hashes[first + 2]);
}

static pg_attribute_always_inline void
prefetch_hashes(const Dense *dense, const Record *record)
{
	prefetch_hash(dense, &record->waiting.hash);
	for (uint32 i = 0; i < record->waiting.nrefs; i++)
		prefetch_hash(dense, &record->refs[i]);
}

static void
find_path(const Dense *dense, Record *record)
{
	record->path = dense_find(dense, record->waiting.hash.bytes);
	__builtin_prefetch(&dense->refs[record->path], 1);
	__builtin_prefetch(&dense->when[record->path], 1);
	__builtin_prefetch(dense->sizes + (Size) record->path * 2 * SIZE_BYTES, 1);
}

static void
fill_path(Dense *dense, const Record *record)
{
	const Waiting *waiting = &record->waiting;
	uint32		path = record->path;
	uint32	   *to = reserve_refs(dense, waiting->nrefs);
	uint32		n = 0;

	for (uint32 i = 0; i < waiting->nrefs; i++)
	{
		uint32		ref = dense_find(dense, record->refs[i].bytes);

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
	dense->when[path] = waiting->when;
	set_size(dense->sizes + (Size) path * 2 * SIZE_BYTES, waiting->nar_size);
	set_size(dense->sizes + ((Size) path * 2 + 1) * SIZE_BYTES,
			 waiting->file_size);
}

#define STEPS 4					/* of a path on its way */

static void
read_back(Dense *dense, BufFile *file)
{
	Record		records[STEPS];

	for (int i = 0; i < STEPS; i++)
	{
		records[i].max = 64;
		records[i].refs = palloc(sizeof(PathHash) * records[i].max);
	}
	if (BufFileSeek(file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rewind temporary file: %m")));
	for (int64 i = 0; i < (int64) dense->n + STEPS - 1; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i < dense->n)
		{
			read_record(file, &records[i % STEPS]);
			prefetch_begins(dense, &records[i % STEPS]);
		}
		if (i >= 1 && i - 1 < dense->n)
			prefetch_hashes(dense, &records[(i - 1) % STEPS]);
		if (i >= 2 && i - 2 < dense->n)
			find_path(dense, &records[(i - 2) % STEPS]);
		if (i >= 3)
			fill_path(dense, &records[(i - 3) % STEPS]);
		if (i % REPORT_AFTER == 0)
			progress_report(PROGRESS_LINKING, i, dense->n, 0, 0, 0);
	}
	for (int i = 0; i < STEPS; i++)
		pfree(records[i].refs);
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
	reading.expected = (int64) estimate.paths;
	reading.file = BufFileCreateTemp(false);
	/* at once what it will take: only then has it large pages */
	make_room(dense, Min(estimate.paths + estimate.paths / 64 + 1024,
						 graph_memory * 1024.0 / 4 / sizeof(PathHash)));
	rows_visit(cache, estimate.share, add_row, &reading);
	sort_hashes(dense->hashes, dense->n);
	make_arrays(dense);
	make_begins(dense);
	read_back(dense, reading.file);
	BufFileClose(reading.file);
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
