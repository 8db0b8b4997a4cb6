/*-------------------------------------------------------------------------
 *
 * order.c
 *	  In which order sources are asked: as narinfo.file_source says, but those
 *	  that did not answer lately come last.
 *
 * So a source that is down costs a wait now and then, and not each request.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "fetch/fetch.h"

#define DOWN_TIME		10000	/* ms */
#define DOWN_MAX		16		/* that are remembered */

/* By a hash of the base: to be wrong is to ask somebody later. */
static struct
{
	uint64		key;
	TimestampTz since;
}			downs[DOWN_MAX];

static uint64
key_of(const char *base)
{
	return hash_bytes_extended((const unsigned char *) base,
							   (int) strlen(base), 0);
}

void
fetch_note_down(const FetchSource *source)
{
	uint64		key = key_of(source->base);
	int			oldest = 0;

	for (int i = 0; i < DOWN_MAX && downs[oldest].key != key; i++)
	{
		if (downs[i].key == key || downs[i].since < downs[oldest].since)
			oldest = i;
	}
	downs[oldest].key = key;
	downs[oldest].since = GetCurrentTimestamp();
}

static bool
is_down(const FetchSource *source)
{
	uint64		key = key_of(source->base);

	for (int i = 0; i < DOWN_MAX; i++)
	{
		if (downs[i].key == key && downs[i].since != 0)
			return !TimestampDifferenceExceeds(downs[i].since,
											   GetCurrentTimestamp(),
											   DOWN_TIME);
	}
	return false;
}

static int
copy_those(List *list, bool down, FetchSource *sources)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, list)
	{
		const FetchSource *source = lfirst(cell);

		if (is_down(source) != down)
			continue;
		sources[n].base = pstrdup(source->base);
		sources[n].token = source->token ? pstrdup(source->token) : NULL;
		n++;
	}
	return n;
}

FetchSource *
fetch_copy_sources(List *list, int *n)
{
	FetchSource *sources = palloc(sizeof(FetchSource) *
								  (list_length(list) + 1));

	*n = copy_those(list, false, sources);
	*n += copy_those(list, true, sources + *n);
	return sources;
}
