/*-------------------------------------------------------------------------
 *
 * lookup_memory.c
 *	  What a process remembers of its lookups.  See lookup_memory.h.
 *
 * Both memories are tables of buckets, each a cache line of 64 bytes, chosen
 * by bits of the hash, which are random, and of the cache's number:
 *
 *	  places	+---------------+-------------------------------------------+
 *				| 8 tags of 2	| 8 places of 6: block (4), offset (2)		|
 *				+---------------+-------------------------------------------+
 *	  absences	+-----------+-----------+-----------------+-----------------+
 *				| hash (20) | cache (4) | completions (8) |	 the other one	|
 *				+-----------+-----------+-----------------+-----------------+
 *
 * The nearer to the front of its bucket, the dearer a place is: one that is
 * recalled changes with the one before it, and a new one takes the last.  So
 * a walk over everything, asked for once each, drives out no more than the
 * last of each bucket.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/lookup_memory.h"

#include <sys/mman.h>

#include "common/hashfn.h"
#include "port/pg_bitutils.h"

#define BUCKET_SIZE 64
#define PLACES		8
#define ABSENCES	2

typedef struct PlaceBucket
{
	uint16		tags[PLACES];
	ItemPointerData tids[PLACES];	/* offset 0: free */
} PlaceBucket;

typedef struct Absence
{
	uint8		hash[STORE_HASH_LEN];
	uint32		cache;
	uint64		completions;	/* 0: free */
} Absence;

typedef struct AbsenceBucket
{
	Absence		absences[ABSENCES];
} AbsenceBucket;

StaticAssertDecl(sizeof(PlaceBucket) == BUCKET_SIZE,
				 "a bucket of places is a cache line");
StaticAssertDecl(sizeof(AbsenceBucket) == BUCKET_SIZE,
				 "a bucket of absences is a cache line");

static PlaceBucket *places = NULL;
static AbsenceBucket *absences = NULL;
static size_t nbuckets = 0;		/* of each; a power of two, or 0 */

/*
 * Fresh pages of the kernel are zero, which is free, and take no memory until
 * they are touched.
 */
void
lookup_memory_resize(size_t bytes)
{
	size_t		wanted = bytes / 2 / BUCKET_SIZE;
	char	   *pages;

	if (wanted > 0)
		wanted = (size_t) 1 << pg_leftmost_one_pos64(wanted);
	if (wanted == nbuckets)
		return;
	if (nbuckets > 0)
		(void) munmap(places, 2 * nbuckets * BUCKET_SIZE);
	nbuckets = 0;
	if (wanted == 0)
		return;
	pages = mmap(NULL, 2 * wanted * BUCKET_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
	{
		ereport(LOG,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("pg_narinfo has no memory for its lookups: %m")));
		return;
	}
	nbuckets = wanted;
	places = (PlaceBucket *) pages;
	absences = (AbsenceBucket *) (pages + nbuckets * BUCKET_SIZE);
}

/* 48 bits for the bucket, 16 for the tag. */
static inline uint64
key_of(uint32 cache, const uint8 hash[STORE_HASH_LEN])
{
	uint64		key;

	memcpy(&key, hash, sizeof(key));
	return key ^ murmurhash32(cache);
}

static inline size_t
bucket_of(uint64 key)
{
	return (key >> 16) & (nbuckets - 1);
}

/* ---- places ---- */

bool
lookup_recall_place(uint32 cache, const uint8 hash[STORE_HASH_LEN],
					ItemPointer tid)
{
	uint64		key = key_of(cache, hash);
	uint16		tag = (uint16) key;
	PlaceBucket *bucket;

	if (nbuckets == 0)
		return false;
	bucket = &places[bucket_of(key)];
	for (int i = 0; i < PLACES; i++)
	{
		if (bucket->tags[i] != tag || !ItemPointerIsValid(&bucket->tids[i]))
			continue;
		*tid = bucket->tids[i];
		if (i > 0)
		{
			bucket->tags[i] = bucket->tags[i - 1];
			bucket->tids[i] = bucket->tids[i - 1];
			bucket->tags[i - 1] = tag;
			bucket->tids[i - 1] = *tid;
		}
		return true;
	}
	return false;
}

void
lookup_remember_place(uint32 cache, const uint8 hash[STORE_HASH_LEN],
					  const ItemPointerData *tid)
{
	uint64		key = key_of(cache, hash);
	uint16		tag = (uint16) key;
	PlaceBucket *bucket;
	int			at;

	if (nbuckets == 0)
		return;
	bucket = &places[bucket_of(key)];
	for (at = 0; at < PLACES - 1; at++)
	{
		if (bucket->tags[at] == tag || !ItemPointerIsValid(&bucket->tids[at]))
			break;
	}
	bucket->tags[at] = tag;
	bucket->tids[at] = *tid;
}

/* ---- absences ---- */

static inline Absence *
absences_of(uint32 cache, const uint8 hash[STORE_HASH_LEN])
{
	return absences[bucket_of(key_of(cache, hash))].absences;
}

bool
lookup_recall_absence(uint32 cache, const uint8 hash[STORE_HASH_LEN],
					  uint64 completions)
{
	const Absence *known;

	if (nbuckets == 0 || completions == 0)
		return false;
	known = absences_of(cache, hash);
	for (int i = 0; i < ABSENCES; i++)
	{
		if (known[i].completions == completions && known[i].cache == cache &&
			memcmp(known[i].hash, hash, STORE_HASH_LEN) == 0)
			return true;
	}
	return false;
}

/* In the place of the older one, or of one that holds no more. */
void
lookup_remember_absence(uint32 cache, const uint8 hash[STORE_HASH_LEN],
						uint64 completions)
{
	Absence    *known;

	if (nbuckets == 0 || completions == 0)
		return;
	known = absences_of(cache, hash);
	if (known[0].completions == completions)
		known[1] = known[0];
	memcpy(known[0].hash, hash, STORE_HASH_LEN);
	known[0].cache = cache;
	known[0].completions = completions;
}
