/*-------------------------------------------------------------------------
 *
 * dense_private.h
 *	  What the files of the graph in memory share; see dense.h.
 *
 *		dense_load.c	fills it from the table
 *		dense_number.c	numbers for hashes
 *		dense.c			memory, what is in it, marking
 *
 * References lie in chunks, those of a path in one of them, so that none of
 * them ever moves and no room is left over.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_DENSE_PRIVATE_H
#define NARINFO_GRAPH_DENSE_PRIVATE_H

#include "graph/dense.h"

/* a call for each reference would cost more than the hash of one */
#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * Where references are: 20 bits of the place in the chunk, 19 of the chunk,
 * one that says that there is a row, 24 of how many.  A narinfo has less than
 * 2^24 bytes, so it never has more than a chunk's.
 */
#define PLACE_BITS	20
#define CHUNK_BITS	19
#define HAS_ROW		((uint64) 1 << (PLACE_BITS + CHUNK_BITS))
#define COUNT_SHIFT (PLACE_BITS + CHUNK_BITS + 1)
#define CHUNK_MAX	((uint32) 1 << PLACE_BITS)
#define CHUNK_MIN	1024
#define CHUNKS_MAX	((uint32) 1 << CHUNK_BITS)

#define SIZE_BYTES	5
#define SIZE_LIMIT	(((uint64) 1 << (8 * SIZE_BYTES)) - 1)

#define PATHS_MAX	((uint32) 1 << 31)

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
	uint32		rows;			/* of these; all of them, in the end */
	uint32		room;			/* in the arrays of paths */
	PathHash   *hashes;
	uint64	   *refs;			/* see PLACE_BITS */
	uint8	   *sizes;			/* of the nar, then of the file */
	TimestampTz *when;
	uint32	   *slots;			/* see dense_number.c */
	uint32		nslots;
	uint32		numbers;		/* that the slots have room for */
	int			id_bits;
	uint64		seed;
	uint32	  **chunks;
	uint32		nchunks;
	uint32		chunk_size;		/* of the last one */
	uint32		chunk_used;
	uint64		edges_expected;
	uint64		edges;
	uint64		dangling;
};

/* pg_narinfo.graph_memory, in bytes. */
extern Size dense_limit(void);
extern void dense_refuse_memory(const char *cache, double bytes,
								bool estimated);

/* Of a hash, for those who look it up. */
static inline uint64
dense_key(const Dense *dense, const uint8 *hash)
{
	return XXH3_64bits_withSeed(hash, STORE_HASH_LEN, dense->seed);
}

/* Room for so many paths, at least; PATHS_MAX at most. */
extern void dense_make_room(Dense *dense, double paths);

/* The number of a hash, a new one if it has none. */
extern uint32 dense_number(Dense *dense, const uint8 *hash, uint64 key);

/*
 * After numbers have been taken away: the same for those that are left, and
 * no more room than they need.
 */
extern void dense_number_again(Dense *dense);

/*
 * Memory answers far slower than we count, so what will be looked at is asked
 * for before: where the search for a hash begins, and then, what it will be
 * compared with.  (GCC takes a function that only prefetches for one without
 * effect, and its calls away: so inline.)
 */
static pg_attribute_always_inline uint32
dense_home(const Dense *dense, uint64 key)
{
	return (uint32) (((key >> 32) * dense->nslots) >> 32);
}

static pg_attribute_always_inline void
dense_prefetch_slot(const Dense *dense, uint64 key)
{
	__builtin_prefetch(&dense->slots[dense_home(dense, key)]);
}

/* Of a slot, the number that it has (plus one) and the part of a key. */
static pg_attribute_always_inline uint32
dense_id_mask(const Dense *dense)
{
	return ((uint32) 1 << dense->id_bits) - 1;
}

static pg_attribute_always_inline uint32
dense_tag(const Dense *dense, uint64 key)
{
	return (uint32) key << dense->id_bits;
}

#define PROBES_AHEAD 8			/* most searches are over by then */

static pg_attribute_always_inline void
dense_prefetch_hash(const Dense *dense, uint64 key)
{
	uint32		id_mask = dense_id_mask(dense);
	uint32		tag = dense_tag(dense, key);
	uint32		i = dense_home(dense, key);

	for (int probe = 0; probe < PROBES_AHEAD; probe++)
	{
		uint32		slot = dense->slots[i];

		if (slot == 0)
			return;
		if (((slot ^ tag) & ~id_mask) == 0)
		{
			__builtin_prefetch(&dense->hashes[(slot & id_mask) - 1]);
			return;
		}
		if (++i == dense->nslots)
			i = 0;
	}
}

#endif							/* NARINFO_GRAPH_DENSE_PRIVATE_H */
