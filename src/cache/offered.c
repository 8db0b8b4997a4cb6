/*-------------------------------------------------------------------------
 *
 * offered.c
 *	  What a transaction publishes, taken together; see offered.h.
 *
 * Signatures are checked here, by who publishes and before he has the lock:
 * the lock is held for what only it makes certain.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/offered.h"

#include "cache/cache.h"
#include "cache/change.h"
#include "cache/key.h"
#include "cache/policy.h"
#include "types/types.h"

static Offered *first = NULL;	/* in the transaction's memory */

static Offered *
find(uint32 cache)
{
	Offered    *offered = first;

	while (offered != NULL && offered->cache != cache)
		offered = offered->next;
	return offered;
}

const Offered *
offered_find(uint32 cache)
{
	return find(cache);
}

void
offered_forget(void)
{
	first = NULL;
}

static Offered *
begin(MemoryContext context, uint32 cache, Span dir)
{
	Offered    *offered = MemoryContextAllocZero(context, sizeof(Offered));

	offered->cache = cache;
	offered->refs = hashset_create(context, 64, NULL);
	memcpy(offered->store_dir, dir.data, dir.len);
	offered->signatures = PG_INT32_MAX;
	offered->keys = key_generation();
	offered->next = first;
	first = offered;
	return offered;
}

/* No more than the cache wants are counted. */
static void
count_signatures(Offered *offered, const struct varlena *info)
{
	const char *cache = change_cache_name(offered->cache);
	CachePolicies policies;
	int			wanted = 0;

	if (cache_get_policies(cache, &policies))
		wanted = policies.min_signatures;
	if (wanted > 0)
		wanted = policy_count_signatures(cache, info, wanted);
	if (offered->keys != key_generation())
		wanted = 0;
	offered->signatures = Min(offered->signatures, wanted);
}

void
offered_add(MemoryContext context, uint32 cache, const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);
	const uint8 *own = packed_store_hash(packed);
	Offered    *offered = find(cache);
	PackedRefs	refs;
	StorePath	path;

	if (!packed_open(packed, NARINFO_PACKED_LEN(info), &refs, &path) ||
		path.dir.len > STORE_DIR_MAX)
	{
		path.dir = span_of("", 0);
		packed = NULL;
	}
	if (offered == NULL)
		offered = begin(context, cache, path.dir);
	if (packed == NULL || !span_is(path.dir, offered->store_dir))
	{
		offered->mixed = true;
		return;
	}
	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		const uint8 *ref = packed_ref(packed, i);

		if (memcmp(ref, own, STORE_HASH_LEN) != 0)
			add_hash(offered->refs, ref);
	}
	count_signatures(offered, info);
}
