/*-------------------------------------------------------------------------
 *
 * hashset.h
 *	  A set of store hashes in memory.
 *
 * Whoever publishes chooses the hashes, so they are hashed with a seed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_HASHSET_H
#define NARINFO_CACHE_HASHSET_H

#include "postgres.h"

#include "miscadmin.h"

#include "base/store_path.h"
#include "types/operators.h"

typedef struct HashKey
{
	uint8		bytes[STORE_HASH_LEN];
} HashKey;

typedef struct HashEntry
{
	HashKey		key;
	char		status;
} HashEntry;

#define SH_PREFIX hashset
#define SH_ELEMENT_TYPE HashEntry
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

static inline void
add_hash(hashset_hash * set, const uint8 *hash)
{
	HashKey		key;
	bool		found;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	(void) hashset_insert(set, key, &found);
}

static inline bool
has_hash(hashset_hash * set, const uint8 *hash)
{
	HashKey		key;

	memcpy(key.bytes, hash, STORE_HASH_LEN);
	return hashset_lookup(set, key) != NULL;
}

#endif							/* NARINFO_CACHE_HASHSET_H */
