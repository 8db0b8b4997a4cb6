/*-------------------------------------------------------------------------
 *
 * closure.c
 *	  Whether all that valid paths refer to is valid.
 *
 * A batch is judged as a whole, in any order: what it publishes itself is
 * known first, everything else is looked up once however many refer to it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/gate.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/hashset.h"
#include "cache/referrer.h"

struct ClosureCheck
{
	const char *cache;
	ValidPathScan *scan;
	hashset_hash *valid;
	MemoryContext row_context;
};

ClosureCheck *
closure_begin(const char *cache, ValidPathScan *scan, uint64 npaths)
{
	ClosureCheck *check = palloc(sizeof(ClosureCheck));

	check->cache = cache;
	check->scan = scan;
	check->valid = hashset_create(CurrentMemoryContext,
								  (uint32) Min(npaths + 16, 1 << 30), NULL);
	check->row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "narinfo reference",
											   ALLOCSET_DEFAULT_SIZES);
	return check;
}

void
closure_add(ClosureCheck *check, const uint8 *hash)
{
	add_hash(check->valid, hash);
}

void
closure_end(ClosureCheck *check)
{
	hashset_destroy(check->valid);
	MemoryContextDelete(check->row_context);
	pfree(check);
}

/* "HASH-NAME" of a narinfo, or of its i-th reference. */
static char *
name_of(const struct varlena *info, int64 reference)
{
	PackedRefs	refs;
	StorePath	path;
	char		hash[STORE_HASH_TEXT_LEN];

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	for (int64 i = 0; i <= reference; i++)
	{
		if (!packed_next_ref(&refs, &path))
			break;
	}
	store_hash_encode(path.hash, hash);
	return psprintf("%.*s-%.*s", STORE_HASH_TEXT_LEN, hash,
					(int) path.name.len, path.name.data);
}

static bool
is_valid(ClosureCheck *check, const uint8 *hash)
{
	MemoryContext old;
	bool		found;

	if (has_hash(check->valid, hash))
		return true;
	old = MemoryContextSwitchTo(check->row_context);
	found = valid_path_find(check->scan, check->cache, hash) != NULL;
	MemoryContextSwitchTo(old);
	MemoryContextReset(check->row_context);
	if (found)
		add_hash(check->valid, hash);
	return found;
}

void
closure_check(ClosureCheck *check, const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);
	const uint8 *own = packed_store_hash(packed);

	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		const uint8 *ref = packed_ref(packed, i);

		if (memcmp(ref, own, STORE_HASH_LEN) != 0 && !is_valid(check, ref))
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_DANGLING),
					 errmsg("reference %s is not valid in cache \"%s\"",
							name_of(info, i), check->cache),
					 errdetail("It is a reference of %s.", name_of(info, -1)),
					 errhint("Publish it first, or in the same transaction.")));
	}
}

/*-------------------------------------------------------------------------
 * References taken together
 *-------------------------------------------------------------------------
 */

static int
compare_keys(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(HashKey));
}

/* Those that are neither known to be valid nor published now, in order. */
static HashKey *
unknown_refs(const CacheChanges *cache, hashset_hash *refs, uint64 *n)
{
	hashset_hash *published = NULL;
	HashKey    *unknown = palloc_extended(sizeof(HashKey) *
										  (refs->members + (uint64) 1),
										  MCXT_ALLOC_HUGE);
	hashset_iterator iterator;
	HashEntry  *entry;

	*n = 0;
	hashset_start_iterate(refs, &iterator);
	while ((entry = hashset_iterate(refs, &iterator)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (known_has(cache->known, entry->key.bytes))
			continue;
		if (published == NULL)
		{
			published = hashset_create(CurrentMemoryContext,
									   (uint32) Min(cache->n + 16, 1 << 30),
									   NULL);
			for (uint64 i = 0; i < cache->n; i++)
			{
				if (is_published(&cache->changes[i]))
					add_hash(published, cache->changes[i].key);
			}
		}
		if (!has_hash(published, entry->key.bytes))
			unknown[(*n)++] = entry->key;
	}
	if (published != NULL)
		hashset_destroy(published);
	qsort(unknown, *n, sizeof(HashKey), compare_keys);
	return unknown;
}

bool
closure_holds(const CacheChanges *cache, hashset_hash *refs)
{
	uint64		n;
	HashKey    *unknown = unknown_refs(cache, refs, &n);
	ValidPathScan *scan = n > 0 ? valid_path_begin() : NULL;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo reference",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row_context);
	bool		holds = true;

	for (uint64 i = 0; holds && i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		holds = valid_path_find(scan, cache->name, unknown[i].bytes) != NULL;
		if (holds)
			known_add(cache->known, unknown[i].bytes);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
	if (scan != NULL)
		valid_path_end(scan);
	pfree(unknown);
	return holds;
}

/*-------------------------------------------------------------------------
 * A whole cache
 *-------------------------------------------------------------------------
 */

static void
add_path(void *arg, const uint8 *hash, const struct varlena *info)
{
	(void) info;
	closure_add(arg, hash);
}

static void
check_path(void *arg, const uint8 *hash, const struct varlena *info)
{
	(void) hash;
	closure_check(arg, info);
}

/*
 * All hashes first, so that no reference is looked up but those that are not
 * there.
 */
void
closure_check_all(const char *cache)
{
	ValidPathScan *scan = valid_path_begin();
	ClosureCheck *check = closure_begin(cache, scan, 0);

	valid_path_each(cache, add_path, check);
	valid_path_each(cache, check_path, check);
	closure_end(check);
	valid_path_end(scan);
}

static void
refuse_removal(void *arg, const uint8 *ref, const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);
	uint32		i = 0;

	while (i + 1 < packed_nrefs(packed) &&
		   memcmp(packed_ref(packed, i), ref, STORE_HASH_LEN) != 0)
		i++;
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_DANGLING),
			 errmsg("%s is referred to in cache \"%s\"", name_of(info, i),
					(const char *) arg),
			 errdetail("It is a reference of %s.", name_of(info, -1)),
			 errhint("Remove what refers to it first, or in the same transaction.")));
}

void
closure_check_removed(const char *cache, const Change *removed, uint64 n)
{
	const uint8 **hashes = palloc_extended(sizeof(uint8 *) * n,
										   MCXT_ALLOC_HUGE);

	for (uint64 i = 0; i < n; i++)
		hashes[i] = removed[i].key;
	referrer_visit(cache, hashes, n, refuse_removal, (void *) cache);
	pfree(hashes);
}
