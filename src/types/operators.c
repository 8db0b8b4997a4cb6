/*-------------------------------------------------------------------------
 *
 * operators.c
 *	  What every type's operator classes are made of.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "types/operators.h"

#include "port/pg_bswap.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64
hash_bytes_xxh3(const void *bytes, size_t len, uint64 seed)
{
	return XXH3_64bits_withSeed(bytes, len, seed);
}

uint64
hash_payload(Datum value, uint64 seed)
{
	struct varlena *detoasted = PG_DETOAST_DATUM_PACKED(value);
	uint64		hash = hash_bytes_xxh3(VARDATA_ANY(detoasted),
									   VARSIZE_ANY_EXHDR(detoasted), seed);

	FREE_COPY(detoasted, value);
	return hash;
}

Datum
abbreviate_bytes(const uint8 *bytes)
{
	uint64		key;

	memcpy(&key, bytes, sizeof(key));
	key = pg_ntoh64(key);
#if SIZEOF_DATUM == 8
	return (Datum) key;
#else
	return (Datum) (key >> 32);
#endif
}

static bool
never_abort(int memtupcount, SortSupport ssup)
{
	(void) memtupcount;
	(void) ssup;
	return false;
}

void
setup_sort(SortSupport ssup, int (*compare) (Datum, Datum, SortSupport),
		   Datum (*abbreviate) (Datum, SortSupport))
{
	ssup->comparator = compare;
	ssup->ssup_extra = NULL;
	if (!ssup->abbreviate)
		return;
	ssup->comparator = ssup_datum_unsigned_cmp;
	ssup->abbrev_converter = abbreviate;
	ssup->abbrev_abort = never_abort;
	ssup->abbrev_full_comparator = compare;
}
