/*-------------------------------------------------------------------------
 *
 * dense_load.c
 *	  The graph of one cache, from the table into memory; see dense.h.
 *
 * The table is read once, as its rows lie (rows.c).  A path has its number
 * from the first row that is of it or refers to it, so that nothing has to be
 * sorted, nor has to wait until it can be found; what was referred to and has
 * no row is taken out at the end.  Numbers of what was published together are
 * near to each other, and so are the places that a walk looks at.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/dense_private.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "cache/progress.h"
#include "graph/pace.h"
#include "graph/rows.h"
#include "types/types.h"

/* Bytes a path while it is read: an estimate takes no more room than this. */
#define BYTES_READ 52

#define SLACK 0.016				/* of an estimate of paths */

#define PACE_AFTER 512			/* rows */

/*-------------------------------------------------------------------------
 * A row
 *-------------------------------------------------------------------------
 */

/* Room for the references of one path in one chunk. */
static uint32 *
reserve_refs(Dense *dense, uint32 n)
{
	if (dense->nchunks == 0 || dense->chunk_size - dense->chunk_used < n)
	{
		uint64		size = Max(dense->edges, dense->edges_expected) / 32;

		size = Min(Max(Max(size, CHUNK_MIN), n), CHUNK_MAX);
		if (n > size || dense->nchunks == CHUNKS_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("cache \"%s\" has more references than can be counted",
							dense->cache)));
		if (dense->nchunks % 64 == 0)
			dense->chunks =
				dense_resize(dense, dense->chunks,
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

/* A row that is on its way, and room for its references. */
typedef struct Record
{
	PathHash	hash;
	uint32		path;			/* its number, once it has one */
	uint64		key;
	TimestampTz when;
	uint64		nar_size;
	uint64		file_size;
	uint32		nrefs;
	uint32		max;
	PathHash   *refs;
	uint64	   *keys;			/* of the references */
} Record;

/*
 * A row is taken in steps, each when one row more has come, since each needs
 * what the one before it has asked for (dense_private.h).
 */
#define STEPS 4

typedef struct Reading
{
	Dense	   *dense;
	Record		records[STEPS];
	int64		n;				/* rows that have come */
	int64		expected;
} Reading;

static void
seek_record(const Dense *dense, Record *record)
{
	record->key = dense_key(dense, record->hash.bytes);
	dense_prefetch_slot(dense, record->key);
	for (uint32 i = 0; i < record->nrefs; i++)
	{
		record->keys[i] = dense_key(dense, record->refs[i].bytes);
		dense_prefetch_slot(dense, record->keys[i]);
	}
}

static void
prefetch_record(const Dense *dense, const Record *record)
{
	dense_prefetch_hash(dense, record->key);
	for (uint32 i = 0; i < record->nrefs; i++)
		dense_prefetch_hash(dense, record->keys[i]);
}

static void
number_record(Dense *dense, Record *record)
{
	record->path = dense_number(dense, record->hash.bytes, record->key);
	__builtin_prefetch(&dense->refs[record->path], 1);
	__builtin_prefetch(&dense->when[record->path], 1);
	__builtin_prefetch(dense->sizes + (Size) record->path * 2 * SIZE_BYTES, 1);
}

static void
fill_path(Dense *dense, const Record *record)
{
	uint32		path = record->path;
	uint32	   *to = reserve_refs(dense, record->nrefs);
	uint32		n = 0;

	if (dense->refs[path] & HAS_ROW)
	{
		char		text[STORE_HASH_TEXT_LEN];

		store_hash_encode(record->hash.bytes, text);
		ereport(ERROR,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg("there are two rows of %.*s in cache \"%s\"",
						STORE_HASH_TEXT_LEN, text, dense->cache),
				 errhint("Its primary key does not keep them apart any more.")));
	}
	for (uint32 i = 0; i < record->nrefs; i++)
	{
		uint32		ref = dense_number(dense, record->refs[i].bytes,
									   record->keys[i]);

		if (ref != path)
			to[n++] = ref;
	}
	dense->refs[path] = HAS_ROW;
	/* at the end of a full chunk there is no place, nor need of one */
	if (n > 0)
		dense->refs[path] |= (uint64) n << COUNT_SHIFT |
			(uint64) (dense->nchunks - 1) << PLACE_BITS | dense->chunk_used;
	dense->chunk_used += n;
	dense->edges += n;
	dense->when[path] = record->when;
	set_size(dense->sizes + (Size) path * 2 * SIZE_BYTES, record->nar_size);
	set_size(dense->sizes + ((Size) path * 2 + 1) * SIZE_BYTES,
			 record->file_size);
}

/* What is due when row "i" has come, or would have, after the last one. */
static void
take_steps(Reading *reading, int64 i)
{
	Dense	   *dense = reading->dense;
	Record	   *records = reading->records;

	if (i < reading->n)
		seek_record(dense, &records[i % STEPS]);
	if (i >= 1 && i - 1 < reading->n)
		prefetch_record(dense, &records[(i - 1) % STEPS]);
	if (i >= 2 && i - 2 < reading->n)
		number_record(dense, &records[(i - 2) % STEPS]);
	if (i >= 3 && i - 3 < reading->n)
		fill_path(dense, &records[(i - 3) % STEPS]);
}

static void
make_record_room(Record *record, uint32 nrefs)
{
	if (nrefs <= record->max)
		return;
	record->max = nrefs;
	record->refs = repalloc(record->refs, sizeof(PathHash) * nrefs);
	record->keys = repalloc(record->keys, sizeof(uint64) * nrefs);
}

static void
add_row(void *arg, const uint8 *hash, const struct varlena *info,
		TimestampTz when)
{
	Reading    *reading = arg;
	Record	   *record = &reading->records[reading->n % STEPS];
	const uint8 *packed = NARINFO_PACKED(info);

	if (!packed_check(packed, NARINFO_PACKED_LEN(info)))
	{
		char		text[STORE_HASH_TEXT_LEN];

		store_hash_encode(hash, text);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo of %.*s in cache \"%s\"",
						STORE_HASH_TEXT_LEN, text, reading->dense->cache)));
	}
	memcpy(record->hash.bytes, hash, STORE_HASH_LEN);
	record->when = when;
	record->nar_size = packed_nar_size(packed);
	record->file_size = packed_file_size(packed);
	record->nrefs = packed_nrefs(packed);
	make_record_room(record, record->nrefs);
	if (record->nrefs > 0)
		memcpy(record->refs, packed_ref(packed, 0),
			   sizeof(PathHash) * record->nrefs);
	reading->n++;
	take_steps(reading, reading->n - 1);
	if (reading->n % PACE_AFTER == 0)
		pace();
	if (reading->n % REPORT_AFTER == 0)
		progress_report(PROGRESS_LOADING, reading->n, reading->expected, 0, 0,
						0);
}

static void
read_rows(Dense *dense, const DenseEstimate *estimate)
{
	Reading		reading = {
		.dense = dense, .expected = (int64) estimate->paths
	};

	for (int i = 0; i < STEPS; i++)
	{
		Record	   *record = &reading.records[i];

		record->max = 64;
		record->refs = palloc(sizeof(PathHash) * record->max);
		record->keys = palloc(sizeof(uint64) * record->max);
	}
	rows_visit(dense->cache, estimate->share, add_row, &reading);
	for (int i = 0; i < STEPS - 1; i++)
		take_steps(&reading, reading.n + i);
	for (int i = 0; i < STEPS; i++)
	{
		pfree(reading.records[i].refs);
		pfree(reading.records[i].keys);
	}
	dense->rows = (uint32) reading.n;
}

/*-------------------------------------------------------------------------
 * What has no row
 *-------------------------------------------------------------------------
 */

/* The numbers that paths will have; DENSE_NONE without a row. */
static uint32 *
number_rows(Dense *dense)
{
	uint32	   *numbers = dense_array(dense, sizeof(uint32));
	uint32		next = 0;

	for (uint32 path = 0; path < dense->n; path++)
		numbers[path] = (dense->refs[path] & HAS_ROW) ? next++ : DENSE_NONE;
	return numbers;
}

/* The references of a path, by their new numbers. */
static void
renumber_refs(Dense *dense, uint32 path, const uint32 *numbers)
{
	uint64		where = dense->refs[path];
	uint32		nrefs = (uint32) (where >> COUNT_SHIFT);
	uint32		chunk = (uint32) (where >> PLACE_BITS) & (CHUNKS_MAX - 1);
	uint32	   *refs = dense->chunks[chunk] + (where & (CHUNK_MAX - 1));
	uint32		n = 0;

	for (uint32 i = 0; i < nrefs; i++)
	{
		if (numbers[refs[i]] != DENSE_NONE)
			refs[n++] = numbers[refs[i]];
	}
	dense->dangling += nrefs - n;
	dense->edges -= nrefs - n;
	dense->refs[path] = where & ~((uint64) nrefs << COUNT_SHIFT);
	dense->refs[path] |= (uint64) n << COUNT_SHIFT;
}

static void
move_path(Dense *dense, uint32 from, uint32 to)
{
	dense->hashes[to] = dense->hashes[from];
	dense->refs[to] = dense->refs[from];
	dense->when[to] = dense->when[from];
	memcpy(dense->sizes + (Size) to * 2 * SIZE_BYTES,
		   dense->sizes + (Size) from * 2 * SIZE_BYTES, 2 * SIZE_BYTES);
}

static void
take_out_rowless(Dense *dense)
{
	uint32	   *numbers;

	if (dense->rows == dense->n)
		return;
	numbers = number_rows(dense);
	for (uint32 path = 0; path < dense->n; path++)
	{
		if (path % REPORT_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		if (numbers[path] == DENSE_NONE)
			continue;
		if (dense->refs[path] >> COUNT_SHIFT > 0)
			renumber_refs(dense, path, numbers);
		if (numbers[path] != path)
			move_path(dense, path, numbers[path]);
	}
	dense_array_free(dense, numbers, sizeof(uint32));
}

/*-------------------------------------------------------------------------
 * All
 *-------------------------------------------------------------------------
 */

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
make_dense(const char *cache, const DenseEstimate *estimate)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo graph",
												  ALLOCSET_DEFAULT_SIZES);
	Dense	   *dense = MemoryContextAllocZero(context, sizeof(Dense));

	dense->context = context;
	dense->cache = MemoryContextStrdup(context, cache);
	dense->seed = pg_prng_uint64(&pg_global_prng_state);
	if (estimate->is_bound)
		dense_make_room(dense, 1024);
	else
	{
		/* at once what it will take: large pages, and nothing moves */
		dense->edges_expected = (uint64) estimate->edges;
		dense_make_room(dense,
						Min(estimate->paths * (1 + SLACK) + 1024,
							(double) dense_limit() / BYTES_READ));
	}
	return dense;
}

Dense *
dense_load(const char *cache)
{
	DenseEstimate estimate;
	Dense	   *dense;

	dense_estimate(cache, &estimate);
	if (!estimate.is_bound && estimate.bytes > (double) dense_limit())
		dense_refuse_memory(cache, estimate.bytes, true);
	dense = make_dense(cache, &estimate);
	read_rows(dense, &estimate);
	trim_chunk(dense);
	take_out_rowless(dense);
	dense_number_again(dense);
	return dense;
}
