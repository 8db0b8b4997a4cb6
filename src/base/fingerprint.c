/*-------------------------------------------------------------------------
 *
 * fingerprint.c
 *	  What Nix signs of a narinfo.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "base/fingerprint.h"
#include "base/packed_lines.h"

/*
 * The order of the texts: a store hash is kept so that its bytes have it, and
 * of two names that begin alike the shorter one comes first.
 */
static int
compare_refs(const void *a, const void *b)
{
	const StorePath *path_a = a;
	const StorePath *path_b = b;
	size_t		len_a = path_a->name.len;
	size_t		len_b = path_b->name.len;
	int			cmp = memcmp(path_a->hash, path_b->hash, STORE_HASH_LEN);

	if (cmp == 0)
		cmp = memcmp(path_a->name.data, path_b->name.data,
					 len_a < len_b ? len_a : len_b);
	return cmp != 0 ? cmp : (len_a > len_b) - (len_a < len_b);
}

/* Most narinfos have their references in order already. */
static void
sort_refs(StorePath *refs, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
	{
		if (compare_refs(&refs[i - 1], &refs[i]) > 0)
		{
			qsort(refs, n, sizeof(StorePath), compare_refs);
			return;
		}
	}
}

size_t
fingerprint_bound(const Narinfo *info)
{
	/* a reference comes from the text with a blank, or the end, behind it */
	return 2 + store_path_len(&info->store_path) + 1 + HASH_TEXT_MAX + 1 +
		DECIMAL_MAX + 1 + info->refs.len + 1 +
		(size_t) info->nrefs * (info->store_path.dir.len + 2);
}

/* All but the references. */
static size_t
print_head(const Narinfo *info, char *text)
{
	char	   *next = text;

	*next++ = '1';
	*next++ = ';';
	store_path_print(&info->store_path, next);
	next += store_path_len(&info->store_path);
	*next++ = ';';
	next += hash_print(&info->nar_hash, next);
	*next++ = ';';
	next += print_decimal(info->nar_size, next);
	*next++ = ';';
	return (size_t) (next - text);
}

/* One reference, and what parts it from the one before. */
static size_t
print_ref(const StorePath *ref, bool first, char *text)
{
	if (!first)
		*text++ = ',';
	store_path_print(ref, text);
	return store_path_len(ref) + !first;
}

size_t
fingerprint_print(const Narinfo *info, StorePath *refs, char *text)
{
	Span		rest = info->refs;
	uint32_t	n = 0;
	size_t		len;

	if (info->nar_size == 0)
		return 0;
	while (n < info->nrefs && narinfo_next_ref(&rest, &refs[n]))
		refs[n++].dir = info->store_path.dir;
	sort_refs(refs, n);
	len = print_head(info, text);
	for (uint32_t i = 0; i < n; i++)
	{
		if (i == 0 || compare_refs(&refs[i - 1], &refs[i]) != 0)
			len += print_ref(&refs[i], i == 0, text + len);
	}
	return len;
}

size_t
fingerprint_print_written(const Narinfo *info, char *text)
{
	Span		rest = info->refs;
	StorePath	ref;
	StorePath	last;
	bool		first = true;
	bool		same = true;
	size_t		len;

	if (info->nar_size == 0)
		return 0;
	len = print_head(info, text);
	while (narinfo_next_ref(&rest, &ref))
	{
		ref.dir = info->store_path.dir;
		same = same && (first || compare_refs(&last, &ref) < 0);
		len += print_ref(&ref, first, text + len);
		last = ref;
		first = false;
	}
	return same ? 0 : len;
}
